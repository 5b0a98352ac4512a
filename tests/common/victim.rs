//! A closed directory to be damaged, over and over again.

use std::{collections::BTreeMap, fs};

use snapring::{MementoError, SnapshotId};

use super::{
    image::{A, B, Image},
    place::TempDir,
    state::{World, open, open_with, small, thawed, world},
};

fn id(n: u64) -> SnapshotId {
    SnapshotId::new(n)
}

/// A closed directory of the worlds 1 to `last`, and all its bytes to go back to.
pub(crate) struct Victim {
    pub(crate) dir: TempDir,
    pub(crate) files: [Vec<u8>; 2],
    pub(crate) lock: Vec<u8>,
    pub(crate) ids: Vec<u64>,
}

impl Victim {
    pub(crate) fn new(name: &str, last: u64) -> Victim {
        let dir = TempDir::new(name);
        let caretaker = open_with::<World>(&small().ring(6), &dir).expect("made");
        for n in 1..=last {
            caretaker.save(&world(n)).expect("saved");
        }
        let ids = caretaker.history().iter().map(|e| e.id().get()).collect();
        caretaker.close().expect("closed");
        let files = [A, B].map(|name| Image::open(&dir, name).all());
        let lock = fs::read(dir.join("writer.lock")).expect("the lock file");
        Victim { dir, files, lock, ids }
    }

    pub(crate) fn image(&self, side: usize) -> Image {
        Image::open(&self.dir, [A, B][side])
    }

    /// As it was before the damage.
    pub(crate) fn heal(&self) {
        for (name, bytes) in [A, B].into_iter().zip(&self.files) {
            if fs::read(self.dir.join(name)).ok().as_ref() != Some(bytes) {
                fs::write(self.dir.join(name), bytes).expect("healed");
            }
            _ = fs::remove_file(self.dir.join(format!("{name}.damaged")));
        }
        fs::write(self.dir.join("writer.lock"), &self.lock).expect("healed");
    }

    /// Opens it and sees that every snapshot is whole but perhaps those in `may_go`.
    pub(crate) fn survives_but(&self, may_go: &[u64], what: &str) {
        let caretaker = open(&self.dir);
        let mut left = BTreeMap::new();
        for entry in caretaker.history() {
            if let Some(found) = thawed(&caretaker, entry.id()) {
                assert_eq!(found, entry.id().get(), "{what}: another world under this id");
                left.insert(found, ());
            }
        }
        for n in &self.ids {
            let gone = !left.contains_key(n);
            assert!(!gone || may_go.contains(n), "{what}: {n} is gone: {}", caretaker.recovery());
            if gone {
                let error = caretaker.try_memento(id(*n)).expect_err("gone");
                let told = !caretaker.recovery().rejected.is_empty()
                    || !caretaker.recovery().set_aside.is_empty()
                    || matches!(error, MementoError::Rejected { .. });
                assert!(told, "{what}: nobody says why {n} is gone ({error})");
            }
        }
        let next = caretaker.save(&world(77)).expect("saving goes on").get();
        assert!(next > *self.ids.first().expect("some"), "{what}: {next} was used before");
    }
}

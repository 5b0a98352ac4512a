#![forbid(unsafe_code)]
//! Two files of a ring of two in plain memory, honest until edited, and honest again afterwards.

use std::cmp::Ordering;

use snapring::{
    Options,
    campaign::{Disk, Image, file_name, open},
};

use crate::states::Sample;

/// Bytes of each file.
pub const LEN: usize = 24 * 4096;
/// The ring's length.
pub const RING: u32 = 2;
/// Slot pages of each file.
pub const SLOTS: usize = RING as usize + 4;

/// The files, as they are and as they were.
#[derive(Debug)]
pub struct Files {
    pub image: Image,
    honest: [Vec<u8>; 2],
    /// Bytes to be put back: side, where, how many.
    touched: Vec<(usize, usize, usize)>,
}

impl Files {
    /// Files that hold samples of `T`: full ones, a labelled one and a rollback.
    pub fn of<T: Sample>() -> Files {
        let disk = Disk::new(1);
        let options = Options::new().ring(RING).file_size(LEN as u64).max_file_size(LEN as u64);
        let caretaker = open::<T>(&disk, &options).expect("an empty disk");
        let mut state = T::sample(0);
        let mut ids = Vec::new();
        for n in 0..5 {
            state.step(n);
            ids.push(caretaker.save(&state).expect("room for a few"));
        }
        _ = caretaker.rollback(&mut state, ids[3]).expect("it is listed");
        state.step(6);
        caretaker.save(&state).expect("room for one more");
        drop(caretaker);
        let honest = [0, 1].map(|side| disk.bytes(file_name(side)).expect("it was made"));
        let bytes = honest.each_ref().map(Vec::as_slice);
        let image = Image::new::<T>(bytes, &[], [7; 16]).expect("honest files");
        Files { image, honest, touched: Vec::new() }
    }

    /// A file's bytes before any edit.
    pub fn honest(&self, side: usize) -> &[u8] {
        &self.honest[side]
    }

    pub fn put(&mut self, side: usize, at: usize, bytes: &[u8]) {
        let len = bytes.len().min(LEN.saturating_sub(at));
        if len > 0 {
            self.image.put(side, at, &bytes[..len]);
            self.touched.push((side, at, len));
        }
    }

    pub fn get<const N: usize>(&self, side: usize, at: usize) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(self.image.bytes(side, at as u64, N as u64));
        array
    }

    /// Makes the files honest again.
    pub fn heal(&mut self) {
        self.heal_with(|_, _, _| {});
    }

    /// The same, and tells what is put back: side, where, and the bytes.
    pub fn heal_with(&mut self, mut told: impl FnMut(usize, usize, &[u8])) {
        for (side, at, len) in self.touched.drain(..) {
            let bytes = &self.honest[side][at..at + len];
            self.image.put(side, at, bytes);
            told(side, at, bytes);
        }
    }

    /// Tells what has been edited, as it is now: side, where, and the bytes.
    pub fn touched(&self, mut told: impl FnMut(usize, usize, &[u8])) {
        for (side, at, len) in &self.touched {
            told(*side, *at, self.image.bytes(*side, *at as u64, *len as u64));
        }
    }

    /// Recovers, and reads, thaws and restores whatever is found. Answers how many snapshots of
    /// the listed ones were whole.
    pub fn recover<T: Sample>(&self) -> usize {
        let mut whole = 0;
        let rejected = self.image.visit::<T>(|found| {
            let Ok(found) = found else { return };
            T::read(found.archived());
            let Ok(thawed) = found.thaw() else { return };
            let mut restored = T::other();
            if found.restore(&mut restored).is_ok() {
                assert_eq!(
                    restored.canonical(&thawed),
                    Ordering::Equal,
                    "restored in place it is another state than thawed"
                );
            }
            whole += 1;
        });
        for reason in rejected {
            let named = reason.contains("snapshot_") && reason.contains("place");
            assert!(named, "a refusal that does not say where: {reason}");
            assert!(reason.len() < 2000, "a refusal of {} bytes", reason.len());
        }
        whole
    }
}

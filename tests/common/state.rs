//! A state of every common kind, made from one number, and ways to open a directory of it.

use std::{collections::BTreeMap, path::Path};

use snapring::{Caretaker, Durability, OpenError, Options, Snapshot, SnapshotId};

#[derive(Snapshot, Debug, PartialEq, Clone)]
pub(crate) struct Player {
    pub(crate) name: String,
    pub(crate) hp: f32,
    pub(crate) bag: Vec<u16>,
    pub(crate) friend: Option<Box<u64>>,
}

#[derive(Snapshot, Debug, PartialEq, Clone)]
pub(crate) struct World {
    pub(crate) tick: u64,
    pub(crate) players: Vec<Player>,
    pub(crate) scores: BTreeMap<String, i32>,
}

/// The world of one number: told apart from every other by all of its parts.
pub(crate) fn world(n: u64) -> World {
    let player = |i: u64| Player {
        name: format!("player {i} of world {n}"),
        hp: n as f32 + 0.5,
        bag: (0..i as u16 + 3).map(|j| j ^ n as u16).collect(),
        friend: i.is_multiple_of(2).then(|| Box::new(n * 1000 + i)),
    };
    World {
        tick: n,
        players: (0..3 + n % 4).map(player).collect(),
        scores: (0..4).map(|i| (format!("score number {i}"), (n as i32) - i)).collect(),
    }
}

/// Small files and no disk: for directories that are opened a thousand times.
pub(crate) fn small() -> Options {
    Options::new().file_size(64 << 10).max_file_size(1 << 20).durability(Durability::Process)
}

pub(crate) fn open_with<T: Snapshot>(
    options: &Options,
    dir: &Path,
) -> Result<Caretaker<T>, OpenError> {
    // SAFETY: each test has directories of its own, and edits their files only while no caretaker
    // and no memento is alive.
    unsafe { options.open(dir) }
}

pub(crate) fn open(dir: &Path) -> Caretaker<World> {
    open_with(&small(), dir).expect("the directory opens")
}

/// The number of the world that `id` holds, if it is listed and whole; panics if it is a mixture.
pub(crate) fn thawed(caretaker: &Caretaker<World>, id: SnapshotId) -> Option<u64> {
    let memento = caretaker.try_memento(id).ok()?;
    let found = memento.thaw().expect("a whole archive thaws");
    assert_eq!(found, world(found.tick), "{id} is no world that was ever saved");
    Some(found.tick)
}

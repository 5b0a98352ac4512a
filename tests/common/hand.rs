//! A ring passed from hand to hand, in one process: descriptors and locks do not care.

use std::{
    path::Path,
    thread::{self, JoinHandle},
    time::Duration,
};

use snapring::{Caretaker, HandOver, OpenError, SnapshotId};

use super::{World, open_with, small, world};

pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn id(n: u64) -> SnapshotId {
    SnapshotId::new(n)
}

pub(crate) fn successor(dir: &Path, timeout: Duration) -> Result<Caretaker<World>, OpenError> {
    open_with(&small().take_over(timeout), dir)
}

/// A successor in a thread of its own: descriptors and locks do not care for processes.
pub(crate) fn start(dir: &Path) -> JoinHandle<Result<Caretaker<World>, OpenError>> {
    let dir = dir.to_owned();
    thread::spawn(move || successor(&dir, LONG))
}

pub(crate) fn offered(caretaker: &Caretaker<World>) -> HandOver {
    caretaker.hand_over().expect("offered").patience(LONG)
}

pub(crate) fn ready(offer: HandOver) -> HandOver {
    offer.wait(LONG).expect("a successor is ready");
    offer
}

/// Saves the worlds `from..=to`.
pub(crate) fn save(caretaker: &Caretaker<World>, from: u64, to: u64) {
    for n in from..=to {
        caretaker.save(&world(n)).expect("saved");
    }
}

/// It has the ring, and goes on with it.
pub(crate) fn goes_on(caretaker: &Caretaker<World>) {
    let last = caretaker.head().map_or(0, SnapshotId::get);
    let saved = caretaker.save(&world(last + 1)).expect("it saves");
    assert_eq!(saved, id(last + 1));
    assert_eq!(caretaker.resume().expect("whole"), Some(world(last + 1)));
    caretaker.keep(saved, "gone on").expect("kept");
}

/// A world of the next build.
pub(crate) mod next {
    use snapring::Snapshot;

    #[derive(Snapshot, Debug, PartialEq, Clone)]
    pub(crate) struct World {
        pub(crate) tick: u64,
        pub(crate) players: Vec<super::super::state::Player>,
        pub(crate) scores: std::collections::BTreeMap<String, i32>,
        pub(crate) weather: u8,
    }
}

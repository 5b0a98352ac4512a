#![forbid(unsafe_code)]
//! A live state that goes to and fro between two snapshots, so that every way back really changes
//! it.

use snapring::{Memento, Snapshot, SnapshotId};

use crate::{by_hand::PutBack, place::Place, ring::Ring};

/// A ring with two snapshots that stay, and a state that is one of them.
#[derive(Debug)]
pub struct Swing<T: Snapshot> {
    live: T,
    turn: usize,
    ids: [SnapshotId; 2],
    // Before the ring, so that they are dropped before.
    mementos: [Memento<T>; 2],
    ring: Ring<T>,
}

impl<T: Snapshot> Swing<T> {
    /// Between two states. Panics where they cannot be saved.
    pub fn new(place: Place, one: T, other: T) -> Swing<T> {
        let ring = Ring::new(place, 8);
        let ids = [&one, &other].map(|state| ring.save(state).expect("a save"));
        for (id, label) in ids.into_iter().zip(["one", "other"]) {
            ring.keep(id, label).expect("a label");
        }
        let mementos = ids.map(|id| ring.memento(id).expect("what was just saved"));
        Swing { live: other, turn: 0, ids, mementos, ring }
    }

    /// The snapshot that the state is not.
    fn next(&mut self) -> usize {
        let to = self.turn % 2;
        self.turn += 1;
        to
    }

    /// There by the engine: restored in place and published.
    pub fn roll_back(&mut self) {
        let to = self.next();
        _ = self.ring.rollback(&mut self.live, self.ids[to]).expect("a rollback");
    }

    /// There by hand: put back in place from the same bytes.
    pub fn put_back(&mut self)
    where
        T: PutBack,
    {
        let to = self.next();
        self.live.put_back(self.mementos[to].archived());
    }

    /// There by a new value in place of the old.
    pub fn replace(&mut self) {
        let to = self.next();
        self.live = self.mementos[to].thaw().expect("a new value");
    }

    /// The state.
    pub fn live(&self) -> &T {
        &self.live
    }
}

#![forbid(unsafe_code)]
//! What the engine's lock puts in order, model-checked: keeping beside eviction, capturing beside
//! rolling back. Every interleaving that loom can tell apart; run by `scripts/loom.sh`.
//!
//! The head is the real ring's; the lock and what is under it are modelled, as little as will do.
//! Each `mutant_` test breaks one rule and must fail.

use std::collections::VecDeque;

use loom::{
    model::Builder,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};

use crate::ring::{Ring, Word};

/// A rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// `keep` looks whether the snapshot is listed, lets the lock go, and marks it then.
    LookThenKeep,
    /// Eviction takes the oldest, kept or not.
    EvictKept,
    /// The label is moved in two steps: let go, then set.
    LetGoThenKeep,
    /// A rollback compares the head before it is the mover.
    CompareThenMove,
    /// A save does not wait for the mover.
    SaveBesideMover,
    /// A rollback moves beside another.
    MoveBesideMover,
}

/// Snapshots that the engine lists, in a ring of two besides the kept one.
struct Desk {
    /// Id and parent, newest first.
    listed: VecDeque<(u64, u64)>,
    kept: Option<u64>,
    next: u64,
    mover: Option<usize>,
}

struct Engine {
    ring: Ring,
    desk: Mutex<Desk>,
    settled: Condvar,
    broken: Broken,
}

const RING: usize = 2;

impl Engine {
    /// One whose head is snapshot 1.
    fn open(broken: Broken) -> Engine {
        let ring = Ring::new(4);
        let moved = ring.swing(Word::NONE, Word::new(1, 1));
        assert!(moved.is_ok(), "nobody else moves the head");
        let desk = Desk { listed: VecDeque::from([(1, 0)]), kept: None, next: 2, mover: None };
        Engine { ring, desk: Mutex::new(desk), settled: Condvar::new(), broken }
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().expect("no panic")
    }

    fn head(&self) -> u64 {
        self.ring.head().id()
    }

    /// Seals a snapshot, swings the head, evicts.
    fn publish(&self, desk: &mut Desk) -> u64 {
        let id = desk.next;
        desk.next += 1;
        let before = self.ring.head();
        let moved = self.ring.swing(before, Word::new(id, id as usize % 4));
        assert!(moved.is_ok(), "P2: the head moves under the lock alone");
        desk.listed.push_front((id, before.id()));
        if desk.listed.len() > RING {
            let kept = desk.kept.filter(|_| self.broken != Broken::EvictKept);
            let oldest = desk.listed.iter().rposition(|(id, _)| Some(*id) != kept);
            desk.listed.remove(oldest.expect("more than one"));
        }
        id
    }

    /// A save, or the end of a capture: waits until nobody rolls back.
    fn save(&self) -> u64 {
        let mut desk = self.lock();
        while desk.mover.is_some() && self.broken != Broken::SaveBesideMover {
            desk = self.settled.wait(desk).expect("no panic");
        }
        self.publish(&mut desk)
    }

    /// A rollback from `expected`, if the head still is that. Answers its id.
    fn rollback_from(&self, me: usize, expected: u64) -> Result<u64, u64> {
        let early = self.head();
        {
            let mut desk = self.lock();
            while desk.mover.is_some() && self.broken != Broken::MoveBesideMover {
                desk = self.settled.wait(desk).expect("no panic");
            }
            desk.mover = Some(me);
        }
        let now = if self.broken == Broken::CompareThenMove { early } else { self.head() };
        let outcome = if now == expected {
            // The state is restored here, without the lock.
            thread::yield_now();
            let id = self.publish(&mut self.lock());
            Ok(id)
        } else {
            Err(now)
        };
        self.lock().mover = None;
        self.settled.notify_all();
        outcome
    }

    fn keep(&self, id: u64) -> bool {
        let mut desk = self.lock();
        if !desk.listed.iter().any(|(listed, _)| *listed == id) {
            return false;
        }
        match self.broken {
            Broken::LookThenKeep => {
                drop(desk);
                desk = self.lock();
            }
            Broken::LetGoThenKeep => {
                desk.kept = None;
                drop(desk);
                desk = self.lock();
            }
            _ => {}
        }
        desk.kept = Some(id);
        true
    }

    fn is_listed(&self, id: u64) -> bool {
        self.lock().listed.iter().any(|(listed, _)| *listed == id)
    }

    fn parent_of(&self, id: u64) -> Option<u64> {
        self.lock().listed.iter().find(|(listed, _)| *listed == id).map(|(_, parent)| *parent)
    }
}

fn check(broken: Broken, model: impl Fn(&Arc<Engine>) + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(4);
    builder.check(move || model(&Arc::new(Engine::open(broken))));
}

fn with<R: 'static>(
    engine: &Arc<Engine>,
    deed: impl FnOnce(&Engine) -> R + 'static,
) -> thread::JoinHandle<R> {
    let engine = engine.clone();
    thread::spawn(move || deed(&engine))
}

/// What is kept stays, from the moment that `keep` says so.
fn keep_beside_eviction(engine: &Arc<Engine>) {
    let keeper = with(engine, |engine| {
        if engine.keep(1) {
            assert!(engine.is_listed(1), "kept, and gone");
        }
    });
    for _ in 0..3 {
        engine.save();
    }
    keeper.join().expect("no panic");
}

/// What was kept before is kept again, and never between.
fn keep_again_beside_eviction(engine: &Arc<Engine>) {
    assert!(engine.keep(1), "it is the head");
    let keeper = with(engine, |engine| assert!(engine.keep(1), "kept, and gone"));
    for _ in 0..3 {
        engine.save();
    }
    keeper.join().expect("no panic");
    assert!(engine.is_listed(1), "kept, and gone");
}

/// A rollback goes back from the head that it was told, or not at all.
fn capture_beside_rollback(engine: &Arc<Engine>) {
    let expected = engine.head();
    let capture = with(engine, Engine::save);
    match engine.rollback_from(1, expected) {
        Ok(id) => assert_eq!(engine.parent_of(id), Some(expected), "from another head"),
        Err(now) => assert_ne!(now, expected, "raced, and the head had not moved"),
    }
    let captured = capture.join().expect("no panic");
    assert!(captured > 1 && engine.head() >= captured, "P2: the head only grows");
}

/// Of two rollbacks from one head one goes back.
fn rollback_beside_rollback(engine: &Arc<Engine>) {
    let expected = engine.head();
    let other = with(engine, move |engine| engine.rollback_from(2, expected));
    let mine = engine.rollback_from(1, expected);
    let other = other.join().expect("no panic");
    assert!(mine.is_ok() != other.is_ok(), "both or none: {mine:?} and {other:?}");
}

#[test]
fn what_is_kept_stays_beside_eviction() {
    check(Broken::Nothing, keep_beside_eviction);
    check(Broken::Nothing, keep_again_beside_eviction);
}

#[test]
fn a_rollback_leaves_the_head_it_was_told() {
    check(Broken::Nothing, capture_beside_rollback);
    check(Broken::Nothing, rollback_beside_rollback);
}

#[test]
#[should_panic]
fn mutant_keep_in_two_steps() {
    check(Broken::LookThenKeep, keep_beside_eviction);
}

#[test]
#[should_panic]
fn mutant_label_let_go_first() {
    check(Broken::LetGoThenKeep, keep_again_beside_eviction);
}

#[test]
#[should_panic]
fn mutant_eviction_of_what_is_kept() {
    check(Broken::EvictKept, keep_beside_eviction);
}

#[test]
#[should_panic]
fn mutant_head_compared_before_moving() {
    check(Broken::CompareThenMove, capture_beside_rollback);
}

#[test]
#[should_panic]
fn mutant_save_that_does_not_wait() {
    check(Broken::SaveBesideMover, capture_beside_rollback);
}

#[test]
#[should_panic]
fn mutant_two_movers() {
    check(Broken::MoveBesideMover, rollback_beside_rollback);
}

//! The engine itself under shuttle: threads that save, read, hold, keep, capture, roll back and
//! flush, in random schedules; and rules broken by name, each of which must be noticed. Run by
//! `scripts/shuttle.sh`.
//!
//! shuttle switches threads at locks and atomics, and tells nothing of stale values: those are for
//! the loom models, as is a reader that looks before it announces, for which too many saves must come
//! between two of its steps. In return it runs the whole engine rather than a model of it.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{Arc, Mutex},
};

use rkyv::{
    Place,
    primitive::ArchivedU64 as u64_le,
    rancor::BoxedError,
    with::{ArchiveWith, DeserializeWith, SerializeWith},
};
use shuttle::thread;

use crate::{
    Caretaker, KeepError, MementoError, Options, RollbackError, Session, Snapshot, SnapshotId,
    Thaw,
    caretaker::check,
    mutants::Mutant,
    schema::Layout,
    sim::{Disk, Random},
    snapshot::Archived,
};

/// Every part of it is told by `tick`.
#[derive(Snapshot, Clone, PartialEq, Debug)]
struct World {
    rows: Vec<u64>,
    #[snapshot(with = Slow)]
    tick: u64,
}

impl World {
    fn at(tick: u64) -> World {
        World { rows: vec![tick; 6], tick }
    }
}

/// Archives a number, and lets others come by in the middle of it.
#[derive(Debug)]
struct Slow;

impl ArchiveWith<u64> for Slow {
    type Archived = u64_le;
    type Resolver = ();

    fn resolve_with(field: &u64, (): (), out: Place<u64_le>) {
        out.write(u64_le::from_native(*field));
    }
}

impl SerializeWith<u64, Session> for Slow {
    fn serialize_with(_: &u64, _: &mut Session) -> Result<(), BoxedError> {
        thread::yield_now();
        Ok(())
    }
}

impl DeserializeWith<u64_le, u64, Thaw> for Slow {
    fn deserialize_with(field: &u64_le, _: &mut Thaw) -> Result<u64, BoxedError> {
        Ok(field.to_native())
    }
}

/// The tick, if every part agrees, also after others have come by.
fn whole(world: &Archived<World>) -> u64 {
    let tick = world.tick.to_native();
    for _ in 0..2 {
        assert!(world.rows.iter().all(|row| *row == tick), "P1: rows of another tick");
        assert_eq!(world.tick, tick, "P1: another tick");
        thread::yield_now();
    }
    tick
}

/// A ring in memory without a background thread, whose head is the world at 1.
fn ring(len: u32) -> Arc<Caretaker<World>> {
    let options = Options::new().ring(len).max_file_size(1 << 20);
    let layout = Arc::new(Layout::of::<World>());
    let engine = crate::open::in_memory(&options, layout, check::<World>).expect("memory");
    let ring = Caretaker::without_thread(engine);
    ring.save(&World::at(1)).expect("saves");
    Arc::new(ring)
}

/// A thread with the ring.
fn with(
    ring: &Arc<Caretaker<World>>,
    deed: impl FnOnce(&Caretaker<World>) + Send + 'static,
) -> thread::JoinHandle<()> {
    let ring = ring.clone();
    thread::spawn(move || deed(&ring))
}

fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().expect("no panic");
    }
}

fn schedules() -> usize {
    let asked = std::env::var("SNAPRING_SCHEDULES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(500)
}

/// Every schedule holds: of any kind, and of those in which threads wait long and rarely.
fn holds(model: fn()) {
    shuttle::check_random(model, schedules().div_ceil(2));
    shuttle::check_pct(model, schedules().div_ceil(2), SWITCHES);
}

/// Switches that matter, in schedules that are otherwise a matter of rank.
const SWITCHES: usize = 3;

/// With a rule broken, some schedule of the first many does not. In a process of its own: what then
/// happens may be anything.
fn notices(test: &str, mutant: Mutant, model: fn()) {
    const BROKEN: &str = "SNAPRING_BROKEN";
    if std::env::var_os(BROKEN).is_some() {
        mutant.break_rule();
        shuttle::check_random(model, 5_000);
        return shuttle::check_pct(model, 20_000, SWITCHES);
    }
    let program = std::env::current_exe().expect("this program");
    let test = format!("shuttle_models::{test}");
    let child = Command::new(program).args([&test, "--exact"]).env(BROKEN, "1").output();
    let child = child.expect("a child");
    assert!(String::from_utf8_lossy(&child.stdout).contains("running 1 test"), "{test} is there");
    assert!(!child.status.success(), "{mutant:?} went unnoticed");
}

// The models.

fn publish_beside_readers() {
    let ring = ring(2);
    let read = |ring: &Caretaker<World>| {
        let mut newest = 0;
        for _ in 0..2 {
            let seen = ring.read(|world| {
                let outer = whole(world);
                ring.read(|inner| assert!(whole(inner) >= outer, "P2: the head went back"));
                whole(world)
            });
            let seen = seen.expect("there is a head");
            assert!(seen >= newest, "P2: the head went back");
            newest = seen;
        }
    };
    let write = |ring: &Caretaker<World>| {
        for tick in 2..12 {
            ring.save(&World::at(tick)).expect("P7: a reader keeps nobody waiting");
        }
    };
    join([with(&ring, read), with(&ring, read), with(&ring, write)]);
    assert_eq!(ring.stats().saves, 11);
}

/// One look, and many publishings beside it.
fn publish_beside_a_look() {
    let ring = ring(2);
    let read = |ring: &Caretaker<World>| {
        _ = ring.read(whole).expect("there is a head");
    };
    let write = |ring: &Caretaker<World>| {
        for tick in 2..30 {
            ring.save(&World::at(tick)).expect("P7: a reader keeps nobody waiting");
        }
    };
    join([with(&ring, read), with(&ring, write)]);
}

fn two_writers_and_holders() {
    let ring = ring(3);
    // Which world was saved under which id, and which was seen. Never waited for.
    let saved = Arc::new(Mutex::new(BTreeMap::from([(1, 1)])));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let write = |from: u64| {
        let saved = saved.clone();
        move |ring: &Caretaker<World>| {
            for tick in from..from + 6 {
                let id = ring.save(&World::at(tick)).expect("saves");
                saved.lock().expect("no panic").insert(id.get(), tick);
            }
        }
    };
    let hold = || {
        let seen = seen.clone();
        move |ring: &Caretaker<World>| {
            for entry in (0..3).flat_map(|_| ring.history()) {
                match ring.try_memento(entry.id()) {
                    Ok(memento) => {
                        let tick = whole(&memento);
                        seen.lock().expect("no panic").push((entry.id().get(), tick));
                        let other = memento.clone();
                        drop(memento);
                        assert_eq!(whole(&other), tick, "P1: a held snapshot changed");
                    }
                    Err(MementoError::Evicted { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    let threads =
        [with(&ring, write(10)), with(&ring, write(20)), with(&ring, hold()), with(&ring, hold())];
    join(threads);
    let saved = saved.lock().expect("no panic");
    for (id, tick) in seen.lock().expect("no panic").iter() {
        assert_eq!(saved.get(id), Some(tick), "P1: another world under #{id}");
    }
    assert_eq!(ring.head().map(SnapshotId::get), Some(13), "P2: no publishing is lost");
    assert_eq!(ring.stats().mementos, 0);
}

fn keep_beside_eviction() {
    let ring = ring(4);
    let keep = |label: &'static str| {
        move |ring: &Caretaker<World>| {
            let id = ring.head().expect("there is a head");
            match ring.keep(id, label) {
                Ok(()) => {
                    thread::yield_now();
                    let kept = ring.try_memento(id).expect("kept, so listed");
                    let tick = whole(&kept);
                    let entry = ring.history().into_iter().find(|entry| entry.id() == id);
                    let entry = entry.expect("kept, so listed");
                    // The other keeper may have taken the same one, under its own label.
                    assert!(entry.label().is_some(), "kept without a label");
                    assert!(whole(&kept) == tick);
                }
                Err(KeepError::Gone { .. } | KeepError::Full { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    let write = |ring: &Caretaker<World>| {
        for tick in 2..12 {
            ring.save(&World::at(tick)).expect("saves");
        }
    };
    join([with(&ring, keep("a")), with(&ring, keep("b")), with(&ring, write)]);
    assert!(ring.history().len() == 4);
}

fn capture_beside_rollback() {
    let ring = ring(8);
    let first = ring.head().expect("there is a head");
    let capture = |ring: &Caretaker<World>| {
        let mut last = 0;
        for tick in 2..5 {
            let pending = ring.capture(&World::at(tick)).expect("captures");
            let id = pending.wait().expect("saves").get();
            assert!(id > last, "captures are published in their order");
            last = id;
        }
    };
    let back = move |ring: &Caretaker<World>| {
        let mut state = World::at(99);
        let expected = ring.head().expect("there is a head");
        match ring.rollback_from(expected, &mut state, first) {
            Ok(rollback) => {
                assert_eq!(state, World::at(1));
                let history = ring.history();
                let entry = history.iter().find(|entry| entry.id() == rollback.id());
                let parent = entry.and_then(|entry| entry.parent());
                assert_eq!(parent, Some(expected), "P5: it went back from another head");
                assert_eq!(rollback.from(), Some(expected));
            }
            Err(RollbackError::Raced { now }) => {
                assert_ne!(now, Some(expected), "raced, and the head had not moved");
                assert_eq!(state, World::at(99), "P5: refused before any change");
            }
            Err(error) => panic!("{error}"),
        }
    };
    join([with(&ring, capture), with(&ring, back), with(&ring, back)]);
    let history = ring.history();
    assert!(history.windows(2).all(|w| w[0].parent() == Some(w[1].id())), "one line of parents");
}

/// A guarded change and a save of another thread beside it.
fn guard_beside_saves() {
    let ring = ring(4);
    let guarded = |ring: &Caretaker<World>| {
        let mut state = World::at(5);
        let outcome = ring.guard(&mut state, |state| {
            thread::yield_now();
            state.tick = 77;
            Err::<(), _>("no")
        });
        assert!(outcome.is_err());
        assert_eq!(state, World::at(5), "P5: a mixture");
    };
    let write = |ring: &Caretaker<World>| {
        for tick in 2..5 {
            ring.save(&World::at(tick)).expect("saves");
        }
    };
    join([with(&ring, guarded), with(&ring, guarded), with(&ring, write)]);
}

/// A flush beside saves on a disk; then power is lost.
fn flush_beside_saves() {
    let disk = Disk::new(7);
    let options = Options::new().ring(3).file_size(128 << 10).max_file_size(256 << 10);
    let open = |disk: &Disk| crate::campaign::open::<World>(disk, &options).expect("opens");
    let ring = Arc::new(open(&disk));
    let write = |ring: &Caretaker<World>| {
        for tick in 1..6 {
            ring.save(&World::at(tick)).expect("saves");
        }
    };
    let flush = |ring: &Caretaker<World>| {
        for _ in 0..2 {
            _ = ring.flush().expect("flushes");
        }
    };
    let cut = {
        let disk = disk.clone();
        move |ring: &Caretaker<World>| {
            // What is covered before the cut is there after it.
            let covered = ring.durable();
            let listed: Vec<SnapshotId> = ring.history().iter().map(|entry| entry.id()).collect();
            let after = disk.cut(&mut Random::new(listed.len() as u64));
            let oldest = ring.history().last().map(|entry| entry.id());
            let options = Options::new().ring(3).file_size(128 << 10).max_file_size(256 << 10);
            let again = crate::campaign::open::<World>(&after, &options).expect("opens");
            let still = listed.into_iter().filter(|id| Some(*id) <= covered && Some(*id) >= oldest);
            for id in still {
                let found = again.try_memento(id);
                assert!(found.is_ok_and(|m| whole(&m) > 0), "P4: {id} was durable");
            }
            crate::campaign::kill(again);
        }
    };
    join([with(&ring, write), with(&ring, flush), with(&ring, flush), with(&ring, cut)]);
}

// What must hold.

#[test]
fn shuttle_publish_beside_readers() {
    holds(publish_beside_readers);
}

#[test]
fn shuttle_publish_beside_a_look() {
    holds(publish_beside_a_look);
}

#[test]
fn shuttle_two_writers_and_holders() {
    holds(two_writers_and_holders);
}

#[test]
fn shuttle_keep_beside_eviction() {
    holds(keep_beside_eviction);
}

#[test]
fn shuttle_capture_beside_rollback() {
    holds(capture_beside_rollback);
}

#[test]
fn shuttle_guard_beside_saves() {
    holds(guard_beside_saves);
}

#[test]
fn shuttle_flush_beside_saves() {
    holds(flush_beside_saves);
}

// Rules broken once.

#[test]
fn shuttle_notices_a_held_place_used_again() {
    notices("shuttle_notices_a_held_place_used_again", Mutant::ReuseHeld, two_writers_and_holders);
}

#[test]
fn shuttle_notices_a_memento_counted_after_the_lock() {
    notices(
        "shuttle_notices_a_memento_counted_after_the_lock",
        Mutant::HoldWithoutLock,
        two_writers_and_holders,
    );
}

#[test]
fn shuttle_notices_a_head_compared_before_the_lock() {
    notices(
        "shuttle_notices_a_head_compared_before_the_lock",
        Mutant::CompareThenLock,
        capture_beside_rollback,
    );
}

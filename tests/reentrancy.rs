//! Calls from inside calls: user code that runs while a state is archived or restored, and two
//! threads of which one must wait.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rkyv::{
    Place,
    rancor::BoxedError,
    rend::u64_le,
    with::{ArchiveWith, DeserializeWith, SerializeWith},
};
use snapring::{
    Caretaker, Kind, Options, ResumeError, RollbackError, SaveError, Session, Snapshot, SnapshotId,
    Thaw,
};

type Ring = Arc<Caretaker<World>>;
type Hook = Rc<dyn Fn()>;

thread_local! {
    /// What a wrapper does when it is called to archive.
    static WHEN_ARCHIVED: RefCell<Option<Hook>> = const { RefCell::new(None) };
    /// What a drop does.
    static WHEN_DROPPED: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// Calls a hook once.
fn call(hook: &'static thread::LocalKey<RefCell<Option<Hook>>>) {
    let hook = hook.with_borrow_mut(Option::take);
    if let Some(hook) = hook {
        hook();
    }
}

#[derive(Snapshot, Debug, PartialEq, Clone)]
struct World {
    #[snapshot(with = Calling)]
    tick: u64,
    parts: Vec<Part>,
}

#[derive(Snapshot, Debug, PartialEq, Clone)]
struct Part {
    text: String,
}

impl Drop for Part {
    fn drop(&mut self) {
        call(&WHEN_DROPPED);
    }
}

struct Calling;

impl ArchiveWith<u64> for Calling {
    type Archived = u64_le;
    type Resolver = ();

    fn resolve_with(tick: &u64, (): (), out: Place<u64_le>) {
        out.write((*tick).into());
    }
}

impl SerializeWith<u64, Session> for Calling {
    fn serialize_with(_: &u64, _: &mut Session) -> Result<(), BoxedError> {
        call(&WHEN_ARCHIVED);
        Ok(())
    }
}

impl DeserializeWith<u64_le, u64, Thaw> for Calling {
    fn deserialize_with(tick: &u64_le, _: &mut Thaw) -> Result<u64, BoxedError> {
        Ok(tick.to_native())
    }
}

fn world(tick: u64) -> World {
    let part = |i| Part { text: format!("{i} of {tick}") };
    World { tick, parts: (0..tick % 5).map(part).collect() }
}

fn open() -> Ring {
    Arc::new(Options::new().in_memory().expect("opens"))
}

/// Runs `run` with a hook set; answers whether the hook was called.
fn hooked(
    hook: &'static thread::LocalKey<RefCell<Option<Hook>>>,
    act: impl Fn() + 'static,
    run: impl FnOnce(),
) -> bool {
    hook.set(Some(Rc::new(act)));
    run();
    hook.take().is_none()
}

#[test]
fn a_call_from_a_wrapper_is_refused_and_the_save_goes_on() {
    let ring = open();
    let id = ring.save(&world(1)).expect("saves");
    let inner = ring.clone();
    let calls = move || {
        assert!(matches!(inner.save(&world(9)), Err(SaveError::Reentrant)));
        assert!(matches!(inner.capture(&world(9)), Err(SaveError::Reentrant)));
        let mut live = world(9);
        assert!(matches!(inner.rollback(&mut live, id), Err(RollbackError::Reentrant)));
        assert!(matches!(inner.resume_into(&mut live), Err(ResumeError::Reentrant)));
        assert_eq!(live, world(9));
        // What only looks is welcome.
        assert_eq!(inner.head(), Some(id));
        assert_eq!(inner.read(|world| world.tick.to_native()), Some(1));
        assert_eq!(inner.latest().expect("saved").thaw().expect("thaws"), world(1));
        assert_eq!(inner.history().len(), 1);
        assert!(inner.stats().held.is_empty());
        inner.keep(id, "first").expect("keeps");
    };
    let called = hooked(&WHEN_ARCHIVED, calls, || {
        ring.save(&world(2)).expect("the outer one succeeds");
    });
    assert!(called);
    assert_eq!(ring.resume().expect("thaws"), Some(world(2)));
    assert_eq!(ring.stats().saves, 2);
    ring.save(&world(3)).expect("nothing is left behind");
}

#[test]
fn a_call_from_a_drop_is_refused_and_the_rollback_goes_on() {
    let ring = open();
    let first = ring.save(&world(1)).expect("saves");
    let second = ring.save(&world(4)).expect("saves");
    let inner = ring.clone();
    let calls = move || {
        assert!(matches!(inner.save(&world(9)), Err(SaveError::Reentrant)));
        let mut live = world(9);
        assert!(matches!(inner.rollback(&mut live, first), Err(RollbackError::Reentrant)));
        assert_eq!(inner.head(), Some(second));
        assert_eq!(inner.read(|world| world.tick.to_native()), Some(4));
    };
    let mut live = world(4);
    let called = hooked(&WHEN_DROPPED, calls, || {
        let rollback = ring.rollback(&mut live, first).expect("the outer one succeeds");
        assert_eq!(ring.head(), Some(rollback.id()));
    });
    assert!(called);
    assert_eq!(live, world(1));
}

#[test]
fn another_caretaker_may_be_called_from_anywhere() {
    let (ring, other) = (open(), open());
    let first = ring.save(&world(1)).expect("saves");
    let inner = other.clone();
    let called = hooked(
        &WHEN_ARCHIVED,
        move || _ = inner.save(&world(7)).expect("another one"),
        || _ = ring.save(&world(4)).expect("saves"),
    );
    assert!(called);
    assert_eq!(other.resume().expect("thaws"), Some(world(7)));
    let inner = other.clone();
    let mut live = world(4);
    let called = hooked(
        &WHEN_DROPPED,
        move || {
            let mut live = world(8);
            let id = inner.save(&live).expect("another one");
            _ = inner.rollback(&mut live, id).expect("another one");
        },
        || _ = ring.rollback(&mut live, first).expect("rolls back"),
    );
    assert!(called);
    assert_eq!(live, world(1));
    assert_eq!(other.stats().rollbacks, 1);
}

#[test]
fn a_change_under_guard_may_save_and_roll_back() {
    let ring = open();
    let mut live = world(1);
    let first = ring.save(&live).expect("saves");
    let answer = ring.guard(&mut live, |live| {
        *live = world(2);
        ring.save(live).map_err(|e| e.to_string())?;
        _ = ring.rollback(live, first).map_err(|e| e.to_string())?;
        ring.save(live).map_err(|e| e.to_string())
    });
    assert_eq!(answer.expect("saves"), ring.head().expect("saved"));
    assert_eq!(live, world(1));
}

#[test]
fn a_read_may_save_and_roll_back() {
    let ring: Ring = Arc::new(Options::new().ring(2).in_memory().expect("opens"));
    let first = ring.save(&world(1)).expect("saves");
    ring.keep(first, "none can be kept in a ring of two").expect_err("full");
    let mut live = world(3);
    let seen = ring.read(|archived| {
        for tick in 2..50 {
            ring.save(&world(tick)).expect("no save waits for this read");
        }
        let head = ring.head().expect("saved");
        _ = ring.rollback(&mut live, head).expect("nor does a rollback");
        assert_eq!(ring.read(|inner| inner.tick.to_native()), Some(49));
        // The place announced is the same all along.
        assert_eq!(archived.parts.len(), 1);
        assert_eq!(archived.parts[0].text.as_str(), "0 of 1");
        archived.tick.to_native()
    });
    assert_eq!(seen, Some(1));
    assert_eq!(live, world(49));
    assert!(ring.try_memento(first).is_err());
}

/// A save that finds another thread rolling back comes after it.
#[test]
fn a_save_waits_for_another_threads_rollback() {
    let ring = open();
    let first = ring.save(&world(1)).expect("saves");
    let second = ring.save(&world(4)).expect("saves");
    let (in_drop, is_in_drop) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let saved = AtomicBool::new(false);
    thread::scope(|scope| {
        // Dropped where this panics, so that the rollback ends.
        let go_on = go_on;
        let roller = scope.spawn({
            let ring = ring.clone();
            move || {
                let mut live = world(4);
                let may_go_on = RefCell::new(may_go_on);
                let waits = move || {
                    in_drop.send(()).expect("listened to");
                    may_go_on.borrow().recv().expect("told");
                };
                let mut rollback = None;
                assert!(hooked(&WHEN_DROPPED, waits, || {
                    rollback = Some(ring.rollback(&mut live, first).expect("rolls back"));
                }));
                rollback.expect("was made")
            }
        });
        is_in_drop.recv().expect("a rollback");
        let (ring, saved) = (&ring, &saved);
        let savers: Vec<_> = (5..8)
            .map(|tick| {
                scope.spawn(move || {
                    let id = ring.save(&world(tick)).expect("saves");
                    saved.store(true, Ordering::SeqCst);
                    id
                })
            })
            .collect();
        // Readers do not wait.
        assert_eq!(ring.read(|world| world.tick.to_native()), Some(4));
        thread::sleep(Duration::from_millis(40));
        assert!(!saved.load(Ordering::SeqCst), "a save came in the middle of a rollback");
        assert_eq!(ring.head(), Some(second));
        go_on.send(()).expect("a rollback");
        let rollback = roller.join().expect("no panic");
        assert_eq!((rollback.from(), rollback.to()), (Some(second), first));
        for saver in savers {
            assert!(saver.join().expect("no panic") > rollback.id());
        }
        let history = ring.history();
        let entry = history.iter().find(|entry| entry.kind() == Kind::Rollback).expect("is listed");
        assert_eq!((entry.id(), entry.parent()), (rollback.id(), Some(second)));
        assert_eq!(history[2].parent(), Some(rollback.id()));
    });
}

/// A rollback waits for another one, and each state is whole.
#[test]
fn rollbacks_of_two_threads_come_one_after_the_other() {
    let ring = open();
    let ids: Vec<_> = (1..=5).map(|tick| ring.save(&world(tick)).expect("saves")).collect();
    for (id, label) in ids.iter().zip(["a", "b", "c", "d", "e"]) {
        ring.keep(*id, label).expect("keeps");
    }
    thread::scope(|scope| {
        for start in 0..4_usize {
            let (ring, ids) = (&ring, &ids);
            scope.spawn(move || {
                let mut live = world(3);
                for round in 0..100 {
                    let pick = (start + round) % 5;
                    let rollback = ring.rollback(&mut live, ids[pick]).expect("rolls back");
                    assert_eq!(live, world(pick as u64 + 1));
                    assert!(rollback.from().is_some_and(|from| from < rollback.id()));
                }
            });
        }
    });
    assert_eq!(ring.stats().rollbacks, 400);
    let history = ring.history();
    for pair in history.windows(2).take(10) {
        assert_eq!(pair[0].parent(), Some(pair[1].id()));
    }
}

/// Saves that have stopped in the middle of archiving, and what lets them go on.
struct Stopped<'scope> {
    gates: Vec<mpsc::Sender<()>>,
    savers: Vec<thread::ScopedJoinHandle<'scope, Result<SnapshotId, SaveError>>>,
    /// How many have a place, and so could start.
    inside: usize,
}

impl<'scope> Stopped<'scope> {
    fn start<'env>(
        scope: &'scope thread::Scope<'scope, 'env>,
        ring: &'scope Ring,
        saves: u64,
    ) -> Self {
        let (started, starts) = mpsc::channel();
        let mut stopped = Stopped { gates: Vec::new(), savers: Vec::new(), inside: 0 };
        for tick in 0..saves {
            let (open, gate) = mpsc::channel::<()>();
            let started = started.clone();
            stopped.gates.push(open);
            stopped.savers.push(scope.spawn(move || {
                let gate = RefCell::new(gate);
                let waits = move || {
                    // Nobody counts those who come later.
                    _ = started.send(());
                    gate.borrow().recv().expect("told");
                };
                let mut saved = None;
                hooked(&WHEN_ARCHIVED, waits, || saved = Some(ring.save(&world(tick))));
                saved.expect("was tried")
            }));
        }
        while starts.recv_timeout(Duration::from_millis(100)).is_ok() {
            stopped.inside += 1;
        }
        stopped
    }

    fn go_on(self) {
        for gate in self.gates {
            gate.send(()).expect("a save");
        }
        for saver in self.savers {
            saver.join().expect("no panic").expect("there is a place in the end");
        }
    }
}

/// More saves at one moment than a side has places: each waits its turn, and nothing leaves for it.
#[test]
fn more_saves_than_places_at_one_moment() {
    let ring: Ring = Arc::new(Options::new().ring(2).in_memory().expect("opens"));
    ring.save(&world(1)).expect("saves");
    thread::scope(|scope| {
        let stopped = Stopped::start(scope, &ring, 12);
        assert!((4..12).contains(&stopped.inside), "{} at once", stopped.inside);
        assert_eq!(ring.history().len(), 1);
        stopped.go_on();
    });
    assert_eq!(ring.stats().saves, 13);
    assert_eq!(ring.history().len(), 2);
}

/// The same beside a rollback to the side whose places are all taken.
#[test]
fn a_rollback_beside_more_saves_than_places() {
    let ring: Ring = Arc::new(Options::new().ring(2).in_memory().expect("opens"));
    let first = ring.save(&world(1)).expect("saves");
    ring.save(&world(4)).expect("saves");
    thread::scope(|scope| {
        let stopped = Stopped::start(scope, &ring, 12);
        let roller = scope.spawn(|| {
            let mut live = world(9);
            let outcome = ring.rollback(&mut live, first);
            (outcome, live)
        });
        thread::sleep(Duration::from_millis(20));
        assert!(!roller.is_finished(), "where did it find a place?");
        stopped.go_on();
        let (outcome, live) = roller.join().expect("no panic");
        match outcome {
            Ok(_) => assert_eq!(live, world(1)),
            // The saves came first.
            Err(RollbackError::Evicted { to, .. }) => assert_eq!((to, live), (first, world(9))),
            Err(error) => panic!("{error}"),
        }
    });
    assert_eq!(ring.stats().saves, 14);
}

//! A capture that blocks the tick, is published out of its turn, or fails without a word.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use rkyv::Place;
use snapring::{
    Behind, Caretaker, Event, Halt, Options, PagedVec, Policy, SaveError, Schema, Session, Shape,
    Snapshot, Thaw, ThawError,
};

/// Held, it holds up whoever archives a [`Slow`].
static GATE: Mutex<()> = Mutex::new(());
/// The next to archive a [`Slow`] panics.
static PANIC: AtomicBool = AtomicBool::new(false);
/// One test at a time: they share the gate.
static ALONE: Mutex<()> = Mutex::new(());

/// A number whose archiving can be held up, and can panic.
#[derive(Debug, Clone, PartialEq)]
struct Slow(u64);

// SAFETY: everything is left to `u64`, but that `archive` may take its time, and that slices of it are
// not copied at once.
unsafe impl Snapshot for Slow {
    type Archived = <u64 as Snapshot>::Archived;
    type Resolver = <u64 as Snapshot>::Resolver;
    const FROZEN: bool = true;

    fn archive(&self, s: &mut Session) -> Result<Self::Resolver, Halt> {
        drop(gate());
        assert!(!PANIC.swap(false, Ordering::SeqCst), "on purpose");
        self.0.archive(s)
    }

    fn resolve(&self, r: Self::Resolver, out: Place<Self::Archived>) {
        self.0.resolve(r, out);
    }

    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        u64::thaw(a, t).map(Slow)
    }

    fn canonical(&self, other: &Self) -> std::cmp::Ordering {
        self.0.canonical(&other.0)
    }

    fn schema(s: &mut Schema) -> Shape {
        u64::schema(s)
    }
}

#[derive(Snapshot, Debug, Clone, PartialEq)]
struct Cell {
    value: Slow,
}

#[derive(Snapshot, Debug, Clone, PartialEq)]
struct World {
    tick: u64,
    cells: PagedVec<Cell>,
}

fn world(cells: u64) -> World {
    let mut all = PagedVec::with_page_len(4);
    all.extend((0..cells).map(|n| Cell { value: Slow(n) }));
    World { tick: 0, cells: all }
}

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

fn gate() -> MutexGuard<'static, ()> {
    GATE.lock().unwrap_or_else(|e| e.into_inner())
}

fn ring(options: Options) -> Caretaker<World> {
    options.in_memory().expect("memory")
}

#[test]
fn the_caller_goes_on_while_pages_are_written_and_later_saves_come_later() {
    let _alone = alone();
    let caretaker = Arc::new(ring(Options::new()));
    let mut state = world(40);
    let closed = gate();
    let mut pending = caretaker.capture(&state).expect("captured");
    state.tick = 1;
    state.cells[7].value = Slow(1000);
    let later = caretaker.capture(&state).expect("captured");
    assert!(pending.try_wait().is_none(), "its pages are not written");
    assert_eq!(caretaker.head(), None);
    assert_eq!(caretaker.stats().pending_captures, 2);
    let saving = {
        let (caretaker, state) = (caretaker.clone(), world(0));
        thread::spawn(move || caretaker.save(&state).expect("saved"))
    };
    thread::sleep(Duration::from_millis(30));
    assert!(!saving.is_finished(), "a save overtook captures");
    drop(closed);
    let (first, second) = (pending.wait().expect("published"), later.wait().expect("published"));
    let third = saving.join().expect("no panic");
    assert!(first < second && second < third, "{first}, {second}, {third}");
    let thawed = |id| caretaker.memento(id).expect("listed").thaw().expect("whole");
    assert_eq!(thawed(first), world(40));
    assert_eq!(thawed(second), state);
    assert_eq!(caretaker.stats().pending_captures, 0);
}

#[test]
fn a_rollback_waits_for_captures_before_it() {
    let _alone = alone();
    let caretaker = ring(Options::new());
    let mut state = world(40);
    let first = caretaker.save(&state).expect("saved");
    state.cells[3].value = Slow(99);
    let closed = gate();
    let pending = caretaker.capture(&state).expect("captured");
    let rollback = thread::scope(|scope| {
        let rolling = scope.spawn(|| caretaker.rollback(&mut state, first).expect("rolled back"));
        thread::sleep(Duration::from_millis(30));
        assert!(!rolling.is_finished(), "a rollback overtook a capture");
        drop(closed);
        rolling.join().expect("no panic")
    });
    let captured = pending.wait().expect("published");
    assert_eq!(rollback.from(), Some(captured));
    assert_eq!(state, world(40));
}

#[test]
fn a_panic_in_the_background_reaches_who_waits_and_who_listens_and_nothing_else() {
    let _alone = alone();
    let caretaker = ring(Options::new());
    let mut events = caretaker.subscribe();
    let mut state = world(40);
    let first = caretaker.save(&state).expect("saved");
    state.cells[3].value = Slow(99);
    PANIC.store(true, Ordering::SeqCst);
    let error = caretaker.capture(&state).expect("captured").wait().expect_err("it panicked");
    assert!(
        matches!(&error, SaveError::Panicked { message } if message == "on purpose"),
        "{error}"
    );
    assert_eq!(caretaker.head(), Some(first));
    let told = std::iter::from_fn(|| events.try_next());
    assert!(told.into_iter().any(|event| matches!(event, Event::Failed { .. })));
    let second = caretaker.capture(&state).expect("captured").wait().expect("published");
    assert_eq!(caretaker.memento(second).expect("listed").thaw().expect("whole"), state);
}

#[test]
fn captures_that_are_behind_are_refused_or_wait_as_asked() {
    let _alone = alone();
    let refusing = ring(Options::new().capture_memory(100, Behind::Refuse));
    let mut state = world(4000);
    let closed = gate();
    let first = refusing.capture(&state).expect("one is always allowed");
    for cell in state.cells.iter_mut().step_by(40) {
        cell.value = Slow(1);
    }
    let error = refusing.capture(&state).expect_err("too far behind");
    assert!(matches!(error, SaveError::Behind { limit: 100, .. }), "{error}");
    assert_eq!(refusing.stats().pending_captures, 1);
    drop(closed);
    let first = first.wait().expect("published");
    let second = refusing.capture(&state).expect("there is room again").wait().expect("published");
    assert!(first < second);

    let waiting = ring(Options::new().capture_memory(100, Behind::Wait));
    let closed = gate();
    let first = waiting.capture(&state).expect("captured");
    for cell in state.cells.iter_mut().step_by(4) {
        cell.value = Slow(2);
    }
    let second = thread::scope(|scope| {
        let capturing = scope.spawn(|| waiting.capture(&state).expect("captured"));
        thread::sleep(Duration::from_millis(30));
        assert!(!capturing.is_finished(), "it did not wait");
        drop(closed);
        capturing.join().expect("no panic")
    });
    assert!(first.wait().expect("published") < second.wait().expect("published"));
    assert_eq!(waiting.stats().captured_bytes, 0);
}

/// Runs a future on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (mut future, mut context) = (pin!(future), Context::from_waker(&waker));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn a_capture_can_be_awaited() {
    let _alone = alone();
    let caretaker = ring(Options::new());
    let closed = gate();
    let pending = caretaker.capture(&world(40)).expect("captured");
    let opening = thread::spawn(|| thread::sleep(Duration::from_millis(20)));
    let opened = thread::scope(|scope| {
        let waiting = scope.spawn(|| block_on(pending));
        opening.join().expect("no panic");
        drop(closed);
        waiting.join().expect("no panic")
    });
    assert_eq!(Some(opened.expect("published")), caretaker.head());
}

#[test]
fn a_dropped_capture_is_published_and_a_close_waits_for_it() {
    let _alone = alone();
    let caretaker = ring(Options::new());
    let closed = gate();
    drop(caretaker.capture(&world(40)).expect("captured"));
    let done = AtomicU64::new(0);
    thread::scope(|scope| {
        let closing = scope.spawn(|| {
            let mut events = caretaker.subscribe();
            _ = caretaker.close();
            done.store(1, Ordering::SeqCst);
            std::iter::from_fn(move || events.try_next())
                .any(|event| matches!(event, Event::Saved { .. }))
        });
        thread::sleep(Duration::from_millis(30));
        assert_eq!(done.load(Ordering::SeqCst), 0, "it closed before");
        drop(closed);
        assert!(closing.join().expect("no panic"), "nothing was published");
    });
}

#[test]
fn a_budget_says_when_it_is_time() {
    let _alone = alone();
    let loss = Duration::from_millis(60);
    let policy = Policy::Budget { loss, pause: Duration::from_secs(1), bandwidth: 1 };
    let caretaker = ring(Options::new().policy(policy));
    let state = world(400);
    let mut at = Vec::new();
    let start = Instant::now();
    while at.len() < 4 {
        let before = start.elapsed();
        if let Some(pending) = caretaker.capture_if_due(&state).expect("captured") {
            at.push((before, start.elapsed()));
            pending.wait().expect("published");
        }
        thread::sleep(Duration::from_millis(1));
    }
    // A byte a second is not kept: the loss comes first.
    // A capture begins between the two times: the next one not sooner than the loss after that.
    assert!(at.windows(2).skip(1).all(|pair| pair[1].1 - pair[0].0 >= loss), "{at:?}");
}

#[test]
fn stats_tell_what_captures_cost() {
    let _alone = alone();
    let caretaker = ring(Options::new());
    let mut state = world(4000);
    caretaker.save(&state).expect("saved");
    caretaker.save(&state).expect("saved");
    let held = caretaker.capture(&state).expect("captured");
    held.wait().expect("published");
    state.cells[0].value = Slow(5);
    state.cells[3999].value = Slow(5);
    caretaker.capture(&state).expect("captured").wait().expect("published");
    let stats = caretaker.stats();
    assert!(stats.dirty > 0.0 && stats.dirty < 0.01, "{stats:?}");
    assert!(stats.shared > 0.4, "{stats:?}");
    assert!(stats.fragmentation < 0.6, "{stats:?}");
    assert_eq!(stats.captured_bytes, 0);
}

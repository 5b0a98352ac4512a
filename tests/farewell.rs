//! On the way down the last state must be published: after a panic, whoever has the lock, and at
//! SIGTERM, which must end the process all the same. And nothing of it may hang, recurse or stay
//! armed.

mod common;

use std::{
    os::unix::process::ExitStatusExt as _,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Child, TempDir, World, child_role, open, open_with, report, small, world};
use snapring::{
    Armed, Caretaker, Durability, Event, LAST_AFTER_PANIC, LAST_AT_SIGTERM, Options, Snapshot,
};

const TERM: i32 = 15;
/// So long that nothing but the last flush can have made a snapshot durable.
const WITHIN_A_MINUTE: Durability = Durability::Background { within: Duration::from_secs(60) };

fn term(process: u32) {
    let process = rustix::process::Pid::from_raw(process as i32).expect("a process");
    rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("it is there");
}

fn armed(caretaker: &Caretaker<World>, state: &Arc<Mutex<World>>) -> Armed {
    let lent = state.clone();
    let farewell = caretaker.farewell(move |save| {
        if let Ok(world) = lent.try_lock() {
            save(&world);
        }
    });
    farewell.on_panic().on_sigterm().arm().expect("armed")
}

/// What a child does in its role; as a test of its own, nothing.
#[test]
fn child_plays_its_role() {
    let Some((role, dir)) = child_role() else { return };
    let caretaker = open_with::<World>(&small().durability(WITHIN_A_MINUTE), &dir).expect("opened");
    caretaker.save(&world(1)).expect("saved");
    let state = Arc::new(Mutex::new(world(2)));
    match role.as_str() {
        "main panics" => {
            let _armed = armed(&caretaker, &state);
            let other = state.clone();
            // Another thread has the lock now and then: it is asked for again.
            std::thread::spawn(move || {
                loop {
                    let held = other.lock();
                    std::thread::sleep(Duration::from_millis(2));
                    drop(held);
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
            panic!("on purpose");
        }
        "the hook aborts" => {
            std::panic::set_hook(Box::new(|_| std::process::abort()));
            let _armed = armed(&caretaker, &state);
            panic!("on purpose");
        }
        "serve" => {
            let _armed = armed(&caretaker, &state);
            serve(&state);
        }
        "serve with SIGTERM blocked" => {
            block_sigterm();
            let _armed = armed(&caretaker, &state);
            serve(&state);
        }
        "serve slowly" => {
            let lent = state.clone();
            let farewell = caretaker.farewell(move |save| {
                report("asked");
                std::thread::sleep(Duration::from_millis(300));
                save(&lent.lock().expect("the lock"));
            });
            let _armed = farewell.on_sigterm().arm().expect("armed");
            serve(&state);
        }
        "disarmed" => {
            drop(armed(&caretaker, &state));
            serve(&state);
        }
        "own handler" => {
            own_handler();
            let _armed = armed(&caretaker, &state);
            report("serving");
            while !SEEN.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            report(format_args!("seen at {}", caretaker.history()[0].label().unwrap_or("none")));
            std::process::exit(3);
        }
        "forked" => {
            let _armed = armed(&caretaker, &state);
            // SAFETY: the child does nothing but sleep and be ended.
            let child = unsafe { libc::fork() };
            if child == 0 {
                loop {
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            term(child as u32);
            let mut status = 0;
            // SAFETY: our own child, and room for its status.
            unsafe { libc::waitpid(child, &mut status, 0) };
            report(format_args!("the child ended by {}", status & 0x7f));
            std::thread::sleep(Duration::from_millis(50));
            report(format_args!("head {}", caretaker.head().expect("saved")));
        }
        _ => panic!("no role {role}"),
    }
}

fn serve(state: &Mutex<World>) {
    report("serving");
    for tick in 3.. {
        *state.lock().expect("the lock") = world(tick);
        if tick == 1000 {
            report("far on");
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn block_sigterm() {
    // SAFETY: a set of bits, for which zero is a value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: our own set.
    unsafe { libc::sigaddset(&mut set, libc::SIGTERM) };
    // SAFETY: a whole set.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
}

static SEEN: AtomicBool = AtomicBool::new(false);

fn own_handler() {
    extern "C" fn seen(_: libc::c_int) {
        SEEN.store(true, Ordering::Relaxed);
    }
    // SAFETY: the handler does one store.
    unsafe { libc::signal(libc::SIGTERM, seen as extern "C" fn(libc::c_int) as usize) };
}

/// The newest label and world of a directory whose process has ended.
fn found(dir: &Path) -> (Option<String>, World, bool) {
    let caretaker = open(dir);
    let entry = caretaker.history().remove(0);
    let world = caretaker.resume().expect("whole").expect("there");
    (entry.label().map(str::to_owned), world, entry.is_durable())
}

#[test]
fn a_panic_of_the_main_thread_leaves_the_last_state() {
    let dir = TempDir::new("main");
    let mut child = Child::start("child_plays_its_role", "main panics", &dir);
    assert!(!child.end().success(), "the panic still fails the process");
    assert_eq!(found(&dir), (Some(LAST_AFTER_PANIC.to_owned()), world(2), true));
}

#[test]
fn a_hook_that_aborts_comes_after_the_last_snapshot() {
    let dir = TempDir::new("aborts");
    let mut child = Child::start("child_plays_its_role", "the hook aborts", &dir);
    assert_eq!(child.end().signal(), Some(6));
    assert_eq!(found(&dir).0.as_deref(), Some(LAST_AFTER_PANIC));
}

#[test]
fn sigterm_while_serving_saves_and_still_ends_the_process() {
    for role in ["serve", "serve with SIGTERM blocked"] {
        let dir = TempDir::new("term");
        let mut child = Child::start("child_plays_its_role", role, &dir);
        assert_eq!(child.next().as_deref(), Some("serving"));
        assert_eq!(child.next().as_deref(), Some("far on"));
        term(child.id());
        assert_eq!(child.end().signal(), Some(TERM), "{role}: its status tells the signal");
        let (label, last, durable) = found(&dir);
        assert_eq!(label.as_deref(), Some(LAST_AT_SIGTERM), "{role}");
        assert!(last.tick >= 1000 && last == world(last.tick), "{role}: {}", last.tick);
        assert!(durable, "{role}: it was seen to the disk");
    }
}

#[test]
fn sigterm_twice_ends_it_once_with_one_snapshot() {
    let dir = TempDir::new("twice");
    let mut child = Child::start("child_plays_its_role", "serve slowly", &dir);
    assert_eq!(child.next().as_deref(), Some("serving"));
    term(child.id());
    while child.next().as_deref() != Some("asked") {}
    term(child.id());
    assert_eq!(child.end().signal(), Some(TERM));
    assert!(!child.rest().contains(&"asked".to_owned()), "asked once");
    assert_eq!(open(&dir).history().len(), 2);
}

#[test]
fn sigterm_after_disarming_only_ends_the_process() {
    let dir = TempDir::new("disarmed");
    let mut child = Child::start("child_plays_its_role", "disarmed", &dir);
    assert_eq!(child.next().as_deref(), Some("serving"));
    term(child.id());
    assert_eq!(child.end().signal(), Some(TERM));
    assert_eq!(found(&dir), (None, world(1), false));
}

#[test]
fn a_handler_that_was_there_gets_the_signal_after_the_snapshot() {
    let dir = TempDir::new("own");
    let mut child = Child::start("child_plays_its_role", "own handler", &dir);
    assert_eq!(child.next().as_deref(), Some("serving"));
    term(child.id());
    assert_eq!(child.next(), Some(format!("seen at {LAST_AT_SIGTERM}")));
    assert_eq!(child.end().code(), Some(3));
}

#[test]
fn a_forked_child_ends_by_its_own_sigterm_and_its_parent_hears_nothing() {
    let dir = TempDir::new("forked");
    let mut child = Child::start("child_plays_its_role", "forked", &dir);
    assert_eq!(child.next().as_deref(), Some("the child ended by 15"));
    assert_eq!(child.next().as_deref(), Some("head #1"));
}

/// One at a time: every armed farewell hears every panic of the process.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> impl Drop {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn panicking(run: impl FnOnce() + Send + 'static) {
    std::thread::spawn(run).join().expect_err("it panics");
}

#[test]
fn a_thread_that_panics_with_the_lock_goes_on_without_a_snapshot() {
    let _alone = alone();
    let caretaker = Caretaker::<World>::in_memory().expect("memory");
    let mut events = caretaker.subscribe();
    let state = Arc::new(Mutex::new(world(1)));
    let _armed = armed(&caretaker, &state);
    let (held, start) = (state.clone(), Instant::now());
    panicking(move || {
        let _world = held.lock().expect("free");
        panic!("with the lock");
    });
    assert!(start.elapsed() < Duration::from_secs(4), "it was held up {:?}", start.elapsed());
    assert_eq!(caretaker.head(), None);
    let Some(Event::Failed { message }) = events.try_next() else { panic!("nothing is told") };
    assert!(message.contains("not lent"), "{message}");
    assert!(message.contains(LAST_AFTER_PANIC), "{message}");
    // The lock is poisoned: the closure is asked, and lends nothing more.
    panicking(|| panic!("without the lock"));
    assert_eq!(caretaker.head(), None);
}

#[test]
fn a_closure_that_waits_for_ever_does_not_hold_the_panic_up() {
    let _alone = alone();
    let caretaker = Caretaker::<World>::in_memory().expect("memory");
    let state = Arc::new(Mutex::new(world(1)));
    let lent = state.clone();
    let farewell = caretaker.farewell(move |save| {
        let world = lent.lock().unwrap_or_else(PoisonError::into_inner);
        save(&world);
    });
    let armed = farewell.on_panic().patience(Duration::from_millis(100)).arm().expect("armed");
    let start = Instant::now();
    panicking(move || {
        let _world = state.lock().expect("free");
        panic!("with the lock");
    });
    assert!(start.elapsed() < Duration::from_secs(4), "it was held up {:?}", start.elapsed());
    // Waits for the closure, which has the lock by now.
    drop(armed);
}

#[test]
fn every_panic_publishes_and_the_label_moves() {
    let _alone = alone();
    let caretaker = Caretaker::<World>::in_memory().expect("memory");
    let mut events = caretaker.subscribe();
    let state = Arc::new(Mutex::new(world(1)));
    let guard = armed(&caretaker, &state);
    panicking(|| panic!("one"));
    *state.lock().expect("free") = world(2);
    panicking(|| panic!("two"));
    let history = caretaker.history();
    assert_eq!(history.len(), 2);
    assert_eq!(history[0].label(), Some(LAST_AFTER_PANIC));
    assert_eq!(history[1].label(), None);
    assert_eq!(caretaker.resume().expect("whole"), Some(world(2)));
    let told: Vec<Event> = std::iter::from_fn(|| events.try_next()).collect();
    let last = Event::LastSaved { id: history[0].id(), label: LAST_AFTER_PANIC };
    assert_eq!(told.last(), Some(&last), "{told:?}");
    drop(guard);
    panicking(|| panic!("three"));
    assert_eq!(caretaker.history().len(), 2, "disarmed");
}

#[test]
fn a_guarded_panic_is_no_way_down() {
    let _alone = alone();
    let caretaker = Arc::new(Caretaker::<World>::in_memory().expect("memory"));
    let state = Arc::new(Mutex::new(world(1)));
    // Lends something else than what is guarded: it could be saved.
    let _armed = armed(&caretaker, &state);
    let mut live = world(2);
    let start = Instant::now();
    let undone = caretaker.guard(&mut live, |_| -> Result<(), String> { panic!("a bad plugin") });
    undone.expect_err("undone");
    assert!(start.elapsed() < Duration::from_millis(40), "{:?}", start.elapsed());
    assert!(caretaker.history().iter().all(|entry| entry.label().is_none()));
    // After it, a panic of the same thread is one again.
    let taker = caretaker.clone();
    panicking(move || {
        let mut live = world(3);
        _ = taker.guard(&mut live, |_| Err::<(), _>("no"));
        panic!("not guarded");
    });
    assert_eq!(caretaker.history()[0].label(), Some(LAST_AFTER_PANIC));
}

#[derive(Snapshot, Clone)]
struct Bomb {
    n: u32,
    #[snapshot(with = Exploding)]
    fuse: u32,
}

struct Exploding;

impl rkyv::with::ArchiveWith<u32> for Exploding {
    type Archived = rkyv::Archived<u32>;
    type Resolver = ();

    fn resolve_with(_: &u32, (): (), out: rkyv::Place<Self::Archived>) {
        out.write(0.into());
    }
}

impl<S: rkyv::rancor::Fallible + ?Sized> rkyv::with::SerializeWith<u32, S> for Exploding {
    fn serialize_with(fuse: &u32, _: &mut S) -> Result<(), S::Error> {
        assert!(*fuse > 0, "boom");
        Ok(())
    }
}

impl<D: rkyv::rancor::Fallible + ?Sized> rkyv::with::DeserializeWith<rkyv::Archived<u32>, u32, D>
    for Exploding
{
    fn deserialize_with(_: &rkyv::Archived<u32>, _: &mut D) -> Result<u32, D::Error> {
        Ok(1)
    }
}

#[test]
fn a_state_that_panics_while_it_is_saved_neither_recurses_nor_ends_the_process() {
    let _alone = alone();
    let caretaker = Arc::new(Options::new().in_memory::<Bomb>().expect("memory"));
    let mut events = caretaker.subscribe();
    let bomb = Arc::new(Mutex::new(Bomb { n: 1, fuse: 1 }));
    let lent = bomb.clone();
    let farewell = caretaker.farewell(move |save| match lent.try_lock() {
        Ok(bomb) => save(&bomb),
        Err(TryLockError::Poisoned(bomb)) => save(&bomb.into_inner()),
        Err(TryLockError::WouldBlock) => {}
    });
    let _armed = farewell.on_panic().arm().expect("armed");
    caretaker.save(&bomb.lock().expect("free").clone()).expect("saved");
    // A panic inside the engine's own save: it is not begun again.
    let (taker, state) = (caretaker.clone(), bomb.clone());
    state.lock().expect("free").fuse = 0;
    let copy = state.lock().expect("free").clone();
    panicking(move || _ = taker.save(&copy));
    assert_eq!(caretaker.history().len(), 1);
    let told: Vec<Event> = std::iter::from_fn(|| events.try_next()).collect();
    assert!(told.iter().all(|e| !matches!(e, Event::Failed { .. })), "{told:?}");
    // Elsewhere: the last save panics in its turn, which is told and goes no further.
    let start = Instant::now();
    panicking(|| panic!("elsewhere"));
    assert!(start.elapsed() < Duration::from_secs(4), "it waited for itself");
    assert_eq!(caretaker.history().len(), 1);
    let Some(Event::Failed { message }) = events.try_next() else { panic!("nothing is told") };
    assert!(message.contains("boom"), "{message}");
    // And the thread that saves is still there.
    bomb.lock().unwrap_or_else(PoisonError::into_inner).fuse = 1;
    panicking(|| panic!("once more"));
    assert_eq!(caretaker.history().len(), 2);
}

#[test]
fn a_closure_that_panics_is_told_of_and_nothing_waits_for_itself() {
    let _alone = alone();
    let caretaker = Caretaker::<World>::in_memory().expect("memory");
    let mut events = caretaker.subscribe();
    let _armed = caretaker.farewell(|_| panic!("no state")).on_panic().arm().expect("armed");
    let start = Instant::now();
    panicking(|| panic!("elsewhere"));
    assert!(start.elapsed() < Duration::from_secs(4), "it waited for itself");
    let Some(Event::Failed { message }) = events.try_next() else { panic!("nothing is told") };
    assert!(message.contains("no state"), "{message}");
}

#[test]
fn a_closed_caretaker_is_left_alone() {
    let _alone = alone();
    let dir = TempDir::new("closed");
    let caretaker = open(&dir);
    let state = Arc::new(Mutex::new(world(1)));
    let _armed = armed(&caretaker, &state);
    caretaker.save(&world(1)).expect("saved");
    let memento = caretaker.latest().expect("there");
    drop(caretaker);
    panicking(|| panic!("after"));
    drop(memento);
    assert_eq!(open(&dir).history().len(), 1);
}

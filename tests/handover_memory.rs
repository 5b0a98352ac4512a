//! A ring in memory must pass like one in a directory: the memory itself, through the same gate, and
//! with the same way back.

mod common;

use std::{
    os::{
        fd::AsFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    thread,
    time::{Duration, Instant},
};

use common::{
    Peer, TempDir, World,
    hand::{LONG, goes_on, id, next, ready, save},
    open,
    peer::{HELLO, READY, WELCOME},
    thawed, world,
};
use snapring::{Caretaker, HandOverError, OpenError, Options};

fn memory_successor(path: &Path, timeout: Duration) -> Result<Caretaker<World>, OpenError> {
    // SAFETY: the tests' predecessors are caretakers, or pass on memory that nobody writes.
    unsafe { Options::new().take_over(timeout).in_memory_from(path) }
}

#[test]
fn a_ring_in_memory_passes_from_hand_to_hand() {
    let temp = TempDir::new("memory");
    let path = temp.inside("ring.sock");
    let mut caretaker = Options::new().in_memory::<World>().expect("memory");
    save(&caretaker, 1, 50);
    caretaker.keep(id(41), "kept").expect("kept");
    for hand in 0..4 {
        let head = caretaker.head().expect("saved").get();
        let memento = caretaker.latest().expect("there");
        let offer = caretaker.hand_over_at(&path).expect("offered").patience(LONG);
        let to = path.clone();
        let starting = thread::spawn(move || memory_successor(&to, LONG));
        let (mine, theirs) = UnixStream::pair().expect("a pair");
        ready(offer).complete(caretaker, &[theirs.as_fd()]).expect("handed over");
        let new = starting.join().expect("it runs").expect("taken over");
        assert_eq!(new.resume().expect("whole"), Some(world(head)), "hand {hand}");
        assert_eq!(thawed(&new, id(41)), Some(41));
        assert_eq!(new.inherited().len(), 1);
        drop(mine);
        for _ in 0..40 {
            goes_on(&new);
        }
        assert_eq!(memento.thaw().expect("whole"), world(head), "hand {hand}");
        drop(memento);
        new.keep(id(41), "kept").expect("still there");
        let until = Instant::now() + LONG;
        while new.stats().held.iter().any(|h| h.id.get() == head) && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!path.exists());
        caretaker = new;
    }
    let error = memory_successor(&path, Duration::from_millis(20)).expect_err("nobody there");
    assert!(matches!(error, OpenError::NoPredecessor { .. }), "{error:?}");
    let error = caretaker.hand_over().expect_err("no directory");
    assert!(matches!(error, HandOverError::InMemory), "{error:?}");
    let error = open(&temp.inside("ring")).hand_over_at(&path).expect_err("a directory");
    assert!(matches!(error, HandOverError::InDirectory { .. }), "{error:?}");
}

#[test]
fn a_ring_in_memory_has_the_same_gate_and_the_same_way_back() {
    let temp = TempDir::new("memory gate");
    let path = temp.inside("ring.sock");
    let old = Options::new().in_memory::<World>().expect("memory");
    save(&old, 1, 3);
    let offer = old.hand_over_at(&path).expect("offered").patience(Duration::from_millis(200));
    // SAFETY: a caretaker listens there.
    let other = unsafe { Options::new().take_over(LONG).in_memory_from::<next::World>(&path) };
    let error = other.expect_err("another layout");
    assert!(
        matches!(&error, OpenError::Layout { difference, .. } if difference.contains("weather"))
    );
    // One that never says that it has taken over; then a real one, for which it is too late.
    let peer = Peer::of(UnixStream::connect(&path).expect("somebody offers"));
    peer.greet::<World>();
    let (kind, _, memory) = peer.hear().expect("an answer");
    assert_eq!((kind, memory.len()), (WELCOME, 2));
    peer.say(READY, &[], &[]).expect("heard");
    let back = ready(offer).complete(old, &[]).expect_err("too slow");
    assert!(matches!(back.why, HandOverError::Lost { .. }));
    let old = back.caretaker;
    goes_on(&old);
    drop((peer, memory));
    let offer = old.hand_over_at(&path).expect("offered again").patience(LONG);
    let starting = thread::spawn(move || memory_successor(&path, LONG));
    ready(offer).complete(old, &[]).expect("handed over");
    goes_on(&starting.join().expect("it runs").expect("taken over"));
}

#[test]
fn memory_that_may_shrink_is_not_taken() {
    let temp = TempDir::new("memory shrinks");
    let path = temp.inside("ring.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let starting = thread::spawn(move || memory_successor(&path, Duration::from_millis(300)));
    let peer = Peer::of(listener.accept().expect("it comes").0);
    assert_eq!(peer.hear().expect("its layout").0, HELLO);
    let file = || {
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
        rustix::fs::memfd_create("unsealed", flags).expect("memory")
    };
    let (a, b) = (file(), file());
    peer.say(WELCOME, &[0; 16], &[a.as_fd(), b.as_fd()]).expect("heard");
    drop(listener);
    let error = starting.join().expect("no panic").expect_err("refused");
    let OpenError::NotHandedOver { reason, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains("sealed"), "{reason}");
}

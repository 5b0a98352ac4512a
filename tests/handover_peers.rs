//! Whatever the other side of a hand-over does, at whatever step - it dies, it is slow, it talks
//! nonsense - exactly one of the two must have the ring in the end, and nothing may be believed.

mod common;

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
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
    hand::{LONG, goes_on, offered, ready, save, start, successor},
    lock_of, open, open_with,
    peer::{HELLO, MORE, READY, TAKEN, WELCOME, YOURS, row},
    small, world,
};
use snapring::{Caretaker, Durability, OpenError, TakenBack};

/// The caretaker back from a hand-over that must have failed, still going.
fn taken_back(answer: Result<(), TakenBack<World>>, dir: &Path, why: &str) -> Caretaker<World> {
    let TakenBack { caretaker, why: error } = answer.expect_err("it failed");
    let text = format!("{error}: {:?}", std::error::Error::source(&error));
    assert!(text.contains(why), "{text}");
    assert!(lock_of(dir).is_none(), "the lock is still held");
    goes_on(&caretaker);
    caretaker
}

#[test]
fn a_successor_that_dies_at_any_step_changes_nothing() {
    let dir = TempDir::new("dies");
    let mut old = open(&dir);
    save(&old, 1, 3);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    for step in 0..5 {
        let offer = old.hand_over().expect("offered").patience(Duration::from_millis(300));
        let peer = Peer::connect(&dir);
        if step > 0 {
            peer.greet::<World>();
        }
        if step > 1 {
            assert_eq!(peer.hear().expect("an answer").0, WELCOME);
        }
        if step > 2 {
            peer.say(READY, &[], &[]).expect("heard");
            assert_eq!(offer.wait(LONG), Some(std::process::id()));
        }
        let answer = thread::scope(|scope| {
            if step == 4 {
                let completing = scope.spawn(|| offer.complete(old, &[listener.as_fd()]));
                let (kind, _, fds) = peer.hear().expect("the lock");
                assert_eq!((kind, fds.len()), (YOURS, 1));
                let (kind, _, fds) = peer.hear().expect("the descriptors");
                assert_eq!((kind, fds.len()), (MORE, 1));
                drop(peer);
                completing.join().expect("it runs")
            } else {
                drop(peer);
                let until = Instant::now() + LONG;
                while offer.successor().is_some() && Instant::now() < until {
                    thread::sleep(Duration::from_millis(1));
                }
                offer.complete(old, &[])
            }
        });
        let why = if step == 4 { "Some(Kind(UnexpectedEof))" } else { "no successor is ready" };
        old = taken_back(answer, &dir, why);
    }
    // One that comes after all of them.
    let offer = offered(&old);
    let starting = start(&dir);
    ready(offer).complete(old, &[]).expect("handed over");
    goes_on(&starting.join().expect("it runs").expect("it opens"));
}

#[test]
fn a_successor_that_is_too_slow_finds_the_door_shut() {
    let dir = TempDir::new("slow");
    let old = open(&dir);
    save(&old, 1, 3);
    let offer = old.hand_over().expect("offered").patience(Duration::from_millis(200));
    let peer = Peer::connect(&dir);
    peer.greet::<World>();
    assert_eq!(peer.hear().expect("an answer").0, WELCOME);
    peer.say(READY, &[], &[]).expect("heard");
    let offer = ready(offer);
    let start = Instant::now();
    let old = taken_back(offer.complete(old, &[]), &dir, "TimedOut");
    assert!(start.elapsed() >= Duration::from_millis(200));
    // It has the lock's descriptor all the same; its word comes too late, and it can tell.
    let (kind, _, lock) = peer.hear().expect("the lock");
    assert_eq!((kind, lock.len()), (YOURS, 1));
    assert!(peer.say(TAKEN, &[], &[]).is_err(), "the word must not be taken for heard");
    // The lock is ours alone: closed here, it is free, whoever else has its descriptor.
    drop(old);
    assert!(lock_of(&dir).is_some());
    drop(lock);
}

#[test]
fn a_word_that_came_in_time_counts_though_it_was_not_looked_at() {
    // Many times over, with the word sent at about the moment when the time is up.
    let dir = TempDir::new("in time");
    let mut old = Some(open(&dir));
    save(old.as_ref().expect("there"), 1, 3);
    let (mut heard, mut unheard) = (0, 0);
    for round in 0..300_u64 {
        // Its own thread may take a moment to end.
        let caretaker = old.take().unwrap_or_else(|| successor(&dir, LONG).expect("free"));
        let patience = Duration::from_millis(2);
        let offer = caretaker.hand_over().expect("offered").patience(patience);
        let peer = Peer::connect(&dir);
        peer.greet::<World>();
        assert_eq!(peer.hear().expect("an answer").0, WELCOME);
        peer.say(READY, &[], &[]).expect("heard");
        let offer = ready(offer);
        // Around the moment when the wait has ended and the queue is not shut yet.
        let at = Instant::now() + patience + Duration::from_nanos(round * 500);
        let (said, answer, lock) = thread::scope(|scope| {
            let talking = scope.spawn(|| {
                let (_, _, lock) = peer.hear().expect("the lock");
                while Instant::now() < at {
                    std::hint::spin_loop();
                }
                (peer.say(TAKEN, &[], &[]).is_ok(), lock)
            });
            let answer = offer.complete(caretaker, &[]);
            let (said, lock) = talking.join().expect("it runs");
            (said, answer, lock)
        });
        // Exactly one of the two has it.
        assert_eq!(said, answer.is_ok(), "round {round}: both, or neither");
        match answer {
            Ok(()) => heard += 1,
            Err(back) => {
                unheard += 1;
                old = Some(back.caretaker);
            }
        }
        drop(lock);
    }
    println!("heard {heard} times, not {unheard} times");
}

/// Plays a predecessor as far as the lock.
fn hand_over_by_hand(listener: &UnixListener, yours: &[u8], lock: &std::fs::File) -> Peer {
    let peer = Peer::of(listener.accept().expect("it comes").0);
    assert_eq!(peer.hear().expect("its layout").0, HELLO);
    peer.say(WELCOME, &[0; 16], &[]).expect("heard");
    assert_eq!(peer.hear().expect("its word").0, READY);
    peer.say(YOURS, yours, &[lock.as_fd()]).expect("heard");
    peer
}

fn yours(next: u64, head: u64, descriptors: u64) -> Vec<u8> {
    row("yours", &[("next", next), ("head", head), ("descriptors", descriptors)])
}

#[test]
fn a_predecessor_that_dies_after_it_has_handed_over_is_succeeded() {
    let dir = TempDir::new("hands over and dies");
    save(&open(&dir), 1, 3);
    let lock = lock_of(&dir).expect("free");
    let listener = UnixListener::bind(dir.join("handover.sock")).expect("a socket");
    let (mine, theirs) = UnixStream::pair().expect("a pair");
    let starting = start(&dir);
    let peer = hand_over_by_hand(&listener, &yours(4, 3, 1), &lock);
    peer.say(MORE, &[], &[theirs.as_fd()]).expect("heard");
    // Gone before the word comes, or after: it is the successor's either way.
    drop((peer, lock, listener, theirs));
    let new = starting.join().expect("it runs").expect("it opens");
    println!("{}", new.recovery());
    goes_on(&new);
    let mut passed = UnixStream::from(new.inherited().remove(0));
    passed.write_all(b"here").expect("sent");
    let mut heard = [0; 4];
    (&mine).read_exact(&mut heard).expect("heard");
    assert_eq!(&heard, b"here");
}

#[test]
fn nonsense_from_a_predecessor_is_never_believed() {
    let dir = TempDir::new("nonsense");
    save(&open(&dir), 1, 3);
    let other = TempDir::new("another lock");
    drop(open(&other));
    let held_row = |place: u64, id: u64, offset: u64, len: u64| {
        row("held", &[("place", place), ("id", id), ("offset", offset), ("len", len)])
    };
    let with = |row: Vec<u8>| [yours(4, 3, 0), row].concat();
    let good = yours(4, 3, 0);
    let cases: Vec<(&str, Vec<u8>, bool)> = vec![
        ("another lock", good.clone(), true),
        ("a head that is not there", yours(5, 4, 0), false),
        ("an id that was used", yours(3, 3, 0), false),
        ("an id above the floor", yours(u64::MAX, 3, 0), false),
        ("short", good[..20].to_vec(), false),
        ("ragged", [good.clone(), vec![0; 7]].concat(), false),
        ("no such place", with(held_row(5000, 1, 0, 1)), false),
        ("a place of another id", with(held_row(0, 77, 0, 1)), false),
        ("no extent", with(held_row(19, 1, 17, 5)), false),
        ("beyond the file", with(held_row(19, 1, 1 << 40, 4096)), false),
        ("so long that it wraps", with(held_row(19, 1, 1 << 20, u64::MAX - 4096)), false),
        ("over a snapshot", with(held_row(19, 1, 4096 * 21, 3 * 4096)), false),
    ];
    let lock = lock_of(&dir).expect("free");
    let other_lock = lock_of(&other).expect("free");
    for (what, body, wrong_lock) in cases {
        let listener = UnixListener::bind(dir.join("handover.sock")).expect("a socket");
        let path = dir.to_owned();
        let starting = thread::spawn(move || successor(&path, Duration::from_millis(100)));
        let peer =
            hand_over_by_hand(&listener, &body, if wrong_lock { &other_lock } else { &lock });
        assert!(peer.hear().is_none(), "{what}: it took that");
        drop((peer, listener));
        std::fs::remove_file(dir.join("handover.sock")).expect("removed");
        let error = starting.join().expect("no panic").expect_err("refused");
        assert!(matches!(error, OpenError::NotHandedOver { .. }), "{what}: {error:?}");
        assert!(lock_of(&dir).is_none(), "{what}: the lock has gone");
    }
    // Not even the first bytes.
    let listener = UnixListener::bind(dir.join("handover.sock")).expect("a socket");
    let path = dir.to_owned();
    let starting = thread::spawn(move || successor(&path, Duration::from_millis(100)));
    let (mut stream, _) = listener.accept().expect("it comes");
    stream.write_all(&[0xff; 4096]).expect("sent");
    drop(listener);
    let error = starting.join().expect("no panic").expect_err("refused");
    assert!(matches!(error, OpenError::NotHandedOver { .. }), "{error:?}");
    drop(stream);
    drop(lock);
    goes_on(&open(&dir));
}

#[test]
fn nonsense_from_a_successor_is_never_believed() {
    let dir = TempDir::new("nonsense back");
    let old = open(&dir);
    save(&old, 1, 3);
    let offer = offered(&old);
    for bytes in
        [&[0xff_u8; 64][..], b"SNH\x01\x01\0\0\0\xff\xff\xff\xff", b"SNH\x01\x09\0\0\0\0\0\0\0"]
    {
        let mut stream = UnixStream::connect(dir.join("handover.sock")).expect("somebody offers");
        stream.write_all(bytes).expect("sent");
        // A reset where it had not read all of it.
        _ = stream.read(&mut [0; 64]);
    }
    let text = b"rkyv 0.8 little-endian aligned pointer-32\n#0 struct W\x1b[2J 0/1\n";
    let peer = Peer::connect(&dir);
    peer.say(HELLO, &[&[7; 16][..], text].concat(), &[]).expect("heard");
    assert_eq!(peer.hear().expect("an answer").0, 2);
    assert!(peer.hear().is_none());
    let until = Instant::now() + LONG;
    while offer.refused().len() < 4 && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    let refused = offer.refused();
    assert_eq!(refused.len(), 4, "{refused:?}");
    assert!(refused[1].reason.contains("4294967295 bytes"), "{refused:?}");
    assert!(refused[3].reason.contains("[2J"), "{refused:?}");
    assert!(refused.iter().all(|r| !r.reason.contains('\x1b')), "{refused:?}");
    assert_eq!(offer.successor(), None);
    goes_on(&old);
}

#[test]
fn a_predecessor_that_has_gone_on_is_left_alone() {
    let dir = TempDir::new("gone on");
    save(&open(&dir), 1, 3);
    let lock = lock_of(&dir).expect("free");
    let listener = UnixListener::bind(dir.join("handover.sock")).expect("a socket");
    let path = dir.to_owned();
    let starting = thread::spawn(move || successor(&path, Duration::from_millis(300)));
    let peer = hand_over_by_hand(&listener, &yours(4, 3, 1), &lock);
    // It will not hear any more; only then comes the rest.
    peer.0.shutdown(std::net::Shutdown::Read).expect("shut");
    peer.say(MORE, &[], &[listener.as_fd()]).expect("sent");
    std::fs::remove_file(dir.join("handover.sock")).expect("removed");
    let error = starting.join().expect("it runs").expect_err("the ring is not its own");
    assert!(matches!(error, OpenError::NotHandedOver { .. }), "{error:?}");
    assert!(lock_of(&dir).is_none(), "the lock has gone");
    drop(lock);
    goes_on(&successor(&dir, LONG).expect("free"));
}

#[test]
fn what_is_taken_back_still_reaches_the_disk() {
    let dir = TempDir::new("durable");
    let options = small().durability(Durability::Background { within: Duration::from_millis(20) });
    let old = open_with::<World>(&options, &dir).expect("opened");
    let offer = old.hand_over().expect("offered");
    let peer = Peer::connect(&dir);
    peer.greet::<World>();
    assert_eq!(peer.hear().expect("an answer").0, WELCOME);
    peer.say(READY, &[], &[]).expect("heard");
    let offer = ready(offer);
    let answer = thread::scope(|scope| {
        let completing = scope.spawn(|| offer.complete(old, &[]));
        assert_eq!(peer.hear().expect("the lock").0, YOURS);
        drop(peer);
        completing.join().expect("it runs")
    });
    let old = answer.expect_err("the successor died").caretaker;
    let saved = old.save(&world(1)).expect("saved");
    let until = Instant::now() + LONG;
    while old.durable() != Some(saved) {
        assert!(Instant::now() < until, "nobody syncs it");
        thread::sleep(Duration::from_millis(1));
    }
}

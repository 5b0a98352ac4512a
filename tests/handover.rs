//! A ring must pass from one process to the next without a moment at which two write or anybody else
//! gets the lock; and where a hand-over fails, at whatever step, exactly one of the two goes on.

mod common;

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{
        fd::AsFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use common::{
    Child, Peer, TempDir, World, child_role, lock_of, open, open_with,
    peer::{HELLO, MORE, READY, TAKEN, WELCOME, YOURS, row},
    report, small, thawed, world,
};
use snapring::{
    Caretaker, Event, HandOver, HandOverError, HeldBy, OpenError, Options, Reader, RollbackError,
    SaveError, SnapshotId, TakenBack,
};

const LONG: Duration = Duration::from_secs(20);

fn id(n: u64) -> SnapshotId {
    SnapshotId::new(n)
}

fn successor(dir: &Path, timeout: Duration) -> Result<Caretaker<World>, OpenError> {
    open_with(&small().take_over(timeout), dir)
}

/// A successor in a thread of its own: descriptors and locks do not care for processes.
fn start(dir: &Path) -> JoinHandle<Result<Caretaker<World>, OpenError>> {
    let dir = dir.to_owned();
    thread::spawn(move || successor(&dir, LONG))
}

fn offered(caretaker: &Caretaker<World>) -> HandOver {
    caretaker.hand_over().expect("offered").patience(LONG)
}

fn ready(offer: HandOver) -> HandOver {
    offer.wait(LONG).expect("a successor is ready");
    offer
}

/// Saves the worlds `from..=to`.
fn save(caretaker: &Caretaker<World>, from: u64, to: u64) {
    for n in from..=to {
        caretaker.save(&world(n)).expect("saved");
    }
}

/// It has the ring, and goes on with it.
fn goes_on(caretaker: &Caretaker<World>) {
    let last = caretaker.head().map_or(0, SnapshotId::get);
    let saved = caretaker.save(&world(last + 1)).expect("it saves");
    assert_eq!(saved, id(last + 1));
    assert_eq!(caretaker.resume().expect("whole"), Some(world(last + 1)));
    caretaker.keep(saved, "gone on").expect("kept");
}

/// What a child does in its role; as a test of its own, nothing.
#[test]
fn child_plays_its_role() {
    let Some((role, dir)) = child_role() else { return };
    match role.as_str() {
        "serve" | "succeed and serve" => {
            let caretaker = match role.as_str() {
                "serve" => open(&dir),
                _ => successor(&dir, LONG).expect("taken over"),
            };
            let offer = offered(&caretaker);
            report("offered");
            for n in caretaker.head().map_or(1, |id| id.get() + 1).. {
                caretaker.save(&world(n)).expect("saved");
                if offer.successor().is_some() {
                    break;
                }
                thread::sleep(Duration::from_micros(200));
            }
            report(format_args!("last {}", caretaker.head().expect("saved").get()));
            match offer.complete(caretaker, &[]) {
                Ok(()) => report("handed over"),
                Err(back) => report(back),
            }
        }
        "offer for ever" => {
            let caretaker = open(&dir);
            save(&caretaker, 1, 3);
            let offer = offered(&caretaker);
            report("offered");
            let _offer = ready(offer);
            report("ready");
            thread::sleep(LONG);
        }
        "try the lock" => {
            report("trying");
            let mut tries = 0_u64;
            while lock_of(&dir).is_none() {
                tries += 1;
            }
            report(format_args!("got it after {tries}"));
        }
        _ => panic!("no role {role}"),
    }
}

#[test]
fn the_successor_goes_on_where_the_predecessor_stopped() {
    let dir = TempDir::new("goes on");
    let old = open(&dir);
    save(&old, 1, 20);
    old.keep(id(9), "nine").expect("kept");
    let mut events = old.subscribe();
    let offer = offered(&old);
    let starting = start(&dir);
    let offer = ready(offer);
    assert_eq!(offer.successor(), Some(std::process::id()));
    // It still serves: these come after all that the successor could do beforehand.
    save(&old, 21, 40);
    let listed = old.history();
    offer.complete(old, &[]).expect("handed over");
    let new = starting.join().expect("it runs").expect("it opens");
    assert_eq!(new.recovery().predecessor, Some(std::process::id()));
    assert_eq!(new.resume().expect("whole"), Some(world(40)));
    let ids = |entries: &[snapring::Entry]| -> Vec<_> {
        entries.iter().map(|e| (e.id(), e.label().map(str::to_owned))).collect()
    };
    assert_eq!(ids(&new.history()), ids(&listed));
    assert_eq!(thawed(&new, id(9)), Some(9));
    goes_on(&new);
    let told: Vec<Event> = events.by_ref().collect();
    assert_eq!(told.last(), Some(&Event::HandedOver { process: std::process::id() }));
    // And whoever comes later finds what both have saved.
    assert!(matches!(successor(&dir, Duration::ZERO), Err(OpenError::WriterActive { .. })));
    drop(new);
    let later = open(&dir);
    assert!(later.recovery().clean);
    assert_eq!(later.resume().expect("whole"), Some(world(41)));
    assert_eq!(thawed(&later, id(9)), Some(9));
    goes_on(&later);
    assert!(!dir.join("handover.sock").exists());
}

#[test]
fn descriptors_arrive_in_order_and_work() {
    let dir = TempDir::new("descriptors");
    let old = open(&dir);
    save(&old, 1, 1);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    // More than go with one message.
    let pair = |_| {
        let client = TcpStream::connect(address).expect("connected");
        (client, listener.accept().expect("accepted").0)
    };
    let (clients, served): (Vec<_>, Vec<_>) = (0..150).map(pair).unzip();
    let offer = offered(&old);
    let starting = start(&dir);
    let offer = ready(offer);
    let mut descriptors = vec![listener.as_fd()];
    descriptors.extend(served.iter().map(|stream| stream.as_fd()));
    offer.complete(old, &descriptors).expect("handed over");
    drop((listener, served));
    let new = starting.join().expect("it runs").expect("it opens");
    let mut inherited = new.inherited().into_iter();
    assert_eq!(inherited.len(), 151);
    assert!(new.inherited().is_empty(), "handed out once");
    let listener = TcpListener::from(inherited.next().expect("the listener"));
    for (i, (fd, mut client)) in inherited.zip(&clients).enumerate() {
        TcpStream::from(fd).write_all(&(i as u32).to_le_bytes()).expect("sent");
        let mut heard = [0; 4];
        client.read_exact(&mut heard).expect("no connection was dropped");
        assert_eq!(u32::from_le_bytes(heard), i as u32);
    }
    let late = TcpStream::connect(address).expect("the listener never closed");
    assert_eq!(listener.accept().expect("accepted").1, late.local_addr().expect("its address"));
}

#[test]
fn the_lock_is_never_free_between_processes() {
    let dir = TempDir::new("never free");
    drop(open(&dir));
    let mut first = Child::start("child_plays_its_role", "serve", &dir);
    assert_eq!(first.next().as_deref(), Some("offered"));
    // Had it got the lock once, the next hand-over would not find it with its predecessor.
    let mut thief = Child::start("child_plays_its_role", "try the lock", &dir);
    assert_eq!(thief.next().as_deref(), Some("trying"));
    let mut last = 0;
    let mut serving = first;
    for round in 0..10 {
        let caretaker = successor(&dir, LONG).expect("taken over");
        let said = serving.rest();
        let head = said[0].strip_prefix("last ").expect("its head").parse().expect("a number");
        assert_eq!(said[1], "handed over", "round {round}");
        assert!(serving.end().success());
        assert!(head > last, "{head} after {last}");
        last = head + 1;
        assert_eq!(caretaker.head(), Some(id(head)), "round {round}");
        goes_on(&caretaker);
        // And on to the next process.
        let offer = offered(&caretaker);
        let mut next = Child::start("child_plays_its_role", "succeed and serve", &dir);
        let offer = ready(offer);
        offer.complete(caretaker, &[]).expect("handed over");
        assert_eq!(next.next().as_deref(), Some("offered"));
        serving = next;
    }
    serving.kill();
    let said = thief.next().expect("in the end it is free");
    let tries = said.strip_prefix("got it after ").and_then(|n| n.parse::<u64>().ok());
    assert!(tries.is_some_and(|tries| tries > 1000), "the thief hardly tried: {said}");
}

/// A world of the next build.
mod next {
    use snapring::Snapshot;

    #[derive(Snapshot, Debug, PartialEq, Clone)]
    pub(crate) struct World {
        pub(crate) tick: u64,
        pub(crate) players: Vec<super::common::state::Player>,
        pub(crate) scores: std::collections::BTreeMap<String, i32>,
        pub(crate) weather: u8,
    }
}

#[test]
fn another_layout_is_refused_and_the_predecessor_goes_on() {
    let dir = TempDir::new("layout");
    let old = open(&dir);
    save(&old, 1, 5);
    let offer = offered(&old);
    let error = open_with::<next::World>(&small().take_over(LONG), &dir).expect_err("refused");
    let OpenError::Layout { difference, process, .. } = &error else { panic!("{error:?}") };
    assert_eq!(difference, "weather: in the program alone");
    assert_eq!(*process, format!("process {}", std::process::id()));
    let text = error.to_string();
    assert!(text.contains("weather") && text.contains("Start a build with its layout"), "{text}");
    assert_eq!(offer.successor(), None);
    // Told to the successor first.
    let until = Instant::now() + LONG;
    while offer.refused().is_empty() && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    let refused = offer.refused();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].process, std::process::id());
    assert!(refused[0].reason.contains("weather"), "{refused:?}");
    goes_on(&old);
    // And the same offer serves the next one that comes.
    let starting = start(&dir);
    ready(offer).complete(old, &[]).expect("handed over");
    goes_on(&starting.join().expect("it runs").expect("it opens"));
}

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
    for round in 0..60_u64 {
        // Its own thread may take a moment to end.
        let caretaker = old.take().unwrap_or_else(|| successor(&dir, LONG).expect("free"));
        let patience = Duration::from_millis(5);
        let offer = caretaker.hand_over().expect("offered").patience(patience);
        let peer = Peer::connect(&dir);
        peer.greet::<World>();
        assert_eq!(peer.hear().expect("an answer").0, WELCOME);
        peer.say(READY, &[], &[]).expect("heard");
        let offer = ready(offer);
        let (said, answer, lock) = thread::scope(|scope| {
            let talking = scope.spawn(|| {
                let (_, _, lock) = peer.hear().expect("the lock");
                thread::sleep(Duration::from_micros(4700 + round * 10));
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

#[test]
fn a_predecessor_that_dies_while_it_offers_is_followed_as_usual() {
    let dir = TempDir::new("offers and dies");
    let mut old = Child::start("child_plays_its_role", "offer for ever", &dir);
    assert_eq!(old.next().as_deref(), Some("offered"));
    let starting = start(&dir);
    assert_eq!(old.next().as_deref(), Some("ready"));
    old.kill();
    let new = starting.join().expect("it runs").expect("it opens");
    assert_eq!(new.recovery().predecessor, None);
    assert_eq!(new.resume().expect("whole"), Some(world(3)));
    goes_on(&new);
    // The socket that was left behind is in nobody's way.
    let offer = offered(&new);
    let starting = start(&dir);
    ready(offer).complete(new, &[]).expect("handed over");
    goes_on(&starting.join().expect("it runs").expect("it opens"));
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
    let text = b"rkyv 0.8 little-endian aligned pointer-32\n#0 struct World 4/4 \xff@\x1b[2J=#99\n";
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
    assert!(refused.iter().all(|r| !r.reason.contains('\x1b')), "{refused:?}");
    assert_eq!(offer.successor(), None);
    goes_on(&old);
}

#[test]
fn time_runs_out_politely() {
    let dir = TempDir::new("time");
    let old = open(&dir);
    save(&old, 1, 3);
    // Not offered.
    let start = Instant::now();
    let error = successor(&dir, Duration::from_millis(100)).expect_err("in use");
    assert!(matches!(error, OpenError::WriterActive { .. }), "{error:?}");
    assert!(start.elapsed() >= Duration::from_millis(100));
    // Offered, and not completed.
    let offer = offered(&old);
    let error = successor(&dir, Duration::from_millis(100)).expect_err("not completed");
    let OpenError::NotHandedOver { reason, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains("did not answer"), "{reason}");
    // Withdrawn.
    drop(offer);
    assert!(!dir.join("handover.sock").exists());
    let error = successor(&dir, Duration::ZERO).expect_err("in use");
    assert!(matches!(error, OpenError::WriterActive { .. }), "{error:?}");
    // And for somebody else's caretaker.
    let second = TempDir::new("time too");
    let other = open(&second);
    let offer = offered(&old);
    let back = offer.complete(other, &[]).expect_err("another caretaker");
    assert!(matches!(back.why, HandOverError::OtherCaretaker));
    goes_on(&old);
    // Nobody has it at all.
    drop(old);
    let start = Instant::now();
    goes_on(&successor(&dir, LONG).expect("opened as usual"));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn what_the_predecessor_holds_stays_until_it_lets_go() {
    let dir = TempDir::new("held");
    let old = open(&dir);
    save(&old, 1, 1);
    let evicted = old.latest().expect("there");
    save(&old, 2, 30);
    assert!(old.memento(id(1)).is_none(), "it has left the ring");
    let listed = old.memento(id(20)).expect("listed");
    let newest = old.latest().expect("there");
    let checkpoint = old.checkpoint(&world(31)).expect("saved");
    let offer = offered(&old);
    let starting = start(&dir);
    ready(offer).complete(old, &[]).expect("handed over");
    // Read from while the successor is not there yet.
    assert_eq!(newest.thaw().expect("whole"), world(30));
    let new = starting.join().expect("it runs").expect("it opens");
    for _ in 0..200 {
        goes_on(&new);
        for (memento, n) in [(&evicted, 1), (&listed, 20), (&newest, 30)] {
            assert_eq!(memento.thaw().expect("whole"), world(n), "its bytes have changed");
        }
    }
    let held: Vec<u64> = new.stats().held.iter().map(|h| h.id.get()).collect();
    for n in [1, 20, 30, 31] {
        assert!(held.contains(&n), "{n} is not held: {held:?}");
    }
    // It cannot be passed on while somebody else holds it.
    let offer = offered(&new);
    let starting = start(&dir);
    let back = ready(offer).complete(new, &[]).expect_err("held");
    assert!(matches!(back.why, HandOverError::Held), "{}", back.why);
    let new = back.caretaker;
    // What the predecessor has left restores nothing, and saves nothing.
    let mut live = world(7);
    let error = checkpoint.restore(&mut live).expect_err("handed over");
    assert!(
        matches!(error, RollbackError::NoPlace { source: SaveError::HandedOver, .. }),
        "{error:?}"
    );
    assert_eq!(live, world(7));
    drop((evicted, listed, newest));
    let until = Instant::now() + LONG;
    while new.stats().held.iter().any(|h| [1, 20, 30, 31].contains(&h.id.get())) {
        assert!(Instant::now() < until, "they are held for ever: {:?}", new.stats().held);
        thread::sleep(Duration::from_millis(1));
    }
    // Its room is used again.
    save(&new, 1000, 1040);
    let offer = offered(&new);
    ready(offer).complete(new, &[]).expect("nobody holds anything");
    goes_on(&starting.join().expect("it runs").expect("it opens"));
}

#[test]
fn readers_elsewhere_do_not_notice() {
    let dir = TempDir::new("readers");
    let old = open(&dir);
    save(&old, 1, 1);
    // SAFETY: caretakers alone write there.
    let reader = unsafe { Reader::<World>::open(&dir) }.expect("a reader");
    // One that a reader leases, one that the predecessor holds too; both leave the ring.
    let leased = reader.latest().expect("there");
    save(&old, 2, 2);
    let both = (reader.latest().expect("there"), old.latest().expect("there"));
    save(&old, 3, 40);
    assert!(old.memento(id(1)).is_none() && old.memento(id(2)).is_none());
    let offer = offered(&old);
    let starting = start(&dir);
    ready(offer).complete(old, &[]).expect("handed over");
    assert_eq!(reader.latest().expect("there").id(), id(40));
    let new = starting.join().expect("it runs").expect("it opens");
    for n in 41..=240 {
        new.save(&world(n)).expect("saved");
        assert_eq!(leased.thaw().expect("whole"), world(1), "its bytes have changed");
        assert_eq!(both.0.thaw().expect("whole"), world(2), "its bytes have changed");
    }
    assert_eq!(reader.latest().expect("there").id(), id(240), "it follows the successor");
    // What is let go is used again, once and no more.
    drop(both.1);
    let until = Instant::now() + LONG;
    while new.stats().held.iter().any(|h| matches!(h.by, HeldBy::Mementos { .. })) {
        assert!(Instant::now() < until, "it is held for ever");
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(both.0.thaw().expect("whole"), world(2));
    drop((leased, both.0, reader));
    save(&new, 241, 300);
    assert!(new.stats().held.is_empty(), "{:?}", new.stats().held);
    assert_eq!(new.history().len(), 16);
    for entry in new.history() {
        assert_eq!(thawed(&new, entry.id()), Some(entry.id().get()));
    }
}

#[test]
fn the_directory_stays_locked_while_a_predecessor_holds_a_memento() {
    let dir = TempDir::new("locked");
    let old = open(&dir);
    save(&old, 1, 3);
    let memento = old.latest().expect("there");
    let offer = offered(&old);
    let starting = start(&dir);
    ready(offer).complete(old, &[]).expect("handed over");
    let new = starting.join().expect("it runs").expect("it opens");
    goes_on(&new);
    drop(new);
    let error = open_with::<World>(&small(), &dir).expect_err("held by the predecessor's memento");
    assert!(matches!(error, OpenError::WriterActive { .. }), "{error:?}");
    assert_eq!(memento.thaw().expect("whole"), world(3));
    drop(memento);
    // Another test's child may have the descriptor between its fork and its exec.
    goes_on(&successor(&dir, LONG).expect("free"));
}

#[test]
fn a_long_path_is_no_hindrance() {
    let temp = TempDir::new("long");
    let dir = temp.inside(&"d".repeat(200));
    let old = open(&dir);
    let offer = offered(&old);
    let starting = start(&dir);
    ready(offer).complete(old, &[]).expect("handed over");
    goes_on(&starting.join().expect("it runs").expect("it opens"));
}

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

#[test]
fn nothing_is_saved_on_the_way_down_of_a_ring_that_was_handed_over() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    let dir = TempDir::new("way down");
    let old = open(&dir);
    save(&old, 1, 3);
    let memento = old.latest().expect("there");
    let farewell = old.farewell(|save| {
        ASKED.store(true, Ordering::Relaxed);
        save(&world(99));
    });
    let _armed = farewell.on_panic().arm().expect("armed");
    let offer = offered(&old);
    let starting = start(&dir);
    ready(offer).complete(old, &[]).expect("handed over");
    let new = starting.join().expect("it runs").expect("it opens");
    thread::spawn(|| panic!("on purpose")).join().expect_err("it panics");
    assert!(!ASKED.load(Ordering::Relaxed));
    assert_eq!(new.head(), Some(id(3)));
    drop(memento);
}

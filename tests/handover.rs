//! A ring must pass from one process to the next without a moment at which two write or anybody else
//! gets the lock; and where a hand-over fails, at whatever step, exactly one of the two goes on.

mod common;

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{
    Child, TempDir, World, child_role,
    hand::{LONG, goes_on, id, next, offered, ready, save, start, successor},
    lock_of, newest, open, open_with, report, small, thawed, world,
};
use snapring::{Event, HandOverError, HeldBy, OpenError, Reader, RollbackError, SaveError};

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
    // What the predecessor has left undoes a change still, and publishes nothing.
    let mut live = world(7);
    let error = checkpoint.restore(&mut live).expect_err("handed over");
    assert!(
        matches!(error, RollbackError::Unpublished { source: SaveError::HandedOver, .. }),
        "{error:?}"
    );
    assert_eq!(live, world(31));
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
    for n in 241..=300 {
        new.save(&world(n)).expect("saved");
        let ids: Vec<u64> = new.history().iter().map(|entry| entry.id().get()).collect();
        assert_eq!(ids, (n - 15..=n).rev().collect::<Vec<_>>(), "a place is used twice");
    }
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

#[test]
fn a_last_save_that_comes_too_late_is_refused() {
    static HANDED: AtomicBool = AtomicBool::new(false);
    let dir = TempDir::new("too late");
    let old = open(&dir);
    save(&old, 1, 3);
    let (asked, is_asked) = std::sync::mpsc::channel();
    let farewell = old.farewell(move |save| {
        _ = asked.send(());
        while !HANDED.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        save(&world(99));
    });
    let armed = farewell.on_panic().arm().expect("armed");
    let offer = offered(&old);
    let starting = start(&dir);
    let offer = ready(offer);
    let panicking = thread::spawn(|| panic!("on purpose"));
    is_asked.recv_timeout(LONG).expect("it is asked");
    offer.complete(old, &[]).expect("handed over");
    let new = starting.join().expect("it runs").expect("it opens");
    HANDED.store(true, Ordering::Relaxed);
    panicking.join().expect_err("it panics");
    drop(armed);
    assert_eq!(newest(&dir).expect("a snapshot").0, 3, "it wrote into another's files");
    goes_on(&new);
    drop(new);
    assert_eq!(successor(&dir, LONG).expect("free").resume().expect("whole"), Some(world(4)));
}

//! A reader in another process that sees bytes being written over, keeps places after its death, or
//! keeps a save waiting.

mod common;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{
    Block, Child, LAST, TempDir, World, blocks, child_role, leased, open, open_with, read_in,
    reader, report, whole, world,
};
use snapring::{
    Caretaker, Durability, HeldBy, Memento, MementoError, Options, ReaderError, SaveError,
    SnapshotId,
};

fn id(n: u64) -> SnapshotId {
    SnapshotId::new(n)
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: not after 20 s");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Ends a child whose parent has ended before it.
fn end_if_orphaned(parent: u32) {
    if std::os::unix::process::parent_id() != parent {
        std::process::exit(1);
    }
}

/// What a child does in its role; as a test of its own, nothing.
#[test]
fn child_plays_its_role() {
    let Some((role, dir)) = child_role() else { return };
    let parent = std::os::unix::process::parent_id();
    match role.as_str() {
        "read" => read_until_the_last(&dir, parent),
        "hold" => {
            let reader = reader::<Block>(&dir);
            let held = reader.latest().expect("a snapshot");
            report(format_args!("{} {}", held.id().get(), held.digest()));
            while !dir.join("go on").exists() {
                end_if_orphaned(parent);
                thread::sleep(Duration::from_millis(5));
            }
            whole(&held);
            report(format_args!("{} {}", held.id().get(), held.digest()));
        }
        "write" => {
            let caretaker = blocks(&dir, 4);
            for tick in caretaker.head().map_or(0, SnapshotId::get) + 1.. {
                caretaker.save(&Block::at(tick)).expect("saved");
                if tick % 1000 == 0 {
                    end_if_orphaned(parent);
                    report(tick);
                }
            }
        }
        "wait" => {
            let reader = reader::<Block>(&dir);
            let mut seen = id(0);
            report("ready");
            while let Some(newer) = reader.wait_newer(seen, Duration::from_secs(30)) {
                seen = newer;
                report(newer.get());
            }
        }
        "create" => _ = open(&dir).save(&world(1)).expect("saved"),
        "fork" => fork(&dir),
        _ => panic!("no role {role}"),
    }
}

/// Reads in every way until the last block comes.
fn read_until_the_last(dir: &Path, parent: u32) {
    let reader = reader::<Block>(dir);
    report("reading");
    let (mut looks, mut changes, mut newest, mut kept) = (0_u64, 0_u64, 0, Vec::new());
    loop {
        looks += 1;
        let tick = reader.read(whole).expect("there is a head");
        if tick == LAST {
            break;
        }
        let latest = reader.latest().expect("there is a head");
        assert!(latest.id().get() >= newest, "the head went back");
        changes += u64::from(latest.id().get() > newest);
        newest = latest.id().get();
        kept.push((whole(&latest), latest));
        if kept.len() > 3 {
            let (tick, memento) = kept.remove(0);
            assert_eq!(whole(&memento), tick, "a held snapshot changed");
        }
        if looks % 8 == 0 {
            end_if_orphaned(parent);
            let history = reader.history();
            assert!(history.windows(2).all(|w| w[0].id() > w[1].id()), "{history:?}");
            let picked = history[looks as usize / 8 % history.len()].id();
            match reader.try_memento(picked) {
                Ok(memento) => _ = whole(&memento),
                Err(MementoError::Evicted { .. }) => {}
                Err(error) => panic!("{picked}: {error}"),
            }
        }
    }
    report(format_args!("{looks} {changes}"));
}

#[test]
fn readers_in_other_processes_see_whole_snapshots_beside_a_writer_at_full_speed() {
    let dir = TempDir::new("full speed");
    let caretaker = blocks(&dir, 4);
    caretaker.save(&Block::at(1)).expect("saved");
    let start = || Child::start("child_plays_its_role", "read", &dir);
    let mut children = [start(), start(), start()];
    for child in &mut children {
        assert_eq!(child.next().as_deref(), Some("reading"));
    }
    let (start, mut tick, mut slowest) = (Instant::now(), 1, Duration::ZERO);
    while start.elapsed() < Duration::from_millis(2500) {
        tick += 1;
        let before = Instant::now();
        let saved =
            caretaker.save(&Block::at(tick)).expect("no reader keeps a save from its place");
        slowest = slowest.max(before.elapsed());
        if tick % 5 == 0 {
            let to = id(saved.get() - 1);
            let mut live = Block::at(tick);
            _ = caretaker.rollback(&mut live, to).expect("rolled back");
        }
    }
    caretaker.save(&Block::at(LAST)).expect("saved");
    for child in &mut children {
        let said = child.next().expect("it ends by itself");
        let numbers: Vec<u64> = said.split(' ').map(|n| n.parse().expect("a number")).collect();
        assert!(numbers[0] > 100 && numbers[1] > 50, "{said}");
        println!("looks and changes seen: {said}");
    }
    println!("{tick} saves, the slowest {slowest:?}");
}

#[test]
fn threads_that_share_a_reader_see_whole_snapshots() {
    let dir = TempDir::new("threads");
    let caretaker = blocks(&dir, 3);
    caretaker.save(&Block::at(1)).expect("saved");
    let shared = reader::<Block>(&dir);
    let (stop, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for number in 0..4 {
            let (shared, stop, looks) = (&shared, &stop, &looks);
            scope.spawn(move || {
                let mut kept: Vec<(u64, Memento<Block>)> = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    looks.fetch_add(1, Ordering::Relaxed);
                    match number {
                        0 => _ = shared.read(whole).expect("there is a head"),
                        1 => {
                            let memento = shared.latest().expect("there is a head");
                            kept.push((whole(&memento), memento.clone()));
                            if kept.len() > 2 {
                                let (tick, memento) = kept.remove(0);
                                assert_eq!(whole(&memento), tick, "a held snapshot changed");
                            }
                        }
                        2 => {
                            shared.read(|outer| {
                                let before = whole(outer);
                                let inner = shared.read(|inner| (whole(inner), whole(outer)));
                                assert_eq!(inner.expect("there is a head").1, before);
                                assert_eq!(whole(outer), before);
                            });
                        }
                        _ => {
                            let history = shared.history();
                            let at = looks.load(Ordering::Relaxed) as usize % history.len();
                            match shared.try_memento(history[at].id()) {
                                Ok(memento) => _ = whole(&memento),
                                Err(MementoError::Evicted { .. }) => {}
                                Err(error) => panic!("{error}"),
                            }
                        }
                    }
                }
            });
        }
        let start = Instant::now();
        for tick in 2.. {
            caretaker.save(&Block::at(tick)).expect("no reader keeps a save from its place");
            if start.elapsed() > Duration::from_secs(2) {
                println!("{tick} saves, {} looks", looks.load(Ordering::Relaxed));
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(looks.into_inner() > 100);
    drop(shared);
    assert_eq!(leased(&caretaker), [], "what nobody reads is let go");
}

#[test]
fn killed_readers_leak_nothing() {
    let dir = TempDir::new("killed");
    let caretaker = blocks(&dir, 4);
    let kills = std::env::var("SNAPRING_TEST_READERS").ok().and_then(|n| n.parse().ok());
    let kills: u64 = kills.unwrap_or(50);
    for tick in 1..500 {
        caretaker.save(&Block::at(tick)).expect("saved");
    }
    let bytes = caretaker.stats().file_bytes;
    let mut tick = 500;
    for kill in 0..kills {
        let role = if kill % 2 == 0 { "hold" } else { "read" };
        let mut child = Child::start("child_plays_its_role", role, &dir);
        let said = child.next().expect("it reads");
        if role == "hold" {
            let held: u64 = said.split(' ').next().expect("an id").parse().expect("a number");
            assert!(leased(&caretaker).iter().any(|(id, _)| *id == held), "{held} is not listed");
        }
        for _ in 0..20 {
            tick += 1;
            caretaker.save(&Block::at(tick)).expect("saved");
        }
        child.kill();
        assert_eq!(leased(&caretaker), [], "kill {kill}: the kernel ends the leases of the dead");
    }
    for _ in 0..200 {
        tick += 1;
        caretaker.save(&Block::at(tick)).expect("saved");
    }
    assert!(caretaker.stats().file_bytes <= 2 * bytes, "places have leaked");
}

#[test]
fn a_stopped_reader_is_listed_with_its_age_and_keeps_its_bytes() {
    let dir = TempDir::new("stopped");
    let caretaker = blocks(&dir, 4);
    caretaker.save(&Block::at(1)).expect("saved");
    let mut child = Child::start("child_plays_its_role", "hold", &dir);
    let said = child.next().expect("it holds");
    let process = rustix::process::Pid::from_raw(child.id() as i32).expect("a process");
    rustix::process::kill_process(process, rustix::process::Signal::STOP).expect("stopped");
    for tick in 2..5000 {
        caretaker.save(&Block::at(tick)).expect("a stopped reader keeps one place, and no save");
    }
    thread::sleep(Duration::from_millis(300));
    let held = leased(&caretaker);
    let [(held_id, age)] = held[..] else { panic!("{held:?}") };
    assert_eq!(held_id, 1);
    assert!(age >= Duration::from_millis(250), "{age:?}");
    assert!(caretaker.history().iter().all(|entry| entry.id() != id(1)), "it has left the ring");
    let told = caretaker.stats().held.iter().map(ToString::to_string).collect::<String>();
    assert!(told.contains("#1 by a reader"), "{told}");
    std::fs::write(dir.join("go on"), "").expect("written");
    rustix::process::kill_process(process, rustix::process::Signal::CONT).expect("goes on");
    assert_eq!(child.next().as_deref(), Some(&*said), "its snapshot changed");
    assert_eq!(child.next(), None);
    child.kill();
    assert_eq!(leased(&caretaker), []);
}

#[test]
fn what_a_reader_leases_outlives_the_writer_and_is_left_alone_by_the_next() {
    let dir = TempDir::new("restart");
    let mut writer = Child::start("child_plays_its_role", "write", &dir);
    writer.next().expect("it saves");
    let reader = reader::<Block>(&dir);
    let mut held: Vec<(u64, Memento<Block>)> = Vec::new();
    for round in 0..6 {
        let memento = reader.latest().expect("a snapshot");
        held.push((whole(&memento), memento));
        // They leave the ring, or not, before the writer dies.
        thread::sleep(Duration::from_millis(round % 3));
        if round % 2 == 1 {
            writer.kill();
            if round < 5 {
                writer = Child::start("child_plays_its_role", "write", &dir);
                writer.next().expect("it saves");
            }
        }
        for (tick, memento) in &held {
            assert_eq!(whole(memento), *tick, "round {round}: a held snapshot changed");
        }
    }
    let caretaker = blocks(&dir, 4);
    let kept: BTreeSet<u64> = leased(&caretaker).iter().map(|(id, _)| *id).collect();
    for (_, memento) in &held {
        assert!(kept.contains(&memento.id().get()), "{} is not retained: {kept:?}", memento.id());
    }
    let newest = caretaker.head().expect("saved").get();
    for tick in newest + 1..newest + 3000 {
        caretaker.save(&Block::at(tick)).expect("saved");
    }
    for (tick, memento) in &held {
        assert_eq!(whole(memento), *tick, "a held snapshot changed");
    }
    assert_eq!(reader.head(), caretaker.head());
    assert_eq!(reader.read(whole), Some(newest + 2999));
    assert!(reader.is_current());
    drop(held);
    assert!(leased(&caretaker).len() <= 1, "the head alone");
    caretaker.close().expect("closed");
    assert_eq!(reader.read(whole), Some(newest + 2999), "a closed ring can be read");
    let caretaker = blocks(&dir, 4);
    let saved = caretaker.save(&Block::at(7)).expect("saved");
    assert_eq!(reader.latest().map(|memento| memento.id()), Some(saved));
}

#[test]
fn waiting_ends_soon_after_a_save_or_with_the_time() {
    let dir = TempDir::new("wait");
    let caretaker = blocks(&dir, 4);
    let first = caretaker.save(&Block::at(1)).expect("saved");
    let reader = reader::<Block>(&dir);
    assert_eq!(reader.wait_newer(id(0), Duration::ZERO), Some(first));
    let start = Instant::now();
    assert_eq!(reader.wait_newer(first, Duration::from_millis(230)), None);
    let took = start.elapsed();
    assert!((Duration::from_millis(230)..Duration::from_secs(2)).contains(&took), "{took:?}");
    // By now the caretaker knows that a reader is there.
    let mut took = Vec::new();
    for tick in 2..40 {
        let (sent, saved) = thread::scope(|scope| {
            let (head, reader) = (caretaker.head().expect("saved"), &reader);
            let waiting = scope.spawn(move || {
                let newer = reader.wait_newer(head, Duration::from_secs(20));
                (Instant::now(), newer)
            });
            thread::sleep(Duration::from_millis(20));
            let sent = Instant::now();
            let saved = caretaker.save(&Block::at(tick)).expect("saved");
            let (woken, newer) = waiting.join().expect("no panic");
            assert_eq!(newer, Some(saved));
            (woken.duration_since(sent), saved)
        });
        assert_eq!(reader.head(), Some(saved));
        took.push(sent);
    }
    took.sort();
    println!("woken after {:?} (median), {:?} at most", took[took.len() / 2], took.last());
    assert!(took[took.len() / 2] < Duration::from_millis(40), "{took:?}");
}

#[test]
fn another_process_is_woken_once_for_many_saves() {
    let dir = TempDir::new("woken");
    let caretaker = blocks(&dir, 4);
    caretaker.save(&Block::at(1)).expect("saved");
    let mut child = Child::start("child_plays_its_role", "wait", &dir);
    assert_eq!(child.next().as_deref(), Some("ready"));
    assert_eq!(child.next().as_deref(), Some("1"));
    let saves = 20_000;
    for tick in 2..=saves {
        caretaker.save(&Block::at(tick * 97 + 1)).expect("saved");
    }
    let mut told = 1;
    let last = loop {
        let newer: u64 = child.next().expect("it is woken").parse().expect("a number");
        told += 1;
        if newer == saves {
            break newer;
        }
    };
    assert_eq!(last, saves);
    println!("{saves} saves, told of {told}");
    assert!(told < saves / 4, "{told} of {saves}");
}

#[test]
fn a_reader_that_comes_while_the_files_are_made_waits_for_no_more_than_that() {
    for round in 0..20 {
        let dir = TempDir::new("creation");
        let ring = dir.inside("ring");
        let mut creator = Child::start("child_plays_its_role", "create", &ring);
        let reader = loop {
            match read_in::<World>(&ring) {
                Ok(reader) => break reader,
                Err(ReaderError::NotReady { .. }) => {}
                Err(error) => panic!("round {round}: {error}"),
            }
        };
        assert_eq!(reader.wait_newer(id(0), Duration::from_secs(20)), Some(id(1)));
        assert_eq!(reader.latest().expect("saved").thaw().expect("whole"), world(1));
        assert_eq!(creator.next(), None);
    }
}

#[test]
fn many_readers_that_rarely_read_keep_few_places() {
    let dir = TempDir::new("many");
    let caretaker = blocks(&dir, 4);
    caretaker.save(&Block::at(1)).expect("saved");
    // More than there are places.
    let readers: Vec<_> = (0..60).map(|_| reader::<Block>(&dir)).collect();
    for tick in 2..600 {
        caretaker.save(&Block::at(tick)).expect("a reader that does not read keeps no place");
        let reader = &readers[tick as usize % readers.len()];
        assert_eq!(reader.read(whole), Some(tick));
    }
    until("leases of outdated snapshots", || {
        leased(&caretaker).iter().all(|(held, _)| caretaker.head() == Some(id(*held)))
    });
    drop(readers);
    assert_eq!(leased(&caretaker), []);
}

#[test]
fn when_readers_have_every_place_a_save_names_them_and_the_ring_stays() {
    let dir = TempDir::new("every place");
    let caretaker = blocks(&dir, 2);
    let reader = reader::<Block>(&dir);
    let mut held = Vec::new();
    let error = loop {
        let tick = held.len() as u64 + 1;
        assert!(tick < 30, "a leased place was used again");
        match caretaker.save(&Block::at(tick)) {
            Ok(_) => held.push(reader.latest().expect("saved")),
            Err(error) => break error,
        }
    };
    let SaveError::Held { holders } = &error else { panic!("{error}") };
    assert!(holders.len() >= 4 && holders.iter().any(|h| h.by == HeldBy::Reader), "{error}");
    assert!(error.to_string().contains("by a reader"), "{error}");
    for (n, memento) in held.iter().enumerate() {
        assert_eq!(whole(memento), n as u64 + 1);
    }
    assert_eq!(caretaker.head(), held.last().map(Memento::id));
    held.truncate(1);
    for tick in 100..200 {
        caretaker.save(&Block::at(tick)).expect("there is room again");
    }
    assert_eq!(whole(&held[0]), 1);
}

#[test]
fn space_that_readers_lease_is_not_taken_and_told() {
    let dir = TempDir::new("space");
    // Room for about five of them on each side.
    let options = Options::new()
        .ring(8)
        .file_size(64 << 10)
        .max_file_size(1 << 20)
        .durability(Durability::Process);
    let caretaker: Caretaker<Block> = open_with(&options, &dir).expect("opened");
    let reader = reader::<Block>(&dir);
    let block = |tick| Block { rows: vec![tick; 20_000], ..Block::at(tick) };
    let mut held = Vec::new();
    let error = loop {
        let tick = held.len() as u64 + 1;
        assert!(tick < 30, "a leased place was used again");
        match caretaker.save(&block(tick)) {
            Ok(_) => held.push(reader.latest().expect("saved")),
            Err(error) => break error,
        }
    };
    let SaveError::NoSpace { held: holders, .. } = &error else { panic!("{error}") };
    assert!(holders.iter().any(|h| h.by == HeldBy::Reader), "{error}");
    assert_eq!(caretaker.history().len(), held.len().min(8), "nothing was evicted in vain");
    held.iter().enumerate().for_each(|(n, memento)| assert_eq!(whole(memento), n as u64 + 1));
    held.clear();
    for tick in 100..200 {
        caretaker.save(&block(tick)).expect("there is room again");
    }
}

/// Forks with a reader open, and reports what both then see.
fn fork(dir: &Path) {
    let reader = reader::<World>(dir);
    let held = reader.latest().expect("a snapshot");
    // SAFETY: the child below calls nothing that waits for another thread of this process.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let alone = reader.read(|_| ()).is_none()
            && reader.latest().is_none()
            && matches!(reader.try_memento(held.id()), Err(MementoError::Forked))
            && reader.history().is_empty()
            && reader.head().is_none()
            && reader.wait_newer(id(0), Duration::from_secs(60)).is_none();
        drop((held, reader));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!alone)) };
    }
    let mut status = 0;
    // SAFETY: a child of this process, and a place for its status.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    report(format_args!("child {status}, parent {}", held.thaw().expect("whole").tick));
}

#[test]
fn a_forked_child_is_told_and_takes_nothing_from_its_parent() {
    let dir = TempDir::new("forked");
    let caretaker = open(&dir);
    caretaker.save(&world(1)).expect("saved");
    let mut child = Child::start("child_plays_its_role", "fork", &dir);
    assert_eq!(child.next().as_deref(), Some("child 0, parent 1"));
}

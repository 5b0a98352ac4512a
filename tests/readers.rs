//! A reader that sees bytes being written over, or makes a save wait.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use snapring::{
    Archived, Caretaker, CloseError, Durability, HeldBy, MementoError, OpenError, Options,
    RollbackError, SaveError, Snapshot, SnapshotId,
};

/// Every part of it is told by `tick`.
#[derive(Snapshot, Clone, PartialEq, Debug)]
struct World {
    tick: u64,
    rows: Vec<u64>,
    names: Vec<String>,
    scores: HashMap<u32, u64>,
    last: u64,
}

impl World {
    fn at(tick: u64, size: usize) -> World {
        World {
            tick,
            rows: vec![tick; size],
            names: (0..size % 7).map(|i| format!("{i} of {tick}")).collect(),
            scores: (0..size as u32 % 11).map(|i| (i, tick)).collect(),
            last: tick,
        }
    }
}

/// The tick, if every part agrees.
fn whole(world: &Archived<World>) -> u64 {
    let tick = world.tick.to_native();
    assert!(world.rows.iter().all(|row| row.to_native() == tick), "rows of another tick");
    for (i, name) in world.names.iter().enumerate() {
        assert_eq!(name.as_str(), format!("{i} of {tick}"));
    }
    assert!(world.scores.values().all(|score| score.to_native() == tick), "scores of another tick");
    assert_eq!(world.last.to_native(), tick);
    tick
}

/// Tells readers to stop, also where the writer panics.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Readers of every sort beside a writer that saves and rolls back.
fn stress(options: Options, size: usize, saves: u64) {
    let ring: Caretaker<World> = options.in_memory().expect("opens");
    ring.save(&World::at(1, size)).expect("saves");
    let stop = AtomicBool::new(false);
    let looks = AtomicU64::new(0);
    thread::scope(|scope| {
        let _stops = Stops(&stop);
        for reader in 0..4_u32 {
            let (ring, stop, looks) = (&ring, &stop, &looks);
            scope.spawn(move || {
                let mut kept = Vec::new();
                let mut newest = 0;
                while !stop.load(Ordering::Relaxed) {
                    looks.fetch_add(1, Ordering::Relaxed);
                    match reader {
                        0 => _ = ring.read(whole).expect("there is a head"),
                        1 => {
                            let memento = ring.latest().expect("there is a head");
                            assert!(memento.id().get() >= newest, "the head went back");
                            newest = memento.id().get();
                            kept.push((whole(&memento), memento));
                            if kept.len() > 2 {
                                let (tick, memento) = kept.remove(0);
                                assert_eq!(whole(&memento), tick, "a held snapshot changed");
                            }
                        }
                        2 => {
                            // Nested: both stay as they are, whatever is published between.
                            ring.read(|outer| {
                                let before = whole(outer);
                                let inner = ring.read(|inner| (whole(inner), whole(outer)));
                                assert_eq!(inner.expect("there is a head").1, before);
                                assert_eq!(whole(outer), before);
                            });
                        }
                        _ => {
                            let history = ring.history();
                            assert!(history.windows(2).all(|w| w[0].id() > w[1].id()));
                            let picked = &history[newest as usize % history.len()];
                            newest += 1;
                            match ring.try_memento(picked.id()) {
                                Ok(memento) => _ = whole(&memento),
                                Err(MementoError::Evicted { .. }) => {}
                                Err(error) => panic!("{error}"),
                            }
                        }
                    }
                }
            });
        }
        for tick in 2..saves {
            // Other lengths, so that extents move.
            let mut live = World::at(tick, size / 2 + tick as usize * 7 % (size / 2 + 1));
            let id = ring.save(&live).expect("no reader keeps a save from its place");
            if tick % 5 == 0 {
                let to = SnapshotId::new(id.get() - 1);
                match ring.rollback(&mut live, to) {
                    Ok(_) => assert_eq!(live.tick, live.last),
                    Err(RollbackError::Evicted { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    assert!(looks.into_inner() > 0);
    let stats = ring.stats();
    assert_eq!(stats.mementos, 0);
    assert!(stats.held.is_empty(), "{:?}", stats.held);
}

#[test]
fn small_states_are_whole_to_every_reader() {
    stress(Options::new(), 20, 6000);
}

#[test]
fn large_states_are_whole_to_every_reader() {
    stress(Options::new(), 20_000, 60);
}

#[test]
fn the_shortest_ring_is_whole_to_every_reader() {
    stress(Options::new().ring(2), 300, 2000);
}

/// Several writers at once: each save finds a place, and the ids are in the order of the head.
#[test]
fn many_writers_share_one_ring() {
    for length in [2, 16] {
        let ring: Caretaker<World> = Options::new().ring(length).in_memory().expect("opens");
        let start = Barrier::new(16);
        let mut ids: Vec<SnapshotId> = thread::scope(|scope| {
            let writers: Vec<_> = (0..16_u64)
                .map(|writer| {
                    let (ring, start) = (&ring, &start);
                    scope.spawn(move || {
                        start.wait();
                        let save = |i| ring.save(&World::at(writer * 100 + i, 40)).expect("saves");
                        let ids: Vec<SnapshotId> = (0..50).map(save).collect();
                        assert!(ids.is_sorted(), "ids of one thread grow");
                        ids
                    })
                })
                .collect();
            writers.into_iter().flat_map(|writer| writer.join().expect("no panic")).collect()
        });
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 16 * 50, "an id was given twice");
        assert_eq!(ring.head(), ids.last().copied());
        assert_eq!(ring.history().len(), length as usize);
        assert_eq!(ring.stats().saves, 16 * 50);
    }
}

#[test]
fn no_save_waits_for_a_reader() {
    let ring: Caretaker<World> = Options::new().in_memory().expect("opens");
    ring.save(&World::at(1, 50)).expect("saves");
    let held = ring.head().expect("saved");
    let (reading, is_reading) = mpsc::channel();
    let (done, may_end) = mpsc::channel::<()>();
    thread::scope(|scope| {
        // Dropped where this panics, so that the reader ends.
        let (ring, done) = (&ring, done);
        scope.spawn(move || {
            ring.read(|world| {
                reading.send(()).expect("listened to");
                may_end.recv().expect("told");
                assert_eq!(whole(world), 1, "the place was used again under a reader");
            });
        });
        is_reading.recv().expect("a reader");
        for tick in 2..3000 {
            ring.save(&World::at(tick, 50)).expect("saves");
        }
        thread::sleep(Duration::from_millis(20));
        ring.save(&World::at(3000, 50)).expect("saves");
        let holders = ring.stats().held;
        let reader = holders.iter().find(|holder| holder.id == held).expect("is listed");
        assert_eq!(reader.by, HeldBy::Read);
        assert!(reader.since >= Duration::from_millis(10), "{:?}", reader.since);
        assert!(reader.since < Duration::from_secs(60), "{:?}", reader.since);
        assert_eq!(ring.history().len(), 16);
        done.send(()).expect("a reader");
    });
    // Two more saves come by the place again.
    for tick in 3001..3004 {
        ring.save(&World::at(tick, 50)).expect("saves");
    }
    assert!(ring.stats().held.is_empty());
}

#[test]
fn twenty_mementos_are_named_and_let_go_again() {
    let ring: Caretaker<World> = Options::new().in_memory().expect("opens");
    let mut held = Vec::new();
    // Four places a side are left over: hold more than those, each of another snapshot.
    let error = loop {
        match ring.save(&World::at(held.len() as u64, 10)) {
            Ok(id) => held.push(ring.memento(id).expect("is listed")),
            Err(error) => break error,
        }
        assert!(held.len() < 100, "a place was used again under a memento");
    };
    assert!(held.len() > 20, "only {} can be held", held.len());
    let SaveError::Held { holders } = &error else { panic!("{error}") };
    assert!(!holders.is_empty());
    for holder in holders {
        assert!(held.iter().any(|memento| memento.id() == holder.id));
        assert_eq!(holder.by, HeldBy::Mementos { mementos: 1 });
        assert!(error.to_string().contains(&format!("{} by a memento", holder.id)), "{error}");
    }
    assert_eq!(
        ring.head(),
        held.last().map(|memento| memento.id()),
        "a failed save moved the head"
    );
    for (tick, memento) in held.iter().enumerate() {
        assert_eq!(whole(memento), tick as u64);
    }
    assert_eq!(ring.stats().mementos, held.len() as u64);
    // A clone counts on its own.
    let cloned = held[0].clone();
    held.drain(..10);
    assert_eq!(whole(&cloned), 0);
    for tick in 0..5 {
        ring.save(&World::at(tick, 10)).expect("there is room again");
    }
    assert_eq!(whole(&cloned), 0);
    drop((held, cloned));
    for tick in 0..100 {
        ring.save(&World::at(tick, 10)).expect("there is room again");
    }
    assert_eq!(ring.stats().mementos, 0);
}

/// A directory gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let name = format!("snapring-readers-{}-{name}", std::process::id());
        Scratch(std::env::temp_dir().join(name))
    }

    fn open(&self) -> Result<Caretaker<World>, OpenError> {
        let options = Options::new().durability(Durability::Process).file_size(1 << 20);
        // SAFETY: a directory of this test's own.
        unsafe { options.open(&self.0) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_memento_outlives_its_caretaker() {
    let scratch = Scratch::new("outlives");
    let ring = scratch.open().expect("opens");
    ring.save(&World::at(7, 10)).expect("saves");
    let memento = ring.latest().expect("saved");
    let second = memento.clone();
    match ring.close() {
        Err(CloseError::Held { mementos, durable }) => {
            assert_eq!((mementos, durable), (2, Some(memento.id())));
        }
        other => panic!("{other:?}"),
    }
    // On another thread, the last one there.
    let thread = thread::spawn(move || {
        assert_eq!(whole(&second), 7);
        assert_eq!(second.thaw().expect("thaws"), World::at(7, 10));
        second
    });
    let second = thread.join().expect("no panic");
    drop(memento);
    assert!(matches!(scratch.open(), Err(OpenError::WriterActive { .. })));
    assert_eq!(whole(&second), 7);
    drop(second);
    let ring = scratch.open().expect("the lock is free again");
    assert_eq!(ring.read(whole), Some(7));
    assert_eq!(ring.close().expect("closes"), Some(SnapshotId::new(1)));
}

#[test]
fn threads_come_and_go() {
    let ring: Caretaker<World> = Options::new().in_memory().expect("opens");
    ring.save(&World::at(0, 30)).expect("saves");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stops = Stops(&stop);
        // One that stays, and whose announcement others' numbers must not touch.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                ring.read(|world| {
                    let tick = whole(world);
                    thread::sleep(Duration::from_micros(200));
                    assert_eq!(whole(world), tick);
                });
            }
        });
        for round in 0..60 {
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| _ = ring.read(whole).expect("there is a head"));
                }
                for tick in 0..10 {
                    ring.save(&World::at(round * 10 + tick, 30)).expect("saves");
                }
            });
        }
    });
}

/// A reader at the end of its thread, when the thread's own number may be gone already.
#[test]
fn a_thread_that_ends_still_reads() {
    use std::sync::Arc;
    struct Last(Arc<Caretaker<World>>, mpsc::Sender<Option<u64>>);
    impl Drop for Last {
        fn drop(&mut self) {
            self.1.send(self.0.read(whole)).expect("listened to");
        }
    }
    thread_local! {
        static LAST: std::cell::RefCell<Option<Last>> = const { std::cell::RefCell::new(None) };
    }
    let ring = Arc::new(Options::new().in_memory::<World>().expect("opens"));
    ring.save(&World::at(3, 9)).expect("saves");
    for read_first in [false, true] {
        let (send, answer) = mpsc::channel();
        let shared = ring.clone();
        let thread = thread::spawn(move || {
            if read_first {
                shared.read(whole);
            }
            LAST.set(Some(Last(shared.clone(), send)));
            shared.read(whole);
        });
        thread.join().expect("no panic");
        assert_eq!(answer.recv().expect("read"), Some(3));
    }
    assert!(ring.stats().held.is_empty());
}

#[test]
fn a_panic_inside_a_read_lets_the_place_go() {
    let ring: Caretaker<World> = Options::new().ring(2).in_memory().expect("opens");
    ring.save(&World::at(1, 10)).expect("saves");
    for tick in 2..200 {
        for nested in [false, true] {
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                ring.read(|_| {
                    if nested {
                        ring.read(|_| std::panic::resume_unwind(Box::new(1)))
                    } else {
                        std::panic::resume_unwind(Box::new(1))
                    }
                })
            }));
            assert!(panicked.is_err());
        }
        ring.save(&World::at(tick, 10)).expect("saves");
    }
    assert!(ring.stats().held.is_empty());
}

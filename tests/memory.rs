//! A save that takes heap memory in proportion to the state, or a read that takes any.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::HashMap,
    sync::mpsc,
    thread,
};

use snapring::{Caretaker, Durability, Options, Snapshot};

thread_local! {
    /// Bytes that this thread has asked for.
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

/// The system's, counted.
struct Counting;

fn count(bytes: usize) {
    // A thread that ends is not counted any more.
    _ = ASKED.try_with(|asked| asked.set(asked.get() + bytes as u64));
}

// SAFETY: everything is left to the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes that `run` asks for, on this thread.
fn asked<R>(run: impl FnOnce() -> R) -> u64 {
    let before = ASKED.get();
    run();
    ASKED.get() - before
}

#[derive(Snapshot, Clone, PartialEq)]
struct Row {
    name: String,
    points: Vec<u32>,
}

#[derive(Snapshot, Clone, PartialEq)]
struct World {
    tick: u64,
    blob: Vec<u8>,
    rows: Vec<Row>,
    scores: HashMap<String, Vec<u32>>,
    seen: HashMap<u64, u64>,
}

fn world(blob: usize, rows: u32) -> World {
    let row = |i: u32| Row { name: format!("row {i}"), points: vec![i; i as usize % 5] };
    World {
        tick: 0,
        blob: vec![7; blob],
        rows: (0..rows).map(row).collect(),
        scores: (0..rows).map(|i| (format!("score {i}"), vec![i; 3])).collect(),
        seen: (0..rows).map(|i| (u64::from(i * 7919 % 1009), 1)).collect(),
    }
}

/// Bytes asked for by each of many saves, once everything has found its size.
fn per_save(ring: &Caretaker<World>, live: &mut World, saves: u64) -> u64 {
    let save = |live: &mut World| {
        live.tick += 1;
        ring.save(live).expect("saves");
    };
    for _ in 0..40 {
        save(live);
    }
    asked(|| (0..saves).for_each(|_| save(live))) / saves
}

fn in_memory() -> Caretaker<World> {
    Options::new().in_memory().expect("opens")
}

#[test]
fn a_save_takes_no_memory() {
    let (mut small, mut large) = (world(1 << 10, 10), world(10 << 20, 10));
    assert!(per_save(&in_memory(), &mut small, 1000) < 64);
    assert!(per_save(&in_memory(), &mut large, 20) < 64);
}

#[test]
fn nor_does_the_sorting_of_maps() {
    assert!(per_save(&in_memory(), &mut world(0, 300), 200) < 64);
    assert!(per_save(&in_memory(), &mut world(0, 5000), 10) < 64);
}

#[test]
fn nor_does_a_save_to_the_disk() {
    let dir = std::env::temp_dir().join(format!("snapring-memory-{}", std::process::id()));
    let within = std::time::Duration::from_millis(10);
    for durability in [Durability::Process, Durability::Background { within }, Durability::Sync] {
        let options = Options::new().durability(durability).file_size(1 << 20);
        // SAFETY: a directory of this test's own.
        let ring = unsafe { options.open::<World>(&dir) }.expect("opens");
        assert!(per_save(&ring, &mut world(5000, 50), 300) < 64);
        drop(ring);
        std::fs::remove_dir_all(&dir).expect("was made above");
    }
}

#[test]
fn nor_does_a_save_beside_a_reader() {
    let ring = in_memory();
    let mut live = world(1 << 10, 10);
    ring.save(&live).expect("saves");
    let (reading, is_reading) = mpsc::channel();
    let (done, may_end) = mpsc::channel::<()>();
    thread::scope(|scope| {
        // Dropped where this panics, so that the reader ends.
        let (ring, done) = (&ring, done);
        scope.spawn(move || {
            ring.read(|_| {
                reading.send(()).expect("listened to");
                may_end.recv().expect("told");
            });
        });
        is_reading.recv().expect("a reader");
        let bytes = per_save(ring, &mut live, 500);
        assert!(bytes < 64, "{bytes} bytes for each save");
        done.send(()).expect("a reader");
    });
}

#[test]
fn a_read_takes_no_memory() {
    let ring = in_memory();
    ring.save(&world(1 << 10, 100)).expect("saves");
    let look = || {
        let sum = |world: &snapring::Archived<World>| {
            let row = world.scores.get_str("score 7").expect("is there");
            world.blob.len() + world.rows.len() + row.len()
        };
        ring.read(|outer| ring.read(|inner| assert_eq!(sum(outer), sum(inner))));
    };
    // A thread's first visit makes slots for it and its neighbours.
    look();
    assert_eq!(asked(|| (0..1000).for_each(|_| look())), 0);
    assert_eq!(asked(|| (0..1000).for_each(|_| _ = ring.head())), 0);
    assert_eq!(asked(|| (0..1000).for_each(|_| _ = ring.latest().expect("saved").clone())), 0);
}

#[test]
fn a_rollback_takes_memory_for_what_has_changed() {
    let ring = in_memory();
    let mut live = world(1 << 20, 500);
    let id = ring.save(&live).expect("saves");
    ring.keep(id, "there").expect("keeps");
    let mut change_and_back = || {
        live.tick += 1;
        live.blob[1000] = 0;
        live.rows[3].name.push('!');
        _ = ring.rollback(&mut live, id).expect("rolls back");
    };
    for _ in 0..40 {
        change_and_back();
    }
    // The keys of a hash map are hashed anew: each is made once.
    let keys: u64 = (0..500).map(|i| format!("score {i}").len() as u64).sum();
    let bytes = asked(change_and_back);
    assert!(bytes <= keys + 1024, "{bytes} bytes for a rollback of 1 MiB");
}

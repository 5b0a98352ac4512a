//! Heap taken by saves in a steady state, by whatever thread: hardly any, and nothing that grows
//! with the state. Not a timing; it fails if that is not so.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    error::Error,
    sync::atomic::{AtomicU64, Ordering},
};

use snapring::Snapshot;
use snapring_bench::{
    place::Place,
    results::{self, Heap},
    ring::{Ring, archive_of},
    run::Asked,
    states::{ROOM, SMALL, hashed, map_free, plain, sorted, unsorted},
};

/// Bytes that a save may take, on average.
const MOST: u64 = 64;

/// The largest single allocation that does not count as one of the state's size.
const LARGE: u64 = 4096;

static BYTES: AtomicU64 = AtomicU64::new(0);
static LARGEST: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, counted.
struct Counted;

fn count(bytes: usize) {
    // Relaxed: read when everything is quiet.
    BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    // Relaxed: as above.
    LARGEST.fetch_max(bytes as u64, Ordering::Relaxed);
}

// SAFETY: forwards to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Counts over so many saves.
fn measure<T: Snapshot>(name: &str, state: &T, saves: u64) -> Heap {
    let archive = archive_of(state).len() as u64;
    let ring = Ring::new(Place::Tmpfs, 16).warm(state);
    // Relaxed: nothing else runs.
    BYTES.store(0, Ordering::Relaxed);
    // Relaxed: as above.
    LARGEST.store(0, Ordering::Relaxed);
    for _ in 0..saves {
        ring.save(state).expect("a save");
    }
    // Relaxed: the saves are over.
    let (bytes, largest) = (BYTES.load(Ordering::Relaxed), LARGEST.load(Ordering::Relaxed));
    Heap { state: name.to_owned(), archive, saves, bytes, largest }
}

fn main() -> Result<(), Box<dyn Error>> {
    let heaps = [
        measure("small, map-free", &map_free::Player::new(SMALL, 1), 10_000),
        measure("small, unsorted", &unsorted::Player::new(SMALL, 1), 10_000),
        measure("small, sorted", &sorted::Player::new(SMALL, 1), 10_000),
        measure("small, hashed", &hashed::Player::new(SMALL, 1), 10_000),
        measure("room, map-free", &map_free::World::new(ROOM, 1), 200),
        measure("room, unsorted", &unsorted::World::new(ROOM, 1), 200),
        measure("room, sorted", &sorted::World::new(ROOM, 1), 200),
        measure("room, hashed", &hashed::World::new(ROOM, 1), 200),
        measure("1 MiB of cells", &plain::Cells::new(1 << 14, 1), 200),
    ];
    println!("\nheap per save in a steady state");
    for heap in &heaps {
        let each = heap.bytes as f64 / heap.saves as f64;
        println!("    {:<16} {each:>8.1} bytes, the largest at once {}", heap.state, heap.largest);
    }
    if !Asked::from_args().test {
        results::write("heap", &heaps)?;
    }
    for heap in &heaps {
        let each = heap.bytes / heap.saves;
        if each >= MOST || heap.largest >= LARGE {
            let Heap { state, largest, .. } = heap;
            return Err(format!("{state}: {each} bytes a save, {largest} at once").into());
        }
    }
    Ok(())
}

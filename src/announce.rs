#![forbid(unsafe_code)]
//! Where threads announce what they read: one padded word per thread and ring.
//!
//! A thread has a number, the same in every ring, given back when the thread ends. A board is a few
//! chunks of slots indexed by it, made when a thread first comes by. Threads beyond the last slot
//! get none, and count holds instead.

#[cfg(not(loom))]
use std::collections::BTreeSet;
use std::{cell::Cell, sync::OnceLock};

use crossbeam_utils::CachePadded;
#[cfg(not(loom))]
use parking_lot::Mutex;

use crate::sync::{AtomicU64, LET_GO, Ordering, zero};

const CHUNK: usize = if cfg!(loom) { 2 } else { 32 };
const CHUNKS: usize = if cfg!(loom) { 2 } else { 32 };

/// One thread's announcement in one ring.
#[derive(Debug)]
pub(crate) struct Slot(AtomicU64);

impl Slot {
    /// Whether this thread announces nothing here.
    #[inline]
    pub(crate) fn is_clear(&self) -> bool {
        // Relaxed: only this thread writes it.
        self.0.load(Ordering::Relaxed) == 0
    }

    /// The word itself, for the models' mutants.
    #[cfg(all(test, loom))]
    pub(crate) fn word(&self) -> &AtomicU64 {
        &self.0
    }

    /// Announces a word until the answer is dropped.
    #[inline]
    pub(crate) fn announce(&self, bits: u64) -> Announced<'_> {
        // SeqCst swap: ordered before the look at the head that follows; partner of `scan`. A swap
        // rather than a store, since that is the cheaper full barrier on x86-64.
        self.0.swap(bits, Ordering::SeqCst);
        Announced(self)
    }
}

/// An announcement, ended by its drop.
pub(crate) struct Announced<'a>(&'a Slot);

impl Drop for Announced<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: met by the load in `scan`: who sees the slot clear may write over the bytes,
        // after all reads of them.
        self.0.0.store(0, LET_GO);
    }
}

type Chunk = Box<[CachePadded<Slot>]>;

/// The slots of one ring.
#[derive(Debug)]
pub(crate) struct Board {
    chunks: [OnceLock<Chunk>; CHUNKS],
    /// A bit for each chunk that was ever asked for, set before any slot of it is used.
    made: AtomicU64,
}

const _: () = assert!(CHUNKS <= 64, "`made` has a bit for each chunk");

fn new_chunk() -> Chunk {
    (0..CHUNK).map(|_| CachePadded::new(Slot(zero()))).collect()
}

impl Board {
    pub(crate) fn new() -> Board {
        // A model's chunks are there from the start: loom cannot look into `OnceLock`.
        let chunk = || if cfg!(loom) { OnceLock::from(new_chunk()) } else { OnceLock::new() };
        Board { chunks: std::array::from_fn(|_| chunk()), made: zero() }
    }

    /// This thread's slot; `None` for a thread too many, or one that is ending.
    #[inline]
    pub(crate) fn mine(&self) -> Option<&Slot> {
        let number = THREAD.with(Cell::get);
        if number >= CHUNK * CHUNKS {
            return self.first_visit(number);
        }
        match self.chunks[number / CHUNK].get().filter(|_| !cfg!(loom)) {
            Some(chunk) => Some(&chunk[number % CHUNK]),
            None => self.first_visit(number),
        }
    }

    #[cold]
    fn first_visit(&self, number: usize) -> Option<&Slot> {
        let number = if number == UNKNOWN { number_thread()? } else { number };
        let at = number / CHUNK;
        let chunk = self.chunks.get(at)?;
        // SeqCst, and before the chunk is there: whoever announces in it does so after this, so that
        // the argument in ring.rs covers `made` as it covers the slot.
        self.made.fetch_or(1 << at, Ordering::SeqCst);
        let chunk = chunk.get_or_init(new_chunk);
        Some(&chunk[number % CHUNK])
    }

    /// Calls `seen` with every word announced now.
    pub(crate) fn scan(&self, mut seen: impl FnMut(u64)) {
        // SeqCst: partner of `first_visit`. Whether the chunk can be seen from here already is
        // another question, hence `get_or_init`.
        let made = self.made.load(Ordering::SeqCst);
        let chunks = self.chunks.iter().enumerate().filter(|(at, _)| made >> at & 1 == 1);
        for chunk in chunks.map(|(_, chunk)| chunk.get_or_init(new_chunk)) {
            for slot in chunk {
                // SeqCst: (2) of the argument in ring.rs; acquires what ended announcements read.
                let bits = slot.0.load(Ordering::SeqCst);
                if bits != 0 {
                    seen(bits);
                }
            }
        }
    }
}

/// A thread that has no number yet.
const UNKNOWN: usize = usize::MAX;
/// A thread that is ending, and gets none any more.
#[cfg(not(loom))]
const ENDING: usize = usize::MAX - 1;

#[cfg(shuttle)]
shuttle::thread_local! {
    static THREAD: Cell<usize> = Cell::new(UNKNOWN);
    static NUMBER: Number = Number::take();
}

#[cfg(not(any(loom, shuttle)))]
thread_local! {
    static THREAD: Cell<usize> = const { Cell::new(UNKNOWN) };
    static NUMBER: Number = Number::take();
}

// A model's threads share one thread of the system, and are numbered by the model.
#[cfg(loom)]
loom::thread_local! {
    static THREAD: Cell<usize> = Cell::new(UNKNOWN);
}

#[cfg(all(test, loom))]
pub(crate) fn number_model_thread(number: usize) {
    THREAD.with(|thread| thread.set(number));
}

#[cfg(loom)]
fn number_thread() -> Option<usize> {
    None
}

/// Numbers given back, and the first never given.
#[cfg(not(loom))]
static NUMBERS: Mutex<(BTreeSet<usize>, usize)> = Mutex::new((BTreeSet::new(), 0));

/// A thread's number, given back at its end.
#[cfg(not(loom))]
struct Number(usize);

#[cfg(not(loom))]
impl Number {
    fn take() -> Number {
        let mut numbers = NUMBERS.lock();
        Number(numbers.0.pop_first().unwrap_or_else(|| {
            numbers.1 += 1;
            numbers.1 - 1
        }))
    }
}

#[cfg(not(loom))]
impl Drop for Number {
    fn drop(&mut self) {
        // A thread that ends announces nothing: `Announced` borrows from a frame of its own.
        _ = THREAD.try_with(|thread| thread.set(ENDING));
        NUMBERS.lock().0.insert(self.0);
    }
}

#[cfg(not(loom))]
#[cold]
fn number_thread() -> Option<usize> {
    let number = NUMBER.try_with(|number| number.0).ok()?;
    THREAD.with(|thread| thread.set(number));
    Some(number)
}

#![forbid(unsafe_code)]
//! The head, and who is looking at which place: the lock-free half of the engine.
//!
//! A *place* is one slot page and its bytes; the ring knows places by number only. Files, records
//! and free space are the engine's affair, which alone, under its lock, moves the head and reuses
//! places.
//!
//! - **R1** `head` is zero or names a sealed place; it moves only by compare-and-swap, to a word
//!   whose stamp is larger than any before, or to one of the same stamp and a place that had not been
//!   this snapshot's before: a relocation. So a word never repeats, and equal words mean that nothing
//!   happened (P2). A snapshot that is the head is relocated once at most, when it is known to be on
//!   the disk in its new place; so the place that it left does not come back.
//! - **R2** A reader announces, then looks: it writes the head's word into its thread's slot, and
//!   believes it only if the head is still that word afterwards.
//! - **R3** A place that is not the head and that no slot names will never be named again, since a
//!   slot names the head or is not believed. One scan therefore clears every place it did not find,
//!   for good.
//! - **R4** A hold is counted first and believed if the head is still the same afterwards, or is
//!   cloned from a hold, or is taken under the engine's lock. So a place that is not the head and
//!   whose count is zero under the lock has no memento (P1, P7).
//!
//! Why R2 is enough, by cases. The writer moves the head away from place `p` (1) and later scans
//! (2); a reader writes its slot (3) and loads the head again (4), all four in one total order
//! (SeqCst). If (4) comes before (1), so does (3), and the scan sees the slot: `p` is left alone.
//! If (4) comes after (1), the reader sees another head and does not believe. There is no third
//! case. R4 is the same argument with the count in place of the slot.

use crossbeam_utils::CachePadded;

use crate::{
    announce::Board,
    mutants::{Mutant, gap},
    sync::{AtomicU64, AtomicUsize, LET_GO, Ordering, zero},
};

/// The head in one word: a stamp that only grows (the snapshot's number) and its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Word(u64);

/// Bits of a word that name the place.
const PLACE_BITS: u32 = 12;
/// The first number that no word can hold.
pub(crate) const MAX_ID: u64 = 1 << (64 - PLACE_BITS);

impl Word {
    pub(crate) const NONE: Word = Word(0);

    pub(crate) fn new(id: u64, place: usize) -> Word {
        debug_assert!(id > 0 && id < MAX_ID && place < 1 << PLACE_BITS, "R1: a stamp and a place");
        Word(id << PLACE_BITS | place as u64)
    }

    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn id(self) -> u64 {
        self.0 >> PLACE_BITS
    }

    pub(crate) fn place(self) -> usize {
        (self.0 & ((1 << PLACE_BITS) - 1)) as usize
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Word {
        Word(bits)
    }
}

/// What readers need of a place.
#[derive(Debug)]
struct Cell {
    /// Mementos of the snapshot here.
    holds: AtomicU64,
    /// Milliseconds on the steady clock when `holds` last left zero.
    held_at: AtomicU64,
    /// The address of the archived root; zero until it may be believed.
    root: AtomicUsize,
}

/// The head and the readers.
#[derive(Debug)]
pub(crate) struct Ring {
    head: CachePadded<AtomicU64>,
    cells: Box<[CachePadded<Cell>]>,
    board: Board,
}

impl Ring {
    pub(crate) fn new(places: usize) -> Ring {
        let cell = || {
            CachePadded::new(Cell {
                holds: zero(),
                held_at: AtomicU64::new(0),
                root: AtomicUsize::new(0),
            })
        };
        Ring {
            head: CachePadded::new(zero()),
            cells: (0..places).map(|_| cell()).collect(),
            board: Board::new(),
        }
    }

    /// The head, to look at.
    #[inline]
    pub(crate) fn head(&self) -> Word {
        // Acquire: met by the exchange in `swing`. Who sees the word sees the place's root.
        Word(self.head.load(Ordering::Acquire))
    }

    /// Moves the head from `seen` to `wanted`; answers the head found if it was not `seen`.
    pub(crate) fn swing(&self, seen: Word, wanted: Word) -> Result<(), Word> {
        debug_assert!(wanted.id() > seen.id(), "R1: the stamp grows");
        // SeqCst: (1) of the argument at the top; releases the place's root to `head` and `read`.
        self.head
            .compare_exchange(seen.0, wanted.0, Ordering::SeqCst, Ordering::SeqCst)
            .map(drop)
            .map_err(Word)
    }

    /// Empties the head, if it is `seen`: from here on nobody begins to read that place (R3 and R4
    /// hold for it as for one that was followed by another). The same word may come back, with the
    /// same snapshot: whoever believes it then finds it at the head.
    pub(crate) fn vacate(&self, seen: Word) {
        // SeqCst: as in `swing`. If it is another word by now, there is nothing to do.
        _ = self.head.compare_exchange(seen.0, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Moves the head from a snapshot's old place to its new one, if it is the head. The new place's
    /// root has been set, and says the same.
    pub(crate) fn relocate(&self, id: u64, old: usize, new: usize) {
        debug_assert!(old != new, "R1: a word never repeats");
        // SeqCst: as in `swing`, for readers a move like any other: (1) of the argument at the top.
        // Fails where the head is another one, which then stays so: the engine's lock.
        _ = self.head.compare_exchange(
            Word::new(id, old).0,
            Word::new(id, new).0,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
    }

    /// Makes a place readable: its archived root is at this address. Before the head names it, or
    /// under the engine's lock.
    pub(crate) fn set_root(&self, place: usize, root: usize) {
        // Release: met by the Acquire in `root`.
        self.cells[place].root.store(root, Ordering::Release);
    }

    /// The address of a place's root; zero while it must not be believed.
    #[inline]
    pub(crate) fn root(&self, place: usize) -> usize {
        // Acquire: met by `set_root`: who sees the address sees the checked bytes.
        self.cells[place].root.load(Ordering::Acquire)
    }

    /// Runs `f` on the head while announcing it: its place is not reused until `f` is done. `None`
    /// without a head. Costs two loads and a swap in the thread's own cache line.
    #[inline]
    pub(crate) fn read<R>(&self, f: impl FnOnce(Word) -> R) -> Option<R> {
        let Some(slot) = self.board.mine().filter(|slot| slot.is_clear()) else {
            // Inside another read of this ring, or a thread too many: count instead.
            let word = self.hold_head()?;
            let held = Held { ring: self, place: word.place() };
            let answer = f(word);
            drop(held);
            return Some(answer);
        };
        let mut seen = self.head();
        loop {
            if seen.is_none() {
                return None;
            }
            gap();
            // R2: announce (3) ...
            let announced = slot.announce(seen.0);
            // ... then look (4). SeqCst: see the argument at the top.
            let now = Word(self.head.load(Ordering::SeqCst));
            if now == seen || Mutant::LookThenAnnounce.is_on() {
                let answer = f(seen);
                drop(announced);
                return Some(answer);
            }
            drop(announced);
            seen = now;
        }
    }

    /// Takes a hold on the head's place. `None` without a head.
    pub(crate) fn hold_head(&self) -> Option<Word> {
        let mut seen = self.head();
        loop {
            if seen.is_none() {
                return None;
            }
            // R4: count ...
            self.hold(seen.place());
            // ... then look. SeqCst: partner of `swing`.
            let now = Word(self.head.load(Ordering::SeqCst));
            if now == seen {
                return Some(seen);
            }
            self.unhold(seen.place());
            seen = now;
        }
    }

    /// One hold more on a place that is held, or under the engine's lock, or to be checked (R4).
    pub(crate) fn hold(&self, place: usize) {
        let cell = &self.cells[place];
        // SeqCst: ordered before the look at the head that follows, partner of `holds`.
        if cell.holds.fetch_add(1, Ordering::SeqCst) == 0 {
            // Relaxed: for people to read.
            cell.held_at.store(crate::clock::steady_millis(), Ordering::Relaxed);
        }
    }

    /// One hold less.
    pub(crate) fn unhold(&self, place: usize) {
        // Release: met by the SeqCst load in `holds`: who sees zero may write over the bytes, after
        // all reads of them.
        let before = self.cells[place].holds.fetch_sub(1, LET_GO);
        debug_assert!(before > 0, "R4: a hold is given back once");
    }

    /// Holds on a place, and since when in milliseconds on the steady clock.
    pub(crate) fn holds(&self, place: usize) -> (u64, u64) {
        let cell = &self.cells[place];
        // SeqCst: partner of `hold` and `unhold`.
        (cell.holds.load(Ordering::SeqCst), cell.held_at.load(Ordering::Relaxed))
    }

    /// Calls `seen` with every word announced now (R3).
    pub(crate) fn scan(&self, mut seen: impl FnMut(Word)) {
        self.board.scan(|bits| seen(Word(bits)));
    }
}

/// The parts, for the models' mutants.
#[cfg(all(test, loom))]
impl Ring {
    pub(crate) fn head_word(&self) -> &AtomicU64 {
        &self.head
    }

    pub(crate) fn count(&self, place: usize) -> &AtomicU64 {
        &self.cells[place].holds
    }

    pub(crate) fn board(&self) -> &Board {
        &self.board
    }
}

/// Gives a hold back, also where a panic passes.
struct Held<'a> {
    ring: &'a Ring,
    place: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.ring.unhold(self.place);
    }
}

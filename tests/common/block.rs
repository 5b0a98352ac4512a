//! A state that is told by one number in every part, so that a torn one is seen, and readers of it.

use std::{path::Path, time::Duration};

use snapring::{Archived, Caretaker, Durability, HeldBy, Options, Reader, ReaderError, Snapshot};

use super::state::open_with;

/// Every part of it is told by `tick`.
#[derive(Snapshot, Clone)]
pub(crate) struct Block {
    pub(crate) tick: u64,
    pub(crate) rows: Vec<u64>,
    pub(crate) name: String,
    pub(crate) last: u64,
}

/// The tick that tells readers to end.
pub(crate) const LAST: u64 = u64::MAX;

impl Block {
    pub(crate) fn at(tick: u64) -> Block {
        // Other lengths, so that extents move; now and then one of many pages.
        let rows = if tick.is_multiple_of(97) { 20_000 } else { (tick % 43 * 7) as usize };
        Block { tick, rows: vec![tick; rows], name: format!("the block of {tick}"), last: tick }
    }
}

/// The tick, if every part agrees.
pub(crate) fn whole(block: &Archived<Block>) -> u64 {
    let tick = block.tick.to_native();
    assert!(block.rows.iter().all(|row| row.to_native() == tick), "rows of another tick");
    assert_eq!(block.name.as_str(), format!("the block of {tick}"));
    assert_eq!(block.last.to_native(), tick);
    tick
}

pub(crate) fn read_in<T: Snapshot>(dir: &Path) -> Result<Reader<T>, ReaderError> {
    // SAFETY: each test has directories of its own, and edits their files only while nobody reads.
    unsafe { Reader::open(dir) }
}

pub(crate) fn reader<T: Snapshot>(dir: &Path) -> Reader<T> {
    read_in(dir).expect("the directory opens for reading")
}

pub(crate) fn blocks(dir: &Path, ring: u32) -> Caretaker<Block> {
    let options = Options::new().ring(ring).file_size(64 << 10).durability(Durability::Process);
    open_with(&options, dir).expect("opened")
}

/// What is held for readers in other processes.
pub(crate) fn leased<T: Snapshot>(caretaker: &Caretaker<T>) -> Vec<(u64, Duration)> {
    let held = caretaker.stats().held;
    let readers = held.into_iter().filter(|held| held.by == HeldBy::Reader);
    readers.map(|held| (held.id.get(), held.since)).collect()
}

#![forbid(unsafe_code)]
//! Pages made ready ahead of the saving thread: present where the file is new, and writable again
//! where a sync has write-protected them, which costs the next store to each a fault of 1.4 us, more
//! than what is stored.
//!
//! Knows which gap and which slot page the next save of each side will take. Touches nothing else:
//! a page made ready is written out once more, so those of snapshots stay as they are, and no more
//! than [`MOST`] bytes of each file are made ready ahead.

use std::time::{Duration, Instant};

use crate::{
    engine::{Engine, blocks_for},
    file::BLOCK,
    header::Side,
    options::Durability,
    record::SLOT_LEN,
};

/// The most bytes of a file that are made ready ahead.
const MOST: u64 = 16 << 20;

/// How often the thread looks while saves follow a flush: half the time from one to the next,
/// within these bounds.
const SOONEST: Duration = Duration::from_millis(1);
const LATEST: Duration = Duration::from_millis(50);

/// What has been made ready.
#[derive(Debug)]
pub(crate) struct Arming {
    /// How far each file's pages have been present from the start.
    present: [u64; 2],
    /// The gap made ready last on each side: its first block, how many, after which save.
    ready: [Option<(u64, u64, u64)>; 2],
    /// Saves follow a flush: up to this one, gaps are made ready.
    until: u64,
    /// The saves counted last, and when.
    seen: (u64, Instant),
}

impl Default for Arming {
    fn default() -> Arming {
        Arming { present: [0; 2], ready: [None; 2], until: 0, seen: (0, Instant::now()) }
    }
}

impl Arming {
    /// A flush has write-protected pages: they come up again as the ring turns once.
    pub(crate) fn after_flush(&mut self, engine: &Engine) {
        self.until = engine.lock().counts.saves + engine.slots() as u64;
    }

    /// Half the time between the last saves; `None` if there was none.
    fn pace(&mut self, saves: u64) -> Option<Duration> {
        let (before, at) = std::mem::replace(&mut self.seen, (saves, Instant::now()));
        let each = at.elapsed().checked_div(u32::try_from(saves - before).unwrap_or(u32::MAX))?;
        Some((each / 2).clamp(SOONEST, LATEST))
    }
}

impl Engine {
    /// Makes ready what the next saves will take; answers in how long to look again.
    pub(crate) fn arm(&self, arming: &mut Arming) -> Option<Duration> {
        self.make_present(arming);
        // In memory no page is protected; a save that waits for the disk stores to none.
        let on_disk = self.storage.as_ref().is_some_and(|storage| !storage.in_memory());
        if !on_disk || self.options.durability == Durability::Sync {
            return None;
        }
        let saves = self.lock().counts.saves;
        let pace = arming.pace(saves);
        if saves >= arming.until {
            return None;
        }
        for side in Side::BOTH {
            self.make_writable(arming, side, saves);
        }
        // Without a save since the last look, none is in such a hurry.
        Some(pace.unwrap_or(LATEST))
    }

    /// The next gap of a side, and its slot page.
    fn make_writable(&self, arming: &mut Arming, side: Side, saves: u64) {
        let (gap, blocks, slot) = {
            let mut state = self.lock();
            self.reclaim(&mut state, side);
            let blocks = blocks_for(state.last_len + state.last_len / 8);
            let space = &state.spaces[side.index()];
            let Some(gap) = space.extents.gap(blocks) else { return };
            (gap, blocks, space.free.last().map(|index| self.slot_at(usize::from(*index))))
        };
        let ready = &mut arming.ready[side.index()];
        // Still the same if this side's turn has not come since.
        if ready.is_some_and(|(at, len, then)| (at, len) == (gap, blocks) && saves <= then + 1) {
            return;
        }
        *ready = Some((gap, blocks, saves));
        let file = &self.files[side.index()];
        // What cannot be had now will be told by the save that needs it.
        _ = file.populate(self.run_at(gap), (blocks * BLOCK).min(MOST), true);
        if let Some(slot) = slot {
            _ = file.populate(slot, SLOT_LEN, true);
        }
    }

    /// Makes the pages present into which the next snapshots will go, where the files have grown.
    fn make_present(&self, arming: &mut Arming) {
        if self.flusher.waits() {
            // Pages that come by writing are larger, and quicker to write again.
            return;
        }
        for side in Side::BOTH {
            let file = &self.files[side.index()];
            let (from, want) = {
                let state = self.lock();
                let from = self.run_at(state.spaces[side.index()].extents.tail());
                (from, (state.last_len * 2).max(256 << 10))
            };
            let present = &mut arming.present[side.index()];
            let from = from.max(*present);
            let to = (from + want).min(file.len());
            // As above.
            if from < to && file.populate(from, to - from, true).is_ok() {
                *present = to;
            }
        }
    }
}

//! Pages written, packed, into runs of one side of a ring: straight into the file, or into memory where
//! something would have to leave the ring first.
//!
//! Knows room and bytes. Which pages are to be written is for `paging.rs`.

use std::ptr;

use rkyv::util::AlignedVec;

use crate::{
    engine::{Engine, blocks_for},
    error::SaveError,
    file::BLOCK,
    header::Side,
    record::Extent,
    runs::Run,
    scratch::Scratch,
    session::{Halted, Later, Room, Session},
};

/// Pages are packed at multiples of this.
pub(crate) const PACK: u64 = 64;

/// The fewest and the most bytes that are taken for pages at a time.
const LEAST: u64 = 64 << 10;
const MOST: u64 = 64 << 20;

/// A page in a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageAt {
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) crc: u32,
    /// The first block of the run that it is in.
    pub(crate) run: u64,
    /// Pointers from its items to the deepest in it: whoever shares it is as deep.
    pub(crate) height: u32,
}

/// In place of a run: the page waits aside, at that offset.
pub(crate) const ASIDE: u64 = u64::MAX;

/// Runs for one snapshot's pages: taken, or shared with others for now. Given back unless it is sealed.
pub(crate) struct Runs<'e> {
    pub(crate) engine: &'e Engine,
    pub(crate) side: Side,
    pub(crate) fresh: Vec<Run>,
    pub(crate) shared: Vec<u64>,
    /// The next byte of the last fresh run, and its end.
    at: u64,
    end: u64,
}

impl<'e> Runs<'e> {
    pub(crate) fn new(engine: &'e Engine, side: Side) -> Runs<'e> {
        Runs { engine, side, fresh: Vec::new(), shared: Vec::new(), at: 0, end: 0 }
    }

    /// Gives back what the last run has beyond the bytes in use.
    pub(crate) fn trim(&mut self) {
        let Some(last) = self.fresh.last_mut() else { return };
        let from = self.engine.run_at(last.start);
        let used = blocks_for(self.at - from);
        if used < last.blocks {
            let mut state = self.engine.lock();
            state.spaces[self.side.index()].extents.shrink(last.start, used);
            last.blocks = used;
        }
        self.end = self.at;
    }

    /// Bytes left in the last run, at a multiple of [`PACK`].
    pub(crate) fn left(&self) -> u64 {
        self.end.saturating_sub(self.at.next_multiple_of(PACK))
    }

    /// Room for `need` bytes at a multiple of [`PACK`], and as much more as there is; `want` bytes if a
    /// new run is taken and they can be had. `Ok(None)`: something would have to leave for it, and
    /// may not yet. What leaves does so only where all that comes after fits, too: `then` blocks.
    fn room(
        &mut self,
        need: u64,
        want: u64,
        evict: bool,
        then: u64,
    ) -> Result<Option<(u64, u64)>, SaveError> {
        self.at = self.at.next_multiple_of(PACK);
        if self.end.saturating_sub(self.at) >= need {
            return Ok(Some((self.at, self.end - self.at)));
        }
        self.trim();
        let (least, side) = (blocks_for(need), self.side);
        let mut blocks = blocks_for(want.clamp(LEAST, MOST)).max(least);
        let mut state = self.engine.lock();
        self.engine.reclaim_in_turn(&mut state, side);
        let run = loop {
            let extents = &mut state.spaces[side.index()].extents;
            if let Some(run) = extents.take(blocks) {
                break run;
            }
            if self.engine.reclaim(&mut state, side) {
                continue;
            }
            state = match self.engine.make_space(state, side, [blocks, then], evict) {
                Ok(Some(state)) => state,
                // Less will do before anything leaves.
                _ if blocks > least => {
                    let state = self.engine.lock();
                    let gap = state.spaces[side.index()].extents.largest_gap();
                    blocks = gap.clamp(least, blocks - 1);
                    state
                }
                Ok(None) => return Ok(None),
                Err(error) => return Err(error),
            };
        };
        drop(state);
        self.begin(Run { start: run, blocks });
        Ok(Some((self.at, self.end - self.at)))
    }

    /// Goes on in a run that has been taken for it.
    pub(crate) fn begin(&mut self, run: Run) {
        self.trim();
        self.at = self.engine.run_at(run.start);
        self.end = self.at + run.blocks * BLOCK;
        self.fresh.push(run);
    }

    /// Puts bytes for which there is room: answers where, and in which run.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> (u64, u64) {
        let at = self.at.next_multiple_of(PACK);
        self.engine.files[self.side.index()].write(at, bytes);
        self.at = at + bytes.len() as u64;
        (at, self.fresh.last().map_or(0, |run| run.start))
    }

    /// Makes sure of room for so many bytes; the oldest snapshots leave where they have to, and only
    /// where the text of the layout fits beside it, if it is still to come.
    pub(crate) fn provide(&mut self, bytes: u64) -> Result<(), SaveError> {
        let text = self.engine.text_blocks(&self.engine.lock(), self.side);
        self.room(bytes, bytes, true, text).map(drop)
    }

    /// Takes over what another one has taken.
    fn join(&mut self, mut other: Runs<'e>) {
        self.trim();
        other.trim();
        self.fresh.append(&mut other.fresh);
        (self.at, self.end) = (other.at, other.end);
    }
}

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        if self.fresh.is_empty() && self.shared.is_empty() {
            return;
        }
        let mut state = self.engine.lock();
        let extents = &mut state.spaces[self.side.index()].extents;
        for run in self.fresh.iter().map(|run| run.start).chain(self.shared.iter().copied()) {
            extents.release(run);
        }
    }
}

/// A page in the making has no more room than it is given.
struct Fixed;

impl Room for Fixed {
    fn extend(&mut self, _: u64) -> Result<usize, Option<SaveError>> {
        Err(None)
    }
}

/// Pages that have no room in the file before something leaves: they wait in memory.
#[derive(Default)]
pub(crate) struct Aside {
    bytes: AlignedVec<64>,
    used: usize,
}

impl Aside {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    /// Takes over what waits in another one: answers how much farther it lies here.
    fn join(&mut self, other: Aside) -> u64 {
        if self.used == 0 {
            *self = other;
            return 0;
        }
        let by = self.used.next_multiple_of(PACK as usize);
        self.bytes.resize(by, 0);
        self.bytes.extend_from_slice(other.bytes());
        self.used = self.bytes.len();
        by as u64
    }
}

/// Writes pages one after the other.
pub(crate) struct Writer<'e> {
    runs: Runs<'e>,
    aside: Aside,
    /// Something would have to leave: the rest waits aside.
    full_up: bool,
    /// One for all pages: aimed at each.
    session: Session,
    written: u64,
    pages: Vec<PageAt>,
    /// How many there will be.
    total: usize,
}

/// Pages that have been written, and what they took.
pub(crate) struct Part<'e> {
    runs: Runs<'e>,
    aside: Aside,
    pages: Vec<PageAt>,
    scratch: Scratch,
    /// Bytes written.
    pub(crate) written: u64,
}

impl<'e> Writer<'e> {
    /// For `total` pages.
    pub(crate) fn new(engine: &'e Engine, side: Side, total: usize, scratch: Scratch) -> Self {
        // Without bytes it takes no memory, and is there as long as anything.
        let (fixed, depth) = (Box::leak(Box::new(Fixed)), engine.options.max_depth);
        // SAFETY: no bytes at no address: `archive` aims it before anything is written. `fixed` stays.
        let session = unsafe { Session::new(ptr::null_mut(), 0, false, depth, scratch, fixed) };
        Writer {
            runs: Runs::new(engine, side),
            aside: Aside::default(),
            full_up: false,
            session,
            written: 0,
            pages: Vec::with_capacity(total),
            total,
        }
    }

    /// A page's likely length.
    fn guess(&self) -> u64 {
        let done = self.pages.len() as u64;
        self.written.checked_div(done).map_or(8 << 10, |mean| mean + mean / 8).max(PACK)
    }

    /// Writes one page of a field.
    pub(crate) fn write(&mut self, later: &Later, page: usize) -> Result<(), SaveError> {
        let mut need = PACK;
        loop {
            let left = (self.total - self.pages.len()).max(1) as u64;
            let (offset, room) = if self.full_up {
                (self.aside_at(), self.aside_room(need.max(self.guess())))
            } else {
                match self.runs.room(need, need.max(self.guess()) * left, false, 0)? {
                    Some(found) => found,
                    None => {
                        self.full_up = true;
                        continue;
                    }
                }
            };
            match self.archive(later, page, offset, room) {
                Ok(at) => {
                    self.pages.push(at);
                    return Ok(());
                }
                Err(Halted::Elsewhere(more)) => need = (more + more / 4).max(need * 2),
                Err(Halted::Error(error)) => return Err(error),
            }
        }
    }

    fn aside_at(&mut self) -> u64 {
        self.aside.used = self.aside.used.next_multiple_of(PACK as usize);
        self.aside.used as u64
    }

    /// So much room aside.
    fn aside_room(&mut self, need: u64) -> u64 {
        let end = self.aside.used + need as usize;
        if self.aside.bytes.len() < end {
            self.aside.bytes.resize(end.max(self.aside.bytes.len() * 2), 0);
        }
        (self.aside.bytes.len() - self.aside.used) as u64
    }

    /// Archives a page into `room` bytes at `offset`.
    fn archive(
        &mut self,
        later: &Later,
        page: usize,
        offset: u64,
        room: u64,
    ) -> Result<PageAt, Halted> {
        let engine = self.runs.engine;
        let file = &engine.files[self.runs.side.index()];
        let cap = room.min(u64::from(u32::MAX / 2)) as usize;
        let base = if self.full_up {
            self.aside.bytes[offset as usize..].as_mut_ptr()
        } else {
            file.at(offset, cap as u64).as_ptr()
        };
        // SAFETY: `cap` touchable bytes (`at`) of a run that was handed to this snapshot in the making
        // alone, or of a buffer that nobody else uses; both are aligned to 64, as runs and buffer are
        // and each page in them.
        unsafe { self.session.aim(base, cap) };
        let outcome = self.session.page(later, page);
        let (len, depth) = outcome?;
        let (crc, run) = if self.full_up {
            self.aside.used = offset as usize + len;
            (crc32fast::hash(&self.aside.bytes[offset as usize..][..len]), ASIDE)
        } else {
            file.stored(offset, len as u64);
            self.runs.at = offset + len as u64;
            let run = self.runs.fresh.last().map_or(0, |run| run.start);
            let extent = Extent { offset, len: len as u64, crc: 0 };
            (crc32fast::hash(file.retained(extent)), run)
        };
        self.written += len as u64;
        Ok(PageAt { offset, len: len as u32, crc, run, height: depth - later.depth })
    }

    /// There are no more.
    pub(crate) fn end(self) -> Part<'e> {
        let Writer { runs, aside, pages, session, written, .. } = self;
        Part { runs, aside, pages, scratch: session.into_scratch(), written }
    }
}

impl<'e> Part<'e> {
    /// The pages; runs and what waits aside are taken over.
    pub(crate) fn finish(self, runs: &mut Runs<'e>, all: &mut Aside) -> (Vec<PageAt>, Scratch) {
        let Part { runs: own, aside, mut pages, scratch, .. } = self;
        runs.join(own);
        let by = all.join(aside);
        pages.iter_mut().filter(|page| page.run == ASIDE).for_each(|page| page.offset += by);
        (pages, scratch)
    }
}

//! Saving: a state archived straight into a mapping, then sealed and published.
//!
//! User code runs here (the state's own archiving), so no lock is held meanwhile, and whatever it
//! does - fail, panic, call back - leaves the ring and the files as they were (P5).

use std::cell::RefCell;

use crate::{
    engine::Engine,
    error::SaveError,
    events::Event,
    file::{BLOCK, MappedFile},
    header::Side,
    id::SnapshotId,
    os,
    paging::Pages,
    publish::Contents,
    record::Extent,
    scratch::Scratch,
    session::{Halted, Later, MAX_ARCHIVE, Room, Session, Written},
    snapshot::Snapshot,
    space::Making,
};

/// Archives longer than this have their checksum follow the writer; shorter ones are still in the
/// cache when they are done.
const FUSE_FROM: u64 = 256 << 10;

/// Archives up to this long, last time, are made aside and written to the file by a system call
/// where the save waits for the disk: stores into the mapping meet pages that the last sync has
/// write-protected, a fault each. On ext4, data and slot page and one sync: 108 us against 157 at
/// 832 bytes, 387 us against 1079 at 0.87 MiB, 4.1 ms against 4.8 at 16 MiB, then no difference that
/// would be worth as much memory again.
const WRITE_UPTO: u64 = 16 << 20;

/// Bytes that are written on their way to the disk while the archive goes on behind them.
const PIECE: usize = 256 << 10;

/// Memory that does not grow.
struct Fixed;

impl Room for Fixed {
    fn extend(&mut self, _: u64) -> Result<usize, Option<SaveError>> {
        Err(None)
    }
}

/// The same, with the file behind it: what is final is written there, and the disk has begun with it
/// when the archive ends.
struct Behind<'a> {
    file: &'a MappedFile,
    at: u64,
    written: usize,
}

impl Behind<'_> {
    /// Writes what has not been.
    fn write(&mut self, so_far: &[u8]) -> Result<(), SaveError> {
        let (from, more) = (self.at + self.written as u64, &so_far[self.written..]);
        self.file.write_through(more, from).map_err(|source| {
            let path = self.file.path().to_owned();
            SaveError::Write { path, source }
        })?;
        self.written = so_far.len();
        Ok(())
    }
}

impl Room for Behind<'_> {
    fn extend(&mut self, _: u64) -> Result<usize, Option<SaveError>> {
        Err(None)
    }

    fn passed(&mut self, so_far: &[u8]) -> Result<(), SaveError> {
        // A block in the making would be written twice.
        let (from, end) = (self.written, so_far.len() & !(BLOCK as usize - 1));
        if end - from >= PIECE {
            self.write(&so_far[..end])?;
            self.file.start_write_back(self.at + from as u64, (end - from) as u64);
        }
        Ok(())
    }
}

#[cfg(shuttle)]
shuttle::thread_local! {
    static INSIDE: RefCell<Vec<usize>> = RefCell::new(Vec::new());
}

#[cfg(not(shuttle))]
thread_local! {
    /// The engines that this thread is inside of, by address.
    static INSIDE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// This thread is inside an engine: user code called from there may not come back in.
pub(crate) struct Inside(usize);

impl Inside {
    /// `None` if the thread is inside already.
    pub(crate) fn enter(engine: &Engine) -> Option<Inside> {
        let address = std::ptr::from_ref(engine).addr();
        let entered = INSIDE.try_with(|inside| {
            let mut inside = inside.borrow_mut();
            let fresh = !inside.contains(&address);
            if fresh {
                inside.push(address);
            }
            fresh
        });
        // A thread that is ending has no list: nothing of ours is below it on the stack.
        entered.unwrap_or(true).then(|| Inside(address))
    }
}

/// Whether this thread is inside the engine at this address.
pub(crate) fn is_inside(address: usize) -> bool {
    let inside = |list: &RefCell<Vec<usize>>| list.borrow().contains(&address);
    INSIDE.try_with(inside).unwrap_or(false)
}

impl Drop for Inside {
    fn drop(&mut self) {
        _ = INSIDE.try_with(|inside| {
            let mut inside = inside.borrow_mut();
            if let Some(at) = inside.iter().rposition(|address| *address == self.0) {
                inside.swap_remove(at);
            }
        });
    }
}

impl Room for Making<'_> {
    fn extend(&mut self, need: u64) -> Result<usize, Option<SaveError>> {
        match Making::extend(self, need) {
            Ok(true) => Ok(self.span().1.min(MAX_ARCHIVE) as usize),
            Ok(false) => Err(None),
            Err(error) => Err(Some(error)),
        }
    }
}

/// Puts references to its pages into an archive that will lie at `at`.
fn refer(pages: &Pages<'_>, at: u64, archive: &mut [u8]) {
    for (to, bytes) in pages.references(at) {
        archive[to..to + bytes.len()].copy_from_slice(&bytes);
    }
}

impl Engine {
    /// Archives `state`, seals it and makes it the head; and tells of the disk.
    pub(crate) fn save<T: Snapshot>(&self, state: &T) -> Result<SnapshotId, SaveError> {
        let id = self.save_here(state)?;
        self.answer_for_the_disk(id)?;
        Ok(id)
    }

    /// Archives `state`, seals it and makes it the head.
    pub(crate) fn save_here<T: Snapshot>(&self, state: &T) -> Result<SnapshotId, SaveError> {
        if os::forked() {
            return Err(SaveError::Forked);
        }
        let _inside = Inside::enter(self).ok_or(SaveError::Reentrant)?;
        let mut need = 0;
        loop {
            match self.try_save(state, need)? {
                Ok(id) => return Ok(id),
                // The space found was too small and cannot grow where it is: once more elsewhere.
                Err(more) => need = more,
            }
        }
    }

    /// One try in room for `need` bytes; `Ok(Err(more))` asks for another.
    fn try_save<T: Snapshot>(
        &self,
        state: &T,
        need: u64,
    ) -> Result<Result<SnapshotId, u64>, SaveError> {
        let Some((mut making, last, mut scratch)) = self.begin(need)? else {
            return self.save_aside(state, MAX_ARCHIVE);
        };
        if need == 0 && last == 0 && self.flusher.waits() {
            // How large it is nobody knows: not by stores, which would make small pages for good.
            making.abandon(scratch);
            return self.save_aside(state, WRITE_UPTO);
        }
        let (at, len) = making.span();
        let there = making.file().at(at, len);
        let cap = len.min(MAX_ARCHIVE) as usize;
        let (fused, depth) = (last > FUSE_FROM, self.options.max_depth);
        // Only where the size can be foretold: what does not fit is archived where it can grow.
        let by_write = need == 0 && self.flusher.waits() && (1..=WRITE_UPTO).contains(&last);
        let mut buffer = std::mem::take(&mut scratch.buffer);
        if by_write && buffer.len() < cap {
            buffer.resize(cap, 0);
        }
        let base = if by_write { buffer.as_mut_ptr() } else { there.as_ptr() };
        let file = making.file();
        let mut behind = Behind { file, at, written: 0 };
        let room: &mut dyn Room = if by_write { &mut behind } else { &mut making };
        // SAFETY: either blocks, aligned to 4096, of which `len` bytes are touchable (`at`) and were
        // handed to this snapshot in the making alone; or the buffer, aligned to 64 by its type and
        // at least `cap` long, which nobody else uses. `room` outlives the session.
        let mut session = unsafe { Session::new(base, cap, fused, depth, scratch, room) };
        let outcome = session.run(state);
        let later = session.take_later();
        let mut scratch = session.into_scratch();
        let finished = match outcome {
            Ok(written) if by_write => {
                let archive = &mut buffer[..written.len];
                self.finish(making.side, at, archive, written, &later, &mut scratch)
                    .and_then(|finished| {
                        let archive = &buffer[..written.len];
                        if later.is_empty() {
                            behind.write(archive)?;
                        } else {
                            // What went ahead had no references yet; and somebody may have left.
                            self.put(file, at, archive)?;
                        }
                        Ok(finished)
                    })
                    .map_err(Halted::Error)
            }
            Ok(written) if later.is_empty() => Ok((written, None)),
            Ok(written) => self
                .finish_in_place(making.side, at, written, &later, &mut scratch, false)
                .map_err(Halted::Error),
            Err(halted) => Err(halted),
        };
        scratch.buffer = buffer;
        match finished {
            Ok((written, pages)) => {
                file.stored(at, written.len as u64);
                let root = there.addr().get() + written.root;
                making.seal(&Contents::of(&written), root, pages, scratch).map(Ok)
            }
            Err(halted) => {
                making.abandon(scratch);
                match halted {
                    Halted::Elsewhere(more) => {
                        self.lock().counts.restarts += 1;
                        Ok(Err(more))
                    }
                    Halted::Error(error) => Err(error),
                }
            }
        }
    }

    /// Whether the newest snapshot has pages.
    fn has_pages(&self) -> bool {
        let state = self.lock();
        let newest = state.listed.front();
        newest.is_some_and(|n| state.places[usize::from(*n)].table.is_some())
    }

    /// Archives `state` in the place that was taken for it, all but its pages. `Ok(Err(more))`: it takes
    /// more room than there is.
    #[expect(clippy::type_complexity, reason = "what a pause leaves, told once")]
    pub(crate) fn archive_in_place<'e, T: Snapshot>(
        &self,
        state: &T,
        mut making: Making<'e>,
        last: u64,
        scratch: Scratch,
    ) -> Result<Result<(Making<'e>, Written, Vec<Later>, Scratch), u64>, SaveError> {
        let (at, len) = making.span();
        let base = making.file().at(at, len).as_ptr();
        let (cap, depth) = (len.min(MAX_ARCHIVE) as usize, self.options.max_depth);
        // Where there were pages last time the checksum is taken when their references are there.
        let fused = last > FUSE_FROM && !self.has_pages();
        // SAFETY: `len` touchable bytes (`at`), aligned to 4096, of blocks that were handed to this
        // snapshot in the making alone; `making` outlives the session.
        let mut session = unsafe { Session::new(base, cap, fused, depth, scratch, &mut making) };
        let outcome = session.run(state);
        let later = session.take_later();
        let scratch = session.into_scratch();
        match outcome {
            Ok(written) => {
                making.file().stored(at, written.len as u64);
                Ok(Ok((making, written, later, scratch)))
            }
            Err(halted) => {
                making.abandon(scratch);
                match halted {
                    Halted::Elsewhere(more) => {
                        self.lock().counts.restarts += 1;
                        Ok(Err(more))
                    }
                    Halted::Error(error) => Err(error),
                }
            }
        }
    }

    /// Writes the pages that an archive refers to, and the references into it. The archive is in
    /// memory, and will lie at `at`.
    fn finish<'e>(
        &'e self,
        side: Side,
        at: u64,
        archive: &mut [u8],
        mut written: Written,
        later: &[Later],
        scratch: &mut Scratch,
    ) -> Result<(Written, Option<Pages<'e>>), SaveError> {
        if later.is_empty() {
            return Ok((written, None));
        }
        let mut pages = self.write_pages(side, later, scratch, false)?;
        pages.settle(None)?;
        refer(&pages, at, archive);
        written.crc = crc32fast::hash(archive);
        Ok((written, Some(pages)))
    }

    /// The same for an archive that is in its place already; by several threads, if `many` are
    /// welcome.
    pub(crate) fn finish_in_place<'e>(
        &'e self,
        side: Side,
        at: u64,
        mut written: Written,
        later: &[Later],
        scratch: &mut Scratch,
        many: bool,
    ) -> Result<(Written, Option<Pages<'e>>), SaveError> {
        let mut pages = self.write_pages(side, later, scratch, many)?;
        pages.settle(None)?;
        let file = &self.files[side.index()];
        for (to, bytes) in pages.references(at) {
            file.write(at + to as u64, &bytes);
        }
        let archive = Extent { offset: at, len: written.len as u64, crc: 0 };
        written.crc = crc32fast::hash(file.retained(archive));
        Ok((written, Some(pages)))
    }

    /// Copies bytes to room that has been made for them: by a system call, where saves wait for the
    /// disk. Somebody may have left for it, so where the system refuses that, they are stored into
    /// pages that it has made ready (P5); where it refuses those, too, the disk is broken.
    pub(crate) fn put(&self, file: &MappedFile, at: u64, bytes: &[u8]) -> Result<(), SaveError> {
        if !self.flusher.waits() {
            file.write(at, bytes);
            return Ok(());
        }
        match file.write_through(bytes, at) {
            Ok(()) => {}
            Err(source) => {
                let path = file.path();
                if file.populate(at, bytes.len() as u64, true).is_err() {
                    return Err(SaveError::Write { path: path.to_owned(), source });
                }
                file.write(at, bytes);
                self.listeners.tell(|| Event::Failed {
                    message: format!(
                        "writing to {} failed: {source}; it was stored",
                        path.display()
                    ),
                });
            }
        }
        Ok(())
    }

    /// Archives `state` where nothing has to leave for it, in memory of our own, and only then makes
    /// room: what leaves the ring leaves for a snapshot that is certain (P5). The memory is kept for
    /// the next time.
    /// `Ok(Err(more))`: it is longer than `most`.
    fn save_aside<T: Snapshot>(
        &self,
        state: &T,
        most: u64,
    ) -> Result<Result<SnapshotId, u64>, SaveError> {
        let (last, mut scratch) = {
            let mut state = self.lock();
            (state.last_len, state.scratch.pop().unwrap_or_default())
        };
        let depth = self.options.max_depth;
        let mut buffer = std::mem::take(&mut scratch.buffer);
        let mut later;
        let mut cap = (last + last / 8).clamp(FUSE_FROM, MAX_ARCHIVE) as usize;
        let outcome = loop {
            if buffer.len() < cap {
                buffer.resize(cap, 0);
            }
            cap = buffer.len();
            let (base, fused) = (buffer.as_mut_ptr(), cap as u64 > 2 * FUSE_FROM);
            let mut fixed = Fixed;
            // SAFETY: the buffer, aligned to 64 by its type and `cap` long, which nobody else uses;
            // `fixed` outlives the session.
            let mut session = unsafe { Session::new(base, cap, fused, depth, scratch, &mut fixed) };
            let outcome = session.run(state);
            later = session.take_later();
            scratch = session.into_scratch();
            match outcome {
                Err(Halted::Elsewhere(more)) if more > most => break Err(Halted::Elsewhere(more)),
                Err(Halted::Elsewhere(more)) => {
                    cap = (more + more / 4).max(2 * cap as u64).min(MAX_ARCHIVE) as usize;
                }
                other => break other,
            }
        };
        let written = match outcome {
            Ok(written) => written,
            Err(halted) => {
                scratch.buffer = buffer;
                self.lock().scratch.push(scratch);
                return match halted {
                    Halted::Error(error) => Err(error),
                    Halted::Elsewhere(more) => Ok(Err(more)),
                };
            }
        };
        let archive = &mut buffer[..written.len];
        let placed = self.place_aside(archive, written, &later, &mut scratch);
        scratch.buffer = buffer;
        match placed {
            Ok((making, written, pages)) => {
                let at = making.span().0;
                let there = making.file().at(at, written.len as u64).addr().get();
                making.seal(&Contents::of(&written), there + written.root, pages, scratch).map(Ok)
            }
            Err(error) => {
                self.lock().scratch.push(scratch);
                Err(error)
            }
        }
    }

    /// Puts an archive that was made aside into its file, its pages first: nobody leaves for it before
    /// all of it has been archived (P5).
    fn place_aside<'e>(
        &'e self,
        archive: &mut [u8],
        mut written: Written,
        later: &[Later],
        scratch: &mut Scratch,
    ) -> Result<(Making<'e>, Written, Option<Pages<'e>>), SaveError> {
        let (mut pages, mut more) = (None, None);
        if !later.is_empty() {
            let side = self.next_side();
            let there = self.write_pages(side, later, scratch, false)?;
            more = Some((side, there.need()));
            pages = Some(there);
        }
        let (making, run) = self.make_room(written.len as u64, more)?;
        let at = making.span().0;
        if let Some(pages) = &mut pages {
            pages.settle(run)?;
            refer(pages, at, archive);
            written.crc = crc32fast::hash(archive);
        }
        self.put(making.file(), at, archive)?;
        Ok((making, written, pages))
    }
}

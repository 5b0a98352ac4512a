//! One archiving: writes a state into reserved bytes of a mapping, straight, front to back.
//!
//! Knows a base address, a capacity and how to ask for more room. Which file and which extent these
//! are, and what happens to the bytes after, is the caretaker's affair.
//!
//! Invariants
//!
//! - **S1** `base + pos` never passes `base + cap`, and `[base, base + cap)` is writable and ours
//!   alone until the session ends.
//! - **S2** Bytes before `pos` are final once the next reservation starts: nothing is written
//!   behind it. That is what lets the checksum run after the writer in windows.
//! - **S3** Every byte before `pos` has been written by this session, padding as zeros, but for the
//!   references to pages that come later: those are as they were found, until the pages are there.

use std::{
    alloc::Layout as MemLayout,
    any::TypeId,
    fmt,
    mem::{align_of, size_of},
    ops::Range,
    ptr::{self, NonNull},
};

use rkyv::{
    Place,
    rancor::{BoxedError, Fallible, Source},
    ser::{Allocator, Positional, Sharing, Writer, sharing::SharingState},
};

pub(crate) use crate::scratch::Scratch;
use crate::{
    error::SaveError,
    paged::stamp::Stamp,
    scratch::{Mark, Shared},
    snapshot::Snapshot,
};

/// Archiving stopped; the reason is in the session. Made by [`Session::halt`] alone.
#[derive(Debug)]
pub struct Halt(());

/// Relative pointers are signed 32-bit numbers, so no archive is longer than this.
pub(crate) const MAX_ARCHIVE: u64 = i32::MAX as u64 & !63;

/// Elements without bytes cost nothing to forge, so their number in a whole state is bounded.
pub(crate) const MAX_EMPTY_ITEMS: usize = 1 << 20;

/// The checksum follows the writer at this distance while an archive outgrows the caches.
const CRC_WINDOW: usize = 32 << 10;

/// Room for an archive: bytes that can grow while they are written.
pub(crate) trait Room {
    /// Makes at least `need` bytes usable from the same base and answers how many there are, or
    /// says that the archive must start over somewhere else (`Err(None)`) or cannot be had.
    fn extend(&mut self, need: u64) -> Result<usize, Option<SaveError>>;

    /// So much is written and final. Asked every [`CRC_WINDOW`] bytes, if the checksum follows the
    /// writer.
    fn passed(&mut self, _so_far: &[u8]) -> Result<(), SaveError> {
        Ok(())
    }
}

/// Pages of one field, captured: what is left to do after the pause.
pub(crate) trait Deferred: Send + Sync {
    /// How many.
    fn pages(&self) -> usize;

    /// The name of a page's content.
    fn stamp(&self, page: usize) -> Stamp;

    /// The chunk of pages around this one, and its name: where that is known, the pages are.
    fn chunk(&self, page: usize) -> (Range<usize>, Stamp);

    /// Pages that were copied for their first write since the capture before, which has the originals,
    /// and the bytes of their items.
    fn copies(&self) -> (u64, u64);

    /// Archives a page's items: what they point at, then they themselves side by side, which ends
    /// the page's bytes.
    fn archive(&self, page: usize, s: &mut Session) -> Result<(), Halt>;
}

/// Bytes of a reference to a page in an archive.
pub(crate) const REF_LEN: usize = 32;

/// A field whose pages come later: where its references lie, and what they refer to.
pub(crate) struct Later {
    pub(crate) refs: usize,
    pub(crate) depth: u32,
    pub(crate) field: Box<dyn Deferred>,
}

/// One archiving of one state. Handed to [`Snapshot::archive`]; users never make one.
pub struct Session {
    base: *mut u8,
    pos: usize,
    /// The nearer of `cap` and the place where the checksum wants to run: one comparison serves
    /// both.
    soft: usize,
    cap: usize,
    crc: crc32fast::Hasher,
    crc_at: usize,
    window: usize,
    depth: u32,
    deepest: u32,
    max_depth: u32,
    /// Elements without bytes so far.
    empty: usize,
    scratch: Scratch,
    room: *mut dyn Room,
    later: Vec<Later>,
    halted: Option<Halted>,
}

/// Why a session stopped.
#[derive(Debug)]
pub(crate) enum Halted {
    /// The bytes do not fit here; start over with at least as many as this.
    Elsewhere(u64),
    Error(SaveError),
}

/// What a finished session wrote.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    /// Bytes from the base; the root is the last of them.
    pub(crate) len: usize,
    /// Where the root starts.
    pub(crate) root: usize,
    /// Not known yet where there are pages to come.
    pub(crate) crc: u32,
    pub(crate) depth: u32,
}

impl Session {
    /// A session over `[base, base + cap)`. `fused` lets the checksum follow the writer.
    ///
    /// # Safety
    ///
    /// `base` is aligned to 64 and `cap` bytes from it (or as many as `room` answers later) are
    /// writable and used by nobody else while the session lives (S1); `room` outlives it.
    pub(crate) unsafe fn new(
        base: *mut u8,
        cap: usize,
        fused: bool,
        max_depth: u32,
        scratch: Scratch,
        room: &mut dyn Room,
    ) -> Session {
        // SAFETY: only the lifetime changes; the caller promises that `room` outlives the session.
        let room =
            unsafe { std::mem::transmute::<*mut (dyn Room + '_), *mut (dyn Room + 'static)>(room) };
        let window = if fused { CRC_WINDOW } else { usize::MAX };
        let (mut scratch, mut later) = (scratch, Vec::new());
        std::mem::swap(&mut later, &mut scratch.later);
        Session {
            base,
            pos: 0,
            soft: cap.min(window),
            cap,
            crc: crc32fast::Hasher::new(),
            crc_at: 0,
            window,
            depth: 0,
            deepest: 0,
            max_depth,
            empty: 0,
            scratch,
            room,
            later,
            halted: None,
        }
    }

    /// Archives `state` and answers what was written.
    pub(crate) fn run<T: Snapshot>(&mut self, state: &T) -> Result<Written, Halted> {
        self.root(state).map_err(|Halt(())| self.halted())
    }

    fn root<T: Snapshot>(&mut self, state: &T) -> Result<Written, Halt> {
        let resolver = state.archive(self)?;
        let (root, out) = self.place::<T::Archived>()?;
        state.resolve(resolver, out);
        if self.deepest > self.max_depth {
            return Err(self.halt(SaveError::TooDeep { max: self.max_depth }));
        }
        if self.later.is_empty() {
            self.checksum();
        }
        let crc = std::mem::take(&mut self.crc).finalize();
        Ok(Written { len: self.pos, root, crc, depth: self.deepest })
    }

    /// Begins anew elsewhere, with the same lasting memory.
    ///
    /// # Safety
    ///
    /// `base` and `cap` are as [`new`](Self::new) wants them.
    pub(crate) unsafe fn aim(&mut self, base: *mut u8, cap: usize) {
        (self.base, self.cap, self.soft) = (base, cap, cap.min(self.window));
        (self.pos, self.crc_at, self.empty) = (0, 0, 0);
        self.halted = None;
        self.scratch.clear();
    }

    /// The fields whose pages come later.
    pub(crate) fn take_later(&mut self) -> Vec<Later> {
        std::mem::take(&mut self.later)
    }

    /// Archives one page of a field: answers how long it is and the deepest pointer in it.
    pub(crate) fn page(&mut self, later: &Later, page: usize) -> Result<(usize, u32), Halted> {
        (self.depth, self.deepest) = (later.depth, later.depth);
        later.field.archive(page, self).map_err(|Halt(())| self.halted())?;
        Ok((self.pos, self.deepest))
    }

    fn halted(&mut self) -> Halted {
        let deep = SaveError::TooDeep { max: self.max_depth };
        self.halted.take().unwrap_or(Halted::Error(deep))
    }

    /// The lasting memory, for the next session.
    pub(crate) fn into_scratch(self) -> Scratch {
        let mut scratch = self.scratch;
        scratch.clear();
        scratch
    }

    /// Notes why archiving cannot go on.
    #[cold]
    pub fn halt(&mut self, why: SaveError) -> Halt {
        self.halted.get_or_insert(Halted::Error(why));
        Halt(())
    }

    /// Bytes `[crc_at, pos)` are final (S2): takes them into the checksum.
    fn checksum(&mut self) {
        let len = self.pos - self.crc_at;
        // SAFETY: S1, `crc_at <= pos <= cap`.
        let from = unsafe { self.base.add(self.crc_at) };
        // SAFETY: S1 and S3: `len` bytes from there are ours, initialised, and not written while
        // the slice lives.
        let bytes = unsafe { std::slice::from_raw_parts(from, len) };
        self.crc.update(bytes);
        self.crc_at = self.pos;
    }

    /// The checksum has come up with the writer: what is final may go on its way.
    fn pass(&mut self) -> Result<(), Halt> {
        // SAFETY: S1 and S3: as many bytes are ours, initialised, and final (S2).
        let so_far = unsafe { std::slice::from_raw_parts(self.base, self.pos) };
        // SAFETY: as in `refill`.
        let room = unsafe { &mut *self.room };
        room.passed(so_far).map_err(|why| self.halt(why))
    }

    /// `soft` was passed: the checksum wants to run, or room is short.
    #[cold]
    #[inline(never)]
    fn refill(&mut self, end: usize) -> Result<(), Halt> {
        if self.pos - self.crc_at >= self.window {
            self.checksum();
            self.pass()?;
        }
        if end > self.cap {
            if end as u64 > MAX_ARCHIVE {
                return Err(self.halt(SaveError::TooLarge { bytes: end as u64, max: MAX_ARCHIVE }));
            }
            // SAFETY: `room` outlives the session, by the contract of `new`, and nobody else uses it.
            let room = unsafe { &mut *self.room };
            match room.extend(end as u64) {
                Ok(cap) => self.cap = cap,
                Err(why) => {
                    self.halted.get_or_insert(match why {
                        Some(error) => Halted::Error(error),
                        None => Halted::Elsewhere(end as u64),
                    });
                    return Err(Halt(()));
                }
            }
        }
        self.soft = self.cap.min(self.pos.max(end).saturating_add(self.window));
        Ok(())
    }

    /// Takes `size` bytes at the next multiple of `align`; answers their position.
    #[inline]
    fn reserve(&mut self, size: usize, align: usize) -> Result<usize, Halt> {
        let start = self.pos.next_multiple_of(align);
        let end = match start.checked_add(size) {
            Some(end) => end,
            None => {
                return Err(self.halt(SaveError::TooLarge { bytes: u64::MAX, max: MAX_ARCHIVE }));
            }
        };
        if end > self.soft {
            self.refill(end)?;
        }
        if start != self.pos {
            // SAFETY: S1, `pos < start <= cap`.
            let gap = unsafe { self.base.add(self.pos) };
            // SAFETY: S1, `start - pos` bytes from there.
            unsafe { gap.write_bytes(0, start - self.pos) };
        }
        self.pos = end;
        Ok(start)
    }

    /// A place for one `A`; the caller initialises all of it at once, by `resolve`.
    #[inline]
    fn place<A>(&mut self) -> Result<(usize, Place<A>), Halt> {
        let pos = self.reserve(size_of::<A>(), align_of::<A>())?;
        // SAFETY: S1, `pos + size_of::<A>() <= cap`.
        let at = unsafe { self.base.add(pos) };
        // SAFETY: aligned (the base is to 64, `pos` to `A`), writable (S1); the bytes count as
        // initialised since a mapping's always are.
        let place = unsafe { Place::new_unchecked(pos, at.cast::<A>()) };
        Ok((pos, place))
    }

    /// One pointer deeper; `leave` comes back.
    #[inline]
    pub(crate) fn enter(&mut self) -> Result<(), Halt> {
        self.depth += 1;
        if self.depth > self.deepest {
            self.deepest = self.depth;
            if self.depth > self.max_depth {
                return Err(self.halt(SaveError::TooDeep { max: self.max_depth }));
            }
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Archives `value` behind a pointer; answers its position.
    ///
    /// # Errors
    ///
    /// [`Halt`] where the value does, or room or depth is used up.
    #[inline]
    pub fn pointee<T: Snapshot>(&mut self, value: &T) -> Result<usize, Halt> {
        self.enter()?;
        let resolver = value.archive(self)?;
        let (pos, out) = self.place::<T::Archived>()?;
        value.resolve(resolver, out);
        self.leave();
        Ok(pos)
    }

    /// Archives what a `P` shares, once however often it is met; `address` tells it from others.
    /// Pointers of different types to one value share nothing: in an archive they could not.
    /// Positions of shared values are unique even where they have no bytes.
    ///
    /// # Errors
    ///
    /// As [`pointee`](Self::pointee); a value that holds itself is refused.
    pub fn shared<P: 'static>(
        &mut self,
        address: usize,
        write: impl FnOnce(&mut Session) -> Result<usize, Halt>,
    ) -> Result<usize, Halt> {
        let key = (address, TypeId::of::<P>());
        match self.scratch.shared.get(&key) {
            Some(Shared::At { pos, height }) => {
                let (pos, height) = (*pos, *height);
                self.deepest = self.deepest.max(self.depth + height);
                if self.deepest > self.max_depth {
                    return Err(self.halt(SaveError::TooDeep { max: self.max_depth }));
                }
                return Ok(pos);
            }
            Some(Shared::Pending { .. }) => return Err(self.halt(SaveError::Cyclic)),
            None => {}
        }
        let deepest = std::mem::replace(&mut self.deepest, self.depth);
        self.scratch.shared.insert(key, Shared::Pending { deepest });
        let pos = write(self)?;
        let height = self.deepest - self.depth;
        self.deepest = self.deepest.max(deepest);
        if pos == self.pos {
            self.reserve(1, 1).map(|at| {
                // SAFETY: S1: `at` has just been reserved.
                let byte = unsafe { self.base.add(at) };
                // SAFETY: S1, as above.
                unsafe { byte.write(0) };
            })?;
        }
        self.scratch.shared.insert(key, Shared::At { pos, height });
        Ok(pos)
    }

    /// Archives a slice; plain rows are one copy. Answers the position of the first.
    ///
    /// # Errors
    ///
    /// As [`pointee`](Self::pointee).
    #[inline]
    pub fn slice<T: Snapshot>(&mut self, items: &[T]) -> Result<usize, Halt> {
        if T::PLAIN {
            self.leaf()?;
            return self.plain(items);
        }
        self.sequence(
            items.len(),
            items.iter(),
            |s, item| item.archive(s),
            |item, r, out| {
                item.resolve(r, out);
            },
        )
    }

    /// Archives `len` items of an iterator that can be walked twice: first everything they point
    /// at, then they themselves side by side. Answers the position of the first.
    ///
    /// # Errors
    ///
    /// As [`pointee`](Self::pointee), and `TooLarge` for more items than an archive can count.
    #[inline]
    pub fn sequence<I, A, R>(
        &mut self,
        len: usize,
        items: I,
        mut archive: impl FnMut(&mut Session, I::Item) -> Result<R, Halt>,
        mut resolve: impl FnMut(I::Item, R, Place<A>),
    ) -> Result<usize, Halt>
    where
        I: Iterator + Clone,
    {
        self.count::<A>(len)?;
        self.enter()?;
        // The stack comes back by itself where a panic passes: the session ends with it.
        let mark = self.scratch.mark();
        let layout =
            MemLayout::array::<R>(len).map_err(|_| self.too_many(len, u32::MAX as usize))?;
        let resolvers: *mut R = if size_of::<R>() == 0 {
            NonNull::dangling().as_ptr()
        } else {
            self.scratch.push(layout).as_ptr().cast()
        };
        let mut count = 0;
        for item in items.clone().take(len) {
            let resolver = archive(self, item)?;
            // SAFETY: `count < len` and the stack holds `len` resolvers; without bytes any
            // address serves.
            let at = unsafe { resolvers.add(count) };
            // SAFETY: as above; aligned by the layout.
            unsafe { at.write(resolver) };
            count += 1;
        }
        let Some(bytes) = size_of::<A>().checked_mul(count) else {
            return Err(self.halt(SaveError::TooLarge { bytes: u64::MAX, max: MAX_ARCHIVE }));
        };
        let pos = self.reserve(bytes, align_of::<A>())?;
        let mut done = 0;
        for item in items.take(count) {
            // SAFETY: `done < count`: each resolver was written above and is read once.
            let resolver = unsafe { resolvers.add(done) };
            // SAFETY: as above.
            let resolver = unsafe { resolver.read() };
            let at = pos + done * size_of::<A>();
            // SAFETY: S1: inside the `bytes` just reserved.
            let out = unsafe { self.base.add(at) };
            // SAFETY: as in `place`.
            let out = unsafe { Place::new_unchecked(at, out.cast::<A>()) };
            resolve(item, resolver, out);
            done += 1;
        }
        if done != count || count != len {
            return Err(self.halt(SaveError::Unsteady));
        }
        self.scratch.release(mark);
        self.leave();
        Ok(pos)
    }

    /// Refuses more elements than an archive can count, or than may be without bytes.
    #[inline]
    pub(crate) fn count<A>(&mut self, len: usize) -> Result<(), Halt> {
        if size_of::<A>() == 0 {
            self.empty = self.empty.saturating_add(len);
            if self.empty > MAX_EMPTY_ITEMS {
                return Err(self.too_many(self.empty, MAX_EMPTY_ITEMS));
            }
        }
        if len > u32::MAX as usize { Err(self.too_many(len, u32::MAX as usize)) } else { Ok(()) }
    }

    #[cold]
    fn too_many(&mut self, len: usize, max: usize) -> Halt {
        self.halt(SaveError::TooLarge { bytes: len as u64, max: max as u64 })
    }

    /// One pointer to something that points no further.
    #[inline]
    fn leaf(&mut self) -> Result<(), Halt> {
        self.enter()?;
        self.leave();
        Ok(())
    }

    /// Copies bytes behind a pointer (strings); answers their position.
    ///
    /// # Errors
    ///
    /// As [`pointee`](Self::pointee).
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<usize, Halt> {
        self.leaf()?;
        self.plain(bytes)
    }

    /// Copies plain rows.
    #[inline]
    fn plain<T: Snapshot>(&mut self, items: &[T]) -> Result<usize, Halt> {
        const { assert!(!T::PLAIN || size_of::<T>() == size_of::<T::Archived>()) };
        const { assert!(!T::PLAIN || align_of::<T>() == align_of::<T::Archived>()) };
        assert!(T::PLAIN);
        self.count::<T>(items.len())?;
        let bytes = size_of_val(items);
        let source = items.as_ptr().cast::<u8>();
        if bytes <= CRC_WINDOW || self.window == usize::MAX {
            let pos = self.reserve(bytes, align_of::<T>())?;
            // SAFETY: S1, just reserved.
            let to = unsafe { self.base.add(pos) };
            // SAFETY: `bytes` bytes of `items`, all initialised (PLAIN has no padding), to as many
            // just reserved; live memory and the mapping do not overlap.
            unsafe { ptr::copy_nonoverlapping(source, to, bytes) };
            return Ok(pos);
        }
        // Long runs in windows, so that the checksum meets them while they are hot.
        let pos = self.reserve(0, align_of::<T>())?;
        if pos + bytes > self.cap {
            self.refill(pos + bytes)?;
        }
        let mut at = 0;
        while at < bytes {
            let len = CRC_WINDOW.min(bytes - at);
            // SAFETY: `at < bytes`: inside `items`.
            let from = unsafe { source.add(at) };
            // SAFETY: S1: `pos + bytes <= cap`, assured above.
            let to = unsafe { self.base.add(pos + at) };
            // SAFETY: as in the short case.
            unsafe { ptr::copy_nonoverlapping(from, to, len) };
            at += len;
            self.pos = pos + at;
            self.checksum();
            self.pass()?;
        }
        self.soft = self.cap.min(self.pos.saturating_add(self.window));
        Ok(pos)
    }

    /// Memory for `len` rows on the scratch stack, ours until [`release`](Self::release) is given
    /// the mark. It does not move, whatever is archived meanwhile.
    #[inline]
    pub(crate) fn rows<R>(&mut self, len: usize) -> Result<(Mark, NonNull<R>), Halt> {
        let mark = self.scratch.mark();
        match MemLayout::array::<R>(len) {
            Ok(layout) => Ok((mark, self.scratch.push(layout).cast())),
            Err(_) => {
                Err(self.halt(SaveError::TooLarge { bytes: len as u64, max: u32::MAX.into() }))
            }
        }
    }

    /// Gives back what was taken since `mark`.
    #[inline]
    pub(crate) fn release(&mut self, mark: Mark) {
        self.scratch.release(mark);
    }

    /// Leaves a field's pages for later: answers where references to them will lie. Nothing is written
    /// there now: in a large state that would be most of the pause.
    pub(crate) fn defer(&mut self, field: Box<dyn Deferred>) -> Result<usize, Halt> {
        self.enter()?;
        let bytes = field.pages() * REF_LEN;
        let refs = self.reserve(bytes, 8)?;
        self.later.push(Later { refs, depth: self.depth, field });
        self.leave();
        Ok(refs)
    }

    /// Takes an error that a `with` wrapper raised.
    pub(crate) fn wrapper_failed(&mut self, error: BoxedError) -> Halt {
        self.halt(SaveError::Serialize { source: Box::new(error) })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("pos", &self.pos)
            .field("cap", &self.cap)
            .finish_non_exhaustive()
    }
}

// The bridge: rkyv's own serializers and `with` wrappers write through these.

impl Fallible for Session {
    type Error = BoxedError;
}

/// Stands for a reason that the session already holds.
#[derive(Debug)]
struct Noted;

impl fmt::Display for Noted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("archiving stopped; the session holds the reason")
    }
}

impl std::error::Error for Noted {}

impl From<Halt> for BoxedError {
    fn from(Halt(()): Halt) -> BoxedError {
        BoxedError::new(Noted)
    }
}

impl Positional for Session {
    fn pos(&self) -> usize {
        self.pos
    }
}

impl Writer<BoxedError> for Session {
    fn write(&mut self, bytes: &[u8]) -> Result<(), BoxedError> {
        let pos = self.reserve(bytes.len(), 1)?;
        // SAFETY: S1, just reserved.
        let to = unsafe { self.base.add(pos) };
        // SAFETY: as many bytes as reserved; a slice of the caller's and the mapping's unwritten
        // part do not overlap.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }
}

// SAFETY: `push_alloc` answers memory of the layout asked for, ours until popped; it is a stack, as
// rkyv's contract wants.
unsafe impl Allocator<BoxedError> for Session {
    unsafe fn push_alloc(&mut self, layout: MemLayout) -> Result<NonNull<[u8]>, BoxedError> {
        let at = self.scratch.push(layout);
        Ok(NonNull::slice_from_raw_parts(at, layout.size()))
    }

    unsafe fn pop_alloc(&mut self, ptr: NonNull<u8>, _: MemLayout) -> Result<(), BoxedError> {
        self.scratch.pop(ptr);
        Ok(())
    }
}

impl Sharing<BoxedError> for Session {
    fn start_sharing(&mut self, address: usize) -> SharingState {
        match self.scratch.shared.get(&foreign(address)) {
            Some(Shared::At { pos, height }) => {
                // Looked at when all is written: here is no way to refuse.
                self.deepest = self.deepest.max(self.depth + height);
                SharingState::Finished(*pos)
            }
            Some(Shared::Pending { .. }) => SharingState::Pending,
            None => {
                let deepest = std::mem::replace(&mut self.deepest, self.depth);
                self.scratch.shared.insert(foreign(address), Shared::Pending { deepest });
                SharingState::Started
            }
        }
    }

    fn finish_sharing(&mut self, address: usize, pos: usize) -> Result<(), BoxedError> {
        let height = self.deepest - self.depth;
        if let Some(Shared::Pending { deepest }) = self.scratch.shared.get(&foreign(address)) {
            self.deepest = self.deepest.max(*deepest);
        }
        self.scratch.shared.insert(foreign(address), Shared::At { pos, height });
        Ok(())
    }
}

/// What rkyv's own shared pointers are known by: they are not told apart by type.
fn foreign(address: usize) -> (usize, TypeId) {
    (address, TypeId::of::<dyn Sharing<BoxedError>>())
}

/// Heap memory as room, for archives that never reach a file.
struct Heap;

impl Room for Heap {
    fn extend(&mut self, _: u64) -> Result<usize, Option<SaveError>> {
        Err(None)
    }
}

/// The bytes of one archive, on the heap. Grows until it fits.
pub(crate) fn to_bytes(
    write: impl Fn(&mut Session) -> Result<usize, Halt>,
) -> Result<rkyv::util::AlignedVec<64>, SaveError> {
    let mut size = 4096_usize;
    loop {
        let mut memory = rkyv::util::AlignedVec::<64>::with_capacity(size);
        memory.resize(size, 0);
        let mut room = Heap;
        let base = memory.as_mut_ptr();
        // SAFETY: aligned by its type, `size` bytes, borrowed by nobody else; `room` outlives it.
        let mut session =
            unsafe { Session::new(base, size, false, u32::MAX, Scratch::default(), &mut room) };
        match write(&mut session) {
            Ok(_) => {
                let len = session.pos;
                memory.resize(len, 0);
                return Ok(memory);
            }
            Err(Halt(())) => match session.halted.take() {
                Some(Halted::Elsewhere(need)) => {
                    size = usize::try_from(need).unwrap_or(usize::MAX).max(size * 2);
                }
                Some(Halted::Error(error)) => return Err(error),
                None => return Err(SaveError::Unsteady),
            },
        }
    }
}

/// Compares two values by the bytes of their archives: the canonical order of foreign types. What
/// cannot be archived sorts equal; the save that follows says why.
pub(crate) fn compare_archived(
    a: impl Fn(&mut Session) -> Result<usize, Halt>,
    b: impl Fn(&mut Session) -> Result<usize, Halt>,
) -> std::cmp::Ordering {
    match (to_bytes(a), to_bytes(b)) {
        (Ok(a), Ok(b)) => a.as_slice().cmp(b.as_slice()),
        _ => std::cmp::Ordering::Equal,
    }
}

//! Checks an archive's bytes before anybody believes them: every pointer inside, aligned, in its
//! own subtree, no deeper than stated; every tag and string valid (rkyv's bytecheck).
//!
//! Its own context rather than rkyv's, since that one has a lifetime and [`Snapshot`] is written
//! over concrete contexts without any.
//!
//! [`Snapshot`]: crate::Snapshot

use std::{
    alloc::Layout, any::TypeId, collections::HashMap, error::Error, fmt, num::NonZeroUsize,
    ops::Range,
};

use rkyv::{
    Portable,
    bytecheck::CheckBytes,
    rancor::{BoxedError, Fallible, Source},
    validation::{
        ArchiveContext, SharedContext,
        archive::ArchiveValidator,
        shared::{SharedValidator, ValidationState},
    },
};

use crate::{
    page_writer::PACK,
    paged::{PageRef, stamp::Stamp},
    record::Extent,
};

/// The context in which archived types check themselves.
pub struct Checker {
    archive: ArchiveValidator<'static>,
    /// The address of the archive's first byte.
    start: usize,
    shared: SharedValidator,
    /// Pointers that led here, the deepest since `start_shared`, and the most there may be.
    level: u32,
    deepest: u32,
    max_level: u32,
    /// `deepest` of what is around the shared values being checked.
    around: Vec<u32>,
    /// Pointers from one to a shared value to the deepest below, by the value's address.
    heights: HashMap<usize, u32>,
    /// Where its pages may be; an archive without a table has none.
    pages: Option<&'static mut Sources<'static>>,
}

/// Bytes of the file that an archive lies in, which stay as they are while they are checked.
pub(crate) trait Bytes {
    /// The bytes of an extent, if they are there.
    fn bytes(&self, extent: Extent) -> Result<&[u8], String>;
}

/// A page that has been checked: where it is, its checksum and its name; and as what, since the same
/// bytes may pass as one thing and not as another.
type Page = (u64, usize, u32, Stamp, As);

/// What a page was checked as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct As {
    /// The address of the code that checks its items: the same code, the same verdict.
    code: usize,
    count: usize,
}

/// Pages that have been checked: each is looked at once, however many snapshots share it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// With the pointers from its items to the deepest in it.
    before: HashMap<Page, u32>,
    now: HashMap<Page, u32>,
    /// Bytes looked at for this archive.
    bytes: u64,
}

impl Seen {
    /// The next archive: of the pages before it those of the last one are remembered.
    fn turn(&mut self) {
        self.before = std::mem::take(&mut self.now);
        self.bytes = 0;
    }
}

/// Where the pages of an archive may be.
pub(crate) struct Sources<'a> {
    file: &'a dyn Bytes,
    /// Where the archive starts in the file.
    archive: u64,
    /// The runs that its record names.
    spans: Vec<Range<u64>>,
    seen: &'a mut Seen,
    /// Bytes to be looked at, at most: honest pages share none.
    most: u64,
}

impl<'a> Sources<'a> {
    pub(crate) fn new(
        file: &'a dyn Bytes,
        archive: u64,
        spans: Vec<Range<u64>>,
        seen: &'a mut Seen,
    ) -> Sources<'a> {
        seen.turn();
        // As good as once: the compiler may have made the code of one check several times.
        let most = spans.iter().map(|span| span.end - span.start).fold(0, u64::saturating_add);
        let most = most.saturating_mul(4);
        Sources { file, archive, spans, seen, most }
    }
}

impl Checker {
    fn new(all: &'static [u8], depth: u32) -> Checker {
        // One more than stated for the root's own level, and one more for rkyv, which stops at its
        // last.
        let max_level = depth.saturating_add(1);
        let levels = NonZeroUsize::new(max_level as usize + 1);
        Checker {
            archive: ArchiveValidator::with_max_depth(all, levels),
            start: all.as_ptr().addr(),
            shared: SharedValidator::new(),
            level: 0,
            deepest: 0,
            max_level,
            around: Vec::new(),
            heights: HashMap::new(),
            pages: None,
        }
    }

    /// Checks a page of `count` items that a reference in the archive names.
    ///
    /// # Errors
    ///
    /// It lies outside the runs that the record names, its checksum does not fit, or what is in it is
    /// no such items.
    pub(crate) fn page<A>(&mut self, page: &PageRef, count: usize) -> Result<(), BoxedError>
    where
        A: CheckBytes<Checker>,
    {
        let refuse = |what: String| Err(BoxedError::new(NoPage(what)));
        let Some(pages) = self.pages.take() else {
            return refuse("the record names none".to_owned());
        };
        let checked = self.page_of::<A>(pages, page, count);
        self.pages = Some(pages);
        checked.or_else(refuse)
    }

    fn page_of<A>(
        &mut self,
        pages: &mut Sources<'static>,
        page: &PageRef,
        count: usize,
    ) -> Result<(), String>
    where
        A: CheckBytes<Checker>,
    {
        let (address, len, crc) = (page.address(), page.len(), page.crc());
        // In the file it lies as far from the archive as in memory.
        let offset = pages.archive.wrapping_add((address as u64).wrapping_sub(self.start as u64));
        let size = count.checked_mul(size_of::<A>()).filter(|size| *size <= len);
        let Some(size) = size else {
            return Err(format!("{count} items of {} bytes in {len}", size_of::<A>()));
        };
        let end = offset.checked_add(len as u64);
        let inside = |span: &Range<u64>| span.start <= offset && end.is_some_and(|e| e <= span.end);
        if !offset.is_multiple_of(PACK) || !pages.spans.iter().any(inside) {
            return Err(format!("{len} bytes at {offset} are in none of the snapshot's runs"));
        }
        let bytes = pages.file.bytes(Extent { offset, len: len as u64, crc })?;
        if bytes.as_ptr().addr() != address {
            return Err(format!("{len} bytes at {offset} are mapped elsewhere"));
        }
        let rows: fn(&mut Checker, *const A, usize) -> Result<(), BoxedError> = Checker::rows::<A>;
        let code = rows as *const () as usize;
        let page = (offset, len, crc, page.stamp(), As { code, count });
        let known = pages.seen.now.get(&page).or_else(|| pages.seen.before.get(&page)).copied();
        let height = if let Some(height) = known {
            height
        } else {
            pages.seen.bytes = pages.seen.bytes.saturating_add(len as u64);
            if pages.seen.bytes > pages.most {
                return Err("it overlaps other pages".to_owned());
            }
            if crc32fast::hash(bytes) != crc {
                return Err(format!("the checksum of {len} bytes at {offset} does not fit"));
            }
            let around = std::mem::replace(&mut self.deepest, self.level);
            let checked = self.items::<A>(bytes, bytes.len() - size, count);
            let height = self.deepest - self.level;
            self.deepest = self.deepest.max(around);
            checked?;
            height
        };
        // The same bytes may be met again where less may lie below.
        let deepest = self.level.saturating_add(height);
        if deepest > self.max_level {
            return Err("more pointers lie below it than the record states".to_owned());
        }
        self.deepest = self.deepest.max(deepest);
        pages.seen.now.insert(page, height);
        Ok(())
    }

    /// Checks the items that a page's bytes end with, as an archive of its own.
    fn items<A>(&mut self, bytes: &[u8], first: usize, count: usize) -> Result<(), String>
    where
        A: CheckBytes<Checker>,
    {
        let start = bytes.as_ptr().wrapping_add(first).cast::<A>();
        if !start.is_aligned() {
            return Err(format!("its items are not aligned to {}", align_of::<A>()));
        }
        // SAFETY: only addresses are kept of the slice, and this validator ends before `bytes` does.
        let all: &'static [u8] = unsafe { std::mem::transmute::<&[u8], &'static [u8]>(bytes) };
        let left = NonZeroUsize::new((self.max_level - self.level) as usize + 1);
        let around =
            std::mem::replace(&mut self.archive, ArchiveValidator::with_max_depth(all, left));
        let checked = self.rows(start, count);
        self.archive = around;
        checked.map_err(|error| error.to_string())
    }

    fn rows<A>(&mut self, start: *const A, count: usize) -> Result<(), BoxedError>
    where
        A: CheckBytes<Checker>,
    {
        let end = start.wrapping_add(count);
        // SAFETY: both are ends of bytes inside the archive that this validator knows.
        let range = unsafe { self.push_subtree_range(start.cast(), end.cast())? };
        for i in 0..count {
            // SAFETY: aligned, and inside the page's initialised bytes, as `items` has seen to.
            unsafe { A::check_bytes(start.wrapping_add(i), self)? };
        }
        // SAFETY: `range` came from this checker.
        unsafe { self.pop_subtree_range(range) }
    }
}

/// A reference to a page leads nowhere good.
#[derive(Debug)]
struct NoPage(String);

impl fmt::Display for NoPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a page: {}", self.0)
    }
}

impl Error for NoPage {}

/// A value that was shared where it was not deep is met again where it is.
#[derive(Debug)]
struct SharedTooDeep;

impl fmt::Display for SharedTooDeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more pointers lie below a shared value than the record states")
    }
}

impl Error for SharedTooDeep {}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checker")
    }
}

impl Fallible for Checker {
    type Error = BoxedError;
}

// SAFETY: forwards to rkyv's own validator, which keeps the contract.
unsafe impl ArchiveContext<BoxedError> for Checker {
    fn check_subtree_ptr(&mut self, ptr: *const u8, layout: &Layout) -> Result<(), BoxedError> {
        self.archive.check_subtree_ptr(ptr, layout)
    }

    unsafe fn push_subtree_range(
        &mut self,
        root: *const u8,
        end: *const u8,
    ) -> Result<Range<usize>, BoxedError> {
        // SAFETY: the caller keeps the contract, which is the same.
        let range: Result<_, BoxedError> = unsafe { self.archive.push_subtree_range(root, end) };
        let range = range?;
        self.level += 1;
        self.deepest = self.deepest.max(self.level);
        Ok(range)
    }

    unsafe fn pop_subtree_range(&mut self, range: Range<usize>) -> Result<(), BoxedError> {
        self.level -= 1;
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { self.archive.pop_subtree_range(range) }
    }
}

impl SharedContext<BoxedError> for Checker {
    fn start_shared(
        &mut self,
        shared_type_id: TypeId,
        ptr: rkyv::erased::ErasedPtr,
        metadata_is_eq: unsafe fn(rkyv::erased::Metadata, rkyv::erased::Metadata) -> bool,
    ) -> Result<ValidationState, BoxedError> {
        let state: Result<_, BoxedError> =
            self.shared.start_shared(shared_type_id, ptr, metadata_is_eq);
        let state = state?;
        match state {
            ValidationState::Started => {
                self.around.push(std::mem::replace(&mut self.deepest, self.level));
            }
            // Checked once, and not again; but what lies below it counts from here too. Else
            // values that share each other would be as deep as they are many.
            ValidationState::Finished => {
                let height = self.heights.get(&address(ptr)).copied().unwrap_or(0);
                let deepest = self.level.saturating_add(height);
                if deepest > self.max_level {
                    return Err(BoxedError::new(SharedTooDeep));
                }
                self.deepest = self.deepest.max(deepest);
            }
            ValidationState::Pending => {}
        }
        Ok(state)
    }

    fn finish_shared(
        &mut self,
        shared_type_id: TypeId,
        ptr: rkyv::erased::ErasedPtr,
    ) -> Result<(), BoxedError> {
        self.heights.insert(address(ptr), self.deepest - self.level);
        self.deepest = self.deepest.max(self.around.pop().unwrap_or(0));
        self.shared.finish_shared(shared_type_id, ptr)
    }
}

fn address(ptr: rkyv::erased::ErasedPtr) -> usize {
    ptr.data_address().addr()
}

/// Checks that `bytes` hold an `A` that ends with them, no deeper than `depth` pointers, and
/// answers it.
///
/// # Errors
///
/// The reason in words.
pub(crate) fn check<'a, A>(
    bytes: &'a [u8],
    root: usize,
    depth: u32,
    pages: Option<&mut Sources<'_>>,
) -> Result<&'a A, String>
where
    A: Portable + CheckBytes<Checker>,
{
    if root.checked_add(size_of::<A>()) != Some(bytes.len()) {
        return Err(format!(
            "the root ({} bytes at {root}) does not end the archive of {} bytes",
            size_of::<A>(),
            bytes.len()
        ));
    }
    let at = bytes.as_ptr().wrapping_add(root).cast::<A>();
    if !at.is_aligned() {
        return Err(format!("the root at {root} is not aligned to {}", align_of::<A>()));
    }
    // SAFETY: only addresses are kept of the slice, and the checker ends before `bytes` does.
    let all: &'static [u8] = unsafe { std::mem::transmute::<&[u8], &'static [u8]>(bytes) };
    let mut checker = Checker::new(all, depth);
    // SAFETY: the checker, which alone has it, ends before what is borrowed does.
    checker.pages = pages.map(|pages| unsafe {
        std::mem::transmute::<&mut Sources<'_>, &'static mut Sources<'static>>(pages)
    });
    // SAFETY: `root + size == len`, checked above, so both ends are inside the archive.
    let range = unsafe { checker.push_subtree_range(at.cast(), at.wrapping_add(1).cast()) };
    let range = range.map_err(|e| e.to_string())?;
    // SAFETY: `at` is aligned and `size_of::<A>()` bytes from it are inside `bytes`; an archive's
    // bytes are initialised.
    unsafe { A::check_bytes(at, &mut checker) }.map_err(|e| e.to_string())?;
    // SAFETY: `range` came from this checker.
    unsafe { checker.pop_subtree_range(range) }.map_err(|e| e.to_string())?;
    // SAFETY: `check_bytes` accepted it, so it is a valid `A`; the reference borrows `bytes`.
    Ok(unsafe { &*at })
}

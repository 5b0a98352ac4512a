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

/// The context in which archived types check themselves.
pub struct Checker {
    archive: ArchiveValidator<'static>,
    shared: SharedValidator,
    /// Pointers that led here, the deepest since `start_shared`, and the most there may be.
    level: u32,
    deepest: u32,
    max_level: u32,
    /// `deepest` of what is around the shared values being checked.
    around: Vec<u32>,
    /// Pointers from one to a shared value to the deepest below, by the value's address.
    heights: HashMap<usize, u32>,
}

impl Checker {
    fn new(all: &'static [u8], depth: u32) -> Checker {
        // One more than stated for the root's own level, and one more for rkyv, which stops at its
        // last.
        let max_level = depth.saturating_add(1);
        let levels = NonZeroUsize::new(max_level as usize + 1);
        Checker {
            archive: ArchiveValidator::with_max_depth(all, levels),
            shared: SharedValidator::new(),
            level: 0,
            deepest: 0,
            max_level,
            around: Vec::new(),
            heights: HashMap::new(),
        }
    }
}

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
pub(crate) fn check<A>(bytes: &[u8], root: usize, depth: u32) -> Result<&A, String>
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

//! [`ArchivedPagedVec`]: references to pages that lie elsewhere in the same file.
//!
//! The only file that follows such a reference. What the pages' bytes are worth, and that they lie
//! in extents that the snapshot's record names, is the checker's affair.

use std::{error::Error, fmt, iter::FusedIterator, marker::PhantomData, ops::Index, ptr, slice};

use rkyv::{
    Place, Portable,
    bytecheck::CheckBytes,
    munge::munge,
    rancor::{BoxedError, Source},
    rel_ptr::RelPtr,
    rend::{i32_le, i64_le, u32_le, u64_le},
    validation::ArchiveContextExt,
};

use super::{pages::past_the_end, stamp::Stamp};
use crate::{
    checker::Checker,
    session::{MAX_EMPTY_ITEMS, REF_LEN},
};

/// Where a page lies, and what it is.
#[repr(C)]
pub(crate) struct PageRef {
    /// From this reference's own address to the page's first byte.
    at: i64_le,
    /// Bytes of the page; its items end it.
    len: u32_le,
    crc: u32_le,
    stamp: [u8; 16],
}

const _: () = assert!(size_of::<PageRef>() == REF_LEN && align_of::<PageRef>() == 8);

// SAFETY: `repr(C)` over portable fields.
unsafe impl Portable for PageRef {}

impl PageRef {
    /// The address of the page's first byte, wherever a forged reference says it is.
    pub(crate) fn address(&self) -> usize {
        ptr::from_ref(self).addr().wrapping_add_signed(self.at.to_native() as isize)
    }

    pub(crate) fn len(&self) -> usize {
        self.len.to_native() as usize
    }

    pub(crate) fn crc(&self) -> u32 {
        self.crc.to_native()
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::from_bytes(self.stamp)
    }
}

/// The archived form of a [`PagedVec`](crate::PagedVec): each page where it was written last.
///
/// An item is read in place, two hops from here.
#[repr(C)]
pub struct ArchivedPagedVec<A> {
    refs: RelPtr<PageRef, i32_le>,
    pages: u32_le,
    page_len: u32_le,
    zero: u32_le,
    len: u64_le,
    items: PhantomData<A>,
}

// SAFETY: `repr(C)` over portable fields.
unsafe impl<A: Portable> Portable for ArchivedPagedVec<A> {}

/// Where the references of a paged field are, and to how much.
#[derive(Debug)]
pub struct PagedResolver {
    pub(super) refs: usize,
    pub(super) pages: u32,
    pub(super) page_len: u32,
    pub(super) len: u64,
}

impl<A> ArchivedPagedVec<A> {
    pub(super) fn resolve(r: &PagedResolver, out: Place<Self>) {
        munge!(let ArchivedPagedVec { refs, pages, page_len, zero, len, items: _ } = out);
        RelPtr::emplace(r.refs, refs);
        pages.write(r.pages.into());
        page_len.write(r.page_len.into());
        zero.write(0.into());
        len.write(r.len.into());
    }

    /// How many items there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len.to_native() as usize
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len.to_native() == 0
    }

    /// How many items a page has; the last may have fewer.
    #[inline]
    pub fn page_len(&self) -> usize {
        self.page_len.to_native() as usize
    }

    /// How many pages there are.
    #[inline]
    pub fn pages(&self) -> usize {
        self.pages.to_native() as usize
    }

    /// The reference to page `p`. Panics where there is none.
    #[inline]
    pub(crate) fn page_ref(&self, p: usize) -> &PageRef {
        let pages = self.pages();
        if p >= pages {
            past_the_end(p, pages);
        }
        // SAFETY: the archive was written by us or has been checked, so the references are there.
        let refs = unsafe { self.refs.as_ptr() };
        // SAFETY: as above; `p` is less than how many there are.
        let page = unsafe { refs.add(p) };
        // SAFETY: as above; an archive that is reached does not change (P1).
        unsafe { &*page }
    }

    /// How many items page `p` has.
    #[inline]
    pub(crate) fn count(&self, p: usize) -> usize {
        (self.len() - p * self.page_len()).min(self.page_len())
    }

    /// The items of page `p`, side by side as they lie in the file.
    ///
    /// # Panics
    ///
    /// Where there is no page `p`.
    #[inline]
    pub fn page(&self, p: usize) -> &[A] {
        let page = self.page_ref(p);
        let count = self.count(p);
        let before = page.len() - count * size_of::<A>();
        let at = page.address().wrapping_add(before);
        // Its own allocation as far as the language knows: the mapping that holds all extents of
        // the snapshot, whose provenance was exposed when it was made.
        let at = ptr::with_exposed_provenance::<A>(at);
        // SAFETY: the archive was written by us or has been checked: so many valid items lie there,
        // aligned; they do not change while the snapshot can be reached (P1), and whoever reaches
        // it holds the mapping.
        unsafe { slice::from_raw_parts(at, count) }
    }

    /// Item `i`; `None` past the end.
    #[inline]
    pub fn get(&self, i: usize) -> Option<&A> {
        if i >= self.len() {
            return None;
        }
        let page_len = self.page_len();
        self.page(i / page_len).get(i % page_len)
    }

    /// The items, in order.
    pub fn iter(&self) -> ArchivedIter<'_, A> {
        ArchivedIter { all: self, next: 0, front: [].iter() }
    }
}

impl<A> Index<usize> for ArchivedPagedVec<A> {
    type Output = A;

    fn index(&self, i: usize) -> &A {
        match self.get(i) {
            Some(item) => item,
            None => past_the_end(i, self.len()),
        }
    }
}

impl<'a, A> IntoIterator for &'a ArchivedPagedVec<A> {
    type Item = &'a A;
    type IntoIter = ArchivedIter<'a, A>;

    fn into_iter(self) -> ArchivedIter<'a, A> {
        self.iter()
    }
}

impl<A: fmt::Debug> fmt::Debug for ArchivedPagedVec<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

/// The items of an [`ArchivedPagedVec`], in order.
pub struct ArchivedIter<'a, A> {
    all: &'a ArchivedPagedVec<A>,
    next: usize,
    front: slice::Iter<'a, A>,
}

impl<'a, A> Iterator for ArchivedIter<'a, A> {
    type Item = &'a A;

    #[inline]
    fn next(&mut self) -> Option<&'a A> {
        if let Some(item) = self.front.next() {
            return Some(item);
        }
        if self.next == self.all.pages() {
            return None;
        }
        self.front = self.all.page(self.next).iter();
        self.next += 1;
        self.front.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let begun = (self.next * self.all.page_len()).min(self.all.len());
        let len = self.front.len() + self.all.len() - begun;
        (len, Some(len))
    }
}

impl<A> ExactSizeIterator for ArchivedIter<'_, A> {}
impl<A> FusedIterator for ArchivedIter<'_, A> {}

impl<A> Clone for ArchivedIter<'_, A> {
    fn clone(&self) -> Self {
        ArchivedIter { all: self.all, next: self.next, front: self.front.clone() }
    }
}

impl<A> fmt::Debug for ArchivedIter<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchivedIter").field("left", &self.len()).finish_non_exhaustive()
    }
}

/// The numbers of a paged field do not fit each other.
#[derive(Debug)]
struct Misfit {
    len: u64,
    pages: u32,
    page_len: u32,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Misfit { len, pages, page_len } = self;
        write!(f, "a paged field states {len} items in {pages} pages of {page_len}")
    }
}

impl Error for Misfit {}

// SAFETY: it is valid where there are as many pages as its items need, and the checker has found
// every one of them, valid to its last item.
unsafe impl<A> CheckBytes<Checker> for ArchivedPagedVec<A>
where
    A: Portable + CheckBytes<Checker>,
{
    unsafe fn check_bytes(it: *const Self, c: &mut Checker) -> Result<(), BoxedError> {
        // SAFETY: the caller's `it` is aligned, in bounds and initialised; every pattern of bits is
        // one of the numbers it is made of. Nothing is followed before it is checked.
        let all = unsafe { &*it };
        let (len, pages) = (all.len.to_native(), all.pages.to_native());
        let page_len = all.page_len.to_native();
        let empty = size_of::<A>() == 0 && len > MAX_EMPTY_ITEMS as u64;
        let fits = page_len > 0 && len.div_ceil(page_len.into()) == u64::from(pages);
        if empty || !fits || all.zero != 0 {
            return Err(BoxedError::new(Misfit { len, pages, page_len }));
        }
        // SAFETY: in bounds, as above.
        let refs = unsafe { &raw const (*it).refs };
        // SAFETY: as above; what it points at is looked into below.
        let refs = unsafe { RelPtr::as_ptr_wrapping_raw(refs.cast_mut()) };
        let refs: *const [PageRef] = ptr::slice_from_raw_parts(refs, pages as usize);
        c.in_subtree(refs, |c| {
            // SAFETY: `in_subtree` has seen that they lie in the archive, aligned; numbers and bytes
            // are valid however they are.
            let refs = unsafe { &*refs };
            for (p, page) in refs.iter().enumerate() {
                c.page::<A>(page, all.count(p))?;
            }
            Ok(())
        })
    }
}

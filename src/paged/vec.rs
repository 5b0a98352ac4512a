#![forbid(unsafe_code)]
//! [`PagedVec`]: a vector whose copies, captures and rollbacks cost what has changed.
//!
//! Knows items by number. Where they lie, and who else holds them, is `pages.rs`'s affair.

use std::{
    fmt,
    hash::{Hash, Hasher},
    ops::{Index, IndexMut},
};

use super::{
    page,
    pages::{Pages, past_the_end},
    walk::{IntoIter, Iter, IterMut},
};
use crate::snapshot::Snapshot;

/// A vector in pages, of which clones and captures take a share rather than a copy.
///
/// It is written and read like a `Vec`. Its items lie in pages of [`page_len`](Self::page_len)
/// items each. A clone costs a pointer for every 128 pages and eight bytes a page; the first write
/// to a page after that copies this one page, if somebody else still holds it. A page that has not
/// been written keeps its name, so that a snapshot writes down only the pages that have changed,
/// and a rollback restores only those.
///
/// Reading or writing an item by its number is one hop more than in a `Vec`. Whatever hands out
/// `&mut` counts as a write to that page: [`get_mut`](Self::get_mut), `v[i] = ..`,
/// [`page_mut`](Self::page_mut), and [`iter_mut`](Self::iter_mut) for the pages it comes by. Read
/// through `get` and `iter` where reading is all that is done.
///
/// # The length of a page
///
/// The most items that fit 8 KiB, as a power of two, unless [`with_page_len`](Self::with_page_len)
/// says otherwise; one where an item is larger. Writes scattered over the whole vector want smaller
/// pages; but each page costs about 100 bytes live, and 32 in every snapshot.
///
/// # Items
///
/// `Snapshot + Clone + Send + Sync`, and without anything that changes behind `&`: no `Cell`, no
/// lock, no `Rc`, no other `PagedVec` (see [`Snapshot::FROZEN`]). It is checked when the program is
/// compiled:
///
/// ```compile_fail,E0080
/// use snapring::PagedVec;
///
/// let _ = PagedVec::<PagedVec<u32>>::new();
/// ```
///
/// ```
/// use snapring::PagedVec;
///
/// let _ = PagedVec::<Vec<u32>>::new();
/// ```
///
/// An `Arc` is archived once in each page that holds it, and comes back as one value in each.
///
/// A skipped field is not part of a page's content: two pages that differ in one alone may have the
/// same name.
///
/// # Example
///
/// ```
/// use snapring::PagedVec;
///
/// let mut cells: PagedVec<u64> = (0..100_000).collect();
/// let before = cells.clone(); // costs the table
/// cells[70_000] += 1; // copies one page
/// assert_eq!(before[70_000], 70_000);
/// assert_eq!(cells[70_000], 70_001);
/// assert_eq!(cells.iter().sum::<u64>(), before.iter().sum::<u64>() + 1);
/// ```
pub struct PagedVec<T> {
    pub(super) pages: Pages<T>,
}

impl<T: Snapshot + Clone + Send + Sync + 'static> PagedVec<T> {
    /// An empty vector with pages of the length that suits most. Allocates nothing.
    pub fn new() -> PagedVec<T> {
        PagedVec::with_page_len(page::default_len::<T>())
    }

    /// An empty vector with pages of so many items; more than `u32::MAX` count as that. Allocates
    /// nothing.
    ///
    /// # Panics
    ///
    /// Where `page_len` is 0.
    pub fn with_page_len(page_len: usize) -> PagedVec<T> {
        const {
            assert!(
                T::FROZEN,
                "an item of a PagedVec or PagedMap holds something that changes behind `&` (a Cell, \
                 a lock, an Rc, another PagedVec or PagedMap): pages are shared with captures and \
                 clones; keep that field beside it, or its items in a Vec"
            );
        }
        PagedVec { pages: Pages::new(page_len, T::PLAIN) }
    }

    /// How many items there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.pages.len() == 0
    }

    /// How many items a page has; the last may have fewer.
    #[inline]
    pub fn page_len(&self) -> usize {
        self.pages.page_len()
    }

    /// How many pages there are.
    #[inline]
    pub fn pages(&self) -> usize {
        self.pages.pages()
    }

    /// Item `i`; `None` past the end.
    #[inline]
    pub fn get(&self, i: usize) -> Option<&T> {
        self.pages.get(i)
    }

    /// Item `i`, to be written; `None` past the end. Its page counts as changed, and is copied
    /// first if a clone or a capture holds it.
    #[inline]
    pub fn get_mut(&mut self, i: usize) -> Option<&mut T> {
        self.pages.get_mut(i)
    }

    /// The first item.
    pub fn first(&self) -> Option<&T> {
        self.get(0)
    }

    /// The last item.
    pub fn last(&self) -> Option<&T> {
        self.get(self.len().checked_sub(1)?)
    }

    /// The last item, to be written; as [`get_mut`](Self::get_mut).
    pub fn last_mut(&mut self) -> Option<&mut T> {
        self.get_mut(self.len().checked_sub(1)?)
    }

    /// The items of page `p`.
    ///
    /// # Panics
    ///
    /// Where there is no page `p`.
    #[inline]
    pub fn page(&self, p: usize) -> &[T] {
        self.pages.page(p)
    }

    /// The items of page `p`, to be written; as [`get_mut`](Self::get_mut).
    ///
    /// # Panics
    ///
    /// Where there is no page `p`.
    #[inline]
    pub fn page_mut(&mut self, p: usize) -> &mut [T] {
        self.pages.page_mut(p)
    }

    /// Appends an item.
    #[inline]
    pub fn push(&mut self, item: T) {
        self.pages.push(item);
    }

    /// Takes the last item.
    pub fn pop(&mut self) -> Option<T> {
        self.pages.pop()
    }

    /// Drops all items but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.pages.truncate(len);
    }

    /// Drops all items.
    pub fn clear(&mut self) {
        self.pages.truncate(0);
    }

    /// Takes item `i` and puts the last one in its place.
    ///
    /// # Panics
    ///
    /// Where there is no item `i`.
    pub fn swap_remove(&mut self, i: usize) -> T {
        self.pages.swap_remove(i)
    }

    /// The items, in order.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter::new(&self.pages)
    }

    /// The items, in order, to be written. Pages count as changed as the iterator comes to them.
    pub fn iter_mut(&mut self) -> IterMut<'_, T> {
        IterMut::new(&mut self.pages)
    }

    /// The items in a vector of their own.
    pub fn to_vec(&self) -> Vec<T> {
        self.iter().cloned().collect()
    }
}

impl<T: Snapshot + Clone + Send + Sync + 'static> Extend<T> for PagedVec<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        let mut items = items.into_iter();
        loop {
            while !self.len().is_multiple_of(self.page_len()) {
                let Some(item) = items.next() else { return };
                self.push(item);
            }
            // A page that is in nobody's way should the iterator panic.
            let page: Vec<T> = items.by_ref().take(self.page_len()).collect();
            if page.is_empty() {
                return;
            }
            self.pages.push_page(page);
        }
    }
}

impl<T: Snapshot + Clone + Send + Sync + 'static> FromIterator<T> for PagedVec<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> PagedVec<T> {
        let mut vec = PagedVec::new();
        vec.extend(items);
        vec
    }
}

/// Moves the items into pages.
impl<T: Snapshot + Clone + Send + Sync + 'static> From<Vec<T>> for PagedVec<T> {
    fn from(items: Vec<T>) -> PagedVec<T> {
        items.into_iter().collect()
    }
}

/// Shares all pages with the original. Costs a pointer for every 128 pages and eight bytes a page;
/// what is written to after, by either, is copied then.
impl<T> Clone for PagedVec<T> {
    fn clone(&self) -> PagedVec<T> {
        PagedVec { pages: self.pages.clone() }
    }
}

impl<T: Snapshot + Clone + Send + Sync + 'static> Default for PagedVec<T> {
    fn default() -> PagedVec<T> {
        PagedVec::new()
    }
}

impl<T: Snapshot + Clone + Send + Sync + 'static> Index<usize> for PagedVec<T> {
    type Output = T;

    #[inline]
    fn index(&self, i: usize) -> &T {
        match self.pages.get(i) {
            Some(item) => item,
            None => past_the_end(i, self.len()),
        }
    }
}

impl<T: Snapshot + Clone + Send + Sync + 'static> IndexMut<usize> for PagedVec<T> {
    #[inline]
    fn index_mut(&mut self, i: usize) -> &mut T {
        self.pages.at_mut(i)
    }
}

impl<'a, T: Snapshot + Clone + Send + Sync + 'static> IntoIterator for &'a PagedVec<T> {
    type Item = &'a T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<'a, T: Snapshot + Clone + Send + Sync + 'static> IntoIterator for &'a mut PagedVec<T> {
    type Item = &'a mut T;
    type IntoIter = IterMut<'a, T>;

    fn into_iter(self) -> IterMut<'a, T> {
        self.iter_mut()
    }
}

impl<T: Snapshot + Clone + Send + Sync + 'static> IntoIterator for PagedVec<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter::new(self.pages)
    }
}

impl<T: fmt::Debug> fmt::Debug for PagedVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(Iter::new(&self.pages)).finish()
    }
}

/// Equal items in the same order, whatever the pages.
impl<T: PartialEq> PartialEq for PagedVec<T> {
    fn eq(&self, other: &PagedVec<T>) -> bool {
        self.pages.len() == other.pages.len() && Iter::new(&self.pages).eq(Iter::new(&other.pages))
    }
}

impl<T: Eq> Eq for PagedVec<T> {}

impl<T: PartialEq> PartialEq<[T]> for PagedVec<T> {
    fn eq(&self, other: &[T]) -> bool {
        self.pages.len() == other.len() && Iter::new(&self.pages).eq(other)
    }
}

impl<T: PartialEq> PartialEq<Vec<T>> for PagedVec<T> {
    fn eq(&self, other: &Vec<T>) -> bool {
        *self == **other
    }
}

/// As the items of a `Vec` are hashed.
impl<T: Hash> Hash for PagedVec<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.pages.len());
        for item in Iter::new(&self.pages) {
            item.hash(state);
        }
    }
}

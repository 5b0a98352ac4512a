//! [`Page`]: a run of items that vectors and captures share; and the [`Pool`] of those that nobody
//! needs any more.
//!
//! Knows neither stamps nor which page comes after which.

use std::{collections::VecDeque, mem::needs_drop, ptr, sync::Arc};

/// Items side by side. Written by its only holder alone.
pub(crate) type Page<T> = Arc<Vec<T>>;

/// Bytes of a page unless something else is asked for, at most.
const PAGE_BYTES: usize = 8 << 10;

/// Items of a page unless something else is asked for: the most that fit 8 KiB, as a power of two.
pub(crate) const fn default_len<T>() -> usize {
    let size = if size_of::<T>() == 0 { 1 } else { size_of::<T>() };
    let fit = PAGE_BYTES / size;
    if fit == 0 { 1 } else { 1 << fit.ilog2() }
}

/// How many of the oldest pages are looked at for one that nobody holds.
const TRIES: usize = 3;

/// Pages that were replaced by copies of their own. A capture may hold one a while longer; after
/// that its memory serves the next copy. Of items without a destructor alone: the others go when
/// their last holder goes, not when their memory is wanted.
pub(crate) struct Pool<T> {
    retired: VecDeque<Page<T>>,
    /// Items are their bytes: a page is copied as a whole.
    plain: bool,
}

impl<T> Pool<T> {
    /// An empty one. `plain` items are their bytes: those that are archived as they are in memory, and
    /// have no destructor.
    pub(crate) fn new(plain: bool) -> Pool<T> {
        Pool { retired: VecDeque::new(), plain: plain && !needs_drop::<T>() }
    }

    /// Another empty one, for items of the same type.
    pub(crate) fn another(&self) -> Pool<T> {
        Pool { retired: VecDeque::new(), plain: self.plain }
    }

    /// A page without items that nobody else holds, and room in it for one like this.
    fn take(&mut self, like: usize) -> Page<T> {
        for _ in 0..TRIES.min(self.retired.len()) {
            let Some(mut page) = self.retired.pop_front() else { break };
            if let Some(items) = Arc::get_mut(&mut page) {
                items.clear();
                items.reserve(like);
                return page;
            }
            self.retired.push_back(page);
        }
        Arc::new(Vec::with_capacity(like))
    }

    /// A page of the same items that nobody else holds.
    pub(crate) fn copy(&mut self, items: &Vec<T>) -> Page<T>
    where
        T: Clone,
    {
        let mut page = self.take(items.capacity());
        if let Some(copy) = Arc::get_mut(&mut page) {
            if self.plain {
                self::append(copy, items);
            } else {
                copy.extend_from_slice(items);
            }
        }
        page
    }

    /// Takes a page that its vector no longer has; keeps `most` of them.
    pub(crate) fn retire(&mut self, page: Page<T>, most: usize) {
        if needs_drop::<T>() || size_of::<T>() == 0 {
            return;
        }
        // The oldest goes: one that somebody holds for long would be in the way for ever.
        // Two at a time: so there get to be fewer where fewer are wanted.
        for _ in 0..2 {
            if self.retired.len() >= most {
                self.retired.pop_front();
            }
        }
        self.retired.push_back(page);
    }
}

/// Appends plain items: one copy.
fn append<T>(to: &mut Vec<T>, items: &[T]) {
    to.reserve(items.len());
    let end = to.len();
    // SAFETY: `end <= capacity`, of the same allocation.
    let at = unsafe { to.as_mut_ptr().add(end) };
    // SAFETY: so many items are in `items`, and there is room for as many (`reserve`); two vectors do
    // not overlap. Plain items without a destructor are their bytes: the copies are items, too
    // (`Snapshot::PLAIN`: every valid value has the bytes of a valid archived one, and back).
    unsafe { ptr::copy_nonoverlapping(items.as_ptr(), at, items.len()) };
    // SAFETY: within the capacity, and initialised, by the copy.
    unsafe { to.set_len(end + items.len()) };
}

//! [`Units`]: the server's units by their numbers. The only file here that follows the server's
//! pointers to them; it knows pages, and nothing of what units do.

use std::{
    ops::{Index, IndexMut},
    slice,
};

use crate::{interface::Pages, world::Unit};

/// The units, read and written like a slice of them; a page counts as written when a unit in it is.
pub(crate) struct Units<'a> {
    pages: &'a Pages,
}

impl<'a> Units<'a> {
    /// The units behind these functions.
    ///
    /// # Safety
    ///
    /// The functions of `pages` keep their contract while this lives, and nobody else calls them.
    pub(crate) unsafe fn new(pages: &'a Pages) -> Units<'a> {
        Units { pages }
    }

    pub(crate) fn len(&self) -> usize {
        self.pages.len
    }

    /// Which page unit `at` is in, where in it, and how many units that page has.
    #[track_caller]
    fn place(&self, at: usize) -> (usize, usize, usize) {
        let (len, page_len) = (self.pages.len, self.pages.page_len);
        assert!(at < len, "index out of bounds: the len is {len} but the index is {at}");
        let first = at - at % page_len;
        (at / page_len, at - first, page_len.min(len - first))
    }
}

impl Index<usize> for Units<'_> {
    type Output = Unit;

    #[track_caller]
    fn index(&self, at: usize) -> &Unit {
        let (page, at, count) = self.place(at);
        // SAFETY: `new`: the function keeps its contract; no page is being written, which would
        // borrow this exclusively.
        let first = unsafe { (self.pages.page)(self.pages.host, page) };
        // SAFETY: the page is there, since unit `at` is, and has so many units; the reference borrows
        // this, so that no page is written while it lives.
        let units = unsafe { slice::from_raw_parts(first, count) };
        &units[at]
    }
}

impl IndexMut<usize> for Units<'_> {
    #[track_caller]
    fn index_mut(&mut self, at: usize) -> &mut Unit {
        let (page, at, count) = self.place(at);
        // SAFETY: `new`: the function keeps its contract; no page is in use, which would borrow this.
        let first = unsafe { (self.pages.page_mut)(self.pages.host, page) };
        // SAFETY: the page is there, since unit `at` is, and has so many units; the reference borrows
        // this exclusively, so that nobody asks for a page while it lives.
        let units = unsafe { slice::from_raw_parts_mut(first, count) };
        &mut units[at]
    }
}

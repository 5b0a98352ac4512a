//! [`Pages`]: the items of a vector by their number, in one hop; and which pages may be written.
//!
//! The only file here with pointers to items. Knows nothing of archives.
//!
//! Invariants
//!
//! - **G1** There are `len / page_len` pages, rounded up; all hold `page_len` items, but the last
//!   the rest, and none is empty.
//! - **G2** `bases[p]` is where the items of page `p` lie, as its vector says, less the `p *
//!   page_len` items before them: item `i` is `i` items from there. They lie there as long as the
//!   table holds the page and nobody pushes to it or takes memory from it, which is done here alone.
//! - **G3** If `open` is true, then where `own[p]` is not null, it is `bases[p]`, nobody else holds
//!   page `p` or its chunk, and nobody has seen their stamps.
//! - **G4** `gate` is 0, or `open` is true and it holds `len` and the power of two that `page_len` is.
//!
//! Captures and clones take what they hold through `&self` and close both: `own` is worth nothing
//! after, and the first write to each page looks whether it is shared. A write to a page that is our
//! own asks one number and one pointer: few steps let many writes wait for memory at once.

use std::{
    marker::PhantomData,
    mem,
    ops::Range,
    ptr::{self, NonNull},
    slice,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::{
    page::{Page, Pool},
    stamp::Stamp,
    table::{Captured, Entry, Gone, Table},
};

/// Items by number, in pages.
pub(crate) struct Pages<T> {
    table: Table<T>,
    pool: Pool<T>,
    len: usize,
    page_len: usize,
    /// `page_len` is two to this power; where it is none, `u32::MAX`.
    shift: u32,
    bases: Vec<*mut T>,
    /// The bases of pages that were written since the last capture or clone.
    own: Vec<*mut T>,
    open: AtomicBool,
    gate: AtomicUsize,
    /// Pages copied since `open` was set.
    copies: u64,
    /// Before that; of the most, half as many each time.
    copied: u64,
}

/// The low bits of a gate, which hold the power of two.
const POWER: u32 = 6;

// SAFETY: the pointers are to items of the pages that the table holds (G2). With the value their
// owners may change threads, which asks what `Arc<Vec<T>>` asks: `Send + Sync`, as another vector
// or a capture may hold the same page.
unsafe impl<T: Send + Sync> Send for Pages<T> {}

// SAFETY: through `&self` items are only read, and pages cloned, as through `&Arc<Vec<T>>`;
// `open` and `gate` are atomic.
unsafe impl<T: Send + Sync> Sync for Pages<T> {}

impl<T> Pages<T> {
    /// None yet. Panics where a page would have no items.
    pub(crate) fn new(page_len: usize, plain: bool) -> Pages<T> {
        assert!(page_len > 0, "a page has at least one item");
        let page_len = page_len.min(u32::MAX as usize);
        let shift = if page_len.is_power_of_two() { page_len.ilog2() } else { u32::MAX };
        Pages {
            table: Table::new(),
            pool: Pool::new(plain),
            len: 0,
            page_len,
            shift,
            bases: Vec::new(),
            own: Vec::new(),
            open: AtomicBool::new(false),
            gate: AtomicUsize::new(0),
            copies: 0,
            copied: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn page_len(&self) -> usize {
        self.page_len
    }

    pub(crate) fn pages(&self) -> usize {
        self.bases.len()
    }

    /// The page of item `i`.
    #[inline]
    fn page_of(&self, i: usize) -> usize {
        if self.shift < usize::BITS { i >> self.shift } else { i / self.page_len }
    }

    /// How many items page `p` has.
    #[inline]
    pub(crate) fn count(&self, p: usize) -> usize {
        self.page_len.min(self.len - p * self.page_len)
    }

    #[inline]
    pub(crate) fn get(&self, i: usize) -> Option<&T> {
        if i >= self.len {
            return None;
        }
        // SAFETY: G1: item `i < len` is in a page that there is.
        let base = unsafe { *self.bases.get_unchecked(self.page_of(i)) };
        // SAFETY: G1 and G2: item `i` lies there; `&self` lives as long as the reference, and nobody
        // writes to items but through `&mut self` and, by G3, where nobody else holds the page.
        Some(unsafe { &*base.wrapping_add(i) })
    }

    /// The base of item `i`'s page, if that is our own; null otherwise, and past the end.
    #[inline]
    fn own_base(&mut self, i: usize) -> *mut T {
        let gate = *self.gate.get_mut();
        if i >= gate >> POWER {
            return ptr::null_mut();
        }
        let p = i >> (gate & ((1 << POWER) - 1));
        // SAFETY: G4: `i` is less than `len`, and `p` its page; G1: there is one.
        unsafe { *self.own.get_unchecked(p) }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, i: usize) -> Option<&mut T>
    where
        T: Clone,
    {
        let base = self.own_base(i);
        if base.is_null() {
            return if i < self.len { Some(self.first_at(i)) } else { None };
        }
        // SAFETY: G2: item `i` lies there; G3: nobody else holds the page, and `&mut self` is
        // borrowed as long as the reference lives.
        Some(unsafe { &mut *base.wrapping_add(i) })
    }

    /// As [`get_mut`](Self::get_mut); panics past the end.
    #[inline]
    #[track_caller]
    pub(crate) fn at_mut(&mut self, i: usize) -> &mut T
    where
        T: Clone,
    {
        let base = self.own_base(i);
        if base.is_null() {
            return self.first_at(i);
        }
        // SAFETY: as in `get_mut`.
        unsafe { &mut *base.wrapping_add(i) }
    }

    /// Item `i`, whose page is not our own yet. Panics past the end.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn first_at(&mut self, i: usize) -> &mut T
    where
        T: Clone,
    {
        if i >= self.len {
            past_the_end(i, self.len);
        }
        let p = self.page_of(i);
        self.first_of(p);
        // SAFETY: as in `get_mut`, now that the page is our own.
        unsafe { &mut *self.bases[p].wrapping_add(i) }
    }

    /// The items of page `p`. Panics where there is none.
    #[inline]
    pub(crate) fn page(&self, p: usize) -> &[T] {
        let first = self.bases[p].wrapping_add(p * self.page_len);
        // SAFETY: G1 and G2: so many items lie there; not written meanwhile, as in `get`.
        unsafe { slice::from_raw_parts(first, self.count(p)) }
    }

    /// The items of page `p`, to be written. Panics where there is none.
    #[inline]
    pub(crate) fn page_mut(&mut self, p: usize) -> &mut [T]
    where
        T: Clone,
    {
        let first = self.first_of(p);
        // SAFETY: G1 and G2: so many items lie there; G3: ours alone, as in `get_mut`.
        unsafe { slice::from_raw_parts_mut(first, self.count(p)) }
    }

    /// Where the items of page `p` lie, once they may be written. Panics where there are none.
    #[inline]
    fn first_of(&mut self, p: usize) -> *mut T
    where
        T: Clone,
    {
        if !*self.open.get_mut() || self.own[p].is_null() {
            self.make_own(p);
        }
        self.bases[p].wrapping_add(p * self.page_len)
    }

    /// The first write to page `p` since it was last seen by somebody else: a name of its own and,
    /// where it is shared, memory of its own. Where `T::clone` panics nothing has changed.
    #[cold]
    #[inline(never)]
    fn make_own(&mut self, p: usize)
    where
        T: Clone,
    {
        self.begin();
        let entry = self.table.entry_mut(p);
        let mut old = None;
        if Arc::get_mut(&mut entry.page).is_none() {
            let copy = self.pool.copy(&entry.page);
            old = Some(mem::replace(&mut entry.page, copy));
            self.copies += 1;
        }
        entry.stamp = Stamp::next();
        self.refresh(p);
        self.own[p] = self.bases[p];
        // Last: if nobody else holds it by now, its items are dropped.
        if let Some(old) = old {
            // As many as a capture has had copied, or the one before.
            self.pool.retire(old, self.copies.max(self.copied) as usize + 16);
        }
    }

    /// Forgets which pages are our own, if others have taken hold of pages since.
    fn begin(&mut self) {
        if !*self.open.get_mut() {
            self.own.fill(ptr::null_mut());
            *self.open.get_mut() = true;
            self.set_len(self.len);
            self.copied = self.copies.max(self.copied / 2);
            self.copies = 0;
        }
    }

    /// Sets the length; after [`begin`](Self::begin).
    fn set_len(&mut self, len: usize) {
        self.len = len;
        let fits = self.shift < usize::BITS && len <= usize::MAX >> POWER;
        *self.gate.get_mut() = if fits { len << POWER | self.shift as usize } else { 0 };
    }

    /// `bases[p]`, after something was done to the page's vector (G2).
    fn refresh(&mut self, p: usize) {
        let first = match self.table.alone_mut(p) {
            Some(items) => items.as_mut_ptr(),
            // Never written through: the page is not our own.
            None => self.table.entry(p).page.as_ptr().cast_mut(),
        };
        self.bases[p] = first.wrapping_sub(p * self.page_len);
    }

    /// The vector of a page that is our own.
    ///
    /// # Safety
    ///
    /// `open` is true and `own[p]` is not null.
    unsafe fn own_items(&mut self, p: usize) -> &mut Vec<T> {
        debug_assert!(*self.open.get_mut() && !self.own[p].is_null(), "G3: not an own page");
        // SAFETY: G3: nobody else holds the page or its chunk, so nobody has another reference to the
        // vector while `self` is borrowed; the table holds it, and the pointer is that of its `Arc`,
        // good for writing.
        unsafe { &mut *self.table.items(p) }
    }

    /// One item more.
    pub(crate) fn push(&mut self, item: T)
    where
        T: Clone,
    {
        let p = self.page_of(self.len);
        if p == self.pages() {
            self.push_page(self.fresh(item));
            return;
        }
        self.first_of(p);
        // SAFETY: `first_of` has made the page our own.
        let items = unsafe { self.own_items(p) };
        items.push(item);
        self.bases[p] = items.as_mut_ptr().wrapping_sub(p * self.page_len);
        self.own[p] = self.bases[p];
        self.set_len(self.len + 1);
    }

    /// A page with one item. The first of a vector grows as vectors do; the others are expected to
    /// be filled.
    fn fresh(&self, item: T) -> Vec<T> {
        /// Of a page: what is reserved for items that may not come.
        const AHEAD: usize = 64 << 10;
        let most = (AHEAD / size_of::<T>().max(1)).clamp(1, self.page_len);
        let mut items = Vec::with_capacity(if self.len == 0 { 1 } else { most });
        items.push(item);
        items
    }

    /// One page more, of items that nobody has seen. All pages so far are full; this one is not
    /// empty.
    pub(crate) fn push_page(&mut self, items: Vec<T>) {
        let p = self.pages();
        self.put(p, items, Stamp::next());
        self.own[p] = self.bases[p];
    }

    /// Makes page `p`, which there is or which is the next, these items under this name, and the
    /// vector as long as that makes it. The last page may have any number of items, the others
    /// keep theirs. Others may know the name: the next write gives it up.
    pub(crate) fn put(&mut self, p: usize, items: Vec<T>, stamp: Stamp) {
        let (pages, start) = (self.pages(), p * self.page_len);
        assert!(!items.is_empty() && items.len() <= self.page_len, "G1: the size of a page");
        if p == pages {
            assert!(self.len == start, "G1: a page after one that is not full");
        } else {
            assert!(p + 1 == pages || items.len() == self.page_len, "G1: the size of a page");
        }
        self.begin();
        let (count, page) = (items.len(), Page::new(items));
        let mut old = None;
        if p == pages {
            // Everything that may refuse memory is done before anything changes.
            self.bases.reserve(1);
            self.own.reserve(1);
            self.table.push(Entry { stamp, page });
            self.bases.push(ptr::null_mut());
            self.own.push(ptr::null_mut());
        } else {
            let entry = self.table.entry_mut(p);
            entry.stamp = stamp;
            old = Some(mem::replace(&mut entry.page, page));
        }
        self.refresh(p);
        self.own[p] = ptr::null_mut();
        if p + 1 >= pages {
            self.set_len(start + count);
        }
        drop(old);
    }

    /// Whether page `p` can be written without a copy. A chunk of which others hold a share is
    /// copied for that.
    pub(crate) fn is_alone(&mut self, p: usize) -> bool {
        Arc::get_mut(&mut self.table.entry_mut(p).page).is_some()
    }

    /// The name of page `p`'s content.
    pub(crate) fn stamp(&self, p: usize) -> Stamp {
        self.table.entry(p).stamp
    }

    /// Gives the content of page `p` a name that others know. It is not written again under it.
    pub(crate) fn name(&mut self, p: usize, stamp: Stamp) {
        self.table.entry_mut(p).stamp = stamp;
        self.own[p] = ptr::null_mut();
    }

    /// Takes the last item.
    pub(crate) fn pop(&mut self) -> Option<T>
    where
        T: Clone,
    {
        let p = self.pages().checked_sub(1)?;
        self.first_of(p);
        // SAFETY: `first_of` has made the page our own.
        let items = unsafe { self.own_items(p) };
        let item = items.pop();
        let emptied = items.is_empty();
        self.set_len(self.len - 1);
        if emptied {
            // The page has no items left to drop.
            drop(self.cut(p));
        }
        item
    }

    /// The first `len` items stay. Where an item's `drop` panics, they do as well.
    pub(crate) fn truncate(&mut self, len: usize)
    where
        T: Clone,
    {
        if len >= self.len {
            return;
        }
        let pages = len.div_ceil(self.page_len);
        let rest = len - len / self.page_len * self.page_len;
        if rest > 0 {
            self.first_of(pages - 1);
        }
        let gone = self.cut(pages);
        if rest > 0 {
            self.set_len(len);
            // SAFETY: `first_of` has made the page our own; the cut has left it.
            let items = unsafe { self.own_items(pages - 1) };
            items.truncate(rest);
        }
        drop(gone);
    }

    /// The first `pages` pages stay; the others are the caller's to drop.
    pub(crate) fn cut(&mut self, pages: usize) -> Gone<T> {
        self.begin();
        self.set_len(self.len.min(pages * self.page_len));
        self.bases.truncate(pages);
        self.own.truncate(pages);
        self.table.cut(pages)
    }

    /// Takes item `i` and puts the last one there. Panics where there is no item `i`.
    pub(crate) fn swap_remove(&mut self, i: usize) -> T
    where
        T: Clone,
    {
        let len = self.len;
        assert!(i < len, "no item {i} to remove: there are {len}");
        // Before anything moves, as `pop` does with its page: a `clone` that panics changes nothing.
        self.first_of(self.page_of(i));
        match self.pop() {
            Some(last) if i == len - 1 => last,
            Some(last) => match self.get_mut(i) {
                Some(item) => mem::replace(item, last),
                None => last,
            },
            None => unreachable!("there are {len} items"),
        }
    }

    /// The pages as they are, for a capture.
    pub(crate) fn capture(&self) -> Captured<T> {
        // Relaxed: as in `share`.
        let current = self.open.load(Ordering::Relaxed);
        let copies = if current { self.copies } else { 0 };
        let bytes = copies * (self.page_len * size_of::<T>()) as u64;
        Captured { copies: (copies, bytes), table: self.share() }
    }

    /// The table as it is, for as long as the taker wants it.
    pub(crate) fn share(&self) -> Table<T> {
        // Relaxed, both: read through `&mut self`, which comes after this call whatever thread it
        // is made on.
        self.open.store(false, Ordering::Relaxed);
        self.gate.store(0, Ordering::Relaxed);
        self.table.clone()
    }

    /// Hands out the pages to be written, each once.
    pub(crate) fn hand_out(&mut self) -> PagesMut<'_, T> {
        let rest = 0..self.pages();
        PagesMut { pages: NonNull::from(self), rest, _borrow: PhantomData }
    }

    /// Everything, page by page.
    pub(crate) fn into_table(self) -> Table<T> {
        self.table
    }
}

#[cold]
#[track_caller]
pub(super) fn past_the_end(i: usize, len: usize) -> ! {
    panic!("index out of bounds: the len is {len} but the index is {i}")
}

/// Shares all pages; costs the tables.
impl<T> Clone for Pages<T> {
    fn clone(&self) -> Pages<T> {
        Pages {
            table: self.share(),
            pool: self.pool.another(),
            len: self.len,
            page_len: self.page_len,
            shift: self.shift,
            bases: self.bases.clone(),
            own: vec![ptr::null_mut(); self.own.len()],
            open: AtomicBool::new(false),
            gate: AtomicUsize::new(0),
            copies: 0,
            copied: 0,
        }
    }
}

/// The pages of a vector to be written, one after the other, from either end. Each becomes the
/// vector's own when it is handed out, not before.
pub(crate) struct PagesMut<'a, T> {
    pages: NonNull<Pages<T>>,
    rest: Range<usize>,
    _borrow: PhantomData<&'a mut Pages<T>>,
}

// SAFETY: it is a `&mut Pages<T>`, but for the pages handed out.
unsafe impl<T: Send + Sync> Send for PagesMut<'_, T> {}

// SAFETY: as above; nothing can be done through `&self` but to look at numbers.
unsafe impl<T: Send + Sync> Sync for PagesMut<'_, T> {}

impl<'a, T: Clone> PagesMut<'a, T> {
    #[inline]
    fn hand(&mut self, p: usize) -> &'a mut [T] {
        // SAFETY: exclusively borrowed for `'a`, and nobody else makes a reference of it: `rest` is
        // private, and items are reached by their own pointers (G2).
        let pages = unsafe { self.pages.as_mut() };
        let (first, count) = (pages.first_of(p), pages.count(p));
        // SAFETY: as in `page_mut`. Each page is handed out once, so no two slices meet; to make
        // another page our own touches neither this page's items nor the vector that holds them.
        unsafe { slice::from_raw_parts_mut(first, count) }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Option<&'a mut [T]> {
        let p = self.rest.next()?;
        Some(self.hand(p))
    }

    #[inline]
    pub(crate) fn next_back(&mut self) -> Option<&'a mut [T]> {
        let p = self.rest.next_back()?;
        Some(self.hand(p))
    }
}

impl<T> PagesMut<'_, T> {
    /// How many items have not been handed out.
    pub(crate) fn items_left(&self) -> usize {
        // SAFETY: as in `hand`; this reads two numbers.
        let pages = unsafe { self.pages.as_ref() };
        pages.items_in(&self.rest)
    }
}

impl<T> Pages<T> {
    /// How many items are in a range of pages.
    pub(crate) fn items_in(&self, pages: &Range<usize>) -> usize {
        if pages.is_empty() {
            return 0;
        }
        self.len.min(pages.end * self.page_len) - pages.start * self.page_len
    }
}

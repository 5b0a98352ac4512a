//! A simulated file: the bytes that memory holds, page by page, those that it held when each page was
//! last clean, and those that the disk holds.
//!
//! Knows pages. When they are written out, and what fails, is for `sim.rs`.

use std::{cell::RefCell, io, sync::Arc};

use memmap2::{MmapMut, MmapRaw};

use crate::sim::PAGE;

/// A page's bytes. What is not changed is shared among the copies of a disk.
pub(crate) type Page = Arc<[u8; PAGE]>;

/// A file. Its length may end inside its last page.
pub(crate) struct File {
    /// Mapped memory, with the cache's bytes; as long as the file at least.
    pub(crate) map: Option<Arc<MmapRaw>>,
    pub(crate) len: u64,
    pub(crate) disk_len: u64,
    pub(crate) disk: Vec<Page>,
    /// What memory held when each page was last clean.
    pub(crate) clean: Vec<Page>,
    /// Pages stored anew without another content.
    pub(crate) redirtied: Vec<bool>,
}

/// A page of zeros.
fn blank() -> Page {
    thread_local! {
        static BLANK: Page = Arc::new([0; PAGE]);
    }
    BLANK.with(Arc::clone)
}

thread_local! {
    /// Mappings that nobody uses any more: making one costs more than a whole run on it.
    static SPARE: RefCell<Vec<Arc<MmapRaw>>> = const { RefCell::new(Vec::new()) };
}

/// The shortest mapping that is made.
const SPAN: usize = 256 << 10;

impl File {
    pub(crate) fn new() -> File {
        File {
            map: None,
            len: 0,
            disk_len: 0,
            disk: Vec::new(),
            clean: Vec::new(),
            redirtied: Vec::new(),
        }
    }

    /// The same file without its memory.
    pub(crate) fn copy(&self) -> File {
        File {
            map: None,
            len: self.len,
            disk_len: self.disk_len,
            disk: self.disk.clone(),
            clean: self.clean.clone(),
            redirtied: vec![false; self.redirtied.len()],
        }
    }

    /// Pages of the file.
    pub(crate) fn pages(&self) -> usize {
        (self.len as usize).div_ceil(PAGE)
    }

    /// The file is so long: what is new is zero.
    pub(crate) fn set_len(&mut self, len: u64) {
        self.len = len;
        let pages = self.pages();
        self.disk.resize_with(pages, blank);
        self.clean.resize_with(pages, blank);
        self.redirtied.resize(pages, false);
    }

    /// The cache's bytes, as long as the file.
    pub(crate) fn memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.fetch(0, &mut bytes);
        bytes
    }

    /// Bytes of the cache; what is not mapped stays as it is.
    pub(crate) fn fetch(&self, at: usize, bytes: &mut [u8]) {
        let Some(map) = &self.map else { return };
        let len = bytes.len().min(map.len().saturating_sub(at));
        let from = map.as_ptr().wrapping_add(at);
        // SAFETY: `len` bytes are mapped from there, and as many are in `bytes`; a simulation has
        // one thread, which is here.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), len) };
    }

    /// A page of the cache, and where it lies in the file.
    pub(crate) fn page(&self, page: usize) -> ([u8; PAGE], std::ops::Range<usize>) {
        let mut bytes = [0; PAGE];
        let range = page * PAGE..((page + 1) * PAGE).min(self.len as usize);
        self.fetch(range.start, &mut bytes[..range.len()]);
        (bytes, range)
    }

    /// Whether a page of the cache is this.
    pub(crate) fn holds(&self, page: usize, bytes: &[u8; PAGE]) -> bool {
        let whole = (page + 1) * PAGE <= self.len as usize;
        let Some(map) = self.map.as_ref().filter(|map| whole && map.len() >= (page + 1) * PAGE)
        else {
            return self.page(page).0 == *bytes;
        };
        let at = map.as_ptr().wrapping_add(page * PAGE);
        // SAFETY: as many bytes are mapped from there, and nobody writes meanwhile: one thread, as
        // above.
        unsafe { std::slice::from_raw_parts(at, PAGE) == bytes }
    }

    /// Makes the cache what another file's is.
    pub(crate) fn take_memory(&mut self, from: &File) {
        let Some(from) = &from.map else { return };
        let len = self.len as usize;
        if self.grow_map(len).is_err() {
            return;
        }
        let Some(to) = &self.map else { return };
        assert!(from.len() >= len && to.len() >= len, "mappings are as long as their files");
        // SAFETY: both are as long as that, as has just been asserted, and are two mappings; one
        // thread, as above.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), len) };
    }

    /// Makes the cache what the disk has.
    pub(crate) fn take_disk(&mut self) {
        for page in 0..self.pages() {
            let bytes = self.disk[page].clone();
            self.store(&*bytes, page * PAGE);
        }
    }

    pub(crate) fn store(&mut self, bytes: &[u8], at: usize) {
        let span = self.map.as_ref().map_or(0, |map| map.len());
        if span < at + bytes.len()
            && self.grow_map((at + bytes.len()).max(self.len as usize)).is_err()
        {
            return;
        }
        if let Some(map) = &self.map {
            let to = map.as_mut_ptr().wrapping_add(at);
            // SAFETY: the map is long enough, as has just been seen to; one thread, as above.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        }
    }

    /// A mapping of `span` bytes at least. A longer one is another one: the engine asks for its
    /// whole span before it stores anything.
    pub(crate) fn grow_map(&mut self, span: usize) -> io::Result<()> {
        if self.map.as_ref().is_some_and(|map| map.len() >= span) {
            return Ok(());
        }
        let spare = SPARE.with_borrow_mut(|spare| {
            let fits = spare.iter().position(|map| map.len() >= span);
            fits.map(|at| spare.swap_remove(at))
        });
        let new = match spare {
            Some(map) => map,
            None => {
                let span = span.max(SPAN).next_power_of_two();
                Arc::new(MmapRaw::from(MmapMut::map_anon(span)?))
            }
        };
        let memory = self.map.is_some().then(|| self.memory());
        self.map = Some(new);
        if let Some(memory) = memory {
            self.store(&memory, 0);
        }
        Ok(())
    }

    /// Fills bytes of the cache with zeros.
    pub(crate) fn clear(&mut self, bytes: std::ops::Range<usize>) {
        for page in bytes.start / PAGE..bytes.end.div_ceil(PAGE) {
            let from = bytes.start.max(page * PAGE);
            let to = bytes.end.min((page + 1) * PAGE);
            self.store(&[0; PAGE][..to - from], from);
        }
    }

    /// The dirty pages of these.
    pub(crate) fn dirty(&self, pages: std::ops::Range<usize>) -> Vec<usize> {
        let differs = |page: &usize| {
            self.redirtied.get(*page).copied().unwrap_or(false)
                || self.clean.get(*page).is_none_or(|clean| !self.holds(*page, clean))
        };
        (pages.start..pages.end.min(self.pages())).filter(differs).collect()
    }

    /// The page as it is now is on the disk.
    pub(crate) fn write_out(&mut self, page: usize) {
        self.mark_clean(page);
        if let (Some(disk), Some(clean)) = (self.disk.get_mut(page), self.clean.get(page)) {
            disk.clone_from(clean);
        }
    }

    /// The page counts as written out.
    pub(crate) fn mark_clean(&mut self, page: usize) {
        let (bytes, _) = self.page(page);
        if let Some(clean) = self.clean.get_mut(page) {
            *clean = Arc::new(bytes);
        }
        if let Some(redirtied) = self.redirtied.get_mut(page) {
            *redirtied = false;
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some(map) = self.map.take().filter(|map| Arc::strong_count(map) == 1) {
            // A thread that is ending keeps none.
            _ = SPARE.try_with(|spare| {
                let mut spare = spare.borrow_mut();
                if spare.len() < 32 {
                    spare.push(map);
                }
            });
        }
    }
}

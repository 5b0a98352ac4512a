#![forbid(unsafe_code)]
//! [`Table`]: which pages there are, in order, and the stamps of their contents.
//!
//! Two levels: chunks of pages, each shared as a whole, so that a copy of the table of a large
//! vector is short and two tables are compared by chunks first. Knows nothing of who has written
//! what; a chunk that may change is given a new stamp.

use std::{ops::Range, sync::Arc};

use super::{page::Page, stamp::Stamp};
use crate::{
    session::{Deferred, Halt, Session},
    snapshot::Snapshot,
};

/// Pages of a chunk; few where it is tested, so that there are several.
pub(crate) const CHUNK: usize = if cfg!(test) { 4 } else { 128 };

/// One page and the name of its content.
pub(crate) struct Entry<T> {
    pub(crate) stamp: Stamp,
    pub(crate) page: Page<T>,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Entry<T> {
        Entry { stamp: self.stamp, page: Arc::clone(&self.page) }
    }
}

/// Up to [`CHUNK`] pages; equal stamps, equal pages.
pub(crate) struct Chunk<T> {
    stamp: Stamp,
    entries: Vec<Entry<T>>,
}

impl<T> Clone for Chunk<T> {
    fn clone(&self) -> Chunk<T> {
        Chunk { stamp: self.stamp, entries: self.entries.clone() }
    }
}

/// The pages of one vector, in order.
pub(crate) struct Table<T> {
    /// The list is shared as a whole, too: what takes hold of all pages takes one count, and the first
    /// write after that copies the list.
    chunks: Arc<Vec<Arc<Chunk<T>>>>,
    pages: usize,
}

/// A table as a capture saw it.
pub(crate) struct Captured<T> {
    pub(crate) table: Table<T>,
    /// Pages copied since the capture before, and their bytes.
    pub(crate) copies: (u64, u64),
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Table<T> {
        Table { chunks: Arc::clone(&self.chunks), pages: self.pages }
    }
}

/// What was cut off a table, for its owner to drop when all is in order.
pub(crate) struct Gone<T> {
    _chunks: Vec<Arc<Chunk<T>>>,
    _entries: Vec<Entry<T>>,
}

impl<T> Table<T> {
    pub(crate) fn new() -> Table<T> {
        Table { chunks: Arc::new(Vec::new()), pages: 0 }
    }

    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// The name of page `p`'s content.
    pub(crate) fn stamp(&self, p: usize) -> Stamp {
        self.entry(p).stamp
    }

    /// The pages of page `p`'s chunk, and the chunk's name.
    pub(crate) fn chunk(&self, p: usize) -> (Range<usize>, Stamp) {
        let first = p - p % CHUNK;
        (first..self.pages.min(first + CHUNK), self.chunks[p / CHUNK].stamp)
    }

    /// Page `p`. Panics where there is none.
    pub(crate) fn entry(&self, p: usize) -> &Entry<T> {
        &self.chunks[p / CHUNK].entries[p % CHUNK]
    }

    /// Page `p`, in a chunk that is this table's alone, under a new name.
    pub(crate) fn entry_mut(&mut self, p: usize) -> &mut Entry<T> {
        let chunk = Arc::make_mut(&mut Arc::make_mut(&mut self.chunks)[p / CHUNK]);
        chunk.stamp = Stamp::next();
        &mut chunk.entries[p % CHUNK]
    }

    /// Page `p`, if nobody else holds it or its chunk.
    pub(crate) fn alone_mut(&mut self, p: usize) -> Option<&mut Vec<T>> {
        let chunk = Arc::get_mut(&mut Arc::get_mut(&mut self.chunks)?[p / CHUNK])?;
        Arc::get_mut(&mut chunk.entries[p % CHUNK].page)
    }

    /// Where page `p` has its items in a vector; to be written by whoever knows that nobody else
    /// holds it.
    #[inline]
    pub(crate) fn items(&self, p: usize) -> *mut Vec<T> {
        Arc::as_ptr(&self.entry(p).page).cast_mut()
    }

    /// One page more.
    pub(crate) fn push(&mut self, entry: Entry<T>) {
        let chunks = Arc::make_mut(&mut self.chunks);
        if self.pages.is_multiple_of(CHUNK) {
            chunks.push(Arc::new(Chunk { stamp: Stamp::next(), entries: vec![entry] }));
        } else {
            let chunk = Arc::make_mut(&mut chunks[self.pages / CHUNK]);
            chunk.stamp = Stamp::next();
            chunk.entries.push(entry);
        }
        self.pages += 1;
    }

    /// The first `pages` pages stay.
    pub(crate) fn cut(&mut self, pages: usize) -> Gone<T> {
        debug_assert!(pages <= self.pages, "a cut takes pages away");
        let all = Arc::make_mut(&mut self.chunks);
        let chunks = all.split_off(pages.div_ceil(CHUNK));
        let mut entries = Vec::new();
        if let Some(last) = all.last_mut() {
            let stay = pages - (pages - 1) / CHUNK * CHUNK;
            if stay < last.entries.len() {
                let chunk = Arc::make_mut(last);
                chunk.stamp = Stamp::next();
                entries = chunk.entries.split_off(stay);
            }
        }
        self.pages = pages;
        Gone { _chunks: chunks, _entries: entries }
    }

    /// All pages, in order.
    pub(crate) fn into_pages(self) -> impl Iterator<Item = Page<T>> {
        let entries =
            |chunk| Arc::try_unwrap(chunk).unwrap_or_else(|c: Arc<Chunk<T>>| (*c).clone());
        let chunks = Arc::unwrap_or_clone(self.chunks);
        chunks.into_iter().flat_map(move |chunk| entries(chunk).entries).map(|e| e.page)
    }
}

impl<T: Snapshot + Send + Sync> Deferred for Captured<T> {
    fn pages(&self) -> usize {
        self.table.pages()
    }

    fn stamp(&self, page: usize) -> Stamp {
        self.table.stamp(page)
    }

    fn chunk(&self, page: usize) -> (Range<usize>, Stamp) {
        self.table.chunk(page)
    }

    fn copies(&self) -> (u64, u64) {
        self.copies
    }

    fn archive(&self, page: usize, s: &mut Session) -> Result<(), Halt> {
        s.slice(&self.table.entry(page).page).map(drop)
    }
}

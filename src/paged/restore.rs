//! [`Snapshot`] for [`PagedVec`]: out, each page is left for after the pause; back, the pages whose
//! stamps differ.

use std::cmp::Ordering;

use rkyv::Place;

use super::{
    archived::{ArchivedPagedVec, PagedResolver},
    vec::PagedVec,
};
use crate::{
    error::SaveError,
    impls::sequence::{
        adopt_in_order, canonical_runs, cmp_archived_runs, countable, order_by_id,
        restore_in_place, run_key, thaw_vec,
    },
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
};

// SAFETY: all fields of the archived form are written, and between them is nothing: three words
// after a relative pointer of 32 bits, then 64 bits (asserted below). PLAIN is not claimed.
unsafe impl<T: Snapshot + Clone + Send + Sync + 'static> Snapshot for PagedVec<T> {
    type Archived = ArchivedPagedVec<T::Archived>;
    type Resolver = PagedResolver;
    /// Captures are counted behind `&`; and a page of paged vectors could not be shared.
    const FROZEN: bool = false;

    fn archive(&self, s: &mut Session) -> Result<PagedResolver, Halt> {
        let (len, pages) = (self.len(), self.pages());
        let Ok(pages) = u32::try_from(pages) else {
            let (bytes, max) = (pages as u64, u32::MAX.into());
            return Err(s.halt(SaveError::TooLarge { bytes, max }));
        };
        s.count::<T::Archived>(self.page_len().min(len))?;
        let refs = s.defer(Box::new(self.pages.capture()))?;
        // `with_page_len` made sure that it fits.
        Ok(PagedResolver { refs, pages, page_len: self.page_len() as u32, len: len as u64 })
    }

    fn resolve(&self, r: PagedResolver, out: Place<Self::Archived>) {
        ArchivedPagedVec::resolve(&r, out);
    }

    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        let mut vec = PagedVec::with_page_len(a.page_len());
        for p in 0..a.pages() {
            let items = thaw_vec(a.page(p), t)?;
            vec.pages.put(p, items, t.stamp(a.page_ref(p).stamp()));
        }
        Ok(vec)
    }

    /// Touches the pages whose stamps differ from the archived ones, which they are given.
    fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        if self.page_len() != a.page_len() {
            let mut fresh = Self::thaw(a, t)?;
            fresh.adopt(self, t);
            *self = fresh;
            return Ok(());
        }
        let carries = t.carries_skips::<T>();
        let changed = self.changed(a, t);
        let mut moved = Moved::none();
        if carries && T::HAS_ID {
            moved = Moved::gather(self, a, &changed);
        }
        drop(self.pages.cut(self.pages().min(a.pages())));
        for p in changed {
            let (rows, stamp) = (a.page(p), t.stamp(a.page_ref(p).stamp()));
            let there = p < self.pages() && self.pages.count(p) == rows.len();
            let stays = there
                && match carries {
                    true => T::HAS_ID && same_ids(self.page(p), rows),
                    false => T::PLAIN || self.pages.is_alone(p),
                };
            if stays {
                countable::<T::Archived>(rows.len(), t)?;
                restore_in_place(self.pages.page_mut(p), rows, t)?;
                self.pages.name(p, stamp);
            } else {
                let mut items = thaw_vec(rows, t)?;
                moved.adopt(&mut items, t);
                self.pages.put(p, items, stamp);
            }
        }
        Ok(())
    }

    fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
        if !T::HAS_ID || !t.carries_skips::<T>() {
            return;
        }
        let mut moved = Moved::of(old.to_vec());
        for page in 0..self.pages() {
            let stamp = self.pages.stamp(page);
            moved.adopt(self.page_mut(page), t);
            // What was adopted is not part of the content.
            self.pages.name(page, stamp);
        }
    }

    fn canonical(&self, other: &Self) -> Ordering {
        canonical_runs(self.iter(), other.iter())
    }
    fn sort_key(&self) -> u64 {
        run_key(self.iter())
    }
    fn cmp_archived(&self, a: &Self::Archived) -> Ordering {
        cmp_archived_runs(self.iter(), a)
    }
    fn schema(s: &mut Schema) -> Shape {
        s.node::<Self>(|s| {
            let item = T::schema(s);
            Node::new::<Self::Archived>("pagedvec").part("item", item)
        })
    }
}

const _: () = assert!(size_of::<ArchivedPagedVec<u8>>() == 24, "ArchivedPagedVec has padding");

impl<T: Snapshot + Clone + Send + Sync + 'static> PagedVec<T> {
    /// The pages whose content is not the archived one.
    pub(super) fn changed(&self, a: &ArchivedPagedVec<T::Archived>, t: &Thaw) -> Vec<usize> {
        (0..a.pages()).filter(|p| !self.is_same(*p, a, t)).collect()
    }

    /// Whether page `p` has the content of the archived one. Their lengths are compared as well: a
    /// forged archive may give a known stamp to anything.
    fn is_same(&self, p: usize, a: &ArchivedPagedVec<T::Archived>, t: &Thaw) -> bool {
        p < self.pages()
            && self.pages.count(p) == a.count(p)
            && self.pages.stamp(p) == t.stamp(a.page_ref(p).stamp())
    }
}

/// Whether the items are the same ones, by their ids.
fn same_ids<T: Snapshot>(items: &[T], a: &[T::Archived]) -> bool {
    items.iter().zip(a).all(|(item, a)| item.cmp_archived_id(a).is_eq())
}

/// Items that are not where they were, whose skipped fields follow them by their ids. Copies: a
/// page may be shared.
struct Moved<T> {
    items: Vec<T>,
    order: Vec<usize>,
}

impl<T: Snapshot + Clone + Send + Sync + 'static> Moved<T> {
    fn none() -> Moved<T> {
        Moved { items: Vec::new(), order: Vec::new() }
    }

    fn of(items: Vec<T>) -> Moved<T> {
        Moved { order: order_by_id(&items), items }
    }

    /// The items of the pages that will not be there any more, or not with the same ones.
    fn gather(vec: &PagedVec<T>, a: &ArchivedPagedVec<T::Archived>, changed: &[usize]) -> Moved<T> {
        let ours = changed.iter().copied().filter(|p| *p < vec.pages());
        let differ = ours
            .filter(|p| vec.pages.count(*p) != a.count(*p) || !same_ids(vec.page(*p), a.page(*p)));
        let gone = a.pages()..vec.pages().max(a.pages());
        Moved::of(differ.chain(gone).flat_map(|p| vec.page(p).iter().cloned()).collect())
    }

    fn adopt(&mut self, fresh: &mut [T], t: &mut Thaw) {
        if !self.items.is_empty() {
            adopt_in_order(fresh, &mut self.items, &self.order, t);
        }
    }
}

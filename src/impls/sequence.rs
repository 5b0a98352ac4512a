//! `Vec`, boxed slices, `VecDeque`: one run of elements behind a pointer.

use std::{cmp::Ordering, collections::VecDeque, mem::size_of, ptr};

use rkyv::{
    Place,
    vec::{ArchivedVec, VecResolver},
};

use super::append_key;
use crate::{
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
};

/// Canonical order of two runs: by their first difference, then by length.
pub(crate) fn canonical_runs<'a, T: Snapshot>(
    mut a: impl Iterator<Item = &'a T>,
    mut b: impl Iterator<Item = &'a T>,
) -> Ordering {
    loop {
        match (a.next(), b.next()) {
            (Some(x), Some(y)) => match x.canonical(y) {
                Ordering::Equal => {}
                other => return other,
            },
            (x, y) => return x.is_some().cmp(&y.is_some()),
        }
    }
}

/// The canonical order between a live run and an archived one.
pub(crate) fn cmp_archived_runs<'a, T: Snapshot>(
    mut live: impl Iterator<Item = &'a T>,
    archived: impl IntoIterator<Item = &'a T::Archived>,
) -> Ordering {
    let mut archived = archived.into_iter();
    loop {
        match (live.next(), archived.next()) {
            (Some(x), Some(y)) => match x.cmp_archived(y) {
                Ordering::Equal => {}
                other => return other,
            },
            (x, y) => return x.is_some().cmp(&y.is_some()),
        }
    }
}

/// The keys of the first elements, as many as fit, the first on top: a prefix of the order of runs.
pub(crate) fn run_key<'a, T: Snapshot>(mut items: impl Iterator<Item = &'a T>) -> u64 {
    if T::KEY_BITS == 0 {
        // A mere prefix of the first element; nothing may follow it.
        return items.next().map_or(0, |item| item.sort_key() >> 1 | 1 << 63);
    }
    let mut key = 0;
    for _ in 0..64 / T::KEY_BITS {
        key = append_key(key, T::KEY_BITS, items.next().map_or(0, T::sort_key));
    }
    key
}

/// Elements without archived bytes cost a forger nothing: their number in the whole state is bounded
/// on the way back as it was on the way out.
#[inline]
pub(crate) fn countable<A>(len: usize, t: &mut Thaw) -> Result<(), ThawError> {
    if size_of::<A>() == 0 {
        t.count_empty(len)?;
    }
    Ok(())
}

pub(crate) fn thaw_vec<T: Snapshot>(a: &[T::Archived], t: &mut Thaw) -> Result<Vec<T>, ThawError> {
    countable::<T::Archived>(a.len(), t)?;
    let mut items = Vec::with_capacity(a.len());
    if T::PLAIN {
        fill_plain(&mut items, a);
        return Ok(items);
    }
    for item in a {
        items.push(T::thaw(item, t)?);
    }
    Ok(items)
}

/// Makes `items` the plain rows of `a`, by one copy.
fn fill_plain<T: Snapshot>(items: &mut Vec<T>, a: &[T::Archived]) {
    const { assert!(!T::PLAIN || size_of::<T>() == size_of::<T::Archived>()) };
    assert!(T::PLAIN);
    items.clear();
    items.reserve(a.len());
    // SAFETY: PLAIN: as many bytes, valid in the same way; `reserve` made room; plain values have
    // nothing to drop.
    unsafe { ptr::copy_nonoverlapping(a.as_ptr().cast::<T>(), items.as_mut_ptr(), a.len()) };
    // SAFETY: exactly these have just been written.
    unsafe { items.set_len(a.len()) };
}

/// Makes `items` what as many archived ones say, each by its position.
pub(crate) fn restore_in_place<T: Snapshot>(
    items: &mut [T],
    a: &[T::Archived],
    t: &mut Thaw,
) -> Result<(), ThawError> {
    assert_eq!(items.len(), a.len());
    if T::PLAIN {
        const { assert!(!T::PLAIN || size_of::<T>() == size_of::<T::Archived>()) };
        // SAFETY: PLAIN: as many bytes, valid in the same way, and nothing to drop; an archive and
        // live items do not overlap.
        unsafe { ptr::copy_nonoverlapping(a.as_ptr().cast::<T>(), items.as_mut_ptr(), a.len()) };
        return Ok(());
    }
    for (item, a) in items.iter_mut().zip(a) {
        item.restore(a, t)?;
    }
    Ok(())
}

pub(crate) fn restore_vec<T: Snapshot>(
    items: &mut Vec<T>,
    a: &[T::Archived],
    t: &mut Thaw,
) -> Result<(), ThawError> {
    countable::<T::Archived>(a.len(), t)?;
    if T::PLAIN {
        fill_plain(items, a);
        return Ok(());
    }
    if t.carries_skips::<T>() {
        return restore_followed(items, a, t);
    }
    items.truncate(a.len());
    let (kept, added) = a.split_at(items.len());
    for (item, a) in items.iter_mut().zip(kept) {
        item.restore(a, t)?;
    }
    items.reserve(added.len());
    for a in added {
        items.push(T::thaw(a, t)?);
    }
    Ok(())
}

/// Elements with skipped fields: those are the element's own, so they follow it by its id. An
/// element without an id cannot be recognised, and starts from the defaults.
fn restore_followed<T: Snapshot>(
    items: &mut Vec<T>,
    a: &[T::Archived],
    t: &mut Thaw,
) -> Result<(), ThawError> {
    if !T::HAS_ID {
        *items = thaw_vec(a, t)?;
        return Ok(());
    }
    let in_place = items.len() == a.len()
        && items.iter().zip(a).all(|(item, a)| item.cmp_archived_id(a) == Ordering::Equal);
    if in_place {
        for (item, a) in items.iter_mut().zip(a) {
            item.restore(a, t)?;
        }
        return Ok(());
    }
    let mut fresh = thaw_vec(a, t)?;
    adopt_by_id(&mut fresh, items, t);
    *items = fresh;
    Ok(())
}

/// Hands the skipped fields of `old` to the elements of `fresh` with the same id.
pub(crate) fn adopt_by_id<T: Snapshot>(fresh: &mut [T], old: &mut [T], t: &mut Thaw) {
    if !T::HAS_ID || !t.carries_skips::<T>() {
        return;
    }
    let order = order_by_id(old);
    adopt_in_order(fresh, old, &order, t);
}

/// The order of elements by their ids.
pub(crate) fn order_by_id<T: Snapshot>(items: &[T]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by(|x, y| items[*x].cmp_id(&items[*y]));
    order
}

/// As [`adopt_by_id`], where the order of `old` is known.
pub(crate) fn adopt_in_order<T: Snapshot>(
    fresh: &mut [T],
    old: &mut [T],
    order: &[usize],
    t: &mut Thaw,
) {
    for item in fresh {
        if let Ok(found) = order.binary_search_by(|i| old[*i].cmp_id(item)) {
            item.adopt(&mut old[order[found]], t);
        }
    }
}

// SAFETY: rkyv's `ArchivedVec` has no padding (two 32-bit words, asserted below) and is resolved
// whole; PLAIN is not claimed.
unsafe impl<T: Snapshot> Snapshot for Vec<T> {
    type Archived = ArchivedVec<T::Archived>;
    type Resolver = VecResolver;
    const FROZEN: bool = T::FROZEN;

    #[inline]
    fn archive(&self, s: &mut Session) -> Result<VecResolver, Halt> {
        Ok(VecResolver::from_pos(s.slice(self)?))
    }
    #[inline]
    fn resolve(&self, r: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(self.len(), r, out);
    }
    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        thaw_vec(a, t)
    }
    #[inline]
    fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        restore_vec(self, a, t)
    }
    fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
        adopt_by_id(self, old, t);
    }
    fn canonical(&self, other: &Self) -> Ordering {
        canonical_runs(self.iter(), other.iter())
    }
    fn sort_key(&self) -> u64 {
        run_key(self.iter())
    }
    fn cmp_archived(&self, a: &Self::Archived) -> Ordering {
        cmp_archived_runs(self.iter(), a.iter())
    }
    fn schema(s: &mut Schema) -> Shape {
        s.node::<Self>(|s| {
            let item = T::schema(s);
            Node::new::<Self::Archived>("vec").part("item", item)
        })
    }
}

const _: () = assert!(size_of::<ArchivedVec<u8>>() == 8, "ArchivedVec has padding");

// SAFETY: as for `Vec`.
unsafe impl<T: Snapshot> Snapshot for Box<[T]> {
    type Archived = ArchivedVec<T::Archived>;
    type Resolver = VecResolver;
    const FROZEN: bool = T::FROZEN;

    #[inline]
    fn archive(&self, s: &mut Session) -> Result<VecResolver, Halt> {
        Ok(VecResolver::from_pos(s.slice(self)?))
    }
    #[inline]
    fn resolve(&self, r: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(self.len(), r, out);
    }
    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        Ok(thaw_vec(a, t)?.into())
    }
    fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        let mut items = Vec::from(std::mem::take(self));
        let done = restore_vec(&mut items, a, t);
        *self = items.into();
        done
    }
    fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
        adopt_by_id(self, old, t);
    }
    fn canonical(&self, other: &Self) -> Ordering {
        canonical_runs(self.iter(), other.iter())
    }
    fn sort_key(&self) -> u64 {
        run_key(self.iter())
    }
    fn cmp_archived(&self, a: &Self::Archived) -> Ordering {
        cmp_archived_runs(self.iter(), a.iter())
    }
    fn schema(s: &mut Schema) -> Shape {
        s.node::<Self>(|s| {
            let item = T::schema(s);
            Node::new::<Self::Archived>("vec").part("item", item)
        })
    }
}

// SAFETY: as for `Vec`.
unsafe impl<T: Snapshot> Snapshot for VecDeque<T> {
    type Archived = ArchivedVec<T::Archived>;
    type Resolver = VecResolver;
    const FROZEN: bool = T::FROZEN;

    fn archive(&self, s: &mut Session) -> Result<VecResolver, Halt> {
        let pos = match self.as_slices() {
            (all, []) => s.slice(all)?,
            _ => s.sequence(
                self.len(),
                self.iter(),
                |s, item| item.archive(s),
                |item, r, out| item.resolve(r, out),
            )?,
        };
        Ok(VecResolver::from_pos(pos))
    }
    fn resolve(&self, r: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(self.len(), r, out);
    }
    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        Ok(thaw_vec(a, t)?.into())
    }
    fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        let mut items = Vec::from(std::mem::take(self));
        let done = restore_vec(&mut items, a, t);
        *self = items.into();
        done
    }
    fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
        adopt_by_id(self.make_contiguous(), old.make_contiguous(), t);
    }
    fn canonical(&self, other: &Self) -> Ordering {
        canonical_runs(self.iter(), other.iter())
    }
    fn sort_key(&self) -> u64 {
        run_key(self.iter())
    }
    fn cmp_archived(&self, a: &Self::Archived) -> Ordering {
        cmp_archived_runs(self.iter(), a.iter())
    }
    fn schema(s: &mut Schema) -> Shape {
        s.node::<Self>(|s| {
            let item = T::schema(s);
            Node::new::<Self::Archived>("vec").part("item", item)
        })
    }
}

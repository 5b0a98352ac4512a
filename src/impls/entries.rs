//! How the entries of maps and the items of sets get into an archive: as they come, or sorted.
//!
//! Knows nothing of hashing or of trees. What an entry is made of is told by [`Item`].

use std::{cmp::Ordering, mem::offset_of};

use rkyv::Place;

use super::{put, zero};
use crate::{
    error::SaveError,
    map::ArchivedEntry,
    session::{Halt, Session},
    snapshot::Snapshot,
};

/// Something that is archived side by side with others of its kind, and sorted by its key.
pub(crate) trait Item: Copy {
    type Key: Snapshot;
    type Archived;
    type Resolver;

    fn key(&self) -> &Self::Key;
    fn archive(self, s: &mut Session) -> Result<Self::Resolver, Halt>;
    fn resolve(self, r: Self::Resolver, out: Place<Self::Archived>);
    /// The canonical order of the whole, key first.
    fn cmp_whole(self, other: Self) -> Ordering;
}

/// An item of a set.
impl<T: Snapshot> Item for &T {
    type Key = T;
    type Archived = T::Archived;
    type Resolver = T::Resolver;

    #[inline]
    fn key(&self) -> &T {
        self
    }
    #[inline]
    fn archive(self, s: &mut Session) -> Result<T::Resolver, Halt> {
        T::archive(self, s)
    }
    #[inline]
    fn resolve(self, r: T::Resolver, out: Place<T::Archived>) {
        put(self, r, out);
    }
    fn cmp_whole(self, other: Self) -> Ordering {
        T::canonical(self, other)
    }
}

/// An entry of a map.
impl<K: Snapshot, V: Snapshot> Item for (&K, &V) {
    type Key = K;
    type Archived = ArchivedEntry<K::Archived, V::Archived>;
    type Resolver = (K::Resolver, V::Resolver);

    #[inline]
    fn key(&self) -> &K {
        self.0
    }
    #[inline]
    fn archive(self, s: &mut Session) -> Result<Self::Resolver, Halt> {
        Ok((self.0.archive(s)?, self.1.archive(s)?))
    }
    #[inline]
    fn resolve(self, (k, v): Self::Resolver, out: Place<Self::Archived>) {
        if size_of::<Self::Archived>() != size_of::<K::Archived>() + size_of::<V::Archived>() {
            zero(out);
        }
        let value_at = const { offset_of!(ArchivedEntry<K::Archived, V::Archived>, value) };
        // SAFETY: only places of its fields are made of it.
        let base = unsafe { out.ptr() };
        // SAFETY: the key of a `repr(C)` entry is at its start.
        let key = unsafe { Place::from_field_unchecked(out, base.cast()) };
        // SAFETY: the value is that far into it.
        let value = unsafe { base.cast::<u8>().add(value_at) };
        // SAFETY: a field of `out`, aligned as such.
        let value = unsafe { Place::from_field_unchecked(out, value.cast()) };
        put(self.0, k, key);
        put(self.1, v, value);
    }
    fn cmp_whole(self, other: Self) -> Ordering {
        self.0.canonical(other.0).then_with(|| self.1.canonical(other.1))
    }
}

/// An item with the key that it is sorted by.
#[derive(Clone, Copy)]
struct Row<I> {
    key: u64,
    item: I,
}

impl<I: Item> Row<I> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.key.cmp(&other.key);
        if <I::Key as Snapshot>::KEY_BITS > 0 {
            return order;
        }
        order.then_with(|| self.item.key().canonical(other.item.key()))
    }
}

/// Archives `items` side by side as they come; answers the position of the first.
pub(crate) fn archive_as_is<I: Item>(
    s: &mut Session,
    items: impl ExactSizeIterator<Item = I> + Clone,
) -> Result<usize, Halt> {
    s.sequence(items.len(), items, |s, item| item.archive(s), |item, r, out| item.resolve(r, out))
}

/// So many items are ranked rather than sorted.
const FEW: usize = 16;

/// Where each of a few keys stands among them, as the order to take them in. Every pair is compared
/// and nothing branches on the outcome: for a handful of keys in a random order that beats a sort,
/// which guesses wrong at every other comparison.
#[inline]
fn rank(keys: &[u64]) -> [u8; FEW] {
    debug_assert!(keys.len() <= FEW, "only a few are ranked");
    let mut ranks = [0_u8; FEW];
    for (i, key) in keys.iter().enumerate() {
        let mut smaller = i as u8;
        for (j, earlier) in keys[..i].iter().enumerate() {
            let before = u8::from(key < earlier);
            ranks[j] += before;
            smaller -= before;
        }
        ranks[i] = smaller;
    }
    let mut order = [0_u8; FEW];
    for (i, rank) in ranks[..keys.len()].iter().enumerate() {
        order[usize::from(*rank) % FEW] = i as u8;
    }
    order
}

/// Archives `items` side by side in canonical order of their keys; answers the position of the
/// first. Costs a sort of rows on the session's scratch stack, but for items that come in order.
pub(super) fn archive_sorted<I: Item>(
    s: &mut Session,
    items: impl ExactSizeIterator<Item = I>,
) -> Result<usize, Halt> {
    let len = items.len();
    let (mark, memory) = s.rows::<Row<I>>(len)?;
    let memory = memory.as_ptr();
    let ranked = <I::Key as Snapshot>::KEY_BITS > 0 && len <= FEW;
    let mut keys = [0_u64; FEW];
    let mut count = 0;
    let mut last: Option<Row<I>> = None;
    let mut in_order = true;
    for item in items.take(len) {
        let row = Row { key: item.key().sort_key(), item };
        if ranked {
            keys[count % FEW] = row.key;
        } else {
            in_order = in_order && last.is_none_or(|last| last.cmp(&row).is_le());
            last = Some(row);
        }
        // SAFETY: `count < len`, for which there is room.
        let at = unsafe { memory.add(count) };
        // SAFETY: as above; aligned by the session.
        unsafe { at.write(row) };
        count += 1;
    }
    if count != len {
        return Err(s.halt(SaveError::Unsteady));
    }
    // SAFETY: `count` rows have just been written there; the stack gives the memory to nobody else
    // before the mark is released, below.
    let rows = unsafe { std::slice::from_raw_parts_mut(memory, count) };
    let archive = |s: &mut Session, row: &Row<I>| row.item.archive(s);
    let resolve = |row: &Row<I>, r, out| row.item.resolve(r, out);
    let pos = if ranked {
        let order = rank(&keys[..count]);
        let sorted = order[..count].iter().map(|i| &rows[usize::from(*i)]);
        s.sequence(count, sorted, archive, resolve)?
    } else {
        if !in_order {
            rows.sort_unstable_by(Row::cmp);
        }
        s.sequence(count, rows.iter(), archive, resolve)?
    };
    s.release(mark);
    Ok(pos)
}

/// The canonical order of two maps or sets: that of their archives. Cold: sorts both.
pub(crate) fn canonical_sorted<I: Item>(
    a: impl Iterator<Item = I>,
    b: impl Iterator<Item = I>,
) -> Ordering {
    let sorted = |items: &mut Vec<I>| items.sort_by(|x, y| x.key().canonical(y.key()));
    let (mut a, mut b): (Vec<I>, Vec<I>) = (a.collect(), b.collect());
    sorted(&mut a);
    sorted(&mut b);
    let differ = a.iter().zip(&b).map(|(x, y)| x.cmp_whole(*y)).find(|order| order.is_ne());
    differ.unwrap_or_else(|| a.len().cmp(&b.len()))
}

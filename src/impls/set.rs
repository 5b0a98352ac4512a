//! `HashSet` and `BTreeSet`: sorted items, whatever the hasher or `Ord` says.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashSet},
    hash::{BuildHasher, Hash},
};

use rkyv::Place;

use super::{
    entries::{archive_sorted, canonical_sorted},
    sequence::countable,
};
use crate::{
    map::ArchivedSet,
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
};

/// Adds archived items to `set`, which keeps its table.
pub(super) fn fill_hash_set<'a, T, S>(
    set: &mut HashSet<T, S>,
    items: impl ExactSizeIterator<Item = &'a T::Archived>,
    t: &mut Thaw,
) -> Result<(), ThawError>
where
    T: Snapshot + Hash + Eq,
    S: BuildHasher,
{
    countable::<T::Archived>(items.len(), t)?;
    set.reserve(items.len());
    for item in items {
        set.insert(T::thaw(item, t)?);
    }
    Ok(())
}

/// Makes `set` what the items say, keeping its table.
pub(super) fn restore_hash_set<'a, T, S>(
    set: &mut HashSet<T, S>,
    items: impl ExactSizeIterator<Item = &'a T::Archived>,
    t: &mut Thaw,
) -> Result<(), ThawError>
where
    T: Snapshot + Hash + Eq,
    S: BuildHasher + Default,
{
    if !t.carries_skips::<T>() {
        set.clear();
        return fill_hash_set(set, items, t);
    }
    let mut old = std::mem::take(set);
    fill_hash_set(set, items, t)?;
    adopt_hash_set(set, &mut old, t);
    Ok(())
}

/// Hands the skipped fields of `old` to equal items.
pub(super) fn adopt_hash_set<T, S>(set: &mut HashSet<T, S>, old: &mut HashSet<T, S>, t: &mut Thaw)
where
    T: Snapshot + Hash + Eq,
    S: BuildHasher,
{
    if t.carries_skips::<T>() {
        let items: Vec<T> = set.drain().collect();
        for mut item in items {
            if let Some(mut old) = old.take(&item) {
                item.adopt(&mut old, t);
            }
            set.insert(item);
        }
    }
}

fn set_schema<X: Snapshot, T: Snapshot>(s: &mut Schema) -> Shape {
    s.node::<X>(|s| {
        let item = T::schema(s);
        Node::new::<X::Archived>("set").part("item", item)
    })
}

// SAFETY: the archived form is that of `Vec`, a relative pointer and a length, written whole.
unsafe impl<T, S> Snapshot for HashSet<T, S>
where
    T: Snapshot + Hash + Eq,
    S: BuildHasher + Default + 'static,
{
    type Archived = ArchivedSet<T::Archived>;
    type Resolver = usize;
    const FROZEN: bool = T::FROZEN;

    fn archive(&self, s: &mut Session) -> Result<usize, Halt> {
        archive_sorted(s, self.iter())
    }
    fn resolve(&self, pos: usize, out: Place<Self::Archived>) {
        ArchivedSet::resolve(self.len(), pos, out);
    }
    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        let mut set = HashSet::default();
        fill_hash_set(&mut set, a.iter(), t)?;
        Ok(set)
    }
    fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        restore_hash_set(self, a.iter(), t)
    }
    fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
        adopt_hash_set(self, old, t);
    }
    fn canonical(&self, other: &Self) -> Ordering {
        canonical_sorted(self.iter(), other.iter())
    }
    fn schema(s: &mut Schema) -> Shape {
        set_schema::<Self, T>(s)
    }
}

// SAFETY: as for `HashSet`.
unsafe impl<T: Snapshot + Ord> Snapshot for BTreeSet<T> {
    type Archived = ArchivedSet<T::Archived>;
    type Resolver = usize;
    const FROZEN: bool = T::FROZEN;

    fn archive(&self, s: &mut Session) -> Result<usize, Halt> {
        archive_sorted(s, self.iter())
    }
    fn resolve(&self, pos: usize, out: Place<Self::Archived>) {
        ArchivedSet::resolve(self.len(), pos, out);
    }
    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        countable::<T::Archived>(a.len(), t)?;
        a.iter().map(|item| T::thaw(item, t)).collect()
    }
    fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        let same = self.len() == a.len()
            && self.iter().zip(a).all(|(item, a)| item.cmp_archived(a).is_eq());
        if !same {
            let mut old = std::mem::replace(self, Self::thaw(a, t)?);
            self.adopt(&mut old, t);
        }
        Ok(())
    }
    fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
        if t.carries_skips::<T>() {
            let fresh = std::mem::take(self);
            self.extend(fresh.into_iter().map(|mut item| {
                if let Some(mut old) = old.take(&item) {
                    item.adopt(&mut old, t);
                }
                item
            }));
        }
    }
    fn canonical(&self, other: &Self) -> Ordering {
        canonical_sorted(self.iter(), other.iter())
    }
    fn schema(s: &mut Schema) -> Shape {
        set_schema::<Self, T>(s)
    }
}

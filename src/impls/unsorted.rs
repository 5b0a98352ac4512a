//! `#[snapshot(unsorted)]`: maps and sets archived in the order in which they give their entries.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash},
};

use rkyv::Place;

use super::{
    entries::{archive_as_is, canonical_sorted},
    map::{adopt_hash_map, restore_hash_map, thaw_hash_map},
    set::{adopt_hash_set, fill_hash_set, restore_hash_set},
};
use crate::{
    map::{ArchivedEntries, ArchivedItems},
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
    with::Adapter,
};

/// Archives a `HashMap` or a `HashSet` without sorting it: what `#[snapshot(unsorted)]` stands for.
///
/// Saves the sort; in return equal maps may have different bytes (and digests), and an archived key
/// is found by looking at one after another.
#[derive(Debug)]
pub struct Unsorted;

/// The keys of an archive that is in no order, for the test whether one is among them.
pub(super) fn thaw_keys<'a, K: Snapshot + Hash + Eq>(
    keys: impl ExactSizeIterator<Item = &'a K::Archived>,
    t: &mut Thaw,
) -> Result<HashSet<K>, ThawError> {
    let mut set = HashSet::new();
    fill_hash_set(&mut set, keys, t)?;
    Ok(set)
}

// SAFETY: the archived form is that of `Vec`, a relative pointer and a length, written whole.
unsafe impl<K, V, S> Adapter<HashMap<K, V, S>> for Unsorted
where
    K: Snapshot + Hash + Eq,
    V: Snapshot,
    S: BuildHasher + Default + 'static,
{
    type Archived = ArchivedEntries<K::Archived, V::Archived>;
    type Resolver = usize;
    const FROZEN: bool = K::FROZEN && V::FROZEN;

    fn archive(map: &HashMap<K, V, S>, s: &mut Session) -> Result<usize, Halt> {
        archive_as_is(s, map.iter())
    }
    fn resolve(map: &HashMap<K, V, S>, pos: usize, out: Place<Self::Archived>) {
        ArchivedEntries::resolve(map.len(), pos, out);
    }
    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<HashMap<K, V, S>, ThawError> {
        thaw_hash_map(a.iter(), t)
    }
    fn restore(
        map: &mut HashMap<K, V, S>,
        a: &Self::Archived,
        t: &mut Thaw,
    ) -> Result<(), ThawError> {
        restore_hash_map(map, a.iter(), t, |t| {
            let keys: HashSet<K> = thaw_keys(a.keys(), t)?;
            Ok(move |k: &K| keys.contains(k))
        })
    }
    fn adopt(map: &mut HashMap<K, V, S>, old: &mut HashMap<K, V, S>, t: &mut Thaw) {
        adopt_hash_map(map, old, t);
    }
    fn canonical(a: &HashMap<K, V, S>, b: &HashMap<K, V, S>) -> Ordering {
        canonical_sorted(a.iter(), b.iter())
    }
    fn schema(s: &mut Schema) -> Shape {
        s.node::<(Unsorted, HashMap<K, V, S>)>(|s| {
            let (key, value) = (K::schema(s), V::schema(s));
            Node::new::<Self::Archived>("entries").part("key", key).part("value", value)
        })
    }
}

// SAFETY: as for maps.
unsafe impl<T, S> Adapter<HashSet<T, S>> for Unsorted
where
    T: Snapshot + Hash + Eq,
    S: BuildHasher + Default + 'static,
{
    type Archived = ArchivedItems<T::Archived>;
    type Resolver = usize;
    const FROZEN: bool = T::FROZEN;

    fn archive(set: &HashSet<T, S>, s: &mut Session) -> Result<usize, Halt> {
        archive_as_is(s, set.iter())
    }
    fn resolve(set: &HashSet<T, S>, pos: usize, out: Place<Self::Archived>) {
        ArchivedItems::resolve(set.len(), pos, out);
    }
    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<HashSet<T, S>, ThawError> {
        let mut set = HashSet::default();
        fill_hash_set(&mut set, a.iter(), t)?;
        Ok(set)
    }
    fn restore(set: &mut HashSet<T, S>, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        restore_hash_set(set, a.iter(), t)
    }
    fn adopt(set: &mut HashSet<T, S>, old: &mut HashSet<T, S>, t: &mut Thaw) {
        adopt_hash_set(set, old, t);
    }
    fn canonical(a: &HashSet<T, S>, b: &HashSet<T, S>) -> Ordering {
        canonical_sorted(a.iter(), b.iter())
    }
    fn schema(s: &mut Schema) -> Shape {
        s.node::<(Unsorted, HashSet<T, S>)>(|s| {
            let item = T::schema(s);
            Node::new::<Self::Archived>("items").part("item", item)
        })
    }
}

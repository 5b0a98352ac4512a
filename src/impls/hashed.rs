//! `#[snapshot(hashed)]`: maps and sets archived as rkyv's hash tables.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash},
};

use rkyv::{
    Place,
    collections::swiss_table::{
        ArchivedHashMap, ArchivedHashSet, map::HashMapResolver, set::HashSetResolver,
    },
};

use super::{
    entries::canonical_sorted,
    map::{adopt_hash_map, restore_hash_map, thaw_hash_map},
    set::{adopt_hash_set, fill_hash_set, restore_hash_set},
    unsorted::thaw_keys,
    zero,
};
use crate::{
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
    with::{Adapter, By},
};

/// Archives a `HashMap` or a `HashSet` as rkyv's hash table: what `#[snapshot(hashed)]` stands for.
///
/// An archived key is found by its hash, in the time of one comparison, but equal maps may have
/// different bytes (and digests). The archived key must hash as the live one does, as rkyv's own
/// types see to; where it does not, nothing is found, but everything is thawed.
#[derive(Debug)]
pub struct Hashed;

/// Slots taken of slots there are: rkyv's own choice.
const LOAD_FACTOR: (usize, usize) = (7, 8);

// SAFETY: all of the table's head is zeroed before it is written; rkyv zeroes the padding of
// entries.
unsafe impl<K, V, S> Adapter<HashMap<K, V, S>> for Hashed
where
    K: Snapshot<Archived: Hash + Eq> + Hash + Eq,
    V: Snapshot,
    S: BuildHasher + Default + 'static,
{
    type Archived = ArchivedHashMap<K::Archived, V::Archived>;
    type Resolver = HashMapResolver;
    const FROZEN: bool = K::FROZEN && V::FROZEN;

    fn archive(map: &HashMap<K, V, S>, s: &mut Session) -> Result<HashMapResolver, Halt> {
        s.enter()?;
        let entries = map.iter().map(|(k, v)| (By::of(k), By::of(v)));
        let done = Self::Archived::serialize_from_iter::<_, _, _, By<K>, By<V>, _>(
            entries,
            LOAD_FACTOR,
            s,
        );
        s.leave();
        done.map_err(|error| s.wrapper_failed(error))
    }
    fn resolve(map: &HashMap<K, V, S>, r: HashMapResolver, out: Place<Self::Archived>) {
        zero(out);
        ArchivedHashMap::resolve_from_len(map.len(), LOAD_FACTOR, r, out);
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
        s.node::<(Hashed, HashMap<K, V, S>)>(|s| {
            let (key, value) = (K::schema(s), V::schema(s));
            Node::new::<Self::Archived>("hashmap").part("key", key).part("value", value)
        })
    }
}

// SAFETY: as for maps.
unsafe impl<T, S> Adapter<HashSet<T, S>> for Hashed
where
    T: Snapshot<Archived: Hash + Eq> + Hash + Eq,
    S: BuildHasher + Default + 'static,
{
    type Archived = ArchivedHashSet<T::Archived>;
    type Resolver = HashSetResolver;
    const FROZEN: bool = T::FROZEN;

    fn archive(set: &HashSet<T, S>, s: &mut Session) -> Result<HashSetResolver, Halt> {
        s.enter()?;
        let items = set.iter().map(By::of);
        let done = Self::Archived::serialize_from_iter::<_, By<T>, _>(items, LOAD_FACTOR, s);
        s.leave();
        done.map_err(|error| s.wrapper_failed(error))
    }
    fn resolve(set: &HashSet<T, S>, r: HashSetResolver, out: Place<Self::Archived>) {
        zero(out);
        ArchivedHashSet::resolve_from_len(set.len(), LOAD_FACTOR, r, out);
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
        s.node::<(Hashed, HashSet<T, S>)>(|s| {
            let item = T::schema(s);
            Node::new::<Self::Archived>("hashset").part("item", item)
        })
    }
}

//! `HashMap` and `BTreeMap`: sorted entries, whatever the hasher or `Ord` says.

use std::{
    cmp::Ordering,
    collections::{
        BTreeMap, HashMap,
        hash_map::Entry::{Occupied, Vacant},
    },
    hash::{BuildHasher, Hash},
    mem::needs_drop,
};

use rkyv::Place;

use super::{
    entries::{archive_sorted, canonical_sorted},
    sequence::countable,
};
use crate::{
    map::{ArchivedEntry, ArchivedMap},
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
};

/// What [`thaw_hash_map`] and [`restore_hash_map`] read: archived keys and values.
type Pair<'a, K, V> = (&'a <K as Snapshot>::Archived, &'a <V as Snapshot>::Archived);

/// A new map of archived entries; of two equal keys (in a forged archive) the last one counts.
pub(super) fn thaw_hash_map<'a, K, V, S>(
    entries: impl ExactSizeIterator<Item = Pair<'a, K, V>>,
    t: &mut Thaw,
) -> Result<HashMap<K, V, S>, ThawError>
where
    K: Snapshot + Hash + Eq,
    V: Snapshot,
    S: BuildHasher + Default,
{
    countable::<ArchivedEntry<K::Archived, V::Archived>>(entries.len(), t)?;
    let mut map = HashMap::with_capacity_and_hasher(entries.len(), S::default());
    for (k, v) in entries {
        map.insert(K::thaw(k, t)?, V::thaw(v, t)?);
    }
    Ok(map)
}

/// Makes `map` what the entries say, keeping its table, and hashing each archived key once. A value
/// is restored in place where its key stays and there is something to lose: memory or skipped
/// fields. `stays` builds the test for keys that are in the archive, for when some are not.
pub(super) fn restore_hash_map<'a, K, V, S, F>(
    map: &mut HashMap<K, V, S>,
    entries: impl ExactSizeIterator<Item = Pair<'a, K, V>>,
    t: &mut Thaw,
    stays: impl FnOnce(&mut Thaw) -> Result<F, ThawError>,
) -> Result<(), ThawError>
where
    K: Snapshot + Hash + Eq,
    V: Snapshot,
    S: BuildHasher + Default,
    F: Fn(&K) -> bool,
{
    let len = entries.len();
    countable::<ArchivedEntry<K::Archived, V::Archived>>(len, t)?;
    if !needs_drop::<V>() && !t.carries_skips::<V>() && !t.carries_skips::<K>() {
        map.clear();
        map.reserve(len);
        for (k, v) in entries {
            map.insert(K::thaw(k, t)?, V::thaw(v, t)?);
        }
        return Ok(());
    }
    for (k, v) in entries {
        match map.entry(K::thaw(k, t)?) {
            Occupied(mut value) if value.key().cmp_archived(k).is_eq() => {
                value.get_mut().restore(v, t)?;
            }
            // Equal keys that are not the same, such as texts in another case.
            Occupied(value) => {
                let mut value = value.remove();
                value.restore(v, t)?;
                map.insert(K::thaw(k, t)?, value);
            }
            Vacant(place) => {
                place.insert(V::thaw(v, t)?);
            }
        }
    }
    if map.len() != len {
        let stays = stays(t)?;
        map.retain(|k, _| stays(k));
    }
    Ok(())
}

/// Hands the skipped fields of `old` to the values of the same keys.
pub(super) fn adopt_hash_map<K, V, S>(
    map: &mut HashMap<K, V, S>,
    old: &mut HashMap<K, V, S>,
    t: &mut Thaw,
) where
    K: Snapshot + Hash + Eq,
    V: Snapshot,
    S: BuildHasher,
{
    if t.carries_skips::<V>() {
        for (k, value) in map {
            if let Some(old) = old.get_mut(k) {
                value.adopt(old, t);
            }
        }
    }
}

fn map_schema<M: Snapshot, K: Snapshot, V: Snapshot>(s: &mut Schema) -> Shape {
    s.node::<M>(|s| {
        let (key, value) = (K::schema(s), V::schema(s));
        Node::new::<M::Archived>("map").part("key", key).part("value", value)
    })
}

// SAFETY: the archived form is that of `Vec`, a relative pointer and a length, written whole.
unsafe impl<K, V, S> Snapshot for HashMap<K, V, S>
where
    K: Snapshot + Hash + Eq,
    V: Snapshot,
    S: BuildHasher + Default + 'static,
{
    type Archived = ArchivedMap<K::Archived, V::Archived>;
    type Resolver = usize;
    const FROZEN: bool = K::FROZEN && V::FROZEN;

    fn archive(&self, s: &mut Session) -> Result<usize, Halt> {
        archive_sorted(s, self.iter())
    }
    fn resolve(&self, pos: usize, out: Place<Self::Archived>) {
        ArchivedMap::resolve(self.len(), pos, out);
    }
    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        thaw_hash_map(a.iter(), t)
    }
    fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        restore_hash_map(self, a.iter(), t, |_| Ok(|k: &K| a.contains_key(k)))
    }
    fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
        adopt_hash_map(self, old, t);
    }
    fn canonical(&self, other: &Self) -> Ordering {
        canonical_sorted(self.iter(), other.iter())
    }
    fn schema(s: &mut Schema) -> Shape {
        map_schema::<Self, K, V>(s)
    }
}

// SAFETY: as for `HashMap`.
unsafe impl<K: Snapshot + Ord, V: Snapshot> Snapshot for BTreeMap<K, V> {
    type Archived = ArchivedMap<K::Archived, V::Archived>;
    type Resolver = usize;
    const FROZEN: bool = K::FROZEN && V::FROZEN;

    fn archive(&self, s: &mut Session) -> Result<usize, Halt> {
        archive_sorted(s, self.iter())
    }
    fn resolve(&self, pos: usize, out: Place<Self::Archived>) {
        ArchivedMap::resolve(self.len(), pos, out);
    }
    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        countable::<ArchivedEntry<K::Archived, V::Archived>>(a.len(), t)?;
        // Collecting sorts first, which costs nothing where `Ord` is the canonical order.
        a.iter().map(|(k, v)| Ok((K::thaw(k, t)?, V::thaw(v, t)?))).collect()
    }
    fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        let mut same = self.len() == a.len();
        if same {
            for ((key, value), (k, v)) in self.iter_mut().zip(a.iter()) {
                same = key.cmp_archived(k).is_eq();
                if !same {
                    break;
                }
                value.restore(v, t)?;
            }
        }
        if same {
            return Ok(());
        }
        if !needs_drop::<V>() && !t.carries_skips::<V>() && !t.carries_skips::<K>() {
            *self = Self::thaw(a, t)?;
            return Ok(());
        }
        countable::<ArchivedEntry<K::Archived, V::Archived>>(a.len(), t)?;
        let mut old = std::mem::take(self);
        let entries = a.iter().map(|(k, v)| {
            let mut key = K::thaw(k, t)?;
            let Some((kept, mut value)) = old.remove_entry(&key) else {
                return Ok((key, V::thaw(v, t)?));
            };
            value.restore(v, t)?;
            if kept.canonical(&key).is_eq() {
                key = kept;
            }
            Ok((key, value))
        });
        *self = entries.collect::<Result<_, ThawError>>()?;
        Ok(())
    }
    fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
        if t.carries_skips::<V>() {
            for (k, value) in self {
                if let Some(old) = old.get_mut(k) {
                    value.adopt(old, t);
                }
            }
        }
    }
    fn canonical(&self, other: &Self) -> Ordering {
        canonical_sorted(self.iter(), other.iter())
    }
    fn schema(s: &mut Schema) -> Shape {
        map_schema::<Self, K, V>(s)
    }
}

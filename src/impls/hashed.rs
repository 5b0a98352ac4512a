//! `#[snapshot(hashed)]`: maps and sets archived as rkyv's hash tables.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    error::Error,
    fmt,
    hash::{BuildHasher, Hash},
    ops::Deref,
};

use rkyv::{
    Place, Portable,
    bytecheck::CheckBytes,
    collections::swiss_table::{
        ArchivedHashMap, ArchivedHashSet, map::HashMapResolver, set::HashSetResolver,
    },
    munge::munge,
    rancor::{BoxedError, Source},
};

use super::{
    entries::canonical_sorted,
    map::{adopt_hash_map, restore_hash_map, thaw_hash_map},
    set::{adopt_hash_set, fill_hash_set, restore_hash_set},
    unsorted::thaw_keys,
    zero,
};
use crate::{
    checker::Checker,
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

/// rkyv's hash table `M`, in which a search is known to end.
///
/// A lookup goes from group to group of control bytes until it meets a free one. The first ones
/// stand once more behind the last, so that a group that begins near the end goes on at the start;
/// in a forged table they could say that nothing is free, and a lookup would go round for ever.
#[repr(transparent)]
pub struct ArchivedHashed<M>(M);

// SAFETY: transparent over a portable form.
unsafe impl<M: Portable> Portable for ArchivedHashed<M> {}

impl<M> Deref for ArchivedHashed<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

impl<M: fmt::Debug> fmt::Debug for ArchivedHashed<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Control bytes that are read at once, at most.
const GROUP: usize = 16;

#[derive(Debug)]
struct Endless;

impl fmt::Display for Endless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the copies of a hash table's control bytes differ from them")
    }
}

impl Error for Endless {}

/// Whether the control bytes behind a table's last are copies of its first ones, and free beyond.
///
/// # Safety
///
/// `table` is a table of rkyv's that its own check has passed, in an archive that `table` may reach
/// all over.
unsafe fn ends<M>(table: *const M) -> bool {
    const { assert!(size_of::<M>() == 12, "a relative pointer, a length, a capacity") };
    // SAFETY: three words; bytes that have been checked are initialised.
    let words = unsafe { table.cast::<[[u8; 4]; 3]>().read() };
    let [offset, _, capacity] = words;
    let (offset, capacity) = (i32::from_le_bytes(offset), u32::from_le_bytes(capacity) as usize);
    if capacity == 0 {
        return true;
    }
    let count = capacity.next_multiple_of(GROUP) + GROUP - 1;
    let first = table.cast::<u8>().wrapping_offset(offset as isize);
    // SAFETY: rkyv's check has seen that as many control bytes lie there, inside the archive.
    let controls = unsafe { std::slice::from_raw_parts(first, count) };
    let (table, behind) = controls.split_at(capacity);
    let wanted = table.iter().chain(std::iter::repeat(&0xff));
    behind.iter().zip(wanted).all(|(byte, wanted)| byte == wanted)
}

macro_rules! checked {
    ($Table:ident<$($P:ident),+>) => {
        // SAFETY: it is valid where the table is; what more is asked is about meaning.
        unsafe impl<$($P),+> CheckBytes<Checker> for ArchivedHashed<$Table<$($P),+>>
        where
            $Table<$($P),+>: CheckBytes<Checker>,
        {
            unsafe fn check_bytes(it: *const Self, c: &mut Checker) -> Result<(), BoxedError> {
                let table = it.cast::<$Table<$($P),+>>();
                // SAFETY: transparent, so what the caller promises of `it` holds for the table.
                unsafe { $Table::check_bytes(table, c) }?;
                // SAFETY: it has just been checked, by a pointer that the archive's root led to.
                if unsafe { ends(table) } { Ok(()) } else { Err(BoxedError::new(Endless)) }
            }
        }
    };
}

checked!(ArchivedHashMap<K, V>);
checked!(ArchivedHashSet<T>);

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
    type Archived = ArchivedHashed<ArchivedHashMap<K::Archived, V::Archived>>;
    type Resolver = HashMapResolver;
    const FROZEN: bool = K::FROZEN && V::FROZEN;

    fn archive(map: &HashMap<K, V, S>, s: &mut Session) -> Result<HashMapResolver, Halt> {
        s.enter()?;
        let entries = map.iter().map(|(k, v)| (By::of(k), By::of(v)));
        let done = ArchivedHashMap::<K::Archived, V::Archived>::serialize_from_iter::<
            _,
            _,
            _,
            By<K>,
            By<V>,
            _,
        >(entries, LOAD_FACTOR, s);
        s.leave();
        done.map_err(|error| s.wrapper_failed(error))
    }
    fn resolve(map: &HashMap<K, V, S>, r: HashMapResolver, out: Place<Self::Archived>) {
        zero(out);
        munge!(let ArchivedHashed(table) = out);
        ArchivedHashMap::resolve_from_len(map.len(), LOAD_FACTOR, r, table);
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
    type Archived = ArchivedHashed<ArchivedHashSet<T::Archived>>;
    type Resolver = HashSetResolver;
    const FROZEN: bool = T::FROZEN;

    fn archive(set: &HashSet<T, S>, s: &mut Session) -> Result<HashSetResolver, Halt> {
        s.enter()?;
        let items = set.iter().map(By::of);
        let done = ArchivedHashSet::<T::Archived>::serialize_from_iter::<_, By<T>, _>(
            items,
            LOAD_FACTOR,
            s,
        );
        s.leave();
        done.map_err(|error| s.wrapper_failed(error))
    }
    fn resolve(set: &HashSet<T, S>, r: HashSetResolver, out: Place<Self::Archived>) {
        zero(out);
        munge!(let ArchivedHashed(table) = out);
        ArchivedHashSet::resolve_from_len(set.len(), LOAD_FACTOR, r, table);
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

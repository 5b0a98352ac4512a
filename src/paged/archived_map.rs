//! [`ArchivedPagedMap`]: sorted leaves, one a page, and their order; and how the map comes back.

use std::{cmp::Ordering, error::Error, fmt, mem};

use rkyv::{
    Place, Portable,
    bytecheck::CheckBytes,
    munge::munge,
    rancor::{BoxedError, Source},
    rend::{u32_le, u64_le},
    string::ArchivedString,
    vec::{ArchivedVec, VecResolver},
};

use super::{
    archived::{ArchivedPagedVec, PagedResolver},
    leaf::{Leaf, compare},
    map::PagedMap,
    vec::PagedVec,
};
use crate::{
    checker::Checker,
    impls::{entries::canonical_sorted, sequence::thaw_vec},
    map::ArchivedMap,
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
};

/// The archived form of a [`PagedMap`]: its entries in sorted leaves, each where it was written
/// last.
#[repr(C)]
pub struct ArchivedPagedMap<K, V> {
    leaves: ArchivedPagedVec<ArchivedMap<K, V>>,
    order: ArchivedVec<u32_le>,
    len: u64_le,
}

// SAFETY: `repr(C)` over portable fields.
unsafe impl<K: Portable, V: Portable> Portable for ArchivedPagedMap<K, V> {}

const _: () = assert!(size_of::<ArchivedPagedMap<u8, u8>>() == 40, "there is padding");

impl<K, V> ArchivedPagedMap<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len.to_native() as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn leaf(&self, number: u32_le) -> Option<&ArchivedMap<K, V>> {
        self.leaves.get(number.to_native() as usize)
    }

    /// The value of `key`, by binary search over the pages and then in one: about log2 of
    /// [`len`](Self::len) comparisons.
    pub fn get<Q: Snapshot<Archived = K>>(&self, key: &Q) -> Option<&V> {
        self.find(|k| key.cmp_archived(k))
    }

    /// Whether there is a `key`; as [`get`](Self::get).
    pub fn contains_key<Q: Snapshot<Archived = K>>(&self, key: &Q) -> bool {
        self.get(key).is_some()
    }

    /// `order` says where the key sought stands to one it is shown.
    fn find(&self, order: impl Fn(&K) -> Ordering) -> Option<&V> {
        let is_before = |number: &u32_le| {
            let first = self.leaf(*number).and_then(|leaf| leaf.as_slice().first());
            first.is_some_and(|entry| order(&entry.key).is_ge())
        };
        let rank = self.order.partition_point(is_before).checked_sub(1)?;
        self.leaf(*self.order.get(rank)?)?.find(order)
    }

    /// Keys and values, as they lie in the file, in the canonical order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> + Clone {
        self.order.iter().filter_map(|number| self.leaf(*number)).flat_map(ArchivedMap::iter)
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(k, _)| k)
    }

    /// The values.
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.iter().map(|(_, v)| v)
    }
}

impl<V> ArchivedPagedMap<ArchivedString, V> {
    /// The value of a text, without a `String` to look for; as [`get`](Self::get).
    pub fn get_str(&self, key: &str) -> Option<&V> {
        self.find(|k| key.cmp(k.as_str()))
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for ArchivedPagedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// The parts of a paged map do not fit each other.
#[derive(Debug)]
struct Misfit {
    len: u64,
    found: u64,
    leaves: usize,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Misfit { len, found, leaves } = self;
        write!(f, "a paged map states {len} entries, and has {found} in {leaves} leaves")
    }
}

impl Error for Misfit {}

// SAFETY: it is valid where its fields are; what more is asked is about meaning.
unsafe impl<K, V> CheckBytes<Checker> for ArchivedPagedMap<K, V>
where
    K: Portable + CheckBytes<Checker>,
    V: Portable + CheckBytes<Checker>,
{
    unsafe fn check_bytes(it: *const Self, c: &mut Checker) -> Result<(), BoxedError> {
        // SAFETY: the caller's `it` is aligned and in bounds.
        let leaves = unsafe { &raw const (*it).leaves };
        // SAFETY: a field of it is too.
        unsafe { ArchivedPagedVec::check_bytes(leaves, c) }?;
        // SAFETY: as for the leaves.
        let order = unsafe { &raw const (*it).order };
        // SAFETY: as for the leaves.
        unsafe { ArchivedVec::check_bytes(order, c) }?;
        // SAFETY: both have been checked; a number is valid however it is.
        let map = unsafe { &*it };
        let len = map.len.to_native();
        let found = map.order.iter().try_fold(0_u64, |sum, number| {
            let leaf = map.leaf(*number)?;
            Some(sum + leaf.len() as u64).filter(|_| !leaf.is_empty())
        });
        if map.leaves.page_len() != 1 || found != Some(len) {
            let (found, leaves) = (found.unwrap_or(0), map.leaves.len());
            return Err(BoxedError::new(Misfit { len, found, leaves }));
        }
        Ok(())
    }
}

/// Where the parts of a paged map are.
#[derive(Debug)]
pub struct PagedMapResolver {
    leaves: PagedResolver,
    order: usize,
    used: usize,
    len: u64,
}

// SAFETY: all three fields of the archived form are written, without padding between them, asserted
// above.
unsafe impl<K, V> Snapshot for PagedMap<K, V>
where
    K: Snapshot + Clone + Send + Sync + 'static,
    V: Snapshot + Clone + Send + Sync + 'static,
{
    type Archived = ArchivedPagedMap<K::Archived, V::Archived>;
    type Resolver = PagedMapResolver;
    const FROZEN: bool = false;

    fn archive(&self, s: &mut Session) -> Result<PagedMapResolver, Halt> {
        let leaves = self.leaves.archive(s)?;
        let order = s.slice(&self.order)?;
        Ok(PagedMapResolver { leaves, order, used: self.order.len(), len: self.len as u64 })
    }

    fn resolve(&self, r: PagedMapResolver, out: Place<Self::Archived>) {
        munge!(let ArchivedPagedMap { leaves, order, len } = out);
        ArchivedPagedVec::resolve(&r.leaves, leaves);
        ArchivedVec::resolve_from_len(r.used, VecResolver::from_pos(r.order), order);
        len.write(r.len.into());
    }

    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        let mut map = PagedMap::of(PagedVec::thaw(&a.leaves, t)?);
        let all: Vec<usize> = (0..map.leaves.len()).collect();
        map.put_in_order(&a.order, &all);
        Ok(map)
    }

    /// Touches the pages whose stamps differ from the archived ones, which they are given, and
    /// looks at the first key of each page.
    fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        let changed = self.leaves.changed(&a.leaves, t);
        if t.carries_skips::<V>() || t.carries_skips::<K>() {
            // Values follow their keys, from whichever leaf these are in now.
            let mut old = self.clone();
            let mut map = PagedMap::of(self.leaves.clone());
            drop(map.leaves.pages.cut(map.leaves.pages().min(a.leaves.pages())));
            for p in &changed {
                let mut leaf: Vec<Leaf<K, V>> = thaw_vec(a.leaves.page(*p), t)?;
                old.hand_over(&mut leaf, t);
                map.leaves.pages.put(*p, leaf, t.stamp(a.leaves.page_ref(*p).stamp()));
            }
            map.put_in_order(&a.order, &changed);
            *self = map;
            return Ok(());
        }
        // Without entries meanwhile: what is in the leaves and what is known of them differ.
        let mut map = PagedMap::of(mem::take(self).leaves);
        map.leaves.restore(&a.leaves, t)?;
        map.put_in_order(&a.order, &changed);
        *self = map;
        Ok(())
    }

    fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
        if !t.carries_skips::<V>() {
            return;
        }
        for p in 0..self.leaves.pages() {
            let stamp = self.leaves.pages.stamp(p);
            old.hand_over(self.leaves.page_mut(p), t);
            // What was adopted is not part of the content.
            self.leaves.pages.name(p, stamp);
        }
    }

    fn canonical(&self, other: &Self) -> Ordering {
        canonical_sorted(self.iter(), other.iter())
    }

    fn schema(s: &mut Schema) -> Shape {
        s.node::<Self>(|s| {
            let (key, value) = (K::schema(s), V::schema(s));
            Node::new::<Self::Archived>("pagedmap").part("key", key).part("value", value)
        })
    }
}

impl<K, V> PagedMap<K, V>
where
    K: Snapshot + Clone + Send + Sync + 'static,
    V: Snapshot + Clone + Send + Sync + 'static,
{
    /// Hands the skipped fields of our values to those of the same keys in other leaves.
    fn hand_over(&mut self, leaves: &mut [Leaf<K, V>], t: &mut Thaw) {
        for (key, value) in leaves.iter_mut().flat_map(|leaf| &mut leaf.0) {
            if let Some(old) = self.get_mut(key) {
                value.adopt(old, t);
            }
        }
    }

    /// Takes up the archived order. The `changed` leaves are looked into, as nobody has before;
    /// what is forged is sorted anew.
    pub(super) fn put_in_order(&mut self, order: &[u32_le], changed: &[usize]) {
        self.order = order.iter().map(|number| number.to_native()).collect();
        if !changed.iter().all(|p| self.leaves[*p].in_order()) || !self.is_ordered() {
            let entries = mem::take(self).leaves.into_iter();
            self.extend(entries.flat_map(|leaf| leaf.0));
            return;
        }
        let ranks = 0..self.order.len();
        self.firsts = ranks.map(|rank| Snapshot::sort_key(&self.leaf(rank)[0].0)).collect();
    }

    /// Whether the order names each leaf that has entries, and these lie in order, which none does
    /// that is named twice; counts.
    fn is_ordered(&mut self) -> bool {
        let mut used = vec![false; self.leaves.len()];
        for number in &self.order {
            match used.get_mut(*number as usize) {
                Some(used) => *used = true,
                None => return false,
            }
        }
        let numbers = 0..self.leaves.len();
        self.len = self.leaves.iter().map(|leaf| leaf.0.len()).sum();
        self.free = numbers.filter(|i| !used[*i]).map(|i| i as u32).collect();
        used.iter().zip(&self.leaves).all(|(used, leaf)| *used != leaf.0.is_empty())
            && (1..self.order.len()).all(|rank| {
                let (before, after) = (self.leaf(rank - 1).last(), self.leaf(rank).first());
                before.zip(after).is_some_and(|(b, a)| compare(&b.0, &a.0).is_lt())
            })
    }
}

//! [`Leaf`]: the entries of one page of a map, sorted.
//!
//! Knows one page. Which leaf comes after which is `map.rs`'s affair.

use std::cmp::Ordering;

use rkyv::Place;

use crate::{
    impls::{
        entries::{archive_as_is, canonical_sorted},
        sequence::countable,
    },
    map::{ArchivedEntry, ArchivedMap},
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
};

/// The canonical order of two keys.
#[inline]
pub(super) fn compare<K: Snapshot>(a: &K, b: &K) -> Ordering {
    if K::KEY_BITS > 0 { a.sort_key().cmp(&b.sort_key()) } else { a.canonical(b) }
}

/// Entries in the canonical order of their keys, which are all different.
#[derive(Clone)]
pub(super) struct Leaf<K, V>(pub(super) Vec<(K, V)>);

impl<K: Snapshot, V> Leaf<K, V> {
    /// The most entries: as many as fit 4 KiB.
    pub(super) const MOST: usize = {
        let size = if size_of::<(K, V)>() == 0 { 1 } else { size_of::<(K, V)>() };
        match 4096 / size {
            few @ 0..16 => {
                if few < 16 {
                    16
                } else {
                    few
                }
            }
            some @ 16..256 => some,
            _ => 256,
        }
    };

    /// Whether the keys come in order, each once.
    pub(super) fn in_order(&self) -> bool {
        self.0.windows(2).all(|pair| compare(&pair[0].0, &pair[1].0).is_lt())
    }
}

// SAFETY: the archived form is that of a map.
unsafe impl<K, V> Snapshot for Leaf<K, V>
where
    K: Snapshot + Clone + Send + Sync + 'static,
    V: Snapshot + Clone + Send + Sync + 'static,
{
    type Archived = ArchivedMap<K::Archived, V::Archived>;
    type Resolver = usize;
    const FROZEN: bool = K::FROZEN && V::FROZEN;

    fn archive(&self, s: &mut Session) -> Result<usize, Halt> {
        archive_as_is(s, self.0.iter().map(|(k, v)| (k, v)))
    }
    fn resolve(&self, pos: usize, out: Place<Self::Archived>) {
        ArchivedMap::resolve(self.0.len(), pos, out);
    }
    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        countable::<ArchivedEntry<K::Archived, V::Archived>>(a.len(), t)?;
        let mut entries = Vec::with_capacity(a.len());
        for (k, v) in a.iter() {
            entries.push((K::thaw(k, t)?, V::thaw(v, t)?));
        }
        Ok(Leaf(entries))
    }
    /// By position: of entries without skipped fields alone, as the map sees to.
    fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        countable::<ArchivedEntry<K::Archived, V::Archived>>(a.len(), t)?;
        self.0.truncate(a.len());
        for ((key, value), (k, v)) in self.0.iter_mut().zip(a.iter()) {
            key.restore(k, t)?;
            value.restore(v, t)?;
        }
        for (k, v) in a.iter().skip(self.0.len()) {
            self.0.push((K::thaw(k, t)?, V::thaw(v, t)?));
        }
        Ok(())
    }
    fn canonical(&self, other: &Self) -> Ordering {
        let (a, b) = (self.0.iter(), other.0.iter());
        canonical_sorted(a.map(|(k, v)| (k, v)), b.map(|(k, v)| (k, v)))
    }
    fn schema(s: &mut Schema) -> Shape {
        s.node::<Self>(|s| {
            let (key, value) = (K::schema(s), V::schema(s));
            Node::new::<Self::Archived>("map").part("key", key).part("value", value)
        })
    }
}

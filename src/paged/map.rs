#![forbid(unsafe_code)]
//! [`PagedMap`]: a map whose copies, captures and rollbacks cost what has changed.
//!
//! Entries lie in leaves, one a page, each sorted; `order` says which leaf comes after which. So a
//! change is written to one page, rarely to two or three, and both the live map and its archive are
//! searched as they are, without an index that would be made anew after a restore. By order rather
//! than by hash: the canonical order of keys is the same in every process and build, which nobody
//! promises of `Hash`; a key that is hashed otherwise by the next compiler would not be found.

use std::{cmp::Ordering, fmt, mem, ops::Index};

use super::{
    leaf::{Leaf, compare},
    map_walk::{MapIntoIter, MapIter},
    vec::PagedVec,
};
use crate::snapshot::Snapshot;

/// A map in pages, of which clones and captures take a share rather than a copy.
///
/// It is used like a `BTreeMap`, but for the order of its keys, which is the canonical one: of
/// numbers by value, of texts by their bytes, of structs field by field, and so on. Keys need
/// neither `Ord` nor `Hash`. A clone costs about 20 bytes a page; the first write to a page after
/// that copies this one page, if somebody else still holds it. A snapshot writes down only the
/// pages that have changed, and a rollback restores only those. A page is as many entries as fit
/// 4 KiB, but at least 16 and at most 256.
///
/// A lookup is a binary search, first over the pages and then in one. An insertion or a removal
/// moves the entries behind it in the page; at times a page is split or two are joined.
///
/// Keys and values are as the items of a [`PagedVec`]: `Snapshot + Clone + Send + Sync`, and
/// without anything that changes behind `&` or is shared.
///
/// # Example
///
/// ```
/// use snapring::PagedMap;
///
/// let mut gold: PagedMap<String, u64> = PagedMap::new();
/// gold.insert("ann".to_owned(), 10);
/// gold.insert("bob".to_owned(), 20);
/// let before = gold.clone();
/// *gold.get_mut("ann").unwrap() += 5;
/// assert_eq!(gold.get("ann"), Some(&15));
/// assert_eq!(before.get("ann"), Some(&10));
/// assert_eq!(gold.remove("bob"), Some(20));
/// assert_eq!(gold.len(), 1);
/// ```
pub struct PagedMap<K, V> {
    /// One a page.
    pub(super) leaves: PagedVec<Leaf<K, V>>,
    /// The numbers of the leaves that have entries, in the order of their keys.
    pub(super) order: Vec<u32>,
    /// What parts them: sort keys that are no greater than those of their first keys, and greater
    /// than or equal to those of all keys before.
    pub(super) firsts: Vec<u64>,
    /// The numbers of the leaves that have none.
    pub(super) free: Vec<u32>,
    pub(super) len: usize,
}

/// What a key can be looked for by: a key, or a `str` where keys are texts.
pub trait Lookup<K> {
    /// How this stands to a key, in the canonical order.
    fn compare(&self, key: &K) -> Ordering;

    /// The sort key of the key that this stands for.
    fn sort_key(&self) -> u64;
}

impl<K: Snapshot> Lookup<K> for K {
    #[inline]
    fn compare(&self, key: &K) -> Ordering {
        compare(self, key)
    }
    #[inline]
    fn sort_key(&self) -> u64 {
        Snapshot::sort_key(self)
    }
}

macro_rules! text {
    ($($text:ty),+) => {$(
        impl Lookup<$text> for str {
            fn compare(&self, key: &$text) -> Ordering {
                self.cmp(&**key)
            }
            fn sort_key(&self) -> u64 {
                crate::impls::text::text_key(self)
            }
        }
    )+};
}

text!(String, Box<str>);

impl<K, V> PagedMap<K, V>
where
    K: Snapshot + Clone + Send + Sync + 'static,
    V: Snapshot + Clone + Send + Sync + 'static,
{
    /// An empty map. Allocates nothing.
    pub fn new() -> PagedMap<K, V> {
        PagedMap::of(PagedVec::with_page_len(1))
    }

    /// Over leaves that are put in order later.
    pub(super) fn of(leaves: PagedVec<Leaf<K, V>>) -> PagedMap<K, V> {
        PagedMap { leaves, order: Vec::new(), firsts: Vec::new(), free: Vec::new(), len: 0 }
    }

    /// How many entries there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn leaf(&self, rank: usize) -> &[(K, V)] {
        &self.leaves[self.order[rank] as usize].0
    }

    /// The leaf where `key` belongs; `None` where that is before the first.
    #[inline]
    fn rank<Q: Lookup<K> + ?Sized>(&self, key: &Q) -> Option<usize> {
        let sort_key = key.sort_key();
        let mut end = self.firsts.partition_point(|first| *first <= sort_key);
        if K::KEY_BITS == 0 {
            // Among those of the same sort key the keys themselves tell.
            let begin = self.firsts[..end].partition_point(|first| *first < sort_key);
            let is_before = |leaf: &u32| {
                let first = self.leaves[*leaf as usize].0.first();
                first.is_some_and(|(k, _)| key.compare(k).is_ge())
            };
            end = begin + self.order[begin..end].partition_point(is_before);
        }
        end.checked_sub(1)
    }

    /// The number of a leaf and the place in it of `key`.
    #[inline]
    fn find<Q: Lookup<K> + ?Sized>(&self, key: &Q) -> Option<(usize, usize, usize)> {
        let rank = self.rank(key)?;
        let at = self.leaf(rank).binary_search_by(|(k, _)| key.compare(k).reverse()).ok()?;
        Some((rank, self.order[rank] as usize, at))
    }

    /// The value of `key`: a key, or a `&str` where keys are `String`s.
    #[inline]
    pub fn get<Q: Lookup<K> + ?Sized>(&self, key: &Q) -> Option<&V> {
        let (_, leaf, at) = self.find(key)?;
        Some(&self.leaves[leaf].0[at].1)
    }

    /// The value of `key`, to be written. Its page counts as changed, and is copied first if a
    /// clone or a capture holds it. Nothing changes where there is none.
    #[inline]
    pub fn get_mut<Q: Lookup<K> + ?Sized>(&mut self, key: &Q) -> Option<&mut V> {
        let (_, leaf, at) = self.find(key)?;
        Some(&mut self.leaves[leaf].0[at].1)
    }

    /// Whether there is a `key`.
    pub fn contains_key<Q: Lookup<K> + ?Sized>(&self, key: &Q) -> bool {
        self.find(key).is_some()
    }

    /// Sets the value of `key`; answers the one it had. A key that is there stays as it is.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let sort_key = Snapshot::sort_key(&key);
        let found = self.rank(&key);
        let Some(last) = self.order.len().checked_sub(1) else {
            self.add_leaf(0, sort_key, vec![(key, value)]);
            self.len = 1;
            return None;
        };
        // What comes before all others goes to the first leaf.
        let rank = found.unwrap_or(0);
        let place = self.leaf(rank).binary_search_by(|(k, _)| compare(&key, k).reverse());
        let leaf = &mut self.leaves[self.order[rank] as usize].0;
        let at = match place {
            Ok(at) => return Some(mem::replace(&mut leaf[at].1, value)),
            Err(at) => at,
        };
        if leaf.len() < Leaf::<K, V>::MOST {
            leaf.insert(at, (key, value));
        } else if rank == last && at == leaf.len() {
            // Keys that only grow leave full leaves behind.
            self.add_leaf(rank + 1, sort_key, vec![(key, value)]);
        } else {
            let half = leaf.len() / 2;
            let middle = Snapshot::sort_key(&leaf[half].0);
            let mut upper = leaf.split_off(half);
            if at <= half {
                leaf.insert(at, (key, value));
            } else {
                upper.insert(at - half, (key, value));
            }
            self.add_leaf(rank + 1, middle, upper);
        }
        if found.is_none() {
            self.firsts[0] = sort_key;
        }
        self.len += 1;
        None
    }

    /// One leaf more.
    fn add_leaf(&mut self, rank: usize, first: u64, entries: Vec<(K, V)>) {
        let number = match self.free.pop() {
            Some(number) => {
                self.leaves[number as usize].0 = entries;
                number
            }
            None => {
                self.leaves.push(Leaf(entries));
                (self.leaves.len() - 1) as u32
            }
        };
        self.order.insert(rank, number);
        self.firsts.insert(rank, first);
    }

    /// Takes the entry of `key`; answers its value.
    pub fn remove<Q: Lookup<K> + ?Sized>(&mut self, key: &Q) -> Option<V> {
        self.remove_entry(key).map(|(_, value)| value)
    }

    /// Takes the entry of `key`.
    pub fn remove_entry<Q: Lookup<K> + ?Sized>(&mut self, key: &Q) -> Option<(K, V)> {
        let (rank, number, at) = self.find(key)?;
        let leaf = &mut self.leaves[number].0;
        let entry = leaf.remove(at);
        let left = leaf.len();
        self.len -= 1;
        if left == 0 {
            self.drop_leaf(rank);
        } else if left <= Leaf::<K, V>::MOST / 4 {
            self.join(rank);
        }
        Some(entry)
    }

    /// A leaf without entries is not in the order.
    fn drop_leaf(&mut self, rank: usize) {
        let number = self.order.remove(rank);
        self.firsts.remove(rank);
        self.free.push(number);
        if self.order.is_empty() {
            self.leaves.clear();
            self.free.clear();
        }
    }

    /// Puts a small leaf together with its neighbour, if that has room.
    fn join(&mut self, rank: usize) {
        let lower = if rank + 1 < self.order.len() { rank } else { rank.saturating_sub(1) };
        let upper = lower + 1;
        let fits =
            |map: &Self| map.leaf(lower).len() + map.leaf(upper).len() <= Leaf::<K, V>::MOST / 2;
        if upper >= self.order.len() || !fits(self) {
            return;
        }
        let (to, from) = (self.order[lower] as usize, self.order[upper] as usize);
        // Copied first if need be: a `clone` that panics finds all entries in their places.
        self.leaves[to].0.reserve(Leaf::<K, V>::MOST / 2);
        let mut moved = mem::take(&mut self.leaves[from].0);
        self.leaves[to].0.append(&mut moved);
        self.drop_leaf(upper);
    }

    /// Drops all entries.
    pub fn clear(&mut self) {
        self.order.clear();
        self.firsts.clear();
        self.free.clear();
        self.len = 0;
        self.leaves.clear();
    }

    /// Keys and values, in the canonical order of the keys.
    pub fn iter(&self) -> MapIter<'_, K, V> {
        MapIter::new(&self.leaves, &self.order, self.len)
    }

    /// The keys, in canonical order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &K> + DoubleEndedIterator + Clone {
        self.iter().map(|(k, _)| k)
    }

    /// The values, in the canonical order of their keys.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> + DoubleEndedIterator + Clone {
        self.iter().map(|(_, v)| v)
    }

    /// Keys and values, to be written, page by page, in no order that can be relied on. Pages count
    /// as changed as the iterator comes to them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.leaves.iter_mut().flat_map(|leaf| leaf.0.iter_mut().map(|(k, v)| (&*k, v)))
    }

    /// The values, to be written; as [`iter_mut`](Self::iter_mut).
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.iter_mut().map(|(_, v)| v)
    }

    /// The first entry in canonical order.
    pub fn first_key_value(&self) -> Option<(&K, &V)> {
        self.iter().next()
    }

    /// The last entry in canonical order.
    pub fn last_key_value(&self) -> Option<(&K, &V)> {
        self.iter().next_back()
    }
}

/// Shares all pages with the original; what is written to after, by either, is copied then.
impl<K, V> Clone for PagedMap<K, V> {
    fn clone(&self) -> PagedMap<K, V> {
        PagedMap {
            leaves: self.leaves.clone(),
            order: self.order.clone(),
            firsts: self.firsts.clone(),
            free: self.free.clone(),
            len: self.len,
        }
    }
}

impl<K, V> Default for PagedMap<K, V>
where
    K: Snapshot + Clone + Send + Sync + 'static,
    V: Snapshot + Clone + Send + Sync + 'static,
{
    fn default() -> PagedMap<K, V> {
        PagedMap::new()
    }
}

impl<K, V> Extend<(K, V)> for PagedMap<K, V>
where
    K: Snapshot + Clone + Send + Sync + 'static,
    V: Snapshot + Clone + Send + Sync + 'static,
{
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (k, v) in entries {
            self.insert(k, v);
        }
    }
}

/// Of two equal keys the last one's value counts.
impl<K, V> FromIterator<(K, V)> for PagedMap<K, V>
where
    K: Snapshot + Clone + Send + Sync + 'static,
    V: Snapshot + Clone + Send + Sync + 'static,
{
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> PagedMap<K, V> {
        let mut map = PagedMap::new();
        map.extend(entries);
        map
    }
}

impl<'a, K, V> IntoIterator for &'a PagedMap<K, V>
where
    K: Snapshot + Clone + Send + Sync + 'static,
    V: Snapshot + Clone + Send + Sync + 'static,
{
    type Item = (&'a K, &'a V);
    type IntoIter = MapIter<'a, K, V>;

    fn into_iter(self) -> MapIter<'a, K, V> {
        self.iter()
    }
}

/// Keys and values in the canonical order of the keys. Pages that a clone or a capture holds are
/// cloned first.
impl<K, V> IntoIterator for PagedMap<K, V>
where
    K: Snapshot + Clone + Send + Sync + 'static,
    V: Snapshot + Clone + Send + Sync + 'static,
{
    type Item = (K, V);
    type IntoIter = MapIntoIter<K, V>;

    fn into_iter(self) -> MapIntoIter<K, V> {
        MapIntoIter::new(self.leaves, self.order, self.len)
    }
}

impl<K, V> fmt::Debug for PagedMap<K, V>
where
    K: Snapshot + fmt::Debug + Clone + Send + Sync + 'static,
    V: Snapshot + fmt::Debug + Clone + Send + Sync + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

/// Equal entries, whatever the pages.
impl<K, V> PartialEq for PagedMap<K, V>
where
    K: Snapshot + PartialEq + Clone + Send + Sync + 'static,
    V: Snapshot + PartialEq + Clone + Send + Sync + 'static,
{
    fn eq(&self, other: &PagedMap<K, V>) -> bool {
        self.len == other.len && self.iter().eq(other)
    }
}

impl<K, V> Eq for PagedMap<K, V>
where
    K: Snapshot + Eq + Clone + Send + Sync + 'static,
    V: Snapshot + Eq + Clone + Send + Sync + 'static,
{
}

/// The value of a key that is there.
impl<K, V, Q> Index<&Q> for PagedMap<K, V>
where
    K: Snapshot + Clone + Send + Sync + 'static,
    V: Snapshot + Clone + Send + Sync + 'static,
    Q: Lookup<K> + ?Sized,
{
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        match self.get(key) {
            Some(value) => value,
            None => panic!("no entry found for key"),
        }
    }
}

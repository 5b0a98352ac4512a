//! The archived forms of maps and sets: entries side by side behind one pointer.
//!
//! Knows how to look something up. Who sorts the entries, and how they come back to life, is the
//! affair of `impls`.

use std::{cmp::Ordering, fmt};

use rkyv::{
    Place, Portable,
    bytecheck::CheckBytes,
    munge::munge,
    rancor::{BoxedError, ResultExt as _},
    string::ArchivedString,
    vec::{ArchivedVec, VecResolver},
};

use crate::{checker::Checker, snapshot::Snapshot};

/// One entry of an archived map.
#[derive(Debug)]
#[repr(C)]
pub struct ArchivedEntry<K, V> {
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
}

// SAFETY: `repr(C)` over portable fields.
unsafe impl<K: Portable, V: Portable> Portable for ArchivedEntry<K, V> {}

// SAFETY: an entry is valid where its key and its value are.
unsafe impl<K: CheckBytes<Checker>, V: CheckBytes<Checker>> CheckBytes<Checker>
    for ArchivedEntry<K, V>
{
    unsafe fn check_bytes(entry: *const Self, c: &mut Checker) -> Result<(), BoxedError> {
        // SAFETY: the caller's `entry` is aligned and in bounds.
        let key = unsafe { &raw const (*entry).key };
        // SAFETY: a field of it is too.
        unsafe { K::check_bytes(key, c) }.trace("in the key of an entry")?;
        // SAFETY: as for the key.
        let value = unsafe { &raw const (*entry).value };
        // SAFETY: as for the key.
        unsafe { V::check_bytes(value, c) }.trace("in the value of an entry")
    }
}

macro_rules! run {
    ($(#[$doc:meta])* $name:ident<$($P:ident),+>, $item:ty) => {
        $(#[$doc])*
        #[repr(transparent)]
        pub struct $name<$($P),+> {
            run: ArchivedVec<$item>,
        }

        // SAFETY: transparent over a portable field.
        unsafe impl<$($P: Portable),+> Portable for $name<$($P),+> {}

        // SAFETY: it is valid where the run is, in whatever order.
        unsafe impl<$($P: CheckBytes<Checker>),+> CheckBytes<Checker> for $name<$($P),+> {
            unsafe fn check_bytes(it: *const Self, c: &mut Checker) -> Result<(), BoxedError> {
                // SAFETY: transparent, so what holds for `it` holds for the run.
                unsafe { ArchivedVec::<$item>::check_bytes(it.cast(), c) }
            }
        }

        impl<$($P),+> $name<$($P),+> {
            /// How many there are.
            pub fn len(&self) -> usize {
                self.run.len()
            }

            /// Whether there is none.
            pub fn is_empty(&self) -> bool {
                self.run.is_empty()
            }

            /// All of them, side by side as they lie in the archive.
            pub fn as_slice(&self) -> &[$item] {
                self.run.as_slice()
            }

            /// Writes the form of `len` items whose first is at `pos`.
            #[inline]
            pub(crate) fn resolve(len: usize, pos: usize, out: Place<Self>) {
                munge!(let $name { run } = out);
                ArchivedVec::resolve_from_len(len, VecResolver::from_pos(pos), run);
            }
        }
    };
}

run! {
    /// An archived `HashMap` or `BTreeMap`: its entries in the canonical order of the keys, so that
    /// equal maps have equal bytes and a key is found by binary search.
    ArchivedMap<K, V>, ArchivedEntry<K, V>
}
run! {
    /// An archived map of `#[snapshot(unsorted)]`: its entries in the order in which the live map
    /// gave them.
    ArchivedEntries<K, V>, ArchivedEntry<K, V>
}
run! {
    /// An archived `HashSet` or `BTreeSet`: its items in canonical order.
    ArchivedSet<T>, T
}
run! {
    /// An archived set of `#[snapshot(unsorted)]`: its items in the order in which the live set gave
    /// them.
    ArchivedItems<T>, T
}

/// What both forms of maps can do.
macro_rules! map {
    ($name:ident) => {
        impl<K, V> $name<K, V> {
            /// Keys and values, as they lie in the archive.
            pub fn iter(
                &self,
            ) -> impl ExactSizeIterator<Item = (&K, &V)> + DoubleEndedIterator + Clone {
                self.as_slice().iter().map(|e| (&e.key, &e.value))
            }

            /// The keys.
            pub fn keys(&self) -> impl ExactSizeIterator<Item = &K> + DoubleEndedIterator + Clone {
                self.as_slice().iter().map(|e| &e.key)
            }

            /// The values.
            pub fn values(
                &self,
            ) -> impl ExactSizeIterator<Item = &V> + DoubleEndedIterator + Clone {
                self.as_slice().iter().map(|e| &e.value)
            }
        }

        impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for $name<K, V> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_map().entries(self.iter()).finish()
            }
        }
    };
}

map!(ArchivedMap);
map!(ArchivedEntries);

/// What both forms of sets can do.
macro_rules! set {
    ($name:ident) => {
        impl<T> $name<T> {
            /// The items, as they lie in the archive.
            pub fn iter(&self) -> std::slice::Iter<'_, T> {
                self.as_slice().iter()
            }
        }

        impl<'a, T> IntoIterator for &'a $name<T> {
            type Item = &'a T;
            type IntoIter = std::slice::Iter<'a, T>;

            fn into_iter(self) -> Self::IntoIter {
                self.iter()
            }
        }

        impl<T: fmt::Debug> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_set().entries(self).finish()
            }
        }
    };
}

set!(ArchivedSet);
set!(ArchivedItems);

impl<K, V> ArchivedMap<K, V> {
    /// The value of `key`, by binary search: about log2 of [`len`](Self::len) comparisons.
    pub fn get<Q: Snapshot<Archived = K>>(&self, key: &Q) -> Option<&V> {
        self.find(|k| key.cmp_archived(k))
    }

    /// Whether there is a `key`; as [`get`](Self::get).
    pub fn contains_key<Q: Snapshot<Archived = K>>(&self, key: &Q) -> bool {
        self.get(key).is_some()
    }

    /// `order` says where the key sought stands to one it is shown.
    pub(crate) fn find(&self, order: impl Fn(&K) -> Ordering) -> Option<&V> {
        let entries = self.as_slice();
        let found = entries.binary_search_by(|e| order(&e.key).reverse()).ok()?;
        Some(&entries[found].value)
    }
}

impl<V> ArchivedMap<ArchivedString, V> {
    /// The value of a text, without a `String` to look for; as [`get`](Self::get).
    pub fn get_str(&self, key: &str) -> Option<&V> {
        self.find(|k| key.cmp(k.as_str()))
    }
}

impl<K, V> ArchivedEntries<K, V> {
    /// The first entry whose key is as `is` wants it. Looks at every entry before it.
    pub fn find(&self, mut is: impl FnMut(&K) -> bool) -> Option<(&K, &V)> {
        self.iter().find(|(k, _)| is(k))
    }
}

impl<T> ArchivedSet<T> {
    /// Whether `item` is in the set, by binary search: about log2 of [`len`](Self::len)
    /// comparisons.
    pub fn contains<Q: Snapshot<Archived = T>>(&self, item: &Q) -> bool {
        self.as_slice().binary_search_by(|x| item.cmp_archived(x).reverse()).is_ok()
    }
}

impl ArchivedSet<ArchivedString> {
    /// Whether a text is in the set, without a `String` to look for; as
    /// [`contains`](Self::contains).
    pub fn contains_str(&self, item: &str) -> bool {
        self.as_slice().binary_search_by(|x| x.as_str().cmp(item)).is_ok()
    }
}

impl<T> ArchivedItems<T> {
    /// The first item that is as `is` wants it. Looks at every item before it.
    pub fn find(&self, mut is: impl FnMut(&T) -> bool) -> Option<&T> {
        self.iter().find(|x| is(x))
    }
}

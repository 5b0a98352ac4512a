#![forbid(unsafe_code)]
//! Walks over a paged map, leaf by leaf in the order of the keys.

use std::{fmt, iter::FusedIterator, mem, slice, vec};

use super::{leaf::Leaf, vec::PagedVec};
use crate::snapshot::Snapshot;

/// The entries of a [`PagedMap`](super::PagedMap), in the canonical order of their keys.
pub struct MapIter<'a, K, V> {
    leaves: &'a PagedVec<Leaf<K, V>>,
    middle: slice::Iter<'a, u32>,
    front: slice::Iter<'a, (K, V)>,
    back: slice::Iter<'a, (K, V)>,
    left: usize,
}

impl<'a, K, V> MapIter<'a, K, V> {
    pub(super) fn new(
        leaves: &'a PagedVec<Leaf<K, V>>,
        order: &'a [u32],
        left: usize,
    ) -> MapIter<'a, K, V> {
        MapIter { leaves, middle: order.iter(), front: [].iter(), back: [].iter(), left }
    }

    fn leaf(&self, number: u32) -> slice::Iter<'a, (K, V)> {
        self.leaves.pages.get(number as usize).map_or([].iter(), |leaf| leaf.0.iter())
    }

    fn count(&mut self, entry: Option<&'a (K, V)>) -> Option<(&'a K, &'a V)> {
        let (key, value) = entry?;
        self.left -= 1;
        Some((key, value))
    }
}

impl<'a, K, V> Iterator for MapIter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<(&'a K, &'a V)> {
        if self.front.len() == 0 {
            match self.middle.next() {
                Some(number) => self.front = self.leaf(*number),
                None => mem::swap(&mut self.front, &mut self.back),
            }
        }
        let entry = self.front.next();
        self.count(entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<'a, K, V> DoubleEndedIterator for MapIter<'a, K, V> {
    fn next_back(&mut self) -> Option<(&'a K, &'a V)> {
        if self.back.len() == 0 {
            match self.middle.next_back() {
                Some(number) => self.back = self.leaf(*number),
                None => mem::swap(&mut self.front, &mut self.back),
            }
        }
        let entry = self.back.next_back();
        self.count(entry)
    }
}

impl<K, V> ExactSizeIterator for MapIter<'_, K, V> {}
impl<K, V> FusedIterator for MapIter<'_, K, V> {}

impl<K, V> Clone for MapIter<'_, K, V> {
    fn clone(&self) -> Self {
        let (front, back) = (self.front.clone(), self.back.clone());
        let (leaves, middle, left) = (self.leaves, self.middle.clone(), self.left);
        MapIter { leaves, middle, front, back, left }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for MapIter<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.clone()).finish()
    }
}

/// The entries of a [`PagedMap`](super::PagedMap), owned, in the canonical order of their keys.
pub struct MapIntoIter<K, V> {
    leaves: Vec<Leaf<K, V>>,
    order: vec::IntoIter<u32>,
    front: vec::IntoIter<(K, V)>,
    left: usize,
}

impl<K, V> MapIntoIter<K, V>
where
    K: Snapshot + Clone + Send + Sync + 'static,
    V: Snapshot + Clone + Send + Sync + 'static,
{
    pub(super) fn new(
        leaves: PagedVec<Leaf<K, V>>,
        order: Vec<u32>,
        left: usize,
    ) -> MapIntoIter<K, V> {
        let leaves = leaves.into_iter().collect();
        MapIntoIter { leaves, order: order.into_iter(), front: Vec::new().into_iter(), left }
    }
}

impl<K, V> Iterator for MapIntoIter<K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        if self.front.len() == 0 {
            let leaf = self.leaves.get_mut(self.order.next()? as usize)?;
            self.front = mem::take(&mut leaf.0).into_iter();
        }
        self.left -= 1;
        self.front.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<K, V> ExactSizeIterator for MapIntoIter<K, V> {}
impl<K, V> FusedIterator for MapIntoIter<K, V> {}

impl<K, V> fmt::Debug for MapIntoIter<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapIntoIter").field("left", &self.left).finish_non_exhaustive()
    }
}

#![forbid(unsafe_code)]
//! Walks over a paged vector: page by page, and inside a page as over a slice.

use std::{fmt, iter::FusedIterator, ops::Range, slice, sync::Arc, vec};

use super::{
    page::Page,
    pages::{Pages, PagesMut},
};

/// The items of a [`PagedVec`](super::PagedVec), in order.
pub struct Iter<'a, T> {
    pages: &'a Pages<T>,
    middle: Range<usize>,
    front: slice::Iter<'a, T>,
    back: slice::Iter<'a, T>,
}

impl<'a, T> Iter<'a, T> {
    pub(crate) fn new(pages: &'a Pages<T>) -> Iter<'a, T> {
        Iter { middle: 0..pages.pages(), pages, front: [].iter(), back: [].iter() }
    }

    #[inline]
    fn turn(&mut self) -> Option<&'a T> {
        match self.middle.next() {
            Some(p) => {
                self.front = self.pages.page(p).iter();
                self.front.next()
            }
            None => self.back.next(),
        }
    }

    #[inline]
    fn turn_back(&mut self) -> Option<&'a T> {
        match self.middle.next_back() {
            Some(p) => {
                self.back = self.pages.page(p).iter();
                self.back.next_back()
            }
            None => self.front.next_back(),
        }
    }
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    #[inline]
    fn next(&mut self) -> Option<&'a T> {
        match self.front.next() {
            Some(item) => Some(item),
            None => self.turn(),
        }
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.front.len() + self.pages.items_in(&self.middle) + self.back.len();
        (len, Some(len))
    }

    fn fold<B, F: FnMut(B, &'a T) -> B>(self, init: B, mut f: F) -> B {
        let mut acc = self.front.fold(init, &mut f);
        for p in self.middle {
            acc = self.pages.page(p).iter().fold(acc, &mut f);
        }
        self.back.fold(acc, f)
    }
}

impl<'a, T> DoubleEndedIterator for Iter<'a, T> {
    #[inline]
    fn next_back(&mut self) -> Option<&'a T> {
        match self.back.next_back() {
            Some(item) => Some(item),
            None => self.turn_back(),
        }
    }
}

impl<T> ExactSizeIterator for Iter<'_, T> {}
impl<T> FusedIterator for Iter<'_, T> {}

impl<T> Clone for Iter<'_, T> {
    fn clone(&self) -> Self {
        let (front, back) = (self.front.clone(), self.back.clone());
        Iter { pages: self.pages, middle: self.middle.clone(), front, back }
    }
}

impl<T: fmt::Debug> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// The items of a [`PagedVec`](super::PagedVec), in order, to be written. A page that is reached
/// counts as changed, whether its items are written or not; the others do not.
pub struct IterMut<'a, T> {
    middle: PagesMut<'a, T>,
    front: slice::IterMut<'a, T>,
    back: slice::IterMut<'a, T>,
}

impl<'a, T: Clone> IterMut<'a, T> {
    pub(crate) fn new(pages: &'a mut Pages<T>) -> IterMut<'a, T> {
        let (front, back) = ([].iter_mut(), [].iter_mut());
        IterMut { middle: pages.hand_out(), front, back }
    }

    #[inline]
    fn turn(&mut self) -> Option<&'a mut T> {
        match self.middle.next() {
            Some(page) => {
                self.front = page.iter_mut();
                self.front.next()
            }
            None => self.back.next(),
        }
    }

    #[inline]
    fn turn_back(&mut self) -> Option<&'a mut T> {
        match self.middle.next_back() {
            Some(page) => {
                self.back = page.iter_mut();
                self.back.next_back()
            }
            None => self.front.next_back(),
        }
    }
}

impl<'a, T: Clone> Iterator for IterMut<'a, T> {
    type Item = &'a mut T;

    #[inline]
    fn next(&mut self) -> Option<&'a mut T> {
        match self.front.next() {
            Some(item) => Some(item),
            None => self.turn(),
        }
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.front.len() + self.middle.items_left() + self.back.len();
        (len, Some(len))
    }

    fn fold<B, F: FnMut(B, &'a mut T) -> B>(mut self, init: B, mut f: F) -> B {
        let mut acc = self.front.fold(init, &mut f);
        while let Some(page) = self.middle.next() {
            acc = page.iter_mut().fold(acc, &mut f);
        }
        self.back.fold(acc, f)
    }
}

impl<'a, T: Clone> DoubleEndedIterator for IterMut<'a, T> {
    #[inline]
    fn next_back(&mut self) -> Option<&'a mut T> {
        match self.back.next_back() {
            Some(item) => Some(item),
            None => self.turn_back(),
        }
    }
}

impl<T: Clone> ExactSizeIterator for IterMut<'_, T> {}
impl<T: Clone> FusedIterator for IterMut<'_, T> {}

impl<T> fmt::Debug for IterMut<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IterMut").finish_non_exhaustive()
    }
}

/// The items of a [`PagedVec`](super::PagedVec), owned, in order. Those of pages that a clone or a
/// capture holds are cloned as they come.
pub struct IntoIter<T> {
    pages: Box<dyn Iterator<Item = Page<T>> + Send + Sync>,
    front: Front<T>,
    len: usize,
}

enum Front<T> {
    Owned(vec::IntoIter<T>),
    Shared(Page<T>, usize),
}

impl<T: Send + Sync + 'static> IntoIter<T> {
    pub(crate) fn new(pages: Pages<T>) -> IntoIter<T> {
        let len = pages.len();
        let pages = Box::new(pages.into_table().into_pages());
        IntoIter { pages, front: Front::Owned(Vec::new().into_iter()), len }
    }
}

impl<T: Clone> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            let item = match &mut self.front {
                Front::Owned(items) => items.next(),
                Front::Shared(page, at) => {
                    let item = page.get(*at).cloned();
                    *at += 1;
                    item
                }
            };
            if item.is_some() {
                self.len -= 1;
                return item;
            }
            self.front = match Arc::try_unwrap(self.pages.next()?) {
                Ok(items) => Front::Owned(items.into_iter()),
                Err(page) => Front::Shared(page, 0),
            };
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl<T: Clone> ExactSizeIterator for IntoIter<T> {}
impl<T: Clone> FusedIterator for IntoIter<T> {}

impl<T> fmt::Debug for IntoIter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntoIter").field("len", &self.len).finish_non_exhaustive()
    }
}

//! Arrays: elements side by side, in place. A plain element makes a plain array.

use std::{
    cmp::Ordering,
    mem::{ManuallyDrop, MaybeUninit},
};

use rkyv::Place;

use super::{
    packed_bits, plain, put,
    sequence::{canonical_runs, cmp_archived_runs, run_key},
};
use crate::{
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
};

/// An array that fills up: what is in it so far is dropped where the rest never comes.
struct Filling<T, const N: usize> {
    items: [MaybeUninit<T>; N],
    len: usize,
}

impl<T, const N: usize> Filling<T, N> {
    /// The array of what `make` makes of each position.
    fn fill<E>(mut make: impl FnMut(usize) -> Result<T, E>) -> Result<[T; N], E> {
        let mut filling = Filling { items: [const { MaybeUninit::uninit() }; N], len: 0 };
        while filling.len < N {
            let item = make(filling.len)?;
            filling.items[filling.len].write(item);
            filling.len += 1;
        }
        let filling = ManuallyDrop::new(filling);
        // SAFETY: all `N` items have been written, and `MaybeUninit` lies as what it holds;
        // `ManuallyDrop` leaves the only use of them to the caller.
        Ok(unsafe { std::ptr::from_ref(&filling.items).cast::<[T; N]>().read() })
    }
}

impl<T, const N: usize> Drop for Filling<T, N> {
    fn drop(&mut self) {
        for item in &mut self.items[..self.len] {
            // SAFETY: the first `len` items have been written, and are dropped here alone.
            unsafe { item.assume_init_drop() };
        }
    }
}

/// The key bits of `n` elements of `bits` bits side by side.
const fn array_bits(bits: u32, n: usize) -> u32 {
    if n == 0 || n > 64 { 0 } else { packed_bits([bits; 64].split_at(n).0) }
}

// SAFETY: every element is written by its own `resolve`, and nothing lies between elements; the
// array is plain where they are.
unsafe impl<T: Snapshot, const N: usize> Snapshot for [T; N] {
    type Archived = [T::Archived; N];
    type Resolver = [T::Resolver; N];
    const PLAIN: bool = T::PLAIN;
    const FROZEN: bool = T::FROZEN;
    const KEY_BITS: u32 = array_bits(T::KEY_BITS, N);

    #[inline]
    fn archive(&self, s: &mut Session) -> Result<Self::Resolver, Halt> {
        Filling::fill(|i| self[i].archive(s))
    }
    #[inline]
    fn resolve(&self, r: Self::Resolver, out: Place<Self::Archived>) {
        if T::PLAIN {
            return put(self, r, out);
        }
        for (i, (item, r)) in self.iter().zip(r).enumerate() {
            // SAFETY: `i < N`.
            item.resolve(r, unsafe { out.index(i) });
        }
    }
    #[inline]
    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        if T::PLAIN {
            return Ok(plain::<Self>(a));
        }
        Filling::fill(|i| T::thaw(&a[i], t))
    }
    #[inline]
    fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        if T::PLAIN {
            *self = plain::<Self>(a);
            return Ok(());
        }
        self.iter_mut().zip(a).try_for_each(|(item, a)| item.restore(a, t))
    }
    fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
        for (item, old) in self.iter_mut().zip(old) {
            item.adopt(old, t);
        }
    }
    fn canonical(&self, other: &Self) -> Ordering {
        canonical_runs(self.iter(), other.iter())
    }
    #[inline]
    fn sort_key(&self) -> u64 {
        if Self::KEY_BITS == 0 {
            return run_key(self.iter());
        }
        self.iter().fold(0, |key, item| super::append_key(key, T::KEY_BITS, item.sort_key()))
    }
    fn cmp_archived(&self, a: &Self::Archived) -> Ordering {
        cmp_archived_runs(self.iter(), a)
    }
    fn schema(s: &mut Schema) -> Shape {
        s.node::<Self>(|s| {
            let item = T::schema(s);
            Node::new::<Self::Archived>(format!("array[{N}]")).field("item", 0, item)
        })
    }
}

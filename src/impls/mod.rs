//! [`Snapshot`] for the standard library's types, one file a family.

pub(crate) mod array;
mod choice;
pub(crate) mod entries;
mod foreign;
pub(crate) mod hashed;
mod map;
mod number;
mod pointer;
mod range;
pub(crate) mod sequence;
mod set;
mod shared;
pub(crate) mod text;
mod tuple;
pub(crate) mod unsorted;
mod wrapper;

use rkyv::Place;

use crate::snapshot::Snapshot;

/// Zeroes all of `out`, for types with padding.
#[inline]
pub(crate) fn zero<A>(out: Place<A>) {
    // SAFETY: only zeros are written through it.
    let to = unsafe { out.ptr() };
    // SAFETY: a place is writable and aligned.
    unsafe { to.write_bytes(0, 1) };
}

/// Writes `value` to `out`: one copy where it is plain.
#[inline]
pub(crate) fn put<T: Snapshot>(value: &T, resolver: T::Resolver, out: Place<T::Archived>) {
    if !T::PLAIN {
        return value.resolve(resolver, out);
    }
    const { assert!(!T::PLAIN || size_of::<T>() == size_of::<T::Archived>()) };
    // SAFETY: what is written is initialised: plain values have no padding.
    let to = unsafe { out.ptr() };
    // SAFETY: PLAIN: the same size and alignment, every byte initialised and valid as an archived
    // value; a live value and the place do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(std::ptr::from_ref(value).cast(), to, 1) };
}

/// A plain value from its archive.
#[inline]
pub(crate) fn plain<T: Snapshot>(a: &T::Archived) -> T {
    const { assert!(!T::PLAIN || size_of::<T>() == size_of::<T::Archived>()) };
    assert!(T::PLAIN);
    // SAFETY: PLAIN: the same size and alignment, and valid in the same way; such values own
    // nothing, so that a copy of the bytes is a value of its own.
    unsafe { std::ptr::from_ref(a).cast::<T>().read() }
}

/// Appends `more`, a key of `bits` bits, to `key`.
#[inline]
pub(crate) const fn append_key(key: u64, bits: u32, more: u64) -> u64 {
    match key.checked_shl(bits) {
        Some(key) => key | more,
        None => more,
    }
}

/// The bits of several keys side by side, or none where they do not fit or one is a mere prefix.
pub(crate) const fn packed_bits(bits: &[u32]) -> u32 {
    let mut sum = 0;
    let mut i = 0;
    while i < bits.len() {
        if bits[i] == 0 || sum + bits[i] > 64 {
            return 0;
        }
        sum += bits[i];
        i += 1;
    }
    sum
}

//! What derived code calls, so that it need not be written out again for every field.
//!
//! A field that has no archive does not compile; with a word on how to do without, it does:
//!
//! ```compile_fail,E0277
//! struct Foreign;
//!
//! #[derive(snapring::Snapshot)]
//! struct Holds {
//!     foreign: Foreign,
//! }
//! ```
//!
//! ```
//! struct Foreign;
//!
//! #[derive(snapring::Snapshot)]
//! struct Holds {
//!     #[snapshot(skip = Foreign)]
//!     foreign: Foreign,
//! }
//! ```

use std::{error::Error, fmt, iter::successors, mem::ManuallyDrop, ptr};

pub use rkyv::{
    Place, Portable,
    bytecheck::CheckBytes,
    rancor::{BoxedError, Source},
};

use crate::{checker::Checker, impls, snapshot::Snapshot, with::Adapter};

/// Checks one field of an archived value; an error says where it was met.
///
/// # Safety
///
/// As [`CheckBytes::check_bytes`].
#[inline]
pub unsafe fn check_field<A: CheckBytes<Checker>>(
    at: *const A,
    checker: &mut Checker,
    field: &'static str,
    of: &'static str,
) -> Result<(), BoxedError> {
    // SAFETY: the caller keeps the contract, which is the same.
    match unsafe { A::check_bytes(at, checker) } {
        Ok(()) => Ok(()),
        Err(error) => Err(in_field(error, field, of)),
    }
}

/// Steps of the way to an error that its message tells, from the error outwards.
const MAX_STEPS: u32 = 16;

#[cold]
fn in_field(error: BoxedError, field: &'static str, of: &'static str) -> BoxedError {
    // rkyv may have wrapped the last step in traces of its own.
    let last = successors(Some(BoxedError::inner(&error)), |&e| e.source())
        .find_map(|e| e.downcast_ref::<InField>());
    let steps = last.map_or(1, |last| last.steps + 1);
    if steps > MAX_STEPS {
        return error;
    }
    BoxedError::new(InField { error, field, of, steps })
}

/// An error met inside a field.
#[derive(Debug)]
struct InField {
    error: BoxedError,
    field: &'static str,
    of: &'static str,
    steps: u32,
}

impl fmt::Display for InField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, in field {} of {}", self.error, self.field, self.of)
    }
}

impl Error for InField {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(BoxedError::inner(&self.error))
    }
}

/// A tag that names no variant.
#[derive(Debug)]
struct InvalidVariant {
    tag: u8,
    of: &'static str,
}

impl fmt::Display for InvalidVariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid variant {} of {}", self.tag, self.of)
    }
}

impl Error for InvalidVariant {}

/// The refusal of a tag.
#[cold]
pub fn invalid_variant(tag: u8, of: &'static str) -> BoxedError {
    BoxedError::new(InvalidVariant { tag, of })
}

/// The value is not the one that was archived: a container gave another at its second walk.
///
/// # Panics
///
/// Always.
#[cold]
pub fn unsteady(of: &'static str) -> ! {
    panic!("a value of type {of} changed its variant while it was archived")
}

/// [`Snapshot::FROZEN`] of a field.
pub const fn frozen<F: Snapshot>() -> bool {
    F::FROZEN
}

/// [`Adapter::FROZEN`] of a field.
pub const fn frozen_by<A: Adapter<F>, F>() -> bool {
    A::FROZEN
}

/// The one byte of an enum without fields.
///
/// # Safety
///
/// The byte is initialised.
///
/// # Panics
///
/// Where the size is not 1.
pub const unsafe fn byte<T>(value: ManuallyDrop<T>) -> u8 {
    assert!(size_of::<T>() == 1);
    // SAFETY: one byte, which the caller says is initialised.
    unsafe { *ptr::from_ref(&value).cast::<u8>() }
}

/// How many bits the keys of several fields take side by side.
pub const fn packed_bits(bits: &[u32]) -> u32 {
    impls::packed_bits(bits)
}

/// Appends the key of a field, of `bits` bits, to `key`.
#[inline]
pub const fn append_key(key: u64, bits: u32, more: u64) -> u64 {
    impls::append_key(key, bits, more)
}

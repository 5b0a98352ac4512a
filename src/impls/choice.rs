//! `Option` and `Result`: a tag byte, and one of two payloads after it.

use std::{cmp::Ordering, mem::offset_of};

use rkyv::{Place, option::ArchivedOption, result::ArchivedResult};

use super::{put, zero};
use crate::{
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
};

/// How a variant of a `repr(u8)` enum lies in memory.
#[repr(C)]
struct Variant<A>(u8, A);

/// Writes the tag of a zeroed enum.
#[inline]
fn put_tag<A>(tag: u8, out: Place<A>) {
    // SAFETY: one initialised byte is written through it.
    let to = unsafe { out.ptr() };
    // SAFETY: a `repr(u8)` enum starts with its tag.
    unsafe { to.cast::<u8>().write(tag) };
}

/// The place of the payload of a variant with one field.
///
/// # Safety
///
/// `A` is a `repr(u8)` enum with such a variant.
#[inline]
unsafe fn payload<A, P>(out: Place<A>) -> Place<P> {
    // SAFETY: nothing is written through it here.
    let base = unsafe { out.ptr() };
    // SAFETY: the layout of `repr(u8)` enums: a union of structs such as `Variant`.
    let at = unsafe { base.cast::<u8>().add(offset_of!(Variant<P>, 1)) };
    // SAFETY: inside `out`, aligned as a field of it; a place's bytes are initialised.
    unsafe { Place::from_field_unchecked(out, at.cast()) }
}

// SAFETY: all of the archived form is zeroed before the tag and the payload are written; the tags
// are those of `ArchivedOption`, in order.
unsafe impl<T: Snapshot> Snapshot for Option<T> {
    type Archived = ArchivedOption<T::Archived>;
    type Resolver = Option<T::Resolver>;
    const FROZEN: bool = T::FROZEN;
    const KEY_BITS: u32 = if T::KEY_BITS > 0 && T::KEY_BITS < 64 { T::KEY_BITS + 1 } else { 0 };

    #[inline]
    fn archive(&self, s: &mut Session) -> Result<Self::Resolver, Halt> {
        match self {
            Some(value) => Ok(Some(value.archive(s)?)),
            None => Ok(None),
        }
    }
    #[inline]
    fn resolve(&self, r: Self::Resolver, out: Place<Self::Archived>) {
        zero(out);
        if let (Some(value), Some(r)) = (self, r) {
            put_tag(1, out);
            // SAFETY: `ArchivedOption` is `repr(u8)`, and `Some` has one field.
            put(value, r, unsafe { payload(out) });
        }
    }
    #[inline]
    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        match a {
            ArchivedOption::Some(a) => Ok(Some(T::thaw(a, t)?)),
            ArchivedOption::None => Ok(None),
        }
    }
    #[inline]
    fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        if let (Some(value), ArchivedOption::Some(a)) = (&mut *self, a) {
            return value.restore(a, t);
        }
        *self = Self::thaw(a, t)?;
        Ok(())
    }
    fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
        if let (Some(value), Some(old)) = (self, old) {
            value.adopt(old, t);
        }
    }
    fn canonical(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Some(x), Some(y)) => x.canonical(y),
            (x, y) => x.is_some().cmp(&y.is_some()),
        }
    }
    fn sort_key(&self) -> u64 {
        match self {
            Some(value) if Self::KEY_BITS > 0 => 1 << T::KEY_BITS | value.sort_key(),
            // The top bit goes to the tag, and the lowest of the key is lost: still a prefix.
            Some(value) => 1 << 63 | value.sort_key() >> 1,
            None => 0,
        }
    }
    fn cmp_archived(&self, a: &Self::Archived) -> Ordering {
        match (self, a) {
            (Some(x), ArchivedOption::Some(y)) => x.cmp_archived(y),
            (x, y) => x.is_some().cmp(&y.is_some()),
        }
    }
    fn schema(s: &mut Schema) -> Shape {
        s.node::<Self>(|s| {
            let item = T::schema(s);
            let at = offset_of!(Variant<T::Archived>, 1);
            Node::new::<Self::Archived>("option").field("item", at, item)
        })
    }
}

// SAFETY: as for `Option`.
unsafe impl<T: Snapshot, E: Snapshot> Snapshot for Result<T, E> {
    type Archived = ArchivedResult<T::Archived, E::Archived>;
    type Resolver = Result<T::Resolver, E::Resolver>;
    const FROZEN: bool = T::FROZEN && E::FROZEN;

    #[inline]
    fn archive(&self, s: &mut Session) -> Result<Self::Resolver, Halt> {
        match self {
            Ok(value) => Ok(Ok(value.archive(s)?)),
            Err(error) => Ok(Err(error.archive(s)?)),
        }
    }
    #[inline]
    fn resolve(&self, r: Self::Resolver, out: Place<Self::Archived>) {
        zero(out);
        match (self, r) {
            (Ok(value), Ok(r)) => {
                put_tag(0, out);
                // SAFETY: `ArchivedResult` is `repr(u8)`, and `Ok` has one field.
                put(value, r, unsafe { payload(out) });
            }
            (Err(error), Err(r)) => {
                put_tag(1, out);
                // SAFETY: as above, for `Err`.
                put(error, r, unsafe { payload(out) });
            }
            _ => unreachable!("a resolver is handed to the value that made it"),
        }
    }
    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        match a {
            ArchivedResult::Ok(a) => Ok(Ok(T::thaw(a, t)?)),
            ArchivedResult::Err(a) => Ok(Err(E::thaw(a, t)?)),
        }
    }
    fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        match (&mut *self, a) {
            (Ok(value), ArchivedResult::Ok(a)) => value.restore(a, t),
            (Err(error), ArchivedResult::Err(a)) => error.restore(a, t),
            _ => {
                *self = Self::thaw(a, t)?;
                Ok(())
            }
        }
    }
    fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
        match (self, old) {
            (Ok(value), Ok(old)) => value.adopt(old, t),
            (Err(error), Err(old)) => error.adopt(old, t),
            _ => {}
        }
    }
    fn canonical(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Ok(x), Ok(y)) => x.canonical(y),
            (Err(x), Err(y)) => x.canonical(y),
            (x, y) => x.is_err().cmp(&y.is_err()),
        }
    }
    fn cmp_archived(&self, a: &Self::Archived) -> Ordering {
        match (self, a) {
            (Ok(x), ArchivedResult::Ok(y)) => x.cmp_archived(y),
            (Err(x), ArchivedResult::Err(y)) => x.cmp_archived(y),
            (x, y) => x.is_err().cmp(&y.is_err()),
        }
    }
    fn schema(s: &mut Schema) -> Shape {
        s.node::<Self>(|s| {
            let (ok, err) = (T::schema(s), E::schema(s));
            Node::new::<Self::Archived>("result")
                .field("ok", offset_of!(Variant<T::Archived>, 1), ok)
                .field("err", offset_of!(Variant<E::Archived>, 1), err)
        })
    }
}

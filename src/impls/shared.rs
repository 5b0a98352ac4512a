//! `Rc` and `Arc`: a shared value is archived once, and thawed to one shared value.
//!
//! Skipped fields behind a shared pointer stay where it is the only one to its value; otherwise
//! they start from their defaults, as nobody may write to a value that others hold.

use std::{cmp::Ordering, rc::Rc, sync::Arc};

use rkyv::{
    Place,
    rc::{ArcFlavor, ArchivedRc, RcFlavor, RcResolver},
};

use super::sequence::{canonical_runs, cmp_archived_runs, thaw_vec};
use crate::{
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
    with::By,
};

const _: () = assert!(size_of::<ArchivedRc<u8, RcFlavor>>() == 4, "ArchivedRc has padding");
const _: () = assert!(size_of::<ArchivedRc<str, RcFlavor>>() == 8, "ArchivedRc has padding");

/// Where a value lies: what shared pointers to it have in common.
fn address<T: ?Sized>(value: &T) -> usize {
    std::ptr::from_ref(value).cast::<u8>().addr()
}

/// The pooled pointer to the archived value `a`, or the one that `make` makes, pooled.
fn thaw_once<P: Clone + 'static, A: ?Sized>(
    a: &A,
    t: &mut Thaw,
    make: impl FnOnce(&A, &mut Thaw) -> Result<P, ThawError>,
) -> Result<P, ThawError> {
    if let Some(pointer) = t.pooled::<P>(address(a)) {
        return Ok(pointer);
    }
    let pointer = make(a, t)?;
    t.pool(address(a), pointer.clone());
    Ok(pointer)
}

macro_rules! shared {
    ($pointer:ident, $flavor:ident, $frozen:expr, $kind:literal, $text:literal, $run:literal) => {
        // SAFETY: an archived shared pointer is one relative pointer, written whole.
        unsafe impl<T: Snapshot> Snapshot for $pointer<T> {
            type Archived = ArchivedRc<T::Archived, $flavor>;
            type Resolver = RcResolver;
            const FROZEN: bool = $frozen && T::FROZEN;
            const KEY_BITS: u32 = T::KEY_BITS;

            fn archive(&self, s: &mut Session) -> Result<RcResolver, Halt> {
                let pos = s.shared::<Self>(address(&**self), |s| s.pointee(&**self))?;
                Ok(RcResolver::from_pos(pos))
            }
            fn resolve(&self, r: RcResolver, out: Place<Self::Archived>) {
                ArchivedRc::resolve_from_ref(By::of(&**self), r, out);
            }
            fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
                thaw_once(a.get(), t, |a, t| Ok($pointer::new(T::thaw(a, t)?)))
            }
            fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
                *self = thaw_once(a.get(), t, |a, t| {
                    if let Some(value) = $pointer::get_mut(self) {
                        value.restore(a, t)?;
                        return Ok(self.clone());
                    }
                    Ok($pointer::new(T::thaw(a, t)?))
                })?;
                Ok(())
            }
            fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
                if let (Some(fresh), Some(old)) = ($pointer::get_mut(self), $pointer::get_mut(old))
                {
                    fresh.adopt(old, t);
                }
            }
            fn canonical(&self, other: &Self) -> Ordering {
                (**self).canonical(other)
            }
            fn sort_key(&self) -> u64 {
                (**self).sort_key()
            }
            fn cmp_archived(&self, a: &Self::Archived) -> Ordering {
                (**self).cmp_archived(a.get())
            }
            fn schema(s: &mut Schema) -> Shape {
                s.node::<Self>(|s| {
                    let item = T::schema(s);
                    Node::new::<Self::Archived>($kind).part("item", item)
                })
            }
        }

        // SAFETY: a relative pointer and a length, written whole.
        unsafe impl Snapshot for $pointer<str> {
            type Archived = ArchivedRc<str, $flavor>;
            type Resolver = RcResolver;
            const FROZEN: bool = $frozen;

            fn archive(&self, s: &mut Session) -> Result<RcResolver, Halt> {
                let pos = s.shared::<Self>(address(&**self), |s| s.bytes(self.as_bytes()))?;
                Ok(RcResolver::from_pos(pos))
            }
            fn resolve(&self, r: RcResolver, out: Place<Self::Archived>) {
                ArchivedRc::resolve_from_ref(&**self, r, out);
            }
            fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
                thaw_once(a.get(), t, |a, _| Ok(a.into()))
            }
            fn canonical(&self, other: &Self) -> Ordering {
                self.cmp(other)
            }
            fn cmp_archived(&self, a: &Self::Archived) -> Ordering {
                (**self).cmp(a.get())
            }
            fn schema(s: &mut Schema) -> Shape {
                s.node::<Self>(|_| Node::new::<Self::Archived>($text))
            }
        }

        // SAFETY: a relative pointer and a length, written whole.
        unsafe impl<T: Snapshot> Snapshot for $pointer<[T]> {
            type Archived = ArchivedRc<[T::Archived], $flavor>;
            type Resolver = RcResolver;
            const FROZEN: bool = $frozen && T::FROZEN;

            fn archive(&self, s: &mut Session) -> Result<RcResolver, Halt> {
                let pos = s.shared::<Self>(address(&**self), |s| s.slice(self))?;
                Ok(RcResolver::from_pos(pos))
            }
            fn resolve(&self, r: RcResolver, out: Place<Self::Archived>) {
                ArchivedRc::resolve_from_ref(By::of_slice(self), r, out);
            }
            fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
                thaw_once(a.get(), t, |a, t| Ok(thaw_vec(a, t)?.into()))
            }
            fn canonical(&self, other: &Self) -> Ordering {
                canonical_runs(self.iter(), other.iter())
            }
            fn cmp_archived(&self, a: &Self::Archived) -> Ordering {
                cmp_archived_runs(self.iter(), a.get())
            }
            fn schema(s: &mut Schema) -> Shape {
                s.node::<Self>(|s| {
                    let item = T::schema(s);
                    Node::new::<Self::Archived>($run).part("item", item)
                })
            }
        }
    };
}

shared!(Rc, RcFlavor, false, "rc", "rc-str", "rc-slice");
shared!(Arc, ArcFlavor, true, "arc", "arc-str", "arc-slice");

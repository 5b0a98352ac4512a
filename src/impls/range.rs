//! The ranges of `std::ops`: their bounds, side by side.
//!
//! A `RangeInclusive` that has been iterated to its end comes back as one that gives its last
//! element again: the standard library lets nobody build one that is used up.

use std::{
    cmp::Ordering,
    mem::offset_of,
    ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive},
};

use rkyv::{
    Place,
    munge::munge,
    ops::{
        ArchivedRange, ArchivedRangeFrom, ArchivedRangeFull, ArchivedRangeInclusive,
        ArchivedRangeTo, ArchivedRangeToInclusive,
    },
};

use super::put;
use crate::{
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
};

/// The items that every range has, from its bounds.
macro_rules! bounds {
    ($archived:ident, $kind:literal, $($field:ident |$x:ident| $get:expr),*) => {
        #[inline]
        fn archive(&self, s: &mut Session) -> Result<Self::Resolver, Halt> {
            Ok(($({ let $x = self; $get.archive(s)? },)*))
        }
        #[inline]
        fn resolve(&self, r: Self::Resolver, out: Place<Self::Archived>) {
            munge!(let $archived { $($field),* } = out);
            let ($($x,)*) = r;
            $(put({ let $x = self; $get }, $x, $field);)*
        }
        fn canonical(&self, other: &Self) -> Ordering {
            Ordering::Equal $(.then_with(|| {
                let x = { let $x = self; $get };
                let y = { let $x = other; $get };
                x.canonical(y)
            }))*
        }
        fn cmp_archived(&self, a: &Self::Archived) -> Ordering {
            Ordering::Equal $(.then_with(|| { let $x = self; $get.cmp_archived(&a.$field) }))*
        }
        fn schema(s: &mut Schema) -> Shape {
            s.node::<Self>(|s| {
                let bound = T::schema(s);
                Node::new::<Self::Archived>($kind)
                    $(.field(stringify!($field), offset_of!($archived<T::Archived>, $field), bound))*
            })
        }
    };
}

/// Ranges with public bounds, restored in place.
macro_rules! open_range {
    ($range:ident, $archived:ident, $kind:literal, $($field:ident $x:ident: $R:ident),*) => {
        // SAFETY: one or two bounds of one type leave no padding, and each is written by its own
        // `resolve`; PLAIN compares sizes and offsets.
        unsafe impl<T: Snapshot> Snapshot for $range<T> {
            type Archived = $archived<T::Archived>;
            type Resolver = ($($R::Resolver,)*);
            const PLAIN: bool = T::PLAIN
                && size_of::<Self>() == size_of::<Self::Archived>()
                && align_of::<Self>() == align_of::<Self::Archived>()
                $(&& offset_of!(Self, $field) == offset_of!($archived<T::Archived>, $field))*;
            const FROZEN: bool = T::FROZEN;

            #[inline]
            fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
                Ok($range { $($field: T::thaw(&a.$field, t)?),* })
            }
            #[inline]
            fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
                $(self.$field.restore(&a.$field, t)?;)*
                Ok(())
            }
            fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
                $(self.$field.adopt(&mut old.$field, t);)*
            }
            bounds!($archived, $kind, $($field |$x| &$x.$field),*);
        }
    };
}

open_range!(Range, ArchivedRange, "range", start a: T, end b: T);
open_range!(RangeFrom, ArchivedRangeFrom, "range-from", start a: T);
open_range!(RangeTo, ArchivedRangeTo, "range-to", end a: T);
open_range!(RangeToInclusive, ArchivedRangeToInclusive, "range-to-inclusive", end a: T);

// SAFETY: two bounds of one type leave no padding, and each is written by its own `resolve`.
unsafe impl<T: Snapshot> Snapshot for RangeInclusive<T> {
    type Archived = ArchivedRangeInclusive<T::Archived>;
    type Resolver = (T::Resolver, T::Resolver);
    const FROZEN: bool = T::FROZEN;

    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        Ok(RangeInclusive::new(T::thaw(&a.start, t)?, T::thaw(&a.end, t)?))
    }
    bounds!(ArchivedRangeInclusive, "range-inclusive", start | a | a.start(), end | b | b.end());
}

// SAFETY: there are no bytes.
unsafe impl Snapshot for RangeFull {
    type Archived = ArchivedRangeFull;
    type Resolver = ();
    const PLAIN: bool = true;
    const FROZEN: bool = true;

    fn archive(&self, _: &mut Session) -> Result<(), Halt> {
        Ok(())
    }
    fn resolve(&self, (): (), _: Place<ArchivedRangeFull>) {}
    fn thaw(_: &ArchivedRangeFull, _: &mut Thaw) -> Result<Self, ThawError> {
        Ok(RangeFull)
    }
    fn canonical(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
    fn cmp_archived(&self, _: &ArchivedRangeFull) -> Ordering {
        Ordering::Equal
    }
    fn schema(s: &mut Schema) -> Shape {
        s.node::<Self>(|_| Node::new::<ArchivedRangeFull>("range-full"))
    }
}

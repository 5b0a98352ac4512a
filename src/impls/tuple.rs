//! Tuples of one to twelve fields: rkyv's archived tuples, padding zeroed.

use std::{cmp::Ordering, mem::offset_of};

use rkyv::{
    Place,
    munge::munge,
    tuple::{
        ArchivedTuple1, ArchivedTuple2, ArchivedTuple3, ArchivedTuple4, ArchivedTuple5,
        ArchivedTuple6, ArchivedTuple7, ArchivedTuple8, ArchivedTuple9, ArchivedTuple10,
        ArchivedTuple11, ArchivedTuple12,
    },
};

use super::{append_key, packed_bits, put, zero};
use crate::{
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
};

macro_rules! tuple {
    ($archived:ident, $($T:ident $r:ident $i:tt),*) => {
        // SAFETY: `out` is zeroed where there is padding and each field written by its own
        // `resolve`; PLAIN compares sizes, alignments and the offset of every field, and the sum of
        // the sizes leaves no room for padding.
        unsafe impl<$($T: Snapshot),*> Snapshot for ($($T,)*) {
            type Archived = $archived<$($T::Archived),*>;
            type Resolver = ($($T::Resolver,)*);
            const PLAIN: bool = $($T::PLAIN &&)*
                size_of::<Self>() == size_of::<Self::Archived>()
                && align_of::<Self>() == align_of::<Self::Archived>()
                && size_of::<Self>() == 0 $(+ size_of::<$T>())*
                $(&& offset_of!(Self, $i) == offset_of!(Self::Archived, $i))*;
            const FROZEN: bool = $($T::FROZEN)&&*;
            const KEY_BITS: u32 = packed_bits(&[$($T::KEY_BITS),*]);

            #[inline]
            fn archive(&self, s: &mut Session) -> Result<Self::Resolver, Halt> {
                Ok(($(self.$i.archive(s)?,)*))
            }
            #[inline]
            fn resolve(&self, r: Self::Resolver, out: Place<Self::Archived>) {
                if size_of::<Self::Archived>() != 0 $(+ size_of::<$T::Archived>())* {
                    zero(out);
                }
                munge!(let $archived($($r),*) = out);
                $(put(&self.$i, r.$i, $r);)*
            }
            #[inline]
            fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
                Ok(($($T::thaw(&a.$i, t)?,)*))
            }
            #[inline]
            fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
                $(self.$i.restore(&a.$i, t)?;)*
                Ok(())
            }
            fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
                $(self.$i.adopt(&mut old.$i, t);)*
            }
            #[inline]
            fn canonical(&self, other: &Self) -> Ordering {
                Ordering::Equal $(.then_with(|| self.$i.canonical(&other.$i)))*
            }
            #[inline]
            fn sort_key(&self) -> u64 {
                if Self::KEY_BITS == 0 {
                    return self.0.sort_key();
                }
                let key = 0;
                $(let key = append_key(key, $T::KEY_BITS, self.$i.sort_key());)*
                key
            }
            #[inline]
            fn cmp_archived(&self, a: &Self::Archived) -> Ordering {
                Ordering::Equal $(.then_with(|| self.$i.cmp_archived(&a.$i)))*
            }
            fn schema(s: &mut Schema) -> Shape {
                s.node::<Self>(|s| {
                    let node = Node::new::<Self::Archived>("tuple");
                    $(let node = node.field(
                        stringify!($i),
                        offset_of!(Self::Archived, $i),
                        $T::schema(s),
                    );)*
                    node
                })
            }
        }
    };
}

tuple!(ArchivedTuple1, A a 0);
tuple!(ArchivedTuple2, A a 0, B b 1);
tuple!(ArchivedTuple3, A a 0, B b 1, C c 2);
tuple!(ArchivedTuple4, A a 0, B b 1, C c 2, D d 3);
tuple!(ArchivedTuple5, A a 0, B b 1, C c 2, D d 3, E e 4);
tuple!(ArchivedTuple6, A a 0, B b 1, C c 2, D d 3, E e 4, F f 5);
tuple!(ArchivedTuple7, A a 0, B b 1, C c 2, D d 3, E e 4, F f 5, G g 6);
tuple!(ArchivedTuple8, A a 0, B b 1, C c 2, D d 3, E e 4, F f 5, G g 6, H h 7);
tuple!(ArchivedTuple9, A a 0, B b 1, C c 2, D d 3, E e 4, F f 5, G g 6, H h 7, I i 8);
tuple!(ArchivedTuple10, A a 0, B b 1, C c 2, D d 3, E e 4, F f 5, G g 6, H h 7, I i 8, J j 9);
tuple!(ArchivedTuple11, A a 0, B b 1, C c 2, D d 3, E e 4, F f 5, G g 6, H h 7, I i 8, J j 9, K k 10);
tuple!(ArchivedTuple12, A a 0, B b 1, C c 2, D d 3, E e 4, F f 5, G g 6, H h 7, I i 8, J j 9, K k 10, L l 11);

//! Types that add meaning to one value or none: `Wrapping`, `Reverse`, `Cell`, `PhantomData`.

use std::{cell::Cell, cmp::Ordering, cmp::Reverse, marker::PhantomData, num::Wrapping};

use rkyv::Place;

use crate::{
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
};

macro_rules! transparent {
    ($wrapper:ident, $kind:literal) => {
        // SAFETY: everything is left to the value inside; PLAIN holds where the wrapper adds no
        // bytes and no alignment to a value that is plain.
        unsafe impl<T: Snapshot> Snapshot for $wrapper<T> {
            type Archived = T::Archived;
            type Resolver = T::Resolver;
            const PLAIN: bool = T::PLAIN
                && size_of::<Self>() == size_of::<T>()
                && align_of::<Self>() == align_of::<T>();
            const FROZEN: bool = T::FROZEN;
            const KEY_BITS: u32 = T::KEY_BITS;

            #[inline]
            fn archive(&self, s: &mut Session) -> Result<T::Resolver, Halt> {
                self.0.archive(s)
            }
            #[inline]
            fn resolve(&self, r: T::Resolver, out: Place<T::Archived>) {
                self.0.resolve(r, out);
            }
            #[inline]
            fn thaw(a: &T::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
                Ok($wrapper(T::thaw(a, t)?))
            }
            #[inline]
            fn restore(&mut self, a: &T::Archived, t: &mut Thaw) -> Result<(), ThawError> {
                self.0.restore(a, t)
            }
            fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
                self.0.adopt(&mut old.0, t);
            }
            #[inline]
            fn canonical(&self, other: &Self) -> Ordering {
                self.0.canonical(&other.0)
            }
            #[inline]
            fn sort_key(&self) -> u64 {
                self.0.sort_key()
            }
            #[inline]
            fn cmp_archived(&self, a: &T::Archived) -> Ordering {
                self.0.cmp_archived(a)
            }
            fn schema(s: &mut Schema) -> Shape {
                s.node::<Self>(|s| {
                    let item = T::schema(s);
                    Node::new::<T::Archived>($kind).field("0", 0, item)
                })
            }
        }
    };
}

transparent!(Wrapping, "wrapping");
transparent!(Reverse, "reverse");

// SAFETY: everything is left to a copy of the value inside, taken once: what `archive` and
// `resolve` see is the same, whoever writes to the cell between them.
unsafe impl<T: Snapshot + Copy> Snapshot for Cell<T> {
    type Archived = T::Archived;
    type Resolver = (T, T::Resolver);
    const FROZEN: bool = false;

    #[inline]
    fn archive(&self, s: &mut Session) -> Result<Self::Resolver, Halt> {
        let value = self.get();
        let resolver = value.archive(s)?;
        Ok((value, resolver))
    }
    #[inline]
    fn resolve(&self, (value, r): Self::Resolver, out: Place<T::Archived>) {
        value.resolve(r, out);
    }
    #[inline]
    fn thaw(a: &T::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        Ok(Cell::new(T::thaw(a, t)?))
    }
    #[inline]
    fn restore(&mut self, a: &T::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        self.get_mut().restore(a, t)
    }
    fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
        self.get_mut().adopt(old.get_mut(), t);
    }
    fn canonical(&self, other: &Self) -> Ordering {
        self.get().canonical(&other.get())
    }
    fn cmp_archived(&self, a: &T::Archived) -> Ordering {
        self.get().cmp_archived(a)
    }
    fn schema(s: &mut Schema) -> Shape {
        s.node::<Self>(|s| {
            let item = T::schema(s);
            Node::new::<T::Archived>("cell").field("0", 0, item)
        })
    }
}

// SAFETY: there are no bytes.
unsafe impl<T: ?Sized + 'static> Snapshot for PhantomData<T> {
    type Archived = ();
    type Resolver = ();
    const PLAIN: bool = true;
    const FROZEN: bool = true;

    #[inline]
    fn archive(&self, _: &mut Session) -> Result<(), Halt> {
        Ok(())
    }
    #[inline]
    fn resolve(&self, (): (), _: Place<()>) {}
    #[inline]
    fn thaw(_: &(), _: &mut Thaw) -> Result<Self, ThawError> {
        Ok(PhantomData)
    }
    #[inline]
    fn canonical(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
    #[inline]
    fn cmp_archived(&self, (): &()) -> Ordering {
        Ordering::Equal
    }
    fn schema(s: &mut Schema) -> Shape {
        s.node::<Self>(|_| Node::new::<()>("phantom"))
    }
}

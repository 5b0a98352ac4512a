//! `Box`: one value behind a pointer. (Boxed slices are runs, boxed texts are texts.)

use std::cmp::Ordering;

use rkyv::{
    Place,
    boxed::{ArchivedBox, BoxResolver},
};

use crate::{
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
};

const _: () = assert!(size_of::<ArchivedBox<u8>>() == 4, "ArchivedBox has padding");

// SAFETY: an archived box is one relative pointer, written whole.
unsafe impl<T: Snapshot> Snapshot for Box<T> {
    type Archived = ArchivedBox<T::Archived>;
    type Resolver = BoxResolver;
    const FROZEN: bool = T::FROZEN;
    const KEY_BITS: u32 = T::KEY_BITS;
    const HAS_ID: bool = T::HAS_ID;

    #[inline]
    fn archive(&self, s: &mut Session) -> Result<BoxResolver, Halt> {
        Ok(BoxResolver::from_pos(s.pointee(&**self)?))
    }
    #[inline]
    fn resolve(&self, r: BoxResolver, out: Place<Self::Archived>) {
        ArchivedBox::resolve_from_raw_parts(r, (), out);
    }
    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        Ok(Box::new(T::thaw(a.get(), t)?))
    }
    fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        (**self).restore(a.get(), t)
    }
    fn adopt(&mut self, old: &mut Self, t: &mut Thaw) {
        (**self).adopt(old, t);
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
    fn cmp_id(&self, other: &Self) -> Ordering {
        (**self).cmp_id(other)
    }
    fn cmp_archived_id(&self, a: &Self::Archived) -> Ordering {
        (**self).cmp_archived_id(a.get())
    }
    fn schema(s: &mut Schema) -> Shape {
        s.node::<Self>(|s| {
            let item = T::schema(s);
            Node::new::<Self::Archived>("box").part("item", item)
        })
    }
}

//! How a field is archived when it is not archived as itself: adapters.
//!
//! [`Adapter`] is to a field what [`Snapshot`] is to a type. The derive picks one per field:
//! [`AsIs`] by default, [`Wrapped`] for `#[snapshot(with = ..)]`, [`Unsorted`] and [`Hashed`] for
//! the attributes of the same names. [`By`] goes the other way and shows a `Snapshot` type to
//! rkyv, so that its `with` wrappers compose with ours.

use std::{cmp::Ordering, marker::PhantomData};

use rkyv::{
    Archive, Place, Portable, Serialize,
    bytecheck::CheckBytes,
    rancor::BoxedError,
    with::{ArchiveWith, DeserializeWith, SerializeWith},
};

use crate::{
    checker::Checker,
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
};

pub use crate::impls::{
    hashed::{ArchivedHashed, Hashed},
    unsorted::Unsorted,
};
#[cfg(feature = "serde")]
pub use crate::with_serde::{ArchivedSerde, Serde};

/// Archives an `F` in a way of its own.
///
/// # Safety
///
/// The promises of [`Snapshot`], for `F` archived by `Self`.
pub unsafe trait Adapter<F>: 'static {
    /// What the field looks like in an archive.
    type Archived: Portable + CheckBytes<Checker> + Send + Sync + 'static;
    /// Where the things that the field points at have been written.
    type Resolver;
    /// As [`Snapshot::PLAIN`].
    const PLAIN: bool = false;
    /// As [`Snapshot::FROZEN`].
    const FROZEN: bool;

    /// As [`Snapshot::archive`].
    ///
    /// # Errors
    ///
    /// As [`Snapshot::archive`].
    fn archive(field: &F, s: &mut Session) -> Result<Self::Resolver, Halt>;
    /// As [`Snapshot::resolve`].
    fn resolve(field: &F, r: Self::Resolver, out: Place<Self::Archived>);
    /// As [`Snapshot::thaw`].
    ///
    /// # Errors
    ///
    /// As [`Snapshot::thaw`].
    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<F, ThawError>;
    /// As [`Snapshot::restore`].
    ///
    /// # Errors
    ///
    /// As [`Snapshot::restore`].
    fn restore(field: &mut F, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError>;
    /// As [`Snapshot::adopt`].
    fn adopt(field: &mut F, old: &mut F, t: &mut Thaw);
    /// As [`Snapshot::canonical`].
    fn canonical(a: &F, b: &F) -> Ordering;
    /// As [`Snapshot::schema`].
    fn schema(s: &mut Schema) -> Shape;
}

/// The field is a [`Snapshot`] and is archived as itself.
#[derive(Debug)]
pub struct AsIs;

// SAFETY: every item is that of `F: Snapshot`.
unsafe impl<F: Snapshot> Adapter<F> for AsIs {
    type Archived = F::Archived;
    type Resolver = F::Resolver;
    const PLAIN: bool = F::PLAIN;
    const FROZEN: bool = F::FROZEN;

    #[inline]
    fn archive(field: &F, s: &mut Session) -> Result<F::Resolver, Halt> {
        field.archive(s)
    }
    #[inline]
    fn resolve(field: &F, r: F::Resolver, out: Place<F::Archived>) {
        field.resolve(r, out);
    }
    #[inline]
    fn thaw(a: &F::Archived, t: &mut Thaw) -> Result<F, ThawError> {
        F::thaw(a, t)
    }
    #[inline]
    fn restore(field: &mut F, a: &F::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        field.restore(a, t)
    }
    fn adopt(field: &mut F, old: &mut F, t: &mut Thaw) {
        field.adopt(old, t);
    }
    #[inline]
    fn canonical(a: &F, b: &F) -> Ordering {
        a.canonical(b)
    }
    fn schema(s: &mut Schema) -> Shape {
        F::schema(s)
    }
}

/// The field is archived by `W`, an rkyv `with` wrapper.
#[derive(Debug)]
pub struct Wrapped<W>(PhantomData<W>);

/// Pointers that rkyv's wrappers put between a field and what lies in it cannot be counted by the
/// session, so every field under [`Wrapped`] counts as this many.
const WRAPPER_DEPTH: u32 = 4;

/// What [`Wrapped`] archives a field as: `W`'s form, under our own checker.
pub type WrappedForm<W, F> = <W as ArchiveWith<F>>::Archived;

// SAFETY: rkyv's contracts for `resolve_with` and `Portable` are the same promises, padding
// included, as `out` is zeroed first; the schema names the wrapper, the field's type and the form.
unsafe impl<W, F> Adapter<F> for Wrapped<W>
where
    W: ArchiveWith<F>
        + SerializeWith<F, Session>
        + DeserializeWith<WrappedForm<W, F>, F, Thaw>
        + 'static,
    WrappedForm<W, F>: Portable + CheckBytes<Checker> + Send + Sync + 'static,
    F: 'static,
{
    type Archived = WrappedForm<W, F>;
    type Resolver = <W as ArchiveWith<F>>::Resolver;
    const FROZEN: bool = false;

    fn archive(field: &F, s: &mut Session) -> Result<Self::Resolver, Halt> {
        for _ in 0..WRAPPER_DEPTH {
            s.enter()?;
        }
        let done = W::serialize_with(field, s);
        for _ in 0..WRAPPER_DEPTH {
            s.leave();
        }
        done.map_err(|error| s.wrapper_failed(error))
    }
    fn resolve(field: &F, r: Self::Resolver, out: Place<Self::Archived>) {
        // SAFETY: `out` is writable, by the contract of `Place`.
        let to = unsafe { out.ptr() };
        // SAFETY: as above; the wrapper then writes over it and leaves padding zeroed.
        unsafe { to.write_bytes(0, 1) };
        W::resolve_with(field, r, out);
    }
    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<F, ThawError> {
        Ok(W::deserialize_with(a, t)?)
    }
    fn restore(field: &mut F, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        *field = W::deserialize_with(a, t)?;
        Ok(())
    }
    fn adopt(_: &mut F, _: &mut F, _: &mut Thaw) {}
    fn canonical(a: &F, b: &F) -> Ordering {
        crate::session::compare_archived(|s| Self::pointee(a, s), |s| Self::pointee(b, s))
    }
    fn schema(s: &mut Schema) -> Shape {
        s.node::<(Wrapped<W>, F)>(|_| {
            let name = std::any::type_name::<Self::Archived>().replace(' ', "");
            Node::new::<Self::Archived>("with").named(name).fallible(true)
        })
    }
}

impl<W> Wrapped<W> {
    fn pointee<F>(field: &F, s: &mut Session) -> Result<usize, Halt>
    where
        Self: Adapter<F>,
    {
        s.sequence(
            1,
            std::iter::once(field),
            |s, f| <Self as Adapter<F>>::archive(f, s),
            |f, r, out| <Self as Adapter<F>>::resolve(f, r, out),
        )
    }
}

/// Shows a [`Snapshot`] type to rkyv: `Archive`, `Serialize` and `Deserialize` for wrappers that
/// ask for them, over [`Session`] and [`Thaw`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(transparent)]
pub struct By<T>(pub T);

impl<T> By<T> {
    /// The same value, seen by rkyv.
    pub(crate) fn of(value: &T) -> &By<T> {
        // SAFETY: `By` is transparent, so a `T` there is a `By<T>` there, for as long.
        unsafe { &*std::ptr::from_ref(value).cast() }
    }

    /// The same values, seen by rkyv.
    pub(crate) fn of_slice(values: &[T]) -> &[By<T>] {
        let values = std::ptr::from_ref(values) as *const [By<T>];
        // SAFETY: as in `of`, for each of them.
        unsafe { &*values }
    }
}

impl<T: Snapshot> Archive for By<T> {
    type Archived = T::Archived;
    type Resolver = T::Resolver;

    fn resolve(&self, r: T::Resolver, out: Place<T::Archived>) {
        self.0.resolve(r, out);
    }
}

impl<T: Snapshot> Serialize<Session> for By<T> {
    fn serialize(&self, s: &mut Session) -> Result<T::Resolver, BoxedError> {
        Ok(self.0.archive(s)?)
    }
}

/// As an rkyv wrapper, `By<()>` archives a field by its own [`Snapshot`]: for use inside others, as
/// in `with = rkyv::with::Map<By<()>>`.
impl<T: Snapshot> ArchiveWith<T> for By<()> {
    type Archived = T::Archived;
    type Resolver = T::Resolver;

    fn resolve_with(field: &T, r: T::Resolver, out: Place<T::Archived>) {
        field.resolve(r, out);
    }
}

impl<T: Snapshot> SerializeWith<T, Session> for By<()> {
    fn serialize_with(field: &T, s: &mut Session) -> Result<T::Resolver, BoxedError> {
        Ok(field.archive(s)?)
    }
}

impl<T: Snapshot> DeserializeWith<T::Archived, T, Thaw> for By<()> {
    fn deserialize_with(a: &T::Archived, t: &mut Thaw) -> Result<T, BoxedError> {
        use rkyv::rancor::Source as _;
        T::thaw(a, t).map_err(BoxedError::new)
    }
}

//! [`Serde`]: any serde type as a field, stored as postcard bytes.
//!
//! Knows nothing of what the type holds; readers of the archive see bytes.

use std::{fmt, marker::PhantomData};

use postcard::ser_flavors::Flavor;
use rkyv::{
    Place, Portable,
    bytecheck::CheckBytes,
    munge::munge,
    rancor::{BoxedError, Source as _},
    ser::{Positional as _, Writer as _},
    vec::{ArchivedVec, VecResolver},
    with::{ArchiveWith, DeserializeWith, SerializeWith},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    checker::Checker,
    session::{Halt, Session},
    thaw::{Thaw, ThawError},
};

/// Archives a field that implements serde's traits but not [`Snapshot`](crate::Snapshot):
/// `#[snapshot(with = snapring::with::Serde)]`.
///
/// The value is stored as [postcard](https://docs.rs/postcard) bytes, written straight into the
/// archive. They have no names and no tags in them, so what serde can only do for formats that
/// describe themselves does not work: types that deserialise by `deserialize_any` (untagged enums,
/// `flatten`, `serde_json::Value`) and fields left out by `skip_serializing_if`. Saving or thawing
/// such a type is an error, or gives another value. Nor does the engine see inside: a change of the
/// type is not noticed by the layout fingerprint, and the bytes of maps depend on their order.
///
/// Saving fails with [`SaveError::Serialize`](crate::SaveError::Serialize), thawing with a
/// [`ThawError`] whose source is postcard's error.
#[derive(Debug)]
pub struct Serde;

/// The archived form of a field under [`Serde`]: the postcard bytes of an `F`.
#[repr(transparent)]
pub struct ArchivedSerde<F> {
    bytes: ArchivedVec<u8>,
    of: PhantomData<fn() -> F>,
}

// SAFETY: transparent over a portable field.
unsafe impl<F> Portable for ArchivedSerde<F> {}

// SAFETY: any bytes will do; whether they are an `F` is found out by making one.
unsafe impl<F> CheckBytes<Checker> for ArchivedSerde<F> {
    unsafe fn check_bytes(it: *const Self, c: &mut Checker) -> Result<(), BoxedError> {
        // SAFETY: transparent, so what holds for `it` holds for the bytes.
        unsafe { ArchivedVec::<u8>::check_bytes(it.cast(), c) }
    }
}

impl<F> ArchivedSerde<F> {
    /// The postcard bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<F: DeserializeOwned> ArchivedSerde<F> {
    /// A new `F` from the bytes. Costs what deserialising costs.
    ///
    /// # Errors
    ///
    /// Where the bytes are not those of an `F`; the source is postcard's error.
    pub fn get(&self) -> Result<F, ThawError> {
        match postcard::take_from_bytes(&self.bytes) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(ThawError::wrapper(Trailing(rest.len()))),
            Err(error) => Err(ThawError::wrapper(error)),
        }
    }
}

impl<F> fmt::Debug for ArchivedSerde<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ArchivedSerde").field(&self.bytes).finish()
    }
}

/// There were more bytes than a value takes.
#[derive(Debug)]
struct Trailing(usize);

impl fmt::Display for Trailing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes are left over after the value", self.0)
    }
}

impl std::error::Error for Trailing {}

/// Where the bytes have been written.
#[derive(Debug)]
pub struct SerdeResolver {
    pos: usize,
    len: usize,
}

/// postcard's way into a session, without a buffer between.
struct Straight<'s> {
    session: &'s mut Session,
    start: usize,
}

impl Straight<'_> {
    /// What went wrong is in the session; postcard only has to stop.
    fn write(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.session.write(bytes).map_err(|_| postcard::Error::SerializeBufferFull)
    }
}

impl Flavor for Straight<'_> {
    type Output = usize;

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.write(data)
    }
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.write(&[data])
    }
    fn finalize(self) -> postcard::Result<usize> {
        Ok(self.session.pos() - self.start)
    }
}

impl<F> ArchiveWith<F> for Serde {
    type Archived = ArchivedSerde<F>;
    type Resolver = SerdeResolver;

    fn resolve_with(_: &F, r: SerdeResolver, out: Place<ArchivedSerde<F>>) {
        munge!(let ArchivedSerde { bytes, .. } = out);
        ArchivedVec::resolve_from_len(r.len, VecResolver::from_pos(r.pos), bytes);
    }
}

impl<F: Serialize> SerializeWith<F, Session> for Serde {
    fn serialize_with(field: &F, s: &mut Session) -> Result<SerdeResolver, BoxedError> {
        s.enter().map_err(|halt: Halt| BoxedError::from(halt))?;
        let start = s.pos();
        let len = postcard::serialize_with_flavor(field, Straight { session: s, start })
            .map_err(BoxedError::new)?;
        s.leave();
        Ok(SerdeResolver { pos: start, len })
    }
}

impl<F: DeserializeOwned> DeserializeWith<ArchivedSerde<F>, F, Thaw> for Serde {
    fn deserialize_with(a: &ArchivedSerde<F>, _: &mut Thaw) -> Result<F, BoxedError> {
        a.get().map_err(BoxedError::new)
    }
}

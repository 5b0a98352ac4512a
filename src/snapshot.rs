//! The [`Snapshot`] trait: what a type must be able to do to be archived, thawed and restored.
//!
//! Users derive it and never call it. It knows nothing of files, places or rings: it speaks to a
//! [`Session`] on the way out and to a [`Thaw`] on the way back.

use std::cmp::Ordering;

use rkyv::{Place, Portable, bytecheck::CheckBytes};

use crate::{
    checker::Checker,
    schema::{Schema, Shape},
    session::{Halt, Session},
    thaw::{Thaw, ThawError},
};

/// A type whose values can be snapshotted. Derive it: `#[derive(Snapshot)]`.
///
/// Archiving happens in two steps, as in rkyv: [`archive`](Self::archive) writes everything the
/// value points at and answers a resolver (where those things are), then
/// [`resolve`](Self::resolve) writes the value itself. The way back is [`thaw`](Self::thaw) for a
/// new value and [`restore`](Self::restore) for one that exists.
///
/// # Safety
///
/// Implementations promise that
///
/// - `resolve` initialises every byte of `out`, padding included (with zeros), with a valid
///   `Archived`;
/// - if [`PLAIN`](Self::PLAIN) is true, `Self` and `Archived` have the same size and alignment, no
///   padding, and every valid value of either has the bytes of a valid value of the other with the
///   same meaning; `archive` then writes nothing;
/// - `schema` describes `Archived` fully: two types with equal schemas can read each other's
///   archives.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be snapshotted",
    label = "not `Snapshot`",
    note = "derive it: #[derive(snapring::Snapshot)]; for a foreign type use #[snapshot(with = ..)] \
            (snapring::with::Serde takes any serde type), or #[snapshot(skip)]"
)]
pub unsafe trait Snapshot: Sized + 'static {
    /// What the value looks like in an archive.
    type Archived: Portable + CheckBytes<Checker> + Send + Sync + 'static;

    /// Where the things that the value points at have been written.
    type Resolver;

    /// The bytes are the same live and archived, without padding: a slice of it is one memcpy.
    const PLAIN: bool = false;

    /// There is no interior mutability anywhere inside, and no sharing (`Rc`): asserted by the
    /// paged containers, whose pages are shared with the background.
    const FROZEN: bool;

    /// How many low bits [`sort_key`](Self::sort_key) uses, where it tells the whole value: then
    /// equal keys mean equal values, and the keys of several fields can be packed into one. Zero
    /// where the key is a mere prefix.
    const KEY_BITS: u32 = 0;

    /// One field is marked `#[snapshot(id)]`, so an element of a sequence can be recognised by it.
    const HAS_ID: bool = false;

    /// Writes everything the value points at.
    ///
    /// # Errors
    ///
    /// [`Halt`], after the reason has been left in the session.
    fn archive(&self, s: &mut Session) -> Result<Self::Resolver, Halt>;

    /// Writes the value itself to `out`.
    fn resolve(&self, r: Self::Resolver, out: Place<Self::Archived>);

    /// A new value from an archive; skipped fields take their default.
    ///
    /// # Errors
    ///
    /// What a `with` wrapper answers, or a length that no memory can hold.
    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError>;

    /// Makes `self` what the archive says, in place, reusing its allocations; skipped fields stay.
    ///
    /// # Errors
    ///
    /// As [`thaw`](Self::thaw). On an error `self` is a valid value, but may be a mixture: the
    /// engine then thaws anew.
    fn restore(&mut self, a: &Self::Archived, t: &mut Thaw) -> Result<(), ThawError> {
        *self = Self::thaw(a, t)?;
        Ok(())
    }

    /// Takes the skipped fields of `old` over into `self`: by position in plain fields, by key in
    /// maps, by id in sequences. Called after a thaw that replaces a live value. `t` tells which
    /// types hold skipped fields at all ([`Thaw::carries_skips`]).
    fn adopt(&mut self, _old: &mut Self, _t: &mut Thaw) {}

    /// A total order by structure, the same in every process and build, that agrees with equality
    /// of the archived bytes. Sorts the entries of maps without asking for `Ord`.
    fn canonical(&self, other: &Self) -> Ordering;

    /// A prefix of the canonical order: `a.sort_key() < b.sort_key()` implies that `a` sorts before
    /// `b`. A constant says nothing. With [`KEY_BITS`](Self::KEY_BITS) it is the whole of it, and
    /// below 2 to that power.
    fn sort_key(&self) -> u64 {
        0
    }

    /// The canonical order between a live value and an archived one.
    fn cmp_archived(&self, a: &Self::Archived) -> Ordering {
        match Self::thaw(a, &mut Thaw::new()) {
            Ok(other) => self.canonical(&other),
            Err(_) => Ordering::Less,
        }
    }

    /// Compares the `#[snapshot(id)]` fields in canonical order. Meaningful with `HAS_ID` alone.
    fn cmp_id(&self, _other: &Self) -> Ordering {
        Ordering::Equal
    }

    /// Compares the `#[snapshot(id)]` field with an archived one. Meaningful with `HAS_ID` alone.
    fn cmp_archived_id(&self, _a: &Self::Archived) -> Ordering {
        Ordering::Equal
    }

    /// Describes the archived layout.
    fn schema(s: &mut Schema) -> Shape;
}

/// The archived form of `T`.
pub type Archived<T> = <T as Snapshot>::Archived;

#![forbid(unsafe_code)]
//! The way back: what [`Snapshot::thaw`] and [`Snapshot::restore`] share while they run.
//!
//! [`Snapshot::thaw`]: crate::Snapshot::thaw
//! [`Snapshot::restore`]: crate::Snapshot::restore

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    error::Error,
    fmt,
    sync::Arc,
};

use rkyv::rancor::{BoxedError, Fallible};

use crate::{paged::stamp::Stamp, schema::Layout, session::MAX_EMPTY_ITEMS};

/// One thawing or restoring of one state. Handed to the derived code; users never make one.
#[derive(Default)]
pub struct Thaw {
    /// Which types hold skipped fields; none where the whole state has none.
    layout: Option<Arc<Layout>>,
    /// Shared pointers met so far, by archived address and live type.
    pool: HashMap<(usize, TypeId), Box<dyn Any>>,
    /// Elements without archived bytes made so far.
    empty: usize,
    /// What names the pages can be relied upon.
    named: bool,
}

impl Thaw {
    /// For a value that no live one precedes.
    pub(crate) fn new() -> Thaw {
        Thaw::default()
    }

    /// For a value of `layout`.
    pub(crate) fn of(layout: &Arc<Layout>) -> Thaw {
        let layout = (!layout.carriers.is_empty()).then(|| layout.clone());
        Thaw { layout, ..Thaw::default() }
    }

    /// The same, from bytes whose pages keep their names, or do not.
    pub(crate) fn named(self, named: bool) -> Thaw {
        Thaw { named, ..self }
    }

    /// The name of a page that is thawed: the archived one, under which it is known to be in its file; a
    /// new one where two contents might be found under one name.
    pub(crate) fn stamp(&self, archived: Stamp) -> Stamp {
        if self.named { archived } else { Stamp::next() }
    }

    /// Whether a `T` holds a skipped field anywhere inside: then its elements cannot simply be
    /// overwritten by position. Costs one test where the whole state has none.
    #[inline]
    pub fn carries_skips<T: 'static>(&self) -> bool {
        match &self.layout {
            None => false,
            Some(layout) => layout.carriers.contains(&TypeId::of::<T>()),
        }
    }

    /// Counts elements that take no bytes in the archive.
    pub(crate) fn count_empty(&mut self, len: usize) -> Result<(), ThawError> {
        self.empty = self.empty.saturating_add(len);
        if self.empty > MAX_EMPTY_ITEMS {
            let items = self.empty as u128;
            return Err(ThawError::out_of_range("sequence of empty elements", items));
        }
        Ok(())
    }

    /// The shared pointer already made for the archived value at `address`.
    pub fn pooled<P: Clone + 'static>(&self, address: usize) -> Option<P> {
        self.pool.get(&(address, TypeId::of::<P>()))?.downcast_ref::<P>().cloned()
    }

    /// Remembers the shared pointer made for the archived value at `address`.
    pub fn pool<P: Clone + 'static>(&mut self, address: usize, pointer: P) {
        self.pool.insert((address, TypeId::of::<P>()), Box::new(pointer));
    }
}

impl fmt::Debug for Thaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thaw").field("pooled", &self.pool.len()).finish_non_exhaustive()
    }
}

/// `with` wrappers deserialise through this.
impl Fallible for Thaw {
    type Error = BoxedError;
}

/// An archive was whole, but a value could not be made of it.
#[derive(Debug)]
pub struct ThawError(Box<Reason>);

#[derive(Debug)]
enum Reason {
    Wrapper(Box<dyn Error + Send + Sync>),
    Range { what: &'static str, value: u128 },
}

impl ThawError {
    /// A `with` wrapper (or the code behind it) failed.
    #[cold]
    pub fn wrapper(error: impl Into<Box<dyn Error + Send + Sync>>) -> ThawError {
        ThawError(Box::new(Reason::Wrapper(error.into())))
    }

    /// An archived number has no place in the live type on this machine.
    #[cold]
    pub fn out_of_range(what: &'static str, value: u128) -> ThawError {
        ThawError(Box::new(Reason::Range { what, value }))
    }
}

impl fmt::Display for ThawError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Reason::Wrapper(_) => f.write_str(
                "a `with` wrapper refused the archived bytes; the snapshot itself is whole: \
                 check the wrapper against the version of its type that wrote it",
            ),
            Reason::Range { what, value } => {
                write!(f, "{value} does not fit a {what} on this machine")
            }
        }
    }
}

impl Error for ThawError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &*self.0 {
            Reason::Wrapper(error) => Some(&**error),
            Reason::Range { .. } => None,
        }
    }
}

impl From<BoxedError> for ThawError {
    fn from(error: BoxedError) -> ThawError {
        ThawError::wrapper(error)
    }
}

//! [`Memento`]: one snapshot, held. The only file that makes references to archived states.

use std::{
    fmt,
    marker::PhantomData,
    ops::Deref,
    ptr::{self, NonNull},
    sync::{Arc, atomic::Ordering},
};

use xxhash_rust::xxh3::Xxh3;

use crate::{
    engine::Engine,
    error::MementoError,
    id::SnapshotId,
    os,
    snapshot::{Archived, Snapshot},
    thaw::{Thaw, ThawError},
};

/// The archived state at `root`.
///
/// # Safety
///
/// `root` came from [`Ring::root`](crate::ring::Ring::root) of an engine of `T`, is not zero, and
/// its place is held or announced for as long as `'a`.
pub(crate) unsafe fn archived<'a, T: Snapshot>(root: usize) -> &'a Archived<T> {
    let root = ptr::with_exposed_provenance::<Archived<T>>(root);
    // SAFETY: the engine sets a root only after the bytes behind it were written by this process
    // from a `T`, or passed checksum and bytecheck for one; it is aligned then, and the mapping was
    // exposed. The bytes do not change while the place is held or announced (P1).
    unsafe { &*root }
}

/// A counted hold on a place: its bytes stay as they are, and the engine (files, lock) stays open.
#[derive(Debug)]
pub(crate) struct Hold {
    engine: Arc<Engine>,
    place: usize,
    id: SnapshotId,
}

impl Hold {
    /// Takes over one count that the caller has taken on the place.
    pub(crate) fn counted(engine: &Arc<Engine>, place: usize, id: SnapshotId) -> Hold {
        // Relaxed: for people to read.
        engine.mementos.fetch_add(1, Ordering::Relaxed);
        Hold { engine: engine.clone(), place, id }
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(crate) fn place(&self) -> usize {
        self.place
    }
}

impl Clone for Hold {
    fn clone(&self) -> Hold {
        self.engine.ring.hold(self.place);
        Hold::counted(&self.engine, self.place, self.id)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if os::forked() {
            // The files are the parent's: nothing is unmapped, unlocked or counted here.
            std::mem::forget(self.engine.clone());
            return;
        }
        self.engine.ring.unhold(self.place);
        // Relaxed: for people to read.
        self.engine.mementos.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One immutable snapshot, held: its bytes do not change and its place is not used again while this
/// lives. It outlives its caretaker, and keeps the directory locked until it is dropped.
///
/// Holding one costs space, never correctness; [`Caretaker::stats`](crate::Caretaker::stats) lists
/// who holds what and since when. Cloning counts, it copies nothing.
#[must_use = "a memento dropped at once protects nothing"]
pub struct Memento<T: Snapshot> {
    hold: Hold,
    root: NonNull<Archived<T>>,
    state: PhantomData<fn() -> T>,
}

// SAFETY: a memento gives out `&Archived<T>` alone, which is `Send + Sync` by the bound on
// `Snapshot::Archived`; its hold is, too.
unsafe impl<T: Snapshot> Send for Memento<T> {}
// SAFETY: as above.
unsafe impl<T: Snapshot> Sync for Memento<T> {}

impl<T: Snapshot> Memento<T> {
    /// A memento of a held place, if its bytes can be believed; checks them if nobody has.
    pub(crate) fn of(hold: Hold) -> Result<Memento<T>, MementoError> {
        let mut root = hold.engine.ring.root(hold.place);
        if root == 0 {
            hold.engine.believe(hold.place, hold.id.get())?;
            root = hold.engine.ring.root(hold.place);
        }
        // SAFETY: a root that is set, or that `believe` has just set, is of this engine, which is one of `T`; `hold` goes into
        // the same memento as the reference.
        let root = NonNull::from(unsafe { archived::<T>(root) });
        Ok(Memento { hold, root, state: PhantomData })
    }

    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }

    /// The snapshot's id.
    pub fn id(&self) -> SnapshotId {
        self.hold.id
    }

    /// The archived state, in place: nothing is copied. Also through `Deref`.
    pub fn archived(&self) -> &Archived<T> {
        // SAFETY: checked in `of`; the hold keeps the bytes as they are, at least as long as
        // `&self`.
        unsafe { self.root.as_ref() }
    }

    /// An owned value of it; skipped fields take their defaults. Costs what building the value
    /// costs.
    ///
    /// # Errors
    ///
    /// What a `with` wrapper answers.
    pub fn thaw(&self) -> Result<T, ThawError> {
        T::thaw(self.archived(), &mut Thaw::of(&self.hold.engine.layout))
    }

    /// A hash of the state: equal states of canonical types (anything but `unsorted` and `hashed`
    /// fields) have equal digests, in any process and build. Costs one pass over the bytes.
    pub fn digest(&self) -> Digest {
        let engine = &self.hold.engine;
        let root = engine.lock().places[self.hold.place].root;
        let mut hash = Xxh3::new();
        hash.update(&engine.layout.fingerprint.to_bytes());
        hash.update(engine.file_of(self.hold.place).retained(root));
        Digest(hash.digest128())
    }

    /// Bytes of the archive.
    pub fn bytes(&self) -> u64 {
        self.hold.engine.lock().places[self.hold.place].root.len
    }
}

impl<T: Snapshot> Deref for Memento<T> {
    type Target = Archived<T>;

    fn deref(&self) -> &Archived<T> {
        self.archived()
    }
}

impl<T: Snapshot> Clone for Memento<T> {
    fn clone(&self) -> Memento<T> {
        Memento { hold: self.hold.clone(), root: self.root, state: PhantomData }
    }
}

impl<T: Snapshot> fmt::Debug for Memento<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Memento").field(&self.id()).finish()
    }
}

/// A hash of a state, for comparing states across processes and machines.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(u128);

impl Digest {
    /// Sixteen bytes, little-endian.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// From the bytes that [`to_bytes`](Self::to_bytes) gives.
    pub const fn from_bytes(bytes: [u8; 16]) -> Digest {
        Digest(u128::from_le_bytes(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

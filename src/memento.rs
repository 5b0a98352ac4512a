//! [`Memento`]: one snapshot, held. The only file that makes references to archived states.

use std::{
    fmt,
    marker::PhantomData,
    ops::Deref,
    ptr::{self, NonNull},
    sync::Arc,
};

use xxhash_rust::xxh3::Xxh3;

use crate::{
    error::MementoError,
    id::SnapshotId,
    os,
    record::Extent,
    ring::Ring,
    runs::Table,
    schema::Layout,
    snapshot::{Archived, Snapshot},
    thaw::{Thaw, ThawError},
};

/// The archived state at `root`.
///
/// # Safety
///
/// `root` came from [`Ring::root`] of a keeper of `T`, is not zero, and its place is held or
/// announced for as long as `'a`.
pub(crate) unsafe fn archived<'a, T: Snapshot>(root: usize) -> &'a Archived<T> {
    let root = ptr::with_exposed_provenance::<Archived<T>>(root);
    // SAFETY: a keeper sets a root only after the bytes behind it were written by this process
    // from a `T`, or passed checksum and bytecheck for one; it is aligned then, and the mapping was
    // exposed. The bytes do not change while the place is held or announced (P1).
    unsafe { &*root }
}

/// Who keeps places for mementos: the engine that writes them, or a reader elsewhere.
pub(crate) trait Keeper: fmt::Debug + Send + Sync {
    /// Its places, where holds are counted.
    fn ring(&self) -> &Ring;

    /// The layout of its states.
    fn layout(&self) -> &Arc<Layout>;

    /// Makes sure that a place, which the caller holds as `id`, can be believed, and has a root.
    fn believe(&self, place: usize, id: u64) -> Result<(), MementoError>;

    /// The archive in a place that the caller holds, and whose root is set.
    fn archive(&self, place: usize) -> &[u8];

    /// The pages of a snapshot in a place that the caller holds, if it has any, and where its archive
    /// lies.
    fn pages(&self, place: usize) -> Option<(Arc<Table>, Extent)>;

    /// Bytes of a snapshot in a place that the caller holds.
    fn extent(&self, place: usize, extent: Extent) -> &[u8];

    /// Whether the bytes in a place that the caller holds were written here, from a live state.
    fn wrote(&self, place: usize) -> bool;

    /// Whether what names the pages there can be relied upon: it was written here, or found to
    /// contradict nothing.
    fn names_hold(&self, place: usize) -> bool;

    /// There is one memento more.
    fn joined(&self);

    /// There is one memento less: its hold is given back.
    fn left(&self, place: usize);
}

/// A counted hold on a place: its bytes stay as they are, and the keeper (files, locks) stays open.
#[derive(Debug)]
pub(crate) struct Hold {
    keeper: Arc<dyn Keeper>,
    place: usize,
    id: SnapshotId,
}

impl Hold {
    /// Takes over one count that the caller has taken on the place.
    pub(crate) fn counted(keeper: Arc<dyn Keeper>, place: usize, id: SnapshotId) -> Hold {
        keeper.joined();
        Hold { keeper, place, id }
    }

    pub(crate) fn layout(&self) -> &Arc<Layout> {
        self.keeper.layout()
    }

    pub(crate) fn place(&self) -> usize {
        self.place
    }

    /// Whether its bytes were written here, rather than found.
    pub(crate) fn is_ours(&self) -> bool {
        self.keeper.wrote(self.place)
    }

    /// Whether equal names mean equal pages there.
    pub(crate) fn names_hold(&self) -> bool {
        self.keeper.names_hold(self.place)
    }
}

impl Clone for Hold {
    fn clone(&self) -> Hold {
        self.keeper.ring().hold(self.place);
        Hold::counted(self.keeper.clone(), self.place, self.id)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if os::forked() {
            // The files are the parent's: nothing is unmapped, unlocked or counted here.
            std::mem::forget(self.keeper.clone());
            return;
        }
        self.keeper.left(self.place);
    }
}

/// One immutable snapshot, held: its bytes do not change and its place is not used again while this
/// lives. It outlives its caretaker, and keeps the directory locked until it is dropped; one of a
/// [`Reader`](crate::Reader) keeps nothing but its place.
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
        let mut root = hold.keeper.ring().root(hold.place);
        if root == 0 {
            hold.keeper.believe(hold.place, hold.id.get())?;
            root = hold.keeper.ring().root(hold.place);
        }
        // SAFETY: a root that is set, or that `believe` has just set, is of this keeper, which is
        // one of `T`; `hold` goes into the same memento as the reference.
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
        T::thaw(self.archived(), &mut Thaw::of(self.hold.layout()).named(self.hold.names_hold()))
    }

    /// A hash of the state: equal states of canonical types (anything but `unsorted` and `hashed`
    /// fields) have equal digests, in any process and build. Costs one pass over the bytes.
    pub fn digest(&self) -> Digest {
        let keeper = &self.hold.keeper;
        let mut hash = Xxh3::new();
        hash.update(&keeper.layout().fingerprint.to_bytes());
        let archive = keeper.archive(self.hold.place);
        let mut from = 0;
        if let Some((table, root)) = keeper.pages(self.hold.place) {
            // The pages, rather than where they are and what they are called.
            for field in &table.fields {
                hash.update(&archive[from..field.bytes().start]);
                for page in field.references(archive, root.offset) {
                    let page = Extent { offset: page.offset, len: u64::from(page.len), crc: 0 };
                    hash.update(keeper.extent(self.hold.place, page));
                }
                from = field.bytes().end;
            }
        }
        hash.update(&archive[from..]);
        Digest(hash.digest128())
    }

    /// Bytes of the archive and its pages.
    pub fn bytes(&self) -> u64 {
        let keeper = &self.hold.keeper;
        let pages = keeper.pages(self.hold.place).map_or(0, |(table, _)| table.bytes);
        keeper.archive(self.hold.place).len() as u64 + pages
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

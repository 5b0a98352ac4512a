//! mmap-sync: two mapped files and a state word, archives of rkyv 0.7.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use mmap_sync::{locks::LockDisabled, synchronizer::Synchronizer};
use rkyv::{
    Archive, CheckBytes, Serialize, ser::serializers::AllocSerializer,
    validation::validators::DefaultValidator,
};
use wyhash::WyHash;

use crate::{
    place::{Place, Scratch},
    states::mirror::Player,
};

/// How long a writer waits for readers where there is never one inside.
const GRACE: Duration = Duration::from_nanos(10);

/// As it is by default, but that a writer which meets a reader looks again at once and not after a
/// second.
type Sync = Synchronizer<WyHash, LockDisabled, 1024, 1_000>;

/// A synchronizer and its files.
pub struct MmapSync {
    synchronizer: Sync,
    path: PathBuf,
    grace: Duration,
    _scratch: Scratch,
}

impl MmapSync {
    /// A new one; its files are made by the first write.
    pub fn new(place: Place) -> MmapSync {
        MmapSync::patient(place, GRACE)
    }

    /// A new one that waits so long for readers before it writes over what they read.
    pub fn patient(place: Place, grace: Duration) -> MmapSync {
        let scratch = Scratch::new(place);
        let path = scratch.at("sync");
        let synchronizer = Sync::with_params(path.as_os_str());
        MmapSync { synchronizer, path, grace, _scratch: scratch }
    }

    /// Archives, checks and publishes a value.
    pub fn write<T>(&mut self, value: &T)
    where
        T: Serialize<AllocSerializer<1024>>,
        T::Archived: for<'a> CheckBytes<DefaultValidator<'a>>,
    {
        self.synchronizer.write(value, self.grace).expect("a write");
    }

    /// Publishes ready bytes, whatever they are.
    pub fn write_raw(&mut self, bytes: &[u8]) {
        self.synchronizer.write_raw::<Player>(bytes, self.grace).expect("a raw write");
    }

    /// The reading end: another synchronizer over the same files, as another process would have it.
    pub fn reader(&self) -> Reader {
        Reader::of(&self.path)
    }

    /// What the names of its files start with: all that another process needs.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The reading end.
pub struct Reader(Sync);

impl Reader {
    /// The reading end of the one with this path.
    pub fn of(path: &Path) -> Reader {
        Reader(Sync::with_params(path.as_os_str()))
    }

    /// Reads the newest value unchecked. It must be a `T` that was written.
    pub fn read<T, R>(&mut self, f: impl FnOnce(&T::Archived) -> R) -> R
    where
        T: Archive,
        T::Archived: for<'a> CheckBytes<DefaultValidator<'a>>,
    {
        self.newest::<T, R>(false, f)
    }

    /// Reads the newest value after a check of all its bytes.
    pub fn read_checked<T, R>(&mut self, f: impl FnOnce(&T::Archived) -> R) -> R
    where
        T: Archive,
        T::Archived: for<'a> CheckBytes<DefaultValidator<'a>>,
    {
        self.newest::<T, R>(true, f)
    }

    fn newest<T, R>(&mut self, check: bool, f: impl FnOnce(&T::Archived) -> R) -> R
    where
        T: Archive,
        T::Archived: for<'a> CheckBytes<DefaultValidator<'a>>,
    {
        // SAFETY: what was last written here is a `T`, and a writer waits for this to end: nobody
        // writes meanwhile where it does not wait long, and nothing here takes so long where it
        // does.
        let value = unsafe { self.0.read::<T>(check) }.expect("a read");
        f(&value)
    }
}

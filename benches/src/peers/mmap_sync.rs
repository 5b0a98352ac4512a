//! mmap-sync: two mapped files and a state word, archives of rkyv 0.7.

use std::{path::PathBuf, time::Duration};

use mmap_sync::synchronizer::Synchronizer;
use rkyv::{
    Archive, CheckBytes, Serialize, ser::serializers::AllocSerializer,
    validation::validators::DefaultValidator,
};

use crate::{
    place::{Place, Scratch},
    states::mirror::Player,
};

/// How long a writer waits for readers; there is never one inside.
const GRACE: Duration = Duration::from_nanos(10);

/// A synchronizer and its files.
pub struct MmapSync {
    synchronizer: Synchronizer,
    path: PathBuf,
    _scratch: Scratch,
}

impl MmapSync {
    /// A new one; its files are made by the first write.
    pub fn new(place: Place) -> MmapSync {
        let scratch = Scratch::new(place);
        let path = scratch.at("sync");
        let synchronizer = Synchronizer::new(path.as_os_str());
        MmapSync { synchronizer, path, _scratch: scratch }
    }

    /// Archives, checks and publishes a value.
    pub fn write<T>(&mut self, value: &T)
    where
        T: Serialize<AllocSerializer<1024>>,
        T::Archived: for<'a> CheckBytes<DefaultValidator<'a>>,
    {
        self.synchronizer.write(value, GRACE).expect("a write");
    }

    /// Publishes ready bytes, whatever they are.
    pub fn write_raw(&mut self, bytes: &[u8]) {
        self.synchronizer.write_raw::<Player>(bytes, GRACE).expect("a raw write");
    }

    /// The reading end: another synchronizer over the same files, as another process would have it.
    pub fn reader(&self) -> Reader {
        Reader(Synchronizer::new(self.path.as_os_str()))
    }
}

/// The reading end.
pub struct Reader(Synchronizer);

impl Reader {
    /// Reads the newest value unchecked. It must be a `T` that was written.
    pub fn read<T, R>(&mut self, f: impl FnOnce(&T::Archived) -> R) -> R
    where
        T: Archive,
        T::Archived: for<'a> CheckBytes<DefaultValidator<'a>>,
    {
        // SAFETY: what was last written here is a `T`, and nobody writes while this reads.
        let value = unsafe { self.0.read::<T>(false) }.expect("a read");
        f(&value)
    }
}

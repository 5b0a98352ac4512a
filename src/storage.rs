#![forbid(unsafe_code)]
//! What a ring lies on, behind one seam: a directory of the system's, memory without a name, or a
//! disk that is simulated.
//!
//! Knows names, bytes and syncs. What a header or a record means, and when to sync, is for others.

use std::{
    fmt, io,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::MmapRaw;

use crate::{
    directory::Directory,
    error::OpenError,
    header::{Floor, Uuid},
    lease::Lessor,
};

/// A directory of ours, locked for writing until this is dropped.
pub(crate) trait Storage: fmt::Debug + Send + Sync {
    /// For people to read.
    fn path(&self) -> &Path;

    /// Whether reserving space here takes memory.
    fn in_memory(&self) -> bool;

    /// Names this boot of the machine; all zeros where nobody knows.
    fn boot(&self) -> Uuid;

    /// Sixteen random bytes.
    fn random_id(&self) -> io::Result<Uuid>;

    /// Opens one of our files, if it is there and can be trusted.
    fn file(&self, name: &str) -> Result<Option<Box<dyn RawFile>>, OpenError>;

    /// Makes one of our files, which is not there, under another name until it is
    /// [put in place](Self::put_in_place): a file cut off in the making is not taken for a damaged
    /// one.
    fn create(&self, name: &str) -> Result<Box<dyn RawFile>, OpenError>;

    /// Gives a file that has been made its name.
    fn put_in_place(&self, name: &str) -> Result<(), OpenError>;

    /// Gives a damaged file another name, over the one set aside before it.
    fn set_aside(&self, name: &str) -> Result<PathBuf, OpenError>;

    /// Returns when the files' names are on the disk.
    fn sync(&self) -> io::Result<()>;

    /// The copy of the id floor that outlives both files.
    fn floor(&self) -> Option<Floor>;

    /// The file of leases, where there can be readers in other processes.
    fn leases(&self) -> Result<Option<Box<dyn Lessor>>, OpenError>;

    /// Writes that copy, and returns when it is on the disk.
    fn write_floor(&self, floor: &Floor) -> io::Result<()>;

    /// The directory of the system's, where it is one.
    fn directory(&self) -> Option<&Directory> {
        None
    }
}

/// One file: its bytes, its length, and the way to the disk.
pub(crate) trait RawFile: fmt::Debug + Send + Sync {
    /// Bytes of the file.
    fn len(&self) -> io::Result<u64>;

    /// Whether a file in memory has a page for each of its `len` bytes: it then needs no
    /// reserving, which would walk them all.
    fn has_all_pages(&self, len: u64) -> bool;

    /// Fills `bytes` from `at` on; an error where the file ends before.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()>;

    /// Writes `bytes` at `at`, for every mapping to see.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Has bytes written out, as far as they are dirty, and waits for nothing: a sync waits less.
    fn start_write_back(&self, _from: u64, _len: u64) {}

    /// Makes bytes `[from, to)` real: space can no longer run out under a store to them. The
    /// length becomes `to` at least.
    fn reserve(&self, from: u64, to: u64) -> io::Result<()>;

    /// Maps `span` bytes from the file's start, shared, beyond its end where that is longer.
    fn map(&self, span: usize) -> io::Result<Arc<MmapRaw>>;

    /// Returns when whole pages of that mapping are on the disk.
    fn sync_range(&self, map: &MmapRaw, from: usize, len: usize) -> io::Result<()>;

    /// Bytes under these whole pages have been stored anew, unchanged, to be written out again.
    fn redirtied(&self, from: u64, len: u64);

    /// Bytes have been stored into the mapping.
    #[cfg(feature = "campaign")]
    fn stored(&self, _from: u64, _len: u64) {}

    /// Returns when the whole file, its length included, is on the disk.
    fn sync_all(&self) -> io::Result<()>;

    /// Returns when the file's bytes, and what it takes to find them, are on the disk.
    fn sync_data(&self) -> io::Result<()> {
        self.sync_all()
    }

    /// Lets go of the memory that whole pages of that mapping take, where they are on the disk: who
    /// looks at them again has them read from there.
    fn forget(&self, _map: &MmapRaw, _from: usize, _len: usize) -> io::Result<()> {
        Ok(())
    }

    /// Its descriptor, where it is a file of the system's.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A file of the system's.
#[derive(Debug)]
pub(crate) struct SystemFile(pub(crate) std::fs::File);

impl RawFile for SystemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn has_all_pages(&self, len: u64) -> bool {
        crate::os::has_all_pages(&self.0, len)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, bytes, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, bytes, at)
    }

    fn start_write_back(&self, from: u64, len: u64) {
        crate::os::start_write_back(&self.0, from, len);
    }

    fn reserve(&self, from: u64, to: u64) -> io::Result<()> {
        crate::os::reserve(&self.0, from, to)
    }

    fn map(&self, span: usize) -> io::Result<Arc<MmapRaw>> {
        memmap2::MmapOptions::new().len(span).map_raw(&self.0).map(Arc::new)
    }

    fn sync_range(&self, map: &MmapRaw, from: usize, len: usize) -> io::Result<()> {
        map.flush_range(from, len)
    }

    fn redirtied(&self, _: u64, _: u64) {}

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn forget(&self, map: &MmapRaw, from: usize, len: usize) -> io::Result<()> {
        crate::os::forget(&self.0, map, from, len)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

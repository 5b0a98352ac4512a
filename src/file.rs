//! One of the two files, mapped: bytes at offsets, reserved, written, synced. The only file with
//! unsafe access to a mapping's memory besides the session that fills an extent.
//!
//! Knows lengths and bytes. What a header or a record means is for `header.rs` and `record.rs`.
//!
//! The mapping covers `max` bytes of address space from the start, far beyond the file's end, and
//! is never moved: growing the file makes more of it usable. So an address once handed out stays
//! right while the file is held. Nothing beyond the reserved length is ever touched (a load there
//! would signal).

use std::{
    io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering, fence},
    },
};

use memmap2::MmapRaw;

use crate::{os, storage::RawFile};

/// What everything in a file is a multiple of: slot pages, and the blocks of the data area.
pub(crate) const BLOCK: u64 = 4096;

/// A file and its mapping.
#[derive(Debug)]
pub(crate) struct MappedFile {
    path: PathBuf,
    file: Box<dyn RawFile>,
    map: Arc<MmapRaw>,
    /// Bytes of the file that are reserved: `[0, len)` may be touched.
    len: AtomicU64,
    /// Bytes of address space: the most the file may grow to.
    max: u64,
}

impl MappedFile {
    /// Maps `file`, whose first `len` bytes are reserved.
    pub(crate) fn map(
        path: &Path,
        file: Box<dyn RawFile>,
        len: u64,
        max: u64,
    ) -> io::Result<MappedFile> {
        let max = max.max(len).next_multiple_of(os::page_size() as u64);
        let span = usize::try_from(max).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let map = file.map(span)?;
        let mapped = MappedFile { path: path.to_owned(), file, map, len: AtomicU64::new(len), max };
        // Readers come back to archived roots by address alone.
        _ = mapped.base().as_ptr().expose_provenance();
        // SAFETY: the whole of our own mapping.
        unsafe { os::keep_from_children(mapped.base(), span) }?;
        Ok(mapped)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes reserved so far.
    pub(crate) fn len(&self) -> u64 {
        // Acquire: met by the Release in `grow`. Who sees the length may touch those bytes.
        self.len.load(Ordering::Acquire)
    }

    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// Reserves up to `to` bytes. Several may ask at once; the file never gets shorter.
    pub(crate) fn grow(&self, to: u64) -> io::Result<()> {
        let from = self.len();
        if to > from {
            self.file.reserve(from, to.min(self.max))?;
            // Release: met by the Acquire in `len`.
            self.len.fetch_max(to.min(self.max), Ordering::Release);
        }
        Ok(())
    }

    /// Takes note of what another process has added to the file. `false` if that is more than this
    /// mapping can reach.
    pub(crate) fn catch_up(&self) -> io::Result<bool> {
        let len = self.file.len()? / BLOCK * BLOCK;
        // Release: met by the Acquire in `len`.
        self.len.fetch_max(len.min(self.max), Ordering::Release);
        Ok(len <= self.max)
    }

    /// The file's descriptor, where it is one of the system's.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.descriptor()
    }

    /// Reserves once more what the file has: blocks may have been punched out meanwhile.
    pub(crate) fn reserve_again(&self) -> io::Result<()> {
        self.file.reserve(0, self.len())
    }

    /// Whether a file in memory has all its pages.
    pub(crate) fn has_all_pages(&self) -> bool {
        self.file.has_all_pages(self.len())
    }

    /// Writes bytes through the file rather than the mapping, which sees them too.
    pub(crate) fn write_through(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    /// Has bytes that were written through written out, and waits for nothing.
    pub(crate) fn start_write_back(&self, offset: u64, len: u64) {
        self.file.start_write_back(offset, len);
    }

    /// From now on a store to the first `len` bytes, whole pages, brings in no others. What a touch
    /// brings in comes in small pages, for good: writes to them take twice as long.
    pub(crate) fn touch_alone(&self, len: u64) {
        // SAFETY: whole pages of our own mapping.
        let advised = unsafe { os::touch_alone(self.at(0, len), len as usize) };
        // A hint alone.
        _ = advised;
    }

    fn base(&self) -> NonNull<u8> {
        // SAFETY: a mapping is never at null.
        unsafe { NonNull::new_unchecked(self.map.as_mut_ptr()) }
    }

    /// The address of the byte at `offset`, with `len` touchable bytes from there.
    ///
    /// # Panics
    ///
    /// If they are not reserved: that would be a bug of the engine's, and touching them a signal.
    pub(crate) fn at(&self, offset: u64, len: u64) -> NonNull<u8> {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.len()),
            "{offset}+{len} is beyond the file's end"
        );
        // SAFETY: inside the mapping, by the assertion (`len() <= max`, the mapping's span).
        unsafe { self.base().add(offset as usize) }
    }

    /// A copy of `N` bytes at `offset`.
    pub(crate) fn read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let from = self.at(offset, N as u64);
        let mut bytes = [0; N];
        // SAFETY: `N` touchable bytes there, by `at`; the engine's lock keeps writers of headers
        // and slot pages away, and nobody else writes the files (the promise made at `open`).
        unsafe { from.copy_to_nonoverlapping(NonNull::from(&mut bytes).cast(), N) };
        bytes
    }

    /// Writes a sector whose last word seals it: the word goes to zero first and comes last, so
    /// that a process killed at any instruction leaves it either sealed whole or not sealed.
    pub(crate) fn write_sealed<const N: usize>(&self, offset: u64, bytes: &[u8; N]) {
        let (body, seal) = bytes.split_at(N - 4);
        let word = self.word(offset + N as u64 - 4);
        // Relaxed, with the fence: the seal is broken before the body changes, so that a kill in
        // between, and whoever reads along, finds an unsealed sector.
        word.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        let to = self.at(offset, N as u64);
        self.stored(offset, N as u64);
        // SAFETY: `N` touchable bytes there, by `at`; the engine's lock admits one writer.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(body).cast(), body.len()) };
        self.stored(offset, N as u64);
        let seal = seal.try_into().map_or(0, u32::from_ne_bytes);
        // Release: what the seal covers was written before it.
        word.store(seal, Ordering::Release);
        self.stored(offset, N as u64);
    }

    /// Breaks a sector's seal.
    pub(crate) fn unseal(&self, offset: u64, len: u64) {
        // Release: no partner in this process; keeps the order of stores for a later recovery.
        self.word(offset + len - 4).store(0, Ordering::Release);
        self.stored(offset, len);
    }

    /// The aligned 32-bit word at `offset`, shared with other processes.
    pub(crate) fn word(&self, offset: u64) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4), "a word is aligned");
        let at = self.at(offset, 4).cast::<AtomicU32>();
        // SAFETY: four touchable aligned bytes, by `at` and the assertion; alive as long as the
        // mapping, which `self` holds.
        unsafe { at.as_ref() }
    }

    /// The aligned 64-bit word at `offset`, shared with other processes.
    pub(crate) fn word64(&self, offset: u64) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8), "a word is aligned");
        let at = self.at(offset, 8).cast::<AtomicU64>();
        // SAFETY: as in `word`.
        unsafe { at.as_ref() }
    }

    /// The bytes of an extent.
    ///
    /// # Safety
    ///
    /// Nothing writes them while the slice lives (P1: a retained snapshot's bytes never change).
    pub(crate) unsafe fn slice(&self, offset: u64, len: u64) -> &[u8] {
        let at = self.at(offset, len);
        // SAFETY: `len` touchable bytes, by `at`, unchanging by the caller's promise; alive as long
        // as `self`.
        unsafe { std::slice::from_raw_parts(at.as_ptr(), len as usize) }
    }

    /// A point at which a campaign may stop the process; else nothing.
    #[inline]
    pub(crate) fn stored(&self, _offset: u64, _len: u64) {
        #[cfg(feature = "campaign")]
        self.file.stored(_offset, _len);
    }

    /// Copies bytes into space that the caller alone uses.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        let to = self.at(offset, bytes.len() as u64);
        // SAFETY: as many touchable bytes, by `at`; nobody reads or writes an extent that the
        // allocator has handed to the caller.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        self.stored(offset, bytes.len() as u64);
    }

    /// Returns when the bytes are on the disk.
    pub(crate) fn sync(&self, offset: u64, len: u64) -> io::Result<()> {
        let (from, len) = self.pages(offset, len);
        self.file.sync_range(&self.map, from as usize, len as usize)
    }

    /// Returns when all bytes of the file are on the disk, those written through it, too.
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Lets go of the memory under the whole pages inside `[offset, offset + len)`, which are on the
    /// disk. Their bytes stay what they are: whoever looks has them read again.
    pub(crate) fn forget(&self, offset: u64, len: u64) -> io::Result<()> {
        let (from, len) = self.pages(offset, len);
        self.file.forget(&self.map, from as usize, len as usize)
    }

    /// Makes the pages under these bytes present, for reading or writing, ahead of need.
    pub(crate) fn populate(&self, offset: u64, len: u64, writable: bool) -> io::Result<()> {
        let (from, len) = self.pages(offset, len);
        // SAFETY: whole pages of our own mapping.
        unsafe { os::populate(self.at(from, len), len as usize, writable) }
    }

    /// Makes the kernel write every page out again, even where an earlier writeback failed and was
    /// forgotten. Stores nothing: others may be reading these bytes.
    pub(crate) fn redirty(&self, offset: u64, len: u64) -> io::Result<()> {
        let (from, len) = self.pages(offset, len);
        // SAFETY: whole pages of our own mapping.
        if !unsafe { os::dirty(self.at(from, len), len as usize) }? {
            for page in (from..from + len).step_by(os::page_size()) {
                self.file.write_at(&self.read::<1>(page), page)?;
            }
        }
        self.file.redirtied(from, len);
        Ok(())
    }

    /// Pages under these bytes that are in memory.
    #[cfg(test)]
    pub(crate) fn resident(&self, offset: u64, len: u64) -> usize {
        let (from, len) = self.pages(offset, len);
        let mut pages = vec![0_u8; len as usize / os::page_size()];
        let at = self.at(from, len).as_ptr().cast();
        // SAFETY: whole pages of our own mapping, and a byte for each of them to write to.
        let asked = unsafe { libc::mincore(at, len as usize, pages.as_mut_ptr()) };
        assert_eq!(asked, 0, "the kernel tells");
        pages.iter().filter(|page| **page & 1 == 1).count()
    }

    /// The whole pages around `[offset, offset + len)`, inside the reserved length.
    fn pages(&self, offset: u64, len: u64) -> (u64, u64) {
        let page = os::page_size() as u64;
        let from = offset / page * page;
        let to = (offset + len).next_multiple_of(page).min(self.len());
        (from, to - from)
    }
}

#[cfg(test)]
mod tests {
    //! A page that a failed sync has left clean would never be written again.

    use std::{fs::File, os::fd::AsRawFd as _};

    use super::*;
    use crate::storage::SystemFile;

    /// Pages of the file that wait to be written out, as far as this kernel tells.
    fn waiting(file: &File) -> Option<u64> {
        const CACHESTAT: libc::c_long = 451;
        let (range, mut found) = ([0_u64, 0], [0_u64; 5]);
        // SAFETY: a range of two words, five words to write to, no flags.
        let asked = unsafe {
            libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), found.as_mut_ptr(), 0)
        };
        (asked == 0).then_some(found[1])
    }

    #[test]
    fn pages_made_dirty_are_written_again_and_hold_what_they_held() {
        let path = std::env::temp_dir().join(format!("snapring-dirty-{}", std::process::id()));
        let options = File::options().read(true).write(true).create_new(true).clone();
        let file = options.open(&path).expect("a new file");
        std::fs::remove_file(&path).expect("nameless");
        file.set_len(16 * BLOCK).expect("longer");
        let raw = Box::new(SystemFile(file.try_clone().expect("once more")));
        let map = MappedFile::map(&path, raw, 16 * BLOCK, 16 * BLOCK).expect("mapped");
        map.write(0, &[7; 16 * BLOCK as usize]);
        map.sync(0, 16 * BLOCK).expect("synced");
        let Some(0) = waiting(&file) else {
            eprintln!("skipped: this system does not tell which pages wait");
            return;
        };
        map.redirty(4 * BLOCK + 100, 2 * BLOCK).expect("dirty");
        assert_eq!(waiting(&file), Some(3), "three pages are under those bytes");
        map.sync(0, 16 * BLOCK).expect("synced");
        assert_eq!(waiting(&file), Some(0));
        assert_eq!(map.read::<{ 16 * BLOCK as usize }>(0), [7; 16 * BLOCK as usize]);
    }
}

//! One of the two files as a reader in another process sees it: mapped for reading alone, while
//! somebody else writes. The only file with unsafe access to such a mapping.
//!
//! Knows bytes and lengths. Nothing in here is believed; that is for `follower.rs`.
//!
//! The mapping reaches beyond the file's end, so that the file can grow under it; where that is not
//! enough, a larger one is added and the old ones stay, since addresses into them were handed out.
//! Nothing beyond the file's length is ever touched (a load there would signal).

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;

use crate::{os, record::Extent};

/// A file and its mappings.
#[derive(Debug)]
pub(crate) struct Window {
    path: PathBuf,
    file: File,
    first: MmapRaw,
    /// Each reaches further than those before.
    more: Mutex<Vec<MmapRaw>>,
    /// The file was at least as long when it was last looked at: those bytes may be touched.
    len: AtomicU64,
}

/// Maps `span` bytes from the file's start, for reading, in this process alone.
fn map(file: &File, span: u64) -> io::Result<MmapRaw> {
    let span = usize::try_from(span).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let map = MmapOptions::new().len(span).map_raw_read_only(file)?;
    // Archived roots are come back to by address alone.
    _ = map.as_ptr().expose_provenance();
    // SAFETY: the whole of a mapping that nobody else knows yet.
    unsafe { os::keep_from_children(start(&map), span) }?;
    Ok(map)
}

fn start(map: &MmapRaw) -> NonNull<u8> {
    // SAFETY: a mapping is never at null.
    unsafe { NonNull::new_unchecked(map.as_ptr().cast_mut()) }
}

impl Window {
    /// Maps `file`, which is `len` bytes long, with room to grow to `span`; without that room where
    /// there is no address space for it.
    pub(crate) fn open(path: &Path, file: File, len: u64, span: u64) -> io::Result<Window> {
        let first = map(&file, span.max(len)).or_else(|_| map(&file, len))?;
        let path = path.to_owned();
        Ok(Window { path, file, first, more: Mutex::new(Vec::new()), len: AtomicU64::new(len) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The file's length as far as it matters: at least `wanted`, if it has grown to that.
    fn len(&self, wanted: u64) -> io::Result<u64> {
        // Relaxed: the file does not get shorter, and the kernel orders its growth.
        let known = self.len.load(Ordering::Relaxed);
        if wanted <= known {
            return Ok(known);
        }
        let len = self.file.metadata()?.len();
        self.len.fetch_max(len, Ordering::Relaxed);
        Ok(len)
    }

    /// The address of bytes that may be touched, in a mapping that reaches to `reach` at least.
    fn at(&self, offset: u64, len: u64, reach: u64) -> Result<NonNull<u8>, String> {
        let outside = || format!("{len} bytes at {offset} lie outside the file");
        let end = offset.checked_add(len).ok_or_else(outside)?.max(reach);
        if end > self.len(end).map_err(|e| e.to_string())? {
            return Err(outside());
        }
        let base = if end <= self.first.len() as u64 {
            start(&self.first)
        } else {
            let mut more = self.more.lock();
            match more.last() {
                Some(map) if end <= map.len() as u64 => start(map),
                _ => {
                    let span = end.checked_next_power_of_two().unwrap_or(end);
                    let wider = map(&self.file, span).or_else(|_| map(&self.file, end));
                    let wider = wider.map_err(|e| format!("cannot map {end} bytes: {e}"))?;
                    let base = start(&wider);
                    more.push(wider);
                    base
                }
            }
        };
        // SAFETY: inside the mapping chosen above; it lives as long as `self`.
        Ok(unsafe { base.add(offset as usize) })
    }

    /// The aligned 32-bit word at `offset`, which is inside the file's first pages.
    fn word(&self, offset: u64) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4), "a word is aligned");
        // Relaxed: as in `len`.
        let end = self.len.load(Ordering::Relaxed).min(self.first.len() as u64);
        assert!(offset + 4 <= end, "{offset} is beyond the file's end");
        // SAFETY: inside the first mapping and the file, by the assertion.
        let at = unsafe { start(&self.first).add(offset as usize) };
        // SAFETY: four aligned bytes that may be touched, alive as long as `self`; whoever writes
        // them does so by whole words, and this process only loads, Relaxed, as read-only memory
        // allows.
        unsafe { at.cast::<AtomicU32>().as_ref() }
    }

    /// The aligned 64-bit word at `offset`, a hint to look at.
    pub(crate) fn hint(&self, offset: u64) -> u64 {
        assert!(offset.is_multiple_of(8), "a word is aligned");
        let word = self.word(offset);
        self.word(offset + 4);
        // SAFETY: eight aligned bytes that may be touched, by both calls; otherwise as in `word`.
        let word = unsafe { NonNull::from(word).cast::<AtomicU64>().as_ref() };
        // Relaxed: nothing is believed for it.
        word.load(Ordering::Relaxed)
    }

    /// The word that the writer moves with each snapshot. What was published before it is seen.
    pub(crate) fn wake(&self, offset: u64) -> u32 {
        let seen = self.word(offset).load(Ordering::Relaxed);
        // Acquire, as a fence, since read-only memory wants plain loads: met by the Release of the
        // store in `Engine::publish`.
        fence(Ordering::Acquire);
        seen
    }

    /// Sleeps while that word is `seen`, at most `limit`; see [`os::wait_while`].
    pub(crate) fn wait(&self, offset: u64, seen: u32, limit: std::time::Duration) {
        os::wait_while(self.word(offset), seen, limit);
    }

    /// Wakes all who wait for that word, in whatever process.
    pub(crate) fn rouse(&self, offset: u64) {
        os::wake_waiting(self.word(offset));
    }

    /// A copy of the structure of `N` bytes at `offset`, if it is sealed and nobody wrote it
    /// meanwhile. Whether the seal fits is another question.
    pub(crate) fn sealed<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        const { assert!(N.is_multiple_of(4), "structures are whole words") };
        let seal = self.word(offset + N as u64 - 4);
        let before = seal.load(Ordering::Relaxed);
        if before == 0 {
            return None;
        }
        // Acquire: met by the Release of the seal in `MappedFile::write_sealed`: the words that it
        // seals are seen, or later ones.
        fence(Ordering::Acquire);
        let mut bytes = [0; N];
        for (i, four) in bytes.chunks_exact_mut(4).enumerate() {
            let word = self.word(offset + 4 * i as u64).load(Ordering::Relaxed);
            four.copy_from_slice(&word.to_ne_bytes());
        }
        // Acquire: met by the Release fence behind the breaking of the seal there: who has seen a
        // later word sees the broken seal.
        fence(Ordering::Acquire);
        (seal.load(Ordering::Relaxed) == before).then_some(bytes)
    }

    /// The bytes of an extent that is leased while the slice is used, and whose record was believed
    /// under that lease; the reason where they lie outside the file.
    pub(crate) fn leased(&self, extent: Extent) -> Result<&[u8], String> {
        self.leased_within(extent, 0)
    }

    /// The same, in a mapping that reaches to `reach` at least: all bytes that are asked for with the
    /// same one lie as far from each other in memory as in the file.
    pub(crate) fn leased_within(&self, extent: Extent, reach: u64) -> Result<&[u8], String> {
        let at = self.at(extent.offset, extent.len, reach)?;
        // SAFETY: `len` bytes that may be touched, by `at`, alive as long as `self`. They do not
        // change: P1, since every caller leases them, and nobody but the caretaker writes the files
        // (the promise made at `Reader::open`).
        Ok(unsafe { std::slice::from_raw_parts(at.as_ptr(), extent.len as usize) })
    }
}

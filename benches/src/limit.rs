//! The limit: what saving cannot beat. The ready archive is copied into warm mapped pages, its
//! checksum taken on the way, and one word published. No walk over a heap, no ring, no record.

use std::{
    fs::OpenOptions,
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
};

use memmap2::MmapMut;

use crate::place::{Place, Scratch};

/// The checksum follows the copy at this distance.
const WINDOW: usize = 32 << 10;

/// What everything in the file is a multiple of.
const BLOCK: usize = 4096;

/// A mapped file with room for so many archives, every page of it written before.
#[derive(Debug)]
pub struct Limit {
    map: MmapMut,
    stride: usize,
    destinations: usize,
    published: u64,
    _scratch: Option<Scratch>,
}

impl Limit {
    /// Room for `destinations` archives of `len` bytes. Panics where there is none.
    pub fn new(place: Place, len: usize, destinations: usize) -> Limit {
        let stride = len.next_multiple_of(BLOCK);
        let size = BLOCK + stride * destinations;
        let (mut map, scratch) = match place {
            Place::Memory => (MmapMut::map_anon(size).expect("memory"), None),
            Place::Ext4 | Place::Tmpfs => {
                let scratch = Scratch::new(place);
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .open(scratch.at("limit"))
                    .expect("a file");
                rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size as u64)
                    .expect("space");
                // SAFETY: the file was just made under a name of our own; nobody else writes it.
                let map = unsafe { MmapMut::map_mut(&file) }.expect("a mapping");
                (map, Some(scratch))
            }
        };
        map.fill(1);
        Limit { map, stride, destinations, published: 0, _scratch: scratch }
    }

    /// Copies `archive` to the next destination and publishes it. Panics if it is longer than was
    /// said.
    pub fn save(&mut self, archive: &[u8]) -> u64 {
        self.published += 1;
        let at = BLOCK + (self.published as usize % self.destinations) * self.stride;
        let to = &mut self.map[at..at + archive.len()];
        let mut crc = crc32fast::Hasher::new();
        for (to, from) in to.chunks_mut(WINDOW).zip(archive.chunks(WINDOW)) {
            to.copy_from_slice(from);
            crc.update(from);
        }
        black_box(crc.finalize());
        let head = self.map.as_mut_ptr().cast::<AtomicU64>();
        // SAFETY: the first bytes of a mapping: aligned, ours, and touched as this word alone.
        let head = unsafe { &*head };
        // Release: who sees the number would see the bytes. Nobody looks; the store is the cost.
        head.store(self.published, Ordering::Release);
        self.published
    }
}

/// One checksum over the bytes.
pub fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

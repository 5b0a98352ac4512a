//! A directory with snapshots in it, to be opened again and again; and the bytes of one archive in
//! a mapped file, to be checksummed.

use std::{
    fs::{self, File},
    hint::black_box,
    path::PathBuf,
    time::{Duration, Instant},
};

use memmap2::Mmap;
use snapring::{Caretaker, Snapshot};

use crate::{
    limit::crc,
    place::{Place, Scratch},
    ring::{FEW, open, quiet},
};

/// A closed ring in a directory.
#[derive(Debug)]
pub struct Closed {
    dir: PathBuf,
    _scratch: Scratch,
}

impl Closed {
    /// A ring with this state saved on both sides, closed.
    pub fn new<T: Snapshot>(place: Place, state: &T) -> Closed {
        let scratch = Scratch::new(place);
        let dir = scratch.at("ring");
        let ring: Caretaker<T> = open(&dir, &quiet().ring(FEW));
        for _ in 0..2 {
            ring.save(state).expect("a save");
        }
        ring.close().expect("a close");
        Closed { dir, _scratch: scratch }
    }

    /// Opens and closes it; how long opening took.
    pub fn open<T: Snapshot>(&self) -> Duration {
        let start = Instant::now();
        let ring: Caretaker<T> = open(&self.dir, &quiet());
        let took = start.elapsed();
        assert!(ring.head().is_some(), "what was saved is found");
        took
    }
}

/// An archive in a file that is in the page cache.
#[derive(Debug)]
pub struct Cached {
    file: File,
    warm: Mmap,
    _scratch: Scratch,
}

impl Cached {
    /// A file with these bytes.
    pub fn new(place: Place, archive: &[u8]) -> Cached {
        let scratch = Scratch::new(place);
        let path = scratch.at("archive");
        fs::write(&path, archive).expect("a file");
        let file = File::open(&path).expect("a file");
        let warm = map(&file);
        crc(&warm);
        Cached { file, warm, _scratch: scratch }
    }

    /// One checksum over a mapping whose pages are present.
    pub fn crc(&self) -> u32 {
        crc(&self.warm)
    }

    /// One checksum over a new mapping; unmapping it is not timed.
    pub fn map_and_crc(&self) -> Duration {
        let start = Instant::now();
        let map = map(&self.file);
        black_box(crc(&map));
        start.elapsed()
    }
}

fn map(file: &File) -> Mmap {
    // SAFETY: the file is our own, and nobody writes it again.
    unsafe { Mmap::map(file) }.expect("a mapping")
}

//! Rings to save to, warm: files at their final size, every place written before.

use std::{ops::Deref, path::Path, ptr};

use snapring::{Archived, Caretaker, Durability, Memento, Options, Reader, Snapshot};

use crate::place::{Place, Scratch};

/// Snapshots in the ring of a large state: what is out of the cache is out, however many there are,
/// and sixteen of 64 MiB would measure the machine's memory.
pub const FEW: u32 = 4;

/// A caretaker and the directory that it keeps.
#[derive(Debug)]
pub struct Ring<T: Snapshot> {
    // Before the directory, so that it is dropped before.
    caretaker: Caretaker<T>,
    _scratch: Option<Scratch>,
}

impl<T: Snapshot> Ring<T> {
    /// A new ring that never flushes, so that saving alone is measured.
    pub fn new(place: Place, snapshots: u32) -> Ring<T> {
        Ring::with(place, &quiet().ring(snapshots))
    }

    /// A new ring. Panics where it cannot be made.
    pub fn with(place: Place, options: &Options) -> Ring<T> {
        if place == Place::Memory {
            let caretaker = options.in_memory().expect("a ring in memory");
            return Ring { caretaker, _scratch: None };
        }
        let scratch = Scratch::new(place);
        let caretaker = open(&scratch.at("ring"), options);
        Ring { caretaker, _scratch: Some(scratch) }
    }

    /// Saves until every place of the ring, on both sides, has been written more than once.
    pub fn warm(self, state: &T) -> Ring<T> {
        let mut bytes = 0;
        loop {
            for _ in 0..24 {
                self.caretaker.save(state).expect("a warm-up save");
            }
            let now = self.caretaker.stats().file_bytes;
            if now == bytes {
                return self;
            }
            bytes = now;
        }
    }
}

impl<T: Snapshot> Deref for Ring<T> {
    type Target = Caretaker<T>;

    fn deref(&self) -> &Caretaker<T> {
        &self.caretaker
    }
}

/// Options under which nothing is flushed.
pub fn quiet() -> Options {
    Options::new().durability(Durability::Process)
}

/// Opens a directory that nobody else knows. Panics where that fails.
pub fn open<T: Snapshot>(dir: &Path, options: &Options) -> Caretaker<T> {
    // SAFETY: the directory was made by this process under a name of its own, and nothing else
    // touches the files in it while a caretaker is open.
    unsafe { options.open(dir) }.expect("a ring in a directory of our own")
}

/// Opens such a directory for reading, in another process than the one that has it open. Panics where
/// that fails.
pub fn reader<T: Snapshot>(dir: &Path) -> Reader<T> {
    // SAFETY: the files are in a directory of the benchmark's own, which the one writer that has
    // it open changes as caretakers do, and nobody else.
    unsafe { Reader::open(dir) }.expect("a ring to read")
}

/// The archive of `state`, as a save writes it.
pub fn archive_of<T: Snapshot>(state: &T) -> Vec<u8> {
    let ring = Ring::<T>::new(Place::Memory, 2);
    ring.save(state).expect("a save");
    bytes_of(&ring.latest().expect("what was just saved")).to_vec()
}

/// The bytes behind a memento: the root is the last of them.
pub fn bytes_of<T: Snapshot>(memento: &Memento<T>) -> &[u8] {
    let len = memento.bytes() as usize;
    let end = ptr::from_ref(memento.archived()).addr() + size_of::<Archived<T>>();
    let start = ptr::with_exposed_provenance::<u8>(end - len);
    // SAFETY: an archive lies in one piece of a mapping that the engine has exposed, its root at
    // the end; the bytes do not change while the memento is held, which the slice borrows.
    unsafe { std::slice::from_raw_parts(start, len) }
}

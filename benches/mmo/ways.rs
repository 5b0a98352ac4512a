//! Ways to checkpoint a table of rows: captured pages, a plain copy, a forked child, and saving all
//! of it. Each begins on the thread that ticks and comes to its end on another.

use std::{
    fs::OpenOptions,
    hint::black_box,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use memmap2::MmapMut;
use parking_lot::Mutex;
use snapring::{Caretaker, PagedVec, Snapshot, SnapshotId};
use snapring_bench::{
    place::{Place, Scratch},
    ring::{open, quiet},
};

use crate::{child::Child, traces::Write};

/// A row of numbers.
pub(crate) trait Row: Snapshot + Clone + PartialEq + Send + Sync + 'static {
    fn new(row: usize) -> Self;
    fn write(&mut self, field: usize, tick: u64);
}

macro_rules! rows {
    ($($number:ty)*) => {$(
        impl<const N: usize> Row for [$number; N] {
            fn new(row: usize) -> Self {
                std::array::from_fn(|field| (row * N + field) as $number)
            }

            fn write(&mut self, field: usize, tick: u64) {
                self[field] = self[field].wrapping_mul(31).wrapping_add(tick as $number);
            }
        }
    )*};
}

rows! { u32 u64 }

/// What is left of a checkpoint when the tick goes on; answers how many bytes it wrote, once it has come to its end.
pub(crate) type Rest = Box<dyn FnOnce() -> u64 + Send>;

/// A table and a way to checkpoint it.
pub(crate) trait Way<R> {
    /// A tick's writes.
    fn tick(&mut self, writes: &[Write], tick: u64);
    /// Begins a checkpoint; no other is under way.
    fn begin(&mut self) -> Rest;
    /// The rows as they are.
    fn rows(&self) -> Vec<R>;
    /// What the newest checkpoint holds.
    fn kept(&mut self) -> Vec<R>;
    /// Gives up the table, and has it back from what was left: how long that takes.
    fn recover(self: Box<Self>) -> (Duration, Vec<R>);
}

/// The state in pages.
#[derive(Snapshot)]
struct Paged<R: Row> {
    tick: u64,
    rows: PagedVec<R>,
}

/// The state in one piece.
#[derive(Snapshot)]
struct Flat<R: Row> {
    tick: u64,
    rows: Vec<R>,
}

/// Snapshots in a ring.
const RING: u32 = 4;

/// Pages captured by a ring.
pub(crate) struct Captured<R: Row> {
    state: Paged<R>,
    caretaker: Arc<Caretaker<Paged<R>>>,
    newest: Arc<Mutex<Option<SnapshotId>>>,
    scratch: Scratch,
}

impl<R: Row> Captured<R> {
    pub(crate) fn new(count: usize, page_len: usize) -> Captured<R> {
        let scratch = Scratch::new(Place::Tmpfs);
        let caretaker = Arc::new(open(&scratch.at("ring"), &quiet().ring(RING)));
        let mut rows = PagedVec::with_page_len(page_len);
        rows.extend((0..count).map(R::new));
        let state = Paged { tick: 0, rows };
        Captured { state, caretaker, newest: Arc::default(), scratch }
    }
}

impl<R: Row> Way<R> for Captured<R> {
    fn tick(&mut self, writes: &[Write], tick: u64) {
        self.state.tick = tick;
        for write in writes {
            self.state.rows[write.row as usize].write(write.field as usize, tick);
        }
    }

    fn begin(&mut self) -> Rest {
        let pending = self.caretaker.capture(&self.state).expect("a capture");
        let (caretaker, newest) = (self.caretaker.clone(), self.newest.clone());
        Box::new(move || {
            let id = pending.wait().expect("a snapshot");
            *newest.lock() = Some(id);
            let entry = caretaker.history().into_iter().find(|entry| entry.id() == id);
            entry.expect("listed").written_bytes()
        })
    }

    fn rows(&self) -> Vec<R> {
        self.state.rows.to_vec()
    }

    fn kept(&mut self) -> Vec<R> {
        let id = self.newest.lock().expect("a checkpoint");
        let memento = self.caretaker.memento(id).expect("listed");
        memento.thaw().expect("whole").rows.to_vec()
    }

    fn recover(self: Box<Self>) -> (Duration, Vec<R>) {
        let Captured { state, caretaker, scratch, .. } = *self;
        drop((state, caretaker));
        let start = Instant::now();
        let caretaker: Caretaker<Paged<R>> = open(&scratch.at("ring"), &quiet().ring(RING));
        let state = caretaker.resume().expect("whole").expect("a snapshot");
        let took = start.elapsed();
        (took, state.rows.to_vec())
    }
}

/// All of it saved by a ring, on the thread that ticks.
pub(crate) struct Saved<R: Row> {
    state: Flat<R>,
    caretaker: Caretaker<Flat<R>>,
    scratch: Scratch,
}

impl<R: Row> Saved<R> {
    pub(crate) fn new(count: usize) -> Saved<R> {
        let scratch = Scratch::new(Place::Tmpfs);
        let caretaker = open(&scratch.at("ring"), &quiet().ring(RING));
        Saved {
            state: Flat { tick: 0, rows: (0..count).map(R::new).collect() },
            caretaker,
            scratch,
        }
    }
}

fn write_flat<R: Row>(rows: &mut [R], writes: &[Write], tick: u64) {
    for write in writes {
        rows[write.row as usize].write(write.field as usize, tick);
    }
}

impl<R: Row> Way<R> for Saved<R> {
    fn tick(&mut self, writes: &[Write], tick: u64) {
        self.state.tick = tick;
        write_flat(&mut self.state.rows, writes, tick);
    }

    fn begin(&mut self) -> Rest {
        self.caretaker.save(&self.state).expect("a save");
        let bytes = self.caretaker.latest().expect("a snapshot").bytes();
        Box::new(move || bytes)
    }

    fn rows(&self) -> Vec<R> {
        self.state.rows.clone()
    }

    fn kept(&mut self) -> Vec<R> {
        self.caretaker.resume().expect("whole").expect("a snapshot").rows
    }

    fn recover(self: Box<Self>) -> (Duration, Vec<R>) {
        let Saved { state, caretaker, scratch } = *self;
        drop((state, caretaker));
        let start = Instant::now();
        let caretaker: Caretaker<Flat<R>> = open(&scratch.at("ring"), &quiet().ring(RING));
        let state = caretaker.resume().expect("whole").expect("a snapshot");
        (start.elapsed(), state.rows)
    }
}

/// Two images of the rows in a mapped file, written by turns, each with its checksum: as little as a
/// checkpoint can be.
struct Images {
    map: MmapMut,
    len: usize,
    newest: usize,
    path: PathBuf,
    _scratch: Scratch,
}

/// Where the images begin; the checksum of either is in front.
const HEAD: usize = 4096;

impl Images {
    fn new(len: usize) -> Images {
        let scratch = Scratch::new(Place::Tmpfs);
        let path = scratch.at("images");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = file.expect("a file");
        file.set_len((HEAD + 2 * len) as u64).expect("room");
        // SAFETY: the file was just made under a name of our own; only we and our children write it.
        let mut map = unsafe { MmapMut::map_mut(&file) }.expect("a mapping");
        map.fill(0);
        Images { map, len, newest: 0, path, _scratch: scratch }
    }

    /// Writes the older one. Takes no memory and no lock.
    fn write(&mut self, bytes: &[u8]) {
        self.newest = 1 - self.newest;
        let at = HEAD + self.newest * self.len;
        self.map[at..at + self.len].copy_from_slice(bytes);
        let crc = crc32fast::hash(&self.map[at..at + self.len]);
        self.map[self.newest * 8..][..4].copy_from_slice(&crc.to_le_bytes());
    }

    fn read(map: &[u8], len: usize, newest: usize) -> Vec<u8> {
        let at = HEAD + newest * len;
        let image = map[at..at + len].to_vec();
        assert_eq!(map[newest * 8..][..4], crc32fast::hash(&image).to_le_bytes(), "a whole image");
        image
    }
}

/// Rows as they lie in memory.
fn bytes_of<R: Row>(rows: &[R]) -> &[u8] {
    const { assert!(R::PLAIN, "rows of numbers") };
    // SAFETY: arrays of numbers: no padding, so that all bytes are there.
    unsafe { std::slice::from_raw_parts(rows.as_ptr().cast(), size_of_val(rows)) }
}

fn rows_of<R: Row>(bytes: &[u8]) -> Vec<R> {
    const { assert!(R::PLAIN, "rows of numbers") };
    let count = bytes.len() / size_of::<R>();
    let mut rows = Vec::<R>::with_capacity(count);
    // SAFETY: so many bytes of room; arrays of numbers are valid whatever their bytes are.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), rows.as_mut_ptr().cast(), bytes.len()) };
    // SAFETY: `count` rows have just been written.
    unsafe { rows.set_len(count) };
    rows
}

/// A plain copy on the thread that ticks, written by another.
pub(crate) struct Copied<R> {
    rows: Vec<R>,
    shadow: Arc<Mutex<(Vec<R>, Images)>>,
}

impl<R: Row> Copied<R> {
    pub(crate) fn new(count: usize) -> Copied<R> {
        let rows: Vec<R> = (0..count).map(R::new).collect();
        let images = Images::new(size_of_val(&*rows));
        Copied { shadow: Arc::new(Mutex::new((rows.clone(), images))), rows }
    }
}

fn reopen<R: Row>(images: &Images) -> (Duration, Vec<R>) {
    let start = Instant::now();
    let bytes = std::fs::read(&images.path).expect("a file");
    let rows = rows_of(&Images::read(&bytes, images.len, images.newest));
    (start.elapsed(), rows)
}

impl<R: Row> Way<R> for Copied<R> {
    fn tick(&mut self, writes: &[Write], tick: u64) {
        write_flat(&mut self.rows, writes, tick);
    }

    fn begin(&mut self) -> Rest {
        self.shadow.lock().0.clone_from_slice(&self.rows);
        let shadow = self.shadow.clone();
        Box::new(move || {
            let (rows, images) = &mut *shadow.lock();
            images.write(bytes_of(rows));
            images.len as u64
        })
    }

    fn rows(&self) -> Vec<R> {
        self.rows.clone()
    }

    fn kept(&mut self) -> Vec<R> {
        let images = &self.shadow.lock().1;
        rows_of(&Images::read(&images.map, images.len, images.newest))
    }

    fn recover(self: Box<Self>) -> (Duration, Vec<R>) {
        let Copied { rows, shadow } = *self;
        drop(rows);
        let shadow = shadow.lock();
        reopen(&shadow.1)
    }
}

/// A child that has the rows as they were, and writes them.
pub(crate) struct Forked<R> {
    rows: Vec<R>,
    images: Images,
}

impl<R: Row> Forked<R> {
    pub(crate) fn new(count: usize) -> Forked<R> {
        let rows: Vec<R> = (0..count).map(R::new).collect();
        let images = Images::new(size_of_val(&*rows));
        // So that the child finds what a checksum needs to know of the processor.
        black_box(crc32fast::hash(bytes_of(&rows)));
        Forked { rows, images }
    }
}

impl<R: Row> Way<R> for Forked<R> {
    fn tick(&mut self, writes: &[Write], tick: u64) {
        write_flat(&mut self.rows, writes, tick);
    }

    fn begin(&mut self) -> Rest {
        let (rows, images) = (&self.rows, &mut self.images);
        // The child's images are the same file; what it says of the newest it says to itself.
        let child = Child::doing(|| images.write(bytes_of(rows)));
        self.images.newest = 1 - self.images.newest;
        let len = self.images.len as u64;
        Box::new(move || {
            child.wait();
            len
        })
    }

    fn rows(&self) -> Vec<R> {
        self.rows.clone()
    }

    fn kept(&mut self) -> Vec<R> {
        rows_of(&Images::read(&self.images.map, self.images.len, self.images.newest))
    }

    fn recover(self: Box<Self>) -> (Duration, Vec<R>) {
        let Forked { rows, images } = *self;
        drop(rows);
        reopen(&images)
    }
}

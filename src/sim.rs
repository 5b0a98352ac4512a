#![forbid(unsafe_code)]
//! A disk that is simulated: what the page cache holds, what the disk holds, and every way in which
//! the two can differ after a sync that failed, a kill or the loss of power. For the campaigns.
//!
//! Memory is the cache: a kill leaves it as it is. A page is *dirty* if it differs from what it held
//! when it was last written out (or was stored anew); a failed sync leaves its pages clean and
//! unwritten, as Linux does. At a power cut any subset of the dirty sectors has reached the disk.
//! Names and lengths reach it by a sync, or by chance in the order in which they changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::Path,
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    header::FLOOR_LEN,
    lease::{Lessor, Taken},
    sim_pages::File,
};

/// Bytes that the system writes out at a time.
pub const PAGE: usize = 4096;
/// Bytes that a disk writes whole or not at all.
pub const SECTOR: usize = 512;

/// A small generator of numbers: the campaigns' runs are told by their seed alone.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed (SplitMix64, by Steele, Lea and Flood, 2014).
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; zero where that is zero.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next_u64() % end }
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What the engine asks of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// A range of a file is to be on the disk.
    Sync,
    /// A header page is; the engine may be locked meanwhile.
    SyncHeader,
    /// A whole new file is.
    SyncAll,
    /// The directory's names are.
    SyncNames,
    /// The lock file's floor is.
    SyncFloor,
    /// Space is reserved.
    Reserve,
    /// Bytes are written past the mapping.
    Write,
    /// A file is made.
    Create,
    /// A file is given another name.
    Rename,
    /// Bytes were stored into a mapping: never fails, and is a point to stop at.
    Store,
}

impl Call {
    /// Whether it is to bring something to the disk.
    fn is_sync(self) -> bool {
        use Call::{Sync, SyncAll, SyncFloor, SyncHeader, SyncNames};
        matches!(self, Sync | SyncHeader | SyncAll | SyncNames | SyncFloor)
    }
}

/// Makes calls fail.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Which calls.
    pub call: Call,
    /// How many of them still succeed.
    pub after: u64,
    /// What the failing ones answer.
    pub errno: i32,
    /// All of them from there on, or one.
    pub for_ever: bool,
}

pub(crate) type Names = BTreeMap<String, usize>;

pub(crate) struct Inner {
    pub(crate) files: Vec<File>,
    pub(crate) names: Names,
    /// What the disk may have as names: the synced ones, then every later state.
    pub(crate) disk_names: Vec<Names>,
    pub(crate) floor: [u8; FLOOR_LEN],
    pub(crate) disk_floor: [u8; FLOOR_LEN],
    pub(crate) boot: u64,
    pub(crate) random: Random,
    pub(crate) faults: Vec<Fault>,
    pub(crate) failed: u64,
    pub(crate) failed_syncs: u64,
    pub(crate) capacity: u64,
    pub(crate) locked: bool,
    /// Places that readers in other processes lease.
    pub(crate) leased: BTreeSet<usize>,
    pub(crate) steps: u64,
    pub(crate) hook: Option<Box<dyn FnMut(Call) + Send>>,
}

/// A simulated disk with one directory. Clones are the same disk.
#[derive(Clone)]
pub struct Disk {
    pub(crate) inner: Arc<Mutex<Inner>>,
    pub(crate) path: Arc<Path>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("steps", &self.steps()).finish_non_exhaustive()
    }
}

impl Disk {
    /// An empty disk; `seed` draws the names of rings and files.
    pub fn new(seed: u64) -> Disk {
        let inner = Inner {
            files: Vec::new(),
            names: Names::new(),
            disk_names: vec![Names::new()],
            floor: [0; FLOOR_LEN],
            disk_floor: [0; FLOOR_LEN],
            boot: 1,
            random: Random::new(seed ^ 0x5157),
            faults: Vec::new(),
            failed: 0,
            failed_syncs: 0,
            capacity: u64::MAX,
            locked: false,
            leased: BTreeSet::new(),
            steps: 0,
            hook: None,
        };
        Disk { inner: Arc::new(Mutex::new(inner)), path: Path::new("simulated").into() }
    }

    /// Calls and stores so far.
    pub fn steps(&self) -> u64 {
        self.inner.lock().steps
    }

    /// Calls that failed so far.
    pub fn failed(&self) -> u64 {
        self.inner.lock().failed
    }

    /// Syncs that failed so far.
    pub fn failed_syncs(&self) -> u64 {
        self.inner.lock().failed_syncs
    }

    /// A reader in another process leases a place from now on, or does not any more. It outlives a
    /// kill of the writer's, but not the boot.
    pub fn lease(&self, place: usize, leased: bool) {
        let mut inner = self.inner.lock();
        if leased {
            inner.leased.insert(place);
        } else {
            inner.leased.remove(&place);
        }
    }

    /// What is done at every call and after every store from now on: the process may be killed
    /// there, the disk may write out, another thread may come by. The deed's own calls pass it.
    pub fn at_each_step(&self, deed: Option<Box<dyn FnMut(Call) + Send>>) {
        self.inner.lock().hook = deed;
    }

    /// Makes calls fail, in place of those that were to fail so far.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        self.inner.lock().faults = faults;
    }

    /// The most bytes that all files may have together.
    pub fn set_capacity(&self, bytes: u64) {
        self.inner.lock().capacity = bytes;
    }

    /// Bytes of a file as the cache has them; fewer where it ends before.
    pub fn read(&self, name: &str, at: u64, len: u64) -> Vec<u8> {
        let inner = self.inner.lock();
        let Some(file) = inner.names.get(name).map(|file| &inner.files[*file]) else {
            return Vec::new();
        };
        let mut bytes = vec![0; len.min(file.len.saturating_sub(at)) as usize];
        file.fetch(at as usize, &mut bytes);
        bytes
    }

    /// The pages of a file that the system may write out, in order.
    pub fn dirty(&self, name: &str) -> Vec<usize> {
        let inner = self.inner.lock();
        inner.names.get(name).map_or(Vec::new(), |file| inner.files[*file].dirty(0..usize::MAX))
    }

    /// The boot's id, as in records.
    pub fn boot(&self) -> [u8; 16] {
        boot_id(self.inner.lock().boot)
    }

    /// The id floor in the lock file, as the disk has it.
    pub fn lock_floor(&self) -> Vec<u8> {
        self.inner.lock().disk_floor.to_vec()
    }

    /// Whether there is such a limit.
    pub fn is_limited(&self) -> bool {
        self.inner.lock().capacity < u64::MAX
    }

    /// Bytes of a file; none where there is no such file.
    pub fn len(&self, name: &str) -> u64 {
        let inner = self.inner.lock();
        inner.names.get(name).map_or(0, |file| inner.files[*file].len)
    }

    /// The system writes some dirty pages out, whole, in any order: each with a chance of one in
    /// `n`.
    pub fn write_back(&self, random: &mut Random, n: u64) {
        for file in &mut self.inner.lock().files {
            for page in file.dirty(0..usize::MAX) {
                if random.one_in(n) {
                    file.write_out(page);
                }
            }
        }
    }

    /// What a kill leaves: the same boot, the same memory, in files of its own.
    pub fn killed(&self) -> Disk {
        let inner = self.inner.lock();
        let mut copy = inner.copy();
        for (new, old) in copy.files.iter_mut().zip(&inner.files) {
            new.take_memory(old);
            new.redirtied.clone_from(&old.redirtied);
        }
        self.with(copy)
    }

    /// What the loss of power leaves: of every dirty page any sectors, of the names any state since
    /// they were synced; another boot.
    pub fn cut(&self, random: &mut Random) -> Disk {
        let inner = self.inner.lock();
        let mut copy = inner.copy();
        copy.boot = inner.boot + 1;
        copy.leased.clear();
        let state = random.below(inner.disk_names.len() as u64) as usize;
        copy.names.clone_from(&inner.disk_names[state]);
        copy.disk_names = vec![copy.names.clone()];
        if random.one_in(2) {
            copy.disk_floor = inner.floor;
        }
        copy.floor = copy.disk_floor;
        for (new, old) in copy.files.iter_mut().zip(&inner.files) {
            let len = if random.one_in(2) { old.len } else { old.disk_len };
            new.set_len(len);
            new.disk_len = len;
            // None, all, few, half or most of what is dirty.
            let (few, most) = (random.below(6), 1 + random.below(8));
            for page in old.dirty(0..new.pages()) {
                let (bytes, _) = old.page(page);
                let mut torn = *new.disk[page];
                for at in (0..PAGE).step_by(SECTOR) {
                    let reached = match few {
                        0 => false,
                        1 => true,
                        2 => random.one_in(most),
                        3 => !random.one_in(most),
                        _ => random.one_in(2),
                    };
                    if reached {
                        torn[at..at + SECTOR].copy_from_slice(&bytes[at..at + SECTOR]);
                    }
                }
                new.disk[page] = Arc::new(torn);
            }
            new.clean.clone_from(&new.disk);
            new.take_disk();
        }
        self.with(copy)
    }

    /// A file's bytes as the cache has them.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let inner = self.inner.lock();
        inner.names.get(name).map(|file| inner.files[*file].memory())
    }

    /// A file's bytes as the disk has them.
    pub fn disk_bytes(&self, name: &str) -> Option<Vec<u8>> {
        let inner = self.inner.lock();
        inner.names.get(name).map(|file| {
            let file = &inner.files[*file];
            let mut bytes =
                file.disk.iter().flat_map(|page| page.iter().copied()).collect::<Vec<_>>();
            bytes.truncate(file.disk_len as usize);
            bytes
        })
    }

    /// Changes a file's bytes, in the cache and on the disk: damage, or a forgery.
    pub fn put(&self, name: &str, at: usize, bytes: &[u8]) {
        let mut inner = self.inner.lock();
        let Some(file) = inner.names.get(name).copied() else { return };
        let file = &mut inner.files[file];
        if at + bytes.len() <= file.len as usize {
            file.store(bytes, at);
            for page in at / PAGE..(at + bytes.len()).div_ceil(PAGE) {
                file.write_out(page);
            }
        }
    }

    /// A file is lost, name and all.
    pub fn lose(&self, name: &str) {
        let mut inner = self.inner.lock();
        inner.names.remove(name);
        inner.disk_names = vec![inner.names.clone()];
    }

    fn with(&self, inner: Inner) -> Disk {
        Disk { inner: Arc::new(Mutex::new(inner)), path: self.path.clone() }
    }

    /// Counts a call, lets the deed happen, and answers whether the call fails.
    pub(crate) fn step(&self, call: Call) -> io::Result<()> {
        let deed = {
            let mut inner = self.inner.lock();
            inner.steps += 1;
            inner.hook.take()
        };
        if let Some(mut deed) = deed {
            deed(call);
            let mut inner = self.inner.lock();
            inner.hook.get_or_insert(deed);
        }
        let mut inner = self.inner.lock();
        let Some(at) = inner.faults.iter().position(|fault| fault.call == call) else {
            return Ok(());
        };
        let fault = &mut inner.faults[at];
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        let errno = fault.errno;
        if !fault.for_ever {
            inner.faults.remove(at);
        }
        inner.failed += 1;
        inner.failed_syncs += u64::from(call.is_sync());
        Err(io::Error::from_raw_os_error(errno))
    }
}

impl Inner {
    /// The same disk without its memory, its deeds, its faults and its limit.
    fn copy(&self) -> Inner {
        Inner {
            files: self.files.iter().map(File::copy).collect(),
            names: self.names.clone(),
            disk_names: self.disk_names.clone(),
            floor: self.floor,
            disk_floor: self.disk_floor,
            boot: self.boot,
            random: self.random.clone(),
            faults: Vec::new(),
            failed: 0,
            failed_syncs: 0,
            capacity: u64::MAX,
            locked: false,
            leased: self.leased.clone(),
            steps: 0,
            hook: None,
        }
    }
}

/// A boot's id.
fn boot_id(boot: u64) -> [u8; 16] {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&boot.to_le_bytes());
    id
}

/// Readers in other processes, as the disk knows them: by the places that they lease.
impl Lessor for Disk {
    fn anybody(&self) -> bool {
        !self.inner.lock().leased.is_empty()
    }

    fn taken(&self, places: usize) -> Taken {
        let mut taken = Taken::none();
        self.inner.lock().leased.iter().filter(|n| **n < places).for_each(|n| taken.add(*n));
        taken
    }

    fn pause(&self, _: std::time::Duration) {}
}

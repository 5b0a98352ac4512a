//! A disk that is simulated: what the page cache holds, what the disk holds, and every way in which
//! the two can differ after a sync that failed, a kill or the loss of power. For the campaigns.
//!
//! Memory is the cache: a kill leaves it as it is. A page is *dirty* if it differs from what it held
//! when it was last written out (or was stored anew); a failed sync leaves its pages clean and
//! unwritten, as Linux does. At a power cut any subset of the dirty sectors has reached the disk.
//! Names and lengths reach it by a sync, or by chance in the order in which they changed.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::{MmapMut, MmapRaw};
use parking_lot::Mutex;

use crate::{
    error::OpenError,
    header::{FLOOR_LEN, Floor, Uuid},
    lease::Leases,
    storage::{RawFile, Storage},
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

struct File {
    map: Option<Arc<MmapRaw>>,
    /// Bytes that have been asked to be mapped.
    span: usize,
    len: u64,
    disk_len: u64,
    disk: Vec<u8>,
    /// What memory held when each page was last clean.
    clean: Vec<u8>,
    /// Pages stored anew without another content.
    redirtied: Vec<bool>,
}

type Names = BTreeMap<String, usize>;

struct Inner {
    files: Vec<File>,
    names: Names,
    /// What the disk may have as names: the synced ones, then every later state.
    disk_names: Vec<Names>,
    floor: [u8; FLOOR_LEN],
    disk_floor: [u8; FLOOR_LEN],
    boot: u64,
    random: Random,
    faults: Vec<Fault>,
    failed: u64,
    capacity: u64,
    locked: bool,
    steps: u64,
    hook: Option<Box<dyn FnMut(Call) + Send>>,
}

/// A simulated disk with one directory. Clones are the same disk.
#[derive(Clone)]
pub struct Disk {
    inner: Arc<Mutex<Inner>>,
    path: Arc<Path>,
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
            capacity: u64::MAX,
            locked: false,
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
            new.load(&old.memory());
            new.clean.clone_from(&old.clean);
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
        let state = random.below(inner.disk_names.len() as u64) as usize;
        copy.names.clone_from(&inner.disk_names[state]);
        copy.disk_names = vec![copy.names.clone()];
        if random.one_in(2) {
            copy.disk_floor = inner.floor;
        }
        copy.floor = copy.disk_floor;
        for (new, old) in copy.files.iter_mut().zip(&inner.files) {
            new.len = if random.one_in(2) { old.len } else { old.disk_len };
            new.disk_len = new.len;
            new.disk.resize(new.len as usize, 0);
            let memory = old.memory();
            let all_or_some = random.below(4);
            for page in old.dirty(0..usize::MAX) {
                for at in (page * PAGE..(page + 1) * PAGE).step_by(SECTOR) {
                    let reached = match all_or_some {
                        0 => false,
                        1 => true,
                        _ => random.one_in(2),
                    };
                    let sector = at..at + SECTOR;
                    if reached && sector.end <= new.disk.len() && sector.end <= memory.len() {
                        new.disk[sector.clone()].copy_from_slice(&memory[sector]);
                    }
                }
            }
            let disk = std::mem::take(&mut new.disk);
            new.load(&disk);
            new.redirtied.fill(false);
            new.disk = disk;
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
        inner.names.get(name).map(|file| inner.files[*file].disk.clone())
    }

    /// Changes a file's bytes, in the cache and on the disk: damage, or a forgery.
    pub fn put(&self, name: &str, at: usize, bytes: &[u8]) {
        let mut inner = self.inner.lock();
        let Some(file) = inner.names.get(name).copied() else { return };
        let file = &mut inner.files[file];
        let mut memory = file.memory();
        if let Some(there) = memory.get_mut(at..at + bytes.len()) {
            there.copy_from_slice(bytes);
            file.load(&memory);
            file.disk = memory;
        }
    }

    fn with(&self, inner: Inner) -> Disk {
        Disk { inner: Arc::new(Mutex::new(inner)), path: self.path.clone() }
    }

    /// Counts a call, lets the deed happen, and answers whether the call fails.
    fn step(&self, call: Call) -> io::Result<()> {
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
        Err(io::Error::from_raw_os_error(errno))
    }
}

impl Inner {
    /// The same disk without its memory, its deeds and its faults.
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
            capacity: self.capacity,
            locked: false,
            steps: 0,
            hook: None,
        }
    }
}

impl File {
    fn new() -> File {
        File {
            map: None,
            span: 0,
            len: 0,
            disk_len: 0,
            disk: Vec::new(),
            clean: Vec::new(),
            redirtied: Vec::new(),
        }
    }

    fn copy(&self) -> File {
        File {
            map: None,
            span: self.span,
            len: self.len,
            disk_len: self.disk_len,
            disk: self.disk.clone(),
            clean: self.clean.clone(),
            redirtied: Vec::new(),
        }
    }

    /// The cache's bytes, as long as the file.
    fn memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.fetch(0, &mut bytes);
        bytes
    }

    /// Bytes of the cache; what is not mapped stays as it is.
    fn fetch(&self, at: usize, bytes: &mut [u8]) {
        let Some(map) = &self.map else { return };
        let len = bytes.len().min(map.len().saturating_sub(at));
        let from = map.as_ptr().wrapping_add(at);
        // SAFETY: `len` bytes are mapped from there, and as many are in `bytes`; a simulation has
        // one thread, which is here.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), len) };
    }

    /// A page of the cache, and where it lies in the file.
    fn page(&self, page: usize) -> ([u8; PAGE], std::ops::Range<usize>) {
        let mut bytes = [0; PAGE];
        self.fetch(page * PAGE, &mut bytes);
        (bytes, page * PAGE..((page + 1) * PAGE).min(self.len as usize))
    }

    /// Makes the cache these bytes.
    fn load(&mut self, bytes: &[u8]) {
        self.len = bytes.len() as u64;
        self.redirtied.resize(bytes.len().div_ceil(PAGE), false);
        self.clean.clear();
        self.clean.extend_from_slice(bytes);
        self.store(bytes, 0);
    }

    fn store(&mut self, bytes: &[u8], at: usize) {
        let span = self.map.as_ref().map_or(0, |map| map.len());
        if span < at + bytes.len() && self.grow_map(at + bytes.len()).is_err() {
            return;
        }
        if let Some(map) = &self.map {
            let to = map.as_mut_ptr().wrapping_add(at);
            // SAFETY: the map is long enough, as has just been seen to; one thread, as above.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        }
    }

    /// A mapping of `span` bytes at least. A longer one is another one: the engine asks for its
    /// whole span before it stores anything.
    fn grow_map(&mut self, span: usize) -> io::Result<()> {
        if self.map.as_ref().is_some_and(|map| map.len() >= span) {
            return Ok(());
        }
        self.span = self.span.max(span).max(PAGE);
        let new = Arc::new(MmapRaw::from(MmapMut::map_anon(self.span)?));
        if let Some(old) = self.map.replace(new) {
            let memory = File { map: Some(old), ..self.copy() }.memory();
            self.store(&memory, 0);
        }
        Ok(())
    }

    /// The dirty pages of these.
    fn dirty(&self, pages: std::ops::Range<usize>) -> Vec<usize> {
        let differs = |page: &usize| {
            let (bytes, range) = self.page(*page);
            self.redirtied.get(*page).copied().unwrap_or(false)
                || self.clean.get(range.clone()) != bytes.get(..range.len())
        };
        let end = pages.end.min((self.len as usize).div_ceil(PAGE));
        (pages.start..end).filter(differs).collect()
    }

    /// The page as it is now is on the disk.
    fn write_out(&mut self, page: usize) {
        let range = self.mark_clean(page);
        if self.disk.len() < range.end {
            self.disk.resize(range.end, 0);
        }
        self.disk[range.clone()].copy_from_slice(&self.clean[range]);
    }

    /// The page counts as written out.
    fn mark_clean(&mut self, page: usize) -> std::ops::Range<usize> {
        let (bytes, range) = self.page(page);
        if self.clean.len() < range.end {
            self.clean.resize(range.end, 0);
        }
        self.clean[range.clone()].copy_from_slice(&bytes[..range.len()]);
        if let Some(redirtied) = self.redirtied.get_mut(page) {
            *redirtied = false;
        }
        range
    }
}

/// The directory of a disk, opened.
#[derive(Debug)]
pub(crate) struct SimDirectory(Disk);

impl SimDirectory {
    pub(crate) fn open(disk: &Disk) -> Result<SimDirectory, OpenError> {
        let mut inner = disk.inner.lock();
        if std::mem::replace(&mut inner.locked, true) {
            let path = disk.path.to_path_buf();
            return Err(OpenError::WriterActive { path, holder: "this process".to_owned() });
        }
        drop(inner);
        Ok(SimDirectory(disk.clone()))
    }

    fn error(&self, name: &str, doing: &'static str) -> impl FnOnce(io::Error) -> OpenError {
        let path = self.0.path.join(name);
        move |source| OpenError::Io { path, doing, source }
    }

    fn rename(&self, from: &str, to: &str) {
        let mut inner = self.0.inner.lock();
        if let Some(file) = inner.names.remove(from) {
            inner.names.insert(to.to_owned(), file);
        }
        let now = inner.names.clone();
        inner.disk_names.push(now);
    }
}

impl Drop for SimDirectory {
    fn drop(&mut self) {
        self.0.inner.lock().locked = false;
    }
}

impl Storage for SimDirectory {
    fn path(&self) -> &Path {
        &self.0.path
    }

    fn in_memory(&self) -> bool {
        false
    }

    fn boot(&self) -> Uuid {
        let mut id = [7; 16];
        id[..8].copy_from_slice(&self.0.inner.lock().boot.to_le_bytes());
        Uuid(id)
    }

    fn random_id(&self) -> io::Result<Uuid> {
        let mut inner = self.0.inner.lock();
        let (low, high) = (inner.random.next_u64(), inner.random.next_u64());
        Ok(Uuid((u128::from(high) << 64 | u128::from(low)).to_le_bytes()))
    }

    fn file(&self, name: &str) -> Result<Option<Box<dyn RawFile>>, OpenError> {
        let file = self.0.inner.lock().names.get(name).copied();
        Ok(file.map(|file| Box::new(SimFile { disk: self.0.clone(), file }) as Box<dyn RawFile>))
    }

    fn create(&self, name: &str) -> Result<Box<dyn RawFile>, OpenError> {
        self.0.step(Call::Create).map_err(self.error(name, "create"))?;
        let mut inner = self.0.inner.lock();
        inner.files.push(File::new());
        let file = inner.files.len() - 1;
        inner.names.insert(format!("{name}.new"), file);
        let now = inner.names.clone();
        inner.disk_names.push(now);
        drop(inner);
        Ok(Box::new(SimFile { disk: self.0.clone(), file }))
    }

    fn put_in_place(&self, name: &str) -> Result<(), OpenError> {
        self.0.step(Call::Rename).map_err(self.error(name, "put the new file in place"))?;
        self.rename(&format!("{name}.new"), name);
        Ok(())
    }

    fn set_aside(&self, name: &str) -> Result<PathBuf, OpenError> {
        self.0.step(Call::Rename).map_err(self.error(name, "set the damaged file aside"))?;
        let aside = format!("{name}.damaged");
        self.rename(name, &aside);
        Ok(self.0.path.join(aside))
    }

    fn sync(&self) -> io::Result<()> {
        self.0.step(Call::SyncNames)?;
        let mut inner = self.0.inner.lock();
        inner.disk_names = vec![inner.names.clone()];
        Ok(())
    }

    fn floor(&self) -> Option<Floor> {
        Floor::decode(&self.0.inner.lock().floor)
    }

    fn leases(&self) -> Result<Option<Leases>, OpenError> {
        Ok(None)
    }

    fn write_floor(&self, floor: &Floor) -> io::Result<()> {
        self.0.step(Call::Write)?;
        self.0.inner.lock().floor = floor.encode();
        self.0.step(Call::SyncFloor)?;
        let mut inner = self.0.inner.lock();
        inner.disk_floor = inner.floor;
        Ok(())
    }
}

/// One file of a disk.
#[derive(Debug)]
struct SimFile {
    disk: Disk,
    file: usize,
}

impl RawFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.inner.lock().files[self.file].len)
    }

    fn has_all_pages(&self, _: u64) -> bool {
        true
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let inner = self.disk.inner.lock();
        let file = &inner.files[self.file];
        if at + bytes.len() as u64 > file.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.fetch(at as usize, bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.disk.step(Call::Write)?;
        self.disk.inner.lock().files[self.file].store(bytes, at as usize);
        Ok(())
    }

    fn reserve(&self, _: u64, to: u64) -> io::Result<()> {
        self.disk.step(Call::Reserve)?;
        let mut inner = self.disk.inner.lock();
        let others: u64 =
            inner.files.iter().map(|f| f.len).sum::<u64>() - inner.files[self.file].len;
        if others + to > inner.capacity {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let file = &mut inner.files[self.file];
        file.len = file.len.max(to);
        let len = file.len as usize;
        file.clean.resize(len, 0);
        file.redirtied.resize(len.div_ceil(PAGE), false);
        file.grow_map(len)
    }

    fn map(&self, span: usize) -> io::Result<Arc<MmapRaw>> {
        let mut inner = self.disk.inner.lock();
        let file = &mut inner.files[self.file];
        file.grow_map(span)?;
        file.map.clone().ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn sync_range(&self, _: &MmapRaw, from: usize, len: usize) -> io::Result<()> {
        let outcome = self.disk.step(if from < PAGE { Call::SyncHeader } else { Call::Sync });
        let mut inner = self.disk.inner.lock();
        let mut random = inner.random.clone();
        let file = &mut inner.files[self.file];
        let pages = from / PAGE..(from + len).div_ceil(PAGE);
        for page in file.dirty(pages) {
            // Of a sync that fails, some pages may have been written.
            if outcome.is_ok() || random.one_in(4) {
                file.write_out(page);
            } else {
                file.mark_clean(page);
            }
        }
        if outcome.is_ok() {
            file.disk_len = file.len;
        }
        inner.random = random;
        outcome
    }

    fn redirtied(&self, from: u64, len: u64) {
        let mut inner = self.disk.inner.lock();
        let pages = from as usize / PAGE..(from + len).div_ceil(PAGE as u64) as usize;
        for page in pages {
            if let Some(redirtied) = inner.files[self.file].redirtied.get_mut(page) {
                *redirtied = true;
            }
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk.step(Call::SyncAll)?;
        let mut inner = self.disk.inner.lock();
        let file = &mut inner.files[self.file];
        for page in file.dirty(0..usize::MAX) {
            file.write_out(page);
        }
        file.disk_len = file.len;
        Ok(())
    }

    fn stored(&self) {
        _ = self.disk.step(Call::Store);
    }
}

//! A disk that is simulated: what the page cache holds, what the disk holds, and every way in which
//! the two can differ after a sync that failed, a kill or the loss of power. For the campaigns.
//!
//! Memory is the cache: a kill leaves it as it is. A page is *dirty* if it differs from what it held
//! when it was last written out (or was stored anew); a failed sync leaves its pages clean and
//! unwritten, as Linux does. At a power cut any subset of the dirty sectors has reached the disk.
//! Names and lengths reach it by a sync, or by chance in the order in which they changed.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::{MmapMut, MmapRaw};
use parking_lot::Mutex;

use crate::{
    error::OpenError,
    header::{FLOOR_LEN, Floor, Uuid},
    lease::{Lessor, Taken},
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

/// A page's bytes. What is not changed is shared among the copies of a disk.
type Page = Arc<[u8; PAGE]>;

/// A file. Its length may end inside its last page.
struct File {
    /// Mapped memory, with the cache's bytes; as long as the file at least.
    map: Option<Arc<MmapRaw>>,
    len: u64,
    disk_len: u64,
    disk: Vec<Page>,
    /// What memory held when each page was last clean.
    clean: Vec<Page>,
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
    failed_syncs: u64,
    capacity: u64,
    locked: bool,
    /// Places that readers in other processes lease.
    leased: BTreeSet<usize>,
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

/// A page of zeros.
fn blank() -> Page {
    thread_local! {
        static BLANK: Page = Arc::new([0; PAGE]);
    }
    BLANK.with(Arc::clone)
}

thread_local! {
    /// Mappings that nobody uses any more: making one costs more than a whole run on it.
    static SPARE: RefCell<Vec<Arc<MmapRaw>>> = const { RefCell::new(Vec::new()) };
}

/// The shortest mapping that is made.
const SPAN: usize = 256 << 10;

impl File {
    fn new() -> File {
        File {
            map: None,
            len: 0,
            disk_len: 0,
            disk: Vec::new(),
            clean: Vec::new(),
            redirtied: Vec::new(),
        }
    }

    /// The same file without its memory.
    fn copy(&self) -> File {
        File {
            map: None,
            len: self.len,
            disk_len: self.disk_len,
            disk: self.disk.clone(),
            clean: self.clean.clone(),
            redirtied: vec![false; self.redirtied.len()],
        }
    }

    /// Pages of the file.
    fn pages(&self) -> usize {
        (self.len as usize).div_ceil(PAGE)
    }

    /// The file is so long: what is new is zero.
    fn set_len(&mut self, len: u64) {
        self.len = len;
        let pages = self.pages();
        self.disk.resize_with(pages, blank);
        self.clean.resize_with(pages, blank);
        self.redirtied.resize(pages, false);
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
        let range = page * PAGE..((page + 1) * PAGE).min(self.len as usize);
        self.fetch(range.start, &mut bytes[..range.len()]);
        (bytes, range)
    }

    /// Whether a page of the cache is this.
    fn holds(&self, page: usize, bytes: &[u8; PAGE]) -> bool {
        let whole = (page + 1) * PAGE <= self.len as usize;
        let Some(map) = self.map.as_ref().filter(|map| whole && map.len() >= (page + 1) * PAGE)
        else {
            return self.page(page).0 == *bytes;
        };
        let at = map.as_ptr().wrapping_add(page * PAGE);
        // SAFETY: as many bytes are mapped from there, and nobody writes meanwhile: one thread, as
        // above.
        unsafe { std::slice::from_raw_parts(at, PAGE) == bytes }
    }

    /// Makes the cache what another file's is.
    fn take_memory(&mut self, from: &File) {
        let Some(from) = &from.map else { return };
        let len = self.len as usize;
        if self.grow_map(len).is_err() {
            return;
        }
        let Some(to) = &self.map else { return };
        assert!(from.len() >= len && to.len() >= len, "mappings are as long as their files");
        // SAFETY: both are as long as that, as has just been asserted, and are two mappings; one
        // thread, as above.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), len) };
    }

    /// Makes the cache what the disk has.
    fn take_disk(&mut self) {
        for page in 0..self.pages() {
            let bytes = self.disk[page].clone();
            self.store(&*bytes, page * PAGE);
        }
    }

    fn store(&mut self, bytes: &[u8], at: usize) {
        let span = self.map.as_ref().map_or(0, |map| map.len());
        if span < at + bytes.len()
            && self.grow_map((at + bytes.len()).max(self.len as usize)).is_err()
        {
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
        let spare = SPARE.with_borrow_mut(|spare| {
            let fits = spare.iter().position(|map| map.len() >= span);
            fits.map(|at| spare.swap_remove(at))
        });
        let new = match spare {
            Some(map) => map,
            None => {
                let span = span.max(SPAN).next_power_of_two();
                Arc::new(MmapRaw::from(MmapMut::map_anon(span)?))
            }
        };
        let memory = self.map.is_some().then(|| self.memory());
        self.map = Some(new);
        if let Some(memory) = memory {
            self.store(&memory, 0);
        }
        Ok(())
    }

    /// Fills bytes of the cache with zeros.
    fn clear(&mut self, bytes: std::ops::Range<usize>) {
        for page in bytes.start / PAGE..bytes.end.div_ceil(PAGE) {
            let from = bytes.start.max(page * PAGE);
            let to = bytes.end.min((page + 1) * PAGE);
            self.store(&[0; PAGE][..to - from], from);
        }
    }

    /// The dirty pages of these.
    fn dirty(&self, pages: std::ops::Range<usize>) -> Vec<usize> {
        let differs = |page: &usize| {
            self.redirtied.get(*page).copied().unwrap_or(false)
                || self.clean.get(*page).is_none_or(|clean| !self.holds(*page, clean))
        };
        (pages.start..pages.end.min(self.pages())).filter(differs).collect()
    }

    /// The page as it is now is on the disk.
    fn write_out(&mut self, page: usize) {
        self.mark_clean(page);
        if let (Some(disk), Some(clean)) = (self.disk.get_mut(page), self.clean.get(page)) {
            disk.clone_from(clean);
        }
    }

    /// The page counts as written out.
    fn mark_clean(&mut self, page: usize) {
        let (bytes, _) = self.page(page);
        if let Some(clean) = self.clean.get_mut(page) {
            *clean = Arc::new(bytes);
        }
        if let Some(redirtied) = self.redirtied.get_mut(page) {
            *redirtied = false;
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some(map) = self.map.take().filter(|map| Arc::strong_count(map) == 1) {
            // A thread that is ending keeps none.
            _ = SPARE.try_with(|spare| {
                let mut spare = spare.borrow_mut();
                if spare.len() < 32 {
                    spare.push(map);
                }
            });
        }
    }
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
        Uuid(self.0.boot())
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

    fn leases(&self) -> Result<Option<Box<dyn Lessor>>, OpenError> {
        Ok(Some(Box::new(self.0.clone())))
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

impl SimFile {
    /// Writes pages out; where that fails, they look clean all the same.
    fn sync_pages(&self, call: Call, pages: std::ops::Range<usize>) -> io::Result<()> {
        let outcome = self.disk.step(call);
        let mut inner = self.disk.inner.lock();
        let mut random = inner.random.clone();
        let file = &mut inner.files[self.file];
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
        self.redirtied(at, bytes.len() as u64);
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
        let from = file.len as usize;
        if to > file.len {
            file.set_len(to);
            file.grow_map(to as usize)?;
            file.clear(from..to as usize);
        }
        Ok(())
    }

    fn map(&self, span: usize) -> io::Result<Arc<MmapRaw>> {
        let mut inner = self.disk.inner.lock();
        let file = &mut inner.files[self.file];
        file.grow_map(span)?;
        file.map.clone().ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn sync_range(&self, _: &MmapRaw, from: usize, len: usize) -> io::Result<()> {
        let call = if from < PAGE { Call::SyncHeader } else { Call::Sync };
        self.sync_pages(call, from / PAGE..(from + len).div_ceil(PAGE))
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
        self.sync_pages(Call::SyncAll, 0..usize::MAX)
    }

    fn stored(&self, from: u64, len: u64) {
        self.redirtied(from, len);
        _ = self.disk.step(Call::Store);
    }
}

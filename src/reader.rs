//! [`Reader`]: a ring as other processes see it, for one type of state.

use std::{
    fmt,
    fs::File,
    io,
    marker::PhantomData,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    caretaker::check,
    directory::{LEASES_NAME, io_error, open_trusted_by, trust_directory},
    error::{MementoError, OpenError},
    file::BLOCK,
    follower::{Follower, Sight},
    header::{BadHeader, FORMAT, HEADER_AT, HEADER_LEN, Header, Side, Uuid, WAKE_AT, data_at},
    history::Entry,
    id::SnapshotId,
    lease::Leases,
    memento::{Memento, archived},
    options::Options,
    os::{self, FileSystem},
    reader_error::ReaderError,
    schema::Layout,
    snapshot::{Archived, Snapshot},
    watch::NAP,
    window::Window,
};

/// Reads along in a ring that a [`Caretaker`](crate::Caretaker) in another process writes, or in
/// this one. Changes nothing, and keeps nobody waiting.
///
/// Nothing is copied: a reader maps the caretaker's files and leases from the kernel what it reads.
/// A leased place is not used again, so its bytes stay as they are, however long a reader takes; it
/// costs the caretaker space, which [`stats`](crate::Caretaker::stats) tells. The kernel ends the
/// leases of a process that dies.
///
/// `Send + Sync`: threads share one. While nothing is published reading is wait-free and makes no
/// system call; the first reader of a new snapshot leases it and checks its bytes, once.
///
/// ```
/// # use std::time::Duration;
/// # use snapring::{Caretaker, Reader, Snapshot};
/// #[derive(Snapshot)]
/// struct World { tick: u64 }
///
/// # let dir = std::env::temp_dir().join(format!("snapring-reader-{}", std::process::id()));
/// // SAFETY: nothing but this caretaker writes in the directory.
/// let caretaker = unsafe { Caretaker::open(&dir)? };
/// // Mostly in another process. SAFETY: as above.
/// let reader = unsafe { Reader::<World>::open(&dir)? };
/// let id = caretaker.save(&World { tick: 7 })?;
/// assert_eq!(reader.read(|world| world.tick.to_native()), Some(7));
/// caretaker.save(&World { tick: 8 })?;
/// let newer = reader.wait_newer(id, Duration::from_secs(1)).expect("it is there");
/// assert_eq!(reader.memento(newer).expect("just published").tick, 8);
/// # drop((reader, caretaker));
/// # std::fs::remove_dir_all(dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reader<T: Snapshot> {
    follower: Arc<Follower>,
    dir: PathBuf,
    watch: Option<JoinHandle<()>>,
    state: PhantomData<fn() -> T>,
}

impl Options {
    /// Opens the ring in `dir` for reading; see [`Reader::open`]. Of the options
    /// [`max_depth`](Options::max_depth), [`max_file_size`](Options::max_file_size) (address space)
    /// and [`allow_remote`](Options::allow_remote) matter.
    ///
    /// # Safety
    ///
    /// As [`Reader::open`].
    ///
    /// # Errors
    ///
    /// As [`Reader::open`].
    pub unsafe fn open_reader<T: Snapshot>(
        &self,
        dir: impl AsRef<Path>,
    ) -> Result<Reader<T>, ReaderError> {
        let dir = dir.as_ref();
        let sight = look(dir, self)?;
        let follower = Arc::new(Follower::new(sight, Arc::new(Layout::of::<T>()), check::<T>));
        if let Some((id, difference)) = follower.difference() {
            return Err(ReaderError::Layout { id, difference });
        }
        let watching = follower.clone();
        let watch = std::thread::Builder::new()
            .name("snapring-reader".to_owned())
            .spawn(move || watching.watch())
            .map_err(io_error(dir, "start a thread for"))?;
        Ok(Reader { follower, dir: dir.to_owned(), watch: Some(watch), state: PhantomData })
    }
}

impl<T: Snapshot> Reader<T> {
    /// Opens the ring in `dir` for reading, with default [`Options`]. Nothing is made, repaired or
    /// written.
    ///
    /// Costs one checksum and one check of the newest snapshot. A caretaker need not be there: what
    /// it left can be read, and one that comes is followed, until it sets a damaged file aside; see
    /// [`is_current`](Self::is_current).
    ///
    /// # Safety
    ///
    /// While the reader or any memento of it lives, nothing but snapring's caretaker, one at a time,
    /// writes to, truncates or replaces the files in `dir`: references into mapped files are handed
    /// out, and nobody can check that from here. Directories and files that others could write to
    /// are refused.
    ///
    /// # Errors
    ///
    /// [`ReaderError`]; `NotReady` as long as no caretaker has made the files.
    pub unsafe fn open(dir: impl AsRef<Path>) -> Result<Reader<T>, ReaderError> {
        // SAFETY: the caller's promise is the same.
        unsafe { Options::new().open_reader(dir) }
    }

    /// Runs `f` on the newest snapshot, in place. `None` where there is none, or where it is of
    /// another layout.
    ///
    /// Wait-free while nothing is published: some loads and a swap in the thread's own cache line. A
    /// long `f` keeps the one place that it reads.
    #[inline]
    pub fn read<R>(&self, f: impl FnOnce(&Archived<T>) -> R) -> Option<R> {
        if os::forked() {
            return None;
        }
        let ring = &self.follower.ring;
        let mut f = Some(f);
        let mut answer = None;
        while self.follower.catch_up() {
            let read = ring.read(|head| {
                let root = ring.root(head.place());
                // SAFETY: a root of this follower, which is one of `T`; the place is announced or
                // held while this closure runs, and leased as long (F1).
                let root = (root != 0).then(|| unsafe { archived::<T>(root) });
                answer = root.zip(f.take()).map(|(root, f)| f(root));
            });
            // Else the head was given back in between, since there is a newer one.
            if read.is_some() {
                break;
            }
        }
        self.follower.tidy();
        answer
    }

    /// The newest snapshot, held. `None` where there is none, or where it is of another layout.
    pub fn latest(&self) -> Option<Memento<T>> {
        if os::forked() {
            return None;
        }
        let memento = Memento::of(self.follower.hold_newest()?).ok();
        self.follower.tidy();
        memento
    }

    /// A listed snapshot, held; `None` where [`try_memento`](Self::try_memento) says why.
    pub fn memento(&self, id: SnapshotId) -> Option<Memento<T>> {
        self.try_memento(id).ok()
    }

    /// A listed snapshot, held. Leases it, and checks its bytes if this reader has not before.
    ///
    /// # Errors
    ///
    /// [`MementoError`]: unknown, evicted, rejected, of another layout, or without a lease.
    pub fn try_memento(&self, id: SnapshotId) -> Result<Memento<T>, MementoError> {
        if os::forked() {
            return Err(MementoError::Forked);
        }
        Memento::of(self.follower.hold(id)?)
    }

    /// The listed snapshots, newest first, as far as the files tell at this moment. None in a forked
    /// child.
    pub fn history(&self) -> Vec<Entry> {
        if os::forked() {
            return Vec::new();
        }
        self.follower.listed().iter().map(Entry::of).collect()
    }

    /// The newest snapshot's id; a record is looked at, and nothing leased.
    pub fn head(&self) -> Option<SnapshotId> {
        if os::forked() {
            return None;
        }
        let mut newest = self.follower.sight.newest();
        if newest.id() < self.follower.ring.head().id() {
            // The hint is a stale one.
            newest = self.follower.sight.search();
        }
        (!newest.is_none()).then(|| SnapshotId::new(newest.id()))
    }

    /// Returns when there is a snapshot newer than `id`, and says which is the newest; `None` after
    /// `timeout`. Takes a millisecond or a few after a save, as the caretaker wakes waiting processes
    /// in the background, many saves at a time.
    pub fn wait_newer(&self, id: SnapshotId, timeout: Duration) -> Option<SnapshotId> {
        // A time beyond all clocks is waited for all the same.
        let until = Instant::now().checked_add(timeout);
        let sight = &self.follower.sight;
        loop {
            if os::forked() {
                return None;
            }
            // Before the look: what is published after it moves the word.
            let seen = sight.windows[0].wake(WAKE_AT);
            let newest = sight.search();
            if newest.id() > id.get() {
                return Some(SnapshotId::new(newest.id()));
            }
            let left = until.map_or(NAP, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return None;
            }
            sight.windows[0].wait(WAKE_AT, seen, left.min(NAP));
        }
    }

    /// Whether the files are still those that were opened. A caretaker that finds a damaged file
    /// makes a new one in its place: open the directory anew then.
    pub fn is_current(&self) -> bool {
        let sight = &self.follower.sight;
        let same = |file: &File, name: &str| {
            let there = std::fs::symlink_metadata(self.dir.join(name));
            let (Ok(there), Ok(here)) = (there, file.metadata()) else { return false };
            (there.dev(), there.ino()) == (here.dev(), here.ino())
        };
        let same_side = |side: Side| {
            let (window, id) = (&sight.windows[side.index()], sight.file_ids[side.index()]);
            let header = window.sealed::<HEADER_LEN>(HEADER_AT[0]);
            let header = header.and_then(|bytes| Header::decode(&bytes).ok());
            same(window.file(), side.file_name()) && header.is_none_or(|h| h.file_id == id)
        };
        same(sight.leases.file(), LEASES_NAME) && Side::BOTH.into_iter().all(same_side)
    }
}

impl<T: Snapshot> Drop for Reader<T> {
    fn drop(&mut self) {
        let Some(watch) = self.watch.take() else { return };
        if os::forked() {
            // The thread, the mappings and the leases are the parent's.
            std::mem::forget((watch, self.follower.clone()));
            return;
        }
        self.follower.end();
        // It does not panic; if it did, there would be nothing to wait for.
        _ = watch.join();
    }
}

impl<T: Snapshot> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Opens what there is in a directory, as far as it can be trusted; changes nothing.
fn look(dir: &Path, options: &Options) -> Result<Sight, ReaderError> {
    options.check()?;
    // From here on a forked child knows that it is one.
    os::forked();
    let not_ready = |path: &Path| ReaderError::NotReady { path: path.to_owned() };
    let anchor = match os::open_dir(dir) {
        Ok(anchor) => anchor,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(not_ready(dir)),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            return Err(OpenError::NotADirectory { path: dir.to_owned() }.into());
        }
        Err(e) => return Err(io_error(dir, "open the directory")(e).into()),
    };
    trust_directory(dir, &anchor)?;
    let file_system = os::file_system(&anchor).map_err(io_error(dir, "ask for the file system"))?;
    if let FileSystem::Remote(kind) = file_system
        && !options.allow_remote
    {
        return Err(OpenError::Remote { path: dir.to_owned(), kind }.into());
    }
    let open = |name: &str| {
        let file = open_trusted_by(os::open_to_read_in, dir, &anchor, name)?;
        file.ok_or_else(|| not_ready(&dir.join(name)))
    };
    let leases = Leases::of(open(LEASES_NAME)?);
    leases.enter().map_err(io_error(&dir.join(LEASES_NAME), "announce this reader in"))?;
    let [(a, window_a), (b, window_b)] = {
        let [a, b] = Side::BOTH.map(|side| {
            let path = dir.join(side.file_name());
            let file = open(side.file_name())?;
            let (header, len) = read_header(&path, &file, side)?;
            let window = Window::open(&path, file, len, options.max_file_size);
            let window = window.map_err(io_error(&path, "map"))?;
            Ok::<_, ReaderError>((header, window))
        });
        [a?, b?]
    };
    if a.ring_id != b.ring_id || a.ring != b.ring {
        let other = OpenError::OtherRing {
            path: dir.join(Side::B.file_name()),
            found: b.ring_id.to_string(),
            expected: a.ring_id.to_string(),
        };
        return Err(other.into());
    }
    Ok(Sight {
        windows: [window_a, window_b],
        file_ids: [a.file_id, b.file_id],
        ring: a.ring,
        leases,
        max_depth: options.max_depth,
        boot: Uuid(os::boot_id()),
    })
}

/// A file's header, by either copy, and the file's length.
fn read_header(path: &Path, file: &File, side: Side) -> Result<(Header, u64), ReaderError> {
    let len = file.metadata().map_err(io_error(path, "look at"))?.len() / BLOCK * BLOCK;
    let mut found = Err("it has no header".to_owned());
    for at in HEADER_AT {
        let mut bytes = [0; HEADER_LEN];
        let decoded = match file.read_exact_at(&mut bytes, at) {
            Ok(()) => Header::decode(&bytes),
            Err(e) => Err(BadHeader::Damaged(e.to_string())),
        };
        match decoded {
            Ok(header) if found.is_err() => found = Ok(header),
            Ok(_) => {}
            Err(BadHeader::Newer(found)) => {
                let path = path.to_owned();
                return Err(OpenError::NewerFormat { path, found, known: FORMAT }.into());
            }
            Err(BadHeader::Foreign(difference)) => {
                return Err(OpenError::ForeignFormat { path: path.to_owned(), difference }.into());
            }
            Err(BadHeader::Damaged(reason)) => found = found.or(Err(reason)),
        }
    }
    let damaged = |reason| ReaderError::Damaged { path: path.to_owned(), reason };
    let header = found.map_err(damaged)?;
    if header.side != side {
        let found = if header.side == Side::A { 'A' } else { 'B' };
        return Err(OpenError::Swapped { path: path.to_owned(), found }.into());
    }
    if len < data_at(header.ring) + BLOCK {
        return Err(damaged(format!("it is {len} bytes long, too short for its ring")));
    }
    Ok((header, len))
}

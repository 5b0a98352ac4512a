//! [`Caretaker`]: the engine as its users see it, for one type of state.

use std::{
    fmt::{self, Display},
    io,
    marker::PhantomData,
    path::Path,
    sync::Arc,
    thread::JoinHandle,
};

use crate::{
    background,
    capture::Pending,
    checker::{self, Sources},
    engine::Engine,
    error::{
        CloseError, FlushError, KeepError, MementoError, OpenError, ResumeError, RollbackError,
        SaveError,
    },
    events::Events,
    guard::{Checkpoint, GuardError},
    header::Floor,
    herald::Herald,
    history::{Entry, Recovery, Stats},
    id::SnapshotId,
    memento::{Memento, archived},
    open,
    options::{Durability, Options},
    os,
    record::is_label,
    rollback::Rollback,
    schema::Layout,
    snapshot::{Archived, Snapshot},
    takeover::{self, Opening, TakenOver},
};

/// Keeps a ring of snapshots of a `T`, and puts any of them back.
///
/// One per directory: it holds the writer lock. `Send + Sync` whatever `T` is: a caretaker holds no
/// `T`. Any thread may save, read and roll back; what moves the head is put in order, and readers
/// wait for nobody.
///
/// Dropped, it flushes (unless durability is [`Durability::Process`]) and notes a clean close;
/// [`close`](Self::close) does the same and tells what failed.
pub struct Caretaker<T: Snapshot> {
    engine: Arc<Engine>,
    flusher: Option<JoinHandle<()>>,
    /// Closed: dropping it has nothing left to do.
    shut: bool,
    herald: Option<Herald>,
    state: PhantomData<fn(T) -> T>,
}

/// Bytes of stack for checking one value behind a pointer: several times what a build without
/// optimisation was seen to take.
const STACK_PER_POINTER: usize = 8 << 10;

impl Options {
    /// Opens the ring in `dir`, or makes it; see [`Caretaker::open`].
    ///
    /// # Safety
    ///
    /// While the caretaker or any memento of it lives, nothing else writes to, truncates or
    /// replaces the files in `dir`.
    ///
    /// # Errors
    ///
    /// As [`Caretaker::open`].
    pub unsafe fn open<T: Snapshot>(
        &self,
        dir: impl AsRef<Path>,
    ) -> Result<Caretaker<T>, OpenError> {
        let layout = Arc::new(Layout::of::<T>());
        let taken = match self.take_over {
            Some(timeout) => {
                let opening = Opening { options: self, layout, check: check::<T> };
                takeover::open(dir.as_ref(), &opening, timeout)?
            }
            None => {
                let engine = open::open(dir.as_ref(), self, layout, check::<T>)?;
                TakenOver { engine, held: None }
            }
        };
        Caretaker::start(taken, dir.as_ref())
    }

    /// A ring without files, on sealed memory: the same engine, wholly safe, gone with the process.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`] where the system has no memory or address space left,
    /// [`OpenError::Options`] for options out of range.
    pub fn in_memory<T: Snapshot>(&self) -> Result<Caretaker<T>, OpenError> {
        let layout = Arc::new(Layout::of::<T>());
        let engine = open::in_memory(self, layout, check::<T>)?;
        Caretaker::start(TakenOver { engine, held: None }, Path::new("memory"))
    }

    /// Takes over the ring in memory that a predecessor offers at the socket `path`, by
    /// [`Caretaker::hand_over_at`]; within [`take_over`](Self::take_over)'s time, else it asks once.
    /// The memory itself passes: nothing is copied.
    ///
    /// # Safety
    ///
    /// Whoever listens at `path` is a snapring caretaker of this user that hands its ring over, or
    /// nobody: references into the memory that it passes on are handed out, and nobody can check
    /// from here that it, or whoever else it gave that memory to, writes there no more. A caretaker
    /// does not. (The memory cannot get shorter, and what is in it is checked before it is believed;
    /// those need no promise.)
    ///
    /// # Errors
    ///
    /// [`OpenError::NoPredecessor`] if nobody listens there for a quarter of a second: start with a new one, or open the
    /// directory that stands in for it. [`OpenError::Layout`] if the predecessor's layout is another
    /// one; it goes on then.
    pub unsafe fn in_memory_from<T: Snapshot>(
        &self,
        path: impl AsRef<Path>,
    ) -> Result<Caretaker<T>, OpenError> {
        let layout = Arc::new(Layout::of::<T>());
        let opening = Opening { options: self, layout, check: check::<T> };
        let timeout = self.take_over.unwrap_or_default();
        Caretaker::start(takeover::in_memory(path.as_ref(), &opening, timeout)?, path.as_ref())
    }
}

/// The engine's look at archives of `T`.
pub(crate) fn check<T: Snapshot>(
    bytes: &[u8],
    root: usize,
    depth: u32,
    pages: Option<&mut Sources<'_>>,
) -> Result<(), String> {
    checker::check::<Archived<T>>(bytes, root, depth, pages).map(drop)
}

impl<T: Snapshot> Caretaker<T> {
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    fn start(taken: TakenOver, path: &Path) -> Result<Caretaker<T>, OpenError> {
        let io = |source| OpenError::Io {
            path: path.to_owned(),
            doing: "start the background threads for",
            source,
        };
        let engine = Arc::new(taken.engine);
        // As long as it has no thread it leaves without a word.
        let mut caretaker =
            Caretaker { engine, flusher: None, herald: None, shut: true, state: PhantomData };
        if let Some((held, stream)) = taken.held {
            // Before anything is written.
            caretaker.engine.hold_for(held, stream).map_err(io)?;
        }
        caretaker.resume_background().map_err(io)?;
        Ok(caretaker)
    }

    /// Starts the background thread, and the one that wakes readers.
    pub(crate) fn resume_background(&mut self) -> io::Result<()> {
        let background = self.engine.clone();
        background.flusher.restart();
        // It checks archives, as deep as allowed.
        let stack = (2 << 20) + background.options.max_depth as usize * STACK_PER_POINTER;
        let thread = std::thread::Builder::new()
            .name("snapring".to_owned())
            .stack_size(stack)
            .spawn(move || background::run(&background))?;
        self.flusher = Some(thread);
        self.shut = false;
        if self.herald.is_none() {
            self.herald = Herald::start(&self.engine)?;
        }
        Ok(())
    }

    /// Tells the background thread to stop.
    pub(crate) fn call_off(&self) {
        self.engine.flusher.rouse(true);
    }

    /// Stops the background thread.
    pub(crate) fn stop(&mut self) {
        if let Some(flusher) = self.flusher.take() {
            self.call_off();
            // It panics only where the engine itself is wrong; then there is nothing to wait for.
            _ = flusher.join();
        }
    }

    /// Goes without a word: what it had is another process's, or it was killed.
    pub(crate) fn leave(mut self) {
        self.shut = true;
        #[cfg(feature = "campaign")]
        self.engine.forget_captures();
        if let Some(herald) = self.herald.take() {
            herald.end();
        }
    }

    /// One whose background is the caller's affair.
    #[cfg(feature = "campaign")]
    pub(crate) fn without_thread(engine: Engine) -> Caretaker<T> {
        let engine = Arc::new(engine);
        engine.queue_captures();
        Caretaker { engine, flusher: None, herald: None, shut: false, state: PhantomData }
    }

    /// Opens the ring in `dir` with the default [`Options`], or makes it. A missing directory is
    /// made, for its owner alone.
    ///
    /// Costs one checksum and one check of the newest snapshot; the others are checked in the
    /// background. What was found, chosen and rejected is in [`recovery`](Self::recovery).
    ///
    /// # Safety
    ///
    /// While the caretaker or any memento of it lives, nothing else writes to, truncates or
    /// replaces the files in `dir`: references into mapped files are handed out, and nobody can
    /// check that from here. Directories and files that others could write to are refused, and a
    /// second caretaker is kept out by a lock, so in practice it means: leave the files alone.
    ///
    /// # Errors
    ///
    /// [`OpenError`] names the file and says what to do. Damage never is one: damaged snapshots are
    /// left out and damaged files set aside, and `recovery` tells.
    pub unsafe fn open(dir: impl AsRef<Path>) -> Result<Caretaker<T>, OpenError> {
        // SAFETY: the caller's promise is the same.
        unsafe { Options::new().open(dir) }
    }

    /// A ring without files and without a door: nobody else can name its memory, so it is wholly
    /// safe. It dies with the process.
    ///
    /// # Errors
    ///
    /// As [`Options::in_memory`].
    pub fn in_memory() -> Result<Caretaker<T>, OpenError> {
        Options::new().in_memory()
    }

    /// What opening found: the chosen snapshot, every rejected slot and why, what was unverified.
    pub fn recovery(&self) -> &Recovery {
        &self.engine.recovery
    }

    /// The newest snapshot as an owned value; `None` where there is none. Skipped fields take their
    /// defaults.
    ///
    /// # Errors
    ///
    /// [`ResumeError`] if the newest snapshot has another layout or cannot be thawed.
    pub fn resume(&self) -> Result<Option<T>, ResumeError> {
        let Some(memento) = self.engine.newest::<T>()? else { return Ok(None) };
        let id = memento.id();
        memento.thaw().map(Some).map_err(|source| ResumeError::Thaw { id, source })
    }

    /// Makes `state` the newest snapshot, in place; skipped fields stay as they are. Publishes
    /// nothing. `None`, and no change, where there is no snapshot.
    ///
    /// # Errors
    ///
    /// [`ResumeError`]; but for `Poisoned` the state is as it was.
    pub fn resume_into(&self, state: &mut T) -> Result<Option<SnapshotId>, ResumeError> {
        self.engine.resume_into(state)
    }

    /// Archives `state` and publishes it: when this returns, the snapshot is the head and survives
    /// the process.
    ///
    /// Costs one walk over the state and one checksum over its bytes; no allocation in a steady
    /// state. No lock is held while the state is walked; another thread's rollback is waited for
    /// before publishing.
    ///
    /// Where the ring and its files are full, and what is in the way stays only until a newer snapshot
    /// is on the disk ([`HeldBy::Durability`](crate::HeldBy::Durability)), it waits for the disk: at
    /// most about a second for a flush that is under way, then as long as one of its own takes. That
    /// comes up in a full file, or where mementos and readers hold most places, and not under
    /// [`Durability::Process`](crate::Durability::Process), which leaves the disk alone.
    ///
    /// # Errors
    ///
    /// [`SaveError`]; the ring, the files and the state are then as they were. A panic in the
    /// state's own code passes through, with the same promise. Only
    /// [`NotDurable`](SaveError::NotDurable) comes after publishing: it carries the id.
    pub fn save(&self, state: &T) -> Result<SnapshotId, SaveError> {
        self.engine.save(state)
    }

    /// Captures `state`; the rest happens while the caller goes on. Captures are published in the
    /// order in which they were taken; a save or a rollback waits for those before it.
    ///
    /// The pause archives what is not in a [`PagedVec`](crate::PagedVec) or a
    /// [`PagedMap`](crate::PagedMap), takes a reference to the pages of those, and wakes a thread;
    /// the first write to a page after it copies that page. Where captures are taken faster than they are
    /// written, [`Options::capture_memory`](crate::Options::capture_memory) says what is done; with 256 on
    /// their way the next one waits in any case. Where the files
    /// are as long as they may be, and a snapshot has to leave before there is room for the archive, this
    /// saves instead.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save), for what happens during the pause.
    pub fn capture(&self, state: &T) -> Result<Pending, SaveError> {
        self.engine.capture(state)
    }

    /// Captures `state` if it is time for that by [`Options::policy`](crate::Options::policy): with a
    /// [`Budget`](crate::Policy::Budget) as often as it allows, else always. To be called once a tick;
    /// costs a look at the clock where it is not time.
    ///
    /// # Errors
    ///
    /// As [`capture`](Self::capture).
    pub fn capture_if_due(&self, state: &T) -> Result<Option<Pending>, SaveError> {
        self.engine.capture_if_due(state)
    }

    /// The newest snapshot's id: one load.
    pub fn head(&self) -> Option<SnapshotId> {
        self.engine.head_id()
    }

    /// The newest snapshot, held. `None` where there is none, or where it is of another layout.
    pub fn latest(&self) -> Option<Memento<T>> {
        self.engine.newest().ok().flatten()
    }

    /// A listed snapshot, held; `None` where [`try_memento`](Self::try_memento) says why.
    pub fn memento(&self, id: SnapshotId) -> Option<Memento<T>> {
        self.try_memento(id).ok()
    }

    /// A listed snapshot, held. Checks its bytes if nobody has since opening.
    ///
    /// # Errors
    ///
    /// [`MementoError`]: unknown, evicted, rejected, or of another layout.
    pub fn try_memento(&self, id: SnapshotId) -> Result<Memento<T>, MementoError> {
        if os::forked() {
            return Err(MementoError::Forked);
        }
        Memento::of(self.engine.hold(id)?)
    }

    /// The listed snapshots, newest first. None in a forked child.
    pub fn history(&self) -> Vec<Entry> {
        if os::forked() { Vec::new() } else { self.engine.history() }
    }

    /// Runs `f` on the newest snapshot, in place. `None` where there is none, or where it is of
    /// another layout.
    ///
    /// Wait-free but for a head that moves at that very moment: two loads and a swap in the
    /// thread's own cache line, about 10 ns. A long `f` keeps the one place it reads from being
    /// used again, and nobody waiting.
    #[inline]
    pub fn read<R>(&self, f: impl FnOnce(&Archived<T>) -> R) -> Option<R> {
        if os::forked() {
            return None;
        }
        let ring = &self.engine.ring;
        ring.read(|head| {
            let root = ring.root(head.place());
            // SAFETY: a root of this engine, which is one of `T`; the place is announced or held
            // while this closure runs, and the reference cannot leave it.
            (root != 0).then(|| f(unsafe { archived::<T>(root) }))
        })
        .flatten()
    }

    /// Puts `state` back to what snapshot `to` holds, in place, and publishes that as a snapshot of
    /// its own. History stays whole: one can go forward again.
    ///
    /// Skipped fields stay live: by position in plain fields and arrays, by key in maps, by
    /// `#[snapshot(id)]` in sequences; an element without an id takes the skip's default. Where the
    /// state's own code (a `Drop`, a `Hash`) panics on the way, the state is built anew and is the
    /// snapshot all the same, and skipped fields that were lost with the old value take defaults.
    ///
    /// # Errors
    ///
    /// [`RollbackError`]; but for `Poisoned` and `Unpublished` the state is as it was.
    pub fn rollback(&self, state: &mut T, to: SnapshotId) -> Result<Rollback, RollbackError> {
        self.engine.rollback(None, state, to)
    }

    /// As [`rollback`](Self::rollback), if the head still is `expected`.
    ///
    /// # Errors
    ///
    /// [`RollbackError::Raced`] with the head found, before any change; else as `rollback`.
    pub fn rollback_from(
        &self,
        expected: SnapshotId,
        state: &mut T,
        to: SnapshotId,
    ) -> Result<Rollback, RollbackError> {
        self.engine.rollback(Some(expected), state, to)
    }

    /// Saves `state`, runs `change` on it, and puts the state back if that answers an error or
    /// panics. Holds no lock while `change` runs; `change` may save as often as it likes.
    ///
    /// # Errors
    ///
    /// [`GuardError`] with what the change said; its panic is caught and told.
    pub fn guard<R, E: Display>(
        &self,
        state: &mut T,
        change: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<R, GuardError<E>> {
        self.engine.guard(state, change)
    }

    /// Saves `state` and hands out a way back to this moment: [`guard`](Self::guard) for code that
    /// a closure cannot hold.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    pub fn checkpoint(&self, state: &T) -> Result<Checkpoint<T>, SaveError> {
        self.engine.checkpoint(state)
    }

    /// Exempts a listed snapshot from eviction, under a label: 1 to 255 bytes without control
    /// characters. A label names one snapshot: set again, it moves; a snapshot has one label: set
    /// anew, it is replaced. Durable with the next flush.
    ///
    /// # Errors
    ///
    /// [`KeepError::Full`] rather than leave fewer than two places unkept; `Gone` for an id that is
    /// not listed.
    pub fn keep(&self, id: SnapshotId, label: &str) -> Result<(), KeepError> {
        if os::forked() {
            return Err(KeepError::Forked);
        }
        if !is_label(label) {
            return Err(KeepError::Label { label: label.to_owned() });
        }
        self.engine.keep(id, label)
    }

    /// Lets the snapshot under this label age like any other. `false` if there is none.
    pub fn release(&self, label: &str) -> bool {
        !os::forked() && self.engine.release(label)
    }

    /// Returns when everything saved so far is on the disk; answers the newest durable snapshot.
    /// `None` in memory, where nothing ever is.
    ///
    /// # Errors
    ///
    /// [`FlushError`], once a sync has failed: sticky. What that left behind is written anew elsewhere,
    /// now and later, and [`durable`](Self::durable) goes on when it is on the disk.
    pub fn flush(&self) -> Result<Option<SnapshotId>, FlushError> {
        if os::forked() {
            return Err(FlushError::Forked);
        }
        self.engine.flush_upto(u64::MAX)
    }

    /// The newest id known to be on the disk: every listed snapshot up to it is. `None` in a forked
    /// child.
    pub fn durable(&self) -> Option<SnapshotId> {
        if os::forked() { None } else { self.engine.durable() }
    }

    /// What happens from now on, as an iterator that waits; see [`Events`].
    pub fn subscribe(&self) -> Events {
        self.engine.listeners.subscribe()
    }

    /// Figures of this moment. Not for a forked child, which may wait for a lock that nobody there
    /// gives back.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Flushes, notes a clean close and lets the directory go; answers the newest durable snapshot.
    ///
    /// # Errors
    ///
    /// [`CloseError::Flush`] if something is not on the disk; [`CloseError::Held`] if mementos are
    /// alive, which keep the directory locked until they are dropped. Closed it is in either case.
    pub fn close(mut self) -> Result<Option<SnapshotId>, CloseError> {
        if os::forked() {
            return Err(CloseError::Flush(FlushError::Forked));
        }
        let durable = self.shut(true)?;
        // Relaxed: for people to read.
        let mementos = self.engine.mementos.load(std::sync::atomic::Ordering::Relaxed) as usize;
        if mementos > 0 {
            return Err(CloseError::Held { mementos, durable });
        }
        Ok(durable)
    }

    /// Stops the background thread, flushes if asked to, and notes where ids go on.
    fn shut(&mut self, flush: bool) -> Result<Option<SnapshotId>, FlushError> {
        if std::mem::replace(&mut self.shut, true) {
            return Ok(None);
        }
        let mut state = self.engine.lock();
        self.engine.wait_for_captures(&mut state, 0);
        drop(state);
        self.stop();
        if let Some(herald) = self.herald.take() {
            herald.end();
        }
        let flushed = if flush { self.engine.flush_upto(u64::MAX) } else { Ok(None) };
        let note = {
            let state = self.engine.lock();
            Floor {
                floor: state.floor,
                next: state.next_id,
                boot: self.engine.boot,
                ring_id: self.engine.ring_id,
            }
        };
        // Without it the next opening starts at the floor: nothing is lost but numbers.
        let noted = self.engine.write_floor(&note);
        self.engine.leave_predecessor();
        self.engine.listeners.end();
        let flushed = flushed?;
        noted.map_err(|(path, error)| FlushError::Sync {
            path,
            message: error.to_string(),
            upto: SnapshotId::new(note.next),
        })?;
        Ok(flushed)
    }
}

impl<T: Snapshot> Drop for Caretaker<T> {
    fn drop(&mut self) {
        if os::forked() {
            // The thread, the files and the lock are the parent's.
            std::mem::forget(self.flusher.take());
            if let Some(herald) = self.herald.take() {
                herald.forget();
            }
            std::mem::forget(self.engine.clone());
            return;
        }
        // `close` is there for those who want to hear of a failure.
        _ = self.shut(self.engine.options.durability != Durability::Process);
    }
}

impl<T: Snapshot> fmt::Debug for Caretaker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caretaker")
            .field("head", &self.head())
            .field("files", &self.engine.files.each_ref().map(|file| file.path()))
            .finish_non_exhaustive()
    }
}

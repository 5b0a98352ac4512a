#![forbid(unsafe_code)]
//! Handing a ring over to a successor process while this one still serves: [`HandOver`].
//!
//! The predecessor's half. It listens on a socket, lets in who has its layout, and when the server
//! says so passes on the lock's own descriptor: an open file description holds the lock, whoever has
//! a descriptor of it, so there is no moment at which nobody does. The successor's half is
//! `takeover.rs`; what they say is in `wire.rs`.
//!
//! **One decides.** The ring is the successor's when its word *taken* is in our queue. Where we wait
//! no longer we shut the queue first and look into it then: the kernel puts the two in order, so
//! either the word is there, or the successor's sending of it has failed.

use std::{
    fmt,
    fs::{self, Permissions},
    io,
    net::Shutdown,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::{
    caretaker::Caretaker,
    clock,
    engine::Engine,
    events::Event,
    gate::{Desk, Gate, Refusal, SocketFile, Successor},
    os::{self, socket},
    snapshot::Snapshot,
    wire::{self, HeldPlace, Kind, Yours},
};

/// The socket's name in a directory.
pub(crate) const SOCKET_NAME: &str = "handover.sock";

/// How long a successor may take to say that it has taken over, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a ring could not be handed over. The predecessor goes on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandOverError {
    /// The system refused.
    #[error("{}: cannot {doing}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The ring has no directory for the socket.
    #[error("a ring in memory has no directory; name a socket with `hand_over_at`")]
    InMemory,
    /// The ring has a directory, where its successor will look.
    #[error("the ring is in {}, where its successor will look; use `hand_over`", path.display())]
    InDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Nobody is ready to take over.
    #[error("no successor is ready; start one and `wait` for it")]
    NoSuccessor,
    /// The hand-over belongs to another caretaker.
    #[error("this hand-over was begun by another caretaker; complete it with that one")]
    OtherCaretaker,
    /// What this process took over is still held by the one before.
    #[error("the predecessor of this process still holds mementos; wait until it has dropped them")]
    Held,
    /// Saves or rollbacks by checkpoints, or a flush, did not end in time.
    #[error("saves, rollbacks or a flush did not end within {} s; try again", waited.as_secs_f64())]
    Busy {
        /// How long they were waited for.
        waited: Duration,
    },
    /// Too much to pass on.
    #[error("{descriptors} descriptors are more than the {max} that can be passed on")]
    Descriptors {
        /// How many were given.
        descriptors: usize,
        /// The limit.
        max: usize,
    },
    /// The successor went away, or did not say in time that it has taken over. It has not.
    #[error("the successor (process {process}) did not take over")]
    Lost {
        /// The successor's process id.
        process: u32,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// Called in a forked child.
    #[error("this process was forked from the one that opened the caretaker")]
    Forked,
}

/// A hand-over that did not happen: the caretaker is back, and goes on where it was.
#[derive(Debug, Error)]
#[error("not handed over: {why}")]
pub struct TakenBack<T: Snapshot> {
    /// To go on with.
    pub caretaker: Caretaker<T>,
    /// What went wrong.
    #[source]
    pub why: HandOverError,
}

/// An offer to hand the ring over, made while this process goes on serving.
///
/// A thread of its own listens, and lets in who has the same layout; [`successor`](Self::successor)
/// and [`wait`](Self::wait) tell who is ready, [`refused`](Self::refused) who was not let in. Then
/// save for the last time and [`complete`](Self::complete). Dropped before, the offer is withdrawn.
#[must_use = "dropped at once, the offer is withdrawn"]
pub struct HandOver {
    desk: Arc<Desk>,
    engine: Weak<Engine>,
    place: Option<SocketFile>,
    patience: Duration,
    /// Dropped, it wakes the thread.
    waker: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Snapshot> Caretaker<T> {
    /// Offers this ring to a successor process: one that opens the directory with
    /// [`Options::take_over`](crate::Options::take_over). This process goes on serving and saving
    /// meanwhile; see [`HandOver`].
    ///
    /// The successor says over a socket in the directory (`handover.sock`, for this user alone)
    /// what its layout is. Only with the same one it is let in; else its open answers
    /// [`OpenError::Layout`](crate::OpenError::Layout) with the first difference, and nothing
    /// changes here.
    ///
    /// # Errors
    ///
    /// [`HandOverError::Io`] where the system refuses the socket or the thread, `InMemory` for a
    /// ring in memory.
    pub fn hand_over(&self) -> Result<HandOver, HandOverError> {
        let storage = self.engine().storage.as_deref();
        let directory = storage.and_then(|s| s.directory()).ok_or(HandOverError::InMemory)?;
        let path = directory.path_of(SOCKET_NAME);
        let short = directory.short_path(SOCKET_NAME);
        // We hold the writer lock: whatever is there was left behind.
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.file_type().is_socket() => _ = fs::remove_file(&path),
            _ => {}
        }
        HandOver::listen(self.engine(), path, &short)
    }

    /// The same for a ring in memory: the two memory files travel over the socket at `path`, which
    /// is made for this user alone.
    ///
    /// # Errors
    ///
    /// [`HandOverError::Io`] where the system refuses, also where somebody listens there already;
    /// `InDirectory` for a ring in a directory.
    pub fn hand_over_at(&self, path: impl AsRef<Path>) -> Result<HandOver, HandOverError> {
        let path = path.as_ref();
        if let Some(storage) = &self.engine().storage {
            return Err(HandOverError::InDirectory { path: storage.path().to_owned() });
        }
        let io = |doing| io_at(path, doing);
        self.engine().lock_memory().map_err(io("lock the memory of"))?;
        // One that nobody answers at was left behind.
        let left = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
            && UnixStream::connect(path)
                .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        if left {
            fs::remove_file(path).map_err(io("remove what was left at"))?;
        }
        HandOver::listen(self.engine(), path.to_owned(), path)
    }

    /// What the predecessor passed on with [`HandOver::complete`], in the order it was given there.
    /// Handed out once: after that, and without a predecessor, there are none.
    pub fn inherited(&self) -> Vec<OwnedFd> {
        std::mem::take(&mut *self.engine().handed.inherited.lock())
    }
}

fn io_at(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> HandOverError {
    let path = path.to_owned();
    move |source| HandOverError::Io { path, doing, source }
}

impl HandOver {
    fn listen(
        engine: &Arc<Engine>,
        path: PathBuf,
        short: &Path,
    ) -> Result<HandOver, HandOverError> {
        if os::forked() {
            return Err(HandOverError::Forked);
        }
        let listener = UnixListener::bind(short).map_err(io_at(&path, "listen at"))?;
        let found = fs::symlink_metadata(&path).map_err(io_at(&path, "look at"))?;
        let place = SocketFile { path: path.clone(), identity: (found.dev(), found.ino()) };
        // Who comes before this is asked for its user all the same.
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(io_at(&path, "chmod"))?;
        listener.set_nonblocking(true).map_err(io_at(&path, "listen at"))?;
        let (waker, woken) =
            UnixStream::pair().map_err(io_at(&path, "make a pair of sockets for"))?;
        let desk = Arc::new(Desk::default());
        let gate = Gate { engine: Arc::downgrade(engine), layout: engine.layout.clone(), woken };
        let here = desk.clone();
        let thread = thread::Builder::new()
            .name("snapring-handover".to_owned())
            .spawn(move || gate.attend(&here, &listener))
            .map_err(io_at(&path, "start a thread for"))?;
        Ok(HandOver {
            desk,
            engine: Arc::downgrade(engine),
            place: Some(place),
            patience: PATIENCE,
            waker: Some(waker),
            thread: Some(thread),
        })
    }

    /// How long [`complete`](Self::complete) waits for the successor's word, and for saves under way.
    /// Default 10 s.
    pub fn patience(mut self, patience: Duration) -> HandOver {
        self.patience = patience;
        self
    }

    /// The process id of a successor that has passed the gate, has mapped the files and is ready.
    /// Never waits.
    pub fn successor(&self) -> Option<u32> {
        self.desk.waiting.lock().ready.as_ref().map(|successor| successor.process)
    }

    /// The same, waiting for one at most so long.
    pub fn wait(&self, timeout: Duration) -> Option<u32> {
        let until = clock::deadline(timeout);
        let mut waiting = self.desk.waiting.lock();
        while waiting.ready.is_none() {
            if self.desk.changed.wait_until(&mut waiting, until).timed_out() {
                break;
            }
        }
        waiting.ready.as_ref().map(|successor| successor.process)
    }

    /// Who was not let in, and why: the last 16, oldest first.
    pub fn refused(&self) -> Vec<Refusal> {
        self.desk.waiting.lock().refused.iter().cloned().collect()
    }

    /// Hands the ring over to the successor that is ready, and with it these descriptors: a
    /// listening socket, clients' connections. Save for the last time just before.
    ///
    /// Taking the caretaker means that nobody saves or reads by it any more; its background thread
    /// ends, then the lock passes. When this returns `Ok` the successor has mapped the files, found
    /// the newest snapshot and said so: this process need only end. Its copies of the descriptors
    /// are still open.
    ///
    /// Mementos of this process stay what they are for as long as they live: the successor writes
    /// over none of their bytes, and a directory stays locked until they are dropped. So one can go
    /// on reading from the last one until the successor serves. A checkpoint restores nothing any
    /// more.
    ///
    /// # Errors
    ///
    /// [`TakenBack`] gives the caretaker back, saving and reading as before: the successor has died,
    /// or has not said in time that it has taken over, and cannot do so any more.
    pub fn complete<T: Snapshot>(
        mut self,
        mut caretaker: Caretaker<T>,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), TakenBack<T>> {
        let engine = caretaker.engine().clone();
        if let Err(why) = self.check(&engine, descriptors) {
            return Err(TakenBack { caretaker, why });
        }
        let Some(successor) = self.desk.waiting.lock().ready.take() else {
            return Err(TakenBack { caretaker, why: HandOverError::NoSuccessor });
        };
        // The successor may offer the ring itself as soon as it has it.
        self.place = None;
        caretaker.call_off();
        let until = clock::deadline(self.patience);
        let passed = engine
            .retire(until, self.patience)
            .and_then(|held| pass(&engine, &successor, held, descriptors, until));
        match passed {
            Ok(()) => {
                let process = successor.process;
                engine.listeners.tell(|| Event::HandedOver { process });
                engine.listeners.end();
                caretaker.leave();
                Ok(())
            }
            Err(why) => {
                caretaker.stop();
                engine.carry_on();
                match caretaker.resume_background() {
                    Ok(()) => Err(TakenBack { caretaker, why }),
                    Err(source) => {
                        let path = Path::new("the caretaker").to_owned();
                        let doing = "start its background thread again";
                        Err(TakenBack { caretaker, why: HandOverError::Io { path, doing, source } })
                    }
                }
            }
        }
    }

    fn check(
        &self,
        engine: &Arc<Engine>,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), HandOverError> {
        if os::forked() {
            return Err(HandOverError::Forked);
        }
        if !std::ptr::eq(self.engine.as_ptr(), Arc::as_ptr(engine)) {
            return Err(HandOverError::OtherCaretaker);
        }
        if descriptors.len() > wire::MAX_DESCRIPTORS {
            let (descriptors, max) = (descriptors.len(), wire::MAX_DESCRIPTORS);
            return Err(HandOverError::Descriptors { descriptors, max });
        }
        if engine.handed.predecessor.lock().is_some() {
            return Err(HandOverError::Held);
        }
        Ok(())
    }
}

impl Drop for HandOver {
    fn drop(&mut self) {
        if os::forked() {
            std::mem::forget(self.thread.take());
            return;
        }
        self.place = None;
        self.waker = None;
        if let Some(thread) = self.thread.take() {
            // It panics only where it is wrong itself; then there is nothing to wait for.
            _ = thread.join();
        }
    }
}

impl fmt::Debug for HandOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandOver").field("successor", &self.successor()).finish_non_exhaustive()
    }
}

/// Passes lock and descriptors on, and waits for the successor's word.
fn pass(
    engine: &Arc<Engine>,
    successor: &Successor,
    held: Vec<HeldPlace>,
    descriptors: &[BorrowedFd<'_>],
    until: Instant,
) -> Result<(), HandOverError> {
    let stream = &successor.stream;
    let lost = |source| HandOverError::Lost { process: successor.process, source };
    // While it is open, the successor keeps what is held here.
    let kept = match held.is_empty() {
        true => None,
        false => Some(stream.try_clone().map_err(lost)?),
    };
    let yours = {
        let state = engine.lock();
        let head = state.listed.front().map_or(0, |n| state.places[usize::from(*n)].id);
        Yours { next: state.next_id, head, descriptors: descriptors.len() as u32, held }
    };
    let memory_lock = engine.handed.memory_lock.lock();
    let directory = engine.storage.as_deref().and_then(|s| s.directory());
    let lock = match (directory, &*memory_lock) {
        (Some(directory), _) => directory.lock_descriptor(),
        (None, Some(lock)) => lock.as_fd(),
        (None, None) => return Err(HandOverError::InMemory),
    };
    wire::send(stream, Kind::Yours, &yours.encode(), &[lock], until).map_err(lost)?;
    let mut taken = Ok(());
    for some in descriptors.chunks(socket::DESCRIPTORS) {
        taken = taken.and_then(|()| wire::send(stream, Kind::More, &[], some, until));
    }
    let taken = taken.and_then(|()| wire::expect(stream, Kind::Taken, until).map(drop));
    // We wait no longer: the queue is shut, then looked into. See "One decides", above.
    let taken = taken.or_else(|error| {
        stream.shutdown(Shutdown::Read)?;
        wire::expect(stream, Kind::Taken, Instant::now()).map(drop).map_err(|_| error)
    });
    taken.map_err(lost)?;
    if let Some(directory) = directory {
        directory.keep_lock(false);
    }
    *engine.handed.successor.lock() = kept;
    Ok(())
}

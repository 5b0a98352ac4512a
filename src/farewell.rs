#![forbid(unsafe_code)]
//! [`Farewell`]: a last snapshot on the way down, when a thread panics or SIGTERM comes.
//!
//! One thread per process does the saving: a panic in a panic hook would end the process at once, and
//! a signal handler may do next to nothing. It waits for the bell of `os/term.rs`. Knows who is
//! armed and whose turn it is; how a state is saved is for `save.rs`.

use std::{
    cell::Cell,
    collections::VecDeque,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Once, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::{
    caretaker::Caretaker, clock, engine::Engine, events::Event, id::SnapshotId, os, os::term,
    rollback::panic_message, save, snapshot::Snapshot,
};

/// The label of the snapshot published after a panic.
pub const LAST_AFTER_PANIC: &str = "last, after a panic";
/// The label of the snapshot published at SIGTERM.
pub const LAST_AT_SIGTERM: &str = "last, at SIGTERM";

/// How long a state that is not lent is asked for after a panic: mostly the panicking thread has it.
const ASKED_AFTER_PANIC: Duration = Duration::from_millis(50);
/// The same at SIGTERM, unless told otherwise; also how long a panicking thread waits for the save.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two questions.
const AGAIN: Duration = Duration::from_millis(1);

impl<T: Snapshot> Caretaker<T> {
    /// Readies a last snapshot for the way down. `lend` calls what it is given with the state, if it
    /// can have it: whatever keeps the state, a `Mutex`, an `RwLock`, a channel. It must not wait:
    /// use `try_lock`, since the thread that panics may be the one that has the lock. Lent nothing,
    /// it is asked again for a while.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use snapring::{Caretaker, Snapshot};
    ///
    /// #[derive(Snapshot)]
    /// struct World { tick: u64 }
    ///
    /// let caretaker = Caretaker::<World>::in_memory()?;
    /// let world = Arc::new(Mutex::new(World { tick: 7 }));
    /// let lent = world.clone();
    /// let armed = caretaker
    ///     .farewell(move |save| {
    ///         if let Ok(world) = lent.try_lock() {
    ///             save(&world);
    ///         }
    ///     })
    ///     .on_panic()
    ///     .on_sigterm()
    ///     .arm()?;
    ///
    /// _ = std::thread::spawn(|| panic!("a bug")).join();
    /// let last = &caretaker.history()[0];
    /// assert_eq!(last.label(), Some(snapring::LAST_AFTER_PANIC));
    /// drop(armed); // from here on a panic is only a panic
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn farewell<F>(&self, lend: F) -> Farewell
    where
        F: Fn(&mut dyn FnMut(&T)) + Send + Sync + 'static,
    {
        let lent = Lent { engine: Arc::downgrade(self.engine()), lend, state: Default::default() };
        Farewell { last: Arc::new(lent), panics: false, terms: false, patience: PATIENCE }
    }
}

/// A last snapshot in readiness; see [`Caretaker::farewell`]. Say when, then [`arm`](Self::arm) it.
#[must_use = "nothing is saved on the way down until it is armed"]
pub struct Farewell {
    last: Arc<dyn Last>,
    panics: bool,
    terms: bool,
    patience: Duration,
}

impl Farewell {
    /// When any thread panics: before its panic is reported, a snapshot labelled
    /// [`LAST_AFTER_PANIC`] is published.
    ///
    /// A panic hook cannot know whether somebody catches the panic further up: each one publishes a
    /// snapshot. But for those inside [`guard`](Caretaker::guard), which undoes what they did, and
    /// those inside a save or a rollback of the same caretaker, whose state is not fit to be saved.
    #[must_use = "nothing is saved on the way down until it is armed"]
    pub fn on_panic(mut self) -> Farewell {
        self.panics = true;
        self
    }

    /// At SIGTERM: a snapshot labelled [`LAST_AT_SIGTERM`] is published, then the signal goes the
    /// way it would have gone. Where that is the default, the process ends by it, as its exit
    /// status tells.
    #[must_use = "nothing is saved on the way down until it is armed"]
    pub fn on_sigterm(mut self) -> Farewell {
        self.terms = true;
        self
    }

    /// How long at SIGTERM a state that is not lent is asked for, and how long a panicking thread
    /// waits for its snapshot at most. Default 5 s.
    #[must_use = "nothing is saved on the way down until it is armed"]
    pub fn patience(mut self, patience: Duration) -> Farewell {
        self.patience = patience;
        self
    }

    /// From here on until the answer is dropped.
    ///
    /// The panic hook that is there is called after the last snapshot; one that is set later
    /// replaces ours, unless it calls it in turn. In a forked child nothing is armed.
    ///
    /// What was done is told by [`Event::LastSaved`], what could not be by [`Event::Failed`].
    ///
    /// # Errors
    ///
    /// What the system says to a thread, an eventfd or a signal handler more.
    pub fn arm(self) -> io::Result<Armed> {
        if os::forked() {
            return Err(io::Error::other(
                "this process was forked from the one with the caretaker",
            ));
        }
        if self.panics && thread::panicking() {
            return Err(io::Error::other("a thread that panics cannot set the panic hook"));
        }
        stand_by()?;
        if self.panics {
            static HOOK: Once = Once::new();
            HOOK.call_once(|| {
                let before = std::panic::take_hook();
                std::panic::set_hook(Box::new(move |info| {
                    on_panic();
                    before(info);
                }));
            });
        }
        let mut watch = WATCH.lock();
        if self.terms {
            term::catch()?;
        }
        let number = watch.next;
        watch.next += 1;
        let Farewell { last, panics, terms, patience } = self;
        watch.armed.push(Standing { number, last, panics, terms, patience });
        Ok(Armed { number })
    }
}

impl fmt::Debug for Farewell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Farewell")
            .field("panics", &self.panics)
            .field("terms", &self.terms)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

/// A [`Farewell`] that is armed. Dropped, it is not any more: a last snapshot under way is waited
/// for, and where nobody else is armed for it, SIGTERM does again what it did before.
#[derive(Debug)]
#[must_use = "dropped at once, it saves nothing"]
pub struct Armed {
    number: u64,
}

impl Drop for Armed {
    fn drop(&mut self) {
        if os::forked() {
            return;
        }
        let mut watch = WATCH.lock();
        let at = watch.armed.iter().position(|standing| standing.number == self.number);
        let gone = at.map(|at| watch.armed.swap_remove(at));
        if gone.as_ref().is_some_and(|gone| gone.terms) && !watch.armed.iter().any(|s| s.terms) {
            term::let_go();
        }
        // By the thread that saves, it is not waited for.
        while watch.saving == Some(self.number) && !ON_DUTY.with(Cell::get) {
            SAVED.wait(&mut watch);
        }
        drop(watch);
        // The user's closure goes without our lock.
        drop(gone);
    }
}

/// Who is armed, in this process.
static WATCH: Mutex<Watch> = Mutex::new(Watch {
    on_duty: false,
    next: 0,
    armed: Vec::new(),
    asked: VecDeque::new(),
    saving: None,
});
/// A save ended.
static SAVED: Condvar = Condvar::new();

struct Watch {
    /// The thread runs.
    on_duty: bool,
    next: u64,
    armed: Vec<Standing>,
    /// Panics that wait for their snapshots.
    asked: VecDeque<Arc<Panic>>,
    /// Whose snapshot is being made.
    saving: Option<u64>,
}

#[derive(Clone)]
struct Standing {
    number: u64,
    last: Arc<dyn Last>,
    panics: bool,
    terms: bool,
    patience: Duration,
}

/// A thread that panics and waits.
struct Panic {
    standing: Vec<Standing>,
    /// It waits no longer: nothing is to be begun for it.
    gone: AtomicBool,
    done: Mutex<bool>,
    ended: Condvar,
}

thread_local! {
    /// This is the thread that saves.
    static ON_DUTY: Cell<bool> = const { Cell::new(false) };
    /// Calls of `guard` that this thread is inside of.
    static GUARDED: Cell<u32> = const { Cell::new(0) };
}

/// While this lives, a panic of this thread is caught and undone: no way down.
pub(crate) struct Guarded;

impl Guarded {
    pub(crate) fn enter() -> Guarded {
        _ = GUARDED.try_with(|depth| depth.set(depth.get() + 1));
        Guarded
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        _ = GUARDED.try_with(|depth| depth.set(depth.get() - 1));
    }
}

/// Starts the thread, once.
fn stand_by() -> io::Result<()> {
    let mut watch = WATCH.lock();
    if !watch.on_duty {
        // Makes the bell, or says why not.
        term::ring()?;
        thread::Builder::new().name("snapring-farewell".to_owned()).spawn(duty)?;
        watch.on_duty = true;
    }
    Ok(())
}

/// The thread: waits for the bell, for ever.
fn duty() {
    ON_DUTY.with(|on| on.set(true));
    term::unblock();
    while term::wait().is_ok() {
        // The last owner of a user's closure may be here, and its drop may panic.
        _ = catch_unwind(respond);
    }
}

/// Whatever the bell was rung for.
fn respond() {
    loop {
        // Not in the loop's head, which would keep the lock.
        let asked = WATCH.lock().asked.pop_front();
        let Some(panic) = asked else { break };
        for standing in &panic.standing {
            let until = clock::deadline(ASKED_AFTER_PANIC.min(standing.patience));
            attend(standing, LAST_AFTER_PANIC, until, &panic.gone);
        }
        *panic.done.lock() = true;
        panic.ended.notify_all();
    }
    if term::terminated() {
        let mut terms = WATCH.lock().armed.clone();
        terms.retain(|standing| standing.terms);
        for standing in &terms {
            let until = clock::deadline(standing.patience);
            attend(standing, LAST_AT_SIGTERM, until, &AtomicBool::new(false));
        }
        term::pass_on();
    }
}

/// Saves for one, if it is still armed.
fn attend(standing: &Standing, label: &'static str, until: Instant, gone: &AtomicBool) {
    {
        let mut watch = WATCH.lock();
        if !watch.armed.iter().any(|s| s.number == standing.number) {
            return;
        }
        watch.saving = Some(standing.number);
    }
    standing.last.save(label, until, gone);
    WATCH.lock().saving = None;
    SAVED.notify_all();
}

/// The hook: has the snapshots made, and waits for them a while.
fn on_panic() {
    let own = ON_DUTY.try_with(Cell::get).unwrap_or(false);
    let guarded = GUARDED.try_with(Cell::get).unwrap_or(0) > 0;
    if own || guarded || os::forked() {
        return;
    }
    let (panic, patience) = {
        let mut watch = WATCH.lock();
        let concerned = |s: &&Standing| s.panics && !s.last.is_inside();
        let standing: Vec<Standing> = watch.armed.iter().filter(concerned).cloned().collect();
        let Some(patience) = standing.iter().map(|s| s.patience).max() else { return };
        let (gone, done) = (AtomicBool::new(false), Mutex::new(false));
        let panic = Arc::new(Panic { standing, gone, done, ended: Condvar::new() });
        watch.asked.push_back(panic.clone());
        (panic, patience)
    };
    if term::ring().is_err() {
        return;
    }
    let mut done = panic.done.lock();
    let until = clock::deadline(patience);
    while !*done && !panic.ended.wait_until(&mut done, until).timed_out() {}
    // Relaxed: seen late, a snapshot is begun that nobody waits for.
    panic.gone.store(true, Ordering::Relaxed);
}

/// A way to save some state, whatever its type.
trait Last: Send + Sync {
    /// This thread is inside the engine that would save it.
    fn is_inside(&self) -> bool;

    /// Asks for the state until it is lent, or `until`, or `gone`; saves, labels and flushes it.
    fn save(&self, label: &'static str, until: Instant, gone: &AtomicBool);
}

struct Lent<T: Snapshot, F> {
    engine: Weak<Engine>,
    lend: F,
    state: std::marker::PhantomData<fn(&T)>,
}

impl<T: Snapshot, F: Fn(&mut dyn FnMut(&T)) + Send + Sync> Last for Lent<T, F> {
    fn is_inside(&self) -> bool {
        save::is_inside(self.engine.as_ptr().addr())
    }

    fn save(&self, label: &'static str, until: Instant, gone: &AtomicBool) {
        let Some(engine) = self.engine.upgrade().filter(|engine| !engine.flusher.is_stopped())
        else {
            return;
        };
        let mut saved = None;
        let lent = loop {
            let lent = catch_unwind(AssertUnwindSafe(|| {
                (self.lend)(&mut |state| {
                    saved.get_or_insert_with(|| engine.save(state));
                });
            }));
            // Relaxed: see `on_panic`.
            let over = Instant::now() >= until || gone.load(Ordering::Relaxed);
            if saved.is_some() || lent.is_err() || over {
                break lent;
            }
            thread::sleep(AGAIN);
        };
        let told = match (saved, lent) {
            (Some(Ok(id)), _) => finish(&engine, id, label),
            (Some(Err(error)), _) => Err(error.to_string()),
            (None, Ok(())) => Err("the state was not lent; is its lock held?".to_owned()),
            (None, Err(payload)) => {
                let message = panic_message(&*payload);
                // It may panic again when it is dropped.
                std::mem::forget(payload);
                Err(format!("lending the state panicked: {message}"))
            }
        };
        engine.listeners.tell(|| match told {
            Ok(id) => Event::LastSaved { id, label },
            Err(why) => Event::Failed { message: format!("no snapshot {label:?}: {why}") },
        });
    }
}

/// Labels the last snapshot, and sees it to the disk where that is promised.
fn finish(engine: &Engine, id: SnapshotId, label: &str) -> Result<SnapshotId, String> {
    let kept = engine.keep(id, label);
    if engine.flusher.syncs() {
        engine.flush_upto(id.get()).map_err(|error| format!("it is {id}, but {error}"))?;
    }
    kept.map_err(|error| format!("it is {id}, without its label: {error}"))?;
    Ok(id)
}

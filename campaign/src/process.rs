//! Children: forked, watched, killed, waited for; and the pages that they share with their parent.
//!
//! The parent opens no caretaker and has no second thread, so that a forked child may do as it likes:
//! that is what makes a life cost a millisecond.

use std::{
    any::Any,
    cell::RefCell,
    io,
    ops::Deref,
    os::fd::AsRawFd as _,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use libc::{c_int, pid_t};

/// This process is a forked child: its panics are for its parent.
static CHILD: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The last panic of this thread, with its place.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What ends a child that panicked, where it did not say so on a board.
const PANICKED: i32 = 101;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Exit(i32),
    Signal(i32),
}

/// A forked child; killed when dropped.
#[derive(Debug)]
pub(crate) struct Forked {
    pid: pid_t,
    ended: Option<End>,
}

/// Keeps panics of children off the terminal, and remembers them.
pub(crate) fn hush_children() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Relaxed: set once, by the thread that forked.
        if CHILD.load(Ordering::Relaxed) {
            // May come while the thread ends.
            _ = PANIC.try_with(|panic| *panic.borrow_mut() = info.to_string());
        } else {
            loud(info);
        }
    }));
}

/// Runs `f`; what it panicked with, as an error.
pub(crate) fn caught<R>(f: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| Err(text_of(&panic)))
}

fn text_of(panic: &Box<dyn Any + Send>) -> String {
    let noted = PANIC.with(|panic| panic.borrow().clone());
    let said = panic.downcast_ref::<String>().cloned();
    let said = said.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
    if noted.is_empty() { said.unwrap_or_else(|| "a panic".to_owned()) } else { noted }
}

/// Forks; the child runs `f`, ends with its answer, and dies with its parent.
pub(crate) fn fork(f: impl FnOnce() -> i32) -> Forked {
    // SAFETY: this process has one thread (see the head of this file), so the child may do anything.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
    if pid == 0 {
        CHILD.store(true, Ordering::Relaxed);
        // SAFETY: asks for a signal at the parent's death.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a whole structure, read by the call alone: no core files.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
        let code = catch_unwind(AssertUnwindSafe(f)).unwrap_or(PANICKED);
        exit(code);
    }
    Forked { pid, ended: None }
}

/// What this process says on its way down is for nobody, and takes no time. For a child that has
/// just been forked.
pub(crate) fn be_silent() {
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var("RUST_BACKTRACE", "0") };
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        // SAFETY: two open descriptors of this process.
        unsafe { libc::dup2(null.as_raw_fd(), libc::STDERR_FILENO) };
    }
}

/// Ends this process, at once.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: ends this process; what else is in it belongs to the parent.
    unsafe { libc::_exit(code) }
}

impl Forked {
    pub(crate) fn pid(&self) -> pid_t {
        self.pid
    }

    /// Kill -9, and wait until it is gone.
    pub(crate) fn kill(&mut self) -> End {
        if self.ended.is_none() {
            self.signal(libc::SIGKILL);
        }
        self.wait()
    }

    pub(crate) fn signal(&self, signal: c_int) {
        // SAFETY: a child of this process that nobody has waited for.
        unsafe { libc::kill(self.pid, signal) };
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> End {
        while self.ended.is_none() {
            if let Some((_, status)) = wait_for(self.pid, 0) {
                self.note(status);
            }
        }
        self.ended.unwrap_or(End::Exit(0))
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<End> {
        if self.ended.is_none()
            && let Some((_, status)) = wait_for(self.pid, libc::WNOHANG)
        {
            self.note(status);
        }
        self.ended
    }

    /// Waits until it has ended, but no longer than `limit`: then it is killed. Time for which this
    /// process itself did not run, since it was stopped, does not count.
    pub(crate) fn wait_or_kill(&mut self, limit: Duration) -> Option<End> {
        let (mut waited, mut last) = (Duration::ZERO, std::time::Instant::now());
        while waited < limit {
            if let Some(end) = self.ended() {
                return Some(end);
            }
            nap(Duration::from_micros(50));
            waited += last.elapsed().min(Duration::from_secs(1));
            last = std::time::Instant::now();
        }
        self.kill();
        None
    }

    /// Takes in what a wait has told.
    pub(crate) fn note(&mut self, status: c_int) {
        if libc::WIFEXITED(status) {
            self.ended = Some(End::Exit(libc::WEXITSTATUS(status)));
        } else if libc::WIFSIGNALED(status) {
            self.ended = Some(End::Signal(libc::WTERMSIG(status)));
        }
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for a child (or a thread of one that is traced); `None` if nothing is to be told.
pub(crate) fn wait_for(pid: pid_t, flags: c_int) -> Option<(pid_t, c_int)> {
    let mut status = 0;
    // SAFETY: a place for the status.
    let told = unsafe { libc::waitpid(pid, &mut status, flags) };
    (told > 0).then_some((told, status))
}

/// Sleeps about that long, without the kernel's usual slack.
pub(crate) fn nap(time: Duration) {
    if !time.is_zero() {
        std::thread::sleep(time);
    }
}

/// Makes short sleeps short.
pub(crate) fn sleep_exactly() {
    // SAFETY: sets this thread's timer slack to a nanosecond; children inherit it.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_usize) };
}

/// Types that are whole when all their bytes are zero, and that may be shared.
///
/// # Safety
///
/// All-zero bytes are a value, and every access through `&Self` is atomic.
pub(crate) unsafe trait Zeroed: Sync {}

/// A value in pages that forked children share with their parent.
#[derive(Debug)]
pub(crate) struct Shared<T: Zeroed>(NonNull<T>);

impl<T: Zeroed> Shared<T> {
    pub(crate) fn new() -> Shared<T> {
        let (prot, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: new pages at an address of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<T>(), prot, flags, -1, 0) };
        assert!(at != libc::MAP_FAILED, "shared pages: {}", io::Error::last_os_error());
        Shared(NonNull::new(at.cast()).unwrap_or_else(|| unreachable!("never mapped at zero")))
    }
}

impl<T: Zeroed> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: mapped, page-aligned, zeroed by the kernel, which is a value of a `Zeroed` type;
        // others change it by atomics alone; unmapped only when dropped.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Zeroed> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, with this size; no reference outlives `self`.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<T>()) };
    }
}

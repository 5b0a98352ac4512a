//! SIGTERM as something that a thread can wait for, and a bell that wakes that thread.
//!
//! The handler does what a handler may: two stores and a write to an eventfd. What follows happens
//! on the waiting thread. The action that was there before is kept, and passed on to at the end.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
};

use parking_lot::Mutex;
use rustix::{event::EventfdFlags, io::Errno};

/// The bell's descriptor, for the handler; -1 before there is one.
static BELL: AtomicI32 = AtomicI32::new(-1);
/// A SIGTERM has come since the last [`terminated`].
static TERMINATED: AtomicBool = AtomicBool::new(false);
/// What SIGTERM did before [`catch`]; `None` while it is not caught.
static BEFORE: Mutex<Option<Action>> = Mutex::new(None);

struct Action(libc::sigaction);

// SAFETY: what is in it are an address of code, flags and a mask: any thread may pass them back to
// the system.
unsafe impl Send for Action {}

/// The bell, made when it is first asked for; never closed.
fn bell() -> io::Result<BorrowedFd<'static>> {
    static MADE: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(bell) = MADE.get() {
        return Ok(borrow(bell));
    }
    let new = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
    let bell = MADE.get_or_init(|| new);
    // Release: met by the Acquire in `on_signal`; the descriptor is open for good.
    BELL.store(bell.as_raw_fd(), Ordering::Release);
    Ok(borrow(bell))
}

fn borrow(fd: &'static OwnedFd) -> BorrowedFd<'static> {
    std::os::fd::AsFd::as_fd(fd)
}

/// Wakes whoever waits.
pub(crate) fn ring() -> io::Result<()> {
    rustix::io::write(bell()?, &1_u64.to_ne_bytes())?;
    Ok(())
}

/// Returns when the bell has been rung since the last time.
pub(crate) fn wait() -> io::Result<()> {
    let bell = bell()?;
    loop {
        match rustix::io::read(bell, &mut [0_u8; 8]) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Whether a SIGTERM has come since this was last asked.
pub(crate) fn terminated() -> bool {
    // Acquire: met by the Release in `on_signal`.
    TERMINATED.swap(false, Ordering::Acquire)
}

/// The handler: notes the signal and rings.
extern "C" fn on_signal(_: libc::c_int) {
    if super::forked() {
        // The bell is the parent's; this process goes the way it would without us.
        // SAFETY: a struct of integers and an address, for which zero is a value: the default.
        let default: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: a whole action, and no room asked for the old one.
        unsafe { libc::sigaction(libc::SIGTERM, &default, std::ptr::null_mut()) };
        // SAFETY: takes a number; it is delivered when this handler returns.
        unsafe { libc::raise(libc::SIGTERM) };
        return;
    }
    // Release: met by the Acquire in `terminated`.
    TERMINATED.store(true, Ordering::Release);
    // Acquire: met by the Release in `bell`.
    let bell = BELL.load(Ordering::Acquire);
    // SAFETY: the thread's own error number, which the interrupted code may be about to look at.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: always a valid address in this thread.
    let before = unsafe { *errno };
    let one = 1_u64;
    // SAFETY: eight bytes of our own; `write` may be called in a handler. The descriptor stays open.
    unsafe { libc::write(bell, (&raw const one).cast(), size_of::<u64>()) };
    // SAFETY: as above.
    unsafe { *errno = before };
}

fn handler() -> libc::sighandler_t {
    on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t
}

fn swap(new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    // SAFETY: a struct of integers and an address, for which zero is a value.
    let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: a whole action or none, and room for the old one.
    match unsafe { libc::sigaction(libc::SIGTERM, new, &mut old) } {
        0 => Ok(old),
        _ => Err(io::Error::last_os_error()),
    }
}

/// From here on a SIGTERM rings the bell.
pub(crate) fn catch() -> io::Result<()> {
    bell()?;
    // A child of this process must be able to tell, in the handler, without making anything.
    super::forked();
    let mut before = BEFORE.lock();
    if before.is_none() {
        // SAFETY: as in `swap`.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler();
        // Calls that the signal interrupts go on by themselves.
        action.sa_flags = libc::SA_RESTART;
        *before = Some(Action(swap(Some(&action))?));
    }
    Ok(())
}

/// SIGTERM does again what it did before [`catch`]. `false`, and no change, where somebody else
/// has taken it since.
pub(crate) fn let_go() -> bool {
    let Some(Action(before)) = BEFORE.lock().take() else { return false };
    swap(None).is_ok_and(|now| now.sa_sigaction == handler()) && swap(Some(&before)).is_ok()
}

/// Lets go, then sends this process the SIGTERM that was caught. Returns where that does not end
/// it: the action before was somebody's own, or somebody has put another in front of ours, who has
/// had the signal then.
pub(crate) fn pass_on() {
    if let_go() {
        // SAFETY: takes a number.
        unsafe { libc::raise(libc::SIGTERM) };
    }
}

/// This thread takes SIGTERM, even where all others have it blocked.
pub(crate) fn unblock() {
    // SAFETY: a set of bits, for which zero is a value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: our own set.
    unsafe { libc::sigemptyset(&mut set) };
    // SAFETY: our own set, and a signal's number.
    unsafe { libc::sigaddset(&mut set, libc::SIGTERM) };
    // SAFETY: a whole set, and no room asked for the old one.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut()) };
}

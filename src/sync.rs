#![forbid(unsafe_code)]
//! The atomics of the reader protocol, the engine's locks, and what tells threads apart: the
//! system's, or a model checker's. loom sees the atomics alone; shuttle all of it.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
#[cfg(not(shuttle))]
pub(crate) use std::thread::{ThreadId, current};

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread::{ThreadId, current},
};

#[cfg(shuttle)]
pub(crate) use crate::shuttle_locks::{Condvar, Mutex, MutexGuard};

/// How a look at a place is ended: Release, met by a SeqCst load. loom lets a SeqCst load pass over
/// a SeqCst store to an older one that is not, which the language rules out; there it is SeqCst, and
/// a model of its own shows that Release will do.
#[cfg(not(loom))]
pub(crate) const LET_GO: Ordering = Ordering::Release;

#[cfg(loom)]
pub(crate) const LET_GO: Ordering = Ordering::SeqCst;

/// A word at zero. Under loom stored by SeqCst, for the same reason.
pub(crate) fn zero() -> AtomicU64 {
    let word = AtomicU64::new(0);
    #[cfg(loom)]
    word.store(0, Ordering::SeqCst);
    word
}

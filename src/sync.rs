#![forbid(unsafe_code)]
//! The atomics of the reader protocol: std's, or loom's when the protocol is being model-checked.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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

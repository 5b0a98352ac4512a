#![forbid(unsafe_code)]
//! [`Stamp`]: what tells one content of a page from every other, in any process and at any time.
//!
//! Sixty-four random bits for each process, drawn anew in a forked child, and a counter. Equal stamps
//! mean equal content; nothing follows from different ones.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use crate::os;

/// The name of one content of a page or of a chunk of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Stamp(u128);

impl Stamp {
    /// One that nothing has had before.
    pub(crate) fn next() -> Stamp {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: only that no two are equal matters.
        let count = NEXT.fetch_add(1, Ordering::Relaxed);
        Stamp(u128::from(origin()) << 64 | u128::from(count))
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Stamp {
        Stamp(u128::from_le_bytes(bytes))
    }
}

/// This process's half. A forked child counts on from the same number as its parent, and so draws
/// for itself; it draws once, since its own child is told apart from nobody by `forked`, and is
/// refused by every caretaker anyway.
fn origin() -> u64 {
    static OURS: OnceLock<u64> = OnceLock::new();
    static CHILDS: OnceLock<u64> = OnceLock::new();
    let drawn = if os::forked() { &CHILDS } else { &OURS };
    *drawn.get_or_init(draw)
}

fn draw() -> u64 {
    // Where the kernel has no random bytes to give, the clock and an address that moves with each
    // start tell processes apart.
    let drawn = os::random_id().map_or_else(|_| fallback(), |id| u128::from_le_bytes(id) as u64);
    drawn.max(1)
}

fn fallback() -> u64 {
    let here = std::ptr::from_ref(&fallback_anchor).addr() as u64;
    os::wall_clock() ^ here.rotate_left(32) ^ u64::from(std::process::id()) << 40
}

#[expect(non_upper_case_globals, reason = "an address, and nothing else")]
static fallback_anchor: u8 = 0;

//! The allocator of this program: the system's, of which one call can be told to fail.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU64, Ordering},
};

/// Fails once, when it is told to.
struct Failing;

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// Calls until the one that fails, that one included; zero: none does.
static LEFT: AtomicU64 = AtomicU64::new(0);

/// From now on the allocation after `after` others fails, once, whatever thread it is of.
pub(crate) fn fail_after(after: u64) {
    // Relaxed: this thread's own allocations are what is meant; others meet it as they come.
    LEFT.store(after + 1, Ordering::Relaxed);
}

/// No allocation fails any more. `true` if one was still to.
pub(crate) fn fail_no_more() -> bool {
    // Relaxed: as above.
    LEFT.swap(0, Ordering::Relaxed) > 0
}

fn fails() -> bool {
    // Relaxed: as above. Two threads at once may both pass; the next one fails.
    match LEFT.load(Ordering::Relaxed) {
        0 => false,
        1 => {
            LEFT.store(0, Ordering::Relaxed);
            true
        }
        left => {
            LEFT.store(left - 1, Ordering::Relaxed);
            false
        }
    }
}

// SAFETY: the system's allocator, but for answers of null, which are allowed at any time.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if fails() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if fails() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise is the same.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(at, layout) }
    }
}

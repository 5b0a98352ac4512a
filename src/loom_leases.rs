//! The lease protocol, model-checked: a reader in another process beside a writer that uses places
//! again. Run by `scripts/loom.sh`.
//!
//! The kernel's list of locks is a loom mutex with a flag beside it, since the kernel looks at an
//! empty list without its lock; a record is its seal, a loom atomic; a place's bytes are a loom cell,
//! which reports a read beside a write. The fences are those of `lease.rs`.
//!
//! Each `mutant_` test breaks one rule and must fail.

use loom::{
    cell::Cell,
    model::Builder,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    thread,
};

/// One place's bytes.
struct Bytes(Cell<u64>);

// SAFETY: loom checks each access of the cell against all others.
unsafe impl Sync for Bytes {}
// SAFETY: a number.
unsafe impl Send for Bytes {}

/// What two processes share, for one place.
struct Shared {
    /// The kernel's: how many leases the place has, and whether its list has any entry.
    leases: Mutex<u64>,
    any: AtomicBool,
    /// The record: the id that is sealed, or zero.
    seal: AtomicU64,
    bytes: Bytes,
}

/// Which rule is broken, if any.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    None,
    LooksBeforeItLeases,
    UsesALeasedPlace,
    AsksBeforeItUnseals,
    BelievesTheHint,
    ReaderWithoutFence,
    WriterWithoutFence,
    GivesBackBeforeItHasRead,
}

impl Shared {
    fn new() -> Shared {
        let shared = Shared {
            leases: Mutex::new(0),
            any: AtomicBool::new(false),
            seal: AtomicU64::new(0),
            bytes: Bytes(Cell::new(0)),
        };
        shared.bytes.0.set(1);
        shared.seal.store(1, Ordering::Release);
        shared
    }

    /// The system call: the list changes under the kernel's lock, and whether it is empty can be
    /// seen without.
    fn lock(&self) {
        let mut leases = self.leases.lock().expect("no panic");
        *leases += 1;
        self.any.store(true, Ordering::Relaxed);
    }

    fn unlock(&self) {
        let mut leases = self.leases.lock().expect("no panic");
        *leases -= 1;
        self.any.store(*leases > 0, Ordering::Release);
    }

    fn is_locked(&self) -> bool {
        // Acquire: who finds the list empty has the reads of those who left it behind.
        self.any.load(Ordering::Acquire) && *self.leases.lock().expect("no panic") > 0
    }

    /// A reader that has heard of snapshot 1.
    fn read(&self, broken: Broken) {
        let early = self.seal.load(Ordering::Acquire);
        self.lock();
        if broken != Broken::ReaderWithoutFence {
            fence(Ordering::SeqCst);
        }
        let sealed = match broken {
            Broken::LooksBeforeItLeases => early,
            Broken::BelievesTheHint => 1,
            _ => self.seal.load(Ordering::Acquire),
        };
        if broken == Broken::GivesBackBeforeItHasRead {
            self.unlock();
        }
        if sealed == 1 {
            assert_eq!(self.bytes.0.get(), 1, "P1: the bytes of another one");
        }
        if broken != Broken::GivesBackBeforeItHasRead {
            self.unlock();
        }
    }

    /// A writer that unlists snapshot 1 and wants its place.
    fn write(&self, broken: Broken) {
        let early = self.is_locked();
        self.seal.store(0, Ordering::Release);
        if broken != Broken::WriterWithoutFence {
            fence(Ordering::SeqCst);
        }
        let leased = match broken {
            Broken::AsksBeforeItUnseals => early,
            Broken::UsesALeasedPlace => false,
            _ => self.is_locked(),
        };
        if !leased {
            self.bytes.0.set(2);
            self.seal.store(2, Ordering::Release);
        }
    }
}

/// A writer beside this many readers, in every interleaving.
fn check(readers: usize, broken: Broken) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(4);
    builder.check(move || {
        let shared = Arc::new(Shared::new());
        let readers: Vec<_> = (0..readers)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || shared.read(broken))
            })
            .collect();
        shared.write(broken);
        for reader in readers {
            reader.join().expect("no panic");
        }
    });
}

#[test]
fn a_lease_beside_a_place_used_again() {
    check(1, Broken::None);
}

#[test]
fn two_leases_beside_a_place_used_again() {
    check(2, Broken::None);
}

#[test]
#[should_panic]
fn mutant_reader_that_looks_before_it_leases() {
    check(1, Broken::LooksBeforeItLeases);
}

#[test]
#[should_panic]
fn mutant_reader_that_believes_the_hint() {
    check(1, Broken::BelievesTheHint);
}

#[test]
#[should_panic]
fn mutant_reader_without_a_fence() {
    check(1, Broken::ReaderWithoutFence);
}

#[test]
#[should_panic]
fn mutant_reader_that_gives_back_before_it_has_read() {
    check(1, Broken::GivesBackBeforeItHasRead);
}

#[test]
#[should_panic]
fn mutant_writer_that_uses_a_leased_place() {
    check(1, Broken::UsesALeasedPlace);
}

#[test]
#[should_panic]
fn mutant_writer_that_asks_before_it_unseals() {
    check(1, Broken::AsksBeforeItUnseals);
}

#[test]
#[should_panic]
fn mutant_writer_without_a_fence() {
    check(1, Broken::WriterWithoutFence);
}

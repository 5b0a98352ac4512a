//! What happened, for whoever asked to be told: bounded queues, so that a slow listener costs
//! itself events and nobody else anything.
//!
//! The list of listeners changes rarely and is looked at by every save: readers walk it under an
//! epoch, and a replaced list is retired to the epoch's collector.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_epoch::{self as epoch, Atomic, Owned};
use parking_lot::{Condvar, Mutex};

use crate::id::SnapshotId;

/// Something that happened to a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A snapshot was published.
    Saved {
        /// The new head.
        id: SnapshotId,
    },
    /// A rollback was published.
    RolledBack {
        /// The new head.
        id: SnapshotId,
        /// What was the head before.
        from: Option<SnapshotId>,
        /// The snapshot whose state is current again.
        to: SnapshotId,
    },
    /// A snapshot left the ring.
    Evicted {
        /// Which.
        id: SnapshotId,
    },
    /// Every listed snapshot up to this one is on the disk.
    Durable {
        /// The newest of them.
        id: SnapshotId,
    },
    /// A snapshot found at opening did not pass, and is not listed any more.
    Rejected {
        /// Which.
        id: SnapshotId,
        /// File, place and what is wrong.
        reason: String,
    },
    /// Memory was short: old snapshots' bytes were let go of, to be read from the disk again by
    /// whoever looks at them.
    Trimmed {
        /// How many.
        bytes: u64,
    },
    /// A last snapshot was published on the way down; see
    /// [`Caretaker::farewell`](crate::Caretaker::farewell).
    LastSaved {
        /// Which.
        id: SnapshotId,
        /// What it is kept under.
        label: &'static str,
    },
    /// The ring has been handed over: nothing follows here.
    HandedOver {
        /// The process that has it now.
        process: u32,
    },
    /// Something in the background failed; the same is told by `flush` and `close`.
    Failed {
        /// What, in words.
        message: String,
    },
    /// This listener was slow: so many events were dropped here.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// Events that wait for one listener.
const QUEUE: usize = 1024;

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<Waiting>,
    filled: Condvar,
    /// The listener has gone.
    deaf: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    missed: u64,
    ended: bool,
}

/// A listener's end: an iterator that waits for the next event and ends when the caretaker does.
/// Holds at most 1024 events; beyond those, [`Event::Lagged`] tells how many were dropped, at the
/// point where they are missing.
#[derive(Debug)]
pub struct Events(Arc<Queue>);

impl Events {
    /// The next event, if one is waiting.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.state.lock().take()
    }

    /// The next event, waiting for it at most so long. `None` after that, or after the end.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Event> {
        // Too long to tell is for ever.
        let Some(until) = Instant::now().checked_add(timeout) else { return self.next() };
        let mut state = self.0.state.lock();
        loop {
            if let Some(event) = state.take() {
                return Some(event);
            }
            if state.ended || self.0.filled.wait_until(&mut state, until).timed_out() {
                return state.take();
            }
        }
    }
}

impl Waiting {
    fn push(&mut self, event: &Event) {
        if self.events.len() >= QUEUE {
            self.missed += 1;
            return;
        }
        // What was dropped was dropped here: after what waits, before this one.
        if let Some(lagged) = self.lagged() {
            self.events.push_back(lagged);
        }
        self.events.push_back(event.clone());
    }

    fn take(&mut self) -> Option<Event> {
        self.events.pop_front().or_else(|| self.lagged())
    }

    fn lagged(&mut self) -> Option<Event> {
        let missed = std::mem::take(&mut self.missed);
        (missed > 0).then_some(Event::Lagged { missed })
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let mut state = self.0.state.lock();
        loop {
            if let Some(event) = state.take() {
                return Some(event);
            }
            if state.ended {
                return None;
            }
            self.0.filled.wait(&mut state);
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // Relaxed: a listener seen too late costs a push into a queue that nobody reads.
        self.0.deaf.store(true, Ordering::Relaxed);
    }
}

/// Everybody who listens.
#[derive(Debug)]
pub(crate) struct Listeners {
    list: Atomic<Vec<Arc<Queue>>>,
    /// Length of the list: a save that nobody listens to pays one load.
    len: AtomicUsize,
    /// Serialises changes to the list.
    changing: Mutex<()>,
}

impl Listeners {
    pub(crate) fn new() -> Listeners {
        Listeners {
            list: Atomic::new(Vec::new()),
            len: AtomicUsize::new(0),
            changing: Mutex::new(()),
        }
    }

    pub(crate) fn subscribe(&self) -> Events {
        let queue = Arc::new(Queue::default());
        self.replace(|list| list.push(queue.clone()));
        Events(queue)
    }

    /// Puts a changed copy of the list in place of the old one, without the deaf; the old one is
    /// retired to the epoch's collector.
    fn replace(&self, change: impl FnOnce(&mut Vec<Arc<Queue>>)) {
        let _changing = self.changing.lock();
        let mut list = self.with(<[_]>::to_vec);
        // Relaxed: see `Events::drop`.
        list.retain(|queue| !queue.deaf.load(Ordering::Relaxed));
        change(&mut list);
        // Relaxed: a listener that subscribes at this moment may miss the event of this moment.
        self.len.store(list.len(), Ordering::Relaxed);
        let guard = epoch::pin();
        // AcqRel: releases the new list to the load in `with`, and acquires the old one.
        let old = self.list.swap(Owned::new(list), Ordering::AcqRel, &guard);
        // SAFETY: the swap made `old` unreachable for those who pin from now on, and `changing`
        // lets nobody else retire it.
        unsafe { guard.defer_destroy(old) };
    }

    /// Runs `f` on the list, under an epoch.
    fn with<R>(&self, f: impl FnOnce(&[Arc<Queue>]) -> R) -> R {
        let guard = epoch::pin();
        // Acquire: met by the swap in `replace`.
        let list = self.list.load(Ordering::Acquire, &guard);
        // SAFETY: never null, and not destroyed while `guard` is pinned.
        f(unsafe { list.deref() })
    }

    /// Whether anybody listens.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        // Relaxed: see `replace`.
        self.len.load(Ordering::Relaxed) > 0
    }

    /// Tells everybody. Costs a load where nobody listens.
    #[inline]
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if self.any() {
            self.tell_all(&event());
        }
    }

    #[cold]
    fn tell_all(&self, event: &Event) {
        let deaf = self.with(|list| {
            for queue in list {
                queue.state.lock().push(event);
                queue.filled.notify_one();
            }
            // Relaxed: see `Events::drop`.
            list.iter().any(|queue| queue.deaf.load(Ordering::Relaxed))
        });
        if deaf {
            self.replace(|_| {});
        }
    }

    /// The caretaker is gone: listeners get what waits, then the end.
    pub(crate) fn end(&self) {
        self.with(|list| {
            for queue in list {
                queue.state.lock().ended = true;
                queue.filled.notify_all();
            }
        });
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        let list = std::mem::replace(&mut self.list, Atomic::null());
        // SAFETY: `&mut self`: nobody else has the list any more, and it is never null.
        drop(unsafe { list.into_owned() });
    }
}

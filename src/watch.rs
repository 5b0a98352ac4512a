#![forbid(unsafe_code)]
//! Giving leases back: at the end of a read, when a memento goes, and by a thread that watches where
//! nobody comes to read.
//!
//! Knows when; what is still needed is for `follower.rs` to find out.

use std::{
    sync::atomic::{Ordering, fence},
    time::Duration,
};

use crate::{
    follower::{Desk, Follower},
    header::WAKE_AT,
};

/// The longest sleep without a look at the file, should the writer have no thread to wake others.
pub(crate) const NAP: Duration = Duration::from_millis(100);

impl Follower {
    /// Something has been read, and may not be needed any more. Costs four loads while nothing
    /// changes.
    #[inline]
    pub(crate) fn tidy(&self) {
        // SeqCst, behind the swing of the head: partner of the fence in `watch`.
        let unwatched = !self.watched.load(Ordering::SeqCst);
        if unwatched || self.others.load(Ordering::Relaxed) || self.is_behind() {
            self.tidy_now();
        }
    }

    #[cold]
    pub(crate) fn tidy_now(&self) {
        let Some(mut desk) = self.desk.try_lock() else {
            // Who has the lock may have swept already.
            self.missed.store(true, Ordering::Relaxed);
            return self.ring_bell();
        };
        self.let_go(&mut desk);
        drop(desk);
        if !self.watched.load(Ordering::SeqCst) && !self.ring.head().is_none() {
            self.ring_bell();
        }
    }

    /// Gives back what is not needed: a head that is not the newest any more saves nobody anything.
    fn let_go(&self, desk: &mut Desk) {
        let head = self.ring.head();
        if self.is_behind() && !head.is_none() {
            self.ring.vacate(head);
        }
        self.sweep(desk);
    }

    fn ring_bell(&self) {
        let _bell = self.bell.lock();
        self.rung.notify_one();
    }

    /// The watch: a thread that gives the head's lease back when it is not the newest any more and
    /// nobody comes to read. Otherwise many readers that rarely read would hold as many places.
    pub(crate) fn watch(&self) {
        loop {
            {
                let mut stop = self.bell.lock();
                loop {
                    if *stop {
                        return;
                    }
                    self.watched.store(false, Ordering::SeqCst);
                    // SeqCst: between the flag and the look; partner of the load in `tidy`, which
                    // comes after the head was swung.
                    fence(Ordering::SeqCst);
                    if !self.ring.head().is_none() || self.missed.load(Ordering::Relaxed) {
                        self.watched.store(true, Ordering::SeqCst);
                        break;
                    }
                    self.rung.wait(&mut stop);
                }
            }
            let window = &self.sight.windows[0];
            let seen = window.wake(WAKE_AT);
            if !self.is_behind() && !self.missed.load(Ordering::Relaxed) {
                window.wait(WAKE_AT, seen, NAP);
            }
            if self.is_behind() || self.missed.swap(false, Ordering::Relaxed) {
                self.let_go(&mut self.desk.lock());
            }
        }
    }

    /// Nobody reads any more: the watch ends, and mementos alone keep leases.
    pub(crate) fn end(&self) {
        *self.bell.lock() = true;
        self.rung.notify_one();
        self.sight.windows[0].rouse(WAKE_AT);
        let mut desk = self.desk.lock();
        let head = self.ring.head();
        if !head.is_none() {
            self.ring.vacate(head);
        }
        self.sweep(&mut desk);
    }
}

#![forbid(unsafe_code)]
//! Tells other processes what is new: a thread beside each caretaker of a directory, which wakes
//! those who wait for the next snapshot. So no save makes a system call for their sake, and many
//! saves are one wake.
//!
//! While no reader is there it looks four times a second whether one has come. It does not keep the
//! engine: it ends with the caretaker.

use std::{
    sync::{Arc, Weak},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::engine::Engine;

/// Between two looks for readers.
const LOOK: Duration = Duration::from_millis(250);
/// Between two looks at the word that saves move, while a reader is there.
const BRISK: Duration = Duration::from_millis(1);
/// The same, when nothing has been saved for a while.
const QUIET: Duration = Duration::from_millis(5);
const QUIET_AFTER: Duration = Duration::from_secs(1);

/// The thread, ended by [`end`](Herald::end).
#[derive(Debug)]
pub(crate) struct Herald {
    thread: JoinHandle<()>,
    stop: Arc<(Mutex<bool>, Condvar)>,
}

impl Herald {
    /// Starts one, where there can be readers in other processes.
    pub(crate) fn start(engine: &Arc<Engine>) -> std::io::Result<Option<Herald>> {
        if engine.leases.is_none() {
            return Ok(None);
        }
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (engine, stopped) = (Arc::downgrade(engine), stop.clone());
        let thread = std::thread::Builder::new()
            .name("snapring-herald".to_owned())
            .spawn(move || run(&engine, &stopped))?;
        Ok(Some(Herald { thread, stop }))
    }

    /// Ends it; the last news is told first.
    pub(crate) fn end(self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_one();
        // It does not panic; if it did, there would be nothing to wait for.
        _ = self.thread.join();
    }

    /// In a forked child, which has no such thread.
    pub(crate) fn forget(self) {
        std::mem::forget(self);
    }
}

fn run(engine: &Weak<Engine>, stop: &(Mutex<bool>, Condvar)) {
    let mut told = 0;
    let mut present = false;
    let (mut looked, mut moved) = (None::<Instant>, Instant::now());
    loop {
        let stopped = {
            let mut stop_now = stop.0.lock();
            let pause = match present {
                false => LOOK,
                true if moved.elapsed() < QUIET_AFTER => BRISK,
                true => QUIET,
            };
            // Not before the first look.
            if !*stop_now && looked.is_some() {
                stop.1.wait_for(&mut stop_now, pause);
            }
            *stop_now
        };
        let Some(engine) = engine.upgrade() else { return };
        if stopped || looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            present = engine.has_readers();
            looked = Some(Instant::now());
        }
        if present && engine.wake_word() != told {
            told = engine.wake_word();
            engine.wake_readers();
            moved = Instant::now();
        }
        if stopped {
            return;
        }
    }
}

#![forbid(unsafe_code)]
//! What is done when memory is short: the memory under old snapshots that are on the disk is let go
//! of. Their bytes stay where they are, and whoever looks has them read from there.
//!
//! Knows what the kernel says of memory. Which pages go, and that they may, is for the engine.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    engine::{Engine, State},
    events::Event,
    file::BLOCK,
};

/// How often the kernel is asked, while there is something to let go of.
const EVERY: Duration = Duration::from_secs(2);

/// The share of the last ten seconds, in percent, in which something waited for memory, from which
/// on it counts as short.
const SHORT: f32 = 10.0;

/// The newest snapshots keep their memory: they are what is read and rolled back to.
const SPARED: usize = 2;

/// Where the kernel tells, and when it was asked last.
#[derive(Debug)]
pub(crate) struct Pressure {
    path: PathBuf,
    asked: Option<Instant>,
}

impl Default for Pressure {
    fn default() -> Pressure {
        Pressure { path: PathBuf::from("/proc/pressure/memory"), asked: None }
    }
}

impl Pressure {
    /// Whether memory is short. Where the kernel does not tell, it never is.
    fn is_high(&self) -> bool {
        std::fs::read_to_string(&self.path).is_ok_and(|text| share(&text) >= Some(SHORT))
    }
}

/// The share of the last ten seconds in a text such as `some avg10=1.50 avg60=..`.
fn share(text: &str) -> Option<f32> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    let value = line.split(' ').find_map(|part| part.strip_prefix("avg10="))?;
    value.parse().ok()
}

impl Engine {
    /// Looks whether memory is short, and lets go of what is not needed if it is; answers in how long
    /// to look again.
    pub(crate) fn relieve(&self, pressure: &mut Pressure) -> Option<Duration> {
        if self.storage.as_ref().is_none_or(|storage| storage.in_memory()) {
            return None;
        }
        if let Some(asked) = pressure.asked
            && asked.elapsed() < EVERY
        {
            return self.lock().any_to_forget().then(|| EVERY.saturating_sub(asked.elapsed()));
        }
        if !self.lock().any_to_forget() {
            return None;
        }
        pressure.asked = Some(Instant::now());
        if pressure.is_high() {
            self.forget_old();
        }
        self.lock().any_to_forget().then_some(EVERY)
    }

    /// Makes durable what is to be, and lets go of the memory under all that is, but for the newest.
    fn forget_old(&self) {
        if self.flusher.syncs() {
            // Its failure is told by `flush`, `close`, the next save and the event.
            _ = self.flush_upto(u64::MAX);
        }
        let mut bytes = 0;
        loop {
            let (n, root) = {
                let mut state = self.lock();
                let Some(n) = state.next_to_forget() else { break };
                let place = &mut state.places[n];
                place.forgotten = true;
                (n, place.root)
            };
            // Nobody need hold it: letting go changes no bytes, whoever they are by now.
            if self.file_of(n).forget(root.offset, root.len).is_ok() {
                bytes += root.len.next_multiple_of(BLOCK);
            }
        }
        if bytes > 0 {
            self.lock().counts.trimmed += bytes;
            self.listeners.tell(|| Event::Trimmed { bytes });
        }
    }
}

impl State {
    /// An old snapshot on the disk, not let go of yet.
    fn next_to_forget(&self) -> Option<usize> {
        let old = self.listed.iter().skip(SPARED).map(|n| usize::from(*n));
        old.into_iter().find(|n| self.places[*n].durable && !self.places[*n].forgotten)
    }

    fn any_to_forget(&self) -> bool {
        self.next_to_forget().is_some()
    }
}

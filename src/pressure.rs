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

#[cfg(test)]
mod tests {
    //! A server short of memory that keeps all of its history there; a memento whose bytes went with
    //! the memory.

    use std::sync::Arc;

    use super::*;
    use crate::{
        Options, Snapshot, caretaker, events::Event, id::SnapshotId, memento::Memento, open,
        options::Durability, schema::Layout,
    };

    #[derive(Snapshot, Debug, PartialEq)]
    struct Blob {
        bytes: Vec<u8>,
    }

    fn blob(n: u8) -> Blob {
        Blob { bytes: vec![n; 300 << 10] }
    }

    /// Pages in memory of each snapshot, newest first.
    fn resident(engine: &Engine) -> Vec<usize> {
        let state = engine.lock();
        let place = |n: &u16| (usize::from(*n), state.places[usize::from(*n)].root);
        let places = state.listed.iter().map(place);
        places.map(|(n, root)| engine.file_of(n).resident(root.offset, root.len)).collect()
    }

    #[test]
    fn the_memory_of_old_snapshots_goes_and_their_bytes_stay() {
        let dir = std::env::temp_dir().join(format!("snapring-pressure-{}", std::process::id()));
        let options = Options::new().durability(Durability::Process).file_size(4 << 20);
        let layout = Arc::new(Layout::of::<Blob>());
        let engine = open::open(&dir, &options, layout, caretaker::check::<Blob>).expect("opens");
        let engine = Arc::new(engine);
        if engine.storage.as_ref().is_none_or(|storage| storage.in_memory()) {
            println!("SKIPPED memory pressure: {} is in memory", dir.display());
            return std::fs::remove_dir_all(&dir).expect("was made above");
        }
        let told = dir.join("told");
        let mut pressure = Pressure { path: told.clone(), asked: None };
        let mut ask = |text: &str| {
            std::fs::write(&told, text).expect("written");
            pressure.asked = None;
            engine.relieve(&mut pressure)
        };
        let low = "some avg10=9.99 avg60=70.00 avg300=0.00 total=1\nfull avg10=80.00 avg60=0.00\n";
        let high = "some avg10=10.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00\n";
        for n in 1..=6 {
            engine.save(&blob(n)).expect("saves");
        }
        // Nothing is on the disk yet: nothing may go, whatever is told.
        assert_eq!(ask(high), None);
        let all = resident(&engine);
        assert!(all.iter().all(|pages| *pages == all[0] && *pages >= 75), "{all:?}");
        assert_eq!(engine.flush_upto(4).expect("flushes"), Some(SnapshotId::new(4)));
        let held = |id| Memento::<Blob>::of(engine.hold(SnapshotId::new(id)).expect("there"));
        let held = [1, 2].map(|id| held(id).expect("whole"));
        for nothing in ["", "some avg10= avg60=", "some", low] {
            assert_eq!(ask(nothing), Some(EVERY), "{nothing:?}");
        }
        assert_eq!(resident(&engine), all);
        let mut events = engine.listeners.subscribe();
        assert_eq!(ask(high), None, "there is nothing left");
        let left = resident(&engine);
        assert_eq!(left[..2], all[..2], "the newest, which are not on the disk, either");
        assert_eq!(left[2..], [0; 4], "the others");
        let bytes = 4 * (76 << 12);
        assert_eq!(events.try_next(), Some(Event::Trimmed { bytes }));
        assert_eq!(engine.stats().trimmed_bytes, bytes);
        for (held, n) in held.iter().zip(1..) {
            assert_eq!(held.thaw().expect("read again"), blob(n));
        }
        drop((held, engine));
        std::fs::remove_dir_all(&dir).expect("was made above");
    }

    #[test]
    fn where_nobody_tells_memory_is_never_short() {
        let nowhere = Pressure { path: PathBuf::from("/nowhere/at/all"), asked: None };
        assert!(!nowhere.is_high());
    }
}

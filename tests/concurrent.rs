//! Accesses that nothing orders: every sort of call, from several threads at once, for
//! ThreadSanitizer to watch (`scripts/tsan.sh`), and for the assertions without it.
//!
//! Threads wait for one another by atomics and joins alone: the standard library's locks and
//! channels are not built with the sanitizer, which then sees races where there are none.

use std::{
    cell::UnsafeCell,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use snapring::{
    Archived, Caretaker, Durability, Event, KeepError, MementoError, Options, RollbackError,
    SaveError, Snapshot,
};

/// Every part of it is told by `tick`.
#[derive(Snapshot, Clone, PartialEq, Debug)]
struct World {
    tick: u64,
    rows: Vec<u64>,
    name: String,
}

impl World {
    fn at(tick: u64) -> World {
        let len = 10 + tick as usize % 90;
        World { tick, rows: vec![tick; len], name: format!("the world at {tick}") }
    }
}

fn whole(world: &Archived<World>) -> u64 {
    let tick = world.tick.to_native();
    assert!(world.rows.iter().all(|row| row.to_native() == tick), "rows of another tick");
    assert_eq!(world.name.as_str(), format!("the world at {tick}"));
    tick
}

/// A directory gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let name = format!("snapring-concurrent-{}-{name}", std::process::id());
        Scratch(std::env::temp_dir().join(name))
    }

    fn open(&self, durability: Durability) -> Caretaker<World> {
        let options = Options::new().durability(durability).file_size(1 << 20).ring(6);
        // SAFETY: a directory of this test's own.
        unsafe { options.open(&self.0) }.expect("opens")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Tells the others to stop, also where one panics.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// All that a caretaker can do, at once.
fn everything(ring: &Caretaker<World>, rounds: u64) {
    let stop = AtomicBool::new(false);
    let ticks = AtomicU64::new(1);
    let next = || World::at(ticks.fetch_add(1, Ordering::Relaxed));
    ring.save(&World::at(0)).expect("saves");
    let mut events = ring.subscribe();
    thread::scope(|scope| {
        let stop = &stop;
        let going = || !stop.load(Ordering::Relaxed);
        scope.spawn(move || {
            while going() {
                _ = ring.read(whole).expect("there is a head");
                _ = ring.read(|_| ring.read(whole)).flatten();
            }
        });
        scope.spawn(move || {
            let mut held = Vec::new();
            while going() {
                let memento = ring.latest().expect("there is a head");
                held.push((whole(&memento), memento.clone()));
                if held.len() > 2 {
                    let (tick, memento) = held.remove(0);
                    assert_eq!(memento.thaw().expect("thaws"), World::at(tick), "P1");
                }
            }
        });
        scope.spawn(move || {
            while going() {
                for entry in ring.history() {
                    match ring.try_memento(entry.id()) {
                        Ok(memento) => _ = (whole(&memento), memento.digest()),
                        Err(MementoError::Evicted { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                _ = (ring.stats(), ring.durable(), ring.head());
            }
        });
        scope.spawn(move || {
            let mut round = 0;
            while going() {
                round += 1;
                let label = format!("label {}", round % 2);
                if let Some(id) = ring.head() {
                    match ring.keep(id, &label) {
                        Ok(()) => assert!(ring.memento(id).is_some(), "kept, and gone"),
                        Err(KeepError::Full { .. } | KeepError::Gone { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                ring.release(&label);
                if round % 16 == 0 {
                    _ = ring.flush().expect("flushes");
                }
            }
        });
        let saver = || {
            for round in 0..rounds {
                let mut state = next();
                let saved = ring.save(&state);
                let id = match saved {
                    Ok(id) => id,
                    Err(SaveError::Held { .. }) => continue,
                    Err(error) => panic!("{error}"),
                };
                if round % 4 == 0 {
                    match ring.rollback(&mut state, id) {
                        Ok(_) | Err(RollbackError::Evicted { .. }) => {}
                        Err(RollbackError::NoPlace { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                if round % 8 == 1 {
                    _ = ring.guard(&mut state, |state| {
                        state.tick = 0;
                        Err::<(), _>("no")
                    });
                }
                if round % 8 == 2 {
                    _ = ring.capture(&state).and_then(snapring::Pending::wait);
                }
            }
        };
        let _stops = Stops(stop);
        let other = scope.spawn(saver);
        saver();
        other.join().expect("no panic");
    });
    let mut saved = 0;
    while let Some(event) = events.try_next() {
        saved += usize::from(matches!(event, Event::Saved { .. } | Event::Lagged { .. }));
    }
    assert!(saved > 0, "nothing was told");
}

#[test]
fn every_call_at_once_in_memory() {
    everything(&Options::new().ring(6).in_memory().expect("opens"), 300);
}

#[test]
fn every_call_at_once_on_files() {
    for durability in [
        Durability::Process,
        Durability::Background { within: Duration::from_millis(2) },
        Durability::Sync,
    ] {
        let scratch =
            Scratch::new(&format!("{durability:?}").replace(|c: char| !c.is_alphanumeric(), ""));
        everything(&scratch.open(durability), 120);
        let ring = scratch.open(durability);
        ring.read(whole).expect("there is a head");
        everything(&ring, 40);
    }
}

/// Two threads write one word, and nothing orders them: for `scripts/tsan.sh --planted`, which sees
/// that the sanitizer is awake.
#[test]
#[ignore = "races by intent"]
fn planted() {
    struct Word(UnsafeCell<u64>);
    // SAFETY: it is not: that is what is planted.
    unsafe impl Sync for Word {}
    let word = Word(UnsafeCell::new(0));
    let ring: Caretaker<World> = Options::new().in_memory().expect("opens");
    ring.save(&World::at(1)).expect("saves");
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    // A read orders nothing between two readers.
                    _ = ring.read(whole);
                    let word = &word;
                    // SAFETY: racy by intent; the value is a number.
                    let before = unsafe { word.0.get().read() };
                    // SAFETY: as above.
                    unsafe { word.0.get().write(before + 1) };
                }
            });
        }
    });
    assert!(word.0.into_inner() > 0);
}

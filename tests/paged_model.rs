//! Whatever is saved, captured, rolled back, kept, evicted and reopened, in whatever order: every listed
//! snapshot of a paged state must hold what was saved under its id, beside a plain list of clones.

mod common;

use std::collections::BTreeMap;

use common::TempDir;
use snapring::{
    Caretaker, Durability, GuardError, Options, PagedMap, PagedVec, Pending, SaveError, Snapshot,
    SnapshotId,
};

#[derive(Snapshot, Debug, Clone, PartialEq)]
enum Zone {
    Empty,
    Field { crops: PagedVec<u16> },
    Town(Option<PagedVec<String>>, u8),
}

#[derive(Snapshot, Debug, Clone, PartialEq)]
struct World {
    tick: u64,
    units: PagedVec<[u32; 3]>,
    names: PagedMap<u64, String>,
    zones: Vec<Zone>,
}

/// Numbers that look random, the same at each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) as usize % n.max(1)
    }
}

fn world() -> World {
    let mut units = PagedVec::with_page_len(7);
    units.extend((0..300).map(|n| [n, 0, 0]));
    World {
        tick: 0,
        units,
        names: (0..200).map(|n| (n, format!("name {n}"))).collect(),
        zones: vec![Zone::Empty, Zone::Field { crops: (0..900).collect() }, Zone::Town(None, 3)],
    }
}

fn change(world: &mut World, dice: &mut Dice) {
    world.tick += 1;
    let tick = world.tick;
    for _ in 0..dice.below(4) {
        let len = world.units.len();
        match dice.below(12) {
            0..4 if len > 0 => world.units[dice.below(len)] = [tick as u32; 3],
            4 => world.units.push([tick as u32, 1, 1]),
            5 if len > 50 => _ = world.units.swap_remove(dice.below(len)),
            6 if len > 100 => world.units.truncate(len - dice.below(30)),
            7..9 => _ = world.names.insert(dice.below(260) as u64, format!("{tick}")),
            9 => _ = world.names.remove(&(dice.below(260) as u64)),
            10 => {
                let at = dice.below(world.zones.len());
                world.zones[at] = match dice.below(4) {
                    0 => Zone::Empty,
                    1 => Zone::Field { crops: (0..dice.below(500) as u16).collect() },
                    2 => Zone::Town(None, tick as u8),
                    _ => Zone::Town(Some((0..40).map(|n| format!("{n} {tick}")).collect()), 1),
                };
            }
            _ => {
                if let Some(Zone::Field { crops }) = world.zones.get_mut(1)
                    && !crops.is_empty()
                {
                    let at = dice.below(crops.len());
                    crops[at] = tick as u16;
                }
            }
        }
    }
}

fn open(dir: &TempDir, max: u64) -> Caretaker<World> {
    let options = Options::new().ring(5).file_size(0).max_file_size(max);
    // SAFETY: the directory is the test's own, and nobody else writes there.
    unsafe { options.durability(Durability::Process).open(dir) }.expect("opened")
}

/// What there is to compare with.
#[derive(Default)]
struct Model {
    saved: BTreeMap<SnapshotId, World>,
    pending: Vec<(Pending, World)>,
    refused: usize,
}

impl Model {
    /// A state was saved, or there was no space for it.
    fn outcome(&mut self, outcome: Result<SnapshotId, SaveError>, world: World) {
        match outcome {
            Ok(id) => _ = self.saved.insert(id, world),
            Err(SaveError::NoSpace { .. }) => self.refused += 1,
            Err(error) => panic!("{error}"),
        }
    }

    /// Every capture has come to its end.
    fn settle(&mut self) {
        for (pending, world) in std::mem::take(&mut self.pending) {
            self.outcome(pending.wait(), world);
        }
    }

    fn agrees(&mut self, caretaker: &Caretaker<World>, why: &str) {
        self.settle();
        for entry in caretaker.history() {
            let then = self.saved.get(&entry.id()).unwrap_or_else(|| panic!("{why}: {entry:?}"));
            let memento =
                caretaker.try_memento(entry.id()).unwrap_or_else(|e| panic!("{why}: {e}"));
            assert_eq!(&memento.thaw().expect("whole"), then, "{why}: {}", entry.id());
            assert_eq!(memento.units.len(), then.units.len());
            assert_eq!(memento.names.len(), then.names.len());
            for key in [0, 17, 100, 259] {
                let name = memento.names.get(&key).map(|name| name.as_str().to_owned());
                assert_eq!(name.as_deref(), then.names.get(&key).map(String::as_str), "{key}");
            }
        }
    }
}

/// Answers how many saves were refused.
fn play(seed: u64, max: u64) -> usize {
    let dir = TempDir::new(&format!("model-{seed}-{max}"));
    let mut dice = Dice(seed);
    let mut caretaker = open(&dir, max);
    let (mut live, mut model) = (world(), Model::default());
    for step in 0..60 {
        change(&mut live, &mut dice);
        let why = format!("seed {seed}, step {step}");
        match dice.below(16) {
            0..6 => {
                model.outcome(caretaker.save(&live), live.clone());
            }
            6..10 => match caretaker.capture(&live) {
                Ok(pending) => model.pending.push((pending, live.clone())),
                Err(error) => model.outcome(Err(error), live.clone()),
            },
            10 | 11 => {
                model.settle();
                let history = caretaker.history();
                if !history.is_empty() {
                    let to = history[dice.below(history.len())].id();
                    let done = caretaker.rollback(&mut live, to);
                    let id = done.unwrap_or_else(|e| panic!("{why}: {e}")).id();
                    assert_eq!(live, model.saved[&to], "{why}");
                    model.saved.insert(id, live.clone());
                }
            }
            12 => {
                model.settle();
                let history = caretaker.history();
                if !history.is_empty() {
                    let id = history[dice.below(history.len())].id();
                    _ = caretaker.keep(id, ["one", "two"][dice.below(2)]);
                }
            }
            13 => _ = caretaker.release(["one", "two"][dice.below(2)]),
            14 => {
                let failed: Result<(), _> = caretaker.guard(&mut live, |live| {
                    live.units.clear();
                    live.names = PagedMap::new();
                    Err::<(), _>("no")
                });
                let Err(failed) = failed else { panic!("{why}: it went in") };
                if matches!(failed, GuardError::Save { .. }) {
                    model.refused += 1;
                }
                model.settle();
                // Two snapshots more: what the guard saved, and its way back.
                for entry in caretaker.history() {
                    model.saved.entry(entry.id()).or_insert_with(|| live.clone());
                }
            }
            _ => {
                model.settle();
                drop(caretaker);
                caretaker = open(&dir, max);
                assert!(
                    caretaker.recovery().rejected.is_empty(),
                    "{why}: {}",
                    caretaker.recovery()
                );
                let there = caretaker.resume().expect("whole");
                let head = caretaker.head().map(|head| model.saved[&head].clone());
                assert_eq!(there, head, "{why}");
                live = there.unwrap_or_else(world);
            }
        }
        if step % 4 == 0 {
            model.agrees(&caretaker, &why);
        }
    }
    model.agrees(&caretaker, "at the end");
    model.refused
}

#[test]
fn agrees_with_a_list_of_clones() {
    for seed in 0..30 {
        assert_eq!(play(seed, 64 << 20), 0, "seed {seed}: there is room");
    }
}

/// Files so small that snapshots leave for others' sake.
#[test]
fn agrees_where_space_is_short() {
    let refused: usize = (100..130).map(|seed| play(seed, 200 << 10)).sum();
    assert!(refused < 300, "{refused} of some 1200 were refused");
}

//! A ring that forgets what it has listed, lists what it has forgotten, or hands back another state
//! than was saved: random calls beside a model that keeps every state in a plain list.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestCaseError, TestRunner},
};
use snapring::{
    Caretaker, Durability, EntryState, KeepError, Kind, Memento, MementoError, Options,
    RollbackError, SaveError, Snapshot, SnapshotId,
};

/// Bytes of a block of the files.
const BLOCK: u64 = 4096;

#[derive(Snapshot, Clone, PartialEq, Debug)]
struct World {
    tick: u64,
    names: BTreeMap<u8, String>,
    blob: Vec<u8>,
}

impl World {
    fn of(tick: u64, size: u16) -> World {
        World {
            tick,
            names: (0..tick as u8 % 5).map(|i| (i, format!("{i} at {tick}"))).collect(),
            blob: (0..size).map(|i| (u64::from(i) ^ tick) as u8).collect(),
        }
    }
}

/// A step. Snapshots are picked by age, so that a shorter list of steps still makes sense.
#[derive(Debug, Clone)]
enum Step {
    Save { size: u16 },
    Rollback { age: u8 },
    RollbackFrom { expected: u8, age: u8 },
    Keep { age: u8, label: u8 },
    Release { label: u8 },
    Hold { age: u8 },
    Latest,
    Drop { which: u8 },
    Flush,
    Reopen,
}

/// Where the ring lives and how much room it has.
#[derive(Debug, Clone)]
struct Setting {
    ring: u32,
    on_files: bool,
    /// Blocks of each data area, where they are scarce.
    blocks: Option<u64>,
    /// The most mementos held at a time: above 2 places may run out.
    mementos: usize,
}

fn step(most: u16) -> impl Strategy<Value = Step> {
    let age = || 0..24_u8;
    let label = || 0..4_u8;
    prop_oneof![
        8 => (0..most).prop_map(|size| Step::Save { size }),
        3 => age().prop_map(|age| Step::Rollback { age }),
        1 => (0..3_u8, age()).prop_map(|(expected, age)| Step::RollbackFrom { expected, age }),
        2 => (age(), label()).prop_map(|(age, label)| Step::Keep { age, label }),
        1 => label().prop_map(|label| Step::Release { label }),
        2 => age().prop_map(|age| Step::Hold { age }),
        1 => Just(Step::Latest),
        2 => any::<u8>().prop_map(|which| Step::Drop { which }),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

fn plan() -> impl Strategy<Value = (Setting, Vec<Step>)> {
    let ring = prop_oneof![Just(2_u32), Just(3), Just(16)];
    let blocks = prop_oneof![Just(None), (3..24_u64).prop_map(Some)];
    let mementos = prop_oneof![Just(2_usize), Just(24)];
    (ring, any::<bool>(), blocks, mementos).prop_flat_map(|(ring, on_files, blocks, mementos)| {
        let most = blocks.map_or(9000, |blocks| (blocks * BLOCK / 2) as u16);
        let setting = Setting { ring, on_files, blocks, mementos };
        (Just(setting), prop::collection::vec(step(most), 1..80))
    })
}

/// A listed snapshot, as the model knows it.
#[derive(Debug, Clone)]
struct Known {
    id: SnapshotId,
    kind: Kind,
    parent: Option<SnapshotId>,
    target: Option<SnapshotId>,
    logical: u64,
    label: Option<String>,
    world: World,
}

struct Held {
    id: SnapshotId,
    memento: Memento<World>,
    world: World,
}

/// A directory in memory, gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Scratch(base.join(format!("snapring-model-{}-{number}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// The ring, the model beside it, and the live state.
struct Both {
    held: Vec<Held>,
    caretaker: Option<Caretaker<World>>,
    scratch: Scratch,
    setting: Setting,
    /// Newest first.
    known: Vec<Known>,
    next: u64,
    ticks: u64,
    live: World,
    /// The newest snapshot when the last flush returned.
    flushed: Option<SnapshotId>,
}

impl Both {
    fn new(setting: Setting) -> Both {
        let mut both = Both {
            held: Vec::new(),
            caretaker: None,
            scratch: Scratch::new(),
            setting,
            known: Vec::new(),
            next: 1,
            ticks: 0,
            live: World::of(0, 0),
            flushed: None,
        };
        both.open();
        both
    }

    fn open(&mut self) {
        let Setting { ring, blocks, .. } = self.setting;
        let mut options = Options::new().ring(ring).durability(Durability::Process);
        if let Some(blocks) = blocks {
            // A header, the slot pages, the data.
            let max = (1 + u64::from(ring) + 4 + blocks) * BLOCK;
            options = options.file_size(0).max_file_size(max);
        }
        let opened = if self.setting.on_files {
            // SAFETY: a directory of this test's own.
            unsafe { options.open(&self.scratch.0) }
        } else {
            options.in_memory()
        };
        self.caretaker = Some(opened.expect("opens"));
    }

    fn ring(&self) -> &Caretaker<World> {
        self.caretaker.as_ref().expect("is open")
    }

    /// Places or bytes may run out.
    fn scarce(&self) -> bool {
        self.setting.blocks.is_some() || self.setting.mementos > 2
    }

    /// The id of the snapshot of that age; beyond the listed ones, one that has left, or never was.
    fn pick(&self, age: u8) -> SnapshotId {
        let age = usize::from(age);
        match self.known.get(age) {
            Some(known) => known.id,
            None if age % 5 == 0 => SnapshotId::new(self.next + age as u64),
            None => SnapshotId::new(self.next.saturating_sub(age as u64)),
        }
    }

    fn find(&self, id: SnapshotId) -> Option<usize> {
        self.known.iter().position(|known| known.id == id)
    }

    fn oldest(&self) -> Option<SnapshotId> {
        self.known.last().map(|known| known.id)
    }

    fn was_given(&self, id: SnapshotId) -> bool {
        id.get() > 0 && id.get() < self.next
    }

    fn publish(
        &mut self,
        id: SnapshotId,
        kind: Kind,
        target: Option<usize>,
    ) -> Result<(), TestCaseError> {
        prop_assert!(id.get() >= self.next, "{id} is not larger than those before {}", self.next);
        self.next = id.get() + 1;
        let parent = self.known.first();
        let known = Known {
            id,
            kind,
            parent: parent.map(|known| known.id),
            target: target.map(|at| self.known[at].id),
            logical: match target {
                Some(at) => self.known[at].logical,
                None => parent.map_or(1, |known| known.logical + 1),
            },
            label: None,
            world: self.live.clone(),
        };
        self.known.insert(0, known);
        while self.known.len() > self.setting.ring as usize {
            let Some(oldest) = self.known.iter().rposition(|known| known.label.is_none()) else {
                break;
            };
            self.known.remove(oldest);
        }
        Ok(())
    }

    /// A save or a rollback did not find room: only where it is scarce, and with a true reason.
    fn refused(&self, error: &SaveError) -> Result<(), TestCaseError> {
        match error {
            SaveError::NoSpace { free, .. } if self.setting.blocks.is_some() => {
                let bytes = archived_bytes(&self.live);
                prop_assert!(bytes > *free, "{bytes} bytes would have fitted: {error}");
            }
            SaveError::Held { holders } if self.scarce() => {
                prop_assert!(!holders.is_empty(), "held by nobody");
            }
            other => prop_assert!(false, "refused for {other:?}"),
        }
        Ok(())
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Save { size } => {
                self.ticks += 1;
                self.live = World::of(self.ticks, size);
                match self.ring().save(&self.live) {
                    Ok(id) => self.publish(id, Kind::Full, None)?,
                    Err(error) => self.refused(&error)?,
                }
            }
            Step::Rollback { age } => self.roll_back(None, self.pick(age))?,
            Step::RollbackFrom { expected, age } => {
                self.roll_back(Some(self.pick(expected)), self.pick(age))?;
            }
            Step::Keep { age, label } => self.keep(self.pick(age), &format!("label {label}"))?,
            Step::Release { label } => {
                let label = format!("label {label}");
                let holder = self.known.iter_mut().find(|k| k.label.as_ref() == Some(&label));
                let expected = holder.map(|known| known.label = None).is_some();
                prop_assert_eq!(self.ring().release(&label), expected);
            }
            Step::Hold { age } if self.held.len() < self.setting.mementos => {
                self.hold(self.pick(age))?;
            }
            Step::Latest if self.held.len() < self.setting.mementos => {
                let memento = self.ring().latest();
                prop_assert_eq!(
                    memento.as_ref().map(Memento::id),
                    self.known.first().map(|k| k.id)
                );
                if let Some(memento) = memento {
                    let world = self.known[0].world.clone();
                    self.held.push(Held { id: memento.id(), memento, world });
                }
            }
            Step::Drop { which } if !self.held.is_empty() => {
                let which = usize::from(which) % self.held.len();
                self.held.swap_remove(which);
            }
            Step::Hold { .. } | Step::Latest | Step::Drop { .. } => {}
            Step::Flush => {
                let newest = self.known.first().map(|known| known.id);
                let flushed = self.ring().flush().expect("flushes");
                if self.setting.on_files {
                    prop_assert_eq!(flushed, newest.or(self.flushed));
                    prop_assert_eq!(self.ring().durable(), flushed);
                    self.flushed = flushed;
                } else {
                    prop_assert_eq!(flushed, None);
                }
            }
            Step::Reopen if self.setting.on_files => {
                self.held.clear();
                self.caretaker = None;
                self.open();
                let recovery = self.ring().recovery();
                prop_assert!(recovery.clean, "{}", recovery);
                prop_assert!(recovery.rejected.is_empty(), "{}", recovery);
                prop_assert_eq!(recovery.chosen, self.known.first().map(|known| known.id));
                let resumed = self.ring().resume().expect("thaws");
                prop_assert_eq!(resumed.as_ref(), self.known.first().map(|known| &known.world));
            }
            Step::Reopen => {}
        }
        Ok(())
    }

    fn roll_back(
        &mut self,
        expected: Option<SnapshotId>,
        to: SnapshotId,
    ) -> Result<(), TestCaseError> {
        let now = self.known.first().map(|known| known.id);
        let before = self.live.clone();
        let mut live = self.live.clone();
        let answer = match expected {
            Some(expected) => self.ring().rollback_from(expected, &mut live, to),
            None => self.ring().rollback(&mut live, to),
        };
        let raced = expected.is_some() && expected != now;
        match (answer, self.find(to)) {
            (Ok(rollback), Some(at)) if !raced => {
                prop_assert_eq!(rollback.from(), now);
                prop_assert_eq!(rollback.to(), to);
                prop_assert_eq!(&live, &self.known[at].world);
                self.live = live;
                return self.publish(rollback.id(), Kind::Rollback, Some(at));
            }
            (Err(RollbackError::Raced { now: found }), _) if raced => prop_assert_eq!(found, now),
            (Err(RollbackError::Evicted { to: asked, oldest }), None) if self.was_given(to) => {
                prop_assert_eq!((asked, oldest), (to, self.oldest()));
            }
            (Err(RollbackError::Unknown { to: asked }), None) if !self.was_given(to) => {
                prop_assert_eq!(asked, to);
            }
            (Err(RollbackError::NoPlace { source, .. }), Some(_)) => self.refused(&source)?,
            (answer, _) => prop_assert!(false, "rollback to {} answered {:?}", to, answer),
        }
        prop_assert_eq!(live, before, "a refused rollback changed the state");
        Ok(())
    }

    fn keep(&mut self, id: SnapshotId, label: &str) -> Result<(), TestCaseError> {
        let answer = self.ring().keep(id, label);
        let Some(at) = self.find(id) else {
            let gone = matches!(answer, Err(KeepError::Gone { id: gone }) if gone == id);
            prop_assert!(gone, "{:?}", answer);
            return Ok(());
        };
        let holder = self.known.iter().position(|k| k.label.as_deref() == Some(label));
        let labelled = self.known.iter().filter(|k| k.label.is_some()).count();
        let more = usize::from(self.known[at].label.is_none() && holder.is_none());
        if holder != Some(at) && labelled + more + 2 > self.setting.ring as usize {
            let ring = self.setting.ring as usize;
            prop_assert!(
                matches!(answer, Err(KeepError::Full { kept, ring: n }) if (kept, n) == (labelled, ring)),
                "{:?}",
                answer
            );
            return Ok(());
        }
        prop_assert!(answer.is_ok(), "{:?}", answer);
        if let Some(holder) = holder {
            self.known[holder].label = None;
        }
        self.known[at].label = Some(label.to_owned());
        Ok(())
    }

    fn hold(&mut self, id: SnapshotId) -> Result<(), TestCaseError> {
        match (self.ring().try_memento(id), self.find(id)) {
            (Ok(memento), Some(at)) => {
                let world = self.known[at].world.clone();
                self.held.push(Held { id, memento, world });
            }
            (Err(MementoError::Evicted { id: asked, oldest }), None) if self.was_given(id) => {
                prop_assert_eq!((asked, oldest), (id, self.oldest()));
            }
            (Err(MementoError::Unknown { id: asked }), None) if !self.was_given(id) => {
                prop_assert_eq!(asked, id);
            }
            (answer, _) => prop_assert!(false, "{} answered {:?}", id, answer),
        }
        Ok(())
    }

    /// Where room is scarce, more may have left than the ring's length asks for: never the newest
    /// two, the kept, the held.
    fn forget_evicted(&mut self) -> Result<(), TestCaseError> {
        let listed: Vec<SnapshotId> = self.ring().history().iter().map(|e| e.id()).collect();
        for (age, known) in self.known.iter().enumerate() {
            if listed.contains(&known.id) {
                continue;
            }
            prop_assert!(self.scarce(), "{} has left though there was room", known.id);
            prop_assert!(age >= 2, "{} has left, one of the newest two", known.id);
            prop_assert!(known.label.is_none(), "{} has left, though kept", known.id);
            let held = self.held.iter().any(|held| held.id == known.id);
            prop_assert!(!held, "{} has left, though held", known.id);
            prop_assert!(
                self.flushed != Some(known.id),
                "{} has left, the newest on disk",
                known.id
            );
        }
        self.known.retain(|known| listed.contains(&known.id));
        Ok(())
    }

    fn compare(&mut self) -> Result<(), TestCaseError> {
        self.forget_evicted()?;
        let ring = self.ring();
        prop_assert_eq!(ring.head(), self.known.first().map(|known| known.id));
        let history = ring.history();
        prop_assert_eq!(history.len(), self.known.len());
        for (entry, known) in history.iter().zip(&self.known) {
            prop_assert_eq!(entry.id(), known.id);
            prop_assert_eq!(entry.kind(), known.kind);
            prop_assert_eq!(entry.parent(), known.parent);
            prop_assert_eq!(entry.target(), known.target);
            prop_assert_eq!(entry.logical_version(), known.logical);
            prop_assert_eq!(entry.label(), known.label.as_deref());
            let foreign = matches!(entry.state(), EntryState::OtherLayout { .. });
            prop_assert!(!foreign, "{:?}", entry);
            let written = if known.kind == Kind::Rollback { 0 } else { entry.bytes() };
            prop_assert_eq!(entry.written_bytes(), written);
            let memento = ring.try_memento(known.id);
            prop_assert!(memento.is_ok(), "{:?}", memento);
            if let Ok(memento) = memento {
                prop_assert_eq!(&memento.thaw().expect("thaws"), &known.world);
            }
        }
        for held in &self.held {
            prop_assert_eq!(held.memento.id(), held.id);
            prop_assert_eq!(&held.memento.thaw().expect("thaws"), &held.world);
        }
        let seen = ring.read(|world| (world.tick.to_native(), world.blob.len()));
        let known = self.known.first().map(|known| (known.world.tick, known.world.blob.len()));
        prop_assert_eq!(seen, known);
        let stats = ring.stats();
        prop_assert_eq!((stats.listed, stats.mementos), (self.known.len(), self.held.len() as u64));
        Ok(())
    }
}

/// Bytes that a state takes in a file, in whole blocks.
fn archived_bytes(world: &World) -> u64 {
    let ring = Caretaker::<World>::in_memory().expect("opens");
    ring.save(world).expect("saves");
    ring.latest().expect("saved").bytes().next_multiple_of(BLOCK)
}

#[test]
fn agrees_with_a_plain_list() {
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 96;
        config.rng_seed = RngSeed::Fixed(7);
    }
    let outcome = TestRunner::new(config).run(&plan(), |(setting, steps)| {
        let mut both = Both::new(setting);
        for step in &steps {
            both.take(step)?;
            both.compare()?;
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// A snapshot that has left must not come back in the place of one that is listed.
#[test]
fn what_was_listed_is_listed_after_a_reopening() {
    let setting = Setting { ring: 3, on_files: true, blocks: None, mementos: 2 };
    let mut both = Both::new(setting);
    let save = Step::Save { size: 5 };
    let steps = [
        save.clone(),
        Step::Keep { age: 0, label: 0 },
        save.clone(),
        save.clone(),
        save.clone(),
        Step::Release { label: 0 },
        Step::Reopen,
        save,
        Step::Reopen,
    ];
    for step in &steps {
        both.take(step).and_then(|()| both.compare()).expect("agrees");
    }
}

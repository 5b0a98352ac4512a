#![forbid(unsafe_code)]
//! A ring on a simulated disk beside a model that keeps every state in a plain list: any operation
//! in any order, kills, power cuts, failing calls and damage among them.
//!
//! What must hold is asserted by the numbers of the promises.

use std::{
    collections::BTreeMap,
    mem,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use snapring::{
    Caretaker, Durability, Memento, Options, PagedMap, PagedVec, Snapshot, SnapshotId,
    campaign::{Call, Clock, Disk, Fault, Random, background, file_name, kill, open, set_clock},
};

use crate::input::Input;

/// Operations done by this process.
pub static DONE: AtomicU64 = AtomicU64::new(0);

#[derive(Snapshot, Clone, PartialEq, Debug)]
struct World {
    tick: u64,
    names: BTreeMap<u8, String>,
    blob: Vec<u8>,
    cells: PagedVec<u16>,
    marks: PagedMap<u8, String>,
}

impl World {
    fn of(tick: u64, size: u16) -> World {
        World {
            tick,
            names: (0..tick as u8 % 3).map(|i| (i, format!("name {i} at {tick}"))).collect(),
            blob: vec![tick as u8; usize::from(size)],
            cells: World::cells(tick, size),
            marks: World::marks(tick),
        }
    }

    fn cells(tick: u64, size: u16) -> PagedVec<u16> {
        let mut cells = PagedVec::with_page_len(16);
        cells.extend((0..size / 8).map(|at| World::cell(tick, at)));
        cells
    }

    /// A page changes once in eight ticks.
    fn cell(tick: u64, at: u16) -> u16 {
        let age = tick - ((tick + u64::from(at / 16)) % 8).min(tick);
        at ^ age as u16
    }

    fn marks(tick: u64) -> PagedMap<u8, String> {
        (0..tick as u8 % 5).map(|i| (i, format!("mark {i}"))).collect()
    }

    /// Makes it the world of another tick: pages that are the same stay the same ones.
    fn go(&mut self, tick: u64, size: u16) {
        let (mut cells, mut marks) = (mem::take(&mut self.cells), mem::take(&mut self.marks));
        *self = World::of(tick, size);
        cells.truncate(self.cells.len());
        for at in 0..cells.len() {
            if cells[at] != self.cells[at] {
                cells[at] = self.cells[at];
            }
        }
        cells.extend((cells.len()..self.cells.len()).map(|at| self.cells[at]));
        for key in 0..5 {
            match self.marks.get(&key) {
                Some(mark) if marks.get(&key) == Some(mark) => {}
                Some(mark) => _ = marks.insert(key, mark.clone()),
                None => _ = marks.remove(&key),
            }
        }
        (self.cells, self.marks) = (cells, marks);
    }
}

/// A snapshot that was listed when last looked at.
#[derive(Clone)]
struct Known {
    world: World,
    label: Option<String>,
}

struct Held {
    memento: Memento<World>,
    world: World,
}

/// The ring, and what is known of it.
pub struct Both {
    disk: Disk,
    options: Options,
    caretaker: Option<Caretaker<World>>,
    live: World,
    held: Vec<Held>,
    known: BTreeMap<u64, Known>,
    /// The highest id that was ever told.
    told: u64,
    /// What `durable()` said last.
    durable: u64,
    /// The highest id when somebody damaged a file: what is unlisted may be among the damage.
    damaged: u64,
    /// No call was made to fail since this disk was opened.
    sound: bool,
    millis: u64,
    random: Random,
    ring: usize,
}

impl Both {
    fn new(input: &mut Input<'_>) -> Both {
        let setting = input.byte();
        let ring = 2 + u32::from(setting % 3);
        let blocks = 14 + u64::from(input.byte() % 10);
        let durability = match setting / 3 % 3 {
            0 => Durability::Process,
            1 => Durability::Background { within: Duration::from_secs(1) },
            _ => Durability::Sync,
        };
        let options = Options::new()
            .ring(ring)
            .file_size(blocks * 4096)
            .max_file_size(if setting & 128 == 0 { 24 } else { 48 } * 4096)
            .durability(durability);
        let seed = u64::from(input.u16());
        let mut both = Both {
            disk: Disk::new(seed),
            options,
            caretaker: None,
            live: World::of(0, 0),
            held: Vec::new(),
            known: BTreeMap::new(),
            told: 0,
            durable: 0,
            damaged: 0,
            sound: true,
            millis: 1,
            random: Random::new(seed),
            ring: ring as usize,
        };
        both.pass(0);
        both.open();
        both
    }

    fn caretaker(&self) -> &Caretaker<World> {
        self.caretaker.as_ref().expect("open between steps")
    }

    fn pass(&mut self, millis: u64) {
        self.millis += millis;
        let wall_nanos = 1_000_000_000 + self.millis * 1_000_000;
        set_clock(Some(Clock { steady_millis: self.millis, wall_nanos }));
    }

    fn open(&mut self) {
        let opened = open::<World>(&self.disk, &self.options);
        let caretaker = opened.expect("a disk that does not fail opens, whatever is on it");
        self.caretaker = Some(caretaker);
        self.sound = true;
    }

    /// A new id: it must be one.
    fn learn(&mut self, id: SnapshotId, world: World) {
        assert!(id.get() > self.told, "{id} was used before: {} had been told", self.told);
        self.told = id.get();
        assert_eq!(self.caretaker().head(), Some(id), "P2: published, it is the head");
        self.known.insert(id.get(), Known { world, label: None });
        self.forget_evicted();
        // After a loss of power there may be more, until the next is published; and labels that were
        // moved may be back on what they were moved from.
        let (listed, labels) =
            (self.known.len(), self.known.values().filter(|k| k.label.is_some()));
        let full = listed > self.ring && labels.count() + 1 < listed;
        assert!(!full, "{listed} listed in a ring of {}", self.ring);
    }

    /// Takes what is listed now as listed; what has gone was not labelled, and a newer
    /// one is there. (For want of space it may be younger than others; and labels that power has
    /// brought back leave little room.)
    fn forget_evicted(&mut self) {
        let listed: Vec<u64> = self.ids();
        let gone: Vec<u64> = self.known.keys().copied().filter(|id| !listed.contains(id)).collect();
        for id in gone {
            let known = self.known.remove(&id).expect("just seen");
            assert_eq!(known.label, None, "#{id} was kept and is gone");
            let newest = listed.iter().max();
            assert!(newest.is_some_and(|newest| *newest > id), "#{id} is gone, the newest");
        }
    }

    /// Listed, newest first.
    fn ids(&self) -> Vec<u64> {
        self.caretaker().history().iter().map(|entry| entry.id().get()).collect()
    }

    fn pick(&self, input: &mut Input<'_>) -> SnapshotId {
        let ids = self.ids();
        let at = input.byte();
        match ids.get(usize::from(at) % (ids.len() + 1)) {
            Some(id) => SnapshotId::new(*id),
            None => SnapshotId::new(u64::from(at)),
        }
    }

    /// One operation.
    fn step(&mut self, input: &mut Input<'_>) {
        DONE.fetch_add(1, Ordering::Relaxed);
        let what = input.byte() % 32;
        trace(self, &format!("before step {what}"));
        match what {
            0..=4 | 24..=27 => self.save(input),
            5 | 6 | 28 => self.roll_back(input),
            7 => {
                let id = self.pick(input);
                let label = format!("label {}", input.byte() % 3);
                if self.caretaker().keep(id, &label).is_ok() {
                    for known in
                        self.known.values_mut().filter(|k| k.label.as_ref() == Some(&label))
                    {
                        known.label = None;
                    }
                    self.known.get_mut(&id.get()).expect("kept, so listed").label = Some(label);
                }
            }
            8 => {
                let label = format!("label {}", input.byte() % 3);
                let mut was = false;
                // After a loss of power two may have it: a label that was moving.
                for known in self.known.values_mut().filter(|k| k.label.as_ref() == Some(&label)) {
                    known.label = None;
                    was = true;
                }
                assert_eq!(self.caretaker().release(&label), was, "{label}");
                self.forget_evicted();
            }
            9 | 10 => {
                let id = self.pick(input);
                if self.held.len() < 3
                    && let Ok(memento) = self.caretaker().try_memento(id)
                {
                    let world = self.known[&id.get()].world.clone();
                    self.held.push(Held { memento, world });
                }
            }
            11 => {
                let which = usize::from(input.byte());
                if !self.held.is_empty() {
                    self.held.swap_remove(which % self.held.len());
                }
            }
            12 => {
                let done = self.caretaker().flush();
                if self.sound {
                    let newest = self.known.keys().last().copied();
                    let durable = done.expect("nothing fails").map(SnapshotId::get);
                    assert_eq!(durable, newest, "flushed, the newest is durable");
                }
            }
            13 | 14 | 29 => {
                self.pass(u64::from(input.byte()) * 20);
                background(self.caretaker());
            }
            15 => {
                let n = 1 + u64::from(input.byte());
                self.disk.write_back(&mut self.random, n);
            }
            16 => self.fail(input),
            17 => self.die(),
            18 | 19 => self.lose_power(),
            20 => self.damage(input),
            21 => self.close(),
            _ => {
                let id = self.pick(input);
                let mut state = self.live.clone();
                let guarded = self.caretaker().guard(&mut state, |state| {
                    state.tick ^= 1;
                    if id.get().is_multiple_of(2) { Ok(()) } else { Err("no") }
                });
                if guarded.is_err() {
                    assert_eq!(state, self.live, "P5: a guarded change that failed: {guarded:?}");
                }
                self.look();
            }
        }
        self.durable = self.caretaker().durable().map_or(0, SnapshotId::get);
    }

    fn save(&mut self, input: &mut Input<'_>) {
        let before = self.ids();
        self.live.go(self.live.tick + 1, input.u16() % 9000);
        match self.caretaker().save(&self.live) {
            Ok(id) => self.learn(id, self.live.clone()),
            Err(snapring::SaveError::NotDurable { id, .. }) => self.learn(id, self.live.clone()),
            // Room was made before it was seen not to be enough.
            Err(snapring::SaveError::NoSpace { .. }) => self.forget_evicted(),
            Err(_) => assert_eq!(before, self.ids(), "P5: a save that failed"),
        }
    }

    fn roll_back(&mut self, input: &mut Input<'_>) {
        let id = self.pick(input);
        let mut state = self.live.clone();
        let Some(known) = self.known.get(&id.get()).cloned() else {
            assert!(self.caretaker().rollback(&mut state, id).is_err(), "{id} is not listed");
            return;
        };
        match self.caretaker().rollback(&mut state, id) {
            Ok(rollback) => {
                assert_eq!(state, known.world, "P5: rolled back to {id}");
                self.live = state;
                self.learn(rollback.id(), known.world);
            }
            Err(snapring::RollbackError::Unpublished { .. }) => {
                assert_eq!(state, known.world, "P5: restored, and not published");
                self.live = state;
                self.look();
            }
            Err(_) => assert_eq!(state, self.live, "P5: a rollback that failed"),
        }
    }

    fn fail(&mut self, input: &mut Input<'_>) {
        const CALLS: [Call; 4] = [Call::Sync, Call::SyncHeader, Call::Reserve, Call::SyncFloor];
        let call = CALLS[input.below(4)];
        let flags = input.byte();
        let errno = if flags & 1 == 0 { 5 } else { 28 };
        let after = u64::from(flags >> 4);
        self.disk.set_faults(vec![Fault { call, after, errno, for_ever: flags & 2 == 0 }]);
        self.sound = false;
    }

    /// What is listed now is what is known from now on; ids and worlds must fit what was.
    fn look(&mut self) {
        self.forget_evicted();
        let mut known = std::mem::take(&mut self.known);
        for entry in self.caretaker().history() {
            let id = entry.id();
            let memento = self.caretaker().try_memento(id);
            let world = memento.ok().map(|m| m.thaw().expect("a whole archive thaws"));
            let Some(world) = world else { continue };
            if let Some(before) = known.remove(&id.get()) {
                assert_eq!(before.world, world, "{id} holds another state");
            } else {
                assert_eq!(world.blob, vec![world.tick as u8; world.blob.len()], "{id}: a mixture");
            }
            let label = entry.label().map(str::to_owned);
            self.told = self.told.max(id.get());
            self.known.insert(id.get(), Known { world, label });
        }
    }

    /// All that is listed is whole, and what it was.
    fn check(&mut self) {
        let history = self.caretaker().history();
        assert!(history.is_sorted_by_key(|entry| std::cmp::Reverse(entry.id())), "newest first");
        assert_eq!(history.len(), self.known.len(), "listed and known");
        for entry in &history {
            let known = &self.known[&entry.id().get()];
            assert_eq!(entry.label(), known.label.as_deref(), "the label of {}", entry.id());
            let memento = self.caretaker().try_memento(entry.id()).expect("listed and whole");
            assert_eq!(memento.thaw().expect("whole"), known.world, "{}", entry.id());
        }
        for held in &self.held {
            assert_eq!(held.memento.thaw().expect("whole"), held.world, "P1: a held memento");
        }
    }

    /// Killed: all that was listed is there again.
    fn die(&mut self) {
        let disk = self.disk.killed();
        let (ids, known) = (self.ids(), self.known.clone());
        self.leave(true);
        self.disk = disk;
        self.open();
        trace(self, "after a kill");
        assert_eq!(self.ids(), ids, "P3: listed after a kill");
        self.check();
        self.known = known;
        self.learn_one_more();
    }

    /// The power fails: what was durable is there again, and the rest is whole or told.
    fn lose_power(&mut self) {
        let disk = self.disk.cut(&mut self.random);
        let covered = self.durable;
        let known = self.known.clone();
        self.leave(true);
        self.disk = disk;
        self.open();
        let caretaker = self.caretaker();
        for (id, before) in known.range(..=covered) {
            let memento = caretaker.try_memento(SnapshotId::new(*id));
            let told = caretaker.recovery();
            let found = memento.unwrap_or_else(|e| panic!("P4: #{id} was durable: {e}\n{told}"));
            assert_eq!(found.thaw().expect("whole"), before.world, "P4: #{id}");
        }
        self.known.retain(|_, _| false);
        self.look();
        let head = self.caretaker().head().map(SnapshotId::get);
        assert_eq!(head, self.known.keys().last().copied(), "the newest is the head");
        let there = head.unwrap_or(0) >= covered || covered <= self.damaged;
        assert!(there, "P4: nothing as new as #{covered} is on the disk");
        self.check();
        self.learn_one_more();
    }

    /// Somebody else writes into a closed file.
    fn damage(&mut self, input: &mut Input<'_>) {
        let disk = self.disk.killed();
        self.leave(true);
        self.damaged = self.told;
        let side = usize::from(input.byte() & 1);
        for _ in 0..1 + input.byte() % 4 {
            let page = usize::from(input.byte() % 24);
            let at = page * 4096 + input.below(4096);
            disk.put(file_name(side), at, &[input.byte()]);
        }
        self.disk = disk;
        self.open();
        let history = self.caretaker().history();
        for id in history.iter().map(snapring::Entry::id) {
            if let Ok(memento) = self.caretaker().try_memento(id) {
                let world = memento.thaw().expect("whole");
                if let Some(before) = self.known.get(&id.get()) {
                    assert_eq!(world, before.world, "{id} after damage");
                }
            }
        }
        self.known.retain(|_, _| false);
        self.look();
        self.learn_one_more();
    }

    fn close(&mut self) {
        self.held.clear();
        let (ids, sound) = (self.ids(), self.sound);
        let closed = self.caretaker.take().expect("open between steps").close();
        if sound {
            assert!(closed.is_ok(), "{closed:?}");
        }
        self.disk.set_faults(Vec::new());
        self.open();
        assert_eq!(self.ids(), ids, "listed after a close");
        self.check();
        self.learn_one_more();
    }

    /// Ids go on where they were.
    fn learn_one_more(&mut self) {
        self.live.go(self.live.tick + 1, 10);
        if let Ok(id) = self.caretaker().save(&self.live) {
            self.learn(id, self.live.clone());
        }
    }

    fn leave(&mut self, killed: bool) {
        self.held.clear();
        if let Some(caretaker) = self.caretaker.take()
            && killed
        {
            kill(caretaker);
        }
    }
}

/// Does what the input says, as long as it lasts.
pub fn run(input: &mut Input<'_>) {
    let mut both = Both::new(input);
    for _ in 0..48 {
        if input.is_empty() {
            break;
        }
        both.step(input);
    }
    both.check();
    both.leave(true);
    set_clock(None);
}

/// What happened, for whoever looks into a finding: `SNAPRING_TRACE` is set.
fn trace(both: &Both, what: &str) {
    if std::env::var_os("SNAPRING_TRACE").is_some() {
        let Some(caretaker) = &both.caretaker else { return };
        let listed: Vec<String> = caretaker
            .history()
            .iter()
            .map(|e| format!("{}{}", e.id(), if e.is_durable() { "!" } else { "" }))
            .collect();
        let (head, durable) = (caretaker.head(), caretaker.durable());
        eprintln!(
            "{what}: listed {listed:?}, head {head:?}, durable {durable:?}, told {}",
            both.told
        );
        eprintln!("    {}", caretaker.recovery());
    }
}

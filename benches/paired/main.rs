#![forbid(unsafe_code)]
//! What snapring must reach, measured beside its reference by turns: see `duel`. Also one writer
//! among readers, and making a ring. What needs other processes or the disk is in files of its own.

mod durable;
mod elsewhere;
mod resumed;

use std::{
    error::Error,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use snapring::{Options, Snapshot};
use snapring_bench::{
    by_hand::PutBack,
    duel::Duel,
    histogram::Histogram,
    limit::Limit,
    other::words,
    peers::{left_right::LeftRight, mmap_sync::MmapSync},
    place::{Place, Scratch},
    reopened::{Cached, Closed},
    results::{self, Crowd, Paired, Set},
    ring::{FEW, Ring, archive_of, open},
    run::Asked,
    states::{
        PLAYERS, ROOM, SMALL, hashed, map_free, mirror,
        plain::{self, CELLS, Words},
        sorted, unsorted,
    },
    swing::Swing,
};

/// Readers beside the one writer.
const READERS: usize = 4;

/// Adds the row of a state saved into a warm ring of its own; answers the row's number.
fn saves<'a, T: Snapshot>(
    duel: &mut Duel<'a>,
    name: &str,
    place: Place,
    ring: u32,
    state: T,
) -> usize {
    let ring = Ring::new(place, ring).warm(&state);
    duel.row(format!("snapring {name}"), move || ring.save(&state))
}

fn save_small(asked: &Asked) -> Set {
    let place = Place::Tmpfs;
    let mut duel = Duel::new("save small, tmpfs");
    let archive = archive_of(&map_free::Player::new(SMALL, 1));
    let mut sync = MmapSync::new(place);
    let bytes = archive.clone();
    let reference = duel.row("mmap-sync write_raw, ready bytes", move || sync.write_raw(&bytes));
    let a = saves(&mut duel, "map-free", place, 16, map_free::Player::new(SMALL, 1));
    let u = saves(&mut duel, "unsorted", place, 16, unsorted::Player::new(SMALL, 1));
    let s = saves(&mut duel, "sorted", place, 16, sorted::Player::new(SMALL, 1));
    saves(&mut duel, "hashed", place, 16, hashed::Player::new(SMALL, 1));
    let mut limit = Limit::new(place, archive.len(), 1);
    duel.row("limit", move || limit.save(&archive));
    for row in [a, u, s] {
        duel.most(1, row, reference, 1.0);
    }
    duel.run(asked)
}

fn save_hello(asked: &Asked) -> Set {
    let place = Place::Tmpfs;
    let mut duel = Duel::new("save 36 bytes, tmpfs");
    assert_eq!(archive_of(&plain::Hello::new(7)).len(), 36, "as many bytes as mmap-sync's");
    let mut sync = MmapSync::new(place);
    let value = mirror::Hello::new(7);
    let reference = duel.row("mmap-sync write", move || sync.write(&value));
    let row = saves(&mut duel, "36 bytes", place, 16, plain::Hello::new(7));
    duel.most(2, row, reference, 1.0);
    duel.run(asked)
}

/// A state in rooms, in three shapes, beside the limit.
fn save_rooms(
    asked: &Asked,
    name: &str,
    target: u8,
    place: Place,
    players: usize,
    ring: u32,
    most: [f64; 3],
) -> Set {
    let mut duel = Duel::new(format!("{name}, {}", place.name()));
    let archive = archive_of(&map_free::World::new(players, 1));
    let mut limit = Limit::new(place, archive.len(), ring as usize);
    let reference = duel.row(format!("limit, ring of {ring}"), move || limit.save(&archive));
    let rows = [
        saves(&mut duel, "map-free", place, ring, map_free::World::new(players, 1)),
        saves(&mut duel, "unsorted", place, ring, unsorted::World::new(players, 1)),
        saves(&mut duel, "sorted", place, ring, sorted::World::new(players, 1)),
    ];
    for (row, most) in rows.into_iter().zip(most) {
        duel.most(target, row, reference, most);
    }
    duel.run(asked)
}

fn save_cells(asked: &Asked, place: Place) -> Set {
    let mut duel = Duel::new(format!("save cells, {}", place.name()));
    let archive = archive_of(&plain::Cells::new(CELLS, 1));
    let mut limit = Limit::new(place, archive.len(), FEW as usize);
    let reference = duel.row(format!("limit, ring of {FEW}"), move || limit.save(&archive));
    let row = saves(&mut duel, "cells", place, FEW, plain::Cells::new(CELLS, 1));
    duel.most(5, row, reference, 1.1);
    duel.run(asked)
}

fn read(asked: &Asked) -> Set {
    let mut duel = Duel::new("read one field of a small value");
    let value = mirror::Player::new(SMALL, 1);
    let ring = Ring::new(Place::Tmpfs, 16);
    ring.save(&map_free::Player::new(SMALL, 1)).expect("a save");
    let row = duel.row("snapring read", move || ring.read(|p| p.experience.to_native()));
    let mut sync = MmapSync::new(Place::Tmpfs);
    sync.write(&value);
    let mut reader = sync.reader();
    let sync = duel.row("mmap-sync read, unchecked", move || {
        _ = &sync;
        reader.read::<mirror::Player, _>(|p| p.experience)
    });
    let shared = ArcSwap::from_pointee(value.clone());
    let shared = duel.row("arc-swap load", move || shared.load().experience);
    let copies = LeftRight::new(value);
    let copies = duel.row("left-right enter", move || copies.read.enter().map(|p| p.0.experience));
    for reference in [sync, shared, copies] {
        duel.most(6, row, reference, 1.0);
    }
    duel.run(asked)
}

fn roll_back<'a, T: PutBack + 'a>(duel: &mut Duel<'a>, shape: &str, state: impl Fn(u64) -> T) {
    let mut swing = Swing::new(Place::Tmpfs, state(1), state(2));
    let reference = duel.row(format!("by hand, {shape}"), move || swing.put_back());
    let mut swing = Swing::new(Place::Tmpfs, state(1), state(2));
    let row = duel.row(format!("snapring rollback, {shape}"), move || swing.roll_back());
    duel.most(7, row, reference, 1.25);
}

fn roll_back_rooms(asked: &Asked, name: &str, players: usize) -> Set {
    let mut duel = Duel::new(name);
    roll_back(&mut duel, "map-free", |tick| map_free::World::new(players, tick));
    roll_back(&mut duel, "unsorted", |tick| unsorted::World::new(players, tick));
    roll_back(&mut duel, "sorted", |tick| sorted::World::new(players, tick));
    duel.run(asked)
}

fn roll_back_cells(asked: &Asked) -> Set {
    let mut duel = Duel::new("rollback cells, tmpfs");
    roll_back(&mut duel, "cells", |tick| plain::Cells::new(CELLS, tick));
    duel.run(asked)
}

fn open_large(asked: &Asked, place: Place) -> Set {
    let mut duel = Duel::new(format!("open 64 MiB, {}", place.name()));
    let cells = plain::Cells::new(CELLS, 1);
    let cached = Cached::new(place, &archive_of(&cells));
    let reference = duel.row("one CRC pass over cells", move || cached.crc());
    let closed = Closed::new(place, &cells);
    let row = duel.timed("snapring open, cells", move || closed.open::<plain::Cells>());
    duel.most(8, row, reference, 1.5);
    let world = map_free::World::new(PLAYERS, 1);
    let cached = Cached::new(place, &archive_of(&world));
    duel.row("one CRC pass over world", move || cached.crc());
    let closed = Closed::new(place, &world);
    duel.timed("snapring open, world", move || closed.open::<map_free::World>());
    duel.run(asked)
}

fn create(asked: &Asked) -> Set {
    let mut duel = Duel::new("make a ring, ext4");
    let state = map_free::Player::new(SMALL, 1);
    let row = duel.timed("new directory to first save", move || {
        let scratch = Scratch::new(Place::Ext4);
        let start = Instant::now();
        let ring = open(&scratch.at("ring"), &Options::new());
        ring.save(&state).expect("a save");
        start.elapsed()
    });
    duel.within(10, row, Duration::from_millis(20));
    duel.run(asked)
}

/// What several stretches of saving add up to.
#[derive(Default)]
struct Stretches {
    saved: Histogram,
    reads: u64,
    seconds: f64,
}

impl Stretches {
    /// One more: a writer saves as fast as it can, beside so many readers that do nothing else than
    /// read all of the state.
    fn add(&mut self, readers: usize, time: Duration) {
        let mut state = Words { words: (0..1000).collect() };
        let ring = Ring::new(Place::Tmpfs, 16).warm(&state);
        let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
        let ready = Barrier::new(readers + 1);
        let read = || {
            ready.wait();
            let mut count = 0;
            // Relaxed: only to end some time soon.
            while !stop.load(Ordering::Relaxed) {
                let sum = ring.read(|s| s.words.iter().map(|w| w.to_native()).sum::<u64>());
                assert_eq!(sum.map(|sum| sum % 1000), Some(500), "one state, whole");
                count += 1;
            }
            // Relaxed: looked at when the threads have ended.
            reads.fetch_add(count, Ordering::Relaxed);
        };
        thread::scope(|scope| {
            for _ in 0..readers {
                scope.spawn(read);
            }
            ready.wait();
            let start = Instant::now();
            while start.elapsed() < time {
                // Each of a thousand words is one more: the sum keeps its rest.
                state.words.iter_mut().for_each(|word| *word += 1);
                let before = Instant::now();
                ring.save(&state).expect("a save");
                self.saved.add(before.elapsed().as_nanos() as u64);
            }
            self.seconds += start.elapsed().as_secs_f64();
            // Relaxed: as above.
            stop.store(true, Ordering::Relaxed);
        });
        // Relaxed: the threads have ended.
        self.reads += reads.load(Ordering::Relaxed);
    }

    fn outcome(&self, readers: usize) -> Crowd {
        Crowd {
            readers,
            saves: self.saved.total() as f64 / self.seconds,
            reads: self.reads as f64 / self.seconds,
            p50: self.saved.quantile(0.5) as f64,
            p99: self.saved.quantile(0.99) as f64,
            longest: self.saved.longest() as f64,
        }
    }
}

/// One writer alone and among readers, by turns.
fn crowd(asked: &Asked) -> Vec<Crowd> {
    let (rounds, time) = if asked.test { (1, 20) } else { (4, 1000) };
    let mut both = [0, READERS].map(|readers| (readers, Stretches::default()));
    for _ in 0..rounds {
        for (readers, stretches) in &mut both {
            stretches.add(*readers, Duration::from_millis(time));
        }
    }
    println!("\none writer of 1,000 words and busy readers");
    both.map(|(readers, stretches)| {
        let crowd = stretches.outcome(readers);
        let Crowd { saves, reads, p50, p99, longest, .. } = crowd;
        println!(
            "    {readers} readers: {saves:.0} saves/s, {reads:.0} reads/s; a save takes {p50:.0} ns \
             (p50), {p99:.0} (p99), {longest:.0} (longest)"
        );
        crowd
    })
    .to_vec()
}

type Part = (&'static str, fn(&Asked) -> Set);

/// Everything, by the names that filters go by.
const PARTS: [Part; 21] = [
    ("save small", save_small),
    ("save 36 bytes", save_hello),
    ("save room tmpfs", |a| save_rooms(a, "save room", 3, Place::Tmpfs, ROOM, 16, OF_ROOM)),
    ("save room ext4", |a| save_rooms(a, "save room", 3, Place::Ext4, ROOM, 16, OF_ROOM)),
    ("save world tmpfs", |a| save_rooms(a, "save world", 4, Place::Tmpfs, PLAYERS, FEW, OF_WORLD)),
    ("save world ext4", |a| save_rooms(a, "save world", 4, Place::Ext4, PLAYERS, FEW, OF_WORLD)),
    ("save cells tmpfs", |a| save_cells(a, Place::Tmpfs)),
    ("save cells ext4", |a| save_cells(a, Place::Ext4)),
    ("read", read),
    ("rollback room", |a| roll_back_rooms(a, "rollback room, tmpfs", ROOM)),
    ("rollback world", |a| roll_back_rooms(a, "rollback world, tmpfs", PLAYERS)),
    ("rollback cells", roll_back_cells),
    ("open tmpfs", |a| open_large(a, Place::Tmpfs)),
    ("open ext4", |a| open_large(a, Place::Ext4)),
    ("create", create),
    ("durable small", durable::small),
    ("durable room", durable::room),
    ("durable world", durable::world),
    ("resumed", resumed::resumed),
    ("elsewhere small", elsewhere::small::idle),
    ("elsewhere room", elsewhere::room::idle),
];

/// Map-free, unsorted, sorted.
const OF_ROOM: [f64; 3] = [1.6, 2.2, 3.0];
const OF_WORLD: [f64; 3] = [1.6, 2.2, 2.5];

/// A part of a row that runs in a process of its own.
fn be(words: &[String]) {
    match words {
        [first, rest @ ..] if [resumed::HOLD, resumed::RESUME].contains(&first.as_str()) => {
            resumed::be(rest);
        }
        [first, rest @ ..] if first == elsewhere::READ => elsewhere::be(rest),
        _ => panic!("what to be: {words:?}"),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(words) = words() {
        be(&words);
        return Ok(());
    }
    let asked = Asked::from_args();
    // What was not asked for stays as an earlier run has left it.
    let mut paired: Paired =
        if asked.all() { Paired::default() } else { results::read("paired").unwrap_or_default() };
    for (name, part) in PARTS {
        if asked.wants(name) {
            let set = part(&asked);
            paired.sets.retain(|other| other.name != set.name);
            paired.sets.push(set);
        }
    }
    if asked.wants("readers") {
        paired.crowd = crowd(&asked);
    }
    if asked.wants("elsewhere busy") {
        paired.elsewhere = elsewhere::small::busy(&asked);
        paired.elsewhere.extend(elsewhere::room::busy(&asked));
    }
    if asked.wants("pauses") {
        paired.pauses = durable::pauses(&asked);
    }
    if !asked.test {
        results::write("paired", &paired)?;
    }
    Ok(())
}

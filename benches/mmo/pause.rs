#![forbid(unsafe_code)]
//! How long a capture holds up the thread that changes the state, and what it adds until the copy is
//! no longer needed: beside a plain copy, and beside `fork`.

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use snapring::{Durability, Options};
use snapring_bench::{
    place::Place,
    results::{Mmo, Part, Point, Set},
    ring::{Ring, quiet},
    run::Asked,
    states::{map_free::Player, plain::Cell},
};

use crate::{
    child::Child,
    samples::{Samples, beside},
    world::{Item, Paged, Shares, touch_flat},
};

/// Numbers of what must be reached.
pub(crate) const PAUSE: u8 = 15;
pub(crate) const LARGE: u8 = 16;
pub(crate) const BESIDE: u8 = 17;
pub(crate) const ADDED: u8 = 18;
pub(crate) const BYTES: u8 = 20;

/// Snapshots in a ring: two a side.
const RING: u32 = 4;

/// Lets the thread in the background fall asleep, as it does between the ticks of a game.
const BETWEEN: Duration = Duration::from_millis(1);

/// A state and the ring that captures it.
pub(crate) struct Live<T: Item> {
    pub(crate) ring: Ring<Paged<T>>,
    pub(crate) world: Paged<T>,
    shares: Shares,
}

/// One capture, and the writes after it.
struct Round {
    /// The call.
    pause: Duration,
    /// From the call until it was published.
    published: Duration,
    /// The first write to each page after it, less a second one.
    copies: f64,
}

impl Round {
    fn added(&self) -> f64 {
        self.pause.as_nanos() as f64 + self.copies.max(0.0)
    }
}

impl<T: Item> Live<T> {
    /// So many items, on tmpfs; every place of the ring has been written.
    pub(crate) fn new(items: usize) -> Live<T> {
        let world = Paged::new(items);
        let ring = Ring::with(Place::Tmpfs, &options());
        let shares = Shares::of(world.items.pages());
        let mut live = Live { ring, world, shares };
        for _ in 0..6 {
            live.round(1.0);
        }
        live
    }

    /// Captures, then writes a share of the pages while the capture is on its way, then waits for it.
    fn round(&mut self, share: f64) -> Round {
        let pages = self.shares.next(share);
        thread::sleep(BETWEEN);
        let start = Instant::now();
        let pending = self.ring.capture(&self.world).expect("a capture");
        let pause = start.elapsed();
        let first = self.world.touch(pages);
        pending.wait().expect("a snapshot");
        let published = start.elapsed();
        let again = self.world.touch(pages);
        let copies = first.as_nanos() as f64 - again.as_nanos() as f64;
        Round { pause, published, copies }
    }

    /// So many rounds after two that bring both sides to this share.
    fn rounds(&mut self, share: f64, count: usize) -> Rounds {
        for _ in 0..2 {
            self.round(share);
        }
        let mut rounds = Rounds::default();
        for _ in 0..count {
            let round = self.round(share);
            rounds.pause.add(round.pause);
            rounds.published.add(round.published);
            rounds.added.add_nanos(round.added());
            let newest = self.ring.history().into_iter().next().expect("a snapshot");
            rounds.written.add_nanos(newest.written_bytes() as f64 / newest.bytes() as f64);
        }
        self.check();
        rounds
    }

    /// The newest snapshot is the state of now, but for what was written since.
    fn check(&mut self) {
        let id = self.ring.capture(&self.world).expect("a capture").wait().expect("a snapshot");
        let thawed = self.ring.memento(id).expect("listed").thaw().expect("whole");
        assert!(thawed == self.world, "{id} is the state that was captured");
    }
}

/// What came of a few rounds.
#[derive(Default)]
struct Rounds {
    pause: Samples,
    published: Samples,
    added: Samples,
    /// Bytes written, of all.
    written: Samples,
}

/// Nothing is flushed, and there is room for a state of 1 GiB.
fn options() -> Options {
    quiet().ring(RING).durability(Durability::Process).max_file_size(8 << 30)
}

fn percent(share: f64) -> String {
    format!("{} %", share * 100.0)
}

/// The plain copy of all items, its memory given back outside of the time.
fn copies<T: Item>(items: &[T], count: usize) -> Samples {
    let mut samples = Samples::default();
    for _ in 0..count {
        let start = Instant::now();
        let copy = black_box(items.to_vec());
        samples.add(start.elapsed());
        drop(copy);
    }
    samples
}

/// The same into memory that is there.
fn copies_into<T: Item>(items: &[T], count: usize) -> Samples {
    let (mut samples, mut copy) = (Samples::default(), items.to_vec());
    for _ in 0..count {
        let start = Instant::now();
        copy.clone_from_slice(black_box(items));
        samples.add(start.elapsed());
    }
    black_box(copy);
    samples
}

/// `fork`, its child gone at once.
fn forks(count: usize) -> Samples {
    let mut samples = Samples::default();
    for _ in 0..count {
        thread::sleep(BETWEEN);
        let start = Instant::now();
        let child = Child::doing(|| ());
        samples.add(start.elapsed());
        child.wait();
    }
    samples
}

/// What `fork` adds until its child, which holds all pages, is gone: as [`Round::added`].
fn fork_added<T: Item>(items: &mut [T], len: usize, shares: &mut Shares, share: f64) -> f64 {
    let pages = shares.next(share);
    touch_flat(items, len, pages);
    thread::sleep(BETWEEN);
    let start = Instant::now();
    let child = Child::idle();
    let pause = start.elapsed();
    let first = touch_flat(items, len, pages);
    child.kill();
    let again = touch_flat(items, len, pages);
    (pause + first).as_nanos() as f64 - again.as_nanos() as f64
}

/// Shares of pages, and how many captures of each.
const SHARES: [(f64, usize); 7] =
    [(0.001, 60), (0.003, 60), (0.01, 200), (0.03, 60), (0.1, 60), (0.3, 25), (1.0, 40)];

/// By the share of pages that are written between two captures.
pub(crate) fn by_share<T: Item>(asked: &Asked, mmo: &mut Mmo) {
    let name = format!("captures of 64 MiB of {}", T::NAME);
    let items = if asked.test { T::IN_64_MIB / 64 } else { T::IN_64_MIB };
    let mut live = Live::<T>::new(items);
    let mut set = Set { name: name.clone(), rounds: 1, rows: Vec::new(), pairs: Vec::new() };
    let mut points = Vec::new();
    let mut point = |line: &str, share: f64, nanos: f64| {
        points.push(Point { line: format!("{line}, {}", T::NAME), x: share * 100.0, y: nanos });
    };
    let mut all = Vec::new();
    for (share, count) in SHARES {
        let count = if asked.test { 1 } else { count };
        let rounds = live.rounds(share, count);
        point("pause", share, rounds.pause.median());
        point("pause and copies", share, rounds.added.median());
        all.push((share, rounds));
    }
    let count = if asked.test { 1 } else { 30 };
    let forks = forks(count);
    // The copy is of the same items in one piece; the pages are gone by then.
    let len = live.world.items.page_len();
    let pages = live.world.items.pages();
    let mut flat = live.world.items.to_vec();
    drop(live);
    let copy = match T::PLAIN {
        true => copies_into(&flat, count),
        false => copies(&flat, count),
    };
    let copied = if T::PLAIN { "a copy into memory that is there" } else { "Clone of a Vec" };
    let copy_median = copy.median();
    for (share, count) in SHARES {
        point("plain copy", share, copy_median);
        let (mut added, mut shares) = (Samples::default(), Shares::of(pages));
        for _ in 0..if asked.test { 1 } else { count.min(15) } {
            added.add_nanos(fork_added(&mut flat, len, &mut shares, share));
        }
        point("fork and its page faults", share, added.median());
    }
    for (share, rounds) in &all {
        let row = format!("pause, {} of pages written", percent(*share));
        set.rows.push(rounds.pause.row(&row));
        mmo.pause(rounds.pause.pause(&format!("{}: {row}", T::NAME)));
        let added = format!("pause and copies, {} of pages written", percent(*share));
        set.rows.push(rounds.added.row(&added));
        mmo.pause(rounds.added.pause(&format!("{}: {added}", T::NAME)));
        set.rows.push(rounds.published.row(&format!("published, {}", percent(*share))));
        let limit = match share {
            0.01 => Some((20e3, 0.03)),
            0.1 => Some((60e3, 0.15)),
            1.0 => Some((60e3, 1.1)),
            _ => None,
        };
        let Some((pause, most)) = limit else { continue };
        if *share != 0.1 {
            let limit = format!("{} us", pause / 1e3);
            set.pairs.push(beside(PAUSE, (&row, &rounds.pause), (&limit, pause), 1.0));
        }
        set.pairs.push(beside(ADDED, (&added, &rounds.added), (copied, copy_median), most));
        if *share == 0.01 {
            if !T::PLAIN {
                let reference = (copied, copy_median);
                set.pairs.push(beside(BESIDE, (&row, &rounds.pause), reference, 0.001));
            }
            let reference = ("fork, its child gone at once", forks.median());
            set.pairs.push(beside(BESIDE, (&row, &rounds.pause), reference, 0.02));
            let (median, mean) = (rounds.written.median(), rounds.written.mean());
            let name = |kind: &str| format!("{}, {kind} of {} captures", T::NAME, SHARES[2].1);
            mmo.part(Part::new(BYTES, name("median"), median, 0.025));
            mmo.part(Part::new(BYTES, name("mean"), mean, 0.025));
        }
    }
    set.rows.push(copy.row(copied));
    set.rows.push(forks.row("fork, its child gone at once"));
    tell(&set);
    points.into_iter().for_each(|point| point.put(&mut mmo.by_share));
    mmo.put(set);
}

/// Sizes of the state in MiB, and how many captures of each.
const SIZES: [(usize, usize); 4] = [(16, 60), (64, 60), (256, 30), (1024, 20)];

/// By the size of the state.
pub(crate) fn by_size(asked: &Asked, mmo: &mut Mmo) {
    let mut set = Set {
        name: "captures by size, players".to_owned(),
        rounds: 1,
        rows: Vec::new(),
        pairs: Vec::new(),
    };
    for (size, count) in SIZES {
        let mib = if asked.test { 1 } else { size };
        let count = if asked.test { 1 } else { count };
        let mut live = Live::<Player>::new(Player::IN_64_MIB * mib / 64);
        let few = live.rounds(0.01, count);
        let all = live.rounds(1.0, count.min(1024 / size + 1));
        let forks = forks(count);
        let flat = live.world.items.to_vec();
        drop(live);
        let copies = copies(&flat, count.min(4));
        for (line, samples) in [
            ("pause, 1 % of pages written", &few.pause),
            ("pause and copies, 1 % of pages written", &few.added),
            ("pause, all pages written", &all.pause),
            ("Clone of a Vec", &copies),
            ("fork, its child gone at once", &forks),
        ] {
            Point { line: line.to_owned(), x: size as f64, y: samples.median() }
                .put(&mut mmo.by_size);
            set.rows.push(samples.row(&format!("{size} MiB: {line}")));
            mmo.pause(samples.pause(&format!("{size} MiB: {line}")));
        }
        if size == 1024 {
            let row = format!("{size} MiB: pause, 1 % of pages written");
            set.pairs.push(beside(LARGE, (&row, &few.pause), ("100 us", 100e3), 1.0));
            let fork = ("fork, its child gone at once", forks.median());
            set.pairs.push(beside(BESIDE, (&row, &few.pause), fork, 0.02));
            let copy = ("Clone of a Vec", copies.median());
            set.pairs.push(beside(BESIDE, (&row, &few.pause), copy, 0.001));
        }
    }
    tell(&set);
    mmo.put(set);
}

/// The outcome on the standard output.
pub(crate) fn tell(set: &Set) {
    println!("\n{}", set.name);
    for row in &set.rows {
        println!(
            "    {:<56} {:>14.1} ns  [{:.1} .. {:.1}]",
            row.name, row.median, row.p25, row.p75
        );
    }
    for pair in &set.pairs {
        println!(
            "    {} / {}: {:.5}  [{:.5} .. {:.5}], at most {}",
            pair.row, pair.reference, pair.ratio, pair.p25, pair.p75, pair.most
        );
    }
}

/// Both kinds of state.
pub(crate) fn players(asked: &Asked, mmo: &mut Mmo) {
    by_share::<Player>(asked, mmo);
}

/// The plain one.
pub(crate) fn cells(asked: &Asked, mmo: &mut Mmo) {
    by_share::<Cell>(asked, mmo);
}

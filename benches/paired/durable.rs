#![forbid(unsafe_code)]
//! Saves that are on the disk when they return, beside the peers doing the same; and how long the
//! saving thread is held up by the thread that brings snapshots to the disk behind it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use snapring::{Durability, Options, Snapshot};
use snapring_bench::{
    duel::Duel,
    histogram::Histogram,
    peers::{
        codec::{Codec, Replaced, Wincode},
        lmdb::{Lmdb, Writes},
        redb::Redb,
    },
    place::Place,
    results::{Pause, Set},
    ring::{FEW, Ring, quiet},
    run::Asked,
    states::{PLAYERS, ROOM, SMALL, map_free, mirror, sorted, unsorted},
};

const ON: Place = Place::Ext4;

/// What target these rows are about.
const TARGET: u8 = 12;

fn ours<'a, T: Snapshot>(duel: &mut Duel<'a>, shape: &str, ring: u32, state: T) -> usize {
    let options = quiet().ring(ring).durability(Durability::Sync);
    let ring = Ring::with(ON, &options).warm(&state);
    duel.row(format!("snapring {shape}"), move || ring.save(&state).expect("a durable save"))
}

/// The peers, each from the live value; answers the rows that are to be beaten: LMDB in its faster
/// way, redb, a file.
fn peers<M: 'static>(duel: &mut Duel<'_>, value: impl Fn() -> M) -> [usize; 3]
where
    Wincode: Codec<M>,
{
    let lmdb = [(Writes::Durable, "LMDB put"), (Writes::DurableMapped, "LMDB put into its map")];
    let [plain, _] = lmdb.map(|(writes, name)| {
        let (to, mut codec, value) = (Lmdb::with(ON, writes), Wincode::default(), value());
        duel.row(format!("{name}, by wincode"), move || to.put(codec.encode(&value)))
    });
    let (to, mut codec, state) = (Redb::durable(ON), Wincode::default(), value());
    let redb = duel.row("redb insert, by wincode", move || to.put(codec.encode(&state)));
    let (to, mut codec, state) = (Replaced::new(ON), Wincode::default(), value());
    let file = duel.row("wincode to a file, flushed, renamed", move || {
        to.write_durably(codec.encode(&state));
    });
    [plain, redb, file]
}

macro_rules! states {
    ($name:ident, $set:literal, $Type:ident of $size:expr, ring: $ring:expr) => {
        pub(crate) fn $name(asked: &Asked) -> Set {
            let mut duel = Duel::new(concat!($set, ", ext4"));
            let peers = peers(&mut duel, || mirror::$Type::new($size, 1));
            let rows = [
                ours(&mut duel, "map-free", $ring, map_free::$Type::new($size, 1)),
                ours(&mut duel, "unsorted", $ring, unsorted::$Type::new($size, 1)),
                ours(&mut duel, "sorted", $ring, sorted::$Type::new($size, 1)),
            ];
            // The two that hold what the peers hold: with a hash map.
            for row in &rows[1..] {
                peers.iter().for_each(|peer| duel.most(TARGET, *row, *peer, 1.0));
            }
            duel.run(asked)
        }
    };
}

states!(small, "durable small", Player of SMALL, ring: 16);
states!(room, "durable room", World of ROOM, ring: 16);
states!(world, "durable world", World of PLAYERS, ring: FEW);

/// A ring that is saved to, at a pace, and how long the saves have held up their thread.
struct Saver {
    name: &'static str,
    ring: Ring<map_free::World>,
    state: map_free::World,
    /// Between the starts of two saves; `None`: one after the other.
    every: Option<Duration>,
    flushed: bool,
    /// Another thread flushes this often.
    beside: Option<Duration>,
    held_up: Histogram,
}

impl Saver {
    fn new(name: &'static str, durability: Durability, every: Option<Duration>) -> Saver {
        let options = Options::new().durability(durability);
        let flushed = durability != Durability::Process;
        let state = map_free::World::new(ROOM, 1);
        let ring = Ring::with(ON, &options).warm(&state);
        Saver { name, ring, state, every, flushed, beside: None, held_up: Histogram::default() }
    }

    /// The same with another thread that flushes this often. The background does not know when, so
    /// it makes no pages ready.
    fn flushed_by_another(self, often: Duration) -> Saver {
        Saver { beside: Some(often), flushed: true, ..self }
    }

    fn save_for(&mut self, time: Duration) {
        let Saver { ring, state, every, flushed, beside, held_up, .. } = self;
        let ring = &*ring;
        let stop = &AtomicBool::new(false);
        thread::scope(|scope| {
            if let Some(often) = *beside {
                scope.spawn(move || {
                    // Relaxed: only to end some time soon.
                    while !stop.load(Ordering::Relaxed) {
                        thread::sleep(often);
                        ring.flush().expect("a flush");
                    }
                });
            }
            let start = Instant::now();
            let mut due = start;
            while start.elapsed() < time {
                state.tick += 1;
                let before = Instant::now();
                ring.save(state).expect("a save");
                held_up.add(before.elapsed().as_nanos() as u64);
                if let Some(every) = *every {
                    due += every;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
            }
            // Relaxed: as above.
            stop.store(true, Ordering::Relaxed);
        });
        if *flushed {
            // What is left to flush does not run into the next one's turn.
            ring.flush().expect("a flush");
        }
    }

    fn outcome(&self) -> Pause {
        let held_up = &self.held_up;
        let quantile = |part| held_up.quantile(part) as f64;
        Pause {
            name: self.name.to_owned(),
            saves: held_up.total(),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            longest: held_up.longest() as f64,
        }
    }
}

/// Saves of a room on ext4 with and without the flusher behind them, by turns.
pub(crate) fn pauses(asked: &Asked) -> Vec<Pause> {
    let (rounds, time) = if asked.test { (1, 50) } else { (5, 1500) };
    let never = Durability::Process;
    let within = |ms| Durability::Background { within: Duration::from_millis(ms) };
    let tick = Some(Duration::from_millis(10));
    let mut savers = [
        Saver::new("100 a second, never flushed", never, tick),
        Saver::new("100 a second, on the disk within 1 s", within(1000), tick),
        Saver::new("100 a second, on the disk within 50 ms", within(50), tick),
        Saver::new("100 a second, flushed by another thread, nothing made ready", never, tick)
            .flushed_by_another(Duration::from_millis(25)),
        Saver::new("without a break, never flushed", never, None),
        Saver::new("without a break, on the disk within 1 s", within(1000), None),
        Saver::new("without a break, on the disk within 50 ms", within(50), None),
    ];
    for _ in 0..rounds {
        savers.iter_mut().for_each(|saver| saver.save_for(Duration::from_millis(time)));
    }
    println!("\nsaves of a room on ext4, and the flusher behind them");
    let outcomes = savers.iter().map(|saver| {
        let pause = saver.outcome();
        let Pause { name, saves, p50, p90, p99, longest } = &pause;
        println!(
            "    {name:<44} {saves} saves: {p50:.0} ns (p50), {p90:.0} (p90), {p99:.0} (p99), \
             {longest:.0} (longest)"
        );
        pause
    });
    outcomes.collect()
}

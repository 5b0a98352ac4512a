#![forbid(unsafe_code)]
//! Reading the newest value in another process, while the writer here saves nothing and while it
//! saves as fast as it can. The times are those of the reading process: it is told how often or how
//! long to read, and tells how long that took, or how often it could.

use std::{
    ffi::OsStr,
    hint::black_box,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use snapring_bench::{
    duel::Duel,
    histogram::Histogram,
    other::{Other, tell, told},
    peers::mmap_sync::{self, MmapSync},
    place::{Place, Scratch},
    results::{Elsewhere, Set},
    ring::{open, quiet, reader},
    run::Asked,
    states::{ROOM, SMALL, map_free, mirror},
};

const ON: Place = Place::Tmpfs;

const TARGET: u8 = 14;

/// How long mmap-sync's writer waits for a reader before it writes over what that reads.
const GRACE: Duration = Duration::from_secs(1);

/// The first word of a process that reads.
pub(crate) const READ: &str = "read";

const OURS: &str = "snapring Reader::read";
const OURS_HELD: &str = "snapring Reader::latest";
const SYNC: &str = "mmap-sync read, unchecked";
const SYNC_CHECKED: &str = "mmap-sync read, checked";

/// Reads between two looks at the clock.
const BETWEEN: u64 = 64;

/// What a reader tells of a stretch beside a busy writer.
#[derive(Serialize, Deserialize)]
struct Stretch {
    reads: u64,
    nanos: u64,
    /// Reads that found another value than the read before.
    found: u64,
    /// Of all timed reads so far.
    p99: u64,
    longest: u64,
    /// Of those that found another value.
    found_p50: u64,
}

/// Timed reads, over all stretches.
#[derive(Default)]
struct Timed {
    all: Histogram,
    found: Histogram,
}

/// Reads for as long: half of the time as fast as it goes, then timing each read.
fn stretch(read: &mut impl FnMut() -> u64, time: Duration, timed: &mut Timed) -> Stretch {
    let (mut last, mut reads, mut found) = (read(), 0, 0);
    let start = Instant::now();
    while start.elapsed() < time / 2 {
        for _ in 0..BETWEEN {
            let value = black_box(read());
            found += u64::from(value != last);
            last = value;
        }
        reads += BETWEEN;
    }
    let nanos = start.elapsed().as_nanos() as u64;
    let start = Instant::now();
    while start.elapsed() < time / 2 {
        let before = Instant::now();
        let value = black_box(read());
        let took = before.elapsed().as_nanos() as u64;
        timed.all.add(took);
        if value != last {
            timed.found.add(took);
        }
        last = value;
    }
    let (p99, longest) = (timed.all.quantile(0.99), timed.all.longest());
    Stretch { reads, nanos, found, p99, longest, found_p50: timed.found.quantile(0.5) }
}

/// Reads as often, or as long, as it is told, and tells how that went, until nobody tells it any
/// more.
fn serve(mut read: impl FnMut() -> u64) {
    let mut timed = Timed::default();
    tell(READ);
    while let Some(line) = told() {
        let (how, much) = line.split_once(' ').expect("how, and how much");
        let much: u64 = much.parse().expect("how much");
        if how == "for" {
            let stretch = stretch(&mut read, Duration::from_millis(much), &mut timed);
            tell(&serde_json::to_string(&stretch).expect("JSON"));
            continue;
        }
        let start = Instant::now();
        for _ in 0..much {
            black_box(read());
        }
        tell(&start.elapsed().as_nanos().to_string());
    }
}

macro_rules! readers {
    ($name:ident, $Type:ident, |$it:ident| $ours:expr, $theirs:expr) => {
        fn $name(kind: &str, path: &Path) {
            match kind {
                OURS => {
                    let reader = reader::<map_free::$Type>(path);
                    serve(|| reader.read(|$it| $ours).expect("a snapshot"));
                }
                OURS_HELD => {
                    let reader = reader::<map_free::$Type>(path);
                    serve(|| {
                        let $it = reader.latest().expect("a snapshot");
                        $ours
                    });
                }
                SYNC => {
                    let mut reader = mmap_sync::Reader::of(path);
                    serve(|| reader.read::<mirror::$Type, _>(|$it| $theirs));
                }
                SYNC_CHECKED => {
                    let mut reader = mmap_sync::Reader::of(path);
                    serve(|| reader.read_checked::<mirror::$Type, _>(|$it| $theirs));
                }
                _ => panic!("what to read with: {kind}"),
            }
        }
    };
}

readers!(read_small, Player, |it| it.experience.to_native(), it.experience);
readers!(read_room, World, |it| it.tick.to_native(), it.tick);

/// Such a process, by the words that follow its first.
pub(crate) fn be(words: &[String]) {
    let [state, kind, path] = words else { panic!("what, how, where: {words:?}") };
    let read = if state == "small" { read_small } else { read_room };
    read(kind, Path::new(path));
}

/// A writer here and its reader in a process of its own.
struct Both<'a> {
    kind: &'static str,
    reader: Other,
    save: Box<dyn FnMut() + 'a>,
}

impl<'a> Both<'a> {
    fn new(state: &str, kind: &'static str, path: &Path, save: impl FnMut() + 'a) -> Both<'a> {
        let words: [&OsStr; 4] = [READ.as_ref(), state.as_ref(), kind.as_ref(), path.as_os_str()];
        let mut reader = Other::start(&words);
        assert_eq!(reader.hear(), READ, "it has opened what there is to read");
        Both { kind, reader, save: Box::new(save) }
    }

    /// So many reads while nothing is saved.
    fn idle(&mut self, calls: u64) -> Duration {
        self.reader.say(&format!("calls {calls}"));
        Duration::from_nanos(self.reader.hear().parse().expect("how long"))
    }

    /// Reads for so long, while values are saved; and how many were, in a second.
    fn busy(&mut self, time: Duration) -> (Stretch, f64) {
        let (told, reader) = (AtomicBool::new(false), &mut self.reader);
        thread::scope(|scope| {
            let asking = scope.spawn(|| {
                reader.say(&format!("for {}", time.as_millis()));
                let heard = reader.hear();
                // Relaxed: only to end some time soon.
                told.store(true, Ordering::Relaxed);
                serde_json::from_str(&heard).expect("a stretch")
            });
            let (start, mut saves) = (Instant::now(), 0);
            // Relaxed: as above.
            while !told.load(Ordering::Relaxed) {
                (self.save)();
                saves += 1;
            }
            let rate = f64::from(saves) / start.elapsed().as_secs_f64();
            (asking.join().expect("an answer"), rate)
        })
    }
}

/// Several stretches of one reader beside its busy writer, by turns with the others.
fn busy(asked: &Asked, state: &str, all: Vec<Both<'_>>) -> Vec<Elsewhere> {
    let (rounds, time) = if asked.test { (1, 20) } else { (8, 300) };
    let time = Duration::from_millis(time);
    let mut all: Vec<_> = all.into_iter().map(|both| (both, Vec::new())).collect();
    for _ in 0..rounds {
        all.iter_mut().for_each(|(both, stretches)| stretches.push(both.busy(time)));
    }
    println!("\nread in another process beside a busy writer, {state}");
    let outcomes = all.into_iter().map(|(both, stretches)| {
        let seconds = stretches.iter().map(|(s, _)| s.nanos).sum::<u64>() as f64 / 1e9;
        let reads = stretches.iter().map(|(s, _)| s.reads).sum::<u64>() as f64 / seconds;
        let found = stretches.iter().map(|(s, _)| s.found).sum::<u64>() as f64 / seconds;
        let saves = stretches.iter().map(|(_, rate)| rate).sum::<f64>() / stretches.len() as f64;
        let last = stretches.last().map(|(s, _)| (s.found_p50, s.p99, s.longest));
        let (found_p50, p99, longest) = last.unwrap_or_default();
        println!(
            "    {:<44} {saves:.0} saves/s, {reads:.0} reads/s, {found:.0} new ones found/s; a read \
             that finds one {found_p50} ns (p50), all {p99} (p99), {longest} (longest)",
            both.kind,
        );
        Elsewhere {
            state: state.to_owned(),
            name: both.kind.to_owned(),
            saves,
            reads,
            found,
            found_p50: found_p50 as f64,
            p99: p99 as f64,
            longest: longest as f64,
        }
    });
    outcomes.collect()
}

/// All by turns, while nothing is saved.
fn idle(asked: &Asked, state: &str, all: Vec<Both<'_>>) -> Set {
    let mut duel = Duel::new(format!("read in another process, {state}"));
    duel.each_as_often_as_it_can();
    let rows: Vec<usize> = all
        .into_iter()
        .map(|mut both| duel.turns(both.kind, move |calls| both.idle(calls)))
        .collect();
    let [ours, _, unchecked, _] = rows[..] else { panic!("four that read") };
    duel.most(TARGET, ours, unchecked, 1.0);
    duel.run(asked)
}

macro_rules! state {
    ($name:ident, $Type:ident of $size:expr, |$value:ident| $change:expr) => {
        pub(crate) mod $name {
            use super::*;

            fn all() -> Vec<Both<'static>> {
                let state = stringify!($name);
                let ours = [OURS, OURS_HELD].map(|kind| {
                    let (scratch, mut $value) = (Scratch::new(ON), map_free::$Type::new($size, 1));
                    let dir = scratch.at("ring");
                    let ring = open::<map_free::$Type>(&dir, &quiet());
                    ring.save(&$value).expect("a save");
                    Both::new(state, kind, &dir, move || {
                        _ = &scratch;
                        $change;
                        ring.save(&$value).expect("a save");
                    })
                });
                let theirs = [SYNC, SYNC_CHECKED].map(|kind| {
                    let mut $value = mirror::$Type::new($size, 1);
                    let mut sync = MmapSync::patient(ON, GRACE);
                    sync.write(&$value);
                    let path = sync.path().to_owned();
                    Both::new(state, kind, &path, move || {
                        $change;
                        sync.write(&$value);
                    })
                });
                ours.into_iter().chain(theirs).collect()
            }

            pub(crate) fn idle(asked: &Asked) -> Set {
                super::idle(asked, stringify!($name), all())
            }

            pub(crate) fn busy(asked: &Asked) -> Vec<Elsewhere> {
                super::busy(asked, stringify!($name), all())
            }
        }
    };
}

state!(small, Player of SMALL, |value| value.experience += 1);
state!(room, World of ROOM, |value| value.tick += 1);

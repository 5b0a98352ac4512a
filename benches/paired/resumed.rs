#![forbid(unsafe_code)]
//! From the kill of a process that holds a world to its successor having that world as its own live
//! value. Both are processes of their own, started, killed and heard of by this one; the files are
//! on ext4 and in the page cache.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use snapring::{Caretaker, Options, Snapshot};
use snapring_bench::{
    duel::Duel,
    other::{Other, tell, told},
    peers::{
        codec::{Codec, Wincode},
        lmdb::{Lmdb, Writes},
        redb::Redb,
    },
    place::{Place, Scratch},
    results::Set,
    ring::{FEW, open},
    run::Asked,
    states::{PLAYERS, map_free, mirror, sorted},
};

const TARGET: u8 = 13;

/// The first word of a process that has a world and leaves it behind.
pub(crate) const HOLD: &str = "hold";

/// The first word of its successor.
pub(crate) const RESUME: &str = "resume";

/// A world in one of its shapes.
trait World {
    fn at(tick: u64) -> Self;
    /// Its tick, if all players are there.
    fn tick(&self) -> Option<u64>;
}

macro_rules! worlds {
    ($($shape:ident)*) => {$(
        impl World for $shape::World {
            fn at(tick: u64) -> Self {
                Self::new(PLAYERS, tick)
            }

            fn tick(&self) -> Option<u64> {
                let players: usize = self.rooms.iter().map(|room| room.players.len()).sum();
                (players == PLAYERS).then_some(self.tick)
            }
        }
    )*};
}

worlds! { map_free sorted mirror }

/// Where a world is left.
trait Keeper {
    type World: World;
    /// Opens what is in a directory that nobody else has open.
    fn open(dir: &Path) -> Self;
    /// Leaves it so that it outlives a kill.
    fn save(&mut self, world: &Self::World);
    /// What was left, as a value.
    fn resume(&mut self) -> Self::World;
}

struct Ring<T: Snapshot>(Caretaker<T>);

impl<T: Snapshot + World> Keeper for Ring<T> {
    type World = T;

    fn open(dir: &Path) -> Self {
        Ring(open(dir, &Options::new().ring(FEW)))
    }

    fn save(&mut self, world: &T) {
        self.0.save(world).expect("a save");
        // The peers have theirs on the disk; and no flush is under way when the process is killed.
        self.0.flush().expect("a flush");
    }

    fn resume(&mut self) -> T {
        self.0.resume().expect("a good snapshot").expect("what was left")
    }
}

struct InLmdb(Lmdb);

impl Keeper for InLmdb {
    type World = mirror::World;

    fn open(dir: &Path) -> Self {
        InLmdb(Lmdb::open(dir, Writes::Durable))
    }

    fn save(&mut self, world: &mirror::World) {
        self.0.put(Wincode::default().encode(world));
    }

    fn resume(&mut self) -> mirror::World {
        self.0.get(Wincode::decode)
    }
}

struct InRedb(Redb);

impl Keeper for InRedb {
    type World = mirror::World;

    fn open(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("a directory");
        InRedb(Redb::open(&dir.join("redb")))
    }

    fn save(&mut self, world: &mirror::World) {
        self.0.put(Wincode::default().encode(world));
    }

    fn resume(&mut self) -> mirror::World {
        self.0.get(Wincode::decode)
    }
}

struct InFile(PathBuf);

impl Keeper for InFile {
    type World = mirror::World;

    fn open(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("a directory");
        InFile(dir.join("world"))
    }

    fn save(&mut self, world: &mirror::World) {
        fs::write(&self.0, Wincode::default().encode(world)).expect("a file written");
        File::open(&self.0).and_then(|file| file.sync_all()).expect("a file flushed");
    }

    fn resume(&mut self) -> mirror::World {
        Wincode::decode(&fs::read(&self.0).expect("a file"))
    }
}

/// Leaves the world of a tick behind, and holds it until it is killed.
fn hold<K: Keeper>(dir: &Path, tick: u64) {
    let mut keeper = K::open(dir);
    let world = K::World::at(tick);
    keeper.save(&world);
    tell(HOLD);
    while told().is_some() {}
}

/// Has what was left, tells its tick, and keeps it until it is killed.
fn resume<K: Keeper>(dir: &Path) {
    let mut keeper = K::open(dir);
    let world = keeper.resume();
    tell(&world.tick().expect("all players").to_string());
    while told().is_some() {}
}

type Part = fn(&Path, Option<u64>);

/// Either, as there is a tick to begin at or not.
fn part<K: Keeper>(dir: &Path, tick: Option<u64>) {
    match tick {
        Some(tick) => hold::<K>(dir, tick),
        None => resume::<K>(dir),
    }
}

/// Two processes that have no world: what killing, starting and hearing take by themselves.
fn nothing(_: &Path, tick: Option<u64>) {
    tell(if tick.is_some() { HOLD } else { "0" });
    while told().is_some() {}
}

const SORTED: &str = "snapring open + resume, sorted maps";
const MAP_FREE: &str = "snapring open + resume, map-free";
const LMDB: &str = "LMDB get + wincode decode";
const REDB: &str = "redb get + wincode decode";
const FILE: &str = "a file read + wincode decode";
const NOTHING: &str = "no world: two processes";

/// Everything, by the names of the rows.
const KINDS: [(&str, Part); 6] = [
    (SORTED, part::<Ring<sorted::World>>),
    (MAP_FREE, part::<Ring<map_free::World>>),
    (LMDB, part::<InLmdb>),
    (REDB, part::<InRedb>),
    (FILE, part::<InFile>),
    (NOTHING, nothing),
];

/// One of the two processes, by the words that follow its first.
pub(crate) fn be(words: &[String]) {
    let [kind, dir, tick @ ..] = words else { panic!("which kind, where: {words:?}") };
    let (_, part) = KINDS.iter().find(|(name, _)| name == kind).expect("a kind there is");
    let tick = tick.first().map(|tick| tick.parse().expect("a tick"));
    part(Path::new(dir), tick);
}

/// Has one leave a world, kills it, and waits until its successor has the world.
fn kill_to_resumed(kind: &str, dir: &Path, tick: u64) -> Duration {
    let words = [kind.as_ref(), dir.as_os_str()];
    let first = |word: &'static str| std::iter::once(OsStr::new(word)).chain(words);
    let number = tick.to_string();
    let leave: Vec<&OsStr> = first(HOLD).chain([number.as_ref()]).collect();
    let mut holder = Other::start(&leave);
    assert_eq!(holder.hear(), HOLD, "it has left a world");

    let start = Instant::now();
    holder.kill();
    let mut successor = Other::start(&first(RESUME).collect::<Vec<_>>());
    let found = successor.hear();
    let took = start.elapsed();

    assert!(kind == NOTHING || found == number, "{found} is the world left at {tick}");
    took
}

/// All by turns.
pub(crate) fn resumed(asked: &Asked) -> Set {
    let mut duel = Duel::new("kill to resumed, world, ext4");
    let rows = KINDS.map(|(kind, _)| {
        let (scratch, mut tick) = (Scratch::new(Place::Ext4), 0);
        duel.timed(kind, move || {
            tick += 1;
            kill_to_resumed(kind, &scratch.at("world"), tick)
        })
    });
    let [sorted, _, lmdb, redb, file, _] = rows;
    [lmdb, redb, file].iter().for_each(|peer| duel.most(TARGET, sorted, *peer, 1.0));
    duel.run(asked)
}

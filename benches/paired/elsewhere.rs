#![forbid(unsafe_code)]
//! Reading the newest value in another process, while the writer here saves nothing and while it
//! saves as fast as it can. The times are those of the reading process: it is told how often to
//! read, and tells how long that took.

use std::{
    ffi::OsStr,
    hint::black_box,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use snapring_bench::{
    duel::Duel,
    other::{Other, tell, told},
    peers::mmap_sync::{self, MmapSync},
    place::{Place, Scratch},
    results::Set,
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

/// Reads as often as it is told, and tells how long that took, until nobody tells it any more.
fn serve(mut read: impl FnMut() -> u64) {
    tell(READ);
    while let Some(line) = told() {
        let calls: u64 = line.parse().expect("how often");
        let start = Instant::now();
        for _ in 0..calls {
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

/// Adds a row: another process reads, and `save` is called all the while if the writer is to be
/// busy.
fn reads<'a>(
    duel: &mut Duel<'a>,
    state: &str,
    kind: &str,
    path: &Path,
    busy: bool,
    mut save: impl FnMut() + 'a,
) -> usize {
    let words: [&OsStr; 4] = [READ.as_ref(), state.as_ref(), kind.as_ref(), path.as_os_str()];
    let mut other = Other::start(&words);
    assert_eq!(other.hear(), READ, "it has opened what there is to read");
    let ask = move |other: &mut Other, calls: u64| {
        other.say(&calls.to_string());
        Duration::from_nanos(other.hear().parse().expect("how long"))
    };
    duel.turns(kind, move |calls| {
        if !busy {
            return ask(&mut other, calls);
        }
        let (told, other) = (AtomicBool::new(false), &mut other);
        thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let took = ask(other, calls);
                // Relaxed: only to end some time soon.
                told.store(true, Ordering::Relaxed);
                took
            });
            // Relaxed: as above.
            while !told.load(Ordering::Relaxed) {
                save();
            }
            asking.join().expect("an answer")
        })
    })
}

macro_rules! sets {
    ($name:ident, $state:literal, $Type:ident of $size:expr) => {
        pub(crate) fn $name(asked: &Asked, busy: bool) -> Set {
            let writer = if busy { "busy" } else { "idle" };
            let mut duel = Duel::new(format!("read in another process, {} {writer}", $state));
            duel.each_as_often_as_it_can();
            let ours = [OURS, OURS_HELD].map(|kind| {
                let (scratch, mut value) = (Scratch::new(ON), map_free::$Type::new($size, 1));
                let dir = scratch.at("ring");
                let ring = open::<map_free::$Type>(&dir, &quiet());
                ring.save(&value).expect("a save");
                reads(&mut duel, $state, kind, &dir, busy, move || {
                    _ = &scratch;
                    next!($Type, value);
                    ring.save(&value).expect("a save");
                })
            });
            let theirs = [SYNC, SYNC_CHECKED].map(|kind| {
                let mut value = mirror::$Type::new($size, 1);
                let mut sync = MmapSync::patient(ON, GRACE);
                sync.write(&value);
                let path = sync.path().to_owned();
                reads(&mut duel, $state, kind, &path, busy, move || {
                    next!($Type, value);
                    sync.write(&value);
                })
            });
            duel.most(TARGET, ours[0], theirs[0], 1.0);
            duel.most(TARGET, ours[0], theirs[1], 1.0);
            duel.run(asked)
        }
    };
}

/// The field that is read, changed.
macro_rules! next {
    (Player, $value:ident) => {
        $value.experience += 1
    };
    (World, $value:ident) => {
        $value.tick += 1
    };
}

sets!(small, "small", Player of SMALL);
sets!(room, "room", World of ROOM);

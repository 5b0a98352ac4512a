//! A disk that fills up must be told of, not died of.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use snapring::{Caretaker, Durability, Event, Events, Options, SaveError, SnapshotId};

use super::Campaign;
use crate::{
    board::{Board, Report},
    dice::Dice,
    life::{in_full, open, open_and_tell},
    mount::{Volume, be_private, mount, unmount},
    oracle::{Cause, Oracle},
    process::{End, caught, fork},
    run::Run,
    world::{World, look, tick, world},
};

pub(crate) static CAMPAIGN: Campaign = Campaign {
    name: "full-disk",
    claim: "full disks that killed a process, changed a ring or were not told of",
    unit: "disks",
    long: 2_000,
    short: 60,
    help: "\
Leaves a random amount of room on a tmpfs and on an ext4 of a few MiB, saves ever larger states there
until a save is refused (or a sync fails), and some more. A refused save names the lack of space and
leaves the ring as it was; no signal ends the process (a store to a page that the disk cannot back would
be a SIGBUS); and when room is made again, the next save succeeds. Some processes are killed then, some
close; the next opening finds what had been reported. Opening itself is refused where there is no room
for the files, and succeeds later.

On a third file system the blocks that ext4 has reserved are not there: a sparse image on a tmpfs that is
too small for it. There syncs fail, and are told; nothing else is promised, nor looked at but that the
process lives and goes on saving.

Needs root; for ext4 loop devices and mkfs.ext4.",
    run,
};

const RING: usize = 4;

/// A file system to fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Memory,
    Ext4,
    Thin,
}

fn run(run: &mut Run) -> Result<(), String> {
    if let Err(why) = be_private() {
        run.skip("every disk", why);
        return Ok(());
    }
    let scratch = run.memory.join("full-disk");
    std::fs::create_dir_all(&scratch).map_err(|error| error.to_string())?;
    let mut kinds: Vec<(Kind, &str)> = Vec::new();
    for (kind, name) in [(Kind::Memory, "tmpfs"), (Kind::Ext4, "ext4"), (Kind::Thin, "thin ext4")] {
        match Place::new(&scratch, kind) {
            Ok(_) => kinds.push((kind, name)),
            Err(why) => run.skip(name, why),
        }
    }
    let mut dice = Dice::new(run.seed);
    let board = Board::new();
    while !kinds.is_empty() && !run.is_done() {
        let (kind, name) = kinds[(run.so_far() % kinds.len() as u64) as usize];
        let place = Place::new(&scratch, kind)?;
        if let Err(error) = fill_one(run, &board, &place.at, kind, dice.next()) {
            let number = run.so_far();
            run.fail(format!("disk {number}, {name}: {error}; {}", board.remarked()));
        }
        run.fact(name, 1);
        run.tried(1);
    }
    Ok(())
}

/// A mounted file system, new.
struct Place {
    at: PathBuf,
    volume: Option<Volume>,
    /// What is to be unmounted after it.
    under: Option<PathBuf>,
}

impl Place {
    fn new(scratch: &Path, kind: Kind) -> Result<Place, String> {
        let tmpfs = |at: &Path, options: &str| {
            std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
            mount(Path::new("none"), at, Some("tmpfs"), 0, options)
        };
        let at = scratch.join("tmpfs");
        match kind {
            Kind::Memory => {
                tmpfs(&at, "size=3m,mode=700")?;
                Ok(Place { at: at.clone(), volume: None, under: Some(at) })
            }
            Kind::Ext4 => {
                let volume = Volume::new(scratch, "ext4", 6 << 20)?;
                Ok(Place { at: volume.path().to_owned(), volume: Some(volume), under: None })
            }
            Kind::Thin => {
                let under = scratch.join("thin");
                tmpfs(&under, "size=3m")?;
                let mut place = Place { at: PathBuf::new(), volume: None, under: Some(under) };
                let under = place.under.clone().unwrap_or_default();
                let volume = Volume::new(&under, "ext4", 32 << 20)?;
                place.at = volume.path().to_owned();
                place.volume = Some(volume);
                Ok(place)
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.volume.take());
        self.under.as_deref().map(unmount);
    }
}

fn options(durability: Durability) -> Options {
    let options = Options::new().ring(RING as u32).durability(durability);
    options.file_size(1).max_file_size(64 << 20)
}

fn fill_one(run: &mut Run, board: &Board, at: &Path, kind: Kind, seed: u64) -> Result<(), String> {
    board.wipe();
    let mut child = fork(|| live(board, at, kind, seed));
    let end = child.wait();
    if let Some(complaint) = board.complaint() {
        return Err(complaint);
    }
    if end != End::Exit(0) {
        return Err(format!("it ended with {end:?}"));
    }
    let reports = board.all();
    let told = reports.iter().filter(|report| matches!(report, Report::Told { .. })).count();
    run.fact("saves and openings refused, and syncs that failed", told as u64);
    if kind == Kind::Thin {
        return Ok(());
    }
    let mut oracle = Oracle::new(RING);
    oracle.hear(&reports, Cause::Kill, false)?;
    board.wipe();
    let mut checker = fork(|| {
        let found = || open_and_tell(board, &at.join("ring"), &options(Durability::Process));
        done(board, caught(|| found().map(drop)))
    });
    let end = checker.wait();
    if let Some(complaint) = board.complaint() {
        return Err(format!("afterwards: {complaint}"));
    }
    if end != End::Exit(0) {
        return Err(format!("afterwards: looking at it ended with {end:?}"));
    }
    oracle.hear(&board.all(), Cause::Kill, false)
}

fn done(board: &Board, done: Result<(), String>) -> i32 {
    match done {
        Ok(()) => 0,
        Err(error) => {
            board.complain(&error);
            1
        }
    }
}

/// Bytes that may still be taken from a file system.
fn room(at: &Path) -> u64 {
    let Ok(dir) = File::open(at) else { return 0 };
    // SAFETY: a structure of integers, for which zero is a value.
    let mut told: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor, and a whole structure to fill.
    if unsafe { libc::fstatvfs(dir.as_raw_fd(), &mut told) } != 0 {
        return 0;
    }
    told.f_bavail * told.f_frsize
}

/// Takes room until `left` bytes are left.
fn fill(at: &Path, left: u64) -> io::Result<()> {
    let file = File::create(at.join("filler"))?;
    let take = room(at).saturating_sub(left) as i64;
    if take > 0 {
        // SAFETY: an open descriptor; what cannot be had is not.
        unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, take) };
    }
    Ok(())
}

fn live(board: &Board, at: &Path, kind: Kind, seed: u64) -> i32 {
    done(board, caught(|| fill_and_save(board, at, kind, &mut Dice::new(seed))))
}

fn fill_and_save(board: &Board, at: &Path, kind: Kind, dice: &mut Dice) -> Result<(), String> {
    let told = |error: io::Error| error.to_string();
    if kind != Kind::Thin {
        fill(at, dice.below(1 << 20)).map_err(told)?;
    }
    let durability = *dice.pick(&[Durability::Process, Durability::Sync]);
    let options = options(durability);
    let dir = at.join("ring");
    let mut full = true;
    let caretaker = match open(&dir, &options) {
        Ok(caretaker) => caretaker,
        Err(error) if error.contains("o space") || error.contains("nput/output") => {
            board.say(Report::Told { id: 0 });
            std::fs::remove_file(at.join("filler")).map_err(told)?;
            full = false;
            open(&dir, &options)?
        }
        Err(error) => return Err(error),
    };
    let mut saving = Saving { board, events: caretaker.subscribe(), caretaker: &caretaker, kind };
    let mut ground = 1 + dice.below(8 << 10);
    let (mut refused, mut serial) = (0, 0);
    while full && refused < 3 && serial < 60 {
        serial += 1;
        refused += u64::from(!saving.save(tick(serial, ground))?);
        if refused == 0 {
            ground = (ground * 5 / 4).min(300 << 10);
        } else if dice.once_in(2) {
            // What is small may still fit.
            saving.save(tick(1000 + serial, 10))?;
        }
    }
    if full && kind != Kind::Thin {
        std::fs::remove_file(at.join("filler")).map_err(told)?;
    }
    let size = if kind == Kind::Memory { 20 << 10 } else { 60 << 10 };
    let fits = saving.save(tick(3000, size))?;
    if !fits && kind != Kind::Thin {
        return Err("there is room again, and a save is refused".to_owned());
    }
    if dice.once_in(2) {
        board.say(Report::Closing);
        match caretaker.close() {
            Ok(id) => board.say(Report::Flushed { durable: id.map_or(0, SnapshotId::get) }),
            Err(_) if kind == Kind::Thin => board.say(Report::Told { id: 0 }),
            Err(error) => return Err(format!("close: {}", in_full(&error))),
        }
    } else {
        std::mem::forget(caretaker);
    }
    Ok(())
}

struct Saving<'a> {
    board: &'a Board,
    events: Events,
    caretaker: &'a Caretaker<World>,
    kind: Kind,
}

impl Saving<'_> {
    /// `false`: refused for want of space, with everything as it was.
    fn save(&mut self, number: u64) -> Result<bool, String> {
        let live = world(number);
        let before = look(self.caretaker)?;
        self.board.say(Report::Saving { tick: live.tick });
        let saved = self.caretaker.save(&live);
        while let Some(event) = self.events.try_next() {
            if let Event::Evicted { id } = event {
                self.board.say(Report::Evicted { id: id.get() });
            }
        }
        match saved {
            Ok(id) => self.board.say(Report::Published { id: id.get(), tick: live.tick }),
            Err(SaveError::NoSpace { .. }) => {
                self.board.say(Report::Told { id: 0 });
                self.board.say(Report::Refused);
                let after = look(self.caretaker)?;
                if before != after {
                    return Err(format!("a refused save changed {before:?} to {after:?}"));
                }
                return Ok(false);
            }
            Err(SaveError::NotDurable { id, .. }) if self.kind == Kind::Thin => {
                self.board.say(Report::Told { id: id.get() });
                self.board.say(Report::Published { id: id.get(), tick: live.tick });
            }
            Err(SaveError::Write { .. }) if self.kind == Kind::Thin => {
                self.board.say(Report::Told { id: 0 });
                self.board.say(Report::Refused);
                return Ok(false);
            }
            Err(error) => return Err(format!("save: {}", in_full(&error))),
        }
        Ok(true)
    }
}

//! A disk that says no must be heard, and believed.

use std::{path::Path, time::Duration};

use snapring::{Caretaker, Durability, Event, Events, Options, SaveError, SnapshotId};

use super::Campaign;
use crate::{
    board::{Board, Report},
    dice::Dice,
    life::{in_full, open, open_and_tell},
    medium::{Call, Medium},
    mount::{Boot, be_private},
    oracle::{Cause, Oracle},
    process::{End, caught, fork, nap},
    run::Run,
    world::{World, label, tick, world},
};

pub(crate) static CAMPAIGN: Campaign = Campaign {
    name: "sync-errors",
    claim: "write or sync errors that went unreported or were followed by a false claim",
    unit: "faults",
    long: 10_000,
    short: 100,
    help: "\
Runs a life on a disk of our own, behind a file system in user space (FUSE), of which the first write
fails, then the second, and so on until the life is over before the fault is reached; the same for syncs
(of files and directories) and for reservations of space; with EIO and with ENOSPC; once, three times,
and until the disk is healed at the end; durable on request, in the background, and before each save
returns. A failed write or sync loses its bytes for good, and the page cache goes on showing them.

Every failed write and sync must be told by the call it met or by a later flush, close, save or event
(a file that can be grown less than hoped is none of them). What was called
durable, by then or after the disk has healed, must be on the medium: a copy of what has really been
synced is opened under a new boot id. After the disk has healed, saves must succeed. Opening the
directory again may fail only while the disk does.

Needs root and FUSE.",
    run,
};

const RING: usize = 4;

/// The error, and how often it comes.
const WAYS: [(i32, u64); 5] = [
    (libc::EIO, 1),
    (libc::ENOSPC, 1),
    (libc::EIO, 3),
    (libc::EIO, u64::MAX),
    (libc::ENOSPC, u64::MAX),
];

/// One fault, and the life that meets it.
#[derive(Debug, Clone, Copy)]
struct Fault {
    call: Call,
    after: u64,
    errno: i32,
    times: u64,
    durability: Durability,
    seed: u64,
}

fn run(run: &mut Run) -> Result<(), String> {
    let scratch = run.memory.join("sync-errors");
    std::fs::create_dir_all(&scratch).map_err(|error| error.to_string())?;
    let (at, copy) = (scratch.join("mounted"), scratch.join("copy"));
    let prepared = be_private()
        .and_then(|()| Boot::pretend(&scratch))
        .and_then(|boot| Ok((boot, Medium::mount(&at, &copy)?)));
    let (boot, mut medium) = match prepared {
        Ok(prepared) => prepared,
        Err(why) => {
            run.skip("every fault", why);
            return Ok(());
        }
    };
    let background = Durability::Background { within: Duration::from_millis(2) };
    let mut dice = Dice::new(run.seed);
    let board = Board::new();
    // The shortest run has every call of every durability, with one way to fail each.
    let mut pass = 0;
    while !run.is_done() {
        let seed = dice.next();
        let mut ways = WAYS.iter().cycle().skip(pass);
        pass += 1;
        for durability in [Durability::Process, background, Durability::Sync] {
            for call in [Call::Write, Call::Sync, Call::Reserve] {
                let (errno, times) = *ways.next().unwrap_or(&WAYS[0]);
                for after in 0.. {
                    let fault = Fault { call, after, errno, times, durability, seed };
                    boot.set(2 * run.so_far() + 2)?;
                    let hit = try_one(run, &boot, &mut medium, &board, &at, &copy, fault)?;
                    if !hit {
                        break;
                    }
                    run.tried(1);
                }
            }
        }
    }
    run.fact("passes, every fault each", pass as u64);
    Ok(())
}

/// One life with one fault; whether it was met. Failures are noted.
fn try_one(
    run: &mut Run,
    boot: &Boot,
    medium: &mut Medium,
    board: &Board,
    at: &Path,
    copy: &Path,
    fault: Fault,
) -> Result<bool, String> {
    medium.empty()?;
    board.wipe();
    medium.arm(fault.call, fault.after, fault.errno, fault.times);
    let dir = at.join(format!("ring {}", run.so_far()));
    let mut child = fork(|| live(board, &dir, fault, || medium.heal()));
    let end = child.wait_or_kill(Duration::from_secs(60));
    let hits = medium.hits();
    medium.heal();
    let mut complain = |what: String| run.fail(format!("{fault:?}: {what}"));
    if let Some(complaint) = board.complaint() {
        complain(complaint);
    }
    if end != Some(End::Exit(0)) {
        complain(format!("the life ended with {end:?}"));
        return Ok(hits > 0);
    }
    let reports = board.all();
    let told = reports.iter().filter(|report| matches!(report, Report::Told { .. })).count();
    // Where no more space can be had than is needed, nothing is lost.
    if hits > 0 && told == 0 && fault.call != Call::Reserve {
        complain("nobody told of the error".to_owned());
    }
    let mut oracle = Oracle::new(RING);
    if let Err(error) = oracle.hear(&reports, Cause::Kill, false) {
        complain(error);
    }
    let (durable, healed) = (oracle.durable(), oracle.durable() >= oracle.highest());
    // What the disk really has.
    medium.copy()?;
    boot.set(2 * run.so_far() + 3)?;
    board.wipe();
    let mut checker = fork(|| check(board, copy));
    let end = checker.wait();
    let mut complain = |what: String| run.fail(format!("{fault:?}: {what}; {}", board.remarked()));
    if let Some(complaint) = board.complaint() {
        complain(format!("what is on the medium: {complaint}"));
    } else if end != End::Exit(0) {
        complain(format!("looking at the medium ended with {end:?}"));
    } else if let Err(error) = oracle.hear(&board.all(), Cause::PowerCut, false) {
        complain(format!("what is on the medium: {error}"));
    }
    run.fact("errors told", told as u64);
    run.fact("faults met while something was durable", u64::from(hits > 0 && durable > 0));
    run.fact("lives after which everything was durable", u64::from(hits > 0 && healed));
    Ok(hits > 0)
}

/// Looks at the medium's copy.
fn check(board: &Board, dir: &Path) -> i32 {
    let done = caught(|| {
        // A file system that lost all its names is a directory that is made anew.
        open_and_tell(board, dir, &options(Durability::Process)).map(drop)
    });
    done.map_or_else(
        |error| {
            board.complain(&error);
            1
        },
        |()| 0,
    )
}

fn options(durability: Durability) -> Options {
    let options = Options::new().ring(RING as u32).durability(durability);
    options.file_size(1).max_file_size(4 << 20).allow_remote(true)
}

/// The life: whatever says no is told; what must not fail, complains.
fn live(board: &Board, dir: &Path, fault: Fault, heal: impl Fn()) -> i32 {
    let done = caught(|| {
        let options = options(fault.durability);
        let caretaker = match open(dir, &options) {
            Ok(caretaker) => caretaker,
            Err(_) => {
                board.say(Report::Told { id: 0 });
                heal();
                // Nothing was promised; now it must open.
                open(dir, &options)?
            }
        };
        Life { board, events: caretaker.subscribe(), caretaker: &caretaker, serial: 0 }
            .lead(fault.seed, heal)?;
        match caretaker.close() {
            Ok(durable) => board.say(Report::Flushed { durable: number(durable) }),
            Err(_) => board.say(Report::Told { id: 0 }),
        }
        Ok(())
    });
    match done {
        Ok(()) => 0,
        Err(error) => {
            board.complain(&error);
            1
        }
    }
}

fn number(id: Option<SnapshotId>) -> u64 {
    id.map_or(0, SnapshotId::get)
}

struct Life<'a> {
    board: &'a Board,
    caretaker: &'a Caretaker<World>,
    events: Events,
    serial: u64,
}

impl Life<'_> {
    fn lead(mut self, seed: u64, heal: impl Fn()) -> Result<(), String> {
        let mut dice = Dice::new(seed);
        for round in 0..4 {
            for _ in 0..1 + dice.below(3) {
                self.save(dice.below(5000), true)?;
            }
            match round {
                0 => self.flush(),
                1 => {
                    let newest = self.caretaker.head().map_or(1, SnapshotId::get);
                    self.board.say(Report::Keeping { id: newest, label: 1 });
                    match self.caretaker.keep(SnapshotId::new(newest), &label(1)) {
                        Ok(()) => self.board.say(Report::Done),
                        Err(_) => self.board.say(Report::Refused),
                    }
                    self.flush();
                }
                // Grows the files.
                2 => self.save(20 << 10, true)?,
                _ => self.roll_back()?,
            }
            nap(Duration::from_millis(3));
            self.listen();
        }
        self.flush();
        heal();
        // Told once more, perhaps; then all is well.
        self.save(100, true)?;
        for _ in 0..10 {
            self.flush();
            if self.caretaker.flush().is_ok() {
                break;
            }
            nap(Duration::from_millis(2));
        }
        self.save(100, false)
    }

    /// Events, and what is durable by now.
    fn listen(&mut self) {
        while let Some(event) = self.events.try_next() {
            match event {
                Event::Failed { .. } => self.board.say(Report::Told { id: 0 }),
                Event::Evicted { id } => self.board.say(Report::Evicted { id: id.get() }),
                _ => {}
            }
        }
        self.board.say(Report::Durable { id: number(self.caretaker.durable()) });
    }

    /// `may_tell`: the disk may have something to say. Then it is published all the same.
    fn save(&mut self, ground: u64, may_tell: bool) -> Result<(), String> {
        self.serial += 1;
        let live = world(tick(self.serial, ground));
        self.board.say(Report::Saving { tick: live.tick });
        let saved = self.caretaker.save(&live);
        self.listen_for_evictions();
        let id = match saved {
            Ok(id) => id,
            Err(SaveError::NotDurable { id, .. }) if may_tell => {
                self.board.say(Report::Told { id: id.get() });
                id
            }
            Err(SaveError::NoSpace { .. } | SaveError::Write { .. }) if may_tell => {
                self.board.say(Report::Told { id: 0 });
                self.board.say(Report::Refused);
                return Ok(());
            }
            Err(error) => return Err(format!("save: {}", in_full(&error))),
        };
        self.board.say(Report::Published { id: id.get(), tick: live.tick });
        Ok(())
    }

    fn listen_for_evictions(&mut self) {
        while let Some(event) = self.events.try_next() {
            match event {
                Event::Failed { .. } => self.board.say(Report::Told { id: 0 }),
                Event::Evicted { id } => self.board.say(Report::Evicted { id: id.get() }),
                _ => {}
            }
        }
    }

    fn roll_back(&mut self) -> Result<(), String> {
        let Some(to) = self.caretaker.history().last().map(|entry| entry.id()) else {
            return Ok(());
        };
        let mut live = world(0);
        self.board.say(Report::Rolling { to: to.get() });
        let done = self.caretaker.rollback(&mut live, to);
        self.listen_for_evictions();
        let head = self.caretaker.head();
        match done {
            Ok(done) => {
                self.board.say(Report::Published { id: done.id().get(), tick: live.tick });
            }
            // Published, and not on the disk.
            Err(_) if head.is_some_and(|head| head > to) && live.tick > 0 => {
                self.board.say(Report::Told { id: 0 });
                self.board.say(Report::Published { id: number(head), tick: live.tick });
            }
            Err(error) => return Err(format!("rollback: {}", in_full(&error))),
        }
        Ok(())
    }

    fn flush(&mut self) {
        self.board.say(Report::Flushing);
        match self.caretaker.flush() {
            Ok(durable) => self.board.say(Report::Flushed { durable: number(durable) }),
            Err(_) => {
                self.board.say(Report::Told { id: 0 });
                self.board.say(Report::Refused);
            }
        }
        self.listen();
    }
}

//! A machine that loses its power must not lose what was called durable.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use snapring::Durability;

use super::Campaign;
use crate::{
    board::{Board, Report},
    dice::Dice,
    life::{Plan, RING, lead},
    mount::{Boot, Volume, be_private, write_back},
    oracle::{Cause, Oracle},
    process::{End, fork, nap, sleep_exactly},
    run::Run,
};

pub(crate) static CAMPAIGN: Campaign = Campaign {
    name: "power",
    claim: "durable snapshots lost to power cuts",
    unit: "cuts",
    long: 20_000,
    short: 400,
    help: "\
Cuts the power of real file systems, ext4 and XFS by turns, on loop devices: a child leads a life as in
`lives`, most lives flushing in the background or before each save returns, and at a random moment the
file system is shut down by ioctl without writing its log (once in eight cuts after writing it), the
child is killed, and the device is mounted again under a new boot id. Before that some pages, drawn at
random, have been written back behind snapring's back. The next life must find every listed snapshot
that `durable()`, `flush` or `close` had covered, whole, and one at least as new as the newest of those,
listed or not; whatever else it finds was published, or in the
making, and is whole or refused; no id is given out twice, not even one that was lost.

Directories are made anew every so often, so that a cut comes soon after the first opening, too.

What is called durable after the shutdown began does not count: a sync that is under way then may answer
yes (ext4's does, at times), as none can without power.

Not covered: sectors torn inside a page, and a device that acknowledges what it has not written.
Needs root, loop devices, mkfs.ext4 and mkfs.xfs.",
    run,
};

/// A file system, a directory on it, and what is known of it.
struct Seat {
    volume: Volume,
    name: &'static str,
    dir: PathBuf,
    oracle: Oracle,
    board: Board,
    cuts: u64,
    until: u64,
}

impl Seat {
    fn new(scratch: &Path, name: &'static str, bytes: u64) -> Result<Seat, String> {
        let volume = Volume::new(scratch, name, bytes)?;
        let (oracle, board) = (Oracle::new(RING), Board::new());
        Ok(Seat { volume, name, dir: PathBuf::new(), oracle, board, cuts: 0, until: 0 })
    }

    /// A new directory every so often.
    fn renew(&mut self, number: u64, dice: &mut Dice) {
        if self.cuts < self.until {
            return;
        }
        // What was removed before may be back after a cut.
        for old in std::fs::read_dir(self.volume.path()).into_iter().flatten().flatten() {
            _ = std::fs::remove_dir_all(old.path());
        }
        self.dir = self.volume.path().join(format!("ring {number}"));
        self.oracle = Oracle::new(RING);
        (self.cuts, self.until) = (0, 1 + dice.below(20));
    }
}

fn run(run: &mut Run) -> Result<(), String> {
    sleep_exactly();
    if let Err(why) = be_private() {
        run.skip("every cut", why);
        return Ok(());
    }
    let scratch = run.memory.join("power");
    std::fs::create_dir_all(&scratch).map_err(|error| error.to_string())?;
    let boot = match Boot::pretend(&scratch) {
        Ok(boot) => boot,
        Err(why) => {
            run.skip("every cut", why);
            return Ok(());
        }
    };
    let mut seats = Vec::new();
    for (name, bytes) in [("ext4", 128 << 20), ("xfs", 300 << 20)] {
        match Seat::new(&scratch, name, bytes) {
            Ok(seat) => seats.push(seat),
            Err(why) => run.skip(name, why),
        }
    }
    let mut dice = Dice::new(run.seed);
    while !seats.is_empty() && !run.is_done() {
        let number = run.so_far();
        let at = (number % seats.len() as u64) as usize;
        let seat = &mut seats[at];
        seat.renew(number, &mut dice);
        seat.cuts += 1;
        boot.set(number + 2)?;
        if let Err(error) = live(run, seat, &mut dice)? {
            let Seat { name, cuts, board, .. } = seat;
            run.fail(format!(
                "cut {number}, {name}, of its directory {cuts}: {error}; {}",
                board.remarked()
            ));
            // What is wrong once is wrong in every life after.
            seat.until = 0;
        }
        run.fact(if seat.name == "ext4" { "cuts on ext4" } else { "cuts on xfs" }, 1);
        run.tried(1);
    }
    Ok(())
}

/// One life and its cut. The inner error is snapring's, the outer one ours.
fn live(run: &mut Run, seat: &mut Seat, dice: &mut Dice) -> Result<Result<(), String>, String> {
    let durability = match dice.below(8) {
        0..3 => Durability::Sync,
        3..7 => Durability::Background { within: Duration::from_micros(500 + dice.below(3000)) },
        _ => Durability::Process,
    };
    let plan = Plan {
        durability,
        seed: dice.next(),
        serial: seat.oracle.serial(),
        flushes: 1,
        operations: if dice.once_in(20) { dice.below(40) } else { u64::MAX },
    };
    seat.board.wipe();
    let mut child = fork(|| lead(&seat.board, &seat.dir, &plan));
    if dice.once_in(4) {
        nap(Duration::from_micros(dice.below(2000)));
    } else {
        let opened = |report: &Report| matches!(report, Report::Opened { .. });
        while child.ended().is_none() && !seat.board.first(64).iter().any(opened) {
            nap(Duration::from_micros(50));
        }
        nap(Duration::from_micros(dice.below(5000)));
    }
    if dice.once_in(2) {
        write_some_back(&seat.dir, dice);
    }
    let early = child.ended();
    let complaint = seat.board.complaint();
    let log_too = dice.once_in(8);
    let told_in_time = seat.board.len();
    seat.volume.cut(log_too)?;
    child.kill();
    seat.volume.unmount()?;
    seat.volume.mount()?;
    if let Some(complaint) = complaint {
        return Ok(Err(complaint));
    }
    match early {
        None => {}
        Some(End::Exit(0)) => run.fact("lives that closed before the cut", 1),
        Some(other) => return Ok(Err(format!("it ended with {other:?} before the cut"))),
    }
    // A sync that was under way when the file system was shut down may answer yes all the same, as
    // none can without power: what was called durable after that was not said.
    let mut reports = seat.board.all();
    for report in reports.iter_mut().skip(told_in_time) {
        if let Report::Durable { .. } | Report::Flushed { .. } = report {
            *report = Report::Refused;
        }
    }
    let saved = reports.iter().filter(|r| matches!(r, Report::Published { .. })).count() as u64;
    run.fact("snapshots reported", saved);
    let heard = seat.oracle.hear(&reports, Cause::PowerCut, durability != Durability::Process);
    run.fact("cuts after which something was durable", u64::from(seat.oracle.durable() > 0));
    Ok(heard)
}

/// Some pages go to the disk that nobody asked for.
fn write_some_back(dir: &Path, dice: &mut Dice) {
    let name = *dice.pick(&["snapshot_a.bin", "snapshot_b.bin"]);
    let Ok(file) = File::open(dir.join(name)) else { return };
    let pages = file.metadata().map_or(0, |meta| meta.len() / 4096).max(1);
    for _ in 0..dice.below(6) {
        write_back(&file, dice.below(pages) * 4096, (1 + dice.below(3)) * 4096);
    }
}

#![forbid(unsafe_code)]
//! A process killed at any moment must not lose what it had reported.

use std::{path::PathBuf, time::Duration};

use snapring::Durability;

use super::Campaign;
use crate::{
    board::{Board, Report},
    dice::Dice,
    life::{Plan, RING, lead},
    oracle::{Cause, Oracle},
    process::{End, fork, nap, sleep_exactly},
    run::Run,
};

pub(crate) static CAMPAIGN: Campaign = Campaign {
    name: "lives",
    claim: "published snapshots lost to kill -9",
    unit: "lives",
    long: 100_000,
    short: 2_000,
    help: "\
A child opens a directory, tells what it finds, and then saves, rolls back, keeps, releases, flushes
and grows the files, reporting each step on a board in shared memory, until it is killed (SIGKILL) at a
random moment: while it opens, or at some operation. The next life must find exactly what had been
reported and not evicted, each snapshot whole and under its label, plus at most the one in the making;
no id twice, no slot rejected, nothing durable that is no longer. Lives alternate between a directory
in memory and one on the disk, and between the ways to be durable; directories are made anew every so
often, so that making them and growing the files is cut short as well.

Not covered: a kill between two instructions of the kernel's own work. For kills at every instruction
see `steps`.",
    run,
};

/// A directory, and what is known of it.
struct Seat {
    root: PathBuf,
    dir: PathBuf,
    oracle: Oracle,
    board: Board,
    lives: u64,
    until: u64,
}

impl Seat {
    fn new(root: PathBuf) -> Seat {
        let oracle = Oracle::new(RING);
        Seat { root, dir: PathBuf::new(), oracle, board: Board::new(), lives: 0, until: 0 }
    }

    /// A new directory every so often.
    fn renew(&mut self, dice: &mut Dice) -> Result<(), String> {
        if self.lives < self.until {
            return Ok(());
        }
        _ = std::fs::remove_dir_all(&self.root);
        std::fs::create_dir_all(&self.root).map_err(|e| format!("{}: {e}", self.root.display()))?;
        self.dir = self.root.join("ring");
        self.oracle = Oracle::new(RING);
        (self.lives, self.until) = (0, 1 + dice.below(100));
        Ok(())
    }
}

fn run(run: &mut Run) -> Result<(), String> {
    sleep_exactly();
    let mut dice = Dice::new(run.seed);
    let mut seats = [Seat::new(run.memory.join("lives")), Seat::new(run.disk.join("lives"))];
    while !run.is_done() {
        let seat = &mut seats[(run.so_far() % 2) as usize];
        seat.renew(&mut dice)?;
        seat.lives += 1;
        if let Err(error) = live(run, seat, &mut dice) {
            let (life, dir) = (run.so_far(), seat.dir.display());
            run.fail(format!(
                "life {life} in {dir} (its number {}): {error}; {}",
                seat.lives,
                seat.board.remarked()
            ));
            // What is wrong once is wrong in every life after.
            seat.until = 0;
        }
        run.tried(1);
    }
    Ok(())
}

fn live(run: &mut Run, seat: &mut Seat, dice: &mut Dice) -> Result<(), String> {
    let durability = match dice.below(8) {
        0 => Durability::Sync,
        1..4 => Durability::Background { within: Duration::from_millis(1 + dice.below(3)) },
        _ => Durability::Process,
    };
    let plan = Plan {
        durability,
        seed: dice.next(),
        serial: seat.oracle.serial(),
        flushes: 4,
        operations: if dice.once_in(50) { dice.below(40) } else { u64::MAX },
    };
    seat.board.wipe();
    let mut child = fork(|| lead(&seat.board, &seat.dir, &plan));
    if dice.once_in(4) {
        // While it opens, or soon after.
        nap(Duration::from_micros(dice.below(800)));
    } else {
        while child.ended().is_none() && !has_opened(&seat.board) {
            nap(Duration::from_micros(20));
        }
        nap(Duration::from_micros(dice.below(600)));
    }
    let end = child.kill();
    if let Some(complaint) = seat.board.complaint() {
        return Err(complaint);
    }
    match end {
        End::Signal(libc::SIGKILL) => {}
        End::Exit(0) => run.fact("lives that closed by themselves", 1),
        other => return Err(format!("it ended with {other:?}")),
    }
    let reports = seat.board.all();
    run.fact("operations", reports.len() as u64);
    if has_opened(&seat.board) {
        run.fact("lives that were past opening", 1);
    }
    let saved = |report: &&Report| matches!(report, Report::Published { .. });
    run.fact("snapshots reported", reports.iter().filter(saved).count() as u64);
    seat.oracle.hear(&reports, Cause::Kill, durability != Durability::Process)
}

/// What is found is told first, then that it has opened.
fn has_opened(board: &Board) -> bool {
    board.first(64).iter().any(|report| matches!(report, Report::Opened { .. }))
}

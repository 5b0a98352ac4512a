#![forbid(unsafe_code)]
//! A process that dies for want of memory must leave what it had published.

use std::path::Path;

use snapring::{Caretaker, Durability, Options, SnapshotId};

use super::Campaign;
use crate::{
    alloc::{fail_after, fail_no_more},
    board::{Board, Report},
    dice::Dice,
    life::{in_full, open, open_and_tell},
    mirror::{Image, lay_out},
    oracle::{Cause, Oracle},
    process::{End, be_silent, caught, exit, fork},
    run::Run,
    world::{World, label, number_of, tick, world},
};

pub(crate) static CAMPAIGN: Campaign = Campaign {
    name: "allocations",
    claim: "allocations whose failure leaves a directory that is not what was reported",
    unit: "allocations",
    long: 50_000,
    short: 800,
    help: "\
Lets the first allocation of an operation fail, then the second, and so on until the operation completes
without meeting it: making a directory, opening, the first save, a save, one that makes the files grow,
rolling back, keeping, flushing, subscribing, thawing and closing. Mostly Rust ends the process then,
which is a child; where an error comes back instead, the child goes on and saves. The next opening must
find what had been reported, as after a kill.

The background thread's allocations count with the others.",
    run,
};

const RING: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Create,
    Open,
    FirstSave,
    Save,
    Grow,
    RollBack,
    Keep,
    Flush,
    Subscribe,
    Thaw,
    Close,
}

const OPERATIONS: [(Operation, &str); 11] = [
    (Operation::Create, "allocations of making a directory"),
    (Operation::Open, "allocations of opening"),
    (Operation::FirstSave, "allocations of the first save"),
    (Operation::Save, "allocations of saving"),
    (Operation::Grow, "allocations of saving and growing"),
    (Operation::RollBack, "allocations of rolling back"),
    (Operation::Keep, "allocations of keeping"),
    (Operation::Flush, "allocations of flushing"),
    (Operation::Subscribe, "allocations of subscribing"),
    (Operation::Thaw, "allocations of thawing"),
    (Operation::Close, "allocations of closing"),
];

/// How a child ends whose operation came back before the failing allocation.
const NOT_MET: i32 = 5;

fn options() -> Options {
    let options = Options::new().ring(RING as u32).durability(Durability::Process);
    options.file_size(1).max_file_size(8 << 20)
}

fn run(run: &mut Run) -> Result<(), String> {
    let mut dice = Dice::new(run.seed);
    let board = Board::new();
    let dir = run.memory.join("allocations");
    // The shortest run has every allocation of each operation.
    while !run.is_done() {
        let seed = dice.next();
        for (operation, fact) in OPERATIONS {
            for after in 0.. {
                lay_out(&Image::new(), &dir)?;
                match try_one(&board, &dir, operation, after, seed) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        run.fail(format!("{operation:?}, allocation {after}: {error}"));
                        if after > 100_000 {
                            break;
                        }
                    }
                }
                run.fact(fact, 1);
                run.tried(1);
            }
        }
    }
    Ok(())
}

/// One child and one failing allocation; whether it was met.
fn try_one(
    board: &Board,
    dir: &Path,
    operation: Operation,
    after: u64,
    seed: u64,
) -> Result<bool, String> {
    board.wipe();
    let mut oracle = Oracle::new(RING);
    if operation == Operation::Open {
        // Somebody else's directory, left by a kill.
        let mut child = fork(|| child(board, dir, Operation::Save, None, seed));
        child.wait();
        oracle.hear(&board.all(), Cause::Kill, false)?;
        board.wipe();
    }
    let mut child = fork(|| child(board, dir, operation, Some(after), seed));
    let end = child.wait();
    if let Some(complaint) = board.complaint() {
        return Err(complaint);
    }
    let met = match end {
        End::Exit(NOT_MET) => false,
        End::Exit(0) | End::Signal(libc::SIGABRT) => true,
        other => return Err(format!("it ended with {other:?}")),
    };
    oracle.hear(&board.all(), Cause::Kill, false)?;
    board.wipe();
    let mut checker = fork(|| check(board, dir));
    let end = checker.wait();
    if let Some(complaint) = board.complaint() {
        return Err(complaint);
    }
    if end != End::Exit(0) {
        return Err(format!("looking at what it left ended with {end:?}"));
    }
    oracle.hear(&board.all(), Cause::Kill, false)?;
    Ok(met)
}

fn check(board: &Board, dir: &Path) -> i32 {
    finish(board, caught(|| open_and_tell(board, dir, &options()).map(drop)).map(|()| 0))
}

fn finish(board: &Board, done: Result<i32, String>) -> i32 {
    done.unwrap_or_else(|error| {
        board.complain(&error);
        1
    })
}

fn child(board: &Board, dir: &Path, operation: Operation, after: Option<u64>, seed: u64) -> i32 {
    be_silent();
    finish(board, caught(|| act(board, dir, operation, after, seed)))
}

fn act(
    board: &Board,
    dir: &Path,
    operation: Operation,
    after: Option<u64>,
    seed: u64,
) -> Result<i32, String> {
    let mut dice = Dice::new(seed);
    let arm = || after.into_iter().for_each(fail_after);
    if matches!(operation, Operation::Create | Operation::Open) {
        let options = options();
        arm();
        let caretaker = open(dir, &options);
        if fail_no_more() {
            exit(NOT_MET);
        }
        // Not met by an end of the process: then by an error, or by nobody who minded.
        return match caretaker {
            Ok(caretaker) => save(board, &caretaker, tick(u64::from(u32::MAX), 0)).map(|()| 0),
            Err(_) => Ok(0),
        };
    }
    let caretaker = open_and_tell(board, dir, &options())?;
    let serial = 1 + dice.below(1000);
    if operation != Operation::FirstSave {
        for n in 0..2 + dice.below(5) {
            save(board, &caretaker, tick(serial + n, dice.below(4000)))?;
        }
    }
    let newest = caretaker.head().unwrap_or(SnapshotId::new(1));
    let oldest = caretaker.history().last().map_or(newest, |entry| entry.id());
    let ground = if operation == Operation::Grow { 200 << 10 } else { dice.below(4000) };
    let next = world(tick(serial + 100, ground));
    let mut live = world(1);
    match operation {
        Operation::Save | Operation::Grow | Operation::FirstSave => {
            board.say(Report::Saving { tick: next.tick });
        }
        Operation::RollBack => {
            board.say(Report::Rolling { to: oldest.get() });
        }
        Operation::Keep => board.say(Report::Keeping { id: newest.get(), label: 1 }),
        Operation::Flush => board.say(Report::Flushing),
        Operation::Close => board.say(Report::Closing),
        _ => {}
    }
    let name = label(1);
    arm();
    // What comes back after the failure is not looked at before memory is there again.
    match operation {
        Operation::Save | Operation::Grow | Operation::FirstSave => {
            let saved = caretaker.save(&next);
            let met = !fail_no_more();
            match saved {
                Ok(id) => board.say(Report::Published { id: id.get(), tick: next.tick }),
                Err(error) if met => board.remark(&in_full(&error)),
                Err(error) => return Err(in_full(&error)),
            }
            end(board, caretaker, met)
        }
        Operation::RollBack => {
            let done = caretaker.rollback(&mut live, oldest);
            let met = !fail_no_more();
            match done {
                Ok(done) => {
                    board.say(Report::Published { id: done.id().get(), tick: live.tick });
                }
                Err(error) if met => board.remark(&in_full(&error)),
                Err(error) => return Err(in_full(&error)),
            }
            end(board, caretaker, met)
        }
        Operation::Keep => {
            let kept = caretaker.keep(newest, &name);
            let met = !fail_no_more();
            board.say(if kept.is_ok() { Report::Done } else { Report::Refused });
            end(board, caretaker, met)
        }
        Operation::Flush => {
            let flushed = caretaker.flush();
            let met = !fail_no_more();
            match flushed {
                Ok(id) => board.say(Report::Flushed { durable: id.map_or(0, SnapshotId::get) }),
                Err(_) => board.say(Report::Refused),
            }
            end(board, caretaker, met)
        }
        Operation::Subscribe => {
            let events = caretaker.subscribe();
            let met = !fail_no_more();
            drop(events);
            end(board, caretaker, met)
        }
        Operation::Thaw => {
            let memento = caretaker.try_memento(newest).map_err(|error| in_full(&error))?;
            let thawed = memento.thaw();
            let met = !fail_no_more();
            if thawed.is_ok_and(|thawed| thawed != world(thawed.tick)) {
                return Err(format!("{newest} thawed to a mixture"));
            }
            number_of(&memento)?;
            drop(memento);
            end(board, caretaker, met)
        }
        _ => {
            let closed = caretaker.close();
            let met = !fail_no_more();
            match closed {
                Ok(id) => board.say(Report::Flushed { durable: id.map_or(0, SnapshotId::get) }),
                Err(_) => board.say(Report::Refused),
            }
            Ok(if met { 0 } else { NOT_MET })
        }
    }
}

/// Where the process lives on, so does the ring.
fn end(board: &Board, caretaker: Caretaker<World>, met: bool) -> Result<i32, String> {
    if met {
        save(board, &caretaker, tick(u64::from(u32::MAX), 0))?;
    }
    // As after a kill.
    std::mem::forget(caretaker);
    Ok(if met { 0 } else { NOT_MET })
}

fn save(board: &Board, caretaker: &Caretaker<World>, number: u64) -> Result<(), String> {
    let live = world(number);
    board.say(Report::Saving { tick: live.tick });
    let id = caretaker.save(&live).map_err(|error| in_full(&error))?;
    board.say(Report::Published { id: id.get(), tick: live.tick });
    Ok(())
}

//! User code that panics at any moment must leave the ring, the files and the state as they were.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use snapring::{Caretaker, Durability, GuardError, Options, SnapshotId};

use super::Campaign;
use crate::{
    board::{Board, Report},
    dice::Dice,
    fragile::{Call, Fragile, fragile, panic_after, panic_no_more},
    life::in_full,
    process::{End, caught, fork},
    run::Run,
};

pub(crate) static CAMPAIGN: Campaign = Campaign {
    name: "panics",
    claim: "panics of user code that left a ring, its files or a state half changed",
    unit: "panics",
    long: 20_000,
    short: 400,
    help: "\
Lets user code panic at its first call, then at the second, and so on until the operation completes
without meeting it: in Drop, Hash, Eq, Default, and in a `with` wrapper's serialize, resolve and
deserialize; during a save, a rollback, a guarded change that fails, resuming into a live state, resuming
anew, and thawing a memento. After each the state is whole, either what it was or the target; the
listing, the head and the bytes in use are what they were, or the operation has succeeded; and in the end
the directory is opened again and holds just the same, every snapshot whole.",
    run,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Save,
    RollBack,
    Guard,
    ResumeInto,
    Resume,
    Thaw,
}

const OPERATIONS: [Operation; 6] = [
    Operation::Save,
    Operation::RollBack,
    Operation::Guard,
    Operation::ResumeInto,
    Operation::Resume,
    Operation::Thaw,
];

fn run(run: &mut Run) -> Result<(), String> {
    let mut dice = Dice::new(run.seed);
    let board = Board::new();
    let dir = run.memory.join("panics");
    std::fs::create_dir_all(&run.memory).map_err(|error| error.to_string())?;
    while !run.is_done() {
        let seed = dice.next();
        for operation in OPERATIONS {
            for call in Call::ALL {
                board.wipe();
                _ = std::fs::remove_dir_all(&dir);
                let mut child = fork(|| child(&board, &dir, operation, call, seed));
                let end = child.wait();
                let met = board.len() as u64;
                let error = match (board.complaint(), end) {
                    (Some(complaint), _) => Some(complaint),
                    (None, End::Exit(0)) => None,
                    (None, end) => Some(format!("the process ended with {end:?}")),
                };
                if let Some(error) = error {
                    run.fail(format!("{operation:?}, {call:?} number {met}: {error}"));
                }
                run.tried(met);
            }
        }
    }
    Ok(())
}

fn open(dir: &Path) -> Result<Caretaker<Fragile>, String> {
    let options = Options::new().ring(4).durability(Durability::Process);
    // SAFETY: this process alone has it open, and nobody changes its files.
    let opened = unsafe { options.file_size(1).max_file_size(8 << 20).open(dir) };
    opened.map_err(|error| in_full(&error))
}

fn child(board: &Board, dir: &Path, operation: Operation, call: Call, seed: u64) -> i32 {
    let done = caught(|| {
        let caretaker = open(dir)?;
        let first = 1 + seed % 1000;
        for number in 0..3 {
            let saved = caretaker.save(&fragile(first + number));
            saved.map_err(|error| in_full(&error))?;
        }
        for after in 0.. {
            if after > 10_000 {
                return Err("it never completes".to_owned());
            }
            if !try_one(&caretaker, operation, call, after, first)? {
                break;
            }
            board.say(Report::Done);
        }
        // And on the disk, so to speak.
        let before = told(&caretaker)?;
        drop(caretaker);
        let again = told(&open(dir)?)?;
        if (&before.listed, before.head) != (&again.listed, again.head) {
            return Err(format!("opened again, it holds {again:?}, not {before:?}"));
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

/// What a ring tells of itself.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    /// Newest first, all whole.
    listed: Vec<(SnapshotId, u64)>,
    head: Option<SnapshotId>,
    used_bytes: u64,
}

fn told(caretaker: &Caretaker<Fragile>) -> Result<Told, String> {
    let mut listed = Vec::new();
    for entry in caretaker.history() {
        let memento = caretaker.try_memento(entry.id()).map_err(|error| in_full(&error))?;
        let state = memento.thaw().map_err(|error| in_full(&error))?;
        if !state.is_whole() {
            return Err(format!("{} is a mixture", entry.id()));
        }
        listed.push((entry.id(), state.tick));
    }
    let used_bytes = caretaker.stats().used_bytes;
    Ok(Told { listed, head: caretaker.head(), used_bytes })
}

/// One operation with one panic; whether it was met.
fn try_one(
    caretaker: &Caretaker<Fragile>,
    operation: Operation,
    call: Call,
    after: u64,
    first: u64,
) -> Result<bool, String> {
    let before = told(caretaker)?;
    let (newest, held) = before.listed.first().copied().ok_or("nothing is listed")?;
    // Another one than the newest, mostly.
    let (to, target) = *before.listed.get(1).unwrap_or(&(newest, held));
    let mine = first + 20_000 + after;
    let changed = mine + 20_000;
    let mut live = fragile(mine);
    let memento = caretaker.try_memento(newest).map_err(|error| in_full(&error))?;
    panic_after(call, after);
    // Whether it said that it succeeded, and what the state may then be.
    let said = catch_unwind(AssertUnwindSafe(|| match operation {
        Operation::Save => (caretaker.save(&live).is_ok(), mine),
        Operation::RollBack => match caretaker.rollback(&mut live, to) {
            Ok(_) => (true, target),
            Err(_) => (false, mine),
        },
        Operation::Guard => {
            let outcome = caretaker.guard(&mut live, |live| {
                *live = fragile(changed);
                Err::<(), _>("refused")
            });
            match outcome {
                Err(GuardError::Save { .. }) => (false, mine),
                // Told, and the state is as the change left it; what was saved first is there.
                Err(GuardError::Rollback { .. }) => (true, changed),
                _ => (true, mine),
            }
        }
        Operation::ResumeInto => match caretaker.resume_into(&mut live) {
            Ok(_) => (false, held),
            Err(_) => (false, mine),
        },
        Operation::Resume => {
            let resumed = caretaker.resume().ok().flatten();
            assert!(resumed.is_none_or(|state| state.is_whole()), "resumed as a mixture");
            (false, mine)
        }
        Operation::Thaw => {
            let thawed = memento.thaw();
            assert!(thawed.is_ok_and(|state| state.is_whole()), "thawed to a mixture");
            (false, mine)
        }
    }));
    let met = !panic_no_more();
    let said = match said {
        Ok(said) => said,
        Err(panic) if met => {
            let text = panic.downcast_ref::<String>().map_or("a panic", String::as_str);
            if !text.ends_with("was told to") {
                return Err(text.to_owned());
            }
            (false, mine)
        }
        Err(_) => return Err("it panicked by itself".to_owned()),
    };
    drop(memento);
    if !live.is_whole() {
        return Err(format!("the state is a mixture: its number is {}", live.tick));
    }
    if live.tick != said.1 {
        return Err(format!("the state is {}, not {}", live.tick, said.1));
    }
    let now = told(caretaker)?;
    if !said.0 && now != before {
        return Err(format!("it failed, and left {now:?}, not {before:?}"));
    }
    if said.0 && now.head == before.head {
        return Err("it succeeded, and published nothing".to_owned());
    }
    Ok(met)
}

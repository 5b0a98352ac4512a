//! A process killed at an instruction at which nobody thought of it must not lose anything.

use std::{path::Path, sync::atomic::AtomicU64, sync::atomic::Ordering, time::Duration};

use snapring::{Caretaker, Durability, Options};

use super::Campaign;
use crate::{
    board::{Board, Report},
    dice::Dice,
    life::{open, open_and_tell},
    mirror::{Change, Image, Mirror, lay_out},
    oracle::{Cause, Oracle},
    process::{End, Shared, Zeroed, caught, fork},
    run::Run,
    trace::{Step, Traced, offer, pause},
    world::{World, label, look, tick, world},
};

pub(crate) static CAMPAIGN: Campaign = Campaign {
    name: "steps",
    claim: "instructions at which a kill loses a published snapshot",
    unit: "instructions",
    long: 5_000_000,
    short: 500_000,
    help: "\
Single-steps (ptrace) a child through making a directory, opening it, saving, saving what makes the
files grow, rolling back, keeping, releasing, flushing and closing. After every instruction the files'
bytes are compared with those before; a kill at this point would leave just them. Where they differ in
anything that opening reads (names, headers, slot pages, the lock file, bytes of a sealed record), or a
report has been made since, the directory is copied, opened, closed, opened again and saved into: it
must hold every snapshot that had been reported and not evicted, whole and under its label, plus at most
the one in the making, the same both times, and give out a new id. So every instruction is covered by a
check of exactly the files it leaves.

Each operation starts where a randomly chosen instruction of the one before was hit, so that recovering
from a kill is stepped through as well. The background thread is held while the first thread is stepped,
and stepped in its turn where the first one waits for it (in closing); interleavings with it are left to
`lives`. A system call counts as one instruction. Files in memory (/dev/shm), a ring of 4.",
    run,
};

const RING: usize = 4;

/// What is stepped through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Create,
    Open,
    Save,
    Grow,
    RollBack,
    Keep,
    Release,
    Flush,
    Close,
}

/// What follows what. Making a directory and opening one take the most instructions by far.
const CYCLE: [Operation; 20] = {
    use Operation::*;
    [
        Create, Save, Grow, RollBack, Keep, Release, Flush, Close, Save, RollBack, Keep, Open,
        Save, Keep, Flush, RollBack, Release, Grow, Save, Close,
    ]
};

impl Operation {
    fn fact(self) -> &'static str {
        match self {
            Operation::Create => "instructions of making a directory",
            Operation::Open => "instructions of opening",
            Operation::Save => "instructions of saving",
            Operation::Grow => "instructions of saving and growing",
            Operation::RollBack => "instructions of rolling back",
            Operation::Keep => "instructions of keeping",
            Operation::Release => "instructions of releasing",
            Operation::Flush => "instructions of flushing",
            Operation::Close => "instructions of closing",
        }
    }
}

/// How far a child has come: 1 in the operation, 2 after it.
#[derive(Debug)]
struct Phase(AtomicU64);

// SAFETY: an atomic, for which zero is a value.
unsafe impl Zeroed for Phase {}

/// The files at some point, and what is known of them.
#[derive(Debug, Clone)]
struct Base {
    image: Image,
    oracle: Oracle,
}

fn options() -> Options {
    let options = Options::new().ring(RING as u32).durability(Durability::Process);
    options.file_size(1).max_file_size(8 << 20)
}

fn run(run: &mut Run) -> Result<(), String> {
    let mut dice = Dice::new(run.seed);
    let mut base = Base { image: Image::new(), oracle: Oracle::new(RING) };
    let boards = [Board::new(), Board::new()];
    let phase: Shared<Phase> = Shared::new();
    let mut made = 0_usize;
    // The shortest run has each of them.
    while !run.is_done() || !made.is_multiple_of(CYCLE.len()) {
        let operation = CYCLE[made % CYCLE.len()];
        made += 1;
        if operation == Operation::Create {
            base = Base { image: Image::new(), oracle: Oracle::new(RING) };
        }
        let before = run.so_far();
        let stepped = Stepping {
            run,
            operation,
            boards: &boards,
            phase: &phase,
            seed: dice.next(),
            dice: Dice::new(dice.next()),
        }
        .all(base.clone());
        match stepped {
            Ok(after) => base = after,
            Err(error) => {
                run.fail(format!("{operation:?}, number {made}: {error}"));
                base = Base { image: Image::new(), oracle: Oracle::new(RING) };
            }
        }
        run.fact(operation.fact(), run.so_far() - before);
        run.fact("operations", 1);
    }
    Ok(())
}

struct Stepping<'a> {
    run: &'a mut Run,
    operation: Operation,
    boards: &'a [Board; 2],
    phase: &'a Phase,
    seed: u64,
    dice: Dice,
}

impl Stepping<'_> {
    /// Steps through one operation, from `base`; answers some point on the way, or the end.
    fn all(mut self, base: Base) -> Result<Base, String> {
        let dir = self.run.memory.join("stepped");
        lay_out(&base.image, &dir)?;
        let Stepping { boards: [board, _], phase, operation, seed, .. } = self;
        board.wipe();
        // Relaxed: no child is alive.
        phase.0.store(0, Ordering::Relaxed);
        let serial = base.oracle.serial();
        let mut child = fork(|| act(board, phase, &dir, operation, seed, serial));
        let mut traced = Traced::attach(child.pid())?;
        if let Err(error) = traced.run_to_pause() {
            return Err(board.complaint().unwrap_or(error));
        }
        let mut mirror = Mirror::new(&dir)?;
        let mut now = base;
        let mut heard = 0;
        let mut chosen = None;
        let (mut states, mut unread, mut fresh) = (0, 0, true);
        loop {
            let reports = board.len();
            if fresh || reports > heard {
                heard = reports;
                let point = self.check(&now, &mirror, &board.all())?;
                states += 1;
                if self.dice.once_in(states) {
                    chosen = Some(point);
                }
            }
            // Relaxed: the child is stopped.
            if phase.0.load(Ordering::Relaxed) == 2 {
                break;
            }
            match traced.step()? {
                Step::Done => self.run.tried(1),
                Step::Ended(status) => {
                    child.note(status);
                    let why = board.complaint().unwrap_or_else(|| "without a word".to_owned());
                    return Err(format!("the child ended: {why}"));
                }
            }
            let change = mirror.look()?;
            fresh = change == Change::Read;
            unread += u64::from(change == Change::Unread);
        }
        self.run.fact("states that opening cannot tell from the one before", unread);
        self.run.fact("states of the files checked", states);
        self.run.fact("threads held", traced.others() as u64);
        let last = self.check(&now, &mirror, &board.all())?;
        drop(traced);
        child.kill();
        if let Some(complaint) = board.complaint() {
            return Err(complaint);
        }
        // Half of the time it goes on as if nothing had happened.
        now = match chosen {
            Some(point) if self.dice.once_in(2) => point,
            _ => last,
        };
        Ok(now)
    }

    /// What a kill at this moment would leave is opened, twice, and must be right.
    fn check(&self, base: &Base, mirror: &Mirror, reports: &[Report]) -> Result<Base, String> {
        let mut oracle = base.oracle.clone();
        oracle.hear(reports, Cause::Kill, false)?;
        let copy = self.run.memory.join("copy");
        lay_out(mirror.image(), &copy)?;
        let board = &self.boards[1];
        board.wipe();
        let mut checker = fork(|| examine(board, &copy));
        let end = checker.wait();
        let told = |error: String| {
            let at = reports.last();
            format!("killed after {at:?}: {error}; {}", board.remarked())
        };
        if let Some(complaint) = board.complaint() {
            return Err(told(complaint));
        }
        if end != End::Exit(0) {
            return Err(told(format!("looking at it ended with {end:?}")));
        }
        let found = board.all();
        let opened = found.iter().position(|report| matches!(report, Report::Opened { .. }));
        let opened = opened.map_or(0, |at| at + 1);
        oracle.hear(&found[..opened], Cause::Kill, false).map_err(told)?;
        // And what is saved next has a new id.
        oracle.clone().hear(&found[opened..], Cause::Kill, false).map_err(told)?;
        Ok(Base { image: mirror.image().clone(), oracle })
    }
}

/// The child that is stepped: makes ready, pauses, does one thing.
fn act(
    board: &Board,
    phase: &Phase,
    dir: &Path,
    operation: Operation,
    seed: u64,
    serial: u64,
) -> i32 {
    offer();
    pause();
    let done = caught(|| match operation {
        Operation::Create | Operation::Open => {
            let options = options();
            pause();
            phase.0.store(1, Ordering::Relaxed);
            let caretaker = open(dir, &options)?;
            phase.0.store(2, Ordering::Release);
            std::mem::forget(caretaker);
            Ok(())
        }
        _ => one_thing(board, phase, dir, operation, seed, serial),
    });
    match done {
        Ok(()) => 0,
        Err(error) => {
            board.complain(&error);
            1
        }
    }
}

fn one_thing(
    board: &Board,
    phase: &Phase,
    dir: &Path,
    operation: Operation,
    seed: u64,
    mut serial: u64,
) -> Result<(), String> {
    let told = |what: &str, error: &dyn std::error::Error| format!("{what}: {error}");
    let caretaker = open_and_tell(board, dir, &options())?;
    let mut dice = Dice::new(seed);
    let mut save = |ground: u64| {
        serial += 1;
        let live = world(tick(serial, ground));
        board.say(Report::Saving { tick: live.tick });
        let id = caretaker.save(&live).map_err(|error| told("save", &error))?;
        board.say(Report::Published { id: id.get(), tick: live.tick });
        Ok::<_, String>(live)
    };
    let mut live = save(dice.below(64))?;
    for _ in 0..dice.below(4) {
        live = save(dice.below(64))?;
    }
    let history = caretaker.history();
    let id = dice.pick(&history).id();
    if operation == Operation::Release || dice.once_in(3) {
        let kept = dice.pick(&history).id();
        board.say(Report::Keeping { id: kept.get(), label: 1 });
        let done = caretaker.keep(kept, &label(1));
        // Full: as good as none.
        board.say(if done.is_ok() { Report::Done } else { Report::Refused });
    }
    // The background thread comes to rest.
    std::thread::sleep(Duration::from_millis(2));
    let next =
        world(tick(u64::from(u32::MAX) & (serial_of(&live) + 1), ground(operation, &mut dice)));
    pause();
    phase.0.store(1, Ordering::Relaxed);
    match operation {
        Operation::Save | Operation::Grow => {
            board.say(Report::Saving { tick: next.tick });
            let id = caretaker.save(&next).map_err(|error| told("save", &error))?;
            board.say(Report::Published { id: id.get(), tick: next.tick });
        }
        Operation::RollBack => {
            board.say(Report::Rolling { to: id.get() });
            let done = caretaker.rollback(&mut live, id);
            let done = done.map_err(|error| told("rollback", &error))?;
            board.say(Report::Published { id: done.id().get(), tick: live.tick });
        }
        Operation::Keep => {
            board.say(Report::Keeping { id: id.get(), label: 1 });
            let done = caretaker.keep(id, &label(1));
            board.say(if done.is_ok() { Report::Done } else { Report::Refused });
        }
        Operation::Release => {
            board.say(Report::Releasing { label: 1 });
            caretaker.release(&label(1));
            board.say(Report::Done);
        }
        Operation::Flush => {
            board.say(Report::Flushing);
            let durable = caretaker.flush().map_err(|error| told("flush", &error))?;
            board.say(Report::Flushed { durable: durable.map_or(0, |id| id.get()) });
        }
        Operation::Close => {
            board.say(Report::Closing);
            let durable = caretaker.close().map_err(|error| told("close", &error))?;
            board.say(Report::Flushed { durable: durable.map_or(0, |id| id.get()) });
            phase.0.store(2, Ordering::Release);
            return Ok(());
        }
        Operation::Create | Operation::Open => {}
    }
    phase.0.store(2, Ordering::Release);
    std::mem::forget(caretaker);
    Ok(())
}

fn serial_of(live: &World) -> u64 {
    crate::world::serial(live.tick)
}

/// Enough to make the files grow, or little.
fn ground(operation: Operation, dice: &mut Dice) -> u64 {
    match operation {
        Operation::Grow => (8 << 10) + dice.below(24 << 10),
        _ => dice.below(64),
    }
}

/// The child that looks at a copy: opens it twice, and saves.
fn examine(board: &Board, dir: &Path) -> i32 {
    let done = caught(|| {
        let first = open_and_tell(board, dir, &options())?;
        let found = look(&first)?;
        drop(first);
        let second = open(dir, &options())?;
        let again = look(&second)?;
        if found != again {
            return Err(format!("opened again, {again:?} were listed, not {found:?}"));
        }
        save_one(board, &second)
    });
    match done {
        Ok(()) => 0,
        Err(error) => {
            board.complain(&error);
            1
        }
    }
}

fn save_one(board: &Board, caretaker: &Caretaker<World>) -> Result<(), String> {
    let live = world(tick(u64::from(u32::MAX), 0));
    board.say(Report::Saving { tick: live.tick });
    let id = caretaker.save(&live).map_err(|error| format!("save: {error}"))?;
    board.say(Report::Published { id: id.get(), tick: live.tick });
    Ok(())
}

//! A life: opens a directory, tells what it found, then saves, rolls back, keeps, flushes and grows
//! until it is killed.

use std::{path::Path, time::Duration};

use snapring::{Caretaker, Durability, Event, Events, Options, SnapshotId};

use crate::{
    board::{Board, Report},
    dice::Dice,
    process::{caught, exit, nap},
    world::{World, label, look, number_of, tick, world},
};

/// Snapshots in the ring.
pub(crate) const RING: usize = 16;

/// How a life is led.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) durability: Durability,
    pub(crate) seed: u64,
    /// The first world's serial; the others follow.
    pub(crate) serial: u64,
    /// One flush in so many operations.
    pub(crate) flushes: u64,
    /// Operations before it closes by itself.
    pub(crate) operations: u64,
}

/// Opens a directory of worlds.
pub(crate) fn open(dir: &Path, options: &Options) -> Result<Caretaker<World>, String> {
    // SAFETY: each directory is opened by one child at a time, and changed by nobody while one has
    // it open.
    unsafe { options.open(dir) }.map_err(|error| format!("open: {}", in_full(&error)))
}

/// An error and what caused it.
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", in_full(source)),
        None => error.to_string(),
    }
}

/// The files of a life: small, and growing.
pub(crate) fn options() -> Options {
    Options::new().ring(RING as u32).file_size(1).max_file_size(16 << 20)
}

/// Leads a life in this process, which is a child of its own; ends it.
pub(crate) fn lead(board: &Board, dir: &Path, plan: &Plan) -> i32 {
    match caught(|| run(board, dir, plan)) {
        Ok(()) => 0,
        Err(error) => {
            board.complain(&error);
            1
        }
    }
}

/// Opens and tells what is there.
pub(crate) fn open_and_tell(
    board: &Board,
    dir: &Path,
    options: &Options,
) -> Result<Caretaker<World>, String> {
    let caretaker = open(dir, options)?;
    let mut remark = caretaker.recovery().to_string();
    for name in ["snapshot_a.bin", "snapshot_b.bin"] {
        let bytes = std::fs::metadata(dir.join(name)).map_or(0, |meta| meta.len());
        remark += &format!("; {name} has {bytes} bytes");
    }
    for found in look(&caretaker)? {
        if let Some(refusal) = &found.refusal {
            remark += &format!("; {}: {refusal}", found.id);
        }
        board.say(Report::Found {
            id: found.id,
            tick: found.tick.unwrap_or(0),
            label: found.label,
        });
    }
    board.remark(&remark);
    let recovery = caretaker.recovery();
    board.say(Report::Opened {
        durable: caretaker.durable().map_or(0, SnapshotId::get),
        rejected: recovery.rejected.len() as u64,
        aside: recovery.set_aside.len() as u64,
    });
    Ok(caretaker)
}

fn run(board: &Board, dir: &Path, plan: &Plan) -> Result<(), String> {
    let caretaker = open_and_tell(board, dir, &options().durability(plan.durability))?;
    let mut dice = Dice::new(plan.seed);
    let mut serial = plan.serial;
    let mut events = caretaker.subscribe();
    let mut live = caretaker.resume().map_err(|e| e.to_string())?.unwrap_or_else(|| world(serial));
    for _ in 0..plan.operations {
        if !board.has_room() {
            // It is killed in its sleep.
            nap(Duration::from_secs(60));
            exit(0);
        }
        match dice.below(64) {
            0..8 => roll_back(board, &caretaker, &mut events, &mut dice, &mut live)?,
            8..12 => keep(board, &caretaker, &mut events, &mut dice)?,
            12..14 => {
                let number = 1 + dice.below(5);
                board.say(Report::Releasing { label: number });
                caretaker.release(&label(number));
                tell_evicted(board, &mut events);
                board.say(Report::Done);
            }
            14 if dice.once_in(plan.flushes) => flush(board, &caretaker)?,
            15..17 => {
                let durable = caretaker.durable().map_or(0, SnapshotId::get);
                board.say(Report::Durable { id: durable });
            }
            _ => {
                serial += 1;
                live = world(tick(serial, ground(&mut dice)));
                board.say(Report::Saving { tick: live.tick });
                let id = caretaker.save(&live).map_err(|e| format!("save: {e}"))?;
                tell_evicted(board, &mut events);
                board.say(Report::Published { id: id.get(), tick: live.tick });
            }
        }
    }
    board.say(Report::Closing);
    let durable = caretaker.close().map_err(|e| format!("close: {e}"))?;
    board.say(Report::Flushed { durable: durable.map_or(0, SnapshotId::get) });
    Ok(())
}

/// Mostly small, some of several blocks, few of many.
fn ground(dice: &mut Dice) -> u64 {
    match dice.below(128) {
        0 => dice.below(96 << 10),
        1..16 => dice.below(9 << 10),
        _ => dice.below(200),
    }
}

/// Told before what was published, which made it necessary.
fn tell_evicted(board: &Board, events: &mut Events) {
    while let Some(event) = events.try_next() {
        if let Event::Evicted { id } = event {
            board.say(Report::Evicted { id: id.get() });
        }
    }
}

fn roll_back(
    board: &Board,
    caretaker: &Caretaker<World>,
    events: &mut Events,
    dice: &mut Dice,
    live: &mut World,
) -> Result<(), String> {
    let history = caretaker.history();
    if history.is_empty() {
        return Ok(());
    }
    let to = dice.pick(&history).id();
    board.say(Report::Rolling { to: to.get() });
    let rollback = match caretaker.rollback(live, to) {
        Ok(rollback) => rollback,
        // After a power cut, of which this is how one hears.
        Err(snapring::RollbackError::Rejected { .. }) => {
            board.say(Report::Refused);
            return Ok(());
        }
        Err(error) => return Err(format!("rollback to {to}: {error}")),
    };
    let memento = caretaker.try_memento(rollback.id()).map_err(|e| e.to_string())?;
    if number_of(&memento)? != live.tick || *live != world(live.tick) {
        return Err(format!("rolled back to {to}, and the state is another"));
    }
    tell_evicted(board, events);
    board.say(Report::Published { id: rollback.id().get(), tick: live.tick });
    Ok(())
}

fn keep(
    board: &Board,
    caretaker: &Caretaker<World>,
    events: &mut Events,
    dice: &mut Dice,
) -> Result<(), String> {
    let history = caretaker.history();
    if history.is_empty() {
        return Ok(());
    }
    let (id, number) = (dice.pick(&history).id(), 1 + dice.below(5));
    board.say(Report::Keeping { id: id.get(), label: number });
    caretaker.keep(id, &label(number)).map_err(|error| format!("keep {id}: {error}"))?;
    tell_evicted(board, events);
    board.say(Report::Done);
    Ok(())
}

fn flush(board: &Board, caretaker: &Caretaker<World>) -> Result<(), String> {
    board.say(Report::Flushing);
    let durable = caretaker.flush().map_err(|e| format!("flush: {e}"))?;
    board.say(Report::Flushed { durable: durable.map_or(0, SnapshotId::get) });
    Ok(())
}

//! Readers in other processes that die or fall asleep must cost nothing but the place they read.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use snapring::{Caretaker, Durability, Options, Reader};

use super::Campaign;
use crate::{
    board::Board,
    dice::Dice,
    life::{in_full, open},
    process::{End, Forked, Shared, Zeroed, caught, fork, nap, sleep_exactly},
    run::Run,
    world::{World, number_of, tick, world},
};

pub(crate) static CAMPAIGN: Campaign = Campaign {
    name: "readers",
    claim: "readers whose place was leaked, or written over while they held it",
    unit: "readers",
    long: 1_100,
    short: 66,
    help: "\
One process saves; others read what it publishes, check every snapshot they get, hold it for a while and
look at it again. Ten in eleven are killed (SIGKILL) at a random moment, holding or not: after each the
writer must have every place back, without anybody's doing. One in eleven is stopped (SIGSTOP) while it
holds a snapshot, for several turns of the ring, and goes on: what it holds must be what it was. The
writer must be refused no save. A ring of 4, in memory and on the disk by turns.",
    run,
};

const RING: u32 = 4;

/// Between the parent, the writer and one reader.
#[derive(Debug)]
struct Words {
    /// Saves that the writer is to have made, and those it has.
    wanted: AtomicU64,
    made: AtomicU64,
    /// What retains places besides the ring, as the writer saw it after those.
    held: AtomicU64,
    /// 1: the reader holds a snapshot; 2: it has looked at it again.
    reader: AtomicU64,
    /// The reader may go on.
    go_on: AtomicU64,
    /// Snapshots that readers have seen, whole.
    seen: AtomicU64,
}

// SAFETY: atomics alone, for which zero is a value.
unsafe impl Zeroed for Words {}

fn run(run: &mut Run) -> Result<(), String> {
    sleep_exactly();
    let mut dice = Dice::new(run.seed);
    while !run.is_done() {
        let root = if dice.once_in(2) { &run.memory } else { &run.disk };
        let dir = root.join("readers");
        _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(root).map_err(|error| error.to_string())?;
        let words: Shared<Words> = Shared::new();
        let (writers, readers) = (Board::new(), Board::new());
        let mut writer = Writer {
            process: fork(|| write(&writers, &words, &dir)),
            board: &writers,
            words: &words,
        };
        writer.turn(8)?;
        for _ in 0..22 {
            let stop = run.so_far() % 11 == 10;
            let outcome = if stop {
                stopped(&mut writer, &readers, &dir, &mut dice)
            } else {
                killed(&mut writer, &readers, &dir, &mut dice)
            };
            if let Err(error) = outcome {
                let number = run.so_far();
                run.fail(format!("reader {number}: {error}"));
                run.tried(1);
                break;
            }
            run.fact(if stop { "readers stopped" } else { "readers killed" }, 1);
            run.tried(1);
        }
        run.fact("snapshots seen by readers", words.seen.load(Ordering::Relaxed));
    }
    Ok(())
}

struct Writer<'a> {
    process: Forked,
    board: &'a Board,
    words: &'a Words,
}

impl Writer<'_> {
    /// Lets it save so often, and waits for that; answers how many places are held besides.
    fn turn(&mut self, saves: u64) -> Result<u64, String> {
        let wanted = self.words.wanted.fetch_add(saves, Ordering::AcqRel) + saves;
        // Acquire: meets the Release in `write`.
        while self.words.made.load(Ordering::Acquire) < wanted {
            if let Some(end) = self.process.ended() {
                let why = self.board.complaint().unwrap_or_else(|| "without a word".to_owned());
                return Err(format!("the writer ended with {end:?}: {why}"));
            }
            nap(Duration::from_micros(50));
        }
        Ok(self.words.held.load(Ordering::Relaxed))
    }
}

/// A reader is killed; its place must be free again.
fn killed(
    writer: &mut Writer<'_>,
    board: &Board,
    dir: &Path,
    dice: &mut Dice,
) -> Result<(), String> {
    let words = writer.words;
    board.wipe();
    words.reader.store(0, Ordering::Relaxed);
    words.go_on.store(0, Ordering::Relaxed);
    let mut reader = fork(|| read(board, words, dir));
    if !dice.once_in(4) {
        wait_for_reader(&mut reader, board, words, 1)?;
        writer.turn(dice.below(12))?;
    }
    nap(Duration::from_micros(dice.below(1000)));
    let end = reader.kill();
    if let Some(complaint) = board.complaint() {
        return Err(complaint);
    }
    if end != End::Signal(libc::SIGKILL) {
        return Err(format!("it ended with {end:?}"));
    }
    // The ring turns, and nobody holds anything.
    writer.turn(3 * u64::from(RING))?;
    let mut held = writer.turn(2 * u64::from(RING))?;
    for _ in 0..20 {
        if held == 0 {
            return Ok(());
        }
        // The writer asks the kernel about leases from time to time.
        nap(Duration::from_millis(1));
        held = writer.turn(2 * u64::from(RING))?;
    }
    Err(format!("{held} places are held, and nobody is there to hold them"))
}

/// A reader is stopped while it holds a snapshot, which must stay as it is.
fn stopped(
    writer: &mut Writer<'_>,
    board: &Board,
    dir: &Path,
    dice: &mut Dice,
) -> Result<(), String> {
    let words = writer.words;
    board.wipe();
    words.reader.store(0, Ordering::Relaxed);
    words.go_on.store(0, Ordering::Relaxed);
    let mut reader = fork(|| read(board, words, dir));
    wait_for_reader(&mut reader, board, words, 1)?;
    reader.signal(libc::SIGSTOP);
    writer.turn(10 * u64::from(RING) + dice.below(200))?;
    // Release: met by the Acquire in `read`.
    words.go_on.store(1, Ordering::Release);
    reader.signal(libc::SIGCONT);
    wait_for_reader(&mut reader, board, words, 2)?;
    reader.kill();
    board.complaint().map_or(Ok(()), Err)
}

fn wait_for_reader(
    reader: &mut Forked,
    board: &Board,
    words: &Words,
    stage: u64,
) -> Result<(), String> {
    // Acquire: meets the Release in `read`.
    while words.reader.load(Ordering::Acquire) < stage {
        if let Some(end) = reader.ended() {
            let why = board.complaint().unwrap_or_else(|| "without a word".to_owned());
            return Err(format!("the reader ended with {end:?}: {why}"));
        }
        nap(Duration::from_micros(50));
    }
    Ok(())
}

/// The writer: saves as often as it is asked to.
fn write(board: &Board, words: &Words, dir: &Path) -> i32 {
    let done = caught(|| {
        let options = Options::new().ring(RING).durability(Durability::Process);
        let caretaker = open(dir, &options.file_size(1).max_file_size(16 << 20))?;
        save_when_asked(words, &caretaker)
    });
    done.map_or_else(
        |error: String| {
            board.complain(&error);
            1
        },
        |()| 0,
    )
}

fn save_when_asked(words: &Words, caretaker: &Caretaker<World>) -> Result<(), String> {
    let mut dice = Dice::new(1);
    let mut made = 0;
    loop {
        while made < words.wanted.load(Ordering::Acquire) {
            made += 1;
            let live = world(tick(made, dice.below(3000)));
            caretaker.save(&live).map_err(|error| format!("save: {}", in_full(&error)))?;
            words.held.store(caretaker.stats().held.len() as u64, Ordering::Relaxed);
            // Release: met by the Acquire in `turn`.
            words.made.store(made, Ordering::Release);
        }
        nap(Duration::from_micros(20));
    }
}

/// A reader: looks at what comes, holds it, looks again.
fn read(board: &Board, words: &Words, dir: &Path) -> i32 {
    let done = caught(|| {
        // SAFETY: the writer is snapring's own, which keeps its files as a reader may expect; the
        // directory is removed when it has ended.
        let reader = unsafe { Reader::<World>::open(dir) }.map_err(|error| in_full(&error))?;
        loop {
            let Some(memento) = reader.latest() else { continue };
            let number = number_of(&memento)?;
            // Release: met by the Acquire in `wait_for_reader`.
            words.reader.fetch_max(1, Ordering::Release);
            for _ in 0..20 {
                if number_of(&memento)? != number {
                    return Err(format!("{} has changed while it was held", memento.id()));
                }
                words.seen.fetch_add(1, Ordering::Relaxed);
                nap(Duration::from_micros(20));
            }
            // Acquire: meets the Release in `stopped`.
            if words.go_on.load(Ordering::Acquire) == 1 {
                // Release: met by the Acquire in `wait_for_reader`.
                words.reader.fetch_max(2, Ordering::Release);
            }
        }
    });
    done.map_or_else(
        |error: String| {
            board.complain(&error);
            1
        },
        |()| 0,
    )
}

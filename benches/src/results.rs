#![forbid(unsafe_code)]
//! What the measurements without criterion leave behind, for the report: JSON beside criterion's
//! own, one file for each program.

use std::{fs, io, path::PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::place::target;

/// One row of a set: times of one call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// What ran.
    pub name: String,
    /// Median nanoseconds of a call.
    pub median: f64,
    /// A quarter of the rounds took no longer.
    pub p25: f64,
    /// Three quarters of the rounds took no longer.
    pub p75: f64,
    /// Calls in one round.
    pub calls: u64,
}

/// A row beside its reference.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pair {
    /// Which promise it is about.
    pub target: u8,
    /// The row.
    pub row: String,
    /// What it is measured against.
    pub reference: String,
    /// The most that the ratio may be.
    pub most: f64,
    /// The median of the row by the median of its reference.
    pub ratio: f64,
    /// A quarter of the rounds had no larger ratio.
    pub p25: f64,
    /// Three quarters of the rounds had no larger ratio.
    pub p75: f64,
}

/// Rows that ran by turns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Set {
    /// What they have in common.
    pub name: String,
    /// How often each had its turn.
    pub rounds: usize,
    /// All that ran.
    pub rows: Vec<Row>,
    /// Which of them are held against which.
    pub pairs: Vec<Pair>,
}

/// One writer, alone or among readers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Crowd {
    /// Readers, each reading all of the state as fast as it can.
    pub readers: usize,
    /// Saves in a second.
    pub saves: f64,
    /// Reads in a second, all readers together.
    pub reads: f64,
    /// Median nanoseconds of a save.
    pub p50: f64,
    /// One save in a hundred took longer.
    pub p99: f64,
    /// The longest save.
    pub longest: f64,
}

/// How long saves held up the thread that made them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pause {
    /// At what pace, and what ran beside.
    pub name: String,
    /// Saves counted.
    pub saves: u64,
    /// Median nanoseconds of a save.
    pub p50: f64,
    /// One save in ten took longer.
    pub p90: f64,
    /// One save in a hundred took longer.
    pub p99: f64,
    /// The longest save.
    pub longest: f64,
}

/// A reader in another process, beside a writer that saves as fast as it can.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Elsewhere {
    /// What is saved and read.
    pub state: String,
    /// What reads.
    pub name: String,
    /// Saves in a second.
    pub saves: f64,
    /// Reads in a second.
    pub reads: f64,
    /// Reads in a second that found another value than the read before.
    pub found: f64,
    /// Median nanoseconds of such a read.
    pub found_p50: f64,
    /// One read in a hundred took longer.
    pub p99: f64,
    /// The longest read.
    pub longest: f64,
}

/// What `paired` writes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Paired {
    /// Sets of rows.
    pub sets: Vec<Set>,
    /// Alone, then among readers.
    pub crowd: Vec<Crowd>,
    /// Saves with the flusher behind them.
    #[serde(default)]
    pub pauses: Vec<Pause>,
    /// Readers in other processes, their writers busy.
    #[serde(default)]
    pub elsewhere: Vec<Elsewhere>,
}

/// Heap taken by saves in a steady state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Heap {
    /// What is saved.
    pub state: String,
    /// Bytes of its archive.
    pub archive: u64,
    /// Saves counted.
    pub saves: u64,
    /// Bytes allocated meanwhile, by all threads.
    pub bytes: u64,
    /// The largest single allocation.
    pub largest: u64,
}

/// A part of something that must stay small: bytes or memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    /// Which promise it is about.
    pub target: u8,
    /// What it is a part of, and how it was counted.
    pub name: String,
    /// The part: 1 is the whole.
    pub value: f64,
    /// The most that it may be.
    pub most: f64,
}

impl Part {
    /// A part, and the most it may be.
    pub fn new(target: u8, name: String, value: f64, most: f64) -> Part {
        println!("    {name}: {value:.4}, at most {most}");
        Part { target, name, value, most }
    }
}

/// A point of a plot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    /// The line that it is on.
    pub line: String,
    /// Where: per cent or MiB.
    pub x: f64,
    /// Median nanoseconds.
    pub y: f64,
}

/// One way to checkpoint a workload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Way {
    /// What it is called.
    pub name: String,
    /// Ticks counted.
    pub ticks: u64,
    /// Checkpoints that came to their end meanwhile.
    pub checkpoints: u64,
    /// Median nanoseconds that a tick took beyond one without checkpoints.
    pub p50: f64,
    /// One tick in a hundred took longer.
    pub p99: f64,
    /// The longest.
    pub longest: f64,
    /// Median nanoseconds of a checkpoint, from the tick to its end.
    pub checkpoint: f64,
    /// Nanoseconds from what was left to a live state.
    pub recovery: f64,
    /// Mean bytes of a checkpoint.
    pub bytes: f64,
}

/// A workload of the literature, or one like it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Workload {
    /// What it is called.
    pub name: String,
    /// What it does.
    pub about: String,
    /// The ways to checkpoint it.
    pub ways: Vec<Way>,
}

/// What `mmo` writes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Mmo {
    /// Sets of rows.
    pub sets: Vec<Set>,
    /// What held up the thread that changes the state.
    pub pauses: Vec<Pause>,
    /// Bytes and memory.
    pub parts: Vec<Part>,
    /// Workloads.
    pub workloads: Vec<Workload>,
    /// By the share of pages written.
    pub by_share: Vec<Point>,
    /// By the size of the state.
    pub by_size: Vec<Point>,
}

impl Mmo {
    /// Puts a set in place of an earlier one of its name.
    pub fn put(&mut self, set: Set) {
        self.sets.retain(|other| other.name != set.name);
        self.sets.push(set);
    }

    /// Puts a part in place of an earlier one of its name.
    pub fn part(&mut self, part: Part) {
        self.parts.retain(|other| (other.target, &other.name) != (part.target, &part.name));
        self.parts.push(part);
    }

    /// Puts what held up a thread in place of an earlier one of its name.
    pub fn pause(&mut self, pause: Pause) {
        self.pauses.retain(|other| other.name != pause.name);
        self.pauses.push(pause);
    }

    /// Puts a workload in place of an earlier one of its name.
    pub fn workload(&mut self, workload: Workload) {
        self.workloads.retain(|other| other.name != workload.name);
        self.workloads.push(workload);
    }
}

impl Point {
    /// Puts it among others, in place of an earlier one.
    pub fn put(self, points: &mut Vec<Point>) {
        points.retain(|other| other.line != self.line || other.x != self.x);
        points.push(self);
    }
}

fn path(name: &str) -> PathBuf {
    target().join("snapring-bench").join(format!("{name}.json"))
}

/// Leaves results for the report.
///
/// # Errors
///
/// Where the file cannot be written.
pub fn write<R: Serialize>(name: &str, results: &R) -> io::Result<()> {
    let path = path(name);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, serde_json::to_vec_pretty(results)?)
}

/// Results that were left; `None` where there are none.
pub fn read<R: DeserializeOwned>(name: &str) -> Option<R> {
    serde_json::from_slice(&fs::read(path(name)).ok()?).ok()
}

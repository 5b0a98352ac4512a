//! A board in shared pages on which a child reports, and that outlives it: what stands there was
//! reported, what does not was not.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::process::{Shared, Zeroed};

/// Reports on a board.
const ROOM: usize = 1 << 16;
const TEXT: usize = 2048;

/// What a child tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// A listed snapshot that opening found: id, world (0: refused), label.
    Found { id: u64, tick: u64, label: u64 },
    /// It has opened.
    Opened { durable: u64, rejected: u64, aside: u64 },
    /// It is about to save this world.
    Saving { tick: u64 },
    /// It is about to roll back to this snapshot.
    Rolling { to: u64 },
    /// It is about to keep this snapshot under a label.
    Keeping { id: u64, label: u64 },
    /// It is about to give a label up.
    Releasing { label: u64 },
    /// It is about to flush.
    Flushing,
    /// It is about to close.
    Closing,
    /// A snapshot has left the ring.
    Evicted { id: u64 },
    /// A snapshot has been published, by a save or a rollback.
    Published { id: u64, tick: u64 },
    /// What was announced last has been done, or refused without effect.
    Done,
    /// `flush` or `close` said yes: durable is this id.
    Flushed { durable: u64 },
    /// `durable()` said so.
    Durable { id: u64 },
    /// An operation said no, and has done nothing.
    Refused,
    /// An error was told; where it came with a snapshot, this is its id.
    Told { id: u64 },
}

impl Report {
    fn encode(self) -> [u64; 4] {
        match self {
            Report::Found { id, tick, label } => [1, id, tick, label],
            Report::Opened { durable, rejected, aside } => [2, durable, rejected, aside],
            Report::Saving { tick } => [3, tick, 0, 0],
            Report::Rolling { to } => [4, to, 0, 0],
            Report::Keeping { id, label } => [5, id, label, 0],
            Report::Releasing { label } => [6, label, 0, 0],
            Report::Flushing => [7, 0, 0, 0],
            Report::Published { id, tick } => [8, id, tick, 0],
            Report::Done => [9, 0, 0, 0],
            Report::Flushed { durable } => [10, durable, 0, 0],
            Report::Durable { id } => [11, id, 0, 0],
            Report::Refused => [12, 0, 0, 0],
            Report::Closing => [13, 0, 0, 0],
            Report::Evicted { id } => [14, id, 0, 0],
            Report::Told { id } => [15, id, 0, 0],
        }
    }

    fn decode([kind, a, b, c]: [u64; 4]) -> Report {
        match kind {
            1 => Report::Found { id: a, tick: b, label: c },
            2 => Report::Opened { durable: a, rejected: b, aside: c },
            3 => Report::Saving { tick: a },
            4 => Report::Rolling { to: a },
            5 => Report::Keeping { id: a, label: b },
            6 => Report::Releasing { label: a },
            7 => Report::Flushing,
            8 => Report::Published { id: a, tick: b },
            9 => Report::Done,
            10 => Report::Flushed { durable: a },
            11 => Report::Durable { id: a },
            13 => Report::Closing,
            14 => Report::Evicted { id: a },
            15 => Report::Told { id: a },
            _ => Report::Refused,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Sheet {
    count: AtomicU64,
    reports: [[AtomicU64; 4]; ROOM],
    complaint: Text,
    remark: Text,
}

/// Written once by the child, and then read by the parent.
#[derive(Debug)]
struct Text {
    len: AtomicU64,
    bytes: [AtomicU8; TEXT],
}

impl Text {
    fn set(&self, text: &str) {
        // Relaxed: only this process writes.
        if self.len.load(Ordering::Relaxed) > 0 {
            return;
        }
        for (byte, to) in text.bytes().zip(&self.bytes) {
            to.store(byte, Ordering::Relaxed);
        }
        // Release: met by the Acquire in `get`.
        self.len.store(text.len().min(TEXT) as u64, Ordering::Release);
    }

    fn get(&self) -> Option<String> {
        // Acquire: meets the Release in `set`.
        let len = self.len.load(Ordering::Acquire) as usize;
        let bytes = self.bytes.iter().take(len).map(|b| b.load(Ordering::Relaxed));
        let bytes: Vec<u8> = bytes.collect();
        (len > 0).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

// SAFETY: atomics alone, for which zero is a value.
unsafe impl Zeroed for Sheet {}

/// Written by one child at a time, read by its parent.
#[derive(Debug)]
pub(crate) struct Board(Shared<Sheet>);

impl Board {
    pub(crate) fn new() -> Board {
        Board(Shared::new())
    }

    /// For the next child.
    pub(crate) fn wipe(&self) {
        // Relaxed: no child is alive.
        self.0.count.store(0, Ordering::Relaxed);
        self.0.complaint.len.store(0, Ordering::Relaxed);
        self.0.remark.len.store(0, Ordering::Relaxed);
    }

    /// Reports. On a full board nothing is said: see [`has_room`](Self::has_room).
    pub(crate) fn say(&self, report: Report) {
        // Relaxed: only this process writes.
        let at = self.0.count.load(Ordering::Relaxed);
        let Some(row) = self.0.reports.get(at as usize) else { return };
        for (word, value) in row.iter().zip(report.encode()) {
            word.store(value, Ordering::Relaxed);
        }
        // Release: met by the Acquire in `len`. What is counted is whole.
        self.0.count.store(at + 1, Ordering::Release);
    }

    /// Whether there is room for what one operation reports.
    pub(crate) fn has_room(&self) -> bool {
        self.len() + 64 < ROOM
    }

    /// What went wrong; the first complaint stands.
    pub(crate) fn complain(&self, text: &str) {
        self.0.complaint.set(text);
    }

    pub(crate) fn complaint(&self) -> Option<String> {
        self.0.complaint.get()
    }

    /// What to tell with a failure; the first remark stands.
    pub(crate) fn remark(&self, text: &str) {
        self.0.remark.set(text);
    }

    pub(crate) fn remarked(&self) -> String {
        self.0.remark.get().unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        // Acquire: meets the Release in `say`.
        self.0.count.load(Ordering::Acquire) as usize
    }

    /// The first reports, as many as there are of so many.
    pub(crate) fn first(&self, most: usize) -> Vec<Report> {
        let rows = &self.0.reports[..self.len().min(most)];
        let read = |row: &[AtomicU64; 4]| {
            Report::decode(row.each_ref().map(|word| word.load(Ordering::Relaxed)))
        };
        rows.iter().map(read).collect()
    }

    pub(crate) fn all(&self) -> Vec<Report> {
        self.first(ROOM)
    }
}

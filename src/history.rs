#![forbid(unsafe_code)]
//! What the ring holds and how it got there: [`Entry`], [`Recovery`], [`Stats`]. For people and
//! dashboards; nothing here changes anything.

use std::{fmt, path::PathBuf, time::SystemTime};

use crate::{
    clock,
    engine::{Engine, Place, State, Trust},
    error::Holder,
    file::BLOCK,
    header::Side,
    id::SnapshotId,
    record::Kind,
};

/// Whether a listed snapshot can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryState {
    /// It was written by this process, or has passed every check.
    Whole,
    /// It was found at opening and has not been checked yet; asking for it does that.
    Unverified,
    /// It was written by a program with another layout of the state.
    OtherLayout {
        /// The first difference.
        difference: String,
    },
}

/// One listed snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    id: SnapshotId,
    kind: Kind,
    created: SystemTime,
    bytes: u64,
    written_bytes: u64,
    logical_version: u64,
    type_version: u32,
    durable: bool,
    state: EntryState,
    label: Option<String>,
    parent: Option<SnapshotId>,
    target: Option<SnapshotId>,
}

impl Entry {
    /// Its id.
    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// Whether its bytes are its own.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// When it was published, by a clock with steps of 1 to 10 ms.
    pub fn created(&self) -> SystemTime {
        self.created
    }

    /// Bytes of the archive and its pages.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes written for this snapshot alone; none for a rollback.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Counts states: one more with each save; a rollback has its target's.
    pub fn logical_version(&self) -> u64 {
        self.logical_version
    }

    /// `#[snapshot(version = ..)]` of the type that was saved.
    pub fn type_version(&self) -> u32 {
        self.type_version
    }

    /// Whether it is known to be on the disk.
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// Whether it can be read.
    pub fn state(&self) -> &EntryState {
        &self.state
    }

    /// The label under which it is kept.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// The newest snapshot when this one was published; for a rollback, what was left.
    pub fn parent(&self) -> Option<SnapshotId> {
        self.parent
    }

    /// For a rollback: the snapshot that it made the newest again.
    pub fn target(&self) -> Option<SnapshotId> {
        self.target
    }

    pub(crate) fn of(place: &Place) -> Entry {
        let id = |n: u64| (n > 0).then(|| SnapshotId::new(n));
        Entry {
            id: SnapshotId::new(place.id),
            kind: place.kind,
            created: clock::system_time(place.created),
            bytes: place.root.len + place.table.as_ref().map_or(0, |table| table.bytes),
            written_bytes: place.written,
            logical_version: place.logical,
            type_version: place.type_version,
            durable: place.durable,
            state: match &place.trust {
                Trust::Checked => EntryState::Whole,
                Trust::Unverified | Trust::Rejected(_) => EntryState::Unverified,
                Trust::Foreign(difference) => {
                    EntryState::OtherLayout { difference: difference.to_string() }
                }
            },
            label: place.label.as_deref().map(str::to_owned),
            parent: id(place.parent),
            target: id(place.target),
        }
    }
}

/// A slot page that opening found and did not believe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedSlot {
    /// The file.
    pub side: Side,
    /// The slot page's number in it.
    pub place: u16,
    /// The snapshot, where the page still told.
    pub id: Option<SnapshotId>,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for RejectedSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} place {}", self.side.file_name(), self.place)?;
        if let Some(id) = self.id {
            write!(f, ", snapshot {id}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// What opening found: a receipt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The newest snapshot that passed; the head.
    pub chosen: Option<SnapshotId>,
    /// Slot pages that did not pass, with side, place, id and reason.
    pub rejected: Vec<RejectedSlot>,
    /// Listed snapshots whose bytes had not been checked when opening returned.
    pub unverified: Vec<SnapshotId>,
    /// Snapshots of another layout, with the first difference.
    pub other_layout: Vec<(SnapshotId, String)>,
    /// Damaged files that were renamed, under their new names.
    pub set_aside: Vec<PathBuf>,
    /// Files that were made anew.
    pub created: Vec<PathBuf>,
    /// The last caretaker here had closed; otherwise it was killed, or the power went.
    pub clean: bool,
    /// Bytes whose checksum was compared before opening returned.
    pub verified_bytes: u64,
    /// The ring was handed over by this process, which still served a moment before.
    pub predecessor: Option<u32>,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.chosen {
            Some(id) => write!(f, "resumed at {id}")?,
            None => write!(f, "no snapshot yet")?,
        }
        write!(f, "{}", if self.clean { " after a clean close" } else { "" })?;
        if let Some(process) = self.predecessor {
            write!(f, ", handed over by process {process}")?;
        }
        for slot in &self.rejected {
            write!(f, "; rejected: {slot}")?;
        }
        for (id, difference) in &self.other_layout {
            write!(f, "; {id} has another layout: {difference}")?;
        }
        for path in &self.set_aside {
            write!(f, "; set aside: {}", path.display())?;
        }
        Ok(())
    }
}

/// What a caretaker has done and holds, at one moment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// The head.
    pub head: Option<SnapshotId>,
    /// The newest snapshot known to be on the disk.
    pub durable: Option<SnapshotId>,
    /// Snapshots listed.
    pub listed: usize,
    /// Snapshots published by `save` and `capture` since opening.
    pub saves: u64,
    /// Rollbacks published since opening.
    pub rollbacks: u64,
    /// Snapshots that left the ring since opening.
    pub evicted: u64,
    /// Bytes written for snapshots since opening.
    pub written_bytes: u64,
    /// Snapshots among the evicted that left by age.
    pub expired: u64,
    /// Snapshots written anew elsewhere after a failed sync, or because nothing told that they were
    /// on the disk.
    pub relocated: u64,
    /// Bytes of snapshots whose memory was let go of under memory pressure.
    pub trimmed_bytes: u64,
    /// Archives started over because their size had been guessed wrong.
    pub restarts: u64,
    /// Of the newest paged snapshot: the share of its pages that was written for it.
    pub dirty: f64,
    /// The share of the newest snapshot's bytes that it has in common with earlier ones.
    pub shared: f64,
    /// The share of the bytes kept for the newest snapshot's pages that no page of its own is in; the
    /// bytes between pages, which start at multiples of 64, are among them.
    pub fragmentation: f64,
    /// Pages copied because they were written to while a capture held them, as captures have found.
    pub copied_pages: u64,
    /// Captures that are not published yet.
    pub pending_captures: u64,
    /// Bytes that they keep in memory beside the live state.
    pub captured_bytes: u64,
    /// Bytes of both files.
    pub file_bytes: u64,
    /// Bytes of both files that snapshots occupy.
    pub used_bytes: u64,
    /// Mementos alive.
    pub mementos: u64,
    /// What retains snapshots besides the ring: mementos, reads, readers in other
    /// processes, labels, the disk; with ages.
    pub held: Vec<Holder>,
}

impl Engine {
    pub(crate) fn history(&self) -> Vec<Entry> {
        let state = self.lock();
        state.listed.iter().map(|n| Entry::of(&state.places[usize::from(*n)])).collect()
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut state = self.lock();
        let held = self.all_holders(&mut state);
        let newest = state.listed.front().map(|n| &state.places[usize::from(*n)]);
        let head = newest.map(|place| SnapshotId::new(place.id));
        Stats {
            head,
            durable: (state.durable > 0).then(|| SnapshotId::new(state.durable)),
            listed: state.listed.len(),
            saves: state.counts.saves,
            rollbacks: state.counts.rollbacks,
            evicted: state.counts.evicted,
            written_bytes: state.counts.written,
            expired: state.counts.expired,
            relocated: state.counts.relocated,
            trimmed_bytes: state.counts.trimmed,
            restarts: state.counts.restarts,
            dirty: share(state.counts.pages_written, state.counts.pages),
            shared: newest.map_or(0.0, shared),
            fragmentation: newest.map_or(0.0, fragmentation),
            copied_pages: state.counts.copies,
            pending_captures: state.captures - state.captured,
            captured_bytes: state.behind.iter().sum(),
            file_bytes: self.files.iter().map(|f| f.len()).sum(),
            used_bytes: used(&state),
            mementos: self.mementos.load(std::sync::atomic::Ordering::Relaxed),
            held,
        }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// How much of a snapshot was not written for it.
fn shared(place: &Place) -> f64 {
    let bytes = place.root.len + place.table.as_ref().map_or(0, |table| table.bytes);
    share(bytes.saturating_sub(place.written), bytes)
}

/// How much of its pages' runs is in none of its pages.
fn fragmentation(place: &Place) -> f64 {
    let Some(table) = &place.table else { return 0.0 };
    let kept: u64 = table.runs.iter().map(|run| run.blocks * BLOCK).sum();
    share(kept.saturating_sub(table.bytes), kept)
}

fn used(state: &State) -> u64 {
    state.spaces.iter().map(|space| space.extents.used() * BLOCK).sum()
}

#![forbid(unsafe_code)]
//! One error enum per operation, with the numbers in it and a text that says what to do.

use std::{error::Error, fmt, io, path::PathBuf, time::Duration};

use thiserror::Error;

use crate::id::SnapshotId;

/// Who keeps a place from being used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The snapshot held.
    pub id: SnapshotId,
    /// What holds it.
    pub by: HeldBy,
    /// For how long the snapshot has been held, as far as is known.
    pub since: Duration,
}

/// What keeps a snapshot's place from being used again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeldBy {
    /// `mementos` live mementos.
    Mementos {
        /// How many.
        mementos: u32,
    },
    /// A `read` is running on it.
    Read,
    /// A [`Reader`](crate::Reader) reads it, in this or another process. A process that has been
    /// stopped shows by its age.
    Reader,
    /// It was kept under this label.
    Label(String),
    /// It is the newest known to be on the disk, or on its way there.
    Durability,
    /// It is the newest, or the one before.
    Newest,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            HeldBy::Mementos { mementos: 1 } => write!(f, "{} by a memento", self.id)?,
            HeldBy::Mementos { mementos } => write!(f, "{} by {mementos} mementos", self.id)?,
            HeldBy::Read => write!(f, "{} by a read", self.id)?,
            HeldBy::Reader => write!(f, "{} by a reader in another process", self.id)?,
            HeldBy::Label(label) => write!(f, "{} by the label {label:?}", self.id)?,
            HeldBy::Durability => write!(f, "{} until a newer one is on the disk", self.id)?,
            HeldBy::Newest => write!(f, "{} as one of the newest two", self.id)?,
        }
        write!(f, " (for {:.1} s)", self.since.as_secs_f64())
    }
}

fn list(holders: &[Holder]) -> String {
    holders.iter().map(Holder::to_string).collect::<Vec<_>>().join(", ")
}

/// Why [`save`](crate::Caretaker::save) or [`capture`](crate::Caretaker::capture) did not publish.
/// But for [`NotDurable`](SaveError::NotDurable) the ring, the files and the state are as they were.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The file or the disk is full; where only the disk was in the way, a flush has been waited for.
    #[error("no space for {need} bytes: {free} free in the file, which may grow to {max}; raise `Options::max_file_size`, free disk space, or release what is held: [{}]", list(.held))]
    NoSpace {
        /// Bytes the snapshot needs.
        need: u64,
        /// Bytes free in the largest gap.
        free: u64,
        /// The most the file may grow to.
        max: u64,
        /// What could not be evicted.
        held: Vec<Holder>,
        /// What the system said, where it refused to grow the file.
        #[source]
        source: Option<io::Error>,
    },
    /// Every place is taken by something that may not be evicted. Where it was the disk alone
    /// ([`HeldBy::Durability`]), a flush has been waited for, which failed or took longer than about a
    /// second to begin.
    #[error("every place is held: {}; drop those mementos or release those labels", list(.holders))]
    Held {
        /// Who holds what, and for how long.
        holders: Vec<Holder>,
    },
    /// More than an archive can address.
    #[error(
        "the state takes {bytes} bytes or elements, more than the {max} that an archive can address; split it over several caretakers"
    )]
    TooLarge {
        /// How much, as far as it was counted.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// More pointers deep than allowed.
    #[error(
        "the state is more than {max} pointers deep; raise `Options::max_depth` or flatten the state"
    )]
    TooDeep {
        /// The limit.
        max: u32,
    },
    /// A shared pointer leads back to itself.
    #[error("a shared pointer leads back to itself; skip the field that closes the cycle")]
    Cyclic,
    /// A container gave other elements at its second walk.
    #[error(
        "a container changed while it was archived; its iterator must give the same elements twice"
    )]
    Unsteady,
    /// A `with` wrapper failed.
    #[error("a `with` wrapper failed to serialise a field")]
    Serialize {
        /// What the wrapper said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Captures are taken faster than they are written, and are not to wait:
    /// [`Options::capture_memory`](crate::Options::capture_memory).
    #[error(
        "captures that are not written yet keep {pending} bytes, and {limit} are allowed; capture less often, or allow more by `Options::capture_memory`"
    )]
    Behind {
        /// Bytes that captures keep.
        pending: u64,
        /// The limit.
        limit: u64,
    },
    /// The state's own code panicked in the background, while a capture was archived.
    #[error("the state's own code panicked while a capture was archived: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// The error of this capture has been answered before.
    #[error("this capture failed, and its error was answered before")]
    Told,
    /// Called from inside the engine: from a wrapper or a `Drop` while it archives or restores.
    #[error("called from inside a save or a rollback of the same caretaker; call it after")]
    Reentrant,
    /// Called in a forked child.
    #[error(
        "this process was forked from the one that opened the caretaker; open one of its own, in a directory of its own"
    )]
    Forked,
    /// The ring has been handed over to another process.
    #[error("this ring has been handed over to a successor process, which saves now")]
    HandedOver,
    /// It was published and survives the process, but a sync has failed: this snapshot's under
    /// [`Durability::Sync`](crate::Durability::Sync), or one since the last save that told so. Each
    /// failure is told by one save; what depended on it is written anew elsewhere, and
    /// [`durable`](crate::Caretaker::durable) says what is on the disk.
    #[error(
        "{id} was published, but a sync has failed: only what `durable()` covers is on the disk; check the disk"
    )]
    NotDurable {
        /// The snapshot, which can be read and rolled back to.
        id: SnapshotId,
        /// What the disk said.
        #[source]
        source: FlushError,
    },
    /// The system could not write the archive to the file.
    #[error("writing to {} failed; nothing was published: check the disk, and save again", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No more ids: 2^52 have been used.
    #[error("this directory has used up its 2^52 snapshot ids; start a new one")]
    Exhausted,
}

/// Why a ring could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The system refused.
    #[error("{}: cannot {doing}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The path is there and is no directory.
    #[error("{} is not a directory; give the path of one, or of one to be made", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Somebody else could change the files.
    #[error("{}: {reason}", path.display())]
    Untrusted {
        /// The file or directory.
        path: PathBuf,
        /// Why it is not trusted, and what to do.
        reason: String,
    },
    /// The directory is on a file system whose mappings are not coherent.
    #[error("{} is on a remote file system ({kind}), where mappings and locks cannot be relied on; use a local directory, or `Options::allow_remote(true)` if you know better", path.display())]
    Remote {
        /// The directory.
        path: PathBuf,
        /// The file system's name.
        kind: &'static str,
    },
    /// Another caretaker, or a memento of one, holds the directory.
    #[error("{} is in use: {holder} has the writer lock; close that caretaker and drop its mementos first", path.display())]
    WriterActive {
        /// The directory.
        path: PathBuf,
        /// As the lock file says: the process that took it last.
        holder: String,
    },
    /// The process that holds the ring has another layout of the state, and goes on.
    #[error("{}: {process} serves with another layout: {difference}; it goes on. Start a build with its layout, or end it and open without `take_over`, where its snapshots are listed and not read", path.display())]
    Layout {
        /// The directory, or the socket of a ring in memory.
        path: PathBuf,
        /// The predecessor.
        process: String,
        /// The first difference; *the file* is the predecessor's, *the program* this one.
        difference: String,
    },
    /// A predecessor offered to hand the ring over, and did not in time, or could not.
    #[error("{}: the predecessor did not hand over: {reason}; it goes on if it is alive: try again", path.display())]
    NotHandedOver {
        /// The directory, or the socket of a ring in memory.
        path: PathBuf,
        /// What happened last.
        reason: String,
    },
    /// Nobody hands over a ring in memory here.
    #[error("{}: nobody hands over a ring in memory here; start with a new one, or open the directory that stands in for it", path.display())]
    NoPredecessor {
        /// The socket.
        path: PathBuf,
    },
    /// The files were written by a newer snapring.
    #[error("{}: format version {found}, and this build reads up to {known}; use a newer snapring, or another directory", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest this build reads.
        known: u32,
    },
    /// The files were written for another kind of machine or rkyv.
    #[error("{}: {difference}; open it with a build of that kind, or use another directory", path.display())]
    ForeignFormat {
        /// The file.
        path: PathBuf,
        /// What differs, in words.
        difference: String,
    },
    /// The two files belong to different rings.
    #[error("{} and its sibling belong to different rings (ring {found}, expected {expected}); put back the file that belongs here, or move the stray one away", path.display())]
    OtherRing {
        /// The stray file.
        path: PathBuf,
        /// Its ring.
        found: String,
        /// The sibling's ring.
        expected: String,
    },
    /// The file of one side lies under the other's name.
    #[error("{} holds side {found}; the two files have been swapped: rename them back", path.display())]
    Swapped {
        /// The file.
        path: PathBuf,
        /// The side it says it is.
        found: char,
    },
    /// An option is out of range.
    #[error("Options::{option}: {reason}")]
    Options {
        /// The option.
        option: &'static str,
        /// What is wrong with it, and what would do.
        reason: String,
    },
}

/// Why a snapshot cannot be had as a memento.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MementoError {
    /// No snapshot of this id was ever published here, as far as is known.
    #[error("{id} is unknown here; `history()` lists what there is")]
    Unknown {
        /// The id asked for.
        id: SnapshotId,
    },
    /// It was published and has left the ring.
    #[error("{id} has left the ring; the oldest left is {}; `keep` what must stay", oldest.map_or("none".to_owned(), |id| id.to_string()))]
    Evicted {
        /// The id asked for.
        id: SnapshotId,
        /// The oldest one that can still be had.
        oldest: Option<SnapshotId>,
    },
    /// Its bytes did not pass.
    #[error("{id} is damaged: {reason}; an older one may be whole, see `history()`")]
    Rejected {
        /// The id asked for.
        id: SnapshotId,
        /// File, place and what is wrong.
        reason: String,
    },
    /// Called in a forked child.
    #[error("this process was forked from the one that opened the caretaker; open one of its own")]
    Forked,
    /// A reader could not have the kernel's lock that keeps the place.
    #[error("{id} could not be leased; see that nobody else locks `leases.lock`, and try again")]
    Lease {
        /// The id asked for.
        id: SnapshotId,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It was written by a program with another layout of the state.
    #[error("{id} has another layout: {difference}")]
    Layout {
        /// The id asked for.
        id: SnapshotId,
        /// The first difference.
        difference: String,
    },
}

/// Why a state could not be had from the newest snapshot.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// The newest snapshot cannot be read.
    #[error("the newest snapshot cannot be read")]
    Memento(#[from] MementoError),
    /// The archive is whole, but no value could be made of it. The state is as it was.
    #[error("{id} could not be thawed")]
    Thaw {
        /// The snapshot.
        id: SnapshotId,
        /// Why.
        #[source]
        source: crate::ThawError,
    },
    /// User code (a `Drop`, a `Hash`, a wrapper) panicked twice; the state is a valid value, but
    /// neither what it was nor the snapshot. Replace it.
    #[error(
        "{id}: user code panicked while the state was restored, and again while it was thawed anew ({message}); the state is a mixture: replace it"
    )]
    Poisoned {
        /// The snapshot.
        id: SnapshotId,
        /// The panic's text.
        message: String,
    },
    /// Called from inside the engine.
    #[error("called from inside a save or a rollback of the same caretaker; call it after")]
    Reentrant,
    /// Called in a forked child.
    #[error("this process was forked from the one that opened the caretaker; open one of its own")]
    Forked,
}

/// Why a rollback did not happen. But for `Poisoned` the state and the ring are as they were.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RollbackError {
    /// No snapshot of this id was ever published here, as far as is known.
    #[error("{to} is unknown here; `history()` lists what there is")]
    Unknown {
        /// The id asked for.
        to: SnapshotId,
    },
    /// It was published and has left the ring.
    #[error("{to} has left the ring; the oldest left is {}; `keep` what must stay", oldest.map_or("none".to_owned(), |id| id.to_string()))]
    Evicted {
        /// The id asked for.
        to: SnapshotId,
        /// The furthest back one can still go.
        oldest: Option<SnapshotId>,
    },
    /// Something was published since `expected`; nothing changed.
    #[error("the head has moved on to {}; look at it and decide again", now.map_or("none".to_owned(), |id| id.to_string()))]
    Raced {
        /// Where the head is now.
        now: Option<SnapshotId>,
    },
    /// It was written by a program with another layout of the state.
    #[error("{to} has another layout: {difference}")]
    Layout {
        /// The id asked for.
        to: SnapshotId,
        /// The first difference.
        difference: String,
    },
    /// Its bytes did not pass.
    #[error("{to} is damaged: {reason}; go to another one, see `history()`")]
    Rejected {
        /// The id asked for.
        to: SnapshotId,
        /// File, place and what is wrong.
        reason: String,
    },
    /// The archive is whole, but no value could be made of it. The state is as it was.
    #[error("{to} could not be thawed")]
    Thaw {
        /// The snapshot.
        to: SnapshotId,
        /// Why.
        #[source]
        source: crate::ThawError,
    },
    /// User code panicked while the state was restored and again while it was thawed anew. The
    /// state is a valid value, but a mixture: replace it, by `resume` for one.
    #[error(
        "{to}: user code panicked while the state was restored, and again while it was thawed anew ({message}); the state is a mixture: replace it"
    )]
    Poisoned {
        /// The snapshot.
        to: SnapshotId,
        /// The panic's text.
        message: String,
    },
    /// Called from inside the engine.
    #[error("called from inside a save or a rollback of the same caretaker; call it after")]
    Reentrant,
    /// Called in a forked child.
    #[error("this process was forked from the one that opened the caretaker; open one of its own")]
    Forked,
    /// There is no place for the rollback's own record.
    #[error("{to}: a rollback is a snapshot of its own, and there is no place for it")]
    NoPlace {
        /// The id asked for.
        to: SnapshotId,
        /// Why.
        #[source]
        source: SaveError,
    },
    /// The state is back, but the rollback could not be published as a snapshot of its own. So it is,
    /// too, where the snapshot that was to leave for it has come to be held meanwhile.
    #[error("the state is {to} again, but that could not be published")]
    Unpublished {
        /// The snapshot that the state is now.
        to: SnapshotId,
        /// Why.
        #[source]
        source: SaveError,
    },
}

/// Why a label could not be set.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeepError {
    /// No listed snapshot has this id.
    #[error("{id} cannot be kept: it is not, or no longer, in the ring; see `history()`")]
    Gone {
        /// The id asked for.
        id: SnapshotId,
    },
    /// Another label would leave fewer than two places for new snapshots.
    #[error(
        "{kept} of {ring} places are kept, and two must stay free; release a label or open with a longer ring"
    )]
    Full {
        /// Snapshots kept now.
        kept: usize,
        /// The ring's length.
        ring: usize,
    },
    /// A label is 1 to 255 bytes of text without control characters.
    #[error("{label:?} is no label: 1 to 255 bytes without control characters, please")]
    Label {
        /// The label asked for.
        label: String,
    },
    /// Called in a forked child.
    #[error("this process was forked from the one that opened the caretaker; open one of its own")]
    Forked,
}

/// Why what was saved is not on the disk. Sticky: once a sync has failed, this is told ever after, and
/// nothing that depended on it is reported durable where it lay; it is when it has been written anew
/// elsewhere, as later snapshots are.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The system could not write to the disk.
    #[error("syncing {} failed: {message}; snapshots up to {upto} may not be on the disk unless `durable()` covers them: check the disk", path.display())]
    Sync {
        /// The file.
        path: PathBuf,
        /// What the system said.
        message: String,
        /// Nothing up to this id that was not durable before is claimed to be.
        upto: SnapshotId,
    },
    /// Called in a forked child.
    #[error("this process was forked from the one that opened the caretaker; open one of its own")]
    Forked,
}

/// What [`close`](crate::Caretaker::close) could not finish.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CloseError {
    /// The last flush failed.
    #[error("closed, but not everything is on the disk")]
    Flush(#[from] FlushError),
    /// Mementos are alive, so the lock stays taken until they are dropped. Everything is flushed.
    #[error(
        "closed and flushed, but {mementos} mementos are alive: the directory stays locked until they are dropped"
    )]
    Held {
        /// How many.
        mementos: usize,
        /// The newest snapshot on the disk.
        durable: Option<SnapshotId>,
    },
}

//! Snapshots of live state, taken in microseconds and put back whole by one call.
//!
//! A game server or a simulation must change while it runs: new rules, new config, a reloaded
//! plugin, a restarted process. When a change goes wrong, the state must be back, at once. snapring
//! is the memento engine for that: your state derives [`Snapshot`]; a [`Caretaker`] archives it with
//! rkyv straight into two memory-mapped files, keeps a ring of 16 snapshots, and puts any of them
//! back.
//!
//! ```text
//!             save                                seal, publish
//!  live state ------------> archive (rkyv) ------------------------> head (compare-and-swap)
//!      ^                    straight into snapshot_a.bin                |
//!      |                    or snapshot_b.bin, by turns                 v
//!      +------------ rollback / resume <------- Memento <------- ring of 16
//! ```
//!
//! # Example
//!
//! ```
//! use snapring::{Caretaker, Snapshot};
//! use std::collections::HashMap;
//!
//! #[derive(Snapshot)]
//! struct Arena {
//!     tick: u64,
//!     players: HashMap<u32, Player>,
//! }
//!
//! #[derive(Snapshot)]
//! struct Player {
//!     name: String,
//!     hp: f32,
//!     #[snapshot(skip)] // a live thing: not archived, left alone by a rollback
//!     socket: Option<std::net::TcpStream>,
//! }
//!
//! # let dir = std::env::temp_dir().join(format!("snapring-doc-{}", std::process::id()));
//! // SAFETY: nothing else writes to the files in this directory while the caretaker lives.
//! let caretaker = unsafe { Caretaker::<Arena>::open(&dir) }?;
//! let mut arena = caretaker.resume()?.unwrap_or_else(|| Arena {
//!     tick: 0,
//!     players: HashMap::new(),
//! });
//!
//! arena.tick += 1;
//! let good = caretaker.save(&arena)?; // published: survives kill -9 from here on
//!
//! // A change that fails is undone.
//! let outcome = caretaker.guard(&mut arena, |arena| {
//!     arena.tick = 0;
//!     arena.players.clear();
//!     Err::<(), _>("the new rules do not load")
//! });
//! assert!(outcome.is_err());
//! assert_eq!(arena.tick, 1);
//!
//! // Going back is a snapshot of its own: one can go forward again.
//! let rollback = caretaker.rollback(&mut arena, good)?;
//! assert_eq!(caretaker.head(), Some(rollback.id()));
//!
//! // Any thread may look at the newest snapshot, in place, without waiting.
//! assert_eq!(caretaker.read(|arena| arena.tick.to_native()), Some(1));
//! # drop(caretaker);
//! # std::fs::remove_dir_all(&dir)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! - **P1** The bytes of a published snapshot never change while anybody can see them.
//! - **P2** The head is one word; it names a sealed snapshot and moves only by compare-and-swap.
//! - **P3** After the process dies at any instruction, reopening finds every snapshot that `save`
//!   had reported and that was not evicted.
//! - **P4** Whatever [`Caretaker::durable`] covers survives the loss of power. Neither the newest
//!   durable snapshot nor one on its way to the disk is evicted.
//! - **P5** A failed save, rollback or guarded change leaves ring and files as they were, and the
//!   state what it was or the target, never a mixture.
//! - **P6** No bytes in the files, however hostile, cause undefined behaviour, a panic, or
//!   unbounded work: they are rejected, and [`Caretaker::recovery`] says where and why.
//! - **P7** A slow reader holds the one place it reads. It costs space, never the writer's progress.
//!
//! # What it costs
//!
//! - A **save** is one walk over the state and one checksum over its bytes, and allocates nothing in
//!   a steady state. Rows of plain data are one copy. BENCHMARKS.md has the figures, beside the bare
//!   copy and beside other stores.
//! - A **read** is two loads and a swap in the thread's own cache line; in another process
//!   ([`Reader`]) some loads more, and one system call and a check of the bytes for each new snapshot.
//! - The **ring** is 16 whole snapshots: that many times the state's size in the two files.
//! - What is in a [`PagedVec`] or a [`PagedMap`] costs what has changed: snapshots share pages, and
//!   [`Caretaker::capture`] leaves the writing to another thread. The module [`paged`] is the guide.
//!
//! # What can be a state
//!
//! Structs and enums of every shape that own their data, with `#[derive(Snapshot)]`, over numbers,
//! strings, `Vec`, `VecDeque`, `Box`, `Option`, `Result`, tuples, arrays, ranges, `Duration`, maps
//! and sets (archived in a canonical order), `Rc` and `Arc` (sharing preserved), [`PagedVec`] and
//! [`PagedMap`]; containers themselves, as in `Caretaker<HashMap<..>>`. Attributes on fields:
//!
//! | attribute | effect |
//! |---|---|
//! | `#[snapshot(skip)]` | not archived; a rollback leaves the live value alone; a fresh value takes `Default::default()` |
//! | `#[snapshot(skip = expr)]` | the same, with `expr` for fresh values |
//! | `#[snapshot(id)]` | elements of a sequence are recognised by this field, so that their skipped fields follow them |
//! | `#[snapshot(with = path::To)]` | archived by an rkyv `with` wrapper; [`with::Serde`](crate::with) takes any serde type |
//! | `#[snapshot(unsorted)]` | a map or set in the order it has: faster to save, digests differ |
//! | `#[snapshot(hashed)]` | a map or set in rkyv's hashed form: lookups in the archive by hash |
//!
//! and on types `#[snapshot(version = 3)]`, shown in the history. Features: `serde` for
//! `with::Serde`, `glam` for glam's vectors, quaternions and matrices.
//!
//! # Restarts
//!
//! [`Caretaker::hand_over`] and [`Options::take_over`] pass a ring to the next process while this one
//! still serves: the lock, the memory of a ring without files, and the clients' connections; only to
//! a process with the same layout. [`Caretaker::farewell`] publishes a last snapshot when a thread
//! panics or SIGTERM comes.
//!
//! # Read next
//!
//! [`Caretaker`] is the whole of the interface, [`Reader`] its look from other processes, and
//! [`paged`] tells how large states are kept.
//! SNAPSHOT_FORMAT.md tells the bytes, ARCHITECTURE.md
//! the way they take and why.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!(
    "snapring runs on 64-bit Linux only so far; what is Linux's own is in src/os.rs: \
     see ARCHITECTURE.md, \"Other systems\""
);

// The derive names this crate from the root, in its own tests too.
extern crate self as snapring;

// The modules in the order of the data's way. What a state is:
mod snapshot;
mod derived;
mod impls;
mod map;
pub mod paged;
pub mod with;
#[cfg(feature = "serde")]
mod with_serde;
#[cfg(feature = "glam")]
mod with_glam;
mod schema;
// out: from a live state to an archive,
mod session;
mod scratch;
// to a place, sealed and published,
mod caretaker;
mod options;
mod save;
mod capture;
mod engine;
mod space;
mod tenancy;
mod extents;
mod paging;
mod policy;
mod page_writer;
mod runs;
mod publish;
mod id;
mod ring;
mod announce;
mod events;
// to the disk,
mod storage;
mod file;
mod header;
mod record;
mod background;
mod flush;
mod relocate;
mod arm;
mod expire;
mod pressure;
mod farewell;
// and back: found, believed,
mod directory;
mod open;
mod recover;
mod looks;
// or from a predecessor that still serves,
mod handover;
mod gate;
mod handed;
mod takeover;
mod wire;
// and held, restored.
mod verify;
mod checker;
mod memento;
mod history;
mod rollback;
mod guard;
mod thaw;
// In other processes:
mod reader;
mod reader_error;
mod follower;
mod watch;
mod sight;
mod window;
mod lease;
mod herald;
// Beside the way.
mod error;
mod clock;
mod os;
mod sync;
#[cfg(shuttle)]
mod shuttle_locks;
#[cfg(all(test, shuttle))]
mod shuttle_models;
#[cfg(all(test, loom))]
mod loom_models;
#[cfg(all(test, loom))]
mod loom_order;
#[cfg(all(test, loom))]
mod loom_leases;
mod probe;
mod mutants;
#[cfg(feature = "campaign")]
mod sim;
#[cfg(feature = "campaign")]
mod sim_directory;
#[cfg(feature = "campaign")]
mod sim_pages;
#[cfg(feature = "campaign")]
#[doc(hidden)]
pub mod campaign;
#[cfg(all(test, feature = "campaign"))]
mod crash_tests;

pub use capture::Pending;
pub use caretaker::Caretaker;
pub use checker::Checker;
pub use error::*;
pub use events::{Event, Events};
pub use farewell::{Armed, Farewell, LAST_AFTER_PANIC, LAST_AT_SIGTERM};
pub use gate::Refusal;
pub use guard::{Checkpoint, GuardError, Payload};
pub use handover::{HandOver, HandOverError, TakenBack};
pub use header::Side;
pub use history::{Entry, EntryState, Recovery, RejectedSlot, Stats};
pub use id::SnapshotId;
pub use map::{ArchivedEntries, ArchivedEntry, ArchivedItems, ArchivedMap, ArchivedSet};
pub use memento::{Digest, Memento};
pub use options::{Behind, Durability, Options};
pub use paged::{ArchivedPagedMap, ArchivedPagedVec, PagedMap, PagedVec};
pub use policy::Policy;
pub use reader::Reader;
pub use reader_error::ReaderError;
pub use record::Kind;
pub use rollback::Rollback;
pub use schema::{Fingerprint, Node, Schema, Shape};
pub use session::{Halt, Session};
pub use snapring_derive::Snapshot;
pub use snapshot::{Archived, Snapshot};
pub use thaw::{Thaw, ThawError};

/// What the derive's output names.
#[doc(hidden)]
pub mod __private {
    pub use crate::derived::*;
    pub mod probe {
        pub use crate::probe::*;
    }
    pub use rkyv;
}

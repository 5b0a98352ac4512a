//! snapring (front door, to be written last)
#[cfg(not(target_os = "linux"))]
compile_error!("snapring runs on Linux only so far: see ARCHITECTURE.md, \"Other systems\"");

// The derive names this crate from the root, in its own tests too.
extern crate self as snapring;

mod announce;
mod capture;
mod caretaker;
mod checker;
mod clock;
mod derived;
mod directory;
mod engine;
mod error;
mod events;
mod extents;
mod file;
mod flush;
mod guard;
mod header;
mod history;
mod id;
mod impls;
mod map;
mod memento;
mod open;
mod options;
mod os;
mod probe;
mod publish;
mod record;
mod ring;
mod rollback;
mod save;
mod schema;
mod session;
mod snapshot;
mod space;
mod sync;
mod thaw;
mod verify;
pub mod with;
#[cfg(feature = "glam")]
mod with_glam;
#[cfg(feature = "serde")]
mod with_serde;

pub use capture::Pending;
pub use caretaker::Caretaker;
pub use checker::Checker;
pub use error::*;
pub use events::{Event, Events};
pub use guard::{Checkpoint, GuardError, Payload};
pub use header::Side;
pub use history::{Entry, EntryState, Recovery, RejectedSlot, Stats};
pub use id::SnapshotId;
pub use map::{ArchivedEntries, ArchivedEntry, ArchivedItems, ArchivedMap, ArchivedSet};
pub use memento::{Digest, Memento};
pub use options::{Durability, Options};
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

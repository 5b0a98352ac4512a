#![forbid(unsafe_code)]
//! Why a directory cannot be read from another process.

use std::path::PathBuf;

use thiserror::Error;

use crate::{error::OpenError, id::SnapshotId};

/// Why [`Reader::open`](crate::Reader::open) cannot read a ring.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReaderError {
    /// Nobody has made the files yet, or somebody is just making them.
    #[error("{} is not there yet; a caretaker makes it when it opens the directory: try again then", path.display())]
    NotReady {
        /// The directory or file that is missing.
        path: PathBuf,
    },
    /// Neither of a file's two headers can be read.
    #[error("{} is damaged: {reason}; open the directory with a caretaker, which sets the file aside", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The newest snapshot was written by a program with another layout of the state.
    #[error("{id} has another layout: {difference}; read it with the type that was saved")]
    Layout {
        /// The newest snapshot.
        id: SnapshotId,
        /// The first difference.
        difference: String,
    },
    /// What keeps a caretaker from opening the directory, too: it is no directory, others could
    /// change it, it is remote, of a newer or a foreign format, its files have been swapped or
    /// belong to different rings, an option is out of range, or the system refused.
    #[error(transparent)]
    Open(#[from] OpenError),
}

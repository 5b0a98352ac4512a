#![forbid(unsafe_code)]
//! [`Pending`]: a captured state on its way to being a snapshot.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use crate::{error::SaveError, id::SnapshotId};

/// A captured state on its way to being a snapshot. Wait for it, await it, or drop it: it is
/// published all the same.
///
/// A state is archived and published during the capture itself, so neither waiting nor awaiting
/// takes time.
#[derive(Debug)]
#[must_use = "an error after the pause would go unseen"]
pub struct Pending {
    id: SnapshotId,
}

impl Pending {
    pub(crate) fn published(id: SnapshotId) -> Pending {
        Pending { id }
    }

    /// The snapshot, once it is published.
    ///
    /// # Errors
    ///
    /// As [`Caretaker::save`](crate::Caretaker::save), for what comes after the pause.
    pub fn wait(self) -> Result<SnapshotId, SaveError> {
        Ok(self.id)
    }

    /// The outcome, if it is there. Never waits.
    pub fn try_wait(&mut self) -> Option<Result<SnapshotId, SaveError>> {
        Some(Ok(self.id))
    }
}

impl Future for Pending {
    type Output = Result<SnapshotId, SaveError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(self.id))
    }
}

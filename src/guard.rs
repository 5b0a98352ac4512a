#![forbid(unsafe_code)]
//! A change that is undone if it fails: [`guard`](crate::Caretaker::guard) around a closure,
//! [`Checkpoint`] around anything else.

use std::{
    any::Any,
    error::Error,
    fmt::{self, Display},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex},
};

use crate::{
    engine::Engine,
    error::{RollbackError, SaveError},
    farewell::Guarded,
    id::SnapshotId,
    memento::Memento,
    rollback::{Rollback, panic_message},
    snapshot::Snapshot,
};

/// Why a guarded change is not in the state.
///
/// After [`Failed`](Self::Failed) and [`Panicked`](Self::Panicked) the state is what it was before
/// the change. `E` is shown by `Display`, so that a plugin's own words reach the log.
#[non_exhaustive]
pub enum GuardError<E> {
    /// The change answered an error; the state is back.
    Failed {
        /// What the change answered.
        error: E,
        /// The rollback that put the state back.
        rollback: Rollback,
    },
    /// The change panicked; the state is back. [`resume_unwind`](Self::resume_unwind) goes on with
    /// the panic.
    Panicked {
        /// The panic's text.
        message: String,
        /// The rollback that put the state back.
        rollback: Rollback,
        /// The panic itself.
        payload: Payload,
    },
    /// The state could not be saved first, so the change did not run.
    Save {
        /// Why.
        source: SaveError,
    },
    /// The change failed, and the rollback did too. For want of a place alone
    /// ([`Unpublished`](RollbackError::Unpublished)) the state is back, and not published.
    Rollback {
        /// What the change answered, or its panic's text.
        cause: String,
        /// Why the rollback failed.
        source: RollbackError,
    },
}

/// A panic's payload, to go on with.
pub struct Payload(Mutex<Box<dyn Any + Send>>);

impl Payload {
    /// The payload as it was thrown.
    pub fn into_inner(self) -> Box<dyn Any + Send> {
        self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Payload")
    }
}

impl<E> GuardError<E> {
    /// Goes on with the panic, if it was one; else gives the error back.
    pub fn resume_unwind(self) -> GuardError<E> {
        match self {
            GuardError::Panicked { payload, .. } => resume_unwind(payload.into_inner()),
            other => other,
        }
    }

    /// The rollback that put the state back, if one did.
    pub fn rollback(&self) -> Option<Rollback> {
        match self {
            GuardError::Failed { rollback, .. } | GuardError::Panicked { rollback, .. } => {
                Some(*rollback)
            }
            GuardError::Save { .. } | GuardError::Rollback { .. } => None,
        }
    }
}

impl<E: Display> Display for GuardError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GuardError::Failed { error, rollback } => {
                write!(f, "the change failed and is undone (back at {}): {error}", rollback.to())
            }
            GuardError::Panicked { message, rollback, .. } => {
                write!(
                    f,
                    "the change panicked and is undone (back at {}): {message}",
                    rollback.to()
                )
            }
            GuardError::Save { source } => {
                write!(f, "the change was not tried, since the state could not be saved: {source}")
            }
            GuardError::Rollback { cause, source } => {
                write!(f, "the change failed ({cause}) and could not be undone: {source}")
            }
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for GuardError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GuardError::Failed { error, rollback } => {
                f.debug_struct("Failed").field("error", error).field("rollback", rollback).finish()
            }
            GuardError::Panicked { message, rollback, .. } => f
                .debug_struct("Panicked")
                .field("message", message)
                .field("rollback", rollback)
                .finish_non_exhaustive(),
            GuardError::Save { source } => f.debug_struct("Save").field("source", source).finish(),
            GuardError::Rollback { cause, source } => {
                f.debug_struct("Rollback").field("cause", cause).field("source", source).finish()
            }
        }
    }
}

impl<E: Display + fmt::Debug> Error for GuardError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            GuardError::Save { source } => Some(source),
            GuardError::Rollback { source, .. } => Some(source),
            GuardError::Failed { .. } | GuardError::Panicked { .. } => None,
        }
    }
}

/// A way back to one moment, for code that a closure cannot hold (async code, several calls).
/// Dropped without a word it commits: the state stays as it is.
#[must_use = "a checkpoint dropped at once cannot restore anything"]
pub struct Checkpoint<T: Snapshot> {
    engine: Arc<Engine>,
    memento: Memento<T>,
}

impl<T: Snapshot> Checkpoint<T> {
    /// The snapshot it leads back to.
    pub fn id(&self) -> SnapshotId {
        self.memento.id()
    }

    /// Puts the state back, and publishes that as a rollback.
    ///
    /// # Errors
    ///
    /// As [`Caretaker::rollback`](crate::Caretaker::rollback); but where there is no place for its
    /// record the state goes back all the same
    /// ([`Unpublished`](RollbackError::Unpublished)).
    pub fn restore(self, state: &mut T) -> Result<Rollback, RollbackError> {
        self.engine.rollback_to(state, &self.memento)
    }

    /// Lets the way back go: the state stays as it is. The snapshot stays in the ring.
    pub fn commit(self) {}
}

impl<T: Snapshot> fmt::Debug for Checkpoint<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Checkpoint").field(&self.id()).finish()
    }
}

impl Engine {
    pub(crate) fn checkpoint<T: Snapshot>(
        self: &Arc<Engine>,
        state: &T,
    ) -> Result<Checkpoint<T>, SaveError> {
        loop {
            // A way back is to be had where the snapshot is published; news of a failed sync waits
            // for the next save, but a save that was to wait for the disk has waited in vain.
            let id = self.save_here(state)?;
            self.wait_for_the_disk(id)?;
            // Other threads may save so fast that it has left the ring already: then once more.
            if let Ok(memento) = self.hold(id).and_then(Memento::of) {
                return Ok(Checkpoint { engine: self.clone(), memento });
            }
        }
    }

    pub(crate) fn guard<T: Snapshot, R, E: Display>(
        self: &Arc<Engine>,
        state: &mut T,
        change: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<R, GuardError<E>> {
        let checkpoint = self.checkpoint(state).map_err(|source| GuardError::Save { source })?;
        let guarded = Guarded::enter();
        let changed = catch_unwind(AssertUnwindSafe(|| change(state)));
        drop(guarded);
        match changed {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => match checkpoint.restore(state) {
                Ok(rollback) => Err(GuardError::Failed { error, rollback }),
                Err(source) => Err(GuardError::Rollback { cause: error.to_string(), source }),
            },
            Err(payload) => {
                let message = panic_message(&*payload);
                match checkpoint.restore(state) {
                    Ok(rollback) => Err(GuardError::Panicked {
                        message,
                        rollback,
                        payload: Payload(Mutex::new(payload)),
                    }),
                    Err(source) => Err(GuardError::Rollback { cause: message, source }),
                }
            }
        }
    }
}

#![forbid(unsafe_code)]
//! Going back: refuse first, then restore in place, then publish.
//!
//! User code runs while the state is restored (a `Drop`, a `Hash`, a wrapper). Where it panics, the
//! state is thawed anew and put in place of what is left, so that it is what it was or the target,
//! never a mixture (P5).

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    engine::Engine,
    error::{MementoError, ResumeError, RollbackError},
    id::SnapshotId,
    memento::{Hold, Memento},
    mutants::{Mutant, gap},
    os,
    publish::Prospect,
    save::Inside,
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
};

/// A rollback that has happened: a snapshot of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it tells the new head"]
pub struct Rollback {
    id: SnapshotId,
    from: Option<SnapshotId>,
    to: SnapshotId,
    took: Duration,
}

impl Rollback {
    /// The snapshot that the rollback is: the new head.
    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// The head before, to which one can go forward again.
    pub fn from(&self) -> Option<SnapshotId> {
        self.from
    }

    /// The snapshot whose state is current again.
    pub fn to(&self) -> SnapshotId {
        self.to
    }

    /// From the call to the state being back and published.
    pub fn took(&self) -> Duration {
        self.took
    }
}

/// Why a state could not be restored.
pub(crate) enum Unrestored {
    /// It is as it was.
    Thaw(ThawError),
    /// It is a valid value, but a mixture.
    Poisoned(String),
}

/// What a panic said.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a text".to_owned()
    }
}

/// Makes `state` what the memento holds, or leaves it as it was.
pub(crate) fn restore<T: Snapshot>(memento: &Memento<T>, state: &mut T) -> Result<(), Unrestored> {
    let hold = memento.hold();
    let layout = hold.layout();
    let mut touched = None;
    // Bytes that this process has not written can be whole and still contradict themselves, as by
    // an entry that is there twice: then a state restored in place would be a mixture (P5).
    if !layout.fallible && hold.is_ours() {
        let in_place = catch_unwind(AssertUnwindSafe(|| {
            state.restore(memento.archived(), &mut Thaw::of(layout).named(hold.names_hold()))
        }));
        match in_place {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => touched = Some(error.to_string()),
            Err(payload) => touched = Some(panic_message(&*payload)),
        }
    }
    // The bytes were found, a wrapper may refuse, or user code has panicked: a new value aside, then
    // one swap.
    let thawed = catch_unwind(AssertUnwindSafe(|| {
        T::thaw(memento.archived(), &mut Thaw::of(layout).named(hold.names_hold()))
    }));
    let mut fresh = match (thawed, touched) {
        (Ok(Ok(fresh)), _) => fresh,
        (Ok(Err(error)), None) => return Err(Unrestored::Thaw(error)),
        (Err(payload), None) => {
            return Err(Unrestored::Thaw(ThawError::wrapper(panic_message(&*payload))));
        }
        (_, Some(first)) => return Err(Unrestored::Poisoned(first)),
    };
    // Where this panics, the skipped fields that it had not come to are back at their defaults.
    let adopt = || fresh.adopt(state, &mut Thaw::of(layout));
    _ = catch_unwind(AssertUnwindSafe(adopt));
    let old = std::mem::replace(state, fresh);
    // The state is the target already: a `Drop` that panics now changes nothing of that.
    _ = catch_unwind(AssertUnwindSafe(|| drop(old)));
    Ok(())
}

impl Engine {
    /// A hold on a listed snapshot.
    pub(crate) fn hold(self: &Arc<Engine>, id: SnapshotId) -> Result<Hold, MementoError> {
        let mut state = self.lock();
        let mut found = self.find(&state, id);
        if Mutant::HoldWithoutLock.is_on() {
            crate::sync::MutexGuard::unlocked(&mut state, gap);
            found = found.filter(|n| state.places[*n].is_sealed());
        }
        match found {
            Some(n) => {
                // R4: under the lock.
                self.ring.hold(n);
                Ok(Hold::counted(self.clone(), n, id))
            }
            None => Err(match state.rejected.iter().find(|(n, _)| *n == id.get()) {
                Some((_, reason)) => MementoError::Rejected { id, reason: reason.to_string() },
                None if id.get() > 0 && id.get() < state.next_id => {
                    MementoError::Evicted { id, oldest: self.oldest(&state) }
                }
                None => MementoError::Unknown { id },
            }),
        }
    }

    pub(crate) fn head_id(&self) -> Option<SnapshotId> {
        let head = self.ring.head();
        (!head.is_none()).then(|| SnapshotId::new(head.id()))
    }

    /// Rolls `state` back to a listed snapshot.
    pub(crate) fn rollback<T: Snapshot>(
        self: &Arc<Engine>,
        expected: Option<SnapshotId>,
        state: &mut T,
        to: SnapshotId,
    ) -> Result<Rollback, RollbackError> {
        self.go_back(expected, state, |engine| {
            let hold = engine.hold(to).map_err(|e| refused(to, e))?;
            Memento::of(hold).map_err(|e| refused(to, e))
        })
    }

    /// Rolls `state` back to a memento, listed or not. Where its record has no place the state goes
    /// back all the same: whoever asks has promised that a change which fails is undone (P5).
    pub(crate) fn rollback_to<T: Snapshot>(
        self: &Arc<Engine>,
        state: &mut T,
        memento: &Memento<T>,
    ) -> Result<Rollback, RollbackError> {
        match self.go_back(None, state, |_| Ok(memento.clone())) {
            Err(RollbackError::NoPlace { to, source }) => {
                let _inside = Inside::enter(self).ok_or(RollbackError::Reentrant)?;
                restore(memento, state).map_err(|why| unrestored(to, why))?;
                Err(RollbackError::Unpublished { to, source })
            }
            done => done,
        }
    }

    fn go_back<T: Snapshot>(
        self: &Arc<Engine>,
        expected: Option<SnapshotId>,
        state: &mut T,
        target: impl Fn(&Arc<Engine>) -> Result<Memento<T>, RollbackError>,
    ) -> Result<Rollback, RollbackError> {
        let start = Instant::now();
        if os::forked() {
            return Err(RollbackError::Forked);
        }
        let early = self.head_id();
        gap();
        let inside = Inside::enter(self).ok_or(RollbackError::Reentrant)?;
        let (moving, now, memento, making) = loop {
            let moving = self.begin_move().ok_or(RollbackError::Reentrant)?;
            // Refusals ...
            let now = if Mutant::CompareThenLock.is_on() { early } else { self.head_id() };
            if expected.is_some() && expected != now {
                return Err(RollbackError::Raced { now });
            }
            let memento = target(self)?;
            let (to, place) = (memento.id(), memento.hold().place());
            match moving.reserve(place) {
                Ok(Prospect::Reserved(making)) => break (moving, now, memento, Some(making)),
                Ok(Prospect::Evictable) => break (moving, now, memento, None),
                Ok(Prospect::Busy) => {
                    // They cannot end before this has.
                    drop((memento, moving));
                    self.wait_for_a_place_beside(place);
                }
                Err(source) => return Err(RollbackError::NoPlace { to, source }),
            }
        };
        let to = memento.id();
        // ... end here.
        restore(&memento, state).map_err(|why| unrestored(to, why))?;
        let place = memento.hold().place();
        let id = making
            .map_or_else(|| moving.make_room(place), Ok)
            .and_then(|making| making.seal_rollback(place))
            .map_err(|source| RollbackError::Unpublished { to, source })?;
        drop(moving);
        drop(inside);
        self.wait_for_the_disk(id).map_err(|source| RollbackError::Unpublished { to, source })?;
        Ok(Rollback { id, from: now, to, took: start.elapsed() })
    }

    /// Makes `state` the newest snapshot, without publishing anything.
    pub(crate) fn resume_into<T: Snapshot>(
        self: &Arc<Engine>,
        state: &mut T,
    ) -> Result<Option<SnapshotId>, ResumeError> {
        let Some(memento) = self.newest::<T>()? else { return Ok(None) };
        let _inside = Inside::enter(self).ok_or(ResumeError::Reentrant)?;
        let id = memento.id();
        match restore(&memento, state) {
            Ok(()) => Ok(Some(id)),
            Err(Unrestored::Thaw(source)) => Err(ResumeError::Thaw { id, source }),
            Err(Unrestored::Poisoned(message)) => Err(ResumeError::Poisoned { id, message }),
        }
    }

    /// The newest snapshot, held; an error if it is there and cannot be read.
    pub(crate) fn newest<T: Snapshot>(
        self: &Arc<Engine>,
    ) -> Result<Option<Memento<T>>, ResumeError> {
        if os::forked() {
            return Err(ResumeError::Forked);
        }
        let Some(word) = self.ring.hold_head() else { return Ok(None) };
        let hold = Hold::counted(self.clone(), word.place(), SnapshotId::new(word.id()));
        Ok(Some(Memento::of(hold)?))
    }
}

/// A state that cannot be restored, told as a rollback that cannot be made.
fn unrestored(to: SnapshotId, why: Unrestored) -> RollbackError {
    match why {
        Unrestored::Thaw(source) => RollbackError::Thaw { to, source },
        Unrestored::Poisoned(message) => RollbackError::Poisoned { to, message },
    }
}

/// A memento that cannot be had, told as a rollback that cannot be made.
fn refused(to: SnapshotId, why: MementoError) -> RollbackError {
    match why {
        MementoError::Unknown { .. } => RollbackError::Unknown { to },
        MementoError::Forked => RollbackError::Forked,
        MementoError::Evicted { oldest, .. } => RollbackError::Evicted { to, oldest },
        MementoError::Lease { source, .. } => {
            RollbackError::Rejected { to, reason: source.to_string() }
        }
        MementoError::Rejected { reason, .. } => RollbackError::Rejected { to, reason },
        MementoError::Layout { difference, .. } => RollbackError::Layout { to, difference },
    }
}

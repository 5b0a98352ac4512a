#![forbid(unsafe_code)]
//! [`Pending`]: a captured state on its way to being a snapshot, and the thread that brings it there.
//!
//! The pause archives what has no pages and takes the pages' Arcs. One thread does the rest, one capture
//! after the other, so that ids are in the order of capture; saves and rollbacks wait for captures that
//! were taken before them.

use std::{
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll, Waker},
    thread,
    time::Instant,
};

use parking_lot::{Condvar, Mutex};

use crate::{
    engine::{Engine, State, blocks_for},
    error::SaveError,
    events::Event,
    header::Side,
    id::SnapshotId,
    options::Behind,
    os,
    publish::Contents,
    rollback::panic_message,
    save::Inside,
    session::{Later, Written},
    snapshot::Snapshot,
    space::Making,
    sync::MutexGuard,
};

/// A captured state on its way to being a snapshot. Wait for it, await it, or drop it: it is
/// published all the same.
///
/// A state without paged fields is archived and published during the capture itself, unless others are
/// on their way or it is to be on the disk by then: then waiting takes no time.
#[derive(Debug)]
#[must_use = "an error after the pause would go unseen"]
pub struct Pending {
    ticket: Arc<Ticket>,
}

type Outcome = Result<SnapshotId, SaveError>;

/// Where an outcome is put, and who waits for it.
#[derive(Debug, Default)]
struct Ticket {
    told: Mutex<Told>,
    there: Condvar,
}

#[derive(Debug, Default)]
struct Told {
    outcome: Option<Outcome>,
    /// Asked for again after an error was taken.
    taken: bool,
    waker: Option<Waker>,
}

impl Ticket {
    fn tell(&self, outcome: Outcome) {
        let waker = {
            let mut told = self.told.lock();
            told.outcome = Some(outcome);
            told.waker.take()
        };
        self.there.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Told {
    /// The outcome: an error once, an id as often as it is asked for.
    fn take(&mut self) -> Option<Outcome> {
        match &self.outcome {
            Some(Ok(id)) => Some(Ok(*id)),
            Some(Err(_)) => {
                self.taken = true;
                self.outcome.take()
            }
            None if self.taken => Some(Err(SaveError::Told)),
            None => None,
        }
    }
}

impl Pending {
    pub(crate) fn published(id: SnapshotId) -> Pending {
        let ticket = Ticket::default();
        ticket.tell(Ok(id));
        Pending { ticket: Arc::new(ticket) }
    }

    /// The snapshot, once it is published; under [`Durability::Sync`](crate::Durability::Sync), once it
    /// is on the disk. Waits for that.
    ///
    /// # Errors
    ///
    /// As [`Caretaker::save`](crate::Caretaker::save), for what comes after the pause;
    /// [`SaveError::Panicked`] where the state's own code did, in the background.
    pub fn wait(self) -> Result<SnapshotId, SaveError> {
        if os::forked() {
            // The thread that would tell is the parent's.
            return Err(SaveError::Forked);
        }
        let mut told = self.ticket.told.lock();
        loop {
            if let Some(outcome) = told.take() {
                return outcome;
            }
            self.ticket.there.wait(&mut told);
        }
    }

    /// The outcome, if it is there. Never waits. An error is answered once, then
    /// [`SaveError::Told`].
    pub fn try_wait(&mut self) -> Option<Result<SnapshotId, SaveError>> {
        self.ticket.told.lock().take()
    }
}

impl Future for Pending {
    type Output = Result<SnapshotId, SaveError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut told = self.ticket.told.lock();
        match told.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                told.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A capture whose pause is over.
struct Captured {
    engine: Arc<Engine>,
    making: Taken,
    /// Where its archive lies.
    at: u64,
    written: Written,
    later: Vec<Later>,
    ticket: Arc<Ticket>,
}

/// The space of a snapshot in the making, on its way to another thread.
struct Taken {
    side: Side,
    index: u16,
    run: u64,
    blocks: u64,
    lost: u64,
}

impl Taken {
    fn of(making: Making<'_>) -> Taken {
        let Making { side, index, run, blocks, lost, .. } = making;
        // It is given back by whom it is made of again.
        mem::forget(making);
        Taken { side, index, run, blocks, lost }
    }

    fn back(self, engine: &Engine) -> Making<'_> {
        let Taken { side, index, run, blocks, lost } = self;
        Making { engine, side, index, run, blocks, lost, pages: None, sealed: false }
    }
}

/// So many captures wait for the thread before the next one waits for it. Their list is made once: one
/// that grew would take memory in a pause.
const MOST_BEHIND: usize = 256;

/// The way to the thread, once there is one.
#[derive(Debug, Default)]
pub(crate) struct Captures {
    to: Mutex<Option<mpsc::SyncSender<Captured>>>,
    /// In a simulation there is no thread: they wait here, for whoever waits for them or steps on.
    #[cfg(feature = "campaign")]
    queue: Mutex<Option<std::collections::VecDeque<Captured>>>,
}

impl std::fmt::Debug for Captured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Captured").field("bytes", &self.written.len).finish_non_exhaustive()
    }
}

impl Captures {
    /// Hands a capture to the thread. `Err`: there is none and cannot be.
    fn send(&self, captured: Captured) -> Result<(), Captured> {
        #[cfg(feature = "campaign")]
        if let Some(queue) = &mut *self.queue.lock() {
            queue.push_back(captured);
            return Ok(());
        }
        let mut to = self.to.lock();
        let sender = match &*to {
            Some(sender) => sender,
            None => {
                let (sender, receiver) = mpsc::sync_channel::<Captured>(MOST_BEHIND);
                let thread = thread::Builder::new().name("snapring-capture".to_owned());
                let work = move || {
                    // As eager as any thread, since each page that is written to meanwhile is copied
                    // first; but a pause is not to wait for whom it has woken. Where that may not be
                    // asked for, it does without.
                    _ = os::run_in_batches();
                    receiver.into_iter().for_each(Captured::finish);
                };
                // Ends when the engine does, with which its sender goes.
                if thread.spawn(work).is_err() {
                    return Err(captured);
                }
                to.insert(sender)
            }
        };
        sender.send(captured).map_err(|refused| refused.0)
    }
}

impl Captured {
    /// What is left after the pause.
    fn finish(self) {
        let Captured { engine, making, at, written, later, ticket } = self;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let making = making.back(&engine);
            let _inside = Inside::enter(&engine);
            let id = engine.publish_captured(making, at, written, later)?;
            Ok(id)
        }));
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(payload) => Err(SaveError::Panicked { message: panic_message(&*payload) }),
        };
        engine.captured_one();
        engine.leave_room();
        let outcome = outcome.and_then(|id: SnapshotId| {
            engine.answer_for_the_disk(id)?;
            Ok(id)
        });
        if let Err(error) = &outcome {
            let message = format!("a capture came to nothing: {error}");
            engine.listeners.tell(|| Event::Failed { message: message.clone() });
        }
        // Whoever is told may close the caretaker: nothing of ours may keep it open by then.
        drop(engine);
        ticket.tell(outcome);
    }
}

impl Engine {
    /// Archives what has no pages and takes the pages' Arcs; the rest is done by the thread.
    pub(crate) fn capture<T: Snapshot>(
        self: &Arc<Engine>,
        state: &T,
    ) -> Result<Pending, SaveError> {
        let began = Instant::now();
        if os::forked() {
            return Err(SaveError::Forked);
        }
        let inside = Inside::enter(self).ok_or(SaveError::Reentrant)?;
        let mut need = 0;
        let (making, written, later, scratch) = loop {
            let Some((making, last, scratch)) = self.begin(need)? else {
                // Something has to leave for it: not before it is archived.
                drop(inside);
                return self.save(state).map(Pending::published);
            };
            match self.archive_in_place(state, making, last, scratch)? {
                Ok(done) => break done,
                Err(more) => need = more,
            }
        };
        let at = making.span().0;
        let waits = {
            let mut state = self.lock();
            for (pages, bytes) in later.iter().map(|later| later.field.copies()) {
                state.counts.copies += pages;
                // They are copies of what the capture before has, if it has it still.
                if let Some(before) = state.behind.back_mut() {
                    *before += bytes;
                }
            }
            let limit = self.options.captured;
            while state.behind.iter().sum::<u64>() > limit {
                if self.options.behind == Behind::Refuse {
                    let pending = state.behind.iter().sum();
                    drop(state);
                    making.abandon(scratch);
                    return Err(SaveError::Behind { pending, limit });
                }
                self.await_progress(&mut state);
            }
            // Where a save waits for the disk, a capture does not.
            let waits =
                !later.is_empty() || state.captured < state.captures || self.flusher.waits();
            state.captures += u64::from(waits);
            if waits {
                state.behind.push_back(0);
            }
            waits
        };
        if !waits {
            let root = self.files[making.side.index()].at(at, written.len as u64).addr().get();
            let contents = Contents::of(&written);
            let id = making.seal(&contents, root + written.root, None, scratch)?;
            drop(inside);
            self.lock().cadence.paused(began);
            self.answer_for_the_disk(id)?;
            return Ok(Pending::published(id));
        }
        self.lock().scratch.push(scratch);
        let ticket = Arc::new(Ticket::default());
        let captured = Captured {
            engine: self.clone(),
            making: Taken::of(making),
            at,
            written,
            later,
            ticket: ticket.clone(),
        };
        if let Err(captured) = self.captures.send(captured) {
            // Without a thread it is done here, in its turn.
            self.wait_for_captures(&mut self.lock(), 1);
            drop(inside);
            captured.finish();
        }
        self.lock().cadence.paused(began);
        Ok(Pending { ticket })
    }

    /// Captures if it is time by the policy.
    pub(crate) fn capture_if_due<T: Snapshot>(
        self: &Arc<Engine>,
        state: &T,
    ) -> Result<Option<Pending>, SaveError> {
        let due = self.lock().cadence.is_due(&self.options.policy, Instant::now());
        if due { self.capture(state).map(Some) } else { Ok(None) }
    }

    fn publish_captured(
        &self,
        making: Making<'_>,
        at: u64,
        mut written: Written,
        mut later: Vec<Later>,
    ) -> Result<SnapshotId, SaveError> {
        let mut scratch = self.lock().scratch.pop().unwrap_or_default();
        let finished = if later.is_empty() {
            Ok((written, None))
        } else {
            self.finish_in_place(making.side, at, written, &later, &mut scratch, true)
        };
        // The pages' Arcs: the live value is the only owner again.
        later.clear();
        scratch.later = later;
        let pages = match finished {
            Ok((finished, pages)) => {
                written = finished;
                pages
            }
            Err(error) => {
                making.abandon(scratch);
                return Err(error);
            }
        };
        let root = making.file().at(at, written.len as u64).addr().get() + written.root;
        making.seal_in_turn(self.lock(), &Contents::of(&written), root, pages, scratch)
    }

    /// The next capture finds room for its archive: files grow here, and not in a pause.
    fn leave_room(&self) {
        let mut state = self.lock();
        let Some(newest) = state.listed.front().copied() else { return };
        let side = self.side_of(usize::from(newest)).other();
        let blocks = blocks_for(state.last_len + state.last_len / 8);
        self.reclaim(&mut state, side);
        if state.spaces[side.index()].extents.gap(blocks).is_none() {
            // Where there is none, the next capture sees for itself.
            _ = self.make_space(state, side, [blocks, 0], false);
        }
    }

    /// One capture has come to its end.
    fn captured_one(&self) {
        {
            let mut state = self.lock();
            state.captured += 1;
            state.behind.pop_front();
        }
        self.settled.notify_all();
    }

    /// Returns when the captures taken so far have come to their end, but for the newest `but`.
    pub(crate) fn wait_for_captures(&self, state: &mut MutexGuard<'_, State>, but: u64) {
        let upto = state.captures - but;
        while state.captured < upto {
            self.await_progress(state);
        }
    }

    /// Returns when something that is in the making has been made, or has come to nothing.
    pub(crate) fn await_progress(&self, state: &mut MutexGuard<'_, State>) {
        #[cfg(feature = "campaign")]
        if MutexGuard::unlocked(state, || self.finish_next_capture()) {
            return;
        }
        self.settled.wait(state);
    }
}

#[cfg(feature = "campaign")]
impl Engine {
    /// From now on captures are finished by who waits for them, or steps on.
    pub(crate) fn queue_captures(&self) {
        self.captures.queue.lock().get_or_insert_default();
    }

    /// Whether they are, as in a simulation.
    pub(crate) fn queues_captures(&self) -> bool {
        self.captures.queue.lock().is_some()
    }

    /// Does what is left of the oldest capture that waits. `false`: none does.
    pub(crate) fn finish_next_capture(&self) -> bool {
        let next = self.captures.queue.lock().as_mut().and_then(|queue| queue.pop_front());
        next.map(Captured::finish).is_some()
    }

    /// Captures that wait.
    pub(crate) fn queued_captures(&self) -> usize {
        self.captures.queue.lock().as_ref().map_or(0, |queue| queue.len())
    }

    /// Drops those that wait, as a kill would.
    pub(crate) fn forget_captures(&self) {
        // Dropped without the lock: they hold the engine.
        drop(self.captures.queue.lock().take());
    }
}

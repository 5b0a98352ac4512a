#![forbid(unsafe_code)]
//! What an engine has from a predecessor and has given to a successor, and how it ends and goes on.
//!
//! Knows places and locks. Who hands over to whom is for `handover.rs` and `takeover.rs`.

use std::{
    fs::File,
    io,
    net::Shutdown,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    clock,
    engine::Engine,
    file::BLOCK,
    handover::HandOverError,
    header::Side,
    os::{self, socket},
    wire::HeldPlace,
};

/// What an engine has from a predecessor, and what it has given to a successor.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    /// Open until we are gone: its end tells the successor that nothing is held here any more.
    pub(crate) successor: Mutex<Option<UnixStream>>,
    /// The same seen from the other side, while the predecessor holds something.
    pub(crate) predecessor: Mutex<Option<UnixStream>>,
    /// The user's descriptors, until they are asked for.
    pub(crate) inherited: Mutex<Vec<OwnedFd>>,
    /// Of a ring in memory that was, or may be, handed over: what the writer lock is on.
    pub(crate) memory_lock: Mutex<Option<File>>,
}

impl Engine {
    /// Ends all writing: what is under way ends first. Answers what is still held.
    pub(crate) fn retire(
        &self,
        until: Instant,
        waited: Duration,
    ) -> Result<Vec<HeldPlace>, HandOverError> {
        let busy = || HandOverError::Busy { waited };
        // A sync under way is not waited for: it changes nothing, and what it was for is synced by
        // the successor too, through descriptors of its own, which hear of a failure themselves.
        if !self.flusher.end_floors(true, until) {
            return Err(busy());
        }
        let mut state = self.lock();
        state.ended = true;
        while state.making > 0 || state.mover.is_some() {
            if self.settled.wait_until(&mut state, until).timed_out() {
                return Err(busy());
            }
        }
        let held = state.places.iter().enumerate().filter(|(n, _)| self.ring.holds(*n).0 > 0);
        let rows = held.flat_map(|(n, place)| {
            let row = move |(offset, len), pages| HeldPlace {
                number: n as u16,
                id: place.id,
                offset,
                len,
                pages,
            };
            let runs = place.table.iter().flat_map(|table| &table.runs);
            let runs = runs.map(|run| (self.run_at(run.start), run.blocks * BLOCK));
            let archive = row((place.root.offset, place.root.len), false);
            std::iter::once(archive).chain(runs.map(move |run| row(run, true)))
        });
        Ok(rows.collect())
    }

    /// Takes [`retire`](Self::retire) back.
    pub(crate) fn carry_on(&self) {
        // Nobody else has it by now.
        self.flusher.end_floors(false, clock::deadline(Duration::MAX));
        self.lock().ended = false;
    }

    /// How far each file is in use.
    pub(crate) fn used(&self) -> [u64; 2] {
        let state = self.lock();
        Side::BOTH
            .map(|side| self.run_at(state.spaces[side.index()].extents.tail()) / BLOCK * BLOCK)
    }

    /// The files of a ring in memory, to be passed on.
    pub(crate) fn memory_files(&self) -> Vec<BorrowedFd<'_>> {
        match self.storage {
            Some(_) => Vec::new(),
            None => self.files.iter().filter_map(|file| file.descriptor()).collect(),
        }
    }

    /// Takes the writer lock of a ring in memory, which only a hand-over needs: by it a successor
    /// can tell whether its predecessor is alive.
    pub(crate) fn lock_memory(&self) -> io::Result<()> {
        let mut held = self.handed.memory_lock.lock();
        if held.is_none() {
            let file = self.files[0].descriptor().ok_or(io::ErrorKind::Unsupported)?;
            let lock = socket::open_again(file)?;
            if !os::try_lock(&lock)? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            *held = Some(lock);
        }
        Ok(())
    }

    /// Keeps what the predecessor holds until it is gone.
    pub(crate) fn hold_for(
        self: &Arc<Engine>,
        held: Vec<HeldPlace>,
        stream: UnixStream,
    ) -> io::Result<()> {
        let watched = stream.try_clone()?;
        *self.handed.predecessor.lock() = Some(stream);
        for place in &held {
            self.ring.hold(usize::from(place.number));
        }
        if let Some(directory) = self.storage.as_deref().and_then(|s| s.directory()) {
            // Until then its open descriptor keeps the lock, should we go first.
            directory.keep_lock(false);
        }
        let engine = Arc::downgrade(self);
        thread::Builder::new().name("snapring-predecessor".to_owned()).spawn(move || {
            // Nothing is said any more: this returns at its end, or when we shut it.
            _ = socket::readable([watched.as_fd()], None);
            let Some(engine) = engine.upgrade() else { return };
            if engine.handed.predecessor.lock().take().is_none() {
                return;
            }
            for place in held {
                engine.ring.unhold(usize::from(place.number));
            }
            if let Some(directory) = engine.storage.as_deref().and_then(|s| s.directory()) {
                directory.keep_lock(true);
            }
        })?;
        Ok(())
    }

    /// The caretaker is gone: nobody waits for the predecessor any more.
    pub(crate) fn leave_predecessor(&self) {
        if let Some(stream) = self.handed.predecessor.lock().take() {
            _ = stream.shutdown(Shutdown::Both);
        }
    }
}

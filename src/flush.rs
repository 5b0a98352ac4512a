#![forbid(unsafe_code)]
//! From published to durable: data first, then the record, then the durable note (P4); what is known
//! of failed syncs, and the id floor on the disk. When the background comes to it is for
//! `background.rs`.
//!
//! One flush runs at a time. It takes the oldest listed snapshots that are not durable yet, a few
//! MiB at a time, so that little is retained for its sake. What a failed sync has left behind is not
//! synced again where it lies, since the kernel would say yes to that without writing anything: it
//! is written anew elsewhere, by `relocate.rs`.
//!
//! **One sync or two.** In the background the data is synced before the slot page, so that a record
//! on the disk is rarely without its data. A save under `Durability::Sync` waits, and syncs the file
//! once for both. That is as sound: whatever part of the two reaches the disk before power is lost,
//! a record whose seal is torn is no record, one whose data is torn is rejected by its checksum, and
//! the newest durable snapshot lies untouched beside it (P4). What the first sync bought is fewer
//! rejected records after a power cut, and in neither way was anything claimed.

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::{
    engine::{Engine, FLOOR_STEP, Place, State},
    error::{FlushError, SaveError},
    events::Event,
    file::BLOCK,
    header::{FLOOR_AT, Floor, Side},
    id::SnapshotId,
    mutants::Mutant,
    options::Durability,
    record::{DurableNote, Extent, NOTE_AT, SLOT_LEN},
    sync::{Condvar, Mutex, MutexGuard},
};

/// Bytes flushed in one go, where a snapshot is not larger by itself.
const BATCH: u64 = 4 << 20;

/// How often a save without room looks whether the flush under way has ended: a second in all.
const TURNS: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(1);

/// The background thread's desk.
#[derive(Debug)]
pub(crate) struct Flusher {
    pub(crate) durability: Durability,
    /// There is a disk at all.
    pub(crate) to_disk: bool,
    /// The thread sleeps until it is woken.
    pub(crate) idle: AtomicBool,
    pub(crate) desk: Mutex<Desk>,
    pub(crate) wake: Condvar,
    /// One flush at a time, and the lists that it fills.
    turn: Mutex<Batch>,
    failed: Mutex<Failed>,
    /// A sync has failed, and no save has told it yet.
    untold: AtomicBool,
    /// Held while an id floor is written.
    floor: Mutex<Raised>,
}

/// What is known of failed syncs.
#[derive(Debug, Default)]
struct Failed {
    first: Option<FlushError>,
    last: Option<FlushError>,
}

#[derive(Debug, Default)]
struct Raised {
    /// The highest id floor written.
    highest: u64,
    /// The ring has been handed over: none is written any more.
    ended: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Desk {
    pub(crate) woken: bool,
    pub(crate) stop: bool,
}

/// What one go of flushing covers.
#[derive(Debug, Default)]
struct Batch {
    places: Vec<u16>,
    syncs: Vec<(Side, Extent)>,
    redirty: Vec<(Side, Extent)>,
    slots: Vec<(Side, Extent)>,
    /// Runs of pages among what is synced.
    runs: Vec<(Side, u64)>,
    /// Sides whose layout text is synced, too.
    schemas: [bool; 2],
    newest: u64,
}

impl Batch {
    fn clear(&mut self) {
        self.places.clear();
        self.syncs.clear();
        self.redirty.clear();
        self.slots.clear();
        self.runs.clear();
        self.schemas = [false; 2];
        self.newest = 0;
    }

    /// One sync for what lies side by side: each waits for the disk.
    fn merge(&mut self) {
        for ranges in [&mut self.syncs, &mut self.slots] {
            ranges.sort_unstable_by_key(|(side, extent)| (side.index(), extent.offset));
            ranges.dedup_by(|(next_side, next), (side, extent)| {
                let end = (extent.offset + extent.len).next_multiple_of(BLOCK);
                let adjacent = next_side == side && next.offset <= end;
                if adjacent {
                    extent.len = extent.len.max(next.offset + next.len - extent.offset);
                }
                adjacent
            });
        }
    }
}

impl Flusher {
    pub(crate) fn new(to_disk: bool, durability: Durability) -> Flusher {
        Flusher {
            durability,
            to_disk,
            idle: AtomicBool::new(false),
            desk: Mutex::new(Desk::default()),
            wake: Condvar::new(),
            turn: Mutex::new(Batch::default()),
            failed: Mutex::new(Failed::default()),
            untold: AtomicBool::new(false),
            floor: Mutex::default(),
        }
    }

    /// A snapshot has been published: wakes the thread where it sleeps and has something to do.
    /// Costs a load while it is awake.
    #[inline]
    pub(crate) fn wake_if_idle(&self, state: &State) {
        // Relaxed: the engine's lock orders this after the publishing, and `rest` sets the flag
        // before it looks under the same lock.
        if self.idle.load(Ordering::Relaxed)
            && (self.in_background() || floor_is_near(state) || state.expires)
        {
            self.rouse(false);
        }
    }

    /// Something has become durable: the thread may have to look after it.
    fn wake_after_flush(&self) {
        // Relaxed: seen too late, the thread learns of it when it wakes next.
        if self.idle.load(Ordering::Relaxed) {
            self.rouse(false);
        }
    }

    #[cold]
    pub(crate) fn rouse(&self, stop: bool) {
        let mut desk = self.desk.lock();
        desk.woken = true;
        desk.stop |= stop;
        // Relaxed: as above.
        self.idle.store(false, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Whether snapshots are made durable without being asked.
    pub(crate) fn syncs(&self) -> bool {
        self.to_disk && self.durability != Durability::Process
    }

    /// Whether there is a disk, and a save waits for it.
    pub(crate) fn waits(&self) -> bool {
        self.to_disk && self.durability == Durability::Sync
    }

    pub(crate) fn in_background(&self) -> bool {
        self.to_disk && matches!(self.durability, Durability::Background { .. })
    }

    /// Notes a failed sync: the first one is what `flush` and `close` tell ever after, the last one
    /// is told by the next save.
    pub(crate) fn fail(&self, engine: &Engine, path: &Path, error: &io::Error, upto: u64) {
        let told = FlushError::Sync {
            path: path.to_owned(),
            message: error.to_string(),
            upto: SnapshotId::new(upto),
        };
        let message = told.to_string();
        {
            let mut failed = self.failed.lock();
            failed.first.get_or_insert_with(|| told.clone());
            failed.last = Some(told);
            // Relaxed: a save on another thread may miss it and tell it the next time.
            self.untold.store(true, Ordering::Relaxed);
        }
        engine.listeners.tell(|| Event::Failed { message });
    }

    /// Forgets that it was told to stop: it is started again.
    pub(crate) fn restart(&self) {
        *self.desk.lock() = Desk::default();
    }

    /// Whether id floors may be written: not while the ring is handed over. `false` if one is being
    /// written for too long.
    pub(crate) fn end_floors(&self, ended: bool, until: Instant) -> bool {
        self.floor.try_lock_until(until).map(|mut raised| raised.ended = ended).is_some()
    }

    /// The background thread has been told to stop: the caretaker is gone, or going.
    pub(crate) fn is_stopped(&self) -> bool {
        self.desk.lock().stop
    }

    /// The first failed sync, if there was one.
    pub(crate) fn failure(&self) -> Option<FlushError> {
        self.failed.lock().first.clone()
    }

    /// The failed sync that no save has told yet: once. Costs a load where there is none.
    #[inline]
    fn take_untold(&self) -> Option<FlushError> {
        // Relaxed: the failure itself is under its lock.
        let untold = self.untold.load(Ordering::Relaxed);
        (untold && self.syncs()).then(|| self.untold_failure()).flatten()
    }

    #[cold]
    fn untold_failure(&self) -> Option<FlushError> {
        // Relaxed: of two saves at once, one takes it.
        let untold = self.untold.swap(false, Ordering::Relaxed);
        untold.then(|| self.failed.lock().last.clone()).flatten()
    }
}

pub(crate) fn floor_is_near(state: &State) -> bool {
    state.floor.saturating_sub(state.next_id) < FLOOR_STEP / 2
}

/// Whether a sync of the place, where it lies, is wanted.
pub(crate) fn wants_flush(place: &Place) -> bool {
    if place.durable { place.label_dirty } else { !place.tainted }
}

impl Engine {
    /// Makes every listed snapshot up to `upto` durable, as far as it has been published when this
    /// is called: saves that go on meanwhile keep it from nothing. Answers the newest durable one.
    pub(crate) fn flush_upto(&self, upto: u64) -> Result<Option<SnapshotId>, FlushError> {
        self.flush(upto, true, &mut || {})
    }

    /// The same; `anew`: what failed syncs have left behind is written elsewhere, too.
    pub(crate) fn flush(
        &self,
        upto: u64,
        anew: bool,
        between: &mut dyn FnMut(),
    ) -> Result<Option<SnapshotId>, FlushError> {
        if !self.flusher.to_disk {
            return Ok(None);
        }
        let upto = upto.min(self.lock().next_id - 1);
        self.flush_in_turn(upto, anew, between, self.flusher.turn.lock())
    }

    /// Flushes for the sake of a save that found no room: in a moment, if a flush that is under way
    /// ends within [`TURNS`]; else not at all.
    pub(crate) fn flush_soon(&self) {
        for _ in 0..TURNS {
            if let Some(batch) = self.flusher.turn.try_lock() {
                // What fails is told by the save, as any failed sync is.
                _ = self.flush_in_turn(u64::MAX, false, &mut || {}, batch);
                return;
            }
            if let Some(leases) = &self.leases {
                leases.pause(PAUSE);
            }
        }
    }

    fn flush_in_turn(
        &self,
        upto: u64,
        anew: bool,
        between: &mut dyn FnMut(),
        mut batch: MutexGuard<'_, Batch>,
    ) -> Result<Option<SnapshotId>, FlushError> {
        if self.lock().ended {
            return Ok(self.durable());
        }
        // P4: before anything that was found is synced where it lies.
        self.copy_newest_found();
        while self.next_batch(upto, &mut batch) {
            self.flush_batch(&batch, between);
        }
        // They may have left the ring while they waited: then a newer one stands for them.
        if self.steady_id() < upto && self.next_batch(u64::MAX, &mut batch) {
            self.flush_batch(&batch, between);
        }
        if anew {
            self.write_anew(upto);
        }
        // Those that were in the way may have left the ring meanwhile.
        let mut state = self.lock();
        if let Some(steady) = state.steady {
            self.cover(&mut state, steady);
        }
        drop(state);
        drop(batch);
        self.flusher.wake_after_flush();
        match self.flusher.failure() {
            Some(failure) => Err(failure),
            None => Ok(self.durable()),
        }
    }

    /// What a save owes its caller beside the id: the disk, where it was asked to wait for that, and
    /// news of a failed sync, once.
    pub(crate) fn answer_for_the_disk(&self, id: SnapshotId) -> Result<(), SaveError> {
        self.wait_for_the_disk(id)?;
        match self.flusher.take_untold() {
            Some(source) => Err(SaveError::NotDurable { id, source }),
            None => Ok(()),
        }
    }

    /// Returns when snapshot `id` is on the disk, if durability is `Sync`.
    pub(crate) fn wait_for_the_disk(&self, id: SnapshotId) -> Result<(), SaveError> {
        if !self.flusher.waits() {
            return Ok(());
        }
        match self.flush_upto(id.get()) {
            Err(source) if !self.is_on_disk(id) => {
                // Told herewith.
                let source = self.flusher.take_untold().unwrap_or(source);
                Err(SaveError::NotDurable { id, source })
            }
            _ => Ok(()),
        }
    }

    /// Whether a snapshot is on the disk, or has left the ring and a newer one is.
    fn is_on_disk(&self, id: SnapshotId) -> bool {
        let state = self.lock();
        match self.find(&state, id) {
            Some(n) => state.places[n].durable,
            None => state.steady.is_some_and(|n| state.places[usize::from(n)].id >= id.get()),
        }
    }

    /// Syncs a batch and notes what came of it.
    fn flush_batch(&self, batch: &Batch, between: &mut dyn FnMut()) {
        if Mutant::SlotBeforeData.is_on() {
            for (side, slot) in &batch.slots {
                _ = self.files[side.index()].sync(slot.offset, slot.len);
            }
            self.note_durable(batch);
        }
        let Err((side, error)) = self.sync_batch(batch, between) else {
            return self.note_durable(batch);
        };
        let mut state = self.lock();
        for n in &batch.places {
            let place = &mut state.places[usize::from(*n)];
            // Durable ones, too: their labels are not on the disk.
            place.tainted = true;
            place.label_dirty = false;
        }
        let failed = |n: usize, place: &Place| {
            let side = self.side_of(n);
            let runs = place.table.iter().flat_map(|table| &table.runs);
            runs.into_iter().any(|run| batch.runs.contains(&(side, run.start)))
        };
        // Where whole files are synced, others' bytes have gone the same way; and who is in the making
        // may share what was synced.
        if self.flusher.waits() {
            for (n, place) in state.places.iter_mut().enumerate() {
                let beside = place.is_sealed() && !place.durable && self.side_of(n) == side;
                place.tainted |= beside;
            }
            state.spaces[side.index()].known = None;
            if !state.spaces[side.index()].schema_durable {
                self.retire_schema(&mut state, side);
            }
        }
        if self.flusher.waits() || !batch.runs.is_empty() {
            state.spaces.iter_mut().for_each(|space| space.lost += 1);
        }
        if !batch.runs.is_empty() {
            // Whoever shares their pages is no safer, and nobody does any more.
            for (n, place) in state.places.iter_mut().enumerate() {
                place.tainted |= place.is_sealed() && !place.durable && failed(n, place);
            }
            state.spaces.iter_mut().for_each(|space| space.known = None);
        }
        for side in Side::BOTH {
            // It is written anew, too; who refers to the old one is tainted.
            if batch.schemas[side.index()] {
                self.retire_schema(&mut state, side);
            }
        }
        state.flushing.clear();
        drop(state);
        self.flusher.fail(self, self.files[side.index()].path(), &error, batch.newest);
    }

    /// The newest snapshot that is on the disk, listed or not; 0 without one.
    fn steady_id(&self) -> u64 {
        let state = self.lock();
        state.steady.map_or(0, |n| state.places[usize::from(n)].id)
    }

    /// The newest snapshot known to be on the disk.
    pub(crate) fn durable(&self) -> Option<SnapshotId> {
        let durable = self.lock().durable;
        (durable > 0).then(|| SnapshotId::new(durable))
    }

    /// The oldest snapshots that wait, and what must be synced for them. `false`: none.
    fn next_batch(&self, upto: u64, batch: &mut Batch) -> bool {
        let mut state = self.lock();
        batch.clear();
        if state.ended {
            return false;
        }
        let mut bytes = 0;
        for number in state.listed.iter().rev().copied() {
            let n = usize::from(number);
            let place = &state.places[n];
            if place.id > upto || !wants_flush(place) {
                continue;
            }
            if bytes > 0 && bytes + place.written > BATCH {
                break;
            }
            bytes += place.written;
            let side = self.side_of(n);
            let slot = Extent { offset: self.slot_at(n), len: SLOT_LEN, crc: 0 };
            if !place.durable {
                batch.syncs.push((side, place.root));
                if place.redirty {
                    batch.redirty.extend([(side, place.root), (side, slot)]);
                }
                // Those that it shares may be of snapshots that were never flushed.
                for run in place.table.iter().flat_map(|table| &table.runs) {
                    if state.spaces[side.index()].unsynced.contains(&run.start) {
                        let (offset, len) = (self.run_at(run.start), run.blocks * BLOCK);
                        let run_bytes = Extent { offset, len, crc: 0 };
                        batch.syncs.push((side, run_bytes));
                        batch.runs.push((side, run.start));
                        if state.spaces[side.index()].doubtful.contains(&run.start) {
                            batch.redirty.push((side, run_bytes));
                        }
                    }
                }
                let space = &state.spaces[side.index()];
                if let (Some(schema), false) = (space.schema, space.schema_durable)
                    && !batch.schemas[side.index()]
                {
                    batch.schemas[side.index()] = true;
                    batch.syncs.push((side, schema));
                    if place.redirty {
                        batch.redirty.push((side, schema));
                    }
                }
            }
            batch.slots.push((side, slot));
            batch.newest = batch.newest.max(place.id);
            batch.places.push(number);
        }
        if batch.places.is_empty() {
            return false;
        }
        for number in &batch.places {
            // A label set from here on is for the next one.
            state.places[usize::from(*number)].label_dirty = false;
        }
        state.flushing.clone_from(&batch.places);
        drop(state);
        batch.merge();
        true
    }

    /// Data first, then the slot pages; or both at once, where a save waits. Each sync takes its
    /// time, and write-protects pages: `between` them something can be done about that.
    fn sync_batch(
        &self,
        batch: &Batch,
        between: &mut dyn FnMut(),
    ) -> Result<(), (Side, io::Error)> {
        for (side, extent) in &batch.redirty {
            let file = &self.files[side.index()];
            file.redirty(extent.offset, extent.len).map_err(|e| (*side, e))?;
        }
        if self.flusher.waits() {
            for side in Side::BOTH {
                if batch.slots.iter().any(|(of, _)| *of == side) {
                    self.files[side.index()].sync_data().map_err(|e| (side, e))?;
                }
            }
            return Ok(());
        }
        for (side, extent) in batch.syncs.iter().chain(&batch.slots) {
            let file = &self.files[side.index()];
            let mut synced = file.sync(extent.offset, extent.len);
            if synced.is_err() && Mutant::RetrySync.is_on() {
                synced = file.sync(extent.offset, extent.len);
            }
            synced.map_err(|e| (*side, e))?;
            between();
        }
        Ok(())
    }

    /// Data and record are on the disk: notes it, and lets go of the durable snapshot before.
    fn note_durable(&self, batch: &Batch) {
        let mut state = self.lock();
        if state.ended {
            // The slot pages are another process's by now, which syncs for itself.
            state.flushing.clear();
            return;
        }
        for number in &batch.places {
            let n = usize::from(*number);
            let place = &mut state.places[n];
            if place.durable {
                continue;
            }
            place.durable = true;
            place.redirty = false;
            self.note(place, n);
        }
        for (side, run) in &batch.runs {
            state.spaces[side.index()].unsynced.remove(run);
            state.spaces[side.index()].doubtful.remove(run);
        }
        for side in Side::BOTH {
            state.spaces[side.index()].schema_durable |= batch.schemas[side.index()];
        }
        let newest = batch.places.iter().copied().max_by_key(|n| state.places[usize::from(*n)].id);
        state.flushing.clear();
        if let Some(newest) = newest {
            self.cover(&mut state, newest);
        }
    }

    /// Writes the durable note of a place.
    pub(crate) fn note(&self, place: &Place, n: usize) {
        let note = DurableNote { id: place.id, boot: self.boot, record_seal: place.seal };
        self.file_of(n).write_sealed(self.slot_at(n) + NOTE_AT, &note.encode());
    }

    /// A place is known to be on the disk: what that means for the steady rule and for `durable`.
    pub(crate) fn cover(&self, state: &mut State, newest: u16) {
        let id = |n: u16| state.places[usize::from(n)].id;
        // The same id: it has been written elsewhere.
        if state.steady.is_none_or(|old| id(old) <= id(newest)) {
            state.steady = Some(newest);
        }
        self.unseal_unlisted(state);
        let covered = {
            let oldest_first = state.listed.iter().rev().map(|n| &state.places[usize::from(*n)]);
            oldest_first.take_while(|place| place.durable).last().map_or(0, |place| place.id)
        };
        // All listed ones that wait may be newer than the steady one, which then is the newest
        // covered.
        let mut oldest_first = state.listed.iter().rev().map(|n| &state.places[usize::from(*n)]);
        let waiting = oldest_first.find(|place| !place.durable).map_or(u64::MAX, |place| place.id);
        let steady = state.steady.map_or(0, |n| state.places[usize::from(n)].id);
        let covered = if steady < waiting { covered.max(steady) } else { covered };
        if covered > state.durable {
            state.durable = covered;
            self.listeners.tell(|| Event::Durable { id: SnapshotId::new(covered) });
        }
    }

    /// Raises the id floor well before it is reached: on the disk first, then for use. `false` if
    /// it should be and could not.
    pub(crate) fn raise_floor_ahead(&self) -> bool {
        let floor = {
            let state = self.lock();
            if !floor_is_near(&state) {
                return true;
            }
            state.next_id + FLOOR_STEP
        };
        let note = Floor { floor, next: 0, boot: self.boot, ring_id: self.ring_id };
        if let Err((path, error)) = self.write_floor(&note) {
            self.flusher.fail(self, &path, &error, floor);
            return false;
        }
        let mut state = self.lock();
        state.floor = state.floor.max(floor);
        true
    }

    /// Writes the id floor to both files and the lock file, and to the disk where there is one.
    /// Never a lower one than before, whoever comes first.
    pub(crate) fn write_floor(&self, floor: &Floor) -> Result<(), (std::path::PathBuf, io::Error)> {
        let mut raised = self.flusher.floor.lock();
        if raised.ended {
            return Ok(());
        }
        raised.highest = floor.floor.max(raised.highest);
        let floor = &Floor { floor: raised.highest, ..*floor };
        for file in &self.files {
            file.write_sealed(FLOOR_AT, &floor.encode());
            if self.flusher.to_disk {
                file.sync(FLOOR_AT, 512).map_err(|e| (file.path().to_owned(), e))?;
            }
        }
        match &self.storage {
            Some(storage) => storage.write_floor(floor).map_err(|e| (storage.path().to_owned(), e)),
            None => Ok(()),
        }
    }
}

#![forbid(unsafe_code)]
//! From published to durable, in the background: data first, then the record, then the durable
//! note (P4). Also what else is better done off the saving thread: raising the id floor, checking
//! what opening has left unchecked, making pages present ahead of need.
//!
//! One flush runs at a time. It takes the oldest listed snapshots that are not durable yet, a few
//! MiB at a time, so that little is retained for its sake.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::{
    engine::{Engine, FLOOR_STEP, Place, State},
    error::FlushError,
    events::Event,
    header::{FLOOR_AT, Floor, Side},
    id::SnapshotId,
    mutants::Mutant,
    options::Durability,
    record::{DurableNote, Extent, NOTE_AT, SLOT_LEN},
};

/// How long the background waits before it tries again to raise the floor.
const FLOOR_RETRY: Duration = Duration::from_secs(1);

/// Bytes flushed in one go, where a snapshot is not larger by itself.
const BATCH: u64 = 4 << 20;

/// The background thread's desk.
#[derive(Debug)]
pub(crate) struct Flusher {
    durability: Durability,
    /// There is a disk at all.
    to_disk: bool,
    /// The thread sleeps until it is woken.
    idle: AtomicBool,
    desk: Mutex<Desk>,
    wake: Condvar,
    /// One flush at a time.
    turn: Mutex<()>,
    /// The first failed sync.
    failed: Mutex<Option<FlushError>>,
    /// The highest id floor written, held while one is.
    floor: Mutex<u64>,
    /// How far each file's pages have been made present.
    present: [AtomicU64; 2],
}

#[derive(Debug, Default)]
struct Desk {
    woken: bool,
    stop: bool,
}

/// What one go of flushing covers.
struct Batch {
    places: Vec<u16>,
    syncs: Vec<(Side, Extent)>,
    redirty: Vec<(Side, Extent)>,
    slots: Vec<(Side, u64)>,
    newest: u64,
}

impl Flusher {
    pub(crate) fn new(to_disk: bool, durability: Durability) -> Flusher {
        Flusher {
            durability,
            to_disk,
            idle: AtomicBool::new(false),
            desk: Mutex::new(Desk::default()),
            wake: Condvar::new(),
            turn: Mutex::new(()),
            failed: Mutex::new(None),
            floor: Mutex::new(0),
            present: [AtomicU64::new(0), AtomicU64::new(0)],
        }
    }

    /// A snapshot has been published: wakes the thread where it sleeps and has something to do.
    /// Costs a load while it is awake.
    #[inline]
    pub(crate) fn wake_if_idle(&self, state: &State) {
        // Relaxed: the engine's lock orders this after the publishing, and `rest` sets the flag
        // before it looks under the same lock.
        if self.idle.load(Ordering::Relaxed) && (self.in_background() || floor_is_near(state)) {
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

    /// Sleeps until there is work, at most `limit`. `false`: it is time to stop.
    fn rest(&self, engine: &Engine, limit: Option<Duration>) -> bool {
        if limit.is_none() {
            // Relaxed, before the look under the engine's lock: see `wake_if_idle`.
            self.idle.store(true, Ordering::Relaxed);
            if self.has_work(&engine.lock()) {
                self.idle.store(false, Ordering::Relaxed);
                return !self.desk.lock().stop;
            }
        }
        let mut desk = self.desk.lock();
        match limit {
            Some(limit) if !desk.stop => _ = self.wake.wait_for(&mut desk, limit),
            None if !desk.stop && !desk.woken => self.wake.wait(&mut desk),
            _ => {}
        }
        desk.woken = false;
        !desk.stop
    }

    fn has_work(&self, state: &State) -> bool {
        let waiting = state.listed.iter().any(|n| wants_flush(&state.places[usize::from(*n)]));
        (self.in_background() && waiting) || floor_is_near(state)
    }

    /// Whether snapshots are made durable without being asked.
    pub(crate) fn syncs(&self) -> bool {
        self.to_disk && self.durability != Durability::Process
    }

    fn in_background(&self) -> bool {
        self.to_disk && matches!(self.durability, Durability::Background { .. })
    }

    /// Notes a failed sync: the first one is what `flush` and `close` tell ever after.
    pub(crate) fn fail(&self, engine: &Engine, path: &Path, error: &io::Error, upto: u64) {
        let told = FlushError::Sync {
            path: path.to_owned(),
            message: error.to_string(),
            upto: SnapshotId::new(upto),
        };
        engine.listeners.tell(|| Event::Failed { message: told.to_string() });
        self.failed.lock().get_or_insert(told);
    }

    /// The first failed sync, if there was one.
    pub(crate) fn failure(&self) -> Option<FlushError> {
        self.failed.lock().clone()
    }
}

fn floor_is_near(state: &State) -> bool {
    state.floor.saturating_sub(state.next_id) < FLOOR_STEP / 2
}

/// Whether a sync of the place is wanted, and can be believed.
fn wants_flush(place: &Place) -> bool {
    !place.tainted && (place.label_dirty || !place.durable)
}

/// One round of the background's work, as far as it needs no waiting.
#[cfg(feature = "campaign")]
pub(crate) fn round(engine: &Arc<Engine>) {
    for id in &engine.recovery.unverified {
        engine.verify(*id);
    }
    engine.make_present();
    engine.raise_floor_ahead();
    if engine.flusher.syncs() {
        // Its failure is told by `flush`, `close` and the event.
        _ = engine.flush_upto(u64::MAX);
    }
}

/// The background thread: runs until it is roused to stop.
pub(crate) fn run(engine: &Arc<Engine>) {
    let mut flushed = Instant::now();
    for id in &engine.recovery.unverified {
        if engine.flusher.desk.lock().stop {
            return;
        }
        engine.verify(*id);
        // However much there is to check, what is saved meanwhile does not wait for it.
        if let Durability::Background { within } = engine.flusher.durability
            && flushed.elapsed() >= within / 2
        {
            engine.raise_floor_ahead();
            _ = engine.flush_upto(u64::MAX);
            flushed = Instant::now();
        }
    }
    loop {
        engine.make_present();
        let raised = engine.raise_floor_ahead();
        let due = match engine.flusher.durability {
            Durability::Background { within } if engine.flusher.has_work(&engine.lock()) => {
                Some(within / 2)
            }
            _ if !raised => Some(FLOOR_RETRY),
            _ => None,
        };
        if !engine.flusher.rest(engine, due) {
            return;
        }
        if due.is_some() && engine.flusher.in_background() {
            // Its failure is told by `flush`, `close` and the event.
            _ = engine.flush_upto(u64::MAX);
        }
    }
}

impl Engine {
    /// Makes every listed snapshot up to `upto` durable, as far as it has been published when this
    /// is called: saves that go on meanwhile keep it from nothing. Answers the newest durable one.
    pub(crate) fn flush_upto(&self, upto: u64) -> Result<Option<SnapshotId>, FlushError> {
        if !self.flusher.to_disk {
            return Ok(None);
        }
        let upto = upto.min(self.lock().next_id - 1);
        let _turn = self.flusher.turn.lock();
        while let Some(batch) = self.next_batch(upto) {
            self.flush_batch(&batch);
        }
        // They may have left the ring while they waited: then a newer one stands for them.
        if self.steady_id() < upto
            && let Some(batch) = self.next_batch(u64::MAX)
        {
            self.flush_batch(&batch);
        }
        match self.flusher.failure() {
            Some(failure) => Err(failure),
            None => Ok(self.durable()),
        }
    }

    /// Syncs a batch and notes what came of it.
    fn flush_batch(&self, batch: &Batch) {
        if Mutant::SlotBeforeData.is_on() {
            for (side, offset) in &batch.slots {
                _ = self.files[side.index()].sync(*offset, SLOT_LEN);
            }
            self.note_durable(batch);
        }
        let Err((side, error)) = self.sync_batch(batch) else { return self.note_durable(batch) };
        let mut state = self.lock();
        for n in &batch.places {
            let place = &mut state.places[usize::from(*n)];
            place.tainted |= !place.durable;
            place.label_dirty = false;
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

    /// The oldest snapshots that wait, and what must be synced for them.
    fn next_batch(&self, upto: u64) -> Option<Batch> {
        let mut state = self.lock();
        let mut batch = Batch {
            places: Vec::new(),
            syncs: Vec::new(),
            redirty: Vec::new(),
            slots: Vec::new(),
            newest: 0,
        };
        let mut bytes = 0;
        for number in state.listed.iter().rev().copied() {
            let n = usize::from(number);
            let place = &state.places[n];
            if place.id > upto || !wants_flush(place) {
                continue;
            }
            if bytes > 0 && bytes + place.root.len > BATCH {
                break;
            }
            bytes += place.root.len;
            let side = self.side_of(n);
            let slot = Extent { offset: self.slot_at(n), len: SLOT_LEN, crc: 0 };
            if !place.durable {
                batch.syncs.push((side, place.root));
                if place.redirty {
                    batch.redirty.extend([(side, place.root), (side, slot)]);
                }
                let space = &state.spaces[side.index()];
                if let (Some(schema), false) = (space.schema, space.schema_durable) {
                    batch.syncs.push((side, schema));
                }
            }
            batch.slots.push((side, slot.offset));
            batch.newest = batch.newest.max(place.id);
            batch.places.push(number);
        }
        if batch.places.is_empty() {
            return None;
        }
        state.flushing.clone_from(&batch.places);
        Some(batch)
    }

    /// Data first, then the slot pages.
    fn sync_batch(&self, batch: &Batch) -> Result<(), (Side, io::Error)> {
        for (side, extent) in &batch.redirty {
            self.files[side.index()].redirty(extent.offset, extent.len);
        }
        for (side, extent) in &batch.syncs {
            let file = &self.files[side.index()];
            let mut synced = file.sync(extent.offset, extent.len);
            if synced.is_err() && Mutant::RetrySync.is_on() {
                synced = file.sync(extent.offset, extent.len);
            }
            synced.map_err(|e| (*side, e))?;
        }
        for (side, offset) in &batch.slots {
            self.files[side.index()].sync(*offset, SLOT_LEN).map_err(|e| (*side, e))?;
        }
        Ok(())
    }

    /// Data and record are on the disk: notes it, and lets go of the durable snapshot before.
    fn note_durable(&self, batch: &Batch) {
        let mut state = self.lock();
        for number in &batch.places {
            let n = usize::from(*number);
            let place = &mut state.places[n];
            place.label_dirty = false;
            if place.durable {
                continue;
            }
            place.durable = true;
            place.redirty = false;
            let note = DurableNote { id: place.id, boot: self.boot, record_seal: place.seal };
            self.file_of(n).write_sealed(self.slot_at(n) + NOTE_AT, &note.encode());
        }
        for (side, _) in &batch.syncs {
            state.spaces[side.index()].schema_durable = true;
        }
        let newest = batch.places.iter().copied().max_by_key(|n| state.places[usize::from(*n)].id);
        if let Some(newest) = newest {
            let id = |n: u16| state.places[usize::from(n)].id;
            if state.steady.is_none_or(|old| id(old) < id(newest)) {
                state.steady = Some(newest);
            }
        }
        state.flushing.clear();
        self.unseal_unlisted(&state);
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
    fn raise_floor_ahead(&self) -> bool {
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
        let mut highest = self.flusher.floor.lock();
        *highest = floor.floor.max(*highest);
        let floor = &Floor { floor: *highest, ..*floor };
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

    /// Makes the pages present into which the next snapshots will go, where the files have grown.
    fn make_present(&self) {
        for side in Side::BOTH {
            let file = &self.files[side.index()];
            let (from, want) = {
                let state = self.lock();
                let from = self.run_at(state.spaces[side.index()].extents.tail());
                (from, (state.last_len * 2).max(256 << 10))
            };
            let present = &self.flusher.present[side.index()];
            // Relaxed: only this thread writes it.
            let from = from.max(present.load(Ordering::Relaxed));
            let to = (from + want).min(file.len());
            // What cannot be had now will be told by the save that needs it.
            if from < to && file.populate(from, to - from, true).is_ok() {
                present.store(to, Ordering::Relaxed);
            }
        }
    }
}

#![forbid(unsafe_code)]
//! From published to durable: data first, then the record, then the durable note (P4); and the
//! background thread, which does that in its own time, beside the id floor and what opening has left
//! unchecked. What else it does off the saving thread is in `arm.rs`, `expire.rs`, `pressure.rs`.
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
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::{
    arm::Arming,
    engine::{Engine, FLOOR_STEP, Place, State},
    error::{FlushError, SaveError},
    events::Event,
    file::BLOCK,
    header::{FLOOR_AT, Floor, Side},
    id::SnapshotId,
    mutants::Mutant,
    options::Durability,
    os,
    pressure::Pressure,
    record::{DurableNote, Extent, NOTE_AT, SLOT_LEN},
};

/// How long the background waits before it tries again to raise the floor.
const FLOOR_RETRY: Duration = Duration::from_secs(1);

/// How long it waits before it writes anew, once more, what could not be written: doubled each time.
const ANEW_FIRST: Duration = Duration::from_secs(1);
const ANEW_LAST: Duration = Duration::from_secs(60);

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
    /// One flush at a time, and the lists that it fills.
    turn: Mutex<Batch>,
    failed: Mutex<Failed>,
    /// A sync has failed, and no save has told it yet.
    untold: AtomicBool,
    /// The highest id floor written, held while one is.
    floor: Mutex<u64>,
}

/// What is known of failed syncs.
#[derive(Debug, Default)]
struct Failed {
    first: Option<FlushError>,
    last: Option<FlushError>,
}

#[derive(Debug, Default)]
struct Desk {
    woken: bool,
    stop: bool,
}

/// What one go of flushing covers.
#[derive(Debug, Default)]
struct Batch {
    places: Vec<u16>,
    syncs: Vec<(Side, Extent)>,
    redirty: Vec<(Side, Extent)>,
    slots: Vec<(Side, Extent)>,
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
            floor: Mutex::new(0),
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
        (self.in_background() && state.any_listed(wants_flush))
            || floor_is_near(state)
            || (state.expires && state.listed.len() > 1)
    }

    /// Whether snapshots are made durable without being asked.
    pub(crate) fn syncs(&self) -> bool {
        self.to_disk && self.durability != Durability::Process
    }

    /// Whether there is a disk, and a save waits for it.
    pub(crate) fn waits(&self) -> bool {
        self.to_disk && self.durability == Durability::Sync
    }

    fn in_background(&self) -> bool {
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

fn floor_is_near(state: &State) -> bool {
    state.floor.saturating_sub(state.next_id) < FLOOR_STEP / 2
}

/// Whether a sync of the place, where it lies, is wanted.
fn wants_flush(place: &Place) -> bool {
    !place.tainted && (place.label_dirty || !place.durable)
}

/// When the background writes anew what could not be written, once more.
struct Retry {
    at: Instant,
    after: Duration,
}

/// One round of the background's work, as far as it needs no waiting.
#[cfg(feature = "campaign")]
pub(crate) fn round(engine: &Arc<Engine>) {
    for id in &engine.recovery.unverified {
        engine.verify(*id);
    }
    engine.arm(&mut Arming::default());
    engine.raise_floor_ahead();
    engine.expire();
    if engine.flusher.syncs() {
        // Its failure is told by `flush`, `close` and the event.
        _ = engine.flush_upto(u64::MAX);
    }
}

/// The background thread: runs until it is roused to stop.
pub(crate) fn run(engine: &Arc<Engine>) {
    // The threads that the user waits for come first. Where it may not, it does without.
    _ = os::yield_to_others();
    let flusher = &engine.flusher;
    let mut flushed = Instant::now();
    for id in &engine.recovery.unverified {
        if flusher.desk.lock().stop {
            return;
        }
        engine.verify(*id);
        // However much there is to check, what is saved meanwhile does not wait for it.
        if let Durability::Background { within } = flusher.durability
            && flushed.elapsed() >= within / 2
        {
            engine.raise_floor_ahead();
            _ = engine.flush_upto(u64::MAX);
            flushed = Instant::now();
        }
    }
    let mut retry = Retry { at: Instant::now(), after: ANEW_FIRST };
    let mut arming = Arming::default();
    let mut pressure = Pressure::default();
    let mut flush_at = None;
    loop {
        let arm = engine.arm(&mut arming);
        let raised = engine.raise_floor_ahead();
        let expire = engine.expire();
        let relieve = engine.relieve(&mut pressure);
        flush_at = engine.next_flush(flush_at, &retry);
        let now = Instant::now();
        let flush = flush_at.map(|at| at.saturating_duration_since(now));
        let floor = (!raised).then_some(FLOOR_RETRY);
        let limit = [flush, floor, arm, expire, relieve].into_iter().flatten().min();
        if !flusher.rest(engine, limit) {
            return;
        }
        if flush_at.is_some_and(|at| at <= Instant::now()) {
            flush_at = None;
            engine.flush_in_background(&mut retry, &mut arming);
        }
    }
}

impl Engine {
    /// Makes every listed snapshot up to `upto` durable, as far as it has been published when this
    /// is called: saves that go on meanwhile keep it from nothing. Answers the newest durable one.
    pub(crate) fn flush_upto(&self, upto: u64) -> Result<Option<SnapshotId>, FlushError> {
        self.flush(upto, true, &mut || {})
    }

    /// The same; `anew`: what failed syncs have left behind is written elsewhere, too.
    fn flush(
        &self,
        upto: u64,
        anew: bool,
        between: &mut dyn FnMut(),
    ) -> Result<Option<SnapshotId>, FlushError> {
        if !self.flusher.to_disk {
            return Ok(None);
        }
        let upto = upto.min(self.lock().next_id - 1);
        let mut batch = self.flusher.turn.lock();
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

    /// What the background does when it is time.
    fn flush_in_background(&self, retry: &mut Retry, arming: &mut Arming) {
        let anew = retry.at <= Instant::now();
        // Its failure is told by `flush`, `close`, the next save and the event.
        arming.after_flush(self);
        _ = self.flush(u64::MAX, anew, &mut || _ = self.arm(arming));
        arming.after_flush(self);
        if !self.lock().any_listed(|place| place.tainted) {
            retry.after = ANEW_FIRST;
        } else if anew {
            retry.at = Instant::now() + retry.after;
            retry.after = (retry.after * 2).min(ANEW_LAST);
        }
    }

    /// When the background is to flush: as soon after something has come up as was asked.
    fn next_flush(&self, planned: Option<Instant>, retry: &Retry) -> Option<Instant> {
        let Durability::Background { within } = self.flusher.durability else { return None };
        if !self.flusher.to_disk {
            return None;
        }
        let state = self.lock();
        if state.any_listed(wants_flush) {
            planned.or_else(|| Some(Instant::now() + within / 2))
        } else {
            state.any_listed(|place| place.tainted).then_some(retry.at)
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
            place.tainted |= !place.durable;
            place.label_dirty = false;
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
            self.files[side.index()].redirty(extent.offset, extent.len);
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
        if state.steady.is_none_or(|old| id(old) < id(newest)) {
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
}

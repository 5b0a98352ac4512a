#![forbid(unsafe_code)]
//! Seal and publish: a record for what has been written, and the head swung to it.
//!
//! Knows records, ids and labels. Where the space came from is for `space.rs`.

use std::sync::atomic::Ordering;

use crate::{
    clock,
    engine::{Engine, FLOOR_STEP, Place, State, Use, blocks_for},
    error::{KeepError, SaveError},
    events::Event,
    header::{Floor, HINT_AT, Side, WAKE_AT},
    id::SnapshotId,
    paging::Pages,
    record::{Extent, Kind, LABEL_AT, LABEL_LEN, Record, encode_label, seal_of},
    ring::{MAX_ID, Word},
    session::{Scratch, Written},
    space::Making,
    sync::{MutexGuard, current},
    tenancy::PATIENCE,
};

/// What goes into a record besides what the engine knows.
pub(crate) struct Contents {
    pub(crate) len: u64,
    pub(crate) crc: u32,
    pub(crate) root_pos: u32,
    pub(crate) depth: u32,
}

impl Contents {
    pub(crate) fn of(written: &Written) -> Contents {
        Contents {
            len: written.len as u64,
            crc: written.crc,
            root_pos: written.root as u32,
            depth: written.depth,
        }
    }
}

impl Engine {
    /// Waits until no other thread is rolling back.
    fn settle(&self, state: &mut MutexGuard<'_, State>) {
        while self.is_moving(state) {
            self.settled.wait(state);
        }
    }

    /// Whether another thread is rolling back.
    pub(crate) fn is_moving(&self, state: &State) -> bool {
        state.mover.is_some_and(|mover| mover != current().id())
    }

    /// The next id; raises the floor when it is reached (it is raised ahead of that by the
    /// background).
    fn next_id(&self, state: &mut State) -> Result<u64, SaveError> {
        if state.next_id >= MAX_ID {
            return Err(SaveError::Exhausted);
        }
        if state.next_id >= state.floor {
            self.raise_floor(state);
        }
        Ok(state.next_id)
    }

    /// Raises the id floor where the background has not come to it.
    #[cold]
    fn raise_floor(&self, state: &mut State) {
        let floor = state.next_id + FLOOR_STEP;
        let note = Floor { floor, next: 0, boot: self.boot, ring_id: self.ring_id };
        if let Err((path, error)) = self.write_floor(&note) {
            self.flusher.fail(self, &path, &error, state.next_id);
        }
        state.floor = floor;
    }

    /// Seals a place's record and makes it the head.
    fn publish(&self, state: &mut State, n: usize, record: &Record, root_address: usize) {
        let bytes = record.encode();
        self.file_of(n).write_sealed(self.slot_at(n), &bytes);
        let number = n as u16;
        let place = &mut state.places[n];
        let born = clock::steady_millis() as i64;
        let (run, table) = (place.run, place.table.take());
        *place = Place { born, run, table, ..Place::of(record, seal_of(&bytes)) };
        self.ring.set_root(n, root_address);
        let seen = self.ring.head();
        if !seen.is_none() {
            state.places[seen.place()].left_at = record.created;
            state.places[seen.place()].quiet = false;
        }
        let swung = self.ring.swing(seen, Word::new(record.id, n));
        debug_assert!(swung.is_ok(), "P2: the lock orders all that moves the head");
        state.next_id = record.id + 1;
        state.listed.push_front(number);
        if record.kind != Kind::Rollback {
            state.last_len = record.root.len;
        }
        state.counts.written += record.written;
        self.trim(state);
        // A hint for other processes; never believed without its record.
        let hint = &self.files[0];
        hint.word64(HINT_AT).store(Word::new(record.id, n).bits(), Ordering::Relaxed);
        // Release: met by the Acquire of a waiting process. The lock admits one writer.
        let wake = hint.word(WAKE_AT);
        wake.store(wake.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        self.flusher.wake_if_idle(state);
    }

    /// Unlists what is too many: the oldest that no label keeps, never the newest. Power lost while
    /// labels moved may have left labels for all others.
    fn trim(&self, state: &mut State) {
        while state.listed.len() > self.options.ring as usize {
            let oldest = state
                .listed
                .iter()
                .skip(1)
                .rev()
                .copied()
                .find(|n| state.places[usize::from(*n)].label.is_none());
            let Some(number) = oldest else { return };
            self.unlist(state, number);
        }
    }

    fn record(&self, state: &State, n: usize, kind: Kind, id: u64) -> Record {
        let side = self.side_of(n);
        let (parent, parent_seal, logical) = match state.listed.front() {
            Some(newest) => {
                let p = &state.places[usize::from(*newest)];
                (p.id, p.seal, p.logical.saturating_add(1))
            }
            None => (0, 0, 1),
        };
        Record {
            id,
            file_id: self.file_ids[side.index()],
            boot: self.boot,
            side,
            kind,
            index: (n % self.slots()) as u16,
            parent,
            parent_seal,
            depth: 0,
            target: 0,
            layout: self.layout.fingerprint,
            type_version: self.layout.version,
            root_pos: 0,
            logical,
            created: clock::wall_nanos(),
            root: Extent::default(),
            table: Extent::default(),
            schema: state.spaces[side.index()].schema.unwrap_or_default(),
            written: 0,
        }
    }

    /// Writes the layout's text into a side once, so that its snapshots describe themselves.
    pub(crate) fn describe<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        side: Side,
    ) -> Result<MutexGuard<'a, State>, SaveError> {
        let text = self.layout.text.as_bytes();
        let blocks = blocks_for(text.len() as u64);
        let run = loop {
            if state.spaces[side.index()].schema.is_some() {
                return Ok(state);
            }
            if let Some(run) = state.spaces[side.index()].extents.take(blocks) {
                break run;
            }
            // The archive is there: what has to leave for its layout's text leaves (P5).
            if let Some(grown) = self.make_space(state, side, [blocks, 0], true)? {
                state = grown;
            } else {
                state = self.lock();
            }
        };
        let (offset, file) = (self.run_at(run), &self.files[side.index()]);
        if let Err(error) = self.put(file, offset, text) {
            state.spaces[side.index()].extents.release(run);
            return Err(error);
        }
        state.spaces[side.index()].schema =
            Some(Extent { offset, len: text.len() as u64, crc: crc32fast::hash(text) });
        Ok(state)
    }

    /// Rolling back starts: nobody else moves the head until [`Moving`] is dropped. `None` if this
    /// very thread is at it.
    pub(crate) fn begin_move(&self) -> Option<Moving<'_>> {
        let me = current().id();
        let mut state = self.lock();
        self.wait_for_captures(&mut state, 0);
        while let Some(mover) = state.mover {
            if mover == me {
                return None;
            }
            self.settled.wait(&mut state);
        }
        state.mover = Some(me);
        Some(Moving { engine: self })
    }

    /// The place of a listed snapshot.
    pub(crate) fn find(&self, state: &State, id: SnapshotId) -> Option<usize> {
        let listed = state.listed.iter().map(|n| usize::from(*n));
        listed.into_iter().find(|n| state.places[*n].id == id.get())
    }

    /// The oldest snapshot that is listed.
    pub(crate) fn oldest(&self, state: &State) -> Option<SnapshotId> {
        state.listed.back().map(|n| SnapshotId::new(state.places[usize::from(*n)].id))
    }

    /// Writes the label note of snapshot `id` into the slot page of place `n`.
    pub(crate) fn write_label(&self, n: usize, id: u64, label: Option<&str>) {
        let at = self.slot_at(n) + LABEL_AT;
        match label {
            Some(label) => self.file_of(n).write_sealed(at, &encode_label(id, label)),
            None => self.file_of(n).unseal(at, LABEL_LEN as u64),
        }
    }

    /// Sets or clears the label note of a place, and of its twin.
    fn set_label(&self, state: &mut State, n: usize, label: Option<&str>) {
        let id = state.places[n].id;
        self.write_label(n, id, label);
        for twin in state.twins_of(n) {
            self.write_label(twin, id, label);
        }
        state.places[n].label = label.map(Into::into);
        state.places[n].label_dirty = true;
        self.trim(state);
    }

    /// Keeps a listed snapshot under a label, which moves if it is in use.
    pub(crate) fn keep(&self, id: SnapshotId, label: &str) -> Result<(), KeepError> {
        let mut state = self.lock();
        if state.ended {
            return Err(KeepError::Gone { id });
        }
        let n = self.find(&state, id).ok_or(KeepError::Gone { id })?;
        let holders = labelled(&state, label);
        if holders == [n] {
            return Ok(());
        }
        let kept = state.places.iter().filter(|p| p.listed && p.label.is_some()).count();
        let ring = self.options.ring as usize;
        let after = kept + usize::from(state.places[n].label.is_none() && holders.is_empty());
        if after + 2 > ring {
            return Err(KeepError::Full { kept, ring });
        }
        // The new note first: killed in between, the label names two, never none.
        self.set_label(&mut state, n, Some(label));
        for old in holders.into_iter().filter(|old| *old != n) {
            self.set_label(&mut state, old, None);
        }
        self.flusher.wake_if_idle(&state);
        Ok(())
    }

    /// Takes a label away. `false` if no snapshot has it.
    pub(crate) fn release(&self, label: &str) -> bool {
        let mut state = self.lock();
        let holders = labelled(&state, label);
        for n in &holders {
            self.set_label(&mut state, *n, None);
        }
        self.flusher.wake_if_idle(&state);
        !holders.is_empty()
    }
}

/// The place kept under a label; two, where a process was killed while it moved.
fn labelled(state: &State, label: &str) -> Vec<usize> {
    let places = state.places.iter().enumerate();
    places.filter(|(_, p)| p.listed && p.label.as_deref() == Some(label)).map(|(n, _)| n).collect()
}

/// The right to move the head, alone.
pub(crate) struct Moving<'a> {
    engine: &'a Engine,
}

/// A place for a rollback's record, before anything is changed.
pub(crate) enum Prospect<'a> {
    /// It has one.
    Reserved(Making<'a>),
    /// Somebody can leave for it, and will once the state is back (P5). Saves that need a place as
    /// well wait for this rollback.
    Evictable,
    /// Saves under way have all of them, and wait for this rollback.
    Busy,
}

impl<'a> Moving<'a> {
    /// Takes a free place on the side of the target, which the caller holds.
    pub(crate) fn reserve(&self, target: usize) -> Result<Prospect<'a>, SaveError> {
        self.take(target, false)
    }

    /// The same for a state that is back: the oldest leaves for its record. It fails where somebody
    /// has come to hold those that could have left.
    pub(crate) fn make_room(&self, target: usize) -> Result<Making<'a>, SaveError> {
        match self.take(target, true)? {
            Prospect::Reserved(making) => Ok(making),
            _ => unreachable!("only who may not evict is sent away"),
        }
    }

    fn take(&self, target: usize, evict: bool) -> Result<Prospect<'a>, SaveError> {
        let engine = self.engine;
        let side = engine.side_of(target);
        let mut state = engine.lock();
        if state.ended {
            return Err(SaveError::HandedOver);
        }
        let (mut patience, mut flushed) = (PATIENCE, false);
        let index = loop {
            engine.reclaim_in_turn(&mut state, side);
            if let Some(index) = state.spaces[side.index()].free.pop() {
                break index;
            }
            if evict && engine.evict_for_space(&mut state, side) {
                continue;
            }
            if !evict && engine.is_making(&state, side) {
                return Ok(Prospect::Busy);
            }
            if !evict && engine.can_evict(&mut state, side) {
                return Ok(Prospect::Evictable);
            }
            if !engine.wait_for_readers(&mut state, side, &mut patience)
                && !engine.flush_for_room(&mut state, side, &mut flushed)
            {
                return Err(SaveError::Held { holders: engine.holders(&mut state, side) });
            }
        };
        let (run, pages) = (state.places[target].run, state.places[target].table.clone());
        let extents = &mut state.spaces[side.index()].extents;
        for run in pages.iter().flat_map(|table| &table.runs).map(|run| run.start).chain([run]) {
            extents.share(run);
        }
        let n = engine.number(side, index);
        state.places[n].state = Use::Making;
        state.making += 1;
        let lost = state.spaces[side.index()].lost;
        let making = Making { engine, side, index, run, blocks: 0, lost, pages, sealed: false };
        Ok(Prospect::Reserved(making))
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.engine.lock().mover = None;
        self.engine.settled.notify_all();
    }
}

impl Making<'_> {
    /// Seals and publishes an archive that lies at the start of the space.
    pub(crate) fn seal(
        self,
        contents: &Contents,
        root_address: usize,
        pages: Option<Pages<'_>>,
        scratch: Scratch,
    ) -> Result<SnapshotId, SaveError> {
        let engine = self.engine;
        let mut state = engine.lock();
        engine.wait_for_captures(&mut state, 0);
        self.seal_in_turn(state, contents, root_address, pages, scratch)
    }

    /// The same, when it is its turn among captures.
    pub(crate) fn seal_in_turn<'s>(
        mut self,
        state: MutexGuard<'s, State>,
        contents: &Contents,
        root_address: usize,
        pages: Option<Pages<'_>>,
        scratch: Scratch,
    ) -> Result<SnapshotId, SaveError>
    where
        Self: 's,
    {
        // Let go of before what `pages` and `self` give back, whichever way this ends.
        let mut state = state;
        let engine = self.engine;
        let n = self.number();
        if state.spaces[self.side.index()].schema.is_none() {
            state = engine.describe(state, self.side)?;
        }
        // Last: `describe` may let the lock go.
        engine.settle(&mut state);
        let id = engine.next_id(&mut state)?;
        let blocks = blocks_for(contents.len);
        if blocks != self.blocks {
            state.spaces[self.side.index()].extents.shrink(self.run, blocks);
        }
        let shares = pages.as_ref().is_some_and(Pages::shares);
        let kind = if shares { Kind::Incremental } else { Kind::Full };
        let mut record = engine.record(&state, n, kind, id);
        record.depth = contents.depth;
        record.root_pos = contents.root_pos;
        record.root =
            Extent { offset: engine.run_at(self.run), len: contents.len, crc: contents.crc };
        record.written = contents.len;
        state.places[n].run = self.run;
        if let Some(pages) = pages {
            record.table = pages.table();
            record.depth = record.depth.max(pages.depth);
            record.written += pages.written;
            state.places[n].table = Some(pages.sealed(&mut state, n, id));
        }
        state.cadence.wrote(record.written);
        engine.publish(&mut state, n, &record, root_address);
        // A sync that failed meanwhile may have dropped bytes that were not its own (P5).
        state.places[n].tainted = state.spaces[self.side.index()].lost != self.lost;
        state.counts.saves += 1;
        state.making -= 1;
        engine.settled.notify_all();
        if state.scratch.len() < 4 {
            state.scratch.push(scratch);
        }
        self.sealed = true;
        let id = SnapshotId::new(id);
        engine.listeners.tell(|| Event::Saved { id });
        Ok(id)
    }

    /// Seals and publishes `target` as the newest again.
    pub(crate) fn seal_rollback(mut self, target: usize) -> Result<SnapshotId, SaveError> {
        let engine = self.engine;
        let n = self.number();
        let mut state = engine.lock();
        let id = engine.next_id(&mut state)?;
        let mut record = engine.record(&state, n, Kind::Rollback, id);
        let goal = &state.places[target];
        record.target = goal.id;
        record.logical = goal.logical;
        record.type_version = goal.type_version;
        record.depth = goal.depth;
        record.root = goal.root;
        record.root_pos = goal.root_pos;
        record.table = goal.table.as_ref().map_or_else(Extent::default, |table| table.at);
        let (from, to) = (record.parent, SnapshotId::new(goal.id));
        // Its pages may look clean though a sync of them has failed.
        let tainted = goal.tainted && !goal.durable;
        let (redirty, found) = (goal.redirty, goal.found);
        let named = goal.named;
        state.places[n].run = self.run;
        state.places[n].table = self.pages.take();
        let root = engine.ring.root(target);
        engine.publish(&mut state, n, &record, root);
        state.places[n].redirty = redirty;
        state.places[n].tainted = tainted;
        state.places[n].found = found;
        state.places[n].named = named;
        state.counts.rollbacks += 1;
        state.making -= 1;
        engine.settled.notify_all();
        self.sealed = true;
        let id = SnapshotId::new(id);
        let from = (from != 0).then(|| SnapshotId::new(from));
        engine.listeners.tell(|| Event::RolledBack { id, from, to });
        Ok(id)
    }
}

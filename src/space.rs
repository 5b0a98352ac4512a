#![forbid(unsafe_code)]
//! Space for a snapshot in the making: a place and bytes, found, grown, evicted for, and freed.
//!
//! Knows blocks and who retains what. What is written there is for `save.rs`.

use std::sync::Arc;

use crate::{
    clock,
    engine::{Engine, Place, State, Use, blocks_for},
    error::{HeldBy, Holder, SaveError},
    events::Event,
    file::{BLOCK, MappedFile},
    header::Side,
    id::SnapshotId,
    mutants::Mutant,
    record::{LABEL_AT, RECORD_LEN, encode_label},
    ring::Word,
    runs::{Run, Table},
    session::Scratch,
    sync::MutexGuard,
    tenancy::PATIENCE,
};

/// Space and a place for a snapshot in the making. Given back, unless it is sealed.
pub(crate) struct Making<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) side: Side,
    pub(crate) index: u16,
    pub(crate) run: u64,
    pub(crate) blocks: u64,
    /// Syncs of the side that had failed when it began.
    pub(crate) lost: u64,
    /// Pages of another snapshot that it shares, all of them.
    pub(crate) pages: Option<Arc<Table>>,
    pub(crate) sealed: bool,
}

/// Room, the length of the last snapshot, lasting memory, and a run for pages where one was asked for.
type Found<'a> = (Making<'a>, u64, Scratch, Option<Run>);

impl Engine {
    /// Takes a place, and room for `need` bytes (0: as many as the last snapshot had) with an
    /// eighth to spare, on the side opposite the newest snapshot. Changes nothing that is listed:
    /// `None` where something would have to leave for it. Answers the length of the last snapshot,
    /// too.
    pub(crate) fn begin(&self, need: u64) -> Result<Option<(Making<'_>, u64, Scratch)>, SaveError> {
        Ok(self
            .find_room(need, false, None)?
            .map(|(making, last, scratch, _)| (making, last, scratch)))
    }

    /// The same for an archive that is there, of `need` bytes, and for as many blocks of `pages` on
    /// their side, which are answered as a run of their own: the oldest leave for them, where both
    /// fit then (P5).
    pub(crate) fn make_room(
        &self,
        need: u64,
        pages: Option<(Side, u64)>,
    ) -> Result<(Making<'_>, Option<Run>), SaveError> {
        match self.find_room(need.max(1), true, pages)? {
            Some((making, _, _, run)) => Ok((making, run)),
            None => unreachable!("only who may not evict is sent away"),
        }
    }

    /// Blocks that the layout's text is yet to take on a side.
    pub(crate) fn text_blocks(&self, state: &State, side: Side) -> u64 {
        let described = state.spaces[side.index()].schema.is_some();
        if described { 0 } else { blocks_for(self.layout.text.len() as u64) }
    }

    /// The side opposite the newest snapshot.
    fn side_for(&self, state: &State) -> Side {
        let newest = state.listed.front();
        newest.map_or(Side::A, |newest| self.side_of(usize::from(*newest)).other())
    }

    /// Where the next snapshot goes.
    pub(crate) fn next_side(&self) -> Side {
        self.side_for(&self.lock())
    }

    fn find_room(
        &self,
        need: u64,
        evict: bool,
        pages: Option<(Side, u64)>,
    ) -> Result<Option<Found<'_>>, SaveError> {
        let mut state = self.lock();
        if state.ended {
            return Err(SaveError::HandedOver);
        }
        if Mutant::EvictFirst.is_on() && state.listed.len() >= self.options.ring as usize {
            let unlabelled = |n: &u16| state.places[usize::from(*n)].label.is_none();
            let oldest = state.listed.iter().skip(1).rev().copied().find(unlabelled);
            if let Some(oldest) = oldest {
                self.unlist(&mut state, oldest);
            }
        }
        let last = state.last_len;
        let again = need > 0;
        let need = if again { need } else { last };
        let least = if again { blocks_for(need) } else { 1 };
        let mut blocks = if evict { least } else { blocks_for(need + need / 8) };
        let more = pages.map_or(0, |(_, blocks)| blocks);
        let (mut patience, mut flushed) = (PATIENCE, false);
        let (side, run, pages) = loop {
            let side = pages.map_or_else(|| self.side_for(&state), |(side, _)| side);
            self.reclaim_in_turn(&mut state, side);
            // The layout's text goes there first where the side has none yet: room for both, lest
            // something leaves for nothing.
            let text = self.text_blocks(&state, side);
            if state.spaces[side.index()].free.is_empty() {
                // Other threads' saves and rollbacks end soon: nothing need leave for their sake.
                if self.is_making(&state, side) || self.is_moving(&state) {
                    self.await_progress(&mut state);
                } else if !evict && self.can_evict(&mut state, side) {
                    return Ok(None);
                } else if evict && !self.would_fit(&mut state, side, [blocks + text, more]) {
                    // Who leaves for its slot page leaves for bytes that fit.
                    match self.make_space(state, side, [blocks + text, more], true)? {
                        Some(grown) => state = grown,
                        None => return Ok(None),
                    }
                } else if !self.evict_for_space(&mut state, side)
                    && !self.wait_for_readers(&mut state, side, &mut patience)
                    && !self.flush_for_room(&mut state, side, &mut flushed)
                {
                    return Err(SaveError::Held { holders: self.holders(&mut state, side) });
                }
                continue;
            }
            let extents = &mut state.spaces[side.index()].extents;
            // A second try knows only that the first was too small: it goes where it can extend.
            let last = if again && !evict { extents.take_last(blocks) } else { None };
            if let Some(run) = last.or_else(|| extents.take(blocks)) {
                if more == 0 {
                    break (side, run, None);
                }
                if let Some(start) = extents.take(more) {
                    break (side, run, Some(Run { start, blocks: more }));
                }
                extents.release(run);
            }
            // What waits for its turn comes before growth.
            if self.reclaim(&mut state, side) {
                continue;
            }
            state = match self.make_space(state, side, [blocks + text, more], evict) {
                Ok(Some(state)) => state,
                Ok(None) => return Ok(None),
                Err(error @ SaveError::NoSpace { .. }) => {
                    let mut state = self.lock();
                    if blocks > least {
                        // Then what there is: the state may have shrunk.
                        let gap = state.spaces[side.index()].extents.largest_gap();
                        blocks = gap.clamp(least, blocks - 1);
                    } else if !self.flush_for_room(&mut state, side, &mut flushed) {
                        return Err(error);
                    }
                    state
                }
                Err(error) => return Err(error),
            };
        };
        let Some(index) = state.spaces[side.index()].free.pop() else {
            return Err(SaveError::Held { holders: self.holders(&mut state, side) });
        };
        state.places[self.number(side, index)].state = Use::Making;
        state.making += 1;
        let scratch = state.scratch.pop().unwrap_or_default();
        let lost = state.spaces[side.index()].lost;
        let making =
            Making { engine: self, side, index, run, blocks, lost, pages: None, sealed: false };
        Ok(Some((making, last, scratch, pages)))
    }

    /// Returns when one of the snapshots being made beside `place` has been made, or there is none.
    pub(crate) fn wait_for_a_place_beside(&self, place: usize) {
        let mut state = self.lock();
        if self.is_making(&state, self.side_of(place)) {
            self.await_progress(&mut state);
        }
    }

    /// Whether a snapshot is being made on a side.
    pub(crate) fn is_making(&self, state: &State, side: Side) -> bool {
        let making =
            |(n, place): (usize, &Place)| place.state == Use::Making && self.side_of(n) == side;
        state.places.iter().enumerate().any(making)
    }

    /// Grows the file, or evicts, until runs of as many `blocks` may fit: `None` where something would have to leave
    /// and may not yet. The lock is let go while the file grows.
    pub(crate) fn make_space<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        side: Side,
        runs: [u64; 2],
        evict: bool,
    ) -> Result<Option<MutexGuard<'a, State>>, SaveError> {
        let file = &self.files[side.index()];
        let extents = &state.spaces[side.index()].extents;
        let need: u64 = runs.iter().sum();
        let end = self.run_at(extents.tail() + need);
        let mut refused = None;
        // Where it takes both, growing and leaving, the growing comes first: it may be refused.
        let grows =
            end <= file.max() || file.len() < file.max() && !self.would_fit(&mut state, side, runs);
        if grows {
            let end = end.min(file.max());
            let to = (file.len() * 2).clamp(end, file.max());
            let grown =
                MutexGuard::unlocked(&mut state, || file.grow(to).or_else(|_| file.grow(end)));
            let blocks = (file.len() - self.data_at()) / BLOCK;
            state.spaces[side.index()].extents.grow(blocks);
            match grown {
                Ok(()) => return Ok(Some(state)),
                Err(error) => refused = Some(error),
            }
        }
        if self.would_fit(&mut state, side, runs) {
            if !evict {
                return Ok(None);
            }
            if self.evict_for_space(&mut state, side) {
                return Ok(Some(state));
            }
        }
        let free = state.spaces[side.index()].extents.largest_gap() * BLOCK;
        let held = self.holders(&mut state, side);
        Err(SaveError::NoSpace { need: need * BLOCK, free, max: file.max(), held, source: refused })
    }

    /// Whether a listed snapshot could be evicted for space: on this side, and nothing but the
    /// list retains it. Leases as they were last asked for.
    pub(crate) fn is_evictable(&self, state: &State, side: Side, number: u16) -> bool {
        let n = usize::from(number);
        self.side_of(n) == side
            && state.places[n].label.is_none()
            && self.ring.holds(n).0 == 0
            && state.places[n].leased_at.is_none()
            && !self.is_steady(state, number)
    }

    /// Whether evicting all that may be evicted would make room: asked before the first one goes
    /// (P5).
    fn would_fit(&self, state: &mut State, side: Side, runs: [u64; 2]) -> bool {
        self.ask_for_leases(state);
        self.quieten(state);
        let mut trial = state.spaces[side.index()].extents.clone();
        for number in state.listed.iter().skip(2).copied() {
            if self.goes_at_once(state, side, number) {
                let place = &state.places[usize::from(number)];
                let pages = place.table.iter().flat_map(|table| &table.runs);
                for run in pages.map(|run| run.start).chain([place.run]) {
                    trial.release(run);
                }
            }
        }
        runs.into_iter().all(|blocks| blocks == 0 || trial.take(blocks).is_some())
    }

    /// Whether a listed snapshot's space would be free as soon as it left: nobody reads it, either.
    fn goes_at_once(&self, state: &State, side: Side, number: u16) -> bool {
        state.places[usize::from(number)].quiet && self.is_evictable(state, side, number)
    }

    /// The oldest snapshot of a side that nothing retains, but for the newest two.
    fn candidate(&self, state: &mut State, side: Side) -> Option<u16> {
        self.ask_for_leases(state);
        self.quieten(state);
        let mut oldest_first = state.listed.iter().skip(2).rev().copied();
        oldest_first.find(|number| self.goes_at_once(state, side, *number))
    }

    /// Whether there is one.
    pub(crate) fn can_evict(&self, state: &mut State, side: Side) -> bool {
        self.candidate(state, side).is_some()
    }

    /// Unlists the oldest snapshot of a side that nothing retains, but for the newest two. `false`
    /// if there is none.
    pub(crate) fn evict_for_space(&self, state: &mut State, side: Side) -> bool {
        let Some(number) = self.candidate(state, side) else { return false };
        self.unlist(state, number);
        self.reclaim(state, side);
        true
    }

    /// Waits for the disk, once in a save, where it is what keeps places of a side: once a newer
    /// snapshot is there, they may leave. `false` if it is not, or has been waited for.
    pub(crate) fn flush_for_room(
        &self,
        state: &mut MutexGuard<'_, State>,
        side: Side,
        flushed: &mut bool,
    ) -> bool {
        let newest = state.listed.front().copied();
        let mut places = state.places.iter().enumerate();
        let kept = places.any(|(n, place)| {
            let number = n as u16;
            self.side_of(n) == side
                && place.is_sealed()
                && newest != Some(number)
                && self.is_steady(state, number)
        });
        if *flushed || !kept || !self.flusher.syncs() {
            return false;
        }
        *flushed = true;
        MutexGuard::unlocked(state, || self.flush_soon());
        self.reclaim(state, side);
        true
    }

    /// P4: the newest durable snapshot, and those on their way to the disk. Until there is one,
    /// all that opening found in this boot without a note: any of them may be the only one there.
    pub(crate) fn is_steady(&self, state: &State, number: u16) -> bool {
        let found = || state.places[usize::from(number)].redirty && self.flusher.syncs();
        if Mutant::NoSteadyRule.is_on() {
            return false;
        }
        state.steady == Some(number)
            || (state.flushing.contains(&number) && !Mutant::FlushedNotExempt.is_on())
            || (state.steady.is_none() && found())
    }

    /// Takes a snapshot off the list; its place waits until nothing retains it.
    pub(crate) fn unlist(&self, state: &mut State, number: u16) {
        if let Some(at) = state.listed.iter().rposition(|n| *n == number) {
            state.listed.remove(at);
            let place = &mut state.places[usize::from(number)];
            place.listed = false;
            let (id, len) = (place.id, place.root.len);
            state.limbo.push(number);
            state.unasked.places += 1;
            state.unasked.bytes += len;
            state.counts.evicted += 1;
            let id = SnapshotId::new(id);
            self.listeners.tell(|| Event::Evicted { id });
            let n = usize::from(number);
            if self.is_steady(state, number) {
                // It keeps its seal, for the disk's sake: a note tells a reopening not to list it
                // in the place of another.
                let left = encode_label(id.get(), "");
                self.file_of(n).write_sealed(self.slot_at(n) + LABEL_AT, &left);
            } else {
                // At once, as `unseal_unlisted` says.
                self.unseal(state, n);
            }
            for twin in state.twins_of(usize::from(number)) {
                self.file_of(twin).unseal(self.slot_at(twin), RECORD_LEN as u64);
            }
            state.twins.retain(|(listed, _)| *listed != usize::from(number));
        }
    }

    /// Breaks the seals of what is neither listed nor retained for the disk: whoever holds it here
    /// needs none, and a reopening must not find it in the place of something listed.
    pub(crate) fn unseal_unlisted(&self, state: &mut State) {
        for i in 0..state.limbo.len() {
            let number = state.limbo[i];
            if !state.places[usize::from(number)].unsealed && !self.is_steady(state, number) {
                self.unseal(state, usize::from(number));
            }
        }
    }

    fn unseal(&self, state: &mut State, n: usize) {
        self.file_of(n).unseal(self.slot_at(n), RECORD_LEN as u64);
        state.places[n].unsealed = true;
        // Nobody's twin any more: another's record may be sealed there next.
        state.twins.retain(|(_, twin)| *twin != n);
    }

    /// Frees the places of a side that nothing retains any more. `false` if there was none.
    pub(crate) fn reclaim(&self, state: &mut State, side: Side) -> bool {
        if state.limbo.is_empty() {
            return false;
        }
        let on_side = |n: &u16| self.side_of(usize::from(*n)) == side;
        let (mut loud, mut unknown) = (false, false);
        for number in state.limbo.iter().filter(|n| on_side(n)) {
            loud |= !state.places[usize::from(*number)].quiet;
            unknown |= !self.may_be_used_again(state, *number) && !self.is_steady(state, *number);
        }
        if loud {
            self.quieten(state);
        }
        if unknown {
            self.ask_for_leases(state);
        }
        let before = state.limbo.len();
        let mut i = 0;
        while i < state.limbo.len() {
            let number = state.limbo[i];
            let n = usize::from(number);
            let retained = !on_side(&number)
                || !state.places[n].quiet
                || !self.may_be_used_again(state, number)
                || (self.ring.holds(n).0 > 0 && !Mutant::ReuseHeld.is_on())
                || self.is_steady(state, number);
            if retained {
                i += 1;
                continue;
            }
            state.limbo.swap_remove(i);
            self.free(state, n);
        }
        let freed = state.limbo.len() < before;
        if !state.spaces[side.index()].retired.is_empty() {
            self.release_retired(state, side);
        }
        freed
    }

    /// The side's layout text is not relied on any more: the next snapshot there writes it anew.
    pub(crate) fn retire_schema(&self, state: &mut State, side: Side) {
        let next = state.next_id;
        let space = &mut state.spaces[side.index()];
        if let Some(schema) = space.schema.take() {
            space.retired.push(((schema.offset - self.data_at()) / BLOCK, next));
            space.schema_durable = false;
        }
    }

    /// Frees the retired texts to which no snapshot refers any more.
    #[cold]
    fn release_retired(&self, state: &mut State, side: Side) {
        let State { places, spaces, .. } = state;
        let on_side = places.iter().enumerate().filter(|(n, _)| self.side_of(*n) == side);
        let oldest =
            on_side.filter(|(_, place)| place.is_sealed()).map(|(_, place)| place.id).min();
        let space = &mut spaces[side.index()];
        let extents = &mut space.extents;
        space.retired.retain(|(run, next)| {
            let in_use = oldest.is_some_and(|oldest| oldest < *next);
            if !in_use {
                extents.release(*run);
            }
            in_use
        });
    }

    /// One scan clears every place that is not the head and not announced, for good (R3).
    fn quieten(&self, state: &mut State) {
        let head = self.ring.head().place();
        let mut announced = Vec::new();
        self.ring.scan(|word| announced.push(word));
        for (n, place) in state.places.iter_mut().enumerate() {
            if place.state == Use::Sealed && n != head {
                place.quiet = !announced.contains(&Word::new(place.id, n));
            }
        }
    }

    /// A place's bytes may be written over from here on: first its record's seal is broken.
    fn free(&self, state: &mut State, n: usize) {
        debug_assert!(!state.places[n].listed, "P1: only the unlisted are freed");
        self.ring.set_root(n, 0);
        if !state.places[n].unsealed {
            self.unseal(state, n);
        }
        let side = self.side_of(n);
        let State { places, spaces, .. } = state;
        let space = &mut spaces[side.index()];
        space.release(&places[n]);
        space.free.push((n % self.slots()) as u16);
        state.places[n].state = Use::Free;
        state.places[n].label = None;
        state.places[n].table = None;
    }

    /// Who keeps the places of a side.
    pub(crate) fn holders(&self, state: &mut State, side: Side) -> Vec<Holder> {
        self.ask_for_leases(state);
        self.known_holders(state, side)
    }

    fn known_holders(&self, state: &State, side: Side) -> Vec<Holder> {
        let head = self.ring.head().place();
        let mut announced = Vec::new();
        self.ring.scan(|word| announced.push(word));
        let mut holders = Vec::new();
        for (n, place) in state.places.iter().enumerate() {
            if self.side_of(n) != side || !place.is_sealed() {
                continue;
            }
            let number = n as u16;
            if let Some(leased_at) = place.leased_at {
                let (id, since) = (SnapshotId::new(place.id), clock::since(leased_at));
                holders.push(Holder { id, by: HeldBy::Reader, since });
            }
            let (mementos, held_at) = self.ring.holds(n);
            let (by, since) = if mementos > 0 {
                let mementos = u32::try_from(mementos).unwrap_or(u32::MAX);
                (HeldBy::Mementos { mementos }, clock::since(held_at))
            } else if let Some(label) = &place.label {
                (HeldBy::Label(label.to_string()), clock::since_wall(place.left_at))
            } else if self.is_steady(state, number) {
                (HeldBy::Durability, clock::since_wall(place.left_at))
            } else if n != head && announced.contains(&Word::new(place.id, n)) {
                (HeldBy::Read, clock::since_wall(place.left_at))
            } else if state.listed.iter().take(2).any(|x| *x == number) {
                (HeldBy::Newest, std::time::Duration::ZERO)
            } else {
                continue;
            };
            holders.push(Holder { id: SnapshotId::new(place.id), by, since });
        }
        holders.sort_by_key(|h| h.id);
        holders
    }

    /// Who keeps what, on both sides.
    pub(crate) fn all_holders(&self, state: &mut State) -> Vec<Holder> {
        let mut all = self.holders(state, Side::A);
        all.extend(self.known_holders(state, Side::B));
        all.retain(|h| h.by != HeldBy::Newest);
        all.sort_by_key(|h| h.id);
        all
    }
}

impl<'e> Making<'e> {
    /// The first byte of the space in its file, and how many there are.
    pub(crate) fn span(&self) -> (u64, u64) {
        (self.engine.run_at(self.run), self.blocks * BLOCK)
    }

    pub(crate) fn file(&self) -> &'e MappedFile {
        let engine: &'e Engine = self.engine;
        &engine.files[self.side.index()]
    }

    pub(crate) fn number(&self) -> usize {
        self.engine.number(self.side, self.index)
    }

    /// Makes the space at least `need` bytes long where it lies. `Ok(false)`: it cannot be here.
    pub(crate) fn extend(&mut self, need: u64) -> Result<bool, SaveError> {
        let blocks = blocks_for(need);
        let mut state = self.engine.lock();
        // Twice as much at a time, so that a state of unknown size asks rarely.
        for want in [blocks.max(self.blocks * 2), blocks] {
            if state.spaces[self.side.index()].extents.extend(self.run, want) {
                self.blocks = want;
                return Ok(true);
            }
        }
        if !state.spaces[self.side.index()].extents.is_last(self.run) {
            return Ok(false);
        }
        let file = self.file();
        let end = self.engine.run_at(self.run + blocks);
        if end > file.max() {
            return Ok(false);
        }
        let to = (file.len() * 2).clamp(end, file.max());
        let grown = MutexGuard::unlocked(&mut state, || file.grow(to).or_else(|_| file.grow(end)));
        let area = (file.len() - self.engine.data_at()) / BLOCK;
        let extents = &mut state.spaces[self.side.index()].extents;
        extents.grow(area);
        if grown.is_ok() && extents.extend(self.run, blocks) {
            self.blocks = blocks;
            return Ok(true);
        }
        Ok(false)
    }

    /// Ends the making without a snapshot, and keeps the lasting memory.
    pub(crate) fn abandon(self, scratch: Scratch) {
        self.engine.lock().scratch.push(scratch);
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if self.sealed {
            return;
        }
        // P5: what was taken is free again; nothing else has changed.
        let mut state = self.engine.lock();
        let n = self.number();
        state.making -= 1;
        state.places[n].state = Use::Free;
        let space = &mut state.spaces[self.side.index()];
        space.extents.release(self.run);
        for run in self.pages.iter().flat_map(|table| &table.runs) {
            space.extents.release(run.start);
        }
        space.free.push(self.index);
        self.engine.settled.notify_all();
    }
}

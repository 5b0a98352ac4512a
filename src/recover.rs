#![forbid(unsafe_code)]
//! What two files hold: which slot pages are sealed, whose extents are theirs, what can be believed,
//! and where ids go on. Reads alone: nothing is written here, so doing it again finds the same, and
//! a crash in the middle of it changes nothing.
//!
//! Knows records and bytes. Making, mending and naming files is for `open.rs`.

use std::{ops::Range, sync::atomic::Ordering};

use crate::{
    engine::{CheckFn, FLOOR_STEP, Place, Trust, Use},
    extents::Extents,
    file::{BLOCK, MappedFile},
    header::{Floor, HINT_AT, SLOTS_AT, Side, Uuid, data_at, slot_pages},
    history::{Recovery, RejectedSlot},
    id::SnapshotId,
    lease::Taken,
    looks::Looks,
    mutants::Mutant,
    record::{
        DurableNote, Extent, LABEL_AT, LABEL_LEN, NOTE_AT, NOTE_LEN, RECORD_LEN, Record, SLOT_LEN,
        decode_label, had_left, has_left, is_label_of, seal_of,
    },
    ring::{MAX_ID, Word},
    runs::{MAX_TABLE, Table},
    schema::Layout,
    session::MAX_ARCHIVE,
};

/// What is known before the first slot page is read.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    /// The files that are there, by side.
    pub(crate) files: [Option<&'a MappedFile>; 2],
    pub(crate) file_ids: [Uuid; 2],
    pub(crate) ring: u32,
    pub(crate) boot: Uuid,
    /// The id floors that can be read and are this ring's.
    pub(crate) floors: &'a [Floor],
    pub(crate) layout: &'a Layout,
    pub(crate) check: CheckFn,
    pub(crate) max_depth: u32,
}

/// What was found.
pub(crate) struct Survey {
    pub(crate) extents: [Extents; 2],
    /// Each side's own layout text.
    pub(crate) schemas: [Option<Extent>; 2],
    /// Valid snapshots with their place numbers, newest first; one may be retained unlisted.
    pub(crate) snapshots: Vec<(u16, Place)>,
    /// Second records of some of these, retained with them until one is known to be on the disk:
    /// the place chosen, the other one and what it holds.
    pub(crate) twins: Vec<(u16, u16, Place)>,
    /// Sealed places that nothing retains: their seals are to be broken.
    pub(crate) surplus: Vec<u16>,
    /// Sealed places that hold nothing whole: their seals are to be broken, on the disk as well,
    /// lest a later opening, which need not check them, lists them or takes blocks for theirs.
    pub(crate) hopeless: Vec<u16>,
    /// The newest on the disk, which is not listed: the note that says so is yet to be written.
    pub(crate) leaving: Option<(u16, u64)>,
    /// It had left the ring and is the newest again, power having been lost: its note is to go.
    pub(crate) relisted: Option<u16>,
    pub(crate) next_id: u64,
    /// The newest was written before this boot.
    after_boot: bool,
    pub(crate) recovery: Recovery,
}

/// What a slot page holds, once it has passed.
pub(crate) struct Slot {
    number: u16,
    pub(crate) side: Side,
    pub(crate) record: Record,
    pub(crate) place: Place,
    /// Its run counts it among its users.
    claimed: bool,
    /// It is on the disk if it is whole: of an earlier boot, and nobody has noted it.
    doubtful: bool,
    /// It has a note that it had left the ring, which has been lifted.
    had_left: bool,
}

/// Looks at everything; changes nothing.
pub(crate) fn survey(ground: &Ground<'_>) -> Survey {
    let first_data = data_at(ground.ring);
    let mut found = Survey {
        extents: ground.files.map(|file| {
            Extents::new(file.map_or(0, |f| f.len().saturating_sub(first_data) / BLOCK))
        }),
        schemas: [None, None],
        snapshots: Vec::new(),
        twins: Vec::new(),
        surplus: Vec::new(),
        hopeless: Vec::new(),
        leaving: None,
        relisted: None,
        next_id: 1,
        after_boot: false,
        recovery: Recovery::default(),
    };
    // Ids that may have been given out, as far as what names them can be believed.
    let hint = ground.files[0].map(|a| a.word64(HINT_AT).load(Ordering::Acquire));
    let mut doubtful = vec![hint.map_or(0, |bits| Word::from_bits(bits).id())];
    let mut highest = 0;
    let slots = found.read_slots(ground, &mut doubtful);
    let mut looks = Looks::default();
    highest = highest.max(slots.first().map_or(0, |slot| slot.record.id));
    let mut slots = slots.into_iter().peekable();
    while let Some(slot) = slots.next() {
        let mut twins = vec![slot];
        while let Some(twin) = slots.next_if(|next| twins[0].record.is_twin_of(&next.record)) {
            twins.push(twin);
        }
        found.admit_one_of(ground, twins, &mut looks);
    }
    found.next_id = found.next_id(ground, highest, &doubtful);
    found.choose_listed(ground);
    found.part_twins(ground);
    found
}

impl Survey {
    /// All sealed slot pages that are what they say, newest first; the others are rejected.
    fn read_slots(&mut self, ground: &Ground<'_>, doubtful: &mut Vec<u64>) -> Vec<Slot> {
        let mut slots = Vec::new();
        for side in Side::BOTH {
            let Some(file) = ground.files[side.index()] else { continue };
            for index in 0..slot_pages(ground.ring) as u16 {
                match read_slot(ground, file, side, index) {
                    Ok(None) => {}
                    Ok(Some(slot)) => slots.push(slot),
                    Err((id, reason)) => {
                        doubtful.extend(id);
                        let id = id.map(SnapshotId::new);
                        self.recovery.rejected.push(RejectedSlot {
                            side,
                            place: index,
                            id,
                            reason,
                        });
                    }
                }
            }
        }
        // Of twins the one known to be on the disk first.
        slots.sort_by_key(|slot| (std::cmp::Reverse(slot.record.id), !slot.place.durable));
        slots
    }

    /// Takes in one of the records of a snapshot: the first that passes. The others, sealed while it
    /// was relocated, go without a word; if none passes, all are rejected.
    fn admit_one_of(&mut self, ground: &Ground<'_>, twins: Vec<Slot>, looks: &mut Looks) {
        let several = twins.len() > 1;
        let mut taken = None;
        let mut refused = Vec::new();
        for mut slot in twins {
            if let Some(taken) = taken {
                let extents = &mut self.extents[slot.side.index()];
                let Some(file) = ground.files[slot.side.index()] else { continue };
                if claim(extents, file, &mut slot, data_at(ground.ring)).is_err() {
                    release(extents, &slot);
                    self.surplus.push(slot.number);
                } else {
                    self.twins.push((taken, slot.number, slot.place));
                }
                continue;
            }
            let number = slot.number;
            match self.admit(ground, slot, several, looks) {
                Ok(()) => taken = Some(number),
                Err(rejected) => refused.push((number, rejected)),
            }
        }
        match taken {
            Some(_) => self.surplus.extend(refused.into_iter().map(|(number, _)| number)),
            None => self.recovery.rejected.extend(refused.into_iter().map(|(_, slot)| slot)),
        }
    }

    /// Takes a slot in, or says why not; newer ones have been taken in. `wholly`: its bytes are
    /// checked, too, as the newest one's are anyway.
    fn admit(
        &mut self,
        ground: &Ground<'_>,
        mut slot: Slot,
        wholly: bool,
        looks: &mut Looks,
    ) -> Result<(), RejectedSlot> {
        let (side, place) = (slot.side, slot.record.index);
        let id = SnapshotId::new(slot.record.id);
        let reject = |reason| Err(RejectedSlot { side, place, id: Some(id), reason });
        let Some(file) = ground.files[side.index()] else {
            return reject("its file is gone".to_owned());
        };
        let extents = &mut self.extents[side.index()];
        let wholly = wholly || slot.doubtful || self.snapshots.is_empty();
        let passed = if self.snapshots.iter().any(|(_, p)| p.id == slot.record.id) {
            Err("another place holds the same id".to_owned())
        } else {
            claim(extents, file, &mut slot, data_at(ground.ring))
                .and_then(|()| looks.look(ground, file, &mut slot, wholly))
        };
        if let Err(reason) = passed {
            release(extents, &slot);
            // Where the text of another layout is what is wrong, programs of that layout may still
            // be able to read it.
            let foreign = slot.record.layout != ground.layout.fingerprint;
            let in_place = foreign && slot.place.schema_run.is_some();
            if !in_place || looks.has_text(ground, file, &slot) {
                self.hopeless.push(slot.number);
            }
            return reject(reason);
        }
        slot.place.durable |= slot.doubtful;
        match &slot.place.trust {
            Trust::Checked => {
                self.recovery.verified_bytes += slot.place.root.len;
                self.recovery.chosen.get_or_insert(id);
            }
            Trust::Foreign(difference) => {
                self.recovery.other_layout.push((id, difference.to_string()));
                self.recovery.chosen.get_or_insert(id);
            }
            _ => self.recovery.unverified.push(id),
        }
        let schema = &mut self.schemas[slot.side.index()];
        if slot.record.layout == ground.layout.fingerprint
            && schema.is_none()
            && slot.record.schema.len > 0
            && slot.place.schema_run.is_some()
        {
            // The side's own from now on: never released.
            *schema = Some(slot.record.schema);
            slot.place.schema_run = None;
        }
        if self.snapshots.is_empty() {
            self.after_boot = slot.record.boot != ground.boot;
            // An opening that did not come to its end may have lifted its note in memory alone.
            self.relisted = slot.had_left.then_some(slot.number);
        }
        self.snapshots.push((slot.number, slot.place));
        Ok(())
    }

    /// Lets go of second records, but for those that may be the only ones on the disk (P4): where
    /// nothing is known to be there.
    fn part_twins(&mut self, ground: &Ground<'_>) {
        let known = self.snapshots.iter().any(|(_, place)| place.durable);
        for (taken, number, place) in std::mem::take(&mut self.twins) {
            let listed = self.snapshots.iter().any(|(n, place)| *n == taken && place.listed);
            if listed && !known {
                self.twins.push((taken, number, place));
                continue;
            }
            let extents = &mut self.extents[usize::from(number) / slot_pages(ground.ring) as usize];
            release_place(extents, &place);
            self.surplus.push(number);
        }
    }

    /// Where ids go on; `highest` is the highest in a record that could be read.
    fn next_id(&mut self, ground: &Ground<'_>, highest: u64, doubtful: &[u64]) -> u64 {
        let floors = ground.floors;
        let floor = floors.iter().map(|f| f.floor).max().unwrap_or(0);
        let clean = floors.iter().map(|f| f.next).max().unwrap_or(0);
        let agreed = ground.files.iter().all(Option::is_some)
            && floors.len() == 3
            && floors.iter().all(|f| f.floor == floor && f.next == clean);
        self.recovery.clean = agreed && clean > 0;
        let known_boot = ground.boot != Uuid([0; 16]);
        let same_boot = agreed
            && known_boot
            && floors.iter().all(|f| f.boot == ground.boot)
            && self.recovery.rejected.is_empty();
        let believable = floor.max(highest + FLOOR_STEP);
        let doubtful = doubtful.iter().copied().filter(|id| *id < believable).max();
        let highest = highest.max(doubtful.unwrap_or(0));
        let next_id = if self.recovery.clean {
            clean.max(highest + 1)
        } else if same_boot {
            // Every id that was given out since the floor was written still has its record, in the
            // page cache at least: the newest is always retained. Those before it were lower than
            // what it was raised from: the power may have gone and taken their records.
            (highest + 1).max(floor.saturating_sub(FLOOR_STEP))
        } else {
            floor.max(highest + 1)
        };
        next_id.clamp(1, MAX_ID)
    }

    /// Lists what the ring has room for. After a kill, what is unlisted at once is not worth listing: the ring is
    /// full of newer ones. But the newest on the disk stays, unlisted (P4).
    fn choose_listed(&mut self, ground: &Ground<'_>) {
        // One that had left the ring is the newest again where power was lost: then it is listed.
        if let Some((number, newest)) = self.snapshots.first_mut()
            && newest.left
        {
            newest.left = false;
            self.relisted = Some(*number);
        }
        let steady = self.snapshots.iter().position(|(_, place)| place.durable);
        // Where power was lost, some that had left may be back, and in whose place they would be
        // cannot be told: all are listed, until the next snapshot is (P4).
        let ring = if self.after_boot { usize::MAX } else { ground.ring as usize };
        for at in not_to_list(&self.snapshots, ring).into_iter().rev() {
            let place = &mut self.snapshots[at].1;
            self.recovery.unverified.retain(|id| id.get() != place.id);
            self.recovery.other_layout.retain(|(id, _)| id.get() != place.id);
            if steady == Some(at) {
                place.listed = false;
                if !place.left {
                    self.leaving = Some((self.snapshots[at].0, self.snapshots[at].1.id));
                }
                continue;
            }
            let (number, place) = self.snapshots.remove(at);
            let extents = &mut self.extents[usize::from(number) / slot_pages(ground.ring) as usize];
            release_place(extents, &place);
            self.surplus.push(number);
        }
    }
}

/// What readers of the caretaker before still lease, of places whose seals are broken: it stays as it
/// is, listed nowhere (L2). Claims its extents in `extents`.
pub(crate) fn tenants(
    ground: &Ground<'_>,
    taken: &Taken,
    known: &[u16],
    extents: &mut [Extents; 2],
) -> Vec<(u16, Place)> {
    let mut tenants = Vec::new();
    for number in 0..2 * slot_pages(ground.ring) as u16 {
        if known.contains(&number) || !taken.contains(usize::from(number)) {
            continue;
        }
        let Some(mut slot) = read_leased(ground, number) else { continue };
        let extents = &mut extents[slot.side.index()];
        let Some(file) = ground.files[slot.side.index()] else { continue };
        match claim(extents, file, &mut slot, data_at(ground.ring)) {
            Ok(()) => tenants.push((number, slot.place)),
            // Its reader has not believed it: what is believed is not written over.
            Err(_) => release(extents, &slot),
        }
    }
    tenants
}

/// Reads a slot page that a reader leases and whose seal is broken: the rest of the record is as it
/// was when the reader believed it. `None` if it is nothing that anybody can have believed.
fn read_leased(ground: &Ground<'_>, number: u16) -> Option<Slot> {
    let slots = slot_pages(ground.ring) as u16;
    let (side, index) = (Side::BOTH[usize::from(number / slots)], number % slots);
    let file = ground.files[side.index()]?;
    let mut bytes: [u8; RECORD_LEN] = file.read(SLOTS_AT + u64::from(index) * SLOT_LEN);
    crate::header::seal(&mut bytes);
    let record = Record::decode(&bytes).ok().flatten()?;
    let fits = record.file_id == ground.file_ids[side.index()]
        && (record.side, record.index) == (side, index)
        && (1..MAX_ID).contains(&record.id);
    let place = Place {
        state: Use::Sealed,
        id: record.id,
        root: record.root,
        trust: Trust::Rejected("it has left the ring".into()),
        leased_at: Some(crate::clock::steady_millis()),
        ..Place::free()
    };
    fits.then_some(Slot {
        number,
        side,
        record,
        place,
        claimed: false,
        doubtful: false,
        had_left: false,
    })
}

/// Reads one slot page. `Ok(None)`: nothing is sealed there, as it should be.
fn read_slot(
    ground: &Ground<'_>,
    file: &MappedFile,
    side: Side,
    index: u16,
) -> Result<Option<Slot>, (Option<u64>, String)> {
    let at = SLOTS_AT + u64::from(index) * SLOT_LEN;
    let bytes: [u8; RECORD_LEN] = file.read(at);
    if seal_of(&bytes) == 0 {
        // Free, or in the making when the process ended.
        return Ok(None);
    }
    let record = match Record::decode(&bytes) {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(None),
        Err(reason) => return Err((None, reason)),
    };
    let id = Some(record.id);
    let refuse = |reason: String| Err((id, reason));
    if record.file_id != ground.file_ids[side.index()] {
        return refuse(format!("it was written for another file ({})", record.file_id));
    }
    if record.side != side || record.index != index {
        return refuse(format!(
            "it was written for {} place {}",
            record.side.file_name(),
            record.index
        ));
    }
    if record.id == 0 || record.id >= MAX_ID {
        return refuse(format!("{} is no id", record.id));
    }
    let note: [u8; NOTE_LEN] = file.read(at + NOTE_AT);
    let seal = seal_of(&bytes);
    // In the boot that wrote it only the note tells, since memory may hold what a failed sync has
    // lost. After a boot all of it was read from the disk: it is there if it is whole.
    let earlier = record.boot != ground.boot;
    let noted = DurableNote::decode(&note).is_some_and(|n| {
        n.id == record.id && n.record_seal == seal && (earlier || n.boot == ground.boot)
    });
    let durable = noted || Mutant::NoDurableNote.is_on();
    let label: [u8; LABEL_LEN] = file.read(at + LABEL_AT);
    let number = side.index() as u16 * slot_pages(ground.ring) as u16 + index;
    let place = Place {
        durable,
        redirty: !durable && !earlier,
        label: decode_label(&label, record.id).map(Into::into),
        left: has_left(&label, record.id),
        // A note, or what is left of one, that may not have reached the disk.
        label_dirty: is_label_of(&label, record.id),
        ..Place::found(&record, seal)
    };
    let doubtful = earlier && !durable;
    let had_left = had_left(&label, record.id);
    Ok(Some(Slot { number, side, record, place, claimed: false, doubtful, had_left }))
}

/// The blocks under an extent, if it lies and is aligned as extents do.
pub(crate) fn blocks_of(extent: Extent, first_data: u64) -> Result<std::ops::Range<u64>, String> {
    let Extent { offset, len, .. } = extent;
    let bad = || format!("{len} bytes at {offset} are no extent");
    if len == 0 || offset < first_data || !(offset - first_data).is_multiple_of(BLOCK) {
        return Err(bad());
    }
    let end = offset.checked_add(len).ok_or_else(bad)?;
    Ok((offset - first_data) / BLOCK..(end - first_data).div_ceil(BLOCK))
}

/// Claims a record's extents; newer records have claimed theirs.
fn claim(
    extents: &mut Extents,
    file: &MappedFile,
    slot: &mut Slot,
    first_data: u64,
) -> Result<(), String> {
    let root = slot.record.root;
    if root.len > MAX_ARCHIVE {
        return Err(format!("an archive of {} bytes", root.len));
    }
    // A state without bytes still has a block.
    let root = Extent { len: root.len.max(1), ..root };
    let blocks = blocks_of(root, first_data)?;
    let run = blocks.start;
    if !extents.claim(blocks) {
        return Err(format!(
            "its {} bytes at {} lie outside the file or over a newer snapshot's",
            root.len, root.offset
        ));
    }
    slot.place.run = run;
    slot.claimed = true;
    let schema = slot.record.schema;
    if schema.len > 0 {
        let blocks = blocks_of(schema, first_data)?;
        let run = blocks.start;
        if !extents.claim(blocks) {
            return Err(format!(
                "its layout text ({} bytes at {}) lies outside the file or over a newer snapshot",
                schema.len, schema.offset
            ));
        }
        slot.place.schema_run = Some(run);
    }
    if slot.record.table.len > 0 {
        let mut table = read_table(file, slot, first_data)?;
        for i in 0..table.runs.len() {
            let run = table.runs[i];
            if !extents.claim(run.start..run.start + run.blocks) {
                // Those before it are given back with the rest.
                table.runs.truncate(i);
                slot.place.table = Some(table.into());
                return Err(format!(
                    "pages in {} blocks from block {} on lie outside the file or over a newer \
                     snapshot's",
                    run.blocks, run.start
                ));
            }
        }
        slot.place.table = Some(table.into());
    }
    Ok(())
}

/// The table of a record with pages, if it is one.
fn read_table(file: &MappedFile, slot: &Slot, first_data: u64) -> Result<Table, String> {
    let (at, archive) = (slot.record.table, slot.record.root.len);
    let end = at.offset.checked_add(at.len);
    if at.offset < first_data || at.len > MAX_TABLE || end.is_none_or(|end| end > file.len()) {
        return Err(format!("a table of pages ({} bytes at {})", at.len, at.offset));
    }
    file.check_extent(at)?;
    let table = Table::decode(file.retained(at), at, archive, first_data)?;
    // It is kept as long as they are.
    let inside = |span: &Range<u64>| span.start <= at.offset && at.offset + at.len <= span.end;
    if !table.spans(first_data).iter().any(inside) {
        return Err(format!("a table of pages at {} in no run of its own", at.offset));
    }
    Ok(table)
}

/// Gives back what a place had claimed.
fn release_place(extents: &mut Extents, place: &Place) {
    let pages = place.table.iter().flat_map(|table| &table.runs);
    for run in pages.map(|run| run.start).chain(place.schema_run).chain([place.run]) {
        extents.release(run);
    }
}

/// Gives back what a rejected slot had claimed.
fn release(extents: &mut Extents, slot: &Slot) {
    if slot.claimed {
        extents.release(slot.place.run);
    }
    let pages = slot.place.table.iter().flat_map(|table| &table.runs);
    for run in pages.map(|run| run.start).chain(slot.place.schema_run) {
        extents.release(run);
    }
}

/// Which of the snapshots (newest first) are not to be listed: those that had left the ring, and
/// of the others the oldest unlabelled but for the newest, as far as they are more than a ring holds.
fn not_to_list(snapshots: &[(u16, Place)], ring: usize) -> Vec<usize> {
    let left = |i: &usize| snapshots[*i].1.left;
    let mut picked: Vec<usize> = (0..snapshots.len()).filter(left).collect();
    let excess = (snapshots.len() - picked.len()).saturating_sub(ring);
    let oldest_first = (1..snapshots.len()).rev().filter(|i| !left(i));
    picked.extend(oldest_first.filter(|i| snapshots[*i].1.label.is_none()).take(excess));
    picked.sort_unstable();
    picked
}

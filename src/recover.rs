#![forbid(unsafe_code)]
//! What two files hold: which slot pages are sealed, whose extents are theirs, what can be believed,
//! and where ids go on. Reads alone: nothing is written here, so doing it again finds the same, and
//! a crash in the middle of it changes nothing.
//!
//! Knows records and bytes. Making, mending and naming files is for `open.rs`.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    engine::{CheckFn, FLOOR_STEP, Place, Trust, Use},
    extents::Extents,
    file::{BLOCK, MappedFile},
    header::{Floor, HINT_AT, SLOTS_AT, Side, Uuid, data_at, slot_pages},
    history::{Recovery, RejectedSlot},
    id::SnapshotId,
    mutants::Mutant,
    record::{
        DurableNote, Extent, LABEL_AT, LABEL_LEN, NOTE_AT, NOTE_LEN, RECORD_LEN, Record, SLOT_LEN,
        decode_label, has_left, seal_of,
    },
    ring::{MAX_ID, Word},
    schema::{Layout, first_difference},
    session::MAX_ARCHIVE,
    verify::check_place,
};

/// The longest layout text that is read from a file.
const MAX_SCHEMA: u64 = 16 << 20;

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
    /// Sealed places that nothing retains: their seals are to be broken.
    pub(crate) surplus: Vec<u16>,
    /// It had left the ring and is the newest again, power having been lost: its note is to go.
    pub(crate) relisted: Option<u16>,
    pub(crate) next_id: u64,
    pub(crate) recovery: Recovery,
}

/// What a slot page holds, once it has passed.
struct Slot {
    number: u16,
    side: Side,
    record: Record,
    place: Place,
    /// Its run counts it among its users.
    claimed: bool,
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
        surplus: Vec::new(),
        relisted: None,
        next_id: 1,
        recovery: Recovery::default(),
    };
    // Ids that may have been given out, as far as what names them can be believed.
    let hint = ground.files[0].map(|a| a.word64(HINT_AT).load(Ordering::Acquire));
    let mut doubtful = vec![hint.map_or(0, |bits| Word::from_bits(bits).id())];
    let mut highest = 0;
    let slots = found.read_slots(ground, &mut doubtful);
    let mut looks = Looks::default();
    for slot in slots {
        highest = highest.max(slot.record.id);
        found.admit(ground, slot, &mut looks);
    }
    found.next_id = found.next_id(ground, highest, &doubtful);
    found.choose_listed(ground);
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
        slots.sort_by_key(|slot| std::cmp::Reverse(slot.record.id));
        slots
    }

    /// Takes a slot in, or rejects it; newer ones have been taken in.
    fn admit(&mut self, ground: &Ground<'_>, mut slot: Slot, looks: &mut Looks) {
        let Some(file) = ground.files[slot.side.index()] else { return };
        let extents = &mut self.extents[slot.side.index()];
        let passed = if self.snapshots.iter().any(|(_, p)| p.id == slot.record.id) {
            Err("another place holds the same id".to_owned())
        } else {
            claim(extents, &mut slot, data_at(ground.ring))
                .and_then(|()| looks.look(ground, file, &mut slot, self.snapshots.is_empty()))
        };
        let id = SnapshotId::new(slot.record.id);
        if let Err(reason) = passed {
            release(extents, &slot);
            let (side, place) = (slot.side, slot.record.index);
            self.recovery.rejected.push(RejectedSlot { side, place, id: Some(id), reason });
            return;
        }
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
        self.snapshots.push((slot.number, slot.place));
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
            // Every id that was given out still has its record, in the page cache at least: the
            // newest is always retained.
            highest + 1
        } else {
            floor.max(highest + 1)
        };
        next_id.clamp(1, MAX_ID)
    }

    /// Lists what the ring has room for. What is unlisted at once is not worth listing: the ring is
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
        for at in not_to_list(&self.snapshots, ground.ring as usize).into_iter().rev() {
            let place = &mut self.snapshots[at].1;
            self.recovery.unverified.retain(|id| id.get() != place.id);
            self.recovery.other_layout.retain(|(id, _)| id.get() != place.id);
            if steady == Some(at) {
                place.listed = false;
                continue;
            }
            let (number, place) = self.snapshots.remove(at);
            let extents = &mut self.extents[usize::from(number) / slot_pages(ground.ring) as usize];
            extents.release(place.run);
            if let Some(run) = place.schema_run {
                extents.release(run);
            }
            self.surplus.push(number);
        }
    }
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
    let noted = DurableNote::decode(&note)
        .is_some_and(|n| n.id == record.id && n.record_seal == seal && n.boot == ground.boot);
    // Read from the disk after a boot, it is on the disk. In the boot that wrote it only the note
    // tells, since memory may hold what a failed sync has lost.
    let durable = noted || record.boot != ground.boot || Mutant::NoDurableNote.is_on();
    let label: [u8; LABEL_LEN] = file.read(at + LABEL_AT);
    let number = side.index() as u16 * slot_pages(ground.ring) as u16 + index;
    let place = Place {
        id: record.id,
        kind: record.kind,
        parent: record.parent,
        target: record.target,
        created: record.created,
        logical: record.logical,
        type_version: record.type_version,
        depth: record.depth,
        root: record.root,
        root_pos: record.root_pos,
        written: record.written,
        seal,
        durable,
        redirty: !durable,
        label: decode_label(&label, record.id).map(Into::into),
        left: has_left(&label, record.id),
        trust: Trust::Unverified,
        state: Use::Sealed,
        listed: true,
        found: true,
        ..Place::free()
    };
    Ok(Some(Slot { number, side, record, place, claimed: false }))
}

/// The blocks under an extent, if it lies and is aligned as extents do.
fn blocks_of(extent: Extent, first_data: u64) -> Result<std::ops::Range<u64>, String> {
    let Extent { offset, len, .. } = extent;
    let bad = || format!("{len} bytes at {offset} are no extent");
    if len == 0 || offset < first_data || !(offset - first_data).is_multiple_of(BLOCK) {
        return Err(bad());
    }
    let end = offset.checked_add(len).ok_or_else(bad)?;
    Ok((offset - first_data) / BLOCK..(end - first_data).div_ceil(BLOCK))
}

/// Claims a record's extents; newer records have claimed theirs.
fn claim(extents: &mut Extents, slot: &mut Slot, first_data: u64) -> Result<(), String> {
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
    Ok(())
}

/// Gives back what a rejected slot had claimed.
fn release(extents: &mut Extents, slot: &Slot) {
    if slot.claimed {
        extents.release(slot.place.run);
    }
    if let Some(run) = slot.place.schema_run {
        extents.release(run);
    }
}

/// What has been looked at. Records that share bytes, as rollbacks do, have them looked at once; and
/// where records that were rejected overlap, as no honest ones do, that comes to an end: else a
/// thousand of them could have a whole file summed up a thousand times.
#[derive(Default)]
struct Looks {
    /// Bytes looked at, by side.
    bytes: [u64; 2],
    /// Archives that did not pass, with all that the check depends on.
    failed: HashMap<(Side, Extent, bool, u32, u32), String>,
    /// What is different in other layouts, by their texts.
    texts: HashMap<(Side, Extent), Result<Arc<str>, String>>,
}

impl Looks {
    /// Charges for a look at `extent`, if there have not been too many.
    fn charge(&mut self, file: &MappedFile, side: Side, extent: Extent) -> Result<(), String> {
        let bytes = &mut self.bytes[side.index()];
        *bytes = bytes.saturating_add(extent.len);
        if *bytes > 2 * file.len() {
            return Err("it overlaps others that were rejected, and they are too many".to_owned());
        }
        Ok(())
    }

    /// The difference between the program's layout and the one whose text is there.
    fn difference(
        &mut self,
        ground: &Ground<'_>,
        file: &MappedFile,
        side: Side,
        schema: Extent,
    ) -> Result<Arc<str>, String> {
        if let Some(known) = self.texts.get(&(side, schema)) {
            return known.clone();
        }
        let told = self.charge(file, side, schema).and_then(|()| {
            let text = layout_text(file, schema)?;
            Ok(clip(&first_difference(&text, &ground.layout.text)).into())
        });
        self.texts.insert((side, schema), told.clone());
        told
    }

    /// Whether a place's bytes are what they should be: their checksum, and what `check` says.
    fn passes(
        &mut self,
        file: &MappedFile,
        slot: &Slot,
        check: Option<CheckFn>,
    ) -> Result<(), String> {
        let Slot { side, place, .. } = slot;
        let look = (*side, place.root, check.is_some(), place.root_pos, place.depth);
        if let Some(why) = self.failed.get(&look) {
            return Err(why.clone());
        }
        let passed = self.charge(file, *side, place.root).and_then(|()| match check {
            Some(check) => check_place(file, place, check).map(drop),
            None => file.check_extent(place.root),
        });
        if let Err(why) = &passed {
            self.failed.insert(look, why.clone());
        }
        passed
    }

    /// Decides how far a slot is trusted; checks its bytes if it would be the newest.
    fn look(
        &mut self,
        ground: &Ground<'_>,
        file: &MappedFile,
        slot: &mut Slot,
        newest: bool,
    ) -> Result<(), String> {
        let Ground { layout, check, max_depth, .. } = *ground;
        if slot.record.layout != layout.fingerprint {
            let difference = self.difference(ground, file, slot.side, slot.record.schema)?;
            if newest {
                self.passes(file, slot, None)?;
            }
            slot.place.trust = Trust::Foreign(difference);
            return Ok(());
        }
        let depth = slot.record.depth;
        if depth > max_depth {
            // Whole, perhaps, for those who allow as much.
            let reason = format!("{depth} pointers deep, and `Options::max_depth` is {max_depth}");
            slot.place.trust = Trust::Foreign(reason.into());
            return Ok(());
        }
        if newest {
            self.passes(file, slot, Some(check))?;
            slot.place.trust = Trust::Checked;
        }
        Ok(())
    }
}

/// The start of what a file says, fit for a log.
fn clip(text: &str) -> String {
    const MOST: usize = 400;
    let clean = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut clipped: String = text.chars().take(MOST).map(clean).collect();
    if text.chars().nth(MOST).is_some() {
        clipped.push_str("...");
    }
    clipped
}

/// The layout text that a record points at.
fn layout_text(file: &MappedFile, schema: Extent) -> Result<String, String> {
    if schema.len == 0 || schema.len > MAX_SCHEMA {
        return Err(format!("of another layout, whose text ({} bytes) cannot be read", schema.len));
    }
    file.check_extent(schema)
        .map_err(|e| format!("of another layout, whose text is damaged: {e}"))?;
    Ok(String::from_utf8_lossy(file.retained(schema)).into_owned())
}

/// Which of the snapshots (newest first) are not to be listed: those that had left the ring, and
/// of the others the oldest unlabelled, as far as they are more than a ring holds.
fn not_to_list(snapshots: &[(u16, Place)], ring: usize) -> Vec<usize> {
    let left = |i: &usize| snapshots[*i].1.left;
    let mut picked: Vec<usize> = (0..snapshots.len()).filter(left).collect();
    let excess = (snapshots.len() - picked.len()).saturating_sub(ring);
    let oldest_first = (0..snapshots.len()).rev().filter(|i| !left(i));
    picked.extend(oldest_first.filter(|i| snapshots[*i].1.label.is_none()).take(excess));
    picked.sort_unstable();
    picked
}

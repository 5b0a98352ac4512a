#![forbid(unsafe_code)]
//! Opening: finds or makes the two files, believes what can be believed, and says what could not.
//!
//! Nothing is written before the newest whole snapshot has been found; doing it again finds the
//! same.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    directory::{Directory, io_error},
    engine::{CheckFn, Engine, FLOOR_STEP, Found, Place, Trust, Use},
    error::OpenError,
    extents::Extents,
    file::{BLOCK, MappedFile},
    header::{
        BadHeader, FLOOR_AT, FLOOR_LEN, Floor, HEADER_AT, HEADER_LEN, HINT_AT, Header, Side, Uuid,
        WAKE_AT, data_at, slot_pages,
    },
    history::{Recovery, RejectedSlot},
    id::SnapshotId,
    lease::Taken,
    options::Options,
    os,
    record::{
        DurableNote, Extent, LABEL_AT, LABEL_LEN, NOTE_AT, NOTE_LEN, RECORD_LEN, Record, SLOT_LEN,
        decode_label, has_left, seal_of,
    },
    ring::{MAX_ID, Word},
    schema::{Layout, first_difference},
    session::MAX_ARCHIVE,
    verify::check_place,
};

/// What a file takes from the start, unless told otherwise.
const FILE_SIZE: u64 = 64 << 20;
/// The same where space is memory.
const FILE_SIZE_IN_MEMORY: u64 = 1 << 20;
/// The longest layout text that is read from a file.
pub(crate) const MAX_SCHEMA: u64 = 16 << 20;

/// A file as it was found.
enum Opened {
    Missing,
    /// Neither header can be read.
    Damaged,
    Whole {
        file: File,
        header: Header,
        len: u64,
    },
}

/// Opens the ring in `path`, or makes it.
pub(crate) fn open(
    path: &Path,
    options: &Options,
    layout: Arc<Layout>,
    check: CheckFn,
) -> Result<Engine, OpenError> {
    options.check()?;
    // From here on a forked child knows that it is one.
    os::forked();
    let directory = Directory::open(path, options)?;
    let mut recovery = Recovery::default();
    let mut opened = Vec::new();
    for side in Side::BOTH {
        opened.push(open_side(&directory, side)?);
    }
    let headers: Vec<Header> = opened
        .iter()
        .filter_map(|o| match o {
            Opened::Whole { header, .. } => Some(*header),
            Opened::Missing | Opened::Damaged => None,
        })
        .collect();
    if let [a, b] = headers.as_slice()
        && (a.ring_id != b.ring_id || a.ring != b.ring)
    {
        return Err(OpenError::OtherRing {
            path: directory.path().join(Side::B.file_name()),
            found: b.ring_id.to_string(),
            expected: a.ring_id.to_string(),
        });
    }
    let mut options = options.clone();
    let ring_id = match headers.first() {
        Some(header) => {
            options.ring = header.ring;
            options.check()?;
            header.ring_id
        }
        None => Uuid(os::random_id().map_err(io_error(path, "draw a random name"))?),
    };
    let both_there = headers.len() == 2;
    let default = if directory.in_memory() { FILE_SIZE_IN_MEMORY } else { FILE_SIZE };
    let mut files = Vec::new();
    let mut file_ids = [Uuid([0; 16]); 2];
    for (side, opened) in Side::BOTH.into_iter().zip(opened) {
        let full = directory.path().join(side.file_name());
        let mapped = match opened {
            Opened::Whole { file, header, len } => {
                file_ids[side.index()] = header.file_id;
                if !(directory.in_memory() && os::has_all_pages(&file, len)) {
                    os::reserve(&file, 0, len).map_err(io_error(&full, "reserve the space of"))?;
                }
                MappedFile::map(&full, file, len, options.max_file_size)
            }
            Opened::Missing | Opened::Damaged => {
                if matches!(opened, Opened::Damaged) {
                    recovery.set_aside.push(directory.set_aside(side.file_name())?);
                }
                let file = directory.create(side.file_name())?;
                recovery.created.push(full.clone());
                let size = options.file_size.unwrap_or(default);
                file_ids[side.index()] = write_new(&full, &file, side, ring_id, &options, size)?;
                file.sync_all().map_err(io_error(&full, "sync"))?;
                directory.put_in_place(side.file_name())?;
                MappedFile::map(&full, file, new_len(&options, size), options.max_file_size)
            }
        };
        files.push(
            mapped
                .map_err(io_error(&full, "map (is `max_file_size` of address space to be had?)"))?,
        );
    }
    let files = pair(files);
    let whole = both_there.then_some(());
    finish(files, file_ids, ring_id, options, Some(directory), recovery, layout, check, whole)
}

/// A ring without files.
pub(crate) fn in_memory(
    options: &Options,
    layout: Arc<Layout>,
    check: CheckFn,
) -> Result<Engine, OpenError> {
    options.check()?;
    let name = Path::new("memory");
    let ring_id = Uuid(os::random_id().map_err(io_error(name, "draw a random name"))?);
    let size = options.file_size.unwrap_or(FILE_SIZE_IN_MEMORY);
    let mut files = Vec::new();
    let mut file_ids = [Uuid([0; 16]); 2];
    for side in Side::BOTH {
        let file = os::memory_file(side.file_name()).map_err(io_error(name, "make"))?;
        file_ids[side.index()] = write_new(name, &file, side, ring_id, options, size)?;
        let mapped = MappedFile::map(name, file, new_len(options, size), options.max_file_size);
        files.push(mapped.map_err(io_error(name, "map"))?);
    }
    let recovery = Recovery::default();
    finish(pair(files), file_ids, ring_id, options.clone(), None, recovery, layout, check, None)
}

fn pair(files: Vec<MappedFile>) -> [MappedFile; 2] {
    match <[MappedFile; 2]>::try_from(files) {
        Ok(pair) => pair,
        Err(_) => unreachable!("one file was pushed for each of the two sides"),
    }
}

/// Opens one side's file and reads its header; repairs one copy by the other.
fn open_side(directory: &Directory, side: Side) -> Result<Opened, OpenError> {
    let name = side.file_name();
    let path = directory.path().join(name);
    let Some(file) = directory.file(name)? else { return Ok(Opened::Missing) };
    let len = file.metadata().map_err(io_error(&path, "look at"))?.len() / BLOCK * BLOCK;
    let copies = HEADER_AT.map(|at| {
        let mut bytes = [0; HEADER_LEN];
        file.read_exact_at(&mut bytes, at).map(|()| bytes).unwrap_or([0; HEADER_LEN])
    });
    let mut found = None;
    for bytes in &copies {
        match Header::decode(bytes) {
            Ok(header) => _ = found.get_or_insert((header, bytes)),
            // A whole header of somebody else's decides, whatever the other one says.
            Err(BadHeader::Newer(found)) => {
                return Err(OpenError::NewerFormat { path, found, known: crate::header::FORMAT });
            }
            Err(BadHeader::Foreign(difference)) => {
                return Err(OpenError::ForeignFormat { path, difference });
            }
            Err(BadHeader::Damaged(_)) => {}
        }
    }
    let Some((header, bytes)) = found else { return Ok(Opened::Damaged) };
    if header.side != side {
        let found = if header.side == Side::A { 'A' } else { 'B' };
        return Err(OpenError::Swapped { path, found });
    }
    if len < data_at(header.ring) + BLOCK {
        return Ok(Opened::Damaged);
    }
    for (at, copy) in HEADER_AT.into_iter().zip(&copies) {
        if copy != bytes {
            file.write_all_at(bytes, at).map_err(io_error(&path, "repair the header of"))?;
        }
    }
    Ok(Opened::Whole { file, header, len })
}

/// The reserved length of a new file.
fn new_len(options: &Options, size: u64) -> u64 {
    size.max(data_at(options.ring) + BLOCK)
        .next_multiple_of(BLOCK)
        .min(options.max_file_size / BLOCK * BLOCK)
}

/// Reserves a new file's space and writes its header, the magic last.
fn write_new(
    path: &Path,
    file: &File,
    side: Side,
    ring_id: Uuid,
    options: &Options,
    size: u64,
) -> Result<Uuid, OpenError> {
    let file_id = Uuid(os::random_id().map_err(io_error(path, "draw a random name"))?);
    os::reserve(file, 0, new_len(options, size)).map_err(io_error(path, "reserve the space of"))?;
    let header = Header { side, ring: options.ring, ring_id, file_id, created: os::wall_clock() };
    let bytes = header.encode();
    let write = |from: usize, to: usize, at: u64| {
        file.write_all_at(&bytes[from..to], at + from as u64).map_err(io_error(path, "write"))
    };
    write(0, HEADER_LEN, HEADER_AT[1])?;
    write(8, HEADER_LEN, HEADER_AT[0])?;
    write(0, 8, HEADER_AT[0])?;
    Ok(file_id)
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

#[allow(clippy::too_many_arguments)]
fn finish(
    files: [MappedFile; 2],
    file_ids: [Uuid; 2],
    ring_id: Uuid,
    options: Options,
    directory: Option<Directory>,
    mut recovery: Recovery,
    layout: Arc<Layout>,
    check: CheckFn,
    both_there: Option<()>,
) -> Result<Engine, OpenError> {
    let boot = Uuid(os::boot_id());
    let first_data = data_at(options.ring);
    let mut extents = [0, 1].map(|i: usize| Extents::new((files[i].len() - first_data) / BLOCK));
    let mut schemas: [Option<Extent>; 2] = [None, None];
    let mut damaged = false;
    let mut highest = 0;
    // Ids that may have been given out, as far as what names them can be believed.
    let mut doubtful = vec![Word::from_bits(files[0].word64(HINT_AT).load(Ordering::Acquire)).id()];

    let mut slots = Vec::new();
    for side in Side::BOTH {
        for index in 0..slot_pages(options.ring) as u16 {
            let slot = read_slot(&files[side.index()], side, index, &options, file_ids, boot);
            match slot {
                Ok(None) => {}
                Ok(Some(slot)) => slots.push(slot),
                Err((id, reason)) => {
                    damaged = true;
                    doubtful.extend(id);
                    let id = id.map(SnapshotId::new);
                    recovery.rejected.push(RejectedSlot { side, place: index, id, reason });
                }
            }
        }
    }
    slots.sort_by_key(|slot| std::cmp::Reverse(slot.record.id));

    let mut snapshots: Vec<(u16, Place)> = Vec::new();
    for mut slot in slots {
        highest = highest.max(slot.record.id);
        let file = &files[slot.side.index()];
        let passed = if snapshots.iter().any(|(_, p)| p.id == slot.record.id) {
            Err("another place holds the same id".to_owned())
        } else {
            claim(&mut extents[slot.side.index()], &mut slot, first_data).and_then(|()| {
                look(file, &mut slot, &layout, check, options.max_depth, snapshots.is_empty())
            })
        };
        match passed {
            Ok(()) => {
                match &slot.place.trust {
                    Trust::Checked => {
                        recovery.verified_bytes += slot.place.root.len;
                        recovery.chosen.get_or_insert(SnapshotId::new(slot.place.id));
                    }
                    Trust::Foreign(difference) => {
                        let id = SnapshotId::new(slot.place.id);
                        recovery.other_layout.push((id, difference.to_string()));
                        recovery.chosen.get_or_insert(id);
                    }
                    _ => recovery.unverified.push(SnapshotId::new(slot.place.id)),
                }
                if slot.record.layout == layout.fingerprint
                    && schemas[slot.side.index()].is_none()
                    && slot.record.schema.len > 0
                    && slot.place.schema_run.is_some()
                {
                    // The side's own from now on: never released.
                    schemas[slot.side.index()] = Some(slot.record.schema);
                    slot.place.schema_run = None;
                }
                snapshots.push((slot.number, slot.place));
            }
            Err(reason) => {
                damaged = true;
                release(&mut extents[slot.side.index()], &slot);
                recovery.rejected.push(RejectedSlot {
                    side: slot.side,
                    place: slot.record.index,
                    id: Some(SnapshotId::new(slot.record.id)),
                    reason,
                });
            }
        }
    }

    let floors = floors(&files, directory.as_ref(), ring_id);
    let floor = floors.iter().map(|f| f.floor).max().unwrap_or(0);
    let clean = floors.iter().map(|f| f.next).max().unwrap_or(0);
    let agreed = both_there.is_some()
        && floors.len() == 3
        && floors.iter().all(|f| f.floor == floor && f.next == clean);
    recovery.clean = agreed && clean > 0;
    let known_boot = boot != Uuid([0; 16]);
    let same_boot = agreed && known_boot && floors.iter().all(|f| f.boot == boot) && !damaged;
    let believable = floor.max(highest + FLOOR_STEP);
    let doubtful = doubtful.into_iter().filter(|id| *id < believable).max();
    highest = highest.max(doubtful.unwrap_or(0));
    let next_id = if recovery.clean {
        clean.max(highest + 1)
    } else if same_boot {
        // Every id that was given out still has its record, in the page cache at least: the newest
        // is always retained.
        highest + 1
    } else {
        floor.max(highest + 1)
    };
    let next_id = next_id.clamp(1, MAX_ID);

    // What is unlisted at once is not worth listing: the ring is full of newer ones. But the newest
    // on the disk stays, unlisted (P4).
    // One that had left the ring is the newest again where power was lost: then it is listed.
    if let Some((number, newest)) = snapshots.first_mut()
        && newest.left
    {
        newest.left = false;
        let slots = slot_pages(options.ring) as u16;
        let slot_at = BLOCK + u64::from(*number % slots) * SLOT_LEN;
        files[usize::from(*number / slots)].unseal(slot_at + LABEL_AT, LABEL_LEN as u64);
    }
    let steady = snapshots.iter().position(|(_, place)| place.durable);
    let leave = not_to_list(&snapshots, options.ring as usize);
    let leases = directory.as_ref().map(Directory::leases).transpose()?;
    for at in leave.iter().filter(|at| steady != Some(**at)) {
        let (file, slot_at) = slot_of(&files, &options, snapshots[*at].0);
        file.unseal(slot_at, RECORD_LEN as u64);
    }
    // What readers of the caretaker before still lease stays as it is, listed or not (L2).
    let mut leased = Vec::new();
    let taken = leases.as_ref().map(|l| l.taken(2 * slot_pages(options.ring) as usize));
    for at in leave.into_iter().rev() {
        let place = &mut snapshots[at].1;
        recovery.unverified.retain(|id| id.get() != place.id);
        recovery.other_layout.retain(|(id, _)| id.get() != place.id);
        if steady == Some(at) {
            place.listed = false;
            continue;
        }
        let (number, place) = snapshots.remove(at);
        if taken.as_ref().is_some_and(|t| t.contains(usize::from(number))) {
            leased.push((number, tenant(place)));
            continue;
        }
        let side = usize::from(number) / slot_pages(options.ring) as usize;
        extents[side].release(place.run);
        if let Some(run) = place.schema_run {
            extents[side].release(run);
        }
    }
    if let Some(taken) = taken.filter(Taken::any) {
        let known = |n: &u16| snapshots.iter().chain(&leased).any(|(number, _)| number == n);
        let places = 0..2 * slot_pages(options.ring) as u16;
        let unknown: Vec<u16> =
            places.filter(|n| taken.contains(usize::from(*n)) && !known(n)).collect();
        for number in unknown {
            let found = read_leased(&files, &options, number, file_ids);
            let Some(mut slot) = found else { continue };
            let extents = &mut extents[slot.side.index()];
            match claim(extents, &mut slot, first_data) {
                Ok(()) => leased.push((number, tenant(slot.place))),
                // Its reader has not believed it: what is believed is not written over.
                Err(_) => release(extents, &slot),
            }
        }
    }

    let [a, b] = extents;
    let engine = Engine::new(
        Found {
            files,
            directory,
            leases,
            options,
            ring_id,
            file_ids,
            spaces: [(a, schemas[0]), (b, schemas[1])],
            snapshots,
            leased,
            next_id,
            floor: next_id + FLOOR_STEP,
            recovery,
        },
        layout,
        check,
    );
    engine.settle_in()?;
    Ok(engine)
}

impl Engine {
    /// The last step of opening: the new id floor is on the disk, and the files' names are.
    fn settle_in(&self) -> Result<(), OpenError> {
        let floor = self.lock().floor;
        let note = Floor { floor, next: 0, boot: self.boot, ring_id: self.ring_id };
        for file in &self.files {
            file.write_sealed(FLOOR_AT, &note.encode());
            if self.directory.is_some() {
                file.sync(FLOOR_AT, FLOOR_LEN as u64).map_err(io_error(file.path(), "sync"))?;
            }
        }
        if let Some(directory) = &self.directory {
            directory
                .write_floor(&note)
                .map_err(io_error(directory.path(), "sync the lock file of"))?;
            directory.sync().map_err(io_error(directory.path(), "sync"))?;
        }
        // Whoever can be believed can be read.
        let state = self.lock();
        let (head, hint) = (self.ring.head(), self.files[0].word64(HINT_AT));
        // The last one may have been killed before it came to that. Never back: a hint names an id
        // that has been given out.
        if head.id() > Word::from_bits(hint.load(Ordering::Relaxed)).id() {
            hint.store(head.bits(), Ordering::Relaxed);
            // Release: as in `publish`.
            self.files[0].word(WAKE_AT).fetch_add(1, Ordering::Release);
        }
        for number in &state.listed {
            let n = usize::from(*number);
            let place = &state.places[n];
            if place.trust == Trust::Checked {
                let base = self.file_of(n).at(place.root.offset, place.root.len);
                self.ring.set_root(n, base.addr().get() + place.root_pos as usize);
            }
        }
        Ok(())
    }
}

/// The file of a place, and where its slot page lies.
fn slot_of<'a>(
    files: &'a [MappedFile; 2],
    options: &Options,
    number: u16,
) -> (&'a MappedFile, u64) {
    let slots = slot_pages(options.ring) as u16;
    (&files[usize::from(number / slots)], BLOCK + u64::from(number % slots) * SLOT_LEN)
}

/// A snapshot that has left the ring, and stays for a reader's sake alone.
fn tenant(place: Place) -> Place {
    let leased_at = Some(crate::clock::steady_millis());
    Place { listed: false, durable: false, redirty: false, label: None, leased_at, ..place }
}

/// Reads a slot page that a reader leases and whose seal is broken: the rest of the record is as it
/// was when the reader believed it. `None` if it is nothing that anybody can have believed.
fn read_leased(
    files: &[MappedFile; 2],
    options: &Options,
    number: u16,
    file_ids: [Uuid; 2],
) -> Option<Slot> {
    let (file, at) = slot_of(files, options, number);
    let mut bytes: [u8; RECORD_LEN] = file.read(at);
    crate::header::seal(&mut bytes);
    let record = Record::decode(&bytes).ok().flatten()?;
    let side = Side::BOTH[usize::from(number) / slot_pages(options.ring) as usize];
    let index = number % slot_pages(options.ring) as u16;
    let fits = record.file_id == file_ids[side.index()]
        && (record.side, record.index) == (side, index)
        && (1..MAX_ID).contains(&record.id);
    let place = Place {
        state: Use::Sealed,
        id: record.id,
        root: record.root,
        trust: Trust::Rejected("it has left the ring".into()),
        ..Place::free()
    };
    fits.then_some(Slot { number, side, record, place, claimed: false })
}

/// Reads one slot page. `Ok(None)`: nothing is sealed there, as it should be.
fn read_slot(
    file: &MappedFile,
    side: Side,
    index: u16,
    options: &Options,
    file_ids: [Uuid; 2],
    boot: Uuid,
) -> Result<Option<Slot>, (Option<u64>, String)> {
    let at = BLOCK + u64::from(index) * SLOT_LEN;
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
    if record.file_id != file_ids[side.index()] {
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
        .is_some_and(|n| n.id == record.id && n.record_seal == seal && n.boot == boot);
    // Read from the disk after a boot, it is on the disk. In the boot that wrote it only the note
    // tells, since memory may hold what a failed sync has lost.
    let durable = noted || record.boot != boot;
    let label: [u8; LABEL_LEN] = file.read(at + LABEL_AT);
    let number = side.index() as u16 * slot_pages(options.ring) as u16 + index;
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
        ..Place::free()
    };
    Ok(Some(Slot { number, side, record, place, claimed: false }))
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

/// Decides how far a slot is trusted; checks its bytes if it would be the newest.
fn look(
    file: &MappedFile,
    slot: &mut Slot,
    layout: &Layout,
    check: CheckFn,
    max_depth: u32,
    newest: bool,
) -> Result<(), String> {
    if slot.record.layout != layout.fingerprint {
        let text = layout_text(file, slot.record.schema)?;
        if newest {
            file.check_extent(slot.place.root)?;
        }
        let difference = clip(&first_difference(&text, &layout.text));
        slot.place.trust = Trust::Foreign(difference.into());
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
        check_place(file, &slot.place, check)?;
        slot.place.trust = Trust::Checked;
    }
    Ok(())
}

/// The start of what a file says, fit for a log.
pub(crate) fn clip(text: &str) -> String {
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

/// The id floors that can be read and are this ring's.
fn floors(files: &[MappedFile; 2], directory: Option<&Directory>, ring_id: Uuid) -> Vec<Floor> {
    let in_files = files.iter().filter_map(|f| Floor::decode(&f.read::<FLOOR_LEN>(FLOOR_AT)));
    let mut floors: Vec<Floor> = in_files.filter(|f| f.ring_id == ring_id).collect();
    // The lock file's outlives the loss of both files, and then is another ring's.
    floors.extend(directory.and_then(Directory::floor));
    floors
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

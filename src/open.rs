#![forbid(unsafe_code)]
//! Opening: finds the two files, has them surveyed, then mends and makes what is missing.
//!
//! In that order: nothing is written before the newest whole snapshot has been found, and doing it
//! again, also after a crash in the middle, finds the same.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use crate::{
    directory::{Directory, io_error},
    engine::{CheckFn, Engine, FLOOR_STEP, Found, Trust},
    error::OpenError,
    file::{BLOCK, MappedFile},
    header::{
        BadHeader, FLOOR_AT, FLOOR_LEN, FORMAT, Floor, HEADER_AT, HEADER_LEN, HINT_AT, Header,
        SLOTS_AT, Side, Uuid, WAKE_AT, data_at, slot_pages,
    },
    lease::Taken,
    mutants::Mutant,
    options::{Durability, Options},
    os,
    record::{LABEL_AT, LABEL_LEN, RECORD_LEN, SLOT_LEN, encode_label},
    recover::{Ground, Survey, survey, tenants},
    ring::Word,
    schema::Layout,
    storage::{RawFile, Storage, SystemFile},
};

/// What a file takes from the start, unless told otherwise.
const FILE_SIZE: u64 = 64 << 20;
/// The same where space is memory.
const FILE_SIZE_IN_MEMORY: u64 = 1 << 20;

/// A file as it was found.
pub(crate) enum Opened {
    Missing,
    /// Neither header can be read.
    Damaged,
    Whole(Box<Whole>),
}

/// A file whose header can be read.
pub(crate) struct Whole {
    pub(crate) file: MappedFile,
    pub(crate) header: Header,
    /// The header's bytes, and which copies differ from them.
    bytes: [u8; HEADER_LEN],
    torn: Vec<u64>,
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
    open_on(Box::new(directory), options, layout, check)
}

/// The same, on whatever it lies.
pub(crate) fn open_on(
    storage: Box<dyn Storage>,
    options: &Options,
    layout: Arc<Layout>,
    check: CheckFn,
) -> Result<Engine, OpenError> {
    let mut sides = Vec::new();
    for side in Side::BOTH {
        sides.push(find(&*storage, options, side)?);
    }
    let headers: Vec<Header> = sides.iter().filter_map(|s| s.whole().map(|w| w.header)).collect();
    if let [a, b] = headers.as_slice()
        && (a.ring_id != b.ring_id || a.ring != b.ring)
    {
        return Err(OpenError::OtherRing {
            path: storage.path().join(Side::B.file_name()),
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
        None => storage.random_id().map_err(io_error(storage.path(), "draw a random name"))?,
    };

    // Look ...
    let wholes = [sides[0].whole(), sides[1].whole()];
    let files = wholes.map(|w| w.map(|w| &w.file));
    let floors = floors(files, Some(&*storage), ring_id);
    let mut found = survey(&Ground {
        files,
        file_ids: wholes.map(|w| w.map_or(Uuid([0; 16]), |w| w.header.file_id)),
        ring: options.ring,
        boot: storage.boot(),
        floors: &floors,
        layout: &layout,
        check,
        max_depth: options.max_depth,
    });

    // ... then touch.
    let mut files = Vec::new();
    let mut file_ids = [Uuid([0; 16]); 2];
    for (side, found_side) in Side::BOTH.into_iter().zip(sides) {
        let full = storage.path().join(side.file_name());
        let damaged = matches!(found_side, Opened::Damaged);
        let (file, file_id) = match found_side {
            Opened::Whole(whole) => {
                let file_id = whole.header.file_id;
                let file = whole.mend().map_err(io_error(&full, "repair the header of"))?;
                if !(storage.in_memory() && file.has_all_pages()) {
                    file.reserve_again().map_err(io_error(&full, "reserve the space of"))?;
                }
                (file, file_id)
            }
            Opened::Missing | Opened::Damaged => {
                if damaged {
                    found.recovery.set_aside.push(storage.set_aside(side.file_name())?);
                }
                let raw = storage.create(side.file_name())?;
                found.recovery.created.push(full.clone());
                let file_id = storage.random_id().map_err(io_error(&full, "draw a random name"))?;
                let size = first_size(&options, storage.in_memory());
                write_new(&full, &*raw, side, ring_id, file_id, &options, size)?;
                raw.sync_all().map_err(io_error(&full, "sync"))?;
                storage.put_in_place(side.file_name())?;
                (map(&full, raw, size, &options)?, file_id)
            }
        };
        file_ids[side.index()] = file_id;
        files.push(file);
    }
    let boot = storage.boot();
    finish(pair(files), file_ids, ring_id, boot, options, Some(storage), found, layout, check, None)
}

/// A ring without files.
pub(crate) fn in_memory(
    options: &Options,
    layout: Arc<Layout>,
    check: CheckFn,
) -> Result<Engine, OpenError> {
    options.check()?;
    let name = Path::new("memory");
    let draw = || os::random_id().map(Uuid).map_err(io_error(name, "draw a random name"));
    let ring_id = draw()?;
    let boot = Uuid(os::boot_id());
    let found = survey(&Ground {
        files: [None, None],
        file_ids: [Uuid([0; 16]); 2],
        ring: options.ring,
        boot,
        floors: &[],
        layout: &layout,
        check,
        max_depth: options.max_depth,
    });
    let size = first_size(options, true);
    let mut files = Vec::new();
    let mut file_ids = [Uuid([0; 16]); 2];
    for side in Side::BOTH {
        let file = os::memory_file(side.file_name()).map_err(io_error(name, "make"))?;
        let file = Box::new(SystemFile(file));
        file_ids[side.index()] = draw()?;
        write_new(name, &*file, side, ring_id, file_ids[side.index()], options, size)?;
        files.push(map(name, file, size, options)?);
    }
    finish(pair(files), file_ids, ring_id, boot, options.clone(), None, found, layout, check, None)
}

pub(crate) fn pair(files: Vec<MappedFile>) -> [MappedFile; 2] {
    match <[MappedFile; 2]>::try_from(files) {
        Ok(pair) => pair,
        Err(_) => unreachable!("one file was pushed for each of the two sides"),
    }
}

fn map(
    path: &Path,
    file: Box<dyn RawFile>,
    len: u64,
    options: &Options,
) -> Result<MappedFile, OpenError> {
    MappedFile::map(path, file, len, options.max_file_size)
        .map_err(io_error(path, "map (is `max_file_size` of address space to be had?)"))
}

impl Opened {
    fn whole(&self) -> Option<&Whole> {
        match self {
            Opened::Whole(whole) => Some(whole),
            Opened::Missing | Opened::Damaged => None,
        }
    }
}

impl Whole {
    /// Makes both copies of the header what the readable one is.
    fn mend(self) -> std::io::Result<MappedFile> {
        for at in self.torn {
            self.file.write_through(&self.bytes, at)?;
        }
        Ok(self.file)
    }
}

/// Opens one side's file, reads its header and maps it. Writes nothing.
pub(crate) fn find(
    storage: &dyn Storage,
    options: &Options,
    side: Side,
) -> Result<Opened, OpenError> {
    let path = storage.path().join(side.file_name());
    match storage.file(side.file_name())? {
        Some(file) => look_at(path, file, options, side),
        None => Ok(Opened::Missing),
    }
}

/// Reads a file's header and maps it. Writes nothing.
pub(crate) fn look_at(
    path: PathBuf,
    file: Box<dyn RawFile>,
    options: &Options,
    side: Side,
) -> Result<Opened, OpenError> {
    let len = file.len().map_err(io_error(&path, "look at"))? / BLOCK * BLOCK;
    let copies = HEADER_AT.map(|at| {
        let mut bytes = [0; HEADER_LEN];
        file.read_at(&mut bytes, at).map(|()| bytes).unwrap_or([0; HEADER_LEN])
    });
    let mut found = None;
    for bytes in &copies {
        match Header::decode(bytes) {
            Ok(header) => _ = found.get_or_insert((header, *bytes)),
            // A whole header of somebody else's decides, whatever the other one says.
            Err(BadHeader::Newer(found)) => {
                return Err(OpenError::NewerFormat { path, found, known: FORMAT });
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
    let torn = HEADER_AT.into_iter().zip(&copies).filter(|(_, copy)| **copy != bytes);
    let torn = torn.map(|(at, _)| at).collect();
    let file = map(&path, file, len, options)?;
    Ok(Opened::Whole(Box::new(Whole { file, header, bytes, torn })))
}

/// The reserved length of a new file.
fn first_size(options: &Options, in_memory: bool) -> u64 {
    let default = if in_memory { FILE_SIZE_IN_MEMORY } else { FILE_SIZE };
    options
        .file_size
        .unwrap_or(default)
        .max(data_at(options.ring) + BLOCK)
        .next_multiple_of(BLOCK)
        .min(options.max_file_size / BLOCK * BLOCK)
}

/// Reserves a new file's space and writes its header, the magic last.
fn write_new(
    path: &Path,
    file: &dyn RawFile,
    side: Side,
    ring_id: Uuid,
    file_id: Uuid,
    options: &Options,
    size: u64,
) -> Result<(), OpenError> {
    file.reserve(0, size).map_err(io_error(path, "reserve the space of"))?;
    let created = crate::clock::wall_nanos();
    let header = Header { side, ring: options.ring, ring_id, file_id, created };
    let bytes = header.encode();
    let write = |from: usize, to: usize, at: u64| {
        file.write_at(&bytes[from..to], at + from as u64).map_err(io_error(path, "write"))
    };
    write(0, HEADER_LEN, HEADER_AT[1])?;
    write(8, HEADER_LEN, HEADER_AT[0])?;
    write(0, 8, HEADER_AT[0])
}

/// The id floors that can be read and are this ring's.
pub(crate) fn floors(
    files: [Option<&MappedFile>; 2],
    storage: Option<&dyn Storage>,
    ring_id: Uuid,
) -> Vec<Floor> {
    let files = files.into_iter().flatten();
    let in_files = files.filter_map(|f| Floor::decode(&f.read::<FLOOR_LEN>(FLOOR_AT)));
    let mut floors: Vec<Floor> = in_files.filter(|f| f.ring_id == ring_id).collect();
    // The lock file's outlives the loss of both files, and then is another ring's.
    floors.extend(storage.and_then(Storage::floor));
    floors
}

/// Makes an engine of what was found, once all else is settled. `floor` is the one in force, where a
/// predecessor has written it already.
#[allow(clippy::too_many_arguments)]
pub(crate) fn finish(
    files: [MappedFile; 2],
    file_ids: [Uuid; 2],
    ring_id: Uuid,
    boot: Uuid,
    options: Options,
    storage: Option<Box<dyn Storage>>,
    found: Survey,
    layout: Arc<Layout>,
    check: CheckFn,
    floor: Option<u64>,
) -> Result<Engine, OpenError> {
    let slots = slot_pages(options.ring) as u16;
    let slot = |number: u16| {
        let at = SLOTS_AT + u64::from(number % slots) * SLOT_LEN;
        (&files[usize::from(number / slots)], at)
    };
    if let Some((file, at)) = found.relisted.map(slot) {
        file.unseal(at + LABEL_AT, LABEL_LEN as u64);
        // On the disk, before a newer one can be there.
        file.sync(at, SLOT_LEN).map_err(io_error(file.path(), "sync"))?;
    }
    for (file, at) in found.hopeless.iter().copied().map(slot) {
        file.unseal(at, RECORD_LEN as u64);
        file.sync(at, SLOT_LEN).map_err(io_error(file.path(), "sync"))?;
    }
    if let Some((number, id)) = found.leaving {
        let (file, at) = slot(number);
        file.write_sealed(at + LABEL_AT, &encode_label(id, ""));
    }
    for (file, at) in found.surplus.iter().copied().map(slot) {
        file.unseal(at, RECORD_LEN as u64);
    }
    for (number, _) in found.snapshots.iter().filter(|(_, place)| place.label_dirty) {
        // Its page may look clean though a sync of it has failed.
        let (file, at) = slot(*number);
        file.redirty(at, SLOT_LEN).map_err(io_error(file.path(), "make pages dirty of"))?;
    }
    let mut extents = found.extents;
    for (extents, file) in extents.iter_mut().zip(&files) {
        extents.grow((file.len() - data_at(options.ring)) / BLOCK);
    }
    // Asked for now that the seals are broken (L2).
    let leases = storage.as_ref().map_or(Ok(None), |storage| storage.leases())?;
    let taken = leases.as_ref().map(|l| l.taken(2 * usize::from(slots))).filter(Taken::any);
    let leased = taken.map_or_else(Vec::new, |taken| {
        let ground = Ground {
            files: files.each_ref().map(Some),
            file_ids,
            ring: options.ring,
            boot,
            floors: &[],
            layout: &layout,
            check,
            max_depth: options.max_depth,
        };
        let snapshots = found.snapshots.iter().map(|(number, _)| *number);
        let known: Vec<u16> =
            snapshots.chain(found.twins.iter().map(|(_, number, _)| *number)).collect();
        tenants(&ground, &taken, &known, &mut extents)
    });
    if options.durability == Durability::Sync {
        // Archives are written through the file, and make its pages.
        for file in &files {
            file.touch_alone(data_at(options.ring));
        }
    }
    let [a, b] = extents;
    let engine = Engine::new(
        Found {
            files,
            storage,
            leases,
            options,
            ring_id,
            file_ids,
            boot,
            spaces: [(a, found.schemas[0]), (b, found.schemas[1])],
            snapshots: found.snapshots,
            leased,
            twins: found.twins,
            next_id: found.next_id,
            floor: floor.unwrap_or(found.next_id + FLOOR_STEP),
            recovery: found.recovery,
        },
        layout,
        check,
    );
    if floor.is_none() {
        engine.write_first_floor()?;
    }
    engine.uncover();
    engine.learn_newest();
    Ok(engine)
}

impl Engine {
    /// The new id floor is on the disk, and the files' names are.
    fn write_first_floor(&self) -> Result<(), OpenError> {
        let floor = self.lock().floor;
        let note = Floor { floor, next: 0, boot: self.boot, ring_id: self.ring_id };
        let raised = !Mutant::FloorNotRaised.is_on();
        for file in self.files.iter().filter(|_| raised) {
            file.write_sealed(FLOOR_AT, &note.encode());
            if self.storage.is_some() {
                file.sync(FLOOR_AT, FLOOR_LEN as u64).map_err(io_error(file.path(), "sync"))?;
            }
        }
        if let Some(storage) = &self.storage {
            if raised {
                storage
                    .write_floor(&note)
                    .map_err(io_error(storage.path(), "sync the lock file of"))?;
            }
            if !Mutant::NoDirectorySync.is_on() {
                storage.sync().map_err(io_error(storage.path(), "sync"))?;
            }
        }
        Ok(())
    }

    /// The last step of opening: whoever can be believed can be read.
    fn uncover(&self) {
        let state = self.lock();
        let (head, hint) = (self.ring.head(), self.files[0].word64(HINT_AT));
        // The last caretaker may have been killed before it came to that. And where ids go on at the
        // floor, the hint is what tells the next opening of this boot, should nothing be saved: so it
        // names the last id that may have been given out, with or without a record, and never goes
        // back.
        let last = state.next_id - 1;
        if last > Word::from_bits(hint.load(Ordering::Relaxed)).id() {
            let word = if head.id() == last { head } else { Word::new(last, 0) };
            hint.store(word.bits(), Ordering::Relaxed);
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
    }
}

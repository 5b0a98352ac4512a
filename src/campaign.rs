//! The engine on a simulated disk, without threads and under a simulated clock: for the reliability
//! campaigns, and no part of the interface.

use std::{any::TypeId, fmt, io, path::Path, sync::Arc};

use memmap2::{MmapMut, MmapRaw};

use crate::{
    caretaker::Caretaker,
    checker,
    engine::Trust,
    error::OpenError,
    file::{BLOCK, MappedFile},
    header::{FLOOR_AT, FLOOR_LEN, Floor, HEADER_AT, HEADER_LEN, Header, Side, Uuid, data_at},
    history::RejectedSlot,
    open::open_on,
    options::Options,
    record::Extent,
    recover::{Ground, Survey, survey},
    schema::Layout,
    sim_directory::SimDirectory,
    snapshot::{Archived, Snapshot},
    storage::RawFile,
    thaw::{Thaw, ThawError},
};

pub use crate::{
    clock::{Clock, set_clock},
    mutants::{Deed, Mutant, in_gap, mend},
    sim::{Call, Disk, Fault, PAGE, Random, SECTOR},
};

/// Opens the ring on a simulated disk, or makes it. No thread runs: [`background`] does what one
/// would, on the caller's.
///
/// # Errors
///
/// As [`Caretaker::open`].
pub fn open<T: Snapshot>(disk: &Disk, options: &Options) -> Result<Caretaker<T>, OpenError> {
    options.check()?;
    let layout = Arc::new(Layout::of::<T>());
    let storage = Box::new(SimDirectory::open(disk)?);
    open_on(storage, options, layout, crate::caretaker::check::<T>).map(Caretaker::without_thread)
}

/// One round of what the background thread does.
pub fn background<T: Snapshot>(caretaker: &Caretaker<T>) {
    crate::background::round(caretaker.engine());
}

/// Does what is left of the oldest capture that waits for its turn. `false`: none does, or one is
/// being finished: there is one thread for them.
pub fn finish_capture<T: Snapshot>(caretaker: &Caretaker<T>) -> bool {
    let engine = caretaker.engine();
    let state = engine.lock();
    let finishing = state.captures - state.captured > engine.queued_captures() as u64;
    drop(state);
    !finishing && engine.finish_next_capture()
}

/// Ends a caretaker as a kill would: nothing is flushed and nothing noted.
pub fn kill<T: Snapshot>(caretaker: Caretaker<T>) {
    caretaker.leave();
}

/// The listed snapshots' ids, newest first, and their sides: 0 for A, 1 for B.
pub fn sides<T: Snapshot>(caretaker: &Caretaker<T>) -> Vec<(u64, usize)> {
    let engine = caretaker.engine();
    let state = engine.lock();
    let side = |n: &u16| engine.side_of(usize::from(*n)).index();
    state.listed.iter().map(|n| (state.places[usize::from(*n)].id, side(n))).collect()
}

/// Whether a save might wait for the relocation that is under way, which has taken the last place
/// of a side: in a simulation, where one thread is all, for ever.
pub fn would_wait<T: Snapshot>(caretaker: &Caretaker<T>) -> bool {
    let engine = caretaker.engine();
    let queued = engine.queued_captures() as u64;
    let state = engine.lock();
    let finishing = state.captures - state.captured > queued;
    finishing || state.making > queued as usize && state.spaces.iter().any(|s| s.free.is_empty())
}

/// Where a listed snapshot lies: the number of its place, by which readers lease it, its side, and
/// its bytes: those of its archive first, then those of its pages.
pub fn place<T: Snapshot>(
    caretaker: &Caretaker<T>,
    id: crate::SnapshotId,
) -> Option<(usize, usize, Vec<std::ops::Range<u64>>)> {
    let engine = caretaker.engine();
    let state = engine.lock();
    let n = engine.find(&state, id)?;
    let place = &state.places[n];
    let pages = place.table.iter().flat_map(|table| table.spans(data_at(engine.options.ring)));
    let archive = place.root.offset..place.root.offset + place.root.len;
    Some((n, engine.side_of(n).index(), std::iter::once(archive).chain(pages).collect()))
}

/// Bytes of memory under a file's name.
#[derive(Debug)]
struct Plain(Arc<MmapRaw>);

impl RawFile for Plain {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn has_all_pages(&self, _: u64) -> bool {
        true
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn reserve(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn map(&self, _: usize) -> io::Result<Arc<MmapRaw>> {
        Ok(self.0.clone())
    }

    fn sync_range(&self, _: &MmapRaw, _: usize, _: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn redirtied(&self, _: u64, _: u64) {}

    fn sync_all(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Two files in plain memory, to be changed byte by byte and surveyed, as recovery would, without
/// being opened: a few microseconds each.
#[derive(Debug)]
pub struct Image {
    files: [MappedFile; 2],
    lock_floor: Option<Floor>,
    boot: Uuid,
    ring: u32,
    max_depth: u32,
    layout: Arc<Layout>,
    check: crate::engine::CheckFn,
    state: TypeId,
}

/// What a survey finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The newest whole snapshot.
    pub chosen: Option<u64>,
    /// Every snapshot that would be listed, newest first: its id, side, and the extent of its
    /// archive (offset, length and checksum). Those after the first have passed their record's
    /// checks alone.
    pub listed: Vec<(u64, usize, u64, u64, u32)>,
    /// Slot pages that did not pass, with the reasons.
    pub rejected: Vec<RejectedSlot>,
    /// Where ids go on.
    pub next_id: u64,
}

impl Image {
    /// Files of these bytes, of a ring of `T`. `same_boot`: as if found in the boot that wrote
    /// `boot_of`'s records. `None` where a header cannot be read.
    pub fn new<T: Snapshot>(bytes: [&[u8]; 2], lock_floor: &[u8], boot: [u8; 16]) -> Option<Image> {
        let header = |bytes: &[u8]| {
            HEADER_AT.iter().find_map(|at| {
                let at = *at as usize;
                Header::decode(bytes.get(at..at + HEADER_LEN)?.try_into().ok()?).ok()
            })
        };
        let headers = [header(bytes[0])?, header(bytes[1])?];
        let files = bytes.map(|bytes| {
            let len = bytes.len() as u64 / BLOCK * BLOCK;
            let mut map = MmapMut::map_anon(len.max(BLOCK) as usize).ok()?;
            map[..len as usize].copy_from_slice(&bytes[..len as usize]);
            let file = Box::new(Plain(Arc::new(MmapRaw::from(map))));
            MappedFile::map(Path::new("image"), file, len, len).ok()
        });
        let [Some(a), Some(b)] = files else { return None };
        Some(Image {
            files: [a, b],
            lock_floor: lock_floor.try_into().ok().and_then(Floor::decode),
            boot: Uuid(boot),
            ring: headers[0].ring,
            max_depth: Options::new().max_depth,
            layout: Arc::new(Layout::of::<T>()),
            check: crate::caretaker::check::<T>,
            state: TypeId::of::<T>(),
        })
    }

    /// Changes bytes.
    pub fn put(&mut self, side: usize, at: usize, bytes: &[u8]) {
        self.files[side].write(at as u64, bytes);
    }

    /// Bytes as they are.
    pub fn bytes(&self, side: usize, at: u64, len: u64) -> &[u8] {
        self.files[side].retained(Extent { offset: at, len, crc: 0 })
    }

    /// What recovery would find.
    pub fn survey(&self) -> Seen {
        let found = self.look();
        let listed = found.snapshots.iter().filter(|(_, place)| place.listed);
        Seen {
            chosen: found.recovery.chosen.map(crate::SnapshotId::get),
            listed: listed
                .map(|(n, p)| (p.id, self.side_of(*n), p.root.offset, p.root.len, p.root.crc))
                .collect(),
            rejected: found.recovery.rejected,
            next_id: found.next_id,
        }
    }

    /// Recovers as opening would, then checks every snapshot that would be listed and shows those
    /// that pass; of the others, why not. Answers the slot pages that did not pass.
    ///
    /// # Panics
    ///
    /// If `T` is not the state that the image was made for.
    pub fn visit<T: Snapshot>(
        &self,
        mut show: impl FnMut(Result<Whole<'_, T>, String>),
    ) -> impl Iterator<Item = String> {
        assert_eq!(self.state, TypeId::of::<T>(), "the image is of another state");
        let found = self.look();
        for (number, place) in found.snapshots.iter().filter(|(_, place)| place.listed) {
            if let Trust::Foreign(difference) = &place.trust {
                show(Err(difference.to_string()));
                continue;
            }
            let file = &self.files[self.side_of(*number)];
            let passed = file.check_extent(place.root).and_then(|()| {
                let bytes = file.retained(place.root);
                let (first_data, mut seen) = (data_at(self.ring), checker::Seen::default());
                let mut pages = place.table.as_ref().map(|table| {
                    let spans = table.spans(first_data);
                    checker::Sources::new(file, place.root.offset, spans, &mut seen)
                });
                let root = place.root_pos as usize;
                checker::check::<Archived<T>>(bytes, root, place.depth, pages.as_mut())
            });
            show(passed.map(|archived| Whole { id: place.id, archived, layout: &self.layout }));
        }
        found.recovery.rejected.into_iter().map(|slot| slot.to_string())
    }

    fn side_of(&self, number: u16) -> usize {
        usize::from(number) / crate::header::slot_pages(self.ring) as usize
    }

    fn look(&self) -> Survey {
        let headers = self.files.each_ref().map(|file| {
            HEADER_AT.iter().find_map(|at| Header::decode(&file.read::<HEADER_LEN>(*at)).ok())
        });
        let files = [0, 1].map(|side: usize| headers[side].map(|_| &self.files[side]));
        let found = files.iter().flatten();
        let in_files = found.filter_map(|f| Floor::decode(&f.read::<FLOOR_LEN>(FLOOR_AT)));
        let floors: Vec<Floor> = in_files.chain(self.lock_floor).collect();
        survey(&Ground {
            files,
            file_ids: headers.map(|h| h.map_or(Uuid([0; 16]), |h| h.file_id)),
            ring: self.ring,
            boot: self.boot,
            floors: &floors,
            layout: &self.layout,
            check: self.check,
            max_depth: self.max_depth,
        })
    }
}

/// A snapshot in an image that has passed every check.
pub struct Whole<'a, T: Snapshot> {
    id: u64,
    archived: &'a Archived<T>,
    layout: &'a Arc<Layout>,
}

impl<T: Snapshot> Whole<'_, T> {
    /// Its id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// As [`Memento::archived`](crate::Memento::archived).
    pub fn archived(&self) -> &Archived<T> {
        self.archived
    }

    /// As [`Memento::thaw`](crate::Memento::thaw).
    ///
    /// # Errors
    ///
    /// As that.
    pub fn thaw(&self) -> Result<T, ThawError> {
        T::thaw(self.archived, &mut Thaw::of(self.layout))
    }

    /// Makes `state` this snapshot, as a rollback to one that was found does: thawed aside, then
    /// given the skipped fields.
    ///
    /// # Errors
    ///
    /// As [`thaw`](Self::thaw); the state is as it was then.
    pub fn restore(&self, state: &mut T) -> Result<(), ThawError> {
        let mut fresh = self.thaw()?;
        fresh.adopt(state, &mut Thaw::of(self.layout));
        *state = fresh;
        Ok(())
    }
}

impl<T: Snapshot> fmt::Debug for Whole<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Whole")
    }
}

/// The name of a side's file.
pub fn file_name(side: usize) -> &'static str {
    Side::BOTH[side].file_name()
}

#![forbid(unsafe_code)]
//! The engine under every caretaker, whatever its type: two files, a ring, and one lock over what
//! is where.
//!
//! Knows places, extents, records and ids. States, archives and user code are the caretaker's
//! affair: no user code runs under this lock (P5).
//!
//! A place goes *free -> making -> sealed, listed -> sealed, unlisted -> free*. Its bytes are
//! written only while it is making; it becomes free again only if it is not listed, not held, not
//! announced, and neither the newest durable snapshot nor one being flushed (P1, P4).

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    capture::Captures,
    checker::{Seen, Sources},
    error::MementoError,
    events::Listeners,
    extents::Extents,
    file::{BLOCK, MappedFile},
    flush::Flusher,
    handed::Handed,
    header::{SLOTS_AT, Side, Uuid, slot_pages},
    history::Recovery,
    lease::Lessor,
    memento::Keeper,
    options::Options,
    paging::Known,
    policy::Cadence,
    record::{Extent, Kind, Record, SLOT_LEN},
    ring::{Ring, Word},
    runs::Table,
    schema::{Fingerprint, Layout},
    session::Scratch,
    storage::Storage,
    sync::{Condvar, Mutex, MutexGuard, ThreadId},
};

/// How far the id floor is raised at a time.
pub(crate) const FLOOR_STEP: u64 = 1 << 20;

/// Checks that bytes hold an archived root of the engine's type.
pub(crate) type CheckFn = fn(
    bytes: &[u8],
    root: usize,
    depth: u32,
    pages: Option<&mut Sources<'_>>,
) -> Result<(), String>;

/// What is known of the bytes of a sealed place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Written by this process, or passed checksum and bytecheck since opening.
    Checked,
    /// Found at opening, not looked at yet.
    Unverified,
    /// Whole, as far as looked at, but of another layout: what differs.
    Foreign(Arc<str>),
    /// Did not pass: why.
    Rejected(Arc<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Free,
    Making,
    Sealed,
}

/// One place, as the engine's lock knows it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) state: Use,
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    pub(crate) parent: u64,
    pub(crate) target: u64,
    pub(crate) created: u64,
    pub(crate) logical: u64,
    pub(crate) type_version: u32,
    pub(crate) depth: u32,
    pub(crate) root: Extent,
    pub(crate) root_pos: u32,
    pub(crate) written: u64,
    pub(crate) seal: u32,
    /// Of its archive, as its record says; `None` for what this process has written.
    pub(crate) layout: Option<Fingerprint>,
    /// First block of its run in the data area.
    pub(crate) run: u64,
    /// Its pages, if it has any: the runs that they lie in are used by it, too.
    pub(crate) table: Option<Arc<Table>>,
    /// First block of a schema of its own, kept for it alone.
    pub(crate) schema_run: Option<u64>,
    pub(crate) listed: bool,
    /// It was not the head and nobody announced it at a scan: nobody ever will again (R3).
    pub(crate) quiet: bool,
    /// It has left the ring, and its seal was broken.
    pub(crate) unsealed: bool,
    /// It had no lease when its seal had been broken: it never will have one that counts (L2).
    pub(crate) unleased: bool,
    /// Since when a reader in another process has been seen to lease it: milliseconds on the steady
    /// clock.
    pub(crate) leased_at: Option<u64>,
    pub(crate) durable: bool,
    /// A sync of it failed: not claimed durable if it was not so before, and written anew elsewhere.
    pub(crate) tainted: bool,
    pub(crate) label: Option<Box<str>>,
    /// The label note differs from what is known to be on the disk.
    pub(crate) label_dirty: bool,
    pub(crate) trust: Trust,
    /// When it stopped being the head: nanoseconds since 1970.
    pub(crate) left_at: u64,
    /// Found at opening, from this boot and without a durable note: its pages may look clean
    /// though a sync of them failed.
    pub(crate) redirty: bool,
    /// Found at opening with a note that it had left the ring.
    pub(crate) left: bool,
    /// Found at opening: its bytes are somebody else's, however well they have been checked.
    pub(crate) found: bool,
    /// Found, and the names of its pages contradict neither each other nor the other side's.
    pub(crate) named: bool,
    /// When it was published: milliseconds on the steady clock, before its start where it is older.
    pub(crate) born: i64,
    /// Its pages have been let go of under memory pressure.
    pub(crate) forgotten: bool,
    /// Written elsewhere than at first: as the head it does not move again (R1).
    pub(crate) moved: bool,
}

impl Place {
    pub(crate) fn free() -> Place {
        Place {
            state: Use::Free,
            id: 0,
            kind: Kind::Full,
            parent: 0,
            target: 0,
            created: 0,
            logical: 0,
            type_version: 0,
            depth: 0,
            root: Extent::default(),
            root_pos: 0,
            written: 0,
            seal: 0,
            layout: None,
            run: 0,
            table: None,
            schema_run: None,
            listed: false,
            quiet: false,
            unsealed: false,
            unleased: false,
            leased_at: None,
            durable: false,
            tainted: false,
            label: None,
            label_dirty: false,
            trust: Trust::Checked,
            left_at: 0,
            redirty: false,
            left: false,
            found: false,
            named: false,
            born: 0,
            forgotten: false,
            moved: false,
        }
    }

    /// As a record tells that is listed under this seal.
    #[inline]
    pub(crate) fn of(record: &Record, seal: u32) -> Place {
        Place {
            state: Use::Sealed,
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
            listed: true,
            ..Place::free()
        }
    }

    /// The same for one that was found, before anybody has looked further.
    pub(crate) fn found(record: &Record, seal: u32) -> Place {
        Place {
            // When it ceased to be the newest is not known.
            left_at: record.created,
            layout: Some(record.layout),
            trust: Trust::Unverified,
            found: true,
            ..Place::of(record, seal)
        }
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.state == Use::Sealed
    }
}

/// One side's space.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) extents: Extents,
    /// The layout's text in this file, once written: where, and whether it is on the disk.
    pub(crate) schema: Option<Extent>,
    pub(crate) schema_durable: bool,
    /// Texts that a failed sync has cast doubt on: first block, and the first id that does not refer
    /// to it any more. Free when nobody does.
    pub(crate) retired: Vec<(u64, u64)>,
    /// Slot pages that are free.
    pub(crate) free: Vec<u16>,
    /// The pages of its newest snapshot.
    pub(crate) known: Option<Arc<Known>>,
    /// Runs of pages that no sync has covered, by their first blocks. One that is free, or the start of
    /// another, may be among them: it is asked only for what a place names.
    pub(crate) unsynced: HashSet<u64>,
    /// Of these, runs that were found in the boot that wrote them: their pages may look clean though a
    /// sync of them has failed.
    pub(crate) doubtful: HashSet<u64>,
    /// Syncs that failed, and may have taken along bytes of snapshots in the making.
    pub(crate) lost: u64,
}

impl Space {
    /// One user less of all that a place has here.
    pub(crate) fn release(&mut self, place: &Place) {
        self.extents.release(place.run);
        let pages = place.table.iter().flat_map(|table| &table.runs);
        for run in pages.map(|run| run.start).chain(place.schema_run) {
            self.extents.release(run);
        }
    }
}

/// What waits for the next question about leases.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Unasked {
    pub(crate) places: usize,
    pub(crate) bytes: u64,
}

/// What the engine's lock protects.
pub(crate) struct State {
    pub(crate) places: Vec<Place>,
    pub(crate) spaces: [Space; 2],
    /// Listed places, newest first.
    pub(crate) listed: VecDeque<u16>,
    /// Sealed, unlisted, not free yet.
    pub(crate) limbo: Vec<u16>,
    /// Unlisted since leases were last asked for.
    pub(crate) unasked: Unasked,
    /// A lease was seen when they were last asked for.
    pub(crate) leased: bool,
    pub(crate) next_id: u64,
    pub(crate) floor: u64,
    /// Bytes of the newest archive: the next one's estimate.
    pub(crate) last_len: u64,
    /// The newest place known to be on the disk (P4), and those being flushed.
    pub(crate) steady: Option<u16>,
    pub(crate) flushing: Vec<u16>,
    /// Every listed snapshot up to this id is on the disk.
    pub(crate) durable: u64,
    /// Who is rolling back: others' saves wait.
    pub(crate) mover: Option<ThreadId>,
    pub(crate) scratch: Vec<Scratch>,
    /// Saves under way.
    pub(crate) making: usize,
    /// Captures taken whose rest was left to the thread, and those that have come to their end.
    pub(crate) captures: u64,
    pub(crate) captured: u64,
    /// Bytes that each capture under way keeps in memory beside the live state, the oldest first.
    pub(crate) behind: VecDeque<u64>,
    pub(crate) cadence: Cadence,
    pub(crate) counts: Counts,
    /// Snapshots whose records are sealed in a second place, too: while they are relocated, or found
    /// so. The listed place first.
    pub(crate) twins: Vec<(usize, usize)>,
    /// Snapshots leave by age, too.
    pub(crate) expires: bool,
    /// Snapshots found at opening that did not pass, and why.
    pub(crate) rejected: Vec<(u64, Arc<str>)>,
    /// Handed over to another process: nothing is written here any more.
    pub(crate) ended: bool,
}

/// What has happened since opening.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counts {
    pub(crate) saves: u64,
    pub(crate) rollbacks: u64,
    pub(crate) evicted: u64,
    pub(crate) written: u64,
    pub(crate) restarts: u64,
    pub(crate) expired: u64,
    pub(crate) relocated: u64,
    pub(crate) trimmed: u64,
    /// Of the newest snapshot: pages written for it, and all.
    pub(crate) pages_written: u64,
    pub(crate) pages: u64,
    pub(crate) copies: u64,
}

impl State {
    /// The places in which the snapshot of a listed place is sealed, too.
    pub(crate) fn twins_of(&self, n: usize) -> impl Iterator<Item = usize> {
        self.twins.iter().filter(move |(listed, _)| *listed == n).map(|(_, twin)| *twin)
    }

    /// Whether a listed snapshot is such a one.
    pub(crate) fn any_listed(&self, such: impl Fn(&Place) -> bool) -> bool {
        self.listed.iter().any(|n| such(&self.places[usize::from(*n)]))
    }
}

/// The engine.
pub(crate) struct Engine {
    pub(crate) files: [MappedFile; 2],
    pub(crate) ring: Ring,
    state: Mutex<State>,
    /// A rollback ended, or the making of a snapshot.
    pub(crate) settled: Condvar,
    pub(crate) listeners: Listeners,
    pub(crate) layout: Arc<Layout>,
    pub(crate) check: CheckFn,
    /// As asked, but for the ring, which is the directory's.
    pub(crate) options: Options,
    /// Where the files are; none of a ring in memory.
    pub(crate) storage: Option<Box<dyn Storage>>,
    /// Those of readers in other processes, where there can be any.
    pub(crate) leases: Option<Box<dyn Lessor>>,
    pub(crate) ring_id: Uuid,
    pub(crate) file_ids: [Uuid; 2],
    pub(crate) boot: Uuid,
    pub(crate) recovery: Recovery,
    pub(crate) flusher: Flusher,
    pub(crate) captures: Captures,
    /// Pages that were found and have been checked, by side.
    pub(crate) seen: Mutex<[Seen; 2]>,
    /// Mementos alive.
    pub(crate) mementos: AtomicU64,
    /// What came from a predecessor, and went to a successor.
    pub(crate) handed: Handed,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("ring_id", &self.ring_id).finish_non_exhaustive()
    }
}

/// What opening found, for [`Engine::new`].
pub(crate) struct Found {
    pub(crate) files: [MappedFile; 2],
    pub(crate) storage: Option<Box<dyn Storage>>,
    pub(crate) leases: Option<Box<dyn Lessor>>,
    pub(crate) options: Options,
    pub(crate) ring_id: Uuid,
    pub(crate) file_ids: [Uuid; 2],
    pub(crate) boot: Uuid,
    pub(crate) spaces: [(Extents, Option<Extent>); 2],
    /// Valid snapshots with their place numbers, newest first; one may be retained unlisted.
    pub(crate) snapshots: Vec<(u16, Place)>,
    /// Snapshots that have left the ring, and that readers still lease.
    pub(crate) leased: Vec<(u16, Place)>,
    /// Second records of some of these: the place listed, the other one and what it holds.
    pub(crate) twins: Vec<(u16, u16, Place)>,
    pub(crate) next_id: u64,
    pub(crate) floor: u64,
    pub(crate) recovery: Recovery,
}

pub(crate) fn blocks_for(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK).max(1)
}

impl Engine {
    pub(crate) fn new(found: Found, layout: Arc<Layout>, check: CheckFn) -> Engine {
        let slots = slot_pages(found.options.ring) as usize;
        let mut places = vec![Place::free(); 2 * slots];
        let mut listed = VecDeque::with_capacity(slots);
        let mut limbo = Vec::with_capacity(2 * slots);
        let ring = Ring::new(2 * slots);
        let mut steady = None;
        let durable_upto = durable_prefix(&found.snapshots);
        for (number, place) in &found.snapshots {
            if place.listed {
                listed.push_back(*number);
            } else {
                limbo.push(*number);
            }
            if place.durable && steady.is_none() {
                steady = Some(*number);
            }
            let born = crate::clock::born(place.created);
            places[usize::from(*number)] = Place { born, ..place.clone() };
        }
        for (number, place) in &found.leased {
            limbo.push(*number);
            places[usize::from(*number)] = place.clone();
        }
        let spaces = found.spaces.map(|(extents, schema)| Space {
            extents,
            schema,
            schema_durable: false,
            retired: Vec::new(),
            free: Vec::with_capacity(slots),
            known: None,
            unsynced: HashSet::new(),
            doubtful: HashSet::new(),
            lost: 0,
        });
        let rejected = found.recovery.rejected.iter();
        let rejected = rejected.filter_map(|slot| Some((slot.id?.get(), slot.to_string().into())));
        let rejected = rejected.collect();
        let mut state = State {
            places,
            spaces,
            listed,
            limbo,
            unasked: Unasked::default(),
            leased: found.leased.iter().any(|(_, place)| place.leased_at.is_some()),
            next_id: found.next_id,
            floor: found.floor,
            last_len: 0,
            steady,
            flushing: Vec::new(),
            durable: durable_upto,
            mover: None,
            scratch: Vec::new(),
            making: 0,
            captures: 0,
            captured: 0,
            behind: VecDeque::new(),
            cadence: Cadence::default(),
            counts: Counts::default(),
            twins: Vec::new(),
            expires: found.options.ttl.is_some(),
            rejected,
            ended: false,
        };
        for (number, place) in state.places.iter().enumerate().filter(|(_, place)| !place.durable) {
            let runs = place.table.iter().flat_map(|table| &table.runs);
            let space = &mut state.spaces[number / slots];
            for run in runs.map(|run| run.start) {
                space.unsynced.insert(run);
                if place.redirty {
                    space.doubtful.insert(run);
                }
            }
        }
        for (listed, number, place) in found.twins {
            state.places[usize::from(number)] = Place { listed: false, ..place };
            state.limbo.push(number);
            state.twins.push((usize::from(listed), usize::from(number)));
        }
        for number in (0..2 * slots).rev() {
            if state.places[number].state == Use::Free {
                state.spaces[number / slots].free.push((number % slots) as u16);
            }
        }
        if let Some(newest) = state.listed.front().copied() {
            let place = &state.places[usize::from(newest)];
            state.last_len = place.root.len;
            let swung = ring.swing(Word::NONE, Word::new(place.id, usize::from(newest)));
            debug_assert!(swung.is_ok(), "P2: nobody else moves the head");
        }
        Engine {
            files: found.files,
            ring,
            state: Mutex::new(state),
            settled: Condvar::new(),
            listeners: Listeners::new(),
            layout,
            check,
            flusher: Flusher::new(found.storage.is_some(), found.options.durability),
            options: found.options,
            storage: found.storage,
            leases: found.leases,
            ring_id: found.ring_id,
            file_ids: found.file_ids,
            boot: found.boot,
            recovery: found.recovery,
            captures: Captures::default(),
            seen: Mutex::new(Default::default()),
            mementos: AtomicU64::new(0),
            handed: Handed::default(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn slots(&self) -> usize {
        slot_pages(self.options.ring) as usize
    }

    pub(crate) fn number(&self, side: Side, index: u16) -> usize {
        side.index() * self.slots() + usize::from(index)
    }

    pub(crate) fn side_of(&self, number: usize) -> Side {
        Side::BOTH[number / self.slots()]
    }

    pub(crate) fn file_of(&self, number: usize) -> &MappedFile {
        &self.files[number / self.slots()]
    }

    /// Where a place's slot page lies in its file.
    pub(crate) fn slot_at(&self, number: usize) -> u64 {
        SLOTS_AT + (number % self.slots()) as u64 * SLOT_LEN
    }

    pub(crate) fn data_at(&self) -> u64 {
        crate::header::data_at(self.options.ring)
    }

    /// Where a run of blocks starts in its file.
    pub(crate) fn run_at(&self, run: u64) -> u64 {
        self.data_at() + run * BLOCK
    }
}

impl Keeper for Engine {
    fn ring(&self) -> &Ring {
        &self.ring
    }

    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn believe(&self, place: usize, id: u64) -> Result<(), MementoError> {
        Engine::believe(self, place, id)
    }

    fn archive(&self, place: usize) -> &[u8] {
        let root = self.lock().places[place].root;
        self.file_of(place).retained(root)
    }

    fn names_hold(&self, place: usize) -> bool {
        let state = self.lock();
        !state.places[place].found || state.places[place].named
    }

    fn pages(&self, place: usize) -> Option<(Arc<Table>, Extent)> {
        let state = self.lock();
        let place = &state.places[place];
        Some((place.table.clone()?, place.root))
    }

    fn extent(&self, place: usize, extent: Extent) -> &[u8] {
        self.file_of(place).retained(extent)
    }

    fn wrote(&self, place: usize) -> bool {
        !self.lock().places[place].found
    }

    fn joined(&self) {
        // Relaxed: for people to read.
        self.mementos.fetch_add(1, Ordering::Relaxed);
    }

    fn left(&self, place: usize) {
        self.ring.unhold(place);
        // Relaxed: for people to read.
        self.mementos.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Snapshots found durable at opening, as far as no older one is missing.
fn durable_prefix(newest_first: &[(u16, Place)]) -> u64 {
    let oldest_first = newest_first.iter().rev();
    oldest_first.take_while(|(_, place)| place.durable).last().map_or(0, |(_, place)| place.id)
}

#![forbid(unsafe_code)]
//! What a reader in another process knows of a ring that somebody else writes: which snapshots it
//! leases, which of them it has checked, and a ring of its own for its threads and mementos.
//!
//! Knows places and leases; types and threads are for `reader.rs`.
//!
//! The ring is the same as the caretaker's (`ring.rs`), with the same numbers for places; only what
//! is at the head, held or announced there differs. To the writer this process is one lease for each
//! place that it uses.
//!
//! - **F1** A place is at the head, held or announced here only while it is leased, and its record
//!   was believed under that lease (L1).
//! - **F2** A lease is given back under the lock, when the place is not the head, and a count and a
//!   scan behind that show nobody (R3, R4).

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::{Condvar, Mutex};

use crate::{
    checker::{self, Bytes, Sources},
    engine::{CheckFn, Place, Trust},
    error::MementoError,
    header::{Uuid, data_at},
    id::SnapshotId,
    lease::Leases,
    looks::{MAX_SCHEMA, clip},
    memento::{Hold, Keeper},
    record::{Extent, Record},
    recover::blocks_of,
    ring::{Ring, Word},
    runs::{MAX_TABLE, Table},
    schema::{Layout, first_difference},
    session::MAX_ARCHIVE,
    window::Window,
};

/// How often a writer that is faster may come first before this gives up and stays with what it has.
const TRIES: usize = 1000;
/// From which try on the processor is left to others in between.
const YIELD_FROM: usize = 50;
/// What is known of a snapshot in a place.
#[derive(Debug, Clone)]
enum Belief {
    /// It passed every check; its root is at this address.
    Checked(usize),
    /// It has another layout: what differs.
    Foreign(Arc<str>),
    /// It did not pass: why.
    Rejected(Arc<str>),
}

/// A place, as it was last looked at under a lease.
#[derive(Debug, Clone)]
struct Seen {
    id: u64,
    seal: u32,
    root: Extent,
    table: Option<Arc<Table>>,
    belief: Belief,
}

/// What the follower's lock protects.
#[derive(Debug)]
pub(crate) struct Desk {
    seen: Vec<Option<Seen>>,
    /// Places that are leased.
    taken: Vec<usize>,
    /// The newest snapshot that was ever at the head: there is no way back.
    newest: u64,
    /// Pages that have been checked, by side.
    pages: [checker::Seen; 2],
}

/// A file as far as one mapping of it reaches.
struct Reach<'a> {
    window: &'a Window,
    reach: u64,
}

impl Bytes for Reach<'_> {
    fn bytes(&self, extent: Extent) -> Result<&[u8], String> {
        self.window.leased_within(extent, self.reach)
    }
}

/// Why a place cannot be had.
enum Miss {
    /// Something else is there by now.
    Moved,
    Lease(io::Error),
    Foreign(Arc<str>),
    Rejected(Arc<str>),
}

/// What opening found, for [`Follower::new`].
pub(crate) struct Sight {
    pub(crate) windows: [Window; 2],
    pub(crate) file_ids: [Uuid; 2],
    pub(crate) ring: u32,
    pub(crate) leases: Leases,
    pub(crate) max_depth: u32,
    pub(crate) boot: Uuid,
}

/// A reader's half of the engine.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) sight: Sight,
    pub(crate) ring: Ring,
    pub(crate) desk: Mutex<Desk>,
    layout: Arc<Layout>,
    check: CheckFn,
    /// The hint as it was when the head was last looked for.
    hint: AtomicU64,
    /// Places are leased that are not the head.
    pub(crate) others: AtomicBool,
    /// Somebody wanted to give leases back and did not come to it.
    pub(crate) missed: AtomicBool,
    /// The watch is awake.
    pub(crate) watched: AtomicBool,
    pub(crate) bell: Mutex<bool>,
    pub(crate) rung: Condvar,
}

impl std::fmt::Debug for Sight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sight").field("windows", &self.windows).finish_non_exhaustive()
    }
}

impl Follower {
    /// Starts at the newest snapshot that can be believed.
    pub(crate) fn new(sight: Sight, layout: Arc<Layout>, check: CheckFn) -> Follower {
        let places = sight.places();
        let follower = Follower {
            ring: Ring::new(places),
            desk: Mutex::new(Desk {
                seen: vec![None; places],
                taken: Vec::new(),
                newest: 0,
                pages: Default::default(),
            }),
            layout,
            check,
            hint: AtomicU64::new(sight.hint()),
            sight,
            others: AtomicBool::new(false),
            missed: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            bell: Mutex::new(false),
            rung: Condvar::new(),
        };
        let mut desk = follower.desk.lock();
        follower.follow(&mut desk, Sight::search);
        follower.sweep(&mut desk);
        drop(desk);
        follower
    }

    /// Whether something has been published since the head was last looked for: two loads.
    #[inline]
    pub(crate) fn is_behind(&self) -> bool {
        // Relaxed: the head itself is loaded with what belongs to it.
        self.sight.hint() != self.hint.load(Ordering::Relaxed)
    }

    /// Sees to it that the head is the newest snapshot; `false` if there is none. It may be gone
    /// again by the time that it is looked at, since other threads give back what is outdated. Costs
    /// what `is_behind` costs while nothing changes.
    #[inline]
    pub(crate) fn catch_up(&self) -> bool {
        if self.is_behind() || self.ring.head().is_none() {
            return self.catch_up_now();
        }
        true
    }

    #[cold]
    fn catch_up_now(&self) -> bool {
        let mut desk = self.desk.lock();
        self.follow(&mut desk, Sight::newest);
        self.sweep(&mut desk);
        !self.ring.head().is_none()
    }

    /// Moves the head to the newest snapshot that can be believed.
    fn follow(&self, desk: &mut Desk, newest: impl Fn(&Sight) -> Word) {
        for again in 0..TRIES {
            let hint = self.sight.hint();
            let mut found = newest(&self.sight);
            if found.id() < desk.newest {
                // The hint is a stale one.
                found = self.sight.search();
            }
            if self.advance(desk, found) {
                // Relaxed: as in `is_behind`.
                self.hint.store(hint, Ordering::Relaxed);
                return;
            }
            // What was leased in vain keeps nobody.
            self.sweep(desk);
            if again >= YIELD_FROM {
                std::thread::yield_now();
            }
        }
    }

    /// Moves the head to this snapshot, or the next older one that is whole. `false`: the writer was
    /// faster, so try again.
    fn advance(&self, desk: &mut Desk, newest: Word) -> bool {
        let head = self.ring.head();
        let mut wanted = newest;
        while wanted.id() > head.id() && wanted.id() >= desk.newest {
            match self.believe_at(desk, wanted) {
                Ok(_) => {}
                // It is the newest, even so; whoever asks for it is told.
                Err(Miss::Foreign(_)) => self.ring.set_root(wanted.place(), 0),
                Err(Miss::Moved) => return false,
                Err(Miss::Lease(_)) => return true,
                Err(Miss::Rejected(_)) => {
                    wanted = self.sight.search_below(wanted.id());
                    continue;
                }
            }
            let swung = self.ring.swing(head, wanted);
            debug_assert!(swung.is_ok(), "F1: the lock orders all that moves the head");
            desk.newest = wanted.id();
            return true;
        }
        true
    }

    /// Leases a place and looks whether it can be believed to hold that snapshot. Answers the root's
    /// address. Leases that came to nothing go with the next `sweep`.
    fn believe_at(&self, desk: &mut Desk, word: Word) -> Result<usize, Miss> {
        let n = word.place();
        if desk.taken.contains(&n) {
            let other = desk.seen[n].as_ref().is_some_and(|seen| seen.id != word.id());
            if other && self.is_used(desk, n) {
                return Err(Miss::Rejected("it lies where this process leases another one".into()));
            }
        } else {
            self.sight.leases.take(n).map_err(Miss::Lease)?;
            desk.taken.push(n);
        }
        // L1: leased, and only now looked at.
        let (record, seal) = self.sight.record(n).ok_or(Miss::Moved)?;
        if record.id != word.id() {
            return Err(Miss::Moved);
        }
        let known = desk.seen[n].as_ref().filter(|seen| (seen.id, seen.seal) == (record.id, seal));
        let belief = match known {
            // The same seal of the same id: the same bytes.
            Some(seen) => seen.belief.clone(),
            None => {
                let mut table = None;
                let belief = self.examine(n, &record, &mut table, &mut desk.pages);
                let (id, root) = (record.id, record.root);
                desk.seen[n] = Some(Seen { id, seal, root, table, belief: belief.clone() });
                belief
            }
        };
        match belief {
            Belief::Checked(root) => {
                self.ring.set_root(n, root);
                Ok(root)
            }
            Belief::Foreign(difference) => Err(Miss::Foreign(difference)),
            Belief::Rejected(reason) => Err(Miss::Rejected(reason)),
        }
    }

    /// Checks a snapshot that is leased, as opening a caretaker does.
    fn examine(
        &self,
        n: usize,
        record: &Record,
        table: &mut Option<Arc<Table>>,
        seen: &mut [checker::Seen; 2],
    ) -> Belief {
        let (window, _) = self.sight.slot(n);
        let reject = |what: String| {
            let (path, index) = (window.path().display(), n % self.sight.slots());
            Belief::Rejected(format!("{path} place {index}: {what}").into())
        };
        if record.layout != self.layout.fingerprint {
            return match self.layout_text(window, record.schema) {
                Ok(text) => {
                    Belief::Foreign(clip(&first_difference(&text, &self.layout.text)).into())
                }
                Err(what) => reject(what),
            };
        }
        let (depth, most) = (record.depth, self.sight.max_depth);
        if depth > most {
            let why = format!("{depth} pointers deep, and `Options::max_depth` is {most}");
            return Belief::Foreign(why.into());
        }
        if record.root.len > MAX_ARCHIVE {
            return reject(format!("an archive of {} bytes", record.root.len));
        }
        let first_data = data_at(self.sight.ring);
        *table = match self.table(window, record) {
            Ok(table) => table.map(Arc::new),
            Err(what) => return reject(what),
        };
        let spans = table.as_ref().map(|table| table.spans(first_data));
        let ends = spans.iter().flatten().map(|span| span.end);
        let reach = ends.chain([record.root.offset.saturating_add(record.root.len)]).max();
        let pages = Reach { window, reach: reach.unwrap_or(0) };
        let checked = self.extent(window, record.root).and_then(|_| {
            let bytes = pages.bytes(record.root)?;
            let seen = &mut seen[n / self.sight.slots()];
            let mut sources =
                spans.map(|spans| Sources::new(&pages, record.root.offset, spans, seen));
            (self.check)(bytes, record.root_pos as usize, depth, sources.as_mut())?;
            Ok(bytes.as_ptr().addr() + record.root_pos as usize)
        });
        checked.map_or_else(reject, Belief::Checked)
    }

    /// The table of a record whose state has pages.
    fn table(&self, window: &Window, record: &Record) -> Result<Option<Table>, String> {
        let at = record.table;
        if at.len == 0 {
            return Ok(None);
        }
        if at.len > MAX_TABLE {
            return Err(format!("a table of pages of {} bytes", at.len));
        }
        let bytes = window.leased(at)?;
        if crc32fast::hash(bytes) != at.crc {
            return Err(format!("the checksum of {} bytes at {} does not fit", at.len, at.offset));
        }
        Table::decode(bytes, at, record.root.len, data_at(self.sight.ring)).map(Some)
    }

    /// The bytes of an extent, if it lies where extents do and its checksum fits.
    fn extent<'a>(&self, window: &'a Window, extent: Extent) -> Result<&'a [u8], String> {
        // A state without bytes still has a block.
        let block = Extent { len: extent.len.max(1), ..extent };
        blocks_of(block, data_at(self.sight.ring))?;
        window.leased(block)?;
        let bytes = window.leased(extent)?;
        if crc32fast::hash(bytes) == extent.crc {
            return Ok(bytes);
        }
        Err(format!("the checksum of {} bytes at {} does not fit", extent.len, extent.offset))
    }

    fn layout_text(&self, window: &Window, schema: Extent) -> Result<String, String> {
        if schema.len == 0 || schema.len > MAX_SCHEMA {
            return Err(format!("of another layout, whose text ({} bytes) is unread", schema.len));
        }
        let text = self.extent(window, schema);
        let text = text.map_err(|e| format!("of another layout, whose text is damaged: {e}"))?;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// A listed snapshot, held.
    pub(crate) fn hold(self: &Arc<Follower>, id: SnapshotId) -> Result<Hold, MementoError> {
        for again in 0..TRIES {
            let mut desk = self.desk.lock();
            let listed = self.sight.list();
            let Some((n, _)) = listed.iter().find(|(_, place)| place.id == id.get()) else {
                let newest = listed.first().map_or(0, |(_, place)| place.id).max(desk.newest);
                let oldest = listed.last().map(|(_, place)| SnapshotId::new(place.id));
                return Err(if id.get() > 0 && id.get() <= newest {
                    MementoError::Evicted { id, oldest }
                } else {
                    MementoError::Unknown { id }
                });
            };
            let found = self.believe_at(&mut desk, Word::new(id.get(), usize::from(*n)));
            let found = match found {
                Ok(_) => {
                    // R4: under the lock, and leased.
                    self.ring.hold(usize::from(*n));
                    Some(Ok(Hold::counted(self.clone(), usize::from(*n), id)))
                }
                Err(Miss::Moved) => None,
                Err(Miss::Lease(source)) => Some(Err(MementoError::Lease { id, source })),
                Err(Miss::Foreign(difference)) => {
                    Some(Err(MementoError::Layout { id, difference: difference.to_string() }))
                }
                Err(Miss::Rejected(reason)) => {
                    Some(Err(MementoError::Rejected { id, reason: reason.to_string() }))
                }
            };
            self.sweep(&mut desk);
            if let Some(found) = found {
                return found;
            }
            if again >= YIELD_FROM {
                std::thread::yield_now();
            }
        }
        Err(MementoError::Evicted { id, oldest: None })
    }

    /// The newest snapshot, held; `None` without one.
    pub(crate) fn hold_newest(self: &Arc<Follower>) -> Option<Hold> {
        while self.catch_up() {
            if let Some(word) = self.ring.hold_head() {
                let id = SnapshotId::new(word.id());
                return Some(Hold::counted(self.clone(), word.place(), id));
            }
        }
        None
    }

    /// The listed snapshots with what is known of each, newest first.
    pub(crate) fn listed(&self) -> Vec<Place> {
        let mut desk = self.desk.lock();
        let listed = self.sight.list().into_iter().map(|(n, mut place)| {
            let n = usize::from(n);
            let known = |desk: &Desk| {
                let seen = desk.seen[n].as_ref();
                seen.filter(|s| (s.id, s.seal) == (place.id, place.seal)).map(|s| s.belief.clone())
            };
            let foreign =
                place.layout != Some(self.layout.fingerprint) || place.depth > self.sight.max_depth;
            if foreign && known(&desk).is_none() {
                // To say what differs. Where it has just gone, nothing is said.
                _ = self.believe_at(&mut desk, Word::new(place.id, n));
            }
            place.trust = known(&desk).map_or(Trust::Unverified, Belief::into);
            place
        });
        let listed = listed.collect();
        self.sweep(&mut desk);
        listed
    }

    /// Why the newest snapshot cannot be read by this type, if that is so.
    pub(crate) fn difference(&self) -> Option<(SnapshotId, String)> {
        let head = self.ring.head();
        let desk = self.desk.lock();
        let seen = desk.seen.get(head.place())?.as_ref().filter(|seen| seen.id == head.id())?;
        match &seen.belief {
            Belief::Foreign(difference) => Some((SnapshotId::new(seen.id), difference.to_string())),
            _ => None,
        }
    }

    /// Whether anybody here uses a place that is leased.
    fn is_used(&self, desk: &Desk, n: usize) -> bool {
        let head = self.ring.head();
        let id = desk.seen[n].as_ref().map_or(0, |seen| seen.id);
        let mut used = (!head.is_none() && head.place() == n && self.ring.root(n) != 0)
            || self.ring.holds(n).0 > 0;
        self.ring.scan(|word| used |= word.bits() == Word::new(id.max(1), n).bits());
        used
    }

    /// Gives back every lease that nobody here uses (F2).
    pub(crate) fn sweep(&self, desk: &mut Desk) {
        let mut i = 0;
        while i < desk.taken.len() {
            let n = desk.taken[i];
            if self.is_used(desk, n) {
                i += 1;
            } else {
                desk.taken.swap_remove(i);
                self.sight.leases.give_back(n);
            }
        }
        let head = self.ring.head();
        let others = desk.taken.iter().any(|n| head.is_none() || *n != head.place());
        // Relaxed: it saves looking; whoever is told late looks at the next end of a read.
        self.others.store(others, Ordering::Relaxed);
    }
}

impl From<Belief> for Trust {
    fn from(belief: Belief) -> Trust {
        match belief {
            Belief::Checked(_) => Trust::Checked,
            Belief::Foreign(difference) => Trust::Foreign(difference),
            Belief::Rejected(reason) => Trust::Rejected(reason),
        }
    }
}

impl Keeper for Follower {
    fn ring(&self) -> &Ring {
        &self.ring
    }

    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn believe(&self, place: usize, id: u64) -> Result<(), MementoError> {
        let desk = self.desk.lock();
        let id = SnapshotId::new(id);
        match desk.seen[place].as_ref().map(|seen| &seen.belief) {
            Some(Belief::Checked(_)) => Ok(()),
            Some(Belief::Foreign(difference)) => {
                Err(MementoError::Layout { id, difference: difference.to_string() })
            }
            Some(Belief::Rejected(reason)) => {
                Err(MementoError::Rejected { id, reason: reason.to_string() })
            }
            None => Err(MementoError::Unknown { id }),
        }
    }

    fn archive(&self, place: usize) -> &[u8] {
        let root = self.desk.lock().seen[place].as_ref().map(|seen| seen.root);
        // It lay in the file when it was checked, and the file does not get shorter.
        root.and_then(|root| self.sight.slot(place).0.leased(root).ok()).unwrap_or_default()
    }

    fn names_hold(&self, _: usize) -> bool {
        // What is thawed here may be saved elsewhere.
        false
    }

    fn pages(&self, place: usize) -> Option<(Arc<Table>, Extent)> {
        let desk = self.desk.lock();
        let seen = desk.seen[place].as_ref()?;
        Some((seen.table.clone()?, seen.root))
    }

    fn extent(&self, place: usize, extent: Extent) -> &[u8] {
        self.sight.slot(place).0.leased(extent).unwrap_or_default()
    }

    fn wrote(&self, _: usize) -> bool {
        false
    }

    fn joined(&self) {}

    fn left(&self, place: usize) {
        self.ring.unhold(place);
        let head = self.ring.head();
        if self.ring.holds(place).0 == 0 && (head.is_none() || head.place() != place) {
            self.tidy_now();
        }
    }
}

#![forbid(unsafe_code)]
//! Written anew elsewhere: a snapshot whose sync failed, its own or its label's, or of which nobody
//! knows whether it is on the disk, gets its bytes copied to fresh blocks of the same file and the
//! same record in another slot page.
//!
//! Why elsewhere: a failed sync is reported once; from then on the pages look clean, and syncing
//! them again says yes and writes nothing. And the blocks may be what is wrong with the disk.
//!
//! The order, each step done before the next:
//!
//! 1. The bytes are copied and synced.
//! 2. Label note and record go to the new slot page. From here on there are *twins*: two sealed
//!    records of one snapshot. Opening takes one that passes and frees the other without a word.
//! 3. All slot pages of the file are synced, and the durable note written: it is on the disk. All,
//!    since what had its blocks before may be newer: were that one's seal whole on the disk still,
//!    it would come first after a loss of power, and the blocks be taken for its own.
//! 4. Under one lock: list, head and root name the new place, and the old one's seal is broken. It
//!    is unlisted from here on, like any other: mementos and readers keep it as long as they look.
//! 5. The old slot page is synced: power lost later brings back no twin, whose label may be older.
//!
//! While there are twins, label changes go to both, and what unlists the one breaks both seals. If
//! anything fails the new place is free again, and the snapshot stays where and what it was. Nothing
//! that was known to be on the disk is touched on the way.

use std::io;

use crate::{
    engine::{Engine, Place, Use, blocks_for},
    file::BLOCK,
    header::{HINT_AT, SLOTS_AT, Side},
    record::{Extent, RECORD_LEN, Record, SLOT_LEN, seal_of},
    ring::Word,
    space::Making,
};

/// A snapshot on its way to another place.
struct Relocation<'a> {
    /// Its old place, held.
    old: usize,
    making: Making<'a>,
    /// As it is to be, in the new place.
    record: Record,
    /// The layout text of its own, copied as well: where it lay, and the first block it has now.
    text: Option<(Extent, u64)>,
    /// Where the layout text is synced with it.
    schema: Option<Extent>,
    /// Its new record has been sealed: a reader in another process may have believed it.
    sealed: bool,
}

/// What came of a try.
enum Tried {
    Done,
    /// There is no space, or it has left the ring meanwhile, or its bytes do not fit their checksum.
    Left,
}

impl Engine {
    /// P4: where nothing is known to be on the disk, the newest snapshot that opening found is
    /// copied there before anything else is touched.
    pub(crate) fn copy_newest_found(&self) {
        let newest = {
            let state = self.lock();
            let newest = state.listed.front().copied();
            let found = |n: &u16| {
                let place = &state.places[usize::from(*n)];
                place.redirty && !place.tainted
            };
            newest.filter(found).filter(|_| state.steady.is_none())
        };
        if let Some(number) = newest {
            // Where it cannot be copied it is stored anew where it lies, with the others.
            self.try_relocate(number, u64::MAX);
        }
    }

    /// Writes elsewhere what failed syncs have left behind: the newest first, then kept ones, then
    /// the others while there is space. Ends at the first that fails again.
    pub(crate) fn write_anew(&self, upto: u64) {
        let mut tried = Vec::new();
        while let Some(number) = self.next_tainted(upto, &tried) {
            tried.push(number);
            if !self.try_relocate(number, upto) {
                return;
            }
        }
    }

    fn next_tainted(&self, upto: u64, tried: &[u16]) -> Option<u16> {
        let state = self.lock();
        let place = |number: u16| &state.places[usize::from(number)];
        let mut newest_first = state.listed.iter().copied().filter(|number| {
            place(*number).tainted && place(*number).id <= upto && !tried.contains(number)
        });
        let newest = newest_first.next()?;
        if tried.is_empty() {
            return Some(newest);
        }
        let kept = newest_first.find(|number| place(*number).label.is_some());
        Some(kept.filter(|_| place(newest).label.is_none()).unwrap_or(newest))
    }

    /// Relocates one snapshot. `false`: the disk refused.
    fn try_relocate(&self, number: u16, upto: u64) -> bool {
        match self.relocate(usize::from(number)) {
            Ok(Tried::Done | Tried::Left) => true,
            Err((side, error)) => {
                let upto = upto.min(self.lock().places[usize::from(number)].id);
                self.flusher.fail(self, self.files[side.index()].path(), &error, upto);
                false
            }
        }
    }

    fn relocate(&self, old: usize) -> Result<Tried, (Side, io::Error)> {
        let side = self.side_of(old);
        let Some(mut moved) = self.prepare(old) else { return Ok(Tried::Left) };
        let synced = self.copy(&moved).map_err(|e| (side, e));
        let sealed = match synced {
            Ok(true) => self.seal_twin(&mut moved).map_err(|e| (side, e)),
            Ok(false) => Ok(false),
            Err(error) => Err(error),
        };
        if !matches!(sealed, Ok(true)) {
            self.give_up(moved, sealed.is_err());
            return sealed.map(|_| Tried::Left);
        }
        if !self.arrive(moved) {
            return Ok(Tried::Left);
        }
        // Else the twin might be back after a loss of power, with another label.
        let synced = self.file_of(old).sync(self.slot_at(old), SLOT_LEN);
        synced.map(|()| Tried::Done).map_err(|e| (side, e))
    }

    /// Takes a place and blocks for it, and holds the old place. `None`: not now.
    fn prepare(&self, old: usize) -> Option<Relocation<'_>> {
        let side = self.side_of(old);
        let file = self.file_of(old);
        let mut state = self.lock();
        let place = &state.places[old];
        let again = place.moved && self.ring.head().place() == old;
        // Pages are not copied: other snapshots share them, and the next one writes all of them anew.
        let paged = place.table.is_some();
        if !place.listed || !(place.tainted || place.redirty) || again || paged {
            return None;
        }
        let blocks = blocks_for(place.root.len);
        let has_text = place.schema_run.is_some();
        let mut record = Record::decode(&file.read::<RECORD_LEN>(self.slot_at(old))).ok()??;
        self.reclaim(&mut state, side);
        // One place and one gap stay for the snapshot in the making.
        let spare = blocks_for(state.last_len + state.last_len / 8);
        if state.spaces[side.index()].free.len() < 2 {
            return None;
        }
        let own = record.layout == self.layout.fingerprint;
        if own && state.spaces[side.index()].schema.is_none() {
            let text = blocks_for(self.layout.text.len() as u64);
            state.spaces[side.index()].extents.gap(text)?;
            state = self.describe(state, side).ok()?;
            if !state.places[old].listed || state.places[old].id != record.id {
                return None;
            }
        }
        let text = (!own && has_text && record.schema.len > 0).then_some(record.schema);
        let text_blocks = text.map_or(0, |text| blocks_for(text.len));
        let want = blocks + text_blocks + spare;
        if state.spaces[side.index()].extents.gap(want).is_none() {
            let tail = state.spaces[side.index()].extents.tail();
            let end = self.run_at(tail + want);
            if end > file.max() {
                return None;
            }
            crate::sync::MutexGuard::unlocked(&mut state, || file.grow(end)).ok()?;
            let area = (file.len() - self.data_at()) / BLOCK;
            state.spaces[side.index()].extents.grow(area);
            if !state.places[old].listed || state.places[old].id != record.id {
                return None;
            }
        }
        let space = &mut state.spaces[side.index()];
        // Where both and the spare would fit: in one gap, one after the other.
        space.extents.gap(want)?;
        let run = space.extents.take(blocks)?;
        let text = match text {
            Some(text) => match space.extents.take(text_blocks) {
                Some(run) => Some((text, run)),
                None => {
                    space.extents.release(run);
                    return None;
                }
            },
            None => None,
        };
        let Some(index) = space.free.pop() else {
            space.extents.release(run);
            if let Some((_, run)) = text {
                space.extents.release(run);
            }
            return None;
        };
        record.index = index;
        record.root.offset = self.run_at(run);
        let mut schema = None;
        if let Some((text, run)) = text {
            record.schema = Extent { offset: self.run_at(run), ..text };
            schema = Some(record.schema);
        } else if own {
            record.schema = space.schema.unwrap_or_default();
            schema = space.schema.filter(|_| !space.schema_durable);
        }
        let n = self.number(side, index);
        state.places[n].state = Use::Making;
        state.making += 1;
        // R4: under the lock. Its bytes stay while they are copied.
        self.ring.hold(old);
        let lost = state.spaces[side.index()].lost;
        let making =
            Making { engine: self, side, index, run, blocks, lost, pages: None, sealed: false };
        Some(Relocation { old, making, record, text, schema, sealed: false })
    }

    /// Copies and syncs the bytes. `Ok(false)`: they are not what they were.
    fn copy(&self, moved: &Relocation<'_>) -> io::Result<bool> {
        let file = moved.making.file();
        let from = self.lock().places[moved.old].root;
        let to = moved.record.root;
        file.write(to.offset, file.retained(from));
        // What nobody has checked since opening is not carried on unseen.
        if crc32fast::hash(file.retained(to)) != to.crc {
            return Ok(false);
        }
        file.sync(to.offset, to.len.max(1))?;
        if let Some((text, _)) = moved.text {
            file.write(moved.record.schema.offset, file.retained(text));
        }
        if let Some(schema) = moved.schema {
            // Found, perhaps, and then as doubtful as the rest.
            file.redirty(schema.offset, schema.len)?;
            file.sync(schema.offset, schema.len)?;
        }
        Ok(true)
    }

    /// Seals the record in the new slot page and syncs that. `Ok(false)`: it has left the ring.
    fn seal_twin(&self, moved: &mut Relocation<'_>) -> io::Result<bool> {
        let (new, file) = (moved.making.number(), moved.making.file());
        let slots = self.slots() as u64 * SLOT_LEN;
        {
            let mut state = self.lock();
            let place = &state.places[moved.old];
            if !place.listed {
                return Ok(false);
            }
            // The label first: who finds the record finds it.
            self.write_label(new, place.id, place.label.as_deref());
            self.file_of(new).write_sealed(self.slot_at(new), &moved.record.encode());
            state.twins.push((moved.old, new));
            moved.sealed = true;
            // Under the lock: whoever seals stores into these pages.
            file.redirty(SLOTS_AT, slots)?;
        }
        file.sync(SLOTS_AT, slots)?;
        Ok(true)
    }

    /// It is on the disk: from now on it is there and nowhere else. `false`: it has left the ring.
    fn arrive(&self, mut moved: Relocation<'_>) -> bool {
        let (old, new) = (moved.old, moved.making.number());
        let mut state = self.lock();
        if !state.places[old].listed {
            drop(state);
            self.give_up(moved, false);
            return false;
        }
        state.twins.retain(|(of, _)| *of != old);
        let before = &state.places[old];
        let place = Place {
            seal: seal_of(&moved.record.encode()),
            root: moved.record.root,
            run: moved.making.run,
            schema_run: moved.text.map(|(_, run)| run),
            durable: true,
            tainted: false,
            redirty: false,
            quiet: false,
            forgotten: false,
            moved: true,
            leased_at: None,
            ..before.clone()
        };
        self.note(&place, new);
        let root = self.file_of(new).at(place.root.offset, place.root.len).addr().get();
        if self.ring.root(old) != 0 {
            self.ring.set_root(new, root + place.root_pos as usize);
        }
        let id = place.id;
        state.places[new] = place;
        for number in &mut state.listed {
            if usize::from(*number) == old {
                *number = new as u16;
            }
        }
        let left = &mut state.places[old];
        left.listed = false;
        left.quiet = false;
        left.label = None;
        let len = left.root.len;
        state.limbo.push(old as u16);
        state.unasked.places += 1;
        state.unasked.bytes += len;
        self.ring.relocate(id, old, new);
        let hint = self.files[0].word64(HINT_AT);
        if hint.load(std::sync::atomic::Ordering::Relaxed) == Word::new(id, old).bits() {
            // Relaxed: a hint, never believed without its record. The lock admits one writer.
            hint.store(Word::new(id, new).bits(), std::sync::atomic::Ordering::Relaxed);
        }
        if moved.record.layout == self.layout.fingerprint && moved.schema.is_some() {
            state.spaces[moved.making.side.index()].schema_durable = true;
        }
        state.counts.relocated += 1;
        state.making -= 1;
        moved.making.sealed = true;
        self.ring.unhold(old);
        self.cover(&mut state, new as u16);
        self.settled.notify_all();
        true
    }

    /// Leaves it where it was.
    fn give_up(&self, mut moved: Relocation<'_>, failed: bool) {
        let mut state = self.lock();
        let new = moved.making.number();
        self.file_of(new).unseal(self.slot_at(new), RECORD_LEN as u64);
        state.twins.retain(|(_, twin)| *twin != new);
        let schema_run = moved.text.map(|(_, run)| run);
        if moved.sealed {
            // Whoever has believed it leases it: it is freed like any other that was sealed (L2).
            state.places[new] = Place {
                state: Use::Sealed,
                id: moved.record.id,
                root: moved.record.root,
                run: moved.making.run,
                schema_run,
                unsealed: true,
                ..Place::free()
            };
            state.limbo.push(new as u16);
            state.making -= 1;
            moved.making.sealed = true;
            self.settled.notify_all();
        } else if let Some(run) = schema_run {
            state.spaces[moved.making.side.index()].extents.release(run);
        }
        if failed && moved.schema.is_some() && moved.text.is_none() {
            // It may be what failed.
            self.retire_schema(&mut state, moved.making.side);
        }
        self.ring.unhold(moved.old);
        drop(state);
        drop(moved.making);
    }
}

#[cfg(all(test, feature = "campaign"))]
mod tests {
    //! A relocation cut short at any point: a snapshot lost, found twice, or taken for durable.

    use std::sync::{Arc, Mutex};

    use crate::{
        Caretaker, Durability, Options, Snapshot, SnapshotId,
        campaign::{self, Call, Disk, Fault, Random},
    };

    #[derive(Snapshot, Debug, PartialEq)]
    struct Blob {
        bytes: Vec<u8>,
    }

    fn blob(n: u64) -> Blob {
        Blob { bytes: vec![n as u8; 5000 + n as usize] }
    }

    fn id(n: u64) -> SnapshotId {
        SnapshotId::new(n)
    }

    fn options() -> Options {
        Options::new().ring(4).file_size(1 << 20).durability(Durability::Process)
    }

    fn open(disk: &Disk) -> Caretaker<Blob> {
        campaign::open(disk, &options()).expect("opens")
    }

    /// Four snapshots, of which the first three are on the disk, and a failed sync of the fourth,
    /// kept, which is then relocated with success; in between, every disk that a kill or a loss of
    /// power might leave.
    fn left_behind(cuts: u64, seed: u64) -> (Vec<Disk>, Vec<Disk>) {
        let disk = Disk::new(seed);
        let caretaker = open(&disk);
        for n in 1..=3 {
            caretaker.save(&blob(n)).expect("saves");
        }
        caretaker.flush().expect("flushes");
        caretaker.save(&blob(4)).expect("saves");
        caretaker.keep(id(4), "four").expect("kept");
        let found = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let (here, there) = (disk.clone(), found.clone());
        let mut random = Random::new(seed);
        disk.at_each_step(Some(Box::new(move |_| {
            let mut found = there.lock().expect("no panic");
            found.0.push(here.killed());
            for _ in 0..cuts {
                here.write_back(&mut random, 8);
                found.1.push(here.cut(&mut random));
            }
        })));
        let fault = Fault { call: Call::Sync, after: 0, errno: libc::EIO, for_ever: false };
        disk.set_faults(vec![fault]);
        assert!(caretaker.flush().is_err(), "it is told");
        assert_eq!((disk.failed(), caretaker.durable()), (1, Some(id(4))));
        assert_eq!(caretaker.stats().relocated, 1);
        disk.at_each_step(None);
        let last = disk.cut(&mut Random::new(seed));
        let survived = open(&last);
        assert_eq!(survived.head(), Some(id(4)), "durable and not there: {}", survived.recovery());
        assert_eq!(survived.resume().expect("whole"), Some(blob(4)));
        campaign::kill(caretaker);
        let mut found = found.lock().expect("no panic");
        std::mem::take(&mut *found)
    }

    #[test]
    fn killed_at_any_store_or_call_a_relocation_loses_nothing_and_doubles_nothing() {
        let (killed, _) = left_behind(0, 7);
        assert!(killed.len() > 10, "{} points", killed.len());
        for (at, disk) in killed.iter().enumerate() {
            let caretaker = open(disk);
            let what = format!("killed at {at}: {}", caretaker.recovery());
            let history = caretaker.history();
            let ids: Vec<_> = history.iter().map(|e| e.id().get()).collect();
            assert_eq!(ids, [4, 3, 2, 1], "{what}");
            assert!(caretaker.recovery().rejected.is_empty(), "{what}");
            assert_eq!(history[0].label(), Some("four"), "{what}");
            for n in 1..=4 {
                let memento = caretaker.memento(id(n)).expect("there");
                assert_eq!(memento.thaw().expect("whole"), blob(n), "{what}");
            }
            // What it calls durable is, whatever else the power takes.
            assert!(caretaker.durable() >= Some(id(3)), "{what}");
            let durable = caretaker.flush().expect("flushes");
            assert_eq!(durable, Some(id(4)), "{what}");
            for seed in 0..4 {
                let survived = open(&disk.cut(&mut Random::new(seed)));
                assert_eq!(survived.head(), durable, "{what}: {}", survived.recovery());
                assert_eq!(survived.resume().expect("whole"), Some(blob(4)), "{what}");
            }
            assert!(caretaker.release("four"));
            for n in 5..=12 {
                caretaker.save(&blob(n)).expect("saves");
            }
            caretaker.flush().expect("flushes");
            campaign::kill(caretaker);
            let again = open(&disk.killed());
            let ids: Vec<_> = again.history().iter().map(|e| e.id().get()).collect();
            assert_eq!(ids, [12, 11, 10, 9], "{what}: once more");
        }
    }

    #[test]
    fn a_place_that_held_a_twin_is_the_next_ones_alone() {
        // Nothing is known to be on the disk: whoever opens keeps both.
        let disk = Disk::new(11);
        let caretaker = open(&disk);
        caretaker.save(&blob(1)).expect("saves");
        let killed = Arc::new(Mutex::new(Vec::new()));
        let (here, there) = (disk.clone(), killed.clone());
        disk.at_each_step(Some(Box::new(move |_| {
            there.lock().expect("no panic").push(here.killed());
        })));
        let fault = Fault { call: Call::Sync, after: 0, errno: libc::EIO, for_ever: false };
        disk.set_faults(vec![fault]);
        assert!(caretaker.flush().is_err(), "it is told");
        disk.at_each_step(None);
        campaign::kill(caretaker);
        let killed = std::mem::take(&mut *killed.lock().expect("no panic"));
        // It stays while the place is used again, and leaves after that.
        for (at, leaves) in (0..killed.len()).flat_map(|at| (3..40).map(move |n| (at, n))) {
            let disk = killed[at].killed();
            let caretaker = open(&disk);
            caretaker.keep(id(1), "one").expect("kept");
            // With a newer one it is made durable where it lies.
            caretaker.save(&blob(2)).expect("saves");
            caretaker.flush().expect("flushes");
            for n in 3..=leaves + 4 {
                if n == leaves {
                    assert!(caretaker.release("one"));
                    _ = caretaker.rollback(&mut blob(0), id(1)).expect("rolls back");
                } else {
                    caretaker.save(&blob(n)).expect("saves");
                }
                if n < leaves {
                    continue;
                }
                let listed = caretaker.history();
                let listed: Vec<_> = listed.iter().map(|e| e.id()).collect();
                let again = open(&disk.killed());
                let found: Vec<_> = again.history().iter().map(|e| e.id()).collect();
                assert_eq!(found, listed, "killed at {at}, {n} saved: {}", again.recovery());
                campaign::kill(again);
            }
            campaign::kill(caretaker);
        }
    }

    #[test]
    fn without_power_at_any_point_of_a_relocation_what_was_durable_is_there() {
        for seed in 0..3 {
            let (_, cut) = left_behind(4, seed);
            for (at, disk) in cut.iter().enumerate() {
                let caretaker = open(disk);
                let what = format!("cut {at} of seed {seed}: {}", caretaker.recovery());
                let head = caretaker.head().expect("a head").get();
                assert!(head == 3 || head == 4, "{what}");
                for n in 1..=head {
                    let memento = caretaker.memento(id(n)).unwrap_or_else(|| panic!("{n}, {what}"));
                    assert_eq!(memento.thaw().expect("whole"), blob(n), "{what}");
                }
                let ids = caretaker.history().len() as u64;
                assert_eq!(ids, head, "{what}");
            }
        }
    }
}

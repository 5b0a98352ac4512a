#![forbid(unsafe_code)]
//! The slot pages of a ring that somebody else writes, looked at by whole words: which snapshots
//! are sealed, which of them are listed, and which is the newest.
//!
//! Nothing here is leased, so it is news and no more: whoever wants the bytes leases the place and
//! looks again.

use crate::{
    engine::Place,
    follower::Sight,
    header::{HINT_AT, Side, slot_pages},
    record::{
        DurableNote, LABEL_AT, LABEL_LEN, NOTE_AT, NOTE_LEN, RECORD_LEN, Record, SLOT_LEN,
        decode_label, has_left, seal_of,
    },
    ring::{MAX_ID, Word},
    window::Window,
};

/// How often a list is begun anew because something was published meanwhile.
const TRIES: usize = 8;

impl Sight {
    pub(crate) fn slots(&self) -> usize {
        slot_pages(self.ring) as usize
    }

    pub(crate) fn places(&self) -> usize {
        2 * self.slots()
    }

    /// A place's file, and where its slot page lies.
    pub(crate) fn slot(&self, n: usize) -> (&Window, u64) {
        let slot_at = crate::header::SLOTS_AT + (n % self.slots()) as u64 * SLOT_LEN;
        (&self.windows[n / self.slots()], slot_at)
    }

    /// The writer's hint, as it is now.
    #[inline]
    pub(crate) fn hint(&self) -> u64 {
        self.windows[0].hint(HINT_AT)
    }

    /// The record that is sealed in a place, and its seal.
    pub(crate) fn record(&self, n: usize) -> Option<(Record, u32)> {
        let (window, at) = self.slot(n);
        let bytes = window.sealed::<RECORD_LEN>(at)?;
        let record = Record::decode(&bytes).ok().flatten()?;
        let side = Side::BOTH[n / self.slots()];
        let fits = record.file_id == self.file_ids[side.index()]
            && record.side == side
            && usize::from(record.index) == n % self.slots()
            && (1..MAX_ID).contains(&record.id);
        fits.then(|| (record, seal_of(&bytes)))
    }

    /// The newest snapshot, by the hint if there is something to it.
    pub(crate) fn newest(&self) -> Word {
        let hint = Word::from_bits(self.hint());
        let there = hint.place() < self.places()
            && self.record(hint.place()).is_some_and(|(record, _)| record.id == hint.id());
        if there { hint } else { self.search() }
    }

    /// The newest snapshot, whatever the hint says.
    pub(crate) fn search(&self) -> Word {
        self.search_below(u64::MAX)
    }

    /// The newest snapshot older than that.
    pub(crate) fn search_below(&self, id: u64) -> Word {
        let mut newest = Word::NONE;
        for n in 0..self.places() {
            if let Some((record, _)) = self.record(n)
                && record.id < id
                && record.id > newest.id()
            {
                newest = Word::new(record.id, n);
            }
        }
        newest
    }

    /// The listed snapshots and their places, newest first.
    pub(crate) fn list(&self) -> Vec<(u16, Place)> {
        let mut listed = Vec::new();
        for _ in 0..TRIES {
            let hint = self.hint();
            listed = (0..self.places()).filter_map(|n| Some((n as u16, self.found(n)?))).collect();
            if hint == self.hint() {
                break;
            }
        }
        listed.sort_by_key(|(_, place)| std::cmp::Reverse(place.id));
        listed.dedup_by_key(|(_, place)| place.id);
        // The newest counts even if it had left: then what was newer is lost.
        let newest = listed.first().map_or(0, |(_, place)| place.id);
        listed.retain(|(_, place)| !place.left || place.id == newest);
        // Between a seal and an eviction there is one too many.
        while listed.len() > self.ring as usize {
            let oldest = listed.iter().rposition(|(_, place)| place.label.is_none());
            match oldest {
                Some(oldest) => _ = listed.remove(oldest),
                None => break,
            }
        }
        listed
    }

    /// What a slot page says, its notes included.
    fn found(&self, n: usize) -> Option<Place> {
        let (record, seal) = self.record(n)?;
        let (window, at) = self.slot(n);
        let note = window.sealed::<NOTE_LEN>(at + NOTE_AT).and_then(|b| DurableNote::decode(&b));
        let noted =
            note.is_some_and(|n| (n.id, n.record_seal, n.boot) == (record.id, seal, self.boot));
        let label = window.sealed::<LABEL_LEN>(at + LABEL_AT);
        Some(Place {
            durable: noted || record.boot != self.boot,
            label: label.and_then(|b| decode_label(&b, record.id)).map(Into::into),
            left: label.is_some_and(|b| has_left(&b, record.id)),
            ..Place::found(&record, seal)
        })
    }
}

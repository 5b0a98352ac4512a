#![forbid(unsafe_code)]
//! Those who look on while others write: mementos held, readers come upon, places leased from another
//! process; and that what they look at does not change.

use snapring::{
    Memento, MementoError,
    campaign::{self, file_name, in_gap},
};

use super::{
    ledger::number_of,
    originator::Originator,
    play::{Player, id},
};

/// A memento that is held, and what it holds.
pub(super) struct Held<T: Originator> {
    memento: Memento<T>,
    number: u64,
}

/// What a reader in another process leases.
pub(super) struct Leased {
    id: u64,
    pub(super) place: usize,
    side: usize,
    /// Where, and what was there.
    parts: Vec<(u64, Vec<u8>)>,
}

impl<T: Originator> Player<T> {
    /// Held bytes are what they were, and the ring is what it should be.
    pub(super) fn compare(&self) -> Result<(), String> {
        for held in &self.held {
            let number = number_of(&held.memento)?;
            if number != held.number {
                let id = held.memento.id();
                return Err(format!("P1: {id} is held, and became {number} from {}", held.number));
            }
        }
        for Leased { id, side, parts, .. } in &self.leased {
            for (at, bytes) in parts {
                let now = self.life.disk.read(file_name(*side), *at, bytes.len() as u64);
                if now != *bytes {
                    return Err(format!("P1: {id} is leased by a reader, and has changed"));
                }
            }
        }
        let Some(caretaker) = self.life.caretaker() else { return Ok(()) };
        self.life.mind().ledger.agree(&caretaker)
    }

    pub(super) fn hold(&mut self) -> Result<(), String> {
        let Some(caretaker) = self.life.caretaker() else { return Ok(()) };
        let of = self.any_id();
        self.note(|| format!("hold {of}"));
        // Wherever a hold has a gap, others come by in it.
        self.others_in_gap(12, None);
        let known = self.life.mind().ledger.find(of).copied();
        let memento = caretaker.try_memento(id(of));
        in_gap(None);
        match (memento, known) {
            (Ok(memento), Some(known)) => {
                let number = number_of(&memento)?;
                if number != known.number {
                    return Err(format!(
                        "P1: {of} was held, and is {number}, not {}",
                        known.number
                    ));
                }
                if self.held.len() < 4 {
                    self.held.push(Held { memento, number });
                }
                Ok(())
            }
            (
                Err(
                    MementoError::Evicted { .. }
                    | MementoError::Unknown { .. }
                    | MementoError::Rejected { .. },
                ),
                None,
            ) => Ok(()),
            (other, known) => Err(format!("P1: holding {of} ({known:?}): {other:?}")),
        }
    }

    pub(super) fn let_go(&mut self) {
        if !self.held.is_empty() {
            let at = self.below(self.held.len() as u64) as usize;
            self.note(|| format!("let {:?} go", self.held[at].memento.id()));
            self.held.swap_remove(at);
        }
    }

    /// A reader in another process leases a snapshot, or gives one back. It looks at the record
    /// after it has the lease (L1): here nobody comes in between.
    pub(super) fn lease(&mut self) {
        if self.leased.len() >= 2 {
            let gone = self.leased.swap_remove(0);
            self.note(|| format!("the lease of {} ends", gone.id));
            if !self.leased.iter().any(|other| other.place == gone.place) {
                self.life.disk.lease(gone.place, false);
            }
            return;
        }
        let of = self.any_id();
        let Some(caretaker) = self.life.caretaker() else { return };
        if let Some((place, side, parts)) = campaign::place(&caretaker, id(of)) {
            self.note(|| format!("{of} is leased"));
            self.life.disk.lease(place, true);
            let read = |part: std::ops::Range<u64>| {
                let bytes = self.life.disk.read(file_name(side), part.start, part.end - part.start);
                (part.start, bytes)
            };
            let parts = parts.into_iter().map(read).collect();
            self.leased.push(Leased { id: of, place, side, parts });
        }
    }

    /// A reader whom others come upon before it has announced, and while it reads.
    pub(super) fn read(&mut self) -> Result<(), String> {
        let Some(caretaker) = self.life.caretaker() else { return Ok(()) };
        self.note(|| "read".to_owned());
        let (since, at_start) = {
            let mind = self.life.mind();
            (mind.ledger.published.len(), mind.ledger.listed.first().map(|k| k.number))
        };
        self.others_in_gap(12, None);
        let slow = self.below(2) == 0;
        let life = self.life.clone();
        let seen = caretaker.read(|archived| {
            let first = T::number_in(archived);
            if slow {
                life.mind().note(|| "  slow".to_owned());
                life.others_save(12);
            }
            (first, T::number_in(archived))
        });
        in_gap(None);
        let mind = self.life.mind();
        match seen {
            None if at_start.is_none() => Ok(()),
            Some((Some(first), Some(last))) if first == last => {
                let mut later = mind.ledger.published[since..].iter().map(|(_, number)| *number);
                if at_start == Some(first) || later.any(|number| number == first) {
                    Ok(())
                } else {
                    Err(format!("P2: a read saw {first}, which was not the head meanwhile"))
                }
            }
            other => Err(format!("P1: a read saw {other:?}")),
        }
    }
}

#![forbid(unsafe_code)]
//! The slow, obvious model: what has been reported so far, as plain lists, and whether what a
//! recovery finds agrees with it.
//!
//! Knows ids and numbers of states. Disks, hooks and chance are for others.

use std::collections::VecDeque;

use snapring::{Caretaker, Event, Memento, Recovery, SnapshotId};

use super::originator::Originator;

/// A listed snapshot, as it was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) id: u64,
    /// The number of its state.
    pub(crate) number: u64,
    /// 0 for A, 1 for B.
    pub(crate) side: usize,
    /// The number of its label.
    pub(crate) label: Option<u8>,
    /// Its label, or that it has none, is on the disk.
    pub(crate) noted: bool,
    /// It was called durable, whatever `durable()` says.
    pub(crate) durable: bool,
}

/// A listed snapshot, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: u64,
    /// The number of its state; `None` where the engine refused it.
    pub(crate) number: Option<u64>,
    pub(crate) label: Option<u8>,
    /// Why the engine refused it.
    pub(crate) refused: Option<String>,
}

/// What is on its way when a crash comes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moving {
    pub(crate) label: u8,
    /// The snapshot that gets it; none where it is given up.
    pub(crate) to: Option<u64>,
}

/// What lies on the disk when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// A kill, or a clean close: everything is in the page cache.
    Kill,
    /// The loss of power, perhaps with kills before and after it.
    Cut,
    /// The loss of one file or both.
    Loss,
}

/// What has been reported.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    /// Snapshots that the ring lists.
    pub(crate) ring: usize,
    /// Newest first.
    pub(crate) listed: Vec<Known>,
    /// Every id that was ever given to anything, with the number of its state.
    pub(crate) published: Vec<(u64, u64)>,
    pub(crate) highest: u64,
    /// The highest id that `durable()` has covered.
    pub(crate) durable: u64,
    /// States in the making, the innermost last.
    pub(crate) making: Vec<u64>,
    /// Captured states, the oldest first: they are published before anything that came after them.
    pub(crate) captured: VecDeque<u64>,
    /// Those that were published.
    pub(crate) arrived: Vec<u64>,
    /// Something was captured: what came after it took its side when that had not been published.
    pub(crate) sides_vary: bool,
    /// Evicted since the operation under way began.
    pub(crate) leaving: Vec<Known>,
    pub(crate) moving: Option<Moving>,
    pub(crate) after: After,
    /// A recovery has been crashed: what it found sealed in the making, it may have taken for
    /// published.
    pub(crate) deep: bool,
    /// States that were in the making when a crash came, and were not found: they may be back after
    /// another one.
    ghosts: Vec<u64>,
    /// Slot pages that did not pass at the last opening: side and place.
    rejected: Vec<(usize, u16)>,
}

/// What is told of a capture that was not published, and of one that was.
const FAILED_CAPTURE: &str = "a capture came to nothing";
const NOT_DURABLE: &str = "was published, but";

/// A side that only the engine knows.
const UNKNOWN: usize = usize::MAX;

/// The text of a label.
pub(crate) fn label(n: u8) -> String {
    format!("label {n}")
}

fn label_number(text: Option<&str>) -> Option<u8> {
    text?.strip_prefix("label ")?.parse().ok()
}

/// The number of a memento's state; what is wrong if it holds a mixture.
pub(crate) fn number_of<T: Originator>(memento: &Memento<T>) -> Result<u64, String> {
    T::number_in(memento.archived()).ok_or_else(|| format!("P1: {} holds a mixture", memento.id()))
}

/// Everything listed, newest first.
pub(crate) fn look<T: Originator>(caretaker: &Caretaker<T>) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    for entry in caretaker.history() {
        let (number, refused) = match caretaker.try_memento(entry.id()) {
            Ok(memento) => (Some(number_of(&memento)?), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let (id, label) = (entry.id().get(), label_number(entry.label()));
        found.push(Found { id, number, label, refused });
    }
    Ok(found)
}

impl Ledger {
    pub(crate) fn new(ring: usize) -> Ledger {
        Ledger {
            ring,
            listed: Vec::new(),
            published: Vec::new(),
            highest: 0,
            durable: 0,
            making: Vec::new(),
            captured: VecDeque::new(),
            arrived: Vec::new(),
            sides_vary: false,
            leaving: Vec::new(),
            moving: None,
            after: After::Kill,
            deep: false,
            ghosts: Vec::new(),
            rejected: Vec::new(),
        }
    }

    pub(crate) fn find(&self, id: u64) -> Option<&Known> {
        self.listed.iter().find(|known| known.id == id)
    }

    /// The newest: what is published next may have it evicted before it is told itself.
    fn newest(&self) -> Option<&Known> {
        self.listed.iter().chain(&self.leaving).max_by_key(|known| known.id)
    }

    /// The number of what was published under an id.
    pub(crate) fn number_of(&self, id: u64) -> Option<u64> {
        self.number(id)
    }

    /// What an id that nothing was published under may hold: what is in the making, or was when a
    /// crash came.
    pub(crate) fn maybe(&self, _id: u64) -> Vec<u64> {
        self.making.iter().chain(&self.captured).chain(&self.ghosts).copied().collect()
    }

    fn number(&self, id: u64) -> Option<u64> {
        self.published.iter().rev().find(|(known, _)| *known == id).map(|(_, number)| *number)
    }

    /// An operation begins: what left before it has gone.
    pub(crate) fn begin(&mut self) {
        self.leaving.clear();
        self.moving = None;
    }

    /// Takes note of an event.
    pub(crate) fn hear(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Saved { id } => {
                let captured = self.captured.pop_front();
                self.arrived.extend(captured);
                let number = captured.or_else(|| self.making.pop());
                let number = number.ok_or_else(|| format!("{id} was saved by nobody"))?;
                let newest = self.newest().filter(|_| !self.sides_vary);
                let first = if self.sides_vary { UNKNOWN } else { 0 };
                let side = newest
                    .map_or(first, |newest| 1_usize.checked_sub(newest.side).unwrap_or(UNKNOWN));
                self.publish(id.get(), number, side)
            }
            Event::RolledBack { id, from, to } => {
                let head = self.newest().map(|newest| newest.id);
                if from.map(SnapshotId::get) != head {
                    return Err(format!("P2: {id} left {from:?}, and the head was {head:?}"));
                }
                let held = self.listed.iter().chain(&self.leaving).find(|k| k.id == to.get());
                // A checkpoint's target may have left long ago.
                let side = held.map_or(UNKNOWN, |target| target.side);
                let number = self.number(to.get()).ok_or_else(|| format!("{to} is nobody's"))?;
                self.making.pop();
                self.publish(id.get(), number, side)
            }
            Event::Evicted { id } => {
                let at = self.listed.iter().position(|known| known.id == id.get());
                let at = at.ok_or_else(|| format!("{id} was evicted, and was not listed"))?;
                let known = self.listed.remove(at);
                let kept =
                    known.label.filter(|label| self.moving.is_none_or(|m| m.label != *label));
                if at == 0 && !self.is_making() || kept.is_some() {
                    return Err(format!("{id} was evicted, and is the newest or kept"));
                }
                self.leaving.push(known);
                Ok(())
            }
            Event::Durable { id } => {
                self.durable = self.durable.max(id.get());
                Ok(())
            }
            // What was published and is not on the disk has been told as saved.
            Event::Failed { message }
                if message.starts_with(FAILED_CAPTURE) && !message.contains(NOT_DURABLE) =>
            {
                let gone = self.captured.pop_front();
                gone.map(drop).ok_or_else(|| format!("nobody captured anything: {message}"))
            }
            Event::Rejected { id, reason } => Err(format!("P3: {id} was rejected: {reason}")),
            Event::Lagged { missed } => Err(format!("{missed} events are missing")),
            _ => Ok(()),
        }
    }

    fn publish(&mut self, id: u64, number: u64, side: usize) -> Result<(), String> {
        if id <= self.highest {
            return Err(format!("id {id} was given out again; {} had been reached", self.highest));
        }
        self.highest = id;
        self.published.push((id, number));
        let known = Known { id, number, side, label: None, noted: true, durable: false };
        self.listed.insert(0, known);
        Ok(())
    }

    fn is_making(&self) -> bool {
        !self.making.is_empty() || !self.captured.is_empty()
    }

    /// A label has been set.
    pub(crate) fn keep(&mut self, id: u64, label: u8) {
        let same = |k: &&mut Known| k.label == Some(label) && k.id != id;
        for old in self.listed.iter_mut().filter(same) {
            (old.label, old.noted) = (None, false);
        }
        if let Some(new) = self.listed.iter_mut().find(|k| k.id == id && k.label != Some(label)) {
            (new.label, new.noted) = (Some(label), false);
        }
    }

    /// A label has been given up.
    pub(crate) fn release(&mut self, label: u8) {
        for old in self.listed.iter_mut().filter(|k| k.label == Some(label)) {
            (old.label, old.noted) = (None, false);
        }
    }

    /// The caretaker lists what it should, and its claims are taken down.
    pub(crate) fn agree<T: Originator>(&mut self, caretaker: &Caretaker<T>) -> Result<(), String> {
        let entries = caretaker.history();
        let same = entries.len() == self.listed.len()
            && entries.iter().zip(&self.listed).all(|(entry, known)| {
                entry.id().get() == known.id && label_number(entry.label()) == known.label
            });
        if !same {
            let listed: Vec<_> = entries.iter().map(|e| (e.id().get(), e.label())).collect();
            return Err(format!("P2: {listed:?} are listed, not {:?}", self.listed));
        }
        let head = caretaker.head().map(SnapshotId::get);
        if head != self.listed.first().map(|newest| newest.id) {
            return Err(format!("P2: the head is {head:?}, and {:?} are listed", self.listed));
        }
        for (entry, known) in entries.iter().zip(&mut self.listed) {
            known.durable |= entry.is_durable();
        }
        for ((_, side), known) in snapring::campaign::sides(caretaker).iter().zip(&mut self.listed)
        {
            if known.side != *side && known.side != UNKNOWN {
                return Err(format!("{} lies on side {side}, not {}", known.id, known.side));
            }
            known.side = *side;
        }
        self.durable = self.durable.max(caretaker.durable().map_or(0, SnapshotId::get));
        Ok(())
    }

    /// The files of these sides are lost.
    pub(crate) fn lose(&mut self, sides: &[usize]) {
        self.listed.retain(|known| !sides.contains(&known.side));
        for known in &mut self.listed {
            known.durable |= known.id <= self.durable;
        }
        self.durable = 0;
        self.after = After::Loss;
    }

    /// What was found agrees with what had been reported.
    pub(crate) fn check(&self, found: &[Found], recovery: &Recovery) -> Result<(), String> {
        let told = || {
            let Ledger { listed, durable, making, leaving, after, highest, .. } = self;
            format!(
                "after {after:?} found {found:?}; listed were {listed:?}, durable up to {durable}, \
                 in the making {making:?} after {highest}, leaving {leaving:?}; {recovery}"
            )
        };
        if !found.windows(2).all(|pair| pair[0].id > pair[1].id) {
            return Err(format!("P2: not newest first: {}", told()));
        }
        if recovery.chosen.map(SnapshotId::get) != found.first().map(|f| f.id) {
            return Err(format!("P3: the newest is not the head: {}", told()));
        }
        let goes = self.goes(found.iter().map(|one| one.id));
        for known in &self.listed {
            let must = match self.after {
                _ if goes.contains(&known.id) => false,
                After::Kill | After::Loss => true,
                After::Cut => self.must_outlive_a_cut(known),
            };
            let Some(one) = found.iter().find(|f| f.id == known.id) else {
                if must {
                    let promise = if self.after == After::Cut { "P4" } else { "P3" };
                    return Err(format!("{promise}: {} is lost: {}", known.id, told()));
                }
                continue;
            };
            if must && one.number.is_none() {
                return Err(format!("P4: {} is refused: {}", known.id, told()));
            }
            let certain = self.after == After::Kill || known.noted && known.label.is_some();
            if certain && must && !self.may_be(known, one.label) {
                return Err(format!("{} has another label: {}", known.id, told()));
            }
        }
        for one in found {
            let mut number = self.number(one.id);
            let new = one.id > self.highest;
            let made = |found| self.making.contains(&found) || self.captured.contains(&found);
            if new && one.number.is_some_and(made) {
                number = one.number;
            }
            let Some(number) = number else {
                // In the making when power was lost, now or earlier.
                let ghost = one.number.is_none_or(|number| self.ghosts.contains(&number));
                if self.after == After::Cut && ghost {
                    continue;
                }
                return Err(format!("P4: nobody made {}: {}", one.id, told()));
            };
            if one.number.is_some_and(|found| found != number) {
                return Err(format!("P4: {} holds what is not its own: {}", one.id, told()));
            }
            let leaving = self.leaving.iter().any(|k| k.id == one.id);
            if self.after == After::Kill && !new && !leaving && self.find(one.id).is_none() {
                return Err(format!("P3: {} had been evicted: {}", one.id, told()));
            }
        }
        let rejected = recovery.rejected.iter().map(|slot| (slot.side as usize, slot.place));
        if self.after == After::Kill
            && rejected.into_iter().any(|slot| !self.rejected.contains(&slot))
        {
            return Err(format!("P3: something was rejected: {}", told()));
        }
        let head = found.iter().find(|f| f.number.is_some()).map_or(0, |f| f.id);
        if head < self.durable {
            return Err(format!("P4: what is left is older than what was durable: {}", told()));
        }
        Ok(())
    }

    /// Whether a listed snapshot must be found after power is lost.
    pub(crate) fn must_outlive_a_cut(&self, known: &Known) -> bool {
        // A label that is not on the disk may be gone, and its snapshot with it.
        (known.durable || known.id <= self.durable) && (known.label.is_none() || known.noted)
    }

    /// Where what was in the making is found, it has been published: then the oldest go for it.
    pub(crate) fn goes(&self, mut found: impl Iterator<Item = u64>) -> Vec<u64> {
        let found = usize::from(found.any(|id| id > self.highest));
        let new = found.max(usize::from(self.deep && self.is_making()));
        let excess = (self.listed.len() + new).saturating_sub(self.ring);
        let unlabelled = self.listed.iter().rev().filter(|known| known.label.is_none());
        unlabelled.map(|known| known.id).take(if new > 0 { excess } else { 0 }).collect()
    }

    fn may_be(&self, known: &Known, label: Option<u8>) -> bool {
        let gets = |m: Moving| m.to == Some(known.id) && label == Some(m.label);
        // The old label goes first where a snapshot gets another one.
        let loses =
            |m: Moving| (known.label == Some(m.label) || m.to == Some(known.id)) && label.is_none();
        label == known.label || self.moving.is_some_and(|m| gets(m) || loses(m))
    }

    /// What was found is what is there from now on.
    pub(crate) fn adopt<T: Originator>(
        &mut self,
        found: &[Found],
        caretaker: &Caretaker<T>,
    ) -> Result<(), String> {
        let mut listed = Vec::new();
        let sides = snapring::campaign::sides(caretaker);
        for one in found {
            let Some(number) = one.number else { continue };
            if self.number(one.id).is_none() {
                self.published.push((one.id, number));
            }
            let side =
                sides.iter().find(|(id, _)| *id == one.id).map_or(UNKNOWN, |(_, side)| *side);
            let known = self.listed.iter().chain(&self.leaving).find(|known| known.id == one.id);
            listed.push(Known {
                id: one.id,
                number,
                side,
                label: one.label,
                noted: self.after == After::Cut
                    || known.is_some_and(|k| k.noted && k.label == one.label),
                durable: known.is_some_and(|k| k.durable),
            });
        }
        let rejected = caretaker.recovery().rejected.iter();
        self.rejected = rejected.map(|slot| (slot.side as usize, slot.place)).collect();
        self.highest = self.highest.max(found.first().map_or(0, |f| f.id));
        self.listed = listed;
        self.ghosts.append(&mut self.making);
        self.ghosts.extend(std::mem::take(&mut self.captured));
        self.sides_vary = false;
        self.begin();
        self.after = After::Kill;
        self.deep = false;
        self.agree(caretaker)
    }
}

#![forbid(unsafe_code)]
//! What is done in a life, drawn by chance, each thing with what must come of it.

use std::{sync::Arc, time::Duration};

use snapring::{
    GuardError, KeepError, Pending, RollbackError, SnapshotId,
    campaign::{self, Call, Clock, Fault, in_gap, set_clock},
};

use super::{
    ledger::{Moving, label, number_of},
    life::{Life, caught},
    onlookers::{Held, Leased},
    originator::{Originator, PANIC, Verdict, amid_archiving, cells},
};

/// The one who plays.
pub(crate) struct Player<T: Originator> {
    pub(super) life: Arc<Life<T>>,
    pub(super) state: T,
    pub(super) held: Vec<Held<T>>,
    pub(super) leased: Vec<Leased>,
    /// What was captured, with the numbers of the states.
    pub(super) pending: Vec<(Pending, u64)>,
}

/// What a guarded change answers.
const WRONG: &str = "it went wrong";

/// Errors that disks answer.
const ERRORS: [i32; 2] = [libc::EIO, libc::ENOSPC];

/// Calls that can fail.
const CALLS: [Call; 9] = [
    Call::Sync,
    Call::Sync,
    Call::Sync,
    Call::SyncHeader,
    Call::SyncFloor,
    Call::SyncAll,
    Call::SyncNames,
    Call::Reserve,
    Call::Write,
];

impl<T: Originator> Player<T> {
    pub(crate) fn new(life: &Arc<Life<T>>) -> Player<T> {
        let state = T::of(life.mind().small());
        Player {
            life: life.clone(),
            state,
            held: Vec::new(),
            leased: Vec::new(),
            pending: Vec::new(),
        }
    }

    pub(super) fn below(&self, end: u64) -> u64 {
        self.life.mind().random.below(end)
    }

    pub(super) fn note(&self, what: impl FnOnce() -> String) {
        self.life.mind().note(what);
    }

    /// Lets all mementos and leases go.
    pub(crate) fn end(self) {
        for leased in &self.leased {
            self.life.disk.lease(leased.place, false);
        }
        drop(self.held);
    }

    /// One operation, and whether all is well after it.
    pub(crate) fn play(&mut self) -> Result<(), String> {
        {
            let mut mind = self.life.mind();
            mind.ledger.begin();
            mind.counts.operations += 1;
        }
        match self.below(if T::PAGED { 48 } else { 40 }) {
            0..12 => self.save()?,
            40..45 => self.capture()?,
            45..48 => self.finish_capture()?,
            12..16 => self.roll_back(false)?,
            16..18 => self.roll_back(true)?,
            18..20 => self.guard()?,
            20 | 21 => self.keep()?,
            22 => self.release()?,
            23 | 24 => self.hold()?,
            25 if self.below(2) == 0 => self.let_go(),
            25 => self.lease(),
            26 | 27 => self.read()?,
            28..31 => self.flush()?,
            31..34 => self.background(),
            34 | 35 => self.write_back(),
            36 => self.pass_time(),
            37 => self.fill_disk(),
            38 => self.resume()?,
            _ => self.break_disk(),
        }
        in_gap(None);
        amid_archiving(None);
        self.compare()?;
        self.hear_of_captures()?;
        let mut mind = self.life.mind();
        mind.hear();
        mind.ledger.making.clear();
        match mind.failure.take() {
            Some(wrong) => Err(wrong),
            None => Ok(()),
        }
    }

    /// A number of a state of any size: now and then one that the file has no room for.
    pub(super) fn any_number(&self) -> u64 {
        let mut mind = self.life.mind();
        if T::PAGED && mind.random.one_in(2) {
            // Then most pages stay.
            return mind.number(cells(self.state.number()) as u64);
        }
        let most = match mind.random.below(12) {
            0 => 1,
            1..3 => 6000,
            3..6 => 2000,
            _ => 600,
        };
        let cells = mind.random.below(most);
        mind.number(cells)
    }

    /// One of the listed snapshots, or one that is not there.
    pub(super) fn any_id(&self) -> u64 {
        let mut mind = self.life.mind();
        let listed = mind.ledger.listed.len() as u64;
        if listed == 0 || mind.random.one_in(12) {
            let highest = mind.ledger.highest;
            return 1 + mind.random.below(highest + 3);
        }
        let at = mind.random.below(listed) as usize;
        mind.ledger.listed[at].id
    }

    fn is_listed(&self, id: u64) -> bool {
        self.life.mind().ledger.find(id).is_some()
    }

    fn save(&mut self) -> Result<(), String> {
        let number = self.any_number();
        self.note(|| format!("save {number}"));
        self.state.turn_into(number);
        self.disturb_archiving();
        self.life.save(&self.state)?;
        Ok(())
    }

    /// The archiving to come goes wrong, or others come by in its middle.
    pub(super) fn disturb_archiving(&self) {
        let verdict = match self.below(8) {
            0 => Verdict::Refuse,
            1 => Verdict::Panic,
            _ => Verdict::Go,
        };
        let life = Arc::downgrade(&self.life);
        amid_archiving(Some(Box::new(move || {
            let Some(life) = life.upgrade() else { return verdict };
            let mut mind = life.mind();
            let (some, image) = (mind.random.one_in(3), mind.random.one_in(2));
            if some {
                mind.note(|| "  amid archiving".to_owned());
            }
            match life.caretaker() {
                Some(caretaker) if some && !image => {
                    drop(mind);
                    campaign::finish_capture(&caretaker);
                    campaign::background(&caretaker);
                    let mut mind = life.mind();
                    mind.hear();
                    mind.before = mind.ledger.listed.clone();
                }
                _ if some => life.happen(mind, false),
                _ => drop(mind),
            }
            verdict
        })));
    }

    /// Somebody else saves in the next gap; then a rollback `to` goes on.
    pub(super) fn others_in_gap(&self, most: u64, to: Option<u64>) {
        if self.below(2) == 0 {
            return;
        }
        let life = Arc::downgrade(&self.life);
        let mut once = true;
        in_gap(Some(Box::new(move || {
            if let Some(life) = life.upgrade().filter(|_| std::mem::take(&mut once)) {
                life.mind().note(|| "  in the gap".to_owned());
                life.others_save(most);
                let mut mind = life.mind();
                let number = to.and_then(|to| Some(mind.ledger.find(to)?.number));
                mind.ledger.making = number.into_iter().collect();
            }
        })));
    }

    fn roll_back(&mut self, from: bool) -> Result<(), String> {
        let Some(caretaker) = self.life.caretaker() else { return Ok(()) };
        let (to, was) = (self.any_id(), self.state.number());
        let mut expected = caretaker.head().map_or(1, SnapshotId::get);
        if self.below(4) == 0 {
            expected = self.any_id();
        }
        self.note(|| format!("roll back to {to}, expecting {expected}: {from}"));
        {
            let mut mind = self.life.mind();
            let number = mind.ledger.find(to).map(|known| known.number);
            if number.is_none() {
                // It may be captured, and be published first.
                let captured = mind.ledger.captured.clone();
                mind.ledger.making.extend(captured);
            }
            mind.ledger.making.extend(number);
        }
        self.others_in_gap(3, Some(to));
        let state = &mut self.state;
        let done = caught(|| match from {
            false => caretaker.rollback(state, id(to)),
            true => caretaker.rollback_from(id(expected), state, id(to)),
        })?;
        in_gap(None);
        let mut mind = self.life.mind();
        mind.hear();
        mind.ledger.making.clear();
        mind.note(|| format!("  {done:?}"));
        let new = match done {
            Some(Ok(done)) => Some(done.id().get()),
            Some(Err(RollbackError::Unpublished {
                source: snapring::SaveError::NotDurable { id, .. },
                ..
            })) => Some(id.get()),
            _ => None,
        };
        if let Some(new) = new {
            let head = mind.ledger.listed.first().copied();
            let Some(head) = head.filter(|head| head.id == new) else {
                return Err(format!("P2: {new} was published, and {head:?} is the head"));
            };
            drop(mind);
            if self.state != T::of(head.number) {
                return Err(format!("P5: rolled back to {to}, and the state is {:?}", self.state));
            }
            let parent = caretaker.history().first().and_then(|e| e.parent().map(SnapshotId::get));
            if from && parent != Some(expected) {
                return Err(format!("P2: {new} left {parent:?}, and {expected} was expected"));
            }
            return Ok(());
        }
        drop(mind);
        if self.state != T::of(was) {
            return Err(format!("P5: rolling back was refused, and the state is {:?}", self.state));
        }
        match done {
            Some(Err(RollbackError::Raced { now })) if from && now != Some(id(expected)) => Ok(()),
            Some(Err(RollbackError::NoPlace { .. })) => Ok(()),
            Some(Err(
                RollbackError::Evicted { .. }
                | RollbackError::Unknown { .. }
                | RollbackError::Rejected { .. },
            )) if !self.is_listed(to) => Ok(()),
            other => Err(format!("P5: rolling back to {to}: {other:?}")),
        }
    }

    fn guard(&mut self) -> Result<(), String> {
        let Some(caretaker) = self.life.caretaker() else { return Ok(()) };
        let (was, new, way) = (self.state.number(), self.any_number(), self.below(3));
        let between = self.below(3);
        self.note(|| format!("guard {was}, changing to {new}, way {way}"));
        self.life.mind().ledger.making.push(was);
        let (life, state) = (self.life.clone(), &mut self.state);
        let mut ran = false;
        let done = caught(|| {
            caretaker.guard(state, |state| {
                ran = true;
                life.mind().hear();
                let before = caretaker.latest();
                state.turn_into(new);
                if between > 0 {
                    life.others_save(between);
                }
                // What the guard holds, and may have left the ring.
                if before.as_ref().map(number_of).transpose()? != Some(was) {
                    return Err("P1: what a guard holds has changed".to_owned());
                }
                if way > 0 {
                    // What is rolled back to.
                    life.mind().ledger.making.push(was);
                }
                match way {
                    0 => Ok(()),
                    1 => Err(WRONG.to_owned()),
                    _ => std::panic::panic_any(PANIC),
                }
            })
        })?;
        let mut mind = self.life.mind();
        mind.hear();
        mind.ledger.making.clear();
        mind.note(|| {
            format!("  {:?}", done.as_ref().map(|d| d.as_ref().map_err(ToString::to_string)))
        });
        drop(mind);
        let wanted = match &done {
            Some(Ok(())) if way == 0 => new,
            Some(Err(GuardError::Failed { error, .. })) if error == WRONG => was,
            Some(Err(GuardError::Panicked { message, .. })) if way == 2 && message == PANIC => was,
            Some(Err(GuardError::Save { .. })) if !ran => was,
            // Published, but not on the disk.
            Some(Err(GuardError::Rollback {
                source: RollbackError::Unpublished { .. }, ..
            })) => was,
            Some(Err(GuardError::Rollback { source: RollbackError::NoPlace { .. }, .. })) => new,
            other => {
                return Err(format!(
                    "P5: guarding: {:?}",
                    other.as_ref().map(|d| d.as_ref().map_err(|e| e.to_string()))
                ));
            }
        };
        if self.state != T::of(wanted) {
            return Err(format!("P5: after a guard the state is {:?}, not {wanted}", self.state));
        }
        Ok(())
    }

    fn keep(&mut self) -> Result<(), String> {
        let Some(caretaker) = self.life.caretaker() else { return Ok(()) };
        let (to, name) = (self.any_id(), self.below(3) as u8);
        self.note(|| format!("keep {to} as {name}"));
        let full = {
            let mut mind = self.life.mind();
            mind.ledger.moving = Some(Moving { label: name, to: Some(to) });
            let listed = &mind.ledger.listed;
            let kept = listed.iter().filter(|k| k.label.is_some()).count();
            let free = listed.iter().any(|k| k.id == to && k.label.is_none());
            let moves = listed.iter().any(|k| k.label == Some(name));
            let same = listed.iter().filter(|k| k.label == Some(name)).all(|k| k.id == to) && moves;
            !same && kept + usize::from(free && !moves) + 2 > self.life.ring
        };
        let kept = caught(|| caretaker.keep(id(to), &label(name)))?;
        let mut mind = self.life.mind();
        mind.note(|| format!("  {kept:?}"));
        match kept {
            Some(Ok(())) => mind.ledger.keep(to, name),
            Some(Err(KeepError::Gone { .. })) if mind.ledger.find(to).is_none() => {}
            Some(Err(KeepError::Full { .. })) if full => {}
            other => return Err(format!("keeping {to} as {name}: {other:?}")),
        }
        mind.hear();
        Ok(())
    }

    fn release(&mut self) -> Result<(), String> {
        let Some(caretaker) = self.life.caretaker() else { return Ok(()) };
        let name = self.below(3) as u8;
        self.note(|| format!("release {name}"));
        let there = {
            let mut mind = self.life.mind();
            mind.ledger.moving = Some(Moving { label: name, to: None });
            mind.ledger.listed.iter().any(|k| k.label == Some(name))
        };
        let released = caretaker.release(&label(name));
        let mut mind = self.life.mind();
        mind.ledger.release(name);
        mind.hear();
        if released != there {
            return Err(format!("releasing {name} answers {released}"));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        let Some(caretaker) = self.life.caretaker() else { return Ok(()) };
        self.note(|| "flush".to_owned());
        let head = caretaker.head();
        let flushed = caught(|| caretaker.flush())?;
        let mut mind = self.life.mind();
        mind.hear();
        mind.note(|| format!("  {flushed:?}"));
        match flushed {
            Some(Ok(durable)) => {
                if self.life.disk.failed_syncs() > self.life.failed_syncs() {
                    return Err("P5: a sync failed, and flush said nothing".to_owned());
                }
                if durable < head {
                    return Err(format!("P4: flushed {durable:?}, and {head:?} was the head"));
                }
                mind.ledger.durable = mind.ledger.durable.max(durable.map_or(0, SnapshotId::get));
                for known in &mut mind.ledger.listed {
                    known.noted = true;
                }
                Ok(())
            }
            Some(Err(_)) if self.life.disk.failed_syncs() > 0 => Ok(()),
            other => Err(format!("P4: flushing: {other:?}")),
        }
    }

    fn background(&mut self) {
        self.note(|| "background".to_owned());
        if let Some(caretaker) = self.life.caretaker() {
            campaign::background(&caretaker);
            self.life.mind().hear();
        }
    }

    fn write_back(&mut self) {
        self.note(|| "write-back".to_owned());
        let mut mind = self.life.mind();
        let n = 1 + mind.random.below(4);
        self.life.disk.write_back(&mut mind.random, n);
    }

    /// The clocks go on; the one that people set may jump.
    fn pass_time(&mut self) {
        let mut mind = self.life.mind();
        let millis = mind.random.below(100_000);
        let wall = Duration::from_secs(mind.random.below(1 << 31)).as_nanos() as u64;
        mind.note(|| format!("it is {wall}"));
        set_clock(Some(Clock {
            steady_millis: millis + mind.ledger.highest * 100_000,
            wall_nanos: wall,
        }));
    }

    fn fill_disk(&mut self) {
        let mut mind = self.life.mind();
        let bytes = if mind.random.one_in(2) { u64::MAX } else { 64 << 10 };
        mind.note(|| format!("the disk takes {bytes}"));
        self.life.disk.set_capacity(bytes);
    }

    fn break_disk(&mut self) {
        let mut mind = self.life.mind();
        if mind.random.one_in(2) {
            self.life.disk.set_faults(Vec::new());
            return;
        }
        let fault = Fault {
            call: CALLS[mind.random.below(CALLS.len() as u64) as usize],
            after: mind.random.below(6),
            errno: ERRORS[mind.random.below(2) as usize],
            for_ever: mind.random.one_in(3),
        };
        mind.counts.faults += 1;
        mind.note(|| format!("{fault:?}"));
        self.life.disk.set_faults(vec![fault]);
    }

    fn resume(&mut self) -> Result<(), String> {
        let Some(caretaker) = self.life.caretaker() else { return Ok(()) };
        self.note(|| "resume".to_owned());
        let head = self.life.mind().ledger.listed.first().copied();
        let resumed = caretaker.resume().map_err(|error| format!("P3: {error:?}"))?;
        if resumed != head.map(|head| T::of(head.number)) {
            return Err(format!("P3: {resumed:?} was resumed, and {head:?} is the newest"));
        }
        if let Some(resumed) = resumed {
            self.state = resumed;
        }
        Ok(())
    }
}

pub(super) fn id(n: u64) -> SnapshotId {
    SnapshotId::new(n)
}

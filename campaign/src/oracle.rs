#![forbid(unsafe_code)]
//! What a directory must hold, from what was reported before its process or its machine died.

use std::collections::BTreeMap;

use crate::{
    board::Report,
    world::{Found, serial},
};

/// A snapshot that is listed, as far as reports tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    id: u64,
    tick: u64,
    label: u64,
    /// The label stood before a flush that said yes.
    label_durable: bool,
}

/// How the end came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The process died: nothing reported is lost.
    Kill,
    /// The machine did: nothing durable is lost.
    PowerCut,
}

/// One directory's history.
#[derive(Debug, Clone)]
pub(crate) struct Oracle {
    ring: usize,
    /// Newest first.
    listed: Vec<Known>,
    /// The world of every id that was ever reported or found.
    worlds: BTreeMap<u64, u64>,
    /// The highest id that was ever reported or found.
    highest: u64,
    /// The highest id that `durable()` or `flush` answered.
    durable: u64,
    /// In the life that was cut short last, snapshots on their way to the disk could take the
    /// places of others.
    crowded: bool,
    /// What was going on last.
    doing: Option<Report>,
    found: Vec<Found>,
}

impl Oracle {
    pub(crate) fn new(ring: usize) -> Oracle {
        Oracle {
            ring,
            listed: Vec::new(),
            worlds: BTreeMap::new(),
            highest: 0,
            durable: 0,
            crowded: false,
            doing: None,
            found: Vec::new(),
        }
    }

    /// The highest serial of a world that may be in the directory.
    pub(crate) fn serial(&self) -> u64 {
        let doing = match self.doing {
            Some(Report::Saving { tick }) => serial(tick),
            _ => 0,
        };
        self.worlds.values().map(|tick| serial(*tick)).max().unwrap_or(0).max(doing)
    }

    /// The highest id known.
    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    /// Takes in what one life has reported; `cause` ended the life before. In a `crowded` one a
    /// flush may go on beside the saves.
    pub(crate) fn hear(
        &mut self,
        reports: &[Report],
        cause: Cause,
        crowded: bool,
    ) -> Result<(), String> {
        // What an opening found counts when it has told all.
        self.found.clear();
        for report in reports {
            self.hear_one(*report, cause)?;
            if let Report::Opened { .. } = report {
                self.crowded = crowded;
            }
        }
        Ok(())
    }

    fn hear_one(&mut self, report: Report, cause: Cause) -> Result<(), String> {
        match report {
            Report::Found { id, tick, label } => {
                let tick = (tick > 0).then_some(tick);
                self.found.push(Found { id, tick, refusal: None, label });
            }
            Report::Opened { durable, rejected, aside } => {
                let found = std::mem::take(&mut self.found);
                match cause {
                    Cause::Kill => self.after_kill(&found, durable, rejected, aside)?,
                    Cause::PowerCut => self.after_power_cut(&found)?,
                }
                self.adopt(&found);
                self.durable = durable;
                self.doing = None;
            }
            Report::Evicted { id } => self.evict(id)?,
            Report::Published { id, tick } => {
                if id <= self.highest {
                    return Err(format!("id {id} was given out though {} was", self.highest));
                }
                self.push(id, tick);
                self.doing = None;
            }
            Report::Done => match self.doing.take() {
                Some(Report::Keeping { id, label }) => self.set_label(id, label),
                Some(Report::Releasing { label }) => {
                    self.listed.iter_mut().filter(|k| k.label == label).for_each(|known| {
                        (known.label, known.label_durable) = (0, false);
                    });
                }
                _ => {}
            },
            Report::Refused => self.doing = None,
            Report::Told { .. } => {}
            Report::Flushed { durable } => {
                self.listed.iter_mut().for_each(|known| known.label_durable = known.label > 0);
                self.claim(durable)?;
                let newest = self.listed.first().map_or(0, |known| known.id);
                if durable < newest {
                    return Err(format!("flushed up to {durable}, and {newest} was published"));
                }
                self.doing = None;
            }
            Report::Durable { id } => self.claim(id)?,
            doing => self.doing = Some(doing),
        }
        Ok(())
    }

    fn evict(&mut self, id: u64) -> Result<(), String> {
        // One that came and went between two looks is not known.
        let Some(at) = self.listed.iter().position(|known| known.id == id) else { return Ok(()) };
        let label = self.listed[at].label;
        let lost = match self.doing {
            Some(Report::Keeping { label: moved, .. } | Report::Releasing { label: moved }) => {
                moved == label
            }
            _ => false,
        };
        if at < 2 || label > 0 && !lost {
            return Err(format!("{id} was evicted: {:?}", self.listed[at]));
        }
        self.listed.remove(at);
        Ok(())
    }

    fn claim(&mut self, durable: u64) -> Result<(), String> {
        if durable < self.durable {
            return Err(format!("durable went back from {} to {durable}", self.durable));
        }
        self.durable = durable;
        Ok(())
    }

    fn push(&mut self, id: u64, tick: u64) {
        self.highest = id;
        self.worlds.insert(id, tick);
        self.listed.insert(0, Known { id, tick, label: 0, label_durable: false });
        while self.listed.len() > self.ring {
            let Some(oldest) = self.listed.iter().rposition(|known| known.label == 0) else {
                return;
            };
            self.listed.remove(oldest);
        }
    }

    fn set_label(&mut self, id: u64, label: u64) {
        for known in &mut self.listed {
            if known.id == id && known.label != label {
                (known.label, known.label_durable) = (label, false);
            } else if known.id != id && known.label == label {
                (known.label, known.label_durable) = (0, false);
            }
        }
    }

    /// The world that may be there unreported, and under which ids.
    fn in_the_making(&self) -> Option<u64> {
        match self.doing? {
            Report::Saving { tick } => Some(tick),
            Report::Rolling { to } => self.worlds.get(&to).copied(),
            _ => None,
        }
    }

    /// The newest found, if it is the one in the making.
    fn take_unreported(&mut self, found: &[Found]) -> Result<(), String> {
        let Some(newest) = found.first().filter(|newest| newest.id > self.highest) else {
            return Ok(());
        };
        let Some(tick) = self.in_the_making() else {
            return Err(format!("{} was found, and nobody was making it", newest.id));
        };
        if newest.tick.is_some_and(|found| found != tick) {
            return Err(format!("{} holds world {:?}, not {tick}", newest.id, newest.tick));
        }
        self.push(newest.id, tick);
        Ok(())
    }

    /// Every snapshot that was reported and is not evicted is there, whole, and nothing else but
    /// one in the making.
    fn after_kill(
        &mut self,
        found: &[Found],
        durable: u64,
        rejected: u64,
        aside: u64,
    ) -> Result<(), String> {
        if rejected + aside > 0 {
            return Err(format!("{rejected} slots were rejected, {aside} files set aside"));
        }
        let there: Vec<u64> = found.iter().map(|f| f.id).collect();
        self.evict_unheard(&there);
        self.take_unreported(found)?;
        let wanted: Vec<u64> = self.listed.iter().map(|known| known.id).collect();
        if there != wanted {
            return Err(format!(
                "listed are {there:?}, not {wanted:?}; the last to do was {:?}",
                self.doing
            ));
        }
        for (found, known) in found.iter().zip(&self.listed) {
            if found.tick != Some(known.tick) {
                let (id, is, was) = (found.id, found.tick, known.tick);
                return Err(format!("{id} holds world {is:?}, not {was}"));
            }
            self.compare_label(found, known)?;
        }
        if let Some(Report::Keeping { id, label }) = self.doing {
            let had = |known: &Known| known.label == label && known.id != id;
            if self.listed.iter().any(had) && !found.iter().any(|f| f.label == label) {
                return Err(format!("label {label} was lost while it moved to {id}"));
            }
        }
        if durable < self.durable {
            return Err(format!("{} was durable, and only {durable} is", self.durable));
        }
        Ok(())
    }

    /// A save may evict a few to have a place, and die before it tells; and what is more than a ring
    /// after a power cut leaves with the first change.
    fn evict_unheard(&mut self, there: &[u64]) {
        let changing = matches!(
            self.doing,
            Some(
                Report::Saving { .. }
                    | Report::Rolling { .. }
                    | Report::Keeping { .. }
                    | Report::Releasing { .. }
            )
        );
        let early = if self.crowded && self.in_the_making().is_some() { 5 } else { 0 };
        let over = (self.listed.len() + 1).saturating_sub(self.ring);
        let over = if changing && self.listed.len() > self.ring { over } else { 0 };
        let evictable = |(at, known): (usize, &Known)| {
            (at >= 2 && known.label == 0 && !there.contains(&known.id)).then_some(known.id)
        };
        let gone: Vec<u64> = self.listed.iter().enumerate().filter_map(evictable).collect();
        if gone.len() <= early + over {
            self.listed.retain(|known| !gone.contains(&known.id));
        }
    }

    fn compare_label(&self, found: &Found, known: &Known) -> Result<(), String> {
        let may_be = match self.doing {
            // The old label goes before the new one comes.
            Some(Report::Keeping { id, label }) if id == known.id => [known.label, label, 0],
            Some(Report::Keeping { label, .. } | Report::Releasing { label })
                if label == known.label =>
            {
                [label, 0, 0]
            }
            _ => [known.label; 3],
        };
        if may_be.contains(&found.label) {
            return Ok(());
        }
        Err(format!("{} has label {}, not {may_be:?}", found.id, found.label))
    }

    /// Every listed snapshot that was called durable is there, whole, or a newer one in their place
    /// if all of them have left; anything else that is there was published before, or was in the
    /// making.
    fn after_power_cut(&mut self, found: &[Found]) -> Result<(), String> {
        let there: Vec<u64> = found.iter().map(|f| f.id).collect();
        self.evict_unheard(&there);
        let evictable = self.listed.iter().rev().find(|known| known.label == 0).map(|k| k.id);
        let full = self.listed.len() >= self.ring;
        for known in &self.listed {
            let leaving = self.in_the_making().is_some() && full && evictable == Some(known.id);
            // A label that is not durable may be gone, and its snapshot with it.
            let aged = known.label > 0 && !known.label_durable;
            if known.id > self.durable || leaving || aged {
                continue;
            }
            let one = found.iter().find(|f| f.id == known.id);
            let Some(one) = one else {
                return Err(format!(
                    "{} was durable (up to {}) and is gone; found are {there:?}, known were {:?}, \
                     the last to do was {:?}",
                    known.id, self.durable, self.listed, self.doing
                ));
            };
            if one.tick != Some(known.tick) {
                let (id, is, was) = (known.id, one.tick, known.tick);
                return Err(format!("{id} was durable, and holds world {is:?}, not {was}"));
            }
        }
        self.take_unreported(found)?;
        // The newest that was on the disk may have left the ring, and is there all the same until a
        // newer one is.
        let newest = found.iter().filter(|f| f.tick.is_some()).map(|f| f.id).max();
        if self.durable > 0 && newest.is_none_or(|newest| newest < self.durable) {
            return Err(format!(
                "{} was on the disk, and the newest that is whole is {newest:?}",
                self.durable
            ));
        }
        for one in found {
            match (self.worlds.get(&one.id), one.tick) {
                // One that was in the making and came to nothing may show itself late.
                (None, None) => {}
                (None, _) => return Err(format!("{} was found, and nobody made it", one.id)),
                (Some(was), Some(is)) if *was != is => {
                    return Err(format!("{} holds world {is}, not {was}", one.id));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What was found is what is there now.
    fn adopt(&mut self, found: &[Found]) {
        self.highest = self.highest.max(found.first().map_or(0, |f| f.id));
        // What was refused is listed no more.
        let known = |f: &Found| {
            Some(Known { id: f.id, tick: f.tick?, label: f.label, label_durable: false })
        };
        self.listed = found.iter().filter_map(known).collect();
        for known in &self.listed {
            self.worlds.insert(known.id, known.tick);
        }
    }
}

#![forbid(unsafe_code)]
//! What a crash left, opened and compared with the ledger, and crashed again while it is opened.

use std::sync::{Arc, Mutex, PoisonError};

use snapring::{
    Options,
    campaign::{self, Disk, Random},
};

use super::{
    ledger::{After, Ledger, look},
    life::caught,
    originator::{Originator, number},
};

/// Looks at images.
pub(crate) struct Image<'a, T> {
    options: &'a Options,
    random: Random,
    /// Crashes during recovery.
    pub(crate) deep: u64,
    originator: std::marker::PhantomData<T>,
}

/// How often a recovery is to be crashed: mostly not at all.
pub(crate) fn depth(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => 2,
        1 | 2 => 1,
        _ => 0,
    }
}

impl<'a, T: Originator> Image<'a, T> {
    pub(crate) fn new(options: &'a Options, random: Random) -> Image<'a, T> {
        Image { options, random, deep: 0, originator: std::marker::PhantomData }
    }

    /// Opens an image, `levels - 1` times after a crash during the opening of the one before; each
    /// of them must agree with the ledger.
    pub(crate) fn verify(
        &mut self,
        disk: &Disk,
        ledger: &Ledger,
        levels: u64,
    ) -> Result<(), String> {
        let next = (levels > 1).then(|| self.crash_during(disk)).flatten();
        if let Some((next, cut)) = next {
            self.deep += 1;
            let mut ledger = ledger.clone();
            ledger.deep = true;
            if cut {
                ledger.after = After::Cut;
            }
            return self
                .verify(&next, &ledger, levels - 1)
                .map_err(|wrong| format!("{wrong}; crashed in recovery, by a cut: {cut}"));
        }
        self.open(disk, ledger)
    }

    /// Opens a copy, and answers what a crash at some step of that leaves.
    fn crash_during(&mut self, disk: &Disk) -> Option<(Disk, bool)> {
        let before = disk.killed();
        // An opening has some 13 steps, and more the more there is to mend.
        let most = if self.random.one_in(4) { 40 } else { 13 };
        let (at, cut) = (self.random.below(most), self.random.one_in(2));
        let mut random = Random::new(self.random.next_u64());
        let left = Arc::new(Mutex::new(None));
        let (watched, leaves) = (before.clone(), left.clone());
        let mut steps = 0;
        before.at_each_step(Some(Box::new(move |_| {
            steps += 1;
            if steps > at {
                let mut leaves = leaves.lock().unwrap_or_else(PoisonError::into_inner);
                let crash = || if cut { watched.cut(&mut random) } else { watched.killed() };
                leaves.get_or_insert_with(crash);
            }
        })));
        // What opening answers here is looked at elsewhere.
        let opened = caught(|| campaign::open::<T>(&before, self.options));
        before.at_each_step(None);
        if let Ok(Some(Ok(caretaker))) = opened {
            campaign::kill(caretaker);
        }
        let left = left.lock().unwrap_or_else(PoisonError::into_inner).take();
        left.map(|disk| (disk, cut))
    }

    fn open(&mut self, disk: &Disk, ledger: &Ledger) -> Result<(), String> {
        let opened = caught(|| campaign::open::<T>(disk, self.options))?;
        let caretaker = match opened {
            Some(Ok(caretaker)) => caretaker,
            other => {
                return Err(format!("P3: an image cannot be opened: {:?}", other.map(|r| r.err())));
            }
        };
        let found = look(&caretaker)?;
        ledger.check(&found, caretaker.recovery())?;
        // It is as good as any other.
        if self.random.one_in(4) {
            let mut state = T::of(number(0xfeed, 1, self.random.below(64)));
            let mut highest = found.first().map_or(0, |f| f.id).max(ledger.highest);
            // In pages, the third save shares what the first wrote.
            for serial in 2..if T::PAGED { 5 } else { 3 } {
                let Ok(id) = caretaker.save(&state) else { continue };
                if id.get() <= highest {
                    return Err(format!("id {id} was given out again; {highest} had been reached"));
                }
                let thawed = caretaker.resume().map_err(|e| format!("P3: {e}"))?;
                if thawed.as_ref() != Some(&state) {
                    return Err(format!("P3: {id} was saved, and {thawed:?} resumed"));
                }
                highest = id.get();
                state.turn_into(number(0xfeed, serial, self.random.below(64)));
            }
        }
        campaign::kill(caretaker);
        Ok(())
    }
}

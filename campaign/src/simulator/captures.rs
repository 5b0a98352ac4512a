#![forbid(unsafe_code)]
//! Captures in a life: taken, finished by chance or by who waits for them, and what their tickets
//! tell.

use snapring::{SaveError, campaign};

use super::{life::caught, originator::Originator, play::Player};

impl<T: Originator> Player<T> {
    /// Takes a capture of a new state, which goes on changing.
    pub(super) fn capture(&mut self) -> Result<(), String> {
        let Some(caretaker) = self.life.caretaker() else { return Ok(()) };
        let number = self.any_number();
        self.note(|| format!("capture {number}"));
        self.state.turn_into(number);
        self.disturb_archiving();
        let alone = {
            let mut mind = self.life.mind();
            // Where something has to leave for it, it is a save.
            mind.ledger.making.push(number);
            (mind.before, mind.reached) = (mind.ledger.listed.clone(), mind.ledger.highest);
            std::mem::replace(&mut mind.alone, true)
        };
        let captured = caught(|| caretaker.capture(&self.state))?;
        let mut mind = self.life.mind();
        mind.alone = alone;
        mind.hear();
        mind.note(|| format!("  {captured:?}"));
        let mut pending = match captured {
            Some(Ok(pending)) => pending,
            Some(Err(SaveError::NotDurable { .. })) => return Ok(()),
            refused => {
                mind.counts.refused += 1;
                mind.ledger.making.pop();
                let same =
                    mind.before.iter().map(|k| k.id).eq(mind.ledger.listed.iter().map(|k| k.id));
                if mind.reached != mind.ledger.highest || !same {
                    let (before, now) = (&mind.before, &mind.ledger.listed);
                    return Err(format!(
                        "P5: refused ({refused:?}), and {before:?} became {now:?}"
                    ));
                }
                return Ok(());
            }
        };
        if pending.try_wait().is_none() {
            mind.ledger.making.pop();
            mind.ledger.captured.push_back(number);
            mind.ledger.sides_vary = true;
        }
        drop(mind);
        self.pending.push((pending, number));
        if self.below(2) == 0 {
            // While what was captured waits, the state goes on.
            let number = self.any_number();
            self.state.turn_into(number);
        }
        if self.below(2) == 0 {
            return self.finish_capture();
        }
        Ok(())
    }

    /// The thread of captures comes to the next one.
    pub(super) fn finish_capture(&mut self) -> Result<(), String> {
        let Some(caretaker) = self.life.caretaker() else { return Ok(()) };
        self.note(|| "finish a capture".to_owned());
        let (before, alone) = {
            let mut mind = self.life.mind();
            mind.hear();
            let alone = std::mem::replace(&mut mind.alone, true);
            mind.before = mind.ledger.listed.clone();
            (mind.ledger.highest, alone)
        };
        let done = caught(|| campaign::finish_capture(&caretaker))?;
        let mut mind = self.life.mind();
        let listed: Vec<u64> = mind.before.iter().map(|k| k.id).collect();
        mind.hear();
        mind.alone = alone;
        let now: Vec<u64> = mind.ledger.listed.iter().map(|k| k.id).collect();
        if done == Some(true) && before == mind.ledger.highest && listed != now {
            return Err(format!("P5: a capture came to nothing, and {listed:?} became {now:?}"));
        }
        Ok(())
    }

    /// What tickets tell is what has been published.
    pub(super) fn hear_of_captures(&mut self) -> Result<(), String> {
        let mut left = Vec::new();
        for (mut pending, number) in self.pending.drain(..) {
            let mind = self.life.mind();
            let id = match pending.try_wait() {
                None => {
                    drop(mind);
                    left.push((pending, number));
                    continue;
                }
                Some(Ok(id) | Err(SaveError::NotDurable { id, .. })) => id.get(),
                Some(Err(error)) => {
                    if mind.ledger.arrived.contains(&number) {
                        return Err(format!("P5: {number} was captured and published: {error}"));
                    }
                    continue;
                }
            };
            if mind.ledger.number_of(id) != Some(number) {
                return Err(format!("P2: {number} was captured, and {id} is told to be it"));
            }
        }
        self.pending = left;
        Ok(())
    }
}

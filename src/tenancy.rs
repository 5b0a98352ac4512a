#![forbid(unsafe_code)]
//! The writer's side of leases: when the kernel is asked, and what may be used again.
//!
//! A question is a system call, so that saves share one: places that have left the ring wait until
//! there are some of them, or until space or places are short. Rings in memory have no readers in
//! other processes and ask nobody.

use std::{sync::atomic::Ordering, time::Duration};

use crate::{
    clock,
    engine::{Engine, State, Unasked},
    header::{Side, WAKE_AT},
    mutants::Mutant,
    os,
    sync::MutexGuard,
};

/// Bytes that may wait for the sake of one question in a turn of the ring; more of them ask sooner.
const SMALL: u64 = 1 << 20;
/// How often a save without a place looks again whether a reader has gone on.
pub(crate) const PATIENCE: u32 = 100;
/// How long it waits in between.
const PAUSE: Duration = Duration::from_millis(1);

impl Engine {
    /// L2: whether a place that has left the ring was found without a lease after its seal was
    /// broken, so that no reader elsewhere can believe it any more.
    pub(crate) fn may_be_used_again(&self, state: &State, number: u16) -> bool {
        self.leases.is_none()
            || state.places[usize::from(number)].unleased
            || Mutant::ReuseLeased.is_on()
    }

    /// Frees the places that nothing retains any more, if there are enough for a question, or the
    /// side has no other.
    pub(crate) fn reclaim_in_turn(&self, state: &mut State, side: Side) {
        let Unasked { places, bytes } = state.unasked;
        let ring = self.options.ring as usize;
        let enough = if bytes < SMALL { ring } else { ring / 4 };
        if self.leases.is_none() || state.spaces[side.index()].free.is_empty() {
            self.reclaim(state, side);
        } else if places > enough {
            self.reclaim(state, side);
            self.reclaim(state, side.other());
        }
    }

    /// Asks which places are leased, all in one, after breaking the seals of what has left the ring
    /// (L2). Notes since when a lease has been seen.
    pub(crate) fn ask_for_leases(&self, state: &mut State) {
        let Some(leases) = &self.leases else { return };
        state.unasked = Unasked::default();
        self.unseal_unlisted(state);
        let taken = leases.taken(state.places.len());
        for number in &state.limbo {
            let n = usize::from(*number);
            let place = &mut state.places[n];
            place.unleased |= place.unsealed && !taken.contains(n);
        }
        if taken.any() || state.leased {
            let now = clock::steady_millis();
            for (n, place) in state.places.iter_mut().enumerate() {
                let leased = place.is_sealed() && !place.unleased && taken.contains(n);
                place.leased_at = leased.then(|| place.leased_at.unwrap_or(now));
            }
        }
        state.leased = taken.any();
    }

    /// Whether a reader is there, in any process. Sees to it that leases show from about when they
    /// were taken.
    pub(crate) fn has_readers(&self) -> bool {
        let present = self.leases.as_ref().is_some_and(|leases| leases.anybody());
        if present {
            self.ask_for_leases(&mut self.lock());
        }
        present
    }

    /// Moves with each snapshot.
    pub(crate) fn wake_word(&self) -> u32 {
        // Relaxed: it is compared with itself, and those who are woken look for themselves.
        self.files[0].word(WAKE_AT).load(Ordering::Relaxed)
    }

    /// Wakes those who wait for the next snapshot, in whatever process.
    pub(crate) fn wake_readers(&self) {
        os::wake_waiting(self.files[0].word(WAKE_AT));
    }

    /// Lets a moment pass if readers elsewhere have the places of a side: most of them go on at
    /// once. `false` if it is not they, or patience has run out.
    pub(crate) fn wait_for_readers(
        &self,
        state: &mut MutexGuard<'_, State>,
        side: Side,
        patience: &mut u32,
    ) -> bool {
        let mut places = state.places.iter().enumerate();
        let leased = places.any(|(n, p)| self.side_of(n) == side && p.leased_at.is_some());
        if *patience == 0 || !leased {
            return false;
        }
        *patience -= 1;
        self.wake_readers();
        if let Some(leases) = &self.leases {
            MutexGuard::unlocked(state, || leases.pause(PAUSE));
        }
        self.reclaim(state, side);
        true
    }
}

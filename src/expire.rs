#![forbid(unsafe_code)]
//! Snapshots that leave by age.
//!
//! Knows ages and who may leave. What becomes of a place that has left is for `space.rs`.

use std::time::Duration;

use crate::{clock, engine::Engine};

/// How often ages are looked at: this many times while a snapshot lives, but not more often than
/// [`SOONEST`].
const LOOKS: u32 = 8;
const SOONEST: Duration = Duration::from_millis(10);

impl Engine {
    /// Unlists what is older than was asked for; answers in how long to look again.
    pub(crate) fn expire(&self) -> Option<Duration> {
        let ttl = self.options.ttl?;
        let mut state = self.lock();
        let now = i64::try_from(clock::steady_millis()).unwrap_or(i64::MAX);
        // Ages are counted in whole steps of the clock.
        let ttl_millis = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX).max(1);
        // Never the newest.
        let mut at = state.listed.len();
        while at > 1 {
            at -= 1;
            let number = state.listed[at];
            let n = usize::from(number);
            let old = now.saturating_sub(state.places[n].born) >= ttl_millis;
            if old && self.is_evictable(&state, self.side_of(n), number) {
                self.unlist(&mut state, number);
                state.counts.expired += 1;
            }
        }
        (state.listed.len() > 1).then(|| (ttl / LOOKS).max(SOONEST))
    }
}

#![forbid(unsafe_code)]
//! Time as the engine tells it: coarse, cheap, under loom none at all, and in a simulation what the
//! simulation says.

use std::time::{Duration, Instant, SystemTime};

#[cfg(feature = "campaign")]
pub use simulated::{Clock, set_clock};

/// Milliseconds on a clock that never goes back.
pub(crate) fn steady_millis() -> u64 {
    #[cfg(feature = "campaign")]
    if let Some(clock) = simulated::now() {
        return clock.steady_millis;
    }
    if cfg!(loom) { 0 } else { crate::os::steady_clock() / 1_000_000 }
}

/// Nanoseconds since 1970, by a clock that people may set.
pub(crate) fn wall_nanos() -> u64 {
    #[cfg(feature = "campaign")]
    if let Some(clock) = simulated::now() {
        return clock.wall_nanos;
    }
    crate::os::wall_clock()
}

/// Time since a moment of [`steady_millis`].
pub(crate) fn since(millis: u64) -> Duration {
    Duration::from_millis(steady_millis().saturating_sub(millis))
}

/// Time since a moment in nanoseconds since 1970; none if the clock was set back.
pub(crate) fn since_wall(nanos: u64) -> Duration {
    Duration::from_nanos(wall_nanos().saturating_sub(nanos))
}

/// When, in milliseconds on the steady clock, something was made at a moment in nanoseconds since
/// 1970: before that clock's start where need be, and never in the future, whatever the other clock
/// was set to.
pub(crate) fn born(nanos: u64) -> i64 {
    let age = i64::try_from(wall_nanos().saturating_sub(nanos) / 1_000_000).unwrap_or(i64::MAX);
    i64::try_from(steady_millis()).unwrap_or(i64::MAX).saturating_sub(age)
}

/// Nanoseconds since 1970 as the standard library's time.
pub(crate) fn system_time(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}

/// So long from now; one too long to tell is far away.
pub(crate) fn deadline(within: Duration) -> Instant {
    let now = Instant::now();
    const FAR: Duration = Duration::from_secs(1 << 30);
    now.checked_add(within).or_else(|| now.checked_add(FAR)).unwrap_or(now)
}

#[cfg(feature = "campaign")]
mod simulated {
    use std::cell::Cell;

    /// A simulated moment.
    #[derive(Debug, Clone, Copy)]
    pub struct Clock {
        /// On the clock that never goes back.
        pub steady_millis: u64,
        /// Since 1970, by the clock that people set.
        pub wall_nanos: u64,
    }

    thread_local! {
        static NOW: Cell<Option<Clock>> = const { Cell::new(None) };
    }

    /// What this thread's clocks say from now on; `None`: what they are.
    pub fn set_clock(clock: Option<Clock>) {
        NOW.with(|now| now.set(clock));
    }

    pub(super) fn now() -> Option<Clock> {
        NOW.with(Cell::get)
    }
}

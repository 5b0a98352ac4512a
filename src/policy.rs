#![forbid(unsafe_code)]
//! [`Policy`]: when a paged state is captured, and when all of its pages are written anew rather than
//! those that changed.
//!
//! Knows shares, bytes and time. What is written, and how, is for `paging.rs`.

use std::time::{Duration, Instant};

/// When all pages are written anew, and, with [`Budget`](Policy::Budget), when to capture at all.
///
/// A snapshot that shares pages with earlier ones is complete on its own and costs little, but keeps their
/// runs of bytes alive: so from time to time one is written whole. Besides what is said here, that is done
/// whenever more than half of the bytes kept for the pages are kept for nobody.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Policy {
    /// The caller sets the cadence. The default, with 15 % and 10,000.
    Preset {
        /// So many pages of a hundred are written to from one capture to the next: then all are. Since
        /// each side of the ring catches up with two captures, with 15 that is when 27 of a hundred are
        /// to be written.
        dirty: u8,
        /// So many snapshots after a whole one comes the next.
        versions: u64,
    },
    /// Cadence and kind are chosen so that these hold, the first before the others:
    /// [`Caretaker::capture_if_due`](crate::Caretaker::capture_if_due) captures when it is time.
    Budget {
        /// The most time between two captures: what a crash may take.
        loss: Duration,
        /// The longest pause wanted. Where pauses are longer, captures come as rarely as `loss` allows.
        pause: Duration,
        /// Bytes a second to be written on the average, at most.
        bandwidth: u64,
    },
}

impl Default for Policy {
    fn default() -> Policy {
        Policy::Preset { dirty: 15, versions: 10_000 }
    }
}

/// So few pages are worth no whole snapshot.
const FEW: usize = 64;

/// How much the newest measurement counts beside those before.
const NEWEST: f64 = 0.25;

impl Policy {
    /// Whether all of `total` pages are to be written where `new` are, so many snapshots after the last
    /// whole one.
    pub(crate) fn is_whole(&self, new: usize, total: usize, versions: u64) -> bool {
        let (dirty, most) = match self {
            // Of two captures, as many pages as that written in each come to so many in both.
            Policy::Preset { dirty, versions } => {
                let each = usize::from(*dirty).min(100);
                (each * (200 - each) / 100, *versions)
            }
            // Half of the pages cost half of the bytes, and the runs of the others are let go.
            Policy::Budget { .. } => (50, 10_000),
        };
        total > FEW && new * 100 >= total * dirty || versions >= most
    }
}

/// What captures have cost so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cadence {
    last: Option<Instant>,
    /// Bytes of a capture, on the average.
    bytes: f64,
    /// Seconds of a pause, on the average.
    pause: f64,
}

impl Cadence {
    fn blend(average: &mut f64, newest: f64) {
        let first = *average == 0.0;
        *average = if first { newest } else { *average + (newest - *average) * NEWEST };
    }

    /// A capture has been taken, whose pause began then.
    pub(crate) fn paused(&mut self, began: Instant) {
        self.last = Some(began);
        Cadence::blend(&mut self.pause, began.elapsed().as_secs_f64());
    }

    /// A capture has been written.
    pub(crate) fn wrote(&mut self, bytes: u64) {
        Cadence::blend(&mut self.bytes, bytes as f64);
    }

    /// The time from one capture to the next.
    pub(crate) fn interval(&self, policy: &Policy) -> Duration {
        let Policy::Budget { loss, pause, bandwidth } = *policy else { return Duration::ZERO };
        if self.pause > pause.as_secs_f64() {
            return loss;
        }
        let seconds = self.bytes / (bandwidth.max(1) as f64);
        Duration::try_from_secs_f64(seconds).unwrap_or(loss).min(loss)
    }

    /// Whether it is time for the next.
    pub(crate) fn is_due(&self, policy: &Policy, now: Instant) -> bool {
        self.last.is_none_or(|last| now.duration_since(last) >= self.interval(policy))
    }
}

#[cfg(test)]
mod tests {
    //! A budget that is not kept: too rarely for the loss allowed, too often for the bandwidth.

    use super::*;

    const LOSS: Duration = Duration::from_secs(2);

    fn budget(pause: u64, bandwidth: u64) -> Policy {
        Policy::Budget { loss: LOSS, pause: Duration::from_micros(pause), bandwidth }
    }

    fn cadence(bytes: u64, pause: f64) -> Cadence {
        let mut cadence = Cadence { last: None, bytes: 0.0, pause };
        for _ in 0..50 {
            cadence.wrote(bytes);
        }
        cadence
    }

    #[test]
    fn bytes_are_spread_over_the_bandwidth_and_loss_comes_first() {
        let policy = budget(100, 10 << 20);
        let near = |a: Duration, b: f64| (a.as_secs_f64() - b).abs() < 1e-3;
        assert!(near(cadence(1 << 20, 10e-6).interval(&policy), 0.1));
        assert!(near(cadence(10 << 20, 10e-6).interval(&policy), 1.0));
        assert_eq!(cadence(100 << 20, 10e-6).interval(&policy), LOSS);
        assert_eq!(cadence(1 << 10, 200e-6).interval(&policy), LOSS, "pauses are too long");
        assert_eq!(cadence(1 << 20, 10e-6).interval(&Policy::default()), Duration::ZERO);
        assert_eq!(cadence(1 << 20, 10e-6).interval(&budget(100, 0)), LOSS);
    }

    #[test]
    fn it_is_due_first_at_once_and_then_after_the_interval() {
        let policy = budget(100, 1 << 20);
        let mut cadence = cadence(1 << 20, 0.0);
        let now = Instant::now();
        assert!(cadence.is_due(&policy, now));
        cadence.last = Some(now);
        assert!(!cadence.is_due(&policy, now + Duration::from_millis(900)));
        assert!(cadence.is_due(&policy, now + Duration::from_millis(1100)));
    }

    #[test]
    fn presets_say_when_all_is_written() {
        let policy = Policy::default();
        assert!(!policy.is_whole(26, 100, 9_999));
        assert!(policy.is_whole(27, 100, 0));
        assert!(policy.is_whole(0, 100, 10_000));
        assert!(!policy.is_whole(60, 60, 0), "too few to matter");
        assert!(!budget(1, 1).is_whole(49, 100, 0));
        assert!(budget(1, 1).is_whole(50, 100, 0));
    }
}

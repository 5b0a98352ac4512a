#![forbid(unsafe_code)]
//! Durations, each kept: there are few of them, and the longest counts as much as the median.

use std::time::Duration;

use snapring_bench::results::{Pair, Pause, Row};

/// Nanoseconds, in the order in which they were taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// One more.
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took.as_nanos() as f64);
    }

    /// One more, in nanoseconds; less than nothing counts as nothing.
    pub(crate) fn add_nanos(&mut self, nanos: f64) {
        self.0.push(nanos.max(0.0));
    }

    /// What this part of them did not exceed.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(0.0)
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The middle one.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The sum by the number.
    pub(crate) fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len().max(1) as f64
    }

    /// As a row of a set.
    pub(crate) fn row(&self, name: &str) -> Row {
        let [p25, median, p75] = [0.25, 0.5, 0.75].map(|part| self.quantile(part));
        Row { name: name.to_owned(), median, p25, p75, calls: 1 }
    }

    /// As what held up a thread.
    pub(crate) fn pause(&self, name: &str) -> Pause {
        let [p50, p90, p99, longest] = [0.5, 0.9, 0.99, 1.0].map(|part| self.quantile(part));
        Pause { name: name.to_owned(), saves: self.0.len() as u64, p50, p90, p99, longest }
    }
}

/// A row of samples beside a reference that is taken to be its median.
pub(crate) fn beside(
    target: u8,
    (row, samples): (&str, &Samples),
    (reference, nanos): (&str, f64),
    most: f64,
) -> Pair {
    let [p25, ratio, p75] = [0.25, 0.5, 0.75].map(|part| samples.quantile(part) / nanos.max(1.0));
    let (row, reference) = (row.to_owned(), reference.to_owned());
    Pair { target, row, reference, most, ratio, p25, p75 }
}

#![forbid(unsafe_code)]
//! Durations counted by size, to within 3 %, without memory that grows while they are counted.

/// Buckets to each power of two.
const STEPS: u64 = 32;

/// Counts of durations in nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; 64 * STEPS as usize], total: 0, longest: 0 }
    }
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.longest = self.longest.max(nanos);
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The longest.
    pub fn longest(&self) -> u64 {
        self.longest
    }

    /// What this part of them did not exceed, from below to within a bucket.
    pub fn quantile(&self, part: f64) -> u64 {
        let mut left = (self.total as f64 * part) as u64;
        for (at, count) in self.counts.iter().enumerate() {
            if *count > left {
                return least(at as u64);
            }
            left -= count;
        }
        self.longest
    }
}

fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let power = u64::from(nanos.ilog2());
    let step = nanos >> (power - 5);
    ((power - 4) * STEPS + step - STEPS) as usize
}

/// The least duration in a bucket.
fn least(bucket: u64) -> u64 {
    if bucket < STEPS {
        return bucket;
    }
    let power = bucket / STEPS + 4;
    (STEPS + bucket % STEPS) << (power - 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_starts_where_it_says() {
        for nanos in [0, 1, 31, 32, 33, 63, 64, 65, 1_000, 123_456, 9_876_543_210] {
            let low = least(bucket(nanos) as u64);
            assert!(low <= nanos && nanos - low <= nanos / 32, "{nanos} in a bucket from {low}");
        }
    }

    #[test]
    fn quantiles_are_of_what_was_counted() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|n| histogram.add(n * 1000));
        let half = histogram.quantile(0.5);
        assert!((485_000..=501_000).contains(&half), "{half}");
        assert_eq!((histogram.total(), histogram.longest()), (1000, 1_000_000));
    }
}

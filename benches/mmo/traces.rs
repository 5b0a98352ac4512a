#![forbid(unsafe_code)]
//! What the workloads of the literature write, tick by tick. Knows nothing of where it is kept.

use std::collections::HashSet;

use crate::world::Draw;

/// A field of a row to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) row: u32,
    pub(crate) field: u32,
}

/// The writes of a few ticks, which are gone through over and over.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    ticks: Vec<Vec<Write>>,
}

impl Trace {
    /// The writes of a tick.
    pub(crate) fn tick(&self, tick: usize) -> &[Write] {
        &self.ticks[tick % self.ticks.len()]
    }

    /// The part of all runs of `len` rows that one tick writes to, on average.
    pub(crate) fn share(&self, rows: usize, len: usize) -> f64 {
        let runs = rows.div_ceil(len);
        let written = |tick: &Vec<Write>| {
            tick.iter().map(|write| write.row as usize / len).collect::<HashSet<_>>().len()
        };
        let all: usize = self.ticks.iter().map(written).sum();
        all as f64 / (runs * self.ticks.len()) as f64
    }
}

/// Ranks from 1 to `n`, drawn by Zipf's law: the rank's power `-theta` (Hörmann and Derflinger's
/// rejection-inversion).
#[derive(Clone, Debug)]
struct Zipf {
    n: f64,
    theta: f64,
    low: f64,
    high: f64,
    /// Accepted at once below this distance.
    near: f64,
}

impl Zipf {
    fn new(n: usize, theta: f64) -> Zipf {
        let mut zipf = Zipf { n: n as f64, theta, low: 0.0, high: 0.0, near: 0.0 };
        zipf.low = zipf.area(1.5) - 1.0;
        zipf.high = zipf.area(zipf.n + 0.5);
        zipf.near = 2.0 - zipf.inverse(zipf.area(2.5) - 2.0_f64.powf(-theta));
        zipf
    }

    /// Under the curve, up to `x`.
    fn area(&self, x: f64) -> f64 {
        x.powf(1.0 - self.theta) / (1.0 - self.theta)
    }

    fn inverse(&self, area: f64) -> f64 {
        (area * (1.0 - self.theta)).powf(1.0 / (1.0 - self.theta))
    }

    fn rank(&self, draw: &mut Draw) -> usize {
        loop {
            let area = self.high + draw.part() * (self.low - self.high);
            let x = self.inverse(area);
            let rank = x.round().clamp(1.0, self.n);
            let near = rank - x <= self.near;
            if near || area >= self.area(rank + 0.5) - rank.powf(-self.theta) {
                return rank as usize - 1;
            }
        }
    }
}

/// Where a rank lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// The first rank first.
    Clustered,
    /// All over the place, each at a place of its own.
    Scattered,
}

impl Mapping {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mapping::Clustered => "clustered",
            Mapping::Scattered => "scattered",
        }
    }

    fn place(self, rank: usize, n: usize) -> usize {
        /// A prime that divides none of the sizes here.
        const STEP: u128 = 2_654_435_761;
        match self {
            Mapping::Clustered => rank,
            Mapping::Scattered => ((rank as u128 * STEP + 12_345) % n as u128) as usize,
        }
    }
}

/// `writes` a tick to fields of `rows` rows, drawn by Zipf's law over all fields.
pub(crate) fn zipf(
    rows: usize,
    fields: usize,
    theta: f64,
    writes: usize,
    mapping: Mapping,
    ticks: usize,
) -> Trace {
    let (n, mut draw) = (rows * fields, Draw(7));
    let zipf = Zipf::new(n, theta);
    let mut write = || {
        let at = mapping.place(zipf.rank(&mut draw), n);
        Write { row: (at / fields) as u32, field: (at % fields) as u32 }
    };
    Trace { ticks: (0..ticks).map(|_| (0..writes).map(|_| write()).collect()).collect() }
}

/// A tenth of all units is active, a hundredth of those changes with each tick; every write is to an
/// active unit, mostly to where it is and how it does.
pub(crate) fn battle(
    units: usize,
    fields: usize,
    writes: usize,
    mapping: Mapping,
    ticks: usize,
) -> Trace {
    let mut draw = Draw(9);
    let mut active: Vec<usize> = (0..units / 10).collect();
    let mut next = active.len();
    let tick = |_| {
        for _ in 0..active.len() / 100 {
            // The one that has been active longest, or any.
            let out = match mapping {
                Mapping::Clustered => next % active.len(),
                Mapping::Scattered => draw.below(active.len()),
            };
            active[out] = next % units;
            next += 1;
        }
        let mut write = || {
            let unit = mapping.place(active[draw.below(active.len())], units);
            // Three of four to the first four fields.
            let field = if draw.below(4) > 0 { draw.below(4) } else { draw.below(fields) };
            Write { row: unit as u32, field: field as u32 }
        };
        (0..writes).map(|_| write()).collect()
    };
    Trace { ticks: (0..ticks).map(tick).collect() }
}

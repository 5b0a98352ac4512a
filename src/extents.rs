#![forbid(unsafe_code)]
//! Which blocks of a file's data area are in use, and by how many snapshots. Lives in memory only
//! and is rebuilt from the valid records at open, so there is no allocator state to corrupt.
//!
//! Counts blocks. Bytes, files and snapshots are others' affair.

use std::ops::Range;

/// A run of blocks in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    start: u64,
    len: u64,
    /// Snapshots that share it.
    users: u32,
}

impl Run {
    fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// The runs in use of one data area, by position.
#[derive(Debug, Clone)]
pub(crate) struct Extents {
    runs: Vec<Run>,
    /// Blocks that exist; more come by growth.
    blocks: u64,
}

impl Extents {
    pub(crate) fn new(blocks: u64) -> Extents {
        Extents { runs: Vec::with_capacity(64), blocks }
    }

    /// The area has grown to `blocks`.
    pub(crate) fn grow(&mut self, blocks: u64) {
        self.blocks = self.blocks.max(blocks);
    }

    /// Takes `want` blocks of the first gap that has them.
    pub(crate) fn take(&mut self, want: u64) -> Option<u64> {
        let mut start = 0;
        for (i, run) in self.runs.iter().enumerate() {
            if run.start - start >= want {
                self.runs.insert(i, Run { start, len: want, users: 1 });
                return Some(start);
            }
            start = run.end();
        }
        self.take_last(want)
    }

    /// Takes `want` blocks after all that are in use, where a run can be extended later.
    pub(crate) fn take_last(&mut self, want: u64) -> Option<u64> {
        let start = self.tail();
        if self.blocks.saturating_sub(start) < want {
            return None;
        }
        self.runs.push(Run { start, len: want, users: 1 });
        Some(start)
    }

    /// Where [`take`](Self::take) would put `want` blocks.
    pub(crate) fn gap(&self, want: u64) -> Option<u64> {
        let mut start = 0;
        for run in &self.runs {
            if run.start - start >= want {
                return Some(start);
            }
            start = run.end();
        }
        (self.blocks.saturating_sub(start) >= want).then_some(start)
    }

    /// Makes the run at `start` `len` blocks long, if those after it are free.
    pub(crate) fn extend(&mut self, start: u64, len: u64) -> bool {
        let Ok(i) = self.find(start) else { return false };
        let limit = self.runs.get(i + 1).map_or(self.blocks, |next| next.start);
        let fits = len >= self.runs[i].len && start + len <= limit;
        if fits {
            self.runs[i].len = len;
        }
        fits
    }

    /// Whether only free blocks follow the run at `start`: then growth lets it extend.
    pub(crate) fn is_last(&self, start: u64) -> bool {
        self.runs.last().is_some_and(|run| run.start == start)
    }

    /// Gives back what the run at `start` has beyond `len` blocks.
    pub(crate) fn shrink(&mut self, start: u64, len: u64) {
        if let Ok(i) = self.find(start) {
            debug_assert!(len > 0 && len <= self.runs[i].len, "a run shrinks to fewer blocks");
            self.runs[i].len = len;
        }
    }

    /// One more snapshot uses the run at `start`.
    pub(crate) fn share(&mut self, start: u64) {
        if let Ok(i) = self.find(start) {
            self.runs[i].users += 1;
        }
    }

    /// One snapshot less uses the run at `start`; the last one frees it.
    pub(crate) fn release(&mut self, start: u64) {
        if let Ok(i) = self.find(start) {
            self.runs[i].users -= 1;
            if self.runs[i].users == 0 {
                self.runs.remove(i);
            }
        }
    }

    /// At open: notes a run that a record names. `false` if it does not lie in the area, or
    /// overlaps another run without being the same.
    pub(crate) fn claim(&mut self, blocks: Range<u64>) -> bool {
        if blocks.is_empty() || blocks.end > self.blocks {
            return false;
        }
        let (start, len) = (blocks.start, blocks.end - blocks.start);
        match self.find(start) {
            Ok(i) if self.runs[i].len == len => {
                self.runs[i].users += 1;
                true
            }
            Ok(_) => false,
            Err(i) => {
                let after = i > 0 && self.runs[i - 1].end() > start;
                let before = self.runs.get(i).is_some_and(|next| next.start < blocks.end);
                if after || before {
                    return false;
                }
                self.runs.insert(i, Run { start, len, users: 1 });
                true
            }
        }
    }

    /// How many blocks the run at `start` has; none without one.
    pub(crate) fn blocks_of(&self, start: u64) -> u64 {
        self.find(start).map_or(0, |i| self.runs[i].len)
    }

    /// Blocks in the largest gap.
    pub(crate) fn largest_gap(&self) -> u64 {
        let mut start = 0;
        let mut largest = 0;
        for run in &self.runs {
            largest = largest.max(run.start - start);
            start = run.end();
        }
        largest.max(self.blocks.saturating_sub(start))
    }

    /// Blocks in use.
    pub(crate) fn used(&self) -> u64 {
        self.runs.iter().map(|run| run.len).sum()
    }

    /// Where the blocks in use end.
    pub(crate) fn tail(&self) -> u64 {
        self.runs.last().map_or(0, Run::end)
    }

    fn find(&self, start: u64) -> Result<usize, usize> {
        self.runs.binary_search_by_key(&start, |run| run.start)
    }
}

#[cfg(test)]
mod tests {
    //! An extent handed out twice would let a save overwrite a snapshot.

    use super::*;

    /// Numbers that look random and are the same in every run.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) % n
        }
    }

    /// Beside the slow way: one counter per block.
    #[test]
    fn agrees_with_a_counter_per_block() {
        for seed in 0..400 {
            let mut dice = Dice(seed);
            let mut extents = Extents::new(32);
            let mut model = vec![0_u32; 32];
            let mut held: Vec<(u64, u64)> = Vec::new();
            for _ in 0..120 {
                let (op, at, len) = (dice.below(7), dice.below(40), 1 + dice.below(8));
                let span = |start: u64, len: u64| start as usize..(start + len) as usize;
                let free = |model: &[u32], start: u64| {
                    let run = model.get(span(start, len));
                    run.is_some_and(|run| run.iter().all(|n| *n == 0))
                };
                match op {
                    0 | 1 => {
                        let fits = (0..model.len() as u64).find(|start| free(&model, *start));
                        assert_eq!(extents.gap(len), fits, "seed {seed}");
                        assert_eq!(extents.take(len), fits, "seed {seed}");
                        held.extend(fits.map(|start| (start, len)));
                        fits.into_iter().for_each(|start| model[span(start, len)].fill(1));
                    }
                    2 => {
                        let tail = model.iter().rposition(|n| *n > 0).map_or(0, |n| n as u64 + 1);
                        let fits = free(&model, tail).then_some(tail);
                        assert_eq!(extents.take_last(len), fits, "seed {seed}");
                        held.extend(fits.map(|start| (start, len)));
                        fits.into_iter().for_each(|start| model[span(start, len)].fill(1));
                    }
                    3 if !held.is_empty() => {
                        let (start, len) = held[at as usize % held.len()];
                        extents.share(start);
                        held.push((start, len));
                        model[span(start, len)].iter_mut().for_each(|n| *n += 1);
                    }
                    4 if !held.is_empty() => {
                        let (start, len) = held.swap_remove(at as usize % held.len());
                        extents.release(start);
                        model[span(start, len)].iter_mut().for_each(|n| *n -= 1);
                    }
                    5 => {
                        extents.grow(model.len() as u64 + len);
                        model.resize(model.len() + len as usize, 0);
                    }
                    6 => {
                        let claimed = free(&model, at) || held.contains(&(at, len));
                        assert_eq!(extents.claim(at..at + len), claimed, "seed {seed}");
                        if claimed {
                            model[span(at, len)].iter_mut().for_each(|n| *n += 1);
                            held.push((at, len));
                        }
                    }
                    _ => {}
                }
                let used = model.iter().filter(|n| **n > 0).count() as u64;
                assert_eq!(extents.used(), used, "seed {seed}");
                let gap = model.split(|n| *n > 0).map(<[u32]>::len).max().unwrap_or(0);
                assert_eq!(extents.largest_gap(), gap as u64, "seed {seed}");
            }
        }
    }

    #[test]
    fn extends_only_into_free_blocks() {
        let mut extents = Extents::new(10);
        assert_eq!(extents.take(2), Some(0));
        assert_eq!(extents.take(2), Some(2));
        assert!(!extents.extend(0, 3), "the next run is in the way");
        assert!(extents.is_last(2) && extents.extend(2, 8));
        assert!(!extents.extend(2, 9), "the area ends there");
        extents.grow(12);
        assert!(extents.extend(2, 10));
        extents.shrink(2, 1);
        assert_eq!(extents.tail(), 3);
    }
}

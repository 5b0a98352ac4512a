#![forbid(unsafe_code)]
//! The states in pages: the players of [`states`](snapring_bench::states) and plain cells, and which
//! pages of them are written next. Knows nothing of who captures them.

use std::time::{Duration, Instant};

use snapring::{PagedVec, Snapshot};
use snapring_bench::states::{map_free::Player, plain::Cell};

/// What fills pages.
pub(crate) trait Item: Snapshot + Clone + PartialEq + Send + Sync + 'static {
    /// What tables call a state of them.
    const NAME: &'static str;
    /// So many of them are 64 MiB of archive.
    const IN_64_MIB: usize;
    /// Number `index`.
    fn new(index: usize) -> Self;
    /// A change, as small as it can be.
    fn touch(&mut self);
}

impl Item for Player {
    const NAME: &'static str = "players";
    const IN_64_MIB: usize = snapring_bench::states::PLAYERS;

    fn new(index: usize) -> Player {
        Player::new(index as u64, 1)
    }

    fn touch(&mut self) {
        self.gold = self.gold.wrapping_add(1);
    }
}

impl Item for Cell {
    const NAME: &'static str = "cells";
    const IN_64_MIB: usize = snapring_bench::states::plain::CELLS;

    fn new(index: usize) -> Cell {
        let [a, b, c] = [3, 5, 7].map(|n| (index as u32).wrapping_mul(n));
        Cell {
            id: index as u64,
            kind: a,
            flags: b,
            heat: f64::from(c),
            mass: f64::from(a),
            flow: [1.5; 4],
            beside: [a, b, c, 0],
        }
    }

    fn touch(&mut self) {
        self.flags = self.flags.wrapping_add(1);
    }
}

/// A state in pages.
#[derive(Clone, Debug, PartialEq, Snapshot)]
pub(crate) struct Paged<T: Snapshot + Clone + Send + Sync + 'static> {
    /// When.
    pub(crate) tick: u64,
    /// All there is.
    pub(crate) items: PagedVec<T>,
}

impl<T: Item> Paged<T> {
    /// So many.
    pub(crate) fn new(items: usize) -> Paged<T> {
        Paged { tick: 0, items: (0..items).map(T::new).collect() }
    }

    /// Changes one item of each of these pages; answers how long that took.
    pub(crate) fn touch(&mut self, pages: &[usize]) -> Duration {
        let len = self.items.page_len();
        let start = Instant::now();
        self.tick += 1;
        for p in pages {
            self.items[p * len].touch();
        }
        start.elapsed()
    }
}

/// The same in one piece: an item of each page is written, at the same places.
pub(crate) fn touch_flat<T: Item>(items: &mut [T], len: usize, pages: &[usize]) -> Duration {
    let start = Instant::now();
    for p in pages {
        items[p * len].touch();
    }
    start.elapsed()
}

/// Numbers that look drawn and are the same in every run.
#[derive(Clone, Debug)]
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    /// 64 bits: splitmix64.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Between 0 and 1.
    pub(crate) fn part(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Pages in a drawn order, handed out a share at a time: others every time, scattered over the whole.
#[derive(Debug)]
pub(crate) struct Shares {
    order: Vec<usize>,
    next: usize,
}

impl Shares {
    /// Of so many pages.
    pub(crate) fn of(pages: usize) -> Shares {
        let (mut order, mut draw) = ((0..pages).collect::<Vec<_>>(), Draw(pages as u64));
        for at in (1..pages).rev() {
            order.swap(at, draw.below(at + 1));
        }
        Shares { order, next: 0 }
    }

    /// The next `share` of all pages, at least one.
    pub(crate) fn next(&mut self, share: f64) -> &[usize] {
        let count = ((self.order.len() as f64 * share).round() as usize).max(1);
        if self.next + count > self.order.len() {
            self.next = 0;
        }
        self.next += count;
        &self.order[self.next - count..self.next]
    }
}

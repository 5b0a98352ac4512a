#![forbid(unsafe_code)]
//! A paged vector beside a `Vec` of the same items, while nothing is captured: what a hop more costs
//! where items are read and written at random, and page by page where all are.

use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use snapring::{PagedVec, Snapshot};
use snapring_bench::{
    run::{criterion, row},
    states::{
        PLAYERS,
        map_free::{Player, World},
        plain::{CELLS, Cell, Cells},
    },
};

/// Accesses in one call of a random row.
const ACCESSES: usize = 10_000;

/// Places that look random, the same for both.
struct Places {
    state: u64,
    len: u64,
}

impl Places {
    fn new(len: usize) -> Places {
        Places { state: 1, len: len as u64 }
    }

    fn next(&mut self) -> usize {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((u128::from(self.state) * u128::from(self.len)) >> 64) as usize
    }
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// Both kinds of vector under one name for what is done to them.
macro_rules! rows {
    ($g:expr, $column:literal, $make:expr, $read:expr, $write:expr) => {{
        let setup = || {
            let items = $make;
            let places = Places::new(items.len());
            (items, places)
        };
        row($g, "random get", $column, setup, |(items, places)| {
            (0..ACCESSES).map(|_| $read(&items[places.next()])).fold(0_u64, u64::wrapping_add)
        });
        row($g, "random get_mut", $column, setup, |(items, places)| {
            for _ in 0..ACCESSES {
                $write(&mut items[places.next()]);
            }
        });
        row($g, "iter", $column, setup, |(items, _)| {
            let mut sum = 0_u64;
            for item in items.iter() {
                sum = sum.wrapping_add($read(item));
            }
            sum
        });
        row($g, "iter_mut", $column, setup, |(items, _)| {
            for item in items.iter_mut() {
                $write(item);
            }
        });
    }};
}

fn both<T>(g: &mut Group, make: fn() -> Vec<T>, read: fn(&T) -> u64, write: fn(&mut T))
where
    T: Snapshot + Clone + Send + Sync,
{
    let paged = || PagedVec::from(make());
    rows!(g, "Vec", make(), read, write);
    rows!(g, "PagedVec", paged(), read, write);
    let copy = |vec: &mut PagedVec<T>| black_box(vec.clone());
    row(g, "clone", "PagedVec", paged, copy);
    let pushed = |items: &mut Vec<T>| {
        let mut all = PagedVec::new();
        items.iter().for_each(|item| all.push(item.clone()));
        all
    };
    row(g, "push of 1000 clones", "PagedVec", || make().split_off(0)[..1000].to_vec(), pushed);
    let pushed = |items: &mut Vec<T>| {
        let mut all = Vec::new();
        items.iter().for_each(|item| all.push(item.clone()));
        all
    };
    row(g, "push of 1000 clones", "Vec", || make().split_off(0)[..1000].to_vec(), pushed);
}

fn cells() -> Vec<Cell> {
    Cells::new(CELLS, 1).cells
}

fn players() -> Vec<Player> {
    World::new(PLAYERS, 1).rooms.into_iter().flat_map(|room| room.players).collect()
}

fn main() {
    let mut c: Criterion = criterion();
    let mut g = c.benchmark_group("paged cells");
    both(&mut g, cells, |cell| cell.id, |cell| cell.id ^= 1);
    g.finish();
    let mut g = c.benchmark_group("paged players");
    both(&mut g, players, |player| player.experience, |player| player.experience ^= 1);
    g.finish();
    c.final_summary();
}

#![forbid(unsafe_code)]
//! Opening a directory whose newest snapshot is a small state, a room, a world, cells; beside one
//! checksum over as many bytes. Cells are checked in no time, so the difference between the two
//! large ones is the check of a world's pointers, texts and lengths.

use criterion::{Criterion, measurement::WallTime};
use snapring::Snapshot;
use snapring_bench::{
    place::Place,
    reopened::{Cached, Closed},
    ring::archive_of,
    run::{criterion, row, timed_row},
    states::{
        PLAYERS, ROOM, SMALL, map_free,
        plain::{self, CELLS},
        sorted,
    },
};

fn opens<T: Snapshot>(
    g: &mut criterion::BenchmarkGroup<'_, WallTime>,
    name: &str,
    place: Place,
    state: impl Fn() -> T,
) {
    let setup = || Closed::new(place, &state());
    timed_row(g, name, place.name(), setup, |closed| closed.open::<T>());
}

fn crcs<T: Snapshot>(
    g: &mut criterion::BenchmarkGroup<'_, WallTime>,
    place: Place,
    state: impl Fn() -> T,
) {
    let setup = || Cached::new(place, &archive_of(&state()));
    row(g, "one CRC pass", place.name(), setup, |cached| cached.crc());
    timed_row(g, "map and one CRC pass", place.name(), setup, |cached| cached.map_and_crc());
}

fn main() {
    let mut c: Criterion = criterion();

    let mut g = c.benchmark_group("open small");
    for place in Place::FILES {
        crcs(&mut g, place, || map_free::Player::new(SMALL, 1));
        opens(&mut g, "snapring open, map-free", place, || map_free::Player::new(SMALL, 1));
        opens(&mut g, "snapring open, sorted", place, || sorted::Player::new(SMALL, 1));
    }
    g.finish();

    for (group, players) in [("open room", ROOM), ("open world", PLAYERS)] {
        let mut g = c.benchmark_group(group);
        for place in Place::FILES {
            crcs(&mut g, place, || map_free::World::new(players, 1));
            opens(&mut g, "snapring open, map-free", place, || map_free::World::new(players, 1));
            opens(&mut g, "snapring open, sorted", place, || sorted::World::new(players, 1));
        }
        g.finish();
    }

    let mut g = c.benchmark_group("open cells");
    for place in Place::FILES {
        crcs(&mut g, place, || plain::Cells::new(CELLS, 1));
        opens(&mut g, "snapring open, map-free", place, || plain::Cells::new(CELLS, 1));
    }
    g.finish();

    c.final_summary();
}

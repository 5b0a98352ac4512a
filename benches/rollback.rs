#![forbid(unsafe_code)]
//! Putting a state back, to and fro between two snapshots that differ everywhere: by the engine, by
//! hand, by a new value, and by the peers' decoders.

use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use snapring_bench::{
    by_hand::PutBack,
    peers::codec::{Bitcode, Codec, Postcard, Wincode},
    place::Place,
    run::{criterion, row},
    states::{
        PLAYERS, ROOM, SMALL, map_free, mirror,
        plain::{self, CELLS},
        sorted, unsorted,
    },
    swing::Swing,
};

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// Three ways back for one shape.
fn ways<T: PutBack>(g: &mut Group, shape: &str, state: impl Fn(u64) -> T) {
    let swing = || Swing::new(Place::Tmpfs, state(1), state(2));
    row(g, "by hand", shape, swing, Swing::put_back);
    row(g, "snapring rollback", shape, swing, Swing::roll_back);
    row(g, "snapring thaw, in place of the old", shape, swing, Swing::replace);
}

fn decodes<M>(g: &mut Group, state: impl Fn() -> M)
where
    Wincode: Codec<M>,
    Bitcode: Codec<M>,
    Postcard: Codec<M>,
{
    decode::<M, Wincode>(g, &state);
    decode::<M, Bitcode>(g, &state);
    decode::<M, Postcard>(g, &state);
}

fn decode<M, C: Codec<M>>(g: &mut Group, state: impl Fn() -> M) {
    let name = format!("{} decode, in place of the old", C::NAME);
    let setup = || (C::default().encode(&state()).to_vec(), state());
    row(g, &name, "as the peers have it", setup, |(bytes, live)| {
        *live = C::decode(black_box(bytes));
    });
}

fn main() {
    let mut c: Criterion = criterion();

    let mut g = c.benchmark_group("rollback small");
    ways(&mut g, "map-free", |tick| map_free::Player::new(SMALL, tick));
    ways(&mut g, "unsorted", |tick| unsorted::Player::new(SMALL, tick));
    ways(&mut g, "sorted", |tick| sorted::Player::new(SMALL, tick));
    decodes(&mut g, || mirror::Player::new(SMALL, 1));
    g.finish();

    for (group, players) in [("rollback room", ROOM), ("rollback world", PLAYERS)] {
        let mut g = c.benchmark_group(group);
        ways(&mut g, "map-free", |tick| map_free::World::new(players, tick));
        ways(&mut g, "unsorted", |tick| unsorted::World::new(players, tick));
        ways(&mut g, "sorted", |tick| sorted::World::new(players, tick));
        decodes(&mut g, || mirror::World::new(players, 1));
        g.finish();
    }

    let mut g = c.benchmark_group("rollback cells");
    ways(&mut g, "map-free", |tick| plain::Cells::new(CELLS, tick));
    decodes(&mut g, || mirror::Cells::new(CELLS, 1));
    g.finish();

    c.final_summary();
}

#![forbid(unsafe_code)]
//! Saving each state so that it is on the disk when the call returns, beside the peers doing the
//! same: all on ext4, all syncing.

use std::cell::LazyCell;

use criterion::{BenchmarkGroup, measurement::WallTime};
use snapring::{Durability, Snapshot};
use snapring_bench::{
    peers::{
        codec::{Bitcode, Codec, Postcard, Replaced, Wincode},
        lmdb::{Lmdb, Writes},
        redb::Redb,
    },
    place::Place,
    ring::{FEW, Ring, archive_of, quiet},
    run::{criterion, row},
    states::{PLAYERS, ROOM, SMALL, map_free, mirror, sorted, unsorted},
};

type Group<'a> = BenchmarkGroup<'a, WallTime>;

const ON: Place = Place::Ext4;

fn saves<T: Snapshot>(g: &mut Group, name: &str, ring: u32, state: &LazyCell<T, fn() -> T>) {
    let options = quiet().ring(ring).durability(Durability::Sync);
    let setup = || Ring::with(ON, &options).warm(&**state);
    row(g, name, ON.name(), setup, |ring| ring.save(state).expect("a durable save"));
}

fn peers<M>(g: &mut Group, value: &LazyCell<M, fn() -> M>, archive: impl Fn() -> Vec<u8>)
where
    Wincode: Codec<M>,
    Bitcode: Codec<M>,
    Postcard: Codec<M>,
{
    let on = ON.name();
    for (writes, name) in
        [(Writes::Durable, "LMDB put"), (Writes::DurableMapped, "LMDB put into its map")]
    {
        let setup = || (Lmdb::with(ON, writes), archive());
        row(g, &format!("{name}, ready bytes"), on, setup, |(to, bytes)| to.put(bytes));
        let setup = || (Lmdb::with(ON, writes), Wincode::default());
        row(g, &format!("{name}, by wincode"), on, setup, |(to, codec)| {
            to.put(codec.encode(value));
        });
    }
    let setup = || (Redb::durable(ON), archive());
    row(g, "redb insert, ready bytes", on, setup, |(to, bytes)| to.put(bytes));
    let setup = || (Redb::durable(ON), Wincode::default());
    row(g, "redb insert, by wincode", on, setup, |(to, codec)| to.put(codec.encode(value)));
    file::<M, Wincode>(g, value);
    file::<M, Bitcode>(g, value);
    file::<M, Postcard>(g, value);
}

fn file<M, C: Codec<M>>(g: &mut Group, value: &LazyCell<M, fn() -> M>) {
    let name = format!("{} to a file, flushed, renamed", C::NAME);
    let setup = || (Replaced::new(ON), C::default());
    row(g, &name, ON.name(), setup, |(file, codec)| file.write_durably(codec.encode(value)));
}

macro_rules! states {
    ($c:expr, $group:literal, $Type:ident of $size:expr, ring: $ring:expr) => {{
        let mut g = $c.benchmark_group($group);
        saves(
            &mut g,
            "snapring map-free",
            $ring,
            &LazyCell::new(|| map_free::$Type::new($size, 1)),
        );
        saves(
            &mut g,
            "snapring unsorted",
            $ring,
            &LazyCell::new(|| unsorted::$Type::new($size, 1)),
        );
        saves(&mut g, "snapring sorted", $ring, &LazyCell::new(|| sorted::$Type::new($size, 1)));
        peers(&mut g, &LazyCell::new(|| mirror::$Type::new($size, 1)), || {
            archive_of(&map_free::$Type::new($size, 1))
        });
        g.finish();
    }};
}

fn main() {
    let mut c = criterion();
    states!(c, "durable small", Player of SMALL, ring: 16);
    states!(c, "durable room", World of ROOM, ring: 16);
    states!(c, "durable world", World of PLAYERS, ring: FEW);
    c.final_summary();
}

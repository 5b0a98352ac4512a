#![forbid(unsafe_code)]
//! Saving each state, beside the limit and beside the peers, into files on tmpfs and on ext4 and
//! into memory. Rings flush nothing here, but for the row that shows what the default costs.

use std::{cell::LazyCell, hint::black_box, sync::Arc};

use arc_swap::ArcSwap;
use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use rkyv::{
    CheckBytes, Serialize, ser::serializers::AllocSerializer,
    validation::validators::DefaultValidator,
};
use snapring::{Options, Snapshot};
use snapring_bench::{
    limit::Limit,
    peers::{
        codec::{Bitcode, Codec, Postcard, Replaced, Wincode},
        left_right::LeftRight,
        lmdb::Lmdb,
        mmap_sync::MmapSync,
        redb::Redb,
    },
    place::Place,
    ring::{FEW, Ring, archive_of},
    run::{criterion, row},
    states::{
        PLAYERS, ROOM, SMALL, hashed, map_free, mirror,
        plain::{self, CELLS},
        sorted, unsorted,
    },
};

/// A value made when it is first wanted: a filter leaves most of them out.
fn later<T>(make: fn() -> T) -> LazyCell<T> {
    LazyCell::new(make)
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// The rings of the states that are in the cache or near it: the default.
const SIXTEEN: u32 = 16;

/// Saves into a warm ring.
fn saves<T: Snapshot>(g: &mut Group, name: &str, place: Place, ring: u32, state: &LazyCell<T>) {
    let setup = || Ring::new(place, ring).warm(&**state);
    row(g, name, place.name(), setup, |ring| ring.save(state));
}

/// Saves into a ring that is flushed within a second, as rings are by default.
fn saves_by_default<T: Snapshot>(g: &mut Group, ring: u32, state: &LazyCell<T>) {
    let setup = || Ring::with(Place::Ext4, &Options::new().ring(ring)).warm(&**state);
    let name = "snapring map-free, flushed within 1 s";
    row(g, name, Place::Ext4.name(), setup, |ring| ring.save(state));
}

/// The same bytes, copied and checksummed.
fn limit(g: &mut Group, name: &str, place: Place, ring: usize, archive: &LazyCell<Vec<u8>>) {
    let setup = || Limit::new(place, archive.len(), ring);
    row(g, name, place.name(), setup, |limit| limit.save(archive));
}

fn clone<T: Clone>(g: &mut Group, name: &str, state: &LazyCell<T>) {
    row(g, name, "heap", || (), |()| drop(black_box(T::clone(state))));
}

/// What mmap-sync asks of a value.
macro_rules! where_archived {
    ($(#[$doc:meta])* fn $name:ident<$M:ident>($($argument:ident: $type:ty),*) $body:block) => {
        $(#[$doc])*
        fn $name<$M>($($argument: $type),*)
        where
            $M: Clone + Serialize<AllocSerializer<1024>>,
            $M::Archived: for<'a> CheckBytes<DefaultValidator<'a>>,
            Wincode: Codec<$M>,
            Bitcode: Codec<$M>,
            Postcard: Codec<$M>,
        $body
    };
}

where_archived! {
    /// All peers with files, given ready bytes and given the value.
    fn peers<M>(g: &mut Group, place: Place, archive: &LazyCell<Vec<u8>>, value: &LazyCell<M>) {
        let on = place.name();
        row(g, "mmap-sync write_raw, ready bytes", on, || MmapSync::new(place), |to| {
            to.write_raw(archive);
        });
        row(g, "mmap-sync write", on, || MmapSync::new(place), |to| to.write::<M>(value));
        row(g, "LMDB put, ready bytes", on, || Lmdb::new(place), |to| to.put(archive));
        row(g, "LMDB put, by wincode", on, || (Lmdb::new(place), Wincode::default()), |(to, codec)| {
            to.put(codec.encode(value));
        });
        row(g, "redb insert, ready bytes", on, || Redb::new(place), |to| to.put(archive));
        row(g, "redb insert, by wincode", on, || (Redb::new(place), Wincode::default()), |(to, codec)| {
            to.put(codec.encode(value));
        });
        file::<M, Wincode>(g, place, value);
        file::<M, Bitcode>(g, place, value);
        file::<M, Postcard>(g, place, value);
    }
}

fn file<M, C: Codec<M>>(g: &mut Group, place: Place, value: &LazyCell<M>) {
    let name = format!("{} to a file, renamed", C::NAME);
    row(
        g,
        &name,
        place.name(),
        || (Replaced::new(place), C::default()),
        |(file, codec)| {
            file.write(codec.encode(value));
        },
    );
}

/// What stays in this process: readers of other threads alone see it.
fn in_process<M: Clone + Send + Sync + 'static>(g: &mut Group, value: &LazyCell<M>) {
    row(
        g,
        "arc-swap store(clone)",
        "heap",
        || ArcSwap::from_pointee(M::clone(value)),
        |to| {
            to.store(Arc::new(M::clone(value)));
        },
    );
    row(
        g,
        "left-right replace + publish",
        "heap",
        || LeftRight::new(M::clone(value)),
        |to| {
            to.save(value);
        },
    );
}

/// A state in all its shapes.
macro_rules! shapes {
    ($c:expr, $group:literal, $Type:ident of $size:expr, ring: $ring:expr, $limit:literal) => {{
        let a = later(|| map_free::$Type::new($size, 1));
        let u = later(|| unsorted::$Type::new($size, 1));
        let s = later(|| sorted::$Type::new($size, 1));
        let h = later(|| hashed::$Type::new($size, 1));
        let m = later(|| mirror::$Type::new($size, 1));
        let archive = later(|| archive_of(&map_free::$Type::new($size, 1)));
        let mut g = $c.benchmark_group($group);
        for place in [Place::Tmpfs, Place::Ext4, Place::Memory] {
            limit(&mut g, $limit, place, $ring as usize, &archive);
            saves(&mut g, "snapring map-free", place, $ring, &a);
            saves(&mut g, "snapring unsorted", place, $ring, &u);
            saves(&mut g, "snapring sorted", place, $ring, &s);
            saves(&mut g, "snapring hashed", place, $ring, &h);
            if place != Place::Memory {
                limit(&mut g, "limit, always to one place", place, 1, &archive);
                peers(&mut g, place, &archive, &m);
            }
        }
        saves_by_default(&mut g, $ring, &a);
        clone(&mut g, "Clone, map-free", &a);
        clone(&mut g, "Clone, with the map", &s);
        in_process(&mut g, &m);
        g.finish();
    }};
}

fn cells(c: &mut Criterion) {
    let a = later(|| plain::Cells::new(CELLS, 1));
    let m = later(|| mirror::Cells::new(CELLS, 1));
    let archive = later(|| archive_of(&plain::Cells::new(CELLS, 1)));
    let mut g = c.benchmark_group("save cells");
    for place in [Place::Tmpfs, Place::Ext4, Place::Memory] {
        limit(&mut g, "limit, ring of 4", place, FEW as usize, &archive);
        saves(&mut g, "snapring map-free", place, FEW, &a);
        if place != Place::Memory {
            peers(&mut g, place, &archive, &m);
        }
    }
    saves_by_default(&mut g, FEW, &a);
    clone(&mut g, "Clone, map-free", &a);
    in_process(&mut g, &m);
    g.finish();
}

/// The value of mmap-sync's own benchmark.
fn hello(c: &mut Criterion) {
    let a = later(|| plain::Hello::new(7));
    let m = later(|| mirror::Hello::new(7));
    let mut g = c.benchmark_group("save 36 bytes");
    for place in Place::FILES {
        row(&mut g, "mmap-sync write", place.name(), || MmapSync::new(place), |to| to.write(&*m));
        saves(&mut g, "snapring", place, SIXTEEN, &a);
    }
    saves(&mut g, "snapring", Place::Memory, SIXTEEN, &a);
    g.finish();
}

fn main() {
    let mut c = criterion();
    hello(&mut c);
    shapes!(c, "save small", Player of SMALL, ring: SIXTEEN, "limit, ring of 16");
    shapes!(c, "save room", World of ROOM, ring: SIXTEEN, "limit, ring of 16");
    shapes!(c, "save world", World of PLAYERS, ring: FEW, "limit, ring of 4");
    cells(&mut c);
    c.final_summary();
}

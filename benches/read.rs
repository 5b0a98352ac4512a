#![forbid(unsafe_code)]
//! Reading one field of the newest value: the cost of getting there, whatever its size.

use std::sync::Arc;

use arc_swap::ArcSwap;
use criterion::Criterion;
use snapring::Snapshot;
use snapring_bench::{
    peers::{left_right::LeftRight, lmdb::Lmdb, mmap_sync::MmapSync, redb::Redb},
    place::Place,
    ring::{Ring, archive_of},
    run::{criterion, row},
    states::{PLAYERS, ROOM, SMALL, map_free, mirror},
};

/// A ring with one snapshot.
fn ring_of<T: Snapshot>(place: Place, state: &T) -> Ring<T> {
    let ring = Ring::new(place, 4);
    ring.save(state).expect("a save");
    ring
}

macro_rules! reads {
    ($c:expr, $group:literal, $Type:ident, $value:expr, $mirror:expr, |$it:ident| $ours:expr, $theirs:expr) => {{
        let mut g = $c.benchmark_group($group);
        for place in [Place::Memory, Place::Tmpfs] {
            row(
                &mut g,
                "snapring read",
                place.name(),
                || ring_of(place, &$value),
                |ring| ring.read(|$it| $ours),
            );
        }
        row(
            &mut g,
            "arc-swap load",
            "heap",
            || ArcSwap::from_pointee($mirror),
            |shared| {
                let guard = shared.load();
                let $it = &**guard;
                $theirs
            },
        );
        row(
            &mut g,
            "left-right enter",
            "heap",
            || LeftRight::new($mirror),
            |copies| {
                copies.read.enter().map(|guard| {
                    let $it = &guard.0;
                    $theirs
                })
            },
        );
        let sync = || {
            let mut sync = MmapSync::new(Place::Tmpfs);
            sync.write(&$mirror);
            (sync.reader(), sync)
        };
        row(&mut g, "mmap-sync read, unchecked", "tmpfs", sync, |(reader, _)| {
            reader.read::<mirror::$Type, _>(|$it| $theirs)
        });
        let held = || {
            let ring = ring_of(Place::Memory, &$value);
            (ring.latest().expect("what was just saved"), ring)
        };
        row(&mut g, "snapring memento, held", "memory", held, |(memento, _)| {
            let $it = memento.archived();
            $ours
        });
        row(
            &mut g,
            "snapring latest",
            "memory",
            || ring_of(Place::Memory, &$value),
            |ring| ring.latest().map(|$it| $ours),
        );
        row(
            &mut g,
            "Arc clone from arc-swap",
            "heap",
            || ArcSwap::new(Arc::new($mirror)),
            |shared| {
                let $it = shared.load_full();
                $theirs
            },
        );
        let lmdb = || {
            let lmdb = Lmdb::new(Place::Tmpfs);
            lmdb.put(&archive_of(&$value));
            lmdb
        };
        row(&mut g, "LMDB get", "tmpfs", lmdb, |lmdb| lmdb.get(|bytes| bytes[bytes.len() - 1]));
        let redb = || {
            let redb = Redb::new(Place::Tmpfs);
            redb.put(&archive_of(&$value));
            redb
        };
        row(&mut g, "redb get", "tmpfs", redb, |redb| redb.get(|bytes| bytes[bytes.len() - 1]));
        g.finish();
    }};
}

fn main() {
    let mut c: Criterion = criterion();
    reads!(
        c,
        "read small",
        Player,
        map_free::Player::new(SMALL, 1),
        mirror::Player::new(SMALL, 1),
        |it| it.experience.to_native(),
        it.experience
    );
    reads!(
        c,
        "read room",
        World,
        map_free::World::new(ROOM, 1),
        mirror::World::new(ROOM, 1),
        |it| it.tick.to_native(),
        it.tick
    );
    reads!(
        c,
        "read world",
        World,
        map_free::World::new(PLAYERS, 1),
        mirror::World::new(PLAYERS, 1),
        |it| it.tick.to_native(),
        it.tick
    );
    c.final_summary();
}

#![forbid(unsafe_code)]
//! A vector in pages beside a `Vec` while nothing is captured, a rollback beside thawing everything,
//! and a capture until it is published beside a save of the same.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use snapring::PagedVec;
use snapring_bench::{
    duel::Duel,
    results::Mmo,
    run::Asked,
    states::{map_free::Player, plain::Cell},
};

use crate::{
    pause::Live,
    world::{Draw, Item, Shares},
};

const VEC: u8 = 19;
const ROLLBACK: u8 = 21;
const PUBLISH: u8 = 23;

/// Writes of one call.
const WRITES: usize = 4096;

/// Random writes and a walk.
pub(crate) fn vec(asked: &Asked, mmo: &mut Mmo) {
    let count = if asked.test { 1 << 14 } else { Cell::IN_64_MIB };
    let mut flat: Vec<Cell> = (0..count).map(Cell::new).collect();
    let mut paged: PagedVec<Cell> = flat.iter().cloned().collect();
    let (again, paged_again) = (flat.clone(), paged.clone());

    let mut duel = Duel::new("random writes to 64 MiB of cells");
    let mut draw = Draw(1);
    let reference = duel.row("Vec get_mut, 4096 items", || {
        for _ in 0..WRITES {
            let i = draw.below(count);
            if let Some(cell) = flat.get_mut(i) {
                cell.touch();
            }
        }
    });
    let mut draw = Draw(1);
    let row = duel.row("PagedVec get_mut, 4096 items", || {
        for _ in 0..WRITES {
            let i = draw.below(count);
            if let Some(cell) = paged.get_mut(i) {
                cell.touch();
            }
        }
    });
    duel.most(VEC, row, reference, 1.6);
    mmo.put(duel.run(asked));

    let mut duel = Duel::new("a walk over 64 MiB of cells");
    let reference = duel.row("Vec iter", || again.iter().map(|cell| cell.heat).sum::<f64>());
    let row = duel.row("PagedVec iter", || paged_again.iter().map(|cell| cell.heat).sum::<f64>());
    duel.most(VEC, row, reference, 1.1);
    mmo.put(duel.run(asked));
}

/// Back to a snapshot of which one page in a hundred has changed since.
fn roll_back_of<T: Item>(asked: &Asked, mmo: &mut Mmo) {
    let items = if asked.test { T::IN_64_MIB / 64 } else { T::IN_64_MIB };
    let Live { ring, mut world, .. } = Live::<T>::new(items);
    let id = ring.save(&world).expect("a save");
    ring.keep(id, "back").expect("a label");
    let memento = ring.memento(id).expect("what was just saved");
    let mut shares = Shares::of(world.items.pages());
    let mut duel = Duel::new(format!("rollback of 64 MiB of {}", T::NAME));
    let reference = duel.timed("thaw everything", || {
        let start = Instant::now();
        let all = black_box(memento.thaw().expect("whole"));
        let took = start.elapsed();
        drop(all);
        took
    });
    let row = duel.timed("rollback, 1 % of pages written", || {
        let tick = world.tick;
        world.touch(shares.next(0.01));
        let start = Instant::now();
        _ = ring.rollback(&mut world, id).expect("a rollback");
        let took = start.elapsed();
        assert_eq!(world.tick, tick, "back");
        took
    });
    duel.most(ROLLBACK, row, reference, 0.03);
    let set = duel.run(asked);
    let whole = ring.memento(id).expect("kept").thaw().expect("whole");
    assert!(whole == world, "everything is back");
    mmo.put(set);
}

/// Both kinds of state.
pub(crate) fn roll_back(asked: &Asked, mmo: &mut Mmo) {
    roll_back_of::<Player>(asked, mmo);
    roll_back_of::<Cell>(asked, mmo);
}

/// From a capture to its publication.
fn publish_of<T: Item>(asked: &Asked, mmo: &mut Mmo) {
    let items = if asked.test { T::IN_64_MIB / 64 } else { T::IN_64_MIB };
    let (mut one, mut other) = (Live::<T>::new(items), Live::<T>::new(items));
    let pages: Vec<usize> = (0..one.world.items.pages()).collect();
    let mut duel = Duel::new(format!("publish 64 MiB of {}, all pages written", T::NAME));
    let reference = duel.timed("save", || {
        one.world.touch(&pages);
        timed(|| one.ring.save(&one.world).expect("a save"))
    });
    let row = duel.timed("capture, then wait", || {
        other.world.touch(&pages);
        timed(|| other.ring.capture(&other.world).expect("a capture").wait().expect("published"))
    });
    duel.most(PUBLISH, row, reference, 0.7);
    mmo.put(duel.run(asked));
}

fn timed<R>(call: impl FnOnce() -> R) -> Duration {
    let start = Instant::now();
    black_box(call());
    start.elapsed()
}

/// Both kinds of state.
pub(crate) fn publish(asked: &Asked, mmo: &mut Mmo) {
    publish_of::<Player>(asked, mmo);
    publish_of::<Cell>(asked, mmo);
}

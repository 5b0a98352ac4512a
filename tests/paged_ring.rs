//! A paged state must come back whole, whatever was shared and whoever shares it: a page of another
//! generation in a snapshot would be a mixture.

mod common;

use common::TempDir;
use snapring::{
    Caretaker, Entry, EntryState, Kind, Options, PagedVec, Reader, Snapshot, SnapshotId,
};

#[derive(Snapshot, Debug, Clone, PartialEq)]
struct Unit {
    id: u32,
    name: String,
    at: [f32; 3],
}

#[derive(Snapshot, Debug, Clone, PartialEq, Default)]
struct World {
    tick: u64,
    units: PagedVec<Unit>,
    cells: Option<PagedVec<u64>>,
}

fn unit(id: u32, tick: u64) -> Unit {
    Unit { id, name: format!("unit {id} of {tick}"), at: [tick as f32, id as f32, 0.0] }
}

fn world(units: u32) -> World {
    let all = (0..units).map(|id| unit(id, 0));
    let mut world = World { tick: 0, units: PagedVec::with_page_len(16), cells: None };
    world.units.extend(all);
    world.cells = Some((0..5000).collect());
    world
}

fn options() -> Options {
    Options::new().ring(6).file_size(1 << 20)
}

fn open(dir: &TempDir) -> Caretaker<World> {
    // SAFETY: the directory is the test's own, and nobody else writes there.
    unsafe { options().open(dir) }.expect("opened")
}

/// Changes a few units, and says so in `tick`.
fn step(world: &mut World, seed: u64) {
    world.tick += 1;
    let len = world.units.len() as u64;
    for i in 0..3 {
        let id = (seed.wrapping_mul(6_364_136_223_846_793_005) >> 17).wrapping_add(i * 97) % len;
        world.units[id as usize] = unit(id as u32, world.tick);
    }
    if let Some(cells) = &mut world.cells {
        cells[(seed % 5000) as usize] = world.tick;
    }
}

#[test]
fn every_snapshot_is_complete_on_its_own() {
    let dir = TempDir::new("complete");
    let mut world = world(1000);
    let mut kept: Vec<(SnapshotId, World)> = Vec::new();
    {
        let caretaker = open(&dir);
        for seed in 0..40 {
            step(&mut world, seed);
            let id = caretaker.save(&world).expect("saved");
            kept.push((id, world.clone()));
            for entry in caretaker.history() {
                let (_, then) = kept.iter().find(|(id, _)| *id == entry.id()).expect("saved here");
                let memento = caretaker.memento(entry.id()).expect("listed");
                assert_eq!(&memento.thaw().expect("whole"), then, "{}", entry.id());
                assert_eq!(memento.units.len(), then.units.len());
                for i in [0, 7, 500, 999] {
                    let (there, then) = (memento.units.get(i).expect("in bounds"), &then.units[i]);
                    assert_eq!((there.id.to_native(), there.name.as_str()), (then.id, &*then.name));
                }
            }
        }
        let kinds: Vec<Kind> = caretaker.history().iter().map(|e| e.kind()).collect();
        assert!(kinds.iter().all(|kind| *kind == Kind::Incremental), "{kinds:?}");
        let newest = &caretaker.history()[0];
        assert!(newest.written_bytes() * 5 < newest.bytes(), "{newest:?}");
    }
    let caretaker = open(&dir);
    assert!(caretaker.recovery().rejected.is_empty(), "{}", caretaker.recovery());
    assert_eq!(caretaker.history().len(), 6);
    for entry in caretaker.history() {
        let (_, then) = kept.iter().find(|(id, _)| *id == entry.id()).expect("saved before");
        let memento = caretaker.try_memento(entry.id()).expect("whole");
        assert_eq!(&memento.thaw().expect("whole"), then, "{}", entry.id());
    }
    // What was resumed is known to be there, on either side: no page is written again but what changes.
    let mut world = caretaker.resume().expect("whole").expect("a world");
    assert_eq!(&world, &kept.last().expect("some").1);
    let whole = |entry: &Entry| *entry.state() == EntryState::Whole;
    while !caretaker.history().iter().all(whole) {
        std::thread::yield_now();
    }
    for seed in 40..44 {
        step(&mut world, seed);
        caretaker.save(&world).expect("saved");
        let newest = &caretaker.history()[0];
        assert_eq!(newest.kind(), Kind::Incremental);
        assert!(newest.written_bytes() * 5 < newest.bytes(), "{newest:?}");
        assert_eq!(caretaker.resume().expect("whole").as_ref(), Some(&world));
    }
}

#[test]
fn captures_are_published_in_their_order_while_the_state_goes_on() {
    let caretaker = options().in_memory::<World>().expect("memory");
    let mut world = world(4000);
    let mut expected = Vec::new();
    for seed in 0..50 {
        step(&mut world, seed);
        expected.push((caretaker.capture(&world).expect("captured"), world.clone()));
        step(&mut world, seed * 31);
    }
    let mut last = None;
    for (pending, then) in expected {
        let id = pending.wait().expect("published");
        assert!(last < Some(id), "{id} after {last:?}");
        last = Some(id);
        if let Some(memento) = caretaker.memento(id) {
            assert_eq!(memento.thaw().expect("whole"), then, "{id}");
        }
    }
    let id = caretaker.save(&world).expect("saved");
    assert!(last < Some(id));
    assert_eq!(caretaker.resume().expect("whole"), Some(world));
}

#[test]
fn a_rollback_puts_back_what_differs_and_the_next_save_writes_what_differs_again() {
    let caretaker = options().in_memory::<World>().expect("memory");
    let mut world = world(4000);
    let first = caretaker.save(&world).expect("saved");
    let then = world.clone();
    for seed in 0..4 {
        step(&mut world, seed);
        caretaker.save(&world).expect("saved");
    }
    let rollback = caretaker.rollback(&mut world, first).expect("rolled back");
    assert_eq!(world, then);
    assert_eq!(caretaker.memento(rollback.id()).expect("listed").thaw().expect("whole"), then);
    for seed in 0..6 {
        step(&mut world, seed);
        caretaker.save(&world).expect("saved");
        assert_eq!(caretaker.resume().expect("whole").as_ref(), Some(&world));
        // Pages that the rollback has left alone kept their names.
        let newest = &caretaker.history()[0];
        assert!(newest.written_bytes() * 5 < newest.bytes(), "{newest:?}");
    }
}

#[test]
fn another_process_reads_pages_in_place() {
    let dir = TempDir::new("elsewhere");
    let caretaker = open(&dir);
    let mut world = world(2000);
    caretaker.save(&world).expect("saved");
    // SAFETY: only the caretaker above writes there.
    let reader = unsafe { Reader::<World>::open(&dir) }.expect("opened");
    for seed in 0..30 {
        step(&mut world, seed);
        let id = caretaker.save(&world).expect("saved");
        let memento = reader.latest().expect("a snapshot");
        assert_eq!(memento.id(), id);
        assert_eq!(memento.thaw().expect("whole"), world);
        let here = caretaker.memento(id).expect("listed");
        assert_eq!(memento.digest(), here.digest());
        assert_eq!(memento.bytes(), here.bytes());
    }
}

#[test]
fn equal_states_have_equal_digests_however_their_pages_came_about() {
    let caretaker = options().in_memory::<World>().expect("memory");
    let mut one = world(1000);
    let other = world(1000);
    for seed in 0..5 {
        step(&mut one, seed);
        caretaker.save(&one).expect("saved");
    }
    let changed = caretaker.memento(caretaker.head().expect("saved")).expect("listed").digest();
    for id in 0..1000 {
        one.units[id as usize] = unit(id, 0);
    }
    one.cells = Some((0..5000).collect());
    one.tick = 0;
    assert_eq!(one, other);
    let a = caretaker.save(&one).expect("saved");
    let b = caretaker.save(&other).expect("saved");
    let digest = |id| caretaker.memento(id).expect("listed").digest();
    assert_eq!(digest(a), digest(b));
    assert_ne!(digest(a), changed);
}

#![forbid(unsafe_code)]
//! What simulated runs have found once, on its own: ids given out again after a crash in the middle
//! of a recovery; labels that a flush said were durable, and were not; records that were damaged
//! before and come back in the place of others.

use crate::{
    Caretaker, Options, Snapshot, SnapshotId,
    campaign::{Disk, Random, kill, open},
};

#[derive(Snapshot, Debug, PartialEq)]
struct World {
    tick: u64,
    ground: Vec<u64>,
}

fn world(tick: u64) -> World {
    World { tick, ground: vec![tick; 40 * tick as usize] }
}

fn opened(disk: &Disk) -> Caretaker<World> {
    let options = Options::new().ring(3).file_size(0).max_file_size(1 << 20);
    open(disk, &options).expect("opened")
}

fn save(caretaker: &Caretaker<World>, tick: u64) -> SnapshotId {
    caretaker.save(&world(tick)).expect("saved")
}

/// What is left when power is lost now, by many chances.
fn cuts(disk: &Disk) -> impl Iterator<Item = Disk> {
    (0..60).map(|seed| disk.cut(&mut Random::new(seed)))
}

/// What each kill in the middle of opening a disk leaves.
fn killed_openings(disk: &Disk) -> Vec<Disk> {
    let mut all = Vec::new();
    for at in 0.. {
        let copy = disk.killed();
        let (watched, left) = (copy.clone(), std::sync::Arc::new(parking_lot::Mutex::new(None)));
        let (mut steps, leaves) = (0, left.clone());
        copy.at_each_step(Some(Box::new(move |_| {
            if steps == at {
                *leaves.lock() = Some(watched.killed());
            }
            steps += 1;
        })));
        kill(opened(&copy));
        copy.at_each_step(None);
        let Some(left) = left.lock().take() else { break };
        all.push(left);
    }
    all
}

#[test]
fn ids_are_not_given_out_again_after_a_kill_while_a_power_cut_is_recovered_from() {
    let disk = Disk::new(1);
    let caretaker = opened(&disk);
    let last = (1..=4).map(|tick| save(&caretaker, tick)).max().expect("some");
    let mut lost = 0;
    for left in cuts(&disk).flat_map(|cut| killed_openings(&cut)) {
        let caretaker = opened(&left);
        lost += u32::from(caretaker.head() < Some(last));
        assert!(save(&caretaker, 9) > last, "given out again");
        kill(caretaker);
    }
    assert!(lost > 100, "power cuts lose what was not flushed: {lost}");
    kill(caretaker);
}

#[test]
fn a_label_set_before_a_kill_is_durable_after_the_next_flush() {
    let disk = Disk::new(2);
    let caretaker = opened(&disk);
    let first = save(&caretaker, 1);
    caretaker.flush().expect("flushed");
    caretaker.keep(first, "good").expect("kept");
    kill(caretaker);
    let caretaker = opened(&disk);
    caretaker.flush().expect("flushed");
    for cut in cuts(&disk) {
        let found = opened(&cut);
        let entry = found.history().into_iter().find(|entry| entry.id() == first).expect("there");
        assert_eq!(entry.label(), Some("good"));
        kill(found);
    }
    kill(caretaker);
}

#[test]
fn a_label_goes_with_a_snapshot_that_is_copied_elsewhere() {
    let disk = Disk::new(3);
    let caretaker = opened(&disk);
    let first = save(&caretaker, 1);
    kill(caretaker);
    // Found in the same boot without a durable note: the newest is copied before it is synced.
    disk.write_back(&mut Random::new(1), 1);
    let caretaker = opened(&disk);
    caretaker.keep(first, "good").expect("kept");
    caretaker.flush().expect("flushed");
    for cut in cuts(&disk) {
        let found = opened(&cut);
        assert_eq!(found.history().len(), 1, "{}", found.recovery());
        assert_eq!(found.history()[0].label(), Some("good"));
        kill(found);
    }
    kill(caretaker);
}

#[test]
fn what_power_loss_has_broken_does_not_come_back_in_the_place_of_others() {
    for seed in 0..60 {
        let disk = Disk::new(seed);
        let caretaker = opened(&disk);
        (1..=3).for_each(|tick| _ = save(&caretaker, tick));
        caretaker.flush().expect("flushed");
        (4..=6).for_each(|tick| _ = save(&caretaker, tick));
        let cut = disk.cut(&mut Random::new(seed));
        kill(caretaker);
        let caretaker = opened(&cut);
        let whole = |caretaker: &Caretaker<World>| {
            let entries = caretaker.history().into_iter().map(|entry| entry.id());
            entries.filter(|id| caretaker.memento(*id).is_some()).collect::<Vec<_>>()
        };
        // Those that are no snapshots are known from here on.
        let before = whole(&caretaker);
        let new = save(&caretaker, 7);
        let listed: Vec<_> = caretaker.history().iter().map(|entry| entry.id()).collect();
        assert_eq!(listed[0], new);
        kill(caretaker);
        let caretaker = opened(&cut);
        assert_eq!(whole(&caretaker), listed, "seed {seed}, before {before:?}");
        kill(caretaker);
    }
}

#[test]
fn a_save_waits_for_the_disk_where_that_is_what_keeps_all_room() {
    let disk = Disk::new(5);
    let within = std::time::Duration::from_secs(3600);
    // Two worlds of 12 KiB a side, and no third.
    let options = Options::new().ring(3).file_size(0).max_file_size(64 << 10);
    let options = options.durability(crate::Durability::Background { within });
    let caretaker = open::<World>(&disk, &options).expect("opened");
    let large = |tick| World { tick, ground: vec![tick; 1500] };
    for tick in 1..=5 {
        caretaker.save(&large(tick)).expect("saved");
    }
    kill(caretaker);
    // Nothing is known to be on the disk: all that is found is kept until something is.
    let caretaker = open::<World>(&disk, &options).expect("opened");
    assert_eq!(caretaker.durable(), None);
    for tick in 6..20 {
        caretaker.save(&large(tick)).unwrap_or_else(|error| panic!("{tick}: {error}"));
    }
    assert!(caretaker.durable() > None, "it was waited for");
    kill(caretaker);
}

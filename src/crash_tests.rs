#![forbid(unsafe_code)]
//! What simulated runs have found once, on its own: ids given out again after a crash in the middle
//! of a recovery; labels that a flush said were durable, and were not; records that were damaged
//! before and come back in the place of others; snapshots that left for a save which then failed; one
//! that was written elsewhere, and lost to what had lain there before.

use crate::{
    Caretaker, Options, Snapshot, SnapshotId,
    campaign::{Call, Disk, Fault, Random, kill, open},
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

/// The next call of that kind fails, and no other.
fn fault(call: Call) -> Fault {
    Fault { call, after: 0, errno: libc::EIO, for_ever: false }
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

#[test]
fn a_label_whose_sync_failed_is_written_elsewhere() {
    // The newest on the disk, and one before it.
    for (seed, tick) in [(8, 2), (9, 1)] {
        let disk = Disk::new(seed);
        let caretaker = opened(&disk);
        let ids = [save(&caretaker, 1), save(&caretaker, 2)];
        let labelled = ids[tick - 1];
        assert_eq!(caretaker.flush().expect("flushed"), Some(ids[1]));
        caretaker.keep(labelled, "good").expect("kept");
        let found = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
        let (here, there) = (disk.clone(), found.clone());
        disk.at_each_step(Some(Box::new(move |_| {
            let mut random = Random::new(seed);
            here.write_back(&mut random, 4);
            there.lock().extend([(here.killed(), true), (here.cut(&mut random), false)]);
        })));
        disk.set_faults(vec![fault(Call::Sync)]);
        assert!(caretaker.flush().is_err(), "it is told");
        disk.at_each_step(None);
        assert_eq!((caretaker.stats().relocated, caretaker.durable()), (1, Some(ids[1])));
        let points = std::mem::take(&mut *found.lock());
        assert!(points.len() > 10, "{} points", points.len());
        // Written, it outlives the power; before that it may be lost, and nothing else.
        for (left, certain) in points.into_iter().chain(cuts(&disk).map(|cut| (cut, true))) {
            let found = opened(&left);
            let history = found.history();
            let listed: Vec<_> = history.iter().rev().map(|entry| entry.id()).collect();
            assert_eq!(listed, ids, "{}", found.recovery());
            let label = history.iter().find(|e| e.id() == labelled).and_then(|e| e.label());
            let lost = label.is_none() && !certain;
            assert!(label == Some("good") || lost, "{label:?}: {}", found.recovery());
            for (id, tick) in ids.into_iter().zip(1..) {
                let memento = found.memento(id).expect("there");
                assert_eq!(memento.thaw().expect("whole"), world(tick));
            }
            assert!(found.release("good") || !certain);
            let listed: Vec<_> = (3..9).rev().map(|tick| save(&found, tick)).collect();
            found.flush().expect("flushed");
            kill(found);
            let again = opened(&left);
            let found: Vec<_> = again.history().iter().map(|entry| entry.id()).collect();
            assert_eq!(found, [listed[5], listed[4], listed[3]], "{}", again.recovery());
            kill(again);
        }
        // Nor does a label come back from where it was.
        assert!(caretaker.release("good"));
        caretaker.flush().expect_err("told for ever");
        for cut in cuts(&disk) {
            let found = opened(&cut);
            assert!(found.history().iter().all(|entry| entry.label().is_none()));
            kill(found);
        }
        kill(caretaker);
    }
}

#[test]
fn nobody_leaves_for_a_save_whose_write_is_refused() {
    let disk = Disk::new(10);
    // Two worlds of 12 KiB a side: the ring would list three.
    let options = Options::new().ring(6).file_size(0).max_file_size(76 << 10);
    let options = options.durability(crate::Durability::Sync);
    let caretaker = open::<World>(&disk, &options).expect("opened");
    let large = |tick| World { tick, ground: vec![tick; 1500] };
    let small = |tick| World { tick, ground: vec![tick; 100] };
    for tick in 1..=4 {
        caretaker.save(&large(tick)).expect("saved");
    }
    for tick in 5..40 {
        disk.set_faults(vec![fault(Call::Write)]);
        let evicted = caretaker.stats().evicted;
        let world = if tick % 3 == 0 { small(tick) } else { large(tick) };
        match caretaker.save(&world) {
            Ok(id) => {
                assert_eq!(caretaker.head(), Some(id));
                assert_eq!(caretaker.resume().expect("whole"), Some(world));
            }
            Err(error) => {
                assert!(matches!(error, crate::SaveError::Write { .. }), "{error:?}");
                assert_eq!(caretaker.stats().evicted, evicted, "refused, and somebody has left");
            }
        }
    }
    assert!(disk.failed() > 10, "{} writes refused", disk.failed());
    kill(caretaker);
}

#[test]
fn what_is_written_elsewhere_outlives_the_newer_ones_that_lay_there() {
    for newest in 3..12 {
        let disk = Disk::new(newest);
        let caretaker = opened(&disk);
        let kept = save(&caretaker, 1);
        caretaker.keep(kept, "one").expect("kept");
        for tick in 2..=newest {
            // Of more blocks: what lies over part of another's is refused.
            save(&caretaker, 20 + tick);
            caretaker.flush().expect("flushed");
            if tick + 2 < newest {
                // The durable notes, too.
                disk.write_back(&mut Random::new(tick), 1);
            }
        }
        // Who has left since has its seal broken, and not on the disk.
        caretaker.keep(kept, "two").expect("kept");
        disk.set_faults(vec![fault(Call::Sync)]);
        assert!(caretaker.flush().is_err(), "it is told");
        assert_eq!(caretaker.stats().relocated, 1);
        for cut in cuts(&disk) {
            let found = opened(&cut);
            let memento = found.memento(kept);
            let memento = memento.unwrap_or_else(|| panic!("{newest}: lost: {}", found.recovery()));
            assert_eq!(memento.thaw().expect("whole"), world(1));
            let entries = found.history();
            let entry = entries.iter().find(|entry| entry.id() == kept).expect("listed");
            assert_eq!(entry.label(), Some("two"));
            kill(found);
        }
        kill(caretaker);
    }
}

#[derive(Snapshot, Debug, PartialEq)]
struct Paged {
    tick: u64,
    cells: crate::PagedVec<u64>,
}

impl Paged {
    fn go_to(&mut self, tick: u64) {
        self.tick = tick;
        self.cells[tick as usize * 7 % 400] = tick;
    }
}

#[test]
fn what_was_in_the_making_when_a_whole_file_failed_to_sync_is_not_called_durable() {
    let disk = Disk::new(3);
    let options = Options::new().ring(5).file_size(0).max_file_size(1 << 20);
    let options = options.durability(crate::Durability::Sync);
    let caretaker = open::<Paged>(&disk, &options).expect("opened");
    let mut cells = crate::PagedVec::with_page_len(8);
    cells.extend(0..400);
    let mut state = Paged { tick: 0, cells };
    for tick in 1..=4 {
        state.go_to(tick);
        caretaker.save(&state).expect("saved");
    }
    state.go_to(5);
    let pending = caretaker.capture(&state).expect("captured");
    disk.set_faults(vec![fault(Call::SyncAll)]);
    // It lies beside the captured one, in the same file, when that is synced.
    state.go_to(6);
    let saved = caretaker.save(&state);
    assert!(matches!(pending.wait(), Err(crate::SaveError::NotDurable { .. })));
    let id = match saved {
        Ok(id) | Err(crate::SaveError::NotDurable { id, .. }) => id,
        Err(error) => panic!("{error}"),
    };
    let claimed = caretaker.history().iter().any(|entry| entry.id() == id && entry.is_durable());
    for cut in cuts(&disk) {
        let caretaker = open::<Paged>(&cut, &options).expect("opened");
        assert!(caretaker.head() >= Some(SnapshotId::new(4)));
        if claimed {
            let found = caretaker.try_memento(id).expect("P4: it was called durable");
            assert_eq!(found.thaw().expect("whole"), state);
        }
        kill(caretaker);
    }
    // What is saved next shares nothing with it, and is on the disk.
    state.go_to(7);
    let next = caretaker.save(&state).or_else(|error| match error {
        crate::SaveError::NotDurable { id, .. } => Ok(id),
        other => Err(other),
    });
    let next = next.expect("published");
    state.go_to(8);
    let last = caretaker.save(&state).expect("on the disk");
    for cut in cuts(&disk) {
        let caretaker = open::<Paged>(&cut, &options).expect("opened");
        assert_eq!(caretaker.head(), Some(last), "after {next}");
        assert_eq!(caretaker.resume().expect("whole").as_ref(), Some(&state));
        kill(caretaker);
    }
    kill(caretaker);
}

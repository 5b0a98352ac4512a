//! A snapshot whose sync failed and that is lost all the same though the disk is well again; one
//! that is called durable because a second sync said so; two records of one snapshot that confuse
//! whoever opens the files next.

mod common;

use std::{
    fmt, fs,
    path::Path,
    time::{Duration, Instant},
};

use common::{
    A, B, Failing, Image, TempDir, World, open, open_with, skipped, small, thawed, world,
};
use snapring::{
    Caretaker, Durability, Event, FlushError, GuardError, Options, SaveError, Snapshot, SnapshotId,
};

#[derive(Snapshot, PartialEq, Clone)]
struct Blob {
    bytes: Vec<u8>,
}

/// What is equal in all bytes is told by one of them.
impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} times {:?}", self.bytes.len(), self.bytes.first())
    }
}

fn blob(kib: usize, byte: u8) -> Blob {
    Blob { bytes: vec![byte; kib << 10] }
}

fn id(n: u64) -> SnapshotId {
    SnapshotId::new(n)
}

fn ids(caretaker: &Caretaker<World>) -> Vec<u64> {
    caretaker.history().iter().map(|e| e.id().get()).collect()
}

fn options(durability: Durability) -> Options {
    Options::new().file_size(8 << 20).max_file_size(8 << 20).durability(durability)
}

fn open_blobs(durability: Durability, dir: &Path) -> Caretaker<Blob> {
    open_with(&options(durability), dir).expect("opened")
}

/// A ring of some snapshots, all on the disk; and every free block has been there, too, so that the
/// file system has nothing of its own to write when one is written to.
fn used(failing: &Failing) -> SnapshotId {
    let caretaker = open_blobs(Durability::Process, &failing.ring());
    for n in 1..=10 {
        caretaker.save(&blob(n, 3)).expect("saved");
    }
    let head = caretaker.close().expect("closed").expect("a head");
    for image in Image::both(&failing.ring()) {
        let mut free = vec![true; image.len() as usize / 4096];
        free[..image.data_at() / 4096].fill(false);
        for (_, record) in image.records() {
            for extent in ["root", "schema"] {
                let at = record.get(&format!("{extent} offset")) as usize;
                let end = at + record.get(&format!("{extent} len")) as usize;
                free[at / 4096..end.div_ceil(4096)].fill(false);
            }
        }
        for (block, _) in free.iter().enumerate().filter(|(_, free)| **free) {
            image.write(block * 4096, &[0xa7; 4096]);
        }
        for slot in 0..image.slots() {
            let page = image.read(Image::slot_at(slot), 4096);
            image.write(Image::slot_at(slot), &page);
        }
        fs::File::open(image.path()).and_then(|file| file.sync_all()).expect("the disk is well");
    }
    head
}

fn failing(test: &str) -> Option<Failing> {
    Failing::new().inspect_err(|why| skipped(test, why)).ok()
}

#[test]
fn what_a_failed_sync_left_behind_is_written_elsewhere_and_then_it_is_durable() {
    let Some(failing) = failing("written elsewhere") else { return };
    let good = used(&failing);
    let caretaker = open_blobs(Durability::Process, &failing.ring());
    let mut events = caretaker.subscribe();
    failing.fail();
    let state = blob(1000, 1);
    let bad = caretaker.save(&state).expect("memory has it");
    caretaker.keep(bad, "kept").expect("kept");
    let before = caretaker.memento(bad).expect("there");
    let error = caretaker.flush().expect_err("the disk takes no more");
    assert!(matches!(&error, FlushError::Sync { upto, .. } if *upto == bad), "{error:?}");
    assert_eq!(caretaker.durable(), Some(good), "writing it elsewhere has failed, too");
    assert_eq!(caretaker.stats().relocated, 0);
    // The disk is well again; the pages look clean, and another sync of them would say yes.
    failing.heal();
    assert!(caretaker.flush().is_err(), "sticky");
    assert_eq!((caretaker.durable(), caretaker.head()), (Some(bad), Some(bad)));
    assert_eq!(caretaker.stats().relocated, 1);
    assert!(events.any(|event| event == Event::Durable { id: bad }), "it is told");
    assert!(caretaker.history()[0].is_durable());
    assert_eq!(caretaker.history()[0].label(), Some("kept"));
    // Whoever had it before has it still, and everybody else sees the same.
    assert_eq!(before.thaw().expect("whole"), state);
    assert_eq!(caretaker.latest().expect("there").thaw().expect("whole"), state);
    assert_eq!(caretaker.read(|there| there.bytes.len()), Some(state.bytes.len()));
    assert_eq!(caretaker.memento(bad).expect("there").digest(), before.digest());
    // And it is the truth.
    let (_mount, ring) = failing.power_cut();
    let survived = open_blobs(Durability::Process, &ring);
    assert_eq!(survived.head(), Some(bad), "{}", survived.recovery());
    assert_eq!(survived.resume().expect("whole"), Some(state.clone()));
    assert_eq!(survived.history()[0].label(), Some("kept"));
    assert!(survived.recovery().rejected.is_empty(), "{}", survived.recovery());
    drop(survived);
    // A way back that was shared is as good.
    let mut live = blob(1, 9);
    caretaker.save(&live).expect("saved");
    let back = caretaker.rollback(&mut live, bad).expect("rolled back");
    assert_eq!(live, state);
    assert!(caretaker.flush().is_err(), "sticky");
    assert_eq!(caretaker.durable(), Some(back.id()));
    drop(before);
    for n in 0..40 {
        caretaker.save(&blob(n, 5)).expect("the old place is used again");
    }
    assert_eq!(caretaker.memento(bad).expect("kept").thaw().expect("whole"), state);
}

#[test]
fn a_rollback_to_what_a_failed_sync_left_behind_is_no_safer() {
    let Some(failing) = failing("rollback to a tainted one") else { return };
    let good = used(&failing);
    let caretaker = open_blobs(Durability::Process, &failing.ring());
    failing.fail();
    let bad = caretaker.save(&blob(1000, 1)).expect("memory has it");
    assert!(caretaker.flush().is_err());
    let mut live = blob(1, 1);
    let back = caretaker.rollback(&mut live, bad).expect("memory has it");
    assert!(caretaker.flush().is_err());
    assert_eq!(caretaker.durable(), Some(good), "it has the same bytes");
    failing.heal();
    assert!(caretaker.flush().is_err());
    assert_eq!(caretaker.durable(), Some(back.id()));
    let (_mount, ring) = failing.power_cut();
    let survived = open_blobs(Durability::Process, &ring);
    assert_eq!(survived.head(), Some(back.id()), "{}", survived.recovery());
    assert_eq!(survived.memento(bad).expect("both").thaw().expect("whole"), blob(1000, 1));
    assert_eq!(survived.resume().expect("whole"), Some(blob(1000, 1)));
}

#[test]
fn in_the_background_the_next_save_tells_once_and_all_is_made_good() {
    let Some(failing) = failing("told by a save") else { return };
    let good = used(&failing);
    let within = Duration::from_millis(20);
    let caretaker = open_blobs(Durability::Background { within }, &failing.ring());
    let mut events = caretaker.subscribe();
    failing.fail();
    let bad = caretaker.save(&blob(1000, 1)).expect("nothing is known yet");
    loop {
        match events.next_timeout(Duration::from_secs(20)).expect("it is told") {
            Event::Failed { .. } => break,
            Event::Durable { id } => assert!(id < bad, "the disk takes no more"),
            _ => {}
        }
    }
    let error = caretaker.save(&blob(1, 2)).expect_err("it is told");
    let SaveError::NotDurable { id: told, source } = &error else { panic!("{error:?}") };
    assert!(matches!(source, FlushError::Sync { .. }), "{error}");
    assert!(error.to_string().contains("check the disk"), "{error}");
    assert_eq!(caretaker.head(), Some(*told), "it is published all the same");
    assert_eq!(caretaker.memento(*told).expect("there").thaw().expect("whole"), blob(1, 2));
    // Once for each failure, and a guard is not in the way of its change.
    failing.heal();
    let mut live = blob(1, 3);
    let guarded = caretaker.guard(&mut live, |live| -> Result<(), String> {
        live.bytes.push(1);
        Ok(())
    });
    assert!(guarded.is_ok(), "{guarded:?}");
    let limit = Instant::now() + Duration::from_secs(20);
    while caretaker.durable() < Some(*told) {
        assert!(Instant::now() < limit, "{:?} is not made good", caretaker.durable());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(bad > good && caretaker.memento(bad).is_some());
    assert!(caretaker.flush().is_err() && caretaker.close().is_err(), "sticky");
    let (_mount, ring) = failing.power_cut();
    let survived = open_blobs(Durability::Process, &ring);
    assert_eq!(survived.memento(bad).expect("on the disk").thaw().expect("whole"), blob(1000, 1));
}

#[test]
fn a_save_that_waits_for_the_disk_says_when_it_waited_in_vain() {
    let Some(failing) = failing("sync") else { return };
    let good = used(&failing);
    let caretaker = open_blobs(Durability::Sync, &failing.ring());
    failing.fail();
    for n in 1..=2 {
        let error = caretaker.save(&blob(1000, n)).expect_err("the disk takes no more");
        let SaveError::NotDurable { id, .. } = error else { panic!("{error:?}") };
        assert_eq!((caretaker.head(), caretaker.durable()), (Some(id), Some(good)));
    }
    let mut live = blob(1000, 7);
    let guarded = caretaker.guard(&mut live, |live| -> Result<(), String> {
        live.bytes.clear();
        Ok(())
    });
    assert!(matches!(guarded, Err(GuardError::Save { .. })), "{guarded:?}");
    assert_eq!(live, blob(1000, 7), "it was not tried");
    failing.heal();
    let well = caretaker.save(&blob(1, 1)).expect("on the disk again");
    let history = caretaker.history();
    assert!(history.iter().find(|e| e.id() == well).expect("listed").is_durable());
    assert!(caretaker.flush().is_err(), "sticky");
    assert_eq!(caretaker.durable(), Some(well), "the others are written elsewhere");
    let (_mount, ring) = failing.power_cut();
    let survived = open_blobs(Durability::Process, &ring);
    assert_eq!(survived.resume().expect("whole"), Some(blob(1, 1)));
    assert_eq!(survived.history().len(), history.len());
}

#[test]
fn what_nobody_knows_to_be_on_the_disk_is_copied_there_before_anything_leaves() {
    let dir = TempDir::on_disk("found");
    let caretaker = open_with::<World>(&small().ring(4), &dir).expect("opened");
    for n in 1..=4 {
        caretaker.save(&world(n)).expect("saved");
    }
    let killed = dir.copy("killed");
    let slots = |dir: &Path| {
        [A, B].map(|side| Image::open(dir, side).records().iter().map(|(at, _)| *at).collect())
    };
    let before: [Vec<usize>; 2] = slots(&killed);
    let caretaker = open(&killed);
    assert_eq!((ids(&caretaker), caretaker.durable()), (vec![4, 3, 2, 1], None));
    let old = Image::open(&killed, B).slot_of(4).expect("in B");
    let held = caretaker.memento(id(4)).expect("there");
    assert_eq!(caretaker.flush().expect("flushed"), Some(id(4)));
    assert_eq!(caretaker.stats().relocated, 1, "the newest; the others are stored anew");
    assert_ne!(Image::open(&killed, B).slot_of(4).expect("in B"), old);
    let after: [Vec<usize>; 2] = slots(&killed);
    assert_eq!((before[0].len(), before[1].len()), (after[0].len(), after[1].len()));
    assert_eq!((thawed(&caretaker, id(4)), held.thaw().expect("whole")), (Some(4), world(4)));
    drop((caretaker, held));
    let caretaker = open(&killed);
    assert_eq!(ids(&caretaker), [4, 3, 2, 1]);
    assert_eq!(caretaker.resume().expect("whole"), Some(world(4)));
}

/// A directory with two records of snapshot 4, as a process leaves it that was killed while it
/// relocated it: the slot pages of the old and of the new one, in B.
fn with_twins(name: &str) -> (TempDir, usize, usize) {
    let dir = TempDir::new(name);
    let caretaker = open_with::<World>(&small(), &dir).expect("opened");
    for n in 1..=5 {
        caretaker.save(&world(n)).expect("saved");
    }
    caretaker.keep(id(4), "four").expect("kept");
    let killed = dir.copy("killed");
    let image = Image::open(&killed, B);
    let old = image.slot_of(4).expect("in B");
    let new = Image::slot_at(image.slots() - 1);
    let page = image.read(old, 4096);
    let record = image.fields("record", old);
    let bytes = image.read(record.get("root offset") as usize, record.get("root len") as usize);
    // Behind all others.
    let at = image.len() as usize - 8192;
    image.write(at, &bytes);
    image.write(new, &page);
    image.forge("record", new, |record| {
        record.set("index", (new / 4096 - 1) as u64);
        record.set("root offset", at as u64);
    });
    (killed, old, new)
}

fn note(image: &Image, slot: usize) {
    let record = image.fields("record", slot);
    let boot = record.bytes("boot").to_vec();
    image.forge("note", slot + 512, |note| {
        note.set("id", 4);
        note.set_bytes("boot", &boot);
        note.set("record seal", record.get("seal"));
    });
}

fn sealed(dir: &Path, slot: usize) -> bool {
    Image::open(dir, B).records().iter().any(|(at, _)| *at == slot)
}

#[test]
fn of_two_records_of_one_snapshot_one_is_taken_and_the_other_goes_without_a_word() {
    // Neither noted; the old one; the new one.
    for noted in [None, Some(0), Some(1)] {
        let (dir, old, new) = with_twins("twins");
        let image = Image::open(&dir, B);
        if let Some(which) = noted {
            note(&image, [old, new][which]);
        }
        for time in ["once", "and again after a kill"] {
            let caretaker = open(&dir);
            let what = format!("{noted:?}, {time}: {}", caretaker.recovery());
            assert_eq!(ids(&caretaker), [5, 4, 3, 2, 1], "{what}");
            assert!(caretaker.recovery().rejected.is_empty(), "{what}");
            assert_eq!(thawed(&caretaker, id(4)), Some(4), "{what}");
            assert_eq!(caretaker.history()[1].label(), Some("four"), "{what}");
            if let Some(which) = noted {
                assert!(sealed(&dir, [old, new][which]), "{what}");
                assert!(!sealed(&dir, [new, old][which]), "{what}");
            }
            let copy = dir.copy("killed again");
            drop(caretaker);
            fs::copy(copy.join(B), dir.join(B)).expect("as it was");
            fs::copy(copy.join("writer.lock"), dir.join("writer.lock")).expect("as it was");
        }
        let caretaker = open(&dir);
        caretaker.save(&world(6)).expect("saved");
        caretaker.flush().expect("flushed");
        for n in 7..=60 {
            caretaker.save(&world(n)).expect("saved");
        }
        assert_eq!(thawed(&caretaker, id(4)), Some(4));
        assert!(caretaker.release("four"));
        caretaker.save(&world(61)).expect("saved");
        drop(caretaker);
        assert!(!sealed(&dir, old) || !sealed(&dir, new));
        assert!(Image::open(&dir, B).slot_of(4).is_none(), "{noted:?}: it has left, from both");
    }
}

#[test]
fn a_label_taken_away_meanwhile_does_not_come_back_with_the_other_record() {
    let (dir, ..) = with_twins("labels");
    let caretaker = open(&dir);
    assert!(caretaker.release("four"));
    let killed = dir.copy("killed");
    drop(caretaker);
    let caretaker = open(&killed);
    assert_eq!(ids(&caretaker), [5, 4, 3, 2, 1]);
    assert!(caretaker.history().iter().all(|e| e.label().is_none()));
}

#[test]
fn a_damaged_one_of_two_records_gives_way_to_the_other() {
    for damaged in [0, 1] {
        let (dir, old, new) = with_twins("damaged");
        let image = Image::open(&dir, B);
        let slot = [old, new][damaged];
        note(&image, slot);
        let at = image.fields("record", slot).get("root offset") as usize;
        image.write(at, &[0xff; 16]);
        let caretaker = open(&dir);
        assert_eq!(ids(&caretaker), [5, 4, 3, 2, 1], "{}", caretaker.recovery());
        assert!(caretaker.recovery().rejected.is_empty(), "{}", caretaker.recovery());
        assert_eq!(thawed(&caretaker, id(4)), Some(4));
        drop(caretaker);
        assert!(!sealed(&dir, slot));
    }
}

#[test]
fn two_records_that_differ_are_no_twins() {
    let (dir, old, new) = with_twins("impostor");
    let image = Image::open(&dir, B);
    image.forge("record", new, |record| record.set("logical", 77));
    let caretaker = open(&dir);
    assert_eq!(ids(&caretaker), [5, 4, 3, 2, 1]);
    let rejected = &caretaker.recovery().rejected;
    assert_eq!(rejected.len(), 1, "{rejected:?}");
    assert!(rejected[0].to_string().contains("same id"), "{}", rejected[0]);
    drop(caretaker);
    // Both damaged: both are told.
    let (dir, ..) = with_twins("both damaged");
    let image = Image::open(&dir, B);
    for slot in [old, new] {
        let at = image.fields("record", slot).get("root offset") as usize;
        image.write(at, &[0xff; 16]);
    }
    let caretaker = open(&dir);
    assert_eq!(ids(&caretaker), [5, 3, 2, 1]);
    assert_eq!(caretaker.recovery().rejected.len(), 2, "{}", caretaker.recovery());
}

//! What is said to be on the disk is; what must stay stays, whatever is full, held, closed or killed.

mod common;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::FileExt as _,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use common::{
    A, B, Failing, Image, Mount, TempDir, World, open, open_with, skipped, small, thawed, world,
};
use snapring::{
    Caretaker, Durability, Event, FlushError, HeldBy, KeepError, Options, SaveError, Snapshot,
    SnapshotId,
};

fn id(n: u64) -> SnapshotId {
    SnapshotId::new(n)
}

fn ids(caretaker: &Caretaker<World>) -> Vec<u64> {
    caretaker.history().iter().map(|e| e.id().get()).collect()
}

fn durable_ids(caretaker: &Caretaker<World>) -> Vec<u64> {
    let history = caretaker.history();
    history.iter().filter(|e| e.is_durable()).map(|e| e.id().get()).collect()
}

fn save_all(caretaker: &Caretaker<World>, numbers: impl Iterator<Item = u64>) {
    for n in numbers {
        caretaker.save(&world(n)).expect("saved");
    }
}

#[test]
fn flush_makes_durable_what_was_saved_and_says_so_in_order() {
    let dir = TempDir::on_disk("flush");
    let caretaker = open(&dir);
    let mut events = caretaker.subscribe();
    assert_eq!(caretaker.flush().expect("nothing to do"), None);
    save_all(&caretaker, 1..=5);
    assert_eq!((caretaker.durable(), durable_ids(&caretaker)), (None, vec![]));
    assert_eq!(caretaker.flush().expect("flushed"), Some(id(5)));
    assert_eq!(caretaker.durable(), Some(id(5)));
    assert_eq!(durable_ids(&caretaker), [5, 4, 3, 2, 1]);
    caretaker.save(&world(6)).expect("saved");
    assert_eq!(caretaker.durable(), Some(id(5)), "the newest is not");
    assert_eq!(caretaker.close().expect("closed"), Some(id(6)));
    let mut wanted: Vec<Event> = (1..=5).map(|n| Event::Saved { id: id(n) }).collect();
    wanted.extend([
        Event::Durable { id: id(5) },
        Event::Saved { id: id(6) },
        Event::Durable { id: id(6) },
    ]);
    assert_eq!(events.by_ref().collect::<Vec<_>>(), wanted);
}

#[test]
fn sync_durability_is_there_when_a_call_returns() {
    let dir = TempDir::on_disk("sync");
    let options = small().durability(Durability::Sync);
    let caretaker = open_with::<World>(&options, &dir).expect("opened");
    for n in 1..=20 {
        let saved = caretaker.save(&world(n)).expect("saved");
        assert_eq!(caretaker.durable(), Some(saved));
    }
    let mut live = world(0);
    let back = caretaker.rollback(&mut live, id(15)).expect("rolled back");
    assert_eq!(caretaker.durable(), Some(back.id()));
    assert_eq!(durable_ids(&caretaker), ids(&caretaker));
}

#[test]
fn background_durability_comes_by_itself_and_in_time() {
    let dir = TempDir::on_disk("background");
    let within = Duration::from_millis(200);
    let options = small().durability(Durability::Background { within });
    let caretaker = open_with::<World>(&options, &dir).expect("opened");
    let mut events = caretaker.subscribe();
    for n in 1..=3 {
        let start = Instant::now();
        let saved = caretaker.save(&world(n)).expect("saved");
        assert_eq!(events.next_timeout(Duration::from_secs(9)), Some(Event::Saved { id: saved }));
        let durable = events.next_timeout(Duration::from_secs(9));
        assert_eq!(durable, Some(Event::Durable { id: saved }));
        // Half of the time is planned; the rest is for a slow disk and a busy machine.
        assert!(start.elapsed() < within + Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!(caretaker.durable(), Some(saved));
    }
}

#[test]
fn process_durability_syncs_only_when_asked() {
    let dir = TempDir::on_disk("process");
    let caretaker = open(&dir);
    save_all(&caretaker, 1..=3);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(caretaker.durable(), None);
    drop(caretaker);
    let caretaker = open(&dir);
    assert!(caretaker.recovery().clean);
    assert_eq!((ids(&caretaker), caretaker.durable()), (vec![3, 2, 1], None), "in the cache alone");
    assert_eq!(caretaker.flush().expect("flushed"), Some(id(3)));
}

#[test]
fn memory_is_never_durable() {
    let caretaker = Options::new().durability(Durability::Sync).in_memory::<World>().expect("made");
    caretaker.save(&world(1)).expect("saved");
    assert_eq!(caretaker.flush().expect("no disk"), None);
    assert_eq!(caretaker.durable(), None);
    assert_eq!(caretaker.close().expect("closed"), None);
}

#[test]
fn flush_returns_while_others_go_on_saving() {
    let dir = TempDir::on_disk("busy");
    // So short a ring that what a flush waits for has often left it before its turn.
    let caretaker = open_blobs(&small().ring(2), &dir);
    let stop = AtomicBool::new(false);
    let limit = Instant::now() + Duration::from_secs(20);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let state = Blob { bytes: vec![1] };
                while !stop.load(Ordering::Relaxed) {
                    caretaker.save(&state).expect("saved");
                }
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Lets the test fail rather than hang.
                if Instant::now() > limit {
                    stop.store(true, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        for round in 1..=30 {
            // In full swing.
            while caretaker.head() < Some(id(round * 50)) && !stop.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            let head = caretaker.head();
            let durable = caretaker.flush().expect("flushed");
            assert!(durable >= head, "{durable:?} after a flush at {head:?}");
        }
        let hung = stop.swap(true, Ordering::Relaxed);
        assert!(!hung, "a flush waited for saves that came after it");
    });
}

#[test]
fn after_a_kill_a_note_tells_what_is_on_the_disk() {
    let dir = TempDir::on_disk("notes");
    let caretaker = open(&dir);
    save_all(&caretaker, 1..=4);
    caretaker.flush().expect("flushed");
    save_all(&caretaker, 5..=6);
    let killed = dir.copy("killed");
    {
        let caretaker = open(&killed);
        assert_eq!(durable_ids(&caretaker), [4, 3, 2, 1]);
        assert_eq!(caretaker.durable(), Some(id(4)));
        assert_eq!(caretaker.flush().expect("flushed"), Some(id(6)), "written out again");
    }
    assert_eq!(open(&killed).durable(), Some(id(6)));
    // A note of another boot, of another record, or left over from another id says nothing.
    let edits: [fn(&mut common::Fields); 3] =
        [|n| n.set_bytes("boot", &[9; 16]), |n| n.set("record seal", 5), |n| n.set("id", 3)];
    for edit in edits {
        let killed = dir.copy("killed");
        let image = Image::open(&killed, B);
        image.forge("note", image.slot_of(4).expect("in B") + 512, edit);
        let caretaker = open(&killed);
        assert_eq!(durable_ids(&caretaker), [3, 2, 1]);
        assert_eq!(caretaker.durable(), Some(id(3)));
    }
}

#[test]
fn labels_survive_closing_and_killing() {
    let dir = TempDir::new("labels");
    let caretaker = open(&dir);
    save_all(&caretaker, 1..=3);
    caretaker.keep(id(1), "the first").expect("kept");
    let longest = "ä".repeat(127) + "z";
    caretaker.keep(id(2), &longest).expect("255 bytes");
    caretaker.keep(id(3), "moves").expect("kept");
    save_all(&caretaker, 4..=40);
    caretaker.keep(id(40), "moves").expect("kept");
    for wrong in ["", "a\0b", "tab\t", &"x".repeat(256)] {
        let error = caretaker.keep(id(40), wrong).expect_err("no label");
        assert!(matches!(error, KeepError::Label { .. }) && error.to_string().contains("1 to 255"));
    }
    let labels = |caretaker: &Caretaker<World>| -> Vec<(u64, String)> {
        let history = caretaker.history();
        let labelled = history.iter().filter_map(|e| Some((e.id().get(), e.label()?.to_owned())));
        labelled.collect()
    };
    let wanted = vec![(40, "moves".to_owned()), (2, longest.clone()), (1, "the first".to_owned())];
    assert_eq!(labels(&caretaker), wanted);
    assert_eq!(labels(&open(&dir.copy("killed"))), wanted);
    caretaker.close().expect("closed");
    let caretaker = open(&dir);
    assert_eq!(labels(&caretaker), wanted);
    assert_eq!(thawed(&caretaker, id(1)), Some(1));
    assert!(caretaker.release("the first") && !caretaker.release("the first"));
    caretaker.close().expect("closed");
    let caretaker = open(&dir);
    assert_eq!(labels(&caretaker), wanted[..2]);
    // As many as leave two places.
    let entries = ids(&caretaker);
    let error = entries
        .iter()
        .enumerate()
        .find_map(|(i, n)| caretaker.keep(id(*n), &format!("label {i}")).err());
    let Some(KeepError::Full { kept, ring }) = error else { panic!("{error:?}") };
    assert_eq!((kept, ring), (14, 16));
}

#[test]
fn the_newest_durable_snapshot_stays_until_a_newer_one_is() {
    let dir = TempDir::on_disk("steady");
    let caretaker = open_with::<World>(&small().ring(4), &dir).expect("opened");
    caretaker.save(&world(1)).expect("saved");
    caretaker.flush().expect("flushed");
    for n in 2..=60 {
        caretaker.save(&world(n)).expect("saved");
        assert_eq!(caretaker.durable(), Some(id(1)));
    }
    assert!(!ids(&caretaker).contains(&1), "it has left the history");
    let holder = caretaker.stats().held.into_iter().find(|h| h.id == id(1)).expect("it is held");
    assert_eq!(holder.by, HeldBy::Durability);
    assert!(holder.to_string().contains("until a newer one is on the disk"), "{holder}");
    let on_disk = || {
        let mut ids = BTreeSet::new();
        for image in Image::both(&dir) {
            ids.extend(image.records().iter().map(|(_, r)| r.get("id")));
        }
        ids
    };
    assert!(on_disk().contains(&1));
    caretaker.flush().expect("flushed");
    save_all(&caretaker, 61..=80);
    assert!(!on_disk().contains(&1), "its place has been used");
    let held = caretaker.stats().held;
    assert!(held.iter().any(|h| h.id == id(60) && h.by == HeldBy::Durability), "{held:?}");
}

#[test]
fn the_durable_snapshot_outlives_a_crash_and_a_full_ring() {
    let dir = TempDir::on_disk("outlives");
    let caretaker = open_with::<World>(&small().ring(4), &dir).expect("opened");
    caretaker.save(&world(1)).expect("saved");
    caretaker.flush().expect("flushed");
    save_all(&caretaker, 2..=9);
    let mut killed = dir.copy("killed");
    // Opened and killed again, with and without saves between.
    for saves in [0, 1, 9, 0] {
        let caretaker = open(&killed);
        assert_eq!(caretaker.durable(), Some(id(1)));
        assert_eq!(ids(&caretaker).len(), 4);
        let head = caretaker.head().expect("a head").get();
        save_all(&caretaker, head + 1..=head + saves);
        killed = killed.copy("again");
        assert!(Image::open(&killed, A).slot_of(1).is_some(), "the only one on the disk is gone");
    }
    let caretaker = open(&killed);
    let head = caretaker.head().expect("a head");
    assert_eq!(caretaker.flush().expect("flushed"), Some(head));
    assert_eq!(thawed(&caretaker, head), Some(head.get()));
}

#[test]
fn a_durable_snapshot_that_has_left_takes_no_place_on_reopening() {
    let dir = TempDir::on_disk("left");
    let options = small().ring(3).durability(Durability::Process);
    let caretaker = open_with::<World>(&options, &dir).expect("opened");
    save_all(&caretaker, 1..=2);
    caretaker.flush().expect("flushed");
    save_all(&caretaker, 3..=3);
    caretaker.keep(id(1), "start").expect("kept");
    save_all(&caretaker, 4..=4);
    assert_eq!(ids(&caretaker), [4, 3, 1]);
    assert!(caretaker.release("start"));
    let killed = dir.copy("killed");
    drop(caretaker);
    for dir in [&dir, &killed] {
        let caretaker = open_with::<World>(&options, dir).expect("opened");
        assert_eq!(ids(&caretaker), [4, 3, 1], "2 had left, and is there for the disk alone");
        drop(caretaker);
    }
    // Power is lost, and with it all that was newer and never synced: then it is listed again.
    for side in [A, B] {
        let image = Image::open(&killed, side);
        for slot in [3, 4].into_iter().filter_map(|lost| image.slot_of(lost)) {
            image.write(slot, &[0; 512]);
        }
    }
    let caretaker = open_with::<World>(&options, &killed).expect("opened");
    assert_eq!(ids(&caretaker), [2, 1]);
}

#[derive(Snapshot, Debug, PartialEq)]
struct Blob {
    bytes: Vec<u8>,
}

fn blob(kib: usize) -> Blob {
    Blob { bytes: (0..kib << 10).map(|i| (i % 251) as u8).collect() }
}

fn open_blobs(options: &Options, dir: &TempDir) -> Caretaker<Blob> {
    open_with(options, dir).expect("opened")
}

#[test]
fn a_state_larger_than_any_file_may_be_changes_nothing() {
    let dir = TempDir::new("too-large");
    let caretaker = open_blobs(&small(), &dir);
    for kib in 1..=16 {
        caretaker.save(&blob(kib)).expect("saved");
    }
    let before = (caretaker.history(), caretaker.head());
    let error = caretaker.save(&blob(4 << 10)).expect_err("larger than the file");
    let SaveError::NoSpace { need, free, max, .. } = &error else { panic!("{error:?}") };
    assert!(*need > *free && *max == 1 << 20, "{error}");
    let text = error.to_string();
    for part in ["no space for", "1048576", "raise `Options::max_file_size`"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!((caretaker.history(), caretaker.head()), before, "nothing was evicted for it");
    let next = caretaker.save(&blob(3)).expect("saves go on");
    assert_eq!(caretaker.memento(next).expect("there").thaw().expect("whole"), blob(3));
}

#[test]
fn older_snapshots_make_room_and_held_ones_are_named() {
    let dir = TempDir::new("room");
    let caretaker = open_blobs(&small(), &dir);
    // About seven of these fit into either file of 1 MiB; the ring would hold sixteen.
    for _ in 0..40 {
        let saved = caretaker.save(&blob(128)).expect("older ones make room");
        assert_eq!(caretaker.memento(saved).expect("there").thaw().expect("whole"), blob(128));
    }
    let fit = caretaker.history().len();
    assert!((8..16).contains(&fit), "{fit}");
    // All of them held: there is no room.
    let mementos: Vec<_> =
        caretaker.history().iter().map(|e| caretaker.memento(e.id()).expect("there")).collect();
    let before = caretaker.history();
    let error = caretaker.save(&blob(300)).expect_err("everything is held");
    let SaveError::NoSpace { held, .. } = &error else { panic!("{error:?}") };
    assert!(held.iter().any(|h| matches!(h.by, HeldBy::Mementos { mementos: 1 })), "{held:?}");
    assert!(error.to_string().contains("by a memento (for "), "{error}");
    assert_eq!(caretaker.history(), before);
    for memento in &mementos {
        assert_eq!(memento.thaw().expect("unchanged"), blob(128));
    }
    drop(mementos);
    caretaker.save(&blob(300)).expect("there is room again");
}

#[test]
fn a_small_state_after_a_large_one_needs_little() {
    let dir = TempDir::new("shrinking");
    let caretaker = open_blobs(&small(), &dir);
    // Two large ones fill more than half of each file, and are the newest two.
    for _ in 0..2 {
        caretaker.save(&blob(520)).expect("saved");
    }
    for kib in [1, 100, 200, 1] {
        let saved = caretaker.save(&blob(kib)).expect("there is room for this");
        assert_eq!(caretaker.memento(saved).expect("there").thaw().expect("whole"), blob(kib));
    }
}

#[test]
fn when_every_place_is_held_the_error_says_by_whom_and_saving_goes_on_after() {
    let dir = TempDir::new("places");
    let caretaker = open_with::<World>(&small().ring(3), &dir).expect("opened");
    let mut mementos = Vec::new();
    let error = loop {
        match caretaker.save(&world(mementos.len() as u64)) {
            Ok(saved) => mementos.push(caretaker.memento(saved).expect("there")),
            Err(error) => break error,
        }
        assert!(mementos.len() < 100, "places are made of nothing");
    };
    let SaveError::Held { holders } = &error else { panic!("{error:?}") };
    // Seven places a side, and every snapshot in them named.
    assert_eq!(holders.len(), 7, "{error}");
    for holder in holders {
        assert_eq!(holder.by, HeldBy::Mementos { mementos: 1 });
        assert!(mementos.iter().any(|m| m.id() == holder.id));
        assert!(error.to_string().contains(&format!("{} by a memento", holder.id)), "{error}");
    }
    assert!(error.to_string().contains("drop those mementos"), "{error}");
    let head = caretaker.head();
    let mut live = world(0);
    let first = mementos.iter().find(|m| caretaker.memento(m.id()).is_some()).expect("listed").id();
    match caretaker.rollback(&mut live, first) {
        Ok(_) => {}
        Err(error) => {
            assert!(matches!(error, snapring::RollbackError::NoPlace { .. }), "{error:?}");
            assert_eq!((live, caretaker.head()), (world(0), head));
        }
    }
    for (n, memento) in mementos.iter().enumerate() {
        assert_eq!(memento.thaw().expect("unchanged"), world(n as u64));
    }
    mementos.drain(..4);
    save_all(&caretaker, 50..=52);
    assert_eq!(caretaker.resume().expect("whole"), Some(world(52)));
}

#[test]
fn a_full_disk_is_an_error_and_saving_goes_on_when_it_is_not() {
    let temp = TempDir::new("full");
    let mount =
        match Mount::at(&temp.inside("disk"), &["-t", "tmpfs", "-o", "size=2m,mode=700", "none"]) {
            Ok(mount) => mount,
            Err(why) => return skipped("full disk", &why),
        };
    let options = Options::new().file_size(64 << 10).durability(Durability::Process);
    let caretaker: Caretaker<Blob> = open_with(&options, mount.path()).expect("opened");
    for kib in [10, 20, 30] {
        caretaker.save(&blob(kib)).expect("saved");
    }
    // Somebody else takes what is left.
    let rest = fs::File::create(mount.path().join("rest")).expect("created");
    let mut at = 0;
    while rest.write_at(&[1; 4096], at).is_ok_and(|n| n > 0) {
        at += 4096;
    }
    let before = caretaker.history();
    let error = caretaker.save(&blob(900)).expect_err("the disk is full");
    let SaveError::NoSpace { source: Some(source), .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.raw_os_error(), Some(libc::ENOSPC));
    assert!(error.to_string().contains("free disk space"), "{error}");
    assert_eq!(caretaker.history(), before, "nothing was evicted in vain");
    assert_eq!(caretaker.resume().expect("whole"), Some(blob(30)));
    // What fits into the file as it is can be saved all the time.
    for _ in 0..20 {
        caretaker.save(&blob(2)).expect("a small one");
    }
    // Not removed: a child of another test, forked just now, may have it open for a moment.
    rest.set_len(0).expect("emptied");
    let saved = caretaker.save(&blob(300)).expect("there is space again");
    assert_eq!(caretaker.memento(saved).expect("there").thaw().expect("whole"), blob(300));
    drop(caretaker);
    let caretaker: Caretaker<Blob> = open_with(&options, mount.path()).expect("opened again");
    assert_eq!(caretaker.head(), Some(saved));
}

#[test]
fn after_a_failed_sync_nothing_that_depended_on_it_is_ever_called_durable() {
    let failing = match Failing::new() {
        Ok(failing) => failing,
        Err(why) => return skipped("failing disk", &why),
    };
    let dir = failing.ring();
    let options = Options::new().file_size(8 << 20).durability(Durability::Process);
    let caretaker: Caretaker<Blob> = open_with(&options, &dir).expect("opened");
    let marked = |kib: usize, mark| Blob { bytes: vec![mark; kib << 10] };
    for kib in 1..=5 {
        caretaker.save(&blob(kib)).expect("saved");
        caretaker.flush().expect("the disk is well");
    }
    let good = caretaker.head().expect("a head");
    failing.fail();
    let mut events = caretaker.subscribe();
    let bad = caretaker.save(&marked(2000, 1)).expect("memory has it");
    let error = caretaker.flush().expect_err("the disk takes no more");
    let FlushError::Sync { path, upto, .. } = &error else { panic!("{error:?}") };
    assert!(path.starts_with(&dir) && *upto == bad, "{error}");
    assert!(error.to_string().contains("check the disk"), "{error}");
    assert_eq!(caretaker.durable(), Some(good));
    assert!(events.any(|event| matches!(event, Event::Failed { .. })), "it is told");
    // Sticky, though the system itself reports an error once.
    for _ in 0..3 {
        assert!(caretaker.flush().is_err());
        assert_eq!(caretaker.durable(), Some(good));
    }
    // A rollback to it has the same bytes, whose pages look clean by now.
    let mut live = blob(1);
    let back = caretaker.rollback(&mut live, bad).expect("memory has it");
    assert_eq!(live, marked(2000, 1));
    assert!(caretaker.flush().is_err());
    assert_eq!(caretaker.durable(), Some(good));
    assert!(caretaker.history().iter().all(|e| e.is_durable() == (e.id() <= good)));
    assert!(caretaker.close().is_err());
    // The same boot: the cache has the bytes, and nobody calls them durable.
    let caretaker: Caretaker<Blob> = match open_with(&options, &dir) {
        Ok(caretaker) => caretaker,
        // The floor cannot be synced either.
        Err(error) => {
            assert!(error.to_string().contains("sync"), "{error}");
            return;
        }
    };
    assert_eq!(caretaker.head(), Some(back.id()));
    assert_eq!(caretaker.durable(), Some(good));
}

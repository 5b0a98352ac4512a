//! A reader in another process that believes what the files should not make it believe, or lists
//! other snapshots than the caretaker does.

mod common;

use std::{path::Path, time::Duration};

use common::{
    A, Block, Image, TempDir, Victim, World, blocks, leased, open, open_with, read_in, reader,
    small, thawed, whole, world,
};
use snapring::{
    Durability, EntryState, MementoError, OpenError, Options, ReaderError, Snapshot, SnapshotId,
};

fn id(n: u64) -> SnapshotId {
    SnapshotId::new(n)
}

#[derive(Snapshot)]
struct Other {
    tick: u64,
    rows: Vec<u32>,
    name: String,
    last: u64,
}

#[test]
fn another_layout_is_refused_with_the_first_difference() {
    let dir = TempDir::new("layout");
    let caretaker = blocks(&dir, 4);
    let early = reader::<Other>(&dir);
    assert_eq!(early.head(), None);
    assert!(early.latest().is_none() && early.history().is_empty());
    let saved = caretaker.save(&Block::at(1)).expect("saved");
    let error = read_in::<Other>(&dir).expect_err("another layout");
    let ReaderError::Layout { id: found, difference } = &error else { panic!("{error:?}") };
    assert_eq!(*found, saved);
    assert!(difference.contains("Block") && difference.contains("Other"), "{difference}");
    assert!(error.to_string().contains("#1 has another layout"), "{error}");
    // Opened before, it goes on, and tells.
    assert_eq!(early.head(), Some(saved));
    assert!(early.latest().is_none());
    assert_eq!(early.read(|_| ()), None);
    let told = early.try_memento(saved).expect_err("another layout");
    assert!(
        matches!(&told, MementoError::Layout { difference: d, .. } if d == difference),
        "{told}"
    );
    let history = early.history();
    assert_eq!(history[0].state(), &EntryState::OtherLayout { difference: difference.clone() });
    assert_eq!(leased(&caretaker), [], "what cannot be read is not leased");
}

#[test]
fn files_that_are_not_there_yet_are_told() {
    let dir = TempDir::new("missing");
    let ring = dir.inside("ring");
    let missing = |path: &Path| match read_in::<World>(path).expect_err("nothing there") {
        ReaderError::NotReady { path } => path,
        error => panic!("{error}"),
    };
    assert_eq!(missing(&ring), ring);
    std::fs::create_dir(&ring).expect("made");
    assert_eq!(missing(&ring), ring.join("leases.lock"));
    drop(open(&ring));
    std::fs::remove_file(ring.join("snapshot_b.bin")).expect("removed");
    assert_eq!(missing(&ring), ring.join("snapshot_b.bin"));
    let text = read_in::<World>(&ring).expect_err("B is missing").to_string();
    assert!(text.contains("try again"), "{text}");
    let file = ring.join("leases.lock");
    let error = read_in::<World>(&file).expect_err("a file");
    assert!(matches!(error, ReaderError::Open(OpenError::NotADirectory { .. })), "{error}");
}

#[test]
fn a_hint_is_never_believed_without_its_record() {
    let dir = TempDir::new("hint");
    let caretaker = open(&dir);
    for n in 1..=20 {
        caretaker.save(&world(n)).expect("saved");
    }
    caretaker.close().expect("closed");
    let open_already = reader::<World>(&dir);
    let image = Image::open(&dir, A);
    let old = thawed(&open(&dir), id(15)).expect("whole");
    assert_eq!(old, 15);
    let place_of_15 = image.slot_of(15).map_or(0, |at| at / 4096 - 1) as u64;
    for hint in [
        0,
        u64::MAX,
        99 << 12 | 4095,
        99 << 12 | 3,
        20 << 12 | 39,
        15 << 12 | place_of_15,
        1,
        (1 << 63) | 7,
    ] {
        image.write(1024, &hint.to_le_bytes());
        if hint == 15 << 12 | place_of_15 {
            // By then the reader has given its lease back, since there seems to be news.
            std::thread::sleep(Duration::from_millis(300));
        }
        let fresh = reader::<World>(&dir);
        for reader in [&fresh, &open_already] {
            let latest = reader.latest().expect("there is one");
            assert_eq!(latest.id(), id(20), "hint {hint:#x}");
            assert_eq!(latest.thaw().expect("whole"), world(20));
            assert_eq!(reader.read(|world| world.tick.to_native()), Some(20));
            assert_eq!(reader.wait_newer(id(19), Duration::ZERO), Some(id(20)));
            assert_eq!(reader.history().len(), 16);
        }
    }
}

#[test]
fn a_reader_lists_what_the_caretaker_lists() {
    let dir = TempDir::new("list");
    let options = small().ring(5).durability(Durability::Background { within: Duration::MAX });
    let caretaker = open_with::<World>(&options, &dir).expect("opened");
    let reader = reader::<World>(&dir);
    for n in 1..60 {
        let mut live = world(n);
        let saved = caretaker.save(&live).expect("saved");
        match n % 7 {
            2 => caretaker.keep(saved, "the lucky one").expect("kept"),
            4 => _ = caretaker.rollback(&mut live, id(saved.get() - 1)).expect("rolled back"),
            5 => _ = caretaker.flush().expect("flushed"),
            6 => _ = caretaker.release("the lucky one"),
            _ => {}
        }
        let (ours, theirs) = (reader.history(), caretaker.history());
        let all = |history: &[snapring::Entry]| -> Vec<_> {
            let entry = |e: &snapring::Entry| {
                let label = e.label().map(str::to_owned);
                let sizes = (e.bytes(), e.written_bytes(), e.logical_version());
                (
                    e.id(),
                    e.kind(),
                    e.created(),
                    e.parent(),
                    e.target(),
                    e.is_durable(),
                    label,
                    sizes,
                )
            };
            history.iter().map(entry).collect()
        };
        assert_eq!(all(&ours), all(&theirs), "after save {n}");
        for entry in &theirs {
            let (here, there) = (reader.memento(entry.id()), caretaker.memento(entry.id()));
            let (here, there) = (here.expect("listed"), there.expect("listed"));
            assert_eq!((here.digest(), here.bytes()), (there.digest(), there.bytes()));
            assert_eq!(here.thaw().expect("whole"), there.thaw().expect("whole"));
        }
        let history = reader.history();
        assert!(history.iter().all(|entry| *entry.state() == EntryState::Whole), "{history:?}");
    }
    let gone = reader.try_memento(id(3)).expect_err("it has left");
    assert!(matches!(gone, MementoError::Evicted { oldest: Some(_), .. }), "{gone}");
    let unknown = reader.try_memento(id(1000)).expect_err("never saved");
    assert!(matches!(unknown, MementoError::Unknown { .. }), "{unknown}");
}

#[test]
fn what_left_for_want_of_space_is_not_listed_though_it_is_sealed() {
    let dir = TempDir::new("left");
    let options = Options::new()
        .ring(8)
        .file_size(64 << 10)
        .max_file_size(1 << 20)
        .durability(Durability::Background { within: Duration::MAX });
    let caretaker = open_with::<Block>(&options, &dir).expect("opened");
    let reader = reader::<Block>(&dir);
    let mut left = false;
    for tick in 1..30 {
        // Small until the durable one has left for the ring's length, then too large for as many.
        let rows = if tick < 12 { 100 } else { 40_000 };
        caretaker.save(&Block { rows: vec![tick; rows], ..Block::at(tick) }).expect("saved");
        if tick == 2 {
            caretaker.flush().expect("flushed");
        }
        let ids = |history: Vec<snapring::Entry>| -> Vec<SnapshotId> {
            history.iter().map(snapring::Entry::id).collect()
        };
        let listed = ids(caretaker.history());
        assert_eq!(ids(reader.history()), listed, "after save {tick}");
        let sealed: usize = Image::both(&dir).iter().map(|image| image.records().len()).sum();
        left |= listed.len() < 8 && sealed > listed.len();
    }
    assert!(left, "the durable one never left a ring that had room");
}

#[test]
fn a_file_that_grows_past_the_mapping_is_read_on() {
    let dir = TempDir::new("growth");
    let caretaker = blocks(&dir, 4);
    let options = Options::new().max_file_size(1 << 20);
    // SAFETY: nothing but the caretaker above writes there.
    let reader = unsafe { options.open_reader::<Block>(&dir) }.expect("opened");
    let mut held = Vec::new();
    for size in [10, 10_000, 100_000, 1_000_000, 400_000] {
        let block = Block { rows: vec![size as u64; size], ..Block::at(size as u64) };
        caretaker.save(&block).expect("saved");
        let memento = reader.latest().expect("saved");
        held.push((whole(&memento), memento));
        held.iter().for_each(|(tick, memento)| assert_eq!(whole(memento), *tick));
    }
}

#[test]
fn damage_is_told_and_the_next_older_snapshot_read() {
    let victim = Victim::new("damaged", 6);
    let image = victim.image(1);
    let slot = image.slot_of(6).expect("in B");
    let at = image.fields("record", slot).get("root offset") as usize;
    let mut bytes = image.read(at, 1);
    bytes[0] ^= 1;
    image.write(at, &bytes);
    let reader = reader::<World>(&victim.dir);
    assert_eq!(reader.latest().map(|memento| memento.id()), Some(id(5)));
    let error = reader.try_memento(id(6)).expect_err("damaged");
    let MementoError::Rejected { reason, .. } = &error else { panic!("{error}") };
    assert!(reason.contains("snapshot_b.bin") && reason.contains("checksum"), "{reason}");
}

#[test]
fn records_that_lie_are_refused() {
    let victim = Victim::new("forged", 6);
    for (field, value) in [
        ("root offset", 0),
        ("root offset", 4096),
        ("root offset", u64::MAX - 4095),
        ("root offset", 1 << 40),
        ("root offset", 12_345),
        ("root len", u64::MAX),
        ("root len", 1 << 31),
        ("root len", 3),
        ("root pos", u64::from(u32::MAX)),
        ("root pos", 1),
        ("depth", 0),
        ("depth", u64::from(u32::MAX)),
        ("kind", 77),
        ("side", 0),
        ("index", 9),
        ("id", 0),
        ("id", 1 << 52),
        ("id", u64::MAX),
    ] {
        victim.heal();
        let image = victim.image(1);
        let slot = image.slot_of(6).expect("in B");
        image.forge("record", slot, |record| record.set(field, value));
        let reader = match read_in::<World>(&victim.dir) {
            Ok(reader) => reader,
            // More pointers deep than allowed is as another layout.
            Err(ReaderError::Layout { .. }) if field == "depth" && value > 512 => continue,
            Err(error) => panic!("{field} {value}: {error}"),
        };
        let latest = reader.latest().map(|memento| memento.id());
        assert_eq!(latest, Some(id(5)), "{field} {value}");
        reader.history();
        assert!(reader.memento(id(6)).is_none(), "{field} {value}");
    }
    for layout in [[0; 16], [255; 16]] {
        for (field, value) in [("schema offset", 0), ("schema len", u64::MAX), ("schema crc", 1)] {
            victim.heal();
            let image = victim.image(1);
            image.forge("record", image.slot_of(6).expect("in B"), |record| {
                record.set_bytes("layout", &layout);
                record.set(field, value);
            });
            let reader = reader::<World>(&victim.dir);
            assert_eq!(reader.latest().map(|memento| memento.id()), Some(id(5)), "{field}");
            assert_eq!(reader.history().len(), 6, "{field}");
        }
    }
}

#[test]
fn a_replaced_file_is_noticed() {
    let victim = Victim::new("replaced", 6);
    let reader = reader::<World>(&victim.dir);
    assert!(reader.is_current());
    for copy in ["header", "header copy"] {
        let at = common::table("header page").field(copy).offset;
        let image = victim.image(0);
        let mut bytes = image.read(at, 512);
        bytes[20] ^= 1;
        image.write(at, &bytes);
    }
    let error = read_in::<World>(&victim.dir).expect_err("damaged");
    assert!(matches!(error, ReaderError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("caretaker"), "{error}");
    drop(open(&victim.dir));
    assert!(!reader.is_current(), "A was set aside and made anew");
    assert_eq!(reader.latest().map(|memento| memento.id()), Some(id(6)));
}

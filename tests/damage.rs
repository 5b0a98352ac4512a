//! Damaged files: never a panic, never a mixture, and whatever was whole is still there.

mod common;

use std::{fs, path::Path};

use common::{A, B, Image, TempDir, Victim, World, open, open_with, small, table, thawed, world};
use proptest::prelude::*;
use snapring::{Caretaker, MementoError, SnapshotId};

const SECTOR: usize = 512;
const SLOT: usize = 4096;

fn id(n: u64) -> SnapshotId {
    SnapshotId::new(n)
}

/// Flips one bit of each byte of `range`, another one for each, and checks each time.
fn flip_each(victim: &Victim, side: usize, range: impl Iterator<Item = usize>, may_go: &[u64]) {
    for at in range {
        let image = victim.image(side);
        image.write(at, &[victim.files[side][at] ^ 1 << (at * 5 % 8)]);
        victim.survives_but(may_go, &format!("side {side}, a bit of byte {at}"));
        victim.heal();
    }
}

#[test]
fn every_flipped_bit_of_a_header_page_leaves_the_snapshots() {
    let victim = Victim::new("headers", 8);
    for side in 0..2 {
        for part in ["header", "floor", "header copy"] {
            let part = table("header page").field(part);
            flip_each(&victim, side, part.offset..part.offset + part.size, &[]);
        }
        flip_each(&victim, side, (2 * SECTOR..7 * SECTOR).step_by(61), &[]);
    }
}

#[test]
fn every_flipped_bit_of_a_slot_page_costs_its_snapshot_at_most() {
    let victim = Victim::new("slots", 8);
    for side in 0..2 {
        let image = victim.image(side);
        let (slot, record) = image.records().pop().expect("its newest");
        let own = [record.get("id")];
        flip_each(&victim, side, slot..slot + table("record").size(), &own);
        for part in ["note", "label"] {
            let part = table("slot page").field(part);
            let start = slot + part.offset;
            flip_each(&victim, side, start..start + part.size, &[]);
        }
        flip_each(&victim, side, (slot + 200..slot + SLOT).step_by(97), &[]);
    }
}

#[test]
fn every_flipped_bit_of_data_costs_its_snapshot_at_most() {
    let victim = Victim::new("data", 8);
    for side in 0..2 {
        for (_, record) in victim.image(side).records() {
            let (at, len) = (record.get("root offset") as usize, record.get("root len") as usize);
            flip_each(&victim, side, (at..at + len).step_by(23), &[record.get("id")]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Anything anywhere: no panic, no mixture.
    #[test]
    fn bytes_scribbled_anywhere_never_make_a_mixture(
        scribbles in prop::collection::vec((0..2_usize, 0..64_usize << 10, prop::collection::vec(any::<u8>(), 1..700)), 1..6)
    ) {
        thread_local! {
            static VICTIM: Victim = Victim::new("scribbled", 8);
        }
        VICTIM.with(|victim| {
            for (side, at, bytes) in &scribbles {
                let end = victim.files[*side].len();
                let at = at % end;
                victim.image(*side).write(at, &bytes[..bytes.len().min(end - at)]);
            }
            victim.survives_but(&victim.ids, "scribbled over");
            victim.heal();
        });
    }
}

#[test]
fn one_bad_header_is_repaired_from_its_copy() {
    let victim = Victim::new("copy", 8);
    for (bad, good) in [(0, 7 * SECTOR), (7 * SECTOR, 0)] {
        let image = victim.image(0);
        image.write(bad, &[0x55; SECTOR]);
        victim.survives_but(&[], "one header");
        assert_eq!(image.read(bad, SECTOR), image.read(good, SECTOR), "header at {bad}");
        victim.heal();
    }
}

#[test]
fn a_file_without_a_header_is_set_aside_and_the_other_one_serves() {
    let victim = Victim::new("aside", 8);
    for (side, name) in [A, B].into_iter().enumerate() {
        let image = victim.image(side);
        image.write(0, &[0; SECTOR]);
        image.write(7 * SECTOR, &[0xff; SECTOR]);
        let damaged = image.all();
        let own: Vec<u64> = image.records().iter().map(|(_, r)| r.get("id")).collect();
        assert!(own.is_empty(), "no ring length, no slots");
        let caretaker = open(&victim.dir);
        let aside = victim.dir.join(format!("{name}.damaged"));
        assert_eq!(caretaker.recovery().set_aside, std::slice::from_ref(&aside));
        assert_eq!(caretaker.recovery().created, [victim.dir.join(name)]);
        assert_eq!(fs::read(&aside).expect("set aside"), damaged, "as it was found");
        assert!(caretaker.recovery().to_string().contains(&aside.display().to_string()));
        assert!(caretaker.history().len() >= 3, "the other side's");
        assert!(caretaker.save(&world(9)).expect("saved").get() > 8);
        drop(caretaker);
        assert!(open(&victim.dir).recovery().set_aside.is_empty(), "once");
        victim.heal();
    }
}

#[test]
fn two_files_without_headers_leave_an_empty_ring_and_new_ids() {
    let victim = Victim::new("both", 8);
    for side in 0..2 {
        let len = victim.files[side].len();
        victim.image(side).write(0, &vec![0; len]);
    }
    let caretaker = open(&victim.dir);
    assert_eq!(caretaker.recovery().set_aside.len(), 2);
    assert!(caretaker.history().is_empty());
    assert!(caretaker.save(&world(9)).expect("saved").get() > 8, "the lock file has the floor");
}

#[test]
fn a_refusal_sets_nothing_aside() {
    let victim = Victim::new("refusal", 8);
    let a = victim.image(0);
    a.write(0, &[0; 4096]);
    let damaged = a.all();
    victim.image(1).forge_headers(|h| h.set("format", 2));
    open_with::<World>(&small(), &victim.dir).expect_err("a newer format");
    assert_eq!(fs::read(victim.dir.join(A)).expect("A"), damaged);
    assert!(!victim.dir.join("snapshot_a.bin.damaged").exists());
}

#[test]
fn a_file_cut_off_while_it_was_made_is_made_anew() {
    let victim = Victim::new("unmade", 8);
    // A precious damaged file is kept, and making its successor was cut off, again and again.
    let precious = victim.dir.join("snapshot_a.bin.damaged");
    fs::write(&precious, "precious").expect("written");
    fs::remove_file(victim.dir.join(A)).expect("removed");
    let new = victim.dir.join("snapshot_a.bin.new");
    for half in [vec![], vec![0; 100], vec![0; 64 << 10], victim.files[0].clone()] {
        fs::write(&new, half).expect("written");
        let caretaker = open(&victim.dir);
        assert!(caretaker.recovery().set_aside.is_empty());
        assert!(caretaker.history().len() >= 3, "B's own");
        drop(caretaker);
        assert!(!new.exists());
        fs::remove_file(victim.dir.join(A)).expect("made, and removed");
    }
    assert_eq!(fs::read(&precious).expect("kept"), b"precious");
}

#[test]
fn a_truncated_file_keeps_what_is_whole() {
    let victim = Victim::new("short", 8);
    let data_at = victim.image(1).data_at();
    let records = victim.image(1).records();
    let len = victim.files[1].len();
    let lengths = [
        0,
        1,
        511,
        512,
        513,
        4095,
        4096,
        4097,
        3 * 4096,
        data_at - 1,
        data_at,
        data_at + 1,
        data_at + 4095,
        data_at + 4096,
        data_at + 4097,
        data_at + 3 * 4096,
        len - 4096,
        len - 1,
    ];
    for cut in lengths {
        victim.image(1).set_len(cut as u64);
        let whole_blocks = cut / 4096 * 4096;
        let gone: Vec<u64> = records
            .iter()
            .filter(|(_, r)| {
                let end = (r.get("root offset") + r.get("root len")).next_multiple_of(4096);
                let text = (r.get("schema offset") + r.get("schema len")).next_multiple_of(4096);
                cut < data_at + 4096 || end.max(text) as usize > whole_blocks
            })
            .map(|(_, r)| r.get("id"))
            .collect();
        victim.survives_but(&gone, &format!("cut to {cut}"));
        victim.heal();
    }
}

#[test]
fn a_longer_file_is_used_as_it_is() {
    let victim = Victim::new("long", 8);
    for more in [1, 511, 4096, 100_000] {
        let image = victim.image(0);
        let len = image.len();
        image.write(len as usize, &vec![0xaa; more]);
        victim.survives_but(&[], "longer");
        victim.heal();
    }
}

#[test]
fn a_file_that_is_all_zeros_is_set_aside() {
    let victim = Victim::new("zeros", 8);
    let mine: Vec<u64> = victim.image(0).records().iter().map(|(_, r)| r.get("id")).collect();
    victim.image(0).write(0, &vec![0; victim.files[0].len()]);
    victim.survives_but(&mine, "all zeros");
}

#[test]
fn a_damaged_newest_snapshot_gives_way_to_the_one_before() {
    let victim = Victim::new("newest", 8);
    let side = usize::from(victim.image(1).slot_of(8).is_some());
    let image = victim.image(side);
    let record = image.fields("record", image.slot_of(8).expect("the newest"));
    // Half of its data never came.
    let (at, len) = (record.get("root offset") as usize, record.get("root len") as usize);
    image.write(at + len / 2, &vec![0; len - len / 2]);
    let caretaker = open(&victim.dir);
    assert_eq!(caretaker.head(), Some(id(7)));
    assert_eq!(caretaker.resume().expect("whole"), Some(world(7)));
    assert_eq!(caretaker.recovery().rejected[0].id, Some(id(8)));
    let error = caretaker.try_memento(id(8)).expect_err("damaged");
    let text = error.to_string();
    assert!(matches!(error, MementoError::Rejected { .. }), "{text}");
    assert!(text.contains("#8 is damaged") && text.contains("checksum"), "{text}");
    assert!(text.contains([A, B][side]) && text.contains("see `history()`"), "{text}");
}

#[test]
fn a_damaged_older_snapshot_is_told_by_whoever_asks_and_is_not_listed_then() {
    let victim = Victim::new("older", 8);
    let side = usize::from(victim.image(1).slot_of(5).is_some());
    let image = victim.image(side);
    let record = image.fields("record", image.slot_of(5).expect("an older one"));
    image.write(record.get("root offset") as usize, b"damage");
    let caretaker = open(&victim.dir);
    // Whoever asks first, the answer is the same ever after.
    for _ in 0..3 {
        let error = caretaker.try_memento(id(5)).expect_err("damaged");
        assert!(matches!(error, MementoError::Rejected { .. }), "{error}");
        let mut live = world(1);
        let error = caretaker.rollback(&mut live, id(5)).expect_err("damaged");
        assert!(matches!(error, snapring::RollbackError::Rejected { .. }), "{error}");
        assert_eq!(live, world(1));
    }
    assert!(caretaker.history().iter().all(|e| e.id() != id(5)));
    assert_eq!(thawed(&caretaker, id(4)), Some(4));
}

#[test]
fn a_slot_page_torn_at_any_sector_costs_its_snapshot_at_most() {
    // The same slot page at two moments, and all mixtures of its sectors.
    let dir = TempDir::new("torn");
    let caretaker = open_with::<World>(&small().ring(6), &dir).expect("made");
    let mut last = 0;
    let mut save = |caretaker: &Caretaker<World>| {
        last += 1;
        caretaker.save(&world(last)).expect("saved");
    };
    (0..6).for_each(|_| save(&caretaker));
    caretaker.keep(id(6), "first").expect("kept");
    let before = dir.copy("before");
    let image = Image::open(&before, B);
    let page = image.slot_of(6).expect("in B");
    let old = image.read(page, SLOT);
    caretaker.release("first");
    let (after, new) = loop {
        save(&caretaker);
        let after = dir.copy("after");
        let image = Image::open(&after, B);
        let found = image.fields("record", page).get("id");
        if found != 6 && image.slot_of(found) == Some(page) {
            caretaker.keep(id(found), "second").expect("kept");
            let after = dir.copy("after");
            let new = Image::open(&after, B).read(page, SLOT);
            break (after, new);
        }
    };
    drop(caretaker);
    let whole = open(&after.copy("whole"));
    let listed: Vec<u64> = whole.history().iter().map(|e| e.id().get()).collect();
    let own = Image::open(&after, B).fields("record", page).get("id");
    // Five sectors are never written: the three that are, and one of those.
    for mixture in 0..16_usize {
        let torn = after.copy("torn");
        for sector in 0..4 {
            let from = if mixture & 1 << sector == 0 { &new } else { &old };
            let bytes = &from[sector * SECTOR..][..SECTOR];
            Image::open(&torn, B).write(page + sector * SECTOR, bytes);
        }
        let caretaker = open(&torn);
        for n in &listed {
            let found = thawed(&caretaker, id(*n));
            let may_go = *n == own && mixture & 1 != 0;
            assert!(found == Some(*n) || (found.is_none() && may_go), "{mixture:b}: {n} {found:?}");
        }
        for entry in caretaker.history() {
            let number = entry.id().get();
            assert!(thawed(&caretaker, entry.id()).is_none_or(|n| n == number), "{mixture:b}");
            // A label counts beside the record it was written for.
            let label = match number {
                6 if mixture & 4 != 0 => Some("first"),
                n if n == own && mixture & 4 == 0 => Some("second"),
                _ => None,
            };
            assert_eq!(entry.label(), label, "{mixture:b}: {number}");
        }
    }
}

#[test]
fn opening_twice_finds_the_same() {
    let victim = Victim::new("again", 8);
    for (n, record_itself) in [(4, true), (5, false)] {
        let image = victim.image(usize::from(victim.image(1).slot_of(n).is_some()));
        let slot = image.slot_of(n).expect("there");
        let data = image.fields("record", slot).get("root offset") as usize;
        image.write(if record_itself { slot + 20 } else { data }, &[1, 2, 3]);
    }
    let receipt = |dir: &Path| {
        let caretaker = open(dir);
        let history: Vec<_> = caretaker
            .history()
            .iter()
            .filter(|e| thawed(&caretaker, e.id()).is_some())
            .map(|e| (e.id(), e.label().map(str::to_owned), e.kind()))
            .collect();
        (history, caretaker.recovery().chosen)
    };
    let first = receipt(&victim.dir);
    let found: Vec<u64> = first.0.iter().map(|(id, ..)| id.get()).collect();
    assert_eq!(found[..3], [8, 7, 6]);
    assert!(found.contains(&3) && !found.contains(&4) && !found.contains(&5));
    // Killed at the end of opening, three times over.
    let mut dir = victim.dir.copy("killed");
    for _ in 0..3 {
        let caretaker = open(&dir);
        let next = dir.copy("again");
        drop(caretaker);
        dir = next;
        assert_eq!(receipt(&dir.copy("looked at")), first);
    }
}

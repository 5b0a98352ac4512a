//! Damaged and forged files: never a panic, never a mixture, and whatever was whole is still there.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use common::{A, B, Image, TempDir, World, open, open_with, small, table, thawed, world};
use proptest::prelude::*;
use snapring::{Caretaker, EntryState, MementoError, Snapshot, SnapshotId};

const SECTOR: usize = 512;
const SLOT: usize = 4096;

fn id(n: u64) -> SnapshotId {
    SnapshotId::new(n)
}

/// A closed directory of the worlds 1 to `last`, and all its bytes to go back to.
struct Victim {
    dir: TempDir,
    files: [Vec<u8>; 2],
    lock: Vec<u8>,
    ids: Vec<u64>,
}

impl Victim {
    fn new(name: &str, last: u64) -> Victim {
        let dir = TempDir::new(name);
        let caretaker = open_with::<World>(&small().ring(6), &dir).expect("made");
        for n in 1..=last {
            caretaker.save(&world(n)).expect("saved");
        }
        let ids = caretaker.history().iter().map(|e| e.id().get()).collect();
        caretaker.close().expect("closed");
        let files = [A, B].map(|name| Image::open(&dir, name).all());
        let lock = fs::read(dir.join("writer.lock")).expect("the lock file");
        Victim { dir, files, lock, ids }
    }

    fn image(&self, side: usize) -> Image {
        Image::open(&self.dir, [A, B][side])
    }

    /// As it was before the damage.
    fn heal(&self) {
        for (name, bytes) in [A, B].into_iter().zip(&self.files) {
            if fs::read(self.dir.join(name)).ok().as_ref() != Some(bytes) {
                fs::write(self.dir.join(name), bytes).expect("healed");
            }
            _ = fs::remove_file(self.dir.join(format!("{name}.damaged")));
        }
        fs::write(self.dir.join("writer.lock"), &self.lock).expect("healed");
    }

    /// Opens it and sees that every snapshot is whole but perhaps those in `may_go`.
    fn survives_but(&self, may_go: &[u64], what: &str) {
        let caretaker = open(&self.dir);
        let mut left = BTreeMap::new();
        for entry in caretaker.history() {
            if let Some(found) = thawed(&caretaker, entry.id()) {
                assert_eq!(found, entry.id().get(), "{what}: another world under this id");
                left.insert(found, ());
            }
        }
        for n in &self.ids {
            let gone = !left.contains_key(n);
            assert!(!gone || may_go.contains(n), "{what}: {n} is gone: {}", caretaker.recovery());
            if gone {
                let error = caretaker.try_memento(id(*n)).expect_err("gone");
                let told = !caretaker.recovery().rejected.is_empty()
                    || !caretaker.recovery().set_aside.is_empty()
                    || matches!(error, MementoError::Rejected { .. });
                assert!(told, "{what}: nobody says why {n} is gone ({error})");
            }
        }
        let next = caretaker.save(&world(77)).expect("saving goes on").get();
        assert!(next > *self.ids.first().expect("some"), "{what}: {next} was used before");
    }
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

/// What a forger changes in one record.
type Forgery = (&'static str, fn(&mut common::Fields));

#[test]
fn forged_records_are_rejected_or_harmless() {
    let victim = Victim::new("forged", 8);
    let rejected: &[Forgery] = &[
        ("an offset before the data area", |r| r.set("root offset", 4096)),
        ("an offset in the header page", |r| r.set("root offset", 0)),
        ("an offset beyond the file", |r| r.set("root offset", 1 << 40)),
        ("an offset at the end of numbers", |r| r.set("root offset", u64::MAX)),
        ("an offset at the end of numbers, aligned", |r| r.set("root offset", !4095)),
        ("an offset off a block", |r| r.set("root offset", r.get("root offset") + 64)),
        ("a length beyond the file", |r| r.set("root len", 1 << 30)),
        ("a length beyond any archive", |r| r.set("root len", 1 << 31)),
        ("the longest length", |r| r.set("root len", u64::MAX)),
        ("a length one less", |r| r.set("root len", r.get("root len") - 1)),
        ("a length of zero", |r| r.set("root len", 0)),
        ("another checksum", |r| r.set("root crc", 1)),
        ("a root beyond the archive", |r| r.set("root pos", u64::from(u32::MAX))),
        ("a root before the last one", |r| r.set("root pos", 0)),
        ("a root off its alignment", |r| r.set("root pos", r.get("root pos") + 1)),
        ("no depth at all", |r| r.set("depth", 0)),
        ("id zero", |r| r.set("id", 0)),
        ("an id too large", |r| r.set("id", 1 << 52)),
        ("the largest id", |r| r.set("id", u64::MAX)),
        ("the other side", |r| r.set("side", 1 - r.get("side"))),
        ("no side", |r| r.set("side", 2)),
        ("no kind", |r| r.set("kind", 0)),
        ("an unknown kind", |r| r.set("kind", 9)),
        ("another place", |r| r.set("index", r.get("index") + 1)),
        ("another file", |r| r.set_bytes("file id", &[9; 16])),
        ("a text before the data area", |r| r.set("schema offset", 0)),
        ("a text beyond the file", |r| r.set("schema len", 1 << 50)),
        ("a text at the end of numbers", |r| r.set("schema len", u64::MAX)),
        ("another layout and a text of another checksum", |r| {
            r.set_bytes("layout", &[1; 16]);
            r.set("schema crc", 1);
        }),
        ("another layout without a text", |r| {
            r.set_bytes("layout", &[1; 16]);
            r.set("schema len", 0);
        }),
    ];
    let harmless: &[Forgery] = &[
        ("a parent to come", |r| r.set("parent", u64::MAX)),
        ("a parent's seal", |r| r.set("parent seal", 1)),
        ("a target", |r| r.set("target", u64::MAX)),
        ("the end of logical versions", |r| r.set("logical", u64::MAX)),
        ("the end of time", |r| r.set("created", u64::MAX)),
        ("bytes without number", |r| r.set("written", u64::MAX)),
        ("a type version", |r| r.set("type version", u64::from(u32::MAX))),
        ("a depth that is too much", |r| r.set("depth", 500)),
        ("a page table", |r| r.set("table offset", u64::MAX)),
        ("no text", |r| r.set("schema len", 0)),
    ];
    for (of, n) in [("the newest", 8_u64), ("an older one", 5)] {
        let side = usize::from(victim.image(1).slot_of(n).is_some());
        for ((what, change), whole) in
            rejected.iter().map(|f| (f, false)).chain(harmless.iter().map(|f| (f, true)))
        {
            let image = victim.image(side);
            let slot = image.slot_of(n).expect("it is there");
            image.forge("record", slot, change);
            let caretaker = open(&victim.dir);
            let found = thawed(&caretaker, id(n));
            assert_eq!(found.is_some(), whole, "{what} of {of}: {}", caretaker.recovery());
            if !whole && n == 8 {
                assert_eq!(caretaker.head(), Some(id(7)), "{what} of {of}");
                let rejected = &caretaker.recovery().rejected;
                assert_eq!(rejected.len(), 1, "{what} of {of}");
                assert_eq!(usize::from(rejected[0].place), slot / SLOT - 1, "{what} of {of}");
            }
            drop(caretaker);
            let others: Vec<u64> = victim.ids.iter().copied().filter(|i| *i == n).collect();
            victim.heal();
            victim.image(side).forge("record", slot, change);
            victim.survives_but(&others, &format!("{what} of {of}"));
            victim.heal();
        }
    }
}

#[test]
fn forged_records_over_others_do_not_take_them_along() {
    let victim = Victim::new("overlap", 8);
    let side = 0;
    let image = victim.image(side);
    let records = image.records();
    let [(old_at, old), .., (_, new)] = records.as_slice() else { panic!("several") };
    // An older record over the newest one's bytes: not the same blocks, or the same with other
    // bytes in mind.
    for longer in [0, 4096, 1 << 15] {
        image.forge("record", *old_at, |r| {
            r.set("root offset", new.get("root offset"));
            r.set("root len", new.get("root len") + longer);
        });
        victim.survives_but(&[old.get("id")], "over the newest");
        victim.heal();
    }
    // The same id twice: the file of the first place counts, whichever that is.
    image.forge("record", *old_at, |r| r.set("id", new.get("id")));
    let caretaker = open(&victim.dir);
    let rejected = &caretaker.recovery().rejected;
    assert_eq!(rejected.len(), 1, "{}", caretaker.recovery());
    assert!(rejected[0].reason.contains("another place holds the same id"), "{}", rejected[0]);
    let found = thawed(&caretaker, id(new.get("id"))).expect("one of the two");
    assert!([old.get("id"), new.get("id")].contains(&found));
}

#[test]
fn ids_near_their_end_end_with_an_error() {
    let victim = Victim::new("last", 8);
    let side = usize::from(victim.image(1).slot_of(8).is_some());
    let image = victim.image(side);
    image.forge("record", image.slot_of(8).expect("there"), |r| r.set("id", (1 << 52) - 2));
    let caretaker = open(&victim.dir);
    assert_eq!(caretaker.save(&world(9)).expect("the last id").get(), (1 << 52) - 1);
    let error = caretaker.save(&world(9)).expect_err("no more ids");
    assert!(matches!(error, snapring::SaveError::Exhausted), "{error}");
    assert_eq!(thawed(&caretaker, id((1 << 52) - 1)), Some(9));
    let mut live = world(1);
    let error = caretaker.rollback(&mut live, id(7)).expect_err("no more ids");
    assert!(error.to_string().contains("#7"), "{error}");
}

#[test]
fn hostile_layout_texts_give_a_short_reason() {
    let victim = Victim::new("texts", 8);
    let first = "rkyv 0.8 little-endian aligned pointer-32\n";
    let long = "x".repeat(9000);
    let chain = |kind: &str| {
        let lines = (0..400).map(|i| format!("#{i} {kind} - 4/4 item=#{}\n", (i + 1) % 400));
        format!("{first}{}", lines.collect::<String>())
    };
    let texts = [
        String::new(),
        "\0\u{1b}[31m".repeat(50),
        format!("rkyv 0.7 {long}\n"),
        first.to_owned(),
        format!("{first}#0 struct World 8/8 tick@0=#7\n"),
        format!("{first}#0 struct World 8/8 tick@0=#18446744073709551616\n"),
        format!("{first}#1 struct World 8/8\n"),
        format!("{first}#0 {long} World 8/8\n"),
        format!("{first}#0 struct {long} 8/8\n"),
        format!("{first}#0 struct \u{1b}[2J 8/8\n"),
        format!("{first}#0 struct World 8/8 {long}@0=#0\n"),
        format!("{first}#0 struct World 8/8 tick@99999999999999999999=#0\n"),
        format!("{first}#0 struct World 24/8 tick@0=#0 players@8=#0 scores@16=#0\n"),
        chain("struct"),
        chain("vec"),
    ];
    for text in texts {
        let side = usize::from(victim.image(1).slot_of(8).is_some());
        let image = victim.image(side);
        let slot = image.slot_of(8).expect("there");
        let at = image.len() - (16 << 10);
        image.write(at as usize, text.as_bytes());
        image.forge("record", slot, |r| {
            r.set_bytes("layout", &[3; 16]);
            r.set("schema offset", at);
            r.set("schema len", text.len() as u64);
            r.set("schema crc", u64::from(crc32fast::hash(text.as_bytes())));
        });
        let caretaker = open(&victim.dir);
        let recovery = caretaker.recovery();
        let reason = match recovery.other_layout.as_slice() {
            [(eight, difference)] => {
                assert_eq!(*eight, id(8));
                difference.clone()
            }
            _ => recovery.rejected[0].reason.clone(),
        };
        assert!(!reason.is_empty() && reason.len() < 1000, "{} bytes of reason", reason.len());
        assert!(!reason.chars().any(char::is_control), "{reason:?}");
        assert!(caretaker.try_memento(id(8)).is_err());
        assert_eq!(thawed(&caretaker, id(7)), Some(7));
        drop(caretaker);
        victim.heal();
    }
}

#[test]
fn forged_labels_are_no_labels() {
    let victim = Victim::new("labels", 8);
    let side = usize::from(victim.image(1).slot_of(7).is_some());
    let at = victim.image(side).slot_of(7).expect("there") + 2 * SECTOR;
    let cases: &[(u64, &[u8], Option<&str>)] = &[
        (4, b"fine", Some("fine")),
        (0, b"", None),
        (2, b"\xff\xfe", None),
        (255, b"much too short", None),
        (4, b"\x1b[2J", None),
        (3, b"a\nb", None),
    ];
    for (len, bytes, label) in cases {
        victim.image(side).forge("label", at, |l| {
            l.set("id", 7);
            l.set("len", *len);
            let mut text = [0; 255];
            text[..bytes.len()].copy_from_slice(bytes);
            l.set_bytes("text", &text);
        });
        let caretaker = open(&victim.dir);
        let entry = caretaker.history().into_iter().find(|e| e.id() == id(7)).expect("listed");
        assert_eq!(entry.label(), *label);
        drop(caretaker);
        victim.heal();
    }
}

#[test]
fn a_label_that_two_snapshots_have_is_released_from_both() {
    // As if killed while `keep` moved it.
    let victim = Victim::new("moved", 8);
    let forge = || {
        for n in [4, 7] {
            let side = usize::from(victim.image(1).slot_of(n).is_some());
            let image = victim.image(side);
            image.forge("label", image.slot_of(n).expect("there") + 2 * SECTOR, |l| {
                l.set("id", n);
                l.set("len", 2);
                let mut text = [0; 255];
                text[..2].copy_from_slice(b"me");
                l.set_bytes("text", &text);
            });
        }
    };
    let labelled = |caretaker: &Caretaker<World>| -> Vec<u64> {
        let history = caretaker.history();
        history.iter().filter(|e| e.label() == Some("me")).map(|e| e.id().get()).collect()
    };
    forge();
    let caretaker = open(&victim.dir);
    assert_eq!(labelled(&caretaker), [7, 4]);
    assert!(caretaker.release("me"));
    assert_eq!(labelled(&caretaker), [0; 0]);
    drop(caretaker);
    for n in [4, 7, 6] {
        victim.heal();
        forge();
        let caretaker = open(&victim.dir);
        caretaker.keep(id(n), "me").expect("kept");
        assert_eq!(labelled(&caretaker), [n]);
        caretaker.close().expect("closed");
        assert_eq!(labelled(&open(&victim.dir)), [n]);
    }
}

#[test]
fn labels_on_everything_are_an_error_that_names_them_and_not_a_standstill() {
    let victim = Victim::new("everything", 8);
    for n in &victim.ids {
        let side = usize::from(victim.image(1).slot_of(*n).is_some());
        let image = victim.image(side);
        image.forge("label", image.slot_of(*n).expect("there") + 2 * SECTOR, |l| {
            l.set("id", *n);
            l.set("len", 1);
            let mut text = [0; 255];
            text[0] = b'a' + *n as u8;
            l.set_bytes("text", &text);
        });
    }
    let caretaker = open(&victim.dir);
    for n in 1..=20 {
        caretaker.save(&world(n)).expect("places are left");
    }
    assert!(caretaker.history().iter().filter(|e| e.label().is_some()).count() == 6);
    assert!(caretaker.release("d"));
    caretaker.save(&world(21)).expect("saved");
}

#[derive(Snapshot)]
struct Chain {
    next: Option<Box<Chain>>,
}

fn chain(links: u32) -> Chain {
    (0..links).fold(Chain { next: None }, |next, _| Chain { next: Some(Box::new(next)) })
}

#[test]
fn the_background_checks_as_deep_as_may_be_allowed() {
    let dir = TempDir::new("deepest");
    let deepest = small().max_depth(4096);
    // Building, archiving and the check of the newest take this thread's stack.
    let (opened, ids) = std::thread::scope(|scope| {
        let work = || {
            let caretaker = open_with::<Chain>(&deepest, &dir).expect("opened");
            let ids = [4096, 4096, 1].map(|n| caretaker.save(&chain(n)).expect("saved"));
            caretaker.close().expect("closed");
            (open_with::<Chain>(&deepest, &dir).expect("opened"), ids)
        };
        let thread = std::thread::Builder::new().stack_size(64 << 20);
        thread.spawn_scoped(scope, work).expect("a thread").join().expect("no panic")
    });
    let limit = Instant::now() + Duration::from_secs(10);
    let checked = |id| {
        let history = opened.history();
        history.iter().any(|e| e.id() == id && *e.state() == EntryState::Whole)
    };
    while !ids.iter().all(|id| checked(*id)) {
        assert!(Instant::now() < limit, "they are not checked: {:?}", opened.history());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_snapshot_deeper_than_allowed_now_is_kept_for_a_time_when_it_is_allowed() {
    let dir = TempDir::new("deep");
    let deep = small().max_depth(300);
    let caretaker = open_with::<Chain>(&deep, &dir).expect("opened");
    let first = caretaker.save(&chain(300)).expect("as deep as allowed");
    assert!(matches!(caretaker.save(&chain(301)), Err(snapring::SaveError::TooDeep { max: 300 })));
    drop(caretaker);
    let caretaker = open_with::<Chain>(&small().max_depth(100), &dir).expect("opened");
    let error = caretaker.try_memento(first).expect_err("too deep to be checked");
    let text = error.to_string();
    assert!(text.contains("300 pointers deep") && text.contains("`Options::max_depth`"), "{text}");
    caretaker.save(&chain(2)).expect("saved");
    assert_eq!(caretaker.history().len(), 2, "it is not lost");
    drop(caretaker);
    let caretaker = open_with::<Chain>(&deep, &dir).expect("opened");
    assert!(caretaker.memento(first).is_some());
    assert!(caretaker.recovery().rejected.is_empty(), "{}", caretaker.recovery());
}

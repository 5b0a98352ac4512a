//! Files made by somebody who knows the format and repairs the checksums: everything a record, a label
//! or a layout text can claim is refused or harmless, and said in few words.

mod common;

use std::time::{Duration, Instant};

use common::{TempDir, Victim, World, open, open_with, small, thawed, world};
use snapring::{Caretaker, EntryState, Snapshot, SnapshotId};

const SECTOR: usize = 512;
const SLOT: usize = 4096;

fn id(n: u64) -> SnapshotId {
    SnapshotId::new(n)
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
    // Its own bytes once more, whole, and not on a block.
    let (at, len) = (old.get("root offset"), old.get("root len"));
    image.write(at as usize + 64, &image.read(at as usize, len as usize));
    image.forge("record", *old_at, |r| r.set("root offset", at + 64));
    let caretaker = open(&victim.dir);
    assert_eq!(caretaker.recovery().rejected.len(), 1, "{}", caretaker.recovery());
    drop(caretaker);
    victim.heal();
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
fn a_label_note_without_text_takes_its_snapshot_off_the_list_and_no_other() {
    let victim = Victim::new("left", 8);
    for n in [7, 8] {
        let side = usize::from(victim.image(1).slot_of(n).is_some());
        let image = victim.image(side);
        image.forge("label", image.slot_of(n).expect("there") + 2 * SECTOR, |l| {
            l.set("id", n);
            l.set("len", 0);
        });
    }
    let caretaker = open(&victim.dir);
    let listed: Vec<u64> = caretaker.history().iter().map(|e| e.id().get()).collect();
    assert_eq!(listed, [8, 6, 5, 4, 3], "7 is gone; the newest stays, whatever its note says");
    assert_eq!(thawed(&caretaker, id(8)), Some(8));
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

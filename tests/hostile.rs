//! Files forged by somebody who knows the format, against what stands behind the checksums: bytes
//! that would make a thaw, a lookup or an opening take for ever, take all memory, or end in a state
//! that is neither what it was nor the target.

mod common;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use common::{Image, TempDir, open_with, small, table};
use snapring::{Caretaker, MementoError, RollbackError, SaveError, Snapshot, SnapshotId};

const FIRST: SnapshotId = SnapshotId::new(1);

/// Saves one state, and lets `forge` change its archive: bytes and where the root starts.
fn forged<T: Snapshot>(dir: &Path, state: &T, forge: impl FnOnce(&mut [u8], usize)) {
    let caretaker = open_with::<T>(&small(), dir).expect("made");
    assert_eq!(caretaker.save(state).expect("saved"), FIRST);
    caretaker.close().expect("closed");
    rewrite(dir, forge);
}

/// Changes the archive of snapshot 1 and makes its checksums fit.
fn rewrite(dir: &Path, forge: impl FnOnce(&mut [u8], usize)) {
    let images = Image::both(dir);
    let (image, at) = images
        .iter()
        .find_map(|image| Some((image, image.slot_of(1)?)))
        .expect("snapshot 1 is in one of the files");
    let record = image.fields("record", at);
    let (offset, len) = (record.get("root offset") as usize, record.get("root len") as usize);
    let mut bytes = image.read(offset, len);
    forge(&mut bytes, record.get("root pos") as usize);
    image.write(offset, &bytes);
    image.forge("record", at, |r| r.set("root crc", u64::from(crc32fast::hash(&bytes))));
}

fn reopened<T: Snapshot>(dir: &Path) -> Caretaker<T> {
    open_with(&small(), dir).expect("damage never stops an opening")
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// What the relative pointer at `at` leads to.
fn follow(bytes: &[u8], at: usize) -> usize {
    at.wrapping_add_signed(word(bytes, at) as i32 as isize)
}

// Deep without looking so.

#[derive(Snapshot)]
struct Link {
    #[allow(dead_code)]
    next: Option<Rc<Link>>,
}

/// Links of which each is found by the list before the next one leads to it: looked at one after
/// another, none is deep.
fn links(len: usize) -> Vec<Rc<Link>> {
    let mut links: Vec<Rc<Link>> = Vec::new();
    for _ in 0..len {
        links.push(Rc::new(Link { next: links.last().cloned() }));
    }
    links
}

/// Dropped from the front, each link would be the last holder of the next: a call for each of them.
fn let_go(mut links: Vec<Rc<Link>>) {
    while links.pop().is_some() {}
}

#[test]
fn shared_values_are_as_deep_as_the_way_through_them() {
    let caretaker = Caretaker::in_memory().expect("memory");
    let state = links(100);
    caretaker.save(&state).expect("a hundred deep");
    assert_eq!(caretaker.resume().expect("whole").map(|links| links.len()), Some(100));
    let state = links(100_000);
    let error = caretaker.save(&state).expect_err("a hundred thousand deep");
    assert!(matches!(error, SaveError::TooDeep { max: 512, .. }), "{error}");
    let_go(state);
}

#[test]
fn a_record_that_makes_little_of_its_depth_is_rejected() {
    let dir = TempDir::new("little-depth");
    forged(&dir, &links(400), |_, _| {});
    for image in Image::both(&dir) {
        if let Some(at) = image.slot_of(1) {
            assert!(image.fields("record", at).get("depth") >= 400, "the way through all links");
            image.forge("record", at, |r| r.set("depth", 3));
        }
    }
    let caretaker = reopened::<Vec<Rc<Link>>>(&dir);
    let error = caretaker.try_memento(FIRST).expect_err("400 deep, not 3");
    assert!(matches!(error, MementoError::Rejected { .. }), "{error}");
    assert!(error.to_string().contains("pointers"), "{error}");
}

// For ever.

#[derive(Snapshot)]
struct Index {
    #[snapshot(hashed)]
    map: HashMap<u32, u32>,
}

#[derive(Snapshot)]
struct Names {
    #[snapshot(hashed)]
    set: HashSet<u32>,
}

/// The copies of the first control bytes say that no slot is free. Which real ones are depends on
/// the keys, so whatever starts behind the free ones would search for ever.
fn fill_the_copies(bytes: &mut [u8], root: usize) {
    let capacity = word(bytes, root + 8) as usize;
    let controls = follow(bytes, root);
    let count = capacity.next_multiple_of(16) + 15;
    bytes[controls + capacity..controls + count].fill(0x01);
}

#[test]
fn a_hash_table_without_an_end_is_rejected() {
    let dir = TempDir::new("endless-map");
    let index = Index { map: (0..14).map(|n| (n, n)).collect() };
    forged(&dir, &index, |_, _| {});
    let caretaker = reopened::<Index>(&dir);
    let index = caretaker.latest().expect("honest so far");
    assert!(index.map.get(&3.into()).is_some() && index.map.get(&99.into()).is_none());
    drop((index, caretaker));
    rewrite(&dir, fill_the_copies);
    let error = reopened::<Index>(&dir).try_memento(FIRST).expect_err("forged");
    assert!(error.to_string().contains("control bytes"), "{error}");

    let dir = TempDir::new("endless-set");
    forged(&dir, &Names { set: (0..14).collect() }, fill_the_copies);
    let error = reopened::<Names>(&dir).try_memento(FIRST).expect_err("forged");
    assert!(error.to_string().contains("control bytes"), "{error}");
}

#[test]
fn records_over_one_another_are_summed_up_a_few_times_at_most() {
    const RING: u32 = 200;
    let dir = TempDir::new("over-one-another");
    let options = small().ring(RING).file_size(2 << 20).max_file_size(4 << 20);
    let caretaker = open_with::<u64>(&options, &dir).expect("made");
    for n in 0..u64::from(RING) {
        caretaker.save(&n).expect("saved");
    }
    caretaker.close().expect("closed");
    let mut forgeries = 0;
    for image in Image::both(&dir) {
        let (at, len) = (image.data_at() as u64, image.len() - image.data_at() as u64);
        for (slot, record) in image.records() {
            // All of the data area, with a checksum of its own.
            image.forge("record", slot, |r| {
                r.set("root offset", at);
                r.set("root len", len);
                r.set("root crc", record.get("id"));
                r.set("schema len", 0);
            });
            forgeries += 1;
        }
    }
    assert_eq!(forgeries, RING);
    let caretaker = open_with::<u64>(&options, &dir).expect("opens");
    let rejected = &caretaker.recovery().rejected;
    assert_eq!(rejected.len() as u32, RING);
    let summed_up = rejected.iter().filter(|slot| slot.reason.contains("checksum")).count();
    assert!(summed_up <= 8, "{summed_up} times all of a file: {}", rejected[0]);
    assert!(rejected[100].reason.contains("too many"), "{}", rejected[100]);
    assert!(caretaker.save(&1).is_ok());
}

#[test]
fn a_long_layout_text_is_compared_once() {
    const TEXT: usize = 1 << 20;
    let dir = TempDir::new("long-text");
    let options = small().ring(100).file_size(4 << 20).max_file_size(8 << 20);
    let caretaker = open_with::<Vec<u64>>(&options, &dir).expect("made");
    caretaker.save(&vec![7; TEXT / 4]).expect("room for a text");
    for n in 0..99 {
        caretaker.save(&vec![n]).expect("saved");
    }
    caretaker.close().expect("closed");
    let lines = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
    for image in Image::both(&dir) {
        let Some(big) = image.slot_of(1) else { continue };
        let at = image.fields("record", big).get("root offset");
        // As many lines of a layout as go in, each naming the next.
        let mut text = String::from("rkyv 0.8 little-endian aligned pointer-32\n");
        let mut n = 0;
        while text.len() < TEXT {
            text += &format!("#{n} struct - 8/4 next@0=#{}\n", n + 1);
            n += 1;
        }
        text += &format!("#{n} u32 - 4/4\n");
        assert!(lines(text.as_bytes()) > 10_000);
        image.write(at as usize, text.as_bytes());
        let crc = u64::from(crc32fast::hash(text.as_bytes()));
        for (slot, _) in image.records().into_iter().filter(|(slot, _)| *slot != big) {
            image.forge("record", slot, |r| {
                r.set_bytes("layout", &[5; 16]);
                r.set("schema offset", at);
                r.set("schema len", text.len() as u64);
                r.set("schema crc", crc);
            });
        }
        image.forge("record", big, |r| r.set("seal", 0));
        image.write(big + table("record").field("seal").offset, &[0; 4]);
    }
    let start = Instant::now();
    let caretaker = open_with::<Vec<u64>>(&options, &dir).expect("opens");
    assert!(caretaker.recovery().other_layout.len() > 20, "{}", caretaker.recovery());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?} for one text", start.elapsed());
}

// Without bound.

/// An element whose archive has no bytes; alive it has some.
#[derive(Snapshot, Clone, Default, PartialEq, Debug)]
struct Hollow {
    #[snapshot(skip)]
    live: [u64; 16],
}

#[derive(Snapshot, Clone, PartialEq, Debug)]
struct Rooms {
    rooms: Vec<Vec<Hollow>>,
    tick: u32,
}

#[test]
fn elements_without_bytes_are_counted_over_the_whole_state() {
    const EACH: usize = 1 << 19;
    let caretaker = Caretaker::in_memory().expect("memory");
    caretaker.save(&vec![vec![(); EACH]; 2]).expect("as many as may be");
    let error = caretaker.save(&vec![vec![(); EACH]; 3]).expect_err("too many in all");
    assert!(matches!(error, SaveError::TooLarge { max: 1_048_576, .. }), "{error}");
    drop(caretaker);

    // Each of a thousand lengths is allowed; together they would fill any memory.
    let dir = TempDir::new("hollow");
    let rooms = Rooms { rooms: vec![vec![Hollow::default()]; 1000], tick: 1 };
    forged(&dir, &rooms, |bytes, root| {
        let first = follow(bytes, root);
        for room in 0..1000 {
            put(bytes, first + 8 * room + 4, EACH as u32);
        }
    });
    let caretaker = reopened::<Rooms>(&dir);
    let error = caretaker.resume().expect_err("too many");
    assert!(error.to_string().contains("#1"), "{error}");
    // And the state is as it was, not half restored.
    let mut state = Rooms { rooms: vec![vec![Hollow { live: [9; 16] }]], tick: 5 };
    let before = state.clone();
    let error = caretaker.rollback(&mut state, FIRST).expect_err("too many");
    assert!(matches!(error, RollbackError::Thaw { .. }), "{error}");
    assert_eq!(state, before);
}

// A mixture.

#[test]
fn a_key_that_is_there_twice_makes_no_mixture() {
    type State = HashMap<u32, String>;
    let map = |entries: &[(u32, &str)]| -> State {
        entries.iter().map(|(k, v)| (*k, (*v).to_owned())).collect()
    };
    let dir = TempDir::new("twice");
    forged(&dir, &map(&[(1, "one"), (2, "two")]), |bytes, root| {
        let second = follow(bytes, root) + 12;
        assert_eq!(word(bytes, second), 2);
        put(bytes, second, 1);
    });
    let caretaker = reopened::<State>(&dir);
    let thawed = caretaker.resume().expect("whole").expect("there");
    assert_eq!(thawed, map(&[(1, "two")]));
    // As many keys as the archive has entries, and one of them is not among those.
    for live in [map(&[(1, "live"), (3, "three")]), map(&[(3, "three")]), State::new()] {
        let mut state = live;
        let at = caretaker.rollback(&mut state, FIRST).expect("whole").id();
        assert_eq!(state, thawed);
        // The rollback's snapshot has the same bytes.
        let mut state = map(&[(1, "live"), (4, "four")]);
        assert!(caretaker.rollback(&mut state, at).is_ok());
        assert_eq!(state, thawed);
    }
}

#[test]
fn what_was_found_keeps_the_live_fields_all_the_same() {
    #[derive(Snapshot, PartialEq, Debug)]
    struct Room {
        number: u32,
        #[snapshot(skip)]
        socket: Option<u8>,
    }
    type State = BTreeMap<u8, Room>;
    let room = |number, socket| Room { number, socket };
    let dir = TempDir::new("live-fields");
    forged(&dir, &State::from([(1, room(10, None)), (2, room(20, None))]), |_, _| {});
    let caretaker = reopened::<State>(&dir);
    let mut state = State::from([(1, room(11, Some(7))), (3, room(30, Some(8)))]);
    assert!(caretaker.rollback(&mut state, FIRST).is_ok());
    assert_eq!(state, State::from([(1, room(10, Some(7))), (2, room(20, None))]));
}

// As deep as may be.

/// Recursion through every container that has frames of its own.
#[derive(Snapshot)]
enum Tree {
    Leaf(u8),
    One(Box<Tree>),
    Many(Vec<(u8, Tree)>),
    Named(HashMap<String, Tree>),
    Sorted(BTreeMap<u8, Result<Tree, u8>>),
    Shared(Rc<Tree>),
}

fn tree(depth: u32) -> Tree {
    (0..depth).fold(Tree::Leaf(1), |tree, n| match n % 5 {
        0 => Tree::One(Box::new(tree)),
        1 => Tree::Many(vec![(1, tree)]),
        2 => Tree::Named([("a key".to_owned(), tree)].into()),
        3 => Tree::Sorted([(1, Ok(tree))].into()),
        _ => Tree::Shared(Rc::new(tree)),
    })
}

#[test]
fn the_deepest_state_allowed_fits_a_small_stack() {
    // What a thread of the standard library has.
    let small_stack = std::thread::Builder::new().stack_size(2 << 20);
    let thread = small_stack.spawn(|| {
        let dir = TempDir::new("deepest");
        let caretaker = open_with::<Tree>(&small(), &dir).expect("made");
        // The keys of maps are short: no pointers of their own.
        assert_eq!(caretaker.save(&tree(512)).expect("as deep as may be"), FIRST);
        assert!(matches!(caretaker.save(&tree(513)), Err(SaveError::TooDeep { .. })));
        drop(caretaker);
        let caretaker = reopened::<Tree>(&dir);
        let mut state = caretaker.resume().expect("whole").expect("there");
        assert!(caretaker.rollback(&mut state, FIRST).is_ok());
    });
    thread.expect("a thread").join().expect("no overflow, which would end the process");
}

//! SNAPSHOT_FORMAT.md tells the truth: its tables against real files, field by field; a reader that
//! knows nothing else; and a ring of version 1 that every later build must still read and write.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    path::Path,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use common::{
    A, B, Image, TempDir, World, crc32, dump, masked, newest, open_with, small, table, undump,
    world,
};
use snapring::{Archived, Caretaker, Fingerprint, Kind, Options, Snapshot, SnapshotId};

const DOCUMENT: &str = include_str!("../SNAPSHOT_FORMAT.md");

#[test]
fn the_tables_have_the_sizes_they_claim() {
    for (name, size) in
        [("header page", 4096), ("slot page", 4096), ("header", 512), ("floor", 512), ("hint", 512)]
    {
        assert_eq!(table(name).size(), size, "{name}");
    }
    for (outer, field, inner) in [
        ("header page", "header", "header"),
        ("header page", "header copy", "header"),
        ("header page", "floor", "floor"),
        ("header page", "hint", "hint"),
        ("slot page", "record", "record"),
        ("slot page", "note", "note"),
        ("slot page", "label", "label"),
    ] {
        assert_eq!(table(outer).field(field).size, table(inner).size(), "{field}");
    }
}

#[test]
fn every_crash_point_names_a_test_that_exists() {
    let tests = [
        ("opening", include_str!("opening.rs")),
        ("damage", include_str!("damage.rs")),
        ("forgery", include_str!("forgery.rs")),
        ("durability", include_str!("durability.rs")),
        ("relocation", include_str!("relocation.rs")),
        ("process", include_str!("process.rs")),
        ("reader", include_str!("reader.rs")),
        ("hostile", include_str!("hostile.rs")),
    ];
    let recovery = DOCUMENT.split("## Recovery").nth(1).and_then(|s| s.split("\n## ").next());
    let rows = recovery.expect("a section").lines().filter(|l| l.contains("::"));
    let mut count = 0;
    for row in rows {
        let name = row.rsplit('`').nth(1).expect("a test's name");
        let (file, test) = name.split_once("::").expect("file::test");
        let source = tests.iter().find(|(f, _)| *f == file).expect("a file of tests").1;
        assert!(source.contains(&format!("fn {test}()")), "{name} does not exist");
        count += 1;
    }
    assert!(count >= 14, "only {count} rows");
}

/// All bytes of fields called reserved are zero, and all else of a structure is accounted for.
fn reserved_is_zero(image: &Image, name: &str, at: usize) {
    let bytes = image.read(at, table(name).size());
    for field in table(name).fields.iter().filter(|f| f.name == "reserved") {
        let zero = bytes[field.offset..field.offset + field.size].iter().all(|b| *b == 0);
        assert!(zero, "{name}: reserved bytes at {} are in use", field.offset);
    }
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64
}

#[test]
fn real_files_are_as_the_tables_say() {
    let dir = TempDir::new("tables");
    let start = nanos(SystemTime::now()) - 1_000_000_000;
    let caretaker = open_with::<World>(&small().ring(5), &dir).expect("opened");
    let live = || Image::both(&dir);
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the boot");
    let boot = u128::from_str_radix(&boot.trim().replace('-', ""), 16).expect("hexadecimal");
    let boot = boot.to_be_bytes();

    let [a, b] = live();
    for (letter, image) in [(b'A', &a), (b'B', &b)] {
        let header = image.fields("header", 0);
        assert!(header.is_sealed());
        assert_eq!(header.bytes, image.fields("header", 3584).bytes);
        assert_eq!(header.bytes("magic"), b"SNAPRING");
        for (field, value) in [
            ("format", 1),
            ("endian", 1),
            ("pointer", 4),
            ("aligned", 1),
            ("rkyv", 8),
            ("side", u64::from(letter)),
            ("ring", 5),
            ("block", 4096),
            ("slots", 9),
        ] {
            assert_eq!(header.get(field), value, "{field}");
        }
        assert!((start..start + 60_000_000_000).contains(&header.get("created")));
        let floor = image.fields("floor", 512);
        assert!(floor.is_sealed());
        assert!(floor.get("floor") > 1 << 20);
        assert_eq!(floor.get("next"), 0, "in use");
        assert_eq!(
            (floor.bytes("boot"), floor.bytes("ring id")),
            (&boot[..], header.bytes("ring id"))
        );
        for (name, at) in [("header page", 0), ("header", 0), ("floor", 512), ("hint", 1024)] {
            reserved_is_zero(image, name, at);
        }
    }
    let ids = |name| [&a, &b].map(|i| i.fields("header", 0).bytes(name).to_vec());
    let [ring_a, ring_b] = ids("ring id");
    let [file_a, file_b] = ids("file id");
    assert!(ring_a == ring_b && file_a != file_b && ring_a != file_a);
    let lock = Image::open(&dir, "writer.lock");
    assert_eq!(lock.fields("floor", 512).bytes, a.fields("floor", 512).bytes);
    let holder = lock.read(0, 64);
    assert!(holder.starts_with(format!("process {}", std::process::id()).as_bytes()));

    for n in 1..=3 {
        caretaker.save(&world(n)).expect("saved");
    }
    let mut state = world(3);
    let rollback = caretaker.rollback(&mut state, SnapshotId::new(2)).expect("rolled back");
    caretaker.flush().expect("flushed");
    caretaker.keep(SnapshotId::new(2), "kept ä").expect("kept");
    let history = caretaker.history();
    let mut seals = BTreeMap::new();
    for entry in history.iter().rev() {
        let n = entry.id().get();
        let side = live().iter().position(|i| i.slot_of(n).is_some()).expect("in a file");
        let image = &live()[side];
        let slot = image.slot_of(n).expect("there");
        let r = image.fields("record", slot);
        for (name, at) in [("slot page", 0), ("record", 0), ("note", 512), ("label", 1024)] {
            reserved_is_zero(image, name, slot + at);
        }
        assert!(r.is_sealed());
        assert_eq!(r.bytes("file id"), image.fields("header", 0).bytes("file id"));
        assert_eq!(r.bytes("boot"), boot);
        assert_eq!((r.get("side"), r.get("index")), (side as u64, slot as u64 / 4096 - 1));
        let kind = match entry.kind() {
            Kind::Full => 1,
            Kind::Rollback => 3,
            kind => panic!("{kind:?}"),
        };
        assert_eq!(r.get("kind"), kind);
        assert_eq!(r.get("parent"), n - 1);
        assert_eq!(r.get("parent seal"), seals.get(&(n - 1)).copied().unwrap_or(0));
        seals.insert(n, r.get("seal"));
        assert_eq!(r.get("target"), entry.target().map_or(0, SnapshotId::get));
        assert_eq!(r.bytes("layout"), Fingerprint::of::<World>().to_bytes());
        assert_eq!(r.get("type version"), 1);
        assert_eq!(r.get("depth"), 2, "the players, then what each of them has");
        assert_eq!(r.get("logical"), entry.logical_version());
        assert_eq!(nanos(entry.created()), r.get("created"));
        assert_eq!(r.get("root len"), entry.bytes());
        assert_eq!(r.get("root pos"), entry.bytes() - size_of::<Archived<World>>() as u64);
        assert_eq!(r.get("written"), if kind == 3 { 0 } else { entry.bytes() });
        for extent in ["root", "schema"] {
            let [at, len, crc] = ["offset", "len", "crc"].map(|p| r.get(&format!("{extent} {p}")));
            assert!(at % 4096 == 0 && at >= image.data_at() as u64, "{extent}");
            let bytes = image.read(at as usize, len as usize);
            assert_eq!(crc, u64::from(crc32(&bytes)), "{extent}");
        }
        assert_eq!((r.get("table offset"), r.get("table len"), r.get("table crc")), (0, 0, 0));
        let note = image.fields("note", slot + 512);
        assert!(note.is_sealed());
        assert_eq!((note.get("id"), note.get("record seal")), (n, r.get("seal")));
        assert_eq!(note.bytes("boot"), boot);
        let label = image.fields("label", slot + 1024);
        assert_eq!(label.is_sealed() && label.get("id") == n, n == 2);
        if n == 2 {
            assert_eq!(label.get("len"), 7);
            assert_eq!(&label.bytes("text")[..8], "kept ä\0".as_bytes());
        }
    }
    // The rollback lies beside its target and has its bytes.
    let target = b.fields("record", b.slot_of(2).expect("in B"));
    let back = b.fields("record", b.slot_of(rollback.id().get()).expect("on its target's side"));
    for field in ["root offset", "root len", "root crc", "root pos", "depth", "logical"] {
        assert_eq!(back.get(field), target.get(field), "{field}");
    }
    let hint = a.fields("hint", 1024);
    assert_eq!(hint.get("head"), rollback.id().get() << 12 | (back.get("index") + 9));
    assert_eq!(hint.get("wake"), 4);
    caretaker.close().expect("closed");
    for floor in [a.fields("floor", 512), b.fields("floor", 512), lock.fields("floor", 512)] {
        assert!(floor.is_sealed());
        assert_eq!(floor.get("next"), 5, "the next id");
    }
}

#[test]
fn archived_sizes_are_as_the_document_says() {
    fn says<T: Snapshot>(row: &str) {
        let size = format!("{} / {}", size_of::<Archived<T>>(), align_of::<Archived<T>>());
        let line = DOCUMENT.lines().find(|l| l.starts_with(&format!("| {row}")));
        let line = line.unwrap_or_else(|| panic!("the document has no row {row}"));
        let sizes = line.split('|').nth(2).expect("a second cell");
        assert!(sizes.contains(&size), "{row}: {size}, and the document says {sizes}");
    }
    says::<usize>("`usize`");
    says::<bool>("`bool`, `char`");
    says::<char>("`bool`, `char`");
    says::<()>("`bool`, `char`");
    says::<String>("`String`");
    says::<Vec<u64>>("`Vec`");
    says::<HashMap<u8, u64>>("`HashMap`");
    says::<BTreeSet<u8>>("`HashSet`");
    says::<Box<u64>>("`Box<T>`");
    says::<Rc<u64>>("`Box<T>`");
    says::<Arc<str>>("`Rc` and");
    says::<Rc<[u64]>>("`Rc` and");
    says::<Duration>("`Duration`");
    says::<Ipv4Addr>("`Ipv4Addr`");
    says::<Ipv6Addr>("`Ipv4Addr`");
    says::<SocketAddrV4>("`SocketAddrV4`");
    says::<SocketAddrV6>("`SocketAddrV6`");
    says::<IpAddr>("`IpAddr`");
    says::<SocketAddr>("`IpAddr`");
    says::<std::marker::PhantomData<u64>>("`PhantomData`");
}

// ---- The reader ----

#[derive(Snapshot, Clone, Debug, PartialEq)]
enum Mood {
    Calm,
    Angry { level: i16, at: Vec<String> },
    Asleep(bool, u64),
}

#[derive(Snapshot, Clone, Debug, PartialEq)]
#[snapshot(version = 7)]
struct Many {
    flag: bool,
    wide: u128,
    size: usize,
    less: isize,
    letter: char,
    short: String,
    exactly: String,
    long: String,
    longer: String,
    ratio: f64,
    moods: Vec<Mood>,
    names: HashMap<String, Option<Box<u16>>>,
    odd: BTreeMap<u8, u64>,
    set: BTreeSet<i32>,
    pair: (u8, f32),
    rows: [[u16; 2]; 3],
    outcome: [Result<u8, String>; 2],
    shared: (Arc<str>, Arc<str>, Rc<[u32]>),
    wait: Duration,
    host: Ipv4Addr,
    span: std::ops::Range<u32>,
    empty: Vec<u64>,
    nothing: (),
    #[snapshot(skip)]
    live: u32,
}

fn many() -> Many {
    let shared: Arc<str> = "shared".into();
    Many {
        flag: true,
        wide: u128::MAX - 1,
        size: 1 << 40,
        less: -2,
        letter: 'ß',
        short: "short".to_owned(),
        exactly: "12345678".to_owned(),
        long: "nine char".to_owned(),
        longer: "x".repeat(300),
        ratio: -0.25,
        moods: vec![
            Mood::Calm,
            Mood::Angry { level: -300, at: vec!["rain".into(), "the long winter".into()] },
            Mood::Asleep(false, 9),
        ],
        names: [("zoe", None), ("adam the first", Some(Box::new(65535))), ("", Some(Box::new(1)))]
            .map(|(k, v)| (k.to_owned(), v))
            .into(),
        odd: [(3, 4), (1, 2)].into(),
        set: [5, -5, 0].into(),
        pair: (8, 1.5),
        rows: [[1, 2], [3, 4], [5, 6]],
        outcome: [Ok(1), Err("no such thing".to_owned())],
        shared: (shared.clone(), shared, [7, 8].into()),
        wait: Duration::new(61, 5),
        host: Ipv4Addr::new(127, 0, 0, 1),
        span: 3..9,
        empty: vec![],
        nothing: (),
        live: 12,
    }
}

#[test]
fn a_reader_written_from_the_document_reads_every_kind_of_value() {
    let dir = TempDir::new("reader");
    let caretaker = open_with::<Many>(&small(), &dir).expect("opened");
    let saved = caretaker.save(&many()).expect("saved");
    let (id, state) = newest(&dir).expect("a snapshot");
    assert_eq!(id, saved.get());
    let x = "x".repeat(300);
    let wanted = format!(
        "Many {{flag: true, wide: 340282366920938463463374607431768211454, size: 1099511627776, \
         less: -2, letter: ß, short: \"short\", exactly: \"12345678\", long: \"nine char\", \
         longer: \"{x}\", ratio: -0.25, moods: [Mood::Calm(0) {{}}, Mood::Angry(1) {{level: -300, \
         at: [\"rain\", \"the long winter\"]}}, Mood::Asleep(2) {{0: false, 1: 9}}], names: {{\"\" \
         => 1, \"adam the first\" => 65535, \"zoe\" => none}}, odd: {{1 => 2, 3 => 4}}, set: [-5, 0, \
         5], pair: tuple {{0: 8, 1: 1.5}}, rows: [[1, 2], [3, 4], [5, 6]], outcome: [ok 1, err \
         \"no such thing\"], shared: tuple {{0: \"shared\", 1: \"shared\", 2: [7, 8]}}, wait: \
         61.000000005 s, host: [127, 0, 0, 1], span: range {{start: 3, end: 9}}, empty: [], \
         nothing: ()}}"
    );
    assert_eq!(state, wanted);
}

#[test]
fn that_reader_finds_the_newest_whole_snapshot() {
    let dir = TempDir::new("newest");
    let caretaker = open_with::<Mood>(&small(), &dir).expect("opened");
    assert_eq!(newest(&dir), None);
    for n in 1..=30 {
        caretaker.save(&Mood::Asleep(true, n)).expect("saved");
        let (id, state) = newest(&dir).expect("a snapshot");
        assert_eq!((id, state), (n, format!("Mood::Asleep(2) {{0: true, 1: {n}}}")));
    }
    let mut live = Mood::Calm;
    let back = caretaker.rollback(&mut live, SnapshotId::new(20)).expect("rolled back");
    let wanted = "Mood::Asleep(2) {0: true, 1: 20}";
    assert_eq!(newest(&dir), Some((back.id().get(), wanted.to_owned())));
    caretaker.save(&Mood::Calm).expect("saved");
    drop(caretaker);
    // Damage to the newest, and then to a whole file.
    let [a, b] = Image::both(&dir);
    let side = if a.slot_of(32).is_some() { &a } else { &b };
    let record = side.fields("record", side.slot_of(32).expect("there"));
    side.write(record.get("root offset") as usize, &[0xff]);
    assert_eq!(newest(&dir).expect("the one before").0, 31);
    a.write(0, &[0; 4096]);
    assert!(newest(&dir).expect("B alone").0 >= 30);
}

// ---- A ring of version 1 ----

/// What the golden ring holds. Never change it: write another one beside it.
#[derive(Snapshot, Debug, PartialEq)]
#[snapshot(version = 3)]
struct Tiny {
    tick: u64,
    name: String,
    scores: HashMap<String, i16>,
    mood: Option<TinyMood>,
}

#[derive(Snapshot, Debug, PartialEq)]
enum TinyMood {
    Calm,
    Angry { level: u8 },
}

fn tiny(n: u64) -> Tiny {
    Tiny {
        tick: n,
        name: format!("tiny {n}, in a few words"),
        scores: (0..3).map(|i| (format!("score {i}"), n as i16 - i)).collect(),
        mood: [None, Some(TinyMood::Calm), Some(TinyMood::Angry { level: n as u8 })]
            [n as usize % 3]
            .take(),
    }
}

/// The same steps as when the golden ring was written.
fn write_tiny(dir: &Path) {
    let options = Options::new().ring(2).file_size(0).durability(snapring::Durability::Process);
    let caretaker: Caretaker<Tiny> = open_with(&options, dir).expect("opened");
    for n in 1..=3 {
        caretaker.save(&tiny(n)).expect("saved");
    }
    caretaker.flush().expect("flushed");
    let mut live = tiny(3);
    assert_eq!(
        caretaker.rollback(&mut live, SnapshotId::new(2)).expect("rolled back").id().get(),
        4
    );
    caretaker.close().expect("closed");
}

const GOLDEN: [(&str, &str); 2] =
    [(A, include_str!("golden/version_1_a.hex")), (B, include_str!("golden/version_1_b.hex"))];

#[test]
fn the_golden_ring_is_still_read() {
    let dir = TempDir::new("golden");
    for (name, text) in GOLDEN {
        fs::write(dir.join(name), undump(text)).expect("written");
        fs::set_permissions(dir.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("a mode");
    }
    let reader = newest(&dir).expect("a snapshot");
    assert_eq!(reader.0, 4);
    assert!(
        reader.1.starts_with("Tiny {tick: 2, name: \"tiny 2, in a few words\""),
        "{}",
        reader.1
    );
    let caretaker: Caretaker<Tiny> = open_with(&small(), &dir).expect("opened");
    let recovery = caretaker.recovery();
    assert!(recovery.rejected.is_empty() && recovery.other_layout.is_empty(), "{recovery}");
    assert_eq!(caretaker.resume().expect("whole"), Some(tiny(2)));
    let kinds: Vec<_> = caretaker.history().iter().map(|e| (e.id().get(), e.kind())).collect();
    assert_eq!(kinds, [(4, Kind::Rollback), (3, Kind::Full)]);
    assert_eq!(
        caretaker.memento(SnapshotId::new(3)).expect("there").thaw().expect("whole"),
        tiny(3)
    );
    assert_eq!(caretaker.history()[0].type_version(), 3);
    assert!(caretaker.save(&tiny(5)).expect("saved").get() > 4);
}

#[test]
fn the_golden_ring_is_still_written_byte_for_byte() {
    let dir = TempDir::new("golden-written");
    write_tiny(&dir);
    for (name, golden) in GOLDEN {
        let written = fs::read(dir.join(name)).expect("written");
        if let Some(to) = std::env::var_os("SNAPRING_WRITE_GOLDEN") {
            let letter = if name == A { "a" } else { "b" };
            let path = Path::new(&to).join(format!("version_1_{letter}.hex"));
            fs::write(path, dump(&written)).expect("written");
            continue;
        }
        let (written, golden) = (dump(&masked(written)), dump(&masked(undump(golden))));
        let first = written.lines().zip(golden.lines()).find(|(w, g)| w != g);
        assert_eq!(first, None, "{name}: the first row that differs, written and golden");
        assert_eq!(written.len(), golden.len(), "{name}");
    }
}

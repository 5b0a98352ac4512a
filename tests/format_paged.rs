//! SNAPSHOT_FORMAT.md tells the truth about pages: a reader written from it alone, and a ring of paged
//! states that every later build must still read and write.

mod common;

use std::{fs, path::Path};

use common::{A, B, Image, TempDir, crc32, dump, field, newest, open_with, small, table, undump};
use snapring::{Caretaker, Kind, Options, PagedMap, PagedVec, Snapshot, SnapshotId};

/// What the golden ring of pages holds. Never change it: write another one beside it.
#[derive(Snapshot, Debug, PartialEq)]
struct Herd {
    tick: u64,
    beasts: PagedVec<Beast>,
    steps: Option<PagedVec<u16>>,
    names: PagedMap<u32, String>,
    none: PagedVec<u8>,
}

#[derive(Snapshot, Debug, PartialEq, Clone)]
struct Beast {
    weight: u32,
    name: String,
    bag: Vec<u8>,
}

fn beast(i: u32, tick: u64) -> Beast {
    let name = format!("beast {i} since {tick}");
    Beast { weight: i * 100, name, bag: (0..i as u8 % 3).collect() }
}

fn herd() -> Herd {
    let mut herd = Herd {
        tick: 1,
        beasts: PagedVec::with_page_len(3),
        steps: Some(PagedVec::with_page_len(8)),
        names: PagedMap::new(),
        none: PagedVec::with_page_len(5),
    };
    herd.beasts.extend((0..10).map(|i| beast(i, 1)));
    herd.steps.as_mut().expect("there").extend(0..20);
    herd.names.extend((0..4).map(|i| (i * 7, format!("name {i}"))));
    herd
}

/// Changes one page of each field.
fn step(herd: &mut Herd) {
    herd.tick += 1;
    let at = herd.tick as u32 % 10;
    herd.beasts[at as usize] = beast(at, herd.tick);
    if let Some(steps) = &mut herd.steps {
        steps[19] += 1;
    }
}

/// The same steps as when the golden ring was written.
fn write_herd(dir: &Path) -> Herd {
    let options = Options::new().ring(6).file_size(0).durability(snapring::Durability::Process);
    let caretaker: Caretaker<Herd> = open_with(&options, dir).expect("opened");
    let mut herd = herd();
    for _ in 1..=5 {
        step(&mut herd);
        caretaker.save(&herd).expect("saved");
    }
    caretaker.flush().expect("flushed");
    _ = caretaker.rollback(&mut herd, SnapshotId::new(4)).expect("rolled back");
    caretaker.close().expect("closed");
    herd
}

/// Every reference to a page of a record, by its position in the file.
fn references(image: &Image, record: &common::Fields) -> Vec<usize> {
    let [at, len, root] =
        ["table offset", "table len", "root offset"].map(|name| record.get(name) as usize);
    let bytes = image.read(at, len);
    let head = table("table of pages").size();
    let fields = field(&bytes, "table of pages", "fields") as usize;
    let arrays = bytes[head..].chunks(table("reference array").size()).take(fields);
    let part = |array: &[u8], name| field(array, "reference array", name) as usize;
    let arrays = arrays.map(|array| (part(array, "refs"), part(array, "pages")));
    let size = table("page reference").size();
    arrays.flat_map(|(refs, pages)| (0..pages).map(move |p| root + refs + p * size)).collect()
}

#[test]
fn the_tables_of_pages_are_as_the_document_says() {
    for (name, size) in [
        ("paged field", 24),
        ("page reference", 32),
        ("table of pages", 16),
        ("reference array", 16),
        ("run", 16),
    ] {
        assert_eq!(table(name).size(), size, "{name}");
    }
    let dir = TempDir::new("pages");
    write_herd(&dir);
    let mut shared = 0;
    for image in Image::both(&dir) {
        let mut seen: Vec<(Vec<u8>, usize, Vec<u8>)> = Vec::new();
        for (_, record) in image.records() {
            let references = references(&image, &record);
            // Four pages of beasts, three of steps, one leaf.
            assert_eq!(references.len(), 8);
            let mut total = 0;
            for here in references {
                let page = image.fields("page reference", here);
                let at = here.wrapping_add_signed(page.get("at") as i64 as isize);
                let bytes = image.read(at, page.get("len") as usize);
                assert!(at.is_multiple_of(64));
                assert_eq!(page.get("crc"), u64::from(crc32(&bytes)));
                total += bytes.len() as u64;
                let stamp = page.bytes("stamp").to_vec();
                for (other, place, content) in &seen {
                    assert_eq!(stamp == *other, at == *place, "a stamp names one page");
                    shared += u32::from(at == *place);
                    assert!(stamp != *other || bytes == *content);
                }
                seen.push((stamp, at, bytes));
            }
            let pages = image.fields("table of pages", record.get("table offset") as usize);
            assert_eq!(pages.get("bytes"), total);
            assert!(record.get("depth") >= 2, "a root, a reference, a text");
        }
    }
    assert!(shared >= 10, "pages are shared: {shared}");
}

#[test]
fn a_reader_written_from_the_document_reads_pages() {
    let dir = TempDir::new("paged-reader");
    let herd = write_herd(&dir);
    let (id, text) = newest(&dir).expect("a snapshot");
    assert_eq!(id, 6);
    let beasts: Vec<String> = herd
        .beasts
        .iter()
        .map(|b| format!("Beast {{weight: {}, name: {:?}, bag: {:?}}}", b.weight, b.name, b.bag))
        .collect();
    let steps = herd.steps.as_ref().expect("there").to_vec();
    let names: Vec<String> = herd.names.iter().map(|(k, v)| format!("{k} => {v:?}")).collect();
    let expected = format!(
        "Herd {{tick: {}, beasts: [{}], steps: {steps:?}, names: {{{}}}, none: []}}",
        herd.tick,
        beasts.join(", "),
        names.join(", ")
    );
    assert_eq!(text, expected);
}

/// Zeroes what differs from ring to ring besides what does in any: the stamps, and the checksums of
/// the archives that hold them.
fn masked(dir: &Path, name: &str) -> Vec<u8> {
    let image = Image::open(dir, name);
    let mut bytes = image.all();
    for (at, record) in image.records() {
        for here in references(&image, &record) {
            let stamp = table("page reference").field("stamp");
            bytes[here + stamp.offset..][..stamp.size].fill(0);
        }
        let crc = table("record").field("root crc");
        bytes[at + crc.offset..][..crc.size].fill(0);
    }
    common::masked(bytes)
}

const GOLDEN: [(&str, &str); 2] =
    [(A, include_str!("golden/paged_1_a.hex")), (B, include_str!("golden/paged_1_b.hex"))];

#[test]
fn the_golden_ring_of_pages_is_still_read() {
    let dir = TempDir::new("golden-pages");
    for (name, text) in GOLDEN {
        fs::write(dir.join(name), undump(text)).expect("written");
        fs::set_permissions(dir.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("a mode");
    }
    let mut then = herd();
    (0..4).for_each(|_| step(&mut then));
    let caretaker: Caretaker<Herd> = open_with(&small(), &dir).expect("opened");
    let recovery = caretaker.recovery();
    assert!(recovery.rejected.is_empty() && recovery.other_layout.is_empty(), "{recovery}");
    let kinds: Vec<_> = caretaker.history().iter().map(|e| (e.id().get(), e.kind())).collect();
    let expected = [
        (6, Kind::Rollback),
        (5, Kind::Incremental),
        (4, Kind::Incremental),
        (3, Kind::Incremental),
        (2, Kind::Full),
        (1, Kind::Full),
    ];
    assert_eq!(kinds, expected);
    let mut live = caretaker.resume().expect("whole").expect("a snapshot");
    assert_eq!(live, then);
    step(&mut then);
    let five = caretaker.memento(SnapshotId::new(5)).expect("there").thaw().expect("whole");
    assert_eq!(five, then);
    step(&mut live);
    assert!(caretaker.save(&live).expect("saved").get() > 6);
    assert_eq!(caretaker.resume().expect("whole"), Some(live));
}

#[test]
fn the_golden_ring_of_pages_is_still_written_byte_for_byte() {
    let dir = TempDir::new("golden-pages-written");
    write_herd(&dir);
    for (name, golden) in GOLDEN {
        if let Some(to) = std::env::var_os("SNAPRING_WRITE_GOLDEN") {
            let letter = if name == A { "a" } else { "b" };
            let written = fs::read(dir.join(name)).expect("written");
            let path = Path::new(&to).join(format!("paged_1_{letter}.hex"));
            fs::write(path, dump(&written)).expect("written");
            continue;
        }
        let beside = TempDir::new("golden-pages-beside");
        fs::write(beside.join(name), undump(golden)).expect("written");
        let (written, golden) = (dump(&masked(&dir, name)), dump(&masked(&beside, name)));
        let first = written.lines().zip(golden.lines()).find(|(w, g)| w != g);
        assert_eq!(first, None, "{name}: the first row that differs, written and golden");
        assert_eq!(written.len(), golden.len(), "{name}");
    }
}

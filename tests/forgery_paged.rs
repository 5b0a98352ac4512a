//! Files forged by somebody who knows how pages are stored and repairs the checksums: tables and
//! references that lead astray, overlap, repeat or contradict each other are refused with a reason, or
//! are what they say; never a crash, a hang or a mixture that nobody wrote.

mod common;

use std::time::{Duration, Instant};

use common::{A, B, Fields, Image, TempDir, field, open_with, small, table};
use snapring::{Caretaker, PagedMap, PagedVec, Reader, Snapshot, SnapshotId};

#[derive(Snapshot, Debug, PartialEq)]
struct Camp {
    tick: u64,
    tents: PagedVec<Tent>,
    marks: PagedVec<u64>,
    names: PagedMap<u32, String>,
}

#[derive(Snapshot, Debug, PartialEq, Clone)]
struct Tent {
    number: u32,
    name: String,
}

fn tent(i: u32, tick: u64) -> Tent {
    Tent { number: i, name: format!("tent {i}, pitched at {tick}") }
}

fn camp() -> Camp {
    let mut camp = Camp {
        tick: 0,
        tents: PagedVec::with_page_len(2),
        marks: PagedVec::with_page_len(8),
        names: PagedMap::new(),
    };
    camp.tents.extend((0..8).map(|i| tent(i, 0)));
    camp.marks.extend(0..21);
    // As two tents, these would have names far beyond the page.
    camp.marks.extend([0xbf << 32, 0x7fff_0000, 0]);
    camp.names.extend((0..200).map(|i| (i, format!("name {i}"))));
    camp
}

fn step(camp: &mut Camp) {
    camp.tick += 1;
    let at = camp.tick as usize % 8;
    camp.tents[at] = tent(at as u32, camp.tick);
    camp.marks[3] = camp.tick;
    camp.names.insert(camp.tick as u32 * 7 % 200, format!("since {}", camp.tick));
}

/// The state of snapshot `n`.
fn camp_of(n: u64) -> Camp {
    let mut camp = camp();
    (0..n).for_each(|_| step(&mut camp));
    camp
}

/// Where in the root each field starts.
const TENTS: usize = 8;
const NAMES: usize = 56;

const LAST: u64 = 6;

/// A closed directory of the camps 1 to 6, to be forged again and again.
struct Ground {
    dir: TempDir,
    files: [Vec<u8>; 2],
    lock: Vec<u8>,
}

impl Ground {
    fn new(name: &str) -> Ground {
        let dir = TempDir::new(name);
        let caretaker: Caretaker<Camp> = open_with(&small().ring(6), &dir).expect("made");
        let mut camp = camp();
        for n in 1..=LAST {
            step(&mut camp);
            assert_eq!(caretaker.save(&camp).expect("saved").get(), n);
        }
        caretaker.close().expect("closed");
        let files = [A, B].map(|name| Image::open(&dir, name).all());
        let lock = std::fs::read(dir.join("writer.lock")).expect("the lock file");
        Ground { dir, files, lock }
    }

    fn heal(&self) {
        for (name, bytes) in [A, B].into_iter().zip(&self.files) {
            std::fs::write(self.dir.join(name), bytes).expect("healed");
            _ = std::fs::remove_file(self.dir.join(format!("{name}.damaged")));
        }
        std::fs::write(self.dir.join("writer.lock"), &self.lock).expect("healed");
    }

    /// The file and the slot page of a snapshot.
    fn at(&self, n: u64) -> (Image, usize) {
        let images = Image::both(&self.dir).into_iter();
        let found = images.filter_map(|image| Some((image.slot_of(n)?, image))).next();
        found.map(|(slot, image)| (image, slot)).expect("it is there")
    }

    /// Changes snapshot `n`, and makes its checksums fit.
    fn forge(&self, n: u64, change: impl FnOnce(&mut Forgery)) {
        let (image, slot) = self.at(n);
        let record = image.fields("record", slot);
        let [root, root_len, table, table_len] =
            ["root offset", "root len", "table offset", "table len"]
                .map(|f| record.get(f) as usize);
        let mut forgery = Forgery {
            archive: image.read(root, root_len),
            table: image.read(table, table_len),
            file: image.all(),
            record,
        };
        change(&mut forgery);
        let Forgery { archive, table: bytes, mut record, .. } = forgery;
        image.write(root, &archive);
        record.set("root crc", u64::from(crc32fast::hash(&archive)));
        if record.get("table offset") as usize == table {
            image.write(table, &bytes);
            if record.get("table len") as usize == table_len {
                record.set("table len", bytes.len() as u64);
            }
            record.set("table crc", u64::from(crc32fast::hash(&bytes)));
        }
        image.forge("record", slot, |r| r.bytes.clone_from(&record.bytes));
    }
}

/// One snapshot's bytes, to be changed.
struct Forgery {
    archive: Vec<u8>,
    table: Vec<u8>,
    record: Fields,
    /// The file as it is.
    file: Vec<u8>,
}

impl Forgery {
    /// Where in the archive a paged field is.
    fn field_at(&self, field: usize) -> usize {
        self.record.get("root pos") as usize + field
    }

    /// Where in the archive the reference to page `p` of a field is.
    fn reference(&self, field: usize, p: usize) -> usize {
        let at = self.field_at(field);
        let to = i32::from_le_bytes(self.archive[at..at + 4].try_into().expect("four"));
        at.wrapping_add_signed(to as isize) + p * table("page reference").size()
    }

    fn get(&self, structure: &str, at: usize, name: &str) -> u64 {
        field(&self.archive[at..], structure, name)
    }

    fn put(&mut self, structure: &str, at: usize, name: &str, value: u64) {
        let f = table(structure).field(name);
        self.archive[at + f.offset..][..f.size].copy_from_slice(&value.to_le_bytes()[..f.size]);
    }

    /// Where in the file the page is to which a reference leads.
    fn page(&self, at: usize) -> usize {
        let here = self.record.get("root offset") as usize + at;
        here.wrapping_add_signed(self.get("page reference", at, "at") as i64 as isize)
    }

    /// Makes a reference lead elsewhere, to bytes whose checksum fits.
    fn lead(&mut self, at: usize, to: usize, len: usize) {
        let here = self.record.get("root offset") as usize + at;
        self.put("page reference", at, "at", (to as i64 - here as i64) as u64);
        self.put("page reference", at, "len", len as u64);
        let crc = self.file.get(to..to + len).map_or(0, crc32fast::hash);
        self.put("page reference", at, "crc", u64::from(crc));
    }

    /// A word of the table of pages.
    fn put_table(&mut self, at: usize, value: u64) {
        self.table[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn table_word(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.table[at..at + 8].try_into().expect("eight"))
    }

    /// Where in the table the first run is.
    fn runs(&self) -> usize {
        16 + 16 * field(&self.table, "table of pages", "fields") as usize
    }
}

/// Opens the directory, as a caretaker and as a reader: `forged` is refused with a reason, the others
/// are what they were, and saving goes on. Answers the reason.
fn is_refused(ground: &Ground, forged: u64, what: &str) -> String {
    let start = Instant::now();
    // SAFETY: nobody writes there meanwhile.
    let reader = unsafe { Reader::<Camp>::open(&ground.dir) }.expect("opened");
    for n in 1..=LAST {
        let found = reader.try_memento(SnapshotId::new(n));
        if n == forged {
            let error = found.map(|memento| memento.thaw()).expect_err(what);
            assert!(!error.to_string().is_empty());
        } else {
            let memento = found.unwrap_or_else(|error| panic!("{what}: {n}: {error}"));
            assert_eq!(memento.thaw().expect("whole"), camp_of(n), "{what}: {n}");
        }
    }
    drop(reader);
    let caretaker: Caretaker<Camp> = open_with(&small().ring(6), &ground.dir).expect(what);
    let mut reason = caretaker.recovery().to_string();
    let newest = if forged == LAST { LAST - 1 } else { LAST };
    assert_eq!(caretaker.head(), Some(SnapshotId::new(newest)), "{what}: {reason}");
    for n in 1..=LAST {
        let found = caretaker.try_memento(SnapshotId::new(n));
        if n == forged {
            let error = found.map(|memento| memento.thaw()).expect_err(what);
            reason = format!("{reason}; {error}");
        } else {
            let memento = found.unwrap_or_else(|error| panic!("{what}: {n}: {error}"));
            assert_eq!(memento.thaw().expect("whole"), camp_of(n), "{what}: {n}");
        }
    }
    let mut camp = caretaker.resume().expect("whole").expect("a snapshot");
    for _ in 0..3 {
        step(&mut camp);
        caretaker.save(&camp).expect("saving goes on");
        assert_eq!(caretaker.resume().expect("whole").as_ref(), Some(&camp), "{what}");
    }
    assert!(reason.contains("snapshot_") && reason.contains("place"), "{what}: {reason}");
    assert!(start.elapsed() < Duration::from_secs(10), "{what} took {:?}", start.elapsed());
    reason
}

type Change = fn(&mut Forgery);

fn all_are_refused(name: &str, changes: &[(&str, Change)]) {
    let ground = Ground::new(name);
    for (what, change) in changes {
        for forged in [LAST, 3] {
            ground.forge(forged, change);
            is_refused(&ground, forged, &format!("{what}, of {forged}"));
            ground.heal();
        }
    }
}

#[test]
fn forged_tables_of_pages_are_refused() {
    let changes: &[(&str, Change)] = &[
        ("no table", |f| {
            f.record.set("table offset", 0);
            f.record.set("table len", 0);
        }),
        ("an empty table", |f| f.record.set("table len", 0)),
        ("the longest table", |f| f.record.set("table len", u64::MAX)),
        ("a table beyond any", |f| f.record.set("table len", 1 << 25)),
        ("a table before the data area", |f| f.record.set("table offset", 64)),
        ("a table beyond the file", |f| f.record.set("table offset", 1 << 40)),
        ("a table at the end of numbers", |f| f.record.set("table offset", u64::MAX - 63)),
        ("a table off its place", |f| {
            f.record.set("table offset", f.record.get("table offset") + 8)
        }),
        ("a table cut short", |f| f.table.truncate(40)),
        ("a table without a head", |f| f.table.truncate(12)),
        ("fields without number", |f| f.table[..4].fill(0xff)),
        ("runs without number", |f| f.table[4..8].fill(0xff)),
        ("a run less", |f| f.put_table(0, f.table_word(0) - (1 << 32))),
        ("no run", |f| {
            f.put_table(0, f.table_word(0) & 0xffff_ffff);
            f.table.truncate(f.runs());
        }),
        ("references beyond the archive", |f| f.put_table(16, 1 << 40)),
        ("references that overflow", |f| f.put_table(24, u64::MAX / 32 + 1)),
        ("pages without number", |f| f.put_table(24, u64::MAX)),
        ("arrays over each other", |f| f.put_table(32, f.table_word(16))),
        ("a run in the header", |f| f.put_table(f.runs(), 0)),
        ("a run off its block", |f| f.put_table(f.runs(), f.table_word(f.runs()) + 64)),
        ("a run beyond the file", |f| f.put_table(f.runs(), 1 << 40)),
        ("a run at the end of numbers", |f| f.put_table(f.runs(), !4095)),
        ("a run of no block", |f| f.put_table(f.runs() + 8, 0)),
        ("a run of half a block", |f| f.put_table(f.runs() + 8, 2048)),
        ("a run beyond all", |f| f.put_table(f.runs() + 8, !4095)),
        ("a run over the archive", |f| f.put_table(f.runs(), f.record.get("root offset"))),
        ("the depth of the archive alone", |f| f.record.set("depth", 1)),
    ];
    all_are_refused("tables", changes);
}

#[test]
fn forged_references_to_pages_are_refused() {
    let changes: &[(&str, Change)] = &[
        ("a page in the header", |f| f.lead(f.reference(TENTS, 1), 0, 64)),
        ("a page in a slot page", |f| f.lead(f.reference(TENTS, 1), 4096, 64)),
        ("a page in the archive", |f| {
            f.lead(f.reference(TENTS, 1), f.record.get("root offset") as usize, 64);
        }),
        ("a page beyond the file", |f| f.lead(f.reference(TENTS, 1), 1 << 40, 64)),
        ("a page off its place", |f| {
            let at = f.reference(TENTS, 1);
            f.lead(at, f.page(at) + 8, 64);
        }),
        ("a page before all", |f| {
            f.put("page reference", f.reference(TENTS, 1), "at", i64::MIN as u64);
        }),
        ("a page after all", |f| {
            f.put("page reference", f.reference(TENTS, 1), "at", i64::MAX as u64);
        }),
        ("a page without end", |f| {
            f.put("page reference", f.reference(TENTS, 1), "len", u64::from(u32::MAX));
        }),
        ("a page of no bytes", |f| {
            let at = f.reference(TENTS, 1);
            f.lead(at, f.page(at), 0);
        }),
        ("a page too short for its items", |f| {
            let at = f.reference(TENTS, 1);
            f.lead(at, f.page(at), 8);
        }),
        ("a page whose items are off their place", |f| {
            let at = f.reference(TENTS, 1);
            let len = f.get("page reference", at, "len") as usize;
            f.lead(at, f.page(at), len - 1);
        }),
        ("another checksum", |f| {
            let at = f.reference(TENTS, 1);
            let crc = f.get("page reference", at, "crc");
            f.put("page reference", at, "crc", crc ^ 1);
        }),
        ("a page of another field", |f| {
            // Numbers, where texts should be.
            let (at, from) = (f.reference(TENTS, 1), f.reference(32, 2));
            let len = f.get("page reference", from, "len") as usize;
            f.lead(at, f.page(from), len);
        }),
        ("pages of no items", |f| f.put("paged field", f.field_at(TENTS), "page len", 0)),
        ("the longest pages", |f| {
            f.put("paged field", f.field_at(TENTS), "page len", u64::from(u32::MAX));
        }),
        ("a page less", |f| f.put("paged field", f.field_at(TENTS), "pages", 3)),
        ("pages without number", |f| {
            f.put("paged field", f.field_at(TENTS), "pages", u64::from(u32::MAX));
            f.put("paged field", f.field_at(TENTS), "len", 2 * u64::from(u32::MAX));
        }),
        ("items without number", |f| f.put("paged field", f.field_at(TENTS), "len", u64::MAX)),
        ("an item more", |f| f.put("paged field", f.field_at(TENTS), "len", 9)),
        ("what is reserved", |f| f.put("paged field", f.field_at(TENTS), "reserved", 1)),
        ("references outside of the archive", |f| {
            f.put("paged field", f.field_at(TENTS), "refs", i32::MIN as u32 as u64);
        }),
        ("references off their place", |f| {
            let at = f.field_at(TENTS);
            let refs = f.get("paged field", at, "refs");
            f.put("paged field", at, "refs", refs - 4);
        }),
        ("a map with an entry more", |f| {
            let at = f.field_at(NAMES) + 32;
            f.archive[at] += 1;
        }),
        ("a map whose pages hold two leaves", |f| {
            f.put("paged field", f.field_at(NAMES), "page len", 2);
        }),
        ("a map in an order of pages that are not there", |f| {
            let at = f.field_at(NAMES) + 24;
            let to = i32::from_le_bytes(f.archive[at..at + 4].try_into().expect("four"));
            f.archive[at.wrapping_add_signed(to as isize)..][..4].fill(0xff);
        }),
    ];
    all_are_refused("references", changes);
}

#[test]
fn a_page_that_passed_as_something_else_is_looked_at_again() {
    let ground = Ground::new("as-numbers");
    // All snapshots of the side share that page, and in the newer ones it is what it should be.
    for forged in [LAST - 2, LAST - 4] {
        ground.forge(forged, |f| {
            let (at, from) = (f.reference(TENTS, 1), f.reference(32, 2));
            let len = f.get("page reference", from, "len") as usize;
            f.lead(at, f.page(from), len);
            let name = f.archive[from + 16..from + 32].to_vec();
            f.archive[at + 16..at + 32].copy_from_slice(&name);
        });
        is_refused(&ground, forged, &format!("numbers as tents, of {forged}"));
        ground.heal();
    }
}

#[test]
fn a_page_that_is_torn_costs_those_that_share_it() {
    let ground = Ground::new("torn");
    let (image, slot) = ground.at(LAST);
    let record = image.fields("record", slot);
    let mut page = 0;
    // The fourth page of marks: nobody changes it, so that all of this side share it.
    ground.forge(LAST, |f| page = f.page(f.reference(32, 2)));
    assert!(record.get("table len") > 0);
    let mut bytes = image.read(page, 8);
    bytes[0] ^= 1;
    image.write(page, &bytes);
    let caretaker: Caretaker<Camp> = open_with(&small().ring(6), &ground.dir).expect("opened");
    for n in 1..=LAST {
        let found = caretaker.try_memento(SnapshotId::new(n));
        // The first of a side wrote it, the others share it.
        let shares = n % 2 == LAST % 2;
        assert_eq!(found.is_err(), shares, "{n}: {found:?}");
        if let Ok(memento) = found {
            assert_eq!(memento.thaw().expect("whole"), camp_of(n));
        }
    }
    // What is damaged is not shared again.
    let mut camp = caretaker.resume().expect("whole").expect("one of the other side");
    for _ in 0..4 {
        step(&mut camp);
        caretaker.save(&camp).expect("saved");
        assert_eq!(caretaker.resume().expect("whole").as_ref(), Some(&camp));
    }
}

#[test]
fn pages_over_pages_are_not_looked_at_for_ever() {
    // One page of sixteen MiB, and a thousand references to its end: each with a start of its own.
    #[derive(Snapshot, Debug, PartialEq)]
    struct Wide {
        pages: PagedVec<[u64; 8]>,
    }
    let dir = TempDir::new("wide");
    let options = small().max_file_size(64 << 20);
    let mut wide = Wide { pages: PagedVec::with_page_len(64) };
    wide.pages.extend((0..64_u64 * 200).map(|i| [i; 8]));
    let caretaker: Caretaker<Wide> = open_with(&options, &dir).expect("made");
    caretaker.save(&wide).expect("saved");
    caretaker.close().expect("closed");
    let image = Image::both(&dir).into_iter().find(|i| i.slot_of(1).is_some()).expect("one");
    let slot = image.slot_of(1).expect("there");
    let ground = image.fields("record", slot);
    let (root, len) = (ground.get("root offset") as usize, ground.get("root len") as usize);
    let mut archive = image.read(root, len);
    let file = image.all();
    let at = ground.get("root pos") as usize;
    let to = i32::from_le_bytes(archive[at..at + 4].try_into().expect("four"));
    let first = at.wrapping_add_signed(to as isize);
    let reference = |archive: &[u8], p: usize| {
        let here = first + p * 32;
        let to = i64::from_le_bytes(archive[here..here + 8].try_into().expect("eight"));
        (root + here).wrapping_add_signed(to as isize)
    };
    // To the end of the run that starts with the first page.
    let start = reference(&archive, 0);
    let mut end = start;
    for p in 0..200 {
        if reference(&archive, p) == end {
            end += 4096;
        }
    }
    assert!(end - start >= 1 << 18, "they lie side by side");
    for p in 0..200 {
        let here = first + p * 32;
        let from = start + 64 * p;
        let bytes = &file[from..end];
        archive[here..here + 8]
            .copy_from_slice(&(from as i64 - (root + here) as i64).to_le_bytes());
        archive[here + 8..here + 12].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        archive[here + 12..here + 16].copy_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    }
    image.write(root, &archive);
    image.forge("record", slot, |r| r.set("root crc", u64::from(crc32fast::hash(&archive))));
    let start = Instant::now();
    let caretaker: Caretaker<Wide> = open_with(&options, &dir).expect("opened");
    let took = start.elapsed();
    assert_eq!(caretaker.head(), None);
    let reason = caretaker.recovery().rejected[0].to_string();
    assert!(reason.contains("overlaps other pages"), "{reason}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_page_of_another_generation_is_what_the_archive_says_or_refused() {
    let ground = Ground::new("generation");
    // The first page of marks as it was two snapshots ago, under its own name and checksum; that run
    // the newest shares or not.
    let mut older = Vec::new();
    let mut from = 0;
    ground.forge(LAST - 2, |f| {
        let at = f.reference(32, 0);
        from = f.page(at);
        older = f.archive[at..at + 32].to_vec();
    });
    ground.heal();
    ground.forge(LAST, |f| {
        let at = f.reference(32, 0);
        let len = f.get("page reference", at, "len") as usize;
        f.lead(at, from, len);
        f.archive[at + 16..at + 32].copy_from_slice(&older[16..]);
    });
    let caretaker: Caretaker<Camp> = open_with(&small().ring(6), &ground.dir).expect("opened");
    let mut forged = camp_of(LAST);
    for i in 0..8 {
        forged.marks[i] = camp_of(LAST - 2).marks[i];
    }
    let mut camp = match caretaker.memento(SnapshotId::new(LAST)) {
        Some(memento) => {
            assert_eq!(memento.thaw().expect("whole"), forged);
            forged
        }
        None => camp_of(LAST - 1),
    };
    assert_eq!(caretaker.resume().expect("whole").as_ref(), Some(&camp));
    let mut kept = Vec::new();
    for _ in 0..5 {
        step(&mut camp);
        let id = caretaker.save(&camp).expect("saved");
        kept.push((id, caretaker.memento(id).expect("listed").thaw().expect("whole")));
        assert_eq!(kept.last().map(|(_, camp)| camp), Some(&camp));
    }
}

#[test]
fn two_pages_under_one_name_do_not_become_one() {
    for (of, what) in [(0, "the names of all pages"), (1, "the names of two pages")] {
        let ground = Ground::new("twins");
        for n in 1..=LAST {
            ground.forge(n, |f| {
                let name: Vec<u8> = f.archive[f.reference(TENTS, 0) + 16..][..16].to_vec();
                let pages = if of == 0 { 4 } else { 2 };
                for p in 0..pages {
                    let at = f.reference(TENTS, p);
                    f.archive[at + 16..at + 32].copy_from_slice(&name);
                }
            });
        }
        let caretaker: Caretaker<Camp> = open_with(&small().ring(6), &ground.dir).expect("opened");
        let mut camp = caretaker.resume().expect("whole").expect("a snapshot");
        assert_eq!(camp, camp_of(LAST), "{what}");
        let mut ids = Vec::new();
        for i in 0..8 {
            step(&mut camp);
            ids.push(caretaker.save(&camp).expect("saved"));
            assert_eq!(caretaker.resume().expect("whole").as_ref(), Some(&camp), "{what}: {i}");
            let to = if i % 2 == 0 { SnapshotId::new(LAST) } else { ids[i - 1] };
            let Some(memento) = caretaker.memento(to) else { continue };
            let then = memento.thaw().expect("whole");
            _ = caretaker.rollback(&mut camp, to).expect("rolled back");
            assert_eq!(camp, then, "{what}: back to {to}");
            let again = caretaker.latest().expect("listed").thaw().expect("whole");
            assert_eq!(again, then, "{what}: {to} again");
        }
    }
}

#[test]
fn a_map_whose_order_repeats_a_page_is_refused_or_a_map() {
    let ground = Ground::new("order");
    ground.forge(LAST, |f| {
        // The second leaf twice, the first not at all; and as many entries as that is.
        let at = f.field_at(NAMES) + 24;
        let to = i32::from_le_bytes(f.archive[at..at + 4].try_into().expect("four"));
        let order = at.wrapping_add_signed(to as isize);
        let used = u32::from_le_bytes(f.archive[at + 4..at + 8].try_into().expect("four"));
        assert!(used > 1, "several leaves");
        let second: [u8; 4] = f.archive[order + 4..order + 8].try_into().expect("four");
        f.archive[order..order + 4].copy_from_slice(&second);
        let count = |number: u32| {
            let reference = f.reference(NAMES, number as usize);
            let end = f.page(reference) + f.get("page reference", reference, "len") as usize;
            u64::from(u32::from_le_bytes(f.file[end - 4..end].try_into().expect("four")))
        };
        let numbers = f.archive[order..order + 4 * used as usize].chunks(4);
        let entries: u64 =
            numbers.map(|n| count(u32::from_le_bytes(n.try_into().expect("four")))).sum();
        let len = f.field_at(NAMES) + 32;
        f.archive[len..len + 8].copy_from_slice(&entries.to_le_bytes());
    });
    let caretaker: Caretaker<Camp> = open_with(&small().ring(6), &ground.dir).expect("opened");
    if let Some(memento) = caretaker.memento(SnapshotId::new(LAST)) {
        let found = memento.names.iter().count();
        assert_eq!(found, memento.names.len());
        _ = memento.names.get(&5_u32);
    }
    let mut camp = caretaker.resume().expect("whole").expect("a snapshot");
    for key in 0..200 {
        assert_eq!(camp.names.get(&key).is_some(), camp.names.keys().any(|k| *k == key));
        camp.names.insert(key, format!("again {key}"));
        assert_eq!(camp.names.get(&key), Some(&format!("again {key}")));
    }
    assert_eq!(camp.names.len(), 200);
    caretaker.save(&camp).expect("saved");
    assert_eq!(caretaker.resume().expect("whole"), Some(camp));
}

#[test]
fn a_vector_that_is_there_at_every_depth_is_written_and_looked_at_once() {
    #[derive(Snapshot, Debug, PartialEq)]
    struct Node {
        items: PagedVec<Tent>,
        next: Option<Box<Node>>,
    }
    let dir = TempDir::new("nested");
    let items: PagedVec<Tent> = (0..3000).map(|i| tent(i, 1)).collect();
    let node = |next, _| Node { items: items.clone(), next: Some(Box::new(next)) };
    let mut state = (0..30).fold(Node { items: items.clone(), next: None }, node);
    let caretaker: Caretaker<Node> = open_with(&small(), &dir).expect("made");
    for n in 0..4 {
        state.items[7] = tent(7, n);
        caretaker.save(&state).expect("saved");
    }
    let bytes = caretaker.history()[0].written_bytes();
    caretaker.close().expect("closed");
    assert!(bytes < 200_000, "{bytes}");
    let caretaker: Caretaker<Node> = open_with(&small(), &dir).expect("opened");
    assert_eq!(caretaker.recovery().chosen, Some(SnapshotId::new(4)), "{}", caretaker.recovery());
    assert_eq!(caretaker.history().len(), 4);
    for entry in caretaker.history() {
        _ = caretaker.try_memento(entry.id()).expect("whole");
    }
    assert_eq!(caretaker.resume().expect("whole"), Some(state));
}

#[test]
fn a_snapshot_is_as_deep_as_the_pages_that_it_shares() {
    #[derive(Snapshot, Debug, PartialEq)]
    struct State {
        tick: u64,
        chains: PagedVec<Chain>,
    }
    #[derive(Snapshot, Debug, PartialEq, Clone)]
    struct Chain {
        next: Option<Box<Chain>>,
    }
    let chain =
        |links| (0..links).fold(Chain { next: None }, |c, _| Chain { next: Some(Box::new(c)) });
    let dir = TempDir::new("shared-depth");
    let mut chains = PagedVec::with_page_len(1);
    chains.extend((0..40).map(|i| chain(if i == 20 { 50 } else { 0 })));
    let mut state = State { tick: 0, chains };
    let caretaker: Caretaker<State> = open_with(&small(), &dir).expect("made");
    for n in 1..=5 {
        // Never the deep one.
        state.tick = n;
        state.chains[n as usize] = chain(1);
        caretaker.save(&state).expect("saved");
    }
    assert_eq!(caretaker.history()[0].kind(), snapring::Kind::Incremental);
    caretaker.close().expect("closed");
    let caretaker: Caretaker<State> = open_with(&small(), &dir).expect("opened");
    assert!(caretaker.recovery().rejected.is_empty(), "{}", caretaker.recovery());
    assert_eq!(caretaker.resume().expect("whole"), Some(state));
    for entry in caretaker.history() {
        _ = caretaker.try_memento(entry.id()).expect("whole");
    }
}

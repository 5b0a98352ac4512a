//! A reader written from SNAPSHOT_FORMAT.md alone: it finds the newest whole snapshot of a directory,
//! compares its checksums, and shows the state by the layout text beside it.

use std::{fmt::Write as _, fs, ops::Range, path::Path};

use super::{
    document::table,
    image::{A, B},
};

/// The checksum as the document defines it, bit by bit.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = 0xffff_ffff_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    crc ^ 0xffff_ffff
}

/// A structure's field as a number.
pub(crate) fn field(bytes: &[u8], of: &str, name: &str) -> u64 {
    let f = table(of).field(name);
    let mut word = [0; 8];
    word[..f.size].copy_from_slice(&bytes[f.offset..f.offset + f.size]);
    u64::from_le_bytes(word)
}

fn bytes_of<'a>(bytes: &'a [u8], of: &str, name: &str) -> &'a [u8] {
    let f = table(of).field(name);
    &bytes[f.offset..f.offset + f.size]
}

fn sealed(bytes: &[u8], of: &str) -> bool {
    let end = table(of).field("seal").offset;
    let seal = field(bytes, of, "seal");
    seal == u64::from(crc32(&bytes[..end]).max(1))
}

/// One file, read whole.
struct File {
    bytes: Vec<u8>,
    header: Vec<u8>,
}

impl File {
    fn read(dir: &Path, name: &str) -> Option<File> {
        let bytes = fs::read(dir.join(name)).ok()?;
        let page = table("header page");
        let copies = ["header", "header copy"].map(|copy| page.field(copy).offset);
        let header = copies.into_iter().find_map(|at| {
            let header = bytes.get(at..at + table("header").size())?;
            let fits = bytes_of(header, "header", "magic") == b"SNAPRING"
                && sealed(header, "header")
                && field(header, "header", "format") == 1
                && ["endian", "pointer", "aligned", "rkyv"].map(|f| field(header, "header", f))
                    == [1, 4, 1, 8];
            fits.then(|| header.to_vec())
        })?;
        Some(File { bytes, header })
    }

    /// Records that are this file's own.
    fn records(&self, side: u64) -> Vec<&[u8]> {
        let slots = field(&self.header, "header", "slots");
        let records = (0..slots).map(|index| {
            let at = 4096 * (1 + index as usize);
            (index, &self.bytes[at..at + table("record").size()])
        });
        let own = records.filter(|(index, r)| {
            field(r, "record", "seal") != 0
                && sealed(r, "record")
                && bytes_of(r, "record", "file id") == bytes_of(&self.header, "header", "file id")
                && field(r, "record", "side") == side
                && field(r, "record", "index") == *index
                && (1..=3).contains(&field(r, "record", "kind"))
                && (1..1 << 52).contains(&field(r, "record", "id"))
        });
        own.map(|(_, r)| r).collect()
    }

    /// An extent's bytes, if they lie in the data area and their checksum fits.
    fn extent(&self, record: &[u8], name: &str) -> Option<&[u8]> {
        let part = |p: &str| field(record, "record", &format!("{name} {p}")) as usize;
        let (at, len) = (part("offset"), part("len"));
        let start = 4096 * (1 + field(&self.header, "header", "slots") as usize);
        let bytes = self.bytes.get(at..at.checked_add(len)?)?;
        (at >= start && at % 4096 == 0 && crc32(bytes) == part("crc") as u32).then_some(bytes)
    }

    /// The runs of a record's pages; `None` where its table does not fit.
    fn runs(&self, record: &[u8]) -> Option<Vec<Range<usize>>> {
        let part = |p: &str| field(record, "record", &format!("table {p}")) as usize;
        let (at, len) = (part("offset"), part("len"));
        if len == 0 {
            return Some(Vec::new());
        }
        let bytes = self.bytes.get(at..at.checked_add(len)?)?;
        let head = table("table of pages").size();
        let [fields, runs] =
            ["fields", "runs"].map(|name| field(bytes, "table of pages", name) as usize);
        let arrays = table("reference array").size() * fields;
        let fits = len == head + arrays + table("run").size() * runs
            && at.is_multiple_of(64)
            && crc32(bytes) == part("crc") as u32;
        let archive = field(record, "record", "root len");
        let mut from = 0;
        for array in bytes[head..head + arrays].chunks(16) {
            let [refs, pages] = ["refs", "pages"].map(|n| field(array, "reference array", n));
            assert!(refs >= from, "arrays follow each other");
            from = refs + pages * table("page reference").size() as u64;
        }
        assert!(from <= archive, "arrays lie in the archive");
        let runs = bytes[head + arrays..].chunks(16).map(|run| {
            let [offset, len] = ["offset", "len"].map(|n| field(run, "run", n) as usize);
            offset..offset + len
        });
        let runs: Vec<_> = runs.collect();
        assert!(runs.is_sorted_by(|a, b| a.end <= b.start), "runs follow each other");
        assert!(runs.iter().all(|run| run.start % 4096 == 0 && run.len() % 4096 == 0));
        let inside = runs.iter().any(|run| run.start <= at && at + len <= run.end);
        (fits && inside).then_some(runs)
    }
}

/// The newest whole snapshot of a directory, in words: its id and its state.
pub(crate) fn newest(dir: &Path) -> Option<(u64, String)> {
    let files = [A, B].map(|name| File::read(dir, name));
    let mut found = Vec::new();
    for (side, file) in files.iter().enumerate() {
        let Some(file) = file else { continue };
        found.extend(file.records(side as u64).into_iter().map(|r| (file, r)));
    }
    found.sort_by_key(|(_, r)| std::cmp::Reverse(field(r, "record", "id")));
    found.into_iter().find_map(|(file, record)| {
        let archive = file.extent(record, "root")?;
        let text = std::str::from_utf8(file.extent(record, "schema")?).ok()?;
        let fingerprint = xxhash_rust::xxh3::xxh3_128(text.as_bytes()).to_le_bytes();
        assert_eq!(bytes_of(record, "record", "layout"), fingerprint);
        let mut layout = Layout::parse(text)?;
        layout.runs = file.runs(record)?;
        let root = field(record, "record", "root pos") as usize;
        assert_eq!(root + layout.nodes[0].size, archive.len(), "the root ends the archive");
        let mut out = String::new();
        // Positions count from the start of the file: all offsets are the same there.
        let at = field(record, "record", "root offset") as usize + root;
        layout.show(&file.bytes, 0, at, &mut out);
        Some((field(record, "record", "id"), out))
    })
}

struct Part {
    name: String,
    offset: usize,
    node: usize,
}

struct Node {
    kind: String,
    name: String,
    size: usize,
    align: usize,
    parts: Vec<Part>,
}

struct Layout {
    nodes: Vec<Node>,
    /// Where pages may be.
    runs: Vec<Range<usize>>,
}

impl Layout {
    fn parse(text: &str) -> Option<Layout> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != "rkyv 0.8 little-endian aligned pointer-32" {
            return None;
        }
        let nodes = lines.enumerate().map(|(number, line)| {
            let mut words = line.split(' ');
            assert_eq!(words.next()?, format!("#{number}"));
            let (kind, name) = (words.next()?.to_owned(), words.next()?.to_owned());
            let (size, align) = words.next()?.split_once('/')?;
            let parts = words.map(|word| {
                let (left, node) = word.rsplit_once("=#")?;
                let (name, offset) = left.split_once('@').unwrap_or((left, "0"));
                let (offset, node) = (offset.parse().ok()?, node.parse().ok()?);
                Some(Part { name: name.to_owned(), offset, node })
            });
            let parts = parts.collect::<Option<_>>()?;
            Some(Node { kind, name, size: size.parse().ok()?, align: align.parse().ok()?, parts })
        });
        Some(Layout { nodes: nodes.collect::<Option<_>>()?, runs: Vec::new() })
    }

    /// Several parts, with commas.
    fn row(&self, archive: &[u8], parts: &[Part], at: usize, out: &mut String) {
        for (i, part) in parts.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            _ = write!(out, "{comma}{}: ", part.name);
            self.show(archive, part.node, at + part.offset, out);
        }
    }

    /// `count` items, each shown by `item` at its position.
    fn run(
        &self,
        archive: &[u8],
        at: usize,
        stride: usize,
        out: &mut String,
        item: impl Fn(usize, &mut String),
    ) {
        let (start, count) = (follow(archive, at), number(archive, at + 4, 4) as usize);
        for i in 0..count {
            out.push_str(if i > 0 { ", " } else { "" });
            item(start + i * stride, out);
        }
    }

    /// Where in an entry its value is, and from one entry to the next.
    fn entry(&self, [key, value]: [usize; 2]) -> (usize, usize) {
        let [key, value] = [key, value].map(|node| &self.nodes[node]);
        let value_at = key.size.next_multiple_of(value.align);
        (value_at, (value_at + value.size).next_multiple_of(key.align.max(value.align)))
    }

    /// Where each item of a paged field is, at `at`, of `size` bytes each.
    fn paged(&self, file: &[u8], at: usize, size: usize) -> Vec<usize> {
        let part = |name| field(&file[at..], "paged field", name) as usize;
        let (pages, page_len, len) = (part("pages"), part("page len"), part("len"));
        assert_eq!(pages, len.div_ceil(page_len));
        let reference = table("page reference").size();
        let refs = follow(file, at);
        let mut items = Vec::new();
        for page in 0..pages {
            let here = refs + page * reference;
            let part = |name| field(&file[here..], "page reference", name);
            let start = here.wrapping_add_signed(part("at") as i64 as isize);
            let end = start + part("len") as usize;
            assert!(start.is_multiple_of(64) && part("crc") == u64::from(crc32(&file[start..end])));
            assert!(self.runs.iter().any(|run| run.start <= start && end <= run.end));
            let count = page_len.min(len - page * page_len);
            items.extend((0..count).map(|i| end - (count - i) * size));
        }
        items
    }

    /// The value of node `n` at `at`, in words.
    fn show(&self, archive: &[u8], n: usize, at: usize, out: &mut String) {
        let node = &self.nodes[n];
        assert_eq!(at % node.align, 0, "{} is not aligned", node.kind);
        let inner = |i: usize| node.parts[i].node;
        let size_of = |i: usize| self.nodes[inner(i)].size;
        match node.kind.as_str() {
            "()" | "phantom" => out.push_str("()"),
            "bool" => out.push_str(if archive[at] == 1 { "true" } else { "false" }),
            "char" => out.push(char::from_u32(number(archive, at, 4) as u32).expect("a char")),
            "f32" => _ = write!(out, "{}", f32::from_bits(number(archive, at, 4) as u32)),
            "f64" => _ = write!(out, "{}", f64::from_bits(number(archive, at, 8) as u64)),
            unsigned if unsigned.starts_with('u') => {
                _ = write!(out, "{}", number(archive, at, node.size));
            }
            signed if signed.starts_with('i') && signed[1..].parse::<u32>().is_ok() => {
                let bits = 128 - 8 * node.size as u32;
                _ = write!(out, "{}", (number(archive, at, node.size) << bits) as i128 >> bits);
            }
            "string" => _ = write!(out, "{:?}", text(archive, at)),
            "rc-str" | "arc-str" => {
                let (start, len) = (follow(archive, at), number(archive, at + 4, 4) as usize);
                let text = std::str::from_utf8(&archive[start..start + len]);
                _ = write!(out, "{:?}", text.expect("UTF-8"));
            }
            "vec" | "set" | "items" | "rc-slice" | "arc-slice" => {
                out.push('[');
                self.run(archive, at, size_of(0), out, |at, out| {
                    self.show(archive, inner(0), at, out);
                });
                out.push(']');
            }
            "pagedvec" => {
                out.push('[');
                for (i, at) in self.paged(archive, at, size_of(0)).into_iter().enumerate() {
                    out.push_str(if i > 0 { ", " } else { "" });
                    self.show(archive, inner(0), at, out);
                }
                out.push(']');
            }
            "pagedmap" => {
                let (value_at, stride) = self.entry([inner(0), inner(1)]);
                // A leaf is as a map is, of eight bytes.
                let leaves = self.paged(archive, at, 8);
                out.push('{');
                self.run(archive, at + table("paged field").size(), 4, out, |order, out| {
                    let leaf = leaves[number(archive, order, 4) as usize];
                    self.run(archive, leaf, stride, out, |at, out| {
                        self.show(archive, inner(0), at, out);
                        out.push_str(" => ");
                        self.show(archive, inner(1), at + value_at, out);
                    });
                });
                out.push('}');
            }
            "map" | "entries" => {
                let (value_at, stride) = self.entry([inner(0), inner(1)]);
                out.push('{');
                self.run(archive, at, stride, out, |at, out| {
                    self.show(archive, inner(0), at, out);
                    out.push_str(" => ");
                    self.show(archive, inner(1), at + value_at, out);
                });
                out.push('}');
            }
            array if array.starts_with("array[") => {
                out.push('[');
                for i in 0..node.size / size_of(0) {
                    out.push_str(if i > 0 { ", " } else { "" });
                    self.show(archive, inner(0), at + i * size_of(0), out);
                }
                out.push(']');
            }
            "option" => match archive[at] {
                0 => out.push_str("none"),
                _ => self.show(archive, inner(0), at + node.parts[0].offset, out),
            },
            "result" => {
                let part = &node.parts[usize::from(archive[at])];
                _ = write!(out, "{} ", part.name);
                self.show(archive, part.node, at + part.offset, out);
            }
            "box" | "rc" | "arc" => self.show(archive, inner(0), follow(archive, at), out),
            "wrapping" | "reverse" | "cell" => self.show(archive, inner(0), at, out),
            "duration" => {
                _ = write!(out, "{}.{:09} s", number(archive, at, 8), number(archive, at + 8, 4));
            }
            "ipv4" => _ = write!(out, "{:?}", &archive[at..at + 4]),
            "enum" => {
                let variant = &node.parts[usize::from(archive[at])];
                _ = write!(out, "{}::{} {{", node.name, variant.name);
                self.row(archive, &self.nodes[variant.node].parts, at, out);
                out.push('}');
            }
            _ => {
                let name = if node.name == "-" { &node.kind } else { &node.name };
                _ = write!(out, "{name} {{");
                self.row(archive, &node.parts, at, out);
                out.push('}');
            }
        }
    }
}

fn number(archive: &[u8], at: usize, size: usize) -> u128 {
    archive[at..at + size].iter().rev().fold(0, |n, byte| n << 8 | u128::from(*byte))
}

/// Where a relative pointer leads.
fn follow(archive: &[u8], at: usize) -> usize {
    at.wrapping_add_signed(number(archive, at, 4) as u32 as i32 as isize)
}

fn text(archive: &[u8], at: usize) -> &str {
    let bytes = if archive[at] & 0xc0 == 0x80 {
        let word = number(archive, at, 4) as usize;
        let len = word & 0x3f | word >> 8 << 6;
        let start = at.wrapping_add_signed(number(archive, at + 4, 4) as u32 as i32 as isize);
        &archive[start..start + len]
    } else {
        let end = archive[at..at + 8].iter().position(|b| *b == 0xff).unwrap_or(8);
        &archive[at..at + end]
    };
    std::str::from_utf8(bytes).expect("UTF-8")
}

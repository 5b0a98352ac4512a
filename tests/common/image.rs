//! One of the two files, edited field by field while nobody has it open.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::document::{Table, table};

pub(crate) const A: &str = "snapshot_a.bin";
pub(crate) const B: &str = "snapshot_b.bin";
const PAGE: usize = 4096;

/// The seal of these bytes: their CRC-32, where zero is one.
pub(crate) fn seal(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes).max(1)
}

/// The bytes of one structure, by the names of its table.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    table: &'static Table,
    pub(crate) bytes: Vec<u8>,
}

impl Fields {
    pub(crate) fn get(&self, name: &str) -> u64 {
        let f = self.table.field(name);
        let mut word = [0; 8];
        word[..f.size].copy_from_slice(&self.bytes[f.offset..f.offset + f.size]);
        u64::from_le_bytes(word)
    }

    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        let f = self.table.field(name);
        &self.bytes[f.offset..f.offset + f.size]
    }

    pub(crate) fn set(&mut self, name: &str, value: u64) {
        let size = self.table.field(name).size;
        self.set_bytes(name, &value.to_le_bytes()[..size]);
    }

    pub(crate) fn set_bytes(&mut self, name: &str, value: &[u8]) {
        let f = self.table.field(name);
        assert_eq!(f.size, value.len(), "{name} has another size");
        self.bytes[f.offset..f.offset + f.size].copy_from_slice(value);
    }

    /// Makes the seal fit again.
    pub(crate) fn reseal(&mut self) {
        let end = self.table.field("seal").offset;
        self.set("seal", u64::from(seal(&self.bytes[..end])));
    }

    pub(crate) fn is_sealed(&self) -> bool {
        let end = self.table.field("seal").offset;
        self.get("seal") == u64::from(seal(&self.bytes[..end]))
    }
}

/// A file of a directory.
#[derive(Debug)]
pub(crate) struct Image {
    path: PathBuf,
    file: File,
}

impl Image {
    pub(crate) fn open(dir: &Path, name: &str) -> Image {
        let path = dir.join(name);
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("the file");
        Image { path, file }
    }

    pub(crate) fn both(dir: &Path) -> [Image; 2] {
        [A, B].map(|name| Image::open(dir, name))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> u64 {
        self.file.metadata().expect("a length").len()
    }

    pub(crate) fn set_len(&self, len: u64) {
        self.file.set_len(len).expect("a new length");
    }

    pub(crate) fn read(&self, at: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at as u64).expect("bytes of the file");
        bytes
    }

    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        self.file.write_all_at(bytes, at as u64).expect("bytes written");
    }

    pub(crate) fn all(&self) -> Vec<u8> {
        self.read(0, self.len() as usize)
    }

    pub(crate) fn fields(&self, name: &str, at: usize) -> Fields {
        let table = table(name);
        Fields { table, bytes: self.read(at, table.size()) }
    }

    /// Changes a structure and makes its seal fit again: a forgery.
    pub(crate) fn forge(&self, name: &str, at: usize, change: impl FnOnce(&mut Fields)) {
        let mut fields = self.fields(name, at);
        change(&mut fields);
        fields.reseal();
        self.write(at, &fields.bytes);
    }

    /// Forges the header and its copy alike.
    pub(crate) fn forge_headers(&self, change: impl Fn(&mut Fields)) {
        for copy in ["header", "header copy"] {
            self.forge("header", table("header page").field(copy).offset, &change);
        }
    }

    pub(crate) fn floor_at() -> usize {
        table("header page").field("floor").offset
    }

    pub(crate) fn slots(&self) -> usize {
        self.fields("header", 0).get("slots") as usize
    }

    /// Where slot page `index` starts.
    pub(crate) fn slot_at(index: usize) -> usize {
        PAGE * (1 + index)
    }

    pub(crate) fn data_at(&self) -> usize {
        PAGE * (1 + self.slots())
    }

    /// The sealed records, with the offsets of their slot pages, oldest first.
    pub(crate) fn records(&self) -> Vec<(usize, Fields)> {
        let slots = (0..self.slots()).map(Image::slot_at);
        let mut sealed: Vec<_> = slots
            .map(|at| (at, self.fields("record", at)))
            .filter(|(_, record)| record.get("seal") != 0 && record.is_sealed())
            .collect();
        sealed.sort_by_key(|(_, record)| record.get("id"));
        sealed
    }

    /// The slot page of snapshot `id`, if it is in this file.
    pub(crate) fn slot_of(&self, id: u64) -> Option<usize> {
        self.records().into_iter().find(|(_, r)| r.get("id") == id).map(|(at, _)| at)
    }
}

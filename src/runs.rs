#![forbid(unsafe_code)]
//! What a snapshot with pages needs besides its archive: the runs of blocks in which its pages lie, some
//! of them other snapshots' too, and where in the archive the references to pages are. In the file that
//! is the record's table; here it is made, read and checked.
//!
//! Knows blocks and bytes. What is in a page, and who refers to it, is others' affair.

use std::ops::Range;

use crate::{
    file::BLOCK, header::get, paged::stamp::Stamp, record::Extent, recover::blocks_of,
    session::REF_LEN,
};

/// Bytes of the head of a table, of a field in it and of a run.
const HEAD_LEN: usize = 16;
const ITEM_LEN: usize = 16;

/// The longest table that is read from a file: a million runs.
pub(crate) const MAX_TABLE: u64 = 16 << 20;

/// A field with pages: where in the archive the references to them start, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) refs: u64,
    pub(crate) pages: u64,
}

impl Field {
    /// The bytes of its references, in the archive.
    pub(crate) fn bytes(&self) -> Range<usize> {
        let start = self.refs as usize;
        start..start + self.pages as usize * REF_LEN
    }
}

/// A reference to a page, as it is in an archive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reference {
    /// Where the page starts in the file.
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) crc: u32,
    pub(crate) stamp: Stamp,
}

impl Field {
    /// The field's references in an archive that lies at `archive` in its file.
    pub(crate) fn references(&self, bytes: &[u8], archive: u64) -> impl Iterator<Item = Reference> {
        let (start, refs) = (self.refs, bytes.get(self.bytes()).unwrap_or_default());
        refs.chunks_exact(REF_LEN).enumerate().map(move |(i, bytes)| {
            let here = archive + start + (i * REF_LEN) as u64;
            let distance = u64::from_le_bytes(get(bytes, 0));
            Reference {
                offset: here.wrapping_add(distance),
                len: u32::from_le_bytes(get(bytes, 8)),
                crc: u32::from_le_bytes(get(bytes, 12)),
                stamp: Stamp::from_bytes(get(bytes, 16)),
            }
        })
    }
}

/// A run: its first block, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    pub(crate) start: u64,
    pub(crate) blocks: u64,
}

/// A snapshot's pages, as far as its place knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// Where it is in the file.
    pub(crate) at: Extent,
    /// Bytes of all pages.
    pub(crate) bytes: u64,
    pub(crate) fields: Vec<Field>,
    /// By position; the archive's own run is not among them.
    pub(crate) runs: Vec<Run>,
}

impl Table {
    /// Bytes of a table with so many fields and runs.
    pub(crate) fn len(fields: usize, runs: usize) -> u64 {
        (HEAD_LEN + ITEM_LEN * (fields + runs)) as u64
    }

    /// The bytes of the table, for a file whose data starts at `first_data`.
    pub(crate) fn encode(&self, first_data: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Table::len(self.fields.len(), self.runs.len()) as usize);
        bytes.extend((self.fields.len() as u32).to_le_bytes());
        bytes.extend((self.runs.len() as u32).to_le_bytes());
        bytes.extend(self.bytes.to_le_bytes());
        for field in &self.fields {
            bytes.extend(field.refs.to_le_bytes());
            bytes.extend(field.pages.to_le_bytes());
        }
        for run in &self.runs {
            bytes.extend((first_data + run.start * BLOCK).to_le_bytes());
            bytes.extend((run.blocks * BLOCK).to_le_bytes());
        }
        bytes
    }

    /// Reads a table whose checksum fits: one of an archive of `archive` bytes.
    pub(crate) fn decode(
        bytes: &[u8],
        at: Extent,
        archive: u64,
        first_data: u64,
    ) -> Result<Table, String> {
        let word = |at: usize| -> Option<u64> {
            Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
        };
        let head = word(0).zip(word(8));
        let (counts, paged) = head.ok_or("a table of pages without a head")?;
        let (fields, runs) = (counts as u32 as usize, (counts >> 32) as usize);
        if Table::len(fields, runs) != bytes.len() as u64 {
            return Err(format!("a table of {fields} fields and {runs} runs in {} bytes", at.len));
        }
        let pair = |i: usize| {
            let at = HEAD_LEN + i * ITEM_LEN;
            word(at).zip(word(at + 8)).unwrap_or_default()
        };
        let mut table = Table { at, bytes: paged, fields: Vec::new(), runs: Vec::new() };
        let mut from = 0;
        for i in 0..fields {
            let (refs, pages) = pair(i);
            let end = pages.checked_mul(REF_LEN as u64).and_then(|len| refs.checked_add(len));
            match end {
                Some(end) if refs >= from && end <= archive => from = end,
                _ => return Err(format!("references to {pages} pages at {refs}")),
            }
            table.fields.push(Field { refs, pages });
        }
        let mut from = 0;
        for i in fields..fields + runs {
            let (offset, len) = pair(i);
            let blocks = blocks_of(Extent { offset, len, crc: 0 }, first_data)?;
            let run = Run { start: blocks.start, blocks: blocks.end - blocks.start };
            if run.start < from || !len.is_multiple_of(BLOCK) {
                return Err(format!("a run of {len} bytes at {offset} out of turn"));
            }
            from = blocks.end;
            table.runs.push(run);
        }
        Ok(table)
    }

    /// Where in the file each run lies.
    pub(crate) fn spans(&self, first_data: u64) -> Vec<Range<u64>> {
        let span = |run: &Run| {
            let from = first_data + run.start * BLOCK;
            from..from + run.blocks * BLOCK
        };
        self.runs.iter().map(span).collect()
    }
}

#[cfg(test)]
mod tests {
    //! A forged table that claims what is not there, or the same twice.

    use super::*;

    fn table() -> Table {
        Table {
            at: Extent::default(),
            bytes: 12_345,
            fields: vec![Field { refs: 64, pages: 2 }, Field { refs: 128, pages: 0 }],
            runs: vec![Run { start: 3, blocks: 2 }, Run { start: 9, blocks: 1 }],
        }
    }

    fn decode(bytes: &[u8]) -> Result<Table, String> {
        Table::decode(bytes, Extent::default(), 200, 4096)
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(decode(&table().encode(4096)).expect("read"), table());
        assert_eq!(table().spans(4096), [16_384..24_576, 40_960..45_056]);
    }

    #[test]
    fn nothing_that_contradicts_itself_is_read() {
        let good = table().encode(4096);
        for len in 0..good.len() {
            assert!(decode(&good[..len]).is_err(), "cut at {len}");
        }
        let with = |at: usize, value: u64| {
            let mut bytes = good.clone();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            decode(&bytes)
        };
        for (at, value, what) in [
            (0, 1 << 32 | 2, "a run less"),
            (0, u64::MAX, "all ones"),
            (16, 190, "references beyond the archive"),
            (24, u64::MAX / 8, "a number of pages that overflows"),
            (32, 100, "references over others"),
            (48, 45_056, "a run that starts after the next"),
            (56, 4095, "half a block"),
            (56, 0, "no block"),
            (48, 4097, "a run off its blocks"),
            (48, u64::MAX - 4095, "a run at the end of numbers"),
            (64, 20_480, "a run over another"),
        ] {
            assert!(with(at, value).is_err(), "{what}");
        }
    }
}

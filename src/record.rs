#![forbid(unsafe_code)]
//! A slot page: the sealed record of one snapshot, and beside it, in sectors of their own, the
//! durable note and the label note. Bytes in, facts out; SNAPSHOT_FORMAT.md holds the same tables.

use crate::{
    header::{SECTOR, Side, Uuid, get, is_sealed, put, seal},
    mutants::Mutant,
    schema::Fingerprint,
};

/// Bytes of a slot page.
pub(crate) const SLOT_LEN: u64 = 4096;
/// Where in the page the durable note lies.
pub(crate) const NOTE_AT: u64 = SECTOR;
/// Where in the page the label note lies.
pub(crate) const LABEL_AT: u64 = 2 * SECTOR;

const FILE_ID_AT: usize = 8;
const BOOT_AT: usize = FILE_ID_AT + 16;
const SIDE_AT: usize = BOOT_AT + 16;
const KIND_AT: usize = SIDE_AT + 1;
const INDEX_AT: usize = KIND_AT + 1;
const PARENT_AT: usize = INDEX_AT + 6;
const PARENT_SEAL_AT: usize = PARENT_AT + 8;
const DEPTH_AT: usize = PARENT_SEAL_AT + 4;
const TARGET_AT: usize = DEPTH_AT + 4;
const LAYOUT_AT: usize = TARGET_AT + 8;
const TYPE_VERSION_AT: usize = LAYOUT_AT + 16;
const ROOT_POS_AT: usize = TYPE_VERSION_AT + 4;
const LOGICAL_AT: usize = ROOT_POS_AT + 4;
const CREATED_AT: usize = LOGICAL_AT + 8;
const ROOT_AT: usize = CREATED_AT + 8;
const TABLE_AT: usize = ROOT_AT + EXTENT_LEN;
const SCHEMA_AT: usize = TABLE_AT + EXTENT_LEN;
const WRITTEN_AT: usize = SCHEMA_AT + EXTENT_LEN;
/// Bytes of a record, its seal included.
pub(crate) const RECORD_LEN: usize = WRITTEN_AT + 8 + 4;
const EXTENT_LEN: usize = 8 + 8 + 4 + 4;
const _: () = assert!(RECORD_LEN == 196 && RECORD_LEN <= SECTOR as usize);

/// What kind of snapshot a record seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// All of its bytes were written for it.
    Full,
    /// It shares pages with earlier snapshots.
    Incremental,
    /// It is an earlier snapshot made the newest again: it has no bytes of its own.
    Rollback,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Full, Kind::Incremental, Kind::Rollback];

    fn code(self) -> u8 {
        self as u8 + 1
    }
}

/// Bytes somewhere in the same file. Without bytes, all three are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Extent {
    /// From the start of the file.
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) crc: u32,
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: u64,
    pub(crate) file_id: Uuid,
    pub(crate) boot: Uuid,
    pub(crate) side: Side,
    pub(crate) kind: Kind,
    /// The slot page's number on its side.
    pub(crate) index: u16,
    /// The newest snapshot when this one was published; for a rollback, what it left. 0: none.
    pub(crate) parent: u64,
    /// The seal of the parent's record.
    pub(crate) parent_seal: u32,
    /// Pointers from the root to the deepest value.
    pub(crate) depth: u32,
    /// For a rollback: the snapshot that it made the newest again. Else 0.
    pub(crate) target: u64,
    pub(crate) layout: Fingerprint,
    pub(crate) type_version: u32,
    /// Where in the archive its root starts.
    pub(crate) root_pos: u32,
    pub(crate) logical: u64,
    /// Nanoseconds since 1970.
    pub(crate) created: u64,
    pub(crate) root: Extent,
    pub(crate) table: Extent,
    pub(crate) schema: Extent,
    /// Bytes written for this snapshot alone.
    pub(crate) written: u64,
}

fn put_extent(b: &mut [u8], at: usize, e: Extent) {
    put(b, at, e.offset.to_le_bytes());
    put(b, at + 8, e.len.to_le_bytes());
    put(b, at + 16, e.crc.to_le_bytes());
}

fn get_extent(b: &[u8], at: usize) -> Extent {
    Extent {
        offset: u64::from_le_bytes(get(b, at)),
        len: u64::from_le_bytes(get(b, at + 8)),
        crc: u32::from_le_bytes(get(b, at + 16)),
    }
}

impl Record {
    pub(crate) fn encode(&self) -> [u8; RECORD_LEN] {
        let mut b = [0; RECORD_LEN];
        put(&mut b, 0, self.id.to_le_bytes());
        put(&mut b, FILE_ID_AT, self.file_id.0);
        put(&mut b, BOOT_AT, self.boot.0);
        put(&mut b, SIDE_AT, [self.side.index() as u8]);
        put(&mut b, KIND_AT, [self.kind.code()]);
        put(&mut b, INDEX_AT, self.index.to_le_bytes());
        put(&mut b, PARENT_AT, self.parent.to_le_bytes());
        put(&mut b, PARENT_SEAL_AT, self.parent_seal.to_le_bytes());
        put(&mut b, DEPTH_AT, self.depth.to_le_bytes());
        put(&mut b, TARGET_AT, self.target.to_le_bytes());
        put(&mut b, LAYOUT_AT, self.layout.to_bytes());
        put(&mut b, TYPE_VERSION_AT, self.type_version.to_le_bytes());
        put(&mut b, ROOT_POS_AT, self.root_pos.to_le_bytes());
        put(&mut b, LOGICAL_AT, self.logical.to_le_bytes());
        put(&mut b, CREATED_AT, self.created.to_le_bytes());
        put_extent(&mut b, ROOT_AT, self.root);
        put_extent(&mut b, TABLE_AT, self.table);
        put_extent(&mut b, SCHEMA_AT, self.schema);
        put(&mut b, WRITTEN_AT, self.written.to_le_bytes());
        seal(&mut b);
        if Mutant::SealWithoutId.is_on() {
            put(&mut b, 0, [0; 8]);
            seal(&mut b);
            put(&mut b, 0, self.id.to_le_bytes());
        }
        b
    }

    /// Whether both are records of one snapshot: equal but for where they and their bytes lie.
    pub(crate) fn is_twin_of(&self, other: &Record) -> bool {
        let at =
            |record: &Record, extent: fn(&Record) -> Extent| Extent { offset: 0, ..extent(record) };
        let same = |extent| at(self, extent) == at(other, extent);
        let elsewhere =
            Record { index: other.index, root: other.root, schema: other.schema, ..*self };
        // One may be from a time when its side had no layout text.
        let text = self.schema.len == 0 || other.schema.len == 0 || same(|record| record.schema);
        elsewhere == *other && same(|record| record.root) && text
    }

    /// The record in a slot page, if it is sealed; else why not. `Ok(None)`: none was ever there.
    pub(crate) fn decode(b: &[u8; RECORD_LEN]) -> Result<Option<Record>, String> {
        if b.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if !(is_sealed(b) || Mutant::SealWithoutId.is_on() && is_sealed_but_for_id(b)) {
            return Err("the record is not sealed".to_owned());
        }
        let Some(side) = Side::BOTH.get(usize::from(b[SIDE_AT])) else {
            return Err(format!("{} is no side", b[SIDE_AT]));
        };
        let Some(kind) = Kind::ALL.into_iter().find(|k| k.code() == b[KIND_AT]) else {
            return Err(format!("{} is no kind of snapshot", b[KIND_AT]));
        };
        Ok(Some(Record {
            id: u64::from_le_bytes(get(b, 0)),
            file_id: Uuid(get(b, FILE_ID_AT)),
            boot: Uuid(get(b, BOOT_AT)),
            side: *side,
            kind,
            index: u16::from_le_bytes(get(b, INDEX_AT)),
            parent: u64::from_le_bytes(get(b, PARENT_AT)),
            parent_seal: u32::from_le_bytes(get(b, PARENT_SEAL_AT)),
            depth: u32::from_le_bytes(get(b, DEPTH_AT)),
            target: u64::from_le_bytes(get(b, TARGET_AT)),
            layout: Fingerprint::from_bytes(get(b, LAYOUT_AT)),
            type_version: u32::from_le_bytes(get(b, TYPE_VERSION_AT)),
            root_pos: u32::from_le_bytes(get(b, ROOT_POS_AT)),
            logical: u64::from_le_bytes(get(b, LOGICAL_AT)),
            created: u64::from_le_bytes(get(b, CREATED_AT)),
            root: get_extent(b, ROOT_AT),
            table: get_extent(b, TABLE_AT),
            schema: get_extent(b, SCHEMA_AT),
            written: u64::from_le_bytes(get(b, WRITTEN_AT)),
        }))
    }
}

/// As the mutant would have it.
fn is_sealed_but_for_id(b: &[u8; RECORD_LEN]) -> bool {
    let mut b = *b;
    put(&mut b, 0, [0; 8]);
    is_sealed(&b)
}

/// The seal of encoded bytes: their last word.
pub(crate) fn seal_of<const N: usize>(bytes: &[u8; N]) -> u32 {
    u32::from_le_bytes(get(bytes, N - 4))
}

/// Bytes of a durable note.
pub(crate) const NOTE_LEN: usize = 32;

/// Says that a snapshot's bytes and record have been synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DurableNote {
    pub(crate) id: u64,
    pub(crate) boot: Uuid,
    /// The seal of the record that was synced.
    pub(crate) record_seal: u32,
}

impl DurableNote {
    pub(crate) fn encode(&self) -> [u8; NOTE_LEN] {
        let mut b = [0; NOTE_LEN];
        put(&mut b, 0, self.id.to_le_bytes());
        put(&mut b, 8, self.boot.0);
        put(&mut b, 24, self.record_seal.to_le_bytes());
        seal(&mut b);
        b
    }

    pub(crate) fn decode(b: &[u8; NOTE_LEN]) -> Option<DurableNote> {
        is_sealed(b).then(|| DurableNote {
            id: u64::from_le_bytes(get(b, 0)),
            boot: Uuid(get(b, 8)),
            record_seal: u32::from_le_bytes(get(b, 24)),
        })
    }
}

/// The longest label, in bytes.
pub(crate) const MAX_LABEL: usize = 255;
/// Bytes of a label note: id, length, text, seal.
pub(crate) const LABEL_LEN: usize = 8 + 1 + MAX_LABEL + 4;

/// Whether a text can be a label.
pub(crate) fn is_label(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_LABEL && !text.chars().any(char::is_control)
}

/// The label under which a snapshot is kept.
pub(crate) fn encode_label(id: u64, label: &str) -> [u8; LABEL_LEN] {
    let mut b = [0; LABEL_LEN];
    put(&mut b, 0, id.to_le_bytes());
    b[8] = label.len() as u8;
    b[9..9 + label.len()].copy_from_slice(label.as_bytes());
    seal(&mut b);
    b
}

/// Whether the note says, by an empty text, that snapshot `id` has left the ring and is there for
/// the disk's sake alone (P4).
pub(crate) fn has_left(b: &[u8; LABEL_LEN], id: u64) -> bool {
    is_sealed(b) && u64::from_le_bytes(get(b, 0)) == id && b[8] == 0
}

/// Whether such a note was there, and has been unsealed since.
pub(crate) fn had_left(b: &[u8; LABEL_LEN], id: u64) -> bool {
    !is_sealed(b) && u64::from_le_bytes(get(b, 0)) == id && b[8] == 0
}

/// Whether a label note of snapshot `id` has been written there, sealed or not.
pub(crate) fn is_label_of(b: &[u8; LABEL_LEN], id: u64) -> bool {
    u64::from_le_bytes(get(b, 0)) == id
}

/// The label of snapshot `id`, if the note is whole and that snapshot's.
pub(crate) fn decode_label(b: &[u8; LABEL_LEN], id: u64) -> Option<String> {
    if !is_sealed(b) || u64::from_le_bytes(get(b, 0)) != id {
        return None;
    }
    let text = std::str::from_utf8(b.get(9..9 + usize::from(b[8]))?).ok()?;
    is_label(text).then(|| text.to_owned())
}

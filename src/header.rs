#![forbid(unsafe_code)]
//! The first page of each file: who it belongs to, in what format, and from which id on ids are
//! certainly new. Bytes in, facts out; SNAPSHOT_FORMAT.md holds the same tables.

use std::fmt;

use crate::{file::BLOCK, record::SLOT_LEN};

/// What the files are called for.
pub(crate) const MAGIC: [u8; 8] = *b"SNAPRING";
/// The version of the format that this build writes, and the newest it reads.
pub(crate) const FORMAT: u32 = 1;

/// A sector: what a disk writes whole or not at all.
pub(crate) const SECTOR: u64 = 512;

/// Where the header lies, and its copy in the page's last sector.
pub(crate) const HEADER_AT: [u64; 2] = [0, 7 * SECTOR];
/// Where the id floor lies.
pub(crate) const FLOOR_AT: u64 = SECTOR;
/// Where, in A, the hint lies: the head's word, then the word that other processes wait on.
pub(crate) const HINT_AT: u64 = 2 * SECTOR;
pub(crate) const WAKE_AT: u64 = HINT_AT + 8;
/// Where the slot pages start.
pub(crate) const SLOTS_AT: u64 = BLOCK;

pub(crate) const HEADER_LEN: usize = 512;
const CRC_AT: usize = HEADER_LEN - 4;

const FORMAT_AT: usize = 8;
const ENDIAN_AT: usize = FORMAT_AT + 4;
const POINTER_AT: usize = ENDIAN_AT + 1;
const ALIGNED_AT: usize = POINTER_AT + 1;
const RKYV_AT: usize = ALIGNED_AT + 1;
const SIDE_AT: usize = RKYV_AT + 1;
const RING_AT: usize = SIDE_AT + 4;
const BLOCK_AT: usize = RING_AT + 4;
const SLOTS_COUNT_AT: usize = BLOCK_AT + 4;
const RING_ID_AT: usize = SLOTS_COUNT_AT + 4;
const FILE_ID_AT: usize = RING_ID_AT + 16;
const CREATED_AT: usize = FILE_ID_AT + 16;
const _: () = assert!(CREATED_AT + 8 <= CRC_AT, "header fields overrun the header");

/// One of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// `snapshot_a.bin`.
    A,
    /// `snapshot_b.bin`.
    B,
}

impl Side {
    pub(crate) const BOTH: [Side; 2] = [Side::A, Side::B];

    pub(crate) fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Side::A => "snapshot_a.bin",
            Side::B => "snapshot_b.bin",
        }
    }

    fn letter(self) -> u8 {
        match self {
            Side::A => b'A',
            Side::B => b'B',
        }
    }

    fn from_letter(letter: u8) -> Option<Side> {
        Side::BOTH.into_iter().find(|side| side.letter() == letter)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", char::from(self.letter()))
    }
}

/// A random name, printed as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Uuid(pub(crate) [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) side: Side,
    /// Snapshots listed at most.
    pub(crate) ring: u32,
    pub(crate) ring_id: Uuid,
    pub(crate) file_id: Uuid,
    /// Nanoseconds since 1970.
    pub(crate) created: u64,
}

/// Why a header is not ours to use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// Not a header, or not whole.
    Damaged(String),
    Newer(u32),
    /// Whole, and written for another kind of machine or rkyv.
    Foreign(String),
}

/// Slot pages of a file whose ring is this long: spare ones for what is retained besides.
pub(crate) const fn slot_pages(ring: u32) -> u32 {
    ring + 4
}

/// Where the data area starts.
pub(crate) fn data_at(ring: u32) -> u64 {
    SLOTS_AT + u64::from(slot_pages(ring)) * SLOT_LEN
}

/// The longest ring: places are named by 12 bits.
pub(crate) const MAX_RING: u32 = 1000;

pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

pub(crate) fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

/// The seal of bytes: their checksum, where zero, which is no seal, is one.
fn seal_for(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes).max(1)
}

/// Puts the seal of all before into the last four bytes.
pub(crate) fn seal<const N: usize>(bytes: &mut [u8; N]) {
    let seal = seal_for(&bytes[..N - 4]);
    put(bytes, N - 4, seal.to_le_bytes());
}

/// Whether the last four bytes are the seal of all before.
pub(crate) fn is_sealed<const N: usize>(bytes: &[u8; N]) -> bool {
    u32::from_le_bytes(get(bytes, N - 4)) == seal_for(&bytes[..N - 4])
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut b = [0; HEADER_LEN];
        put(&mut b, 0, MAGIC);
        put(&mut b, FORMAT_AT, FORMAT.to_le_bytes());
        put(&mut b, ENDIAN_AT, [1]);
        put(&mut b, POINTER_AT, [4]);
        put(&mut b, ALIGNED_AT, [1]);
        put(&mut b, RKYV_AT, [8]);
        put(&mut b, SIDE_AT, [self.side.letter()]);
        put(&mut b, RING_AT, self.ring.to_le_bytes());
        put(&mut b, BLOCK_AT, (BLOCK as u32).to_le_bytes());
        put(&mut b, SLOTS_COUNT_AT, slot_pages(self.ring).to_le_bytes());
        put(&mut b, RING_ID_AT, self.ring_id.0);
        put(&mut b, FILE_ID_AT, self.file_id.0);
        put(&mut b, CREATED_AT, self.created.to_le_bytes());
        seal(&mut b);
        b
    }

    pub(crate) fn decode(b: &[u8; HEADER_LEN]) -> Result<Header, BadHeader> {
        let damaged = |what: &str| Err(BadHeader::Damaged(what.to_owned()));
        if get(b, 0) != MAGIC {
            return damaged("no snapring header (the magic is missing)");
        }
        if !is_sealed(b) {
            return damaged("the header's checksum does not fit");
        }
        let format = u32::from_le_bytes(get(b, FORMAT_AT));
        if format > FORMAT {
            return Err(BadHeader::Newer(format));
        }
        let foreign = |what: String| Err(BadHeader::Foreign(what));
        match b[ENDIAN_AT] {
            1 => {}
            2 => {
                return foreign(
                    "its archives are big-endian, this build reads little-endian".into(),
                );
            }
            n => return damaged(&format!("{n} is no endianness")),
        }
        if b[POINTER_AT] != 4 {
            let bits = u32::from(b[POINTER_AT]) * 8;
            return foreign(format!("its relative pointers have {bits} bits, this build reads 32"));
        }
        if b[ALIGNED_AT] != 1 {
            return foreign("its archives are unaligned, this build reads aligned ones".into());
        }
        if b[RKYV_AT] != 8 {
            return foreign(format!(
                "it was written with rkyv 0.{}, this build reads 0.8",
                b[RKYV_AT]
            ));
        }
        let Some(side) = Side::from_letter(b[SIDE_AT]) else {
            return damaged("it is neither side A nor side B");
        };
        let ring = u32::from_le_bytes(get(b, RING_AT));
        if !(2..=MAX_RING).contains(&ring) {
            return damaged(&format!("a ring of {ring}"));
        }
        let block = u32::from_le_bytes(get(b, BLOCK_AT));
        let slots = u32::from_le_bytes(get(b, SLOTS_COUNT_AT));
        if u64::from(block) != BLOCK || slots != slot_pages(ring) {
            return damaged(&format!("blocks of {block} bytes and {slots} slot pages"));
        }
        Ok(Header {
            side,
            ring,
            ring_id: Uuid(get(b, RING_ID_AT)),
            file_id: Uuid(get(b, FILE_ID_AT)),
            created: u64::from_le_bytes(get(b, CREATED_AT)),
        })
    }
}

pub(crate) const FLOOR_LEN: usize = 512;
const NEXT_AT: usize = 8;
const BOOT_AT: usize = NEXT_AT + 8;
const FLOOR_RING_AT: usize = BOOT_AT + 16;

/// From where on ids are certainly new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Floor {
    /// No id at or above this has been given out.
    pub(crate) floor: u64,
    /// The next id, after a clean close; zero while a caretaker is open.
    pub(crate) next: u64,
    /// The boot in which this was written.
    pub(crate) boot: Uuid,
    pub(crate) ring_id: Uuid,
}

impl Floor {
    pub(crate) fn encode(&self) -> [u8; FLOOR_LEN] {
        let mut b = [0; FLOOR_LEN];
        put(&mut b, 0, self.floor.to_le_bytes());
        put(&mut b, NEXT_AT, self.next.to_le_bytes());
        put(&mut b, BOOT_AT, self.boot.0);
        put(&mut b, FLOOR_RING_AT, self.ring_id.0);
        seal(&mut b);
        b
    }

    pub(crate) fn decode(b: &[u8; FLOOR_LEN]) -> Option<Floor> {
        is_sealed(b).then(|| Floor {
            floor: u64::from_le_bytes(get(b, 0)),
            next: u64::from_le_bytes(get(b, NEXT_AT)),
            boot: Uuid(get(b, BOOT_AT)),
            ring_id: Uuid(get(b, FLOOR_RING_AT)),
        })
    }
}

#[cfg(test)]
mod tests {
    //! A record whose checksum happens to be zero, once in 2^32 saves, would not be found again.

    use super::*;

    #[test]
    fn a_checksum_of_zero_is_a_seal_too() {
        // These four bytes have it.
        let mut bytes = [0x9d, 0x0a, 0xd9, 0x6d, 0, 0, 0, 0];
        assert_eq!(crc32fast::hash(&bytes[..4]), 0);
        assert!(!is_sealed(&bytes), "zero is no seal");
        seal(&mut bytes);
        assert_eq!(bytes[4..], [1, 0, 0, 0]);
        assert!(is_sealed(&bytes));
    }
}

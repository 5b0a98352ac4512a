#![forbid(unsafe_code)]
//! Edits by somebody who knows the format: fields of headers, records, notes, labels, layout texts
//! and archives. Afterwards every checksum fits again.

use crate::{
    image::{Files, LEN, SLOTS},
    input::Input,
};

const BLOCK: usize = 4096;
const RECORD: usize = 196;
/// The fields of a record: where, and how many bytes.
const FIELDS: [(usize, usize); 24] = [
    (0, 8),
    (8, 8),
    (16, 8),
    (24, 8),
    (32, 8),
    (40, 1),
    (41, 1),
    (42, 2),
    (48, 8),
    (56, 4),
    (60, 4),
    (64, 8),
    (72, 8),
    (80, 8),
    (88, 4),
    (92, 4),
    (96, 8),
    (112, 8),
    (120, 8),
    (136, 8),
    (144, 8),
    (160, 8),
    (168, 8),
    (184, 8),
];
const ROOT: usize = 112;
const TABLE: usize = 136;
const SCHEMA: usize = 160;
/// Bytes of a reference to a page.
const REFERENCE: usize = 32;
const CRC: usize = 16;

/// Makes some edits, then repairs the checksums of what was touched.
pub fn forge(files: &mut Files, input: &mut Input<'_>) {
    let mut slots = 0_u32;
    let mut edits = 0;
    while !input.is_empty() && edits < 64 {
        edits += 1;
        let place = input.byte();
        let (side, slot) = (usize::from(place & 1), usize::from(place >> 1) % SLOTS);
        let page = BLOCK * (1 + slot);
        slots |= 1 << (side * SLOTS + slot);
        match input.byte() % 16 {
            0 => header(files, input, side),
            1 => note(files, input, side, page),
            2 => label(files, input, side, page),
            3 | 4 => record(files, input, side, page),
            5 => text(files, input, side, page),
            6 => copy(files, input, side, page),
            8 => table(files, input, side, page),
            9 | 10 => reference(files, input, side, page),
            7 => {
                slots &= !(1 << (side * SLOTS + slot));
                let at = input.below(LEN);
                let len = input.below(16);
                files.put(side, at, input.bytes(len));
            }
            _ => archive(files, input, side, page),
        }
    }
    for number in (0..2 * SLOTS).filter(|number| slots >> number & 1 == 1) {
        reseal(files, number / SLOTS, BLOCK * (1 + number % SLOTS));
    }
}

fn number(files: &Files, side: usize, at: usize) -> u64 {
    u64::from_le_bytes(files.get(side, at))
}

/// The bytes of an extent, if it lies in the file.
fn extent(files: &Files, side: usize, at: usize) -> Option<(usize, usize)> {
    let (offset, len) = (number(files, side, at), number(files, side, at + 8));
    let end = offset.checked_add(len)?;
    (end <= LEN as u64).then_some((offset as usize, len as usize))
}

fn crc(files: &Files, side: usize, at: usize, len: usize) -> u32 {
    crc32fast::hash(files.image.bytes(side, at as u64, len as u64))
}

fn seal(files: &mut Files, side: usize, at: usize, len: usize) {
    let crc = crc(files, side, at, len - 4).max(1);
    files.put(side, at + len - 4, &crc.to_le_bytes());
}

/// Makes the checksums in a slot page fit, where the record was sealed.
fn reseal(files: &mut Files, side: usize, page: usize) {
    if files.get::<4>(side, page + RECORD - 4) == [0; 4] {
        return;
    }
    for at in references(files, side, page) {
        let to = (at as u64).wrapping_add(number(files, side, at)) as usize;
        let len = number(files, side, at + 8) as u32 as usize;
        if to.checked_add(len).is_some_and(|end| end <= LEN) {
            let crc = crc(files, side, to, len);
            files.put(side, at + 12, &crc.to_le_bytes());
        }
    }
    for field in [TABLE, ROOT, SCHEMA] {
        if let Some((at, len)) = extent(files, side, page + field) {
            let crc = crc(files, side, at, len);
            files.put(side, page + field + CRC, &crc.to_le_bytes());
        }
    }
    seal(files, side, page, RECORD);
}

/// Where in the file the references to pages are, as far as the table of pages is one.
fn references(files: &Files, side: usize, page: usize) -> Vec<usize> {
    let (Some((at, len)), Some((root, root_len))) =
        (extent(files, side, page + TABLE), extent(files, side, page + ROOT))
    else {
        return Vec::new();
    };
    if len < 16 {
        return Vec::new();
    }
    let fields = number(files, side, at) as u32 as usize;
    let arrays = (0..fields.min((len - 16) / 16)).map(|i| at + 16 + 16 * i);
    let each = arrays.flat_map(|array| {
        let (refs, pages) = (number(files, side, array), number(files, side, array + 8));
        let most = (root_len / REFERENCE) as u64;
        let starts = (0..pages.min(most)).map(move |p| refs.wrapping_add(p * REFERENCE as u64));
        let last = root_len.saturating_sub(REFERENCE) as u64;
        starts.filter(move |start| *start <= last).map(move |start| root + start as usize)
    });
    each.take(1024).collect()
}

/// A word of the table of pages.
fn table(files: &mut Files, input: &mut Input<'_>, side: usize, page: usize) {
    let Some((at, len)) = extent(files, side, page + TABLE) else { return };
    if len >= 8 {
        let at = at + 8 * input.below(len / 8);
        let old = number(files, side, at);
        let value = match input.byte() % 4 {
            0 => old.wrapping_add(input.odd_number()),
            1 => old.wrapping_sub(input.odd_number()),
            2 => old.wrapping_add(4096),
            _ => input.odd_number(),
        };
        put_number(files, side, at, 8, value);
    }
}

/// A reference to a page: part of it, or what another one is; or bytes of the page.
fn reference(files: &mut Files, input: &mut Input<'_>, side: usize, page: usize) {
    let all = references(files, side, page);
    if all.is_empty() {
        return;
    }
    let (at, other) = (all[input.below(all.len())], all[input.below(all.len())]);
    let here = number(files, side, at);
    match input.byte() % 8 {
        // The same page as another reference, by its name or by this one's.
        0 | 1 => {
            let to = number(files, side, other).wrapping_add(other as u64);
            let bytes = files.get::<REFERENCE>(side, other);
            files.put(side, at, &bytes[..]);
            put_number(files, side, at, 8, to.wrapping_sub(at as u64));
        }
        // The name of another.
        2 => {
            let bytes = files.get::<16>(side, other + 16);
            files.put(side, at + 16, &bytes[..]);
        }
        3 => put_number(files, side, at, 8, here.wrapping_add(64 * u64::from(input.byte()))),
        4 => put_number(files, side, at + 8, 4, input.odd_number()),
        5 => put_number(files, side, at, 8, input.odd_number()),
        _ => {
            let to = (at as u64).wrapping_add(here) as usize;
            let len = number(files, side, at + 8) as u32 as usize;
            if len > 0 && to.checked_add(len).is_some_and(|end| end <= LEN) {
                let at = to + input.below(len);
                let len = input.below(8);
                files.put(side, at, input.bytes(len));
            }
        }
    }
}

fn put_number(files: &mut Files, side: usize, at: usize, size: usize, value: u64) {
    files.put(side, at, &value.to_le_bytes()[..size]);
}

fn header(files: &mut Files, input: &mut Input<'_>, side: usize) {
    let value = input.odd_number();
    match input.byte() % 4 {
        // The floor.
        0 => {
            put_number(files, side, 512 + 8 * input.below(6), 8, value);
            seal(files, side, 512, 512);
        }
        // The hint.
        1 => put_number(files, side, 1024, 8, value),
        which => {
            let at = if which == 2 { 0 } else { 3584 };
            put_number(files, side, at + 8 + input.below(72), 1, value);
            seal(files, side, at, 512);
        }
    }
}

fn note(files: &mut Files, input: &mut Input<'_>, side: usize, page: usize) {
    let value = input.odd_number();
    put_number(files, side, page + 512 + 8 * input.below(4), 8, value);
    seal(files, side, page + 512, 32);
}

fn label(files: &mut Files, input: &mut Input<'_>, side: usize, page: usize) {
    let id = if input.byte() & 1 == 0 { number(files, side, page) } else { input.odd_number() };
    put_number(files, side, page + 1024, 8, id);
    files.put(side, page + 1032, &[input.byte()]);
    let len = input.below(24);
    files.put(side, page + 1033, input.bytes(len));
    seal(files, side, page + 1024, 268);
}

fn record(files: &mut Files, input: &mut Input<'_>, side: usize, page: usize) {
    let (at, size) = FIELDS[input.below(FIELDS.len())];
    let old = number(files, side, page + at);
    let value = match input.byte() % 4 {
        0 => old.wrapping_add(input.odd_number()),
        1 => old.wrapping_sub(input.odd_number()),
        _ => input.odd_number(),
    };
    put_number(files, side, page + at, size, value);
    if input.byte() == 0 {
        put_number(files, side, page + RECORD - 4, 4, u64::from(input.byte()));
    }
}

/// Another layout's text, or damage to this one's.
fn text(files: &mut Files, input: &mut Input<'_>, side: usize, page: usize) {
    if input.byte() & 1 == 0 {
        // Another fingerprint: the text is read.
        put_number(files, side, page + 72, 8, 1);
    }
    let Some((at, len)) = extent(files, side, page + SCHEMA) else { return };
    if len > 0 {
        let at = at + input.below(len);
        let len = input.below(32);
        files.put(side, at, input.bytes(len));
    }
}

/// A whole slot page, or an archive, in another's place.
fn copy(files: &mut Files, input: &mut Input<'_>, side: usize, page: usize) {
    let from = input.byte();
    let (from_side, from_page) =
        (usize::from(from & 1), BLOCK * (1 + usize::from(from >> 1) % SLOTS));
    let bytes = files.get::<RECORD>(from_side, from_page);
    if input.byte() & 1 == 0 {
        files.put(side, page, &bytes[..]);
    } else {
        files.put(side, page + ROOT, &bytes[ROOT..ROOT + 24]);
        files.put(side, page + 60, &bytes[60..64]);
        files.put(side, page + 92, &bytes[92..96]);
    }
}

/// A pointer, a length, a tag, a number inside an archive.
fn archive(files: &mut Files, input: &mut Input<'_>, side: usize, page: usize) {
    let Some((start, len)) = extent(files, side, page + ROOT) else { return };
    if len == 0 {
        return;
    }
    let unit = [1, 4, 4, 4, 8, 8][input.below(6)];
    let at = start + input.below(len) / unit * unit;
    let old = u32::from_le_bytes(files.get(side, at.min(LEN - 4)));
    match input.byte() % 8 {
        // A relative pointer to anywhere in the archive.
        0 | 1 => {
            let to = start + input.below(len);
            put_number(files, side, at, 4, (to as u64).wrapping_sub(at as u64));
        }
        // One that is moved a little.
        2 => put_number(files, side, at, 4, u64::from(old.wrapping_add(input.u16().into()))),
        3 => put_number(files, side, at, 4, u64::from(old.wrapping_sub(input.u16().into()))),
        // What another place holds.
        4 => {
            let from = start + input.below(len);
            let bytes = files.get::<8>(side, from.min(LEN - 8));
            files.put(side, at, &bytes[..unit]);
        }
        5 => files.put(side, at, &[input.byte()]),
        _ => {
            let value = input.odd_number();
            put_number(files, side, at, unit, value);
        }
    }
}

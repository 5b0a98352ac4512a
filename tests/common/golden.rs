//! Golden files: bytes as text, and what differs from ring to ring left out.

use std::fmt::Write as _;

use super::{document::table, reader::field};

/// Lines of `offset: sixteen bytes`, without those that are zero.
pub(crate) fn dump(bytes: &[u8]) -> String {
    let mut out = format!("length {}\n", bytes.len());
    for (i, row) in bytes.chunks(16).enumerate() {
        if row.iter().any(|b| *b != 0) {
            _ = write!(out, "{:06x}:", i * 16);
            row.iter().for_each(|b| _ = write!(out, " {b:02x}"));
            out.push('\n');
        }
    }
    out
}

/// The bytes of such lines.
pub(crate) fn undump(text: &str) -> Vec<u8> {
    let mut lines = text.lines();
    let len = lines.next().and_then(|l| l.strip_prefix("length ")).expect("a length");
    let mut bytes = vec![0; len.parse().expect("a number")];
    for line in lines {
        let (at, row) = line.split_once(": ").expect("an offset");
        let at = usize::from_str_radix(at, 16).expect("hexadecimal");
        for (i, byte) in row.split(' ').enumerate() {
            bytes[at + i] = u8::from_str_radix(byte, 16).expect("hexadecimal");
        }
    }
    bytes
}

/// Zeroes what differs from ring to ring: random ids, boots, times, and the seals over them.
pub(crate) fn masked(mut bytes: Vec<u8>) -> Vec<u8> {
    let slots = field(&bytes, "header", "slots") as usize;
    let mut places = vec![("header", 0), ("header", 3584), ("floor", 512)];
    for slot in 0..slots {
        let at = 4096 * (1 + slot);
        places.extend([("record", at), ("note", at + 512)]);
    }
    for (name, at) in places {
        let free = table(name)
            .fields
            .iter()
            .all(|f| f.name == "seal" || bytes[at + f.offset..][..f.size].iter().all(|b| *b == 0));
        for f in &table(name).fields {
            let varies =
                ["ring id", "file id", "boot", "created", "parent seal", "record seal", "seal"];
            if varies.contains(&f.name.as_str()) && !free {
                bytes[at + f.offset..][..f.size].fill(0);
            }
        }
    }
    bytes
}

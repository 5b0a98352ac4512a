#![forbid(unsafe_code)]
//! What goes over the wire, both ways: a length, a kind, and numbers, all little-endian.

use crate::view::Row;

/// From the server to a client.
#[derive(Debug, PartialEq)]
pub(crate) enum Down {
    /// Forget what you saw: this is the world as of this snapshot.
    Resync { snapshot: u64, tick: u64, rows: Vec<Row> },
    /// What changed in this tick, and what went out of sight.
    Delta { tick: u64, changed: Vec<Row>, gone: Vec<u32> },
    /// Tell the hash of what you see now.
    Ask { number: u64 },
}

/// From a client to the server.
#[derive(Debug, PartialEq)]
pub(crate) enum Up {
    Hello {
        player: u32,
    },
    /// Send my units there.
    Move {
        x: f32,
        y: f32,
    },
    /// The answer to an `Ask`.
    Hash {
        number: u64,
        hash: u64,
    },
}

/// No frame of a client's is longer, and none of a server's.
pub(crate) const LONGEST_UP: usize = 64;
pub(crate) const LONGEST_DOWN: usize = 4 << 20;

const RESYNC: u8 = 1;
const DELTA: u8 = 2;
const ASK: u8 = 3;
const HELLO: u8 = 16;
const MOVE: u8 = 17;
const HASH: u8 = 18;

/// Writes one frame to the end of a buffer: `fill` adds the numbers.
fn frame(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 4]);
    out.push(kind);
    fill(out);
    let len = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

fn put_row(out: &mut Vec<u8>, row: &Row) {
    out.extend(row.id.to_le_bytes());
    [row.x, row.y, row.hp, row.kind].iter().for_each(|n| out.extend(n.to_le_bytes()));
}

impl Down {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Down::Resync { snapshot, tick, rows } => frame(out, RESYNC, |out| {
                out.extend(snapshot.to_le_bytes());
                out.extend(tick.to_le_bytes());
                rows.iter().for_each(|row| put_row(out, row));
            }),
            Down::Delta { tick, changed, gone } => frame(out, DELTA, |out| {
                out.extend(tick.to_le_bytes());
                out.extend((changed.len() as u32).to_le_bytes());
                changed.iter().for_each(|row| put_row(out, row));
                gone.iter().for_each(|id| out.extend(id.to_le_bytes()));
            }),
            Down::Ask { number } => frame(out, ASK, |out| out.extend(number.to_le_bytes())),
        }
    }

    /// Reads a frame's kind and numbers; `None` for anything else.
    pub(crate) fn parse(body: &[u8]) -> Option<Down> {
        let (kind, mut rest) = body.split_first()?;
        let read = &mut rest;
        Some(match *kind {
            RESYNC => {
                let (snapshot, tick) =
                    (u64::from_le_bytes(take(read)?), u64::from_le_bytes(take(read)?));
                Down::Resync { snapshot, tick, rows: rows(read)? }
            }
            DELTA => {
                let tick = u64::from_le_bytes(take(read)?);
                let count = u32::from_le_bytes(take(read)?) as usize;
                let (mut changed, gone) = read.split_at_checked(count.checked_mul(12)?)?;
                let (gone, []) = gone.as_chunks::<4>() else { return None };
                Down::Delta {
                    tick,
                    changed: rows(&mut changed)?,
                    gone: gone.iter().map(|id| u32::from_le_bytes(*id)).collect(),
                }
            }
            ASK => Down::Ask { number: u64::from_le_bytes(take(read)?) },
            _ => return None,
        })
    }
}

impl Up {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Up::Hello { player } => frame(out, HELLO, |out| out.extend(player.to_le_bytes())),
            Up::Move { x, y } => frame(out, MOVE, |out| {
                out.extend(x.to_le_bytes());
                out.extend(y.to_le_bytes());
            }),
            Up::Hash { number, hash } => frame(out, HASH, |out| {
                out.extend(number.to_le_bytes());
                out.extend(hash.to_le_bytes());
            }),
        }
    }

    /// Reads a frame's kind and numbers; `None` for anything else.
    pub(crate) fn parse(body: &[u8]) -> Option<Up> {
        let (kind, mut rest) = body.split_first()?;
        let read = &mut rest;
        Some(match *kind {
            HELLO => Up::Hello { player: u32::from_le_bytes(take(read)?) },
            MOVE => {
                Up::Move { x: f32::from_le_bytes(take(read)?), y: f32::from_le_bytes(take(read)?) }
            }
            HASH => Up::Hash {
                number: u64::from_le_bytes(take(read)?),
                hash: u64::from_le_bytes(take(read)?),
            },
            _ => return None,
        })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*first)
}

fn rows(rest: &mut &[u8]) -> Option<Vec<Row>> {
    let mut rows = Vec::with_capacity(rest.len() / 12);
    while !rest.is_empty() {
        rows.push(Row {
            id: u32::from_le_bytes(take(rest)?),
            x: u16::from_le_bytes(take(rest)?),
            y: u16::from_le_bytes(take(rest)?),
            hp: u16::from_le_bytes(take(rest)?),
            kind: u16::from_le_bytes(take(rest)?),
        });
    }
    Some(rows)
}

#![forbid(unsafe_code)]
//! What a predecessor and its successor say to each other: frames of bounded length, and nothing
//! believed of them but what they must say. SNAPSHOT_FORMAT.md has the same tables.
//!
//! Knows bytes and deadlines. Who says what when is for `handover.rs` and `takeover.rs`.

use std::{
    io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Instant,
};

use crate::{
    header::{get, put},
    os::socket,
};

/// The first bytes of every frame; the last is the version of this protocol.
const MAGIC: [u8; 4] = *b"SNH\x01";
const HEADER_LEN: usize = 12;
/// The longest layout text that is said or heard.
pub(crate) const MAX_TEXT: usize = 1 << 20;
/// The longest body of any frame.
const MAX_BODY: usize = MAX_TEXT + 64;
/// The most descriptors that one hand-over passes on.
pub(crate) const MAX_DESCRIPTORS: usize = 1 << 20;

/// What a frame is for, in the order in which they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The successor's layout.
    Hello = 1,
    /// The predecessor's no, and why.
    Refused = 2,
    /// The predecessor's yes; with the files' descriptors of a ring in memory.
    Welcome = 3,
    /// The successor has done all it can beforehand.
    Ready = 4,
    /// The predecessor writes no more; with the lock's descriptor.
    Yours = 5,
    /// Descriptors of the user's.
    More = 6,
    /// The successor's word that it has taken over.
    Taken = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        use Kind::{Hello, More, Ready, Refused, Taken, Welcome, Yours};
        let all = [Hello, Refused, Welcome, Ready, Yours, More, Taken];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A frame received.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) body: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Sends one frame; not longer than until then.
pub(crate) fn send(
    stream: &UnixStream,
    kind: Kind,
    body: &[u8],
    descriptors: &[BorrowedFd<'_>],
    until: Instant,
) -> io::Result<()> {
    let mut bytes = vec![0; HEADER_LEN + body.len()];
    put(&mut bytes, 0, MAGIC);
    put(&mut bytes, 4, [kind as u8]);
    let len = u32::try_from(body.len()).map_err(|_| bad("a body of more than 4 GiB"))?;
    put(&mut bytes, 8, len.to_le_bytes());
    bytes[HEADER_LEN..].copy_from_slice(body);
    socket::send(stream, &bytes, descriptors, until)
}

/// The next frame; not later than then.
pub(crate) fn receive(stream: &UnixStream, until: Instant) -> io::Result<Frame> {
    let mut header = [0; HEADER_LEN];
    let mut descriptors = Vec::new();
    socket::receive(stream, &mut header, &mut descriptors, until)?;
    if get(&header, 0) != MAGIC {
        return Err(bad("the other process speaks another protocol"));
    }
    let kind = Kind::from_byte(header[4]).ok_or_else(|| bad("a message of an unknown kind"))?;
    let len = u32::from_le_bytes(get(&header, 8)) as usize;
    if len > MAX_BODY {
        return Err(bad(format!("a message of {len} bytes")));
    }
    let mut body = vec![0; len];
    socket::receive(stream, &mut body, &mut descriptors, until)?;
    Ok(Frame { kind, body, descriptors })
}

/// The next frame, which must be of this kind.
pub(crate) fn expect(stream: &UnixStream, kind: Kind, until: Instant) -> io::Result<Frame> {
    let frame = receive(stream, until)?;
    if frame.kind != kind {
        return Err(bad(format!("{:?} where {kind:?} was due", frame.kind)));
    }
    Ok(frame)
}

/// Words of the other side, fit for a log.
pub(crate) fn words(body: &[u8]) -> String {
    const MOST: usize = 400;
    let clean = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    String::from_utf8_lossy(&body[..body.len().min(4 * MOST)])
        .chars()
        .take(MOST)
        .map(clean)
        .collect()
}

/// [`Kind::Hello`].
pub(crate) struct Hello {
    pub(crate) fingerprint: [u8; 16],
    pub(crate) text: String,
}

impl Hello {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = self.fingerprint.to_vec();
        // One too long to compare is not sent: the fingerprint decides.
        if self.text.len() <= MAX_TEXT {
            body.extend_from_slice(self.text.as_bytes());
        }
        body
    }

    pub(crate) fn decode(body: &[u8]) -> io::Result<Hello> {
        if body.len() < 16 {
            return Err(bad("a layout without a fingerprint"));
        }
        let text = String::from_utf8_lossy(&body[16..]).into_owned();
        Ok(Hello { fingerprint: get(body, 0), text })
    }
}

/// [`Kind::Welcome`]: how many bytes of each file are worth having present.
pub(crate) fn encode_welcome(used: [u64; 2]) -> Vec<u8> {
    used.iter().flat_map(|bytes| bytes.to_le_bytes()).collect()
}

pub(crate) fn decode_welcome(body: &[u8]) -> io::Result<[u64; 2]> {
    if body.len() != 16 {
        return Err(bad(format!("a welcome of {} bytes", body.len())));
    }
    Ok([u64::from_le_bytes(get(body, 0)), u64::from_le_bytes(get(body, 8))])
}

/// A place whose bytes the predecessor goes on reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldPlace {
    /// Side and slot page, counted through both sides.
    pub(crate) number: u16,
    pub(crate) id: u64,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// A run of its pages, not its archive.
    pub(crate) pages: bool,
}

/// [`Kind::Yours`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Yours {
    /// The next id.
    pub(crate) next: u64,
    /// The newest snapshot; 0 without one.
    pub(crate) head: u64,
    /// How many descriptors follow.
    pub(crate) descriptors: u32,
    pub(crate) held: Vec<HeldPlace>,
}

const YOURS_LEN: usize = 24;
const HELD_LEN: usize = 32;

impl Yours {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = vec![0; YOURS_LEN + HELD_LEN * self.held.len()];
        put(&mut body, 0, self.next.to_le_bytes());
        put(&mut body, 8, self.head.to_le_bytes());
        put(&mut body, 16, self.descriptors.to_le_bytes());
        for (held, row) in self.held.iter().zip(body[YOURS_LEN..].chunks_exact_mut(HELD_LEN)) {
            put(row, 0, held.id.to_le_bytes());
            put(row, 8, held.offset.to_le_bytes());
            put(row, 16, held.len.to_le_bytes());
            put(row, 24, held.number.to_le_bytes());
            row[26] = held.pages.into();
        }
        body
    }

    pub(crate) fn decode(body: &[u8]) -> io::Result<Yours> {
        if body.len() < YOURS_LEN || !(body.len() - YOURS_LEN).is_multiple_of(HELD_LEN) {
            return Err(bad(format!("a hand-over of {} bytes", body.len())));
        }
        let held = body[YOURS_LEN..].chunks_exact(HELD_LEN).map(|row| HeldPlace {
            number: u16::from_le_bytes(get(row, 24)),
            id: u64::from_le_bytes(get(row, 0)),
            offset: u64::from_le_bytes(get(row, 8)),
            len: u64::from_le_bytes(get(row, 16)),
            pages: row[26] == 1,
        });
        Ok(Yours {
            next: u64::from_le_bytes(get(body, 0)),
            head: u64::from_le_bytes(get(body, 8)),
            descriptors: u32::from_le_bytes(get(body, 16)),
            held: held.collect(),
        })
    }
}

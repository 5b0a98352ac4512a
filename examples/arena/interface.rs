#![forbid(unsafe_code)]
//! What crosses the boundary between the server and its rules: C functions over plain rows, and
//! nothing else. The server and every set of rules are built from this file.
//!
//! No type of Rust's own layout crosses, and no panic: a set of rules catches its own and says so in
//! a [`Status`].

use std::{ffi::c_void, mem::offset_of};

use crate::world::{Unit, mix};

/// The version of this interface. Raised with every change to this file.
pub(crate) const INTERFACE: u32 = 4;

/// The one function a set of rules exports: `extern "C" fn() -> *const Table`.
pub(crate) const ENTRANCE: &str = "arena_rules";

/// What a set of rules hands over.
///
/// In every version of the interface the table starts with that version, and nothing behind it is
/// looked at before it agrees.
#[repr(C)]
pub(crate) struct Table {
    pub(crate) interface: u32,
    /// Bytes of a [`Unit`], as the rules see it.
    pub(crate) unit_size: u32,
    /// Bytes of a [`Seat`], as the rules see it.
    pub(crate) seat_size: u32,
    /// The set's own number.
    pub(crate) number: u32,
    /// The layout of the whole state, as the rules were built with.
    pub(crate) fingerprint: [u8; 16],
    /// Reads rows that mean nothing, and answers [`reading`] of them.
    pub(crate) probe: unsafe extern "C" fn(*const Unit, usize, *const Seat, usize) -> u64,
    /// Called once, when the rules go in.
    pub(crate) start: Call,
    /// Called once a tick.
    pub(crate) tick: Call,
}

/// A call into the rules. The field is the caller's for the time of the call alone; the words are
/// filled in unless the status is [`Status::DONE`].
pub(crate) type Call = unsafe extern "C" fn(*const Field, *mut Words) -> Status;

/// The part of the state that rules may change.
#[repr(C)]
pub(crate) struct Field {
    pub(crate) tick: u64,
    pub(crate) size: f32,
    pub(crate) units: Pages,
    pub(crate) seats: *mut Seat,
    pub(crate) seats_len: usize,
}

/// The units, which stay with the server and are seen a page at a time.
///
/// Two functions, since the server must know what is written: a page that was only read is shared with
/// the snapshots that have it, and costs the next one nothing. Both answer where page `p` starts, or
/// null where there is none; all pages have `page_len` units, but the last the rest. What `page`
/// answers holds until `page_mut` is called, what `page_mut` answers until either is, and none of it
/// longer than the call into the rules.
#[repr(C)]
pub(crate) struct Pages {
    pub(crate) host: *mut c_void,
    pub(crate) len: usize,
    pub(crate) page_len: usize,
    pub(crate) page: unsafe extern "C" fn(*mut c_void, usize) -> *const Unit,
    pub(crate) page_mut: unsafe extern "C" fn(*mut c_void, usize) -> *mut Unit,
}

/// A player, as the rules see one.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Seat {
    pub(crate) points: u64,
    pub(crate) player: u32,
    pub(crate) target_x: f32,
    pub(crate) target_y: f32,
    pub(crate) unused: u32,
}

/// How a call went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct Status(pub(crate) u32);

impl Status {
    pub(crate) const DONE: Status = Status(0);
    pub(crate) const FAILED: Status = Status(1);
    pub(crate) const PANICKED: Status = Status(2);
}

/// Room for a sentence.
#[repr(C)]
pub(crate) struct Words {
    len: u32,
    text: [u8; 252],
}

impl Words {
    pub(crate) const fn none() -> Words {
        Words { len: 0, text: [0; 252] }
    }

    /// Takes in as much as there is room for.
    pub(crate) fn say(&mut self, text: &str) {
        let len = text.len().min(self.text.len());
        self.text[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len = len as u32;
    }

    pub(crate) fn text(&self) -> String {
        let len = (self.len as usize).min(self.text.len());
        String::from_utf8_lossy(&self.text[..len]).into_owned()
    }
}

/// A hash of rows, read field by field, and of where those fields lie. Two programs that answer the
/// same mean the same by a row.
pub(crate) fn reading(units: &[Unit], seats: &[Seat]) -> u64 {
    let mut hash = 0;
    let mut take = |n: u64| hash = mix(hash, n);
    let offsets = [
        offset_of!(Unit, id),
        offset_of!(Unit, owner),
        offset_of!(Unit, x),
        offset_of!(Unit, y),
        offset_of!(Unit, dx),
        offset_of!(Unit, dy),
        offset_of!(Unit, hp),
        offset_of!(Unit, kind),
        offset_of!(Seat, points),
        offset_of!(Seat, player),
        offset_of!(Seat, target_x),
        offset_of!(Seat, target_y),
    ];
    offsets.iter().for_each(|at| take(*at as u64));
    for unit in units {
        take(u64::from(unit.id) << 32 | u64::from(unit.owner));
        take(u64::from(unit.x.to_bits()) << 32 | u64::from(unit.y.to_bits()));
        take(u64::from(unit.dx.to_bits()) << 32 | u64::from(unit.dy.to_bits()));
        take(u64::from(unit.hp) << 32 | u64::from(unit.kind));
    }
    for seat in seats {
        take(seat.points);
        take(seat.player.into());
        take(u64::from(seat.target_x.to_bits()) << 32 | u64::from(seat.target_y.to_bits()));
    }
    hash
}

//! A set of rules in charge: a shared library that has passed the gate, and calls into it.
//!
//! Libraries are never unloaded: a thread may still have work of theirs to do when it ends, and a
//! few hundred kilobytes are a small price.

use std::{
    ffi::c_void,
    fmt,
    path::Path,
    ptr::{self, NonNull},
};

use libloading::Library;
use snapring::PagedVec;

use crate::{
    gate::{self, Refusal},
    interface::{Call, ENTRANCE, Field, Pages, Seat, Status, Table, Words},
    world::{Arena, Unit},
};

/// A set of rules that has been let in.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    table: &'static Table,
}

/// What went wrong with a set of rules.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no such library, or it is none.
    Library(String),
    /// The gate stayed shut.
    Refused(Refusal),
    /// A call answered an error.
    Reported(String),
    /// A call panicked, inside the library.
    Panicked(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Library(words) => write!(f, "not a library of rules: {words}"),
            Failure::Refused(refusal) => refusal.fmt(f),
            Failure::Reported(words) | Failure::Panicked(words) => f.write_str(words),
        }
    }
}

impl Failure {
    /// One word for it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Failure::Library(_) | Failure::Refused(_) => "refused",
            Failure::Reported(_) => "error",
            Failure::Panicked(_) => "panic",
        }
    }
}

impl Rules {
    /// Loads a library and leads it through the gate.
    pub(crate) fn load(path: &Path) -> Result<Rules, Failure> {
        let broken = |error: libloading::Error| Failure::Library(error.to_string());
        // SAFETY: loading runs the library's initialisers; these are libraries that this example
        // has built from its own sources.
        let library = unsafe { Library::new(path) }.map_err(broken)?;
        // Leaked: code and table stay where they are for good.
        let library: &'static Library = Box::leak(Box::new(library));
        // SAFETY: what bears this name is a function of this type in every version of the
        // interface.
        let entrance =
            unsafe { library.get::<extern "C" fn() -> *const Table>(ENTRANCE.as_bytes()) }
                .map_err(broken)?;
        let table = NonNull::new(entrance().cast_mut())
            .ok_or_else(|| Failure::Library("it hands over no table".to_owned()))?;
        // SAFETY: every version of the interface hands over a table that starts with its version
        // and stays; the library is never unloaded. What the table says beyond that is for the gate
        // to find out.
        unsafe { gate::admit(table) }.map(|table| Rules { table }).map_err(Failure::Refused)
    }

    /// The set's own number.
    pub(crate) fn number(self) -> u32 {
        self.table.number
    }

    /// Tells the rules that they are in charge now. They may change what they like.
    pub(crate) fn start(self, arena: &mut Arena) -> Result<(), Failure> {
        call(self.table.start, arena)
    }

    /// One tick by these rules.
    pub(crate) fn tick(self, arena: &mut Arena) -> Result<(), Failure> {
        call(self.table.tick, arena)
    }
}

/// Lays the rows out, calls, and takes everything over that the rules have left behind, whatever
/// they say about it: to undo it is the caretaker's part.
fn call(function: Call, arena: &mut Arena) -> Result<(), Failure> {
    let seat = |p: &crate::world::Player| Seat {
        points: arena.scores.get(&p.id).copied().unwrap_or(0),
        player: p.id,
        target_x: p.target[0],
        target_y: p.target[1],
        unused: 0,
    };
    let mut seats: Vec<Seat> = arena.players.iter().map(seat).collect();
    let field = Field {
        tick: arena.tick,
        size: arena.size,
        units: Pages {
            len: arena.units.len(),
            page_len: arena.units.page_len(),
            host: (&raw mut arena.units).cast(),
            page,
            page_mut,
        },
        seats: seats.as_mut_ptr(),
        seats_len: seats.len(),
    };
    let mut words = Words::none();
    // SAFETY: the rules have passed the gate, so that they mean the same by these rows; rows, words
    // and the host of the pages are valid, and nobody else's, for as long as the call lasts.
    let status = unsafe { function(&field, &mut words) };
    arena.scores.extend(seats.iter().map(|seat| (seat.player, seat.points)));
    match status {
        Status::DONE => Ok(()),
        Status::PANICKED => Err(Failure::Panicked(words.text())),
        Status::FAILED => Err(Failure::Reported(words.text())),
        Status(other) => Err(Failure::Reported(format!("unknown status {other}"))),
    }
}

/// A page to be read.
///
/// # Safety
///
/// `host` is that of [`Pages`], during the call that it was made for, and no page is being written.
unsafe extern "C" fn page(host: *mut c_void, p: usize) -> *const Unit {
    // SAFETY: the host is the arena's units, which nobody else has; so says the caller.
    let units = unsafe { &*host.cast::<PagedVec<Unit>>() };
    if p < units.pages() { units.page(p).as_ptr() } else { ptr::null() }
}

/// A page to be written: it is copied first if a snapshot on its way has it.
///
/// # Safety
///
/// As [`page`]; and no page is being read.
unsafe extern "C" fn page_mut(host: *mut c_void, p: usize) -> *mut Unit {
    // SAFETY: the host is the arena's units, which nobody else has; so says the caller.
    let units = unsafe { &mut *host.cast::<PagedVec<Unit>>() };
    if p < units.pages() { units.page_mut(p).as_mut_ptr() } else { ptr::null_mut() }
}

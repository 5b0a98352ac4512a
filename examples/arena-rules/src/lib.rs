//! The rules of the arena, as a library that a running server loads: units march where their player
//! sends them, and arriving earns a point.
//!
//! One set for each of the features `v1` to `v5`. Three of them are broken on purpose, each in its
//! own way: see `march.rs`.

#[allow(dead_code, reason = "the server uses more of it")]
#[path = "../../arena/interface.rs"]
mod interface;
mod march;
mod units;
#[allow(dead_code, reason = "the server uses more of it")]
#[path = "../../arena/world.rs"]
mod world;

/// Rules have no business with connections. A skipped field is no part of the layout, so anything
/// may stand in its place.
mod gateway {
    pub(crate) struct Gateway;
}

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook},
    slice,
    sync::{LazyLock, Once},
};

use interface::{Call, Field, INTERFACE, Seat, Status, Table, Words};
use march::{March, SET};
use units::Units;
use world::{Arena, Unit};

static TABLE: LazyLock<Table> = LazyLock::new(|| Table {
    interface: if SET.interface_agrees { INTERFACE } else { INTERFACE + 1 },
    unit_size: size_of::<Unit>() as u32,
    seat_size: size_of::<Seat>() as u32,
    number: SET.number,
    fingerprint: snapring::Fingerprint::of::<Arena>().to_bytes(),
    probe,
    start: start as Call,
    tick: tick as Call,
});

/// The library's entrance.
// SAFETY: the name is this interface's own.
#[unsafe(no_mangle)]
extern "C" fn arena_rules() -> *const Table {
    &raw const *TABLE
}

/// Reads rows that mean nothing.
unsafe extern "C" fn probe(units: *const Unit, m: usize, seats: *const Seat, n: usize) -> u64 {
    // SAFETY: the interface says that `m` units are there.
    let units = unsafe { slice::from_raw_parts(units, m) };
    // SAFETY: the interface says that `n` seats are there.
    let seats = unsafe { slice::from_raw_parts(seats, n) };
    interface::reading(units, seats)
}

unsafe extern "C" fn start(field: *const Field, words: *mut Words) -> Status {
    // SAFETY: the caller of this function vouches for both.
    unsafe { attend(field, words, |march| march.start()) }
}

unsafe extern "C" fn tick(field: *const Field, words: *mut Words) -> Status {
    // SAFETY: the caller of this function vouches for both.
    unsafe { attend(field, words, |march| march.tick()) }
}

thread_local! {
    /// Where the last panic on this thread was, and what it said.
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `task` on the field; what goes wrong, panics included, ends here and is put into words.
///
/// # Safety
///
/// Both pointers are valid, and the rows and the pages of the field too, for this call alone.
unsafe fn attend(
    field: *const Field,
    words: *mut Words,
    task: impl FnOnce(&mut March<'_>) -> Result<(), String>,
) -> Status {
    static QUIET: Once = Once::new();
    // This library has a standard library, and so a panic hook, of its own.
    QUIET.call_once(|| set_hook(Box::new(remember)));

    // SAFETY: the caller's promise.
    let field = unsafe { &*field };
    // SAFETY: the caller's promise.
    let words = unsafe { &mut *words };
    // SAFETY: the caller's promise; nobody else asks for these pages during the call.
    let units = unsafe { Units::new(&field.units) };
    // SAFETY: the caller's promise; nobody else has these rows during the call.
    let seats = unsafe { slice::from_raw_parts_mut(field.seats, field.seats_len) };

    let mut march = March { size: field.size, units, seats };
    match catch_unwind(AssertUnwindSafe(|| task(&mut march))) {
        Ok(Ok(())) => Status::DONE,
        Ok(Err(text)) => {
            words.say(&text);
            Status::FAILED
        }
        Err(_) => {
            LAST_PANIC.with_borrow(|text| words.say(text));
            Status::PANICKED
        }
    }
}

fn remember(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let said = payload.downcast_ref::<String>().map(String::as_str);
    let said = said.or(payload.downcast_ref().copied()).unwrap_or("no words");
    let place = panic.location().map_or(String::new(), |at| {
        let file = at.file().rsplit('/').next().unwrap_or("");
        format!(" ({file}:{})", at.line())
    });
    LAST_PANIC.with_borrow_mut(|last| *last = format!("{said}{place}"));
}

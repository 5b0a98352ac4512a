//! A set of rules that was built for another state, or that lies about it, gets to see the state.
//!
//! The gate is the arena example's; the rules here are tables made on the spot, so that no library
//! has to be built.

#[path = "../examples/arena/gate.rs"]
mod gate;
#[allow(dead_code, reason = "the server and the rules use more of it")]
#[path = "../examples/arena/interface.rs"]
mod interface;
#[allow(dead_code, reason = "the server and the rules use more of it")]
#[path = "../examples/arena/world.rs"]
mod world;

/// Connections are no part of the layout.
mod gateway {
    pub(crate) struct Gateway;
}

use std::{ptr::NonNull, slice};

use gate::{Refusal, admit};
use interface::{Field, INTERFACE, Seat, Status, Table, Words, reading};
use snapring::{Fingerprint, Snapshot};
use world::{Arena, Unit};

/// Rules that mean what the server means.
fn honest() -> Table {
    Table {
        interface: INTERFACE,
        unit_size: size_of::<Unit>() as u32,
        seat_size: size_of::<Seat>() as u32,
        number: 1,
        fingerprint: Fingerprint::of::<Arena>().to_bytes(),
        probe: read_honestly,
        start: idle,
        tick: idle,
    }
}

unsafe extern "C" fn read_honestly(
    units: *const Unit,
    m: usize,
    seats: *const Seat,
    n: usize,
) -> u64 {
    // SAFETY: the gate's rows.
    let units = unsafe { slice::from_raw_parts(units, m) };
    // SAFETY: the gate's rows.
    let seats = unsafe { slice::from_raw_parts(seats, n) };
    reading(units, seats)
}

unsafe extern "C" fn idle(_: *const Field, _: *mut Words) -> Status {
    Status::DONE
}

/// Leads a table through the gate.
fn lead(table: Table) -> Result<&'static Table, Refusal> {
    let table = NonNull::from(Box::leak(Box::new(table)));
    // SAFETY: a whole table, leaked; its functions keep their contract for any rows of the gate's.
    unsafe { admit(table) }
}

#[test]
fn honest_rules_go_in() {
    assert_eq!(lead(honest()).map(|table| table.number), Ok(1));
}

#[test]
fn another_interface_stays_out_and_is_not_read_any_further() {
    // Nothing lies behind the version: reading on would read beyond the end.
    let version: &'static u32 = Box::leak(Box::new(INTERFACE + 1));
    // SAFETY: four bytes, leaked, that do not say `INTERFACE`.
    let led = unsafe { admit(NonNull::from(version).cast()) };
    assert_eq!(led.err(), Some(Refusal::Interface { theirs: INTERFACE + 1 }));
}

#[test]
fn rules_built_for_another_state_stay_out() {
    /// An arena before it had scores.
    #[derive(Snapshot)]
    struct Arena {
        tick: u64,
        units: Vec<Unit>,
    }

    let theirs = Fingerprint::of::<Arena>();
    let led = lead(Table { fingerprint: theirs.to_bytes(), ..honest() });
    let ours = Fingerprint::of::<world::Arena>();
    assert_eq!(led.err(), Some(Refusal::Fingerprint { theirs, ours }));
}

#[test]
fn rules_with_longer_rows_stay_out() {
    let longer = size_of::<Unit>() as u32 + 8;
    let led = lead(Table { unit_size: longer, ..honest() });
    let ours = size_of::<Unit>() as u32;
    assert_eq!(led.err(), Some(Refusal::RowSize { row: "unit", theirs: longer, ours }));
}

/// A row of the same size, with places and speeds the other way round.
#[repr(C)]
struct LiarsUnit {
    id: u32,
    owner: u32,
    dx: f32,
    dy: f32,
    x: f32,
    y: f32,
    hp: u32,
    kind: u32,
}

/// Reads rows as the liar sees them. It claims the server's offsets, as a liar would.
unsafe extern "C" fn read_as_a_liar(
    units: *const Unit,
    m: usize,
    seats: *const Seat,
    n: usize,
) -> u64 {
    // SAFETY: the gate's rows; a liar's row is as long and takes any bytes.
    let units = unsafe { slice::from_raw_parts(units.cast::<LiarsUnit>(), m) };
    // SAFETY: the gate's rows.
    let seats = unsafe { slice::from_raw_parts(seats, n) };
    let believed = |u: &LiarsUnit| Unit {
        id: u.id,
        owner: u.owner,
        x: u.x,
        y: u.y,
        dx: u.dx,
        dy: u.dy,
        hp: u.hp,
        kind: u.kind,
    };
    reading(&units.iter().map(believed).collect::<Vec<_>>(), seats)
}

#[test]
fn a_liar_with_the_right_fingerprint_and_other_rows_stays_out() {
    let led = lead(Table { probe: read_as_a_liar, ..honest() });
    assert_eq!(led.err(), Some(Refusal::Trial));
}

#[test]
fn a_refusal_says_what_differs() {
    let words = Refusal::Interface { theirs: 9 }.to_string();
    assert_eq!(words, format!("it speaks interface 9, this server {INTERFACE}"));
    assert!(Refusal::Trial.to_string().contains("other values"));
}

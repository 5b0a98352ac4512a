//! The gate: what a set of rules must show before any of its code sees the state.
//!
//! It asks for three things, the cheapest first: the interface version, the layout fingerprint, and
//! then proof, since a fingerprint is a mere claim. The proof is a trial: the rules read rows that
//! mean nothing, and must have read what the server wrote. It knows tables, not files.

use std::{fmt, ptr::NonNull};

use snapring::Fingerprint;

use crate::{
    interface::{INTERFACE, Seat, Table, reading},
    world::{Arena, Unit, mix},
};

/// Rows of each kind in the trial.
pub(crate) const TRIAL_ROWS: usize = 24;

/// The trial's memory is this many times what its rows take, so that rules which believe in larger
/// rows read zeros and not beyond the end.
const SLACK: usize = 8;

/// Why a set of rules stays outside.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Interface { theirs: u32 },
    Fingerprint { theirs: Fingerprint, ours: Fingerprint },
    RowSize { row: &'static str, theirs: u32, ours: u32 },
    Trial,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Interface { theirs } => {
                write!(f, "it speaks interface {theirs}, this server {INTERFACE}")
            }
            Refusal::Fingerprint { theirs, ours } => write!(
                f,
                "it was built for another state: layout {theirs}, this server has {ours}; build \
                 both from the same world.rs"
            ),
            Refusal::RowSize { row, theirs, ours } => {
                write!(f, "a {row} takes {theirs} bytes in the rules and {ours} in this server")
            }
            Refusal::Trial => write!(
                f,
                "it claims the right layout, but reads other values from a row than were written"
            ),
        }
    }
}

/// Lets a table in, or says why not.
///
/// # Safety
///
/// `table` points at four readable, aligned bytes that never change. If they say [`INTERFACE`],
/// then a whole [`Table`] is there, forever, and its functions keep the contract of [`Call`] for
/// rows of the sizes that the table names.
///
/// [`Call`]: crate::interface::Call
pub(crate) unsafe fn admit(table: NonNull<Table>) -> Result<&'static Table, Refusal> {
    // SAFETY: the caller vouches for the first four bytes.
    let theirs = unsafe { table.cast::<u32>().read() };
    if theirs != INTERFACE {
        return Err(Refusal::Interface { theirs });
    }
    // SAFETY: the version agrees, so a whole table is there, for good.
    let table: &'static Table = unsafe { table.as_ref() };

    let (theirs, ours) = (Fingerprint::from_bytes(table.fingerprint), Fingerprint::of::<Arena>());
    if theirs != ours {
        return Err(Refusal::Fingerprint { theirs, ours });
    }
    let sizes = [
        ("unit", table.unit_size, size_of::<Unit>() as u32),
        ("seat", table.seat_size, size_of::<Seat>() as u32),
    ];
    for (row, theirs, ours) in sizes {
        if theirs != ours {
            return Err(Refusal::RowSize { row, theirs, ours });
        }
    }

    let (units, seats) = trial_rows();
    // SAFETY: the rows are there, initialised, and the rules only read them; the sizes agree, and
    // there is slack behind the rows.
    let read = unsafe { (table.probe)(units.as_ptr(), TRIAL_ROWS, seats.as_ptr(), TRIAL_ROWS) };
    if read != reading(&units[..TRIAL_ROWS], &seats[..TRIAL_ROWS]) {
        return Err(Refusal::Trial);
    }
    Ok(table)
}

/// Rows whose every field has a value of its own, with slack behind them.
fn trial_rows() -> (Vec<Unit>, Vec<Seat>) {
    let mut next = 0;
    let mut number = || {
        next += 1;
        mix(next, 7) as u32
    };
    let units = (0..TRIAL_ROWS).map(|_| Unit {
        id: number(),
        owner: number(),
        x: number() as f32,
        y: number() as f32,
        dx: number() as f32,
        dy: number() as f32,
        hp: number(),
        kind: number(),
    });
    let mut units: Vec<Unit> = units.collect();
    let seats = (0..TRIAL_ROWS).map(|_| Seat {
        points: u64::from(number()) << 32 | u64::from(number()),
        player: number(),
        target_x: number() as f32,
        target_y: number() as f32,
        unused: 0,
    });
    let mut seats: Vec<Seat> = seats.collect();
    let (unit, seat) = (
        Unit { id: 0, owner: 0, x: 0.0, y: 0.0, dx: 0.0, dy: 0.0, hp: 0, kind: 0 },
        Seat { points: 0, player: 0, target_x: 0.0, target_y: 0.0, unused: 0 },
    );
    units.resize(TRIAL_ROWS * SLACK, unit);
    seats.resize(TRIAL_ROWS * SLACK, seat);
    (units, seats)
}

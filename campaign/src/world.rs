#![forbid(unsafe_code)]
//! The state that all campaigns save: made from one number, which every part of it tells.

use std::{cell::RefCell, collections::BTreeMap};

use snapring::{Caretaker, Memento, PagedVec, Snapshot};

#[derive(Snapshot, Debug, PartialEq, Clone)]
pub(crate) struct Player {
    name: String,
    hp: f32,
    bag: Vec<u16>,
    friend: Option<Box<u64>>,
}

#[derive(Snapshot, Debug, PartialEq, Clone)]
pub(crate) struct World {
    pub(crate) tick: u64,
    players: Vec<Player>,
    scores: BTreeMap<String, i32>,
    ground: Vec<u8>,
    /// Of which few pages change from one number to the next.
    cells: PagedVec<u64>,
}

/// The number of a world with so many bytes of ground.
pub(crate) fn tick(serial: u64, ground: u64) -> u64 {
    ground << 32 | (serial & 0xffff_ffff)
}

/// The serial part of a world's number.
pub(crate) fn serial(tick: u64) -> u64 {
    tick & 0xffff_ffff
}

/// The world of this number.
pub(crate) fn world(n: u64) -> World {
    let s = serial(n);
    let player = |i: u64| Player {
        name: format!("player {i} of {s}"),
        hp: s as f32 + 0.5,
        bag: (0..i as u16 + 3).map(|j| j ^ s as u16).collect(),
        friend: i.is_multiple_of(2).then(|| Box::new(s * 1000 + i)),
    };
    let mark = s.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let ground = mark.iter().copied().cycle().take((n >> 32) as usize).collect();
    World {
        tick: n,
        players: (0..1 + s % 3).map(player).collect(),
        scores: (0..3).map(|i| (format!("score {i}"), (s as i32).wrapping_sub(i))).collect(),
        ground,
        cells: cells(s),
    }
}

/// Cells of a world.
const CELLS: usize = 400;

/// The cells of a number; pages that are as they were in the last world that this thread made are the
/// same ones.
fn cells(serial: u64) -> PagedVec<u64> {
    thread_local! {
        static LAST: RefCell<Option<PagedVec<u64>>> = const { RefCell::new(None) };
    }
    // A page of eight changes once in 24 numbers.
    let cell = |at: usize| serial - ((serial + at as u64 / 8 * 5) % 24).min(serial);
    LAST.with_borrow_mut(|last| {
        let last = last.get_or_insert_with(|| {
            let mut cells = PagedVec::with_page_len(8);
            cells.extend(std::iter::repeat_n(0, CELLS));
            cells
        });
        for at in 0..CELLS {
            if last[at] != cell(at) {
                last[at] = cell(at);
            }
        }
        last.clone()
    })
}

/// The number of the world that a memento holds; what is wrong if it holds a mixture.
pub(crate) fn number_of(memento: &Memento<World>) -> Result<u64, String> {
    let found = memento.thaw().map_err(|e| format!("{} does not thaw: {e}", memento.id()))?;
    if found == world(found.tick) {
        Ok(found.tick)
    } else {
        Err(format!("{} is a mixture: its number is {}", memento.id(), found.tick))
    }
}

/// One listed snapshot, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: u64,
    /// Its world; `None` where the engine refused it.
    pub(crate) tick: Option<u64>,
    /// The reason that it gave.
    pub(crate) refusal: Option<String>,
    /// The number in its label `label N`; 0 without one.
    pub(crate) label: u64,
}

/// The label of this number.
pub(crate) fn label(n: u64) -> String {
    format!("label {n}")
}

/// Everything listed, newest first; what is wrong if any of it is a mixture.
pub(crate) fn look(caretaker: &Caretaker<World>) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    for entry in caretaker.history() {
        let (tick, refusal) = match caretaker.try_memento(entry.id()) {
            Ok(memento) => (Some(number_of(&memento)?), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let label = entry.label().and_then(|l| l.strip_prefix("label ")?.parse().ok());
        found.push(Found { id: entry.id().get(), tick, refusal, label: label.unwrap_or(0) });
    }
    Ok(found)
}

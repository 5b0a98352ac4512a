#![forbid(unsafe_code)]
//! The rules themselves. They know rows, and nothing of libraries or interfaces.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::{
    interface::Seat,
    units::Units,
    world::{Unit, post},
};

/// What sets one set of rules apart from another.
pub(crate) struct Set {
    pub(crate) number: u32,
    /// Built for the interface that the server speaks.
    pub(crate) interface_agrees: bool,
    /// How far a unit goes in a tick.
    pace: f32,
    /// Gives every unit this much when it goes in.
    gift: Option<u32>,
    /// Gives every unit this much in each tick.
    rain: u32,
    /// Spoils the state when it goes in, and only then notices.
    spoils: bool,
    /// The tick, counted from its first, in which it panics half-way.
    panics_in: Option<u32>,
}

const PLAIN: Set = Set {
    number: 1,
    interface_agrees: true,
    pace: 2.0,
    gift: None,
    rain: 0,
    spoils: false,
    panics_in: None,
};

pub(crate) const SET: Set = if cfg!(feature = "v2") {
    Set { number: 2, pace: 3.0, gift: Some(20), ..PLAIN }
} else if cfg!(feature = "v3") {
    Set { number: 3, interface_agrees: false, ..PLAIN }
} else if cfg!(feature = "v4") {
    Set { number: 4, spoils: true, ..PLAIN }
} else if cfg!(feature = "v5") {
    Set { number: 5, pace: 4.0, rain: 1, panics_in: Some(3), ..PLAIN }
} else {
    PLAIN
};

/// A unit this close has arrived.
const CLOSE: f32 = 6.0;

/// Ticks of this set so far.
static TICKS: AtomicU32 = AtomicU32::new(0);

/// What the rules see.
pub(crate) struct March<'a> {
    pub(crate) size: f32,
    pub(crate) units: Units<'a>,
    pub(crate) seats: &'a mut [Seat],
}

impl March<'_> {
    /// Goes into charge.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        let all = 0..self.units.len();
        if let Some(gift) = SET.gift {
            all.clone().for_each(|at| self.units[at].hp += gift);
        }
        if SET.spoils {
            for at in all {
                let unit = &mut self.units[at];
                (unit.x, unit.y, unit.hp) = (f32::NAN, f32::NAN, 0);
            }
            self.seats.iter_mut().for_each(|seat| seat.points = !seat.points);
            return Err("no table for this season".to_owned());
        }
        Ok(())
    }

    /// One tick.
    pub(crate) fn tick(&mut self) -> Result<(), String> {
        // Relaxed: a count, on one thread.
        let nth = TICKS.fetch_add(1, Ordering::Relaxed) + 1;
        let last = if SET.panics_in == Some(nth) { self.units.len() / 2 } else { usize::MAX };
        for at in 0..self.units.len() {
            // The bug of v5: an index that leaves the map.
            let at = if at > last { at + self.units.len() } else { at };
            let unit = self.units[at];
            let next = self.step(unit);
            // Who rests is not written: the page stays what the snapshots have.
            if next != unit {
                self.units[at] = next;
            }
        }
        Ok(())
    }

    /// One unit, a tick later.
    fn step(&mut self, mut unit: Unit) -> Unit {
        unit.hp += SET.rain;
        let players = self.seats.len().max(1);
        let Some(seat) = self.seats.get_mut(unit.owner as usize % players) else { return unit };
        // Units of one player spread out around the place they are sent to.
        let [x, y] = post(unit.id, [seat.target_x, seat.target_y]);
        let (to_x, to_y) = (x - unit.x, y - unit.y);
        let way = to_x.hypot(to_y);
        if way > CLOSE {
            (unit.dx, unit.dy) = (to_x / way * SET.pace, to_y / way * SET.pace);
        } else if (unit.dx, unit.dy) != (0.0, 0.0) {
            // It has arrived, and is the better for it.
            (unit.dx, unit.dy) = (0.0, 0.0);
            unit.hp += u32::from(unit.hp < 200);
            seat.points += 1;
        }
        unit.x = (unit.x + unit.dx).clamp(0.0, self.size);
        unit.y = (unit.y + unit.dy).clamp(0.0, self.size);
        unit
    }
}

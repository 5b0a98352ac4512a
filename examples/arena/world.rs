#![forbid(unsafe_code)]
//! The state of the game: everything that a snapshot holds. The server and every set of rules are
//! built from this file; its layout is the fingerprint by which rules are let in.

use std::collections::HashMap;

use snapring::{PagedVec, Snapshot};

use crate::gateway::Gateway;

/// Width of a cell of the map, and how far a client sees: its own cell and the eight around it.
pub(crate) const CELL: f32 = 64.0;

/// Units for each cell, about; the map's size follows from it.
const CROWD: u32 = 12;

/// More units than this would not fit the coordinates that go over the wire.
pub(crate) const MOST_UNITS: u32 = 100_000;

/// Units of a page. A player's units stand side by side in the state, a few dozen of them, and march
/// together, so a march is about two or three pages of this length, and the pages of those who rest stay
/// as they are. Half as long would hardly save a byte: each page takes 32 bytes in every snapshot,
/// whether it has changed or not, beside the 512 of its units.
pub(crate) const PAGE: usize = 16;

/// How far from where a player sends them units stand, at most, on either axis.
pub(crate) const SPREAD: f32 = 40.0;

/// The whole state.
#[derive(Snapshot)]
pub(crate) struct Arena {
    pub(crate) tick: u64,
    /// The rules in charge; 0 for none.
    pub(crate) rules: u32,
    /// Length of the square map's sides.
    pub(crate) size: f32,
    /// Unit `n` stands at index `n`. What a tick does not touch is in no page that it writes.
    pub(crate) units: PagedVec<Unit>,
    pub(crate) players: Vec<Player>,
    /// Points by player.
    pub(crate) scores: HashMap<u32, u64>,
}

/// One unit: a plain row, the same in the state, in the archive and across the plugin's interface.
#[derive(Snapshot, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub(crate) struct Unit {
    pub(crate) id: u32,
    /// The player who commands it.
    pub(crate) owner: u32,
    pub(crate) x: f32,
    pub(crate) y: f32,
    pub(crate) dx: f32,
    pub(crate) dy: f32,
    pub(crate) hp: u32,
    pub(crate) kind: u32,
}

/// One player. The connection is not archived: a rollback leaves it with the player who has it.
#[derive(Snapshot)]
pub(crate) struct Player {
    #[snapshot(id)]
    pub(crate) id: u32,
    pub(crate) name: String,
    /// The unit through whose eyes the player sees.
    pub(crate) eye: u32,
    /// Where the player's units are ordered to go.
    pub(crate) target: [f32; 2],
    #[snapshot(skip)]
    pub(crate) gateway: Option<Gateway>,
}

/// How much of a state differs from a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) units: usize,
    pub(crate) scores: usize,
}

impl Arena {
    /// A new world; the players' camps are spread over the map, with the same number of units in each.
    pub(crate) fn new(units: u32, players: u32) -> Arena {
        let cells = (f64::from(units) / f64::from(CROWD)).sqrt().ceil().max(3.0);
        let size = cells as f32 * CELL;
        let rows = (0..units).map(|id| {
            let owner = (u64::from(id) * u64::from(players.max(1)) / u64::from(units)) as u32;
            let [x, y] = post(id, camp(owner, size));
            Unit { id, owner, x, y, dx: 0.0, dy: 0.0, hp: 100, kind: id % 3 }
        });
        let mut units = PagedVec::with_page_len(PAGE);
        units.extend(rows);
        let mut arena =
            Arena { tick: 0, rules: 0, size, units, players: Vec::new(), scores: HashMap::new() };
        (0..players).for_each(|id| _ = arena.join(id));
        arena
    }

    /// The player of this id, who is made if need be.
    pub(crate) fn join(&mut self, id: u32) -> &mut Player {
        let at = self.players.iter().position(|p| p.id == id).unwrap_or_else(|| {
            let first = self.units.iter().find(|unit| unit.owner == id);
            self.players.push(Player {
                id,
                name: format!("player {id}"),
                eye: first.map_or(id % self.units.len().max(1) as u32, |unit| unit.id),
                target: camp(id, self.size),
                gateway: None,
            });
            self.scores.insert(id, 0);
            self.players.len() - 1
        });
        &mut self.players[at]
    }

    /// Compares with a snapshot, in place: the units and scores that differ.
    pub(crate) fn damage(&self, before: &ArchivedArena) -> Damage {
        let same = |unit: &Unit, was: &ArchivedUnit| {
            unit.x.to_bits() == was.x.to_native().to_bits()
                && unit.y.to_bits() == was.y.to_native().to_bits()
                && unit.hp == was.hp.to_native()
        };
        let units = self.units.iter().zip(before.units.iter()).filter(|(u, w)| !same(u, w)).count();
        let scores = self
            .scores
            .iter()
            .filter(|(id, points)| {
                before.scores.get(*id).is_none_or(|was| was.to_native() != **points)
            })
            .count();
        Damage { units, scores }
    }

    /// Players who are connected.
    pub(crate) fn connected(&self) -> usize {
        self.players.iter().filter(|p| p.gateway.is_some()).count()
    }
}

/// Where a player starts.
fn camp(player: u32, size: f32) -> [f32; 2] {
    [1, 2].map(|axis| SPREAD + fraction(mix(axis, player.into())) * (size - 2.0 * SPREAD))
}

/// Where a unit stands when its player's units are sent to `there`.
pub(crate) fn post(unit: u32, there: [f32; 2]) -> [f32; 2] {
    let off = |salt| (fraction(mix(salt, unit.into())) - 0.5) * 2.0 * SPREAD;
    [there[0] + off(3), there[1] + off(4)]
}

/// A number that depends on both, evenly spread.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut n = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_add(0x2545_f491_4f6c_dd1d);
    n = (n ^ (n >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    n = (n ^ (n >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    n ^ (n >> 32)
}

/// A number from 0 up to, but not including, 1.
pub(crate) fn fraction(n: u64) -> f32 {
    (n >> 40) as f32 / (1u64 << 24) as f32
}

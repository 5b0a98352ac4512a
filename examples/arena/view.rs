#![forbid(unsafe_code)]
//! What a client sees of the world: the units in its eye's cell of the map and the eight around it,
//! in whole numbers.

use snapring::PagedVec;

use crate::world::{CELL, Unit, mix};

/// Steps of a coordinate for each unit of length.
const STEPS: f32 = 8.0;

/// One unit, as a client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: u32,
    pub(crate) x: u16,
    pub(crate) y: u16,
    pub(crate) hp: u16,
    pub(crate) kind: u16,
}

impl Row {
    pub(crate) fn of(unit: &Unit) -> Row {
        Row {
            id: unit.id,
            x: (unit.x * STEPS) as u16,
            y: (unit.y * STEPS) as u16,
            hp: unit.hp as u16,
            kind: unit.kind as u16,
        }
    }

    /// Where it is on the map, about.
    pub(crate) fn place(self) -> [f32; 2] {
        [self.x, self.y].map(|at| f32::from(at) / STEPS)
    }

    fn hash(self) -> u64 {
        let place = u64::from(self.x) << 16 | u64::from(self.y);
        mix(u64::from(self.id) << 32 | place, u64::from(self.hp) << 16 | u64::from(self.kind))
    }
}

/// The hash of a view: the same in whatever order its rows come.
pub(crate) fn hash(rows: impl IntoIterator<Item = Row>) -> u64 {
    rows.into_iter().fold(0, |sum: u64, row| sum.wrapping_add(row.hash()))
}

/// The map's cells and the units in each, as of one moment.
pub(crate) struct Grid {
    across: usize,
    /// Where each cell's units start in `members`; one more at the end.
    starts: Vec<usize>,
    /// Indices of units, cell by cell.
    members: Vec<u32>,
}

impl Grid {
    pub(crate) fn of(units: &PagedVec<Unit>, size: f32) -> Grid {
        let across = (size / CELL).ceil().max(1.0) as usize;
        let mut grid =
            Grid { across, starts: vec![0; across * across + 1], members: vec![0; units.len()] };
        for unit in units {
            let cell = grid.cell(unit);
            grid.starts[cell + 1] += 1;
        }
        for cell in 0..across * across {
            grid.starts[cell + 1] += grid.starts[cell];
        }
        let mut next = grid.starts.clone();
        for (index, unit) in units.iter().enumerate() {
            let cell = grid.cell(unit);
            grid.members[next[cell]] = index as u32;
            next[cell] += 1;
        }
        grid
    }

    fn column(&self, at: f32) -> usize {
        ((at / CELL) as usize).min(self.across - 1)
    }

    fn cell(&self, unit: &Unit) -> usize {
        self.column(unit.y) * self.across + self.column(unit.x)
    }

    /// What the eye sees, in no particular order.
    pub(crate) fn around<'a>(
        &'a self,
        units: &'a PagedVec<Unit>,
        eye: u32,
    ) -> impl Iterator<Item = Row> + 'a {
        let (x, y) = units
            .get(eye as usize)
            .map_or((0, 0), |unit| (self.column(unit.x), self.column(unit.y)));
        let reach = move |at: usize| at.saturating_sub(1)..=(at + 1).min(self.across - 1);
        reach(y)
            .flat_map(move |y| reach(x).map(move |x| y * self.across + x))
            .flat_map(|cell| &self.members[self.starts[cell]..self.starts[cell + 1]])
            .map(|index| Row::of(&units[*index as usize]))
    }
}

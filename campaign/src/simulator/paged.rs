#![forbid(unsafe_code)]
//! A state in pages, of which each change touches few: what is shared between snapshots shows its
//! age, so that a page of another generation is a mixture.

use snapring::{Archived, PagedMap, PagedVec, Snapshot};

use super::{
    originator::{Originator, cells},
    touchy::Touchy,
};

/// So many items of a vector change together, and so many numbers after they did they change again.
const AGE: u64 = 8;
const TERM: u64 = 24;

/// Everything changes after so many.
const ERA: u64 = 60;

/// A state in pages.
#[derive(Snapshot, Debug, PartialEq)]
pub(crate) struct Paged {
    number: u64,
    cells: PagedVec<u64>,
    units: Option<PagedVec<Unit>>,
    scores: PagedMap<u64, String>,
    moods: PagedVec<Touchy>,
    again: u64,
}

/// Points at what lies in the same page.
#[derive(Snapshot, Debug, PartialEq, Clone)]
struct Unit {
    id: u64,
    name: String,
    bag: Vec<u16>,
}

/// The number at which item `at` changed last.
fn age(number: u64, at: usize) -> u64 {
    let (run, serial) = (number & 0xff_ffff_0000, number & 0xffff);
    let group = (at as u64 / AGE + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let term = serial - ((serial + group) % TERM).min(serial);
    run | term.max(serial - serial % ERA)
}

fn cell(number: u64, at: usize) -> u64 {
    (age(number, at) ^ (at as u64) << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn units(number: u64) -> Option<usize> {
    (!number.is_multiple_of(5)).then_some(cells(number) / 16)
}

fn unit_name(number: u64, at: usize) -> String {
    let age = age(number, at * AGE as usize);
    let long = if age.is_multiple_of(7) { " of a long name" } else { "" };
    format!("unit {at} since {age}{long}")
}

fn bag(number: u64, at: usize) -> impl Iterator<Item = u16> {
    let age = age(number, at * AGE as usize);
    (0..age % 5).map(move |i| (age ^ i) as u16)
}

fn unit(number: u64, at: usize) -> Unit {
    Unit { id: at as u64, name: unit_name(number, at), bag: bag(number, at).collect() }
}

/// Keys of the map: some come and go.
fn keys(number: u64) -> impl Iterator<Item = (u64, String)> {
    let some = move |key: &usize| age(number, *key * AGE as usize).wrapping_mul(31) >> 3 & 3 != 0;
    (0..cells(number) / 24).filter(some).map(move |key| (key as u64 * 3, unit_name(number, key)))
}

/// Makes a vector that of a number, and writes what differs alone.
fn turn<T: Snapshot + Clone + PartialEq + Send + Sync>(
    vec: &mut PagedVec<T>,
    len: usize,
    item: impl Fn(usize) -> T,
) {
    vec.truncate(len);
    for at in 0..vec.len() {
        let new = item(at);
        if vec[at] != new {
            vec[at] = new;
        }
    }
    vec.extend((vec.len()..len).map(item));
}

impl Originator for Paged {
    const PAGED: bool = true;

    fn of(number: u64) -> Paged {
        let mut state = Paged {
            number,
            cells: PagedVec::with_page_len(8),
            units: None,
            scores: PagedMap::new(),
            moods: PagedVec::with_page_len(2),
            again: !number,
        };
        state.turn_into(number);
        state
    }

    fn turn_into(&mut self, number: u64) {
        (self.number, self.again) = (number, !number);
        turn(&mut self.cells, cells(number), |at| cell(number, at));
        match units(number) {
            None => self.units = None,
            Some(len) => {
                let units = self.units.get_or_insert_with(|| PagedVec::with_page_len(3));
                turn(units, len, |at| unit(number, at));
            }
        }
        let mut gone: Vec<u64> = Vec::new();
        let keys: std::collections::BTreeMap<u64, String> = keys(number).collect();
        gone.extend(self.scores.iter().map(|(key, _)| *key).filter(|key| !keys.contains_key(key)));
        for key in gone {
            self.scores.remove(&key);
        }
        for (key, score) in keys {
            if self.scores.get(&key) != Some(&score) {
                self.scores.insert(key, score);
            }
        }
        turn(&mut self.moods, 3, |at| Touchy(!number ^ at as u64));
    }

    fn number_in(archived: &Archived<Paged>) -> Option<u64> {
        let number = archived.number.to_native();
        let cells_fit = archived.cells.len() == cells(number)
            && archived.cells.iter().enumerate().all(|(at, c)| c.to_native() == cell(number, at));
        let units_fit = match (archived.units.as_ref(), units(number)) {
            (None, None) => true,
            (Some(found), Some(len)) => {
                let fits = |(at, unit): (usize, &Archived<Unit>)| {
                    unit.id.to_native() == at as u64
                        && unit.name.as_str() == unit_name(number, at)
                        && unit.bag.iter().map(|b| b.to_native()).eq(bag(number, at))
                };
                found.len() == len && found.iter().enumerate().all(fits)
            }
            _ => false,
        };
        let scores = archived.scores.iter().map(|(k, v)| (k.to_native(), v.as_str().to_owned()));
        let moods = archived.moods.iter().enumerate();
        let whole = archived.again.to_native() == !number
            && cells_fit
            && units_fit
            && scores.eq(keys(number))
            && archived.moods.len() == 3
            && moods.into_iter().all(|(at, m)| m.to_native() == !number ^ at as u64);
        whole.then_some(number)
    }

    fn number(&self) -> u64 {
        self.number
    }
}

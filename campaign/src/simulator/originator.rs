#![forbid(unsafe_code)]
//! What the simulated runs save: states whose whole content their number tells, so that any mixture
//! of two shows.
//!
//! [`Plain`] is restored in place. [`Moody`] has a `with` wrapper, through which a run has its
//! archiving fail, panic, or be come upon by others in the middle.

use std::{cell::RefCell, error::Error, fmt};

use rkyv::{
    Place,
    rancor::{BoxedError, Source as _},
    rend::u64_le,
    with::{ArchiveWith, DeserializeWith, SerializeWith},
};
use snapring::{Archived, Session, Snapshot, Thaw, campaign::in_gap};

/// A state that its number tells.
pub(crate) trait Originator: Snapshot + PartialEq + fmt::Debug + Send {
    /// It has pages: what its archive looks like depends on what was saved before.
    const PAGED: bool = false;

    /// The state of a number.
    fn of(number: u64) -> Self;

    /// Makes it the state of a number; in pages, touches those that differ.
    fn turn_into(&mut self, number: u64) {
        *self = Self::of(number);
    }

    /// The number of an archived state, if all of it is of that number.
    fn number_in(archived: &Archived<Self>) -> Option<u64>;

    /// The number of a live state.
    fn number(&self) -> u64;
}

/// The number of a state of so many cells, the `serial`th of the run of `seed`.
pub(crate) fn number(seed: u64, serial: u64, cells: u64) -> u64 {
    cells << 40 | (seed & 0xff_ffff) << 16 | (serial & 0xffff)
}

pub(super) fn cells(number: u64) -> usize {
    (number >> 40) as usize
}

fn cell(number: u64, at: usize) -> u64 {
    (number ^ at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn are_cells<'a>(number: u64, mut found: impl ExactSizeIterator<Item = &'a u64_le>) -> bool {
    let len = found.len();
    len == cells(number)
        && (0..len).all(|at| found.next().map(|c| c.to_native()) == Some(cell(number, at)))
}

fn name(number: u64) -> String {
    format!("state {number} of a run")
}

/// A state that is restored in place.
#[derive(Snapshot, Debug, PartialEq)]
pub(crate) struct Plain {
    number: u64,
    cells: Vec<u64>,
    name: String,
    again: u64,
}

impl Originator for Plain {
    fn of(number: u64) -> Plain {
        let cells = (0..cells(number)).map(|at| cell(number, at)).collect();
        Plain { number, cells, name: name(number), again: !number }
    }

    fn number_in(archived: &Archived<Plain>) -> Option<u64> {
        let number = archived.number.to_native();
        let whole = archived.again.to_native() == !number
            && are_cells(number, archived.cells.iter())
            && archived.name.as_str() == name(number);
        whole.then_some(number)
    }

    fn number(&self) -> u64 {
        self.number
    }
}

/// A state whose archiving may go wrong.
#[derive(Snapshot, Debug, PartialEq)]
pub(crate) struct Moody {
    number: u64,
    cells: Vec<u64>,
    #[snapshot(with = InMood)]
    mood: Mood,
    name: String,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Mood(u64);

impl Originator for Moody {
    fn of(number: u64) -> Moody {
        let cells = (0..cells(number)).map(|at| cell(number, at)).collect();
        Moody { number, cells, mood: Mood(!number), name: name(number) }
    }

    fn number_in(archived: &Archived<Moody>) -> Option<u64> {
        let number = archived.number.to_native();
        let whole = archived.mood.to_native() == !number
            && are_cells(number, archived.cells.iter())
            && archived.name.as_str() == name(number);
        whole.then_some(number)
    }

    fn number(&self) -> u64 {
        self.number
    }
}

/// How archiving goes on from its middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Go,
    Refuse,
    Panic,
}

/// What a [`Verdict::Panic`] says.
pub(crate) const PANIC: &str = "a mood";

pub(crate) type Deed = Box<dyn FnMut() -> Verdict>;

thread_local! {
    static AMID: RefCell<Option<Deed>> = const { RefCell::new(None) };
}

/// What happens amid this thread's archiving from now on; answers what would have so far.
pub(crate) fn amid_archiving(deed: Option<Deed>) -> Option<Deed> {
    AMID.with(|amid| std::mem::replace(&mut *amid.borrow_mut(), deed))
}

/// Nobody comes by on this thread while `f` runs.
pub(crate) fn undisturbed<R>(f: impl FnOnce() -> R) -> R {
    let (gap, amid) = (in_gap(None), amid_archiving(None));
    let answer = f();
    in_gap(gap);
    amid_archiving(amid);
    answer
}

pub(super) fn ask() -> Verdict {
    // Taken out meanwhile: the deed's own saves pass it.
    let Some(mut deed) = AMID.with(|amid| amid.borrow_mut().take()) else { return Verdict::Go };
    let verdict = deed();
    AMID.with(|amid| _ = amid.borrow_mut().get_or_insert(deed));
    verdict
}

/// How a [`Mood`] is archived.
pub(crate) struct InMood;

#[derive(Debug)]
pub(super) struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not in the mood")
    }
}

impl Error for Refused {}

impl ArchiveWith<Mood> for InMood {
    type Archived = u64_le;
    type Resolver = ();

    fn resolve_with(mood: &Mood, (): (), out: Place<u64_le>) {
        out.write(mood.0.into());
    }
}

impl SerializeWith<Mood, Session> for InMood {
    fn serialize_with(_: &Mood, _: &mut Session) -> Result<(), BoxedError> {
        match ask() {
            Verdict::Go => Ok(()),
            Verdict::Refuse => Err(BoxedError::new(Refused)),
            Verdict::Panic => std::panic::panic_any(PANIC),
        }
    }
}

impl DeserializeWith<u64_le, Mood, Thaw> for InMood {
    fn deserialize_with(archived: &u64_le, _: &mut Thaw) -> Result<Mood, BoxedError> {
        Ok(Mood(archived.to_native()))
    }
}

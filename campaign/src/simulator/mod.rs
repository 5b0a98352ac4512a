#![forbid(unsafe_code)]
//! The engine on a simulated disk, against a slow and obvious model: one seed, one run, always the
//! same.

mod faults;
mod image;
mod ledger;
mod life;
mod onlookers;
mod originator;
mod play;
mod rot;
mod script;
mod seed;
mod subsets;

pub(crate) use faults::{CALLS, play as fail};
pub(crate) use life::Counts;
pub(crate) use rot::{Damage, Rot};
pub(crate) use seed::{exhaust, hush_moods, images, recoveries, run};
pub(crate) use subsets::Tally;

//! The engine on a simulated disk, against a slow and obvious model: one seed, one run, always the
//! same.

mod captures;
mod faults;
mod image;
mod ledger;
mod life;
mod onlookers;
mod originator;
mod paged;
mod play;
mod rot;
mod script;
mod seed;
mod subsets;
mod touchy;

pub(crate) use faults::{CALLS, play as fail};
pub(crate) use life::Counts;
pub(crate) use originator::{Originator, Plain};
pub(crate) use paged::Paged;
pub(crate) use rot::{Damage, Rot};
pub(crate) use seed::{exhaust, hush_moods, images, recoveries, run};
pub(crate) use subsets::Tally;

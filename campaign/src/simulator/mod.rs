#![forbid(unsafe_code)]
//! The engine on a simulated disk, against a slow and obvious model: one seed, one run, always the
//! same.

mod image;
mod ledger;
mod life;
mod originator;
mod play;
mod script;
mod seed;
mod subsets;

pub(crate) use life::Counts;
pub(crate) use seed::{exhaust, hush_moods, images, run};
pub(crate) use subsets::Tally;

//! The campaigns, one a file. A new one is a file here and a line in [`ALL`].

use crate::run::Run;

mod faults;
mod images;
mod allocations;
mod full_disk;
mod lives;
mod mutants;
mod panics;
mod power;
mod recovery;
mod rot;
mod readers;
mod simulate;
mod steps;
mod sync_errors;

/// A campaign: what it claims, how often it tries, and how.
#[derive(Debug)]
pub(crate) struct Campaign {
    pub(crate) name: &'static str,
    /// What it shows, as `0 of n unit failed` completes it.
    pub(crate) claim: &'static str,
    /// What is counted.
    pub(crate) unit: &'static str,
    /// How many by default, and in CI.
    pub(crate) long: u64,
    pub(crate) short: u64,
    /// What is done, what is covered, and what is not.
    pub(crate) help: &'static str,
    /// Runs it. An error is a breakdown of the campaign itself, and counts as a failure.
    pub(crate) run: fn(&mut Run) -> Result<(), String>,
}

#[rustfmt::skip]
pub(crate) static ALL: &[&Campaign] = &[
    &simulate::CAMPAIGN,
    &images::CAMPAIGN,
    &recovery::CAMPAIGN,
    &faults::CAMPAIGN,
    &rot::CAMPAIGN,
    &lives::CAMPAIGN,
    &power::CAMPAIGN,
    &steps::CAMPAIGN,
    &sync_errors::CAMPAIGN,
    &full_disk::CAMPAIGN,
    &allocations::CAMPAIGN,
    &panics::CAMPAIGN,
    &readers::CAMPAIGN,
    &mutants::CAMPAIGN,
];

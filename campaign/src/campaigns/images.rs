#![forbid(unsafe_code)]
//! What power cuts leave: all subsets of the dirty pages, and random subsets of their sectors.

use super::Campaign;
use crate::{
    parallel::{Outcome, over_seeds},
    run::Run,
    simulator::{self, Tally},
};

pub(crate) static CAMPAIGN: Campaign = Campaign {
    name: "images",
    claim: "whatever part of the dirty pages reaches the disk, what is durable is found, and nothing wrong",
    unit: "images",
    long: 100_000_000,
    short: 100_000,
    help: "\
A script of saves, rollbacks, labels, flushes, evictions, kills and closes on a simulated disk is
stopped at every store and every call; there all 2^n subsets of the dirty pages (n up to 17: a state of
15 pages, its slot page and the header page) are surveyed as recovery would survey them, one page
flipped from each image to the next. Then the runs of `simulate` give random moments, each with random
subsets of 512-byte sectors. What is found under an id is compared byte for byte with what was saved
under it; every listed snapshot that was called durable must be there; no id may be given out again.

With --short the script's sets stop at n = 11.

Where a record is whole and its archive is not, the checksum alone tells: `told by the checksum` counts
those. One in 2^32 of them would be taken for whole were not the check of the archive behind it.",
    run,
};

/// Images of one seed.
const EACH: u64 = 2_000;

fn run(run: &mut Run) -> Result<(), String> {
    simulator::hush_moods();
    let most = if run.count >= 1_000_000 { 17 } else { 11 };
    for (outcome, tally) in simulator::exhaust(most) {
        run.tried(tally.images);
        run.fact("of them in whole sets of subsets", tally.images);
        facts(&tally).into_iter().for_each(|(fact, more)| run.fact(fact, more));
        if let Err(wrong) = outcome {
            run.fail(format!("in the script: {wrong}"));
        }
    }
    over_seeds(run, u64::MAX, |seed| {
        let (report, tally) = simulator::images(seed, EACH, false);
        let wrong = report.failure.map(|wrong| {
            let trace = simulator::images(seed, EACH, true).0.trace.join("\n  ");
            format!("seed {seed}: {wrong}\n  {trace}")
        });
        let failures = wrong.into_iter().collect();
        Outcome { tried: tally.images, failures, facts: facts(&tally) }
    });
    let told = run.facts("told by the checksum");
    println!(
        "  {told} broken archives under whole records: {:.1e} expected to pass the checksum by chance",
        told as f64 / 2_f64.powi(32)
    );
    Ok(())
}

fn facts(tally: &Tally) -> Vec<(&'static str, u64)> {
    vec![("whole sets of subsets", tally.sets), ("told by the checksum", tally.by_checksum)]
}

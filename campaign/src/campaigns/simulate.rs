#![forbid(unsafe_code)]
//! Whole lives on a simulated disk, against a slow and obvious model.

use super::Campaign;
use crate::{
    parallel::{Outcome, over_seeds},
    run::Run,
    simulator::{self, Counts},
};

pub(crate) static CAMPAIGN: Campaign = Campaign {
    name: "simulate",
    claim: "what a model of lists and numbers says is what the engine does",
    unit: "seeds",
    long: 1_000_000,
    short: 1_000,
    help: "\
One seed is one run, the same every time: two to five lives on one simulated disk, with saves,
rollbacks, guards, labels, mementos held, readers come upon in every gap, places leased by readers in
other processes, flushes, expiry, and other threads' saves while the disk syncs. The disk writes back
what it likes at any step, refuses calls, gets full, loses files. At any step, also amid archiving and
amid recovery, images are taken as a kill and as a power cut would leave them (any subset of dirty
sectors of 512 bytes), opened, and compared with what had been reported: promises P1 to P5, each
failure with its number.

A failure prints its seed and what was done; `--seed S --count 1` does it again.",
    run,
};

fn run(run: &mut Run) -> Result<(), String> {
    simulator::hush_moods();
    over_seeds(run, run.count, |seed| {
        let report = simulator::run(seed, false);
        let mut failures = Vec::new();
        if let Some(wrong) = report.failure {
            let trace = simulator::run(seed, true).trace.join("\n  ");
            failures.push(format!("seed {seed}: {wrong}\n  {trace}"));
        }
        Outcome { tried: 1, failures, facts: facts(&report.counts) }
    });
    Ok(())
}

fn facts(counts: &Counts) -> Vec<(&'static str, u64)> {
    vec![
        ("operations", counts.operations),
        ("snapshots published", counts.published),
        ("saves refused, without a trace", counts.refused),
        ("images of kills", counts.kills),
        ("images of power cuts", counts.cuts),
        ("crashes during recovery", counts.deep),
        ("lives", counts.lives),
        ("broken disks", counts.faults),
    ]
}

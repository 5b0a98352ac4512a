#![forbid(unsafe_code)]
//! A campaign that notices nothing is worth nothing: each rule, broken, must be noticed.

use std::process::{Command, Stdio};

use super::Campaign;
use crate::run::Run;

pub(crate) static CAMPAIGN: Campaign = Campaign {
    name: "mutants",
    claim: "broken rules that the campaign for them did not notice",
    unit: "mutants",
    long: MUTANTS.len() as u64,
    short: MUTANTS.len() as u64,
    help: "\
Breaks one rule of snapring after the other, by a switch in the engine that only this build has, and runs
the campaign that must notice, short. It counts as noticed when that campaign fails.

  no-steady-rule       power        the newest durable snapshot is evicted like any other
  floor-not-raised     power        the id floor is not raised at opening
  evict-first          steps        the oldest snapshot goes before the new one is archived
  retry-sync           sync-errors  a failed sync is tried again, and believed
  reuse-leased         readers      a place that another process leases is used again

The other mutants are for `simulate`.",
    run,
};

/// A mutant, the campaign that must notice, and how often that tries.
const MUTANTS: [(&str, &str, u64); 5] = [
    ("no-steady-rule", "power", 600),
    ("floor-not-raised", "power", 300),
    ("evict-first", "steps", 20_000),
    ("retry-sync", "sync-errors", 300),
    ("reuse-leased", "readers", 66),
];

fn run(run: &mut Run) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    for (mutant, campaign, count) in MUTANTS {
        let mut command = Command::new(&program);
        command.arg(campaign).args(["--mutant", mutant, "--count", &count.to_string()]);
        command.args(["--seed", &run.seed.to_string()]);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        match status.map_err(|error| error.to_string())?.code() {
            Some(1) => println!("mutants: {mutant} was noticed by {campaign}"),
            Some(77) => {
                run.skip(mutant, format!("{campaign} cannot run here"));
                continue;
            }
            other => run
                .fail(format!("{mutant} was not noticed by {campaign} (it ended with {other:?})")),
        }
        run.tried(1);
    }
    Ok(())
}

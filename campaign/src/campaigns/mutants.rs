#![forbid(unsafe_code)]
//! Every rule of the engine's broken in turn, and the campaigns made to notice.

use std::process::{Command, Stdio};

use serde_json::Value;
use snapring::campaign::Mutant;

use super::Campaign;
use crate::run::Run;

pub(crate) static CAMPAIGN: Campaign = Campaign {
    name: "mutants",
    claim: "a broken rule is noticed",
    unit: "rules",
    long: Mutant::ALL.len() as u64,
    short: Mutant::ALL.len() as u64,
    help: "\
Breaks one rule of the engine's after the other, each in a process of its own, and runs the campaigns
that are to notice until one does. A rule that nobody misses is a failure, and so is a failure while
no rule is broken. The rules: see `Mutant` in the engine's src/mutants.rs, each with what it says.",
    run,
};

/// Tries within which a broken rule must be noticed, and which must pass while none is.
fn tries(campaign: &str) -> u64 {
    match campaign {
        "steps" => 20_000,
        "sync-errors" | "readers" => 300,
        "power" => 600,
        _ => 3_000,
    }
}

/// The campaigns that are to notice, each of them.
fn watchers(mutant: Mutant) -> &'static [&'static str] {
    match mutant {
        // No write-back and no crash makes one id of another: it takes bits that flip.
        Mutant::SealWithoutId => &["rot"],
        Mutant::RetrySync => &["simulate", "faults", "sync-errors"],
        Mutant::SlotBeforeData | Mutant::NoDurableNote => &["simulate", "faults"],
        Mutant::NoSteadyRule | Mutant::FloorNotRaised => &["simulate", "power"],
        Mutant::EvictFirst => &["simulate", "steps"],
        Mutant::ReuseLeased => &["simulate", "readers"],
        _ => &["simulate"],
    }
}

fn run(run: &mut Run) -> Result<(), String> {
    for campaign in ["simulate", "rot", "faults"] {
        if let Some((tried, what)) = watch(run, campaign, None)? {
            run.fail(format!("no rule is broken, and {campaign} fails after {tried}: {what}"));
        }
    }
    println!("{:<20} {:<10} {:>8}  how", "rule broken", "noticed by", "after");
    for mutant in Mutant::ALL.into_iter().take(run.count as usize) {
        let mut noticed = false;
        for campaign in watchers(mutant) {
            if let Some((tried, what)) = watch(run, campaign, Some(mutant))? {
                let what: String = what.lines().next().unwrap_or("").chars().take(90).collect();
                println!("{:<20} {campaign:<10} {tried:>8}  {what}", mutant.name());
                run.fact(&format!("{} noticed by {campaign} after", mutant.name()), tried);
                noticed = true;
            }
        }
        run.tried(1);
        if !noticed {
            run.fail(format!("{} is broken, and nobody noticed", mutant.name()));
        }
    }
    Ok(())
}

/// Runs a campaign in a process of its own. What it failed with, and after how many tries.
fn watch(
    run: &Run,
    campaign: &str,
    mutant: Option<Mutant>,
) -> Result<Option<(u64, String)>, String> {
    let told = run.memory.with_extension("mutant");
    let exe = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
    let mut command = Command::new(exe);
    command.arg(campaign).args(["--short", "--count", &tries(campaign).to_string()]);
    command.args(["--seed", &run.seed.to_string()]).arg("--json").arg(&told);
    if let Some(mutant) = mutant {
        command.args(["--break", &mutant.name()]);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().map_err(|e| format!("{campaign} cannot be run: {e}"))?;
    let text = std::fs::read_to_string(&told).unwrap_or_default();
    _ = std::fs::remove_file(&told);
    if status.success() {
        return Ok(None);
    }
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    let tried = value["tried"].as_u64().unwrap_or(0);
    let what = value["failures"][0].as_str().map_or_else(|| status.to_string(), str::to_owned);
    Ok(Some((tried, what)))
}

#![forbid(unsafe_code)]
//! Recoveries that are crashed, and the recoveries of those.

use super::Campaign;
use crate::{
    parallel::{Outcome, over_seeds},
    run::Run,
    simulator,
};

pub(crate) static CAMPAIGN: Campaign = Campaign {
    name: "recovery",
    claim: "a recovery crashed two and three deep finds what the first would have found",
    unit: "recoveries",
    long: 1_000_000,
    short: 10_000,
    help: "\
The runs of `simulate`. At random steps of theirs the process is killed or the power cut; while what is
left is opened, again at a random step, and once or twice more. What the last opening finds must agree
with what had been reported before the first crash: everything after kills alone, what was durable
after power cuts. Depth counts the recoveries that a crash ended.",
    run,
};

/// Recoveries of one seed.
const EACH: u64 = 40;

fn run(run: &mut Run) -> Result<(), String> {
    simulator::hush_moods();
    over_seeds(run, u64::MAX, |seed| {
        let (report, depths) = simulator::recoveries(seed, EACH);
        let wrong = report.failure.map(|wrong| format!("seed {seed}: {wrong}"));
        let facts = vec![
            ("seeds", 1),
            ("crashed once, or not at all", depths[0] + depths[1]),
            ("crashed two deep", depths[2]),
            ("crashed three deep", depths[3]),
        ];
        Outcome { tried: depths[2] + depths[3], failures: wrong.into_iter().collect(), facts }
    });
    Ok(())
}

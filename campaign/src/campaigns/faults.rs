#![forbid(unsafe_code)]
//! A disk that refuses: the n-th call of each kind, for every n that there is.

use snapring::campaign::Fault;

use super::Campaign;
use crate::{
    parallel::{Outcome, over_seeds},
    run::Run,
    simulator::{self, CALLS},
};

pub(crate) static CAMPAIGN: Campaign = Campaign {
    name: "faults",
    claim: "a call that fails is told, and nothing that a power cut loses was called durable",
    unit: "failing calls",
    long: 100_000,
    short: 1_000,
    help: "\
A script of saves, rollbacks, labels, flushes, kills and closes on a simulated disk, of which the n-th
call of a kind fails: for every kind (a range, a header, a whole file, names, the floor synced; space
reserved; bytes written; files made and renamed), for n = 0, 1, .. until the script comes to its end
without it, with EIO and with ENOSPC, once and for ever. A failed sync leaves its pages clean and
unwritten, as Linux does. Each failing call is told by what needed it, failed syncs by every flush and
close after; opening again after it fails finds everything. The power is cut at every few steps, and
what was called durable must be there.

Round after round with other power cuts, until there are enough tries.",
    run,
};

fn run(run: &mut Run) -> Result<(), String> {
    simulator::hush_moods();
    over_seeds(run, u64::MAX, |seed| {
        let mut all = Outcome::default();
        let mut cuts = 0;
        // One kind of fault for each seed.
        let kind = seed as usize;
        let call = CALLS[kind % CALLS.len()];
        let errno = if (kind / CALLS.len()).is_multiple_of(2) { libc::EIO } else { libc::ENOSPC };
        let for_ever = kind / CALLS.len() / 2 % 2 == 1;
        let paged = (seed + seed / (4 * CALLS.len() as u64)).is_multiple_of(2);
        for after in 0.. {
            let failed = simulator::fail(seed, Fault { call, after, errno, for_ever }, paged);
            cuts += failed.cuts;
            if let Err(wrong) = failed.outcome {
                all.failures.push(format!(
                    "seed {seed}: call {after} of {call:?} fails with {errno}, for ever: {for_ever}, \
                     paged: {paged}: {wrong}"
                ));
            }
            if !failed.hit {
                break;
            }
            all.tried += 1;
        }
        all.facts = vec![("power cuts", cuts), ("whole loops", 1)];
        all
    });
    Ok(())
}

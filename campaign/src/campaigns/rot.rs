#![forbid(unsafe_code)]
//! Damage: every bit, and whole pages lost, misplaced and out of date.

use snapring::campaign::{PAGE, Random};

use super::Campaign;
use crate::{
    parallel::{Outcome, by_turns},
    run::Run,
    simulator::{self, Damage, Originator, Paged, Plain, Rot},
};

pub(crate) static CAMPAIGN: Campaign = Campaign {
    name: "rot",
    claim: "damage is noticed: nothing is found under a wrong id or with another content",
    unit: "damages",
    long: 10_000_000,
    short: 30_000,
    help: "\
A small directory, made by a script of saves, rollbacks, labels, flushes and evictions on a simulated
disk. Each damage is done to it alone: every bit of the header, slot and data pages flipped; each page
zeroed, put in the place of each other one, exchanged with it, or as it was earlier. The damaged files
are surveyed as recovery would, in the boot that wrote them and in another; whatever would be listed is
compared with what was published under its id, byte for byte. Pages, and some of the bits, are also
opened, read and saved to. Nothing may panic, and no id may be given out again.

With --short the bits and the pairs of pages are drawn by chance; directories follow each other until there are enough tries.",
    run,
};

fn run(run: &mut Run) -> Result<(), String> {
    simulator::hush_moods();
    let (every_bit, once) = (run.count >= 1_000_000, run.stops_at_once());
    by_turns(run, u64::MAX, 1, |seed| {
        let mut all = Outcome::default();
        let outcome = if seed.is_multiple_of(2) {
            Rot::<Plain>::new(seed)
                .map(|mut rot| damage(seed, &mut rot, (every_bit, once), &mut all))
        } else {
            Rot::<Paged>::new(seed)
                .map(|mut rot| damage(seed, &mut rot, (every_bit, once), &mut all))
        };
        if let Err(wrong) = outcome {
            all.failures.push(format!("seed {seed}: {wrong}"));
        }
        all
    });
    Ok(())
}

/// `once`: the first failure will do.
fn damage<T: Originator>(
    seed: u64,
    rot: &mut Rot<T>,
    (every_bit, once): (bool, bool),
    all: &mut Outcome,
) {
    let mut random = Random::new(seed);
    let mut suffer = |rot: &mut Rot<T>, damage: Damage, open: bool| {
        if once && !all.failures.is_empty() {
            return;
        }
        all.tried += 1;
        if let Err(wrong) = rot.suffer(damage, open) {
            all.failures.push(format!("seed {seed}: {wrong}"));
        }
    };
    if every_bit {
        for side in 0..2 {
            for at in 0..rot.pages(side) * PAGE {
                for bit in 0..8 {
                    suffer(rot, Damage::Bit(side, at, bit), at % 61 == 0 && bit == 0);
                }
            }
        }
    } else {
        for n in 0..2_000 {
            let damage = rot.any_bit(&mut random);
            suffer(rot, damage, n % 16 == 0);
        }
    }
    let pages: Vec<_> =
        (0..2).flat_map(|side| (0..rot.pages(side)).map(move |page| (side, page))).collect();
    for a in &pages {
        suffer(rot, Damage::Zeros(a.0, a.1), true);
        suffer(rot, Damage::Stale(a.0, a.1), true);
        for b in pages.iter().filter(|b| *b != a) {
            // Of a directory of many pages some pairs will do.
            if !every_bit && !random.one_in((pages.len() as u64 / 8).max(1)) {
                continue;
            }
            suffer(rot, Damage::Copy { from: *a, to: *b }, random.one_in(4));
            if a < b {
                suffer(rot, Damage::Swap(*a, *b), random.one_in(4));
            }
        }
    }
    all.facts = vec![("surveys", rot.surveyed), ("openings", rot.opened), ("directories", 1)];
}

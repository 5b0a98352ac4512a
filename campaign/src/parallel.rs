#![forbid(unsafe_code)]
//! The same work for many seeds, on all cores, each seed on one of them.

use std::{
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use crate::run::Run;

/// Seeds that a thread takes at a time.
const TURN: u64 = 16;

/// What came of a few seeds.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) tried: u64,
    pub(crate) failures: Vec<String>,
    pub(crate) facts: Vec<(&'static str, u64)>,
}

/// Calls `work` with every seed from the run's own on, until enough has been tried or too much has
/// failed. What it answers goes to the run.
pub(crate) fn over_seeds(run: &mut Run, seeds: u64, work: impl Fn(u64) -> Outcome + Sync) {
    by_turns(run, seeds, TURN, work);
}

/// The same with `turn` seeds at a time: one, where each takes long.
pub(crate) fn by_turns(run: &mut Run, seeds: u64, turn: u64, work: impl Fn(u64) -> Outcome + Sync) {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let first = run.seed;
    let (send, receive) = mpsc::sync_channel::<Outcome>(64);
    thread::scope(|scope| {
        for _ in 0..threads {
            let (send, next, stop, work) = (send.clone(), &next, &stop, &work);
            scope.spawn(move || {
                // Relaxed: numbers alone, nothing is published by them.
                while !stop.load(Ordering::Relaxed) {
                    let from = next.fetch_add(turn, Ordering::Relaxed);
                    let mut all = Outcome::default();
                    for seed in from..from.saturating_add(turn).min(seeds) {
                        let one = work(first.wrapping_add(seed));
                        all.tried += one.tried;
                        all.failures.extend(one.failures);
                        all.facts.extend(one.facts);
                    }
                    if from >= seeds || send.send(all).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        while let Ok(outcome) = receive.recv() {
            run.tried(outcome.tried);
            for failure in outcome.failures {
                run.fail(failure);
            }
            for (fact, more) in outcome.facts {
                run.fact(fact, more);
            }
            if run.is_done() {
                // Relaxed: as above.
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
}

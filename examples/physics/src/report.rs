#![forbid(unsafe_code)]
//! The story of a rehearsal, for people to read.

use std::{
    io::{self, Write},
    time::Duration,
};

use crate::rehearsal::{Figures, MARK, Outcome, Plan};

/// What is going to happen.
pub(crate) fn announce(out: &mut impl Write, plan: &Plan, home: &str) -> io::Result<()> {
    let Plan { bricks, steps, rewind, shot } = plan;
    writeln!(
        out,
        "physics: a tower of {bricks} bricks in rapier3d, {steps} steps, shot in step {shot};"
    )?;
    writeln!(out, "then back by {rewind} steps, and those once more. Snapshots {home}.")?;
    writeln!(out)?;
    out.flush()
}

/// What has happened.
pub(crate) fn tell(out: &mut impl Write, plan: &Plan, outcome: &Outcome) -> io::Result<()> {
    let Outcome { start, mark, end, stepping, saving, bytes, rollback, .. } = outcome;
    writeln!(out, "scene       bodies  contacts  mean height")?;
    for (when, figures) in [("built", start), (MARK, mark), ("in the end", end)] {
        let Figures { bodies, contacts, height } = figures;
        writeln!(out, "{bodies:>18}{contacts:>10}{height:>11.2} m  {when}")?;
    }
    writeln!(out)?;
    let (least, most) = (megabytes(bytes.0), megabytes(bytes.1));
    writeln!(out, "snapshot    {least:.1} to {most:.1} MB, one a step")?;
    writeln!(out, "            median     worst")?;
    for (what, times) in [("step", stepping), ("save", saving)] {
        let (median, worst) = median_and_worst(times);
        writeln!(out, "{what:8}{:>7.2} ms{:>7.2} ms", ms(median), ms(worst))?;
    }
    writeln!(out)?;
    let (to, id, took) = (rollback.to(), rollback.id(), ms(rollback.took()));
    writeln!(out, "rollback    to {to}, {} steps back, in {took:.2} ms; it is {id}", plan.rewind)?;
    let again = if outcome.same_bytes { "the same bytes" } else { "OTHER BYTES" };
    writeln!(out, "            saved once more: {again}")?;
    match outcome.differs {
        None => writeln!(out, "replay      all {} steps agree, byte for byte", plan.rewind),
        Some(step) => {
            let agreed = step - 1 - (plan.steps - plan.rewind);
            writeln!(out, "replay      STEP {step} DIFFERS, after {agreed} that agree")
        }
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Of at least one time.
fn median_and_worst(times: &[Duration]) -> (Duration, Duration) {
    let mut sorted = times.to_vec();
    sorted.sort();
    (sorted[sorted.len() / 2], sorted[sorted.len() - 1])
}

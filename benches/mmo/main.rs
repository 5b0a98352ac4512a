//! Captures of large states as games have them: how long they hold up the thread that changes the
//! state, and what they add to its ticks, beside a plain copy, `fork` and a whole save; then the
//! workloads of the literature. What is timed by itself is in files of its own.

mod child;
mod memory;
mod netcode;
mod pages;
mod pause;
mod samples;
mod traces;
mod ways;
mod workloads;
mod world;

use std::error::Error;

use snapring_bench::{
    other::words,
    results::{self, Mmo},
    run::Asked,
};

type Measure = fn(&Asked, &mut Mmo);

/// Everything, by the names that filters go by.
const PARTS: [(&str, Measure); 11] = [
    ("captures players", pause::players),
    ("captures cells", pause::cells),
    ("captures by size", pause::by_size),
    ("paged vec", pages::vec),
    ("paged rollback", pages::roll_back),
    ("paged publish", pages::publish),
    ("paged memory", memory::extra),
    ("workload W1", workloads::zipf),
    ("workload W2", workloads::battle),
    ("workload W3", workloads::grid),
    ("workload W5", netcode::netcode),
];

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(words) = words() {
        memory::be(&words);
        return Ok(());
    }
    let asked = Asked::from_args();
    // What was not asked for stays as an earlier run has left it.
    let mut mmo: Mmo =
        if asked.all() { Mmo::default() } else { results::read("mmo").unwrap_or_default() };
    for (name, part) in PARTS {
        if asked.wants(name) {
            part(&asked, &mut mmo);
        }
    }
    if !asked.test {
        results::write("mmo", &mmo)?;
    }
    Ok(())
}

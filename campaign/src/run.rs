#![forbid(unsafe_code)]
//! One run of a campaign: how much is to be done, what came of it, and how it is told.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{campaigns::Campaign, machine};

/// Failures that are told in full.
const TOLD: usize = 20;

/// What a run is to do, and has done.
#[derive(Debug)]
pub(crate) struct Run {
    campaign: &'static Campaign,
    pub(crate) count: u64,
    pub(crate) seed: u64,
    /// A directory for files in memory, and one on the disk.
    pub(crate) memory: PathBuf,
    pub(crate) disk: PathBuf,
    tried: u64,
    failed: u64,
    /// Failures after which the run ends.
    enough: u64,
    failures: Vec<String>,
    skipped: Vec<(String, String)>,
    facts: BTreeMap<String, u64>,
    started: Instant,
    told: Instant,
    terminal: bool,
}

impl Run {
    pub(crate) fn new(campaign: &'static Campaign, count: u64, seed: u64, dir: &Path) -> Run {
        let name = format!("snapring-campaign-{}", std::process::id());
        let memory = Path::new("/dev/shm");
        let memory = if memory.is_dir() { memory } else { dir };
        Run {
            campaign,
            count,
            seed,
            memory: memory.join(&name),
            disk: dir.join(format!("{name}-disk")),
            tried: 0,
            failed: 0,
            enough: 1000,
            failures: Vec::new(),
            skipped: Vec::new(),
            facts: BTreeMap::new(),
            started: Instant::now(),
            told: Instant::now(),
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// The first failure ends it.
    pub(crate) fn stop_at_once(&mut self) {
        self.enough = 1;
    }

    /// Whether it does.
    pub(crate) fn stops_at_once(&self) -> bool {
        self.enough == 1
    }

    /// More tries have been made.
    pub(crate) fn tried(&mut self, more: u64) {
        self.tried += more;
        let terminal = self.terminal;
        let pause = Duration::from_millis(if terminal { 200 } else { 5000 });
        if self.told.elapsed() >= pause {
            self.told = Instant::now();
            self.tell(if terminal { "\r\x1b[K" } else { "" }, if terminal { "" } else { "\n" });
        }
    }

    pub(crate) fn so_far(&self) -> u64 {
        self.tried
    }

    pub(crate) fn is_done(&self) -> bool {
        self.tried >= self.count || self.failed >= self.enough
    }

    fn tell(&self, before: &str, after: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = self.tried as f64 / seconds.max(1e-9);
        let left = self.count.saturating_sub(self.tried) as f64 / rate.max(1e-9);
        let Campaign { name, unit, .. } = self.campaign;
        let mut out = std::io::stderr().lock();
        _ = write!(
            out,
            "{before}{name}: {} of {} {unit}, {} failed, {rate:.0}/s, {left:.0} s to go{after}",
            self.tried, self.count, self.failed
        );
        _ = out.flush();
    }

    /// The claim does not hold, and why.
    pub(crate) fn fail(&mut self, text: impl Into<String>) {
        self.failed += 1;
        if self.failures.len() < TOLD {
            let text = text.into();
            eprintln!("\n{}: FAILED: {text}", self.campaign.name);
            self.failures.push(text);
        }
    }

    /// A part could not run here, and why.
    pub(crate) fn skip(&mut self, what: &str, why: impl Into<String>) {
        let why = why.into();
        println!("{}: {what} skipped, because {why}", self.campaign.name);
        self.skipped.push((what.to_owned(), why));
    }

    /// Counts something besides the tries.
    pub(crate) fn fact(&mut self, name: &str, more: u64) {
        if let Some(count) = self.facts.get_mut(name) {
            *count += more;
        } else {
            self.facts.insert(name.to_owned(), more);
        }
    }

    /// What has been counted so far.
    pub(crate) fn facts(&self, name: &str) -> u64 {
        self.facts.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn exit_code(&self) -> i32 {
        match (self.failed, self.tried) {
            (0, 0) => 77,
            (0, _) => 0,
            _ => 1,
        }
    }

    /// What came of it, for machines.
    pub(crate) fn json(&self) -> Value {
        let seconds = self.started.elapsed().as_secs_f64();
        // With no failure in n tries the rate is below 3/n, 95 times in 100.
        let bound = (self.failed == 0 && self.tried > 0).then(|| 3.0 / self.tried as f64);
        let skipped = |(what, why): &(String, String)| json!({ "what": what, "because": why });
        json!({
            "campaign": self.campaign.name,
            "claim": self.campaign.claim,
            "date": machine::date(),
            "seed": self.seed,
            "machine": machine::about(&self.memory, &self.disk),
            "command": std::env::args().collect::<Vec<_>>(),
            "unit": self.campaign.unit,
            "tried": self.tried,
            "failed": self.failed,
            "failures": self.failures,
            "upper_bound": bound,
            "skipped": self.skipped.iter().map(skipped).collect::<Vec<_>>(),
            "facts": self.facts,
            "seconds": seconds,
            "per_second": self.tried as f64 / seconds.max(1e-9),
        })
    }

    /// The same for people, on one line and one for each fact.
    pub(crate) fn print(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let Campaign { name, unit, claim, .. } = self.campaign;
        let bound = match (self.failed, self.tried) {
            (0, 1..) => format!(" (below {:.1e}, 95 %)", 3.0 / self.tried as f64),
            _ => String::new(),
        };
        println!(
            "{name}: {claim}: {} of {} {unit} failed{bound}; {seconds:.1} s, {:.0}/s, seed {}",
            self.failed,
            self.tried,
            self.tried as f64 / seconds.max(1e-9),
            self.seed
        );
        for (fact, count) in &self.facts {
            println!("  {fact}: {count}");
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.memory);
        _ = std::fs::remove_dir_all(&self.disk);
    }
}

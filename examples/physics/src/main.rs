//! A tower in rapier3d is shot down, put back as it was before the shot, and shot down again: the
//! same, bit for bit.
//!
//! The state is rapier's own, none of it written with snapshots in mind ([`scene`]). It is saved
//! after every step; one snapshot is kept under a label ([`rehearsal`]). `--help` lists the options.

mod args;
mod rehearsal;
mod report;
mod scene;
#[cfg(test)]
mod tests;

use std::{
    env,
    error::Error,
    fs, io, iter,
    path::{Path, PathBuf},
    process::{self, ExitCode},
};

use args::{Args, HELP, Home};
use rehearsal::rehearse;
use scene::Scene;
use snapring::{Caretaker, OpenError};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("physics: {error}");
            for source in iter::successors(error.source(), |error| (*error).source()) {
                eprintln!("    {source}");
            }
            ExitCode::from(2)
        }
    }
}

/// Whether every step agreed.
fn run() -> Result<bool, Box<dyn Error>> {
    let mut out = io::stdout();
    let Some(Args { plan, home }) = Args::parse(env::args_os().skip(1))? else {
        print!("{HELP}");
        return Ok(true);
    };
    let passing = (home == Home::Passing).then(Passing::new);
    let (caretaker, place) = match (&passing, &home) {
        (Some(Passing(dir)), _) | (None, Home::Directory(dir)) => {
            (open(dir)?, format!("in {}", dir.display()))
        }
        (None, _) => (Caretaker::in_memory()?, "in memory".to_owned()),
    };
    report::announce(&mut out, &plan, &place)?;
    let outcome = rehearse(&caretaker, &plan, |_| {})?;
    report::tell(&mut out, &plan, &outcome)?;
    caretaker.close()?;
    Ok(outcome.agrees())
}

fn open(dir: &Path) -> Result<Caretaker<Scene>, OpenError> {
    // SAFETY: this program does nothing to the files in `dir` but through the caretaker, and the
    // directory is one that it made for itself, or one that the user gave it.
    unsafe { Caretaker::open(dir) }
}

/// A directory of this process, removed when dropped.
struct Passing(PathBuf);

impl Passing {
    fn new() -> Passing {
        Passing(env::temp_dir().join(format!("snapring-physics-{}", process::id())))
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        // It may never have been made.
        _ = fs::remove_dir_all(&self.0);
    }
}

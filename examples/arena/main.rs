#![deny(unsafe_code)]
//! A live server that breaks, recovers and goes on: the whole of snapring in one run.
//!
//! ```text
//! cargo run --release --example arena
//! ```
//!
//! Two processes. The one you start builds the rules, runs a few hundred clients and tells what
//! happens; it starts itself again as the server, so that it can kill it.
//!
//! ```text
//!   script.rs ---- process.rs: orders, news ---> server.rs --- Caretaker ---> snapshot_a.bin, _b.bin
//!   bots.rs ====== wire.rs: loopback TCP ======> gateway.rs
//!   workshop.rs -- cargo build: rules_vN.so ---> gate.rs, rules.rs <-- interface.rs --> arena-rules
//! ```
//!
//! To see how the engine is used, read `server.rs`; the state is in `world.rs`.

mod bots;
mod census;
mod channel;
#[expect(unsafe_code, reason = "reads a table that a library hands over")]
mod gate;
mod gateway;
#[allow(dead_code, reason = "the rules use more of it")]
mod interface;
mod news;
mod process;
mod record;
#[expect(unsafe_code, reason = "loads libraries and calls into them")]
mod rules;
mod script;
#[expect(unsafe_code, reason = "opens mapped files")]
mod server;
mod timeline;
mod view;
mod wire;
mod workshop;
mod world;

use std::{path::PathBuf, process::ExitCode};

const HELP: &str = "\
A live server on loopback TCP, its clients, and five sets of rules, three of which are broken.

cargo run --release --example arena -- [OPTIONS]

  --players N    clients, each a connection of its own   (300)
  --units N      units in the world                      (20000)
  --seconds N    how long the play takes, from 5         (18)
  --dir PATH     where to keep the world and the rules   (a new one, removed at the end)
                 a world that is there already is gone on with
  --help         this text

The exit status is 0 only if everything went as the table at the end says.";

/// What was asked for.
enum Task {
    /// Play the whole script.
    Play(script::Options),
    /// Be the server. Not for people: it takes orders on its standard input.
    Serve(server::Config),
    Help,
}

fn main() -> ExitCode {
    let done = match task() {
        Ok(Task::Play(options)) => script::play(options),
        Ok(Task::Serve(config)) => server::serve(config).map(|()| true),
        Ok(Task::Help) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("arena: {error}; try --help");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("arena: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the command line.
fn task() -> Result<Task, lexopt::Error> {
    use lexopt::prelude::*;

    let (mut players, mut units, mut seconds, mut port) = (300, 20000, 18, 0);
    let (mut dir, mut serve): (Option<PathBuf>, _) = (None, false);
    let mut line = lexopt::Parser::from_env();
    while let Some(word) = line.next()? {
        match word {
            Long("players") => players = within(line.value()?.parse()?, 1..=2000, "players")?,
            Long("units") => {
                units = within(line.value()?.parse()?, 100..=world::MOST_UNITS, "units")?
            }
            Long("seconds") => seconds = within(line.value()?.parse()?, 5..=3600, "seconds")?,
            Long("dir") => dir = Some(line.value()?.into()),
            Long("serve") => serve = true,
            Long("port") => port = line.value()?.parse()?,
            Short('h') | Long("help") => return Ok(Task::Help),
            _ => return Err(word.unexpected()),
        }
    }
    if !serve {
        return Ok(Task::Play(script::Options { players, units, seconds, dir }));
    }
    let dir = dir.ok_or("--serve needs --dir")?;
    let (world, rules) = (dir.join("world"), dir.join("rules"));
    Ok(Task::Serve(server::Config { world, rules, port, players, units }))
}

fn within(n: u32, range: std::ops::RangeInclusive<u32>, name: &str) -> Result<u32, lexopt::Error> {
    if range.contains(&n) {
        return Ok(n);
    }
    Err(format!("--{name} {n}: from {} to {} will do", range.start(), range.end()).into())
}

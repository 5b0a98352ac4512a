#![deny(unsafe_code)]
//! A server is replaced while its clients play on: their connections, the listener and a world of
//! 64 MiB pass from one process to the next.
//!
//! ```text
//! cargo run --release --example hot_restart
//! ```
//!
//! ```text
//!   build 1  ==== serves ====|            lock, world, listener, connections
//!   build 2        ? refused |            (one field more: another layout)
//!   build 1b       maps, ready   |==== serves ====  SIGTERM: a last snapshot
//!   clients  ------------------------------------   every tick, once, in order
//! ```
//!
//! The process you start runs the clients and tells the [`story`]; it starts itself again as each of
//! the servers. The three builds are three modules of [`builds`], so that one compilation does: the
//! gate looks at layouts, and cannot tell. To see how the engine is used, read `server.rs`.

mod builds;
mod clients;
#[expect(unsafe_code, reason = "opens mapped files")]
mod server;
mod story;

use std::{path::PathBuf, process::ExitCode};

const HELP: &str = "\
A server hands its world and its clients over to the next build, while they play on.

cargo run --release --example hot_restart -- [OPTIONS]

  --mib N        size of the world, from 1               (64)
  --clients N    connections on loopback, from 1         (200)
  --seconds N    how long each build serves, from 1      (2)
  --memory       keep the ring in memory, and the files for when nobody hands it over
  --dir PATH     where to keep the world                 (a new directory, removed at the end)
  --help         this text

The exit status is 0 only if every client got every tick, in order, over one connection.";

/// How big everything is.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) mib: usize,
    pub(crate) clients: usize,
    pub(crate) seconds: u64,
    pub(crate) memory: bool,
    pub(crate) dir: Option<PathBuf>,
    /// Be a server, of this build. Not for people.
    serve: Option<String>,
}

fn main() -> ExitCode {
    let plan = match plan() {
        Ok(Some(plan)) => plan,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("hot_restart: {error}; try --help");
            return ExitCode::from(2);
        }
    };
    let done = match plan.serve.as_deref() {
        None => story::tell(&plan),
        Some("1") => server::serve::<builds::first::World>(&plan),
        Some("2") => server::serve::<builds::second::World>(&plan),
        Some("1b") => server::serve::<builds::again::World>(&plan),
        Some(other) => Err(format!("there is no build {other}").into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hot_restart: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                eprintln!("    {error}");
                source = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn plan() -> Result<Option<Plan>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut plan =
        Plan { mib: 64, clients: 200, seconds: 2, memory: false, dir: None, serve: None };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("mib") => plan.mib = parser.value()?.parse::<usize>()?.clamp(1, 1024),
            Long("clients") => plan.clients = parser.value()?.parse::<usize>()?.clamp(1, 10_000),
            Long("seconds") => plan.seconds = parser.value()?.parse::<u64>()?.clamp(1, 3600),
            Long("memory") => plan.memory = true,
            Long("dir") => plan.dir = Some(parser.value()?.into()),
            Long("serve") => plan.serve = Some(parser.value()?.parse()?),
            Short('h') | Long("help") => return Ok(None),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Some(plan))
}

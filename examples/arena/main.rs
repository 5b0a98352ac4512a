#![forbid(unsafe_code)]
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
//!   script.rs  --- orders, news (news.rs) --->  server.rs --- Caretaker ---> snapshot_a.bin, _b.bin
//!   bots.rs    === loopback TCP (wire.rs) ===>  gateway.rs
//!   workshop.rs -- cargo build --> rules_vN.so  rules.rs <-- gate.rs <-- interface.rs
//! ```
//!
//! To see how the engine is used, read `server.rs`; the state is in `world.rs`.

mod bots;
mod census;
#[expect(unsafe_code, reason = "reads a table that a library hands over")]
mod gate;
mod gateway;
mod interface;
mod news;
mod record;
mod rules;
mod script;
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
  --units N      units in the world                      (6000)
  --seconds N    how long the play takes, from 5         (18)
  --dir PATH     where to keep the world and the rules   (a new one, removed at the end)
  --help         this text

The exit status is 0 only if everything went as the table at the end says.";

#![forbid(unsafe_code)]
//! [`Args`]: what the command line asks for.

use std::{ffi::OsString, path::PathBuf};

use crate::rehearsal::Plan;

pub(crate) const HELP: &str = "\
A rapier3d tower is shot down, put back as it was before the shot, and shot down again.
The bytes of every step of the second run must be those of the first.

usage: cargo run --release -p snapring-physics -- [options]

  --bodies N   bricks in the tower; 2400
  --steps N    steps of the first run, a 60th of a second each; 150
  --rewind N   steps taken back and run again, the first of which fires the shot; 90
  --dir DIR    put the snapshots into DIR and leave them there; else into a temporary
               directory, which is removed at the end
  --memory     put them into memory, without files
  --help       this text

It ends with status 0 if every step agrees, 1 if one does not, 2 if it could not be told.
";

/// Where the snapshots go.
#[derive(Debug, PartialEq)]
pub(crate) enum Home {
    Memory,
    /// Files in a directory of their own, which is removed in the end.
    Passing,
    Directory(PathBuf),
}

#[derive(Debug, PartialEq)]
pub(crate) struct Args {
    pub(crate) plan: Plan,
    pub(crate) home: Home,
}

impl Args {
    /// Reads the arguments after the program's name; `None` where help is asked for.
    ///
    /// # Errors
    ///
    /// What is wrong with them, in words.
    pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Option<Args>, String> {
        let (mut bricks, mut steps, mut rewind) = (2400, 150, 90);
        let mut home = Home::Passing;
        let mut args = args;
        while let Some(arg) = args.next() {
            let name = arg.to_string_lossy().into_owned();
            let mut value = || args.next().ok_or(format!("{name} needs a value"));
            match &*name {
                "--bodies" => bricks = number(&name, value()?)?,
                "--steps" => steps = number(&name, value()?)?,
                "--rewind" => rewind = number(&name, value()?)?,
                "--dir" => home = Home::Directory(value()?.into()),
                "--memory" => home = Home::Memory,
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("there is no option {name}; --help lists them")),
            }
        }
        if rewind >= steps {
            return Err(format!("--rewind {rewind} needs more than {rewind} --steps, not {steps}"));
        }
        let plan = Plan { bricks: bricks as usize, steps, rewind, shot: steps - rewind + 1 };
        Ok(Some(Args { plan, home }))
    }
}

fn number(name: &str, value: OsString) -> Result<u64, String> {
    match value.to_str().and_then(|text| text.parse().ok()) {
        Some(number @ 1..=1_000_000) => Ok(number),
        _ => Err(format!("{name} takes a number from 1 to a million, not {}", value.display())),
    }
}

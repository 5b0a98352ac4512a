//! `snapring-campaign`: reliability campaigns against the real kernel. `--help` tells all.

mod alloc;
mod board;
mod campaigns;
mod dice;
mod fragile;
mod life;
mod machine;
mod medium;
mod mirror;
mod mount;
mod oracle;
mod parallel;
mod process;
mod run;
mod simulator;
mod trace;
mod world;

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use campaigns::{ALL, Campaign};
use lexopt::prelude::*;
use run::Run;
use serde_json::Value;
use snapring::campaign::Mutant;

/// What the command line asks for.
#[derive(Debug, Default)]
struct Args {
    campaign: Option<String>,
    short: bool,
    help: bool,
    count: Option<u64>,
    seed: Option<u64>,
    json: Option<PathBuf>,
    dir: Option<PathBuf>,
    broken: Option<Mutant>,
}

fn main() -> ExitCode {
    let args = match parse() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}; `snapring-campaign --help` tells what there is");
            return ExitCode::from(2);
        }
    };
    let Some(name) = args.campaign.as_deref() else {
        help();
        return ExitCode::from(if args.help { 0 } else { 2 });
    };
    if name == "all" {
        return if args.help { help() } else { all(&args) };
    }
    match ALL.iter().find(|campaign| campaign.name == name) {
        Some(campaign) if args.help => help_for(campaign),
        Some(campaign) => one(campaign, &args),
        None => {
            eprintln!("there is no campaign {name}; `snapring-campaign --help` lists them");
            ExitCode::from(2)
        }
    }
}

fn parse() -> Result<Args, lexopt::Error> {
    let mut args = Args::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => args.help = true,
            Long("short") => args.short = true,
            Long("long") => args.short = false,
            Long("count") => args.count = Some(parser.value()?.parse()?),
            Long("seed") => args.seed = Some(parser.value()?.parse()?),
            Long("json") => args.json = Some(parser.value()?.into()),
            Long("dir") => args.dir = Some(parser.value()?.into()),
            Long("break") => {
                let name = parser.value()?.string()?;
                let broken = Mutant::from_name(&name);
                args.broken = Some(broken.ok_or_else(|| format!("no rule is called {name}"))?);
            }
            Value(name) if args.campaign.is_none() => args.campaign = Some(name.string()?),
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(args)
}

fn help() -> ExitCode {
    println!(
        "snapring-campaign <campaign> [options]

Kills, cuts the power of, starves and breaks snapring, as often as you like, and says how often a
promise did not hold. Without a failure in n tries the true rate is below 3/n, 95 times in 100.

  --long         as many tries as the published figures rest on (the default)
  --short        as many as CI makes
  --count N      as many as this
  --seed S       draw from this seed; each run prints its own
  --json FILE    write what came of it there
  --dir DIR      put the files that are to lie on a disk there (default: the temporary directory)
  --break RULE   break a rule of the engine's first, and stop at the first failure; `mutants` lists them
  --help         after a campaign's name: what it does and what it covers

  all            every campaign, one after the other

It ends with 1 after a failure, with 77 where the system allowed no try at all, and with 0 else. Parts
that need root, loop devices or FUSE say \"skipped, because ..\" where they are refused.
"
    );
    for campaign in ALL {
        let Campaign { name, claim, unit, long, short, .. } = campaign;
        println!("  {name:<14} {claim}\n  {:<14} {long} {unit}, {short} with --short", "");
    }
    ExitCode::SUCCESS
}

fn help_for(campaign: &Campaign) -> ExitCode {
    let Campaign { name, claim, unit, long, short, help, .. } = campaign;
    println!("snapring-campaign {name}\n\n{claim}: {long} {unit}, {short} with --short\n\n{help}");
    ExitCode::SUCCESS
}

fn one(campaign: &'static Campaign, args: &Args) -> ExitCode {
    process::hush_children();
    let count = args.count.unwrap_or(if args.short { campaign.short } else { campaign.long });
    let seed = args.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |time| time.as_micros() as u64)
    });
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let mut run = Run::new(campaign, count, seed, &dir);
    if let Some(mutant) = args.broken {
        // Children are forked, and have the rule broken as well.
        mutant.break_rule();
        run.stop_at_once();
    }
    if let Err(error) = (campaign.run)(&mut run) {
        run.fail(format!("the campaign itself broke: {error}"));
    }
    run.print();
    if let Some(path) = &args.json
        && let Err(error) = write(path, &run.json())
    {
        eprintln!("{}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::from(run.exit_code() as u8)
}

fn write(path: &std::path::Path, value: &Value) -> std::io::Result<()> {
    std::fs::write(path, format!("{value:#}\n"))
}

/// Every campaign in a process of its own.
fn all(args: &Args) -> ExitCode {
    let scratch = std::env::temp_dir().join(format!("snapring-campaign-{}", std::process::id()));
    let (mut results, mut passed, mut failed, mut skipped) = (Vec::new(), 0, Vec::new(), 0);
    for campaign in ALL {
        let mut command = match std::env::current_exe() {
            Ok(exe) => Command::new(exe),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        };
        command.arg(campaign.name).arg(if args.short { "--short" } else { "--long" });
        command.arg("--json").arg(&scratch);
        if let Some(seed) = args.seed {
            command.arg("--seed").arg(seed.to_string());
        }
        if let Some(count) = args.count {
            command.arg("--count").arg(count.to_string());
        }
        if let Some(dir) = &args.dir {
            command.arg("--dir").arg(dir);
        }
        let ended = command.status();
        let text = std::fs::read_to_string(&scratch).unwrap_or_default();
        let result = serde_json::from_str::<Value>(&text).ok();
        _ = std::fs::remove_file(&scratch);
        match ended.as_ref().ok().and_then(|status| status.code()) {
            Some(0) => passed += 1,
            Some(77) => skipped += 1,
            _ => failed.push((campaign.name, format!("{ended:?}"), result.clone())),
        }
        results.extend(result);
    }
    if let Some(path) = &args.json
        && let Err(error) = write(path, &Value::Array(results))
    {
        eprintln!("{}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    println!("\n{passed} passed, {} failed, {skipped} skipped", failed.len());
    // Once more at the end, where they are looked for.
    for (name, ended, result) in &failed {
        println!("{name} FAILED ({ended})");
        let failures = result.as_ref().and_then(|result| result["failures"].as_array());
        for text in failures.into_iter().flatten().take(3) {
            println!("  {}", text.as_str().unwrap_or_default());
        }
    }
    ExitCode::from(u8::from(!failed.is_empty()))
}

#![forbid(unsafe_code)]
//! Writes `BENCHMARKS.md` and its plots from what the benchmarks have left under cargo's target
//! directory. What stands between the two marks in the file is written by hand and stays.

mod machine;
mod measured;
mod mmo;
mod mmo_plots;
mod plot;
mod sections;
mod tables;

use std::{
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use snapring_bench::results::{self, Heap, Mmo, Paired};

const BEGIN: &str = "<!-- written by hand: begin -->";
const END: &str = "<!-- written by hand: end -->";

/// What stands there before anybody has written.
const NOTHING_YET: &str = "\n## What is slower than a peer, and why\n\nNot written yet.\n\n";

/// The part of a page between the marks.
fn by_hand(page: &str) -> &str {
    let inside = page.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    inside.map_or(NOTHING_YET, |(inside, _)| inside)
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("a package in a workspace")?;
    let file: PathBuf = root.join("BENCHMARKS.md");
    let old = fs::read_to_string(&file).unwrap_or_default();
    let groups = measured::groups()?;
    let paired: Paired = results::read("paired").unwrap_or_default();
    let heaps: Vec<Heap> = results::read("heap").unwrap_or_default();
    let mmo: Mmo = results::read("mmo").unwrap_or_default();
    let mut promised = paired.clone();
    promised.sets.extend(mmo.sets.iter().cloned());
    if groups.is_empty() && promised.sets.is_empty() {
        return Err("nothing was measured yet: scripts/bench.sh does".into());
    }

    let mut page = String::new();
    writeln!(page, "# Benchmarks\n")?;
    writeln!(page, "{}", machine::about(root))?;
    write!(page, "{BEGIN}{}{END}\n\n", by_hand(&old))?;
    tables::targets(&mut page, &promised, &groups, &heaps, &mmo.parts)?;
    tables::crowd(&mut page, &paired.crowd)?;
    tables::heap(&mut page, &heaps)?;
    sections::durable(&mut page, &paired.sets)?;
    sections::pauses(&mut page, &paired.pauses)?;
    sections::resumed(&mut page, &paired.sets)?;
    sections::elsewhere(&mut page, &paired)?;
    mmo::captures(&mut page, &mmo)?;
    mmo::workloads(&mut page, &mmo.workloads)?;
    let plots = Path::new(env!("CARGO_MANIFEST_DIR")).join("plots");
    fs::create_dir_all(&plots)?;
    plot::saves(&plots.join("save.svg"), &groups)?;
    plot::durable(&plots.join("durable.svg"), &paired.sets)?;
    plot::ratios(&plots.join("ratios.svg"), &promised)?;
    mmo_plots::by_share(&plots.join("stall_by_share.svg"), &mmo.by_share)?;
    mmo_plots::by_size(&plots.join("stall_by_size.svg"), &mmo.by_size)?;
    tables::groups(&mut page, &groups)?;
    tables::sets(&mut page, &paired.sets)?;
    fs::write(&file, page)?;
    println!("{} and {}", file.display(), plots.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_by_hand_stays() {
        let page = format!("# Benchmarks\n{BEGIN}\nkept\n{END}\nrest");
        assert_eq!(by_hand(&page), "\nkept\n");
        assert_eq!(by_hand("no marks"), NOTHING_YET);
    }
}

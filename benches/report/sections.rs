#![forbid(unsafe_code)]
//! The sections on durable saves, on the flusher, on what follows a kill, and on other processes:
//! rows that ran by turns, set beside set.

use std::fmt::{self, Write as _};

use snapring_bench::results::{Elsewhere, Paired, Pause, Set};

use crate::tables::{ratio, time};

/// Names of rows, as `benches/paired/elsewhere.rs` has them.
const OURS: &str = "snapring Reader::read";
const UNCHECKED: &str = "mmap-sync read, unchecked";
const CHECKED: &str = "mmap-sync read, checked";

/// A column for each set, a row for each that ran in any of them; every time is followed by its
/// ratio to the reference of its column.
fn beside(page: &mut String, sets: &[(&str, &Set)], reference: &str) -> fmt::Result {
    let columns: Vec<&str> = sets.iter().map(|(column, _)| *column).collect();
    writeln!(page, "| | {} |", columns.join(" | "))?;
    writeln!(page, "|---|{}", "--:|".repeat(columns.len()))?;
    let mut names: Vec<&str> = Vec::new();
    for row in sets.iter().flat_map(|(_, set)| &set.rows) {
        if !names.contains(&row.name.as_str()) {
            names.push(&row.name);
        }
    }
    for name in names {
        write!(page, "| {name} |")?;
        for (_, set) in sets {
            let median = |name: &str| set.rows.iter().find(|r| r.name == name).map(|r| r.median);
            match (median(name), median(reference)) {
                (Some(row), Some(base)) => {
                    write!(page, " {} ({}x) |", time(row), ratio(row / base))?
                }
                (Some(row), None) => write!(page, " {} |", time(row))?,
                (None, _) => write!(page, " |")?,
            }
        }
        writeln!(page)?;
    }
    writeln!(page)
}

/// The sets whose names start so, each with what is left of its name.
fn named<'a>(sets: &'a [Set], start: &str) -> Vec<(&'a str, &'a Set)> {
    sets.iter().filter_map(|set| Some((set.name.strip_prefix(start)?, set))).collect()
}

/// Saves that are on the disk when they return.
pub(crate) fn durable(page: &mut String, sets: &[Set]) -> fmt::Result {
    let sets = named(sets, "durable ");
    if sets.is_empty() {
        return Ok(());
    }
    let reference = "wincode to a file, flushed, renamed";
    writeln!(page, "## Saves that are on the disk when they return\n")?;
    writeln!(
        page,
        "`Durability::Sync`, beside LMDB as it commits by default and with `WRITEMAP`, redb with \
         `Durability::Immediate`, and a file written, flushed, renamed, its directory flushed. All \
         start from the live value, in files on ext4, by turns; the peers encode it with wincode. \
         Ratios are to `{reference}`.\n"
    )?;
    writeln!(page, "![time of a durable save, by state](benches/plots/durable.svg)\n")?;
    beside(page, &sets, reference)
}

/// How long saves hold up their thread while another brings snapshots to the disk.
pub(crate) fn pauses(page: &mut String, pauses: &[Pause]) -> fmt::Result {
    if pauses.is_empty() {
        return Ok(());
    }
    writeln!(page, "## Saves with the flusher behind them\n")?;
    writeln!(
        page,
        "How long a save of room holds up the thread that makes it, into a ring of 16 on ext4, with \
         and without a background that syncs what was saved before. The kernel write-protects what \
         it has synced, so that the next save into the same pages would pay for each of them; the \
         background makes them writable again ahead of it. Where another thread calls `flush`, it does \
         not: that row is the price.\n"
    )?;
    writeln!(page, "| saves | counted | p50 | p90 | p99 | longest |")?;
    writeln!(page, "|---|--:|--:|--:|--:|--:|")?;
    for Pause { name, saves, p50, p90, p99, longest } in pauses {
        let [p50, p90, p99, longest] = [p50, p90, p99, longest].map(|nanos| time(*nanos));
        writeln!(page, "| {name} | {saves} | {p50} | {p90} | {p99} | {longest} |")?;
    }
    writeln!(page)
}

/// From a kill to a successor that has the state.
pub(crate) fn resumed(page: &mut String, sets: &[Set]) -> fmt::Result {
    let sets = named(sets, "kill to resumed, ");
    if sets.is_empty() {
        return Ok(());
    }
    let reference = "LMDB get + wincode decode";
    writeln!(page, "## Killed, and resumed\n")?;
    writeln!(
        page,
        "One process holds a world and has saved it; it is killed (`kill -9`) and waited for, another \
         is started, opens what was left and has the world as its own live value. Timed from the \
         kill to the successor's word, the files being in the page cache. The last row is what two \
         processes take that have no world. Ratios are to `{reference}`.\n"
    )?;
    beside(page, &sets, reference)
}

/// Reads in another process.
pub(crate) fn elsewhere(page: &mut String, paired: &Paired) -> fmt::Result {
    let sets = named(&paired.sets, "read in another process, ");
    if sets.is_empty() && paired.elsewhere.is_empty() {
        return Ok(());
    }
    writeln!(page, "## Read in another process\n")?;
    writeln!(
        page,
        "One field of the newest value, through files on tmpfs, by a process that does nothing \
         else. First while nothing is saved; ratios are to `{UNCHECKED}`.\n"
    )?;
    beside(page, &sets, UNCHECKED)?;
    writeln!(
        page,
        "Then while the writer saves, changed, as fast as it can. A `Reader` leases and checks each \
         snapshot that it has not seen before, once; mmap-sync checks at every read or at none, and \
         its writer waits where a reader is in its way: so each reader has another number of new \
         values to find.\n"
    )?;
    writeln!(
        page,
        "| | saves/s | reads/s | new ones found/s | a read that finds one, p50 | all reads, p99 | \
         longest |"
    )?;
    writeln!(page, "|---|--:|--:|--:|--:|--:|--:|")?;
    for Elsewhere { state, name, saves, reads, found, found_p50, p99, longest } in &paired.elsewhere
    {
        let [p99, longest] = [p99, longest].map(|nanos| time(*nanos));
        // None of the reads that were timed found one.
        let p50 = if *found_p50 > 0.0 { time(*found_p50) } else { String::new() };
        writeln!(
            page,
            "| {state}: {name} | {saves:.0} | {reads:.0} | {found:.0} | {p50} | {p99} | {longest} |"
        )?;
    }
    writeln!(page)
}

/// What must be reached beside a busy writer: no fewer reads than mmap-sync's that are as safe.
pub(crate) fn beside_a_busy_writer(page: &mut String, all: &[Elsewhere]) -> fmt::Result {
    for ours in all.iter().filter(|e| e.name == OURS) {
        for theirs in [UNCHECKED, CHECKED] {
            let Some(theirs) = all.iter().find(|e| e.state == ours.state && e.name == theirs)
            else {
                continue;
            };
            let takes = theirs.reads / ours.reads;
            let reached = if takes <= 1.0 { "yes" } else { "**no**" };
            writeln!(
                page,
                "| | {OURS}, mean: {}, busy writer | {} | {} | {} | 1 | {reached} | |",
                ours.state,
                theirs.name,
                time(1e9 / ours.reads),
                ratio(takes),
            )?;
        }
    }
    Ok(())
}

//! The sections on captures of large states and on the workloads of the literature.

use std::fmt::{self, Write as _};

use snapring_bench::results::{Mmo, Set, Way, Workload};

use crate::tables::{ratio, time};

/// How long captures hold up the thread that changes the state.
pub(crate) fn captures(page: &mut String, mmo: &Mmo) -> fmt::Result {
    if mmo.pauses.is_empty() {
        return Ok(());
    }
    writeln!(page, "## Captures of large states\n")?;
    writeln!(
        page,
        "`capture` of a `PagedVec` on tmpfs, in one process (`benches/mmo/`): the players of \
         `benches/src/states.rs`, or plain cells of 64 bytes; pages are of the default length. The \
         *pause* is the call, its thread in the background asleep before. *Pause and copies* adds what \
         the first write to each page takes longer than a second one, all of them made at once after \
         the call while the capture is still on its way: the most that it can cost. The pages that are \
         written are drawn, all over the state. A `fork` whose child lives until all pages have been \
         written is measured likewise, on the same items in one piece. Transparent huge pages: \
         `{}`.\n",
        huge_pages()
    )?;
    writeln!(
        page,
        "![what a capture adds, by the share of pages written](benches/plots/stall_by_share.svg)\n"
    )?;
    writeln!(page, "![how long a capture takes, by size](benches/plots/stall_by_size.svg)\n")?;
    writeln!(
        page,
        "The hollow points are the literature's, on other hardware: Li et al., *Consistent Snapshot \
         Algorithms for In-Memory Database Systems* (ICDE 2018; from the authors' data sheet), pages of \
         4 KiB of flat state. At 1 GB they have a naive copy of 642 ms, `fork` 14.6 ms (0.83 in \
         another run of theirs), copy-on-update 2.0 ms, Zigzag 1.0 ms, and Ping-Pong, Hourglass and \
         Piggyback 0.2 to 1 us at any size, for one to two further copies of the state in memory and, but \
         for the last two, a price on every write.\n"
    )?;
    writeln!(page, "| | counted | p50 | p90 | p99 | longest |")?;
    writeln!(page, "|---|--:|--:|--:|--:|--:|")?;
    for pause in &mmo.pauses {
        let [p50, p90, p99, longest] = [pause.p50, pause.p90, pause.p99, pause.longest].map(time);
        let (name, saves) = (&pause.name, pause.saves);
        writeln!(page, "| {name} | {saves} | {p50} | {p90} | {p99} | {longest} |")?;
    }
    writeln!(page)?;
    for set in mmo.sets.iter().filter(|set| set.rounds > 1) {
        by_turns(page, set)?;
    }
    Ok(())
}

fn by_turns(page: &mut String, set: &Set) -> fmt::Result {
    writeln!(page, "| {}, by turns, {} rounds | median | middle half |", set.name, set.rounds)?;
    writeln!(page, "|---|--:|--:|")?;
    for row in &set.rows {
        let [median, p25, p75] = [row.median, row.p25, row.p75].map(time);
        writeln!(page, "| {} | {median} | {p25} .. {p75} |", row.name)?;
    }
    writeln!(page)
}

/// Whether anonymous memory is in large pages.
fn huge_pages() -> String {
    let file = "/sys/kernel/mm/transparent_hugepage/enabled";
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    chosen.map_or_else(|| "unknown".to_owned(), |(chosen, _)| chosen.to_owned())
}

/// Bytes for people.
fn size(bytes: f64) -> String {
    match bytes {
        b if b < 1024.0 => format!("{b:.0} B"),
        b if b < 1_048_576.0 => format!("{:.1} KiB", b / 1024.0),
        b => format!("{:.2} MiB", b / 1_048_576.0),
    }
}

/// The workloads, a table for each.
pub(crate) fn workloads(page: &mut String, workloads: &[Workload]) -> fmt::Result {
    if workloads.is_empty() {
        return Ok(());
    }
    writeln!(page, "## Checkpoints of the literature's workloads\n")?;
    writeln!(
        page,
        "W1 and W2 are those of *An Evaluation of Checkpoint Recovery for Massively Multiplayer Online \
         Games* (VLDB 2009; W2 drawn after its description of a trace), W3 that of Li et al. at 64 MB, \
         W5 is rollback netcode. A fixed seed, one thread that ticks, everything on tmpfs and warm. \
         *Added* is what a tick takes \
         beyond the median tick without checkpoints; the median is little where a checkpoint takes \
         several ticks or is begun every tenth. A *checkpoint* \
         lasts from the tick to its end on whatever thread; *back* is from what was left in files to the \
         live state. The plain copy and the child of `fork` write one image and its checksum and nothing \
         else. At a few ticks each checkpoint is read back and compared to the state of its tick, and \
         what was recovered to the last one.\n"
    )?;
    for Workload { name, about, ways } in workloads {
        writeln!(page, "### {name}\n\n{about}\n")?;
        let netcode = name.starts_with("W5");
        if netcode {
            writeln!(
                page,
                "| | added to a frame, p50 | p99 | longest | going back | and all eight again | bytes a \
                 save |"
            )?;
        } else {
            writeln!(
                page,
                "| | added to a tick, p50 | p99 | longest | checkpoints in {} ticks | a checkpoint | back \
                 | bytes each |",
                ways.first().map_or(0, |way| way.ticks)
            )?;
        }
        writeln!(page, "|---{}|", "|--:".repeat(if netcode { 6 } else { 7 }))?;
        for way in ways {
            let Way { name, checkpoints, bytes, .. } = way;
            let times = [way.p50, way.p99, way.longest, way.checkpoint, way.recovery].map(time);
            let [p50, p99, longest, checkpoint, recovery] = times;
            let count = if netcode { String::new() } else { format!("{checkpoints} | ") };
            writeln!(
                page,
                "| {name} | {p50} | {p99} | {longest} | {count}{checkpoint} | {recovery} | {} |",
                size(*bytes)
            )?;
        }
        writeln!(page)?;
        let [ours, copy] = ["capture", "plain copy"].map(|start| {
            ways.iter()
                .filter(|way| way.name.starts_with(start))
                .map(|way| way.longest)
                .min_by(f64::total_cmp)
        });
        if let (Some(ours), Some(copy)) = (ours, copy) {
            writeln!(
                page,
                "The longest of the better capture is {} of the plain copy's.\n",
                ratio(ours / copy)
            )?;
        }
    }
    Ok(())
}

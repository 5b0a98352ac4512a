//! The tables of the page.

use std::fmt::{self, Write as _};

use snapring_bench::results::{Crowd, Heap, Pair, Paired, Part, Set};

use crate::{measured::Group, sections::beside_a_busy_writer};

/// What snapring must reach, by number.
const TARGETS: [(u8, &str); 23] = [
    (1, "save small, on tmpfs, beside mmap-sync's `write_raw` of as many ready bytes"),
    (2, "save 36 bytes, on tmpfs, beside mmap-sync's typed write of the same value"),
    (3, "save room over a ring of 16, beside the limit over as many destinations"),
    (4, "save world beside the limit"),
    (5, "save cells beside the limit"),
    (6, "read one field of the newest value"),
    (7, "roll back (and publish that) beside a restore in place written by hand"),
    (8, "open with 64 MiB as the newest snapshot, beside one CRC pass over them"),
    (9, "save among 4 busy readers beside saving without them"),
    (10, "make a ring on ext4, to its first published save"),
    (11, "heap taken by a save in a steady state"),
    (12, "save so that it is on the disk, on ext4, beside the peers doing so with the same value"),
    (13, "from `kill -9` to the world live again in another process, beside decoding it there"),
    (14, "read one field of the newest value from another process"),
    (15, "capture 64 MiB in pages: how long the call takes, waking its thread included"),
    (16, "capture 1 GiB in pages, one page in a hundred written: the same"),
    (17, "the same beside cloning the state, and beside `fork`, its child gone at once"),
    (18, "what a capture adds to its thread, copies of pages included, beside one plain copy"),
    (19, "a vector in pages beside `Vec`, nothing captured"),
    (20, "bytes written with one page in a hundred written, of all bytes of the snapshot"),
    (21, "roll back one page in a hundred beside thawing everything"),
    (22, "memory beside the state while captures run, one page in a hundred written, of the state"),
    (23, "from a capture to its publication, all pages written, beside a save of the same"),
];

/// The row that the others of a group are measured against, and its column where it has but one.
fn reference(group: &str) -> Option<(&'static str, Option<&'static str>)> {
    Some(match group {
        "save 36 bytes" => ("mmap-sync write", None),
        "save small" | "save room" => ("limit, ring of 16", None),
        "save world" | "save cells" => ("limit, ring of 4", None),
        "durable small" | "durable room" | "durable world" => {
            ("wincode to a file, flushed, renamed", None)
        }
        "open small" | "open room" | "open world" | "open cells" => ("one CRC pass", None),
        "rollback small" | "rollback room" | "rollback world" | "rollback cells" => {
            ("by hand", None)
        }
        "read small" | "read room" | "read world" => ("arc-swap load", Some("heap")),
        _ => return None,
    })
}

/// Nanoseconds for people.
pub(crate) fn time(nanos: f64) -> String {
    match nanos {
        n if n < 100.0 => format!("{n:.1} ns"),
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e4 => format!("{:.2} µs", n / 1e3),
        n if n < 1e5 => format!("{:.1} µs", n / 1e3),
        n if n < 1e6 => format!("{:.0} µs", n / 1e3),
        n if n < 1e7 => format!("{:.2} ms", n / 1e6),
        n => format!("{:.1} ms", n / 1e6),
    }
}

pub(crate) fn ratio(ratio: f64) -> String {
    match ratio {
        r if r < 0.0001 => "< 0.0001".to_owned(),
        r if r < 0.1 => format!("{r:.4}"),
        r if r < 10.0 => format!("{r:.2}"),
        r => format!("{r:.0}"),
    }
}

fn answer(reached: bool) -> &'static str {
    if reached { "yes" } else { "**no**" }
}

/// What must be reached, and what was.
pub(crate) fn targets(
    page: &mut String,
    paired: &Paired,
    groups: &[Group],
    heaps: &[Heap],
    parts: &[Part],
) -> fmt::Result {
    writeln!(page, "## What it must reach\n")?;
    writeln!(
        page,
        "Row and reference ran by turns, round after round in one process (`benches/paired/`, `benches/mmo/`): the \
         ratio is that of the two medians, the brackets hold the middle half of the rounds' own \
         ratios. The last column is the same ratio from criterion's rows, which ran one after the \
         other.\n"
    )?;
    writeln!(page, "![how far from each target](benches/plots/ratios.svg)\n")?;
    writeln!(page, "| | row | beside | takes | ratio | at most | reached | criterion |")?;
    writeln!(page, "|--:|---|---|--:|--:|--:|---|--:|")?;
    for (number, title) in TARGETS {
        writeln!(page, "| **{number}** | **{title}** | | | | | | |")?;
        for set in &paired.sets {
            for pair in set.pairs.iter().filter(|pair| pair.target == number) {
                target(page, set, pair, groups)?;
            }
        }
        match number {
            8 => checks(page, &paired.sets)?,
            9 => among_readers(page, &paired.crowd)?,
            11 => {
                for heap in heaps {
                    let each = heap.bytes as f64 / heap.saves as f64;
                    let reached = answer(each < 64.0 && heap.largest < 4096);
                    let state = &heap.state;
                    writeln!(page, "| | {state} | | {each:.1} B | | 64 B | {reached} | |")?;
                }
            }
            14 => beside_a_busy_writer(page, &paired.elsewhere)?,
            20 | 22 => {
                for Part { name, value, most, .. } in parts.iter().filter(|p| p.target == number) {
                    let [value, most] = [value, most].map(|part| part * 100.0);
                    let reached = answer(value <= most);
                    writeln!(page, "| | {name} | | {value:.2} % | | {most} % | {reached} | |")?;
                }
            }
            _ => {}
        }
    }
    writeln!(page)
}

fn target(page: &mut String, set: &Set, pair: &Pair, groups: &[Group]) -> fmt::Result {
    let Pair { row, reference, most, .. } = pair;
    let takes = set.rows.iter().find(|r| r.name == *row).map_or(0.0, |r| r.median);
    let also = by_criterion(set, pair, groups).map_or_else(String::new, ratio);
    writeln!(
        page,
        "| | {row}: {} | {reference} | {} | {} [{} .. {}] | {most} | {} | {also} |",
        set.name,
        time(takes),
        ratio(pair.ratio),
        ratio(pair.p25),
        ratio(pair.p75),
        answer(pair.ratio <= *most),
    )
}

/// The same pair among criterion's rows, where it is there.
fn by_criterion(set: &Set, pair: &Pair, groups: &[Group]) -> Option<f64> {
    let (name, place) = match set.name.split_once(", ") {
        Some((name, place)) => (name, place),
        None => (set.name.as_str(), ""),
    };
    let (name, row, column, reference, theirs) = match pair.target {
        7 => {
            let shape = pair.row.split_once(", ")?.1;
            let shape = if shape == "cells" { "map-free" } else { shape };
            (name, "snapring rollback", shape, "by hand", shape)
        }
        8 => ("open cells", "snapring open, map-free", place, "one CRC pass", place),
        6 => {
            let at = if pair.reference.starts_with("mmap-sync") { "tmpfs" } else { "heap" };
            ("read small", "snapring read", "tmpfs", pair.reference.as_str(), at)
        }
        5 => (name, "snapring map-free", place, pair.reference.as_str(), place),
        2 => (name, "snapring", place, pair.reference.as_str(), place),
        _ => (name, pair.row.as_str(), place, pair.reference.as_str(), place),
    };
    let group = groups.iter().find(|group| group.name == name)?;
    Some(group.nanos(row, column)? / group.nanos(reference, theirs)?)
}

/// How long the check of a world takes: what opening it takes longer than opening cells, which are
/// as many bytes and checked in no time.
fn checks(page: &mut String, sets: &[Set]) -> fmt::Result {
    for set in sets.iter().filter(|set| set.name.starts_with("open 64 MiB")) {
        let takes = |name: &str| set.rows.iter().find(|row| row.name == name).map(|row| row.median);
        let (Some(world), Some(cells), Some(crc)) = (
            takes("snapring open, world"),
            takes("snapring open, cells"),
            takes("one CRC pass over world"),
        ) else {
            continue;
        };
        let check = world - cells;
        writeln!(
            page,
            "| | the check of a world's pointers, texts and lengths (opening it takes {}, less cells): \
             {} | one CRC pass over world | {} | {} | | | |",
            time(world),
            set.name,
            time(check),
            ratio(check / crc),
        )?;
    }
    Ok(())
}

fn among_readers(page: &mut String, crowd: &[Crowd]) -> fmt::Result {
    let alone = crowd.iter().find(|c| c.readers == 0);
    let among = crowd.iter().find(|c| c.readers > 0);
    let (Some(alone), Some(among)) = (alone, among) else { return Ok(()) };
    let share = among.saves / alone.saves;
    writeln!(
        page,
        "| | {:.0} saves a second, of 1,000 words, the longest {} | {:.0} alone | | {share:.2} | \
         at least 0.3 | {} | |",
        among.saves,
        time(among.longest),
        alone.saves,
        answer(share >= 0.3),
    )
}

/// One writer alone and among readers.
pub(crate) fn crowd(page: &mut String, crowd: &[Crowd]) -> fmt::Result {
    if crowd.is_empty() {
        return Ok(());
    }
    writeln!(page, "## One writer among readers\n")?;
    writeln!(
        page,
        "A state of 1,000 words, saved as fast as it goes, while readers do nothing but read all of \
         it. With more threads than cores the longest save is one during which the writer was not \
         running.\n"
    )?;
    writeln!(page, "| readers | saves/s | reads/s | save, p50 | p99 | longest |")?;
    writeln!(page, "|--:|--:|--:|--:|--:|--:|")?;
    for Crowd { readers, saves, reads, p50, p99, longest } in crowd {
        let [p50, p99, longest] = [p50, p99, longest].map(|nanos| time(*nanos));
        writeln!(page, "| {readers} | {saves:.0} | {reads:.0} | {p50} | {p99} | {longest} |")?;
    }
    writeln!(page)
}

/// Heap taken by saves.
pub(crate) fn heap(page: &mut String, heaps: &[Heap]) -> fmt::Result {
    if heaps.is_empty() {
        return Ok(());
    }
    writeln!(page, "## Heap taken by a save\n")?;
    writeln!(page, "By all threads, once the ring is warm; counted, not timed.\n")?;
    writeln!(page, "| state | archive | saves | bytes a save | largest at once |")?;
    writeln!(page, "|---|--:|--:|--:|--:|")?;
    for Heap { state, archive, saves, bytes, largest } in heaps {
        let each = *bytes as f64 / *saves as f64;
        writeln!(page, "| {state} | {archive} | {saves} | {each:.1} | {largest} |")?;
    }
    writeln!(page)
}

/// A table for every group of criterion's.
pub(crate) fn groups(page: &mut String, groups: &[Group]) -> fmt::Result {
    if groups.is_empty() {
        return Ok(());
    }
    writeln!(page, "## All rows, by criterion\n")?;
    writeln!(
        page,
        "Every time is followed by its ratio to the reference of its column. small is one player \
         (832 B of archive), room 1,000 players (0.87 MiB), world 73,783 players (64 MiB), cells \
         2^20 plain rows of 64 bytes.\n"
    )?;
    writeln!(page, "![time of a save, by state](benches/plots/save.svg)\n")?;
    for group in groups {
        let reference = reference(&group.name);
        let columns = group.columns();
        writeln!(page, "### {}\n", group.name)?;
        if let Some((row, column)) = reference {
            let column = column.map_or_else(String::new, |column| format!(" ({column})"));
            writeln!(page, "Ratios are to `{row}`{column}.\n")?;
        }
        writeln!(page, "| | {} |", columns.join(" | "))?;
        writeln!(page, "|---|{}", "--:|".repeat(columns.len()))?;
        for row in group.rows() {
            write!(page, "| {row} |")?;
            for column in &columns {
                match group.nanos(row, column) {
                    Some(nanos) => {
                        let base = reference
                            .and_then(|(base, at)| group.nanos(base, at.unwrap_or(column)));
                        let beside =
                            base.map_or_else(String::new, |b| format!(" ({}x)", ratio(nanos / b)));
                        write!(page, " {}{beside} |", time(nanos))?;
                    }
                    None => write!(page, " |")?,
                }
            }
            writeln!(page)?;
        }
        writeln!(page)?;
    }
    Ok(())
}

/// All that ran by turns.
pub(crate) fn sets(page: &mut String, sets: &[Set]) -> fmt::Result {
    if sets.is_empty() {
        return Ok(());
    }
    writeln!(page, "## All rows, by turns\n")?;
    for set in sets {
        writeln!(page, "### {}, {} rounds\n", set.name, set.rounds)?;
        writeln!(page, "| | median | middle half | calls a round |")?;
        writeln!(page, "|---|--:|--:|--:|")?;
        for row in &set.rows {
            let [median, p25, p75] = [row.median, row.p25, row.p75].map(time);
            writeln!(page, "| {} | {median} | {p25} .. {p75} | {} |", row.name, row.calls)?;
        }
        writeln!(page)?;
    }
    Ok(())
}

//! Where and how it was measured.

use std::{fs, path::Path, process::Command};

use rustix::fs::FsWord;
use snapring_bench::place::Place;

/// A few lines for the head of the page.
pub(crate) fn about(root: &Path) -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = field(&info, "model name").unwrap_or("a processor without a name");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let caches: Vec<String> = (0..8).filter_map(cache).collect();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = field(&memory, "MemTotal")
        .and_then(|kib| kib.split(' ').next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib >> 20);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let rustc = said(Command::new("rustc").arg("--version"));
    let commit =
        said(Command::new("git").current_dir(root).args(["describe", "--always", "--dirty"]));
    let date = said(Command::new("date").arg("+%Y-%m-%d"));
    let disk = file_system(Place::Ext4);
    let shared = file_system(Place::Tmpfs);
    format!(
        "Made by `scripts/bench.sh`, which runs everything and then writes this page \
         (`scripts/bench.sh 'save world'` runs a part and keeps the rest).\n\n\
         - {date}, commit {commit}, {rustc}, `lto = \"fat\"`, no flags for the processor\n\
         - {model}, {cores} cores, {}, {memory} GiB of memory\n\
         - Linux {}; the files \"on ext4\" are on {disk}, those \"on tmpfs\" on {shared}\n\n\
         All times are medians. Rings flush nothing while they are measured \
         (`Durability::Process`) and no peer flushes either, but where a row says so: those of \
         durable saves, those with the flusher behind them, and one that shows what the default \
         costs. What the rows mean is told in `benches/src/states.rs` (the states), \
         `limit.rs` and `by_hand.rs` (the references) and `peers/`.\n",
        caches.join(", "),
        kernel.trim(),
    )
}

/// The first field of this name in a text of `name : value` lines.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

/// The first core's cache of this number.
fn cache(number: usize) -> Option<String> {
    let read = |name: &str| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{number}/{name}");
        fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
    };
    let (level, kind, size) = (read("level")?, read("type")?, read("size")?);
    (kind != "Instruction").then(|| format!("L{level} {size}"))
}

/// What a command says on one line.
fn said(command: &mut Command) -> String {
    let output = command.output().ok().filter(|output| output.status.success());
    output.map_or_else(
        || "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// The kind of file system that a place is really on.
fn file_system(place: Place) -> &'static str {
    const EXT4: FsWord = 0xef53;
    const TMPFS: FsWord = 0x0102_1994;
    match rustix::fs::statfs(place.root().as_path()).map(|found| found.f_type) {
        Ok(EXT4) => "ext4",
        Ok(TMPFS) => "tmpfs",
        Ok(_) => "ANOTHER FILE SYSTEM",
        Err(_) => "no file system that can be asked",
    }
}

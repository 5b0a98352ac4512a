//! Where and when it ran.

use std::{
    ffi::CString,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

/// The machine, and the file systems of these directories.
pub(crate) fn about(memory: &Path, disk: &Path) -> Value {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = info.lines().find(|line| line.starts_with("model name"));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({
        "cpu": cpu.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, name)| name),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "kernel": kernel.trim(),
        "memory": file_system(memory),
        "disk": file_system(disk),
    })
}

/// The file system of a directory, or of the one above it.
fn file_system(path: &Path) -> String {
    let there = path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let Ok(text) = CString::new(there.as_os_str().as_bytes()) else { return "unknown".into() };
    // SAFETY: a structure of integers, for which zero is a value.
    let mut told: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a string that ends with a zero, and a whole structure to fill.
    if unsafe { libc::statfs(text.as_ptr(), &mut told) } != 0 {
        return "unknown".into();
    }
    // By the numbers of linux/magic.h.
    match told.f_type {
        0xef53 => "ext4".into(),
        0x0102_1994 => "tmpfs".into(),
        0x5846_5342 => "xfs".into(),
        0x9123_683e => "btrfs".into(),
        0x794c_7630 => "overlayfs".into(),
        other => format!("{other:#x}"),
    }
}

/// This moment in UTC, as `2026-01-31T12:34:56Z`.
pub(crate) fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let (mut days, clock) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for len in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < len {
            break;
        }
        days -= len;
        month += 1;
    }
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

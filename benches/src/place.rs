#![forbid(unsafe_code)]
//! Where files go while they are measured: a directory on ext4 or on tmpfs, gone when dropped.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// A kind of place for a ring or a peer's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Under `SNAPRING_BENCH_EXT4`, or else where cargo builds.
    Ext4,
    /// Under `/dev/shm`.
    Tmpfs,
    /// No files at all.
    Memory,
}

impl Place {
    /// The two that have files.
    pub const FILES: [Place; 2] = [Place::Tmpfs, Place::Ext4];

    /// What tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Place::Ext4 => "ext4",
            Place::Tmpfs => "tmpfs",
            Place::Memory => "memory",
        }
    }

    /// Where directories are made.
    pub fn root(self) -> PathBuf {
        match self {
            Place::Ext4 => env::var_os("SNAPRING_BENCH_EXT4").map_or_else(target, PathBuf::from),
            Place::Tmpfs => PathBuf::from("/dev/shm"),
            Place::Memory => PathBuf::new(),
        }
    }
}

/// Where cargo builds: criterion's results are there, and ours.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).join("target"),
        PathBuf::from,
    )
}

/// A directory of our own, removed with all that is in it when dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new one. Panics where none can be made: there is nothing to measure then.
    pub fn new(place: Place) -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only to be different.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = place.root().join(format!("snapring-bench-{}-{number}", process::id()));
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("make {}: {e}", path.display()));
        Scratch(path)
    }

    /// A name inside.
    pub fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

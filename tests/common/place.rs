//! Directories and mounts that are gone when the test is.

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// Says that a test could not run here, and why.
pub(crate) fn skipped(test: &str, why: &str) {
    println!("SKIPPED {test}: {why}");
}

/// A new directory, removed with everything in it.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    /// In memory where the system has such a place: thousands of openings do not wait for a disk.
    pub(crate) fn new(name: &str) -> TempDir {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { TempDir::under(memory, name) } else { TempDir::on_disk(name) }
    }

    /// Where temporary files go, mostly a disk.
    pub(crate) fn on_disk(name: &str) -> TempDir {
        TempDir::under(&std::env::temp_dir(), name)
    }

    fn under(root: &Path, name: &str) -> TempDir {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("snapring-test-{}-{number}-{name}", std::process::id()));
        _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a temporary directory");
        TempDir(path)
    }

    /// A directory inside that is not there yet.
    pub(crate) fn inside(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A copy of all its files, as another process would find them at this moment.
    pub(crate) fn copy(&self, name: &str) -> TempDir {
        let copy = TempDir::under(self.0.parent().expect("a parent"), name);
        for entry in fs::read_dir(&self.0).expect("a directory") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), copy.join(entry.file_name())).expect("a copy");
        }
        copy
    }
}

impl Deref for TempDir {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for TempDir {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// A mounted file system, unmounted and its directory removed at the end.
#[derive(Debug)]
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// `mount arguments.. at`; the reason where the system refuses.
    pub(crate) fn at(at: &Path, arguments: &[&str]) -> Result<Mount, String> {
        fs::create_dir_all(at).map_err(|e| e.to_string())?;
        run(Command::new("mount").args(arguments).arg(at))?;
        Ok(Mount(at.to_owned()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazy: whatever still uses it goes on, nothing new can.
        _ = run(Command::new("umount").arg("-l").arg(&self.0));
    }
}

/// Runs a command of the system; what it says where it fails.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

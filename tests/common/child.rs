//! This test binary once more, as another process: one of its tests runs there in a role.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

const ROLE: &str = "SNAPRING_TEST_ROLE";
const DIRECTORY: &str = "SNAPRING_TEST_DIRECTORY";
/// What a child reports starts with this, so that the test harness's own lines are not taken for it.
const MARK: &str = "child: ";

/// The role and the directory, where this process is such a child.
pub(crate) fn child_role() -> Option<(String, std::path::PathBuf)> {
    Some((std::env::var(ROLE).ok()?, std::env::var_os(DIRECTORY)?.into()))
}

/// Tells the parent something, at once.
pub(crate) fn report(line: impl std::fmt::Display) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    // The parent may be gone.
    _ = writeln!(out, "{MARK}{line}");
    _ = out.flush();
}

/// A child process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Child {
    child: std::process::Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Child {
    /// Runs the test `test` of this binary in a role, in a directory.
    pub(crate) fn start(test: &str, role: &str, directory: &Path) -> Child {
        let program = std::env::current_exe().expect("this program");
        Child::start_as(&mut Command::new(program), test, role, directory)
    }

    /// The same, by a command that says how (another user, another program file).
    pub(crate) fn start_as(
        command: &mut Command,
        test: &str,
        role: &str,
        directory: &Path,
    ) -> Child {
        let mut child = command
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(DIRECTORY, directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("a child process");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        Child { child, lines }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next thing it reports; `None` when it has ended.
    pub(crate) fn next(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).expect("its output") == 0 {
                return None;
            }
            // The harness puts the test's name before the first line, without a line end.
            if let Some((_, said)) = line.split_once(MARK) {
                // A line without an end was cut off by the kill.
                return said.strip_suffix('\n').map(str::to_owned);
            }
        }
    }

    /// Kill -9, and wait until it is gone.
    pub(crate) fn kill(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }

    /// Waits until it ends by itself; how it did.
    pub(crate) fn end(&mut self) -> std::process::ExitStatus {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().expect("a child to wait for") {
                return status;
            }
            assert!(std::time::Instant::now() < until, "it does not end");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    pub(crate) fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

#![forbid(unsafe_code)]
//! This program once more, as another process: told what it is by its arguments and what to do by
//! lines, answering by lines, killed when dropped.

use std::{
    env,
    ffi::OsStr,
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// The first argument of such a process; the others say what it is.
const AS: &str = "--as";

/// A process that runs this program.
#[derive(Debug)]
pub struct Other {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Other {
    /// Starts it with these words. Panics where the system refuses.
    pub fn start(words: &[&OsStr]) -> Other {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .arg(AS)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("another process");
        let to = child.stdin.take().expect("its input");
        let from = BufReader::new(child.stdout.take().expect("its output"));
        Other { child, to, from }
    }

    /// Says a line to it.
    pub fn say(&mut self, line: &str) {
        writeln!(self.to, "{line}").expect("a process that listens");
    }

    /// Waits for its next line. Panics if it has ended instead.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        let len = self.from.read_line(&mut line).expect("a line");
        assert!(len > 0, "the other process has ended: {:?}", self.child.wait());
        line.trim_end().to_owned()
    }

    /// Ends it as `kill -9` does, and returns when it is gone.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The words that this process was started with, if another has started it.
pub fn words() -> Option<Vec<String>> {
    let mut arguments = env::args().skip(1);
    (arguments.next()? == AS).then(|| arguments.collect())
}

/// Tells the process that started this one.
pub fn tell(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("a process that listens");
}

/// What the process that started this one says next; `None` when it is gone.
pub fn told() -> Option<String> {
    let mut line = String::new();
    let len = io::stdin().lock().read_line(&mut line).ok()?;
    (len > 0).then(|| line.trim_end().to_owned())
}

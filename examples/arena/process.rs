#![forbid(unsafe_code)]
//! [`Process`]: the server, as whoever has started it has it: orders go in, news comes out, and it
//! can be killed.

use std::{
    env,
    error::Error,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use crate::{
    news::{News, Ready},
    script::Options,
};

/// A server gets ready within this time, on any machine.
const GET_READY: Duration = Duration::from_secs(10);

/// A running server. Dropped, it is killed.
pub(crate) struct Process {
    child: Child,
    orders: ChildStdin,
    news: Receiver<News>,
}

impl Process {
    /// Starts this program again, as a server, and waits until it is ready.
    pub(crate) fn start(
        dir: &Path,
        options: &Options,
        port: u16,
    ) -> Result<(Process, Ready), Box<dyn Error>> {
        let mut child = Command::new(env::current_exe()?)
            .arg("--serve")
            .arg("--dir")
            .arg(dir)
            .args(["--players", &options.players.to_string()])
            .args(["--units", &options.units.to_string()])
            .args(["--port", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(orders), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the server has no pipes".into());
        };
        let (tell, news) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.filter_map(|line| News::parse(&line)).try_for_each(|news| tell.send(news).ok())
        });
        let mut process = Process { child, orders, news };
        match process.news(GET_READY)? {
            Some(News::Ready(ready)) => Ok((process, ready)),
            Some(_) => Err("the server does not start with being ready".into()),
            None => Err(format!("the server did not get ready ({})", process.end()?).into()),
        }
    }

    pub(crate) fn order(&mut self, order: &str) -> Result<(), Box<dyn Error>> {
        writeln!(self.orders, "{order}")
            .map_err(|e| format!("the server does not listen: {e}").into())
    }

    /// The next piece of news; `None` once the server has ended.
    ///
    /// # Errors
    ///
    /// There is none for so long.
    pub(crate) fn news(&self, limit: Duration) -> Result<Option<News>, Box<dyn Error>> {
        match self.news.recv_timeout(limit) {
            Ok(news) => Ok(Some(news)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("nothing from the server in {limit:?}").into())
            }
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing where it has ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

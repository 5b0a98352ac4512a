#![forbid(unsafe_code)]
//! The clients: each counts the ticks that it gets over its one connection, and answers each with a
//! byte. They know nothing of who serves.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

struct Client {
    stream: TcpStream,
    inbox: Vec<u8>,
    last: u64,
    ticks: u64,
    sent: u64,
    heard: u64,
}

/// What all of them have seen.
pub(crate) struct Seen {
    /// The first thing that was wrong.
    pub(crate) wrong: Option<String>,
    pub(crate) ticks: u64,
    /// The longest that any of them waited for a tick after its first.
    pub(crate) longest: Duration,
}

/// All clients, on a thread of their own.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    last: Arc<AtomicU64>,
    longest: Arc<Mutex<Duration>>,
    thread: JoinHandle<Seen>,
}

impl Clients {
    pub(crate) fn connect(count: usize, port: u16) -> io::Result<Clients> {
        let clients = (0..count).map(|_| Client::connect(port)).collect::<io::Result<Vec<_>>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let last = Arc::new(AtomicU64::new(0));
        let longest = Arc::new(Mutex::new(Duration::ZERO));
        let (end, tick, wait) = (stop.clone(), last.clone(), longest.clone());
        let thread = thread::spawn(move || play(clients, &end, &tick, &wait));
        Ok(Clients { stop, last, longest, thread })
    }

    /// The newest tick that every one of them has.
    pub(crate) fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// The longest wait for a tick since this was last asked.
    pub(crate) fn longest(&self) -> Duration {
        std::mem::take(&mut *self.longest.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Hears them out.
    pub(crate) fn finish(self) -> Option<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok()
    }
}

fn play(
    mut clients: Vec<Client>,
    stop: &AtomicBool,
    last: &AtomicU64,
    longest: &Mutex<Duration>,
) -> Seen {
    let mut seen = Seen { wrong: None, ticks: 0, longest: Duration::ZERO };
    let mut fresh = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let before = last.load(Ordering::Relaxed);
        for (i, client) in clients.iter_mut().enumerate() {
            if let Err(what) = client.turn() {
                seen.wrong.get_or_insert(format!("client {i}: {what}"));
            }
        }
        if seen.wrong.is_some() {
            break;
        }
        let now = clients.iter().map(|client| client.last).min().unwrap_or(0);
        last.store(now, Ordering::Relaxed);
        if now > before {
            if before > 0 {
                seen.longest = seen.longest.max(fresh.elapsed());
                let mut longest = longest.lock().unwrap_or_else(|e| e.into_inner());
                *longest = longest.max(fresh.elapsed());
            }
            fresh = Instant::now();
        }
        thread::sleep(Duration::from_micros(500));
    }
    seen.ticks = clients.iter().map(|client| client.ticks).sum();
    seen
}

impl Client {
    fn connect(port: u16) -> io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, inbox: Vec::new(), last: 0, ticks: 0, sent: 0, heard: 0 })
    }

    /// Takes what has come.
    fn turn(&mut self) -> Result<(), String> {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => return Err("the connection was dropped".to_owned()),
            Ok(n) => self.inbox.extend(&bytes[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(e) => return Err(e.to_string()),
        }
        let whole = self.inbox.len() / 16 * 16;
        let lines: Vec<u8> = self.inbox.drain(..whole).collect();
        for line in lines.chunks_exact(16) {
            let number = |at: usize| {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&line[at..at + 8]);
                u64::from_le_bytes(bytes)
            };
            let (tick, heard) = (number(0), number(8));
            if self.last > 0 && tick != self.last + 1 {
                return Err(format!("tick {tick} after {}", self.last));
            }
            if heard < self.heard || heard > self.sent {
                let (before, sent) = (self.heard, self.sent);
                return Err(format!("{heard} bytes heard, of {sent}, after {before}"));
            }
            (self.last, self.heard) = (tick, heard);
            self.ticks += 1;
            self.stream.write_all(&[1]).map_err(|e| e.to_string())?;
            self.sent += 1;
        }
        // What was sent is heard, whoever serves: at most a second later.
        if self.heard + 2 * crate::builds::RATE < self.sent {
            return Err(format!("{} bytes sent and {} heard", self.sent, self.heard));
        }
        Ok(())
    }
}

#![forbid(unsafe_code)]
//! [`Bots`]: the clients, each with a connection and a thread of its own. A bot keeps what it is
//! shown, orders its units about, tells the hash of its view when asked, and comes back when the
//! server has gone.

use std::{
    collections::HashMap,
    io::{self, BufReader, ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    view::{self, Row},
    wire::{Down, LONGEST_DOWN, Up},
    world::{fraction, mix},
};

/// A bot sends its units elsewhere once in so many ticks.
const RESTLESS: u64 = 24;

/// Stack of a bot's thread.
const STACK: usize = 128 << 10;

/// What bots have in common. Counts are for people to read: relaxed will do.
struct Shared {
    port: u16,
    /// Length of the map's sides.
    size: f32,
    stop: AtomicBool,
    bytes: AtomicU64,
    connections: AtomicU64,
    /// The snapshot of each bot's last RESYNC, and how many units it saw in it.
    resynced: Vec<AtomicU64>,
    sees: Vec<AtomicU64>,
}

/// The clients.
pub(crate) struct Bots {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Bots {
    pub(crate) fn start(count: u32, port: u16, size: f32) -> io::Result<Bots> {
        let zeros = || (0..count).map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared {
            port,
            size,
            stop: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            resynced: zeros(),
            sees: zeros(),
        });
        let thread = |player| {
            let shared = shared.clone();
            thread::Builder::new().stack_size(STACK).spawn(move || live(player, &shared))
        };
        let threads = (0..count).map(thread).collect::<io::Result<_>>()?;
        Ok(Bots { shared, threads })
    }

    /// Where the server is looked for.
    pub(crate) fn port(&self) -> u16 {
        self.shared.port
    }

    /// Bots whose last RESYNC was of this snapshot.
    pub(crate) fn resynced_to(&self, snapshot: u64) -> usize {
        self.shared.resynced.iter().filter(|last| last.load(Relaxed) == snapshot).count()
    }

    /// Units that a bot saw at its last RESYNC, on average.
    pub(crate) fn sees(&self) -> u64 {
        let sum: u64 = self.shared.sees.iter().map(|sees| sees.load(Relaxed)).sum();
        sum / self.shared.sees.len().max(1) as u64
    }

    /// Bytes received by all.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Relaxed)
    }

    /// Connections made by all.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Relaxed)
    }

    /// Lets them not come back when the server goes.
    pub(crate) fn dismiss(&self) {
        self.shared.stop.store(true, Relaxed);
    }

    /// Waits for all to end, which they do once the server has gone. `false` if one panicked.
    pub(crate) fn join(self) -> bool {
        self.threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count() == 0
    }
}

/// A bot's life: connect, play, and again.
fn live(player: u32, shared: &Shared) {
    // Not all at the same instant.
    let pause = Duration::from_millis(20 + u64::from(player % 40));
    while !shared.stop.load(Relaxed) {
        thread::sleep(pause);
        if let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.port)) {
            shared.connections.fetch_add(1, Relaxed);
            // It ends with the connection, whatever the reason.
            _ = Bot { player, shared, view: HashMap::new() }.play(stream);
        }
    }
}

struct Bot<'a> {
    player: u32,
    shared: &'a Shared,
    view: HashMap<u32, Row>,
}

impl Bot<'_> {
    fn play(mut self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut incoming = BufReader::new(&stream);
        let (mut body, mut out) = (Vec::new(), Vec::new());
        Up::Hello { player: self.player }.put(&mut out);
        loop {
            if !out.is_empty() {
                (&stream).write_all(&out)?;
                out.clear();
            }
            let mut len = [0; 4];
            incoming.read_exact(&mut len)?;
            let len = u32::from_le_bytes(len) as usize;
            if len > LONGEST_DOWN {
                return Err(ErrorKind::InvalidData.into());
            }
            body.resize(len, 0);
            incoming.read_exact(&mut body)?;
            self.shared.bytes.fetch_add(len as u64 + 4, Relaxed);
            self.take(Down::parse(&body).ok_or(ErrorKind::InvalidData)?, &mut out);
        }
    }

    fn take(&mut self, frame: Down, out: &mut Vec<u8>) {
        match frame {
            Down::Resync { snapshot, rows, .. } => {
                self.view = rows.into_iter().map(|row| (row.id, row)).collect();
                let me = self.player as usize;
                self.shared.sees[me].store(self.view.len() as u64, Relaxed);
                self.shared.resynced[me].store(snapshot, Relaxed);
            }
            Down::Delta { tick, changed, gone } => {
                gone.iter().for_each(|id| _ = self.view.remove(id));
                self.view.extend(changed.into_iter().map(|row| (row.id, row)));
                if tick % RESTLESS == u64::from(self.player) % RESTLESS {
                    let somewhere = |axis: u64| {
                        fraction(mix(tick, u64::from(self.player) << 1 | axis)) * self.shared.size
                    };
                    Up::Move { x: somewhere(0), y: somewhere(1) }.put(out);
                }
            }
            Down::Ask { number } => {
                Up::Hash { number, hash: view::hash(self.view.values().copied()) }.put(out);
            }
        }
    }
}

#![forbid(unsafe_code)]
//! [`Bots`]: the clients. Each has a connection of its own, keeps what it is shown, orders its
//! units about, tells the hash of its view when asked, and comes back when the server has gone. A
//! few threads look after them all.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    channel::Channel,
    view::{self, Row},
    wire::{Down, LONGEST_DOWN, Up},
    world::mix,
};

/// A bot sends its units elsewhere once in so many ticks; between, they stand.
const RESTLESS: u64 = 400;

/// Threads that look after the bots, and how long each rests between two rounds.
const THREADS: u32 = 4;
const REST: Duration = Duration::from_millis(4);

/// Connections that a thread tries to make in a round: all at once would be more than a listening
/// socket takes, and the rest would wait for a second.
const CALLS: u32 = 8;

/// What bots have in common. Relaxed everywhere: these are counts, and no other memory is read on
/// their word.
struct Shared {
    port: u16,
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
    pub(crate) fn start(count: u32, port: u16) -> io::Result<Bots> {
        let zeros = || (0..count).map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared {
            port,
            stop: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            resynced: zeros(),
            sees: zeros(),
        });
        let look_after = |first: u32| {
            let shared = shared.clone();
            let bot = |player| Bot { player, channel: None, view: HashMap::new() };
            let mut bots: Vec<Bot> = (first..count).step_by(THREADS as usize).map(bot).collect();
            thread::Builder::new().name("bots".to_owned()).spawn(move || {
                while !shared.stop.load(Relaxed) {
                    let mut calls = CALLS;
                    bots.iter_mut().for_each(|bot| bot.turn(&shared, &mut calls));
                    thread::sleep(REST);
                }
            })
        };
        let threads = (0..THREADS).map(look_after).collect::<io::Result<_>>()?;
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

    /// Lets all of them go; whether none had panicked.
    pub(crate) fn dismiss(&mut self) -> bool {
        self.shared.stop.store(true, Relaxed);
        let ended: Vec<_> = self.threads.drain(..).map(JoinHandle::join).collect();
        ended.iter().all(Result::is_ok)
    }
}

/// One client.
struct Bot {
    player: u32,
    channel: Option<Channel>,
    view: HashMap<u32, Row>,
}

impl Bot {
    /// Takes in what has come and answers it; connects if need be.
    fn turn(&mut self, shared: &Shared, calls: &mut u32) {
        let connected = self.channel.take().or_else(|| {
            *calls = calls.checked_sub(1)?;
            self.connect(shared).ok()
        });
        let Some(mut channel) = connected else { return };
        let played = channel.receive(LONGEST_DOWN, |body, out| {
            shared.bytes.fetch_add(body.len() as u64 + 4, Relaxed);
            self.take(Down::parse(body)?, shared, out);
            Some(())
        });
        // Otherwise the connection ends here, and the next turn makes another.
        if played.and_then(|()| channel.flush()).is_ok() {
            self.channel = Some(channel);
        }
    }

    fn connect(&mut self, shared: &Shared) -> io::Result<Channel> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.port))?;
        shared.connections.fetch_add(1, Relaxed);
        let mut channel = Channel::new(stream)?;
        self.view.clear();
        Up::Hello { player: self.player }.put(channel.outbox());
        Ok(channel)
    }

    fn take(&mut self, frame: Down, shared: &Shared, out: &mut Vec<u8>) {
        match frame {
            Down::Resync { snapshot, rows, .. } => {
                self.view = rows.into_iter().map(|row| (row.id, row)).collect();
                let me = self.player as usize;
                shared.sees[me].store(self.view.len() as u64, Relaxed);
                shared.resynced[me].store(snapshot, Relaxed);
            }
            Down::Delta { tick, changed, gone } => {
                gone.iter().for_each(|id| _ = self.view.remove(id));
                self.view.extend(changed.into_iter().map(|row| (row.id, row)));
                let mine = mix(0, self.player.into());
                if tick % RESTLESS == mine % RESTLESS {
                    let anyone = mix(tick, mine) as usize % self.view.len().max(1);
                    if let Some(row) = self.view.values().nth(anyone) {
                        let [x, y] = row.place();
                        Up::Move { x, y }.put(out);
                    }
                }
            }
            Down::Ask { number } => {
                Up::Hash { number, hash: view::hash(self.view.values().copied()) }.put(out);
            }
        }
    }
}

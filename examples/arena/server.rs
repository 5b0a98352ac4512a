//! The server: a world that ticks, clients that watch it, rules that come and go, and a caretaker
//! that has each tick on record before any client hears of it.
//!
//! It takes orders on its standard input (`load N`, `census`, `stop`) and tells what happens on its
//! standard output. It ends when its input does.

use std::{
    error::Error,
    io::{self, BufRead, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    sync::mpsc::{self, Receiver, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use snapring::{Caretaker, Entry, GuardError, Memento, Options, Policy, SnapshotId};

use crate::{
    census::Censuses,
    gateway::Gateway,
    news::{Loaded, News, Ready, Tick, Undone},
    rules::{Failure, Rules},
    view::{self, Grid, Row},
    wire::Up,
    workshop,
    world::{Arena, Damage},
};

/// Ticks a second.
pub(crate) const RATE: u32 = 30;

/// The time there is for a tick.
pub(crate) const BUDGET: Duration = Duration::from_micros(1_000_000 / RATE as u64);

/// How a server is started.
pub(crate) struct Config {
    /// Where the world is kept.
    pub(crate) world: PathBuf,
    /// Where the built rules are.
    pub(crate) rules: PathBuf,
    /// 0 for any.
    pub(crate) port: u16,
    pub(crate) players: u32,
    pub(crate) units: u32,
}

struct Server {
    config: Config,
    arena: Arena,
    caretaker: Caretaker<Arena>,
    /// A ring beside, for comparison: it writes every page of every snapshot.
    whole: Caretaker<Arena>,
    /// The newest tick on record.
    published: SnapshotId,
    rules: Option<Rules>,
    /// The rules before these.
    before: Option<Rules>,
    /// Connections that have not said who they are.
    strangers: Vec<Gateway>,
    censuses: Censuses,
}

/// Runs a server until it is told to stop.
pub(crate) fn serve(config: Config) -> Result<(), Box<dyn Error>> {
    let mut server = Server::open(config)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, server.config.port))?;
    let port = listener.local_addr()?.port();
    let (orders, arrivals) = (hear_orders(), accept(listener));
    server.ready(port);

    let mut next = Instant::now();
    loop {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let start = Instant::now();
        server.strangers.extend(arrivals.try_iter().filter_map(|s| Gateway::new(s).ok()));
        server.listen();
        loop {
            match orders.try_recv().as_deref() {
                Ok("census") => server.census("asked"),
                Ok("stop") => return server.close(),
                Ok(order) => server.load(order.trim_start_matches("load ").parse()?, start)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return server.close(),
            }
        }
        server.tick(start)?;
        // A tick that took too long is not made up for.
        next = (next + BUDGET).max(Instant::now());
    }
}

/// Lines from the standard input.
fn hear_orders() -> Receiver<String> {
    let (orders, heard) = mpsc::channel();
    thread::spawn(move || {
        io::stdin().lock().lines().map_while(Result::ok).try_for_each(|line| orders.send(line))
    });
    heard
}

/// New connections.
fn accept(listener: TcpListener) -> Receiver<TcpStream> {
    let (arrivals, arrived) = mpsc::channel();
    thread::spawn(move || {
        listener.incoming().map_while(Result::ok).try_for_each(|stream| arrivals.send(stream))
    });
    arrived
}

fn tell(news: impl Into<News>) {
    // Whoever has started this server may be gone; then the orders end, too.
    _ = writeln!(io::stdout().lock(), "{}", news.into().line());
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

impl Server {
    /// Opens the world, or makes one; puts the rules in charge that it names.
    fn open(config: Config) -> Result<Server, Box<dyn Error>> {
        // SAFETY: the directory is this example's own, and only its server writes there.
        let caretaker = unsafe { Caretaker::<Arena>::open(&config.world) }?;
        let whole = Options::new().ring(2).policy(Policy::Preset { dirty: 0, versions: 0 });
        let arena = match caretaker.resume()? {
            Some(arena) => arena,
            None => Arena::new(config.units, config.players),
        };
        let rules = match arena.rules {
            0 => None,
            number => {
                let path = workshop::library(&config.rules, number);
                Some(Rules::load(&path).map_err(|failure| failure.to_string())?)
            }
        };
        let published = match caretaker.head() {
            Some(head) => head,
            None => caretaker.save(&arena)?,
        };
        Ok(Server {
            config,
            arena,
            caretaker,
            whole: whole.in_memory()?,
            published,
            rules,
            before: None,
            strangers: Vec::new(),
            censuses: Censuses::default(),
        })
    }

    fn ready(&self, port: u16) {
        let recovery = self.caretaker.recovery();
        tell(Ready {
            pid: std::process::id(),
            port,
            resumed: recovery.chosen.is_some(),
            tick: self.arena.tick,
            head: self.published.get(),
            rejected: recovery.rejected.len(),
            clean: recovery.clean,
            units: self.arena.units.len(),
            rules: self.arena.rules,
        });
    }

    fn close(self) -> Result<(), Box<dyn Error>> {
        self.caretaker.close()?;
        Ok(())
    }

    /// Takes in what clients have sent: orders for their units, and hashes of their views.
    fn listen(&mut self) {
        let map = 0.0..=self.arena.size;
        let Server { arena, censuses, .. } = self;
        for player in &mut arena.players {
            let Some(gateway) = &mut player.gateway else { continue };
            let Ok(frames) = gateway.receive() else {
                lose(&mut player.gateway, censuses);
                continue;
            };
            for frame in frames {
                match frame {
                    Up::Move { x, y } if map.contains(&x) && map.contains(&y) => {
                        player.target = [x, y];
                    }
                    Up::Hash { number, hash } => match gateway.answered(number, hash) {
                        Some(true) => censuses.count(number, |census| census.agreed += 1),
                        Some(false) => censuses.count(number, |census| census.differed += 1),
                        None => {}
                    },
                    Up::Hello { .. } | Up::Move { .. } => {}
                }
            }
        }
        self.welcome();
        self.censuses.finished().into_iter().for_each(tell);
    }

    /// Seats the strangers who have said which players they are, and shows them the world.
    fn welcome(&mut self) {
        let mut seated = Vec::new();
        for mut stranger in std::mem::take(&mut self.strangers) {
            match stranger.receive().as_deref() {
                Ok([]) => self.strangers.push(stranger),
                Ok([Up::Hello { player }, ..]) => {
                    lose(&mut self.arena.join(*player).gateway, &mut self.censuses);
                    self.arena.join(*player).gateway = Some(stranger);
                    seated.push(*player);
                }
                _ => {}
            }
        }
        if !seated.is_empty() {
            self.resync("join", self.published, |player| seated.contains(&player));
        }
    }

    /// Puts rules in charge, or leaves everything as it was.
    fn load(&mut self, number: u32, tick_start: Instant) -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        let path = workshop::library(&self.config.rules, number);
        let caretaker = &self.caretaker;
        let mut hurt = Damage::default();
        let loaded = caretaker.guard(&mut self.arena, |arena| {
            let rules = Rules::load(&path)?;
            arena.rules = rules.number();
            let started = rules.start(arena);
            hurt = damage(caretaker, arena);
            started.map(|()| rules)
        });
        match loaded {
            Ok(rules) => {
                self.before = self.rules.replace(rules);
                tell(Loaded {
                    rules: number,
                    tick: self.arena.tick,
                    fingerprint: snapring::Fingerprint::of::<Arena>().to_string(),
                    took: micros(start.elapsed()),
                });
                Ok(())
            }
            Err(error) => self.undone(number, error, hurt, tick_start),
        }
    }

    /// One tick: by the rules in charge, or, if those fail, by the ones before.
    fn tick(&mut self, start: Instant) -> Result<(), Box<dyn Error>> {
        loop {
            let (rules, caretaker) = (self.rules, &self.caretaker);
            let mut hurt = Damage::default();
            let ticked = caretaker.guard(&mut self.arena, |arena| {
                arena.tick += 1;
                let ticked = rules.map_or(Ok(()), |rules| rules.tick(arena));
                if ticked.is_err() {
                    hurt = damage(caretaker, arena);
                }
                ticked
            });
            let Err(error) = ticked else { break };
            let failed = self.arena.rules;
            self.rules = self.before.take();
            self.undone(failed, error, hurt, start)?;
            self.arena.rules = self.rules.map_or(0, Rules::number);
        }

        let pausing = Instant::now();
        let pending = self.caretaker.capture(&self.arena)?;
        let pause = pausing.elapsed();
        // The snapshot is written while the views are made; they are sent when it is published.
        self.show();
        self.published = pending.wait()?;
        let published = pausing.elapsed();
        let once_a_second = self.arena.tick.is_multiple_of(RATE.into());
        if once_a_second {
            self.census("steady");
        }
        self.flush();
        let took = start.elapsed();

        let whole = if once_a_second { self.save_whole()? } else { Duration::ZERO };
        let (stats, history) = (self.caretaker.stats(), self.caretaker.history());
        let newest = history.first();
        tell(Tick {
            tick: self.arena.tick,
            head: self.published.get(),
            took: micros(took),
            pause: nanos(pause),
            published: nanos(published),
            whole: nanos(whole),
            bytes: newest.map_or(0, Entry::bytes),
            wrote: newest.map_or(0, Entry::written_bytes),
            dirty: stats.dirty,
            written: stats.written_bytes,
            files: stats.file_bytes,
            saves: stats.saves,
            clients: self.arena.connected(),
            durable: stats.durable.map_or(0, SnapshotId::get),
        });
        Ok(())
    }

    /// What a tick would take that wrote all of the state: tried on the ring beside.
    fn save_whole(&self) -> Result<Duration, Box<dyn Error>> {
        let saving = Instant::now();
        self.whole.save(&self.arena)?;
        Ok(saving.elapsed())
    }

    /// A change has failed and the state is back: proves it, and tells everyone.
    fn undone(
        &mut self,
        rules: u32,
        error: GuardError<Failure>,
        hurt: Damage,
        tick_start: Instant,
    ) -> Result<(), Box<dyn Error>> {
        let into_tick = tick_start.elapsed();
        let (Some(rollback), GuardError::Failed { error: failure, .. }) =
            (error.rollback(), &error)
        else {
            return Err(error.to_string().into());
        };
        let clients = self.arena.connected();
        let still = damage(&self.caretaker, &self.arena);
        // What was saved before, against the live state, saved anew.
        let digest = |id| self.caretaker.memento(id).as_ref().map(Memento::digest);
        let was = digest(rollback.to());
        let is = digest(self.caretaker.save(&self.arena)?);

        self.resync("resync", rollback.id(), |_| true);
        self.flush();
        tell(Undone {
            rules,
            tick: self.arena.tick,
            kind: failure.kind().to_owned(),
            words: failure.to_string(),
            units_hurt: hurt.units,
            scores_hurt: hurt.scores,
            still_hurt: still.units + still.scores,
            same_digest: was.is_some() && was == is,
            to: rollback.to().get(),
            head: rollback.id().get(),
            restored: micros(rollback.took()),
            into_tick: micros(into_tick),
            clients,
            clients_after: self.arena.connected(),
            in_charge: self.rules.map_or(0, Rules::number),
        });
        Ok(())
    }

    /// Gives these players the whole of what they see, under a snapshot's name, and asks them for
    /// its hash.
    fn resync(&mut self, why: &str, snapshot: SnapshotId, whom: impl Fn(u32) -> bool) {
        let number = self.censuses.start(why, snapshot.get());
        let Arena { tick, size, units, players, .. } = &mut self.arena;
        let grid = Grid::of(units, *size);
        for player in players.iter_mut().filter(|player| whom(player.id)) {
            let Some(gateway) = &mut player.gateway else { continue };
            gateway.resync(snapshot.get(), *tick, in_order(grid.around(units, player.eye)));
            gateway.ask(number, view::hash(grid.around(units, player.eye)));
            self.censuses.count(number, |census| census.asked += 1);
        }
    }

    /// Shows every client what has changed.
    fn show(&mut self) {
        let Arena { tick, size, units, players, .. } = &mut self.arena;
        let grid = Grid::of(units, *size);
        for player in players {
            let Some(gateway) = &mut player.gateway else { continue };
            gateway.show(*tick, in_order(grid.around(units, player.eye)));
        }
    }

    /// Asks every client for the hash of its view. What it should be comes from the state, not from
    /// what was sent.
    fn census(&mut self, why: &str) {
        let number = self.censuses.start(why, self.published.get());
        let Arena { size, units, players, .. } = &mut self.arena;
        let grid = Grid::of(units, *size);
        for player in players {
            let Some(gateway) = &mut player.gateway else { continue };
            gateway.ask(number, view::hash(grid.around(units, player.eye)));
            self.censuses.count(number, |census| census.asked += 1);
        }
    }

    /// Sends what has been said.
    fn flush(&mut self) {
        for player in &mut self.arena.players {
            if player.gateway.as_mut().is_some_and(|gateway| gateway.flush().is_err()) {
                lose(&mut player.gateway, &mut self.censuses);
            }
        }
    }
}

/// Lets a connection go; it answers no more.
fn lose(gateway: &mut Option<Gateway>, censuses: &mut Censuses) {
    for number in gateway.take().iter().flat_map(Gateway::open_questions) {
        censuses.count(number, |census| census.lost += 1);
    }
}

/// What differs between the state and its newest snapshot.
fn damage(caretaker: &Caretaker<Arena>, arena: &Arena) -> Damage {
    caretaker.read(|newest| arena.damage(newest)).unwrap_or_default()
}

fn in_order(rows: impl Iterator<Item = Row>) -> Vec<Row> {
    let mut rows: Vec<Row> = rows.collect();
    rows.sort_unstable_by_key(|row| row.id);
    rows
}

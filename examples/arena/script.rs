#![forbid(unsafe_code)]
//! The play: what is done to the server, when, and what is told about it. It runs in the process
//! that the user has started, and sees the server from outside alone.

use std::{
    env,
    error::Error,
    fs::{self, DirBuilder},
    os::unix::{fs::DirBuilderExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    bots::Bots,
    gate::TRIAL_ROWS,
    interface::INTERFACE,
    news::{Census, News, Ready, Tick, Undone},
    process::Process,
    record::{Kill, Record, Undoing},
    server::{BUDGET, RATE},
    timeline::{LEGEND, Timeline, Tone, bytes, ms},
    workshop,
};

/// What the user may choose.
pub(crate) struct Options {
    pub(crate) players: u32,
    pub(crate) units: u32,
    pub(crate) seconds: u32,
    pub(crate) dir: Option<PathBuf>,
}

/// What is done to the server.
enum Act {
    Load(u32),
    Kill,
}

/// When, in parts of the whole.
const SCRIPT: [(f64, Act); 6] = [
    (0.03, Act::Load(1)),
    (0.14, Act::Load(2)),
    (0.28, Act::Load(3)),
    (0.42, Act::Load(4)),
    (0.56, Act::Load(5)),
    (0.74, Act::Kill),
];

/// Longer than this nothing takes, on any machine.
const LIMIT: Duration = Duration::from_secs(10);

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Plays it all; whether everything held.
pub(crate) fn play(options: Options) -> Outcome<bool> {
    make_room_for(options.players)?;
    let timeline = Timeline::new();
    timeline.raw(format_args!(
        "\n{}\n{} clients on loopback TCP, {} units, {RATE} ticks a second, rules in a plugin.\n\n",
        timeline.paint(Tone::Strong, "A live server that breaks, recovers and goes on"),
        options.players,
        options.units,
    ));

    let (dir, passing) = match &options.dir {
        Some(dir) => (dir.clone(), false),
        None => (env::temp_dir().join(format!("snapring-arena-{}", std::process::id())), true),
    };
    DirBuilder::new().mode(0o700).recursive(!passing).create(&dir)?;
    DirBuilder::new().mode(0o700).recursive(true).create(dir.join("rules"))?;
    build(&timeline, &dir.join("rules")).inspect_err(|_| {
        timeline.blank();
        if passing {
            _ = fs::remove_dir_all(&dir);
        }
    })?;

    let (server, ready) = Process::start(&dir, &options, 0)?;
    timeline.note("server", format_args!("process {}, on 127.0.0.1:{}", ready.pid, ready.port));
    let found = if ready.resumed { "found, and gone on with" } else { "made anew" };
    timeline.note("world", format_args!("{}, {found}", dir.join("world").display()));
    timeline.note("ticks", LEGEND);
    timeline.blank();
    timeline.heading();

    let bots = Bots::start(options.players, ready.port)?;
    let record =
        Record { players: options.players as usize, units: ready.units, ..Record::default() };
    let mut play = Play { options, dir, timeline, server, bots, record, pulse: Vec::new() };
    let held = play.run(&ready);
    if passing && matches!(held, Ok(true)) {
        fs::remove_dir_all(&play.dir)?;
    } else {
        play.timeline.note("kept", play.dir.display());
    }
    held
}

/// Each client takes a descriptor here and one in the server.
fn make_room_for(players: u32) -> Outcome<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    let need = u64::from(players) + 100;
    if let Some(most) = limit.maximum.filter(|most| *most < need) {
        let words =
            format!("{players} clients take {need} open files; {most} are allowed (ulimit -n)");
        return Err(words.into());
    }
    if limit.current.is_some_and(|current| current < need) {
        limit.current = Some(need);
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(())
}

fn build(timeline: &Timeline, dir: &Path) -> Outcome<()> {
    timeline.raw(format_args!(
        "  {}built",
        timeline.paint(Tone::Quiet, format_args!("{:<10}", "rules"))
    ));
    let start = Instant::now();
    for number in 1..=5 {
        workshop::build(number, dir)?;
        timeline.raw(format_args!(" v{number}"));
    }
    timeline.raw(format_args!(" in {:.1} s\n", start.elapsed().as_secs_f64()));
    Ok(())
}

struct Play {
    options: Options,
    dir: PathBuf,
    timeline: Timeline,
    server: Process,
    bots: Bots,
    record: Record,
    /// Ticks that have not been shown.
    pulse: Vec<Tick>,
}

impl Play {
    fn run(&mut self, ready: &Ready) -> Outcome<bool> {
        self.timeline.start();
        self.everyone_is_in()?;
        let text = format!(
            "{} clients are in, each sees about {} units",
            self.record.players,
            self.bots.sees()
        );
        self.timeline.event(self.now(), Tone::Strong, "start", text);
        if ready.resumed {
            let text =
                format!("tick {} (#{}), under rules v{}", ready.tick, ready.head, ready.rules);
            self.timeline.more(Tone::Quiet, "gone on from", text);
        }

        let whole = Duration::from_secs(self.options.seconds.into());
        for (part, act) in SCRIPT {
            self.watch_until(whole.mul_f64(part))?;
            match act {
                Act::Load(number) => self.load(number)?,
                Act::Kill => self.kill()?,
            }
        }
        self.watch_until(whole)?;
        self.end()?;

        self.timeline.blank();
        let held = self.record.table(&self.timeline);
        self.timeline.blank();
        self.timeline.raw(if held {
            "Everything held. Read next: README.md, then examples/arena/server.rs.\n"
        } else {
            "Not everything held.\n"
        });
        Ok(held)
    }

    /// The newest tick that was told of.
    fn now(&self) -> u64 {
        self.record.last.as_ref().map_or(0, |tick| tick.tick)
    }

    /// Takes news in until one of them is what is waited for.
    fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(&News) -> Option<T>) -> Outcome<T> {
        let until = Instant::now() + LIMIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Some(news) =
                self.server.news(left).map_err(|_| format!("no {what} in {LIMIT:?}"))?
            else {
                return Err(format!("the server has ended before the {what}").into());
            };
            self.note(&news);
            if let Some(picked) = pick(&news) {
                return Ok(picked);
            }
        }
    }

    /// Writes down what every piece of news means for the record.
    fn note(&mut self, news: &News) {
        match news {
            News::Tick(tick) => {
                self.record.tick(tick);
                self.pulse.push(tick.clone());
                if self.pulse.len() >= RATE as usize {
                    self.show_pulse(tick);
                }
            }
            News::Census(census) => self.record.census(census),
            _ => {}
        }
    }

    /// A second of ticks.
    fn show_pulse(&mut self, tick: &Tick) {
        let ticks = std::mem::take(&mut self.pulse);
        let took: Vec<Duration> = ticks.iter().map(|t| Duration::from_micros(t.took)).collect();
        let mean = |of: fn(&Tick) -> f64| ticks.iter().map(of).sum::<f64>() / ticks.len() as f64;
        let text = format!(
            "{} a tick, {} of it pause   {:.0} % of {} of #{} written",
            ms(Duration::from_secs_f64(mean(|t| t.took as f64) / 1e6)),
            ms(Duration::from_secs_f64(mean(|t| t.pause as f64) / 1e9)),
            100.0 * mean(|t| t.wrote as f64 / t.bytes.max(1) as f64),
            bytes(tick.bytes),
            tick.head,
        );
        self.timeline.pulse(tick.tick, &took, text);
    }

    /// Lets the server run until this time of the play.
    fn watch_until(&mut self, time: Duration) -> Outcome<()> {
        while self.timeline.elapsed() < time {
            self.wait("tick", |news| matches!(news, News::Tick(_)).then_some(()))?;
        }
        Ok(())
    }

    /// Waits until all clients are connected and agree with the server.
    fn everyone_is_in(&mut self) -> Outcome<Census> {
        let players = self.record.players;
        self.wait("sight of every client", |news| {
            matches!(news, News::Tick(tick) if tick.clients == players).then_some(())
        })?;
        self.census()
    }

    /// Asks every client what it sees.
    fn census(&mut self) -> Outcome<Census> {
        self.server.order("census")?;
        self.wait("answer of every client", |news| match news {
            News::Census(census) if census.why == "asked" => Some(census.clone()),
            _ => None,
        })
    }

    fn load(&mut self, number: u32) -> Outcome<()> {
        self.server.order(&format!("load {number}"))?;
        let news = self.wait("word of the rules", |news| {
            matches!(news, News::Loaded(_) | News::Undone(_)).then(|| news.clone())
        })?;
        match news {
            News::Loaded(loaded) => {
                let text = format!(
                    "interface {INTERFACE}, layout {}…, {TRIAL_ROWS} trial rows read alike, {}",
                    &loaded.fingerprint[..8],
                    ms(Duration::from_micros(loaded.took)),
                );
                self.timeline.event(loaded.tick, Tone::Good, &format!("v{number} is in"), text);
                self.record.loaded.push(loaded);
                // This one does not stay.
                if number == 5 {
                    let undone = self.wait("failure", |news| match news {
                        News::Undone(undone) => Some(undone.clone()),
                        _ => None,
                    })?;
                    self.undone(undone)?;
                }
            }
            News::Undone(undone) => self.undone(undone)?,
            _ => {}
        }
        Ok(())
    }

    /// Tells of a failure and what came of it, and waits for what every client says.
    fn undone(&mut self, undone: Undone) -> Outcome<()> {
        let name = match undone.kind.as_str() {
            "refused" => "is refused",
            "error" => "fails",
            _ => "panics",
        };
        let head = format!("v{} {name}", undone.rules);
        self.timeline.event(undone.tick, Tone::Bad, &head, &undone.words);
        if undone.units_hurt + undone.scores_hurt > 0 {
            let text = format!("{} units and {} scores", undone.units_hurt, undone.scores_hurt);
            self.timeline.more(Tone::Bad, "  spoilt", text);
        }
        let text = format!(
            "to #{} in {}, {} into the tick; digest {}; v{} goes on",
            undone.to,
            ms(Duration::from_micros(undone.restored)),
            ms(Duration::from_micros(undone.into_tick)),
            if undone.same_digest { "equal" } else { "DIFFERENT" },
            undone.in_charge,
        );
        self.timeline.more(Tone::Back, "  state back", text);

        let head = undone.head;
        let census = self.wait("answer of every client", |news| match news {
            News::Census(census) if census.why == "resync" && census.head == head => {
                Some(census.clone())
            }
            _ => None,
        })?;
        let resynced = self.bots.resynced_to(head);
        let text = format!(
            "#{head} to {resynced} clients; {} of {} agree, {} later",
            census.agreed,
            census.asked,
            ms(Duration::from_micros(census.took)),
        );
        let tone = if census.agreed == self.record.players { Tone::Good } else { Tone::Bad };
        self.timeline.more(tone, "  RESYNC", text);
        self.record.undone.push(Undoing { undone, resynced, census });
        Ok(())
    }

    /// Kills the server without a warning, and starts it again.
    fn kill(&mut self) -> Outcome<()> {
        self.record.connections = self.bots.connections();
        // Anywhere in a tick.
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.subsec_nanos();
        thread::sleep(BUDGET.mul_f64(f64::from(nanos % 1000) / 1000.0));

        let start = Instant::now();
        self.server.kill()?;
        let signal = self.server.end()?.signal();
        // What it still had told before.
        while let Some(news) = self.server.news(LIMIT)? {
            self.note(&news);
        }
        let Some(last) = self.record.last.clone() else { return Err("there was no tick".into()) };
        self.record.carry();
        let text = format!(
            "tick {} is published as #{}; #{} is on the disk",
            last.tick, last.head, last.durable
        );
        self.timeline.event(last.tick, Tone::Bad, "SIGKILL", text);

        let port = self.bots.port();
        let (server, ready) = Process::start(&self.dir, &self.options, port)?;
        self.server = server;
        self.wait("tick", |news| matches!(news, News::Tick(_)).then_some(()))?;
        let to_first_tick = start.elapsed();
        let text = format!(
            "in tick {} as of #{}, under v{}; next tick {} after the kill",
            ready.tick,
            ready.head,
            ready.rules,
            ms(to_first_tick)
        );
        self.timeline.event(ready.tick, Tone::Back, "  resumed", text);
        let census = self.everyone_is_in()?;
        let to_all_clients = start.elapsed();
        let text = format!(
            "{} of {} agree, {} after the kill",
            census.agreed,
            census.asked,
            ms(to_all_clients)
        );
        self.timeline.more(Tone::Good, "  clients back", text);
        self.record.kill = Some(Kill {
            signal,
            tick: last.tick,
            head: last.head,
            resumed_tick: ready.tick,
            resumed_head: ready.head,
            rules: ready.rules,
            clean: ready.clean,
            to_first_tick,
            agreed: census.agreed,
            to_all_clients,
        });
        Ok(())
    }

    /// Compares all views a last time and lets everyone go.
    fn end(&mut self) -> Outcome<()> {
        self.record.last_census = Some(self.census()?);
        self.record.sent = self.bots.bytes();
        self.record.bots_well = self.bots.dismiss();
        self.server.order("stop")?;
        while let Some(news) = self.server.news(LIMIT)? {
            self.note(&news);
        }
        self.record.closed = self.server.end()?.success();
        Ok(())
    }
}

#![forbid(unsafe_code)]
//! [`Record`]: what has happened in a run, and whether that is what had to happen.

use std::time::Duration;

use crate::{
    news::{Census, Loaded, Tick, Undone},
    server::BUDGET,
    timeline::{Timeline, bytes, ms, us},
};

/// A kill and what came after.
pub(crate) struct Kill {
    /// The signal that ended the server.
    pub(crate) signal: Option<i32>,
    /// The last tick, and its snapshot, that the server had told of.
    pub(crate) tick: u64,
    pub(crate) head: u64,
    /// Where the new server went on.
    pub(crate) resumed_tick: u64,
    pub(crate) resumed_head: u64,
    /// The rules that the new server put in charge.
    pub(crate) rules: u32,
    /// The new server found the files as of a clean close.
    pub(crate) clean: bool,
    /// From the kill to the new server's first tick being published.
    pub(crate) to_first_tick: Duration,
    /// Clients that agreed with the new server, and the time from the kill until they had said so.
    pub(crate) agreed: usize,
    pub(crate) to_all_clients: Duration,
}

/// A reload that was undone, and what its clients said.
pub(crate) struct Undoing {
    pub(crate) undone: Undone,
    /// Clients that took in the RESYNC with the rollback's snapshot.
    pub(crate) resynced: usize,
    pub(crate) census: Census,
}

/// What has happened so far.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) players: usize,
    pub(crate) units: usize,
    /// Every tick's work.
    pub(crate) ticks: Vec<Duration>,
    pub(crate) longest: (Duration, u64),
    pub(crate) last: Option<Tick>,
    /// The pause of every tick's capture, the time until it was published, and what saves of
    /// everything took.
    pub(crate) pauses: Vec<Duration>,
    pub(crate) published: Vec<Duration>,
    pub(crate) wholes: Vec<Duration>,
    /// Bytes of all captures, how many of them were written, and the sum of the shares of pages.
    pub(crate) captured: u64,
    pub(crate) wrote: u64,
    pub(crate) dirty: f64,
    /// Written by servers that are gone.
    pub(crate) written_before: u64,
    pub(crate) saves_before: u64,
    pub(crate) loaded: Vec<Loaded>,
    pub(crate) undone: Vec<Undoing>,
    pub(crate) kill: Option<Kill>,
    /// All censuses taken together.
    pub(crate) agreed: usize,
    pub(crate) differed: usize,
    /// Connections that clients made before the kill.
    pub(crate) connections: u64,
    /// The census at the end, and whether the server closed its files in good order.
    pub(crate) last_census: Option<Census>,
    pub(crate) closed: bool,
    /// Bytes that clients have received, and whether none of them panicked.
    pub(crate) sent: u64,
    pub(crate) bots_well: bool,
}

impl Record {
    pub(crate) fn tick(&mut self, tick: &Tick) {
        let took = Duration::from_micros(tick.took);
        self.ticks.push(took);
        if took > self.longest.0 {
            self.longest = (took, tick.tick);
        }
        self.last = Some(tick.clone());
        self.pauses.push(Duration::from_nanos(tick.pause));
        self.published.push(Duration::from_nanos(tick.published));
        if tick.whole > 0 {
            self.wholes.push(Duration::from_nanos(tick.whole));
        }
        self.captured += tick.bytes;
        self.wrote += tick.wrote;
        self.dirty += tick.dirty;
    }

    pub(crate) fn census(&mut self, census: &Census) {
        self.agreed += census.agreed;
        self.differed += census.differed;
    }

    /// The server is gone, and its counts with it.
    pub(crate) fn carry(&mut self) {
        if let Some(last) = &self.last {
            self.written_before += last.written;
            self.saves_before += last.saves;
        }
    }

    /// Prints the table; whether everything held.
    pub(crate) fn table(&self, timeline: &Timeline) -> bool {
        let rows = [
            ("reloads", self.reloads()),
            ("rollbacks", self.rollbacks()),
            ("time to restored", self.restored()),
            ("longest tick", self.longest_tick()),
            ("pauses", self.pauses()),
            ("captures", self.captures()),
            ("killed", self.killed()),
            ("up again", self.up_again()),
            ("bytes", self.bytes()),
            ("clients", self.clients()),
        ];
        rows.iter().for_each(|(name, (held, text))| timeline.row(*held, name, text));
        rows.iter().all(|(_, (held, _))| *held)
    }

    /// v1 and v2 go in; v3 is refused at the gate, v4 reports an error when it starts, v5 goes in
    /// and panics in its third tick.
    fn reloads(&self) -> (bool, String) {
        let loaded: Vec<u32> = self.loaded.iter().map(|l| l.rules).collect();
        let failed: Vec<(u32, &str)> =
            self.undone.iter().map(|u| (u.undone.rules, u.undone.kind.as_str())).collect();
        // Two ticks went well, so the state is back where the third began.
        let third =
            self.loaded.last().map(|l| l.tick + 2) == self.undone.last().map(|u| u.undone.tick);
        let held = loaded == [1, 2, 5]
            && failed == [(3, "refused"), (4, "error"), (5, "panic")]
            && self.undone.iter().all(|u| u.undone.in_charge == 2)
            && third;
        let names =
            |list: &[u32]| list.iter().map(|n| format!("v{n}")).collect::<Vec<_>>().join(" ");
        let out: Vec<u32> = failed.iter().map(|(n, _)| *n).collect();
        (
            held,
            format!("{} went in; {} failed, and v2 went on each time", names(&loaded), names(&out)),
        )
    }

    fn rollbacks(&self) -> (bool, String) {
        let whole = |u: &&Undoing| u.undone.same_digest && u.undone.still_hurt == 0;
        let whole = self.undone.iter().filter(whole).count();
        // v4 must have spoilt everything, and v5 something, or nothing was proved.
        let hurt = |rules: u32| self.undone.iter().find(|u| u.undone.rules == rules);
        let real = hurt(4)
            .is_some_and(|u| u.undone.units_hurt == self.units && u.undone.scores_hurt > 0)
            && hurt(5).is_some_and(|u| u.undone.units_hurt > 0);
        let text =
            format!("{whole} of 3 in the same tick, each to the digest of what was saved before");
        (whole == 3 && self.undone.len() == 3 && real, text)
    }

    fn restored(&self) -> (bool, String) {
        let times: Vec<Duration> =
            self.undone.iter().map(|u| Duration::from_micros(u.undone.restored)).collect();
        let longest = times.iter().max().copied().unwrap_or_default();
        let each: Vec<String> = times.iter().map(|time| ms(*time)).collect();
        (
            !times.is_empty() && longest < BUDGET,
            format!("{} from the failure to the state being back", each.join(", ")),
        )
    }

    fn longest_tick(&self) -> (bool, String) {
        let at = |part| part_of(&self.ticks, part);
        let text = format!(
            "{} (tick {}); median {}, p99 {}, in {} ticks; there are {}",
            ms(self.longest.0),
            self.longest.1,
            ms(at(0.5)),
            ms(at(0.99)),
            self.ticks.len(),
            ms(BUDGET),
        );
        // One tick may wait for the machine; the run of them must not.
        (!self.ticks.is_empty() && at(0.5) < BUDGET, text)
    }

    fn pauses(&self) -> (bool, String) {
        let (pause, whole) = (part_of(&self.pauses, 0.5), part_of(&self.wholes, 0.5));
        let text = format!(
            "median {} for a tick's capture, p99 {}, published within {}; a save of all pages takes {}",
            us(pause),
            us(part_of(&self.pauses, 0.99)),
            ms(part_of(&self.published, 0.5)),
            us(whole),
        );
        (!self.pauses.is_empty() && pause < BUDGET / 20, text)
    }

    /// What stands still is shared: it is written once for each side of the ring.
    fn captures(&self) -> (bool, String) {
        let of_all = |part: f64| 100.0 * part / self.pauses.len().max(1) as f64;
        let share = 100.0 * self.wrote as f64 / self.captured.max(1) as f64;
        let text = format!(
            "{:.1} % of pages written, on average; {} of {} ({share:.1} %), the rest is shared",
            of_all(self.dirty),
            bytes(self.wrote),
            bytes(self.captured),
        );
        (self.wrote > 0 && self.wrote < self.captured, text)
    }

    fn killed(&self) -> (bool, String) {
        let Some(kill) = &self.kill else { return (false, "not".to_owned()) };
        // The server may have published one tick that it did not live to tell of.
        let held = kill.signal == Some(9)
            && !kill.clean
            && kill.rules == 2
            && (kill.tick..=kill.tick + 1).contains(&kill.resumed_tick)
            && kill.resumed_head >= kill.head;
        let text = format!(
            "by signal {} in tick {} (#{}); gone on with in tick {} (#{})",
            kill.signal.map_or("none".to_owned(), |n| n.to_string()),
            kill.tick,
            kill.head,
            kill.resumed_tick,
            kill.resumed_head,
        );
        (held, text)
    }

    fn up_again(&self) -> (bool, String) {
        let Some(kill) = &self.kill else { return (false, "not".to_owned()) };
        let text = format!(
            "{} from the kill to the next tick, {} to every client in agreement",
            ms(kill.to_first_tick),
            ms(kill.to_all_clients)
        );
        (kill.agreed == self.players, text)
    }

    fn bytes(&self) -> (bool, String) {
        let Some(last) = &self.last else { return (false, "none".to_owned()) };
        let text = format!(
            "{} a snapshot; {} snapshots, {} written into {} of files; {} to clients",
            bytes(last.bytes),
            self.saves_before + last.saves,
            bytes(self.written_before + last.written),
            bytes(last.files),
            bytes(self.sent),
        );
        (last.bytes > 0 && self.closed, text)
    }

    fn clients(&self) -> (bool, String) {
        let all = |census: &Census| census.agreed == self.players && census.asked == self.players;
        let resynced = |u: &Undoing| {
            u.resynced == self.players
                && all(&u.census)
                && u.undone.clients == self.players
                && u.undone.clients_after == self.players
        };
        let now = self.last_census.as_ref().map_or(0, |census| census.agreed);
        let held = self.undone.iter().all(resynced)
            && self.last_census.as_ref().is_some_and(all)
            && self.differed == 0
            // Nobody had to connect again, but for the kill.
            && self.connections == self.players as u64
            && self.bots_well;
        let text = format!(
            "{now} of {} in agreement; {} views compared in all, {} differed",
            self.players,
            self.agreed + self.differed,
            self.differed
        );
        (held, text)
    }
}

/// The value below which such a part of all is.
fn part_of(times: &[Duration], part: f64) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    times.get((last as f64 * part) as usize).copied().unwrap_or_default()
}

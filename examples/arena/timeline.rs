#![forbid(unsafe_code)]
//! [`Timeline`]: how the run looks on the screen. It knows columns and colours, and not what they
//! mean.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use crate::server::BUDGET;

/// Where the text of a line starts.
const INDENT: usize = 17;

/// How wide the first word of that text is.
const HEAD: usize = 15;

/// What a line is about; on a terminal it shows by colour.
#[derive(Clone, Copy)]
pub(crate) enum Tone {
    Strong,
    Quiet,
    Good,
    Bad,
    Back,
}

/// Lines of the run, with the time and the tick in front.
pub(crate) struct Timeline {
    colours: bool,
    start: Instant,
}

impl Timeline {
    pub(crate) fn new() -> Timeline {
        let colours = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
        Timeline { colours, start: Instant::now() }
    }

    /// Starts the clock.
    pub(crate) fn start(&mut self) {
        self.start = Instant::now();
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn paint(&self, tone: Tone, text: impl Display) -> String {
        let code = match tone {
            _ if !self.colours => return text.to_string(),
            Tone::Strong => "1",
            Tone::Quiet => "2",
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Back => "36",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Text with nothing in front, and no end of the line.
    pub(crate) fn raw(&self, text: impl Display) {
        let mut out = io::stdout().lock();
        // Nobody may be reading; the run goes on all the same.
        _ = write!(out, "{text}").and_then(|()| out.flush());
    }

    pub(crate) fn blank(&self) {
        self.raw("\n");
    }

    /// A line of the preface: a name and what there is to say.
    pub(crate) fn note(&self, name: &str, text: impl Display) {
        self.raw(format_args!("  {}{text}\n", self.paint(Tone::Quiet, format_args!("{name:<10}"))));
    }

    /// Something happens, now, in this tick.
    pub(crate) fn event(&self, tick: u64, tone: Tone, head: &str, text: impl Display) {
        let head = self.paint(tone, format_args!("{head:<HEAD$}"));
        self.raw(format_args!("{}{head}{text}\n", self.clock(tick)));
    }

    /// More about the same.
    pub(crate) fn more(&self, tone: Tone, head: &str, text: impl Display) {
        let head = self.paint(tone, format_args!("{head:<HEAD$}"));
        self.raw(format_args!("{:INDENT$}{head}{text}\n", ""));
    }

    /// A stretch of ticks at a glance.
    pub(crate) fn pulse(&self, tick: u64, took: &[Duration], text: impl Display) {
        // Red are those that took longer than there is time for.
        let late = |took: &Duration| *took > BUDGET;
        let bars: String = took
            .chunk_by(|a, b| late(a) == late(b))
            .map(|run| {
                let tone = if late(&run[0]) { Tone::Bad } else { Tone::Good };
                self.paint(tone, run.iter().map(|took| bar(*took)).collect::<String>())
            })
            .collect();
        let text = self.paint(Tone::Quiet, text);
        self.raw(format_args!("{}{bars}  {text}\n", self.clock(tick)));
    }

    fn clock(&self, tick: u64) -> String {
        let clock = format!("{:>6.1} {tick:>7}", self.elapsed().as_secs_f64());
        self.paint(Tone::Quiet, format_args!("{clock:<INDENT$}"))
    }

    /// What stands above time and tick.
    pub(crate) fn heading(&self) {
        let heading = format!("{:>6} {:>7}", "second", "tick");
        self.raw(format_args!("{}\n", self.paint(Tone::Quiet, heading)));
    }

    /// One line of the table at the end.
    pub(crate) fn row(&self, held: bool, name: &str, text: impl Display) {
        let mark =
            if held { self.paint(Tone::Good, "held  ") } else { self.paint(Tone::Bad, "FAILED") };
        self.raw(format_args!(
            "  {mark}  {}{text}\n",
            self.paint(Tone::Strong, format_args!("{name:<18}"))
        ));
    }
}

/// What the bars of a pulse mean.
pub(crate) const LEGEND: &str =
    "▁ a tick of 1 ms, ▄ of 4 ms, █ of 16 ms or more; there are 33 ms for each";

/// The height of a bar grows with each step of the tick's time.
fn bar(took: Duration) -> char {
    const STEPS: [(u128, char); 7] =
        [(1, '▁'), (2, '▂'), (3, '▃'), (4, '▄'), (6, '▅'), (8, '▆'), (16, '▇')];
    let longer = |(ms, _): &&(u128, char)| took.as_micros() <= ms * 1000;
    STEPS.iter().find(longer).map_or('█', |(_, bar)| *bar)
}

/// A length of time in milliseconds.
pub(crate) fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 1.0 { format!("{ms:.2} ms") } else { format!("{ms:.1} ms") }
}

/// A short time in microseconds.
pub(crate) fn us(time: Duration) -> String {
    format!("{:.0} us", time.as_secs_f64() * 1e6)
}

/// A number of bytes.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{} kB", n / 1000),
        _ => format!("{} MB", n / 1_000_000),
    }
}

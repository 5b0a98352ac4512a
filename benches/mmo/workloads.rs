#![forbid(unsafe_code)]
//! The workloads: a thread that ticks, another that brings checkpoints to their end, and what a tick
//! takes longer for it.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use snapring_bench::{
    results::{self, Mmo, Workload},
    run::Asked,
};

use crate::{
    samples::Samples,
    traces::{self, Mapping, Trace},
    ways::{Captured, Copied, Forked, Rest, Row, Saved, Way},
};

/// Ticks that are counted.
const TICKS: usize = 200;

/// Ticks that are drawn, and then drawn upon.
const DRAWN: usize = 40;

/// From one tick to the next, unless it takes longer.
const PACE: Duration = Duration::from_millis(10);

/// At so many ticks a checkpoint is looked into.
const LOOKS: usize = 3;

/// A table, what is written to it, and how often a checkpoint begins.
struct Load {
    name: String,
    about: String,
    rows: usize,
    trace: Trace,
    /// A checkpoint begins every so many ticks, if none is under way.
    every: usize,
    /// Rows of a page.
    pages: [usize; 2],
}

/// What brings a checkpoint to its end, and when it was begun.
type Job = (Rest, Instant);

/// Ticks, and tells what they took.
fn run<R: Row>(
    load: &Load,
    name: &str,
    mut way: Box<dyn Way<R>>,
    base: f64,
    ticks: usize,
) -> results::Way {
    let (idle, mut busy) = (AtomicBool::new(true), Samples::default());
    let (mut ended, mut bytes) = (Samples::default(), Samples::default());
    thread::scope(|scope| {
        let (to, jobs) = mpsc::channel::<Job>();
        let (idle, ended, bytes) = (&idle, &mut ended, &mut bytes);
        scope.spawn(move || {
            for (rest, start) in jobs {
                let written = rest();
                ended.add(start.elapsed());
                bytes.add_nanos(written as f64);
                // Release: who sees it sees the checkpoint, too.
                idle.store(true, Ordering::Release);
            }
        });
        // Both images, and both sides, have been written before anything counts.
        let begin = |way: &mut Box<dyn Way<R>>| {
            let start = Instant::now();
            let rest = way.begin();
            let took = start.elapsed();
            // Relaxed: the job is sent after.
            idle.store(false, Ordering::Relaxed);
            to.send((rest, start)).expect("a thread that listens");
            took
        };
        let wait = || {
            // Acquire: meets the Release of the other thread.
            while !idle.load(Ordering::Acquire) {
                thread::sleep(Duration::from_micros(50));
            }
        };
        for warm in 0..4 {
            way.tick(load.trace.tick(warm), warm as u64);
            begin(&mut way);
            wait();
        }
        for tick in 0..ticks {
            let start = Instant::now();
            way.tick(load.trace.tick(tick), tick as u64);
            let mut took = start.elapsed();
            // Acquire: as above.
            if tick % load.every == 0 && idle.load(Ordering::Acquire) {
                let look = tick % (ticks / LOOKS).max(1) == 0;
                let then = look.then(|| way.rows());
                took += begin(&mut way);
                if let Some(then) = then {
                    wait();
                    assert!(way.kept() == then, "{name}: the checkpoint is the state of its tick");
                }
            }
            busy.add(took);
            thread::sleep(PACE.saturating_sub(start.elapsed()));
        }
        wait();
        begin(&mut way);
        wait();
        drop(to);
    });
    let then = way.rows();
    let (recovery, rows) = way.recover();
    assert!(rows == then, "{name}: what was left is the state of the last tick");
    let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|part| (busy.quantile(part) - base).max(0.0));
    let way = results::Way {
        name: name.to_owned(),
        ticks: ticks as u64,
        checkpoints: ended.count() as u64,
        p50,
        p99,
        longest,
        checkpoint: ended.median(),
        recovery: recovery.as_nanos() as f64,
        bytes: bytes.mean(),
    };
    println!(
        "    {name:<42} adds {:>9.1} us (p50) {:>9.1} (p99) {:>9.1} (longest); {} checkpoints of \
         {:.2} ms, {:.2} MiB; back in {:.1} ms",
        p50 / 1e3,
        p99 / 1e3,
        longest / 1e3,
        way.checkpoints,
        way.checkpoint / 1e6,
        way.bytes / 1048576.0,
        way.recovery / 1e6,
    );
    way
}

/// What a tick takes by itself.
fn alone<R: Row>(load: &Load, ticks: usize) -> f64 {
    let mut way = Copied::<R>::new(load.rows);
    let mut busy = Samples::default();
    for tick in 0..ticks {
        let start = Instant::now();
        way.tick(load.trace.tick(tick), tick as u64);
        busy.add(start.elapsed());
        thread::sleep(PACE.saturating_sub(start.elapsed()));
    }
    busy.median()
}

fn workload<R: Row>(load: Load, asked: &Asked) -> Workload {
    let ticks = if asked.test { 4 } else { TICKS };
    let (rows, [large, small]) = (load.rows, load.pages);
    let [page, less] = [large, small].map(|len| 100.0 * load.trace.share(rows, len));
    println!("\n{}: {}", load.name, load.about);
    let base = alone::<R>(&load, ticks.min(60));
    let about = format!(
        "{} One tick writes to {page:.1} % of pages of {large} rows and to {less:.1} % of pages of \
         {small}. Without checkpoints a tick takes {:.0} us.",
        load.about,
        base / 1e3
    );
    let mut ways = Vec::new();
    let mut go = |name: &str, way: Box<dyn Way<R>>| ways.push(run(&load, name, way, base, ticks));
    for len in load.pages {
        go(&format!("capture, pages of {len} rows"), Box::new(Captured::new(rows, len)));
    }
    go("plain copy, written by another thread", Box::new(Copied::new(rows)));
    go("fork, written by the child", Box::new(Forked::new(rows)));
    go("save of the whole", Box::new(Saved::new(rows)));
    Workload { name: load.name, about, ways }
}

/// W1: a table of 40 MB, 64,000 writes a tick by Zipf's law.
pub(crate) fn zipf(asked: &Asked, mmo: &mut Mmo) {
    let (rows, writes) = if asked.test { (20_000, 1_000) } else { (1_000_000, 64_000) };
    for mapping in [Mapping::Clustered, Mapping::Scattered] {
        let trace =
            traces::zipf(rows, 10, 0.8, writes, mapping, if asked.test { 2 } else { DRAWN });
        if !asked.test {
            // What the literature's parameters come to, in runs of 4 KiB.
            let expected = if mapping == Mapping::Clustered { 0.897 } else { 0.996 };
            let share = trace.share(rows, 102);
            assert!((share - expected).abs() < 0.02, "{}: {share}", mapping.name());
        }
        let load = Load {
            name: format!("W1, {}", mapping.name()),
            about: format!(
                "{rows} rows of 10 fields of 4 bytes, {writes} writes a tick by Zipf's law (0.8), \
                 a tick every {} ms, checkpoints back to back.",
                PACE.as_millis()
            ),
            rows,
            trace,
            every: 1,
            pages: [128, 8],
        };
        mmo.workload(workload::<[u32; 10]>(load, asked));
    }
}

/// W2: units in a battle.
pub(crate) fn battle(asked: &Asked, mmo: &mut Mmo) {
    let (units, writes) = if asked.test { (10_000, 500) } else { (400_128, 35_590) };
    for mapping in [Mapping::Clustered, Mapping::Scattered] {
        let trace = traces::battle(units, 13, writes, mapping, if asked.test { 2 } else { DRAWN });
        let load = Load {
            name: format!("W2, {}", mapping.name()),
            about: format!(
                "{units} units of 13 attributes of 4 bytes, {writes} writes a tick to the tenth of \
                 them that is active, a tick every {} ms, checkpoints back to back.",
                PACE.as_millis()
            ),
            rows: units,
            trace,
            every: 1,
            pages: [128, 16],
        };
        mmo.workload(workload::<[u32; 13]>(load, asked));
    }
}

/// W3: 64 MiB, a checkpoint now and then.
pub(crate) fn grid(asked: &Asked, mmo: &mut Mmo) {
    let (rows, writes) = if asked.test { (20_000, 500) } else { (1_000_000, 32_000) };
    let mapping = Mapping::Scattered;
    let trace = traces::zipf(rows, 8, 0.8, writes, mapping, if asked.test { 2 } else { DRAWN });
    let load = Load {
        name: "W3".to_owned(),
        about: format!(
            "{rows} rows of 64 bytes, {writes} writes of 8 bytes a tick by Zipf's law (0.8, \
             scattered), a tick every {} ms, a checkpoint every 10 ticks.",
            PACE.as_millis()
        ),
        rows,
        trace,
        every: if asked.test { 1 } else { 10 },
        pages: [128, 8],
    };
    mmo.workload(workload::<[u64; 8]>(load, asked));
}

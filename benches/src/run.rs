#![forbid(unsafe_code)]
//! How long things run, and which: the arguments that `cargo bench` hands on.

use std::{env, time::Duration};

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, measurement::WallTime};

/// Criterion, short: some two hundred rows are to take minutes. Its own arguments override this.
pub fn criterion() -> Criterion {
    Criterion::default()
        .without_plots()
        .sample_size(12)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(900))
        .nresamples(5_000)
        .configure_from_args()
}

/// One row of a group: `setup` runs if the row does, once; `call` is what is timed.
pub fn row<S, R>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    column: &str,
    setup: impl FnOnce() -> S,
    mut call: impl FnMut(&mut S) -> R,
) {
    let (mut setup, mut subject) = (Some(setup), None);
    group.bench_function(BenchmarkId::new(name, column), |b| {
        if let Some(setup) = setup.take() {
            subject = Some(setup());
        }
        if let Some(subject) = &mut subject {
            b.iter(|| call(subject));
        }
    });
}

/// As [`row`], where `call` times itself.
pub fn timed_row<S>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    column: &str,
    setup: impl FnOnce() -> S,
    mut call: impl FnMut(&mut S) -> Duration,
) {
    let (mut setup, mut subject) = (Some(setup), None);
    group.bench_function(BenchmarkId::new(name, column), |b| {
        if let Some(setup) = setup.take() {
            subject = Some(setup());
        }
        if let Some(subject) = &mut subject {
            b.iter_custom(|calls| (0..calls).map(|_| call(subject)).sum());
        }
    });
}

/// What a program without criterion was asked for, in criterion's words.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Only see that it works (`--test`, or no `--bench`).
    pub test: bool,
    filters: Vec<String>,
}

impl Asked {
    /// By the arguments.
    pub fn from_args() -> Asked {
        let mut asked = Asked { test: true, filters: Vec::new() };
        let mut to_test = false;
        for argument in env::args().skip(1) {
            match argument.as_str() {
                "--bench" => asked.test = false,
                "--test" => to_test = true,
                flag if flag.starts_with('-') => {}
                _ => asked.filters.push(argument),
            }
        }
        asked.test |= to_test;
        asked
    }

    /// Whether everything was asked for.
    pub fn all(&self) -> bool {
        self.filters.is_empty()
    }

    /// Whether what has this name was asked for: one of the filters is part of it.
    pub fn wants(&self, name: &str) -> bool {
        self.all() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }
}

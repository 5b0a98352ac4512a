#![forbid(unsafe_code)]
//! Rows by turns: each of a set runs a short while, then the next, round after round in one
//! process. What the machine does meanwhile, it does to all of them, so that their ratios hold where
//! their times do not.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use crate::{
    results::{Pair, Row, Set},
    run::Asked,
};

/// What the fastest row of a set runs in one round, at least.
const TURN: Duration = Duration::from_millis(3);

/// What all rounds of a set take together.
const BUDGET: Duration = Duration::from_secs(5);

type Run<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

struct Entrant<'a> {
    name: String,
    run: Run<'a>,
    calls: u64,
    /// Nanoseconds of a call, by round.
    times: Vec<f64>,
}

enum Mark {
    Row(usize),
    Nanos(f64),
}

struct Claim {
    target: u8,
    row: usize,
    against: Mark,
    most: f64,
}

/// A set of rows that run by turns.
pub struct Duel<'a> {
    name: String,
    entrants: Vec<Entrant<'a>>,
    claims: Vec<Claim>,
    equally: bool,
}

impl<'a> Duel<'a> {
    /// A set without rows.
    pub fn new(name: impl Into<String>) -> Duel<'a> {
        Duel { name: name.into(), entrants: Vec::new(), claims: Vec::new(), equally: true }
    }

    /// Adds a row; answers its number.
    pub fn row<R>(&mut self, name: impl Into<String>, mut call: impl FnMut() -> R + 'a) -> usize {
        self.enter(
            name.into(),
            Box::new(move |calls| {
                let start = Instant::now();
                for _ in 0..calls {
                    black_box(call());
                }
                start.elapsed()
            }),
        )
    }

    /// As [`row`](Self::row), where `call` times itself.
    pub fn timed(
        &mut self,
        name: impl Into<String>,
        mut call: impl FnMut() -> Duration + 'a,
    ) -> usize {
        self.enter(name.into(), Box::new(move |calls| (0..calls).map(|_| call()).sum()))
    }

    /// As [`row`](Self::row), where `run` makes so many calls and answers how long they took.
    pub fn turns(
        &mut self,
        name: impl Into<String>,
        run: impl FnMut(u64) -> Duration + 'a,
    ) -> usize {
        self.enter(name.into(), Box::new(run))
    }

    fn enter(&mut self, name: String, run: Run<'a>) -> usize {
        self.entrants.push(Entrant { name, run, calls: 1, times: Vec::new() });
        self.entrants.len() - 1
    }

    /// Gives every row the time of a turn rather than the same number of calls: for rows that run in
    /// processes of their own, or differ a thousandfold.
    pub fn each_as_often_as_it_can(&mut self) {
        self.equally = false;
    }

    /// Promise `target`: this row takes at most so many times what that one takes.
    pub fn most(&mut self, target: u8, row: usize, reference: usize, most: f64) {
        self.claims.push(Claim { target, row, against: Mark::Row(reference), most });
    }

    /// Promise `target`: this row takes at most so long.
    pub fn within(&mut self, target: u8, row: usize, limit: Duration) {
        let against = Mark::Nanos(limit.as_nanos() as f64);
        self.claims.push(Claim { target, row, against, most: 1.0 });
    }

    /// Runs them, and tells the outcome on the standard output as well.
    pub fn run(mut self, asked: &Asked) -> Set {
        let rounds = if asked.test { 1 } else { self.calibrate() };
        for round in 0..rounds {
            let mut order: Vec<usize> = (0..self.entrants.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for at in order {
                let entrant = &mut self.entrants[at];
                let took = (entrant.run)(entrant.calls);
                entrant.times.push(took.as_nanos() as f64 / entrant.calls as f64);
            }
        }
        let set = self.outcome(rounds);
        tell(&set);
        set
    }

    /// Finds how many calls make a turn, and answers how many rounds there is time for. All rows
    /// are called equally often (unless that was waived), so that each has as many calls to find its data in the caches
    /// again after the others' turns.
    fn calibrate(&mut self) -> usize {
        let mut most = 1;
        for entrant in &mut self.entrants {
            let mut calls = 1;
            loop {
                let took = (entrant.run)(calls);
                if took >= TURN {
                    break;
                }
                let nanos = (took.as_nanos() as u64).max(1);
                let want = TURN.as_nanos() as u64 * calls / nanos;
                calls = want.clamp(calls + 1, calls * 10);
            }
            entrant.calls = calls;
            most = most.max(calls);
        }
        let mut round = Duration::ZERO;
        for entrant in &mut self.entrants {
            if self.equally {
                entrant.calls = most;
            }
            round += (entrant.run)(entrant.calls);
        }
        (BUDGET.as_nanos() / round.as_nanos().max(1)).clamp(15, 301) as usize
    }

    fn outcome(self, rounds: usize) -> Set {
        let pairs = self.claims.iter().map(|claim| {
            let row = &self.entrants[claim.row];
            let (reference, times) = match claim.against {
                Mark::Row(at) => (self.entrants[at].name.clone(), self.entrants[at].times.clone()),
                Mark::Nanos(n) => (format!("{} ms", n / 1e6), vec![n; rounds]),
            };
            let by_round = row.times.iter().zip(&times).map(|(row, other)| row / other);
            let [p25, _, p75] = quartiles(by_round.collect());
            let ratio = median(&row.times) / median(&times);
            let (target, most) = (claim.target, claim.most);
            Pair { target, row: row.name.clone(), reference, most, ratio, p25, p75 }
        });
        let pairs = pairs.collect();
        let rows = self.entrants.into_iter().map(|entrant| {
            let [p25, median, p75] = quartiles(entrant.times);
            Row { name: entrant.name, median, p25, p75, calls: entrant.calls }
        });
        Set { name: self.name, rounds, rows: rows.collect(), pairs }
    }
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

fn median(values: &[f64]) -> f64 {
    quartiles(values.to_vec())[1]
}

fn tell(set: &Set) {
    println!("\n{} ({} rounds)", set.name, set.rounds);
    for row in &set.rows {
        println!(
            "    {:<44} {:>12.1} ns  [{:.1} .. {:.1}]",
            row.name, row.median, row.p25, row.p75
        );
    }
    for pair in &set.pairs {
        println!(
            "    {} / {}: {:.2}  [{:.2} .. {:.2}], at most {}",
            pair.row, pair.reference, pair.ratio, pair.p25, pair.p75, pair.most
        );
    }
}

#![forbid(unsafe_code)]
//! [`Censuses`]: clients are asked for the hash of what they see; this counts the answers.

use std::time::Instant;

use crate::news::Census;

/// Censuses under way.
#[derive(Default)]
pub(crate) struct Censuses {
    last: u64,
    open: Vec<(u64, Instant, Census)>,
}

impl Censuses {
    /// Starts one, which asks nobody so far.
    pub(crate) fn start(&mut self, why: &str, head: u64) -> u64 {
        self.last += 1;
        let counts = Census {
            why: why.to_owned(),
            head,
            asked: 0,
            agreed: 0,
            differed: 0,
            lost: 0,
            took: 0,
        };
        self.open.push((self.last, Instant::now(), counts));
        self.last
    }

    pub(crate) fn count(&mut self, number: u64, count: impl FnOnce(&mut Census)) {
        if let Some((_, _, census)) = self.open.iter_mut().find(|(n, ..)| *n == number) {
            count(census);
        }
    }

    /// Takes out those to which all have answered.
    pub(crate) fn finished(&mut self) -> Vec<Census> {
        let done = |c: &Census| c.agreed + c.differed + c.lost == c.asked;
        let finished = self.open.extract_if(.., |(_, _, census)| done(census));
        finished
            .map(|(_, since, census)| Census { took: since.elapsed().as_micros() as u64, ..census })
            .collect()
    }
}

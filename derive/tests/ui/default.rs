//! A skipped field without a default or an expression.

use snapring::Snapshot;

struct Foreign;

#[derive(Snapshot)]
struct Skips {
    hp: u32,
    #[snapshot(skip)]
    foreign: Foreign,
}

fn main() {}

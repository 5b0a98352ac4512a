//! A version that is no plain `u32`.

use snapring::Snapshot;

#[derive(Snapshot)]
#[snapshot(version = "2")]
struct Text(u8);

#[derive(Snapshot)]
#[snapshot(version = -1)]
struct Negative(u8);

#[derive(Snapshot)]
#[snapshot(version = 5_000_000_000)]
struct Large(u8);

#[derive(Snapshot)]
#[snapshot(version = 2u8)]
struct Typed(u8);

#[derive(Snapshot)]
#[snapshot(version)]
struct Bare(u8);

#[derive(Snapshot)]
#[snapshot(version = 1, version = 2)]
struct Twice(u8);

fn main() {}

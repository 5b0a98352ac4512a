//! Keys that do not exist, stand in the wrong place, come twice or lack a value.

use snapring::Snapshot;

#[derive(Snapshot)]
struct Misspelt {
    #[snapshot(skpi)]
    a: u8,
    #[snapshot(unsort)]
    b: u8,
    #[snapshot(rename = "x")]
    c: u8,
    #[snapshot(version = 2)]
    d: u8,
}

#[derive(Snapshot)]
#[snapshot(versoin = 2)]
struct MisspeltAbove(u8);

#[derive(Snapshot)]
#[snapshot(skip)]
struct BelongsOnAField(u8);

#[derive(Snapshot)]
struct Values {
    #[snapshot(with)]
    a: u8,
    #[snapshot(with = )]
    b: u8,
    #[snapshot(id = 3)]
    c: u8,
    #[snapshot(skip = )]
    d: u8,
}

#[derive(Snapshot)]
struct Twice {
    #[snapshot(skip, skip = 3)]
    a: u8,
    #[snapshot(id)]
    #[snapshot(id)]
    b: u8,
}

#[derive(Snapshot)]
enum OnVariant {
    #[snapshot(skip)]
    A,
    B,
}

fn main() {}

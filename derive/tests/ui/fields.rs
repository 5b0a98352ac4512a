//! Fields of types that can be seen to have no archive.

use snapring::Snapshot;

#[derive(Snapshot)]
struct Fields {
    borrowed: &'static str,
    nested: Option<&'static [u8]>,
    raw: *const u8,
    deep: Vec<(u8, *mut u8)>,
    call: fn(u8) -> u8,
    any: Box<dyn Fn()>,
    fine: Box<str>,
}

#[derive(Snapshot)]
struct Bare {
    text: str,
}

#[derive(Snapshot)]
struct Slice([u8]);

fn main() {}

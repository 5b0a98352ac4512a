//! Types that cannot be archived whatever their fields are.

use snapring::Snapshot;

#[derive(Snapshot)]
union Either {
    a: u8,
    b: u8,
}

#[derive(Snapshot)]
struct Borrows<'a> {
    name: &'a str,
}

#[derive(Snapshot)]
enum BorrowsToo<'a, T> {
    Name(&'a T),
}

#[derive(Snapshot)]
#[repr(C, packed)]
struct Packed {
    a: u8,
    b: u32,
}

fn main() {}

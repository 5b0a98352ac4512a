//! The strictest lints a crate can ask for.

#![forbid(unsafe_code)]
#![deny(warnings, missing_docs, missing_debug_implementations, unreachable_pub)]
#![deny(clippy::all, clippy::pedantic)]
#![deny(unused_qualifications, single_use_lifetimes, unused_results, let_underscore_drop)]

use snapring::Snapshot;

/// A mage.
#[derive(Snapshot, Debug)]
#[snapshot(version = 2)]
pub struct Mage<T: Clone> {
    /// The name.
    pub name: String,
    level: u32,
    /// Of its own.
    pub staff: Staff<T, 2>,
    #[snapshot(skip)]
    hits: u64,
    inner: Option<Box<Inner<T>>>,
    #[snapshot(unsorted)]
    known: std::collections::HashMap<u32, Spell>,
}

/// A staff.
#[derive(Snapshot, Debug)]
pub struct Staff<T, const N: usize>([u8; N], T);

/// A spell.
#[derive(Snapshot, Debug)]
#[repr(i32)]
pub enum Spell {
    /// Burns.
    Fire = -3,
    /// Cools.
    Ice {
        /// How much.
        cold: u8,
        /// Of the caster.
        #[snapshot(skip = 3)]
        left: u8,
    },
    /// Neither.
    Other(Old),
}

/// A row.
#[allow(clippy::struct_excessive_bools)]
#[derive(Snapshot, Debug, Clone, Copy)]
pub struct Old {
    /// A flag.
    pub a: bool,
    /// Another.
    pub b: bool,
    /// A third.
    pub c: bool,
    /// A fourth.
    pub d: bool,
}

#[derive(Snapshot, Debug)]
enum Inner<T> {
    Deeper(Box<Self>, Secret),
    Value(T),
}

#[derive(Snapshot, Debug)]
struct Secret(u8);

#[allow(non_camel_case_types)]
#[derive(Snapshot, Debug)]
struct odd_name {
    _unused: u8,
}

fn main() {
    let mage = Mage {
        name: String::new(),
        level: 1,
        staff: Staff([1, 2], 3_u8),
        hits: 0,
        inner: Some(Box::new(Inner::Deeper(Box::new(Inner::Value(1)), Secret(2)))),
        known: std::iter::once((1, Spell::Ice { cold: 1, left: 2 })).collect(),
    };
    println!("{mage:?} {:?} {:?}", Spell::Fire, odd_name { _unused: 1 });
    let old = Old { a: true, b: true, c: true, d: false };
    println!("{:?} {} {}", Spell::Other(old), mage.hits, mage.level);
}

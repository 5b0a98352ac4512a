//! Keys that exclude each other.

use snapring::Snapshot;
use std::collections::{BTreeMap, HashMap};

#[derive(Snapshot)]
struct Pairs {
    #[snapshot(skip, with = rkyv::with::AsBox)]
    a: u8,
    #[snapshot(skip, id)]
    b: u8,
    #[snapshot(unsorted, hashed)]
    c: HashMap<u8, u8>,
    #[snapshot(with = rkyv::with::AsBox, hashed)]
    d: HashMap<u8, u8>,
    #[snapshot(id, with = rkyv::with::AsBox)]
    e: u8,
}

#[derive(Snapshot)]
struct TwoIds {
    #[snapshot(id)]
    a: u8,
    #[snapshot(id)]
    b: u8,
}

#[derive(Snapshot)]
enum IdInEnum {
    A(#[snapshot(id)] u8),
    B,
}

#[derive(Snapshot)]
struct NotMaps {
    #[snapshot(unsorted)]
    a: Vec<u8>,
    #[snapshot(hashed)]
    b: BTreeMap<u8, u8>,
    #[snapshot(unsorted)]
    c: [u8; 3],
}

fn main() {}

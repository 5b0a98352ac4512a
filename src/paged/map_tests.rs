#![forbid(unsafe_code)]
//! A forged archive may state any order and hold any entries: a map made of it must be sorted, or
//! keys that are there are not found and leaves are split where they should not be.

use rkyv::rend::u32_le;

use super::{PagedMap, PagedVec, leaf::Leaf};

/// The map made of these leaves under this order, once everything about it has been looked at.
fn made(leaves: &[&[u32]], order: &[u32]) -> Vec<(u32, u64)> {
    let leaf = |keys: &&[u32]| Leaf(keys.iter().map(|k| (*k, u64::from(*k) * 10)).collect());
    let mut all = PagedVec::with_page_len(1);
    all.extend(leaves.iter().map(leaf));
    let order: Vec<u32_le> = order.iter().map(|number| (*number).into()).collect();
    let mut map = PagedMap::of(all);
    let changed: Vec<usize> = (0..leaves.len()).collect();
    map.put_in_order(&order, &changed);
    let entries: Vec<(u32, u64)> = map.iter().map(|(k, v)| (*k, *v)).collect();
    assert_eq!(map.len(), entries.len());
    assert!(entries.iter().all(|(k, v)| map.get(k) == Some(v)));
    // It goes on as any map does.
    for k in 0..500 {
        map.insert(k, 0);
    }
    assert_eq!(map.len(), 500.max(map.len()));
    assert!(map.keys().is_sorted_by(|a, b| a < b));
    for k in 0..500 {
        assert_eq!(map.remove(&k), Some(0));
    }
    entries
}

fn sorted(keys: &[u32]) -> Vec<(u32, u64)> {
    keys.iter().map(|k| (*k, u64::from(*k) * 10)).collect()
}

#[test]
fn whatever_is_stated_is_sorted() {
    // As it should be, with a leaf that is free.
    assert_eq!(made(&[&[5, 6], &[], &[1, 2]], &[2, 0]), sorted(&[1, 2, 5, 6]));
    // Keys out of order, or twice, in a leaf.
    assert_eq!(made(&[&[3, 1], &[4]], &[0, 1]), sorted(&[1, 3, 4]));
    assert_eq!(made(&[&[3, 3], &[4]], &[0, 1]), sorted(&[3, 4]));
    // Leaves out of order, or that overlap.
    assert_eq!(made(&[&[3, 4], &[1]], &[0, 1]), sorted(&[1, 3, 4]));
    assert_eq!(made(&[&[1, 4], &[2]], &[0, 1]), sorted(&[1, 2, 4]));
    assert_eq!(made(&[&[1, 4], &[4]], &[0, 1]), sorted(&[1, 4]));
    // Leaves named twice, not named, without entries, or that are not there.
    assert_eq!(made(&[&[1], &[2]], &[0, 0, 1]), sorted(&[1, 2]));
    assert_eq!(made(&[&[1], &[2]], &[0]), sorted(&[1, 2]));
    assert_eq!(made(&[&[1], &[]], &[0, 1]), sorted(&[1]));
    assert_eq!(made(&[&[1], &[2]], &[0, 1, 7]), sorted(&[1, 2]));
    assert_eq!(made(&[], &[0]), []);
}

//! A paged map is a map: whatever is done to it, it holds what a `BTreeMap` would hold, and so does
//! every clone of it; and what it was comes back from its snapshot, found by its keys there as well.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt::Debug,
    panic::{AssertUnwindSafe, catch_unwind},
};

use proptest::{collection::vec, prelude::*};
use snapring::{Caretaker, PagedMap, PagedVec, Snapshot, SnapshotId};

#[derive(Debug, Clone)]
enum Step {
    Insert(u16, u32),
    Grow(u16, u16),
    Remove(u16),
    Shrink(u16, u16),
    Set(u16, u32),
    Values(u32),
    Clear,
    Clone,
    Swap(usize),
    Drop(usize),
    Save,
    Rollback(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..2000_u16;
    prop_oneof![
        6 => (key.clone(), any::<u32>()).prop_map(|(k, v)| Step::Insert(k, v)),
        3 => (key.clone(), 1..600_u16).prop_map(|(k, n)| Step::Grow(k, n)),
        4 => key.clone().prop_map(Step::Remove),
        3 => (key.clone(), 1..600_u16).prop_map(|(k, n)| Step::Shrink(k, n)),
        5 => (key, any::<u32>()).prop_map(|(k, v)| Step::Set(k, v)),
        1 => any::<u32>().prop_map(Step::Values),
        1 => Just(Step::Clear),
        3 => Just(Step::Clone),
        2 => (0..100_usize).prop_map(Step::Swap),
        2 => (0..100_usize).prop_map(Step::Drop),
        3 => Just(Step::Save),
        3 => (0..100_usize).prop_map(Step::Rollback),
    ]
}

fn same<K, V>(paged: &PagedMap<K, V>, model: &BTreeMap<K, V>)
where
    K: Snapshot + Clone + Send + Sync + Ord + Debug,
    V: Snapshot + Clone + Send + Sync + PartialEq + Debug,
{
    assert_eq!((paged.len(), paged.is_empty()), (model.len(), model.is_empty()));
    assert!(paged.iter().eq(model), "{paged:?} is not {model:?}");
    assert!(paged.iter().rev().eq(model.iter().rev()));
    assert!(paged.keys().eq(model.keys()) && paged.values().eq(model.values()));
    assert_eq!(paged.first_key_value(), model.first_key_value());
    assert_eq!(paged.last_key_value(), model.last_key_value());
    for (k, v) in model {
        assert_eq!(paged.get(k), Some(v));
    }
    let mut ends = paged.iter();
    let mut count = 0;
    while ends.next().is_some() {
        count += 1 + usize::from(ends.next_back().is_some());
        assert_eq!(ends.len(), model.len() - count);
    }
}

/// The archive of the newest snapshot is what the map is.
fn archived<K, V>(ring: &Caretaker<PagedMap<K, V>>, model: &BTreeMap<K, V>)
where
    K: Snapshot + Clone + Send + Sync + Ord + Debug,
    V: Snapshot + Clone + Send + Sync + PartialEq + Debug,
{
    let memento = ring.latest().expect("the newest");
    assert_eq!(memento.len(), model.len());
    assert_eq!(memento.iter().count(), model.len());
    for (k, v) in model {
        let there = memento.get(k).expect("a key of the map's");
        assert!(v.cmp_archived(there).is_eq(), "{k:?}");
    }
    same(&memento.thaw().expect("whole"), model);
}

fn history<K, V>(steps: &[Step], key: impl Fn(u16) -> K, value: impl Fn(u32) -> V)
where
    K: Snapshot + Clone + Send + Sync + Ord + Debug,
    V: Snapshot + Clone + Send + Sync + PartialEq + Debug,
{
    let ring = Caretaker::<PagedMap<K, V>>::in_memory().expect("a ring");
    let mut saved: Vec<(SnapshotId, BTreeMap<K, V>)> = Vec::new();
    let mut all = vec![(PagedMap::new(), BTreeMap::new())];
    for step in steps {
        let n = all.len();
        let (paged, model) = &mut all[n - 1];
        match step {
            Step::Insert(k, v) => {
                assert_eq!(paged.insert(key(*k), value(*v)), model.insert(key(*k), value(*v)));
            }
            Step::Grow(k, n) => {
                paged.extend((*k..k + n).map(|k| (key(k), value(k.into()))));
                model.extend((*k..k + n).map(|k| (key(k), value(k.into()))));
            }
            Step::Remove(k) => {
                assert_eq!(paged.contains_key(&key(*k)), model.contains_key(&key(*k)));
                assert_eq!(paged.remove(&key(*k)), model.remove(&key(*k)));
            }
            Step::Shrink(k, n) => {
                for k in *k..k + n {
                    assert_eq!(paged.remove_entry(&key(k)), model.remove_entry(&key(k)));
                }
            }
            Step::Set(k, v) => {
                let (mine, theirs) = (paged.get_mut(&key(*k)), model.get_mut(&key(*k)));
                assert_eq!(mine, theirs);
                if let (Some(mine), Some(theirs)) = (mine, theirs) {
                    (*mine, *theirs) = (value(*v), value(*v));
                }
            }
            Step::Values(v) => {
                assert_eq!(paged.values_mut().map(|x| *x = value(*v)).count(), model.len());
                model.values_mut().for_each(|x| *x = value(*v));
            }
            Step::Clear => {
                paged.clear();
                model.clear();
            }
            Step::Clone => {
                let copy = (paged.clone(), model.clone());
                all.push(copy);
            }
            Step::Swap(i) => all.swap(i % n, n - 1),
            Step::Drop(i) if n > 1 => drop(all.swap_remove(i % n)),
            Step::Save => {
                saved.push((ring.save(paged).expect("saved"), model.clone()));
                archived(&ring, model);
            }
            Step::Rollback(i) if !saved.is_empty() => {
                let from = saved.len().saturating_sub(5);
                let (id, then) = &saved[from + i % (saved.len() - from)];
                match ring.rollback(paged, *id) {
                    Ok(_) => *model = then.clone(),
                    Err(e) => assert!(ring.memento(*id).is_none(), "{e}"),
                }
            }
            _ => {}
        }
        let (paged, model) = all.last().expect("one is always left");
        same(paged, model);
    }
    for (paged, model) in &all {
        same(paged, model);
        let again: PagedMap<K, V> = model.clone().into_iter().collect();
        assert_eq!(&again, paged);
        let owned = paged.clone().into_iter();
        assert_eq!(owned.len(), model.len());
        assert!(owned.eq(again), "owned, it is the same");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn is_a_map_of_numbers(steps in vec(step(), 0..60)) {
        history(&steps, |k| k, |v| v);
    }

    /// Texts of which many begin alike, so that their sort keys are equal.
    #[test]
    fn is_a_map_of_texts(steps in vec(step(), 0..50)) {
        history(&steps, |k| format!("a player with number {k:05}"), |v| format!("value {v}"));
    }

    #[test]
    fn is_a_map_of_short_texts_and_pairs(steps in vec(step(), 0..40)) {
        history(&steps, |k| (format!("{}", k % 50), k), |v| (v, [v as u8; 70]));
    }
}

#[test]
fn texts_are_found_by_str() {
    let mut map = PagedMap::new();
    for i in 0..3000 {
        map.insert(format!("key {i}"), i);
    }
    assert_eq!(map.get("key 17"), Some(&17));
    assert_eq!(map["key 2999"], 2999);
    assert!(!map.contains_key("key"));
    *map.get_mut("key 5").expect("there") = 50;
    assert_eq!(map.remove("key 5"), Some(50));
    let ring = Caretaker::<PagedMap<String, u32>>::in_memory().expect("a ring");
    ring.save(&map).expect("saved");
    let memento = ring.latest().expect("saved");
    assert_eq!(memento.get_str("key 17").map(|v| v.to_native()), Some(17));
    assert_eq!(memento.get(&"key 18".to_owned()).map(|v| v.to_native()), Some(18));
    assert!(memento.get_str("key 5").is_none() && !memento.contains_key(&"zzz".to_owned()));
    assert!(memento.get_str("").is_none());
}

/// One entry changed is one page written; one inserted is at most three.
#[test]
fn a_change_is_written_to_few_pages() {
    let ring = Caretaker::<PagedMap<u64, [u64; 6]>>::in_memory().expect("a ring");
    let mut map: PagedMap<u64, [u64; 6]> = (0..20_000).map(|k| (k * 2, [k; 6])).collect();
    for _ in 0..3 {
        ring.save(&map).expect("saved");
    }
    let written = |map: &PagedMap<u64, [u64; 6]>| {
        // Twice: one for each side.
        let both = [0, 1].map(|_| {
            ring.save(map).expect("saved");
            ring.history()[0].written_bytes()
        });
        both[0].max(both[1])
    };
    // The references and the order, which are part of every snapshot.
    let base = written(&map);
    map.get_mut(&10_000).expect("there")[0] = 1;
    let changed = written(&map) - base;
    assert!(changed <= 8 << 10, "{changed} bytes for one value");
    for k in [1, 777, 20_001, 39_999, 123_456] {
        map.insert(k, [0; 6]);
        let inserted = written(&map) - base;
        assert!(inserted <= 16 << 10, "{inserted} bytes for one insertion");
        map.remove(&(k + 1));
        let removed = written(&map) - base;
        assert!(removed <= 20 << 10, "{removed} bytes for one removal");
    }
}

/// Skipped fields follow their keys, through splits and joins.
#[test]
fn skipped_fields_follow_their_keys() {
    #[derive(Snapshot, Clone, Debug, PartialEq)]
    struct Player {
        hp: u32,
        #[snapshot(skip)]
        socket: String,
    }
    #[derive(Snapshot)]
    struct Room {
        players: PagedMap<u32, Player>,
        scores: Vec<PagedVec<u32>>,
    }
    let player = |k| Player { hp: 10, socket: format!("socket {k}") };
    let ring = Caretaker::in_memory().expect("a ring");
    let players = (0..500).map(|k| (k * 10, player(k * 10))).collect();
    let mut room = Room { players, scores: vec![PagedVec::new(), (0..5).collect()] };
    let id = ring.save(&room).expect("saved");

    room.scores[1][3] = 100;
    for k in 0..400 {
        room.players.insert(k * 10 + 1, player(k * 10 + 1));
    }
    for k in 100..450 {
        room.players.remove(&(k * 10 + 1));
    }
    room.players.get_mut(&70).expect("there").hp = 1;
    room.players.remove(&1000);
    assert!(ring.rollback(&mut room, id).is_ok());
    assert_eq!(room.players.len(), 500);
    for (k, p) in &room.players {
        let socket = if *k == 1000 { String::new() } else { format!("socket {k}") };
        assert_eq!(p, &Player { hp: 10, socket });
    }
    assert!(room.scores[1].iter().copied().eq(0..5));
}

thread_local! {
    static FUSE: Cell<u32> = const { Cell::new(u32::MAX) };
}

/// Panics when it is cloned for the n-th time.
#[derive(Snapshot, Debug, PartialEq)]
struct Touchy(u32);

impl Clone for Touchy {
    fn clone(&self) -> Touchy {
        let left = FUSE.get();
        FUSE.set(left.saturating_sub(1));
        assert!(left != 0, "the fuse has burnt down");
        Touchy(self.0)
    }
}

/// A `clone` that panics while a page is copied leaves a valid map, and its clone as it was.
#[test]
fn a_panic_in_clone_leaves_a_valid_map() {
    type Change = fn(&mut PagedMap<u32, Touchy>);
    let changes: [Change; 6] = [
        |map| map.get_mut(&300).expect("there").0 = 1,
        |map| assert!(map.insert(301, Touchy(2)).is_none()),
        |map| assert!(map.insert(1_000_000, Touchy(2)).is_none()),
        |map| assert!(map.remove(&40).is_some()),
        |map| (0..300).for_each(|k| assert!(map.remove(&(k * 2)).is_some())),
        |map| map.values_mut().for_each(|v| v.0 += 1),
    ];
    for change in changes {
        for n in [0, 1, 2, 5, 50, 128, 129, 200, 300, 511, 600, 700, 1000, u32::MAX - 1] {
            let mut map: PagedMap<u32, Touchy> = (0..600).map(|k| (k * 2, Touchy(k))).collect();
            let shared = map.clone();
            FUSE.set(n);
            let done = catch_unwind(AssertUnwindSafe(|| change(&mut map)));
            FUSE.set(u32::MAX);
            assert!(
                shared.iter().eq((0..600)
                    .map(|k| (k * 2, Touchy(k)))
                    .collect::<Vec<_>>()
                    .iter()
                    .map(|(k, v)| (k, v)))
            );
            assert!(map.keys().is_sorted_by(|a, b| a < b));
            assert_eq!(map.iter().count(), map.len());
            let keys: Vec<u32> = map.keys().copied().collect();
            assert!(keys.iter().all(|k| map.contains_key(k)));
            for k in keys {
                assert!(map.remove(&k).is_some());
            }
            assert!(map.is_empty() && map.insert(1, Touchy(1)).is_none());
            if n == u32::MAX - 1 {
                assert!(done.is_ok());
            }
        }
    }
}

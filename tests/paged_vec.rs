//! A paged vector is a vector: whatever is done to it, it holds what a `Vec` would hold, and so does
//! every clone of it, whenever it was taken and whoever was written to after.

use std::{
    cell::Cell,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::channel,
    thread,
};

use proptest::{collection::vec, prelude::*};
use snapring::{Caretaker, PagedVec, Snapshot};

#[derive(Debug, Clone)]
enum Step {
    Push(u32),
    Extend(Vec<u32>),
    Pop,
    Truncate(usize),
    Clear,
    SwapRemove(usize),
    Set(usize, u32),
    Add(usize, u32),
    Page(usize, u32),
    Walk(usize, usize, u32),
    WalkBack(usize, u32),
    Clone,
    Swap(usize),
    Drop(usize),
    Owned,
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..200_usize;
    prop_oneof![
        4 => any::<u32>().prop_map(Step::Push),
        2 => vec(any::<u32>(), 0..40).prop_map(Step::Extend),
        2 => Just(Step::Pop),
        1 => at.clone().prop_map(Step::Truncate),
        1 => Just(Step::Clear),
        2 => at.clone().prop_map(Step::SwapRemove),
        6 => (at.clone(), any::<u32>()).prop_map(|(i, x)| Step::Set(i, x)),
        4 => (at.clone(), any::<u32>()).prop_map(|(i, x)| Step::Add(i, x)),
        2 => (at.clone(), any::<u32>()).prop_map(|(i, x)| Step::Page(i, x)),
        2 => (at.clone(), at.clone(), any::<u32>()).prop_map(|(i, j, x)| Step::Walk(i, j, x)),
        2 => (at.clone(), any::<u32>()).prop_map(|(i, x)| Step::WalkBack(i, x)),
        4 => Just(Step::Clone),
        2 => at.clone().prop_map(Step::Swap),
        2 => at.prop_map(Step::Drop),
        1 => Just(Step::Owned),
    ]
}

/// What both kinds of vector do at a step, but for clones.
fn apply<T>(paged: &mut PagedVec<T>, model: &mut Vec<T>, step: &Step, make: impl Fn(u32) -> T)
where
    T: Snapshot + Clone + Send + Sync + PartialEq + std::fmt::Debug,
{
    match step {
        Step::Push(x) => {
            paged.push(make(*x));
            model.push(make(*x));
        }
        Step::Extend(xs) => {
            paged.extend(xs.iter().map(|x| make(*x)));
            model.extend(xs.iter().map(|x| make(*x)));
        }
        Step::Pop => assert_eq!(paged.pop(), model.pop()),
        Step::Truncate(n) => {
            paged.truncate(*n);
            model.truncate(*n);
        }
        Step::Clear => {
            paged.clear();
            model.clear();
        }
        Step::SwapRemove(i) if *i < model.len() => {
            assert_eq!(paged.swap_remove(*i), model.swap_remove(*i));
        }
        Step::Set(i, x) if *i < model.len() => {
            paged[*i] = make(*x);
            model[*i] = make(*x);
        }
        Step::Add(i, x) => {
            let (mine, theirs) = (paged.get_mut(*i), model.get_mut(*i));
            assert_eq!(mine, theirs);
            if let (Some(mine), Some(theirs)) = (mine, theirs) {
                (*mine, *theirs) = (make(*x), make(*x));
            }
        }
        Step::Page(i, x) if *i < model.len() => {
            let page_len = paged.page_len();
            paged.page_mut(i / page_len)[i % page_len] = make(*x);
            model[*i] = make(*x);
        }
        Step::Walk(i, n, x) => {
            paged.iter_mut().skip(*i).take(*n).for_each(|item| *item = make(*x));
            model.iter_mut().skip(*i).take(*n).for_each(|item| *item = make(*x));
        }
        Step::WalkBack(n, x) => {
            paged.iter_mut().rev().take(*n).for_each(|item| *item = make(*x));
            model.iter_mut().rev().take(*n).for_each(|item| *item = make(*x));
        }
        _ => {}
    }
}

fn same<T>(paged: &PagedVec<T>, model: &Vec<T>)
where
    T: Snapshot + Clone + Send + Sync + PartialEq + std::fmt::Debug,
{
    assert_eq!(paged, model);
    assert_eq!(paged.len(), model.len());
    assert_eq!(paged.is_empty(), model.is_empty());
    assert_eq!(paged.pages(), model.len().div_ceil(paged.page_len()));
    assert!(paged.iter().rev().eq(model.iter().rev()));
    assert_eq!(paged.iter().len(), model.len());
    assert_eq!(paged.iter().fold(0, |n, _| n + 1), model.len());
    let mut ends = paged.iter();
    let (front, back) = (ends.next(), ends.next_back());
    assert_eq!(front, model.first());
    assert_eq!(back, model.last().filter(|_| model.len() > 1));
    assert_eq!(ends.len(), model.len().saturating_sub(2));
    for i in 0..=model.len() {
        assert_eq!(paged.get(i), model.get(i));
    }
    let pages: Vec<T> = (0..paged.pages()).flat_map(|p| paged.page(p).to_vec()).collect();
    assert_eq!(&pages, model);
    assert_eq!(format!("{paged:?}"), format!("{model:?}"));
}

fn history<T>(page_len: usize, steps: &[Step], make: impl Fn(u32) -> T + Copy)
where
    T: Snapshot + Clone + Send + Sync + PartialEq + std::fmt::Debug,
{
    let mut all = vec![(PagedVec::with_page_len(page_len), Vec::new())];
    for step in steps {
        let n = all.len();
        let (paged, model) = &mut all[n - 1];
        match step {
            Step::Clone => {
                let copy = (paged.clone(), model.clone());
                all.push(copy);
            }
            Step::Swap(i) => all.swap(i % n, n - 1),
            Step::Drop(i) if n > 1 => drop(all.swap_remove(i % n)),
            Step::Owned => {
                let mut owned = paged.clone().into_iter();
                assert_eq!(owned.len(), model.len());
                assert!(owned.by_ref().eq(model.iter().cloned()));
                assert_eq!(owned.next(), None);
                let again = PagedVec::from(model.clone());
                assert_eq!(&again, paged);
            }
            step => apply(paged, model, step, make),
        }
        let (paged, model) = all.last().unwrap();
        same(paged, model);
    }
    for (paged, model) in &all {
        same(paged, model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, ..ProptestConfig::default() })]

    #[test]
    fn is_a_vec_of_numbers(page_len in prop_oneof![1..8_usize, Just(64)], steps in vec(step(), 0..80)) {
        history(page_len, &steps, |x| x);
    }

    #[test]
    fn is_a_vec_of_texts(page_len in 1..8_usize, steps in vec(step(), 0..60)) {
        history(page_len, &steps, |x| format!("text {x}"));
    }
}

#[test]
fn moves_and_swaps_take_their_pages_along() {
    let mut a: PagedVec<u32> = (0..1000).collect();
    let mut b = a.clone();
    a[3] = 100;
    b[3] = 200;
    mem::swap(&mut a, &mut b);
    a[4] = 201;
    b[4] = 101;
    assert_eq!((a[3], a[4], b[3], b[4]), (200, 201, 100, 101));
    let boxed = Box::new(mem::take(&mut a));
    assert_eq!((boxed[3], boxed[4], a.len()), (200, 201, 0));
    a.push(1);
    assert_eq!(a, vec![1]);
}

#[test]
fn pages_of_every_length_are_walked_whole() {
    for page_len in [1, 2, 3, 7, 64, 1000, 4096, 1 << 20, usize::MAX] {
        let mut paged = PagedVec::with_page_len(page_len);
        paged.extend(0..10_000_u32);
        assert_eq!(paged.page_len(), page_len.min(u32::MAX as usize));
        assert!(paged.iter().copied().eq(0..10_000));
        let copy = paged.clone();
        paged.iter_mut().for_each(|x| *x += 1);
        assert!(paged.iter().copied().eq(1..10_001));
        assert!(copy.iter().copied().eq(0..10_000));
        assert_eq!(paged.swap_remove(17), 18);
        assert_eq!(paged[17], 10_000);
    }
    assert!(catch_unwind(|| PagedVec::<u32>::with_page_len(0)).is_err());
}

#[test]
fn items_without_bytes_are_counted() {
    #[derive(Snapshot, Clone, Debug, PartialEq)]
    struct Empty;
    let mut paged = PagedVec::with_page_len(10);
    paged.extend((0..95).map(|_| Empty));
    assert_eq!((paged.len(), paged.pages()), (95, 10));
    let copy = paged.clone();
    paged.truncate(11);
    assert_eq!((paged.len(), paged.pages(), paged.iter().count()), (11, 2, 11));
    assert_eq!(paged.pop(), Some(Empty));
    assert_eq!(paged.get_mut(9), Some(&mut Empty));
    assert_eq!((paged.get(10), paged.pages(), copy.len()), (None, 1, 95));
}

/// Bounds as a `Vec`'s: a wrong index panics, and changes nothing.
#[test]
fn what_is_not_there_is_refused() {
    let mut paged: PagedVec<u32> = (0..10).collect();
    let message = |broken: &mut dyn FnMut()| {
        let payload = catch_unwind(AssertUnwindSafe(broken)).expect_err("past the end");
        payload.downcast_ref::<String>().expect("a message").clone()
    };
    assert!(message(&mut || _ = paged[10]).contains("the len is 10 but the index is 10"));
    assert!(message(&mut || paged[11] = 1).contains("the len is 10 but the index is 11"));
    assert!(message(&mut || _ = paged.swap_remove(10)).contains("no item 10"));
    assert!(message(&mut || _ = paged.page_mut(1)[0]).contains("index"));
    assert_eq!(paged, (0..10).collect::<Vec<u32>>());
}

thread_local! {
    /// Calls until one of `Touchy`'s panics, and how many of it there are.
    static FUSE: Cell<u32> = const { Cell::new(u32::MAX) };
    static ALIVE: Cell<i64> = const { Cell::new(0) };
}

/// Panics when it is cloned, or dropped, for the n-th time.
#[derive(Snapshot, Debug, PartialEq)]
struct Touchy {
    value: u32,
    drops: bool,
}

impl Touchy {
    fn new(value: u32) -> Touchy {
        ALIVE.set(ALIVE.get() + 1);
        Touchy { value, drops: false }
    }

    fn burn() {
        let left = FUSE.get();
        FUSE.set(left.saturating_sub(1));
        assert!(left != 0, "the fuse has burnt down");
    }
}

impl Clone for Touchy {
    fn clone(&self) -> Touchy {
        if !self.drops {
            Touchy::burn();
        }
        ALIVE.set(ALIVE.get() + 1);
        Touchy { value: self.value, drops: self.drops }
    }
}

impl Drop for Touchy {
    fn drop(&mut self) {
        ALIVE.set(ALIVE.get() - 1);
        if self.drops && !thread::panicking() {
            Touchy::burn();
        }
    }
}

fn values(paged: &PagedVec<Touchy>) -> Vec<u32> {
    paged.iter().map(|item| item.value).collect()
}

type Change = fn(&mut PagedVec<Touchy>);

const CHANGES: [Change; 10] = [
    |paged| paged[7].value = 700,
    |paged| paged.push(Touchy::new(100)),
    |paged| drop(paged.pop()),
    |paged| paged.truncate(5),
    |paged| paged.clear(),
    |paged| drop(paged.swap_remove(2)),
    |paged| paged.extend((50..60).map(Touchy::new)),
    |paged| paged.iter_mut().for_each(|item| item.value += 1000),
    |paged| paged.iter_mut().rev().take(6).for_each(|item| item.value += 2000),
    |paged| paged.page_mut(1)[0].value = 1,
];

/// A `clone` that panics while a page is copied, whichever it is, leaves the vector as it was but
/// for what was done page by page before; and what shares the pages sees nothing of it.
#[test]
fn a_panic_in_clone_leaves_a_valid_vector() {
    for change in CHANGES {
        let mut burnt = 0;
        for n in 0.. {
            let mut paged = PagedVec::with_page_len(4);
            paged.extend((0..14).map(Touchy::new));
            let before = values(&paged);
            let shared = paged.clone();
            FUSE.set(n);
            let done = catch_unwind(AssertUnwindSafe(|| change(&mut paged)));
            FUSE.set(u32::MAX);
            assert_eq!(values(&shared), before);
            assert_eq!(paged.len(), values(&paged).len());
            if done.is_err() {
                burnt += 1;
                let half = values(&paged);
                let same = half.iter().zip(&before).filter(|(a, b)| *a % 1000 == *b % 1000);
                assert_eq!(same.count(), before.len(), "{half:?}");
            }
            // It goes on as if nothing had been.
            let len = paged.len();
            paged.push(Touchy::new(1));
            paged.iter_mut().for_each(|item| item.value = 9);
            assert_eq!(values(&paged), vec![9; len + 1]);
            assert_eq!(values(&shared), before);
            drop((paged, shared));
            assert_eq!(ALIVE.get(), 0, "an item was dropped twice or never");
            if done.is_ok() {
                break;
            }
        }
        assert!(burnt > 0 || change as usize == CHANGES[4] as usize, "nothing was cloned");
    }
}

/// The same of a `drop`: what was to go is gone, or leaks, as in a `Vec`.
#[test]
fn a_panic_in_drop_leaves_a_valid_vector() {
    for change in CHANGES {
        for n in 0.. {
            let mut paged = PagedVec::with_page_len(4);
            paged.extend((0..14).map(Touchy::new));
            paged.iter_mut().for_each(|item| item.drops = true);
            let shared = (n % 2 == 0).then(|| paged.clone());
            FUSE.set(n / 2);
            let done = catch_unwind(AssertUnwindSafe(|| change(&mut paged)));
            FUSE.set(u32::MAX);
            assert_eq!(paged.len(), values(&paged).len());
            let len = paged.len();
            paged.push(Touchy::new(1));
            paged.iter_mut().for_each(|item| item.value = 9);
            assert_eq!(values(&paged), vec![9; len + 1]);
            if let Some(shared) = &shared {
                assert_eq!(values(shared), (0..14).collect::<Vec<u32>>());
            }
            if done.is_ok() && n > 1 {
                break;
            }
        }
    }
}

/// A clone that another thread reads, and drops whenever it is done, sees none of what the original
/// is given meanwhile; a page given back is written again in place.
#[test]
fn a_clone_is_read_while_the_original_is_written() {
    let rounds = if cfg!(miri) { 3 } else { 200 };
    let (to_reader, clones) = channel::<(u64, PagedVec<u64>)>();
    let reader = thread::spawn(move || {
        for (round, clone) in clones {
            assert_eq!(clone.len(), 1000);
            for (i, x) in clone.iter().enumerate() {
                assert!(*x == round || *x == i as u64 % 7, "{x} at {i} in round {round}");
            }
            assert_eq!(clone[round as usize % 1000], round);
        }
    });
    let mut paged = PagedVec::with_page_len(16);
    paged.extend((0..1000).map(|i| i % 7));
    for round in 10..10 + rounds {
        paged[round as usize % 1000] = round;
        to_reader.send((round, paged.clone())).expect("a reader");
        for at in 0..1000 {
            if (at as u64 * 31 + round).is_multiple_of(5) {
                paged[at] = at as u64 % 7;
            }
        }
        paged[round as usize % 1000] = round % 1000 % 7;
    }
    drop(to_reader);
    reader.join().expect("the reader saw what it should");
}

/// Skipped fields follow their items by id, from whichever page these have got into; and a page
/// that is the same keeps its own.
#[test]
fn skipped_fields_follow_their_items() {
    #[derive(Snapshot, Clone, Debug, PartialEq)]
    struct Player {
        #[snapshot(id)]
        id: u32,
        hp: u32,
        #[snapshot(skip)]
        socket: String,
    }
    #[derive(Snapshot, Debug, PartialEq)]
    struct Room {
        players: PagedVec<Player>,
    }
    let player = |id| Player { id, hp: 10, socket: format!("socket {id}") };
    let caretaker = Caretaker::in_memory().expect("a ring");
    let mut room = Room { players: PagedVec::with_page_len(4) };
    room.players.extend((0..30).map(player));
    let id = caretaker.save(&room).expect("saved");

    room.players[20].hp = 1;
    let second = room.players.swap_remove(2); // 29 moves to the first page
    room.players.swap_remove(9);
    room.players.extend((77..90).map(player));
    room.players.push(second); // behind what there was
    room.players[0].socket = "a new one".to_owned();
    room.players[16].socket = "another".to_owned();
    assert!(caretaker.rollback(&mut room, id).is_ok());
    for (i, p) in room.players.iter().enumerate() {
        let socket = match i {
            0 => "a new one".to_owned(),
            16 => "another".to_owned(),
            // It had left: nobody has its own.
            9 => String::new(),
            i => format!("socket {i}"),
        };
        assert_eq!(p, &Player { id: i as u32, hp: 10, socket });
    }
    // Thawed, nobody's.
    let thawed = caretaker.resume().expect("whole").expect("one");
    assert!(thawed.players.iter().all(|p| p.socket.is_empty()));
}

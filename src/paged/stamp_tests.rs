#![forbid(unsafe_code)]
//! Two contents under one stamp would put a page of one generation into a snapshot of another: equal
//! stamps must mean equal content, over every history of writes, clones, captures and restores.

use std::collections::HashMap;

use super::{
    PagedVec,
    stamp::Stamp,
    table::{CHUNK, Table},
};
#[derive(Debug, Clone)]
enum Step {
    Push(u16),
    Pop,
    Set(usize, u16),
    Same(usize),
    SwapRemove(usize),
    Truncate(usize),
    Walk(usize),
    WalkBack(usize),
    Page(usize, u16),
    Clone,
    Switch(usize),
    Forget(usize),
    Capture,
    Released(usize),
    Restore(usize),
    RestorePage(usize, usize),
}

/// Numbers that look random, the same at each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

fn step(dice: &mut Dice) -> Step {
    let (at, x) = (dice.below(60), dice.below(1 << 16) as u16);
    match dice.below(36) {
        0..5 => Step::Push(x),
        5..7 => Step::Pop,
        7..13 => Step::Set(at, x),
        13 => Step::Same(at),
        14..16 => Step::SwapRemove(at),
        16 => Step::Truncate(at),
        17 => Step::Walk(at),
        18 => Step::WalkBack(at),
        19 => Step::Page(at % 8, x),
        20..23 => Step::Clone,
        23..25 => Step::Switch(at),
        25..27 => Step::Forget(at),
        27..31 => Step::Capture,
        31..33 => Step::Released(at),
        33..35 => Step::Restore(at),
        _ => Step::RestorePage(at, dice.below(12)),
    }
}

/// What each stamp has ever stood for.
#[derive(Default)]
struct Known {
    pages: HashMap<Stamp, Vec<u16>>,
    chunks: HashMap<Stamp, Vec<Stamp>>,
}

impl Known {
    fn look(&mut self, table: &Table<u16>) {
        let mut p = 0;
        while p < table.pages() {
            let (pages, stamp) = table.chunk(p);
            assert!(pages.start == p && pages.len() <= CHUNK && pages.contains(&p));
            p = pages.end;
            let stamps: Vec<Stamp> = pages.clone().map(|p| table.stamp(p)).collect();
            let known = self.chunks.entry(stamp).or_insert_with(|| stamps.clone());
            assert_eq!(*known, stamps, "two chunks have one stamp");
            for p in pages {
                let content = &table.entry(p).page;
                let known = self.pages.entry(table.stamp(p)).or_insert_with(|| content.to_vec());
                assert_eq!(known, &**content, "two contents have one stamp");
            }
        }
    }
}

/// A page as a rollback gives it: of a snapshot, and under its name there.
fn restore_page(live: &mut PagedVec<u16>, from: &Table<u16>, p: usize) {
    let entry = from.entry(p);
    let last = p + 1 >= live.pages();
    if p < live.pages() && !last && live.page(p).len() == entry.page.len() {
        if live.pages.is_alone(p) {
            live.page_mut(p).copy_from_slice(&entry.page);
            live.pages.name(p, entry.stamp);
        } else {
            live.pages.put(p, entry.page.to_vec(), entry.stamp);
        }
    } else if last && live.len() >= p * live.page_len() {
        live.pages.put(p, entry.page.to_vec(), entry.stamp);
    }
}

fn history(page_len: usize, steps: &[Step]) {
    let mut known = Known::default();
    let mut all = vec![PagedVec::with_page_len(page_len)];
    let mut captured: Vec<Table<u16>> = Vec::new();
    for step in steps {
        let n = all.len();
        let live = &mut all[n - 1];
        let len = live.len();
        match *step {
            Step::Push(x) => live.push(x),
            Step::Pop => _ = live.pop(),
            Step::Set(i, x) if i < len => live[i] = x,
            Step::Same(i) => _ = live.get_mut(i),
            Step::SwapRemove(i) if i < len => _ = live.swap_remove(i),
            Step::Truncate(n) => live.truncate(n),
            Step::Walk(n) => live.iter_mut().take(n).for_each(|x| *x = x.wrapping_add(1)),
            Step::WalkBack(n) => live.iter_mut().rev().take(n).for_each(|x| *x = x.wrapping_add(1)),
            Step::Page(p, x) if p < live.pages() => live.page_mut(p).fill(x),
            Step::Clone => {
                let copy = live.clone();
                all.push(copy);
            }
            Step::Switch(i) => all.swap(i % n, n - 1),
            Step::Forget(i) if n > 1 => drop(all.swap_remove(i % n)),
            Step::Capture => captured.push(live.pages.share()),
            Step::Released(i) if !captured.is_empty() => {
                drop(captured.swap_remove(i % captured.len()));
            }
            Step::Restore(i) if !captured.is_empty() => {
                let from = &captured[i % captured.len()];
                let pages = live.pages();
                drop(live.pages.cut(pages.min(from.pages())));
                for p in 0..from.pages() {
                    if p >= live.pages() || live.pages.stamp(p) != from.stamp(p) {
                        restore_page(live, from, p);
                    }
                }
            }
            Step::RestorePage(i, p) if !captured.is_empty() => {
                let from = &captured[i % captured.len()];
                if p < from.pages() {
                    restore_page(live, from, p);
                }
            }
            _ => {}
        }
        // Looked at through a clone of its own now and then: to look is to take hold.
        for table in &captured {
            known.look(table);
        }
    }
    for live in &all {
        known.look(&live.pages.share());
    }
}

#[test]
fn equal_stamps_mean_equal_content() {
    for seed in 0..if cfg!(miri) { 10 } else { 2000 } {
        let mut dice = Dice(seed);
        let steps: Vec<Step> = (0..dice.below(160)).map(|_| step(&mut dice)).collect();
        history(1 + seed as usize % 4, &steps);
    }
}

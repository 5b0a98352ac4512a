#![forbid(unsafe_code)]
//! A steady state of captures and writes takes the memory of its copies from pages that nobody needs
//! any more, and holds on to no more of these than it may.

use std::collections::HashSet;

use super::PagedVec;

#[test]
fn copies_take_their_memory_from_the_pool() {
    let mut live = PagedVec::with_page_len(16);
    live.extend(0..16 * 40_u64);
    let mut seen = HashSet::new();
    for round in 0..200 {
        let captured = live.pages.share();
        for p in (0..live.pages()).filter(|p| (p + round) % 3 == 0) {
            live.page_mut(p)[0] = round as u64;
            seen.insert(live.page(p).as_ptr().addr());
        }
        drop(captured);
    }
    // Its own pages, and those that wait: a quarter as many and 16.
    assert!(seen.len() <= 40 + 40 / 4 + 16 + 3, "{} places for 40 pages", seen.len());
}

#[test]
fn items_with_destructors_are_not_kept() {
    let alive = std::sync::Arc::new(());
    #[derive(Clone)]
    struct Held(#[expect(dead_code, reason = "it counts")] std::sync::Arc<()>);
    let mut pages = super::pages::Pages::new(4, false);
    (0..40).for_each(|_| pages.push(Held(alive.clone())));
    let captured = pages.share();
    (0..40).for_each(|i| _ = pages.get_mut(i));
    assert_eq!(std::sync::Arc::strong_count(&alive), 81);
    drop(captured);
    assert_eq!(std::sync::Arc::strong_count(&alive), 41);
    pages.truncate(3);
    assert_eq!(std::sync::Arc::strong_count(&alive), 4);
}

//! The reader protocol, model-checked: every interleaving and every stale value that loom can tell
//! apart, of the real [`Ring`] beside a writer that uses places again. Run by `scripts/loom.sh`.
//!
//! A place's bytes are one loom cell that holds the snapshot's number: loom reports a read beside a
//! write, and the number tells a read of what was written over.
//!
//! Each `mutant_` test breaks one rule and must fail: so anybody can see that the models would
//! notice.
//!
//! What loom cannot tell: it lets a SeqCst load pass over a SeqCst store to an older store that is
//! not SeqCst, even one that happened before. So in the models words are zeroed, announcements ended
//! and holds given back by SeqCst (`sync.rs`); that Release is enough for the latter two is shown by
//! `a_look_ended_by_release`, which comes by once. The making of a chunk of slots is seen only
//! through its bit in `made`.

use std::collections::VecDeque;

use loom::{
    cell::Cell,
    model::Builder,
    sync::{Arc, Mutex},
    thread,
};

use crate::{
    announce::number_model_thread,
    ring::{Ring, Word},
    sync::Ordering,
};

/// One place's bytes.
struct Bytes(Cell<u64>);

// SAFETY: loom checks each access of the cell against all others.
unsafe impl Sync for Bytes {}
// SAFETY: a number.
unsafe impl Send for Bytes {}

/// A ring, the bytes of its places, and nothing else of the engine.
struct Shop {
    ring: Ring,
    bytes: Vec<Bytes>,
}

impl Shop {
    /// A shop whose head is snapshot 1 in place 0.
    fn open(places: usize) -> Shop {
        let bytes = (0..places).map(|_| Bytes(Cell::new(0))).collect();
        let shop = Shop { ring: Ring::new(places), bytes };
        shop.publish(1, 0);
        shop
    }

    fn publish(&self, id: u64, place: usize) {
        self.write(id, place);
        self.swing(id, place);
    }

    /// The bytes of a place that is being made, and where their root is.
    fn write(&self, id: u64, place: usize) {
        self.bytes[place].0.set(id);
        self.ring.set_root(place, id as usize);
    }

    fn swing(&self, id: u64, place: usize) {
        let moved = self.ring.swing(self.ring.head(), Word::new(id, place));
        assert!(moved.is_ok(), "P2: nobody else moves the head");
    }

    /// The snapshot of that word must be there, whole.
    fn look(&self, word: Word) {
        assert_eq!(self.ring.root(word.place()), word.id() as usize, "the root of another one");
        assert_eq!(self.bytes[word.place()].0.get(), word.id(), "P1: the bytes of another one");
    }

    fn announced(&self, id: u64, place: usize) -> bool {
        let mut found = false;
        self.ring.scan(|word| found |= word == Word::new(id, place));
        found
    }

    fn held(&self, place: usize) -> bool {
        self.ring.holds(place).0 > 0
    }

    /// Whether the place of a snapshot that is not the head may be used again.
    fn is_free(&self, id: u64, place: usize) -> bool {
        !self.announced(id, place) && !self.held(place)
    }

    /// Publishes snapshots 2, 3, 4 in two places by turns, as far as readers let it.
    fn publish_by_turns(&self, last: u64) {
        for id in 2..=last {
            let place = 1 - self.ring.head().place();
            if id > 2 && !self.is_free(id - 2, place) {
                return;
            }
            self.publish(id, place);
        }
    }
}

/// Runs every interleaving with at most this many switches that nobody asked for.
fn check(switches: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(model);
}

/// A reader thread with number `number` beside a writer, in a shop of `places` places.
fn beside(
    places: usize,
    number: Option<usize>,
    reader: impl Fn(&Shop) + Send + Sync + Clone + 'static,
    writer: impl Fn(&Shop) + Send + Sync + 'static,
) {
    check(5, move || {
        let shop = Arc::new(Shop::open(places));
        let thread = thread::spawn({
            let (shop, reader) = (shop.clone(), reader.clone());
            move || {
                if let Some(number) = number {
                    number_model_thread(number);
                }
                reader(&shop);
            }
        });
        writer(&shop);
        thread.join().expect("no panic");
    });
}

fn read(shop: &Shop) {
    let seen = shop.ring.read(|word| shop.look(word));
    assert!(seen.is_some(), "there always is a head");
}

fn hold(shop: &Shop) {
    let word = shop.ring.hold_head().expect("there always is a head");
    shop.look(word);
    shop.ring.unhold(word.place());
}

fn by_turns(shop: &Shop) {
    shop.publish_by_turns(4);
}

// What must hold.

#[test]
fn a_read_beside_reuse() {
    beside(2, Some(0), read, by_turns);
}

#[test]
fn two_reads_of_one_thread_beside_reuse() {
    let twice = |shop: &Shop| {
        read(shop);
        read(shop);
    };
    beside(2, Some(0), twice, |shop| shop.publish_by_turns(3));
}

#[test]
fn a_nested_read_beside_reuse() {
    let nested = |shop: &Shop| {
        shop.ring.read(|outer| {
            let inner = shop.ring.read(|word| {
                shop.look(word);
                word
            });
            assert!(inner.expect("there always is a head").id() >= outer.id(), "P2: it only grows");
            shop.look(outer);
        });
    };
    beside(2, Some(0), nested, by_turns);
}

#[test]
fn a_read_without_a_number_beside_reuse() {
    beside(2, None, read, by_turns);
}

#[test]
fn a_first_read_in_a_chunk_beside_its_scan() {
    // Slots 0 and 1 are in the first chunk.
    beside(2, Some(2), read, by_turns);
}

/// Snapshot 1 gets another place; the one that it left is used again as soon as readers let it.
fn relocates(shop: &Shop) {
    shop.write(1, 1);
    shop.ring.relocate(1, 0, 1);
    if shop.is_free(1, 0) {
        shop.publish(2, 0);
        if shop.is_free(1, 1) {
            shop.publish(3, 1);
        }
    }
}

#[test]
fn a_read_beside_a_relocation() {
    beside(2, Some(0), read, relocates);
}

#[test]
fn a_hold_beside_a_relocation() {
    beside(2, None, hold, relocates);
}

#[test]
fn a_relocation_of_what_is_not_the_head_moves_nothing() {
    check(3, || {
        let shop = Shop::open(3);
        shop.publish(2, 1);
        shop.write(1, 2);
        shop.ring.relocate(1, 0, 2);
        assert_eq!(shop.ring.head(), Word::new(2, 1));
    });
}

#[test]
fn two_readers_beside_reuse() {
    check(3, || {
        let shop = Arc::new(Shop::open(2));
        let readers = [0, 3].map(|number| {
            let shop = shop.clone();
            thread::spawn(move || {
                number_model_thread(number);
                read(&shop);
            })
        });
        shop.publish_by_turns(3);
        for reader in readers {
            reader.join().expect("no panic");
        }
    });
}

#[test]
fn a_hold_beside_reuse() {
    beside(2, None, hold, by_turns);
}

#[test]
fn a_hold_cloned_to_another_thread_beside_reuse() {
    check(3, || {
        let shop = Arc::new(Shop::open(2));
        let holder = thread::spawn({
            let shop = shop.clone();
            move || {
                let word = shop.ring.hold_head().expect("there always is a head");
                // R4: cloned from a hold.
                shop.ring.hold(word.place());
                let other = thread::spawn({
                    let shop = shop.clone();
                    move || {
                        shop.look(word);
                        shop.ring.unhold(word.place());
                    }
                });
                shop.look(word);
                shop.ring.unhold(word.place());
                other.join().expect("no panic");
            }
        });
        shop.publish_by_turns(3);
        holder.join().expect("no panic");
    });
}

#[test]
fn an_unnumbered_and_a_numbered_reader_beside_reuse() {
    check(3, || {
        let shop = Arc::new(Shop::open(2));
        let numbered = thread::spawn({
            let shop = shop.clone();
            move || {
                number_model_thread(0);
                read(&shop);
            }
        });
        let holding = thread::spawn({
            let shop = shop.clone();
            move || hold(&shop)
        });
        shop.publish_by_turns(3);
        numbered.join().expect("no panic");
        holding.join().expect("no panic");
    });
}

// What is under the engine's lock.

/// What the engine's lock protects, as little of it as will do.
struct Desk {
    /// Listed snapshots with their places, newest first.
    listed: VecDeque<(u64, usize)>,
    /// Not listed any more, not free yet.
    limbo: Vec<(u64, usize)>,
    free: Vec<usize>,
    kept: Option<u64>,
    next: u64,
}

/// A shop with a desk: a ring of two listed snapshots in three places.
struct Engine {
    shop: Shop,
    desk: Mutex<Desk>,
}

impl Engine {
    fn open() -> Engine {
        let desk = Desk {
            listed: VecDeque::from([(1, 0)]),
            limbo: Vec::new(),
            free: vec![2, 1],
            kept: None,
            next: 2,
        };
        Engine { shop: Shop::open(3), desk: Mutex::new(desk) }
    }

    /// A save: finds a place under the lock, writes without it, publishes under it.
    fn save(&self) {
        let place = {
            let mut desk = self.desk.lock().expect("no panic");
            let Desk { limbo, free, .. } = &mut *desk;
            limbo.retain(|(id, place)| {
                let stays = !self.shop.is_free(*id, *place);
                if !stays {
                    free.push(*place);
                }
                stays
            });
            let Some(place) = free.pop() else { return };
            place
        };
        self.shop.bytes[place].0.set(0);
        let mut desk = self.desk.lock().expect("no panic");
        let id = desk.next;
        desk.next += 1;
        self.shop.publish(id, place);
        desk.listed.push_front((id, place));
        if desk.listed.len() > 2 {
            let kept = desk.kept;
            if let Some(oldest) = desk.listed.iter().rposition(|(id, _)| Some(*id) != kept) {
                let left = desk.listed.remove(oldest).expect("was just found");
                desk.limbo.push(left);
            }
        }
    }

    /// A memento by its id: counted under the lock (R4).
    fn memento(&self, id: u64) -> Option<Word> {
        let desk = self.desk.lock().expect("no panic");
        let place = desk.listed.iter().find(|(listed, _)| *listed == id)?.1;
        self.shop.ring.hold(place);
        Some(Word::new(id, place))
    }

    fn keep(&self, id: u64) -> bool {
        let mut desk = self.desk.lock().expect("no panic");
        let listed = desk.listed.iter().any(|(listed, _)| *listed == id);
        if listed {
            desk.kept = Some(id);
        }
        listed
    }
}

#[test]
fn a_memento_by_id_beside_eviction() {
    check(3, || {
        let engine = Arc::new(Engine::open());
        let holder = thread::spawn({
            let engine = engine.clone();
            move || {
                if let Some(word) = engine.memento(1) {
                    engine.shop.look(word);
                    engine.shop.ring.unhold(word.place());
                }
            }
        });
        for _ in 0..3 {
            engine.save();
        }
        holder.join().expect("no panic");
    });
}

#[test]
fn what_was_kept_in_time_stays() {
    check(3, || {
        let engine = Arc::new(Engine::open());
        let keeper = thread::spawn({
            let engine = engine.clone();
            move || {
                if engine.keep(1) {
                    let word = engine.memento(1).expect("kept, so listed");
                    engine.shop.look(word);
                    engine.shop.ring.unhold(word.place());
                }
            }
        });
        for _ in 0..3 {
            engine.save();
        }
        keeper.join().expect("no panic");
    });
}

/// A follower that gives its head back, so that the place is another process's, and later takes the
/// same snapshot to its head again.
fn give_back_and_take_again(shop: &Shop, given_back: impl Fn(&Shop) -> bool) {
    shop.ring.vacate(shop.ring.head());
    if given_back(shop) {
        shop.bytes[0].0.set(0);
        shop.publish(1, 0);
    }
}

#[test]
fn a_read_beside_a_head_given_back_and_taken_again() {
    let reader = |shop: &Shop| _ = shop.ring.read(|word| shop.look(word));
    beside(2, Some(0), reader, |shop| give_back_and_take_again(shop, |shop| shop.is_free(1, 0)));
    let holder = |shop: &Shop| {
        if let Some(word) = shop.ring.hold_head() {
            shop.look(word);
            shop.ring.unhold(word.place());
        }
    };
    beside(2, None, holder, |shop| give_back_and_take_again(shop, |shop| shop.is_free(1, 0)));
}

#[test]
#[should_panic]
fn mutant_head_given_back_without_a_scan() {
    let reader = |shop: &Shop| _ = shop.ring.read(|word| shop.look(word));
    beside(2, Some(0), reader, |shop| give_back_and_take_again(shop, |shop| !shop.held(0)));
}

#[test]
fn two_writers_and_a_reader() {
    check(3, || {
        let engine = Arc::new(Engine::open());
        let writer = thread::spawn({
            let engine = engine.clone();
            move || engine.save()
        });
        let reader = thread::spawn({
            let engine = engine.clone();
            move || {
                number_model_thread(1);
                let ring = &engine.shop.ring;
                let look = |word: Word| {
                    engine.shop.look(word);
                    word.id()
                };
                let first = ring.read(look).expect("there always is a head");
                let second = ring.read(look).expect("there always is a head");
                assert!(second >= first, "P2: the head only grows");
            }
        });
        engine.save();
        writer.join().expect("no panic");
        reader.join().expect("no panic");
        assert_eq!(engine.shop.ring.head().id(), 3, "P2: no publishing is lost");
    });
}

// Each rule broken once.

/// One try to announce and look, with these orderings: of the announcement, the second look, and the
/// end.
fn read_with(shop: &Shop, announce: Ordering, look: Ordering, end: Ordering) {
    let slot = shop.ring.board().mine().expect("numbered").word();
    let seen = shop.ring.head();
    slot.swap(seen.bits(), announce);
    if shop.ring.head_word().load(look) == seen.bits() {
        shop.look(seen);
    }
    slot.store(0, end);
}

/// One try to count and look, with these orderings: of the count, the second look, and the end.
fn hold_with(shop: &Shop, count: Ordering, look: Ordering, end: Ordering) {
    let seen = shop.ring.head();
    let holds = shop.ring.count(seen.place());
    holds.fetch_add(1, count);
    if shop.ring.head_word().load(look) == seen.bits() {
        shop.look(seen);
    }
    holds.fetch_sub(1, end);
}

#[test]
fn a_look_ended_by_release() {
    use Ordering::{Release, SeqCst};
    beside(2, Some(0), |shop| read_with(shop, SeqCst, SeqCst, Release), by_turns);
    beside(2, None, |shop| hold_with(shop, SeqCst, SeqCst, Release), by_turns);
}

#[test]
#[should_panic]
fn mutant_reader_that_does_not_announce() {
    beside(2, Some(0), |shop| shop.look(shop.ring.head()), by_turns);
}

#[test]
#[should_panic]
fn mutant_reader_that_looks_before_it_announces() {
    let reader = |shop: &Shop| {
        let seen = shop.ring.head();
        let announced = shop.ring.board().mine().expect("numbered").announce(seen.bits());
        shop.look(seen);
        drop(announced);
    };
    beside(2, Some(0), reader, by_turns);
}

#[test]
#[should_panic]
fn mutant_announcement_relaxed() {
    use Ordering::{Relaxed, Release, SeqCst};
    beside(2, Some(0), |shop| read_with(shop, Relaxed, SeqCst, Release), by_turns);
}

#[test]
#[should_panic]
fn mutant_second_look_relaxed() {
    use Ordering::{Relaxed, Release, SeqCst};
    beside(2, Some(0), |shop| read_with(shop, SeqCst, Relaxed, Release), by_turns);
}

#[test]
#[should_panic]
fn mutant_second_look_acquire() {
    use Ordering::{Acquire, Release, SeqCst};
    beside(2, Some(0), |shop| read_with(shop, SeqCst, Acquire, Release), by_turns);
}

#[test]
#[should_panic]
fn mutant_end_of_announcement_relaxed() {
    use Ordering::{Relaxed, SeqCst};
    beside(2, Some(0), |shop| read_with(shop, SeqCst, SeqCst, Relaxed), by_turns);
}

#[test]
#[should_panic]
fn mutant_hold_without_a_second_look() {
    let holder = |shop: &Shop| {
        let seen = shop.ring.head();
        shop.ring.hold(seen.place());
        shop.look(seen);
        shop.ring.unhold(seen.place());
    };
    beside(2, None, holder, by_turns);
}

#[test]
#[should_panic]
fn mutant_count_relaxed() {
    use Ordering::{Relaxed, Release, SeqCst};
    beside(2, None, |shop| hold_with(shop, Relaxed, SeqCst, Release), by_turns);
}

#[test]
#[should_panic]
fn mutant_look_after_counting_acquire() {
    use Ordering::{Acquire, Release, SeqCst};
    beside(2, None, |shop| hold_with(shop, SeqCst, Acquire, Release), by_turns);
}

#[test]
#[should_panic]
fn mutant_hold_let_go_relaxed() {
    use Ordering::{Relaxed, SeqCst};
    beside(2, None, |shop| hold_with(shop, SeqCst, SeqCst, Relaxed), by_turns);
}

#[test]
#[should_panic]
fn mutant_writer_that_does_not_scan() {
    let writer = |shop: &Shop| {
        shop.publish(2, 1);
        if !shop.held(0) {
            shop.publish(3, 0);
        }
    };
    beside(2, Some(0), read, writer);
}

#[test]
#[should_panic]
fn mutant_writer_that_does_not_count() {
    let writer = |shop: &Shop| {
        shop.publish(2, 1);
        if !shop.announced(1, 0) {
            shop.publish(3, 0);
        }
    };
    beside(2, None, hold, writer);
}

#[test]
#[should_panic]
fn mutant_writer_that_scans_before_it_swings() {
    let writer = |shop: &Shop| {
        let free = shop.is_free(1, 0);
        shop.publish(2, 1);
        if free {
            shop.publish(3, 0);
        }
    };
    beside(2, Some(0), read, writer);
}

#[test]
#[should_panic]
fn mutant_writer_that_swings_before_it_writes() {
    let writer = |shop: &Shop| {
        shop.swing(2, 1);
        shop.write(2, 1);
    };
    beside(2, Some(0), read, writer);
}

#[test]
#[should_panic]
fn mutant_swing_relaxed() {
    let writer = |shop: &Shop| {
        shop.write(2, 1);
        let seen = shop.ring.head().bits();
        let wanted = Word::new(2, 1).bits();
        let (done, failed) = (Ordering::Relaxed, Ordering::Relaxed);
        let moved = shop.ring.head_word().compare_exchange(seen, wanted, done, failed);
        assert!(moved.is_ok());
    };
    beside(2, Some(0), read, writer);
}

#[test]
#[should_panic]
fn mutant_relocation_before_the_bytes_are_copied() {
    let writer = |shop: &Shop| {
        shop.ring.relocate(1, 0, 1);
        shop.write(1, 1);
    };
    beside(2, Some(0), read, writer);
}

#[test]
#[should_panic]
fn mutant_relocation_that_leaves_the_head() {
    let writer = |shop: &Shop| {
        shop.write(1, 1);
        if shop.is_free(1, 0) {
            shop.publish(2, 0);
        }
    };
    beside(2, Some(0), read, writer);
}

#[test]
#[should_panic]
fn mutant_root_told_after_the_swing() {
    let writer = |shop: &Shop| {
        shop.bytes[1].0.set(2);
        shop.swing(2, 1);
        shop.ring.set_root(1, 2);
    };
    beside(2, Some(0), read, writer);
}

#[test]
#[should_panic]
fn mutant_memento_counted_outside_the_lock() {
    check(3, || {
        let engine = Arc::new(Engine::open());
        let holder = thread::spawn({
            let engine = engine.clone();
            move || {
                let place = {
                    let desk = engine.desk.lock().expect("no panic");
                    desk.listed.iter().find(|(id, _)| *id == 1).map(|(_, place)| *place)
                };
                if let Some(place) = place {
                    engine.shop.ring.hold(place);
                    engine.shop.look(Word::new(1, place));
                    engine.shop.ring.unhold(place);
                }
            }
        });
        for _ in 0..3 {
            engine.save();
        }
        holder.join().expect("no panic");
    });
}

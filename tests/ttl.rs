//! A snapshot that stays for ever on a quiet server, or one that leaves by age though it is the only
//! way back.

mod common;

use std::time::{Duration, Instant, SystemTime};

use common::{A, B, Image, TempDir, World, open_with, small, world};
use snapring::{Caretaker, Durability, Event, OpenError, Options, SnapshotId};

const TTL: Duration = Duration::from_millis(200);

fn id(n: u64) -> SnapshotId {
    SnapshotId::new(n)
}

fn ids(caretaker: &Caretaker<World>) -> Vec<u64> {
    caretaker.history().iter().map(|e| e.id().get()).collect()
}

fn save_all(caretaker: &Caretaker<World>, numbers: impl Iterator<Item = u64>) {
    for n in numbers {
        caretaker.save(&world(n)).expect("saved");
    }
}

/// Waits until the ring holds exactly these.
fn becomes(caretaker: &Caretaker<World>, wanted: &[u64]) {
    let limit = Instant::now() + Duration::from_secs(20);
    while ids(caretaker) != wanted {
        assert!(Instant::now() < limit, "{:?} instead of {wanted:?}", ids(caretaker));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn old_snapshots_leave_without_a_save_but_for_the_newest() {
    let caretaker = Options::new().ttl(TTL).in_memory::<World>().expect("made");
    let mut events = caretaker.subscribe();
    let start = Instant::now();
    save_all(&caretaker, 1..=5);
    becomes(&caretaker, &[5]);
    assert!(start.elapsed() >= TTL - Duration::from_millis(20), "{:?}", start.elapsed());
    assert_eq!(caretaker.stats().expired, 4);
    let evicted: Vec<Event> = (1..=4).map(|n| Event::Evicted { id: id(n) }).collect();
    let told = std::iter::from_fn(|| events.try_next());
    assert_eq!(told.filter(|e| matches!(e, Event::Evicted { .. })).collect::<Vec<_>>(), evicted);
    // And again, after the thread has slept without anything to look at.
    std::thread::sleep(TTL);
    assert_eq!(ids(&caretaker), [5]);
    save_all(&caretaker, 6..=6);
    becomes(&caretaker, &[6]);
    assert_eq!(caretaker.resume().expect("whole"), Some(world(6)));
}

#[test]
fn kept_and_held_ones_stay_until_they_are_so_no_longer() {
    let caretaker = Options::new().ttl(TTL).in_memory::<World>().expect("made");
    save_all(&caretaker, 1..=4);
    caretaker.keep(id(1), "start").expect("kept");
    let held = caretaker.memento(id(2)).expect("there");
    becomes(&caretaker, &[4, 2, 1]);
    std::thread::sleep(TTL);
    assert_eq!(ids(&caretaker), [4, 2, 1]);
    assert_eq!(held.thaw().expect("whole"), world(2));
    drop(held);
    becomes(&caretaker, &[4, 1]);
    assert!(caretaker.release("start"));
    becomes(&caretaker, &[4]);
}

#[test]
fn the_newest_on_the_disk_stays_until_a_newer_one_is() {
    let dir = TempDir::on_disk("ttl-steady");
    let options = small().ttl(TTL).durability(Durability::Process);
    let caretaker = open_with::<World>(&options, &dir).expect("opened");
    save_all(&caretaker, 1..=2);
    caretaker.flush().expect("flushed");
    save_all(&caretaker, 3..=4);
    becomes(&caretaker, &[4, 2]);
    std::thread::sleep(TTL);
    assert_eq!((ids(&caretaker), caretaker.durable()), (vec![4, 2], Some(id(2))));
    caretaker.flush().expect("flushed");
    becomes(&caretaker, &[4]);
}

#[test]
fn age_goes_on_over_a_restart_by_the_clock_and_never_back() {
    let dir = TempDir::new("ttl-restart");
    let long = small().ttl(Duration::from_secs(3600));
    let caretaker = open_with::<World>(&long, &dir).expect("opened");
    save_all(&caretaker, 1..=5);
    drop(caretaker);
    // Snapshot 1 from an hour and a second ago, 2 from the future, 3 from before 1970 was over.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let hour = Duration::from_secs(3601);
    let times = [(1, now - hour), (2, now + hour), (3, Duration::from_nanos(1)), (5, now - hour)];
    for (n, created) in times {
        for image in [A, B].map(|side| Image::open(&dir, side)) {
            let Some(slot) = image.slot_of(n) else { continue };
            image.forge("record", slot, |r| r.set("created", created.as_nanos() as u64));
        }
    }
    let caretaker = open_with::<World>(&long, &dir).expect("opened");
    // 5 is old, too, and the newest.
    becomes(&caretaker, &[5, 4, 2]);
    assert_eq!(caretaker.resume().expect("whole"), Some(world(5)));
}

#[test]
fn no_time_at_all_is_refused() {
    let error = Options::new().ttl(Duration::ZERO).in_memory::<World>().expect_err("refused");
    assert!(matches!(error, OpenError::Options { option: "ttl", .. }), "{error:?}");
}

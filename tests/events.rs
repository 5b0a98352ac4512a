//! Events out of order, kept without bound, or waited for in vain.

use std::{thread, time::Duration};

use snapring::{Caretaker, Event, Options, Snapshot, SnapshotId};

#[derive(Snapshot, Default)]
struct World {
    tick: u64,
}

fn save(ring: &Caretaker<World>, tick: u64) -> SnapshotId {
    ring.save(&World { tick }).expect("saves")
}

#[test]
fn events_tell_what_happened_in_its_order() {
    let ring: Caretaker<World> = Options::new().ring(2).in_memory().expect("opens");
    save(&ring, 0);
    let mut events = ring.subscribe();
    assert_eq!(events.try_next(), None, "nothing from before");
    let a = save(&ring, 1);
    let b = save(&ring, 2);
    let rollback = ring.rollback(&mut World::default(), a).expect("rolls back");
    drop(ring);
    let (first, c) = (SnapshotId::new(1), rollback.id());
    let told: Vec<Event> = events.by_ref().collect();
    let saved = |id| Event::Saved { id };
    let evicted = |id| Event::Evicted { id };
    let back = Event::RolledBack { id: c, from: Some(b), to: a };
    assert_eq!(told, [saved(a), evicted(first), saved(b), evicted(a), back]);
    assert_eq!((events.next(), events.try_next()), (None, None), "the end stays the end");
}

#[test]
fn a_slow_listener_loses_events_and_is_told_where() {
    let ring: Caretaker<World> = Options::new().ring(1000).in_memory().expect("opens");
    let mut slow = ring.subscribe();
    let mut quick = ring.subscribe();
    let mut heard = 0;
    for tick in 0..3000 {
        save(&ring, tick);
        while let Some(event) = quick.try_next() {
            assert!(!matches!(event, Event::Lagged { .. }), "it was quick");
            heard += u64::from(matches!(event, Event::Saved { .. }));
        }
    }
    assert_eq!(heard, 3000);
    // Each save, and one eviction for each beyond the thousandth.
    let all = 3000 + 2000;
    let first = slow.try_next().expect("waits");
    assert_eq!(first, Event::Saved { id: SnapshotId::new(1) });
    // Room for one more: the gap lies before it.
    let last = save(&ring, 3000);
    drop(ring);
    let rest: Vec<Event> = slow.collect();
    let gap = rest.iter().position(|e| matches!(e, Event::Lagged { .. })).expect("was slow");
    assert_eq!(gap, 1023, "what was heard before the gap comes before it");
    let Event::Lagged { missed } = rest[gap] else { unreachable!("just found") };
    let told = 1 + rest.iter().filter(|e| !matches!(e, Event::Lagged { .. })).count() as u64;
    let lost: u64 =
        rest.iter().map(|e| if let Event::Lagged { missed } = e { *missed } else { 0 }).sum();
    assert!(missed > 0);
    assert_eq!(told + lost, all + 2, "each event is told or counted as missed");
    let ids: Vec<SnapshotId> = rest
        .iter()
        .filter_map(|e| if let Event::Saved { id } = e { Some(*id) } else { None })
        .collect();
    assert!(ids.is_sorted());
    assert!(ids.iter().all(|id| *id <= last));
}

#[test]
fn a_listener_waits_as_long_as_it_said() {
    let ring: Caretaker<World> = Caretaker::in_memory().expect("opens");
    let mut events = ring.subscribe();
    assert_eq!(events.next_timeout(Duration::from_millis(5)), None);
    assert_eq!(events.next_timeout(Duration::ZERO), None);
    let waiting = thread::spawn(move || (events.next_timeout(Duration::MAX), events));
    thread::sleep(Duration::from_millis(10));
    let id = save(&ring, 1);
    let (told, mut events) = waiting.join().expect("no panic");
    assert_eq!(told, Some(Event::Saved { id }));
    // The end wakes those who wait, whatever they said.
    let waiting = thread::spawn(move || events.next_timeout(Duration::from_secs(600)));
    thread::sleep(Duration::from_millis(10));
    ring.close().expect("closes");
    assert_eq!(waiting.join().expect("no panic"), None);
}

#[test]
fn listeners_come_and_go() {
    let ring: Caretaker<World> = Caretaker::in_memory().expect("opens");
    let mut stays = ring.subscribe();
    for tick in 0..100 {
        let mut brief = ring.subscribe();
        let id = save(&ring, tick);
        assert!(brief.any(|event| event == Event::Saved { id }));
        drop(brief);
    }
    let count = std::iter::from_fn(|| stays.try_next())
        .filter(|event| matches!(event, Event::Saved { .. }))
        .count();
    assert_eq!(count, 100);
    // A thread blocked in `next` is let go by the drop of the caretaker, a memento or not.
    let memento = ring.latest().expect("saved");
    let waiting = thread::spawn(move || stays.count());
    thread::sleep(Duration::from_millis(10));
    drop(ring);
    assert_eq!(waiting.join().expect("no panic"), 0);
    assert_eq!(memento.tick.to_native(), 99);
}

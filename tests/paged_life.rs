//! Pages that somebody still reads must not be written over, whoever reads them and however long: held
//! mementos, kept snapshots, readers in other processes, a predecessor; and pages that a failed sync has
//! dropped must not be called durable by anybody who shares them.

mod common;

use std::{
    fs::File,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use common::{
    Child, Failing, Image, TempDir, child_role, open_with, read_in, report, skipped, small,
};
use snapring::{Archived, Caretaker, Durability, Kind, Options, PagedVec, Snapshot, SnapshotId};

/// Every part of it is told by `tick`: a page of another generation shows.
#[derive(Snapshot, Debug, PartialEq)]
struct Flock {
    tick: u64,
    birds: PagedVec<Bird>,
    winds: Option<PagedVec<u64>>,
}

#[derive(Snapshot, Debug, PartialEq, Clone)]
struct Bird {
    since: u64,
    name: String,
}

const BIRDS: usize = 600;
const PAGE: usize = 4;

/// The tick at which item `at` changed last: four at a time, once in so many ticks.
fn age(tick: u64, at: usize) -> u64 {
    let group = (at / PAGE) as u64;
    tick - ((tick + group * 29) % 97).min(tick)
}

fn bird(tick: u64, at: usize) -> Bird {
    let since = age(tick, at);
    Bird { since, name: format!("bird {at} since {since}") }
}

impl Flock {
    fn at(tick: u64) -> Flock {
        let mut birds = PagedVec::with_page_len(PAGE);
        birds.extend((0..BIRDS).map(|at| bird(tick, at)));
        let mut winds = PagedVec::with_page_len(PAGE);
        winds.extend((0..BIRDS).map(|at| age(tick, at)));
        Flock { tick, birds, winds: Some(winds) }
    }

    fn go_to(&mut self, tick: u64) {
        self.tick = tick;
        for at in 0..BIRDS {
            if self.birds[at].since != age(tick, at) {
                self.birds[at] = bird(tick, at);
            }
            let winds = self.winds.as_mut().expect("there");
            if winds[at] != age(tick, at) {
                winds[at] = age(tick, at);
            }
        }
    }

    fn save_next(&mut self, caretaker: &Caretaker<Flock>) -> SnapshotId {
        self.go_to(self.tick + 1);
        caretaker.save(self).expect("saved")
    }
}

/// The tick, if every part agrees.
fn whole(flock: &Archived<Flock>) -> u64 {
    let tick = flock.tick.to_native();
    assert_eq!(flock.birds.len(), BIRDS);
    for (at, found) in flock.birds.iter().enumerate() {
        let since = age(tick, at);
        assert_eq!(found.since.to_native(), since, "bird {at} of {tick} is of another tick");
        assert_eq!(found.name.as_str(), format!("bird {at} since {since}"));
    }
    for (at, wind) in flock.winds.as_ref().expect("there").iter().enumerate() {
        assert_eq!(wind.to_native(), age(tick, at), "wind {at} of {tick} is of another tick");
    }
    tick
}

fn open(options: &Options, dir: &Path) -> Caretaker<Flock> {
    open_with(options, dir).expect("opened")
}

/// What a child does in its role; as a test of its own, nothing.
#[test]
fn child_plays_its_role() {
    let Some((role, dir)) = child_role() else { return };
    let reader = read_in::<Flock>(&dir).expect("opens for reading");
    match role.as_str() {
        "read on" => loop {
            let Some(memento) = reader.latest() else { continue };
            report(whole(memento.archived()));
            _ = reader.read(whole);
        },
        "hold" => {
            let memento = reader.latest().expect("a snapshot");
            let tick = whole(memento.archived());
            report(tick);
            loop {
                assert_eq!(whole(memento.archived()), tick);
                report(tick);
                thread::sleep(Duration::from_millis(2));
            }
        }
        other => unreachable!("{other}"),
    }
}

#[test]
fn readers_in_other_processes_see_no_page_of_another_generation() {
    let dir = TempDir::new("paged-readers");
    let options = small().ring(4).max_file_size(4 << 20);
    let caretaker = open(&options, &dir);
    let mut flock = Flock::at(1);
    caretaker.save(&flock).expect("saved");
    for _ in 0..6 {
        let mut reader = Child::start("child_plays_its_role", "read on", &dir);
        let mut holder = Child::start("child_plays_its_role", "hold", &dir);
        let first: u64 = reader.next().expect("it reads").parse().expect("a tick");
        let held: u64 = holder.next().expect("it holds").parse().expect("a tick");
        let mut incremental = 0;
        for _ in 0..300 {
            flock.save_next(&caretaker);
            incremental += u32::from(caretaker.history()[0].kind() == Kind::Incremental);
        }
        assert!(incremental > 200, "{incremental}");
        // Both are alive, and the held one is what it was: their asserts would have ended them.
        let mut last = first;
        let until = Instant::now() + Duration::from_secs(20);
        while last < flock.tick {
            last = reader.next().expect("a mixture was seen").parse().expect("a tick");
            assert!(Instant::now() < until, "it does not come up");
        }
        for _ in 0..5 {
            assert_eq!(holder.next().expect("what was held has changed"), held.to_string());
        }
        reader.kill();
        holder.kill();
    }
    // What the dead have leased is free again.
    for _ in 0..300 {
        flock.save_next(&caretaker);
    }
    assert!(caretaker.stats().held.iter().all(|held| held.by != snapring::HeldBy::Reader));
}

#[test]
fn what_is_kept_or_held_stays_whole_beside_hundreds_of_others() {
    let dir = TempDir::new("paged-keep");
    let options = small().ring(6).max_file_size(4 << 20);
    let caretaker = open(&options, &dir);
    let mut flock = Flock::at(1);
    let first = flock.save_next(&caretaker);
    caretaker.keep(first, "first").expect("kept");
    let second = flock.save_next(&caretaker);
    let held = caretaker.memento(second).expect("there");
    for _ in 0..400 {
        flock.save_next(&caretaker);
        assert_eq!(whole(held.archived()), 3);
    }
    assert!(caretaker.memento(second).is_none(), "it has left the ring");
    assert_eq!(whole(caretaker.memento(first).expect("kept").archived()), 2);
    let mut live = Flock::at(5);
    _ = caretaker.rollback(&mut live, first).expect("rolled back");
    assert_eq!(live, Flock::at(2));
    drop(held);
    assert!(caretaker.release("first"));
    for n in 0..50 {
        live.go_to(1000 + n);
        caretaker.save(&live).expect("saved");
    }
    caretaker.close().expect("closed");
    let caretaker = open(&options, &dir);
    assert!(caretaker.recovery().rejected.is_empty(), "{}", caretaker.recovery());
    assert_eq!(caretaker.resume().expect("whole"), Some(Flock::at(1049)));
}

#[test]
fn pages_that_the_predecessor_reads_stay_until_it_lets_go() {
    let dir = TempDir::new("paged-hand-over");
    let options = small().ring(4).max_file_size(4 << 20);
    let old = open(&options, &dir);
    let mut flock = Flock::at(0);
    for _ in 0..6 {
        flock.save_next(&old);
    }
    let evicted = old.latest().expect("there");
    for _ in 0..20 {
        flock.save_next(&old);
    }
    assert!(old.memento(evicted.id()).is_none(), "it has left the ring");
    let newest = old.latest().expect("there");
    let offer = old.hand_over().expect("offered").patience(Duration::from_secs(20));
    let starting = {
        let (dir, options) =
            (dir.to_path_buf(), options.clone().take_over(Duration::from_secs(20)));
        thread::spawn(move || open(&options, &dir))
    };
    offer.wait(Duration::from_secs(20)).expect("a successor is ready");
    offer.complete(old, &[]).expect("handed over");
    let new = starting.join().expect("it runs");
    let mut flock = new.resume().expect("whole").expect("a snapshot");
    for _ in 0..200 {
        flock.save_next(&new);
        assert_eq!(whole(evicted.archived()), 6);
        assert_eq!(whole(newest.archived()), 26);
    }
    drop((evicted, newest));
    let until = Instant::now() + Duration::from_secs(20);
    while !new.stats().held.is_empty() {
        assert!(Instant::now() < until, "they are held for ever: {:?}", new.stats().held);
        thread::sleep(Duration::from_millis(1));
    }
    for _ in 0..20 {
        flock.save_next(&new);
    }
    new.close().expect("closed");
    assert_eq!(open(&options, &dir).resume().expect("whole"), Some(flock));
}

#[test]
fn snapshots_that_share_pages_expire_one_by_one() {
    let dir = TempDir::new("paged-ttl");
    let options = small().ring(6).max_file_size(4 << 20).ttl(Duration::from_millis(200));
    let caretaker = open(&options, &dir);
    let mut flock = Flock::at(0);
    for _ in 0..6 {
        flock.save_next(&caretaker);
    }
    let until = Instant::now() + Duration::from_secs(20);
    while caretaker.history().len() > 1 {
        assert!(Instant::now() < until, "they do not expire");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(whole(caretaker.latest().expect("the newest stays").archived()), 6);
    for _ in 0..6 {
        flock.save_next(&caretaker);
        assert_eq!(whole(caretaker.latest().expect("there").archived()), flock.tick);
    }
}

#[test]
fn a_save_that_waits_for_the_disk_is_on_it_with_all_that_it_shares() {
    let dir = TempDir::on_disk("paged-sync");
    let options = Options::new().ring(4).file_size(1 << 20).durability(Durability::Sync);
    let caretaker = open(&options, &dir);
    let mut flock = Flock::at(0);
    for n in 0..12 {
        let id = flock.save_next(&caretaker);
        assert_eq!(caretaker.durable(), Some(id));
        assert!(caretaker.history()[0].is_durable());
        let incremental = caretaker.history()[0].kind() == Kind::Incremental;
        assert_eq!(incremental, n >= 2, "{n}");
    }
    let pending = caretaker.capture(&flock).expect("captured");
    let id = pending.wait().expect("published");
    assert_eq!(caretaker.durable(), Some(id));
}

#[test]
fn after_a_failed_sync_nobody_who_shares_its_pages_is_ever_called_durable() {
    let failing = match Failing::new() {
        Ok(failing) => failing,
        Err(why) => return skipped("pages on a failing disk", &why),
    };
    let dir = failing.ring();
    let options = Options::new().ring(8).file_size(4 << 20).durability(Durability::Process);
    let mut flock = Flock::at(0);
    let caretaker = open(&options, &dir);
    for _ in 0..4 {
        flock.save_next(&caretaker);
    }
    caretaker.close().expect("closed");
    for image in Image::both(&dir) {
        // Every block has been on the disk, so that the file system has nothing of its own to write.
        image.write(0, &image.all());
        File::open(image.path()).and_then(|file| file.sync_all()).expect("the disk is well");
    }
    let caretaker = open(&options, &dir);
    let mut flock = caretaker.resume().expect("whole").expect("a snapshot");
    for _ in 0..4 {
        flock.save_next(&caretaker);
        caretaker.flush().expect("the disk is well");
    }
    let good = caretaker.head().expect("a head");
    failing.fail();
    // Two of each side: the second shares the pages of the first, which no sync has covered.
    let bad: Vec<SnapshotId> = (0..4).map(|_| flock.save_next(&caretaker)).collect();
    assert!(caretaker.flush().is_err(), "the disk takes no more");
    assert_eq!(caretaker.durable(), Some(good));
    failing.heal();
    _ = caretaker.flush();
    let is_durable = |id| caretaker.history().iter().any(|e| e.id() == id && e.is_durable());
    assert!(!bad.iter().any(|id| is_durable(*id)), "{:?}", caretaker.history());
    // The next is written wholly, and on the disk.
    let next = flock.save_next(&caretaker);
    assert_eq!(caretaker.history()[0].kind(), Kind::Full, "nothing of it is shared");
    assert!(caretaker.flush().is_err(), "sticky");
    assert!(is_durable(next), "{:?}", caretaker.history());
    assert!(!bad.iter().any(|id| is_durable(*id)), "{:?}", caretaker.history());
    let tick = flock.tick;
    drop(caretaker);
    let (_mount, ring) = failing.power_cut();
    let caretaker = open(&options, &ring);
    assert_eq!(caretaker.resume().expect("whole"), Some(Flock::at(tick)));
}

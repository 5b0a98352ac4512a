//! Processes that end at any moment, fork, or come second: nothing reported is lost, nothing is
//! written by two, and every lock is let go.

mod common;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use common::{Child, TempDir, World, child_role, open, open_with, report, small, thawed, world};
use snapring::{
    Caretaker, CloseError, Durability, Event, FlushError, KeepError, MementoError, OpenError,
    ResumeError, RollbackError, SaveError, SnapshotId,
};

fn id(n: u64) -> SnapshotId {
    SnapshotId::new(n)
}

/// What a child does in its role; as a test of its own, nothing.
#[test]
fn child_plays_its_role() {
    let Some((role, dir)) = child_role() else { return };
    match role.as_str() {
        "hold" => {
            let caretaker = open(&dir);
            caretaker.save(&world(1)).expect("saved");
            report("holding");
            std::thread::sleep(Duration::from_secs(600));
        }
        "save" => save_until_killed(&dir),
        "try" => match open_with::<World>(&small(), &dir) {
            Ok(_) => report("opened"),
            Err(error) => report(error),
        },
        "fork first" => fork_first(&dir),
        _ => panic!("no role {role}"),
    }
}

/// Saves, rolls back, keeps and flushes, and reports each id with the world that it holds.
fn save_until_killed(dir: &Path) {
    let caretaker = open(dir);
    let mut live = caretaker.resume().expect("whole").unwrap_or_else(|| world(0));
    report(format_args!("head {}", caretaker.head().map_or(0, SnapshotId::get)));
    for round in 1_u64.. {
        live = world(live.tick + 1);
        let saved = caretaker.save(&live).expect("saved");
        report(format_args!("id {} {}", saved.get(), live.tick));
        if round % 7 == 0 {
            let back = caretaker.history()[3.min(caretaker.history().len() - 1)].id();
            let rollback = caretaker.rollback(&mut live, back).expect("rolled back");
            report(format_args!("id {} {}", rollback.id().get(), live.tick));
        }
        if round % 11 == 0 {
            caretaker.keep(saved, "kept").expect("kept");
        }
        if round % 23 == 0 {
            caretaker.flush().expect("flushed");
        }
    }
}

#[test]
fn lives_cut_short_lose_nothing_that_was_reported() {
    let dir = TempDir::new("lives");
    let lives = std::env::var("SNAPRING_TEST_LIVES").ok().and_then(|n| n.parse().ok());
    let mut reported: Vec<(u64, u64)> = Vec::new();
    // A fixed sequence of delays, told apart by a multiplier; the machine adds the randomness.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let until = Instant::now() + Duration::from_secs(6);
    let mut life = 0;
    while lives.map_or(life < 300 && Instant::now() < until, |n: u64| life < n) {
        life += 1;
        let mut child = Child::start("child_plays_its_role", "save", &dir);
        let first = child.next().expect("it opens");
        let head: u64 = first.strip_prefix("head ").expect("its head").parse().expect("a number");
        let last = reported.last().map_or(0, |(id, _)| *id);
        assert!(head >= last, "life {life}: the head is {head}, {last} was reported");
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // From before the first save to about a hundred of them.
        std::thread::sleep(Duration::from_micros(seed >> 52));
        child.kill();
        for line in child.rest() {
            let mut words = line.split(' ').skip(1).map(|w| w.parse::<u64>().expect("a number"));
            let pair = (words.next().expect("an id"), words.next().expect("a world"));
            assert!(reported.last().is_none_or(|(id, _)| *id < pair.0), "{pair:?} was used before");
            reported.push(pair);
        }
        // A look at what the next life will find, on a copy.
        let copy = dir.copy("looked at");
        let caretaker = open(&copy);
        assert!(caretaker.recovery().rejected.is_empty(), "{}", caretaker.recovery());
        let last = reported.last().copied().unwrap_or((0, 0));
        let head = caretaker.head().map_or(0, SnapshotId::get);
        // One more than reported may have been published, and a rollback after it.
        assert!(head >= last.0, "life {life}: the head is {head}, {last:?} was reported");
        let history = caretaker.history();
        assert!(history.len() as u64 >= 16.min(last.0), "{} are listed", history.len());
        for entry in &history {
            let found = thawed(&caretaker, entry.id()).expect("whole");
            if let Ok(at) = reported.binary_search_by_key(&entry.id().get(), |(id, _)| *id) {
                assert_eq!(found, reported[at].1, "{}", entry.id());
            }
        }
        let oldest = history.last().map_or(0, |e| e.id().get());
        for (id, _) in reported.iter().rev().take_while(|(id, _)| *id > oldest).take(10) {
            assert!(history.iter().any(|e| e.id().get() == *id), "{id} is not listed");
        }
    }
    assert!(life >= 20, "only {life} lives");
    assert!(reported.len() > 100, "only {} saves in {life} lives", reported.len());
    println!("{life} lives, {} saves reported", reported.len());
}

#[test]
fn a_second_process_is_refused_until_the_first_is_killed() {
    let dir = TempDir::new("second");
    let mut holder = Child::start("child_plays_its_role", "hold", &dir);
    assert_eq!(holder.next().as_deref(), Some("holding"));
    let error = open_with::<World>(&small(), &dir).expect_err("in use");
    let OpenError::WriterActive { path, holder: who } = &error else { panic!("{error:?}") };
    assert_eq!(path, &*dir);
    assert_eq!(*who, format!("process {}", holder.id()));
    let text = error.to_string();
    assert!(text.contains(&dir.display().to_string()) && text.contains(who), "{text}");
    assert!(text.contains("close that caretaker"), "{text}");
    holder.kill();
    let caretaker = open(&dir);
    assert_eq!(caretaker.resume().expect("whole"), Some(world(1)));
    assert!(!caretaker.recovery().clean);
    // And the other way round.
    let mut other = Child::start("child_plays_its_role", "try", &dir);
    let said = other.next().expect("it says something");
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
    drop(caretaker);
    let mut other = Child::start("child_plays_its_role", "try", &dir);
    assert_eq!(other.next().as_deref(), Some("opened"));
}

#[test]
fn the_directory_stays_locked_until_the_last_memento_has_gone() {
    let dir = TempDir::new("held");
    let caretaker = open(&dir);
    caretaker.save(&world(1)).expect("saved");
    let one = caretaker.latest().expect("there");
    let two = one.clone();
    let error = caretaker.close().expect_err("held");
    let CloseError::Held { mementos: 2, durable } = error else { panic!("{error:?}") };
    assert_eq!(durable, Some(id(1)), "it is flushed all the same");
    assert!(error.to_string().contains("2 mementos"), "{error}");
    let locked =
        || matches!(open_with::<World>(&small(), &dir), Err(OpenError::WriterActive { .. }));
    assert!(locked());
    drop(one);
    assert!(locked());
    assert_eq!(two.thaw().expect("still readable"), world(1));
    drop(two);
    let caretaker = open(&dir);
    assert!(caretaker.recovery().clean);
    assert_eq!(caretaker.save(&world(2)).expect("saved"), id(2));
}

/// Runs `f` in a forked child and answers its exit code; 99 if it panics.
fn in_fork(f: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs `f` on this thread's copy alone and leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or(99);
        // SAFETY: ends this process, without the harness's own exit code.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: a child of this process, and a place for its status.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status), "the child was killed by signal {}", libc::WTERMSIG(status));
    libc::WEXITSTATUS(status)
}

/// 0 if every call tells that this is a forked child; else the number of the one that does not.
fn all_refused(caretaker: Caretaker<World>, to: SnapshotId) -> i32 {
    let mut live = world(5);
    let held: Vec<bool> = vec![
        matches!(caretaker.save(&live), Err(SaveError::Forked)),
        matches!(caretaker.capture(&live).map(drop), Err(SaveError::Forked)),
        matches!(caretaker.rollback(&mut live, to), Err(RollbackError::Forked)),
        matches!(caretaker.rollback_from(to, &mut live, to), Err(RollbackError::Forked)),
        matches!(caretaker.keep(to, "label"), Err(KeepError::Forked)),
        !caretaker.release("kept"),
        matches!(caretaker.flush(), Err(FlushError::Forked)),
        caretaker.read(|_| ()).is_none(),
        caretaker.latest().is_none() && caretaker.memento(to).is_none(),
        matches!(caretaker.try_memento(to), Err(MementoError::Forked)),
        caretaker.history().is_empty() && caretaker.durable().is_none(),
        matches!(caretaker.resume(), Err(ResumeError::Forked)),
        matches!(caretaker.resume_into(&mut live), Err(ResumeError::Forked)),
        matches!(
            caretaker.guard(&mut live, |_| Ok::<(), String>(())),
            Err(snapring::GuardError::Save { source: SaveError::Forked })
        ),
        matches!(caretaker.checkpoint(&live).map(drop), Err(SaveError::Forked)),
        live == world(5),
        matches!(caretaker.close(), Err(CloseError::Flush(FlushError::Forked))),
    ];
    held.iter().position(|held| !held).map_or(0, |at| at as i32 + 1)
}

#[test]
fn a_forked_child_is_refused_and_leaves_the_parent_alone() {
    let dir = TempDir::new("fork");
    let caretaker = open(&dir);
    for n in 1..=5 {
        caretaker.save(&world(n)).expect("saved");
    }
    caretaker.keep(id(2), "kept").expect("kept");
    let memento = caretaker.latest().expect("there");
    for leave_by_closing in [true, false] {
        let code = in_fork(|| {
            // SAFETY: a bitwise copy in a process of its own, whose original is never touched
            // again there.
            let inherited = unsafe { std::ptr::read(&caretaker) };
            if !leave_by_closing {
                drop(inherited);
                // SAFETY: as above.
                drop(unsafe { std::ptr::read(&memento) });
                return 0;
            }
            all_refused(inherited, id(2))
        });
        assert_eq!(code, 0, "the call of this number was not refused");
        // The child is gone; the lock and the files are still the parent's.
        let error = open_with::<World>(&small(), &dir).expect_err("in use");
        assert!(matches!(error, OpenError::WriterActive { .. }), "{error:?}");
        let saved = caretaker.save(&world(6)).expect("the parent goes on");
        assert_eq!(thawed(&caretaker, saved), Some(6));
        assert_eq!(memento.thaw().expect("as it was"), world(5));
    }
    drop(memento);
    caretaker.close().expect("closed");
    let caretaker = open(&dir);
    assert!(caretaker.recovery().clean && caretaker.recovery().rejected.is_empty());
    assert_eq!(caretaker.history().len(), 7);
    assert_eq!(thawed(&caretaker, id(2)), Some(2));
}

/// Forks before the caretaker has done anything but open.
fn fork_first(dir: &Path) {
    let caretaker = open(dir);
    let code = in_fork(|| {
        // SAFETY: a bitwise copy in a process of its own, whose original is never touched again
        // there.
        i32::from(!matches!(
            unsafe { std::ptr::read(&caretaker) }.save(&world(1)),
            Err(SaveError::Forked)
        ))
    });
    report(format_args!("code {code}"));
    caretaker.save(&world(1)).expect("saved");
    report("saved");
}

#[test]
fn a_child_forked_right_after_opening_is_refused_too() {
    // In a process where nothing else has asked before.
    let dir = TempDir::new("fork-first");
    let mut child = Child::start("child_plays_its_role", "fork first", &dir);
    assert_eq!(child.next().as_deref(), Some("code 0"));
    assert_eq!(child.next().as_deref(), Some("saved"));
}

#[test]
fn a_directory_is_free_once_its_parent_has_closed_it_though_a_child_lives() {
    let dir = TempDir::new("orphan");
    let caretaker = open(&dir);
    caretaker.save(&world(1)).expect("saved");
    // SAFETY: the child does nothing but wait to be killed.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        loop {
            // SAFETY: sleeps.
            unsafe { libc::pause() };
        }
    }
    caretaker.close().expect("closed");
    let again = open_with::<World>(&small(), &dir).map(|c| c.history().len());
    // SAFETY: a child of this process.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    // SAFETY: as above; nobody asks how it ended.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    assert_eq!(again.expect("the lock was given back, not just dropped"), 1);
}

#[test]
fn a_rollback_that_comes_too_late_changes_nothing() {
    let dir = TempDir::new("raced");
    let caretaker = open(&dir);
    let first = caretaker.save(&world(1)).expect("saved");
    let second = caretaker.save(&world(2)).expect("saved");
    let mut live = world(3);
    let error = caretaker.rollback_from(first, &mut live, first).expect_err("the head moved on");
    assert!(matches!(error, RollbackError::Raced { now: Some(now) } if now == second));
    assert!(error.to_string().contains("the head has moved on to #2"), "{error}");
    assert_eq!((live.clone(), caretaker.head()), (world(3), Some(second)));
    // Many at once: each of them moves the head once, or not at all.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut live = world(9);
                for _ in 0..50 {
                    let seen = caretaker.head().expect("a head");
                    match caretaker.rollback_from(seen, &mut live, first) {
                        Ok(rollback) => assert_eq!(rollback.from(), Some(seen)),
                        Err(RollbackError::Raced { now }) => assert_ne!(now, Some(seen)),
                        Err(RollbackError::Evicted { .. }) => return,
                        Err(error) => panic!("{error}"),
                    }
                    caretaker.keep(first, "first").expect("kept");
                }
            });
        }
    });
    let stats = caretaker.stats();
    assert_eq!(caretaker.head(), Some(id(2 + stats.rollbacks)));
}

#[test]
fn ids_that_are_not_listed_are_told_apart() {
    let dir = TempDir::new("unknown");
    let caretaker = open(&dir);
    for n in 1..=20 {
        caretaker.save(&world(n)).expect("saved");
    }
    let mut live = world(0);
    for unknown in [0, 21, u64::MAX] {
        let error = caretaker.try_memento(id(unknown)).expect_err("never published");
        assert!(matches!(error, MementoError::Unknown { id: i } if i == id(unknown)), "{error:?}");
        assert!(error.to_string().contains("`history()`"), "{error}");
        let error = caretaker.rollback(&mut live, id(unknown)).expect_err("never published");
        assert!(matches!(error, RollbackError::Unknown { .. }), "{error:?}");
        let error = caretaker.keep(id(unknown), "label").expect_err("never published");
        assert!(matches!(error, KeepError::Gone { .. }), "{error:?}");
    }
    let error = caretaker.try_memento(id(4)).expect_err("evicted");
    assert!(matches!(error, MementoError::Evicted { oldest: Some(o), .. } if o == id(5)));
    assert!(error.to_string().contains("oldest left is #5"), "{error}");
    let error = caretaker.rollback(&mut live, id(4)).expect_err("evicted");
    assert!(matches!(error, RollbackError::Evicted { oldest: Some(o), .. } if o == id(5)));
    assert_eq!(live, world(0));
}

#[test]
fn an_event_ends_with_its_caretaker() {
    let dir = TempDir::new("events");
    let options = small().durability(Durability::Sync);
    let caretaker = open_with::<World>(&options, &dir).expect("opened");
    let mut events = caretaker.subscribe();
    caretaker.save(&world(1)).expect("saved");
    caretaker.close().expect("closed");
    assert_eq!(events.next(), Some(Event::Saved { id: id(1) }));
    assert_eq!(events.next(), Some(Event::Durable { id: id(1) }));
    assert_eq!(events.next(), None);
}

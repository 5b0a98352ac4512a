//! A rollback that leaves part of the state behind, gives the wrong player the socket, or cannot be
//! gone back from.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error as _,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use snapring::{
    Caretaker, GuardError, HeldBy, Kind, Options, RollbackError, SaveError, Snapshot, SnapshotId,
};

#[derive(Snapshot, Clone, PartialEq, Debug, Default)]
struct Player {
    #[snapshot(id)]
    id: u32,
    name: String,
    #[snapshot(skip)]
    socket: Option<u32>,
}

/// No id: cannot be recognised.
#[derive(Snapshot, Clone, PartialEq, Debug)]
struct Bullet {
    speed: u32,
    #[snapshot(skip = 7)]
    shown: u32,
}

impl Default for Bullet {
    fn default() -> Bullet {
        Bullet { speed: 0, shown: 7 }
    }
}

#[derive(Snapshot, Clone, PartialEq, Debug, Default)]
struct Arena {
    tick: u64,
    players: Vec<Player>,
    bullets: Vec<Bullet>,
    by_name: HashMap<String, Player>,
    by_rank: BTreeMap<u8, Player>,
    pair: [Bullet; 2],
    best: Option<Box<Player>>,
    log: Vec<String>,
    #[snapshot(skip)]
    gateway: Option<String>,
}

fn player(id: u32, socket: Option<u32>) -> Player {
    Player { id, name: format!("player {id}"), socket }
}

fn open() -> Caretaker<Arena> {
    Caretaker::in_memory().expect("opens")
}

fn sockets<'a>(players: impl IntoIterator<Item = &'a Player>) -> Vec<(u32, Option<u32>)> {
    players.into_iter().map(|p| (p.id, p.socket)).collect()
}

#[test]
fn allocations_stay_where_they_are() {
    let ring = open();
    let mut live = Arena {
        players: (0..4).map(|id| player(id, None)).collect(),
        log: vec!["a line".to_owned(), "another".to_owned()],
        by_name: (0..9).map(|id| (id.to_string(), player(id, None))).collect(),
        best: Some(Box::new(player(1, None))),
        ..Arena::default()
    };
    let id = ring.save(&live).expect("saves");
    let place = |live: &Arena| {
        let boxed = live.best.as_deref().map(std::ptr::from_ref);
        let named = &live.by_name["3"];
        let named = (std::ptr::from_ref(named), named.name.as_ptr());
        (live.players.as_ptr(), live.players[0].name.as_ptr(), live.log[0].as_ptr(), boxed, named)
    };
    let before = place(&live);
    live.tick = 9;
    live.players[0].name.replace_range(.., "other");
    live.log[0].replace_range(.., "xx");
    live.best.as_mut().expect("is there").name.clear();
    live.by_name.get_mut("3").expect("is there").name.clear();
    _ = ring.rollback(&mut live, id).expect("rolls back");
    assert_eq!(place(&live), before);
    assert_eq!(live.players[0].name, "player 0");
    assert_eq!(live.by_name["3"].name, "player 3");
}

#[test]
fn skipped_fields_follow_elements_by_id() {
    let ring = open();
    let mut live = Arena {
        players: vec![player(1, None), player(2, None), player(3, None), player(4, None)],
        ..Arena::default()
    };
    let id = ring.save(&live).expect("saves");
    // Reordered, one gone, one new, all connected since.
    live.players =
        vec![player(9, Some(90)), player(4, Some(40)), player(1, Some(10)), player(2, Some(20))];
    _ = ring.rollback(&mut live, id).expect("rolls back");
    let expected = [(1, Some(10)), (2, Some(20)), (3, None), (4, Some(40))];
    assert_eq!(sockets(&live.players), expected);
    // The same length and order: in place.
    live.players[2].socket = Some(30);
    live.players[2].name.clear();
    _ = ring.rollback(&mut live, id).expect("rolls back");
    let expected = [(1, Some(10)), (2, Some(20)), (3, Some(30)), (4, Some(40))];
    assert_eq!(sockets(&live.players), expected);
    assert_eq!(live.players[2].name, "player 3");
}

#[test]
fn skipped_fields_follow_entries_by_key() {
    let ring = open();
    let mut live = Arena::default();
    for id in 0..4 {
        live.by_name.insert(format!("n{id}"), player(id, None));
        live.by_rank.insert(id as u8, player(id, None));
    }
    let id = ring.save(&live).expect("saves");
    for p in live.by_name.values_mut().chain(live.by_rank.values_mut()) {
        p.socket = Some(p.id * 10);
    }
    live.by_name.remove("n1");
    live.by_rank.remove(&1);
    live.by_name.insert("new".to_owned(), player(8, Some(80)));
    live.by_rank.insert(200, player(8, Some(80)));
    _ = ring.rollback(&mut live, id).expect("rolls back");
    let expected = [(0, Some(0)), (1, None), (2, Some(20)), (3, Some(30))];
    let mut by_name = sockets(live.by_name.values());
    by_name.sort_unstable();
    assert_eq!(by_name, expected);
    assert_eq!(sockets(live.by_rank.values()), expected);
}

#[test]
fn skipped_fields_stay_by_position_and_else_take_their_default() {
    let ring = open();
    let bullets = vec![Bullet { speed: 1, shown: 1 }, Bullet { speed: 2, shown: 2 }];
    let mut live = Arena { bullets, ..Arena::default() };
    let id = ring.save(&live).expect("saves");
    live.gateway = Some("up".to_owned());
    live.pair = [Bullet { speed: 5, shown: 50 }, Bullet { speed: 6, shown: 60 }];
    live.bullets[0].shown = 100;
    _ = ring.rollback(&mut live, id).expect("rolls back");
    assert_eq!(live.gateway.as_deref(), Some("up"));
    assert_eq!(live.pair, [Bullet { speed: 0, shown: 50 }, Bullet { speed: 0, shown: 60 }]);
    // Without an id nobody knows whose it was.
    assert_eq!(live.bullets, [Bullet { speed: 1, shown: 7 }, Bullet { speed: 2, shown: 7 }]);
}

#[test]
fn one_can_go_back_and_forward_again() {
    let ring = open();
    let arena = |tick| Arena { tick, log: vec![tick.to_string(); 3], ..Arena::default() };
    let ids: Vec<SnapshotId> =
        (1..=5).map(|tick| ring.save(&arena(tick)).expect("saves")).collect();
    let mut live = arena(5);
    let used = ring.stats().used_bytes;
    let written = ring.stats().written_bytes;

    let back = ring.rollback(&mut live, ids[1]).expect("rolls back");
    assert_eq!(live, arena(2));
    assert_eq!((back.from(), back.to()), (Some(ids[4]), ids[1]));
    assert!(back.id() > ids[4]);
    assert!(back.took().as_secs() < 10);
    assert_eq!(ring.head(), Some(back.id()));

    let forward = ring.rollback(&mut live, ids[4]).expect("forward");
    assert_eq!(live, arena(5));
    // A rollback of a rollback is the state that that one made current.
    let again = ring.rollback(&mut live, back.id()).expect("back again");
    assert_eq!(live, arena(2));
    assert_eq!(again.to(), back.id());

    let history = ring.history();
    assert_eq!(history.len(), 8);
    let entry = |id| history.iter().find(|e| e.id() == id).expect("is listed");
    for (rollback, target, parent) in
        [(back, ids[1], ids[4]), (forward, ids[4], back.id()), (again, back.id(), forward.id())]
    {
        let entry = entry(rollback.id());
        assert_eq!(entry.kind(), Kind::Rollback);
        assert_eq!((entry.target(), entry.parent()), (Some(target), Some(parent)));
        assert_eq!(entry.written_bytes(), 0, "a rollback copies nothing");
        assert!(entry.bytes() > 0);
    }
    assert_eq!(entry(again.id()).logical_version(), entry(ids[1]).logical_version());
    assert_eq!(entry(ids[4]).logical_version(), 5);
    assert_eq!(ring.stats().used_bytes, used);
    assert_eq!(ring.stats().written_bytes, written);
    let digest = |id| ring.memento(id).expect("is listed").digest();
    assert_eq!(digest(again.id()), digest(ids[1]));
    assert_ne!(digest(again.id()), digest(ids[4]));
    // The next save counts from there.
    let next = ring.save(&arena(3)).expect("saves");
    let entry = &ring.history()[0];
    assert_eq!((entry.id(), entry.parent()), (next, Some(again.id())));
    assert_eq!(entry.logical_version(), 3);
    assert_eq!(entry.target(), None);
}

#[test]
fn a_rollback_outlives_its_target() {
    let ring: Caretaker<Arena> = Options::new().ring(2).in_memory().expect("opens");
    let arena = |tick| Arena { tick, log: vec!["x".repeat(5000); 3], ..Arena::default() };
    let first = ring.save(&arena(1)).expect("saves");
    ring.save(&arena(2)).expect("saves");
    let mut live = arena(2);
    // Each takes the target's bytes on, and the target leaves.
    let mut to = first;
    for _ in 0..50 {
        let rollback = ring.rollback(&mut live, to).expect("rolls back");
        assert_eq!(live, arena(1));
        ring.save(&arena(3)).expect("saves");
        to = rollback.id();
    }
    assert!(matches!(ring.rollback(&mut live, first), Err(RollbackError::Evicted { .. })));
    assert_eq!(ring.memento(to).expect("is listed").thaw().expect("thaws"), arena(1));
    // Nothing was left behind on the way: the bytes are used again once nobody needs them.
    let used = ring.stats().used_bytes;
    for tick in 0..100 {
        ring.save(&arena(tick)).expect("saves");
    }
    assert!(ring.stats().used_bytes <= used + 8 * 4096, "{} and {used}", ring.stats().used_bytes);
}

#[test]
fn kept_held_and_evicted_targets() {
    let ring: Caretaker<Arena> = Options::new().ring(4).in_memory().expect("opens");
    let arena = |tick| Arena { tick, ..Arena::default() };
    let kept = ring.save(&arena(1)).expect("saves");
    let held = ring.save(&arena(2)).expect("saves");
    let gone = ring.save(&arena(3)).expect("saves");
    ring.keep(kept, "before the patch").expect("keeps");
    let checkpoint = ring.checkpoint(&arena(4)).expect("saves");
    let memento = ring.memento(held).expect("is listed");
    for tick in 5..30 {
        ring.save(&arena(tick)).expect("saves");
    }
    let mut live = arena(30);
    let rollback = ring.rollback(&mut live, kept).expect("kept, so there");
    assert_eq!((live.tick, rollback.to()), (1, kept));
    let label = ring.history().into_iter().find_map(|e| e.label().map(|l| (l.to_owned(), e.id())));
    assert_eq!(label, Some(("before the patch".to_owned(), kept)));
    // Held, but not listed: its bytes can be read, and gone back to by a checkpoint alone.
    let before = live.clone();
    for id in [held, gone] {
        match ring.rollback(&mut live, id) {
            Err(RollbackError::Evicted { to, oldest }) => {
                assert_eq!((to, oldest), (id, Some(kept)))
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(live, before);
    assert_eq!(memento.thaw().expect("thaws"), arena(2));
    let id = checkpoint.id();
    assert!(ring.memento(id).is_none());
    let rollback = checkpoint.restore(&mut live).expect("held, so there");
    assert_eq!((live.tick, rollback.to()), (4, id));
    assert_eq!(ring.history()[0].target(), Some(id));
    assert_eq!(ring.latest().expect("saved").thaw().expect("thaws"), arena(4));
    let unknown = SnapshotId::new(10_000);
    match ring.rollback(&mut live, unknown) {
        Err(RollbackError::Unknown { to }) => assert_eq!(to, unknown),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_raced_rollback_changes_nothing() {
    let ring = open();
    let arena = |tick| Arena { tick, ..Arena::default() };
    let first = ring.save(&arena(1)).expect("saves");
    let second = ring.save(&arena(2)).expect("saves");
    let mut live = arena(77);
    for expected in [first, SnapshotId::new(0), SnapshotId::new(99)] {
        match ring.rollback_from(expected, &mut live, first) {
            Err(RollbackError::Raced { now }) => assert_eq!(now, Some(second)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((live.tick, ring.head()), (77, Some(second)));
    let rollback = ring.rollback_from(second, &mut live, first).expect("nothing came between");
    assert_eq!(live.tick, 1);
    // The same state is current again, but the head is another one: no mistaking.
    let forward = ring.rollback_from(rollback.id(), &mut live, second).expect("rolls back");
    assert!(matches!(
        ring.rollback_from(second, &mut live, first),
        Err(RollbackError::Raced { now }) if now == Some(forward.id())
    ));
    let empty = open();
    assert!(matches!(
        empty.rollback_from(first, &mut live, first),
        Err(RollbackError::Raced { now: None })
    ));
}

#[test]
fn captures_and_rollbacks_are_numbered_in_their_order() {
    let ring = open();
    let arena = |tick| Arena { tick, ..Arena::default() };
    let first = ring.save(&arena(1)).expect("saves");
    let one = ring.capture(&arena(2)).expect("captures");
    let two = ring.capture(&arena(3)).expect("captures");
    let mut live = arena(3);
    let rollback = ring.rollback(&mut live, first).expect("rolls back");
    let three = ring.capture(&arena(4)).expect("captures");
    let ids = [one.wait(), two.wait()].map(|id| id.expect("publishes"));
    let last = three.wait().expect("publishes");
    assert!(first < ids[0] && ids[0] < ids[1] && ids[1] < rollback.id() && rollback.id() < last);
    assert_eq!(rollback.from(), Some(ids[1]));
}

#[test]
fn a_checkpoint_goes_back_or_lets_go() {
    let ring = open();
    let mut live = Arena { tick: 1, ..Arena::default() };
    let checkpoint = ring.checkpoint(&live).expect("saves");
    assert_eq!(Some(checkpoint.id()), ring.head());
    assert_eq!(ring.stats().mementos, 1);
    live.tick = 2;
    checkpoint.commit();
    assert_eq!((live.tick, ring.stats().mementos), (2, 0));
    let checkpoint = ring.checkpoint(&live).expect("saves");
    live.tick = 3;
    live.gateway = Some("up".to_owned());
    let rollback = checkpoint.restore(&mut live).expect("restores");
    assert_eq!((live.tick, live.gateway.as_deref()), (2, Some("up")));
    assert_eq!((ring.head(), ring.stats().mementos), (Some(rollback.id()), 0));
}

/// Says something else in `Debug`: only `Display` may reach the log.
#[derive(Debug)]
struct Plain(&'static str);

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin says: {}", self.0)
    }
}

#[test]
fn a_guard_keeps_what_went_well() {
    let ring = open();
    let mut live = Arena { tick: 1, ..Arena::default() };
    let answer = ring.guard(&mut live, |arena| {
        arena.tick = 2;
        Ok::<_, Plain>(arena.tick * 10)
    });
    assert_eq!(answer.ok(), Some(20));
    assert_eq!(live.tick, 2);
    // The snapshot before the change, and no rollback.
    assert_eq!(ring.history().len(), 1);
    assert_eq!(ring.read(|arena| arena.tick.to_native()), Some(1));
    assert_eq!(ring.stats().mementos, 0);
}

#[test]
fn a_guard_undoes_what_failed() {
    let ring = open();
    let mut live = Arena { tick: 1, gateway: Some("up".to_owned()), ..Arena::default() };
    let before = live.clone();
    let error = ring
        .guard(&mut live, |arena| -> Result<(), Plain> {
            arena.tick = 2;
            arena.players.push(player(1, Some(1)));
            Err(Plain("no such rule"))
        })
        .expect_err("it failed");
    assert_eq!(live, before);
    assert!(error.to_string().contains("plugin says: no such rule"), "{error}");
    let rollback = error.rollback().expect("rolled back");
    assert_eq!(ring.head(), Some(rollback.id()));
    match error.resume_unwind() {
        GuardError::Failed { error, .. } => assert_eq!(error.0, "no such rule"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_guard_undoes_what_panicked() {
    let ring = open();
    let mut live = Arena { tick: 1, ..Arena::default() };
    let error = ring
        .guard(&mut live, |arena| -> Result<(), Plain> {
            arena.tick = 2;
            panic!("division of {} by zero", arena.tick);
        })
        .expect_err("it panicked");
    assert_eq!(live.tick, 1);
    let GuardError::Panicked { message, rollback, .. } = &error else { panic!("{error}") };
    assert_eq!(message, "division of 2 by zero");
    assert_eq!(ring.head(), Some(rollback.id()));
    assert!(error.to_string().contains("division of 2 by zero"), "{error}");
    let payload = catch_unwind(AssertUnwindSafe(|| error.resume_unwind())).expect_err("goes on");
    assert_eq!(payload.downcast_ref::<String>().expect("a text"), "division of 2 by zero");
    // Another payload than a text comes back as it was thrown.
    let error = ring
        .guard(&mut live, |_| -> Result<(), Plain> { std::panic::panic_any(42_u8) })
        .expect_err("it panicked");
    let payload = catch_unwind(AssertUnwindSafe(|| error.resume_unwind())).expect_err("goes on");
    assert_eq!(payload.downcast_ref::<u8>(), Some(&42));
}

#[test]
fn a_guard_error_goes_anywhere() {
    fn anywhere<E: std::error::Error + Send + Sync + 'static>() {}
    anywhere::<GuardError<std::io::Error>>();
    anywhere::<RollbackError>();
}

#[test]
fn a_guard_survives_more_saves_than_the_ring_has_places() {
    let ring: Caretaker<Arena> = Options::new().ring(2).in_memory().expect("opens");
    let mut live = Arena { tick: 1, ..Arena::default() };
    let error = ring
        .guard(&mut live, |arena| -> Result<(), Plain> {
            for tick in 2..100 {
                arena.tick = tick;
                ring.save(arena).map_err(|_| Plain("could not save"))?;
            }
            Err(Plain("after all"))
        })
        .expect_err("it failed");
    assert_eq!(live.tick, 1, "{error}");
    assert!(matches!(error, GuardError::Failed { error: Plain("after all"), .. }));
    assert_eq!(ring.latest().expect("saved").thaw().expect("thaws").tick, 1);
}

#[test]
fn a_guard_inside_a_guard_undoes_its_own_change() {
    let ring = open();
    let mut live = Arena { tick: 1, ..Arena::default() };
    let answer = ring.guard(&mut live, |arena| {
        arena.tick = 2;
        let inner = ring.guard(arena, |arena| -> Result<(), Plain> {
            arena.tick = 3;
            panic!("inner");
        });
        assert!(matches!(inner, Err(GuardError::Panicked { .. })));
        assert_eq!(arena.tick, 2, "the inner change is undone, the outer one stays");
        arena.log.push("seen".to_owned());
        Ok::<_, Plain>(())
    });
    assert!(answer.is_ok());
    assert_eq!((live.tick, live.log.len()), (2, 1));
}

#[derive(Snapshot)]
struct Deep(#[snapshot(id)] u32, Option<Box<Deep>>);

#[test]
fn a_guard_that_cannot_save_does_not_run_the_change() {
    let ring: Caretaker<Deep> = Options::new().max_depth(3).in_memory().expect("opens");
    let nest = |n| (0..n).fold(Deep(0, None), |deep, i| Deep(i, Some(Box::new(deep))));
    let mut live = nest(9);
    let mut ran = false;
    let error = ring
        .guard(&mut live, |_| {
            ran = true;
            Ok::<_, Plain>(())
        })
        .expect_err("too deep");
    assert!(!ran);
    assert!(matches!(error, GuardError::Save { source: SaveError::TooDeep { max: 3 } }), "{error}");
    let error = GuardError::<std::io::Error>::Save { source: SaveError::TooDeep { max: 3 } };
    assert!(error.source().expect("has one").to_string().contains("max_depth"));
    assert_eq!(ring.head(), None);
}

#[test]
fn resuming_publishes_nothing() {
    let ring = open();
    assert_eq!(ring.resume().expect("nothing to fail"), None);
    let mut live = Arena { tick: 5, gateway: Some("up".to_owned()), ..Arena::default() };
    assert_eq!(ring.resume_into(&mut live).expect("nothing to fail"), None);
    assert_eq!(live.tick, 5);
    let saved = Arena { tick: 6, players: vec![player(1, Some(1))], ..live.clone() };
    let id = ring.save(&saved).expect("saves");
    let fresh = ring.resume().expect("thaws").expect("is there");
    assert_eq!((fresh.tick, fresh.gateway, fresh.players[0].socket), (6, None, None));
    live.players = vec![player(2, Some(2)), player(1, Some(11))];
    assert_eq!(ring.resume_into(&mut live).expect("restores"), Some(id));
    assert_eq!((live.tick, live.gateway.as_deref()), (6, Some("up")));
    assert_eq!(sockets(&live.players), [(1, Some(11))]);
    assert_eq!((ring.head(), ring.history().len()), (Some(id), 1));
}

/// When nothing may leave, a rollback has no place for its own record, and says so first.
#[test]
fn a_rollback_without_a_place_changes_nothing() {
    let ring: Caretaker<Arena> = Options::new().ring(2).in_memory().expect("opens");
    let arena = |tick| Arena { tick, ..Arena::default() };
    let mut held = Vec::new();
    while let Ok(id) = ring.save(&arena(held.len() as u64)) {
        held.push(ring.memento(id).expect("is listed"));
    }
    let newest = held.last().expect("some").id();
    let mut live = arena(500);
    // The other side is as full.
    let error = loop {
        match ring.rollback(&mut live, newest) {
            Ok(rollback) => held.push(ring.memento(rollback.id()).expect("is listed")),
            Err(error) => break error,
        }
        live = arena(500);
        assert!(held.len() < 50);
    };
    assert_eq!(live, arena(500));
    let RollbackError::NoPlace { source: SaveError::Held { holders }, .. } = &error else {
        // The newest may have left meanwhile.
        panic!("{error}")
    };
    assert!(holders.iter().all(|h| matches!(h.by, HeldBy::Mementos { .. })), "{holders:?}");
    drop(held);
    _ = ring.rollback(&mut live, ring.head().expect("some")).expect("rolls back");
}

/// A change that fails is undone even where everything is held and no rollback can be published.
#[test]
fn a_guarded_change_without_a_place_to_go_back_to_is_undone() {
    let ring: Caretaker<Arena> = Options::new().ring(2).in_memory().expect("opens");
    let arena = |tick| Arena { tick, ..Arena::default() };
    let mut held = Vec::new();
    let mut live = arena(500);
    let error = ring.guard(&mut live, |live| {
        live.tick = 1;
        // Both sides: a rollback's record goes to its target's.
        for tick in 0..100 {
            if let Ok(id) = ring.save(&arena(tick)) {
                held.push(ring.memento(id).expect("is listed"));
            }
            if let Some(newest) = held.last()
                && let Ok(rollback) = ring.rollback(&mut arena(0), newest.id())
            {
                held.push(ring.memento(rollback.id()).expect("is listed"));
            }
        }
        Err::<(), _>("no")
    });
    assert_eq!(live, arena(500));
    let Err(GuardError::Rollback { source, .. }) = &error else { panic!("{error:?}") };
    assert!(matches!(source, RollbackError::Unpublished { .. }), "{source}");
    assert!(source.to_string().contains("again"), "{source}");
}

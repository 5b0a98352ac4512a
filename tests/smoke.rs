//! A first walk through everything.
use snapring::{Caretaker, Snapshot, Options, Durability};
use std::collections::HashMap;

#[derive(Snapshot, Debug, PartialEq, Clone, Default)]
struct Player { #[snapshot(id)] id: u32, name: String, hp: f32, bag: Vec<u16>, #[snapshot(skip)] socket: Option<u64> }
#[derive(Snapshot, Debug, PartialEq, Clone, Default)]
struct World { tick: u64, players: Vec<Player>, scores: HashMap<String, u64> }

fn world(n: u64) -> World {
    World { tick: n, players: (0..n as u32 % 50).map(|i| Player { id: i, name: format!("player {i} of {n}"), hp: 1.5, bag: vec![i as u16; 5], socket: None }).collect(), scores: (0..n%20).map(|i| (format!("s{i}"), i)).collect() }
}

#[test]
fn walk() {
    let dir = std::env::temp_dir().join(format!("snapring-smoke-{}", std::process::id()));
    _ = std::fs::remove_dir_all(&dir);
    let c = unsafe { Caretaker::<World>::open(&dir) }.unwrap();
    let mut ids = vec![];
    for i in 1..100 { ids.push(c.save(&world(i)).unwrap()); }
    assert_eq!(c.history().len(), 16);
    assert_eq!(c.read(|w| w.tick.to_native()), Some(99));
    let m = c.latest().unwrap();
    assert_eq!(m.thaw().unwrap(), world(99));
    let mut live = world(99);
    live.players[3].socket = Some(7);
    let r = c.rollback(&mut live, ids[90]).unwrap();
    println!("{r:?} {:?}", c.stats());
    let mut want = world(91);
    want.players[3].socket = Some(7);
    assert_eq!(live, want);
    assert!(matches!(c.rollback(&mut live, ids[3]), Err(snapring::RollbackError::Evicted{..})));
    let e = c.guard(&mut live, |w| -> Result<(), String> { w.tick = 0; w.players.clear(); Err("bad rules".into()) }).unwrap_err();
    println!("{e}");
    assert_eq!(live.tick, 91);
    println!("{:?}", c.flush());
    drop(m);
    println!("{:?}", c.close());
    let c = unsafe { Options::new().durability(Durability::Sync).open::<World>(&dir) }.unwrap();
    println!("{} {:?}", c.recovery(), c.recovery());
    assert_eq!(c.resume().unwrap().unwrap().tick, 91);
    c.save(&world(5)).unwrap();
    println!("{:?}", c.durable());
    std::fs::remove_dir_all(&dir).unwrap();
}

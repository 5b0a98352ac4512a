#![forbid(unsafe_code)]
//! A reference that does less than it should, or a state that does not really change: both would
//! make ratios lie.

use snapring_bench::{
    by_hand::PutBack,
    peers::codec::{Bitcode, Codec, Postcard, Wincode},
    place::Place,
    ring::archive_of,
    states::{PLAYERS, ROOM, SMALL, hashed, map_free, mirror, plain, sorted, unsorted},
    swing::Swing,
};

/// All three ways back lead to the same states, by turns.
fn ways<T: PutBack + PartialEq + std::fmt::Debug>(state: impl Fn(u64) -> T) {
    assert_ne!(state(1), state(2));
    for way in [Swing::put_back, Swing::roll_back, Swing::replace] {
        let mut swing = Swing::new(Place::Memory, state(1), state(2));
        for round in 0..4 {
            way(&mut swing);
            assert_eq!(*swing.live(), state(1 + round % 2), "round {round}");
        }
    }
}

#[test]
fn every_way_back_is_a_way_back() {
    ways(|tick| map_free::Player::new(3, tick));
    ways(|tick| unsorted::Player::new(3, tick));
    ways(|tick| sorted::Player::new(3, tick));
    ways(|tick| map_free::World::new(1500, tick));
    ways(|tick| unsorted::World::new(1500, tick));
    ways(|tick| sorted::World::new(1500, tick));
    ways(|tick| plain::Cells::new(1000, tick));
}

#[test]
fn archives_are_as_long_as_they_are_said_to_be() {
    let small = archive_of(&map_free::Player::new(SMALL, 1)).len();
    let room = archive_of(&map_free::World::new(ROOM, 1)).len();
    let cells = archive_of(&plain::Cells::new(plain::CELLS, 1)).len();
    println!("small {small}, room {room}, cells {cells}, world {}", room * PLAYERS / ROOM);
    assert!((800..=850).contains(&small), "{small} bytes of one player");
    assert!((900_000..=920_000).contains(&room), "{room} bytes of a room");
    assert_eq!(cells >> 20, 64);
    assert_eq!(archive_of(&plain::Hello::new(7)).len(), 36);
    // The lists of the shapes with a map are as long as the one without.
    assert_eq!(archive_of(&unsorted::World::new(ROOM, 1)).len(), room);
    assert_eq!(archive_of(&sorted::World::new(ROOM, 1)).len(), room);
    assert!(archive_of(&hashed::World::new(ROOM, 1)).len() > room);
}

#[test]
fn peers_give_back_what_they_took() {
    fn there_and_back<C: Codec<mirror::World>>() {
        let world = mirror::World::new(1500, 1);
        assert_eq!(C::decode(C::default().encode(&world)), world, "{}", C::NAME);
    }
    there_and_back::<Wincode>();
    there_and_back::<Bitcode>();
    there_and_back::<Postcard>();
}

//! Adapters: fields archived in a way that is not their type's own must come back whole too, and
//! what goes wrong inside a wrapper must reach the caller in words.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, DefaultHasher},
};

use snapring::{
    __private::probe::{
        archive_bytes, archive_over, check_and_thaw, layout, replace_from, restore_from,
        with_archived,
    },
    Snapshot,
};

/// A hasher without a seed, so that two maps filled alike give their entries alike.
type Steady = BuildHasherDefault<DefaultHasher>;

#[derive(Snapshot, Debug, PartialEq, Clone, Default)]
struct Player {
    name: String,
    #[snapshot(skip)]
    socket: u32,
}

#[derive(Snapshot, Debug, PartialEq, Default)]
struct Arena {
    #[snapshot(unsorted)]
    players: HashMap<u32, Player, Steady>,
    #[snapshot(unsorted)]
    banned: HashSet<String>,
    #[snapshot(hashed)]
    scores: HashMap<String, Vec<u64>>,
    #[snapshot(hashed)]
    seen: HashSet<u64>,
    #[snapshot(hashed)]
    homes: HashMap<u16, Player>,
}

fn arena() -> Arena {
    let player = |i: u32| Player { name: format!("player number {i}"), socket: 100 + i };
    Arena {
        players: (0..30).map(|i| (i * 7, player(i))).collect(),
        banned: (0..30).map(|i| format!("banned {i}")).collect(),
        scores: (0..30).map(|i| (format!("scores of {i}"), vec![i; i as usize])).collect(),
        seen: (0..30).collect(),
        homes: (0..3).map(|i| (i, player(u32::from(i)))).collect(),
    }
}

fn without_sockets(mut arena: Arena) -> Arena {
    arena.players.values_mut().for_each(|p| p.socket = 0);
    arena.homes.values_mut().for_each(|p| p.socket = 0);
    arena
}

#[test]
fn unsorted_and_hashed_come_back() {
    for arena in [Arena::default(), arena()] {
        let bytes = archive_bytes(&arena).unwrap();
        let over = archive_over(&arena, 0xA5, 512).unwrap();
        assert_eq!(bytes.as_slice(), over.as_slice(), "a byte was not written");
        let depth = (0..64).find(|depth| archive_over(&arena, 0, *depth).is_ok()).unwrap();
        let back: Arena = check_and_thaw(&bytes, depth).unwrap();
        assert_eq!(back, without_sockets(arena));
    }
}

#[test]
fn unsorted_and_hashed_are_restored_in_place() {
    let bytes = archive_bytes(&arena()).unwrap();
    for put in [restore_from::<Arena>, replace_from] {
        let mut live = arena();
        live.players.remove(&7);
        live.players.insert(8, Player::default());
        live.players.get_mut(&14).unwrap().name.clear();
        live.banned.clear();
        live.scores.remove("scores of 3");
        live.scores.insert("new".to_owned(), vec![]);
        live.seen.insert(99);
        live.homes.remove(&0);
        live.homes.insert(9, Player::default());
        put(&mut live, &bytes).unwrap();
        let mut expected = arena();
        expected.players.get_mut(&7).unwrap().socket = 0;
        expected.homes.get_mut(&0).unwrap().socket = 0;
        assert_eq!(live, expected);
    }
    let mut live = arena();
    let before = (live.scores["scores of 9"].as_ptr(), live.players[&14].name.as_ptr());
    live.scores.get_mut("scores of 9").unwrap().fill(0);
    restore_from(&mut live, &bytes).unwrap();
    assert_eq!((live.scores["scores of 9"].as_ptr(), live.players[&14].name.as_ptr()), before);
}

#[test]
fn unsorted_and_hashed_are_searched() {
    let arena = arena();
    with_archived(&arena, |a| {
        assert_eq!((a.players.len(), a.banned.len(), a.seen.len()), (30, 30, 30));
        let (_, player) = a.players.find(|id| id.to_native() == 14).unwrap();
        assert_eq!(player.name.as_str(), "player number 2");
        assert!(a.players.find(|id| id.to_native() == 15).is_none());
        assert!(a.banned.find(|name| name.as_str() == "banned 29").is_some());
        assert_eq!(a.scores.get("scores of 9").unwrap().len(), 9);
        assert!(a.scores.get("scores of 99").is_none());
        assert!(a.seen.contains(&29.into()) && !a.seen.contains(&30.into()));
        let live: Vec<u32> = arena.players.keys().copied().collect();
        let archived: Vec<u32> = a.players.keys().map(|k| k.to_native()).collect();
        assert_eq!(live, archived, "entries lie in the order in which the live map gives them");
    })
    .unwrap();
}

#[test]
fn adapters_show_in_the_layout() {
    let text = layout::<Arena>();
    for kind in [" entries - ", " items - ", " hashmap - ", " hashset - "] {
        assert!(text.contains(kind), "no {kind:?} in {text}");
    }
}

#[test]
fn forged_tables_are_refused() {
    #[derive(Snapshot, Debug)]
    struct Table(#[snapshot(hashed)] HashMap<u32, bool, Steady>);
    let table = Table((0..20).map(|i| (i, true)).collect());
    let bytes = archive_bytes(&table).unwrap();
    let mut refused = 0;
    for at in 0..bytes.len() {
        let mut forged = bytes.clone();
        forged[at] ^= 0x81;
        match check_and_thaw::<Table>(&forged, 512) {
            Ok(thawed) => assert!(thawed.0.len() <= 20),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 20, "only {refused} of {} changes were noticed", bytes.len());
}

/// rkyv's own wrappers, over ours.
#[test]
fn wrappers_of_rkyv_compose() {
    use snapring::{__private::rkyv::with::Map, with::By};

    #[derive(Snapshot, Debug, PartialEq)]
    struct Team {
        #[snapshot(with = Map<By<()>>)]
        players: Vec<Player>,
    }
    let team = Team { players: arena().players.into_values().collect() };
    let bytes = archive_bytes(&team).unwrap();
    let depth = (0..64).find(|depth| archive_over(&team, 0, *depth).is_ok()).unwrap();
    let back: Team = check_and_thaw(&bytes, depth).unwrap();
    assert_eq!(back.players[3].name, team.players[3].name);
}

#[cfg(feature = "serde")]
mod with_serde {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};
    use snapring::with::Serde;

    use super::*;

    #[derive(Serialize, Deserialize, Debug, PartialEq, Clone, Default)]
    enum Weather {
        #[default]
        Clear,
        Rain {
            inches: f64,
        },
        Mixed(Vec<Weather>, BTreeMap<String, u64>),
    }

    #[derive(Snapshot, Debug, PartialEq)]
    struct World {
        tick: u8,
        #[snapshot(with = Serde)]
        weather: Weather,
        name: String,
    }

    fn world() -> World {
        let names = BTreeMap::from([("a rather long name".to_owned(), 7)]);
        let weather = Weather::Mixed(vec![Weather::Rain { inches: 0.5 }, Weather::Clear], names);
        World { tick: 3, weather, name: "a name of many bytes".to_owned() }
    }

    #[test]
    fn any_serde_type_comes_back() {
        let world = world();
        let bytes = archive_bytes(&world).unwrap();
        assert_eq!(bytes.as_slice(), archive_over(&world, 0xA5, 512).unwrap().as_slice());
        let depth = (0..64).find(|depth| archive_over(&world, 0, *depth).is_ok()).unwrap();
        assert_eq!(check_and_thaw::<World>(&bytes, depth).unwrap(), world);
        let mut live = World { tick: 0, weather: Weather::Clear, name: String::new() };
        restore_from(&mut live, &bytes).unwrap();
        assert_eq!(live, world);
        with_archived(&world, |a| {
            assert_eq!(a.weather.as_bytes(), postcard::to_stdvec(&world.weather).unwrap());
            assert_eq!(a.weather.get().unwrap(), world.weather);
        })
        .unwrap();
    }

    #[test]
    fn the_layout_names_the_type() {
        assert!(layout::<World>().contains("Weather"), "{}", layout::<World>());
    }

    /// Fails on the way out, and on the way back where told to.
    #[derive(Debug)]
    struct Sour(bool);

    impl Serialize for Sour {
        fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            if self.0 { Err(serde::ser::Error::custom("sour")) } else { s.serialize_bool(true) }
        }
    }

    impl<'de> Deserialize<'de> for Sour {
        fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Sour, D::Error> {
            u64::deserialize(d)?;
            Err(serde::de::Error::custom("sour"))
        }
    }

    #[derive(Snapshot, Debug)]
    struct Bottle(#[snapshot(with = Serde)] Sour);

    #[test]
    fn errors_reach_the_caller() {
        let error = archive_bytes(&Bottle(Sour(true))).unwrap_err();
        assert!(error.contains("failed to serialise"), "{error}");
        let bytes = archive_bytes(&Bottle(Sour(false))).unwrap();
        let error = check_and_thaw::<Bottle>(&bytes, 512).unwrap_err();
        assert!(error.contains("refused the archived bytes"), "{error}");
        let short = with_archived(&Bottle(Sour(false)), |a| a.0.get().unwrap_err()).unwrap();
        assert!(std::error::Error::source(&short).is_some());
    }

    #[test]
    fn bytes_left_over_are_noticed() {
        #[derive(Snapshot, Debug)]
        struct Numbers(#[snapshot(with = Serde)] Vec<u8>);
        let mut bytes = archive_bytes(&Numbers(vec![1, 2, 3])).unwrap();
        assert_eq!(bytes[0], 3);
        bytes[0] = 2;
        assert!(check_and_thaw::<Numbers>(&bytes, 512).is_err());
        bytes[0] = 4;
        assert!(check_and_thaw::<Numbers>(&bytes, 512).is_err());
    }
}

#[cfg(feature = "glam")]
mod with_glam {
    use std::fmt::Debug;

    use glam::{
        Affine2, Affine3A, DAffine3, DMat4, DQuat, DVec3, I16Vec3, IVec2, Mat2, Mat3, Mat3A, Mat4,
        Quat, U8Vec4, UVec4, Vec2, Vec3, Vec3A, Vec4,
    };

    use super::*;

    #[track_caller]
    fn whole<T: Snapshot + PartialEq + Debug>(value: T, numbers: &[f32]) {
        let bytes = archive_bytes(&value).unwrap();
        let expected: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        assert_eq!(bytes.as_slice(), expected);
        assert_eq!(check_and_thaw::<T>(&bytes, 0).unwrap(), value);
        let two = vec![value, check_and_thaw(&bytes, 0).unwrap()];
        let twice = archive_bytes(&two).unwrap();
        assert_eq!(&twice[..bytes.len() * 2], [expected.clone(), expected].concat());
        assert_eq!(check_and_thaw::<Vec<T>>(&twice, 1).unwrap(), two);
    }

    #[test]
    fn components_are_archived_in_order() {
        let n: [f32; 16] = std::array::from_fn(|i| i as f32 + 0.5);
        whole(Vec2::from_slice(&n), &n[..2]);
        whole(Vec3::from_slice(&n), &n[..3]);
        whole(Vec3A::from_slice(&n), &n[..3]);
        whole(Vec4::from_slice(&n), &n[..4]);
        whole(Quat::from_slice(&n), &n[..4]);
        whole(Mat2::from_cols_slice(&n), &n[..4]);
        whole(Mat3::from_cols_slice(&n), &n[..9]);
        whole(Mat3A::from_cols_slice(&n), &n[..9]);
        whole(Mat4::from_cols_slice(&n), &n);
        whole(Affine2::from_cols_slice(&n), &n[..6]);
        whole(Affine3A::from_cols_slice(&n), &n[..12]);
    }

    #[test]
    fn other_components_come_back() {
        #[derive(Snapshot, Debug, PartialEq, Clone)]
        struct All {
            cell: HashMap<IVec2, Vec<U8Vec4>>,
            rest: (UVec4, I16Vec3, DVec3, DQuat, DMat4, DAffine3),
        }
        let all = All {
            cell: HashMap::from([(IVec2::new(-1, 2), vec![U8Vec4::ONE]), (IVec2::ONE, vec![])]),
            rest: (
                UVec4::new(1, 2, 3, 4),
                I16Vec3::NEG_X,
                DVec3::new(0.1, 0.2, 0.3),
                DQuat::from_rotation_x(1.0),
                DMat4::from_scale(DVec3::splat(2.0)),
                DAffine3::from_translation(DVec3::Y),
            ),
        };
        let bytes = archive_bytes(&all).unwrap();
        assert_eq!(bytes.as_slice(), archive_over(&all, 0xA5, 512).unwrap().as_slice());
        assert_eq!(check_and_thaw::<All>(&bytes, 2).unwrap(), all);
        with_archived(&all, |a| assert!(a.cell.get(&IVec2::new(-1, 2)).is_some())).unwrap();
    }

    #[test]
    fn plain_is_what_lies_as_its_components_do() {
        const {
            assert!(Vec2::PLAIN && Vec3::PLAIN && IVec2::PLAIN && Mat3::PLAIN && DMat4::PLAIN);
            assert!(<(Vec3, u32)>::PLAIN);
            assert!(!Vec3A::PLAIN && !Affine3A::PLAIN);
        }
    }

    #[test]
    fn the_fourth_lane_never_reaches_the_archive() {
        #[derive(Snapshot)]
        struct Body {
            at: Vec3A,
            turn: Mat3A,
            id: u8,
        }
        let body = |lane| {
            let vec = |x, y, z| Vec3A::from_vec4(Vec4::new(x, y, z, lane));
            Body {
                at: vec(1.0, 2.0, 3.0),
                turn: Mat3A::from_cols(vec(1., 2., 3.), vec(4., 5., 6.), vec(7., 8., 9.)),
                id: 1,
            }
        };
        let (calm, poisoned) = (body(0.0), body(f32::NAN));
        let lane = |v: &Vec3A| {
            let lanes = std::ptr::from_ref(v).cast::<[u32; 4]>();
            // SAFETY: the poison was written to all sixteen bytes of it.
            unsafe { lanes.read()[3] }
        };
        assert_ne!(lane(&calm.at), lane(&poisoned.at), "the lanes are as the test wants them");
        let bytes = archive_bytes(&vec![calm]).unwrap();
        assert_eq!(archive_bytes(&vec![poisoned]).unwrap().as_slice(), bytes.as_slice());
        assert_eq!(bytes.len(), 52 + 8);
    }
}

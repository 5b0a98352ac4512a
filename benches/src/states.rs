#![forbid(unsafe_code)]
//! The states that are measured: what they are and what is in them. Knows nothing of who saves them.
//!
//! - **small**: one [`Player`](map_free::Player), number [`SMALL`];
//! - **room**: a [`World`](map_free::World) of one room, 1,000 players;
//! - **world**: one of [`PLAYERS`] players in rooms of 1,000;
//! - **cells**: [`plain::CELLS`] plain rows of 64 bytes.
//!
//! The first three come in shapes that differ in one field, a player's cooldowns: a sorted `Vec`
//! ([`map_free`]), or a `HashMap` archived as it comes ([`unsorted`]), sorted ([`sorted`], the
//! default) or as rkyv's hash table ([`hashed`]). [`mirror`] is the shape with the map once more,
//! with the derives that the peers want. Every value is a function of its index and the tick, so
//! all shapes hold the same; two ticks differ in every number and in one key of each map, and agree
//! in every length.

/// Players in the large state: 64 MiB of archive.
pub const PLAYERS: usize = 73_783;

/// Players in one room.
pub const ROOM: usize = 1_000;

/// The player who is the small state: 832 bytes of archive.
pub const SMALL: u64 = 5;

/// Cooldowns of one player.
const COOLDOWNS: usize = 9;

/// Numbers that look drawn and are the same in every run.
struct Dice(u64);

impl Dice {
    fn new(index: u64, tick: u64) -> Dice {
        // Drawn, so that neighbours do not draw the same numbers one after the other.
        let (index, tick) = (Dice(index).draw(), Dice(!tick).draw());
        Dice(index ^ tick)
    }

    /// splitmix64.
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.draw() % n
    }

    /// Between 0 and 1.
    fn part(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn part32(&mut self) -> f32 {
        self.part() as f32
    }
}

/// Rows without pointers, and the states that need no shape.
macro_rules! plain {
    ([$($derive:path),+ $(,)?] $(#[$attribute:meta])*) => {
        use super::Dice;

        /// A point or a direction.
        #[derive(Clone, Debug, PartialEq, $($derive),+)]
        $(#[$attribute])*
        pub struct Vector {
            /// East.
            pub x: f64,
            /// Up.
            pub y: f64,
            /// South.
            pub z: f64,
        }

        impl Vector {
            pub(super) fn draw(dice: &mut Dice) -> Vector {
                Vector { x: dice.part() * 1e3, y: dice.part() * 1e2, z: dice.part() * 1e3 }
            }
        }

        /// Something carried: 32 bytes.
        #[derive(Clone, Debug, PartialEq, $($derive),+)]
        $(#[$attribute])*
        pub struct Item {
            /// Which one.
            pub id: u32,
            /// What it is.
            pub kind: u16,
            /// How many of it.
            pub count: u16,
            /// Who made it.
            pub maker: u64,
            /// How worn it is.
            pub wear: f32,
            /// What it adds.
            pub bonus: f32,
            /// The tick at which it is gone.
            pub expires: u64,
        }

        impl Item {
            pub(super) fn draw(dice: &mut Dice, tick: u64) -> Item {
                Item {
                    id: dice.draw() as u32,
                    kind: dice.below(500) as u16,
                    count: 1 + dice.below(99) as u16,
                    maker: dice.below(100_000),
                    wear: dice.part32(),
                    bonus: dice.part32() * 10.0,
                    expires: tick + dice.below(1_000_000),
                }
            }
        }

        /// When something can be done again: 20 bytes.
        #[derive(Clone, Debug, PartialEq, $($derive),+)]
        $(#[$attribute])*
        pub struct Cooldown {
            /// The tick at which it is over.
            pub until: u32,
            /// The tick at which it began.
            pub since: u32,
            /// Uses left.
            pub charges: u16,
            /// How strong.
            pub level: u16,
            /// How fast.
            pub haste: f32,
            /// Who caused it.
            pub source: u32,
        }

        impl Cooldown {
            pub(super) fn draw(dice: &mut Dice, tick: u64) -> Cooldown {
                Cooldown {
                    until: tick as u32 + dice.below(600) as u32,
                    since: tick as u32,
                    charges: dice.below(4) as u16,
                    level: dice.below(60) as u16,
                    haste: dice.part32(),
                    source: dice.draw() as u32,
                }
            }
        }

        /// A row of a large flat table: 64 bytes.
        #[derive(Clone, Debug, PartialEq, $($derive),+)]
        $(#[$attribute])*
        pub struct Cell {
            /// Which one.
            pub id: u64,
            /// What it is made of.
            pub kind: u32,
            /// What it does.
            pub flags: u32,
            /// How warm it is.
            pub heat: f64,
            /// How heavy it is.
            pub mass: f64,
            /// Where it flows.
            pub flow: [f32; 4],
            /// What it is next to.
            pub beside: [u32; 4],
        }

        /// A large flat table.
        #[derive(Clone, Debug, PartialEq, $($derive),+)]
        $(#[$attribute])*
        pub struct Cells {
            /// When.
            pub tick: u64,
            /// The rows.
            pub cells: Vec<Cell>,
        }

        impl Cells {
            /// `count` rows at a tick.
            pub fn new(count: usize, tick: u64) -> Cells {
                let cell = |id: u64| {
                    let mut dice = Dice::new(id, tick);
                    Cell {
                        id,
                        kind: dice.below(16) as u32,
                        flags: dice.draw() as u32,
                        heat: dice.part() * 300.0,
                        mass: dice.part(),
                        flow: std::array::from_fn(|_| dice.part32()),
                        beside: std::array::from_fn(|_| dice.below(1 << 20) as u32),
                    }
                };
                Cells { tick, cells: (0..count as u64).map(cell).collect() }
            }
        }

        /// A value of 36 archived bytes: the one that mmap-sync's own benchmark writes.
        #[derive(Clone, Debug, PartialEq, $($derive),+)]
        $(#[$attribute])*
        pub struct Hello {
            /// A number.
            pub version: u32,
            /// Three short texts.
            pub messages: Vec<String>,
        }

        impl Hello {
            /// The value.
            pub fn new(version: u32) -> Hello {
                Hello { version, messages: ["Hello", "World", "!"].map(String::from).to_vec() }
            }
        }
    };
}

/// A player, and rooms full of them.
macro_rules! shape {
    ([$($derive:path),+ $(,)?] $rows:ident, $(#[$map:meta])? $cooldowns:ty, $(#[$attribute:meta])*) => {
        use super::{COOLDOWNS, Dice, ROOM, $rows::{Cooldown, Item, Vector}};

        /// One player.
        #[derive(Clone, Debug, PartialEq, $($derive),+)]
        $(#[$attribute])*
        pub struct Player {
            /// Which one.
            pub id: u64,
            /// What others call them.
            pub name: String,
            /// Where they are.
            pub position: Vector,
            /// Where they go.
            pub velocity: Vector,
            /// Where they look.
            pub rotation: [f32; 4],
            /// How well they are.
            pub health: f32,
            /// How far they are.
            pub level: u32,
            /// How far exactly.
            pub experience: u64,
            /// What they own.
            pub gold: u64,
            /// What they are like.
            pub attributes: [f32; 32],
            /// What they can do.
            pub skills: [u16; 32],
            /// Where they have been.
            pub path: [Vector; 4],
            /// What they carry.
            pub inventory: Vec<Item>,
            /// What they must wait for, by skill.
            $(#[$map])?
            pub cooldowns: $cooldowns,
        }

        impl Player {
            /// Player `id` at a tick.
            pub fn new(id: u64, tick: u64) -> Player {
                let mut fixed = Dice::new(id, 0);
                let name: String =
                    (0..5 + fixed.below(17)).map(|_| (b'a' + fixed.below(26) as u8) as char).collect();
                let carried = 4 + fixed.below(10);
                // Ascending, so that a sorted `Vec` of them is one.
                let mut skill = 0;
                let skills = [(); COOLDOWNS].map(|()| {
                    skill += 1 + fixed.below(100) as u32;
                    skill
                });
                let mut dice = Dice::new(id, tick);
                let dice = &mut dice;
                Player {
                    id,
                    name,
                    position: Vector::draw(dice),
                    velocity: Vector::draw(dice),
                    rotation: std::array::from_fn(|_| dice.part32()),
                    health: dice.part32() * 100.0,
                    level: dice.below(80) as u32,
                    experience: dice.below(1 << 40),
                    gold: dice.below(1 << 20),
                    attributes: std::array::from_fn(|_| dice.part32()),
                    skills: std::array::from_fn(|_| dice.below(1_000) as u16),
                    path: std::array::from_fn(|_| Vector::draw(dice)),
                    inventory: (0..carried).map(|_| Item::draw(dice, tick)).collect(),
                    cooldowns: (0..COOLDOWNS)
                        .map(|i| {
                            // One key is another at every other tick.
                            let last = i + 1 == COOLDOWNS;
                            let key = skills[i] + if last { (tick % 2) as u32 } else { 0 };
                            (key, Cooldown::draw(dice, tick)).into()
                        })
                        .collect(),
                }
            }
        }

        /// Players who see each other.
        #[derive(Clone, Debug, PartialEq, $($derive),+)]
        $(#[$attribute])*
        pub struct Room {
            /// Which one.
            pub id: u32,
            /// Who is there.
            pub players: Vec<Player>,
        }

        /// All rooms.
        #[derive(Clone, Debug, PartialEq, $($derive),+)]
        $(#[$attribute])*
        pub struct World {
            /// When.
            pub tick: u64,
            /// The rooms.
            pub rooms: Vec<Room>,
        }

        impl World {
            /// So many players at a tick, 1,000 to a room.
            pub fn new(players: usize, tick: u64) -> World {
                let room = |first: usize| Room {
                    id: (first / ROOM) as u32,
                    players: (first..players.min(first + ROOM))
                        .map(|id| Player::new(id as u64, tick))
                        .collect(),
                };
                World { tick, rooms: (0..players).step_by(ROOM).map(room).collect() }
            }
        }
    };
}

/// Plain rows, and the states that need no shape.
pub mod plain {
    use snapring::Snapshot;

    plain! { [Snapshot] }

    /// Rows in the large flat table: 64 MiB.
    pub const CELLS: usize = 1 << 20;

    /// A cooldown with its skill: the row of a map-free player.
    #[derive(Clone, Debug, PartialEq, Snapshot)]
    pub struct Timer {
        /// The skill.
        pub skill: u32,
        /// Its cooldown.
        pub cooldown: Cooldown,
    }

    impl From<(u32, Cooldown)> for Timer {
        fn from((skill, cooldown): (u32, Cooldown)) -> Timer {
            Timer { skill, cooldown }
        }
    }

    /// What busy readers read all of.
    #[derive(Clone, Debug, PartialEq, Snapshot)]
    pub struct Words {
        /// Numbers.
        pub words: Vec<u64>,
    }
}

/// Cooldowns in a sorted `Vec`.
pub mod map_free {
    use snapring::Snapshot;

    use super::plain::Timer;

    shape! { [Snapshot] plain, Vec<Timer>, }
}

/// Cooldowns in a `HashMap`, archived in the order in which it gives them.
pub mod unsorted {
    use std::collections::HashMap;

    use snapring::Snapshot;

    shape! { [Snapshot] plain, #[snapshot(unsorted)] HashMap<u32, Cooldown>, }
}

/// Cooldowns in a `HashMap`, archived sorted: the default.
pub mod sorted {
    use std::collections::HashMap;

    use snapring::Snapshot;

    shape! { [Snapshot] plain, HashMap<u32, Cooldown>, }
}

/// Cooldowns in a `HashMap`, archived as rkyv's hash table.
pub mod hashed {
    use std::collections::HashMap;

    use snapring::Snapshot;

    shape! { [Snapshot] plain, #[snapshot(hashed)] HashMap<u32, Cooldown>, }
}

/// The rows once more, for peers.
pub mod mirror_rows {
    plain! {
        [
            serde::Serialize, serde::Deserialize, bitcode::Encode, bitcode::Decode,
            wincode::SchemaWrite, wincode::SchemaRead,
            rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
        ]
        #[archive(check_bytes)]
    }
}

/// The shape with the map once more, for peers.
pub mod mirror {
    use std::collections::HashMap;

    pub use super::mirror_rows::{Cells, Hello};

    shape! {
        [
            serde::Serialize, serde::Deserialize, bitcode::Encode, bitcode::Decode,
            wincode::SchemaWrite, wincode::SchemaRead,
            rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
        ]
        mirror_rows, HashMap<u32, Cooldown>,
        #[archive(check_bytes)]
    }
}

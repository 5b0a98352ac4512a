#![forbid(unsafe_code)]
//! The same server, built three times: what it keeps, and what a tick does to it.

use snapring::Snapshot;

/// Ticks a second.
pub(crate) const RATE: u64 = 50;

/// One build's world.
pub(crate) trait Build: Snapshot + Send {
    /// A world of that many units.
    fn new(units: usize) -> Self;

    /// One tick further; its number.
    fn step(&mut self) -> u64;

    /// What is kept of each client, in the order of their connections.
    fn seats(&mut self) -> &mut Vec<Seat>;
}

/// One of very many.
#[derive(Snapshot, Clone, Default)]
pub(crate) struct Unit {
    place: [f32; 3],
    speed: [f32; 3],
    health: f32,
    kind: u32,
}

/// One client, as far as it outlives the server.
#[derive(Snapshot, Clone, Default)]
pub(crate) struct Seat {
    /// Bytes that it has sent.
    pub(crate) heard: u64,
}

fn units(count: usize) -> Vec<Unit> {
    let unit = |i: usize| Unit {
        place: [i as f32, 0.0, 0.0],
        speed: [1.0, 0.5, 0.25],
        health: 100.0,
        kind: (i % 7) as u32,
    };
    (0..count).map(unit).collect()
}

/// Moves every sixteenth unit, others each tick.
fn march(units: &mut [Unit], tick: u64, pace: f32) {
    for unit in units.iter_mut().skip((tick % 16) as usize).step_by(16) {
        for (place, speed) in unit.place.iter_mut().zip(&unit.speed) {
            *place += speed * pace;
        }
    }
}

/// What is served first.
pub(crate) mod first {
    use super::{Build, Seat, Snapshot, Unit, march, units};

    #[derive(Snapshot)]
    pub(crate) struct World {
        tick: u64,
        seats: Vec<Seat>,
        units: Vec<Unit>,
    }

    impl Build for World {
        fn new(count: usize) -> World {
            World { tick: 0, seats: Vec::new(), units: units(count) }
        }

        fn step(&mut self) -> u64 {
            self.tick += 1;
            march(&mut self.units, self.tick, 1.0);
            self.tick
        }

        fn seats(&mut self) -> &mut Vec<Seat> {
            &mut self.seats
        }
    }
}

/// One field more: its snapshots have another layout.
pub(crate) mod second {
    use super::{Build, Seat, Snapshot, Unit, march, units};

    #[derive(Snapshot)]
    pub(crate) struct World {
        tick: u64,
        seats: Vec<Seat>,
        units: Vec<Unit>,
        weather: u8,
    }

    impl Build for World {
        fn new(count: usize) -> World {
            World { tick: 0, seats: Vec::new(), units: units(count), weather: 0 }
        }

        fn step(&mut self) -> u64 {
            self.tick += 1;
            self.weather = self.weather.wrapping_add(1);
            march(&mut self.units, self.tick, 1.0 / f32::from(self.weather.max(1)));
            self.tick
        }

        fn seats(&mut self) -> &mut Vec<Seat> {
            &mut self.seats
        }
    }
}

/// The first layout, other code.
pub(crate) mod again {
    use super::{Build, Seat, Snapshot, Unit, march, units};

    #[derive(Snapshot)]
    pub(crate) struct World {
        tick: u64,
        seats: Vec<Seat>,
        units: Vec<Unit>,
    }

    impl Build for World {
        fn new(count: usize) -> World {
            World { tick: 0, seats: Vec::new(), units: units(count) }
        }

        fn step(&mut self) -> u64 {
            self.tick += 1;
            march(&mut self.units, self.tick, -2.0);
            self.tick
        }

        fn seats(&mut self) -> &mut Vec<Seat> {
            &mut self.seats
        }
    }
}

//! Putting a state back in place, written by hand for just these types: what a rollback is measured
//! against. Allocations are reused, plain rows are copied whole, maps are cleared and filled again.

use std::collections::HashMap;

use snapring::{Archived, ArchivedEntries, ArchivedMap, Snapshot};

use crate::states::plain::{Cell, Cells, Cooldown, Timer, Words};

/// Makes a value what its archive says.
pub trait PutBack: Snapshot {
    /// Does that, in place.
    fn put_back(&mut self, from: &Archived<Self>);
}

/// Copies a plain value.
fn copy<T: Snapshot>(to: &mut T, from: &T::Archived) {
    const { assert!(T::PLAIN && size_of::<T>() == size_of::<T::Archived>()) };
    let from: *const T = std::ptr::from_ref(from).cast();
    // SAFETY: PLAIN promises that the archived bytes are those of a `T` with the same meaning, in
    // the same size and alignment.
    let value = unsafe { from.read() };
    *to = value;
}

/// Copies plain rows, all at once.
fn copy_rows<T: Snapshot>(to: &mut Vec<T>, from: &[T::Archived]) {
    const { assert!(T::PLAIN && size_of::<T>() == size_of::<T::Archived>()) };
    to.clear();
    to.reserve(from.len());
    let rows: *const T = from.as_ptr().cast();
    // SAFETY: PLAIN, as in `copy`; `reserve` has made room for as many, and the two do not overlap.
    unsafe { rows.copy_to_nonoverlapping(to.as_mut_ptr(), from.len()) };
    // SAFETY: exactly these have just been written.
    unsafe { to.set_len(from.len()) };
}

/// Clears a map and fills it again.
fn refill<'a>(
    map: &mut HashMap<u32, Cooldown>,
    entries: impl ExactSizeIterator<Item = (&'a Archived<u32>, &'a Archived<Cooldown>)>,
) {
    map.clear();
    map.reserve(entries.len());
    for (key, value) in entries {
        let value = Cooldown {
            until: value.until.to_native(),
            since: value.since.to_native(),
            charges: value.charges.to_native(),
            level: value.level.to_native(),
            haste: value.haste.to_native(),
            source: value.source.to_native(),
        };
        map.insert(key.to_native(), value);
    }
}

/// The archived forms of a player's cooldowns.
trait Cooldowns<A> {
    fn refill_from(&mut self, from: &A);
}

impl Cooldowns<Archived<Vec<Timer>>> for Vec<Timer> {
    fn refill_from(&mut self, from: &Archived<Vec<Timer>>) {
        copy_rows(self, from);
    }
}

impl Cooldowns<ArchivedEntries<Archived<u32>, Archived<Cooldown>>> for HashMap<u32, Cooldown> {
    fn refill_from(&mut self, from: &ArchivedEntries<Archived<u32>, Archived<Cooldown>>) {
        refill(self, from.iter());
    }
}

impl Cooldowns<ArchivedMap<Archived<u32>, Archived<Cooldown>>> for HashMap<u32, Cooldown> {
    fn refill_from(&mut self, from: &ArchivedMap<Archived<u32>, Archived<Cooldown>>) {
        refill(self, from.iter());
    }
}

macro_rules! put_back {
    ($($shape:ident)*) => {$(
        impl PutBack for crate::states::$shape::Player {
            fn put_back(&mut self, from: &Archived<Self>) {
                self.id = from.id.to_native();
                self.name.clear();
                self.name.push_str(&from.name);
                copy(&mut self.position, &from.position);
                copy(&mut self.velocity, &from.velocity);
                copy(&mut self.rotation, &from.rotation);
                self.health = from.health.to_native();
                self.level = from.level.to_native();
                self.experience = from.experience.to_native();
                self.gold = from.gold.to_native();
                copy(&mut self.attributes, &from.attributes);
                copy(&mut self.skills, &from.skills);
                copy(&mut self.path, &from.path);
                copy_rows(&mut self.inventory, &from.inventory);
                self.cooldowns.refill_from(&from.cooldowns);
            }
        }

        impl PutBack for crate::states::$shape::World {
            fn put_back(&mut self, from: &Archived<Self>) {
                self.tick = from.tick.to_native();
                assert_eq!(self.rooms.len(), from.rooms.len(), "states of equal shape");
                for (room, from) in self.rooms.iter_mut().zip(from.rooms.iter()) {
                    room.id = from.id.to_native();
                    assert_eq!(room.players.len(), from.players.len(), "states of equal shape");
                    for (player, from) in room.players.iter_mut().zip(from.players.iter()) {
                        player.put_back(from);
                    }
                }
            }
        }
    )*};
}

put_back! { map_free unsorted sorted }

impl PutBack for Cells {
    fn put_back(&mut self, from: &Archived<Self>) {
        self.tick = from.tick.to_native();
        copy_rows::<Cell>(&mut self.cells, &from.cells);
    }
}

impl PutBack for Words {
    fn put_back(&mut self, from: &Archived<Self>) {
        copy_rows(&mut self.words, &from.words);
    }
}

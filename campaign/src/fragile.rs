#![forbid(unsafe_code)]
//! A state whose own code panics when it is told to: at the n-th call of a kind.

use std::{
    cell::Cell,
    collections::HashMap,
    hash::{Hash, Hasher},
};

use rkyv::{
    Place,
    rancor::BoxedError,
    rend::u64_le,
    with::{ArchiveWith, DeserializeWith, SerializeWith},
};
use snapring::{Session, Snapshot, Thaw};

/// What the state's own code is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Drop,
    Hash,
    Eq,
    Default,
    Serialize,
    Resolve,
    Deserialize,
}

impl Call {
    pub(crate) const ALL: [Call; 7] = [
        Call::Drop,
        Call::Hash,
        Call::Eq,
        Call::Default,
        Call::Serialize,
        Call::Resolve,
        Call::Deserialize,
    ];
}

thread_local! {
    /// The call that panics, after so many that do not.
    static FUSE: Cell<Option<(Call, u64)>> = const { Cell::new(None) };
}

/// The call after `after` others of its kind panics, once.
pub(crate) fn panic_after(call: Call, after: u64) {
    FUSE.set(Some((call, after)));
}

/// Nothing panics any more. `true` if something still was to.
pub(crate) fn panic_no_more() -> bool {
    FUSE.take().is_some()
}

fn called(call: Call) {
    let Some((which, left)) = FUSE.get() else { return };
    if which != call || std::thread::panicking() {
        return;
    }
    if left > 0 {
        FUSE.set(Some((which, left - 1)));
        return;
    }
    FUSE.set(None);
    panic!("{call:?} was told to");
}

/// A live thing: no part of a snapshot.
#[derive(Debug)]
pub(crate) struct Live;

impl Default for Live {
    fn default() -> Live {
        called(Call::Default);
        Live
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        called(Call::Drop);
    }
}

#[derive(Snapshot, Debug)]
struct Key {
    name: String,
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        called(Call::Eq);
        self.name == other.name
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        called(Call::Hash);
        self.name.hash(hasher);
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        called(Call::Drop);
    }
}

#[derive(Snapshot, Debug)]
struct Item {
    #[snapshot(id)]
    id: u64,
    text: String,
    #[snapshot(skip)]
    live: Live,
}

/// Somebody else's type, and how it is archived.
#[derive(Debug, PartialEq)]
struct Foreign(u64);
struct Touchy;

impl ArchiveWith<Foreign> for Touchy {
    type Archived = u64_le;
    type Resolver = ();

    fn resolve_with(foreign: &Foreign, (): (), out: Place<u64_le>) {
        called(Call::Resolve);
        out.write(foreign.0.into());
    }
}

impl SerializeWith<Foreign, Session> for Touchy {
    fn serialize_with(_: &Foreign, _: &mut Session) -> Result<(), BoxedError> {
        called(Call::Serialize);
        Ok(())
    }
}

impl DeserializeWith<u64_le, Foreign, Thaw> for Touchy {
    fn deserialize_with(archived: &u64_le, _: &mut Thaw) -> Result<Foreign, BoxedError> {
        called(Call::Deserialize);
        Ok(Foreign(archived.to_native()))
    }
}

#[derive(Snapshot, Debug)]
struct Wrapped {
    #[snapshot(with = Touchy)]
    foreign: Foreign,
}

#[derive(Snapshot, Debug)]
pub(crate) struct Fragile {
    pub(crate) tick: u64,
    items: Vec<Item>,
    map: HashMap<Key, Item>,
    wrapped: Vec<Wrapped>,
}

/// The state of this number; those of other numbers have partly other elements, in another order.
pub(crate) fn fragile(tick: u64) -> Fragile {
    let ids = || (0..4).map(move |i| (i * 3 + tick) % 7);
    let item = |id: u64| Item { id, text: format!("{id} at {tick}"), live: Live };
    let key = |id: u64| Key { name: format!("key {id}") };
    Fragile {
        tick,
        items: ids().map(item).collect(),
        map: ids().map(|id| (key(id), item(id))).collect(),
        wrapped: (0..3).map(|i| Wrapped { foreign: Foreign(tick + i) }).collect(),
    }
}

impl Fragile {
    /// Whether it is the whole state of its number; live things aside.
    pub(crate) fn is_whole(&self) -> bool {
        let like = fragile(self.tick);
        let items = |a: &Item, b: &Item| (a.id, &a.text) == (b.id, &b.text);
        self.items.len() == like.items.len()
            && self.items.iter().zip(&like.items).all(|(a, b)| items(a, b))
            && self.map.len() == like.map.len()
            && like.map.iter().all(|(k, b)| self.map.get(k).is_some_and(|a| items(a, b)))
            && self.wrapped.iter().map(|w| &w.foreign).eq(like.wrapped.iter().map(|w| &w.foreign))
    }
}

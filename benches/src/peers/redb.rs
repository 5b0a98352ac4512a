#![forbid(unsafe_code)]
//! redb: one key, its value replaced. With `Durability::None`, or durable.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase as _, TableDefinition};

use crate::place::{Place, Scratch};

const TABLE: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("state");

/// A database with one table.
#[derive(Debug)]
pub struct Redb {
    data: Database,
    durability: Durability,
    /// A commit also writes what opening after a kill needs.
    ready: bool,
    _scratch: Option<Scratch>,
}

impl Redb {
    /// A new one that syncs nothing. Panics where it cannot be made.
    pub fn new(place: Place) -> Redb {
        Redb::with(place, Durability::None)
    }

    /// A new one whose commits are on the disk when they return.
    pub fn durable(place: Place) -> Redb {
        Redb::with(place, Durability::Immediate)
    }

    fn with(place: Place, durability: Durability) -> Redb {
        let scratch = Scratch::new(place);
        let data = Database::create(scratch.at("redb")).expect("a database");
        Redb { data, durability, ready: false, _scratch: Some(scratch) }
    }

    /// The one in this file, made where there is none. Its commits are durable, and leave it so that
    /// it opens fast after a kill.
    pub fn open(file: &Path) -> Redb {
        let data = Database::create(file).expect("a database");
        Redb { data, durability: Durability::Immediate, ready: true, _scratch: None }
    }

    /// Replaces the value.
    pub fn put(&self, bytes: &[u8]) {
        let mut txn = self.data.begin_write().expect("a transaction");
        txn.set_durability(self.durability).expect("a durability");
        txn.set_quick_repair(self.ready);
        txn.open_table(TABLE).expect("a table").insert(0, bytes).expect("an insert");
        txn.commit().expect("a commit");
    }

    /// Reads the value in place.
    pub fn get<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        let txn = self.data.begin_read().expect("a transaction");
        let table = txn.open_table(TABLE).expect("a table");
        let bytes = table.get(0).expect("a get").expect("what was put");
        f(bytes.value())
    }
}

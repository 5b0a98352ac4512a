#![forbid(unsafe_code)]
//! redb, with `Durability::None`: one key, its value replaced.

use redb::{Database, Durability, ReadableDatabase as _, TableDefinition};

use crate::place::{Place, Scratch};

const TABLE: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("state");

/// A database with one table.
#[derive(Debug)]
pub struct Redb {
    data: Database,
    _scratch: Scratch,
}

impl Redb {
    /// A new one. Panics where it cannot be made.
    pub fn new(place: Place) -> Redb {
        let scratch = Scratch::new(place);
        let data = Database::create(scratch.at("redb")).expect("a database");
        Redb { data, _scratch: scratch }
    }

    /// Replaces the value.
    pub fn put(&self, bytes: &[u8]) {
        let mut txn = self.data.begin_write().expect("a transaction");
        txn.set_durability(Durability::None).expect("a durability");
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

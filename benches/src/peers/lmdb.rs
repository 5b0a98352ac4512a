//! LMDB through heed: one key, its value replaced. With `NOSYNC` and `WRITEMAP`, or durable, then in
//! the two ways in which LMDB writes.

use std::path::Path;

use heed::{Database, Env, EnvFlags, EnvOpenOptions, WithTls, types::Bytes};

use crate::place::{Place, Scratch};

/// Address space and sparse file: many times what is in it.
const MAP: usize = 4 << 30;

const KEY: &[u8] = b"state";

/// How LMDB writes what it commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// Into a writable mapping, and not to the disk.
    Unsynced,
    /// By write calls and one sync: as LMDB does unless told otherwise.
    Durable,
    /// Into a writable mapping, and one sync of it.
    DurableMapped,
}

/// An environment with one database.
#[derive(Debug)]
pub struct Lmdb {
    env: Env<WithTls>,
    data: Database<Bytes, Bytes>,
    _scratch: Option<Scratch>,
}

impl Lmdb {
    /// A new one that syncs nothing. Panics where it cannot be made.
    pub fn new(place: Place) -> Lmdb {
        Lmdb::with(place, Writes::Unsynced)
    }

    /// A new one. Panics where it cannot be made.
    pub fn with(place: Place, writes: Writes) -> Lmdb {
        let scratch = Scratch::new(place);
        let lmdb = Lmdb::open(&scratch.at("lmdb"), writes);
        Lmdb { _scratch: Some(scratch), ..lmdb }
    }

    /// The one in this directory, which nobody else writes; made where there is none.
    pub fn open(dir: &Path, writes: Writes) -> Lmdb {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP);
        let flags = match writes {
            Writes::Unsynced => EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP,
            Writes::Durable => EnvFlags::empty(),
            Writes::DurableMapped => EnvFlags::WRITE_MAP,
        };
        // SAFETY: what the one flag risks is a crash of the system while the benchmark runs.
        unsafe { options.flags(flags) };
        std::fs::create_dir_all(dir).expect("a directory");
        // SAFETY: nobody else knows the directory.
        let env = unsafe { options.open(dir) }.expect("an environment");
        let mut txn = env.write_txn().expect("a transaction");
        let data = env.create_database(&mut txn, None).expect("a database");
        txn.commit().expect("a commit");
        Lmdb { env, data, _scratch: None }
    }

    /// Replaces the value.
    pub fn put(&self, bytes: &[u8]) {
        let mut txn = self.env.write_txn().expect("a transaction");
        self.data.put(&mut txn, KEY, bytes).expect("a put");
        txn.commit().expect("a commit");
    }

    /// Reads the value in place.
    pub fn get<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        let txn = self.env.read_txn().expect("a transaction");
        let bytes = self.data.get(&txn, KEY).expect("a get").expect("what was put");
        f(bytes)
    }
}

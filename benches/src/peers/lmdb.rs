//! LMDB through heed, with `NOSYNC` and `WRITEMAP`: one key, its value replaced.

use heed::{Database, Env, EnvFlags, EnvOpenOptions, WithTls, types::Bytes};

use crate::place::{Place, Scratch};

/// Address space and sparse file: many times what is in it.
const MAP: usize = 4 << 30;

const KEY: &[u8] = b"state";

/// An environment with one database.
#[derive(Debug)]
pub struct Lmdb {
    env: Env<WithTls>,
    data: Database<Bytes, Bytes>,
    _scratch: Scratch,
}

impl Lmdb {
    /// A new one. Panics where it cannot be made.
    pub fn new(place: Place) -> Lmdb {
        let scratch = Scratch::new(place);
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP);
        // SAFETY: what these flags risk is a crash of the system while the benchmark runs.
        unsafe { options.flags(EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP) };
        let dir = scratch.at("lmdb");
        std::fs::create_dir(&dir).expect("a directory");
        // SAFETY: nobody else knows the directory.
        let env = unsafe { options.open(&dir) }.expect("an environment");
        let mut txn = env.write_txn().expect("a transaction");
        let data = env.create_database(&mut txn, None).expect("a database");
        txn.commit().expect("a commit");
        Lmdb { env, data, _scratch: scratch }
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

#![forbid(unsafe_code)]
//! The script on a disk whose n-th call fails, and what is then told and found.

use std::sync::{Arc, Mutex};

use snapring::campaign::{Call, Disk, Fault, Random};

use super::{
    image::Image,
    ledger::After,
    life::{Watcher, lock},
    originator::{Originator, Plain},
    paged::Paged,
    script::Script,
};

/// Calls that can fail.
pub(crate) const CALLS: [Call; 9] = [
    Call::Sync,
    Call::SyncHeader,
    Call::SyncAll,
    Call::SyncNames,
    Call::SyncFloor,
    Call::Reserve,
    Call::Write,
    Call::Create,
    Call::Rename,
];

/// What came of one script.
#[derive(Debug)]
pub(crate) struct Failed {
    /// The fault came up.
    pub(crate) hit: bool,
    /// Power cuts looked at.
    pub(crate) cuts: u64,
    pub(crate) outcome: Result<(), String>,
}

/// Plays the script with this fault, and cuts the power at every few steps.
pub(crate) fn play(seed: u64, fault: Fault, paged: bool) -> Failed {
    if paged { play_of::<Paged>(seed, fault) } else { play_of::<Plain>(seed, fault) }
}

fn play_of<T: Originator>(seed: u64, fault: Fault) -> Failed {
    let disk = Disk::new(seed);
    disk.set_faults(vec![fault]);
    let cuts = Arc::new(Mutex::new(0));
    let (counting, options) = (cuts.clone(), super::script::setting().options);
    let watcher: Watcher = Box::new(move |disk, ledger, random| {
        if !random.one_in(6) {
            return Ok(());
        }
        *lock(&counting) += 1;
        let cut = disk.cut(random);
        let mut ledger = ledger.clone();
        ledger.after = After::Cut;
        let mut image = Image::<T>::new(&options, Random::new(random.next_u64()));
        image.verify(&cut, &ledger, 1)
    });
    let script = Script { seed, large: 900, failing: true, state: T::of(0) };
    let outcome = script.play(disk.clone(), Some(watcher)).map(drop);
    let cuts = *lock(&cuts);
    Failed { hit: disk.failed() > 0, cuts, outcome }
}

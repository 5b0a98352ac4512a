//! A saving thread that takes a fault for every page that the last sync has write-protected, though
//! there was time to see to it.

mod common;

use std::{thread, time::Duration};

use common::{TempDir, open_with};
use snapring::{Caretaker, Durability, Options, Snapshot};

#[derive(Snapshot)]
struct Blob {
    bytes: Vec<u8>,
}

/// Faults of this thread that found their page in memory.
fn faults() -> i64 {
    // SAFETY: a struct of integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a whole struct to write to.
    let done = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
    assert_eq!(done, 0);
    usage.ru_minflt
}

/// Faults of each of many saves of 512 KiB, 15 ms apart, while the background syncs.
fn faults_per_save(caretaker: &Caretaker<Blob>) -> Vec<i64> {
    let mut state = Blob { bytes: vec![7; 512 << 10] };
    let mut each = Vec::new();
    for n in 0..80_u8 {
        state.bytes.fill(n);
        let before = faults();
        caretaker.save(&state).expect("saved");
        each.push(faults() - before);
        thread::sleep(Duration::from_millis(15));
    }
    // From when the ring has turned twice.
    let mut each = each.split_off(40);
    each.sort_unstable();
    each
}

#[test]
fn pages_that_a_sync_has_protected_are_made_ready_before_the_next_save() {
    let dir = TempDir::on_disk("rearm");
    let within = Duration::from_millis(60);
    let options = Options::new().durability(Durability::Background { within });
    let caretaker = open_with::<Blob>(&options, &dir).expect("opened");
    let each = faults_per_save(&caretaker);
    assert!(caretaker.durable().is_some(), "the background syncs");
    // 129 pages each. Some saves come before their turn, where the disk is slow.
    let mean = each.iter().sum::<i64>() / each.len() as i64;
    println!("faults of a save of 129 pages: mean {mean}, median {}", each[each.len() / 2]);
    assert!(mean < 40, "{each:?}");
}

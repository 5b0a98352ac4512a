#![no_main]
//! Operations in any order on a simulated disk, beside a model.

use std::sync::atomic::Ordering;

use libfuzzer_sys::fuzz_target;
use snapring_fuzz::{
    input::Input,
    operations::{DONE, run},
};

/// Tells at the end how many operations there were: an execution has many.
struct Told;

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("stat::operations: {}", DONE.load(Ordering::Relaxed));
    }
}

thread_local! {
    static TOLD: Told = const { Told };
}

fuzz_target!(|bytes: &[u8]| {
    TOLD.with(|_| ());
    run(&mut Input::new(bytes));
});

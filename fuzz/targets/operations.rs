#![no_main]
//! Operations in any order on a simulated disk, beside a model. With `SNAPRING_MUTANT=no-steady-rule` (or
//! another of `Mutant`'s names) that rule is broken, to see that it is noticed.

use std::sync::{Once, atomic::Ordering};

use libfuzzer_sys::fuzz_target;
use snapring::campaign::Mutant;
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

static BREAK: Once = Once::new();

fuzz_target!(|bytes: &[u8]| {
    TOLD.with(|_| ());
    BREAK.call_once(|| {
        if let Ok(name) = std::env::var("SNAPRING_MUTANT") {
            Mutant::from_name(&name).expect("a rule's name").break_rule();
        }
    });
    run(&mut Input::new(bytes));
});

#![no_main]
//! Edits by somebody who knows the format, with every checksum repaired: what stands behind the
//! checksums is on its own.

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use snapring_fuzz::{
    edits::forge,
    image::Files,
    input::Input,
    states::{Empties, Maps, Odd, Pages, Plain, Sample, Shared, Tree},
};

thread_local! {
    static FILES: RefCell<[Files; 7]> = RefCell::new([
        Files::of::<Plain>(),
        Files::of::<Tree>(),
        Files::of::<Maps>(),
        Files::of::<Shared>(),
        Files::of::<Odd>(),
        Files::of::<Empties>(),
        Files::of::<Pages>(),
    ]);
}

fn run<T: Sample>(files: &mut Files, input: &mut Input<'_>) {
    forge(files, input);
    files.recover::<T>();
    files.heal();
}

fuzz_target!(|bytes: &[u8]| {
    FILES.with_borrow_mut(|files| {
        let mut input = Input::new(bytes);
        let which = input.below(7);
        let files = &mut files[which];
        match which {
            0 => run::<Plain>(files, &mut input),
            1 => run::<Tree>(files, &mut input),
            2 => run::<Maps>(files, &mut input),
            3 => run::<Shared>(files, &mut input),
            4 => run::<Odd>(files, &mut input),
            5 => run::<Empties>(files, &mut input),
            _ => run::<Pages>(files, &mut input),
        }
    });
});

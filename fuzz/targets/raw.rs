#![no_main]
//! Any bytes anywhere in the two files, checksums as they come.

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use snapring_fuzz::{
    image::{Files, LEN, SLOTS},
    input::Input,
    states::{Pages, Plain},
};

thread_local! {
    static FILES: RefCell<[Files; 2]> = RefCell::new([Files::of::<Plain>(), Files::of::<Pages>()]);
}

/// Pages that mean something: the header page, the slot pages, the data area's first ones.
const PAGES: usize = 1 + SLOTS + 8;

fuzz_target!(|bytes: &[u8]| {
    FILES.with_borrow_mut(|files| {
        let mut input = Input::new(bytes);
        let paged = input.byte() & 1 == 1;
        let files = &mut files[usize::from(paged)];
        for _ in 0..32 {
            if input.is_empty() {
                break;
            }
            let place = input.byte();
            let page = usize::from(place >> 1) % PAGES;
            // Sectors and the fields in them, rather than the room between.
            let [sector, field, len] = input.array();
            let at = page * 4096 + usize::from(sector % 8) * 512 + usize::from(field);
            let len = if sector < 0xf8 { usize::from(len % 32) } else { usize::from(len) * 8 };
            files.put(usize::from(place & 1), at.min(LEN - 1), input.bytes(len));
        }
        if paged {
            files.recover::<Pages>();
        } else {
            files.recover::<Plain>();
        }
        files.heal();
    });
});

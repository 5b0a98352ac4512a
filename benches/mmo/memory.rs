#![forbid(unsafe_code)]
//! Memory that captures take beside the state, in a process that has nothing else.

use std::{ffi::OsStr, fs, thread, time::Duration};

use snapring_bench::{
    other::{Other, tell},
    place::Place,
    results::{Mmo, Part},
    ring::{Ring, quiet},
    run::Asked,
    states::{map_free::Player, plain::Cell},
};

use crate::world::{Item, Paged, Shares};

const MEMORY: u8 = 22;

/// The first word of a process that captures and looks at its memory.
const CAPTURES: &str = "captures";

/// Captures that are looked at.
const COUNT: usize = 200;

/// Bytes of memory of our own, files aside.
fn anonymous() -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("this process");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a count");
    let kib: f64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib * 1024.0
}

fn captures<T: Item>(items: usize) {
    let before = anonymous();
    let mut world = Paged::<T>::new(items);
    let state = anonymous() - before;
    let ring = Ring::with(Place::Tmpfs, &quiet().ring(4));
    let mut shares = Shares::of(world.items.pages());
    let base = anonymous();
    let mut most = 0.0_f64;
    for _ in 0..COUNT {
        let pending = ring.capture(&world).expect("a capture");
        world.touch(shares.next(0.01));
        most = most.max(anonymous() - base);
        thread::sleep(Duration::from_millis(2));
        most = most.max(anonymous() - base);
        pending.wait().expect("a snapshot");
    }
    tell(&format!("{most} {state}"));
}

/// Such a process, by its words.
pub(crate) fn be(words: &[String]) {
    let [first, kind, items] = words else { panic!("what to be: {words:?}") };
    assert_eq!(first, CAPTURES, "a part there is");
    let items = items.parse().expect("a number");
    match kind.as_str() {
        Player::NAME => captures::<Player>(items),
        _ => captures::<Cell>(items),
    }
}

fn extra_of<T: Item>(asked: &Asked, mmo: &mut Mmo) {
    let items = if asked.test { T::IN_64_MIB / 64 } else { T::IN_64_MIB };
    let words = [CAPTURES, T::NAME, &items.to_string()].map(|word| OsStr::new(word).to_owned());
    let mut other = Other::start(&words.each_ref().map(|word| word.as_os_str()));
    let told = other.hear();
    let mut numbers = told.split(' ').map(|number| number.parse::<f64>().expect("a number"));
    let (Some(most), Some(state)) = (numbers.next(), numbers.next()) else {
        panic!("two numbers: {told}")
    };
    println!(
        "\nmemory beside {}: {:.1} MiB of {:.1} MiB",
        T::NAME,
        most / 1048576.0,
        state / 1048576.0
    );
    mmo.part(Part::new(MEMORY, format!("{}, the most seen", T::NAME), most / state, 0.05));
}

/// Both kinds of state.
pub(crate) fn extra(asked: &Asked, mmo: &mut Mmo) {
    extra_of::<Player>(asked, mmo);
    extra_of::<Cell>(asked, mmo);
}

//! User's names that are also ours, or the standard library's.

#![no_implicit_prelude]
#![allow(dead_code, non_upper_case_globals, non_camel_case_types)]

use ::snapring::Snapshot;

mod own {
    use ::snapring::Snapshot;

    #[derive(Snapshot)]
    pub struct Result(pub u8);
    #[derive(Snapshot)]
    pub struct Option {
        pub some: u8,
    }
    #[derive(Snapshot)]
    pub enum Session {
        Ok,
        Err,
        None,
        Some(Result),
    }
    #[derive(Snapshot)]
    pub struct Resolver {
        pub __phantom: u8,
    }
    pub struct u8_;
}

/// Variants with the names of the trait's items.
#[derive(Snapshot)]
enum Items<const N: usize> {
    Archived,
    Resolver([u8; N]),
}

/// Dropped with a word.
#[derive(Snapshot)]
enum Heard {
    PLAIN,
    FROZEN,
}

impl ::core::ops::Drop for Heard {
    fn drop(&mut self) {}
}

#[derive(Snapshot)]
enum Bare<const N: usize> {
    A,
    B(),
    C {},
}

use own::{Option, Resolver, Result, Session};

// A binding of these names would be a comparison.
const s: u8 = 1;
const t: u8 = 2;
const a: u8 = 3;
const out: u8 = 4;
static this: u8 = 5;

#[derive(Snapshot)]
struct State<S, T, U, A, B> {
    archived: Result,
    resolver: Option,
    session: Session,
    thaw: Resolver,
    a: S,
    b: T,
    c: U,
    d: A,
    e: B,
}

/// Methods of the same names, on everything.
trait Shadow {
    fn archive(&self, _: ()) {}
    fn resolve(&self) {}
    fn thaw() {}
    fn restore(&mut self, _: u8, _: u8) {}
    fn canonical(&self) {}
    fn schema() {}
    fn cast(&self) {}
    fn write(&self) {}
}

impl<T: ?::core::marker::Sized> Shadow for T {}

impl State<u8, u8, u8, u8, u8> {
    fn archive(&self) {}
    fn resolve() {}
    fn thaw(&self) {}
    fn restore() {}
    fn schema() {}
    const PLAIN: u8 = 1;
    const FROZEN: u8 = 1;
}

mod outer {
    pub mod re {
        pub use ::snapring::*;
    }
    mod inner {
        #[derive(super::re::Snapshot)]
        #[snapshot(crate = super::re)]
        struct Elsewhere<T> {
            a: T,
            #[snapshot(unsorted)]
            b: ::std::collections::HashSet<u8>,
        }
    }
}

macro_rules! define {
    ($name:ident, $field:ident, $ty:ty, $len:expr) => {
        #[derive(::snapring::Snapshot)]
        struct $name {
            $field: $ty,
            inside: ::std::vec::Vec<$ty>,
            many: [$ty; $len],
        }
    };
}
define!(ByMacro, field, u16, 2 + 1);

fn local() {
    #[derive(Snapshot)]
    struct Local {
        next: ::std::option::Option<::std::boxed::Box<Local>>,
    }
    struct Hidden;
    #[derive(Snapshot)]
    struct Skipping {
        #[snapshot(skip = Hidden)]
        hidden: Hidden,
        #[snapshot(skip = if let [x, 2] = [1_u8, 2] { x } else { 0 })]
        first: u8,
    }
}

fn main() {
    let state = State {
        archived: Result(1),
        resolver: Option { some: 2 },
        session: Session::Some(Result(3)),
        thaw: Resolver { __phantom: 4 },
        a: 1_u8,
        b: 2_u16,
        c: 3_u32,
        d: 4_u64,
        e: 'e',
    };
    let back = match ::snapring::__private::probe::round_trip(&state) {
        ::core::result::Result::Ok(back) => back,
        ::core::result::Result::Err(error) => ::std::panic!("{error}"),
    };
    ::std::assert!(<Bare<3> as Snapshot>::PLAIN && !<Heard as Snapshot>::PLAIN);
    ::std::assert!(back.e == 'e' && back.archived.0 == 1);
}

//! A derived type that comes back as another value, leaves a byte of its archive unwritten, or lets
//! a forged one pass.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Debug,
    marker::PhantomData,
    num::NonZeroU16,
};

use snapring::{
    __private::probe::{
        archive_bytes, archive_over, check_and_thaw, layout, replace_from, restore_from,
        round_trip, with_archived,
    },
    Fingerprint, Snapshot,
};

/// There and back, and the promises of the archive on the way.
fn same<T: Snapshot + PartialEq + Debug>(value: &T) {
    assert_eq!(round_trip(value).as_ref(), Ok(value));
    let over_ones = archive_over(value, 0xaa, 64).expect("archives");
    let over_zeros = archive_over(value, 0x55, 64).expect("archives");
    assert_eq!(over_ones.as_slice(), over_zeros.as_slice(), "bytes left unwritten");
    let back: T = round_trip(value).expect("round trip");
    assert_eq!(archive_bytes(&back).as_deref(), Ok(&over_ones[..]), "archives differ");
    assert!(value.canonical(&back).is_eq());
    let there = with_archived(value, |a| value.cmp_archived(a)).expect("archives");
    assert!(there.is_eq());
}

// Shapes.

#[derive(Snapshot, Debug, PartialEq, Clone)]
struct Player {
    name: String,
    hp: u32,
    r#type: u8,
    pos: [f32; 3],
    bag: Vec<Item>,
    best: Option<Box<Item>>,
}

#[derive(Snapshot, Debug, PartialEq, Clone)]
struct Item(u8, u64, bool);

#[derive(Snapshot, Debug, PartialEq)]
struct Unit;

#[derive(Snapshot, Debug, PartialEq)]
struct NoFields {}

#[derive(Snapshot, Debug, PartialEq)]
struct NoPlaces();

#[derive(Snapshot, Debug, PartialEq)]
enum Never {}

#[derive(Snapshot, Debug, PartialEq)]
enum Only {
    One,
}

#[derive(Snapshot, Debug, PartialEq)]
enum Wraps {
    Text(String),
}

#[derive(Snapshot, Debug, PartialEq, Clone)]
#[repr(i64)]
enum Spell {
    Fire = -5,
    Ice { cold: u64, r#fn: u8 } = 1 << 40,
    Heal(u16, String),
    Nothing {},
}

fn player() -> Player {
    Player {
        name: "Ada".into(),
        hp: 7,
        r#type: 3,
        pos: [1.0, -0.0, f32::INFINITY],
        bag: vec![Item(1, 2, true), Item(3, 4, false)],
        best: Some(Box::new(Item(9, 9, true))),
    }
}

#[test]
fn structs_of_every_shape_come_back() {
    same(&player());
    same(&Item(1, u64::MAX, true));
    same(&Unit);
    same(&NoFields {});
    same(&NoPlaces());
    same(&(vec![Unit, Unit], NoFields {}));
    with_archived(&player(), |a: &ArchivedPlayer| {
        assert_eq!(a.hp.to_native(), 7);
        assert_eq!(a.r#type, 3);
        assert_eq!(a.bag[1].1.to_native(), 4);
    })
    .expect("archives");
}

#[test]
fn enums_of_every_shape_come_back() {
    let all = [
        Spell::Fire,
        Spell::Ice { cold: u64::MAX, r#fn: 1 },
        Spell::Heal(2, "well".into()),
        Spell::Nothing {},
    ];
    for spell in &all {
        same(spell);
    }
    same(&all.to_vec());
    same(&Only::One);
    same(&Wraps::Text("t".into()));
    same(&None::<Box<Never>>);
    with_archived(&all[1], |a| match a {
        ArchivedSpell::Ice { cold, r#fn: 1 } => assert_eq!(cold.to_native(), u64::MAX),
        _ => panic!("another variant"),
    })
    .expect("archives");
}

// Generics.

#[derive(Snapshot, Debug, PartialEq, Clone)]
struct Grid<T: Clone, U = u8, const N: usize = 3>
where
    U: Copy,
{
    cells: Vec<T>,
    edge: U,
    rows: [u16; N],
    #[snapshot(skip)]
    cache: Vec<T>,
}

#[derive(Snapshot, Debug, PartialEq)]
struct Tagged<T: ?Sized, U>(u8, PhantomData<T>, #[snapshot(skip)] Option<U>);

#[derive(Snapshot, Debug, PartialEq)]
enum Maybe<T, U, const N: usize> {
    Ghost(PhantomData<T>),
    Real {
        #[snapshot(skip)]
        cache: Option<U>,
        many: [u8; N],
    },
}

/// No `Snapshot`, no `Default`.
#[derive(Debug, PartialEq)]
struct Foreign;

trait Has: 'static {
    type Item;
}

impl Has for Foreign {
    type Item = u32;
}

#[derive(Snapshot)]
struct Projected<T: Has>(T::Item, Vec<<T as Has>::Item>)
where
    <T as Has>::Item: Snapshot;

#[derive(Snapshot, Debug, PartialEq)]
enum Tree<T> {
    Leaf(T),
    Fork(Box<Tree<T>>, Box<Self>),
}

#[derive(Snapshot, Debug, PartialEq, Clone)]
struct Node {
    next: Option<Box<Node>>,
    kids: Vec<Self>,
    names: BTreeMap<String, Node>,
}

#[derive(Snapshot, Debug, PartialEq)]
struct Ping {
    pong: Option<Box<Pong>>,
}

#[derive(Snapshot, Debug, PartialEq)]
struct Pong {
    pings: Vec<Ping>,
}

fn leaf() -> Node {
    Node { next: None, kids: vec![], names: BTreeMap::new() }
}

#[test]
fn generics_come_back() {
    let grid =
        Grid::<String, char, 2> { cells: vec!["a".into()], edge: 'x', rows: [1, 2], cache: vec![] };
    same(&grid);
    same(&Grid::<u8> { cells: vec![1, 2], edge: 3, rows: [1, 2, 3], cache: vec![] });
    same(&Tagged::<Foreign, Foreign>(3, PhantomData, None));
    same(&Tagged::<str, Foreign>(3, PhantomData, None));
    same(&Maybe::<Foreign, Foreign, 4>::Ghost(PhantomData));
    same(&Maybe::<Foreign, Foreign, 4>::Real { cache: None, many: [1, 2, 3, 4] });
    let projected = round_trip(&Projected::<Foreign>(5, vec![6])).expect("round trip");
    assert_eq!((projected.0, projected.1), (5, vec![6]));
}

#[test]
fn recursive_types_come_back() {
    same(&Tree::Fork(
        Box::new(Tree::Leaf("a".to_owned())),
        Box::new(Tree::Fork(Box::new(Tree::Leaf("b".into())), Box::new(Tree::Leaf("c".into())))),
    ));
    let kid = Node { kids: vec![leaf(), leaf()], ..leaf() };
    same(&Node {
        next: Some(Box::new(kid.clone())),
        kids: vec![kid.clone()],
        names: [("k".to_owned(), kid)].into(),
    });
    same(&Ping { pong: Some(Box::new(Pong { pings: vec![Ping { pong: None }] })) });
    const { assert!(Node::FROZEN, "a type that holds itself can be frozen") };
}

#[test]
fn a_chain_deeper_than_stated_is_refused() {
    let mut chain = leaf();
    for _ in 0..40 {
        chain = Node { next: Some(Box::new(chain)), ..leaf() };
    }
    // The last one's own lists are one pointer more.
    let error = archive_over(&chain, 0, 40).expect_err("too deep to write");
    assert!(error.contains("40"), "{error}");
    let bytes = archive_over(&chain, 0, 41).expect("archives");
    assert!(check_and_thaw::<Node>(&bytes, 41).is_ok());
    let error = check_and_thaw::<Node>(&bytes, 40).map(drop).expect_err("too deep to believe");
    assert_eq!(error.matches("in field next of Node").count(), 15, "{error}");
}

// Plain rows.

#[derive(Snapshot, Clone, Copy, Debug, PartialEq)]
struct Row {
    alive: bool,
    team: [u8; 3],
    hp: f32,
    id: u64,
    mark: char,
    pos: [f32; 3],
}

#[derive(Snapshot, Clone, Copy, Debug, PartialEq)]
struct Mixed {
    a: u8,
    b: u32,
    c: bool,
    d: u16,
}

#[derive(Snapshot, Clone, Copy, Debug, PartialEq)]
struct Padded {
    a: u8,
    b: u32,
}

#[derive(Snapshot, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct AsWritten {
    a: u8,
    b: u8,
    c: u16,
}

#[derive(Snapshot, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct GapInside {
    a: u8,
    c: u16,
    b: u8,
}

#[derive(Snapshot, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Twice<T>(T, T);

#[derive(Snapshot, Clone, Copy, Debug, PartialEq)]
enum Kind {
    Orc,
    Elf,
    Ent,
}

#[derive(Snapshot, Clone, Copy, Debug, PartialEq)]
enum Shifted {
    A = 1,
    B = 2,
}

#[derive(Snapshot, Clone, Copy, Debug, PartialEq)]
#[repr(u16)]
enum WideKind {
    A,
    B,
}

#[derive(Snapshot, Debug)]
struct Releases(u32);

impl Drop for Releases {
    fn drop(&mut self) {
        self.0 = 0;
    }
}

#[test]
fn plain_is_what_has_the_same_bytes() {
    const {
        assert!(Row::PLAIN);
        assert!(Mixed::PLAIN);
        assert!(AsWritten::PLAIN);
        assert!(Twice::<u32>::PLAIN);
        assert!(Twice::<Twice<f32>>::PLAIN);
        assert!(Kind::PLAIN);
        assert!(Twice::<Kind>::PLAIN);
        assert!(Unit::PLAIN);

        assert!(!Padded::PLAIN, "padding at the end");
        assert!(!GapInside::PLAIN, "padding inside");
        assert!(!Twice::<Padded>::PLAIN);
        assert!(!Twice::<String>::PLAIN);
        assert!(!Shifted::PLAIN, "the tag is the position");
        assert!(!WideKind::PLAIN, "the tag is one byte");
        assert!(!Only::PLAIN, "live it has no bytes");
        assert!(!Item::PLAIN, "places of a tuple stay, rustc moves them");
        assert!(!Releases::PLAIN, "copies would be released too");
        assert!(!Tagged::<u8, u8>::PLAIN, "a field is skipped");
        assert!(!Node::PLAIN);
    }
    let row = Row {
        alive: true,
        team: [1, 2, 3],
        hp: 0.5,
        id: u64::MAX,
        mark: 'é',
        pos: [1.0, 2.0, 3.0],
    };
    same(&row);
    same(&vec![row; 3]);
    with_archived(&row, |a| {
        assert_eq!((a.mark.to_native(), a.team, a.id.to_native()), ('é', [1, 2, 3], u64::MAX));
    })
    .expect("archives");
    same(&vec![Mixed { a: 1, b: 2, c: true, d: 3 }; 3]);
    same(&vec![Padded { a: 1, b: 2 }; 3]);
    same(&vec![AsWritten { a: 1, b: 2, c: 3 }; 3]);
    same(&vec![GapInside { a: 1, b: 2, c: 3 }; 3]);
    same(&vec![Twice(Kind::Elf, Kind::Ent), Twice(Kind::Orc, Kind::Orc)]);
    same(&vec![Shifted::B, Shifted::A]);
    same(&vec![WideKind::B, WideKind::A]);
    same(&vec![Only::One, Only::One]);
}

macro_rules! plain_rows {
    ($($name:ident { $($field:ident: $ty:ty),* })*) => {$(
        #[derive(Snapshot)]
        struct $name { $($field: $ty),* }
        const _: () = assert!($name::PLAIN, stringify!($name));
        impl $name {
            fn bytes() -> usize {
                0 $(+ { _ = |row: &$name| _ = &row.$field; size_of::<$ty>() })*
            }
        }
        assert_eq!($name::bytes(), size_of::<$name>());
    )*};
}

/// Rows without padding, in which rustc moves fields by size, by array, by niche, or by a niche
/// that has to be at an end.
#[test]
fn rows_are_plain_in_the_order_of_rustc() {
    plain_rows! {
        Sizes { a: u8, b: u64, c: u16, d: u8, e: u32 }
        Floats { a: f32, b: f64, c: i16, d: [u8; 2] }
        Bytes { a: [u8; 3], b: u32, c: u8 }
        Arrays { a: u16, b: [u8; 4], c: [u16; 3], d: u32, e: [f32; 3] }
        LongArray { a: u32, b: [u8; 32], c: u64, d: u32 }
        Flags { a: u8, b: bool, c: u16, d: bool, e: [bool; 3] }
        Flag { a: u32, b: bool, c: u8, d: [u8; 2], e: u64 }
        Niches { a: bool, b: char, c: u8, d: u16 }
        NicheAtEnd { a: u64, b: [u8; 4], c: bool, d: [u8; 3] }
        NicheInMiddle { a: u64, b: char, c: u32, d: i16, e: u16, f: [u8; 4] }
        Chars { a: u16, b: [char; 2], c: i16 }
        Wide { a: u64, b: u128, c: i64 }
        Words { a: u8, b: usize, c: isize, d: [u8; 7] }
        Empty { a: [u64; 0], b: u8, c: [u32; 2], d: [u8; 7] }
        Nested { a: [[u16; 2]; 3], b: u32 }
    }
}

// Schema.

mod before {
    #[derive(snapring::Snapshot)]
    pub(super) enum Spell {
        Fire = -5,
        Ice,
    }
    #[derive(snapring::Snapshot)]
    pub(super) struct Point {
        pub(super) x: u32,
        pub(super) y: u32,
    }
}

mod after {
    #[derive(snapring::Snapshot)]
    pub(super) enum Spell {
        Fire = -4,
        Ice,
    }
    #[derive(snapring::Snapshot)]
    pub(super) struct Point {
        pub(super) y: u32,
        pub(super) x: u32,
    }
}

#[test]
fn discriminants_and_names_are_part_of_the_layout() {
    assert_ne!(Fingerprint::of::<before::Spell>(), Fingerprint::of::<after::Spell>());
    assert_ne!(Fingerprint::of::<before::Point>(), Fingerprint::of::<after::Point>());
    let text = layout::<Spell>();
    assert!(text.contains("Fire(-5)@0"), "{text}");
    assert!(text.contains("Ice(1099511627776)@0"), "{text}");
    assert!(text.contains("Heal(1099511627777)@0"), "{text}");
    assert!(text.contains(" cold@8=#") && text.contains(" fn@16=#"), "{text}");
    let text = layout::<Player>();
    assert!(text.contains(" type@") && !text.contains("r#"), "{text}");
    // Every use, as the compiler sees them.
    _ = (before::Spell::Fire, before::Spell::Ice, after::Spell::Fire, after::Spell::Ice);
    let (a, b) = (before::Point { x: 1, y: 2 }, after::Point { x: 1, y: 2 });
    assert_eq!((a.x, a.y), (b.x, b.y));
}

// Skipped fields.

#[derive(Snapshot, Debug, PartialEq)]
struct Seat {
    #[snapshot(id)]
    id: u32,
    hp: u16,
    #[snapshot(skip = Socket(-1))]
    socket: Socket,
    #[snapshot(skip)]
    hits: u8,
}

/// No `Default`, no `Clone`.
#[derive(Debug, PartialEq)]
struct Socket(i32);

#[derive(Snapshot, Debug, PartialEq)]
struct Lost(#[snapshot(skip = 7)] u8, u16, #[snapshot(skip)] String, u32);

#[derive(Snapshot, Debug, PartialEq)]
enum Link {
    Down,
    Up(u32, #[snapshot(skip = Socket(0))] Socket),
}

fn seat(id: u32, hp: u16, socket: i32) -> Seat {
    Seat { id, hp, socket: Socket(socket), hits: 5 }
}

#[test]
fn a_skipped_field_is_fresh_in_a_new_value_and_untouched_in_a_live_one() {
    let bytes = archive_bytes(&seat(1, 2, 3)).expect("archives");
    let fresh: Seat = check_and_thaw(&bytes, 8).expect("thaws");
    assert_eq!(fresh, Seat { id: 1, hp: 2, socket: Socket(-1), hits: 0 });

    let mut live = seat(9, 9, 77);
    restore_from(&mut live, &bytes).expect("restores");
    assert_eq!(live, seat(1, 2, 77));

    let mut live = seat(9, 9, 88);
    replace_from(&mut live, &bytes).expect("replaces");
    assert_eq!(live, seat(1, 2, 88));
    assert_eq!(archive_bytes(&live).expect("archives").len(), size_of::<ArchivedSeat>());
}

#[test]
fn places_of_a_tuple_close_up_around_a_skipped_one() {
    let value = Lost(1, 2, "x".into(), 3);
    with_archived(&value, |a: &ArchivedLost| {
        assert_eq!((a.0.to_native(), a.1.to_native()), (2, 3));
    })
    .expect("archives");
    assert_eq!(round_trip(&value), Ok(Lost(7, 2, String::new(), 3)));
    let text = layout::<Lost>();
    assert!(text.contains(" 1@0=#") && text.contains(" 3@4=#"), "{text}");
}

#[test]
fn a_variant_keeps_its_skipped_field_while_it_stays_the_variant() {
    let up = archive_bytes(&Link::Up(5, Socket(1))).expect("archives");
    let down = archive_bytes(&Link::Down).expect("archives");
    let mut live = Link::Up(9, Socket(42));
    restore_from(&mut live, &up).expect("restores");
    assert_eq!(live, Link::Up(5, Socket(42)));
    replace_from(&mut live, &up).expect("replaces");
    assert_eq!(live, Link::Up(5, Socket(42)));
    restore_from(&mut live, &down).expect("restores");
    assert_eq!(live, Link::Down);
    restore_from(&mut live, &up).expect("restores");
    assert_eq!(live, Link::Up(5, Socket(0)));
}

#[test]
fn skipped_fields_follow_an_element_by_its_id() {
    const { assert!(Seat::HAS_ID && !Player::HAS_ID) };
    let then = archive_bytes(&vec![seat(1, 10, 0), seat(2, 20, 0), seat(3, 30, 0)]);
    let mut live = vec![seat(3, 1, 333), seat(1, 1, 111)];
    restore_from(&mut live, &then.expect("archives")).expect("restores");
    let sockets: Vec<_> = live.iter().map(|s| (s.id, s.hp, s.socket.0)).collect();
    assert_eq!(sockets, [(1, 10, 111), (2, 20, -1), (3, 30, 333)]);
}

/// Two levels above the skipped field.
#[derive(Snapshot, Debug, PartialEq)]
struct Room {
    name: String,
    host: Option<Box<Seat>>,
    seats: Vec<Seat>,
}

#[test]
fn adopting_reaches_skipped_fields_inside_others() {
    let room = |hp, socket| Room {
        name: "r".into(),
        host: Some(Box::new(seat(1, hp, socket))),
        seats: vec![seat(2, hp, socket)],
    };
    let then = archive_bytes(&room(1, 0)).expect("archives");
    let mut live = room(2, 99);
    replace_from(&mut live, &then).expect("replaces");
    assert_eq!(live, room(1, 99));
}

// Order.

#[test]
fn the_canonical_order_is_by_field_and_by_variant() {
    let item = |a, b| Item(a, b, false);
    assert!(item(1, 9).canonical(&item(2, 0)).is_lt());
    assert!(item(1, 9).canonical(&item(1, 8)).is_gt());
    assert!(Spell::Heal(0, String::new()).canonical(&Spell::Fire).is_gt());
    assert!(Spell::Heal(0, String::new()).canonical(&Spell::Nothing {}).is_lt());
    let more = Spell::Heal(1, String::new());
    assert!(Spell::Heal(0, "z".into()).canonical(&more).is_lt());
    assert!(with_archived(&more, |a| Spell::Fire.cmp_archived(a)).expect("archives").is_lt());
    assert!(with_archived(&more, |a| more.cmp_archived(a)).expect("archives").is_eq());
    assert!(seat(1, 9, 9).cmp_id(&seat(1, 2, 3)).is_eq());
    assert!(with_archived(&seat(5, 0, 0), |a| seat(4, 9, 9).cmp_archived_id(a)).unwrap().is_lt());
}

#[test]
fn sort_keys_never_contradict_the_order() {
    let rows: Vec<Mixed> = (0..64_u32)
        .map(|n| Mixed { a: (n % 3) as u8, b: n * 7 % 5, c: n % 2 == 0, d: (n % 4) as u16 })
        .collect();
    const { assert!(Mixed::KEY_BITS > 0, "56 bits fit") };
    const { assert!(Row::KEY_BITS == 0, "a float has no exact key") };
    for (a, b) in rows.iter().flat_map(|a| rows.iter().map(move |b| (a, b))) {
        assert_eq!(a.sort_key().cmp(&b.sort_key()), a.canonical(b), "{a:?} {b:?}");
    }
    let spells = [Spell::Fire, Spell::Ice { cold: 0, r#fn: 0 }, Spell::Nothing {}];
    assert!(spells.is_sorted_by(|a, b| a.sort_key() < b.sort_key() && a.canonical(b).is_lt()));
    assert!(Kind::Orc.sort_key() < Kind::Elf.sort_key() && Kind::KEY_BITS == 8);
}

// Adapters.

#[derive(Snapshot, Debug, PartialEq)]
struct Maps {
    plain: HashMap<String, u32>,
    #[snapshot(unsorted)]
    unsorted: HashMap<u16, String>,
    #[snapshot(hashed)]
    hashed: HashMap<u16, String>,
    #[snapshot(unsorted)]
    set: HashSet<NonZeroU16>,
}

#[derive(Snapshot, Debug, PartialEq)]
struct Boxed<T> {
    first: u8,
    #[snapshot(with = rkyv::with::AsBox)]
    number: u64,
    rest: T,
}

/// Nothing is asked of `T` but that the wrapper takes it.
#[derive(Snapshot, Debug, PartialEq)]
struct Lent<T>(#[snapshot(with = rkyv::with::AsBox)] T, u8);

#[derive(Snapshot, Debug, PartialEq)]
enum Mapped {
    Boxes(#[snapshot(with = rkyv::with::Map<rkyv::with::AsBox>)] Vec<u32>, u8),
}

#[test]
fn adapters_archive_in_their_own_way() {
    let maps = Maps {
        plain: [("b".to_owned(), 2), ("a".to_owned(), 1)].into(),
        unsorted: [(1, "one".to_owned())].into(),
        hashed: [(1, "one".to_owned())].into(),
        set: [NonZeroU16::MIN].into(),
    };
    same(&maps);
    same(&Boxed { first: 1, number: 2, rest: "three".to_owned() });
    same(&Lent(5_u64, 6));
    same(&Mapped::Boxes(vec![1, 2, 3], 4));
    let mut live = Boxed { first: 9, number: 9, rest: 9_u32 };
    let then = archive_bytes(&Boxed { first: 1, number: 2, rest: 3_u32 }).expect("archives");
    restore_from(&mut live, &then).expect("restores");
    assert_eq!(live, Boxed { first: 1, number: 2, rest: 3 });
}

// Forged bytes.

#[test]
fn a_forged_byte_is_refused_with_its_place() {
    let mut bytes = archive_bytes(&Spell::Fire).expect("archives");
    bytes[0] = 7;
    let error = check_and_thaw::<Spell>(&bytes, 8).expect_err("no such variant");
    assert_eq!(error, "invalid variant 7 of Spell");

    let mut bytes = archive_bytes(&vec![Item(1, 2, true)]).expect("archives");
    bytes[16] = 2;
    let error = check_and_thaw::<Vec<Item>>(&bytes, 8).expect_err("no such bool");
    assert!(error.ends_with(", in field 2 of Item"), "{error}");

    let mut bytes = archive_bytes(&Spell::Heal(1, "long enough to lie elsewhere".into()));
    let bytes = bytes.as_mut().expect("archives");
    bytes[0] = 0xff;
    let error = check_and_thaw::<Spell>(bytes, 8).expect_err("no such text");
    assert!(error.ends_with(", in field 1 of Spell::Heal"), "{error}");

    check_and_thaw::<Never>(&[], 8).map(drop).expect_err("nothing is a Never");
}

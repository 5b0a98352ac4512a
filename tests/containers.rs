//! The standard library's containers: what they hold must come back whole, equal values must have
//! equal bytes however they came about, and a restore must not throw allocations away.

use std::{
    cell::Cell,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    fmt::Debug,
    hash::{BuildHasherDefault, DefaultHasher},
    marker::PhantomData,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    num::Wrapping,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use proptest::{collection::vec, prelude::*};
use snapring::{
    __private::probe::{
        archive_bytes, archive_over, check_and_thaw, layout, replace_from, restore_from,
        round_trip, with_archived,
    },
    Snapshot,
};

/// `value` comes back from its archive; no byte of that is left over from before; and it is checked
/// at the very depth that the save counted.
#[track_caller]
fn whole<T: Snapshot + PartialEq + Debug>(value: &T) {
    let bytes = archive_bytes(value).unwrap();
    let over = archive_over(value, 0xA5, 512).unwrap();
    assert_eq!(bytes.as_slice(), over.as_slice(), "a byte was not written: {value:?}");
    let depth = (0..64).find(|depth| archive_over(value, 0, *depth).is_ok()).unwrap();
    assert_eq!(&check_and_thaw::<T>(&bytes, depth).unwrap(), value);
}

/// As [`whole`], and `other` is restored to `value` in place and then has its bytes.
#[track_caller]
fn restored<T: Snapshot + PartialEq + Debug>(value: &T, mut other: T) {
    whole(value);
    let bytes = archive_bytes(value).unwrap();
    restore_from(&mut other, &bytes).unwrap();
    assert_eq!(&other, value);
    assert_eq!(archive_bytes(&other).unwrap().as_slice(), bytes.as_slice());
}

fn text(s: &str) -> String {
    s.to_owned()
}

#[test]
fn texts_come_back() {
    for t in ["", "a", "12345678", "123456789", "äöü€", &"long ".repeat(1000)] {
        restored(&text(t), text("something else"));
        restored::<Box<str>>(&t.into(), "something else".into());
        restored(&(text(t), text(t)), (text(""), text("123456789")));
    }
}

#[test]
fn choices_come_back() {
    restored(&Some(7_u64), None);
    restored(&None::<u64>, Some(7));
    restored(&Some((1_u8, 2_u64)), Some((3, 4)));
    restored(&vec![Some(text("nine bytes")), None, Some(text(""))], vec![None]);
    restored(&Some(Some(())), None);
    restored(&Ok::<u8, (u8, u64)>(1), Err((1, 2)));
    restored(&Err::<u8, (u8, u64)>((1, 2)), Ok(1));
    restored(&Err::<String, String>(text("nine bytes")), Err(text("x")));
}

#[test]
fn tuples_and_arrays_come_back() {
    restored(&(1_u8,), (2,));
    restored(&(1_u8, 2_u64, 3_u16), (0, 0, 0));
    restored(
        &(1_u8, 2_u16, 3_u8, 4_u32, 5_u8, 6_u64, 7_u8, 8_i8, 9_i16, 'x', true, text("twelve...")),
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 'y', false, text("")),
    );
    restored(&[1_u32, 2, 3], [0; 3]);
    restored(&[text("one"), text("two, longer than eight")], [text(""), text("")]);
    restored(&vec![[1_u16; 5], [2; 5]], vec![]);
    restored(&[(); 3], [(); 3]);
    restored::<([u64; 0], u8)>(&([], 1), ([], 2));
}

#[test]
fn a_plain_element_makes_plain_tuples_and_arrays() {
    const {
        assert!(<(u32, f32)>::PLAIN && <[(u8, u8); 9]>::PLAIN && <[[u64; 2]; 2]>::PLAIN);
        assert!(<std::ops::Range<u32>>::PLAIN && <Reverse<u16>>::PLAIN && <Wrapping<u16>>::PLAIN);
        assert!(!<(u8, u32)>::PLAIN && !<[(u8, u32); 2]>::PLAIN && !<(String,)>::PLAIN);
        assert!(!Option::<u32>::PLAIN && !Duration::PLAIN);
    }
}

#[test]
fn pointers_come_back() {
    restored(&Box::new(5_u64), Box::new(6));
    restored(&Some(Box::new(text("nine bytes"))), None);
    restored::<Box<[String]>>(&[text("a"), text("b")].into(), [text("c")].into());
    restored::<Box<[u64]>>(&[].into(), [1].into());
    restored(&VecDeque::from([1_u8, 2, 3]), VecDeque::new());
    restored(&Rc::new(text("nine bytes")), Rc::new(text("x")));
    restored::<Rc<str>>(&"".into(), "x".into());
    restored::<Rc<[u64]>>(&[1, 2].into(), [].into());
    restored(&Arc::new((1_u8, 2_u64)), Arc::new((0, 0)));
    restored::<Arc<str>>(&"nine bytes".into(), "x".into());
    restored::<Arc<[String]>>(&[text("nine bytes")].into(), [].into());
    restored(&(Rc::new(()), Rc::new(())), (Rc::new(()), Rc::new(())));
}

#[test]
fn the_rest_comes_back() {
    restored(&(1_u8..7), 0..0);
    restored(&(1_u64..=7), 0..=0);
    restored(&(1_u64..), 0..);
    restored(&(..7_u64), ..0);
    restored(&(..=7_u64), ..=0);
    restored(&(.., 3_u8), (.., 0));
    restored(&(text("nine bytes a")..text("nine bytes b")), text("")..text(""));
    restored(&Duration::new(5, 6), Duration::ZERO);
    restored(&Wrapping(5_u16), Wrapping(0));
    restored(&Reverse(text("nine bytes")), Reverse(text("")));
    restored(&Cell::new(Some(5_u16)), Cell::new(None));
    restored(&(PhantomData::<dyn Debug>, 1_u8), (PhantomData, 2));
    let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let v6 = Ipv6Addr::new(1, 2, 3, 4, 5, 6, 7, 8);
    restored(&vec![v4, IpAddr::V6(v6)], vec![v4]);
    let far = SocketAddr::V6(SocketAddrV6::new(v6, 80, 1, 2));
    restored(&vec![SocketAddr::new(v4, 80), far], vec![far]);
}

#[test]
fn maps_and_sets_come_back() {
    restored(&HashMap::from([(1_u32, text("nine bytes")), (2, text(""))]), HashMap::new());
    restored(&HashMap::from([(text("nine bytes"), 1_u8)]), HashMap::from([(text("x"), 2)]));
    restored(&HashMap::<u8, u64>::new(), HashMap::from([(1, 2)]));
    restored(&HashMap::from([(1_u8, 2_u64)]), HashMap::from([(1, 3), (2, 4)]));
    restored(&HashSet::from([text("a"), text("nine bytes")]), HashSet::from([text("b")]));
    restored(&HashSet::from([()]), HashSet::new());
    restored(&BTreeMap::from([(1_u32, text("a")), (2, text("b"))]), BTreeMap::new());
    restored(&BTreeMap::from([(1_u8, 2_u64)]), BTreeMap::from([(1, 3), (2, 4)]));
    restored(&BTreeSet::from([3_i32, -3]), BTreeSet::from([5]));
    let reversed: BTreeMap<Reverse<u32>, String> =
        (0..50).map(|i| (Reverse(i), format!("number {i}"))).collect();
    let fewer = (10..70).map(|i| (Reverse(i), format!("number {}", i / 2))).collect();
    restored(&reversed, fewer);
    let nested: HashMap<u32, HashMap<u32, HashSet<u32>>> = (0..20)
        .map(|i| (i, (0..i).map(|j| (j, (0..j).map(|k| k * 7919).collect())).collect()))
        .collect();
    restored(&nested, HashMap::from([(3, HashMap::new()), (77, HashMap::new())]));
    // More than one chunk of scratch, and inner maps sorted while the outer one lies there.
    let wide: HashMap<u32, HashSet<u32>> =
        (0..5000).map(|i| (i, (i..i + 5).map(|j| j * 7919).collect())).collect();
    restored(&wide, HashMap::new());
}

/// All keys in one bucket order, another in the other.
fn map_of<V: Clone>(entries: &[(u32, V)], capacity: usize) -> HashMap<u32, V> {
    let mut map = HashMap::with_capacity(capacity);
    map.extend(entries.iter().cloned());
    map
}

#[test]
fn equal_maps_have_equal_bytes() {
    let entries: Vec<(u32, String)> =
        (0..300).map(|i: u32| (i.wrapping_mul(2_654_435_761), format!("value {i}"))).collect();
    let backwards: Vec<_> = entries.iter().rev().cloned().collect();
    let expected = archive_bytes(&map_of(&entries, 0)).unwrap();
    for capacity in [0, 300, 5000] {
        let map = map_of(&backwards, capacity);
        assert_eq!(archive_bytes(&map).unwrap().as_slice(), expected.as_slice());
    }
    let tree: BTreeMap<_, _> = entries.iter().cloned().collect();
    assert_eq!(archive_bytes(&tree).unwrap().as_slice(), expected.as_slice());
    let mut live = map_of(&backwards[100..], 0);
    live.insert(5, text("not in the archive"));
    restore_from(&mut live, &expected).unwrap();
    assert_eq!(archive_bytes(&live).unwrap().as_slice(), expected.as_slice());
}

#[test]
fn archived_maps_and_sets_are_searched() {
    let ages: HashMap<String, u32> = (0..100).map(|i| (format!("player {i}"), i)).collect();
    with_archived(&ages, |a| {
        assert_eq!(a.len(), 100);
        for i in 0..100 {
            assert_eq!(a.get_str(&format!("player {i}")).unwrap().to_native(), i);
            assert!(a.contains_key(&format!("player {i}")));
        }
        assert!(a.get_str("player").is_none() && a.get(&text("player 1000")).is_none());
        assert!(a.keys().is_sorted_by_key(|k| k.as_str()));
        assert_eq!(a.values().map(|v| v.to_native()).sum::<u32>(), 4950);
        assert_eq!(
            format!("{:?}", a.as_slice()[0]),
            r#"ArchivedEntry { key: "player 0", value: 0 }"#
        );
    })
    .unwrap();
    let odd: HashSet<i64> = (-50..50).filter(|i| i % 2 != 0).collect();
    with_archived(&odd, |a| {
        assert!((-50..50_i64).all(|i| a.contains(&i) == (i % 2 != 0)));
        assert!(a.iter().is_sorted_by_key(|i| i.to_native()));
    })
    .unwrap();
    let names = BTreeSet::from([text("ann"), text("a rather long name")]);
    with_archived(&names, |a| assert!(a.contains_str("ann") && !a.contains_str("bob"))).unwrap();
}

#[test]
fn restoring_keeps_allocations() {
    let mut state = (text("nine bytes"), vec![1_u64; 50], Some(Box::new(vec![text("inner one")])));
    let bytes = archive_bytes(&state).unwrap();
    let addresses = |s: &(String, Vec<u64>, Option<Box<Vec<String>>>)| {
        let boxed = s.2.as_ref().unwrap();
        (s.0.as_ptr().addr(), s.1.as_ptr().addr(), boxed.as_ptr().addr(), boxed[0].as_ptr().addr())
    };
    let before = addresses(&state);
    state.0.replace_range(.., "other");
    state.1.fill(9);
    state.2.as_mut().unwrap()[0].make_ascii_uppercase();
    restore_from(&mut state, &bytes).unwrap();
    assert_eq!(addresses(&state), before);
    assert_eq!(archive_bytes(&state).unwrap().as_slice(), bytes.as_slice());

    let mut map: HashMap<u32, String> = (0..40).map(|i| (i, format!("value {i}"))).collect();
    let mut tree: BTreeMap<u32, String> = map.clone().into_iter().collect();
    let (of_map, of_tree) = (archive_bytes(&map).unwrap(), archive_bytes(&tree).unwrap());
    let (in_map, in_tree) = (map[&7].as_ptr(), tree[&7].as_ptr());
    for gone in 20..30 {
        map.remove(&gone);
        tree.remove(&gone);
    }
    map.insert(99, text("new"));
    tree.insert(99, text("new"));
    map.get_mut(&7).unwrap().make_ascii_uppercase();
    tree.get_mut(&7).unwrap().make_ascii_uppercase();
    restore_from(&mut map, &of_map).unwrap();
    restore_from(&mut tree, &of_tree).unwrap();
    assert_eq!((map[&7].as_ptr(), tree[&7].as_ptr()), (in_map, in_tree));
    assert_eq!((map.len(), tree.len()), (40, 40));
    assert_eq!((map[&7].as_str(), tree[&25].as_str()), ("value 7", "value 25"));

    let mut plain: HashMap<u32, u64> = (0..1000).map(|i| (i, 1)).collect();
    let capacity = plain.capacity();
    restore_from(&mut plain, &archive_bytes(&HashMap::from([(1_u32, 2_u64)])).unwrap()).unwrap();
    assert_eq!((plain.capacity(), plain.len(), plain[&1]), (capacity, 1, 2));
}

#[derive(Snapshot, Debug, PartialEq, Default)]
struct Player {
    hp: u32,
    #[snapshot(skip)]
    socket: u32,
}

#[test]
fn skipped_fields_follow_map_keys() {
    let player = |hp, socket| Player { hp, socket };
    let mut map = HashMap::from([(1_u8, player(10, 101)), (2, player(20, 102))]);
    let mut tree = BTreeMap::from([(1_u8, player(10, 101)), (2, player(20, 102))]);
    let (of_map, of_tree) = (archive_bytes(&map).unwrap(), archive_bytes(&tree).unwrap());

    map.remove(&2);
    map.insert(3, player(30, 103));
    map.get_mut(&1).unwrap().hp = 1;
    tree.clear();
    tree.extend([(0, player(0, 100)), (1, player(1, 101))]);
    let expected = || [(1, player(10, 101)), (2, player(20, 0))];
    for put in [restore_from::<HashMap<u8, Player>>, replace_from] {
        put(&mut map, &of_map).unwrap();
        assert_eq!(map, HashMap::from(expected()));
    }
    for put in [restore_from::<BTreeMap<u8, Player>>, replace_from] {
        put(&mut tree, &of_tree).unwrap();
        assert_eq!(tree, BTreeMap::from(expected()));
    }

    let mut by_position =
        ([player(1, 101)], Some(Box::new(player(2, 102))), Ok::<_, u8>(player(3, 103)));
    let bytes = archive_bytes(&by_position).unwrap();
    by_position.0[0].hp = 0;
    for put in
        [restore_from::<([Player; 1], Option<Box<Player>>, Result<Player, u8>)>, replace_from]
    {
        put(&mut by_position, &bytes).unwrap();
        let sockets = (by_position.0[0].socket, by_position.2.as_ref().unwrap().socket);
        assert_eq!((sockets, by_position.1.as_ref().unwrap().socket), ((101, 103), 102));
    }
}

/// Known by its id alone.
#[derive(Snapshot, Debug, Clone, Copy)]
struct Member {
    id: u8,
    #[snapshot(skip)]
    socket: u32,
}

impl PartialEq for Member {
    fn eq(&self, other: &Member) -> bool {
        self.id == other.id
    }
}

impl Eq for Member {}

impl std::hash::Hash for Member {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl PartialOrd for Member {
    fn partial_cmp(&self, other: &Member) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Member {
    fn cmp(&self, other: &Member) -> std::cmp::Ordering {
        self.id.cmp(&other.id)
    }
}

#[test]
fn skipped_fields_follow_the_items_of_sets_and_keys() {
    type Club = (HashSet<Member>, BTreeSet<Member>, HashMap<Member, u8>, BTreeMap<Member, u8>);
    let member = |id| Member { id, socket: 100 + u32::from(id) };
    let club = |ids: &[u8]| -> Club {
        let members = ids.iter().copied().map(member);
        let numbered = members.clone().map(|m| (m, m.id));
        (
            members.clone().collect(),
            members.collect(),
            numbered.clone().collect(),
            numbered.collect(),
        )
    };
    let bytes = archive_bytes(&club(&[1, 2])).unwrap();
    let mut live = club(&[2, 3]);
    restore_from(&mut live, &bytes).unwrap();
    let sockets = |members: Vec<&Member>| {
        let mut all: Vec<_> = members.iter().map(|m| (m.id, m.socket)).collect();
        all.sort_unstable();
        assert_eq!(all, [(1, 0), (2, 102)]);
    };
    sockets(live.0.iter().collect());
    sockets(live.1.iter().collect());
    sockets(live.2.keys().collect());
    sockets(live.3.keys().collect());
    let mut live = club(&[2, 3]);
    replace_from(&mut live, &bytes).unwrap();
    sockets(live.0.iter().collect());
    sockets(live.1.iter().collect());
}

/// Equal without regard to case: which of two equal names the archive holds must still tell.
#[derive(Snapshot, Debug, Clone)]
struct Name(String);

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Name {}

impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_ascii_lowercase().hash(state);
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Name) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Name) -> std::cmp::Ordering {
        self.0.to_ascii_lowercase().cmp(&other.0.to_ascii_lowercase())
    }
}

#[test]
fn a_key_that_is_equal_but_not_the_same_is_put_back() {
    let map = |name: &str| HashMap::from([(Name(text(name)), vec![1_u8])]);
    let tree = |name: &str| BTreeMap::from([(Name(text(name)), vec![1_u8])]);
    let mut live = (map("ANN"), tree("ANN"));
    let bytes = archive_bytes(&(map("ann"), tree("ann"))).unwrap();
    restore_from(&mut live, &bytes).unwrap();
    assert_eq!(archive_bytes(&live).unwrap().as_slice(), bytes.as_slice());
}

#[test]
fn shared_values_are_stored_once_and_come_back_shared() {
    let shared = Rc::new(vec![7_u8; 1000]);
    let state = vec![shared.clone(), shared.clone(), shared];
    let bytes = archive_bytes(&state).unwrap();
    assert!(bytes.len() < 1100, "{} bytes for one value of 1000", bytes.len());
    let mut back = round_trip(&state).unwrap();
    assert!(Rc::ptr_eq(&back[0], &back[1]) && Rc::ptr_eq(&back[1], &back[2]));
    assert_eq!(back, state);

    back[1] = Rc::new(vec![8]);
    let (first, second) = (Rc::as_ptr(&back[0]), Rc::as_ptr(&back[1]));
    drop(back.pop());
    restore_from(&mut back, &bytes).unwrap();
    assert!(Rc::ptr_eq(&back[0], &back[1]) && Rc::ptr_eq(&back[1], &back[2]));
    assert_eq!((Rc::as_ptr(&back[0]), back[0].as_slice()), (first, &[7; 1000][..]));
    assert_ne!(Rc::as_ptr(&back[1]), second);

    let mut apart = vec![Rc::new(1_u64), Rc::new(1)];
    let bytes = archive_bytes(&apart).unwrap();
    apart[1] = apart[0].clone();
    restore_from(&mut apart, &bytes).unwrap();
    assert!(!Rc::ptr_eq(&apart[0], &apart[1]), "two values have become one");
}

#[test]
fn one_value_shared_by_pointers_of_two_types_is_stored_twice() {
    let array: Arc<[u8; 4]> = Arc::new([1, 2, 3, 4]);
    let slice: Arc<[u8]> = array.clone();
    whole(&(array, slice));
    whole(&(Rc::new([0_u64; 0]), Rc::new([0_u32; 0]), Rc::new(1_u64), Rc::<[u64]>::from([])));
}

#[test]
fn depth_is_limited() {
    #[derive(Snapshot, Debug, PartialEq)]
    struct Chain(Option<Box<Chain>>);
    let chain = |len| (0..len).fold(Chain(None), |tail, _| Chain(Some(Box::new(tail))));
    whole(&chain(20));
    assert!(archive_over(&chain(8), 0, 8).is_ok());
    let error = archive_over(&chain(9), 0, 8).unwrap_err();
    assert!(error.contains("more than 8 pointers deep"), "{error}");
    let bytes = archive_bytes(&chain(9)).unwrap();
    assert!(check_and_thaw::<Chain>(&bytes, 9).is_ok());
    assert!(check_and_thaw::<Chain>(&bytes, 7).is_err());
}

/// Sets the byte at `at`, counted from the end, and answers what the check says.
#[track_caller]
fn refused<T: Snapshot>(value: &T, from_end: usize, byte: u8) -> String {
    let mut bytes = archive_bytes(value).unwrap();
    let at = bytes.len() - from_end;
    assert_ne!(bytes[at], byte);
    bytes[at] = byte;
    check_and_thaw::<T>(&bytes, 512).err().expect("the forged byte was believed")
}

#[test]
fn forged_bytes_are_refused() {
    refused(&Some(1_u32), 8, 2);
    refused(&Ok::<u32, u32>(1), 8, 2);
    refused(&vec![1_u64; 4], 4, 5);
    refused(&text("a text of more than eight bytes"), 3, 1);
    refused(&HashMap::from([(1_u32, 2_u32)]), 4, 2);
    refused(&HashMap::from([(1_u32, true)]), 12, 2);
    refused(&HashSet::from([1_u32]), 4, 2);
    refused(&Box::new(1_u64), 4, 0);
    refused(&Rc::new(1_u64), 4, 0);
    refused(&Rc::<[u64]>::from([1, 2]), 4, 3);
    refused(&Duration::new(1, 1), 5, 0xff);
    refused(&('x', text("")), 10, 0xff);
    let error = refused(&HashMap::from([(1_u64, 'x')]), 8 + 5, 0xff);
    assert!(error.contains("char") || !error.is_empty(), "{error}");
}

#[test]
fn duplicate_keys_in_a_forged_archive_do_no_harm() {
    type Map = HashMap<u32, String, BuildHasherDefault<DefaultHasher>>;
    let map = Map::from_iter([(1, text("one")), (2, text("two"))]);
    let mut bytes = archive_bytes(&map).unwrap();
    assert_eq!((bytes[0], bytes[12]), (1, 2));
    bytes[12] = 1;
    let thawed: Map = check_and_thaw(&bytes, 512).unwrap();
    assert_eq!(thawed, Map::from_iter([(1, text("two"))]));
    let mut live = map;
    restore_from(&mut live, &bytes).unwrap();
    assert_eq!(live[&1], "two");
}

#[test]
fn layouts_are_told_apart() {
    let differ = |a: String, b: String| assert_ne!(a, b);
    differ(layout::<HashMap<u32, u8>>(), layout::<HashMap<u32, i8>>());
    differ(layout::<Option<u32>>(), layout::<Result<u32, u32>>());
    differ(layout::<[u8; 3]>(), layout::<[u8; 4]>());
    differ(layout::<(u8, u32)>(), layout::<(u32, u8)>());
    differ(layout::<Rc<u8>>(), layout::<Arc<u8>>());
    differ(layout::<Reverse<u8>>(), layout::<Wrapping<u8>>());
    differ(layout::<HashSet<u8>>(), layout::<Vec<u8>>());
    assert_eq!(layout::<HashMap<u32, u8>>(), layout::<BTreeMap<u32, u8>>());
    assert_eq!(layout::<String>(), layout::<Box<str>>());
    assert_eq!(layout::<Vec<u8>>(), layout::<Box<[u8]>>());
    assert!(layout::<(u8, [u16; 2])>().contains("0@0=#1 1@2=#2"), "{}", layout::<(u8, [u16; 2])>());
}

/// Sort keys must agree with the canonical order, and tell equality where they say so.
fn keys_agree<T: Snapshot>(a: &T, b: &T) {
    let order = a.canonical(b);
    assert_eq!(b.canonical(a), order.reverse());
    let keys = a.sort_key().cmp(&b.sort_key());
    assert!(keys.is_eq() || keys == order, "{:#x} {:#x}", a.sort_key(), b.sort_key());
    if T::KEY_BITS > 0 {
        assert_eq!(keys, order);
        assert!(T::KEY_BITS == 64 || a.sort_key() >> T::KEY_BITS == 0);
    }
    with_archived(b, |archived| assert_eq!(a.cmp_archived(archived), order)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_state_comes_back(
        texts in vec(".{0,12}", 0..8),
        map in prop::collection::hash_map(".{0,12}", prop::option::of(any::<i64>()), 0..20),
        tree in prop::collection::btree_map(any::<(i16, u8)>(), vec(any::<f64>(), 0..4), 0..20),
        set in prop::collection::hash_set(any::<Option<u16>>(), 0..20),
        before in prop::collection::hash_map(".{0,2}", any::<Option<i64>>(), 0..20),
    ) {
        let total = |t: &BTreeMap<(i16, u8), Vec<f64>>| -> Vec<_> {
            t.iter().map(|(k, v)| (*k, v.iter().map(|x| x.to_bits()).collect::<Vec<_>>())).collect()
        };
        let back: (Vec<String>, _, BTreeMap<_, _>, _) =
            round_trip(&(texts.clone(), map.clone(), tree.clone(), set.clone())).unwrap();
        prop_assert_eq!(total(&back.2), total(&tree));
        prop_assert_eq!((back.0, &back.1, back.3), (texts, &map, set));
        let mut live = before;
        restore_from(&mut live, &archive_bytes(&map).unwrap()).unwrap();
        prop_assert_eq!(live, map);
    }

    #[test]
    fn keys_agree_with_the_canonical_order(
        a in any::<(i8, i16, i32, i64, i128, u8, char, bool)>(),
        b in any::<(i8, i16, i32, i64, i128, u8, char, bool)>(),
        f in any::<(f32, f64)>(), g in any::<(f32, f64)>(),
        s in "[ab\\x00é]{0,10}", t in "[ab\\x00é]{0,10}",
        v in vec(any::<u8>(), 0..12), w in vec(any::<u8>(), 0..12),
    ) {
        keys_agree(&a.0, &b.0);
        keys_agree(&a.1, &b.1);
        keys_agree(&a.2, &b.2);
        keys_agree(&a.3, &b.3);
        keys_agree(&a.4, &b.4);
        keys_agree(&a.6, &b.6);
        keys_agree(&f.0, &g.0);
        keys_agree(&f.1, &g.1);
        keys_agree(&s, &t);
        keys_agree(&v, &w);
        keys_agree(&(a.7, s.clone()), &(b.7, t.clone()));
        keys_agree(&(a.0, a.1, a.2), &(b.0, b.1, b.2));
        keys_agree(&(a.3, a.0), &(b.3, b.0));
        keys_agree(&Some(a.2), &Some(b.2));
        keys_agree(&Some(a.3), &None);
        keys_agree(&Some(a.3), &Some(b.3));
        keys_agree(&[a.5, a.0 as u8, 0], &[b.5, b.0 as u8, 0]);
        keys_agree(&[a.3, 5], &[b.3, 6]);
        keys_agree(&[s.clone(), s.clone()], &[t.clone(), s.clone()]);
        keys_agree(&vec![s.clone(), t.clone()], &vec![s.clone()]);
        keys_agree(&Reverse(a.0), &Reverse(b.0));
        keys_agree(&Box::new(s), &Box::new(t));
        keys_agree(&Ok::<i8, i64>(a.0), &Err(b.3));
        keys_agree(&(a.0..b.0), &(b.0..a.0));
    }

    #[test]
    fn maps_are_ordered_by_their_sorted_entries(
        a in prop::collection::hash_map(any::<u8>(), any::<u8>(), 0..4),
        b in prop::collection::hash_map(any::<u8>(), any::<u8>(), 0..4),
    ) {
        let sorted = |m: &HashMap<u8, u8>| m.clone().into_iter().collect::<BTreeMap<_, _>>();
        let expected = sorted(&a).into_iter().collect::<Vec<_>>().cmp(&sorted(&b).into_iter().collect());
        prop_assert_eq!(a.canonical(&b), expected);
        prop_assert_eq!(sorted(&a).canonical(&sorted(&b)), expected);
    }

    #[test]
    fn no_bytes_make_the_check_panic(
        at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        type State = (HashMap<String, Vec<Option<u32>>>, Rc<[Box<u8>]>, BTreeSet<Result<char, bool>>);
        let state: State = (
            HashMap::from([(text("a long key"), vec![Some(1)]), (text("b"), vec![])]),
            Rc::from([Box::new(1), Box::new(2)]),
            BTreeSet::from([Ok('x'), Err(true)]),
        );
        let mut bytes = archive_bytes(&state).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(thawed) = check_and_thaw::<State>(&bytes, 8) {
            whole(&thawed);
        }
    }
}

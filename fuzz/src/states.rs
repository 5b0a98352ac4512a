#![forbid(unsafe_code)]
//! States of every shape that the derive knows, with samples, and a look at all that an archive of
//! one hands out.

use std::{
    cell::Cell,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    fmt,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU8, NonZeroU32, Wrapping},
    ops::RangeInclusive,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use snapring::{Archived, PagedMap, PagedVec, Snapshot};

/// A state that can be fuzzed.
pub trait Sample: Snapshot + Clone {
    /// A value with something in every corner; `n` tells several apart.
    fn sample(n: u32) -> Self;

    /// Calls whatever an archive offers to its readers.
    fn read(archived: &Archived<Self>);

    /// Makes it a sample; in pages, changes some.
    fn step(&mut self, n: u32) {
        *self = Self::sample(n);
    }

    /// A value that differs from every sample, to be restored over.
    fn other() -> Self {
        Self::sample(7)
    }
}

/// What is small and has everything a little: for raw bytes.
#[derive(Snapshot, Clone)]
pub struct Plain {
    pub tick: u64,
    pub name: String,
    pub rows: Vec<(u32, f32)>,
    pub mode: Mode,
    pub best: Option<Box<u64>>,
}

#[derive(Snapshot, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    Idle,
    Moving { to: (i16, i16), by: u8 },
    Talking(String, Vec<bool>),
    Waiting(Option<char>),
}

impl Mode {
    fn sample(n: u32) -> Mode {
        match n % 4 {
            0 => Mode::Idle,
            1 => Mode::Moving { to: (-1, 3), by: 9 },
            2 => Mode::Talking("a text that is not short".into(), vec![true, false, true]),
            _ => Mode::Waiting(char::from_u32(0x10_ffff)),
        }
    }
}

impl Sample for Plain {
    fn sample(n: u32) -> Plain {
        Plain {
            tick: u64::from(n),
            name: format!("the name of number {n}"),
            rows: (0..n % 5).map(|i| (i, i as f32)).collect(),
            mode: Mode::sample(n),
            best: n.is_multiple_of(2).then(|| Box::new(9)),
        }
    }

    fn read(a: &Archived<Plain>) {
        touch(a.tick.to_native());
        touch(a.name.as_str().chars().count());
        touch(a.rows.iter().map(|row| row.0.to_native()).max());
        touch(a.best.as_ref().map(|best| best.get().to_native()));
    }
}

/// Recursion by every container.
#[derive(Snapshot, Clone)]
pub enum Tree {
    Leaf(u8),
    One(Box<Tree>),
    Two(Box<Tree>, Box<Tree>),
    Many(Vec<Tree>),
    Named(BTreeMap<String, Tree>),
    Perhaps(Option<Box<Tree>>),
    Shared(Rc<Tree>),
    Bag(VecDeque<(u8, Tree)>),
}

impl Sample for Tree {
    fn sample(n: u32) -> Tree {
        let leaf = || Box::new(Tree::Leaf(n as u8));
        let shared = Rc::new(Tree::Perhaps(Some(leaf())));
        let mut chain = Tree::Two(leaf(), leaf());
        for _ in 0..8 {
            chain = Tree::One(Box::new(chain));
        }
        let named = [("a", Tree::Leaf(1)), ("a longer name", Tree::Perhaps(None))];
        Tree::Many(vec![
            Tree::Shared(shared.clone()),
            chain,
            Tree::Named(named.map(|(k, v)| (k.to_owned(), v)).into()),
            Tree::Bag([(1, Tree::Shared(shared)), (2, Tree::Many(vec![]))].into()),
        ])
    }

    fn read(a: &Archived<Tree>) {
        touch(leaves(a));
    }
}

fn leaves(tree: &ArchivedTree) -> usize {
    match tree {
        ArchivedTree::Leaf(_) => 1,
        ArchivedTree::One(next) => leaves(next),
        ArchivedTree::Two(a, b) => leaves(a) + leaves(b),
        ArchivedTree::Many(all) => all.iter().map(leaves).sum(),
        ArchivedTree::Named(all) => all.values().map(leaves).sum(),
        ArchivedTree::Perhaps(one) => one.as_ref().map_or(0, |one| leaves(one)),
        ArchivedTree::Shared(one) => leaves(one),
        ArchivedTree::Bag(all) => all.iter().map(|pair| leaves(&pair.1)).sum(),
    }
}

/// Maps and sets in all their forms.
#[derive(Snapshot, Clone)]
pub struct Maps {
    sorted: HashMap<u32, String>,
    tree: BTreeMap<(u8, i64), Mode>,
    texts: HashMap<String, Vec<u8>>,
    #[snapshot(unsorted)]
    unsorted: HashMap<u16, Box<u32>>,
    #[snapshot(hashed)]
    hashed: HashMap<String, u32>,
    #[snapshot(hashed)]
    hashed_set: HashSet<u64>,
    set: HashSet<Mode>,
    tree_set: BTreeSet<Reverse<u8>>,
    #[snapshot(unsorted)]
    unsorted_set: HashSet<[u8; 3]>,
    nested: HashMap<u8, HashMap<u8, BTreeSet<u8>>>,
}

impl Sample for Maps {
    fn sample(n: u32) -> Maps {
        let n = 2 + n % 6;
        Maps {
            sorted: (0..n).map(|i| (i * 7, format!("value {i}"))).collect(),
            tree: (0..n).map(|i| ((i as u8, -i64::from(i)), Mode::sample(i))).collect(),
            texts: (0..n).map(|i| (format!("key number {i}"), vec![i as u8; 5])).collect(),
            unsorted: (0..n).map(|i| (i as u16, Box::new(i))).collect(),
            hashed: (0..n).map(|i| (format!("key {i}"), i)).collect(),
            hashed_set: (0..n).map(u64::from).collect(),
            set: (0..n).map(Mode::sample).collect(),
            tree_set: (0..n).map(|i| Reverse(i as u8)).collect(),
            unsorted_set: (0..n).map(|i| [i as u8; 3]).collect(),
            nested: [(1, [(2, [3, 4].into()), (5, BTreeSet::new())].into())].into(),
        }
    }

    fn read(a: &Archived<Maps>) {
        for key in 0..24_u32 {
            touch(a.sorted.get(&key).map(|text| text.len()));
            touch(a.tree.contains_key(&(key as u8, -i64::from(key))));
            touch(a.hashed.get(format!("key {key}").as_str()).is_some());
            touch(a.hashed_set.contains(&u64::from(key).into()));
        }
        touch(a.texts.get_str("key number 2").is_some());
        touch(a.unsorted.find(|key| key.to_native() == 5).is_some());
        touch(a.set.contains(&Mode::Idle));
        touch(a.hashed.iter().count());
        touch(a.hashed_set.iter().count());
        touch(a.nested.get(&1_u8).and_then(|inner| inner.get(&2_u8)).map(|set| set.len()));
    }
}

/// Shared values, shared again.
#[derive(Snapshot, Clone)]
pub struct Shared {
    nodes: Vec<Rc<Node>>,
    text: Rc<str>,
    texts: Vec<Arc<str>>,
    run: Rc<[u16]>,
    runs: Vec<Arc<[Option<u8>]>>,
    boxes: Box<[Arc<(u8, u32)>]>,
}

/// One of a chain.
#[derive(Snapshot, Clone)]
pub struct Node {
    value: u8,
    next: Option<Rc<Node>>,
    also: Vec<Rc<Node>>,
}

impl Sample for Shared {
    fn sample(n: u32) -> Shared {
        let mut nodes: Vec<Rc<Node>> = Vec::new();
        for value in 0..(6 + n % 4) as u8 {
            let next = nodes.last().cloned();
            let also = nodes.iter().take(2).cloned().collect();
            nodes.push(Rc::new(Node { value, next, also }));
        }
        let text: Arc<str> = "one text for several".into();
        let run: Arc<[Option<u8>]> = vec![Some(1), None, Some(3)].into();
        let pair = Arc::new((1, 2));
        Shared {
            nodes,
            text: "shared".into(),
            texts: vec![text.clone(), text],
            run: vec![1, 2, n as u16].into(),
            runs: vec![run.clone(), run],
            boxes: vec![pair.clone(), pair].into(),
        }
    }

    fn read(a: &Archived<Shared>) {
        touch(a.nodes.iter().map(|node| height(node)).max());
        touch((a.text.len(), a.run.len()));
        touch(a.texts.iter().map(|text| text.chars().count()).sum::<usize>());
        touch(a.runs.iter().map(|run| run.iter().flatten().count()).sum::<usize>());
        touch(a.boxes.iter().map(|pair| pair.1.to_native()).max());
    }
}

fn height(node: &ArchivedNode) -> u32 {
    touch(node.value);
    touch(node.also.len());
    node.next.as_ref().map_or(0, |next| 1 + height(next))
}

/// What has values that are none: tags, texts, numbers, addresses.
#[derive(Snapshot, Clone)]
pub struct Odd {
    flag: bool,
    letter: char,
    some: NonZeroU32,
    least: Option<NonZeroU8>,
    wide: i128,
    size: usize,
    ratio: f64,
    time: Duration,
    span: RangeInclusive<u8>,
    addresses: Vec<IpAddr>,
    socket: Option<SocketAddr>,
    result: Result<Vec<u8>, String>,
    wrapped: Wrapping<u16>,
    cell: Cell<bool>,
    array: [Option<bool>; 3],
    grid: [[Mode; 2]; 2],
    text: Box<str>,
    #[snapshot(with = snapring::with::Serde)]
    foreign: Foreign,
    #[snapshot(skip)]
    live: u8,
}

/// Known to serde alone.
#[derive(Clone, Serialize, Deserialize)]
pub struct Foreign {
    name: String,
    items: Vec<Option<u32>>,
    map: BTreeMap<u8, String>,
}

impl Sample for Odd {
    fn sample(n: u32) -> Odd {
        Odd {
            flag: n.is_multiple_of(2),
            letter: 'x',
            some: NonZeroU32::MIN.saturating_add(n),
            least: NonZeroU8::new(n as u8),
            wide: -1,
            size: usize::MAX,
            ratio: f64::NAN,
            time: Duration::new(u64::MAX, 999_999_999),
            span: 1..=9,
            addresses: vec![[127, 0, 0, 1].into(), [1_u16; 8].into()],
            socket: "[::1]:80".parse().ok(),
            result: if n.is_multiple_of(2) { Ok(vec![1]) } else { Err("no, not at all".into()) },
            wrapped: Wrapping(3),
            cell: Cell::new(true),
            array: [Some(true), None, Some(false)],
            grid: [[Mode::sample(1), Mode::sample(2)], [Mode::sample(3), Mode::sample(n)]],
            text: "a text in a box of its own".into(),
            foreign: Foreign {
                name: "known to serde".into(),
                items: vec![Some(1), None],
                map: [(1, "one".to_owned())].into(),
            },
            live: 1,
        }
    }

    fn read(a: &Archived<Odd>) {
        touch((a.flag, a.letter.to_native(), a.some.get(), a.time.as_nanos()));
        touch(a.result.as_ref().map(|run| run.len()).map_err(|text| text.len()).ok());
        touch(a.grid.iter().flatten().count());
        touch(a.text.chars().count());
        touch(a.addresses.len());
    }
}

/// What takes no bytes, in numbers.
#[derive(Snapshot, Clone)]
pub struct Empties {
    units: Vec<()>,
    hollows: Vec<Hollow>,
    rooms: Vec<Vec<Hollow>>,
    set: HashSet<()>,
    map: BTreeMap<(), Hollow>,
    boxed: Vec<Box<Hollow>>,
    shared: Vec<Rc<Hollow>>,
    slices: Vec<Rc<[Hollow]>>,
}

/// All of it stays live.
#[derive(Snapshot, Clone, Default)]
pub struct Hollow {
    #[snapshot(skip)]
    live: [u64; 4],
}

impl Sample for Empties {
    fn sample(n: u32) -> Empties {
        let shared = Rc::new(Hollow::default());
        Empties {
            units: vec![(); n as usize],
            hollows: vec![Hollow::default(); 3],
            rooms: vec![vec![Hollow::default(); 2]; 6],
            set: [()].into(),
            map: [((), Hollow::default())].into(),
            boxed: vec![Box::default(); 3],
            shared: vec![shared.clone(), shared],
            slices: vec![vec![Hollow::default(); 2].into(); 3],
        }
    }

    fn read(a: &Archived<Empties>) {
        touch((a.units.len(), a.hollows.len(), a.set.len(), a.map.len()));
        touch(a.rooms.iter().map(|room| room.len()).max());
    }
}

/// What lies in pages, some of them shared from one sample to the next.
#[derive(Snapshot, Clone)]
pub struct Pages {
    tick: u32,
    rows: PagedVec<Row>,
    cells: Option<Box<PagedVec<u32>>>,
    names: PagedMap<u16, String>,
    again: PagedVec<Row>,
    units: PagedVec<()>,
}

/// Points at what lies in the same page.
#[derive(Snapshot, Clone)]
pub struct Row {
    name: String,
    mode: Mode,
    bag: Vec<Box<u8>>,
}

fn row(n: u32) -> Row {
    let bag = (0..n % 3).map(|i| Box::new(i as u8)).collect();
    Row { name: format!("the row of {n}"), mode: Mode::sample(n), bag }
}

impl Sample for Pages {
    fn sample(n: u32) -> Pages {
        let (mut rows, mut cells) = (PagedVec::with_page_len(2), PagedVec::with_page_len(4));
        rows.extend((0..7).map(|i| row(n + i)));
        cells.extend(0..10 + n);
        Pages {
            tick: n,
            again: rows.clone(),
            rows,
            cells: Some(Box::new(cells)),
            names: (0..5).map(|i| (i * 3, format!("name {i} of {n}"))).collect(),
            units: (0..n).map(|_| ()).collect(),
        }
    }

    fn step(&mut self, n: u32) {
        self.tick = n;
        self.rows[n as usize % 7] = row(n * 7);
        if let Some(cells) = &mut self.cells {
            cells[3] = n;
            cells.push(n);
        }
        self.names.insert(n as u16 * 3, format!("again {n}"));
    }

    fn read(a: &Archived<Pages>) {
        for rows in [&a.rows, &a.again] {
            touch(rows.iter().map(|row| row.name.chars().count() + row.bag.len()).sum::<usize>());
            touch(rows.get(5).map(|row| row.bag.iter().map(|b| *b.get()).max()));
            touch((0..rows.pages()).map(|page| rows.page(page).len()).sum::<usize>());
        }
        touch(a.cells.as_ref().map(|cells| cells.iter().map(|c| c.to_native()).max()));
        touch(a.names.iter().map(|(_, name)| name.chars().count()).sum::<usize>());
        for key in 0..16_u16 {
            touch(a.names.get(&key).map(|name| name.len()));
        }
        touch(a.units.len());
    }
}

fn touch(value: impl fmt::Debug) {
    std::hint::black_box(value);
}

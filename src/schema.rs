#![forbid(unsafe_code)]
//! The layout of an archive in words: names, types, order, offsets, discriminants, all the way
//! down. Its hash is the [`Fingerprint`] by which files and plugins are let in; its text is stored
//! in the files, so that a refusal can show the first difference.

use std::{
    any::TypeId,
    collections::{HashMap, HashSet},
    fmt,
};

use xxhash_rust::xxh3::xxh3_128;

use crate::snapshot::Snapshot;

/// The structural hash of an archived layout. Equal fingerprints: the same names, types, order,
/// offsets and discriminants, all the way down, and the same rkyv format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// The fingerprint of `T`'s archived layout. Costs a walk over the types and a hash, about
    /// 10 us; keep the answer.
    pub fn of<T: Snapshot>() -> Fingerprint {
        Layout::of::<T>().fingerprint
    }

    /// From the bytes that [`to_bytes`](Self::to_bytes) gives, as they cross a plugin's interface.
    pub const fn from_bytes(bytes: [u8; 16]) -> Fingerprint {
        Fingerprint(u128::from_le_bytes(bytes))
    }

    /// Sixteen bytes, little-endian.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A node of a [`Schema`], by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape(u32);

/// One named part of a node: a field, a variant, an element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    /// `hp`, `0`, `item`, `key`, or a variant's name with its discriminant.
    pub(crate) name: String,
    /// Bytes from the start of the node, where that is fixed.
    pub(crate) offset: Option<usize>,
    pub(crate) shape: Shape,
}

/// One type's archived layout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// `struct`, `enum`, `variant`, `u32`, `vec`, `map`, ...
    pub(crate) kind: String,
    /// The type's own name, without path or parameters; empty for building blocks.
    pub(crate) name: String,
    pub(crate) size: usize,
    pub(crate) align: usize,
    pub(crate) parts: Vec<Part>,
    /// A field of it is skipped: not archived, kept live.
    pub(crate) skips: bool,
    /// Thawing it runs a user's code that may fail.
    pub(crate) fallible: bool,
    /// `#[snapshot(version = ..)]`.
    pub(crate) version: Option<u32>,
}

impl Node {
    /// A node of `kind` whose archived form is `A`.
    pub fn new<A>(kind: impl Into<String>) -> Node {
        Node {
            kind: kind.into(),
            name: String::new(),
            size: size_of::<A>(),
            align: align_of::<A>(),
            parts: Vec::new(),
            skips: false,
            fallible: false,
            version: None,
        }
    }

    /// Gives the type its name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Node {
        self.name = name.into();
        self
    }

    /// Adds a part at a fixed offset.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, offset: usize, shape: Shape) -> Node {
        self.parts.push(Part { name: name.into(), offset: Some(offset), shape });
        self
    }

    /// Adds a part that lies elsewhere, or at no fixed offset.
    #[must_use]
    pub fn part(mut self, name: impl Into<String>, shape: Shape) -> Node {
        self.parts.push(Part { name: name.into(), offset: None, shape });
        self
    }

    /// Says whether a field is skipped.
    #[must_use]
    pub fn skips(mut self, skips: bool) -> Node {
        self.skips = skips;
        self
    }

    /// Says whether thawing may fail.
    #[must_use]
    pub fn fallible(mut self, fallible: bool) -> Node {
        self.fallible = fallible;
        self
    }

    /// States the type's version.
    #[must_use]
    pub fn version(mut self, version: u32) -> Node {
        self.version = Some(version);
        self
    }
}

/// Collects the nodes of a layout; types are visited once, so recursion ends.
#[derive(Default, Debug)]
pub struct Schema {
    nodes: Vec<Option<Node>>,
    /// By the type described and the form it is archived in.
    seen: HashMap<TypeId, Shape>,
}

impl Schema {
    /// The shape of `T`, described by `describe` at the first visit. `T` is whatever names the
    /// archived form uniquely: the type itself, or an adapter and a type in a tuple.
    pub fn node<T: 'static>(&mut self, describe: impl FnOnce(&mut Schema) -> Node) -> Shape {
        if let Some(shape) = self.seen.get(&TypeId::of::<T>()) {
            return *shape;
        }
        let shape = Shape(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.seen.insert(TypeId::of::<T>(), shape);
        self.nodes.push(None);
        let node = describe(self);
        self.nodes[shape.0 as usize] = Some(node);
        shape
    }

    /// The shape of a node that is no type of its own, such as an enum's variant.
    pub fn anonymous(&mut self, node: Node) -> Shape {
        let shape = Shape(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(Some(node));
        shape
    }
}

/// A finished layout: what a caretaker compares with what it finds.
#[derive(Debug)]
pub(crate) struct Layout {
    /// One line a node, as SNAPSHOT_FORMAT.md tells.
    pub(crate) text: String,
    pub(crate) fingerprint: Fingerprint,
    /// The root's `#[snapshot(version = ..)]`.
    pub(crate) version: u32,
    /// Thawing can fail (a `with` wrapper somewhere inside).
    pub(crate) fallible: bool,
    /// The types that hold a skipped field somewhere inside.
    pub(crate) carriers: HashSet<TypeId>,
}

/// The first line of every layout text: what rkyv itself was told.
const FORMAT_LINE: &str = "rkyv 0.8 little-endian aligned pointer-32";

/// More nodes than any real type has; a larger text is refused before it is parsed.
const MAX_NODES: usize = 65_536;

impl Layout {
    pub(crate) fn of<T: Snapshot>() -> Layout {
        let mut schema = Schema::default();
        let root = T::schema(&mut schema);
        debug_assert_eq!(root, Shape(0), "the root is the first node visited");
        let Schema { nodes, seen } = schema;
        let nodes: Vec<Node> = nodes.into_iter().flatten().collect();

        let reaching = |holds: fn(&Node) -> bool| {
            let mut marked: Vec<bool> = nodes.iter().map(holds).collect();
            loop {
                let before = marked.iter().filter(|m| **m).count();
                for (i, node) in nodes.iter().enumerate() {
                    marked[i] |= node.parts.iter().any(|p| marked[p.shape.0 as usize]);
                }
                if marked.iter().filter(|m| **m).count() == before {
                    return marked;
                }
            }
        };
        let skips = reaching(|n| n.skips);
        let fallible = reaching(|n| n.fallible)[0];
        let carriers =
            seen.iter().filter(|(_, s)| skips[s.0 as usize]).map(|(id, _)| *id).collect();

        let text = render(&nodes);
        let fingerprint = Fingerprint(xxh3_128(text.as_bytes()));
        Layout { version: nodes[0].version.unwrap_or(1), text, fingerprint, fallible, carriers }
    }
}

fn render(nodes: &[Node]) -> String {
    use fmt::Write as _;
    let mut text = String::from(FORMAT_LINE);
    text.push('\n');
    for (i, n) in nodes.iter().enumerate() {
        let name = if n.name.is_empty() { "-" } else { &n.name };
        _ = write!(text, "#{i} {} {} {}/{}", n.kind, name, n.size, n.align);
        for p in &n.parts {
            match p.offset {
                Some(at) => _ = write!(text, " {}@{at}=#{}", p.name, p.shape.0),
                None => _ = write!(text, " {}=#{}", p.name, p.shape.0),
            }
        }
        text.push('\n');
    }
    text
}

/// Reads a layout text back. `None` where it is not one (it may come from a hostile file).
fn parse(text: &str) -> Option<Vec<Node>> {
    let mut lines = text.lines();
    if lines.next()? != FORMAT_LINE {
        return None;
    }
    let mut nodes = Vec::new();
    for (i, line) in lines.enumerate() {
        if i >= MAX_NODES {
            return None;
        }
        let mut words = line.split(' ');
        if words.next()?.strip_prefix('#')?.parse() != Ok(i) {
            return None;
        }
        let kind = words.next()?.to_owned();
        let name = words.next()?.to_owned();
        let (size, align) = words.next()?.split_once('/')?;
        let mut node = Node { kind, name, ..Node::new::<()>("") };
        node.size = size.parse().ok()?;
        node.align = align.parse().ok()?;
        for word in words {
            let (left, shape) = word.rsplit_once("=#")?;
            let (name, offset) = match left.rsplit_once('@') {
                Some((name, at)) => (name, Some(at.parse().ok()?)),
                None => (left, None),
            };
            node.parts.push(Part {
                name: name.to_owned(),
                offset,
                shape: Shape(shape.parse().ok()?),
            });
        }
        nodes.push(node);
    }
    let len = nodes.len();
    let whole = nodes.iter().all(|n| n.parts.iter().all(|p| (p.shape.0 as usize) < len));
    (len > 0 && whole).then_some(nodes)
}

/// The first difference between two layout texts, as a path and what stands there on either side:
/// `players[].pos.x: f32 in the file, f64 in the program`.
pub(crate) fn first_difference(file: &str, program: &str) -> String {
    if file.lines().next() != program.lines().next() {
        return format!(
            "the archives are of another rkyv format: {:?} in the file, {FORMAT_LINE:?} in the program",
            file.lines().next().unwrap_or(""),
        );
    }
    let (Some(old), Some(new)) = (parse(file), parse(program)) else {
        return "the layout text in the file cannot be read".to_owned();
    };
    let mut todo = vec![(Shape(0), Shape(0), String::new())];
    let mut seen = HashSet::new();
    while let Some((o, n, path)) = todo.pop() {
        if !seen.insert((o.0, n.0)) {
            continue;
        }
        let (a, b) = (&old[o.0 as usize], &new[n.0 as usize]);
        let at = |p: &str| if path.is_empty() { p.to_owned() } else { format!("{path}{p}") };
        let here = if path.is_empty() { "the state".to_owned() } else { path.clone() };
        if a.kind != b.kind || a.name != b.name {
            return format!("{here}: {} in the file, {} in the program", title(a), title(b));
        }
        for (i, p) in a.parts.iter().enumerate() {
            let Some(q) = b.parts.get(i) else {
                return format!("{}: in the file alone", at(&step(&path, a, p)));
            };
            if p.name != q.name {
                let known = |parts: &[Part], name: &str| parts.iter().any(|x| x.name == name);
                return if !known(&a.parts, &q.name) {
                    format!("{}: in the program alone", at(&step(&path, b, q)))
                } else if !known(&b.parts, &p.name) {
                    format!("{}: in the file alone", at(&step(&path, a, p)))
                } else {
                    format!("{here}: {} stands where the program has {}", p.name, q.name)
                };
            }
            if p.offset != q.offset {
                // Somewhere inside an earlier part sizes differ: say that first, where it is so.
                todo.extend(
                    a.parts[..=i]
                        .iter()
                        .zip(&b.parts[..=i])
                        .rev()
                        .map(|(p, q)| (p.shape, q.shape, at(&step(&path, a, p)))),
                );
                if let Some(deeper) = walk_rest(&old, &new, &mut todo, &mut seen) {
                    return deeper;
                }
                return format!(
                    "{}: at byte {} in the file, {} in the program",
                    at(&step(&path, a, p)),
                    p.offset.unwrap_or(0),
                    q.offset.unwrap_or(0)
                );
            }
        }
        if let Some(q) = b.parts.get(a.parts.len()) {
            return format!("{}: in the program alone", at(&step(&path, b, q)));
        }
        let next: Vec<_> = a
            .parts
            .iter()
            .zip(&b.parts)
            .rev()
            .map(|(p, q)| (p.shape, q.shape, at(&step(&path, a, p))))
            .collect();
        todo.extend(next);
        if a.parts.is_empty() && (a.size, a.align) != (b.size, b.align) {
            return format!(
                "{here}: {} takes {} bytes in the file, {} in the program",
                title(a),
                a.size,
                b.size
            );
        }
    }
    "the layouts are the same".to_owned()
}

/// Looks for a difference of kind below the parts queued, without descending further than needed.
fn walk_rest(
    old: &[Node],
    new: &[Node],
    todo: &mut Vec<(Shape, Shape, String)>,
    seen: &mut HashSet<(u32, u32)>,
) -> Option<String> {
    while let Some((o, n, path)) = todo.pop() {
        if !seen.insert((o.0, n.0)) {
            continue;
        }
        let (a, b) = (&old[o.0 as usize], &new[n.0 as usize]);
        if a.kind != b.kind || a.name != b.name {
            return Some(format!("{path}: {} in the file, {} in the program", title(a), title(b)));
        }
        let next: Vec<_> = a
            .parts
            .iter()
            .zip(&b.parts)
            .rev()
            .map(|(p, q)| (p.shape, q.shape, format!("{path}{}", step(&path, a, p))))
            .collect();
        todo.extend(next);
    }
    None
}

/// How a path goes on from `node` into `part`.
fn step(path: &str, node: &Node, part: &Part) -> String {
    match node.kind.as_str() {
        "struct" | "enum" | "variant" | "tuple" if path.is_empty() => part.name.clone(),
        "struct" | "enum" | "variant" | "tuple" => format!(".{}", part.name),
        _ if part.name == "item" => "[]".to_owned(),
        _ => format!("<{}>", part.name),
    }
}

fn title(n: &Node) -> String {
    if n.name == "-" { n.kind.clone() } else { format!("{} {}", n.kind, n.name) }
}

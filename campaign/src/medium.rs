//! A disk of our own behind a file system in user space (FUSE): what was written and what was synced
//! are told apart, and the n-th write, sync or reservation fails as it is told to.
//!
//! A write is on the medium once a sync of its file has succeeded. What a failed sync should have
//! brought there is lost for good, and reads go on showing it: so do real disks behind a page cache.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use fuser::{
    FileAttr, FileType, Filesystem, MountOption, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyWrite, Request, TimeOrNow,
};

use crate::{
    mirror::{Image, lay_out},
    process::{Forked, Shared, Zeroed, exit, fork, nap},
};

/// What may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Write = 1,
    Sync = 2,
    Reserve = 3,
}

/// The server's desk, in shared pages.
#[derive(Debug)]
pub(crate) struct Desk {
    /// The [`Call`] that fails, after so many that do not, with which error, how often.
    call: AtomicU64,
    after: AtomicU64,
    errno: AtomicU64,
    times: AtomicU64,
    hits: AtomicU64,
    /// What the server is to do: see [`COPY`], [`EMPTY`], [`LEAVE`]; zero when done.
    order: AtomicU64,
    mounted: AtomicU64,
}

// SAFETY: atomics alone, for which zero is a value.
unsafe impl Zeroed for Desk {}

/// Copy what is on the medium; remove all; unmount and end.
const COPY: u64 = 1;
const EMPTY: u64 = 2;
const LEAVE: u64 = 3;

impl Desk {
    /// The error of this call, if its turn has come.
    fn fails(&self, call: Call) -> Option<i32> {
        // Relaxed: one server thread; the others write while nothing is under way.
        if self.call.load(Ordering::Relaxed) != call as u64 {
            return None;
        }
        let after = self.after.load(Ordering::Relaxed);
        if after > 0 {
            self.after.store(after - 1, Ordering::Relaxed);
            return None;
        }
        let times = self.times.load(Ordering::Relaxed);
        if times == 0 {
            return None;
        }
        self.times.store(times - 1, Ordering::Relaxed);
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(self.errno.load(Ordering::Relaxed) as i32)
    }
}

/// The mounted medium, served by a process of its own.
#[derive(Debug)]
pub(crate) struct Medium {
    desk: Shared<Desk>,
    server: Forked,
}

impl Medium {
    /// Mounts it at `at`; copies go to `copy`. Needs a private mount namespace.
    pub(crate) fn mount(at: &Path, copy: &Path) -> Result<Medium, String> {
        std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let desk: Shared<Desk> = Shared::new();
        let mut server = fork(|| serve(&desk, at, copy));
        for _ in 0..500 {
            // Acquire: meets the Release in `serve`.
            if desk.mounted.load(Ordering::Acquire) == 1 {
                return Ok(Medium { desk, server });
            }
            if let Some(end) = server.ended() {
                return Err(format!("FUSE cannot be mounted here ({end:?})"));
            }
            nap(Duration::from_millis(10));
        }
        Err("FUSE did not mount in time".to_owned())
    }

    /// From now on this call fails, after so many that do not.
    pub(crate) fn arm(&self, call: Call, after: u64, errno: i32, times: u64) {
        // Relaxed: nothing is under way.
        self.desk.after.store(after, Ordering::Relaxed);
        self.desk.errno.store(errno as u64, Ordering::Relaxed);
        self.desk.times.store(times, Ordering::Relaxed);
        self.desk.hits.store(0, Ordering::Relaxed);
        self.desk.call.store(call as u64, Ordering::Relaxed);
    }

    /// The disk is well again. For whoever works on it, too.
    pub(crate) fn heal(&self) {
        // Relaxed: takes effect with the next call or the one after.
        self.desk.times.store(0, Ordering::Relaxed);
    }

    /// Calls that failed since it was armed.
    pub(crate) fn hits(&self) -> u64 {
        self.desk.hits.load(Ordering::Relaxed)
    }

    /// Copies what is on the medium.
    pub(crate) fn copy(&mut self) -> Result<(), String> {
        self.order(COPY)
    }

    /// Removes everything.
    pub(crate) fn empty(&mut self) -> Result<(), String> {
        self.order(EMPTY)
    }

    fn order(&mut self, order: u64) -> Result<(), String> {
        // Release: met by the Acquire in `serve`.
        self.desk.order.store(order, Ordering::Release);
        // Acquire: meets the Release in `serve`.
        while self.desk.order.load(Ordering::Acquire) != 0 {
            if let Some(end) = self.server.ended() {
                return Err(format!("the FUSE server ended with {end:?}"));
            }
            nap(Duration::from_micros(50));
        }
        Ok(())
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        self.desk.order.store(LEAVE, Ordering::Release);
        _ = self.server.wait_or_kill(Duration::from_secs(2));
    }
}

/// The server process.
fn serve(desk: &Desk, at: &Path, copy: &Path) -> i32 {
    let tree = Arc::new(Mutex::new(Tree::new()));
    // The parent outlives its server, whose desk is in shared pages.
    let desk_at = std::ptr::from_ref(desk);
    // SAFETY: mapped until this process ends, which does not unmap it.
    let desk: &'static Desk = unsafe { &*desk_at };
    let options = [MountOption::FSName("snapring-campaign".to_owned())];
    let session = match fuser::spawn_mount2(Server { tree: tree.clone(), desk }, at, &options) {
        Ok(session) => session,
        Err(_) => return 1,
    };
    // Release: met by the Acquire in `mount`.
    desk.mounted.store(1, Ordering::Release);
    loop {
        // Acquire: meets the Release in `order`.
        match desk.order.load(Ordering::Acquire) {
            COPY => _ = lay_out(&lock(&tree).synced(), copy),
            EMPTY => lock(&tree).empty(),
            LEAVE => {
                drop(session);
                exit(0);
            }
            _ => {
                nap(Duration::from_micros(100));
                continue;
            }
        }
        // Release: met by the Acquire in `order`.
        desk.order.store(0, Ordering::Release);
    }
}

fn lock(tree: &Mutex<Tree>) -> MutexGuard<'_, Tree> {
    tree.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A change on its way to the medium.
#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// A file or a directory.
#[derive(Debug, Default)]
struct Node {
    parent: u64,
    name: String,
    is_dir: bool,
    written: Vec<u8>,
    pending: Vec<Change>,
    synced: Vec<u8>,
}

impl Node {
    fn apply(bytes: &mut Vec<u8>, change: &Change) {
        match change {
            Change::Write(at, data) => {
                bytes.resize(bytes.len().max(at + data.len()), 0);
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
            Change::Length(len) => bytes.resize(*len, 0),
        }
    }

    fn change(&mut self, change: Change) {
        Node::apply(&mut self.written, &change);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            Node::apply(&mut self.synced, &change);
        }
    }
}

#[derive(Debug)]
struct Tree {
    nodes: BTreeMap<u64, Node>,
    next: u64,
}

impl Tree {
    fn new() -> Tree {
        let root = Node { is_dir: true, ..Node::default() };
        Tree { nodes: BTreeMap::from([(1, root)]), next: 2 }
    }

    /// Numbers are not used twice, since the kernel remembers some.
    fn empty(&mut self) {
        self.nodes.retain(|ino, _| *ino == 1);
    }

    /// What is on the medium, wherever in the tree: there is one directory.
    fn synced(&self) -> Image {
        let files = self.nodes.values().filter(|node| !node.is_dir);
        files.map(|node| (node.name.clone(), node.synced.clone())).collect()
    }

    fn find(&self, parent: u64, name: &OsStr) -> Option<u64> {
        let name = name.to_str()?;
        let mut nodes = self.nodes.iter();
        nodes.find(|(_, n)| n.parent == parent && n.name == name).map(|(ino, _)| *ino)
    }

    fn make(&mut self, parent: u64, name: &OsStr, is_dir: bool) -> u64 {
        let ino = self.next;
        self.next += 1;
        let name = name.to_string_lossy().into_owned();
        self.nodes.insert(ino, Node { parent, name, is_dir, ..Node::default() });
        ino
    }

    fn attributes(&self, ino: u64) -> Option<FileAttr> {
        let node = self.nodes.get(&ino)?;
        let (kind, perm) =
            if node.is_dir { (FileType::Directory, 0o700) } else { (FileType::RegularFile, 0o600) };
        let size = node.written.len() as u64;
        let then = SystemTime::UNIX_EPOCH;
        Some(FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: then,
            mtime: then,
            ctime: then,
            crtime: then,
            kind,
            perm,
            nlink: if node.is_dir { 2 } else { 1 },
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

struct Server {
    tree: Arc<Mutex<Tree>>,
    desk: &'static Desk,
}

/// How long the kernel may remember names and attributes.
const REMEMBER: Duration = Duration::ZERO;

impl Server {
    fn answer(result: Option<()>, reply: ReplyEmpty) {
        match result {
            Some(()) => reply.ok(),
            None => reply.error(libc::ENOENT),
        }
    }
}

impl Filesystem for Server {
    fn lookup(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEntry) {
        let tree = lock(&self.tree);
        match tree.find(parent, name).and_then(|ino| tree.attributes(ino)) {
            Some(attributes) => reply.entry(&REMEMBER, &attributes, 0),
            None => reply.error(libc::ENOENT),
        }
    }

    fn getattr(&mut self, _: &Request<'_>, ino: u64, _: Option<u64>, reply: ReplyAttr) {
        match lock(&self.tree).attributes(ino) {
            Some(attributes) => reply.attr(&REMEMBER, &attributes),
            None => reply.error(libc::ENOENT),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn setattr(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<u64>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<u32>,
        reply: ReplyAttr,
    ) {
        let mut tree = lock(&self.tree);
        if let (Some(size), Some(node)) = (size, tree.nodes.get_mut(&ino)) {
            node.change(Change::Length(size as usize));
        }
        match tree.attributes(ino) {
            Some(attributes) => reply.attr(&REMEMBER, &attributes),
            None => reply.error(libc::ENOENT),
        }
    }

    fn mkdir(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        name: &OsStr,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let mut tree = lock(&self.tree);
        if tree.find(parent, name).is_some() {
            return reply.error(libc::EEXIST);
        }
        let ino = tree.make(parent, name, true);
        match tree.attributes(ino) {
            Some(attributes) => reply.entry(&REMEMBER, &attributes, 0),
            None => reply.error(libc::EIO),
        }
    }

    fn unlink(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEmpty) {
        let mut tree = lock(&self.tree);
        let found = tree.find(parent, name);
        Server::answer(found.and_then(|ino| tree.nodes.remove(&ino)).map(drop), reply);
    }

    fn rename(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        name: &OsStr,
        new_parent: u64,
        new_name: &OsStr,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let mut tree = lock(&self.tree);
        let Some(ino) = tree.find(parent, name) else { return reply.error(libc::ENOENT) };
        if let Some(old) = tree.find(new_parent, new_name) {
            tree.nodes.remove(&old);
        }
        if let Some(node) = tree.nodes.get_mut(&ino) {
            node.parent = new_parent;
            node.name = new_name.to_string_lossy().into_owned();
        }
        reply.ok();
    }

    fn create(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let mut tree = lock(&self.tree);
        if tree.find(parent, name).is_some() {
            return reply.error(libc::EEXIST);
        }
        let ino = tree.make(parent, name, false);
        match tree.attributes(ino) {
            Some(attributes) => reply.created(&REMEMBER, &attributes, 0, 0, 0),
            None => reply.error(libc::EIO),
        }
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _: u64,
        offset: i64,
        size: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyData,
    ) {
        let tree = lock(&self.tree);
        let Some(node) = tree.nodes.get(&ino) else { return reply.error(libc::ENOENT) };
        let from = (offset as usize).min(node.written.len());
        let to = (from + size as usize).min(node.written.len());
        reply.data(&node.written[from..to]);
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _: u64,
        offset: i64,
        data: &[u8],
        _: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyWrite,
    ) {
        if let Some(errno) = self.desk.fails(Call::Write) {
            return reply.error(errno);
        }
        let mut tree = lock(&self.tree);
        let Some(node) = tree.nodes.get_mut(&ino) else { return reply.error(libc::ENOENT) };
        node.change(Change::Write(offset as usize, data.to_vec()));
        reply.written(data.len() as u32);
    }

    fn flush(&mut self, _: &Request<'_>, _: u64, _: u64, _: u64, reply: ReplyEmpty) {
        // At a close: promises nothing.
        reply.ok();
    }

    fn fsync(&mut self, _: &Request<'_>, ino: u64, _: u64, _: bool, reply: ReplyEmpty) {
        let mut tree = lock(&self.tree);
        let Some(node) = tree.nodes.get_mut(&ino) else { return reply.error(libc::ENOENT) };
        if let Some(errno) = self.desk.fails(Call::Sync) {
            // Lost for good; only a length, which the file system keeps itself, comes later.
            node.pending.retain(|change| matches!(change, Change::Length(_)));
            return reply.error(errno);
        }
        node.sync();
        reply.ok();
    }

    fn fsyncdir(&mut self, _: &Request<'_>, _: u64, _: u64, _: bool, reply: ReplyEmpty) {
        match self.desk.fails(Call::Sync) {
            Some(errno) => reply.error(errno),
            None => reply.ok(),
        }
    }

    fn fallocate(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _: u64,
        offset: i64,
        length: i64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        if let Some(errno) = self.desk.fails(Call::Reserve) {
            return reply.error(errno);
        }
        let mut tree = lock(&self.tree);
        let Some(node) = tree.nodes.get_mut(&ino) else { return reply.error(libc::ENOENT) };
        let end = (offset + length) as usize;
        if end > node.written.len() {
            node.change(Change::Length(end));
        }
        reply.ok();
    }

    fn readdir(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _: u64,
        offset: i64,
        mut reply: ReplyDirectory,
    ) {
        let tree = lock(&self.tree);
        let children = tree.nodes.iter().filter(|(child, n)| n.parent == ino && **child != 1);
        for (at, (child, node)) in children.enumerate().skip(offset as usize) {
            let kind = if node.is_dir { FileType::Directory } else { FileType::RegularFile };
            if reply.add(*child, at as i64 + 1, kind, &node.name) {
                break;
            }
        }
        reply.ok();
    }
}

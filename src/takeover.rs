#![forbid(unsafe_code)]
//! Taking a ring over from a predecessor that still serves: the successor's half of `handover.rs`.
//!
//! All that can be done while the predecessor serves is done first: the files are mapped, and their
//! pages made present. Nothing is written before the word *taken* has been sent, and nothing is
//! written if that fails: then the predecessor has gone on, or is dead and the lock is to be had.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    clock,
    directory::Directory,
    engine::{CheckFn, Engine, Place, Use},
    error::OpenError,
    file::MappedFile,
    handover::SOCKET_NAME,
    header::{Side, Uuid, data_at, slot_pages},
    id::SnapshotId,
    open::{Opened, Whole, find, finish, floors, look_at, open_on, pair},
    options::Options,
    os::{self, socket},
    record::Extent,
    recover::{Ground, Survey, blocks_of, survey},
    runs::{Run, Table},
    schema::Layout,
    storage::{Storage, SystemFile},
    wire::{self, HeldPlace, Hello, Kind, Yours},
};

/// How often a predecessor is looked for.
const AGAIN: Duration = Duration::from_millis(2);
/// How long nobody may listen at a socket before there is nobody to take over from.
const SILENT: Duration = Duration::from_millis(250);
/// How long a process that ends may take from its first closed descriptor to its last.
const ENDING: Duration = Duration::from_secs(1);

/// An engine, and what its predecessor still holds.
pub(crate) struct TakenOver {
    pub(crate) engine: Engine,
    pub(crate) held: Option<(Vec<HeldPlace>, UnixStream)>,
}

/// What the caller opens with.
pub(crate) struct Opening<'a> {
    pub(crate) options: &'a Options,
    pub(crate) layout: Arc<Layout>,
    pub(crate) check: CheckFn,
}

/// A place that the predecessor reads and nothing lists: its blocks, claimed.
struct Unlisted {
    held: HeldPlace,
    run: u64,
    /// Of its pages.
    runs: Vec<Run>,
}

/// Why it did not work this time.
enum Setback {
    /// For good.
    Error(OpenError),
    /// Worth another try.
    Again(String),
    /// Everything was there but the predecessor's ear: it has gone on, or it is dead, and then these
    /// are ours and the lock is to be had.
    Unheard(Vec<OwnedFd>),
}

impl From<OpenError> for Setback {
    fn from(error: OpenError) -> Setback {
        Setback::Error(error)
    }
}

/// Where in a hand-over something went wrong.
fn again(doing: &'static str) -> impl FnOnce(io::Error) -> Setback {
    move |e| Setback::Again(format!("{doing}: {e}"))
}

/// The ring in a directory, from whoever has it, or as usual where nobody does.
pub(crate) fn open(
    path: &Path,
    opening: &Opening<'_>,
    timeout: Duration,
) -> Result<TakenOver, OpenError> {
    opening.options.check()?;
    // From here on a forked child knows that it is one.
    os::forked();
    let until = clock::deadline(timeout);
    let mut reason = None;
    let mut unheard = (Vec::new(), until);
    loop {
        let directory = Directory::find(path, opening.options)?;
        if directory.try_lock()? {
            let (options, layout) = (opening.options, opening.layout.clone());
            let engine = open_on(Box::new(directory), options, layout, opening.check)?;
            *engine.handed.inherited.lock() = unheard.0;
            return Ok(TakenOver { engine, held: None });
        }
        if Instant::now() >= unheard.1 {
            // Somebody has it and lives: what was passed on to us is theirs.
            unheard.0.clear();
        }
        if let Ok(stream) = UnixStream::connect(directory.short_path(SOCKET_NAME)) {
            match opening.take_directory(directory, stream, until) {
                Ok(taken) => return Ok(taken),
                Err(Setback::Error(error)) => return Err(error),
                Err(Setback::Again(why)) => reason = Some(why),
                Err(Setback::Unheard(descriptors)) => {
                    reason = Some("it waited no longer".to_owned());
                    unheard = (descriptors, clock::deadline(ENDING));
                    continue;
                }
            }
        } else if Instant::now() >= until && reason.is_none() {
            return Err(directory.in_use());
        }
        if let (true, Some(reason)) = (Instant::now() >= until, &reason) {
            let (path, reason) = (path.to_owned(), reason.clone());
            return Err(OpenError::NotHandedOver { path, reason });
        }
        thread::sleep(AGAIN);
    }
}

/// The ring in memory of whoever listens at `path`.
pub(crate) fn in_memory(
    path: &Path,
    opening: &Opening<'_>,
    timeout: Duration,
) -> Result<TakenOver, OpenError> {
    opening.options.check()?;
    os::forked();
    let until = clock::deadline(timeout);
    let mut reason = None;
    let silent = clock::deadline(SILENT);
    loop {
        if let Ok(stream) = UnixStream::connect(path) {
            match opening.take_memory(path, stream, until) {
                Ok(taken) => return Ok(taken),
                Err(Setback::Error(error)) => return Err(error),
                Err(Setback::Again(why)) => reason = Some(why),
                Err(Setback::Unheard(_)) => reason = Some("it waited no longer".to_owned()),
            }
        }
        let now = Instant::now();
        if now >= until || (now >= silent && reason.is_none()) {
            let path = path.to_owned();
            return Err(match reason {
                Some(reason) => OpenError::NotHandedOver { path, reason },
                None => OpenError::NoPredecessor { path },
            });
        }
        thread::sleep(AGAIN);
    }
}

/// What a predecessor has said.
struct Said {
    yours: Yours,
    lock: File,
    inherited: Vec<OwnedFd>,
}

impl Opening<'_> {
    fn take_directory(
        &self,
        mut directory: Directory,
        stream: UnixStream,
        until: Instant,
    ) -> Result<TakenOver, Setback> {
        let welcome = self.knock(directory.path(), &stream, until)?;
        let mut sides = Vec::new();
        for side in Side::BOTH {
            sides.push(find(&directory, self.options, side)?);
        }
        let sides = Seen::of(sides)?;
        sides.make_present(wire::decode_welcome(&welcome.body).map_err(again("its welcome"))?);
        let Said { yours, lock, inherited } = receive(&stream, until)?;
        if !directory.adopt_lock(lock).map_err(again("its lock"))? {
            return Err(Setback::Again("what it passed on is not the writer lock".to_owned()));
        }
        sides.take(self, Some(Box::new(directory)), None, (yours, inherited), stream)
    }

    fn take_memory(
        &self,
        path: &Path,
        stream: UnixStream,
        until: Instant,
    ) -> Result<TakenOver, Setback> {
        let welcome = self.knock(path, &stream, until)?;
        let used = wire::decode_welcome(&welcome.body).map_err(again("its welcome"))?;
        let [a, b] = <[OwnedFd; 2]>::try_from(welcome.descriptors)
            .map_err(|some| Setback::Again(format!("it sent {} memory files", some.len())))?;
        let mut sides = Vec::new();
        let mut own_a = None;
        for (side, fd) in Side::BOTH.into_iter().zip([a, b]) {
            if !socket::never_shrinks(fd.as_fd()) {
                let what = "its memory is not sealed against getting shorter";
                return Err(Setback::Again(what.to_owned()));
            }
            // With a description of our own: the lock on the predecessor's is not ours yet.
            let file = socket::open_again(fd.as_fd()).map_err(again("opening its memory"))?;
            if side == Side::A {
                own_a = Some(file.try_clone().map_err(again("opening its memory"))?);
            }
            let file = Box::new(SystemFile(file));
            sides.push(look_at(path.join(side.file_name()), file, self.options, side)?);
        }
        let sides = Seen::of(sides)?;
        sides.make_present(used);
        let Said { yours, lock, inherited } = receive(&stream, until)?;
        let Some(own_a) = own_a else { return Err(Setback::Again("no memory".to_owned())) };
        let same = crate::directory::is_same_lock(&own_a, &lock).map_err(again("its lock"))?;
        if !same {
            return Err(Setback::Again("what it passed on is not the writer lock".to_owned()));
        }
        sides.take(self, None, Some((lock, own_a)), (yours, inherited), stream)
    }

    /// Says who comes, and hears whether it is welcome.
    fn knock(
        &self,
        path: &Path,
        stream: &UnixStream,
        until: Instant,
    ) -> Result<wire::Frame, Setback> {
        let (user, process) = socket::peer(stream).map_err(again("asking who it is"))?;
        if user != os::effective_user() {
            let reason = format!("a process of user {user} offers it; use a directory of your own");
            let path = path.to_owned();
            return Err(Setback::Error(OpenError::Untrusted { path, reason }));
        }
        let hello = Hello {
            fingerprint: self.layout.fingerprint.to_bytes(),
            text: self.layout.text.clone(),
        };
        wire::send(stream, Kind::Hello, &hello.encode(), &[], until)
            .map_err(again("greeting it"))?;
        let answer = wire::receive(stream, until).map_err(again("its answer"))?;
        match answer.kind {
            Kind::Welcome => Ok(answer),
            Kind::Refused => Err(Setback::Error(OpenError::Layout {
                path: path.to_owned(),
                process: format!("process {process}"),
                difference: wire::words(&answer.body),
            })),
            other => Err(Setback::Again(format!("{other:?} where an answer was due"))),
        }
    }
}

/// Says that all is ready, and waits for what is handed over.
fn receive(stream: &UnixStream, until: Instant) -> Result<Said, Setback> {
    wire::send(stream, Kind::Ready, &[], &[], until).map_err(again("telling that all is ready"))?;
    let frame = wire::expect(stream, Kind::Yours, until).map_err(again("waiting for it"))?;
    let yours = Yours::decode(&frame.body).map_err(again("what it hands over"))?;
    let [lock] = <[OwnedFd; 1]>::try_from(frame.descriptors)
        .map_err(|some| Setback::Again(format!("it sent {} locks", some.len())))?;
    let count = yours.descriptors as usize;
    let mut inherited = Vec::new();
    while inherited.len() < count {
        let more = wire::expect(stream, Kind::More, until).map_err(again("its descriptors"))?;
        if more.descriptors.is_empty() || inherited.len() + more.descriptors.len() > count {
            let (have, more) = (inherited.len(), more.descriptors.len());
            return Err(Setback::Again(format!("{more} descriptors after {have} of {count}")));
        }
        inherited.extend(more.descriptors);
    }
    Ok(Said { yours, lock: lock.into(), inherited })
}

/// Both files of a ring that its predecessor still writes, mapped and not looked into.
struct Seen([Box<Whole>; 2]);

impl Seen {
    fn of(sides: Vec<Opened>) -> Result<Seen, Setback> {
        let whole = |side| match side {
            Opened::Whole(whole) => Some(whole),
            Opened::Missing | Opened::Damaged => None,
        };
        let sides: Vec<Box<Whole>> = sides.into_iter().filter_map(whole).collect();
        let sides = <[Box<Whole>; 2]>::try_from(sides)
            .map_err(|_| Setback::Again("one of the two files is missing or damaged".to_owned()))?;
        let [a, b] = &sides;
        if a.header.ring_id != b.header.ring_id || a.header.ring != b.header.ring {
            return Err(Setback::Again("the two files are of different rings".to_owned()));
        }
        Ok(Seen(sides))
    }

    /// Has the kernel map the pages in use. No byte is looked at: they still change.
    fn make_present(&self, used: [u64; 2]) {
        for (whole, used) in self.0.iter().zip(used) {
            // What cannot be had now comes page by page.
            _ = whole.file.populate(0, used.min(whole.file.len()), false);
        }
    }

    /// The predecessor writes no more: finds what it left, says that it is taken, and takes it.
    /// `memory`: of a ring in memory, the lock that was passed on, and the same file of our own.
    fn take(
        self,
        opening: &Opening<'_>,
        storage: Option<Box<dyn Storage>>,
        mut memory: Option<(File, File)>,
        (yours, inherited): (Yours, Vec<OwnedFd>),
        stream: UnixStream,
    ) -> Result<TakenOver, Setback> {
        let (user, process) = socket::peer(&stream).map_err(again("asking who it is"))?;
        debug_assert_eq!(user, os::effective_user(), "asked before");
        for whole in &self.0 {
            if !whole.file.catch_up().map_err(again("its files"))? {
                return Err(Setback::Again(
                    "a file has grown beyond `Options::max_file_size`".to_owned(),
                ));
            }
        }
        let ring_id = self.0[0].header.ring_id;
        let mut options = opening.options.clone();
        options.ring = self.0[0].header.ring;
        options.check()?;
        let file_ids = self.0.each_ref().map(|whole| whole.header.file_id);
        let boot = storage.as_ref().map_or_else(|| Uuid(os::boot_id()), |s| s.boot());
        let files = pair(self.0.into_iter().map(|whole| whole.file).collect());
        let floors = floors(files.each_ref().map(Some), storage.as_deref(), ring_id);
        let mut found = survey(&Ground {
            files: files.each_ref().map(Some),
            file_ids,
            ring: options.ring,
            boot,
            floors: &floors,
            layout: &opening.layout,
            check: opening.check,
            max_depth: options.max_depth,
        });
        let floor = floors.iter().map(|floor| floor.floor).max().unwrap_or(0);
        let unlisted = believe(&yours, &mut found, &files, floor, options.ring)?;
        found.recovery.predecessor = Some(process);
        // What can fail fails now: this is opened once more below.
        storage.as_ref().map_or(Ok(None), |storage| storage.leases())?;

        // From here on it is ours, or the predecessor's, and never both's.
        let until = clock::deadline(Duration::from_secs(1));
        if wire::send(&stream, Kind::Taken, &[], &[], until).is_err() {
            // Not heard: either it lives and has gone on, and holds the lock; or it is dead, and
            // without our share of it the lock is free.
            let Some((theirs, own)) = memory.take() else {
                return Err(Setback::Unheard(inherited));
            };
            drop(theirs);
            let ended = clock::deadline(ENDING);
            while !os::try_lock(&own).is_ok_and(|locked| locked) {
                if Instant::now() >= ended {
                    return Err(Setback::Unheard(inherited));
                }
                thread::sleep(AGAIN);
            }
            let ours = own.try_clone().map_err(again("its memory"))?;
            memory = Some((ours, own));
        }
        if let Some(directory) = storage.as_deref().and_then(|s| s.directory()) {
            directory.keep_lock(true);
            // For people to read.
            _ = directory.sign();
        }
        let (layout, check) = (opening.layout.clone(), opening.check);
        let (floor, held) = (Some(floor), yours.held);
        let engine =
            finish(files, file_ids, ring_id, boot, options, storage, found, layout, check, floor)?;
        engine.retain_unlisted(unlisted);
        *engine.handed.inherited.lock() = inherited;
        *engine.handed.memory_lock.lock() = memory.map(|(lock, _)| lock);
        let held = (!held.is_empty()).then_some((held, stream));
        Ok(TakenOver { engine, held })
    }
}

/// Compares what was said with what was found. Answers the places that are held and not listed,
/// their blocks claimed.
fn believe(
    yours: &Yours,
    found: &mut Survey,
    files: &[MappedFile; 2],
    floor: u64,
    ring: u32,
) -> Result<Vec<Unlisted>, Setback> {
    let no = |what: String| Err(Setback::Again(what));
    let newest = found.snapshots.first().map_or(0, |(_, place)| place.id);
    if newest != yours.head {
        let why =
            found.recovery.rejected.first().map_or(String::new(), |slot| format!(" ({slot})"));
        return no(format!(
            "its newest snapshot is {}, found was {}{why}",
            shown(yours.head),
            shown(newest)
        ));
    }
    if yours.next <= newest || yours.next > floor {
        return no(format!("ids cannot go on at {} below {floor}", yours.next));
    }
    found.next_id = yours.next;
    for (_, place) in &mut found.snapshots {
        // Set a moment ago, perhaps, and not on the disk.
        place.label_dirty |= place.label.is_some();
    }
    let slots = slot_pages(ring);
    let mut unlisted: Vec<Unlisted> = Vec::new();
    for (i, held) in yours.held.iter().enumerate() {
        let HeldPlace { number, id, offset, len, pages } = *held;
        // Runs of its pages come after its archive.
        let fits = if pages {
            i > 0 && (yours.held[i - 1].number, yours.held[i - 1].id) == (number, id)
        } else {
            !yours.held[..i].iter().any(|other| other.number == number)
        };
        if u32::from(number) >= 2 * slots || !fits {
            return no(format!("there is no place {number}, or it is held twice"));
        }
        match found.snapshots.iter().find(|(n, _)| *n == number) {
            Some((_, place)) if place.id == id => continue,
            Some(_) => return no(format!("place {number} does not hold {}", shown(id))),
            None => {}
        }
        let side = u32::from(number) / slots;
        let blocks = blocks_of(Extent { offset, len: len.max(1), crc: 0 }, data_at(ring))
            .ok()
            .filter(|_| files[side as usize].len() >= offset.saturating_add(len));
        let Some(blocks) = blocks else { return no(format!("{len} bytes at {offset} are held")) };
        let run = Run { start: blocks.start, blocks: blocks.end - blocks.start };
        if !found.extents[side as usize].claim(blocks) {
            return no(format!("the {len} bytes held at {offset} are another snapshot's"));
        }
        match unlisted.last_mut() {
            Some(place) if pages => place.runs.push(run),
            _ => unlisted.push(Unlisted { held: *held, run: run.start, runs: Vec::new() }),
        }
    }
    Ok(unlisted)
}

impl Engine {
    /// Places whose bytes the predecessor still reads, and which are not listed: they are freed when
    /// it lets go.
    fn retain_unlisted(&self, unlisted: Vec<Unlisted>) {
        let mut state = self.lock();
        for Unlisted { held, run, runs } in unlisted {
            let n = usize::from(held.number);
            if state.places[n].state != Use::Free {
                // A reader in another process leases it too, and it has been taken in for that: one
                // claim is enough.
                let extents = &mut state.spaces[n / self.slots()].extents;
                extents.release(run);
                runs.iter().for_each(|run| extents.release(run.start));
                continue;
            }
            let (side, index) = (self.side_of(n), (n % self.slots()) as u16);
            state.spaces[side.index()].free.retain(|free| *free != index);
            let root = Extent { offset: held.offset, len: held.len, crc: 0 };
            let table = (!runs.is_empty()).then(|| Arc::new(Table { runs, ..Table::default() }));
            state.places[n] =
                Place { state: Use::Sealed, id: held.id, root, run, table, ..Place::free() };
            state.limbo.push(held.number);
        }
    }
}

/// An id, for messages; 0 is none.
fn shown(id: u64) -> String {
    if id == 0 { "none".to_owned() } else { SnapshotId::new(id).to_string() }
}

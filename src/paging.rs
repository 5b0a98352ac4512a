#![forbid(unsafe_code)]
//! Which of a captured state's pages a side of the ring has already, and which are to be written; then
//! the table and the references that make a snapshot of them.
//!
//! Each side knows the pages of its newest snapshot by their stamps. Equal stamps mean equal content,
//! so a page that is known is shared: its run gets one user more. Every snapshot is complete on its
//! own, and a run is free when nobody refers to any page in it.
//!
//! Knows pages, runs and stamps. Whose pages they are is for `paged/`, the archive that refers to them
//! for `save.rs`.

use std::{
    collections::{BTreeSet, HashMap},
    hash::BuildHasherDefault,
    ops::Range,
    sync::Arc,
    thread,
};

use rkyv::hash::FxHasher64;

use crate::{
    engine::{Engine, State, Use, blocks_for},
    error::SaveError,
    file::BLOCK,
    header::Side,
    page_writer::{ASIDE, Aside, PACK, PageAt, Part, Runs, Writer},
    paged::stamp::Stamp,
    record::Extent,
    runs::{Field, Run, Table},
    save::Inside,
    scratch::Scratch,
    session::{Later, REF_LEN},
};

type Map<V> = HashMap<Stamp, V, BuildHasherDefault<FxHasher64>>;

/// Pages for which a thread more is worth waking.
const SHARE: usize = 256;

/// The most threads that write pages.
const THREADS: usize = 4;

type Chunk = Arc<[(Stamp, PageAt)]>;

/// What a side knows of the pages of its newest snapshot.
#[derive(Debug)]
pub(crate) struct Known {
    place: usize,
    id: u64,
    /// The logical version of the last snapshot of which all pages were written.
    full: u64,
    /// Bytes of all pages, with those between them.
    packed: u64,
    /// By the stamps of chunks: where that is known, all pages of the chunk are.
    chunks: Map<Chunk>,
}

/// Where a page comes from.
#[derive(Clone, Copy)]
enum Source {
    Known(PageAt),
    /// It is to be written, as this one in the list of those.
    New(usize),
}

/// What is to be done for a snapshot's pages.
struct Plan {
    /// For each chunk of each field: its name, and its pages where they are all known.
    chunks: Vec<(Stamp, Range<usize>, Option<Chunk>)>,
    /// The pages of the other chunks, one after the other.
    pages: Vec<(Stamp, Source)>,
    /// The pages to be written: the field, and the page in it.
    new: Vec<(usize, usize)>,
    total: usize,
}

/// A snapshot's pages, written, and what there is to say about them.
pub(crate) struct Pages<'e> {
    runs: Runs<'e>,
    /// What has no room before something leaves.
    aside: Aside,
    /// Where each field's references lie in the archive, and its pages.
    fields: Vec<(usize, Vec<(Stamp, PageAt)>)>,
    chunks: Map<Chunk>,
    full: u64,
    table: Table,
    /// The deepest pointer in any page.
    pub(crate) depth: u32,
    /// Bytes written for them, table included.
    pub(crate) written: u64,
    /// Pages written, and pages in all.
    counts: (u64, u64),
}

impl Plan {
    fn new(later: &[Later], known: Option<&Known>) -> Plan {
        let lost = known.map(|known| lost_pages(known, later)).unwrap_or_default();
        let mut plan = Plan { chunks: Vec::new(), pages: Vec::new(), new: Vec::new(), total: 0 };
        // A page that is there twice is written once.
        let pages = if known.is_some() { 0 } else { later.iter().map(|l| l.field.pages()).sum() };
        let mut new: Map<usize> = Map::with_capacity_and_hasher(pages, Default::default());
        for (at, field) in later.iter().enumerate() {
            for (range, stamp) in chunks_of(field) {
                plan.total += range.len();
                let chunk = known.and_then(|known| known.chunks.get(&stamp));
                let chunk = chunk.filter(|chunk| chunk.len() == range.len()).cloned();
                if chunk.is_none() {
                    for page in range.clone() {
                        let name = field.field.stamp(page);
                        let source = match lost.get(&name) {
                            Some(there) => Source::Known(*there),
                            None => Source::New(*new.entry(name).or_insert_with(|| {
                                plan.new.push((at, page));
                                plan.new.len() - 1
                            })),
                        };
                        plan.pages.push((name, source));
                    }
                }
                plan.chunks.push((stamp, range, chunk));
            }
        }
        plan
    }
}

/// The chunks of a field.
fn chunks_of(later: &Later) -> impl Iterator<Item = (Range<usize>, Stamp)> {
    let mut next = 0;
    std::iter::from_fn(move || {
        (next < later.field.pages()).then(|| {
            let (range, stamp) = later.field.chunk(next);
            next = range.end;
            (range, stamp)
        })
    })
}

/// The pages of chunks that are not there any more: some of them may be in others now.
fn lost_pages(known: &Known, later: &[Later]) -> Map<PageAt> {
    let stamps: Map<()> = later.iter().flat_map(chunks_of).map(|(_, stamp)| (stamp, ())).collect();
    if stamps.keys().all(|stamp| known.chunks.contains_key(stamp)) {
        return Map::default();
    }
    let lost = || known.chunks.iter().filter(|(stamp, _)| !stamps.contains_key(*stamp));
    let pages = lost().map(|(_, chunk)| chunk.len()).sum();
    let mut all = Map::with_capacity_and_hasher(pages, Default::default());
    all.extend(lost().flat_map(|(_, chunk)| chunk.iter().copied()));
    all
}

impl Engine {
    /// What a side knows of the pages that it has, if they are there still; one user more of each run.
    fn known<'e>(&'e self, side: Side, runs: &mut Runs<'e>) -> Option<Arc<Known>> {
        let mut state = self.lock();
        let known = state.spaces[side.index()].known.clone()?;
        let place = &state.places[known.place];
        let there = place.state == Use::Sealed && place.id == known.id && !place.tainted;
        let table = place.table.clone().filter(|_| there)?;
        let total: u64 = table.runs.iter().map(|run| run.blocks * BLOCK).sum();
        if total > 2 * known.packed + (1 << 20) {
            // More than half of what is kept is kept for nobody.
            return None;
        }
        let extents = &mut state.spaces[side.index()].extents;
        for run in &table.runs {
            extents.share(run.start);
            runs.shared.push(run.start);
        }
        Some(known)
    }

    /// Takes note of the pages of a snapshot that was found, is held and has passed every check, if it is
    /// the newest of its side: the next one there need not write them again. `false`: it is not, or their
    /// names contradict each other or the other side's, as in no honest files.
    pub(crate) fn learn(&self, n: usize) -> bool {
        let side = self.side_of(n);
        // Their bytes stay as they are while they are compared.
        let mut shared = Runs::new(self, side.other());
        let other = self.known(side.other(), &mut shared);
        let (table, root, id, logical, depth) = {
            let state = self.lock();
            let newest = state.listed.iter().find(|n| self.side_of(usize::from(**n)) == side);
            let place = &state.places[n];
            let Some(table) = place.table.clone() else { return false };
            if state.spaces[side.index()].known.is_some() || newest.copied() != Some(n as u16) {
                return false;
            }
            (table, place.root, place.id, place.logical, place.depth)
        };
        // How deep each is nobody knows; none is deeper than this.
        let height = depth.saturating_sub(1);
        let archive = self.files[side.index()].retained(root);
        let mut pages: Vec<(Stamp, PageAt)> = Vec::new();
        for page in table.fields.iter().flat_map(|f| f.references(archive, root.offset)) {
            let block = page.offset.saturating_sub(self.data_at()) / BLOCK;
            let before = table.runs.partition_point(|run| run.start <= block);
            let Some(run) = before.checked_sub(1).map(|i| table.runs[i].start) else {
                return false;
            };
            let (offset, len, crc) = (page.offset, page.len, page.crc);
            pages.push((page.stamp, PageAt { offset, len, crc, run, height }));
        }
        let bytes = |side: Side, at: &PageAt| {
            let extent = Extent { offset: at.offset, len: u64::from(at.len), crc: 0 };
            self.files[side.index()].retained(extent)
        };
        let mut names: Map<PageAt> = Map::default();
        for (stamp, at) in &pages {
            let twin = names.insert(*stamp, *at);
            if twin.is_some_and(|twin| bytes(side, &twin) != bytes(side, at)) {
                return false;
            }
        }
        let others = other.iter().flat_map(|known| known.chunks.values()).flat_map(|c| c.iter());
        for (stamp, at) in others {
            if names.get(stamp).is_some_and(|ours| bytes(side, ours) != bytes(side.other(), at)) {
                return false;
            }
        }
        let packed = pages.iter().map(|(_, at)| u64::from(at.len).next_multiple_of(PACK)).sum();
        // Under a name that nobody asks for: it is looked through page by page.
        let chunks = std::iter::once((Stamp::next(), pages.into())).collect();
        let known = Known { place: n, id, full: logical, packed, chunks };
        let mut state = self.lock();
        state.spaces[side.index()].known.get_or_insert_with(|| Arc::new(known));
        true
    }

    /// Writes what `later` leaves to be written to a side, and refers to the rest; by several threads,
    /// if `many` are welcome. Changes nothing that is listed: what has no room waits in memory, for
    /// [`Pages::settle`] (P5).
    pub(crate) fn write_pages<'e>(
        &'e self,
        side: Side,
        later: &[Later],
        scratch: &mut Scratch,
        many: bool,
    ) -> Result<Pages<'e>, SaveError> {
        let mut runs = Runs::new(self, side);
        let mut known = self.known(side, &mut runs);
        let logical = {
            let state = self.lock();
            let newest = state.listed.front().map(|n| &state.places[usize::from(*n)]);
            newest.map_or(1, |newest| newest.logical + 1)
        };
        let mut plan = Plan::new(later, known.as_deref());
        if let Some(base) = &known {
            let versions = logical.saturating_sub(base.full);
            if self.options.policy.is_whole(plan.new.len(), plan.total, versions) {
                known = None;
                runs = Runs::new(self, side);
                plan = Plan::new(later, None);
            }
        }
        loop {
            let mut aside = Aside::default();
            let (new, written) =
                self.write_new((&mut runs, &mut aside), later, &plan.new, scratch, many)?;
            let (fields, chunks) =
                (later.iter().map(|l| (l.refs, Vec::new())).collect(), Map::default());
            let mut pages = Pages {
                runs,
                aside,
                fields,
                chunks,
                full: known.as_ref().map_or(logical, |known| known.full),
                table: Table::default(),
                depth: 0,
                written,
                counts: (new.len() as u64, plan.total as u64),
            };
            pages.assemble(later, plan, &new);
            let max = self.options.max_depth;
            match known.take() {
                _ if pages.depth <= max => return Ok(pages),
                // How deep what was found is, is not known so well.
                Some(_) => (runs, plan) = (Runs::new(self, side), Plan::new(later, None)),
                None => return Err(SaveError::TooDeep { max }),
            }
        }
    }

    /// Writes pages; answers where each is, and the bytes written.
    fn write_new<'e>(
        &'e self,
        (runs, aside): (&mut Runs<'e>, &mut Aside),
        later: &[Later],
        new: &[(usize, usize)],
        scratch: &mut Scratch,
        many: bool,
    ) -> Result<(Vec<PageAt>, u64), SaveError> {
        let side = runs.side;
        // In a simulation one thread is all.
        #[cfg(feature = "campaign")]
        let many = many && !self.queues_captures();
        let cores = if many { thread::available_parallelism().map_or(1, usize::from) } else { 1 };
        let threads = cores.min(THREADS).min(new.len() / SHARE).max(1);
        let write = |share: &[(usize, usize)], scratch: Scratch| {
            let mut writer = Writer::new(self, side, share.len(), scratch);
            for (field, page) in share {
                writer.write(&later[*field], *page)?;
            }
            Ok(writer.end())
        };
        let mut shares = new.chunks(new.len().div_ceil(threads).max(1));
        let first = shares.next().unwrap_or_default();
        let own = std::mem::take(scratch);
        let written: Vec<Result<Part<'e>, SaveError>> = thread::scope(|scope| {
            let other = |share: &[(usize, usize)]| {
                // The state's own code may call back from here, too.
                let _inside = Inside::enter(self);
                write(share, Scratch::default())
            };
            let spawn = |share| {
                let thread = thread::Builder::new().name("snapring-pages".to_owned());
                thread.spawn_scoped(scope, move || other(share)).map_err(|_| share)
            };
            let others: Vec<_> = shares.map(spawn).collect();
            let own = write(first, own);
            let others = others.into_iter().map(|thread| match thread.map(|t| t.join()) {
                Ok(Ok(written)) => written,
                // The state's own code: told as if it had been here.
                Ok(Err(payload)) => std::panic::resume_unwind(payload),
                // Where no thread can be had, it is done here.
                Err(share) => write(share, Scratch::default()),
            });
            std::iter::once(own).chain(others).collect()
        });
        let (mut pages, mut bytes) = (Vec::with_capacity(new.len()), 0);
        let parts: Vec<Part<'e>> = written.into_iter().collect::<Result<_, _>>()?;
        for part in parts {
            bytes += part.written;
            let (there, kept) = part.finish(runs, aside);
            pages.extend(there);
            *scratch = kept;
        }
        Ok((pages, bytes))
    }
}

impl Pages<'_> {
    /// Puts the pages in order.
    fn assemble(&mut self, later: &[Later], plan: Plan, new: &[PageAt]) {
        let mut pages = plan.pages.into_iter();
        let mut chunks = plan.chunks.into_iter();
        for (field, later) in self.fields.iter_mut().zip(later) {
            field.1.reserve(later.field.pages());
            while field.1.len() < later.field.pages() {
                let Some((stamp, range, chunk)) = chunks.next() else { return };
                let chunk = chunk.unwrap_or_else(|| {
                    let there = pages.by_ref().take(range.len()).map(|(name, source)| {
                        let at = match source {
                            Source::Known(at) => at,
                            Source::New(at) => new[at],
                        };
                        (name, at)
                    });
                    there.collect()
                });
                field.1.extend(chunk.iter().copied());
                let deepest = chunk.iter().map(|(_, at)| later.depth + at.height).max();
                self.depth = self.depth.max(deepest.unwrap_or(0));
                self.chunks.insert(stamp, chunk);
            }
        }
    }

    /// Bytes of what waits aside, and of the table behind it.
    fn to_come(&self) -> u64 {
        // One run more may come with the table itself.
        let runs = self.runs.shared.len() + self.runs.fresh.len() + 1;
        let aside = (self.aside.bytes().len() as u64).next_multiple_of(PACK);
        aside + Table::len(self.fields.len(), runs)
    }

    /// Blocks that are still to be found for it.
    pub(crate) fn need(&self) -> u64 {
        let bytes = self.to_come();
        if self.runs.left() >= bytes { 0 } else { blocks_for(bytes) }
    }

    /// Puts what waits aside, and the table, into a run that was taken for them, or into one for which
    /// the oldest snapshots leave: all has been archived by now (P5).
    pub(crate) fn settle(&mut self, run: Option<Run>) -> Result<(), SaveError> {
        match run {
            Some(run) => self.runs.begin(run),
            None => self.runs.provide(self.to_come())?,
        }
        if !self.aside.bytes().is_empty() {
            let (to, run) = self.runs.put(self.aside.bytes());
            let put = |(_, at): &mut (Stamp, PageAt)| {
                if at.run == ASIDE {
                    (at.offset, at.run) = (at.offset + to, run);
                }
            };
            self.fields.iter_mut().for_each(|(_, pages)| pages.iter_mut().for_each(put));
            for chunk in self.chunks.values_mut() {
                if chunk.iter().any(|(_, at)| at.run == ASIDE) {
                    let mut pages = chunk.to_vec();
                    pages.iter_mut().for_each(put);
                    *chunk = pages.into();
                }
            }
        }
        self.make_table();
        Ok(())
    }

    /// Writes the table, for which there is room: which runs there are, and where references lie.
    fn make_table(&mut self) {
        let pages = || self.fields.iter().flat_map(|(_, pages)| pages);
        let used: BTreeSet<u64> = pages().map(|(_, at)| at.run).collect();
        let bytes = pages().map(|(_, at)| u64::from(at.len)).sum();
        let (engine, side) = (self.runs.engine, self.runs.side);
        let (kept, rest): (Vec<u64>, Vec<u64>) =
            self.runs.shared.iter().partition(|run| used.contains(*run));
        self.runs.shared = kept;
        let mut runs = {
            let mut state = engine.lock();
            let extents = &mut state.spaces[side.index()].extents;
            rest.into_iter().for_each(|run| extents.release(run));
            let shared = self.runs.shared.iter();
            shared.map(|start| Run { start: *start, blocks: extents.blocks_of(*start) }).collect()
        };
        let fields = self
            .fields
            .iter()
            .map(|(refs, pages)| Field { refs: *refs as u64, pages: pages.len() as u64 });
        self.table =
            Table { at: Extent::default(), bytes, fields: fields.collect(), runs: Vec::new() };
        // How long the last run is shows when the table is in it: so many bytes first, then these.
        let count = self.runs.fresh.len() + self.runs.shared.len();
        let blank = vec![0; Table::len(self.table.fields.len(), count) as usize];
        let (offset, _) = self.runs.put(&blank);
        self.runs.trim();
        Vec::append(&mut runs, &mut self.runs.fresh.clone());
        runs.sort_unstable();
        self.table.runs = runs;
        let encoded = self.table.encode(engine.data_at());
        engine.files[side.index()].write(offset, &encoded);
        let (len, crc) = (encoded.len() as u64, crc32fast::hash(&encoded));
        self.table.at = Extent { offset, len, crc };
        self.written += len;
    }

    /// The references of an archive that lies at `archive`: where in it, and their bytes.
    pub(crate) fn references(&self, archive: u64) -> impl Iterator<Item = (usize, Vec<u8>)> {
        self.fields.iter().map(move |(refs, pages)| {
            let mut bytes = Vec::with_capacity(pages.len() * REF_LEN);
            for (i, (stamp, page)) in pages.iter().enumerate() {
                let here = archive + (refs + i * REF_LEN) as u64;
                bytes.extend(page.offset.wrapping_sub(here).to_le_bytes());
                bytes.extend(page.len.to_le_bytes());
                bytes.extend(page.crc.to_le_bytes());
                bytes.extend(stamp.to_bytes());
            }
            (*refs, bytes)
        })
    }

    /// The snapshot is sealed in place `n`, as `id`: its side knows these pages, and they stay.
    pub(crate) fn sealed(self, state: &mut State, n: usize, id: u64) -> Arc<Table> {
        let Pages { mut runs, fields, chunks, full, table, counts, .. } = self;
        let lens = fields.iter().flat_map(|(_, pages)| pages).map(|(_, at)| u64::from(at.len));
        let packed = lens.map(|len| len.next_multiple_of(PACK)).sum();
        (state.counts.pages_written, state.counts.pages) = counts;
        let space = &mut state.spaces[runs.side.index()];
        space.unsynced.extend(runs.fresh.iter().map(|run| run.start));
        space.known = Some(Arc::new(Known { place: n, id, full, packed, chunks }));
        // They are the snapshot's now.
        runs.fresh.clear();
        runs.shared.clear();
        Arc::new(table)
    }

    /// Whether it shares pages with earlier snapshots.
    pub(crate) fn shares(&self) -> bool {
        !self.runs.shared.is_empty()
    }

    pub(crate) fn table(&self) -> Extent {
        self.table.at
    }
}

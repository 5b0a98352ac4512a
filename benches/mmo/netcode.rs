#![forbid(unsafe_code)]
//! Rollback netcode: a frame is saved sixty times a second, and now and then the game goes back eight
//! frames and plays them again. Beside clones in the cells of a ring, as such libraries keep them.

use std::{
    collections::VecDeque,
    thread,
    time::{Duration, Instant},
};

use snapring::{Caretaker, PagedVec, Pending, Snapshot, SnapshotId};
use snapring_bench::{
    results::{Mmo, Way, Workload},
    ring::quiet,
    run::Asked,
};

use crate::{
    samples::Samples,
    traces::{self, Mapping, Trace},
    ways::Row,
};

/// Frames that are kept, the newest included.
const CELLS: usize = 9;

/// How many frames it goes back.
const BACK: usize = CELLS - 1;

/// It goes back with every such frame.
const EVERY: usize = 10;

/// Frames that are counted.
const FRAMES: usize = 300;

/// From one frame to the next: shorter than sixty a second allow.
const PACE: Duration = Duration::from_millis(3);

/// Rows of a page.
const PAGE: usize = 16;

/// A row of 64 bytes.
type Cell = [u64; 8];

/// A game and where its frames are kept.
trait Game {
    fn advance(&mut self, frame: u64, trace: &Trace);
    fn save(&mut self);
    /// Goes back to the frame that many saves ago; those after it are forgotten.
    fn load(&mut self, back: usize);
    fn sum(&self) -> u64;
    /// Bytes that the newest save has written, or copied.
    fn bytes(&mut self) -> u64;
}

/// A state that is played.
trait Play: Snapshot + Clone {
    const BYTES: fn(&Self) -> u64;
    fn new(count: usize) -> Self;
    fn advance(&mut self, frame: u64, trace: &Trace);
    /// Puts a copy where another state is, in its memory if that can be had.
    fn copy_to(&self, there: &mut Self);
    fn sum(&self) -> u64;
}

#[derive(Clone, Snapshot)]
struct Paged {
    frame: u64,
    rows: PagedVec<Cell>,
}

#[derive(Clone, Snapshot)]
struct Flat {
    frame: u64,
    rows: Vec<Cell>,
}

macro_rules! plays {
    ($($State:ident { $empty:expr, $bytes:expr })*) => {$(
        impl Play for $State {
            const BYTES: fn(&Self) -> u64 = $bytes;

            fn new(count: usize) -> Self {
                let mut rows = $empty;
                rows.extend((0..count).map(Cell::new));
                $State { frame: 0, rows }
            }

            fn advance(&mut self, frame: u64, trace: &Trace) {
                self.frame = frame;
                for write in trace.tick(frame as usize) {
                    self.rows[write.row as usize].write(write.field as usize, frame);
                }
            }

            fn copy_to(&self, there: &mut Self) {
                there.frame = self.frame;
                there.rows.clone_from(&self.rows);
            }

            fn sum(&self) -> u64 {
                let fields = self.rows.iter().flatten();
                fields.fold(self.frame, |sum, field| sum.wrapping_mul(31).wrapping_add(*field))
            }
        }
    )*};
}

plays! {
    // A pointer for every 256 pages, and eight bytes a page.
    Paged { PagedVec::with_page_len(PAGE), |state| state.rows.pages() as u64 * 8 }
    Flat { Vec::new(), |state| size_of_val(&*state.rows) as u64 }
}

/// A frame in a ring, on its way there or arrived.
struct Kept {
    pending: Option<Pending>,
    id: Option<SnapshotId>,
}

impl Kept {
    fn id(&mut self) -> SnapshotId {
        if let Some(pending) = self.pending.take() {
            self.id = Some(pending.wait().expect("a snapshot"));
        }
        self.id.expect("captured or saved")
    }
}

/// A state in a caretaker, captured or saved.
struct InRing<T: Snapshot> {
    state: T,
    caretaker: Caretaker<T>,
    /// The newest last.
    frames: VecDeque<Kept>,
    captures: bool,
}

impl<T: Play> InRing<T> {
    fn new(count: usize, captures: bool) -> InRing<T> {
        // Every frame that is gone back to, and those it replaces, are in the ring as well.
        let caretaker = quiet().ring(32).in_memory().expect("a ring in memory");
        InRing { state: T::new(count), caretaker, frames: VecDeque::new(), captures }
    }
}

impl<T: Play> Game for InRing<T> {
    fn advance(&mut self, frame: u64, trace: &Trace) {
        self.state.advance(frame, trace);
    }

    fn save(&mut self) {
        let kept = if self.captures {
            Kept {
                pending: Some(self.caretaker.capture(&self.state).expect("a capture")),
                id: None,
            }
        } else {
            Kept { pending: None, id: Some(self.caretaker.save(&self.state).expect("a save")) }
        };
        self.frames.push_back(kept);
        if self.frames.len() > CELLS {
            self.frames.pop_front();
        }
    }

    fn load(&mut self, back: usize) {
        let at = self.frames.len() - 1 - back;
        self.frames.truncate(at + 1);
        let id = self.frames[at].id();
        _ = self.caretaker.rollback(&mut self.state, id).expect("a rollback");
    }

    fn sum(&self) -> u64 {
        self.state.sum()
    }

    fn bytes(&mut self) -> u64 {
        if let Some(newest) = self.frames.back_mut() {
            newest.id();
        }
        self.caretaker.history().first().map_or(0, |newest| newest.written_bytes())
    }
}

/// A state and clones of it in cells.
struct InCells<T> {
    state: T,
    /// The newest last.
    cells: VecDeque<T>,
    /// Whether a clone takes the memory of the oldest cell.
    reuses: bool,
}

impl<T: Play> InCells<T> {
    fn new(count: usize, reuses: bool) -> InCells<T> {
        InCells { state: T::new(count), cells: VecDeque::new(), reuses }
    }
}

impl<T: Play> Game for InCells<T> {
    fn advance(&mut self, frame: u64, trace: &Trace) {
        self.state.advance(frame, trace);
    }

    fn save(&mut self) {
        let oldest = (self.cells.len() == CELLS).then(|| self.cells.pop_front()).flatten();
        let cell = match oldest {
            Some(mut cell) if self.reuses => {
                self.state.copy_to(&mut cell);
                cell
            }
            oldest => {
                drop(oldest);
                self.state.clone()
            }
        };
        self.cells.push_back(cell);
    }

    fn load(&mut self, back: usize) {
        let at = self.cells.len() - 1 - back;
        self.cells.truncate(at + 1);
        if self.reuses {
            self.cells[at].copy_to(&mut self.state);
        } else {
            self.state = self.cells[at].clone();
        }
    }

    fn sum(&self) -> u64 {
        self.state.sum()
    }

    fn bytes(&mut self) -> u64 {
        T::BYTES(&self.state)
    }
}

/// Plays, and tells what saving and going back took.
fn play(name: &str, mut game: impl Game, trace: &Trace, frames: usize) -> Way {
    let (mut alone, mut frame) = (Samples::default(), 0);
    for _ in 0..frames.min(60) {
        frame += 1;
        let start = Instant::now();
        game.advance(frame, trace);
        alone.add(start.elapsed());
    }
    let [mut played, mut loads, mut replays] = [(); 3].map(|()| Samples::default());
    for _ in 0..2 * CELLS {
        frame += 1;
        game.advance(frame, trace);
        game.save();
    }
    let mut bytes = Samples::default();
    for at in 0..frames {
        frame += 1;
        let start = Instant::now();
        game.advance(frame, trace);
        game.save();
        played.add(start.elapsed());
        if at % EVERY == EVERY - 1 {
            let sum = game.sum();
            bytes.add_nanos(game.bytes() as f64);
            let start = Instant::now();
            game.load(BACK);
            loads.add(start.elapsed());
            for again in 1..=BACK as u64 {
                game.advance(frame - BACK as u64 + again, trace);
                game.save();
            }
            replays.add(start.elapsed());
            assert_eq!(game.sum(), sum, "{name}: the same frames again");
        }
        thread::sleep(PACE.saturating_sub(start.elapsed()));
    }
    let base = alone.median();
    let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|part| (played.quantile(part) - base).max(0.0));
    let way = Way {
        name: name.to_owned(),
        ticks: frames as u64,
        checkpoints: loads.count() as u64,
        p50,
        p99,
        longest,
        checkpoint: loads.median(),
        recovery: replays.median(),
        bytes: bytes.mean(),
    };
    println!(
        "    {name:<42} adds {:>8.1} us (p50) {:>8.1} (p99) {:>8.1} (longest); back in {:>8.1} us, all \
         eight again in {:>8.1} us; {:.1} KiB",
        p50 / 1e3,
        p99 / 1e3,
        longest / 1e3,
        way.checkpoint / 1e3,
        way.recovery / 1e3,
        way.bytes / 1024.0,
    );
    way
}

/// W5, in three sizes.
pub(crate) fn netcode(asked: &Asked, mmo: &mut Mmo) {
    for (size, rows) in [("64 KB", 1 << 10), ("1 MB", 1 << 14), ("8 MB", 1 << 17)] {
        let frames = if asked.test { 10 } else { FRAMES };
        let trace = traces::zipf(rows, 8, 0.8, rows / 200, Mapping::Clustered, 40);
        let about = format!(
            "{size} in rows of 64 bytes, of which a frame writes to {:.1} % of pages of {PAGE} rows; \
             {CELLS} frames are kept, and every {EVERY}th frame the game goes back {BACK} and plays \
             them again. A frame every {} ms.",
            100.0 * trace.share(rows, PAGE),
            PACE.as_millis()
        );
        let name = format!("W5, {size}");
        println!("\n{name}: {about}");
        let ways = vec![
            play("capture", InRing::<Paged>::new(rows, true), &trace, frames),
            play("save of pages", InRing::<Paged>::new(rows, false), &trace, frames),
            play("save of the whole", InRing::<Flat>::new(rows, false), &trace, frames),
            play("PagedVec cloned into cells", InCells::<Paged>::new(rows, false), &trace, frames),
            play("Vec cloned into cells", InCells::<Flat>::new(rows, false), &trace, frames),
            play("Vec copied into cells", InCells::<Flat>::new(rows, true), &trace, frames),
        ];
        mmo.workload(Workload { name, about, ways });
    }
}

#![forbid(unsafe_code)]
//! One life of a ring on a simulated disk: from opening to its end, with everything that can come
//! by at any step: write-back, other threads' saves, and crashes, whose images are opened and
//! compared with the ledger there and then.
//!
//! Knows when things happen. What is right is the ledger's affair, what is done the play's.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use snapring::{
    Caretaker, Events, Options,
    campaign::{self, Call, Disk, Random},
};

use super::{
    image::{self, Image},
    ledger::{After, Known, Ledger},
    originator::{Originator, PANIC, number, undisturbed},
    seed::Setting,
};

/// What the steps share.
pub(crate) struct Mind {
    pub(crate) ledger: Ledger,
    pub(crate) random: Random,
    pub(crate) counts: Counts,
    /// The first thing that was not right.
    pub(crate) failure: Option<String>,
    /// What was done, where somebody wants to read it.
    pub(crate) trace: Option<Vec<String>>,
    /// A crash to go on from: what was on the disk at some step, and what was known then.
    pub(crate) crashed: Option<(Disk, Ledger)>,
    /// Whether such a crash is to happen in this operation.
    pub(crate) crash: Option<Crash>,
    /// Other threads may not come by: this one is saving, or they have.
    pub(crate) alone: bool,
    /// Looks on at every step.
    pub(crate) watcher: Option<Watcher>,
    /// What was listed when the save under way began, but for what has expired and what was captured
    /// before and has been published since; and the highest id then.
    pub(crate) before: Vec<Known>,
    pub(crate) reached: u64,
    events: Option<Events>,
    seed: u64,
    serial: u64,
    /// Steps until something happens.
    pub(crate) quiet: u64,
    /// Images yet to be looked at in this run.
    images: u64,
}

/// Looks on at a step of the disk's, with what has been reported by then.
pub(crate) type Watcher = Box<dyn FnMut(&Disk, &Ledger, &mut Random) -> Result<(), String> + Send>;

/// What is to end a life in the middle of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    Kill,
    Cut,
}

/// What a run has seen, for the figures.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) operations: u64,
    pub(crate) published: u64,
    pub(crate) refused: u64,
    pub(crate) kills: u64,
    pub(crate) cuts: u64,
    pub(crate) deep: u64,
    pub(crate) lives: u64,
    pub(crate) faults: u64,
}

/// One life.
pub(crate) struct Life<T: Originator> {
    pub(crate) disk: Disk,
    pub(crate) options: Options,
    /// Snapshots that the ring lists.
    pub(crate) ring: usize,
    /// Saves return when they are on the disk: other threads' would wait for their turn.
    sync: bool,
    /// Syncs that had failed when it was opened.
    failed_syncs: AtomicU64,
    caretaker: Mutex<Option<Arc<Caretaker<T>>>>,
    /// What other threads save.
    others: Mutex<Option<T>>,
    mind: Mutex<Mind>,
}

impl Mind {
    pub(crate) fn new(seed: u64, ring: usize, traced: bool) -> Mind {
        Mind {
            ledger: Ledger::new(ring),
            random: Random::new(seed),
            counts: Counts::default(),
            failure: None,
            trace: traced.then(Vec::new),
            crashed: None,
            crash: None,
            alone: false,
            watcher: None,
            before: Vec::new(),
            reached: 0,
            events: None,
            seed,
            serial: 0,
            quiet: 10,
            images: 6,
        }
    }

    /// A new state's number.
    pub(crate) fn number(&mut self, cells: u64) -> u64 {
        self.serial += 1;
        number(self.seed, self.serial, cells)
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(what());
        }
    }

    /// Takes note of what has been told.
    pub(crate) fn hear(&mut self) {
        let Some(events) = &mut self.events else { return };
        while let Some(event) = events.try_next() {
            if let Some(trace) = &mut self.trace {
                trace.push(format!("    {event:?}"));
            }
            let captured = self.ledger.captured.len();
            if let Err(wrong) = self.ledger.hear(&event) {
                self.failure.get_or_insert(wrong);
            }
            if self.ledger.captured.len() < captured {
                (self.before, self.reached) = (self.ledger.listed.clone(), self.ledger.highest);
            }
        }
    }

    pub(crate) fn judge(&mut self, outcome: Result<(), String>) {
        if let Err(wrong) = outcome {
            self.failure.get_or_insert(wrong);
        }
    }
}

pub(crate) fn lock<X>(mutex: &Mutex<X>) -> MutexGuard<'_, X> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a call did: its own answer, or that the state's own code panicked as it was told to.
pub(crate) fn caught<R>(call: impl FnOnce() -> R) -> Result<Option<R>, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(answer) => Ok(Some(answer)),
        Err(payload) => match payload.downcast_ref::<&str>() {
            Some(text) if *text == PANIC => Ok(None),
            Some(text) => Err(format!("a panic: {text}")),
            None => Err(match payload.downcast_ref::<String>() {
                Some(text) => format!("a panic: {text}"),
                None => "a panic".to_owned(),
            }),
        },
    }
}

impl<T: Originator> Life<T> {
    pub(crate) fn new(disk: Disk, setting: &Setting, mind: Mind) -> Arc<Life<T>> {
        Arc::new(Life {
            disk,
            options: setting.options.clone(),
            ring: setting.ring,
            sync: setting.sync,
            failed_syncs: AtomicU64::new(0),
            caretaker: Mutex::new(None),
            others: Mutex::new(None),
            mind: Mutex::new(mind),
        })
    }

    /// Syncs that had failed when it was opened.
    pub(crate) fn failed_syncs(&self) -> u64 {
        // Relaxed: one thread alone.
        self.failed_syncs.load(Ordering::Relaxed)
    }

    pub(crate) fn mind(&self) -> MutexGuard<'_, Mind> {
        lock(&self.mind)
    }

    /// The caretaker, while it is open.
    pub(crate) fn caretaker(&self) -> Option<Arc<Caretaker<T>>> {
        lock(&self.caretaker).clone()
    }

    /// From now on things happen at the disk's steps.
    pub(crate) fn watch(self: &Arc<Life<T>>) {
        let life = Arc::downgrade(self);
        self.disk.at_each_step(Some(Box::new(move |call| {
            if let Some(life) = life.upgrade() {
                life.step(call);
            }
        })));
    }

    /// Opens, and compares what is found. `false`: opening was refused, as it may be where the disk
    /// fails or is full.
    pub(crate) fn open(&self) -> Result<bool, String> {
        let failed = self.disk.failed();
        self.mind().ledger.deep = true;
        let opened = caught(|| campaign::open::<T>(&self.disk, &self.options))?;
        let caretaker = match opened {
            Some(Ok(caretaker)) => caretaker,
            Some(Err(_)) if self.disk.failed() > failed => return Ok(false),
            Some(Err(error)) => return Err(format!("P3: cannot be opened: {error:?}")),
            None => return Err("a mood outside of archiving".to_owned()),
        };
        let found = super::ledger::look(&caretaker)?;
        let mut mind = self.mind();
        mind.note(|| {
            let found: Vec<_> = found.iter().map(|f| (f.id, f.number, f.label)).collect();
            format!("opened: {}; found {found:?}", caretaker.recovery())
        });
        mind.ledger.check(&found, caretaker.recovery())?;
        mind.ledger.adopt(&found, &caretaker)?;
        mind.events = Some(caretaker.subscribe());
        drop(mind);
        // Relaxed: one thread alone.
        self.failed_syncs.store(self.disk.failed_syncs(), Ordering::Relaxed);
        *lock(&self.caretaker) = Some(Arc::new(caretaker));
        Ok(true)
    }

    /// Takes the caretaker out, to end it.
    pub(crate) fn take(&self) -> Option<Caretaker<T>> {
        Arc::try_unwrap(lock(&self.caretaker).take()?).ok()
    }

    /// The disk does all that is asked of it.
    pub(crate) fn mend_disk(&self) {
        self.disk.set_faults(Vec::new());
        self.disk.set_capacity(u64::MAX);
    }

    /// A crash is to come at one of the next steps.
    pub(crate) fn crash_soon(&self) {
        let mut mind = self.mind();
        mind.crash = Some(if mind.random.one_in(2) { Crash::Kill } else { Crash::Cut });
        mind.quiet = mind.random.below(20);
    }

    /// The disk and the mind, for the next life.
    pub(crate) fn leave(self: Arc<Life<T>>) -> (Disk, Mind) {
        self.disk.at_each_step(None);
        if let Some(caretaker) = self.take() {
            campaign::kill(caretaker);
        }
        let disk = self.disk.clone();
        let mind = std::mem::replace(&mut *self.mind(), Mind::new(0, 0, false));
        let mut mind = Mind { events: None, alone: false, ..mind };
        mind.counts.lives += 1;
        (disk, mind)
    }

    /// Saves a state, and takes note. `None`: it was refused, and nothing has changed.
    pub(crate) fn save(&self, state: &T) -> Result<Option<u64>, String> {
        let Some(caretaker) = self.caretaker() else { return Ok(None) };
        let alone = {
            let mut mind = self.mind();
            mind.ledger.making.push(state.number());
            (mind.before, mind.reached) = (mind.ledger.listed.clone(), mind.ledger.highest);
            // Where it waits for the disk, others' would wait for their turn.
            std::mem::replace(&mut mind.alone, true)
        };
        let saved = caught(|| caretaker.save(state));
        let mut mind = self.mind();
        mind.alone = alone;
        mind.hear();
        let id = match saved? {
            Some(Ok(id)) => id.get(),
            Some(Err(snapring::SaveError::NotDurable { id, .. })) => id.get(),
            refused => {
                mind.note(|| format!("  refused: {refused:?}"));
                mind.counts.refused += 1;
                mind.ledger.making.pop();
                let listed = std::mem::take(&mut mind.before);
                let same = |k: (&Known, &Known)| k.0.id == k.1.id;
                let unchanged = listed.len() == mind.ledger.listed.len()
                    && listed.iter().zip(&mind.ledger.listed).all(same);
                if mind.reached != mind.ledger.highest || !unchanged {
                    let now = &mind.ledger.listed;
                    return Err(format!(
                        "P5: refused ({refused:?}), and {:?} became {now:?}",
                        listed
                    ));
                }
                return Ok(None);
            }
        };
        mind.counts.published += 1;
        mind.note(|| format!("  saved {} as {id}", state.number()));
        if mind.ledger.listed.first().map(|k| (k.id, k.number)) != Some((id, state.number())) {
            return Err(format!("P2: {id} was saved, and {:?} are listed", mind.ledger.listed));
        }
        mind.ledger.agree(&caretaker)?;
        Ok(Some(id))
    }

    /// Other threads' saves come by: `most` at most.
    pub(crate) fn others_save(&self, most: u64) {
        let states: Vec<u64> = {
            let mut mind = self.mind();
            let n = 1 + mind.random.below(most);
            (0..n).map(|_| mind.small()).collect()
        };
        for number in states {
            if self.caretaker().is_none_or(|caretaker| campaign::would_wait(&caretaker)) {
                return;
            }
            // Taken out: who saves meanwhile has another one.
            let mut state = lock(&self.others).take().unwrap_or_else(|| T::of(number));
            state.turn_into(number);
            let outcome = self.save(&state).map(drop);
            *lock(&self.others) = Some(state);
            self.mind().judge(outcome);
        }
    }

    /// Something happens at a step of the disk's.
    fn step(&self, call: Call) {
        let mut mind = self.mind();
        if let Some(mut watcher) = mind.watcher.take() {
            mind.hear();
            let Mind { ledger, random, .. } = &mut *mind;
            let seen = watcher(&self.disk, ledger, random);
            mind.watcher = Some(watcher);
            mind.judge(seen);
        }
        if mind.quiet > 0 {
            mind.quiet -= 1;
            return;
        }
        mind.quiet = mind.random.below(60);
        self.happen(mind, call == Call::Sync);
    }

    /// Something happens now.
    pub(crate) fn happen(&self, mut mind: MutexGuard<'_, Mind>, syncing: bool) {
        mind.hear();
        if let Some(crash) = mind.crash.take() {
            let cut = crash == Crash::Cut;
            mind.note(|| format!("  crash: {crash:?}"));
            let image = if cut { self.disk.cut(&mut mind.random) } else { self.disk.killed() };
            let mut ledger = mind.ledger.clone();
            ledger.after = if cut { After::Cut } else { ledger.after };
            mind.crashed.get_or_insert((image, ledger));
            return;
        }
        match mind.random.below(8) {
            0..3 => {
                mind.note(|| "  write-back".to_owned());
                let n = 1 + mind.random.below(6);
                self.disk.write_back(&mut mind.random, n);
            }
            at @ 3..6 if mind.images > 0 => self.look(&mut mind, at > 3),
            _ if syncing && !mind.alone && !self.sync && self.caretaker().is_some() => {
                mind.alone = true;
                mind.note(|| "  others save meanwhile".to_owned());
                drop(mind);
                self.others_save(6);
                self.mind().alone = false;
            }
            _ => {}
        }
    }

    /// Opens an image of this moment, beside.
    fn look(&self, mind: &mut Mind, cut: bool) {
        mind.images -= 1;
        let mut ledger = mind.ledger.clone();
        if cut {
            mind.counts.cuts += 1;
            ledger.after = After::Cut;
        } else {
            mind.counts.kills += 1;
        }
        let disk = if cut { self.disk.cut(&mut mind.random) } else { self.disk.killed() };
        mind.note(|| format!("  an image: {:?}", ledger.after));
        let random = Random::new(mind.random.next_u64());
        let mut image = Image::<T>::new(&self.options, random);
        let levels = 1 + image::depth(&mut mind.random);
        let outcome = undisturbed(|| image.verify(&disk, &ledger, levels));
        mind.counts.deep += image.deep;
        mind.judge(outcome);
    }
}

impl Mind {
    /// The number of a small state.
    pub(crate) fn small(&mut self) -> u64 {
        let cells = self.random.below(700);
        self.number(cells)
    }
}

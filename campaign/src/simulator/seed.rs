#![forbid(unsafe_code)]
//! One run, told by its seed alone: a few lives on one disk, each ended by a close, a kill, a power
//! cut or the loss of a file, and found again by the next.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use snapring::{
    Durability, Options,
    campaign::{self, Call, Clock, Disk, Fault, Random, file_name, in_gap, set_clock},
};

use super::{
    image::Image,
    ledger::{After, Ledger},
    life::{Counts, Life, Mind, Watcher, caught, lock},
    originator::{Moody, Originator, PANIC, Plain, amid_archiving, undisturbed},
    paged::Paged,
    play::Player,
    script::{LARGE, Script},
    subsets::{Subsets, Tally},
};

/// How a run's ring is made.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) options: Options,
    pub(crate) ring: usize,
    pub(crate) sync: bool,
}

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) counts: Counts,
    /// What was not right.
    pub(crate) failure: Option<String>,
    /// What was done, if asked for.
    pub(crate) trace: Vec<String>,
}

impl Setting {
    fn of(random: &mut Random) -> Setting {
        let ring = 2 + random.below(4);
        let sync = random.one_in(6);
        let durability = match random.below(6) {
            _ if sync => Durability::Sync,
            0 => Durability::Process,
            _ => Durability::Background { within: Duration::from_secs(1) },
        };
        // Header and slot pages, then the blocks of the data area.
        let (pages, blocks) = (1 + ring + 4, 8 + random.below(20));
        let roomy = if random.one_in(4) { 1 << 20 } else { 0 };
        let max = (pages + blocks) * campaign::PAGE as u64 + roomy;
        let options = Options::new()
            .ring(ring as u32)
            .durability(durability)
            .file_size(if random.one_in(2) { 0 } else { (max - roomy) / 2 })
            .max_file_size(max);
        let options = if random.one_in(5) { options.ttl(Duration::from_secs(90)) } else { options };
        Setting { options, ring: ring as usize, sync }
    }
}

/// Keeps the panics that are played off the terminal.
pub(crate) fn hush_moods() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&PANIC) {
            loud(info);
        }
    }));
}

/// The run of a seed.
pub(crate) fn run(seed: u64, traced: bool) -> Report {
    let mut random = Random::new(seed);
    let setting = Setting::of(&mut random);
    match random.below(6) {
        0 => run_of::<Plain>(seed, &setting, random, traced, None),
        1 | 2 => run_of::<Moody>(seed, &setting, random, traced, None),
        _ => run_of::<Paged>(seed, &setting, random, traced, None),
    }
}

/// The run of a seed with about so many images of its disk looked at: all subsets where few pages
/// are dirty, random sectors elsewhere.
pub(crate) fn images(seed: u64, about: u64, traced: bool) -> (Report, Tally) {
    if seed.is_multiple_of(2) {
        images_of::<Plain>(seed, about, traced)
    } else {
        images_of::<Paged>(seed, about, traced)
    }
}

fn images_of<T: Originator>(seed: u64, about: u64, traced: bool) -> (Report, Tally) {
    let mut random = Random::new(seed);
    let setting = Setting::of(&mut random);
    let subsets = Arc::new(Mutex::new(Subsets::<T>::new()));
    let watching = subsets.clone();
    let watcher: Watcher = Box::new(move |disk, ledger, random| {
        let mut subsets = lock(&watching);
        if subsets.tally.images >= about || !random.one_in(12) {
            return Ok(());
        }
        if random.one_in(3) {
            subsets.all(disk, ledger, 7)
        } else {
            subsets.some(disk, ledger, random, 128)
        }
    });
    let report = run_of::<T>(seed, &setting, random, traced, Some(watcher));
    let tally = lock(&subsets).tally;
    (report, tally)
}

/// The run of a seed, with recoveries of its disk crashed two and three deep, about so many times.
/// Answers how often it was, by depth.
pub(crate) fn recoveries(seed: u64, about: u64) -> (Report, [u64; 4]) {
    if seed.is_multiple_of(2) {
        recoveries_of::<Plain>(seed, about)
    } else {
        recoveries_of::<Paged>(seed, about)
    }
}

fn recoveries_of<T: Originator>(seed: u64, about: u64) -> (Report, [u64; 4]) {
    let mut random = Random::new(seed);
    let setting = Setting::of(&mut random);
    let depths = Arc::new(Mutex::new([0; 4]));
    let (counting, options) = (depths.clone(), setting.options.clone());
    let watcher: Watcher = Box::new(move |disk, ledger, random| {
        let mut depths = lock(&counting);
        if depths[2] + depths[3] >= about || !random.one_in(8) {
            return Ok(());
        }
        let cut = random.one_in(2);
        let left = if cut { disk.cut(random) } else { disk.killed() };
        let mut ledger = ledger.clone();
        if cut {
            ledger.after = After::Cut;
        }
        let mut image = Image::<T>::new(&options, Random::new(random.next_u64()));
        let levels = 3 + random.below(2);
        let outcome = undisturbed(|| image.verify(&left, &ledger, levels));
        depths[image.deep.min(3) as usize] += 1;
        outcome
    });
    let report = run_of::<T>(seed, &setting, random, false, Some(watcher));
    let depths = *lock(&depths);
    (report, depths)
}

/// The script, with all subsets of at most `most` dirty pages at each step that changes any.
pub(crate) fn exhaust(most: usize) -> [(Result<(), String>, Tally); 2] {
    // A page that is looked into costs more than bytes that are compared.
    [exhaust_of::<Plain>(most), exhaust_of::<Paged>(most * 2 / 3)]
}

fn exhaust_of<T: Originator>(most: usize) -> (Result<(), String>, Tally) {
    let subsets = Arc::new(Mutex::new(Subsets::<T>::new()));
    let watching = subsets.clone();
    let watcher: Watcher = Box::new(move |disk, ledger, _| lock(&watching).all(disk, ledger, most));
    let script = Script { seed: 7, large: LARGE, failing: false, state: T::of(0) };
    let outcome = script.play(Disk::new(1), Some(watcher)).map(drop);
    let tally = lock(&subsets).tally;
    (outcome, tally)
}

fn run_of<T: Originator>(
    seed: u64,
    setting: &Setting,
    random: Random,
    traced: bool,
    watcher: Option<Watcher>,
) -> Report {
    set_clock(Some(Clock { steady_millis: 1, wall_nanos: 1_700_000_000_000_000_000 }));
    let (mut disk, mut mind) = (Disk::new(seed), Mind::new(seed, setting.ring, traced));
    mind.random = random;
    mind.watcher = watcher;
    mind.note(|| format!("{setting:?}"));
    let mut failure = None;
    for _ in 0..2 + seed % 4 {
        let life = Life::<T>::new(disk, setting, mind);
        let outcome = caught(|| live(&life));
        in_gap(None);
        amid_archiving(None);
        let ending = match outcome {
            Ok(Some(Ok(ending))) => Some(ending),
            Ok(Some(Err(wrong))) | Err(wrong) => {
                failure = Some(wrong);
                None
            }
            Ok(None) => {
                failure = Some("a mood that nobody caught".to_owned());
                None
            }
        };
        (disk, mind) = life.leave();
        let Some((next, ledger)) = ending else { break };
        (disk, mind.ledger) = (next.unwrap_or(disk), ledger);
    }
    set_clock(None);
    Report { counts: mind.counts, failure, trace: mind.trace.unwrap_or_default() }
}

/// How a life ended: another disk, if that is what is left, and what was known.
type Ending = (Option<Disk>, Ledger);

/// One life, from opening on.
fn live<T: Originator>(life: &Arc<Life<T>>) -> Result<Ending, String> {
    life.watch();
    life.mind().crash = None;
    if life.mind().random.one_in(8) {
        life.crash_soon();
    }
    // A disk that fails or is full may refuse once, and is then mended.
    let broken = life.mind().random.one_in(6);
    if broken {
        break_opening(life);
    }
    while !life.open()? {
        life.mind().note(|| "refused to open".to_owned());
        life.mend_disk();
    }
    life.mend_disk();
    if let Some(ending) = crashed(life) {
        return Ok(ending);
    }
    let mut player = Player::new(life);
    let operations = 4 + life.mind().random.below(28);
    for _ in 0..operations {
        if life.mind().random.one_in(40) {
            life.crash_soon();
        }
        player.play()?;
        if let Some(ending) = crashed(life) {
            player.end();
            return Ok(ending);
        }
    }
    player.end();
    end(life)
}

/// Makes a call of the opening to come fail.
fn break_opening<T: Originator>(life: &Life<T>) {
    const CALLS: [Call; 8] = [
        Call::SyncHeader,
        Call::SyncAll,
        Call::SyncNames,
        Call::SyncFloor,
        Call::Reserve,
        Call::Write,
        Call::Create,
        Call::Rename,
    ];
    let mut mind = life.mind();
    let call = CALLS[mind.random.below(CALLS.len() as u64) as usize];
    let after = mind.random.below(4);
    mind.note(|| format!("opening: call {after} of {call:?} fails"));
    mind.counts.faults += 1;
    life.disk.set_faults(vec![Fault { call, after, errno: libc::EIO, for_ever: false }]);
}

/// The end of a life that a crash has ended.
fn crashed<T: Originator>(life: &Life<T>) -> Option<Ending> {
    let (disk, ledger) = life.mind().crashed.take()?;
    if let Some(caretaker) = life.take() {
        campaign::kill(caretaker);
    }
    Some((Some(disk), ledger))
}

/// Ends a life that has come to its end.
fn end<T: Originator>(life: &Life<T>) -> Result<Ending, String> {
    life.mend_disk();
    let way = life.mind().random.below(8);
    life.mind().note(|| format!("end {way}"));
    life.mind().ledger.begin();
    let Some(caretaker) = life.take() else { return Err("the caretaker is held".to_owned()) };
    match way {
        0 | 1 => {
            let head = caretaker.head();
            let closed = caught(|| caretaker.close())?;
            let mut mind = life.mind();
            mind.hear();
            match closed {
                Some(Ok(durable)) if durable >= head => {}
                Some(Err(_)) if life.disk.failed_syncs() > 0 => {}
                other => {
                    return Err(format!("P4: closed with {other:?}, and {head:?} was the head"));
                }
            }
            if let Some(wrong) = mind.failure.take() {
                return Err(wrong);
            }
            Ok((None, mind.ledger.clone()))
        }
        2 | 3 => {
            campaign::kill(caretaker);
            Ok((None, life.mind().ledger.clone()))
        }
        4..7 => {
            let mut mind = life.mind();
            let cut = life.disk.cut(&mut mind.random);
            campaign::kill(caretaker);
            mind.ledger.after = After::Cut;
            Ok((Some(cut), mind.ledger.clone()))
        }
        _ => {
            campaign::kill(caretaker);
            let mut mind = life.mind();
            let lost: &[usize] = match mind.random.below(3) {
                0 => &[0],
                1 => &[1],
                _ => &[0, 1],
            };
            mind.note(|| format!("lost: {lost:?}"));
            lost.iter().for_each(|side| life.disk.lose(file_name(*side)));
            mind.ledger.lose(lost);
            Ok((None, mind.ledger.clone()))
        }
    }
}

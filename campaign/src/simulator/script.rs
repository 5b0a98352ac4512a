#![forbid(unsafe_code)]
//! A fixed script, for those who try everything at each of its steps.

use std::sync::Arc;

use snapring::{
    Durability, Options, SnapshotId,
    campaign::{self, Disk},
};

use super::{
    ledger::{Moving, label},
    life::{Counts, Life, Mind, Watcher},
    originator::{Originator, Plain},
    seed::Setting,
};

/// Cells of a state that takes 15 pages: with its slot page and the header page 17 are dirty.
const LARGE: u64 = 7_600;

/// One thing that is done.
#[derive(Debug, Clone, Copy)]
enum Act {
    Save(u64),
    /// To the snapshot so many before the newest.
    RollBack(usize),
    Keep(usize),
    Release,
    Flush,
    Background,
    Reopen,
    Close,
}

const SCRIPT: &[Act] = &[
    Act::Save(10),
    Act::Save(600),
    Act::Flush,
    Act::Save(LARGE),
    Act::Flush,
    Act::Save(LARGE),
    Act::RollBack(1),
    Act::Background,
    Act::Keep(2),
    Act::Save(20),
    Act::Save(30),
    Act::Flush,
    // Evicts from here on.
    Act::Save(40),
    Act::Save(900),
    Act::Save(50),
    Act::Reopen,
    Act::Save(60),
    Act::Flush,
    Act::Release,
    Act::Save(70),
    Act::RollBack(2),
    Act::Close,
    Act::Save(80),
    Act::Save(1_200),
    Act::Save(90),
    Act::Flush,
];

/// Plays the script on a disk, watched at every step.
pub(crate) fn play(disk: Disk, watcher: Watcher) -> Result<Counts, String> {
    let options = Options::new()
        .ring(3)
        .durability(Durability::Background { within: std::time::Duration::from_secs(1) })
        .file_size(0)
        .max_file_size(1 << 20);
    let setting = Setting { options, ring: 3, sync: false, max_file_size: 1 << 20 };
    let mut mind = Mind::new(7, setting.ring, false);
    // Nothing else happens.
    mind.quiet = u64::MAX;
    mind.watcher = Some(watcher);
    let mut life = Life::<Plain>::new(disk, &setting, mind);
    open(&life)?;
    for act in SCRIPT {
        life.mind().ledger.begin();
        let Some(caretaker) = life.caretaker() else { return Err("it is closed".to_owned()) };
        match *act {
            Act::Save(cells) => {
                let number = life.mind().number(cells);
                life.save(&Plain::of(number))?.ok_or("a save was refused")?;
            }
            Act::RollBack(back) => {
                let to = life.mind().ledger.listed[back];
                life.mind().ledger.making.push(to.number);
                let mut state = Plain::of(to.number);
                let done = caretaker.rollback(&mut state, SnapshotId::new(to.id));
                _ = done.map_err(|error| error.to_string())?;
            }
            Act::Keep(back) => {
                let to = life.mind().ledger.listed[back].id;
                life.mind().ledger.moving = Some(Moving { label: 0, to: Some(to) });
                let kept = caretaker.keep(SnapshotId::new(to), &label(0));
                kept.map_err(|error| error.to_string())?;
                life.mind().ledger.keep(to, 0);
            }
            Act::Release => {
                life.mind().ledger.moving = Some(Moving { label: 0, to: None });
                caretaker.release(&label(0));
                life.mind().ledger.release(0);
            }
            Act::Flush => {
                caretaker.flush().map_err(|error| error.to_string())?;
                let mut mind = life.mind();
                mind.ledger.listed.iter_mut().for_each(|known| known.noted = true);
            }
            Act::Background => campaign::background(&caretaker),
            Act::Reopen | Act::Close => {
                drop(caretaker);
                let Some(caretaker) = life.take() else { return Err("it is held".to_owned()) };
                if matches!(act, Act::Close) {
                    caretaker.close().map_err(|error| error.to_string())?;
                    life.mind().hear();
                } else {
                    campaign::kill(caretaker);
                }
                let (disk, mind) = life.leave();
                life = Life::new(disk, &setting, mind);
                open(&life)?;
                continue;
            }
        }
        let mut mind = life.mind();
        mind.hear();
        mind.ledger.making.clear();
        mind.ledger.agree(&caretaker)?;
        if let Some(wrong) = mind.failure.take() {
            return Err(format!("{act:?}: {wrong}"));
        }
    }
    let (_, mind) = life.leave();
    Ok(mind.counts)
}

fn open(life: &Arc<Life<Plain>>) -> Result<(), String> {
    life.watch();
    let opened = life.open()?;
    if let Some(wrong) = life.mind().failure.take() {
        return Err(wrong);
    }
    if opened { Ok(()) } else { Err("it cannot be opened".to_owned()) }
}

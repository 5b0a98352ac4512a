#![forbid(unsafe_code)]
//! A fixed script, for those who try everything at each of its steps.

use std::sync::Arc;

use snapring::{
    Caretaker, Durability, Options, SnapshotId,
    campaign::{self, Disk},
};

use super::{
    ledger::{Ledger, Moving, label},
    life::{Life, Mind, Watcher},
    originator::Originator,
    seed::Setting,
};

/// Cells of a state that takes 15 pages: with its slot page and the header page 17 are dirty.
pub(crate) const LARGE: u64 = 7_600;

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

/// The script's player.
pub(crate) struct Script<T> {
    /// What is drawn, and what the states hold.
    pub(crate) seed: u64,
    /// Cells of a large state.
    pub(crate) large: u64,
    /// Calls to the disk may fail, and then what needs them does.
    pub(crate) failing: bool,
    /// What is saved.
    pub(crate) state: T,
}

/// What is there at the end.
pub(crate) struct Played {
    pub(crate) disk: Disk,
    pub(crate) ledger: Ledger,
    pub(crate) setting: Setting,
}

/// How the ring of the script is made.
pub(crate) fn setting() -> Setting {
    let max_file_size = 1 << 20;
    let options = Options::new()
        .ring(3)
        .durability(Durability::Background { within: std::time::Duration::from_secs(1) })
        .file_size(0)
        .max_file_size(max_file_size);
    Setting { options, ring: 3, sync: false }
}

impl<T: Originator> Script<T> {
    /// Plays the script on a disk, watched at every step.
    pub(crate) fn play(mut self, disk: Disk, watcher: Option<Watcher>) -> Result<Played, String> {
        let setting = setting();
        let mut mind = Mind::new(self.seed, setting.ring, false);
        // Nothing else happens.
        mind.quiet = u64::MAX;
        mind.watcher = watcher;
        let mut life = Life::<T>::new(disk, &setting, mind);
        self.open(&life)?;
        for act in SCRIPT {
            life.mind().ledger.begin();
            let Some(caretaker) = life.caretaker() else { return Err("it is closed".to_owned()) };
            if matches!(act, Act::Reopen | Act::Close) {
                drop(caretaker);
                life = self.reopen(life, &setting, matches!(act, Act::Close))?;
                continue;
            }
            let failed = life.disk.failed();
            let done = self.act(*act, &life, &caretaker);
            let mut mind = life.mind();
            mind.hear();
            mind.ledger.making.clear();
            if let Err(wrong) = done {
                // Failed syncs are told later, too.
                if !self.failing || life.disk.failed() == 0 || wrong.starts_with('P') {
                    return Err(format!("{act:?}: {wrong} ({failed} calls had failed)"));
                }
            }
            mind.ledger.agree(&caretaker)?;
            if let Some(wrong) = mind.failure.take() {
                return Err(format!("{act:?}: {wrong}"));
            }
        }
        let (disk, mind) = life.leave();
        Ok(Played { disk, ledger: mind.ledger, setting })
    }

    fn act(
        &mut self,
        act: Act,
        life: &Arc<Life<T>>,
        caretaker: &Caretaker<T>,
    ) -> Result<(), String> {
        let back = |back: usize| {
            let mind = life.mind();
            mind.ledger.listed.get(back).or(mind.ledger.listed.last()).copied()
        };
        match act {
            Act::Save(cells) => {
                let cells = if cells == LARGE { self.large } else { cells };
                let number = life.mind().number(cells);
                self.state.turn_into(number);
                life.save(&self.state)?.ok_or("a save was refused")?;
            }
            Act::RollBack(to) => {
                let to = back(to).ok_or("there is nothing")?;
                life.mind().ledger.making.push(to.number);
                let done = caretaker.rollback(&mut self.state, SnapshotId::new(to.id));
                _ = done.map_err(|error| error.to_string())?;
            }
            Act::Keep(to) => {
                let to = back(to).ok_or("there is nothing")?.id;
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
                let flushed = caretaker.flush();
                let failed = life.disk.failed_syncs() > life.failed_syncs();
                if failed && flushed.is_ok() {
                    return Err("P5: a sync failed, and flush said nothing".to_owned());
                }
                flushed.map_err(|error| error.to_string())?;
                let mut mind = life.mind();
                mind.ledger.listed.iter_mut().for_each(|known| known.noted = true);
            }
            Act::Background => campaign::background(caretaker),
            Act::Reopen | Act::Close => {}
        }
        Ok(())
    }

    fn reopen(
        &self,
        life: Arc<Life<T>>,
        setting: &Setting,
        close: bool,
    ) -> Result<Arc<Life<T>>, String> {
        let Some(caretaker) = life.take() else { return Err("it is held".to_owned()) };
        if close {
            let failed = life.disk.failed();
            let closed = caretaker.close();
            let failed =
                life.disk.failed() > failed || life.disk.failed_syncs() > life.failed_syncs();
            match closed {
                Ok(_) if failed => {
                    return Err("P5: a call failed, and close said nothing".to_owned());
                }
                Err(error) if !failed => return Err(format!("closing: {error}")),
                _ => life.mind().hear(),
            }
        } else {
            campaign::kill(caretaker);
        }
        let (disk, mind) = life.leave();
        let life = Life::new(disk, setting, mind);
        self.open(&life)?;
        Ok(life)
    }

    fn open(&self, life: &Arc<Life<T>>) -> Result<(), String> {
        life.watch();
        let mut opened = life.open()?;
        if !opened && self.failing {
            // The disk is mended, and nothing is lost.
            life.mend_disk();
            opened = life.open()?;
        }
        if let Some(wrong) = life.mind().failure.take() {
            return Err(wrong);
        }
        if opened { Ok(()) } else { Err("it cannot be opened".to_owned()) }
    }
}

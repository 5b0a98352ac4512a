#![forbid(unsafe_code)]
//! A small directory damaged in every way that is one bit, one page or two pages: what recovery
//! would find, and what opening does find.

use std::{collections::BTreeMap, marker::PhantomData};

use snapring::{
    Options,
    campaign::{self, Disk, Image, PAGE, Random, Seen, file_name},
};

use super::{
    ledger::{Ledger, number_of},
    life::caught,
    originator::{Originator, number},
    script::Script,
};

/// A directory, and what was published in it.
pub(crate) struct Rot<T> {
    disk: Disk,
    ledger: Ledger,
    options: Options,
    files: [Vec<u8>; 2],
    /// The files as they were half way through.
    stale: [Vec<u8>; 2],
    /// In the boot that wrote it, and in another one.
    images: [Image; 2],
    /// The archives of what was published, by id.
    archives: BTreeMap<u64, Vec<u8>>,
    pub(crate) surveyed: u64,
    pub(crate) opened: u64,
    originator: PhantomData<fn() -> T>,
}

/// One damage.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Damage {
    /// Side, byte and bit.
    Bit(usize, usize, u8),
    /// Side and page.
    Zeros(usize, usize),
    /// A page takes another one's place.
    Copy { from: (usize, usize), to: (usize, usize) },
    /// Two pages change places.
    Swap((usize, usize), (usize, usize)),
    /// A page is what it was earlier.
    Stale(usize, usize),
}

impl<T: Originator> Rot<T> {
    pub(crate) fn new(seed: u64) -> Result<Rot<T>, String> {
        let script = Script { seed, large: 400 + seed % 200, failing: false, state: T::of(0) };
        let halfway = std::sync::Arc::new(std::sync::Mutex::new([Vec::new(), Vec::new()]));
        let keep = halfway.clone();
        let played = script.play(
            Disk::new(seed),
            Some(Box::new(move |disk, ledger, _| {
                if ledger.highest == 9 {
                    let files = [0, 1].map(|side| disk.bytes(file_name(side)).unwrap_or_default());
                    *super::life::lock(&keep) = files;
                }
                Ok(())
            })),
        )?;
        let stale = super::life::lock(&halfway).clone();
        let files = [0, 1].map(|side| played.disk.bytes(file_name(side)).unwrap_or_default());
        let floor = played.disk.lock_floor();
        let image = |boot| {
            let image = Image::new::<T>([&files[0], &files[1]], &floor, boot);
            image.ok_or("the directory has no headers")
        };
        let mut archives = BTreeMap::new();
        for (id, number) in played.ledger.published.iter().filter(|_| !T::PAGED) {
            let archive = snapring::__private::probe::archive_bytes(&T::of(*number))?;
            archives.insert(*id, archive.to_vec());
        }
        let images = [image(played.disk.boot())?, image([0xee; 16])?];
        Ok(Rot {
            disk: played.disk,
            ledger: played.ledger,
            options: played.setting.options,
            files,
            stale,
            images,
            archives,
            surveyed: 0,
            opened: 0,
            originator: PhantomData,
        })
    }

    /// Pages of a side.
    pub(crate) fn pages(&self, side: usize) -> usize {
        self.files[side].len() / PAGE
    }

    fn page(files: &[Vec<u8>; 2], (side, page): (usize, usize)) -> &[u8] {
        files[side].get(page * PAGE..(page + 1) * PAGE).unwrap_or_default()
    }

    /// What a damage writes, and where: nothing where it changes nothing.
    fn strokes(&self, damage: Damage) -> Vec<(usize, usize, Vec<u8>)> {
        let files = &self.files;
        let over = |(side, page): (usize, usize), bytes: &[u8]| {
            let changes = Self::page(files, (side, page)) != bytes && bytes.len() == PAGE;
            changes.then(|| (side, page * PAGE, bytes.to_vec()))
        };
        match damage {
            Damage::Bit(side, at, bit) => vec![(side, at, vec![files[side][at] ^ 1 << bit])],
            Damage::Zeros(side, page) => over((side, page), &[0; PAGE]).into_iter().collect(),
            Damage::Copy { from, to } => over(to, Self::page(files, from)).into_iter().collect(),
            Damage::Swap(a, b) => {
                let both = [over(a, Self::page(files, b)), over(b, Self::page(files, a))];
                both.into_iter().flatten().collect()
            }
            Damage::Stale(side, page) => {
                over((side, page), Self::page(&self.stale, (side, page))).into_iter().collect()
            }
        }
    }

    /// Damages the directory, has it surveyed, and opened too if asked to.
    pub(crate) fn suffer(&mut self, damage: Damage, open: bool) -> Result<(), String> {
        let strokes = self.strokes(damage);
        if strokes.is_empty() {
            return Ok(());
        }
        let mut outcome = Ok(());
        for boot in 0..2 {
            for (side, at, bytes) in &strokes {
                self.images[boot].put(*side, *at, bytes);
            }
            let surveyed = caught(|| self.survey(boot));
            outcome = outcome.and(surveyed.and_then(|answer| answer.unwrap_or(Ok(()))));
            for (side, at, bytes) in &strokes {
                let whole = &self.files[*side][*at..*at + bytes.len()];
                self.images[boot].put(*side, *at, whole);
            }
        }
        self.surveyed += 2;
        if open {
            self.opened += 1;
            outcome = outcome.and_then(|()| self.open(&strokes));
        }
        outcome.map_err(|wrong| format!("{damage:?}: {wrong}"))
    }

    /// Whatever would be listed is what was published under its id, or does not fit its checksum.
    fn survey(&self, boot: usize) -> Result<(), String> {
        let image = &self.images[boot];
        let seen = image.survey();
        if seen.next_id <= self.ledger.highest {
            return Err(format!("id {} would be given out again", seen.next_id));
        }
        if T::PAGED {
            return self.visit(image, &seen);
        }
        for (id, side, at, len, crc) in &seen.listed {
            let bytes = image.bytes(*side, *at, *len);
            let sound = crc32fast::hash(bytes) == *crc;
            if seen.chosen == Some(*id) && !sound {
                return Err(format!("{id} would be chosen, and is damaged"));
            }
            if !sound {
                continue;
            }
            match self.archives.get(id) {
                None => return Err(format!("{id} would be listed, and was never published")),
                Some(archive) if *archive != *bytes => {
                    return Err(format!("{id} would be listed with what is not its own"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Whatever is whole, pages and all, is what was published under its id.
    fn visit(&self, image: &Image, seen: &Seen) -> Result<(), String> {
        let mut outcome = Ok(());
        let mut whole = Vec::new();
        let rejected = image.visit::<T>(|found| {
            let Ok(found) = found else { return };
            let (id, number) = (found.id(), T::number_in(found.archived()));
            whole.push(id);
            if number.is_none() || self.ledger.number_of(id) != number {
                outcome = Err(format!("{id} would be listed with what is not its own: {number:?}"));
            }
        });
        drop(rejected);
        outcome?;
        match seen.chosen.filter(|chosen| !whole.contains(chosen)) {
            Some(id) => Err(format!("{id} would be chosen, and is damaged")),
            None => Ok(()),
        }
    }

    /// Opening answers an error or what was published, and goes on.
    fn open(&self, strokes: &[(usize, usize, Vec<u8>)]) -> Result<(), String> {
        let disk = self.disk.killed();
        for (side, at, bytes) in strokes {
            disk.put(file_name(*side), *at, bytes);
        }
        let opened = caught(|| campaign::open::<T>(&disk, &self.options))?;
        let Some(Ok(caretaker)) = opened else { return Ok(()) };
        for entry in caretaker.history() {
            let Ok(memento) = caretaker.try_memento(entry.id()) else { continue };
            let (id, found) = (entry.id().get(), number_of(&memento)?);
            if self.ledger.number_of(id) != Some(found) {
                return Err(format!("{id} was found, and holds {found}"));
            }
        }
        let state = T::of(number(0xfeed, 2, 30));
        if let Ok(id) = caretaker.save(&state) {
            if id.get() <= self.ledger.highest {
                return Err(format!("id {id} was given out again"));
            }
            let resumed = caretaker.resume().map_err(|error| error.to_string())?;
            if resumed != Some(state) {
                return Err(format!("{id} was saved, and {resumed:?} resumed"));
            }
        }
        campaign::kill(caretaker);
        Ok(())
    }

    /// A bit of any page.
    pub(crate) fn any_bit(&self, random: &mut Random) -> Damage {
        let side = random.below(2) as usize;
        let at = random.below(self.files[side].len() as u64) as usize;
        Damage::Bit(side, at, random.below(8) as u8)
    }
}

#![forbid(unsafe_code)]
//! Every subset of the dirty pages that may have reached the disk, one page flipped at a time, and
//! random subsets of their sectors: surveyed as recovery would, without being opened.
//!
//! What is found under an id is compared byte for byte with what was saved under it.

use std::{collections::HashMap, marker::PhantomData};

use snapring::campaign::{Disk, Image, PAGE, Random, SECTOR, Seen, file_name};

use super::{
    ledger::Ledger,
    originator::{Originator, undisturbed},
};

/// What became of the images looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) images: u64,
    /// Whole sets of all subsets.
    pub(crate) sets: u64,
    /// Archives in them that were not whole under a record that was: the checksum told.
    pub(crate) by_checksum: u64,
}

/// Bytes in or out of the image.
struct Part {
    side: usize,
    at: usize,
    /// Not on the disk, and on the disk.
    bytes: [Vec<u8>; 2],
    on_disk: bool,
}

/// One moment's images.
pub(crate) struct Subsets<T> {
    /// Archives by the numbers of their states.
    archives: HashMap<u64, Vec<u8>>,
    pub(crate) tally: Tally,
    originator: PhantomData<fn() -> T>,
}

impl<T: Originator> Subsets<T> {
    pub(crate) fn new() -> Subsets<T> {
        Subsets { archives: HashMap::new(), tally: Tally::default(), originator: PhantomData }
    }

    /// All subsets of the dirty pages, if they are no more than `most`; else nothing.
    pub(crate) fn all(&mut self, disk: &Disk, ledger: &Ledger, most: usize) -> Result<(), String> {
        let Some(mut moment) = Moment::of::<T>(disk, PAGE) else { return Ok(()) };
        let n = moment.parts.len();
        if n > most {
            return Ok(());
        }
        self.tally.sets += 1;
        self.check(&moment.image, ledger)?;
        for image in 1_u64..1 << n {
            // Gray code: one page changes from each image to the next.
            moment.flip(image.trailing_zeros() as usize);
            self.check(&moment.image, ledger).map_err(|wrong| moment.told(&wrong))?;
        }
        Ok(())
    }

    /// As many images, each a few sectors away from the one before.
    pub(crate) fn some(
        &mut self,
        disk: &Disk,
        ledger: &Ledger,
        random: &mut Random,
        images: u64,
    ) -> Result<(), String> {
        let Some(mut moment) = Moment::of::<T>(disk, SECTOR) else { return Ok(()) };
        let parts = moment.parts.len() as u64;
        for at in 0..parts as usize {
            if random.one_in(2) {
                moment.flip(at);
            }
        }
        for _ in 0..images {
            for _ in 0..=random.below(4) {
                if parts > 0 {
                    moment.flip(random.below(parts) as usize);
                }
            }
            self.check(&moment.image, ledger).map_err(|wrong| moment.told(&wrong))?;
        }
        Ok(())
    }

    fn archive(&mut self, number: u64) -> &[u8] {
        self.archives.entry(number).or_insert_with(|| {
            let archive = undisturbed(|| snapring::__private::probe::archive_bytes(&T::of(number)));
            archive.map(|bytes| bytes.to_vec()).unwrap_or_default()
        })
    }

    fn check(&mut self, image: &Image, ledger: &Ledger) -> Result<(), String> {
        self.tally.images += 1;
        let seen = image.survey();
        let told = |what: &str, seen: &Seen| {
            let rejected: Vec<_> = seen.rejected.iter().map(ToString::to_string).collect();
            let Seen { chosen, listed, next_id, .. } = seen;
            format!(
                "{what}: chosen is {chosen:?} of {listed:?}, next {next_id}, rejected {rejected:?}; \
                 durable up to {}, listed were {:?}, in the making {:?}",
                ledger.durable, ledger.listed, ledger.making
            )
        };
        if seen.next_id <= ledger.highest {
            return Err(told("an id would be given out again", &seen));
        }
        if seen.chosen.unwrap_or(0) < ledger.durable {
            return Err(told("P4: what is left is older than what was durable", &seen));
        }
        let mut whole = Vec::new();
        if T::PAGED {
            let mut mixture = None;
            let rejected = image.visit::<T>(|found| {
                let Ok(found) = found else { return };
                let (id, number) = (found.id(), T::number_in(found.archived()));
                let own = match (number, ledger.number_of(id)) {
                    (Some(number), Some(known)) => number == known,
                    (Some(number), None) => ledger.maybe(id).contains(&number),
                    (None, _) => false,
                };
                if own {
                    whole.push(id);
                } else {
                    mixture = Some(id);
                }
            });
            drop(rejected);
            if let Some(id) = mixture {
                return Err(told(&format!("P4: {id} would hold what is not its own"), &seen));
            }
            for (id, ..) in seen.listed.iter().filter(|listed| !whole.contains(&listed.0)) {
                if seen.chosen == Some(*id) {
                    return Err(told(&format!("P4: {id} would be chosen, and is broken"), &seen));
                }
                self.tally.by_checksum += 1;
            }
        }
        for (id, side, at, len, crc) in seen.listed.iter().filter(|_| !T::PAGED) {
            let bytes = image.bytes(*side, *at, *len);
            let same = match ledger.number_of(*id) {
                Some(number) => self.archive(number) == bytes,
                None => {
                    let maybe = ledger.maybe(*id);
                    maybe.into_iter().any(|number| self.archive(number) == bytes)
                }
            };
            if same {
                whole.push(*id);
            } else if seen.chosen == Some(*id) || crc32fast::hash(bytes) == *crc {
                return Err(told(&format!("P4: {id} would hold what is not its own"), &seen));
            } else {
                self.tally.by_checksum += 1;
            }
        }
        let broken = seen.rejected.iter().filter(|slot| slot.reason.contains("the checksum of"));
        self.tally.by_checksum += broken.count() as u64;
        let goes = ledger.goes(seen.listed.iter().map(|listed| listed.0));
        for known in ledger.listed.iter().filter(|known| ledger.must_outlive_a_cut(known)) {
            if !whole.contains(&known.id) && !goes.contains(&known.id) {
                return Err(told(&format!("P4: {} is lost", known.id), &seen));
            }
        }
        Ok(())
    }
}

/// The disk as it is, and what may have reached it besides.
struct Moment {
    image: Image,
    parts: Vec<Part>,
}

impl Moment {
    /// `None` where a file is not there, or not whole.
    fn of<T: Originator>(disk: &Disk, step: usize) -> Option<Moment> {
        let mut parts = Vec::new();
        let mut bytes = Vec::new();
        for side in 0..2 {
            let memory = disk.bytes(file_name(side))?;
            let mut on_disk = disk.disk_bytes(file_name(side))?;
            on_disk.resize(memory.len(), 0);
            for page in disk.dirty(file_name(side)) {
                for at in (page * PAGE..(page + 1) * PAGE).step_by(step) {
                    let range = at..at + step;
                    let (new, old) = (memory.get(range.clone())?, on_disk.get(range)?);
                    if new != old {
                        let bytes = [new.to_vec(), old.to_vec()];
                        parts.push(Part { side, at, bytes, on_disk: false });
                    }
                }
            }
            bytes.push(on_disk);
        }
        // Another boot than any that wrote here.
        let image = Image::new::<T>([&bytes[0], &bytes[1]], &disk.lock_floor(), [0xee; 16])?;
        Some(Moment { image, parts })
    }

    fn flip(&mut self, at: usize) {
        let part = &mut self.parts[at];
        part.on_disk = !part.on_disk;
        let bytes = &part.bytes[usize::from(!part.on_disk)];
        self.image.put(part.side, part.at, bytes);
    }

    fn told(&self, wrong: &str) -> String {
        let parts = self.parts.iter();
        let parts: Vec<_> = parts.map(|part| (part.side, part.at, part.on_disk)).collect();
        format!("{wrong}; parts (side, offset, on the disk): {parts:?}")
    }
}

#![forbid(unsafe_code)]
//! Leases: how readers in other processes keep places from being used again.
//!
//! A lease is a lock of the kernel's on one byte of `leases.lock`, the byte whose number is the
//! place's. It belongs to the reader's open file: it ends with the reader, however that ends. Another
//! byte, far behind the places, says that a reader is there at all.
//!
//! - **L1** A reader takes the lease, then looks at the record, and believes it only if it is sealed.
//! - **L2** The writer breaks a record's seal, then asks for leases, and uses the place again only
//!   if there is none (P1, P7).
//!
//! Why that is enough, by cases. The reader takes the lease (1) and looks at the seal (2); the
//! writer breaks the seal (3) and asks (4). If (1) comes before (4), the writer sees the lease and
//! leaves the place alone. If (4) comes before (1), then so does (3), and (2) comes after it: the
//! reader finds no seal and does not believe. There is no third case as long as (1) and (2), and (3)
//! and (4), keep their order for the other side. The kernel looks at an empty list of locks without
//! taking its own lock, so it alone does not see to that: hence the fence behind (1) and the one
//! before (4), which are partners.
//!
//! So a place that was found without a lease after its seal was broken will never again have one
//! that is believed, until it is sealed anew: asking once is enough, and one call asks for all.

use std::{
    fs::File,
    io,
    ops::Range,
    sync::atomic::{Ordering, fence},
};

use crate::{header::slot_pages, os};

/// The byte that every reader has a lock on, from its opening to its end.
const PRESENCE_AT: u64 = 1 << 20;
/// The most places there are: those of the longest ring.
const PLACES: usize = 2 * slot_pages(crate::header::MAX_RING) as usize;
const _: () = assert!((PLACES as u64) < PRESENCE_AT, "a place's byte is a place's alone");
const WORDS: usize = PLACES.div_ceil(64);

/// The file of leases, opened once by each who takes them and by the one who asks.
#[derive(Debug)]
pub(crate) struct Leases {
    file: File,
}

impl Leases {
    pub(crate) fn of(file: File) -> Leases {
        Leases { file }
    }

    /// The file, for a look at who it is.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// A reader is here, from now on.
    pub(crate) fn enter(&self) -> io::Result<()> {
        if os::share_byte(&self.file, PRESENCE_AT)? {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "somebody has locked it for himself"))
    }

    /// Takes the lease of a place, and orders it before the look at its record (L1). Taken twice, it
    /// is one lease.
    pub(crate) fn take(&self, place: usize) -> io::Result<()> {
        if !os::share_byte(&self.file, place as u64)? {
            let busy = "somebody has locked it for himself";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, busy));
        }
        // SeqCst: (1) before (2); partner of the fence in `taken`.
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Gives the lease of a place back, after the last look at its bytes.
    pub(crate) fn give_back(&self, place: usize) {
        // Release: the reads of the bytes come before; the kernel's lock carries it over.
        fence(Ordering::Release);
        // Fails only for a file that is not open. The end of the reader gives it back as well.
        _ = os::unshare_byte(&self.file, place as u64);
    }

    /// Whether a reader is there, in any process.
    pub(crate) fn anybody(&self) -> bool {
        os::locked_by_others(&self.file, PRESENCE_AT..PRESENCE_AT + 1).is_ok_and(|l| l.is_some())
    }

    /// Which of the first `places` places are leased, of those whose seal was broken before (L2).
    /// One system call where none is; two or three for each lease else. Where the kernel does not
    /// tell, all are.
    pub(crate) fn taken(&self, places: usize) -> Taken {
        // SeqCst: (3) before (4); partner of the fence in `take`.
        fence(Ordering::SeqCst);
        self.ask(places as u64).unwrap_or(Taken { words: [u64::MAX; WORDS], any: true })
    }

    fn ask(&self, places: u64) -> io::Result<Taken> {
        let mut taken = Taken::none();
        let mut from = 0;
        while from < places {
            // The kernel names any one of several: narrowed down to the first.
            let mut first: Option<Range<u64>> = None;
            let mut to = places;
            while to > from
                && let Some(found) = os::locked_by_others(&self.file, from..to)?
            {
                to = found.start.clamp(from, to - 1);
                first = Some(found);
            }
            let Some(first) = first else { break };
            let end = first.end.clamp(from + 1, places);
            (first.start.max(from)..end).for_each(|place| taken.add(place as usize));
            from = end;
        }
        Ok(taken)
    }
}

/// Who is asked which places are leased, and whether anybody is there.
pub(crate) trait Lessor: std::fmt::Debug + Send + Sync {
    /// Whether a reader is there, in any process.
    fn anybody(&self) -> bool;

    /// Which of the first `places` places are leased, of those whose seal was broken before (L2).
    fn taken(&self, places: usize) -> Taken;

    /// Lets a moment pass, in which readers may go on.
    fn pause(&self, pause: std::time::Duration) {
        std::thread::sleep(pause);
    }
}

impl Lessor for Leases {
    fn anybody(&self) -> bool {
        Leases::anybody(self)
    }

    fn taken(&self, places: usize) -> Taken {
        Leases::taken(self, places)
    }
}

/// A set of places.
pub(crate) struct Taken {
    words: [u64; WORDS],
    any: bool,
}

impl Taken {
    /// None of them.
    pub(crate) fn none() -> Taken {
        Taken { words: [0; WORDS], any: false }
    }

    /// One more.
    pub(crate) fn add(&mut self, place: usize) {
        self.words[place / 64] |= 1 << (place % 64);
        self.any = true;
    }

    /// Whether a place is among them.
    pub(crate) fn contains(&self, place: usize) -> bool {
        self.words[place / 64] >> (place % 64) & 1 == 1
    }

    /// Whether there is any.
    pub(crate) fn any(&self) -> bool {
        self.any
    }
}

#[cfg(test)]
mod tests {
    //! A lease that the writer does not see is a place written over.

    use super::*;

    #[test]
    fn the_writer_finds_every_lease_in_any_order() {
        let file = |name: &str| {
            File::options().read(true).write(true).create(true).truncate(false).open(name)
        };
        let path = std::env::temp_dir().join(format!("snapring-leases-{}", std::process::id()));
        let name = path.to_str().expect("a name");
        let open = || Leases::of(file(name).expect("a file"));
        let (writer, readers) = (open(), [open(), open(), open()]);
        assert!(!writer.anybody() && !writer.taken(PLACES).any());
        readers[1].enter().expect("a lock");
        assert!(writer.anybody() && !writer.taken(PLACES).any());
        // Neighbours that the kernel joins, one place by two, the first and the last.
        let leases =
            [(2, 17), (0, 40), (0, 41), (1, 41), (1, 39), (2, 0), (0, PLACES - 1), (1, 500)];
        for (reader, place) in leases {
            readers[reader].take(place).expect("a lock");
            readers[reader].take(place).expect("again");
        }
        let find = || {
            let taken = writer.taken(PLACES);
            (0..PLACES).filter(|n| taken.contains(*n)).collect::<Vec<_>>()
        };
        assert_eq!(find(), [0, 17, 39, 40, 41, 500, PLACES - 1]);
        readers[0].give_back(40);
        assert_eq!(find(), [0, 17, 39, 41, 500, PLACES - 1]);
        let [first, second, third] = readers;
        drop(first);
        assert_eq!(find(), [0, 17, 39, 41, 500]);
        drop(second);
        assert!(!writer.anybody());
        assert_eq!(find(), [0, 17]);
        drop(third);
        assert!(!writer.taken(PLACES).any());
        _ = std::fs::remove_file(path);
    }
}

#![forbid(unsafe_code)]
//! [`Options`]: how a ring is made and opened.

use std::time::Duration;

use crate::{error::OpenError, header::MAX_RING, policy::Policy, session::MAX_ARCHIVE};

/// When a snapshot reaches the disk. Whatever is chosen, it survives the process (`kill -9`
/// included) from the moment `save` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Never by our doing. Power loss may take everything since the system last wrote back.
    Process,
    /// By the background thread, within this time of the save. The default, with 1 s.
    Background {
        /// The longest a snapshot waits.
        within: Duration,
    },
    /// Before `save` returns.
    Sync,
}

/// What [`Caretaker::capture`](crate::Caretaker::capture) does when captures are taken faster than they
/// are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Behind {
    /// It waits until enough has been written. The default.
    Wait,
    /// It answers [`SaveError::Behind`](crate::SaveError::Behind), at once, and nothing is captured.
    Refuse,
}

/// How a ring is made and opened. Build one, then open a directory with it, or ask for a ring in
/// memory.
///
/// ```
/// # use snapring::{Options, Snapshot};
/// #[derive(Snapshot)]
/// struct World { tick: u64 }
///
/// let caretaker = Options::new().ring(8).in_memory::<World>()?;
/// caretaker.save(&World { tick: 7 })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) ring: u32,
    pub(crate) file_size: Option<u64>,
    pub(crate) max_file_size: u64,
    pub(crate) durability: Durability,
    pub(crate) ttl: Option<Duration>,
    pub(crate) max_depth: u32,
    pub(crate) allow_remote: bool,
    pub(crate) take_over: Option<Duration>,
    pub(crate) captured: u64,
    pub(crate) behind: Behind,
    pub(crate) policy: Policy,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            ring: 16,
            file_size: None,
            max_file_size: 8 << 30,
            durability: Durability::Background { within: Duration::from_secs(1) },
            ttl: None,
            max_depth: 512,
            allow_remote: false,
            take_over: None,
            captured: 256 << 20,
            behind: Behind::Wait,
            policy: Policy::default(),
        }
    }
}

impl Options {
    /// The defaults: a ring of 16, files from 64 MiB (1 MiB in memory) to 8 GiB each, durable
    /// within a second, 512 pointers deep.
    pub fn new() -> Options {
        Options::default()
    }

    /// Snapshots in the ring, kept ones included: 2 to 1000. A directory keeps the length it was
    /// made with; another one here is then ignored.
    #[must_use]
    pub fn ring(mut self, snapshots: u32) -> Options {
        self.ring = snapshots;
        self
    }

    /// Bytes that each of the two files takes from the start. Files double when they must grow.
    #[must_use]
    pub fn file_size(mut self, bytes: u64) -> Options {
        self.file_size = Some(bytes);
        self
    }

    /// The most bytes that either file may grow to, and the address space that each takes. When it
    /// is reached, the oldest snapshots make room, then saves fail with
    /// [`SaveError::NoSpace`](crate::SaveError::NoSpace).
    #[must_use]
    pub fn max_file_size(mut self, bytes: u64) -> Options {
        self.max_file_size = bytes;
        self
    }

    /// When a snapshot reaches the disk.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Options {
        self.durability = durability;
        self
    }

    /// How old a snapshot gets before it leaves the ring by itself; without this, only newer ones
    /// push it out.
    ///
    /// Looked at about eight times in that span, and every 10 ms at most, by the background thread.
    /// Age is counted on a clock that nobody sets while the caretaker lives. What opening finds is as
    /// old as the wall clock says, and new if that was set back. Whatever the clock says, these stay:
    /// the newest, the newest on the disk and what is on its way there, kept ones, and those that a
    /// memento holds, each until it is so no longer. [`Event::Evicted`](crate::Event::Evicted) tells.
    #[must_use]
    pub fn ttl(mut self, age: Duration) -> Options {
        self.ttl = Some(age);
        self
    }

    /// The most pointers from the state to its deepest value. Bounds the stack that checking an
    /// archive takes.
    #[must_use]
    pub fn max_depth(mut self, pointers: u32) -> Options {
        self.max_depth = pointers;
        self
    }

    /// Opens directories on network and user-space file systems too, where mappings and locks are
    /// only as good as the file system makes them.
    #[must_use]
    pub fn allow_remote(mut self, allow: bool) -> Options {
        self.allow_remote = allow;
        self
    }

    /// Opens as the successor of whoever holds the ring now, within this time; see
    /// [`Caretaker::hand_over`](crate::Caretaker::hand_over). Where nobody holds the directory, it
    /// is opened as usual, at once.
    #[must_use]
    pub fn take_over(mut self, timeout: Duration) -> Options {
        self.take_over = Some(timeout);
        self
    }

    /// The most bytes that captures may keep in memory beside the live state until they are written, and
    /// what a capture does when they would be more: 256 MiB, and it waits.
    ///
    /// Counted are the pages that were copied because a capture had them when they were written to, by the
    /// size of their items, without what those point at. What is written to after the last capture is
    /// counted with the next: so one more copy of the state may come on top.
    #[must_use]
    pub fn capture_memory(mut self, bytes: u64, behind: Behind) -> Options {
        (self.captured, self.behind) = (bytes, behind);
        self
    }

    /// When all pages of a paged state are written anew, and when
    /// [`Caretaker::capture_if_due`](crate::Caretaker::capture_if_due) captures.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Options {
        self.policy = policy;
        self
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let refuse = |option, reason: String| Err(OpenError::Options { option, reason });
        if !(2..=MAX_RING).contains(&self.ring) {
            return refuse("ring", format!("{} snapshots; 2 to {MAX_RING} will do", self.ring));
        }
        let least = crate::header::data_at(self.ring) + crate::file::BLOCK;
        if self.max_file_size < least || self.max_file_size > 1 << 46 {
            return refuse(
                "max_file_size",
                format!(
                    "{} bytes; {least} to 2^46 will do for a ring of {}",
                    self.max_file_size, self.ring
                ),
            );
        }
        if self.file_size.is_some_and(|size| size > self.max_file_size) {
            return refuse("file_size", "more than max_file_size".to_owned());
        }
        if self.ttl.is_some_and(|ttl| ttl.is_zero()) {
            return refuse("ttl", "no time at all; a millisecond will do".to_owned());
        }
        if !(1..=4096).contains(&self.max_depth) {
            return refuse("max_depth", format!("{} pointers; 1 to 4096 will do", self.max_depth));
        }
        const { assert!(MAX_ARCHIVE < 1 << 31) };
        Ok(())
    }
}

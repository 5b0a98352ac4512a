#![forbid(unsafe_code)]
//! Switches that break one rule each, so that anybody can see the campaigns notice; and the gaps in
//! which another thread would come by, for a campaign to step into.
//!
//! Without the feature `campaign` every switch is the constant `false` and every gap is nothing.

#[cfg(feature = "campaign")]
pub use broken::{Deed, in_gap, mend};

/// A rule that a campaign must see broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(not(feature = "campaign"), allow(dead_code, unreachable_pub))]
#[non_exhaustive]
pub enum Mutant {
    /// A and B by turns and nothing more: the newest durable snapshot is evicted like any other.
    NoSteadyRule,
    /// A snapshot counts as durable once its slot page is synced; its data follows.
    SlotBeforeData,
    /// The record's seal does not cover the id.
    SealWithoutId,
    /// A failed sync is tried again, and believed.
    RetrySync,
    /// New files' names are not synced.
    NoDirectorySync,
    /// What is found at opening counts as durable, noted or not.
    NoDurableNote,
    /// A snapshot on its way to the disk may be evicted.
    FlushedNotExempt,
    /// The oldest snapshot goes before the new one is archived.
    EvictFirst,
    /// A reader looks, then announces, and does not look again.
    LookThenAnnounce,
    /// A held place is used again.
    ReuseHeld,
    /// A place that another process leases is used again.
    ReuseLeased,
    /// A memento is counted after the lock has been let go.
    HoldWithoutLock,
    /// The id floor is not raised at opening.
    FloorNotRaised,
    /// `rollback_from` compares before it takes the lock.
    CompareThenLock,
}

#[cfg(not(feature = "campaign"))]
impl Mutant {
    /// Whether this rule is broken now.
    #[inline]
    pub(crate) const fn is_on(self) -> bool {
        false
    }
}

#[cfg(feature = "campaign")]
impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 14] = [
        Mutant::NoSteadyRule,
        Mutant::SlotBeforeData,
        Mutant::SealWithoutId,
        Mutant::RetrySync,
        Mutant::NoDirectorySync,
        Mutant::NoDurableNote,
        Mutant::FlushedNotExempt,
        Mutant::EvictFirst,
        Mutant::LookThenAnnounce,
        Mutant::ReuseHeld,
        Mutant::ReuseLeased,
        Mutant::HoldWithoutLock,
        Mutant::FloorNotRaised,
        Mutant::CompareThenLock,
    ];

    /// Its name on a command line: `no-steady-rule`.
    pub fn name(self) -> String {
        let mut name = String::new();
        for c in format!("{self:?}").chars() {
            if c.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.extend(c.to_lowercase());
        }
        name
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Mutant> {
        Mutant::ALL.into_iter().find(|mutant| mutant.name() == name)
    }
}

/// Another thread may come by here.
#[cfg(not(feature = "campaign"))]
#[inline]
pub(crate) const fn gap() {}

#[cfg(feature = "campaign")]
pub(crate) use broken::gap;

#[cfg(feature = "campaign")]
mod broken {
    use std::{
        cell::RefCell,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::Mutant;

    /// The broken rule's number, one up.
    static BROKEN: AtomicUsize = AtomicUsize::new(0);

    /// What happens in a gap.
    pub type Deed = Box<dyn FnMut()>;

    thread_local! {
        static IN_GAP: RefCell<Option<Deed>> = const { RefCell::new(None) };
    }

    impl Mutant {
        /// Breaks this rule, and no other, for the whole process.
        pub fn break_rule(self) {
            // Relaxed: set before the threads that look.
            BROKEN.store(self as usize + 1, Ordering::Relaxed);
        }

        /// Whether this rule is broken now.
        pub(crate) fn is_on(self) -> bool {
            // Relaxed: see `break_rule`.
            BROKEN.load(Ordering::Relaxed) == self as usize + 1
        }
    }

    /// Breaks no rule any more.
    pub fn mend() {
        // Relaxed: see `break_rule`.
        BROKEN.store(0, Ordering::Relaxed);
    }

    /// What happens in this thread's gaps from now on; answers what would have so far.
    pub fn in_gap(deed: Option<Deed>) -> Option<Deed> {
        IN_GAP.with(|gap| std::mem::replace(&mut *gap.borrow_mut(), deed))
    }

    pub(crate) fn gap() {
        // Taken out meanwhile: the deed's own gaps are empty.
        if let Some(mut deed) = IN_GAP.with(|gap| gap.borrow_mut().take()) {
            deed();
            IN_GAP.with(|gap| _ = gap.borrow_mut().get_or_insert(deed));
        }
    }
}

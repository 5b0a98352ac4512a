#![forbid(unsafe_code)]
//! [`SnapshotId`] and the packed words made with it.

use std::{fmt, num::ParseIntError, str::FromStr};

/// Names one snapshot of a directory. Only grows, is never used twice there, prints as `#42`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(u64);

impl SnapshotId {
    /// The id with this number, as [`get`](Self::get) gave it.
    pub const fn new(number: u64) -> SnapshotId {
        SnapshotId(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl FromStr for SnapshotId {
    type Err = ParseIntError;

    /// Reads `#42` or `42`.
    fn from_str(s: &str) -> Result<SnapshotId, ParseIntError> {
        s.strip_prefix('#').unwrap_or(s).parse().map(SnapshotId)
    }
}

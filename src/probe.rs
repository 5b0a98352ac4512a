//! Archives without files: what the tests of the derive, and of impls written by hand, look
//! through. Hidden, and no promise: the way into an archive is a caretaker.

use std::sync::Arc;

use rkyv::util::AlignedVec;

use crate::{
    checker,
    error::SaveError,
    schema::Layout,
    session::{Halted, Room, Scratch, Session},
    snapshot::Snapshot,
    thaw::Thaw,
};

/// Bytes that an archive made here may take.
const ROOM: usize = 1 << 20;

/// Pointers that a chain in an archive checked here may have.
const DEPTH: u32 = 512;

/// Memory that does not grow.
struct Fixed;

impl Room for Fixed {
    fn extend(&mut self, _: u64) -> Result<usize, Option<SaveError>> {
        Err(None)
    }
}

/// The archive of `value`, written over memory filled with `fill`.
///
/// # Errors
///
/// The reason in words.
pub fn archive_over<T: Snapshot>(
    value: &T,
    fill: u8,
    max_depth: u32,
) -> Result<AlignedVec<64>, String> {
    let mut memory = AlignedVec::<64>::with_capacity(ROOM);
    memory.resize(ROOM, fill);
    let (base, mut room) = (memory.as_mut_ptr(), Fixed);
    // SAFETY: aligned by its type, ROOM bytes, borrowed by nobody else; `room` outlives it.
    let mut session =
        unsafe { Session::new(base, ROOM, false, max_depth, Scratch::default(), &mut room) };
    let written = session.run(value);
    drop(session);
    match written {
        Ok(written) => {
            memory.resize(written.len, 0);
            Ok(memory)
        }
        Err(Halted::Elsewhere(need)) => Err(format!("{need} bytes are more than {ROOM}")),
        Err(Halted::Error(error)) => Err(error.to_string()),
    }
}

/// The archive of `value`.
///
/// # Errors
///
/// As [`archive_over`].
pub fn archive_bytes<T: Snapshot>(value: &T) -> Result<AlignedVec<64>, String> {
    archive_over(value, 0, DEPTH)
}

/// Calls `then` with the value archived in `bytes`, if they pass the check at `depth`.
fn checked<T: Snapshot, R>(
    bytes: &[u8],
    depth: u32,
    then: impl FnOnce(&T::Archived, &mut Thaw) -> Result<R, String>,
) -> Result<R, String> {
    let mut aligned = AlignedVec::<64>::new();
    aligned.extend_from_slice(bytes);
    let root =
        bytes.len().checked_sub(size_of::<T::Archived>()).ok_or("fewer bytes than a root")?;
    let archived = checker::check::<T::Archived>(&aligned, root, depth, None)?;
    let mut thaw = Thaw::of(&Arc::new(Layout::of::<T>()));
    then(archived, &mut thaw)
}

/// A new value from an archive.
///
/// # Errors
///
/// The reason in words, where the bytes or the value are refused.
pub fn check_and_thaw<T: Snapshot>(bytes: &[u8], depth: u32) -> Result<T, String> {
    checked::<T, T>(bytes, depth, |a, t| T::thaw(a, t).map_err(|e| e.to_string()))
}

/// Makes `live` what the archive says, in place.
///
/// # Errors
///
/// As [`check_and_thaw`].
pub fn restore_from<T: Snapshot>(live: &mut T, bytes: &[u8]) -> Result<(), String> {
    checked::<T, ()>(bytes, DEPTH, |a, t| live.restore(a, t).map_err(|e| e.to_string()))
}

/// Replaces `live` by a new value that takes over its skipped fields.
///
/// # Errors
///
/// As [`check_and_thaw`].
pub fn replace_from<T: Snapshot>(live: &mut T, bytes: &[u8]) -> Result<(), String> {
    let fresh = checked::<T, T>(bytes, DEPTH, |a, t| {
        let mut fresh = T::thaw(a, t).map_err(|e| e.to_string())?;
        fresh.adopt(live, t);
        Ok(fresh)
    })?;
    *live = fresh;
    Ok(())
}

/// Calls `then` with the archived form of `value`.
///
/// # Errors
///
/// As [`archive_over`] and [`check_and_thaw`].
pub fn with_archived<T: Snapshot, R>(
    value: &T,
    then: impl FnOnce(&T::Archived) -> R,
) -> Result<R, String> {
    checked::<T, R>(&archive_bytes(value)?, DEPTH, |a, _| Ok(then(a)))
}

/// There and back.
///
/// # Errors
///
/// As [`archive_over`] and [`check_and_thaw`].
pub fn round_trip<T: Snapshot>(value: &T) -> Result<T, String> {
    check_and_thaw(&archive_bytes(value)?, DEPTH)
}

/// The text of a type's layout, as it is stored.
pub fn layout<T: Snapshot>() -> String {
    Layout::of::<T>().text
}

//! From bytes found to bytes believed: checksum, then bytecheck, once per opening.
//!
//! The only file that hands out a place's bytes as a slice.

use crate::{
    checker::{Bytes, Seen, Sources},
    engine::{Engine, Place, Trust},
    error::MementoError,
    events::Event,
    file::MappedFile,
    id::SnapshotId,
    record::Extent,
};

impl MappedFile {
    /// Compares an extent's checksum.
    pub(crate) fn check_extent(&self, extent: Extent) -> Result<(), String> {
        if crc32fast::hash(self.retained(extent)) == extent.crc {
            return Ok(());
        }
        Err(format!("the checksum of {} bytes at {} does not fit", extent.len, extent.offset))
    }

    /// The bytes of an extent that is retained while the slice is used: by the engine's lock, a
    /// hold, or because nobody writes yet.
    pub(crate) fn retained(&self, extent: Extent) -> &[u8] {
        // SAFETY: P1: every caller retains the extent meanwhile, as said above.
        unsafe { self.slice(extent.offset, extent.len) }
    }
}

impl Bytes for MappedFile {
    fn bytes(&self, extent: Extent) -> Result<&[u8], String> {
        let end = extent.offset.checked_add(extent.len);
        if end.is_none_or(|end| end > self.len()) {
            return Err(format!("{} bytes at {} lie outside the file", extent.len, extent.offset));
        }
        Ok(self.retained(extent))
    }
}

/// Checks a place's archive: its checksum and, of the engine's own layout, every byte of it.
/// Answers the root's address.
pub(crate) fn check_place(
    file: &MappedFile,
    place: &Place,
    check: crate::engine::CheckFn,
    first_data: u64,
    seen: &mut Seen,
) -> Result<usize, String> {
    // Ahead of the checksum, which would fault them in one by one; it goes on without.
    _ = file.populate(place.root.offset, place.root.len.max(1), false);
    file.check_extent(place.root)?;
    let bytes = file.retained(place.root);
    let mut pages = place
        .table
        .as_ref()
        .map(|table| Sources::new(file, place.root.offset, table.spans(first_data), seen));
    check(bytes, place.root_pos as usize, place.depth, pages.as_mut())?;
    Ok(bytes.as_ptr().addr() + place.root_pos as usize)
}

impl Engine {
    /// What opening has found newest, and checked, may be resumed: its pages keep their names.
    pub(crate) fn learn_newest(&self) {
        let newest = {
            let state = self.lock();
            let newest = state.listed.front().map(|n| usize::from(*n));
            newest.filter(|n| matches!(state.places[*n].trust, Trust::Checked))
        };
        if let Some(n) = newest
            && self.learn(n)
        {
            self.lock().places[n].named = true;
        }
    }

    /// Makes sure that place `n`, which the caller holds or has just seen listed as `id`, can be
    /// believed; checks it if nobody has.
    pub(crate) fn believe(&self, n: usize, id: u64) -> Result<(), MementoError> {
        let wanted = SnapshotId::new(id);
        let place = {
            let state = self.lock();
            let place = &state.places[n];
            match &place.trust {
                Trust::Checked => return Ok(()),
                Trust::Foreign(difference) => {
                    let difference = difference.to_string();
                    return Err(MementoError::Layout { id: wanted, difference });
                }
                Trust::Rejected(reason) => {
                    return Err(MementoError::Rejected { id: wanted, reason: reason.to_string() });
                }
                Trust::Unverified => place.clone(),
            }
        };
        let file = self.file_of(n);
        let found = {
            let mut seen = self.seen.lock();
            let seen = &mut seen[self.side_of(n).index()];
            check_place(file, &place, self.check, self.data_at(), seen)
        };
        let mut state = self.lock();
        match found {
            Ok(root) => {
                state.places[n].trust = Trust::Checked;
                self.ring.set_root(n, root);
                drop(state);
                // Held by the caller.
                self.learn(n);
                Ok(())
            }
            Err(what) => {
                let index = self.slot_at(n) / crate::record::SLOT_LEN - 1;
                let reason = format!("{} place {index}: {what}", file.path().display());
                state.places[n].trust = Trust::Rejected(reason.as_str().into());
                state.rejected.push((id, reason.as_str().into()));
                if !state.ended {
                    self.unlist(&mut state, n as u16);
                }
                self.listeners.tell(|| Event::Rejected { id: wanted, reason: reason.clone() });
                Err(MementoError::Rejected { id: wanted, reason })
            }
        }
    }

    /// Checks a snapshot that opening has left unchecked, if it is still listed.
    pub(crate) fn verify(&self, id: SnapshotId) {
        let held = {
            let state = self.lock();
            let found = self.find(&state, id);
            if let Some(n) = found {
                self.ring.hold(n);
            }
            found
        };
        if let Some(n) = held {
            // Told by its event, and by whoever asks for it.
            _ = self.believe(n, id.get());
            self.ring.unhold(n);
        }
    }
}

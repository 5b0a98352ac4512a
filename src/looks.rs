#![forbid(unsafe_code)]
//! How far recovery goes in looking at bytes: each once, and in all no more than the files are long,
//! twice over.
//!
//! Knows extents, checksums and layout texts. Which snapshot is listed is for `recover.rs`.

use std::{collections::HashMap, sync::Arc};

use crate::{
    checker::Seen,
    engine::{CheckFn, Trust},
    file::MappedFile,
    header::{Side, data_at},
    record::Extent,
    recover::{Ground, Slot},
    schema::first_difference,
    verify::check_place,
};

/// The longest layout text that is read from a file.
pub(crate) const MAX_SCHEMA: u64 = 16 << 20;

/// One look at an archive: where it lies, whether its structure is checked, from which root, how deep.
type Look = (Side, Extent, bool, u32, u32);

/// What has been looked at. Records that share bytes, as rollbacks do, have them looked at once; and
/// where records that were rejected overlap, as no honest ones do, that comes to an end: else a
/// thousand of them could have a whole file summed up a thousand times.
#[derive(Default)]
pub(crate) struct Looks {
    /// Bytes looked at, by side.
    bytes: [u64; 2],
    /// Pages that have been checked, by side.
    seen: [Seen; 2],
    /// What came of archives, with all that the check depends on.
    archives: HashMap<Look, Result<(), String>>,
    /// What is different in other layouts, by their texts.
    texts: HashMap<(Side, Extent), Result<Arc<str>, String>>,
}

impl Looks {
    /// Charges for a look at `extent`, if there have not been too many.
    fn charge(&mut self, file: &MappedFile, side: Side, extent: Extent) -> Result<(), String> {
        let bytes = &mut self.bytes[side.index()];
        *bytes = bytes.saturating_add(extent.len);
        if *bytes > 2 * file.len() {
            return Err("it overlaps others that were rejected, and they are too many".to_owned());
        }
        Ok(())
    }

    /// The difference between the program's layout and the one whose text is there.
    fn difference(
        &mut self,
        ground: &Ground<'_>,
        file: &MappedFile,
        side: Side,
        schema: Extent,
    ) -> Result<Arc<str>, String> {
        if let Some(known) = self.texts.get(&(side, schema)) {
            return known.clone();
        }
        let told = self.charge(file, side, schema).and_then(|()| {
            let text = layout_text(file, schema)?;
            Ok(clip(&first_difference(&text, &ground.layout.text)).into())
        });
        self.texts.insert((side, schema), told.clone());
        told
    }

    /// Whether the layout text that a slot of another layout points at is whole.
    pub(crate) fn has_text(&mut self, ground: &Ground<'_>, file: &MappedFile, slot: &Slot) -> bool {
        self.difference(ground, file, slot.side, slot.record.schema).is_ok()
    }

    /// Whether a place's bytes are what they should be: their checksum, and what `check` says.
    fn passes(
        &mut self,
        file: &MappedFile,
        slot: &Slot,
        first_data: u64,
        check: Option<CheckFn>,
    ) -> Result<(), String> {
        let Slot { side, place, .. } = slot;
        let look = (*side, place.root, check.is_some(), place.root_pos, place.depth);
        if let Some(known) = self.archives.get(&look) {
            return known.clone();
        }
        let passed = self.charge(file, *side, place.root).and_then(|()| match check {
            Some(check) => {
                let seen = &mut self.seen[side.index()];
                check_place(file, place, check, first_data, seen).map(drop)
            }
            None => file.check_extent(place.root),
        });
        self.archives.insert(look, passed.clone());
        passed
    }

    /// Decides how far a slot is trusted; checks its bytes if they are to be
    /// checked `wholly`.
    pub(crate) fn look(
        &mut self,
        ground: &Ground<'_>,
        file: &MappedFile,
        slot: &mut Slot,
        wholly: bool,
    ) -> Result<(), String> {
        let Ground { layout, check, max_depth, .. } = *ground;
        let first_data = data_at(ground.ring);
        if slot.record.layout != layout.fingerprint {
            let difference = self.difference(ground, file, slot.side, slot.record.schema)?;
            if wholly {
                self.passes(file, slot, first_data, None)?;
            }
            slot.place.trust = Trust::Foreign(difference);
            return Ok(());
        }
        let depth = slot.record.depth;
        if depth > max_depth {
            // Whole for those who allow as much.
            if wholly {
                self.passes(file, slot, first_data, None)?;
            }
            let reason = format!("{depth} pointers deep, and `Options::max_depth` is {max_depth}");
            slot.place.trust = Trust::Foreign(reason.into());
            return Ok(());
        }
        if wholly {
            self.passes(file, slot, first_data, Some(check))?;
            slot.place.trust = Trust::Checked;
        }
        Ok(())
    }
}

/// The start of what a file says, fit for a log.
pub(crate) fn clip(text: &str) -> String {
    const MOST: usize = 400;
    let clean = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut clipped: String = text.chars().take(MOST).map(clean).collect();
    if text.chars().nth(MOST).is_some() {
        clipped.push_str("...");
    }
    clipped
}

/// The layout text that a record points at.
fn layout_text(file: &MappedFile, schema: Extent) -> Result<String, String> {
    if schema.len == 0 || schema.len > MAX_SCHEMA {
        return Err(format!("of another layout, whose text ({} bytes) cannot be read", schema.len));
    }
    file.check_extent(schema)
        .map_err(|e| format!("of another layout, whose text is damaged: {e}"))?;
    Ok(String::from_utf8_lossy(file.retained(schema)).into_owned())
}

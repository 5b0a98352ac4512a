//! `String` and `Box<str>`: up to eight bytes in place, longer ones behind a pointer.

use std::cmp::Ordering;

use rkyv::{
    Place,
    string::{
        ArchivedString,
        repr::{ArchivedStringRepr, INLINE_CAPACITY, OUT_OF_LINE_CAPACITY},
    },
};

use crate::{
    error::SaveError,
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
};

/// Writes `text` unless it fits in place; answers where.
#[inline]
fn archive_str(text: &str, s: &mut Session) -> Result<usize, Halt> {
    if text.len() <= INLINE_CAPACITY {
        return Ok(0);
    }
    if text.len() > OUT_OF_LINE_CAPACITY as usize {
        let (bytes, max) = (text.len() as u64, u64::from(OUT_OF_LINE_CAPACITY));
        return Err(s.halt(SaveError::TooLarge { bytes, max }));
    }
    s.bytes(text.as_bytes())
}

#[inline]
fn resolve_str(text: &str, pos: usize, out: Place<ArchivedString>) {
    // SAFETY: `ArchivedString` is transparent over its representation.
    let out = unsafe { out.cast_unchecked::<ArchivedStringRepr>() };
    if text.len() <= INLINE_CAPACITY {
        // SAFETY: rkyv writes initialised bytes alone: the text and 0xff after it.
        let to = unsafe { out.ptr() };
        // SAFETY: the text is short enough, `to` is a place; all eight bytes are written.
        unsafe { ArchivedStringRepr::emplace_inline(text, to) };
    } else {
        // SAFETY: longer than what fits in place, and `archive_str` refused what is too long.
        unsafe { ArchivedStringRepr::emplace_out_of_line(text, pos, out) };
    }
}

/// The first eight bytes, so that comparing keys begins to compare texts.
#[inline]
pub(crate) fn text_key(text: &str) -> u64 {
    let bytes = text.as_bytes();
    match bytes.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut first = [0; 8];
            first[..bytes.len()].copy_from_slice(bytes);
            u64::from_be_bytes(first)
        }
    }
}

const _: () = assert!(size_of::<ArchivedString>() == INLINE_CAPACITY, "ArchivedString has padding");

macro_rules! text {
    ($live:ty, |$text:ident, $a:ident| $restore:expr) => {
        // SAFETY: both forms of `ArchivedString` are written in all their eight bytes.
        unsafe impl Snapshot for $live {
            type Archived = ArchivedString;
            type Resolver = usize;
            const FROZEN: bool = true;

            #[inline]
            fn archive(&self, s: &mut Session) -> Result<usize, Halt> {
                archive_str(self, s)
            }
            #[inline]
            fn resolve(&self, pos: usize, out: Place<ArchivedString>) {
                resolve_str(self, pos, out);
            }
            #[inline]
            fn thaw(a: &ArchivedString, _: &mut Thaw) -> Result<Self, ThawError> {
                Ok(a.as_str().into())
            }
            #[inline]
            fn restore(&mut self, a: &ArchivedString, _: &mut Thaw) -> Result<(), ThawError> {
                let ($text, $a) = (self, a.as_str());
                $restore
                Ok(())
            }
            #[inline]
            fn canonical(&self, other: &Self) -> Ordering {
                self.cmp(other)
            }
            #[inline]
            fn sort_key(&self) -> u64 {
                text_key(self)
            }
            #[inline]
            fn cmp_archived(&self, a: &ArchivedString) -> Ordering {
                (**self).cmp(a.as_str())
            }
            fn schema(s: &mut Schema) -> Shape {
                s.node::<Self>(|_| Node::new::<ArchivedString>("string"))
            }
        }
    };
}

text!(String, |text, a| {
    text.clear();
    text.push_str(a);
});
text!(Box<str>, |text, a| {
    if **text != *a {
        *text = a.into();
    }
});

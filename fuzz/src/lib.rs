#![forbid(unsafe_code)]
//! What the fuzz targets have in common: states of every shape, files that hold some, and edits of
//! them.
//!
//! A target knows what to feed; what must hold is asserted in [`image`] and [`states`].

pub mod edits;
pub mod image;
pub mod input;
pub mod operations;
pub mod states;

//! What the tests that look at a directory from outside have in common: directories that clean up
//! after themselves, a sample state, the tables of SNAPSHOT_FORMAT.md, and edits of files by them.
//!
//! Knows the format from the document alone, so that it disagrees where the code and the document
//! do.

// Each test binary uses its own share.
#![allow(dead_code, unused_imports)]

mod block;
mod child;
mod document;
mod failing;
mod fuse;
mod golden;
pub(crate) mod hand;
mod image;
pub(crate) mod peer;
mod place;
mod reader;
pub(crate) mod state;
mod victim;

pub(crate) use block::{Block, LAST, blocks, leased, read_in, reader, whole};
pub(crate) use child::{Child, child_role, report};
pub(crate) use document::{Table, table};
pub(crate) use failing::Failing;
pub(crate) use fuse::Fuse;
pub(crate) use golden::{dump, masked, undump};
pub(crate) use image::{A, B, Fields, Image, seal};
pub(crate) use peer::{Peer, lock_of};
pub(crate) use place::{Mount, TempDir, skipped};
pub(crate) use reader::{crc32, field, newest};
pub(crate) use state::{World, open, open_with, small, thawed, world};
pub(crate) use victim::Victim;

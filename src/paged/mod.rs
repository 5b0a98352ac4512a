#![doc = include_str!("guide.md")]

mod archived;
mod archived_map;
mod leaf;
mod map;
mod map_walk;
#[cfg(test)]
mod map_tests;
mod page;
mod pages;
#[cfg(test)]
mod pool_tests;
mod restore;
pub(crate) mod stamp;
#[cfg(test)]
mod stamp_tests;
pub(crate) mod table;
mod vec;
mod walk;

pub(crate) use archived::PageRef;
pub use archived::{ArchivedIter, ArchivedPagedVec};
pub use archived_map::ArchivedPagedMap;
pub use map::{Lookup, PagedMap};
pub use map_walk::{MapIntoIter, MapIter};
pub use vec::PagedVec;
pub use walk::{IntoIter, Iter, IterMut};

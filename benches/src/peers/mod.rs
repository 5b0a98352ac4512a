//! The peers: what others have written to keep a value where another reader, process or day finds
//! it. Each is set up as its own documentation asks for the fastest write: the fastest that is not
//! durable, or the fastest that is.

pub mod codec;
pub mod left_right;
pub mod lmdb;
pub mod mmap_sync;
pub mod redb;

//! The room of the LRU: the order in which frames are reclaimed.

pub(crate) mod list;
pub(crate) mod workingset;

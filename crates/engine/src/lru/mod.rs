//! The room of the LRU: the order in which frames are reclaimed.

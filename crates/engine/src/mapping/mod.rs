//! The room of mappings: which frame holds which page of which file.

pub(crate) mod index;

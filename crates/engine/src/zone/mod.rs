//! The room of zones: free frames.

pub(crate) mod buddy;
pub(crate) mod watermark;

//! The room of writeback: dirty pages and their writers.

pub(crate) mod cluster;
pub(crate) mod ratelimit;

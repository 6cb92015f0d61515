//! The room of writeback: dirty pages and their writers.

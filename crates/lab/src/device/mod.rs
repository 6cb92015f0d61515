//! Devices of the lab: disks with a latency model ([`LabQueue`]) and the files on them ([`RamDevice`]).
//!
//! A disk serves `depth` requests at one time: each takes a base latency with jitter, and its bytes pass over one bus.
//! A file has the images of [`image`](self) (what reads see, what a crash keeps) and the faults of `fault.rs`.
//!
//! **Context.** `submit` never waits. Requests take effect and end in completion context; those of the flusher's lane
//! end on the flusher, in `reap`. `read_now`, `write_now`, `flush`, `truncate` and `write_zeroes` sleep as a system
//! call does: an `unpark` meanwhile is kept.
//! **Invariants.**
//! - DEV-1: the bytes of a write do not change between its submission and its completion (checked by a sum).
//! - DEV-2: a flush makes durable what completed before it began, and nothing later.
//!
//! **Kernel.** brd, null_blk, dm-flakey, dm-log-writes.

mod fault;
mod image;
mod queue;
mod ram;
#[cfg(test)]
mod tests;

pub use fault::{FaultRates, Rule};
pub use image::SECTOR;
pub use queue::{LabQueue, QueueOptions};
pub use ram::{RamDevice, RamOptions};

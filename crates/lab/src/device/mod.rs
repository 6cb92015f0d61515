//! Devices of the lab: disks with a latency model ([`LabQueue`]) and the files on them ([`RamDevice`]).
//!
//! A disk has a [`model`]: with an arm, of flash, behind a network. It says when each request ends, by address and size.
//! A file has the images of [`image`](self) (what reads see, what a crash keeps) and the faults of `fault.rs`.
//!
//! **Context.** `submit` never waits. Requests take effect and end in completion context; those of the flusher's lane
//! end on the flusher, in `reap`. `read_now`, `write_now`, `flush`, `truncate` and `write_zeroes` sleep as a system
//! call does: an `unpark` meanwhile is kept.
//! **Invariants.**
//! - DEV-1: the bytes of a write do not change between its submission and its completion (checked by a sum).
//! - DEV-2: a flush makes durable what completed before it began, and nothing later.
//! - DEV-3: each piece of a request has bytes: a page beyond its file's end would count as written, and be lost.
//! - DEV-4: a request has at most the bytes and the pieces that its disk says it takes. Two pieces always go: a volume's
//!   page that is cut by the end of the file has zeroes behind it.
//!
//! **Kernel.** brd, null_blk, dm-flakey, dm-log-writes.

mod backlog;
mod fault;
mod holes;
mod image;
pub mod model;
mod plug;
mod queue;
mod ram;
#[cfg(test)]
mod ring_tests;
#[cfg(test)]
mod tests;

pub use fault::{FaultCounts, FaultRates, Rule};
pub use image::SECTOR;
pub use model::Model;
pub use queue::{Cap, LabQueue, QueueOptions};
pub use ram::{Moment, RamDevice, RamOptions};

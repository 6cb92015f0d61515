//! Writeback: dirty pages on their way to the device, and the writers who must not get too far ahead.
//!
//! Each device has one flusher ([`flusher`]) that writes in long runs ([`writepages`], [`cluster`]) when there are more
//! dirty pages than the background limit, when reclaim rings, or when pages get old; while others read from its device it
//! keeps the queue short ([`wbt`]). Writers are slowed before they
//! dirty a page ([`throttle`]). A write that ends is [`complete`]'s business; making it durable is [`sync`]'s.
//!
//! ```text
//! clean ──set_dirty──► dirty ──start_writeback──► writeback ──ok──► clean
//!                        ▲                            │
//!                        └──────────── error ─────────┘
//! ```
//!
//! **State.** The dirty list of a mapping: its dirty lock. Counts of pages: atomics, exact when nobody is inside.
//! **Lock order.** A page's latch (by try), then the dirty lock. Completion takes the dirty lock, then lets go, then
//! frees and wakes.
//!
//! **Invariants.**
//! - WB-1: DIRTY and WRITEBACK exclude each other on the copy in the index, but for the moment a failed write ends.
//! - WB-2: at most one write of a page is in flight: the copy of a page under writeback is written only after the old
//!   frame's write has ended (`Superseded`).
//! - WB-3: dirty is cleared before the bytes are submitted, under a shared latch; so every later change dirties again.
//! - WB-4: a write that failed leaves its page dirty and in memory.
//!
//! **Kernel.** page-writeback.c, fs-writeback.c. The copy for a writer that meets writeback is ours: Linux lets it wait
//! (stable pages) or change the page in flight.

pub(crate) mod cluster;
mod complete;
mod device;
mod dirty;
mod flusher;
pub(crate) mod ratelimit;
mod space;
mod sync;
mod throttle;
pub(crate) mod wbt;
mod writepages;

pub(crate) use complete::Cookie;
pub(crate) use device::BackingDev;
pub(crate) use sync::{Latched, Scope};

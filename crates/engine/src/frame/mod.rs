//! Frames: the memory, one descriptor for each piece of it, and the state word that says who may touch it.
//!
//! A frame is a slot of memory; a page is content at (mapping, index). A descriptor is never freed (type-stable), so a
//! look-up may inspect a frame that has just changed hands: it pins first and compares the key after.
//!
//! **State.**
//! - `state`: the word of [`state`]; every change is one atomic read-modify-write.
//! - `mapping`, `page`: written only by the owner of a frame that is not HASHED; stable for whoever holds a pin.
//! - `lru_prev`, `lru_next`: the LRU lock. `dirty_prev`, `dirty_next`: the mapping's dirty lock.
//! - `generation`: while DIRTY the dirty generation (dirty lock); while clean the write epoch (end of writeback).
//!
//! **Invariants.**
//! - FRAME-1: bytes are read only with a shared pin, EXCL, LOADING (the device) or WRITEBACK (the device); they are
//!   written only with EXCL or LOADING.
//! - FRAME-2: EXCL and holders > 0 exclude each other.
//! - FRAME-3: a frame returns to the buddy only when it is not HASHED and nobody pins, latches, isolates or does I/O on
//!   it; the one change of the word that makes this true names the one task that frees it.
//! - FRAME-4: the bytes of a page under WRITEBACK never change: EXCL for writing is taken on such a page only to copy it.
//!
//! **Kernel.** struct page, page flags, memmap; `page_ref_freeze` for the claim.
//! **Tests.** `state.rs` (tables), `loom/frame.rs` (pin against evict, frame switch against holders, …).

pub(crate) mod data;
mod latch;
pub(crate) mod metadata;
pub(crate) mod state;
mod table;

pub(crate) use data::{Memory, prefetch, same_lanes};
pub(crate) use metadata::{Carver, Table};
pub use table::FrameNo;
pub(crate) use table::{DirtyLinks, Frame, FrameTable, LruLinks};

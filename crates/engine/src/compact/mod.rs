//! Compaction: free neighbours are made by moving pages, not by giving them up.
//!
//! Two scanners run towards each other: the migrate scanner looks from the bottom of memory for an aligned block of the
//! wanted order all of whose frames are free or hold a page that may be moved; the free scanner looks from the top for
//! single free frames to move those pages to. When they meet, compaction has failed; when a block is free, it is done.
//!
//! ```text
//! frame 0 ──► migrate scanner                                  free scanner ◄── last frame
//! [pppp][p..p][p.Hp][.p..]  ...                       ...  [p.p.][..pp][p..p]
//!        └────── pages of the first block without a held page (H) ──────┘ one frame each
//! ```
//! It needs room: as many free frames again as the block has, above *low*. Where there is none, or where free memory is
//! short rather than in pieces (the fragmentation index says which), reclaim comes first. After a failure it is not tried
//! for a while (`defer.rs`).
//!
//! **State.** `Compaction`: the deferral, under its lock (`Rank::Stats`). A run's own: its scanners, the frames it took.
//! **Lock order.** A page's latch (by try) › its file's `invalidate` shared (by try) › Mappings; then Dirty › Index.
//! **Context.** `compact_direct`: a task that needs a block, on its stack; `compact_in_background`: kswapd. Never waits,
//! never writes, allocates no frame; lists of at most 2^order entries.
//!
//! **Invariants.**
//! - COMPACT-1: a page moves only under EXCL, taken by one try, while it is neither held, loading, under writeback nor
//!   isolated; so nobody reads, writes or submits it meanwhile, and its bytes, its dirty state with generation, and its
//!   place on the dirty list go over in one step under the dirty lock.
//! - COMPACT-2: a page moves to a higher frame. So whoever looks at all frames from the first to the last meets each page
//!   (`redirty_unflushed` does).
//! - COMPACT-3: a page moves only while its mapping is in the table and its `invalidate` lock is held shared: neither a
//!   truncation nor the end of the mapping misses a page that has changed its frame.
//! - COMPACT-4: a frame that a run has taken becomes a page or goes back to the buddy before the run ends.
//!
//! **Kernel.** compaction.c, migrate.c. Left out: migrate types and pageblock hints (every page may move unless it is in
//! use), synchronous migration (no wait for latch or writeback), proactive compaction. From later kernels: a block is
//! left at its first page that cannot move (`skip_on_failure`), and the frames of a block are kept until it is whole (as
//! `capture_control` does for the caller).
//! **Tests.** Here, `crates/lab/tests/high_order.rs`, `loom/compact.rs`.

mod defer;
mod fragmentation;
mod migrate;
mod run;

use crate::sync::{Lock, Rank};
use defer::Deferral;

pub(crate) use fragmentation::{compact_gap, fragmentation_index};
#[cfg(all(test, loom))]
pub(crate) use migrate::Moved;
pub(crate) use run::Compacted;

/// What the engine keeps of compaction between runs.
pub(crate) struct Compaction {
    deferral: Lock<Deferral>,
}

impl Compaction {
    pub(crate) fn new() -> Compaction {
        Compaction {
            deferral: Lock::new(Rank::Stats, Deferral::default()),
        }
    }
}

//! Reclaim: how pages become free frames, by whom, and what is done about those that cannot.
//!
//! A scan takes pages off the inactive list's tail in batches of 32, at priorities from 12 (1/4096 of the list) down to
//! 0 (all of it), and stops when 32 are reclaimed (direct reclaim) or the high watermark is met (kswapd). What happens to
//! a dirty page is the policy table's business: `shrink.rs` asks, [`decide_dirty`] answers.
//!
//! **Context.** Direct reclaim runs on the stack of the task that needs a frame; kswapd on its own. Both carry MEMALLOC:
//! they never enter reclaim again and may use the reserve. Reclaim never waits for a latch.
//!
//! **Invariants.**
//! - RECLAIM-1: a reclaimer never re-enters reclaim (unless the lab turns `Config::recursion_guard` off, to show why).
//! - RECLAIM-2: in the default policy no page is written by direct reclaim, kswapd or a writer.
//! - RECLAIM-3: every wait here has a deadline of at most 100 ms.
//!
//! A run for a block of several frames takes more than the tail, by the knob `high_order`: `lumpy.rs`, and `compact/`.
//!
//! **Kernel.** vmscan.c. Left out: shrinkers (nothing registers), memory cgroups, anonymous pages (with swap).

mod direct;
mod kswapd;
mod lumpy;
mod oom;
mod shrink;
mod unreclaimable;

pub(crate) use kswapd::Kswapd;
pub(crate) use unreclaimable::Unreclaimable;

use crate::backing::WriteContext;
use crate::policy::{Policy, WritebackFrom};

/// The most pages that are reclaimed in one go; `Config::reclaim_cluster` is how many are (SWAP_CLUSTER_MAX).
#[doc(alias = "SWAP_CLUSTER_MAX")]
pub(crate) const CLUSTER: usize = 32;
/// The first priority.
pub(crate) const DEF_PRIORITY: u32 = 12;

/// One reclaimer's run: its target, and what it has met so far.
#[doc(alias = "scan_control")]
#[derive(Debug)]
pub(crate) struct ScanControl {
    pub context: WriteContext,
    /// What it is for: a block of 2^order frames; 0 for single ones.
    pub order: u32,
    pub target: u64,
    pub priority: u32,
    /// The batch at hand was taken because of where it lies: references are ignored.
    pub lumpy: bool,
    /// No wait of this run for a write has timed out: lumpy reclaim may wait for others.
    pub patient: bool,
    pub met: Met,
}

impl ScanControl {
    pub(crate) fn new(context: WriteContext, order: u32) -> ScanControl {
        ScanControl {
            context,
            order,
            target: 0,
            priority: DEF_PRIORITY,
            lumpy: false,
            patient: true,
            met: Met::default(),
        }
    }
}

/// What a run met.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Met {
    pub scanned: u64,
    pub reclaimed: u64,
    /// Dirty pages that nobody has queued for writing.
    pub dirty: u64,
    pub writeback: u64,
    pub written: u64,
}

/// What to do with a dirty page at the tail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dirty {
    /// Write it now.
    Write,
    /// Leave it on the inactive list.
    Keep,
    /// Mark it for reclaim at the end of its writeback, and leave it.
    Mark,
    /// Mark it, and move it out of the way.
    MarkAndActivate,
}

/// The policy table's answer for a dirty page found by `context` at `priority`.
pub(crate) fn decide_dirty(policy: &Policy, context: WriteContext, priority: u32) -> Dirty {
    let kswapd = context == WriteContext::Kswapd;
    match policy.writeback_from {
        WritebackFrom::Direct => Dirty::Write,
        WritebackFrom::Kswapd if kswapd => Dirty::Write,
        WritebackFrom::Kswapd => Dirty::Keep,
        WritebackFrom::KswapdLate if kswapd && priority < DEF_PRIORITY - 2 => Dirty::Write,
        WritebackFrom::KswapdLate => Dirty::Mark,
        WritebackFrom::Flusher => Dirty::MarkAndActivate,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::policy::Preset;

    #[test]
    fn the_policy_table_says_who_writes() {
        use Dirty::*;
        use WriteContext::{Direct, Kswapd};
        for (preset, context, priority, want) in [
            (Preset::V2_6_35, Direct, 12, Write),
            (Preset::V2_6_35, Kswapd, 12, Write),
            (Preset::Rfc2010, Direct, 0, Keep),
            (Preset::Rfc2010, Kswapd, 12, Write),
            (Preset::V3_2, Direct, 0, Mark),
            (Preset::V3_2, Kswapd, 10, Mark),
            (Preset::V3_2, Kswapd, 9, Write),
            (Preset::V6_16, Kswapd, 0, MarkAndActivate),
            (Preset::Highwater, Direct, 0, MarkAndActivate),
        ] {
            assert_eq!(
                decide_dirty(&preset.policy(), context, priority),
                want,
                "{preset} {context:?} at {priority}"
            );
        }
    }
}

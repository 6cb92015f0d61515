//! Tracepoints of reclaim, under the names and with the fields of the kernel's `vmscan` events.
//!
//! Off (no [`Tracer`] in the config) a tracepoint is one branch, on slow paths only; none lies on the path of a hit. What
//! each event means is such that sums over a whole trace equal counters of the same time:
//!
//! | sum over the trace | counter |
//! |---|---|
//! | `LruIsolate` of the inactive list, `nr_scanned`, by kswapd and by others | `pgscan_kswapd`, `pgscan_direct` |
//! | `LruIsolate` of the active list, `nr_scanned` | `pgrefill` |
//! | `LruShrinkInactive`, `nr_reclaimed`, by kswapd and by others | `pgsteal_kswapd`, `pgsteal_direct` |
//! | `WritePage`, one for each page | `nr_vmscan_write` |
//! | `DirectReclaimBegin`, `KswapdWake`, `WakeupKswapd` | `allocstall`, `pageoutrun`, `wakeup_kswapd` |
//!
//! **Context.** Emitted by the task that did it, with no engine lock held; completion context may ring for kswapd.
//! **Kernel.** include/trace/events/vmscan.h. There is one node and one zone, both 0.
//! **Tests.** `crates/cli/tests/ftrace.rs`: the sums, for each preset, in both worlds.

use crate::engine::Engine;
use crate::world::{Nanos, TaskId, World};

/// The `gfp_flags` of every allocation: a page of the page cache.
pub const GFP_FLAGS: &str = "GFP_HIGHUSER_MOVABLE";

/// Which list a batch was isolated from (`isolate_mode_t`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum IsolateMode {
    /// Scanning: the inactive list (`ISOLATE_INACTIVE`).
    Inactive = 1,
    /// Refilling: the active list (`ISOLATE_ACTIVE`).
    Active = 2,
}

/// What happened, with the fields of the kernel's event of that name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TraceEvent {
    /// kswapd starts a run (`mm_vmscan_kswapd_wake`).
    KswapdWake {
        /// The size wanted.
        order: u32,
    },
    /// kswapd, which has run since, goes to its full sleep, or ends with its cache (`mm_vmscan_kswapd_sleep`).
    KswapdSleep,
    /// Somebody rings for kswapd, which sleeps (`mm_vmscan_wakeup_kswapd`).
    WakeupKswapd {
        /// The size wanted.
        order: u32,
    },
    /// A task that needs a frame starts to look for one (`mm_vmscan_direct_reclaim_begin`).
    DirectReclaimBegin {
        /// The size wanted.
        order: u32,
        /// May this task write the dirty pages it finds?
        may_writepage: bool,
    },
    /// It ends (`mm_vmscan_direct_reclaim_end`).
    DirectReclaimEnd {
        /// Frames that it freed.
        nr_reclaimed: u64,
    },
    /// A batch was taken off a list (`mm_vmscan_lru_isolate`).
    LruIsolate {
        /// The size wanted.
        order: u32,
        /// Which list.
        isolate_mode: IsolateMode,
        /// Pages asked for.
        nr_requested: u64,
        /// Pages looked at, those passed over not counted.
        nr_scanned: u64,
        /// Pages that the order passed over.
        nr_skipped: u64,
        /// Pages taken.
        nr_taken: u64,
    },
    /// A batch of the inactive list was dealt with (`mm_vmscan_lru_shrink_inactive`).
    LruShrinkInactive {
        /// Pages looked at.
        nr_scanned: u64,
        /// Frames freed.
        nr_reclaimed: u64,
        /// Dirty pages met and not written.
        nr_dirty: u64,
        /// Pages met under writeback, those that this batch wrote included.
        nr_writeback: u64,
        /// Pages moved to the active list.
        nr_activate: u64,
        /// The priority, 12 to 0.
        priority: u32,
    },
    /// Reclaim writes a page (`mm_vmscan_writepage`). A write that covers several is an event for each.
    WritePage {
        /// The frame.
        pfn: u32,
    },
}

impl TraceEvent {
    /// The kernel's name of the event.
    pub const fn name(&self) -> &'static str {
        match self {
            TraceEvent::KswapdWake { .. } => "mm_vmscan_kswapd_wake",
            TraceEvent::KswapdSleep => "mm_vmscan_kswapd_sleep",
            TraceEvent::WakeupKswapd { .. } => "mm_vmscan_wakeup_kswapd",
            TraceEvent::DirectReclaimBegin { .. } => "mm_vmscan_direct_reclaim_begin",
            TraceEvent::DirectReclaimEnd { .. } => "mm_vmscan_direct_reclaim_end",
            TraceEvent::LruIsolate { .. } => "mm_vmscan_lru_isolate",
            TraceEvent::LruShrinkInactive { .. } => "mm_vmscan_lru_shrink_inactive",
            TraceEvent::WritePage { .. } => "mm_vmscan_writepage",
        }
    }
}

/// An event, with when, where and who.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceRecord {
    /// The world's time.
    pub now: Nanos,
    /// The CPU it happened on.
    pub cpu: u32,
    /// The task that did it.
    pub task: TaskId,
    /// What happened.
    pub event: TraceEvent,
}

/// Who is told of events. Called on the task that emits, in the midst of reclaim and also in completion context: it must
/// neither sleep, nor call the cache, nor take long.
pub trait Tracer: Send + Sync + std::fmt::Debug {
    /// Takes an event.
    fn event(&self, record: &TraceRecord);
}

impl<W: World> Engine<W> {
    /// A tracepoint.
    #[inline]
    pub(crate) fn trace(&self, event: TraceEvent) {
        if let Some(tracer) = &self.config().tracer {
            tracer.event(&TraceRecord {
                now: self.world.now(),
                cpu: self.world.cpu() as u32,
                task: self.world.task().id(),
                event,
            });
        }
    }
}

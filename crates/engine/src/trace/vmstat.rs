//! Event counters, under the names of `/proc/vmstat` where Linux has the same event.
//!
//! Each look-up is a hit or a miss: a miss when the page was not there and this look-up brought it in, a hit when it was,
//! also where it was still being read and had to be waited for (as in Linux, where only the fault that starts the read is
//! major; `page_waits` counts the waits). Hits are counted per task and folded in batches (as vmstat's per-CPU deltas are),
//! so `hits` may lag by up to 255 for each task but the one that asks (`Engine::count_own_hits`); all others are exact.

use crate::sync::{Ordering, hint::AtomicU64};

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident $text:literal,)*) => {
        /// What is counted.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        #[allow(missing_docs)]
        pub enum Event { $($(#[$doc])* $name,)* }

        impl Event {
            /// All events, in order.
            pub const ALL: &'static [Event] = &[$(Event::$name,)*];
            /// The event's name.
            pub const fn name(self) -> &'static str {
                match self { $(Event::$name => $text,)* }
            }
        }
    };
}

events! {
    /// Frames allocated.
    Pgalloc "pgalloc",
    /// Frames freed.
    Pgfree "pgfree",
    /// Look-ups that found the page, or found it being read.
    Hits "hits",
    /// Look-ups that did not (a page was read or made).
    Misses "misses",
    /// Pages read by the thread that missed them (Linux: pgmajfault).
    Pgmajfault "pgmajfault",
    /// Pages read from devices.
    PagesRead "pages_read",
    /// Read requests.
    ReadRequests "read_requests",
    /// Pieces of memory of read requests: frames in a row are one.
    ReadSegments "read_segments",
    /// Pages read ahead.
    ReadaheadPages "readahead_pages",
    /// Pages scanned by kswapd.
    PgscanKswapd "pgscan_kswapd",
    /// Pages scanned by direct reclaim.
    PgscanDirect "pgscan_direct",
    /// Pages reclaimed by kswapd.
    PgstealKswapd "pgsteal_kswapd",
    /// Pages reclaimed by direct reclaim.
    PgstealDirect "pgsteal_direct",
    /// Pages moved to the active list.
    Pgactivate "pgactivate",
    /// Pages moved to the inactive list.
    Pgdeactivate "pgdeactivate",
    /// Active pages looked at.
    Pgrefill "pgrefill",
    /// Pages moved to the tail when their writeback ended.
    Pgrotated "pgrotated",
    /// Entries into direct reclaim.
    Allocstall "allocstall",
    /// Turns of kswapd.
    Pageoutrun "pageoutrun",
    /// kswapd was woken early from its nap.
    KswapdLowWmarkHitQuickly "kswapd_low_wmark_hit_quickly",
    /// kswapd's work was undone while it napped.
    KswapdHighWmarkHitQuickly "kswapd_high_wmark_hit_quickly",
    /// kswapd was asked to wake up.
    WakeupKswapd "wakeup_kswapd",
    /// Pages written by reclaim.
    NrVmscanWrite "nr_vmscan_write",
    /// Dirty pages at the tail marked for reclaim at the end of their writeback.
    NrVmscanImmediateReclaim "nr_vmscan_immediate_reclaim",
    /// Pages dirtied.
    NrDirtied "nr_dirtied",
    /// Pages whose write completed.
    NrWritten "nr_written",
    /// Pages written by direct reclaim.
    WrittenDirect "written_direct",
    /// Pages written by kswapd.
    WrittenKswapd "written_kswapd",
    /// Pages written by the flusher.
    WrittenFlusher "written_flusher",
    /// Pages written by throttled writers.
    WrittenWriter "written_writer",
    /// Pages written by sync (and close, and evict).
    WrittenSync "written_sync",
    /// Write requests.
    WriteRequests "write_requests",
    /// Pieces of memory of write requests: frames in a row are one.
    WriteSegments "write_segments",
    /// Bytes of write requests.
    WriteBytes "write_bytes",
    /// Writes that failed.
    WriteErrors "write_errors",
    /// Reads that failed.
    ReadErrors "read_errors",
    /// Flushes that failed.
    FlushErrors "flush_errors",
    /// Flushes.
    Flushes "flushes",
    /// Refaults of pages evicted a short while ago.
    WorkingsetRefaultFile "workingset_refault_file",
    /// Refaulted pages that went to the active list at once.
    WorkingsetActivateFile "workingset_activate_file",
    /// Writers that met a page under writeback and got a copy.
    WritebackCopies "writeback_copies",
    /// Times a writer was paused or made to write.
    Throttled "balance_dirty_pause",
    /// Time writers were paused or writing, in nanoseconds.
    ThrottleNs "balance_dirty_pause_ns",
    /// Time spent waiting for memory, in nanoseconds.
    AllocStallNs "allocstall_ns",
    /// Waits for memory.
    AllocWaits "alloc_waits",
    /// Frames handed to a waiting task.
    AllocHandoffs "alloc_handoffs",
    /// Naps of reclaimers.
    CongestionWait "congestion_wait",
    /// Allocations that failed.
    AllocRefused "alloc_refused",
    /// Reclaim writes that the backing refused.
    WriteRefused "write_refused",
    /// Wakes of the flusher by reclaim.
    FlusherKicks "flusher_kicks",
    /// Times a flusher kept requests back that the device had room for, as others were reading from it.
    WbtWait "wbt_wait",
    /// How long, in nanoseconds.
    WbtWaitNs "wbt_wait_ns",
    /// Times it let go on one request at a time, as a read was under way for long.
    WbtOverdue "wbt_overdue",
    /// Steps up: more in flight beside reads.
    WbtStepUp "wbt_step_up",
    /// Steps down.
    WbtStepDown "wbt_step_down",
    /// Chunks populated by a thread that ran out.
    PopulateDirect "populate_direct",
    /// Waits for a page's latch or I/O.
    PageWaits "page_waits",
    /// Waits that timed out although their condition was true. A bug.
    LostWakeups "lost_wakeups",
    /// Fills thrown away because the file was truncated meanwhile.
    StaleFills "stale_fills",
    /// Syncs.
    Syncs "syncs",
    /// Blocks of two frames or more given out.
    BlockAlloc "block_alloc",
    /// Such blocks that could not be had.
    BlockAllocFailed "block_alloc_failed",
    /// Time spent on blocks that were not free at once, in nanoseconds.
    BlockStallNs "block_stall_ns",
    /// Pages reclaimed by tasks that needed a block.
    BlockReclaimed "block_reclaimed",
    /// Pages that lumpy reclaim took because of where they lie (the kernel's `nr_lumpy_taken`).
    LumpyTaken "nr_lumpy_taken",
    /// Pages that lumpy reclaim took and could not free.
    LumpyFailed "nr_lumpy_failed",
    /// Pages that lumpy reclaim freed, those at the tail included.
    PgreclaimLumpy "pgreclaim_lumpy",
    /// kswapd gave up on an order, to see to single frames.
    KswapdOrderDropped "kswapd_order_dropped",
    /// Direct compactions.
    CompactStall "compact_stall",
    /// Direct compactions after which there was no block.
    CompactFail "compact_fail",
    /// Direct compactions that made a block.
    CompactSuccess "compact_success",
    /// Compactions by kswapd.
    CompactDaemonWake "compact_daemon_wake",
    /// Direct compactions not tried, since those before had failed.
    CompactDeferred "compact_deferred",
    /// Frames that compaction's migrate scanner looked at.
    CompactMigrateScanned "compact_migrate_scanned",
    /// Frames that its free scanner looked at.
    CompactFreeScanned "compact_free_scanned",
    /// Frames that either took: pages to move, and free frames to move them to.
    CompactIsolated "compact_isolated",
    /// Pages moved to another frame.
    PgmigrateSuccess "pgmigrate_success",
    /// Pages that could not be moved.
    PgmigrateFail "pgmigrate_fail",
    /// Dirty pages that direct reclaim found at the tail, whatever it then did about them.
    PgscanDirectDirty "pgscan_direct_dirty",
    /// Naps of direct reclaimers between two priorities.
    CongestionWaitDirect "congestion_wait_direct",
    /// Those of them at priority 1 and 0.
    CongestionWaitDirectLast "congestion_wait_direct_last",
    /// Direct reclaims that got nothing after the lists were scanned six times over without a page freed: where the
    /// kernel (2.6.35 to 4.6) was out of memory, and this engine goes on waiting.
    OomUnreclaimable "oom_unreclaimable",
}

const COUNT: usize = Event::ALL.len();
const SHARDS: usize = 4;

#[repr(align(128))]
struct Shard([AtomicU64; COUNT]);

/// The counters of one cache, sharded by CPU.
pub struct VmStat {
    shards: Box<[Shard]>,
}

impl Default for VmStat {
    fn default() -> VmStat {
        VmStat::new()
    }
}

impl VmStat {
    /// All zero.
    pub fn new() -> VmStat {
        VmStat {
            shards: (0..SHARDS)
                .map(|_| Shard(std::array::from_fn(|_| AtomicU64::new(0))))
                .collect(),
        }
    }

    /// Counts `n` events on the shard of `cpu`.
    #[inline]
    pub fn add(&self, cpu: usize, event: Event, n: u64) {
        // Relaxed: a statistic; nothing is ordered by it.
        self.shards[cpu % SHARDS].0[event as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// The sum over all shards.
    pub fn get(&self, event: Event) -> u64 {
        // Relaxed: as above.
        self.shards
            .iter()
            .map(|s| s.0[event as usize].load(Ordering::Relaxed))
            .sum()
    }
}

/// A snapshot of all counters and gauges, under vmstat's names.
#[doc(alias = "vmstat")]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Event counters since the cache was built, by name, in the order of [`Event::ALL`].
    pub events: Vec<(&'static str, u64)>,
    /// Gauges now: `nr_free_pages`, `nr_inactive_file`, `nr_active_file`, `nr_dirty`, `nr_writeback`, ….
    pub gauges: Vec<(&'static str, u64)>,
    /// The budget in bytes.
    pub memory_bytes: u64,
    /// Bytes per frame.
    pub frame_size: usize,
    /// Frames in all.
    pub frames: u64,
}

impl Stats {
    /// A counter or gauge by its name; zero when there is none of that name.
    pub fn get(&self, name: &str) -> u64 {
        self.events
            .iter()
            .chain(&self.gauges)
            .find(|(n, _)| *n == name)
            .map_or(0, |(_, v)| *v)
    }

    /// A counter.
    pub fn event(&self, event: Event) -> u64 {
        self.get(event.name())
    }
}

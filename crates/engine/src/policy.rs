//! Every knob of the policy table, and the presets that set them as a named system had them.
//!
//! **Kernel.** The code of 2.6.35, of the RFC of June 2010, of 3.2 and of 6.16; see `docs/kernel-map.md`.

use crate::lru::order::Order;
use crate::world::Nanos;
use std::fmt;
use std::str::FromStr;

/// Who writes a dirty file page found at the LRU's tail.
#[doc(alias = "pageout")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WritebackFrom {
    /// The thread that reclaims, and kswapd too (before 2010).
    Direct,
    /// kswapd alone (the RFC of 2010).
    Kswapd,
    /// kswapd, at priority < 10 only; before that the page is marked for immediate reclaim (3.2).
    KswapdLate,
    /// The flusher alone; the page is marked and moved out of the way (6.16).
    Flusher,
}

/// How much one write from reclaim writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteUnit {
    /// The page (`->writepage`).
    Page,
    /// The dirty run around it (`->writepages`; the RFC's "where possible").
    Range,
}

/// What reclaim does about a dirty page that it may not write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnDirty {
    /// Goes on to the next.
    Skip,
    /// Wakes the flusher.
    Kick,
    /// Wakes the flusher and waits for writeback to make progress (the mail's alternative).
    KickAndWait,
}

/// How a reclaimer that makes no headway waits.
#[doc(alias("congestion_wait", "wait_iff_congested", "reclaim_throttle"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReclaimWait {
    /// Naps of up to 100 ms at priority < 10, ended by any write's completion (`congestion_wait`).
    Congestion,
    /// The same, only when the queue is congested (`wait_iff_congested`, 2.6.37).
    IfCongested,
    /// Until writeback has completed pages for each waiter (5.16).
    Progress,
}

/// How writers are slowed when there are many dirty pages.
#[doc(alias = "balance_dirty_pages")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Throttle {
    /// Not at all.
    Off,
    /// The writer itself writes pages out (before 3.2).
    DirtierWrites,
    /// The writer pauses, at a rate that keeps the dirty pages at a set point (since 3.2).
    IoLess,
}

/// How a block of several frames in a row is made when none is free.
#[doc(alias("lumpy_reclaim", "compaction", "COMPACTION_BUILD"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HighOrder {
    /// Reclaim takes the page at the tail and with it every page of its aligned block, however hot (until 3.5).
    Lumpy,
    /// Pages are moved to the other end of memory; reclaim only makes room for that.
    Compaction,
    /// Compaction first, and where it is not enough lumpy reclaim (from 2.6.35).
    Both,
}

impl HighOrder {
    /// May reclaim be lumpy?
    pub const fn lumpy(self) -> bool {
        matches!(self, HighOrder::Lumpy | HighOrder::Both)
    }

    /// May pages be moved?
    pub const fn compacts(self) -> bool {
        matches!(self, HighOrder::Compaction | HighOrder::Both)
    }
}

/// A named set of knobs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Preset {
    /// Linux 2.6.35: reclaim writes, the dirtier writes.
    V2_6_35,
    /// The RFC of June 2010: direct reclaim does not write.
    Rfc2010,
    /// Linux 3.2: kswapd writes late; I/O-less throttling.
    V3_2,
    /// Linux 6.16: only the flusher writes file pages.
    V6_16,
    /// Ours, the default.
    Highwater,
}

impl Preset {
    /// All of them, oldest first.
    pub const ALL: [Preset; 5] = [
        Preset::V2_6_35,
        Preset::Rfc2010,
        Preset::V3_2,
        Preset::V6_16,
        Preset::Highwater,
    ];

    /// The name as the command line has it.
    pub const fn name(self) -> &'static str {
        match self {
            Preset::V2_6_35 => "2.6.35",
            Preset::Rfc2010 => "rfc-2010",
            Preset::V3_2 => "3.2",
            Preset::V6_16 => "6.16",
            Preset::Highwater => "highwater",
        }
    }

    /// The knobs.
    pub const fn policy(self) -> Policy {
        match self {
            Preset::V2_6_35 => Policy {
                writeback_from: WritebackFrom::Direct,
                write_unit: WriteUnit::Page,
                on_dirty: OnDirty::Kick,
                wait: ReclaimWait::Congestion,
                throttle: Throttle::DirtierWrites,
                high_order: HighOrder::Both,
                background_percent: 10,
                limit_percent: 20,
                pause_max: Nanos::from_millis(200),
                wbt: false,
            },
            Preset::Rfc2010 => Policy {
                writeback_from: WritebackFrom::Kswapd,
                write_unit: WriteUnit::Range,
                on_dirty: OnDirty::Kick,
                wait: ReclaimWait::Congestion,
                throttle: Throttle::DirtierWrites,
                high_order: HighOrder::Both,
                background_percent: 10,
                limit_percent: 20,
                pause_max: Nanos::from_millis(200),
                wbt: false,
            },
            Preset::V3_2 => Policy {
                writeback_from: WritebackFrom::KswapdLate,
                write_unit: WriteUnit::Page,
                on_dirty: OnDirty::Skip,
                wait: ReclaimWait::IfCongested,
                throttle: Throttle::IoLess,
                high_order: HighOrder::Both,
                background_percent: 10,
                limit_percent: 20,
                pause_max: Nanos::from_millis(200),
                wbt: false,
            },
            Preset::V6_16 => Policy {
                writeback_from: WritebackFrom::Flusher,
                write_unit: WriteUnit::Range,
                on_dirty: OnDirty::Kick,
                wait: ReclaimWait::Progress,
                throttle: Throttle::IoLess,
                high_order: HighOrder::Compaction,
                background_percent: 10,
                limit_percent: 20,
                pause_max: Nanos::from_millis(200),
                wbt: true,
            },
            Preset::Highwater => Policy {
                writeback_from: WritebackFrom::Flusher,
                write_unit: WriteUnit::Range,
                on_dirty: OnDirty::Kick,
                wait: ReclaimWait::Progress,
                throttle: Throttle::IoLess,
                high_order: HighOrder::Compaction,
                background_percent: 25,
                limit_percent: 60,
                pause_max: Nanos::from_millis(1),
                wbt: true,
            },
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Preset {
    type Err = String;
    fn from_str(s: &str) -> Result<Preset, String> {
        Preset::ALL
            .into_iter()
            .find(|p| p.name() == s)
            .ok_or_else(|| {
                let names: Vec<_> = Preset::ALL.iter().map(|p| p.name()).collect();
                format!("unknown preset {s:?}; there are {}", names.join(", "))
            })
    }
}

/// All knobs. Start from [`Preset::policy`] and change what you study.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Who writes a dirty file page found at the LRU's tail.
    pub writeback_from: WritebackFrom,
    /// How much such a write writes.
    pub write_unit: WriteUnit,
    /// What else reclaim does about it.
    pub on_dirty: OnDirty,
    /// How reclaim waits.
    pub wait: ReclaimWait,
    /// How writers are slowed.
    pub throttle: Throttle,
    /// How blocks of frames are made.
    pub high_order: HighOrder,
    /// The flusher starts above this share of the budget, in percent (`dirty_background_ratio`).
    pub background_percent: u8,
    /// Dirty and writeback pages are kept below this share of the budget, in percent (`dirty_ratio`).
    pub limit_percent: u8,
    /// The longest single pause of a writer while its device is healthy.
    pub pause_max: Nanos,
    /// Does the flusher keep the queue short while others read from the device (since 4.10)?
    #[doc(alias("blk-wbt", "wbt_lat_usec"))]
    pub wbt: bool,
}

impl Default for Policy {
    fn default() -> Policy {
        Preset::Highwater.policy()
    }
}

/// Limits of dirty memory, in percent of the budget.
#[doc(alias("dirty_ratio", "dirty_background_ratio"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirtyLimits {
    /// The flusher starts above this.
    pub background_percent: u8,
    /// Writers are held below this.
    pub limit_percent: u8,
}

/// How an engine is built.
#[derive(Clone, Debug)]
pub struct Config {
    /// The budget in bytes, metadata included.
    pub memory: u64,
    /// Bytes per frame: a power of two from 4 KiB to 64 KiB.
    pub frame_size: usize,
    /// The knobs.
    pub policy: Policy,
    /// How long a guard waits for a page's latch before `Error::Busy`.
    pub latch_timeout: Nanos,
    /// How long anything waits for one request before `Error::TimedOut`.
    pub io_timeout: Nanos,
    /// How long an allocation goes on without progress before it is out of memory.
    pub alloc_timeout: Nanos,
    /// After how long of failing writes a device's writers get the error instead of a pause.
    pub fail_after: Nanos,
    /// How often the flusher looks for old dirty pages (`dirty_writeback_centisecs`).
    pub writeback_interval: Nanos,
    /// How old a dirty page gets before the flusher writes it (`dirty_expire_centisecs`).
    pub dirty_expire: Nanos,
    /// The most that is read ahead of a sequential reader, in bytes (`read_ahead_kb`).
    pub readahead_max: usize,
    /// Populate memory in the background from the start.
    pub populate: bool,
    /// In which order pages are tried for reclaim.
    pub order: Order,
    /// Pages that reclaim takes in one go, 1 to 32 (SWAP_CLUSTER_MAX).
    pub reclaim_cluster: usize,
    /// Bytes kept free, at most a sixteenth of the budget (`vm.min_free_kbytes`); `None` is the kernel's formula. With 0
    /// no frame is kept, and kswapd idles: a page goes exactly when its frame is needed. That is for comparing orders;
    /// writers then have no reserve.
    pub min_free: Option<u64>,
    /// A reclaimer never reclaims again (RECLAIM-1, PF_MEMALLOC). For the lab, which turns it off to show what it is for: an
    /// allocation inside a write that reclaim made ([`LendContext::Reclaim`](crate::LendContext::Reclaim)) then recurses
    /// for as long as there is stack. Never turn it off elsewhere.
    pub recursion_guard: bool,
    /// Who is told of reclaim's tracepoints; by default nobody.
    pub tracer: Option<std::sync::Arc<dyn crate::trace::Tracer>>,
    /// A bug for the lab to find.
    #[cfg(feature = "plant")]
    pub plant: Option<crate::plant::Plant>,
}

impl Config {
    /// The defaults for a budget of `memory` bytes.
    pub fn new(memory: u64) -> Config {
        Config {
            memory,
            frame_size: 4096,
            policy: Policy::default(),
            latch_timeout: Nanos::from_secs(10),
            io_timeout: Nanos::from_secs(30),
            alloc_timeout: Nanos::from_secs(10),
            fail_after: Nanos::from_secs(1),
            writeback_interval: Nanos::from_secs(5),
            dirty_expire: Nanos::from_secs(30),
            readahead_max: 8 << 20,
            populate: true,
            order: Order::TwoList,
            reclaim_cluster: 32,
            min_free: None,
            recursion_guard: true,
            tracer: None,
            #[cfg(feature = "plant")]
            plant: None,
        }
    }
}

//! What each row should give, from the back of an envelope, written before its first run; and the goals.
//!
//! The envelope: a load from memory that no CPU cache has takes 100 ns, of which eight or so run beside each other when
//! no address depends on another; an uncontended locked instruction 8 ns, and it lets later loads start no earlier; a
//! system call 100 ns; a copy of 4 KiB from memory 120 ns; a 4 KiB read from the disk 100 µs.

use crate::row::{Goal, Unit};

/// One row's prediction and goal.
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    /// What is measured.
    pub what: &'static str,
    /// Of the result.
    pub unit: Unit,
    /// Of the ratio where the goal is a ratio, else of the result.
    pub prediction: f64,
    /// What has to come out.
    pub goal: Goal,
}

const fn expect(what: &'static str, unit: Unit, prediction: f64, goal: Goal) -> Expect {
    Expect {
        what,
        unit,
        prediction,
        goal,
    }
}

/// Two locked instructions, and three loads that overlap with those of the next key in part.
pub const HIT_1: Expect = expect(
    "page() hit, independent keys, 1 thread",
    Unit::Ns,
    35.0,
    Goal::AtMost(40.0),
);
/// Nothing is shared but memory's bandwidth.
pub const HIT_2: Expect = expect(
    "page() hit, independent keys, 2 threads",
    Unit::Ns,
    38.0,
    Goal::AtMost(40.0),
);
/// The bucket, then descriptor and data side by side: two loads in a row, and the instructions.
pub const HIT_DEPENDENT_1: Expect = expect(
    "page() hit, dependent keys, 1 thread",
    Unit::Ns,
    230.0,
    Goal::None,
);
/// As above.
pub const HIT_DEPENDENT_2: Expect = expect(
    "page() hit, dependent keys, 2 threads",
    Unit::Ns,
    240.0,
    Goal::None,
);

/// The same instructions when no load leaves the core: two locked ones and some fifty others.
pub const HIT_NEAR: Expect = expect(
    "page() hit, 128 pages in the CPU's cache, 1 thread",
    Unit::Ns,
    20.0,
    Goal::None,
);

/// 40 ns and the copy, against the call, the look-up and the same copy: 170 against 420 ns.
pub const READ_4K_256M: Expect = expect(
    "read_at hit, 4 KiB of 256 MiB",
    Unit::Ns,
    2.4,
    Goal::Ratio(2.0),
);
/// As above, with fewer hits in the TLB on both sides.
pub const READ_4K_1G: Expect = expect(
    "read_at hit, 4 KiB of 1 GiB",
    Unit::Ns,
    2.3,
    Goal::Ratio(2.0),
);
/// 40 against 300 ns: the call, the look-up, a small copy.
pub const READ_64_256M: Expect = expect(
    "read_at hit, 64 bytes of 256 MiB",
    Unit::Ns,
    8.0,
    Goal::Ratio(8.0),
);
/// As above.
pub const READ_64_1G: Expect = expect(
    "read_at hit, 64 bytes of 1 GiB",
    Unit::Ns,
    8.0,
    Goal::Ratio(8.0),
);

/// A frame, an index entry and an eviction cost 2 µs beside a read of 100 µs.
pub const MISS_PAGE: Expect = expect(
    "random 4 KiB miss, page(), 1 thread",
    Unit::OpsPerS,
    0.98,
    Goal::Ratio(0.95),
);
/// The same, and a copy.
pub const MISS_READ_AT: Expect = expect(
    "random 4 KiB miss, read_at, 1 thread",
    Unit::OpsPerS,
    0.98,
    Goal::Ratio(0.95),
);

/// Readahead keeps as much in flight; a copy of 1 MiB at 10 GB/s runs beside the disk.
pub const SEQUENTIAL_READ_AT: Expect = expect(
    "sequential read, read_at of 1 MiB",
    Unit::MbPerS,
    0.95,
    Goal::Ratio(0.9),
);
/// No copy.
pub const SEQUENTIAL_PAGE: Expect = expect(
    "sequential read, page()",
    Unit::MbPerS,
    0.97,
    Goal::Ratio(0.9),
);
/// The flusher writes 1 MiB at a time; the copy and the end's sync cost a little.
pub const SEQUENTIAL_WRITE: Expect = expect(
    "sequential write, write_at of 1 MiB and sync_data",
    Unit::MbPerS,
    0.93,
    Goal::Ratio(0.9),
);

/// Runs of dozens of pages in place of single ones, and a checksum and a map to pay for them.
pub const JOURNALED: Expect = expect(
    "random 4 KiB writes of 8 x memory on a journaled volume, sync included",
    Unit::OpsPerS,
    1.3,
    Goal::Ratio(1.0),
);

/// What a scenario should give beside Linux, as ratios.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// The built-in scenario.
    pub name: &'static str,
    /// Operations a second.
    pub ops: f64,
    /// p99.9, worst of its tasks.
    pub p999: f64,
    /// Seconds stalled.
    pub stall: f64,
}

/// Against Linux: deep queues for random writes, larger runs for streams, no system call where nothing misses.
pub const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "random-write",
        ops: 1.5,
        p999: 2.0,
        stall: 0.5,
    },
    Scenario {
        name: "zipf-mix",
        ops: 1.3,
        p999: 1.5,
        stall: 1.0,
    },
    Scenario {
        name: "stream-write",
        ops: 1.1,
        p999: 1.5,
        stall: 0.8,
    },
    Scenario {
        name: "fits",
        ops: 2.0,
        p999: 2.0,
        stall: 1.0,
    },
];

/// Dirty pages are met at the tail once or twice before they are clean.
pub const SLOW_DISK: Expect = expect(
    "slow-disk, default preset: pages scanned per page reclaimed",
    Unit::Each,
    2.0,
    Goal::AtMost(3.0),
);
/// Nobody but the flusher may.
pub const RFC: Expect = expect(
    "rfc, default preset: pages written by direct reclaim, kswapd and writers",
    Unit::Pages,
    0.0,
    Goal::AtMost(0.0),
);
/// Threads' stacks, rings, histograms.
pub const PEAK: Expect = expect(
    "peak memory less idle, over the budget",
    Unit::Mib,
    3.0,
    Goal::AtMost(8.0),
);

/// A peer of the hit path, and the ratios predicted with one and with two threads. All fetch the same 8 bytes.
pub const PEERS: [(&str, [f64; 2]); 4] = [
    ("moka", [6.0, 7.0]),
    ("quick_cache", [2.5, 2.7]),
    ("foyer", [5.0, 7.0]),
    ("page-db", [3.5, 8.0]),
];

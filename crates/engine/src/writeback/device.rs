//! What the engine keeps for each device: its flusher's door bell, what is in flight, how fast it writes.
//!
//! **Kernel.** struct backing_dev_info, struct bdi_writeback.

use super::ratelimit::{BaseRate, WriteBandwidth};
use super::wbt::Reads;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Lock, Ordering, Rank, fence, hint};
use crate::world::{Nanos, Queue};
use std::sync::Arc;

/// A device whose speed nobody knows yet is taken for this many pages a second.
const FIRST_GUESS: f64 = 25_600.0;

/// The speeds, learned.
pub(crate) struct Rates {
    pub bandwidth: WriteBandwidth,
    pub base: BaseRate,
}

/// One device.
#[doc(alias("backing_dev_info", "bdi_writeback"))]
pub(crate) struct BackingDev {
    pub queue: Arc<dyn Queue>,
    pub rates: Lock<Rates>,
    /// When the rates were last looked at; keeps most callers off the lock.
    pub rates_at_ns: AtomicU64,
    pub nr_dirty: AtomicU64,
    pub nr_writeback: AtomicU64,
    /// Pages written and dirtied in all.
    pub written: AtomicU64,
    pub dirtied: AtomicU64,
    in_flight: AtomicU64,
    /// Bytes of those requests.
    bytes_in_flight: hint::AtomicU64,
    /// What others read from it.
    pub reads: Reads,
    /// Since when every write has failed; 0 while they succeed.
    failing_since_ns: AtomicU64,
    /// Pages that reclaim has asked for.
    pub kicked: AtomicU64,
    pub asleep: AtomicBool,
    /// The flusher waits in `reap` until fewer requests than this are in flight; 0: for none in particular.
    awaits_fewer: AtomicU64,
    /// The flusher's task + 1; 0 before it runs.
    pub task: AtomicU32,
}

impl BackingDev {
    pub(crate) fn new(queue: Arc<dyn Queue>) -> BackingDev {
        BackingDev {
            queue,
            rates: Lock::new(
                Rank::Stats,
                Rates {
                    bandwidth: WriteBandwidth::new(FIRST_GUESS),
                    base: BaseRate::new(FIRST_GUESS),
                },
            ),
            rates_at_ns: AtomicU64::new(0),
            nr_dirty: AtomicU64::new(0),
            nr_writeback: AtomicU64::new(0),
            written: AtomicU64::new(0),
            dirtied: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            bytes_in_flight: hint::AtomicU64::new(0),
            reads: Reads::default(),
            failing_since_ns: AtomicU64::new(0),
            kicked: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            awaits_fewer: AtomicU64::new(0),
            task: AtomicU32::new(0),
        }
    }

    /// Write requests in flight. A hint.
    pub(crate) fn in_flight(&self) -> u64 {
        // Relaxed: a hint for depth and congestion.
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Their bytes. A hint.
    pub(crate) fn bytes_in_flight(&self) -> u64 {
        // Relaxed: as above.
        self.bytes_in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn begin_requests(&self, n: u64, bytes: u64) {
        // Relaxed: as above.
        self.bytes_in_flight.fetch_add(bytes, Ordering::Relaxed);
        self.in_flight.fetch_add(n, Ordering::Relaxed);
    }

    /// A request has ended; true when the flusher waits for that, and is to be woken.
    pub(crate) fn end_request(&self, bytes: u64) -> bool {
        // Relaxed: a hint.
        self.bytes_in_flight.fetch_sub(bytes, Ordering::Relaxed);
        // Relaxed: ordered by the fence.
        let left = self.in_flight.fetch_sub(1, Ordering::Relaxed) - 1;
        // SeqCst with `await_fewer`: it sees the smaller count, or we see that it waits.
        fence(Ordering::SeqCst);
        let fewer = self.awaits_fewer.load(Ordering::Relaxed);
        // Relaxed: one of several that end together wakes it; two do no harm.
        left < fewer && self.awaits_fewer.swap(0, Ordering::Relaxed) != 0
    }

    /// The flusher is going to wait until fewer than `n` requests are in flight; false when that is so already.
    pub(crate) fn await_fewer(&self, n: u64) -> bool {
        // Relaxed: ordered by the fence.
        self.awaits_fewer.store(n, Ordering::Relaxed);
        // SeqCst with `end_request`.
        fence(Ordering::SeqCst);
        self.in_flight() >= n
    }

    /// The flusher waits no longer.
    pub(crate) fn end_await(&self) {
        // Relaxed: a wake-up too many does no harm.
        self.awaits_fewer.store(0, Ordering::Relaxed);
    }

    /// Notes how a write ended.
    pub(crate) fn note_write(&self, ok: bool, now: Nanos) {
        // Relaxed: policy.
        let since = self.failing_since_ns.load(Ordering::Relaxed);
        match (ok, since) {
            (true, 0) | (false, 1..) => {}
            (true, _) => self.failing_since_ns.store(0, Ordering::Relaxed),
            (false, 0) => self.failing_since_ns.store(now.0.max(1), Ordering::Relaxed),
        }
    }

    /// Has every write failed for `span`?
    pub(crate) fn failing(&self, now: Nanos, span: Nanos) -> bool {
        // Relaxed: policy.
        let since = self.failing_since_ns.load(Ordering::Relaxed);
        since != 0 && now.0.saturating_sub(since) >= span.0
    }

    /// The flusher has seen `kicked` pages asked for, and leaves `left` of them. A kick that came meanwhile stays.
    pub(crate) fn answer_kick(&self, kicked: u64, left: u64) {
        // Relaxed: policy; a failed exchange means a newer kick.
        let _ = self
            .kicked
            .compare_exchange(kicked, left, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// More than 7/8 of the queue is in use (`bdi_write_congested`).
    pub(crate) fn congested(&self) -> bool {
        self.in_flight() >= (self.queue.depth() as u64 * 7 / 8).max(1)
    }

    /// Is it time to look at the rates again? True for one caller each interval.
    pub(crate) fn rates_due(&self, now: Nanos) -> bool {
        // Relaxed: a clock hand; the exchange lets one task through.
        let at = self.rates_at_ns.load(Ordering::Relaxed);
        now.0.saturating_sub(at) >= super::ratelimit::INTERVAL.0 / 4
            && self
                .rates_at_ns
                .compare_exchange(at, now.0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

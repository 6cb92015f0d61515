//! Writeback throttling: how much a flusher may have in flight while others read from its device.
//!
//! A read waits behind the writes that the device has taken, so while reads are about the flusher keeps the device busy
//! and no more: a part of its queue, and few bytes in all. Nobody waits for what it then leaves for later, until dirty
//! memory pushes back; and since a device that is never idle loses nothing by a short queue, the writers lose next to nothing.
//!
//! ```text
//! step        0                 1               2              ...   until it is the device's own queue
//! in flight   depth/4, 512 KiB  depth/2, 1 MiB  depth, 2 MiB
//! a request   128 KiB           256 KiB         512 KiB
//! ```
//!
//! - *Reads about*: one is under way, or one ended within [`RECENT`]. Without, the queue is the flusher's.
//! - *Step 0* is enough for a device that does one thing after the other. One whose requests have far to go wants more. The
//!   reads tell: while writers are held up, the step rises window by window for as long as reads take hardly longer than
//!   they did at step 0, and begins anew when they do ([`Scale`]). A device that puts reads first ends with all its queue.
//! - *Urgent* (somebody waits for a frame, reclaim has met dirty pages, dirty memory is at its limit): two steps more.
//! - *Overdue*: a disk with an arm serves what is near, and lets a read wait for as long as writes in sequence keep coming.
//!   While the watched read is under way for longer than [`OVERDUE`], and it is not urgent, the flusher comes with one
//!   request at a time, when the last has ended.
//!
//! **State.** [`Reads`]: atomics of the device. [`Scale`]: the flusher's own. The rest is pure.
//! **Context.** `Reads`: who reads, and completion. The rest: the flusher, which looks again at each completion and every
//! 10 ms: nothing here has a timer or wakes anybody.
//!
//! **Invariants.**
//! - WBT-1: with nothing in flight there is room for one request, whatever else holds.
//! - WBT-2: the reads under way that were submitted are those of all devices (`loading_requests`); with nobody inside, none
//!   is under way on its reader's thread.
//! - WBT-3: a device's dirty pages are those of its files; without pages under writeback it has no request and no byte in
//!   flight.
//!
//! **Kernel.** block/blk-wbt.c (4.10): background writes get a quarter of 16 requests within 100 ms of a read, those of
//! kswapd and of throttled writers all of them; the depth is halved while the least latency of a window of 100 ms is above
//! 2 ms (75 ms: rotational), and rises again. There a limit is in requests and the target a constant of the class of
//! device; here bytes are limited, too, as a request of 1 MiB is what reads wait for, and the target is what the device's
//! reads take beside the least (up to 2 ms, reads of a flash disk wait four times as long, and no writer gains). Sync writes
//! are not throttled. `OVERDUE` is `rwb_sync_issue_lat`.
//!
//! **Tests.** Here; `tests/wbt.rs` in the lab.

use crate::sync::{Ordering, hint::AtomicU64};
use crate::world::{Nanos, Queue};

/// Reads are about for so long after the last one.
const RECENT: Nanos = Nanos::from_millis(100);
/// Reads are looked at in windows of this length (RWB_WINDOW_NSEC).
const WINDOW: Nanos = Nanos::from_millis(100);
/// The longest that a read is under way before writes stand back (the kernel's target for disks with an arm).
const OVERDUE: Nanos = Nanos::from_millis(75);
/// One part in so many of the device's requests is in flight at step 0 (`wb_background`).
const SHARE: u64 = 4;
/// Bytes of a request at step 0.
const REQUEST_BYTES: u64 = 128 << 10;
/// Bytes in flight at step 0: one such request at the device, and three that follow.
const BYTES: u64 = 4 * REQUEST_BYTES;
/// How many steps more there are when writes are urgent: four times as much, as the kernel's.
const URGENT_STEPS: u32 = 2;
/// A window with fewer reads says nothing.
const READS_MIN: u64 = 3;
/// Reads may take so many times as long as at step 0.
const SLOWER_MAX: f64 = 1.25;
/// So many reads that take so many times as long end a window early.
const READS_CLEAR: u64 = 16;
const SLOWER_CLEAR: f64 = 1.5;
/// The weight of a window at step 0 in which reads took longer than before.
const WEIGHT: f64 = 0.125;
/// After a step that was too much the next try is so many windows away: twice as many each time.
const HOLD_MIN: u32 = 4;
const HOLD_MAX: u32 = 64;

/// What may be in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    pub requests: u64,
    pub bytes: u64,
    /// In one request.
    pub request_bytes: u64,
}

/// What may be submitted now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Room {
    pub requests: usize,
    /// No request is begun when there are none left; the last one may be larger.
    pub bytes: u64,
    /// In one request.
    pub request_bytes: u64,
}

impl Room {
    /// As much as there is to write.
    pub const UNLIMITED: Room = Room {
        requests: usize::MAX,
        bytes: u64::MAX,
        request_bytes: u64::MAX,
    };
}

impl Limits {
    /// The device's own.
    pub fn of(queue: &dyn Queue) -> Limits {
        let (requests, request_bytes) = (queue.depth() as u64, queue.request_bytes_max() as u64);
        Limits {
            requests: requests.max(1),
            bytes: requests.saturating_mul(request_bytes).max(1),
            request_bytes: request_bytes.max(1),
        }
    }

    /// The first step that is no limit any more.
    pub fn steps(self) -> u32 {
        let steps = |own: u64, least: u64| own.div_ceil(least).next_power_of_two().ilog2();
        steps(self.requests, self.requests.div_ceil(SHARE)).max(steps(self.bytes, BYTES))
    }

    /// These limits of a device's own at `step`.
    pub fn at(self, step: u32) -> Limits {
        let step = step.min(self.steps());
        Limits {
            requests: (self.requests.div_ceil(SHARE) << step).min(self.requests),
            bytes: (BYTES << step).min(self.bytes),
            request_bytes: (REQUEST_BYTES << step).min(self.request_bytes),
        }
    }

    /// One request, when the last has ended.
    pub fn least(self) -> Limits {
        Limits {
            requests: 1,
            bytes: self.request_bytes,
            ..self
        }
    }

    /// The room beside so many requests and bytes in flight; none unless a quarter of the limits is free, so that requests
    /// are submitted in batches.
    pub fn room(self, requests: u64, bytes: u64) -> Option<Room> {
        let most = |limit: u64| limit - limit.div_ceil(4);
        // WBT-1.
        if requests == 0 {
            return Some(Room {
                requests: self.requests as usize,
                bytes: self.bytes,
                request_bytes: self.request_bytes,
            });
        }
        if requests > most(self.requests) || bytes > most(self.bytes) {
            return None;
        }
        Some(Room {
            requests: (self.requests - requests) as usize,
            bytes: self.bytes - bytes,
            request_bytes: self.request_bytes,
        })
    }

    /// The requests in flight above which there is no room.
    pub fn most_requests(self) -> u64 {
        self.requests - self.requests.div_ceil(4)
    }
}

/// The reads of one device.
#[derive(Default)]
pub(crate) struct Reads {
    /// Reads on their readers' threads, and submitted ones.
    now: AtomicU64,
    submitted: AtomicU64,
    /// When one began or ended last.
    last_ns: AtomicU64,
    /// When the read began that is watched; 0: none is.
    watched_ns: AtomicU64,
    /// Reads on their readers' threads that have ended since the last window, and how long they took together.
    ended: AtomicU64,
    took_ns: AtomicU64,
}

/// A read on its reader's thread.
#[must_use]
pub(crate) struct Reading {
    since: Nanos,
    watched: bool,
}

impl Reads {
    // Relaxed, all of it: hints for policy. The one flusher that reads them looks again a moment later.

    /// A task reads at `now`.
    pub fn begin(&self, now: Nanos) -> Reading {
        self.now.fetch_add(1, Ordering::Relaxed);
        self.last_ns.store(now.0, Ordering::Relaxed);
        let watched =
            self.watched_ns
                .compare_exchange(0, now.0.max(1), Ordering::Relaxed, Ordering::Relaxed);
        Reading {
            since: now,
            watched: watched.is_ok(),
        }
    }

    /// Its read has ended.
    pub fn end(&self, reading: Reading, now: Nanos) {
        if reading.watched {
            self.watched_ns.store(0, Ordering::Relaxed);
        }
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.took_ns
            .fetch_add(now.since(reading.since).0, Ordering::Relaxed);
        self.last_ns.store(now.0, Ordering::Relaxed);
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    /// `n` reads were submitted.
    pub fn submit(&self, n: u64, now: Nanos) {
        self.submitted.fetch_add(n, Ordering::Relaxed);
        self.last_ns.store(now.0, Ordering::Relaxed);
    }

    /// One of them has ended.
    pub fn complete(&self, now: Nanos) {
        self.last_ns.store(now.0, Ordering::Relaxed);
        self.submitted.fetch_sub(1, Ordering::Relaxed);
    }

    /// Submitted and not ended.
    pub fn submitted(&self) -> u64 {
        self.submitted.load(Ordering::Relaxed)
    }

    /// Panics where somebody reads on his own thread, which nobody does.
    pub fn check_invariants(&self) {
        let now = self.now.load(Ordering::Relaxed);
        let watched = self.watched_ns.load(Ordering::Relaxed);
        assert_eq!((now, watched), (0, 0), "WBT-2: who reads, and is watched");
    }

    /// Is anybody reading, or was until a moment ago?
    pub fn about(&self, now: Nanos) -> bool {
        let last = self.last_ns.load(Ordering::Relaxed);
        let under_way = self.now.load(Ordering::Relaxed) + self.submitted() > 0;
        under_way || (last != 0 && now.since(Nanos(last)) < RECENT)
    }

    /// Is the watched read under way for long?
    pub fn overdue(&self, now: Nanos) -> bool {
        let since = self.watched_ns.load(Ordering::Relaxed);
        since != 0 && now.since(Nanos(since)) >= OVERDUE
    }

    /// The reads that ended in this window, and their mean.
    fn so_far(&self) -> (u64, f64) {
        let n = self.ended.load(Ordering::Relaxed);
        let took = self.took_ns.load(Ordering::Relaxed);
        (n, took as f64 / n.max(1) as f64)
    }

    /// The same; the next window begins.
    fn take(&self) -> (u64, f64) {
        let n = self.ended.swap(0, Ordering::Relaxed);
        let took = self.took_ns.swap(0, Ordering::Relaxed);
        (n, took as f64 / n.max(1) as f64)
    }
}

/// Which way the step went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    Up,
    Down,
    Stay,
}

/// The step, from window to window.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Scale {
    step: u32,
    since: Nanos,
    /// What reads take at step 0, or took on any other if that was less; 0: not known.
    least_ns: f64,
    /// The step below the last one that was too much: no higher for `hold` windows.
    ceiling: u32,
    hold: u32,
    /// How many windows the last failure made of them.
    backoff: u32,
}

impl Scale {
    /// The step now.
    pub fn step(&self) -> u32 {
        self.step
    }

    /// Looks at the window, if it is over. `behind`: writers are being held up.
    pub fn turn(&mut self, reads: &Reads, now: Nanos, behind: bool, steps: u32) -> Turn {
        let clearly = self.step > 0 && {
            let (n, mean_ns) = reads.so_far();
            n >= READS_CLEAR && mean_ns > self.least_ns * SLOWER_CLEAR
        };
        if now.since(self.since) < WINDOW && !clearly {
            return Turn::Stay;
        }
        self.since = now;
        let (n, mean_ns) = reads.take();
        let before = self.step;
        self.window(n, mean_ns, behind, steps);
        match self.step.cmp(&before) {
            std::cmp::Ordering::Greater => Turn::Up,
            std::cmp::Ordering::Less => Turn::Down,
            std::cmp::Ordering::Equal => Turn::Stay,
        }
    }

    /// A window in which `reads` took `mean_ns`.
    fn window(&mut self, reads: u64, mean_ns: f64, behind: bool, steps: u32) {
        self.hold = self.hold.saturating_sub(1);
        let known = reads >= READS_MIN;
        if known && self.step > 0 && mean_ns > self.least_ns * SLOWER_MAX {
            self.ceiling = self.step - 1;
            // To the bottom: what reads take there may have changed.
            self.step = 0;
            self.backoff = (self.backoff * 2).clamp(HOLD_MIN, HOLD_MAX);
            self.hold = self.backoff;
            return;
        }
        if known {
            self.learn(mean_ns);
        }
        let highest = if self.hold > 0 { self.ceiling } else { steps };
        if !known || !behind {
            // Back to what is safe, a step at a time.
            self.step = self.step.saturating_sub(1);
        } else if self.step < highest.min(steps) {
            self.step += 1;
        }
        if self.step == steps {
            self.backoff = 0;
        }
    }

    fn learn(&mut self, mean_ns: f64) {
        if self.least_ns == 0.0 || mean_ns < self.least_ns {
            // At once: the first reads may have waited behind a queue that was full before they came.
            self.least_ns = mean_ns;
        } else if self.step == 0 {
            self.least_ns += (mean_ns - self.least_ns) * WEIGHT;
        }
    }
}

/// The limits of a device whose own are `own`, at the moment.
pub(crate) fn limits(
    own: Limits,
    scale: &Scale,
    reads: &Reads,
    now: Nanos,
    urgent: bool,
) -> Limits {
    if !reads.about(now) {
        own
    } else if urgent {
        own.at(scale.step() + URGENT_STEPS)
    } else if reads.overdue(now) {
        own.at(0).least()
    } else {
        own.at(scale.step())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const OWN: Limits = Limits {
        requests: 32,
        bytes: 32 << 20,
        request_bytes: 1 << 20,
    };
    const US: f64 = 1e3;

    fn ms(n: u64) -> Nanos {
        Nanos::from_millis(n)
    }

    #[test]
    fn a_step_doubles_all_limits_until_they_are_the_device_s_own() {
        assert_eq!(OWN.steps(), 6);
        let at = |step| (OWN.at(step).requests, OWN.at(step).bytes >> 10);
        assert_eq!([at(0), at(1), at(2)], [(8, 512), (16, 1024), (32, 2048)]);
        assert_eq!(OWN.at(0).request_bytes, 128 << 10);
        assert_eq!([OWN.at(6), OWN.at(60)], [OWN, OWN]);
        // A device with less than step 0 has never more than its own.
        let small = Limits {
            requests: 1,
            bytes: 4096,
            request_bytes: 4096,
        };
        assert_eq!((small.steps(), small.at(0)), (0, small));
    }

    #[test]
    fn there_is_always_room_for_one() {
        let small = Limits {
            requests: 1,
            bytes: 512,
            request_bytes: 512,
        };
        for limits in [OWN, OWN.at(0), OWN.at(0).least(), small, small.least()] {
            for bytes in [0, 1 << 30] {
                let room = limits.room(0, bytes).expect("WBT-1");
                assert!(room.requests > 0 && room.bytes > 0 && room.request_bytes > 0);
            }
            // And never more than the limits.
            for (requests, bytes) in [(1, 4096), (3, 300 << 10), (4, 512 << 10), (99, 1 << 40)] {
                let Some(room) = limits.room(requests, bytes) else {
                    continue;
                };
                assert!(
                    room.requests as u64 + requests <= limits.requests,
                    "{limits:?}"
                );
                assert!(room.bytes + bytes <= limits.bytes, "{limits:?}");
            }
        }
        assert_eq!(OWN.at(0).room(7, 0), None);
        assert_eq!(OWN.at(0).room(6, 0).map(|r| r.requests), Some(2));
        assert_eq!(OWN.at(0).room(1, 500 << 10), None, "bytes count, too");
        assert_eq!(OWN.at(0).least().room(1, 0), None);
        assert_eq!(OWN.room(25, 0), None, "a quarter at a time");
        assert_eq!(OWN.room(24, 0).map(|r| r.requests), Some(8));
    }

    #[test]
    fn only_reads_make_limits_and_need_lifts_them() {
        let (reads, scale) = (Reads::default(), Scale::default());
        let of = |now, urgent| limits(OWN, &scale, &reads, now, urgent);
        assert_eq!(of(ms(5), false), OWN, "nobody has read");
        let slow = reads.begin(ms(10));
        let quick = reads.begin(ms(11));
        assert_eq!(of(ms(12), false), OWN.at(0));
        assert_eq!(of(ms(12), true), OWN.at(2));
        reads.end(quick, ms(13));
        assert_eq!(of(ms(84), false), OWN.at(0));
        // The first one is watched.
        assert_eq!(of(ms(85), false), OWN.at(0).least());
        assert_eq!(of(ms(85), true), OWN.at(2), "memory comes first");
        reads.end(slow, ms(86));
        assert_eq!(of(ms(185), false), OWN.at(0));
        assert_eq!(of(ms(186), false), OWN);
        reads.submit(2, ms(200));
        reads.complete(ms(201));
        assert_eq!(of(ms(900), false), OWN.at(0), "one is under way");
        reads.complete(ms(901));
        assert_eq!(of(ms(1_001), false), OWN);
        assert_eq!(reads.submitted(), 0);
    }

    /// `windows` windows of a device whose reads take `latency(step)` microseconds: the step of each.
    fn run(
        scale: &mut Scale,
        windows: usize,
        behind: bool,
        latency: impl Fn(u32) -> f64,
    ) -> Vec<u32> {
        let mut steps = Vec::new();
        for _ in 0..windows {
            scale.window(20, latency(scale.step()) * US, behind, 6);
            steps.push(scale.step());
        }
        steps
    }

    #[test]
    fn a_device_whose_reads_do_not_suffer_gets_all_of_its_queue() {
        let mut scale = Scale::default();
        let steps = run(&mut scale, 10, true, |_| 100.0);
        assert_eq!(steps, [1, 2, 3, 4, 5, 6, 6, 6, 6, 6]);
        // And only for as long as writers are held up.
        assert_eq!(run(&mut scale, 7, false, |_| 100.0), [5, 4, 3, 2, 1, 0, 0]);
    }

    #[test]
    fn where_reads_suffer_it_is_tried_ever_more_seldom() {
        let mut scale = Scale::default();
        let fifo = |step: u32| 100.0 * f64::from(1 << step);
        let steps = run(&mut scale, 400, true, fifo);
        let above = |steps: &[u32]| steps.iter().filter(|s| **s > 0).count();
        assert!(steps.iter().all(|s| *s <= 1));
        assert!(above(&steps) <= 10, "{}", above(&steps));
        assert!(above(&steps[200..]) <= 4);
        assert!(above(&steps[200..]) >= 2, "it is tried");
    }

    #[test]
    fn it_settles_below_the_step_that_was_too_much() {
        let mut scale = Scale::default();
        let far = |step: u32| if step <= 3 { 500.0 } else { 900.0 };
        let steps = run(&mut scale, 300, true, far);
        let at = steps.iter().filter(|s| **s == 3).count();
        assert!(at > 250, "{at} of 300 windows");
        assert!(steps.iter().all(|s| *s <= 4));
        // It gets slower all at once: back to the bottom, and up again from there.
        let steps = run(&mut scale, 300, true, |step| 5.0 * far(step));
        assert!(steps.contains(&0));
        assert_eq!(steps.last(), Some(&3));
    }

    #[test]
    fn first_reads_that_waited_behind_a_full_queue_are_no_measure() {
        let mut scale = Scale::default();
        run(&mut scale, 2, true, |_| 100_000.0);
        let fifo = |step: u32| 100.0 * f64::from(1 << step);
        let steps = run(&mut scale, 40, true, fifo);
        assert!(steps[5..].iter().all(|s| *s <= 1), "{steps:?}");
    }

    #[test]
    fn what_nobody_knows_leads_back_to_the_bottom() {
        let mut scale = Scale::default();
        run(&mut scale, 4, true, |_| 100.0);
        for step in [3, 2, 1, 0, 0] {
            scale.window(READS_MIN - 1, 100.0 * US, true, 6);
            assert_eq!(scale.step(), step);
        }
    }

    #[test]
    fn a_window_ends_with_its_time_or_with_what_is_clear() {
        let (reads, mut scale) = (Reads::default(), Scale::default());
        let read = |n: u64, from: Nanos, took: Nanos| {
            (0..n).for_each(|_| reads.end(reads.begin(from), from.plus(took)));
        };
        read(10, ms(1), Nanos(100_000));
        assert_eq!(scale.turn(&reads, ms(99), true, 6), Turn::Stay);
        assert_eq!(scale.turn(&reads, ms(100), true, 6), Turn::Up);
        read(READS_CLEAR - 1, ms(101), Nanos(160_000));
        assert_eq!(scale.turn(&reads, ms(102), true, 6), Turn::Stay);
        read(1, ms(102), Nanos(160_000));
        assert_eq!(scale.turn(&reads, ms(103), true, 6), Turn::Down);
        assert_eq!(scale.turn(&reads, ms(104), true, 6), Turn::Stay);
    }
}

//! How long a writer pauses: the arithmetic of I/O-less dirty throttling.
//!
//! Below *freerun* nobody pauses. Above it, each writer of a device may dirty `base × pos_ratio` pages a second. The
//! position ratio is a curve over the dirty pages, 2 at freerun, 1 at the set point, 0 at the limit, flat around the set
//! point. The base rate is learned: every 200 ms it moves towards the rate at which the writers together dirty as much
//! as the device writes. So dirty memory settles at the set point, whatever the device's speed and number of writers.
//!
//! ```text
//! 0 ........ background ........ freerun ........ set point ........ limit
//! no flusher | flusher works     | pauses begin    | pos_ratio 1     | pos_ratio 0
//! ```
//!
//! A pause is cut to `pause_max`. Where W pages a second shared by N writers means more than `pause_max` a page, the
//! curve cannot hold the set point; dirty memory then settles just below the limit, and a writer that meets a ratio of 0
//! pauses again until it has fallen: the caller repeats, since [`pause_ns`] is one pause.
//!
//! **State.** [`WriteBandwidth`] and [`BaseRate`]: one of each for a device, by `&mut self` under its lock
//! (`Rank::Stats`). The rest is pure. Rates are pages a second.
//!
//! **Invariants.**
//! - RATE-1: more dirty pages never mean a higher ratio, nor a shorter pause.
//! - RATE-2: no cliff: one more page changes `pos_ratio` by at most 3 / (limit − set point).
//! - RATE-3: rates stay within [their floor, bandwidth], so that a throttle lifts again when dirty memory falls.
//!
//! **Kernel.** `wb_position_ratio`, `wb_update_dirty_ratelimit`, `wb_update_write_bandwidth`, `dirty_poll_interval` of
//! mm/page-writeback.c, in floating point. Left out: `BDI_CAP_STRICTLIMIT`, the smoothed average behind the average.
//!
//! **Tests.** Here: the curves' properties, and writers that obey in a discrete simulation.

use crate::world::Nanos;

/// How often the estimators step (`BANDWIDTH_INTERVAL`).
pub(crate) const INTERVAL: Nanos = Nanos::from_millis(200);
/// A gap longer than this between two looks is a quiet period: nothing is learned from it.
const QUIET: Nanos = Nanos::from_secs(1);
/// The time over which the bandwidth is averaged.
const BANDWIDTH_PERIOD: Nanos = Nanos::from_secs(3);
/// No rate falls below this, in pages a second: a stopped device must be able to come back.
const RATE_FLOOR: f64 = 1.0;
/// The base rate's floor as a share of the bandwidth: 4,096 writers get their fair share with it.
const WRITERS_MAX: f64 = 4096.0;
/// Bounds of the per-device term.
const DEVICE_RATIO_MIN: f64 = 0.25;
const DEVICE_RATIO_MAX: f64 = 8.0;

/// The dirty limits in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Thresholds {
    /// Above this the flusher works.
    pub background: u64,
    /// Dirty pages stay below this.
    pub limit: u64,
}

impl Thresholds {
    /// Up to here nobody pauses: half way from background to the limit.
    pub fn freerun(self) -> u64 {
        self.background.min(self.limit).midpoint(self.limit)
    }

    /// Where dirty memory settles: half way from freerun to the limit.
    pub fn setpoint(self) -> u64 {
        self.freerun().midpoint(self.limit)
    }
}

/// The factor on every writer's rate at `dirty` pages, from 2 (freerun and below) to 0 (the limit and above).
#[doc(alias = "wb_position_ratio")]
pub(crate) fn pos_ratio(dirty: u64, thresholds: Thresholds) -> f64 {
    if dirty >= thresholds.limit {
        return 0.0;
    }
    // Not of the rounded set point: the curve is then exactly 0 at the limit and 2 at freerun.
    let (freerun, limit) = (thresholds.freerun() as f64, thresholds.limit as f64);
    let setpoint = (freerun + limit) / 2.0;
    let x = (setpoint - dirty as f64) / (limit - setpoint);
    (1.0 + x * x * x).clamp(0.0, 2.0)
}

/// The factor for one device that holds `dirty` pages and completes `share` (0 to 1) of all writes: ¼ to 8.
///
/// It keeps each device's dirty pages in proportion to its speed: above its part of the set point its writers are slowed
/// by up to four times, and below half of it they are let go, so that an idle device gets work at once.
pub(crate) fn device_ratio(dirty: u64, share: f64, thresholds: Thresholds) -> f64 {
    let share = share.clamp(0.0, 1.0);
    let setpoint = (thresholds.setpoint() as f64 * share).max(1.0);
    let span = (thresholds.limit as f64 * share).max(1.0);
    let dirty = dirty as f64;
    let linear = |d: f64| 1.0 + (setpoint - d) / span;
    let half = setpoint / 2.0;
    let ratio = if dirty < half {
        linear(half) * half / dirty.max(f64::MIN_POSITIVE)
    } else {
        linear(dirty)
    };
    ratio.clamp(DEVICE_RATIO_MIN, DEVICE_RATIO_MAX)
}

/// How long the writer of `pages` pages pauses at `rate` pages a second times `pos_ratio`; at most `pause_max`.
///
/// The caller takes off what it did since its last pause: the pages are paid by time, not by sleep.
/// A ratio of 0 gives `pause_max`: the caller looks again after it, and writes no more while the ratio is 0.
pub(crate) fn pause_ns(pages: u64, rate: f64, pos_ratio: f64, pause_max: Nanos) -> Nanos {
    let rate = rate * pos_ratio;
    let owed = pages as f64 * 1e9 / rate;
    // Not `owed < max`: 0 pages at rate 0 are NaN, and owe nothing.
    if pages == 0 {
        Nanos::ZERO
    } else if owed < pause_max.0 as f64 {
        Nanos(owed as u64)
    } else {
        pause_max
    }
}

/// How many pages a writer may dirty before it looks again: 2^(log2(limit − dirty)/2), at least 1.
pub(crate) fn poll_interval(dirty: u64, thresholds: Thresholds) -> u64 {
    match thresholds.limit.saturating_sub(dirty) {
        0 => 1,
        room => 1 << (room.ilog2() / 2),
    }
}

/// How fast a device writes, in pages a second, averaged over about 3 s of writing.
#[derive(Clone, Debug)]
pub(crate) struct WriteBandwidth {
    rate: f64,
    observed: Nanos,
    window: Option<Window>,
}

/// The base rate of a device's writers: pages a second for each of them.
#[derive(Clone, Debug)]
pub(crate) struct BaseRate {
    rate: f64,
    window: Option<Window>,
}

/// Where a measurement began.
#[derive(Clone, Copy, Debug)]
struct Window {
    start: Nanos,
    count: u64,
}

impl WriteBandwidth {
    /// An estimator that says `guess` until it has seen writes.
    pub fn new(guess: f64) -> WriteBandwidth {
        WriteBandwidth {
            rate: guess.max(RATE_FLOOR),
            observed: Nanos::ZERO,
            window: None,
        }
    }

    /// Pages a second.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Takes note that the device has completed `written` pages in all. `busy`: it has had writes to do since the last
    /// call; an idle device's slowness says nothing. Call it often; it steps every [`INTERVAL`]; true when it did.
    pub fn update(&mut self, now: Nanos, written: u64, busy: bool) -> bool {
        if !busy {
            self.window = None;
        }
        let Some((elapsed, pages)) = Window::close(&mut self.window, now, written) else {
            return false;
        };
        // Less than a period was observed: a plain average of what was, so that a wrong guess is forgotten at once.
        self.observed = self.observed.plus(elapsed).min(BANDWIDTH_PERIOD);
        let weight = elapsed.as_secs_f64() / self.observed.as_secs_f64();
        let measured = pages as f64 / elapsed.as_secs_f64();
        self.rate = (self.rate + (measured - self.rate) * weight.min(1.0)).max(RATE_FLOOR);
        true
    }
}

impl BaseRate {
    /// Starts at `write_bandwidth`, as if there were one writer: the position ratio holds more of them until it is
    /// learned how many there are.
    pub fn new(write_bandwidth: f64) -> BaseRate {
        BaseRate {
            rate: write_bandwidth.max(RATE_FLOOR),
            window: None,
        }
    }

    /// Pages a second for each writer, before the position ratio.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Takes note that `dirtied` pages of this device were dirtied in all, at the present `pos_ratio` (both terms).
    /// Call it where writers are throttled only; it steps every [`INTERVAL`]; true when it did. A window may hold
    /// stretches of free running, so that a rate too low is raised even where dirty memory keeps falling below freerun;
    /// after a second of nothing else, the next window starts afresh.
    pub fn update(
        &mut self,
        now: Nanos,
        dirtied: u64,
        write_bandwidth: f64,
        pos_ratio: f64,
    ) -> bool {
        let Some((elapsed, pages)) = Window::close(&mut self.window, now, dirtied) else {
            return false;
        };
        let floor = (write_bandwidth / WRITERS_MAX).max(RATE_FLOOR);
        let ceiling = write_bandwidth.max(floor);
        // What each writer was allowed, and did, on average; were it `balanced`, all would dirty what is written.
        let task_rate = self.rate * pos_ratio;
        let dirty_rate = (pages as f64 / elapsed.as_secs_f64()).max(RATE_FLOOR);
        let balanced = (task_rate * write_bandwidth / dirty_rate).clamp(floor, ceiling);
        // Only towards where both the position and the balance point: else the base rate would swing with the ratio.
        let target = if pos_ratio > 1.0 {
            balanced.min(task_rate).max(self.rate)
        } else {
            balanced.max(task_rate).min(self.rate)
        };
        // Far off: half the way. Near: an eighth, against the noise of one window.
        let gain = ((target - self.rate).abs() / self.rate).clamp(0.125, 0.5);
        self.rate = (self.rate + (target - self.rate) * gain).clamp(floor, ceiling);
        true
    }
}

impl Window {
    /// Ends the window when an interval has passed, starting the next: (its length, what was counted in it).
    fn close(window: &mut Option<Window>, now: Nanos, count: u64) -> Option<(Nanos, u64)> {
        let next = Window { start: now, count };
        let Some(open) = *window else {
            *window = Some(next);
            return None;
        };
        let elapsed = now.since(open.start);
        if elapsed < INTERVAL {
            return None;
        }
        *window = Some(next);
        (elapsed <= QUIET).then(|| (elapsed, count.saturating_sub(open.count)))
    }
}

#[cfg(test)]
#[path = "ratelimit_tests.rs"]
mod tests;

//! The writers' throttle: how a task that dirties pages is slowed, before it dirties them.
//!
//! Below *freerun* nobody pauses. Above it a task pays, every few pages, the time its pages cost at the rate that
//! [`super::ratelimit`] allows, at most `pause_max` at a time; at the limit it waits until pages have been written. A
//! device whose writes have failed for `fail_after` gives its writers the error instead, and its dirty pages no longer
//! slow the writers of other devices, up to a quarter of memory.
//!
//! **Context.** A writer, without locks or latches of this call; it may hold guards.
//! **Kernel.** balance_dirty_pages (3.2 and later); `DirtierWrites` is that of 2.6.35.

use super::ratelimit::{device_ratio, pause_ns, poll_interval, pos_ratio};
use super::wbt::Room;
use crate::backing::WriteContext;
use crate::engine::Engine;
use crate::error::Error;
use crate::mapping::Mapping;
use crate::policy::Throttle;
use crate::sync::Ordering;
use crate::trace::Event;
use crate::wait::Channel;
use crate::world::{Nanos, World};
use crate::writeback::BackingDev;
use crate::zone::{PINNED_TIMEOUT, Run, note_stall};
use std::sync::Arc;

/// The most pages a task dirties between two looks (`ratelimit_pages`).
const POLL_MAX: u64 = 32;
/// One part in so many of memory may hold pages that cannot be written without slowing the writers of other devices.
const FAILED_SHARE: u64 = 4;
/// Pages that a throttled writer writes itself: one and a half times what it dirtied (sync_writeback_pages).
const WRITE_CHUNK: usize = 48;

impl<W: World> Engine<W> {
    /// Called before a task dirties a page of `m`. What it holds of a run is given back before it pauses.
    ///
    /// # Errors
    /// The device's error when its writes have failed for `fail_after`; `TimedOut` when nothing was written for the I/O
    /// deadline although too many pages are dirty; `AllPinned` when the caller holds guards and nothing can be written.
    #[inline]
    pub(crate) fn balance_dirty_pages(&self, m: &Arc<Mapping>, run: &mut Run) -> Result<(), Error> {
        let task = self.world.task();
        let dirtied = crate::world::Task::bump(&task.dirtied, 1);
        let unclean = self.nr_unclean();
        if unclean <= self.thresholds.background || self.config().policy.throttle == Throttle::Off {
            return Ok(());
        }
        self.unpark_flusher_if_asleep(&m.dev);
        if unclean < self.thresholds.limit {
            // Relaxed: written by this task only.
            let allowed = match task.dirtied_pause.load(Ordering::Relaxed) {
                0 => POLL_MAX,
                n => u64::from(n),
            };
            if u64::from(dirtied) < poll_interval(unclean, self.thresholds).min(allowed) {
                return Ok(());
            }
        }
        self.put_back(run);
        self.throttle_dirty(m, u64::from(dirtied))
    }

    /// The error of a device that has failed for a while, for its own writers only.
    fn failing_error(&self, m: &Mapping) -> Result<(), Error> {
        if m.failing_for(self.world.now().0) >= self.config().fail_after.0
            || planted!(self, SharedFailure) && self.excused(None) > 0
        {
            let last = m.durability.lock(&*self.world).last_error();
            return Err(Error::io("write", last));
        }
        Ok(())
    }

    #[doc(alias = "balance_dirty_pages_ratelimited")]
    /// The pages that slow the writers of `m`.
    fn unclean_for(&self, m: &Mapping) -> u64 {
        self.nr_unclean().saturating_sub(self.excused(Some(&m.dev)))
    }

    /// Unclean pages of devices, other than `but`, that have failed for `fail_after`; at most `FAILED_SHARE` of memory.
    pub(super) fn excused(&self, but: Option<&Arc<BackingDev>>) -> u64 {
        if planted!(self, NoExcuse) {
            return 0;
        }
        let (now, span) = (self.world.now(), self.config().fail_after);
        let devices = self.devices.lock(&*self.world).clone();
        let failed: u64 = devices
            .iter()
            .filter(|d| but.is_none_or(|but| !Arc::ptr_eq(d, but)) && d.failing(now, span))
            // Relaxed: policy.
            .map(|d| d.nr_dirty.load(Ordering::Relaxed) + d.nr_writeback.load(Ordering::Relaxed))
            .sum();
        failed.min(self.frames.len() as u64 / FAILED_SHARE)
    }

    #[cold]
    fn throttle_dirty(&self, m: &Arc<Mapping>, dirtied: u64) -> Result<(), Error> {
        self.failing_error(m)?;
        let start = self.world.now();
        let task = self.world.task();
        // Relaxed: written by this task only.
        task.dirtied.store(0, Ordering::Relaxed);
        let result = match self.config().policy.throttle {
            Throttle::Off => Ok(()),
            Throttle::DirtierWrites => self.dirtier_writes(m, start),
            Throttle::IoLess => self.pause_dirtier(m, dirtied, start),
        };
        let end = self.world.now();
        let stalled = end.since(start);
        if stalled.0 > 0 {
            self.count(Event::ThrottleNs, stalled.0);
            note_stall(task, &task.stall_throttle_ns, stalled);
        }
        // Relaxed: written by this task only.
        task.throttled_at_ns.store(end.0, Ordering::Relaxed);
        result
    }

    /// I/O-less: pays for `dirtied` pages by a pause.
    fn pause_dirtier(&self, m: &Arc<Mapping>, dirtied: u64, start: Nanos) -> Result<(), Error> {
        let pause_max = self.config().policy.pause_max;
        let task = self.world.task();
        // Relaxed: written by this task only.
        let last = task.throttled_at_ns.load(Ordering::Relaxed);
        let unclean = self.unclean_for(m);
        let ratio = self.position(m, unclean);
        let rate = self.learn_rates(m, start, unclean, ratio);
        let owed = pause_ns(dirtied, rate, ratio, pause_max);
        // As many pages until the next look as cost half of the longest pause: so pauses stay short with many writers.
        let allowed = rate * ratio * pause_max.as_secs_f64() / 2.0;
        // Relaxed: written by this task only.
        task.dirtied_pause.store(
            allowed.clamp(1.0, POLL_MAX as f64) as u32,
            Ordering::Relaxed,
        );
        // The pages are paid by time, not by sleep: what passed since the last pause counts.
        let pause = owed.since(start.since(Nanos(last)));
        if pause.0 > 0 && unclean > self.thresholds.freerun() {
            self.count(Event::Throttled, 1);
            let until = start.plus(pause);
            while self.world.now() < until || planted!(self, StuckWriter) {
                let stuck = planted!(self, StuckWriter).then(|| self.world.now().plus(pause));
                self.world.park(stuck.unwrap_or(until));
            }
        }
        self.wait_below_limit(m)
    }

    /// Waits until there are fewer dirty pages than the limit; woken by every completed write.
    fn wait_below_limit(&self, m: &Arc<Mapping>) -> Result<(), Error> {
        let start = self.world.now();
        let mut written = self.stat.get(Event::NrWritten);
        let mut progress_at = start;
        while self.unclean_for(m) >= self.thresholds.limit {
            self.failing_error(m)?;
            self.unpark_flusher_if_asleep(&m.dev);
            let now = self.world.now();
            let seen = self.stat.get(Event::NrWritten);
            if seen != written {
                written = seen;
                progress_at = now;
            }
            self.may_wait_on(now.since(progress_at))?;
            if planted!(self, BusyWriter) {
                continue;
            }
            let until = now.plus(Nanos::from_millis(100));
            // Never more than at the start of this turn: a condition that time makes true has no waker. Less, when a
            // device works again: who completes its writes wakes nobody above the limit of then.
            let excused = self.excused(Some(&m.dev));
            let _ = self
                .waits
                .wait(&*self.world, &self.stat, Channel::Dirty, until, || {
                    let excused = excused.min(self.excused(Some(&m.dev)));
                    self.nr_unclean() < self.thresholds.limit + excused
                });
        }
        Ok(())
    }

    /// The position ratio, both terms.
    fn position(&self, m: &Mapping, unclean: u64) -> f64 {
        let dev = &m.dev;
        // Relaxed: policy.
        let mine = dev.nr_dirty.load(Ordering::Relaxed) + dev.nr_writeback.load(Ordering::Relaxed);
        let devices = self.devices.lock(&*self.world).len().max(1);
        let ratio = pos_ratio(unclean, self.thresholds);
        if devices == 1 {
            return ratio;
        }
        ratio * device_ratio(mine, 1.0 / devices as f64, self.thresholds)
    }

    /// Steps the estimators when it is time, and returns the base rate in pages a second.
    fn learn_rates(&self, m: &Mapping, now: Nanos, unclean: u64, ratio: f64) -> f64 {
        let dev = &m.dev;
        let mut rates = dev.rates.lock(&*self.world);
        if dev.rates_due(now) {
            // Relaxed: statistics.
            let written = dev.written.load(Ordering::Relaxed);
            let dirtied = dev.dirtied.load(Ordering::Relaxed);
            rates.bandwidth.update(now, written, dev.in_flight() > 0);
            let bandwidth = rates.bandwidth.rate();
            if unclean > self.thresholds.freerun() {
                rates.base.update(now, dirtied, bandwidth, ratio);
            }
        }
        rates.base.rate()
    }

    /// Before 3.2: the writer writes pages of its file until there are fewer dirty ones than the limit.
    fn dirtier_writes(&self, m: &Arc<Mapping>, start: Nanos) -> Result<(), Error> {
        let mut batch = Vec::new();
        let mut written = self.stat.get(Event::NrWritten);
        let mut progress_at = start;
        while self.unclean_for(m) > self.thresholds.limit {
            self.failing_error(m)?;
            self.count(Event::Throttled, 1);
            let mut wrote = 0;
            if !m.dev.congested() {
                self.collect_dirty(m, &mut batch, WRITE_CHUNK, |_| true);
                wrote = self
                    .write_batch(m, &batch, WriteContext::Writer, Room::UNLIMITED)
                    .pages;
            }
            if self.unclean_for(m) <= self.thresholds.limit {
                break;
            }
            if wrote == 0 || m.dev.congested() {
                // congestion_wait(HZ/10)
                self.unpark_flusher_if_asleep(&m.dev);
                self.nap(Nanos::from_millis(100));
            }
            let now = self.world.now();
            let seen = self.stat.get(Event::NrWritten);
            if seen != written {
                written = seen;
                progress_at = now;
            }
            self.may_wait_on(now.since(progress_at))?;
        }
        Ok(())
    }

    /// May a writer wait on, after so long in which nothing was written? The pages that keep it may be its own, held.
    fn may_wait_on(&self, idle: Nanos) -> Result<(), Error> {
        if idle >= PINNED_TIMEOUT
            && self.in_flight() == 0
            && let Some(e) = self.all_pinned(self.world.task())
        {
            return Err(e);
        }
        if idle >= self.config().io_timeout {
            return Err(Error::TimedOut {
                what: "dirty pages to be written",
                waited: idle,
            });
        }
        Ok(())
    }
}

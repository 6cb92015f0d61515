//! The flusher: one task for each device, the only one that writes pages in the default policy.
//!
//! It keeps the device's queue full, or short while others read from it ([`super::wbt`]), while there is something to write:
//! more dirty pages than the background limit,
//! pages that reclaim asked for, pages older than `dirty_expire`, or a file without handles. It reaps its own
//! completions, so no other task has to be woken for them. Files that nobody has open any more it flushes and lets go, one
//! now and then while there are pages to write, all of them when there are none.
//!
//! **Context.** A task of its own; never waits for a latch, never allocates a frame.
//! **Kernel.** wb_workfn, wb_check_background_flush, wb_check_old_data_flush; MAX_WRITEBACK_PAGES 1024.

use super::BackingDev;
use super::wbt::{self, Limits, Room, Scale, Turn};
use crate::backing::WriteContext;
use crate::engine::Engine;
use crate::io::Lane;
use crate::mapping::Mapping;
use crate::sync::Ordering;
use crate::trace::Event;
use crate::world::{Nanos, Task, TaskId, World};
use std::sync::Arc;

/// Pages looked at in one go (MAX_WRITEBACK_PAGES).
const BATCH: usize = 1024;
/// With requests in flight, the flusher looks up this often even when none completes.
const LOOK: Nanos = Nanos::from_millis(10);

/// Mappings without handles that it looks at in one go.
const IDLE_BATCH: usize = 32;
/// With pages to write, it looks for such ones this often.
const IDLE_LOOK: Nanos = Nanos::from_millis(100);

/// It never looks around more often than this for want of anything to do.
const INTERVAL_MIN: Nanos = Nanos::from_millis(1);

/// The batch that the flusher is working off.
#[derive(Default)]
struct Cursor {
    mapping: Option<Arc<Mapping>>,
    batch: Vec<(u64, u32)>,
    at: usize,
    /// The mapping after which the next look begins.
    last_id: u32,
}

/// Where the flusher is with the mappings that nobody uses any more.
#[derive(Default)]
struct Idle {
    /// The last one of the round that was looked at.
    last_id: u32,
    /// One of the round was flushed or has gone.
    progress: bool,
    /// With pages to write, no further look before this.
    next_at: Nanos,
}

impl Cursor {
    fn rest(&self) -> &[(u64, u32)] {
        &self.batch[self.at..]
    }
}

impl<W: World> Engine<W> {
    /// Asks every flusher to write some pages: reclaim met dirty ones.
    #[doc(alias = "wakeup_flusher_threads")]
    pub(crate) fn kick_flushers(&self) {
        let devices = self.devices.lock(&*self.world).clone();
        for dev in devices.iter() {
            // Relaxed: how much is policy; the wake-up below is ordered by `asleep`.
            if dev.nr_dirty.load(Ordering::Relaxed) == 0 {
                continue;
            }
            if dev.kicked.load(Ordering::Relaxed) == 0 {
                self.count(Event::FlusherKicks, 1);
                dev.kicked.store(BATCH as u64, Ordering::Relaxed);
                self.unpark_flusher_if_asleep(dev);
            }
        }
    }

    /// Wakes a device's flusher if it sleeps.
    pub(crate) fn unpark_flusher_if_asleep(&self, dev: &BackingDev) {
        // SeqCst with `flusher_sleep`: either it sees what changed before it parks, or we see that it is asleep.
        crate::sync::fence(Ordering::SeqCst);
        if dev.asleep.load(Ordering::SeqCst) {
            self.unpark_flusher(dev);
        }
    }

    pub(crate) fn unpark_flusher(&self, dev: &BackingDev) {
        // Acquire: the task id is there once the flusher has stored it.
        let task = dev.task.load(Ordering::Acquire);
        if task != 0 {
            self.world.unpark(TaskId(task - 1));
        }
    }

    /// The flusher's body.
    #[doc(alias("wb_workfn", "bdi_writeback_thread"))]
    pub(crate) fn flusher(&self, dev: &BackingDev) {
        let task = self.world.task();
        task.set_flag(Task::MEMALLOC | Task::FLUSHER);
        // Release: see `unpark_flusher`.
        dev.task.store(task.id().0 + 1, Ordering::Release);
        let (mut cursor, mut idle) = (Cursor::default(), Idle::default());
        let (mut scale, mut kept_since) = (Scale::default(), None);
        while !self.stopping() {
            if self.world.now() >= idle.next_at {
                self.reap_idle_mappings(dev, &mut idle);
            }
            let (in_flight, bytes) = (dev.in_flight(), dev.bytes_in_flight());
            let limits = self.wbt_limits(dev, &mut scale);
            let room = limits.room(in_flight, bytes);
            let kept = room.is_none() && Limits::of(&*dev.queue).room(in_flight, bytes).is_some();
            let wanted = !cursor.rest().is_empty() || self.over_background();
            self.note_wait(dev, kept && wanted, &mut kept_since);
            if let Some(room) = room
                && self.flush_some(dev, &mut cursor, room) > 0
            {
                continue;
            }
            if dev.in_flight() > 0 {
                let fewer = match room {
                    // With nothing to write now, no number of requests is awaited.
                    Some(_) => 0,
                    None if in_flight > limits.most_requests() => limits.most_requests() + 1,
                    // Bytes: one that ends may have been a large one.
                    None => in_flight,
                };
                if dev.await_fewer(fewer) {
                    let until = self.world.now().plus(LOOK);
                    dev.queue.reap(Lane::Flusher, until);
                }
                dev.end_await();
                continue;
            }
            cursor = Cursor {
                last_id: cursor.last_id,
                ..Cursor::default()
            };
            if !self.reap_idle_mappings(dev, &mut idle) {
                self.flusher_sleep(dev);
            }
        }
        self.flusher_drain(dev);
    }

    /// What the flusher may have in flight now.
    fn wbt_limits(&self, dev: &BackingDev, scale: &mut Scale) -> Limits {
        let own = Limits::of(&*dev.queue);
        if !self.config().policy.wbt {
            return own;
        }
        let now = self.world.now();
        let unclean = self.nr_unclean();
        let behind = unclean > self.thresholds.freerun();
        match scale.turn(&dev.reads, now, behind, own.steps()) {
            Turn::Up => self.count(Event::WbtStepUp, 1),
            Turn::Down => self.count(Event::WbtStepDown, 1),
            Turn::Stay => {}
        }
        // Relaxed: policy.
        let urgent = self.zone.has_waiters()
            || unclean >= self.thresholds.limit
            || dev.kicked.load(Ordering::Relaxed) > 0;
        wbt::limits(own, scale, &dev.reads, now, urgent)
    }

    /// Counts how long requests are kept back.
    fn note_wait(&self, dev: &BackingDev, kept: bool, since: &mut Option<Nanos>) {
        if kept == since.is_some() {
            return;
        }
        let now = self.world.now();
        match *since {
            None => {
                self.count(Event::WbtWait, 1);
                self.count(Event::WbtOverdue, u64::from(dev.reads.overdue(now)));
                *since = Some(now);
            }
            Some(at) => {
                self.count(Event::WbtWaitNs, now.since(at).0);
                *since = None;
            }
        }
    }

    /// Waits, bounded, for what is still in flight at the end.
    fn flusher_drain(&self, dev: &BackingDev) {
        let until = self.world.now().plus(Nanos::from_secs(5));
        while dev.in_flight() > 0 && self.world.now() < until {
            dev.queue
                .reap(Lane::Flusher, self.world.now().plus(LOOK).min(until));
        }
    }

    fn flusher_sleep(&self, dev: &BackingDev) {
        let interval = self.config().writeback_interval.max(INTERVAL_MIN);
        let until = self.world.now().plus(interval);
        // SeqCst: see `unpark_flusher_if_asleep`.
        dev.asleep.store(true, Ordering::SeqCst);
        crate::sync::fence(Ordering::SeqCst);
        if !self.stopping() {
            // Wanted although the last look found nothing to write: its pages are latched. Another look soon, no spin.
            let soon = self.world.now().plus(LOOK).min(until);
            let wanted = self.flusher_wanted(dev);
            self.world.park(if wanted { soon } else { until });
        }
        dev.asleep.store(false, Ordering::SeqCst);
    }

    /// Is there work that should start now?
    fn flusher_wanted(&self, dev: &BackingDev) -> bool {
        // Relaxed: hints; ordered against the sleep by its fence.
        (dev.kicked.load(Ordering::Relaxed) > 0 || self.over_background())
            && dev.nr_dirty.load(Ordering::Relaxed) > 0
            && self.next_mapping(dev, 0).is_some()
    }

    /// More dirty pages than the background limit.
    pub(crate) fn over_background(&self) -> bool {
        self.nr_dirty() > self.thresholds.background
    }

    /// Submits as many requests as there is room for; how many.
    fn flush_some(&self, dev: &BackingDev, cursor: &mut Cursor, room: Room) -> u64 {
        if cursor.rest().is_empty() && !self.refill(dev, cursor) {
            return 0;
        }
        let Some(m) = cursor.mapping.clone() else {
            return 0;
        };
        let done = self.write_batch(&m, cursor.rest(), WriteContext::Flusher, room);
        cursor.at += done.taken;
        // Relaxed: policy.
        let kicked = dev.kicked.load(Ordering::Relaxed);
        let left = if done.requests == 0 && cursor.rest().is_empty() {
            // All latched, or clean meanwhile: not a reason to spin.
            0
        } else {
            kicked.saturating_sub(done.pages)
        };
        dev.answer_kick(kicked, left);
        done.requests
    }

    /// Takes the next batch; false when nothing wants to be written now.
    fn refill(&self, dev: &BackingDev, cursor: &mut Cursor) -> bool {
        let now = self.world.now();
        // Relaxed: policy.
        let kicked = dev.kicked.load(Ordering::Relaxed);
        let pressed = kicked > 0 || self.over_background();
        let Some(m) = self.next_mapping_that(dev, cursor.last_id, |m| {
            pressed || m.dirty_since(now) >= self.config().dirty_expire.0 || m.is_unused()
        }) else {
            dev.answer_kick(kicked, 0);
            return false;
        };
        cursor.last_id = m.id;
        cursor.at = 0;
        self.collect_dirty(&m, &mut cursor.batch, BATCH, |_| true);
        self.widen(&m, &mut cursor.batch);
        cursor.mapping = Some(m);
        !cursor.batch.is_empty()
    }

    fn next_mapping(&self, dev: &BackingDev, after: u32) -> Option<Arc<Mapping>> {
        self.next_mapping_that(dev, after, |_| true)
    }

    /// The next mapping of the device with dirty pages that may be tried, in turn.
    fn next_mapping_that(
        &self,
        dev: &BackingDev,
        after: u32,
        want: impl Fn(&Mapping) -> bool,
    ) -> Option<Arc<Mapping>> {
        let now = self.world.now();
        let table = self.mappings.lock(&*self.world);
        let fits = |m: &&Arc<Mapping>| {
            std::ptr::eq(&*m.dev, dev)
                && m.nr_dirty() > 0
                && m.may_retry(now.0)
                && m.backing.may_write(WriteContext::Flusher)
                && want(m)
        };
        let next = table.iter_after(after).find(fits);
        next.or_else(|| table.iter().find(fits)).cloned()
    }

    /// Drops the next few mappings of the device that nobody uses any more (MAP-4), and flushes one of them first that needs it.
    /// One: pages wait to be written meanwhile, and with them their writers. True when there is more to do.
    fn reap_idle_mappings(&self, dev: &BackingDev, idle: &mut Idle) -> bool {
        let start = self.world.now();
        let batch: Vec<_> = {
            let table = self.mappings.lock(&*self.world);
            let unused = |m: &&Arc<Mapping>| std::ptr::eq(&*m.dev, dev) && m.is_unused();
            let next = table.iter_after(idle.last_id).filter(unused);
            next.take(IDLE_BATCH).cloned().collect()
        };
        let mut flushed = false;
        for m in &batch {
            if flushed && m.durability.lock(&*self.world).needs_flush() {
                break;
            }
            flushed |= self.flush_unused(m);
            idle.progress |= self.drop_if_unused(m);
            idle.last_id = m.id;
        }
        idle.progress |= flushed;
        let all = batch.len() < IDLE_BATCH && batch.last().is_none_or(|m| m.id == idle.last_id);
        let more = !all || idle.progress;
        if all {
            (idle.last_id, idle.progress) = (0, false);
        }
        // Not more than half of its time, while there is anything else to do.
        let now = self.world.now();
        let pause = if more { LOOK } else { IDLE_LOOK };
        idle.next_at = now.plus(pause.max(now.since(start)));
        more
    }
}

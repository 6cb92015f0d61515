//! kswapd: reclaims in the background, from below the low watermark up to the high one.
//!
//! It also populates memory first, since nothing has to be reclaimed while some was never touched.
//!
//! Who needs a block rings with its order, and kswapd works until a block of the largest order asked for is free above the
//! high watermark: by lumpy reclaim, or by moving pages. Lest it turn memory over for a block that cannot be had, a whole run of
//! priorities that frees less than a cluster, or a compaction that ran, ends its work on the order: it sees to single
//! frames then (the anti-livelock rule).
//!
//! **State.** `wanted`: set by whoever meets the low watermark, cleared by kswapd before it looks. `order`: raised by those
//! who ring, taken by kswapd after `wanted`.
//! **Context.** One task for each zone; carries MEMALLOC and KSWAPD.
//! **Kernel.** kswapd, balance_pgdat, kswapd_try_to_sleep: a nap of 100 ms first, then the full sleep.

use super::{DEF_PRIORITY, Met, ScanControl, shrink::CONGESTION_TIMEOUT};
use crate::backing::WriteContext;
use crate::compact::compact_gap;
use crate::engine::Engine;
use crate::policy::ReclaimWait;
use crate::sync::{AtomicBool, AtomicU32, Ordering};
use crate::trace::{Event, TraceEvent};
use crate::world::{Nanos, Task, TaskId, World};
use crate::zone::Mark;

/// kswapd's door bell.
pub(crate) struct Kswapd {
    wanted: AtomicBool,
    /// The largest order asked for since kswapd looked last.
    order: AtomicU32,
    /// Its task + 1; 0 before it runs.
    task: AtomicU32,
    /// It sleeps, and nobody has rung since.
    asleep: AtomicBool,
}

impl Kswapd {
    pub(crate) fn new() -> Kswapd {
        Kswapd {
            wanted: AtomicBool::new(false),
            order: AtomicU32::new(0),
            task: AtomicU32::new(0),
            asleep: AtomicBool::new(false),
        }
    }
}

/// For a block kswapd frees at most this share of memory (a guess: the kernel's zones are never as small as a cache may be).
const ORDER_SHARE: u64 = 8;
/// The first stage of sleep.
const NAP: Nanos = Nanos::from_millis(100);
/// The second: woken by need, else it looks around this often.
const SLEEP: Nanos = Nanos::from_secs(10);

impl<W: World> Engine<W> {
    /// Wakes kswapd if it sleeps, for a block of 2^order frames. Who rings first counts: until kswapd sleeps again it has
    /// nothing more to hear but a higher order, as the first waker takes it off the kernel's wait queue.
    #[doc(alias = "wakeup_kswapd")]
    pub(crate) fn wake_kswapd(&self, order: u32) {
        let k = &self.kswapd;
        if order > 0 {
            // Relaxed: before `wanted`, whose order it has; kswapd takes it after it has cleared `wanted`.
            k.order.fetch_max(order, Ordering::Relaxed);
        }
        // SeqCst pair with `kswapd_sleep`: either it sees `wanted` before it parks, or we see `asleep` and unpark it. The
        // load first, so that rings while it runs write nothing but `wanted`.
        k.wanted.store(true, Ordering::SeqCst);
        if k.asleep.load(Ordering::SeqCst) && k.asleep.swap(false, Ordering::SeqCst) {
            self.count(Event::WakeupKswapd, 1);
            self.trace(TraceEvent::WakeupKswapd { order });
            self.unpark_kswapd();
        }
    }

    /// Rings whatever its state: for the end of the cache.
    pub(crate) fn unpark_kswapd(&self) {
        // Acquire: the task id is there once kswapd has stored it.
        let task = self.kswapd.task.load(Ordering::Acquire);
        if task != 0 {
            self.world.unpark(TaskId(task - 1));
        }
    }

    /// kswapd's body.
    #[doc(alias = "balance_pgdat")]
    pub(crate) fn kswapd(&self) {
        let task = self.world.task();
        task.set_flag(Task::MEMALLOC | Task::KSWAPD);
        // Release: see `unpark_kswapd`.
        self.kswapd.task.store(task.id().0 + 1, Ordering::Release);
        if self.config().populate {
            while !self.stopping() && self.populate_step() {
                self.world.charge(crate::world::Work::Copy, 16);
            }
        }
        let mut has_run = false;
        while !self.stopping() {
            // An exchange, Acquire: whoever rang before it is seen with the frames it took; who rings after it is seen
            // by the sleep. A plain store could wipe out a ring whose cause the look below does not see yet.
            self.kswapd.wanted.swap(false, Ordering::AcqRel);
            // Relaxed: ordered by `wanted`. An order that comes after this look has its ring still to come.
            let mut order = self.worthwhile(self.kswapd.order.swap(0, Ordering::Relaxed));
            if !self.high_ok(order) {
                self.trace(TraceEvent::KswapdWake { order });
                has_run = true;
                order = self.balance(order);
            }
            self.kswapd_try_to_sleep(order, &mut has_run);
        }
        if has_run {
            self.trace(TraceEvent::KswapdSleep);
        }
    }

    /// Is a block of 2^order frames free above the high watermark?
    fn high_ok(&self, order: u32) -> bool {
        if self.zone.nr_unpopulated() > 0 {
            return true;
        }
        !self.zone.below(Mark::High)
            && (order == 0 || self.zone.order_ok(&*self.world, order, Mark::High))
    }

    /// An order that kswapd works for: 0 for one whose block would turn over a large part of memory.
    fn worthwhile(&self, order: u32) -> u32 {
        if order > 0 && compact_gap(order) > self.frames.len() as u64 / ORDER_SHARE {
            return self.drop_order();
        }
        order
    }

    /// Is there nothing more for reclaim to do for this order? Where pages are moved, it only makes room for that.
    fn reclaimed_enough(&self, order: u32) -> bool {
        if order == 0 || self.config().policy.high_order.lumpy() {
            return self.high_ok(order);
        }
        self.high_ok(0) && self.compact_has_room(order)
    }

    /// Reclaims until the high watermark is met for the order, or a whole run of priorities got nothing. Returns the order
    /// that it still works for.
    fn balance(&self, mut order: u32) -> u32 {
        self.count(Event::Pageoutrun, 1);
        let moves = !self.config().policy.high_order.lumpy();
        let mut sc = ScanControl::new(WriteContext::Kswapd, order);
        loop {
            if order > 0 && moves && self.reclaimed_enough(order) {
                self.compact_in_background(order);
                if self.high_ok(order) {
                    return order;
                }
                order = self.drop_order();
            }
            if order == 0 && self.high_ok(0) {
                return 0;
            }
            (sc.met, sc.order) = (Met::default(), order);
            for priority in (0..=DEF_PRIORITY).rev() {
                sc.priority = priority;
                sc.target = sc.met.reclaimed + self.kswapd_target(order);
                self.shrink_zone(&mut sc);
                if self.reclaimed_enough(order) || self.stopping() {
                    break;
                }
                if sc.met.reclaimed >= self.config().reclaim_cluster as u64
                    || self.kswapd_waits(&sc)
                {
                    break;
                }
            }
            if self.stopping() || self.high_ok(order) {
                return order;
            }
            if order > 0 && moves && self.reclaimed_enough(order) {
                continue;
            }
            if order > 0 && sc.met.reclaimed < self.config().reclaim_cluster as u64 {
                order = self.drop_order();
                continue;
            }
            if sc.met.reclaimed == 0 {
                // Nothing to be had: the end of a write, or the next waiter, rings again.
                return order;
            }
        }
    }

    /// kswapd sees to single frames from here on.
    fn drop_order(&self) -> u32 {
        self.count(Event::KswapdOrderDropped, 1);
        0
    }

    /// How many frames one pass is to free.
    fn kswapd_target(&self, order: u32) -> u64 {
        let mark = self.zone.watermarks().at(Mark::High) as u64;
        let gap = if order > 0 { compact_gap(order) } else { 0 };
        (mark + gap).saturating_sub(self.zone.nr_free()).max(1)
    }

    /// How kswapd waits between priorities. True ends the run.
    fn kswapd_waits(&self, sc: &ScanControl) -> bool {
        let late = sc.priority < DEF_PRIORITY - 2;
        match self.config().policy.wait {
            ReclaimWait::Congestion if late => self.nap(CONGESTION_TIMEOUT),
            ReclaimWait::IfCongested if late => {
                let _ = self.wait_iff_congested();
            }
            ReclaimWait::Progress if late && sc.met.dirty + sc.met.writeback > 0 => {
                self.kick_flushers();
                self.nap(CONGESTION_TIMEOUT);
                return true;
            }
            _ => {}
        }
        false
    }

    /// Sleeps in two stages. `has_run`: since it last slept fully.
    fn kswapd_try_to_sleep(&self, order: u32, has_run: &mut bool) {
        let met = self.high_ok(order);
        let nap_end = self.world.now().plus(NAP);
        self.kswapd_sleep(nap_end);
        if self.stopping() {
            return;
        }
        if self.world.now() < nap_end {
            if met {
                self.count(Event::KswapdLowWmarkHitQuickly, 1);
            }
            return;
        }
        if met && !self.high_ok(order) {
            self.count(Event::KswapdHighWmarkHitQuickly, 1);
            return;
        }
        if met {
            if std::mem::take(has_run) {
                self.trace(TraceEvent::KswapdSleep);
            }
            self.kswapd_sleep(self.world.now().plus(SLEEP));
        }
    }

    /// Parks until it is wanted or until `until`.
    fn kswapd_sleep(&self, until: Nanos) {
        let k = &self.kswapd;
        loop {
            // SeqCst: see `wake_kswapd`. Before each park, since a ring whose `wanted` an earlier look has answered may
            // take `asleep` away only now.
            k.asleep.store(true, Ordering::SeqCst);
            if k.wanted.load(Ordering::SeqCst) || self.stopping() || self.world.now() >= until {
                break;
            }
            self.world.park(until);
        }
        k.asleep.store(false, Ordering::SeqCst);
    }
}

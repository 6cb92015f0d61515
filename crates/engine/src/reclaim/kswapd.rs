//! kswapd: reclaims in the background, from below the low watermark up to the high one.
//!
//! It also populates memory first, since nothing has to be reclaimed while some was never touched.
//!
//! **State.** `wanted`: set by whoever meets the low watermark, cleared by kswapd before it looks.
//! **Context.** One task for each zone; carries MEMALLOC and KSWAPD.
//! **Kernel.** kswapd, balance_pgdat, kswapd_try_to_sleep: a nap of 100 ms first, then the full sleep.

use super::{DEF_PRIORITY, Met, ScanControl, shrink::CONGESTION_TIMEOUT};
use crate::backing::WriteContext;
use crate::engine::Engine;
use crate::policy::ReclaimWait;
use crate::sync::{AtomicBool, AtomicU32, Ordering};
use crate::trace::{Event, TraceEvent};
use crate::world::{Nanos, Task, TaskId, World};
use crate::zone::Mark;

/// kswapd's door bell.
pub(crate) struct Kswapd {
    wanted: AtomicBool,
    /// Its task + 1; 0 before it runs.
    task: AtomicU32,
    /// It sleeps, and nobody has rung since.
    asleep: AtomicBool,
}

impl Kswapd {
    pub(crate) fn new() -> Kswapd {
        Kswapd {
            wanted: AtomicBool::new(false),
            task: AtomicU32::new(0),
            asleep: AtomicBool::new(false),
        }
    }
}

/// The first stage of sleep.
const NAP: Nanos = Nanos::from_millis(100);
/// The second: woken by need, else it looks around this often.
const SLEEP: Nanos = Nanos::from_secs(10);

impl<W: World> Engine<W> {
    /// Wakes kswapd if it sleeps. Who rings first counts: until kswapd sleeps again it has nothing more to hear, as the
    /// first waker takes it off the kernel's wait queue.
    pub(crate) fn wake_kswapd(&self) {
        let k = &self.kswapd;
        // SeqCst pair with `kswapd_sleep`: either it sees `wanted` before it parks, or we see `asleep` and unpark it. The
        // load first, so that rings while it runs write nothing but `wanted`.
        k.wanted.store(true, Ordering::SeqCst);
        if k.asleep.load(Ordering::SeqCst) && k.asleep.swap(false, Ordering::SeqCst) {
            self.count(Event::WakeupKswapd, 1);
            self.trace(TraceEvent::WakeupKswapd { order: 0 });
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
            if !self.high_ok() {
                self.trace(TraceEvent::KswapdWake { order: 0 });
                has_run = true;
                self.balance();
            }
            self.kswapd_try_to_sleep(&mut has_run);
        }
        if has_run {
            self.trace(TraceEvent::KswapdSleep);
        }
    }

    fn high_ok(&self) -> bool {
        !self.zone.below(Mark::High) || self.zone.nr_unpopulated() > 0
    }

    /// Reclaims until the high watermark is met, or a whole run of priorities got nothing.
    fn balance(&self) {
        self.count(Event::Pageoutrun, 1);
        let mut sc = ScanControl {
            context: WriteContext::Kswapd,
            target: 0,
            priority: DEF_PRIORITY,
            met: Met::default(),
        };
        loop {
            sc.met = Met::default();
            for priority in (0..=DEF_PRIORITY).rev() {
                sc.priority = priority;
                let high = self.zone.watermarks().at(Mark::High) as u64;
                sc.target = sc.met.reclaimed + high.saturating_sub(self.zone.nr_free()).max(1);
                self.shrink_zone(&mut sc);
                if self.high_ok() || self.stopping() {
                    return;
                }
                if sc.met.reclaimed >= self.config().reclaim_cluster as u64
                    || self.kswapd_waits(&sc)
                {
                    break;
                }
            }
            if sc.met.reclaimed == 0 {
                // Nothing to be had: the end of a write, or the next waiter, rings again.
                return;
            }
        }
    }

    /// How kswapd waits between priorities. True ends the run.
    fn kswapd_waits(&self, sc: &ScanControl) -> bool {
        let late = sc.priority < DEF_PRIORITY - 2;
        match self.config().policy.wait {
            ReclaimWait::Congestion if late => self.nap(CONGESTION_TIMEOUT),
            ReclaimWait::IfCongested if late => self.wait_iff_congested(),
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
    fn kswapd_try_to_sleep(&self, has_run: &mut bool) {
        let met = self.high_ok();
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
        if met && !self.high_ok() {
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

//! Direct reclaim: a task that needs a frame looks for one itself.
//!
//! **Kernel.** do_try_to_free_pages; `priority < DEF_PRIORITY - 2` for the congestion naps of 2.6.35.

use super::{DEF_PRIORITY, ScanControl, shrink::CONGESTION_TIMEOUT};
use crate::backing::WriteContext;
use crate::compact::compact_gap;
use crate::engine::Engine;
use crate::policy::{ReclaimWait, WritebackFrom};
use crate::trace::{Event, TraceEvent};
use crate::world::{Nanos, Task, World};
use crate::zone::Mark;

impl<W: World> Engine<W> {
    /// Reclaims frames on the calling task, up to a cluster or what a block of 2^order frames needs; how many it got. Scans
    /// at no further priority after `until`.
    #[doc(alias("try_to_free_pages", "do_try_to_free_pages"))]
    pub(crate) fn direct_reclaim(&self, order: u32, until: Nanos) -> u64 {
        let task = self.world.task();
        // RECLAIM-1: nothing that reclaim calls comes back here.
        let flags = task.set_flag(Task::MEMALLOC | Task::RECLAIM);
        assert!(
            flags & Task::MEMALLOC == 0 || !self.config().recursion_guard,
            "RECLAIM-1: reclaim re-entered"
        );
        self.count(Event::Allocstall, 1);
        self.trace(TraceEvent::DirectReclaimBegin {
            order,
            may_writepage: self.config().policy.writeback_from == WritebackFrom::Direct,
        });
        let mut sc = ScanControl::new(WriteContext::Direct, order);
        sc.target = self.direct_target(order);
        for priority in (0..=DEF_PRIORITY).rev() {
            sc.priority = priority;
            self.shrink_zone(&mut sc);
            self.reclaim_for_compaction(&mut sc);
            if sc.met.reclaimed >= sc.target
                || self.world.now() >= until
                || self.direct_gives_up(&sc)
            {
                break;
            }
        }
        self.trace(TraceEvent::DirectReclaimEnd {
            nr_reclaimed: sc.met.reclaimed,
        });
        task.restore_flags(flags);
        if sc.met.reclaimed == 0 && self.unreclaimable.reached(self.reclaimable()) {
            self.count(Event::OomUnreclaimable, 1);
        }
        sc.met.reclaimed
    }

    /// Where pages are to be moved for a block, goes on at this priority while it frees pages and there is no room for that.
    #[doc(alias = "should_continue_reclaim")]
    fn reclaim_for_compaction(&self, sc: &mut ScanControl) {
        if sc.order == 0 || self.config().policy.high_order.lumpy() {
            return;
        }
        let mut before = 0;
        while before < sc.met.reclaimed && sc.met.reclaimed < sc.target && !self.stopping() {
            before = sc.met.reclaimed;
            self.shrink_zone(sc);
        }
    }

    /// A cluster; where pages are to be moved, as many as that needs.
    fn direct_target(&self, order: u32) -> u64 {
        let cluster = self.config().reclaim_cluster as u64;
        let policy = self.config().policy.high_order;
        if order == 0 || policy.lumpy() {
            return cluster;
        }
        let gap = compact_gap(order);
        let low = self.zone.watermarks().at(Mark::Low) as u64;
        (low + gap + cluster)
            .saturating_sub(self.zone.nr_free())
            .clamp(cluster, gap + cluster)
    }

    /// Ends the run early, or naps, as the policy waits.
    fn direct_gives_up(&self, sc: &ScanControl) -> bool {
        let late = sc.priority < DEF_PRIORITY - 2;
        match self.config().policy.wait {
            ReclaimWait::Congestion => {
                if late && sc.met.scanned > 0 {
                    self.count_nap(sc.priority);
                    self.nap(CONGESTION_TIMEOUT);
                }
                false
            }
            ReclaimWait::IfCongested => {
                if late && sc.met.scanned > 0 && self.wait_iff_congested() {
                    self.count_nap(sc.priority);
                }
                false
            }
            // What was freed goes to the queue of waiters, so the wait is there: scanning on would only turn the list.
            ReclaimWait::Progress => {
                sc.met.reclaimed > 0
                    || (late && sc.met.dirty + sc.met.writeback >= sc.met.scanned / 2)
            }
        }
    }

    /// A nap between two priorities, by where it was taken.
    fn count_nap(&self, priority: u32) {
        self.count(Event::CongestionWaitDirect, 1);
        if priority < 2 {
            self.count(Event::CongestionWaitDirectLast, 1);
        }
    }

    /// Pages on the lists (`zone_reclaimable_pages`).
    fn reclaimable(&self) -> u64 {
        let lengths = self.lru.lengths();
        (lengths.candidates + lengths.refill) as u64
    }
}

//! Direct reclaim: a task that needs a frame looks for one itself.
//!
//! **Kernel.** do_try_to_free_pages; `priority < DEF_PRIORITY - 2` for the congestion naps of 2.6.35.

use super::{DEF_PRIORITY, Met, ScanControl, shrink::CONGESTION_TIMEOUT};
use crate::backing::WriteContext;
use crate::engine::Engine;
use crate::policy::{ReclaimWait, WritebackFrom};
use crate::trace::{Event, TraceEvent};
use crate::world::{Task, World};

impl<W: World> Engine<W> {
    /// Reclaims up to a cluster of frames on the calling task; how many it got.
    #[doc(alias("try_to_free_pages", "do_try_to_free_pages"))]
    pub(crate) fn direct_reclaim(&self) -> u64 {
        let task = self.world.task();
        // RECLAIM-1: nothing that reclaim calls comes back here.
        let flags = task.set_flag(Task::MEMALLOC | Task::RECLAIM);
        assert!(
            flags & Task::MEMALLOC == 0 || !self.config().recursion_guard,
            "RECLAIM-1: reclaim re-entered"
        );
        self.count(Event::Allocstall, 1);
        self.trace(TraceEvent::DirectReclaimBegin {
            order: 0,
            may_writepage: self.config().policy.writeback_from == WritebackFrom::Direct,
        });
        let mut sc = ScanControl {
            context: WriteContext::Direct,
            target: self.config().reclaim_cluster as u64,
            priority: DEF_PRIORITY,
            met: Met::default(),
        };
        for priority in (0..=DEF_PRIORITY).rev() {
            sc.priority = priority;
            self.shrink_zone(&mut sc);
            if sc.met.reclaimed >= sc.target || self.direct_gives_up(&sc) {
                break;
            }
        }
        self.trace(TraceEvent::DirectReclaimEnd {
            nr_reclaimed: sc.met.reclaimed,
        });
        task.restore_flags(flags);
        sc.met.reclaimed
    }

    /// Ends the run early, or naps, as the policy waits.
    fn direct_gives_up(&self, sc: &ScanControl) -> bool {
        let late = sc.priority < DEF_PRIORITY - 2;
        match self.config().policy.wait {
            ReclaimWait::Congestion => {
                if late && sc.met.scanned > 0 {
                    self.nap(CONGESTION_TIMEOUT);
                }
                false
            }
            ReclaimWait::IfCongested => {
                if late && sc.met.scanned > 0 {
                    self.wait_iff_congested();
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
}

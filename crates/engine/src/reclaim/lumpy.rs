//! Lumpy reclaim: free neighbours are made by taking, with the page at the tail, every page of its aligned block.
//!
//! What lies beside the tail is nobody's choice: pages in daily use go too, and come back by refaults. That is its price,
//! and the reason why compaction took its place. It is on for an order above 3, and for lower ones when easier passes have
//! failed (priority below 10). A direct reclaimer that could not free the whole block naps (as the policy waits), then tries
//! the rest once more and waits for the pages that are being written.
//!
//! **Context.** Direct reclaim and kswapd. Allocates a list of at most 32 + 2^order entries.
//! **Invariants.** RECLAIM-3 (each wait at most 100 ms; after one for a page that timed out there is no other in that
//! run).
//!
//! **Kernel.** `isolate_lru_pages` and `shrink_inactive_list` of 2.6.35 with `sc->lumpy_reclaim_mode`, `PAGEOUT_IO_SYNC`.
//! **Tests.** `crates/lab/tests/high_order.rs`.

use super::shrink::{CONGESTION_TIMEOUT, LastMapping, Outcome};
use super::{DEF_PRIORITY, ScanControl};
use crate::backing::WriteContext;
use crate::engine::Engine;
use crate::frame::FrameNo;
use crate::frame::state::{ACTIVE, WRITEBACK};
use crate::lru::order::Reason;
use crate::policy::ReclaimWait;
use crate::trace::{Event, IsolateMode};
use crate::wait::Waited;
use crate::world::{Work, World};
use crate::zone::COSTLY_ORDER;
use std::ops::Range;

/// Is lumpy reclaim on for a run at this order and priority?
pub(super) fn lumpy_mode(order: u32, priority: u32) -> bool {
    order > COSTLY_ORDER || (order > 0 && priority < DEF_PRIORITY - 2)
}

/// The aligned block of `frame`, or the frame alone where the block is not whole.
fn block_around(frame: u32, order: u32, frames: usize) -> Range<u32> {
    let size = 1u32 << order;
    let first = frame & !(size - 1);
    if u64::from(first) + u64::from(size) <= frames as u64 {
        first..first + size
    } else {
        frame..frame + 1
    }
}

impl<W: World> Engine<W> {
    /// Does this pass take whole blocks?
    pub(super) fn is_lumpy(&self, sc: &ScanControl) -> bool {
        self.config().policy.high_order.lumpy() && lumpy_mode(sc.order, sc.priority)
    }

    /// Takes the pages that would go next, each with its block, until it has `n` or more; frees what it can, and returns
    /// how many pages it looked at.
    #[doc(alias = "lumpy_reclaim")]
    pub(super) fn shrink_lumpy(&self, sc: &mut ScanControl, n: usize) -> usize {
        if self.too_many_isolated(sc) {
            return 0;
        }
        let mut batch = Vec::with_capacity(n.max(1 << sc.order));
        let (mut looked, mut tails) = (0, 0);
        while batch.len() < n {
            let mut tail = [FrameNo(0)];
            let isolated = self.lru.isolate(&*self.world, &self.frames, &mut tail);
            looked += isolated.looked;
            if isolated.taken == 0 {
                break;
            }
            tails += 1;
            batch.push(tail[0]);
            let block = block_around(tail[0].0, sc.order, self.frames.len());
            self.lru
                .isolate_range(&*self.world, &self.frames, block, &mut batch);
        }
        looked += batch.len() - tails;
        self.world.charge(Work::Scan, looked as u32);
        if batch.is_empty() {
            return looked;
        }
        self.count(Event::LumpyTaken, (batch.len() - tails) as u64);
        let was_active = |f: &&FrameNo| self.frames.get(f.0).state.peek() & ACTIVE != 0;
        let active = batch.iter().filter(was_active).count();
        self.count(Event::Pgdeactivate, active as u64);
        self.trace_isolate(sc.order, IsolateMode::Inactive, n, batch.len(), 0);
        self.shrink_block(sc, &batch);
        looked
    }

    fn shrink_block(&self, sc: &mut ScanControl, batch: &[FrameNo]) {
        let before = sc.met;
        let mut last = LastMapping::default();
        let (mut keep, mut freed) = (Vec::new(), Vec::with_capacity(batch.len()));
        sc.lumpy = true;
        for &frame in batch {
            match self.shrink_page(sc, frame.0, &mut last) {
                Outcome::Reclaimed => freed.push(frame.0),
                Outcome::Keep(why) => keep.push((frame, why)),
            }
        }
        if !keep.is_empty() && sc.patient && sc.context == WriteContext::Direct {
            match self.config().policy.wait {
                ReclaimWait::Congestion => self.nap(CONGESTION_TIMEOUT),
                ReclaimWait::IfCongested => {
                    let _ = self.wait_iff_congested();
                }
                // Each page is waited for by itself.
                ReclaimWait::Progress => {}
            }
            // Each page that was kept is met again.
            (sc.met.dirty, sc.met.writeback) = (before.dirty, before.writeback);
            self.shrink_waiting(sc, &mut keep, &mut freed, &mut last);
        }
        sc.lumpy = false;
        self.count(Event::LumpyFailed, keep.len() as u64);
        self.count(Event::PgreclaimLumpy, freed.len() as u64);
        self.settle_batch(sc, &before, &keep, &freed);
        self.after_batch(sc, &before, batch.len() as u64);
    }

    /// The second pass: what was kept is tried again, and waited for where it is being written.
    fn shrink_waiting(
        &self,
        sc: &mut ScanControl,
        keep: &mut Vec<(FrameNo, Reason)>,
        freed: &mut Vec<u32>,
        last: &mut LastMapping,
    ) {
        keep.retain_mut(|(frame, why)| {
            // Twice at most: a dirty page may be written by the first try, and is clean for the second.
            for _ in 0..2 {
                sc.patient = sc.patient && self.wait_written(frame.0);
                let met = (sc.met.dirty, sc.met.writeback);
                match self.shrink_page(sc, frame.0, last) {
                    Outcome::Reclaimed => {
                        freed.push(frame.0);
                        return false;
                    }
                    Outcome::Keep(now) => *why = now,
                }
                let writeback = self.frames.get(frame.0).state.peek() & WRITEBACK != 0;
                if !writeback || !sc.patient {
                    break;
                }
                (sc.met.dirty, sc.met.writeback) = met;
            }
            true
        });
    }

    /// Waits for the write of a page that the caller has isolated. False when it did not end in time.
    #[doc(alias = "wait_on_page_writeback")]
    fn wait_written(&self, frame: u32) -> bool {
        let seen = self.frames.get(frame).state.load();
        if seen & WRITEBACK == 0 {
            return true;
        }
        let until = self.world.now().plus(CONGESTION_TIMEOUT);
        self.wait_frame(frame, seen, until, |s| s & WRITEBACK == 0) == Waited::Ready
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn costly_orders_are_lumpy_at_once_and_others_late() {
        for (order, priority, want) in [
            (0, 0, false),
            (1, 12, false),
            (1, 10, false),
            (1, 9, true),
            (3, 10, false),
            (3, 9, true),
            (4, 12, true),
            (9, 12, true),
        ] {
            assert_eq!(lumpy_mode(order, priority), want, "{order} at {priority}");
        }
    }

    #[test]
    fn a_block_is_aligned_and_whole_or_the_page_alone() {
        assert_eq!(block_around(13, 2, 16), 12..16);
        assert_eq!(block_around(12, 0, 16), 12..13);
        assert_eq!(block_around(13, 2, 15), 13..14, "cut off by the end");
        assert_eq!(block_around(511, 9, 512), 0..512);
        assert_eq!(block_around(5, 9, 511), 5..6);
    }
}

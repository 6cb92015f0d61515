//! Shrinking the lists: what happens to each page of a batch.
//!
//! **Kernel.** shrink_zone, shrink_inactive_list, shrink_active_list, shrink_page_list. References: an access through
//! read, write or a guard counts as `mark_page_accessed` does for unmapped pages: the first at the fill, the second
//! activates. (The kernel's one round of grace for a page referenced once is for mapped pages.)

use super::{CLUSTER, DEF_PRIORITY, Dirty, ScanControl, decide_dirty};
use crate::backing::WriteContext;
use crate::engine::Engine;
use crate::frame::FrameNo;
use crate::frame::state::{
    ACTIVE, DIRTY, EXCL, HASHED, HOLDERS, LOADING, ORPHAN, RECLAIM, WAITERS, WRITEBACK,
};
use crate::lru::order::{Ghosts, Reason};
use crate::mapping::{Key, Mapping};
use crate::policy::{OnDirty, ReclaimWait, WriteUnit, WritebackFrom};
use crate::trace::{Event, IsolateMode, TraceEvent};
use crate::wait::Channel;
use crate::world::{Nanos, Task, Work, World};
use std::sync::Arc;

/// What became of a page.
pub(super) enum Outcome {
    /// Claimed and out of the index; to be freed with the batch.
    Reclaimed,
    /// Stays.
    Keep(Reason),
}

/// Remembers the last mapping that was looked up.
#[derive(Default)]
pub(super) struct LastMapping(Option<Arc<Mapping>>);

/// The longest nap of a reclaimer (HZ/10).
pub(super) const CONGESTION_TIMEOUT: Nanos = Nanos::from_millis(100);

impl<W: World> Engine<W> {
    /// One pass over the lists at the run's priority.
    #[doc(alias("shrink_lruvec", "shrink_node"))]
    pub(super) fn shrink_zone(&self, sc: &mut ScanControl) {
        let lengths = self.lru.lengths();
        let cluster = self.config().reclaim_cluster;
        let share = |n: usize| (n >> sc.priority).max(cluster).min(n);
        // Lists of dirty pages only, which nobody can write: what is clean is among the kept pages, however short their
        // list is (`force_deactivate`).
        let desperate = sc.priority < DEF_PRIORITY - 2 && sc.met.reclaimed == 0;
        let wanted = if desperate {
            lengths.active
        } else {
            lengths.refill
        };
        let (mut scan, mut refill) = (share(lengths.candidates), share(wanted));
        while scan > 0 || refill > 0 {
            if refill > 0 {
                let n = refill.min(cluster);
                self.shrink_active(sc.order, n);
                refill -= n;
            }
            if scan > 0 {
                let n = scan.min(cluster);
                let (looked, done) = if self.is_lumpy(sc) {
                    // Blocks beside the tail count as scanned.
                    let looked = self.shrink_lumpy(sc, n);
                    (looked, looked)
                } else {
                    (self.shrink_inactive(sc, n), n)
                };
                if looked == 0 {
                    scan = 0;
                }
                scan = scan.saturating_sub(done);
            }
            if sc.met.reclaimed >= sc.target {
                break;
            }
        }
    }

    /// Lets the order move up to `n` of the pages it keeps towards reclaim.
    #[doc(alias = "shrink_active_list")]
    fn shrink_active(&self, order: u32, n: usize) {
        let done = self.lru.refill(&*self.world, &self.frames, n);
        self.count(Event::Pgrefill, done.looked as u64);
        if done.looked > 0 {
            self.trace_isolate(order, IsolateMode::Active, n, done.looked, 0);
        }
        self.count(Event::Pgdeactivate, done.deactivated as u64);
        self.world.charge(Work::Scan, done.looked as u32);
    }

    /// Scans up to `n` pages in the order of reclaim; returns how many the order looked at.
    #[doc(alias = "shrink_inactive_list")]
    fn shrink_inactive(&self, sc: &mut ScanControl, n: usize) -> usize {
        if self.too_many_isolated(sc) {
            return 0;
        }
        let mut batch = [FrameNo(0); CLUSTER];
        let asked = n;
        let isolated = self
            .lru
            .isolate(&*self.world, &self.frames, &mut batch[..n]);
        let n = isolated.taken;
        if n == 0 {
            self.world.charge(Work::Scan, isolated.looked as u32);
            return isolated.looked;
        }
        self.trace_isolate(
            sc.order,
            IsolateMode::Inactive,
            asked,
            n,
            isolated.looked.saturating_sub(n),
        );
        // Each leaves the index and leaves a shadow, most likely.
        for frame in &batch[..n] {
            let f = self.frames.get(frame.0);
            self.fetch_place(f.mapping(), f.page());
        }
        let before = sc.met;
        let mut last = LastMapping::default();
        let mut keep = [(FrameNo(0), Reason::Busy); CLUSTER];
        let mut kept = 0;
        let mut freed = [0; CLUSTER];
        let mut n_freed = 0;
        for frame in &batch[..n] {
            match self.shrink_page(sc, frame.0, &mut last) {
                Outcome::Reclaimed => {
                    freed[n_freed] = frame.0;
                    n_freed += 1;
                }
                Outcome::Keep(to) => {
                    keep[kept] = (*frame, to);
                    kept += 1;
                }
            }
        }
        self.settle_batch(sc, &before, &keep[..kept], &freed[..n_freed]);
        self.world.charge(Work::Scan, isolated.looked as u32);
        self.after_batch(sc, &before, n as u64);
        isolated.looked
    }

    /// Others are at it already.
    pub(super) fn too_many_isolated(&self, sc: &ScanControl) -> bool {
        sc.context == WriteContext::Direct
            && self.lru.isolated() > self.lru.lengths().candidates as u64
    }

    /// A batch has been looked at: puts back what is kept, frees the rest, and counts.
    pub(super) fn settle_batch(
        &self,
        sc: &mut ScanControl,
        before: &super::Met,
        keep: &[(FrameNo, Reason)],
        freed: &[u32],
    ) {
        self.lru.putback(&*self.world, &self.frames, keep, |f| {
            self.free_claimed(f);
        });
        for frame in freed {
            self.lru.forget_isolated(&self.frames, *frame);
            self.retire(*frame);
        }
        self.zone.free_to_buddy(&*self.world, freed);
        let (n, n_freed) = ((keep.len() + freed.len()) as u64, freed.len() as u64);
        sc.met.scanned += n;
        sc.met.reclaimed += n_freed;
        let (scan, steal) = if sc.context == WriteContext::Direct {
            (Event::PgscanDirect, Event::PgstealDirect)
        } else {
            (Event::PgscanKswapd, Event::PgstealKswapd)
        };
        self.count(scan, n);
        self.unreclaimable.note(n, self.stat.get(Event::Pgfree));
        self.count(steal, n_freed);
        self.trace(TraceEvent::LruShrinkInactive {
            nr_scanned: n,
            nr_reclaimed: n_freed,
            nr_dirty: sc.met.dirty - before.dirty,
            nr_writeback: sc.met.writeback - before.writeback,
            nr_activate: keep
                .iter()
                .filter(|(_, to)| {
                    matches!(to, Reason::Held | Reason::Referenced | Reason::OutOfTheWay)
                })
                .count() as u64,
            priority: sc.priority,
        });
    }

    /// A batch of `taken` pages came off a list, and `skipped` were passed over.
    pub(super) fn trace_isolate(
        &self,
        order: u32,
        isolate_mode: IsolateMode,
        asked: usize,
        taken: usize,
        skipped: usize,
    ) {
        self.trace(TraceEvent::LruIsolate {
            order,
            isolate_mode,
            nr_requested: asked as u64,
            nr_scanned: taken as u64,
            nr_skipped: skipped as u64,
            nr_taken: taken as u64,
        });
    }

    /// What a batch's dirty and writeback pages make the reclaimer do.
    pub(super) fn after_batch(&self, sc: &ScanControl, before: &super::Met, taken: u64) {
        let policy = &self.config().policy;
        let dirty = sc.met.dirty - before.dirty;
        let writeback = sc.met.writeback - before.writeback;
        if dirty > 0 && policy.on_dirty != OnDirty::Skip {
            let enough = match policy.writeback_from {
                // 4.11: the whole batch was dirty and nobody has queued it.
                WritebackFrom::Flusher => dirty == taken || sc.priority < DEF_PRIORITY - 2,
                // 2.6.35: more than one and a half batches were scanned.
                _ => sc.met.scanned > self.config().reclaim_cluster as u64 * 3 / 2,
            };
            if enough {
                self.kick_flushers();
            }
            if policy.on_dirty == OnDirty::KickAndWait {
                self.nap(CONGESTION_TIMEOUT);
            }
        }
        let many = taken >> (DEF_PRIORITY - sc.priority);
        if policy.wait == ReclaimWait::IfCongested && writeback > 0 && writeback >= many {
            let _ = self.wait_iff_congested();
        }
    }

    /// Sleeps until any write completes, at most `length` (`congestion_wait`). Also for a writer who writes himself.
    #[doc(alias = "congestion_wait")]
    pub(crate) fn nap(&self, length: Nanos) {
        self.count(Event::CongestionWait, 1);
        if self.in_flight() == 0 && self.nr_dirty() == 0 {
            return;
        }
        let before = self.stat.get(Event::NrWritten);
        let until = self.world.now().plus(length);
        if self.world.task().has(Task::FLUSHER) {
            // It waits for what it must itself reap.
            while self.stat.get(Event::NrWritten) == before && self.world.now() < until {
                self.park_or_reap(until);
            }
            return;
        }
        let _ = self
            .waits
            .wait(&*self.world, &self.stat, Channel::Progress, until, || {
                self.stat.get(Event::NrWritten) != before
            });
    }

    /// Naps only if a queue is congested (2.6.37); whether it was.
    pub(super) fn wait_iff_congested(&self) -> bool {
        let congested = self.congested();
        if congested {
            self.nap(CONGESTION_TIMEOUT);
        }
        congested
    }

    #[doc(alias("shrink_page_list", "shrink_folio_list"))]
    pub(super) fn shrink_page(
        &self,
        sc: &mut ScanControl,
        frame: u32,
        last: &mut LastMapping,
    ) -> Outcome {
        let f = self.frames.get(frame);
        let s = f.state.load();
        if s & HASHED == 0 || s & ORPHAN != 0 {
            // Its last user frees it; with none left, the putback does.
            return Outcome::Keep(Reason::Gone);
        }
        if s & HOLDERS != 0 {
            self.count(Event::Pgactivate, 1);
            return Outcome::Keep(Reason::Held);
        }
        if s & (EXCL | LOADING) != 0 {
            return Outcome::Keep(Reason::Busy);
        }
        if s & WRITEBACK != 0 {
            sc.met.writeback += 1;
            f.state.set(RECLAIM);
            return Outcome::Keep(self.out_of_the_way());
        }
        let kept = self.lru.references_kept;
        if kept != u32::MAX && !sc.lumpy && f.state.take_references() >= kept {
            self.count(Event::Pgactivate, 1);
            if self.lru.ghosts == Ghosts::All {
                self.age.advance(1);
            }
            return Outcome::Keep(Reason::Referenced);
        }
        if s & DIRTY != 0 && planted!(self, ReclaimDirty) {
            self.cancel_dirty_of(frame);
            return self.reclaim_clean(frame, last);
        }
        if s & DIRTY != 0 {
            return self.shrink_dirty(sc, frame, last);
        }
        self.reclaim_clean(frame, last)
    }

    fn out_of_the_way(&self) -> Reason {
        match self.config().policy.writeback_from {
            WritebackFrom::Flusher => Reason::OutOfTheWay,
            _ => Reason::Dirty,
        }
    }

    fn shrink_dirty(&self, sc: &mut ScanControl, frame: u32, last: &mut LastMapping) -> Outcome {
        let policy = &self.config().policy;
        if sc.context == WriteContext::Direct {
            self.count(Event::PgscanDirectDirty, 1);
        }
        let f = self.frames.get(frame);
        match decide_dirty(policy, sc.context, sc.priority) {
            Dirty::Keep => {}
            Dirty::Mark => {
                f.state.set(RECLAIM);
                self.count(Event::NrVmscanImmediateReclaim, 1);
            }
            Dirty::MarkAndActivate => {
                f.state.set(RECLAIM);
                sc.met.dirty += 1;
                self.count(Event::NrVmscanImmediateReclaim, 1);
                return Outcome::Keep(Reason::OutOfTheWay);
            }
            Dirty::Write => {
                if let Some(m) = last.get(self, f.mapping()) {
                    return self.pageout(sc, frame, &m);
                }
            }
        }
        sc.met.dirty += 1;
        Outcome::Keep(Reason::Dirty)
    }

    /// Writes a dirty page from reclaim.
    fn pageout(&self, sc: &mut ScanControl, frame: u32, m: &Arc<Mapping>) -> Outcome {
        if !m.backing.may_write(sc.context) {
            self.count(Event::WriteRefused, 1);
            sc.met.dirty += 1;
            return Outcome::Keep(Reason::OutOfTheWay);
        }
        if !m.may_retry(self.world.now().0) {
            // Its writes fail. One that is tried over and over keeps kswapd busy, and memory no less dirty.
            sc.met.dirty += 1;
            return Outcome::Keep(Reason::Dirty);
        }
        if self.congested() {
            if sc.context == WriteContext::Direct {
                // may_write_to_queue: a direct reclaimer does not queue behind a congested device.
                sc.met.dirty += 1;
                return Outcome::Keep(Reason::Dirty);
            }
            self.nap(CONGESTION_TIMEOUT);
        }
        self.frames.get(frame).state.set(RECLAIM);
        let pages = match self.config().policy.write_unit {
            WriteUnit::Page => 1,
            WriteUnit::Range => self.request_pages_max(m),
        };
        let written = self.write_around(m, frame, pages, sc.context);
        if written == 0 {
            sc.met.dirty += 1;
            return Outcome::Keep(Reason::Dirty);
        }
        sc.met.written += written;
        sc.met.writeback += 1;
        self.count(Event::NrVmscanWrite, written);
        Outcome::Keep(Reason::Dirty)
    }

    /// Claims a clean page and takes it out of the index.
    fn reclaim_clean(&self, frame: u32, last: &mut LastMapping) -> Outcome {
        let f = self.frames.get(frame);
        if !f.state.try_freeze() {
            return Outcome::Keep(Reason::Busy);
        }
        let key = Key {
            mapping: f.mapping(),
            page: f.page(),
        };
        let hash = self.index.hash(key);
        let removed = {
            let mut region = self.index_region(hash);
            if f.state.load() & DIRTY != 0 {
                // A failed flush has made it dirty since the claim.
                drop(region);
                self.release(frame, EXCL, 0);
                return Outcome::Keep(Reason::Busy);
            }
            let removed = region.remove(hash, frame);
            f.state.clear(HASHED);
            removed
        };
        if !removed {
            // Truncation took it out between the claim and the lock, and makes it an orphan: whoever lets go last frees
            // it (FRAME-3).
            self.release(frame, EXCL, 0);
            return Outcome::Keep(Reason::Gone);
        }
        let leaves_shadow = match self.lru.ghosts {
            Ghosts::None => false,
            Ghosts::Inactive => f.state.peek() & ACTIVE == 0,
            Ghosts::All => true,
        };
        if leaves_shadow {
            self.shadows.evict(hash, self.age.advance(1));
        }
        let epoch = f.generation();
        if epoch != 0
            && let Some(m) = last.get(self, key.mapping)
        {
            m.durability
                .lock(&*self.world)
                .note_reclaimed(key.page, epoch);
        }
        if f.state.peek() & WAITERS != 0 {
            self.wake_frame(frame);
        }
        Outcome::Reclaimed
    }

    /// Reclaims one clean page that the caller names: for `evict`. The frame is freed.
    pub(crate) fn reclaim_one(&self, frame: u32) -> bool {
        match self.reclaim_clean(frame, &mut LastMapping::default()) {
            Outcome::Reclaimed => {
                self.free_claimed(frame);
                true
            }
            Outcome::Keep(_) => false,
        }
    }
}

impl LastMapping {
    fn get<W: World>(&mut self, engine: &Engine<W>, id: u32) -> Option<Arc<Mapping>> {
        if self.0.as_ref().is_none_or(|m| m.id != id) {
            self.0 = engine.mapping(id);
        }
        self.0.clone()
    }
}

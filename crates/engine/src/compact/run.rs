//! A run of compaction: the two scanners, and who starts them.

use super::fragmentation::{Suitable, has_room, suitable};
use super::migrate::Moved;
use crate::engine::Engine;
use crate::frame::state::{
    BLOCK, EXCL, EXCL_WAIT, FREE, HASHED, HOLDERS, ISOLATED, LOADING, LRU, ORPHAN, UPTODATE,
    WRITEBACK,
};
use crate::reclaim::CLUSTER;
use crate::trace::Event;
use crate::world::{Work, World};
use crate::zone::Mark;

/// The free scanner takes frames from units of 2^5 frames, or of the block's size if that is more.
const UNIT_ORDER_MIN: u32 = 5;

/// So many frames are looked at in the time of one page that reclaim looks at.
const LOOKS_PER_SCAN: u64 = 64;

/// How an attempt at direct compaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Compacted {
    /// Not tried: it is not the policy, or there is no room for it, or nothing is in pieces.
    Skipped,
    /// Tried in vain, or deferred for earlier failures.
    Failed,
    /// There is a block now.
    Success,
}

/// The scanners of one run, and the frames that it has taken.
struct Run {
    order: u32,
    /// The next frame the migrate scanner looks at: a multiple of 2^order.
    migrate: u32,
    /// The first frame of the unit the free scanner is at. What lies above has been looked at.
    free: u32,
    /// The end of that unit.
    free_end: u32,
    unit: u32,
    /// It has given all that it had.
    exhausted: bool,
    /// Free frames to move pages to (COMPACT-4).
    targets: Vec<u32>,
    /// Frames of the block at hand that are free by now (COMPACT-4).
    held: Vec<u32>,
    /// Pages of that block.
    pages: Vec<u32>,
    /// Pages moved so far.
    moved: u64,
}

/// What a run did.
struct Done {
    /// There is a block.
    made: bool,
    moved: u64,
}

impl Run {
    fn new(order: u32, frames: usize, top: u32) -> Run {
        let unit = 1u32 << order.max(UNIT_ORDER_MIN).min(top);
        let free_end = frames as u32;
        Run {
            order,
            migrate: 0,
            free: (free_end - 1) & !(unit - 1),
            free_end,
            unit,
            exhausted: false,
            targets: Vec::with_capacity(CLUSTER),
            held: Vec::new(),
            pages: Vec::new(),
            moved: 0,
        }
    }

    /// The end of the block that the migrate scanner is at, unless the scanners have met.
    fn block_end(&self) -> Option<u32> {
        let end = self.migrate + (1 << self.order);
        (end <= self.free).then_some(end)
    }

    /// Moves the free scanner down a unit, if that does not bring it to the block at hand (COMPACT-2).
    fn free_scanner_down(&mut self, block_end: u32) -> bool {
        if self.free < block_end + self.unit {
            return false;
        }
        (self.free_end, self.free) = (self.free, self.free - self.unit);
        self.exhausted = false;
        true
    }
}

impl<W: World> Engine<W> {
    /// Are there frames to move the pages of a block of 2^order frames to?
    pub(crate) fn compact_has_room(&self, order: u32) -> bool {
        let low = self.zone.watermarks().at(Mark::Low);
        has_room(order, &self.zone.free_areas(&*self.world), low)
    }

    /// Compacts on the calling task, if the policy moves pages and it is worth a try.
    #[doc(alias("try_to_compact_pages", "__alloc_pages_direct_compact"))]
    pub(crate) fn compact_direct(&self, order: u32) -> Compacted {
        match self.compact_suits(order) {
            Suitable::Done => return Compacted::Success,
            Suitable::NoRoom | Suitable::NotFragmented => return Compacted::Skipped,
            Suitable::Yes => {}
        }
        if self.is_deferred(order) {
            self.count(Event::CompactDeferred, 1);
            return Compacted::Failed;
        }
        self.count(Event::CompactStall, 1);
        if self.compact_noting(order, Mark::Min) {
            self.count(Event::CompactSuccess, 1);
            Compacted::Success
        } else {
            self.count(Event::CompactFail, 1);
            Compacted::Failed
        }
    }

    /// Compacts on kswapd.
    #[doc(alias("kcompactd_do_work", "compact_pgdat"))]
    pub(crate) fn compact_in_background(&self, order: u32) {
        if self.compact_suits(order) == Suitable::Yes && !self.is_deferred(order) {
            self.count(Event::CompactDaemonWake, 1);
            self.compact_noting(order, Mark::High);
        }
    }

    /// Moves pages upwards until as many blocks of 2^order frames are free as can be without giving up a page, whatever the
    /// policy; how many pages it moved. Waits for nobody; takes time in proportion to memory.
    #[doc(alias = "/proc/sys/vm/compact_memory")]
    pub fn compact_memory(&self, order: u32) -> u64 {
        if self.is_unusable() {
            return 0;
        }
        self.world.task().assert_no_locks();
        self.zone.drain(&*self.world);
        let order = order.clamp(1, self.zone.top_order(&*self.world));
        self.compact(order, None).moved
    }

    fn compact_suits(&self, order: u32) -> Suitable {
        if order == 0 || !self.config().policy.high_order.compacts() {
            return Suitable::NoRoom;
        }
        // Frames in the CPUs' caches are nobody's neighbours.
        self.zone.drain(&*self.world);
        let low = self.zone.watermarks().at(Mark::Low);
        suitable(order, &self.zone.free_areas(&*self.world), low)
    }

    fn is_deferred(&self, order: u32) -> bool {
        let mut deferral = self.compaction.deferral.lock(&*self.world);
        deferral.is_deferred(order)
    }

    fn compact_noting(&self, order: u32, mark: Mark) -> bool {
        let made = self.compact(order, Some(mark)).made;
        let mut deferral = self.compaction.deferral.lock(&*self.world);
        if made {
            deferral.note_success(order);
        } else {
            deferral.note_failure(order);
        }
        made
    }

    /// Moves pages until a block of 2^order frames is free above `mark`, or the scanners meet.
    #[doc(alias = "compact_zone")]
    fn compact(&self, order: u32, mark: Option<Mark>) -> Done {
        let top = self.zone.top_order(&*self.world);
        let mut run = Run::new(order, self.frames.len(), top);
        let made = loop {
            if mark.is_some_and(|mark| self.zone.order_ok(&*self.world, order, mark)) {
                break true;
            }
            let Some(end) = run.block_end() else {
                break false;
            };
            if self.stopping() {
                break false;
            }
            let goes_on = !self.may_empty(&mut run, end) || self.empty_block(&mut run, end);
            run.migrate = end;
            if !goes_on {
                break false;
            }
        };
        self.zone.free_to_buddy(&*self.world, &run.targets);
        debug_assert!(run.held.is_empty(), "COMPACT-4: frames are left behind");
        Done {
            made,
            moved: run.moved,
        }
    }

    /// Looks at the block from the migrate scanner to `end`, up to its first frame that is neither free nor holds a page that
    /// may move. True when there is none, and at least one page.
    #[doc(alias = "isolate_migratepages_block")]
    fn may_empty(&self, run: &mut Run, end: u32) -> bool {
        run.pages.clear();
        let mut at = run.migrate;
        let mut fit = true;
        while fit && at < end {
            let s = self.frames.get(at).state.peek();
            at += 1;
            if s & FREE == 0 {
                fit = is_movable(s) || (planted!(self, MoveHeld) && is_movable(s & !HOLDERS));
                run.pages.push(at - 1);
            }
        }
        let looked = u64::from(at - run.migrate);
        self.count(Event::CompactMigrateScanned, looked);
        self.charge_looks(looked);
        fit && !run.pages.is_empty()
    }

    /// Moves the pages of the block out of it. The frames are kept until all are free, lest others take one in between.
    /// False when there is nowhere left to move pages to.
    fn empty_block(&self, run: &mut Run, end: u32) -> bool {
        let block = run.migrate..end;
        let all = block.len();
        self.zone
            .take_free_in(&*self.world, block, run.order, all, &mut run.held);
        let mut room = true;
        // Free frames that were not in the buddy (in a cache, or being taken) are somebody else's.
        let mut whole = run.held.len() + run.pages.len() == all;
        for i in 0..run.pages.len() {
            if !whole {
                break;
            }
            room = self.find_target(run, end);
            let Some(target) = run.targets.pop() else {
                break;
            };
            let page = run.pages[i];
            let moved = self.migrate_page(page, target);
            run.moved += u64::from(moved != Moved::No);
            match moved {
                Moved::Yes => run.held.push(page),
                Moved::FreedByOther => whole = false,
                Moved::No => {
                    run.targets.push(target);
                    whole = false;
                }
            }
        }
        self.count(Event::CompactIsolated, run.held.len() as u64);
        self.zone.free_to_buddy(&*self.world, &run.held);
        run.held.clear();
        room
    }

    /// A word of each frame is read: cheap beside a page that reclaim looks at.
    fn charge_looks(&self, frames: u64) {
        let work = (frames / LOOKS_PER_SCAN) as u32 + 1;
        self.world.charge(Work::Scan, work);
    }

    /// Sees to it that there is a frame to move to. False without.
    #[doc(alias = "isolate_freepages")]
    fn find_target(&self, run: &mut Run, block_end: u32) -> bool {
        while run.targets.is_empty() {
            if run.exhausted && !run.free_scanner_down(block_end) {
                return false;
            }
            let unit = run.free..run.free_end;
            let looked =
                self.zone
                    .take_free_in(&*self.world, unit, run.order, CLUSTER, &mut run.targets);
            self.count(Event::CompactFreeScanned, looked as u64);
            self.charge_looks(looked as u64);
            self.count(Event::CompactIsolated, run.targets.len() as u64);
            run.exhausted = run.targets.len() < CLUSTER;
        }
        true
    }
}

/// May this page move, as far as a look tells?
fn is_movable(s: u64) -> bool {
    let in_use =
        HOLDERS | EXCL | EXCL_WAIT | LOADING | WRITEBACK | ORPHAN | ISOLATED | BLOCK | FREE;
    s & in_use == 0 && s & (HASHED | UPTODATE | LRU) == HASHED | UPTODATE | LRU
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::frame::state::{ACTIVE, DIRTY, ERROR, REF1};

    #[test]
    fn idle_pages_move_clean_or_dirty() {
        let idle = HASHED | UPTODATE | LRU;
        for with in [0, DIRTY, DIRTY | ERROR, ACTIVE | REF1] {
            assert!(is_movable(idle | with), "{with:#x}");
        }
        for with in [1, EXCL, EXCL_WAIT, LOADING, WRITEBACK, ORPHAN, ISOLATED] {
            assert!(!is_movable(idle | with), "{with:#x}");
        }
        for no in [0, FREE, BLOCK, HASHED | UPTODATE, HASHED | LRU] {
            assert!(!is_movable(no), "{no:#x}");
        }
    }

    #[test]
    fn the_scanners_meet_and_never_cross() {
        for (order, frames) in [(1, 100), (4, 512), (5, 33), (9, 2000), (9, 500)] {
            let mut run = Run::new(order, frames, 9);
            let mut steps = 0;
            while let Some(end) = run.block_end() {
                assert!(end <= run.free && run.free_end <= frames as u32);
                if steps % 2 == 0 {
                    run.free_scanner_down(end);
                    assert!(end <= run.free, "COMPACT-2");
                }
                run.migrate = end;
                steps += 1;
            }
            assert!(steps <= frames);
        }
    }
}

//! Frames in a row for pages that go together: a window that is read ahead, the pages of one write.
//!
//! Such pages travel in one request, and neighbours in memory are one segment of it. So a task that needs several frames
//! looks for as many in a row, takes a few of them at a time, and goes on where it was, or with whatever there is: nothing
//! is reclaimed or moved for the sake of a longer row. Few at a time, since what it holds is missing to others: with all
//! that is free above *low* in one reader's hands, writers reclaim more often.
//!
//! **State.** A [`Run`] is on its task's stack. Its frames are in use for ZONE-1 and not yet claimed.
//! **Context.** As for single frames: `alloc_of` may sleep, and does so with an empty run; `alloc_nowait` does not.
//! **Invariants.**
//! - RUN-1: a task does not sleep while it holds frames of a run: it gives them back first, to those who wait.
//! - RUN-2: each frame of a run was above the mark, and nobody was passed, as for a frame that is taken alone (ZONE-3).
//!
//! **Kernel.** `page_cache_ra_order`, `__filemap_get_folio` with an order: large folios, and smaller ones when there are none
//! (`__GFP_NORETRY`). Pages here stay single.
//! **Tests.** `buddy.rs` (property test), `loom/zone.rs`, `crates/lab/tests/segments.rs`.

use super::{Mark, Zone};
use crate::engine::Engine;
use crate::world::{Task, World};
use std::ops::Range;

/// The most frames that a task holds: no more than a CPU's cache fetches.
const HELD_MAX: usize = super::frame_cache::BATCH;

/// No frame has this number.
const NO_GOAL: u32 = u32::MAX;

/// Free frames in a row that a task holds for pages that it is about to make.
#[derive(Debug)]
pub(crate) struct Run {
    frames: Range<u32>,
    /// The frame that would follow the last one given out: a place to start a new row at. A hint.
    goal: u32,
    /// How many pages the task is going to make, those that hold frames here included.
    wanted: usize,
}

impl Run {
    /// For a page alone.
    pub(crate) fn single() -> Run {
        Run {
            frames: 0..0,
            goal: NO_GOAL,
            wanted: 0,
        }
    }

    /// So many pages are still to be made.
    pub(crate) fn want(&mut self, pages: usize) {
        self.wanted = pages;
    }

    /// Would the next frame be better for a goal?
    fn wants_goal(&self) -> bool {
        self.goal == NO_GOAL && self.wanted > 1
    }

    fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

impl Zone {
    /// Takes frames in a row for a task that wants so many, without waiting, while more than `mark` are free (RUN-2).
    pub(super) fn alloc_run<W: World>(
        &self,
        world: &W,
        goal: u32,
        wanted: usize,
        mark: Mark,
    ) -> Option<Range<u32>> {
        if !self.may_pass(world) {
            return None;
        }
        let mut inner = self.inner.lock(world);
        let mark = self.watermarks.at(mark);
        let spare = inner.buddy.free_frames().saturating_sub(mark);
        let run = inner.buddy.alloc_run(goal, wanted, HELD_MAX.min(spare));
        self.assert_left(&inner, run.as_ref().map_or(0, ExactSizeIterator::len), mark);
        self.mirror(&inner);
        run
    }

    /// Takes a frame for a page of a run: the run's next one, or the first of a new row, or a single one.
    #[inline]
    pub(super) fn alloc_for<W: World>(&self, world: &W, run: &mut Run, mark: Mark) -> Option<u32> {
        if run.wanted <= 1 && run.is_empty() {
            return self.alloc_above(world, mark);
        }
        if run.is_empty() {
            match self.alloc_run(world, run.goal, run.wanted, mark) {
                Some(frames) => {
                    let old = world.task().set_flag(Task::RUN);
                    debug_assert!(old & Task::RUN == 0, "RUN-1: a task holds one run");
                    run.frames = frames;
                }
                // What the CPU's cache holds is below every mark already.
                None if self.may_pass(world) => return self.cache(world).pop(world),
                None => return None,
            }
        }
        let frame = run.frames.next();
        run.goal = run.frames.start;
        if run.is_empty() {
            world.task().clear_flag(Task::RUN);
        }
        frame
    }
}

impl<W: World> Engine<W> {
    /// A frame for a page of a run, above the low watermark, without waiting: for readahead.
    pub(crate) fn alloc_nowait(&self, run: &mut Run) -> Option<u32> {
        loop {
            if let Some(frame) = self.zone.alloc_for(&*self.world, run, Mark::Low) {
                return Some(self.claim_free(frame));
            }
            if !self.populate_step() {
                self.wake_kswapd(0);
                return None;
            }
        }
    }

    /// The first frame of a run shall follow that of the page before `page`, if it can.
    pub(crate) fn aim(&self, run: &mut Run, mapping: u32, page: u64) {
        if run.wants_goal()
            && let Some(before) = page.checked_sub(1)
            && let Some(frame) = self.peek_frame(mapping, before)
        {
            run.goal = frame + 1;
        }
    }

    /// Gives back what a task holds and has not claimed: it is done, or it is going to sleep (RUN-1).
    pub(crate) fn put_back(&self, run: &mut Run) {
        let frames = std::mem::take(&mut run.frames);
        if !frames.is_empty() {
            self.world.task().clear_flag(Task::RUN);
            self.zone
                .free_range(&*self.world, frames.start as usize, frames.len());
        }
    }
}

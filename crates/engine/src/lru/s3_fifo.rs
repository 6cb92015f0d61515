//! `s3-fifo`: a small queue of new pages, a main queue of those that were used again, and ghosts of what left the small
//! one. One-hit wonders leave after a tenth of the cache has passed, so that a scan cannot wash out the main queue.
//!
//! A page enters the small queue, or the main one if its ghost is remembered. The next page to go is the small queue's
//! tail while that queue has a tenth of the frames, else the main queue's tail. At the small tail a page with more than
//! one use since it entered moves to the main queue; any other goes, and leaves a ghost. At the main tail a page that was
//! used enters the head again with one use less; any other goes, and leaves none.
//!
//! A ghost is a shadow with its time, counted in ghosts left; it is valid while no more ghosts than nine tenths of the
//! frames were left since, its own included. So the paper implements its ghost queue (section 4.2).
//!
//! **Differences from the paper.** Uses are counted to 2, not 3: that is what look-ups leave. A main queue has no length
//! of its own: what is promoted makes room when the next page is needed. Repeated reads of one page by one task count as
//! one use (`Task::last_page`). The table of shadows forgets some ghosts early, where one of its sets is full.
//!
//! **Invariants.** S3-1: ACTIVE of a listed frame says that it is on the main queue.
//!
//! **Source.** Yang, Zhang, Qiu, Yue, Rashmi: FIFO queues are all you need for cache eviction. SOSP 2023, algorithm 1.
//!
//! **Tests.** Here, against a model of two `Vec`s and a list of ghosts.

use super::list::List;
use super::order::{Frames, Ghosts, Isolated, Lengths, PageOrder, Reason};
use crate::frame::FrameNo;

/// One of so many frames belongs to the small queue.
const SMALL_SHARE: usize = 10;
/// So often one call turns pages over; the lock is held meanwhile.
const TURNS_MAX: usize = 1024;

/// The queues.
#[derive(Default)]
pub(crate) struct S3Fifo {
    small: List,
    main: List,
}

impl S3Fifo {
    fn push_main(&mut self, frames: Frames<'_>, frame: FrameNo) {
        frames.set_active(frame, true);
        self.main.push_head(&frames, frame);
    }

    fn push_small(&mut self, frames: Frames<'_>, frame: FrameNo) {
        frames.set_active(frame, false);
        self.small.push_head(&frames, frame);
    }

    /// The small queue's turn? Algorithm 1's `evict`; a queue that is empty has none.
    fn takes_from_small(&self, frames: Frames<'_>) -> bool {
        self.small.len() >= (frames.len() / SMALL_SHARE).max(1) || self.main.is_empty()
    }

    /// Looks at one page; hands it out, or turns it over. `None`: there is no page.
    fn step(&mut self, frames: Frames<'_>) -> Option<Option<FrameNo>> {
        if self.takes_from_small(frames) {
            let frame = self.small.pop_tail(&frames)?;
            if frames.take_references(frame) > 1 {
                self.push_main(frames, frame);
                return Some(None);
            }
            return Some(Some(frame));
        }
        let frame = self.main.pop_tail(&frames)?;
        match frames.take_references(frame) {
            0 => return Some(Some(frame)),
            1 => {}
            _ => frames.leave_reference(frame),
        }
        self.push_main(frames, frame);
        Some(None)
    }
}

impl PageOrder for S3Fifo {
    fn name(&self) -> &'static str {
        "s3-fifo"
    }

    fn ghosts(&self) -> Ghosts {
        Ghosts::Inactive
    }

    fn refault(&mut self, frames: Frames<'_>, distance: u32) -> bool {
        distance as usize <= frames.len() - frames.len() / SMALL_SHARE
    }

    fn insert(&mut self, frames: Frames<'_>, frame: FrameNo, active: bool) {
        // The fill itself is not a use.
        frames.take_references(frame);
        if active {
            self.push_main(frames, frame);
        } else {
            self.push_small(frames, frame);
        }
    }

    fn isolate(&mut self, frames: Frames<'_>, out: &mut [FrameNo]) -> Isolated {
        let mut done = Isolated::default();
        while done.taken < out.len() && done.looked < TURNS_MAX {
            let Some(step) = self.step(frames) else { break };
            done.looked += 1;
            if let Some(frame) = step {
                out[done.taken] = frame;
                done.taken += 1;
            }
        }
        done
    }

    fn putback(&mut self, frames: Frames<'_>, frame: FrameNo, reason: Reason) {
        match reason {
            Reason::Held | Reason::Referenced | Reason::OutOfTheWay => {
                self.push_main(frames, frame);
            }
            Reason::Busy | Reason::Dirty if frames.is_active(frame) => {
                self.push_main(frames, frame);
            }
            Reason::Busy | Reason::Dirty => self.push_small(frames, frame),
            Reason::Gone | Reason::Written => {
                frames.set_active(frame, false);
                self.small.push_tail(&frames, frame);
            }
        }
    }

    fn remove(&mut self, frames: Frames<'_>, frame: FrameNo) {
        if frames.is_active(frame) {
            self.main.remove(&frames, frame);
        } else {
            self.small.remove(&frames, frame);
        }
    }

    fn lengths(&self) -> Lengths {
        Lengths {
            inactive: self.small.len(),
            active: self.main.len(),
            candidates: self.small.len() + self.main.len(),
            refill: 0,
        }
    }

    fn check_invariants(&self, frames: Frames<'_>) {
        for (list, active) in [(&self.small, false), (&self.main, true)] {
            list.check_invariants(&frames);
            for frame in list.iter_from_tail(&frames) {
                assert_eq!(frames.is_active(frame), active, "S3-1: frame {frame}");
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::frame::state::{LRU, REF1, REF2};
    use crate::frame::{Carver, FrameTable};
    use proptest::prelude::*;

    /// Algorithm 1 from its text: (page, uses), youngest last; ghosts with their times.
    #[derive(Default)]
    struct Model {
        small: Vec<(u64, u32)>,
        main: Vec<(u64, u32)>,
        ghosts: Vec<(u64, u64)>,
        time: u64,
    }

    impl Model {
        /// True on a hit.
        fn access(&mut self, page: u64, capacity: usize) -> bool {
            if let Some(e) = self
                .small
                .iter_mut()
                .chain(&mut self.main)
                .find(|e| e.0 == page)
            {
                e.1 = (e.1 + 1).min(2);
                return true;
            }
            while self.small.len() + self.main.len() >= capacity {
                self.evict(capacity);
            }
            let ghost = self.ghosts.iter().position(|g| g.0 == page);
            let age = ghost.map(|at| self.time - self.ghosts.remove(at).1);
            match age {
                Some(age) if age as usize <= capacity - capacity / 10 => self.main.push((page, 0)),
                _ => self.small.push((page, 0)),
            }
            false
        }

        fn evict(&mut self, capacity: usize) {
            if self.small.len() >= (capacity / 10).max(1) || self.main.is_empty() {
                let (page, uses) = self.small.remove(0);
                if uses > 1 {
                    return self.main.push((page, 0));
                }
                self.ghosts.retain(|g| g.0 != page);
                self.ghosts.push((page, self.time));
                self.time += 1;
            } else {
                let (page, uses) = self.main.remove(0);
                if uses > 0 {
                    self.main.push((page, uses - 1));
                }
            }
        }
    }

    /// The order on a table of frames, with ghosts that forget nothing.
    struct Cache {
        table: FrameTable,
        order: S3Fifo,
        pages: Vec<Option<u64>>,
        ghosts: std::collections::BTreeMap<u64, u64>,
        time: u64,
    }

    impl Cache {
        fn new(capacity: usize) -> Cache {
            Cache {
                table: FrameTable::new(&mut Carver::heap(), capacity),
                order: S3Fifo::default(),
                pages: vec![None; capacity],
                ghosts: Default::default(),
                time: 0,
            }
        }

        fn access(&mut self, page: u64) -> bool {
            let view = Frames::new(&self.table);
            if let Some(at) = self.pages.iter().position(|p| *p == Some(page)) {
                view.leave_reference(FrameNo(at as u32));
                return true;
            }
            let free = match self.pages.iter().position(Option::is_none) {
                Some(free) => FrameNo(free as u32),
                None => {
                    let mut out = [FrameNo(0)];
                    while self.order.isolate(view, &mut out).taken == 0 {}
                    self.table.get(out[0].0).state.clear(LRU);
                    if !view.is_active(out[0]) {
                        let gone = self.pages[out[0].index()].expect("full");
                        self.ghosts.insert(gone, self.time);
                        self.time += 1;
                    }
                    out[0]
                }
            };
            let ghost = self.ghosts.remove(&page).map(|t| (self.time - t) as u32);
            let active = ghost.is_some_and(|d| self.order.refault(view, d));
            self.table.get(free.0).state.clear(REF1 | REF2);
            self.table.get(free.0).state.set(LRU | REF1);
            self.order.insert(view, free, active);
            self.pages[free.index()] = Some(page);
            self.order.check_invariants(view);
            false
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Hit for hit the same as the algorithm's text.
        #[test]
        fn same_as_the_paper(capacity in 1usize..48, skew in 1u64..5, draws in prop::collection::vec(any::<u32>(), 0..2000)) {
            let (mut model, mut cache) = (Model::default(), Cache::new(capacity));
            for (i, draw) in draws.into_iter().enumerate() {
                // Some pages are hotter than others, and every fourth access is part of a scan.
                let hot = u64::from(draw) % 97 / (1 + u64::from(draw >> 16) % skew);
                let page = if i % 4 == 0 { 1000 + i as u64 / 4 % 60 } else { hot };
                prop_assert_eq!(cache.access(page), model.access(page, capacity), "access {} of page {}", i, page);
            }
            let lengths = cache.order.lengths();
            prop_assert_eq!((lengths.inactive, lengths.active), (model.small.len(), model.main.len()));
        }
    }
}

//! `two-list`: an inactive and an active list of file pages, and the refault distance. Linux's order, the default.
//!
//! New pages enter the head of the inactive list, unless their refault distance says that they were part of the working
//! set; then they enter the active list. A page that reclaim finds referenced twice moves to the active list; the
//! first reference is the fill's own. When the active list is longer than the inactive one, its tail is moved over;
//! a page referenced since the last look goes round once more instead.
//!
//! **Invariants.** TWO-1: ACTIVE of a listed frame says which list it is on.
//!
//! **Kernel.** swap.c, `isolate_lru_folios`, `shrink_active_list`, workingset.c. Different: Linux deactivates an active
//! file page even when it was referenced, because its references come from page tables; ours are bits that each look-up
//! sets, so a second chance costs nothing.

use super::list::List;
use super::order::{Frames, Ghosts, Isolated, Lengths, PageOrder, Reason, Refilled};
use super::workingset::belongs_to_the_working_set;
use crate::frame::FrameNo;

/// The two lists.
#[derive(Default)]
pub(crate) struct TwoList {
    inactive: List,
    active: List,
}

impl TwoList {
    fn push_head(&mut self, frames: Frames<'_>, frame: FrameNo, active: bool) {
        frames.set_active(frame, active);
        let list = if active {
            &mut self.active
        } else {
            &mut self.inactive
        };
        list.push_head(&frames, frame);
    }
}

impl PageOrder for TwoList {
    fn name(&self) -> &'static str {
        "two-list"
    }

    fn ghosts(&self) -> Ghosts {
        Ghosts::All
    }

    fn references_kept(&self) -> u32 {
        2
    }

    fn refault(&mut self, _: Frames<'_>, distance: u32) -> bool {
        belongs_to_the_working_set(distance, self.active.len())
    }

    fn insert(&mut self, frames: Frames<'_>, frame: FrameNo, active: bool) {
        self.push_head(frames, frame, active);
    }

    #[doc(alias = "shrink_active_list")]
    fn refill(&mut self, frames: Frames<'_>, n: usize) -> Refilled {
        let mut done = Refilled::default();
        // What goes round enters at the other end: no page is looked at twice.
        for _ in 0..n.min(self.active.len()) {
            let Some(frame) = self.active.pop_tail(&frames) else {
                break;
            };
            let keep = frames.take_references(frame) > 0 || frames.is_held(frame);
            self.push_head(frames, frame, keep);
            done.looked += 1;
            done.deactivated += usize::from(!keep);
        }
        done
    }

    fn isolate(&mut self, frames: Frames<'_>, out: &mut [FrameNo]) -> Isolated {
        let mut n = 0;
        while n < out.len() {
            let Some(frame) = self.inactive.pop_tail(&frames) else {
                break;
            };
            out[n] = frame;
            n += 1;
        }
        Isolated {
            taken: n,
            looked: n,
        }
    }

    fn putback(&mut self, frames: Frames<'_>, frame: FrameNo, reason: Reason) {
        match reason {
            Reason::Held | Reason::Referenced | Reason::OutOfTheWay => {
                self.push_head(frames, frame, true);
            }
            Reason::Busy | Reason::Dirty => self.push_head(frames, frame, false),
            Reason::Gone | Reason::Written => {
                frames.set_active(frame, false);
                self.inactive.push_tail(&frames, frame);
            }
        }
    }

    fn remove(&mut self, frames: Frames<'_>, frame: FrameNo) {
        if frames.is_active(frame) {
            self.active.remove(&frames, frame);
        } else {
            self.inactive.remove(&frames, frame);
        }
    }

    fn lengths(&self) -> Lengths {
        let (inactive, active) = (self.inactive.len(), self.active.len());
        Lengths {
            inactive,
            active,
            candidates: inactive,
            refill: if active > inactive { active } else { 0 },
        }
    }

    fn check_invariants(&self, frames: Frames<'_>) {
        for (list, active) in [(&self.inactive, false), (&self.active, true)] {
            list.check_invariants(&frames);
            for frame in list.iter_from_tail(&frames) {
                assert_eq!(frames.is_active(frame), active, "TWO-1: frame {frame}");
            }
        }
    }
}

//! In which order pages are tried for reclaim: an inactive and an active list of file pages, and the refault distance.
//!
//! New pages enter the head of the inactive list, unless their refault distance says that they were part of the working
//! set; then they enter the active list. A page that reclaim finds referenced twice moves to the active list, one that
//! was referenced once gets another round. When the active list is longer than the inactive one, its tail is moved over;
//! a page referenced since the last look goes round once more instead.
//!
//! **State.** Lists and the flags LRU, ACTIVE, ISOLATED of a frame: the LRU lock (`Rank::Lru`). The lengths are mirrored.
//! **Context.** Any task, completion context included; nothing here sleeps.
//!
//! **Invariants.**
//! - LRU-1: a frame is on a list exactly while LRU is set; ACTIVE says which list.
//! - LRU-2: an isolated frame (ISOLATED, not LRU) is put back or freed by the task that isolated it.
//!
//! **Kernel.** swap.c, `isolate_lru_folios`, workingset.c. Left out: anonymous lists (they come with swap); pagevecs (one
//! lock of short holds serves two cores). Different: Linux deactivates an active file page even when it was referenced,
//! because its references come from page tables; ours are bits that each look-up sets, so a second chance costs nothing.

pub(crate) mod list;
pub(crate) mod workingset;

use crate::frame::state::{ACTIVE, ISOLATED, LRU};
use crate::frame::{FrameTable, LruLinks};
use crate::sync::{AtomicU64, Lock, Ordering, Rank};
use crate::world::World;
use list::List;

/// A list of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LruList {
    /// Tried for reclaim from its tail.
    Inactive,
    /// Feeds the inactive list.
    Active,
}

/// Where an isolated page goes back to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Putback {
    /// Another round on the inactive list.
    InactiveHead,
    /// Next to be tried.
    InactiveTail,
    /// Out of the way, or in use.
    ActiveHead,
}

struct Lists {
    inactive: List,
    active: List,
}

impl Lists {
    fn of(&mut self, list: LruList) -> &mut List {
        match list {
            LruList::Inactive => &mut self.inactive,
            LruList::Active => &mut self.active,
        }
    }
}

/// The lists of one zone.
pub(crate) struct Lru {
    lists: Lock<Lists>,
    nr_inactive: AtomicU64,
    nr_active: AtomicU64,
    nr_isolated: AtomicU64,
}

impl Lru {
    pub(crate) fn new() -> Lru {
        Lru {
            lists: Lock::new(
                Rank::Lru,
                Lists {
                    inactive: List::new(),
                    active: List::new(),
                },
            ),
            nr_inactive: AtomicU64::new(0),
            nr_active: AtomicU64::new(0),
            nr_isolated: AtomicU64::new(0),
        }
    }

    /// Pages on a list. A hint.
    pub(crate) fn len(&self, list: LruList) -> u64 {
        // Relaxed: a hint; mirrors are written under the lock.
        match list {
            LruList::Inactive => self.nr_inactive.load(Ordering::Relaxed),
            LruList::Active => self.nr_active.load(Ordering::Relaxed),
        }
    }

    /// Pages that reclaimers hold isolated. A hint.
    pub(crate) fn isolated(&self) -> u64 {
        // Relaxed: a hint.
        self.nr_isolated.load(Ordering::Relaxed)
    }

    fn mirror(&self, lists: &Lists) {
        // Relaxed: as above.
        self.nr_inactive
            .store(lists.inactive.len() as u64, Ordering::Relaxed);
        self.nr_active
            .store(lists.active.len() as u64, Ordering::Relaxed);
    }

    /// Enters a page that is on no list.
    pub(crate) fn add<W: World>(&self, world: &W, frames: &FrameTable, frame: u32, active: bool) {
        let mut lists = self.lists.lock(world);
        let list = if active {
            LruList::Active
        } else {
            LruList::Inactive
        };
        let old = frames
            .get(frame)
            .state
            .set(if active { LRU | ACTIVE } else { LRU });
        assert!(old & (LRU | ISOLATED) == 0, "LRU-1: added twice");
        lists.of(list).push_head(&LruLinks(frames), frame);
        self.mirror(&lists);
    }

    /// Takes a frame that is about to be freed off its list. False when a reclaimer has it isolated: then that reclaimer
    /// frees it (LRU-2), and `orphan` has been run under the lock to say so.
    pub(crate) fn remove<W: World>(
        &self,
        world: &W,
        frames: &FrameTable,
        frame: u32,
        orphan: impl FnOnce(),
    ) -> bool {
        let state = &frames.get(frame).state;
        if state.peek() & (LRU | ISOLATED) == 0 {
            // The caller owns the frame: nobody adds it, and only what is on a list can be isolated.
            return true;
        }
        let mut lists = self.lists.lock(world);
        let s = state.peek();
        if s & ISOLATED != 0 {
            orphan();
            return false;
        }
        if s & LRU != 0 {
            let list = if s & ACTIVE != 0 {
                LruList::Active
            } else {
                LruList::Inactive
            };
            lists.of(list).remove(&LruLinks(frames), frame);
            state.clear(LRU | ACTIVE);
            self.mirror(&lists);
        }
        true
    }

    /// Takes up to `out.len()` pages off the tail of a list.
    pub(crate) fn isolate<W: World>(
        &self,
        world: &W,
        frames: &FrameTable,
        list: LruList,
        out: &mut [u32],
    ) -> usize {
        let mut lists = self.lists.lock(world);
        let mut n = 0;
        while n < out.len() {
            let Some(frame) = lists.of(list).pop_tail(&LruLinks(frames)) else {
                break;
            };
            let state = &frames.get(frame).state;
            state.set(ISOLATED);
            state.clear(LRU | ACTIVE);
            out[n] = frame;
            n += 1;
        }
        self.mirror(&lists);
        // Relaxed: a hint.
        self.nr_isolated.fetch_add(n as u64, Ordering::Relaxed);
        n
    }

    /// Ends the isolation of pages that were kept. Calls `free` (without the lock) for those that became orphans and that
    /// the caller now has to free.
    pub(crate) fn putback<W: World>(
        &self,
        world: &W,
        frames: &FrameTable,
        pages: &[(u32, Putback)],
        mut free: impl FnMut(u32),
    ) {
        let mut orphans = [0u32; 32];
        for chunk in pages.chunks(orphans.len()) {
            let mut n = 0;
            {
                let mut lists = self.lists.lock(world);
                for (frame, to) in chunk {
                    let (list, flags) = match to {
                        Putback::ActiveHead => (LruList::Active, LRU | ACTIVE),
                        _ => (LruList::Inactive, LRU),
                    };
                    if frames.get(*frame).state.release(ISOLATED, flags).free {
                        // Claimed for freeing: it must not be on a list.
                        frames.get(*frame).state.clear(LRU | ACTIVE);
                        orphans[n] = *frame;
                        n += 1;
                        continue;
                    }
                    let l = lists.of(list);
                    match to {
                        Putback::InactiveTail => l.push_tail(&LruLinks(frames), *frame),
                        _ => l.push_head(&LruLinks(frames), *frame),
                    }
                }
                self.mirror(&lists);
                // Relaxed: a hint.
                self.nr_isolated
                    .fetch_sub(chunk.len() as u64, Ordering::Relaxed);
            }
            orphans[..n].iter().for_each(|f| free(*f));
        }
    }

    /// Ends the isolation of a page that the caller has claimed and frees itself.
    pub(crate) fn forget_isolated(&self, frames: &FrameTable, frame: u32) {
        frames.get(frame).state.clear(ISOLATED);
        // Relaxed: a hint.
        self.nr_isolated.fetch_sub(1, Ordering::Relaxed);
    }

    /// Moves a page whose writeback has ended to the inactive tail, so that reclaim meets it next. True if it was moved.
    pub(crate) fn rotate<W: World>(&self, world: &W, frames: &FrameTable, frame: u32) -> bool {
        let mut lists = self.lists.lock(world);
        let state = &frames.get(frame).state;
        let s = state.peek();
        if s & LRU == 0 {
            return false;
        }
        let from = if s & ACTIVE != 0 {
            LruList::Active
        } else {
            LruList::Inactive
        };
        lists.of(from).remove(&LruLinks(frames), frame);
        state.clear(ACTIVE);
        lists.inactive.push_tail(&LruLinks(frames), frame);
        self.mirror(&lists);
        true
    }

    /// LRU-1 for every frame. No other task is inside.
    pub(crate) fn check_invariants<W: World>(&self, world: &W, frames: &FrameTable) {
        let lists = self.lists.lock(world);
        let links = LruLinks(frames);
        let mut on = vec![0u8; frames.len()];
        for (list, mark) in [(&lists.inactive, 1), (&lists.active, 2)] {
            list.check_invariants(&links);
            for frame in list.iter_from_tail(&links) {
                assert_eq!(
                    on[frame as usize], 0,
                    "LRU-1: frame {frame} is on two lists"
                );
                on[frame as usize] = mark;
            }
        }
        for (i, f) in frames.iter() {
            let s = f.state.peek();
            let want = match (s & LRU != 0, s & ACTIVE != 0) {
                (false, _) => 0,
                (true, false) => 1,
                (true, true) => 2,
            };
            assert_eq!(on[i as usize], want, "LRU-1: frame {i}, state {s:#x}");
        }
    }
}

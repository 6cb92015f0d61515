//! In which order pages are tried for reclaim: an order ([`PageOrder`]) under one lock, and the frames' flags around it.
//!
//! `order.rs` says what an order is; `two_list.rs` is the default, `s3_fifo.rs` another. Here is what is true of each:
//! when a frame is on a list, who isolates it, and what a hit does for an order that wants to know of each.
//!
//! **State.** The order and the flags LRU, ACTIVE, ISOLATED, TOUCH of a frame: the LRU lock (`Rank::Lru`). The lengths
//! are mirrored.
//! **Context.** Any task, completion context included; nothing here sleeps.
//!
//! **Invariants.**
//! - LRU-1: a frame is on a list of the order exactly while LRU is set.
//! - LRU-2: an isolated frame (ISOLATED, not LRU) is put back or freed by the task that isolated it.
//! - LRU-3: a page in the index is on a list or isolated, once the task that put it there has left the engine. Else reclaim
//!   would never meet it.
//!
//! **Kernel.** swap.c, `isolate_lru_folios`, workingset.c. Left out: anonymous lists (they come with swap); batches of single
//! pages that wait in a CPU's hands (`lru_add` of `cpu_fbatches`): pages that come together enter together, those of a
//! request, and a page alone at once.

pub(crate) mod list;
pub(crate) mod order;
mod s3_fifo;
mod two_list;
pub(crate) mod workingset;

use crate::frame::state::{ACTIVE, ISOLATED, LRU, TOUCH};
use crate::frame::{FrameNo, FrameTable};
use crate::sync::{AtomicU64, Lock, Ordering, Rank};
use crate::world::World;
use order::{Frames, Ghosts, Isolated, Lengths, Order, PageOrder, Reason, Refilled};

/// The most pages that enter under one hold of the lock.
const ADD_BATCH: usize = 32;

/// The order of one zone, under its lock.
pub(crate) struct Lru {
    order: Lock<Box<dyn PageOrder>>,
    /// What the order answered at the start; it may not change its mind.
    wants_touch: bool,
    pub(crate) ghosts: Ghosts,
    pub(crate) references_kept: u32,
    nr_inactive: AtomicU64,
    nr_active: AtomicU64,
    nr_candidates: AtomicU64,
    nr_refill: AtomicU64,
    nr_isolated: AtomicU64,
}

impl Lru {
    pub(crate) fn new(order: &Order, frames: usize) -> Lru {
        let order = order.make(frames);
        Lru {
            wants_touch: order.wants_touch(),
            ghosts: order.ghosts(),
            references_kept: order.references_kept(),
            order: Lock::new(Rank::Lru, order),
            nr_inactive: AtomicU64::new(0),
            nr_active: AtomicU64::new(0),
            nr_candidates: AtomicU64::new(0),
            nr_refill: AtomicU64::new(0),
            nr_isolated: AtomicU64::new(0),
        }
    }

    /// How many pages there are. A hint.
    pub(crate) fn lengths(&self) -> Lengths {
        // Relaxed: hints; mirrors are written under the lock.
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed) as usize;
        Lengths {
            inactive: get(&self.nr_inactive),
            active: get(&self.nr_active),
            candidates: get(&self.nr_candidates),
            refill: get(&self.nr_refill),
        }
    }

    /// Pages that reclaimers hold isolated. A hint.
    pub(crate) fn isolated(&self) -> u64 {
        // Relaxed: a hint.
        self.nr_isolated.load(Ordering::Relaxed)
    }

    fn mirror(&self, order: &dyn PageOrder) {
        let l = order.lengths();
        // Relaxed: as above.
        let set = |n: &AtomicU64, to: usize| n.store(to as u64, Ordering::Relaxed);
        set(&self.nr_inactive, l.inactive);
        set(&self.nr_active, l.active);
        set(&self.nr_candidates, l.candidates);
        set(&self.nr_refill, l.refill);
    }

    /// Enters a page that is on no list. With the `distance` of its refault, the order says whether it belongs among the
    /// kept pages: the answer.
    pub(crate) fn add<W: World>(
        &self,
        world: &W,
        frames: &FrameTable,
        frame: u32,
        enter: Enter,
    ) -> bool {
        self.add_run(world, frames, &[frame], |_| enter) > 0
    }

    /// Enters pages that are on no list, in their order; `enter` is asked for each by its place in `pages`, under the lock.
    /// How many belong among the kept pages.
    #[doc(alias = "folio_batch")]
    pub(crate) fn add_run<W: World>(
        &self,
        world: &W,
        frames: &FrameTable,
        pages: &[u32],
        mut enter: impl FnMut(usize) -> Enter,
    ) -> u64 {
        let flags = if self.wants_touch { LRU | TOUCH } else { LRU };
        let view = Frames::new(frames);
        let mut kept = 0;
        for (n, chunk) in pages.chunks(ADD_BATCH).enumerate() {
            let mut order = self.order.lock(world);
            for (i, frame) in chunk.iter().enumerate() {
                let active = match enter(n * ADD_BATCH + i) {
                    Enter::New => false,
                    Enter::Refault(distance) => order.refault(view, distance),
                    Enter::Copy { active } => active,
                };
                let old = frames.get(*frame).state.set(flags);
                assert!(old & (LRU | ISOLATED) == 0, "LRU-1: added twice");
                order.insert(view, FrameNo(*frame), active);
                kept += u64::from(active);
            }
            self.mirror(&**order);
        }
        kept
    }

    /// Tells the order of a hit on a frame that carries TOUCH and that the caller holds. A frame that a reclaimer has
    /// isolated is not on a list: it finds the holder, or its page has just been tried and stays where putback puts it.
    pub(crate) fn touch<W: World>(&self, world: &W, frames: &FrameTable, frame: u32) {
        let mut order = self.order.lock(world);
        if frames.get(frame).state.peek() & LRU != 0 {
            order.touch(Frames::new(frames), FrameNo(frame));
            self.mirror(&**order);
        }
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
        let mut order = self.order.lock(world);
        let s = state.peek();
        if s & ISOLATED != 0 {
            orphan();
            return false;
        }
        if s & LRU != 0 {
            order.remove(Frames::new(frames), FrameNo(frame));
            state.clear(LRU | ACTIVE);
            self.mirror(&**order);
        }
        true
    }

    /// Lets the order look at up to `n` of the pages it keeps.
    pub(crate) fn refill<W: World>(&self, world: &W, frames: &FrameTable, n: usize) -> Refilled {
        let mut order = self.order.lock(world);
        let done = order.refill(Frames::new(frames), n);
        self.mirror(&**order);
        done
    }

    /// Takes up to `out.len()` pages in the order of reclaim.
    pub(crate) fn isolate<W: World>(
        &self,
        world: &W,
        frames: &FrameTable,
        out: &mut [FrameNo],
    ) -> Isolated {
        let mut order = self.order.lock(world);
        let done = order.isolate(Frames::new(frames), out);
        for frame in &out[..done.taken] {
            let state = &frames.get(frame.0).state;
            state.set(ISOLATED);
            let old = state.clear(LRU);
            assert!(old & LRU != 0, "ORDER-1: frame {frame} is on no list");
        }
        self.mirror(&**order);
        // Relaxed: a hint.
        self.nr_isolated
            .fetch_add(done.taken as u64, Ordering::Relaxed);
        done
    }

    /// Takes those of the frames `range` that are on a list, wherever they stand in the order: for lumpy reclaim.
    pub(crate) fn isolate_range<W: World>(
        &self,
        world: &W,
        frames: &FrameTable,
        range: std::ops::Range<u32>,
        out: &mut Vec<FrameNo>,
    ) {
        let mut order = self.order.lock(world);
        let before = out.len();
        for frame in range {
            let state = &frames.get(frame).state;
            if state.peek() & LRU == 0 {
                continue;
            }
            order.remove(Frames::new(frames), FrameNo(frame));
            state.set(ISOLATED);
            state.clear(LRU);
            out.push(FrameNo(frame));
        }
        self.mirror(&**order);
        // Relaxed: a hint.
        self.nr_isolated
            .fetch_add((out.len() - before) as u64, Ordering::Relaxed);
    }

    /// Ends the isolation of pages that were kept. Calls `free` (without the lock) for those that became orphans and that
    /// the caller now has to free.
    pub(crate) fn putback<W: World>(
        &self,
        world: &W,
        frames: &FrameTable,
        pages: &[(FrameNo, Reason)],
        mut free: impl FnMut(u32),
    ) {
        let mut orphans = [0u32; 32];
        for chunk in pages.chunks(orphans.len()) {
            let mut n = 0;
            {
                let mut order = self.order.lock(world);
                for (frame, reason) in chunk {
                    let state = &frames.get(frame.0).state;
                    if state.release(ISOLATED, LRU).free {
                        // Claimed for freeing: it must not be on a list.
                        state.clear(LRU | ACTIVE);
                        orphans[n] = frame.0;
                        n += 1;
                        continue;
                    }
                    order.putback(Frames::new(frames), *frame, *reason);
                }
                self.mirror(&**order);
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

    /// Moves a page whose writeback has ended so that reclaim meets it next. True if it was moved.
    pub(crate) fn rotate<W: World>(&self, world: &W, frames: &FrameTable, frame: u32) -> bool {
        let mut order = self.order.lock(world);
        if frames.get(frame).state.peek() & LRU == 0 {
            return false;
        }
        let view = Frames::new(frames);
        order.remove(view, FrameNo(frame));
        order.putback(view, FrameNo(frame), Reason::Written);
        self.mirror(&**order);
        true
    }

    /// LRU-1 and ORDER-2 for every frame. No other task is inside.
    pub(crate) fn check_invariants<W: World>(&self, world: &W, frames: &FrameTable) {
        let order = self.order.lock(world);
        order.check_invariants(Frames::new(frames));
        let listed = frames.iter().filter(|(_, f)| f.state.peek() & LRU != 0);
        let lengths = order.lengths();
        assert_eq!(
            lengths.inactive + lengths.active,
            listed.count(),
            "LRU-1, ORDER-2: frames on lists of {}",
            order.name()
        );
    }
}

/// How a page enters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Enter {
    /// Nothing is remembered of it.
    New,
    /// It was evicted so many ticks ago.
    Refault(u32),
    /// In the place of another frame of the page.
    Copy { active: bool },
}

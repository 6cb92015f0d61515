//! Blocks: 2^order frames in a row, lent to a user as scratch memory and counted in the budget.
//!
//! A file's page is one frame. What must lie in a row (a large I/O buffer, a table, a kernel's stack of two pages, a huge
//! page) needs a block, and a block needs free neighbours: this is the allocation that fails while half of memory is free.
//!
//! ```text
//! a block above low ─► taken          nothing is waited for
//! ring for kswapd with the order (not with `thp`) ─► a block above min ─► taken
//! else, in turn: compaction ─► direct reclaim for the order (lumpy, by policy) ─► again, or a last compaction
//! ```
//!
//! **State.** `block_frames` of the engine: frames in blocks, an atomic. The frames carry BLOCK.
//! **Context.** `alloc_block`: a task without locks; may sleep unless told not to. Dropping: anywhere outside of the engine.
//!
//! **Invariants.**
//! - BLOCK-1: a frame carries BLOCK exactly while a live `Block` owns it; it is then no page, and nobody else reaches it.
//! - BLOCK-2: an allocation ends: at its time-out and the naps of one priority of reclaim (0.2 s), after
//!   [`NO_PROGRESS_MAX`] rounds in a row that freed nothing, and above order [`COSTLY_ORDER`] once as many pages were
//!   reclaimed as the block has, and there was room to move pages.
//!
//! **Kernel.** `__alloc_pages_slowpath`, `should_alloc_retry`, `should_reclaim_retry`; `__GFP_NORETRY` and the rule for
//! transparent huge pages. Different: a failure is a typed error at every order; nothing is killed.
//! **Tests.** `crates/lab/tests/high_order.rs`; `loom/compact.rs`.
#![allow(unsafe_code)]

use super::{Mark, note_stall};
use crate::compact::Compacted;
use crate::engine::Engine;
use crate::error::{Error, NoBlockReport};
use crate::frame::state::BLOCK;
use crate::sync::Ordering;
use crate::trace::Event;
use crate::world::{Nanos, Task, Work, World};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Above this order a block is not worth any effort (PAGE_ALLOC_COSTLY_ORDER).
#[doc(alias = "PAGE_ALLOC_COSTLY_ORDER")]
pub(crate) const COSTLY_ORDER: u32 = 3;
/// Rounds in a row that free nothing before an allocation gives up (MAX_RECLAIM_RETRIES).
const NO_PROGRESS_MAX: u32 = 16;
/// The pause after a round that freed nothing while nothing is in flight (a jiffy).
const TICK: Nanos = Nanos::from_millis(1);

/// How long an allocation of a block goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockWait {
    /// It takes what is free, and never sleeps (`GFP_NOWAIT`).
    Never,
    /// One compaction and one reclaim, in the order in which they make sense, then it gives up (`__GFP_NORETRY`).
    Once,
    /// Again and again: up to order 3 while pages are freed; above that until as many were freed as the block has, and,
    /// where pages are moved, until there is room for that.
    Retry,
}

/// What an allocation of a block may do.
///
/// ```
/// use highwater_engine::{BlockOptions, BlockWait, Nanos};
/// let mut options = BlockOptions::patient();
/// options.timeout = Nanos::from_millis(50);
/// assert_eq!(BlockOptions::thp().wait, BlockWait::Once);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockOptions {
    /// How long it goes on.
    pub wait: BlockWait,
    /// Ring for kswapd, which then works for this order (not `__GFP_NO_KSWAPD`).
    pub wake_kswapd: bool,
    /// The most it waits in all. A round that is under way is ended, which may take two seconds more on a device that
    /// does not answer.
    pub timeout: Nanos,
}

impl BlockOptions {
    /// As a caller has it that needs the block: kswapd is woken, and it retries, for at most 10 s.
    pub const fn patient() -> BlockOptions {
        BlockOptions {
            wait: BlockWait::Retry,
            wake_kswapd: true,
            timeout: Nanos::from_secs(10),
        }
    }

    /// As a transparent huge page is asked for: one compaction, one reclaim, kswapd is left alone.
    #[doc(alias("GFP_TRANSHUGE", "__GFP_NO_KSWAPD"))]
    pub const fn thp() -> BlockOptions {
        BlockOptions {
            wait: BlockWait::Once,
            wake_kswapd: false,
            timeout: Nanos::from_secs(10),
        }
    }

    /// What is free now, or nothing; kswapd is woken.
    pub const fn nowait() -> BlockOptions {
        BlockOptions {
            wait: BlockWait::Never,
            wake_kswapd: true,
            timeout: Nanos(0),
        }
    }
}

impl Default for BlockOptions {
    fn default() -> BlockOptions {
        BlockOptions::patient()
    }
}

/// 2^order frames in a row, aligned to their size. Derefs to their bytes, which are anything at first. Freed on drop.
///
/// It keeps its cache's memory alive; [`Engine::close`] fails with `StillPinned` while there is one.
pub struct Block<W: World> {
    engine: Arc<Engine<W>>,
    first: u32,
    order: u32,
}

/// What a slow allocation has done so far.
struct Effort {
    start: Nanos,
    reclaimed: u64,
    idle_rounds: u32,
}

impl<W: World> Engine<W> {
    /// A block of 2^order frames. Order 0 is a single frame, got as a page is.
    ///
    /// # Errors
    /// `NoBlock` when the allowed effort made none; `Config` for an order above 2 MiB; `OutOfMemory`, `AllPinned` for
    /// order 0; `Closed`, `Forked`. May sleep, as `options` says.
    #[doc(alias("alloc_pages", "__get_free_pages"))]
    pub fn alloc_block(
        self: &Arc<Self>,
        order: u32,
        options: BlockOptions,
    ) -> Result<Block<W>, Error> {
        self.usable()?;
        self.world.charge(Work::Hit, 1);
        let top = self.zone.top_order(&*self.world);
        if order > top {
            return Err(Error::Config(format!(
                "order {order} is above {top}: a block has at most 2^{top} frames, {} bytes; ask for several",
                self.memory.frame_size() << top
            )));
        }
        let first = match self.take_block(order, Mark::Low) {
            Some(first) => first,
            None => self.alloc_block_slow(order, options)?,
        };
        if order > 0 {
            self.count(Event::BlockAlloc, 1);
        }
        Ok(Block {
            engine: self.clone(),
            first,
            order,
        })
    }

    /// Frames in blocks that users hold.
    pub(crate) fn nr_block_frames(&self) -> u64 {
        // Relaxed: a count for reports, and for `close`, whose caller has dropped its own blocks.
        self.block_frames.load(Ordering::Relaxed)
    }

    /// A block above `mark`, if there is one.
    fn take_block(&self, order: u32, mark: Mark) -> Option<u32> {
        let first = self.zone.alloc_order(&*self.world, order, mark)?;
        for frame in first..first + (1 << order) {
            self.claim_free(frame);
        }
        self.own_block(first, order);
        Some(first)
    }

    /// Claimed frames become a block (BLOCK-1).
    fn own_block(&self, first: u32, order: u32) {
        for frame in first..first + (1 << order) {
            self.frames.get(frame).state.set(BLOCK);
        }
        // Relaxed: see `nr_block_frames`.
        self.block_frames.fetch_add(1 << order, Ordering::Relaxed);
    }

    fn free_block(&self, first: u32, order: u32) {
        for frame in first..first + (1 << order) {
            self.retire(frame);
        }
        // Relaxed: see `nr_block_frames`.
        self.block_frames.fetch_sub(1 << order, Ordering::Relaxed);
        self.zone
            .free_range(&*self.world, first as usize, 1 << order);
    }

    #[cold]
    fn alloc_block_slow(&self, order: u32, options: BlockOptions) -> Result<u32, Error> {
        let task = self.world.task();
        task.assert_no_locks();
        let start = self.world.now();
        let result = self.alloc_block_trying(task, order, options, start);
        let stalled = self.world.now().since(start);
        self.count(Event::BlockStallNs, stalled.0);
        note_stall(task, &task.stall_alloc_ns, stalled);
        if result.is_err() && order > 0 {
            self.count(Event::BlockAllocFailed, 1);
        }
        result
    }

    fn alloc_block_trying(
        &self,
        task: &Task,
        order: u32,
        options: BlockOptions,
        start: Nanos,
    ) -> Result<u32, Error> {
        let mut effort = Effort {
            start,
            reclaimed: 0,
            idle_rounds: 0,
        };
        while self.populate_step() {
            self.count(Event::PopulateDirect, 1);
            if let Some(first) = self.take_block(order, Mark::Low) {
                return Ok(first);
            }
        }
        if options.wake_kswapd {
            self.wake_kswapd(order);
        }
        // Frames in the CPUs' caches are nobody's neighbours.
        self.zone.drain(&*self.world);
        if let Some(first) = self.take_block(order, Mark::Min) {
            return Ok(first);
        }
        if options.wait == BlockWait::Never || task.has(Task::MEMALLOC) {
            return Err(self.no_block(order, &effort));
        }
        if order == 0 {
            let frame = self.alloc_page()?;
            self.own_block(frame, 0);
            return Ok(frame);
        }
        loop {
            self.world.charge(Work::AllocSlow, 1);
            let compacted = self.compact_direct(order);
            if compacted == Compacted::Success
                && let Some(first) = self.take_block(order, Mark::Min)
            {
                return Ok(first);
            }
            let got = self.direct_reclaim(order, start.plus(options.timeout));
            effort.reclaimed += got;
            self.count(Event::BlockReclaimed, got);
            self.zone.drain(&*self.world);
            if let Some(first) = self.take_block(order, Mark::Min) {
                return Ok(first);
            }
            let moved = compacted == Compacted::Success || got > 0;
            effort.idle_rounds = if moved { 0 } else { effort.idle_rounds + 1 };
            // A compaction that had no room has not been the one that a caller without patience has.
            let last = match options.wait {
                BlockWait::Retry => self.block_effort_ends(order, &options, &effort),
                _ => true,
            };
            if last {
                let owed = options.wait == BlockWait::Retry || compacted == Compacted::Skipped;
                return self.last_compaction(order, owed, &effort);
            }
            if options.wake_kswapd {
                self.wake_kswapd(order);
            }
            if !moved {
                self.block_pause(start.plus(options.timeout));
            }
        }
    }

    /// Reclaim that made room for compaction would be in vain without one after it.
    fn last_compaction(&self, order: u32, owed: bool, effort: &Effort) -> Result<u32, Error> {
        let made = owed && self.compact_direct(order) == Compacted::Success;
        let block = made.then(|| self.take_block(order, Mark::Min)).flatten();
        block.ok_or_else(|| self.no_block(order, effort))
    }

    /// BLOCK-2.
    #[doc(alias("should_alloc_retry", "should_reclaim_retry"))]
    fn block_effort_ends(&self, order: u32, options: &BlockOptions, effort: &Effort) -> bool {
        self.stopping()
            || effort.idle_rounds >= NO_PROGRESS_MAX
            || (order > COSTLY_ORDER && effort.reclaimed >= 1 << order && self.could_compact(order))
            || self.world.now().since(effort.start) >= options.timeout
    }

    /// Had compaction the room that it needs, or is it not to be used?
    fn could_compact(&self, order: u32) -> bool {
        !self.config().policy.high_order.compacts() || self.compact_has_room(order)
    }

    /// Until a write ends, if any is to end; else a moment.
    fn block_pause(&self, until: Nanos) {
        let now = self.world.now();
        if self.in_flight() > 0 || self.nr_dirty() > 0 {
            self.kick_flushers();
            self.nap(until.since(now).min(Nanos::from_millis(100)));
        }
        if self.world.now() == now {
            self.world.park(now.plus(TICK));
        }
    }

    fn no_block(&self, order: u32, effort: &Effort) -> Error {
        let areas = self.zone.free_areas(&*self.world);
        Error::NoBlock(Box::new(NoBlockReport {
            order,
            free: areas.free as u64,
            largest: areas.largest(),
            fragmentation_index: crate::compact::fragmentation_index(order, &areas),
            reclaimed: effort.reclaimed,
            waited: self.world.now().since(effort.start),
        }))
    }
}

impl<W: World> Block<W> {
    /// Its order: it has 2^order frames.
    pub fn order(&self) -> u32 {
        self.order
    }

    /// The number of its first frame, a multiple of 2^order.
    pub fn frame(&self) -> u32 {
        self.first
    }

    fn frames(&self) -> usize {
        1 << self.order
    }
}

impl<W: World> Deref for Block<W> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: BLOCK-1: the block owns its frames, and `&self` keeps writers out.
        unsafe { self.engine.memory.block(self.first, self.frames()) }
    }
}

impl<W: World> DerefMut for Block<W> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: BLOCK-1: the block owns its frames, and `&mut self` makes the slice the only one.
        unsafe { self.engine.memory.block_mut(self.first, self.frames()) }
    }
}

impl<W: World> Drop for Block<W> {
    fn drop(&mut self) {
        // In a forked child nothing of the parent's cache is freed.
        if !self.engine.world.is_forked() {
            self.engine.free_block(self.first, self.order);
        }
    }
}

impl<W: World> std::fmt::Debug for Block<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block")
            .field("frame", &self.first)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

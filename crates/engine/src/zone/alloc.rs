//! The allocation slow path: populate, wake kswapd, reclaim, wait for a hand-off, and say in the end who holds what.
//!
//! ```text
//! above min ─► frame            below low: wake kswapd
//! else: populate 2 MiB ─► direct reclaim (as the policy has it) ─► queue for a hand-off ─► again
//! ```
//! It ends without a frame only when for the whole deadline nobody made progress and nothing was in flight.
//!
//! **Kernel.** __alloc_pages_slowpath, should_reclaim_retry, out_of_memory.

use super::{Mark, Run, Ticket};
use crate::engine::Engine;
use crate::error::Error;
use crate::frame::state::{FREE, State};
use crate::sync::Ordering;
use crate::trace::Event;
use crate::world::{Nanos, Task, Work, World};

/// An allocation, or a pause of a writer, made while holding guards fails after so long without any progress.
pub(crate) const PINNED_TIMEOUT: Nanos = Nanos::from_millis(100);
/// How long one turn waits for a hand-off.
const TURN: Nanos = Nanos::from_millis(50);

impl<W: World> Engine<W> {
    /// A frame for a page: owned by the caller alone, on no list, in no index. Its bytes are anything.
    ///
    /// # Errors
    /// `OutOfMemory`, `AllPinned`. May sleep.
    #[doc(alias("__alloc_pages", "__alloc_pages_slowpath"))]
    pub(crate) fn alloc_page(&self) -> Result<u32, Error> {
        self.alloc_of(&mut Run::single())
    }

    /// As `alloc_page`, for a page of a run. The run is empty while it sleeps (RUN-1).
    ///
    /// # Errors
    /// As `alloc_page`.
    pub(crate) fn alloc_of(&self, run: &mut Run) -> Result<u32, Error> {
        if let Some(frame) = self.zone.alloc_for(&*self.world, run, Mark::Min) {
            if self.zone.below(Mark::Low) {
                self.wake_kswapd(0);
            }
            return Ok(self.claim_free(frame));
        }
        let task = self.world.task();
        task.assert_no_locks();
        if task.has(Task::MEMALLOC) && self.guards_recursion(task) {
            return self.alloc_reserve();
        }
        self.alloc_slow(task, run)
    }

    /// RECLAIM-1: may a task that carries MEMALLOC not reclaim? With the guard off (the lab's), one that reclaims already may
    /// once more; completions never may.
    fn guards_recursion(&self, task: &Task) -> bool {
        self.config().recursion_guard || !(task.has(Task::RECLAIM) || task.has(Task::KSWAPD))
    }

    /// A frame from the reserve: for a task that must make progress with no free memory (PF_MEMALLOC).
    pub(crate) fn alloc_reserve(&self) -> Result<u32, Error> {
        match self.zone.alloc_reserve(&*self.world) {
            Some(frame) => Ok(self.claim_free(frame)),
            None => Err(self.out_of_memory(self.world.now())),
        }
    }

    /// A free frame becomes an owned one.
    pub(crate) fn claim_free(&self, frame: u32) -> u32 {
        let state: &State = &self.frames.get(frame).state;
        assert!(
            state.peek() & FREE != 0,
            "ZONE-1: frame {frame} given twice"
        );
        state.reset(0);
        self.count(Event::Pgalloc, 1);
        frame
    }

    /// Gives back an owned frame that never became a page.
    pub(crate) fn free_page(&self, frame: u32) {
        self.retire(frame);
        self.zone.free_one(&*self.world, frame);
    }

    /// Populates one step, if any is left. True when it did.
    pub(crate) fn populate_step(&self) -> bool {
        let Some((first, count)) = self.zone.claim_unpopulated() else {
            return false;
        };
        self.memory.populate(first, count);
        self.zone.free_range(&*self.world, first, count);
        true
    }

    #[cold]
    fn alloc_slow(&self, task: &Task, run: &mut Run) -> Result<u32, Error> {
        while self.populate_step() {
            self.count(Event::PopulateDirect, 1);
            if let Some(frame) = self.zone.alloc_for(&*self.world, run, Mark::Min) {
                return Ok(self.claim_free(frame));
            }
        }
        let start = self.world.now();
        let result = self.alloc_reclaiming(task, run, start);
        let stalled = self.world.now().since(start);
        self.count(Event::AllocStallNs, stalled.0);
        note_stall(task, &task.stall_alloc_ns, stalled);
        result
    }

    fn alloc_reclaiming(&self, task: &Task, run: &mut Run, start: Nanos) -> Result<u32, Error> {
        let mut progress = self.progress();
        let mut progress_at = start;
        loop {
            self.world.charge(Work::AllocSlow, 1);
            self.wake_kswapd(0);
            self.direct_reclaim(0, Nanos(u64::MAX));
            if let Some(frame) = self.zone.alloc_for(&*self.world, run, Mark::Min) {
                return Ok(self.claim_free(frame));
            }
            if let Some(frame) = self.wait_for_frame() {
                return Ok(frame);
            }
            let now = self.world.now();
            let seen = self.progress();
            if seen != progress {
                progress = seen;
                progress_at = now;
                continue;
            }
            let idle = now.since(progress_at);
            let in_flight = self.in_flight() > 0;
            if idle >= PINNED_TIMEOUT
                && !in_flight
                && !planted!(self, PinnedHang)
                && let Some(e) = self.all_pinned(task)
            {
                self.count(Event::AllocRefused, 1);
                return Err(e);
            }
            let limit = if in_flight {
                self.config().io_timeout.max(self.config().alloc_timeout)
            } else {
                self.config().alloc_timeout
            };
            if idle >= limit {
                self.count(Event::AllocRefused, 1);
                return Err(self.out_of_memory(start));
            }
        }
    }

    /// The error of a task that would wait for itself: it holds guards.
    pub(crate) fn all_pinned(&self, task: &Task) -> Option<Error> {
        // Relaxed: our own count.
        let mine = task.guards.load(Ordering::Relaxed);
        let others = || self.count_held().saturating_sub(mine);
        (mine > 0).then(|| Error::AllPinned {
            mine,
            others: others(),
        })
    }

    /// Queues for a frame and sleeps until one is handed over or the turn is over.
    pub(crate) fn wait_for_frame(&self) -> Option<u32> {
        self.count(Event::AllocWaits, 1);
        self.kick_flushers();
        let until = self.world.now().plus(TURN);
        let ticket: Ticket = self.zone.queue(&*self.world);
        let frame = loop {
            if let Some(frame) = self.zone.granted(&*self.world, ticket) {
                break Some(frame);
            }
            if self.world.now() >= until {
                break self.zone.leave(&*self.world, ticket);
            }
            self.park_or_reap(until);
        };
        let frame = frame?;
        if planted!(self, GivenTwice) {
            self.zone.free_to_buddy(&*self.world, &[frame]);
        }
        self.count(Event::AllocHandoffs, 1);
        Some(self.claim_free(frame))
    }

    /// A number that changes whenever anybody frees a frame or completes a write.
    fn progress(&self) -> u64 {
        self.stat.get(Event::Pgfree) + self.stat.get(Event::NrWritten)
    }
}

/// Adds a stall to a task's own account.
pub(crate) fn note_stall(task: &Task, total: &crate::sync::hint::AtomicU64, stalled: Nanos) {
    // Relaxed: written by this task only.
    total.store(total.load(Ordering::Relaxed) + stalled.0, Ordering::Relaxed);
    if stalled.0 > task.stall_longest_ns.load(Ordering::Relaxed) {
        task.stall_longest_ns.store(stalled.0, Ordering::Relaxed);
    }
}

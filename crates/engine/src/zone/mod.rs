//! Free frames: the buddy allocator, the caches per CPU, the watermarks, and who gets a frame when there are few.
//!
//! Three contexts allocate: `alloc_page` may wait and reclaim; `alloc_nowait` takes what is above low, or nothing; a task
//! that carries MEMALLOC (a reclaimer, the I/O path) may go below min. Backings borrow frames in the first or the last
//! (`lent.rs`).
//!
//! A task takes a frame from its CPU's cache, which refills from the buddy in batches. Below *low* kswapd is woken;
//! below *min* only reclaimers and the I/O path may take (the reserve). A task that finds nothing queues here, and frames
//! that are freed are handed to the queue's head in batches, under the one lock that also queues: a frame is in the
//! buddy, in a cache, granted to one waiter, or in use, and nowhere twice. Blocks of frames in a row (`order.rs`,
//! `block.rs`) come from the buddy alone, and so do frames for pages that go together (`run.rs`).
//!
//! **State.** `inner` (buddy, waiters): `Rank::Zone`. A frame cache: `Rank::FrameCache`. `free` mirrors the buddy's
//! count, written under the zone lock, read without.
//! **Lock order.** FrameCache before Zone.
//! **Context.** `alloc_fast` and `free_batch`: anyone, completion context included. `queue_wait`: a task without locks.
//!
//! **Invariants.**
//! - ZONE-1: buddy + caches + granted + in use + not yet populated = all frames.
//! - ZONE-2: a granted frame is taken by its waiter, even after its deadline, or goes back: never lost, never given twice.
//! - ZONE-3: while the oldest waiter is older than 1 ms no newcomer takes a frame before it (reclaimers excepted).
//! - ZONE-4, ZONE-5: of blocks; stated in `order.rs`. RUN-1, RUN-2: of runs; stated in `run.rs`.
//! - ZONE-6: who takes frames above a mark leaves as many as the mark says; waiters leave half of min.
//!
//! **Kernel.** page_alloc.c; the hand-off to waiters is ours (Linux's allocators race for freed pages).
//! **Tests.** Unit tests beside each file; `loom/zone.rs`.

mod alloc;
mod block;
pub(crate) mod buddy;
mod order;
pub(crate) mod watermark;

mod frame_cache;
mod lent;
mod run;
mod waiters;

use crate::sync::{AtomicU64, AtomicUsize, Lock, Ordering, Rank};
use crate::world::{Nanos, TaskId, World};
use buddy::Buddy;
use frame_cache::FrameCache;
use waiters::Waiters;
use watermark::Watermarks;

pub(crate) use alloc::{PINNED_TIMEOUT, note_stall};
pub(crate) use block::COSTLY_ORDER;
pub use block::{Block, BlockOptions, BlockWait};
#[cfg(all(test, not(loom)))]
pub(crate) use lent::heap;
pub use lent::{LendContext, LentFrame, PageSource};
pub(crate) use order::FreeAreas;
pub(crate) use run::Run;
pub(crate) use waiters::Ticket;
pub(crate) use watermark::Mark;

/// A waiter older than this is served before any newcomer (ZONE-3).
const PASSING_MAX: Nanos = Nanos::from_millis(1);

struct Inner {
    buddy: Buddy,
    waiters: Waiters,
}

/// The free memory of one zone.
#[doc(alias("struct zone", "page_alloc"))]
pub(crate) struct Zone {
    inner: Lock<Inner>,
    /// Frames in the buddy.
    free: AtomicU64,
    /// When the oldest waiter came, 0 without one.
    oldest_waiter_ns: AtomicU64,
    caches: Box<[FrameCache]>,
    watermarks: Watermarks,
    frames: usize,
    /// The first frame that nobody has begun to populate.
    populated_to: AtomicUsize,
    populate_step: usize,
}

impl Zone {
    /// A zone of `frames` frames, none populated yet; `top_order` frames make 2 MiB.
    pub(crate) fn new(frames: usize, top_order: u32, watermarks: Watermarks, cpus: usize) -> Zone {
        let cpus = cpus.clamp(1, 64);
        // At most 1/64 of memory in all caches together.
        let per_cpu = (frames / 64 / cpus).min(frame_cache::SLOTS);
        Zone {
            inner: Lock::new(
                Rank::Zone,
                Inner {
                    buddy: Buddy::new(frames, top_order),
                    waiters: Waiters::new(),
                },
            ),
            free: AtomicU64::new(0),
            oldest_waiter_ns: AtomicU64::new(0),
            caches: (0..cpus).map(|_| FrameCache::new(per_cpu)).collect(),
            watermarks,
            frames,
            populated_to: AtomicUsize::new(0),
            populate_step: 1 << top_order,
        }
    }

    pub(crate) fn watermarks(&self) -> &Watermarks {
        &self.watermarks
    }

    /// Are there fewer free frames than a mark? A hint.
    pub(crate) fn below(&self, mark: Mark) -> bool {
        self.nr_free() < self.watermarks.at(mark) as u64
    }

    /// Free frames in the buddy. A hint.
    pub(crate) fn nr_free(&self) -> u64 {
        // Relaxed: a hint; decisions are repeated under the lock.
        self.free.load(Ordering::Relaxed)
    }

    /// Frames in the caches of all CPUs.
    pub(crate) fn nr_cached<W: World>(&self, world: &W) -> u64 {
        self.caches.iter().map(|c| c.len(world)).sum()
    }

    /// Frames not yet populated.
    pub(crate) fn nr_unpopulated(&self) -> u64 {
        // Relaxed: a hint.
        let done = self.populated_to.load(Ordering::Relaxed).min(self.frames);
        (self.frames - done) as u64
    }

    /// The next step that the caller must populate and give to `free_batch`, as first frame and count.
    pub(crate) fn claim_unpopulated(&self) -> Option<(usize, usize)> {
        if self.nr_unpopulated() == 0 {
            return None;
        }
        // Relaxed: claims are made distinct by the add itself; the frames are published by the zone lock.
        let first = self
            .populated_to
            .fetch_add(self.populate_step, Ordering::Relaxed);
        (first < self.frames).then(|| (first, self.populate_step.min(self.frames - first)))
    }

    /// May a newcomer take a frame although others wait (ZONE-3)?
    fn may_pass<W: World>(&self, world: &W) -> bool {
        // Relaxed: a hint; 1 ms is not exact.
        let oldest = self.oldest_waiter_ns.load(Ordering::Relaxed);
        oldest == 0 || world.now().since(Nanos(oldest)) <= PASSING_MAX
    }

    /// Takes a frame without waiting, while more than `mark` frames are free.
    pub(crate) fn alloc_above<W: World>(&self, world: &W, mark: Mark) -> Option<u32> {
        if !self.may_pass(world) {
            return None;
        }
        let cache = self.cache(world);
        if let Some(frame) = cache.pop(world) {
            return Some(frame);
        }
        let mut batch = [0; frame_cache::BATCH];
        let want = cache.refill_batch();
        let n = self.take(world, self.watermarks.at(mark), &mut batch[..want]);
        let (first, rest) = batch[..n].split_first()?;
        let mut over = rest.len();
        while over > 0 {
            if !cache.push(world, rest[over - 1]) {
                // Another task of this CPU filled the cache meanwhile.
                self.free_to_buddy(world, &rest[..over]);
                break;
            }
            over -= 1;
        }
        Some(*first)
    }

    fn cache<W: World>(&self, world: &W) -> &FrameCache {
        &self.caches[world.cpu() % self.caches.len()]
    }

    /// Takes up to `out.len()` frames while more than `mark` are free.
    fn take<W: World>(&self, world: &W, mark: usize, out: &mut [u32]) -> usize {
        let mut inner = self.inner.lock(world);
        let mut n = 0;
        while n < out.len() && inner.buddy.free_frames() > mark {
            let Some(frame) = inner.buddy.alloc(0) else {
                break;
            };
            out[n] = frame;
            n += 1;
        }
        self.assert_left(&inner, n, mark);
        self.mirror(&inner);
        n
    }

    /// ZONE-6, after `taken` frames were taken above `mark`.
    fn assert_left(&self, inner: &Inner, taken: usize, mark: usize) {
        let free = inner.buddy.free_frames();
        debug_assert!(
            taken == 0 || free >= mark,
            "ZONE-6: {taken} frames taken, {free} left of the {mark} to be kept"
        );
    }

    /// Takes one frame whatever the watermarks say (the reserve).
    pub(crate) fn alloc_reserve<W: World>(&self, world: &W) -> Option<u32> {
        let mut one = [0];
        if let Some(frame) = self.cache(world).pop(world) {
            return Some(frame);
        }
        (self.take(world, 0, &mut one) == 1).then(|| one[0])
    }

    fn mirror(&self, inner: &Inner) {
        // Relaxed: written under the zone lock; readers want a hint.
        self.free
            .store(inner.buddy.free_frames() as u64, Ordering::Relaxed);
        self.oldest_waiter_ns
            .store(inner.waiters.oldest_ns(), Ordering::Relaxed);
    }

    /// Gives back one frame: to the CPU's cache, or to a waiter.
    pub(crate) fn free_one<W: World>(&self, world: &W, frame: u32) {
        // Relaxed: looked at again below.
        let nobody_waits = || self.oldest_waiter_ns.load(Ordering::Relaxed) == 0;
        if nobody_waits() && self.cache(world).push(world, frame) {
            // A waiter queues, then drains the caches, before it sleeps. Either its drain comes after our push, or it
            // held the cache's lock before us, and then this look sees it in the queue.
            if !nobody_waits() {
                self.drain(world);
            }
            return;
        }
        self.free_to_buddy(world, &[frame]);
    }

    /// Gives frames back to the buddy and hands them on to whoever waits, as many as the watermarks let.
    pub(crate) fn free_to_buddy<W: World>(&self, world: &W, frames: &[u32]) {
        let mut woken = [TaskId(0); 32];
        let mut rest = frames;
        loop {
            let mut n = 0;
            {
                let mut inner = self.inner.lock(world);
                let now_many = rest.len().min(64);
                inner.buddy.free_batch(&rest[..now_many]);
                rest = &rest[now_many..];
                n += self.grant(&mut inner, &mut woken);
                self.mirror(&inner);
            }
            for task in &woken[..n] {
                world.unpark(*task);
            }
            if rest.is_empty() && n < woken.len() {
                return;
            }
        }
    }

    /// Gives a populated, contiguous piece of memory to the buddy.
    pub(crate) fn free_range<W: World>(&self, world: &W, first: usize, count: usize) {
        let mut woken = [TaskId(0); 32];
        let n = {
            let mut inner = self.inner.lock(world);
            inner.buddy.free_range(first as u32, count);
            let n = self.grant(&mut inner, &mut woken);
            self.mirror(&inner);
            n
        };
        for task in &woken[..n] {
            world.unpark(*task);
        }
        if n == woken.len() {
            // More may wait.
            self.free_to_buddy(world, &[]);
        }
    }

    /// Hands free frames to the waiters at the head (ZONE-2). Waiters may go down to half of min: they have waited.
    fn grant(&self, inner: &mut Inner, woken: &mut [TaskId]) -> usize {
        let mut n = 0;
        while n < woken.len()
            && !inner.waiters.is_empty()
            && inner.buddy.free_frames() > self.watermarks.at(Mark::MinNoWait)
        {
            let Some(frame) = inner.buddy.alloc(0) else {
                break;
            };
            woken[n] = inner.waiters.grant(frame);
            n += 1;
        }
        self.assert_left(inner, n, self.watermarks.min / 2);
        n
    }

    /// Moves every cached frame to the buddy and serves the waiters.
    pub(crate) fn drain<W: World>(&self, world: &W) {
        let mut frames = Vec::new();
        for cache in &self.caches {
            cache.drain(world, &mut frames);
        }
        self.free_to_buddy(world, &frames);
    }

    /// Joins the queue of waiters, and serves it from what is free by now: a frame freed just before is not overlooked.
    pub(crate) fn queue<W: World>(&self, world: &W) -> Ticket {
        let ticket = {
            let mut inner = self.inner.lock(world);
            let ticket = inner.waiters.join(world.task().id(), world.now());
            self.mirror(&inner);
            ticket
        };
        // From here on nothing is put into a cache (`free_one`); what is there already goes to the waiters.
        self.drain(world);
        ticket
    }

    /// The frame granted to a ticket, if there is one by now. The ticket is spent then.
    pub(crate) fn granted<W: World>(&self, world: &W, ticket: Ticket) -> Option<u32> {
        let mut inner = self.inner.lock(world);
        inner.waiters.take_grant(ticket)
    }

    /// Leaves the queue; the frame that was granted meanwhile, if any (ZONE-2).
    pub(crate) fn leave<W: World>(&self, world: &W, ticket: Ticket) -> Option<u32> {
        let mut inner = self.inner.lock(world);
        let frame = inner.waiters.leave(ticket);
        self.mirror(&inner);
        frame
    }

    /// Does any task wait for a frame? A hint.
    pub(crate) fn has_waiters(&self) -> bool {
        // Relaxed: policy.
        self.oldest_waiter_ns.load(Ordering::Relaxed) != 0
    }

    /// How many tasks wait for a frame.
    pub(crate) fn nr_waiters<W: World>(&self, world: &W) -> usize {
        self.inner.lock(world).waiters.len()
    }

    /// BUDDY-1 and the mirrors. No other task is inside.
    pub(crate) fn check_invariants<W: World>(&self, world: &W) {
        let inner = self.inner.lock(world);
        inner.buddy.check_invariants();
        assert_eq!(
            inner.buddy.free_frames() as u64,
            self.nr_free(),
            "ZONE-1: mirror"
        );
        // Relaxed: nobody is inside.
        let oldest = self.oldest_waiter_ns.load(Ordering::Relaxed);
        assert_eq!(inner.waiters.oldest_ns(), oldest, "ZONE-3: mirror");
    }
}

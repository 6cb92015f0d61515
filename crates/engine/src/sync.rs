//! The one import path of atomics and locks: std and parking_lot, or loom's under `--cfg loom`.
//!
//! A [`Lock`] is an engine lock (the kernel's spinlock): held for a bounded, short time, never across a sleep. Each has
//! a rank; in debug builds a task may take a lock only above every rank it holds (SYNC-1), and may not sleep while it
//! holds one (WORLD-1). The lab pre-empts only where none is held, so there a lock is never contended.
//!
//! **Lock order** is the order of [`Rank`].

use crate::world::{Task, World};

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

/// Atomics on which no protocol rests: statistics, shadows, fields that one task writes. They are std's under loom too,
/// so that loom explores the protocols and not the counters.
pub mod hint {
    pub use std::sync::atomic::{AtomicU32, AtomicU64};
}

#[cfg(not(loom))]
use parking_lot::{Mutex, MutexGuard};

/// What a lock guards, in lock order: a task takes locks downwards in this list only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Rank {
    /// The table of mappings.
    Mappings = 0,
    /// The flusher's work queue.
    Flusher,
    /// A mapping's error and durability state.
    Durability,
    /// A mapping's dirty list.
    Dirty,
    /// A file handle's readahead state.
    Readahead,
    /// A region of the index.
    Index,
    /// A zone's LRU lists.
    Lru,
    /// The frame cache of one CPU.
    FrameCache,
    /// A zone's buddy allocator and its waiters.
    Zone,
    /// A journaled volume's state.
    Volume,
    /// A bucket of the wait table.
    Wait,
    /// Statistics and throttle state.
    Stats,
}

/// How often a taken lock is looked at before its waiter sleeps: a few microseconds.
#[cfg(not(loom))]
const SPINS: u32 = 200;

/// A short-held lock with a rank.
#[derive(Debug)]
pub struct Lock<T> {
    rank: Rank,
    #[cfg(not(loom))]
    inner: Mutex<T>,
    #[cfg(loom)]
    inner: loom::sync::Mutex<T>,
}

/// Holds a [`Lock`]; let go on drop.
pub struct LockGuard<'a, T> {
    #[cfg(not(loom))]
    inner: MutexGuard<'a, T>,
    #[cfg(loom)]
    inner: loom::sync::MutexGuard<'a, T>,
    task: &'a Task,
    rank: Rank,
}

impl<T> Lock<T> {
    /// A lock of `rank` around `value`.
    pub fn new(rank: Rank, value: T) -> Lock<T> {
        Lock {
            rank,
            #[cfg(not(loom))]
            inner: Mutex::new(value),
            #[cfg(loom)]
            inner: loom::sync::Mutex::new(value),
        }
    }

    /// Takes the lock for the calling task of `world`.
    #[inline]
    pub fn lock<'a, W: World>(&'a self, world: &'a W) -> LockGuard<'a, T> {
        world.about_to_lock();
        self.lock_for(world.task())
    }

    /// Takes the lock for `task`, which is the calling one.
    #[inline]
    pub fn lock_for<'a>(&'a self, task: &'a Task) -> LockGuard<'a, T> {
        // Relaxed: written by this task only. Kept in every build: the lab pre-empts where no lock is held.
        let held = task.lock_ranks.load(Ordering::Relaxed);
        debug_assert!(
            held >> (self.rank as u8) == 0,
            "SYNC-1: lock order: taking {:?} while holding ranks {held:#b}",
            self.rank
        );
        task.lock_ranks
            .store(held | 1 << (self.rank as u8), Ordering::Relaxed);
        LockGuard {
            #[cfg(not(loom))]
            inner: self
                .inner
                .try_lock()
                .unwrap_or_else(|| self.lock_contended()),
            #[cfg(loom)]
            inner: self.inner.lock().unwrap(),
            task,
            rank: self.rank,
        }
    }

    /// Whoever holds it lets go within a few microseconds, unless it has lost its CPU: to sleep and be woken takes ten times
    /// that. So look again for about as long, and only then sleep. Not a spin of the lab: there nobody comes here.
    #[cfg(not(loom))]
    #[cold]
    fn lock_contended(&self) -> MutexGuard<'_, T> {
        for _ in 0..SPINS {
            std::hint::spin_loop();
            if !self.inner.is_locked()
                && let Some(guard) = self.inner.try_lock()
            {
                return guard;
            }
        }
        self.inner.lock()
    }

    /// Takes the lock if it is free now.
    #[inline]
    pub fn try_lock<'a, W: World>(&'a self, world: &'a W) -> Option<LockGuard<'a, T>> {
        #[cfg(not(loom))]
        let inner = self.inner.try_lock()?;
        #[cfg(loom)]
        let inner = self.inner.try_lock().ok()?;
        let task = world.task();
        // Relaxed: written by this task only. A try-lock cannot deadlock, so it may be taken out of order.
        let held = task.lock_ranks.load(Ordering::Relaxed);
        task.lock_ranks
            .store(held | 1 << (self.rank as u8), Ordering::Relaxed);
        Some(LockGuard {
            inner,
            task,
            rank: self.rank,
        })
    }

    /// The value, through exclusive access.
    #[cfg(not(loom))]
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
}

impl<T> Drop for LockGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Relaxed: written by this task only.
        let held = self.task.lock_ranks.load(Ordering::Relaxed);
        self.task
            .lock_ranks
            .store(held & !(1 << (self.rank as u8)), Ordering::Relaxed);
    }
}

impl<T> std::ops::Deref for LockGuard<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> std::ops::DerefMut for LockGuard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

//! The OS world: threads, CLOCK_MONOTONIC, futexes, mmap, and devices over io_uring or a thread pool.
//!
//! Decides how each door of [`World`] is answered by Linux. It knows nothing of pages.
//!
//! **State.** `threads`, `queues` and `limiters` each have a lock of their own, never held together, never while a
//! request completes. **Context.** Any thread may call anything; `task` is on the hit path and costs one
//! thread-local load.
//!
//! **Kernel.** schedule(), kthread, ktime_get().
//!
//! **Tests.** `tests/world.rs`, and beside each file.
#![allow(unsafe_code)]

mod arena;
mod clock;
mod fork;
mod stack;
pub(crate) mod tasks;
pub(crate) mod threads;

pub use arena::OsArena;
pub(crate) use clock::Clock;
pub(crate) use fork::ForkMark;
pub(crate) use stack::door;
pub use stack::{ThreadStack, stack_window};

use crate::device::{FileDevice, IoEngine, Limiter, OsQueue};
use highwater_engine::sync::{AtomicU64, Ordering};
use highwater_engine::world::{Nanos, Queue, Task, TaskBody, TaskId};
use highwater_engine::{Error, World};
use parking_lot::Mutex;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use threads::Threads;

/// Threads, clock, memory and devices of this process, for one cache.
///
/// ```
/// use highwater::engine::World;
/// use highwater::{IoEngine, OsWorld};
///
/// let world = OsWorld::new(IoEngine::Auto)?;
/// let before = world.now();
/// world.park(before.plus(highwater::engine::world::Nanos::from_millis(1)));
/// assert!(world.now() > before);
/// # Ok::<(), highwater::Error>(())
/// ```
pub struct OsWorld {
    clock: Clock,
    fork: ForkMark,
    weyl: AtomicU64,
    cpus: usize,
    io_engine: IoEngine,
    threads: Threads,
    queues: Mutex<HashMap<u64, Weak<OsQueue>>>,
    limiters: Mutex<HashMap<(u64, u64, u64), Weak<Limiter>>>,
}

impl OsWorld {
    /// A world whose devices work through `io`. [`IoEngine::Auto`] takes io_uring where the kernel allows it, and
    /// threads elsewhere; [`OsWorld::io_engine`] tells which.
    ///
    /// # Errors
    /// `Os` when `io` is [`IoEngine::Uring`] and the kernel refuses it.
    pub fn new(io: IoEngine) -> Result<Arc<OsWorld>, Error> {
        OsWorld::build(io, Threads::default())
    }

    /// As [`OsWorld::new`], with the stack of each of its threads measured ([`OsWorld::stacks`]). For finding out what a
    /// chain of calls needs: a thread's start takes some microseconds longer, and all else what it takes without.
    ///
    /// # Errors
    /// As `new`.
    pub fn tracing_stacks(io: IoEngine) -> Result<Arc<OsWorld>, Error> {
        OsWorld::build(io, Threads::traced())
    }

    fn build(io: IoEngine, threads: Threads) -> Result<Arc<OsWorld>, Error> {
        let io_engine = crate::device::choose(io)?;
        Ok(Arc::new(OsWorld {
            clock: Clock::new(),
            fork: ForkMark::new(),
            weyl: AtomicU64::new(seed()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            io_engine,
            threads,
            queues: Mutex::default(),
            limiters: Mutex::default(),
        }))
    }

    /// What its devices work through: [`IoEngine::Uring`] or [`IoEngine::Threads`], never `Auto`.
    ///
    /// ```
    /// use highwater::{IoEngine, OsWorld};
    /// assert_eq!(OsWorld::new(IoEngine::Threads)?.io_engine(), IoEngine::Threads);
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn io_engine(&self) -> IoEngine {
        self.io_engine
    }

    /// The panics of this world's threads, as `name: message`. Each was reported as a tracing error, too.
    ///
    /// ```
    /// # use highwater::{IoEngine, OsWorld};
    /// assert!(OsWorld::new(IoEngine::Threads)?.panics().is_empty());
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn panics(&self) -> Vec<String> {
        self.threads.panics()
    }

    /// How deep the stacks of this world's threads were used: of those that have ended, and only of a world made by
    /// [`OsWorld::tracing_stacks`], on x86-64 Linux.
    pub fn stacks(&self) -> Vec<ThreadStack> {
        self.threads.stacks()
    }

    /// Is this process a child, made by fork, of the one that made this world? Costs one load.
    ///
    /// ```
    /// # use highwater::{IoEngine, OsWorld};
    /// assert!(!OsWorld::new(IoEngine::Threads)?.forked());
    /// # Ok::<(), highwater::Error>(())
    /// ```
    #[inline(always)]
    pub fn forked(&self) -> bool {
        self.fork.forked()
    }

    /// Joins every thread of this world and stops its queues, each within 5 s; true when nothing is left running.
    /// What is in flight is waited for.
    ///
    /// ```
    /// # use highwater::{IoEngine, OsWorld};
    /// assert!(OsWorld::new(IoEngine::Auto)?.shutdown());
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn shutdown(&self) -> bool {
        if self.forked() {
            // The threads are the parent's.
            return true;
        }
        let running = self.threads.join_all(&self.clock, self.grace());
        if running > 0 {
            tracing::warn!("{running} threads of the cache did not end within 5 s");
        }
        let limiters: Vec<_> = self.limiters.lock().drain().map(|(_, l)| l).collect();
        for limiter in limiters.iter().filter_map(Weak::upgrade) {
            limiter.stop();
        }
        let queues: Vec<_> = self.queues.lock().drain().map(|(_, q)| q).collect();
        let drained = queues
            .iter()
            .filter_map(Weak::upgrade)
            .all(|queue| queue.stop(self.grace()));
        running == 0 && drained
    }

    pub(crate) fn fork_mark(&self) -> ForkMark {
        self.fork
    }

    fn grace(&self) -> Nanos {
        self.clock.now().plus(Nanos::from_secs(5))
    }

    /// The queue of the device `dev`, one for all its files.
    pub(crate) fn queue(&self, dev: u64) -> Arc<OsQueue> {
        let mut queues = self.queues.lock();
        if let Some(queue) = queues.get(&dev).and_then(Weak::upgrade) {
            return queue;
        }
        let queue = Arc::new(OsQueue::new(dev, self.clock, self.io_engine));
        queues.insert(dev, Arc::downgrade(&queue));
        queue
    }

    /// The limiter of `bytes_per_s` and `iops` (zero: no such limit) before the device of `file`, one for all files of
    /// that device that are limited alike. For [`crate::RateLimited`].
    pub fn limited(&self, file: &FileDevice, bytes_per_s: u64, iops: u64) -> Arc<Limiter> {
        let queue = file.os_queue().clone();
        let mut limiters = self.limiters.lock();
        let key = (queue.id().0, bytes_per_s, iops);
        if let Some(limiter) = limiters.get(&key).and_then(Weak::upgrade) {
            return limiter;
        }
        let limiter = Limiter::new(self.clock, queue, bytes_per_s, iops);
        limiters.insert(key, Arc::downgrade(&limiter));
        limiter
    }
}

impl Drop for OsWorld {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn seed() -> u64 {
    let mut bytes = [0u8; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_ne_bytes(bytes),
        _ => Clock::new().now().0 ^ u64::from(std::process::id()) << 32,
    }
}

impl World for OsWorld {
    type Arena = OsArena;

    #[inline]
    fn now(&self) -> Nanos {
        self.clock.now()
    }

    fn spawn(&self, name: &str, body: TaskBody) -> Result<TaskId, Error> {
        self.threads.spawn(name, body)
    }

    fn join(&self, id: TaskId, until: Nanos) -> bool {
        self.threads.join(id, &self.clock, until)
    }

    fn park(&self, until: Nanos) {
        let slot = tasks::current();
        self.task().assert_may_sleep();
        slot.park(&self.clock, until);
    }

    fn unpark(&self, task: TaskId) {
        tasks::unpark(task);
    }

    #[inline]
    fn relax(&self) {
        thread_local! {
            static TURN: Cell<u32> = const { Cell::new(0) };
        }
        let turn = TURN.get().wrapping_add(1);
        TURN.set(turn);
        // Seven turns of spinning, then the CPU goes to whoever is waited for: it may need this one to run.
        if turn.is_multiple_of(8) {
            rustix::thread::sched_yield();
        } else {
            for _ in 0..16 {
                std::hint::spin_loop();
            }
        }
    }

    #[inline(always)]
    fn task(&self) -> &Task {
        tasks::task()
    }

    fn arena(&self, data: usize, tables: usize) -> Result<OsArena, Error> {
        let len = data.saturating_add(tables);
        OsArena::new(len).map_err(|e| {
            Error::os(
                format!("map {len} bytes of memory; choose a smaller budget or raise `ulimit -v`"),
                &e,
            )
        })
    }

    fn random(&self) -> u64 {
        // SplitMix64 over a shared counter. Relaxed: each caller gets a number of its own, in any order.
        let mut z = self
            .weyl
            .fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    #[inline]
    fn cpu(&self) -> usize {
        // SAFETY: no arguments. glibc reads it from the thread's rseq area, without a system call.
        usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(0)
    }

    fn cpus(&self) -> usize {
        self.cpus
    }

    #[inline(always)]
    fn is_forked(&self) -> bool {
        self.forked()
    }
}

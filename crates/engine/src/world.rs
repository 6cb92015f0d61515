//! Every door to the outside.
//!
//! The engine makes no system call, reads no clock and starts no thread of its own: it asks the [`World`] it is generic
//! over. The OS world (crate `highwater`) answers with threads, io_uring and mmap; the lab (crate `highwater-lab`) with
//! coroutines, a virtual clock and device models. The code between is the same code.
//!
//! **Context.** Every method may be called by any task. `park` is the only method that sleeps, with `relax` and
//! `Queue::reap`; none of the three may be called while an engine lock is held (WORLD-1).
//!
//! **Invariants.**
//! - WORLD-1: a task parks only with no engine lock held (asserted by `Task::assert_may_sleep`).
//! - WORLD-2: `unpark` before `park` is remembered: the next `park` of that task returns at once.
//! - WORLD-3: every `park` has a deadline.
//!
//! **Kernel.** schedule(), wake_up_process(), current, ktime_get(), kthread_run().

use crate::sync::Ordering;
use crate::sync::hint::{AtomicU32, AtomicU64};
use std::fmt;
use std::sync::Arc;

/// A point in time, or a span, in nanoseconds. Points count from the start of the world.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    /// No time at all.
    pub const ZERO: Nanos = Nanos(0);
    /// A span of `n` microseconds.
    pub const fn from_micros(n: u64) -> Nanos {
        Nanos(n * 1_000)
    }
    /// A span of `n` milliseconds.
    pub const fn from_millis(n: u64) -> Nanos {
        Nanos(n * 1_000_000)
    }
    /// A span of `n` seconds.
    pub const fn from_secs(n: u64) -> Nanos {
        Nanos(n * 1_000_000_000)
    }
    /// The span as seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }
    /// `self - other`, or zero.
    pub const fn since(self, other: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(other.0))
    }
    /// `self + span`, saturating.
    pub const fn plus(self, span: Nanos) -> Nanos {
        Nanos(self.0.saturating_add(span.0))
    }
}

impl fmt::Debug for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}ms", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// For people: three digits, in the unit that fits.
impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1_000 => return write!(f, "{} ns", self.0),
            1_000..1_000_000 => (1e3, "µs"),
            1_000_000..1_000_000_000 => (1e6, "ms"),
            _ => (1e9, "s"),
        };
        let n = self.0 as f64 / unit;
        let decimals = match n {
            ..10.0 => 2,
            ..100.0 => 1,
            _ => 0,
        };
        write!(f, "{n:.decimals$} {name}")
    }
}

impl From<std::time::Duration> for Nanos {
    fn from(d: std::time::Duration) -> Nanos {
        Nanos(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Names a task (a thread of the OS world, a coroutine of the lab) while it lives. Ids are small and reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TaskId(pub u32);

/// What the engine keeps for each task: the part of `task_struct` that memory management uses.
///
/// Written by its own task only (plain load and store, no read-modify-write), read by anyone for reports.
#[doc(alias = "task_struct")]
#[repr(align(64))]
#[derive(Debug)]
pub struct Task {
    id: TaskId,
    /// Page guards this task holds now.
    pub guards: AtomicU32,
    /// Task flags: [`Task::MEMALLOC`] and friends.
    pub flags: AtomicU32,
    /// Bit mask of the ranks of engine locks held.
    pub lock_ranks: AtomicU32,
    /// Pages dirtied since this task was last throttled.
    pub dirtied: AtomicU32,
    /// How many pages it may dirty before the throttle looks again (`nr_dirtied_pause`); 0: not yet known.
    pub dirtied_pause: AtomicU32,
    /// Hits not yet folded into the counters of `hits_of`.
    pub hits: AtomicU32,
    /// Which cache `hits` belongs to.
    pub hits_of: AtomicU32,
    /// Time spent waiting for memory, all caches, in nanoseconds.
    pub stall_alloc_ns: AtomicU64,
    /// Time spent paused by the writers' throttle, in nanoseconds.
    pub stall_throttle_ns: AtomicU64,
    /// The longest single wait of either kind, in nanoseconds.
    pub stall_longest_ns: AtomicU64,
    /// When the writers' throttle last looked at this task.
    pub throttled_at_ns: AtomicU64,
    /// The page this task read last: (mapping, page) hashed. Reading it again is not another reference.
    pub last_page: AtomicU64,
    /// Pages this task holds: (cache, mapping, page). Kept in debug builds only.
    #[cfg(debug_assertions)]
    pub held: std::sync::Mutex<Vec<(u32, u32, u64)>>,
}

impl Task {
    /// The task reclaims or completes I/O: it may use the reserve and never enters reclaim (PF_MEMALLOC).
    pub const MEMALLOC: u32 = 1;
    /// The task is kswapd.
    pub const KSWAPD: u32 = 2;
    /// The task is a flusher.
    pub const FLUSHER: u32 = 4;
    /// The task is inside direct reclaim.
    pub const RECLAIM: u32 = 8;
    /// The task holds frames of a run that are not pages yet.
    pub const RUN: u32 = 16;
    /// The task is inside a backing's write of pages: what it waits for waits for these, too.
    pub const WRITES: u32 = 32;

    /// A fresh record for the task `id`.
    pub fn new(id: TaskId) -> Task {
        Task {
            id,
            guards: AtomicU32::new(0),
            flags: AtomicU32::new(0),
            lock_ranks: AtomicU32::new(0),
            dirtied: AtomicU32::new(0),
            dirtied_pause: AtomicU32::new(0),
            hits: AtomicU32::new(0),
            hits_of: AtomicU32::new(0),
            stall_alloc_ns: AtomicU64::new(0),
            stall_throttle_ns: AtomicU64::new(0),
            stall_longest_ns: AtomicU64::new(0),
            throttled_at_ns: AtomicU64::new(0),
            last_page: AtomicU64::new(0),
            #[cfg(debug_assertions)]
            held: std::sync::Mutex::new(Vec::new()),
        }
    }

    /// The task's name to `World::unpark`.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Adds to a counter that only this task writes.
    #[inline(always)]
    pub fn bump(counter: &AtomicU32, by: u32) -> u32 {
        // Relaxed: a single writer; readers want a recent value only.
        let v = counter.load(Ordering::Relaxed).wrapping_add(by);
        counter.store(v, Ordering::Relaxed);
        v
    }

    /// Is `flag` set?
    pub fn has(&self, flag: u32) -> bool {
        // Relaxed: written by this task only.
        self.flags.load(Ordering::Relaxed) & flag != 0
    }

    /// Sets `flag` and returns the flags as they were.
    pub fn set_flag(&self, flag: u32) -> u32 {
        // Relaxed: written by this task only.
        let old = self.flags.load(Ordering::Relaxed);
        self.flags.store(old | flag, Ordering::Relaxed);
        old
    }

    /// Clears `flag` and returns the flags as they were.
    pub fn clear_flag(&self, flag: u32) -> u32 {
        // Relaxed: written by this task only.
        let old = self.flags.load(Ordering::Relaxed);
        self.flags.store(old & !flag, Ordering::Relaxed);
        old
    }

    /// Restores flags returned by [`Task::set_flag`] or [`Task::clear_flag`].
    pub fn restore_flags(&self, old: u32) {
        // Relaxed: written by this task only.
        self.flags.store(old, Ordering::Relaxed);
    }

    /// WORLD-1: panics in debug builds when the task holds an engine lock.
    #[inline]
    pub fn assert_no_locks(&self) {
        // Relaxed: written by this task only.
        debug_assert_eq!(
            self.lock_ranks.load(Ordering::Relaxed),
            0,
            "WORLD-1: a task may not sleep while it holds an engine lock"
        );
    }

    /// WORLD-1 and RUN-1: panics in debug builds when the task holds what it may not sleep with.
    #[inline]
    pub fn assert_may_sleep(&self) {
        self.assert_no_locks();
        debug_assert!(
            !self.has(Task::RUN),
            "RUN-1: a task gives free frames back before it sleeps"
        );
    }
}

/// Work of the engine that costs CPU time; the lab charges it to a virtual CPU, the OS world does nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// One look-up that hit.
    Hit,
    /// One page copied to a caller, with its look-up, or to another frame for a writer.
    Copy,
    /// One page copied in from a caller, with its look-up and its dirtying.
    CopyIn,
    /// One page that was not in memory, or a writer's copy, entered: its frame, its place in the index and in the LRU.
    Install,
    /// One page looked at by reclaim.
    Scan,
    /// One page moved to another frame by compaction.
    Move,
    /// One allocation slow path entered.
    AllocSlow,
    /// One page put under writeback.
    Writeback,
    /// One request completed.
    Complete,
    /// One page of it: clean again, or up to date.
    EndPage,
    /// One turn of a spin loop.
    Spin,
    /// What a caller does itself for one operation, outside the engine.
    Task,
}

/// Memory that an engine lives on: one mapping, 2 MiB-aligned, unmapped on drop.
pub trait Arena: Send + Sync + 'static {
    /// First byte.
    fn base(&self) -> *mut u8;
    /// Length in bytes.
    fn len(&self) -> usize;
    /// True of an arena without memory.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Makes `[offset, offset + len)` resident, so that no later access faults.
    fn populate(&self, offset: usize, len: usize);
    /// True where frames have addresses and no bytes of their own: only the tables are memory (the lab, to study a
    /// machine larger than the one it runs on). The engine then copies and zeroes nothing and shows nothing to
    /// `before_write` and `after_read`; what a guard or `read_at` gives means nothing. All else is the same.
    #[inline(always)]
    fn is_ghost(&self) -> bool {
        false
    }
}

/// A task's body.
pub type TaskBody = Box<dyn FnOnce() + Send + 'static>;

/// The doors to the outside. See the module's head.
pub trait World: Send + Sync + 'static {
    /// What [`World::arena`] returns.
    type Arena: Arena;

    /// Now.
    fn now(&self) -> Nanos;
    /// Starts a task of the engine (`kswapd0`, `flush-254:0`, …) or of a scenario.
    ///
    /// # Errors
    /// When the operating system refuses another thread.
    #[doc(alias = "kthread_run")]
    fn spawn(&self, name: &str, body: TaskBody) -> Result<TaskId, crate::Error>;
    /// Waits until the task `id`, made by `spawn`, has ended, or until `until`; true when it has ended.
    fn join(&self, id: TaskId, until: Nanos) -> bool;
    /// Sleeps until someone unparks this task, or until `until`. May return early without cause.
    #[doc(alias = "schedule")]
    fn park(&self, until: Nanos);
    /// Wakes `task`, or makes its next `park` return at once.
    #[doc(alias = "wake_up_process")]
    fn unpark(&self, task: TaskId);
    /// The one body of a spin loop, but for a contended lock's (`sync.rs`): in the lab none is.
    fn relax(&self);
    /// The calling task's own record.
    fn task(&self) -> &Task;
    /// Charges CPU work to the calling task. In the lab, the place where it may be pre-empted.
    #[inline(always)]
    fn charge(&self, work: Work, n: u32) {
        let _ = (work, n);
    }
    /// The calling task is about to take an engine lock: another place of pre-emption for the lab, so that what happens between
    /// two locks is met by others. On threads nothing.
    #[inline(always)]
    fn about_to_lock(&self) {}
    /// Others may run here, unless an engine lock is held: a place of pre-emption for the lab. On threads nothing, as the
    /// system pre-empts where it likes.
    #[inline]
    fn cond_resched(&self) {
        self.charge(Work::Scan, 0);
    }
    /// Reserves `data` bytes for frames and, behind them, `tables` bytes for what the engine knows of them.
    ///
    /// # Errors
    /// When the operating system refuses the mapping.
    fn arena(&self, data: usize, tables: usize) -> Result<Self::Arena, crate::Error>;
    /// A random number (the lab: from the seed).
    fn random(&self) -> u64;
    /// The CPU the task runs on now, for caches per CPU. A hint.
    fn cpu(&self) -> usize;
    /// How many CPUs there are.
    fn cpus(&self) -> usize;
    /// True in a child process after `fork`: the cache belongs to the parent.
    #[inline(always)]
    fn is_forked(&self) -> bool {
        false
    }
    /// True where time is virtual: lost wake-ups are exact and a bug there panics.
    fn is_lab(&self) -> bool {
        false
    }
}

/// Names a request queue: one per device, and one flusher for each (`st_dev` in the OS world).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueueId(pub u64);

/// A device's request queue (the kernel's `request_queue`, with its `backing_dev_info`).
#[doc(alias("request_queue", "backing_dev_info"))]
pub trait Queue: Send + Sync + 'static {
    /// The queue's name.
    fn id(&self) -> QueueId;
    /// A name for people, `254:0`.
    fn name(&self) -> String;
    /// Waits for completions on `lane` until `until`, running them on the calling task; returns how many it ran.
    /// Returns at once when `until` has passed. Returns early when the task is unparked. A queue that completes
    /// on tasks of its own only parks here.
    fn reap(&self, lane: crate::io::Lane, until: Nanos) -> usize;
    /// The number of requests that this queue serves best at one time.
    fn depth(&self) -> usize {
        128
    }
    /// The most segments that one request should have.
    fn segments_max(&self) -> usize {
        254
    }
    /// The most bytes that one request should have.
    fn request_bytes_max(&self) -> usize {
        1 << 20
    }
}

/// One open file or block device, byte-addressed.
pub trait Device: Send + Sync + 'static {
    /// The queue that serves it.
    fn queue(&self) -> Arc<dyn Queue>;
    /// Takes every request out of `batch` and starts it. Each ends in `Request::complete`, here or later, on any task.
    /// Never waits for a completion.
    fn submit(&self, lane: crate::io::Lane, batch: &mut Vec<crate::io::Request>);
    /// Reads on the calling thread. Bytes beyond the end read as zero.
    ///
    /// # Errors
    /// What the device answers.
    fn read_now(&self, offset: u64, bufs: &[crate::io::IoBuf]) -> Result<(), crate::IoError>;
    /// Writes on the calling thread, any length and alignment.
    ///
    /// # Errors
    /// What the device answers.
    fn write_now(&self, offset: u64, buf: &[u8]) -> Result<(), crate::IoError>;
    /// Makes every write completed before the call durable.
    ///
    /// # Errors
    /// What the device answers. After an error nothing is known of any write since the last success.
    fn flush(&self) -> Result<(), crate::IoError>;
    /// As `flush`, with the file's attributes (`fsync`). By default the same.
    ///
    /// # Errors
    /// As `flush`.
    fn flush_all(&self) -> Result<(), crate::IoError> {
        self.flush()
    }
    /// Length in bytes.
    ///
    /// # Errors
    /// What the device answers.
    fn len(&self) -> Result<u64, crate::IoError>;
    /// True of an empty device.
    ///
    /// # Errors
    /// What the device answers.
    fn is_empty(&self) -> Result<bool, crate::IoError> {
        Ok(self.len()? == 0)
    }
    /// Sets the length.
    ///
    /// # Errors
    /// What the device answers.
    fn truncate(&self, len: u64) -> Result<(), crate::IoError>;
    /// Gives up the range's contents; reads may return anything of before, or zeroes.
    ///
    /// # Errors
    /// What the device answers.
    fn discard(&self, offset: u64, len: u64) -> Result<(), crate::IoError> {
        let _ = (offset, len);
        Ok(())
    }
    /// Makes the range read as zeroes.
    ///
    /// # Errors
    /// What the device answers.
    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), crate::IoError>;
    /// The allocated ranges `(offset, len)` within the given one. By default: all of it.
    ///
    /// # Errors
    /// What the device answers.
    fn extents(&self, offset: u64, len: u64) -> Result<Vec<(u64, u64)>, crate::IoError> {
        Ok(vec![(offset, len)])
    }
}

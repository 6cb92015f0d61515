//! Memory that a backing takes from the cache's budget while it writes: log buffers, the nodes of its maps.
//!
//! A backing borrows whole frames through a [`PageSource`] and gives each back by dropping its [`LentFrame`]. How far an
//! allocation may go is the caller's [`LendContext`]: the reserve, without reclaim, is what a block's I/O path may count on;
//! `Reclaim` is what an allocation with GFP_KERNEL inside `->writepage` did, and splices reclaim's call chain onto the
//! backing's.
//!
//! **State.** A lent frame carries LENT, is in no index and on no list; `Engine::lent_pages` counts them. The frame's owner
//! is its `LentFrame`, which keeps the arena alive, but not the engine: a backing that outlives its cache keeps valid
//! memory, and leaks nothing.
//! **Context.** Any task without engine locks. `Reserve` never sleeps; `Reclaim` may, so the caller holds nothing that the
//! write of another page of its own could want. Inside a write it sleeps no longer than one run of direct reclaim does.
//!
//! **Invariants.**
//! - LENT-1: the frames that carry LENT are those that `nr_lent` counts; ZONE-1 holds with them in use.
//! - LENT-2: the bytes of a lent frame are reached through its one `LentFrame` only.
//!
//! **Kernel.** mempool_alloc, PF_MEMALLOC, GFP_NOFS and GFP_KERNEL in a file system's writepage.
//! **Tests.** The lab's `tests/lent.rs`.
#![allow(unsafe_code)]

use super::Mark;
use crate::engine::Engine;
use crate::error::Error;
use crate::frame::state::LENT;
use crate::io::{IoBuf, Lane};
use crate::sync::Ordering;
use crate::trace::Event;
use crate::world::{Arena, Nanos, Task, TaskId, World};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};

/// How far an allocation of a backing may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LendContext {
    /// Takes from the reserve below the min watermark, and never reclaims.
    #[default]
    Reserve,
    /// As any task that needs a page: may enter direct reclaim, on the flusher too. Inside a write it reclaims once, waits for
    /// nobody, and then takes from the reserve. A task that reclaims already gets the reserve at once, unless [`Config::recursion_guard`](crate::Config::recursion_guard) is off.
    Reclaim,
}

/// What a backing needs of the cache that it serves: frames, and the world's clock and sleep.
pub trait PageSource: Send + Sync + 'static {
    /// Bytes of a frame.
    fn frame_size(&self) -> usize;
    /// A frame of the cache's budget, zeroed.
    ///
    /// # Errors
    /// `OutOfMemory` and `AllPinned`; `Closed` when the cache is gone; `Config` where frames have no bytes (a ghost arena).
    fn alloc(&self, context: LendContext) -> Result<LentFrame, Error>;
    /// Now.
    fn now(&self) -> Nanos;
    /// How many frames the cache has.
    fn frames(&self) -> u64;
    /// The calling task's own record.
    fn task(&self) -> &Task;
    /// Sleeps until `unpark` of this task, or until `until`; may return early. A flusher runs its completions meanwhile,
    /// so the caller holds nothing that one of them wants.
    fn park(&self, until: Nanos);
    /// Wakes a task, or makes its next `park` return at once.
    fn unpark(&self, task: TaskId);
    /// The bug that is planted in the cache, and so in its backings.
    #[cfg(feature = "plant")]
    fn plant(&self) -> Option<crate::plant::Plant> {
        None
    }
}

/// Takes lent frames back.
trait Lender: Send + Sync {
    fn take_back(&self, frame: u32);
}

/// One frame of the cache's budget, lent to a backing. Derefs to its bytes; given back on drop.
pub struct LentFrame {
    bytes: *mut u8,
    len: usize,
    frame: u32,
    lender: Weak<dyn Lender>,
    /// Keeps the bytes mapped.
    _arena: Arc<dyn Arena>,
}

// SAFETY: LENT-2: the bytes are reached through this value only, as through a `Box<[u8]>`.
unsafe impl Send for LentFrame {}
// SAFETY: LENT-2, as above: a shared reference gives out shared bytes only.
unsafe impl Sync for LentFrame {}

impl LentFrame {
    /// The first `len` bytes as a piece of a request. The caller keeps the frame, and its bytes as they are, until the
    /// request has ended (IO-1).
    ///
    /// # Panics
    /// When the frame is shorter.
    pub fn io_buf(&self, len: usize) -> IoBuf {
        assert!(len <= self.len, "a frame of {} bytes", self.len);
        IoBuf {
            ptr: self.bytes,
            len,
        }
    }
}

/// A frame that is no engine's: zeroed memory of the heap, for the tests of backings.
#[cfg(all(test, not(loom)))]
pub(crate) mod heap {
    use super::{Arena, Lender, LentFrame, Weak};
    use std::cell::UnsafeCell;
    use std::sync::Arc;

    struct Memory(UnsafeCell<Box<[u8]>>);

    // SAFETY: LENT-2: the bytes are reached through the frame only.
    unsafe impl Send for Memory {}
    // SAFETY: LENT-2, as above.
    unsafe impl Sync for Memory {}

    impl Arena for Memory {
        fn base(&self) -> *mut u8 {
            // SAFETY: only the address is taken.
            unsafe { (*self.0.get()).as_mut_ptr() }
        }
        fn len(&self) -> usize {
            // SAFETY: the length never changes.
            unsafe { (&(*self.0.get())).len() }
        }
        fn populate(&self, _offset: usize, _len: usize) {}
    }

    struct Nobody;

    impl Lender for Nobody {
        fn take_back(&self, _frame: u32) {}
    }

    /// `len` zeroed bytes.
    pub(crate) fn frame(len: usize) -> LentFrame {
        let memory = Memory(UnsafeCell::new(vec![0; len].into_boxed_slice()));
        let arena = Arc::new(memory);
        LentFrame {
            bytes: arena.base(),
            len,
            frame: 0,
            lender: Weak::<Nobody>::new(),
            _arena: arena,
        }
    }
}

impl Deref for LentFrame {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: LENT-2: nobody writes while `self` is shared; the arena is mapped as long as `self` lives, and zeroed
        // memory is initialised.
        unsafe { std::slice::from_raw_parts(self.bytes, self.len) }
    }
}

impl DerefMut for LentFrame {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: LENT-2: `&mut self` is the only way to the bytes.
        unsafe { std::slice::from_raw_parts_mut(self.bytes, self.len) }
    }
}

impl Drop for LentFrame {
    fn drop(&mut self) {
        if let Some(lender) = self.lender.upgrade() {
            lender.take_back(self.frame);
        }
    }
}

impl fmt::Debug for LentFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LentFrame({})", self.frame)
    }
}

/// The source that an engine gives to backings. Holds the engine weakly: the engine's mappings hold the backings.
struct Source<W: World> {
    world: Arc<W>,
    engine: Weak<Engine<W>>,
    arena: Arc<W::Arena>,
    frame_size: usize,
    frames: u64,
}

impl<W: World> PageSource for Source<W> {
    fn frame_size(&self) -> usize {
        self.frame_size
    }

    fn alloc(&self, context: LendContext) -> Result<LentFrame, Error> {
        if self.world.is_forked() {
            return Err(Error::Forked);
        }
        let engine = self.engine.upgrade().ok_or(Error::Closed)?;
        if engine.memory.is_ghost() {
            return Err(Error::Config(
                "frames have no bytes here, and a backing that borrows memory needs them; give the lab real memory".into(),
            ));
        }
        let frame = engine.lend(context)?;
        engine.memory.zero_from(frame, 0);
        let buf = engine.memory.io_buf(frame, self.frame_size);
        Ok(LentFrame {
            bytes: buf.ptr,
            len: buf.len,
            frame,
            lender: self.engine.clone(),
            _arena: self.arena.clone(),
        })
    }

    fn now(&self) -> Nanos {
        self.world.now()
    }

    fn frames(&self) -> u64 {
        self.frames
    }

    fn task(&self) -> &Task {
        self.world.task()
    }

    fn park(&self, until: Nanos) {
        match self.engine.upgrade() {
            Some(engine) => engine.park_or_reap(until),
            None => self.world.park(until),
        }
    }

    fn unpark(&self, task: TaskId) {
        self.world.unpark(task);
    }

    #[cfg(feature = "plant")]
    fn plant(&self) -> Option<crate::plant::Plant> {
        self.engine.upgrade().and_then(|engine| engine.plant())
    }
}

impl<W: World> Lender for Engine<W> {
    fn take_back(&self, frame: u32) {
        if self.world.is_forked() {
            return;
        }
        let old = self.frames.get(frame).state.clear(LENT);
        debug_assert!(old & LENT != 0, "LENT-1: frame {frame} given back twice");
        // Relaxed: a count for reports.
        self.lent_pages.fetch_sub(1, Ordering::Relaxed);
        self.free_page(frame);
    }
}

impl<W: World> Engine<W> {
    /// Where a backing borrows memory of this cache. It does not keep the engine alive.
    pub fn page_source(self: &Arc<Self>) -> Arc<dyn PageSource> {
        Arc::new(Source {
            world: self.world.clone(),
            engine: Arc::downgrade(self),
            arena: self.memory.arena().clone(),
            frame_size: self.memory.frame_size(),
            frames: self.frames.len() as u64,
        })
    }

    /// Frames lent to backings now.
    pub(crate) fn nr_lent(&self) -> u64 {
        // Relaxed: a count for reports.
        self.lent_pages.load(Ordering::Relaxed)
    }

    fn lend(&self, context: LendContext) -> Result<u32, Error> {
        let task = self.world.task();
        let frame = match context {
            LendContext::Reserve => self.lend_reserve(),
            LendContext::Reclaim
                if task.has(Task::WRITES) && !task.has(Task::RECLAIM | Task::KSWAPD) =>
            {
                self.lend_in_write(task)
            }
            LendContext::Reclaim => self.alloc_page(),
        }?;
        self.frames.get(frame).state.set(LENT);
        // Relaxed: as above.
        self.lent_pages.fetch_add(1, Ordering::Relaxed);
        Ok(frame)
    }

    /// A frame for a task inside a write, which reclaims once and waits for nobody: the pages that it has in hand are under
    /// writeback and on no device's queue, and may be all that there is to wait for.
    #[doc(alias("mempool_alloc", "__GFP_NORETRY"))]
    fn lend_in_write(&self, task: &Task) -> Result<u32, Error> {
        // The flusher's MEMALLOC is ours: it was not PF_MEMALLOC.
        let flags = task.clear_flag(Task::MEMALLOC);
        let mut frame = self.zone.alloc_above(&*self.world, Mark::Min);
        if frame.is_none() && self.populate_step() {
            self.count(Event::PopulateDirect, 1);
            frame = self.zone.alloc_above(&*self.world, Mark::Min);
        }
        if frame.is_none() {
            self.wake_kswapd(0);
            self.direct_reclaim(0, Nanos(u64::MAX));
            frame = self.zone.alloc_above(&*self.world, Mark::Min);
        }
        task.restore_flags(flags);
        match frame {
            Some(frame) => Ok(self.claim_free(frame)),
            None => self.alloc_reserve(),
        }
    }

    fn lend_reserve(&self) -> Result<u32, Error> {
        // What is not populated yet is free all the same.
        while self.zone.nr_free() == 0 && self.populate_step() {
            self.count(Event::PopulateDirect, 1);
        }
        let frame = self.alloc_reserve();
        if self.zone.below(Mark::Low) {
            self.wake_kswapd(0);
        }
        frame
    }

    /// Sleeps as `World::park`. A flusher reaps its own lane meanwhile: it waits for frames that its own writes free.
    pub(crate) fn park_or_reap(&self, until: Nanos) {
        let task = self.world.task();
        if task.has(Task::FLUSHER) {
            let devices = self.devices.lock(&*self.world).clone();
            // Relaxed: our own id, stored by ourselves.
            let mine = |t: u32| t == task.id().0 + 1;
            if let Some(dev) = devices
                .iter()
                .find(|d| mine(d.task.load(Ordering::Relaxed)))
            {
                dev.queue.reap(Lane::Flusher, until);
                return;
            }
        }
        self.world.park(until);
    }
}

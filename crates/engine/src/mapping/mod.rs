//! What a file is to the engine: its pages' index, its length, its dirty pages, and what is owed to its users.
//!
//! **State.**
//! - `len`: raised under the invalidate lock shared, lowered under it exclusive. Read by anyone.
//! - `dirty` (the list): `Rank::Dirty`. `nr_dirty` mirrors its length.
//! - `in_writeback[parity]`: pages under writeback, by the parity of the sync epoch they were submitted in.
//! - `durability`: `Rank::Durability`.
//! - `invalidate`: a sleeping lock. `set_len` and `discard` exclusive; installs, dirtying and submissions shared.
//! - `sync_turn`: one sync at a time.
//!
//! **Lock order.** A page's latch, then `invalidate` shared (by try; a task that fails lets go of the latch and waits).
//! `sync_turn`, then `invalidate` exclusive, then I/O, then latches of the last partial page.
//!
//! **Invariants.**
//! - MAP-1: a page of the file is in the index at most once; the frame in the index is the newest copy.
//! - MAP-2: a page is on the dirty list exactly while DIRTY is set.
//! - MAP-3: no page beyond `len` (rounded up to a frame) is in the index while `invalidate` is free, but for those
//!   that a write past the end has latched.
//! - MAP-4: a mapping leaves the table only with no handle, no dirty page, no page in flight, nothing that waits for a
//!   flush and no error that nobody has seen; its pages are dropped.
//! - MAP-5: a cache that has closed has no mapping without a handle. Its flushers have ended: who lets the last handle go
//!   drops the mapping, and `abandon` those whose last handle had gone before. A task that is still inside may have it for a
//!   moment longer: when the drop of a last handle returns, the mapping and its backing have gone, whoever let them go.
//! - MAP-6: a change (a page dirtied, a new length, a hole) is made with `invalidate` held, after a look whether the cache is
//!   closed. `close` passes through the lock of each file before its last sync, so what returned Ok is in that sync.
//!
//! **Kernel.** struct address_space, inode; filemap.c, truncate.c, errseq.c.

mod dirty_list;
mod durability;
mod filemap;
pub(crate) mod index;
mod life;
pub(crate) mod readahead;
mod sleep_lock;
mod table;
mod truncate;

pub(crate) use dirty_list::DirtyList;
pub(crate) use durability::Durability;
pub(crate) use filemap::{Fill, Pinned};
pub(crate) use index::{Index, Key};
pub(crate) use life::{Gone, Leaving};
pub(crate) use sleep_lock::SleepLock;
pub(crate) use table::MappingTable;

use crate::backing::Backing;
use crate::file::FileId;
use crate::sync::{AtomicU32, AtomicU64, Lock, Ordering, Rank};
use crate::wait::Channel;
use crate::world::{Nanos, World};
use crate::writeback::BackingDev;
use std::sync::Arc;

/// One file's pages. Shared by all its handles.
#[doc(alias = "address_space")]
pub(crate) struct Mapping {
    pub id: u32,
    pub file: FileId,
    pub backing: Arc<dyn Backing>,
    /// Does the backing want `reserve` for each page that becomes dirty?
    pub reserves: bool,
    pub dev: Arc<BackingDev>,
    len: AtomicU64,
    pub dirty: Lock<DirtyList>,
    nr_dirty: AtomicU64,
    in_writeback: [AtomicU64; 2],
    /// Requests of readahead in flight.
    loading: AtomicU64,
    /// Its lowest bit chooses the half of `in_writeback` that new submissions count in.
    sync_epoch: AtomicU64,
    /// The generation that pages dirtied now belong to.
    dirty_generation: AtomicU64,
    pub durability: Lock<Durability>,
    pub invalidate: SleepLock,
    pub sync_turn: SleepLock,
    pub handles: AtomicU32,
    pub writable: bool,
    /// Since when every write has failed; 0 while they succeed.
    failing_since_ns: AtomicU64,
    /// No write is retried before this.
    retry_at_ns: AtomicU64,
    /// Failed flushes so far: a write compares before and after.
    flush_failures: AtomicU64,
    /// Failed writes so far: a sync compares before and after.
    write_errors: AtomicU64,
    /// Writes that have ended so far, well or badly: the device answers.
    writes_ended: AtomicU64,
    /// When the oldest of the dirty pages became dirty, as far as is kept: when the list was last empty or written.
    dirty_since_ns: AtomicU64,
    /// The last one: fields are dropped in their order, and it tells that the others are.
    gone: Gone,
}

impl Mapping {
    pub(crate) fn new(
        id: u32,
        file: FileId,
        backing: Arc<dyn Backing>,
        dev: Arc<BackingDev>,
        len: u64,
        writable: bool,
        gone: Gone,
    ) -> Mapping {
        Mapping {
            id,
            file,
            dev,
            reserves: backing.reserves(),
            backing,
            len: AtomicU64::new(len),
            dirty: Lock::new(Rank::Dirty, DirtyList::new()),
            nr_dirty: AtomicU64::new(0),
            in_writeback: [AtomicU64::new(0), AtomicU64::new(0)],
            loading: AtomicU64::new(0),
            sync_epoch: AtomicU64::new(0),
            dirty_generation: AtomicU64::new(1),
            durability: Lock::new(Rank::Durability, Durability::new()),
            invalidate: SleepLock::new(Channel::Invalidate(id)),
            sync_turn: SleepLock::new(Channel::Sync(id)),
            handles: AtomicU32::new(0),
            writable,
            failing_since_ns: AtomicU64::new(0),
            retry_at_ns: AtomicU64::new(0),
            flush_failures: AtomicU64::new(0),
            write_errors: AtomicU64::new(0),
            writes_ended: AtomicU64::new(0),
            dirty_since_ns: AtomicU64::new(0),
            gone,
        }
    }

    /// The file's length in bytes.
    #[inline(always)]
    pub(crate) fn len(&self) -> u64 {
        // Acquire: pairs with `grow`, so that a page below the length is found latched or whole.
        self.len.load(Ordering::Acquire)
    }

    /// Raises the length to at least `end`. The caller holds `invalidate` shared.
    pub(crate) fn grow(&self, end: u64) {
        // Relaxed: it does not shrink meanwhile; what is seen as long enough is left alone, for most writes grow nothing.
        if self.len.load(Ordering::Relaxed) < end {
            // AcqRel: see `len`.
            self.len.fetch_max(end, Ordering::AcqRel);
        }
    }

    /// Sets the length. The caller holds `invalidate` exclusive.
    pub(crate) fn set_len(&self, len: u64) {
        // Release: see `len`.
        self.len.store(len, Ordering::Release);
    }

    pub(crate) fn nr_dirty(&self) -> u64 {
        // Relaxed: a hint; exact under the dirty lock.
        self.nr_dirty.load(Ordering::Relaxed)
    }

    /// Mirrors the dirty list's length. Under the dirty lock.
    pub(crate) fn set_nr_dirty(&self, n: u64) {
        // Relaxed: as above.
        self.nr_dirty.store(n, Ordering::Relaxed);
    }

    /// Counts a request into writeback; the parity to give back at its end. `Err`: the epoch was turned meanwhile; the
    /// count must be ended under that parity, and its sleepers woken, before another try.
    pub(crate) fn try_begin_writeback(&self) -> Result<u64, u64> {
        // SeqCst on both, against `turn_sync_epoch` and `writeback_drained`: a submission either sees the new epoch or
        // its count is seen by the sync that turned it.
        let epoch = self.sync_epoch.load(Ordering::SeqCst);
        self.in_writeback[(epoch & 1) as usize].fetch_add(1, Ordering::SeqCst);
        if self.sync_epoch.load(Ordering::SeqCst) == epoch {
            Ok(epoch & 1)
        } else {
            Err(epoch & 1)
        }
    }

    /// Counts a page out; true when its half is empty now.
    pub(crate) fn end_writeback(&self, parity: u64) -> bool {
        // SeqCst: as above; the sync that then sees zero also sees the outcome of the write.
        self.in_writeback[(parity & 1) as usize].fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// The parity that no submission counts in now. The caller holds `sync_turn`.
    pub(crate) fn idle_parity(&self) -> u64 {
        // SeqCst: as above.
        (self.sync_epoch.load(Ordering::SeqCst) & 1) ^ 1
    }

    /// Begins a new sync epoch; the parity of the old one. The caller holds `sync_turn`.
    pub(crate) fn turn_sync_epoch(&self) -> u64 {
        self.sync_epoch.fetch_add(1, Ordering::SeqCst) & 1
    }

    /// What is under writeback of one parity.
    pub(crate) fn nr_writeback_of(&self, parity: u64) -> u64 {
        self.in_writeback[(parity & 1) as usize].load(Ordering::SeqCst)
    }

    /// Is nothing of `parity` under writeback?
    pub(crate) fn writeback_drained(&self, parity: u64) -> bool {
        self.nr_writeback_of(parity) == 0
    }

    /// Pages under writeback.
    pub(crate) fn nr_writeback(&self) -> u64 {
        self.in_writeback
            .iter()
            .map(|n| n.load(Ordering::SeqCst))
            .sum()
    }

    /// A read is submitted: by a task that has a handle.
    pub(crate) fn begin_loading(&self) {
        // Relaxed: ordered for who finds no handle by `is_unused`.
        self.loading.fetch_add(1, Ordering::Relaxed);
    }

    /// It has ended: the mapping may go.
    pub(crate) fn end_loading(&self) {
        // Release: what its completion did to the pages is done for who sees the count.
        self.loading.fetch_sub(1, Ordering::Release);
    }

    /// Reads in flight.
    pub(crate) fn nr_loading(&self) -> u64 {
        // Acquire: pairs with `end_loading`.
        self.loading.load(Ordering::Acquire)
    }

    /// The generation of pages dirtied now.
    pub(crate) fn dirty_generation(&self) -> u64 {
        // Relaxed: read and advanced under the dirty lock.
        self.dirty_generation.load(Ordering::Relaxed)
    }

    /// Ends the dirty generation and returns it. Under the dirty lock.
    pub(crate) fn turn_dirty_generation(&self) -> u64 {
        // Relaxed: as above.
        self.dirty_generation.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes how a write ended.
    pub(crate) fn note_write(&self, ok: bool, now_ns: u64) {
        // Relaxed: times and progress for policy; the error count is ordered by `end_writeback`.
        self.writes_ended.fetch_add(1, Ordering::Relaxed);
        if ok {
            if self.failing_since_ns.load(Ordering::Relaxed) != 0 {
                self.failing_since_ns.store(0, Ordering::Relaxed);
                self.retry_at_ns.store(0, Ordering::Relaxed);
            }
            return;
        }
        self.write_errors.fetch_add(1, Ordering::Relaxed);
        let since = self.failing_since_ns.load(Ordering::Relaxed);
        let since = if since == 0 { now_ns.max(1) } else { since };
        self.failing_since_ns.store(since, Ordering::Relaxed);
        // Back off: as long again as it has failed, between 20 ms and 1 s.
        let back_off = (now_ns.saturating_sub(since)).clamp(20_000_000, 1_000_000_000);
        self.retry_at_ns.store(now_ns + back_off, Ordering::Relaxed);
    }

    /// Keeps the flusher from this mapping until `at`.
    pub(crate) fn hold_off(&self, at: Nanos) {
        // Relaxed: policy.
        self.retry_at_ns.store(at.0, Ordering::Relaxed);
    }

    /// Failed writes so far.
    pub(crate) fn write_errors(&self) -> u64 {
        // Relaxed: ordered by `writeback_drained`.
        self.write_errors.load(Ordering::Relaxed)
    }

    /// Writes that have ended so far. It only has to change while the device answers.
    pub(crate) fn writes_ended(&self) -> u64 {
        // Relaxed: as above.
        self.writes_ended.load(Ordering::Relaxed)
    }

    /// Failed flushes so far, in 16 bits: a write in flight during one may be lost by it.
    pub(crate) fn flush_failures(&self) -> u16 {
        // Relaxed: ordered by the dirty lock, see `note_flush_failure`.
        self.flush_failures.load(Ordering::Relaxed) as u16
    }

    /// A flush has failed. From the end of this call on, a write that ends sees it, and those that have ended before are
    /// seen by the caller, since both pass the dirty lock.
    pub(crate) fn note_flush_failure<W: World>(&self, world: &W) {
        // Relaxed: as above.
        self.flush_failures.fetch_add(1, Ordering::Relaxed);
        drop(self.dirty.lock(world));
    }

    /// The first page of an empty dirty list becomes dirty. Under the dirty lock.
    pub(crate) fn note_first_dirty(&self, now: Nanos) {
        // Relaxed: policy.
        self.dirty_since_ns.store(now.0, Ordering::Relaxed);
    }

    /// How long the mapping has had dirty pages, in nanoseconds.
    pub(crate) fn dirty_since(&self, now: Nanos) -> u64 {
        // Relaxed: policy.
        now.0
            .saturating_sub(self.dirty_since_ns.load(Ordering::Relaxed))
    }

    /// Has it no handle?
    pub(crate) fn is_unused(&self) -> bool {
        // Acquire: what the last handle did is visible.
        self.handles.load(Ordering::Acquire) == 0
    }

    /// For how long every write has failed, in nanoseconds.
    pub(crate) fn failing_for(&self, now_ns: u64) -> u64 {
        // Relaxed: policy.
        match self.failing_since_ns.load(Ordering::Relaxed) {
            0 => 0,
            since => now_ns.saturating_sub(since).max(1),
        }
    }

    /// May the flusher try this mapping now?
    pub(crate) fn may_retry(&self, now_ns: u64) -> bool {
        // Relaxed: policy.
        now_ns >= self.retry_at_ns.load(Ordering::Relaxed)
    }
}

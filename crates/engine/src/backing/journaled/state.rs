//! What a volume has in memory, behind its one lock, and how tasks wait for it.
//!
//! The lock is held for look-ups and changes only: never across I/O, an allocation, the drop of a frame, a completion or a
//! wake-up. A task waits by leaving its name in `waiters` and parking; whoever makes something true that a task may wait
//! for takes all names out and unparks them.

use super::extent_map::ExtentMap;
use super::extent_map::Mapped;
use super::log::Log;
use super::record::Change;
use super::space::Space;
use super::{Volume, VolumeInfo};
use crate::error::IoError;
use crate::io::Request;
use crate::sync::LockGuard;
use crate::world::{Nanos, TaskId};
use crate::zone::LentFrame;
use std::collections::BTreeSet;

/// A request on its way to the device, made by the volume. Its cookie is its place.
pub(super) enum Flight {
    /// Of log or checkpoint, with the memory.
    Frames(Vec<LentFrame>),
    /// Of pages of these requests.
    Data(Vec<usize>),
    /// Pages of this request: the first, and where they were when the read began.
    Read {
        parent: usize,
        first: u64,
        mapped: Vec<Mapped>,
    },
}

/// A request of the cache, and what is still to be done for it.
pub(super) struct Parent {
    pub request: Request,
    /// Requests of ours that have not ended.
    pub left: u32,
    pub error: Option<IoError>,
    /// For a write: where each page goes.
    pub mapped: Vec<Mapped>,
}

/// Things with small numbers as names.
pub(super) struct Slab<T> {
    all: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab {
            all: Vec::new(),
            free: Vec::new(),
        }
    }
    pub(super) fn insert(&mut self, t: T) -> usize {
        let at = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            self.all.len() - 1
        });
        self.all[at] = Some(t);
        at
    }
    pub(super) fn get(&mut self, at: usize) -> &mut T {
        self.all[at].as_mut().expect("JRN-5: named and there")
    }
    pub(super) fn take(&mut self, at: usize) -> T {
        let t = self.all[at].take();
        self.free.push(at);
        t.expect("JRN-5: taken once")
    }
    pub(super) fn len(&self) -> usize {
        self.all.len() - self.free.len()
    }
}

/// Counts since the mount.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub data_writes: u64,
    pub data_bytes: u64,
    pub log_blocks: u64,
    pub log_ahead: u64,
    pub checkpoints: u64,
    pub commits: u64,
    pub failed_commits: u64,
}

pub(super) struct State {
    pub map: ExtentMap<LentFrame>,
    pub space: Box<Space>,
    /// The file's length in bytes.
    pub len: u64,
    /// The turn: `None` while somebody has it.
    pub log: Option<Box<Log>>,
    /// As of the end of the last turn, for reports.
    pub log_used: u64,
    pub transactions: u64,
    /// Completed and not in the log yet, in the order of completion. Empty while `rewrite`.
    pub changes: Vec<Change>,
    /// The log has not all of it: the next commit writes a checkpoint.
    pub rewrite: bool,
    /// The last commit failed: until the cache has said which pages it writes again, only its own flush may commit.
    pub failed: bool,
    /// A flush has failed, and the cache has not heard of it.
    pub untold: Option<IoError>,
    /// Pages whose last write a failed flush may have lost, and whose next one has not ended.
    pub doubtful: BTreeSet<u64>,
    /// Pages with space and no leaf to pin: dirty again behind a truncation or a hole, and about to be dropped.
    pub leafless: BTreeSet<u64>,
    /// The number of the last change, and of the last one that is durable.
    pub changed: u64,
    pub durable: u64,
    /// Blocks that dirty pages are sure to get.
    pub reserved: u64,
    /// Blocks given out since the last commit, and before the one that is under way.
    pub unsettled: u64,
    pub settling: u64,
    /// Those of them whose writes have not ended: no commit that begins now covers them.
    pub flying: u64,
    pub flights: Slab<Flight>,
    pub parents: Slab<Parent>,
    pub log_writes: u64,
    pub log_error: Option<IoError>,
    pub pool: Vec<LentFrame>,
    pub waiters: Vec<TaskId>,
    pub stats: Counts,
}

impl State {
    /// From here to the next commit the log is of no use.
    pub(super) fn give_up_log(&mut self) {
        self.rewrite = true;
        self.changes = Vec::new();
    }

    /// The last completed write of a page may be lost (JRN-6): true, unless there is none, or a commit has made it durable.
    pub(super) fn doubt(&mut self, page: u64) -> bool {
        let young = (self.map.get(page)).is_some_and(|m| self.space.is_young(m.block));
        if young {
            self.doubtful.insert(page);
        }
        young
    }

    /// Notes that something has changed that the disk does not know yet.
    pub(super) fn note(&mut self, change: Change) {
        self.changed += 1;
        if !self.rewrite {
            self.changes.push(change);
        }
    }

    /// Blocks that a writer could still reserve. Kept back: `slack`, what is reserved, and what a failed flush would ask for
    /// a second time, of pages that are still among the cache's `frames`: the blocks given out since the last commit, and
    /// those that will be.
    pub(super) fn available(&self, slack: u64, frames: u64) -> u64 {
        let again = (self.unsettled + self.settling + self.reserved).min(frames);
        let spoken_for = self.reserved + again + slack;
        self.space.free().saturating_sub(spoken_for)
    }

    /// As `available`, for one block that is written and flushed at once. What is dirty may have to be written one part after
    /// the other then, should flushes fail.
    pub(super) fn has_one(&self, frames: u64) -> bool {
        let again = (self.unsettled + self.settling).min(frames);
        self.space.free() > self.reserved + again
    }

    pub(super) fn take_waiters(&mut self) -> Vec<TaskId> {
        std::mem::take(&mut self.waiters)
    }
}

impl Volume {
    /// The state, locked.
    pub(super) fn state(&self) -> LockGuard<'_, State> {
        self.state.lock_for(self.memory.task())
    }

    /// Sleeps until `ready` gives something, or until `until`.
    pub(super) fn wait<R>(
        &self,
        until: Nanos,
        mut ready: impl FnMut(&mut State) -> Option<R>,
    ) -> Option<R> {
        let me = self.memory.task().id();
        loop {
            {
                let mut st = self.state();
                let found = ready(&mut st);
                let late = found.is_none() && self.memory.now() >= until;
                st.waiters.retain(|t| *t != me);
                if found.is_some() || late {
                    return found;
                }
                // Under the same lock as the look: who makes it true later finds us.
                st.waiters.push(me);
            }
            self.memory.park(until);
        }
    }

    pub(super) fn wake(&self, tasks: Vec<TaskId>) {
        for task in tasks {
            self.memory.unpark(task);
        }
    }

    /// Sizes and counts, as of now.
    pub fn info(&self) -> VolumeInfo {
        let g = &self.geometry;
        let st = self.state();
        VolumeInfo {
            version: super::VERSION,
            uuid: self.uuid,
            block_size: g.block_size,
            capacity: g.capacity,
            len: st.len,
            blocks: g.blocks,
            data_blocks: g.data_blocks(),
            used: st.map.mapped(),
            free: st.space.free(),
            pending: st.space.pending(),
            reserved: st.reserved,
            extents: st.map.nr_extents(),
            map_frames: st.map.leaves() as u64,
            log_blocks: g.log_blocks,
            log_used: st.log_used,
            transactions: st.transactions,
            commits: st.stats.commits,
            failed_commits: st.stats.failed_commits,
            checkpoints: st.stats.checkpoints,
            log_writes: st.stats.log_blocks,
            log_writes_ahead: st.stats.log_ahead,
            data_writes: st.stats.data_writes,
            data_bytes: st.stats.data_bytes,
        }
    }

    /// JRN-2, JRN-5, MAP-JRN-1 and SPACE-1, while no task is inside.
    pub fn check_invariants(&self) {
        let st = self.state();
        st.map.check_invariants();
        st.space.check_invariants();
        let pins = st.map.pins() + st.leafless.len() as u64;
        assert_eq!(pins, st.reserved, "MAP-JRN-1: a pin for each reservation");
        assert_eq!(st.flights.len() + st.parents.len(), 0, "JRN-5: in flight");
        let used = self.geometry.data_blocks() - st.space.free() - st.space.pending();
        assert_eq!(used, st.map.mapped(), "JRN-2: each used block has a page");
    }
}

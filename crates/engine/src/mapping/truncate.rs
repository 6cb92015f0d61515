//! Truncation and eviction: pages that leave the index because the user says so.
//!
//! Shrinking takes the invalidate lock exclusively, so no page is installed, dirtied or submitted meanwhile; waits for the
//! writes in flight; shortens the file; then unlinks the pages beyond. A page that is being read becomes an orphan: its
//! late fill is thrown away. A page that is held becomes an orphan that its last holder frees.
//!
//! **Kernel.** truncate.c: truncate_setsize, truncate_inode_pages_range, invalidate_mapping_pages.

use super::Mapping;
use super::filemap::{Found, too_many};
use crate::engine::Engine;
use crate::error::Error;
use crate::frame::state::{HASHED, LOADING, ORPHAN};
use crate::wait::{Channel, Waited};
use crate::world::World;
use crate::writeback::Latched;
use std::ops::Range;
use std::sync::Arc;

impl<W: World> Engine<W> {
    /// Sets a file's length.
    pub(crate) fn truncate(&self, m: &Arc<Mapping>, len: u64) -> Result<(), Error> {
        let until = self.world.now().plus(self.config().latch_timeout);
        loop {
            self.lock_invalidate(m)?;
            let result = self.may_change();
            let result = result.and_then(|()| self.truncate_locked(m, len));
            m.invalidate.unlock(&*self.world, &self.waits);
            let Some((frame, seen)) = result? else {
                return Ok(());
            };
            // Waited for without the invalidate lock: who holds a guard of this page may need that lock for another one.
            let waited = self.wait_exclusive(frame, seen, until);
            // The next turn may find another length, and not come back to this page.
            self.stop_waiting_exclusive(frame);
            if waited == Waited::TimedOut {
                return Err(Error::Busy {
                    page: len >> self.page_shift,
                    waited: self.config().latch_timeout,
                });
            }
        }
    }

    /// Punches a hole: the whole pages of `range`, dirty or not, leave memory, and the backing gives up their contents. A
    /// guard that is alive keeps its bytes to itself, as if it had been dropped before.
    pub(crate) fn discard_range(&self, m: &Mapping, range: Range<u64>) -> Result<(), Error> {
        let size = self.memory.frame_size() as u64;
        self.lock_invalidate(m)?;
        let result = self.may_change();
        let result = result.and_then(|()| self.discard_locked(m, range, size));
        m.invalidate.unlock(&*self.world, &self.waits);
        result
    }

    fn discard_locked(&self, m: &Mapping, range: Range<u64>, size: u64) -> Result<(), Error> {
        let len = m.len();
        let first = range.start.min(len).div_ceil(size);
        let end = if range.end >= len {
            self.pages_of(len)
        } else {
            range.end / size
        };
        if first >= end {
            return Ok(());
        }
        self.wait_drained(m)?;
        let (from, to) = (first * size, (end * size).min(len));
        let failed = |e| Error::io("discard", e);
        if m.backing.len().map_err(failed)? < to {
            // The file ends so far out because of pages that nobody will write now.
            m.backing.truncate(len).map_err(failed)?;
        }
        m.backing.discard(from, to - from).map_err(failed)?;
        {
            let mut durability = m.durability.lock(&*self.world);
            match m.reserves {
                // Its log has the hole, and keeps it until it is durable.
                true => durability.note_changed(),
                // The device may have written zeroes: a flush that fails may lose them.
                false => durability.note_hole(first..end),
            }
        }
        if !planted!(self, StaleHole) {
            self.unlink_range(m, first..end);
        }
        Ok(())
    }

    pub(crate) fn lock_invalidate(&self, m: &Mapping) -> Result<(), Error> {
        self.wait_while_written(m, "the file's invalidate lock", |until| {
            m.invalidate
                .lock(&*self.world, &self.stat, &self.waits, until)
        })
    }

    /// Truncates; or does nothing and names the frame, and its state, of the page that will be the last, which somebody
    /// holds.
    fn truncate_locked(&self, m: &Arc<Mapping>, len: u64) -> Result<Option<(u32, u64)>, Error> {
        let old = m.len();
        let size = self.memory.frame_size() as u64;
        // A write in flight would lengthen the file again.
        self.wait_drained(m)?;
        let mut tail = None;
        if len < old && !len.is_multiple_of(size) {
            let key = super::Key {
                mapping: m.id,
                page: len / size,
            };
            tail = match self.find_locked(key, |f| self.frames.get(f).state.try_excl()) {
                Found::Held(frame) => Some(frame),
                Found::Miss => None,
                Found::Full => return Err(too_many(key.page)),
                Found::Busy(frame, seen) => return Ok(Some((frame, seen))),
            };
        }
        let result = m.backing.truncate(len);
        if result.is_ok() {
            m.set_len(len);
            m.durability.lock(&*self.world).note_changed();
            if len < old {
                self.unlink_range(m, len.div_ceil(size)..self.pages_of(old));
            }
            if let Some(frame) = tail {
                self.memory.zero_from(frame, (len % size) as usize);
            }
        }
        if let Some(frame) = tail {
            self.release(frame, crate::frame::state::EXCL, 0);
        }
        result.map(|()| None).map_err(|e| Error::io("truncate", e))
    }

    /// Waits for every write in flight. The caller holds the invalidate lock exclusively, so none is submitted.
    fn wait_drained(&self, m: &Mapping) -> Result<(), Error> {
        self.wait_progress(
            Channel::Writeback(m.id),
            || m.nr_writeback(),
            || m.nr_writeback() == 0,
        )
    }

    /// Calls `f` for each frame of the mapping with a page in the range; a hint, as pages come and go.
    pub(crate) fn for_each_resident(
        &self,
        m: &Mapping,
        pages: Range<u64>,
        mut f: impl FnMut(u64, u32),
    ) {
        let span = pages.end.saturating_sub(pages.start);
        if span <= self.frames.len() as u64 / 4 {
            for page in pages {
                if let Some(frame) = self.find_frame(m.id, page) {
                    f(page, frame);
                }
            }
            return;
        }
        for (i, frame) in self.frames.iter() {
            let page = frame.page();
            if frame.state.load() & HASHED != 0
                && frame.mapping() == m.id
                && pages.contains(&page)
                && self.find_frame(m.id, page) == Some(i)
            {
                f(page, i);
            }
        }
    }

    /// Takes the pages of the range out of the index, dirty or not. The caller holds the invalidate lock exclusively
    /// and no write of the mapping is in flight; or nobody else can reach the mapping.
    pub(crate) fn unlink_range(&self, m: &Mapping, pages: Range<u64>) {
        self.for_each_resident(m, pages, |page, frame| {
            if planted!(self, StaleFill) && self.frames.get(frame).state.peek() & LOADING != 0 {
                return;
            }
            if !self.unhash(m, frame) {
                return;
            }
            let hash = self.index.hash(super::Key {
                mapping: m.id,
                page,
            });
            self.shadows.forget(hash);
            self.cancel_dirty(m, frame);
            self.release(frame, 0, ORPHAN);
        });
    }

    /// Writes back and drops the pages of the range that nobody holds; how many.
    pub(crate) fn evict_range(&self, m: &Arc<Mapping>, pages: Range<u64>) -> Result<u64, Error> {
        let errors = m.write_errors();
        self.take_sync_turn(m)?;
        let written = self.write_and_wait(m, &pages, Latched::Leave);
        m.sync_turn.unlock(&*self.world, &self.waits);
        written?;
        if m.write_errors() != errors {
            let last = m.durability.lock(&*self.world).last_error();
            return Err(Error::io("write", last));
        }
        let mut dropped = 0;
        self.for_each_resident(m, pages, |_, frame| {
            if self.frames.get(frame).state.peek() & LOADING == 0 && self.reclaim_one(frame) {
                dropped += 1;
            }
        });
        Ok(dropped)
    }
}

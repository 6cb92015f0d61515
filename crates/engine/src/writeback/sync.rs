//! Sync: everything that was written before the call is on the device and survives a crash, or the caller gets an error.
//!
//! It ends the dirty generation and writes the pages of that generation and older ones; it ends the sync epoch and waits
//! for the writes submitted in the old one, whoever submitted them; then it flushes. Pages dirtied meanwhile belong to
//! the next sync: it does not chase. One sync of a file runs at a time.
//!
//! **Context.** A task without locks or latches. Waits for latches, bounded, naming the page.
//!
//! **Invariants.**
//! - SYNC-A: a write that returned before `sync` was called has its page dirty with a generation of at most the ended
//!   one, or in writeback counted in an epoch that is waited for, or completed.
//! - SYNC-B: a sync returns Ok only if no write that it waited for failed, and the flush after them succeeded.
//!
//! **Kernel.** file_write_and_wait_range, vfs_fsync_range, errseq_t.

use crate::backing::WriteContext;
use crate::engine::Engine;
use crate::error::Error;
use crate::frame::state::{DIRTY, EXCL, HASHED, LOADING, WRITEBACK};
use crate::mapping::{Key, Mapping};
use crate::sync::Ordering;
use crate::trace::Event;
use crate::wait::{Channel, Waited};
use crate::world::{Nanos, World};
use crate::writeback::wbt::Room;
use std::ops::Range;
use std::sync::Arc;

/// What a sync makes durable beside the pages' bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// What is needed to read them again (`fdatasync`).
    Data,
    /// The file's attributes too (`fsync`).
    All,
}

/// What becomes of a dirty page that somebody has latched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Latched {
    /// It is waited for.
    Await,
    /// It stays as it is.
    Leave,
}

/// Pages looked at in one go.
const BATCH: usize = 4096;
/// Write requests in flight beyond which a sync waits for some to end.
const IN_FLIGHT_MAX: u64 = 1024;
/// After how long the flush of a file that nobody has open is tried again.
const FLUSH_RETRY: Nanos = Nanos::from_secs(1);

impl<W: World> Engine<W> {
    /// Makes the pages of `pages` durable. `heard`: a user gets the error; one that nobody gets stays unseen.
    #[doc(alias = "vfs_fsync_range")]
    pub(crate) fn sync_mapping(
        &self,
        m: &Arc<Mapping>,
        pages: &Range<u64>,
        scope: Scope,
        heard: bool,
    ) -> Result<(), Error> {
        self.count(Event::Syncs, 1);
        self.take_sync_turn(m)?;
        let result = self.sync_in_turn(m, pages, scope, heard);
        m.sync_turn.unlock(&*self.world, &self.waits);
        result
    }

    pub(crate) fn take_sync_turn(&self, m: &Mapping) -> Result<(), Error> {
        self.wait_while_written(m, "another sync of the file", |until| {
            m.sync_turn
                .lock(&*self.world, &self.stat, &self.waits, until)
        })
    }

    /// Waits for another task that waits for writes of the file: `wait`, again and again, for as long as one ends in each I/O
    /// deadline. A device that is slow answers, one that hangs does not.
    pub(crate) fn wait_while_written(
        &self,
        m: &Mapping,
        what: &'static str,
        mut wait: impl FnMut(Nanos) -> Waited,
    ) -> Result<(), Error> {
        let start = self.world.now();
        let mut since = start;
        loop {
            let ended = m.writes_ended();
            if wait(since.plus(self.config().io_timeout)) == Waited::Ready {
                return Ok(());
            }
            since = self.world.now();
            if m.writes_ended() == ended {
                return Err(Error::TimedOut {
                    what,
                    waited: since.since(start),
                });
            }
        }
    }

    fn sync_in_turn(
        &self,
        m: &Arc<Mapping>,
        pages: &Range<u64>,
        scope: Scope,
        heard: bool,
    ) -> Result<(), Error> {
        let errors = m.write_errors();
        let early = planted!(self, EarlyFlush).then(|| self.flush_mapping(m, scope, heard));
        let written = self.write_and_wait(m, pages, Latched::Await);
        let failed = m.write_errors() != errors;
        if heard && (failed || written.is_ok()) {
            // Also an error of the background that nobody has seen: it is told once.
            let unseen = m.durability.lock(&*self.world).take_unseen();
            if let Some((op, e)) = unseen {
                return Err(Error::io(op, e));
            }
        }
        written?;
        let flushed = early.unwrap_or_else(|| self.flush_mapping(m, scope, heard));
        if heard && flushed.is_err() {
            m.durability.lock(&*self.world).take_unseen();
        }
        flushed
    }

    /// Flushes a file that nobody has open: for the flusher, when it has nothing else to do. Waits for nobody's sync; an
    /// error stays unseen, for the next open and for `close`. True when it has tried.
    pub(super) fn flush_unused(&self, m: &Arc<Mapping>) -> bool {
        let now = self.world.now();
        let owed = m.durability.lock(&*self.world).needs_flush();
        if !owed || m.nr_dirty() > 0 || m.nr_writeback() > 0 || !m.may_retry(now.0) {
            return false;
        }
        let turn = m.sync_turn.lock(&*self.world, &self.stat, &self.waits, now);
        if turn == Waited::TimedOut {
            return false;
        }
        if self.flush_mapping(m, Scope::Data, false).is_err() {
            m.hold_off(now.plus(FLUSH_RETRY));
        }
        m.sync_turn.unlock(&*self.world, &self.waits);
        true
    }

    /// Writes the dirty pages of the range and waits for every write submitted so far. Each page gets its try, although others
    /// fail: those come back to the list, behind the ones that have not been tried. The caller holds `sync_turn`.
    pub(crate) fn write_and_wait(
        &self,
        m: &Arc<Mapping>,
        pages: &Range<u64>,
        latched: Latched,
    ) -> Result<(), Error> {
        let generation = {
            let _dirty = m.dirty.lock(&*self.world);
            m.turn_dirty_generation()
        };
        let errors = m.write_errors();
        let wanted = |f| {
            let f = self.frames.get(f);
            f.generation() <= generation && pages.contains(&f.page())
        };
        let mut batch = Vec::new();
        let mut untried = m.nr_dirty();
        if pages.start > 0 || pages.end < self.pages_of(m.len()) {
            // Those elsewhere are not ours to try. Looked at, and none is taken.
            untried = 0;
            self.collect_dirty(m, &mut batch, 1, |f| {
                untried += u64::from(wanted(f));
                false
            });
        }
        let mut wrote = false;
        loop {
            self.collect_dirty(m, &mut batch, BATCH, wanted);
            if batch.is_empty() || untried == 0 && m.write_errors() != errors {
                break;
            }
            self.invalidate_shared(m)?;
            self.invalidate_put(m);
            let done = self.write_batch(m, &batch, WriteContext::Sync, Room::UNLIMITED);
            wrote |= done.pages > 0;
            untried = untried.saturating_sub(done.pages);
            if done.pages == 0 && !self.wait_for_busy(m, &batch, latched)? {
                break;
            }
            self.wait_for_room(m)?;
        }
        if planted!(self, EarlySync) && !wrote {
            return Ok(());
        }
        self.wait_submitted(m)
    }

    /// Keeps the number of requests in flight bounded.
    fn wait_for_room(&self, m: &Mapping) -> Result<(), Error> {
        // Relaxed: it only has to change while the device answers.
        let written = || m.dev.written.load(Ordering::Relaxed) + m.write_errors();
        self.wait_progress(Channel::Progress, written, || {
            m.dev.in_flight() < IN_FLIGHT_MAX
        })
    }

    /// Sleeps until `ready`, for as long as `progress` changes at least once in each I/O deadline: a device that is slow
    /// answers, one that hangs does not.
    pub(crate) fn wait_progress(
        &self,
        channel: Channel,
        progress: impl Fn() -> u64,
        ready: impl Fn() -> bool,
    ) -> Result<(), Error> {
        let limit = self.config().io_timeout;
        let mut seen = progress();
        let mut since = self.world.now();
        loop {
            // Looked at a few times in each deadline, so that the error comes soon after it.
            let turn = Nanos((limit.0 / 8).max(1));
            let until = self.world.now().plus(turn).min(since.plus(limit));
            let waited = self
                .waits
                .wait(&*self.world, &self.stat, channel, until, &ready);
            if waited == Waited::Ready {
                return Ok(());
            }
            let now = self.world.now();
            if progress() != seen {
                seen = progress();
                since = now;
            } else if now >= since.plus(limit) {
                return Err(Error::TimedOut {
                    what: "writeback",
                    waited: now.since(since),
                });
            }
        }
    }

    /// Every page of the batch was latched or waits for an older copy's write: waits for the first. The caller holds
    /// `sync_turn`. False when there is none but latched ones, which are left.
    fn wait_for_busy(
        &self,
        m: &Arc<Mapping>,
        batch: &[(u64, u32)],
        latched: Latched,
    ) -> Result<bool, Error> {
        let until = self.world.now().plus(self.config().latch_timeout);
        let mut more = latched == Latched::Await;
        for (page, frame) in batch {
            if m.dirty.lock(&*self.world).superseded(*page).is_some() {
                // Behind all that is in flight, perhaps. It has to end before this sync does in any case.
                self.wait_submitted(m)?;
                return Ok(true);
            }
            let s = self.frames.get(*frame).state.peek();
            if s & DIRTY == 0 || self.frames.get(*frame).page() != *page {
                return Ok(true);
            }
            if s & (EXCL | LOADING | WRITEBACK) == 0 {
                more = true;
                continue;
            }
            if latched == Latched::Leave && s & WRITEBACK == 0 {
                continue;
            }
            let waited = self.wait_frame(*frame, s, until, |s| {
                s & HASHED == 0 || s & (EXCL | LOADING | WRITEBACK) == 0
            });
            return match waited {
                Waited::Ready => Ok(true),
                Waited::TimedOut => Err(Error::Busy {
                    page: *page,
                    waited: self.config().latch_timeout,
                }),
            };
        }
        Ok(more)
    }

    /// Waits for every write of the mapping submitted so far. The caller holds `sync_turn`.
    pub(crate) fn wait_submitted(&self, m: &Mapping) -> Result<(), Error> {
        // SYNC-A: a sync that timed out has left writes of its epoch in flight. Their half is used again from the turn
        // on, so they must have ended before it.
        self.wait_half(m, m.idle_parity())?;
        self.wait_half(m, m.turn_sync_epoch())
    }

    /// Waits for the writes counted in one half. Nothing is added to it meanwhile, so each change is an end.
    fn wait_half(&self, m: &Mapping, parity: u64) -> Result<(), Error> {
        self.wait_progress(
            Channel::Writeback(m.id),
            || m.nr_writeback_of(parity),
            || m.writeback_drained(parity),
        )
    }

    /// Flushes the device's cache and settles what that says about the pages. `heard`: a user gets the error.
    pub(crate) fn flush_mapping(
        &self,
        m: &Arc<Mapping>,
        scope: Scope,
        heard: bool,
    ) -> Result<(), Error> {
        let epoch = {
            let mut d = m.durability.lock(&*self.world);
            if !d.needs_flush() && scope == Scope::Data {
                return self.lost_or_ok(&mut d, heard);
            }
            d.begin_flush()
        };
        self.count(Event::Flushes, 1);
        let flushed = match scope {
            Scope::Data => m.backing.flush(),
            Scope::All => m.backing.flush_all(),
        };
        match flushed {
            Ok(()) => {
                let mut d = m.durability.lock(&*self.world);
                d.flush_ok(epoch);
                self.lost_or_ok(&mut d, heard)
            }
            Err(e) => {
                self.count(Event::FlushErrors, 1);
                let flushed = m.durability.lock(&*self.world).flush_failed(e);
                // Between any two of these steps pages are written, dirtied and reclaimed.
                self.world.cond_resched();
                m.note_flush_failure(&*self.world);
                self.world.cond_resched();
                self.redirty_unflushed(m, flushed);
                let mut d = m.durability.lock(&*self.world);
                self.lost_or_ok(&mut d, heard)?;
                Err(Error::io("flush", e))
            }
        }
    }

    fn lost_or_ok(&self, d: &mut crate::mapping::Durability, heard: bool) -> Result<(), Error> {
        let lost = if heard { d.tell_lost() } else { d.lost() };
        if lost.is_empty() {
            return Ok(());
        }
        let size = self.memory.frame_size() as u64;
        Err(Error::DurabilityLost {
            ranges: lost.iter().map(|r| r.start * size..r.end * size).collect(),
        })
    }

    /// After a failed flush: clean pages in memory that were written since the last good one are dirty again, latched or
    /// not. Frame after frame upwards: a page that moves meanwhile moves to a higher one (COMPACT-2). The region lock keeps the page in its frame; a reclaimer that has claimed it looks again under that lock.
    fn redirty_unflushed(&self, m: &Mapping, flushed: u64) {
        for (frame, f) in self.frames.iter() {
            let clean = f.state.load() & (DIRTY | WRITEBACK) == 0;
            if f.mapping() != m.id || (clean && f.generation() <= flushed) {
                continue;
            }
            let page = f.page();
            self.world.cond_resched();
            let hash = self.index.hash(Key {
                mapping: m.id,
                page,
            });
            let mut dirty = m.dirty.lock(&*self.world);
            let region = self.index_region(hash);
            let here = region.find(hash, |found| found == frame).is_some()
                && f.mapping() == m.id
                && f.page() == page;
            let clean = f.state.load() & (DIRTY | WRITEBACK) == 0;
            if here && clean && f.generation() > flushed && m.reserves && m.backing.is_durable(page)
            {
                f.set_generation(flushed);
            } else if here && clean && f.generation() > flushed {
                self.enter_dirty(m, &mut dirty, frame, DIRTY);
                f.set_generation(m.dirty_generation());
                if m.reserves {
                    m.backing.redirtied(page);
                }
            } else if here && !clean && m.reserves {
                // The write before the one that it waits for, or is in, may be lost.
                m.backing.doubted(page);
            }
        }
    }

    /// Pages dirty or under writeback.
    pub(crate) fn nr_unclean(&self) -> u64 {
        // Relaxed: policy.
        self.dirty_pages.load(Ordering::Relaxed) + self.writeback_pages.load(Ordering::Relaxed)
    }
}

//! Commits: what `flush` promises.
//!
//! ```text
//! log blocks ──┐
//! data blocks ─┴─ device flush ── last log block, marked COMMIT, and a copy ── device flush ── old blocks are free
//! ```
//! The last log block carries the rest of the changes and the mark. It is written only when all that it relies on is
//! durable: a recovery that finds it may believe everything before it (JRN-4). It is written twice: a damaged last block
//! would look like one that a power failure has cut short, and the commit before it like the newest state. Either of the two
//! says all, so that one damaged block takes back nothing that was acknowledged.
//!
//! One commit serves everyone who came before it began; those who come later share the next one. When a commit has failed, or
//! the log could not take everything, the next one writes the whole map as a checkpoint, under both superblocks.
//!
//! After a failure nothing is claimed, and nothing may be committed until the cache has marked the pages that it writes
//! again: their blocks may be lost, and the blocks that the disk's state has for them must not be (JRN-6). A flush that fails
//! where the cache does not see it (a writer's commit for space, a checkpoint after a commit) is kept as *untold*: the
//! cache's next flush fails for it, so that the pages it may have lost are known.

use super::checkpoint::Superblocks;
use super::log::Log;
use super::{COMMIT_TIMEOUT, Volume};
use crate::error::{IoError, IoErrorKind};
use crate::world::Nanos;

/// Who wants a commit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The cache: it deals with a failure.
    Flush,
    /// A writer who needs the blocks that a commit sets free.
    Space,
}

impl Volume {
    /// Makes all that has completed durable.
    pub(super) fn commit(&self, why: Why) -> Result<(), IoError> {
        let until = self.memory.now().plus(COMMIT_TIMEOUT);
        let want = {
            let mut st = self.state();
            if why == Why::Space && (st.failed || !st.doubtful.is_empty()) {
                return Err(IoError::new(IoErrorKind::NoSpace, 0));
            }
            if let Some(e) = st.untold.take()
                && !planted!(self, UntoldFlush)
            {
                return Err(e);
            }
            st.changed
        };
        let turn = self.wait(until, |st| {
            if st.durable >= want {
                return Some(None);
            }
            st.log.take().map(Some)
        });
        let mut log = match turn {
            None => return Err(IoError::new(IoErrorKind::TimedOut, 0)),
            // Somebody else's commit was ours, too.
            Some(None) => return Ok(()),
            Some(Some(log)) => log,
        };
        let result = self.commit_in_turn(&mut log, why, until);
        if result.is_ok() && log.used() > self.geometry.log_blocks / 2 {
            // The commit stands, whatever becomes of this; it is tried again after the next.
            let _ = self.checkpoint(&mut log, Superblocks::One, until);
        }
        if result.is_err() && why == Why::Flush {
            // The cache hears of it now.
            self.state().untold = None;
        }
        self.end_turn(log);
        result
    }

    /// Flushes the device. When that fails, whatever completed since the last good flush may be lost: the cache must hear.
    pub(super) fn flush_device(&self) -> Result<(), IoError> {
        let result = self.device.flush();
        if let Err(e) = result {
            let mut st = self.state();
            st.untold = Some(e);
            st.failed = true;
        }
        result
    }

    fn commit_in_turn(&self, log: &mut Log, why: Why, until: Nanos) -> Result<(), IoError> {
        let (target, changes, rewrite) = {
            let mut st = self.state();
            // Once more: somebody else's may have failed while we waited for the turn.
            if why == Why::Flush
                && let Some(e) = st.untold.take()
            {
                return Err(e);
            }
            if let Some(page) = st.doubtful.first()
                && !planted!(self, CommittedDoubt)
            {
                let at = page * u64::from(self.geometry.block_size);
                return Err(IoError::new(IoErrorKind::Io, at));
            }
            if why == Why::Space && st.failed {
                return Err(IoError::new(IoErrorKind::NoSpace, 0));
            }
            st.space.begin_commit();
            st.settling = st.unsettled.saturating_sub(st.flying);
            st.unsettled -= st.settling;
            (st.changed, std::mem::take(&mut st.changes), st.rewrite)
        };
        let logged = !rewrite && self.append(log, &changes).is_ok() && self.has_room(log);
        let result = self.make_durable(log, logged, until);
        let mut st = self.state();
        st.space.end_commit(result.is_ok());
        let settling = std::mem::take(&mut st.settling);
        match result {
            Ok(()) => {
                st.failed = false;
                st.durable = st.durable.max(target);
                st.stats.commits += 1;
            }
            Err(_) => {
                st.failed = true;
                st.unsettled += settling;
                st.stats.failed_commits += 1;
                st.give_up_log();
            }
        }
        result
    }

    /// Makes what has completed before now durable: by a commit block if the log has the rest of it, else by a checkpoint.
    fn make_durable(&self, log: &mut Log, logged: bool, until: Nanos) -> Result<(), IoError> {
        self.wait_log(until)?;
        // A log write may have failed while we waited.
        if !logged || self.state().rewrite {
            return self.checkpoint(log, Superblocks::Both, until);
        }
        if !planted!(self, EarlyMark) {
            self.flush_device()?;
        }
        let buffer = log.buffer.take().map_or_else(|| self.log_buffer(), Ok);
        let (Ok(buffer), Ok(spare)) = (buffer, self.log_buffer()) else {
            return self.checkpoint(log, Superblocks::Both, until);
        };
        log.buffer = Some(buffer);
        self.write_commit(log, spare);
        self.wait_log(until)?;
        self.take_log_error()?;
        if !planted!(self, EarlyCommit) {
            self.flush_device()?;
        }
        log.tried.clear();
        log.sb.transactions += 1;
        Ok(())
    }

    /// After commits that failed, on a volume without room: frees the blocks that a commit would free and the disk's state does
    /// not name, such as those of writes that were repeated since; a commit cannot be made before the pages in doubt are
    /// written (JRN-6). First the disk is told that none of the failed commits is its state (SPACE-2). Called by writers who
    /// have found no block; false if there is still none, or somebody has the turn.
    pub(super) fn make_room(&self) -> bool {
        let Some(mut log) = self.try_turn() else {
            return false;
        };
        let until = self.memory.now().plus(COMMIT_TIMEOUT);
        let told = self.disown(&mut log, until).is_ok();
        let freed = if told {
            self.state().space.free_unnamed()
        } else {
            0
        };
        self.end_turn(log);
        freed > 0
    }

    /// Overwrites what was left of commits that failed.
    fn disown(&self, log: &mut Log, until: Nanos) -> Result<(), IoError> {
        self.wait_log(until)?;
        self.settle_doubt(log)?;
        if log.tried.is_empty() || planted!(self, LeftCommit) {
            return Ok(());
        }
        for seq in &log.tried {
            self.device
                .write_now(self.geometry.log_byte(*seq), &self.zeroes)?;
        }
        self.flush_device()?;
        log.tried.clear();
        Ok(())
    }

    /// The error of a write of log or checkpoint that has failed since the last look.
    pub(super) fn take_log_error(&self) -> Result<(), IoError> {
        match self.state().log_error.take() {
            Some(e) => Err(e),
            None => Ok(()),
        }
    }
}

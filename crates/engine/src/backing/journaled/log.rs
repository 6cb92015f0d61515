//! The log: changes of the map on their way to the disk, block by block.
//!
//! Whoever holds the [`Log`] has the *turn*: it is taken out of the volume's state, and nobody else appends, commits or
//! checkpoints meanwhile. Writers in `write_pages` take it if it is free and pass on what has completed; those who find it
//! taken leave that for later. So nothing in the path of a write ever waits for the turn: an allocation made with the turn
//! in hand may reclaim, and write pages of this very volume.
//!
//! A log buffer is a frame: from a small pool that was filled at mount, else lent by the cache, else the first that comes
//! back from the disk. With `LendContext::Reclaim` the order is mempool_alloc's: the cache is asked first, and the pool is
//! for when it has nothing.
//!
//! **Kernel.** XFS's in-core log buffers; mempool_alloc.

use super::format::{COMMIT, COPY, LogHeader, Superblock};
use super::record::{Change, Encoder};
use super::state::{Flight, State};
use super::{LOG_TIMEOUT, Volume};
use crate::error::{IoError, IoErrorKind};
use crate::io::{IoOp, Lane, Request};
use crate::world::{Nanos, Task};
use crate::zone::{LendContext, LentFrame};

/// Buffers that are kept: as many log blocks may be on their way to the disk when the cache has no frame to lend.
pub(super) const POOL: usize = 8;
/// Changes that a writer passes on in one turn, so that its own I/O starts soon.
const BATCH: usize = 1024;

/// The turn, with all that belongs to who has it.
pub(super) struct Log {
    /// The superblock that is known to be durable, and the place that it is in.
    pub sb: Superblock,
    pub slot: u64,
    /// The last generation that was tried; a failed write of a superblock may have left one that counts.
    pub generation: u64,
    /// The other place may hold a superblock that was never acknowledged.
    pub in_doubt: bool,
    /// The log blocks of commits that failed, which may be there all the same.
    pub tried: Vec<u64>,
    /// The sequence number of the next block to be written.
    pub next: u64,
    /// The CRC of the block before it.
    pub chain: u32,
    pub buffer: Option<LentFrame>,
    pub encoder: Encoder,
}

/// The log cannot take it: the next commit writes a checkpoint instead.
pub(super) struct Full;

impl Log {
    pub(super) fn new(sb: Superblock, slot: u64, next: u64, chain: u32) -> Log {
        Log {
            sb,
            slot,
            generation: sb.generation,
            in_doubt: false,
            tried: Vec::new(),
            next,
            chain,
            buffer: None,
            encoder: Encoder::new(),
        }
    }

    /// Log blocks that a recovery would read.
    pub(super) fn used(&self) -> u64 {
        self.next - self.sb.log_start
    }

    /// Forgets what is in the buffer.
    pub(super) fn discard_buffer(&mut self) -> Option<LentFrame> {
        self.encoder = Encoder::new();
        self.buffer.take()
    }
}

impl Volume {
    /// Takes the turn if it is free now.
    pub(super) fn try_turn(&self) -> Option<Box<Log>> {
        self.state().log.take()
    }

    /// Waits for the turn until `until`.
    pub(super) fn turn(&self, until: Nanos) -> Result<Box<Log>, IoError> {
        self.wait(until, |st| st.log.take())
            .ok_or(IoError::new(IoErrorKind::TimedOut, 0))
    }

    pub(super) fn end_turn(&self, log: Box<Log>) {
        let woken = {
            let mut st = self.state();
            st.log_used = log.used();
            st.transactions = log.sb.transactions;
            st.log = Some(log);
            st.take_waiters()
        };
        self.wake(woken);
    }

    /// Passes on to the log what has completed, if nobody else has the turn. Called by writers before anything else.
    #[doc(alias("xlog_write", "xfs_log_write"))]
    pub(super) fn log_completed(&self) {
        let Some(mut log) = self.try_turn() else {
            return;
        };
        let changes = {
            let mut st = self.state();
            if st.changes.is_empty() {
                Vec::new()
            } else {
                let n = st.changes.len().min(BATCH);
                let rest = st.changes.split_off(n);
                std::mem::replace(&mut st.changes, rest)
            }
        };
        if !changes.is_empty() && self.append(&mut log, &changes).is_err() {
            self.state().give_up_log();
        }
        self.end_turn(log);
    }

    /// Encodes changes, starting the write of each block that is full.
    pub(super) fn append(&self, log: &mut Log, changes: &[Change]) -> Result<(), Full> {
        for change in changes {
            loop {
                if log.buffer.is_none() {
                    log.buffer = Some(self.log_buffer()?);
                }
                let buffer = log.buffer.as_mut().expect("just filled");
                if log.encoder.push(buffer, *change) {
                    break;
                }
                // This one, and two that are kept for the commit.
                if log.used() + 3 > self.geometry.log_blocks {
                    return Err(Full);
                }
                self.write_block(log, 0);
            }
        }
        Ok(())
    }

    /// Can a commit be written? A log is full when a power failure comes between a commit that fills it and the checkpoint
    /// behind that.
    pub(super) fn has_room(&self, log: &Log) -> bool {
        log.used() + 2 <= self.geometry.log_blocks
    }

    /// Starts the write of the log block in the buffer.
    #[doc(alias("xlog_sync", "xlog_bdstrat"))]
    pub(super) fn write_block(&self, log: &mut Log, flags: u32) {
        let frame = log.buffer.take().expect("a block to write");
        let used = log.encoder.used;
        log.encoder = Encoder::new();
        self.write_sealed(log, frame, used, flags, 0);
        if flags & COMMIT == 0 {
            self.state().stats.log_ahead += 1;
        }
    }

    /// Starts the write of the log block in the buffer as a commit, and of its copy: with `spare`, a frame for that.
    pub(super) fn write_commit(&self, log: &mut Log, mut spare: LentFrame) {
        let frame = log.buffer.as_ref().expect("a block to write");
        spare.copy_from_slice(frame);
        let (used, before) = (log.encoder.used, log.chain);
        log.tried.extend([log.next, log.next + 1]);
        self.write_block(log, COMMIT);
        if planted!(self, OneMark) {
            return self.return_buffer(spare);
        }
        self.write_sealed(log, spare, used, COMMIT | COPY, before);
    }

    fn write_sealed(
        &self,
        log: &mut Log,
        mut frame: LentFrame,
        used: usize,
        flags: u32,
        before: u32,
    ) {
        debug_assert!(
            log.used() < self.geometry.log_blocks,
            "JRN-4: the log never runs over its tail"
        );
        let header = LogHeader {
            tag: log.sb.tag(),
            seq: log.next,
            prev: log.chain,
            before,
            used: used as u32,
            flags,
        };
        log.chain = header.seal(&mut frame);
        let at = self.geometry.log_byte(log.next);
        log.next += 1;
        self.write_frames(at, vec![frame]);
    }

    /// Starts a write of whole frames, which belong to the request until it has ended.
    pub(super) fn write_frames(&self, at: u64, frames: Vec<LentFrame>) {
        let mut request = Request::new(IoOp::Write, at, self.sink());
        let size = self.geometry.block_size as usize;
        request.bufs = frames.iter().map(|f| f.io_buf(size)).collect();
        request.cookie = {
            let mut st = self.state();
            st.log_writes += 1;
            st.stats.log_blocks += frames.len() as u64;
            st.flights.insert(Flight::Frames(frames)) as u64
        };
        self.device.submit(Lane::Shared, &mut vec![request]);
    }

    /// A frame for the log. With the turn in hand, and no lock. Whoever calls, it is as an allocation inside a write, which
    /// waits for nobody: others wait for the turn (or for a truncation that has it) with guards on all other memory.
    #[doc(alias = "mempool_alloc")]
    pub(super) fn log_buffer(&self) -> Result<LentFrame, Full> {
        let lend = || {
            let task = self.memory.task();
            let flags = task.set_flag(Task::WRITES);
            let lent = self.memory.alloc(self.options.lend_context).ok();
            task.restore_flags(flags);
            lent
        };
        let pooled = || self.state().pool.pop();
        let frame = match self.options.lend_context {
            LendContext::Reserve => pooled().or_else(lend),
            LendContext::Reclaim => lend().or_else(pooled),
        };
        match frame {
            Some(frame) => Ok(frame),
            None => self.returned_buffer(),
        }
    }

    /// Gives back a buffer that was not written.
    pub(super) fn return_buffer(&self, frame: LentFrame) {
        let spare = {
            let mut st = self.state();
            if st.pool.len() < POOL {
                st.pool.push(frame);
                None
            } else {
                Some(frame)
            }
        };
        drop(spare);
    }

    /// Waits for a log buffer that comes back from the disk.
    fn returned_buffer(&self) -> Result<LentFrame, Full> {
        let until = self.memory.now().plus(LOG_TIMEOUT);
        let come_back = |st: &mut State| match st.pool.pop() {
            Some(frame) => Some(Ok(frame)),
            // Nothing is on its way that could come back.
            None if st.log_writes == 0 => Some(Err(Full)),
            None => None,
        };
        self.wait(until, come_back).unwrap_or(Err(Full))
    }

    /// Waits until no write of log or checkpoint is in flight.
    pub(super) fn wait_log(&self, until: Nanos) -> Result<(), IoError> {
        let at = self.geometry.byte(super::format::LOG_FIRST);
        self.wait(until, |st| (st.log_writes == 0).then_some(()))
            .ok_or(IoError::new(IoErrorKind::TimedOut, at))
    }

    /// A write of log or checkpoint has ended. Returns the frames that the pool does not need.
    pub(super) fn frames_written(
        &self,
        st: &mut State,
        frames: Vec<LentFrame>,
        result: Result<(), IoError>,
    ) -> Vec<LentFrame> {
        st.log_writes -= 1;
        if let Err(e) = result {
            st.log_error = Some(e);
            st.give_up_log();
        }
        let mut spare = frames;
        while st.pool.len() < POOL
            && let Some(frame) = spare.pop()
        {
            st.pool.push(frame);
        }
        spare
    }
}

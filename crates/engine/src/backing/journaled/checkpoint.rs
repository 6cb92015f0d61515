//! Checkpoints: the whole map on the disk, so that the log before it is not needed any more.
//!
//! There are two areas, each with room for the largest map, and two superblocks; a checkpoint goes to the area that the
//! durable superblock does not name, and the new superblock takes the other's place. So a full volume can always write one,
//! and until the new superblock is durable the old one, its area and its log are as they were.
//!
//! The map changes while it is written (writes complete), leaf by leaf. That is harmless: the changes are in the log behind
//! the place where recovery starts; those that are not committed name blocks whose data is durable before the superblock is
//! written, and whose predecessors are still there. What would mix badly, truncations and holes, takes the turn.
//!
//! A checkpoint that only shortens the log adds nothing to what the log says (JRN-4). One that stands for a commit does, so
//! both superblocks come to name it before the commit is acknowledged.

use super::Volume;
use super::format::{
    ENTRY, LEAF_HEADER, LOG_HEADER, SB_BYTES, Superblock, put_u32, seal_leaf, u32_at,
};
use super::log::Log;
use crate::error::IoError;
use crate::world::Nanos;
use crate::zone::LentFrame;

/// Which superblocks a checkpoint is written under.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Superblocks {
    /// The log says the same: the other one may stay.
    One,
    /// It stands for a commit.
    Both,
}

impl Volume {
    /// Writes the map and moves the log's tail. Whoever calls has the turn, and has put what is in the log's buffer into a
    /// block, or wants it in the checkpoint.
    pub(super) fn checkpoint(
        &self,
        log: &mut Log,
        superblocks: Superblocks,
        until: Nanos,
    ) -> Result<(), IoError> {
        if let Some(frame) = log.discard_buffer() {
            self.return_buffer(frame);
        }
        let result = self.checkpoint_in_turn(log, superblocks, until);
        if result.is_err() {
            // What was in the buffer is in no block now; and the next one must not rely on what has not been written.
            self.state().give_up_log();
        }
        result
    }

    fn checkpoint_in_turn(
        &self,
        log: &mut Log,
        superblocks: Superblocks,
        until: Nanos,
    ) -> Result<(), IoError> {
        self.wait_log(until)?;
        self.state().log_error = None;
        self.settle_doubt(log)?;
        {
            // From here on changes go to the log again, behind this checkpoint. A block of the log whose write was tried
            // may be there or not: none of them counts any more.
            let mut st = self.state();
            if superblocks == Superblocks::Both {
                st.changes.clear();
                st.rewrite = false;
            }
        }
        log.generation += 1;
        let mut sb = Superblock {
            generation: log.generation,
            area: 1 - log.sb.area,
            checkpoint: log.generation,
            log_start: log.next,
            chain: match superblocks {
                // From the old superblock, too, the log leads on over this point.
                Superblocks::One => log.chain,
                Superblocks::Both => chain_from(log.sb.tag(), log.next, log.generation),
            },
            ..log.sb
        };
        sb.leaves = self.write_leaves(&sb, until)?;
        if !planted!(self, EarlySuperblock) {
            self.flush_device()?;
        }
        sb.len = self.state().len;
        if superblocks == Superblocks::Both {
            sb.transactions += 1;
        }
        log.in_doubt = !planted!(self, TrustedSuperblock);
        self.write_superblock(&sb, 1 - log.slot)?;
        log.in_doubt = false;
        log.slot = 1 - log.slot;
        log.sb = sb;
        log.chain = sb.chain;
        // The log before it counts no more.
        self.state().space.end_leaves();
        log.tried.clear();
        self.state().stats.checkpoints += 1;
        if superblocks == Superblocks::Both && !planted!(self, OneSuperblock) {
            // The other one, which may be found when this one is damaged, is of before the commit until then.
            log.in_doubt = true;
            self.repeat_superblock(log)?;
            log.in_doubt = false;
        }
        Ok(())
    }

    /// After a superblock whose write failed, which may be there all the same: replaces it, before the area that it names
    /// is written again.
    pub(super) fn settle_doubt(&self, log: &mut Log) -> Result<(), IoError> {
        if log.in_doubt {
            self.repeat_superblock(log)?;
            log.in_doubt = false;
        }
        Ok(())
    }

    /// Writes the durable superblock in the other place, too.
    fn repeat_superblock(&self, log: &mut Log) -> Result<(), IoError> {
        log.generation += 1;
        let again = Superblock {
            generation: log.generation,
            ..log.sb
        };
        self.write_superblock(&again, 1 - log.slot)
    }

    fn write_superblock(&self, sb: &Superblock, slot: u64) -> Result<(), IoError> {
        let at = self.geometry.byte(slot);
        let bytes: [u8; SB_BYTES] = sb.encode();
        self.device.write_now(at, &bytes)?;
        self.flush_device()
    }

    /// Writes each leaf that has pages; how many there were.
    fn write_leaves(&self, sb: &Superblock, until: Nanos) -> Result<u32, IoError> {
        let first = self.geometry.area_first(sb.area);
        let most = self.limits().frames(self.geometry.block_size as usize);
        self.state().space.begin_leaves();
        let (mut index, mut written) = (0, 0);
        loop {
            let mut frames: Vec<LentFrame> = Vec::new();
            if self.state().pool.is_empty() {
                // A checkpoint without its leaves would be a volume without its data.
                return Err(IoError::from_errno(12, self.geometry.byte(first)));
            }
            while frames.len() < most
                && let Some(mut frame) = self.pooled_frame()
            {
                let found = {
                    let mut st = self.state();
                    let found = st.map.next_leaf(index).map(|(i, bytes)| {
                        frame.copy_from_slice(bytes);
                        i
                    });
                    if found.is_some() {
                        let entries = frame[LEAF_HEADER..].chunks_exact(ENTRY);
                        let blocks = entries.map(|e| u32_at(e, 0)).filter(|b| *b != 0);
                        blocks.for_each(|b| st.space.in_leaf(b));
                    }
                    found
                };
                let Some(found) = found else {
                    self.return_buffer(frame);
                    break;
                };
                seal_leaf(&mut frame, sb.tag(), sb.checkpoint, found as u32);
                frames.push(frame);
                index = found + 1;
            }
            if frames.is_empty() {
                break;
            }
            let n = frames.len() as u32;
            self.write_frames(self.geometry.byte(first + u64::from(written)), frames);
            written += n;
            self.wait_log(until)?;
            self.take_log_error()?;
        }
        Ok(written)
    }

    /// A frame of the pool: nobody else takes from it while we have the turn.
    fn pooled_frame(&self) -> Option<LentFrame> {
        self.state().pool.pop()
    }
}

/// What the first log block behind a checkpoint has for its predecessor's CRC: nothing that an older block could have.
pub(super) fn chain_from(tag: u64, seq: u64, generation: u64) -> u32 {
    let mut b = [0; LOG_HEADER];
    b[8..16].copy_from_slice(&tag.to_le_bytes());
    b[16..24].copy_from_slice(&seq.to_le_bytes());
    b[24..32].copy_from_slice(&generation.to_le_bytes());
    put_u32(&mut b, 0, 1);
    crc32c::crc32c(&b)
}

//! A thin, crash-safe volume that holds one file: delayed allocation, an extent map, a checksummed log, checksummed blocks.
//!
//! It turns randomly written pages into long runs of the device: where a page lies is chosen when it is written (`write`),
//! never where it lay before. What has been synced is therefore never overwritten: the map moves on to the new block, and
//! the old one is free after the commit that says so. The map is in frames of the cache (`extent_map`); its changes go to the
//! disk through a log (`log`, `record`), and as a whole with checkpoints (`checkpoint`). `recover` reads it back.
//! The layout of the disk is at the head of `format`.
//!
//! **State.** One lock, `state::State`, for look-ups and changes. The *turn*, the `Log` taken out of it, for everything that
//! needs time: appending to the log, commits, checkpoints, truncation.
//! **Lock order.** The turn, then the lock (`Rank::Volume`). `write_pages` and `read_pages` wait for neither I/O nor the turn;
//! so an allocation made with the turn in hand (a log buffer, in the middle of a page's write) may reclaim and write pages of
//! this volume: that nested write finds the turn taken and goes on without.
//! **Context.** `write_pages`: flusher, sync, reclaim; allocates log buffers as [`MountOptions::lend_context`] says.
//! `reserve`: the writer; allocates a leaf of the map, commits. `flush`: sync. Completions: any task, never sleep.
//!
//! **Invariants.**
//! - JRN-1: a page is mapped to its new block when the write has ended and before the cache hears of it. Until then the page
//!   is under writeback, so nobody reads it from the disk.
//! - JRN-2: a block is free, or waits for a commit, or is on its way to be mapped, or exactly one page is mapped to it.
//! - JRN-3: a write that failed changes nothing: the page keeps its old block, and has its space for the next try.
//! - JRN-4: a commit mark is written only when all that it covers is durable, and the log never runs over its tail. So the
//!   chain of blocks up to the last mark is the state, and a mark beyond a break in the chain is damage.
//! - JRN-5: each request of ours is in the table from before its submission to its end.
//! - JRN-6: after a failed flush nothing is committed before the pages that it may have lost are written again.
//!   What a commit of a writer's has made durable is not among these, though the cache has not heard of it (`is_durable`).
//! - JRN-7: behind the file's end there are only zeroes (`resize`).
//!
//! After a failed flush, pages that had left memory are lost as far as the device lost them; the cache says so. Such a page
//! reads as its newest bytes, or as an error where its checksum does not hold; never as something else. Its older durable
//! copy is what a power failure brings back until the next commit, which names the newest and lets go of that one.
//!
//! **Kernel.** XFS's delayed allocation, log and extent map; btrfs's copy-on-write and checksums.
//! **Tests.** `tests`; the lab's crash images.

mod checkpoint;
mod commit;
mod error;
mod extent_map;
mod format;
mod fsck;
mod log;
mod queue;
mod read;
mod record;
mod recover;
mod reserve;
mod resize;
mod space;
mod state;
#[cfg(all(test, not(loom)))]
mod tests;
mod write;

pub use error::{Damage, VolumeError};
pub use format::VERSION;
pub use fsck::{FsckReport, fsck, inspect};

use super::{Backing, WriteContext};
use crate::error::IoError;
use crate::io::{IoBuf, IoSink, Lane, Request};
use crate::sync::{Lock, Rank};
use crate::world::{Device, Nanos, Queue};
use crate::zone::{LendContext, LentFrame, PageSource};
use format::{BLOCK_SHIFTS, Geometry, LOG_FIRST, SB_BYTES, Superblock};
use recover::Loaded;
use state::{Counts, Flight, Slab, State};
use std::sync::{Arc, Weak};

/// A commit or a checkpoint that takes longer fails.
const COMMIT_TIMEOUT: Nanos = Nanos::from_secs(60);
/// A log buffer that does not come back for so long: the log is given up until the next commit.
const LOG_TIMEOUT: Nanos = Nanos::from_secs(30);
/// Bytes zeroed at a time when a volume is made.
const ZEROES: usize = 256 << 10;
/// The map of a full volume takes at most this part of the cache.
const MAP_SHARE: u64 = 4;

/// How a volume is made.
#[derive(Clone, Debug)]
pub struct FormatOptions {
    /// The most bytes that its file may have, and its length at first (all zeroes): a multiple of the block size. May be more
    /// than the device has room for.
    pub logical_bytes: u64,
    /// Bytes of a block: the frame size of the caches that will mount it, 4096 or a larger power of two.
    pub block_size: u32,
    /// Bytes of the log; 0: a share of the device, at most 4096 blocks.
    pub log_bytes: u64,
    /// The volume's name among volumes: 16 random bytes.
    pub uuid: [u8; 16],
}

impl FormatOptions {
    /// Can a device of `len` bytes be made into such a volume?
    ///
    /// # Errors
    /// `Config` for sizes that make no sense.
    pub fn check(&self, len: u64) -> Result<(), VolumeError> {
        self.geometry(len).map(drop)
    }

    fn geometry(&self, len: u64) -> Result<Geometry, VolumeError> {
        let block = u64::from(self.block_size);
        let blocks = len.checked_div(block).unwrap_or(0);
        let log_blocks = match self.log_bytes {
            0 => (blocks / 64).clamp(2 * format::LOG_MIN, 4096),
            bytes => bytes.checked_div(block).unwrap_or(0),
        };
        let geometry = Geometry {
            block_size: self.block_size,
            blocks,
            log_blocks,
            capacity: self.logical_bytes,
        };
        geometry.check().map_err(VolumeError::Config)
    }
}

/// How a volume is mounted.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountOptions {
    /// How far the allocation of a log buffer may go, inside the write of a page.
    pub lend_context: LendContext,
    /// Writes no page for reclaim, as XFS did.
    pub refuse_reclaim: bool,
}

/// A volume's sizes and counts. Counts are since the mount; they are zero for a volume that is not mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeInfo {
    /// Format version.
    pub version: u32,
    /// As it was made.
    pub uuid: [u8; 16],
    /// Bytes of a block.
    pub block_size: u32,
    /// The most bytes that the file may have.
    pub capacity: u64,
    /// Bytes of the file.
    pub len: u64,
    /// Blocks in all, and those for data.
    pub blocks: u64,
    /// Blocks for data.
    pub data_blocks: u64,
    /// Data blocks that hold a page.
    pub used: u64,
    /// Data blocks that may be given out now.
    pub free: u64,
    /// Data blocks that are free after the next commit.
    pub pending: u64,
    /// Blocks that dirty pages are sure to get.
    pub reserved: u64,
    /// Runs of pages on runs of blocks.
    pub extents: u64,
    /// Frames (or blocks) that the map takes.
    pub map_frames: u64,
    /// Blocks of the log.
    pub log_blocks: u64,
    /// Those that a recovery would read.
    pub log_used: u64,
    /// Transactions committed since the volume was made.
    pub transactions: u64,
    /// Commits that became durable.
    pub commits: u64,
    /// Commits that failed.
    pub failed_commits: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Blocks written for log and checkpoints.
    pub log_writes: u64,
    /// Log blocks written ahead of any commit, inside a page's write.
    pub log_writes_ahead: u64,
    /// Requests that wrote data.
    pub data_writes: u64,
    /// Bytes that they wrote.
    pub data_bytes: u64,
}

impl VolumeInfo {
    /// The mean size of a request that wrote data, in bytes; 0 before the first.
    pub fn mean_write_bytes(&self) -> u64 {
        self.data_bytes.checked_div(self.data_writes).unwrap_or(0)
    }
}

/// A mounted volume. See the module's head.
pub struct Volume {
    me: Weak<Volume>,
    device: Arc<dyn Device>,
    queue: Arc<dyn Queue>,
    memory: Arc<dyn PageSource>,
    options: MountOptions,
    geometry: Geometry,
    uuid: [u8; 16],
    state: Lock<State>,
    /// A frame of zeroes, to fill up the file's last page with. Only read.
    zeroes: LentFrame,
}

impl Volume {
    /// Makes a volume on `device`, of all its bytes. What was there is lost.
    ///
    /// # Errors
    /// `Config` for sizes that make no sense, `Io`. Waits for the device.
    pub fn format(device: &dyn Device, options: &FormatOptions) -> Result<(), VolumeError> {
        let len = device
            .len()
            .map_err(VolumeError::io("size of the device"))?;
        let geometry = options.geometry(len)?;
        let log_blocks = geometry.log_blocks;
        let mut sb = Superblock {
            uuid: options.uuid,
            generation: 1,
            geometry,
            area: 0,
            checkpoint: 0,
            leaves: 0,
            len: options.logical_bytes,
            log_start: 0,
            chain: 0,
            transactions: 0,
        };
        sb.chain = checkpoint::chain_from(sb.tag(), 0, 0);
        let write = VolumeError::io("write the volume");
        // First wherever a superblock of before may be: none is found without its log when this is cut short.
        let places = std::iter::once(0).chain(BLOCK_SHIFTS.map(|shift| 1 << shift));
        for at in places.filter(|at| at + SB_BYTES as u64 <= len) {
            device.write_now(at, &[0; SB_BYTES]).map_err(&write)?;
        }
        device.flush().map_err(&write)?;
        // No log block of before is found later. Written, so that a
        // file system has blocks there and a commit does not wait for it to find some.
        let zeroes = vec![0; ZEROES];
        let end = geometry.byte(LOG_FIRST + log_blocks);
        for at in (0..end).step_by(ZEROES) {
            let n = (end - at).min(ZEROES as u64);
            device
                .write_now(at, &zeroes[..n as usize])
                .map_err(&write)?;
        }
        device.flush().map_err(&write)?;
        for slot in [1, 0] {
            device
                .write_now(geometry.byte(slot), &sb.encode())
                .map_err(&write)?;
            sb.generation += 1;
        }
        device.flush_all().map_err(&write)
    }

    /// Reads the volume on `device` back and takes it into use, with `memory` for its map and buffers. Writes nothing.
    ///
    /// # Errors
    /// `NotAVolume`, `NewerVersion`, `Shortened`, `Damaged`, `BlockSize`, `MapTooLarge`, `Memory`, `Io`. Waits for the device.
    pub fn mount(
        device: Arc<dyn Device>,
        memory: Arc<dyn PageSource>,
        options: MountOptions,
    ) -> Result<Arc<Volume>, VolumeError> {
        let cache = memory.frame_size();
        let frames = memory.frames();
        let lend = || {
            memory
                .alloc(LendContext::Reclaim)
                .map_err(|e| VolumeError::Memory(Box::new(e)))
        };
        let mut leaf = |g: &Geometry| {
            fits(g, cache, frames)?;
            lend()
        };
        let mut loaded = recover::load(&*device, &mut leaf)?;
        fits(&loaded.sb.geometry, cache, frames)?;
        if !loaded.faults.is_empty() {
            return Err(VolumeError::Damaged(loaded.faults.swap_remove(0)));
        }
        // After a kill, what was read may be in the system's memory only. The blocks that it does not need will be used again,
        // so it has to be durable first.
        device
            .flush()
            .map_err(VolumeError::io("flush the volume"))?;
        let pool = (0..log::POOL).map(|_| lend()).collect::<Result<_, _>>()?;
        let zeroes = lend()?;
        Ok(assemble(device, memory, options, loaded, pool, zeroes))
    }

    #[cfg(feature = "plant")]
    fn plant(&self) -> Option<crate::plant::Plant> {
        self.memory.plant()
    }

    fn sink(&self) -> Arc<dyn IoSink> {
        self.me.upgrade().expect("a volume in use is alive")
    }
}

/// Can a cache with `frames` frames of `cache` bytes hold the map of a volume?
fn fits(g: &Geometry, cache: usize, frames: u64) -> Result<(), VolumeError> {
    let volume = g.block_size as usize;
    if volume != cache {
        return Err(VolumeError::BlockSize { volume, cache });
    }
    let (need, most) = (g.leaves(), frames / MAP_SHARE);
    if need > most {
        return Err(VolumeError::MapTooLarge { need, frames, most });
    }
    Ok(())
}

/// The volume as it was loaded. Never inlined: what it moves about would stay on the stack under all that `mount` reads.
#[inline(never)]
fn assemble(
    device: Arc<dyn Device>,
    memory: Arc<dyn PageSource>,
    options: MountOptions,
    loaded: Loaded<LentFrame>,
    pool: Vec<LentFrame>,
    zeroes: LentFrame,
) -> Arc<Volume> {
    let geometry = loaded.sb.geometry;
    let uuid = loaded.sb.uuid;
    let state = Lock::new(Rank::Volume, mounted(loaded, pool));
    Arc::new_cyclic(|me| Volume {
        me: me.clone(),
        queue: Arc::new(queue::Packed::new(device.queue(), memory.frames())),
        device,
        memory,
        options,
        geometry,
        uuid,
        state,
        zeroes,
    })
}

fn mounted(loaded: Loaded<LentFrame>, pool: Vec<LentFrame>) -> State {
    let mut log = log::Log::new(loaded.sb, loaded.slot, loaded.next, loaded.chain);
    log.sb.transactions = loaded.transactions;
    // The other superblock may be one that was never acknowledged, or torn.
    log.in_doubt = !loaded.notes.is_empty();
    State {
        map: loaded.map,
        space: loaded.space,
        len: loaded.len,
        log_used: log.used(),
        transactions: loaded.transactions,
        log: Some(Box::new(log)),
        changes: Vec::new(),
        rewrite: false,
        failed: false,
        untold: None,
        doubtful: std::collections::BTreeSet::new(),
        leafless: std::collections::BTreeSet::new(),
        changed: 0,
        durable: 0,
        reserved: 0,
        unsettled: 0,
        settling: 0,
        flying: 0,
        flights: Slab::new(),
        parents: Slab::new(),
        log_writes: 0,
        log_error: None,
        pool,
        waiters: Vec::new(),
        stats: Counts::default(),
    }
}

impl IoSink for Volume {
    fn io_done(&self, request: &mut Request, result: Result<(), IoError>) {
        let flight = self.state().flights.take(request.cookie as usize);
        let result = match &flight {
            Flight::Read { first, mapped, .. } => {
                result.and_then(|()| self.check_read(request, *first, mapped))
            }
            _ => result,
        };
        let (mut done, mut frames, mut woken) = (Vec::new(), Vec::new(), Vec::new());
        {
            let mut st = self.state();
            match flight {
                Flight::Frames(written) => {
                    frames = self.frames_written(&mut st, written, result);
                    woken = st.take_waiters();
                }
                Flight::Data(parents) => {
                    self.data_written(&mut st, parents, result, &mut done, &mut frames);
                }
                Flight::Read { parent, .. } => self.part_read(&mut st, parent, result, &mut done),
            }
        }
        drop(frames);
        self.wake(woken);
        for parent in done {
            parent.request.complete(parent.error.map_or(Ok(()), Err));
        }
    }
}

impl Backing for Volume {
    fn queue(&self) -> Arc<dyn Queue> {
        self.queue.clone()
    }
    fn read_pages(&self, lane: Lane, batch: &mut Vec<Request>) {
        self.read_batch(lane, batch);
    }
    fn read_now(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
        self.read_pages_now(offset, bufs)
    }
    fn write_pages(&self, context: WriteContext, batch: &mut Vec<Request>) {
        self.write_batch(context, batch);
    }
    fn may_write(&self, context: WriteContext) -> bool {
        !(self.options.refuse_reclaim && context.is_reclaim())
    }
    fn flush(&self) -> Result<(), IoError> {
        self.commit(commit::Why::Flush)
    }
    fn len(&self) -> Result<u64, IoError> {
        Ok(self.state().len)
    }
    fn truncate(&self, len: u64) -> Result<(), IoError> {
        self.set_len(len)
    }
    fn extents(&self, offset: u64, len: u64) -> Result<Vec<(u64, u64)>, IoError> {
        Ok(self.mapped_ranges(offset, len))
    }
    fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.punch(offset, len)
    }
    fn reserves(&self) -> bool {
        true
    }
    fn reserve(&self, page: u64) -> Result<(), IoError> {
        self.reserve_page(page)
    }
    fn writing_makes_space(&self) -> bool {
        let st = self.state();
        st.reserved > 0 || st.parents.len() > 0
    }
    fn release(&self, page: u64) {
        self.release_page(page);
    }
    fn redirtied(&self, page: u64) {
        self.reserve_again(page);
    }
    fn is_durable(&self, page: u64) -> bool {
        let st = self.state();
        (st.map.get(page)).is_some_and(|m| !st.space.is_young(m.block))
    }
    fn doubted(&self, page: u64) {
        self.doubt_page(page);
    }
    fn reserved(&self) -> Option<u64> {
        Some(self.state().reserved)
    }
}

//! Recovery: the state that the disk promises, read back; or what is wrong with it.
//!
//! 1. The superblock with the higher generation, of those that verify.
//! 2. Its checkpoint, leaf by leaf.
//! 3. The log from where the checkpoint ends, as far as each block follows from the one before it (sequence number, and the
//!    CRC of its predecessor), the copy of a commit standing in for a damaged one; then the changes up to the last commit
//!    mark. What comes after is noise: a transaction that was never committed.
//! 4. Nothing may contradict that: a commit beyond the end, or a block that could only be there if the log's tail had moved,
//!    shows that a block in the middle or the newest superblock is damaged (JRN-4). Older data is never taken for the newest.
//!
//! Nothing is written. All numbers are checked before they are used, so that no disk makes this panic.

use super::error::{Damage, VolumeError};
use super::extent_map::ExtentMap;
use super::format::{
    BLOCK_SHIFTS, COMMIT, COPY, ENTRY, Geometry, LEAF_HEADER, LOG_FIRST, LogHeader, SB_BYTES,
    Superblock, open_leaf, u32_at,
};
use super::record::{Change, decode};
use super::space::Space;
use crate::io::IoBuf;
use crate::world::Device;
use std::ops::DerefMut;

/// Blocks read at a time.
const CHUNK: u64 = 64;

/// A volume as the disk has it.
pub(super) struct Loaded<F> {
    pub sb: Superblock,
    pub slot: u64,
    pub map: ExtentMap<F>,
    /// In a box, as it is moved about on the stack of a mount.
    pub space: Box<Space>,
    pub len: u64,
    /// The next log block, and the CRC of the one before it.
    pub next: u64,
    pub chain: u32,
    pub transactions: u64,
    /// Everything that is wrong. A volume with any is not mounted.
    pub faults: Vec<Damage>,
    /// What a power failure leaves and recovery deals with.
    pub notes: Vec<String>,
}

/// Reads into heap memory.
pub(super) fn read(device: &dyn Device, at: u64, bytes: &mut [u8]) -> Result<(), VolumeError> {
    let buf = IoBuf {
        ptr: bytes.as_mut_ptr(),
        len: bytes.len(),
    };
    device
        .read_now(at, &[buf])
        .map_err(VolumeError::io("read the volume"))
}

/// Reads the volume's state, with frames from `alloc` for its map.
pub(super) fn load<F: DerefMut<Target = [u8]>>(
    device: &dyn Device,
    alloc: &mut dyn FnMut(&Geometry) -> Result<F, VolumeError>,
) -> Result<Loaded<F>, VolumeError> {
    let (sb, slot, notes) = superblock(device)?;
    let g = sb.geometry;
    let mut loaded = Loaded {
        sb,
        slot,
        map: ExtentMap::new(&g),
        space: Box::new(Space::new(g.data_first() as u32, g.data_blocks())),
        len: sb.len,
        next: sb.log_start,
        chain: sb.chain,
        transactions: sb.transactions,
        faults: Vec::new(),
        notes,
    };
    loaded.checkpoint(device, alloc)?;
    loaded.log(device, alloc)?;
    // A truncation that is newer than the checkpoint's leaf.
    let beyond = loaded.len.div_ceil(u64::from(g.block_size))..g.pages();
    drop(loaded.map.clear(beyond, |_| ()));
    loaded.occupy();
    Ok(loaded)
}

/// The superblock at `at` of a device of `len` bytes. Never inlined: its callers' stacks then hold one block for each look.
#[inline(never)]
fn superblock_at(device: &dyn Device, at: u64, len: u64) -> Result<Superblock, VolumeError> {
    let mut b = Box::new([0; SB_BYTES]);
    if at + SB_BYTES as u64 > len {
        return Err(VolumeError::NotAVolume);
    }
    read(device, at, &mut *b)?;
    Superblock::decode(&b, at, len)
}

/// The superblock that holds, its place, and what is odd about the other.
fn superblock(device: &dyn Device) -> Result<(Superblock, u64, Vec<String>), VolumeError> {
    let len = device
        .len()
        .map_err(VolumeError::io("size of the device"))?;
    let one = |at: u64| superblock_at(device, at, len);
    let first = one(0);
    if let Err(
        e @ (VolumeError::NewerVersion { .. }
        | VolumeError::Shortened { .. }
        | VolumeError::Io { .. }),
    ) = first
    {
        return Err(e);
    }
    let second = match &first {
        Ok(sb) => one(u64::from(sb.geometry.block_size)),
        Err(_) => BLOCK_SHIFTS
            .map(|shift| (1 << shift, one(1 << shift)))
            .find(|(at, sb)| match sb {
                Ok(sb) => u64::from(sb.geometry.block_size) == *at,
                Err(e) => !matches!(e, VolumeError::NotAVolume | VolumeError::Damaged(_)),
            })
            .map_or(Err(VolumeError::NotAVolume), |(_, sb)| sb),
    };
    let spoiled = |n: u64| {
        format!(
            "superblock {n} does not verify: a power failure while it is written leaves that; the other one holds"
        )
    };
    match (first, second) {
        (Ok(a), Ok(b)) if a.uuid == b.uuid && a.geometry == b.geometry => {
            if a.generation > b.generation {
                Ok((a, 0, Vec::new()))
            } else {
                Ok((b, 1, Vec::new()))
            }
        }
        (Ok(_), Ok(b)) => Err(VolumeError::Damaged(Damage::Superblock {
            at: u64::from(b.geometry.block_size),
            why: "the two superblocks are of different volumes".into(),
        })),
        (_, Err(e @ (VolumeError::NewerVersion { .. } | VolumeError::Shortened { .. }))) => Err(e),
        (Ok(a), Err(VolumeError::Damaged(_) | VolumeError::NotAVolume)) => {
            Ok((a, 0, vec![spoiled(1)]))
        }
        (Err(_), Ok(b)) => Ok((b, 1, vec![spoiled(0)])),
        (Err(VolumeError::NotAVolume), Err(e)) | (Err(e), Err(_)) | (Ok(_), Err(e)) => Err(e),
    }
}

/// What is known of a place of the log ring.
#[derive(Clone, Copy)]
struct Place {
    header: LogHeader,
    crc: u32,
}

impl<F: DerefMut<Target = [u8]>> Loaded<F> {
    fn checkpoint(
        &mut self,
        device: &dyn Device,
        alloc: &mut dyn FnMut(&Geometry) -> Result<F, VolumeError>,
    ) -> Result<(), VolumeError> {
        let g = self.sb.geometry;
        let mut after = 0;
        for n in 0..u64::from(self.sb.leaves) {
            let at = g.byte(g.area_first(self.sb.area) + n);
            let mut frame = alloc(&g)?;
            read(device, at, &mut frame)?;
            let damage = |why| Damage::Checkpoint { at, why };
            let Some(index) = open_leaf(&frame, self.sb.tag(), self.sb.checkpoint) else {
                self.faults.push(damage(
                    "a leaf's checksum does not hold, or it is of another checkpoint",
                ));
                continue;
            };
            let first = u64::from(index) * g.leaf_pages();
            let mut entries = frame[LEAF_HEADER..].chunks_exact(ENTRY).zip(first..);
            let beyond = entries.any(|(e, page)| page >= g.pages() && u32_at(e, 0) != 0);
            if index < after || beyond || !self.map.load_leaf(index, frame) {
                self.faults.push(damage("a leaf that is out of place"));
                continue;
            }
            after = index + 1;
        }
        Ok(())
    }

    fn log(
        &mut self,
        device: &dyn Device,
        alloc: &mut dyn FnMut(&Geometry) -> Result<F, VolumeError>,
    ) -> Result<(), VolumeError> {
        let g = self.sb.geometry;
        let ring = self.scan(device)?;
        let at = |seq: u64| ring[(seq % g.log_blocks) as usize].filter(|p| p.header.seq == seq);
        let (mut next, mut chain) = (self.sb.log_start, self.sb.chain);
        let (mut committed, mut committed_chain) = (next, chain);
        let end = self.sb.log_start.saturating_add(g.log_blocks);
        // The blocks to apply, of the chain so far and up to the last commit.
        let (mut chained, mut applied) = (Vec::new(), 0);
        while next < end {
            let seen = at(next).filter(|p| p.header.prev == chain);
            let repeats = |p: &Place| p.header.flags & COPY != 0 && p.header.before == chain;
            let (place, apply) = match (seen, at(next + 1).filter(repeats)) {
                // A commit's block is damaged and its copy is not. Or it was never written, and what is there is noise of an
                // earlier time, which may well follow: a program that starts over does the same again.
                (seen, Some(copy)) if seen.is_none_or(|p| p.crc != copy.header.prev) => {
                    next += 1;
                    (copy, true)
                }
                (Some(place), _) => (place, place.header.flags & COPY == 0),
                (None, _) => break,
            };
            if apply {
                chained.push(next);
            }
            (next, chain) = (next + 1, place.crc);
            if place.header.flags & COMMIT != 0 {
                (committed, committed_chain) = (next, chain);
                applied = chained.len();
            }
        }
        for place in ring.iter().flatten() {
            let (seq, commit) = (place.header.seq, place.header.flags & COMMIT != 0);
            let why = if seq >= end {
                "the log goes on elsewhere: the newest superblock is damaged"
            } else if commit && seq >= next {
                "it does not verify, and there is a commit behind it"
            } else {
                continue;
            };
            let at = g.log_byte(next);
            let fault = Damage::Log { at, seq: next, why };
            if !self.faults.contains(&fault) {
                self.faults.push(fault);
            }
        }
        let mut block = vec![0; g.block_size as usize];
        for seq in chained.drain(..applied) {
            read(device, g.log_byte(seq), &mut block)?;
            self.replay(&block, seq, alloc)?;
        }
        (self.next, self.chain) = (committed, committed_chain);
        Ok(())
    }

    /// The headers of all log blocks that verify.
    fn scan(&self, device: &dyn Device) -> Result<Vec<Option<Place>>, VolumeError> {
        let g = self.sb.geometry;
        let size = g.block_size as usize;
        let mut ring = Vec::with_capacity(g.log_blocks as usize);
        let mut bytes = vec![0; size * CHUNK.min(g.log_blocks) as usize];
        for first in (0..g.log_blocks).step_by(CHUNK as usize) {
            let n = CHUNK.min(g.log_blocks - first) as usize;
            read(device, g.byte(LOG_FIRST + first), &mut bytes[..n * size])?;
            for (place, b) in (first..).zip(bytes[..n * size].chunks_exact(size)) {
                let found = LogHeader::open(b, self.sb.tag())
                    .filter(|(header, _)| header.seq % g.log_blocks == place)
                    .map(|(header, crc)| Place { header, crc });
                ring.push(found);
            }
        }
        Ok(ring)
    }

    /// Applies the changes of a log block that belongs to a committed transaction.
    fn replay(
        &mut self,
        block: &[u8],
        seq: u64,
        alloc: &mut dyn FnMut(&Geometry) -> Result<F, VolumeError>,
    ) -> Result<(), VolumeError> {
        let g = self.sb.geometry;
        let at = g.log_byte(seq);
        let Some((header, _)) = LogHeader::open(block, self.sb.tag()) else {
            let why = "it reads differently from one moment to the next";
            self.faults.push(Damage::Log { at, seq, why });
            return Ok(());
        };
        let mut failed = None;
        let (map, len, faults) = (&mut self.map, &mut self.len, &mut self.faults);
        let whole = decode(block, header.used, |change| {
            match change {
                Change::Map { page, to } => {
                    let page = u64::from(page);
                    if page >= g.pages() || !g.is_data(to.block) {
                        let block = u64::from(to.block);
                        faults.push(Damage::OutOfBounds { page, block });
                        return Some(());
                    }
                    if !map.has_leaf(page) {
                        match alloc(&g) {
                            Ok(frame) => drop(map.add_leaf(page, frame)),
                            Err(e) => {
                                failed = Some(e);
                                return None;
                            }
                        }
                    }
                    map.set(page, to);
                }
                Change::Unmap { first, end } => {
                    drop(map.clear(u64::from(first)..u64::from(end), |_| ()));
                }
                Change::Len(new) if new <= g.capacity => *len = new,
                Change::Len(_) => return None,
            }
            Some(())
        });
        if let Some(e) = failed {
            return Err(e);
        }
        if whole.is_none() {
            let why = "its records make no sense";
            self.faults.push(Damage::Log { at, seq, why });
        }
        self.transactions += u64::from(header.flags & COMMIT);
        Ok(())
    }

    /// Finds the free blocks: those that no page has.
    fn occupy(&mut self) {
        let g = self.sb.geometry;
        for e in self.map.extents() {
            for i in 0..e.count {
                let (page, block) = (e.page + i, u64::from(e.block) + i);
                if !(g.data_first()..g.blocks).contains(&block) {
                    self.faults.push(Damage::OutOfBounds { page, block });
                } else if !self.space.take(block as u32) {
                    self.faults.push(Damage::Shared { page, block });
                }
            }
        }
    }
}

//! fsck and inspect: a volume looked at from outside, without a cache. Nothing is written.

use super::error::{Damage, VolumeError};
use super::extent_map::Extent;
use super::format::Geometry;
use super::recover::{Loaded, load, read};
use super::{VERSION, VolumeInfo};
use crate::world::Device;

/// Blocks read at a time.
const CHUNK: u64 = 64;

/// What [`fsck`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FsckReport {
    /// Sizes and counts.
    pub info: VolumeInfo,
    /// Everything that is wrong.
    pub faults: Vec<Damage>,
    /// What a power failure leaves, and recovery deals with.
    pub notes: Vec<String>,
    /// Data blocks read and compared with their checksums.
    pub blocks_checked: u64,
}

impl FsckReport {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }
}

type HeapMap = Loaded<Box<[u8]>>;

fn load_on_heap(device: &dyn Device) -> Result<HeapMap, VolumeError> {
    load(device, &mut |g: &Geometry| {
        Ok(vec![0; g.block_size as usize].into_boxed_slice())
    })
}

/// Checks everything: superblocks, map, log, bounds, and the checksum of each block that holds data. Reads all of it, and
/// takes memory for the whole map.
///
/// # Errors
/// When there is no volume to check: no superblock, a newer version, a device that cannot be read. Damage is in the report.
pub fn fsck(device: &dyn Device) -> Result<FsckReport, VolumeError> {
    let mut loaded = load_on_heap(device)?;
    let mut faults = std::mem::take(&mut loaded.faults);
    let mut blocks_checked = 0;
    let g = loaded.sb.geometry;
    let mut bytes = vec![0; g.block_size as usize * CHUNK as usize];
    for e in loaded.map.extents() {
        if u64::from(e.block) + e.count > g.blocks {
            // Out of bounds, and in the list already.
            continue;
        }
        let mut at = e;
        while at.count > 0 {
            let n = at.count.min(CHUNK);
            let part = Extent { count: n, ..at };
            check_blocks(device, &loaded, part, &mut bytes, &mut faults);
            blocks_checked += n;
            at = Extent {
                page: at.page + n,
                block: at.block + n as u32,
                count: at.count - n,
            };
        }
    }
    Ok(FsckReport {
        info: info(&loaded),
        notes: std::mem::take(&mut loaded.notes),
        faults,
        blocks_checked,
    })
}

/// Reads `part` and compares the checksums.
fn check_blocks(
    device: &dyn Device,
    loaded: &HeapMap,
    part: Extent,
    bytes: &mut [u8],
    faults: &mut Vec<Damage>,
) {
    let g = loaded.sb.geometry;
    let size = g.block_size as usize;
    let at = g.byte(u64::from(part.block));
    let whole = read(device, at, &mut bytes[..size * part.count as usize]).is_ok();
    for i in 0..part.count {
        let (page, at) = (part.page + i, at + i * size as u64);
        let block = &mut bytes[i as usize * size..][..size];
        // One bad sector does not hide its neighbours.
        if !whole && let Err(VolumeError::Io { source, .. }) = read(device, at, block) {
            faults.push(Damage::Unreadable { page, source });
            continue;
        }
        if loaded
            .map
            .get(page)
            .is_some_and(|m| m.crc != crc32c::crc32c(block))
        {
            faults.push(Damage::Data { page, at });
        }
    }
}

/// Sizes and counts of a volume that nobody has mounted.
///
/// # Errors
/// As [`fsck`], and the first fault of superblocks, map or log.
pub fn inspect(device: &dyn Device) -> Result<VolumeInfo, VolumeError> {
    let mut loaded = load_on_heap(device)?;
    match loaded.faults.is_empty() {
        true => Ok(info(&loaded)),
        false => Err(VolumeError::Damaged(loaded.faults.swap_remove(0))),
    }
}

fn info(loaded: &HeapMap) -> VolumeInfo {
    let g = loaded.sb.geometry;
    VolumeInfo {
        version: VERSION,
        uuid: loaded.sb.uuid,
        block_size: g.block_size,
        capacity: g.capacity,
        len: loaded.len,
        blocks: g.blocks,
        data_blocks: g.data_blocks(),
        used: loaded.map.mapped(),
        free: loaded.space.free(),
        extents: loaded.map.nr_extents(),
        map_frames: loaded.map.leaves() as u64,
        log_blocks: g.log_blocks,
        log_used: loaded.next - loaded.sb.log_start,
        transactions: loaded.transactions,
        ..VolumeInfo::default()
    }
}

//! What lies on the disk: places, superblocks, log blocks, leaves of the map. All integers are little-endian.
//!
//! ```text
//! block 0   1   2 …            …              …              …
//! [sb 0][sb 1][log ring][map area 0][map area 1][data blocks …]
//! ```
//! A log block with sequence number s lies at place s mod log blocks. A map area holds the leaves of one checkpoint, one
//! block each, in order, without gaps. Everything but a data block carries its own CRC32C; a data block's is in the map.
//! No number of the disk is used before it is compared with what the device and the options allow.

use super::error::{Damage, VolumeError};

/// The first bytes of a superblock, in every version.
const MAGIC: u64 = u64::from_le_bytes(*b"HWVOLUME");
const LOG_MAGIC: u32 = u32::from_le_bytes(*b"HWLG");
const LEAF_MAGIC: u32 = u32::from_le_bytes(*b"HWLF");

/// The format that this code writes, and the newest that it reads.
pub const VERSION: u32 = 1;
/// A superblock is one sector, so that a power failure leaves the old or the new one.
pub(super) const SB_BYTES: usize = 512;
/// Bytes before the entries of a leaf.
pub(super) const LEAF_HEADER: usize = 64;
/// Bytes of a leaf's entry: block, CRC.
pub(super) const ENTRY: usize = 8;
/// Bytes before the records of a log block.
pub(super) const LOG_HEADER: usize = 40;
/// This log block ends a transaction.
pub(super) const COMMIT: u32 = 1;
/// This log block repeats the one before it, and stands for it if that one is damaged.
pub(super) const COPY: u32 = 2;
/// The blocks of the two superblocks.
pub(super) const LOG_FIRST: u64 = 2;

/// The places where a second superblock may be, if the first does not say how large blocks are: one for each block size.
pub(super) const BLOCK_SHIFTS: std::ops::RangeInclusive<u32> = 12..=20;
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 4096..=1 << 20;
/// Fewer log blocks than this cannot hold a transaction of any use.
pub(super) const LOG_MIN: u64 = 8;
/// A mount reads the whole log, and remembers something of each block.
pub(super) const LOG_MAX: u64 = 1 << 16;
/// Sequence numbers, generations and counts of a volume that was written by this code stay far below.
const COUNT_MAX: u64 = 1 << 56;

pub(super) fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(b[at..at + 2].try_into().expect("two bytes"))
}

pub(super) fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().expect("eight bytes"))
}

pub(super) fn put_u16(b: &mut [u8], at: usize, v: u16) {
    b[at..at + 2].copy_from_slice(&v.to_le_bytes());
}

pub(super) fn put_u32(b: &mut [u8], at: usize, v: u32) {
    b[at..at + 4].copy_from_slice(&v.to_le_bytes());
}

pub(super) fn put_u64(b: &mut [u8], at: usize, v: u64) {
    b[at..at + 8].copy_from_slice(&v.to_le_bytes());
}

/// The CRC32C of a block whose own CRC stands at `at`, counted as zero.
pub(super) fn crc_without(block: &[u8], at: usize) -> u32 {
    let crc = crc32c::crc32c(&block[..at]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &block[at + 4..])
}

/// Where everything is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Geometry {
    /// Bytes of a block, and of a frame.
    pub block_size: u32,
    /// Blocks of the device that the volume uses.
    pub blocks: u64,
    pub log_blocks: u64,
    /// The most bytes that the volume's file may have.
    pub capacity: u64,
}

impl Geometry {
    /// The geometry, if these numbers make sense together.
    pub(super) fn check(self) -> Result<Geometry, String> {
        let bs = u64::from(self.block_size);
        if !BLOCK_SIZES.contains(&self.block_size) || !self.block_size.is_power_of_two() {
            return Err(format!(
                "a block size of {bs} bytes; it is a power of two from {} to {}",
                BLOCK_SIZES.start(),
                BLOCK_SIZES.end()
            ));
        }
        if self.capacity == 0 || !self.capacity.is_multiple_of(bs) {
            return Err(format!(
                "a logical size of {} bytes; it is a multiple of {bs}, and not zero",
                self.capacity
            ));
        }
        // Block and page numbers are 32 bits; the all-ones page is kept free, so that a range's end is one, too.
        if self.capacity / bs >= u64::from(u32::MAX) || self.blocks >= u64::from(u32::MAX) {
            return Err("more than 2^32 - 2 blocks; use larger blocks".into());
        }
        if !(LOG_MIN..=LOG_MAX).contains(&self.log_blocks) {
            return Err(format!(
                "a log of {} blocks; the least is {LOG_MIN}, and the most {LOG_MAX}",
                self.log_blocks
            ));
        }
        let need = self.data_first() + 2 * slack_of(u64::MAX);
        let least = self.data_first() + 8;
        if self.blocks < least {
            return Err(format!(
                "{} blocks of {bs} bytes; log and map take {}, so {} bytes is the least and {} leave room to work in",
                self.blocks,
                self.data_first(),
                least.saturating_mul(bs),
                need.saturating_mul(bs)
            ));
        }
        Ok(self)
    }

    /// Pages of the largest file.
    pub(super) fn pages(&self) -> u64 {
        self.capacity / u64::from(self.block_size)
    }
    /// Pages that one leaf of the map covers.
    pub(super) fn leaf_pages(&self) -> u64 {
        (self.block_size as u64 - LEAF_HEADER as u64) / ENTRY as u64
    }
    /// The most leaves of a map: the blocks of an area.
    pub(super) fn leaves(&self) -> u64 {
        self.pages().div_ceil(self.leaf_pages())
    }
    pub(super) fn area_first(&self, area: u32) -> u64 {
        LOG_FIRST + self.log_blocks + u64::from(area) * self.leaves()
    }
    pub(super) fn data_first(&self) -> u64 {
        self.area_first(2)
    }
    pub(super) fn data_blocks(&self) -> u64 {
        self.blocks - self.data_first()
    }
    /// The byte where a block begins.
    pub(super) fn byte(&self, block: u64) -> u64 {
        block * u64::from(self.block_size)
    }
    /// The byte where the log block `seq` lies.
    pub(super) fn log_byte(&self, seq: u64) -> u64 {
        self.byte(LOG_FIRST + seq % self.log_blocks)
    }
    /// Is it a data block?
    pub(super) fn is_data(&self, block: u32) -> bool {
        (self.data_first()..self.blocks).contains(&u64::from(block))
    }
    /// Blocks that no writer may reserve: for pages that a failed flush makes dirty again, and for a truncation's tail.
    pub(super) fn slack(&self) -> u64 {
        slack_of(self.data_blocks())
    }
    /// Blocks, beside the slack, that only pages may reserve that replace others.
    pub(super) fn headroom(&self) -> u64 {
        slack_of(self.data_blocks())
    }
}

fn slack_of(data_blocks: u64) -> u64 {
    (data_blocks / 32).clamp(2, 64)
}

/// A superblock: which checkpoint holds the map, and where the log goes on from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Superblock {
    pub uuid: [u8; 16],
    /// The one with the higher generation holds.
    pub generation: u64,
    pub geometry: Geometry,
    /// The area of the checkpoint, 0 or 1.
    pub area: u32,
    /// The generation that the checkpoint's leaves carry.
    pub checkpoint: u64,
    /// How many leaves it has.
    pub leaves: u32,
    /// The file's length in bytes.
    pub len: u64,
    /// The first log block whose records are not in the checkpoint.
    pub log_start: u64,
    /// What that block's `prev` is.
    pub chain: u32,
    /// Transactions committed before.
    pub transactions: u64,
}

impl Superblock {
    pub(super) fn encode(&self) -> [u8; SB_BYTES] {
        let mut b = [0; SB_BYTES];
        put_u64(&mut b, 0, MAGIC);
        put_u32(&mut b, 8, VERSION);
        b[16..32].copy_from_slice(&self.uuid);
        put_u64(&mut b, 32, self.generation);
        put_u32(&mut b, 40, self.geometry.block_size);
        put_u32(&mut b, 44, self.area);
        put_u64(&mut b, 48, self.geometry.blocks);
        put_u64(&mut b, 56, self.geometry.log_blocks);
        put_u64(&mut b, 64, self.geometry.capacity);
        put_u64(&mut b, 72, self.len);
        put_u64(&mut b, 80, self.checkpoint);
        put_u32(&mut b, 88, self.leaves);
        put_u32(&mut b, 92, self.chain);
        put_u64(&mut b, 96, self.log_start);
        put_u64(&mut b, 104, self.transactions);
        let crc = crc_without(&b, 12);
        put_u32(&mut b, 12, crc);
        b
    }

    /// The superblock in `b`. Magic, version and CRC stand at the same places in every version.
    ///
    /// # Errors
    /// `NotAVolume` without the magic, `NewerVersion`, `Damaged`.
    pub(super) fn decode(b: &[u8; SB_BYTES], at: u64, device: u64) -> Result<Self, VolumeError> {
        if u64_at(b, 0) != MAGIC {
            return Err(VolumeError::NotAVolume);
        }
        let damaged = |why: String| VolumeError::Damaged(Damage::Superblock { at, why });
        if u32_at(b, 12) != crc_without(b, 12) {
            return Err(damaged("its checksum does not hold".into()));
        }
        match u32_at(b, 8) {
            VERSION => {}
            found if found > VERSION => {
                return Err(VolumeError::NewerVersion {
                    found,
                    supported: VERSION,
                });
            }
            other => return Err(damaged(format!("version {other} never was"))),
        }
        let geometry = Geometry {
            block_size: u32_at(b, 40),
            blocks: u64_at(b, 48),
            log_blocks: u64_at(b, 56),
            capacity: u64_at(b, 64),
        };
        let geometry = geometry.check().map_err(damaged)?;
        let sb = Superblock {
            uuid: b[16..32].try_into().expect("16 bytes"),
            generation: u64_at(b, 32),
            geometry,
            area: u32_at(b, 44),
            checkpoint: u64_at(b, 80),
            leaves: u32_at(b, 88),
            len: u64_at(b, 72),
            log_start: u64_at(b, 96),
            chain: u32_at(b, 92),
            transactions: u64_at(b, 104),
        };
        if sb.area > 1 || u64::from(sb.leaves) > geometry.leaves() || sb.len > geometry.capacity {
            return Err(damaged("it points outside of the volume".into()));
        }
        let counts = [sb.generation, sb.checkpoint, sb.log_start, sb.transactions];
        if counts.iter().any(|n| *n > COUNT_MAX) {
            return Err(damaged("it counts further than a volume can".into()));
        }
        if geometry.byte(geometry.blocks) > device {
            return Err(VolumeError::Shortened {
                device,
                volume: geometry.byte(geometry.blocks),
            });
        }
        Ok(sb)
    }

    /// What the log blocks of this volume carry, so that another volume's are noise.
    pub(super) fn tag(&self) -> u64 {
        u64_at(&self.uuid, 0) ^ u64_at(&self.uuid, 8).rotate_left(1)
    }
}

/// What a log block says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LogHeader {
    pub tag: u64,
    pub seq: u64,
    /// The CRC of the block before it: a block is believed only behind the one that it was written behind.
    pub prev: u32,
    /// Of a copy: the `prev` of the block that it repeats.
    pub before: u32,
    /// Bytes used, this header included.
    pub used: u32,
    pub flags: u32,
}

impl LogHeader {
    /// Writes the header in front of the records, which fill `used` bytes; the rest becomes zero. Returns the CRC.
    pub(super) fn seal(&self, b: &mut [u8]) -> u32 {
        b[self.used as usize..].fill(0);
        put_u32(b, 0, LOG_MAGIC);
        put_u64(b, 8, self.tag);
        put_u64(b, 16, self.seq);
        put_u32(b, 24, self.prev);
        put_u32(b, 28, self.used);
        put_u32(b, 32, self.flags);
        put_u32(b, 36, self.before);
        let crc = crc_without(b, 4);
        put_u32(b, 4, crc);
        crc
    }

    /// The header and CRC of a block that verifies; `None` for noise.
    pub(super) fn open(b: &[u8], tag: u64) -> Option<(LogHeader, u32)> {
        let header = LogHeader {
            tag: u64_at(b, 8),
            seq: u64_at(b, 16),
            prev: u32_at(b, 24),
            before: u32_at(b, 36),
            used: u32_at(b, 28),
            flags: u32_at(b, 32),
        };
        // The cheap looks first: most of a ring is other blocks.
        let likely = u32_at(b, 0) == LOG_MAGIC && header.tag == tag;
        let crc = u32_at(b, 4);
        if !likely || crc != crc_without(b, 4) {
            return None;
        }
        (LOG_HEADER..=b.len())
            .contains(&(header.used as usize))
            .then_some((header, crc))
    }
}

/// Writes a leaf's header in front of its entries.
pub(super) fn seal_leaf(b: &mut [u8], tag: u64, generation: u64, index: u32) {
    b[..LEAF_HEADER].fill(0);
    put_u32(b, 0, LEAF_MAGIC);
    put_u64(b, 8, tag);
    put_u64(b, 16, generation);
    put_u32(b, 24, index);
    let crc = crc_without(b, 4);
    put_u32(b, 4, crc);
}

/// The index of a leaf that verifies.
pub(super) fn open_leaf(b: &[u8], tag: u64, generation: u64) -> Option<u32> {
    let holds = u32_at(b, 0) == LEAF_MAGIC
        && u64_at(b, 8) == tag
        && u64_at(b, 16) == generation
        && u32_at(b, 4) == crc_without(b, 4);
    holds.then(|| u32_at(b, 24))
}

//! What can be wrong with a volume, as types.

use crate::error::{Error, IoError};
use std::fmt;

/// Why a volume could not be made, mounted or looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// The device could not do it.
    #[error("{op}: {source}")]
    Io {
        /// What was tried.
        op: &'static str,
        /// The device's answer.
        source: IoError,
    },
    /// No frame could be had for the map or the log.
    #[error("memory for the volume: {0}")]
    Memory(#[source] Box<Error>),
    /// Neither superblock has the mark of a volume.
    #[error("this is not a volume: no superblock is there; make one with `volume create`")]
    NotAVolume,
    /// Made by a newer version.
    #[error(
        "the volume has format version {found}, and this program reads up to {supported}; use a newer one"
    )]
    NewerVersion {
        /// The volume's version.
        found: u32,
        /// The newest that is understood.
        supported: u32,
    },
    /// The device is shorter than when the volume was made.
    #[error("the device has {device} bytes, and the volume on it {volume}: its end is missing")]
    Shortened {
        /// Bytes of the device.
        device: u64,
        /// Bytes of the volume.
        volume: u64,
    },
    /// What is on the disk contradicts itself: not what was written.
    #[error("the volume is damaged: {0}; `volume fsck` lists all faults")]
    Damaged(Damage),
    /// The blocks are not as large as the cache's frames.
    #[error(
        "the volume has blocks of {volume} bytes and the cache has frames of {cache}; open the cache with page size {volume}"
    )]
    BlockSize {
        /// Bytes of a block.
        volume: usize,
        /// Bytes of a frame.
        cache: usize,
    },
    /// The map would take too much of the cache.
    #[error(
        "the volume's map may need {need} frames, and a cache of {frames} frames lends it {most}; raise the memory budget"
    )]
    MapTooLarge {
        /// Frames that the map of a full volume takes.
        need: u64,
        /// Frames of the cache.
        frames: u64,
        /// How many of them may be the map's.
        most: u64,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Config(String),
}

impl VolumeError {
    pub(super) fn io(op: &'static str) -> impl Fn(IoError) -> VolumeError {
        move |source| VolumeError::Io { op, source }
    }
}

/// One thing that is wrong on the disk. Places are bytes of the device.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Damage {
    /// A superblock.
    Superblock {
        /// Where.
        at: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A leaf of the checkpoint.
    Checkpoint {
        /// Where.
        at: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A log block that does not verify, with a later commit behind it; or one whose records make no sense.
    Log {
        /// Where.
        at: u64,
        /// The sequence number expected there.
        seq: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A page is mapped outside of the data blocks.
    OutOfBounds {
        /// The page.
        page: u64,
        /// The block.
        block: u64,
    },
    /// Two pages share a block.
    Shared {
        /// The second page.
        page: u64,
        /// The block.
        block: u64,
    },
    /// A data block is not what was written.
    Data {
        /// The page.
        page: u64,
        /// Where its block lies.
        at: u64,
    },
    /// A data block could not be read.
    Unreadable {
        /// The page.
        page: u64,
        /// The device's answer.
        source: IoError,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Superblock { at, why } => write!(f, "superblock at byte {at}: {why}"),
            Damage::Checkpoint { at, why } => write!(f, "map at byte {at}: {why}"),
            Damage::Log { at, seq, why } => write!(f, "log block {seq} at byte {at}: {why}"),
            Damage::OutOfBounds { page, block } => {
                write!(
                    f,
                    "page {page} is mapped to block {block}, which holds no data"
                )
            }
            Damage::Shared { page, block } => {
                write!(f, "page {page} shares block {block} with another page")
            }
            Damage::Data { page, at } => write!(
                f,
                "page {page} at byte {at}: the checksum does not hold, its bytes are not what was written"
            ),
            Damage::Unreadable { page, source } => write!(f, "page {page}: {source}"),
        }
    }
}

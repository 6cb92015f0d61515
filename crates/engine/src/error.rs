//! What can go wrong, as types. A bug panics; the world's failures are here; normal outcomes are enums where they arise.

use crate::world::Nanos;
use std::fmt;
use std::ops::Range;

/// Why a device said no.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IoErrorKind {
    /// The device could not read, write or flush (`EIO`).
    Io,
    /// No space left (`ENOSPC`, `EDQUOT`, `EFBIG`).
    NoSpace,
    /// Opened for reading only (`EBADF`, `EROFS`, `EPERM`, `EACCES`).
    ReadOnly,
    /// Another errno.
    Errno(i32),
    /// The request was given up by its device without an answer.
    Dropped,
    /// No answer within the deadline.
    TimedOut,
    /// The bytes are not those that were written: a checksum does not hold.
    Checksum,
}

/// A device's error, with the place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoError {
    /// Why.
    pub kind: IoErrorKind,
    /// Where on the device, in bytes.
    pub offset: u64,
}

impl IoError {
    /// An error of `kind` at `offset`.
    pub const fn new(kind: IoErrorKind, offset: u64) -> IoError {
        IoError { kind, offset }
    }

    /// From an errno.
    pub fn from_errno(errno: i32, offset: u64) -> IoError {
        let kind = match errno {
            5 => IoErrorKind::Io,
            27 | 28 | 122 => IoErrorKind::NoSpace,
            1 | 9 | 13 | 30 => IoErrorKind::ReadOnly,
            110 => IoErrorKind::TimedOut,
            e => IoErrorKind::Errno(e),
        };
        IoError { kind, offset }
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            IoErrorKind::Io => write!(f, "input/output error at byte {}", self.offset),
            IoErrorKind::NoSpace => write!(
                f,
                "no space left at byte {}; make some: discard or shorten what is not needed, sync, and write again",
                self.offset
            ),
            IoErrorKind::ReadOnly => write!(f, "not writable (byte {})", self.offset),
            IoErrorKind::Errno(e) => write!(
                f,
                "{} at byte {}",
                std::io::Error::from_raw_os_error(e),
                self.offset
            ),
            IoErrorKind::Dropped => write!(f, "request dropped at byte {}", self.offset),
            IoErrorKind::TimedOut => write!(f, "no answer in time at byte {}", self.offset),
            IoErrorKind::Checksum => write!(
                f,
                "the checksum at byte {} does not hold: these are not the bytes that were written",
                self.offset
            ),
        }
    }
}

impl std::error::Error for IoError {}

/// Who holds the memory when an allocation fails: the report of an out-of-memory error.
#[doc(alias = "out_of_memory")]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OomReport {
    /// Frames in all.
    pub frames: u64,
    /// Free frames, reserve included.
    pub free: u64,
    /// Clean pages on the LRU.
    pub clean: u64,
    /// Dirty pages.
    pub dirty: u64,
    /// Dirty pages whose last write failed.
    pub failed: u64,
    /// Pages under writeback.
    pub writeback: u64,
    /// Pages being read.
    pub loading: u64,
    /// Frames lent to backings.
    pub lent: u64,
    /// Pages held by guards.
    pub held: u64,
    /// Frames in blocks that users hold.
    pub blocks: u64,
    /// How long the caller waited.
    pub waited: Nanos,
}

impl fmt::Display for OomReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "of {} frames: {} free, {} clean, {} dirty ({} of them failed to write), {} under writeback, {} loading, {} lent to backings, {} held by guards, {} in blocks; waited {}",
            self.frames,
            self.free,
            self.clean,
            self.dirty,
            self.failed,
            self.writeback,
            self.loading,
            self.lent,
            self.held,
            self.blocks,
            self.waited
        )
    }
}

/// Why there is no block of frames.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NoBlockReport {
    /// Asked for: 2^order frames.
    pub order: u32,
    /// Free frames, reserve included.
    pub free: u64,
    /// The order of the largest free block.
    pub largest: Option<u32>,
    /// Near 0: too few frames are free; near 1,000: enough, in pieces. -1,000: a block is free, but below the reserve.
    pub fragmentation_index: i32,
    /// Pages that the caller reclaimed.
    pub reclaimed: u64,
    /// How long it waited.
    pub waited: Nanos,
}

impl fmt::Display for NoBlockReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "of {} free frames, ", self.free)?;
        match self.largest {
            Some(largest) => write!(f, "at most 2^{largest} are in a row")?,
            None => f.write_str("none is in a block")?,
        }
        write!(
            f,
            " (fragmentation index {}); reclaimed {} pages, waited {}",
            self.fragmentation_index, self.reclaimed, self.waited
        )
    }
}

/// What a call on a cache or a file can fail with.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device failed.
    #[error("{op}: {source}")]
    Io {
        /// What was being done: `read`, `write`, `flush`, …
        op: &'static str,
        /// The device's answer.
        source: IoError,
    },
    /// No frame could be had, nothing is in flight and no pass made progress.
    #[error("out of memory: {0}")]
    OutOfMemory(Box<OomReport>),
    /// There is no block of so many frames in a row, and the effort that was allowed did not make one.
    #[error(
        "no block of 2^{order} frames: {0}; ask for a lower order, hold fewer blocks, or wait longer",
        order = .0.order
    )]
    NoBlock(Box<NoBlockReport>),
    /// Every page that could be reclaimed is held by a guard.
    #[error(
        "all pages are pinned: {mine} by this task, {others} by others; drop guards or raise the budget"
    )]
    AllPinned {
        /// Guards of the calling task.
        mine: u32,
        /// Guards of other tasks.
        others: u32,
    },
    /// The page's latch was not free within the limit.
    #[error("page {page} is busy: its latch was not free within {waited}")]
    Busy {
        /// The page.
        page: u64,
        /// How long the caller waited.
        waited: Nanos,
    },
    /// A task asked for a page that it holds in a way that excludes the request.
    #[error("page {page} is latched by this task already: it would wait for itself")]
    SelfDeadlock {
        /// The page.
        page: u64,
    },
    /// Too many guards on one page.
    #[error("too many guards on page {page}: at most {max}")]
    TooManyHolders {
        /// The page.
        page: u64,
        /// The limit.
        max: u32,
    },
    /// Beyond the end of the file.
    #[error(
        "page {page} is beyond the end of the file ({len} bytes); set_len or write_at extends it"
    )]
    OutOfRange {
        /// The page.
        page: u64,
        /// The file's length in bytes.
        len: u64,
    },
    /// The file was opened for reading only.
    #[error("the file was opened for reading only; open it with OpenOptions::write(true)")]
    ReadOnly,
    /// An operation had no answer within its deadline.
    #[error("{what}: no answer within {waited}; the request is still with the device")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long.
        waited: Nanos,
    },
    /// The device lost writes that it had acknowledged: a flush failed after the pages had been reclaimed.
    #[error(
        "durability lost in byte ranges {ranges:?}: a flush failed after these pages had left memory; reopen the file and check them"
    )]
    DurabilityLost {
        /// The byte ranges.
        ranges: Vec<Range<u64>>,
    },
    /// `close` found live guards. The cache stays usable.
    #[error("{0} pages are still held by guards; drop them, then close again")]
    StillPinned(u64),
    /// The cache was closed.
    #[error("the cache is closed")]
    Closed,
    /// Used in a child process after fork.
    #[error("this cache belongs to the parent process: it cannot be used after fork")]
    Forked,
    /// A setting makes no sense.
    #[error("{0}")]
    Config(String),
    /// The file is open already, in a way that excludes this one.
    #[error("{0}")]
    Conflict(String),
    /// The operating system refused something that is neither a read nor a write of the file.
    #[error("{what}: {errno_text}")]
    Os {
        /// What was tried, with the path where there is one.
        what: String,
        /// The errno.
        errno: i32,
        /// The errno in words.
        errno_text: String,
    },
}

impl Error {
    /// A device error under the name of an operation.
    pub fn io(op: &'static str, source: IoError) -> Error {
        Error::Io { op, source }
    }

    /// The operating system's last word on `what`.
    pub fn os(what: impl Into<String>, error: &std::io::Error) -> Error {
        Error::Os {
            what: what.into(),
            errno: error.raw_os_error().unwrap_or(0),
            errno_text: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_said_in_a_unit_that_fits() {
        let late = |waited| {
            Error::TimedOut {
                what: "flush",
                waited,
            }
            .to_string()
        };
        let said = late(Nanos(30_006_534_000));
        assert!(
            said.starts_with("flush: no answer within 30.0 s;"),
            "{said}"
        );
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_500, "1.50 µs"),
            (250_000_000, "250 ms"),
            (10_000_000_000, "10.0 s"),
            (3_600_000_000_000, "3600 s"),
        ] {
            assert_eq!(Nanos(ns).to_string(), text);
        }
    }
}

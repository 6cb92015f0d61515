//! What a file's pages are read from and written to: the public a_ops.
//!
//! A [`Backing`] turns page ranges into requests on devices. [`PlainBacking`] maps page n to the n-th frame-sized piece
//! of one device. A backing may refuse writes from reclaim ([`Backing::may_write`]), as XFS and btrfs did.
//!
//! **Context.** `read_pages` and `write_pages` start I/O and return; they may be called by a task that has no free
//! memory, and must make progress then. `before_write` and `after_read` run on the task that submits or completes.
//!
//! **Invariants.**
//! - RESERVE-1: a backing that reserves has given space for each dirty page of its file, and for no more: `reserve` before
//!   a clean page becomes dirty; `write_pages` uses up what its pages have; `release` for a page that is dropped unwritten.
//!
//! **Kernel.** struct address_space_operations.

pub mod journaled;
mod plain;
mod refusing;
pub use plain::PlainBacking;
pub use refusing::RefusingBacking;

use crate::error::IoError;
use crate::io::{IoBuf, Lane, Request};
use crate::world::Queue;
use std::sync::Arc;

/// Who wants to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WriteContext {
    /// Direct reclaim: a thread that needs a page.
    Direct,
    /// kswapd.
    Kswapd,
    /// The flusher.
    Flusher,
    /// A writer that is made to write by the throttle.
    Writer,
    /// Sync, evict or close.
    Sync,
}

impl WriteContext {
    /// True of reclaim (`PF_MEMALLOC` writers, which XFS and btrfs refused).
    pub fn is_reclaim(self) -> bool {
        matches!(self, WriteContext::Direct | WriteContext::Kswapd)
    }

    /// The lane for writes of this context.
    pub fn lane(self) -> Lane {
        match self {
            WriteContext::Flusher => Lane::Flusher,
            _ => Lane::Shared,
        }
    }
}

/// What stands behind a file's pages. Offsets are bytes of the file.
#[doc(alias("address_space_operations", "a_ops", "writepages", "writepage"))]
pub trait Backing: Send + Sync + 'static {
    /// The queue whose flusher writes this file.
    fn queue(&self) -> Arc<dyn Queue>;
    /// Starts every read of `batch`, emptying it. Each ends in `Request::complete`. Bytes beyond the end read as zero.
    fn read_pages(&self, lane: Lane, batch: &mut Vec<Request>);
    /// Reads on the calling thread.
    ///
    /// # Errors
    /// What the device answers.
    fn read_now(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError>;
    /// Starts every write of `batch`, emptying it. A request may end in the middle of a page where the file does.
    fn write_pages(&self, context: WriteContext, batch: &mut Vec<Request>);
    /// Starts one write of one page.
    fn write_page(&self, context: WriteContext, request: Request) {
        self.write_pages(context, &mut vec![request]);
    }
    /// May `context` write pages of this file?
    fn may_write(&self, context: WriteContext) -> bool {
        let _ = context;
        true
    }
    /// Makes every write completed before the call durable.
    ///
    /// # Errors
    /// What the device answers.
    fn flush(&self) -> Result<(), IoError>;
    /// As `flush`, with the file's attributes. By default the same.
    ///
    /// # Errors
    /// As `flush`.
    fn flush_all(&self) -> Result<(), IoError> {
        self.flush()
    }
    /// The file's length in bytes.
    ///
    /// # Errors
    /// What the device answers.
    fn len(&self) -> Result<u64, IoError>;
    /// True of an empty file.
    ///
    /// # Errors
    /// What the device answers.
    fn is_empty(&self) -> Result<bool, IoError> {
        Ok(self.len()? == 0)
    }
    /// Sets the file's length. Pages beyond it are no longer in memory nor under I/O.
    ///
    /// # Errors
    /// What the device answers.
    fn truncate(&self, len: u64) -> Result<(), IoError>;
    /// The allocated ranges `(offset, len)` within the given one.
    ///
    /// # Errors
    /// What the device answers.
    fn extents(&self, offset: u64, len: u64) -> Result<Vec<(u64, u64)>, IoError>;
    /// Gives up the contents of a range of whole pages, or up to the end: it reads as zeroes from now on, and its space may
    /// be used again. The pages are neither dirtied nor under writeback meanwhile. Durable after the next `flush`.
    ///
    /// # Errors
    /// What the device answers; nothing has changed then.
    #[doc(alias("FALLOC_FL_PUNCH_HOLE", "blkdev_issue_discard"))]
    fn discard(&self, offset: u64, len: u64) -> Result<(), IoError>;
    /// True of a backing with delayed allocation: `reserve` is asked for each page that becomes dirty. Constant.
    fn reserves(&self) -> bool {
        false
    }
    /// Called before a clean page becomes dirty, on the writer's task, with no engine lock or latch of the page held; may
    /// sleep. A backing with delayed allocation sets a block aside here, so that a full volume is the writer's error and
    /// never writeback's. `write_pages` uses it up; a request that ends with an error gives it back to its pages, before it
    /// completes.
    ///
    /// # Errors
    /// `NoSpace`: the write fails, and nothing has changed.
    #[doc(alias("ext4_da_reserve_space", "xfs_bmapi_reserve_delalloc"))]
    fn reserve(&self, page: u64) -> Result<(), IoError> {
        let _ = page;
        Ok(())
    }
    /// After `NoSpace`: may there be space when the dirty pages have been written? True where they replace others, whose blocks
    /// they do not overwrite.
    fn writing_makes_space(&self) -> bool {
        false
    }
    /// A reservation is not needed: the page was dropped without being written, or was dirty already. Any context; must not
    /// sleep.
    #[doc(alias = "ext4_da_release_space")]
    fn release(&self, page: u64) {
        let _ = page;
    }
    /// After a flush that failed: is the page's last completed write durable all the same, by a commit that the backing has made
    /// for itself? Then it stays clean. Called under an engine lock; must not sleep.
    fn is_durable(&self, page: u64) -> bool {
        let _ = page;
        false
    }
    /// A page that was written well is dirty again, since a flush after it has failed: it needs a block once more, and gets
    /// one (the block of the write that may be lost is the backing's to use). Called under an engine lock; must not sleep.
    fn redirtied(&self, page: u64) {
        let _ = page;
    }
    /// A flush has failed while a page was dirty or under writeback, with space of its own: its last completed write may be
    /// lost. The backing must not make that write the durable state before the page's next one. As `redirtied` otherwise.
    fn doubted(&self, page: u64) {
        let _ = page;
    }
    /// How many reservations there are now, where the backing counts them (RESERVE-1).
    fn reserved(&self) -> Option<u64> {
        None
    }
    /// Called on a page's bytes, a whole frame, before they are written: they do not change until the write has ended. For
    /// checksums that are kept elsewhere; the bytes themselves cannot be changed here.
    fn before_write(&self, page: u64, bytes: &[u8]) {
        let _ = (page, bytes);
    }
    /// Called on a page's bytes, a whole frame, after they were read and before anybody sees them.
    ///
    /// # Errors
    /// When the bytes are not what was written: the read fails.
    fn after_read(&self, page: u64, bytes: &[u8]) -> Result<(), IoError> {
        let _ = (page, bytes);
        Ok(())
    }
}

//! A backing that ignores writeback from reclaim, as XFS (kswapd included) and btrfs did in 2010.

use super::{Backing, WriteContext};
use crate::error::IoError;
use crate::io::{IoBuf, Lane, Request};
use crate::world::Queue;
use std::sync::Arc;

/// Passes everything on to another backing, but refuses to write for reclaim.
pub struct RefusingBacking<B> {
    inner: B,
}

impl<B: Backing> RefusingBacking<B> {
    /// Refuses for `inner`.
    pub fn new(inner: B) -> RefusingBacking<B> {
        RefusingBacking { inner }
    }
}

impl<B: Backing> Backing for RefusingBacking<B> {
    fn queue(&self) -> Arc<dyn Queue> {
        self.inner.queue()
    }
    fn read_pages(&self, lane: Lane, batch: &mut Vec<Request>) {
        self.inner.read_pages(lane, batch);
    }
    fn read_now(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
        self.inner.read_now(offset, bufs)
    }
    fn write_pages(&self, context: WriteContext, batch: &mut Vec<Request>) {
        self.inner.write_pages(context, batch);
    }
    fn write_page(&self, context: WriteContext, request: Request) {
        self.inner.write_page(context, request);
    }
    fn may_write(&self, context: WriteContext) -> bool {
        !context.is_reclaim() && self.inner.may_write(context)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.inner.flush()
    }
    fn flush_all(&self) -> Result<(), IoError> {
        self.inner.flush_all()
    }
    fn len(&self) -> Result<u64, IoError> {
        self.inner.len()
    }
    fn truncate(&self, len: u64) -> Result<(), IoError> {
        self.inner.truncate(len)
    }
    fn extents(&self, offset: u64, len: u64) -> Result<Vec<(u64, u64)>, IoError> {
        self.inner.extents(offset, len)
    }
    fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.inner.discard(offset, len)
    }
    fn reserves(&self) -> bool {
        self.inner.reserves()
    }
    fn reserve(&self, page: u64) -> Result<(), IoError> {
        self.inner.reserve(page)
    }
    fn writing_makes_space(&self) -> bool {
        self.inner.writing_makes_space()
    }
    fn release(&self, page: u64) {
        self.inner.release(page);
    }
    fn is_durable(&self, page: u64) -> bool {
        self.inner.is_durable(page)
    }
    fn redirtied(&self, page: u64) {
        self.inner.redirtied(page);
    }
    fn doubted(&self, page: u64) {
        self.inner.doubted(page);
    }
    fn reserved(&self) -> Option<u64> {
        self.inner.reserved()
    }
    fn before_write(&self, page: u64, bytes: &[u8]) {
        self.inner.before_write(page, bytes);
    }
    fn after_read(&self, page: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.inner.after_read(page, bytes)
    }
}

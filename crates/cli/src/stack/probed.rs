//! A file whose every call is measured: the same tasks run on it, and only where stacks are traced.

use crate::blocks::HeldBlock;
use crate::target::{Handle, OpError};
use highwater_lab::stack::{Calls, Entry};
use std::sync::Arc;

/// A handle, and where the depth of its calls is kept.
#[derive(Clone)]
pub struct Probed<F> {
    file: F,
    calls: Arc<Calls>,
}

impl<F> Probed<F> {
    /// `file`, measured.
    pub fn new(file: F, calls: &Arc<Calls>) -> Probed<F> {
        let calls = calls.clone();
        Probed { file, calls }
    }
}

impl<F: Handle> Handle for Probed<F> {
    fn len(&self) -> u64 {
        self.file.len()
    }
    fn page_size(&self) -> usize {
        self.file.page_size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), OpError> {
        self.calls
            .measure(Entry::ReadAt, || self.file.read_at(buf, offset))
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), OpError> {
        self.calls
            .measure(Entry::WriteAt, || self.file.write_at(buf, offset))
    }
    fn write_through(&self, buf: &[u8], offset: u64) -> Result<(), OpError> {
        // A write and then this, which is the deeper of the two.
        self.calls
            .measure(Entry::SyncRange, || self.file.write_through(buf, offset))
    }
    fn touch(&self, page: u64) -> Result<u64, OpError> {
        self.calls.measure(Entry::Page, || self.file.touch(page))
    }
    fn touch_mut(&self, page: u64, bytes: &[u8]) -> Result<(), OpError> {
        self.calls
            .measure(Entry::PageMut, || self.file.touch_mut(page, bytes))
    }
    fn sync(&self) -> Result<(), OpError> {
        self.calls.measure(Entry::SyncData, || self.file.sync())
    }
    fn alloc_block(&self, order: u32, thp: bool) -> Result<HeldBlock, OpError> {
        self.calls
            .measure(Entry::AllocBlock, || self.file.alloc_block(order, thp))
    }
}

//! A file or block device, page n at byte n × frame size.

use super::{Backing, WriteContext};
use crate::error::IoError;
use crate::io::{IoBuf, Lane, Request};
use crate::world::{Device, Queue};
use std::sync::Arc;

/// One device, used as it is.
pub struct PlainBacking {
    device: Arc<dyn Device>,
}

impl PlainBacking {
    /// A backing over `device`.
    pub fn new(device: Arc<dyn Device>) -> PlainBacking {
        PlainBacking { device }
    }
}

impl Backing for PlainBacking {
    fn queue(&self) -> Arc<dyn Queue> {
        self.device.queue()
    }
    fn read_pages(&self, lane: Lane, batch: &mut Vec<Request>) {
        self.device.submit(lane, batch);
    }
    fn read_now(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
        self.device.read_now(offset, bufs)
    }
    fn write_pages(&self, context: WriteContext, batch: &mut Vec<Request>) {
        self.device.submit(context.lane(), batch);
    }
    fn flush(&self) -> Result<(), IoError> {
        self.device.flush()
    }
    fn flush_all(&self) -> Result<(), IoError> {
        self.device.flush_all()
    }
    fn len(&self) -> Result<u64, IoError> {
        self.device.len()
    }
    fn truncate(&self, len: u64) -> Result<(), IoError> {
        self.device.truncate(len)
    }
    fn extents(&self, offset: u64, len: u64) -> Result<Vec<(u64, u64)>, IoError> {
        self.device.extents(offset, len)
    }
    fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.device.write_zeroes(offset, len)
    }
}

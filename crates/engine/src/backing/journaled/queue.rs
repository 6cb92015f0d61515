//! The queue as a volume's cache sees it: deeper than the device's, as many requests of the cache become one of the device.
//!
//! The engine keeps as many requests in flight as a queue serves best. Counted in requests of single pages, that would be one
//! long run at a time, and the device would idle between the end of one and the start of the next.

use crate::io::Lane;
use crate::world::{Nanos, Queue, QueueId};
use std::sync::Arc;

/// Requests of the cache for each place in the device's queue.
const EACH: usize = 8;
/// At the least: a few runs of the batches that writeback submits.
const LEAST: usize = 128;

pub(super) struct Packed {
    device: Arc<dyn Queue>,
}

impl Packed {
    pub(super) fn new(device: Arc<dyn Queue>) -> Packed {
        Packed { device }
    }
}

impl Queue for Packed {
    fn id(&self) -> QueueId {
        self.device.id()
    }
    fn name(&self) -> String {
        self.device.name()
    }
    fn reap(&self, lane: Lane, until: Nanos) -> usize {
        self.device.reap(lane, until)
    }
    fn depth(&self) -> usize {
        (self.device.depth() * EACH).max(LEAST)
    }
    fn segments_max(&self) -> usize {
        self.device.segments_max()
    }
    fn request_bytes_max(&self) -> usize {
        self.device.request_bytes_max()
    }
}

//! The queue as a volume's cache sees it: deeper than the device's, as many requests of the cache become one of the device.
//!
//! The engine keeps as many requests in flight as a queue serves best. Counted in requests of single pages, that would be one
//! long run at a time, and the device would idle between the end of one and the start of the next.

use crate::io::Lane;
use crate::world::{Nanos, Queue, QueueId};
use std::sync::Arc;

/// Requests of the cache for each place in the device's queue: as many as writeback submits at a time, which are one run.
const EACH: usize = 32;
/// At the least: a few runs.
const LEAST: usize = 128;
/// No more than this part of the cache is on its way at a time, were each request a page.
const SHARE: u64 = 8;

pub(super) struct Packed {
    device: Arc<dyn Queue>,
    most: usize,
}

impl Packed {
    /// For a cache of so many frames.
    pub(super) fn new(device: Arc<dyn Queue>, frames: u64) -> Packed {
        Packed {
            device,
            most: (frames / SHARE) as usize,
        }
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
        (self.device.depth() * EACH).min(self.most).max(LEAST)
    }
    fn segments_max(&self) -> usize {
        self.device.segments_max()
    }
    fn request_bytes_max(&self) -> usize {
        self.device.request_bytes_max()
    }
}

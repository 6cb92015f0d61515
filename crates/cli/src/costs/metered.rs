//! A device that knows what CPU the flusher spends on completions.

use crate::cpu::of_this_thread;
use highwater::{FileDevice, IoError};
use highwater_engine::io::{IoBuf, Lane, Request};
use highwater_engine::world::{Device, Nanos, Queue, QueueId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module's head.
pub(super) struct Metered {
    inner: FileDevice,
    queue: Arc<MeteredQueue>,
}

struct MeteredQueue {
    inner: Arc<dyn Queue>,
    reap_ns: AtomicU64,
}

impl Metered {
    pub(super) fn new(inner: FileDevice) -> Metered {
        let queue = MeteredQueue {
            inner: inner.queue(),
            reap_ns: AtomicU64::new(0),
        };
        Metered {
            inner,
            queue: Arc::new(queue),
        }
    }

    /// Nanoseconds of CPU so far in waits on the flusher's lane, with all that they completed.
    pub(super) fn spent(&self) -> u64 {
        // Relaxed: a sum.
        self.queue.reap_ns.load(Ordering::Relaxed)
    }
}

impl Device for Metered {
    fn queue(&self) -> Arc<dyn Queue> {
        self.queue.clone()
    }
    fn submit(&self, lane: Lane, batch: &mut Vec<Request>) {
        self.inner.submit(lane, batch);
    }
    fn read_now(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
        self.inner.read_now(offset, bufs)
    }
    fn write_now(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.inner.write_now(offset, buf)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.inner.flush()
    }
    fn len(&self) -> Result<u64, IoError> {
        self.inner.len()
    }
    fn truncate(&self, len: u64) -> Result<(), IoError> {
        self.inner.truncate(len)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.inner.write_zeroes(offset, len)
    }
}

impl Queue for MeteredQueue {
    fn id(&self) -> QueueId {
        self.inner.id()
    }
    fn name(&self) -> String {
        self.inner.name()
    }
    fn reap(&self, lane: Lane, until: Nanos) -> usize {
        let begin = of_this_thread();
        let n = self.inner.reap(lane, until);
        if lane == Lane::Flusher {
            let ns = of_this_thread() - begin;
            // Relaxed: a sum, read for a difference of many.
            self.reap_ns.fetch_add(ns, Ordering::Relaxed);
        }
        n
    }
    fn depth(&self) -> usize {
        self.inner.depth()
    }
    fn segments_max(&self) -> usize {
        self.inner.segments_max()
    }
    fn request_bytes_max(&self) -> usize {
        self.inner.request_bytes_max()
    }
}

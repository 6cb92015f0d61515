//! A device's request queue: two lanes over io_uring or a thread pool, shared by all files of the device.
//!
//! Decides which lane a request takes and how much the device likes at one time (from sysfs).
//!
//! **Kernel.** request_queue, queue_limits.

use super::IoEngine;
use super::flight::Flight;
use super::flusher::FlusherLane;
use super::pool::Pool;
use super::shared::SharedLane;
use super::target::Target;
use crate::world::{Clock, ForkMark, tasks};
use highwater_engine::io::{Lane, Request};
use highwater_engine::world::{Nanos, Queue, QueueId};
use std::path::Path;
use std::sync::Arc;

/// The queue of one device (`st_dev`) in one [`crate::OsWorld`].
pub struct OsQueue {
    id: QueueId,
    name: String,
    clock: Clock,
    fork: ForkMark,
    limits: Limits,
    lanes: Lanes,
}

enum Lanes {
    Uring {
        flusher: FlusherLane,
        shared: SharedLane,
    },
    Threads(Pool),
}

impl OsQueue {
    pub(crate) fn new(dev: u64, clock: Clock, engine: IoEngine) -> OsQueue {
        let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
        let name = format!("{major}:{minor}");
        let lanes = match engine {
            IoEngine::Threads => Lanes::Threads(Pool::new(&name)),
            IoEngine::Auto | IoEngine::Uring => match SharedLane::new(&name) {
                Ok(shared) => Lanes::Uring {
                    flusher: FlusherLane::default(),
                    shared,
                },
                Err(e) => {
                    tracing::warn!("no io_uring for device {name} ({e}): threads instead");
                    Lanes::Threads(Pool::new(&name))
                }
            },
        };
        OsQueue {
            id: QueueId(dev),
            limits: Limits::of(Path::new("/sys/dev/block"), &name),
            name,
            clock,
            fork: ForkMark::new(),
            lanes,
        }
    }

    /// What it works through now: [`IoEngine::Uring`] or [`IoEngine::Threads`].
    pub(crate) fn io_engine(&self) -> IoEngine {
        match self.lanes {
            Lanes::Uring { .. } => IoEngine::Uring,
            Lanes::Threads(_) => IoEngine::Threads,
        }
    }

    pub(super) fn submit(&self, lane: Lane, target: &Arc<Target>, batch: &mut Vec<Request>) {
        if batch.is_empty() {
            return;
        }
        crate::world::door();
        let flights = batch.drain(..).map(|r| Flight::new(r, target.clone()));
        match &self.lanes {
            Lanes::Threads(pool) => pool.submit(lane, flights),
            Lanes::Uring { flusher, shared } => {
                let own = match lane {
                    Lane::Flusher => flusher.claim(),
                    Lane::Shared => None,
                };
                match own {
                    Some(ring) => ring.submit(flights),
                    None => shared.submit(flights),
                }
            }
        }
    }

    /// Waits until `until` for what is in flight and ends the queue's threads; true when nothing is left.
    pub(crate) fn stop(&self, until: Nanos) -> bool {
        if self.fork.forked() {
            // The threads and what is in flight are the parent's.
            return true;
        }
        let idle = match &self.lanes {
            Lanes::Uring { flusher, shared } => {
                let drained = flusher.drain(&self.clock, until);
                shared.stop(&self.clock, until) && drained
            }
            Lanes::Threads(pool) => pool.stop(&self.clock, until),
        };
        if !idle {
            tracing::error!("device {}: requests had no answer within 5 s", self.name);
        }
        idle
    }
}

impl Drop for OsQueue {
    fn drop(&mut self) {
        self.stop(self.clock.now().plus(Nanos::from_secs(5)));
    }
}

impl Queue for OsQueue {
    fn id(&self) -> QueueId {
        self.id
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn reap(&self, lane: Lane, until: Nanos) -> usize {
        tasks::task().assert_may_sleep();
        match (&self.lanes, lane) {
            (Lanes::Uring { flusher, .. }, Lane::Flusher) => {
                return flusher.reap(&self.clock, until);
            }
            (Lanes::Uring { shared, .. }, Lane::Shared) => {
                let n = shared.reap_now();
                if n > 0 {
                    return n;
                }
            }
            (Lanes::Threads(_), _) => {}
        }
        if self.clock.now() < until {
            tasks::current().park(&self.clock, until);
        }
        0
    }

    fn depth(&self) -> usize {
        self.limits.depth
    }

    fn segments_max(&self) -> usize {
        self.limits.segments
    }

    fn request_bytes_max(&self) -> usize {
        self.limits.bytes
    }
}

/// What a device likes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Limits {
    depth: usize,
    segments: usize,
    bytes: usize,
}

impl Limits {
    /// From `<root>/<major:minor>/queue`, or the disk's when that is a partition; the defaults where there is neither.
    fn of(root: &Path, name: &str) -> Limits {
        let device = root.join(name);
        let read = |file: &str| -> Option<usize> {
            [device.join("queue"), device.join("../queue")]
                .iter()
                .find_map(|d| std::fs::read_to_string(d.join(file)).ok())?
                .trim()
                .parse()
                .ok()
        };
        Limits {
            depth: read("nr_requests").map_or(128, |n| n.clamp(16, 128)),
            segments: read("max_segments").map_or(254, |n| n.clamp(1, 1024)),
            bytes: read("max_sectors_kb").map_or(1 << 20, |kb| (kb << 10).clamp(64 << 10, 1 << 20)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_from_sysfs() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Limits {
            depth: 128,
            segments: 254,
            bytes: 1 << 20,
        };
        assert_eq!(Limits::of(dir.path(), "0:42"), missing);
        let queue = dir.path().join("8:0/queue");
        std::fs::create_dir_all(&queue).unwrap();
        std::fs::create_dir_all(dir.path().join("8:0/8:1")).unwrap();
        for (file, value) in [
            ("nr_requests", "32\n"),
            ("max_segments", "168\n"),
            ("max_sectors_kb", "512\n"),
        ] {
            std::fs::write(queue.join(file), value).unwrap();
        }
        let disk = Limits {
            depth: 32,
            segments: 168,
            bytes: 512 << 10,
        };
        assert_eq!(Limits::of(dir.path(), "8:0"), disk);
        assert_eq!(
            Limits::of(&dir.path().join("8:0"), "8:1"),
            disk,
            "a partition has its disk's"
        );
    }
}

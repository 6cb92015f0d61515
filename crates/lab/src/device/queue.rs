//! A disk: when its requests end, and on whose stack.

use super::ram::RamDevice;
use crate::cell::LabCell;
use crate::rng::Rng;
use crate::world::{EventSink, LabWorld};
use highwater_engine::io::{IoOp, Lane, Request};
use highwater_engine::world::{Queue, QueueId, TaskId};
use highwater_engine::{IoError, Nanos, World};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// A disk's speed. The default is a quick flash disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueOptions {
    /// The queue's name.
    pub id: u64,
    /// How many requests are served at one time.
    pub depth: usize,
    /// What a read takes besides its bytes.
    pub read: Nanos,
    /// What a write takes besides its bytes.
    pub write: Nanos,
    /// What a flush, a truncation or a question takes.
    pub flush: Nanos,
    /// Nanoseconds for each KiB on the bus that all requests share.
    pub ns_per_kib: u64,
    /// How much longer than `read` and `write` a request may take, in percent of them.
    pub jitter_percent: u32,
}

impl Default for QueueOptions {
    fn default() -> QueueOptions {
        QueueOptions {
            id: 1,
            depth: 32,
            read: Nanos::from_micros(60),
            write: Nanos::from_micros(20),
            flush: Nanos::from_micros(200),
            ns_per_kib: 500,
            jitter_percent: 30,
        }
    }
}

pub(super) struct InFlight {
    pub device: Arc<RamDevice>,
    pub lane: Lane,
    pub request: Request,
    pub sum: u64,
}

#[derive(Default)]
struct State {
    servers: Vec<u64>,
    bus_free_at: u64,
    slab: Vec<Option<InFlight>>,
    free: Vec<u32>,
    done: VecDeque<(Request, Result<(), IoError>)>,
    waiter: Option<TaskId>,
    hang_reads: u32,
    hang_writes: u32,
    hung: Vec<u64>,
    sleepers: Vec<TaskId>,
    released: u64,
}

/// One disk's request queue.
pub struct LabQueue {
    pub(super) world: Arc<LabWorld>,
    options: QueueOptions,
    state: LabCell<State>,
    pub(super) rng: LabCell<Rng>,
    source: u32,
}

impl LabQueue {
    /// A disk of `world`.
    pub fn new(world: &Arc<LabWorld>, options: QueueOptions) -> Arc<LabQueue> {
        assert!(options.depth > 0, "a disk serves at least one request");
        Arc::new_cyclic(|weak: &Weak<LabQueue>| LabQueue {
            state: LabCell::new(State {
                servers: vec![0; options.depth],
                ..State::default()
            }),
            rng: LabCell::new(Rng::new(world.seed(), 100 + options.id)),
            source: world.register(weak.clone()),
            world: world.clone(),
            options,
        })
    }

    /// The next `n` requests of `op` hang until `release_hung`.
    pub fn hang_next(&self, op: IoOp, n: u32) {
        self.state.with(|s| match op {
            IoOp::Read => s.hang_reads = n,
            IoOp::Write => s.hang_writes = n,
        });
    }

    /// Lets the hung requests go on; returns how many there were.
    pub fn release_hung(&self) -> usize {
        let (hung, sleepers) = self.state.with(|s| {
            s.released += 1;
            s.hang_reads = 0;
            s.hang_writes = 0;
            (std::mem::take(&mut s.hung), std::mem::take(&mut s.sleepers))
        });
        for &token in &hung {
            self.world.schedule(self.world.now(), self.source, token);
        }
        for &task in &sleepers {
            self.world.rouse(task);
        }
        hung.len() + sleepers.len()
    }

    /// Requests submitted and not ended, hung ones included.
    pub fn in_flight(&self) -> usize {
        self.state
            .with(|s| s.slab.iter().flatten().count() + s.done.len())
    }

    /// When a request of `len` bytes that starts now ends.
    fn end_of(&self, op: IoOp, len: usize, extra: Nanos) -> u64 {
        let o = &self.options;
        let base = match op {
            IoOp::Read => o.read.0,
            IoOp::Write => o.write.0,
        };
        let jitter = base * u64::from(o.jitter_percent) / 100;
        let jitter = self.rng.with(|r| r.between(0, jitter));
        let now = self.world.now().0;
        self.state.with(|s| {
            let server = s.servers.iter_mut().min().unwrap_or_else(|| unreachable!());
            let start = now.max(*server);
            let bytes_ns = len as u64 * o.ns_per_kib / 1024;
            s.bus_free_at = s.bus_free_at.max(start) + bytes_ns;
            let end = (start + base + jitter + extra.0).max(s.bus_free_at);
            *server = end;
            end
        })
    }

    /// Puts a request in flight.
    pub(super) fn start(&self, entry: InFlight, extra: Nanos) {
        let end = self.end_of(entry.request.op, entry.request.len(), extra);
        let token = self.state.with(|s| match s.free.pop() {
            Some(at) => {
                s.slab[at as usize] = Some(entry);
                u64::from(at)
            }
            None => {
                s.slab.push(Some(entry));
                s.slab.len() as u64 - 1
            }
        });
        self.world.schedule(Nanos(end), self.source, token);
    }

    /// Sleeps for as long as a request of the calling task takes.
    pub(super) fn serve_now(&self, op: IoOp, len: usize, extra: Nanos) {
        let end = self.end_of(op, len, extra);
        self.world.sleep_until(Nanos(end));
        let released = self.state.with(|s| {
            let hangs = match op {
                IoOp::Read => &mut s.hang_reads,
                IoOp::Write => &mut s.hang_writes,
            };
            if *hangs == 0 {
                return None;
            }
            *hangs -= 1;
            s.sleepers.push(self.world.task().id());
            Some(s.released)
        });
        if let Some(released) = released {
            while self.state.with(|s| s.released) == released {
                self.world.sleep();
            }
        }
    }

    /// Sleeps for as long as a flush takes.
    pub(super) fn serve_flush(&self) {
        self.world
            .sleep_until(self.world.now().plus(self.options.flush));
    }

    /// The writes of `device` in flight.
    pub(super) fn writes_of<R>(
        &self,
        device: &RamDevice,
        mut f: impl FnMut(&Request) -> R,
    ) -> Vec<R> {
        self.state.with(|s| {
            s.slab
                .iter()
                .flatten()
                .filter(|e| std::ptr::eq(&*e.device, device) && e.request.op == IoOp::Write)
                .map(|e| f(&e.request))
                .collect()
        })
    }
}

impl EventSink for LabQueue {
    fn fire(&self, token: u64) {
        let entry = self.state.with(|s| {
            let op = s.slab[token as usize].as_ref().map(|e| e.request.op);
            let hangs = match op {
                Some(IoOp::Read) => &mut s.hang_reads,
                Some(IoOp::Write) => &mut s.hang_writes,
                None => unreachable!("IO-2: an event of a request that has ended"),
            };
            if *hangs > 0 {
                *hangs -= 1;
                s.hung.push(token);
                return None;
            }
            s.free.push(token as u32);
            s.slab[token as usize].take()
        });
        let Some(entry) = entry else {
            return;
        };
        let result = entry.device.perform(&entry.request, entry.sum);
        match entry.lane {
            Lane::Shared => entry.request.complete(result),
            Lane::Flusher => {
                let waiter = self.state.with(|s| {
                    s.done.push_back((entry.request, result));
                    s.waiter
                });
                if let Some(task) = waiter {
                    self.world.unpark(task);
                }
            }
        }
    }
}

impl Queue for LabQueue {
    fn id(&self) -> QueueId {
        QueueId(self.options.id)
    }

    fn name(&self) -> String {
        format!("lab:{}", self.options.id)
    }

    fn reap(&self, lane: Lane, until: Nanos) -> usize {
        if lane == Lane::Shared {
            if self.world.now() < until {
                self.world.park(until);
            }
            return 0;
        }
        let idle = self.state.with(|s| s.done.is_empty());
        if idle && self.world.now() < until {
            let me = self.world.task().id();
            let other = self.state.with(|s| s.waiter.replace(me));
            assert_eq!(other, None, "one task reaps the flusher's lane");
            self.world.park(until);
            self.state.with(|s| s.waiter = None);
        }
        let mut n = 0;
        while let Some((request, result)) = self.state.with(|s| s.done.pop_front()) {
            request.complete(result);
            n += 1;
        }
        n
    }

    fn depth(&self) -> usize {
        self.options.depth
    }
}

//! A disk: when its requests end, and on whose stack.

use super::backlog::{Backlog, InFlight, Slot};
use super::model::{Access, Model, Waiting};
use super::ram::RamDevice;
use crate::cell::LabCell;
use crate::rng::Rng;
use crate::world::{EventSink, LabWorld};
use highwater_engine::io::{IoBuf, IoOp, Lane, Request};
use highwater_engine::world::{Queue, QueueId};
use highwater_engine::{Nanos, World};
use std::sync::{Arc, Weak};

/// A disk. The default is a quick flash disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueOptions {
    /// The queue's name.
    pub id: u64,
    /// What it is, and how quick.
    pub model: Model,
    /// A limit before it.
    pub cap: Option<Cap>,
}

/// A limit as the OS world's `Limiter` has it (`blk-throttle`): a clock for each direction, which a request occupies for
/// the longer of its bytes' and its own share of a second, before the device sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cap {
    /// Bytes a second and direction; 0: no limit.
    pub bytes_per_s: u64,
    /// Requests a second and direction; 0: no limit.
    pub iops: u64,
}

impl Default for QueueOptions {
    fn default() -> QueueOptions {
        QueueOptions {
            id: 1,
            model: Model::default(),
            cap: None,
        }
    }
}

/// An event with this bit: the request reaches the device. Without: it ends.
const ARRIVES: u64 = 1 << 63;
/// The event that runs the queue, after all that end at that time.
const RUN: u64 = 1 << 62;

/// One disk's request queue.
pub struct LabQueue {
    pub(super) world: Arc<LabWorld>,
    options: QueueOptions,
    state: LabCell<Backlog>,
    pub(super) rng: LabCell<Rng>,
    source: u32,
    next_base: LabCell<u64>,
}

/// How many pieces of memory `bufs` are: buffers that adjoin are one, as for the block layer.
pub(super) fn segments(bufs: &[IoBuf]) -> u32 {
    let pairs = bufs.iter().zip(bufs.iter().skip(1));
    let gaps = pairs.filter(|(a, b)| a.ptr.wrapping_add(a.len) != b.ptr);
    1 + gaps.count() as u32
}

impl LabQueue {
    /// A disk of `world`.
    ///
    /// # Panics
    /// When a parameter of the model makes no sense ([`Model::check`]).
    pub fn new(world: &Arc<LabWorld>, options: QueueOptions) -> Arc<LabQueue> {
        if let Err((name, expected)) = options.model.check() {
            panic!("{name}: expected {expected}");
        }
        Arc::new_cyclic(|weak: &Weak<LabQueue>| LabQueue {
            state: LabCell::new(Backlog::new(&options.model)),
            rng: LabCell::new(Rng::new(world.seed(), 100 + options.id)),
            source: world.register(weak.clone()),
            next_base: LabCell::new(0),
            world: world.clone(),
            options,
        })
    }

    /// Where the next file of `len` bytes begins on the disk: files lie one after the other, a GiB apart at least.
    pub(super) fn place(&self, len: u64) -> u64 {
        let room = len.next_multiple_of(1 << 20).max(1 << 30);
        self.next_base.with(|at| {
            let base = *at;
            *at += room;
            base
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
        self.state.with(|s| s.in_slab() + s.done.len())
    }

    /// Pieces of memory of all reads, and of all writes, that came.
    pub fn segments(&self) -> [u64; 2] {
        self.state.with(|s| s.segments)
    }

    /// Puts a request in flight; its bytes begin at `at` of the disk.
    pub(super) fn start(&self, entry: Box<InFlight>, at: u64, extra: Nanos) {
        let access = Access {
            op: entry.request.op,
            offset: at,
            len: entry.request.len() as u64,
            segments: segments(&entry.request.bufs),
            extra: extra.0,
            copying: self.world.copying(),
        };
        self.enter(Slot::Io(entry), access);
    }

    /// Puts a request in flight that the disk has nothing to do for.
    pub(super) fn end_now(&self, entry: Box<InFlight>) {
        let token = self.state.with(|s| s.add(Slot::Io(entry)));
        self.world.schedule(self.world.now(), self.source, token);
    }

    /// Gives `slot` a token, and its request to the device.
    fn enter(&self, slot: Slot, access: Access) -> u64 {
        let now = self.world.now().0;
        let (token, at, event) = self.state.with(|s| {
            s.count(&access);
            let token = s.add(slot);
            let at = s.pass(self.options.cap, now, &access);
            if at == now && !s.server.has_front() {
                let end = self.rng.with(|rng| s.server.end_of(at, &access, rng));
                return (token, end, Some(token));
            }
            // The model sees a request when the cap lets it through: one that waits for the reads' clock takes no place
            // on the bus before a write that passes now.
            s.arriving.push((token, access));
            (token, at, (at > now).then_some(token | ARRIVES))
        });
        match event {
            Some(event) => self.world.schedule(Nanos(at), self.source, event),
            None => self.arrive(token),
        }
        token
    }

    /// A request reaches the device.
    fn arrive(&self, token: u64) {
        let since = self.world.now().0;
        let end = self.state.with(|s| {
            let at = s.arriving.iter().position(|a| a.0 == token);
            let Some(at) = at else {
                unreachable!("IO-2: a request arrives once")
            };
            let (token, access) = s.arriving.swap_remove(at);
            if !s.server.has_front() {
                return Some(self.rng.with(|rng| s.server.end_of(since, &access, rng)));
            }
            s.pending.push(Waiting {
                token,
                access,
                since,
            });
            None
        });
        match end {
            Some(end) => self.world.schedule(Nanos(end), self.source, token),
            None => self.dispatch(),
        }
    }

    fn dispatch(&self) {
        let (now, copying) = (self.world.now().0, self.world.copying());
        let next = || {
            self.rng
                .with(|rng| self.state.with(|s| s.dispatch(now, copying, rng)))
        };
        while let Some((token, end)) = next() {
            self.world.schedule(Nanos(end), self.source, token);
        }
    }

    /// Sleeps until the device has served a request of the calling task.
    fn sleep_through(&self, access: Access) {
        let now = self.world.now().0;
        let direct = self.state.with(|s| {
            if s.server.has_front() {
                return None;
            }
            s.count(&access);
            Some(s.pass(self.options.cap, now, &access))
        });
        if let Some(at) = direct {
            self.world.sleep_until(Nanos(at));
            let end = self.state.with(|s| {
                self.rng
                    .with(|rng| s.server.end_of(self.world.now().0, &access, rng))
            });
            // The device works meanwhile.
            self.world.charge_syscall();
            return self.world.sleep_until_served(Nanos(end));
        }
        let token = self.enter(Slot::Caller(self.world.task().id()), access);
        self.world.charge_syscall();
        while !self
            .state
            .with(|s| matches!(s.slab[token as usize], Some(Slot::Served)))
        {
            self.world.sleep();
        }
        self.state.with(|s| s.remove(token));
    }

    /// Sleeps for as long as a request of the calling task takes; its bytes begin at `at` of the disk.
    /// One that hangs then has left the device: only its caller waits.
    pub(super) fn serve_now(&self, op: IoOp, at: u64, bufs: &[IoBuf], extra: Nanos) {
        self.sleep_through(Access {
            op,
            offset: at,
            len: bufs.iter().map(|b| b.len as u64).sum(),
            segments: segments(bufs),
            extra: extra.0,
            copying: self.world.copying(),
        });
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
        let now = self.world.now().0;
        let end = self
            .rng
            .with(|rng| self.state.with(|s| s.server.flush_end(now, rng)));
        self.world.sleep_until_served(Nanos(end));
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
                .filter_map(|slot| match slot {
                    Some(Slot::Io(e)) => Some(e),
                    _ => None,
                })
                .filter(|e| std::ptr::eq(&*e.device, device) && e.request.op == IoOp::Write)
                .map(|e| f(&e.request))
                .collect()
        })
    }
}

impl EventSink for LabQueue {
    fn fire(&self, token: u64) {
        if token & ARRIVES != 0 {
            return self.arrive(token & !ARRIVES);
        }
        if token == RUN {
            self.state.with(|s| s.runs = false);
            return self.dispatch();
        }
        let now = self.world.now().0;
        if let Some(at) = self.state.with(|s| s.put_off(token, now)) {
            return self.world.schedule(Nanos(at), self.source, token);
        }
        self.world.interrupt();
        let (runs, entry) = self.state.with(|s| {
            let ended = s.end(token);
            // A request that was hung and is released may have left before.
            let stays = ended.is_none() && s.server.hung_stays();
            let freed = !stays && s.leave(token);
            (freed && !std::mem::replace(&mut s.runs, true), ended)
        });
        if runs {
            self.world.schedule(Nanos(now), self.source, RUN);
        }
        let entry = match entry {
            Some(Slot::Caller(task)) => return self.world.rouse(task),
            Some(Slot::Io(entry)) => Some(entry),
            _ => None,
        };
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
                    self.world.unpark_served(task);
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
        let depth = self.options.model.depth();
        self.options.cap.map_or(depth, |_| depth.min(32))
    }

    fn request_bytes_max(&self) -> usize {
        self.options.model.request_bytes_max()
    }

    fn segments_max(&self) -> usize {
        self.options.model.segments_max()
    }
}

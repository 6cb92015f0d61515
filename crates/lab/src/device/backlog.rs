//! What a disk has in hand: requests that came, that wait with the host, that it serves, and that hang.
//!
//! A request has a token from when it comes until it ends. `queue.rs` has the world's events, which name tokens; the code here
//! schedules nothing and wakes nobody.

use super::model::{Access, Model, Rate, Served, Server, Waiting};
use super::queue::Cap;
use super::ram::RamDevice;
use crate::rng::Rng;
use highwater_engine::IoError;
use highwater_engine::io::{IoOp, Lane, Request};
use highwater_engine::world::TaskId;
use std::collections::VecDeque;
use std::sync::Arc;

/// A request in flight.
pub(super) struct InFlight {
    pub device: Arc<RamDevice>,
    pub lane: Lane,
    pub request: Request,
    pub sum: u64,
}

/// What a token stands for.
pub(super) enum Slot {
    /// Boxed: callers' stacks are measured, and it would lie in each frame on the way to the disk.
    Io(Box<InFlight>),
    /// A task in `serve_now`, asleep until the device has served it.
    Caller(TaskId),
    /// Its request was served.
    Served,
}

/// A request that the device has taken from those that waited.
struct Taken {
    token: u64,
    segments: u32,
    served: Served,
}

/// All of it.
pub(super) struct Backlog {
    pub(super) server: Server,
    /// When the cap lets the next read, and the next write, through.
    cap_free_at: [u64; 2],
    /// Waiting with the host until the device takes them, oldest first.
    pub(super) pending: Vec<Waiting>,
    /// What the device has taken of those.
    taken: Vec<Taken>,
    /// A `RUN` is on its way.
    pub(super) runs: bool,
    /// Pieces of memory of all reads, and of all writes, that came.
    pub(super) segments: [u64; 2],
    /// What reaches the device later, by token.
    pub(super) arriving: Vec<(u64, Access)>,
    pub(super) slab: Vec<Option<Slot>>,
    free: Vec<u32>,
    pub(super) done: VecDeque<(Request, Result<(), IoError>)>,
    pub(super) waiter: Option<TaskId>,
    pub(super) hang_reads: u32,
    pub(super) hang_writes: u32,
    pub(super) hung: Vec<u64>,
    pub(super) sleepers: Vec<TaskId>,
    pub(super) released: u64,
}

impl Backlog {
    pub(super) fn new(model: &Model) -> Backlog {
        Backlog {
            server: model.server(),
            cap_free_at: [0; 2],
            pending: Vec::new(),
            taken: Vec::new(),
            runs: false,
            segments: [0; 2],
            arriving: Vec::new(),
            slab: Vec::new(),
            free: Vec::new(),
            done: VecDeque::new(),
            waiter: None,
            hang_reads: 0,
            hang_writes: 0,
            hung: Vec::new(),
            sleepers: Vec::new(),
            released: 0,
        }
    }

    pub(super) fn count(&mut self, access: &Access) {
        self.segments[usize::from(access.op == IoOp::Write)] += u64::from(access.segments);
    }

    /// When `cap` lets a request through that comes at `now`.
    pub(super) fn pass(&mut self, cap: Option<Cap>, now: u64, access: &Access) -> u64 {
        let Some(cap) = cap else {
            return now;
        };
        let clock = &mut self.cap_free_at[usize::from(access.op == IoOp::Write)];
        let own = 1_000_000_000u64.checked_div(cap.iops).unwrap_or(0);
        let bytes = Rate::bytes_per_s(cap.bytes_per_s).time(access.len);
        *clock = now.max(*clock) + own.max(bytes);
        *clock
    }

    pub(super) fn in_slab(&self) -> usize {
        let io = |slot: &&Slot| matches!(slot, Slot::Io(_));
        self.slab.iter().flatten().filter(io).count()
    }

    pub(super) fn add(&mut self, slot: Slot) -> u64 {
        match self.free.pop() {
            Some(at) => {
                self.slab[at as usize] = Some(slot);
                u64::from(at)
            }
            None => {
                self.slab.push(Some(slot));
                self.slab.len() as u64 - 1
            }
        }
    }

    pub(super) fn remove(&mut self, token: u64) -> Option<Slot> {
        self.free.push(token as u32);
        self.slab[token as usize].take()
    }

    /// The event of `token`: what has ended, unless it hangs.
    pub(super) fn end(&mut self, token: u64) -> Option<Slot> {
        let slot = &mut self.slab[token as usize];
        let hangs = match slot {
            Some(Slot::Io(e)) if e.request.op == IoOp::Read => &mut self.hang_reads,
            Some(Slot::Io(_)) => &mut self.hang_writes,
            Some(Slot::Caller(_)) => return slot.replace(Slot::Served),
            _ => unreachable!("IO-2: an event of a request that has ended"),
        };
        if *hangs > 0 {
            *hangs -= 1;
            self.hung.push(token);
            return None;
        }
        self.remove(token)
    }

    /// The device takes the next of those that wait, if it has room: the token and its end.
    pub(super) fn dispatch(&mut self, now: u64, copying: u32, rng: &mut Rng) -> Option<(u64, u64)> {
        let next = self.server.take(now, &self.pending)?;
        let mut next = self.pending.remove(next);
        next.access.copying = copying;
        let served = self.server.serve(now, &next.access, rng);
        self.taken.push(Taken {
            token: next.token,
            segments: next.access.segments,
            served,
        });
        Some((next.token, served.at))
    }

    /// What `token` held on the device is free, if it held anything.
    pub(super) fn leave(&mut self, token: u64) -> bool {
        let at = self.taken.iter().position(|t| t.token == token);
        let Some(at) = at else {
            return false;
        };
        let taken = self.taken.swap_remove(at);
        self.server.leave(taken.segments);
        true
    }

    /// The event of `token` comes again then: the device has not said yet that it is through.
    pub(super) fn put_off(&mut self, token: u64, now: u64) -> Option<u64> {
        let taken = self.taken.iter_mut().find(|t| t.token == token)?;
        self.server.put_off(now, &mut taken.served)
    }
}

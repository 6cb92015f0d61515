//! The queue of tasks that wait for a frame, oldest first. Guarded by the zone lock.

use crate::world::{Nanos, TaskId};
use std::collections::VecDeque;

/// A place in the queue. Used by one task, spent once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ticket(u64);

struct Waiter {
    ticket: u64,
    task: TaskId,
    since: Nanos,
}

/// Who waits, and who has been granted a frame and not yet taken it.
pub(super) struct Waiters {
    queue: VecDeque<Waiter>,
    granted: Vec<(u64, u32)>,
    next: u64,
}

impl Waiters {
    pub(super) fn new() -> Waiters {
        Waiters {
            queue: VecDeque::new(),
            granted: Vec::new(),
            next: 0,
        }
    }

    pub(super) fn join(&mut self, task: TaskId, now: Nanos) -> Ticket {
        self.next += 1;
        self.queue.push_back(Waiter {
            ticket: self.next,
            task,
            since: now,
        });
        Ticket(self.next)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.granted.len()
    }

    /// When the oldest came; 0 without one. A waiter that came at 0 counts as having come at 1.
    pub(super) fn oldest_ns(&self) -> u64 {
        self.queue.front().map_or(0, |w| w.since.0.max(1))
    }

    /// Gives `frame` to the oldest waiter and names its task.
    pub(super) fn grant(&mut self, frame: u32) -> TaskId {
        let w = self.queue.pop_front().expect("grant needs a waiter");
        self.granted.push((w.ticket, frame));
        w.task
    }

    pub(super) fn take_grant(&mut self, ticket: Ticket) -> Option<u32> {
        let at = self.granted.iter().position(|(t, _)| *t == ticket.0)?;
        Some(self.granted.swap_remove(at).1)
    }

    pub(super) fn leave(&mut self, ticket: Ticket) -> Option<u32> {
        if let Some(at) = self.queue.iter().position(|w| w.ticket == ticket.0) {
            self.queue.remove(at);
            return None;
        }
        self.take_grant(ticket)
    }
}

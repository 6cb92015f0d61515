//! What happens later, in the order of its time; of events at one instant the one comes first that was added first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    /// A task has done its work, or a part of it.
    WorkDone(u32),
    /// A task's timer goes off.
    Timer(u32),
    /// A device's event.
    Fire { source: u32, token: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Event {
    pub at: u64,
    seq: u64,
    pub kind: Kind,
}

#[derive(Default)]
pub(super) struct Events {
    heap: BinaryHeap<Reverse<Event>>,
    seq: u64,
}

impl Events {
    pub fn push(&mut self, at: u64, kind: Kind) {
        self.seq += 1;
        self.heap.push(Reverse(Event {
            at,
            seq: self.seq,
            kind,
        }));
    }

    pub fn pop(&mut self) -> Option<Event> {
        self.heap.pop().map(|e| e.0)
    }

    /// When the next one is.
    pub fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|e| e.0.at)
    }
}

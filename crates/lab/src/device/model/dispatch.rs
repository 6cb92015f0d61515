//! Which of the requests that wait goes to the driver next: Linux' blk-mq (block/blk-mq.c, block/blk-mq-sched.c).
//!
//! A run of the queue takes all that the driver has places for out of the elevator at once, and hands them over in that
//! order. Those that find no room in the ring stay on a list before the elevator, and nobody passes them: as long as they
//! wait the elevator sorts only who came later. A queue that was full lately (an average over its last runs) takes one at a
//! time, so that a ring with room for one request leaves the order to the elevator.
//!
//! **Invariants.** DISPATCH-1: what is on the list waits.

use super::deadline::Deadline;
use super::{Scheduler, Waiting};
use std::collections::VecDeque;

/// What a run that found no room adds to eight times the average.
const FULL: u32 = 16;

/// The state of a queue before a ring.
#[derive(Default)]
pub(super) struct Dispatch {
    elevator: Option<Deadline>,
    /// Taken out of the elevator, by token.
    list: VecDeque<u64>,
    /// How often the ring was full lately (`dispatch_busy`).
    busy: u32,
    /// When it was full last: one moment is one run.
    full_at: Option<u64>,
}

impl Dispatch {
    pub fn new(scheduler: Scheduler) -> Dispatch {
        Dispatch {
            elevator: match scheduler {
                Scheduler::None => None,
                Scheduler::Deadline => Some(Deadline::default()),
            },
            ..Dispatch::default()
        }
    }

    /// Which of `waiting`, oldest first, is the next at `now`, when the driver has places for `places` more.
    pub fn next(&mut self, now: u64, waiting: &[Waiting], places: usize) -> Option<usize> {
        if self.list.is_empty() {
            let most = if self.busy > 0 { places.min(1) } else { places };
            self.fill(now, waiting, most);
        }
        let next = *self.list.front()?;
        let at = waiting.iter().position(|w| w.token == next);
        assert!(at.is_some(), "DISPATCH-1: what is on the list waits");
        at
    }

    /// The next one went into the ring.
    pub fn went(&mut self) {
        self.list.pop_front();
        if self.list.is_empty() {
            self.busy = self.busy * 7 / 8;
        }
    }

    /// The next one found no room at `now`.
    pub fn full(&mut self, now: u64) {
        if self.full_at.replace(now) != Some(now) {
            self.busy = (self.busy * 7 + FULL) / 8;
        }
    }

    fn fill(&mut self, now: u64, waiting: &[Waiting], most: usize) {
        let Some(elevator) = &mut self.elevator else {
            return self.list.extend(waiting.iter().take(most).map(|w| w.token));
        };
        let mut left = waiting.to_vec();
        while self.list.len() < most {
            let Some(next) = elevator.choose(now, &left) else {
                break;
            };
            self.list.push_back(left.remove(next).token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Access;
    use super::*;
    use highwater_engine::io::IoOp;

    fn waiting(offsets: &[u64]) -> Vec<Waiting> {
        let one = |&offset| Waiting {
            token: offset,
            since: 0,
            access: Access {
                op: IoOp::Write,
                offset,
                len: 4096,
                segments: 1,
                extra: 0,
                copying: 0,
            },
        };
        offsets.iter().map(one).collect()
    }

    /// A run at `now` into a ring with room for `room`: what went in.
    fn run(d: &mut Dispatch, now: u64, all: &mut Vec<Waiting>, mut room: usize) -> Vec<u64> {
        let mut went = Vec::new();
        while let Some(next) = d.next(now, all, 128) {
            if room == 0 {
                d.full(now);
                break;
            }
            room -= 1;
            d.went();
            went.push(all.remove(next).token);
        }
        went
    }

    #[test]
    fn who_found_no_room_is_passed_by_nobody() {
        let mut d = Dispatch::new(Scheduler::Deadline);
        let mut all = waiting(&[50, 20, 90, 70, 30, 60]);
        assert_eq!(run(&mut d, 1, &mut all, 2), [20, 30]);
        // 55 is between them, and came later.
        all.extend(waiting(&[55, 10]));
        assert_eq!(run(&mut d, 2, &mut all, 3), [50, 60, 70]);
        assert_eq!(run(&mut d, 3, &mut all, 9), [90, 55, 10]);
    }

    #[test]
    fn a_ring_with_room_for_one_leaves_the_order_to_the_elevator() {
        let mut d = Dispatch::new(Scheduler::Deadline);
        let mut all = waiting(&[500]);
        assert_eq!(run(&mut d, 1, &mut all, 1), [500]);
        let mut went = Vec::new();
        let mut offset = 900;
        for now in 2..40 {
            // Each that comes lies before all that came, and waits for one at most.
            all.extend(waiting(&[offset]));
            offset -= 10;
            went.extend(run(&mut d, now, &mut all, usize::from(now > 4)));
        }
        assert!(
            all.len() == 3 && went.is_sorted_by(|a, b| a > b || *a == 900),
            "{went:?}"
        );
    }

    #[test]
    fn places_bound_what_leaves_the_elevator() {
        let mut d = Dispatch::new(Scheduler::None);
        let all = waiting(&[3, 2, 1]);
        assert_eq!(d.next(0, &all, 0), None);
        assert_eq!(d.next(0, &all, 2), Some(0));
        assert_eq!(d.list, [3, 2]);
    }
}

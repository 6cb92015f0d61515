//! What a task owes for its work, and where it stops to pay it: it computes, makes room for others, or waits.

use super::events::Kind;
use super::{ROOT, SOFTIRQ, Sched};
use crate::world::slot::{State, Then};
use corosensei::Yielder;

/// The longest a task keeps its CPU while others are ready.
const SLICE_NS: u64 = 1_000_000;
/// What a task that is placed does in one go: it makes room for others no more often.
const GRAIN_NS: u64 = 20_000;
/// What is owed is paid once it is so much.
const OWED_NS: u64 = 200;

impl Sched {
    /// Adds `ns` of work to the running task; says whether it wants to be pre-empted here.
    pub fn charge(&mut self, ns: u64) -> Option<Then> {
        match self.current {
            ROOT => {
                self.clock += ns;
                None
            }
            SOFTIRQ => {
                self.softirq_free_at = self.softirq_free_at.max(self.clock) + ns;
                None
            }
            _ => {
                self.owed += ns;
                let preempt = self.options.preempt_ppm > 0 && self.preempts();
                (preempt || self.owed >= OWED_NS).then(|| self.preemption(preempt))
            }
        }
    }

    fn preempts(&mut self) -> bool {
        self.rng.chance(self.options.preempt_ppm)
    }

    fn preemption(&mut self, preempt: bool) -> Then {
        if !preempt {
            return Then::Continue;
        }
        if self.rng.chance(self.options.steal_ppm) {
            Then::Stolen(self.rng.below(100_000))
        } else {
            Then::Yield
        }
    }

    /// The running task stops here, for `then`. The yielder to suspend by, or `None` when it may go on at once.
    pub fn settle(&mut self, mut then: Then) -> Option<*const Yielder<(), ()>> {
        let me = self.current;
        self.slots[me].slice_ns += self.owed;
        let used = self.owed - std::mem::take(&mut self.waking);
        self.slots[me].used_ns += used;
        self.owed += self.take_stolen(me);
        let rest = self.beyond_grain(me);
        let end = self.clock + self.owed;
        self.account(me, used.saturating_sub(rest), end);
        if then == Then::Continue {
            let starved = !self.ready.is_empty();
            let is_over = starved && self.slots[me].slice_ns >= SLICE_NS;
            let pending = match &self.placement {
                Some(placement) => placement.is_pending(),
                None => starved && self.free_cpus > 0,
            };
            // No further than the run's limit, which `next` watches.
            let limit = self.options.time_max.0.saturating_add(1);
            let next = self.events.next_at().map_or(limit, |at| at.min(limit));
            if is_over || self.must_leave(me) {
                then = Then::Preempted;
            } else if next > end + rest && !pending {
                self.clock = end + rest;
                self.account(me, rest, self.clock);
                self.owed = 0;
                return None;
            }
        }
        if me == ROOT {
            // The main thread has no CPU of its own: it computes for free.
            return if self.apply(ROOT, then) {
                None
            } else {
                Some(std::ptr::null())
            };
        }
        if self.owed == 0 {
            if self.apply(me, then) {
                return None;
            }
        } else {
            self.events
                .push(self.clock + self.owed, Kind::WorkDone(me as u32));
            self.owed = 0;
            self.slots[me].left = rest;
            self.slots[me].state = State::Computing(then);
        }
        Some(self.slots[me].yielder.get())
    }

    /// Takes from what `slot` owes all but what it does in one go.
    fn beyond_grain(&mut self, slot: usize) -> u64 {
        if slot <= SOFTIRQ || self.placement.is_none() {
            return 0;
        }
        let rest = self.owed.saturating_sub(GRAIN_NS);
        self.owed -= rest;
        rest
    }

    /// `slot`, which has its CPU, works for so long before it does `then`.
    pub(super) fn compute(&mut self, slot: usize, work: u64, then: Then) {
        let grain = work.min(GRAIN_NS);
        let end = self.clock + grain;
        self.account(slot, grain, end);
        self.events.push(end, Kind::WorkDone(slot as u32));
        self.slots[slot].left = work - grain;
        self.slots[slot].state = State::Computing(then);
    }

    /// `slot` has done a part of its work and goes on, unless it has to make room.
    pub(super) fn grain_done(&mut self, slot: usize, then: Then) {
        let leaves = self.must_leave(slot) || then == Then::Preempted;
        let then = match then {
            Then::Preempted => Then::Continue,
            then => then,
        };
        if leaves {
            self.slots[slot].after = then;
            self.apply(slot, Then::Preempted);
        } else {
            self.compute(slot, self.slots[slot].left, then);
        }
    }

    /// `slot` has done its work: it waits, or goes on (true).
    pub(super) fn apply(&mut self, slot: usize, then: Then) -> bool {
        let now = self.clock;
        let mut soft = u64::MAX;
        let until = match then {
            Then::Continue => return true,
            Then::Yield | Then::Preempted => {
                if slot == ROOT {
                    return true;
                }
                let cpu = self.slots[slot].cpu;
                if then == Then::Yield
                    && let Some(placement) = &mut self.placement
                {
                    placement.forfeit(cpu, slot);
                }
                self.leave_cpu(slot, false);
                let s = &mut self.slots[slot];
                s.state = State::Ready;
                s.since = now;
                // A task that is placed waits where it was.
                self.make_ready(slot, |_, _| ());
                return false;
            }
            Then::Stolen(ns) => now + ns,
            Then::Park(until) => {
                if std::mem::take(&mut self.slots[slot].token) || until <= now {
                    return true;
                }
                if self.rng.chance(self.options.spurious_ppm) {
                    until.min(now + self.rng.below(20_000))
                } else {
                    soft = until;
                    until.saturating_add(self.options.costs.timer_slack)
                }
            }
            Then::Sleep(until) => {
                if std::mem::take(&mut self.slots[slot].roused) || until <= now {
                    return true;
                }
                until
            }
        };
        self.leave_cpu(slot, true);
        let s = &mut self.slots[slot];
        s.state = match then {
            Then::Park(_) => State::Parked,
            _ => State::Sleeping,
        };
        s.since = now;
        s.soft_deadline = soft;
        s.deadline = until;
        self.arm(slot);
        self.trace.note(2, slot as u64, until);
        false
    }

    /// The running task `slot` has had `used` until `end`.
    fn account(&mut self, slot: usize, used: u64, end: u64) {
        if slot > SOFTIRQ
            && let Some(placement) = &mut self.placement
        {
            placement.ran(self.slots[slot].cpu, used, end);
        }
    }

    /// Is the running task `slot`, which is placed, to make room for another?
    pub(super) fn must_leave(&mut self, slot: usize) -> bool {
        let cpu = self.slots[slot].cpu;
        let placement = self.placement.as_mut();
        placement.is_some_and(|p| slot > SOFTIRQ && p.must_leave(cpu))
    }

    /// The task is to pre-empt, if the draw says so, although it need not wait.
    pub fn drawn_preemption(&mut self) -> Option<Then> {
        (self.current > SOFTIRQ && self.preempts()).then(|| self.preemption(true))
    }
}

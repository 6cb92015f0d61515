//! How waiting ends: by another task, by a device, by a timer.

use super::events::Kind;
use super::{ROOT, SOFTIRQ, Sched};
use crate::world::slot::State;

impl Sched {
    fn wake(&mut self, slot: usize) {
        self.trace.note(3, slot as u64, self.clock);
        let s = &mut self.slots[slot];
        s.woken = true;
        s.owes_wake = s.state == State::Parked;
        s.owes_ipi |= self.current == SOFTIRQ;
        s.since = self.clock;
        if slot == ROOT {
            s.state = State::Running;
        } else {
            s.state = State::Ready;
            // A device's interrupts come on the last CPU, a timer's where it was set.
            let waker = match self.current {
                ROOT => s.cpu,
                SOFTIRQ => self.cpus.len() - 1,
                task => self.slots[task].cpu,
            };
            self.make_ready(slot, |placement, now| placement.wake(slot, waker, now));
        }
    }

    /// Wakes `slot` from its park, or makes the next one return at once (WORLD-2). `served`: a device does, whose model has
    /// the way back to the CPU.
    pub fn unpark(&mut self, slot: usize, served: bool) {
        assert!(slot < self.slots.len(), "unpark of no task: {slot}");
        match self.slots[slot].state {
            State::Parked => {
                self.wake(slot);
                self.slots[slot].owes_wake = !served;
                if served {
                    return;
                }
                // Owed, and not a place to switch: the caller may be anywhere.
                match self.current {
                    ROOT => {}
                    SOFTIRQ => {
                        let from = self.softirq_free_at.max(self.clock);
                        self.softirq_free_at = from + self.options.costs.unpark;
                    }
                    _ => self.owed += self.options.costs.unpark,
                }
            }
            State::Ready if self.slots[slot].woken => {}
            State::Ended => {}
            _ => self.slots[slot].token = true,
        }
    }

    /// A device's interrupt is what will wake the running task, though a timer does so in its place.
    pub fn await_interrupt(&mut self, awaits: bool) {
        self.slots[self.current].owes_ipi = awaits;
    }

    /// Ends `slot`'s sleep, or makes the next one return at once.
    pub fn rouse(&mut self, slot: usize) {
        match self.slots[slot].state {
            State::Sleeping => self.wake(slot),
            _ => self.slots[slot].roused = true,
        }
    }

    pub(super) fn arm(&mut self, slot: usize) {
        let s = &mut self.slots[slot];
        // SCHED-2: an earlier timer arms itself again when it goes off.
        if s.deadline < s.timer_at {
            s.timer_at = s.deadline;
            let at = s.deadline;
            self.events.push(at, Kind::Timer(slot as u32));
        }
    }

    pub(super) fn timer(&mut self, slot: usize, at: u64) {
        if self.slots[slot].timer_at != at {
            return;
        }
        self.slots[slot].timer_at = u64::MAX;
        if matches!(self.slots[slot].state, State::Parked | State::Sleeping) {
            if self.slots[slot].deadline <= self.clock {
                self.wake(slot);
                self.expire_soft(self.slots[slot].cpu);
            } else {
                self.arm(slot);
            }
        }
    }

    /// A timer has interrupted `cpu`: whoever's time has come there, slack or not, is woken with it (hrtimer's
    /// `softexpires`).
    fn expire_soft(&mut self, cpu: usize) {
        if self.options.costs.timer_slack == 0 {
            return;
        }
        for slot in SOFTIRQ + 1..self.slots.len() {
            let s = &self.slots[slot];
            if s.state == State::Parked && s.cpu == cpu && s.soft_deadline <= self.clock {
                self.wake(slot);
            }
        }
    }
}

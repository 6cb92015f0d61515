//! Who gets which virtual CPU, and lets go of it.

use super::{SOFTIRQ, Sched};
use crate::world::placement::Placement;

impl Sched {
    /// `slot` waits for a CPU: for the one that `place` finds for it.
    pub(super) fn make_ready(&mut self, slot: usize, place: impl FnOnce(&mut Placement, u64)) {
        match &mut self.placement {
            Some(placement) => place(placement, self.clock),
            None => self.ready.push_back(slot),
        }
    }

    /// A ready task, and the CPU that it gets.
    fn take_ready(&mut self) -> Option<(usize, usize)> {
        if let Some(placement) = &mut self.placement {
            return placement.dispatch(self.clock);
        }
        let len = self.ready.len();
        if len > 1 && self.rng.chance(self.options.shuffle_ppm) {
            let at = self.rng.below(len as u64) as usize;
            self.ready.swap(0, at);
        }
        let slot = self.ready.pop_front()?;
        let last = self.slots[slot].cpu;
        let cpu = if self.cpus[last].is_none() {
            last
        } else {
            self.cpus.iter().position(Option::is_none)?
        };
        Some((cpu, slot))
    }

    pub(super) fn dispatch(&mut self) -> Option<usize> {
        if self.free_cpus == 0 {
            return None;
        }
        let (cpu, slot) = self.take_ready()?;
        self.cpus[cpu] = Some(slot);
        self.free_cpus -= 1;
        self.slots[slot].cpu = cpu;
        self.slots[slot].slice_ns = 0;
        if std::mem::take(&mut self.slots[slot].owes_wake) {
            let costs = &self.options.costs;
            if self.idle_since[cpu] < self.clock {
                self.waking = costs.wake;
                self.owed += costs.wake;
            } else {
                self.owed += costs.switch;
            }
        }
        let called = std::mem::take(&mut self.slots[slot].owes_ipi);
        if called && cpu + 1 < self.cpus.len() && self.idle_since[cpu] < self.clock {
            self.waking += self.options.costs.resched_ipi;
            self.owed += self.options.costs.resched_ipi;
        }
        if cpu + 1 == self.cpus.len() {
            let busy = self.interrupts_until.saturating_sub(self.clock);
            self.waking += busy;
            self.owed += busy;
        }
        Some(slot)
    }

    pub(super) fn leave_cpu(&mut self, slot: usize, sleeps: bool) {
        if slot > SOFTIRQ {
            let cpu = self.slots[slot].cpu;
            debug_assert_eq!(self.cpus[cpu], Some(slot), "SCHED-1");
            if cpu + 1 == self.cpus.len() {
                self.stolen = 0;
            }
            self.cpus[cpu] = None;
            self.idle_since[cpu] = self.clock;
            self.free_cpus += 1;
            if let Some(placement) = &mut self.placement {
                placement.leave(cpu, slot, sleeps, self.clock);
            }
        }
    }
}

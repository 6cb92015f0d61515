//! Devices' interrupts: they take their time from whoever runs on the last CPU.

use super::{SOFTIRQ, Sched};

impl Sched {
    /// A device's interrupt has taken time from whoever runs on the last CPU.
    pub fn interrupt(&mut self) {
        let cost = self.options.costs.interrupt;
        if self.cpus.last().is_some_and(Option::is_some) {
            self.stolen += cost;
        } else if self.interrupts_until > self.clock {
            self.interrupts_until += cost;
        } else {
            // The first one's is in the device's time.
            self.interrupts_until = self.clock + 1;
        }
    }

    /// What interrupts have taken from `slot`, if it is on their CPU.
    pub(super) fn take_stolen(&mut self, slot: usize) -> u64 {
        let last = self.cpus.len() - 1;
        if slot <= SOFTIRQ || self.slots[slot].cpu != last || self.stolen == 0 {
            return 0;
        }
        if let Some(placement) = &mut self.placement {
            placement.interrupted(last);
        }
        std::mem::take(&mut self.stolen)
    }
}

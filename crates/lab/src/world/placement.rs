//! On which CPU a woken task runs, as Linux decides it on a busy machine.
//!
//! A woken task goes to the CPU where it ran last if that is idle, or to another idle one as long as the CPUs are used by less
//! than `UTIL_SEARCH`; above, nobody looks for an idle CPU (`SIS_UTIL`), and the task waits on its own, where it pre-empts a
//! task that has had more CPU. A CPU that is idle takes a task from the other's queue only once its caches are cold. So two
//! tasks may share a CPU while another has nothing to do: on Linux 6.18 with two CPUs, a writer was measured to wait a
//! quarter of the time for the CPU on which it wakes kswapd.
//!
//! **State.** Kept by the scheduler, under its cell; deterministic: no more than the four operations of IEEE 754.
//! **Kernel.** select_idle_sibling(), update_idle_cpu_scan(), task_hot(), check_preempt_wakeup_fair() (kernel/sched/fair.c).

/// No CPU is searched for above it: two CPUs' `nr_idle_scan` is 0 from there, `sqrt(1 / 2) / 1.17`.
const UTIL_SEARCH: f64 = 0.604;
/// The mean time over which use is measured: PELT's half-life of 32 ms over ln 2.
const UTIL_NS: f64 = 46_000_000.0;
/// A task that ran less than this ago is not moved (`sched_migration_cost`).
pub(super) const CACHE_HOT_NS: u64 = 500_000;
/// How far behind the running task a sleeper may come back: what it may run until it is pre-empted itself.
pub(super) const LAG_NS: u64 = 1_000_000;

/// How busy the CPUs have been, and which of them is to switch.
#[derive(Debug)]
pub(crate) struct Placement {
    util: f64,
    at: u64,
    resched: Vec<bool>,
}

impl Placement {
    pub(super) fn new(cpus: usize) -> Placement {
        Placement {
            util: 0.0,
            at: 0,
            resched: vec![false; cpus],
        }
    }

    /// Until `now`, `busy` of the CPUs were.
    pub(super) fn account(&mut self, now: u64, busy: usize) {
        let share = busy as f64 / self.resched.len() as f64;
        let weight = ((now - self.at) as f64 / UTIL_NS).min(1.0);
        self.util += (share - self.util) * weight;
        self.at = now;
    }

    /// Is an idle CPU looked for?
    pub(super) fn searches(&self) -> bool {
        self.util <= UTIL_SEARCH
    }

    /// The task on `cpu` is to leave it (`TIF_NEED_RESCHED`).
    pub(super) fn set_resched(&mut self, cpu: usize) {
        self.resched[cpu] = true;
    }

    /// The same, for the one who asks: true once.
    pub(super) fn take_resched(&mut self, cpu: usize) -> bool {
        std::mem::take(&mut self.resched[cpu])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_a_mean_over_tens_of_milliseconds() {
        let mut p = Placement::new(2);
        assert!(p.searches());
        for ms in 1..=200 {
            p.account(ms * 1_000_000, 2);
        }
        assert!(!p.searches(), "{p:?}");
        for ms in 201..=400 {
            p.account(ms * 1_000_000, 1);
        }
        assert!(p.searches(), "half of them: {p:?}");
        p.set_resched(1);
        assert_eq!(
            (p.take_resched(0), p.take_resched(1), p.take_resched(1)),
            (false, true, false)
        );
    }
}

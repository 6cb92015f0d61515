//! On which CPU a task runs, as Linux decides it; `runqueue.rs` says which of a CPU's tasks does.
//!
//! A woken task goes to its waker's CPU if that is idle (an interrupt is the waker), else to the one where it ran last, or to its
//! waker's if that has clearly less to do. If that one is busy, another idle one is looked for. But a virtual CPU that has been
//! idle for `HALTED_NS` was put to sleep by its host and is not seen, until the tick of a CPU with waiting tasks calls it: so tasks
//! gather where interrupts come, wait for each other there, and part at a tick. A CPU takes waiting tasks from another when it
//! becomes idle, when a busy one's tick calls it, and, busy itself, every 28 to 60 ms, if the other has more: but none that ran a
//! moment ago, until it has failed twice.
//!
//! So a task that never sleeps has a CPU for itself: what is beside it is taken away by the next CPU that is idle for a moment, and
//! only that CPU's own task could be the one that goes idle. Those that sleep share the others' CPU, wherever they began.
//!
//! **Facts.** Linux 6.18, two CPUs, `HZ` 250, by tracepoints (`sched_switch`, `sched_wakeup`, `sched_migrate_task`), scenario `fits`
//! for 2 s: a reader that never sleeps, a writer, a flusher of 1,700 sleeps. Beside it what the lab has.
//!
//! | | Linux, two runs | lab, before what follows the table |
//! |---|---|---|
//! | CPU of the reader, the writer, the flusher, % | 91, 49, 43 and 89, 45, 42 | 99, 62, 37 |
//! | writer waits for the flusher's CPU, the flusher for the writer's, % of the time | 31, 35 and 30, 31 | 30, 39 |
//! | the writer's turns (until it sleeps or another of the three has the CPU): p50, p90, p99, us | 283, 1,270, 2,181 | 330, 1,585, 2,483 |
//! | the flusher's: p50, p90, p99, us | 271, 943, 1,643 | 261, 846, 1,316 |
//! | the flusher waits after a wake: mean, p90, p99, us | 272, 985, 1,945 | 317, 1,249, 2,139 |
//! | CPUs changed by the three | 60 and 45 | 26 |
//!
//! Without this (any free CPU, and a woken task's own while its caches are hot) the lab had 77, 71 and 47 % there, and 600 changes.
//! The rest of the machine had 5 % of the CPUs there: threads of the block layer, 3,400 and 4,300 times on the last CPU, which
//! are the lab's `interrupt`. After each the CPU is given anew, slice or not.
//!
//! Two readers of 4 KiB that compute between reads, 0.5 s, where each was when the interrupt's CPU, 1, woke it: with that one idle all
//! 3,526 went there, 632 of them from a CPU of their own that was idle; with it busy, of those that were there last 628 went to the
//! other one, idle for 42 us at the median, and 867 stayed, the other being idle for 1,700, in runs of 4 ms at most. What reads took
//! (p50, p90, p98, p99, us):
//!
//! | computes for | Linux | each bound to a CPU | lab | lab without |
//! |---|---|---|---|---|
//! | 0 to 40 us | 60, 68, 84, 94 | 64, 76, 82, 87 | 61, 82, 89, 91 | 56, 68, 75, 83 |
//! | 0 to 120 | 64, 81, 148, 167 | 62, 75, 81, 87 | 57, 103, 155, 163 | 50, 66, 73, 80 |
//! | 0 to 300 | 63, 83, 248, 302 | 62, 70, 82, 86 | 54, 70, 235, 288 | 49, 63, 72, 76 |
//!
//! The kernel there packs tasks onto fewer virtual CPUs by more rules than these (`sched_vcpu_pack`): readers that compute for less
//! than 10 us stay on one CPU, in the lab they do not.
//!
//! **State.** Kept by the scheduler, under its cell; deterministic: no more than the four operations of IEEE 754.
//! **Kernel.** select_task_rq_fair(), wake_affine(), select_idle_sibling(), available_idle_cpu(), sched_balance_newidle(),
//! sched_balance_rq(), nohz_balancer_kick(), task_hot() (kernel/sched/fair.c). Left out: groups, domains,
//! `avg_idle`, `SIS_UTIL`, active balance.
//! **Tests.** `placement_tests.rs`.

use super::runqueue::{Comes, Entity, On, RunQueue, TICK_NS};

/// A CPU that has been idle for longer is one that its host has put to sleep: no idle one, to who looks for one
/// (`available_idle_cpu()`, `vcpu_is_preempted()`).
pub(super) const HALTED_NS: u64 = 50_000;
/// The mean time over which use and load are measured: PELT's half-life of 32 ms over ln 2.
const PELT_NS: f64 = 46_000_000.0;
/// A task that ran less than this ago is not moved (`sched_migration_cost`).
pub(super) const CACHE_HOT_NS: u64 = 500_000;
/// How much more a CPU must have for a difference (`imbalance_pct` of CPUs that share a cache), and half of it.
const IMBALANCE: f64 = 1.17;
const WAKE_BIAS: f64 = 1.08;
/// A busy CPU looks for work after 7 ticks, and after 15 if all was well (`busy_factor`, `balance_interval`).
const BALANCE_TICKS: u64 = 7;
const BALANCED_TICKS: u64 = 15;
/// So many attempts that moved nothing, and caches count no more (`cache_nice_tries`).
const NICE_TRIES: u32 = 1;

/// A share of time that follows what it measures (PELT).
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    value: f64,
    at: u64,
}

impl Share {
    /// Until `now` it was `on`.
    fn until(&mut self, now: u64, on: bool) {
        self.value = self.at(now, on);
        self.at = now;
    }

    fn at(&self, now: u64, on: bool) -> f64 {
        let x = now.saturating_sub(self.at) as f64 / PELT_NS;
        let target = if on { 1.0 } else { 0.0 };
        (self.value + target * x) / (1.0 + x)
    }
}

/// A CPU.
#[derive(Clone, Debug, Default)]
struct Cpu {
    queue: RunQueue,
    /// The running task is to leave (`TIF_NEED_RESCHED`).
    resched: bool,
    /// How much of the time it is busy.
    util: Share,
    /// Since when it is idle, if it is.
    idle_since: u64,
    next_tick: u64,
    next_balance: u64,
    /// Attempts in a row that moved nothing (`nr_balance_failed`).
    failed: u32,
}

/// All CPUs, and the tasks on them. See the module's head.
#[derive(Debug)]
pub(super) struct Placement {
    all: Vec<Entity>,
    /// How much of the time each task runs or could.
    loads: Vec<Share>,
    cpus: Vec<Cpu>,
}

impl Placement {
    pub fn new(cpus: usize) -> Placement {
        Placement {
            all: Vec::new(),
            loads: Vec::new(),
            cpus: vec![Cpu::default(); cpus],
        }
    }

    /// The task `slot` exists, and waits for nothing: where it does (`select_task_rq_fair` of a fork).
    pub fn add(&mut self, slot: usize, now: u64) {
        while self.all.len() <= slot {
            self.all.push(Entity::new(0));
            self.loads.push(Share::default());
        }
        let n = self.cpus.len();
        let order = (0..n).map(|i| (slot + i) % n);
        let cpu = order
            .min_by_key(|&cpu| self.cpus[cpu].queue.runnable(&self.all))
            .unwrap_or(0);
        // It counts as a whole task until one knows (`init_entity_runnable_average`).
        self.loads[slot] = Share {
            value: 1.0,
            at: now,
        };
        self.cpus[cpu]
            .queue
            .enqueue(&mut self.all, slot, cpu, Comes::New);
        self.check_preempt(cpu, slot);
    }

    /// `slot` is woken by somebody on `waker`.
    pub fn wake(&mut self, slot: usize, waker: usize, now: u64) {
        self.loads[slot].until(now, false);
        let prev = self.all[slot].cpu;
        if self.all[slot].on == On::Delayed {
            // It is still there: it stays.
            self.cpus[prev].queue.wake_delayed(&mut self.all, slot);
            return self.check_preempt(prev, slot);
        }
        let cpu = self.select(slot, waker, now);
        if cpu != prev {
            self.all[slot].ran_at = None;
        }
        self.update_deadline(cpu);
        self.cpus[cpu]
            .queue
            .enqueue(&mut self.all, slot, cpu, Comes::Woken);
        self.check_preempt(cpu, slot);
    }

    /// The CPU for a task that is woken (`select_task_rq_fair`).
    fn select(&self, slot: usize, waker: usize, now: u64) -> usize {
        let prev = self.all[slot].cpu;
        let target = if self.is_idle(waker) {
            waker
        } else if self.is_idle(prev) || waker == prev {
            prev
        } else {
            let own = self.loads[slot].at(now, false);
            let here = self.load(waker, now) + own;
            let there = self.load(prev, now) - own;
            if here < there * WAKE_BIAS {
                waker
            } else {
                prev
            }
        };
        if self.is_idle(target) {
            return target;
        }
        (0..self.cpus.len())
            .find(|&cpu| {
                self.is_idle(cpu) && now <= self.cpus[cpu].idle_since.saturating_add(HALTED_NS)
            })
            .unwrap_or(target)
    }

    fn is_idle(&self, cpu: usize) -> bool {
        let queue = &self.cpus[cpu].queue;
        queue.curr.is_none() && queue.is_alone()
    }

    fn util(&self, cpu: usize, now: u64) -> f64 {
        let cpu = &self.cpus[cpu];
        cpu.util.at(now, cpu.queue.curr.is_some())
    }

    /// The load of a CPU: of all whose CPU it is, sleepers too.
    fn load(&self, cpu: usize, now: u64) -> f64 {
        let of = self.all.iter().zip(&self.loads);
        of.filter(|(e, _)| e.cpu == cpu)
            .map(|(e, load)| load.at(now, matches!(e.on, On::Queued | On::Running)))
            .sum()
    }

    fn update_deadline(&mut self, cpu: usize) {
        let c = &mut self.cpus[cpu];
        c.resched |= c.queue.update_deadline(&mut self.all);
    }

    /// Does `slot`, new on `cpu`, pre-empt (`check_preempt_wakeup_fair`)?
    fn check_preempt(&mut self, cpu: usize, slot: usize) {
        if self.cpus[cpu].queue.curr.is_some() && !self.cpus[cpu].resched {
            self.update_deadline(cpu);
            let c = &mut self.cpus[cpu];
            c.resched |= c.queue.pick(&mut self.all, true) == Some(slot);
        }
    }

    /// The task on `cpu` has had `ns` until `now`.
    pub fn ran(&mut self, cpu: usize, ns: u64, now: u64) {
        let c = &mut self.cpus[cpu];
        c.queue.ran(&mut self.all, ns, now);
        if now >= c.next_tick {
            self.tick(cpu, now);
        }
    }

    /// Something that is no task of the lab's has had `cpu`, as interrupts' threads do: it is given anew.
    pub fn interrupted(&mut self, cpu: usize) {
        let c = &mut self.cpus[cpu];
        if c.queue.is_alone() {
            return;
        }
        c.resched = c.queue.pick(&mut self.all, false) != c.queue.curr;
        c.queue.protect(&mut self.all, !c.resched);
    }

    /// Is the task on `cpu` to leave it for another?
    pub fn must_leave(&mut self, cpu: usize) -> bool {
        let c = &mut self.cpus[cpu];
        std::mem::take(&mut c.resched)
            && c.queue.curr.is_some()
            && c.queue.pick(&mut self.all, true) != c.queue.curr
    }

    /// Has an idle CPU somebody to run?
    pub fn is_pending(&self) -> bool {
        let waits = |c: &Cpu| c.queue.curr.is_none() && !c.queue.is_alone();
        self.cpus.iter().any(waits)
    }

    /// A CPU that is idle, and whom it is to run.
    pub fn dispatch(&mut self, now: u64) -> Option<(usize, usize)> {
        for cpu in 0..self.cpus.len() {
            let c = &mut self.cpus[cpu];
            if c.queue.curr.is_some() || c.queue.is_alone() {
                continue;
            }
            if let Some(slot) = c.queue.pick(&mut self.all, false) {
                c.util.until(now, false);
                c.queue.set_next(&mut self.all, slot, now);
                return Some((cpu, slot));
            }
        }
        None
    }

    /// The task on `cpu` leaves it, and waits, sleeps or has ended.
    pub fn leave(&mut self, cpu: usize, slot: usize, sleeps: bool, now: u64) {
        let c = &mut self.cpus[cpu];
        debug_assert_eq!(c.queue.curr, Some(slot), "SCHED-1");
        c.util.until(now, true);
        c.resched = false;
        if !sleeps {
            return c.queue.put_prev(&mut self.all, slot);
        }
        self.loads[slot].until(now, true);
        c.queue.sleep(&mut self.all, slot);
        if c.queue.pick(&mut self.all, false).is_none() {
            c.idle_since = now;
            self.pull(cpu, now, Pull::Newidle);
        }
    }

    /// The task on `cpu` lets others have it.
    pub fn forfeit(&mut self, cpu: usize, slot: usize) {
        self.cpus[cpu].queue.forfeit(&mut self.all, slot);
    }

    fn tick(&mut self, cpu: usize, now: u64) {
        self.cpus[cpu].next_tick = (now / TICK_NS + 1) * TICK_NS;
        self.update_deadline(cpu);
        if self.cpus[cpu].queue.waiting(&self.all).next().is_some() {
            // The busy one calls one that is idle, which asks for no tick.
            if let Some(idle) = (0..self.cpus.len()).find(|&other| self.is_idle(other)) {
                self.cpus[idle].idle_since = u64::MAX;
                self.pull(idle, now, Pull::Idle);
            }
        }
        if now >= self.cpus[cpu].next_balance {
            let ticks = self.balance(cpu, now);
            self.cpus[cpu].next_balance = now + ticks * TICK_NS;
        }
    }

    /// `cpu`, which is busy, looks whether another is busier. When it does so again, in ticks.
    fn balance(&mut self, cpu: usize, now: u64) -> u64 {
        let runnable = |p: &Self, cpu: usize| p.cpus[cpu].queue.runnable(&p.all);
        let busiest = (0..self.cpus.len())
            .filter(|&other| other != cpu)
            .max_by_key(|&other| runnable(self, other));
        let Some(busiest) = busiest else {
            return BALANCED_TICKS;
        };
        let here = self.load(cpu, now);
        let there = self.load(busiest, now);
        // Overloaded, and this one has no room to spare.
        let unbalanced =
            runnable(self, busiest) > 1 && self.util(cpu, now) * IMBALANCE > 1.0 && there > here;
        if !unbalanced {
            self.cpus[cpu].failed = 0;
            return BALANCED_TICKS;
        }
        self.pull(cpu, now, Pull::Load((there - here) / 2.0));
        BALANCE_TICKS
    }

    /// `cpu` takes waiting tasks from the others (`sched_balance_rq`).
    fn pull(&mut self, cpu: usize, now: u64, how: Pull) {
        let from = (0..self.cpus.len())
            .filter(|&other| other != cpu)
            .max_by_key(|&other| self.cpus[other].queue.waiting(&self.all).count());
        let Some(from) = from else {
            return;
        };
        let failed = self.cpus[cpu].failed;
        let mut left = match how {
            Pull::Load(load) => load,
            Pull::Newidle | Pull::Idle => 1.0,
        };
        let candidates: Vec<usize> = self.cpus[from].queue.waiting(&self.all).collect();
        let mut moved = false;
        for slot in candidates {
            let ran_at = self.all[slot].ran_at;
            let hot = ran_at.is_some_and(|at| now < at + CACHE_HOT_NS);
            if hot && failed <= NICE_TRIES {
                continue;
            }
            let load = match how {
                Pull::Load(_) => self.loads[slot].at(now, true),
                Pull::Newidle | Pull::Idle => 1.0,
            };
            if load / f64::from(1u32 << failed.min(8)) > left {
                continue;
            }
            self.cpus[from].queue.detach(&mut self.all, slot);
            self.cpus[cpu]
                .queue
                .enqueue(&mut self.all, slot, cpu, Comes::Moved);
            self.check_preempt(cpu, slot);
            moved = true;
            left -= load;
            if left <= 0.0 {
                break;
            }
        }
        if moved {
            self.cpus[cpu].failed = 0;
        } else if how != Pull::Newidle {
            self.cpus[cpu].failed += 1;
        }
    }
}

/// Why a CPU takes tasks from another.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Pull {
    /// It has just nothing to do.
    Newidle,
    /// It has had nothing to do, and somebody waits elsewhere.
    Idle,
    /// It is busy, and so much less than the other.
    Load(f64),
}

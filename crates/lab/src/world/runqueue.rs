//! One CPU's runqueue: which of its tasks runs next, and for how long, by EEVDF with all weights equal.
//!
//! A task may run while it has had no more than its share (it is *eligible*: its `vruntime` is not above the mean of all
//! that are here), and among these the one with the earliest deadline does. Who is behind comes back from a sleep as far
//! behind; who is ahead sleeps on the queue until the others have caught up, and so brings no debt along, and no credit.
//! A task that runs is left alone until its slice is over as long as it is eligible, but by one that pre-empts for the
//! machine's sake: then the CPU is given anew.
//!
//! **State.** Under the scheduler's cell.
//! **Invariants.**
//! - EEVDF-1: a task of a queue that is not empty is eligible: the one that is furthest behind.
//! - EEVDF-2: what a task brings along is bounded by `LAG_MAX_NS`.
//!
//! **Kernel.** pick_eevdf(), place_entity(), update_deadline(), dequeue_entity() of 6.18 (kernel/sched/fair.c), with the
//! features that are on by default: PLACE_LAG, PLACE_DEADLINE_INITIAL, PLACE_REL_DEADLINE, RUN_TO_PARITY, DELAY_DEQUEUE,
//! DELAY_ZERO. Left out: weights, groups, slices of a task's own.

/// What a task runs until others come before it: 0.7 ms, times 1 + log2 of two CPUs.
pub(super) const SLICE_NS: i64 = 1_400_000;
/// How often a busy CPU looks whether a slice is over: `CONFIG_HZ` is 250.
pub(super) const TICK_NS: u64 = 4_000_000;
/// The most that a task keeps: two slices, but no less than a tick.
const LAG_MAX_NS: i64 = if 2 * SLICE_NS > TICK_NS as i64 {
    2 * SLICE_NS
} else {
    TICK_NS as i64
};

/// Where a task is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum On {
    /// On no queue.
    Off,
    /// Waits for its CPU.
    Queued,
    /// Sleeps, and is on the queue until the others have caught up (`sched_delayed`).
    Delayed,
    /// Runs.
    Running,
}

/// What is known of a task (`sched_entity`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Entity {
    pub on: On,
    pub cpu: usize,
    vruntime: i64,
    deadline: i64,
    /// Until where it may run if nothing but a slice's end is against it.
    vprot: i64,
    /// How far it is behind, off a queue.
    lag: i64,
    /// When it ran last, if it has since it came to this CPU (`exec_start`).
    pub ran_at: Option<u64>,
}

impl Entity {
    pub fn new(cpu: usize) -> Entity {
        Entity {
            on: On::Off,
            cpu,
            vruntime: 0,
            deadline: 0,
            vprot: 0,
            lag: 0,
            ran_at: None,
        }
    }
}

/// How a task comes to a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Comes {
    /// For the first time: half a slice.
    New,
    /// From a sleep: a whole one.
    Woken,
    /// From another CPU: what it had left.
    Moved,
}

/// The tasks of one CPU. See the module's head.
#[derive(Clone, Debug, Default)]
pub(super) struct RunQueue {
    pub curr: Option<usize>,
    /// Who waits, and who sleeps with a debt; first the one that has waited longest.
    queue: Vec<usize>,
    /// The mean when it was last known.
    mean: i64,
}

impl RunQueue {
    /// Those that could run and do not.
    pub fn waiting<'a>(&'a self, all: &'a [Entity]) -> impl Iterator<Item = usize> + 'a {
        self.queue
            .iter()
            .copied()
            .filter(|&t| all[t].on == On::Queued)
    }

    /// Those that run or could.
    pub fn runnable(&self, all: &[Entity]) -> usize {
        self.waiting(all).count() + usize::from(self.curr.is_some())
    }

    /// Is nobody here but perhaps the running task?
    pub fn is_alone(&self) -> bool {
        self.queue.is_empty()
    }

    fn members(&self) -> impl Iterator<Item = usize> + '_ {
        self.queue.iter().copied().chain(self.curr)
    }

    /// Of how many, and how far they are in sum above the mean that was known: small numbers for a long time.
    fn sum(&self, all: &[Entity]) -> (i64, i64) {
        self.members().fold((0, 0), |(n, sum), t| {
            (n + 1, sum + all[t].vruntime - self.mean)
        })
    }

    /// The mean `vruntime` (`avg_vruntime`).
    fn mean(&self, all: &[Entity]) -> i64 {
        let (n, sum) = self.sum(all);
        if n == 0 {
            self.mean
        } else {
            self.mean + sum.div_euclid(n)
        }
    }

    fn eligible(&self, all: &[Entity], task: usize) -> bool {
        let (n, sum) = self.sum(all);
        (all[task].vruntime - self.mean) * n <= sum
    }

    /// `task` comes here.
    pub fn enqueue(&mut self, all: &mut [Entity], task: usize, cpu: usize, how: Comes) {
        debug_assert_eq!(all[task].on, On::Off, "SCHED-1");
        self.place(all, task, how);
        let e = &mut all[task];
        e.on = On::Queued;
        e.cpu = cpu;
        self.queue.push(task);
    }

    fn place(&mut self, all: &mut [Entity], task: usize, how: Comes) {
        self.mean = self.mean(all);
        let n = self.members().count() as i64;
        let e = &mut all[task];
        // Its own place moves the mean: so much further back, it is as far behind as it was.
        let lag = if n == 0 { 0 } else { e.lag * (n + 1) / n };
        let left = e.deadline - e.vruntime;
        e.vruntime = self.mean - lag;
        e.deadline = e.vruntime
            + match how {
                Comes::New => SLICE_NS / 2,
                Comes::Woken => SLICE_NS,
                Comes::Moved => left,
            };
        e.lag = 0;
    }

    /// A task that waits goes to another CPU.
    pub fn detach(&mut self, all: &mut [Entity], task: usize) {
        self.remove(all, task);
        // Elsewhere its caches are cold anyway.
        all[task].ran_at = None;
    }

    fn remove(&mut self, all: &mut [Entity], task: usize) {
        self.keep_lag(all, task);
        self.queue.retain(|&t| t != task);
        all[task].on = On::Off;
    }

    fn keep_lag(&mut self, all: &mut [Entity], task: usize) {
        self.mean = self.mean(all);
        let e = &mut all[task];
        e.lag = (self.mean - e.vruntime).clamp(-LAG_MAX_NS, LAG_MAX_NS);
    }

    /// The running task has had `ns` of CPU.
    pub fn ran(&self, all: &mut [Entity], ns: u64, now: u64) {
        if let Some(task) = self.curr {
            all[task].vruntime += ns as i64;
            all[task].ran_at = Some(now);
        }
    }

    /// The running task sleeps.
    pub fn sleep(&mut self, all: &mut [Entity], task: usize) {
        let delayed = !self.eligible(all, task);
        self.mean = self.mean(all);
        self.curr = None;
        if delayed {
            all[task].on = On::Delayed;
            self.queue.push(task);
        } else {
            let e = &mut all[task];
            e.lag = (self.mean - e.vruntime).clamp(0, LAG_MAX_NS);
            e.on = On::Off;
        }
    }

    /// The running task waits from here on.
    pub fn put_prev(&mut self, all: &mut [Entity], task: usize) {
        self.curr = None;
        all[task].on = On::Queued;
        self.queue.push(task);
    }

    /// The running task lets the others go first (`sched_yield`).
    pub fn forfeit(&self, all: &mut [Entity], task: usize) {
        let e = &mut all[task];
        e.vruntime = e.deadline;
        e.deadline += SLICE_NS;
    }

    /// A sleeper that is still here is awake: it keeps its debt, and loses what it has too much.
    pub fn wake_delayed(&mut self, all: &mut [Entity], task: usize) {
        self.keep_lag(all, task);
        all[task].on = On::Queued;
        if all[task].lag > 0 {
            all[task].lag = 0;
            self.queue.retain(|&t| t != task);
            self.place(all, task, Comes::Woken);
            self.queue.push(task);
        }
    }

    /// Is the running task's slice over? It gets another, after those who are to have theirs.
    pub fn update_deadline(&self, all: &mut [Entity]) -> bool {
        let Some(task) = self.curr else {
            return false;
        };
        let e = &mut all[task];
        if e.vruntime >= e.deadline {
            e.deadline = e.vruntime + SLICE_NS;
            return !self.is_alone();
        }
        !self.is_alone() && e.vruntime >= e.vprot
    }

    /// Who is to run: the running task itself, perhaps, and if `protect` also before its time.
    pub fn pick(&mut self, all: &mut [Entity], protect: bool) -> Option<usize> {
        loop {
            let (n, sum) = self.sum(all);
            let may = |t: usize| (all[t].vruntime - self.mean) * n <= sum;
            let curr = self.curr.filter(|&t| may(t));
            if let Some(task) = curr
                && protect
                && all[task].vruntime < all[task].vprot
            {
                return curr;
            }
            let best = self
                .members()
                .filter(|&t| may(t))
                .min_by_key(|&t| all[t].deadline)?;
            if all[best].on != On::Delayed {
                return Some(best);
            }
            self.remove(all, best);
            all[best].lag = all[best].lag.min(0);
        }
    }

    /// `task` runs from here on.
    pub fn set_next(&mut self, all: &mut [Entity], task: usize, now: u64) {
        debug_assert_eq!(self.curr, None, "SCHED-1");
        self.queue.retain(|&t| t != task);
        self.curr = Some(task);
        let e = &mut all[task];
        e.on = On::Running;
        e.vprot = e.deadline;
        e.ran_at = Some(now);
    }

    /// Is the running task left alone from here on, as long as it may run?
    pub fn protect(&self, all: &mut [Entity], protect: bool) {
        if let Some(task) = self.curr {
            let e = &mut all[task];
            e.vprot = if protect { e.deadline } else { e.vruntime };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue with these tasks, of which the first runs.
    fn queue(n: usize) -> (RunQueue, Vec<Entity>) {
        let mut all = vec![Entity::new(0); n];
        let mut q = RunQueue::default();
        for task in 0..n {
            q.enqueue(&mut all, task, 0, Comes::Woken);
        }
        q.set_next(&mut all, 0, 0);
        (q, all)
    }

    /// The running task has `ns`, and sleeps.
    fn run_and_sleep(q: &mut RunQueue, all: &mut [Entity], ns: u64) {
        let task = q.curr.unwrap();
        q.ran(all, ns, 0);
        q.sleep(all, task);
    }

    fn run_next(q: &mut RunQueue, all: &mut [Entity]) -> usize {
        let next = q.pick(all, false).unwrap();
        q.set_next(all, next, 0);
        next
    }

    #[test]
    fn a_slice_is_not_cut_short_while_it_is_fair_and_is_over_at_its_deadline() {
        let (mut q, mut all) = queue(2);
        assert!(!q.update_deadline(&mut all));
        assert_eq!(q.pick(&mut all, true), Some(0), "nobody has had more");
        q.ran(&mut all, 1_000_000, 0);
        assert!(!q.update_deadline(&mut all), "nobody asks before");
        assert_eq!(
            q.pick(&mut all, true),
            Some(1),
            "whoever does gets the other"
        );
        q.ran(&mut all, 400_000, 0);
        assert!(q.update_deadline(&mut all));
    }

    #[test]
    fn who_is_behind_comes_back_as_far_behind_and_pre_empts() {
        let (mut q, mut all) = queue(2);
        q.ran(&mut all, 1_000_000, 0);
        q.put_prev(&mut all, 0);
        assert_eq!(run_next(&mut q, &mut all), 1);
        // 0.8 ms behind the other, 0.4 behind the mean.
        run_and_sleep(&mut q, &mut all, 200_000);
        assert_eq!((all[1].on, all[1].lag), (On::Off, 400_000));
        assert_eq!(run_next(&mut q, &mut all), 0);
        q.ran(&mut all, 50_000_000, 0);
        q.update_deadline(&mut all);
        q.enqueue(&mut all, 1, 0, Comes::Woken);
        assert_eq!(all[0].vruntime - all[1].vruntime, 800_000);
        assert_eq!(q.pick(&mut all, true), Some(1));
    }

    #[test]
    fn who_is_ahead_sleeps_on_the_queue_until_the_others_have_caught_up() {
        let (mut q, mut all) = queue(2);
        run_and_sleep(&mut q, &mut all, 1_000_000);
        assert_eq!((all[0].on, q.runnable(&all)), (On::Delayed, 1));
        // Woken too early it waits, and does not pre-empt.
        assert_eq!(run_next(&mut q, &mut all), 1);
        q.ran(&mut all, 500_000, 0);
        q.wake_delayed(&mut all, 0);
        assert_eq!((all[0].on, q.pick(&mut all, true)), (On::Queued, Some(1)));
        // And is gone, owing nothing, once it would be its turn.
        all[0].on = On::Delayed;
        q.ran(&mut all, 2_000_000, 0);
        assert_eq!(q.pick(&mut all, true), Some(1));
        assert_eq!((all[0].on, all[0].lag, q.is_alone()), (On::Off, 0, true));
    }

    #[test]
    fn eevdf_1_2_somebody_is_always_to_run_and_no_lag_is_without_bound() {
        let (mut q, mut all) = queue(4);
        let mut rng = crate::rng::Rng::new(1, 1);
        for _ in 0..20_000 {
            let woken = rng.below(4) as usize;
            match all[woken].on {
                On::Off => q.enqueue(&mut all, woken, 0, Comes::Woken),
                On::Delayed => q.wake_delayed(&mut all, woken),
                On::Queued | On::Running => {}
            }
            if let Some(task) = q.curr {
                q.ran(&mut all, rng.below(20_000_000), 0);
                match rng.below(3) {
                    0 => q.sleep(&mut all, task),
                    1 => q.put_prev(&mut all, task),
                    _ => assert!(q.pick(&mut all, true).is_some(), "EEVDF-1"),
                }
            }
            if q.curr.is_none() && q.runnable(&all) > 0 {
                run_next(&mut q, &mut all);
            }
            let lags = all.iter().filter(|e| e.on == On::Off).map(|e| e.lag);
            assert!(
                lags.into_iter().all(|lag| lag.abs() <= LAG_MAX_NS),
                "EEVDF-2"
            );
        }
    }
}

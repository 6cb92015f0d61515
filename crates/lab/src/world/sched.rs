//! The scheduler's state: who is ready, who computes on which virtual CPU, what happens next.
//!
//! Virtual time moves only here: to the end of a task's work, or to the next event when no ready task finds a free CPU.
//! A task that charges work owns its CPU until that work is done; work charged where it cannot be pre-empted is owed
//! and paid at the next point where it can. Where tasks are placed as Linux does (`placement.rs`), they make room for others
//! also in the middle of long work, every `GRAIN_NS`; elsewhere whoever is ready first takes any CPU that is free.
//!
//! **State.** All of it is in one `LabCell` of the world; the code here switches no coroutine and calls nobody.
//!
//! **Invariants.**
//! - SCHED-1: a task is on the ready list or a CPU's queue, on a CPU, waiting or ended, and in only one of these.
//! - SCHED-2: a waiting task with a deadline has a timer event at or before it.
//! - SCHED-3: the clock never goes back.
//! - SCHED-4: no task goes round without time passing: at one instant there are at most `LOOKS_MAX` looks at the clock
//!   and attempts to wait. With the limits of time and steps this ends every run that makes any.

use super::coroutine::{Co, YielderCell};
use super::options::LabOptions;
use super::placement::Placement;
use super::slot::{Slot, State, Then};
use crate::rng::Rng;
use crate::trace::TraceHash;
use corosensei::Yielder;
use highwater_engine::Nanos;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::rc::Rc;

/// The main thread: set-up code, and the loop that drives the others.
pub(crate) const ROOT: usize = 0;
/// Completion context.
pub(crate) const SOFTIRQ: usize = 1;
/// The longest a task keeps its CPU while others are ready.
const SLICE_NS: u64 = 1_000_000;
/// What a task that is placed does in one go: it makes room for others no more often.
const GRAIN_NS: u64 = 20_000;
/// No run that goes on comes near it: what a task does costs time.
const LOOKS_MAX: u32 = 10_000_000;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    WorkDone(u32),
    Timer(u32),
    Fire { source: u32, token: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Event {
    at: u64,
    seq: u64,
    kind: Kind,
}

/// What the loop does next.
pub(crate) enum Next {
    /// The root goes on.
    Root,
    /// Resume this task.
    Run(usize, Co),
    /// Run this event of a device, in completion context.
    Fire { source: u32, token: u64 },
    /// The run is over its limits; the text says who waits.
    Stuck(String),
}

pub(crate) struct Sched {
    pub options: LabOptions,
    pub clock: u64,
    pub steps: u64,
    pub trace: TraceHash,
    pub draws: Rng,
    rng: Rng,
    slots: Vec<Slot>,
    /// Who waits for any CPU. Nobody does where tasks are placed.
    ready: VecDeque<usize>,
    cpus: Vec<Option<usize>>,
    free_cpus: usize,
    /// Since when each CPU is idle, if it is.
    idle_since: Vec<u64>,
    events: BinaryHeap<Reverse<Event>>,
    seq: u64,
    current: usize,
    owed: u64,
    /// How much of it is an idle CPU that wakes up.
    waking: u64,
    softirq_free_at: u64,
    /// Who waits for which CPU, where tasks are placed (`LabOptions::wake_affine`).
    placement: Option<Placement>,
    /// What interrupts have taken from the task on the last CPU, and it has not paid yet.
    stolen: u64,
    /// Until when the last CPU, idle, is busy with interrupts.
    interrupts_until: u64,
    /// The last instant at which anybody looked, and how often (SCHED-4).
    looked_at: u64,
    looks: u32,
}

impl Sched {
    pub fn new(options: LabOptions) -> Sched {
        assert!(options.cpus > 0, "a lab needs a virtual CPU");
        let mut sched = Sched {
            clock: 0,
            steps: 0,
            trace: TraceHash::default(),
            draws: Rng::new(options.seed, 2),
            rng: Rng::new(options.seed, 1),
            slots: Vec::new(),
            ready: VecDeque::new(),
            cpus: vec![None; options.cpus],
            free_cpus: options.cpus,
            idle_since: vec![0; options.cpus],
            events: BinaryHeap::new(),
            seq: 0,
            current: ROOT,
            owed: 0,
            waking: 0,
            softirq_free_at: 0,
            placement: None,
            stolen: 0,
            interrupts_until: 0,
            looked_at: 0,
            looks: 0,
            options,
        };
        for name in ["main", "softirq"] {
            let slot = sched.add(name, None, Rc::default());
            sched.slots[slot].state = State::Running;
        }
        sched.ready.clear();
        let placed = sched.options.wake_affine;
        sched.placement = placed.then(|| Placement::new(sched.cpus.len()));
        sched
    }

    /// `slot` waits for a CPU: for the one that `place` finds for it.
    fn make_ready(&mut self, slot: usize, place: impl FnOnce(&mut Placement, u64)) {
        match &mut self.placement {
            Some(placement) => place(placement, self.clock),
            None => self.ready.push_back(slot),
        }
    }

    /// A new task, ready to run.
    pub fn add(&mut self, name: &str, co: Option<Co>, yielder: YielderCell) -> usize {
        let slot = self.slots.len();
        let cpu = slot % self.cpus.len();
        self.slots
            .push(Slot::new(name, cpu, self.clock, co, yielder));
        self.make_ready(slot, |placement, now| placement.add(slot, now));
        self.trace.note(1, slot as u64, self.clock);
        slot
    }

    /// How many tasks there were: the number of the next.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn now(&self) -> u64 {
        self.clock + self.owed
    }

    /// The time, for the running task; a report once it has looked too often (SCHED-4).
    pub fn look(&mut self) -> Result<u64, String> {
        let now = self.now();
        if now != self.looked_at {
            self.looked_at = now;
            self.looks = 0;
        }
        self.looks += 1;
        if self.looks > LOOKS_MAX {
            return Err(self.round_and_round());
        }
        Ok(now)
    }

    #[cold]
    fn round_and_round(&self) -> String {
        format!(
            "SCHED-4: {} goes round without time passing; {}",
            self.name(self.current),
            self.report()
        )
    }

    pub fn current(&self) -> usize {
        self.current
    }

    pub fn cpu(&self) -> usize {
        self.slots[self.current].cpu
    }

    pub fn name(&self, slot: usize) -> &str {
        &self.slots[slot].name
    }

    /// CPU that tasks whose name begins with `prefix` have had, in nanoseconds.
    pub fn used_ns(&self, prefix: &str) -> u64 {
        let of = self.slots.iter().filter(|s| s.name.starts_with(prefix));
        of.map(|s| s.used_ns).sum()
    }

    pub fn ended(&self, slot: usize) -> bool {
        self.slots[slot].state == State::Ended
    }

    pub fn set_current(&mut self, slot: usize) {
        self.current = slot;
    }

    /// Adds `joiner` to those that the end of `slot` wakes.
    pub fn add_joiner(&mut self, slot: usize, joiner: usize) {
        if !self.slots[slot].joiners.contains(&joiner) {
            self.slots[slot].joiners.push(joiner);
        }
    }

    pub fn alive(&self) -> Vec<String> {
        self.slots[SOFTIRQ + 1..]
            .iter()
            .filter(|s| s.state != State::Ended)
            .map(|s| format!("{} ({:?} since {:?})", s.name, s.state, Nanos(s.since)))
            .collect()
    }

    fn push(&mut self, at: u64, kind: Kind) {
        self.seq += 1;
        self.events.push(Reverse(Event {
            at,
            seq: self.seq,
            kind,
        }));
    }

    /// An event of the device `source` at `at`.
    pub fn schedule(&mut self, at: u64, source: u32, token: u64) {
        self.push(at.max(self.now()), Kind::Fire { source, token });
    }

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
                (preempt || self.owed >= 200).then(|| self.preemption(preempt))
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
            let next = self.events.peek().map_or(limit, |e| e.0.at.min(limit));
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
            self.push(self.clock + self.owed, Kind::WorkDone(me as u32));
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
    fn compute(&mut self, slot: usize, work: u64, then: Then) {
        let grain = work.min(GRAIN_NS);
        let end = self.clock + grain;
        self.account(slot, grain, end);
        self.push(end, Kind::WorkDone(slot as u32));
        self.slots[slot].left = work - grain;
        self.slots[slot].state = State::Computing(then);
    }

    /// `slot` has done a part of its work and goes on, unless it has to make room.
    fn grain_done(&mut self, slot: usize, then: Then) {
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
    fn apply(&mut self, slot: usize, then: Then) -> bool {
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

    fn arm(&mut self, slot: usize) {
        let s = &mut self.slots[slot];
        // SCHED-2: an earlier timer arms itself again when it goes off.
        if s.deadline < s.timer_at {
            s.timer_at = s.deadline;
            let at = s.deadline;
            self.push(at, Kind::Timer(slot as u32));
        }
    }

    fn leave_cpu(&mut self, slot: usize, sleeps: bool) {
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
    fn take_stolen(&mut self, slot: usize) -> u64 {
        let last = self.cpus.len() - 1;
        if slot <= SOFTIRQ || self.slots[slot].cpu != last || self.stolen == 0 {
            return 0;
        }
        if let Some(placement) = &mut self.placement {
            placement.interrupted(last);
        }
        std::mem::take(&mut self.stolen)
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
    fn must_leave(&mut self, slot: usize) -> bool {
        let cpu = self.slots[slot].cpu;
        let placement = self.placement.as_mut();
        placement.is_some_and(|p| slot > SOFTIRQ && p.must_leave(cpu))
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

    /// The task is to pre-empt, if the draw says so, although it need not wait.
    pub fn drawn_preemption(&mut self) -> Option<Then> {
        (self.current > SOFTIRQ && self.preempts()).then(|| self.preemption(true))
    }

    /// Takes back a coroutine that has switched out; `None` when it has ended.
    pub fn put_back(&mut self, slot: usize, co: Option<Co>) {
        self.current = ROOT;
        if co.is_none() {
            self.slots[slot].used_ns += self.owed - std::mem::take(&mut self.waking);
            self.clock += std::mem::take(&mut self.owed);
            self.leave_cpu(slot, true);
            self.slots[slot].state = State::Ended;
            self.trace.note(4, slot as u64, self.clock);
            for joiner in std::mem::take(&mut self.slots[slot].joiners) {
                self.unpark(joiner, false);
            }
        } else {
            self.slots[slot].co = co;
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

    fn dispatch(&mut self) -> Option<usize> {
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

    fn run(&mut self, slot: usize) -> Next {
        self.trace.note(5, slot as u64, self.clock);
        let s = &mut self.slots[slot];
        s.state = State::Running;
        s.woken = false;
        match s.co.take() {
            Some(co) => {
                self.current = slot;
                Next::Run(slot, co)
            }
            None => unreachable!("SCHED-1: task {slot} is run while it runs"),
        }
    }

    /// What happens next.
    pub fn next(&mut self) -> Next {
        loop {
            if self.slots[ROOT].state == State::Running {
                self.slots[ROOT].woken = false;
                return Next::Root;
            }
            self.steps += 1;
            if self.steps > self.options.steps_max || self.clock > self.options.time_max.0 {
                return Next::Stuck(self.report());
            }
            if let Some(slot) = self.dispatch() {
                if self.slots[slot].left == 0 {
                    return self.run(slot);
                }
                self.waking = 0;
                let work = self.slots[slot].left + std::mem::take(&mut self.owed);
                self.compute(slot, work, self.slots[slot].after);
                continue;
            }
            let Some(Reverse(event)) = self.events.pop() else {
                return Next::Stuck(self.report());
            };
            // SCHED-3: the main thread and ended tasks may have moved the clock past an event.
            self.clock = self.clock.max(event.at);
            match event.kind {
                Kind::WorkDone(slot) => {
                    let slot = slot as usize;
                    let State::Computing(then) = self.slots[slot].state else {
                        unreachable!("SCHED-1: work of a task that does not compute")
                    };
                    let late = self.take_stolen(slot);
                    if late > 0 {
                        self.push(self.clock + late, event.kind);
                        continue;
                    }
                    if self.slots[slot].left > 0 {
                        self.grain_done(slot, then);
                        continue;
                    }
                    let then = match then {
                        Then::Continue if self.must_leave(slot) => Then::Preempted,
                        then => then,
                    };
                    if self.apply(slot, then) {
                        return self.run(slot);
                    }
                }
                Kind::Timer(slot) => self.timer(slot as usize, event.at),
                Kind::Fire { source, token } => {
                    if self.softirq_free_at > self.clock {
                        self.push(self.softirq_free_at, event.kind);
                        continue;
                    }
                    self.trace
                        .note(6, token ^ u64::from(source) << 48, self.clock);
                    self.current = SOFTIRQ;
                    return Next::Fire { source, token };
                }
            }
        }
    }

    fn timer(&mut self, slot: usize, at: u64) {
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

    fn report(&self) -> String {
        let mut text = format!(
            "lab: seed {}: no end in sight at {:?} after {} steps; tasks:",
            self.options.seed,
            Nanos(self.clock),
            self.steps
        );
        for (slot, s) in self.slots.iter().enumerate() {
            if s.state != State::Ended && slot != SOFTIRQ {
                text += &format!(
                    "\n  {slot} {}: {:?} since {:?}, deadline {:?}",
                    s.name,
                    s.state,
                    Nanos(s.since),
                    Nanos(s.deadline)
                );
            }
        }
        text
    }
}

impl Drop for Sched {
    fn drop(&mut self) {
        // A task that is cut off in the middle keeps its stack: unwinding it would run the engine without a world.
        for slot in &mut self.slots {
            if let Some(co) = slot.co.take()
                && co.started()
                && !co.done()
            {
                std::mem::forget(co);
            }
        }
    }
}

//! The scheduler's state: who is ready, who computes on which virtual CPU, what happens next.
//!
//! Virtual time moves only here: to the end of a task's work, or to the next event when no ready task finds a free CPU.
//! A task that charges work owns its CPU until that work is done; work charged where it cannot be pre-empted is owed
//! and paid at the next point where it can. Where tasks are placed as Linux does (`placement.rs`), they make room for others
//! also in the middle of long work, every 20 µs; elsewhere whoever is ready first takes any CPU that is free.
//!
//! Here is the loop over what happens next; `work.rs` has what tasks owe, `cpus.rs` who gets a CPU, `wake.rs` how waiting ends,
//! `interrupts.rs` what devices take, `events.rs` what is to come.
//!
//! **State.** All of it is in one `LabCell` of the world; the code here switches no coroutine and calls nobody.
//!
//! **Invariants.**
//! - SCHED-1: a task is on the ready list or a CPU's queue, on a CPU, waiting or ended, and in only one of these.
//! - SCHED-2: a waiting task with a deadline has a timer event at or before it.
//! - SCHED-3: the clock never goes back.
//! - SCHED-4: no task goes round without time passing: at one instant there are at most `LOOKS_MAX` looks at the clock
//!   and attempts to wait. With the limits of time and steps this ends every run that makes any.

mod cpus;
mod events;
mod interrupts;
mod wake;
mod work;

use super::coroutine::{Co, YielderCell};
use super::options::LabOptions;
use super::placement::Placement;
use super::slot::{Slot, State, Then};
use crate::rng::Rng;
use crate::trace::TraceHash;
use events::{Events, Kind};
use highwater_engine::Nanos;
use std::collections::VecDeque;
use std::rc::Rc;

/// The main thread: set-up code, and the loop that drives the others.
pub(crate) const ROOT: usize = 0;
/// Completion context.
pub(crate) const SOFTIRQ: usize = 1;
/// No run that goes on comes near it: what a task does costs time.
const LOOKS_MAX: u32 = 10_000_000;

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
    events: Events,
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
            events: Events::default(),
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

    /// An event of the device `source` at `at`.
    pub fn schedule(&mut self, at: u64, source: u32, token: u64) {
        self.events
            .push(at.max(self.now()), Kind::Fire { source, token });
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
            let Some(event) = self.events.pop() else {
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
                        self.events.push(self.clock + late, event.kind);
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
                        self.events.push(self.softirq_free_at, event.kind);
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

//! A task as the scheduler sees it: its state, its deadlines, its coroutine.
//!
//! **State.** Under the scheduler's cell; its rules are the scheduler's (SCHED-1, SCHED-2).

use super::coroutine::{Co, YielderCell};

/// What a task does once the work that it owes is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// Goes on.
    Continue,
    /// Lets others have the CPU.
    Yield,
    /// Has to.
    Preempted,
    /// Is kept off the CPU for so long.
    Stolen(u64),
    /// Parks until unparked, or until then.
    Park(u64),
    /// Sleeps until roused, or until then; unparks are kept for later.
    Sleep(u64),
}

/// Where a task is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Ready,
    Running,
    Computing(Then),
    Parked,
    Sleeping,
    Ended,
}

/// A task.
pub(super) struct Slot {
    pub name: String,
    pub state: State,
    pub cpu: usize,
    pub token: bool,
    pub roused: bool,
    /// Woken from a park and not run since: further unparks are the same wake.
    pub woken: bool,
    pub since: u64,
    /// From when on a timer of its CPU may end the wait: earlier than `deadline` by the timer slack.
    pub soft_deadline: u64,
    pub deadline: u64,
    pub timer_at: u64,
    pub slice_ns: u64,
    /// Work that it still owes, and what it does after it.
    pub left: u64,
    pub after: Then,
    /// CPU that it has had in all.
    pub used_ns: u64,
    /// Woken from a park: its way back to a CPU is not paid yet.
    pub owes_wake: bool,
    /// Woken by a device's interrupt, which may have to call its CPU.
    pub owes_ipi: bool,
    pub co: Option<Co>,
    pub yielder: YielderCell,
    pub joiners: Vec<usize>,
}

impl Slot {
    /// A task that is ready.
    pub fn new(name: &str, cpu: usize, now: u64, co: Option<Co>, yielder: YielderCell) -> Slot {
        Slot {
            name: name.to_owned(),
            state: State::Ready,
            cpu,
            token: false,
            roused: false,
            woken: false,
            since: now,
            soft_deadline: u64::MAX,
            deadline: u64::MAX,
            timer_at: u64::MAX,
            slice_ns: 0,
            left: 0,
            after: Then::Continue,
            used_ns: 0,
            owes_wake: false,
            owes_ipi: false,
            co,
            yielder,
            joiners: Vec::new(),
        }
    }
}

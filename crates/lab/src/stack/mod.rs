//! The stacks of the lab's tasks: of a chosen size, with a guard, painted where asked for, and a finding when one is too
//! small.
//!
//! Decides on what memory a coroutine runs and what is known of it afterwards: the deepest word that it used, the chain
//! at that word, or the overflow. A run is deterministic, so the chain at a record costs one more run of the same seed:
//! the first measures the depth by paint ([`LabOptions::stack_trace`]), the second places the stack so that the first
//! touch of that depth faults ([`LabOptions::stack_records`]), and the fault's registers are unwound.
//!
//! **State.** `Stacks` is one `LabCell` of the world. `trap::RUNNING` is each thread's own.
//! **Context.** `take` and `give_back` from the world, on its own stack; the handlers on the signal stack. Chains are
//! unwound, and panics reported, on the scheduler's stack or one of their own, never on a task's.
//!
//! **Invariants.** STACK-1, STACK-2 and LINE-1 in `area.rs`, TRAP-1 and TRAP-2 in `trap.rs`, CHAIN-1 in `chain.rs`,
//! UNWIND-1 in `unwind.rs`, PAINT-1 to PAINT-3 of the engine's `stack`.
//!
//! **Kernel.** THREAD_SIZE, VMAP_STACK, kernel/trace/trace_stack.c. The tracer looks at function entries; here the
//! record is exact to the word. Completion context has the scheduler's stack, as softirqs have one of their own.
//!
//! **Tests.** `tests.rs` beside this file.
//!
//! [`LabOptions::stack_trace`]: crate::LabOptions::stack_trace
//! [`LabOptions::stack_records`]: crate::LabOptions::stack_records

mod area;
mod callers;
mod calls;
mod chain;
mod module;
mod panics;
#[cfg(test)]
mod tests;
mod trap;
mod unwind;

pub use area::{ALIGN, SIZE_MIN};
pub(crate) use area::{Area, LabStack};
pub use callers::{TABLE_SEEDS, callers, deepest_chain};
pub use calls::{CallUse, Calls, Entry};
pub use chain::{Chain, ChainFrame, Overflow};
pub use highwater_engine::stack::{CallDepth, MEASURED, Window};
pub(crate) use panics::watch_panics;
pub(crate) use trap::{end_if_overflowed, install, running, set_running};

use highwater_engine::TaskId;
use std::collections::BTreeMap;

/// How deep one task's stack was used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StackUse {
    /// The task. The same seed gives it the same number in every run.
    pub task: TaskId,
    /// Its name.
    pub name: String,
    /// Bytes of its stack.
    pub size: u64,
    /// Bytes from the top to the deepest word that was written, if stacks were painted.
    pub deepest: Option<u64>,
    /// Who called whom when the depth was reached that [`LabOptions::stack_records`] asked for.
    ///
    /// [`LabOptions::stack_records`]: crate::LabOptions::stack_records
    pub chain: Option<Chain>,
}

/// The window of the stack that the caller runs on, if it is a task of a lab and stacks can be measured: for
/// [`Window::measure`].
pub fn window() -> Option<Window<'static>> {
    let area = running().filter(|a| MEASURED && a.line.is_none())?;
    Some(Window {
        low: area.low,
        top: area.top,
        seen: &area.seen,
    })
}

/// All stacks of a world.
pub(crate) struct Stacks {
    size: usize,
    trace: bool,
    records: BTreeMap<u32, u64>,
    /// Those of ended tasks, to be used again.
    free: Vec<LabStack>,
    /// One for each task that was made, by slot; alive while its stack is not given back.
    uses: BTreeMap<usize, Use>,
}

struct Use {
    report: StackUse,
    alive: *const Area,
}

impl Stacks {
    pub fn new(size: usize, trace: bool, records: BTreeMap<u32, u64>) -> Stacks {
        install();
        watch_panics();
        Stacks {
            size,
            trace,
            records,
            free: Vec::new(),
            uses: BTreeMap::new(),
        }
    }

    /// A stack for the task `name`, which will have the number `slot`; of another size than the others', if one is given.
    pub fn take(
        &mut self,
        slot: usize,
        name: &str,
        size: Option<usize>,
    ) -> std::io::Result<LabStack> {
        let record = self.records.get(&(slot as u32)).map(|d| *d as usize);
        let record = record.filter(|depth| MEASURED && *depth > ALIGN);
        let own = size.unwrap_or(self.size);
        let stack = match record {
            Some(depth) => LabStack::new(own.max(depth).next_multiple_of(ALIGN), record)?,
            None if own != self.size => LabStack::new(own, None)?,
            None => match self.free.pop() {
                Some(stack) => stack,
                None => LabStack::new(own, None)?,
            },
        };
        if self.trace {
            stack.area().paint();
        }
        stack.area().name.set(Some(name.into()));
        let report = StackUse {
            task: TaskId(slot as u32),
            name: name.to_owned(),
            size: own as u64,
            deepest: None,
            chain: None,
        };
        let alive = std::ptr::from_ref(stack.area());
        self.uses.insert(slot, Use { report, alive });
        Ok(stack)
    }

    /// Takes back the stack of a task that has ended.
    pub fn give_back(&mut self, slot: usize, stack: LabStack) {
        if let Some(usage) = self.uses.get_mut(&slot) {
            usage.look(stack.area(), self.trace);
            usage.alive = std::ptr::null();
        }
        let area = stack.area();
        if area.line.is_none() && area.top - area.low == self.size {
            self.free.push(stack);
        }
    }

    /// How deep each task's stack was used until now.
    pub fn report(&mut self) -> Vec<StackUse> {
        let trace = self.trace;
        for usage in self.uses.values_mut() {
            usage.look_alive(trace);
        }
        self.uses.values().map(|u| u.report.clone()).collect()
    }
}

impl Use {
    fn look(&mut self, area: &Area, trace: bool) {
        if trace && MEASURED {
            self.report.deepest = Some(area.deepest());
        }
        if let Some(snapshot) = area.take_kept() {
            self.report.chain = Some(Chain::of(&snapshot));
        }
    }

    #[allow(unsafe_code)]
    fn look_alive(&mut self, trace: bool) {
        // SAFETY: STACK-2: null, or of a stack that was not given back, which its coroutine keeps, or which was leaked
        // with a coroutine that was cut off.
        if let Some(area) = unsafe { self.alive.as_ref() } {
            self.look(area, trace);
        }
    }
}

//! The lab world: the engine's tasks as coroutines on one OS thread, in virtual time.
//!
//! One task runs at a time; which one is decided by the seed. The thread that made the world is its *main thread*: what
//! it calls outside of any coroutine runs as task 0, and whenever it parks (or in [`LabWorld::run`]) it drives the
//! others. Device events run between coroutines, as task 1, in completion context.
//!
//! **State.** Everything is in one `LabCell` (CELL-1, CELL-2); `current` is a copy of a pointer, for speed.
//! **Context.** `park`, `relax`, `join` and device waits switch coroutines; `charge` may. Completion context may not.
//! **Invariants.**
//! - LAB-1: a task's record lives as long as the world, at one address.
//! - LAB-2: a yielder is used only by its own coroutine, while that runs.
//! - LAB-3: no task is switched out while it holds an engine lock.
//! - LAB-4: same seed, same program: same trace hash.
//!
//! **Kernel.** schedule(), the timer wheel, softirqs; the CPUs are virtual, so pre-emption happens only at `charge`,
//! `park` and `relax`.
//! **Tests.** `tests.rs` beside this file.
#![allow(unsafe_code)]

mod arena;
mod copying;
mod coroutine;
mod options;
mod placement;
#[cfg(test)]
mod placement_tests;
mod runqueue;
mod sched;
mod slot;
#[cfg(test)]
mod tests;

use arena::ArenaBytes;
pub use arena::LabArena;
pub(crate) use coroutine::{Ended, Outcome};
pub use options::{Costs, LabOptions};

use crate::cell::LabCell;
use crate::rng::Rng;
use crate::stack::{Chain, Overflow, StackUse, Stacks, end_if_overflowed};
use copying::Copying;
use coroutine::{Co, YielderCell};
use highwater_engine::world::{Task, TaskBody, TaskId, Work, World};
use highwater_engine::{Error, Nanos};
use sched::{Next, ROOT, SOFTIRQ, Sched};
use slot::Then;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, Weak};

/// Who gets a device's events.
pub(crate) trait EventSink: Send + Sync {
    /// The event scheduled under `token` has come. Runs in completion context: must not wait.
    fn fire(&self, token: u64);
}

/// The lab. See the module's head.
pub struct LabWorld {
    sched: LabCell<Sched>,
    // LAB-1 wants stable addresses, which a vector that grows does not keep.
    #[allow(clippy::vec_box)]
    records: LabCell<Vec<Box<Task>>>,
    sinks: LabCell<Vec<Weak<dyn EventSink>>>,
    stacks: LabCell<Stacks>,
    current: AtomicPtr<Task>,
    arena_bytes: Arc<ArenaBytes>,
    cpus: usize,
    seed: u64,
    main_stack_size: Option<usize>,
    /// The caller wants an overflow as a value: it is not printed.
    awaits_overflow: AtomicBool,
    /// A task's stack has overflowed: the run ends.
    overflowed: AtomicBool,
    costs: Costs,
    cost_draws: LabCell<Rng>,
    copying: LabCell<Copying>,
    ghost: bool,
    /// Draws say where tasks are pre-empted.
    preempts: bool,
    /// Nobody else runs now, as if an engine lock were held.
    uninterrupted: AtomicBool,
}

/// What a run leaves.
#[derive(Debug)]
pub struct Run<R> {
    /// What the main body returned.
    pub value: R,
    /// Tasks still alive at the end of the main body: leaks.
    pub leaked: Vec<String>,
    /// Virtual time at the end.
    pub now: Nanos,
    /// Scheduler steps.
    pub steps: u64,
    /// The trace hash (LAB-4).
    pub trace: u64,
}

/// Says where the world was when a panic passed through.
struct Whereabouts<'a>(&'a LabWorld);

impl Drop for Whereabouts<'_> {
    fn drop(&mut self) {
        // An overflow is no panic but a finding, which says the same of itself. Relaxed: one thread.
        if std::thread::panicking() && !self.0.overflowed.load(Ordering::Relaxed) {
            let (seed, at) = self.0.sched.with(|s| {
                s.set_current(ROOT);
                (s.options.seed, s.clock)
            });
            self.0.set_current(ROOT);
            eprintln!("lab: seed {seed}: panic at virtual time {:?}", Nanos(at));
        }
    }
}

impl LabWorld {
    /// A world of the calling thread, at time zero.
    pub fn new(options: LabOptions) -> Arc<LabWorld> {
        let records = options.stack_records.clone();
        let stacks = Stacks::new(options.stack_size, options.stack_trace, records);
        let world = LabWorld {
            cpus: options.cpus,
            seed: options.seed,
            main_stack_size: options.main_stack_size,
            awaits_overflow: AtomicBool::new(false),
            overflowed: AtomicBool::new(false),
            stacks: LabCell::new(stacks),
            costs: options.costs.clone(),
            cost_draws: LabCell::new(Rng::new(options.seed, 3)),
            copying: LabCell::new(Copying::default()),
            ghost: options.ghost,
            preempts: options.preempt_ppm > 0,
            uninterrupted: AtomicBool::new(false),
            sched: LabCell::new(Sched::new(options)),
            records: LabCell::new(Vec::new()),
            sinks: LabCell::new(Vec::new()),
            current: AtomicPtr::new(std::ptr::null_mut()),
            arena_bytes: Arc::default(),
        };
        for slot in [ROOT, SOFTIRQ] {
            world.add_record(slot);
        }
        world.set_current(SOFTIRQ);
        // Completions may use the reserve and never reclaim.
        world.task().set_flag(Task::MEMALLOC);
        world.set_current(ROOT);
        Arc::new(world)
    }

    /// Runs `body` as a task to its end, and all others meanwhile.
    ///
    /// # Panics
    /// With the panic of any task; when the run exceeds `time_max` or `steps_max`.
    pub fn run<R: 'static>(&self, body: impl FnOnce() -> R + 'static) -> Run<R> {
        let value = Rc::new(RefCell::new(None));
        let result = value.clone();
        let main = move || *result.borrow_mut() = Some(body());
        let id = self.spawn_sized("scenario", self.main_stack_size, main);
        while !self.join(id, Nanos(u64::MAX)) {}
        let value = value.borrow_mut().take();
        self.sched.with(|s| Run {
            value: value.unwrap_or_else(|| unreachable!("a body that ended has a value")),
            leaked: s.alive(),
            now: Nanos(s.clock),
            steps: s.steps,
            trace: s.trace.value(),
        })
    }

    /// As [`LabWorld::run`], with a stack that was too small as an error. The world must not be used any more then.
    ///
    /// # Errors
    /// The first overflow of a task's stack; where stacks cannot be watched (other than x86-64 Linux), the process ends
    /// at the guard instead.
    ///
    /// # Panics
    /// As `run`, for all else.
    pub fn try_run<R: 'static>(
        &self,
        body: impl FnOnce() -> R + 'static,
    ) -> Result<Run<R>, Box<Overflow>> {
        // Relaxed: one thread.
        self.awaits_overflow.store(true, Ordering::Relaxed);
        let run = catch_unwind(AssertUnwindSafe(|| self.run(body)));
        self.awaits_overflow.store(false, Ordering::Relaxed);
        run.or_else(|panic| {
            let overflow = panic.downcast::<Overflow>();
            overflow.map_or_else(|other| resume_unwind(other), Err)
        })
    }

    /// As `World::spawn`, of a body that need not be `Send`: all tasks share one OS thread.
    pub fn spawn_local(&self, name: &str, body: impl FnOnce() + 'static) -> TaskId {
        self.spawn_sized(name, None, body)
    }

    fn spawn_sized(
        &self,
        name: &str,
        stack_size: Option<usize>,
        body: impl FnOnce() + 'static,
    ) -> TaskId {
        let yielder = YielderCell::default();
        let slot = self.sched.with(|s| s.len());
        let stack = self.stacks.with(|s| s.take(slot, name, stack_size));
        let stack = stack.unwrap_or_else(|e| panic!("lab: no stack for task {name}: {e}"));
        let co = Co::new(stack, yielder.clone(), body);
        let slot = self.sched.with(|s| s.add(name, Some(co), yielder));
        self.add_record(slot);
        TaskId(slot as u32)
    }

    /// The trace hash so far (LAB-4).
    pub fn trace_hash(&self) -> u64 {
        self.sched.with(|s| s.trace.value())
    }

    /// The most bytes of memory that engines have had at one time.
    pub fn arena_bytes_max(&self) -> u64 {
        self.arena_bytes.max()
    }

    /// Steps of the scheduler so far.
    pub fn steps(&self) -> u64 {
        self.sched.with(|s| s.steps)
    }

    /// CPU that tasks whose name begins with `prefix` have been charged so far, ended ones included, in nanoseconds. The
    /// main thread's and completion context's is not counted: they have no CPU.
    pub fn cpu_ns(&self, prefix: &str) -> u64 {
        self.sched.with(|s| s.used_ns(prefix))
    }

    /// Is memory without bytes (`LabOptions::ghost`)?
    pub fn is_ghost(&self) -> bool {
        self.ghost
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How deep the stack of each task made so far was used: of those that ended at their end, of the others until now.
    /// Task 0 (the thread's own stack) and completion context (the scheduler's) are not among them.
    ///
    /// Reads whole stacks and may unwind: call it from the main thread, outside of `run`.
    pub fn stacks(&self) -> Vec<StackUse> {
        self.stacks.with(Stacks::report)
    }

    /// The name of a task that was made, also when it has ended.
    ///
    /// # Panics
    /// When no task had that id.
    pub fn task_name(&self, task: TaskId) -> String {
        self.sched.with(|s| s.name(task.0 as usize).to_owned())
    }

    /// Takes an event of the caller's own into the trace hash.
    pub fn note(&self, what: u32, whom: u64) {
        self.sched.with(|s| {
            let now = s.now();
            s.trace.note(what, whom, now);
        });
    }

    /// Sleeps until `until`, as in a system call: an `unpark` meanwhile is kept for the next `park`.
    pub fn sleep_until(&self, until: Nanos) {
        while self.now() < until {
            if self.wait(Then::Sleep(until.0)) {
                return;
            }
        }
    }

    /// Sleeps until `rouse` names this task.
    pub(crate) fn sleep(&self) {
        self.task().assert_may_sleep();
        self.wait(Then::Sleep(u64::MAX));
    }

    /// `sleep_until` of a task whose device has told it when its request ends.
    pub(crate) fn sleep_until_served(&self, until: Nanos) {
        self.sched.with(|s| s.await_interrupt(true));
        self.sleep_until(until);
        // It need not have slept.
        self.sched.with(|s| s.await_interrupt(false));
    }

    /// `unpark` of a task that waits in its device's queue: what it takes to wake it is in the device's time.
    pub(crate) fn unpark_served(&self, task: TaskId) {
        self.sched.with(|s| s.unpark(task.0 as usize, true));
    }

    /// A device's interrupt: takes time from the task on the last CPU.
    pub(crate) fn interrupt(&self) {
        if self.costs.interrupt > 0 {
            self.sched.with(Sched::interrupt);
        }
    }

    /// Ends the sleep of `task`.
    pub(crate) fn rouse(&self, task: TaskId) {
        self.sched.with(|s| s.rouse(task.0 as usize));
    }

    /// Adds a receiver of events, which `schedule` names by the number returned.
    pub(crate) fn register(&self, sink: Weak<dyn EventSink>) -> u32 {
        self.sinks.with(|sinks| {
            sinks.push(sink);
            sinks.len() as u32 - 1
        })
    }

    /// `fire(token)` at `at` on the receiver `source`.
    pub(crate) fn schedule(&self, at: Nanos, source: u32, token: u64) {
        self.sched.with(|s| s.schedule(at.0, source, token));
    }

    fn add_record(&self, slot: usize) {
        self.records.with(|records| {
            assert_eq!(records.len(), slot, "LAB-1");
            records.push(Box::new(Task::new(TaskId(slot as u32))));
        });
    }

    fn set_current(&self, slot: usize) {
        let task = self
            .records
            .with(|records| std::ptr::from_ref::<Task>(&records[slot]).cast_mut());
        // Relaxed: one thread.
        self.current.store(task, Ordering::Relaxed);
    }

    /// The running task stops for `then`. False when it need not wait.
    fn wait(&self, then: Then) -> bool {
        end_if_overflowed();
        // LAB-3, and WORLD-1 of the engine.
        self.task().assert_no_locks();
        let settled = self.sched.with(|s| {
            assert_ne!(
                s.current(),
                SOFTIRQ,
                "completion context must not wait ({then:?})"
            );
            s.look().map(|_| s.settle(then))
        });
        let Some(yielder) = settled.unwrap_or_else(|report| panic!("{report}")) else {
            return false;
        };
        if yielder.is_null() {
            self.drive();
        } else {
            // SAFETY: LAB-2: the scheduler gave out the yielder of the running coroutine, which is the caller.
            unsafe { (*yielder).suspend(()) };
        }
        true
    }

    /// Runs the others until the main thread is woken.
    fn drive(&self) {
        let _whereabouts = Whereabouts(self);
        loop {
            match self.sched.with(Sched::next) {
                Next::Root => {
                    self.sched.with(|s| s.set_current(ROOT));
                    self.set_current(ROOT);
                    return;
                }
                Next::Run(slot, co) => self.resume(slot, co),
                Next::Fire { source, token } => {
                    self.set_current(SOFTIRQ);
                    let sink = self.sinks.with(|sinks| sinks[source as usize].upgrade());
                    if let Some(sink) = sink {
                        sink.fire(token);
                    }
                    self.sched.with(|s| s.set_current(ROOT));
                }
                Next::Stuck(report) => panic!("{report}"),
            }
        }
    }

    /// How much memory the CPUs copy, in MB/s.
    pub(crate) fn copying(&self) -> u32 {
        let now = self.now().0;
        self.copying.with(|c| c.mb_per_s(now))
    }

    /// Charges the calling task the CPU of a request of so many pieces that it submits.
    pub(crate) fn charge_request(&self, pieces: u32) {
        self.charge_ns(self.costs.submit + self.costs.segment * u64::from(pieces.max(1) - 1));
    }

    /// Charges the CPU of a system call of the calling task.
    pub(crate) fn charge_syscall(&self) {
        if self.costs.syscall > 0 {
            self.charge_ns(self.costs.syscall);
        }
    }

    fn charge_ns(&self, cost: u64) {
        let Some(then) = self.sched.with(|s| s.charge(cost)) else {
            return;
        };
        // LAB-3: with a lock held, the work is owed.
        if self.may_switch() {
            self.wait(then);
        }
    }

    /// Nobody else runs while an engine lock is held (LAB-3), or a look is taken at all that there is.
    fn may_switch(&self) -> bool {
        // Relaxed: written by this task only; one thread.
        self.task().lock_ranks.load(Ordering::Relaxed) == 0
            && !self.uninterrupted.load(Ordering::Relaxed)
    }

    /// Runs `f`, which must not sleep, while nobody else runs: for a look at several of the engine's locks at one moment.
    pub fn uninterrupted<R>(&self, f: impl FnOnce() -> R) -> R {
        // Relaxed: one thread.
        let before = self.uninterrupted.swap(true, Ordering::Relaxed);
        let value = f();
        self.uninterrupted.store(before, Ordering::Relaxed);
        value
    }

    fn resume(&self, slot: usize, mut co: Co) {
        self.set_current(slot);
        let Some(outcome) = co.resume() else {
            self.set_current(ROOT);
            self.sched.with(|s| s.put_back(slot, Some(co)));
            return;
        };
        if matches!(outcome, Err(Ended::Overflow)) {
            self.overflowed(co);
        }
        self.set_current(ROOT);
        self.sched.with(|s| s.put_back(slot, None));
        self.stacks.with(|s| s.give_back(slot, co.into_stack()));
        if let Err(Ended::Panic(panic)) = outcome {
            let name = self.sched.with(|s| s.name(slot).to_owned());
            let (seed, at) = self.sched.with(|s| (s.options.seed, s.clock));
            eprintln!(
                "lab: seed {seed}: task {slot} ({name}) panicked at virtual time {:?}",
                Nanos(at)
            );
            resume_unwind(panic);
        }
    }

    /// Ends the run with the finding, on the scheduler's stack. The task was cut off anywhere, perhaps in a borrow of
    /// the world's cells: only plain words of them are read from here on.
    #[cold]
    fn overflowed(&self, co: Co) -> ! {
        self.sched.abandon_borrow();
        self.records.abandon_borrow();
        self.sinks.abandon_borrow();
        self.stacks.abandon_borrow();
        self.set_current(ROOT);
        let at = self.sched.with(|s| {
            s.set_current(ROOT);
            s.clock
        });
        let stack = co.into_stack();
        let area = stack.area();
        let snapshot = area.take_kept().unwrap_or_default();
        let overflow = Overflow {
            seed: self.seed,
            task: area.name.take().unwrap_or_default().into(),
            size: (area.top - area.low) as u64,
            fault: snapshot.depth(),
            at: Nanos(at),
            chain: Chain::of(&snapshot),
        };
        // The engine may have lent pointers into this stack to requests that are still in flight.
        std::mem::forget(stack);
        // Relaxed, also below: one thread.
        self.overflowed.store(true, Ordering::Relaxed);
        if !self.awaits_overflow.load(Ordering::Relaxed) {
            eprint!("lab: {overflow}");
        }
        resume_unwind(Box::new(overflow));
    }
}

impl World for LabWorld {
    type Arena = LabArena;

    fn now(&self) -> Nanos {
        let looked = self.sched.with(Sched::look);
        Nanos(looked.unwrap_or_else(|report| panic!("{report}")))
    }

    fn spawn(&self, name: &str, body: TaskBody) -> Result<TaskId, Error> {
        Ok(self.spawn_local(name, body))
    }

    fn join(&self, id: TaskId, until: Nanos) -> bool {
        let target = id.0 as usize;
        loop {
            let now = self.now();
            let ended = self.sched.with(|s| {
                let ended = s.ended(target);
                if !ended && now < until {
                    s.add_joiner(target, s.current());
                }
                ended
            });
            if ended || now >= until {
                return ended;
            }
            self.park(until);
        }
    }

    fn park(&self, until: Nanos) {
        self.task().assert_may_sleep();
        let waited = self.wait(Then::Park(until.0));
        if !waited && let Some(then) = self.sched.with(Sched::drawn_preemption) {
            self.wait(then);
        }
    }

    fn unpark(&self, task: TaskId) {
        self.sched.with(|s| s.unpark(task.0 as usize, false));
    }

    fn relax(&self) {
        let root = self.sched.with(|s| {
            s.charge(self.costs.spin);
            s.current() == ROOT
        });
        // The main thread spins for something that others do: time must pass.
        self.wait(if root {
            Then::Sleep(self.now().0 + self.costs.spin)
        } else {
            Then::Yield
        });
    }

    fn task(&self) -> &Task {
        // Relaxed: one thread.
        let task = self.current.load(Ordering::Relaxed);
        // SAFETY: LAB-1: the record is boxed and never freed before the world, which `self` borrows.
        unsafe { &*task }
    }

    fn charge(&self, work: Work, n: u32) {
        let cost = self.cost_draws.with(|rng| self.costs.of(work, n, rng));
        if matches!(work, Work::Copy | Work::CopyIn | Work::Move) {
            let now = self.now().0;
            self.copying.with(|c| c.add(now, n));
        }
        self.charge_ns(cost);
    }

    fn about_to_lock(&self) {
        if self.preempts
            && self.may_switch()
            && let Some(then) = self.sched.with(Sched::drawn_preemption)
        {
            self.wait(then);
        }
    }

    fn arena(&self, data: usize, tables: usize) -> Result<LabArena, Error> {
        let len = data.saturating_add(tables);
        let arena = if self.ghost {
            LabArena::ghost(data, tables)
        } else {
            LabArena::new(len)
        };
        let arena = arena.map_err(|e| Error::os(format!("arena of {len} bytes"), &e))?;
        Ok(arena.counted_in(&self.arena_bytes))
    }

    fn random(&self) -> u64 {
        self.sched.with(|s| s.draws.next_u64())
    }

    fn cpu(&self) -> usize {
        self.sched.with(|s| s.cpu())
    }

    fn cpus(&self) -> usize {
        self.cpus
    }

    fn is_lab(&self) -> bool {
        true
    }
}

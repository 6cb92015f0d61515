//! How a lab is set up: seed, virtual CPUs, what work costs, how rude the scheduler is.

use crate::device::model::Latency;
use crate::rng::Rng;
use highwater_engine::Nanos;
use highwater_engine::world::Work;
use std::collections::BTreeMap;

/// What each kind of the engine's work costs a virtual CPU, in nanoseconds. Rounded figures of one x86 core at 3 GHz
/// with pages in DRAM; a scenario that studies CPU time sets its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Costs {
    /// One look-up that hit.
    pub hit: u64,
    /// How single look-ups lie about that: thousandths of it, as nanoseconds.
    pub hit_spread: Latency,
    /// One page copied to a caller, with its look-up, or to another frame for a writer.
    pub copy: u64,
    /// How single ones lie about that, likewise.
    pub copy_spread: Latency,
    /// One page copied in from a caller, with its look-up and its dirtying.
    pub copy_in: u64,
    /// How single ones lie about that, likewise.
    pub copy_in_spread: Latency,
    /// One page that was not in memory entered.
    pub install: u64,
    /// One page looked at by reclaim.
    pub scan: u64,
    /// One page moved to another frame by compaction.
    pub move_page: u64,
    /// One allocation slow path entered.
    pub alloc_slow: u64,
    /// One page put under writeback.
    pub writeback: u64,
    /// One request submitted, to the device by whoever submits it.
    pub submit: u64,
    /// One further piece of memory of a request.
    pub segment: u64,
    /// One request completed.
    pub complete: u64,
    /// One page of a request completed.
    pub end_page: u64,
    /// What a request's end takes from the task on the last CPU, where a device's interrupts come; idle, it costs nobody.
    pub interrupt: u64,
    /// One turn of a spin loop.
    pub spin: u64,
    /// CPU of a read or write on the calling thread (`read_now`): the part of the device's time that the CPU is busy.
    pub syscall: u64,
    /// What a caller does itself for one operation.
    pub task: u64,
    /// What waking a parked task costs the one who wakes it.
    pub unpark: u64,
    /// From an unpark, or a timer, until the parked task runs, on a CPU that was idle. A task that sleeps for a device
    /// pays nothing: the device's model has it.
    pub wake: u64,
    /// The same on a CPU that ran another task until then.
    pub switch: u64,
    /// How much later a task runs that a device's interrupt wakes on an idle CPU which is not the interrupts' (the last one): it
    /// is called by another interrupt.
    pub resched_ipi: u64,
    /// How much later than asked for a park's deadline comes at most, `wake` not counted: as soon as another timer
    /// interrupts the CPU in that time, it comes with it.
    pub timer_slack: u64,
}

/// In a spread: the mean itself.
const MEAN: Nanos = Nanos(1_000);

impl Default for Costs {
    fn default() -> Costs {
        Costs {
            hit: 40,
            hit_spread: Latency::constant(MEAN),
            copy: 450,
            copy_spread: Latency::constant(MEAN),
            copy_in: 450,
            copy_in_spread: Latency::constant(MEAN),
            install: 150,
            scan: 100,
            move_page: 600,
            alloc_slow: 300,
            writeback: 50,
            submit: 1_000,
            segment: 0,
            complete: 1_000,
            end_page: 50,
            interrupt: 0,
            spin: 50,
            syscall: 0,
            task: 0,
            unpark: 0,
            wake: 0,
            switch: 0,
            resched_ipi: 0,
            timer_slack: 0,
        }
    }
}

impl Costs {
    /// The cost of `n` pieces of `work`: of one alone a draw, if they differ, of several their mean.
    pub(crate) fn of(&self, work: Work, n: u32, rng: &mut Rng) -> u64 {
        let spread = match work {
            Work::Hit => Some(&self.hit_spread),
            Work::Copy => Some(&self.copy_spread),
            Work::CopyIn => Some(&self.copy_in_spread),
            _ => None,
        };
        let each = match work {
            Work::Hit => self.hit,
            Work::Copy => self.copy,
            Work::CopyIn => self.copy_in,
            Work::Install => self.install,
            Work::Scan => self.scan,
            Work::Move => self.move_page,
            Work::AllocSlow => self.alloc_slow,
            Work::Writeback => self.writeback,
            Work::Complete => self.complete,
            Work::EndPage => self.end_page,
            Work::Spin => self.spin,
            Work::Task => self.task,
        };
        match spread {
            Some(spread) if n == 1 => each * spread.sample_unless_constant(rng) / MEAN.0,
            _ => each * u64::from(n),
        }
    }
}

/// How a lab is built. Start from `LabOptions::new(seed)`.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Names the run.
    pub seed: u64,
    /// Virtual CPUs: as many tasks compute at one time.
    pub cpus: usize,
    /// What work costs.
    pub costs: Costs,
    /// How often a task is pre-empted where it charges work, per million.
    pub preempt_ppm: u32,
    /// How often a pre-empted task is also kept off the CPU for up to 100 µs, per million.
    pub steal_ppm: u32,
    /// How often the scheduler takes a random ready task in place of the oldest, per million.
    pub shuffle_ppm: u32,
    /// A woken task stays with its last CPU, and pre-empts there, as Linux' tasks do on a busy machine (`placement.rs`);
    /// otherwise it runs wherever a CPU is free.
    pub wake_affine: bool,
    /// How often a park returns early without cause, per million.
    pub spurious_ppm: u32,
    /// Frames have no bytes (GHOST-1 of the arena): for machines larger than the one that runs the lab.
    pub ghost: bool,
    /// Bytes of stack for each task: a multiple of 16, at least 4096. One that needs more is a finding ([`Overflow`]).
    ///
    /// [`Overflow`]: crate::stack::Overflow
    pub stack_size: usize,
    /// Bytes of stack for the body of [`LabWorld::run`], which sets up and reports; of the others when `None`.
    ///
    /// [`LabWorld::run`]: crate::LabWorld::run
    pub main_stack_size: Option<usize>,
    /// Paint each stack, so that [`LabWorld::stacks`] knows how deep it was used.
    ///
    /// [`LabWorld::stacks`]: crate::LabWorld::stacks
    pub stack_trace: bool,
    /// Tasks by number, and the depth at which the chain of each is kept: what a run of the same seed measured. Their
    /// stacks have at least `stack_size` bytes.
    pub stack_records: BTreeMap<u32, u64>,
    /// The run panics at this virtual time.
    pub time_max: Nanos,
    /// The run panics after this many scheduler steps.
    pub steps_max: u64,
}

impl LabOptions {
    /// Two CPUs, a mildly rude scheduler, one hour of virtual time.
    pub fn new(seed: u64) -> LabOptions {
        LabOptions {
            seed,
            cpus: 2,
            costs: Costs::default(),
            preempt_ppm: 20_000,
            steal_ppm: 100_000,
            shuffle_ppm: 250_000,
            wake_affine: false,
            spurious_ppm: 5_000,
            ghost: false,
            stack_size: 256 << 10,
            main_stack_size: None,
            stack_trace: false,
            stack_records: BTreeMap::new(),
            time_max: Nanos::from_secs(3_600),
            steps_max: 200_000_000,
        }
    }

    /// No random choice but those of devices: first come, first served.
    pub fn calm(seed: u64) -> LabOptions {
        LabOptions {
            preempt_ppm: 0,
            steal_ppm: 0,
            shuffle_ppm: 0,
            spurious_ppm: 0,
            ..LabOptions::new(seed)
        }
    }
}

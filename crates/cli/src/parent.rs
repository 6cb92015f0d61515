//! A run: lays the files out, starts a child for each arm, shows progress, gathers the reports.

use crate::arm_process;
use crate::child::Order;
use crate::cleanup::{self, Undo, undo};
use crate::error::Result;
use crate::ftrace;
use crate::linux;
use crate::outputs;
use crate::place::{self, Place};
use crate::plan::{Arm, Plan, WorldName};
use crate::probe::Meter;
use crate::progress::Progress;
use crate::report::{ArmReport, Failed, Report};
use crate::scenario::Scenario;
use crate::stack;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long beyond its plan's time a child may get no further before it is given up. A lab's time is no machine's: a run
/// that gets on may take hours.
const CHILD_GRACE: Duration = Duration::from_secs(240);
/// The size of the file that is measured between runs.
const PROBE_BYTES: u64 = 512 << 20;

/// What a run needs to know beside its scenario.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the files go.
    pub dir: Option<std::path::PathBuf>,
    /// The seed of the tasks' random numbers.
    pub seed: u64,
    /// Keep what depends on the speed of this machine in the lab's reports.
    pub real_time: bool,
    /// What work costs the lab's CPUs [default: the table that comes with the command].
    pub costs: Option<crate::costs::CostTable>,
    /// How often each arm runs; the lab's, whose numbers are the same for the same seed, with the seeds from `seed` on.
    pub repeat: u32,
    /// Measure the disk for so long before each run on it and after the last; the lab, which then runs at the end, gets
    /// what was measured.
    pub probe: Option<Duration>,
    /// Where the traces of reclaim go.
    pub ftrace: Option<std::path::PathBuf>,
    /// The tasks' stacks.
    pub stack: crate::plan::PlanStack,
    /// Say nothing of an arm: whoever runs many (`cells.rs`) shows how far it is.
    pub quiet: bool,
}

/// Which arm runs when: the arms one after the other, `repeat` times around, so that a slow minute of the machine does
/// not meet all runs of one arm.
fn turns(arms: &[Arm], repeat: u32, lab_last: bool) -> Vec<usize> {
    let mut turns: Vec<usize> = (0..repeat.max(1)).flat_map(|_| 0..arms.len()).collect();
    if lab_last {
        turns.sort_by_key(|&i| arms[i].world == WorldName::Lab);
    }
    turns
}

/// The disk, if it is measured between the runs.
struct Disk(Option<Meter>);

impl Disk {
    fn new(dir: &Path, options: &Options) -> Result<Disk> {
        let meter = |time| Meter::new(dir, PROBE_BYTES, time);
        Ok(Disk(options.probe.map(meter).transpose()?))
    }

    /// Before a run of `plan`: measures, and says what the lab's disk is. A run of another world in between changes
    /// nothing.
    fn before(&mut self, plan: &mut Plan) -> Result<()> {
        let Some(meter) = &mut self.0 else {
            return Ok(());
        };
        if plan.arm.world == WorldName::Os {
            return meter.round();
        }
        if plan.arm.world == WorldName::Lab {
            if !meter.is_closed() {
                meter.round()?;
                meter.close();
            }
            plan.lab_device = Some(meter.profile()?);
        }
        Ok(())
    }
}

/// Runs `arms` one after the other.
///
/// # Errors
/// The first arm that fails, if it is the first that runs: a later one ends the run, and stands in the report beside what had
/// ended before. A Linux arm that cannot be set up is left out with its reason, unless it is the only one.
pub fn run(mut scenario: Scenario, arms: &[Arm], options: &Options) -> Result<Report> {
    let turns = turns(arms, options.repeat, options.probe.is_some());
    let traces = match &options.ftrace {
        Some(path) => ftrace::paths(path, turns.iter().map(|&i| &arms[i]))?,
        None => vec![None; turns.len()],
    };
    for path in traces.iter().flatten() {
        // Before hours of work, not after.
        outputs::try_write("--ftrace", path)?;
    }
    let on_disk = arms.iter().any(|a| a.world != WorldName::Lab);
    let place = if on_disk {
        let beside = options.probe.map_or(0, |_| PROBE_BYTES);
        Some(prepare(&mut scenario, options.dir.as_deref(), beside)?)
    } else {
        None
    };
    let dir = place.as_ref().map_or(Path::new("."), |p| &p.dir);
    let mut disk = Disk::new(dir, options)?;
    let mut report = Report {
        scenario: scenario.name.clone(),
        memory_bytes: scenario.memory.0,
        disk: None,
        arms: Vec::new(),
        failed: None,
    };
    let ended = Interrupted::new(turns.len(), options.quiet);
    let mut skipped = None;
    let mut done_by: Vec<(usize, ArmReport)> = Vec::new();
    for (turn, &index) in turns.iter().enumerate() {
        let arm = &arms[index];
        let mut plan = Plan::new(&scenario, arm.clone(), dir);
        if arm.world == WorldName::Lab {
            let before = turns[..turn].iter().filter(|i| **i == index).count();
            plan.seed = options.seed.wrapping_add(before as u64);
        } else {
            plan.seed = options.seed;
        }
        let seed = plan.seed;
        if turn > 0 && arm.world != WorldName::Lab {
            renew(&scenario, &plan)?;
        }
        plan.ftrace.clone_from(&traces[turn]);
        plan.costs = options.costs.clone().unwrap_or(plan.costs);
        disk.before(&mut plan)?;
        plan.stack.clone_from(&options.stack);
        if arm.world != WorldName::Lab {
            // Threads of this machine keep theirs.
            plan.stack.size = None;
        }
        let progress = match options.quiet {
            true => Progress::silent(arm),
            false => Progress::new(turn, turns.len(), arm, &plan),
        };
        // What it measured is nobody's file: the report keeps it.
        let measured = plan.lab_device.clone().filter(|_| options.probe.is_some());
        let result = stack::with_chains(plan, |plan| run_arm(plan, &progress));
        cleanup::wait_if_ending();
        match result {
            Ok(mut done) => {
                progress.finish(&done);
                ended.one_more();
                if arm.world == WorldName::Lab {
                    done.profile = measured.map(|named| named.text);
                    done.seed = (options.repeat > 1).then_some(seed);
                }
                if !options.real_time {
                    done.real = None;
                }
                done_by.push((index, done));
            }
            Err(e) if arm.world == WorldName::Linux && arms.len() > 1 => {
                progress.give_up();
                say!("{}: not run\n{e}", arm.title());
                skipped = Some(e);
            }
            Err(e) if options.quiet || done_by.is_empty() => {
                progress.give_up();
                return Err(e);
            }
            Err(e) => {
                // What the others measured is not lost.
                progress.give_up();
                report.failed = Some(Failed {
                    message: e.message,
                    remedy: e.remedy,
                    runs: turns.len(),
                });
                break;
            }
        }
    }
    drop(ended);
    // Rows of one arm lie together.
    done_by.sort_by_key(|(index, _)| *index);
    report.arms = done_by.into_iter().map(|(_, done)| done).collect();
    match (report.arms.is_empty(), skipped) {
        (true, Some(e)) => Err(e),
        _ => Ok(report),
    }
}

/// Says on Ctrl-C what of a run was done: the lines of its arms are above, and there is no table.
struct Interrupted {
    done: Arc<AtomicUsize>,
    _undo: Option<Undo>,
}

impl Interrupted {
    fn new(of: usize, quiet: bool) -> Interrupted {
        let done = Arc::new(AtomicUsize::new(0));
        let count = done.clone();
        let say = move || {
            // Relaxed: a number for people.
            let n = count.load(Ordering::Relaxed);
            if cleanup::is_ending() {
                say!("interrupted: {n} of {of} arms had ended; no result is written");
            }
        };
        Interrupted {
            done,
            _undo: (!quiet).then(|| undo(say)),
        }
    }

    fn one_more(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Makes the directory and the files, with room for `beside` bytes of others.
fn prepare(scenario: &mut Scenario, dir: Option<&Path>, beside: u64) -> Result<Place> {
    let place = place::make(dir)?;
    for note in &place.notes {
        say!("note: {note}");
    }
    if let Some(note) = place::fit(scenario, &place.dir, beside)? {
        say!("note: {note}");
    }
    for (name, file) in &scenario.files {
        let path = place.dir.join(format!("{name}.data"));
        place::lay_out(&path, file.disk_bytes(scenario.memory.0), file.sparse)?;
    }
    Ok(place)
}

/// Takes the blocks away that the arm before wrote into a trace's file, so that each arm finds the same file.
fn renew(scenario: &Scenario, plan: &Plan) -> Result<()> {
    for file in &plan.files {
        let spec = scenario.files.get(&file.name);
        if spec.is_some_and(|s| s.trace.is_some()) {
            place::lay_out(&file.path, file.len, true)?;
        }
    }
    Ok(())
}

fn run_arm(mut plan: Plan, progress: &Progress) -> Result<ArmReport> {
    let setup = match plan.arm.world {
        WorldName::Linux => Some(linux::set_up(&mut plan)?),
        _ => None,
    };
    if let Some(setup) = &setup {
        for note in &setup.notes {
            progress.note(note);
        }
    }
    let trace_dir = setup.as_ref().and_then(|s| s.trace_dir.clone());
    let limit = Duration::from_nanos(plan.settle_ns + plan.duration_ns) + CHILD_GRACE;
    let order = Order { plan, trace_dir };
    let mut report = arm_process::run(&order, limit, progress)?;
    if let Some(setup) = &setup {
        report.world.clone_from(&setup.world);
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::find;
    use highwater_engine::Preset;

    #[test]
    fn repeats_are_interleaved_and_the_lab_is_last_when_the_disk_is_measured() {
        let worlds = [WorldName::Os, WorldName::Lab];
        let presets = [Preset::V3_2, Preset::V6_16];
        let scenario = find("fits").unwrap();
        let arms = crate::plan::arms(&scenario, &worlds, &presets, false, false);
        assert_eq!(turns(&arms, 1, false), [0, 1, 2, 3]);
        assert_eq!(turns(&arms, 2, false), [0, 1, 2, 3, 0, 1, 2, 3]);
        assert_eq!(turns(&arms, 2, true), [0, 1, 0, 1, 2, 3, 2, 3]);
    }
}

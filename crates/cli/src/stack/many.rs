//! Many seeds of a scenario in the lab, on stacks of a chosen size: the first overflow is the finding.
//!
//! **Context.** A thread for each job, in this process: a lab belongs to one thread.

use super::report::TaskStack;
use super::{StackArgs, run_args, show};
use crate::cleanup;
use crate::command_line::CommandLine;
use crate::counted::Counted;
use crate::error::{CliError, Result};
use crate::jobs::jobs;
use crate::plan::{Plan, WorldName};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The deepest of each kind of task, with its seed, by arm.
type Deepest = BTreeMap<(usize, String), (TaskStack, u64)>;

/// Runs them.
///
/// # Errors
/// The overflow or failure of the lowest seed that was run.
pub fn run(args: &StackArgs, seeds: u64) -> Result<()> {
    let worlds = WorldName::parse_list(&args.world)?;
    if worlds != [WorldName::Lab] {
        return Err(CliError::usage(
            "--seeds is for the lab: threads do not repeat",
            "--world lab",
        ));
    }
    let first = args.common.seed;
    let Some(end) = first.checked_add(seeds) else {
        return Err(CliError::usage("there are no such seeds", "--seed 1"));
    };
    let run = run_args(args);
    let scenario = crate::adjust::adjusted(&run.scenario, run.memory, run.duration)?;
    let (scenario, arms, options) = crate::run::prepared(scenario, &run.scenario, &run)?;
    let plans: Vec<Plan> = arms
        .iter()
        .map(|arm| {
            let mut plan = Plan::new(&scenario, arm.clone(), std::path::Path::new("."));
            plan.costs = options.costs.clone().unwrap_or(plan.costs);
            plan.stack.clone_from(&options.stack);
            plan
        })
        .collect();
    let jobs = (jobs(args.jobs) as u64).min(seeds);
    let shared = Shared {
        next: AtomicU64::new(first),
        end,
        deepest: Mutex::default(),
        failure: Mutex::new(None),
        done: AtomicU64::new(0),
        progress: Counted::new(seeds, "seeds"),
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| shared.work(&plans));
        }
    });
    cleanup::wait_if_ending();
    shared.progress.end();
    let failure = shared.failure.lock().unwrap_or_else(|e| e.into_inner());
    if let Some((_, e)) = failure.clone() {
        return Err(e);
    }
    let deepest = shared.deepest.lock().unwrap_or_else(|e| e.into_inner());
    let rows: Vec<_> = plans
        .iter()
        .enumerate()
        .map(|(n, plan)| {
            let mut kinds: Vec<_> = deepest
                .iter()
                .filter(|((arm, _), _)| *arm == n)
                .map(|(_, d)| d.clone())
                .collect();
            kinds.sort_by_key(|(t, _)| std::cmp::Reverse(t.deepest));
            (plan.arm.title(), kinds)
        })
        .collect();
    crate::outputs::publish(
        &show::deepest(&rows, seeds, args.stack),
        &rows,
        args.common.json.as_deref(),
    )
}

struct Shared {
    next: AtomicU64,
    end: u64,
    deepest: Mutex<Deepest>,
    /// Of the lowest seed that failed.
    failure: Mutex<Option<(u64, CliError)>>,
    done: AtomicU64,
    progress: Counted,
}

impl Shared {
    fn work(&self, plans: &[Plan]) {
        loop {
            // Relaxed: a counter.
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end {
                return;
            }
            for (n, plan) in plans.iter().enumerate() {
                let mut plan = plan.clone();
                plan.seed = seed;
                if let Err(e) = self.one(n, &plan) {
                    self.fail(seed, &plan, e);
                    return;
                }
            }
            // Relaxed: a counter.
            let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
            self.progress.at(done);
        }
    }

    fn one(&self, n: usize, plan: &Plan) -> Result<()> {
        let ran = catch_unwind(AssertUnwindSafe(|| crate::world_lab::run(plan)));
        let report = ran.unwrap_or_else(|_| {
            Err(CliError::failed(
                format!(
                    "{}: a task panicked (its message is above)",
                    plan.arm.title()
                ),
                "report this as a bug, with the scenario and the seed",
            ))
        })?;
        let stacks = report.stacks.unwrap_or_default();
        if let Some(overflow) = stacks.overflow {
            return Err(CliError::failed(
                format!("{}: {}", plan.arm.title(), overflow.text),
                "a larger --stack",
            ));
        }
        let mut deepest = self.deepest.lock().unwrap_or_else(|e| e.into_inner());
        for task in stacks.tasks {
            let key = (n, task.task.clone());
            // Of equals the lowest seed, whatever order the jobs ran in.
            let better = deepest
                .get(&key)
                .is_none_or(|(t, seed)| (task.deepest, *seed) > (t.deepest, plan.seed));
            if better {
                deepest.insert(key, (task, plan.seed));
            }
        }
        Ok(())
    }

    fn fail(&self, seed: u64, plan: &Plan, e: CliError) {
        // Relaxed: jobs that took a seed before end it.
        self.next.store(self.end, Ordering::Relaxed);
        let mut failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        if failure.as_ref().is_none_or(|(s, _)| seed < *s) {
            let again = CommandLine::here().with("seed", seed).with("seeds", 1);
            let again = again.with("preset", &plan.arm.preset);
            let e = CliError {
                message: format!("seed {seed}: {}", e.message),
                remedy: format!("{}; again with: {again}", e.remedy),
                ..e
            };
            *failure = Some((seed, e));
        }
    }
}

//! One arm from warm-up to final sync: starts the tasks, takes the snapshots, adds up the tallies.
//!
//! **Context.** Runs on a task of the world it measures. `Snapshot` is what differs between worlds: the counters.

use crate::blocks;
use crate::error::{CliError, Result};
use crate::plan::{Plan, PlanTask, WorldName};
use crate::progress::{self, Phase};
use crate::replay::{self, Source};
use crate::report::{ArmReport, Latency, Real, Stall, TaskReport};
use crate::samples::{OpCount, Probe, Sampler};
use crate::target::{Handle, Host, OpError};
use crate::tasks::{Tally, Window, run, warm_up};
use hdrhistogram::Histogram;
use highwater_engine::world::Nanos;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Counters at one time, by name.
pub type Counters = BTreeMap<String, u64>;

/// How long after the window's end a task may still be inside an operation.
const JOIN_GRACE: Nanos = Nanos::from_secs(60);

/// Runs `plan` on `host` over `files` (in the plan's order); `counters` reads the world's counters, `probe` what is
/// sampled.
///
/// # Errors
/// The first failure of a task, or a task that did not end.
pub fn measure<H: Host, F: Handle>(
    plan: &Plan,
    host: &Arc<H>,
    files: &[F],
    mut counters: impl FnMut() -> Counters,
    probe: Probe,
) -> Result<ArmReport> {
    let failed = |what: &str, e: OpError| match e {
        OpError::Refused => CliError::failed(
            format!("{}: {what}: no memory", plan.arm.title()),
            "a larger --memory; the report above says who held it",
        ),
        OpError::Failed(why) => CliError::failed(
            format!("{}: {what}: {why}", plan.arm.title()),
            match plan.arm.world {
                WorldName::Lab => {
                    "another --device, or a quicker one: the lab's disk gave this answer"
                }
                _ => "check the disk under --dir, or run the scenario with --world lab",
            },
        ),
    };
    let warm: Vec<F> = warm_files(plan, files).into_iter().cloned().collect();
    let bytes = plan.warm_up_bytes;
    let warmed = on_task(plan, host, "warm-up", move || {
        warm_up(&warm.iter().collect::<Vec<_>>(), bytes)
    })?;
    warmed.map_err(|e| failed("warm-up", e))?;

    let begin = host.now();
    let start = begin.plus(Nanos(plan.settle_ns));
    let window = Window {
        start,
        end: start.plus(Nanos(plan.duration_ns)),
        ops: plan.ops.map(|n| Arc::new(AtomicU64::new(n))),
        count: Arc::default(),
    };
    let counts: Vec<Vec<Arc<OpCount>>> = plan
        .tasks
        .iter()
        .map(|t| (0..t.threads).map(|_| Arc::default()).collect())
        .collect();
    // Without a time to settle, threads may be through with their work before this one runs again.
    let at_once = (plan.settle_ns == 0).then(&mut counters);
    let (tallies, ids) = spawn_all(plan, host, files, &window, &counts)?;
    let sampler = Sampler::start(plan, host, &window, counts, probe)?;

    host.sleep_until(window.start);
    let real = Instant::now();
    let before = at_once.unwrap_or_else(&mut counters);
    for id in ids {
        if !host.join(id, window.end.plus(JOIN_GRACE)) {
            return Err(CliError::failed(
                format!(
                    "{}: a task did not end within 60 s of its time",
                    plan.arm.title()
                ),
                "this is a bug or a hung disk: check `dmesg`, then report it with the scenario",
            ));
        }
    }
    let real_s = real.elapsed().as_secs_f64();
    let after = counters();
    let ended = host.now();
    progress::at(Phase::Sync, 0, 1);
    for (index, file) in files.iter().enumerate() {
        if plan
            .tasks
            .iter()
            .any(|t| t.file == index && t.kind.writes())
        {
            let file = file.clone();
            let synced = on_task(plan, host, "final sync", move || file.sync())?;
            synced.map_err(|e| failed("final sync", e))?;
        }
    }
    let sync_s = host.now().since(ended).as_secs_f64();
    let synced = difference(&after, &counters()).get("nr_written").copied();
    let mut sampled = ArmReport::default();
    sampler.finish(host, host.now().plus(JOIN_GRACE), &mut sampled);
    let tallies = tallies.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(why) = tallies.iter().find_map(|t| t.failed.clone()) {
        return Err(failed("run", OpError::Failed(why)));
    }
    let vmstat = difference(&before, &after);
    let seconds = ended.since(window.start).as_secs_f64();
    let mut report = summary(plan, &tallies, seconds, sync_s, vmstat);
    report.final_sync_pages = synced;
    (report.samples, report.limits) = (sampled.samples, sampled.limits);
    if plan.arm.world == WorldName::Lab {
        let ops: u64 = report.tasks.iter().map(|t| t.ops).sum();
        report.real = Some(Real {
            measured_s: real_s,
            ops_per_s: ops as f64 / real_s.max(1e-9),
            ..Real::default()
        });
    }
    Ok(report)
}

/// Runs `f`, on a task of its own where the plan gives tasks stacks of a size: the caller's has room for reports.
fn on_task<H: Host, R: Send + 'static>(
    plan: &Plan,
    host: &Arc<H>,
    name: &str,
    f: impl FnOnce() -> R + Send + 'static,
) -> Result<R> {
    if plan.stack.size.is_none() {
        return Ok(f());
    }
    let value = Arc::new(Mutex::new(None));
    let sink = value.clone();
    let body = move || *sink.lock().unwrap_or_else(|e| e.into_inner()) = Some(f());
    let id = host.spawn(name, Box::new(body))?;
    let ended = host.join(id, Nanos(u64::MAX));
    let value = value.lock().unwrap_or_else(|e| e.into_inner()).take();
    value.filter(|_| ended).ok_or_else(|| {
        CliError::failed(
            format!("{}: {name} did not end", plan.arm.title()),
            "report this as a bug, with the scenario",
        )
    })
}

/// Starts every thread of every task; their tallies arrive in the shared list, one place per task.
#[allow(clippy::type_complexity)]
fn spawn_all<H: Host, F: Handle>(
    plan: &Plan,
    host: &Arc<H>,
    files: &[F],
    window: &Window,
    counts: &[Vec<Arc<OpCount>>],
) -> Result<(Arc<Mutex<Vec<Tally>>>, Vec<H::Id>)> {
    let tallies: Vec<Tally> = plan.tasks.iter().map(|_| Tally::new()).collect();
    let tallies = Arc::new(Mutex::new(tallies));
    let mut ids = Vec::new();
    let begin = window.start.since(Nanos(plan.settle_ns));
    for (index, task) in plan.tasks.iter().enumerate() {
        // The threads of a replay take their records from one place.
        let source = task.replay.as_ref().map(|r| {
            let source = Source::new(r.clone(), plan.files[task.file].len);
            Arc::new(Mutex::new(source))
        });
        for thread in 0..task.threads {
            let (host2, file, task2) = (host.clone(), files[task.file].clone(), task.clone());
            let (sink, mut window) = (tallies.clone(), window.clone());
            window.count = counts[index][thread as usize].clone();
            let source = source.clone();
            let seed = plan.seed.wrapping_add(index as u64 * 1_000_003);
            let body = move || {
                let tally = match &source {
                    Some(source) => replay::run(&*host2, &file, &task2, source, begin, &window),
                    None => run(&*host2, &file, &task2, seed, thread, &window),
                };
                sink.lock().unwrap_or_else(|e| e.into_inner())[index].add(&tally);
            };
            ids.push(host.spawn(&thread_name(task, thread), Box::new(body))?);
        }
    }
    Ok((tallies, ids))
}

fn thread_name(task: &PlanTask, thread: u32) -> String {
    match task.threads {
        1 => task.name.clone(),
        _ => format!("{}-{thread}", task.name),
    }
}

/// The files that the warm-up writes: those that tasks write, or else the first with blocks.
fn warm_files<'a, F: Handle>(plan: &Plan, files: &'a [F]) -> Vec<&'a F> {
    let written = |i: usize| plan.tasks.iter().any(|t| t.file == i && t.kind.writes());
    let some: Vec<&F> = files
        .iter()
        .enumerate()
        .filter(|(i, _)| written(*i))
        .map(|(_, f)| f)
        .collect();
    if !some.is_empty() {
        return some;
    }
    let first = plan.files.iter().position(|f| !f.sparse);
    first.map(|i| &files[i]).into_iter().collect()
}

/// What happened between two snapshots.
pub fn difference(before: &Counters, after: &Counters) -> Counters {
    after
        .iter()
        .map(|(name, v)| {
            (
                name.clone(),
                v.saturating_sub(before.get(name).copied().unwrap_or(0)),
            )
        })
        .collect()
}

/// Percentiles in microseconds.
fn latency(tally: &Tally) -> Latency {
    percentiles_of(&tally.latency)
}

/// The report's percentiles of a histogram of nanoseconds.
pub fn percentiles_of(h: &Histogram<u64>) -> Latency {
    let at = |q: f64| h.value_at_quantile(q) as f64 / 1e3;
    if h.is_empty() {
        return Latency::default();
    }
    Latency {
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        p9999: at(0.9999),
        max: h.max() as f64 / 1e3,
    }
}

/// Latency in microseconds at percentiles from 0 to 99.999, closer together towards the end; as far as there are enough
/// operations for one to lie beyond.
pub fn percentiles(latency: &Histogram<u64>) -> Vec<[f64; 2]> {
    let beyond = |x: f64| 100.0 - 100.0 * x;
    let coarse = (0..18).map(|i| f64::from(i) * 5.0);
    // Ten steps to each factor of ten: 90 to 99.999.
    let fine = (0..=40).map(|i| beyond(10f64.powf(-1.0 - f64::from(i) / 10.0)));
    let n = latency.len() as f64;
    coarse
        .chain(fine)
        .filter(|p| (1.0 - p / 100.0) * n >= 1.0 - 1e-9)
        .map(|p| [p, latency.value_at_quantile(p / 100.0) as f64 / 1e3])
        .collect()
}

/// The tasks' part of the report; the world fills in the rest.
fn summary(
    plan: &Plan,
    tallies: &[Tally],
    seconds: f64,
    sync_s: f64,
    vmstat: Counters,
) -> ArmReport {
    let seconds = seconds.max(1e-9);
    let tasks: Vec<TaskReport> = plan
        .tasks
        .iter()
        .zip(tallies)
        .map(|(task, tally)| TaskReport {
            name: task.name.clone(),
            ops: tally.ops,
            ops_per_s: tally.ops as f64 / seconds,
            bytes_per_s: tally.bytes as f64 / seconds,
            latency_us: latency(tally),
            percentiles: Some(percentiles(&tally.latency)),
            replay: (task.replay.as_ref()).map(|r| replay::report(r, tally.replay.as_deref())),
            blocks: blocks::report(task, tally.ops, tally.blocks.as_deref()),
        })
        .collect();
    let ops: u64 = tallies.iter().map(|t| t.ops).sum();
    let longest = tallies.iter().map(|t| t.longest_ns).max().unwrap_or(0);
    ArmReport {
        world: plan.arm.world.name().to_string(),
        preset: plan.arm.label.clone(),
        tasks,
        ops_per_s: ops as f64 / seconds,
        ops_per_s_with_sync: ops as f64 / (seconds + sync_s),
        stall_s: Stall {
            alloc: None,
            throttle: None,
            longest: Some(longest as f64 / 1e9),
        },
        refused: tallies.iter().map(|t| t.refused).sum(),
        vmstat,
        ..ArmReport::default()
    }
}

#[cfg(test)]
#[path = "measure_tests.rs"]
mod tests;

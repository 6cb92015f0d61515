//! The lab arm: the engine on coroutines, in virtual time, on a modelled disk. The same seed gives the same numbers.

use crate::child::status_bytes;
use crate::engine_arm::{self, failed};
use crate::error::{CliError, Result};
use crate::ftrace::Trace;
use crate::plan::{Plan, PlanFile};
use crate::report::ArmReport;
use crate::scenario::Kind;
use crate::stack::{self, Probed, StackReport, Used};
use highwater_engine::backing::journaled::{FormatOptions, MountOptions, Volume, VolumeError};
use highwater_engine::backing::{PlainBacking, RefusingBacking};
use highwater_engine::{Backing, Config, Engine, FileId, FileOptions, Nanos, World};
use highwater_lab::stack::{Calls, Entry};
use highwater_lab::{
    Cap, LabOptions, LabQueue, LabWorld, QueueOptions, RamDevice, RamOptions, Sampler,
};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Bytes of stack of each task where stacks are traced and no size is asked for.
const TRACED_STACK: usize = 64 << 10;

/// Runs the arm in this process.
///
/// # Errors
/// What the engine answers.
pub fn run(plan: &Plan) -> Result<ArmReport> {
    let begin = Instant::now();
    let options = LabOptions {
        steps_max: u64::MAX,
        // A day for the warm-up, the final sync, and whatever hangs.
        time_max: Nanos(plan.settle_ns)
            .plus(Nanos(plan.duration_ns))
            .plus(Nanos::from_secs(24 * 3_600)),
        cpus: plan.lab.cpus,
        ghost: plan.lab.ghost,
        costs: plan.costs.for_lab(),
        wake_affine: true,
        ..LabOptions::calm(plan.seed)
    };
    let options = LabOptions {
        stack_size: match plan.stack.size {
            Some(bytes) => bytes as usize,
            // Painted and read at each call: no larger than it need be.
            None if plan.stack.trace => TRACED_STACK,
            None => options.stack_size,
        },
        // It makes reports. What it does with the engine, it does on stacks of the others' size.
        main_stack_size: Some(options.stack_size),
        stack_trace: plan.stack.trace,
        stack_records: plan.stack.records.clone(),
        ..options
    };
    let world = LabWorld::new(options);
    let queue = LabQueue::new(&world, disk(plan)?);
    let devices: Vec<Arc<RamDevice>> = plan
        .files
        .iter()
        .enumerate()
        .map(|(i, f)| {
            // A trace's file is as full as the disk that the trace was taken from.
            let replayed = plan
                .tasks
                .iter()
                .any(|t| t.file == i && t.kind == Kind::Replay);
            RamDevice::new(
                &queue,
                RamOptions {
                    len: f.volume.unwrap_or(f.len),
                    ghost: plan.lab.ghost,
                    sparse: f.sparse && !replayed,
                    ..RamOptions::default()
                },
            )
        })
        .collect();
    let (inner, plan2) = (world.clone(), plan.clone());
    let calls = Arc::new(Calls::new(match plan.stack.trace {
        true => highwater_lab::stack::window,
        false => || None,
    }));
    let calls2 = calls.clone();
    let run = world.try_run(move || on_engine(&plan2, &inner, &devices, &calls2));
    let run = match run {
        Ok(run) => run,
        // What was asked for.
        Err(overflow) if plan.stack.trace => {
            return Ok(ArmReport {
                world: plan.arm.world.name().to_string(),
                preset: plan.arm.label.clone(),
                stacks: Some(StackReport::overflowed(&overflow)),
                ..ArmReport::default()
            });
        }
        Err(overflow) => return Err(stack::overflowed(plan, &overflow)),
    };
    let mut report = run.value?;
    if plan.stack.trace {
        let used = world.stacks().into_iter().map(|stack| Used {
            stack,
            at_least: false,
            looked: false,
        });
        report.stacks = Some(StackReport::new(used.collect(), &calls.report()));
    }
    if let Some(real) = &mut report.real {
        real.total_s = begin.elapsed().as_secs_f64();
        real.peak_rss_bytes = status_bytes("VmHWM");
    }
    if !run.leaked.is_empty() {
        return Err(CliError::failed(
            format!(
                "{}: tasks were left running: {}",
                plan.arm.title(),
                run.leaked.join(", ")
            ),
            format!(
                "report this as a bug, with the scenario and --seed {}",
                plan.seed
            ),
        ));
    }
    Ok(report)
}

/// The plan on an engine of the lab; called from a task of it.
fn on_engine(
    plan: &Plan,
    world: &Arc<LabWorld>,
    devices: &[Arc<RamDevice>],
    calls: &Arc<Calls>,
) -> Result<ArmReport> {
    let trace = match &plan.ftrace {
        Some(path) => Some(Trace::lab(path, world)?),
        None => None,
    };
    let config = Config {
        tracer: trace.as_ref().map(Trace::tracer),
        frame_size: plan.frame_size,
        policy: plan.arm.policy()?,
        order: plan.arm.order.order(),
        recursion_guard: plan.arm.recursion_guard,
        ..Config::new(plan.memory)
    };
    let (w, c) = (world.clone(), calls.clone());
    let engine = on_task(plan, world, "build", move || {
        c.measure(Entry::New, || Engine::new(w, config))
    });
    let engine = engine.map_err(|e| failed(plan, "build the cache", &e))?;
    let mut volumes = Vec::new();
    let mut files = Vec::new();
    for (i, device) in devices.iter().enumerate() {
        let backing: Arc<dyn Backing> = match plan.files[i].volume {
            Some(_) => {
                let volume = volume_on(plan, world, &engine, &plan.files[i], device)?;
                volumes.push(volume.clone());
                volume
            }
            None if plan.arm.refuse => {
                Arc::new(RefusingBacking::new(PlainBacking::new(device.clone())))
            }
            None => Arc::new(PlainBacking::new(device.clone())),
        };
        let id = FileId {
            dev: 1,
            ino: i as u64 + 1,
        };
        let (opening, c) = (engine.clone(), calls.clone());
        let file = on_task(plan, world, "open", move || {
            let options = FileOptions { write: true };
            c.measure(Entry::Open, || opening.open(id, backing, options))
        });
        files.push(file.map_err(|e| failed(plan, "open", &e))?);
    }
    let sampler = Sampler::start(world, &engine, plan.seed);
    let sampled = engine.clone();
    let stats = move || engine_arm::with_volumes(sampled.stats(), &volumes);
    let cpu_ns = |prefix: &str| world.cpu_ns(prefix);
    let report = if plan.stack.trace {
        let files: Vec<_> = files
            .iter()
            .map(|f| Probed::new(f.clone(), calls))
            .collect();
        engine_arm::run(plan, world, &files, stats, cpu_ns)
    } else {
        engine_arm::run(plan, world, &files, stats, cpu_ns)
    };
    let checks = sampler.stop(world);
    let mut report = report?;
    if let Some(real) = &mut report.real {
        real.checks = checks;
    }
    drop(files);
    let (closing, c) = (engine.clone(), calls.clone());
    let closed = on_task(plan, world, "close", move || {
        c.measure(Entry::Close, || closing.close())
    });
    closed.map_err(|e| failed(plan, "close", &e))?;
    if let Some(trace) = trace {
        say!("{}", trace.finish(&engine.stats())?);
    }
    Ok(report)
}

/// A new volume on a disk of the lab.
fn volume_on(
    plan: &Plan,
    world: &Arc<LabWorld>,
    engine: &Arc<Engine<LabWorld>>,
    file: &PlanFile,
    device: &Arc<RamDevice>,
) -> Result<Arc<Volume>> {
    let failed = |e: VolumeError| engine_arm::volume_failed(plan, &file.name, &e);
    let format = FormatOptions {
        logical_bytes: file.len,
        block_size: plan.frame_size as u32,
        log_bytes: 0,
        uuid: u128::from(plan.seed).to_le_bytes(),
    };
    let mount = MountOptions {
        lend_context: plan.arm.lend.context(),
        refuse_reclaim: plan.arm.refuse,
    };
    let (device, engine) = (device.clone(), engine.clone());
    let mounted = on_task(plan, world, "mount", move || {
        Volume::format(&*device, &format)?;
        Volume::mount(device, engine.page_source(), mount)
    });
    mounted.map_err(failed)
}

/// Runs `f`, on a task of its own where the plan gives tasks stacks of a size.
fn on_task<R: 'static>(
    plan: &Plan,
    world: &Arc<LabWorld>,
    name: &str,
    f: impl FnOnce() -> R + 'static,
) -> R {
    if plan.stack.size.is_none() {
        return f();
    }
    let value = Rc::new(RefCell::new(None));
    let sink = value.clone();
    let task = world.spawn_local(name, move || *sink.borrow_mut() = Some(f()));
    while !world.join(task, Nanos(u64::MAX)) {}
    let value = value.borrow_mut().take();
    value.unwrap_or_else(|| unreachable!("a task that ended has a value"))
}

/// The modelled disk, behind the plan's limit: the profile's, or else a quick flash disk.
fn disk(plan: &Plan) -> Result<QueueOptions> {
    let quick = QueueOptions::default();
    Ok(QueueOptions {
        model: match &plan.lab_device {
            Some(named) => named.profile()?.model,
            None => quick.model,
        },
        cap: plan.limit.map(|l| Cap {
            bytes_per_s: l.bytes_per_s,
            iops: l.iops,
        }),
        ..quick
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{WorldName, arms};
    use crate::scenario::find;

    #[test]
    fn a_limited_disk_is_as_slow_as_its_limit() {
        let scenario = find("slow-disk").unwrap();
        let arm = arms(
            &scenario,
            &[WorldName::Lab],
            &[highwater_engine::Preset::V3_2],
            false,
            false,
        )
        .remove(0);
        let plan = Plan::new(&scenario, arm, std::path::Path::new("."));
        let cap = disk(&plan).unwrap().cap.unwrap();
        assert_eq!((cap.iops, cap.bytes_per_s), (5_000, 50_000_000));
    }
}

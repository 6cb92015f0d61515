//! `highwater stack`: how deep the stacks of a scenario's tasks were used, and who called whom at the record; and the
//! table of the public entry points.
//!
//! Decides what is run: in the lab each arm twice, in a process of its own each time. The first run paints the stacks and
//! measures the depths; the second, which is the same to the byte, stops at each kind's record and keeps the chain. In
//! the OS world one run, with the chain of the deepest place that looks.
//!
//! **Invariants.** STACKS-1 in `report.rs`.
//! **Kernel.** `/sys/kernel/tracing/stack_trace`, `CONFIG_DEBUG_STACK_USAGE`.
//! **Tests.** Beside each file; `tests/stack.rs`.
#![allow(unsafe_code)]

mod args;
mod many;
mod probed;
mod report;
mod show;
mod table;

pub use args::{EXAMPLES, StackArgs, parse_stack};
pub use probed::Probed;
pub use report::{StackFrame, StackReport, TaskStack, Used};
pub use show::overflowed;

use crate::args::RunArgs;
use crate::error::{CliError, Result};
use crate::plan::{Plan, PlanStack, WorldName};
use crate::report::ArmReport;
use highwater_lab::stack::MEASURED;
use std::collections::BTreeMap;
#[cfg(target_os = "linux")]
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Runs of one arm, the first included: the heap's slow paths may make a record come not again.
const RUNS_MAX: usize = 4;

/// The command.
///
/// # Errors
/// As `run`; an overflow is one.
pub fn run(args: &StackArgs) -> Result<()> {
    if !MEASURED {
        return Err(CliError::failed(
            "stacks are measured on x86-64 Linux only: not measured",
            "run it there",
        ));
    }
    if args.table {
        return table::run(args);
    }
    if let Some(other) = WorldName::parse_list(&args.world)?
        .iter()
        .find(|w| !matches!(w, WorldName::Os | WorldName::Lab))
    {
        return Err(CliError::usage(
            format!(
                "{}: the stacks of its tasks are not the engine's: expected os or lab",
                other.name()
            ),
            "--world lab",
        ));
    }
    if let Some(seeds) = args.seeds {
        return many::run(args, seeds);
    }
    let run = run_args(args);
    let (report, page) =
        crate::run::run_scenario(&run, &run.scenario, args.common.html.as_deref())?;
    crate::outputs::publish(&show::report(&report), &report, args.common.json.as_deref())?;
    page.write(&report)?;
    report.verdict()?;
    show::verdict(&report)
}

/// What `run` would be told.
fn run_args(args: &StackArgs) -> RunArgs {
    RunArgs {
        scenario: args.scenario.clone(),
        world: args.world.clone(),
        preset: args.preset.clone(),
        memory: args.memory,
        duration: args.duration,
        ops: args.ops,
        stack: args.stack,
        stack_trace: true,
        common: args.common.clone(),
        ..RunArgs::default()
    }
}

/// Gives the child the same addresses each time, so that its heap takes its slow paths where it took them before.
pub fn fix_addresses(command: &mut Command) {
    #[cfg(target_os = "linux")]
    // SAFETY: `personality` is one system call, which may be made between fork and exec; refused, the addresses differ.
    unsafe {
        command.pre_exec(|| {
            libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
            Ok(())
        });
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

/// Runs an arm by `run`, and again until each kind's record has its chain, if `plan` traces the lab's stacks.
///
/// # Errors
/// Those of `run`.
pub fn with_chains(
    plan: Plan,
    mut run: impl FnMut(Plan) -> Result<ArmReport>,
) -> Result<ArmReport> {
    let wanted = plan.stack.trace && plan.arm.world == WorldName::Lab;
    let mut report = run(plan.clone())?;
    for _ in 1..RUNS_MAX {
        let Some(stacks) = report.stacks.as_ref().filter(|_| wanted) else {
            break;
        };
        // Any thread of the kind may be the one that comes as deep.
        let open = stacks.tasks.iter().filter(|t| t.chain.is_empty());
        let records: BTreeMap<u32, u64> = open
            .flat_map(|t| t.numbers.iter().map(|n| (*n, t.deepest)))
            .collect();
        if records.is_empty() {
            break;
        }
        let stack = PlanStack {
            records,
            ..plan.stack.clone()
        };
        let again = run(Plan {
            stack,
            ..plan.clone()
        })?;
        if let (Some(stacks), Some(again)) = (report.stacks.as_mut(), again.stacks) {
            stacks.take_chains(again);
        }
    }
    Ok(report)
}

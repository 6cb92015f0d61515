//! What the command line changes in a scenario, and what makes no sense together.

use crate::args::{Common, RunArgs};
use crate::error::{CliError, Result};
use crate::plan::WorldName;
use crate::scenario::{self, Scenario};
use crate::units::{Bytes, Span, show_bytes};
use crate::{costs, device};
use std::path::Path;
use std::time::Duration;

/// No budget is smaller: the engine's metadata and watermarks need some frames.
pub const MEMORY_MIN: u64 = 1 << 20;
/// No budget is larger.
pub const MEMORY_MAX: u64 = 1 << 40;

/// A scenario with the command line's memory and duration.
pub fn adjusted(name: &str, memory: Option<u64>, duration: Option<Duration>) -> Result<Scenario> {
    let mut scenario = scenario::find(name)?;
    if let Some(memory) = memory {
        scenario.memory = Bytes(memory);
    }
    if let Some(duration) = duration {
        scenario.duration = Span(duration);
    }
    sensible(&scenario)?;
    Ok(scenario)
}

/// Refuses a budget or a duration that makes no sense.
pub fn sensible(scenario: &Scenario) -> Result<()> {
    let memory = scenario.memory.0;
    if !(MEMORY_MIN..=MEMORY_MAX).contains(&memory) {
        return Err(CliError::usage(
            format!(
                "a budget of {} makes no sense: expected {} to {}",
                show_bytes(memory),
                show_bytes(MEMORY_MIN),
                show_bytes(MEMORY_MAX)
            ),
            "--memory 64MiB",
        ));
    }
    if scenario.duration.0.is_zero() {
        return Err(CliError::usage(
            "a duration of nothing measures nothing",
            "--duration 5s",
        ));
    }
    Ok(())
}

/// The command line's ends, warm-up and virtual machine.
pub fn adjust_lab(args: &RunArgs, worlds: &[WorldName], scenario: &mut Scenario) -> Result<()> {
    if args.duration.is_some() {
        scenario.ops = None;
    }
    scenario.ops = args.ops.or(scenario.ops);
    if let Some(times) = args.warm_up {
        if !(0.0..=100.0).contains(&times) {
            return Err(CliError::usage(
                format!("a warm-up of {times} x memory makes no sense: expected 0 to 100"),
                "--warm-up 2",
            ));
        }
        scenario.warm_up = times;
    }
    let lab_only = [
        (args.ghost, "--ghost"),
        (args.cpus.is_some(), "--cpus"),
        (args.stack.is_some(), "--stack"),
        (args.real_time, "--real-time"),
    ];
    let given: Vec<&str> = lab_only.iter().filter(|o| o.0).map(|o| o.1).collect();
    let theirs = "other worlds have the memory, the CPUs, the stacks and the clock of this machine";
    if let Some(name) = given.first() {
        if !worlds.contains(&WorldName::Lab) {
            return Err(CliError::usage(
                format!("{name} is for the lab, which --world does not name: {theirs}"),
                format!("--world lab {name}"),
            ));
        }
        if worlds.len() > 1 {
            let (names, is) = (
                given.join(", "),
                if given.len() == 1 { "is" } else { "are" },
            );
            say!("note: {names} {is} for the lab's arms alone: {theirs}");
        }
    }
    scenario.lab.ghost |= args.ghost;
    if let Some(cpus) = args.cpus {
        scenario.lab.cpus = cpus;
    }
    Ok(())
}

/// Refuses worlds that have no volumes.
pub fn volumes_fit(scenario: &Scenario, worlds: &[WorldName], own_arms: bool) -> Result<()> {
    let Some(file) = scenario.journaled() else {
        return Ok(());
    };
    if worlds.contains(&WorldName::Linux) {
        return Err(CliError::usage(
            format!(
                "files.{file} has backing = \"journaled\", which is this library's: Linux's page cache has no such volume"
            ),
            "--world os,lab",
        ));
    }
    if scenario.lab.ghost {
        return Err(CliError::usage(
            format!(
                "files.{file} is on a volume, which keeps its maps in pages, and --ghost has pages without bytes"
            ),
            "--world lab without --ghost, and a --memory that fits into this machine",
        ));
    }
    if worlds.contains(&WorldName::Os) && own_arms {
        for arm in scenario.arms.iter().filter(|a| !a.recursion_guard) {
            say!(
                "note: the arm {:?} is for the lab alone: recursion_guard = false has no bound, and threads have stacks",
                arm.name
            );
        }
    }
    Ok(())
}

/// Puts `--device` in the scenario's place for it.
pub fn set_device(scenario: &mut Scenario, common: &Common, worlds: &[WorldName]) -> Result<()> {
    let Some(name) = &common.device else {
        return Ok(());
    };
    if !worlds.contains(&WorldName::Lab) {
        return Err(CliError::usage(
            "--device is the lab's disk, and --world does not name the lab",
            format!("--world lab --device {name}; or --dir for the files of the other worlds"),
        ));
    }
    scenario.lab_device = Some(device::find(name)?);
    Ok(())
}

/// The table that `--costs` names.
pub fn costs_of(path: Option<&Path>, worlds: &[WorldName]) -> Result<Option<costs::CostTable>> {
    let Some(path) = path else {
        return Ok(None);
    };
    if !worlds.contains(&WorldName::Lab) {
        return Err(CliError::usage(
            "--costs is what work costs in the lab, and --world does not name the lab",
            format!("--world lab --costs {}", path.display()),
        ));
    }
    costs::CostTable::find(path).map(Some)
}

/// The worlds that can run the scenario: Linux lends a process no block of page frames.
pub fn worlds_with_blocks(
    mut worlds: Vec<WorldName>,
    scenario: &Scenario,
) -> Result<Vec<WorldName>> {
    let Some(task) = scenario
        .tasks
        .iter()
        .find(|t| t.kind == scenario::Kind::AllocBlock)
    else {
        return Ok(worlds);
    };
    let asked = worlds.len();
    worlds.retain(|w| *w != WorldName::Linux);
    if worlds.is_empty() {
        return Err(CliError::usage(
            format!(
                "{}: task {:?} asks for blocks of page frames, which Linux lends to no process",
                scenario.name, task.name
            ),
            format!("highwater run {} --world os,lab", scenario.name),
        ));
    }
    if worlds.len() < asked {
        say!(
            "note: no row of Linux: it lends a process no block of page frames, and task {:?} asks for them",
            task.name
        );
    }
    Ok(worlds)
}

/// The orders of `--order`, or the scenario's.
pub fn orders(
    args: &RunArgs,
    worlds: &[WorldName],
    scenario: &Scenario,
) -> Result<Vec<scenario::OrderName>> {
    let Some(list) = &args.order else {
        return Ok(vec![scenario.order]);
    };
    let orders = scenario::OrderName::parse_list(list)?;
    if worlds.iter().all(|w| *w == WorldName::Linux) {
        return Err(CliError::usage(
            "--order is the engine's, and Linux has its own",
            format!("--world os,linux --order {list}"),
        ));
    }
    Ok(orders)
}

/// How long the disk is measured between runs.
pub fn probe_time(args: &RunArgs, worlds: &[WorldName]) -> Result<Option<Duration>> {
    let both = [WorldName::Os, WorldName::Lab];
    let Some(time) = args.probe else {
        return Ok(None);
    };
    if let Some(missing) = both.iter().find(|w| !worlds.contains(w)) {
        return Err(CliError::usage(
            format!(
                "--probe measures the disk of the world os for the lab, and {} is not run",
                missing.name()
            ),
            "--world os,lab; `highwater probe` writes a profile to keep",
        ));
    }
    if args.common.device.is_some() {
        return Err(CliError::usage(
            "--probe and --device both say what the lab's disk is",
            "one of the two",
        ));
    }
    Ok(Some(time))
}

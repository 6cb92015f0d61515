//! What is swept: a scenario, built in or of a file, or a trace of block requests with a scenario around it.

use super::args::SweepArgs;
use crate::error::{CliError, Result};
use crate::plan::WorldName;
use crate::replay;
use crate::scenario::{self, BUILTIN, Kind, Scenario};
use crate::units::{Bytes, Span};
use std::path::Path;
use std::time::Duration;

/// How long each cell of a scenario without a trace is measured.
const MEASURED: Duration = Duration::from_millis(500);
/// The budget of a trace where it is not what changes.
const MEMORY: u64 = 64 << 20;

/// It, as the command line wants it.
pub struct Found {
    /// The work; where it has traces, they have been read.
    pub scenario: Scenario,
    /// Bytes of the pages of its traces, if it has any.
    pub footprint: Option<u64>,
}

/// Finds it; `memory` is the one size that is asked for, if one is.
///
/// # Errors
/// What is neither a scenario nor a trace; what the trace's or the scenario's own errors are; a device without the lab.
pub fn find(args: &SweepArgs, world: WorldName, memory: Option<u64>) -> Result<Found> {
    let mut scenario = match is_trace(&args.scenario) {
        true => of_trace(args, memory)?,
        false => of_scenario(args, memory)?,
    };
    if let Some(name) = &args.device {
        if world != WorldName::Lab {
            return Err(CliError::usage(
                "--device is the lab's disk, and --world is not the lab",
                format!("--world lab --device {name}; or --dir for real files"),
            ));
        }
        scenario.lab_device = Some(crate::device::find(name)?);
    }
    if let Some(cpus) = args.cpus {
        if world != WorldName::Lab {
            return Err(CliError::usage(
                "--cpus is the lab's machine, and --world is not the lab",
                format!("--world lab --cpus {cpus}"),
            ));
        }
        scenario.lab.cpus = cpus;
    }
    // Nobody looks at the bytes, and pages without them are the same run (GHOST); a volume looks at those of its maps.
    scenario.lab.ghost = scenario.journaled().is_none();
    if args.pressure.is_some() {
        // What cannot be scaled is refused by name, not for what is wrong in its trace.
        super::pressure::of(&scenario)?;
    }
    for note in replay::resolve(&mut scenario, &args.scenario, args.select.strict)? {
        say!("note: {note}");
    }
    let only_traces = (scenario.tasks.iter()).all(|t| t.replay.is_some() && t.repeat != Some(true));
    if only_traces && args.duration.is_none() {
        replay::whole_traces(&mut scenario);
    }
    let footprints: Vec<u64> = (scenario.tasks.iter())
        .filter_map(|t| t.replay.as_ref().map(|r| r.footprint))
        .collect();
    Ok(Found {
        footprint: (!footprints.is_empty()).then(|| footprints.iter().sum()),
        scenario,
    })
}

/// A file that is no TOML, and is not named so.
pub fn is_trace(name: &str) -> bool {
    let builtin = BUILTIN.iter().any(|(n, _)| *n == name);
    if builtin || name.ends_with(".toml") || !Path::new(name).is_file() {
        return false;
    }
    // A trace may be long, and is not read for this: a scenario is short.
    const SCENARIO_MAX: u64 = 1 << 20;
    let short = std::fs::metadata(name).is_ok_and(|m| m.len() < SCENARIO_MAX);
    let text = short.then(|| std::fs::read_to_string(name).unwrap_or_default());
    text.is_none_or(|t| t.trim().is_empty() || t.parse::<toml::Table>().is_err())
}

fn of_trace(args: &SweepArgs, memory: Option<u64>) -> Result<Scenario> {
    let trace = Path::new(&args.scenario);
    let memory = memory.unwrap_or(MEMORY);
    replay::scenario_of(
        trace,
        &args.select,
        &args.play,
        memory,
        args.duration,
        false,
    )
}

/// The scenario with the command line's memory and duration.
fn of_scenario(args: &SweepArgs, memory: Option<u64>) -> Result<Scenario> {
    let mut scenario = scenario::find(&args.scenario)?;
    if let Some(memory) = memory {
        scenario.memory = Bytes(memory);
    }
    let replays = scenario.tasks.iter().any(|t| t.kind == Kind::Replay);
    match args.duration {
        Some(duration) => scenario.duration = Span(duration),
        // So short a time would be the beginning of a trace.
        None if replays => {}
        None => scenario.duration = Span(MEASURED),
    }
    crate::adjust::sensible(&scenario)?;
    Ok(scenario)
}

//! `highwater sweep`: one scenario under rising memory pressure, a line for each arm, and where the lines cross.
//!
//! The mail's argument is of two sentences that begin with "when memory pressure is low" and "on heavy pressure": which of
//! two policies is better depends on where one stands. A sweep shows it: the same tasks, the same budget, more and more
//! data (`pressure.rs` has the definition), and for each arm the p99.9 of one task, refaults for each operation, and
//! allocations that were refused. `crossings.rs` decides what is a crossing and what is noise.
//!
//! **Context.** The cells go through `cells.rs`: in the lab as many at one time as there are CPUs.
//! **Tests.** Beside each file; `tests/sweep.rs` on whole runs.

mod args;
mod crossings;
mod plot;
pub mod pressure;
mod result;

pub use args::{EXAMPLES, SweepArgs};

use crate::cells::{self, Cell};
use crate::error::{CliError, Result};
use crate::parent::Options;
use crate::plan::{self, Arm, WorldName};
use crate::report::ArmReport;
use crate::scenario::Scenario;
use crate::units::{Bytes, Span};
use crate::{cleanup, replay};
use result::Sweep;

/// Runs it.
///
/// # Errors
/// Arguments that make no sense; the first cell that fails; files that cannot be written.
pub fn run(args: &SweepArgs) -> Result<()> {
    let pressures = pressure::parse_list(&args.pressure)?;
    let worlds = WorldName::parse_list(&args.world)?;
    let [world @ (WorldName::Os | WorldName::Lab)] = worlds[..] else {
        return Err(CliError::usage(
            "a sweep sets the engine's policies: it runs in one of os and lab",
            "--world lab",
        ));
    };
    let mut scenario = scenario(args)?;
    if let Some(name) = &args.device {
        if world != WorldName::Lab {
            return Err(CliError::usage(
                "--device is the lab's disk, and --world is not the lab",
                format!("--world lab --device {name}; or --dir for real files"),
            ));
        }
        scenario.lab_device = Some(crate::device::find(name)?);
    }
    // Nobody looks at the bytes, and pages without them are the same run (GHOST).
    scenario.lab.ghost = true;
    let task = pressure::task(&scenario, args.task.as_deref())?;
    let scaled = pressures
        .iter()
        .map(|p| pressure::at(&scenario, *p))
        .collect::<Result<Vec<Scenario>>>()?;
    let arms = arms(args, &scenario, world)?;
    // Before minutes of work, not after.
    for path in [&args.html, &args.svg].into_iter().flatten() {
        plot::try_create(path)?;
    }
    cleanup::watch_signals();
    let seeds: Vec<u64> = (0..u64::from(args.seeds))
        .map(|n| args.seed.wrapping_add(n))
        .collect();
    let cells = grid(&arms, &pressures, &scaled, &seeds);
    eprintln!(
        "sweep {}: {} arms x {} pressures x {} seeds in the world {}",
        scenario.name,
        arms.len(),
        pressures.len(),
        seeds.len(),
        world.name()
    );
    let options = Options {
        dir: args.dir.clone(),
        ..Options::default()
    };
    let reports = cells::run(&cells, &options)?;
    let sweep = Sweep::new(
        &scenario,
        world,
        &task,
        &pressures,
        &seeds,
        &gather(&arms, &pressures, reports),
    );
    publish(args, &sweep)
}

/// The scenario with the command line's memory and duration.
fn scenario(args: &SweepArgs) -> Result<Scenario> {
    let mut scenario = crate::scenario::find(&args.scenario)?;
    if let Some(memory) = args.memory {
        scenario.memory = Bytes(memory);
    }
    scenario.duration = Span(args.duration);
    crate::sensible(&scenario)?;
    // A trace is refused by name below, not here for a file that is missing.
    if scenario
        .tasks
        .iter()
        .all(|t| t.kind != crate::scenario::Kind::Replay)
    {
        replay::resolve(&mut scenario, &args.scenario, false)?;
    }
    Ok(scenario)
}

/// The lines: presets, and the scenario's own arms when no preset is asked for.
fn arms(args: &SweepArgs, scenario: &Scenario, world: WorldName) -> Result<Vec<Arm>> {
    let presets = match &args.preset {
        Some(list) => plan::presets(list.split(',').map(str::trim))?,
        None => plan::presets(scenario.presets.iter().map(|p| p.get_ref().as_str()))?,
    };
    Ok(plan::arms(
        scenario,
        &[world],
        &presets,
        args.preset.is_none(),
        false,
    ))
}

/// All cells: arm by arm, in each the pressures, at each the seeds.
fn grid(arms: &[Arm], pressures: &[f64], scaled: &[Scenario], seeds: &[u64]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for arm in arms {
        for (pressure, scenario) in pressures.iter().zip(scaled) {
            for seed in seeds {
                cells.push(Cell {
                    title: format!("{} at {pressure} x", arm.title()),
                    scenario: scenario.clone(),
                    arm: arm.clone(),
                    seed: *seed,
                    stack: false,
                });
            }
        }
    }
    cells
}

/// The reports of each arm, in each the pressures, at each the seeds.
fn gather(
    arms: &[Arm],
    pressures: &[f64],
    reports: Vec<ArmReport>,
) -> Vec<(String, Vec<Vec<ArmReport>>)> {
    let seeds = reports.len() / (arms.len() * pressures.len()).max(1);
    let mut reports = reports.into_iter();
    let of_arm = |arm: &Arm| {
        let points = pressures
            .iter()
            .map(|_| reports.by_ref().take(seeds).collect());
        (arm.label.clone(), points.collect())
    };
    arms.iter().map(of_arm).collect()
}

fn publish(args: &SweepArgs, sweep: &Sweep) -> Result<()> {
    if let Some(path) = &args.html {
        plot::write(path, &plot::page(sweep))?;
    }
    if let Some(path) = &args.svg {
        plot::write(path, &plot::image(sweep))?;
    }
    crate::write_out_to(&sweep.text(), sweep, args.json.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_back_to_their_cell() {
        let scenario = crate::scenario::find("rfc").unwrap();
        let presets = plan::presets(["3.2", "6.16"]).unwrap();
        let arms = plan::arms(&scenario, &[WorldName::Lab], &presets, false, false);
        let (pressures, seeds) = ([1.0, 2.0, 4.0], [7, 8]);
        let scaled = vec![scenario.clone(); 3];
        let cells = grid(&arms, &pressures, &scaled, &seeds);
        assert_eq!(cells.len(), 12);
        let reports = cells.iter().map(|c| ArmReport {
            preset: c.title.clone(),
            refused: c.seed,
            ..ArmReport::default()
        });
        let gathered = gather(&arms, &pressures, reports.collect());
        assert_eq!(gathered[1].0, "6.16");
        let cell = &gathered[1].1[2];
        assert_eq!(
            (cell[0].preset.as_str(), cell[0].refused),
            ("lab 6.16 at 4 x", 7)
        );
        assert_eq!(cell[1].refused, 8);
    }
}

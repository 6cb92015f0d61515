//! `highwater sweep`: one scenario, or one trace, with one thing changed from point to point: memory, the dirty limit, or the
//! pressure on memory. A line for each arm.
//!
//! *Over memory and dirty limits* it is a decision before something is deployed: how much is enough (`enough.rs`)?
//! *Under pressure* it is the mail's argument, two sentences that begin with "when memory pressure is low" and "on heavy
//! pressure": which of two policies is better depends on where one stands. `axis.rs` says what changes and what stays,
//! `figure.rs` what is compared, and `crossings.rs` decides what is a difference and what is noise.
//!
//! **Context.** The cells go through `cells.rs`: in the lab as many at one time as there are CPUs.
//! **Tests.** Beside each file; `tests/sweep.rs` on whole runs.

mod again;
mod args;
mod axis;
mod crossings;
mod enough;
mod figure;
mod lists;
mod plot;
pub mod pressure;
mod result;
mod says;
mod subject;

pub use args::{EXAMPLES, SweepArgs};

use crate::cells::{self, Cell};
use crate::command_line::CommandLine;
use crate::error::{CliError, Result};
use crate::parent::Options;
use crate::plan::{self, Arm, WorldName};
use crate::report::ArmReport;
use crate::scenario::{OrderName, Scenario};
use crate::units::Size;
use crate::{cleanup, disk, outputs};
use axis::Axis;
use result::{Subject, Sweep};

/// Runs it.
///
/// # Errors
/// Arguments that make no sense; the first cell that fails; files that cannot be written.
pub fn run(args: &SweepArgs) -> Result<()> {
    let worlds = WorldName::parse_list(&args.world)?;
    let [world @ (WorldName::Os | WorldName::Lab)] = worlds[..] else {
        return Err(CliError::usage(
            "a sweep sets the engine's policies: it runs in one of os and lab",
            "--world lab",
        ));
    };
    // What the command line says of the axis, before a long trace is read.
    let (memory, dirty_limit) = lists::fixed(args)?;
    let costs = crate::adjust::costs_of(args.costs.as_deref(), &worlds)?;
    let found = subject::find(args, world, memory)?;
    let (scenario, footprint) = (found.scenario, found.footprint);
    let axis = Axis::of(args, footprint)?;
    let task = pressure::task(&scenario, args.task.as_deref())?;
    let scenarios = (axis.points.iter())
        .map(|p| axis.scenario_at(&scenario, *p))
        .collect::<Result<Vec<Scenario>>>()?;
    let arms = arms(args, &scenario, world, dirty_limit)?;
    // Before minutes of work, not after.
    if let Some(path) = &args.html {
        outputs::try_write("--html", path)?;
    }
    cleanup::watch_signals();
    let default = if footprint.is_some() { 1 } else { 3 };
    let seeds: Vec<u64> = (0..u64::from(args.seeds.unwrap_or(default)))
        .map(|n| args.seed.wrapping_add(n))
        .collect();
    let cells = grid(&arms, &axis, &scenarios, &seeds)?;
    say!(
        "sweep {} over {}: {} arms x {} points x {} seeds in the world {}",
        scenario.name,
        axis.head(),
        arms.len(),
        axis.points.len(),
        seeds.len(),
        world.name()
    );
    let options = Options {
        dir: args.dir.clone(),
        costs,
        ..Options::default()
    };
    let reports = cells::run(&cells, &options)?;
    let said = CommandLine::here();
    let subject = Subject {
        on_real_files: again::on_real_files(&said),
        again: again::again(&said, args, &scenario),
        grows: (scenario.files.values()).any(|f| matches!(f.size, Size::Memory(_))),
        scenario: scenario.name.clone(),
        world,
        memory: scenario.memory.0,
        frame: scenario.frame_size.0,
        measured_us: scenario.duration.0.as_secs_f64() * 1e6,
        footprint,
        task,
        disk: disk::words(&scenario, &[world], false),
    };
    let gathered = gather(&arms, axis.points.len(), reports);
    publish(args, &Sweep::new(&subject, &axis, &seeds, &gathered))
}

/// The lines: presets in each order, and the scenario's own arms when no preset is asked for.
fn arms(
    args: &SweepArgs,
    scenario: &Scenario,
    world: WorldName,
    dirty_limit: Option<u8>,
) -> Result<Vec<Arm>> {
    let presets = match &args.preset {
        Some(list) => plan::presets(list.split(',').map(str::trim))?,
        None => plan::presets(scenario.presets.iter().map(|p| p.get_ref().as_str()))?,
    };
    let orders = match &args.order {
        Some(list) => OrderName::parse_list(list)?,
        None => vec![scenario.order],
    };
    let own = args.preset.is_none();
    let arms = plan::arms_of_orders(scenario, &[world], &presets, &orders, own, false);
    let arms = match dirty_limit {
        Some(percent) => (arms.into_iter())
            .map(|arm| arm.with_dirty_limit(percent))
            .collect::<Result<_>>()?,
        None => arms,
    };
    plan::check(&arms)?;
    Ok(arms)
}

/// All cells: arm by arm, in each the points, at each the seeds.
fn grid(arms: &[Arm], axis: &Axis, scenarios: &[Scenario], seeds: &[u64]) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for arm in arms {
        for (point, scenario) in axis.points.iter().zip(scenarios) {
            for seed in seeds {
                cells.push(Cell {
                    title: format!("{} at {}", arm.title(), axis.show(*point)),
                    scenario: scenario.clone(),
                    arm: axis.arm_at(arm, *point)?,
                    seed: *seed,
                    stack: false,
                });
            }
        }
    }
    Ok(cells)
}

/// The reports of each arm, in each the points, at each the seeds.
fn gather(
    arms: &[Arm],
    points: usize,
    reports: Vec<ArmReport>,
) -> Vec<(String, Vec<Vec<ArmReport>>)> {
    let seeds = reports.len() / (arms.len() * points).max(1);
    let mut reports = reports.into_iter();
    let of_arm = |arm: &Arm| {
        let points = (0..points).map(|_| reports.by_ref().take(seeds).collect());
        (arm.label.clone(), points.collect())
    };
    arms.iter().map(of_arm).collect()
}

fn publish(args: &SweepArgs, sweep: &Sweep) -> Result<()> {
    outputs::publish(&sweep.text(), sweep, args.json.as_deref())?;
    if let Some(path) = &args.html {
        plot::write("--html", path, &plot::page(sweep))?;
    }
    if let Some(path) = &args.svg {
        plot::write("--svg", path, &plot::image(sweep))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_back_to_their_cell() {
        let scenario = crate::scenario::find("rfc").unwrap();
        let presets = plan::presets(["3.2", "6.16"]).unwrap();
        let arms = plan::arms(&scenario, &[WorldName::Lab], &presets, false, false);
        let axis = Axis {
            kind: axis::AxisKind::Pressure,
            points: vec![1.0, 2.0, 4.0],
        };
        let scaled = vec![scenario.clone(); 3];
        let cells = grid(&arms, &axis, &scaled, &[7, 8]).unwrap();
        assert_eq!(cells.len(), 12);
        let reports = cells.iter().map(|c| ArmReport {
            preset: c.title.clone(),
            refused: c.seed,
            ..ArmReport::default()
        });
        let gathered = gather(&arms, 3, reports.collect());
        assert_eq!(gathered[1].0, "6.16");
        let cell = &gathered[1].1[2];
        assert_eq!(
            (cell[0].preset.as_str(), cell[0].refused),
            ("lab 6.16 at 4 x", 7)
        );
        assert_eq!(cell[1].refused, 8);
    }
}

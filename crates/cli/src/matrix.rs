//! `highwater matrix`: the `rfc` work for each who-writes x throttle.

use crate::args::MatrixArgs;
use crate::columns;
use crate::command_line::CommandLine;
use crate::disk;
use crate::error::{CliError, Result};
use crate::html;
use crate::parent::{self, Options};
use crate::plan::{Arm, WorldName};
use crate::report::{ArmReport, Report};
use crate::scenario::{PolicyPatch, ThrottleName, WritebackFromName};
use crate::sentences::Again;
use crate::table::{Group, Table};
use crate::units::{show_count, show_rate, show_us};
use highwater_engine::Preset;
use std::time::Duration;

/// The knob's value as a scenario file has it.
fn knob_name(value: impl serde::Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|v| v.as_str().map(str::to_string))
        .unwrap_or_default()
}

/// Every cell as an arm.
fn arms(world: WorldName) -> Vec<Arm> {
    let mut arms = Vec::new();
    for &who in WritebackFromName::ALL {
        for &throttle in ThrottleName::ALL {
            arms.push(Arm {
                world,
                label: label(who, throttle),
                preset: Preset::Highwater.name().to_string(),
                patch: PolicyPatch {
                    writeback_from: Some(who),
                    throttle: Some(throttle),
                    ..PolicyPatch::default()
                },
                order: Default::default(),
                refuse: false,
                lend: Default::default(),
                recursion_guard: true,
                depth: 0,
            });
        }
    }
    arms
}

fn label(who: WritebackFromName, throttle: ThrottleName) -> String {
    format!("{} x {}", knob_name(who), knob_name(throttle))
}

/// Runs it.
///
/// # Errors
/// The first arm that fails.
pub fn run(args: &MatrixArgs) -> Result<()> {
    let mut scenario = crate::adjust::adjusted("rfc", args.memory, Some(args.duration))?;
    let worlds = WorldName::parse_list(&args.world)?;
    let [world @ (WorldName::Os | WorldName::Lab)] = worlds[..] else {
        return Err(CliError::usage(
            "the matrix sets the engine's knobs: it runs in one of os and lab",
            "--world os",
        ));
    };
    crate::adjust::set_device(&mut scenario, &args.common, &worlds)?;
    crate::cleanup::watch_signals();
    say!("matrix: the rfc work, who writes x how writers are slowed");
    let options = Options {
        dir: args.common.dir.clone(),
        seed: args.common.seed,
        real_time: false,
        costs: crate::adjust::costs_of(args.common.costs.as_deref(), &worlds)?,
        repeat: 1,
        probe: None,
        ftrace: None,
        quiet: false,
        ..Options::default()
    };
    let disk = disk::words(&scenario, &[world], false);
    let page = html::Page::new(
        args.common.html.as_deref(),
        &scenario,
        args.common.seed,
        &[world],
        &disk,
    )?;
    let mut report = parent::run(scenario, &arms(world), &options)?;
    report.disk = Some(disk);
    let text = format!(
        "{}\n{}",
        grid(&report).render(crate::console::width()),
        columns::table(&report).render(crate::console::width())
    );
    let again = Again {
        said: as_run(CommandLine::here(), args.duration),
        on_linux: true,
    };
    crate::run::publish_as(
        &report,
        &crate::run::for_json(&report, &args.common),
        &args.common,
        &text,
        &again,
    )
    .and(page.write(&report))
    .and(report.verdict())
}

/// `run rfc`, told what the matrix was told.
fn as_run(said: CommandLine, duration: Duration) -> CommandLine {
    let run = said.command("run", Some("rfc"));
    match run.has("duration") {
        true => run,
        // `run` has another time when nothing is said.
        false => run.with("duration", format!("{}ms", duration.as_millis())),
    }
}

/// Who writes down, throttle across: operations/s, the longest wait, pages written by threads in need.
fn grid(report: &Report) -> Table {
    let groups = ThrottleName::ALL.iter().map(|t| Group {
        title: format!("throttle {}", knob_name(t)),
        columns: ["ops/s", "longest wait", "own writes"]
            .map(String::from)
            .to_vec(),
    });
    let mut table = Table {
        corner: "who writes".into(),
        groups: groups.collect(),
        ..Table::default()
    };
    for &who in WritebackFromName::ALL {
        table.labels.push(knob_name(who));
        let cells = ThrottleName::ALL.iter().flat_map(|&throttle| {
            let wanted = label(who, throttle);
            cell(report.arms.iter().find(|a| a.preset == wanted))
        });
        table.cells.push(cells.collect());
    }
    table
}

fn cell(arm: Option<&ArmReport>) -> [String; 3] {
    let Some(arm) = arm else {
        return ["-", "-", "-"].map(String::from);
    };
    let own = arm.written_pages.direct.unwrap_or(0) + arm.written_pages.writer.unwrap_or(0);
    [
        show_rate(arm.ops_per_s),
        arm.stall_s.longest.map_or("-".into(), |s| show_us(s * 1e6)),
        show_count(own),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_that_follows_has_been_told_what_the_matrix_was_told() {
        let said = crate::command_line::tests::of(&["matrix", "--memory", "8MiB", "--seed", "3"]);
        let run = as_run(said, Duration::from_secs(3)).to_string();
        assert_eq!(
            run,
            "highwater run rfc --memory 8MiB --seed 3 --duration 3000ms"
        );
    }

    #[test]
    fn each_pair_is_an_arm_and_a_cell() {
        let arms = arms(WorldName::Os);
        assert_eq!(arms.len(), 12);
        let last = arms.last().unwrap();
        assert_eq!(last.label, "flusher x io-less");
        assert_eq!(last.policy().unwrap(), Preset::Highwater.policy());
        let report = Report {
            scenario: "rfc".into(),
            memory_bytes: 1,
            disk: None,
            arms: vec![ArmReport {
                preset: "kswapd-late x off".into(),
                ops_per_s: 4242.0,
                ..ArmReport::default()
            }],
            ..Report::default()
        };
        let text = grid(&report).render(160);
        let row = text.lines().find(|l| l.starts_with("kswapd-late")).unwrap();
        assert!(row.contains("4,242"), "{text}");
        assert!(
            text.lines()
                .any(|l| l.starts_with("flusher") && !l.contains("4,242"))
        );
    }
}

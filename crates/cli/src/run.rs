//! `highwater run`: the arms of one scenario, and what is said of them.

use crate::adjust::{
    adjust_lab, adjusted, costs_of, orders, probe_time, set_device, volumes_fit, worlds_with_blocks,
};
use crate::args::{Common, RunArgs};
use crate::command_line::CommandLine;
use crate::console::width;
use crate::error::{CliError, Result};
use crate::plan::WorldName;
use crate::report::Report;
use crate::scenario::{self, Scenario};
use crate::sentences::{self, Again};
use crate::{
    all, cleanup, columns, disk, ftrace, html, outputs, parent, plan, predict, repeats, replay,
    report,
};
use std::path::Path;

/// Runs it.
///
/// # Errors
/// What makes no sense, before anything runs; the first arm that fails, after what had ended before it is printed.
pub fn run(args: &RunArgs) -> Result<()> {
    if args.scenario == all::NAME {
        return all::run(args);
    }
    let (report, page) = run_scenario(args, &args.scenario, args.common.html.as_deref())?;
    let scenario = scenario::find(&args.scenario)?;
    let ghost = args.ghost || scenario.lab.ghost;
    let again = Again {
        said: CommandLine::here(),
        on_linux: !ghost && scenario.journaled().is_none(),
    };
    // The table first: what a full disk takes is the page.
    show_one(&report, &args.common, &again)
        .and(page.write(&report))
        .and(report.verdict())
}

/// The table of one scenario, with the lab's predictions beside it; `again` is what would repeat it.
pub fn show_one(report: &Report, common: &Common, again: &Again) -> Result<()> {
    let mut table = columns::table(report).render(width());
    let predictions = predict::predictions(report);
    let text = predict::table(&[(report, &predictions)], width());
    if !text.is_empty() {
        table.push('\n');
        table.push_str(&text);
    }
    let json = predict::Published {
        report: &for_json(report, common),
        predictions: &predictions,
    };
    publish_as(report, &json, common, &table, again)
}

/// Runs the arms of one scenario.
pub fn run_scenario(
    args: &RunArgs,
    name: &str,
    html: Option<&Path>,
) -> Result<(Report, html::Page)> {
    let scenario = adjusted(name, args.memory, args.duration)?;
    run_loaded(scenario, name, args, html)
}

/// Runs the arms of a scenario that came from `origin`, once its traces have been read. The page, for `html`, is left for
/// the caller to write.
pub fn run_loaded(
    scenario: Scenario,
    origin: &str,
    args: &RunArgs,
    html: Option<&Path>,
) -> Result<(Report, html::Page)> {
    let (scenario, arms, options) = prepared(scenario, origin, args)?;
    let worlds = WorldName::parse_list(&args.world)?;
    let raw = args.raw.then_some(WorldName::Raw);
    let rows: Vec<WorldName> = worlds.iter().copied().chain(raw).collect();
    let disk = disk::words(&scenario, &rows, options.probe.is_some());
    let page = html::Page::new(html, &scenario, args.common.seed, &worlds, &disk)?;
    let mut report = parent::run(scenario, &arms, &options)?;
    report.disk = Some(disk);
    repeats::number(&mut report);
    Ok((report, page))
}

/// The scenario as the command line changes it, its arms, and how they are run.
pub fn prepared(
    mut scenario: Scenario,
    origin: &str,
    args: &RunArgs,
) -> Result<(Scenario, Vec<plan::Arm>, parent::Options)> {
    for note in replay::resolve(&mut scenario, origin, args.strict)? {
        say!("note: {note}");
    }
    let worlds = WorldName::parse_list(&args.world)?;
    if args.whole_trace {
        replay::whole_traces(&mut scenario);
    }
    adjust_lab(args, &worlds, &mut scenario)?;
    volumes_fit(&scenario, &worlds, args.preset.is_none())?;
    set_device(&mut scenario, &args.common, &worlds)?;
    let presets = match &args.preset {
        Some(list) => plan::presets(list.split(',').map(str::trim))?,
        None => plan::presets(scenario.presets.iter().map(|p| p.get_ref().as_str()))?,
    };
    if args.raw && !scenario.tasks.iter().any(|t| t.kind.writes()) {
        return Err(CliError::usage(
            format!(
                "--raw writes at random, and {} has no writer",
                scenario.name
            ),
            "highwater run random-write --raw",
        ));
    }
    let orders = orders(args, &worlds, &scenario)?;
    let worlds = worlds_with_blocks(worlds, &scenario)?;
    let arms = plan::arms_of_orders(
        &scenario,
        &worlds,
        &presets,
        &orders,
        args.preset.is_none(),
        args.raw,
    );
    if arms.is_empty() {
        return Err(CliError::usage("there is nothing to run", "--preset all"));
    }
    let arms = match args.dirty_limit {
        Some(percent) => (arms.into_iter())
            .map(|arm| arm.with_dirty_limit(percent))
            .collect::<Result<_>>()?,
        None => arms,
    };
    plan::check(&arms)?;
    let options = parent::Options {
        dir: args.common.dir.clone(),
        seed: args.common.seed,
        real_time: args.real_time,
        costs: costs_of(args.common.costs.as_deref(), &worlds)?,
        repeat: args.repeat,
        probe: probe_time(args, &worlds)?,
        ftrace: args
            .ftrace
            .as_ref()
            .map(|path| match args.scenario == all::NAME {
                true => ftrace::of_scenario(path, &scenario.name),
                false => path.clone(),
            }),
        quiet: false,
        stack: plan::PlanStack {
            size: args.stack,
            trace: args.stack_trace,
            ..plan::PlanStack::default()
        },
    };
    cleanup::watch_signals();
    // What makes no sense has been said, and nothing else.
    say!("{}: {}", scenario.name, scenario.about);
    Ok((scenario, arms, options))
}

/// The report as JSON has it: without samples, unless they are asked for.
pub fn for_json(report: &Report, common: &Common) -> Report {
    let mut report = report.clone();
    if !common.samples {
        report
            .arms
            .iter_mut()
            .for_each(report::ArmReport::drop_samples);
    }
    report
}

/// The table, the sentences, the next command; `json` where JSON is asked for.
pub fn publish_as(
    report: &Report,
    json: &impl serde::Serialize,
    common: &Common,
    table: &str,
    again: &Again,
) -> Result<()> {
    let mut text = format!("\n{}\n{table}\n", report.head());
    for sentence in sentences::all(report) {
        text.push_str(&sentence);
        text.push('\n');
    }
    text.push_str(&format!(
        "\nNext: {}\n",
        sentences::next_command(report, again)
    ));
    outputs::publish(&text, json, common.json.as_deref())
}

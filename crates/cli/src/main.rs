//! The command `highwater`: one scenario in three worlds, as a table.
//!
//! A parent process owns what must be cleaned up (files, cgroup, loop device, sysctls); each arm runs in a child of its
//! own (`run-arm`), so that peaks of memory and failures do not leak from one arm into the next.

mod all;
mod args;
mod blocks;
mod cells;
mod child;
mod claims;
mod cleanup;
mod columns;
mod costs;
mod cpu;
mod device;
mod engine_arm;
mod error;
mod ftrace;
mod html;
mod least_squares;
mod linux;
mod located;
mod matrix;
mod measure;
mod outputs;
mod parent;
mod place;
mod plan;
mod predict;
mod probe;
mod progress;
mod quantile;
mod raw;
mod replay;
mod report;
mod rng;
mod samples;
mod scenario;
mod sentences;
mod soak;
mod stack;
mod sweep;
mod table;
mod target;
mod tasks;
mod units;
mod volume;
mod world_lab;
mod world_linux;
mod world_os;

use args::{Cli, Command, Common, DeviceCommand, RunArgs, ScenarioCommand};
use clap::Parser;
use error::{CliError, Result};
use plan::WorldName;
use report::Report;
use std::io::Write;
use std::process::ExitCode;
use units::{Bytes, Span, show_bytes};

/// No line of a table is longer, in a file or a pipe.
const WIDTH: usize = 160;
/// Nor is a terminal taken to be narrower: the widest group of columns has so many.
const WIDTH_MIN: usize = 80;

/// How long a line on standard output may be: the terminal's width, so that no row of a table is broken in two.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    let columns = size.map_or(0, |s| usize::from(s.ws_col));
    match columns {
        0 => WIDTH,
        n => n.clamp(WIDTH_MIN, WIDTH),
    }
}
/// No budget is smaller: the engine's metadata and watermarks need some frames.
pub(crate) const MEMORY_MIN: u64 = 1 << 20;
/// No budget is larger.
pub(crate) const MEMORY_MAX: u64 = 1 << 40;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.as_ref().map_or(Ok(()), outputs::check) {
        Ok(()) => dispatch(cli.command),
        Err(e) => Err(e),
    };
    cleanup::wait_if_ending();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("highwater: {e}");
            ExitCode::from(e.exit as u8)
        }
    }
}

fn dispatch(command: Option<Command>) -> Result<()> {
    match command {
        None => run(&RunArgs::default()),
        Some(Command::Run(args)) => run(&args),
        Some(Command::Matrix(args)) => matrix::run(&args),
        Some(Command::Sweep(args)) => sweep::run(&args),
        Some(Command::Claims(args)) => claims::run(&args),
        Some(Command::Soak(args)) => soak::run(&args),
        Some(Command::Costs(args)) => costs::run(&args),
        Some(Command::Stack(args)) => stack::run(&args),
        Some(Command::Scenarios) => list(),
        Some(Command::Scenario {
            what: ScenarioCommand::Show { name },
        }) => show(&name),
        Some(Command::Probe(args)) => probe::run(&args),
        Some(Command::Devices) => device::list().map(|text| print(&text)),
        Some(Command::Device {
            what: DeviceCommand::Show { name },
        }) => device::find(&name).map(|named| print(&named.text)),
        Some(Command::Replay(args)) => replay::replay(&args),
        Some(Command::Trace { what }) => replay::trace(&what),
        Some(Command::Volume { what }) => volume::run(&what),
        Some(Command::RunArm) => child::main(),
    }
}

/// Prints to standard output; a reader that went away (`| head`) is no error.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn list() -> Result<()> {
    let mut out = String::new();
    for (name, text) in scenario::BUILTIN {
        let scenario = scenario::load(name, text)?;
        out.push_str(&format!("{name:<14}{}\n", scenario.about));
    }
    out.push_str(
        "\n`highwater run NAME` runs one; `highwater scenario show NAME` prints its TOML.\n",
    );
    print(&out);
    Ok(())
}

fn show(name: &str) -> Result<()> {
    let (_, text) = scenario::text(name)?;
    print(&text);
    Ok(())
}

/// A scenario with the command line's memory and duration.
fn adjusted(
    name: &str,
    memory: Option<u64>,
    duration: Option<std::time::Duration>,
) -> Result<scenario::Scenario> {
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
fn sensible(scenario: &scenario::Scenario) -> Result<()> {
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
fn adjust_lab(
    args: &RunArgs,
    worlds: &[WorldName],
    scenario: &mut scenario::Scenario,
) -> Result<()> {
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
            eprintln!("note: {names} {is} for the lab's arms alone: {theirs}");
        }
    }
    scenario.lab.ghost |= args.ghost;
    if let Some(cpus) = args.cpus {
        scenario.lab.cpus = cpus_of(cpus)?;
    }
    Ok(())
}

/// The value of `--cpus`.
fn cpus_of(cpus: usize) -> Result<usize> {
    if (1..=1024).contains(&cpus) {
        return Ok(cpus);
    }
    Err(CliError::usage(
        format!("a machine of {cpus} CPUs makes no sense: expected 1 to 1024"),
        "--cpus 2",
    ))
}

/// Refuses worlds that have no volumes.
fn volumes_fit(scenario: &scenario::Scenario, worlds: &[WorldName], own_arms: bool) -> Result<()> {
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
            eprintln!(
                "note: the arm {:?} is for the lab alone: recursion_guard = false has no bound, and threads have stacks",
                arm.name
            );
        }
    }
    Ok(())
}

/// Puts `--device` in the scenario's place for it.
fn set_device(
    scenario: &mut scenario::Scenario,
    common: &Common,
    worlds: &[WorldName],
) -> Result<()> {
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
fn costs_of(
    path: Option<&std::path::Path>,
    worlds: &[WorldName],
) -> Result<Option<costs::CostTable>> {
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

fn run(args: &RunArgs) -> Result<()> {
    if args.scenario == all::NAME {
        return all::run(args);
    }
    let (report, page) = run_scenario(args, &args.scenario, args.common.html.as_deref())?;
    page.write(&report)?;
    let again = format!("run {}", html::quoted(&args.scenario));
    show_one(&report, &args.common, &again)
}

/// The table of one scenario, with the lab's predictions beside it; `again` is what would repeat it.
fn show_one(report: &Report, common: &Common, again: &str) -> Result<()> {
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

/// The worlds that can run the scenario: Linux lends a process no block of page frames.
fn worlds_with_blocks(
    mut worlds: Vec<WorldName>,
    scenario: &scenario::Scenario,
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
        eprintln!(
            "note: no row of Linux: it lends a process no block of page frames, and task {:?} asks for them",
            task.name
        );
    }
    Ok(worlds)
}

/// The orders of `--order`, or the scenario's.
fn orders(
    args: &RunArgs,
    worlds: &[WorldName],
    scenario: &scenario::Scenario,
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

/// Runs the arms of one scenario.
fn run_scenario(
    args: &RunArgs,
    name: &str,
    html: Option<&std::path::Path>,
) -> Result<(Report, html::Page)> {
    let scenario = adjusted(name, args.memory, args.duration)?;
    run_loaded(scenario, name, args, html)
}

/// How long the disk is measured between runs.
fn probe_time(args: &RunArgs, worlds: &[WorldName]) -> Result<Option<std::time::Duration>> {
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

/// Runs the arms of a scenario that came from `origin`, once its traces have been read. The page, for `html`, is left for
/// the caller to write.
fn run_loaded(
    scenario: scenario::Scenario,
    origin: &str,
    args: &RunArgs,
    html: Option<&std::path::Path>,
) -> Result<(Report, html::Page)> {
    let (scenario, arms, options) = prepared(scenario, origin, args)?;
    let worlds = WorldName::parse_list(&args.world)?;
    let names: Vec<&str> = worlds.iter().map(|w| w.name()).collect();
    let page = html::Page::new(html, &scenario, args.common.seed, &names)?;
    Ok((parent::run(scenario, &arms, &options)?, page))
}

/// The scenario as the command line changes it, its arms, and how they are run.
fn prepared(
    mut scenario: scenario::Scenario,
    origin: &str,
    args: &RunArgs,
) -> Result<(scenario::Scenario, Vec<plan::Arm>, parent::Options)> {
    for note in replay::resolve(&mut scenario, origin, args.strict)? {
        eprintln!("note: {note}");
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
    cleanup::watch_signals();
    eprintln!("{}: {}", scenario.name, scenario.about);
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
    Ok((scenario, arms, options))
}

/// The table, the sentences, the next command; JSON where asked for.
fn publish(report: &Report, common: &Common, table: &str) -> Result<()> {
    let again = format!("run {}", report.scenario);
    publish_as(report, &for_json(report, common), common, table, &again)
}

/// The report as JSON has it: without samples, unless they are asked for.
fn for_json(report: &Report, common: &Common) -> Report {
    let mut report = report.clone();
    if !common.samples {
        report
            .arms
            .iter_mut()
            .for_each(report::ArmReport::drop_samples);
    }
    report
}

/// As `publish`, with `json` as the JSON.
fn publish_as(
    report: &Report,
    json: &impl serde::Serialize,
    common: &Common,
    table: &str,
    again: &str,
) -> Result<()> {
    let mut text = format!(
        "\n{}, memory {}\n\n{table}\n",
        report.scenario,
        show_bytes(report.memory_bytes)
    );
    for sentence in sentences::sentences(report) {
        text.push_str(&sentence);
        text.push('\n');
    }
    for sentence in blocks::sentences(report)
        .into_iter()
        .chain(replay::sentences(report))
    {
        text.push_str(&sentence);
        text.push('\n');
    }
    text.push_str(&format!(
        "\nNext: {}\n",
        sentences::next_command(report, again)
    ));
    write_out(&text, json, common)
}

/// The text to standard output; JSON where asked for.
fn write_out(text: &str, json: &impl serde::Serialize, common: &Common) -> Result<()> {
    write_out_to(text, json, common.json.as_deref())
}

/// As `write_out`, with where JSON goes.
fn write_out_to(
    text: &str,
    json: &impl serde::Serialize,
    path: Option<&std::path::Path>,
) -> Result<()> {
    let Some(path) = path else {
        print(text);
        return Ok(());
    };
    let json = serde_json::to_string_pretty(json)
        .map_err(|e| CliError::failed(e.to_string(), "report this as a bug"))?;
    if path.as_os_str() == "-" {
        // JSON alone on standard output, so that it can be piped.
        eprint!("{text}");
        print(&json);
        print("\n");
        return Ok(());
    }
    print(text);
    std::fs::write(path, json + "\n").map_err(|e| {
        CliError::os(
            path.display(),
            e,
            "--json with a file that you may write to",
        )
    })
}

//! `highwater replay TRACE`.

use super::args::{PaceArg, PlayArgs, ReplayArgs, SelectArgs};
use super::resolve::AN_HOUR;
use crate::args::RunArgs;
use crate::command_line::CommandLine;
use crate::error::{CliError, Result};
use crate::scenario::{self, Scenario};
use crate::sentences::Again;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// Text as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_string()).to_string()
}

/// The scenario around a trace, before the trace has been read: one file, one task, nothing before it.
///
/// # Errors
/// Options that do not go together, or a path that TOML cannot hold.
pub fn scenario_of(
    trace: &Path,
    select: &SelectArgs,
    play: &PlayArgs,
    memory: u64,
    duration: Option<Duration>,
    repeat: bool,
) -> Result<Scenario> {
    if play.speed.is_some() && play.pace == PaceArg::Closed {
        return Err(CliError::usage(
            "--speed is for the trace's own times",
            "--pace timestamps --speed 10",
        ));
    }
    let Some(path) = trace.to_str() else {
        return Err(CliError::usage(
            format!("the path {} is no UTF-8", trace.display()),
            "a symbolic link to it with another name",
        ));
    };
    let mut text = format!(
        "name = {}\nabout = {}\nmemory = \"{memory}\"\nwarm_up = 0.0\nsettle = \"0s\"\nduration = \"{}ms\"\n\
         [files.data]\nsize = {}\n[[tasks]]\nname = \"replay\"\nkind = \"replay\"\nfile = \"data\"\ntrace = {}\nthreads = {}\n",
        quoted(&format!("replay {path}")),
        quoted("a trace of block requests on one file"),
        duration.unwrap_or(AN_HOUR).as_millis(),
        quoted(play.size.as_deref().unwrap_or("trace")),
        quoted(path),
        play.threads,
    );
    let mut key = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = writeln!(text, "{name} = {value}");
        }
    };
    let word = |v: &dyn std::fmt::Debug| Some(quoted(&format!("{v:?}").to_lowercase()));
    key("format", select.format.map(|f| quoted(f.name())));
    key("disk", select.disk.as_deref().map(quoted));
    key("action", select.action.as_deref().map(quoted));
    key("pace", word(&play.pace));
    key("speed", play.speed.map(|s| format!("{s:?}")));
    key("beyond", word(&play.beyond));
    key("repeat", Some(repeat.to_string()));
    let scenario = scenario::load("replay", &text)?;
    crate::adjust::sensible(&scenario)?;
    Ok(scenario)
}

/// `highwater replay TRACE`.
///
/// # Errors
/// The trace's, or those of `run`.
pub fn replay(args: &ReplayArgs) -> Result<()> {
    if args.repeat && args.duration.is_none() {
        return Err(CliError::usage(
            "--loop has no end of its own: the trace begins again whenever it ends",
            "--loop --duration 60s (of virtual time in the lab)",
        ));
    }
    let scenario = scenario_of(
        &args.trace.trace,
        &args.trace.select,
        &args.play,
        args.memory,
        args.duration,
        args.repeat,
    )?;
    let run = RunArgs {
        world: args.world.clone(),
        preset: Some(args.preset.clone()),
        order: args.order.clone(),
        dirty_limit: args.dirty_limit,
        cpus: args.cpus,
        ftrace: args.ftrace.clone(),
        strict: args.trace.select.strict,
        ghost: args.ghost,
        whole_trace: args.duration.is_none(),
        common: args.common.clone(),
        ..RunArgs::default()
    };
    let html = run.common.html.as_deref();
    let (report, page) = crate::run::run_loaded(scenario, "", &run, html)?;
    let again = Again {
        said: CommandLine::here(),
        on_linux: !args.ghost,
    };
    crate::run::show_one(&report, &run.common, &again)
        .and(page.write(&report))
        .and(report.verdict())
}

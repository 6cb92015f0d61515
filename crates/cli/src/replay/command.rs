//! `highwater replay TRACE` and `highwater trace info TRACE`.

use super::resolve::{AN_HOUR, SPEED_EXPECTED, SPEEDS};
use super::scan::{self, Summary, scan};
use super::{Format, Select};
use crate::args::{Common, RunArgs};
use crate::command_line::CommandLine;
use crate::error::{CliError, Result};
use crate::outputs;
use crate::scenario::{self, Scenario, parse_cpus};
use crate::sentences::Again;
use crate::units::{
    Size, parse_bytes, parse_dirty_limit, parse_duration, show_bytes, show_count, show_us,
};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The formats, for `--help`.
pub const FORMATS: &str = "\
Formats, found by content:
  cloudphysics  version,time,op,size,lbn: SCSI opcode in hex, time in microseconds, lbn in sectors of 512 bytes
  msr           Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime (MSR Cambridge)
  fio           `fio version 2 iolog` and `fio version 3 iolog`, as --write_iolog writes them
  blkparse      the text that `blkparse` prints by default; lines of one action count (Q: queued)
Bad lines are counted, and the first are named; --strict refuses them. Discards are counted and not done; flushes sync. \
A write's flags in blkparse's RWBS count too: an F before the W syncs first (a flush), an F behind it makes these bytes durable \
before the write ends (forced unit access: FUA); S, somebody waits, does neither. The report says how many there were.";

/// How requests beyond the file's end, and times, are treated, on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum PaceArg {
    /// As fast as one outstanding request for each thread allows
    Closed,
    /// At the times of the trace
    Timestamps,
}

/// The same as `beyond` of a scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum BeyondArg {
    /// An error that names the request
    Refuse,
    /// Moved into the file: the offset modulo its length
    Wrap,
    /// Left out and counted
    Skip,
}

/// Which lines of a trace are its requests.
#[derive(Clone, Debug, Default, Args)]
pub struct SelectArgs {
    /// Its format: cloudphysics, msr, fio or blkparse [default: found by content]
    #[arg(long, value_parser = |t: &str| t.parse::<Format>())]
    pub format: Option<Format>,
    /// Only the requests of this disk, as the trace names it (msr: usr.0; blkparse: 8,0; fio: the file's name)
    #[arg(long)]
    pub disk: Option<String>,
    /// Which action's lines are requests (blkparse) [default: Q]
    #[arg(long)]
    pub action: Option<String>,
    /// Refuse the trace at its first bad line
    #[arg(long)]
    pub strict: bool,
}

/// How its requests are made.
#[derive(Clone, Debug, Args)]
pub struct PlayArgs {
    /// When requests are made
    #[arg(long, value_enum, default_value = "closed")]
    pub pace: PaceArg,
    /// How many times as fast as the trace's own times (with --pace timestamps)
    #[arg(long, value_parser = speed, allow_negative_numbers = true)]
    pub speed: Option<f64>,
    /// Threads: as many requests are outstanding at the most
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,
    /// The file's length, such as 43GiB, in whole 64 KiB [default: as the trace needs, without blocks until they are
    /// written: on real files, reading what was never written then costs no disk time]
    #[arg(long, value_parser = size)]
    pub size: Option<String>,
    /// What becomes of requests beyond the file's end (with --size)
    #[arg(long, value_enum, default_value = "refuse")]
    pub beyond: BeyondArg,
}

impl Default for PlayArgs {
    fn default() -> PlayArgs {
        PlayArgs {
            pace: PaceArg::Closed,
            speed: None,
            threads: 8,
            size: None,
            beyond: BeyondArg::Refuse,
        }
    }
}

/// A trace and its requests.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// The trace
    pub trace: PathBuf,
    /// Which of its lines
    #[command(flatten)]
    pub select: SelectArgs,
}

/// Arguments of `replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The trace
    #[command(flatten)]
    pub trace: TraceArgs,
    /// Where it runs: os, lab, linux, with commas between
    #[arg(long, default_value = "lab")]
    pub world: String,
    /// Presets with commas between, or all
    #[arg(long, default_value = "highwater")]
    pub preset: String,
    /// The budget of each arm, such as 64MiB
    #[arg(long, value_parser = parse_bytes, default_value = "64MiB")]
    pub memory: u64,
    /// In which order pages are tried for reclaim: two-list, s3-fifo, or both with a comma between, each with each preset
    /// [default: two-list]
    #[arg(long)]
    pub order: Option<String>,
    /// Dirty memory is kept below so many percent of it; the flusher starts in proportion [default: the preset's]
    #[arg(long, value_name = "PERCENT", value_parser = parse_dirty_limit)]
    pub dirty_limit: Option<u8>,
    /// The most time that an arm takes (in the lab: virtual); it ends with the trace [default: an hour, and with --pace
    /// timestamps as long as the trace's times take beside it]
    #[arg(long, value_parser = some_time)]
    pub duration: Option<Duration>,
    /// How they are made
    #[command(flatten)]
    pub play: PlayArgs,
    /// From the start again at the trace's end, until --duration is over, which has to be said
    #[arg(long = "loop")]
    pub repeat: bool,
    /// The lab's memory and disk hold no data: files larger than this machine's memory
    #[arg(long)]
    pub ghost: bool,
    /// The lab's arms only: virtual CPUs [default: 2]
    #[arg(long, value_name = "N", value_parser = parse_cpus)]
    pub cpus: Option<usize>,
    /// Write each event of reclaim as Linux's ftrace does (mm_vmscan_*), to a file; with several arms to one for each, as
    /// `run --ftrace`
    #[arg(long, value_name = "FILE")]
    pub ftrace: Option<PathBuf>,
    /// Everything shared with `run`
    #[command(flatten)]
    pub common: Common,
}

/// What to do with a trace.
#[derive(Clone, Debug, Subcommand)]
pub enum TraceCommand {
    /// Format, requests, time, the bytes that it addresses, bad lines
    #[command(after_help = FORMATS)]
    Info(TraceInfoArgs),
}

/// Arguments of `trace info`.
#[derive(Clone, Debug, Args)]
pub struct TraceInfoArgs {
    /// The trace
    #[command(flatten)]
    pub trace: TraceArgs,
    /// Write it as JSON to a file, or to standard output with -
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
}

/// More than no time.
fn some_time(text: &str) -> std::result::Result<Duration, String> {
    match parse_duration(text)? {
        time if time.is_zero() => Err("expected more than no time, such as 5s".into()),
        time => Ok(time),
    }
}

/// How many times as fast.
fn speed(text: &str) -> std::result::Result<f64, String> {
    let times = text.parse().ok().filter(|s| SPEEDS.contains(s));
    times.ok_or_else(|| SPEED_EXPECTED.into())
}

/// A file's length, as a scenario has it.
fn size(text: &str) -> std::result::Result<String, String> {
    text.parse::<Size>().map(|_| text.to_string())
}

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
    crate::run::show_one(&report, &run.common, &again).and(page.write(&report))
}

/// `highwater trace info TRACE`.
///
/// # Errors
/// The trace's.
pub fn trace(what: &TraceCommand) -> Result<()> {
    let TraceCommand::Info(TraceInfoArgs { trace: args, json }) = what;
    let options = scan::Options {
        format: args.select.format,
        select: Select {
            disk: args.select.disk.clone(),
            action: args.select.action.clone(),
        },
        strict: args.select.strict,
        limit: None,
    };
    let summary = scan(&args.trace, &options)?;
    let text = info(&args.trace, &summary);
    outputs::publish(&text, &Found::new(&args.trace, &summary), json.as_deref())
}

/// The shape of `trace info --json`.
#[derive(Debug, Serialize)]
struct Found<'a> {
    trace: String,
    format: &'static str,
    lines: u64,
    requests: u64,
    reads: u64,
    writes: u64,
    discards: u64,
    flushes: u64,
    preflushes: u64,
    fua_writes: u64,
    read_bytes: u64,
    written_bytes: u64,
    span_ns: u64,
    footprint_bytes: u64,
    written_footprint_bytes: u64,
    /// There was no room to count all pages of the footprints.
    footprint_at_least: bool,
    file_bytes: u64,
    disks: &'a [String],
    skipped_lines: &'a BTreeMap<&'static str, u64>,
    bad_lines: u64,
}

impl<'a> Found<'a> {
    fn new(path: &Path, s: &'a Summary) -> Found<'a> {
        let [reads, writes, discards, flushes] = s.ops;
        let [preflushes, fua_writes] = s.barriers;
        Found {
            trace: path.display().to_string(),
            format: s.format.name(),
            lines: s.lines,
            requests: s.records(),
            reads,
            writes,
            discards,
            flushes,
            preflushes,
            fua_writes,
            read_bytes: s.bytes[0],
            written_bytes: s.bytes[1],
            span_ns: s.span_ns(),
            footprint_bytes: s.touched.bytes(),
            written_footprint_bytes: s.written.bytes(),
            footprint_at_least: s.touched.at_least,
            file_bytes: s.extent(),
            disks: &s.disks,
            skipped_lines: &s.skipped,
            bad_lines: s.bad,
        }
    }
}

/// A trace in a few lines.
fn info(path: &Path, s: &Summary) -> String {
    let [reads, writes, discards, flushes] = s.ops;
    let mut out = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<12}{value}");
    };
    row("trace", path.display().to_string());
    row("format", s.format.name().to_string());
    row(
        "requests",
        format!(
            "{} in {} lines: {} reads, {} writes, {} discards, {} flushes",
            show_count(s.records()),
            show_count(s.lines),
            show_count(reads),
            show_count(writes),
            show_count(discards),
            show_count(flushes)
        ),
    );
    let [preflushes, fua] = s.barriers;
    if preflushes + fua > 0 {
        row(
            "durable",
            format!(
                "{} writes through to the disk (FUA), {} with a flush before them",
                show_count(fua),
                show_count(preflushes)
            ),
        );
    }
    row(
        "bytes",
        format!(
            "{} read, {} written",
            show_bytes(s.bytes[0]),
            show_bytes(s.bytes[1])
        ),
    );
    row("time", show_us(s.span_ns() as f64 / 1e3));
    if let Some(doubt) = s.doubt() {
        row("", doubt);
    }
    let more = if s.touched.at_least { "at least " } else { "" };
    row(
        "footprint",
        format!(
            "{more}{} in pages of 4 KiB, {} of them written",
            show_bytes(s.touched.bytes()),
            show_bytes(s.written.bytes())
        ),
    );
    row(
        "file",
        format!("{} bytes ({})", s.extent(), show_bytes(s.extent())),
    );
    if !s.disks.is_empty() {
        row("disks", s.disks.join(", "));
    }
    for (kind, n) in &s.skipped {
        row("skipped", format!("{}: {kind}", show_count(*n)));
    }
    row("bad lines", show_count(s.bad));
    for named in &s.named {
        row("", named.clone());
    }
    out
}

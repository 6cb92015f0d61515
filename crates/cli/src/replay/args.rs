//! The command lines of `replay` and `trace`.

use super::Format;
use super::resolve::{SPEED_EXPECTED, SPEEDS};
use crate::args::Common;
use crate::scenario::parse_cpus;
use crate::units::{Size, parse_bytes, parse_dirty_limit, parse_duration};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// The formats, for `--help`.
pub const FORMATS: &str = "\
Formats, found by content:
  cloudphysics  version,time,op,size,lbn: SCSI opcode in hex, microseconds, sectors of 512 bytes
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

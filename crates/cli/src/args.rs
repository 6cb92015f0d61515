//! The command line.

use crate::claims::{self, ClaimsArgs};
use crate::replay::{FORMATS, ReplayArgs, TraceCommand};
use crate::scenario::parse_cpus;
use crate::soak::{self, SoakArgs};
use crate::stack::StackArgs;
use crate::sweep::{self, SweepArgs};
use crate::units::{parse_bytes, parse_dirty_limit, parse_duration, parse_seed};
use crate::volume::{self, VolumeCommand};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

const LONG: &str = "\
Highwater is a page cache you embed: one byte budget, real files, and every policy of Linux's page reclaim as a setting. \
This command runs a scenario - files larger than memory, and tasks that read and write them - on real files through that \
cache, once for each preset of policies, and prints what each cost: operations/s, latencies, and who stood still, for how \
long, because somebody had to write pages.

Presets (--preset), oldest first:
  2.6.35     reclaim writes the dirty pages it finds, and so does whoever dirties too many
  rfc-2010   direct reclaim no longer writes; kswapd does (the proposal of June 2010)
  3.2        kswapd writes late; writers pause instead of writing
  6.16       only the flusher writes file pages
  highwater  as 6.16, with short pauses and more memory that may be dirty: the library's default

Worlds (--world):
  os     the engine on threads, io_uring and O_DIRECT, on real files
  lab    the same engine on coroutines in virtual time, on a modelled disk: repeatable by --seed
  linux  the same tasks by pread and pwrite on Linux's own page cache, in a memory cgroup of the
         same size (needs root, or a delegated cgroup)";

const EXAMPLES: &str = "\
Examples:
  highwater                                   run `rfc` with all presets
  highwater run slow-disk --preset 2.6.35,highwater
  highwater run random-write --raw            with the device's own bound in the table
  highwater run zipf-mix --order two-list,s3-fifo
  sudo highwater run zipf-mix --world os,linux
  highwater run rfc --world lab --duration 1s --seed 7
  highwater run zipf-mix --world lab --ghost --memory 64GiB --ops 10000000
                                              a machine larger than this one
  highwater run rfc --world lab --device hdd-7200
  highwater run all --world os,lab --repeat 3 --probe
                                              every scenario: the lab's predictions, and what came
  highwater probe . --out mine.toml           then: highwater run rfc --world lab --device mine.toml
  highwater scenario show rfc > mine.toml     then: highwater run mine.toml
  highwater trace info FILE                   what a trace holds; then: highwater replay FILE
  highwater run high-order --world lab        blocks of frames: lumpy reclaim and compaction
  highwater run rfc --preset 2.6.35 --ftrace trace.txt
                                              then: trace-vmscan-postprocess.pl < trace.txt
  highwater run rfc --html rfc.html           as a page: memory, writers and stalls over time
  highwater run deep-chain --world lab        allocation inside ->writepage
  highwater run rfc --json - | jq '.arms[] | {preset, stall_s}'

Data goes to temporary files that are removed at the end and on Ctrl-C.
Exit codes: 0 all arms ran, 1 a run failed, 2 the command line or the scenario makes no sense.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, about = "Who pays for writing dirty pages? Run a scenario and see.", long_about = LONG, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do; `run rfc` when nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a scenario and print one table, arms as rows
    #[command(after_help = EXAMPLES)]
    Run(RunArgs),
    /// Run `rfc` for each who-writes x throttle, everything else as the preset `highwater` has it
    Matrix(MatrixArgs),
    /// Run a scenario or a trace over memory sizes, dirty limits or memory pressure: how much is enough, and where presets cross
    #[command(after_help = sweep::EXAMPLES)]
    Sweep(SweepArgs),
    /// Measure what the mail of 2010 claims, of both sides: figures and a verdict for each claim
    #[command(after_help = claims::EXAMPLES)]
    Claims(ClaimsArgs),
    /// Run seeds of the lab: options, faults and crashes drawn for each, every byte compared
    #[command(after_help = soak::EXAMPLES)]
    Soak(SoakArgs),
    /// Measure on the real engine what its work costs, as a table for the lab (`run --costs FILE`)
    Costs(CostsArgs),
    /// Measure how deep the stacks of a scenario's tasks are used, and by which chain of calls
    #[command(after_help = crate::stack::EXAMPLES)]
    Stack(StackArgs),
    /// List the built-in scenarios
    Scenarios,
    /// Look at a scenario
    Scenario {
        /// What to do with it
        #[command(subcommand)]
        what: ScenarioCommand,
    },
    /// List the built-in devices of the lab
    Devices,
    /// Look at a device of the lab
    Device {
        /// What to do with it
        #[command(subcommand)]
        what: DeviceCommand,
    },
    /// Measure a disk and write its profile for the lab
    #[command(after_help = PROBE)]
    Probe(ProbeArgs),
    /// Replay a trace of block requests, and print one table as `run` does
    #[command(after_help = FORMATS)]
    Replay(ReplayArgs),
    /// Look at a trace
    Trace {
        /// What to do with it
        #[command(subcommand)]
        what: TraceCommand,
    },
    /// Make, look at and check volumes: crash-safe, thin, checksummed virtual disks in a file or on a block device
    #[command(after_help = volume::EXAMPLES)]
    Volume {
        /// What to do
        #[command(subcommand)]
        what: VolumeCommand,
    },
    /// Internal: one arm, its plan on standard input
    #[command(hide = true)]
    RunArm,
}

/// What to do with a scenario.
#[derive(Debug, Subcommand)]
pub enum ScenarioCommand {
    /// Print its TOML, to start one of your own from
    Show {
        /// A built-in scenario's name, or the path of a TOML file
        name: String,
    },
}

const PROBE: &str = "\
Measures latency at depth 1 and by size, throughput by depth and by size, sequences, reads beside writes, and flushes, \
all with O_DIRECT; fits the lab's model `ssd`, and says for each point how well the profile predicts it.

Examples:
  highwater probe /var/tmp --out mine.toml    a temporary file there, read, written and removed
  highwater run rfc --world os,lab --device mine.toml
  sudo highwater probe /dev/nvme1n1           reads only
  sudo highwater probe /dev/nvme1n1 --write   OVERWRITES the device";

/// Arguments of `probe`.
#[derive(Clone, Debug, Args)]
pub struct ProbeArgs {
    /// A directory (a temporary file there is measured), a file or a block device (only read, without --write)
    pub path: PathBuf,
    /// Write the profile to this file [default: print it]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How long all points together take
    #[arg(long, value_parser = parse_duration, default_value = "20s")]
    pub duration: Duration,
    /// The size of the temporary file in a directory
    #[arg(long, value_parser = parse_bytes, default_value = "512MiB")]
    pub size: u64,
    /// Overwrite the file or block device to measure writes: what is on it is lost
    #[arg(long)]
    pub write: bool,
    /// Write points and fit as JSON to a file, or to standard output with -
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
}

/// What to do with a device.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Print its profile as TOML, to start one of your own from
    Show {
        /// A built-in device's name (`highwater devices` lists them), or the path of a TOML file
        name: String,
    },
}

/// Arguments of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// A built-in scenario's name (`highwater scenarios` lists them), all of them with `all`, or the path of a TOML file
    #[arg(default_value = "rfc")]
    pub scenario: String,
    /// Where it runs: os, lab, linux, with commas between
    #[arg(long, default_value = "os")]
    pub world: String,
    /// Presets with commas between, or all [default: the scenario's own]
    #[arg(long)]
    pub preset: Option<String>,
    /// In which order pages are tried for reclaim: two-list, s3-fifo, or both with a comma between, each with each preset
    /// [default: the scenario's own, else two-list]
    #[arg(long)]
    pub order: Option<String>,
    /// The budget of each arm, such as 64MiB [default: the scenario's own]; files given as multiples grow with it
    #[arg(long, value_parser = parse_bytes)]
    pub memory: Option<u64>,
    /// Dirty memory is kept below so many percent of it; the flusher starts in proportion [default: the scenario's own, else
    /// the preset's]
    #[arg(long, value_name = "PERCENT", value_parser = parse_dirty_limit)]
    pub dirty_limit: Option<u8>,
    /// How long each arm is measured, such as 5s [default: the scenario's own]
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// End each arm after so many measured operations instead of after a duration
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    pub ops: Option<u64>,
    /// How many times memory is written through the cache first [default: the scenario's own]
    #[arg(long, value_name = "TIMES", allow_negative_numbers = true)]
    pub warm_up: Option<f64>,
    /// The lab's arms only: pages without bytes (tables, no data), so that 64GiB of memory fit into a few
    #[arg(long)]
    pub ghost: bool,
    /// The lab's arms only: virtual CPUs [default: the scenario's own, or 2]
    #[arg(long, value_name = "N", value_parser = parse_cpus)]
    pub cpus: Option<usize>,
    /// The lab's arms only: bytes of stack for each task, such as 8KiB (the kernel's THREAD_SIZE when the mail was written); a
    /// task that needs more ends the run, with the chain that did [default: 256KiB]
    #[arg(long, value_name = "SIZE", value_parser = crate::stack::parse_stack)]
    pub stack: Option<u64>,
    /// Measure the tasks' stacks: what `highwater stack` does.
    #[arg(skip)]
    pub stack_trace: bool,
    /// Replay traces to their end, however long their own times take.
    #[arg(skip)]
    pub whole_trace: bool,
    /// The lab's arms only: add its real time, its operations per second of real time and its memory to table and JSON, which
    /// are else the same to the byte for the same --seed
    #[arg(long)]
    pub real_time: bool,
    /// Write each event of reclaim, in the text and with the names of Linux's ftrace (mm_vmscan_*), to a file; with several
    /// arms to one for each, FILE with the arm's name before its extension. For the worlds os and lab. A trace covers all
    /// of an arm, the warm-up too, and takes some 160 bytes for each event; on threads a buffer of up to 80 MiB. The
    /// kernel's trace-vmscan-postprocess.pl reads it where it cannot see the running kernel's own formats: not as root
    /// with /sys/kernel/debug mounted
    #[arg(long, value_name = "FILE")]
    pub ftrace: Option<PathBuf>,
    /// Add rows of raw random O_DIRECT writes at queue depths 32, 128 and 256
    #[arg(long)]
    pub raw: bool,
    /// Run each arm so often, in turns with the others; the lab, whose numbers are the same for the same seed, with the seeds
    /// from --seed on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// With the worlds os and lab: measure the disk before each run on it and after the last, for so long (3s when no time is said), and
    /// give the lab the medians as its disk; disks that are shared change their speed from minute to minute
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "3s", value_parser = parse_duration)]
    pub probe: Option<Duration>,
    /// Refuse a trace (of a `replay` task) at its first bad line, instead of leaving such lines out
    #[arg(long)]
    pub strict: bool,
    /// Everything shared with `matrix`
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of `matrix`.
#[derive(Clone, Debug, Args)]
pub struct MatrixArgs {
    /// Where it runs: os or lab
    #[arg(long, default_value = "os")]
    pub world: String,
    /// The budget of each arm, such as 64MiB [default: that of `rfc`]
    #[arg(long, value_parser = parse_bytes)]
    pub memory: Option<u64>,
    /// How long each arm is measured, such as 5s
    #[arg(long, value_parser = parse_duration, default_value = "3s")]
    pub duration: Duration,
    /// Everything shared with `run`
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of `costs`.
#[derive(Clone, Debug, Args)]
pub struct CostsArgs {
    /// Write the table to a file too
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print medians, lowest and highest as JSON in place of the table
    #[arg(long)]
    pub json: bool,
    /// Where the temporary files go [default: as `run`]
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// What `run` and `matrix` share.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Where the data goes [default: the system's directory for temporary files, or a real disk if that is in memory]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// The lab's disk: a built-in device's name (`highwater devices` lists them), or the path of a profile
    /// [default: the scenario's own, else quick]
    #[arg(long, value_name = "NAME|FILE")]
    pub device: Option<String>,
    /// The lab only: what work costs its CPUs, a table of `highwater costs` [default: one that comes with the command]
    #[arg(long, value_name = "FILE")]
    pub costs: Option<PathBuf>,
    /// Write the numbers as JSON to a file, or to standard output with -
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
    /// Write a page with latency distributions, memory, writers and stalls over time, presets side by side; it needs
    /// nothing but a browser. Of `run all` it has a part for each scenario
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Put samples over time and whole latency distributions into --json
    #[arg(long, requires = "json")]
    pub samples: bool,
    /// The seed of the tasks' random numbers, and of the lab
    #[arg(long, default_value_t = 1, allow_hyphen_values = true, value_parser = parse_seed)]
    pub seed: u64,
}

impl Default for RunArgs {
    fn default() -> RunArgs {
        RunArgs {
            scenario: "rfc".into(),
            world: "os".into(),
            preset: None,
            order: None,
            memory: None,
            dirty_limit: None,
            duration: None,
            ops: None,
            warm_up: None,
            ghost: false,
            cpus: None,
            stack: None,
            stack_trace: false,
            whole_trace: false,
            real_time: false,
            ftrace: None,
            raw: false,
            repeat: 1,
            probe: None,
            strict: false,
            common: Common {
                dir: None,
                device: None,
                costs: None,
                json: None,
                html: None,
                samples: false,
                seed: 1,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// A list's or an example's line that is longer than a terminal is continued below its own beginning.
    #[test]
    fn examples_fit_into_a_hundred_columns() {
        fn look(command: &clap::Command) {
            for text in [command.get_long_about(), command.get_after_help()] {
                let text = text.map(ToString::to_string).unwrap_or_default();
                for line in text.lines().filter(|l| l.starts_with("  ")) {
                    let columns = line.chars().count();
                    assert!(columns <= 100, "{}: {columns}: {line}", command.get_name());
                }
            }
            command.get_subcommands().for_each(look);
        }
        look(&Cli::command());
    }

    /// A line that is broken by hand is broken again by a terminal that is narrower.
    #[test]
    fn prose_is_left_to_the_terminal_to_break() {
        fn look(command: &clap::Command) {
            for text in [command.get_long_about(), command.get_after_help()] {
                let text = text.map(ToString::to_string).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                for pair in lines.windows(2) {
                    let prose = |l: &str| !l.is_empty() && !l.starts_with(' ');
                    let broken =
                        prose(pair[0]) && prose(pair[1]) && pair[1].starts_with(char::is_lowercase);
                    assert!(!broken, "{}: {pair:?}", command.get_name());
                }
            }
            command.get_subcommands().for_each(look);
        }
        look(&Cli::command());
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn nothing_said_is_the_same_as_run() {
        let Some(Command::Run(args)) = Cli::parse_from(["highwater", "run"]).command else {
            panic!("run")
        };
        assert_eq!(format!("{args:?}"), format!("{:?}", RunArgs::default()));
    }
}

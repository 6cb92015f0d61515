//! The command line of `sweep`.

use crate::replay::{PlayArgs, SelectArgs};
use crate::scenario::parse_cpus;
use crate::units::{parse_duration, parse_seed};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// What `--help` ends with.
pub const EXAMPLES: &str = "\
One thing changes from point to point:
  memory       --memory 16MiB,64MiB,256MiB, or 16MiB..1GiB for each doubling. Files keep the length
               that they have with the scenario's own budget. A trace is swept so when nothing is
               said, up to the size that all of its pages fit into
  dirty limit  --dirty-limit 5,10,20,40,60, in percent of memory; the flusher starts in proportion,
               as in the preset
  pressure     --pressure 0.8,1.2,2,4,8: data over memory. A scenario is swept so when nothing is
               said

Pressure is data over memory: the lengths of the files that tasks go back to, added up, over the budget. The files are \
scaled, all by one factor, whatever sizes the scenario gives them; the budget stays, so that watermarks, dirty limits and the disk are the \
same at each point. A file of fresh pages (the probe's) keeps its length. At 0.8 everything fits; at 8 one page in eight does.

Over memory and dirty limits, for each arm and point: operations a second with the final sync included, p99 and p99.9 of one \
task, look-ups that missed, what the disk read and wrote for each operation (with what the final sync wrote), and how long \
threads waited. Then, for each arm, the least point that no other beats.

Under pressure: the p99.9 of one task, refaults (pages that were reclaimed too early) for each operation, \
allocations that failed, where the kernel's rule of those years would have been out of memory (this engine waits), operations \
a second. Then where two lines cross, which is the answer to \
\"when memory pressure is low ... when it is high\".

Figures are medians over the seeds; differences within a tenth, or within what seeds differ, are none.

Examples:
  highwater sweep trace.csv                   which memory size does this trace need?
  highwater sweep trace.csv --memory 64MiB..1GiB --preset all --device disk.toml --html memory.html
  highwater sweep trace.csv --memory 256MiB --dirty-limit 5,10,20,40,60
  highwater sweep trace.csv --memory 64MiB..1GiB --order two-list,s3-fifo
  highwater sweep zipf-mix --memory 16MiB..256MiB
  highwater sweep rfc                         all presets, from 0.8 to 8 x memory, in the lab
  highwater sweep rfc --preset 2.6.35,rfc-2010 --pressure 0.5,1,2,4,8,16 --html sweep.html
  highwater sweep slow-disk --device hdd-7200 --seeds 5
  highwater sweep hot-clean --task hot        the hit path of the hot set
  highwater sweep rfc --world os --seeds 1    on real files, through io_uring

Exit codes: 0 all cells ran, 1 one failed, 2 the command line makes no sense.";

/// Arguments of `sweep`.
#[derive(Clone, Debug, Default, Args)]
pub struct SweepArgs {
    /// A built-in scenario's name (`highwater scenarios` lists them), the path of a TOML file, or the path of a trace of block
    /// requests, as `replay` reads them
    #[arg(default_value = "rfc", value_name = "SCENARIO|TRACE")]
    pub scenario: String,
    /// Sizes of the budget, rising, with commas between, or FROM..TO; or one size for a sweep over something else [default:
    /// the scenario's own; of a trace each doubling up to where it fits, or 64MiB]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Dirty limits in percent of memory, rising, with commas between; or one for a sweep over something else [default: the
    /// scenario's own, else the preset's]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub dirty_limit: Option<String>,
    /// Data over memory, rising, with commas between [default: 0.8,1.2,2,4,8]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub pressure: Option<String>,
    /// Where it runs: lab (virtual time, repeatable) or os (real files)
    #[arg(long, default_value = "lab")]
    pub world: String,
    /// Presets with commas between, or all [default: the scenario's own, with its arms; of a trace highwater]
    #[arg(long)]
    pub preset: Option<String>,
    /// In which order pages are tried for reclaim: two-list, s3-fifo, or both with a comma between, each with each preset
    /// [default: the scenario's own, else two-list]
    #[arg(long)]
    pub order: Option<String>,
    /// Whose latencies are compared [default: the probe that takes fresh pages, else the first task]
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// How long each cell is measured [default: 500ms; a trace is replayed to its end]
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Run each cell with so many seeds: medians are compared, and differences within their spread are none [default: 3; of a
    /// trace 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub seeds: Option<u32>,
    /// The first seed
    #[arg(long, default_value_t = 1, allow_hyphen_values = true, value_parser = parse_seed)]
    pub seed: u64,
    /// The lab's disk: a built-in device's name (`highwater devices` lists them), or the path of a profile
    /// [default: the scenario's own, else quick]
    #[arg(long, value_name = "NAME|FILE")]
    pub device: Option<String>,
    /// The lab only: what work costs its CPUs, a table of `highwater costs` [default: one that comes with the command]
    #[arg(long, value_name = "FILE")]
    pub costs: Option<PathBuf>,
    /// The lab only: virtual CPUs [default: the scenario's own, or 2]
    #[arg(long, value_name = "N", value_parser = parse_cpus)]
    pub cpus: Option<usize>,
    /// Where the data goes in the world os [default: as `run`]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Write the numbers as JSON to a file, or to standard output with -
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
    /// Write a page with the plots, the crossings and the numbers
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the plots alone, as an image
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Which lines of a trace are its requests
    #[command(flatten, next_help_heading = "Of a trace, as `replay` has them")]
    pub select: SelectArgs,
    /// How they are made
    #[command(flatten, next_help_heading = "Of a trace, as `replay` has them")]
    pub play: PlayArgs,
}

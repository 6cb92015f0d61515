//! The command line of `sweep`.

use crate::units::{parse_bytes, parse_duration};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// What `--help` ends with.
pub const EXAMPLES: &str = "\
Pressure is data over memory: the lengths of the files that tasks go back to, added up, over the budget. The files are \
scaled, all by one factor, whatever sizes the scenario gives them; the budget stays, so that watermarks, dirty limits and the disk are the \
same at each point. A file of fresh pages (the probe's) keeps its length. At 0.8 everything fits; at 8 one page in eight does.

For each arm and pressure: the p99.9 of one task, refaults (pages that were reclaimed too early) for each operation, \
allocations that failed, where the kernel's rule of those years would have been out of memory (this engine waits), operations \
a second; medians over the seeds. Then where two lines cross, which is the answer to
\"when memory pressure is low ... when it is high\": differences within a tenth, or within what seeds differ, are no crossing.

Examples:
  highwater sweep rfc                         all presets at 0.8, 1.2, 2, 4 and 8 x memory, in the lab
  highwater sweep rfc --preset 2.6.35,rfc-2010 --pressure 0.5,1,2,4,8,16 --html sweep.html
  highwater sweep slow-disk --device hdd-7200 --seeds 5
  highwater sweep hot-clean --task hot        the hit path of the hot set
  highwater sweep rfc --world os --seeds 1    on real files, through io_uring

Exit codes: 0 all cells ran, 1 one failed, 2 the command line makes no sense.";

/// Arguments of `sweep`.
#[derive(Clone, Debug, Args)]
pub struct SweepArgs {
    /// A built-in scenario's name (`highwater scenarios` lists them), or the path of a TOML file
    #[arg(default_value = "rfc")]
    pub scenario: String,
    /// Data over memory, rising, with commas between
    #[arg(long, value_name = "LIST", default_value = super::pressure::DEFAULT, allow_hyphen_values = true)]
    pub pressure: String,
    /// Where it runs: lab (virtual time, repeatable) or os (real files)
    #[arg(long, default_value = "lab")]
    pub world: String,
    /// Presets with commas between, or all [default: the scenario's own, with its arms]
    #[arg(long)]
    pub preset: Option<String>,
    /// Whose p99.9 is compared [default: the probe that takes fresh pages, else the first task]
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// The budget, such as 64MiB [default: the scenario's own]
    #[arg(long, value_parser = parse_bytes)]
    pub memory: Option<u64>,
    /// How long each cell is measured
    #[arg(long, value_parser = parse_duration, default_value = "500ms")]
    pub duration: Duration,
    /// Run each cell with so many seeds: medians are compared, and differences within their spread are none
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub seeds: u32,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The lab's disk: a built-in device's name (`highwater devices` lists them), or the path of a profile
    #[arg(long, value_name = "NAME|FILE")]
    pub device: Option<String>,
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
}

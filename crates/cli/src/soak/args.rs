//! The command line of `soak`.

use crate::jobs::parse_jobs;
use crate::units::parse_seed;
use clap::Args;
use std::path::PathBuf;

/// What `--help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  highwater soak                       100 seeds on all CPUs
  highwater soak --seeds 1000          a thousand; ends at the first that fails
  highwater soak --seed 17 --seeds 1   one, as a failure's last line says
  highwater soak --seeds 200 --json soak.json
  highwater soak --stack 8KiB --preset highwater --seeds 1000
                                       every task on a small stack, by one preset's policy

A seed draws memory, frame size, policies, disks, files, tasks, faults and power cuts, and runs at least 20,000 operations in \
virtual time. What must hold: a read returns the last write, every synced byte survives a crash, no write is lost without \
an error, every task goes on, all invariants hold, the budget is never passed, no wake-up is lost.

Exit codes: 0 all seeds passed, 1 one failed, or 100 seeds and more left a slow path unreached.";

/// Arguments of `soak`.
#[derive(Clone, Debug, Args)]
pub struct SoakArgs {
    /// How many seeds [default: 100, or 1 with --seed]
    #[arg(long, value_name = "N")]
    pub seeds: Option<u64>,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 0, allow_hyphen_values = true, value_parser = parse_seed)]
    pub seed: u64,
    /// Seeds at one time, at most 1024 [default: one for each CPU]
    #[arg(long, value_name = "J", value_parser = parse_jobs)]
    pub jobs: Option<usize>,
    /// Print what each seed draws [default: with one seed]
    #[arg(long)]
    pub verbose: bool,
    /// Go on after a seed that failed
    #[arg(long)]
    pub keep_going: bool,
    /// Print how often each counter was reached, also for fewer than 100 seeds
    #[arg(long)]
    pub coverage: bool,
    /// Bytes of stack for each task, such as 8KiB (release builds); one that needs more is a finding, with its chain
    #[arg(long, value_name = "SIZE", value_parser = crate::stack::parse_stack)]
    pub stack: Option<u64>,
    /// Run all seeds with one preset's policy [default: each seed draws its own]
    #[arg(long)]
    pub preset: Option<String>,
    /// Run with a bug planted in the engine, which the seeds must find (builds with --features plant)
    #[arg(long, value_name = "BUG")]
    pub plant: Option<String>,
    /// Write the summary as JSON to a file, or to standard output with -
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
}

//! The arguments of `highwater stack`, and what a stack's size may be.

use crate::args::Common;
use crate::jobs::parse_jobs;
use crate::units::{parse_bytes, parse_duration};
use clap::Args;
use highwater_lab::stack::{ALIGN, SIZE_MIN};
use std::path::PathBuf;
use std::time::Duration;

/// No stack is larger.
const SIZE_MAX: u64 = 64 << 20;

pub const EXAMPLES: &str = "\
For each preset a row for each kind of task: bytes of stack that it used, counted to the word, and the engine's share of \
them; then the chain of calls at the record, in the format of Linux's stack tracer. In the lab each arm runs twice: the \
second run, the same to the byte, stops where the first was deepest. In the world os the chain is that of the deepest of \
the places that look (park, submit), while the depth is counted to the word.

Examples:
  highwater stack rfc                          all presets of the scenario, in the lab
  highwater stack rfc --stack 8KiB             on stacks of 8 KiB: an overflow is the finding
  highwater stack rfc --stack 8KiB --preset highwater --duration 1s --seeds 1000
                                               1,000 seeds of it
  highwater stack rfc --world os               on threads and real files
  highwater stack --table                      what a caller must have free, by entry and preset
  highwater stack --table --write crates/lab/stack-table.toml
                                               the same, into the checked-in table

Exit codes: 0 measured, 1 a stack overflowed or a run failed, 2 the command line makes no sense.";

/// Arguments of `stack`.
#[derive(Clone, Debug, Args)]
pub struct StackArgs {
    /// A built-in scenario's name (`highwater scenarios` lists them), or the path of a TOML file
    #[arg(default_value = "rfc")]
    pub scenario: String,
    /// Where it runs: lab or os
    #[arg(long, default_value = "lab")]
    pub world: String,
    /// Presets with commas between, or all [default: the scenario's own]
    #[arg(long)]
    pub preset: Option<String>,
    /// The lab only: bytes of stack for each task, such as 8KiB [default: 256KiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_stack)]
    pub stack: Option<u64>,
    /// The lab only: so many seeds, from --seed on; prints the deepest of all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: Option<u64>,
    /// Seeds at one time, at most 1024 [default: one for each CPU]
    #[arg(long, value_name = "J", requires = "seeds", value_parser = parse_jobs)]
    pub jobs: Option<usize>,
    /// The budget of each arm, such as 64MiB [default: the scenario's own]
    #[arg(long, value_parser = parse_bytes)]
    pub memory: Option<u64>,
    /// How long each arm is measured, such as 5s [default: the scenario's own]
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// End each arm after so many measured operations instead of after a duration
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    pub ops: Option<u64>,
    /// Measure each public entry point in each preset instead of a scenario
    #[arg(long, conflicts_with_all = ["stack", "seeds", "memory", "duration", "ops", "preset"])]
    pub table: bool,
    /// Write this build's column into the checked-in table
    #[arg(long, value_name = "FILE", requires = "table")]
    pub write: Option<PathBuf>,
    /// Everything shared with `run`
    #[command(flatten)]
    pub common: Common,
}

/// The size of a stack, from the command line.
///
/// # Errors
/// What is wrong with it.
pub fn parse_stack(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if !(SIZE_MIN as u64..=SIZE_MAX).contains(&bytes) {
        return Err(format!(
            "a stack of {bytes} bytes: expected 4KiB to 64MiB, such as 8KiB"
        ));
    }
    if !bytes.is_multiple_of(ALIGN as u64) {
        let near = bytes.next_multiple_of(ALIGN as u64);
        return Err(format!(
            "a stack of {bytes} bytes: expected a multiple of {ALIGN}, such as {near}"
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_no_stack_can_have_are_refused_with_one_that_it_can() {
        assert_eq!(parse_stack("8KiB"), Ok(8192));
        assert_eq!(parse_stack("8208"), Ok(8208));
        assert!(parse_stack("8200").unwrap_err().contains("such as 8208"));
        assert!(parse_stack("4095").unwrap_err().contains("4KiB"));
        assert!(parse_stack("1GiB").unwrap_err().contains("64MiB"));
        assert!(parse_stack("small").is_err());
    }
}

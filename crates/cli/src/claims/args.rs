//! The command line of `claims`.

use crate::units::parse_seed;
use clap::Args;
use std::path::PathBuf;

/// What `--help` ends with.
pub const EXAMPLES: &str = "\
The mail is Mel Gorman's answer to Andrea Arcangeli of 15 June 2010, on patches that keep direct reclaim from writing dirty \
pages. Both claim things that can be measured, and here they are: each claim has a small scenario, figures, and a rule that \
makes a verdict of the figures:

  holds           in each condition (a quick disk, a slow one, ...) and with four seeds in five
  does not hold   in none
  depends on ...  here so, there otherwise; what the conditions differ in
  not measured    and why

The sides are presets: 2.6.35 writes from direct reclaim, rfc-2010 does not. \"OOM\" counts where the kernel's rule of those \
years would have been out of memory, as this engine goes on waiting.

Examples:
  highwater claims                            all of them, in one to two minutes
  highwater claims --only naps-below-2 --verbose
                                              quotation, scenario, rule, and figures of each seed
  highwater claims --only false-oom,no-new-oom --seeds 10
  highwater claims --json claims.json
  highwater claims --update docs/the-mail.md  the figures of the page again

Exit codes: 0 all claims were looked at, whatever their verdict; 1 a run failed; 2 the command line makes no sense.";

/// Arguments of `claims`.
#[derive(Clone, Debug, Args)]
pub struct ClaimsArgs {
    /// Names of claims, with commas between [default: all]
    #[arg(long, value_name = "NAMES")]
    pub only: Option<String>,
    /// Where it runs: lab (virtual time, repeatable) or os (real files)
    #[arg(long, default_value = "lab")]
    pub world: String,
    /// Look at each claim with so many seeds [default: 5 in the lab, 1 on real files]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub seeds: Option<u32>,
    /// The first seed
    #[arg(long, default_value_t = 1, allow_hyphen_values = true, value_parser = parse_seed)]
    pub seed: u64,
    /// Quotation, scenario, rule and all figures of each claim, below the table
    #[arg(long, short)]
    pub verbose: bool,
    /// Where the data goes in the world os [default: as `run`]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Write claims, figures and verdicts as JSON to a file, or to standard output with -
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
    /// Print the part of docs/the-mail.md that this command makes
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// Put that part between the markers of a file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "only"])]
    pub update: Option<PathBuf>,
}

//! The command line.

use crate::rows::{GROUPS, Group};
use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

/// Highwater's numbers beside their peers, in one table.
#[derive(Debug, Parser)]
#[command(name = "highwater-bench", version)]
pub struct Args {
    /// Rows to measure, by name; all when none is named. `scenarios` stands for those that need a cgroup or `highwater`
    #[arg(value_name = "ROW", value_parser = known)]
    pub rows: Vec<String>,
    /// Three short rounds of each: a look, not a result
    #[arg(long)]
    pub quick: bool,
    /// Where the data goes (3 GiB) [default: the system's directory for temporary files]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Write the rows as JSON to this file, too
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// The seed of all random numbers
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

fn known(name: &str) -> Result<String, String> {
    if name == "scenarios" || GROUPS.iter().any(|g| g.name == name) {
        return Ok(name.into());
    }
    let names: Vec<&str> = GROUPS.iter().map(|g| g.name).collect();
    Err(format!(
        "no such row; there are: {}, scenarios",
        names.join(", ")
    ))
}

impl Args {
    /// Whether the group was asked for.
    pub fn wants(&self, group: &Group) -> bool {
        self.rows.is_empty()
            || self
                .rows
                .iter()
                .any(|r| r == group.name || (r == "scenarios" && group.scenario))
    }

    /// Rounds, and the length of each, of rows that live in memory: 15 of 150 ms.
    pub fn memory_rounds(&self) -> (usize, Duration) {
        if self.quick {
            (3, Duration::from_millis(50))
        } else {
            (15, Duration::from_millis(150))
        }
    }

    /// The same of rows that use the disk: more than 20 s for each side.
    pub fn disk_rounds(&self) -> (usize, Duration) {
        if self.quick {
            (3, Duration::from_millis(300))
        } else {
            (21, Duration::from_secs(1))
        }
    }

    /// The same of scenarios: seven of 3 s, 21 s for each side.
    pub fn scenario_rounds(&self) -> (usize, Duration) {
        if self.quick {
            (1, Duration::from_secs(1))
        } else {
            (7, Duration::from_secs(3))
        }
    }
}

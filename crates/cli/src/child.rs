//! The hidden sub-command `run-arm`: one arm in a process of its own, so that arms do not share memory, peaks or faults.
//!
//! The plan comes as JSON on standard input, the report goes as JSON to standard output.

use crate::error::{CliError, Result};
use crate::plan::{Plan, WorldName};
use crate::report::ArmReport;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What the parent sends.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// The arm.
    pub plan: Plan,
    /// The tracing instance of a Linux arm.
    pub trace_dir: Option<PathBuf>,
}

/// Reads the order, runs it, prints the report.
///
/// # Errors
/// The arm's.
pub fn main() -> Result<()> {
    // The child never outlives its parent, which owns what must be cleaned up.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let order: Order = serde_json::from_reader(std::io::stdin().lock()).map_err(|e| {
        CliError::usage(
            format!("run-arm: {e}"),
            "this sub-command is internal; use `highwater run`",
        )
    })?;
    crate::progress::tell();
    let plan = &order.plan;
    let report = match plan.arm.world {
        WorldName::Os => crate::world_os::run(plan),
        WorldName::Lab => crate::world_lab::run(plan),
        WorldName::Linux => crate::world_linux::run(plan, order.trace_dir.as_deref()),
        WorldName::Raw => crate::raw::run(plan),
    }?;
    crate::print(&(to_json(&report)? + "\n"));
    Ok(())
}

fn to_json(report: &ArmReport) -> Result<String> {
    serde_json::to_string(report)
        .map_err(|e| CliError::failed(e.to_string(), "report this as a bug"))
}

/// A field of `/proc/self/status`, in bytes.
pub fn status_bytes(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_at_least_what_is_resident() {
        let resident = status_bytes("VmRSS");
        assert!(status_bytes("VmHWM") >= resident);
        assert!(status_bytes("VmRSS") > 100 << 10);
        assert_eq!(status_bytes("NoSuch"), 0);
    }
}

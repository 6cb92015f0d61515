//! What a Linux arm needs of the machine, set up and undone by the parent: a memory cgroup, fair dirty limits, the
//! kernel's tracepoints, and a limited device.
//!
//! **Fair to Linux.** A v1 group has no dirty throttling of its own, so `vm.dirty_bytes` and `vm.dirty_background_bytes`
//! are set to Linux's shares of that size (20 % and 10 %, or what the scenario sets for every arm), and restored. A limited device is
//! limited for Linux too, and the limit is verified with raw `O_DIRECT` before anything is measured.

pub mod cgroup;
pub mod loopdev;
pub mod sysctl;
pub mod trace;

use crate::cleanup::Undo;
use crate::error::{CliError, Result};
use crate::plan::Plan;
use cgroup::{Group, Version};
use std::path::PathBuf;

/// Everything set up for one Linux arm; dropping it undoes it.
pub struct Setup {
    /// The arm's label: `linux (cgroup v1)`.
    pub world: String,
    /// The tracing instance, where tracepoints can be read.
    pub trace_dir: Option<PathBuf>,
    /// What the user should know.
    pub notes: Vec<String>,
    // Dropped in this order: the group is empty once the child has ended.
    _undo: Vec<Undo>,
}

/// Sets the machine up for `plan`, and puts the cgroup and the places of the files into it.
///
/// # Errors
/// What is missing, and how to get it.
pub fn set_up(plan: &mut Plan) -> Result<Setup> {
    let mut undo = Vec::new();
    let mut notes = Vec::new();
    let (group, guard) = Group::create()?;
    undo.push(guard);
    plan.cgroup = Some(group.path.clone());
    if group.version == Version::V1 {
        let policy = plan.arm.policy()?;
        undo.extend(sysctl::fair_dirty_limits(
            plan.memory,
            policy.background_percent,
            policy.limit_percent,
        )?);
    }
    if let Some(limit) = plan.limit {
        undo.extend(loopdev::move_files(plan, limit, &group, &mut notes)?);
    }
    let trace_dir = match trace::create() {
        Ok((dir, guards)) => {
            undo.extend(guards);
            Some(dir)
        }
        Err(why) => {
            notes.push(format!(
                "no tracepoints ({why}): Linux's reclaim time is unknown and shown as -"
            ));
            None
        }
    };
    let world = match group.version {
        Version::V1 => "linux (cgroup v1)",
        Version::V2 => "linux (cgroup v2)",
    };
    // Newest first, as on a signal.
    undo.reverse();
    Ok(Setup {
        world: world.to_string(),
        trace_dir,
        notes,
        _undo: undo,
    })
}

/// Reads a small file of the kernel's, without its newline.
fn read(path: &std::path::Path) -> std::io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_string())
}

/// Writes a small file of the kernel's.
fn write(path: &std::path::Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| {
        CliError::os(
            format!("write {text:?} to {}", path.display()),
            e,
            "run as root",
        )
    })
}

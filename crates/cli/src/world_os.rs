//! The OS arm: the engine on threads, io_uring and real files.

use crate::child::status_bytes;
use crate::engine_arm::{self, backing, failed};
use crate::error::{CliError, Result};
use crate::plan::{Plan, PlanFile};
use crate::report::ArmReport;
use highwater::{DirectIo, FileDevice, IoEngine, OsWorld, RateLimited};
use highwater_engine::world::Device;
use highwater_engine::{Backing, FileId};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

/// Runs the arm in this process.
///
/// # Errors
/// What the files or the engine answer.
pub fn run(plan: &Plan) -> Result<ArmReport> {
    let idle = status_bytes("VmRSS");
    let world = OsWorld::new(IoEngine::Auto).map_err(|e| failed(plan, "start", &e))?;
    let backings = plan
        .files
        .iter()
        .map(|f| open(plan, &world, f))
        .collect::<Result<_>>()?;
    let mut report = engine_arm::run(plan, &world, backings)?;
    report.peak_rss_bytes = status_bytes("VmHWM");
    report.idle_rss_bytes = idle;
    world.shutdown();
    Ok(report)
}

fn open(plan: &Plan, world: &Arc<OsWorld>, file: &PlanFile) -> Result<(FileId, Arc<dyn Backing>)> {
    let path = &file.path;
    let os = |e: std::io::Error| {
        CliError::os(
            path.display(),
            e,
            "--dir with a directory that you may write to",
        )
    };
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(os)?;
    let meta = opened.metadata().map_err(os)?;
    let id = FileId {
        dev: meta.dev(),
        ino: meta.ino(),
    };
    let device = FileDevice::new(world, path, opened.into(), true, DirectIo::Auto)
        .map_err(|e| failed(plan, "open", &e))?;
    if !device.direct() && file.path == plan.files[0].path {
        eprintln!(
            "{} refuses O_DIRECT: I/O goes through Linux's page cache too",
            path.display()
        );
    }
    let device: Arc<dyn Device> = match plan.limit {
        Some(limit) => {
            let limiter = world.limited(&device, limit.bytes_per_s, limit.iops);
            Arc::new(RateLimited::new(device, limiter))
        }
        None => Arc::new(device),
    };
    Ok((id, backing(plan, device)))
}

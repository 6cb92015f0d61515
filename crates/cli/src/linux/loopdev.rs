//! A limited device for a Linux arm: a loop device over one file under `--dir`, limited by `blkio.throttle` at the root
//! group (v1) or `io.max` of the arm's group (v2), and the limit verified with raw `O_DIRECT` before it is believed.
//!
//! The scenario's files become regions of the device, so that no file system stands between.

use super::cgroup::{Group, Version};
use super::write;
use crate::cleanup::{Undo, undo};
use crate::error::{CliError, Result};
use crate::plan::Plan;
use crate::raw::{Job, Work, random};
use crate::scenario::DeviceLimit;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How far from the limit a verified device may be.
const TOLERANCE: f64 = 0.3;

/// Puts the plan's files onto a limited loop device.
///
/// # Errors
/// Why the arm cannot be run fairly.
pub fn move_files(
    plan: &mut Plan,
    limit: DeviceLimit,
    group: &Group,
    notes: &mut Vec<String>,
) -> Result<Vec<Undo>> {
    let mut guards = Vec::new();
    let dir = plan
        .files
        .first()
        .and_then(|f| f.path.parent())
        .unwrap_or(Path::new("."))
        .to_path_buf();
    let image = dir.join("disk.img");
    let gone = image.clone();
    guards.push(undo(move || {
        let _ = std::fs::remove_file(&gone);
    }));
    let mut start = 0;
    // Files with blocks first: they are laid out, the rest of the image stays a hole.
    plan.files.sort_by_key(|f| f.sparse);
    let order: Vec<String> = plan.files.iter().map(|f| f.name.clone()).collect();
    let laid_out: u64 = plan.files.iter().filter(|f| !f.sparse).map(|f| f.len).sum();
    crate::place::lay_out(&image, laid_out, false)?;
    for file in &mut plan.files {
        file.start = start;
        start += file.len;
    }
    std::fs::OpenOptions::new()
        .write(true)
        .open(&image)
        .and_then(|f| f.set_len(start))
        .map_err(|e| CliError::os(image.display(), e, "--dir with a disk that has room"))?;
    let device = attach(&image)?;
    let detached = device.clone();
    guards.push(undo(move || {
        let _ = Command::new("losetup").arg("-d").arg(&detached).status();
    }));
    guards.push(throttle(&device, limit, group)?);
    let seen = verify(&device, laid_out, limit)?;
    notes.push(format!(
        "linux's device is {} limited to {} bytes/s and {} requests/s; raw O_DIRECT sees {seen:.0} writes/s there; reads and writes are limited each by themselves",
        device.display(),
        limit.bytes_per_s,
        limit.iops
    ));
    for file in &mut plan.files {
        file.path = device.clone();
    }
    debug_assert_eq!(order.len(), plan.files.len());
    Ok(guards)
}

fn attach(image: &Path) -> Result<PathBuf> {
    let remedy = "run as root on a machine with the loop driver and util-linux's losetup";
    let out = Command::new("losetup")
        .args(["--direct-io=on", "--find", "--show"])
        .arg(image)
        .output()
        .map_err(|e| CliError::os("losetup", e, remedy))?;
    if !out.status.success() {
        let why = String::from_utf8_lossy(&out.stderr).trim().to_string();
        return Err(CliError::failed(
            format!("not run: no loop device: {why}"),
            remedy,
        ));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()))
}

/// Limits the device; the guard lifts the limit.
fn throttle(device: &Path, limit: DeviceLimit, group: &Group) -> Result<Undo> {
    let meta =
        std::fs::metadata(device).map_err(|e| CliError::os(device.display(), e, "run as root"))?;
    let (major, minor) = (
        rustix::fs::major(meta.rdev()),
        rustix::fs::minor(meta.rdev()),
    );
    let name = format!("{major}:{minor}");
    if group.version == Version::V2 {
        let file = group.path.join("io.max");
        let text = format!(
            "{name} rbps={b} wbps={b} riops={i} wiops={i}",
            b = limit.bytes_per_s,
            i = limit.iops
        );
        write(&file, &text)?;
        return Ok(undo(move || {
            let _ = std::fs::write(
                &file,
                format!("{name} rbps=max wbps=max riops=max wiops=max"),
            );
        }));
    }
    let Some(root) = blkio_root() else {
        return Err(CliError::failed(
            "not run: the blkio controller of cgroup v1 is not mounted, so the device cannot be limited for Linux",
            "mount it: `mount -t cgroup -o blkio none /sys/fs/cgroup/blkio`",
        ));
    };
    let files = [
        ("read_bps", limit.bytes_per_s),
        ("write_bps", limit.bytes_per_s),
        ("read_iops", limit.iops),
        ("write_iops", limit.iops),
    ]
    .map(|(what, n)| (root.join(format!("blkio.throttle.{what}_device")), n));
    let lift = files.clone().map(|(file, _)| file);
    let lifted = name.clone();
    let guard = undo(move || {
        for file in &lift {
            let _ = std::fs::write(file, format!("{lifted} 0"));
        }
    });
    for (file, n) in &files {
        write(file, &format!("{name} {n}"))?;
    }
    Ok(guard)
}

fn blkio_root() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let f: Vec<&str> = line.split(' ').collect();
        (f.len() > 3 && f[2] == "cgroup" && f[3].split(',').any(|o| o == "blkio"))
            .then(|| PathBuf::from(f[1]))
    })
}

/// Raw random writes see the limit, or the arm is not run. Returns writes a second.
fn verify(device: &Path, len: u64, limit: DeviceLimit) -> Result<f64> {
    let job = Job {
        path: device.to_path_buf(),
        start: 0,
        len,
        io: 4096,
        depth: 64,
        duration: Duration::from_millis(1200),
        work: Work::default(),
        pieces: 1,
        cpus: Vec::new(),
    };
    let seen = random(&job)?.ops_per_s();
    let want = (limit.iops as f64).min(limit.bytes_per_s as f64 / 4096.0);
    if (seen / want - 1.0).abs() > TOLERANCE {
        return Err(CliError::failed(
            format!(
                "not run: the device does not keep its limit: raw O_DIRECT sees {seen:.0} writes/s, not {want:.0}"
            ),
            "run in the root blkio group on a quiet machine; a disk slower than the limit cannot be compared",
        ));
    }
    Ok(seen)
}

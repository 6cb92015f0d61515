//! What the numbers were measured on.

use crate::args::Args;
use serde::Serialize;
use std::path::Path;
use std::process::Command;

/// The head of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// The commit, with `+` when files differ from it.
    pub commit: String,
    /// The kernel's release.
    pub kernel: String,
    /// The CPU's name and how many there are.
    pub cpu: String,
    /// The device under the directory, and its scheduler.
    pub device: String,
    /// The file system.
    pub file_system: String,
    /// Whether malloc, too, gets huge pages.
    pub huge_pages: String,
    /// Load average at the start.
    pub load: String,
    /// The seed.
    pub seed: u64,
    /// Rounds: memory, disk, scenarios.
    pub rounds: [usize; 3],
    /// Too few rounds to mean anything.
    pub quick: bool,
}

fn read(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_string())
}

fn git(args: &[&str]) -> Option<String> {
    let out = Command::new("git").args(args).output().ok()?;
    out.status
        .success()
        .then(|| String::from_utf8_lossy(&out.stdout).trim().to_string())
}

/// The load averages, or `?`.
pub fn load() -> String {
    read("/proc/loadavg")
        .map(|l| l.split(' ').take(3).collect::<Vec<_>>().join(" "))
        .unwrap_or_else(|| "?".into())
}

/// Device and file system of `dir`, from its line in mountinfo: the one with the longest mount point above it.
fn mount_of(dir: &Path) -> Option<(String, String)> {
    let text = read("/proc/self/mountinfo")?;
    let best = text
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let point = left.split(' ').nth(4)?;
            let mut right = right.split(' ');
            let (kind, source) = (right.next()?, right.next()?);
            let number = left.split(' ').nth(2)?;
            dir.starts_with(point)
                .then(|| (point.len(), kind.to_string(), source, number))
        })
        .max_by_key(|m| m.0)?;
    let (_, kind, source, number) = best;
    let scheduler = read(&format!("/sys/dev/block/{number}/queue/scheduler"))
        .and_then(|s| Some(s.split('[').nth(1)?.split(']').next()?.to_string()));
    let device = match scheduler {
        Some(s) => format!("{source} (scheduler {s})"),
        None => source.to_string(),
    };
    Some((device, kind))
}

impl Host {
    /// Looks around; what cannot be known is `?`.
    pub fn read(dir: &Path, args: &Args) -> Host {
        let unknown = || "?".to_string();
        let (device, file_system) = mount_of(dir).unwrap_or_else(|| (unknown(), unknown()));
        let commit = git(&["rev-parse", "--short", "HEAD"]).map_or_else(unknown, |c| {
            let changed = git(&["status", "--porcelain"]).is_some_and(|s| !s.is_empty());
            if changed { format!("{c}+") } else { c }
        });
        let model = read("/proc/cpuinfo").and_then(|t| {
            let line = t.lines().find(|l| l.starts_with("model name"))?;
            Some(line.split(": ").nth(1)?.to_string())
        });
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let huge_pages = read("/sys/kernel/mm/transparent_hugepage/enabled")
            .and_then(|s| Some(s.split('[').nth(1)?.split(']').next()?.to_string()));
        Host {
            commit,
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            cpu: format!("{} x {cpus}", model.unwrap_or_else(unknown)),
            device,
            file_system,
            huge_pages: huge_pages.unwrap_or_else(unknown),
            load: load(),
            seed: args.seed,
            rounds: [
                args.memory_rounds().0,
                args.disk_rounds().0,
                args.scenario_rounds().0,
            ],
            quick: args.quick,
        }
    }

    /// As lines above the table.
    pub fn head(&self) -> String {
        let [memory, disk, scenario] = self.rounds;
        let quick = if self.quick {
            "\n--quick: too few rounds to quote"
        } else {
            ""
        };
        format!(
            "commit {} · kernel {} · {} · {} on {} · transparent huge pages: {}\nseed {} · N = {memory} rounds in memory, {disk} on disk, {scenario} of scenarios, sides in turn · median (least–most) · ratio above 1: Highwater is better{quick}",
            self.commit,
            self.kernel,
            self.cpu,
            self.file_system,
            self.device,
            self.huge_pages,
            self.seed
        )
    }
}

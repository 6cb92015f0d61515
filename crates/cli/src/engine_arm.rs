//! What the OS arm and the lab arm have in common: the engine's counters, and the report made from them.

use crate::blocks::PerBlock;
use crate::cpu;
use crate::error::{CliError, Result};
use crate::measure::{Counters, measure};
use crate::plan::Plan;
use crate::report::{ArmReport, Stall, Written};
use crate::samples::Reading;
use crate::target::{Handle, WorldHost};
use highwater_engine::backing::journaled::{Volume, VolumeInfo};
use highwater_engine::world::Nanos;
use highwater_engine::{Error, Event, Stats, World};
use std::sync::Arc;

/// Requests with data that volumes have made.
const VOLUME_WRITES: &str = "volume_data_writes";
/// Their bytes.
const VOLUME_BYTES: &str = "volume_data_bytes";

/// An engine's error as the command's.
pub fn failed(plan: &Plan, what: &str, e: &Error) -> CliError {
    let remedy = match e {
        Error::Config(_) => "a larger --memory, or other knobs in the scenario",
        Error::OutOfMemory(_) | Error::AllPinned { .. } => {
            "a larger --memory, or fewer threads in the scenario"
        }
        _ => "check the disk under --dir, or run the scenario with --world lab",
    };
    CliError::failed(format!("{}: {what}: {e}", plan.arm.title()), remedy)
}

/// A volume's error as the command's.
pub fn volume_failed(plan: &Plan, file: &str, e: &dyn std::fmt::Display) -> CliError {
    CliError::failed(
        format!("{}: the volume of files.{file}: {e}", plan.arm.title()),
        "a larger capacity in the scenario, or a larger --memory",
    )
}

/// The engine's counters, and those of the volumes that its files are on.
pub fn with_volumes(mut stats: Stats, volumes: &[Arc<Volume>]) -> Stats {
    if volumes.is_empty() {
        return stats;
    }
    let infos: Vec<VolumeInfo> = volumes.iter().map(|v| v.info()).collect();
    let sum = |f: fn(&VolumeInfo) -> u64| infos.iter().map(f).sum::<u64>();
    stats.events.extend([
        (VOLUME_WRITES, sum(|v| v.data_writes)),
        (VOLUME_BYTES, sum(|v| v.data_bytes)),
        ("volume_log_writes", sum(|v| v.log_writes)),
        ("volume_log_writes_ahead", sum(|v| v.log_writes_ahead)),
        ("volume_commits", sum(|v| v.commits)),
        ("volume_checkpoints", sum(|v| v.checkpoints)),
    ]);
    stats
}

/// Measures the plan over `files` (in the plan's order), and fills in what the engine's counters say; `cpu_ns`: CPU of the
/// tasks whose name begins so, in nanoseconds.
///
/// # Errors
/// The first failure of a task.
pub fn run<W: World, F: Handle>(
    plan: &Plan,
    world: &Arc<W>,
    files: &[F],
    stats: impl Fn() -> Stats + Clone + Send + Sync + 'static,
    cpu_ns: impl Fn(&str) -> u64,
) -> Result<ArmReport> {
    let host = Arc::new(WorldHost(world.clone()));
    let counters = || -> Counters {
        let mut counters = stats().events;
        counters.extend(cpu::COUNTERS.map(|(name, prefix)| (name, cpu_ns(prefix))));
        counters
            .into_iter()
            .map(|(name, v)| (name.to_string(), v))
            .collect()
    };
    let sampled = stats.clone();
    let probe = Arc::new(move || Reading::of_engine(&sampled()));
    let mut report = measure(plan, &host, files, counters, probe)?;
    fill(&mut report);
    if plan.tasks.iter().any(|t| t.blocks.is_some()) {
        report.per_block = PerBlock::of(&report);
    }
    Ok(report)
}

/// The report's fields that come from counters.
fn fill(report: &mut ArmReport) {
    let get = |event: Event| report.count(event.name()).unwrap_or(0);
    let seconds = |event: Event| Some(Nanos(get(event)).as_secs_f64());
    let looked_up = get(Event::Hits) + get(Event::Misses);
    let hit_ratio = (looked_up > 0).then(|| get(Event::Hits) as f64 / looked_up as f64);
    // Behind a volume, what the disk sees: pages that are neighbours there, wherever they are in the file.
    let of_volumes = (report.count(VOLUME_WRITES), report.count(VOLUME_BYTES));
    let (requests, bytes) = match of_volumes {
        (Some(requests), Some(bytes)) => (requests, bytes),
        _ => (get(Event::WriteRequests), get(Event::WriteBytes)),
    };
    let mean = (requests > 0).then(|| bytes as f64 / 1024.0 / requests as f64);
    let stall = Stall {
        alloc: seconds(Event::AllocStallNs),
        throttle: seconds(Event::ThrottleNs),
        longest: report.stall_s.longest,
    };
    let written = Written {
        direct: Some(get(Event::WrittenDirect)),
        kswapd: Some(get(Event::WrittenKswapd)),
        flusher: Some(get(Event::WrittenFlusher)),
        writer: Some(get(Event::WrittenWriter)),
        sync: Some(get(Event::WrittenSync)),
    };
    let refaults = Some(get(Event::WorkingsetRefaultFile));
    (report.hit_ratio, report.write_kib_mean, report.refaults) = (hit_ratio, mean, refaults);
    (report.stall_s, report.written_pages) = (stall, written);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_become_the_report_s_fields() {
        let mut report = ArmReport::default();
        for (event, n) in [
            (Event::Hits, 75),
            (Event::Misses, 25),
            (Event::WriteRequests, 4),
            (Event::WriteBytes, 64 << 10),
            (Event::AllocStallNs, 1_500_000_000),
            (Event::WrittenKswapd, 7),
            (Event::WorkingsetRefaultFile, 3),
        ] {
            report.vmstat.insert(event.name().to_string(), n);
        }
        report.stall_s.longest = Some(0.5);
        fill(&mut report);
        assert_eq!(report.hit_ratio, Some(0.75));
        assert_eq!(report.write_kib_mean, Some(16.0));
        assert_eq!(
            report.stall_s,
            Stall {
                alloc: Some(1.5),
                throttle: Some(0.0),
                longest: Some(0.5)
            }
        );
        assert_eq!(
            (report.written_pages.kswapd, report.written_pages.direct),
            (Some(7), Some(0))
        );
        assert_eq!(report.refaults, Some(3));
        // A volume's disk sees other requests than the cache makes.
        for (name, n) in [(VOLUME_WRITES, 2), (VOLUME_BYTES, 512 << 10)] {
            report.vmstat.insert(name.to_string(), n);
        }
        fill(&mut report);
        assert_eq!(report.write_kib_mean, Some(256.0));
    }
}

//! What a run found out, in the shape of `--json`.

use crate::blocks::{BlocksReport, PerBlock};
use crate::error::{CliError, Result};
use crate::replay::ReplayReport;
use crate::samples::{Limits, Samples};
use crate::stack::StackReport;
use crate::units::{show_bytes, show_count};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The whole of `--json`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// The budget.
    pub memory_bytes: u64,
    /// What its files lie on, in words: the lab's disk, and the others'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// The arms that ran.
    pub arms: Vec<ArmReport>,
    /// The run that failed, if one did: the arms are those that had ended before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Failed>,
}

/// A run that failed after others had ended, and so took theirs with it neither from the table nor from the JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failed {
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// How many runs there should have been.
    pub runs: usize,
}

/// One arm: a row of the table.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ArmReport {
    /// `os`, `lab`, `linux (cgroup v1)`, `raw`.
    pub world: String,
    /// The preset, or the arm's label.
    pub preset: String,
    /// The lab's seed, when it ran with several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Which of its arm's runs this is, from 1; absent where each runs once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<u32>,
    /// The tasks.
    pub tasks: Vec<TaskReport>,
    /// Operations a second, all tasks.
    pub ops_per_s: f64,
    /// The same, with the time of the final sync counted.
    pub ops_per_s_with_sync: f64,
    /// Seconds that tasks stood still, summed over tasks.
    pub stall_s: Stall,
    /// Hits over look-ups; null where it cannot be known.
    pub hit_ratio: Option<f64>,
    /// Refaults; null where they cannot be known.
    pub refaults: Option<u64>,
    /// Who wrote how many pages.
    pub written_pages: Written,
    /// Mean size of a write request; null without writes or where it cannot be known.
    pub write_kib_mean: Option<f64>,
    /// Pages that the final sync wrote, after the measured time: what was still dirty; null where it cannot be known.
    #[serde(default)]
    pub final_sync_pages: Option<u64>,
    /// Counters of the measured time, by name.
    pub vmstat: BTreeMap<String, u64>,
    /// Allocations that failed.
    pub refused: u64,
    /// Highest memory of the process (VmHWM); of the cgroup for Linux; null where it cannot be known: the lab's memory is a
    /// model's.
    pub peak_rss_bytes: Option<u64>,
    /// The same before the cache was built.
    pub idle_rss_bytes: Option<u64>,
    /// What a block of frames cost; absent where none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_block: Option<PerBlock>,
    /// The lab's own speed; absent unless asked for, as it differs from run to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real: Option<Real>,
    /// Memory, writers and waits over time; absent unless asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Samples>,
    /// The lines that its memory is held against; absent unless samples are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// How deep the tasks' stacks were used; absent unless `highwater stack` asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stacks: Option<StackReport>,
    /// The lab's disk as `--probe` measured it: its profile, as `--device` reads it; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
}

/// How fast the lab itself was, in real time.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Real {
    /// Seconds from the start of the arm to its end: building, warm-up and final checks included.
    pub total_s: f64,
    /// Seconds that the measured time took.
    pub measured_s: f64,
    /// Operations of the measured time per second of real time.
    pub ops_per_s: f64,
    /// Highest memory of the lab's process (VmHWM).
    pub peak_rss_bytes: u64,
    /// How often invariants were checked during the run.
    pub checks: u64,
}

impl std::fmt::Display for Real {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "in real time {} operations/s over {:.1} s, {:.1} s in all; peak memory {}; invariants checked {} times",
            show_count(self.ops_per_s as u64),
            self.measured_s,
            self.total_s,
            show_bytes(self.peak_rss_bytes),
            show_count(self.checks)
        )
    }
}

/// One task's numbers.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct TaskReport {
    /// Its name.
    pub name: String,
    /// Operations.
    pub ops: u64,
    /// Operations a second, all its threads.
    pub ops_per_s: f64,
    /// Bytes a second.
    pub bytes_per_s: f64,
    /// Latency in microseconds.
    pub latency_us: Latency,
    /// Pairs of a percentile (0 to 99.999) and its latency in microseconds; absent unless samples are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentiles: Option<Vec<[f64; 2]>>,
    /// What a replay did with its trace; absent for other tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayReport>,
    /// What became of its requests for blocks; absent for other tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<BlocksReport>,
}

/// Latency of one operation in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// 99.99 %.
    pub p9999: f64,
    /// The longest.
    pub max: f64,
}

/// Seconds of standing still. Null where it cannot be known.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Stall {
    /// Waiting for memory, direct reclaim included.
    pub alloc: Option<f64>,
    /// Paused, or made to write, by the throttle.
    pub throttle: Option<f64>,
    /// The longest single wait of either kind.
    pub longest: Option<f64>,
}

/// Pages written, by who wrote them. Null where it cannot be known.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Written {
    /// Direct reclaim: a thread that needed a page.
    pub direct: Option<u64>,
    /// kswapd.
    pub kswapd: Option<u64>,
    /// The flusher.
    pub flusher: Option<u64>,
    /// A throttled writer.
    pub writer: Option<u64>,
    /// Sync.
    pub sync: Option<u64>,
}

impl Report {
    /// The lines above its table: what ran, with how much memory, on what.
    pub fn head(&self) -> String {
        let disk = self.disk.as_ref();
        format!(
            "{}, memory {}\n{}",
            self.scenario,
            show_bytes(self.memory_bytes),
            disk.map_or(String::new(), |d| format!("disk: {d}\n")),
        )
    }
}

impl Report {
    /// How the command ends, once all that was measured has been told.
    ///
    /// # Errors
    /// The run that failed.
    pub fn verdict(&self) -> Result<()> {
        let Some(failed) = &self.failed else {
            return Ok(());
        };
        let message = format!(
            "{}\n  the result is that of {} of {} runs, those that had ended before",
            failed.message,
            self.arms.len(),
            failed.runs
        );
        Err(CliError::failed(message, failed.remedy.clone()))
    }
}

impl ArmReport {
    /// Leaves out what `--samples` asks for.
    pub fn drop_samples(&mut self) {
        (self.samples, self.limits) = (None, None);
        for task in &mut self.tasks {
            task.percentiles = None;
        }
    }

    /// As people read it.
    pub fn title(&self) -> String {
        let run = self.run.map_or(String::new(), |n| format!(" #{n}"));
        format!("{} {}{run}", self.world, self.preset)
    }

    /// A counter, if the arm has it.
    pub fn count(&self, name: &str) -> Option<u64> {
        self.vmstat.get(name).copied()
    }

    /// The highest p99.9 of its tasks, with the task's name.
    pub fn worst_p999(&self) -> Option<(&str, f64)> {
        self.tasks
            .iter()
            .map(|t| (t.name.as_str(), t.latency_us.p999))
            .max_by(|a, b| a.1.total_cmp(&b.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn keys(v: &Value) -> Vec<&str> {
        v.as_object()
            .expect("an object")
            .keys()
            .map(String::as_str)
            .collect()
    }

    /// The names that users parse; a change here breaks them.
    #[test]
    fn json_has_exactly_the_names_of_its_contract() {
        let arm = ArmReport {
            tasks: vec![
                TaskReport::default(),
                TaskReport {
                    replay: Some(ReplayReport::default()),
                    ..TaskReport::default()
                },
            ],
            ..ArmReport::default()
        };
        let report = Report {
            scenario: "rfc".into(),
            memory_bytes: 1,
            disk: None,
            arms: vec![arm],
            ..Report::default()
        };
        let v = serde_json::to_value(&report).unwrap();
        let sorted = |mut names: Vec<&'static str>| {
            names.sort_unstable();
            names
        };
        assert_eq!(keys(&v), sorted(vec!["scenario", "memory_bytes", "arms"]));
        let arm = &v["arms"][0];
        assert_eq!(
            keys(arm),
            sorted(vec![
                "world",
                "preset",
                "tasks",
                "ops_per_s",
                "ops_per_s_with_sync",
                "stall_s",
                "hit_ratio",
                "refaults",
                "written_pages",
                "write_kib_mean",
                "final_sync_pages",
                "vmstat",
                "refused",
                "peak_rss_bytes",
                "idle_rss_bytes",
            ])
        );
        assert_eq!(
            keys(&arm["tasks"][0]),
            sorted(vec![
                "name",
                "ops",
                "ops_per_s",
                "bytes_per_s",
                "latency_us"
            ])
        );
        assert_eq!(
            keys(&arm["tasks"][1]["replay"]),
            sorted(vec![
                "trace",
                "format",
                "records",
                "bad_lines",
                "passes",
                "preflushes",
                "reads",
                "writes",
                "flushes",
                "read_us",
                "write_us",
                "discards_skipped",
                "beyond_skipped",
                "beyond_wrapped",
                "fua_writes",
                "late_us",
            ])
        );
        assert_eq!(
            keys(&arm["tasks"][0]["latency_us"]),
            sorted(vec!["p50", "p99", "p999", "p9999", "max"])
        );
        assert_eq!(
            keys(&arm["stall_s"]),
            sorted(vec!["alloc", "throttle", "longest"])
        );
        assert_eq!(
            keys(&arm["written_pages"]),
            sorted(vec!["direct", "kswapd", "flusher", "writer", "sync"])
        );
        let with_blocks = ArmReport {
            tasks: vec![TaskReport {
                blocks: Some(BlocksReport::default()),
                ..TaskReport::default()
            }],
            per_block: Some(PerBlock::default()),
            ..ArmReport::default()
        };
        let v_blocks = serde_json::to_value(&with_blocks).unwrap();
        assert_eq!(
            keys(&v_blocks["tasks"][0]["blocks"]),
            sorted(vec![
                "order",
                "hold",
                "thp",
                "asked",
                "got",
                "success",
                "refused_us"
            ])
        );
        assert_eq!(
            keys(&v_blocks["per_block"]),
            sorted(vec![
                "blocks",
                "reclaimed",
                "lumpy",
                "moved",
                "refaults",
                "stall_us"
            ])
        );
        let with_real = ArmReport {
            real: Some(Real::default()),
            ..ArmReport::default()
        };
        let v_real = serde_json::to_value(&with_real).unwrap();
        assert_eq!(
            keys(&v_real["real"]),
            sorted(vec![
                "total_s",
                "measured_s",
                "ops_per_s",
                "peak_rss_bytes",
                "checks"
            ])
        );
        let mut with_samples = ArmReport {
            tasks: vec![TaskReport {
                percentiles: Some(vec![[50.0, 1.5]]),
                ..TaskReport::default()
            }],
            samples: Some(Samples::default()),
            limits: Some(Limits::default()),
            ..ArmReport::default()
        };
        let v_samples = serde_json::to_value(&with_samples).unwrap();
        assert_eq!(
            keys(&v_samples["samples"]),
            sorted(vec!["t_s", "frames", "lists", "counts", "ops"])
        );
        assert_eq!(
            keys(&v_samples["limits"]),
            sorted(vec![
                "page_bytes",
                "frames",
                "watermark_min",
                "watermark_low",
                "watermark_high",
                "dirty_background",
                "dirty_limit"
            ])
        );
        assert_eq!(v_samples["tasks"][0]["percentiles"][0][1], 1.5);
        with_samples.drop_samples();
        assert_eq!(
            keys(&serde_json::to_value(&with_samples).unwrap()),
            keys(&v["arms"][0])
        );
        let back: Report = serde_json::from_value(v).unwrap();
        assert_eq!(back, report);
    }
}

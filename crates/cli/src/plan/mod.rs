//! A run, resolved: what the parent hands to the child that runs one arm, and how scenarios become arms.

mod arm;

pub use arm::{Arm, arms, arms_of_orders, check, presets};

use crate::blocks::PlanBlocks;
use crate::error::{CliError, Result, did_you_mean};
use crate::replay::PlanReplay;
use crate::scenario::{BackingName, DeviceLimit, Kind, LabSpec, Scenario};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A run that ends by its number of operations ends after so long at the latest.
const OPS_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(3_600);

/// Where an arm runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorldName {
    /// The engine on threads, io_uring and real files.
    Os,
    /// The engine on coroutines, in virtual time, on a modelled device.
    Lab,
    /// Linux's own page cache in a memory cgroup.
    Linux,
    /// No cache: `O_DIRECT` at a queue depth.
    Raw,
}

impl WorldName {
    /// Those that `--world` takes.
    pub const CHOICES: [(&'static str, WorldName); 3] = [
        ("os", WorldName::Os),
        ("lab", WorldName::Lab),
        ("linux", WorldName::Linux),
    ];

    /// As in the table and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            WorldName::Os => "os",
            WorldName::Lab => "lab",
            WorldName::Linux => "linux",
            WorldName::Raw => "raw",
        }
    }

    /// From the command line: `os,linux`.
    pub fn parse_list(list: &str) -> Result<Vec<WorldName>> {
        let names = Self::CHOICES.map(|(n, _)| n);
        let mut worlds = Vec::new();
        for word in list.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let Some((_, world)) = Self::CHOICES.iter().find(|(n, _)| *n == word) else {
                let hint = did_you_mean(word, names)
                    .map_or(String::new(), |w| format!("; did you mean {w}?"));
                return Err(CliError::usage(
                    format!("unknown world {word:?}{hint}"),
                    format!("--world with one or more of {}", names.join(",")),
                ));
            };
            if !worlds.contains(world) {
                worlds.push(*world);
            }
        }
        if worlds.is_empty() {
            return Err(CliError::usage("--world names no world", "--world os"));
        }
        Ok(worlds)
    }
}

/// A file, with its place.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PlanFile {
    /// The scenario's name for it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// The first byte within `path` (a block device holds several).
    pub start: u64,
    /// Its length in bytes.
    pub len: u64,
    /// No blocks.
    pub sparse: bool,
    /// A volume holds it, of so many bytes at `path`.
    pub volume: Option<u64>,
}

/// A task, with its file as an index.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PlanTask {
    /// The name in the table.
    pub name: String,
    /// What it does.
    pub kind: Kind,
    /// Which of the plan's files.
    pub file: usize,
    /// How many do it.
    pub threads: u32,
    /// Bytes of one operation.
    pub io: u64,
    /// Operations a second and thread, at most.
    pub rate: Option<f64>,
    /// Nanoseconds between two operations.
    pub think_ns: u64,
    /// The share of writes (`zipf`).
    pub write_share: f64,
    /// The exponent (`zipf`).
    pub exponent: f64,
    /// `sync_data` after so many operations.
    pub fsync_every: Option<u64>,
    /// What it asks for (`alloc-block`).
    pub blocks: Option<PlanBlocks>,
    /// The trace (`replay`): its path, not its records.
    pub replay: Option<PlanReplay>,
}

/// Everything that a child needs to run one arm.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The row.
    pub arm: Arm,
    /// The budget in bytes.
    pub memory: u64,
    /// Bytes per frame.
    pub frame_size: usize,
    /// Bytes written through the cache before anything is measured.
    pub warm_up_bytes: u64,
    /// Nanoseconds that tasks run unmeasured.
    pub settle_ns: u64,
    /// Nanoseconds that they are measured.
    pub duration_ns: u64,
    /// They end earlier after so many measured operations.
    pub ops: Option<u64>,
    /// The lab's machine.
    pub lab: LabSpec,
    /// What work costs the lab's CPUs.
    pub costs: crate::costs::CostTable,
    /// The device's limit.
    pub limit: Option<DeviceLimit>,
    /// The lab's disk.
    pub lab_device: Option<crate::device::Named>,
    /// Files.
    pub files: Vec<PlanFile>,
    /// Tasks.
    pub tasks: Vec<PlanTask>,
    /// For the random numbers.
    pub seed: u64,
    /// The memory cgroup of a Linux arm.
    pub cgroup: Option<PathBuf>,
    /// Where the trace of reclaim goes.
    pub ftrace: Option<PathBuf>,
    /// The tasks' stacks.
    pub stack: PlanStack,
}

/// What the tasks' stacks are, and what is measured of them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PlanStack {
    /// Bytes of each (the lab only).
    pub size: Option<u64>,
    /// Measure how deep they are used.
    pub trace: bool,
    /// Tasks by number, and the depth whose chain is wanted (the lab only): what a first run measured.
    pub records: std::collections::BTreeMap<u32, u64>,
}

impl Plan {
    /// The plan of `arm`, with files of the scenario's sizes under `dir`.
    pub fn new(scenario: &Scenario, arm: Arm, dir: &std::path::Path) -> Plan {
        let memory = scenario.memory.0;
        let files: Vec<PlanFile> = scenario
            .files
            .iter()
            .map(|(name, spec)| PlanFile {
                name: name.clone(),
                path: dir.join(format!("{name}.data")),
                start: 0,
                len: spec.size.bytes(memory),
                sparse: spec.sparse,
                volume: (spec.backing == BackingName::Journaled).then(|| spec.disk_bytes(memory)),
            })
            .collect();
        let tasks = scenario
            .tasks
            .iter()
            .map(|t| PlanTask {
                name: t.name.clone(),
                kind: t.kind,
                // SCEN-1: the file is declared. A task that needs none has the first, for its cache.
                file: match t.file.get_ref().as_str() {
                    "" => 0,
                    name => files.iter().position(|f| f.name == name).expect("SCEN-1"),
                },
                threads: t.threads,
                io: t.io.0,
                rate: t.rate,
                think_ns: t.think.map_or(0, |s| s.0.as_nanos() as u64),
                write_share: t.write_share.unwrap_or(0.3),
                exponent: t.exponent.unwrap_or(0.99),
                fsync_every: t.fsync_every,
                blocks: PlanBlocks::of(t),
                replay: t.replay.clone(),
            })
            .collect();
        Plan {
            arm,
            memory,
            frame_size: scenario.frame_size.0 as usize,
            warm_up_bytes: (scenario.warm_up * memory as f64) as u64,
            settle_ns: scenario.settle.0.as_nanos() as u64,
            duration_ns: match scenario.ops {
                None => scenario.duration.0.as_nanos() as u64,
                Some(_) => OPS_TIME_MAX.as_nanos() as u64,
            },
            ops: scenario.ops,
            lab: scenario.lab,
            costs: crate::costs::CostTable::builtin(),
            limit: scenario.device,
            lab_device: scenario.lab_device.clone(),
            files,
            tasks,
            seed: 1,
            cgroup: None,
            ftrace: None,
            stack: PlanStack::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{OrderName, PolicyPatch, find};
    use highwater_engine::Preset;

    #[test]
    fn worlds_and_presets_are_lists_without_doubles() {
        assert_eq!(
            WorldName::parse_list("os, linux,os").unwrap(),
            [WorldName::Os, WorldName::Linux]
        );
        assert!(
            WorldName::parse_list("linus")
                .unwrap_err()
                .message
                .contains("did you mean linux?")
        );
        assert!(WorldName::parse_list(",").is_err());
        assert_eq!(presets(["all", "3.2"]).unwrap(), Preset::ALL);
        assert!(
            presets(["hihgwater"])
                .unwrap_err()
                .message
                .contains("did you mean highwater?")
        );
    }

    #[test]
    fn orders_cross_presets_and_show_in_the_label() {
        let mut scenario = find("rfc").unwrap();
        let worlds = [WorldName::Linux, WorldName::Lab];
        let presets = [Preset::V3_2, Preset::Highwater];
        let labels = |scenario: &Scenario, orders: &[OrderName]| -> Vec<String> {
            let arms = arms_of_orders(scenario, &worlds, &presets, orders, true, false);
            arms.iter().map(Arm::title).collect()
        };
        assert_eq!(
            labels(&scenario, &OrderName::ALL),
            [
                "linux page cache",
                "lab 3.2",
                "lab highwater",
                "lab 3.2 s3-fifo",
                "lab highwater s3-fifo"
            ]
        );
        scenario.arms = crate::scenario::load(
            "t",
            "name = 't'\nabout = 't'\nfiles.d.size = '2x'\n[[tasks]]\nname = 'r'\nkind = 'page-read'\nfile = 'd'\n\
             [[arms]]\nname = 'own'\npreset = '3.2'\norder = 's3-fifo'\n",
        )
        .unwrap()
        .arms;
        let arms = arms_of_orders(
            &scenario,
            &worlds,
            &presets,
            &[OrderName::TwoList],
            true,
            false,
        );
        let own = arms.last().unwrap();
        assert_eq!(
            (own.label.as_str(), own.order),
            ("own s3-fifo", OrderName::S3Fifo)
        );
    }

    #[test]
    fn a_plan_survives_the_way_to_the_child() {
        let mut scenario = find("slow-disk").unwrap();
        scenario.policy.pause_max = Some(crate::units::Span(std::time::Duration::from_millis(7)));
        let arm = arms(&scenario, &[WorldName::Os], &[Preset::V3_2], true, false).remove(0);
        let plan = Plan::new(&scenario, arm, std::path::Path::new("/d"));
        let text = serde_json::to_string(&plan).unwrap();
        let back: Plan = serde_json::from_str(&text).unwrap();
        assert_eq!(plan, back);
        assert_eq!(
            back.arm.policy().unwrap().pause_max,
            highwater_engine::world::Nanos::from_millis(7)
        );
        assert_eq!(back.tasks[0].io, 4096);
    }

    #[test]
    fn a_dirty_limit_takes_the_flusher_s_start_along() {
        let mut scenario = find("rfc").unwrap();
        scenario.policy = PolicyPatch::default();
        for (preset, percent, background) in [
            (Preset::Highwater, 60, 25),
            (Preset::Highwater, 24, 10),
            (Preset::V3_2, 40, 20),
            (Preset::V3_2, 1, 0),
            (Preset::Highwater, 90, 37),
        ] {
            let arm = arms(&scenario, &[WorldName::Lab], &[preset], false, false).remove(0);
            let policy = arm.with_dirty_limit(percent).unwrap().policy().unwrap();
            assert_eq!(
                (policy.limit_percent, policy.background_percent),
                (percent, background)
            );
        }
    }

    #[test]
    fn operations_in_place_of_a_duration() {
        let mut scenario = find("slow-disk").unwrap();
        let arm = arms(&scenario, &[WorldName::Lab], &[Preset::V3_2], false, false).remove(0);
        let dir = std::path::Path::new("/d");
        let plan = Plan::new(&scenario, arm.clone(), dir);
        assert_eq!(plan.ops, None);
        assert_eq!(plan.duration_ns, scenario.duration.0.as_nanos() as u64);
        scenario.ops = Some(7);
        let plan = Plan::new(&scenario, arm, dir);
        assert_eq!((plan.ops, plan.duration_ns), (Some(7), 3_600_000_000_000));
    }

    #[test]
    fn arms_are_rows_world_by_world() {
        let scenario = find("rfc").unwrap();
        let rows = arms(
            &scenario,
            &[WorldName::Os, WorldName::Linux],
            &Preset::ALL,
            true,
            true,
        );
        let titles: Vec<String> = rows.iter().map(Arm::title).collect();
        assert_eq!(titles[0], "os 2.6.35");
        assert_eq!(titles[5], "linux page cache");
        assert_eq!(titles[8], "raw O_DIRECT qd256");
    }
}

//! The runs that claims are judged by: a small work, a disk, limits of dirty memory, and an arm.
//!
//! Claims share runs: each is described by value, runs once for each seed, and is looked up by its label.

use crate::cells::Cell;
use crate::error::Result;
use crate::plan::{self, WorldName};
use crate::report::ArmReport;
use crate::scenario::{BackingName, DeviceLimit, Kind, LendName, PolicyPatch, Scenario, load};
use crate::sweep::pressure;
use crate::units::Span;
use highwater_engine::Preset;
use std::time::Duration;

/// What the tasks do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Writers, a stream and a probe (`work.toml`).
    Mixed,
    /// A cache that matters, beside a writer (`cached.toml`).
    Cached,
    /// A busy cache beside a task that asks for blocks (`blocks.toml`).
    Blocks(Blocks),
    /// Writers on a journaled volume (`deep.toml`).
    Deep,
    /// The same writers on a plain file.
    Shallow,
}

/// The blocks that a task asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blocks {
    /// Of 2^order frames.
    pub order: u32,
    /// How many it keeps.
    pub hold: u32,
    /// How many it asks for in a second.
    pub rate: u32,
    /// As a huge page is asked for: kswapd is left alone.
    pub thp: bool,
}

/// How much the disk serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disk {
    /// As the world has it: in the lab, a quick flash disk.
    Quick,
    /// 50 MB and 5,000 requests a second.
    Slow,
    /// 5 MB and 200 requests a second: one spindle, and random places.
    Spindle,
    /// 1 MB and 20 requests a second: next to no progress.
    Stuck,
}

/// How much memory may be dirty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limits {
    /// As the presets have it: 10 % and 20 % of the budget.
    Own,
    /// 50 % and 80 %: where the limit is the machine's and the memory a zone's or a group's.
    Machine,
    /// None: writers are not throttled, and the flusher starts late.
    None,
}

/// Where a run takes place.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Setting {
    /// The tasks.
    pub work: Work,
    /// The disk.
    pub disk: Disk,
    /// Dirty memory.
    pub limits: Limits,
    /// Data over memory; `None` leaves the files as the work has them.
    pub pressure: Option<f64>,
    /// How long it is measured.
    pub duration: Option<Duration>,
}

impl Setting {
    /// The work as it is written, on a quick disk, with the presets' own limits.
    pub const fn new(work: Work) -> Setting {
        Setting {
            work,
            disk: Disk::Quick,
            limits: Limits::Own,
            pressure: None,
            duration: None,
        }
    }

    /// On another disk.
    pub const fn on(self, disk: Disk) -> Setting {
        Setting { disk, ..self }
    }

    /// With other limits.
    pub const fn within(self, limits: Limits) -> Setting {
        Setting { limits, ..self }
    }

    /// With more or less data.
    pub const fn at(self, pressure: f64) -> Setting {
        Setting {
            pressure: Some(pressure),
            ..self
        }
    }

    /// Measured so long.
    pub const fn lasting(self, ms: u64) -> Setting {
        Setting {
            duration: Some(Duration::from_millis(ms)),
            ..self
        }
    }

    fn scenario(&self) -> Result<Scenario> {
        let (name, text) = match self.work {
            Work::Mixed => ("work.toml", include_str!("work.toml")),
            Work::Cached => ("cached.toml", include_str!("cached.toml")),
            Work::Blocks(_) => ("blocks.toml", include_str!("blocks.toml")),
            Work::Deep | Work::Shallow => ("deep.toml", include_str!("deep.toml")),
        };
        let mut scenario = load(name, text)?;
        if let Work::Blocks(blocks) = self.work {
            for task in scenario
                .tasks
                .iter_mut()
                .filter(|t| t.kind == Kind::AllocBlock)
            {
                (task.order, task.hold) = (Some(blocks.order), Some(blocks.hold));
                (task.rate, task.thp) = (Some(f64::from(blocks.rate)), Some(blocks.thp));
            }
        }
        if self.work == Work::Shallow {
            for file in scenario.files.values_mut() {
                file.backing = BackingName::default();
            }
        }
        let limit = |bytes_per_s, iops| Some(DeviceLimit { bytes_per_s, iops });
        scenario.device = match self.disk {
            Disk::Quick => None,
            Disk::Slow => limit(50_000_000, 5_000),
            Disk::Spindle => limit(5_000_000, 200),
            Disk::Stuck => limit(1_000_000, 20),
        };
        if let Some(duration) = self.duration {
            scenario.duration = Span(duration);
        }
        match self.pressure {
            Some(pressure) => pressure::at(&scenario, pressure),
            None => Ok(scenario),
        }
    }

    fn patch(&self) -> PolicyPatch {
        let (background, limit) = match self.limits {
            Limits::Own => (None, None),
            Limits::Machine | Limits::None => (Some(50), Some(80)),
        };
        PolicyPatch {
            background_percent: background,
            limit_percent: limit,
            throttle: (self.limits == Limits::None).then_some(crate::scenario::ThrottleName::Off),
            ..PolicyPatch::default()
        }
    }
}

/// One run of a claim, before its seed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Run {
    /// How the claim calls it.
    pub label: &'static str,
    /// Where.
    pub setting: Setting,
    /// The policies it starts from.
    pub preset: Preset,
    /// What it changes.
    pub patch: PolicyPatch,
    /// The files refuse writes from reclaim.
    pub refuse: bool,
    /// Where a volume gets memory while it writes.
    pub lend: LendName,
    /// A reclaimer never reclaims again (RECLAIM-1); the lab can do without.
    pub guard: bool,
}

impl Run {
    /// A preset as it is.
    pub fn new(label: &'static str, setting: Setting, preset: Preset) -> Run {
        Run {
            label,
            setting,
            preset,
            patch: PolicyPatch::default(),
            refuse: false,
            lend: LendName::default(),
            guard: true,
        }
    }

    /// With a volume that gets memory as any task does, by reclaim if need be.
    pub fn lending(self) -> Run {
        Run {
            lend: LendName::Reclaim,
            ..self
        }
    }

    /// With reclaimers that may reclaim again.
    pub fn unguarded(self) -> Run {
        Run {
            guard: false,
            ..self
        }
    }

    /// True when it measures stacks.
    pub fn stack(&self) -> bool {
        matches!(self.setting.work, Work::Deep | Work::Shallow)
    }

    /// Why it cannot run in `world`, if it cannot.
    pub fn refused_in(&self, world: WorldName) -> Option<&'static str> {
        (self.stack() && world != WorldName::Lab)
            .then_some("the deep chain is the lab's: its stacks are of a known size")
    }

    /// With knobs of its own.
    pub fn with(self, patch: PolicyPatch) -> Run {
        Run { patch, ..self }
    }

    /// On files that refuse writes from reclaim.
    pub fn refusing(self) -> Run {
        Run {
            refuse: true,
            ..self
        }
    }

    /// The same work: another label is no other run.
    pub fn same(&self, other: &Run) -> bool {
        Run {
            label: other.label,
            ..*self
        } == *other
    }

    fn cell(&self, world: WorldName, seed: u64) -> Result<Cell> {
        let scenario = self.setting.scenario()?;
        let mut arm = plan::arms(&scenario, &[world], &[self.preset], false, false).remove(0);
        arm.patch = self.setting.patch().then(self.patch);
        arm.refuse = self.refuse;
        (arm.lend, arm.recursion_guard) = (self.lend, self.guard);
        Ok(Cell {
            title: format!(
                "{}, {:?} disk, {:?} limits",
                arm.title(),
                self.setting.disk,
                self.setting.limits
            ),
            scenario,
            arm,
            seed,
            stack: self.stack(),
        })
    }
}

/// The two sides of the debate.
pub fn both_sides(setting: Setting) -> Vec<Run> {
    vec![
        Run::new("writes", setting, Preset::V2_6_35),
        Run::new("does-not", setting, Preset::Rfc2010),
    ]
}

/// The reports of one condition and seed, by label.
pub struct Runs<'a>(Vec<(&'static str, &'a ArmReport)>);

impl<'a> Runs<'a> {
    /// Of labels and reports.
    pub fn new(runs: Vec<(&'static str, &'a ArmReport)>) -> Runs<'a> {
        Runs(runs)
    }

    /// The report of the run `label`.
    ///
    /// # Errors
    /// When no run has it: a bug of the claim.
    pub fn get(&self, label: &str) -> std::result::Result<&'a ArmReport, String> {
        let found = self.0.iter().find(|(l, _)| *l == label);
        found
            .map(|(_, report)| *report)
            .ok_or_else(|| format!("there is no run {label}"))
    }
}

/// Every run once, and for each seed its place in the cells.
pub struct Plan {
    runs: Vec<Run>,
    seeds: Vec<u64>,
}

impl Plan {
    /// Of all runs that claims need, doubles among them.
    pub fn new(runs: impl IntoIterator<Item = Run>, seeds: &[u64]) -> Plan {
        let mut plan = Plan {
            runs: Vec::new(),
            seeds: seeds.to_vec(),
        };
        for run in runs {
            if !plan.runs.iter().any(|r| r.same(&run)) {
                plan.runs.push(run);
            }
        }
        plan
    }

    /// What has to be run: for each run its seeds.
    ///
    /// # Errors
    /// A work that does not load: a bug.
    pub fn cells(&self, world: WorldName) -> Result<Vec<Cell>> {
        let of = |run: &'_ Run| -> Result<Vec<Cell>> {
            self.seeds.iter().map(|s| run.cell(world, *s)).collect()
        };
        let cells = self.runs.iter().map(of).collect::<Result<Vec<_>>>()?;
        Ok(cells.into_iter().flatten().collect())
    }

    /// The report of `run` with the seed number `seed`, among `reports` of [`Plan::cells`].
    pub fn report<'a>(
        &self,
        reports: &'a [ArmReport],
        run: &Run,
        seed: usize,
    ) -> Option<&'a ArmReport> {
        let at = self.runs.iter().position(|r| r.same(run))?;
        reports.get(at * self.seeds.len() + seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_a_scenario_that_loads() {
        let blocks = Work::Blocks(Blocks {
            order: 2,
            hold: 9,
            rate: 7,
            thp: true,
        });
        let task = |s: &Scenario| {
            let task = s.tasks.iter().find(|t| t.kind == Kind::AllocBlock).cloned();
            task.map(|t| (t.order, t.hold, t.rate, t.thp))
        };
        let s = Setting::new(blocks).scenario().unwrap();
        assert_eq!(task(&s), Some((Some(2), Some(9), Some(7.0), Some(true))));
        let journaled = |work| {
            let s = Setting::new(work).scenario().unwrap();
            s.files["data"].backing == BackingName::Journaled
        };
        assert!(journaled(Work::Deep) && !journaled(Work::Shallow));
        for work in [Work::Mixed, Work::Cached, blocks, Work::Deep] {
            for disk in [Disk::Quick, Disk::Slow, Disk::Spindle, Disk::Stuck] {
                let setting = Setting::new(work).on(disk).at(3.0).lasting(70);
                let s = setting.scenario().unwrap();
                assert!((pressure::of(&s).unwrap() - 3.0).abs() < 0.05);
                assert_eq!(s.device.is_some(), disk != Disk::Quick);
                assert_eq!(s.duration.0.as_millis(), 70);
            }
        }
    }

    #[test]
    fn limits_become_knobs() {
        let policy = |limits| {
            let run = Run::new(
                "x",
                Setting::new(Work::Mixed).within(limits),
                Preset::Rfc2010,
            );
            run.cell(WorldName::Lab, 1).unwrap().arm.policy().unwrap()
        };
        assert_eq!(policy(Limits::Own), Preset::Rfc2010.policy());
        assert_eq!(policy(Limits::Machine).limit_percent, 80);
        assert_eq!(
            policy(Limits::None).throttle,
            highwater_engine::policy::Throttle::Off
        );
    }

    #[test]
    fn a_run_that_two_claims_need_runs_once() {
        let setting = Setting::new(Work::Mixed);
        let a = Run::new("a", setting, Preset::V3_2);
        let b = Run::new("b", setting, Preset::V3_2);
        let c = Run::new("a", setting.at(2.0), Preset::V3_2);
        let plan = Plan::new([a, b, c, a], &[5, 6]);
        let cells = plan.cells(WorldName::Lab).unwrap();
        assert_eq!(
            cells.iter().map(|c| c.seed).collect::<Vec<_>>(),
            [5, 6, 5, 6]
        );
        let reports: Vec<ArmReport> = (0..4)
            .map(|n| ArmReport {
                refused: n,
                ..ArmReport::default()
            })
            .collect();
        let of = |run, seed| plan.report(&reports, run, seed).map(|r| r.refused);
        assert_eq!(
            (of(&b, 1), of(&c, 0), of(&c, 1)),
            (Some(1), Some(2), Some(3))
        );
        let unknown = Run::new("a", setting.at(9.0), Preset::V3_2);
        assert_eq!(of(&unknown, 0), None);
    }
}

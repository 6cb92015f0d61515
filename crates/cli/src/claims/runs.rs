//! The runs that claims are judged by: a setting and an arm.
//!
//! Claims share runs: each is described by value, runs once for each seed, and is looked up by its label.

use super::setting::{Setting, Work};
use crate::cells::Cell;
use crate::error::Result;
use crate::plan::{self, WorldName};
use crate::report::ArmReport;
use crate::scenario::{LendName, PolicyPatch};
use highwater_engine::Preset;

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
    use crate::claims::setting::Limits;

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

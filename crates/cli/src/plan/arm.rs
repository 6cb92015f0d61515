//! The rows of a run: which there are, and what policy each has.

use super::WorldName;
use crate::error::{CliError, Result, did_you_mean};
use crate::scenario::{ArmSpec, LendName, OrderName, PolicyPatch, Scenario, shares_problem};
use highwater_engine::{Policy, Preset};
use serde::{Deserialize, Serialize};

/// A row of the table before it ran.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Arm {
    /// Where.
    pub world: WorldName,
    /// The label: the preset's name, or the arm's.
    pub label: String,
    /// The preset it starts from.
    pub preset: String,
    /// What it changes.
    pub patch: PolicyPatch,
    /// In which order it tries pages for reclaim.
    pub order: OrderName,
    /// The backing refuses writes from reclaim.
    pub refuse: bool,
    /// Where volumes get memory while they write.
    pub lend: LendName,
    /// A reclaimer never reclaims again.
    pub recursion_guard: bool,
    /// Requests in flight (`raw` only).
    pub depth: u32,
}

impl Arm {
    /// The engine's knobs.
    pub fn policy(&self) -> Result<Policy> {
        let preset: Preset = self
            .preset
            .parse()
            .map_err(|e: String| CliError::usage(e, "--preset all"))?;
        Ok(self.patch.apply(preset.policy()))
    }

    /// The arm with a dirty limit of `percent` of memory, and its flusher's start in proportion.
    pub fn with_dirty_limit(mut self, percent: u8) -> Result<Arm> {
        let policy = self.policy()?;
        let background = u32::from(percent) * u32::from(policy.background_percent);
        // Less than `percent`, as the engine wants it, since the policy's own is less than its limit.
        let background = background / u32::from(policy.limit_percent.max(1));
        self.patch.limit_percent = Some(percent);
        self.patch.background_percent = Some(background as u8);
        Ok(self)
    }

    /// As people read it: `os 6.16`.
    pub fn title(&self) -> String {
        format!("{} {}", self.world.name(), self.label)
    }
}

/// The presets that `list` (of `--preset`, or of the scenario) names.
pub fn presets<'a>(list: impl IntoIterator<Item = &'a str>) -> Result<Vec<Preset>> {
    let mut presets = Vec::new();
    for name in list {
        let some: Vec<Preset> = match name {
            "all" => Preset::ALL.to_vec(),
            _ => vec![name.parse().map_err(|e: String| {
                let near = did_you_mean(name, Preset::ALL.map(Preset::name));
                let hint = near.map_or(String::new(), |w| format!("; did you mean {w}?"));
                CliError::usage(
                    format!("{e}{hint}"),
                    "--preset all, or names with commas between",
                )
            })?],
        };
        for preset in some {
            if !presets.contains(&preset) {
                presets.push(preset);
            }
        }
    }
    Ok(presets)
}

/// Refuses rows whose policies make no sense together with their presets, before anything runs.
///
/// # Errors
/// The first of them, by name.
pub fn check(arms: &[Arm]) -> Result<()> {
    for arm in arms {
        if let Some(problem) = shares_problem(&arm.policy()?, &arm.patch) {
            return Err(CliError::usage(
                format!("{}: {problem}", arm.title()),
                "both in the scenario's policy; or --dirty-limit PERCENT, which moves both",
            ));
        }
    }
    Ok(())
}

/// The rows of a run: each world's, in the order given.
pub fn arms(
    scenario: &Scenario,
    worlds: &[WorldName],
    presets: &[Preset],
    extra: bool,
    raw: bool,
) -> Vec<Arm> {
    let base = |world, label: &str, preset: &str| Arm {
        world,
        label: label.to_string(),
        preset: preset.to_string(),
        patch: scenario.policy,
        order: OrderName::default(),
        refuse: false,
        lend: LendName::default(),
        recursion_guard: true,
        depth: 0,
    };
    let mut arms = Vec::new();
    for &world in worlds {
        if world == WorldName::Linux {
            arms.push(base(world, "page cache", Preset::V6_16.name()));
            continue;
        }
        let engine = |order: OrderName, label: &str, preset: &str| Arm {
            order,
            ..base(world, &order.label(label), preset)
        };
        arms.extend(
            presets
                .iter()
                .map(|p| engine(scenario.order, p.name(), p.name())),
        );
        if extra {
            // Without the guard there is no bound to the stack, and threads have no more of it than they have.
            let runs = |a: &&ArmSpec| a.recursion_guard || world == WorldName::Lab;
            arms.extend(scenario.arms.iter().filter(runs).map(|a| Arm {
                patch: scenario.policy.then(a.policy),
                refuse: a.refuse,
                lend: a.lend,
                recursion_guard: a.recursion_guard,
                ..engine(
                    a.order.unwrap_or(scenario.order),
                    &a.name,
                    a.preset.get_ref(),
                )
            }));
        }
    }
    if raw {
        arms.extend([32, 128, 256].map(|depth| Arm {
            depth,
            ..base(WorldName::Raw, &format!("O_DIRECT qd{depth}"), "highwater")
        }));
    }
    arms
}

/// The rows of a run with each of `orders` in place of the scenario's: world by world. What has no order of ours (Linux,
/// raw rows, arms that name one) is there once.
pub fn arms_of_orders(
    scenario: &Scenario,
    worlds: &[WorldName],
    presets: &[Preset],
    orders: &[OrderName],
    extra: bool,
    raw: bool,
) -> Vec<Arm> {
    let mut all: Vec<Arm> = Vec::new();
    for &order in orders {
        let mut scenario = scenario.clone();
        scenario.order = order;
        for arm in arms(&scenario, worlds, presets, extra, raw) {
            if !all.contains(&arm) {
                all.push(arm);
            }
        }
    }
    // Stable, and raw rows, whose world is not among those asked for, come last.
    let place = |arm: &Arm| worlds.iter().position(|w| *w == arm.world);
    all.sort_by_key(|arm| place(arm).unwrap_or(worlds.len()));
    all
}

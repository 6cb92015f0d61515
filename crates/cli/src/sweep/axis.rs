//! What changes from point to point of a sweep, while everything else stays: pressure, memory, or the dirty limit.
//!
//! Under `pressure` the files grow and the budget stays (`pressure.rs`); over `memory` the budget grows and the files stay,
//! at the length that they have with the scenario's own; over `dirty-limit` both stay, and the flusher's start moves in
//! proportion.

use super::args::SweepArgs;
use super::lists::{Given, single, sizes_for};
use super::pressure;
use crate::error::{CliError, Result};
use crate::plan::Arm;
use crate::scenario::Scenario;
use crate::units::{Bytes, Size, show_bytes};
use serde::Serialize;

/// Which one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AxisKind {
    /// Data over memory.
    Pressure,
    /// The budget.
    MemoryBytes,
    /// The dirty limit, in percent of memory.
    DirtyLimitPercent,
}

/// The points, rising.
#[derive(Clone, PartialEq, Debug)]
pub struct Axis {
    /// Of what.
    pub kind: AxisKind,
    /// At least one.
    pub points: Vec<f64>,
}

impl Axis {
    /// The axis that the command line asks for: the one list of two or more. Without one, a trace (whose pages come to
    /// `footprint` bytes) is swept over memory, and a scenario under pressure.
    ///
    /// # Errors
    /// A list that is none, or two of them.
    pub fn of(args: &SweepArgs, footprint: Option<u64>) -> Result<Axis> {
        let given = Given::of(args)?;
        let lists = [
            ("--pressure", given.pressures.len()),
            ("--memory", given.sizes.len()),
            ("--dirty-limit", given.limits.len()),
        ];
        let several: Vec<&str> = lists.iter().filter(|l| l.1 > 1).map(|l| l.0).collect();
        if several.len() > 1 {
            return Err(CliError::usage(
                format!(
                    "{} are lists: a sweep changes one thing",
                    several.join(" and ")
                ),
                format!(
                    "one value for all but one of them, such as {}",
                    single(several[0])
                ),
            ));
        }
        let axis = |kind, points| Ok(Axis { kind, points });
        match (several.first(), footprint) {
            (Some(&"--memory"), _) => axis(AxisKind::MemoryBytes, given.sizes),
            (Some(&"--dirty-limit"), _) => axis(AxisKind::DirtyLimitPercent, given.limits),
            (None, Some(bytes)) if given.pressures.is_empty() => match &given.sizes[..] {
                [] => axis(AxisKind::MemoryBytes, sizes_for(bytes)),
                _ => axis(AxisKind::MemoryBytes, given.sizes),
            },
            _ if given.pressures.is_empty() => {
                axis(AxisKind::Pressure, pressure::parse_list(pressure::DEFAULT)?)
            }
            _ => axis(AxisKind::Pressure, given.pressures),
        }
    }

    /// The scenario at `point`.
    ///
    /// # Errors
    /// As [`pressure::at`].
    pub fn scenario_at(&self, scenario: &Scenario, point: f64) -> Result<Scenario> {
        match self.kind {
            AxisKind::Pressure => pressure::at(scenario, point),
            AxisKind::DirtyLimitPercent => Ok(scenario.clone()),
            AxisKind::MemoryBytes => {
                let mut scenario = scenario.clone();
                let fixed = |size: Size| Size::Bytes(size.bytes(scenario.memory.0));
                for file in scenario.files.values_mut() {
                    (file.size, file.capacity) = (fixed(file.size), file.capacity.map(fixed));
                }
                scenario.memory = Bytes(point as u64);
                crate::adjust::sensible(&scenario)?;
                Ok(scenario)
            }
        }
    }

    /// The arm at `point`.
    ///
    /// # Errors
    /// An arm without a policy.
    pub fn arm_at(&self, arm: &Arm, point: f64) -> Result<Arm> {
        match self.kind {
            AxisKind::DirtyLimitPercent => arm.clone().with_dirty_limit(point as u8),
            AxisKind::Pressure | AxisKind::MemoryBytes => Ok(arm.clone()),
        }
    }

    /// A point, as people read it.
    pub fn show(&self, point: f64) -> String {
        match self.kind {
            AxisKind::Pressure => format!("{point} x"),
            AxisKind::MemoryBytes => show_bytes(point as u64),
            AxisKind::DirtyLimitPercent => format!("{point} %"),
        }
    }

    /// Where a point lies in a plot: shares evenly, the others each doubling as far.
    pub fn place(&self, point: f64) -> f64 {
        match self.kind {
            AxisKind::DirtyLimitPercent => point,
            AxisKind::Pressure | AxisKind::MemoryBytes => point.log2(),
        }
    }

    /// A column's head.
    pub fn head(&self) -> &'static str {
        match self.kind {
            AxisKind::Pressure => "pressure",
            AxisKind::MemoryBytes => "memory",
            AxisKind::DirtyLimitPercent => "dirty limit",
        }
    }

    /// An axis' name, with its unit.
    pub fn title(&self) -> &'static str {
        match self.kind {
            AxisKind::Pressure => "pressure: data over memory",
            AxisKind::MemoryBytes => "memory: the budget of the cache",
            AxisKind::DirtyLimitPercent => "dirty limit, percent of memory",
        }
    }

    /// At its two ends: `when pressure is low`, `when it is high`.
    pub fn ends(&self) -> [&'static str; 2] {
        match self.kind {
            AxisKind::Pressure => ["when pressure is low", "when it is high"],
            AxisKind::MemoryBytes => ["when memory is small", "when it is large"],
            AxisKind::DirtyLimitPercent => ["when the dirty limit is low", "when it is high"],
        }
    }

    /// What the page says below its name.
    pub fn about(&self) -> &'static str {
        match self.kind {
            AxisKind::Pressure => "The same tasks and the same memory, with more and more data.",
            AxisKind::MemoryBytes => "The same tasks and the same data, with more and more memory.",
            AxisKind::DirtyLimitPercent => {
                "The same tasks, data and memory, with more and more of it that may be dirty."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::find;
    use crate::sweep::lists::fixed;

    const MIB: u64 = 1 << 20;

    fn args(memory: Option<&str>, limit: Option<&str>, pressure: Option<&str>) -> SweepArgs {
        SweepArgs {
            memory: memory.map(String::from),
            dirty_limit: limit.map(String::from),
            pressure: pressure.map(String::from),
            ..SweepArgs::default()
        }
    }

    #[test]
    fn the_one_list_is_the_axis() {
        let of = |m, l, p, trace| {
            let axis = Axis::of(&args(m, l, p), trace).unwrap();
            (axis.kind, axis.points.len())
        };
        let (pressure, memory) = (AxisKind::Pressure, AxisKind::MemoryBytes);
        assert_eq!(of(None, None, None, None), (pressure, 5));
        assert_eq!(of(Some("64MiB"), None, None, None), (pressure, 5));
        assert_eq!(of(Some("4MiB,8MiB"), None, None, None), (memory, 2));
        assert_eq!(of(Some("4MiB,8MiB"), Some("40"), None, None), (memory, 2));
        let limit = AxisKind::DirtyLimitPercent;
        assert_eq!(of(Some("4MiB"), Some("10,20 %,40"), None, None), (limit, 3));
        assert_eq!(of(None, Some("10,20"), None, Some(MIB)), (limit, 2));
        // A trace.
        assert_eq!(of(None, None, None, Some(900 * MIB)), (memory, 8));
        assert_eq!(of(Some("64MiB"), None, None, Some(900 * MIB)), (memory, 1));
        // Whose addresses cannot be scaled, which `pressure::at` says.
        assert_eq!(of(None, None, Some("1,2"), Some(MIB)), (pressure, 2));
        let e = Axis::of(&args(Some("4MiB,8MiB"), Some("10,20"), None), None).unwrap_err();
        assert!(
            e.message.contains("--memory and --dirty-limit are lists"),
            "{e}"
        );
        let all = args(Some("4MiB"), Some("10"), Some("2"));
        assert_eq!(fixed(&all).unwrap(), (Some(4 * MIB), Some(10)));
    }

    #[test]
    fn memory_grows_and_files_stay() {
        let rfc = find("rfc").unwrap();
        let axis = Axis::of(&args(Some("16MiB,256MiB"), None, None), None).unwrap();
        for point in &axis.points {
            let at = axis.scenario_at(&rfc, *point).unwrap();
            assert_eq!(at.memory.0, *point as u64);
            for (name, file) in &at.files {
                let own = rfc.files[name].size.bytes(rfc.memory.0);
                assert_eq!(file.size.bytes(at.memory.0), own, "{name}");
            }
        }
    }
}

//! What changes from point to point of a sweep, while everything else stays: pressure, memory, or the dirty limit.
//!
//! Under `pressure` the files grow and the budget stays (`pressure.rs`); over `memory` the budget grows and the files stay,
//! at the length that they have with the scenario's own; over `dirty-limit` both stay, and the flusher's start moves in
//! proportion.

use super::args::SweepArgs;
use super::pressure;
use crate::error::{CliError, Result};
use crate::plan::Arm;
use crate::scenario::Scenario;
use crate::units::{Bytes, Size, parse_bytes, parse_dirty_limit, show_bytes};
use serde::Serialize;

/// More points than anybody reads.
pub const POINTS_MAX: usize = 64;
/// Sizes that a trace is tried with when none are given.
const SIZES: usize = 8;
const SIZES_REMEDY: &str = "--memory 16MiB,64MiB,256MiB, or --memory 16MiB..1GiB for each doubling";
const LIMITS_REMEDY: &str = "--dirty-limit 5,10,20,40,60";

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

/// The lists as they were given.
struct Given {
    pressures: Vec<f64>,
    sizes: Vec<f64>,
    limits: Vec<f64>,
}

impl Given {
    fn of(args: &SweepArgs) -> Result<Given> {
        Ok(Given {
            pressures: match &args.pressure {
                Some(list) => pressure::parse_list(list)?,
                None => Vec::new(),
            },
            sizes: match &args.memory {
                Some(list) => sizes(list)?,
                None => Vec::new(),
            },
            limits: match &args.dirty_limit {
                Some(list) => limits(list)?,
                None => Vec::new(),
            },
        })
    }
}

/// The one value of each list that has one, for a sweep over something else: bytes, and percent.
///
/// # Errors
/// As [`Axis::of`].
pub fn fixed(args: &SweepArgs) -> Result<(Option<u64>, Option<u8>)> {
    let given = Given::of(args)?;
    let one = |list: &[f64]| match list {
        [one] => Some(*one),
        _ => None,
    };
    let (memory, limit) = (one(&given.sizes), one(&given.limits));
    Ok((memory.map(|m| m as u64), limit.map(|l| l as u8)))
}

fn single(option: &str) -> &'static str {
    match option {
        "--pressure" => "--pressure 4",
        "--memory" => "--memory 64MiB",
        _ => "--dirty-limit 40",
    }
}

/// `16MiB,64MiB`, and `16MiB..1GiB` for each doubling; each more than the one before.
fn sizes(list: &str) -> Result<Vec<f64>> {
    let refused = |why: String| CliError::usage(format!("--memory {list}: {why}"), SIZES_REMEDY);
    let size = |word: &str| {
        let bytes = parse_bytes(word).map_err(refused)?;
        match (crate::adjust::MEMORY_MIN..=crate::adjust::MEMORY_MAX).contains(&bytes) {
            true => Ok(bytes),
            false => Err(refused(format!(
                "a budget of {} makes no sense: expected {} to {}",
                show_bytes(bytes),
                show_bytes(crate::adjust::MEMORY_MIN),
                show_bytes(crate::adjust::MEMORY_MAX)
            ))),
        }
    };
    let mut out: Vec<u64> = Vec::new();
    for word in words(list) {
        match word.split_once("..") {
            None => out.push(size(word)?),
            Some((from, to)) => {
                let (from, to) = (size(from)?, size(to)?);
                out.extend(
                    std::iter::successors(Some(from), |b| Some(b * 2)).take_while(|b| *b <= to),
                );
            }
        }
    }
    rising(out.into_iter().map(|b| b as f64).collect()).map_err(refused)
}

/// `5,10,20`; each more than the one before.
fn limits(list: &str) -> Result<Vec<f64>> {
    let refused =
        |why: String| CliError::usage(format!("--dirty-limit {list}: {why}"), LIMITS_REMEDY);
    let limits = words(list).map(|word| parse_dirty_limit(word).map(f64::from));
    let limits = limits.collect::<std::result::Result<_, String>>();
    limits.and_then(rising).map_err(refused)
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|w| !w.is_empty())
}

fn rising(points: Vec<f64>) -> std::result::Result<Vec<f64>, String> {
    if points.is_empty() {
        return Err("names nothing".into());
    }
    if points.len() > POINTS_MAX {
        let n = points.len();
        return Err(format!(
            "{n} points are more than a plot can show: expected at most {POINTS_MAX}"
        ));
    }
    match points.windows(2).all(|w| w[0] < w[1]) {
        true => Ok(points),
        false => Err("does not rise: each has to be more than the one before".into()),
    }
}

/// Sizes for a trace whose pages come to `footprint` bytes: doubling, up to where all of them fit.
fn sizes_for(footprint: u64) -> Vec<f64> {
    // Descriptors and index take a fortieth of memory, and watermarks keep some more free.
    let footprint = footprint.min(crate::adjust::MEMORY_MAX);
    let all = (footprint + footprint / 8).next_power_of_two();
    let largest = all.clamp(crate::adjust::MEMORY_MIN << 2, crate::adjust::MEMORY_MAX);
    let halves = std::iter::successors(Some(largest), |b| Some(b / 2));
    let mut sizes: Vec<f64> = halves
        .take_while(|b| *b >= crate::adjust::MEMORY_MIN)
        .take(SIZES)
        .map(|b| b as f64)
        .collect();
    sizes.reverse();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::find;

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
    fn lists_rise_and_two_dots_double() {
        let mib = |list: &str| -> Vec<u64> {
            sizes(list)
                .unwrap()
                .iter()
                .map(|b| *b as u64 / MIB)
                .collect()
        };
        assert_eq!(mib("16MiB, 64MiB ,1GiB"), [16, 64, 1024]);
        assert_eq!(mib("16MiB..100MiB"), [16, 32, 64]);
        assert_eq!(mib("1MiB,4MiB..16MiB"), [1, 4, 8, 16]);
        for (list, what) in [
            ("", "names nothing"),
            ("64MiB,64MiB", "does not rise"),
            ("64MiB,32MiB", "does not rise"),
            ("64MiB..32MiB", "names nothing"),
            ("64", "64 B makes no sense"),
            ("-5", "is no size"),
            ("nan,inf", "is no size"),
            ("1MiB..", "is no size"),
            ("9999GiB", "makes no sense"),
        ] {
            let e = sizes(list).unwrap_err();
            assert!(
                e.message.contains(what) && e.remedy.contains("16MiB"),
                "{list}: {e}"
            );
        }
        assert_eq!(limits("5,10 %, 60").unwrap(), [5.0, 10.0, 60.0]);
        for list in ["0", "5,5", "40,20", "91", "x", ""] {
            let e = limits(list).unwrap_err();
            assert!(e.remedy.contains("--dirty-limit 5"), "{list}: {e}");
        }
    }

    #[test]
    fn sizes_for_a_trace_end_where_it_fits() {
        for (footprint, first, last) in [
            (975 * MIB, 16 * MIB, 2048 * MIB),
            (900 * MIB, 8 * MIB, 1024 * MIB),
            (4096, MIB, 4 * MIB),
            (0, MIB, 4 * MIB),
            (u64::MAX / 2, 8192 * MIB, crate::adjust::MEMORY_MAX),
        ] {
            let sizes = sizes_for(footprint);
            let got = (sizes[0] as u64, sizes[sizes.len() - 1] as u64);
            assert_eq!(got, (first, last), "{footprint}");
            assert!(sizes.len() <= SIZES);
        }
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

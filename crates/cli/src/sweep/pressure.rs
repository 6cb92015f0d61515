//! Pressure: how much more data a scenario's tasks go back to than there is memory for.
//!
//! Pressure is the sum of the lengths of the files in the tasks' working set, over the budget. The files are scaled, each
//! by the same factor, and the budget is not: watermarks, dirty limits and the device's speed stay as they are, so what
//! changes along the axis is pressure alone. A file of fresh pages is no part of the working set (nobody goes back to
//! its pages) and keeps its length.

use super::lists::POINTS_MAX;
use crate::error::{CliError, Result, did_you_mean};
use crate::scenario::{Kind, Scenario};
use crate::units::Size;

/// The pressures of a sweep without `--pressure`.
pub const DEFAULT: &str = "0.8,1.2,2,4,8";
const MIN: f64 = 0.05;
const MAX: f64 = 1024.0;

/// From the command line: `0.8,1.2,2`; each more than the one before.
///
/// # Errors
/// With the word that is no pressure.
pub fn parse_list(list: &str) -> Result<Vec<f64>> {
    let remedy = format!("--pressure {DEFAULT}");
    let mut out: Vec<f64> = Vec::new();
    for word in list.split(',').map(str::trim).filter(|w| !w.is_empty()) {
        let number: Option<f64> = word.trim_end_matches('x').parse().ok();
        let Some(pressure) = number.filter(|p| (MIN..=MAX).contains(p)) else {
            return Err(CliError::usage(
                format!(
                    "{word:?} is no pressure: expected data over memory, {MIN} to {MAX}, such as 0.8 or 4"
                ),
                remedy,
            ));
        };
        if out.last().is_some_and(|last| *last >= pressure) {
            return Err(CliError::usage(
                format!(
                    "the pressures {list:?} do not rise: {word} is not more than the one before"
                ),
                remedy,
            ));
        }
        out.push(pressure);
    }
    match out.len() {
        0 => Err(CliError::usage("--pressure names no pressure", remedy)),
        n if n > POINTS_MAX => Err(CliError::usage(
            format!("{n} pressures are more than a plot can show: expected at most {POINTS_MAX}"),
            remedy,
        )),
        _ => Ok(out),
    }
}

/// The names of the files in the tasks' working set.
fn working_set(scenario: &Scenario) -> Vec<&str> {
    scenario
        .tasks
        .iter()
        // A block has no file.
        .filter(|t| !matches!(t.kind, Kind::FreshPage | Kind::AllocBlock))
        .map(|t| t.file.get_ref().as_str())
        .collect()
}

/// The pressure of the scenario as it is written.
///
/// # Errors
/// A scenario without a working set, or one whose trace says what is touched.
pub fn of(scenario: &Scenario) -> Result<f64> {
    if let Some(replay) = scenario.tasks.iter().find(|t| t.kind == Kind::Replay) {
        return Err(CliError::usage(
            format!(
                "task {:?} replays a trace, whose addresses cannot be scaled: a sweep scales the files",
                replay.name
            ),
            "--memory 16MiB..1GiB: over memory in place of pressure",
        ));
    }
    let used = working_set(scenario);
    let memory = scenario.memory.0;
    let bytes: u64 = scenario
        .files
        .iter()
        .filter(|(name, _)| used.contains(&name.as_str()))
        .map(|(_, f)| f.size.bytes(memory))
        .sum();
    if bytes == 0 {
        return Err(CliError::usage(
            format!(
                "{} only takes fresh pages: it has no working set to put pressure on memory with",
                scenario.name
            ),
            "highwater sweep rfc",
        ));
    }
    Ok(bytes as f64 / memory as f64)
}

/// The scenario with files of such sizes that its pressure is `pressure`.
///
/// # Errors
/// As [`of`].
pub fn at(scenario: &Scenario, pressure: f64) -> Result<Scenario> {
    let factor = pressure / of(scenario)?;
    let used: Vec<String> = working_set(scenario)
        .into_iter()
        .map(String::from)
        .collect();
    let mut scaled = scenario.clone();
    let memory = scenario.memory.0;
    for (name, file) in &mut scaled.files {
        if used.contains(name) {
            let scale = |size| scaled_size(size, memory, factor);
            file.size = scaled_size(file.size, memory, factor);
            file.capacity = file.capacity.map(scale);
        }
    }
    Ok(scaled)
}

/// `factor` times `size`, as a multiple of memory, so that it stays one if the budget shrinks to fit a small disk.
fn scaled_size(size: Size, memory: u64, factor: f64) -> Size {
    Size::Memory(size.bytes(memory) as f64 * factor / memory as f64)
}

/// The task whose latencies are plotted: `wanted`, or the probe that takes fresh pages, or the first.
///
/// # Errors
/// When no task has that name.
pub fn task(scenario: &Scenario, wanted: Option<&str>) -> Result<String> {
    let names = || scenario.tasks.iter().map(|t| t.name.as_str());
    if let Some(wanted) = wanted {
        if names().any(|n| n == wanted) {
            return Ok(wanted.to_string());
        }
        let near = did_you_mean(wanted, names());
        let hint = near.map_or(String::new(), |w| format!("; did you mean {w}?"));
        let all: Vec<&str> = names().collect();
        return Err(CliError::usage(
            format!("{} has no task {wanted:?}{hint}", scenario.name),
            format!("--task with one of {}", all.join(", ")),
        ));
    }
    let probe = scenario.tasks.iter().find(|t| t.kind == Kind::FreshPage);
    // SCEN-1: there is at least one task.
    let task = probe.or(scenario.tasks.first()).expect("SCEN-1");
    Ok(task.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{find, load};

    #[test]
    fn pressures_are_a_rising_list() {
        assert_eq!(parse_list(DEFAULT).unwrap(), [0.8, 1.2, 2.0, 4.0, 8.0]);
        assert_eq!(parse_list(" 1x, 4 ,").unwrap(), [1.0, 4.0]);
        for (bad, what) in [
            ("", "names no pressure"),
            (",", "names no pressure"),
            ("two", "\"two\" is no pressure"),
            ("0", "\"0\" is no pressure"),
            ("-1", "\"-1\" is no pressure"),
            ("NaN", "\"NaN\" is no pressure"),
            ("inf", "\"inf\" is no pressure"),
            ("1,2,2", "do not rise"),
            ("4,2", "do not rise"),
        ] {
            let e = parse_list(bad).unwrap_err();
            assert!(e.message.contains(what), "{bad}: {e}");
            assert!(e.remedy.contains("--pressure"), "{bad}: {e}");
        }
        let many: Vec<String> = (1..=65).map(|n| n.to_string()).collect();
        assert!(
            parse_list(&many.join(","))
                .unwrap_err()
                .message
                .contains("65 pressures")
        );
    }

    #[test]
    fn files_are_scaled_and_memory_is_not() {
        let rfc = find("rfc").unwrap();
        // data and stream, 4 x each; `fresh` is no working set.
        assert_eq!(of(&rfc).unwrap(), 8.0);
        for pressure in [0.8, 2.0, 16.0] {
            let scaled = at(&rfc, pressure).unwrap();
            assert!((of(&scaled).unwrap() - pressure).abs() < 0.01, "{pressure}");
            assert_eq!(scaled.memory, rfc.memory);
            assert_eq!(scaled.files["fresh"].size, rfc.files["fresh"].size);
            assert_eq!(scaled.files["data"].size, scaled.files["stream"].size);
        }
        // A volume keeps its room beside its file.
        let deep = at(&find("deep-chain").unwrap(), 2.0).unwrap();
        let data = &deep.files["data"];
        let (size, capacity) = (data.size, data.capacity.unwrap());
        assert_eq!(size.bytes(1 << 30) * 3 / 2, capacity.bytes(1 << 30));
        // Files of unequal size keep their proportion.
        let hot = at(&find("hot-clean").unwrap(), 4.0).unwrap();
        let len = |name: &str| hot.files[name].size.bytes(hot.memory.0) as f64;
        assert!((len("cold") / len("hot") - 8.0 / 0.7).abs() < 0.05);
    }

    #[test]
    fn a_scenario_without_a_working_set_is_refused() {
        let text = "name = 't'\nabout = 't'\nfiles.f = { size = '2x', sparse = true }\n\
                    [[tasks]]\nname = 'p'\nkind = 'fresh-page'\nfile = 'f'\n";
        let e = of(&load("t", text).unwrap()).unwrap_err();
        assert!(e.message.contains("no working set"), "{e}");
        let text = "name = 't'\nabout = 't'\nfiles.f.size = 'trace'\n\
                    [[tasks]]\nname = 'r'\nkind = 'replay'\nfile = 'f'\ntrace = 'x.csv'\n";
        let e = of(&load("t", text).unwrap()).unwrap_err();
        assert!(e.message.contains("replays a trace"), "{e}");
    }

    #[test]
    fn the_probe_is_plotted_unless_another_is_wanted() {
        let rfc = find("rfc").unwrap();
        assert_eq!(task(&rfc, None).unwrap(), "probe");
        assert_eq!(task(&rfc, Some("stream")).unwrap(), "stream");
        assert_eq!(task(&find("hot-clean").unwrap(), None).unwrap(), "hot");
        let e = task(&rfc, Some("porbe")).unwrap_err();
        assert!(e.message.contains("did you mean probe?"), "{e}");
    }
}

//! From text to a scenario, or to an error that names the line, the column and what was expected.

use super::{
    BackingName, DeviceLimit, Kind, LendName, Scenario, TaskSpec, checked_cpus, names,
    shares_problem,
};
use crate::error::{CliError, Result, did_you_mean};
use crate::located::Source;
use crate::units::Size;
use highwater_engine::Preset;
use std::ops::Range;

/// Reads the scenario `text`, which came from `origin`.
///
/// # Errors
/// With line, column, the line itself, what was expected, and the nearest known word.
pub fn load(origin: &str, text: &str) -> Result<Scenario> {
    let source = Source {
        origin,
        text,
        remedy: "`highwater scenario show rfc` prints a complete scenario with each field explained",
    };
    let scenario: Scenario = source.parse()?;
    check(source, &scenario)?;
    Ok(scenario)
}

/// SCEN-1.
fn check(source: Source<'_>, scenario: &Scenario) -> Result<()> {
    if scenario.tasks.is_empty() {
        let message = "a scenario without tasks does nothing; expected at least one [[tasks]]";
        return Err(source.at(0..0, message, None));
    }
    if scenario.files.is_empty() {
        let message = "a cache without files has nothing to keep or give up; expected at least one [files.NAME]";
        return Err(source.at(source.key("files"), message, None));
    }
    if let Some((key, expected)) = machine_problem(scenario) {
        let message = format!("{key}: {expected}");
        return Err(source.at(source.key(key), &message, None));
    }
    check_presets(source, scenario)?;
    names::check(source, scenario)?;
    for (name, file) in &scenario.files {
        let used = |t: &TaskSpec| t.kind == Kind::Replay && t.file.get_ref() == name;
        if file.size == Size::Trace && !scenario.tasks.iter().any(used) {
            return Err(at_file(
                source,
                name,
                "size = \"trace\" needs a task of kind = \"replay\" on it",
            ));
        }
    }
    if let Some((name, problem)) = volume_problem(scenario) {
        return Err(at_file(source, name, problem));
    }
    check_arms(source, scenario)?;
    let mut tasks = scenario.tasks.iter().enumerate();
    tasks.try_for_each(|(n, task)| check_task(source, scenario, n, task))
}

/// What makes no sense about the machine and the measurement: the key, and what was expected.
fn machine_problem(scenario: &Scenario) -> Option<(&'static str, &'static str)> {
    let frame = scenario.frame_size.0;
    let cpus = checked_cpus(scenario.lab.cpus);
    let stands = |d: DeviceLimit| d.bytes_per_s == 0 || d.iops == 0;
    let wrong = [
        (
            !frame.is_power_of_two() || !(4096..=65536).contains(&frame),
            ("frame_size", "expected a power of two from 4KiB to 64KiB"),
        ),
        (
            !(0.0..=100.0).contains(&scenario.warm_up),
            ("warm_up", "expected a multiple of memory from 0 to 100"),
        ),
        (
            scenario.ops == Some(0),
            ("ops", "expected a number of operations, at least 1"),
        ),
        (cpus.is_err(), ("cpus", cpus.err().unwrap_or_default())),
        (
            scenario.duration.0.is_zero(),
            ("duration", "expected more than no time"),
        ),
        (
            scenario.device.is_some_and(stands),
            (
                "device",
                "a device of 0 bytes or 0 requests a second never answers; expected more than 0",
            ),
        ),
    ];
    wrong.into_iter().find(|w| w.0).map(|w| w.1)
}

fn check_presets(source: Source<'_>, scenario: &Scenario) -> Result<()> {
    let presets = scenario
        .presets
        .iter()
        .chain(scenario.arms.iter().map(|a| &a.preset));
    for preset in presets {
        let name = preset.get_ref().as_str();
        if name != "all" && name.parse::<Preset>().is_err() {
            let names = Preset::ALL.map(Preset::name);
            let message = format!(
                "unknown preset {name:?}, expected one of {} or all",
                names.join(", ")
            );
            return Err(source.at(preset.span(), &message, did_you_mean(name, names)));
        }
    }
    let names = scenario.presets.iter().map(|p| p.get_ref().as_str());
    for preset in crate::plan::presets(names)? {
        let patch = &scenario.policy;
        if let Some(problem) = shares_problem(&patch.apply(preset.policy()), patch) {
            let message = format!("preset {}: {problem}", preset.name());
            return Err(source.at(shares_in(source, 0..source.text.len()), &message, None));
        }
    }
    Ok(())
}

/// Where a part of the text says a share of memory first.
fn shares_in(source: Source<'_>, part: Range<usize>) -> Range<usize> {
    let keys = ["limit_percent", "background_percent", "policy"];
    let mut found = keys.iter().filter_map(|k| source.key_in(part.clone(), k));
    found.next().unwrap_or(0..0)
}

fn check_arms(source: Source<'_>, scenario: &Scenario) -> Result<()> {
    for (n, arm) in scenario.arms.iter().enumerate() {
        let table = source.table("arms", n);
        let at = |key: &str| {
            let key = table.clone().and_then(|t| source.key_in(t, key));
            key.unwrap_or(arm.preset.span())
        };
        let wrong = |key: &str, problem: &str| {
            let message = format!("arm {:?}: {problem}", arm.name);
            Err(source.at(at(key), &message, None))
        };
        if arm.preset.get_ref() == "all" {
            return wrong("preset", "an arm starts from one preset; expected a name");
        }
        let special = arm.lend != LendName::default() || !arm.recursion_guard;
        if special && scenario.journaled().is_none() {
            let key = if arm.recursion_guard {
                "lend"
            } else {
                "recursion_guard"
            };
            return wrong(
                key,
                "lend and recursion_guard are about a volume's memory; expected a file with backing = \"journaled\"",
            );
        }
        let patch = scenario.policy.then(arm.policy);
        let preset: Option<Preset> = arm.preset.get_ref().parse().ok();
        let problem = preset.and_then(|p| shares_problem(&patch.apply(p.policy()), &patch));
        if let Some(problem) = problem {
            return wrong("policy", &problem);
        }
    }
    Ok(())
}

/// An error about the file `name`.
fn at_file(source: Source<'_>, name: &str, problem: &str) -> CliError {
    let key = format!("files.{name}");
    source.at(source.key(&key), &format!("{key}: {problem}"), None)
}

/// What makes no sense about the scenario's volumes: the file, and why.
fn volume_problem(scenario: &Scenario) -> Option<(&str, &'static str)> {
    for (name, file) in &scenario.files {
        let journaled = file.backing == BackingName::Journaled;
        let wrong = [
            (
                file.capacity.is_some() && !journaled,
                "capacity is a volume's size on the disk; expected backing = \"journaled\" beside it",
            ),
            (
                journaled && file.sparse,
                "a volume is thin by itself; expected no sparse = true beside backing = \"journaled\"",
            ),
            (
                file.capacity == Some(Size::Trace) || (journaled && file.size == Size::Trace),
                "a volume's sizes are known beforehand; expected bytes or a multiple of memory",
            ),
            (
                journaled && scenario.lab.ghost,
                "a volume keeps its maps in pages, and ghosts have no bytes; expected lab.ghost = false",
            ),
        ];
        if let Some((_, why)) = wrong.into_iter().find(|w| w.0) {
            return Some((name, why));
        }
    }
    None
}

fn check_task(source: Source<'_>, scenario: &Scenario, n: usize, task: &TaskSpec) -> Result<()> {
    let file = task.file.get_ref().as_str();
    let name = &task.name;
    // What is wrong begins with the key that it is about.
    let here = |problem: String| {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let key = problem.split(|c| !word(c)).next().unwrap_or_default();
        let table = source.table("tasks", n);
        let key = table.clone().and_then(|t| source.key_in(t, key));
        let begin = table.map(|t| t.start..t.start + "[[tasks]]".len());
        let file = (!file.is_empty()).then(|| task.file.span());
        let at = key.or(file).or(begin).unwrap_or(0..0);
        Err(source.at(at, &format!("task {name:?}: {problem}"), None))
    };
    let problem = number_problem(task)
        .or_else(|| crate::blocks::problem(scenario, task))
        .or_else(|| crate::replay::problem(task));
    let spec = scenario.files.get(file);
    if spec.is_none() && !file.is_empty() {
        let names: Vec<&str> = scenario.files.keys().map(String::as_str).collect();
        let message = format!(
            "task {name:?} uses the file {file:?}, which is not declared; expected one of: {}",
            names.join(", ")
        );
        return Err(source.at(task.file.span(), &message, did_you_mean(file, names)));
    }
    let sparse = match spec {
        Some(spec) => spec.sparse,
        None if task.kind == Kind::AllocBlock => false,
        None => {
            return here("needs file = \"NAME\", one of those under [files]".into());
        }
    };
    if let Some(problem) = problem {
        return here(problem);
    }
    if task.kind == Kind::FreshPage && !sparse {
        return here("kind = \"fresh-page\" needs a file with sparse = true".into());
    }
    // What a trace addresses may be far apart: its file needs no blocks until they are written.
    if task.kind.writes() && task.kind != Kind::Replay && sparse {
        return here(
            "file is sparse, and is written to; expected one without sparse = true".into(),
        );
    }
    Ok(())
}

/// Numbers out of bounds, of any kind of task.
fn number_problem(task: &TaskSpec) -> Option<String> {
    let zipf = task.kind == Kind::Zipf;
    let wrong = [
        (
            task.io.0 == 0 || task.io.0 > 16 << 20,
            "io: expected 1 byte to 16MiB",
        ),
        (
            task.threads == 0 || task.threads > 1024,
            "threads: expected 1 to 1024",
        ),
        (
            task.rate.is_some_and(|r| !r.is_finite() || r <= 0.0),
            "rate: expected operations a second, more than 0",
        ),
        (
            task.fsync_every == Some(0),
            "fsync_every: expected a number of operations, at least 1",
        ),
        (
            task.write_share.is_some_and(|s| !(0.0..=1.0).contains(&s)),
            "write_share: expected a share from 0.0 to 1.0",
        ),
        (
            task.exponent
                .is_some_and(|s| !s.is_finite() || s <= 0.0 || s > 10.0),
            "exponent: expected more than 0 and at most 10",
        ),
        (
            !zipf && task.write_share.is_some(),
            "write_share belongs to kind = \"zipf\"",
        ),
        (
            !zipf && task.exponent.is_some(),
            "exponent belongs to kind = \"zipf\"",
        ),
    ];
    let first = wrong.iter().find(|(is, _)| *is);
    first.map(|(_, message)| (*message).to_string())
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;

//! From text to a scenario, or to an error that names the line, the column and what was expected.

use super::{ArmSpec, BackingName, Kind, LendName, Scenario, TaskSpec};
use crate::error::{Result, did_you_mean};
use crate::located::Source;
use crate::units::Size;
use highwater_engine::Preset;

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
    let whole = |message: &str| Err(source.at(0..0, message, None));
    if scenario.tasks.is_empty() {
        return whole("a scenario without tasks does nothing; expected at least one [[tasks]]");
    }
    let frame = scenario.frame_size.0;
    if !frame.is_power_of_two() || !(4096..=65536).contains(&frame) {
        return whole("frame_size: expected a power of two from 4KiB to 64KiB");
    }
    if !(0.0..=100.0).contains(&scenario.warm_up) {
        return whole("warm_up: expected a multiple of memory from 0 to 100");
    }
    if scenario.ops == Some(0) {
        return whole("ops: expected a number of operations, at least 1");
    }
    if !(1..=1024).contains(&scenario.lab.cpus) {
        return whole("lab: cpus: expected 1 to 1024");
    }
    if scenario.duration.0.is_zero() {
        return whole("duration: expected more than no time");
    }
    if scenario
        .device
        .is_some_and(|d| d.bytes_per_s == 0 || d.iops == 0)
    {
        return whole(
            "device: a device of 0 bytes or 0 requests a second never answers; expected more than 0",
        );
    }
    let patches = std::iter::once(&scenario.policy).chain(scenario.arms.iter().map(|a| &a.policy));
    if let Some(problem) = patches.filter_map(|p| p.problem()).next() {
        return whole(problem);
    }
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
    for (name, file) in &scenario.files {
        let used = |t: &TaskSpec| t.kind == Kind::Replay && t.file.get_ref() == name;
        if file.size == Size::Trace && !scenario.tasks.iter().any(used) {
            return whole(&format!(
                "files.{name}: size = \"trace\" needs a task of kind = \"replay\" on it"
            ));
        }
    }
    if let Some(problem) = volume_problem(scenario) {
        return whole(&problem);
    }
    scenario
        .tasks
        .iter()
        .try_for_each(|task| check_task(source, scenario, task))
}

/// What makes no sense about the scenario's volumes.
fn volume_problem(scenario: &Scenario) -> Option<String> {
    for (name, file) in &scenario.files {
        let journaled = file.backing == BackingName::Journaled;
        if file.capacity.is_some() && !journaled {
            return Some(format!(
                "files.{name}: capacity is a volume's size on the disk; expected backing = \"journaled\" beside it"
            ));
        }
        if journaled && file.sparse {
            return Some(format!(
                "files.{name}: a volume is thin by itself; expected no sparse = true beside backing = \"journaled\""
            ));
        }
        if file.capacity == Some(Size::Trace) || (journaled && file.size == Size::Trace) {
            return Some(format!(
                "files.{name}: a volume's sizes are known beforehand; expected bytes or a multiple of memory"
            ));
        }
        if journaled && scenario.lab.ghost {
            return Some(format!(
                "files.{name}: a volume keeps its maps in pages, and ghosts have no bytes; expected lab.ghost = false"
            ));
        }
    }
    let special = |a: &&ArmSpec| a.lend != LendName::default() || !a.recursion_guard;
    let arm = scenario.arms.iter().find(special)?;
    scenario.journaled().is_none().then(|| {
        format!(
            "arm {:?}: lend and recursion_guard are about a volume's memory; expected a file with backing = \"journaled\"",
            arm.name
        )
    })
}

fn check_task(source: Source<'_>, scenario: &Scenario, task: &TaskSpec) -> Result<()> {
    let file = task.file.get_ref().as_str();
    let name = &task.name;
    let here = |message: String| Err(source.at(task.file.span(), &message, None));
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
            return here(format!(
                "task {name:?} needs file = \"NAME\", one of those under [files]"
            ));
        }
    };
    if let Some(problem) = problem {
        return here(format!("task {name:?}: {problem}"));
    }
    if task.kind == Kind::FreshPage && !sparse {
        return here(format!(
            "task {name:?}: kind = \"fresh-page\" needs a file with sparse = true"
        ));
    }
    // What a trace addresses may be far apart: its file needs no blocks until they are written.
    if task.kind.writes() && task.kind != Kind::Replay && sparse {
        return here(format!(
            "task {name:?} writes to a sparse file; expected a file without sparse = true"
        ));
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
            !zipf && (task.write_share.is_some() || task.exponent.is_some()),
            "write_share and exponent belong to kind = \"zipf\"",
        ),
    ];
    let first = wrong.iter().find(|(is, _)| *is);
    first.map(|(_, message)| (*message).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::CliError;

    const GOOD: &str = r#"name = "t"
about = "a test"
[files.data]
size = "4x"
[[tasks]]
name = "w"
kind = "random-write"
file = "data"
"#;

    fn error(text: &str) -> CliError {
        load("t.toml", text).expect_err("must not load")
    }

    #[test]
    fn defaults_fill_what_is_not_said() {
        let s = load("t.toml", GOOD).unwrap();
        assert_eq!(s.memory.0, 64 << 20);
        assert_eq!(s.tasks[0].threads, 1);
    }

    #[test]
    fn a_typo_in_a_field_names_line_column_and_the_word_meant() {
        let e = error(&GOOD.replace("kind =", "knid ="));
        assert!(
            e.message.starts_with("t.toml:7:1: unknown field `knid`"),
            "{e}"
        );
        assert!(e.message.contains("did you mean `kind`?"), "{e}");
        assert!(e.message.contains("expected one of"), "{e}");
    }

    #[test]
    fn a_typo_in_a_value_names_line_column_and_the_word_meant() {
        let e = error(&GOOD.replace("random-write", "random-wirte"));
        assert!(e.message.starts_with("t.toml:7:8: unknown variant"), "{e}");
        assert!(e.message.contains("did you mean `random-write`?"), "{e}");
        let e = error(&GOOD.replace("file = \"data\"", "file = \"dta\""));
        assert!(e.message.starts_with("t.toml:8:8:"), "{e}");
        assert!(e.message.contains("did you mean `data`?"), "{e}");
    }

    #[test]
    fn a_bad_size_says_what_was_expected() {
        let e = error(&GOOD.replace("\"4x\"", "\"4 elephants\""));
        assert!(e.message.starts_with("t.toml:4:8:"), "{e}");
        assert!(e.message.contains("64MiB"), "{e}");
        let e = error(&GOOD.replace("\"4x\"", "4"));
        assert!(e.message.contains("expected a size in quotes"), "{e}");
    }

    #[test]
    fn a_missing_field_is_named() {
        let e = error(&GOOD.replace("kind = \"random-write\"\n", ""));
        assert!(e.message.contains("missing field `kind`"), "{e}");
        assert!(e.message.starts_with("t.toml:5:1:"), "{e}");
    }

    #[test]
    fn nonsense_that_parses_is_refused() {
        for (from, to, expect) in [
            (
                "kind = \"random-write\"",
                "kind = \"random-write\"\nthreads = 0",
                "threads",
            ),
            (
                "kind = \"random-write\"",
                "kind = \"random-write\"\nrate = -1.0",
                "rate",
            ),
            (
                "kind = \"random-write\"",
                "kind = \"random-write\"\nwrite_share = 0.5",
                "zipf",
            ),
            ("kind = \"random-write\"", "kind = \"fresh-page\"", "sparse"),
            (
                "about = \"a test\"",
                "about = \"a test\"\nframe_size = \"5000\"",
                "frame_size",
            ),
            (
                "about = \"a test\"",
                "about = \"a test\"\npresets = [\"6.61\"]",
                "did you mean `6.16`",
            ),
            (
                "about = \"a test\"",
                "about = \"a test\"\npolicy.limit_percent = 0",
                "limit_percent",
            ),
            (
                "about = \"a test\"",
                "about = \"a test\"\ndevice = { bytes_per_s = \"50MB\", iops = 0 }",
                "0 requests",
            ),
        ] {
            let e = error(&GOOD.replace(from, to));
            assert!(e.message.contains(expect), "{to}: {e}");
            assert!(e.message.starts_with("t.toml:"), "{e}");
        }
    }

    #[test]
    fn no_text_makes_it_panic() {
        for cut in 0..GOOD.len() {
            let _ = load("t.toml", &GOOD[..cut]);
        }
    }

    #[test]
    fn a_volume_s_keys_are_checked_together() {
        let volume = GOOD.replace("size = \"4x\"", "size = \"4x\"\nbacking = \"journaled\"");
        let s = load("t.toml", &volume).unwrap();
        assert_eq!(s.journaled(), Some("data"));
        assert_eq!(s.files["data"].disk_bytes(1 << 20), 6 << 20);
        let wide = volume.replace("\"journaled\"", "\"journaled\"\ncapacity = \"10x\"");
        let s = load("t.toml", &wide).unwrap();
        assert_eq!(s.files["data"].disk_bytes(1 << 20), 10 << 20);
        let lend =
            "[[arms]]\nname = 'a'\npreset = '3.2'\nlend = 'reclaim'\nrecursion_guard = false\n";
        let s = load("t.toml", &format!("{volume}{lend}")).unwrap();
        assert_eq!(
            (s.arms[0].lend, s.arms[0].recursion_guard),
            (LendName::Reclaim, false)
        );
        for (text, word) in [
            (format!("{GOOD}{lend}"), "expected a file with backing"),
            (
                GOOD.replace("\"4x\"", "\"4x\"\ncapacity = \"8x\""),
                "expected backing = \"journaled\"",
            ),
            (
                volume.replace("\"journaled\"", "\"journaled\"\nsparse = true"),
                "thin by itself",
            ),
            (
                volume.replace("\"journaled\"", "\"journald\""),
                "did you mean `journaled`?",
            ),
            (
                wide.replace("\"10x\"", "\"trace\""),
                "expected bytes or a multiple",
            ),
            (
                format!("lab = {{ ghost = true }}\n{volume}"),
                "have no bytes",
            ),
            (
                format!("{volume}{}", lend.replace("'reclaim'", "'reclaims'")),
                "did you mean `reclaim`?",
            ),
        ] {
            let e = error(&text);
            assert!(e.message.contains(word), "{word}: {e}");
        }
    }
}

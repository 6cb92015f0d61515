//! What the parts of a scenario may be called. The names of tasks and arms tell columns and rows apart, in the table, the
//! JSON and the page; a file's name is one in the run's own directory, which is removed at its end.
//!
//! **Invariants.** NAMES-1: no file of a run lies outside the run's directory, so that none of the user's is overwritten.
//! NAMES-2: no two tasks, and no two arms, have one name.

use super::Scenario;
use crate::error::Result;
use crate::located::Source;
use crate::plan;
use std::ops::Range;

/// Refuses names that mean nothing, that two share, or that lead out of the run's directory.
///
/// # Errors
/// With the place of the name.
pub fn check(source: Source<'_>, scenario: &Scenario) -> Result<()> {
    if let Some(problem) = problem(&scenario.name) {
        return Err(source.at(source.key("name"), &format!("name: {problem}"), None));
    }
    for name in scenario.files.keys() {
        if !is_plain(name) {
            let message = format!(
                "files.{name:?}: a file's name is that of a file in the run's directory; expected letters, digits, - and _"
            );
            return Err(source.at(source.key("files"), &message, None));
        }
    }
    let tasks: Vec<&str> = scenario.tasks.iter().map(|t| t.name.as_str()).collect();
    apart(source, "tasks", &tasks, &[])?;
    let presets = plan::presets(scenario.presets.iter().map(|p| p.get_ref().as_str()))?;
    let presets: Vec<&str> = presets.iter().map(|p| p.name()).collect();
    let arms: Vec<&str> = scenario.arms.iter().map(|a| a.name.as_str()).collect();
    apart(source, "arms", &arms, &presets)
}

/// Refuses a name in `names`, those of the tables `[[table]]`, that is no name, is one before it, or one of `taken`.
fn apart(source: Source<'_>, table: &str, names: &[&str], taken: &[&str]) -> Result<()> {
    for (n, name) in names.iter().enumerate() {
        let said = source.table(table, n);
        let at: Range<usize> = said
            .and_then(|t| source.key_in(t, "name"))
            .unwrap_or_default();
        let wrong = |problem: &str| {
            let one = table.trim_end_matches('s');
            Err(source.at(at.clone(), &format!("{one} {name:?}: {problem}"), None))
        };
        if let Some(problem) = problem(name) {
            return wrong(problem);
        }
        if names[..n].contains(name) {
            return wrong("another one has this name; expected names that tell them apart");
        }
        if taken.contains(name) {
            return wrong(
                "this is the name of a preset that runs, too; expected one that tells them apart",
            );
        }
    }
    Ok(())
}

/// Why a name cannot stand in a table.
fn problem(name: &str) -> Option<&'static str> {
    if name.trim().is_empty() {
        return Some("a name of nothing; expected a word");
    }
    let control = name.chars().any(char::is_control);
    control.then_some("expected a name without control characters")
}

/// Is it the name of a file, in whatever directory, and of nothing else?
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
    !name.trim().is_empty() && !name.starts_with('.') && name.chars().all(plain) && name.len() < 200
}

#[cfg(test)]
mod tests {
    use crate::scenario::load;

    const GOOD: &str = r#"name = "t"
about = "a test"
presets = ["3.2"]
[files.data]
size = "4x"
[[tasks]]
name = "w"
kind = "random-write"
file = "data"
[[tasks]]
name = "r"
kind = "random-read"
file = "data"
[[arms]]
name = "own"
preset = "3.2"
[[arms]]
name = "highwater"
preset = "highwater"
"#;

    fn refused(text: &str) -> String {
        load("t.toml", text).expect_err("must not load").message
    }

    #[test]
    fn a_file_lies_in_the_run_s_directory() {
        // NAMES-1: the first would overwrite a file of the user's, the second be left behind.
        for name in ["/etc/x", "../x", "..", "a/b", "", " ", ".x", "a\\u0000b"] {
            let text = GOOD
                .replace("[files.data]", &format!("[files.\"{name}\"]"))
                .replace("file = \"data\"", &format!("file = \"{name}\""));
            let why = refused(&text);
            assert!(why.starts_with("t.toml:4:2: files."), "{name}: {why}");
            assert!(why.contains("expected letters"), "{name}: {why}");
        }
        assert!(load("t.toml", &GOOD.replace("data", "my-data_2")).is_ok());
    }

    #[test]
    fn names_tell_tasks_and_arms_apart() {
        // NAMES-2.
        assert!(load("t.toml", GOOD).is_ok());
        for (from, to, place) in [
            ("\"r\"", "\"w\"", "t.toml:11:1: task \"w\": another"),
            ("\"r\"", "\"\"", "t.toml:11:1: task \"\": a name of nothing"),
            (
                "\"r\"",
                "\"a\\u001b[31m\"",
                "t.toml:11:1: task \"a\\u{1b}[31m\": expected a name without",
            ),
            (
                "name = \"highwater\"",
                "name = \"own\"",
                "t.toml:18:1: arm \"own\": another",
            ),
            (
                "\"own\"",
                "\"3.2\"",
                "t.toml:15:1: arm \"3.2\": this is the name of a preset",
            ),
            ("\"t\"", "\"\"", "t.toml:1:1: name: a name of nothing"),
        ] {
            let why = refused(&GOOD.replacen(from, to, 1));
            assert!(why.starts_with(place), "{to}: {why}");
        }
    }
}

//! `highwater stack --table`: what a caller must have free below its own frame, for each public entry point and preset.
//!
//! The checked-in table has a section for each build profile: frames of a build with other options are other frames.

use super::StackArgs;
use crate::error::{CliError, Result};
use highwater_engine::Preset;
use highwater_lab::stack::{Entry, TABLE_SEEDS, callers, deepest_chain};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Bytes by preset and entry point.
type Table = BTreeMap<String, BTreeMap<String, u64>>;

/// The build profile that this command was compiled with, as the table names it.
fn profile() -> &'static str {
    match cfg!(debug_assertions) {
        true => "dev",
        false => "release",
    }
}

/// Measures, prints, and writes where asked for.
///
/// # Errors
/// When the table cannot be read or written.
pub fn run(args: &StackArgs) -> Result<()> {
    let mut table = Table::new();
    for preset in Preset::ALL {
        say!("{}: {TABLE_SEEDS} runs of the callers", preset.name());
        let uses = callers(preset.policy(), TABLE_SEEDS);
        let column = uses.iter().map(|u| (u.entry.name().to_owned(), u.deepest));
        table.insert(preset.name().to_owned(), column.collect());
    }
    let mut shown = text(&table);
    if let Some(chain) = deepest_chain(Preset::Highwater.policy(), TABLE_SEEDS) {
        let preset = Preset::Highwater.name();
        let _ = write!(
            shown,
            "\nthe deepest caller of {preset}, its own frames included:\n{chain}"
        );
    }
    crate::outputs::publish(&shown, &table, args.common.json.as_deref())?;
    if let Some(path) = &args.write {
        write(path, &table)?;
    }
    Ok(())
}

fn text(table: &Table) -> String {
    let profile = profile();
    let mut text =
        format!("\nbytes of stack below the caller's frame, deepest call; build: {profile}\n\n");
    let _ = write!(text, "{:25}", "");
    for preset in Preset::ALL {
        let _ = write!(text, "{:>11}", preset.name());
    }
    text.push('\n');
    let cell = |preset: Preset, entry: &str| -> Option<u64> {
        table.get(preset.name())?.get(entry).copied()
    };
    for entry in Entry::ALL {
        let _ = write!(text, "{:25}", entry.name());
        for preset in Preset::ALL {
            let bytes = cell(preset, entry.name()).map_or("-".into(), |n| n.to_string());
            let _ = write!(text, "{bytes:>11}");
        }
        text.push('\n');
    }
    let _ = write!(text, "{:25}", "deepest");
    for preset in Preset::ALL {
        let deepest = Entry::ALL
            .iter()
            .filter_map(|e| cell(preset, e.name()))
            .max();
        let _ = write!(text, "{:>11}", deepest.unwrap_or(0));
    }
    text.push('\n');
    text
}

/// Puts this profile's section into the file, and leaves the others.
fn write(path: &std::path::Path, table: &Table) -> Result<()> {
    let bad = |e: &dyn std::fmt::Display| {
        CliError::os(
            path.display(),
            e,
            "--write crates/lab/stack-table.toml, or a new file",
        )
    };
    let old = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(bad(&e)),
    };
    let mut all: BTreeMap<String, Table> = toml::from_str(&old).map_err(|e| bad(&e))?;
    all.insert(profile().to_owned(), table.clone());
    let body = toml::to_string(&all).map_err(|e| bad(&e))?;
    let head = "\
# Bytes of stack that a caller of each public entry point must have free below its own frame, by build profile and preset.
# Measured in the lab by `highwater stack --table --write crates/lab/stack-table.toml` (cargo run, and cargo run --release);
# compared by crates/lab/tests/stack_table.rs.

";
    std::fs::write(path, format!("{head}{body}")).map_err(|e| bad(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sections_of_other_profiles_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table.toml");
        std::fs::write(&path, "[elsewhere.highwater]\n\"File::read_at\" = 7\n").unwrap();
        let column = BTreeMap::from([("File::read_at".to_owned(), 2_000)]);
        write(&path, &BTreeMap::from([("highwater".to_owned(), column)])).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let all: BTreeMap<String, Table> = toml::from_str(&text).unwrap();
        assert_eq!(all["elsewhere"]["highwater"]["File::read_at"], 7);
        assert_eq!(all[profile()]["highwater"]["File::read_at"], 2_000);
        std::fs::write(&path, "nonsense").unwrap();
        assert!(
            write(&path, &Table::new())
                .unwrap_err()
                .remedy
                .contains("--write")
        );
    }

    #[test]
    fn the_text_has_a_column_for_each_preset_and_its_deepest() {
        let column = BTreeMap::from([
            ("File::read_at".to_owned(), 2_000),
            ("File::page".to_owned(), 900),
        ]);
        let table = text(&BTreeMap::from([("highwater".to_owned(), column)]));
        let deepest = table.lines().find(|l| l.starts_with("deepest")).unwrap();
        assert_eq!(deepest.split_whitespace().last(), Some("2000"));
        assert!(
            table
                .lines()
                .any(|l| l.starts_with("File::page ") && l.ends_with("900"))
        );
    }
}

//! The stack of each public entry point against the checked-in table: nobody makes callers' stacks deeper unnoticed.

use highwater_engine::Preset;
use highwater_lab::stack::{Entry, MEASURED, TABLE_SEEDS, callers};
use std::collections::BTreeMap;

/// Bytes by build profile, preset and entry point.
type Tables = BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>;

/// What a caller in the default preset may need, in a release build.
const CALLER_MAX: u64 = 4 << 10;

fn tables() -> Tables {
    toml::from_str(include_str!("../stack-table.toml")).unwrap()
}

/// The heap's slow paths and another compiler's inlining move some bytes.
fn tolerance(bytes: u64) -> u64 {
    bytes * 15 / 100 + 64
}

#[test]
fn no_entry_point_is_deeper_than_the_table_says() {
    if !MEASURED {
        return;
    }
    let profile = if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    };
    let tables = tables();
    let mut wrong = Vec::new();
    for preset in Preset::ALL {
        let column = &tables[profile][preset.name()];
        for used in callers(preset.policy(), TABLE_SEEDS) {
            let expected = column[used.entry.name()];
            // Less is welcome, but not so little that nothing was measured.
            if used.deepest > expected + tolerance(expected) || used.deepest < expected / 2 {
                let (name, entry, deepest) = (preset.name(), used.entry.name(), used.deepest);
                wrong.push(format!(
                    "{name}: {entry}: {deepest} bytes, {expected} in the table"
                ));
            }
        }
    }
    let flag = if cfg!(debug_assertions) {
        ""
    } else {
        "--release "
    };
    assert!(
        wrong.is_empty(),
        "{wrong:#?}\nif that is meant: cargo run {flag}-p highwater-cli -- stack --table --write crates/lab/stack-table.toml"
    );
}

#[test]
fn the_table_is_whole_and_the_default_preset_keeps_its_promise() {
    for (profile, presets) in tables() {
        for preset in Preset::ALL {
            let column = &presets[preset.name()];
            for entry in Entry::ALL {
                assert!(
                    column.contains_key(entry.name()),
                    "{profile} {preset:?} {entry:?}"
                );
            }
        }
    }
    let release = &tables()["release"][Preset::Highwater.name()];
    let (entry, deepest) = release.iter().max_by_key(|(_, bytes)| **bytes).unwrap();
    assert!(*deepest <= CALLER_MAX, "{entry} needs {deepest} bytes");
}

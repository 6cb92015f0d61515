//! The scenarios that come with the command.

use super::{Scenario, load};
use crate::error::{CliError, Result, did_you_mean};

/// Name and text of each, in the order of the list.
pub const BUILTIN: [(&str, &str); 11] = [
    ("rfc", include_str!("../../scenarios/rfc.toml")),
    (
        "random-write",
        include_str!("../../scenarios/random-write.toml"),
    ),
    (
        "stream-write",
        include_str!("../../scenarios/stream-write.toml"),
    ),
    (
        "stream-read",
        include_str!("../../scenarios/stream-read.toml"),
    ),
    ("zipf-mix", include_str!("../../scenarios/zipf-mix.toml")),
    ("hot-clean", include_str!("../../scenarios/hot-clean.toml")),
    ("slow-disk", include_str!("../../scenarios/slow-disk.toml")),
    ("fits", include_str!("../../scenarios/fits.toml")),
    (
        "deep-chain",
        include_str!("../../scenarios/deep-chain.toml"),
    ),
    ("machine", include_str!("../../scenarios/machine.toml")),
    (
        "high-order",
        include_str!("../../scenarios/high-order.toml"),
    ),
];

/// The text of `name`: a built-in scenario, or else a file.
pub fn text(name: &str) -> Result<(String, String)> {
    if let Some((_, text)) = BUILTIN.iter().find(|(n, _)| *n == name) {
        return Ok((name.to_string(), (*text).to_string()));
    }
    let looks_like_a_path = name.contains('/') || name.ends_with(".toml");
    match std::fs::read_to_string(name) {
        Ok(text) => Ok((name.to_string(), text)),
        Err(e) if looks_like_a_path => Err(CliError::usage(
            format!("cannot read the scenario {name}: {e}"),
            "`highwater scenario show rfc > mine.toml` writes one to start from",
        )),
        Err(_) => {
            let names = BUILTIN.map(|(n, _)| n);
            let hint = match did_you_mean(name, names) {
                Some(near) => format!("; did you mean {near:?}?"),
                None => String::new(),
            };
            Err(CliError::usage(
                format!("there is no scenario {name:?}{hint}"),
                format!("one of {}, or the path of a TOML file", names.join(", ")),
            ))
        }
    }
}

/// The scenario `name`: built in, or a file.
pub fn find(name: &str) -> Result<Scenario> {
    let (origin, text) = text(name)?;
    load(&origin, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_builtin_loads_under_its_name() {
        for (name, text) in BUILTIN {
            let scenario = load(name, text).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(scenario.name, name);
            assert!(
                scenario.warm_up >= 2.0,
                "{name}: each side first writes 2 x memory"
            );
        }
    }

    #[test]
    fn a_name_with_a_typo_gets_a_hint() {
        let e = find("zipf-mxi").unwrap_err();
        assert!(e.message.contains("did you mean \"zipf-mix\"?"), "{e}");
        assert!(e.remedy.contains("slow-disk"));
    }
}

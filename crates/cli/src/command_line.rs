//! The command line as it was given, to be said again: to repeat a run, or as the next command, with another option.
//!
//! It is read from what clap matched, so that no option is forgotten because nobody listed it here.
//! **Tests.** Here; `sweep/again.rs`, `sentences.rs` and `tests/next.rs` for what is offered.

use crate::args::Cli;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command, CommandFactory};
use std::ffi::OsString;
use std::fmt;

/// The options that say where results go.
pub const OUTPUTS: [&str; 5] = ["html", "json", "samples", "ftrace", "svg"];

/// A command of this program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandLine {
    /// The sub-command.
    words: Vec<String>,
    /// What it is done to.
    operand: Option<String>,
    /// Options in the order in which they were given, each with its value if it takes one.
    options: Vec<(String, Option<String>)>,
}

impl CommandLine {
    /// This process's.
    pub fn here() -> CommandLine {
        CommandLine::of(std::env::args_os())
    }

    /// That of `args`, the program's name first; `run rfc` where they say nothing.
    pub fn of(args: impl IntoIterator<Item = OsString>) -> CommandLine {
        let mut all = Cli::command();
        all.build();
        let mut line = CommandLine::new("run", None);
        // What cannot be read has been refused long before.
        if let Ok(matches) = all.clone().try_get_matches_from(args) {
            line.add(&all, &matches, Vec::new());
        }
        line
    }

    /// `words` and nothing else.
    pub fn new(words: &str, operand: Option<&str>) -> CommandLine {
        CommandLine {
            words: words.split_whitespace().map(String::from).collect(),
            operand: operand.map(String::from),
            options: Vec::new(),
        }
    }

    fn add(&mut self, command: &Command, matches: &ArgMatches, mut words: Vec<String>) {
        if let Some((name, matches)) = matches.subcommand()
            && let Some(command) = command.find_subcommand(name)
        {
            words.push(name.to_string());
            return self.add(command, matches, words);
        }
        if !words.is_empty() {
            self.words = words;
        }
        let mut places = Vec::new();
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            let asks = matches!(
                arg.get_action(),
                ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
            );
            if asks || matches.value_source(id) != Some(ValueSource::CommandLine) {
                continue;
            }
            let values = matches.get_raw(id).into_iter().flatten();
            let values: Vec<_> = values.map(|v| v.to_string_lossy().into_owned()).collect();
            match arg.get_long() {
                None => self.operand = Some(values.concat()),
                Some(name) => {
                    let takes = arg.get_action().takes_values();
                    let value = takes.then(|| values.join(","));
                    let option = (name.to_string(), value);
                    places.push((matches.index_of(id), option));
                }
            }
        }
        places.sort_by_key(|(place, _)| *place);
        self.options = places.into_iter().map(|(_, option)| option).collect();
    }

    /// Another sub-command with the same options.
    #[must_use]
    pub fn command(mut self, words: &str, operand: Option<&str>) -> CommandLine {
        let CommandLine { words, operand, .. } = CommandLine::new(words, operand);
        (self.words, self.operand) = (words, operand);
        self
    }

    /// Without some options.
    #[must_use]
    pub fn without(mut self, names: &[&str]) -> CommandLine {
        self.options.retain(|(name, _)| !names.contains(&&**name));
        self
    }

    /// With an option, in the place of the value that it had.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> CommandLine {
        self.set(name, Some(value.to_string()));
        self
    }

    /// With an option that takes no value.
    #[must_use]
    pub fn flag(mut self, name: &str) -> CommandLine {
        self.set(name, None);
        self
    }

    fn set(&mut self, name: &str, value: Option<String>) {
        match self.options.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => self.options.push((name.to_string(), value)),
        }
    }

    /// The value of an option that is there.
    pub fn value(&self, name: &str) -> Option<&str> {
        let found = self.options.iter().find(|(n, _)| n == name);
        found.and_then(|(_, value)| value.as_deref())
    }

    /// Is the option there?
    pub fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(n, _)| n == name)
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("highwater")?;
        for word in self.words.iter().chain(&self.operand) {
            write!(f, " {}", quoted(word))?;
        }
        for (name, value) in &self.options {
            match value {
                None => write!(f, " --{name}")?,
                // It would be taken for an option of its own.
                Some(value) if value.starts_with('-') && value != "-" => {
                    write!(f, " --{name}={}", quoted(value))?
                }
                Some(value) => write!(f, " --{name} {}", quoted(value))?,
            }
        }
        Ok(())
    }
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:+@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The command line of some words.
    pub fn of(words: &[&str]) -> CommandLine {
        CommandLine::of(
            std::iter::once(&"highwater")
                .chain(words)
                .map(OsString::from),
        )
    }

    #[test]
    fn what_was_given_is_said_again_and_defaults_are_not() {
        let line = of(&[
            "run",
            "--memory=4MiB",
            "my own.toml",
            "--ghost",
            "--probe",
            "--json",
            "-",
            "--samples",
            "--html",
            "a b",
        ]);
        assert_eq!(
            line.to_string(),
            "highwater run 'my own.toml' --memory 4MiB --ghost --probe 3s --json - --samples --html 'a b'"
        );
        assert_eq!(
            line.clone().without(&OUTPUTS).to_string(),
            "highwater run 'my own.toml' --memory 4MiB --ghost --probe 3s"
        );
        let other = line.without(&OUTPUTS).with("memory", "8MiB").flag("strict");
        assert!(other.has("strict") && !other.has("json"));
        assert_eq!(
            other.command("replay", Some("t.csv")).to_string(),
            "highwater replay t.csv --memory 8MiB --ghost --probe 3s --strict"
        );
        assert_eq!(of(&[]).to_string(), "highwater run");
        assert_eq!(
            of(&["trace", "info", "a"]).to_string(),
            "highwater trace info a"
        );
        assert_eq!(
            of(&["run", "--warm-up=-1"]).to_string(),
            "highwater run --warm-up=-1"
        );
    }

    #[test]
    fn words_are_quoted_as_a_shell_takes_them() {
        assert_eq!(quoted("a/b-c.toml"), "a/b-c.toml");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}

//! Errors at a place of a TOML text: line, column, the line itself, what was expected, and the nearest known word.

use crate::error::{CliError, Result, did_you_mean};
use serde::de::DeserializeOwned;
use std::ops::Range;

/// A text, where it came from, and what to do when it makes no sense.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// A path or a name.
    pub origin: &'a str,
    /// The TOML.
    pub text: &'a str,
    /// How an error ends.
    pub remedy: &'a str,
}

impl Source<'_> {
    /// Reads a `T`.
    ///
    /// # Errors
    /// With the place of what does not parse.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        toml::from_str(self.text).map_err(|e| {
            let message = e.message().trim().replace('\n', "; ");
            let hint = unknown_word(&message).and_then(|(word, known)| {
                did_you_mean(&word, known.iter().map(String::as_str)).map(str::to_string)
            });
            self.at(e.span().unwrap_or(0..0), &message, hint.as_deref())
        })
    }

    /// Where the key `name` is said first; the beginning if it is not.
    pub fn key(&self, name: &str) -> Range<usize> {
        self.key_in(0..self.text.len(), name).unwrap_or(0..0)
    }

    /// Where the key `name` is said first within `part`, which begins a line.
    pub fn key_in(&self, part: Range<usize>, name: &str) -> Option<Range<usize>> {
        let mut start = part.start;
        for line in self.text[part].split_inclusive('\n') {
            let key = line.trim_start().trim_start_matches('[');
            let rest = key.strip_prefix(name).map(str::trim_start);
            if rest.is_some_and(|r| r.starts_with(['=', ']', '.'])) {
                let at = start + line.len() - key.len();
                return Some(at..at + name.len());
            }
            start += line.len();
        }
        None
    }

    /// The lines of the table `[[name]]` number `n`, from 0, with its head; `None` where it is written in another way.
    pub fn table(&self, name: &str, n: usize) -> Option<Range<usize>> {
        let head = format!("[[{name}]]");
        let (mut start, mut seen, mut from) = (0, 0, None);
        for line in self.text.split_inclusive('\n') {
            let text = line.trim_start();
            match from {
                None if text.starts_with(&head) && seen == n => from = Some(start),
                None if text.starts_with(&head) => seen += 1,
                Some(from) if text.starts_with('[') => return Some(from..start),
                _ => {}
            }
            start += line.len();
        }
        from.map(|from| from..start)
    }

    /// An error at a place of the text.
    pub fn at(&self, span: Range<usize>, message: &str, hint: Option<&str>) -> CliError {
        let (origin, text) = (self.origin, self.text);
        let start = span.start.min(text.len());
        let before = &text[..start];
        let line = before.matches('\n').count() + 1;
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let column = text[line_start..start].chars().count() + 1;
        let line_text = text[line_start..].lines().next().unwrap_or("");
        let rest = line_text.chars().count().saturating_sub(column - 1).max(1);
        let width = text
            .get(span)
            .map_or(1, |s| s.chars().count())
            .clamp(1, rest);
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        let mut out = format!(
            "{origin}:{line}:{column}: {message}\n {gutter} |\n {number} | {line_text}\n {gutter} | "
        );
        out.push_str(&" ".repeat(column - 1));
        out.push_str(&"^".repeat(width));
        if let Some(near) = hint {
            out.push_str(&format!(" did you mean `{near}`?"));
        }
        CliError::usage(out, self.remedy)
    }
}

/// From serde's ``unknown field `a`, expected one of `b`, `c` ``: the word and the known ones.
fn unknown_word(message: &str) -> Option<(String, Vec<String>)> {
    if !message.contains("unknown field") && !message.contains("unknown variant") {
        return None;
    }
    let mut words = message.split('`').skip(1).step_by(2).map(str::to_string);
    Some((words.next()?, words.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_where_it_is_said() {
        let text = "# depth = 1\nname_of = 2\n name = 3\n[iops]\nper_s = 1\n";
        let source = Source {
            origin: "t",
            text,
            remedy: "r",
        };
        for key in ["name", "iops", "per_s"] {
            let at = source.key(key);
            assert_eq!(&text[at.clone()], key);
        }
        assert_eq!(source.key("name").start, text.find(" name =").unwrap() + 1);
        assert_eq!(source.key("depth"), 0..0, "a comment says nothing");
        assert_eq!(source.key_in(12..23, "name"), None);
        let e = source.at(source.key("name"), "no", Some("neam"));
        assert!(e.message.starts_with("t:3:2: no"), "{e}");
    }

    #[test]
    fn a_table_of_a_list_is_its_lines() {
        let text = "a = 1\n[[tasks]]\nio = 1\n [[tasks]] # two\nio = 2\n[files.d]\nio = 3\n[[tasks]]\nio = 4";
        let source = Source {
            origin: "t",
            text,
            remedy: "r",
        };
        let io = |n| {
            let table = source.table("tasks", n)?;
            let at = source.key_in(table, "io")?;
            Some(text[at.start..].lines().next().unwrap_or_default())
        };
        assert_eq!(
            [0, 1, 2, 3].map(io),
            [Some("io = 1"), Some("io = 2"), Some("io = 4"), None]
        );
    }
}

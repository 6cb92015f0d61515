//! What the command says when it cannot go on: what happened, and the remedy.

use std::fmt;

/// Which exit code an error ends in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// A run failed.
    Failed = 1,
    /// The command line or a scenario makes no sense.
    Usage = 2,
}

/// An error for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CliError {
    /// The exit code.
    pub exit: Exit,
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// The result of anything here.
pub type Result<T> = std::result::Result<T, CliError>;

impl CliError {
    /// A run that failed.
    pub fn failed(message: impl Into<String>, remedy: impl Into<String>) -> CliError {
        CliError {
            exit: Exit::Failed,
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    /// Input that makes no sense.
    pub fn usage(message: impl Into<String>, remedy: impl Into<String>) -> CliError {
        CliError {
            exit: Exit::Usage,
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    /// The operating system's answer to `what`.
    pub fn os(what: impl fmt::Display, error: impl fmt::Display, remedy: &str) -> CliError {
        CliError::failed(format!("{what}: {error}"), remedy)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  try: {}", self.message, self.remedy)
    }
}

impl std::error::Error for CliError {}

/// The known word nearest to `word`, if it is near enough to be meant.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = 1 + word.chars().count() / 4;
    known
        .into_iter()
        .map(|k| (distance(word, k), k))
        .filter(|(d, _)| *d <= limit)
        .min()
        .map(|(_, k)| k)
}

/// Edits (insert, delete, replace, swap neighbours) between two words.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().replace('_', "-").chars().collect();
    let b: Vec<char> = b.to_lowercase().replace('_', "-").chars().collect();
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["threads", "file", "kind", "write_share"];
        assert_eq!(did_you_mean("thread", known), Some("threads"));
        assert_eq!(did_you_mean("flie", known), Some("file"));
        assert_eq!(did_you_mean("write-share", known), Some("write_share"));
        assert_eq!(did_you_mean("colour", known), None);
    }
}

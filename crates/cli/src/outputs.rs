//! The files that a command writes at its end: that they can be written is found out before hours of work, not after.

use crate::args::Command;
use crate::error::{CliError, Result};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Each option that names such a file, with the file. (`--html` and `--ftrace` are looked at where they are used, since
/// they may name several.)
fn of(command: &Command) -> Vec<(&'static str, &Option<PathBuf>)> {
    match command {
        Command::Run(a) => vec![("--json", &a.common.json)],
        Command::Matrix(a) => vec![("--json", &a.common.json)],
        Command::Replay(a) => vec![("--json", &a.common.json)],
        Command::Stack(a) => vec![("--json", &a.common.json)],
        Command::Sweep(a) => vec![("--json", &a.json), ("--svg", &a.svg)],
        Command::Claims(a) => vec![("--json", &a.json)],
        Command::Soak(a) => vec![("--json", &a.json)],
        Command::Probe(a) => vec![("--json", &a.json), ("--out", &a.out)],
        Command::Costs(a) => vec![("--out", &a.out)],
        _ => Vec::new(),
    }
}

/// Refuses what cannot be written, and changes nothing.
///
/// # Errors
/// What the file system answers, with the option that has to change.
pub fn check(command: &Command) -> Result<()> {
    for (option, path) in of(command) {
        match path {
            Some(path) if path.as_os_str() != "-" => writable(path).map_err(|e| {
                let remedy = format!("{option} with a file that you may write to");
                CliError::os(path.display(), e, &remedy)
            })?,
            _ => {}
        }
    }
    Ok(())
}

fn writable(path: &Path) -> std::io::Result<()> {
    match File::create_new(path) {
        Ok(_) => std::fs::remove_file(path),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => File::options()
            .append(true)
            .create(true)
            .open(path)
            .map(drop),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old) = (dir.path().join("new"), dir.path().join("old"));
        std::fs::write(&old, "kept").unwrap();
        writable(&new).unwrap();
        writable(&old).unwrap();
        assert!(!new.exists());
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "kept");
        assert!(writable(dir.path()).is_err());
        assert!(writable(&dir.path().join("no/such")).is_err());
    }
}

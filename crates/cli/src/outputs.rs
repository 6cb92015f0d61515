//! The files that a command writes at its end: that they can be written, and that none of them is another one or what the
//! command reads, is found out before hours of work, not after.

use crate::args::Command;
use crate::console;
use crate::device;
use crate::error::{CliError, Result};
use crate::replay::TraceCommand;
use crate::scenario::BUILTIN;
use crate::volume::VolumeCommand;
use serde::Serialize;
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
        Command::Stack(a) => vec![("--json", &a.common.json), ("--write", &a.write)],
        Command::Sweep(a) => vec![("--json", &a.json), ("--svg", &a.svg)],
        Command::Claims(a) => vec![("--json", &a.json)],
        Command::Soak(a) => vec![("--json", &a.json)],
        Command::Probe(a) => vec![("--json", &a.json), ("--out", &a.out)],
        Command::Costs(a) => vec![("--out", &a.out)],
        Command::Trace {
            what: TraceCommand::Info(a),
        } => vec![("--json", &a.json)],
        Command::Volume { what } => match what {
            VolumeCommand::Create(a) => vec![("--json", &a.json)],
            VolumeCommand::Info(a) | VolumeCommand::Fsck(a) => vec![("--json", &a.json)],
            VolumeCommand::CrashTest(a) => vec![("--json", &a.json)],
        },
        _ => Vec::new(),
    }
}

/// The options that name files which [`of`] leaves out.
fn more(command: &Command) -> Vec<(&'static str, &Option<PathBuf>)> {
    match command {
        Command::Run(a) => vec![("--html", &a.common.html), ("--ftrace", &a.ftrace)],
        Command::Replay(a) => vec![("--html", &a.common.html), ("--ftrace", &a.ftrace)],
        Command::Matrix(a) => vec![("--html", &a.common.html)],
        Command::Stack(a) => vec![("--html", &a.common.html)],
        Command::Sweep(a) => vec![("--html", &a.html)],
        Command::Claims(a) => vec![("--update", &a.update)],
        _ => Vec::new(),
    }
}

/// What a command reads, by what it is.
fn inputs(command: &Command) -> Vec<(&'static str, PathBuf)> {
    let of_lab = |device: &Option<String>, costs: &Option<PathBuf>| {
        let device = device.as_ref().map(|d| ("the device", PathBuf::from(d)));
        let costs = costs.clone().map(|c| ("the cost table", c));
        device.into_iter().chain(costs).collect::<Vec<_>>()
    };
    let (what, device, costs) = match command {
        Command::Run(a) => (a.scenario.as_ref(), &a.common.device, &a.common.costs),
        Command::Replay(a) => (a.trace.trace.as_path(), &a.common.device, &a.common.costs),
        Command::Sweep(a) => (a.scenario.as_ref(), &a.device, &a.costs),
        Command::Stack(a) => (a.scenario.as_ref(), &a.common.device, &a.common.costs),
        Command::Matrix(a) => (Path::new(""), &a.common.device, &a.common.costs),
        Command::Trace {
            what: TraceCommand::Info(a),
        } => (a.trace.trace.as_path(), &None, &None),
        Command::Probe(a) => (a.path.as_path(), &None, &None),
        Command::Volume { what } => match what {
            VolumeCommand::Create(a) => (a.path.as_path(), &None, &None),
            VolumeCommand::Info(a) | VolumeCommand::Fsck(a) => (a.path.as_path(), &None, &None),
            VolumeCommand::CrashTest(_) => return Vec::new(),
        },
        _ => return Vec::new(),
    };
    let mut all = of_lab(device, costs);
    all.push(("what is run", what.to_path_buf()));
    // A built-in's name is no file, even where there is one of that name.
    let builtin = |p: &Path| {
        let mut names = BUILTIN.iter().chain(device::BUILTIN.iter()).map(|b| b.0);
        names.any(|name| p.as_os_str() == name)
    };
    all.retain(|(_, path)| path.is_file() && !builtin(path));
    all
}

/// Where a file is or will be, whatever way leads there.
fn place(path: &Path) -> PathBuf {
    let parent = || {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new(".")).canonicalize().ok()?;
        Some(parent.join(path.file_name()?))
    };
    let found = path.canonicalize().ok().or_else(parent);
    found.unwrap_or_else(|| path.to_path_buf())
}

/// Refuses two outputs in one file, and one in the place of what is read.
fn apart(command: &Command) -> Result<()> {
    let outputs = of(command).into_iter().chain(more(command));
    let named = |(option, path): (&'static str, &Option<PathBuf>)| {
        let path = path.as_ref().filter(|p| p.as_os_str() != "-")?;
        // Devices such as /dev/null take any number.
        let lasts = path.metadata().map_or(true, |m| m.is_file());
        lasts.then(|| (option, path.clone()))
    };
    let outputs: Vec<(&str, PathBuf)> = outputs.filter_map(named).collect();
    let inputs = inputs(command);
    for (n, (option, path)) in outputs.iter().enumerate() {
        let here = place(path);
        let other = outputs[..n].iter().chain(&inputs);
        if let Some((what, _)) = other.into_iter().find(|(_, p)| place(p) == here) {
            return Err(CliError::usage(
                format!("{option} and {what} are one file: {}", path.display()),
                format!("{option} with another file"),
            ));
        }
    }
    Ok(())
}

/// Refuses what cannot be written, or would overwrite another, and changes nothing.
///
/// # Errors
/// What the file system answers, with the option that has to change.
pub fn check(command: &Command) -> Result<()> {
    for (option, path) in of(command).into_iter().chain(more(command)) {
        let stdout = path.as_ref().is_some_and(|p| p.as_os_str() == "-");
        if stdout && option != "--json" {
            return Err(CliError::usage(
                format!(
                    "{option} -: this is not the name of a file, and only --json goes to standard output"
                ),
                format!("{option} FILE, or {option} ./- for a file of that name"),
            ));
        }
    }
    for (option, path) in of(command) {
        match path {
            Some(path) if path.as_os_str() != "-" => try_write(option, path)?,
            _ => {}
        }
    }
    apart(command)
}

/// The text on standard output, and `json` in the file `path`, if one is asked for; JSON alone on standard output where
/// that is `-`, so that it can be piped.
///
/// # Errors
/// A file that cannot be written.
pub fn publish(text: &str, json: &impl Serialize, path: Option<&Path>) -> Result<()> {
    let Some(path) = path else {
        console::print(text);
        return Ok(());
    };
    let json = serde_json::to_string_pretty(json)
        .map_err(|e| CliError::failed(e.to_string(), "report this as a bug"))?;
    if path.as_os_str() == "-" {
        console::print_err(format_args!("{text}"));
        console::print(&(json + "\n"));
        return Ok(());
    }
    console::print(text);
    std::fs::write(path, json + "\n").map_err(|e| refused("--json", path, e))
}

/// What the operating system answered about the file of `option`.
pub fn refused(option: &str, path: &Path, e: std::io::Error) -> CliError {
    let remedy = format!("{option} with a file that you may write to");
    CliError::os(path.display(), e, &remedy)
}

/// Refuses a file of `option` that cannot be written, and leaves none behind.
///
/// # Errors
/// What the file system answers.
pub fn try_write(option: &str, path: &Path) -> Result<()> {
    writable(path).map_err(|e| refused(option, path, e))
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

    #[test]
    fn only_json_goes_to_standard_output() {
        use crate::args::Cli;
        use clap::Parser;
        let check = |line: &str| {
            let cli = Cli::parse_from(std::iter::once("highwater").chain(line.split(' ')));
            check(&cli.command.unwrap()).map_err(|e| e.message)
        };
        for line in [
            "run --html -",
            "run --json - --html -",
            "run --ftrace -",
            "replay t.csv --html -",
            "sweep --svg -",
            "sweep --html -",
            "probe . --out -",
            "costs --out -",
            "claims --update -",
            "stack --table --write -",
        ] {
            let why = check(line).unwrap_err();
            assert!(
                why.contains(" -: this is not the name of a file"),
                "{line}: {why}"
            );
        }
        assert_eq!(check("run --json -"), Ok(()));
        let dir = tempfile::tempdir().unwrap();
        let plain = format!("probe . --out {}/-", dir.path().display());
        assert_eq!(check(&plain), Ok(()), "a file of that name has a directory");
    }

    #[test]
    fn no_output_is_another_one_or_what_is_read() {
        use crate::args::Cli;
        use clap::Parser;
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
        let (a, trace) = (path("a"), path("t.csv"));
        std::fs::write(&trace, "1").unwrap();
        let around = format!(
            "{}/../{}/t.csv",
            dir.path().display(),
            dir.path().file_name().unwrap().display()
        );
        let check = |line: &[&str]| {
            let cli = Cli::parse_from(std::iter::once(&"highwater").chain(line));
            check(&cli.command.unwrap()).map_err(|e| e.message)
        };
        let refused = |line: &[&str], what: &str| {
            let why = check(line).unwrap_err();
            assert!(why.starts_with(what), "{why}");
        };
        refused(
            &["run", "--json", &a, "--html", &a],
            "--html and --json are one file",
        );
        refused(
            &["run", "--html", &a, "--ftrace", &a],
            "--ftrace and --html",
        );
        refused(
            &["replay", &trace, "--json", &around],
            "--json and what is run",
        );
        refused(&["sweep", &trace, "--svg", &trace], "--svg and what is run");
        refused(
            &["run", "rfc", "--costs", &trace, "--json", &trace],
            "--json and the cost table",
        );
        refused(
            &["run", "--device", &trace, "--html", &trace],
            "--html and the device",
        );
        for command in ["volume info", "volume fsck", "trace info"] {
            let words = command.split(' ');
            let line: Vec<&str> = words.chain([&*trace, "--json", &trace]).collect();
            refused(&line, "--json and what is run");
        }
        refused(&["probe", &trace, "--out", &trace], "--out and what is run");
        assert_eq!(
            check(&["run", "rfc", "--json", &a, "--html", &path("b")]),
            Ok(())
        );
        assert_eq!(
            check(&["run", "--json", "/dev/null", "--html", "/dev/null"]),
            Ok(())
        );
        assert_eq!(check(&["run", "--json", "-", "--html", &a]), Ok(()));
        assert_eq!(
            check(&[
                "run", "rfc", "--device", "nvme", "--html", "nvme", "--json", "rfc"
            ]),
            Ok(())
        );
        assert_eq!(std::fs::read_to_string(&trace).unwrap(), "1");
    }
}

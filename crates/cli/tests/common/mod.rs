//! The binary, as the tests start it, and what they ask of its answers.
#![allow(dead_code)]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// The binary.
pub fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_highwater"))
}

/// Runs it with `args`.
pub fn highwater<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Output {
    command().args(args).output().expect("the binary starts")
}

/// Runs it, which must succeed.
pub fn ok<S: AsRef<std::ffi::OsStr> + std::fmt::Debug>(args: &[S]) -> Output {
    succeeded(highwater(args), &format!("{args:?}"))
}

/// `o`, of a run that succeeded.
pub fn succeeded(o: Output, what: &str) -> Output {
    assert!(o.status.success(), "{what}: {}", err(&o));
    o
}

/// The words of a command line without quotes.
pub fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Runs the scenario `text`, kept in `dir` as `name`, with `args`; data files are made in `dir`.
pub fn run_scenario(dir: &Path, name: &str, text: &str, args: &[&str]) -> Output {
    let path = write(dir, name, text);
    let mut run = command();
    run.args(["run", &path, "--dir"]).arg(dir).args(args);
    run.output().expect("the binary starts")
}

/// Its standard output.
pub fn out(o: &Output) -> String {
    String::from_utf8_lossy(&o.stdout).into_owned()
}

/// Its standard error.
pub fn err(o: &Output) -> String {
    String::from_utf8_lossy(&o.stderr).into_owned()
}

/// The report on its standard output, after success.
pub fn json(o: &Output) -> Value {
    assert!(o.status.success(), "{}", err(o));
    serde_json::from_slice(&o.stdout).expect("only JSON on standard output")
}

/// `args` end with `code`, each of `what` said, and the remedy in the last line; what was said.
pub fn refuses(args: &[&str], code: i32, what: &[&str]) -> String {
    refused(&highwater(args), code, what)
}

/// As [`refuses`], of a run that has ended.
pub fn refused(o: &Output, code: i32, what: &[&str]) -> String {
    let text = err(o);
    assert_eq!(o.status.code(), Some(code), "{text}");
    for what in what {
        assert!(text.contains(what), "no {what:?} in {text}");
    }
    let last = text.trim_end().lines().last().unwrap_or("");
    assert!(
        last.starts_with("  try: ") || last.contains("--help"),
        "no remedy at the end: {text}"
    );
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// `o`, of a run with `args`, failed, printed nothing on standard output, and said `what` and `remedy`.
pub fn failed_with(o: &Output, args: &[&str], what: &str, remedy: &str) {
    let text = err(o);
    assert!(!o.status.success() && out(o).is_empty(), "{args:?}: {text}");
    assert!(text.contains(what), "{args:?}: {text}");
    assert!(text.contains(remedy), "{args:?}: no remedy: {text}");
    assert!(!text.contains("panicked"), "{text}");
}

/// A directory for this test, on the file system of the build.
pub fn temp() -> tempfile::TempDir {
    tempfile::tempdir_in(".").expect("a directory")
}

/// A file in `dir`; its path.
pub fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = dir.join(name);
    std::fs::write(&path, bytes).expect("a file is written");
    path.to_str().expect("a path of text").to_string()
}

/// Entries of `dir`.
pub fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).expect("the directory").count()
}

/// The cost table `text` with other figures for the keys `keys`, in `dir`; its path.
pub fn costs(dir: &Path, text: &str, keys: &[&str], ns: u64) -> String {
    let line = |l: &str| match l.split_once(" = ") {
        Some((key, _)) if keys.contains(&key) => format!("{key} = {ns}\n"),
        _ => format!("{l}\n"),
    };
    let changed: String = text.lines().map(line).collect();
    assert_ne!(changed, text, "{keys:?}");
    write(dir, "changed-costs.toml", changed)
}

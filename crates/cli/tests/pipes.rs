//! The command at the end of a pipe that nobody reads any more, and where what it prints has no room: no panic, the code
//! that a shell expects, and nothing left behind.

mod common;

use common::{command, entries, err, temp, words};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// What a shell shows of a process that SIGPIPE ended.
const PIPE: Option<i32> = Some(128 + 13);

/// Two raw arms of 100 ms each and a writer of the engine: files, children, lines as they end.
const RUN: &str = "run random-write --raw --preset highwater --memory 8MiB --duration 100ms";

#[test]
fn a_run_whose_notes_nobody_reads_ends_quietly_and_removes_its_files() {
    let dir = temp();
    // Gone before the first line; after the first; after the first arm, with files laid out.
    for lines in [0, 1, 3] {
        let mut child = command();
        child.args(words(RUN)).arg("--dir").arg(dir.path());
        let child = child.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let mut notes = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        for _ in 0..lines {
            notes.read_line(&mut line).unwrap();
        }
        drop(notes);
        assert_eq!(child.wait().unwrap().code(), PIPE, "after {lines}: {line}");
        assert_eq!(entries(dir.path()), 0, "after {lines}: {line}");
    }
}

#[test]
fn results_that_nobody_reads_end_the_command_quietly() {
    let dir = temp();
    let trace = common::write(dir.path(), "t.csv", "1,1,28,512,8\n");
    let replay = format!("replay {trace} --json -");
    for line in ["scenarios", "scenario show rfc", &replay, "soak --seeds 1"] {
        // The reader is gone before there is anything to read.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let o = command().args(words(line)).stdout(writer).output().unwrap();
        let said = err(&o);
        assert_eq!(o.status.code(), PIPE, "{line}: {said}");
        assert!(!said.contains("panicked"), "{line}: {said}");
    }
}

#[test]
fn results_that_have_no_room_are_an_error() {
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else {
        eprintln!("skipped: no /dev/full");
        return;
    };
    for line in ["scenarios", "soak --seeds 1 --json -"] {
        let mut child = command();
        child.args(words(line)).stdout(full.try_clone().unwrap());
        let o = child.output().unwrap();
        common::refused(&o, 1, &["standard output: No space left"]);
    }
    // Notes without room are lost, and the run is not.
    let mut child = command();
    child
        .args(["soak", "--seeds", "1", "--verbose"])
        .stderr(full);
    let o = child.output().unwrap();
    assert!(o.status.success() && common::out(&o).contains("1 seed from 0"));
    assert_eq!(err(&o), "");
}

#[test]
fn a_page_that_has_no_room_takes_no_table_with_it() {
    if !std::path::Path::new("/dev/full").exists() {
        eprintln!("skipped: no /dev/full");
        return;
    }
    let work = "fits --world lab --memory 4MiB --duration 20ms --html /dev/full";
    for command in ["run", "stack"] {
        let line = format!("{command} {work} --preset highwater");
        let o = common::highwater(&words(&line));
        common::refused(&o, 1, &["/dev/full: No space left"]);
        assert!(common::out(&o).contains("lab highwater"), "{}", err(&o));
    }
    let line = format!("sweep {work} --preset highwater --pressure 2 --seeds 1");
    let o = common::highwater(&words(&line));
    common::refused(&o, 1, &["/dev/full: No space left"]);
    assert!(common::out(&o).contains("Next: "), "{}", err(&o));
}

#[test]
fn an_output_that_was_tried_is_not_left_behind_by_a_run_that_never_was() {
    let dir = temp();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (page, trace, plot) = (path("page.html"), path("trace.txt"), path("plot.svg"));
    let run = [
        "run",
        "fits",
        "--html",
        &page,
        "--ftrace",
        &trace,
        "--dir",
        "/no/such/dir",
    ];
    common::refuses(&run, 2, &["/no/such/dir"]);
    let sweep = [
        "sweep", "fits", "--html", &page, "--svg", &plot, "--task", "nobody",
    ];
    common::refuses(&sweep, 2, &["nobody"]);
    assert_eq!(entries(dir.path()), 0);
}

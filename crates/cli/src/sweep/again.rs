//! The command that runs one point of a sweep alone: the same work on the same device, at the same prices, by the same policies.

use super::args::SweepArgs;
use super::subject::is_trace;
use crate::command_line::{CommandLine, OUTPUTS};
use crate::scenario::Scenario;

/// What is a sweep's alone: a run has one point, one seed, and its tasks in one table.
const OWN: [&str; 4] = ["memory", "pressure", "task", "seeds"];
/// What only a trace has.
const OF_TRACES: [&str; 8] = [
    "format", "disk", "action", "pace", "speed", "threads", "size", "beyond",
];

/// `replay TRACE ...` or `run SCENARIO ...`, all but what the point says.
pub fn again(said: &CommandLine, args: &SweepArgs, scenario: &Scenario) -> CommandLine {
    let trace = is_trace(&args.scenario);
    let mut line = said.clone().without(&OUTPUTS).without(&OWN);
    // A list is what changes, and its point is said.
    if args.dirty_limit.as_ref().is_some_and(|l| l.contains(',')) {
        line = line.without(&["dirty-limit"]);
    }
    line = match trace {
        true => line.command("replay", Some(&args.scenario)),
        false => line
            .command("run", Some(&args.scenario))
            .without(&OF_TRACES),
    };
    // `run` has another world when nothing is said.
    line = line.with("world", &args.world);
    // A trace has its own end; of a scenario the sweep measures another time than `run` does.
    let replays = trace || scenario.tasks.iter().any(|t| t.replay.is_some());
    if !replays && args.duration.is_none() {
        let us = format!("{}us", scenario.duration.0.as_micros());
        line = line.with("duration", us.replace("000us", "ms"));
    }
    match args.world == "lab" && scenario.lab.ghost {
        true => line.flag("ghost"),
        false => line,
    }
}

/// The same sweep on real files, once: threads do not repeat.
pub fn on_real_files(said: &CommandLine) -> CommandLine {
    let lab_only = ["device", "costs", "cpus"];
    let line = said.clone().without(&OUTPUTS).without(&lab_only);
    line.with("world", "os").with("seeds", 1)
}

/// Bytes as an option has them, to the byte.
pub fn exact(bytes: u64) -> String {
    for (name, scale) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= scale && bytes.is_multiple_of(scale) {
            return format!("{}{name}", bytes / scale);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;
    use std::ffi::OsString;

    fn of(line: &[&str]) -> String {
        let Some(Command::Sweep(args)) = Cli::parse_from(all(line)).command else {
            panic!("sweep")
        };
        let mut scenario = crate::scenario::find("rfc").unwrap();
        scenario.duration.0 = std::time::Duration::from_millis(500);
        scenario.lab.ghost = true;
        again(&CommandLine::of(all(line)), &args, &scenario).to_string()
    }

    fn all(line: &[&str]) -> Vec<OsString> {
        let words = ["highwater", "sweep"].iter().chain(line);
        words.map(OsString::from).collect()
    }

    /// Whatever the sweep was told, the command that it offers has been told too, and can be run.
    #[test]
    fn nothing_that_was_said_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join("a b.csv");
        std::fs::write(&trace, "1,1,28,512,8\n").unwrap();
        let trace = trace.to_str().unwrap();
        let said = "--device hdd-7200 --dirty-limit 40 --costs c.toml --cpus 4 --seed 7 --preset 3.2,6.16 --order s3-fifo --format msr --disk \
                    usr.1 --strict --pace timestamps --speed 2.5 --threads 3 --size 3GiB --beyond wrap --duration 9s";
        let mut line: Vec<&str> = said.split_whitespace().collect();
        line.push(trace);
        let text = of(&line);
        assert!(
            text.starts_with(&format!("highwater replay '{trace}' --")),
            "{text}"
        );
        for option in said.split("--").skip(1).chain(["ghost", "world lab"]) {
            assert!(
                text.contains(&format!("--{}", option.trim())),
                "{option}: {text}"
            );
        }
        let usual = of(&[
            trace,
            "--seeds",
            "3",
            "--svg",
            "a.svg",
            "--memory",
            "16MiB,64MiB",
        ]);
        assert_eq!(
            usual,
            format!("highwater replay '{trace}' --world lab --ghost")
        );
        let list = of(&[trace, "--dirty-limit", "5,10"]);
        assert_eq!(list, usual);
        let scenario = of(&[
            "rfc",
            "--threads",
            "3",
            "--task",
            "probe",
            "--pressure",
            "1,2",
        ]);
        assert_eq!(
            scenario,
            "highwater run rfc --world lab --duration 500ms --ghost"
        );
        for text in [text, usual, scenario] {
            let words = text.replace(&format!("'{trace}'"), "t.csv");
            assert!(
                Cli::try_parse_from(words.split_whitespace()).is_ok(),
                "{text}"
            );
        }
        let line = all(&[
            "my own.toml",
            "--device",
            "nvme",
            "--pressure",
            "1,2",
            "--json",
            "-",
        ]);
        assert_eq!(
            on_real_files(&CommandLine::of(line)).to_string(),
            "highwater sweep 'my own.toml' --pressure 1,2 --world os --seeds 1"
        );
        let bytes = [3 << 30, 1536 << 20, 5 << 10, 1_500_001];
        assert_eq!(bytes.map(exact), ["3GiB", "1536MiB", "5KiB", "1500001"]);
    }
}

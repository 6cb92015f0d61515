//! The command that runs one point of a sweep alone: the same work on the same device, at the same prices, by the same policies.

use super::args::SweepArgs;
use super::subject::is_trace;
use crate::html::quoted;
use crate::replay::{BeyondArg, PaceArg, PlayArgs};
use crate::scenario::Scenario;
use std::fmt::Display;

/// `replay TRACE ...` or `run SCENARIO ...`, all but what the point says.
pub fn again(args: &SweepArgs, scenario: &Scenario) -> String {
    let trace = is_trace(&args.scenario);
    let what = if trace { "replay" } else { "run" };
    let mut out = Command(format!("{what} {}", quoted(&args.scenario)));
    out.value("world", Some(&args.world));
    out.value("preset", args.preset.as_ref());
    out.value("order", args.order.as_ref());
    // A list is what changes, and its point is said.
    let limit = args.dirty_limit.as_ref().filter(|l| !l.contains(','));
    out.value("dirty-limit", limit.map(|l| l.trim()));
    out.value("device", args.device.as_ref());
    out.value("costs", args.costs.as_ref().map(|p| p.display()));
    out.value("cpus", args.cpus);
    out.value("dir", args.dir.as_ref().map(|p| p.display()));
    out.value("seed", (args.seed != 1).then_some(args.seed));
    // A trace has its own end; of a scenario the sweep measures another time than `run` does.
    let replays = trace || scenario.tasks.iter().any(|t| t.replay.is_some());
    let own_end = replays && args.duration.is_none();
    let us = (!own_end).then(|| format!("{}us", scenario.duration.0.as_micros()));
    out.value("duration", us.map(|us| us.replace("000us", "ms")));
    out.flag("ghost", args.world == "lab" && scenario.lab.ghost);
    if trace {
        out.value("format", args.select.format.map(|f| f.name()));
        out.value("disk", args.select.disk.as_ref());
        out.value("action", args.select.action.as_ref());
        out.flag("strict", args.select.strict);
        play(&mut out, &args.play);
    }
    out.0
}

fn play(out: &mut Command, play: &PlayArgs) {
    let usual = PlayArgs::default();
    out.value(
        "pace",
        (play.pace == PaceArg::Timestamps).then_some("timestamps"),
    );
    out.value("speed", play.speed);
    out.value(
        "threads",
        (play.threads != usual.threads).then_some(play.threads),
    );
    out.value("size", play.size.as_ref());
    out.value(
        "beyond",
        match play.beyond {
            BeyondArg::Refuse => None,
            BeyondArg::Wrap => Some("wrap"),
            BeyondArg::Skip => Some("skip"),
        },
    );
}

struct Command(String);

impl Command {
    fn value(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.0
                .push_str(&format!(" --{name} {}", quoted(&value.to_string())));
        }
    }

    fn flag(&mut self, name: &str, is: bool) {
        if is {
            self.0.push_str(&format!(" --{name}"));
        }
    }
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

    fn of(line: &[&str]) -> String {
        let words = ["highwater", "sweep"].iter().chain(line);
        let Some(Command::Sweep(args)) = Cli::parse_from(words).command else {
            panic!("sweep")
        };
        let mut scenario = crate::scenario::find("rfc").unwrap();
        scenario.duration.0 = std::time::Duration::from_millis(500);
        scenario.lab.ghost = true;
        again(&args, &scenario)
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
            text.starts_with(&format!("replay '{trace}' --world lab ")),
            "{text}"
        );
        for option in said.replace("--duration 9s", "").split("--").skip(1) {
            assert!(
                text.contains(&format!("--{}", option.trim())),
                "{option}: {text}"
            );
        }
        assert!(
            text.contains("--ghost") && text.contains("--duration 500ms"),
            "{text}"
        );
        let usual = of(&[trace]);
        assert_eq!(usual, format!("replay '{trace}' --world lab --ghost"));
        let scenario = of(&["rfc", "--threads", "3"]);
        assert_eq!(scenario, "run rfc --world lab --duration 500ms --ghost");
        let all = |text: &str| -> Vec<String> {
            let words = text.replace(&format!("'{trace}'"), "t.csv");
            let words = words.split_whitespace().map(String::from);
            std::iter::once("highwater".into()).chain(words).collect()
        };
        for text in [text, usual, scenario] {
            assert!(Cli::try_parse_from(all(&text)).is_ok(), "{text}");
        }
        let bytes = [3 << 30, 1536 << 20, 5 << 10, 1_500_001];
        assert_eq!(bytes.map(exact), ["3GiB", "1536MiB", "5KiB", "1500001"]);
    }
}

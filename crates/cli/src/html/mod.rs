//! `--html`: the report of a run as one page that needs nothing but a browser.
//!
//! **Invariants.**
//! - PAGE-1: the page names no other resource: no script, no font, no address but the SVG name space.
//! - PAGE-2: it is a function of the report and of [`About`]; of a run of the lab it holds nothing that differs from one
//!   run to the next (no date, no figure of real time).
//! - PAGE-3: no text of a scenario reaches it unescaped.
//!
//! **Tests.** Here, and `tests/html.rs` on whole runs.

mod charts;
mod series;
pub mod svg;

use crate::args::Common;
use crate::error::{CliError, Result};
use crate::report::Report;
use crate::scenario::Scenario;
use crate::units::{show_bytes, show_us};
use crate::{columns, sentences};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use svg::escape;

/// The style of a page.
pub const STYLE: &str = include_str!("style.css");
/// The options whose value names an output, which the repeating command leaves out.
const OUTPUTS: [&str; 4] = ["--html", "--json", "--ftrace", "--svg"];

/// What the page says beside the report's numbers.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// What the scenario is for.
    pub about: String,
    /// Pairs of a name and its value.
    pub facts: Vec<(String, String)>,
    /// The command that repeats the run.
    pub command: String,
}

impl About {
    /// Of a scenario as it is run.
    pub fn new(scenario: &Scenario, seed: u64, worlds: &[&str]) -> About {
        let span = |d: std::time::Duration| show_us(d.as_secs_f64() * 1e6);
        let measured = match scenario.ops {
            Some(n) => format!("{n} operations"),
            None => span(scenario.duration.0),
        };
        let fact = |name: &str, value: String| (name.to_string(), value);
        let files = scenario.files.iter().map(|(name, f)| {
            let sparse = if f.sparse { ", sparse" } else { "" };
            format!(
                "{name}: {}{sparse}",
                show_bytes(f.size.bytes(scenario.memory.0))
            )
        });
        About {
            about: scenario.about.clone(),
            facts: vec![
                fact(
                    "Memory",
                    format!(
                        "{} for each arm, in frames of {}",
                        show_bytes(scenario.memory.0),
                        show_bytes(scenario.frame_size.0)
                    ),
                ),
                fact("Files", files.collect::<Vec<_>>().join("; ")),
                fact("Device", device(scenario, worlds)),
                fact("Worlds", worlds.join(", ")),
                fact(
                    "Measured",
                    format!(
                        "{measured}, after {} of settling and a warm-up of {} x memory",
                        span(scenario.settle.0),
                        scenario.warm_up
                    ),
                ),
                fact("Seed", seed.to_string()),
                fact(
                    "Version",
                    format!("highwater {}", env!("CARGO_PKG_VERSION")),
                ),
            ],
            command: command(std::env::args_os().skip(1)),
        }
    }
}

/// What the files lie on, in each kind of world, and what it is held to.
fn device(scenario: &Scenario, worlds: &[&str]) -> String {
    let mut parts = Vec::new();
    if worlds.contains(&"lab") {
        let model = scenario.lab_device.as_ref();
        parts.push(model.map_or("the lab's default model".into(), |d| {
            format!("the lab's model {}", d.name)
        }));
    }
    if worlds.iter().any(|w| *w != "lab") {
        parts.push("the disk under --dir".into());
    }
    parts.push(scenario.device.map_or("no limit set".into(), |d| {
        let bytes = show_bytes(d.bytes_per_s);
        format!("limited to {bytes} and {} requests a second", d.iops)
    }));
    parts.join("; ")
}

/// The stroke of line `i` of a chart: six colours, then the same in dashes.
pub fn line_class(i: usize) -> String {
    format!("s-c{} d{}", i % 6, i / 6 % 3)
}

/// The command line again, without where its results went.
pub fn command(args: impl Iterator<Item = OsString>) -> String {
    let mut out = String::from("highwater");
    let mut skip = false;
    for arg in args {
        let arg = arg.to_string_lossy();
        let is_output = |a: &str| OUTPUTS.contains(&a);
        if std::mem::take(&mut skip) {
            continue;
        }
        if is_output(&arg) {
            skip = true;
            continue;
        }
        if arg.split_once('=').is_some_and(|(name, _)| is_output(name)) {
            continue;
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:+@%".contains(c);
        out.push(' ');
        if !arg.is_empty() && arg.chars().all(plain) {
            out.push_str(&arg);
        } else {
            out.push_str(&format!("'{}'", arg.replace('\'', r"'\''")));
        }
    }
    out
}

/// The page of a run, if one is asked for.
pub struct Page {
    path: Option<PathBuf>,
    about: About,
}

impl Page {
    /// Before the run: fails at once, not after all is measured, when the page cannot be written.
    ///
    /// # Errors
    /// What the file system answers, with the option that has to change.
    pub fn new(common: &Common, scenario: &Scenario, worlds: &[&str]) -> Result<Page> {
        if let Some(path) = &common.html {
            let file = OpenOptions::new().append(true).create(true).open(path);
            file.map_err(|e| refused(path, e))?;
        }
        Ok(Page {
            path: common.html.clone(),
            about: About::new(scenario, common.seed, worlds),
        })
    }

    /// After the run.
    ///
    /// # Errors
    /// As [`Page::new`].
    pub fn write(&self, report: &Report) -> Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        std::fs::write(path, page(report, &self.about)).map_err(|e| refused(path, e))?;
        eprintln!("page: {}", path.display());
        Ok(())
    }
}

fn refused(path: &Path, e: std::io::Error) -> CliError {
    CliError::os(
        path.display(),
        e,
        "--html with a file that you may write to",
    )
}

/// The page.
pub fn page(report: &Report, about: &About) -> String {
    let mut report = report.clone();
    // PAGE-2: how fast the lab itself was.
    report.arms.iter_mut().for_each(|a| a.real = None);
    let report = &report;
    let name = escape(&report.scenario);
    let facts: String = about
        .facts
        .iter()
        .map(|(k, v)| format!("<dt>{}</dt><dd>{}</dd>", escape(k), escape(v)))
        .collect();
    let says: String = sentences::sentences(report)
        .iter()
        .map(|s| format!("<p>{}</p>\n", escape(s)))
        .collect();
    let table = escape(&columns::table(report).render(crate::WIDTH));
    let sections = [
        (
            "latency",
            "Latency",
            "Percentile against latency, on a scale that stretches the slowest operations: each line up holds ten times fewer.",
            charts::latencies(report),
        ),
        (
            "memory",
            "Memory over time",
            "What each page was, stacked, and the lines that the policies steer by.",
            charts::memory(report),
        ),
        (
            "writers",
            "Who wrote how much",
            "A page written by direct reclaim or by a throttled writer was paid for by a thread that wanted something else.",
            charts::writers(report),
        ),
        (
            "stalls",
            "Stalls over time",
            "A value of 2 means that two tasks stood still all the time. A wait is counted when it ends, so a long one is a peak.",
            charts::stalls(report),
        ),
        (
            "throughput",
            "Throughput over time",
            "Each task on a scale of its own.",
            charts::throughput(report),
        ),
    ];
    let body: String = sections
        .iter()
        .map(|(id, title, text, body)| format!("<section id=\"{id}\"><h2>{title}</h2>\n<p class=\"soft\">{text}</p>\n{body}</section>\n"))
        .collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{name} - highwater</title><style>\n{STYLE}</style></head>\n<body>\n\
         <header><h1>{name}</h1><p>{}</p><dl>{facts}</dl><p class=\"soft\">To repeat it:</p><pre>{}</pre></header>\n\
         <section id=\"summary\"><h2>Summary</h2>\n{says}<pre>{table}</pre></section>\n{body}</body></html>\n",
        escape(&about.about),
        escape(&about.command),
    )
}

#[cfg(test)]
mod tests;

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

use crate::command_line::{CommandLine, OUTPUTS};
use crate::error::Result;
use crate::plan::WorldName;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::units::{show_bytes, show_us};
use crate::{columns, outputs, predict, sentences};
use std::path::{Path, PathBuf};
use svg::escape;

/// The style of a page.
pub const STYLE: &str = include_str!("style.css");

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
    pub fn new(scenario: &Scenario, seed: u64, worlds: &[WorldName], disk: &str) -> About {
        let span = |d: std::time::Duration| show_us(d.as_secs_f64() * 1e6);
        let measured = match scenario.ops {
            Some(n) => format!("{n} operations"),
            None if ends_with_its_traces(scenario) => {
                format!("to the trace's end, at most {}", span(scenario.duration.0))
            }
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
                fact("Disk", disk.to_string()),
                fact(
                    "Worlds",
                    worlds
                        .iter()
                        .map(|w| w.name())
                        .collect::<Vec<_>>()
                        .join(", "),
                ),
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
            command: CommandLine::here().without(&OUTPUTS).to_string(),
        }
    }
}

/// The stroke of line `i` of a chart: six colours, then the same in dashes.
pub fn line_class(i: usize) -> String {
    format!("s-c{} d{}", i % 6, i / 6 % 3)
}

/// Does a run end before its duration is over, since all that its tasks do is in traces?
fn ends_with_its_traces(scenario: &Scenario) -> bool {
    let once = |t: &crate::scenario::TaskSpec| t.trace.is_some() && t.repeat != Some(true);
    scenario.tasks.iter().all(once)
}

/// After the run.
///
/// # Errors
/// What the file system answers, with the option that has to change.
pub fn write(path: &Path, page: &str) -> Result<()> {
    std::fs::write(path, page).map_err(|e| outputs::refused("--html", path, e))?;
    say!("page: {}", path.display());
    Ok(())
}

/// The page of one run, if one is asked for.
pub struct Page {
    path: Option<PathBuf>,
    about: About,
}

impl Page {
    /// Fails at once, not after all is measured, when the page cannot be written.
    ///
    /// # Errors
    /// As [`write()`].
    pub fn new(
        path: Option<&Path>,
        scenario: &Scenario,
        seed: u64,
        worlds: &[WorldName],
        disk: &str,
    ) -> Result<Page> {
        if let Some(path) = path {
            outputs::try_write("--html", path)?;
        }
        Ok(Page {
            path: path.map(Path::to_path_buf),
            about: About::new(scenario, seed, worlds, disk),
        })
    }

    /// As the function.
    ///
    /// # Errors
    /// As the function.
    pub fn write(&self, report: &Report) -> Result<()> {
        match &self.path {
            Some(path) => write(path, &page(report, &self.about)),
            None => Ok(()),
        }
    }

    /// What the page says beside the numbers.
    pub fn into_about(self) -> About {
        self.about
    }
}

/// One report's part of a page: its head, its summary, its charts.
struct Part<'a> {
    report: &'a Report,
    about: &'a About,
    /// Begins the ids.
    ids: String,
    /// How deep its title stands.
    level: usize,
}

impl Part<'_> {
    fn html(&self) -> String {
        let (ids, level) = (&self.ids, self.level);
        let mut report = self.report.clone();
        // PAGE-2: how fast the lab itself was.
        report.arms.iter_mut().for_each(|a| a.real = None);
        let report = &report;
        let facts: String = self
            .about
            .facts
            .iter()
            .map(|(k, v)| format!("<dt>{}</dt><dd>{}</dd>", escape(k), escape(v)))
            .collect();
        let repeat = match self.about.command.as_str() {
            "" => String::new(),
            command => format!(
                "<p class=\"soft\">To repeat it:</p><pre>{}</pre>",
                escape(command)
            ),
        };
        let says: String = sentences::all(report)
            .iter()
            .map(|s| format!("<p>{}</p>\n", escape(s)))
            .collect();
        let table = escape(&columns::table(report).render(crate::console::WIDTH));
        let below = level + 1;
        let charts: String = charts_of(report, ids)
            .iter()
            .map(|(id, title, text, body)| format!("<section id=\"{ids}{id}\"><h{below}>{title}</h{below}>\n<p class=\"soft\">{text}</p>\n{body}</section>\n"))
            .collect();
        format!(
            "<header><h{level}>{}</h{level}><p>{}</p><dl>{facts}</dl>{repeat}</header>\n\
             <section id=\"{ids}summary\"><h{below}>Summary</h{below}>\n{says}<pre>{table}</pre></section>\n{charts}",
            escape(&report.scenario),
            escape(&self.about.about),
        )
    }
}

/// Id, title, explanation and body of each section.
fn charts_of(
    report: &Report,
    ids: &str,
) -> [(&'static str, &'static str, &'static str, String); 5] {
    [
        (
            "latency",
            "Latency",
            "Percentile against latency, on a scale that stretches the slowest operations: each line up holds ten times fewer.",
            charts::latencies(report, ids),
        ),
        (
            "memory",
            "Memory over time",
            "What each page was, stacked, and the lines that the policies steer by.",
            charts::memory(report, ids),
        ),
        (
            "writers",
            "Who wrote how much",
            "A page written by direct reclaim or by a throttled writer was paid for by a thread that wanted something else.",
            charts::writers(report, ids),
        ),
        (
            "stalls",
            "Stalls over time",
            "A value of 2 means that two tasks stood still all the time. A wait is counted when it ends, so a long one is a peak.",
            charts::stalls(report, ids),
        ),
        (
            "throughput",
            "Throughput over time",
            "Each task on a scale of its own.",
            charts::throughput(report, ids),
        ),
    ]
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{} - highwater</title><style>\n{STYLE}</style></head>\n<body>\n{body}</body></html>\n",
        escape(title),
    )
}

/// The page of one report.
pub fn page(report: &Report, about: &About) -> String {
    let part = Part {
        report,
        about,
        ids: String::new(),
        level: 1,
    };
    let predictions = predict::predictions(report);
    let table = predict::table(&[(report, &predictions)], crate::console::WIDTH);
    document(&report.scenario, &(part.html() + &predicted(&table)))
}

/// The page of several: an index, a section for each, and the predictions of all, if there are any.
pub fn page_of_all(title: &str, parts: &[(Report, About)], predictions: &str) -> String {
    let command = parts.first().map_or("", |(_, a)| a.command.as_str());
    let mut index = String::new();
    let mut sections = String::new();
    for (n, (report, about)) in parts.iter().enumerate() {
        let name = escape(&report.scenario);
        let text = escape(&about.about);
        index.push_str(&format!("<li><a href=\"#s{n}\">{name}</a>: {text}</li>\n"));
        let about = About {
            // It stands above, once.
            command: String::new(),
            ..about.clone()
        };
        let part = Part {
            report,
            about: &about,
            ids: format!("s{n}-"),
            level: 2,
        };
        sections.push_str(&format!("<article id=\"s{n}\">{}</article>\n", part.html()));
    }
    if !predictions.is_empty() {
        index.push_str("<li><a href=\"#predictions\">The lab against the OS world</a></li>\n");
    }
    sections.push_str(&predicted(predictions));
    let body = format!(
        "<header><h1>{}</h1><p class=\"soft\">To repeat it:</p><pre>{}</pre>\n<ul>\n{index}</ul></header>\n{sections}",
        escape(title),
        escape(command),
    );
    document(title, &body)
}

/// The section of the table of predictions; nothing without one.
fn predicted(table: &str) -> String {
    match table.is_empty() {
        true => String::new(),
        false => format!(
            "<section id=\"predictions\"><h2>The lab against the OS world</h2>\n<pre>{}</pre></section>\n",
            escape(table)
        ),
    }
}

#[cfg(test)]
mod tests;

//! The sections of the page, each a function of the report: what is drawn, on which scale, with which numbers below.
//!
//! Charts that stand side by side share their scales, so that heights may be compared. `ids` begins each chart's id, for
//! pages with several reports.

mod latency;
mod memory;
mod over_time;
mod writers;

pub use latency::latencies;
pub use memory::memory;
pub use over_time::{stalls, throughput};
pub use writers::writers;

use super::line_class;
use super::svg::{Axis, escape, figure, legend};
use crate::report::{ArmReport, Report};

/// What each arm's curve looks like.
fn arm_legend(report: &Report) -> String {
    let items: Vec<_> = report
        .arms
        .iter()
        .enumerate()
        .map(|(i, a)| (line_class(i), a.title()))
        .collect();
    legend(&items, false)
}

fn strings<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(String::from).to_vec()
}

fn absent(arm: &ArmReport, what: &str) -> String {
    figure(
        &arm.title(),
        "",
        &format!("<p class=\"soft\">{}</p>", escape(what)),
        "",
    )
}

/// Seconds on an axis.
fn time_axis(report: &Report) -> Axis {
    let all = || report.arms.iter().filter_map(|a| a.samples.as_ref());
    let edge = |pick: fn(&[f64]) -> Option<&f64>| all().filter_map(move |s| pick(&s.t_s).copied());
    let min = edge(<[f64]>::first).fold(0.0, f64::min);
    let max = edge(<[f64]>::last).fold(0.0, f64::max);
    Axis::linear(min, max, "time since the measurement began, s", short)
}

/// A number of a tick: no more digits than it needs.
fn short(v: f64) -> String {
    if v.abs() >= 1e6 {
        format!("{} M", trim(v / 1e6))
    } else if v.abs() >= 1e4 {
        format!("{} k", trim(v / 1e3))
    } else {
        trim(v)
    }
}

fn trim(v: f64) -> String {
    let text = format!("{v:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".into()
    } else {
        text.into()
    }
}

fn task_names(report: &Report) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for task in report.arms.iter().flat_map(|a| &a.tasks) {
        if !names.contains(&task.name.as_str()) {
            names.push(&task.name);
        }
    }
    names
}

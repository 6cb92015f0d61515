//! Latency distributions: percentiles on a scale that stretches the slowest operations.

use super::{arm_legend, strings, task_names, trim};
use crate::html::line_class;
use crate::html::svg::{Axis, Chart, figure, numbers};
use crate::report::Report;
use crate::units::{show_count, show_us};

/// A percentile's height: how many nines it has.
fn nines(p: f64) -> f64 {
    -(1.0 - p.min(99.9991) / 100.0).log10()
}

/// For each task one chart, all arms in it.
pub fn latencies(report: &Report, ids: &str) -> String {
    let mut out = arm_legend(report) + "<div class=\"grid\">\n";
    for (n, name) in task_names(report).into_iter().enumerate() {
        out.push_str(&latency(report, &format!("{ids}lat{n}"), name));
    }
    out + "</div>\n"
}

fn latency(report: &Report, id: &str, name: &str) -> String {
    let curves: Vec<(usize, &[[f64; 2]])> = report
        .arms
        .iter()
        .enumerate()
        .filter_map(|(i, a)| {
            let task = a.tasks.iter().find(|t| t.name == name)?;
            Some((i, task.percentiles.as_deref()?))
        })
        .filter(|(_, c)| !c.is_empty())
        .collect();
    if curves.is_empty() {
        let none = "<p class=\"soft\">No operation was completed in the measured time.</p>";
        return figure(name, "", none, "");
    }
    let logs = || {
        curves
            .iter()
            .flat_map(|(_, c)| c.iter().map(|p| p[1].max(1e-3).log10()))
    };
    let (low, high) = (
        logs().fold(f64::INFINITY, f64::min).floor(),
        logs().fold(f64::NEG_INFINITY, f64::max).ceil(),
    );
    let high = high.max(low + 1.0);
    let x = Axis {
        min: low,
        max: high,
        ticks: (low as i32..=high as i32)
            .map(|d| (f64::from(d), decade(d)))
            .collect(),
        name: "latency of one operation (logarithmic)".into(),
    };
    let y = Axis {
        min: 0.0,
        max: 5.0,
        ticks: [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999]
            .map(|p| (nines(p).round_to_axis(), format!("{} %", trim(p))))
            .to_vec(),
        name: "operations at most as slow".into(),
    };
    let about = "Percentile against latency, one curve for each arm. Further to the left is faster; a curve that bends to the right at the top has rare, long waits.";
    let title = format!("Latency distribution of {name}");
    let mut chart = Chart::new(id, &title, about, 320.0, x, y);
    for (i, curve) in &curves {
        let points = curve.iter().map(|p| (p[1].max(1e-3).log10(), nines(p[0])));
        chart.curve(&line_class(*i), points);
    }
    let head = strings([
        "arm",
        "operations",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "p99.999",
        "max",
    ]);
    let rows = report.arms.iter().filter_map(|a| {
        let task = a.tasks.iter().find(|t| t.name == name)?;
        let curve = task.percentiles.as_deref().unwrap_or(&[]);
        let at = |p: f64| {
            let point = curve.iter().find(|q| (q[0] - p).abs() < 1e-6);
            point.map_or("-".into(), |q| show_us(q[1]))
        };
        let mut row = vec![a.title(), show_count(task.ops)];
        row.extend([50.0, 90.0, 99.0, 99.9, 99.99, 99.999].map(at));
        row.push(if task.ops == 0 {
            "-".into()
        } else {
            show_us(task.latency_us.max)
        });
        Some(row)
    });
    let table = numbers(&head, &rows.collect::<Vec<_>>());
    figure(
        name,
        "ends where fewer than one operation lies beyond",
        &chart.finish(),
        &table,
    )
}

trait RoundToAxis {
    /// 99.999 % stands at exactly five nines.
    fn round_to_axis(self) -> f64;
}

impl RoundToAxis for f64 {
    fn round_to_axis(self) -> f64 {
        (self * 1e6).round() / 1e6
    }
}

/// 10^`d` µs.
fn decade(d: i32) -> String {
    match d {
        ..0 => format!("{} ns", trim(10f64.powi(d + 3))),
        0..3 => format!("{} µs", trim(10f64.powi(d))),
        3..6 => format!("{} ms", trim(10f64.powi(d - 3))),
        _ => format!("{} s", trim(10f64.powi(d - 6))),
    }
}

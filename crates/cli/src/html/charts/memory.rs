//! Memory by state over time, with the lines that the policies steer by.

use super::{absent, short, strings, time_axis};
use crate::html::series::{measured, spread};
use crate::html::svg::{Axis, Chart, figure, legend, numbers};
use crate::report::{ArmReport, Report};
use crate::samples::{Limits, STATES, Samples};
use crate::units::show_bytes;
use std::fmt::Write;

const MIB: f64 = 1024.0 * 1024.0;

/// For each arm, memory by state stacked, and free memory enlarged beside it.
pub fn memory(report: &Report, ids: &str) -> String {
    let names = [
        "under writeback",
        "dirty",
        "on its way: isolated, being read, old copies",
        "clean",
        "not yet populated",
        "free",
    ];
    let items: Vec<_> = STATES
        .iter()
        .zip(names)
        .map(|(s, n)| (format!("f-{s}"), n.to_string()))
        .collect();
    let mut out = legend(&items, true) + "<div class=\"grid\">\n";
    let time = time_axis(report);
    for (n, arm) in report.arms.iter().enumerate() {
        match (&arm.samples, &arm.limits) {
            (Some(s), Some(l)) => {
                out.push_str(&memory_of(&format!("{ids}mem{n}"), arm, s, l, &time))
            }
            _ => out.push_str(&absent(arm, "This arm has no cache to look into.")),
        }
    }
    out += "</div>\n";
    let zoomed: String = report
        .arms
        .iter()
        .enumerate()
        .filter_map(|(n, arm)| free_of(&format!("{ids}free{n}"), arm, &time))
        .collect();
    if !zoomed.is_empty() {
        let _ = write!(
            out,
            "<p>Free memory alone, enlarged; what is more than a quarter above the high watermark is cut off. Below <i>low</i> kswapd wakes and works up to <i>high</i>; below <i>min</i> whoever needs a page waits or reclaims.</p><div class=\"grid\">\n{zoomed}</div>\n"
        );
    }
    out
}

/// The columns of all states; `None` when one cannot be known.
fn states(samples: &Samples) -> Option<Vec<&[u64]>> {
    STATES
        .iter()
        .map(|s| samples.frames.get(*s)?.as_deref())
        .collect()
}

fn memory_of(id: &str, arm: &ArmReport, samples: &Samples, limits: &Limits, time: &Axis) -> String {
    let Some(columns) = states(samples) else {
        return absent(arm, "The states of its memory cannot be known.");
    };
    let mib = |pages: u64| pages as f64 * limits.page_bytes as f64 / MIB;
    let y = Axis::linear(0.0, mib(limits.frames), "memory, MiB", short);
    let about = "Pages by state, stacked: dirty memory from below, so that it can be held against the dirty limits; free memory from the top, against the high watermark.";
    let title = format!("Memory by state over time, {}", arm.title());
    let mut chart = Chart::new(id, &title, about, 300.0, time.clone(), y);
    let mut low = vec![0.0; samples.t_s.len()];
    for (state, column) in STATES.iter().zip(&columns) {
        let high: Vec<f64> = low.iter().zip(*column).map(|(l, p)| l + mib(*p)).collect();
        chart.area(&format!("f-{state}"), &samples.t_s, &low, &high);
        low = high;
    }
    chart.settle();
    if let Some(limit) = limits.dirty_limit {
        chart.level(
            mib(limit),
            &format!("dirty limit {}", show_bytes(limit * limits.page_bytes)),
            true,
        );
    }
    if let Some(background) = limits.dirty_background {
        let text = format!(
            "dirty background {}",
            show_bytes(background * limits.page_bytes)
        );
        chart.level(mib(background), &text, true);
    }
    if let Some(high) = limits.watermark_high {
        chart.level(
            mib(limits.frames.saturating_sub(high)),
            "high watermark, from the top",
            false,
        );
    }
    let head = strings(["MiB", "least", "mean", "most", "at the end"]);
    let rows = STATES.iter().zip(&columns).map(|(state, column)| {
        let column = measured(samples, column);
        let mut row = vec![(*state).to_string()];
        let spread = spread(column.iter().map(|p| mib(*p)));
        row.extend(spread.into_iter().flatten().map(|v| format!("{v:.2}")));
        row.extend(column.last().map(|p| format!("{:.2}", mib(*p))));
        row
    });
    let table = numbers(&head, &rows.collect::<Vec<_>>());
    figure(
        &arm.title(),
        "dirty limits from below",
        &chart.finish(),
        &table,
    )
}

fn free_of(id: &str, arm: &ArmReport, time: &Axis) -> Option<String> {
    let (samples, limits) = (arm.samples.as_ref()?, arm.limits?);
    let free = samples.frames.get("free")?.as_deref()?;
    let (min, low, high) = (
        limits.watermark_min?,
        limits.watermark_low?,
        limits.watermark_high?,
    );
    let mib = |pages: u64| pages as f64 * limits.page_bytes as f64 / MIB;
    let y = Axis::linear(0.0, mib(high) * 1.25, "free, MiB", short);
    let about = "Free memory over time against the watermarks min, low and high.";
    let title = format!("Free memory over time, {}", arm.title());
    let mut chart = Chart::new(id, &title, about, 260.0, time.clone(), y);
    let top: Vec<f64> = free.iter().map(|p| mib(*p)).collect();
    chart.area("f-free", &samples.t_s, &vec![0.0; top.len()], &top);
    chart.settle();
    for (pages, name) in [(min, "min"), (low, "low"), (high, "high")] {
        chart.level(mib(pages), name, true);
    }
    let head = strings(["pages", "least", "mean", "most", "min", "low", "high"]);
    let mut row = vec!["free".to_string()];
    let values = measured(samples, free).iter().map(|p| *p as f64);
    row.extend(
        spread(values)
            .into_iter()
            .flatten()
            .map(|v| format!("{v:.0}")),
    );
    row.extend([min, low, high].map(|n| n.to_string()));
    let table = numbers(&head, &[row]);
    Some(figure(&arm.title(), "free memory", &chart.finish(), &table))
}

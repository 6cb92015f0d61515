//! Who wrote how much: one bar for each arm.

use super::{short, strings};
use crate::html::svg::{Axis, Chart, figure, legend, numbers};
use crate::report::{ArmReport, Report};
use crate::units::show_count;

/// Who writes, in the order of the bars, with what the legend says.
const WRITERS: [(&str, &str); 5] = [
    ("direct", "direct reclaim: a thread that needed a page"),
    ("kswapd", "kswapd"),
    ("flusher", "the flusher"),
    ("writer", "a throttled writer"),
    ("sync", "sync"),
];

/// One bar for each arm.
pub fn writers(report: &Report, ids: &str) -> String {
    let by = |arm: &ArmReport| {
        let w = &arm.written_pages;
        [w.direct, w.kswapd, w.flusher, w.writer, w.sync]
    };
    let sum = |arm: &ArmReport| by(arm).iter().map(|n| n.unwrap_or(0)).sum::<u64>();
    let most = report.arms.iter().map(sum).max().unwrap_or(0);
    let x = Axis::linear(
        0.0,
        most as f64 * 1.04,
        "pages written in the measured time",
        short,
    );
    let n = report.arms.len() as f64;
    let middle = |i: usize| n - i as f64 - 0.5;
    let labels = report
        .arms
        .iter()
        .enumerate()
        .map(|(i, a)| (middle(i), shortened(&a.title())));
    let y = Axis {
        min: 0.0,
        max: n.max(1.0),
        ticks: labels.collect(),
        name: String::new(),
    };
    let about = "One bar for each arm: pages written by direct reclaim, kswapd, the flusher, throttled writers and sync.";
    let mut chart = Chart::wide(
        &format!("{ids}writers"),
        "Pages written, by who wrote them",
        about,
        56.0 + 30.0 * n,
        x,
        y,
    );
    for (i, arm) in report.arms.iter().enumerate() {
        let mut left = 0.0;
        for ((who, _), pages) in WRITERS.iter().zip(by(arm)) {
            let right = left + pages.unwrap_or(0) as f64;
            if right > left {
                let (bottom, top) = (middle(i) - 0.33, middle(i) + 0.33);
                chart.area(&format!("f-{who}"), &[left, right], &[bottom; 2], &[top; 2]);
            }
            left = right;
        }
    }
    let items: Vec<_> = WRITERS
        .iter()
        .map(|(who, name)| (format!("f-{who}"), (*name).to_string()))
        .collect();
    let head = strings([
        "arm",
        "direct",
        "kswapd",
        "flusher",
        "writer",
        "sync",
        "mean request, KiB",
    ]);
    let rows = report.arms.iter().map(|a| {
        let mut row = vec![a.title()];
        row.extend(by(a).map(|n| n.map_or("-".into(), show_count)));
        row.push(a.write_kib_mean.map_or("-".into(), |k| format!("{k:.0}")));
        row
    });
    let table = numbers(&head, &rows.collect::<Vec<_>>());
    legend(&items, true)
        + &figure(
            "Pages written",
            "a page is one frame",
            &chart.finish(),
            &table,
        )
}

/// A label that fits beside a bar.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(26) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into(),
    }
}

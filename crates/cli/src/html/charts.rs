//! The sections of the page, each a function of the report: what is drawn, on which scale, with which numbers below.
//!
//! Charts that stand side by side share their scales, so that heights may be compared.

use super::line_class;
use super::series::{count, measured, rate, spread};
use super::svg::{Axis, Chart, escape, figure, legend, numbers};
use crate::report::{ArmReport, Report};
use crate::samples::{Limits, STATES, Samples};
use crate::units::{show_bytes, show_count, show_us};
use std::fmt::Write;

const MIB: f64 = 1024.0 * 1024.0;
/// Who writes, in the order of the bars, with what the legend says.
const WRITERS: [(&str, &str); 5] = [
    ("direct", "direct reclaim: a thread that needed a page"),
    ("kswapd", "kswapd"),
    ("flusher", "the flusher"),
    ("writer", "a throttled writer"),
    ("sync", "sync"),
];
const STALLS: [(&str, &str, &str); 2] = [
    ("alloc", "waiting for memory", "allocstall_ns"),
    (
        "throttle",
        "held up by the throttle",
        "balance_dirty_pause_ns",
    ),
];

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

/// A percentile's height: how many nines it has.
fn nines(p: f64) -> f64 {
    -(1.0 - p.min(99.9991) / 100.0).log10()
}

/// For each task one chart, all arms in it.
pub fn latencies(report: &Report) -> String {
    let mut out = arm_legend(report) + "<div class=\"grid\">\n";
    for (n, name) in task_names(report).into_iter().enumerate() {
        out.push_str(&latency(report, n, name));
    }
    out + "</div>\n"
}

fn latency(report: &Report, n: usize, name: &str) -> String {
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
    let mut chart = Chart::new(&format!("lat{n}"), &title, about, 320.0, x, y);
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

/// For each arm, memory by state stacked, and free memory enlarged beside it.
pub fn memory(report: &Report) -> String {
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
            (Some(s), Some(l)) => out.push_str(&memory_of(n, arm, s, l, &time)),
            _ => out.push_str(&absent(arm, "This arm has no cache to look into.")),
        }
    }
    out += "</div>\n";
    let zoomed: String = report
        .arms
        .iter()
        .enumerate()
        .filter_map(|(n, arm)| free_of(n, arm, &time))
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

fn memory_of(n: usize, arm: &ArmReport, samples: &Samples, limits: &Limits, time: &Axis) -> String {
    let Some(columns) = states(samples) else {
        return absent(arm, "The states of its memory cannot be known.");
    };
    let mib = |pages: u64| pages as f64 * limits.page_bytes as f64 / MIB;
    let y = Axis::linear(0.0, mib(limits.frames), "memory, MiB", short);
    let about = "Pages by state, stacked: dirty memory from below, so that it can be held against the dirty limits; free memory from the top, against the high watermark.";
    let title = format!("Memory by state over time, {}", arm.title());
    let mut chart = Chart::new(&format!("mem{n}"), &title, about, 300.0, time.clone(), y);
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

fn free_of(n: usize, arm: &ArmReport, time: &Axis) -> Option<String> {
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
    let mut chart = Chart::new(&format!("free{n}"), &title, about, 260.0, time.clone(), y);
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

/// One bar for each arm.
pub fn writers(report: &Report) -> String {
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
        "writers",
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

/// For each arm, how many tasks stood still, on one scale.
pub fn stalls(report: &Report) -> String {
    let of = |arm: &ArmReport, counter: &str| -> Option<super::series::Rate> {
        let samples = arm.samples.as_ref()?;
        let ns = rate(samples, count(samples, counter)?);
        Some(ns.into_iter().map(|(t, v)| (t, v / 1e9)).collect())
    };
    let both = |arm: &ArmReport| Some([of(arm, STALLS[0].2)?, of(arm, STALLS[1].2)?]);
    let peak = report
        .arms
        .iter()
        .filter_map(both)
        .flat_map(|[a, b]| a.into_iter().zip(b).map(|(a, b)| a.1 + b.1))
        .fold(0.0, f64::max);
    let items: Vec<_> = STALLS
        .iter()
        .map(|(c, name, _)| (format!("f-{c}"), (*name).to_string()))
        .collect();
    let mut out = legend(&items, true) + "<div class=\"grid\">\n";
    let time = time_axis(report);
    for (n, arm) in report.arms.iter().enumerate() {
        let Some([alloc, throttle]) = both(arm) else {
            out.push_str(&absent(arm, "When its tasks stood still cannot be known."));
            continue;
        };
        let y = Axis::linear(0.0, peak * 1.05, "seconds stalled per second", short);
        let about = "Seconds that tasks together stood still in each second: waiting for memory, and on top of it held up by the throttle.";
        let title = format!("Stalls over time, {}", arm.title());
        let mut chart = Chart::new(&format!("stall{n}"), &title, about, 240.0, time.clone(), y);
        let (x, low): (Vec<f64>, Vec<f64>) = alloc.iter().copied().unzip();
        let high: Vec<f64> = low.iter().zip(&throttle).map(|(a, t)| a + t.1).collect();
        chart.area("f-alloc", &x, &vec![0.0; x.len()], &low);
        chart.area("f-throttle", &x, &low, &high);
        chart.settle();
        let head = strings(["stall", "in all, s", "most, s per s"]);
        let totals = [arm.stall_s.alloc, arm.stall_s.throttle];
        let rows =
            STALLS
                .iter()
                .zip(totals)
                .zip([&alloc, &throttle])
                .map(|(((_, name, _), total), r)| {
                    let most = r
                        .iter()
                        .filter(|p| p.0 > 0.0)
                        .map(|p| p.1)
                        .fold(0.0, f64::max);
                    let total = total.map_or("-".into(), |s| format!("{s:.3}"));
                    vec![(*name).to_string(), total, format!("{most:.3}")]
                });
        let table = numbers(&head, &rows.collect::<Vec<_>>());
        let longest = arm.stall_s.longest.map_or(String::new(), |s| {
            format!("longest wait {}", show_us(s * 1e6))
        });
        out.push_str(&figure(&arm.title(), &longest, &chart.finish(), &table));
    }
    out + "</div>\n"
}

/// For each task one chart, all arms in it.
pub fn throughput(report: &Report) -> String {
    let mut out = arm_legend(report) + "<div class=\"grid\">\n";
    let time = time_axis(report);
    for (n, name) in task_names(report).into_iter().enumerate() {
        let curves: Vec<_> = report
            .arms
            .iter()
            .enumerate()
            .filter_map(|(i, a)| {
                let samples = a.samples.as_ref()?;
                Some((i, rate(samples, samples.ops.get(name)?)))
            })
            .collect();
        let most = curves
            .iter()
            .flat_map(|(_, c)| c.iter().map(|p| p.1))
            .fold(0.0, f64::max);
        let y = Axis::linear(0.0, most * 1.05, "operations per second", short);
        let about = "Operations per second over time, one curve for each arm.";
        let title = format!("Throughput of {name} over time");
        let mut chart = Chart::new(&format!("ops{n}"), &title, about, 260.0, time.clone(), y);
        for (i, curve) in &curves {
            chart.curve(&line_class(*i), curve.iter().copied());
        }
        chart.settle();
        let head = strings(["arm", "least", "mean of the run", "most"]);
        let rows = report.arms.iter().enumerate().map(|(i, a)| {
            let curve = curves.iter().find(|(c, _)| *c == i).map(|(_, c)| c);
            let after = curve
                .into_iter()
                .flatten()
                .filter(|p| p.0 > 0.0)
                .map(|p| p.1);
            let spread = spread(after);
            let task = a.tasks.iter().find(|t| t.name == name);
            let show = |v: Option<f64>| v.map_or("-".into(), |v| show_count(v as u64));
            vec![
                a.title(),
                show(spread.map(|s| s[0])),
                show(task.map(|t| t.ops_per_s)),
                show(spread.map(|s| s[2])),
            ]
        });
        let table = numbers(&head, &rows.collect::<Vec<_>>());
        out.push_str(&figure(name, "", &chart.finish(), &table));
    }
    out + "</div>\n"
}

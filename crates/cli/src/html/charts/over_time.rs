//! Rates over time: how many tasks stood still, and how many operations were done.

use super::{absent, arm_legend, short, strings, task_names, time_axis};
use crate::html::line_class;
use crate::html::series::{count, rate, spread};
use crate::html::svg::{Axis, Chart, figure, legend, numbers};
use crate::report::{ArmReport, Report};
use crate::units::{show_count, show_us};

/// What tasks wait for: class, name and counter.
const STALLS: [(&str, &str, &str); 2] = [
    ("alloc", "waiting for memory", "allocstall_ns"),
    (
        "throttle",
        "held up by the throttle",
        "balance_dirty_pause_ns",
    ),
];

/// For each arm, how many tasks stood still, on one scale.
pub fn stalls(report: &Report, ids: &str) -> String {
    let of = |arm: &ArmReport, counter: &str| -> Option<crate::html::series::Rate> {
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
        let mut chart = Chart::new(
            &format!("{ids}stall{n}"),
            &title,
            about,
            240.0,
            time.clone(),
            y,
        );
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
pub fn throughput(report: &Report, ids: &str) -> String {
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
        let mut chart = Chart::new(
            &format!("{ids}ops{n}"),
            &title,
            about,
            260.0,
            time.clone(),
            y,
        );
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

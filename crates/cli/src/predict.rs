//! What the lab predicted beside what the OS world measured: throughput, p99 and pages written, each with a verdict.
//!
//! The OS world's figure is the median of its runs, with the lowest and the highest as its spread; the lab's is the median
//! of its seeds. A prediction is within 25 % of the OS world's median, or within its spread, or missed; nothing is left out.
//!
//! **Method.** The cost table and the device's profile are frozen before the predictions. `HELD_OUT` scenarios and budgets
//! other than 64 MiB are not looked at while tables or models are worked on; the table marks them.

use crate::report::{ArmReport, Report};
use crate::table::{Group, Table};
use crate::units::{show_count, show_us};
use serde::Serialize;

/// Scenarios that no table and no model was fitted to.
const HELD_OUT: [&str; 2] = ["zipf-mix", "slow-disk"];
/// A prediction may be off by this share of the OS world's median.
const TOLERANCE: f64 = 0.25;

/// A report as JSON has it: with its predictions, if there are any.
#[derive(Debug, Serialize)]
pub struct Published<'a> {
    /// The report's own names.
    #[serde(flatten)]
    pub report: &'a Report,
    /// What the lab predicted.
    #[serde(skip_serializing_if = "<[Prediction]>::is_empty")]
    pub predictions: &'a [Prediction],
}

/// How good a prediction was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// At most a quarter off the median.
    #[serde(rename = "within-25-percent")]
    Within,
    /// Further off, but between the lowest and the highest run.
    WithinSpread,
    /// Neither.
    Missed,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Within => "within 25 %",
            Verdict::WithinSpread => "in the spread",
            Verdict::Missed => "missed",
        }
    }
}

/// One figure of one preset.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Prediction {
    /// The preset, or the arm's label.
    pub preset: String,
    /// `ops_per_s` (all tasks), `p99_us` (of the task below), `written_pages` (by anyone, in the measured time).
    pub metric: &'static str,
    /// The task with the highest p99 in the OS world; null for the other figures.
    pub task: Option<String>,
    /// The OS world's median.
    pub os_median: f64,
    /// Its lowest run.
    pub os_min: f64,
    /// Its highest run.
    pub os_max: f64,
    /// How many runs.
    pub os_runs: usize,
    /// The lab's median.
    pub lab: f64,
    /// Its lowest seed.
    pub lab_min: f64,
    /// Its highest seed.
    pub lab_max: f64,
    /// How many seeds.
    pub lab_runs: usize,
    /// `lab / os_median`; null where the OS world has none.
    pub ratio: Option<f64>,
    /// How good that is.
    pub verdict: Verdict,
}

impl Prediction {
    fn new(
        preset: &str,
        metric: &'static str,
        task: Option<&str>,
        os: Vec<f64>,
        lab: Vec<f64>,
    ) -> Prediction {
        let (os_runs, lab_runs) = (os.len(), lab.len());
        let [min, median, max] = spread(os);
        let [lab_min, lab, lab_max] = spread(lab);
        let within = (lab - median).abs() <= TOLERANCE * median;
        Prediction {
            preset: preset.to_string(),
            metric,
            task: task.map(str::to_string),
            os_median: median,
            os_min: min,
            os_max: max,
            os_runs,
            lab,
            lab_min,
            lab_max,
            lab_runs,
            ratio: (median > 0.0).then(|| lab / median),
            verdict: match () {
                () if within => Verdict::Within,
                () if (min..=max).contains(&lab) => Verdict::WithinSpread,
                () => Verdict::Missed,
            },
        }
    }
}

/// The least, the median and the most of a list that is not empty.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[0], median(&values), values[values.len() - 1]]
}

/// The median of a sorted list that is not empty: of two in the middle, their mean.
pub fn median(sorted: &[f64]) -> f64 {
    let n = sorted.len();
    (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
}

/// Pages written by anyone.
fn written(arm: &ArmReport) -> f64 {
    let w = arm.written_pages;
    [w.direct, w.kswapd, w.flusher, w.writer, w.sync]
        .into_iter()
        .flatten()
        .sum::<u64>() as f64
}

fn p99_of(arm: &ArmReport, task: &str) -> f64 {
    let task = arm.tasks.iter().find(|t| t.name == task);
    task.map_or(0.0, |t| t.latency_us.p99)
}

/// The task whose p99 is the highest, by the median of `arms`.
fn worst_task<'a>(arms: &[&'a ArmReport]) -> Option<&'a str> {
    let median_of = |name: &str| {
        let mut all: Vec<f64> = arms.iter().map(|a| p99_of(a, name)).collect();
        all.sort_by(f64::total_cmp);
        median(&all)
    };
    let first = arms.first()?;
    first
        .tasks
        .iter()
        .map(|t| (t.name.as_str(), median_of(&t.name)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(name, _)| name)
}

/// The predictions of a report: of every preset that ran in both worlds.
pub fn predictions(report: &Report) -> Vec<Prediction> {
    let mut all = Vec::new();
    let of_world = |world: &str, preset: &str| -> Vec<&ArmReport> {
        let of = |a: &&ArmReport| a.world == world && a.preset == preset;
        report.arms.iter().filter(of).collect()
    };
    let mut presets: Vec<&str> = Vec::new();
    for lab in report.arms.iter().filter(|a| a.world == "lab") {
        if !presets.contains(&lab.preset.as_str()) {
            presets.push(&lab.preset);
        }
    }
    for preset in presets {
        let (os, lab) = (of_world("os", preset), of_world("lab", preset));
        if os.is_empty() {
            continue;
        }
        let mut add = |metric, task: Option<&str>, of: &dyn Fn(&ArmReport) -> f64| {
            let [os, lab] = [&os, &lab].map(|arms| arms.iter().map(|a| of(a)).collect());
            all.push(Prediction::new(preset, metric, task, os, lab));
        };
        add("ops_per_s", None, &|a| a.ops_per_s);
        if let Some(task) = worst_task(&os) {
            add("p99_us", Some(task), &|a| p99_of(a, task));
        }
        add("written_pages", None, &written);
    }
    all
}

/// As the metric's unit has it.
fn show(metric: &str, v: f64) -> String {
    match metric {
        "p99_us" => show_us(v),
        _ => show_count(v.round() as u64),
    }
}

/// A ratio to two digits, also of what is hundreds of times less: 0.00 would be nothing at all.
fn show_ratio(ratio: f64) -> String {
    let decimals = match ratio {
        r if r <= 0.0 || r >= 0.1 => 2,
        r => 1 + (-r.log10()).ceil() as usize,
    };
    format!("{ratio:.decimals$}")
}

/// How well the profile fits that the lab's disk has by `--probe`, in a line; None without.
fn disk(report: &Report) -> Option<String> {
    let profile = report.arms.iter().find_map(|a| a.profile.as_ref())?;
    let verdict = profile.lines().find_map(|l| l.strip_prefix("# Of "))?;
    Some(format!(
        "{}, the disk that was measured (--json has its profile): of {verdict}\n",
        report.scenario
    ))
}

/// The table of all predictions, and the count of verdicts below it; empty without predictions.
pub fn table(reports: &[(&Report, &[Prediction])], width: usize) -> String {
    let mut table = Table {
        corner: "scenario, preset".into(),
        groups: vec![Group {
            title: "prediction: the lab against the OS world".into(),
            columns: [
                "figure",
                "os",
                "os min..max",
                "runs",
                "lab",
                "lab min..max",
                "lab/os",
                "verdict",
            ]
            .map(String::from)
            .to_vec(),
        }],
        ..Table::default()
    };
    let mut counts = [0usize; 3];
    for (report, predictions) in reports {
        let held = HELD_OUT.contains(&report.scenario.as_str());
        for p in *predictions {
            let mark = if held { " *" } else { "" };
            table
                .labels
                .push(format!("{}{mark}, {}", report.scenario, p.preset));
            let task = p
                .task
                .as_ref()
                .map_or(String::new(), |t| format!(" of {t}"));
            table.cells.push(vec![
                match p.metric {
                    "ops_per_s" => "ops/s".into(),
                    "p99_us" => format!("p99{task}"),
                    _ => "pages written".into(),
                },
                show(p.metric, p.os_median),
                format!("{}..{}", show(p.metric, p.os_min), show(p.metric, p.os_max)),
                p.os_runs.to_string(),
                show(p.metric, p.lab),
                format!(
                    "{}..{}",
                    show(p.metric, p.lab_min),
                    show(p.metric, p.lab_max)
                ),
                p.ratio.map_or("-".into(), show_ratio),
                p.verdict.name().into(),
            ]);
            counts[p.verdict as usize] += 1;
        }
    }
    if table.labels.is_empty() {
        return String::new();
    }
    let [within, spread, missed] = counts;
    let disks: String = reports.iter().filter_map(|(r, _)| disk(r)).collect();
    format!(
        "{}\n{disks}{within} within 25 % of the median, {spread} in the spread, {missed} missed, of {}. \
         * held out: no table and no model was fitted to it.\n",
        table.render(width),
        within + spread + missed,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Latency, TaskReport, Written};

    fn arm(world: &str, preset: &str, ops: f64, p99: [f64; 2], pages: u64) -> ArmReport {
        let task = |(name, p99): (&str, f64)| TaskReport {
            name: name.into(),
            latency_us: Latency {
                p99,
                ..Latency::default()
            },
            ..TaskReport::default()
        };
        ArmReport {
            world: world.into(),
            preset: preset.into(),
            ops_per_s: ops,
            tasks: [("read", p99[0]), ("write", p99[1])].map(task).to_vec(),
            written_pages: Written {
                flusher: Some(pages),
                kswapd: Some(1),
                ..Written::default()
            },
            ..ArmReport::default()
        }
    }

    fn report() -> Report {
        Report {
            scenario: "zipf-mix".into(),
            memory_bytes: 1,
            disk: None,
            arms: vec![
                arm("os", "3.2", 100.0, [9.0, 50.0], 99),
                arm("os", "3.2", 300.0, [9.0, 70.0], 199),
                arm("os", "3.2", 110.0, [900.0, 60.0], 149),
                arm("os", "6.16", 1.0, [1.0, 1.0], 1),
                arm("lab", "3.2", 250.0, [1000.0, 61.0], 999),
                arm("lab", "2.6.35", 1.0, [1.0, 1.0], 1),
            ],
            ..Report::default()
        }
    }

    #[test]
    fn the_table_says_how_well_the_disk_was_measured() {
        let mut report = report();
        let p = predictions(&report);
        assert!(!table(&[(&report, &p)], 100).contains("profile"));
        report.arms[4].profile = Some("# Measured.\n# Of 47 points 40 fit.\nmodel\n".into());
        let text = table(&[(&report, &p)], 100);
        let line =
            "zipf-mix, the disk that was measured (--json has its profile): of 47 points 40 fit.\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn each_figure_has_its_median_spread_and_verdict() {
        let p = predictions(&report());
        assert_eq!(p.len(), 3, "presets of one world alone predict nothing");
        let of = |i: usize| (p[i].metric, p[i].os_median, p[i].verdict);
        // 250 is 2.3 x the median, but a run was at 300.
        assert_eq!(of(0), ("ops_per_s", 110.0, Verdict::WithinSpread));
        // The median decides which task is worst: one run's outlier does not.
        assert_eq!(p[1].task.as_deref(), Some("write"));
        assert_eq!(of(1), ("p99_us", 60.0, Verdict::Within));
        assert_eq!(of(2), ("written_pages", 150.0, Verdict::Missed));
        assert_eq!((p[2].os_min, p[2].os_max), (100.0, 200.0));
        assert_eq!(p[2].lab, 1000.0);
    }

    #[test]
    fn a_small_ratio_is_not_nothing() {
        for (ratio, text) in [
            (1.204, "1.20"),
            (17.213, "17.21"),
            (0.5, "0.50"),
            (0.0026, "0.0026"),
            (0.01, "0.010"),
            (0.0, "0.00"),
        ] {
            assert_eq!(show_ratio(ratio), text);
        }
    }

    #[test]
    fn the_lab_says_the_median_of_its_seeds() {
        let mut report = report();
        for ops in [90.0, 120.0] {
            report.arms.push(arm("lab", "3.2", ops, [1.0, 1.0], 1));
        }
        let p = predictions(&report);
        assert_eq!(p.len(), 3);
        assert_eq!((p[0].lab, p[0].verdict), (120.0, Verdict::Within));
        assert_eq!(
            (p[0].lab_min, p[0].lab_max, p[0].lab_runs),
            (90.0, 250.0, 3)
        );
    }

    #[test]
    fn bounds_count_as_within() {
        let verdict = |os: &[f64], lab: f64| {
            Prediction::new("a", "ops_per_s", None, os.to_vec(), vec![lab]).verdict
        };
        assert_eq!(verdict(&[100.0], 125.0), Verdict::Within);
        assert_eq!(verdict(&[100.0], 75.0), Verdict::Within);
        assert_eq!(verdict(&[100.0], 126.0), Verdict::Missed);
        assert_eq!(
            verdict(&[100.0, 100.0, 140.0], 140.0),
            Verdict::WithinSpread
        );
        // Nothing written, and nothing predicted.
        assert_eq!(verdict(&[0.0], 0.0), Verdict::Within);
        assert_eq!(verdict(&[0.0], 1.0), Verdict::Missed);
        assert_eq!(median(&[1.0, 2.0, 4.0, 8.0]), 3.0);
    }

    #[test]
    fn the_table_keeps_losing_rows_and_marks_the_held_out() {
        let report = report();
        let text = table(&[(&report, &predictions(&report))], 160);
        assert!(text.contains("zipf-mix *, 3.2"), "{text}");
        assert!(text.contains("p99 of write"), "{text}");
        assert!(text.contains("missed"), "{text}");
        assert!(
            text.contains("1 within 25 % of the median, 1 in the spread, 1 missed, of 3"),
            "{text}"
        );
        assert_eq!(table(&[(&report, &[])], 160), "");
    }
}

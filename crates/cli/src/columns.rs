//! From reports to the one table: arms as rows.

use crate::blocks::BlocksReport;
use crate::report::{ArmReport, Report};
use crate::table::{Group, Table};
use crate::units::{show_bytes, show_count, show_rate, show_us};

/// A column: its name and the cell of an arm.
type Column = (&'static str, fn(&ArmReport) -> String);

fn seconds(s: Option<f64>) -> String {
    s.map_or("-".into(), |s| format!("{s:.2}"))
}

fn count(n: Option<u64>) -> String {
    n.map_or("-".into(), show_count)
}

/// The groups that every arm has.
const GROUPS: [(&str, &[Column]); 6] = [
    (
        "throughput",
        &[
            ("ops/s", |a| show_rate(a.ops_per_s)),
            ("with sync", |a| show_rate(a.ops_per_s_with_sync)),
            ("hit %", |a| {
                a.hit_ratio
                    .map_or("-".into(), |r| format!("{:.1}", r * 100.0))
            }),
            ("refaults", |a| count(a.refaults)),
        ],
    ),
    (
        "stalled, s",
        &[
            ("alloc", |a| seconds(a.stall_s.alloc)),
            ("throttle", |a| seconds(a.stall_s.throttle)),
            // A flusher that keeps requests back while others read.
            ("flusher", |a| {
                seconds(a.count("wbt_wait_ns").map(|ns| ns as f64 / 1e9))
            }),
            ("longest wait", |a| {
                a.stall_s.longest.map_or("-".into(), |s| show_us(s * 1e6))
            }),
        ],
    ),
    (
        "pages scanned → reclaimed",
        &[
            ("kswapd", |a| scanned(a, "kswapd")),
            ("direct", |a| scanned(a, "direct")),
        ],
    ),
    (
        "pages written by",
        &[
            ("direct", |a| count(a.written_pages.direct)),
            ("kswapd", |a| count(a.written_pages.kswapd)),
            ("flusher", |a| count(a.written_pages.flusher)),
            ("writer", |a| count(a.written_pages.writer)),
            ("sync", |a| count(a.written_pages.sync)),
            ("mean KiB", |a| {
                a.write_kib_mean.map_or("-".into(), |k| format!("{k:.0}"))
            }),
        ],
    ),
    (
        "CPU, s",
        &[
            ("tasks", |a| seconds(cpu_s(a, None))),
            ("kswapd", |a| seconds(cpu_s(a, Some("cpu_kswapd_ns")))),
            ("flusher", |a| seconds(cpu_s(a, Some("cpu_flusher_ns")))),
        ],
    ),
    (
        "memory",
        &[
            ("refused", |a| show_count(a.refused)),
            ("peak", |a| a.peak_rss_bytes.map_or("-".into(), show_bytes)),
            ("idle", |a| a.idle_rss_bytes.map_or("-".into(), show_bytes)),
        ],
    ),
];

/// CPU seconds: a counter's, or what the counters leave of the whole.
fn cpu_s(arm: &ArmReport, name: Option<&str>) -> Option<f64> {
    let of = |name| arm.count(name).map(|ns| ns as f64 / 1e9);
    match name {
        Some(name) => of(name),
        None => {
            let rest = of("cpu_all_ns")? - of("cpu_kswapd_ns")? - of("cpu_flusher_ns")?;
            Some(rest.max(0.0))
        }
    }
}

fn scanned(arm: &ArmReport, who: &str) -> String {
    let scan = arm.count(&format!("pgscan_{who}"));
    let steal = arm.count(&format!("pgsteal_{who}"));
    match (scan, steal) {
        (Some(scan), Some(steal)) => format!("{} → {}", show_count(scan), show_count(steal)),
        _ => "-".into(),
    }
}

/// The table of a run.
pub fn table(report: &Report) -> Table {
    let mut table = Table {
        corner: "arm".into(),
        labels: report.arms.iter().map(ArmReport::title).collect(),
        cells: vec![Vec::new(); report.arms.len()],
        groups: Vec::new(),
    };
    for (title, columns) in GROUPS {
        table.groups.push(Group {
            title: title.into(),
            columns: columns
                .iter()
                .map(|(name, _)| (*name).to_string())
                .collect(),
        });
        for (_, cell) in columns {
            for (row, arm) in table.cells.iter_mut().zip(&report.arms) {
                row.push(cell(arm));
            }
        }
    }
    if report.arms.iter().any(|a| a.per_block.is_some()) {
        add_blocks(&mut table, report);
    }
    if report.arms.iter().any(|a| a.real.is_some()) {
        add_real(&mut table, report);
    }
    let mut names: Vec<&str> = Vec::new();
    for task in report.arms.iter().flat_map(|a| &a.tasks) {
        if !names.contains(&task.name.as_str()) {
            names.push(&task.name);
        }
    }
    for name in names {
        add_task(&mut table, report, name);
        add_replay(&mut table, report, name);
    }
    table
}

/// What a block of frames cost: pages, refaults of the whole arm, and the time of those who asked.
fn add_blocks(table: &mut Table, report: &Report) {
    table.groups.push(Group {
        title: "for each block".into(),
        columns: [
            "got",
            "success %",
            "reclaimed",
            "moved",
            "refaults",
            "stall",
        ]
        .map(String::from)
        .to_vec(),
    });
    for (row, arm) in table.cells.iter_mut().zip(&report.arms) {
        let of = |f: fn(&BlocksReport) -> u64| -> u64 {
            arm.tasks
                .iter()
                .filter_map(|t| t.blocks.as_ref())
                .map(f)
                .sum()
        };
        let (asked, got) = (of(|b| b.asked), of(|b| b.got));
        row.extend(match &arm.per_block {
            Some(p) if asked > 0 => [
                show_count(got),
                format!("{:.1}", got as f64 * 100.0 / asked as f64),
                format!("{:.1}", p.reclaimed),
                format!("{:.1}", p.moved),
                format!("{:.1}", p.refaults),
                show_us(p.stall_us),
            ],
            _ => ["-"; 6].map(String::from),
        });
    }
}

/// The lab's own speed.
fn add_real(table: &mut Table, report: &Report) {
    table.groups.push(Group {
        title: "the lab in real time".into(),
        columns: ["ops/s", "measured", "in all", "peak"]
            .map(String::from)
            .to_vec(),
    });
    for (row, arm) in table.cells.iter_mut().zip(&report.arms) {
        row.extend(match &arm.real {
            None => ["-"; 4].map(String::from),
            Some(r) => [
                show_count(r.ops_per_s as u64),
                format!("{:.1} s", r.measured_s),
                format!("{:.1} s", r.total_s),
                show_bytes(r.peak_rss_bytes),
            ],
        });
    }
}

fn add_task(table: &mut Table, report: &Report, name: &str) {
    table.groups.push(Group {
        title: format!("task {name}"),
        columns: ["ops/s", "p50", "p99", "p99.9", "p99.99", "max"]
            .map(String::from)
            .to_vec(),
    });
    for (row, arm) in table.cells.iter_mut().zip(&report.arms) {
        match arm.tasks.iter().find(|t| t.name == name) {
            Some(task) => {
                let l = task.latency_us;
                row.push(show_rate(task.ops_per_s));
                // Nothing was done: no latency of it is 0.
                let show = |us| {
                    if task.ops == 0 {
                        "-".into()
                    } else {
                        show_us(us)
                    }
                };
                row.extend([l.p50, l.p99, l.p999, l.p9999, l.max].map(show));
            }
            None => row.extend(std::iter::repeat_n("-".to_string(), 6)),
        }
    }
}

/// A replay's reads apart from its writes: whoever waits for the ones seldom waits for the others.
fn add_replay(table: &mut Table, report: &Report, name: &str) {
    let of = |arm: &ArmReport| {
        let task = arm.tasks.iter().find(|t| t.name == name)?;
        task.replay.as_ref().map(|r| [r.read_us, r.write_us])
    };
    if !report.arms.iter().any(|a| of(a).is_some()) {
        return;
    }
    for (i, what) in ["reads", "writes"].into_iter().enumerate() {
        table.groups.push(Group {
            title: format!("{what} of {name}"),
            columns: ["p50", "p99", "p99.9", "max"].map(String::from).to_vec(),
        });
        for (row, arm) in table.cells.iter_mut().zip(&report.arms) {
            match of(arm).and_then(|both| both[i]) {
                Some(l) => row.extend([l.p50, l.p99, l.p999, l.max].map(show_us)),
                None => row.extend(std::iter::repeat_n("-".to_string(), 4)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Stall, TaskReport};

    #[test]
    fn every_arm_and_every_task_has_its_cells_within_160_columns() {
        let task = |name: &str| TaskReport {
            name: name.into(),
            ops: u64::from(name != "page_mut"),
            ops_per_s: if name == "page_mut" { 0.0 } else { 123_456.0 },
            ..TaskReport::default()
        };
        let arm = |preset: &str| ArmReport {
            world: "linux (cgroup v1)".into(),
            preset: preset.into(),
            tasks: ["write_at", "page_mut", "stream", "probe"]
                .map(task)
                .to_vec(),
            stall_s: Stall {
                alloc: Some(12.5),
                throttle: None,
                longest: Some(0.25),
            },
            ..ArmReport::default()
        };
        let report = Report {
            scenario: "rfc".into(),
            memory_bytes: 1 << 26,
            disk: None,
            arms: vec![arm("2.6.35"), arm("page cache")],
            ..Report::default()
        };
        let whole = table(&report);
        // Of 9 groups the last but two: it did nothing.
        let idle = whole.cells[0].len() - 18;
        assert_eq!(
            whole.cells[0][idle..idle + 6],
            ["0", "-", "-", "-", "-", "-"]
        );
        let text = whole.render(160);
        assert!(text.lines().all(|l| l.chars().count() <= 160), "{text}");
        for word in [
            "12.50",
            "250.0 ms",
            "task probe",
            "p99.99",
            "123,456",
            "mean KiB",
            "refused",
        ] {
            assert!(text.contains(word), "{word}:\n{text}");
        }
    }
}

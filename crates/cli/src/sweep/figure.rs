//! What is measured at each point of a sweep, and which of it is compared.

use super::axis::AxisKind;
use super::crossings::Spread;
use crate::report::ArmReport;
use crate::units::{show_bytes, show_count, show_us};
use serde::Serialize;

/// One arm at one point; each figure with its spread over the seeds.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Point {
    /// Where: pressure, bytes of memory, or percent.
    pub at: f64,
    /// The task's p99 in microseconds; of a run where it finished no operation, the time measured, which is less than the
    /// truth.
    pub p99_us: Spread,
    /// Its p99.9; likewise.
    pub p999_us: Spread,
    /// Runs where it finished no operation.
    pub starved_runs: usize,
    /// `workingset_refault_file` over operations of all tasks.
    pub refaults_per_op: Spread,
    /// Allocations that ended in `OutOfMemory` or `AllPinned` (`alloc_refused`).
    pub refused: Spread,
    /// Direct reclaims that got nothing after the lists were scanned six times over without a page freed: where Linux was
    /// out of memory until 4.6, and this engine waits.
    pub oom_unreclaimable: Spread,
    /// Operations that failed for it, and were not made up for.
    pub refused_operations: Spread,
    /// Operations a second, all tasks.
    pub ops_per_s: Spread,
    /// The same, with the time of the final sync counted.
    pub ops_per_s_with_sync: Spread,
    /// Seconds that all tasks waited for memory.
    pub alloc_stall_s: Spread,
    /// Seconds that the throttle held them up.
    pub throttle_stall_s: Spread,
    /// Hits over look-ups; 1 where there were none.
    pub hit_ratio: Spread,
    /// Bytes read from the disk for each operation.
    pub read_bytes_per_op: Spread,
    /// Bytes written to it, by the final sync too.
    pub written_bytes_per_op: Spread,
}

impl Point {
    /// Of the runs at `at`, at least one: frames have `frame` bytes, and the time measured is `measured_us`.
    pub fn new(at: f64, task: &str, measured_us: f64, frame: u64, runs: &[ArmReport]) -> Point {
        let of = |pick: &dyn Fn(&ArmReport) -> f64| {
            let runs: Vec<f64> = runs.iter().map(pick).collect();
            Spread::of(&runs)
        };
        let count = |a: &ArmReport, name: &str| a.count(name).unwrap_or(0) as f64;
        let ops = |a: &ArmReport| a.tasks.iter().map(|t| t.ops).sum::<u64>().max(1) as f64;
        let done = |a: &ArmReport| {
            a.tasks
                .iter()
                .find(|t| t.name == task && t.ops > 0)
                .cloned()
        };
        let bytes = |pages: f64| pages * frame as f64;
        let synced = |a: &ArmReport| a.final_sync_pages.unwrap_or(0) as f64;
        Point {
            at,
            p99_us: of(&|a| done(a).map_or(measured_us, |t| t.latency_us.p99)),
            p999_us: of(&|a| done(a).map_or(measured_us, |t| t.latency_us.p999)),
            starved_runs: runs.iter().filter(|a| done(a).is_none()).count(),
            refaults_per_op: of(&|a| count(a, "workingset_refault_file") / ops(a)),
            refused: of(&|a| count(a, "alloc_refused")),
            oom_unreclaimable: of(&|a| count(a, "oom_unreclaimable")),
            refused_operations: of(&|a| a.refused as f64),
            ops_per_s: of(&|a| a.ops_per_s),
            ops_per_s_with_sync: of(&|a| a.ops_per_s_with_sync),
            alloc_stall_s: of(&|a| a.stall_s.alloc.unwrap_or(0.0)),
            throttle_stall_s: of(&|a| a.stall_s.throttle.unwrap_or(0.0)),
            // Where nothing was looked up, nothing missed.
            hit_ratio: of(&|a| a.hit_ratio.unwrap_or(1.0)),
            read_bytes_per_op: of(&|a| bytes(count(a, "pages_read")) / ops(a)),
            written_bytes_per_op: of(&|a| bytes(count(a, "nr_written") + synced(a)) / ops(a)),
        }
    }

    fn miss_ratio(&self) -> Spread {
        let Spread { median, min, max } = self.hit_ratio;
        Spread {
            median: 1.0 - median,
            min: 1.0 - max,
            max: 1.0 - min,
        }
    }
}

/// How a figure is plotted.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scale {
    /// Microseconds, by factors of ten.
    Time,
    /// From zero, after multiplication by the factor, in the unit.
    Linear(f64, &'static str),
}

/// A figure that is compared.
pub struct Figure {
    /// Its name in JSON.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// More of it is better; of most, less is.
    pub more: bool,
    /// Its value at a point.
    pub of: fn(&Point) -> Spread,
    /// As people read it.
    pub show: fn(f64) -> String,
    /// Its axis.
    pub scale: Scale,
}

const PER_OP: Scale = Scale::Linear(1.0 / 1024.0, "KiB for each operation");
const COUNT: Scale = Scale::Linear(1.0, "");

const P999: Figure = Figure {
    name: "p999_us",
    title: "p99.9",
    more: false,
    of: |p| p.p999_us,
    show: show_us,
    scale: Scale::Time,
};

/// Under pressure: what the mail's two sides argue about.
const PRESSURE: [Figure; 4] = [
    P999,
    Figure {
        name: "refaults_per_op",
        title: "refaults for each operation",
        more: false,
        of: |p| p.refaults_per_op,
        show: |v| format!("{v:.4}"),
        scale: COUNT,
    },
    Figure {
        name: "refused",
        title: "refused allocations",
        more: false,
        of: |p| p.refused,
        show: |v| show_count(v.round() as u64),
        scale: COUNT,
    },
    Figure {
        name: "oom_unreclaimable",
        title: "out of memory by the kernel's rule",
        more: false,
        of: |p| p.oom_unreclaimable,
        show: |v| show_count(v.round() as u64),
        scale: COUNT,
    },
];

/// Over memory and dirty limits: what somebody decides a size by.
const SIZING: [Figure; 6] = [
    Figure {
        name: "ops_per_s_with_sync",
        title: "operations/s with the final sync",
        more: true,
        of: |p| p.ops_per_s_with_sync,
        show: show_rate,
        scale: COUNT,
    },
    Figure {
        name: "p99_us",
        title: "p99",
        more: false,
        of: |p| p.p99_us,
        show: show_us,
        scale: Scale::Time,
    },
    P999,
    Figure {
        name: "miss_ratio",
        title: "look-ups that missed",
        more: false,
        of: Point::miss_ratio,
        show: |v| format!("{:.1} %", v * 100.0),
        scale: Scale::Linear(100.0, "%"),
    },
    Figure {
        name: "read_bytes_per_op",
        title: "read from the disk",
        more: false,
        of: |p| p.read_bytes_per_op,
        show: show_per_op,
        scale: PER_OP,
    },
    Figure {
        name: "written_bytes_per_op",
        title: "written to the disk",
        more: false,
        of: |p| p.written_bytes_per_op,
        show: show_per_op,
        scale: PER_OP,
    },
];

/// What is compared along an axis.
pub fn figures(kind: AxisKind) -> &'static [Figure] {
    match kind {
        AxisKind::Pressure => &PRESSURE,
        AxisKind::MemoryBytes | AxisKind::DirtyLimitPercent => &SIZING,
    }
}

fn show_per_op(bytes: f64) -> String {
    format!("{}/op", show_bytes(bytes.round() as u64))
}

fn show_rate(rate: f64) -> String {
    match rate < 100.0 {
        true => format!("{rate:.1}"),
        false => show_count(rate.round() as u64),
    }
}

/// A column of the table: its head, and what is in it.
pub type Column = (&'static str, fn(&Point) -> String);

/// The columns after the point's.
pub fn columns(kind: AxisKind) -> Vec<Column> {
    let p99: Column = ("p99", |p| at_least(p, show_us(p.p99_us.median)));
    let p999: Column = ("p99.9", |p| at_least(p, show_us(p.p999_us.median)));
    let refused: Column = ("refused", |p| show_count(p.refused.median.round() as u64));
    let waits: Column = ("waiting for memory", |p| {
        format!("{:.2} s", p.alloc_stall_s.median)
    });
    match kind {
        AxisKind::Pressure => vec![
            p999,
            ("refaults/op", |p| {
                format!("{:.4}", p.refaults_per_op.median)
            }),
            refused,
            ("kernel's OOM", |p| {
                show_count(p.oom_unreclaimable.median.round() as u64)
            }),
            ("ops/s", |p| show_rate(p.ops_per_s.median)),
            ("hit %", |p| format!("{:.1}", p.hit_ratio.median * 100.0)),
            waits,
        ],
        AxisKind::MemoryBytes | AxisKind::DirtyLimitPercent => vec![
            ("ops/s with sync", |p| {
                show_rate(p.ops_per_s_with_sync.median)
            }),
            p99,
            p999,
            ("miss %", |p| {
                format!("{:.1}", p.miss_ratio().median * 100.0)
            }),
            ("read/op", |p| {
                show_bytes(p.read_bytes_per_op.median.round() as u64)
            }),
            ("written/op", |p| {
                show_bytes(p.written_bytes_per_op.median.round() as u64)
            }),
            waits,
            ("throttled", |p| {
                format!("{:.2} s", p.throttle_stall_s.median)
            }),
            refused,
        ],
    }
}

fn at_least(p: &Point, text: String) -> String {
    match p.starved_runs {
        0 => text,
        _ => format!("≥ {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_was_looked_up_nothing_missed() {
        let missed = |hit_ratio| {
            let run = ArmReport {
                hit_ratio,
                ..ArmReport::default()
            };
            let point = Point::new(1.0, "t", 1.0, 4096, &[run]);
            point.miss_ratio().median
        };
        assert_eq!(missed(None), 0.0, "a trace of flushes alone");
        assert_eq!(missed(Some(0.25)), 0.75);
    }
}

//! What a replay says in the report and below the table.

use super::PlanReplay;
use super::run::ReplayTally;
use crate::measure::percentiles_of;
use crate::report::{Latency, Report};
use crate::units::{show_count, show_us};
use serde::{Deserialize, Serialize};

/// The replay's part of a task's report.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ReplayReport {
    /// The trace.
    pub trace: String,
    /// Its format.
    pub format: String,
    /// Its requests, of any kind.
    pub records: u64,
    /// Its bad lines, which were left out.
    pub bad_lines: u64,
    /// How often its end was reached.
    pub passes: u64,
    /// Reads that were done.
    pub reads: u64,
    /// Writes that were done.
    pub writes: u64,
    /// Flushes that were done, as syncs.
    pub flushes: u64,
    /// Latency of reads, in microseconds; null without any.
    #[serde(default)]
    pub read_us: Option<Latency>,
    /// Latency of writes, in microseconds; null without any.
    #[serde(default)]
    pub write_us: Option<Latency>,
    /// Writes that a sync was done before, as their flag asks (`blkparse`: an F before the W).
    #[serde(default)]
    pub preflushes: u64,
    /// Writes that were durable when they ended, as their flag asks (`blkparse`: an F behind the W).
    #[serde(default)]
    pub fua_writes: u64,
    /// Discards, which are counted and not done.
    pub discards_skipped: u64,
    /// Requests beyond the file's end that were left out.
    pub beyond_skipped: u64,
    /// Requests beyond the file's end that were moved into it.
    pub beyond_wrapped: u64,
    /// How late requests began, in microseconds; null in a closed loop.
    pub late_us: Option<Latency>,
}

/// The numbers of `tally`.
pub fn report(plan: &PlanReplay, tally: Option<&ReplayTally>) -> ReplayReport {
    let empty = ReplayTally::new();
    let tally = tally.unwrap_or(&empty);
    let [reads, writes, _, flushes] = tally.ops;
    let [read_us, write_us] =
        [0, 1].map(|i| (!tally.took[i].is_empty()).then(|| percentiles_of(&tally.took[i])));
    ReplayReport {
        trace: plan.path.display().to_string(),
        format: plan.format.name().to_string(),
        records: plan.records,
        bad_lines: plan.bad_lines,
        passes: tally.given.passes,
        reads,
        writes,
        flushes,
        read_us,
        write_us,
        preflushes: tally.preflushes,
        fua_writes: tally.fua_writes,
        discards_skipped: tally.given.discards,
        beyond_skipped: tally.given.beyond,
        beyond_wrapped: tally.given.wrapped,
        late_us: plan.speed.is_some().then(|| percentiles_of(&tally.late)),
    }
}

/// A sentence for each replay of each arm.
pub fn sentences(report: &Report) -> Vec<String> {
    let mut out = Vec::new();
    for arm in &report.arms {
        for task in &arm.tasks {
            if let Some(r) = &task.replay {
                out.push(sentence(&arm.title(), r));
            }
        }
    }
    out
}

fn sentence(arm: &str, r: &ReplayReport) -> String {
    let done = r.reads + r.writes + r.flushes;
    let mut text = format!(
        "{arm}: {} {} of {} ({} in the trace, {}): {} reads, {} writes, {} syncs",
        show_count(done),
        if done == 1 { "request" } else { "requests" },
        r.trace,
        show_count(r.records),
        match r.passes {
            0 => "the time was over before its end".to_string(),
            1 => "its end reached once".to_string(),
            n => format!("its end reached {} times", show_count(n)),
        },
        show_count(r.reads),
        show_count(r.writes),
        show_count(r.flushes),
    );
    for (n, what) in [
        (r.fua_writes, "writes through to the disk (FUA)"),
        (r.preflushes, "writes with a flush before them"),
        (r.discards_skipped, "discards not done"),
        (r.beyond_skipped, "beyond the file's end left out"),
        (r.beyond_wrapped, "beyond the file's end moved into it"),
        (r.bad_lines, "bad lines"),
    ] {
        if n > 0 {
            text.push_str(&format!(", {} {what}", show_count(n)));
        }
    }
    if let Some(late) = r.late_us {
        text.push_str(&format!(
            "; late by {} (p50), {} (p99), {} at most",
            show_us(late.p50),
            show_us(late.p99),
            show_us(late.max)
        ));
    }
    text.push('.');
    if done == 0 && r.beyond_skipped > 0 {
        text.push_str(
            " Every request lies beyond the file's end: a larger --size (files.*.size in a scenario), or --beyond wrap.",
        );
    } else if done == 0 && r.passes > 0 {
        text.push_str(
            " The trace ended before the measurement began: settle = \"0s\" measures it from its start, repeat = true goes on.",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_was_over_before_it_was_measured_is_explained() {
        let r = ReplayReport {
            trace: "a.csv".into(),
            records: 10,
            passes: 1,
            ..ReplayReport::default()
        };
        let text = sentence("lab 3.2", &r);
        assert!(text.contains("settle = \"0s\" measures it"), "{text}");
        let cut = sentence(
            "lab 3.2",
            &ReplayReport {
                passes: 0,
                reads: 3,
                ..r
            },
        );
        assert!(
            cut.contains("(10 in the trace, the time was over before its end)"),
            "{cut}"
        );
        assert!(!cut.contains("settle"), "{cut}");
    }

    #[test]
    fn a_trace_that_lies_beyond_the_file_is_told_so() {
        let r = ReplayReport {
            trace: "a.csv".into(),
            records: 2,
            passes: 1,
            beyond_skipped: 2,
            ..ReplayReport::default()
        };
        let text = sentence("lab 3.2", &r);
        assert!(
            text.contains("larger --size") && !text.contains("settle"),
            "{text}"
        );
    }

    #[test]
    fn the_sentence_says_what_was_done_and_what_was_not() {
        let r = ReplayReport {
            trace: "a.csv".into(),
            records: 10,
            passes: 1,
            reads: 4,
            writes: 5,
            bad_lines: 2,
            late_us: Some(Latency {
                p50: 1.0,
                p99: 2_000.0,
                max: 3_000.0,
                ..Latency::default()
            }),
            ..ReplayReport::default()
        };
        assert_eq!(
            sentence("lab 3.2", &r),
            "lab 3.2: 9 requests of a.csv (10 in the trace, its end reached once): 4 reads, 5 writes, 0 syncs, \
             2 bad lines; late by 1.00 µs (p50), 2.00 ms (p99), 3.00 ms at most."
        );
    }
}

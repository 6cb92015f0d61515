//! `--repeat`: runs of one arm told apart in rows and charts, and taken together where one arm is held against another.
//!
//! Rows, legends and charts have each run, with its number. What is *said* of an arm is its median: the best of one arm's
//! runs against the worst of another's would be a comparison of chance.

use crate::predict::median;
use crate::report::{ArmReport, Latency, Report, Stall, TaskReport, Written};

/// Gives each run of an arm that ran more often than once its number.
pub fn number(report: &mut Report) {
    let groups = groups(report);
    for group in groups.iter().filter(|g| g.len() > 1) {
        for (n, &i) in (1..).zip(group) {
            report.arms[i].run = Some(n);
        }
    }
}

/// One arm for each that ran, with the medians of its runs of all that sentences speak of; and how many runs an arm had, at
/// the most.
pub fn medians(report: &Report) -> (Report, usize) {
    let groups = groups(report);
    let most = groups.iter().map(Vec::len).max().unwrap_or(0);
    if most <= 1 {
        return (report.clone(), most);
    }
    let arms = groups.iter().map(|group| {
        let runs: Vec<&ArmReport> = group.iter().map(|&i| &report.arms[i]).collect();
        median_of(&runs)
    });
    let whole = Report {
        scenario: report.scenario.clone(),
        memory_bytes: report.memory_bytes,
        disk: report.disk.clone(),
        arms: arms.collect(),
        ..Report::default()
    };
    (whole, most)
}

/// The places of each arm's runs, arms in the order of their first.
fn groups(report: &Report) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (i, arm) in report.arms.iter().enumerate() {
        let same = |g: &&mut Vec<usize>| {
            let first = &report.arms[g[0]];
            (&first.world, &first.preset) == (&arm.world, &arm.preset)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(i),
            None => groups.push(vec![i]),
        }
    }
    groups
}

fn median_of(runs: &[&ArmReport]) -> ArmReport {
    let [only] = runs else {
        let figure = |of: &dyn Fn(&ArmReport) -> f64| middle(runs.iter().map(|r| of(r)).collect());
        let known = |of: &dyn Fn(&ArmReport) -> Option<f64>| {
            let all: Option<Vec<f64>> = runs.iter().map(|r| of(r)).collect();
            all.map(middle)
        };
        let pages = |of: &dyn Fn(&Written) -> Option<u64>| {
            let n = known(&|r| of(&r.written_pages).map(|n| n as f64));
            n.map(|n| n.round() as u64)
        };
        let task = |t: &TaskReport| TaskReport {
            name: t.name.clone(),
            latency_us: Latency {
                p999: figure(&|r| {
                    let same = r.tasks.iter().find(|o| o.name == t.name);
                    same.map_or(0.0, |o| o.latency_us.p999)
                }),
                ..Latency::default()
            },
            ..TaskReport::default()
        };
        return ArmReport {
            world: runs[0].world.clone(),
            preset: runs[0].preset.clone(),
            ops_per_s_with_sync: figure(&|r| r.ops_per_s_with_sync),
            stall_s: Stall {
                longest: known(&|r| r.stall_s.longest),
                alloc: known(&|r| r.stall_s.alloc),
                throttle: known(&|r| r.stall_s.throttle),
            },
            written_pages: Written {
                direct: pages(&|w| w.direct),
                kswapd: pages(&|w| w.kswapd),
                flusher: pages(&|w| w.flusher),
                writer: pages(&|w| w.writer),
                sync: pages(&|w| w.sync),
            },
            tasks: runs[0].tasks.iter().map(task).collect(),
            ..ArmReport::default()
        };
    };
    (*only).clone()
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    median(&values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sentences::tests::{arm, report};

    #[test]
    fn runs_of_an_arm_have_numbers_and_a_single_one_has_none() {
        let mut r = report(vec![
            arm("a", 1.0, 0, 0, 1.0, 1.0),
            arm("b", 1.0, 0, 0, 1.0, 1.0),
            arm("a", 1.0, 0, 0, 1.0, 1.0),
        ]);
        number(&mut r);
        let titles: Vec<String> = r.arms.iter().map(ArmReport::title).collect();
        assert_eq!(titles, ["os a #1", "os b", "os a #2"]);
    }

    #[test]
    fn an_arm_is_the_median_of_its_runs() {
        let mut r = report(vec![
            arm("a", 0.1, 4, 0, 10.0, 5.0),
            arm("a", 0.9, 0, 0, 30.0, 7.0),
            arm("a", 0.2, 2, 0, 20.0, 90.0),
            arm("b", 0.3, 0, 0, 25.0, 6.0),
        ]);
        number(&mut r);
        let (whole, runs) = medians(&r);
        assert_eq!(runs, 3);
        let [a, b] = &whole.arms[..] else {
            panic!("two arms");
        };
        assert_eq!((a.title(), b.title()), ("os a".into(), "os b".into()));
        assert_eq!(a.ops_per_s_with_sync, 20.0);
        assert_eq!((a.stall_s.longest, a.stall_s.alloc), (Some(0.2), None));
        assert_eq!(a.written_pages.direct, Some(2));
        assert_eq!(a.worst_p999(), Some(("w", 7.0)));
        assert_eq!(medians(&report(vec![arm("a", 1.0, 0, 0, 1.0, 1.0)])).1, 1);
    }
}

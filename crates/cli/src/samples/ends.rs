//! What ends the measured time, for those who watch its progress.

use super::columns::Taken;
use crate::plan::Plan;
use crate::tasks::Window;
use highwater_engine::world::Nanos;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What ends the measured time: its length, its operations, or the end of each trace that is replayed.
pub(super) struct Ends {
    begin: Nanos,
    end: Nanos,
    ops: Option<(Arc<AtomicU64>, u64)>,
    /// The task's place in the plan, and its trace's requests.
    records: Vec<(usize, u64)>,
}

impl Ends {
    pub fn new(plan: &Plan, window: &Window) -> Ends {
        let replays = plan.tasks.iter().map(|t| t.replay.as_ref());
        let once = |r: &crate::replay::PlanReplay| (!r.repeat).then_some(r.records);
        let records: Option<Vec<u64>> = replays.map(|r| once(r?)).collect();
        Ends {
            begin: window.start.since(Nanos(plan.settle_ns)),
            end: window.end,
            ops: window.ops.clone().zip(plan.ops),
            records: records
                .unwrap_or_default()
                .into_iter()
                .enumerate()
                .collect(),
        }
    }

    /// How much of it is over, by what comes first.
    pub fn thousandths(&self, taken: &Taken) -> u64 {
        let share = |done: u64, of: u64| done.min(of) as f64 / of.max(1) as f64;
        let time = share(taken.at.since(self.begin).0, self.end.since(self.begin).0);
        // Relaxed: a statistic.
        let ops = self.ops.as_ref().map_or(0.0, |(left, all)| {
            share(all - left.load(Ordering::Relaxed).min(*all), *all)
        });
        let traces = self.records.iter().map(|&(i, n)| share(taken.ops[i], n));
        let traces = traces.reduce(f64::min).unwrap_or(0.0);
        (1_000.0 * time.max(ops).max(traces)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Reading;

    #[test]
    fn progress_goes_by_what_ends_the_run_first() {
        let taken = |s, ops| Taken {
            at: Nanos::from_secs(s),
            reading: Reading::default(),
            ops,
        };
        let mut ends = Ends {
            begin: Nanos::from_secs(10),
            end: Nanos::from_secs(20),
            ops: None,
            records: Vec::new(),
        };
        assert_eq!(ends.thousandths(&taken(12, vec![])), 200);
        assert_eq!(ends.thousandths(&taken(99, vec![])), 1_000);
        ends.ops = Some((Arc::new(AtomicU64::new(25)), 100));
        assert_eq!(ends.thousandths(&taken(12, vec![])), 750);
        ends.ops = None;
        ends.records = vec![(0, 100), (1, 1_000)];
        let slowest = ends.thousandths(&taken(12, vec![100, 300]));
        assert_eq!(slowest, 300, "the run ends with the last of its traces");
    }
}

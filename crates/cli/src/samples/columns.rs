//! Samples in columns: gauges as read, counters as differences.

use super::reading::{COUNTS, Reading, STATES};
use highwater_engine::world::Nanos;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Samples in columns, all of one length.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Samples {
    /// Seconds since the measured time began; below zero while tasks settle.
    pub t_s: Vec<f64>,
    /// Pages by state ([`STATES`]); null where it cannot be known.
    pub frames: BTreeMap<String, Option<Vec<u64>>>,
    /// Pages by list: `inactive`, `active`.
    pub lists: BTreeMap<String, Option<Vec<u64>>>,
    /// What each counter ([`COUNTS`]) rose by since the sample before.
    pub counts: BTreeMap<String, Option<Vec<u64>>>,
    /// Operations of each task since the sample before.
    pub ops: BTreeMap<String, Vec<u64>>,
}

/// One sample as it was taken.
pub(super) struct Taken {
    pub at: Nanos,
    pub reading: Reading,
    pub ops: Vec<u64>,
}

/// Columns out of samples: gauges as read, counters as differences.
pub(super) fn columns(taken: &[Taken], start: Nanos, names: &[String]) -> Samples {
    let gauge = |get: &dyn Fn(&Reading) -> Option<u64>| -> Option<Vec<u64>> {
        taken.iter().map(|t| get(&t.reading)).collect()
    };
    let rise = |values: Vec<u64>| -> Vec<u64> {
        let before = values.first().copied().into_iter().chain(values.clone());
        let pairs = values.iter().zip(before);
        pairs.map(|(now, then)| now.saturating_sub(then)).collect()
    };
    let mut samples = Samples {
        t_s: taken
            .iter()
            .map(|t| (t.at.0 as f64 - start.0 as f64) / 1e9)
            .collect(),
        ..Samples::default()
    };
    for (i, name) in STATES.iter().enumerate() {
        let column = gauge(&|r| r.states.map(|s| s[i]));
        samples.frames.insert((*name).to_string(), column);
    }
    for (i, name) in ["inactive", "active"].iter().enumerate() {
        let column = gauge(&|r| r.lists.map(|s| s[i]));
        samples.lists.insert((*name).to_string(), column);
    }
    for (i, name) in COUNTS.iter().enumerate() {
        let column = gauge(&|r| r.counts[i]).map(rise);
        samples.counts.insert((*name).to_string(), column);
    }
    for (i, name) in names.iter().enumerate() {
        let column = rise(taken.iter().map(|t| t.ops[i]).collect());
        // Tasks of one name share a column.
        match samples.ops.get_mut(name) {
            Some(sum) => sum.iter_mut().zip(column).for_each(|(s, n)| *s += n),
            None => _ = samples.ops.insert(name.clone(), column),
        }
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_become_differences_and_a_missing_one_is_null() {
        let at = |ms: u64, n: u64| {
            let mut reading = Reading::default();
            reading.counts[0] = Some(n);
            Taken {
                at: Nanos::from_millis(ms),
                reading,
                ops: vec![n * 2, n],
            }
        };
        let taken = [at(0, 5), at(10, 7), at(20, 12)];
        let names = ["a".to_string(), "a".to_string()];
        let s = columns(&taken, Nanos::from_millis(10), &names);
        assert_eq!(s.t_s, [-0.01, 0.0, 0.01]);
        assert_eq!(s.counts["written_direct"], Some(vec![0, 2, 5]));
        assert_eq!(s.counts["written_kswapd"], None);
        assert_eq!(s.frames["dirty"], None);
        assert_eq!(s.ops["a"], [0, 6, 15]);
    }
}

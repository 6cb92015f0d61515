//! From samples to what a chart draws: rates over groups of samples, and statistics of the measured time.

use crate::samples::Samples;

/// Points of a rate in the measured time, at most.
const POINTS: usize = 100;

/// A rate over time: (seconds, value per second).
pub type Rate = Vec<(f64, f64)>;

/// What `rises` (one per sample, since the one before) were per second. Neighbours are summed so that about a hundred
/// points remain; each stands at the end of its time, and nothing is counted twice or left out.
pub fn rate(samples: &Samples, rises: &[u64]) -> Rate {
    let n = samples.t_s.len().min(rises.len());
    let group = n.div_ceil(POINTS).max(1);
    let mut out = Vec::new();
    let (mut sum, mut from) = (0u64, 0usize);
    for (i, rise) in rises.iter().enumerate().take(n).skip(1) {
        sum += rise;
        // A group ends where the measured time begins, so that none spans it.
        let border = samples.t_s[i] == 0.0;
        if i - from >= group || border || i + 1 == n {
            let span = samples.t_s[i] - samples.t_s[from];
            if span > 0.0 {
                out.push((samples.t_s[i], sum as f64 / span));
            }
            (sum, from) = (0, i);
        }
    }
    out
}

/// The column of a counter, if the arm has it.
pub fn count<'a>(samples: &'a Samples, name: &str) -> Option<&'a [u64]> {
    samples.counts.get(name)?.as_deref()
}

/// Values of the measured time alone, of a column with one value per sample.
pub fn measured<'a>(samples: &Samples, column: &'a [u64]) -> &'a [u64] {
    let first = samples.t_s.partition_point(|t| *t < 0.0);
    column.get(first..).unwrap_or(&[])
}

/// Least, mean and greatest.
pub fn spread(values: impl Iterator<Item = f64>) -> Option<[f64; 3]> {
    let (mut n, mut sum, mut least, mut most) = (0u32, 0.0, f64::INFINITY, f64::NEG_INFINITY);
    for v in values {
        n += 1;
        sum += v;
        least = v.min(least);
        most = v.max(most);
    }
    (n > 0).then(|| [least, sum / f64::from(n), most])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_keeps_every_event_and_splits_at_zero() {
        let t_s: Vec<f64> = (-7..=500).map(|i| f64::from(i) / 100.0).collect();
        let rises: Vec<u64> = (0..t_s.len() as u64).map(|i| i % 7).collect();
        let samples = Samples {
            t_s,
            ..Samples::default()
        };
        let rate = rate(&samples, &rises);
        assert!(rate.len() <= POINTS + 2 && rate.iter().any(|p| p.0 == 0.0));
        let mut from = samples.t_s[0];
        let mut sum = 0.0;
        for (t, v) in &rate {
            sum += v * (t - from);
            from = *t;
        }
        let all: u64 = rises[1..].iter().sum();
        assert!((sum - all as f64).abs() < 1e-6, "{sum} of {all}");
        assert_eq!(measured(&samples, &rises).len(), 501);
    }

    #[test]
    fn nothing_has_no_spread_and_no_rate() {
        assert_eq!(spread(std::iter::empty()), None);
        assert_eq!(spread([2.0, 4.0].into_iter()), Some([2.0, 3.0, 4.0]));
        assert!(rate(&Samples::default(), &[]).is_empty());
    }
}

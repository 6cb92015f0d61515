//! Medians of rounds.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Median, least and most of the rounds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of at least one round.
    pub fn of(rounds: &[f64]) -> Spread {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        };
        Spread {
            median,
            min: sorted[0],
            max: sorted[sorted.len() - 1],
        }
    }
}

/// Latencies in nanoseconds, up to ten minutes.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("bounds of a histogram")
}

/// p50, p99, p99.9 and max in microseconds, as a note.
pub fn latencies(name: &str, h: &Histogram<u64>) -> String {
    let us = |ns: u64| ns as f64 / 1e3;
    let at = |q| us(h.value_at_quantile(q));
    format!(
        "{name}: p50 {:.1} µs, p99 {:.1}, p99.9 {:.1}, max {:.0} (N {})",
        at(0.5),
        at(0.99),
        at(0.999),
        us(h.max()),
        h.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_the_sorted_rounds() {
        let s = Spread::of(&[3.0, 1.0, 2.0]);
        assert_eq!((s.median, s.min, s.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }
}

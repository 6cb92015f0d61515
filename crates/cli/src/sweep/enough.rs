//! How much is enough: for each figure the least point of an arm that no other point beats.
//!
//! It is what somebody who pays for memory asks. That no other point beats it means: none is better by more than a tenth
//! and more than the seeds differ, the same rule that decides about crossings, so that a curve which only creeps on counts
//! as flat.

use super::crossings::{Line, better};

/// The index of the least point that no other beats.
pub fn enough(line: &Line) -> usize {
    let beaten = |at: usize| {
        let mut others = line.values.iter();
        others.any(|other| better(other, &line.values[at], line.more))
    };
    (0..line.values.len()).find(|at| !beaten(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::crossings::Spread;
    use super::*;

    fn of(more: bool, values: &[f64]) -> usize {
        let values = values.iter().map(|v| Spread::of(&[*v])).collect();
        let name = "a";
        enough(&Line { name, more, values })
    }

    #[test]
    fn the_least_that_no_other_beats() {
        // Misses that fall and then lie flat.
        assert_eq!(of(false, &[0.9, 0.5, 0.2, 0.19, 0.19]), 2);
        // Throughput that rises, and falls again.
        assert_eq!(of(true, &[100.0, 200.0, 400.0, 410.0, 300.0]), 2);
        // Flat, and falling to the end.
        assert_eq!(of(true, &[5.0, 5.1, 5.2]), 0);
        assert_eq!(of(false, &[8.0, 4.0, 2.0, 1.0]), 3);
        // A valley.
        assert_eq!(of(false, &[8.0, 1.0, 4.0, 1.0]), 1);
        assert_eq!(of(false, &[0.0, 0.0]), 0);
    }

    #[test]
    fn what_seeds_differ_by_beats_nothing() {
        let values = vec![
            Spread::of(&[10.0, 20.0, 30.0]),
            Spread::of(&[9.0, 10.0, 11.0]),
        ];
        let (name, more) = ("a", false);
        assert_eq!(enough(&Line { name, more, values }), 0);
    }
}

//! A round: the requests that are signalled together, and how late it is.
//!
//! What makes ordinary latencies differ (the mood of the host: how it wakes, interrupts, wakes the guest) is common to a
//! round: its first request draws the quantile of all. What makes a late one (its part of the host was held up) may
//! befall each: the draw of a further request counts where it is of the last tenth, and the latest holds up all. So the tail of
//! a round of n is about n times as frequent as that of one alone. Measured on a virtio disk, reads of 4 KiB at depth 2,
//! 4, 8, 16, 32: with one draw for a round p99 is 0.90, 0.86, 0.93, 0.88, 0.86 of what it is there, with these
//! draws 1.00, 0.99, 1.11, 1.20, 1.02.

use super::Latency;
use highwater_engine::Nanos;
use highwater_engine::io::IoOp;

/// From here on, per million, each request's draw counts.
const TAIL: u32 = 900_000;

/// Requests that are signalled together.
#[derive(Default)]
pub(super) struct Round {
    /// Reads, and writes.
    requests: [u64; 2],
    /// Of each latency, per million.
    quantile: u32,
    /// What passes after the signal until they are heard of: of those served so far the most.
    pub delay: u64,
}

impl Round {
    pub fn len(&self) -> u64 {
        self.requests.iter().sum()
    }

    /// How many reads, and how many writes.
    pub fn requests(&self) -> [u64; 2] {
        self.requests
    }

    /// One more, which drew `drawn` per million: the quantile of all.
    pub fn join(&mut self, op: IoOp, drawn: u32) -> u32 {
        if self.len() == 0 || drawn >= TAIL {
            self.quantile = self.quantile.max(drawn);
        }
        self.requests[usize::from(op == IoOp::Write)] += 1;
        self.quantile
    }
}

impl Latency {
    /// What the latest of a round of `n` takes, when this is what one takes alone: what a fit has to look for in a
    /// measurement with `n` under way. Floating point, so no part of a simulation.
    pub fn of_round(&self, n: u32) -> Latency {
        const STEPS: u64 = 16;
        // A round is no later than `ppm` when none of it is.
        let share = |ppm: u64| {
            let own = ppm as f64 / 1e6;
            let others = own.max(f64::from(TAIL) / 1e6).powf(f64::from(n) - 1.0);
            (own * others * 1e6) as u32
        };
        let mut points: Vec<(u32, Nanos)> = Vec::new();
        let corners = self.corners().chain([TAIL]);
        let mut corners: Vec<u64> = corners.map(u64::from).collect();
        corners.sort_unstable();
        let pairs = corners.iter().zip(corners.iter().skip(1));
        let between = pairs.flat_map(|(a, b)| (0..STEPS).map(move |i| a + (b - a) * i / STEPS));
        for ppm in between.chain([1_000_000]) {
            let point = (share(ppm), self.at(ppm as u32));
            match points.last_mut() {
                Some(last) if last.0 == point.0 => *last = point,
                _ => points.push(point),
            }
        }
        Latency::quantiles(points).expect("shares and times that rise")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn the_first_says_how_a_round_is_and_any_other_may_make_it_late() {
        let mut round = Round::default();
        assert_eq!(round.join(IoOp::Read, 300_000), 300_000);
        assert_eq!(round.join(IoOp::Write, 899_999), 300_000);
        assert_eq!(round.join(IoOp::Write, 100_000), 300_000);
        assert_eq!(round.join(IoOp::Read, 950_000), 950_000);
        assert_eq!(round.join(IoOp::Read, 920_000), 950_000);
        assert_eq!((round.requests(), round.len()), ([3, 2], 5));
    }

    #[test]
    fn a_round_is_as_late_as_its_distribution_says() {
        let us = Nanos::from_micros;
        let alone = vec![
            (0, us(40)),
            (900_000, us(60)),
            (990_000, us(80)),
            (1_000_000, us(900)),
        ];
        let alone = Latency::quantiles(alone).unwrap();
        assert_eq!(alone.of_round(1).at(500_000), alone.at(500_000));
        let mut rng = Rng::new(7, 7);
        for n in [1, 2, 8, 32] {
            let mut draws: Vec<u64> = (0..20_000)
                .map(|_| {
                    let mut round = Round::default();
                    let joined =
                        (0..n).map(|_| round.join(IoOp::Read, rng.below(1_000_000) as u32));
                    alone.at(joined.last().unwrap()).0
                })
                .collect();
            draws.sort_unstable();
            let says = alone.of_round(n);
            for q in [0.1, 0.5, 0.9, 0.98] {
                let at = says.at((q * 1e6) as u32).0;
                let got = draws.partition_point(|&d| d <= at) as f64 / draws.len() as f64;
                assert!((got - q).abs() < 0.01, "{n}: {got}, expected {q}");
            }
            let mean = draws.iter().sum::<u64>() as f64 / draws.len() as f64;
            let want = says.mean().0 as f64;
            assert!(
                (mean / want - 1.0).abs() < 0.03,
                "{n}: {mean}, expected {want}"
            );
        }
    }
}

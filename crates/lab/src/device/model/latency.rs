//! Latencies as distributions, and speeds.

use crate::rng::Rng;
use highwater_engine::Nanos;

const MILLION: u64 = 1_000_000;

/// How long something takes: quantiles, sampled by inverse transform with straight lines between them.
///
/// One number is a constant; two are a uniform distribution; more are whatever was measured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Latency {
    /// (share of requests per million that take at most, nanoseconds), both ascending.
    points: Vec<(u32, u64)>,
}

impl Latency {
    /// Always `time`.
    pub fn constant(time: Nanos) -> Latency {
        Latency::uniform(time, time)
    }

    /// Anything from `min` to `max`, with equal chance.
    pub fn uniform(min: Nanos, max: Nanos) -> Latency {
        Latency {
            points: vec![(0, min.0), (MILLION as u32, max.0.max(min.0))],
        }
    }

    /// From quantiles: (per million, time).
    ///
    /// # Errors
    /// When there are none, a share is above a million, or shares or times descend.
    pub fn quantiles(points: Vec<(u32, Nanos)>) -> Result<Latency, &'static str> {
        let Some((first, last)) = points.first().zip(points.last()) else {
            return Err("at least one quantile");
        };
        if last.0 > MILLION as u32 {
            return Err("shares of at most a million in a million");
        }
        let pairs = points.iter().zip(points.iter().skip(1));
        if pairs.clone().any(|(a, b)| a.0 >= b.0) {
            return Err("each quantile once, in ascending order");
        }
        if pairs.clone().any(|(a, b)| a.1 > b.1) {
            return Err("times that do not descend as the quantile rises");
        }
        let mut all = Vec::with_capacity(points.len() + 2);
        // Outside the quantiles given, the distribution is flat.
        if first.0 > 0 {
            all.push((0, first.1.0));
        }
        all.extend(points.iter().map(|p| (p.0, p.1.0)));
        if last.0 < MILLION as u32 {
            all.push((MILLION as u32, last.1.0));
        }
        Ok(Latency { points: all })
    }

    /// One draw, in nanoseconds. Takes one random number, always.
    pub(super) fn sample(&self, rng: &mut Rng) -> u64 {
        if let [(_, min), (_, max)] = self.points[..] {
            return rng.between(min, max);
        }
        self.at(rng.below(MILLION) as u32).0
    }

    /// One draw; a constant takes no random number.
    pub(crate) fn sample_unless_constant(&self, rng: &mut Rng) -> u64 {
        if self.points[0].1 == self.max().0 {
            return self.max().0;
        }
        self.sample(rng)
    }

    /// The quantile `ppm` (per million).
    pub fn at(&self, ppm: u32) -> Nanos {
        let after = self.points.partition_point(|p| p.0 <= ppm);
        let Some(&(x1, y1)) = self.points.get(after) else {
            return self.max();
        };
        let (x0, y0) = self.points[after - 1];
        let share = u128::from(y1 - y0) * u128::from(ppm - x0) / u128::from(x1 - x0);
        Nanos(y0 + share as u64)
    }

    /// The quantiles, per million, between which it is straight.
    pub(super) fn corners(&self) -> impl Iterator<Item = u32> {
        self.points.iter().map(|p| p.0)
    }

    /// The mean, in nanoseconds.
    pub fn mean(&self) -> Nanos {
        let pairs = self.points.iter().zip(self.points.iter().skip(1));
        let sum: u128 = pairs
            .map(|(a, b)| u128::from(b.0 - a.0) * (u128::from(a.1) + u128::from(b.1)))
            .sum();
        Nanos((sum / (2 * u128::from(MILLION))) as u64)
    }

    /// The longest.
    pub fn max(&self) -> Nanos {
        Nanos(self.points.last().map_or(0, |p| p.1))
    }
}

/// Bytes a second, kept as the time of a MiB so that each request's time is a whole number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rate {
    ns_per_mib: u64,
}

impl Rate {
    /// No limit: bytes take no time.
    pub const UNLIMITED: Rate = Rate { ns_per_mib: 0 };

    /// `n` bytes a second; 0 is [`Rate::UNLIMITED`].
    pub fn bytes_per_s(n: u64) -> Rate {
        let ns = |n| ((1u128 << 20) * 1_000_000_000 / u128::from(n)) as u64;
        Rate {
            ns_per_mib: std::num::NonZeroU64::new(n).map_or(0, |n| ns(n.get())),
        }
    }

    /// A KiB in `n` nanoseconds.
    pub const fn ns_per_kib(n: u64) -> Rate {
        Rate {
            ns_per_mib: n * 1024,
        }
    }

    /// How long `len` bytes take, in nanoseconds.
    pub fn time(self, len: u64) -> u64 {
        ((u128::from(len) * u128::from(self.ns_per_mib)) >> 20) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_follow_the_quantiles() {
        let us = Nanos::from_micros;
        let l = Latency::quantiles(vec![
            (100_000, us(50)),
            (500_000, us(80)),
            (990_000, us(400)),
        ]);
        let l = l.unwrap();
        let mut rng = Rng::new(1, 1);
        let mut draws: Vec<u64> = (0..20_000).map(|_| l.sample(&mut rng)).collect();
        draws.sort_unstable();
        for (ppm, want) in [(500_000, 80_000), (990_000, 400_000), (50_000, 50_000)] {
            let got = draws[draws.len() * ppm / 1_000_000];
            assert!(got.abs_diff(want) <= want / 20, "{ppm}: {got}");
        }
        let mean = draws.iter().sum::<u64>() / draws.len() as u64;
        assert!(
            mean.abs_diff(l.mean().0) < mean / 50,
            "{mean} {:?}",
            l.mean()
        );
        assert_eq!(l.at(300_000), us(65));
        assert_eq!((l.at(0), l.at(1_000_000)), (us(50), us(400)));
    }

    #[test]
    fn what_is_no_distribution_is_refused() {
        let n = Nanos;
        for bad in [
            vec![],
            vec![(1_000_001, n(1))],
            vec![(5, n(1)), (5, n(2))],
            vec![(5, n(2)), (6, n(1))],
        ] {
            assert!(Latency::quantiles(bad.clone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn rates_are_whole_nanoseconds() {
        assert_eq!(Rate::ns_per_kib(500).time(4096), 2_000);
        assert_eq!(Rate::bytes_per_s(1 << 30).time(1 << 20), 976_562);
        assert_eq!(Rate::UNLIMITED.time(u64::MAX), 0);
        assert_eq!(Rate::bytes_per_s(0), Rate::UNLIMITED);
    }
}

//! How single pieces of work lie about their mean: quantiles, in percent of it.

use crate::quantile;
use highwater_engine::Nanos;
use highwater_lab::model::Latency;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Shares per million that are measured. Behind the last lie interrupts and other threads, which the lab has of its own.
const MEASURED: [u32; 11] = [
    10_000, 50_000, 100_000, 250_000, 500_000, 750_000, 900_000, 950_000, 990_000, 995_000, 999_000,
];
/// No piece takes more times the mean.
const PERCENT_MAX: u64 = 1_000_000;

/// A table from a quantile's name to percent of the mean. None: each piece is as the mean.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spread(BTreeMap<String, u64>);

impl Spread {
    /// Of what single pieces took, in nanoseconds, a clock's `clock` with it.
    pub(super) fn of(times: &mut [u64], clock: u64) -> Spread {
        times.sort_unstable();
        let at = |ppm: u32| {
            let last = times.len().saturating_sub(1) as u64;
            let nth = last * u64::from(ppm) / 1_000_000;
            times
                .get(nth as usize)
                .map_or(0, |t| t.saturating_sub(clock))
        };
        let points: Vec<(u32, Nanos)> = MEASURED.map(|ppm| (ppm, Nanos(at(ppm)))).into();
        let mean = Latency::quantiles(points.clone()).map_or(1, |l| l.mean().0.max(1));
        let percent = |(ppm, ns): (u32, Nanos)| (quantile::name(ppm), ns.0 * 100 / mean);
        Spread(points.into_iter().map(percent).collect())
    }

    /// As the lab takes it: thousandths, as nanoseconds, with a mean of one whole.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn latency(&self) -> Result<Latency, String> {
        if self.0.is_empty() {
            return Ok(Latency::constant(Nanos(1_000)));
        }
        let mut points = Vec::new();
        for (name, percent) in &self.0 {
            let expected = || format!("{name:?} is no quantile; {}", quantile::EXPECTED);
            let ppm = quantile::parse(name).ok_or_else(expected)?;
            if *percent > PERCENT_MAX {
                return Err(format!(
                    "{name}: expected % of the mean, at most {PERCENT_MAX}"
                ));
            }
            points.push((ppm, Nanos(percent * 10)));
        }
        points.sort_by_key(|p| p.0);
        let shape = Latency::quantiles(points.clone()).map_err(|e| format!("expected {e}"))?;
        // Percents are rounded, or written by hand: their mean is the figure all the same.
        let mean = u128::from(shape.mean().0);
        if mean == 0 {
            return Err("expected a quantile above nothing".into());
        }
        let whole = |ns: Nanos| Nanos((u128::from(ns.0) * 1_000 / mean) as u64);
        let points = points.into_iter().map(|(ppm, ns)| (ppm, whole(ns)));
        Latency::quantiles(points.collect()).map_err(|e| format!("expected {e}"))
    }

    /// As TOML has it.
    pub(super) fn show(&self) -> String {
        let mut points: Vec<_> = self.0.iter().collect();
        points.sort_by_key(|(name, _)| quantile::parse(name));
        let mut text = String::new();
        for (i, (name, percent)) in points.into_iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            let _ = write!(text, "{comma}{name} = {percent}");
        }
        format!("{{ {text} }}")
    }
}

/// Of the work whose single pieces a caller sees.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spreads {
    /// Of `hit_ns`.
    #[serde(default)]
    pub hit: Spread,
    /// Of `read_page_ns`.
    #[serde(default)]
    pub read_page: Spread,
    /// Of `write_page_ns`.
    #[serde(default)]
    pub write_page: Spread,
}

impl Spreads {
    pub(super) fn rows(&self) -> [(&'static str, &Spread); 3] {
        [
            ("hit", &self.hit),
            ("read_page", &self.read_page),
            ("write_page", &self.write_page),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> Spread {
        let table: BTreeMap<String, Spread> = toml::from_str(&format!("s = {text}")).unwrap();
        table["s"].clone()
    }

    #[test]
    fn what_was_measured_keeps_its_shape_and_has_the_mean_of_one() {
        // Nine of ten at 100, the tenth at 1,000; the clock takes 50 of each.
        let mut times: Vec<u64> = (0..10_000)
            .map(|i| if i % 10 == 0 { 1_050 } else { 150 })
            .collect();
        let spread = Spread::of(&mut times, 50);
        assert_eq!(toml(&spread.show()), spread);
        let latency = spread.latency().unwrap();
        assert!((990..=1_000).contains(&latency.mean().0), "{latency:?}");
        let [half, tail] = [500_000, 990_000].map(|ppm| latency.at(ppm).0);
        assert!((9 * half..=11 * half).contains(&tail), "{half} {tail}");
        assert_eq!(
            Spread::of(&mut [], 50).latency().unwrap_err(),
            "expected a quantile above nothing"
        );
    }

    #[test]
    fn no_spread_is_the_mean_and_a_wrong_one_is_refused() {
        assert_eq!(
            Spread::default().latency(),
            Ok(Latency::constant(Nanos(1_000)))
        );
        // By hand, with a mean of 200 %.
        let latency = toml("{ min = 100, max = 300 }").latency().unwrap();
        assert_eq!(
            (latency.at(0).0, latency.mean().0, latency.max().0),
            (500, 1_000, 1_500)
        );
        for (text, error) in [
            ("{ p0x = 1 }", "is no quantile"),
            ("{ p50 = 20, p99 = 10 }", "do not descend"),
            ("{ p50 = 9999999 }", "at most"),
            ("{ max = 0 }", "above nothing"),
        ] {
            let e = toml(text).latency().unwrap_err();
            assert!(e.contains(error), "{e}");
        }
    }
}

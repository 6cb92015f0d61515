//! A disk measured several times, between other work on it: its profile is of that hour, and not of one before.
//!
//! Disks that are shared with strangers change their speed from minute to minute by a factor of two and more. A
//! prediction from a profile of an hour ago then says less of the lab than of the strangers.

use super::fit::Fit;
use super::points::{self, Point, Probe, Step};
use super::{Subject, in_directory};
use crate::device::Named;
use crate::error::{CliError, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Less per point says nothing.
const POINT_MIN: Duration = Duration::from_millis(2);

/// What a point of weight 1 may take when all of `steps` take `duration`.
///
/// # Errors
/// When that is too short.
pub(super) fn share(steps: &[Step], duration: Duration, flag: &str) -> Result<Duration> {
    let each = duration.div_f64(points::weight(steps));
    if each < POINT_MIN {
        return Err(CliError::usage(
            format!("{} points in {duration:?} say nothing", steps.len()),
            format!("{flag} 20s"),
        ));
    }
    Ok(each)
}

/// A disk under measurement.
pub struct Meter {
    path: PathBuf,
    subject: Subject,
    steps: Vec<Step>,
    each: Duration,
    rounds: Vec<Vec<Point>>,
    closed: bool,
}

impl Meter {
    /// Measures a temporary file of `size` bytes in `dir`; a round takes `duration`.
    ///
    /// # Errors
    /// When that is too short, or the disk refuses `O_DIRECT`.
    pub fn new(dir: &Path, size: u64, duration: Duration) -> Result<Meter> {
        let steps = points::steps(true);
        Ok(Meter {
            each: share(&steps, duration, "--probe")?,
            path: dir.to_path_buf(),
            subject: in_directory(dir, size)?,
            steps,
            rounds: Vec::new(),
            closed: false,
        })
    }

    /// Measures every point once.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn round(&mut self) -> Result<()> {
        let probe = Probe::new(
            &self.subject.file,
            self.subject.len,
            self.each,
            self.subject.front.pieces_max,
        )
        .map_err(super::not_begun)?;
        let mut round = Vec::new();
        for step in &self.steps {
            let point = probe
                .measure(step)
                .map_err(|e| super::failed(&self.path, step, e))?;
            round.push(point);
            crate::cleanup::wait_if_ending();
        }
        self.rounds.push(round);
        Ok(())
    }

    /// No round follows.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Was the last round taken?
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The profile of the median of each figure of all rounds.
    ///
    /// # Errors
    /// None but a bug: a fitted profile loads.
    pub fn profile(&self) -> Result<Named> {
        let points = medians(&self.rounds);
        let fit = Fit::of(&points, self.subject.len, self.subject.front);
        let lines = fit.compare(&points);
        let rounds = self.rounds.len();
        let named = Named {
            name: "the disk as measured between the runs".into(),
            text: fit.toml(&format!("{rounds} times, between runs"), &lines),
        };
        named.profile()?;
        Ok(named)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    (values[(n - 1) / 2] + values[n / 2]) / 2.0
}

/// Point by point, the median of each figure.
fn medians(rounds: &[Vec<Point>]) -> Vec<Point> {
    let Some(first) = rounds.first() else {
        return Vec::new();
    };
    let of =
        |i: usize, f: &dyn Fn(&Point) -> f64| median(rounds.iter().map(|r| f(&r[i])).collect());
    first
        .iter()
        .enumerate()
        .map(|(i, point)| Point {
            per_s: of(i, &|p| p.per_s),
            mean_us: of(i, &|p| p.mean_us),
            copied_per_s: of(i, &|p| p.copied_per_s),
            cpu_us: of(i, &|p| p.cpu_us),
            count: of(i, &|p| p.count as f64) as u64,
            quantiles_us: (0..point.quantiles_us.len())
                .map(|q| (point.quantiles_us[q].0, of(i, &|p| p.quantiles_us[q].1)))
                .collect(),
            ..point.clone()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_round_of_three_does_not_count() {
        let round = |us: f64| {
            vec![Point {
                step: Step::Flush {
                    after_writes: false,
                },
                per_s: 1e6 / us,
                count: 10,
                mean_us: us,
                quantiles_us: vec![(0, us / 2.0), (1_000_000, us * 2.0)],
                span: 1 << 20,
                copied_per_s: 0.0,
                cpu_us: 0.0,
            }]
        };
        let m = medians(&[round(100.0), round(900.0), round(110.0)]);
        assert_eq!((m[0].mean_us, m[0].count), (110.0, 10));
        assert_eq!(m[0].quantiles_us, [(0, 55.0), (1_000_000, 220.0)]);
        assert_eq!(medians(&[round(100.0), round(300.0)])[0].mean_us, 200.0);
        assert!(medians(&[]).is_empty());
    }

    #[test]
    fn too_short_is_refused_with_a_longer_time() {
        let e = share(&points::steps(true), Duration::from_millis(5), "--probe").unwrap_err();
        assert_eq!(e.remedy, "--probe 20s");
    }
}

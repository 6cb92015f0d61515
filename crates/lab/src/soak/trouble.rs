//! What goes wrong in a run, and when the power fails.

use crate::device::FaultRates;
use crate::rng::Rng;
use highwater_engine::Nanos;
use std::fmt;

/// One kind of trouble.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Power failures: crash images are cut and checked while the run goes on.
    Crash,
    /// Transient read errors.
    Reads,
    /// Transient write errors.
    Writes,
    /// A range of each file that cannot be written for a time.
    BadRange,
    /// Ranges that can no longer be read, and others that can no longer be written, until trouble ends.
    Worn,
    /// No space for a time.
    NoSpace,
    /// From some moment on nothing can be written, until trouble ends.
    Outage,
    /// Flushes fail, with crash images.
    Flushes,
    /// Requests hang for up to two seconds.
    Hangs,
    /// Requests take 50 ms longer now and then.
    Spikes,
}

impl Trouble {
    /// Every kind.
    pub const ALL: &'static [Trouble] = &[
        Trouble::None,
        Trouble::Crash,
        Trouble::Reads,
        Trouble::Writes,
        Trouble::BadRange,
        Trouble::Worn,
        Trouble::NoSpace,
        Trouble::Outage,
        Trouble::Flushes,
        Trouble::Hangs,
        Trouble::Spikes,
    ];

    /// The name, in small letters.
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// May an operation fail?
    fn may_fail(self) -> bool {
        !matches!(self, Trouble::None | Trouble::Crash | Trouble::Spikes)
    }
}

/// What goes wrong in a run: nothing, one kind, or two at one time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Troubles(pub Trouble, pub Trouble);

impl Troubles {
    /// The kinds, each once.
    pub fn iter(self) -> impl Iterator<Item = Trouble> {
        let second = (self.1 != Trouble::None && self.1 != self.0).then_some(self.1);
        std::iter::once(self.0).chain(second)
    }

    /// Is it among them?
    pub fn has(self, trouble: Trouble) -> bool {
        self.iter().any(|t| t == trouble)
    }

    /// Does anything go wrong?
    pub fn any(self) -> bool {
        self.iter().any(|t| t != Trouble::None)
    }

    /// May an operation fail?
    pub fn may_fail(self) -> bool {
        self.iter().any(Trouble::may_fail)
    }

    /// May it fail by anything but its own read?
    pub fn may_fail_writes(self) -> bool {
        self.iter().any(|t| t.may_fail() && t != Trouble::Reads)
    }

    /// Are crash images cut?
    pub fn cuts(self) -> bool {
        self.has(Trouble::Crash) || self.has(Trouble::Flushes)
    }

    /// The rates of faults by which the files start.
    pub fn rates(self) -> FaultRates {
        let mut rates = FaultRates::default();
        for trouble in self.iter() {
            match trouble {
                Trouble::Reads => rates.read_error_ppm = 10_000,
                Trouble::Writes => rates.write_error_ppm = 50_000,
                Trouble::Worn => {
                    rates.read_error_ppm = rates.read_error_ppm.max(500);
                    rates.write_error_ppm = rates.write_error_ppm.max(2_000);
                    rates.permanent_ppm = 100_000;
                }
                Trouble::Flushes => {
                    rates.flush_error_ppm = 200_000;
                    rates.flush_loss_ppm = 500_000;
                }
                Trouble::Spikes => {
                    rates.spike_ppm = 2_000;
                    rates.spike = Nanos::from_millis(50);
                }
                _ => {}
            }
        }
        rates
    }
}

impl fmt::Display for Troubles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Trouble::name).collect();
        f.write_str(&names.join("+"))
    }
}

/// When the power fails: right after the operation, completed write, flush or sync of this number (of all files).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum CrashPoint {
    Op(u64),
    Write(u64),
    Flush(u64),
    Sync(u64),
}

impl CrashPoint {
    /// Points for a run of `ops` operations. Writes, flushes and syncs are fewer than operations, and most seeds have
    /// some hundreds: what lies beyond a run's last is not reached.
    pub fn draw(r: &mut Rng, ops: u64) -> Vec<CrashPoint> {
        let mut points: Vec<_> = (0..r.between(8, 20))
            .map(|_| match r.below(4) {
                0 => CrashPoint::Op(r.between(1, ops)),
                1 => {
                    let most = r.pick(&[50, 500, 5_000]);
                    CrashPoint::Write(r.between(1, most))
                }
                2 => CrashPoint::Flush(r.between(1, 300)),
                _ => CrashPoint::Sync(r.between(1, 300)),
            })
            .collect();
        points.sort_by_key(|p| match p {
            CrashPoint::Op(n) => (0, *n),
            CrashPoint::Write(n) => (1, *n),
            CrashPoint::Flush(n) => (2, *n),
            CrashPoint::Sync(n) => (3, *n),
        });
        points.dedup();
        points
    }
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CrashPoint::Op(n) => write!(f, "op {n}"),
            CrashPoint::Write(n) => write!(f, "write {n}"),
            CrashPoint::Flush(n) => write!(f, "flush {n}"),
            CrashPoint::Sync(n) => write!(f, "sync {n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_kinds_are_both_there_and_one_is_named_once() {
        let both = Troubles(Trouble::Crash, Trouble::Writes);
        assert_eq!(both.to_string(), "crash+writes");
        assert!(both.cuts() && both.may_fail() && both.may_fail_writes());
        assert_eq!(both.rates().write_error_ppm, 50_000);
        let one = Troubles(Trouble::Reads, Trouble::None);
        assert_eq!(one.to_string(), "reads");
        assert!(one.may_fail() && !one.may_fail_writes() && !one.cuts());
        let none = Troubles(Trouble::None, Trouble::None);
        assert!(!none.any() && !none.may_fail());
        assert_eq!(none.to_string(), "none");
    }

    #[test]
    fn crash_points_of_every_kind_are_drawn_and_each_once() {
        let mut rng = Rng::new(1, 1);
        let drawn: Vec<_> = (0..50)
            .flat_map(|_| {
                let points = CrashPoint::draw(&mut rng, 20_000);
                let again = points.iter().enumerate();
                assert!(again.clone().all(|(n, p)| !points[..n].contains(p)));
                points
            })
            .collect();
        let kinds: [fn(&CrashPoint) -> bool; 4] = [
            |p| matches!(p, CrashPoint::Op(_)),
            |p| matches!(p, CrashPoint::Write(_)),
            |p| matches!(p, CrashPoint::Flush(_)),
            |p| matches!(p, CrashPoint::Sync(_)),
        ];
        assert!(kinds.iter().all(|kind| drawn.iter().any(kind)));
    }
}

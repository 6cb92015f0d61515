//! What a crowd costs: a time by the number of other requests under way.
//!
//! What n others add to a latency is either delay, during which the server may do something else, or the server's
//! time, and more of it the nearer the server is to being all that counts. Measured from outside the two look alike. Taken
//! here: where the crowd adds as much as a request takes alone, or more, all of a round of n + 1 requests is the server's
//! time; where it adds less, a share of it, and the rest is delay.

use highwater_engine::Nanos;

/// Straight lines through points, from nothing for none; beyond the last point the last line goes on. No points: nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Curve {
    /// (other requests, nanoseconds), both ascending.
    points: Vec<(u32, u64)>,
}

impl Curve {
    /// `time` for each other request.
    pub fn slope(time: Nanos) -> Curve {
        Curve {
            points: vec![(1, time.0)],
        }
    }

    /// From points: (other requests, the time of all of them).
    ///
    /// # Errors
    /// When the number of others is 0, comes twice or descends, or times descend.
    pub fn points(points: Vec<(u32, Nanos)>) -> Result<Curve, &'static str> {
        if points.iter().any(|p| p.0 == 0) {
            return Err("at least one other request");
        }
        let pairs = points.iter().zip(points.iter().skip(1));
        if pairs.clone().any(|(a, b)| a.0 >= b.0) {
            return Err("each number of requests once, in ascending order");
        }
        if pairs.clone().any(|(a, b)| a.1 > b.1) {
            return Err("times that do not descend as the requests become more");
        }
        Ok(Curve {
            points: points.into_iter().map(|(n, t)| (n, t.0)).collect(),
        })
    }

    /// True when others cost nothing, however many they are.
    pub fn is_free(&self) -> bool {
        self.max() == 0
    }

    /// What `n` others cost together, in nanoseconds.
    pub(super) fn at(&self, n: u64) -> u64 {
        let after = self.points.partition_point(|p| u64::from(p.0) < n);
        let last = self.points.len().saturating_sub(1);
        let Some(&(x1, y1)) = self.points.get(after.min(last)) else {
            return 0;
        };
        let before = after.min(last).checked_sub(1);
        let (x0, y0) = before.map_or((0, 0), |i| self.points[i]);
        y0 + (y1 - y0) * n.saturating_sub(x0.into()) / u64::from(x1 - x0)
    }

    /// The part of each of `others` in what they add together.
    pub fn each(&self, others: u64) -> Nanos {
        Nanos(self.at(others).checked_div(others).unwrap_or(0))
    }

    /// What a request costs with `others` under way, when it takes `alone` alone.
    pub fn share(&self, alone: Nanos, others: u64) -> Share {
        let added = self.at(others);
        if added == 0 {
            return Share::default();
        }
        // Both in parts per thousand.
        let server = (added * 1_000)
            .checked_div(alone.0)
            .map_or(1_000, |s| s.min(1_000));
        let delay = 1_000 - server * server / 1_000;
        Share {
            occupies: Nanos((alone.0 + added) * server / 1_000 / (others + 1)),
            delays: Nanos(added * delay / 1_000 / others),
        }
    }

    /// The last point's time.
    pub(super) fn max(&self) -> u64 {
        self.points.last().map_or(0, |p| p.1)
    }
}

/// One request's part of what a crowd costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Share {
    /// How long it occupies the server at least, its 4 KiB included.
    pub occupies: Nanos,
    /// What each other request in the device adds to its latency.
    pub delays: Nanos,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lead_from_point_to_point_and_the_last_goes_on() {
        let curve = Curve::points(vec![(1, Nanos(7)), (3, Nanos(27)), (7, Nanos(67))]).unwrap();
        let want = [(0, 0), (1, 7), (2, 17), (3, 27), (5, 47), (7, 67), (9, 87)];
        for (n, time) in want {
            assert_eq!(curve.at(n), time, "{n}");
        }
        assert_eq!(Curve::slope(Nanos(5)).at(30), 150);
        assert_eq!(Curve::default().at(30), 0);
        assert!(Curve::default().is_free() && !curve.is_free());
    }

    #[test]
    fn a_crowd_delays_while_it_is_small_and_occupies_when_it_is_large() {
        let curve = Curve::points(vec![(1, Nanos(10)), (9, Nanos(400))]).unwrap();
        let share = |others| {
            let s = curve.share(Nanos(100), others);
            (s.occupies.0, s.delays.0)
        };
        assert_eq!(share(0), (0, 0));
        assert_eq!(share(1), (5, 9));
        assert_eq!(share(9), (50, 0));
        assert_eq!((curve.each(9), curve.each(0)), (Nanos(44), Nanos(0)));
    }

    #[test]
    fn what_is_no_curve_is_refused() {
        let n = Nanos;
        for bad in [
            vec![(0, n(1))],
            vec![(2, n(1)), (2, n(2))],
            vec![(1, n(2)), (2, n(1))],
        ] {
            assert!(Curve::points(bad.clone()).is_err(), "{bad:?}");
        }
    }
}

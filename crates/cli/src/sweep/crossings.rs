//! Where lines cross: between which points one policy stops being the better of two.
//!
//! Two lines are *even* at a point where they differ by less than a tenth, or where the runs of one reach into those of the
//! other: noise must not make a crossing. A crossing is a change of who is better, from one point where they are not even
//! to the next.

use serde::Serialize;

/// Two figures closer than this share of the larger are even.
const EVEN: f64 = 0.1;

/// One point of a line: the median of the runs, the lowest and the highest.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The lowest run.
    pub min: f64,
    /// The highest run.
    pub max: f64,
}

impl Spread {
    /// Of runs, at least one.
    pub fn of(runs: &[f64]) -> Spread {
        let mut sorted = runs.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        Spread {
            median: (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
            min: sorted[0],
            max: sorted[n - 1],
        }
    }

    /// Less than `other` by more than noise.
    pub fn below(&self, other: &Spread) -> bool {
        let larger = self.median.max(other.median);
        self.max < other.min && other.median - self.median > EVEN * larger
    }
}

/// Is `a` better than `b` by more than noise? `more`: the larger is.
pub fn better(a: &Spread, b: &Spread, more: bool) -> bool {
    match more {
        true => b.below(a),
        false => a.below(b),
    }
}

/// A line of the plot.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// The arm.
    pub name: &'a str,
    /// More is better.
    pub more: bool,
    /// A value for each point.
    pub values: Vec<Spread>,
}

/// Two lines that cross.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Crossing {
    /// Which figure, such as `p999_us`.
    pub figure: &'static str,
    /// Who is better up to `from`.
    pub before: String,
    /// Who is better from `to` on.
    pub after: String,
    /// The last point where `before` is better.
    pub from: f64,
    /// The first where `after` is.
    pub to: f64,
}

/// Every crossing of every two lines of one figure, by the lower point.
pub fn crossings(figure: &'static str, points: &[f64], lines: &[Line]) -> Vec<Crossing> {
    let mut out = Vec::new();
    for (i, a) in lines.iter().enumerate() {
        for b in &lines[i + 1..] {
            pair(figure, points, a, b, &mut out);
        }
    }
    out.sort_by(|a, b| a.from.total_cmp(&b.from).then(a.to.total_cmp(&b.to)));
    out
}

fn pair(figure: &'static str, points: &[f64], a: &Line, b: &Line, out: &mut Vec<Crossing>) {
    // Who was better last, and where.
    let mut last: Option<(&str, f64)> = None;
    for (at, point) in points.iter().enumerate() {
        let (va, vb) = (&a.values[at], &b.values[at]);
        let now = match (better(va, vb, a.more), better(vb, va, b.more)) {
            (true, _) => a.name,
            (_, true) => b.name,
            _ => continue,
        };
        if let Some((before, from)) = last
            && before != now
        {
            out.push(Crossing {
                figure,
                before: before.to_string(),
                after: now.to_string(),
                from,
                to: *point,
            });
        }
        last = Some((now, *point));
    }
}

/// Who is best at a point: every line that no other is better than.
pub fn best<'a>(at: usize, lines: &[Line<'a>]) -> Vec<&'a str> {
    lines
        .iter()
        .filter(|a| {
            let mut others = lines.iter();
            !others.any(|b| better(&b.values[at], &a.values[at], a.more))
        })
        .map(|l| l.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(name: &'a str, values: &[f64]) -> Line<'a> {
        let values = values.iter().map(|v| Spread::of(&[*v])).collect();
        Line {
            name,
            more: false,
            values,
        }
    }

    const POINTS: [f64; 5] = [0.8, 1.2, 2.0, 4.0, 8.0];

    fn of(a: &[f64], b: &[f64]) -> Vec<(String, f64, f64)> {
        let lines = [line("a", a), line("b", b)];
        crossings("p999_us", &POINTS, &lines)
            .into_iter()
            .map(|c| (format!("{}>{}", c.before, c.after), c.from, c.to))
            .collect()
    }

    #[test]
    fn a_crossing_lies_between_the_points_where_the_lower_changes() {
        assert_eq!(
            of(&[1.0, 1.0, 2.0, 9.0, 9.0], &[2.0, 2.0, 4.0, 5.0, 5.0]),
            [("a>b".to_string(), 2.0, 4.0)]
        );
        // Twice.
        assert_eq!(
            of(&[1.0, 9.0, 9.0, 1.0, 1.0], &[2.0, 2.0, 2.0, 2.0, 2.0]),
            [("a>b".to_string(), 0.8, 1.2), ("b>a".to_string(), 2.0, 4.0)]
        );
        assert_eq!(of(&[1.0; 5], &[2.0; 5]), []);
    }

    #[test]
    fn even_points_neither_cross_nor_hide_a_crossing() {
        // A touch is no crossing, and within a tenth is even.
        assert_eq!(
            of(&[1.0, 2.0, 1.0, 1.0, 1.0], &[2.0, 1.95, 2.0, 2.0, 2.0]),
            []
        );
        assert_eq!(of(&[0.0; 5], &[0.0; 5]), []);
        // Over even points the interval is wider.
        assert_eq!(
            of(&[1.0, 3.0, 3.0, 9.0, 9.0], &[2.0, 3.1, 2.9, 5.0, 5.0]),
            [("a>b".to_string(), 0.8, 4.0)]
        );
    }

    #[test]
    fn runs_that_overlap_are_even() {
        let (a, b) = (Spread::of(&[1.0, 2.0, 5.0]), Spread::of(&[4.0, 6.0, 7.0]));
        assert_eq!((a.median, a.min, a.max), (2.0, 1.0, 5.0));
        assert!(!a.below(&b) && !b.below(&a));
        assert!(Spread::of(&[1.0, 2.0, 3.0]).below(&b));
        assert_eq!(Spread::of(&[1.0, 3.0]).median, 2.0);
    }

    #[test]
    fn the_best_are_those_that_nobody_is_better_than() {
        let mut lines = [
            line("a", &[1.0, 5.0]),
            line("b", &[1.05, 2.0]),
            line("c", &[3.0, 2.0]),
        ];
        assert_eq!(best(0, &lines), ["a", "b"]);
        assert_eq!(best(1, &lines), ["b", "c"]);
        lines.iter_mut().for_each(|l| l.more = true);
        assert_eq!(best(0, &lines), ["c"]);
        assert_eq!(best(1, &lines), ["a"]);
    }
}

//! Where lines cross: between which pressures one policy stops being the better of two.
//!
//! Two lines are *even* at a point where they differ by less than a tenth, or where the runs of one reach into those of the
//! other: noise must not make a crossing. A crossing is a change of who is lower, from one point where they are not even
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

/// A line of the plot.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// The arm.
    pub name: &'a str,
    /// A value for each pressure.
    pub values: Vec<Spread>,
}

/// Two lines that cross.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Crossing {
    /// Which figure: `p999_us`, `refaults_per_op`, `refused`, `oom_unreclaimable`.
    pub figure: &'static str,
    /// Who is lower, which is better for each of the figures, up to `from`.
    pub before: String,
    /// Who is lower from `to` on.
    pub after: String,
    /// The last pressure where `before` is lower.
    pub from: f64,
    /// The first where `after` is.
    pub to: f64,
}

/// Every crossing of every two lines, by the lower pressure.
pub fn crossings(figure: &'static str, pressures: &[f64], lines: &[Line]) -> Vec<Crossing> {
    let mut out = Vec::new();
    for (i, a) in lines.iter().enumerate() {
        for b in &lines[i + 1..] {
            pair(figure, pressures, a, b, &mut out);
        }
    }
    out.sort_by(|a, b| a.from.total_cmp(&b.from).then(a.to.total_cmp(&b.to)));
    out
}

fn pair(figure: &'static str, pressures: &[f64], a: &Line, b: &Line, out: &mut Vec<Crossing>) {
    // Who was lower last, and where.
    let mut last: Option<(&str, f64)> = None;
    for (at, pressure) in pressures.iter().enumerate() {
        let (va, vb) = (&a.values[at], &b.values[at]);
        let lower = match (va.below(vb), vb.below(va)) {
            (true, _) => a.name,
            (_, true) => b.name,
            _ => continue,
        };
        if let Some((before, from)) = last
            && before != lower
        {
            out.push(Crossing {
                figure,
                before: before.to_string(),
                after: lower.to_string(),
                from,
                to: *pressure,
            });
        }
        last = Some((lower, *pressure));
    }
}

/// Who is lowest at a point: every line that no other is below.
pub fn lowest<'a>(at: usize, lines: &[Line<'a>]) -> Vec<&'a str> {
    lines
        .iter()
        .filter(|a| !lines.iter().any(|b| b.values[at].below(&a.values[at])))
        .map(|l| l.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(name: &'a str, values: &[f64]) -> Line<'a> {
        let values = values.iter().map(|v| Spread::of(&[*v])).collect();
        Line { name, values }
    }

    const PRESSURES: [f64; 5] = [0.8, 1.2, 2.0, 4.0, 8.0];

    fn of(a: &[f64], b: &[f64]) -> Vec<(String, f64, f64)> {
        let lines = [line("a", a), line("b", b)];
        crossings("p999_us", &PRESSURES, &lines)
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
    fn the_lowest_are_those_that_nobody_is_below() {
        let lines = [
            line("a", &[1.0, 5.0]),
            line("b", &[1.05, 2.0]),
            line("c", &[3.0, 2.0]),
        ];
        assert_eq!(lowest(0, &lines), ["a", "b"]);
        assert_eq!(lowest(1, &lines), ["b", "c"]);
    }
}

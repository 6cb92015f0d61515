//! Least squares in two unknowns, neither of them negative, in relative error.

/// `a x + b y = c`, for some measured `whole` of which `c` is a part: errors count in shares of it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub a: f64,
    pub b: f64,
    pub c: f64,
    pub whole: f64,
}

/// The `x` and `y` that leave the least error.
pub fn least(rows: &[Row]) -> (f64, f64) {
    let sum = |f: fn(&Row) -> f64| -> f64 {
        let relative = rows.iter().filter(|r| r.whole > 0.0);
        relative.map(|r| f(r) / (r.whole * r.whole)).sum()
    };
    let (aa, ab, bb) = (sum(|r| r.a * r.a), sum(|r| r.a * r.b), sum(|r| r.b * r.b));
    let (ac, bc) = (sum(|r| r.a * r.c), sum(|r| r.b * r.c));
    let alone = |of: f64, square: f64| {
        if square > 0.0 {
            (of / square).max(0.0)
        } else {
            0.0
        }
    };
    let determinant = aa * bb - ab * ab;
    if determinant > 1e-9 * aa * bb {
        let x = (ac * bb - bc * ab) / determinant;
        let y = (bc * aa - ac * ab) / determinant;
        match (x >= 0.0, y >= 0.0) {
            (true, true) => return (x, y),
            (true, false) => return (alone(ac, aa), 0.0),
            _ => return (0.0, alone(bc, bb)),
        }
    }
    if aa > 0.0 {
        (alone(ac, aa), 0.0)
    } else {
        (0.0, alone(bc, bb))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(a: f64, b: f64, c: f64) -> Row {
        Row { a, b, c, whole: c }
    }

    #[test]
    fn what_fits_exactly_is_found() {
        let rows = [
            row(1.0, 0.0, 3.0),
            row(1.0, 2.0, 13.0),
            row(100.0, 1.0, 305.0),
        ];
        let (x, y) = least(&rows);
        assert!((x - 3.0).abs() < 1e-9 && (y - 5.0).abs() < 1e-9, "{x} {y}");
    }

    #[test]
    fn nothing_is_negative_and_what_nothing_tells_is_zero() {
        assert_eq!(least(&[row(1.0, 0.0, 3.0), row(1.0, 2.0, 1.0)]).1, 0.0);
        assert_eq!(least(&[row(0.0, 1.0, 3.0), row(2.0, 1.0, 1.0)]).0, 0.0);
        assert_eq!(least(&[row(2.0, 0.0, 6.0)]), (3.0, 0.0));
        assert_eq!(least(&[]), (0.0, 0.0));
    }

    #[test]
    fn errors_count_in_shares() {
        let rows = [row(1.0, 0.0, 1.0), row(1000.0, 0.0, 2000.0)];
        let x = least(&rows).0;
        // In absolute errors it would be 2.
        assert!((1.1..1.3).contains(&x), "{x}");
    }
}

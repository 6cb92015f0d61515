//! Names of quantiles in tables: `min`, `p50`, `p99_9` (99.9 %), `max`, as shares per million.

/// The share that `name` stands for.
pub fn parse(name: &str) -> Option<u32> {
    let digits = match name {
        "min" => return Some(0),
        "max" => return Some(1_000_000),
        _ => name.strip_prefix('p')?,
    };
    let (whole, part) = digits.split_once('_').unwrap_or((digits, ""));
    let number = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > 2 || part.len() > 4 || !number(whole) || !number(part) {
        return None;
    }
    format!("{whole}{part:0<4}").parse().ok()
}

/// The name of a share.
pub fn name(ppm: u32) -> String {
    match ppm {
        0 => "min".to_string(),
        1_000_000 => "max".to_string(),
        _ => {
            let (whole, part) = (ppm / 10_000, ppm % 10_000);
            let part = format!("{part:04}");
            match part.trim_end_matches('0') {
                "" => format!("p{whole:02}"),
                part => format!("p{whole:02}_{part}"),
            }
        }
    }
}

/// What `parse` takes.
pub const EXPECTED: &str = "expected min, p50, p99, p99_9 (99.9 %) and such, max";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_shares_are_each_other_s() {
        for (text, ppm) in [
            ("min", 0),
            ("p01", 10_000),
            ("p50", 500_000),
            ("p99_9", 999_000),
            ("p99_9999", 999_999),
            ("max", 1_000_000),
        ] {
            assert_eq!((parse(text), name(ppm).as_str()), (Some(ppm), text));
        }
        for text in ["", "p", "p100", "p-1", "q50", "p99_99999", "p9x"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

//! The lists of the command line: sizes, dirty limits and pressures, each more than the one before.

use super::args::SweepArgs;
use super::pressure;
use crate::error::{CliError, Result};
use crate::units::{parse_bytes, parse_dirty_limit, show_bytes};

/// More points than anybody reads.
pub const POINTS_MAX: usize = 64;
/// Sizes that a trace is tried with when none are given.
const SIZES: usize = 8;
const SIZES_REMEDY: &str = "--memory 16MiB,64MiB,256MiB, or --memory 16MiB..1GiB for each doubling";
const LIMITS_REMEDY: &str = "--dirty-limit 5,10,20,40,60";

/// The lists as they were given.
pub struct Given {
    /// `--pressure`.
    pub pressures: Vec<f64>,
    /// `--memory`.
    pub sizes: Vec<f64>,
    /// `--dirty-limit`.
    pub limits: Vec<f64>,
}

impl Given {
    /// # Errors
    /// With the list that is none.
    pub fn of(args: &SweepArgs) -> Result<Given> {
        Ok(Given {
            pressures: match &args.pressure {
                Some(list) => pressure::parse_list(list)?,
                None => Vec::new(),
            },
            sizes: match &args.memory {
                Some(list) => sizes(list)?,
                None => Vec::new(),
            },
            limits: match &args.dirty_limit {
                Some(list) => limits(list)?,
                None => Vec::new(),
            },
        })
    }
}

/// The one value of each list that has one, for a sweep over something else: bytes, and percent.
///
/// # Errors
/// As [`Given::of`].
pub fn fixed(args: &SweepArgs) -> Result<(Option<u64>, Option<u8>)> {
    let given = Given::of(args)?;
    let one = |list: &[f64]| match list {
        [one] => Some(*one),
        _ => None,
    };
    let (memory, limit) = (one(&given.sizes), one(&given.limits));
    Ok((memory.map(|m| m as u64), limit.map(|l| l as u8)))
}

/// One value for `option`, such as a sweep over something else has.
pub fn single(option: &str) -> &'static str {
    match option {
        "--pressure" => "--pressure 4",
        "--memory" => "--memory 64MiB",
        _ => "--dirty-limit 40",
    }
}

/// `16MiB,64MiB`, and `16MiB..1GiB` for each doubling; each more than the one before.
fn sizes(list: &str) -> Result<Vec<f64>> {
    let refused = |why: String| CliError::usage(format!("--memory {list}: {why}"), SIZES_REMEDY);
    let size = |word: &str| {
        let bytes = parse_bytes(word).map_err(refused)?;
        match (crate::adjust::MEMORY_MIN..=crate::adjust::MEMORY_MAX).contains(&bytes) {
            true => Ok(bytes),
            false => Err(refused(format!(
                "a budget of {} makes no sense: expected {} to {}",
                show_bytes(bytes),
                show_bytes(crate::adjust::MEMORY_MIN),
                show_bytes(crate::adjust::MEMORY_MAX)
            ))),
        }
    };
    let mut out: Vec<u64> = Vec::new();
    for word in words(list) {
        match word.split_once("..") {
            None => out.push(size(word)?),
            Some((from, to)) => {
                let (from, to) = (size(from)?, size(to)?);
                out.extend(
                    std::iter::successors(Some(from), |b| Some(b * 2)).take_while(|b| *b <= to),
                );
            }
        }
    }
    rising(out.into_iter().map(|b| b as f64).collect()).map_err(refused)
}

/// `5,10,20`; each more than the one before.
fn limits(list: &str) -> Result<Vec<f64>> {
    let refused =
        |why: String| CliError::usage(format!("--dirty-limit {list}: {why}"), LIMITS_REMEDY);
    let limits = words(list).map(|word| parse_dirty_limit(word).map(f64::from));
    let limits = limits.collect::<std::result::Result<_, String>>();
    limits.and_then(rising).map_err(refused)
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|w| !w.is_empty())
}

fn rising(points: Vec<f64>) -> std::result::Result<Vec<f64>, String> {
    if points.is_empty() {
        return Err("names nothing".into());
    }
    if points.len() > POINTS_MAX {
        let n = points.len();
        return Err(format!(
            "{n} points are more than a plot can show: expected at most {POINTS_MAX}"
        ));
    }
    match points.windows(2).all(|w| w[0] < w[1]) {
        true => Ok(points),
        false => Err("does not rise: each has to be more than the one before".into()),
    }
}

/// Sizes for a trace whose pages come to `footprint` bytes: doubling, up to where all of them fit.
pub fn sizes_for(footprint: u64) -> Vec<f64> {
    // Descriptors and index take a fortieth of memory, and watermarks keep some more free.
    let footprint = footprint.min(crate::adjust::MEMORY_MAX);
    let all = (footprint + footprint / 8).next_power_of_two();
    let largest = all.clamp(crate::adjust::MEMORY_MIN << 2, crate::adjust::MEMORY_MAX);
    let halves = std::iter::successors(Some(largest), |b| Some(b / 2));
    let mut sizes: Vec<f64> = halves
        .take_while(|b| *b >= crate::adjust::MEMORY_MIN)
        .take(SIZES)
        .map(|b| b as f64)
        .collect();
    sizes.reverse();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn lists_rise_and_two_dots_double() {
        let mib = |list: &str| -> Vec<u64> {
            sizes(list)
                .unwrap()
                .iter()
                .map(|b| *b as u64 / MIB)
                .collect()
        };
        assert_eq!(mib("16MiB, 64MiB ,1GiB"), [16, 64, 1024]);
        assert_eq!(mib("16MiB..100MiB"), [16, 32, 64]);
        assert_eq!(mib("1MiB,4MiB..16MiB"), [1, 4, 8, 16]);
        for (list, what) in [
            ("", "names nothing"),
            ("64MiB,64MiB", "does not rise"),
            ("64MiB,32MiB", "does not rise"),
            ("64MiB..32MiB", "names nothing"),
            ("64", "64 B makes no sense"),
            ("-5", "is no size"),
            ("nan,inf", "is no size"),
            ("1MiB..", "is no size"),
            ("9999GiB", "makes no sense"),
        ] {
            let e = sizes(list).unwrap_err();
            assert!(
                e.message.contains(what) && e.remedy.contains("16MiB"),
                "{list}: {e}"
            );
        }
        assert_eq!(limits("5,10 %, 60").unwrap(), [5.0, 10.0, 60.0]);
        for list in ["0", "5,5", "40,20", "91", "x", ""] {
            let e = limits(list).unwrap_err();
            assert!(e.remedy.contains("--dirty-limit 5"), "{list}: {e}");
        }
    }

    #[test]
    fn sizes_for_a_trace_end_where_it_fits() {
        for (footprint, first, last) in [
            (975 * MIB, 16 * MIB, 2048 * MIB),
            (900 * MIB, 8 * MIB, 1024 * MIB),
            (4096, MIB, 4 * MIB),
            (0, MIB, 4 * MIB),
            (u64::MAX / 2, 8192 * MIB, crate::adjust::MEMORY_MAX),
        ] {
            let sizes = sizes_for(footprint);
            let got = (sizes[0] as u64, sizes[sizes.len() - 1] as u64);
            assert_eq!(got, (first, last), "{footprint}");
            assert!(sizes.len() <= SIZES);
        }
    }
}

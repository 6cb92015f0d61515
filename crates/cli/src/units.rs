//! Sizes, rates and times as people write them: `64MiB`, `50MB`, `4x`, `5s`.

use serde::{Deserialize, Serialize};
use std::time::Duration;

const BYTE_UNITS: [(&str, u64); 14] = [
    ("b", 1),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("", 1),
];

/// The longest file in whole TiB: a file ends at 2^63 - 1 bytes.
const FILE_BYTES_MAX: u64 = 8_388_607 << 40;

/// Splits `64MiB` into its number and its unit.
fn split(text: &str) -> (&str, String) {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_'))
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim().to_ascii_lowercase())
}

fn number(digits: &str) -> Option<f64> {
    digits
        .replace('_', "")
        .parse()
        .ok()
        .filter(|n: &f64| n.is_finite())
}

/// A number of bytes.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let expected = || {
        format!("{text:?} is no size; expected a number and a unit, such as 64MiB, 4KiB or 50MB")
    };
    let (digits, unit) = split(text);
    let n = number(digits).ok_or_else(expected)?;
    let (_, scale) = BYTE_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(expected)?;
    let bytes = n * *scale as f64;
    if bytes >= u64::MAX as f64 {
        return Err(format!("{text:?} is more bytes than there are"));
    }
    Ok(bytes as u64)
}

/// The share of memory below which dirty memory is kept, in percent.
pub fn parse_dirty_limit(text: &str) -> Result<u8, String> {
    let number = text.trim().trim_end_matches('%').trim_end();
    let percent = number.parse().ok().filter(|p| (1..=90).contains(p));
    percent.ok_or_else(|| {
        format!("{text:?} is no dirty limit; expected 1 to 90, in percent of memory, such as 40")
    })
}

/// What begins the random numbers of a run.
pub fn parse_seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| {
        format!(
            "{text:?} is no seed; expected a whole number from 0 to {}",
            u64::MAX
        )
    })
}

/// A span of time.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected =
        || format!("{text:?} is no time; expected a number and a unit, such as 5s, 500ms or 2m");
    let (digits, unit) = split(text);
    let n = number(digits).ok_or_else(expected)?;
    let seconds = match unit.as_str() {
        "s" | "sec" => n,
        "ms" => n / 1e3,
        "us" | "µs" => n / 1e6,
        "ns" => n / 1e9,
        "m" | "min" => n * 60.0,
        "h" => n * 3_600.0,
        _ => return Err(expected()),
    };
    if seconds > 86_400.0 {
        return Err(format!("{text:?} is more than a day"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Bytes for people: `64 MiB`.
pub fn show_bytes(bytes: u64) -> String {
    let units = [
        ("TiB", 1u64 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    for (name, scale) in units {
        if bytes >= scale {
            let n = bytes as f64 / scale as f64;
            return if (n - n.round()).abs() < 0.05 {
                format!("{n:.0} {name}")
            } else {
                format!("{n:.1} {name}")
            };
        }
    }
    format!("{bytes} B")
}

/// A count for people: 1234 → `1,234`; a million and more → `1.23 M`.
pub fn show_count(n: u64) -> String {
    if n >= 1_000_000_000 {
        return format!("{:.2} G", n as f64 / 1e9);
    }
    if n >= 1_000_000 {
        return format!("{:.2} M", n as f64 / 1e6);
    }
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Operations a second, for people: a few of them have their fractions.
pub fn show_rate(per_s: f64) -> String {
    match per_s {
        r if r > 0.0 && r < 10.0 => format!("{r:.2}"),
        r => show_count(r as u64),
    }
}

/// Microseconds for people, in a unit that keeps three digits.
pub fn show_us(us: f64) -> String {
    if us >= 1e6 {
        format!("{:.2} s", us / 1e6)
    } else if us >= 1e4 {
        format!("{:.1} ms", us / 1e3)
    } else if us >= 1e3 {
        format!("{:.2} ms", us / 1e3)
    } else if us >= 10.0 {
        format!("{us:.0} µs")
    } else {
        format!("{us:.2} µs")
    }
}

/// A number of bytes in a scenario file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bytes(pub u64);

/// A span of time in a scenario file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span(pub Duration);

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{}us", self.0.as_micros()))
    }
}

/// A file's length: bytes, or a multiple of the memory budget.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Size {
    /// Bytes.
    Bytes(u64),
    /// Times the budget.
    Memory(f64),
    /// As long as the traces that are replayed on it need; known once they have been read.
    Trace,
}

impl Size {
    /// In bytes, for a budget of `memory` bytes; whole 64 KiB, so that each frame size divides it.
    pub fn bytes(self, memory: u64) -> u64 {
        let bytes = match self {
            Size::Bytes(b) => b,
            Size::Memory(times) => (memory as f64 * times) as u64,
            Size::Trace => 0,
        };
        bytes.next_multiple_of(64 << 10).max(64 << 10)
    }
}

impl std::str::FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Size, String> {
        if text.trim() == "trace" {
            return Ok(Size::Trace);
        }
        if let Some(times) = text.trim().strip_suffix('x') {
            return match number(times.trim()) {
                Some(n) if n > 0.0 && n <= 4096.0 => Ok(Size::Memory(n)),
                _ => Err(format!(
                    "{text:?} is no multiple of memory; expected for example \"4x\""
                )),
            };
        }
        match parse_bytes(text) {
            Ok(0) => Err(
                "a file of 0 bytes has no pages; expected for example \"4x\" or \"1GiB\""
                    .to_string(),
            ),
            Ok(b) if b > FILE_BYTES_MAX => Err(format!(
                "{text:?} is more than a file may have; expected at most 8388607TiB, such as \"4x\" or \"1GiB\""
            )),
            Ok(b) => Ok(Size::Bytes(b)),
            Err(e) => Err(format!("{e}, or a multiple of memory such as \"4x\"")),
        }
    }
}

macro_rules! from_text {
    ($type:ty, $expected:literal, $parse:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<$type, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expected)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        let parse: fn(&str) -> Result<$type, String> = $parse;
                        parse(text).map_err(E::custom)
                    }
                }
                d.deserialize_str(Text)
            }
        }
    };
}

pub(crate) use from_text;

from_text!(Bytes, "a size in quotes, such as \"64MiB\"", |t| {
    parse_bytes(t).map(Bytes)
});
from_text!(Span, "a time in quotes, such as \"500ms\"", |t| {
    parse_duration(t).map(Span)
});
from_text!(
    Size,
    "a size in quotes, such as \"4x\" (times memory) or \"1GiB\"",
    |t| t.parse()
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("50MB", 50_000_000),
            ("4096", 4096),
            ("1.5KiB", 1536),
            ("2g", 2 << 30),
            ("1t", 1 << 40),
            ("1TB", 1_000_000_000_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "MiB", "12 parsecs", "-4MiB", "1e99", "99999999999TiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1.5h"), Ok(Duration::from_secs(5_400)));
        assert!(parse_duration("5").unwrap_err().contains("5s"));
        assert!(parse_duration("9999999s").is_err());
    }

    #[test]
    fn a_dirty_limit_is_a_share_of_memory() {
        assert_eq!(parse_dirty_limit("40"), Ok(40));
        assert_eq!(parse_dirty_limit(" 90 %"), Ok(90));
        for bad in ["0", "91", "-5", "nan", "64MiB", "", "%"] {
            let why = parse_dirty_limit(bad).unwrap_err();
            assert!(why.contains("1 to 90"), "{bad}: {why}");
        }
    }

    #[test]
    fn a_file_may_be_a_multiple_of_memory() {
        assert_eq!("4x".parse::<Size>().unwrap().bytes(1 << 20), 4 << 20);
        assert_eq!(
            "0.7x".parse::<Size>().unwrap().bytes(10 << 20) % (64 << 10),
            0
        );
        assert!("0x".parse::<Size>().is_err());
        assert!("0".parse::<Size>().is_err());
        let longest = "8388607TiB".parse::<Size>().unwrap().bytes(1 << 20);
        assert!(i64::try_from(longest).is_ok());
        let why = "8388608TiB".parse::<Size>().unwrap_err();
        assert!(why.contains("more than a file may have"), "{why}");
        assert!("many".parse::<Size>().unwrap_err().contains("4x"));
    }

    #[test]
    fn numbers_are_shown_short() {
        assert_eq!(show_count(1_234), "1,234");
        assert_eq!(show_count(999_999), "999,999");
        assert_eq!(show_count(12_345_678), "12.35 M");
        assert_eq!(show_bytes(64 << 20), "64 MiB");
        assert_eq!(show_bytes(1 << 40), "1 TiB");
        let rates = [0.0, 0.504, 9.0, 41_722.9].map(show_rate);
        assert_eq!(rates, ["0", "0.50", "9.00", "41,722"]);
        assert_eq!(show_us(2.346), "2.35 µs");
        assert_eq!(show_us(120_000.0), "120.0 ms");
    }
}

//! A memory budget, as bytes or as a share of what the process may have.

use crate::cgroup::{MemInfo, memory_limit};
use highwater_engine::Error;
use std::fmt;
use std::str::FromStr;

/// A memory budget.
///
/// ```
/// use highwater::Memory;
/// assert_eq!("64MiB".parse(), Ok(Memory::Bytes(64 << 20)));
/// assert_eq!("25%".parse(), Ok(Memory::Share(0.25)));
/// assert_eq!(Memory::from(4096), Memory::Bytes(4096));
/// ```
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Memory {
    /// So many bytes.
    Bytes(u64),
    /// So much of the container's limit, or of the machine's memory where there is none; 1.0 is all of it.
    Share(f64),
}

impl Memory {
    /// The budget in bytes, on this machine and in this container.
    ///
    /// ```
    /// use highwater::Memory;
    /// assert_eq!(Memory::Bytes(1 << 20).to_bytes()?, 1 << 20);
    /// assert!(Memory::Share(0.5).to_bytes()? > 0);
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Config` for a share outside 0..=1, and for more than the process may have.
    pub fn to_bytes(self) -> Result<u64, Error> {
        let machine = MemInfo::read().map_err(|e| Error::os("read /proc/meminfo", &e))?;
        self.of(memory_limit().map_or(machine.total, |limit| limit.min(machine.total)))
    }

    /// The budget in bytes where the process may have `most`.
    fn of(self, most: u64) -> Result<u64, Error> {
        match self {
            Memory::Share(share) if !(share > 0.0 && share <= 1.0) => Err(Error::Config(format!(
                "a memory budget of {}% makes no sense; choose a share above 0% and up to 100%",
                share * 100.0
            ))),
            Memory::Share(share) => Ok((most as f64 * share) as u64),
            Memory::Bytes(bytes) if bytes > most => Err(Error::Config(format!(
                "a memory budget of {} is more than this process may have ({}, from its container's limit or the machine's memory); choose less, or a share such as 25%",
                Bytes(bytes),
                Bytes(most)
            ))),
            Memory::Bytes(bytes) => Ok(bytes),
        }
    }
}

impl From<u64> for Memory {
    fn from(bytes: u64) -> Memory {
        Memory::Bytes(bytes)
    }
}

impl From<u32> for Memory {
    fn from(bytes: u32) -> Memory {
        Memory::Bytes(bytes.into())
    }
}

impl From<usize> for Memory {
    fn from(bytes: usize) -> Memory {
        Memory::Bytes(bytes as u64)
    }
}

impl From<i32> for Memory {
    /// For literals such as `64 << 20`. A negative number is no memory, which no cache takes.
    fn from(bytes: i32) -> Memory {
        Memory::Bytes(bytes.try_into().unwrap_or(0))
    }
}

impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Memory, String> {
        let wrong = || {
            format!(
                "{text:?} is not an amount of memory; write bytes, as in 64MiB, 2GiB or 100000000, or a share, as in 25%"
            )
        };
        let trimmed = text.trim();
        let split = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let factor = match unit.trim().to_ascii_lowercase().as_str() {
            "%" if number > 0.0 && number <= 100.0 => return Ok(Memory::Share(number / 100.0)),
            "" | "b" => 1u64,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(wrong()),
        };
        let bytes = number * factor as f64;
        if bytes >= 2f64.powi(63) {
            return Err(wrong());
        }
        Ok(Memory::Bytes(bytes as u64))
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Memory::Bytes(bytes) => Bytes(*bytes).fmt(f),
            Memory::Share(share) => write!(f, "{}%", share * 100.0),
        }
    }
}

/// Prints a number of bytes in the largest unit that divides it, or to one decimal.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match UNITS.iter().find(|(size, _)| self.0 >= *size) {
            Some((size, unit)) if self.0.is_multiple_of(*size) => {
                write!(f, "{}{unit}", self.0 / size)
            }
            Some((size, unit)) => write!(f, "{:.1}{unit}", self.0 as f64 / *size as f64),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        let bytes = |n| Ok(Memory::Bytes(n));
        for (text, wanted) in [
            ("64MiB", bytes(64 << 20)),
            ("64 mib", bytes(64 << 20)),
            (" 64m ", bytes(64 << 20)),
            ("1.5GiB", bytes(3 << 29)),
            ("2GB", bytes(2_000_000_000)),
            ("4096", bytes(4096)),
            ("0", bytes(0)),
            ("100%", Ok(Memory::Share(1.0))),
            ("12.5 %", Ok(Memory::Share(0.125))),
        ] {
            assert_eq!(text.parse::<Memory>(), wanted, "{text}");
        }
        for text in [
            "",
            "MiB",
            "-5",
            "64XB",
            "0%",
            "101%",
            "1.2.3",
            "99999999999TiB",
            "nan",
        ] {
            let error = text.parse::<Memory>().unwrap_err();
            assert!(error.contains("64MiB"), "{text}: the remedy: {error}");
        }
    }

    #[test]
    fn shares_and_their_limits() {
        assert_eq!(Memory::Share(0.25).of(1000), Ok(250));
        assert_eq!(Memory::Bytes(1000).of(1000), Ok(1000));
        for wrong in [
            Memory::Share(0.0),
            Memory::Share(1.5),
            Memory::Share(f64::NAN),
            Memory::Bytes(1001),
        ] {
            assert!(wrong.of(1000).is_err(), "{wrong}");
        }
    }

    #[test]
    fn printed() {
        assert_eq!(Memory::Bytes(64 << 20).to_string(), "64MiB");
        assert_eq!(Memory::Bytes(1_500_000).to_string(), "1.4MiB");
        assert_eq!(Memory::Bytes(17).to_string(), "17 bytes");
        assert_eq!(Memory::Share(0.25).to_string(), "25%");
    }
}

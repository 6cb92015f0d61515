//! `--jobs`: how many of many seeds run at one time, each on a thread.

use crate::cpu;

/// No command starts more.
const MOST: usize = 1024;

/// The value of `--jobs`.
///
/// # Errors
/// None, or too many.
pub fn parse_jobs(text: &str) -> Result<usize, String> {
    let jobs = text.parse().ok().filter(|n| (1..=MOST).contains(n));
    jobs.ok_or_else(|| format!("expected 1 to {MOST} jobs"))
}

/// As many as were asked for, or one for each CPU.
pub fn jobs(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(cpu::count)
}

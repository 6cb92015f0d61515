//! The claims of the mail, by what they are about.

mod latency;
mod oom;
mod orders;
mod reclaim;
mod stack;

use super::claim::Claim;
use crate::report::ArmReport;

/// All of them, in the order in which the mail comes to them.
pub fn all() -> Vec<Claim> {
    let mut claims = stack::claims();
    claims.extend(oom::claims());
    claims.extend(latency::claims());
    claims.extend(reclaim::claims());
    claims.extend(orders::claims());
    claims
}

/// A counter of the measured time.
fn count(report: &ArmReport, name: &str) -> f64 {
    report.count(name).unwrap_or(0) as f64
}

/// Allocations that failed, and those where the kernel's rule would have called its OOM killer.
fn ooms(report: &ArmReport) -> f64 {
    count(report, "oom_unreclaimable") + count(report, "alloc_refused")
}

/// Pages written by reclaim, whoever did it.
fn written_by_reclaim(report: &ArmReport) -> f64 {
    count(report, "written_direct") + count(report, "written_kswapd")
}

/// The p99.9 of `task` in microseconds; of one that finished nothing while it was measured, a minute, for which it would
/// have been given up.
fn p999(report: &ArmReport, task: &str) -> f64 {
    let found = report.tasks.iter().find(|t| t.name == task && t.ops > 0);
    found.map_or(60e6, |t| t.latency_us.p999)
}

/// Operations of all tasks, at least one.
fn operations(report: &ArmReport) -> f64 {
    report.tasks.iter().map(|t| t.ops).sum::<u64>().max(1) as f64
}

/// The largest share of frames that was dirty or under writeback at one time.
fn unclean_share(report: &ArmReport) -> Result<f64, String> {
    let (Some(samples), Some(limits)) = (&report.samples, &report.limits) else {
        return Err("the run has no samples".into());
    };
    let at = |name: &str, t: usize| {
        samples
            .frames
            .get(name)
            .and_then(Option::as_ref)
            .map_or(0, |v| v[t])
    };
    let unclean = (0..samples.t_s.len()).map(|t| at("dirty", t) + at("writeback", t));
    Ok(unclean.max().unwrap_or(0) as f64 / limits.frames.max(1) as f64)
}

/// `a / b`, and where nothing is divided by nothing, one.
fn ratio(a: f64, b: f64) -> f64 {
    if a == b { 1.0 } else { a / b }
}

#[cfg(test)]
mod tests;

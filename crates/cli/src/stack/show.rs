//! The stacks of a run as text.

use super::report::{StackReport, TaskStack};
use crate::error::{CliError, Result};
use crate::plan::Plan;
use crate::report::{ArmReport, Report};
use crate::units::show_count;
use highwater_lab::stack::Overflow;
use std::fmt::Write;

/// The task that sets up and reports.
const HARNESS: &str = "scenario";

/// The depth of each kind of task, the entry points, and the chain of the deepest, for each arm.
pub fn report(report: &Report) -> String {
    let mut text = format!(
        "\n{}: bytes of stack, deepest task first\n",
        report.scenario
    );
    for arm in &report.arms {
        if let Some(stacks) = &arm.stacks {
            if let Some(overflow) = &stacks.overflow {
                let _ = write!(text, "\n{}: {}", arm.title(), overflow.text);
                continue;
            }
            let _ = write!(text, "\n{}\n{}", arm.title(), tasks(stacks));
            text.push_str(&calls(stacks));
            // The body that reports has a stack of its own size, and little of the engine on it. The flusher's own chain is
            // shown whoever is deeper: what it does on an empty stack, others may do on a used one.
            let chained = stacks.tasks.iter().filter(|t| !t.chain.is_empty());
            let own = |t: &&TaskStack| t.task != HARNESS;
            for (n, task) in chained.filter(own).enumerate() {
                if n == 0 || task.task.starts_with("flush-") {
                    let _ = write!(text, "\n  {}:\n{}", task.task, task.chain_text());
                }
            }
        }
    }
    text
}

fn tasks(stacks: &StackReport) -> String {
    let width = stacks.tasks.iter().map(|t| t.task.len()).max();
    let width = width.unwrap_or(0).max(4);
    let mut text = format!(
        "  {:width$} {:>7} {:>8} {:>8} {:>8}  entry\n",
        "task", "threads", "deepest", "of", "engine"
    );
    for t in &stacks.tasks {
        let deepest = match t.at_least {
            true => format!(">={}", t.deepest),
            false => t.deepest.to_string(),
        };
        let engine = t.engine.map_or("-".into(), |n| n.to_string());
        let entry = t.entry.as_deref().unwrap_or("-");
        let _ = writeln!(
            text,
            "  {:width$} {:>7} {deepest:>8} {:>8} {engine:>8}  {}",
            t.task,
            t.threads,
            t.size,
            short(entry)
        );
    }
    text
}

/// A function's name that fits on a line.
fn short(name: &str) -> String {
    match name.char_indices().nth(90) {
        Some((at, _)) => format!("{}...", &name[..at]),
        None => name.to_owned(),
    }
}

fn calls(stacks: &StackReport) -> String {
    let mut text = String::new();
    for c in &stacks.calls {
        let calls = show_count(c.calls);
        let _ = writeln!(
            text,
            "  {}: {} bytes below its caller, {calls} calls",
            c.entry, c.deepest
        );
    }
    text
}

/// The arms that ended with an overflow.
///
/// # Errors
/// When there are some.
pub fn verdict(report: &Report) -> Result<()> {
    let over = |a: &&ArmReport| a.stacks.as_ref().is_some_and(|s| s.overflow.is_some());
    let arms: Vec<String> = report
        .arms
        .iter()
        .filter(over)
        .map(ArmReport::title)
        .collect();
    if arms.is_empty() {
        return Ok(());
    }
    Err(CliError::failed(
        format!("a stack overflowed: {}", arms.join(", ")),
        "a larger --stack, or the presets whose chains are shorter",
    ))
}

/// The finding that a stack was too small.
pub fn overflowed(plan: &Plan, overflow: &Overflow) -> CliError {
    let size = overflow.size.next_multiple_of(4096) * 2;
    CliError::failed(
        format!("{}: {overflow}", plan.arm.title()),
        format!(
            "--stack {}KiB, or a preset whose chains are shorter",
            size >> 10
        ),
    )
}

/// The deepest of many runs: each kind with its seed.
pub fn deepest(rows: &[(String, Vec<(TaskStack, u64)>)], seeds: u64, size: Option<u64>) -> String {
    let mut text = String::new();
    let on = size.map_or(String::new(), |n| format!(" on stacks of {n} bytes"));
    let _ = writeln!(text, "{seeds} seeds{on}: no overflow");
    for (arm, kinds) in rows {
        let _ = writeln!(text, "\n{arm}");
        for (t, seed) in kinds {
            let _ = writeln!(
                text,
                "  {:16} {:>7} bytes at most (seed {seed})",
                t.task, t.deepest
            );
        }
    }
    text
}

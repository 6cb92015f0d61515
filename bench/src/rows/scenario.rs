//! Scenarios: run by the command `highwater`, built by the cargo that runs the bench, read from its JSON.

use super::Bench;
use crate::Outcome;
use crate::expect::{self, Expect, SCENARIOS};
use crate::row::{Goal, Row, Unit};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A stall below this in a round of seconds is none: a wait or two of a scheduler's length.
const STALL_MIN_S: f64 = 0.001;
/// The default preset.
const PRESET: &str = "highwater";

/// Builds the command and finds where cargo put it.
fn build() -> Outcome<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo)
        .args([
            "build",
            "--release",
            "-p",
            "highwater-cli",
            "--message-format=json",
        ])
        .current_dir(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| ".".into()))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cargo: {e}; start the bench by cargo run"))?;
    if !out.status.success() {
        return Err("the command highwater does not build; see cargo's messages above".into());
    }
    let text = String::from_utf8_lossy(&out.stdout);
    let messages = text
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).ok());
    messages
        .filter_map(|m| m["executable"].as_str().map(PathBuf::from))
        .find(|p| p.file_stem().is_some_and(|s| s == "highwater"))
        .ok_or_else(|| "cargo named no executable; start the bench by cargo run".into())
}

/// One run: the arms of its report.
fn run(bench: &mut Bench, name: &str, world: &str, raw: bool) -> Outcome<Vec<Value>> {
    let command = match &bench.command {
        Some(path) => path.clone(),
        None => build()?,
    };
    bench.command = Some(command.clone());
    let json = bench.place.dir().join("report.json");
    let (_, length) = bench.args.scenario_rounds();
    let mut call = Command::new(command);
    call.args(["run", name, "--world", world, "--preset", PRESET])
        .arg("--duration")
        .arg(format!("{}ms", length.as_millis()))
        .arg("--seed")
        .arg(bench.args.seed.to_string())
        .arg("--dir")
        .arg(bench.place.dir())
        .arg("--json")
        .arg(&json);
    if raw {
        call.arg("--raw");
    }
    let out = call.stdin(Stdio::null()).output()?;
    if !out.status.success() {
        let why = String::from_utf8_lossy(&out.stderr);
        let last = why.lines().rev().find(|l| !l.trim().is_empty());
        return Err(format!(
            "highwater run {name} failed: {}",
            last.unwrap_or("no message")
        )
        .into());
    }
    let report: Value = serde_json::from_slice(&std::fs::read(&json)?)?;
    Ok(report["arms"].as_array().cloned().unwrap_or_default())
}

fn arm<'a>(arms: &'a [Value], world: &str) -> Outcome<&'a Value> {
    arms.iter()
        .find(|a| a["world"].as_str().is_some_and(|w| w.starts_with(world)))
        .ok_or_else(|| {
            format!("highwater ran no arm in the world {world}; see: highwater run --world {world}")
                .into()
        })
}

fn number(v: &Value) -> f64 {
    v.as_f64().unwrap_or(0.0)
}

/// The numbers of one arm over all rounds.
#[derive(Default)]
struct Side {
    ops: Vec<f64>,
    with_sync: Vec<f64>,
    p999: BTreeMap<String, Vec<f64>>,
    /// Missing where a round did not know it.
    stall: Option<Vec<f64>>,
    longest_ms: Vec<f64>,
}

impl Side {
    fn add(&mut self, arm: &Value) {
        self.ops.push(number(&arm["ops_per_s"]));
        self.with_sync.push(number(&arm["ops_per_s_with_sync"]));
        for task in arm["tasks"].as_array().into_iter().flatten() {
            let name = task["name"].as_str().unwrap_or("?").to_string();
            self.p999
                .entry(name)
                .or_default()
                .push(number(&task["latency_us"]["p999"]));
        }
        let stall = &arm["stall_s"];
        self.longest_ms.push(number(&stall["longest"]) * 1e3);
        let both = stall["alloc"].as_f64().zip(stall["throttle"].as_f64());
        let first = self.ops.len() == 1;
        self.stall = match (both, self.stall.take()) {
            (Some((alloc, throttle)), known) if first || known.is_some() => {
                let sum = alloc + throttle;
                let mut known = known.unwrap_or_default();
                known.push(if sum < STALL_MIN_S { 0.0 } else { sum });
                Some(known)
            }
            _ => None,
        };
    }
}

/// Medians of the rows of raw random writes, as a note.
fn raw_note(arms: &[Value]) -> Option<String> {
    let rows: Vec<String> = (arms.iter())
        .filter(|a| a["world"].as_str().is_some_and(|w| w.starts_with("raw")))
        .map(|a| {
            format!(
                "{} {:.0}/s",
                a["preset"].as_str().unwrap_or("?"),
                number(&a["ops_per_s"])
            )
        })
        .collect();
    (!rows.is_empty()).then(|| format!("raw random 4 KiB writes, one round: {}", rows.join(", ")))
}

fn ratio(unit: Unit, prediction: f64) -> Expect {
    Expect {
        what: "",
        unit,
        prediction,
        goal: Goal::Ratio(1.0),
    }
}

fn row(group: &str, what: String, expect: Expect, own: &[f64], peer: &[f64]) -> Row {
    let mut row = Row::new(group, &expect, own.to_vec()).peer("linux", peer.to_vec());
    row.what = what;
    row
}

/// Rows of a scenario beside Linux.
///
/// # Errors
/// Without the right to make a cgroup.
pub fn against_linux(bench: &mut Bench, name: &'static str) -> Outcome<Vec<Row>> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs a memory cgroup for Linux's side; run it as root".into());
    }
    let expected = (SCENARIOS.iter().find(|s| s.name == name)).ok_or("no such scenario")?;
    let (rounds, length) = bench.args.scenario_rounds();
    let (mut own, mut linux) = (Side::default(), Side::default());
    let (mut label, mut raw) = (String::new(), None);
    for round in 0..rounds {
        let last = round + 1 == rounds;
        // In turn, and each second round the other way round.
        let world = if round % 2 == 0 {
            "os,linux"
        } else {
            "linux,os"
        };
        let arms = run(bench, name, world, last)?;
        own.add(arm(&arms, "os")?);
        let peer = arm(&arms, "linux")?;
        label = peer["world"].as_str().unwrap_or("linux").to_string();
        linux.add(peer);
        raw = raw_note(&arms).or(raw);
    }
    let mut first = row(
        name,
        format!("{name}: operations, final sync included"),
        ratio(Unit::OpsPerS, expected.ops),
        &own.with_sync,
        &linux.with_sync,
    )
    .note(format!(
        "peer is {label}; rounds of {:.0} s after the scenario's own warm-up; budget 64 MiB",
        length.as_secs_f64()
    ));
    first.notes.extend(raw);
    let mut rows = vec![
        first,
        row(
            name,
            format!("{name}: operations"),
            ratio(Unit::OpsPerS, expected.ops),
            &own.ops,
            &linux.ops,
        ),
    ];
    for (task, own) in &own.p999 {
        let peer = linux
            .p999
            .get(task)
            .ok_or("the arms have different tasks")?;
        let what = format!("{name}: p99.9 of {task}");
        rows.push(row(name, what, ratio(Unit::Us, expected.p999), own, peer));
    }
    let what = format!("{name}: seconds stalled");
    rows.push(match (&own.stall, &linux.stall) {
        (Some(own_stall), Some(peer)) => {
            let longest = |side: &Side| side.longest_ms.iter().copied().fold(0.0, f64::max);
            row(
                name,
                what,
                ratio(Unit::Seconds, expected.stall),
                own_stall,
                peer,
            )
            .note(format!(
                "memory and throttle, summed over tasks; longest wait {:.1} ms, {label} {:.1} ms",
                longest(&own),
                longest(&linux)
            ))
        }
        _ => Row::skipped(
            name,
            "seconds stalled",
            "Linux's tracepoints cannot be read; mount tracefs",
        ),
    });
    Ok(rows)
}

fn count(arm: &Value, name: &str) -> f64 {
    number(&arm["vmstat"][name])
}

/// Mebibytes above the budget that the process used at its peak.
fn excess_mib(arm: &Value, memory: f64) -> f64 {
    let used = number(&arm["peak_rss_bytes"]) - number(&arm["idle_rss_bytes"]);
    (used - memory) / f64::from(1 << 20)
}

/// Pages scanned per page reclaimed on a slow disk.
pub fn slow_disk(bench: &mut Bench, name: &'static str) -> Outcome<Vec<Row>> {
    let mut rounds = Vec::new();
    for _ in 0..bench.args.scenario_rounds().0 {
        let arms = run(bench, name, "os", false)?;
        let arm = arm(&arms, "os")?;
        let both = |what: &str| {
            count(arm, &format!("{what}_kswapd")) + count(arm, &format!("{what}_direct"))
        };
        rounds.push(both("pgscan") / both("pgsteal").max(1.0));
    }
    Ok(vec![Row::new(name, &expect::SLOW_DISK, rounds)])
}

/// Pages that the wrong ones wrote, and peak memory.
pub fn rfc(bench: &mut Bench, name: &'static str) -> Outcome<Vec<Row>> {
    /// The budget of the built-in scenario.
    const MEMORY: f64 = 64.0 * 1048576.0;
    let (mut written, mut excess) = (Vec::new(), Vec::new());
    for _ in 0..bench.args.scenario_rounds().0 {
        let arms = run(bench, name, "os", false)?;
        let arm = arm(&arms, "os")?;
        let by = |who: &str| number(&arm["written_pages"][who]);
        written.push(by("direct") + by("kswapd") + by("writer"));
        excess.push(excess_mib(arm, MEMORY));
    }
    Ok(vec![
        Row::new(name, &expect::RFC, written),
        Row::new(name, &expect::PEAK, excess).note("the process of the arm in `rfc`: VmHWM less VmHWM before the cache was built, less 64 MiB"),
    ])
}

//! From a scenario's replay tasks to what a child needs: the trace found and read, the file as long as it must be.

use super::scan::{self, Spot, Summary, scan};
use super::{Format, Select};
use crate::error::{CliError, Result};
use crate::scenario::{FileSpec, Kind, Scenario, TaskSpec};
use crate::units::{Size, Span, show_bytes};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No file is made longer for a trace's sake: a larger offset is a damaged trace, or wants `beyond`.
const EXTENT_MAX: u64 = 8 << 40;

/// How many times as fast as its own times a trace may be replayed.
pub(super) const SPEEDS: std::ops::RangeInclusive<f64> = 1e-6..=1e6;
pub(super) const SPEED_EXPECTED: &str = "expected how many times as fast, from 0.000001 to 1000000";

/// How long a trace is replayed at the most, unless something is said or its own times take longer.
pub(super) const AN_HOUR: Duration = Duration::from_secs(3_600);

/// How fast a trace is replayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// As fast as one outstanding request for each thread allows.
    #[default]
    Closed,
    /// At the times of the trace, divided by `speed`.
    Timestamps,
}

/// What becomes of a request beyond the file's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Beyond {
    /// An error that names it.
    #[default]
    Refuse,
    /// It is moved into the file: its offset modulo the file's length.
    Wrap,
    /// It is counted and left out.
    Skip,
}

/// A replay, as the child needs it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PlanReplay {
    /// The trace.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// Which requests.
    pub select: Select,
    /// How many times as fast as the trace's own times; none: a closed loop.
    pub speed: Option<f64>,
    /// What becomes of requests beyond the file's end.
    pub beyond: Beyond,
    /// From the start again at the trace's end.
    pub repeat: bool,
    /// The time of the first record.
    pub first_ns: u64,
    /// From there to the latest.
    pub span_ns: u64,
    /// Its requests, of any kind.
    pub records: u64,
    /// Its bad lines, which are left out.
    pub bad_lines: u64,
    /// Bytes of the pages of 4 KiB that it reads or writes.
    pub footprint: u64,
}

impl PlanReplay {
    /// How long its own times take, at the speed asked for; nothing in a closed loop.
    fn time(&self) -> Duration {
        let seconds = |speed: f64| self.span_ns as f64 / 1e9 / speed;
        Duration::try_from_secs_f64(self.speed.map_or(0.0, seconds)).unwrap_or(Duration::MAX)
    }
}

/// Gives a scenario whose traces have been read the time that their own times take, and an hour for what comes late.
pub fn whole_traces(scenario: &mut Scenario) {
    let replays = scenario.tasks.iter().filter_map(|t| t.replay.as_ref());
    let longest = replays.map(PlanReplay::time).max().unwrap_or_default();
    // Virtual time is counted in nanoseconds of 64 bits.
    let most = Duration::from_secs(100 * 365 * 86_400);
    scenario.duration = Span(longest.min(most).saturating_add(AN_HOUR));
}

/// What is wrong with a task's keys of a replay, if anything: the part that needs no trace.
pub fn problem(task: &TaskSpec) -> Option<String> {
    let keys = [
        ("trace", task.trace.is_some()),
        ("format", task.format.is_some()),
        ("pace", task.pace.is_some()),
        ("speed", task.speed.is_some()),
        ("beyond", task.beyond.is_some()),
        ("repeat", task.repeat.is_some()),
        ("disk", task.disk.is_some()),
        ("action", task.action.is_some()),
    ];
    if task.kind != Kind::Replay {
        let (key, _) = keys.iter().find(|(_, is)| *is)?;
        return Some(format!("{key} belongs to kind = \"replay\""));
    }
    if task.trace.is_none() {
        return Some("kind = \"replay\" needs trace = \"PATH\"".into());
    }
    if let Some(format) = &task.format
        && let Err(why) = format.parse::<Format>()
    {
        return Some(format!("format: {why}"));
    }
    if task.speed.is_some() && task.pace != Some(Pace::Timestamps) {
        return Some("speed belongs to pace = \"timestamps\"".into());
    }
    if task.speed.is_some_and(|s| !SPEEDS.contains(&s)) {
        return Some(format!("speed: {SPEED_EXPECTED}"));
    }
    if task.rate.is_some() || task.think.is_some() || task.fsync_every.is_some() {
        return Some(
            "rate, think and fsync_every do not belong to kind = \"replay\": the trace says when, and what is synced"
                .into(),
        );
    }
    None
}

/// Reads the traces of the scenario that came from `origin`, and gives its files their length. The notes are for the user.
///
/// # Errors
/// A trace that cannot be read or has no request; with `strict`, a bad line; a request beyond the file's end.
pub fn resolve(scenario: &mut Scenario, origin: &str, strict: bool) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let memory = scenario.memory.0;
    for task in scenario.tasks.iter_mut().filter(|t| t.kind == Kind::Replay) {
        let name = task.file.get_ref().clone();
        // SCEN-1: the file is declared.
        let file = scenario.files.get_mut(&name).expect("SCEN-1");
        let path = find(origin, task.trace.as_deref().unwrap_or_default())?;
        let limit = match file.size {
            Size::Trace => None,
            size => Some(size.bytes(memory)),
        };
        let options = scan::Options {
            format: task.format.as_deref().and_then(|f| f.parse().ok()),
            select: Select {
                disk: task.disk.clone(),
                action: task.action.clone(),
            },
            strict,
            limit,
        };
        let summary = scan(&path, &options)?;
        let beyond = task.beyond.unwrap_or_default();
        match (limit, summary.beyond) {
            (Some(limit), Some(spot)) if beyond == Beyond::Refuse => {
                return Err(outside(&path, &summary, &spot, &name, limit));
            }
            (None, _) => fit_file(&path, file, &summary)?,
            _ => {}
        }
        notes.extend(summary.notes(&path));
        if task.pace == Some(Pace::Timestamps) {
            let doubts = summary.doubts().into_iter();
            notes.extend(doubts.map(|doubt| format!("{}: {doubt}", path.display())));
        }
        if task.disk.is_none() && summary.disks.len() > 1 {
            notes.push(format!(
                "{}: requests of {} disks go to the one file {name:?}; disk = {:?} (--disk) takes one",
                path.display(),
                summary.disks.len(),
                summary.disks[0]
            ));
        }
        task.replay = Some(PlanReplay {
            path,
            format: summary.format,
            select: options.select,
            speed: (task.pace == Some(Pace::Timestamps)).then(|| task.speed.unwrap_or(1.0)),
            beyond,
            repeat: task.repeat.unwrap_or(false),
            first_ns: summary.first_ns,
            span_ns: summary.span_ns(),
            records: summary.records(),
            bad_lines: summary.bad,
            footprint: summary.touched.bytes(),
        });
    }
    // Files for traces keep `Size::Trace` until here, so that several tasks can share one.
    for file in scenario.files.values_mut() {
        if let (Size::Trace, Some(grown)) = (file.size, file.trace) {
            file.size = Size::Bytes(grown.len);
        }
    }
    Ok(notes)
}

/// What traces need of a file with `size = "trace"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Grown {
    /// Its length.
    pub len: u64,
    /// Bytes of the blocks that are written.
    pub blocks: u64,
}

/// A sparse file as long as the trace needs.
fn fit_file(path: &Path, file: &mut FileSpec, summary: &Summary) -> Result<()> {
    if let Some(spot) = summary.furthest
        && summary.extent() > EXTENT_MAX
    {
        return Err(CliError::usage(
            format!(
                "{}:{}: offset {} + {} bytes needs a file of {}: expected at most {}",
                path.display(),
                spot.line,
                spot.record.offset,
                spot.record.len,
                show_bytes(summary.extent()),
                show_bytes(EXTENT_MAX)
            ),
            "repair the line; or a file with a size, and beyond = \"wrap\" or \"skip\"",
        ));
    }
    let grown = file.trace.get_or_insert_default();
    grown.len = grown.len.max(summary.extent()).max(1);
    grown.blocks += summary.written.bytes();
    file.sparse = true;
    Ok(())
}

/// A trace beside the scenario, or else from the current directory.
fn find(origin: &str, trace: &str) -> Result<PathBuf> {
    let beside = Path::new(origin)
        .parent()
        .unwrap_or(Path::new(""))
        .join(trace);
    let candidates = [beside, PathBuf::from(trace)];
    if let Some(found) = candidates.iter().find(|p| p.exists()) {
        // The child starts in the same directory, but a symbolic link may change until then.
        return Ok(found.clone());
    }
    let [beside, here] = &candidates;
    let mut places = format!("{}", beside.display());
    if beside != here {
        places.push_str(&format!(" nor {}", here.display()));
    }
    Err(CliError::usage(
        format!("there is no trace {places}"),
        "the path of a trace; in a scenario, trace = \"PATH\" is relative to its file or to the current directory",
    ))
}

fn outside(path: &Path, summary: &Summary, spot: &Spot, file: &str, limit: u64) -> CliError {
    const GIB: u64 = 1 << 30;
    let extent = summary.extent();
    let size = if extent >= GIB {
        format!("{}GiB", extent.div_ceil(GIB))
    } else {
        format!("{}KiB", extent.div_ceil(1024))
    };
    CliError::usage(
        format!(
            "{}:{}: offset {} + {} bytes lies beyond the end of the file {file:?}, which has {limit} bytes ({})",
            path.display(),
            spot.line,
            spot.record.offset,
            spot.record.len,
            show_bytes(limit)
        ),
        format!(
            "files.{file}.size (--size) = \"{size}\" or \"trace\" (as long as the trace needs); or beyond (--beyond) = \"wrap\" or \"skip\" in \
             the task"
        ),
    )
}

//! `highwater trace info TRACE`.

use super::Select;
use super::args::{TraceCommand, TraceInfoArgs};
use super::scan::{self, Summary, scan};
use crate::error::Result;
use crate::outputs;
use crate::units::{show_bytes, show_count, show_us};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Runs it.
///
/// # Errors
/// The trace's.
pub fn trace(what: &TraceCommand) -> Result<()> {
    let TraceCommand::Info(TraceInfoArgs { trace: args, json }) = what;
    let options = scan::Options {
        format: args.select.format,
        select: Select {
            disk: args.select.disk.clone(),
            action: args.select.action.clone(),
        },
        strict: args.select.strict,
        limit: None,
    };
    let summary = scan(&args.trace, &options)?;
    let text = info(&args.trace, &summary);
    outputs::publish(&text, &Found::new(&args.trace, &summary), json.as_deref())
}

/// The shape of `trace info --json`.
#[derive(Debug, Serialize)]
struct Found<'a> {
    trace: String,
    format: &'static str,
    lines: u64,
    requests: u64,
    reads: u64,
    writes: u64,
    discards: u64,
    flushes: u64,
    preflushes: u64,
    fua_writes: u64,
    read_bytes: u64,
    written_bytes: u64,
    span_ns: u64,
    backwards: u64,
    footprint_bytes: u64,
    written_footprint_bytes: u64,
    /// There was no room to count all pages of the footprints.
    footprint_at_least: bool,
    file_bytes: u64,
    disks: &'a [String],
    skipped_lines: &'a BTreeMap<&'static str, u64>,
    bad_lines: u64,
}

impl<'a> Found<'a> {
    fn new(path: &Path, s: &'a Summary) -> Found<'a> {
        let [reads, writes, discards, flushes] = s.ops;
        let [preflushes, fua_writes] = s.barriers;
        Found {
            trace: path.display().to_string(),
            format: s.format.name(),
            lines: s.lines,
            requests: s.records(),
            reads,
            writes,
            discards,
            flushes,
            preflushes,
            fua_writes,
            read_bytes: s.bytes[0],
            written_bytes: s.bytes[1],
            span_ns: s.span_ns(),
            backwards: s.backwards,
            footprint_bytes: s.touched.bytes(),
            written_footprint_bytes: s.written.bytes(),
            footprint_at_least: s.touched.at_least,
            file_bytes: s.extent(),
            disks: &s.disks,
            skipped_lines: &s.skipped,
            bad_lines: s.bad,
        }
    }
}

/// A trace in a few lines.
fn info(path: &Path, s: &Summary) -> String {
    let [reads, writes, discards, flushes] = s.ops;
    let mut out = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<12}{value}");
    };
    row("trace", path.display().to_string());
    row("format", s.format.name().to_string());
    row(
        "requests",
        format!(
            "{} in {} lines: {} reads, {} writes, {} discards, {} flushes",
            show_count(s.records()),
            show_count(s.lines),
            show_count(reads),
            show_count(writes),
            show_count(discards),
            show_count(flushes)
        ),
    );
    let [preflushes, fua] = s.barriers;
    if preflushes + fua > 0 {
        row(
            "durable",
            format!(
                "{} writes through to the disk (FUA), {} with a flush before them",
                show_count(fua),
                show_count(preflushes)
            ),
        );
    }
    row(
        "bytes",
        format!(
            "{} read, {} written",
            show_bytes(s.bytes[0]),
            show_bytes(s.bytes[1])
        ),
    );
    row("time", show_us(s.span_ns() as f64 / 1e3));
    for doubt in s.doubts() {
        row("", doubt);
    }
    let more = if s.touched.at_least { "at least " } else { "" };
    row(
        "footprint",
        format!(
            "{more}{} in pages of 4 KiB, {} of them written",
            show_bytes(s.touched.bytes()),
            show_bytes(s.written.bytes())
        ),
    );
    row(
        "file",
        format!("{} bytes ({})", s.extent(), show_bytes(s.extent())),
    );
    if !s.disks.is_empty() {
        row("disks", s.disks.join(", "));
    }
    for (kind, n) in &s.skipped {
        row("skipped", format!("{}: {kind}", show_count(*n)));
    }
    row("bad lines", show_count(s.bad));
    for named in &s.named {
        row("", named.clone());
    }
    out
}

//! Traces of block requests as a task: what a line of each format means, what a whole trace needs, and how it is replayed.
//!
//! The parent reads a trace once ([`scan`]): format, bad lines, the bytes that it addresses. The child gets the path, not
//! the records, and reads it again as it replays, so that a trace of any length needs the memory of one line.
//!
//! **Invariants.** TRACE-1: no input makes a parser panic, and a record that it returns has `offset + len <= 2^63 - 1` and,
//! for reads and writes, `1 <= len <= IO_MAX`. TRACE-2: each line is a record, skipped by kind, or bad and named: none is
//! lost without a count.
//!
//! **Tests.** Each format beside its parser; `tests.rs` for all of them together; `tests/replay.rs` for the command.

mod args;
mod blkparse;
mod cloudphysics;
mod command;
mod fio;
mod info;
mod lines;
mod msr;
mod report;
mod resolve;
mod run;
mod scan;
mod source;
#[cfg(test)]
mod tests;

pub use args::{FORMATS, PlayArgs, ReplayArgs, SelectArgs, TraceCommand};
pub use command::{replay, scenario_of};
pub use info::trace;
pub use report::{ReplayReport, report, sentences};
pub use resolve::{Beyond, Grown, Pace, PlanReplay, problem, resolve, whole_traces};
pub use run::{ReplayTally, run};
pub use source::Source;

use crate::error::did_you_mean;
use serde::{Deserialize, Serialize};

/// No read or write moves more bytes: a larger number is a damaged line.
pub const IO_MAX: u64 = 1 << 30;
/// Offsets are positive in the kernel's signed type.
const END_MAX: u64 = i64::MAX as u64;

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Reads bytes.
    Read,
    /// Writes bytes.
    Write,
    /// Gives blocks back.
    Discard,
    /// Makes what was written durable.
    Flush,
}

/// What a request asks of durability beside its own bytes: the flags of a disk's request (`blkparse`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Barrier {
    /// What was written before is durable before the request begins (REQ_PREFLUSH).
    pub preflush: bool,
    /// A write's own bytes are durable when it ends (REQ_FUA, forced unit access).
    pub fua: bool,
}

/// One request of a trace, whatever the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// When, in nanoseconds from the format's own zero.
    pub time_ns: u64,
    /// The first byte.
    pub offset: u64,
    /// Bytes from there.
    pub len: u64,
    /// What.
    pub op: Op,
    /// And what else becomes durable.
    pub barrier: Barrier,
}

impl Record {
    /// A record whose numbers keep TRACE-1.
    fn new(time_ns: u64, op: Op, offset: u64, len: u64) -> Result<Record, String> {
        let moves = matches!(op, Op::Read | Op::Write);
        if moves && len == 0 {
            return Err("a request of 0 bytes moves nothing".into());
        }
        if moves && len > IO_MAX {
            return Err(format!(
                "a request of {len} bytes: expected at most {IO_MAX}"
            ));
        }
        match offset.checked_add(len) {
            Some(end) if end <= END_MAX => Ok(Record {
                time_ns,
                offset,
                len,
                op,
                barrier: Barrier::default(),
            }),
            _ => Err(format!(
                "offset {offset} + {len} bytes is beyond any file: expected less than 2^63"
            )),
        }
    }
}

/// What a line of a trace is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// A request.
    Record(Record),
    /// No request, and meant so: a header, another action. The word says which, for the count.
    Skip(&'static str),
    /// Nothing that the format knows; why.
    Bad(String),
}

impl From<Result<Record, String>> for Line {
    fn from(result: Result<Record, String>) -> Line {
        match result {
            Ok(record) => Line::Record(record),
            Err(why) => Line::Bad(why),
        }
    }
}

/// A trace's format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `version,time,op,size,lbn`.
    CloudPhysics,
    /// `Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime`.
    Msr,
    /// `fio version 2 iolog` or `fio version 3 iolog`.
    Fio,
    /// The text of `blkparse`.
    Blkparse,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 4] = [
        Format::CloudPhysics,
        Format::Msr,
        Format::Fio,
        Format::Blkparse,
    ];

    /// As `format = "..."` has it.
    pub fn name(self) -> &'static str {
        match self {
            Format::CloudPhysics => "cloudphysics",
            Format::Msr => "msr",
            Format::Fio => "fio",
            Format::Blkparse => "blkparse",
        }
    }

    /// What a line of it looks like, for errors.
    fn shape(self) -> &'static str {
        match self {
            Format::CloudPhysics => "version,time,op,size,lbn",
            Format::Msr => "Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime",
            Format::Fio => "\"fio version 2 iolog\" or \"fio version 3 iolog\" as the first line",
            Format::Blkparse => {
                "8,0 1 3 0.000001 697 Q W 223490 + 8 [name], as `blkparse` prints without -f"
            }
        }
    }
}

impl std::str::FromStr for Format {
    type Err = String;
    fn from_str(text: &str) -> Result<Format, String> {
        let names = Self::ALL.map(Format::name);
        let found = Self::ALL.into_iter().find(|f| f.name() == text);
        found.ok_or_else(|| {
            let hint = did_you_mean(text, names)
                .map_or(String::new(), |near| format!(" (did you mean {near}?)"));
            format!(
                "unknown trace format {text:?}{hint}, expected one of {}",
                names.join(", ")
            )
        })
    }
}

/// Which of a trace's requests are replayed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Select {
    /// Only this disk's (`blkparse`: `8,0`; `msr`: `usr.0`; `fio`: the file's name).
    pub disk: Option<String>,
    /// The action whose lines count (`blkparse`): `Q` when nothing is said.
    pub action: Option<String>,
}

/// Reads lines of one format, in order.
pub struct Parser {
    select: Select,
    kind: Kind,
    /// The disks seen, the first few.
    disks: Vec<String>,
}

enum Kind {
    CloudPhysics,
    Msr,
    Fio(fio::State),
    Blkparse(blkparse::State),
}

/// So many names of disks are kept.
const DISKS_MAX: usize = 16;

impl Parser {
    /// A parser at the start of a trace.
    pub fn new(format: Format, select: Select) -> Parser {
        let kind = match format {
            Format::CloudPhysics => Kind::CloudPhysics,
            Format::Msr => Kind::Msr,
            Format::Fio => Kind::Fio(fio::State::default()),
            Format::Blkparse => Kind::Blkparse(blkparse::State::default()),
        };
        Parser {
            select,
            kind,
            disks: Vec::new(),
        }
    }

    /// What the next line is; `bytes` without its line end.
    pub fn line(&mut self, bytes: &[u8]) -> Line {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Line::Bad("not text (invalid UTF-8)".into());
        };
        if text.contains('\0') {
            return Line::Bad("not text (a zero byte)".into());
        }
        let text = text.trim();
        if text.is_empty() {
            return Line::Skip("empty lines");
        }
        let wanted = self.select.disk.as_deref();
        let (line, disk) = match &mut self.kind {
            Kind::CloudPhysics => (cloudphysics::line(text), None),
            Kind::Msr => msr::line(text),
            Kind::Fio(state) => state.line(text),
            Kind::Blkparse(state) => state.line(text, self.select.action.as_deref().unwrap_or("Q")),
        };
        let (Line::Record(_), Some(disk)) = (&line, disk) else {
            return line;
        };
        if !self.disks.iter().any(|d| disk.is(d)) && self.disks.len() < DISKS_MAX {
            self.disks.push(disk.name());
        }
        match wanted {
            Some(wanted) if !disk.is(wanted) => Line::Skip("requests of other disks"),
            _ => line,
        }
    }

    /// The disks seen so far, the first 16.
    pub fn disks(&self) -> &[String] {
        &self.disks
    }
}

/// A disk as a line names it; put together only when it is kept.
#[derive(Clone, Copy, Debug)]
struct Disk<'a>(&'a str, Option<&'a str>);

impl Disk<'_> {
    fn is(&self, name: &str) -> bool {
        match self.1 {
            None => name == self.0,
            Some(number) => name
                .strip_prefix(self.0)
                .and_then(|rest| rest.strip_prefix('.'))
                .is_some_and(|rest| rest == number),
        }
    }
    fn name(&self) -> String {
        match self.1 {
            None => self.0.to_string(),
            Some(number) => format!("{}.{number}", self.0),
        }
    }
}

/// A whole number of a field, or what is wrong with it.
fn number(name: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|e: std::num::ParseIntError| {
        let text: String = text.chars().take(40).collect();
        match e.kind() {
            std::num::IntErrorKind::PosOverflow => {
                format!("{name} {text:?} is larger than 64 bits")
            }
            _ => format!("{name} {text:?} is no whole number"),
        }
    })
}

/// `n` times `scale`, or that it is too large.
fn scaled(name: &str, n: u64, scale: u64) -> Result<u64, String> {
    n.checked_mul(scale)
        .ok_or_else(|| format!("{name} {n} is too large"))
}

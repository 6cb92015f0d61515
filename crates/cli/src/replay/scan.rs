//! A whole trace, read once before anything runs: what it needs, and what is wrong with it.

use super::lines::{Lines, detect, parse, unreadable};
use super::{Format, Line, Op, Parser, Record, Select};
use crate::counted::Seldom;
use crate::error::{CliError, Result};
use crate::units::{show_bytes, show_count, show_us};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;

/// So many bad lines are named.
const NAMED_MAX: usize = 5;
/// Bytes of a page of the footprint.
const PAGE: u64 = 4096;
/// Pages of one bitmap: 16 MiB of the file.
const MAP_PAGES: u64 = 4096;
/// More requests a second than this, over so many requests, were made by no disk.
const DOUBT_PER_S: u64 = 10_000_000;
const DOUBT_MIN: u64 = 1_000;
/// Bitmaps of one footprint: 64 MiB of memory, 1 TiB of a file that is touched everywhere.
const MAPS_MAX: usize = 1 << 16;

/// A place in a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spot {
    /// The line, from 1.
    pub line: u64,
    /// What it asks for.
    pub record: Record,
}

/// What a trace holds.
#[derive(Clone, PartialEq, Debug)]
pub struct Summary {
    /// Its format.
    pub format: Format,
    /// Lines.
    pub lines: u64,
    /// Reads, writes, discards, flushes.
    pub ops: [u64; 4],
    /// Writes with a flush before them, and writes that are durable when they end.
    pub barriers: [u64; 2],
    /// Bytes read and bytes written.
    pub bytes: [u64; 2],
    /// Lines that are no requests, by kind.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Bad lines.
    pub bad: u64,
    /// The first of them, with their place.
    pub named: Vec<String>,
    /// The time of the first record.
    pub first_ns: u64,
    /// The latest time.
    pub last_ns: u64,
    /// Requests that are earlier than one before them.
    pub backwards: u64,
    /// The read or write that ends last.
    pub furthest: Option<Spot>,
    /// The first read or write that ends beyond the limit that was asked about.
    pub beyond: Option<Spot>,
    /// Bytes of the pages of 4 KiB that are read or written.
    pub touched: Footprint,
    /// Bytes of the pages of 4 KiB that are written.
    pub written: Footprint,
    /// The disks that are named, the first 16.
    pub disks: Vec<String>,
}

impl Summary {
    /// Requests of any kind.
    pub fn records(&self) -> u64 {
        self.ops.iter().sum()
    }
    /// The length of a file that holds every read and write.
    pub fn extent(&self) -> u64 {
        self.furthest.map_or(0, |s| s.record.offset + s.record.len)
    }
    /// From the first record to the latest.
    pub fn span_ns(&self) -> u64 {
        self.last_ns - self.first_ns
    }
}

/// Which pages are touched, in bounded memory.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Footprint {
    maps: BTreeMap<u64, Box<[u64; (MAP_PAGES / 64) as usize]>>,
    pages: u64,
    /// Some pages had no room and are not counted.
    pub at_least: bool,
}

impl Footprint {
    /// Bytes.
    pub fn bytes(&self) -> u64 {
        self.pages * PAGE
    }

    fn add(&mut self, offset: u64, len: u64) {
        let (mut page, last) = (offset / PAGE, (offset + len - 1) / PAGE);
        while page <= last {
            let map = page / MAP_PAGES;
            let end = last.min(map * MAP_PAGES + MAP_PAGES - 1);
            if !self.maps.contains_key(&map) && self.maps.len() >= MAPS_MAX {
                self.at_least = true;
            } else {
                let bits = self
                    .maps
                    .entry(map)
                    .or_insert_with(|| Box::new([0; (MAP_PAGES / 64) as usize]));
                for p in page..=end {
                    let (word, bit) = ((p % MAP_PAGES / 64) as usize, 1u64 << (p % 64));
                    self.pages += u64::from(bits[word] & bit == 0);
                    bits[word] |= bit;
                }
            }
            page = end + 1;
        }
    }
}

/// What to look for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The format, if it is not to be found out.
    pub format: Option<Format>,
    /// Which requests.
    pub select: Select,
    /// The first bad line is an error.
    pub strict: bool,
    /// The length of the file that the requests must lie in, if there is one already.
    pub limit: Option<u64>,
}

/// Reads the whole trace.
///
/// # Errors
/// As [`detect`]; with `strict` the first bad line; a trace without a request.
pub fn scan(path: &Path, options: &Options) -> Result<Summary> {
    let format = detect(path, options.format)?;
    selectable(path, format, &options.select)?;
    let mut lines = Lines::open(path).map_err(|e| unreadable(path, &e))?;
    let mut parser = Parser::new(format, options.select.clone());
    let mut s = Summary {
        format,
        lines: 0,
        ops: [0; 4],
        barriers: [0; 2],
        bytes: [0; 2],
        skipped: BTreeMap::new(),
        bad: 0,
        named: Vec::new(),
        first_ns: 0,
        last_ns: 0,
        backwards: 0,
        furthest: None,
        beyond: None,
        touched: Footprint::default(),
        written: Footprint::default(),
        disks: Vec::new(),
    };
    let progress = Progress::new(path);
    loop {
        let line = match lines.next() {
            Ok(Some(next)) => parse(&mut parser, next),
            Ok(None) => break,
            Err(e) => return Err(unreadable(path, &e)),
        };
        s.lines = lines.number;
        match line {
            Line::Record(record) => s.add(record, options.limit),
            Line::Skip(kind) => *s.skipped.entry(kind).or_default() += 1,
            Line::Bad(why) => s.add_bad(path, &why, options.strict)?,
        }
        if lines.number.is_multiple_of(1 << 16) {
            progress.at(lines.bytes);
        }
    }
    s.disks = parser.disks().to_vec();
    if s.records() == 0 {
        return Err(nothing(path, &s, &options.select));
    }
    Ok(s)
}

/// Refuses to select by what lines of the format do not say: such a selection would select everything.
fn selectable(path: &Path, format: Format, select: &Select) -> Result<()> {
    let refused = |what: &str, key: &str, whose: &str| {
        Err(CliError::usage(
            format!(
                "{}: lines of format {} name no {what}: {key} selects nothing in them",
                path.display(),
                format.name()
            ),
            format!("leave {key} (--{key}) out; it is for {whose}"),
        ))
    };
    if select.disk.is_some() && format == Format::CloudPhysics {
        return refused("disk", "disk", "msr, fio and blkparse");
    }
    if select.action.is_some() && format != Format::Blkparse {
        return refused("action", "action", "blkparse");
    }
    Ok(())
}

impl Summary {
    /// What speaks against the times: for those who replay at them.
    pub fn doubts(&self) -> Vec<String> {
        let backwards = (self.backwards > 0).then(|| {
            format!(
                "requests that are earlier than one before them: {}; they come in their turn, and so too late",
                show_count(self.backwards)
            )
        });
        self.doubt().into_iter().chain(backwards).collect()
    }

    /// Times that cannot be meant so.
    fn doubt(&self) -> Option<String> {
        let (n, span) = (self.records(), self.span_ns());
        if span == 0 || n < DOUBT_MIN || n.saturating_mul(1_000_000_000) / span < DOUBT_PER_S {
            return None;
        }
        Some(format!(
            "{} requests within {} are more than disks do: the times may be in a larger unit than the format's; a speed of \
             0.000001 takes microseconds for seconds, 0.001 for milliseconds",
            show_count(n),
            show_us(span as f64 / 1e3)
        ))
    }

    fn add(&mut self, record: Record, limit: Option<u64>) {
        if self.records() == 0 {
            (self.first_ns, self.last_ns) = (record.time_ns, record.time_ns);
        }
        self.backwards += u64::from(record.time_ns < self.last_ns);
        self.last_ns = self.last_ns.max(record.time_ns);
        self.ops[record.op as usize] += 1;
        self.barriers[0] += u64::from(record.barrier.preflush);
        self.barriers[1] += u64::from(record.barrier.fua);
        if !matches!(record.op, Op::Read | Op::Write) {
            return;
        }
        let spot = Spot {
            line: self.lines,
            record,
        };
        let end = record.offset + record.len;
        if end > self.extent() {
            self.furthest = Some(spot);
        }
        if self.beyond.is_none() && limit.is_some_and(|l| end > l) {
            self.beyond = Some(spot);
        }
        self.bytes[record.op as usize] += record.len;
        self.touched.add(record.offset, record.len);
        if record.op == Op::Write {
            self.written.add(record.offset, record.len);
        }
    }

    fn add_bad(&mut self, path: &Path, why: &str, strict: bool) -> Result<()> {
        let text = format!("{}:{}: {why}", path.display(), self.lines);
        if strict {
            return Err(CliError::usage(
                text,
                "repair or remove the line; without --strict such lines are counted and left out",
            ));
        }
        self.bad += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(text);
        }
        Ok(())
    }

    /// What the user should know of the lines that are left out.
    pub fn notes(&self, path: &Path) -> Vec<String> {
        let mut notes = self.named.clone();
        if self.bad > 0 {
            notes.push(format!(
                "{}: {} of {} lines are bad and left out (--strict refuses them)",
                path.display(),
                self.bad,
                self.lines
            ));
        }
        notes
    }
}

fn nothing(path: &Path, s: &Summary, select: &Select) -> CliError {
    let show = path.display();
    if let Some(disk) = &select.disk
        && !s.disks.is_empty()
    {
        return CliError::usage(
            format!("{show}: no request of disk {disk:?}"),
            format!("disk = one of {}", s.disks.join(", ")),
        );
    }
    let skipped: u64 = s.skipped.values().sum();
    let mut text = format!(
        "{show}: no request in {} lines of format {} ({} bad, {skipped} skipped)",
        s.lines,
        s.format.name(),
        s.bad
    );
    for named in &s.named {
        text.push_str(&format!("\n  {named}"));
    }
    for (kind, n) in &s.skipped {
        text.push_str(&format!("\n  {n} lines: {kind}"));
    }
    let remedy = match s.format {
        Format::Blkparse if skipped > 0 => {
            "--action with an action that the trace has, such as D or C"
        }
        _ => "another --format, or a trace with at least one request",
    };
    CliError::usage(text, remedy)
}

/// A bar, where there is a terminal and the trace is long; else a line now and then.
struct Progress {
    bar: Option<ProgressBar>,
    seldom: Seldom,
    len: u64,
}

impl Progress {
    fn new(path: &Path) -> Progress {
        let len = std::fs::metadata(path).map_or(0, |m| m.len());
        let mut progress = Progress {
            bar: None,
            seldom: Seldom::new(),
            len,
        };
        if len < 32 << 20 || !std::io::stderr().is_terminal() {
            return progress;
        }
        let bar = ProgressBar::new(len);
        if let Ok(style) =
            ProgressStyle::with_template("reading the trace {bar:30} {bytes}/{total_bytes} {eta}")
        {
            bar.set_style(style);
        }
        progress.bar = Some(bar);
        progress
    }
    fn at(&self, bytes: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(bytes),
            None if self.seldom.due() => {
                let (done, all) = (show_bytes(bytes), show_bytes(self.len));
                say!("reading the trace: {done} of {all}");
            }
            None => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

//! The lines of a file, one at a time, in bounded memory; and which format they are in.

use super::{Format, Line, Parser, Select, fio};
use crate::error::{CliError, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// A longer line is no request: it is skipped as a whole.
const LINE_MAX: usize = 64 << 10;
/// Lines that decide about the format.
const HEAD_LINES: usize = 200;
/// Bytes that decide whether a file is text, and about the format.
const HEAD_BYTES: u64 = 256 << 10;

/// A line, or that it was too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next<'a> {
    /// Without its line end.
    Line(&'a [u8]),
    /// Longer than 64 KiB.
    TooLong,
}

/// Reads a file line by line.
pub struct Lines {
    file: BufReader<File>,
    line: Vec<u8>,
    /// The number of the line that `next` returned last, from 1.
    pub number: u64,
    /// Bytes read.
    pub bytes: u64,
}

impl Lines {
    /// Opens `path` at its start.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn open(path: &Path) -> std::io::Result<Lines> {
        let file = File::open(path)?;
        Ok(Lines {
            file: BufReader::with_capacity(256 << 10, file),
            line: Vec::new(),
            number: 0,
            bytes: 0,
        })
    }

    /// The next line; none at the end.
    ///
    /// # Errors
    /// What the operating system answers.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> std::io::Result<Option<Next<'_>>> {
        self.line.clear();
        let limit = LINE_MAX as u64 + 1;
        let n = self
            .file
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut self.line)?;
        if n == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.bytes += n as u64;
        if n as u64 == limit && self.line.last() != Some(&b'\n') {
            self.skip_rest()?;
            return Ok(Some(Next::TooLong));
        }
        while let Some(b'\n' | b'\r') = self.line.last() {
            self.line.pop();
        }
        let line = match self.number {
            1 => without_mark(&self.line),
            _ => &self.line[..],
        };
        Ok(Some(Next::Line(line)))
    }

    fn skip_rest(&mut self) -> std::io::Result<()> {
        loop {
            let buffer = self.file.fill_buf()?;
            let (n, end) = match buffer.iter().position(|b| *b == b'\n') {
                Some(at) => (at + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            };
            self.file.consume(n);
            self.bytes += n as u64;
            if end {
                return Ok(());
            }
        }
    }
}

/// A text without the byte order mark that spreadsheets begin one with.
fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// What the parser says of a line.
pub fn parse(parser: &mut Parser, next: Next<'_>) -> Line {
    match next {
        Next::Line(bytes) => parser.line(bytes),
        Next::TooLong => Line::Bad("longer than 64 KiB".into()),
    }
}

const REMEDY_FILE: &str =
    "a trace that you may read: `highwater trace --help` says which formats there are";

/// What the operating system said about the trace.
pub fn unreadable(path: &Path, e: &std::io::Error) -> CliError {
    CliError::usage(
        format!("cannot read the trace {}: {e}", path.display()),
        REMEDY_FILE,
    )
}

/// Refuses what is no text file with something in it, and finds its format by content unless it is given.
///
/// # Errors
/// A file that is missing, unreadable, a directory, empty, binary, or of no known format.
pub fn detect(path: &Path, forced: Option<Format>) -> Result<Format> {
    let show = path.display();
    let io = |e| unreadable(path, &e);
    let meta = std::fs::metadata(path).map_err(io)?;
    if meta.is_dir() {
        return Err(CliError::usage(
            format!("the trace {show} is a directory"),
            "the path of one trace file in it",
        ));
    }
    if !meta.is_file() {
        return Err(CliError::usage(
            format!(
                "the trace {show} is a pipe or a device: it is read twice, and can be read once"
            ),
            "write it to a file first, and replay that",
        ));
    }
    let mut head = Vec::new();
    let file = File::open(path).map_err(io)?;
    file.take(HEAD_BYTES).read_to_end(&mut head).map_err(io)?;
    let head = without_mark(&head);
    if head.iter().all(u8::is_ascii_whitespace) {
        return Err(CliError::usage(
            format!("the trace {show} is empty"),
            "a trace with at least one request: `highwater trace info FILE` looks into one",
        ));
    }
    if let Some(at) = binary_at(head) {
        let remedy = match head {
            [0x1f, 0x8b, ..] => "unpack it first: gzip -dc TRACE.gz > TRACE",
            [0x28, 0xb5, 0x2f, 0xfd, ..] => "unpack it first: zstd -dc TRACE.zst > TRACE",
            [0xfd, b'7', b'z', b'X', b'Z', ..] => "unpack it first: xz -dc TRACE.xz > TRACE",
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
                "write it as UTF-8 first: iconv -f UTF-16 -t UTF-8 TRACE > TRACE.utf8"
            }
            _ => "a trace in text: for blktrace's binary files, `blkparse -i NAME > TRACE`",
        };
        return Err(CliError::usage(
            format!("the trace {show} is binary: byte {at} is no text"),
            remedy,
        ));
    }
    match forced.or_else(|| by_content(head)) {
        Some(format) => Ok(format),
        None => Err(unknown(path, head)),
    }
}

/// The first byte that text does not have; a character cut by the end of the head is none.
fn binary_at(head: &[u8]) -> Option<usize> {
    if let Some(at) = head.iter().position(|b| *b == 0) {
        return Some(at);
    }
    // Later damage is a bad line; a file that begins with it is of another kind.
    let first = head.split(|b| *b == b'\n').next().unwrap_or(head);
    match std::str::from_utf8(first) {
        Err(e) if e.error_len().is_some() => Some(e.valid_up_to()),
        _ => None,
    }
}

/// The format that understands most of the first lines.
fn by_content(head: &[u8]) -> Option<Format> {
    let lines = || head.split(|b| *b == b'\n').take(HEAD_LINES);
    let first = lines().find(|l| !l.trim_ascii().is_empty())?;
    if std::str::from_utf8(first)
        .ok()
        .and_then(fio::version)
        .is_some()
    {
        return Some(Format::Fio);
    }
    let understood = |format: Format| {
        let mut parser = Parser::new(format, Select::default());
        let known = |line: &&[u8]| match parser.line(line) {
            Line::Record(_) => true,
            Line::Skip(kind) => kind != "empty lines",
            Line::Bad(_) => false,
        };
        lines().filter(known).count()
    };
    Format::ALL
        .into_iter()
        .map(|f| (understood(f), f))
        .filter(|(n, _)| *n > 0)
        .max_by_key(|(n, _)| *n)
        .map(|(_, f)| f)
}

fn unknown(path: &Path, head: &[u8]) -> CliError {
    let first = head
        .split(|b| *b == b'\n')
        .find(|l| !l.trim_ascii().is_empty());
    let first = String::from_utf8_lossy(first.unwrap_or_default());
    let first: String = first.trim().chars().take(60).collect();
    let shapes = Format::ALL.map(|f| format!("\n  {:<13}{}", f.name(), f.shape()));
    CliError::usage(
        format!(
            "{}: no trace of a known format; it begins with {first:?}, expected one of{}",
            path.display(),
            shapes.concat()
        ),
        "convert it to one of them; format = \"...\" (--format) forces one, and names what is wrong in each line",
    )
}

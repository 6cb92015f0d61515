//! The iolog of fio, versions 2 and 3.
//!
//! The first line is `fio version 2 iolog` or `fio version 3 iolog`. Version 2: `filename action` with `add`, `open`,
//! `close`, or `filename action offset length` with `read`, `write`, `sync`, `datasync`, `trim` and `wait` (`offset` is then
//! the microseconds to wait; below 100 it is discarded). Version 3 puts a timestamp in microseconds since the trace's start
//! before the filename, and has no `wait`. What fio writes (`--write_iolog`) has `sync_file_range` and `syncfs` as well.
//! Source: fio's HOWTO, "Trace file format v2" and "v3"; the names of directions are those of its io_ddir.h.

use super::{Disk, Line, Op, Record, number, scaled};

/// Waits below this many microseconds are discarded, as fio does.
const WAIT_MIN_US: u64 = 100;

/// What earlier lines have said.
#[derive(Default)]
pub struct State {
    /// 2 or 3, once the first line has been read.
    version: u8,
    /// The sum of the waits (version 2), in nanoseconds.
    clock_ns: u64,
}

/// The version that a first line names.
pub fn version(text: &str) -> Option<u8> {
    match text.trim() {
        "fio version 2 iolog" => Some(2),
        "fio version 3 iolog" => Some(3),
        _ => None,
    }
}

impl State {
    /// What a line is, and of which file.
    pub fn line<'a>(&mut self, text: &'a str) -> (Line, Option<Disk<'a>>) {
        if let Some(version) = version(text) {
            // Logs of several jobs, one after the other, each have their own.
            self.version = version;
            return (Line::Skip("headers"), None);
        }
        self.parse(text)
            .unwrap_or_else(|why| (Line::Bad(why), None))
    }

    fn parse<'a>(&mut self, text: &'a str) -> Result<(Line, Option<Disk<'a>>), String> {
        let mut words = text.split_whitespace();
        let time_ns = match self.version {
            2 => self.clock_ns,
            3 => {
                let time = words.next().unwrap_or_default();
                scaled("timestamp", number("timestamp", time)?, 1_000)?
            }
            _ => {
                return Err(
                    "before the first line of an iolog, which is \"fio version 2 iolog\" or 3"
                        .into(),
                );
            }
        };
        let (Some(name), Some(action)) = (words.next(), words.next()) else {
            return Err("expected a filename and an action".into());
        };
        let op = match action {
            "add" | "open" | "close" => return Ok((Line::Skip("add, open, close"), None)),
            "read" => Op::Read,
            "write" => Op::Write,
            "sync" | "datasync" | "syncfs" => Op::Flush,
            // It starts writes and makes nothing durable.
            "sync_file_range" => return Ok((Line::Skip("sync_file_range"), None)),
            "trim" => Op::Discard,
            "wait" => return self.wait(words.next()),
            _ => {
                let action: String = action.chars().take(16).collect();
                return Err(format!(
                    "action {action:?}: expected read, write, sync, datasync, trim, wait, add, open or close"
                ));
            }
        };
        let (offset, len) = match (words.next(), words.next(), words.next()) {
            (Some(offset), Some(len), None) => (number("offset", offset)?, number("length", len)?),
            _ => return Err(format!("{action}: expected an offset and a length")),
        };
        let record = match op {
            // A sync's place means nothing.
            Op::Flush => Record::new(time_ns, op, 0, 0)?,
            _ => Record::new(time_ns, op, offset, len)?,
        };
        Ok((Line::Record(record), Some(Disk(name, None))))
    }

    fn wait<'a>(&mut self, us: Option<&str>) -> Result<(Line, Option<Disk<'a>>), String> {
        if self.version == 3 {
            return Err("wait does not exist in version 3, whose lines have timestamps".into());
        }
        let us = number("wait", us.unwrap_or_default())?;
        if us >= WAIT_MIN_US {
            let wait = scaled("wait", us, 1_000)?;
            let sum = self.clock_ns.checked_add(wait);
            self.clock_ns = sum.ok_or_else(|| format!("wait {us} is too large"))?;
        }
        Ok((Line::Skip("waits"), None))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Barrier;
    use super::*;

    fn read(text: &str) -> Vec<Line> {
        let mut state = State::default();
        text.lines().map(|l| state.line(l).0).collect()
    }

    fn record(time_ns: u64, op: Op, offset: u64, len: u64) -> Line {
        Line::Record(Record {
            time_ns,
            offset,
            len,
            op,
            barrier: Barrier::default(),
        })
    }

    #[test]
    fn version_2_has_waits_and_version_3_timestamps() {
        let two = "fio version 2 iolog\n/dev/sdb add\n/dev/sdb open\n/dev/sdb write 4096 8192\n/dev/sdb wait 99 0\n\
                   /dev/sdb wait 1500 0\n/dev/sdb read 0 512\n/dev/sdb datasync 0 0\n/dev/sdb trim 0 4096\n/dev/sdb close\n";
        let skip = Line::Skip;
        assert_eq!(
            read(two),
            [
                skip("headers"),
                skip("add, open, close"),
                skip("add, open, close"),
                record(0, Op::Write, 4096, 8192),
                skip("waits"),
                skip("waits"),
                record(1_500_000, Op::Read, 0, 512),
                record(1_500_000, Op::Flush, 0, 0),
                record(1_500_000, Op::Discard, 0, 4096),
                skip("add, open, close"),
            ]
        );
        let three = "fio version 3 iolog\n0 /f add\n7 /f open\n250 /f read 512 512\n260 /f sync_file_range 0 4096\n270 /f syncfs 0 0\n";
        assert_eq!(
            read(three)[3..],
            [
                record(250_000, Op::Read, 512, 512),
                skip("sync_file_range"),
                record(270_000, Op::Flush, 0, 0),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let one = |text: &str| match read(text).pop() {
            Some(Line::Bad(why)) => why,
            other => panic!("{text}: {other:?}"),
        };
        assert!(one("/f read 0 512").contains("fio version"));
        let two = "fio version 2 iolog\n";
        assert!(one(&format!("{two}/f raed 0 512")).contains("action \"raed\""));
        assert!(one(&format!("{two}/f read 0")).contains("an offset and a length"));
        assert!(one(&format!("{two}/f read 0 0")).contains("0 bytes"));
        assert!(one(&format!("{two}/f")).contains("a filename and an action"));
        assert!(one(&format!("{two}/f wait soon")).contains("wait \"soon\""));
        assert!(one(&format!("{two}/f wait 18446744073709551615")).contains("too large"));
        let three = "fio version 3 iolog\n";
        assert!(one(&format!("{three}1 /f wait 100 0")).contains("version 3"));
        assert!(one(&format!("{three}/f read 0 512")).contains("timestamp"));
    }
}

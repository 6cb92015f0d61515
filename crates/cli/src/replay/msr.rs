//! The CSV of the MSR Cambridge traces: `Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime`.
//!
//! `Timestamp` is a Windows filetime (100 ns since 1601), `Type` is `Read` or `Write`, `Offset` and `Size` are in bytes.
//! Source: Narayanan, Donnelly, Rowstron, "Write Off-Loading: Practical Power Management for Enterprise Storage", FAST
//! 2008, and the README of the SNIA IOTTA trace 388.

use super::{Disk, Line, Op, Record, number, scaled};

const COLUMNS: &str = "Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime";

/// What a line is, and of which disk.
pub fn line(text: &str) -> (Line, Option<Disk<'_>>) {
    if text.eq_ignore_ascii_case(COLUMNS) {
        return (Line::Skip("headers"), None);
    }
    match parse(text) {
        Ok((record, disk)) => (Line::Record(record), Some(disk)),
        Err(why) => (Line::Bad(why), None),
    }
}

fn parse(text: &str) -> Result<(Record, Disk<'_>), String> {
    let mut fields = text.split(',').map(str::trim);
    let mut next = || fields.next();
    let (
        Some(time),
        Some(host),
        Some(disk),
        Some(op),
        Some(offset),
        Some(size),
        Some(response),
        None,
    ) = (
        next(),
        next(),
        next(),
        next(),
        next(),
        next(),
        next(),
        next(),
    )
    else {
        let n = text.split(',').count();
        return Err(format!("{n} fields: expected 7 ({COLUMNS})"));
    };
    let time_ns = scaled("Timestamp", number("Timestamp", time)?, 100)?;
    number("DiskNumber", disk)?;
    let op = if op.eq_ignore_ascii_case("read") {
        Op::Read
    } else if op.eq_ignore_ascii_case("write") {
        Op::Write
    } else {
        let op: String = op.chars().take(16).collect();
        return Err(format!("Type {op:?}: expected Read or Write"));
    };
    let (offset, len) = (number("Offset", offset)?, number("Size", size)?);
    number("ResponseTime", response)?;
    let record = Record::new(time_ns, op, offset, len)?;
    Ok((record, Disk(host, Some(disk))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(text: &str) -> String {
        match line(text).0 {
            Line::Bad(why) => why,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_line_of_the_traces_is_read() {
        let (got, disk) = line("128166372003061629,usr,0,Read,7014609920,24576,41286");
        let expect = Record {
            time_ns: 12_816_637_200_306_162_900,
            offset: 7_014_609_920,
            len: 24_576,
            op: Op::Read,
            barrier: Default::default(),
        };
        assert_eq!(got, Line::Record(expect));
        let disk = disk.unwrap();
        assert_eq!(disk.name(), "usr.0");
        assert!(disk.is("usr.0") && !disk.is("usr.1") && !disk.is("usr"));
        assert_eq!(line(COLUMNS).0, Line::Skip("headers"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(bad("1,usr,0,Erase,0,512,1").contains("expected Read or Write"));
        assert!(bad("1,usr,0,Read,0,512").contains("6 fields: expected 7"));
        assert!(bad("1,usr,x,Read,0,512,1").contains("DiskNumber"));
        assert!(bad("1,usr,0,Read,0,0,1").contains("0 bytes"));
        assert!(bad("1,usr,0,Read,9223372036854775807,512,1").contains("beyond any file"));
        assert!(bad("999999999999999999,usr,0,Read,0,512,1").contains("too large"));
        assert!(bad("1,usr,0,Read,0,512,later").contains("ResponseTime"));
    }
}

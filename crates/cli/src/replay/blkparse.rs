//! The text that `blkparse` prints by default: `8,0 1 3 0.000001 697 Q W 223490 + 8 [kjournald]`.
//!
//! Columns: device, CPU, sequence, seconds, process, action, RWBS, first sector `+` sectors, process name. Sectors have 512
//! bytes. RWBS: `R`, `W`, `D` (discard) or `N` (no data), with `F` before it (flush first) and `F` (forced unit access), `A`
//! (readahead), `S` (somebody waits for it), `M` (metadata) after it. Only the two `F` make anything durable.
//! Only one action's lines are requests (`Q`, queued, unless another is chosen): one request passes through several.
//! Source: blktrace's blkparse(1), "Default output" and "Action identifiers".

use super::{Barrier, Disk, Line, Op, Record, number, scaled};

const SECTOR: u64 = 512;

/// What earlier lines have said.
#[derive(Default)]
pub struct State {
    /// Inside the summary that `blkparse` prints at the end (`CPU0 (8,0):`, `Total (8,0):`).
    summary: bool,
}

impl State {
    /// What a line is, and of which device; lines of `action` are requests.
    pub fn line<'a>(&mut self, text: &'a str, action: &str) -> (Line, Option<Disk<'a>>) {
        let mut words = text.split_whitespace();
        let first = words.next().unwrap_or_default();
        if is_device(first) {
            self.summary = false;
            return match parse(words, action) {
                Ok(Line::Record(record)) => (Line::Record(record), Some(Disk(first, None))),
                Ok(line) => (line, None),
                Err(why) => (Line::Bad(why), None),
            };
        }
        let head = first.starts_with("CPU") || first == "Total";
        if self.summary || (head && text.ends_with("):")) {
            self.summary = true;
            return (Line::Skip("summary lines"), None);
        }
        let first: String = first.chars().take(16).collect();
        let why = format!("{first:?} is no device: expected major,minor such as 8,0");
        (Line::Bad(why), None)
    }
}

fn is_device(word: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    word.split_once(',')
        .is_some_and(|(major, minor)| digits(major) && digits(minor))
}

fn parse<'a>(mut words: impl Iterator<Item = &'a str>, action: &str) -> Result<Line, String> {
    let mut next = || words.next();
    let (Some(cpu), Some(_sequence), Some(time), Some(_process), Some(is)) =
        (next(), next(), next(), next(), next())
    else {
        return Err("cut short: expected device, CPU, sequence, time, process and action".into());
    };
    number("CPU", cpu)?;
    let time_ns = seconds(time)?;
    if is != action {
        return Ok(Line::Skip(kind_of(is)));
    }
    let rwbs = next().ok_or("no RWBS field after the action")?;
    let op = operation(rwbs).ok_or_else(|| {
        let rwbs: String = rwbs.chars().take(16).collect();
        format!("RWBS {rwbs:?}: expected letters of RWDNFASME")
    })?;
    let place = match next() {
        Some(first) if !first.starts_with(['[', '(']) => Some(first),
        _ => None,
    };
    let sectors = match (place, next()) {
        (Some(_), Some("+")) => Some(next().unwrap_or_default()),
        // A command of bytes in hexadecimal, and its length: `R 36 (12 00 ..) [hald]`.
        (Some(_), Some(word)) if word.starts_with('(') => {
            return Ok(Line::Skip("commands passed through"));
        }
        _ => None,
    };
    let (Some(place), Some(sectors)) = (place, sectors) else {
        // A flush has no sectors; other requests without data move nothing.
        return if rwbs.contains('F') {
            Ok(Record::new(time_ns, Op::Flush, 0, 0).into())
        } else if op.is_none() {
            Ok(Line::Skip("requests without data"))
        } else {
            Err("no sectors: expected for example 223490 + 8".into())
        };
    };
    let Some(op) = op else {
        return Ok(Line::Skip("requests without data"));
    };
    let offset = scaled("sector", number("sector", place)?, SECTOR)?;
    let len = scaled("sectors", number("sectors", sectors)?, SECTOR)?;
    if len == 0 && rwbs.contains('F') {
        return Ok(Record::new(time_ns, Op::Flush, 0, 0).into());
    }
    let record = Record::new(time_ns, op, offset, len);
    let barrier = barrier(rwbs, op);
    Ok(record.map(|r| Record { barrier, ..r }).into())
}

/// The two `F` of a write, by their place; other requests carry none.
fn barrier(rwbs: &str, op: Op) -> Barrier {
    if op != Op::Write {
        return Barrier::default();
    }
    let (before, after) = rwbs.split_once('W').unwrap_or((rwbs, ""));
    Barrier {
        preflush: before.contains('F'),
        fua: after.contains('F'),
    }
}

/// `Some(None)` for what moves no data; none for what no RWBS field has.
fn operation(rwbs: &str) -> Option<Option<Op>> {
    if rwbs.is_empty() || !rwbs.bytes().all(|b| b"RWDNFASMEB".contains(&b)) {
        return None;
    }
    // The letter after a leading F (flush first) says what; an F after it is forced unit access.
    let what = rwbs.trim_start_matches('F');
    Some(match what.bytes().next() {
        Some(b'R') => Some(Op::Read),
        Some(b'W') => Some(Op::Write),
        Some(b'D' | b'E') => Some(Op::Discard),
        _ => None,
    })
}

/// Seconds with a fraction of up to nine digits, in nanoseconds, without passing through floating point.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || {
        let text: String = text.chars().take(40).collect();
        format!("time {text:?} is no number of seconds")
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let digits: u64 = fraction.parse().map_err(|_| wrong())?;
    let fraction_ns = digits * 10u64.pow(9 - fraction.len() as u32);
    let ns = whole.checked_mul(1_000_000_000);
    ns.and_then(|ns| ns.checked_add(fraction_ns))
        .ok_or_else(wrong)
}

/// The count that lines of another action go to.
fn kind_of(action: &str) -> &'static str {
    match action {
        "Q" => "action Q (queued)",
        "G" => "action G (got a request)",
        "I" => "action I (inserted)",
        "D" => "action D (issued)",
        "C" => "action C (completed)",
        "M" | "F" => "actions M, F (merged)",
        "P" | "U" | "UT" => "actions P, U (plugged, unplugged)",
        "A" | "X" => "actions A, X (remapped, split)",
        "m" => "messages",
        _ => "other actions",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Line {
        State::default().line(text, "Q").0
    }
    fn record(op: Op, offset: u64, len: u64) -> Line {
        Line::Record(Record {
            time_ns: 1_000,
            offset,
            len,
            op,
            barrier: Barrier::default(),
        })
    }
    fn bad(text: &str) -> String {
        match one(text) {
            Line::Bad(why) => why,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn queued_requests_are_read_and_the_rest_is_counted_by_kind() {
        let head = "  8,0    1        3     0.000001000   697";
        let q = |rest: &str| one(&format!("{head}  {rest}"));
        let at = 223_490 * 512;
        assert_eq!(
            q("Q   W 223490 + 8 [kjournald]"),
            record(Op::Write, at, 4096)
        );
        assert_eq!(q("Q  RA 223490 + 8 [cat]"), record(Op::Read, at, 4096));
        assert_eq!(
            q("Q   D 0 + 2048 [fstrim]"),
            record(Op::Discard, 0, 1 << 20)
        );
        assert_eq!(q("Q FWS [jbd2/sda1-8]"), record(Op::Flush, 0, 0));
        assert_eq!(q("Q   N [hald]"), Line::Skip("requests without data"));
        for rwbs in ["R", "N"] {
            let passed = q(&format!("Q   {rwbs} 36 (12 00 00 00 24 00 ..) [hald]"));
            assert_eq!(passed, Line::Skip("commands passed through"));
        }
        assert_eq!(
            q("C   W 223490 + 8 [0]"),
            Line::Skip("action C (completed)")
        );
        assert_eq!(
            q("U   N [kblockd/1] 1"),
            Line::Skip("actions P, U (plugged, unplugged)")
        );
        assert_eq!(q("m   N cfq697 insert_request"), Line::Skip("messages"));
        let done = State::default()
            .line(&format!("{head}  C   W 8 + 8 [0]"), "C")
            .0;
        assert_eq!(done, record(Op::Write, 4096, 4096));
    }

    #[test]
    fn a_write_is_durable_by_the_f_behind_it_and_what_was_before_by_the_f_before_it() {
        let of = |rwbs: &str| match one(&format!("8,0 1 3 0.5 697 Q {rwbs} 8 + 8 [jbd2]")) {
            Line::Record(r) => (r.op, r.barrier.preflush, r.barrier.fua),
            other => panic!("{rwbs}: {other:?}"),
        };
        for (rwbs, preflush, fua) in [
            ("W", false, false),
            // Somebody waits for it, and it may still be in the disk's cache.
            ("WS", false, false),
            ("WSM", false, false),
            ("FWS", true, false),
            ("WFS", false, true),
            ("FWFSM", true, true),
        ] {
            assert_eq!(of(rwbs), (Op::Write, preflush, fua), "{rwbs}");
        }
        assert_eq!(of("FRF"), (Op::Read, false, false));
    }

    #[test]
    fn the_summary_at_the_end_is_ignored_and_rubbish_before_it_is_not() {
        let mut state = State::default();
        let mut kind = |text: &str| state.line(text, "Q").0;
        assert!(matches!(kind("Reads Queued:  0"), Line::Bad(_)));
        assert!(matches!(
            kind("8,0 1 3 0.5 697 Q W 8 + 8 [a]"),
            Line::Record(_)
        ));
        for text in [
            "CPU0 (8,0):",
            " Reads Queued:    0,   0KiB",
            "Total (8,0):",
            "Events (8,0): 1 entries",
        ] {
            assert_eq!(kind(text), Line::Skip("summary lines"), "{text}");
        }
        assert!(matches!(
            kind("8,16 1 3 0.5 697 Q R 8 + 8 [a]"),
            Line::Record(_)
        ));
        assert!(matches!(kind("Skips: 0 forward"), Line::Bad(_)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(bad("8,0 1 3 0.1").contains("cut short"));
        assert!(bad("8,0 1 3 x 697 Q W 8 + 8 [a]").contains("time \"x\""));
        assert!(bad("8,0 1 3 0.1234567890 697 Q W 8 + 8 [a]").contains("time"));
        assert!(bad("8,0 1 3 0.1 697 Q ? 8 + 8 [a]").contains("RWBS"));
        assert!(bad("8,0 1 3 0.1 697 Q W 8 + zero [a]").contains("sectors \"zero\""));
        assert!(bad("8,0 1 3 0.1 697 Q W 8 + 0 [a]").contains("0 bytes"));
        assert!(bad("8,0 1 3 0.1 697 Q W [a]").contains("no sectors"));
        assert!(bad("8,0 1 3 0.1 697 Q W 18014398509481984 + 8 [a]").contains("beyond any file"));
        assert!(bad("8,0 1 3 18446744073.9 697 Q W 8 + 8 [a]").contains("time"));
        assert!(bad("sda 1 3 0.1 697 Q W 8 + 8 [a]").contains("no device"));
    }
}

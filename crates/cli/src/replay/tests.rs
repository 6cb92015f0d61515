use super::lines::{Lines, Next, detect, parse};
use super::resolve::{Beyond, PlanReplay};
use super::scan::{Options, scan};
use super::source::Source;
use super::*;
use crate::rng::Rng;
use std::path::PathBuf;

const CLOUDPHYSICS: &str =
    "version,time,op,size,lbn\n1,10,28,512,8\n1,20,2a,4096,16\n1,30,zz,1,1\n1,40,35,0,0\n";
const MSR: &str = "128166372003061629,usr,0,Read,7014609920,24576,41286\n\
    128166372003071629,usr,1,Write,8192,4096,9\n128166372003081629,usr,1,Rite,0,512,9\n";
const FIO: &str = "fio version 3 iolog\n0 /f add\n0 /f open\n10 /f write 0 4096\n20 /f read 0 512\n\
    30 /f datasync 0 0\n40 /f trim 0 4096\n50 /f lick 0 512\n";
const BLKPARSE: &str = "  8,0    1        3     0.000001000   697  Q   W 16 + 8 [kjournald]\n\
      8,0    1        4     0.000002000   697  D   W 16 + 8 [kjournald]\n\
      8,0    1        5     0.000003000   697  Q   R 8 + 1 [cat]\n\
      8,0    1        6     0.000004000   697  Q   ? 8 + 1 [cat]\nCPU1 (8,0):\n Reads Queued: 1, 0KiB\n";
const ALL: [(Format, &str); 4] = [
    (Format::CloudPhysics, CLOUDPHYSICS),
    (Format::Msr, MSR),
    (Format::Fio, FIO),
    (Format::Blkparse, BLKPARSE),
];

fn file(bytes: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

#[test]
fn each_format_is_found_by_content_and_counts_what_is_bad() {
    for (format, text) in ALL {
        for text in [
            text.to_string(),
            text.replace('\n', "\r\n"),
            text.trim_end().to_string(),
        ] {
            let (_dir, path) = file(&text);
            assert_eq!(detect(&path, None).unwrap(), format, "{text}");
            let s = scan(&path, &Options::default()).unwrap();
            assert_eq!((s.ops[0], s.ops[1], s.bad), (1, 1, 1), "{format:?}: {s:?}");
            let skipped: u64 = s.skipped.values().sum();
            assert_eq!(
                s.records() + s.bad + skipped,
                s.lines,
                "TRACE-2: {format:?}"
            );
            let strict = Options {
                strict: true,
                ..Options::default()
            };
            let e = scan(&path, &strict).unwrap_err();
            let (_, line) = s.named[0].split_once(":").unwrap();
            assert!(e.message.ends_with(line), "{e}");
            assert_eq!(format.name().parse(), Ok(format));
        }
    }
}

#[test]
fn a_summary_has_the_span_the_extent_and_the_footprint() {
    let (_dir, path) = file(MSR);
    let options = Options {
        limit: Some(1 << 20),
        ..Options::default()
    };
    let s = scan(&path, &options).unwrap();
    assert_eq!(s.span_ns(), 1_000_000);
    assert_eq!(s.extent(), 7_014_609_920 + 24_576);
    // 24,576 bytes that begin a quarter into a page touch seven, and the other request one.
    assert_eq!((s.touched.bytes(), s.written.bytes()), (8 * 4096, 4096));
    assert_eq!(s.disks, ["usr.0", "usr.1"]);
    assert_eq!(s.beyond.unwrap().line, 1);
    let one = Options {
        select: Select {
            disk: Some("usr.1".into()),
            action: None,
        },
        ..Options::default()
    };
    let s = scan(&path, &one).unwrap();
    assert_eq!((s.records(), s.skipped["requests of other disks"]), (1, 1));
    let none = Options {
        select: Select {
            disk: Some("usr.2".into()),
            action: None,
        },
        ..Options::default()
    };
    let e = scan(&path, &none).unwrap_err();
    assert!(e.remedy.contains("usr.0, usr.1"), "{e}");
}

#[test]
fn a_page_that_two_requests_touch_counts_once() {
    // Unaligned: 512 bytes on both sides of a page's end, then the same page again, then one across two maps.
    let text = "1,1,28,1024,7\n1,2,2a,512,0\n1,3,2a,8192,32760\n";
    let (_dir, path) = file(text);
    let s = scan(&path, &Options::default()).unwrap();
    assert_eq!((s.touched.bytes(), s.written.bytes()), (4 * 4096, 3 * 4096));
}

#[test]
fn a_line_without_end_takes_no_memory_and_is_one_bad_line() {
    let mut text = CLOUDPHYSICS.as_bytes().to_vec();
    text.extend(std::iter::repeat_n(b'1', 3 << 20));
    text.extend_from_slice(b"\n1,50,28,512,8\n");
    text.extend(std::iter::repeat_n(b'2', 70 << 10));
    let (_dir, path) = file(&text);
    let s = scan(&path, &Options::default()).unwrap();
    assert_eq!((s.lines, s.bad, s.ops[0]), (8, 3, 2));
    assert!(
        s.named[1].ends_with(":6: longer than 64 KiB"),
        "{:?}",
        s.named
    );
    // Exactly at the limit it is read as a line.
    let (_dir, path) = file("x".repeat(64 << 10) + "\ny");
    let mut lines = Lines::open(&path).unwrap();
    assert!(matches!(lines.next().unwrap(), Some(Next::Line(l)) if l.len() == 64 << 10));
    assert!(matches!(lines.next().unwrap(), Some(Next::Line(b"y"))));
    assert_eq!(lines.next().unwrap(), None);
    assert_eq!(lines.number, 2);
}

/// TRACE-1: valid traces with bytes changed, removed, doubled and cut, and plain noise.
#[test]
fn no_input_makes_a_parser_panic_and_each_record_keeps_its_bounds() {
    let mut rng = Rng::new(1, 0);
    let spice: [&[u8]; 12] = [
        b"18446744073709551615",
        b"9223372036854775807",
        b"-1",
        b"\0",
        b"\xff",
        b",",
        b" ",
        b"+",
        b"1e9",
        b".",
        b"0",
        b"\xc3\xa9",
    ];
    let mut records = 0u64;
    for round in 0..4_000 {
        let (_, text) = ALL[round % ALL.len()];
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..rng.below(6) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(4) {
                0 => bytes[at] = rng.next() as u8,
                1 => drop(bytes.remove(at)),
                2 => bytes.truncate(at.max(1)),
                _ => {
                    let word = spice[rng.below(spice.len() as u64) as usize];
                    bytes.splice(at..at, word.iter().copied());
                }
            }
            if bytes.is_empty() {
                bytes.push(b'1');
            }
        }
        for format in Format::ALL {
            let mut parser = Parser::new(format, Select::default());
            for line in bytes.split(|b| *b == b'\n') {
                match parse(&mut parser, Next::Line(line)) {
                    Line::Record(r) => {
                        records += 1;
                        let end = r.offset.checked_add(r.len).expect("TRACE-1");
                        assert!(end <= END_MAX, "TRACE-1: {r:?}");
                        if matches!(r.op, Op::Read | Op::Write) {
                            assert!((1..=IO_MAX).contains(&r.len), "TRACE-1: {r:?}");
                        }
                    }
                    Line::Skip(_) => {}
                    Line::Bad(why) => assert!(!why.is_empty()),
                }
            }
        }
    }
    assert!(records > 1_000, "most rounds leave whole lines: {records}");
}

fn plan(path: PathBuf, format: Format) -> PlanReplay {
    PlanReplay {
        path,
        format,
        select: Select::default(),
        speed: None,
        beyond: Beyond::Refuse,
        repeat: false,
        first_ns: 0,
        span_ns: 0,
        records: 0,
        bad_lines: 0,
        footprint: 0,
    }
}

#[test]
fn a_source_gives_the_trace_in_order_then_ends_or_starts_again() {
    let (_dir, path) = file(FIO);
    let once = plan(path, Format::Fio);
    let mut source = Source::new(once.clone(), 4096);
    let ops: Vec<Op> = std::iter::from_fn(|| source.next().unwrap())
        .map(|d| d.record.op)
        .collect();
    assert_eq!(ops, [Op::Write, Op::Read, Op::Flush]);
    assert_eq!(source.next(), Ok(None));
    assert_eq!((source.given().passes, source.given().discards), (1, 1));
    let timed = PlanReplay {
        repeat: true,
        speed: Some(2.0),
        first_ns: 10_000,
        span_ns: 30_000,
        ..once
    };
    let mut source = Source::new(timed, 4096);
    let mut next = || source.next().unwrap().unwrap().after_ns;
    let due: Vec<u64> = (0..5).map(|_| next()).collect();
    assert_eq!(
        due,
        [0, 5_000, 10_000, 15_000, 20_000],
        "half the time, pass after pass"
    );
}

#[test]
fn a_pass_without_a_request_ends_even_where_it_would_repeat() {
    let (_dir, path) = file("1,1,28,512,1000\n1,2,42,512,0\n");
    let skip = PlanReplay {
        repeat: true,
        beyond: Beyond::Skip,
        ..plan(path, Format::CloudPhysics)
    };
    let mut source = Source::new(skip.clone(), 4096);
    assert_eq!(source.next(), Ok(None));
    assert_eq!((source.given().beyond, source.given().discards), (1, 1));
    let mut source = Source::new(
        PlanReplay {
            beyond: Beyond::Refuse,
            ..skip
        },
        4096,
    );
    assert!(source.next().unwrap_err().contains("offset 512000"));
}

/// TASK-1 of a replay.
#[test]
fn wrapped_requests_lie_within_the_file() {
    let mut rng = Rng::new(2, 0);
    let mut text = String::new();
    for _ in 0..500 {
        text.push_str(&format!(
            "1,1,28,{},{}\n",
            rng.below(20_000) + 1,
            rng.below(1 << 40)
        ));
    }
    let (_dir, path) = file(text);
    for len in [1, 512, 10_000, 65_536] {
        let wrap = PlanReplay {
            beyond: Beyond::Wrap,
            ..plan(path.clone(), Format::CloudPhysics)
        };
        let mut source = Source::new(wrap, len);
        let mut n = 0;
        while let Some(due) = source.next().unwrap() {
            assert!(due.record.len >= 1 && due.record.offset + due.record.len <= len);
            n += 1;
        }
        assert_eq!((n, source.given().wrapped > 0), (500, true));
    }
}

#[test]
fn a_trace_that_goes_away_is_an_error_that_names_it() {
    let (dir, path) = file(FIO);
    let mut source = Source::new(plan(path, Format::Fio), 4096);
    drop(dir);
    assert!(source.next().unwrap_err().contains("trace"));
}

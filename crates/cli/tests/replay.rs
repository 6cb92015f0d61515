//! `highwater replay` and `highwater trace info` as a user meets them: real traces in place, small ones written here.

mod common;

use common::{entries, err, highwater, temp, write};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn json(args: &[&str]) -> Value {
    common::json(&highwater(&[args, &["--json", "-"]].concat()))
}

fn refuses(args: &[&str], what: &[&str]) {
    common::refuses(args, 2, what);
}

/// `n` requests, every third a read, over 8 MiB, 100 us apart.
fn cloudphysics(n: u64) -> String {
    let mut text = String::from("version,time,op,size,lbn\n");
    for i in 0..n {
        let op = if i % 3 == 0 { "28" } else { "2a" };
        let lbn = i * 7919 % 2048 * 8;
        text.push_str(&format!("1,{},{op},4096,{lbn}\n", 1_000_000 + i * 100));
    }
    text
}

/// The real trace, where it lies beside the project.
fn real() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("../shared/data/cloudphysics-a.csv");
    if !path.is_file() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn the_real_trace_is_replayed_whole_and_repeats_by_seed() {
    let Some(path) = real() else { return };
    let path = path.to_str().unwrap();
    let info = highwater(&["trace", "info", path, "--strict"]);
    let text = common::out(&info);
    for word in [
        "cloudphysics",
        "56,936 in 56,937",
        "22,427 reads, 34,509 writes",
        "33584938496",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let args = ["replay", path, "--strict", "--threads", "4"];
    let first = json(&args);
    let task = &first["arms"][0]["tasks"][0];
    assert_eq!(task["ops"], 56_936);
    assert_eq!(task["replay"]["reads"], 22_427);
    assert_eq!(task["replay"]["writes"], 34_509);
    assert_eq!(task["replay"]["passes"], 1);
    assert_eq!(task["replay"]["late_us"], Value::Null);
    assert_eq!(first, json(&args), "the same seed gives the same numbers");
}

/// Who waits for reads seldom waits for writes: one latency for both says what neither has.
#[test]
fn reads_and_writes_have_latencies_of_their_own() {
    let dir = temp();
    let path = write(dir.path(), "t.csv", cloudphysics(3_000));
    let o = highwater(&["replay", &path, "--memory", "2MiB", "--json", "-"]);
    let replay = &common::json(&o)["arms"][0]["tasks"][0]["replay"];
    let us = |of: &str, q: &str| replay[of][q].as_f64().unwrap();
    assert!(
        us("read_us", "p99") > 3.0 * us("write_us", "p99"),
        "{replay}"
    );
    for of in ["read_us", "write_us"] {
        assert!(us(of, "p50") <= us(of, "p99") && us(of, "p99") <= us(of, "max"));
    }
    assert!(err(&o).contains("reads of replay"), "{}", err(&o));
    let reads = cloudphysics(300).replace(",2a,", ",28,");
    let path = write(dir.path(), "reads.csv", reads);
    let replay = &json(&["replay", &path])["arms"][0]["tasks"][0]["replay"];
    assert!(replay["write_us"].is_null() && replay["read_us"]["p50"].is_number());
}

#[test]
fn timestamps_take_the_trace_s_span_over_speed_in_virtual_time() {
    let dir = temp();
    let path = write(dir.path(), "t.csv", cloudphysics(5_001));
    for (speed, seconds) in [("1", 0.5), ("10", 0.05), ("0.5", 1.0)] {
        let report = json(&["replay", &path, "--pace", "timestamps", "--speed", speed]);
        let task = &report["arms"][0]["tasks"][0];
        assert_eq!(task["ops"], 5_001);
        // The last request is due exactly then; what comes on top is its own time.
        let took = 5_001.0 / task["ops_per_s"].as_f64().unwrap();
        assert!(
            took >= seconds && took < seconds + 0.01,
            "speed {speed}: {took} s"
        );
        let late = &task["replay"]["late_us"];
        assert!(late["p50"].as_f64().unwrap() < 1_000.0, "{late}");
        assert!(late["max"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn the_os_world_replays_into_a_sparse_file_and_leaves_nothing() {
    let dir = temp();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    // The last request lies at 40 GiB: only what is written takes room.
    let text = cloudphysics(2_000) + "1,2000000,2a,4096,83886080\n1,2000000,28,4096,83886080\n";
    let path = write(dir.path(), "t.csv", text);
    let report = json(&[
        "replay",
        &path,
        "--world",
        "os,lab",
        "--memory",
        "8MiB",
        "--preset",
        "2.6.35,highwater",
        "--dir",
        data.to_str().unwrap(),
    ]);
    for arm in report["arms"].as_array().unwrap() {
        let replay = &arm["tasks"][0]["replay"];
        assert_eq!(replay["reads"], 668, "{arm}");
        assert_eq!(replay["writes"], 1_334, "{arm}");
        assert_eq!(replay["passes"], 1, "{arm}");
    }
    assert_eq!(report["arms"].as_array().unwrap().len(), 4);
    assert_eq!(entries(&data), 0);
}

#[test]
fn bad_lines_are_counted_and_named_or_refused() {
    let dir = temp();
    let text = cloudphysics(100) + "1,2,zz,512,3\n1,2,28,0,3\nrubbish\n";
    let path = write(dir.path(), "t.csv", text);
    let o = highwater(&["replay", &path, "--json", "-"]);
    assert!(o.status.success(), "{}", err(&o));
    for word in [
        "t.csv:102: op \"zz\" is no SCSI opcode",
        "t.csv:103: a request of 0 bytes",
        "3 of 104 lines are bad",
    ] {
        assert!(err(&o).contains(word), "{word}: {}", err(&o));
    }
    let report = common::json(&o);
    let replay = &report["arms"][0]["tasks"][0]["replay"];
    assert_eq!(
        (&replay["bad_lines"], &replay["records"]),
        (&3.into(), &100.into())
    );
    for command in [vec!["replay", &path], vec!["trace", "info", &path]] {
        let mut args = command.clone();
        args.push("--strict");
        refuses(
            &args,
            &["t.csv:102: op \"zz\" is no SCSI opcode", "without --strict"],
        );
    }
}

#[test]
fn what_is_no_trace_is_refused_with_the_place_and_the_remedy() {
    let dir = temp();
    let d = dir.path();
    let file = |name: &str, bytes: &[u8]| write(d, name, bytes);
    let cases = [
        (file("empty", b""), "is empty"),
        (file("blank", b"\n \n\r\n"), "is empty"),
        (file("nul", b"1,2,28,512,3\n\0\0\0\n"), "is binary: byte 13"),
        (file("latin", b"\xff\xfe1,2,28\n"), "is binary: byte 0"),
        (file("gz", b"\x1f\x8b\x08\x00abc"), "is binary"),
        (
            file("text", b"dear diary\n"),
            "no trace of a known format; it begins with \"dear diary\"",
        ),
        (
            file("header", b"version,time,op,size,lbn\n"),
            "no request in 1 lines",
        ),
        (d.to_str().unwrap().to_string(), "is a directory"),
        (d.join("none").to_str().unwrap().to_string(), "cannot read"),
    ];
    for (path, what) in &cases {
        refuses(&["trace", "info", path], &[what]);
    }
    refuses(&["replay", &cases[4].0], &["gzip -dc"]);
    refuses(
        &["replay", "no/such.csv"],
        &["there is no trace", "no/such.csv"],
    );
    let bad = file("bad", b"1,2,zz,512,3\n");
    refuses(
        &["trace", "info", &bad, "--format", "cloudphysics"],
        &["1 bad", ":1: op \"zz\""],
    );
    refuses(
        &["trace", "info", &bad, "--format", "msr"],
        &[":1: 5 fields: expected 7"],
    );
    let o = highwater(&["trace", "info", &bad, "--format", "mrs"]);
    assert!(err(&o).contains("did you mean msr?"), "{}", err(&o));
}

#[test]
fn an_argument_that_makes_no_sense_is_named_and_not_a_line_of_a_scenario_that_nobody_wrote() {
    let dir = temp();
    let path = write(dir.path(), "a.csv", cloudphysics(10));
    let timed = ["--pace", "timestamps"];
    for (flag, values, what) in [
        (
            "--speed",
            &["0", "-1", "1e9", "nan", "inf", "fast"][..],
            "how many times as fast",
        ),
        ("--threads", &["0", "1025"][..], "1..=1024"),
        ("--size", &["0", "4e", "99999999999999999999"][..], "4x"),
        ("--duration", &["0s", "5"][..], "such as 5s"),
    ] {
        for value in values {
            let args = [&["replay", &path, flag, value], &timed[..]].concat();
            let said = common::refuses(&args, 2, &[flag, what]);
            assert!(!said.contains("replay:"), "{value}: {said}");
        }
    }
}

#[test]
fn a_selection_by_what_the_format_does_not_say_is_refused() {
    let dir = temp();
    let path = write(dir.path(), "a.csv", cloudphysics(10));
    refuses(
        &["replay", &path, "--disk", "8,0"],
        &["name no disk", "cloudphysics"],
    );
    refuses(
        &["trace", "info", &path, "--action", "D"],
        &["name no action", "blkparse"],
    );
}

#[test]
fn a_trace_is_replayed_in_each_order_and_with_a_trace_of_reclaim() {
    let dir = temp();
    let path = write(dir.path(), "a.csv", cloudphysics(3_000));
    let trace = dir.path().join("trace.txt");
    let args = [
        "replay",
        &path,
        "--memory",
        "1MiB",
        "--order",
        "two-list,s3-fifo",
        "--cpus",
        "1",
    ];
    let report = json(&[&args[..], &["--ftrace", trace.to_str().unwrap()]].concat());
    let arms = report["arms"].as_array().unwrap();
    assert_eq!(arms.len(), 2);
    assert_ne!(arms[0]["vmstat"], arms[1]["vmstat"]);
    assert_eq!(
        entries(dir.path()),
        3,
        "the trace that was replayed, and one for each arm"
    );
}

#[test]
fn a_page_says_that_a_replay_ends_with_its_trace() {
    let dir = temp();
    let path = write(dir.path(), "a.csv", cloudphysics(300) + "bad line\n");
    let page = dir.path().join("page.html");
    common::ok(&["replay", &path, "--html", page.to_str().unwrap()]);
    let page = std::fs::read_to_string(page).unwrap();
    // What is said below the table in a terminal is said here, too.
    assert!(page.contains("300 requests of "), "{page}");
    assert!(page.contains("1 bad lines"), "{page}");
    assert!(page.contains("to the trace&#39;s end, at most 3600"));
}

#[test]
fn times_that_no_disk_can_have_met_are_doubted() {
    let dir = temp();
    // One request a microsecond is much, twenty are too much.
    let line = |i: u64| format!("1,{},28,4096,{}\n", 7_000 + i / 20, i * 8);
    let text: String = (0..2_000).map(line).collect();
    let path = write(
        dir.path(),
        "a.csv",
        format!("version,time,op,size,lbn\n{text}"),
    );
    let info = common::out(&highwater(&["trace", "info", &path]));
    assert!(info.contains("larger unit"), "{info}");
    let timed = ["replay", &path, "--pace", "timestamps"];
    assert!(err(&highwater(&timed)).contains("larger unit"));
    assert!(
        !err(&highwater(&timed[..2])).contains("larger unit"),
        "a closed loop"
    );
}

#[test]
fn times_that_go_back_are_counted() {
    let dir = temp();
    let lines = [5, 1, 9, 3].map(|s| format!("1,{s}000000,28,4096,0\n"));
    let path = write(dir.path(), "back.csv", lines.concat());
    let o = highwater(&["trace", "info", &path, "--json", "-"]);
    assert_eq!(common::json(&o)["backwards"], 2);
    let said = "earlier than one before them: 2";
    assert!(err(&o).contains(said), "{}", err(&o));
    assert!(err(&highwater(&["replay", &path, "--pace", "timestamps"])).contains(said));
    let ordered = write(dir.path(), "t.csv", cloudphysics(30));
    let o = highwater(&["trace", "info", &ordered]);
    assert!(!common::out(&o).contains("earlier"), "{}", common::out(&o));
}

/// A trace of 2,000 reads of whole pages, twice: the second time all of them are in memory.
fn twice(dir: &Path, mark: &str) -> String {
    let mut text = format!("{mark}version,time,op,size,lbn\n");
    for n in 0..4000u64 {
        let page = n % 2000 * 7 % 2000;
        text.push_str(&format!("1,{},28,4096,{}\n", n * 100, page * 8));
    }
    write(dir, "twice.csv", text)
}

#[test]
fn no_hit_of_a_thread_that_ended_is_missing() {
    let dir = temp();
    let trace = twice(dir.path(), "");
    for world in ["lab", "os"] {
        let v = json(&["replay", &trace, "--memory", "32MiB", "--world", world]);
        let count = |name: &str| v["arms"][0]["vmstat"][name].as_u64().unwrap();
        // Each of 4,000 look-ups is one of them: who waits for the read of another has found the page.
        let (hits, misses) = (count("hits"), count("misses"));
        assert!(
            hits >= 2000 && hits + misses == 4000,
            "{world}: {hits} hits, {misses} misses"
        );
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_line() {
    let dir = temp();
    let trace = twice(dir.path(), "\u{feff}");
    let o = common::ok(&["replay", &trace, "--memory", "32MiB", "--strict"]);
    assert!(common::out(&o).contains("4,000 requests of"));
}

#[test]
fn a_trace_at_its_own_times_is_replayed_to_its_end_and_a_loop_wants_one() {
    let dir = temp();
    let trace = twice(dir.path(), "");
    // 0.4 s, a million times as slow: four days and a half.
    let slowly = "--pace timestamps --speed 0.000001 --ghost --memory 32MiB";
    let slowly: Vec<&str> = ["replay", &trace]
        .into_iter()
        .chain(slowly.split(' '))
        .collect();
    let text = common::out(&common::ok(&slowly));
    assert!(text.contains("4,000 requests of"), "{text}");
    assert!(text.contains("its end reached once"), "{text}");
    let cut = common::out(&common::ok(&[&slowly[..], &["--duration", "1h"]].concat()));
    assert!(cut.contains("the time was over before its end"), "{cut}");
    refuses(
        &["replay", &trace, "--loop"],
        &["--loop has no end", "--duration 60s"],
    );
}

#[test]
fn a_dirty_limit_is_where_it_was_asked_for() {
    let dir = temp();
    let trace = twice(dir.path(), "");
    let v = json(&[
        "replay",
        &trace,
        "--memory",
        "32MiB",
        "--dirty-limit",
        "40",
        "--samples",
    ]);
    let limits = &v["arms"][0]["limits"];
    let share = |name: &str| limits[name].as_f64().unwrap() / limits["frames"].as_f64().unwrap();
    assert!((share("dirty_limit") - 0.40).abs() < 0.02, "{limits}");
    // The preset's 25 of 60.
    assert!((share("dirty_background") - 0.16).abs() < 0.02, "{limits}");
    refuses(
        &["replay", &trace, "--dirty-limit", "0"],
        &["is no dirty limit", "1 to 90"],
    );
}

#[test]
fn a_trace_beyond_the_file_s_end_is_an_error_or_wrapped_or_skipped() {
    let dir = temp();
    let text = cloudphysics(50) + "1,2000000,2a,4096,83886080\n";
    let path = write(dir.path(), "t.csv", text);
    refuses(
        &["replay", &path, "--size", "16MiB"],
        &[
            "t.csv:52: offset 42949672960 + 4096 bytes",
            "16777216 bytes",
            "files.data.size (--size) = \"41GiB\"",
            "beyond (--beyond) = \"wrap\"",
        ],
    );
    let with = |beyond: &str| {
        let report = json(&["replay", &path, "--size", "16MiB", "--beyond", beyond]);
        report["arms"][0]["tasks"][0]["replay"].clone()
    };
    let wrap = with("wrap");
    assert_eq!(
        (&wrap["beyond_wrapped"], &wrap["writes"]),
        (&1.into(), &34.into())
    );
    let skip = with("skip");
    assert_eq!(
        (&skip["beyond_skipped"], &skip["writes"]),
        (&1.into(), &33.into())
    );
}

#[test]
fn a_scenario_file_names_its_trace_relative_to_itself() {
    let dir = temp();
    write(
        dir.path(),
        "t.iolog",
        "fio version 2 iolog\n/f add\n/f write 0 8192\n/f wait 1000 0\n/f sync 0 0\n/f read 4096 512\n/f trim 0 4096\n",
    );
    let scenario = "name = \"s\"\nabout = \"a\"\nmemory = \"4MiB\"\nwarm_up = 0.5\nsettle = \"0s\"\nduration = \"20ms\"\n\
        [files.data]\nsize = \"trace\"\n[[tasks]]\nname = \"r\"\nkind = \"replay\"\nfile = \"data\"\ntrace = \"t.iolog\"\n";
    let path = write(dir.path(), "s.toml", scenario);
    let report = json(&["run", &path, "--world", "lab"]);
    let replay = &report["arms"][0]["tasks"][0]["replay"];
    for (name, n) in [
        ("reads", 1),
        ("writes", 1),
        ("flushes", 1),
        ("discards_skipped", 1),
        ("records", 4),
    ] {
        assert_eq!(replay[name], n, "{name}: {replay}");
    }
    let repeat = write(dir.path(), "r.toml", format!("{scenario}repeat = true\n"));
    let report = json(&["run", &repeat, "--world", "lab"]);
    let passes = &report["arms"][0]["tasks"][0]["replay"]["passes"];
    assert!(passes.as_u64().unwrap() > 1, "{passes}");
    for (key, what) in [
        ("speed = 2.0", "speed belongs to pace"),
        ("pace = \"timestmaps\"", "did you mean `timestamps`?"),
        ("format = \"foi\"", "did you mean fio?"),
        ("rate = 5.0", "the trace says when"),
        ("beyond = \"grow\"", "unknown variant"),
        ("pace = \"timestamps\"\nspeed = 0.0", "speed: expected"),
    ] {
        let path = write(dir.path(), "bad.toml", format!("{scenario}{key}\n"));
        refuses(&["run", &path, "--world", "lab"], &[what]);
    }
    let other = scenario.replace("kind = \"replay\"", "kind = \"random-read\"");
    let path = write(dir.path(), "bad.toml", other);
    refuses(&["run", &path], &["needs a task of kind"]);
}

/// Eight writes far below the dirty limit: without their flags nobody would write or flush before the final sync.
#[test]
fn writes_of_blkparse_with_their_flags_are_synced_in_each_world() {
    let dir = temp();
    let trace = |name: &str, rwbs: &str| {
        let line = |i: u64| format!("8,0 1 {i} 0.{i}01 697 Q {rwbs} {} + 8 [jbd2]\n", i * 64);
        write(dir.path(), name, (0..8).map(line).collect::<String>())
    };
    let counts = |path: &str, world: &str| {
        let args = ["replay", path, "--world", world, "--memory", "16MiB"];
        let place = ["--threads", "1", "--dir", dir.path().to_str().unwrap()];
        let arm = json(&[&args[..], &place].concat())["arms"][0].clone();
        let replay = &arm["tasks"][0]["replay"];
        (
            arm["written_pages"]["sync"].as_u64().unwrap(),
            replay["fua_writes"].as_u64().unwrap(),
            replay["preflushes"].as_u64().unwrap(),
            replay["writes"].as_u64().unwrap(),
        )
    };
    let (plain, waited) = (trace("w", "W"), trace("ws", "WS"));
    let (fua, flush) = (trace("wfs", "WFS"), trace("fws", "FWS"));
    for world in ["lab", "os"] {
        assert_eq!(counts(&plain, world), (0, 0, 0, 8), "{world}");
        assert_eq!(counts(&waited, world), (0, 0, 0, 8), "{world}");
        assert_eq!(counts(&fua, world), (8, 8, 0, 8), "{world}");
        // Nothing is there to flush before the first, and the last is left to the final sync.
        assert_eq!(counts(&flush, world), (7, 0, 8, 8), "{world}");
    }
    let said = common::out(&common::ok(&["replay", &fua]));
    assert!(
        said.contains("8 writes through to the disk (FUA)"),
        "{said}"
    );
    let found = common::json(&common::ok(&["trace", "info", &flush, "--json", "-"]));
    assert_eq!(found["preflushes"], 8);
    assert_eq!(found["written_bytes"], 8 * 4096);
    assert_eq!(found["file_bytes"], (7 * 64 + 8) * 512);
    let info = common::out(&common::ok(&["trace", "info", &flush]));
    assert!(
        info.contains("0 writes through to the disk (FUA), 8 with a flush before them"),
        "{info}"
    );
}

/// What a replay's thread does itself takes the lab's CPU, as any task's does.
#[test]
fn a_thread_of_a_replay_is_charged_for_its_own_work() {
    let dir = temp();
    write(dir.path(), "t.csv", cloudphysics(100));
    let scenario = "name = \"s\"\nabout = \"a\"\nmemory = \"16MiB\"\nwarm_up = 0.5\nsettle = \"0s\"\nduration = \"1s\"\n\
        [files.data]\nsize = \"trace\"\n[[tasks]]\nname = \"r\"\nkind = \"replay\"\nfile = \"data\"\ntrace = \"t.csv\"\nrepeat = true\n";
    let path = write(dir.path(), "s.toml", scenario);
    let table = include_str!("../costs.toml");
    let costs = common::costs(dir.path(), table, &["task_ns"], 1_000_000);
    let args = ["run", &path, "--world", "lab", "--preset", "highwater"];
    let ops = |more: &[&str]| json(&[&args, more].concat())["arms"][0]["ops_per_s"].as_f64();
    let (plain, dear) = (ops(&[]).unwrap(), ops(&["--costs", &costs]).unwrap());
    assert!(dear < 1_000.0 && dear > 100.0, "a millisecond each: {dear}");
    assert!(plain > 2_000.0, "{plain}");
}

//! The binary as a user meets it: help, lists, errors with their remedy, exit codes, clean-up.

mod common;

use common::{command, entries, err, highwater, out};
use std::process::Stdio;
use std::time::{Duration, Instant};

fn refuses(args: &[&str], code: i32, what: &str) {
    common::refuses(args, code, &[what]);
}

#[test]
fn help_teaches() {
    let text = out(&highwater(&["--help"]));
    for word in [
        "rfc-2010",
        "--world",
        "Examples",
        "scenario show",
        "Exit codes",
        "in virtual time",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(
        !text.contains("run-arm"),
        "the internal sub-command is hidden"
    );
}

#[test]
fn the_list_is_whole_and_each_can_be_shown() {
    let list = out(&highwater(&["scenarios"]));
    for name in [
        "rfc",
        "random-write",
        "stream-write",
        "stream-read",
        "zipf-mix",
        "hot-clean",
        "slow-disk",
        "fits",
        "deep-chain",
        "machine",
    ] {
        assert!(list.lines().any(|l| l.starts_with(name)), "{name}: {list}");
        let shown = highwater(&["scenario", "show", name]);
        assert!(shown.status.success());
        assert!(out(&shown).contains(&format!("name = \"{name}\"")));
    }
}

#[test]
fn nonsense_is_refused_with_a_remedy_and_exit_code_2() {
    refuses(&["run", "rcf"], 2, "did you mean \"rfc\"?");
    refuses(&["run", "no/such/file.toml"], 2, "cannot read");
    refuses(
        &["run", "rfc", "--preset", "hihgwater"],
        2,
        "did you mean highwater?",
    );
    refuses(
        &["run", "rfc", "--world", "linus"],
        2,
        "did you mean linux?",
    );
    refuses(&["run", "rfc", "--memory", "1KiB"], 2, "makes no sense");
    refuses(&["run", "rfc", "--memory", "9999TiB"], 2, "makes no sense");
    refuses(&["run", "rfc", "--memory", "many"], 2, "64MiB");
    refuses(&["run", "rfc", "--duration", "5"], 2, "5s");
    refuses(&["run", "rfc", "--duration", "0s"], 2, "nothing");
    refuses(&["run", "stream-read", "--raw"], 2, "no writer");
    refuses(&["run", "rfc", "--dir", "/no/such/dir"], 2, "/no/such/dir");
    refuses(&["matrix", "--world", "linux"], 2, "os and lab");
    for command in [
        "run rfc",
        "soak",
        "sweep rfc",
        "claims",
        "volume crash-test",
    ] {
        for bad in ["-1", "x", "1.5", "18446744073709551616"] {
            let args = [&common::words(command)[..], &["--seed", bad]].concat();
            refuses(&args, 2, "is no seed; expected a whole number from 0");
        }
    }
    refuses(&["rnu"], 2, "unrecognized");
}

/// An hour of work whose numbers have no place to go.
#[test]
fn a_file_that_cannot_be_written_is_refused_before_anything_runs() {
    for command in [
        "run rfc --duration 60m --json no/such/file",
        "run all --duration 60m --json no/such/file",
        "matrix --duration 60m --json no/such/file",
        "soak --seeds 1000000 --json no/such/file",
        "sweep rfc --duration 60m --svg no/such/file",
        "claims --json no/such/file",
        "stack rfc --duration 60m --json no/such/file",
        "probe . --duration 60m --out no/such/file",
        "costs --out no/such/file",
    ] {
        let args: Vec<&str> = command.split(' ').collect();
        refuses(&args, 1, "no/such/file");
    }
}

#[test]
fn the_lab_s_own_settings_are_checked() {
    refuses(&["run", "rfc", "--ghost"], 2, "--ghost is for the lab");
    refuses(
        &["run", "rfc", "--world", "os,linux", "--real-time"],
        2,
        "--world lab --real-time",
    );
    refuses(&["run", "rfc", "--cpus", "2"], 2, "--cpus is for the lab");
    refuses(
        &["run", "rfc", "--world", "lab", "--cpus", "0"],
        2,
        "expected 1 to 1024 virtual CPUs",
    );
    for command in ["replay no.csv", "sweep rfc", "run fits --world lab"] {
        let args = [&common::words(command)[..], &["--cpus", "1025"]].concat();
        refuses(&args, 2, "expected 1 to 1024 virtual CPUs");
    }
    refuses(
        &["run", "rfc", "--real-time"],
        2,
        "--real-time is for the lab",
    );
    refuses(&["run", "rfc", "--warm-up=-1"], 2, "-1 x memory");
    refuses(&["run", "rfc", "--warm-up", "101"], 2, "101 x memory");
    refuses(&["run", "rfc", "--ops", "0"], 2, "--ops");
    refuses(
        &["run", "rfc", "--ops", "5", "--duration", "1s"],
        2,
        "--duration",
    );
}

#[test]
fn a_typo_in_a_scenario_names_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.toml");
    let text = out(&highwater(&["scenario", "show", "rfc"])).replace("settle =", "setle =");
    std::fs::write(&path, &text).unwrap();
    let line = text.lines().position(|l| l.starts_with("setle")).unwrap() + 1;
    let path = path.to_str().unwrap();
    refuses(
        &["run", path],
        2,
        &format!("mine.toml:{line}:1: unknown field `setle`"),
    );
    refuses(&["run", path], 2, "did you mean `settle`?");
}

/// A raw arm needs no engine: data is laid out, written, and gone afterwards; the JSON is on standard output alone.
#[test]
fn raw_rows_are_measured_and_nothing_is_left() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let scenario = dir.path().join("raw.toml");
    let text = "name = \"raw\"\nabout = \"raw rows alone\"\nmemory = \"8MiB\"\nduration = \"100ms\"\nsettle = \"0s\"\n\
        presets = []\n[files.data]\nsize = \"1x\"\n[[tasks]]\nname = \"w\"\nkind = \"random-write\"\nfile = \"data\"\n";
    std::fs::write(&scenario, text).unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let o = command()
        .args([
            "run",
            scenario.to_str().unwrap(),
            "--raw",
            "--json",
            "-",
            "--dir",
        ])
        .arg(&data)
        .output()
        .unwrap();
    assert_eq!(entries(&data), 0, "temporary files are gone");
    if err(&o).contains("O_DIRECT") && !o.status.success() {
        eprintln!("skipped: {}", err(&o));
        return;
    }
    assert!(o.status.success(), "{}", err(&o));
    let json: serde_json::Value =
        serde_json::from_slice(&o.stdout).expect("only JSON on standard output");
    assert_eq!(json["arms"].as_array().unwrap().len(), 3);
    assert!(json["arms"][0]["ops_per_s"].as_f64().unwrap() > 0.0);
    assert!(
        err(&o).contains("O_DIRECT qd128"),
        "the table is on standard error"
    );
}

/// SIGTERM in the midst of a run: the files go, the child goes, the exit code says which signal.
#[test]
fn a_signal_removes_what_was_made() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let mut child = command()
        .args([
            "run",
            "random-write",
            "--raw",
            "--preset",
            "highwater",
            "--duration",
            "30s",
            "--memory",
            "8MiB",
            "--dir",
        ])
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while entries(dir.path()) == 0 && begin.elapsed() < Duration::from_secs(10) {
        if child.try_wait().unwrap().is_some() {
            panic!("it ended before it made a directory");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(entries(dir.path()), 0, "temporary files are gone");
    assert_eq!(status.code(), Some(128 + 15));
}

/// Until a process has a handler for SIGINT.
fn until_it_catches_signals(pid: u32) {
    let begin = Instant::now();
    loop {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mask = status
            .lines()
            .find_map(|l| l.strip_prefix("SigCgt:"))
            .unwrap();
        if u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << (2 - 1)) != 0 {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{status}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ctrl-C in the midst of many runs: how many there were.
#[test]
fn an_interrupted_command_says_how_much_was_done() {
    for line in [
        "soak --seeds 100000 --jobs 1",
        "volume crash-test --images 10000000 --jobs 1",
        "sweep fits --duration 60m",
        "run fits --world lab --duration 60m",
    ] {
        let mut child = command();
        let child = child.args(common::words(line)).stdout(Stdio::null());
        let child = child.stderr(Stdio::piped()).spawn().unwrap();
        until_it_catches_signals(child.id());
        // So that what it does next has begun.
        std::thread::sleep(Duration::from_millis(500));
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let o = child.wait_with_output().unwrap();
        assert_eq!(o.status.code(), Some(128 + 2), "{line}");
        assert!(err(&o).contains("interrupted: "), "{line}: {}", err(&o));
        assert!(err(&o).contains(" had ended; no result"), "{}", err(&o));
    }
}

#[test]
fn a_soak_says_what_was_compared_and_repeats() {
    let args = [
        "soak",
        "--seed",
        "3",
        "--seeds",
        "2",
        "--jobs",
        "1",
        "--verbose",
        "--json",
        "-",
    ];
    let (a, b) = (highwater(&args), highwater(&args));
    assert!(a.status.success(), "{}", err(&a));
    assert_eq!(
        out(&a),
        out(&b),
        "two runs of the same seeds are equal to the byte"
    );
    let v: serde_json::Value = serde_json::from_str(&out(&a)).expect("JSON");
    assert_eq!(v["seeds"], 2);
    assert!(v["operations"].as_u64().is_some_and(|n| n >= 40_000), "{v}");
    assert!(v["pages_checked"].as_u64().is_some_and(|n| n > 0), "{v}");
    assert!(
        err(&a).contains("seed 3: ") && err(&a).contains("seed 4: "),
        "{}",
        err(&a)
    );
}

/// As CONTRIBUTING.md has it: what the seed drew is the first line.
#[test]
fn a_soak_of_one_seed_says_what_it_drew() {
    let o = highwater(&["soak", "--seed", "3", "--seeds", "1"]);
    assert!(err(&o).starts_with("seed 3: "), "{}", err(&o));
    assert!(out(&o).starts_with("1 seed from 3, "), "{}", out(&o));
}

#[test]
fn a_soak_without_seeds_is_refused() {
    refuses(&["soak", "--seeds", "0"], 2, "no seeds");
    for jobs in ["0", "1025", "many"] {
        refuses(&["soak", "--jobs", jobs], 2, "1 to 1024 jobs");
    }
    if cfg!(not(feature = "plant")) {
        refuses(&["soak", "--plant", "lost-dirty"], 2, "no planted bugs");
    }
}

#[test]
fn devices_are_listed_shown_and_checked() {
    let list = out(&highwater(&["devices"]));
    for name in [
        "hdd-7200",
        "ssd-sata",
        "nvme",
        "cloud-gp2",
        "cloud-gp3",
        "object-s3",
    ] {
        assert!(list.lines().any(|l| l.starts_with(name)), "{name}: {list}");
        let shown = highwater(&["device", "show", name]);
        assert!(shown.status.success());
        assert!(out(&shown).contains("model = "));
    }
    let lab = ["run", "fits", "--world", "lab", "--device"];
    let with = |device| [&lab[..], &[device]].concat();
    refuses(&["device", "show", "nvem"], 2, "did you mean \"nvme\"?");
    refuses(&with("hdd-720"), 2, "did you mean \"hdd-7200\"?");
    refuses(&with("no/such.toml"), 2, "cannot read the device profile");
    refuses(&with("/dev"), 2, "cannot read the device profile /dev");
    refuses(&with("/dev/zero"), 2, "/dev/zero");
    refuses(
        &["run", "fits", "--world", "os", "--device", "nvme"],
        2,
        "--world does not name the lab",
    );
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.toml");
    std::fs::write(&bad, "model = \"hdd\"\nrpm = 0\n").unwrap();
    refuses(&with(bad.to_str().unwrap()), 2, "bad.toml:2:7: ");
}

/// Operations a second of one lab arm on `device`.
fn lab_ops(device: &str) -> f64 {
    let o = highwater(&[
        "run",
        "random-write",
        "--world",
        "lab",
        "--preset",
        "highwater",
        "--memory",
        "8MiB",
        "--duration",
        "300ms",
        "--device",
        device,
        "--json",
        "-",
    ]);
    assert!(o.status.success(), "{device}: {}", err(&o));
    let report: serde_json::Value = serde_json::from_slice(&o.stdout).unwrap();
    report["arms"][0]["ops_per_s"].as_f64().unwrap()
}

#[test]
fn the_lab_s_disk_is_the_device_that_was_named() {
    let (hdd, nvme) = (lab_ops("hdd-7200"), lab_ops("nvme"));
    assert!(nvme > hdd * 20.0, "nvme {nvme}, hdd {hdd}");
    assert_eq!(hdd, lab_ops("hdd-7200"), "repeats");
    let dir = tempfile::tempdir().unwrap();
    let mine = dir.path().join("mine.toml");
    let shown = out(&highwater(&["device", "show", "nvme"]));
    std::fs::write(&mine, shown).unwrap();
    assert_eq!(
        nvme,
        lab_ops(mine.to_str().unwrap()),
        "the file is the built-in"
    );
}

#[test]
fn a_probe_s_profile_runs_in_the_lab() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (place, mine) = (dir.path().to_str().unwrap(), dir.path().join("mine.toml"));
    let o = highwater(&[
        "probe",
        place,
        "--size",
        "16MiB",
        "--duration",
        "2s",
        "--out",
        mine.to_str().unwrap(),
        "--json",
        "-",
    ]);
    if err(&o).contains("O_DIRECT") {
        eprintln!("skipped: {}", err(&o));
        return;
    }
    assert!(o.status.success(), "{}", err(&o));
    let report: serde_json::Value = serde_json::from_slice(&o.stdout).unwrap();
    assert_eq!(report["points"].as_array().unwrap().len(), 56);
    assert_eq!(report["fit"].as_array().unwrap().len(), 53);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "only the profile is left: {left:?}");
    let text = std::fs::read_to_string(&mine).unwrap();
    assert!(text.contains("# read 4K x1 "), "{text}");
    assert!(lab_ops(mine.to_str().unwrap()) > 0.0);
}

#[test]
fn a_probe_only_reads_a_file_unless_told_to_write() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("data");
    let bytes = vec![0x5A; 9 << 20];
    std::fs::write(&path, &bytes).unwrap();
    let path = path.to_str().unwrap();
    let o = highwater(&["probe", path, "--duration", "500ms"]);
    if err(&o).contains("O_DIRECT") {
        eprintln!("skipped: {}", err(&o));
        return;
    }
    assert!(o.status.success(), "{}", err(&o));
    assert!(err(&o).contains("only read"), "{}", err(&o));
    assert!(out(&o).contains("model = \"ssd\""), "{}", out(&o));
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    let o = highwater(&["probe", path, "--duration", "500ms", "--write"]);
    assert!(o.status.success(), "{}", err(&o));
    assert!(err(&o).contains("is being overwritten"), "{}", err(&o));
    let now = std::fs::read(path).unwrap();
    assert!(now.len() == bytes.len() && now != bytes);
}

#[test]
fn a_probe_of_nonsense_is_refused_with_a_remedy() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let small = dir.path().join("small");
    std::fs::write(&small, [1; 4096]).unwrap();
    refuses(&["probe", "/no/such/disk"], 1, "/no/such/disk");
    refuses(&["probe", "/dev/null"], 2, "neither a directory");
    if std::path::Path::new("/sys/block").is_dir() {
        // Whoever asks: a file system without files of one's own.
        let o = highwater(&["probe", "/sys/block"]);
        assert!(
            !o.status.success() && err(&o).contains("  try: a directory on the disk"),
            "{}",
            err(&o)
        );
    }
    let place = dir.path().to_str().unwrap();
    refuses(
        &["probe", place, "--size", "1MiB"],
        2,
        "a probe needs 8 MiB",
    );
    refuses(
        &["probe", place, "--size", "16MiB", "--duration", "1ms"],
        2,
        "say nothing",
    );
    refuses(&["probe", place, "--size", "16383PiB"], 2, "is no size");
    let o = highwater(&["probe", place, "--size", "17179869183GiB"]);
    assert!(err(&o).contains("a smaller --size"), "{}", err(&o));
    // Each is refused before anything is laid out.
    for args in [
        "--size 1",
        "--size 1MiB",
        "--duration 0s",
        "--size 17179869183GiB",
    ] {
        let o = highwater(&[&["probe", place], &common::words(args)[..]].concat());
        assert!(!err(&o).contains("laying out"), "{args}: {}", err(&o));
    }
    // What is refused is not said to be overwritten.
    let o = highwater(&["probe", small.to_str().unwrap(), "--write"]);
    assert!(err(&o).contains("4 KiB"), "{}", err(&o));
    assert!(!err(&o).contains("overwritten"), "{}", err(&o));
    let o = highwater(&["probe", small.to_str().unwrap()]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(!o.status.success());
    assert!(err(&o).contains("try: "), "{}", err(&o));
}

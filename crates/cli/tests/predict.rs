//! Every scenario in one run, predictions beside measurements, and the lab's reports byte for byte.

mod common;

use common::{err, highwater, json, ok, out, refuses, words};

#[test]
fn two_runs_of_one_seed_are_identical_to_the_byte() {
    let run = |seed: &str| {
        let args = "run rfc --world lab --memory 8MiB --duration 60ms --json - --seed";
        ok(&[&words(args)[..], &[seed]].concat()).stdout
    };
    let (first, second) = (run("7"), run("7"));
    assert!(first.len() > 5_000, "five presets are reported");
    assert!(first == second, "nothing is left out of the comparison");
    assert!(first != run("8"), "the seed reaches the numbers");
}

#[test]
fn all_scenarios_are_a_list_of_reports() {
    let args = "run all --world lab --memory 8MiB --duration 50ms --preset highwater --json -";
    let o = ok(&words(args));
    let list = json(&o);
    let names: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["scenario"].as_str().unwrap())
        .collect();
    let listed = out(&ok(&["scenarios"]));
    let listed: Vec<&str> = listed
        .lines()
        .take_while(|l| !l.is_empty())
        .map(|l| l.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(names, listed);
    assert!(list[0].get("predictions").is_none(), "nothing was measured");
    let table = err(&o);
    for name in names {
        assert!(
            table.contains(&format!("{name}, memory 8 MiB")),
            "{name}: {table}"
        );
    }
}

#[test]
fn predictions_stand_beside_what_was_measured() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    let args = "run fits --world os,lab --preset 6.16 --memory 8MiB --duration 100ms --repeat 3 --json - --dir";
    let o = ok(&[&words(args)[..], &[dir]].concat());
    let report = json(&o);
    let worlds: Vec<&str> = report["arms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["world"].as_str().unwrap())
        .collect();
    assert_eq!(worlds, ["os", "os", "os", "lab", "lab", "lab"]);
    let seeds: Vec<_> = (report["arms"].as_array().unwrap().iter())
        .map(|a| a["seed"].as_u64())
        .collect();
    assert_eq!(seeds[3..], [Some(1), Some(2), Some(3)]);
    let predictions = report["predictions"].as_array().unwrap();
    let metrics: Vec<&str> = predictions
        .iter()
        .map(|p| p["metric"].as_str().unwrap())
        .collect();
    assert_eq!(metrics, ["ops_per_s", "p99_us", "written_pages"]);
    let ops = &predictions[0];
    assert_eq!((&ops["os_runs"], &ops["lab_runs"]), (&3.into(), &3.into()));
    let of = |name: &str| ops[name].as_f64().unwrap();
    assert!(of("os_min") <= of("os_median") && of("os_median") <= of("os_max"));
    assert_eq!(of("ratio"), of("lab") / of("os_median"));
    let text = err(&o);
    for said in [
        "prediction: the lab against the OS world",
        // Nobody takes one run for another, nor the lab's own disk for the one of the other runs.
        "os 6.16 #3",
        "lab 6.16 #1",
        "medians of its 3 runs",
        "disk: the lab's model quick, as none was named (run --probe measures",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert_eq!(report["arms"][5]["run"], 3);
}

#[test]
fn bad_input_names_its_remedy() {
    for (args, word) in [
        ("run all --raw", "random-write --raw"),
        ("run rfc --repeat 0", "--repeat"),
    ] {
        refuses(&words(args), 2, &[word]);
    }
}

/// Measures in a process that shares the machine with other tests: what must hold is the table's shape, not its figures.
/// On a loaded machine any figure may be a hundred times what it is on a quiet one.
#[test]
fn a_measured_table_feeds_the_lab() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (table, here) = (at("costs.toml"), at(""));
    let o = ok(&["costs", "--json", "--out", &table, "--dir", &here]);
    let figures = json(&o);
    for name in ["hit_ns", "read_page_ns", "syscall_ns", "task_ns", "wake_ns"] {
        let of = |which: &str| figures[name][which].as_u64().unwrap();
        assert!(
            of("min_ns") > 0 && of("min_ns") <= of("median_ns"),
            "{name}"
        );
        assert!(of("median_ns") <= of("max_ns"), "{name}");
    }
    let text = std::fs::read_to_string(&table).unwrap();
    assert!(
        text.contains("# kernel: ") && text.contains("# commit: "),
        "{text}"
    );
    // As it was measured the lab runs with it, whatever the figures; with other figures, by those.
    assert!(ops_with(&table) > 0.0);
    let slow = ops_with(&dear_pages(dir.path(), &text));
    assert!(slow < DEAR_OPS, "{slow}");

    let o = highwater(&["run", "fits", "--costs", &table]);
    assert_eq!(
        o.status.code(),
        Some(2),
        "the OS world has costs of its own"
    );
}

/// Two CPUs do no more, when each page costs 50 us, with what else an operation costs left out.
const DEAR_OPS: f64 = 41_000.0;

/// The table `text` with pages of 50 us, in `dir`; its path.
fn dear_pages(dir: &std::path::Path, text: &str) -> String {
    common::costs(dir, text, &["read_page_ns", "write_page_ns"], 50_000)
}

/// Operations a second in the lab, at the prices of `table`.
fn ops_with(table: &str) -> f64 {
    let args = "run fits --world lab --preset 6.16 --memory 8MiB --duration 50ms --json - --costs";
    let report = json(&ok(&[&words(args)[..], &[table]].concat()));
    report["arms"][0]["ops_per_s"].as_f64().unwrap()
}

/// By the table that comes with the command: nothing here is measured, so each run is the same to the byte.
#[test]
fn a_table_s_prices_decide_how_quick_the_lab_is() {
    let dir = tempfile::tempdir().unwrap();
    let text = include_str!("../costs.toml");
    let own = common::write(dir.path(), "own.toml", text);
    let (quick, slow) = (ops_with(&own), ops_with(&dear_pages(dir.path(), text)));
    assert!(slow < DEAR_OPS && slow * 2.0 < quick, "{quick} {slow}");

    let bad = common::write(dir.path(), "bad.toml", "hit_ns = -1");
    refuses(
        &["run", "fits", "--world", "lab", "--costs", &bad],
        2,
        &["hit_ns = -1", "highwater costs --out"],
    );
}

#[test]
fn the_disk_is_measured_between_the_runs() {
    let args = "run random-write --world os,lab --preset highwater --memory 8MiB --duration 100ms --repeat 2 --probe 200ms";
    let report = json(&highwater(&words(&format!("{args} --json -"))));
    let arms = report["arms"].as_array().unwrap();
    let worlds: Vec<&str> = arms.iter().map(|a| a["world"].as_str().unwrap()).collect();
    assert_eq!(worlds, ["os", "os", "lab", "lab"]);
    assert_eq!(arms[2]["profile"], arms[3]["profile"]);
    let disk = report["disk"].as_str().unwrap();
    assert!(
        disk.contains("as measured") && !disk.contains("quick"),
        "{disk}"
    );
    assert!(arms[0]["profile"].is_null());
    let profile = arms[2]["profile"].as_str().unwrap();
    assert!(profile.contains("\nmodel = \"ssd\"\n"), "{profile}");
    let bad = |args: &str, what: &str| refuses(&words(args), 2, &[what]);
    bad("run rfc --world lab --probe", "os is not run");
    bad(
        "run rfc --world os,lab --probe 3s --device nvme",
        "--device",
    );
    bad("run rfc --world os,lab --probe 1ms", "--probe 20s");
}

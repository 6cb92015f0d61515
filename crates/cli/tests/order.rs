//! Which page goes first: the orders side by side, in scenarios and on the command line.

mod common;

use common::{json, ok, out, refused, run_scenario, temp};
use std::path::Path;
use std::process::Output;

/// `zipf-mix`, smaller, beside a reader that scans 16 x memory and never comes back to a page soon.
fn scenario(top: &str, end: &str) -> String {
    let text = out(&ok(&["scenario", "show", "zipf-mix"]))
        .replace("64MiB", "8MiB")
        .replace("presets =", &format!("{top}\npresets ="));
    format!(
        "{text}\n[files.scan]\nsize = \"16x\"\n[[tasks]]\nname = \"scan\"\nkind = \"page-read\"\nfile = \"scan\"\n{end}"
    )
}

fn run(dir: &Path, text: &str, args: &[&str]) -> Output {
    run_scenario(dir, "mine.toml", text, &[&["--json", "-"], args].concat())
}

/// Labels and hit ratios.
fn rows(o: &Output) -> Vec<(String, f64)> {
    let report = json(o);
    let arms = report["arms"].as_array().unwrap();
    arms.iter()
        .map(|a| {
            let label = a["preset"].as_str().unwrap().to_string();
            (label, a["hit_ratio"].as_f64().unwrap())
        })
        .collect()
}

#[test]
fn both_orders_differ_on_zipf_beside_a_scan() {
    let dir = temp();
    let args = [
        "--world",
        "lab",
        "--preset",
        "highwater",
        "--order",
        "two-list,s3-fifo",
        "--duration",
        "1s",
    ];
    let text = scenario("", "");
    let rows = rows(&run(dir.path(), &text, &args));
    let labels: Vec<&str> = rows.iter().map(|r| r.0.as_str()).collect();
    assert_eq!(labels, ["highwater", "highwater s3-fifo"]);
    eprintln!("{rows:?}");
    assert!(
        (rows[0].1 - rows[1].1).abs() > 0.001,
        "the orders keep other pages: {rows:?}"
    );
}

#[test]
fn a_scenario_and_an_arm_name_their_order() {
    let dir = temp();
    let text = scenario(
        "order = \"s3-fifo\"",
        "[[arms]]\nname = \"own\"\npreset = \"highwater\"\norder = \"two-list\"\n",
    );
    for world in ["lab", "os"] {
        let args = ["--world", world, "--ops", "3000", "--warm-up", "0.5"];
        let rows = rows(&run(dir.path(), &text, &args));
        let labels: Vec<&str> = rows.iter().map(|r| r.0.as_str()).collect();
        assert_eq!(labels, ["6.16 s3-fifo", "highwater s3-fifo", "own"]);
    }
}

#[test]
fn nonsense_is_refused_with_the_word_meant() {
    let dir = temp();
    for (text, args, what) in [
        (
            scenario("order = \"s3fifo\"", ""),
            &[][..],
            "did you mean `s3-fifo`?",
        ),
        (
            scenario("", ""),
            &["--order", "two-lists"],
            "did you mean two-list?",
        ),
        (scenario("", ""), &["--order", ","], "names no order"),
        (
            scenario("", ""),
            &["--order", "s3-fifo", "--world", "linux"],
            "Linux has its own",
        ),
    ] {
        refused(&run(dir.path(), &text, args), 2, &[what, "\n  try: "]);
    }
}

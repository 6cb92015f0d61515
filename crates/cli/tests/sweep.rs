//! `highwater sweep` as a user meets it: whole sweeps of small cells, and errors with their remedy.

mod common;

use common::{command, err, failed_with, out};
use std::process::Output;

fn run(args: &[&str]) -> Output {
    command()
        .arg("sweep")
        .args(args)
        .output()
        .expect("the binary starts")
}

const SMALL: [&str; 11] = [
    "rfc",
    "--preset",
    "2.6.35,highwater",
    "--pressure",
    "0.5,4",
    "--memory",
    "4MiB",
    "--duration",
    "50ms",
    "--seeds",
    "2",
];

#[test]
fn a_sweep_in_the_lab_repeats_to_the_byte_and_shows_pressure() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (html, svg) = (path("a.html"), path("a.svg"));
    let with_plots = [&SMALL[..], &["--json", "-", "--html", &html, "--svg", &svg]].concat();
    let first = run(&with_plots);
    assert!(first.status.success(), "{}", err(&first));
    assert!(err(&first).contains("p99.9 of probe"), "{}", err(&first));
    let json = out(&first);
    assert_eq!(json, out(&run(&[&SMALL[..], &["--json", "-"]].concat())));

    let v: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&v["task"], &v["world"]), (&"probe".into(), &"lab".into()));
    for arm in v["arms"].as_array().unwrap() {
        let figure = |at: usize, name: &str| arm["points"][at][name]["median"].as_f64().unwrap();
        assert!(figure(1, "hit_ratio") < figure(0, "hit_ratio"), "{arm}");
        assert!(
            figure(1, "refaults_per_op") > figure(0, "refaults_per_op"),
            "{arm}"
        );
        assert!(figure(0, "ops_per_s") > 0.0);
    }
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.ends_with("</html>\n") && page.contains("--preset 2.6.35,highwater"));
    assert!(!page.contains("a.svg"), "outputs are no part of the run");
    assert!(std::fs::read_to_string(svg).unwrap().starts_with("<svg"));
}

#[test]
fn a_sweep_runs_on_real_files() {
    let dir = tempfile::tempdir().unwrap();
    let small = [&SMALL[..9], &["--seeds", "1", "--world", "os", "--dir"]].concat();
    let o = run(&[&small[..], &[dir.path().to_str().unwrap()]].concat());
    assert!(o.status.success(), "{}", err(&o));
    assert!(out(&o).contains("world os"), "{}", out(&o));
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing is left"
    );
}

#[test]
fn nonsense_is_refused_with_a_remedy() {
    for (args, what, remedy) in [
        (&["rcf"][..], "did you mean \"rfc\"?", "try:"),
        (
            &["--pressure", "0.8,often"],
            "\"often\" is no pressure",
            "--pressure 0.8",
        ),
        (&["--pressure", "-1"], "\"-1\" is no pressure", "--pressure"),
        (&["--pressure", "4,2"], "do not rise", "--pressure"),
        (&["--pressure", ","], "names no pressure", "--pressure"),
        (
            &["--preset", "hihgwater"],
            "did you mean highwater?",
            "--preset",
        ),
        (&["--task", "porbe"], "did you mean probe?", "--task"),
        (
            &["--world", "linux"],
            "runs in one of os and lab",
            "--world lab",
        ),
        (
            &["--world", "os,lab"],
            "runs in one of os and lab",
            "--world lab",
        ),
        (
            &["--world", "os", "--device", "nvme"],
            "the lab's disk",
            "--world lab",
        ),
        (&["--memory", "1KiB"], "makes no sense", "--memory"),
        (
            &["--svg", "/no/such/dir/x.svg"],
            "/no/such/dir/x.svg",
            "--svg",
        ),
        (&["--seeds", "0"], "invalid value '0'", "--help"),
    ] {
        failed_with(&run(args), args, what, remedy);
    }
}

#[test]
fn help_says_what_pressure_is() {
    let o = run(&["--help"]);
    let text = out(&o);
    for word in [
        "Pressure is data over memory",
        "Examples",
        "--seeds",
        "cross",
        "Exit codes",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

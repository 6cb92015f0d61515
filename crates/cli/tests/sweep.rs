//! `highwater sweep` as a user meets it: whole sweeps of small cells, and errors with their remedy.

mod common;

use common::{command, err, failed_with, out};
use std::path::Path;
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

/// A trace of 4,000 requests: every other one goes to 1 MiB again and again, the others run through 8 MiB.
fn trace(dir: &Path) -> String {
    let mut text = String::from("version,time,op,size,lbn\n");
    for n in 0..4000u64 {
        let page = match n % 2 {
            0 => n * 7 % 512,
            _ => 512 + n % 4096,
        };
        let op = if n % 8 == 3 { "2a" } else { "28" };
        text.push_str(&format!("1,{},{op},4096,{}\n", n * 100, page * 8));
    }
    let path = dir.join("trace.csv");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_string()
}

fn json(o: &Output) -> serde_json::Value {
    assert!(o.status.success(), "{}", err(o));
    serde_json::from_str(&out(o)).unwrap()
}

#[test]
fn a_trace_is_swept_over_memory_up_to_where_it_fits() {
    let dir = tempfile::tempdir().unwrap();
    let trace = trace(dir.path());
    let html = dir.path().join("m.html").to_str().unwrap().to_string();
    let o = run(&[&trace, "--json", "-", "--html", &html]);
    let v = json(&o);
    assert_eq!(v["axis"], "memory_bytes");
    assert_eq!(v["seeds"], serde_json::json!([1]));
    let mib: Vec<u64> = (v["points"].as_array().unwrap().iter())
        .map(|p| p.as_f64().unwrap() as u64 >> 20)
        .collect();
    assert_eq!(mib, [1, 2, 4, 8, 16]);
    let points = &v["arms"][0]["points"];
    let figure = |at: usize, name: &str| points[at][name]["median"].as_f64().unwrap();
    // What is gone back to fits into the larger ones, and all of it into the last, which reads each page once.
    assert!(
        figure(3, "hit_ratio") > figure(0, "hit_ratio") + 0.2,
        "{points}"
    );
    let footprint = v["footprint_bytes"].as_f64().unwrap();
    assert!(
        figure(4, "read_bytes_per_op") * 4000.0 <= footprint,
        "{points}"
    );
    assert!(figure(0, "read_bytes_per_op") > figure(4, "read_bytes_per_op"));
    let text = err(&o);
    for says in [
        "over memory: 1 arms x 5 points x 1 seeds",
        "highwater: the least memory",
        "--memory",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
    let page = std::fs::read_to_string(html).unwrap();
    assert!(
        page.contains("over memory") && page.contains(">16 MiB</text>"),
        "{page}"
    );
    // The same to the byte.
    assert_eq!(out(&o), out(&run(&[&trace, "--json", "-"])));
    // Its pages, not the file's end: a trace far out is no larger.
    let o = run(&[
        &trace,
        "--memory",
        "2MiB..8MiB",
        "--size",
        "1GiB",
        "--json",
        "-",
    ]);
    assert_eq!(json(&o)["points"].as_array().unwrap().len(), 3);
}

#[test]
fn a_trace_is_swept_over_dirty_limits_and_orders() {
    let dir = tempfile::tempdir().unwrap();
    let trace = trace(dir.path());
    let o = run(&[
        &trace,
        "--memory",
        "4MiB",
        "--dirty-limit",
        "5,60",
        "--order",
        "two-list,s3-fifo",
        "--json",
        "-",
    ]);
    let v = json(&o);
    assert_eq!(v["axis"], "dirty_limit_percent");
    assert_eq!(v["memory_bytes"], 4 << 20);
    let names: Vec<&str> = (v["arms"].as_array().unwrap().iter())
        .map(|a| a["preset"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["highwater", "highwater s3-fifo"]);
    assert!(err(&o).contains("the least dirty limit"), "{}", err(&o));
    // One value for each of them is a point of a curve.
    let o = run(&[
        &trace,
        "--memory",
        "4MiB",
        "--dirty-limit",
        "5",
        "--json",
        "-",
    ]);
    let one = json(&o);
    assert_eq!(one["axis"], "memory_bytes");
    assert_eq!(
        one["arms"][0]["points"][0]["written_bytes_per_op"],
        v["arms"][0]["points"][0]["written_bytes_per_op"]
    );
}

#[test]
fn a_scenario_is_swept_over_memory_with_files_that_stay() {
    let o = run(&[
        "zipf-mix",
        "--memory",
        "2MiB,1GiB",
        "--duration",
        "20ms",
        "--seeds",
        "1",
        "--preset",
        "highwater",
        "--json",
        "-",
    ]);
    let v = json(&o);
    let figure =
        |at: usize, name: &str| v["arms"][0]["points"][at][name]["median"].as_f64().unwrap();
    assert!(
        figure(0, "hit_ratio") < 0.9 && figure(1, "hit_ratio") > 0.99,
        "{v}"
    );
    assert_eq!(v["footprint_bytes"], serde_json::Value::Null);
}

#[test]
fn a_scenario_on_a_volume_is_swept() {
    let o = run(&[
        "deep-chain",
        "--pressure",
        "2",
        "--duration",
        "20ms",
        "--seeds",
        "1",
        "--preset",
        "highwater",
    ]);
    assert!(o.status.success(), "{}", err(&o));
}

#[test]
fn nonsense_about_traces_is_refused_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let trace = trace(dir.path());
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_string()
    };
    let empty = file("empty.csv", b"");
    let packed = file("trace.csv.gz", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    let text = file("letter.txt", b"Dear all,\n");
    let replays = file(
        "r.toml",
        format!(
            "name = 'r'\nabout = 'r'\nfiles.f.size = 'trace'\n[[tasks]]\nname = 'r'\nkind = 'replay'\nfile = 'f'\ntrace = '{trace}'\n"
        )
        .as_bytes(),
    );
    for (args, what, remedy) in [
        (&[empty.as_str()][..], "is empty", "try:"),
        (&[&packed], "is binary", "gzip -dc"),
        (&[&text], "no trace of a known format", "convert it"),
        (&["no-such.csv"], "there is no scenario", "try:"),
        (
            &[&trace, "--pressure", "1,2"],
            "whose addresses cannot be scaled",
            "--memory 16MiB",
        ),
        (
            &[&replays, "--pressure", "1,2"],
            "whose addresses cannot be scaled",
            "--memory 16MiB",
        ),
        (
            &[&trace, "--memory", "8MiB,4MiB"],
            "does not rise",
            "--memory 16MiB",
        ),
        (&[&trace, "--memory", "nan"], "is no size", "--memory 16MiB"),
        (
            &[&trace, "--dirty-limit", "0,50"],
            "is no dirty limit",
            "--dirty-limit 5",
        ),
        (
            &[&trace, "--dirty-limit", "5,10", "--memory", "4MiB,8MiB"],
            "are lists",
            "one value",
        ),
        (
            &[&trace, "--speed", "2"],
            "the trace's own times",
            "--pace timestamps",
        ),
        (&[&trace, "--order", "lru"], "unknown order", "--order"),
        (
            &[&trace, "--size", "64KiB"],
            "lies beyond the end",
            "--size",
        ),
    ] {
        failed_with(&run(args), args, what, remedy);
    }
    // A scenario with a trace in it is swept over memory, too.
    let o = run(&[&replays, "--json", "-"]);
    assert_eq!(json(&o)["axis"], "memory_bytes");
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
        "which memory size does this trace need?",
        "Of a trace, as `replay` has them",
        "Examples",
        "--seeds",
        "cross",
        "Exit codes",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

//! `--html` on whole runs of the lab: one page, the same to the byte for the same seed.

mod common;

use common::{command, err, refused, succeeded, words};
use std::path::Path;
use std::process::Output;

fn highwater(args: &[&str], page: &Path) -> Output {
    let mut highwater = command();
    highwater.args(args).arg("--html").arg(page);
    highwater.output().expect("the binary starts")
}

fn page(args: &[&str], path: &Path) -> String {
    let o = succeeded(highwater(args, path), &format!("{args:?}"));
    assert!(err(&o).contains(&format!("page: {}", path.display())));
    std::fs::read_to_string(path).unwrap()
}

const RFC: [&str; 10] = [
    "run",
    "rfc",
    "--world",
    "lab",
    "--memory",
    "8MiB",
    "--duration",
    "200ms",
    "--seed",
    "3",
];

#[test]
fn a_run_of_the_lab_gives_the_same_page_twice() {
    let dir = tempfile::tempdir().unwrap();
    let first = page(&RFC, &dir.path().join("a.html"));
    let second = page(&RFC, &dir.path().join("b c.html"));
    assert_eq!(first, second);
    for arm in ["lab 2.6.35", "lab highwater"] {
        assert!(
            first.contains(&format!("Memory by state over time, {arm}")),
            "{arm}"
        );
        assert!(first.contains(&format!("Stalls over time, {arm}")), "{arm}");
    }
    assert!(
        first.contains("highwater run rfc --world lab --memory 8MiB --duration 200ms --seed 3<")
    );
    assert!(first.contains("dirty limit") && first.contains(">low<"));
    let own = first.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    assert!(!own.contains("http:") && !own.contains("https:") && !own.contains("<script"));
    let other = [&RFC[..9], &["4"]].concat();
    assert_ne!(
        first,
        page(&other, &dir.path().join("c.html")),
        "another seed, another page"
    );
}

#[test]
fn the_matrix_has_a_page_with_every_pair() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "matrix",
        "--world",
        "lab",
        "--memory",
        "4MiB",
        "--duration",
        "50ms",
    ];
    let html = page(&args, &dir.path().join("m.html"));
    assert_eq!(html.matches("<title id=\"mem").count(), 12);
    assert!(html.contains("flusher x io-less"));
}

#[test]
fn a_page_that_cannot_be_written_is_refused_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    for path in [
        dir.path().join("no/such/dir.html"),
        dir.path().to_path_buf(),
    ] {
        let o = highwater(&RFC, &path);
        let text = refused(&o, 1, &[&path.display().to_string(), "\n  try: --html"]);
        assert!(!text.contains("ops/s, longest wait"), "an arm ran: {text}");
    }
}

#[test]
fn a_page_of_all_scenarios_has_a_part_for_each() {
    let dir = tempfile::tempdir().unwrap();
    let args = "run all --world lab --memory 4MiB --duration 20ms --preset highwater";
    let html = page(&words(args), &dir.path().join("all.html"));
    let listed = common::out(&common::ok(&["scenarios"]));
    let names: Vec<&str> = listed
        .lines()
        .take_while(|l| !l.is_empty())
        .map(|l| l.split_whitespace().next().unwrap())
        .collect();
    assert!(names.len() > 8, "{names:?}");
    for (n, name) in names.iter().enumerate() {
        assert!(
            html.contains(&format!("<li><a href=\"#s{n}\">{name}</a>: ")),
            "{name}"
        );
        let part = format!("<article id=\"s{n}\"><header><h2>{name}</h2>");
        assert!(html.contains(&part), "{name}");
        assert!(
            html.contains(&format!("<section id=\"s{n}-memory\">")),
            "{name}"
        );
    }
    assert_eq!(html.matches("<article").count(), names.len());
    assert!(html.contains(&format!("<pre>highwater {args}</pre>")));
    assert!(!html.contains("id=\"predictions\""), "nothing was measured");
    let ids: Vec<&str> = html
        .split(" id=\"")
        .skip(1)
        .map(|t| t.split('"').next().unwrap())
        .collect();
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "an id names one thing");
}

#[test]
fn a_page_of_all_that_cannot_be_written_is_refused_before_anything_runs() {
    let o = highwater(
        &["run", "all", "--world", "lab"],
        Path::new("/no/such/dir/all.html"),
    );
    let text = refused(&o, 1, &["/no/such/dir/all.html", "\n  try: --html"]);
    assert!(!text.contains("ops/s, longest wait"), "an arm ran: {text}");
}

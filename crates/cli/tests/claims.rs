//! `highwater claims` as a user meets it: runs of one claim, and errors with their remedy.

mod common;

use common::{command, err, failed_with, out};
use std::process::Output;

fn run(args: &[&str]) -> Output {
    command()
        .arg("claims")
        .args(args)
        .output()
        .expect("the binary starts")
}

/// CLAIM-3, and a verdict that figures make.
#[test]
fn a_claim_is_measured_and_repeats_to_the_byte() {
    let args = [
        "--only",
        "naps-below-2,splice",
        "--seeds",
        "2",
        "--json",
        "-",
    ];
    let first = run(&args);
    assert!(first.status.success(), "{}", err(&first));
    assert_eq!(out(&first), out(&run(&args)));
    let v: serde_json::Value = serde_json::from_str(&out(&first)).unwrap();
    let naps = &v["claims"][0];
    assert_eq!(naps["name"], "naps-below-2");
    let conditions = naps["conditions"].as_array().unwrap();
    let mut answers = Vec::new();
    for seed in conditions
        .iter()
        .flat_map(|c| c["seeds"].as_array().unwrap())
    {
        let figure = |name: &str| seed["figures"][name].as_f64().unwrap();
        assert!(figure("naps") > 0.0, "{seed}");
        let holds = figure("naps_below_2") >= 0.9 * figure("naps");
        assert_eq!(
            seed["answer"],
            if holds { "holds" } else { "fails" },
            "{seed}"
        );
        answers.push(holds);
    }
    assert_eq!(answers.len(), conditions.len() * 2);
    let verdict = match (answers.contains(&true), answers.contains(&false)) {
        (true, false) => "holds",
        (false, true) => "does-not-hold",
        _ => "depends-on",
    };
    assert_eq!(naps["verdict"], verdict);
    let splice = &v["claims"][1]["conditions"][0]["seeds"][0]["figures"];
    assert_eq!(
        (&splice["outer"], &splice["below_writepage"]),
        (&5064.0.into(), &3776.0.into())
    );
}

#[test]
fn claims_run_on_real_files() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    let o = run(&[
        "--only",
        "refused-already",
        "--world",
        "os",
        "--dir",
        dir,
        "--verbose",
    ]);
    let text = out(&o);
    assert!(o.status.success(), "{}", err(&o));
    for word in [
        "world os",
        "XFS and btrfs",
        "rule:",
        "written_by_reclaim        0\n",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn nonsense_is_refused_with_a_remedy() {
    for (args, what, remedy) in [
        (
            &["--only", "flase-oom"][..],
            "did you mean false-oom?",
            "naps-below-2",
        ),
        (&["--only", ","], "names no claim", "--only splice"),
        (
            &["--world", "linux"],
            "run in one of os and lab",
            "--world lab",
        ),
        (&["--world", "lba"], "did you mean lab?", "--world"),
        (
            &["--update", "no/such/page.md"],
            "no/such/page.md",
            "--update",
        ),
        (
            &["--update", "Cargo.toml"],
            "lacks the markers",
            "begin: highwater claims",
        ),
        (&["--seeds", "0"], "invalid value '0'", "--help"),
        (
            &["--markdown", "--json", "-"],
            "cannot be used with",
            "--help",
        ),
    ] {
        failed_with(&run(args), args, what, remedy);
    }
}

#[test]
fn help_says_what_a_verdict_is() {
    let text = out(&run(&["--help"]));
    for word in [
        "does not hold",
        "depends on",
        "--only",
        "--update",
        "Exit codes",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

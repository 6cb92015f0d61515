//! `highwater stack` and `--stack`: depths, chains that add up, and overflows as findings.

mod common;

use common::{err, highwater, json, ok, out, refuses};
use serde_json::Value;

/// The smallest work that reclaims: some thousand operations on 4 MiB.
const SMALL: [&str; 5] = ["rfc", "--memory", "4MiB", "--ops", "3000"];

/// A build with debug assertions keeps more on its stacks.
const STACK: &str = if cfg!(debug_assertions) {
    "16KiB"
} else {
    "8KiB"
};

fn measured() -> bool {
    cfg!(all(target_arch = "x86_64", target_os = "linux"))
}

fn stack(args: &[&str]) -> Value {
    json(&highwater(
        &[&["stack"], &SMALL[..], args, &["--json", "-"]].concat(),
    ))
}

/// The bytes of `chain`'s frames add up to its depth, frame by frame (STACKS-1).
fn assert_adds_up(chain: &[Value]) {
    let n = |v: &Value| v.as_u64().unwrap();
    let mut left = n(&chain[0]["depth"]);
    for frame in chain {
        assert_eq!(n(&frame["depth"]), left, "{chain:?}");
        left -= n(&frame["size"]);
    }
    assert_eq!(left, 0, "{chain:?}");
}

#[test]
fn each_kind_has_its_depth_and_a_chain_that_adds_up_to_it() {
    if !measured() {
        return;
    }
    let report = stack(&["--preset", "2.6.35,highwater", "--stack", STACK]);
    for arm in report["arms"].as_array().unwrap() {
        let tasks = arm["stacks"]["tasks"].as_array().unwrap();
        let names: Vec<_> = tasks.iter().map(|t| t["task"].as_str().unwrap()).collect();
        for kind in [
            "write_at",
            "page_mut",
            "stream",
            "probe",
            "kswapd",
            "flush-lab",
            "warm-up",
        ] {
            assert!(names.contains(&kind), "{kind}: {names:?}");
        }
        for task in tasks {
            let deepest = task["deepest"].as_u64().unwrap();
            assert!(
                deepest > 0 && deepest <= task["size"].as_u64().unwrap(),
                "{task}"
            );
            let chain = task["chain"].as_array().unwrap();
            if !chain.is_empty() {
                assert_eq!(chain[0]["depth"].as_u64(), Some(deepest), "{task}");
                assert_adds_up(chain);
            }
        }
        let with_chain = tasks.iter().filter(|t| t["chain"] != Value::Array(vec![]));
        assert!(with_chain.count() * 2 > tasks.len(), "{tasks:?}");
        let calls = arm["stacks"]["calls"].as_array().unwrap();
        let write = calls
            .iter()
            .find(|c| c["entry"] == "File::write_at")
            .unwrap();
        let writer = tasks.iter().find(|t| t["task"] == "write_at").unwrap();
        assert!(write["deepest"].as_u64() < writer["deepest"].as_u64());
        assert!(write["calls"].as_u64() > Some(100));
    }
}

#[test]
fn a_plain_run_says_nothing_of_stacks() {
    let report = json(&ok(&[
        "run", "rfc", "--world", "lab", "--memory", "4MiB", "--ops", "500", "--preset", "6.16",
        "--json", "-",
    ]));
    assert!(report["arms"][0].get("stacks").is_none());
}

#[test]
fn a_stack_that_is_too_small_is_a_finding_with_its_chain() {
    if !measured() {
        return;
    }
    let args = ["--world", "lab", "--stack", "4KiB", "--preset", "2.6.35"];
    let o = highwater(&[&["run"], &SMALL[..], &args[..]].concat());
    assert_eq!(o.status.code(), Some(1), "{}", err(&o));
    let said = err(&o);
    assert!(
        said.contains("overflowed its stack of 4096 bytes"),
        "{said}"
    );
    assert!(
        said.contains("        Depth    Size   Location    ("),
        "{said}"
    );
    assert!(said.contains("  0) "), "{said}");
    assert!(
        said.trim_end()
            .lines()
            .last()
            .unwrap()
            .contains("--stack 8KiB"),
        "{said}"
    );
    let o = highwater(&[&["stack"], &SMALL[..], &args[2..], &["--seeds", "2"]].concat());
    assert_eq!(o.status.code(), Some(1));
    assert!(
        err(&o).contains("seed 1: lab 2.6.35: ") && err(&o).contains("--seed 1"),
        "{}",
        err(&o)
    );
}

/// A run that fails takes nothing from those that had ended: README's `run deep-chain --world lab --stack 8KiB` comes to its
/// overflow after minutes, in the last of eight arms.
#[test]
fn what_had_ended_before_a_run_that_failed_is_printed() {
    if !measured() {
        return;
    }
    let text = out(&ok(&["scenario", "show", "rfc"]))
        .replace("settle = \"500ms\"", "settle = \"5ms\"")
        .replace("presets = [\"all\"]", "presets = [\"3.2\"]");
    let arm = "\n[[arms]]\nname = \"last\"\npreset = \"3.2\"\n";
    let dir = common::temp();
    // The first has no need of a lab's stack.
    let path = common::write(dir.path(), "two.toml", text + arm);
    let args = [
        "run",
        &path,
        "--world",
        "os,lab",
        "--stack",
        "4KiB",
        "--memory",
        "4MiB",
        "--duration",
        "20ms",
        "--json",
        "-",
        "--dir",
    ];
    let o = highwater(&[&args[..], &[dir.path().to_str().unwrap()]].concat());
    let said = common::refused(&o, 1, &["overflowed its stack", "2 of 4 runs"]);
    assert!(!said.contains("panic"), "an overflow is a finding: {said}");
    assert!(said.contains("os last"), "no table: {said}");
    let report: Value = serde_json::from_slice(&o.stdout).unwrap();
    assert_eq!(report["arms"].as_array().unwrap().len(), 2);
    let failed = report["failed"]["message"].as_str().unwrap();
    assert!(failed.contains("lab 3.2: "), "{failed}");
    assert_eq!(report["failed"]["runs"], 4);
}

/// How often direct reclaim is in a chain of calls.
fn reclaims(chain: &Value) -> usize {
    let chain = chain.as_array().unwrap().iter();
    let names = chain.map(|f| f["location"].as_str().unwrap());
    names.filter(|n| n.contains("direct_reclaim")).count()
}

/// An allocation inside `->writepage` that may reclaim, with the guard against recursion off: reclaim in reclaim in reclaim.
/// The stack is more than the arm with the guard needs in any build, by a tenth, and less than two reclaims in one another do;
/// whether they meet is the schedule's, so some seeds are tried.
#[test]
fn an_arm_that_overflows_is_a_row_beside_those_that_do_not() {
    if !measured() {
        return;
    }
    let text = out(&ok(&["scenario", "show", "deep-chain"]))
        .replace("settle = \"500ms\"", "settle = \"5ms\"")
        .replace("presets = [\"all\"]", "presets = [\"highwater\"]");
    // The other arms splice chains with the guard on, and come close to this stack's end.
    let (head, arms) = text.split_once("[[arms]]").unwrap();
    let no_guard = arms.split("[[arms]]").last().unwrap();
    assert!(no_guard.contains("recursion_guard = false"), "{no_guard}");
    let dir = common::temp();
    let path = common::write(dir.path(), "deep.toml", format!("{head}[[arms]]{no_guard}"));
    let small = "--memory 4MiB --duration 60ms --json - --stack 9KiB --seed";
    let overflows = (1..=8).find_map(|seed: u32| {
        let seed = seed.to_string();
        let o = highwater(&[&["stack", &path], &common::words(small)[..], &[&seed]].concat());
        let report: Value = serde_json::from_slice(&o.stdout).unwrap();
        let arms = report["arms"].as_array().unwrap();
        assert_eq!(arms.len(), 2);
        assert!(arms[0]["stacks"]["tasks"].as_array().unwrap().len() > 5);
        assert!(arms[0]["stacks"].get("overflow").is_none_or(Value::is_null));
        let over = arms[1]["stacks"].get("overflow").filter(|o| !o.is_null());
        let over = over.filter(|over| reclaims(&over["chain"]) > 1);
        over.map(|over| (o, over.clone()))
    });
    let (o, over) = overflows.expect("one seed of eight in which a reclaimer reclaims");
    assert_eq!(o.status.code(), Some(1), "{}", err(&o));
    assert!(
        err(&o).contains("a stack overflowed: lab 2.6.35 no guard"),
        "{}",
        err(&o)
    );
    let chain = over["chain"].as_array().unwrap();
    assert_adds_up(chain);
    assert!(over["fault"].as_u64() > Some(9 << 10));
}

#[test]
fn seeds_on_small_stacks_print_the_deepest_of_all() {
    if !measured() {
        return;
    }
    let args = [
        "--stack",
        STACK,
        "--preset",
        "highwater",
        "--seeds",
        "3",
        "--jobs",
        "2",
    ];
    let o = ok(&[&["stack"], &SMALL[..], &args[..]].concat());
    let text = out(&o);
    assert!(text.contains("3 seeds on stacks of"), "{text}");
    assert!(
        text.contains("write_at") && text.contains("(seed "),
        "{text}"
    );
}

#[test]
fn threads_are_measured_too_and_their_chains_add_up() {
    if !measured() {
        return;
    }
    let report = stack(&["--world", "os", "--preset", "2.6.35", "--dir", "."]);
    let tasks = report["arms"][0]["stacks"]["tasks"].as_array().unwrap();
    for kind in ["write_at", "kswapd"] {
        let task = tasks.iter().find(|t| t["task"] == kind).unwrap();
        let deepest = task["deepest"].as_u64().unwrap();
        let chain = task["chain"].as_array().unwrap();
        assert_adds_up(chain);
        let depth = chain[0]["depth"].as_u64().unwrap();
        assert!(depth > 500 && depth <= deepest, "{task}");
        assert_eq!(task["at_least"], false, "{task}");
    }
    let calls = report["arms"][0]["stacks"]["calls"].as_array().unwrap();
    assert!(calls.iter().any(|c| c["entry"] == "File::write_at"));
}

#[test]
fn the_soak_runs_on_small_stacks_by_one_policy() {
    let args = [
        "soak",
        "--seeds",
        "1",
        "--stack",
        "32KiB",
        "--preset",
        "6.16",
        "--verbose",
    ];
    let o = ok(&args);
    assert!(err(&o).contains("6.16"), "{}", err(&o));
    refuses(&["soak", "--preset", "all"], 2, &["a seed runs one"]);
    refuses(&["soak", "--stack", "100"], 2, &["4KiB to 64MiB"]);
}

#[test]
fn what_cannot_be_a_stack_is_refused() {
    refuses(
        &["run", "rfc", "--world", "lab", "--stack", "8200"],
        2,
        &["multiple of 16", "8208"],
    );
    refuses(&["stack", "rfc", "--stack", "1KiB"], 2, &["4KiB to 64MiB"]);
    refuses(
        &["run", "rfc", "--stack", "8KiB"],
        2,
        &["--stack is for the lab"],
    );
    if measured() {
        refuses(
            &["stack", "--seeds", "2", "--world", "os"],
            2,
            &["threads do not repeat"],
        );
        refuses(
            &["stack", "--world", "linux"],
            2,
            &["os or lab", "--world lab"],
        );
        refuses(
            &["stack", "--table", "--write", "/nowhere/table.toml"],
            1,
            &["/nowhere/table.toml"],
        );
    }
}

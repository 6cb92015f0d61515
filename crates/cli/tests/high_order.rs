//! Tasks that ask for blocks of frames: what the rows say must follow from the policy, in both worlds of the engine.

mod common;

use serde_json::Value;
use std::process::Output;

const SMALL: &str = r#"
name = "blocks"
about = "blocks beside readers of twice the memory"
memory = "32MiB"
settle = "100ms"
duration = "500ms"
presets = ["6.16"]

[files.data]
size = "2x"

[[tasks]]
name = "read"
kind = "random-read"
file = "data"
threads = 2
think = "20us"

[[tasks]]
name = "write"
kind = "random-write"
file = "data"
think = "200us"

[[tasks]]
name = "buffer"
kind = "alloc-block"
order = 6
hold = 8
rate = 400.0

[[tasks]]
name = "huge"
kind = "alloc-block"
order = 9
thp = true
rate = 40.0

[[arms]]
name = "lumpy"
preset = "2.6.35"
policy = { high_order = "lumpy" }

[[arms]]
name = "both"
preset = "2.6.35"
policy = { high_order = "both" }
"#;

fn run(world: &str, more: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let path = common::write(dir.path(), "blocks.toml", SMALL);
    let mut run = common::command();
    run.args(["run", &path, "--world", world, "--json", "-", "--dir"]);
    run.arg(dir.path()).args(more).output().unwrap()
}

fn arms(o: &Output) -> Vec<Value> {
    common::json(o)["arms"].as_array().unwrap().clone()
}

fn check(arm: &Value) {
    let title = format!("{} {}", arm["world"], arm["preset"]);
    let count = |name: &str| arm["vmstat"][name].as_u64().unwrap();
    let blocks: Vec<&Value> = arm["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|t| t.get("blocks").is_some())
        .collect();
    assert_eq!(blocks.len(), 2, "{title}");
    let mut got = 0;
    for task in &blocks {
        let b = &task["blocks"];
        assert!(b["asked"].as_u64().unwrap() > 0, "{title}: {task}");
        assert_eq!(b["got"], task["ops"], "{title}");
        got += b["got"].as_u64().unwrap();
    }
    let buffer = &blocks[0]["blocks"];
    assert_eq!(buffer["order"], 6, "{title}");
    assert!(
        buffer["success"].as_f64().unwrap() > 0.3,
        "{title}: {buffer}"
    );
    assert_eq!(
        (&blocks[1]["blocks"]["thp"], &blocks[1]["blocks"]["order"]),
        (&Value::Bool(true), &9.into())
    );
    // The counters are of the same time, give or take what was under way at its ends.
    let counted = arm["per_block"]["blocks"].as_u64().unwrap();
    assert!(
        counted.abs_diff(got) <= 8 + got / 4,
        "{title}: {counted} {got}"
    );
    match arm["preset"].as_str().unwrap() {
        "6.16" => assert_eq!(count("nr_lumpy_taken"), 0, "{title}"),
        "lumpy" => {
            assert_eq!(
                count("compact_stall") + count("pgmigrate_success"),
                0,
                "{title}"
            );
            assert!(count("pgreclaim_lumpy") > 0, "{title}");
        }
        _ => {}
    }
    assert_eq!(count("lost_wakeups"), 0, "{title}");
}

#[test]
fn the_lab_says_what_blocks_cost_and_repeats_it() {
    let first = common::succeeded(run("lab", &["--seed", "3"]), "lab");
    let all = arms(&first);
    assert_eq!(all.len(), 3);
    all.iter().for_each(check);
    let text = String::from_utf8_lossy(&first.stderr);
    assert!(
        text.contains("buffer got ") && text.contains("for each block"),
        "{text}"
    );
    let again = common::succeeded(run("lab", &["--seed", "3"]), "lab");
    assert_eq!(first.stdout, again.stdout, "a seed repeats");
}

#[test]
fn the_os_world_lends_blocks_too() {
    let o = common::succeeded(run("os", &[]), "os");
    arms(&o).iter().for_each(check);
}

#[test]
fn linux_lends_none_and_says_what_does() {
    let o = run("linux", &[]);
    assert_eq!(o.status.code(), Some(2));
    let text = String::from_utf8_lossy(&o.stderr);
    assert!(
        text.contains("\"buffer\" asks for blocks of page frames"),
        "{text}"
    );
    assert!(text.contains("--world os,lab"), "{text}");
    let o = common::succeeded(run("linux,lab", &["--preset", "6.16"]), "linux,lab");
    assert_eq!(arms(&o).len(), 1);
    let text = String::from_utf8_lossy(&o.stderr);
    assert!(text.contains("note: no row of Linux"), "{text}");
}

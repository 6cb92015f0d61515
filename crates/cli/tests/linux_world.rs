//! `--world linux` on this machine: it sets sysctls and cgroups of the whole machine for a second, so it runs only when
//! asked to: `HIGHWATER_TEST_LINUX=1 cargo test -p highwater-cli --test linux_world` as root.

mod common;

use common::{entries, json, temp};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const KNOBS: [&str; 4] = [
    "dirty_bytes",
    "dirty_ratio",
    "dirty_background_bytes",
    "dirty_background_ratio",
];

fn knobs() -> [String; 4] {
    KNOBS.map(|k| std::fs::read_to_string(Path::new("/proc/sys/vm").join(k)).unwrap_or_default())
}

fn asked_for() -> bool {
    let asked = std::env::var_os("HIGHWATER_TEST_LINUX").is_some();
    if !asked {
        eprintln!("skipped: set HIGHWATER_TEST_LINUX=1, as root, to run it");
    }
    asked
}

fn command(dir: &Path, duration: &str) -> Command {
    let mut command = common::command();
    command.args([
        "run",
        "random-write",
        "--world",
        "linux",
        "--memory",
        "16MiB",
        "--duration",
        duration,
        "--json",
        "-",
    ]);
    command.arg("--dir").arg(dir);
    command
}

/// One test, so that the two parts do not see each other's sysctls.
#[test]
fn linux_runs_within_its_group_and_everything_is_restored() {
    if !asked_for() {
        return;
    }
    let before = knobs();
    let dir = temp();

    let o = command(dir.path(), "500ms").output().unwrap();
    let json = json(&o);
    let arm = &json["arms"][0];
    assert!(
        arm["world"]
            .as_str()
            .unwrap()
            .starts_with("linux (cgroup v")
    );
    let budget = json["memory_bytes"].as_u64().unwrap();
    let over = arm["peak_rss_bytes"].as_u64().unwrap() - arm["idle_rss_bytes"].as_u64().unwrap();
    assert!(over <= budget, "the group held: {over} of {budget}");
    assert!(arm["ops_per_s"].as_f64().unwrap() > 0.0);
    assert_eq!(knobs(), before, "after a run");
    assert_eq!(entries(dir.path()), 0);

    let mut child = command(dir.path(), "30s")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while knobs() == before
        && begin.elapsed() < Duration::from_secs(10)
        && child.try_wait().unwrap().is_none()
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 2));
    assert_eq!(knobs(), before, "after Ctrl-C");
    assert_eq!(entries(dir.path()), 0);
}

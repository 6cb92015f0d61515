use super::*;
use crate::samples::Reading;
use crate::scenario::load;
use crate::world_linux::{PlainFile, ThreadHost};
use std::os::unix::fs::FileExt;

fn plan_of(text: &str, dir: &std::path::Path) -> Plan {
    let scenario = load("t", text).unwrap();
    let arm = crate::plan::arms(
        &scenario,
        &[crate::plan::WorldName::Linux],
        &[],
        false,
        false,
    )
    .remove(0);
    Plan::new(&scenario, arm, dir)
}

/// Every kind at once, on plain files: all make progress, none grows its file, the warm-up is not counted.
#[test]
fn every_kind_runs_and_stays_within_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let kinds = [
        "random-write",
        "page-mut-write",
        "random-read",
        "page-read",
        "stream-read",
        "stream-write",
        "zipf",
    ];
    let mut text = String::from(
        "name = \"t\"\nabout = \"\"\nmemory = \"1MiB\"\nsettle = \"200ms\"\nduration = \"120ms\"\n\
         [files.data]\nsize = \"2x\"\n[files.fresh]\nsize = \"2x\"\nsparse = true\n",
    );
    for kind in kinds {
        text.push_str(&format!("[[tasks]]\nname = \"{kind}\"\nkind = \"{kind}\"\nfile = \"data\"\nthink = \"1ms\"\nthreads = 2\n"));
    }
    text.push_str(
        "[[tasks]]\nname = \"fresh\"\nkind = \"fresh-page\"\nfile = \"fresh\"\nrate = 200.0\n",
    );
    let plan = plan_of(&text, dir.path());
    for file in &plan.files {
        std::fs::File::create(&file.path)
            .unwrap()
            .set_len(file.len)
            .unwrap();
    }
    let files: Vec<PlainFile> = plan
        .files
        .iter()
        .map(|f| PlainFile::open(f, 4096).unwrap())
        .collect();
    let mut calls = 0u64;
    let report = measure(
        &plan,
        &Arc::new(ThreadHost::new()),
        &files,
        || {
            calls += 1;
            Counters::from([("calls".to_string(), calls * 10)])
        },
        Arc::new(Reading::default),
    )
    .unwrap();
    assert_eq!(report.tasks.len(), 8);
    for task in &report.tasks {
        assert!(task.ops > 0, "{} did nothing", task.name);
        let l = task.latency_us;
        assert!(
            l.p50 > 0.0 && l.p50 <= l.p99 && l.p99 <= l.p999 && l.p9999 <= l.max,
            "{l:?}"
        );
        let curve = task.percentiles.as_ref().unwrap();
        assert!(
            curve.is_sorted_by(|a, b| a[0] < b[0] && a[1] <= b[1]),
            "{curve:?}"
        );
        assert!(curve.contains(&[50.0, l.p50]), "{curve:?}");
    }
    let fresh = report.tasks.last().unwrap();
    assert!(fresh.ops <= 26, "rate 200/s over 120 ms, got {}", fresh.ops);
    assert_eq!(
        report.vmstat["calls"], 10,
        "the difference of two snapshots"
    );
    assert!(report.ops_per_s >= report.ops_per_s_with_sync);
    let samples = report.samples.as_ref().unwrap();
    assert!(samples.t_s.is_sorted() && samples.t_s[0] < 0.0 && samples.t_s.len() > 2);
    for task in &report.tasks {
        assert!(
            samples.ops[&task.name].iter().sum::<u64>() > 0,
            "{}",
            task.name
        );
    }
    for file in &plan.files {
        assert_eq!(
            std::fs::metadata(&file.path).unwrap().len(),
            file.len,
            "{}",
            file.name
        );
    }
    let mut byte = [0u8];
    std::fs::File::open(&plan.files[0].path)
        .unwrap()
        .read_exact_at(&mut byte, 4095)
        .unwrap();
    assert_ne!(byte[0], 0, "the warm-up wrote");
}

#[test]
fn a_task_that_fails_fails_the_arm_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let text = "name = \"t\"\nabout = \"\"\nmemory = \"1MiB\"\nwarm_up = 0.0\nsettle = \"0s\"\nduration = \"50ms\"\n\
        [files.data]\nsize = \"1x\"\n[[tasks]]\nname = \"reader\"\nkind = \"random-read\"\nfile = \"data\"\n";
    let plan = plan_of(text, dir.path());
    // Shorter than the plan says: reads beyond its end come back short.
    std::fs::write(&plan.files[0].path, b"short").unwrap();
    let file = PlainFile::open(&plan.files[0], 4096).unwrap();
    let e = measure(
        &plan,
        &Arc::new(ThreadHost::new()),
        &[file],
        Counters::new,
        Arc::new(Reading::default),
    )
    .unwrap_err();
    assert!(e.message.contains("task reader"), "{e}");
}

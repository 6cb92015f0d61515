//! `highwater volume` as a user meets it: make, look, check, damage, and scenarios on volumes.

mod common;

use common::{err, highwater, out, refused, refuses};
use std::os::unix::fs::FileExt;
use std::path::Path;

fn run(args: &[&str]) -> String {
    let done = highwater(args);
    assert!(done.status.success(), "{args:?}: {}", err(&done));
    out(&done)
}

fn made(dir: &Path) -> String {
    let path = dir.join("disk.hwv").display().to_string();
    run(&["volume", "create", &path, "--size", "4MiB"]);
    path
}

fn flip(path: &str, at: u64) {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}

#[test]
fn a_volume_is_made_looked_at_and_clean() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path());
    let text = run(&["volume", "info", &path]);
    for word in ["4 MiB at most", "blocks of 4 KiB", "format version 1"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let text = run(&["volume", "fsck", &path]);
    assert!(text.ends_with("clean\n"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&run(&["volume", "fsck", &path, "--json", "-"])).unwrap();
    assert_eq!(json["clean"], true);
    assert_eq!(json["info"]["size_bytes"], 4 << 20);
    let mut names: Vec<&String> = json["info"].as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(
        names,
        [
            "block_size",
            "data_blocks",
            "disk_bytes",
            "extents",
            "format_version",
            "free_blocks",
            "len_bytes",
            "log_blocks",
            "log_blocks_used",
            "map_blocks",
            "size_bytes",
            "transactions",
            "used_blocks",
            "uuid"
        ]
    );
}

#[test]
fn nonsense_is_refused_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path());
    let other = dir.path().join("other").display().to_string();
    refuses(
        &["volume", "create", &path, "--size", "4MiB"],
        2,
        &["would overwrite", "--force"],
    );
    run(&["volume", "create", &path, "--size", "8MiB", "--force"]);
    refuses(
        &[
            "volume", "create", &other, "--size", "4MiB", "--block", "5000",
        ],
        2,
        &["a power of two", "--block 4KiB"],
    );
    // No cache has frames of that size, and so none could open it.
    refuses(
        &[
            "volume", "create", &other, "--size", "4MiB", "--block", "1MiB",
        ],
        2,
        &["4 KiB to 64 KiB", "--block 4KiB"],
    );
    refuses(
        &[
            "volume", "create", &other, "--size", "4MiB", "--disk", "64KiB",
        ],
        2,
        &["blocks", "--help"],
    );
    assert!(!Path::new(&other).exists(), "what was not made is not left");
    refuses(&["volume", "info", &other], 1, &["open", &other]);
    std::fs::write(&other, vec![7; 1 << 20]).unwrap();
    refuses(
        &["volume", "info", &other],
        2,
        &["not a volume", "volume create"],
    );
    refuses(&["volume", "fsck", &other], 2, &["not a volume"]);
    for what in ["info", "fsck"] {
        let dir = dir.path().to_str().unwrap();
        let said = refuses(&["volume", what, dir], 2, &["a directory"]);
        assert!(!said.contains("--force"), "it has no such option: {said}");
        // A path that is a part of some word of the message.
        std::fs::write(format!("{dir}/e"), "").unwrap();
        let mut look = common::command();
        look.args(["volume", what, "e"]).current_dir(dir);
        let said = look.output().unwrap();
        refused(&said, 2, &["highwater: e: this is not a volume"]);
    }
    refuses(&["volume", "crash-test", "--images", "0"], 2, &["--images"]);
    refuses(&["volume", "cretae", &other], 2, &["create"]);
}

/// A version from the future, told from damage by its checksum.
#[test]
fn a_newer_version_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path());
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    for at in [0, 4096] {
        let mut sector = [0; 512];
        file.read_exact_at(&mut sector, at).unwrap();
        assert_eq!(&sector[..8], b"HWVOLUME");
        sector[8..12].copy_from_slice(&2u32.to_le_bytes());
        sector[12..16].fill(0);
        let crc = crc32c::crc32c(&sector);
        sector[12..16].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(&sector, at).unwrap();
    }
    for what in ["info", "fsck"] {
        refuses(
            &["volume", what, &path],
            2,
            &["format version 2", "a newer highwater"],
        );
    }
}

#[test]
fn damage_is_listed_and_ends_in_exit_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path());
    // One superblock alone is what a power failure leaves.
    flip(&path, 100);
    let text = run(&["volume", "fsck", &path]);
    assert!(text.contains("note: superblock 0"), "{text}");
    flip(&path, 4096 + 100);
    refuses(&["volume", "fsck", &path], 1, &["superblock", "damaged"]);
}

#[test]
fn a_scenario_on_a_volume_runs_in_both_worlds_and_linux_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().display().to_string();
    let args = [
        "run",
        "deep-chain",
        "--memory",
        "4MiB",
        "--duration",
        "100ms",
    ];
    let both = ["--world", "os,lab", "--dir", &dir, "--json", "-"];
    let done = highwater(&[&args[..], &both, &["--preset", "2.6.35,highwater"]].concat());
    assert!(done.status.success(), "{}", err(&done));
    let json: serde_json::Value = serde_json::from_str(&out(&done)).unwrap();
    let arms = json["arms"].as_array().unwrap();
    assert_eq!(arms.len(), 4);
    for arm in arms {
        assert!(arm["ops_per_s"].as_f64().unwrap() > 0.0);
        assert!(arm["vmstat"]["volume_data_writes"].as_u64().unwrap() > 0);
    }
    refuses(
        &[&args[..], &["--world", "linux"]].concat(),
        2,
        &["no such volume", "--world os,lab"],
    );
    refuses(
        &[&args[..], &["--world", "lab", "--ghost"]].concat(),
        2,
        &["pages without bytes"],
    );
}

/// The mail's splice, in the lab: what the scenario's own arms add.
#[test]
fn the_arms_of_deep_chain_run_in_the_lab() {
    let args = [
        "run",
        "deep-chain",
        "--world",
        "lab",
        "--memory",
        "4MiB",
        "--duration",
        "50ms",
        "--json",
        "-",
    ];
    let done = highwater(&args);
    assert!(done.status.success(), "{}", err(&done));
    let json: serde_json::Value = serde_json::from_str(&out(&done)).unwrap();
    let arms = json["arms"].as_array().unwrap();
    let names: Vec<&str> = arms.iter().map(|a| a["preset"].as_str().unwrap()).collect();
    assert_eq!(
        names[5..],
        ["2.6.35 lend reclaim", "2.6.35 refuse", "2.6.35 no guard"]
    );
    let refused = arms[6]["vmstat"]["write_refused"].as_u64().unwrap();
    assert!(refused > 0, "XFS's refusal");
    assert_eq!(arms[6]["written_pages"]["direct"], 0);
}

#[test]
fn a_crash_test_counts_its_images() {
    let text = run(&[
        "volume",
        "crash-test",
        "--images",
        "40",
        "--jobs",
        "1",
        "--json",
        "-",
    ]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(json["images"].as_u64().unwrap() >= 40);
    assert_eq!(json["failures"].as_array().unwrap().len(), 0);
}

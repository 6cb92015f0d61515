use super::*;

const GOOD: &str = r#"name = "t"
about = "a test"
[files.data]
size = "4x"
[[tasks]]
name = "w"
kind = "random-write"
file = "data"
"#;

fn error(text: &str) -> CliError {
    load("t.toml", text).expect_err("must not load")
}

#[test]
fn defaults_fill_what_is_not_said() {
    let s = load("t.toml", GOOD).unwrap();
    assert_eq!(s.memory.0, 64 << 20);
    assert_eq!(s.tasks[0].threads, 1);
}

#[test]
fn a_typo_in_a_field_names_line_column_and_the_word_meant() {
    let e = error(&GOOD.replace("kind =", "knid ="));
    assert!(
        e.message.starts_with("t.toml:7:1: unknown field `knid`"),
        "{e}"
    );
    assert!(e.message.contains("did you mean `kind`?"), "{e}");
    assert!(e.message.contains("expected one of"), "{e}");
}

#[test]
fn a_typo_in_a_value_names_line_column_and_the_word_meant() {
    let e = error(&GOOD.replace("random-write", "random-wirte"));
    assert!(e.message.starts_with("t.toml:7:8: unknown variant"), "{e}");
    assert!(e.message.contains("did you mean `random-write`?"), "{e}");
    let e = error(&GOOD.replace("file = \"data\"", "file = \"dta\""));
    assert!(e.message.starts_with("t.toml:8:8:"), "{e}");
    assert!(e.message.contains("did you mean `data`?"), "{e}");
}

#[test]
fn a_bad_size_says_what_was_expected() {
    let e = error(&GOOD.replace("\"4x\"", "\"4 elephants\""));
    assert!(e.message.starts_with("t.toml:4:8:"), "{e}");
    assert!(e.message.contains("64MiB"), "{e}");
    let e = error(&GOOD.replace("\"4x\"", "4"));
    assert!(e.message.contains("expected a size in quotes"), "{e}");
}

#[test]
fn a_missing_field_is_named() {
    let e = error(&GOOD.replace("kind = \"random-write\"\n", ""));
    assert!(e.message.contains("missing field `kind`"), "{e}");
    assert!(e.message.starts_with("t.toml:5:1:"), "{e}");
}

#[test]
fn nonsense_that_parses_is_refused() {
    for (from, to, expect) in [
        (
            "kind = \"random-write\"",
            "kind = \"random-write\"\nthreads = 0",
            "threads",
        ),
        (
            "kind = \"random-write\"",
            "kind = \"random-write\"\nrate = -1.0",
            "rate",
        ),
        (
            "kind = \"random-write\"",
            "kind = \"random-write\"\nwrite_share = 0.5",
            "zipf",
        ),
        ("kind = \"random-write\"", "kind = \"fresh-page\"", "sparse"),
        (
            "about = \"a test\"",
            "about = \"a test\"\nframe_size = \"5000\"",
            "frame_size",
        ),
        (
            "about = \"a test\"",
            "about = \"a test\"\npresets = [\"6.61\"]",
            "did you mean `6.16`",
        ),
        (
            "about = \"a test\"",
            "about = \"a test\"\npolicy.limit_percent = 0",
            "limit_percent",
        ),
        (
            "about = \"a test\"",
            "about = \"a test\"\ndevice = { bytes_per_s = \"50MB\", iops = 0 }",
            "0 requests",
        ),
    ] {
        let e = error(&GOOD.replace(from, to));
        assert!(e.message.contains(expect), "{to}: {e}");
        assert!(e.message.starts_with("t.toml:"), "{e}");
    }
}

#[test]
fn blocks_without_files_are_refused_before_they_run() {
    let text = GOOD
        .replace("[files.data]\nsize = \"4x\"\n", "")
        .replace("about = \"a test\"", "about = \"a test\"\nfiles = {}")
        .replace("random-write", "alloc-block")
        .replace("file = \"data\"", "order = 1");
    let e = error(&text);
    assert!(
        e.message.starts_with("t.toml:3:1: a cache without files"),
        "{e}"
    );
}

#[test]
fn nonsense_is_pointed_at_where_it_is_said() {
    let two = format!("{GOOD}[[tasks]]\nname = \"v\"\nkind = \"page-read\"\nfile = \"data\"\n");
    let end = |text: &str| format!("{two}{text}\n");
    for (text, place) in [
        (
            GOOD.replace("[files", "warm_up = -1.0\n[files"),
            "t.toml:3:1: warm_up",
        ),
        (
            GOOD.replace("[files", "frame_size = \"5KiB\"\n[files"),
            "t.toml:3:1: frame_size",
        ),
        (
            GOOD.replace("[files", "lab.cpus = 2\nduration = \"0s\"\n[files"),
            "t.toml:4:1: duration",
        ),
        (
            GOOD.replace("[files", "[lab]\ncpus = 0\n[files"),
            "t.toml:4:1: cpus",
        ),
        (end("io = \"0\""), "t.toml:13:1: task \"v\": io"),
        (
            two.replacen("name = \"w\"", "threads = 0\nname = \"w\"", 1),
            "t.toml:6:1: task \"w\": threads",
        ),
        (end("exponent = 1.0"), "t.toml:13:1: task \"v\": exponent"),
        (end("speed = 1.0"), "t.toml:13:1: task \"v\": speed"),
        (end("order = 3"), "t.toml:13:1: task \"v\": order"),
        (
            end("").replace("page-read", "replay"),
            "t.toml:11:1: task \"v\": kind = \"replay\" needs trace",
        ),
        (
            end("").replace("page-read", "fresh-page"),
            "t.toml:11:1: task \"v\": kind",
        ),
        (
            two.replace(
                "kind = \"page-read\"\nfile = \"data\"",
                "kind = \"page-read\"",
            ),
            "t.toml:9:1: task \"v\": needs file",
        ),
        (
            GOOD.replace("\"4x\"", "\"trace\""),
            "t.toml:3:2: files.data: size",
        ),
        (
            GOOD.replace("\"4x\"", "\"4x\"\ncapacity = \"8x\""),
            "t.toml:3:2: files.data: capacity",
        ),
        (
            end("[[arms]]\nname = \"a\"\npreset = \"3.2\"\nlend = \"reclaim\""),
            "t.toml:16:1: arm \"a\": lend",
        ),
        (
            end("[[arms]]\nname = \"a\"\npreset = \"all\""),
            "t.toml:15:1: arm \"a\": an arm starts from one preset",
        ),
    ] {
        let e = error(&text);
        assert!(e.message.starts_with(place), "{place}: {e}");
    }
}

#[test]
fn a_flusher_that_would_start_above_the_limit_is_refused_before_anything_runs() {
    let with = |text: &str| GOOD.replace("[files", &format!("{text}\n[files"));
    for (text, place, what) in [
        (
            "policy.limit_percent = 20",
            "t.toml:3:1: preset highwater: ",
            "= 25 (the preset's own)",
        ),
        (
            "[policy]\nlimit_percent = 25",
            "t.toml:4:1: preset highwater: ",
            "= 25 (the preset's own)",
        ),
        (
            "presets = [\"3.2\", \"all\"]\npolicy = { background_percent = 20 }",
            "t.toml:4:1: preset 3.2: ",
            "= 20 (the preset's own)",
        ),
    ] {
        let e = error(&with(text));
        assert!(e.message.starts_with(place), "{e}");
        assert!(e.message.contains(what), "{e}");
    }
    assert!(
        load(
            "t.toml",
            &with("presets = [\"3.2\"]\npolicy.limit_percent = 15")
        )
        .is_ok()
    );
    // An arm's changes are on top of the scenario's.
    let arm = "[[arms]]\nname = \"a\"\npreset = \"3.2\"\npolicy.limit_percent = 40\n";
    assert!(load("t.toml", &format!("{GOOD}{arm}")).is_ok());
    let shares = "policy = { background_percent = 50, limit_percent = 80 }";
    let e = error(&format!("{}{arm}", with(shares)));
    assert!(
        e.message.starts_with(
            "t.toml:13:1: arm \"a\": background_percent = 50 is not below limit_percent = 40"
        ),
        "{e}"
    );
}

/// What the built-in scenario offers in its comments runs.
/// As the remedy of each of these errors promises.
#[test]
fn each_field_is_explained_in_rfc() {
    let (_, text) = crate::scenario::text("rfc").unwrap();
    for section in [
        "",
        "[files.data]",
        "[[tasks]]",
        "[[arms]]",
        "[lab]",
        "[policy]",
        "[device]",
    ] {
        let e = error(&format!(
            "name = \"x\"\nabout = \"x\"\nmemory = \"16MiB\"\n{section}\nzzz = 1\n"
        ));
        let (_, known) = e
            .message
            .split_once("expected one of ")
            .or_else(|| e.message.split_once("expected "))
            .unwrap();
        let known = known.lines().next().unwrap();
        let fields: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        assert!(fields.len() > 1, "{section}: {e}");
        for field in fields {
            let found = text
                .split(|c: char| !(c.is_alphanumeric() || c == '_'))
                .any(|word| word == field);
            assert!(found, "{section} {field}");
        }
    }
}

#[test]
fn the_arm_that_rfc_s_comments_offer_loads() {
    let (_, text) = crate::scenario::text("rfc").unwrap();
    let (_, arm) = text.split_once("#   [[arms]]").expect("an arm in comments");
    // What is for volumes wants one.
    let others = |l: &&str| !l.contains("lend") && !l.contains("recursion_guard");
    let arm: Vec<&str> = arm.lines().filter(others).collect();
    let arm = format!("[[arms]]{}", arm.join("\n").replace("#   ", ""));
    let s = load("t.toml", &format!("{text}{arm}")).unwrap();
    assert_eq!(s.arms.len(), 1, "{arm}");
}

#[test]
fn no_text_makes_it_panic() {
    for cut in 0..GOOD.len() {
        let _ = load("t.toml", &GOOD[..cut]);
    }
}

#[test]
fn a_volume_s_keys_are_checked_together() {
    let volume = GOOD.replace("size = \"4x\"", "size = \"4x\"\nbacking = \"journaled\"");
    let s = load("t.toml", &volume).unwrap();
    assert_eq!(s.journaled(), Some("data"));
    assert_eq!(s.files["data"].disk_bytes(1 << 20), 6 << 20);
    let wide = volume.replace("\"journaled\"", "\"journaled\"\ncapacity = \"10x\"");
    let s = load("t.toml", &wide).unwrap();
    assert_eq!(s.files["data"].disk_bytes(1 << 20), 10 << 20);
    let lend = "[[arms]]\nname = 'a'\npreset = '3.2'\nlend = 'reclaim'\nrecursion_guard = false\n";
    let s = load("t.toml", &format!("{volume}{lend}")).unwrap();
    assert_eq!(
        (s.arms[0].lend, s.arms[0].recursion_guard),
        (LendName::Reclaim, false)
    );
    for (text, word) in [
        (format!("{GOOD}{lend}"), "expected a file with backing"),
        (
            GOOD.replace("\"4x\"", "\"4x\"\ncapacity = \"8x\""),
            "expected backing = \"journaled\"",
        ),
        (
            volume.replace("\"journaled\"", "\"journaled\"\nsparse = true"),
            "thin by itself",
        ),
        (
            volume.replace("\"journaled\"", "\"journald\""),
            "did you mean `journaled`?",
        ),
        (
            wide.replace("\"10x\"", "\"trace\""),
            "expected bytes or a multiple",
        ),
        (
            format!("lab = {{ ghost = true }}\n{volume}"),
            "have no bytes",
        ),
        (
            format!("{volume}{}", lend.replace("'reclaim'", "'reclaims'")),
            "did you mean `reclaim`?",
        ),
    ] {
        let e = error(&text);
        assert!(e.message.contains(word), "{word}: {e}");
    }
}

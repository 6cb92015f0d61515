//! `--ftrace FILE`: the trace in the kernel's format adds up to the engine's counters, by a reader of our own, and by the
//! kernel's `trace-vmscan-postprocess.pl` where it is found.
//!
//! The reader here shares nothing with the writer: it knows the public formats and the script's rules.

mod common;

use common::{err, refused, run_scenario, succeeded, temp};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const SCENARIO: &str = r#"
name = "traced"
about = "more dirty data than memory, and a probe for fresh pages"
memory = "8MiB"
settle = "50ms"
duration = "300ms"
presets = ["2.6.35", "3.2", "highwater"]

# So that reclaim meets dirty pages.
[policy]
background_percent = 50
limit_percent = 80

[files.data]
size = "3x"
[files.fresh]
size = "16x"
sparse = true

[[tasks]]
name = "writer"
kind = "random-write"
file = "data"
threads = 2

[[tasks]]
name = "a zipf of a very long name"
kind = "zipf"
file = "data"

[[tasks]]
name = "probe"
kind = "fresh-page"
file = "fresh"
rate = 500.0
"#;

fn run(dir: &Path, args: &[&str]) -> Output {
    run_scenario(dir, "traced.toml", SCENARIO, args)
}

/// Runs with `--ftrace DIR/name`; what it said.
fn traced(dir: &Path, name: &str, args: &[&str]) -> String {
    let path = dir.join(name);
    let mut all = args.to_vec();
    all.extend(["--ftrace", path.to_str().unwrap()]);
    err(&succeeded(run(dir, &all), &format!("{args:?}")))
}

fn read(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A line of a trace, taken apart.
struct Line<'a> {
    /// `comm-pid`.
    who: &'a str,
    us: u64,
    event: &'a str,
    fields: BTreeMap<&'a str, &'a str>,
}

impl Line<'_> {
    fn number(&self, field: &str) -> u64 {
        let text = self.fields.get(field);
        let text = text.unwrap_or_else(|| panic!("{} has no {field}", self.event));
        text.parse()
            .unwrap_or_else(|e| panic!("{field}={text}: {e}"))
    }
}

/// `comm-pid [cpu] flags secs.usecs: event: a=1 b=2`
fn parse(line: &str) -> Line<'_> {
    let bad = |what: &str| -> ! { panic!("{what}: {line:?}") };
    let mut words = line.split_whitespace();
    let mut word = || words.next().unwrap_or_else(|| bad("too short"));
    let (who, cpu, flags, time, event) = (word(), word(), word(), word(), word());
    let (comm, pid) = who.rsplit_once('-').unwrap_or_else(|| bad("no pid"));
    assert!(comm.len() <= 15, "comm of {line:?}");
    assert!(pid.parse::<u32>().is_ok(), "pid of {line:?}");
    let cpu = cpu.strip_prefix('[').and_then(|c| c.strip_suffix(']'));
    assert!(
        cpu.is_some_and(|c| c.len() >= 3 && c.parse::<u32>().is_ok()),
        "{line:?}"
    );
    assert_eq!(flags, "....");
    let time = time.strip_suffix(':').unwrap_or_else(|| bad("no colon"));
    let (secs, usecs) = time.split_once('.').unwrap_or_else(|| bad("no point"));
    assert_eq!(usecs.len(), 6, "{line:?}");
    let number = |s: &str| s.parse::<u64>().unwrap_or_else(|_| bad("no time"));
    Line {
        who,
        us: number(secs) * 1_000_000 + number(usecs),
        event: event.strip_suffix(':').unwrap_or_else(|| bad("no event")),
        fields: words
            .map(|w| w.split_once('=').unwrap_or_else(|| bad("no field")))
            .collect(),
    }
}

/// One process, as the script keeps it.
#[derive(Default, Debug)]
struct Process {
    begins: u64,
    ends: u64,
    wakes: u64,
    rewakes: u64,
    awake: bool,
    sleeps: u64,
    wakeups: u64,
    scanned: u64,
    refilled: u64,
    reclaimed: u64,
    ended_reclaimed: u64,
    written: u64,
    last_us: u64,
}

/// The trace by process, by the rules of the script: a scan is what was not isolated from the active list (mode 2);
/// a wake of kswapd while it is awake is another one's.
fn processes(trace: &str) -> BTreeMap<String, Process> {
    let mut all: BTreeMap<String, Process> = BTreeMap::new();
    for text in trace.lines().filter(|l| !l.starts_with('#')) {
        assert!(!text.contains("LOST"), "{text}");
        let line = parse(text);
        let p = all.entry(line.who.to_string()).or_default();
        assert!(line.us >= p.last_us, "time goes back: {text}");
        p.last_us = line.us;
        match line.event {
            "mm_vmscan_direct_reclaim_begin" => {
                assert_eq!(p.begins, p.ends, "two begins: {text}");
                assert_eq!(line.number("order"), 0);
                assert!(line.number("may_writepage") <= 1);
                assert!(line.fields["gfp_flags"].starts_with("GFP_"));
                p.begins += 1;
            }
            "mm_vmscan_direct_reclaim_end" => {
                p.ends += 1;
                assert_eq!(p.begins, p.ends, "an end without a begin: {text}");
                p.ended_reclaimed += line.number("nr_reclaimed");
            }
            "mm_vmscan_kswapd_wake" => {
                assert_eq!((line.number("nid"), line.number("order")), (0, 0));
                if std::mem::replace(&mut p.awake, true) {
                    p.rewakes += 1;
                } else {
                    p.wakes += 1;
                }
            }
            "mm_vmscan_kswapd_sleep" => {
                assert!(p.awake, "it sleeps already: {text}");
                p.awake = false;
                p.sleeps += 1;
            }
            "mm_vmscan_wakeup_kswapd" => {
                assert_eq!(line.number("zid") + line.number("order"), 0);
                p.wakeups += 1;
            }
            "mm_vmscan_lru_isolate" => {
                let n = line.number("nr_scanned");
                assert!(line.number("nr_taken") <= n && n <= line.number("nr_requested"));
                match (line.number("isolate_mode"), line.fields["lru"]) {
                    (1, "inactive_file") => p.scanned += n,
                    (2, "active_file") => p.refilled += n,
                    other => panic!("mode {other:?}"),
                }
            }
            "mm_vmscan_lru_shrink_inactive" => {
                assert!(line.number("priority") <= 12);
                let kept = line.number("nr_activate_file");
                assert!(
                    kept + line.number("nr_reclaimed") <= line.number("nr_scanned"),
                    "{text}"
                );
                p.reclaimed += line.number("nr_reclaimed");
            }
            "mm_vmscan_writepage" => {
                let flags = line.fields["flags"];
                assert!(
                    flags.contains("RECLAIM_WB_FILE") && !flags.contains("_SYNC"),
                    "{text}"
                );
                assert!(
                    u64::from_str_radix(line.fields["page"], 16).is_ok(),
                    "{text}"
                );
                line.number("pfn");
                p.written += 1;
            }
            other => panic!("unknown event {other}"),
        }
    }
    all
}

/// The engine's counters, at the trace's end.
fn counters(trace: &str) -> BTreeMap<&str, u64> {
    let (_, end) = trace
        .split_once("# counters from the build of the cache to its close:\n")
        .expect("the counters");
    end.lines()
        .map(|l| {
            let (name, n) = l.trim_start_matches("# ").split_once(' ').unwrap();
            (name, n.parse().unwrap())
        })
        .collect()
}

/// Every sum of the trace equals its counter.
fn adds_up(trace: &str, title: &str) -> (u64, u64) {
    assert!(trace.starts_with("# tracer: nop\n#\n"), "{title}");
    assert!(trace.contains("\n# lost 0\n"), "{title}");
    let all = processes(trace);
    let of = |kswapd: Option<bool>, what: fn(&Process) -> u64| -> u64 {
        all.iter()
            .filter(|(who, _)| kswapd.is_none_or(|k| k == who.starts_with("kswapd")))
            .map(|(_, p)| what(p))
            .sum()
    };
    let (kswapd, direct) = (Some(true), Some(false));
    let sums = BTreeMap::from([
        ("allocstall", of(None, |p| p.begins)),
        ("pgscan_direct", of(direct, |p| p.scanned)),
        ("pgsteal_direct", of(direct, |p| p.reclaimed)),
        ("pageoutrun", of(None, |p| p.wakes + p.rewakes)),
        ("pgscan_kswapd", of(kswapd, |p| p.scanned)),
        ("pgsteal_kswapd", of(kswapd, |p| p.reclaimed)),
        ("pgrefill", of(None, |p| p.refilled)),
        ("nr_vmscan_write", of(None, |p| p.written)),
        ("wakeup_kswapd", of(None, |p| p.wakeups)),
    ]);
    assert_eq!(
        sums,
        counters(trace),
        "{title}: the trace, and the counters"
    );
    assert_eq!(
        of(kswapd, |p| p.wakes),
        of(kswapd, |p| p.sleeps),
        "{title}: each wake has its sleep"
    );
    assert_eq!(
        of(kswapd, |p| p.begins),
        0,
        "{title}: kswapd reclaims directly"
    );
    assert_eq!(
        of(None, |p| p.begins),
        of(None, |p| p.ends),
        "{title}: each begin has its end"
    );
    assert_eq!(
        sums["pgsteal_direct"],
        of(None, |p| p.ended_reclaimed),
        "{title}: what the ends say"
    );
    assert!(
        sums["pgscan_kswapd"] > 0 && sums["pageoutrun"] > 0,
        "{title}: kswapd did nothing"
    );
    (of(direct, |p| p.written), of(kswapd, |p| p.written))
}

#[test]
fn in_the_lab_the_trace_of_each_preset_adds_up_to_its_counters() {
    let dir = temp();
    let said = traced(dir.path(), "t.txt", &["--world", "lab"]);
    assert_eq!(said.matches("sums equal the counters").count(), 3, "{said}");
    let of = |name: &str| adds_up(&read(dir.path(), &format!("t.lab-{name}.txt")), name);
    let (direct, kswapd) = of("2.6.35");
    assert!(
        direct > 0 && kswapd > 0,
        "in 2.6.35 both write: {direct}, {kswapd}"
    );
    let (direct, _) = of("3.2");
    assert_eq!(direct, 0, "in 3.2 direct reclaim does not write");
    assert_eq!(of("highwater"), (0, 0), "nobody in reclaim writes");
    let trace = read(dir.path(), "t.lab-2.6.35.txt");
    assert!(trace.contains("may_writepage=1"));
    assert!(trace.contains("a_zipf_of_a_ver-"), "a name of 15 bytes");
}

#[test]
fn in_the_lab_a_trace_repeats_to_the_byte_and_changes_nothing() {
    let dir = temp();
    let args = ["--world", "lab", "--preset", "3.2", "--duration", "100ms"];
    let with = |name: &str, seed: &str, json: &str| {
        let mut args = args.to_vec();
        let json = dir.path().join(json);
        args.extend(["--seed", seed, "--json", json.to_str().unwrap()]);
        traced(dir.path(), name, &args);
        read(dir.path(), name)
    };
    let first = with("a", "5", "a.json");
    assert!(first.lines().count() > 100);
    assert!(
        first == with("b", "5", "b.json"),
        "the same seed, another trace"
    );
    assert!(
        first != with("c", "6", "c.json"),
        "another seed, the same trace"
    );
    let plain = dir.path().join("plain.json");
    let mut args = args.to_vec();
    args.extend(["--seed", "5", "--json", plain.to_str().unwrap()]);
    assert!(run(dir.path(), &args).status.success());
    assert_eq!(
        read(dir.path(), "a.json").replace("rss_bytes", ""),
        read(dir.path(), "plain.json").replace("rss_bytes", ""),
        "the numbers of a run are the same with a trace and without"
    );
}

#[test]
fn on_threads_the_trace_adds_up_to_the_counters() {
    let dir = temp();
    let args = ["--world", "os", "--preset", "2.6.35", "--duration", "300ms"];
    let said = traced(dir.path(), "os.txt", &args);
    assert!(said.contains("sums equal the counters"), "{said}");
    adds_up(&read(dir.path(), "os.txt"), "os 2.6.35");
}

#[test]
fn a_bad_place_is_refused_before_anything_runs() {
    let dir = temp();
    let here = dir.path().to_str().unwrap().to_string();
    for (args, code, what) in [
        (
            vec!["--world", "lab", "--ftrace", "-"],
            2,
            "not the name of a file",
        ),
        (
            vec!["--world", "lab", "--ftrace", &here],
            2,
            "not the name of a file",
        ),
        (
            vec!["--world", "lab", "--ftrace", "/no/such/dir/t"],
            1,
            "/no/such/dir/t",
        ),
        (
            vec!["--world", "linux", "--ftrace", "t"],
            2,
            "--world linux",
        ),
    ] {
        let text = refused(&run(dir.path(), &args), code, &[what]);
        assert!(!text.contains("1/1"), "no arm ran: {text}");
    }
}

/// The kernel's script: `HIGHWATER_VMSCAN_PL`, or that of kernel sources unpacked under /usr/src.
fn script() -> Option<PathBuf> {
    let own = std::env::var_os("HIGHWATER_VMSCAN_PL").map(PathBuf::from);
    let trees = std::fs::read_dir("/usr/src").into_iter().flatten();
    let in_trees = trees.filter_map(|e| {
        let path = e.ok()?.path();
        Some(path.join("Documentation/trace/postprocess/trace-vmscan-postprocess.pl"))
    });
    own.into_iter().chain(in_trees).find(|p| p.is_file())
}

/// The script's summary of a trace, by its own labels.
fn summary(script: &Path, trace: &Path) -> BTreeMap<String, u64> {
    let o = Command::new("perl")
        .arg(script)
        .stdin(Stdio::from(std::fs::File::open(trace).unwrap()))
        .output()
        .unwrap();
    let text = common::out(&succeeded(o, "perl"));
    assert!(!text.contains("Failed to parse"), "{text}");
    let (_, end) = text.split_once("\nSummary\n").expect("a summary");
    end.lines()
        .filter_map(|l| l.split_once(':'))
        // A sum of nothing is printed as nothing.
        .filter_map(|(label, n)| match n.trim() {
            "" => Some((label.to_string(), 0)),
            n => Some((label.to_string(), n.parse().ok()?)),
        })
        .collect()
}

#[test]
fn the_kernel_s_own_script_reads_it_and_its_totals_are_our_counters() {
    let Some(script) = script() else {
        eprintln!("skipped: no trace-vmscan-postprocess.pl; HIGHWATER_VMSCAN_PL names one");
        return;
    };
    if std::fs::read_dir("/sys/kernel/debug/tracing/events/vmscan").is_ok() {
        eprintln!("skipped: the script would take the formats of the running kernel for these");
        return;
    }
    if !std::fs::read_to_string(&script)
        .unwrap_or_default()
        .contains("nr_skipped")
    {
        eprintln!(
            "skipped: {} is older than the formats of 4.x",
            script.display()
        );
        return;
    }
    if Command::new("perl").arg("-v").output().is_err() {
        eprintln!("skipped: no perl");
        return;
    }
    let dir = temp();
    traced(dir.path(), "t.txt", &["--world", "lab"]);
    for preset in ["2.6.35", "3.2", "highwater"] {
        let path = dir.path().join(format!("t.lab-{preset}.txt"));
        let trace = std::fs::read_to_string(&path).unwrap();
        let (sums, want, all) = (summary(&script, &path), counters(&trace), processes(&trace));
        let got = |label: &str| sums[label];
        for (label, counter) in [
            ("Direct reclaims", "allocstall"),
            ("Direct reclaim pages scanned", "pgscan_direct"),
            ("Direct reclaim pages reclaimed", "pgsteal_direct"),
            ("Kswapd pages scanned", "pgscan_kswapd"),
            ("Kswapd pages reclaimed", "pgsteal_kswapd"),
        ] {
            assert_eq!(got(label), want[counter], "{preset}: {label}");
        }
        assert_eq!(
            got("Direct reclaim write file async I/O") + got("Kswapd reclaim write file async I/O"),
            want["nr_vmscan_write"],
            "{preset}"
        );
        // The script counts wakes from sleep, and leaves out bells rung by who never reclaimed directly.
        let wakes: u64 = all.values().map(|p| p.wakes).sum();
        assert_eq!(got("Kswapd wakeups"), wakes, "{preset}");
        let rang: u64 = all
            .values()
            .filter(|p| p.begins > 0)
            .map(|p| p.wakeups)
            .sum();
        assert_eq!(got("Wake kswapd requests"), rang, "{preset}");
    }
}

//! What the numbers say, in three plain sentences, and the next command to try. Each sentence is a function of the report,
//! in which an arm that ran several times is the median of its runs.

use crate::command_line::{CommandLine, OUTPUTS};
use crate::report::{ArmReport, Report};
use crate::units::{show_count, show_rate, show_us};
use crate::{blocks, repeats, replay};

/// All that is said of a report: the three sentences, then what became of requests for blocks and of each trace, and that a run
/// failed.
pub fn all(report: &Report) -> Vec<String> {
    let mut all = sentences(report);
    all.extend(blocks::sentences(report));
    all.extend(replay::sentences(report));
    all.extend(failed(report));
    all
}

/// The three sentences, and of what its figures are medians where arms ran more often than once.
fn sentences(report: &Report) -> Vec<String> {
    let (report, runs) = repeats::medians(report);
    let mut all = vec![waits(&report), writers(&report), cost(&report)];
    if runs > 1 {
        all.push(format!(
            "(Of each arm the medians of its {runs} runs; the rows have each.)"
        ));
    }
    all
}

/// That not all is here, for a page or a file that is read without the command's end.
fn failed(report: &Report) -> Option<String> {
    let failed = report.failed.as_ref()?;
    let why = failed.message.lines().next().unwrap_or_default();
    let (here, of) = (report.arms.len(), failed.runs);
    Some(format!(
        "Only {here} of {of} runs are here: the next one failed. {why}"
    ))
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 * 100.0 / whole as f64
    }
}

/// Who waited longest, and who least.
pub fn waits(report: &Report) -> String {
    let known = report
        .arms
        .iter()
        .filter_map(|a| Some((a, a.stall_s.longest?)));
    let mut arms: Vec<(&ArmReport, f64)> = known.collect();
    arms.sort_by(|a, b| a.1.total_cmp(&b.1));
    match arms.as_slice() {
        [] => worst_latency(report),
        [.., (_, last)] if *last == 0.0 => "No arm ever waited for memory or was throttled.".into(),
        [(arm, s)] => format!(
            "The longest wait for memory or by the throttle in {} was {}.",
            arm.title(),
            show_us(s * 1e6)
        ),
        [(best, least), .., (worst, most)] => format!(
            "{} had the shortest longest wait, {}; {} had the longest, {}{}{}.",
            best.title(),
            show_us(least * 1e6),
            worst.title(),
            show_us(most * 1e6),
            times(*most, *least),
            stalled(report),
        ),
    }
}

/// Who stood still longest for memory, all threads together.
fn stalled(report: &Report) -> String {
    let known = report
        .arms
        .iter()
        .filter_map(|a| Some((a.title(), a.stall_s.alloc?)));
    let mut arms: Vec<(String, f64)> = known.collect();
    arms.sort_by(|a, b| a.1.total_cmp(&b.1));
    match arms.as_slice() {
        [(best, least), .., (worst, most)] if *most >= 0.05 => format!(
            "; waiting for memory took the threads {most:.2} s in {worst} and {least:.2} s in {best}"
        ),
        _ => String::new(),
    }
}

fn times(most: f64, least: f64) -> String {
    if least > 0.0 && most / least >= 1.15 {
        format!(" ({:.1} times that)", most / least)
    } else {
        String::new()
    }
}

fn worst_latency(report: &Report) -> String {
    match report
        .arms
        .iter()
        .filter_map(|a| Some((a, a.worst_p999()?)))
        .max_by(|a, b| a.1.1.total_cmp(&b.1.1))
    {
        Some((arm, (task, us))) => format!(
            "The highest p99.9 was {} in task {task} of {}.",
            show_us(us),
            arm.title()
        ),
        None => "No arm ran.".into(),
    }
}

/// Who wrote pages: the thread that needed one, or the flusher.
pub fn writers(report: &Report) -> String {
    let mut paid: Vec<(&ArmReport, u64, u64)> = Vec::new();
    let mut free: Vec<String> = Vec::new();
    for arm in report.arms.iter().filter(|a| a.world != "raw") {
        let w = arm.written_pages;
        let foreground = w.direct.unwrap_or(0) + w.writer.unwrap_or(0);
        let all = foreground + w.kswapd.unwrap_or(0) + w.flusher.unwrap_or(0) + w.sync.unwrap_or(0);
        if foreground > 0 {
            paid.push((arm, foreground, all));
        } else if all > 0 {
            free.push(arm.title());
        }
    }
    paid.sort_by_key(|(_, n, _)| std::cmp::Reverse(*n));
    let list = free.join(", ");
    match (paid.first(), free.is_empty()) {
        (None, true) => "No pages were written while it was measured.".into(),
        (None, false) => "In every arm the threads that needed memory wrote no page: the flusher, kswapd or a sync wrote them all.".into(),
        (Some((arm, n, all)), empty) => {
            let rest = if empty {
                "in no arm were they spared".to_string()
            } else {
                format!("none in {list}")
            };
            format!(
                "Threads that needed memory or were throttled wrote {} pages themselves in {} ({:.0} % of its writes); {rest}.",
                show_count(*n),
                arm.title(),
                share(*n, *all),
            )
        }
    }
}

/// What the shortest waits cost in throughput.
pub fn cost(report: &Report) -> String {
    let arms: Vec<&ArmReport> = report.arms.iter().filter(|a| a.world != "raw").collect();
    let fastest = arms
        .iter()
        .max_by(|a, b| a.ops_per_s_with_sync.total_cmp(&b.ops_per_s_with_sync));
    let calmest = arms
        .iter()
        .filter(|a| a.worst_p999().is_some())
        .min_by(|a, b| p999(a).total_cmp(&p999(b)));
    let (Some(fastest), Some(calmest)) = (fastest, calmest) else {
        return "There is no throughput to compare.".into();
    };
    let ops = show_rate(fastest.ops_per_s_with_sync);
    if arms.len() == 1 {
        return format!(
            "{} did {ops} operations/s, the final sync included.",
            fastest.title()
        );
    }
    if std::ptr::eq(*fastest, *calmest) {
        return format!(
            "{} had both the most operations/s with the final sync included ({ops}) and the lowest worst p99.9 ({}).",
            fastest.title(),
            show_us(p999(fastest)),
        );
    }
    // As in a sweep, what lies closer is no difference.
    if p999(calmest) > 0.9 * p999(fastest) {
        return format!(
            "{} did the most operations/s with the final sync included ({ops}); no arm's worst p99.9 is lower than its {} by a tenth.",
            fastest.title(),
            show_us(p999(fastest)),
        );
    }
    let loss = 100.0 - calmest.ops_per_s_with_sync * 100.0 / fastest.ops_per_s_with_sync.max(1e-9);
    format!(
        "{} did the most operations/s with the final sync included ({ops}); {} had the lowest worst p99.9, {} against {}, at {loss:.0} % less throughput.",
        fastest.title(),
        calmest.title(),
        show_us(p999(calmest)),
        show_us(p999(fastest)),
    )
}

fn p999(arm: &ArmReport) -> f64 {
    arm.worst_p999().map_or(0.0, |(_, us)| us)
}

/// The command that made a report, for the one that is worth trying next.
#[derive(Clone, Debug)]
pub struct Again {
    /// With everything that it was told.
    pub said: CommandLine,
    /// Linux's page cache can do the same work: no volumes, and no more memory than there is.
    pub on_linux: bool,
}

/// A command worth trying after the run that `again` would repeat.
pub fn next_command(report: &Report, again: &Again) -> String {
    let has = |world: &str| report.arms.iter().any(|a| a.world.starts_with(world));
    let same = again.said.clone().without(&OUTPUTS);
    if report.arms.iter().any(|a| a.per_block.is_some()) {
        // Linux has no row of these.
        return "highwater scenario show high-order > mine.toml    # other orders, more of them held".into();
    }
    if !again.on_linux {
        if again.said.has("html") {
            let seed: u64 = same.value("seed").and_then(|s| s.parse().ok()).unwrap_or(1);
            let other = same.with("seed", seed.wrapping_add(1));
            return format!("{other}    # another seed: what of it is chance?");
        }
        let page = same.with("html", "report.html");
        return format!("{page}    # as a page: memory, writers and stalls over time");
    }
    if !has("linux") {
        let worlds = ["os", "lab"].into_iter().filter(|w| has(w));
        let worlds: Vec<&str> = worlds.chain(["linux"]).collect();
        let beside = same.with("world", worlds.join(","));
        return format!("sudo {beside}    # beside Linux's own page cache");
    }
    match report.scenario.as_str() {
        "rfc" => "highwater run slow-disk    # the same work on a disk of 50 MB/s".into(),
        "slow-disk" => "highwater matrix    # who writes x how writers are slowed".into(),
        _ => "highwater run rfc --preset all    # the main job".into(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::{Latency, Stall, TaskReport, Written};

    pub(crate) fn arm(
        preset: &str,
        longest: f64,
        direct: u64,
        flusher: u64,
        ops: f64,
        p999: f64,
    ) -> ArmReport {
        ArmReport {
            world: "os".into(),
            preset: preset.into(),
            stall_s: Stall {
                longest: Some(longest),
                ..Stall::default()
            },
            written_pages: Written {
                direct: Some(direct),
                flusher: Some(flusher),
                ..Written::default()
            },
            ops_per_s_with_sync: ops,
            tasks: vec![TaskReport {
                name: "w".into(),
                latency_us: Latency {
                    p999,
                    ..Latency::default()
                },
                ..TaskReport::default()
            }],
            ..ArmReport::default()
        }
    }

    pub(crate) fn report(arms: Vec<ArmReport>) -> Report {
        Report {
            scenario: "rfc".into(),
            memory_bytes: 1,
            disk: None,
            arms,
            ..Report::default()
        }
    }

    #[test]
    fn a_run_that_failed_is_said() {
        let mut r = report(vec![arm("3.2", 0.2, 1, 1, 1.0, 1.0)]);
        assert!(!all(&r).iter().any(|s| s.contains("failed")));
        r.failed = Some(crate::report::Failed {
            message: "os 6.16: disk gone\nits log".into(),
            remedy: "another disk".into(),
            runs: 3,
        });
        assert_eq!(
            all(&r).last().unwrap(),
            "Only 1 of 3 runs are here: the next one failed. os 6.16: disk gone"
        );
    }

    #[test]
    fn the_waits_name_best_and_worst() {
        let r = report(vec![
            arm("2.6.35", 0.2, 1, 1, 1.0, 1.0),
            arm("highwater", 0.001, 0, 1, 1.0, 1.0),
        ]);
        assert_eq!(
            waits(&r),
            "os highwater had the shortest longest wait, 1.00 ms; os 2.6.35 had the longest, 200.0 ms (200.0 times that)."
        );
        assert!(
            waits(&report(vec![
                arm("a", 0.0, 0, 0, 1.0, 1.0),
                arm("b", 0.0, 0, 0, 1.0, 1.0)
            ]))
            .starts_with("No arm")
        );
        assert_eq!(waits(&report(vec![])), "No arm ran.");
        let calm = waits(&report(vec![arm("a", 0.0, 0, 0, 1.0, 1.0)]));
        assert_eq!(calm, "No arm ever waited for memory or was throttled.");
        let mut r = r;
        r.arms[0].stall_s.alloc = Some(22.3);
        r.arms[1].stall_s.alloc = Some(0.25);
        let text = waits(&r);
        let end = "; waiting for memory took the threads 22.30 s in os 2.6.35 and 0.25 s in os highwater.";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn runs_of_one_arm_are_not_held_against_each_other() {
        let r = report(vec![
            arm("a", 0.001, 0, 1, 100.0, 90.0),
            arm("a", 0.1, 0, 1, 300.0, 9000.0),
            arm("a", 0.002, 0, 1, 200.0, 100.0),
        ]);
        let said = sentences(&r);
        assert_eq!(
            said[0],
            "The longest wait for memory or by the throttle in os a was 2.00 ms."
        );
        assert_eq!(
            said[2],
            "os a did 200 operations/s, the final sync included."
        );
        assert!(said[3].contains("medians of its 3 runs"), "{}", said[3]);
        assert_eq!(sentences(&report(r.arms[..1].to_vec())).len(), 3);
    }

    #[test]
    fn the_writers_name_who_paid_and_who_did_not() {
        let r = report(vec![
            arm("2.6.35", 0.2, 750, 250, 1.0, 1.0),
            arm("highwater", 0.001, 0, 9, 1.0, 1.0),
        ]);
        assert_eq!(
            writers(&r),
            "Threads that needed memory or were throttled wrote 750 pages themselves in os 2.6.35 (75 % of its writes); none in os highwater."
        );
        assert!(
            writers(&report(vec![arm("a", 0.0, 0, 5, 1.0, 1.0)]))
                .contains("the flusher, kswapd or a sync wrote them all")
        );
        assert!(writers(&report(vec![arm("a", 0.0, 0, 0, 1.0, 1.0)])).contains("No pages"));
    }

    #[test]
    fn the_cost_is_said_even_where_it_is_ours() {
        let r = report(vec![
            arm("2.6.35", 0.2, 1, 1, 200.0, 9000.0),
            arm("highwater", 0.001, 0, 1, 150.0, 90.0),
        ]);
        assert_eq!(
            cost(&r),
            "os 2.6.35 did the most operations/s with the final sync included (200); os highwater had the lowest worst p99.9, 90 µs against 9.00 ms, at 25 % less throughput."
        );
        let r = report(vec![
            arm("a", 0.2, 1, 1, 100.0, 9.0),
            arm("b", 0.001, 0, 1, 250.0, 1.0),
        ]);
        assert!(cost(&r).starts_with("os b had both"), "{}", cost(&r));
        let r = report(vec![
            arm("a", 0.2, 1, 1, 100.0, 21.6),
            arm("b", 0.001, 0, 1, 90.0, 21.5),
        ]);
        assert_eq!(
            cost(&r),
            "os a did the most operations/s with the final sync included (100); no arm's worst p99.9 is lower than its 22 µs by a tenth."
        );
    }

    #[test]
    fn the_next_command_is_another_one() {
        let mut r = report(vec![arm("a", 0.0, 0, 0, 1.0, 1.0)]);
        let again = |words: &[&str], on_linux| Again {
            said: crate::command_line::tests::of(words),
            on_linux,
        };
        // A scenario of one's own is found by its file, and not by its name; nothing that was said is forgotten.
        let own = [
            "run",
            "./my own.toml",
            "--memory",
            "8MiB",
            "--seed",
            "7",
            "--json",
            "-",
        ];
        assert_eq!(
            next_command(&r, &again(&own, true)),
            "sudo highwater run './my own.toml' --memory 8MiB --seed 7 --world os,linux    # beside Linux's own page cache"
        );
        r.arms[0].world = "lab".into();
        let lab = ["replay", "t.csv", "--device", "hdd-7200", "--threads", "3"];
        let next = next_command(&r, &again(&lab, true));
        let same = "sudo highwater replay t.csv --device hdd-7200 --threads 3 --world lab,linux ";
        assert!(next.starts_with(same), "{next}");
        let ghost = [
            "run", "rfc", "--world", "lab", "--ghost", "--memory", "64GiB",
        ];
        assert_eq!(
            next_command(&r, &again(&ghost, false)),
            "highwater run rfc --world lab --ghost --memory 64GiB --html report.html    # as a page: memory, writers and stalls over time"
        );
        let page = [&ghost[..], &["--html", "a", "--seed", "4"]].concat();
        let next = next_command(&r, &again(&page, false));
        assert!(next.contains("--ghost --memory 64GiB --seed 5 "), "{next}");
        r.arms[0].world = "linux (cgroup v1)".into();
        let rfc = again(&["run"], true);
        assert!(next_command(&r, &rfc).contains("slow-disk"));
        r.arms[0].per_block = Some(crate::blocks::PerBlock::default());
        assert!(next_command(&r, &rfc).contains("scenario show high-order"));
    }
}

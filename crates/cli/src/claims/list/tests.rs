//! CLAIM-1 and CLAIM-2, claim by claim: figures for each answer that its rule can give.

use super::all;
use crate::claims::claim::{Answer, Answer::*, Claim, Figures, Unit, Verdict, verdict};

type Case = (Vec<(&'static str, f64)>, Answer);

/// Figures by hand, and what the rule must make of them.
fn cases(name: &str) -> Vec<Case> {
    match name {
        "splice" => vec![
            (vec![("needed", 8193.0), ("stack", 8192.0)], Holds),
            (vec![("needed", 8192.0), ("stack", 8192.0)], Fails),
        ],
        "too-small" => vec![
            (
                vec![
                    ("deepest_writes", 9000.0),
                    ("deepest_does_not", 8192.0),
                    ("stack", 8192.0),
                ],
                Holds,
            ),
            (
                vec![
                    ("deepest_writes", 8000.0),
                    ("deepest_does_not", 5000.0),
                    ("stack", 8192.0),
                ],
                Fails,
            ),
            (
                vec![
                    ("deepest_writes", 9000.0),
                    ("deepest_does_not", 9000.0),
                    ("stack", 8192.0),
                ],
                Fails,
            ),
        ],
        "five-k" => vec![
            (vec![("deepest", 5064.0), ("frames", 49.0)], Holds),
            (vec![("deepest", 4000.0), ("frames", 49.0)], Fails),
            (vec![("deepest", 7000.0), ("frames", 49.0)], Fails),
        ],
        "xfs-deep" => vec![
            (
                vec![
                    ("deepest", 5.0),
                    ("file_system", 3.0),
                    ("largest_other", 2.0),
                ],
                Holds,
            ),
            (
                vec![
                    ("deepest", 5.0),
                    ("file_system", 2.0),
                    ("largest_other", 2.0),
                ],
                Fails,
            ),
        ],
        "thp-kswapd" => vec![
            (
                vec![
                    ("kswapd_wakes", 1.0),
                    ("reclaimed_woken", 112.0),
                    ("reclaimed_alone", 100.0),
                ],
                Holds,
            ),
            (
                vec![
                    ("kswapd_wakes", 1.0),
                    ("reclaimed_woken", 109.0),
                    ("reclaimed_alone", 100.0),
                ],
                Fails,
            ),
            (
                vec![
                    ("kswapd_wakes", 0.0),
                    ("reclaimed_woken", 900.0),
                    ("reclaimed_alone", 100.0),
                ],
                Silent,
            ),
        ],
        "blind-order" => vec![
            (
                vec![
                    ("refaults_lumpy", 0.12),
                    ("refaults_compaction", 0.1),
                    ("got_lumpy", 5.0),
                    ("got_compaction", 5.0),
                ],
                Holds,
            ),
            (
                vec![
                    ("refaults_lumpy", 0.105),
                    ("refaults_compaction", 0.1),
                    ("got_lumpy", 5.0),
                    ("got_compaction", 5.0),
                ],
                Fails,
            ),
            (
                vec![
                    ("refaults_lumpy", 0.12),
                    ("refaults_compaction", 0.1),
                    ("got_lumpy", 6.0),
                    ("got_compaction", 5.0),
                ],
                Fails,
            ),
        ],
        "lumpy-frees" => vec![
            (
                vec![("kswapd_lumpy", 112.0), ("kswapd_compaction", 100.0)],
                Holds,
            ),
            (
                vec![("kswapd_lumpy", 109.0), ("kswapd_compaction", 100.0)],
                Fails,
            ),
        ],
        "thread-size" => vec![
            (stacks([0.0, 1.0, 0.1, 0.1, 1.0, 1.0]), Holds),
            (stacks([0.0, 0.0, 0.1, 0.12, 1.0, 1.0]), Holds),
            (stacks([0.0, 0.0, 0.1, 0.1, 9.0, 19.0]), Holds),
            (stacks([0.0, 0.0, 0.1, 0.1, 1.0, 9.0]), Fails),
            (stacks([1.0, 1.0, 0.1, 0.105, 100.0, 150.0]), Fails),
        ],
        "false-oom" => vec![
            (
                vec![
                    ("dirty_met", 5.0),
                    ("ooms_writes", 1.0),
                    ("ooms_does_not", 2.0),
                ],
                Holds,
            ),
            (
                vec![
                    ("dirty_met", 5.0),
                    ("ooms_writes", 2.0),
                    ("ooms_does_not", 2.0),
                ],
                Fails,
            ),
            (
                vec![
                    ("dirty_met", 0.0),
                    ("ooms_writes", 0.0),
                    ("ooms_does_not", 9.0),
                ],
                Silent,
            ),
        ],
        "early-oom" => vec![
            (vec![("ooms_writes", 0.0), ("ooms_does_not", 1.0)], Holds),
            (vec![("ooms_writes", 0.0), ("ooms_does_not", 0.0)], Fails),
            (vec![("ooms_writes", 1.0), ("ooms_does_not", 5.0)], Fails),
        ],
        "no-new-oom" => vec![
            (
                vec![
                    ("dirty_met", 5.0),
                    ("ooms_writes", 2.0),
                    ("ooms_does_not", 2.0),
                ],
                Holds,
            ),
            (
                vec![
                    ("dirty_met", 5.0),
                    ("ooms_writes", 0.0),
                    ("ooms_does_not", 1.0),
                ],
                Fails,
            ),
            (
                vec![
                    ("dirty_met", 0.0),
                    ("ooms_writes", 0.0),
                    ("ooms_does_not", 0.0),
                ],
                Silent,
            ),
        ],
        "oom-needs-dirty-lru" => vec![
            (
                vec![
                    ("own_ooms", 0.0),
                    ("own_dirty", 0.2),
                    ("machine_ooms", 0.0),
                    ("machine_dirty", 0.4),
                    ("none_ooms", 7.0),
                    ("none_dirty", 0.9),
                ],
                Holds,
            ),
            (
                vec![
                    ("own_ooms", 0.0),
                    ("own_dirty", 0.2),
                    ("machine_ooms", 3.0),
                    ("machine_dirty", 0.4),
                    ("none_ooms", 7.0),
                    ("none_dirty", 0.9),
                ],
                Fails,
            ),
            (
                vec![
                    ("own_ooms", 0.0),
                    ("own_dirty", 0.2),
                    ("machine_ooms", 0.0),
                    ("machine_dirty", 0.4),
                    ("none_ooms", 0.0),
                    ("none_dirty", 0.9),
                ],
                Silent,
            ),
        ],
        "trouble-already" => vec![
            (vec![("dirty_share", 0.8), ("slowdown", 10.0)], Holds),
            (vec![("dirty_share", 0.8), ("slowdown", 9.0)], Fails),
            (vec![("dirty_share", 0.3), ("slowdown", 99.0)], Silent),
        ],
        "refused-already" => vec![
            (vec![("refused", 5.0), ("written_by_reclaim", 0.0)], Holds),
            (vec![("refused", 5.0), ("written_by_reclaim", 1.0)], Fails),
            (vec![("refused", 0.0), ("written_by_reclaim", 0.0)], Silent),
        ],
        "lost-already" => vec![
            (
                vec![
                    ("refused", 5.0),
                    ("ooms_refusing", 2.0),
                    ("ooms_plain", 1.0),
                ],
                Holds,
            ),
            (
                vec![
                    ("refused", 5.0),
                    ("ooms_refusing", 1.0),
                    ("ooms_plain", 1.0),
                ],
                Fails,
            ),
            (
                vec![
                    ("refused", 0.0),
                    ("ooms_refusing", 2.0),
                    ("ooms_plain", 1.0),
                ],
                Silent,
            ),
        ],
        "fault-throttle" => vec![
            (
                vec![
                    ("ooms_with", 0.0),
                    ("ooms_without", 1.0),
                    ("stall_ratio", 1.0),
                ],
                Holds,
            ),
            (
                vec![
                    ("ooms_with", 0.0),
                    ("ooms_without", 0.0),
                    ("stall_ratio", 2.0),
                ],
                Holds,
            ),
            (
                vec![
                    ("ooms_with", 1.0),
                    ("ooms_without", 1.0),
                    ("stall_ratio", 1.9),
                ],
                Fails,
            ),
        ],
        "low-pressure-latency" => vec![
            (
                vec![
                    ("dirty_met", 1.0),
                    ("p999_writes", 100.0),
                    ("p999_does_not", 89.0),
                ],
                Holds,
            ),
            (
                vec![
                    ("dirty_met", 1.0),
                    ("p999_writes", 100.0),
                    ("p999_does_not", 91.0),
                ],
                Fails,
            ),
            (
                vec![
                    ("dirty_met", 0.0),
                    ("p999_writes", 100.0),
                    ("p999_does_not", 1.0),
                ],
                Silent,
            ),
        ],
        "light-pressure-only" => vec![
            (
                vec![
                    ("light_writes", 100.0),
                    ("light_does_not", 50.0),
                    ("heavy_writes", 100.0),
                    ("heavy_does_not", 200.0),
                ],
                Holds,
            ),
            (
                vec![
                    ("light_writes", 100.0),
                    ("light_does_not", 50.0),
                    ("heavy_writes", 200.0),
                    ("heavy_does_not", 100.0),
                ],
                Fails,
            ),
            (
                vec![
                    ("light_writes", 50.0),
                    ("light_does_not", 100.0),
                    ("heavy_writes", 100.0),
                    ("heavy_does_not", 200.0),
                ],
                Fails,
            ),
            (
                vec![
                    ("light_writes", 100.0),
                    ("light_does_not", 100.0),
                    ("heavy_writes", 100.0),
                    ("heavy_does_not", 100.0),
                ],
                Fails,
            ),
        ],
        "kick-and-sleep" => vec![
            (
                vec![
                    ("dirty_met", 1.0),
                    ("p999_kick", 80.0),
                    ("p999_wait", 100.0),
                ],
                Holds,
            ),
            (
                vec![
                    ("dirty_met", 1.0),
                    ("p999_kick", 95.0),
                    ("p999_wait", 100.0),
                ],
                Fails,
            ),
            (
                vec![("dirty_met", 0.0), ("p999_kick", 1.0), ("p999_wait", 100.0)],
                Silent,
            ),
        ],
        "lru-order" => vec![
            (
                vec![
                    ("hits_writes", 0.5),
                    ("hits_does_not", 0.4),
                    ("refaults_writes", 1.0),
                    ("refaults_does_not", 1.0),
                ],
                Holds,
            ),
            (
                vec![
                    ("hits_writes", 0.5),
                    ("hits_does_not", 0.5),
                    ("refaults_writes", 1.0),
                    ("refaults_does_not", 1.2),
                ],
                Holds,
            ),
            (
                vec![
                    ("hits_writes", 0.5),
                    ("hits_does_not", 0.5),
                    ("refaults_writes", 1.0),
                    ("refaults_does_not", 1.05),
                ],
                Fails,
            ),
        ],
        "few-dirty-pages" => vec![
            (vec![("scanned", 100.0), ("dirty_share", 0.09)], Holds),
            (vec![("scanned", 100.0), ("dirty_share", 0.1)], Fails),
            (vec![("scanned", 0.0), ("dirty_share", 0.0)], Silent),
        ],
        "kswapd-still-writes" => vec![
            (vec![("share_calm", 0.0), ("share_hard", 0.02)], Holds),
            (vec![("share_calm", 0.0), ("share_hard", 0.01)], Fails),
            (vec![("share_calm", 0.3), ("share_hard", 0.2)], Fails),
        ],
        "naps-below-2" => vec![
            (vec![("naps", 10.0), ("naps_below_2", 9.0)], Holds),
            (vec![("naps", 10.0), ("naps_below_2", 8.0)], Fails),
            (vec![("naps", 0.0), ("naps_below_2", 0.0)], Silent),
        ],
        "kswapd-throttle" => vec![
            (
                vec![
                    ("written_by_kswapd", 1.0),
                    ("efficiency_direct", 0.5),
                    ("efficiency_kswapd", 0.4),
                ],
                Holds,
            ),
            (
                vec![
                    ("written_by_kswapd", 1.0),
                    ("efficiency_direct", 0.5),
                    ("efficiency_kswapd", 0.48),
                ],
                Fails,
            ),
            (
                vec![
                    ("written_by_kswapd", 0.0),
                    ("efficiency_direct", 0.5),
                    ("efficiency_kswapd", 0.1),
                ],
                Silent,
            ),
        ],
        _ => panic!("the rule of {name} has no cases"),
    }
}

fn stacks(values: [f64; 6]) -> Vec<(&'static str, f64)> {
    let names = [
        "refused_1",
        "refused_2",
        "refaults_1",
        "refaults_2",
        "p999_1",
        "p999_2",
    ];
    names.into_iter().zip(values).collect()
}

fn figures(values: &[(&'static str, f64)]) -> Figures {
    let with = |f: Figures, (name, value): &(&'static str, f64)| f.with(name, *value, Unit::Ratio);
    values.iter().fold(Figures::default(), with)
}

#[test]
fn each_rule_reaches_each_verdict_by_figures_alone() {
    for claim in all() {
        let Claim {
            name,
            rule,
            headline,
            depends,
            ..
        } = claim;
        let mut answers = Vec::new();
        for (values, want) in cases(name) {
            let figures = figures(&values);
            assert_eq!(rule(&figures), want, "{name}: {values:?}");
            assert!(!headline(&figures).is_empty(), "{name}");
            answers.push(want);
        }
        assert!(
            answers.contains(&Holds) && answers.contains(&Fails),
            "{name}: CLAIM-1"
        );
        let of = |conditions: &[Vec<Answer>]| verdict(depends, conditions);
        assert_eq!(of(&[vec![Holds]]), Verdict::Holds);
        assert_eq!(of(&[vec![Fails]]), Verdict::DoesNotHold);
        assert_eq!(
            of(&[vec![Holds], vec![Fails]]),
            Verdict::DependsOn(depends.into()),
            "{name}"
        );
    }
}

#[test]
fn a_claim_is_short_and_has_a_name_of_its_own() {
    let claims = all();
    for (i, claim) in claims.iter().enumerate() {
        let words = claim.claim.split_whitespace().count();
        assert!(
            (3..=10).contains(&words),
            "{}: {words} words: CLAIM-2",
            claim.name
        );
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(claim.name.chars().all(plain), "{}", claim.name);
        assert!(
            claims[..i].iter().all(|c| c.name != claim.name),
            "{} twice",
            claim.name
        );
        // Short quotations only.
        assert!(
            claim.quote.split_whitespace().count() <= 30,
            "{}",
            claim.name
        );
        let conditions = (claim.conditions)();
        assert!(!conditions.is_empty(), "{}", claim.name);
        for (n, c) in conditions.iter().enumerate() {
            assert!(
                conditions[..n].iter().all(|o| o.name != c.name),
                "{}: {}",
                claim.name,
                c.name
            );
        }
    }
}

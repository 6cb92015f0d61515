//! CLAIM-1 and CLAIM-2, claim by claim: figures for each answer that its rule can give.

use super::all;
use crate::claims::claim::{Answer, Answer::*, Claim, Figures, Unit, Verdict, verdict};

type Case = (Vec<(&'static str, f64)>, Answer);

/// Figures by hand, and what the rule must make of them.
fn cases(name: &str) -> Vec<Case> {
    match name {
        "splice" => vec![
            (
                vec![
                    ("outer", 5064.0),
                    ("below_writepage", 3776.0),
                    ("stack", 8192.0),
                ],
                Holds,
            ),
            (
                vec![
                    ("outer", 4416.0),
                    ("below_writepage", 3776.0),
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
                vec![("deepest", 5.0), ("xfs", 3.0), ("largest_other", 2.0)],
                Holds,
            ),
            (
                vec![("deepest", 5.0), ("xfs", 2.0), ("largest_other", 2.0)],
                Fails,
            ),
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

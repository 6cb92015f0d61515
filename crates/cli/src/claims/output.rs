//! What `claims` prints: a table, the details of each claim, and JSON.

use super::claim::{Answer, Figure, Figures, Unit, Verdict, Who, of_seeds};
use super::{Judged, Seen};
use crate::command_line::{CommandLine, OUTPUTS};
use crate::plan::WorldName;
use crate::table::{Group, Table};
use crate::units::{show_count, show_us};
use serde::Serialize;
use std::collections::BTreeMap;

/// The table, and below it what it counts; with --verbose each claim in full.
pub fn text(judged: &[Judged], world: WorldName, said: &CommandLine) -> String {
    let mut out = format!(
        "\nThe mail of 15 June 2010, claim by claim; world {}\n\n{}\n",
        world.name(),
        table(judged).render(crate::console::width())
    );
    out.push_str(&tally(judged));
    out.push('\n');
    if said.has("verbose") {
        for j in judged {
            out.push_str(&details(j));
        }
    } else {
        let first = judged.first().map_or("splice", |j| j.claim.name);
        let next = said.clone().without(&OUTPUTS).with("only", first);
        let next = next.flag("verbose");
        out.push_str(&format!(
            "\nNext: {next}    # quotation, scenario, rule, and all figures\n"
        ));
    }
    out
}

fn table(judged: &[Judged]) -> Table {
    let columns = ["who", "claim", "verdict", "measured"];
    let rows: Vec<[String; 4]> = judged.iter().map(row).collect();
    let width = |c: usize| {
        let cells = rows.iter().map(|r| r[c].chars().count());
        cells.max().unwrap_or(0).max(columns[c].len())
    };
    // Words are read from the left.
    let left = |text: &str, c: usize| format!("{text:<width$}", width = width(c));
    Table {
        corner: "name".into(),
        groups: (0..columns.len())
            .map(|c| Group {
                title: String::new(),
                columns: vec![left(columns[c], c)],
            })
            .collect(),
        labels: judged.iter().map(|j| j.claim.name.to_string()).collect(),
        cells: rows
            .iter()
            .map(|row| {
                row.iter()
                    .enumerate()
                    .map(|(c, text)| left(text, c))
                    .collect()
            })
            .collect(),
    }
}

fn row(j: &Judged) -> [String; 4] {
    [
        short(j.claim.who).to_string(),
        j.claim.claim.to_string(),
        j.verdict.text(),
        headline(j),
    ]
}

fn short(who: Who) -> &'static str {
    match who {
        Who::Andrea => "Andrea",
        Who::Mel => "Mel",
        Who::Dave => "Dave",
    }
}

/// The figures of the first condition that had a say.
fn headline(j: &Judged) -> String {
    let said = |s: &&Seen| s.seeds.iter().any(|(_, a)| *a != Answer::Silent);
    let seen = j.conditions.iter().find(said).or(j.conditions.first());
    let first = seen.and_then(|s| s.seeds.first());
    first.map_or(String::new(), |(f, _)| (j.claim.headline)(f))
}

/// How many of each verdict.
fn tally(judged: &[Judged]) -> String {
    let count = |of: fn(&Verdict) -> bool| judged.iter().filter(|j| of(&j.verdict)).count();
    let mut text = format!(
        "{} hold, {} do not hold, {} depend",
        count(|v| *v == Verdict::Holds),
        count(|v| *v == Verdict::DoesNotHold),
        count(|v| matches!(v, Verdict::DependsOn(_))),
    );
    match count(|v| matches!(v, Verdict::NotMeasured(_))) {
        0 => {}
        n => text.push_str(&format!(", {n} not measured")),
    }
    text + "."
}

/// What a condition's seeds answer together.
pub fn answer_text(seen: &Seen) -> String {
    if let Some(why) = &seen.not_measured {
        return format!("not measured: {why}");
    }
    let answers: Vec<Answer> = seen.seeds.iter().map(|(_, a)| *a).collect();
    match of_seeds(&answers) {
        Some(Answer::Holds) => "holds".into(),
        Some(Answer::Fails) => "does not hold".into(),
        Some(Answer::Silent) => "did not happen".into(),
        None => {
            let holds = answers.iter().filter(|a| **a == Answer::Holds).count();
            format!("holds with {holds} of {} seeds", answers.len())
        }
    }
}

/// A figure for people.
pub fn show(figure: &Figure) -> String {
    let v = figure.value;
    match figure.unit {
        Unit::Count => show_count(v.round() as u64),
        Unit::Bytes => format!("{} B", show_count(v.round() as u64)),
        Unit::Micros => show_us(v),
        Unit::Share => format!("{:.1} %", v * 100.0),
        Unit::Ratio => format!("{v:.3}"),
        Unit::Seconds => format!("{v:.3} s"),
    }
}

/// The values of each figure over the seeds: one, or all with commas where they differ.
pub fn values(seen: &Seen) -> Vec<(&'static str, String)> {
    let names = seen
        .seeds
        .first()
        .map(|(f, _)| f.0.clone())
        .unwrap_or_default();
    let mut out = Vec::new();
    for (at, figure) in names.iter().enumerate() {
        let of = |f: &Figures| f.0.get(at).map_or(String::new(), show);
        let mut all: Vec<String> = seen.seeds.iter().map(|(f, _)| of(f)).collect();
        if all.iter().all(|v| *v == all[0]) {
            all.truncate(1);
        }
        out.push((figure.name, all.join(" · ")));
    }
    out
}

fn details(j: &Judged) -> String {
    let c = &j.claim;
    let mut out = format!(
        "\n{}: {}\n  {}: \"{}\"\n  measured: {}\n  rule: {}\n",
        c.name,
        j.verdict.text(),
        c.who.name(),
        c.quote,
        c.measured,
        c.rule_text
    );
    for seen in &j.conditions {
        out.push_str(&format!("  {}: {}\n", seen.name, answer_text(seen)));
        for (name, value) in values(seen) {
            out.push_str(&format!("    {name:<26}{value}\n"));
        }
    }
    out
}

/// The whole of `--json`.
#[derive(Debug, Serialize)]
pub struct Published {
    world: &'static str,
    seeds: Vec<u64>,
    claims: Vec<PublishedClaim>,
}

#[derive(Debug, Serialize)]
struct PublishedClaim {
    name: &'static str,
    who: &'static str,
    quote: &'static str,
    claim: &'static str,
    measured: &'static str,
    rule: &'static str,
    #[serde(flatten)]
    verdict: Verdict,
    conditions: Vec<PublishedCondition>,
}

#[derive(Debug, Serialize)]
struct PublishedCondition {
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_measured: Option<String>,
    seeds: Vec<PublishedSeed>,
}

#[derive(Debug, Serialize)]
struct PublishedSeed {
    answer: Answer,
    figures: BTreeMap<&'static str, f64>,
}

/// As JSON has it.
pub fn json(judged: &[Judged], world: WorldName, seeds: &[u64]) -> Published {
    let condition = |s: &Seen| PublishedCondition {
        name: s.name,
        not_measured: s.not_measured.clone(),
        seeds: (s.seeds.iter())
            .map(|(figures, answer)| PublishedSeed {
                answer: *answer,
                figures: figures.map(),
            })
            .collect(),
    };
    Published {
        world: world.name(),
        seeds: seeds.to_vec(),
        claims: judged
            .iter()
            .map(|j| PublishedClaim {
                name: j.claim.name,
                who: j.claim.who.name(),
                quote: j.claim.quote,
                claim: j.claim.claim,
                measured: j.claim.measured,
                rule: j.claim.rule_text,
                verdict: j.verdict.clone(),
                conditions: j.conditions.iter().map(condition).collect(),
            })
            .collect(),
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::list;
    use super::*;
    use crate::command_line::tests::of;

    /// The first claims with figures of `seeds`, each with the rule's answer.
    pub fn judged() -> Vec<Judged> {
        let claim = list::all()
            .into_iter()
            .find(|c| c.name == "few-dirty-pages")
            .unwrap();
        let figures = |share: f64| {
            Figures::default()
                .with("scanned", 1234.0, Unit::Count)
                .with("dirty_share", share, Unit::Share)
        };
        let seen = |name, shares: &[f64]| Seen {
            name,
            not_measured: None,
            seeds: (shares.iter())
                .map(|s| (figures(*s), (claim.rule)(&figures(*s))))
                .collect(),
        };
        let conditions = vec![seen("calm", &[0.05, 0.06]), seen("hard", &[0.05, 0.3])];
        vec![Judged {
            conditions,
            verdict: Verdict::DependsOn("the dirty limit and seed".into()),
            claim,
        }]
    }

    #[test]
    fn the_table_has_a_line_for_each_claim() {
        let said = of(&["claims", "--seeds", "3", "--json", "a"]);
        let text = text(&judged(), WorldName::Lab, &said);
        let next = "Next: highwater claims --seeds 3 --only few-dirty-pages --verbose ";
        assert!(text.contains(next), "{text}");
        let line = text
            .lines()
            .find(|l| l.starts_with("few-dirty-pages"))
            .unwrap();
        for word in ["Mel", "5.0 % of 1,234", "depends on the dirty limit"] {
            assert!(line.contains(word), "{word}: {line}");
        }
        assert!(text.contains("0 hold, 0 do not hold, 1 depend."), "{text}");
        assert!(!text.contains("measured:"));
    }

    #[test]
    fn the_details_have_each_seed_s_figures() {
        let text = text(&judged(), WorldName::Lab, &of(&["claims", "-v"]));
        for line in [
            "  calm: holds",
            "  hard: holds with 1 of 2 seeds",
            "    scanned                   1,234\n",
            "    dirty_share               5.0 % · 30.0 %\n",
            "  rule: ",
            "Mel Gorman: \"",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn json_has_exactly_its_names() {
        let v = serde_json::to_value(json(&judged(), WorldName::Lab, &[1, 2])).unwrap();
        let keys = |v: &serde_json::Value| {
            let mut keys: Vec<String> = v.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys.join(" ")
        };
        assert_eq!(keys(&v), "claims seeds world");
        let claim = &v["claims"][0];
        assert_eq!(
            keys(claim),
            "claim conditions measured name quote rule verdict who why"
        );
        assert_eq!(claim["verdict"], "depends-on");
        assert_eq!(claim["conditions"][1]["seeds"][1]["answer"], "fails");
        assert_eq!(
            claim["conditions"][0]["seeds"][0]["figures"]["dirty_share"],
            0.05
        );
    }
}

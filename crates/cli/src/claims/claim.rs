//! What a claim is, and how figures become a verdict.
//!
//! A claim is looked at under one or more *conditions* (a quick disk and a slow one, say) and with several seeds. Its *rule*
//! answers for each run from that run's figures; the verdict is what the answers have in common:
//!
//! ```text
//! all hold                → holds                 some hold, some fail  → depends on what the conditions differ in
//! all fail                → does not hold         seeds disagree        → depends on the seed, or on that too
//!                                                 (fewer than four in five agree)
//! nothing was to be seen  → not measured, and why
//! ```
//!
//! **Invariants.**
//! - CLAIM-1: no verdict is a constant: each rule's test reaches *holds* and *does not hold* by figures alone.
//! - CLAIM-2: a claim is at most ten words, and its name is its own.

use super::runs::{Run, Runs};
use serde::Serialize;
use std::collections::BTreeMap;

/// Who says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Who {
    /// Andrea Arcangeli, who would keep `->writepage` in direct reclaim.
    Andrea,
    /// Mel Gorman, whose patches take it out.
    Mel,
    /// Dave Chinner, whose report began it.
    Dave,
}

impl Who {
    /// In full.
    pub fn name(self) -> &'static str {
        match self {
            Who::Andrea => "Andrea Arcangeli",
            Who::Mel => "Mel Gorman",
            Who::Dave => "Dave Chinner",
        }
    }
}

/// How a figure is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Microseconds.
    Micros,
    /// A part of one, shown in percent.
    Share,
    /// A plain number.
    Ratio,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

/// A figure of one run, by its name.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Figure {
    /// As the rule asks for it, and as JSON has it.
    pub name: &'static str,
    /// The value.
    pub value: f64,
    /// How it is shown.
    pub unit: Unit,
}

/// The figures of one condition and seed, in the order in which they are shown.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Figures(pub Vec<Figure>);

impl Figures {
    /// With another one.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: f64, unit: Unit) -> Figures {
        self.0.push(Figure { name, value, unit });
        self
    }

    /// The figure `name`; a rule that asks for one that nobody measured is a bug.
    pub fn get(&self, name: &str) -> f64 {
        let found = self.0.iter().find(|f| f.name == name);
        found.unwrap_or_else(|| panic!("no figure {name}")).value
    }

    /// As JSON has them.
    pub fn map(&self) -> BTreeMap<&'static str, f64> {
        self.0.iter().map(|f| (f.name, f.value)).collect()
    }
}

/// What a rule says of one run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The figures are as claimed.
    Holds,
    /// They are not.
    Fails,
    /// What the claim is about did not happen in this run.
    Silent,
}

impl Answer {
    /// `Holds` if `yes`.
    pub fn of(yes: bool) -> Answer {
        if yes { Answer::Holds } else { Answer::Fails }
    }
}

/// One setting that a claim is looked at in.
pub struct Condition {
    /// What is special about it, in a few words.
    pub name: &'static str,
    /// The runs that it needs; none for a figure that is computed.
    pub runs: Vec<Run>,
    /// The figures, from those runs; an error says why there are none.
    pub figures: fn(&Runs) -> Result<Figures, String>,
}

/// One claim of the mail.
pub struct Claim {
    /// For `--only`.
    pub name: &'static str,
    /// Who says so.
    pub who: Who,
    /// In the mail's words.
    pub quote: &'static str,
    /// In at most ten.
    pub claim: &'static str,
    /// What is run, and what is counted.
    pub measured: &'static str,
    /// The rule in words.
    pub rule_text: &'static str,
    /// The rule.
    pub rule: fn(&Figures) -> Answer,
    /// What the conditions differ in: the end of "depends on ...".
    pub depends: &'static str,
    /// The figures of a run in one short line.
    pub headline: fn(&Figures) -> String,
    /// The settings.
    pub conditions: fn() -> Vec<Condition>,
}

/// What all answers say together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "why")]
pub enum Verdict {
    /// In each condition, with each seed.
    Holds,
    /// In none.
    DoesNotHold,
    /// Here so, there otherwise.
    DependsOn(String),
    /// It could not be looked at, and why.
    NotMeasured(String),
}

impl Verdict {
    /// As people read it.
    pub fn text(&self) -> String {
        match self {
            Verdict::Holds => "holds".into(),
            Verdict::DoesNotHold => "does not hold".into(),
            Verdict::DependsOn(what) => format!("depends on {what}"),
            Verdict::NotMeasured(why) => format!("not measured: {why}"),
        }
    }
}

/// So many of the seeds that had a say must agree, of [`AGREE_OF`]: an answer that one seed in five contradicts stands.
const AGREE: usize = 4;
const AGREE_OF: usize = 5;

/// The answers of one condition, a seed each, as one: `None` when seeds disagree.
pub fn of_seeds(answers: &[Answer]) -> Option<Answer> {
    let count = |a: Answer| answers.iter().filter(|b| **b == a).count();
    let (holds, fails) = (count(Answer::Holds), count(Answer::Fails));
    let agree = |n: usize| n * AGREE_OF >= (holds + fails) * AGREE;
    match () {
        () if holds + fails == 0 => Some(Answer::Silent),
        () if agree(holds) => Some(Answer::Holds),
        () if agree(fails) => Some(Answer::Fails),
        () => None,
    }
}

/// The verdict over conditions, each with the answers of its seeds.
pub fn verdict(depends: &str, conditions: &[Vec<Answer>]) -> Verdict {
    let answers: Vec<Option<Answer>> = conditions.iter().map(|c| of_seeds(c)).collect();
    let has = |a: Option<Answer>| answers.contains(&a);
    let (holds, fails) = (has(Some(Answer::Holds)), has(Some(Answer::Fails)));
    match (holds, fails, has(None)) {
        (true, true, _) => Verdict::DependsOn(depends.to_string()),
        (true, false, false) => Verdict::Holds,
        (false, true, false) => Verdict::DoesNotHold,
        (true, false, true) | (false, true, true) => {
            Verdict::DependsOn(format!("{depends} and seed"))
        }
        (false, false, true) => Verdict::DependsOn("the seed".into()),
        (false, false, false) => Verdict::NotMeasured("it did not happen".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::Answer::*;
    use super::*;

    #[test]
    fn a_verdict_is_what_answers_have_in_common() {
        let depends = |what: &str| Verdict::DependsOn(what.into());
        for (conditions, want) in [
            (vec![vec![Holds, Holds], vec![Holds]], Verdict::Holds),
            (vec![vec![Fails], vec![Fails, Fails]], Verdict::DoesNotHold),
            (vec![vec![Holds], vec![Fails]], depends("the disk")),
            (
                vec![vec![Holds, Fails], vec![Fails], vec![Holds]],
                depends("the disk"),
            ),
            (vec![vec![Holds, Fails]], depends("the seed")),
            (
                vec![vec![Holds, Fails], vec![Holds]],
                depends("the disk and seed"),
            ),
            (
                vec![vec![Holds, Fails], vec![Fails]],
                depends("the disk and seed"),
            ),
            // Who saw nothing has no say.
            (vec![vec![Silent, Holds], vec![Silent]], Verdict::Holds),
            (
                vec![vec![Silent, Fails], vec![Silent]],
                Verdict::DoesNotHold,
            ),
        ] {
            assert_eq!(verdict("the disk", &conditions), want, "{conditions:?}");
        }
        for nothing in [
            vec![],
            vec![vec![]],
            vec![vec![Silent], vec![Silent, Silent]],
        ] {
            let v = verdict("the disk", &nothing);
            assert!(matches!(&v, Verdict::NotMeasured(_)), "{nothing:?}: {v:?}");
        }
    }

    #[test]
    #[should_panic(expected = "no figure nonsense")]
    fn a_figure_that_nobody_measured_is_a_bug() {
        Figures::default()
            .with("a", 1.0, Unit::Count)
            .get("nonsense");
    }
}

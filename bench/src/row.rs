//! A row of the table: two sides, their ratio, and whether the goal is reached.

use crate::expect::Expect;
use crate::sample::Spread;
use serde::Serialize;

/// What a cell counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Unit {
    /// Nanoseconds an operation.
    Ns,
    /// Microseconds.
    Us,
    /// Seconds.
    Seconds,
    /// Operations a second.
    OpsPerS,
    /// 10^6 bytes a second.
    MbPerS,
    /// Pages.
    Pages,
    /// Pages for each page.
    Each,
    /// 2^20 bytes.
    Mib,
}

impl Unit {
    /// Whether a larger number is the better one.
    fn more_is_better(self) -> bool {
        matches!(self, Unit::OpsPerS | Unit::MbPerS)
    }

    /// A number of this unit.
    pub fn show(self, x: f64) -> String {
        match self {
            Unit::Ns => format!("{x:.1} ns"),
            Unit::Us => format!("{x:.1} µs"),
            Unit::Seconds => format!("{x:.3} s"),
            Unit::OpsPerS => format!("{x:.0}/s"),
            Unit::MbPerS => format!("{x:.0} MB/s"),
            Unit::Pages => format!("{x:.0} pages"),
            Unit::Each => format!("{x:.2}"),
            Unit::Mib => format!("{x:.1} MiB"),
        }
    }
}

/// What has to come out.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub enum Goal {
    /// Printed for the reader.
    None,
    /// The result, at most.
    AtMost(f64),
    /// The ratio to the peer, at least.
    Ratio(f64),
}

/// One line.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The name that selects it.
    pub group: String,
    /// What was measured.
    pub what: String,
    /// Of result and peer.
    pub unit: Unit,
    /// Of the result where the goal is one for the result, else of the ratio.
    pub prediction: f64,
    /// Each round's result.
    pub own: Vec<f64>,
    /// The peer's name, and its rounds.
    pub peer: Option<(String, Vec<f64>)>,
    /// What has to come out.
    pub goal: Goal,
    /// Lines under the table.
    pub notes: Vec<String>,
    /// Why it was not measured.
    pub skipped: Option<String>,
}

impl Row {
    /// A row of one side.
    pub fn new(group: &str, expect: &Expect, own: Vec<f64>) -> Row {
        Row {
            group: group.into(),
            what: expect.what.into(),
            unit: expect.unit,
            prediction: expect.prediction,
            own,
            peer: None,
            goal: expect.goal,
            notes: Vec::new(),
            skipped: None,
        }
    }

    /// With a peer, which ran in turn with it.
    pub fn peer(mut self, name: &str, rounds: Vec<f64>) -> Row {
        self.peer = Some((name.into(), rounds));
        self
    }

    /// With a line under the table.
    pub fn note(mut self, note: impl Into<String>) -> Row {
        self.notes.push(note.into());
        self
    }

    /// A row that was not measured.
    pub fn skipped(group: &str, what: &str, why: &str) -> Row {
        Row {
            group: group.into(),
            what: what.into(),
            unit: Unit::Each,
            prediction: 0.0,
            own: Vec::new(),
            peer: None,
            goal: Goal::None,
            notes: Vec::new(),
            skipped: Some(why.into()),
        }
    }

    /// The ratio of each round; above 1 Highwater is better.
    pub fn ratio(&self) -> Option<Spread> {
        let (_, peer) = self.peer.as_ref()?;
        let better = |own: f64, peer: f64| match (self.unit.more_is_better(), own, peer) {
            (_, o, p) if o == p => 1.0,
            (true, o, p) => o / p,
            (false, o, p) => p / o,
        };
        let all: Vec<f64> = (self.own.iter().zip(peer))
            .map(|(o, p)| better(*o, *p))
            .collect();
        (!all.is_empty()).then(|| Spread::of(&all))
    }

    /// Whether the goal is reached, by the medians; none without a goal or a measurement.
    pub fn reached(&self) -> Option<bool> {
        if self.own.is_empty() {
            return None;
        }
        match self.goal {
            Goal::None => None,
            Goal::AtMost(most) => Some(Spread::of(&self.own).median <= most),
            Goal::Ratio(least) => self.ratio().map(|r| r.median >= least),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expect::Expect;

    fn expect(unit: Unit, goal: Goal) -> Expect {
        Expect {
            what: "x",
            unit,
            prediction: 1.0,
            goal,
        }
    }

    #[test]
    fn a_ratio_above_one_is_better_in_each_unit() {
        let time =
            Row::new("g", &expect(Unit::Ns, Goal::Ratio(2.0)), vec![10.0]).peer("p", vec![30.0]);
        assert_eq!(time.ratio().unwrap().median, 3.0);
        assert_eq!(time.reached(), Some(true));
        let rate = Row::new("g", &expect(Unit::OpsPerS, Goal::Ratio(0.95)), vec![9.0])
            .peer("p", vec![10.0]);
        assert_eq!(rate.ratio().unwrap().median, 0.9);
        assert_eq!(rate.reached(), Some(false));
    }

    #[test]
    fn two_zeroes_are_equal_and_a_goal_of_zero_can_be_missed() {
        let none =
            Row::new("g", &expect(Unit::Seconds, Goal::Ratio(1.0)), vec![0.0]).peer("p", vec![0.0]);
        assert_eq!(none.reached(), Some(true));
        let pages = |n| Row::new("g", &expect(Unit::Pages, Goal::AtMost(0.0)), vec![n]).reached();
        assert_eq!((pages(0.0), pages(1.0)), (Some(true), Some(false)));
    }

    #[test]
    fn a_skipped_row_reaches_nothing() {
        assert_eq!(Row::skipped("g", "x", "not root").reached(), None);
    }
}

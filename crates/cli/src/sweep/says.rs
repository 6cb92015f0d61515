//! What a sweep says in sentences: how much is enough, who is best at the two ends, where lines cross, what to run next.

use super::again::exact;
use super::axis::AxisKind;
use super::crossings::{Line, best};
use super::enough::enough;
use super::figure::Figure;
use super::result::Sweep;
use crate::units::show_bytes;

impl Sweep {
    /// How much is enough, who is best at the two ends, and where lines cross.
    pub fn sentences(&self) -> Vec<String> {
        let mut out = Vec::new();
        if let Some(bytes) = self.footprint_bytes {
            out.push(format!(
                "The pages that the trace touches come to {}.",
                show_bytes(bytes)
            ));
        }
        if self.axis != AxisKind::Pressure && self.points.len() > 1 {
            out.extend((0..self.arms.len()).map(|arm| self.enough(arm)));
        }
        let mut even = Vec::new();
        for figure in self.figures() {
            let lines = self.lines(figure);
            if lines.len() < 2 {
                continue;
            }
            if self.axis != AxisKind::Pressure && self.all_even(&lines) {
                even.push(figure.title);
                continue;
            }
            out.push(self.ends(figure, &lines));
            let (axis, word) = (self.axis(), if figure.more { "higher" } else { "lower" });
            for c in self.crossings.iter().filter(|c| c.figure == figure.name) {
                let (from, to) = (axis.show(c.from), axis.show(c.to));
                out.push(format!(
                    "  {} and {} cross between {from} and {to}: {} is {word} up to {from}, {} from {to} on.",
                    c.before, c.after, c.before, c.after
                ));
            }
        }
        if !even.is_empty() {
            out.push(format!(
                "No arm is better than another, at any {}: {}.",
                self.axis().head(),
                even.join(", ")
            ));
        }
        let starved: Vec<&str> = (self.arms.iter())
            .filter(|a| a.points.iter().any(|p| p.starved_runs > 0))
            .map(|a| a.preset.as_str())
            .collect();
        if !starved.is_empty() {
            out.push(format!(
                "≥: in a run of {} the task {} finished nothing while it was measured.",
                starved.join(", "),
                self.task
            ));
        }
        if self.axis != AxisKind::Pressure && self.seeds.len() == 1 {
            out.push("One seed: --seeds 3 tells differences from noise.".into());
        }
        if out.is_empty() {
            out.push("One line crosses nothing: compare two or more presets.".into());
        }
        out
    }

    /// The least points of an arm that no others beat, figure by figure.
    fn enough(&self, arm: usize) -> String {
        let axis = self.axis();
        let mut at: Vec<Vec<String>> = self.points.iter().map(|_| Vec::new()).collect();
        for figure in self.figures() {
            let lines = self.lines(figure);
            let values = &lines[arm].values;
            if values.iter().any(|v| v.max != 0.0) {
                let least = enough(&lines[arm]);
                let value = (figure.show)(values[least].median);
                at[least].push(format!("{} ({value})", figure.title));
            }
        }
        let points = self.points.iter().zip(at).filter(|(_, f)| !f.is_empty());
        let points: Vec<String> = points
            .map(|(p, figures)| format!("{} for {}", axis.show(*p), figures.join(", ")))
            .collect();
        format!(
            "{}: the least {} that no other beats by a tenth is {}.",
            self.arms[arm].preset,
            axis.head(),
            points.join("; ")
        )
    }

    /// Is no line better than another, at any point?
    fn all_even(&self, lines: &[Line]) -> bool {
        (0..self.points.len()).all(|at| best(at, lines).len() == lines.len())
    }

    fn ends(&self, figure: &Figure, lines: &[Line]) -> String {
        let axis = self.axis();
        let title = match figure.name.ends_with("_us") {
            true => format!("{} of {}", figure.title, self.task),
            false => figure.title.to_string(),
        };
        let (best_word, better_word) = match figure.more {
            true => ("highest", "higher"),
            false => ("lowest", "lower"),
        };
        let at = |i: usize| {
            let names = best(i, lines);
            let value = |name: &str| {
                lines
                    .iter()
                    .find(|l| l.name == name)
                    .map_or(0.0, |l| l.values[i].median)
            };
            match names.len() == lines.len() {
                true => format!("no arm is {better_word} than the others"),
                false => {
                    let names: Vec<String> = names
                        .iter()
                        .map(|n| format!("{n} ({})", (figure.show)(value(n))))
                        .collect();
                    format!("{best_word} {}", names.join(" and "))
                }
            }
        };
        if lines.iter().all(|l| l.values.iter().all(|v| v.max == 0.0)) {
            return format!("{title}: none, at any {}.", axis.head());
        }
        let crossed = self.crossings.iter().any(|c| c.figure == figure.name);
        let end = if crossed { "" } else { " No lines cross." };
        let points: Vec<String> = self.points.iter().map(|p| axis.show(*p)).collect();
        let [low, high] = axis.ends();
        match &points[..] {
            [only] => format!("{title}: at {only} {}.", at(0)),
            _ => format!(
                "{title}: {low} ({}) {}; {high} ({}) {}.{end}",
                points[0],
                at(0),
                points[points.len() - 1],
                at(points.len() - 1)
            ),
        }
    }

    /// The command that is worth trying next.
    pub(super) fn next_command(&self) -> String {
        if self.axis == AxisKind::Pressure {
            return match self.world {
                "lab" => format!("{}    # the same on real files", self.on_real_files),
                _ => "highwater claims    # what the mail of 2010 claims, claim by claim".into(),
            };
        }
        let lines = self.lines(&self.figures()[0]);
        let point = lines.first().map_or(0.0, |l| self.points[enough(l)]);
        let again = self.again.clone();
        let again = match self.memory_bytes {
            None => again.with("memory", exact(point as u64)),
            Some(bytes) => again
                .with("memory", exact(bytes))
                .with("dirty-limit", point),
        };
        let note = match self.memory_bytes.is_none() && self.grows {
            true => "one of them in full; but files of so many times memory grow with it here",
            false => "one of them in full",
        };
        format!("{}    # {note}", again.with("html", "report.html"))
    }
}

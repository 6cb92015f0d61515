//! What a sweep found out: the shape of its JSON, its table, and its sentences.

use super::crossings::{Crossing, Line, Spread, crossings, lowest};
use crate::plan::WorldName;
use crate::report::ArmReport;
use crate::scenario::Scenario;
use crate::table::{Group, Table};
use crate::units::{show_bytes, show_count, show_us};
use serde::Serialize;

/// A figure that is compared: for each of them less is better.
pub struct Figure {
    /// Its name in JSON.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// Its value at a point.
    pub of: fn(&Point) -> Spread,
    /// As people read it.
    pub show: fn(f64) -> String,
}

/// What is plotted.
pub const FIGURES: [Figure; 4] = [
    Figure {
        name: "p999_us",
        title: "p99.9",
        of: |p| p.p999_us,
        show: show_us,
    },
    Figure {
        name: "refaults_per_op",
        title: "refaults for each operation",
        of: |p| p.refaults_per_op,
        show: |v| format!("{v:.4}"),
    },
    Figure {
        name: "refused",
        title: "refused allocations",
        of: |p| p.refused,
        show: |v| show_count(v.round() as u64),
    },
    Figure {
        name: "oom_unreclaimable",
        title: "out of memory by the kernel's rule",
        of: |p| p.oom_unreclaimable,
        show: |v| show_count(v.round() as u64),
    },
];

/// One arm at one pressure; each figure with its spread over the seeds.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Point {
    /// Data over memory.
    pub pressure: f64,
    /// The task's p99.9 in microseconds; of a run where it finished no operation, the time measured, which is less than
    /// the truth.
    pub p999_us: Spread,
    /// Runs where it finished no operation.
    pub starved_runs: usize,
    /// `workingset_refault_file` over operations of all tasks.
    pub refaults_per_op: Spread,
    /// Allocations that ended in `OutOfMemory` or `AllPinned` (`alloc_refused`).
    pub refused: Spread,
    /// Direct reclaims that got nothing after the lists were scanned six times over without a page freed: where Linux was
    /// out of memory until 4.6, and this engine waits.
    pub oom_unreclaimable: Spread,
    /// Operations that failed for it, and were not made up for.
    pub refused_operations: Spread,
    /// Operations a second, all tasks.
    pub ops_per_s: Spread,
    /// Seconds that all tasks waited for memory.
    pub alloc_stall_s: Spread,
    /// Hits over look-ups.
    pub hit_ratio: Spread,
}

/// The points of one arm.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SweptArm {
    /// The preset, or the arm's label.
    pub preset: String,
    /// At each pressure.
    pub points: Vec<Point>,
}

/// The whole of `--json`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Sweep {
    /// The scenario's name.
    pub scenario: String,
    /// `lab` or `os`.
    pub world: &'static str,
    /// The budget at each point.
    pub memory_bytes: u64,
    /// Whose p99.9 it is.
    pub task: String,
    /// The seeds that each cell ran with.
    pub seeds: Vec<u64>,
    /// Data over memory.
    pub pressures: Vec<f64>,
    /// The lines.
    pub arms: Vec<SweptArm>,
    /// Where two of them cross.
    pub crossings: Vec<Crossing>,
}

impl Sweep {
    /// Of the reports of each arm, at each pressure, for each seed.
    pub fn new(
        scenario: &Scenario,
        world: WorldName,
        task: &str,
        pressures: &[f64],
        seeds: &[u64],
        reports: &[(String, Vec<Vec<ArmReport>>)],
    ) -> Sweep {
        let measured_us = scenario.duration.0.as_secs_f64() * 1e6;
        let arms = reports.iter().map(|(preset, points)| SweptArm {
            preset: preset.clone(),
            points: (pressures.iter().zip(points))
                .map(|(pressure, runs)| point(*pressure, task, measured_us, runs))
                .collect(),
        });
        let mut sweep = Sweep {
            scenario: scenario.name.clone(),
            world: world.name(),
            memory_bytes: scenario.memory.0,
            task: task.to_string(),
            seeds: seeds.to_vec(),
            pressures: pressures.to_vec(),
            arms: arms.collect(),
            crossings: Vec::new(),
        };
        sweep.crossings = FIGURES
            .iter()
            .flat_map(|f| crossings(f.name, pressures, &sweep.lines(f)))
            .collect();
        sweep
    }

    /// The lines of one figure.
    pub fn lines(&self, figure: &Figure) -> Vec<Line<'_>> {
        let line = |arm: &SweptArm| arm.points.iter().map(figure.of).collect();
        self.arms
            .iter()
            .map(|arm| Line {
                name: &arm.preset,
                values: line(arm),
            })
            .collect()
    }

    /// Table and sentences.
    pub fn text(&self) -> String {
        let mut out = format!(
            "\n{}, memory {}, world {}: p99.9 of the task {}\n\n{}\n",
            self.scenario,
            show_bytes(self.memory_bytes),
            self.world,
            self.task,
            self.table().render(crate::width())
        );
        for sentence in self.sentences() {
            out.push_str(&sentence);
            out.push('\n');
        }
        out.push_str(&format!("\nNext: {}\n", self.next_command()));
        out
    }

    /// A row for each arm and pressure.
    pub fn table(&self) -> Table {
        let columns = [
            "pressure",
            "p99.9",
            "refaults/op",
            "refused",
            "kernel's OOM",
            "ops/s",
            "hit %",
            "waiting for memory",
        ];
        let mut table = Table {
            corner: "arm".into(),
            groups: vec![Group {
                title: match self.seeds.len() {
                    1 => String::new(),
                    n => format!("medians of {n} seeds"),
                },
                columns: columns.map(String::from).to_vec(),
            }],
            ..Table::default()
        };
        for arm in &self.arms {
            for (at, p) in arm.points.iter().enumerate() {
                let label = if at == 0 {
                    arm.preset.clone()
                } else {
                    String::new()
                };
                table.labels.push(label);
                table.cells.push(vec![
                    format!("{} x", p.pressure),
                    format!(
                        "{}{}",
                        if p.starved_runs > 0 { "≥ " } else { "" },
                        show_us(p.p999_us.median)
                    ),
                    format!("{:.4}", p.refaults_per_op.median),
                    show_count(p.refused.median.round() as u64),
                    show_count(p.oom_unreclaimable.median.round() as u64),
                    show_count(p.ops_per_s.median.round() as u64),
                    format!("{:.1}", p.hit_ratio.median * 100.0),
                    format!("{:.2} s", p.alloc_stall_s.median),
                ]);
            }
        }
        table
    }

    /// Who is best at the lowest and at the highest pressure, and where lines cross.
    pub fn sentences(&self) -> Vec<String> {
        let mut out = Vec::new();
        for figure in &FIGURES {
            let lines = self.lines(figure);
            if lines.len() < 2 {
                continue;
            }
            out.push(self.ends(figure, &lines));
            for c in self.crossings.iter().filter(|c| c.figure == figure.name) {
                out.push(format!(
                    "  {} and {} cross between {} and {}: {} is lower up to {} x memory, {} from {} x on.",
                    c.before, c.after, c.from, c.to, c.before, c.from, c.after, c.to
                ));
            }
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
        if out.is_empty() {
            out.push("One line crosses nothing: compare two or more presets.".into());
        }
        out
    }

    fn ends(&self, figure: &Figure, lines: &[Line]) -> String {
        let title = match figure.name {
            "p999_us" => format!("{} of {}", figure.title, self.task),
            _ => figure.title.to_string(),
        };
        let n = self.pressures.len();
        let at = |i: usize| {
            let names = lowest(i, lines);
            let value = |name: &str| {
                lines
                    .iter()
                    .find(|l| l.name == name)
                    .map_or(0.0, |l| l.values[i].median)
            };
            match names.len() == lines.len() {
                true => "no arm is lower than the others".to_string(),
                false => {
                    let names: Vec<String> = names
                        .iter()
                        .map(|n| format!("{n} ({})", (figure.show)(value(n))))
                        .collect();
                    format!("lowest {}", names.join(" and "))
                }
            }
        };
        if lines.iter().all(|l| l.values.iter().all(|v| v.max == 0.0)) {
            return format!("{title}: none, at any pressure.");
        }
        let crossed = self.crossings.iter().any(|c| c.figure == figure.name);
        let end = if crossed { "" } else { " No lines cross." };
        match n {
            1 => format!("{title}: at {} x memory {}.", self.pressures[0], at(0)),
            _ => format!(
                "{title}: when pressure is low ({} x) {}; when it is high ({} x) {}.{end}",
                self.pressures[0],
                at(0),
                self.pressures[n - 1],
                at(n - 1)
            ),
        }
    }

    fn next_command(&self) -> String {
        match (self.world, self.scenario.as_str()) {
            ("lab", name) => {
                format!("highwater sweep {name} --world os --seeds 1    # the same on real files")
            }
            (_, _) => "highwater claims    # what the mail of 2010 claims, claim by claim".into(),
        }
    }
}

fn point(pressure: f64, task: &str, measured_us: f64, runs: &[ArmReport]) -> Point {
    let of = |pick: &dyn Fn(&ArmReport) -> f64| {
        let runs: Vec<f64> = runs.iter().map(pick).collect();
        Spread::of(&runs)
    };
    let count = |a: &ArmReport, name: &str| a.count(name).unwrap_or(0) as f64;
    let ops = |a: &ArmReport| a.tasks.iter().map(|t| t.ops).sum::<u64>().max(1) as f64;
    let done = |a: &ArmReport| {
        a.tasks
            .iter()
            .find(|t| t.name == task && t.ops > 0)
            .cloned()
    };
    Point {
        pressure,
        p999_us: of(&|a| done(a).map_or(measured_us, |t| t.latency_us.p999)),
        starved_runs: runs.iter().filter(|a| done(a).is_none()).count(),
        refaults_per_op: of(&|a| count(a, "workingset_refault_file") / ops(a)),
        refused: of(&|a| count(a, "alloc_refused")),
        oom_unreclaimable: of(&|a| count(a, "oom_unreclaimable")),
        refused_operations: of(&|a| a.refused as f64),
        ops_per_s: of(&|a| a.ops_per_s),
        alloc_stall_s: of(&|a| a.stall_s.alloc.unwrap_or(0.0)),
        hit_ratio: of(&|a| a.hit_ratio.unwrap_or(0.0)),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::report::{Latency, TaskReport};

    fn report(p999: f64, refaults: u64, refused: u64) -> ArmReport {
        let mut report = ArmReport {
            ops_per_s: 1000.0,
            tasks: vec![TaskReport {
                name: "probe".into(),
                ops: 100,
                latency_us: Latency {
                    p999,
                    ..Latency::default()
                },
                ..TaskReport::default()
            }],
            ..ArmReport::default()
        };
        report
            .vmstat
            .insert("workingset_refault_file".into(), refaults);
        report.vmstat.insert("alloc_refused".into(), refused);
        report
    }

    /// Two arms at three pressures; their p99.9 cross, their refaults do not, nothing is refused.
    pub fn sweep() -> Sweep {
        let scenario = crate::scenario::find("rfc").unwrap();
        let reports = [
            ("2.6.35", [100.0, 200.0, 300.0]),
            ("rfc <2010>", [50.0, 190.0, 900.0]),
        ]
        .map(|(name, p999)| {
            let points = p999
                .iter()
                .map(|p| vec![report(*p, 10, 0), report(*p, 10, 0)]);
            (name.to_string(), points.collect::<Vec<_>>())
        });
        Sweep::new(
            &scenario,
            WorldName::Lab,
            "probe",
            &[0.8, 2.0, 8.0],
            &[1, 2],
            &reports,
        )
    }

    #[test]
    fn the_sentences_say_low_high_and_where_they_cross() {
        let s = sweep().sentences();
        assert_eq!(
            s[0],
            "p99.9 of probe: when pressure is low (0.8 x) lowest rfc <2010> (50 µs); when it is high (8 x) lowest 2.6.35 (300 µs)."
        );
        assert_eq!(
            s[1],
            "  rfc <2010> and 2.6.35 cross between 0.8 and 8: rfc <2010> is lower up to 0.8 x memory, 2.6.35 from 8 x on."
        );
        assert!(
            s[2].ends_with("no arm is lower than the others. No lines cross."),
            "{}",
            s[2]
        );
        assert_eq!(s[3], "refused allocations: none, at any pressure.");
    }

    #[test]
    fn the_table_has_a_row_for_each_cell() {
        let text = sweep().text();
        for p in ["0.8 x", "2 x", "8 x"] {
            assert_eq!(text.matches(&format!(" {p}  ")).count(), 2, "{p}: {text}");
        }
        assert!(text.contains("medians of 2 seeds"), "{text}");
        assert!(text.contains("0.1000"), "refaults over operations: {text}");
    }

    #[test]
    fn refusals_are_shown_where_there_are_any() {
        let scenario = crate::scenario::find("rfc").unwrap();
        let runs = |refused: u64| vec![vec![report(1.0, 0, refused)]];
        let reports = [("a".to_string(), runs(0)), ("b".to_string(), runs(7))];
        let sweep = Sweep::new(&scenario, WorldName::Lab, "probe", &[4.0], &[1], &reports);
        let says = sweep.sentences();
        assert_eq!(says[2], "refused allocations: at 4 x memory lowest a (0).");
    }

    #[test]
    fn who_finished_nothing_waited_longest() {
        let scenario = crate::scenario::find("rfc").unwrap();
        let mut stuck = report(0.0, 0, 0);
        stuck.tasks[0].ops = 0;
        let reports = [
            ("a".to_string(), vec![vec![stuck]]),
            ("b".to_string(), vec![vec![report(7.0, 0, 0)]]),
        ];
        let sweep = Sweep::new(&scenario, WorldName::Lab, "probe", &[4.0], &[1], &reports);
        let text = sweep.text();
        assert!(text.contains("≥ 5.00 s"), "{text}");
        assert!(text.contains("lowest b (7.00 µs)"), "{text}");
        assert!(
            text.contains("in a run of a the task probe finished nothing"),
            "{text}"
        );
    }

    /// The names that users parse.
    #[test]
    fn json_has_exactly_its_names() {
        let v = serde_json::to_value(sweep()).unwrap();
        let keys = |v: &serde_json::Value| {
            let mut keys: Vec<String> = v.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys.join(" ")
        };
        assert_eq!(
            keys(&v),
            "arms crossings memory_bytes pressures scenario seeds task world"
        );
        assert_eq!(
            keys(&v["arms"][0]["points"][0]),
            "alloc_stall_s hit_ratio oom_unreclaimable ops_per_s p999_us pressure refaults_per_op refused refused_operations starved_runs"
        );
        assert_eq!(
            keys(&v["arms"][0]["points"][0]["refused"]),
            "max median min"
        );
        assert_eq!(keys(&v["crossings"][0]), "after before figure from to");
    }
}

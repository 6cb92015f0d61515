//! What a sweep found out: the shape of its JSON, its table, and its sentences.

use super::axis::{Axis, AxisKind};
use super::crossings::{Crossing, Line, crossings};
use super::figure::{Figure, Point, columns, figures};
use crate::command_line::CommandLine;
use crate::plan::WorldName;
use crate::report::ArmReport;
use crate::table::{Group, Table};
use crate::units::show_bytes;
use serde::Serialize;

/// The points of one arm.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SweptArm {
    /// The preset, or the arm's label.
    pub preset: String,
    /// At each point.
    pub points: Vec<Point>,
}

/// What was swept.
#[derive(Clone, PartialEq, Debug)]
pub struct Subject {
    /// The same on real files (`again.rs`).
    pub on_real_files: CommandLine,
    /// What runs it alone, but for what a point says (`again.rs`).
    pub again: CommandLine,
    /// Some of its files are multiples of memory: alone, they grow with it.
    pub grows: bool,
    /// The scenario's name.
    pub scenario: String,
    /// Its world.
    pub world: WorldName,
    /// Its budget, where that is the same at each point.
    pub memory: u64,
    /// Bytes of a frame.
    pub frame: u64,
    /// The time measured, in microseconds.
    pub measured_us: f64,
    /// Bytes of the pages of the trace, if it is one.
    pub footprint: Option<u64>,
    /// Whose latencies are compared.
    pub task: String,
    /// What the files lie on, in words.
    pub disk: String,
}

/// The whole of `--json`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Sweep {
    /// The scenario's name.
    pub scenario: String,
    /// What the files lie on, in words.
    pub disk: String,
    /// `lab` or `os`.
    pub world: &'static str,
    /// The budget at each point; null where it is what changes.
    pub memory_bytes: Option<u64>,
    /// Bytes of the pages that the trace touches; null without one.
    pub footprint_bytes: Option<u64>,
    /// Whose latencies they are.
    pub task: String,
    /// The seeds that each cell ran with.
    pub seeds: Vec<u64>,
    /// What changes: `pressure` (data over memory), `memory_bytes`, `dirty_limit_percent`.
    pub axis: AxisKind,
    /// Its points.
    pub points: Vec<f64>,
    /// The lines.
    pub arms: Vec<SweptArm>,
    /// Where two of them cross.
    pub crossings: Vec<Crossing>,
    #[serde(skip)]
    pub(super) on_real_files: CommandLine,
    #[serde(skip)]
    pub(super) again: CommandLine,
    #[serde(skip)]
    pub(super) grows: bool,
}

impl Sweep {
    /// Of the reports of each arm, at each point, for each seed.
    pub fn new(
        subject: &Subject,
        axis: &Axis,
        seeds: &[u64],
        reports: &[(String, Vec<Vec<ArmReport>>)],
    ) -> Sweep {
        let (task, time) = (&subject.task, subject.measured_us);
        let arms = reports.iter().map(|(preset, points)| SweptArm {
            preset: preset.clone(),
            points: (axis.points.iter().zip(points))
                .map(|(at, runs)| Point::new(*at, task, time, subject.frame, runs))
                .collect(),
        });
        let memory_stays = axis.kind != AxisKind::MemoryBytes;
        let mut sweep = Sweep {
            scenario: subject.scenario.clone(),
            disk: subject.disk.clone(),
            world: subject.world.name(),
            memory_bytes: memory_stays.then_some(subject.memory),
            footprint_bytes: subject.footprint,
            task: task.clone(),
            seeds: seeds.to_vec(),
            axis: axis.kind,
            points: axis.points.clone(),
            arms: arms.collect(),
            crossings: Vec::new(),
            on_real_files: subject.on_real_files.clone(),
            again: subject.again.clone(),
            grows: subject.grows,
        };
        sweep.crossings = (sweep.figures().iter())
            .flat_map(|f| crossings(f.name, &sweep.points, &sweep.lines(f)))
            .collect();
        sweep
    }

    /// Its axis.
    pub fn axis(&self) -> Axis {
        Axis {
            kind: self.axis,
            points: self.points.clone(),
        }
    }

    /// What is compared.
    pub fn figures(&self) -> &'static [Figure] {
        figures(self.axis)
    }

    /// The lines of one figure.
    pub fn lines(&self, figure: &Figure) -> Vec<Line<'_>> {
        let line = |arm: &SweptArm| arm.points.iter().map(figure.of).collect();
        self.arms
            .iter()
            .map(|arm| Line {
                name: &arm.preset,
                more: figure.more,
                values: line(arm),
            })
            .collect()
    }

    /// Table and sentences.
    pub fn text(&self) -> String {
        let memory = self
            .memory_bytes
            .map_or(String::new(), |m| format!(", memory {}", show_bytes(m)));
        let mut out = format!(
            "\n{}{memory}, world {}: latencies of the task {}\ndisk: {}\n\n{}\n",
            self.scenario,
            self.world,
            self.task,
            self.disk,
            self.table().render(crate::console::width())
        );
        for sentence in self.sentences() {
            out.push_str(&sentence);
            out.push('\n');
        }
        out.push_str(&format!("\nNext: {}\n", self.next_command()));
        out
    }

    /// A row for each arm and point.
    pub fn table(&self) -> Table {
        let (axis, columns) = (self.axis(), columns(self.axis));
        let heads = std::iter::once(axis.head()).chain(columns.iter().map(|c| c.0));
        let mut table = Table {
            corner: "arm".into(),
            groups: vec![Group {
                title: match self.seeds.len() {
                    1 => String::new(),
                    n => format!("medians of {n} seeds"),
                },
                columns: heads.map(String::from).collect(),
            }],
            ..Table::default()
        };
        for arm in &self.arms {
            for (at, p) in arm.points.iter().enumerate() {
                let label = match at {
                    0 => arm.preset.clone(),
                    _ => String::new(),
                };
                let cells = columns.iter().map(|(_, show)| show(p));
                table.labels.push(label);
                table
                    .cells
                    .push(std::iter::once(axis.show(p.at)).chain(cells).collect());
            }
        }
        table
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

    fn of(
        kind: AxisKind,
        points: &[f64],
        seeds: &[u64],
        reports: &[(String, Vec<Vec<ArmReport>>)],
    ) -> Sweep {
        let subject = Subject {
            again: CommandLine::new("run", Some("rfc")).with("world", "lab"),
            grows: true,
            on_real_files: CommandLine::new("sweep", Some("rfc")),
            scenario: "rfc".into(),
            world: WorldName::Lab,
            memory: 64 << 20,
            frame: 4096,
            measured_us: 5e6,
            footprint: None,
            task: "probe".into(),
            disk: "a disk".into(),
        };
        let points = points.to_vec();
        Sweep::new(&subject, &Axis { kind, points }, seeds, reports)
    }

    /// Two arms at three pressures; their p99.9 cross, their refaults do not, nothing is refused.
    pub fn sweep() -> Sweep {
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
        of(AxisKind::Pressure, &[0.8, 2.0, 8.0], &[1, 2], &reports)
    }

    /// One arm at three sizes: its p99.9 falls to the second, its throughput rises to the last.
    pub fn over_memory() -> Sweep {
        let at = |p999: f64, ops: f64| {
            let mut report = report(p999, 10, 0);
            (report.ops_per_s, report.ops_per_s_with_sync) = (ops, ops);
            report.hit_ratio = Some(0.75);
            report.vmstat.insert("pages_read".into(), 25);
            report.vmstat.insert("nr_written".into(), 10);
            report.final_sync_pages = Some(40);
            vec![report]
        };
        let points = vec![at(9_000.0, 100.0), at(100.0, 200.0), at(95.0, 400.0)];
        let mib = [16.0, 64.0, 256.0].map(|m| m * 1048576.0);
        of(
            AxisKind::MemoryBytes,
            &mib,
            &[1],
            &[("highwater".into(), points)],
        )
    }

    #[test]
    fn the_least_memory_that_is_enough_is_named_for_each_figure() {
        let sweep = over_memory();
        assert_eq!(
            sweep.sentences(),
            [
                "highwater: the least memory that no other beats by a tenth is 16 MiB for look-ups that missed (25.0 %), \
                 read from the disk (1 KiB/op), written to the disk (2 KiB/op); 64 MiB for p99.9 (100 µs); \
                 256 MiB for operations/s with the final sync (400).",
                "One seed: --seeds 3 tells differences from noise."
            ]
        );
        let text = sweep.text();
        assert!(
            text.contains("highwater run rfc --world lab --memory 256MiB --html"),
            "{text}"
        );
        assert!(!text.contains("crosses nothing"), "{text}");
    }

    #[test]
    fn what_the_final_sync_wrote_counts_as_written() {
        let written = over_memory().arms[0].points[0].written_bytes_per_op;
        assert_eq!(written.median, (10.0 + 40.0) * 4096.0 / 100.0);
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
            "  rfc <2010> and 2.6.35 cross between 0.8 x and 8 x: rfc <2010> is lower up to 0.8 x, 2.6.35 from 8 x on."
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
        let runs = |refused: u64| vec![vec![report(1.0, 0, refused)]];
        let reports = [("a".to_string(), runs(0)), ("b".to_string(), runs(7))];
        let sweep = of(AxisKind::Pressure, &[4.0], &[1], &reports);
        let says = sweep.sentences();
        assert_eq!(says[2], "refused allocations: at 4 x lowest a (0).");
    }

    #[test]
    fn who_finished_nothing_waited_longest() {
        let mut stuck = report(0.0, 0, 0);
        stuck.tasks[0].ops = 0;
        let reports = [
            ("a".to_string(), vec![vec![stuck]]),
            ("b".to_string(), vec![vec![report(7.0, 0, 0)]]),
        ];
        let sweep = of(AxisKind::Pressure, &[4.0], &[1], &reports);
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
            "arms axis crossings disk footprint_bytes memory_bytes points scenario seeds task world"
        );
        assert_eq!(
            keys(&v["arms"][0]["points"][0]),
            "alloc_stall_s at hit_ratio oom_unreclaimable ops_per_s ops_per_s_with_sync p999_us p99_us read_bytes_per_op \
             refaults_per_op refused refused_operations starved_runs throttle_stall_s written_bytes_per_op"
        );
        assert_eq!(
            keys(&v["arms"][0]["points"][0]["refused"]),
            "max median min"
        );
        assert_eq!(keys(&v["crossings"][0]), "after before figure from to");
        assert_eq!(v["axis"], "pressure");
        let v = serde_json::to_value(over_memory()).unwrap();
        assert_eq!(
            (&v["axis"], &v["memory_bytes"]),
            (&"memory_bytes".into(), &serde_json::Value::Null)
        );
    }
}

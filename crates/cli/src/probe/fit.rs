//! From points to a profile: the parameters of the model `ssd` that give what was measured, and how well they do.
//!
//! The model has a distribution for each direction at depth 1, what a request's own bytes add, a bus, and a limit of
//! requests a second. So:
//! - the latencies are the quantiles of the points of 4 KiB at depth 1 (and of those with writes beside);
//! - `*_request_rate` is the slope of the mean latency over the size at depth 1, through the point of 4 KiB;
//! - `*_crowd` is the slope of the median latency of 4 KiB over the depth, up to 80 % of the most requests a second;
//! - `*_rate` is the mean of the bytes a second of requests of 1 MiB, which is what streams are made of (where there are none:
//!   the most of any point), `*_iops` the most requests;
//! - `depth` is the least that reaches 97 % of the most requests a second in both directions, 32 or more;
//! - `flush` is the idle flush's distribution, `flush_rate` what 4 MiB of writes add to its mean.
//!
//! A disk with an arm is measured alike, but its profile knows no order: then sequences are the lines that fit badly.

use super::points::{FLUSH_BYTES, Point, Step, WRITES_BESIDE};
use crate::raw::Work;
use highwater_engine::Nanos;
use highwater_engine::io::IoOp;
use highwater_lab::Model;
use highwater_lab::model::{Latency, Load, Rate, Ssd};
use serde::Serialize;
use std::fmt::Write;

/// The least depth of a profile: what the cache's flusher keeps in flight anyhow.
const DEPTH_MIN: u32 = 32;
/// How near a line must be to fit.
const GOOD: f64 = 0.25;

/// A point and what the profile predicts for it, in shares of what was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The point's name.
    pub point: String,
    /// Requests a second: predicted / measured.
    pub throughput: f64,
    /// The median latency.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
}

/// One direction's parameters.
#[derive(Clone, Debug)]
struct Direction {
    /// (per million, nanoseconds), without what 4 KiB themselves add.
    quantiles: Vec<(u32, u64)>,
    crowd_ns: u64,
    request_bytes_per_s: u64,
    bytes_per_s: u64,
    iops: u64,
    depth: u32,
}

/// A profile.
#[derive(Clone, Debug)]
pub struct Fit {
    read: Direction,
    write: Direction,
    writes_measured: bool,
    read_writing: Option<Vec<(u32, u64)>>,
    flush: Vec<(u32, u64)>,
    flush_bytes_per_s: u64,
    span: u64,
}

fn point(points: &[Point], step: Step) -> Option<&Point> {
    points.iter().find(|p| p.step == step)
}

fn loads(points: &[Point], read: bool) -> impl Iterator<Item = (&Point, u64, u32)> {
    points.iter().filter_map(move |p| match p.step {
        Step::Load { work, io, depth } if work.read == read => Some((p, io, depth)),
        _ => None,
    })
}

/// A point's quantiles in nanoseconds, less `own` in each.
fn quantiles(point: &Point, own: f64) -> Vec<(u32, u64)> {
    let mut most = 1;
    let floor = |us: f64| ((us * 1e3 - own).max(1_000.0)) as u64;
    let of = point.quantiles_us.iter().map(|(ppm, us)| {
        most = most.max(floor(*us));
        (*ppm, most)
    });
    of.collect()
}

impl Direction {
    /// From the points of one direction; None when there are none.
    fn of(points: &[Point], read: bool) -> Option<Direction> {
        let random = Work {
            read,
            sequential: false,
        };
        let alone = |io| Step::Load {
            work: random,
            io,
            depth: 1,
        };
        let small = point(points, alone(4096))?;
        // Least squares through the point of 4 KiB: nanoseconds a byte.
        let (mut xy, mut xx) = (0.0, 0.0);
        for (p, io, depth) in loads(points, read) {
            if depth == 1 && io > 4096 {
                let x = (io - 4096) as f64;
                xy += x * (p.mean_us - small.mean_us) * 1e3;
                xx += x * x;
            }
        }
        let ns_per_byte = if xx > 0.0 { (xy / xx).max(0.0) } else { 0.0 };
        let requests = || loads(points, read).filter(|(_, io, _)| *io == 4096);
        let iops = requests().map(|(p, ..)| p.per_s).fold(1.0, f64::max);
        let (mut crowd_xy, mut crowd_xx) = (0.0, 0.0);
        for (p, io, depth) in loads(points, read) {
            // Beyond, requests wait for the limit and not for each other.
            if io == 4096 && depth > 1 && p.per_s < iops * 0.8 {
                let x = f64::from(depth - 1);
                crowd_xy += x * (p.us(0.5) - small.us(0.5)) * 1e3;
                crowd_xx += x * x;
            }
        }
        let crowd = if crowd_xx > 0.0 {
            crowd_xy / crowd_xx
        } else {
            0.0
        };
        let rates = |large: bool| {
            let of =
                loads(points, read).filter(move |(_, io, d)| !large || *io == 1 << 20 && *d > 1);
            of.map(|(p, ..)| p.bytes_per_s()).collect::<Vec<_>>()
        };
        let large = rates(true);
        let bytes_per_s = match large.len() {
            0 => rates(false).into_iter().fold(1.0, f64::max),
            n => (large.iter().sum::<f64>() / n as f64).max(1.0),
        };
        let depth = requests()
            .filter(|(p, ..)| p.per_s >= iops * 0.97)
            .map(|(.., d)| d)
            .min();
        Some(Direction {
            quantiles: quantiles(small, ns_per_byte * 4096.0),
            crowd_ns: crowd.max(0.0) as u64,
            request_bytes_per_s: if ns_per_byte > 0.0 {
                (1e9 / ns_per_byte) as u64
            } else {
                0
            },
            bytes_per_s: bytes_per_s as u64,
            iops: (iops as u64).max(1),
            depth: depth.unwrap_or(DEPTH_MIN),
        })
    }
}

impl Fit {
    /// The parameters that `points` call for. Without writes, writes are taken to cost what reads do.
    pub fn of(points: &[Point], span: u64) -> Fit {
        let nothing = || Direction {
            quantiles: vec![(500_000, 1_000)],
            crowd_ns: 0,
            request_bytes_per_s: 0,
            bytes_per_s: 1,
            iops: 1,
            depth: DEPTH_MIN,
        };
        let read = Direction::of(points, true).unwrap_or_else(nothing);
        let write = Direction::of(points, false);
        let own = |d: &Direction| 4096.0 * 1e9 / d.request_bytes_per_s.max(1) as f64;
        let mixed = point(points, Step::Mixed);
        let idle = point(
            points,
            Step::Flush {
                after_writes: false,
            },
        );
        let busy = point(points, Step::Flush { after_writes: true });
        let flush_bytes_per_s = idle.zip(busy).map_or(0, |(idle, busy)| {
            let seconds = (busy.mean_us - idle.mean_us) / 1e6;
            // Below a microsecond for 4 MiB it is noise.
            if seconds < 1e-6 {
                0
            } else {
                (FLUSH_BYTES as f64 / seconds) as u64
            }
        });
        Fit {
            read_writing: mixed.map(|p| {
                let own = if read.request_bytes_per_s == 0 {
                    0.0
                } else {
                    own(&read)
                };
                quantiles(p, own)
            }),
            flush: idle.map_or(vec![(500_000, 1_000)], |p| quantiles(p, 0.0)),
            flush_bytes_per_s,
            writes_measured: write.is_some(),
            write: write.unwrap_or_else(|| read.clone()),
            read,
            span,
        }
    }

    fn depth(&self) -> u32 {
        self.read.depth.max(self.write.depth).max(DEPTH_MIN)
    }

    /// As the lab has it.
    fn model(&self) -> Model {
        let latency = |points: &[(u32, u64)]| {
            let points = points.iter().map(|(ppm, ns)| (*ppm, Nanos(*ns))).collect();
            Latency::quantiles(points).unwrap_or(Latency::constant(Nanos(1_000)))
        };
        let rate = Rate::bytes_per_s;
        Model::Ssd(Ssd {
            depth: self.depth() as usize,
            read: latency(&self.read.quantiles),
            read_writing: self.read_writing.as_deref().map(latency),
            write: latency(&self.write.quantiles),
            read_crowd: Nanos(self.read.crowd_ns),
            write_crowd: Nanos(self.write.crowd_ns),
            read_request_rate: rate(self.read.request_bytes_per_s),
            write_request_rate: rate(self.write.request_bytes_per_s),
            read_rate: rate(self.read.bytes_per_s),
            write_rate: rate(self.write.bytes_per_s),
            read_iops: self.read.iops,
            write_iops: self.write.iops,
            flush: latency(&self.flush),
            flush_rate: rate(self.flush_bytes_per_s),
        })
    }

    /// What the profile predicts for each point that is a load.
    pub fn compare(&self, points: &[Point]) -> Vec<Line> {
        let model = self.model();
        points.iter().filter_map(|p| self.line(&model, p)).collect()
    }

    fn line(&self, model: &Model, point: &Point) -> Option<Line> {
        let (work, io, depth, writes_beside) = match point.step {
            Step::Load { work, io, depth } => (work, io, depth, 0),
            Step::Mixed => {
                let reads = Work {
                    read: true,
                    sequential: false,
                };
                (reads, 4096, 1, WRITES_BESIDE as usize)
            }
            Step::Flush { .. } => return None,
        };
        let load = Load {
            op: if work.read { IoOp::Read } else { IoOp::Write },
            len: io,
            depth: depth as usize,
            sequential: work.sequential,
            span: self.span,
            count: 4_000,
            writes_beside,
        };
        let simulated = model.simulate(&load, 1);
        let share = |q: f64| simulated.quantile(q).0 as f64 / (point.us(q) * 1e3).max(1.0);
        Some(Line {
            point: point.step.name(),
            throughput: simulated.per_s() / point.per_s.max(1e-9),
            p50: share(0.5),
            p99: share(0.99),
        })
    }

    /// The profile's text, with the measured points and their fit as comments.
    pub fn toml(&self, origin: &str, lines: &[Line]) -> String {
        let mut t = format!("# Measured by `highwater probe`: {origin}.\n");
        if !self.writes_measured {
            t.push_str("# Nothing was written: writes are taken to cost what reads do, and flushes nothing.\n");
        }
        for line in verdict(lines).lines() {
            let _ = writeln!(t, "# {line}");
        }
        let about = origin.replace(['"', '\\'], "'");
        let _ = writeln!(t, "model = \"ssd\"\nabout = \"Measured: {about}\"\n");
        let _ = writeln!(t, "# Requests at one time.\ndepth = {}", self.depth());
        t.push_str("# At depth 1, 4 KiB; a read while writes are in flight.\n");
        let mut latency = |name: &str, points: &[(u32, u64)]| {
            let _ = writeln!(t, "{name} = {}", inline(points));
        };
        latency("read", &self.read.quantiles);
        if let Some(points) = &self.read_writing {
            latency("read_writing", points);
        }
        latency("write", &self.write.quantiles);
        latency("flush", &self.flush);
        let (read, write) = (self.read.crowd_ns, self.write.crowd_ns);
        t.push_str("# What each other request under way adds.\n");
        let _ = writeln!(t, "read_crowd = \"{read}ns\"\nwrite_crowd = \"{write}ns\"");
        t.push_str("# What a request's own bytes add; the bus; requests a second; the flush of what was written.\n");
        for (name, rate) in [
            ("read_request_rate", self.read.request_bytes_per_s),
            ("write_request_rate", self.write.request_bytes_per_s),
            ("read_rate", self.read.bytes_per_s),
            ("write_rate", self.write.bytes_per_s),
            ("flush_rate", self.flush_bytes_per_s),
        ] {
            if rate > 0 {
                let _ = writeln!(t, "{name} = \"{rate}B/s\"");
            }
        }
        let _ = writeln!(t, "read_iops = {}", self.read.iops);
        let _ = writeln!(t, "write_iops = {}", self.write.iops);
        t.push_str(
            "\n# How well it fits: predicted / measured, in %: requests a second, p50, p99.\n",
        );
        for l in lines {
            let _ = writeln!(
                t,
                "# {:<36} {:>5.0} {:>5.0} {:>5.0}",
                l.point,
                l.throughput * 100.0,
                l.p50 * 100.0,
                l.p99 * 100.0
            );
        }
        t
    }
}

fn inline(points: &[(u32, u64)]) -> String {
    let key = |ppm: u32| match ppm {
        0 => "min".to_string(),
        1_000_000 => "max".to_string(),
        _ => {
            let (whole, part) = (ppm / 10_000, ppm % 10_000);
            let part = format!("{part:04}");
            match part.trim_end_matches('0') {
                "" => format!("p{whole:02}"),
                part => format!("p{whole:02}_{part}"),
            }
        }
    };
    let items: Vec<_> = points
        .iter()
        .map(|(ppm, ns)| format!("{} = \"{ns}ns\"", key(*ppm)))
        .collect();
    format!("{{ {} }}", items.join(", "))
}

/// In one line: how many points fit.
pub fn verdict(lines: &[Line]) -> String {
    let within = |share: fn(&Line) -> f64| {
        lines
            .iter()
            .filter(|l| (share(l) - 1.0).abs() <= GOOD)
            .count()
    };
    format!(
        "Of {} points the profile is within {:.0} % in requests a second for {}, in p50 for {}, in p99 for {}.\n",
        lines.len(),
        GOOD * 100.0,
        within(|l| l.throughput),
        within(|l| l.p50),
        within(|l| l.p99),
    )
}

#[cfg(test)]
mod tests {
    use super::super::points::steps;
    use super::*;

    /// The points that a known disk would give.
    fn points_of(model: &Model, span: u64) -> Vec<Point> {
        let of = |step: Step| {
            let (work, io, depth, beside) = match step {
                Step::Load { work, io, depth } => (work, io, depth, 0),
                Step::Mixed => (
                    Work {
                        read: true,
                        sequential: false,
                    },
                    4096,
                    1,
                    WRITES_BESIDE as usize,
                ),
                Step::Flush { after_writes } => {
                    let mean_us = if after_writes { 1_100.0 } else { 100.0 };
                    return Point {
                        step,
                        per_s: 1e6 / mean_us,
                        count: 9,
                        mean_us,
                        quantiles_us: vec![(0, mean_us), (1_000_000, mean_us)],
                        span,
                    };
                }
            };
            let load = Load {
                op: if work.read { IoOp::Read } else { IoOp::Write },
                len: io,
                depth: depth as usize,
                sequential: work.sequential,
                span,
                count: 4_000,
                writes_beside: beside,
            };
            let s = model.simulate(&load, 7);
            let us = |q| s.quantile(q).0 as f64 / 1e3;
            let at = [0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0];
            Point {
                step,
                per_s: s.per_s(),
                count: 4_000,
                mean_us: s.latency.iter().sum::<u64>() as f64 / 4e6,
                quantiles_us: at.map(|q| ((q * 1e6) as u32, us(q))).into(),
                span,
            }
        };
        steps(true).into_iter().map(of).collect()
    }

    #[test]
    fn a_disk_of_the_model_is_found_again() {
        let us = Nanos::from_micros;
        let disk = Model::Ssd(Ssd {
            depth: 64,
            read: Latency::uniform(us(80), us(160)),
            write: Latency::uniform(us(30), us(60)),
            read_crowd: us(3),
            write_crowd: us(5),
            read_request_rate: Rate::bytes_per_s(2_000_000_000),
            write_request_rate: Rate::bytes_per_s(1_000_000_000),
            read_rate: Rate::bytes_per_s(1_500_000_000),
            write_rate: Rate::bytes_per_s(800_000_000),
            read_iops: 200_000,
            write_iops: 100_000,
            ..Ssd::default()
        });
        let points = points_of(&disk, 1 << 30);
        let fit = Fit::of(&points, 1 << 30);
        for line in fit.compare(&points) {
            for share in [line.throughput, line.p50, line.p99] {
                assert!((0.8..1.25).contains(&share), "{line:?}");
            }
        }
        assert!(fit.flush_bytes_per_s.abs_diff(FLUSH_BYTES * 1_000) < FLUSH_BYTES * 10);
        let text = fit.toml("a \"test\"", &[]);
        let read = crate::device::load("t", &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(read.model, fit.model(), "the file says what was fitted");
    }

    #[test]
    fn a_disk_with_an_arm_does_not_fit_and_says_so() {
        let hdd = Model::Hdd(highwater_lab::model::Hdd::default());
        let points = points_of(&hdd, 1 << 38);
        let fit = Fit::of(&points, 1 << 38);
        let lines = fit.compare(&points);
        let bad = lines.iter().filter(|l| (l.p50 - 1.0).abs() > GOOD).count();
        assert!(bad > 3, "{lines:?}");
        assert!(
            verdict(&lines).contains("Of 39 points"),
            "{}",
            verdict(&lines)
        );
    }

    #[test]
    fn without_writes_reads_stand_for_them() {
        let disk = Model::default();
        let mut points = points_of(&disk, 1 << 30);
        points.retain(|p| !p.step.writes());
        let fit = Fit::of(&points, 1 << 30);
        assert!(!fit.writes_measured && fit.read_writing.is_none());
        let text = fit.toml("t", &fit.compare(&points));
        assert!(text.contains("Nothing was written"), "{text}");
        crate::device::load("t", &text).unwrap();
    }
}

//! What a fitted profile predicts for each point, beside what was measured there.

use super::fit::Fit;
use super::points::{Point, Requests, Step};
use crate::raw::by_caller;
use highwater_engine::Nanos;
use highwater_engine::io::IoOp;
use highwater_lab::Model;
use highwater_lab::model::{Beside, HandIn, Load, Simulated};
use serde::Serialize;

/// How near a line must be to fit.
pub const GOOD: f64 = 0.25;
/// So many requests are simulated for a point.
const COUNT: u64 = 4_000;

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

/// The load of a point; None for those that are none. `hand_in`: what a loop's thread needs for a read, and for a write.
pub(super) fn load(
    step: Step,
    copied_per_s: f64,
    span: u64,
    pieces_max: u32,
    hand_in: [Nanos; 2],
) -> Option<Load> {
    let (requests, beside) = match step {
        Step::Load(requests) | Step::Copies(requests) => (requests, Beside::default()),
        Step::Mixed(writes) => {
            let beside = Beside {
                writes: writes.depth as usize,
                len: writes.io,
                segments: writes.pieces(pieces_max),
            };
            (Requests::random(true, 4096, 1), beside)
        }
        Step::Pairs | Step::Flush { .. } => return None,
    };
    Some(Load {
        op: match requests.work.read {
            true => IoOp::Read,
            false => IoOp::Write,
        },
        len: requests.io,
        depth: requests.depth as usize,
        sequential: requests.work.sequential,
        span,
        segments: requests.pieces(pieces_max),
        count: COUNT as usize,
        copying: (copied_per_s / 1e6) as u32,
        beside,
        hand_in: HandIn {
            load: match by_caller(requests.work.read, requests.depth) {
                true => Nanos::ZERO,
                false => hand_in[usize::from(!requests.work.read)],
            },
            beside: hand_in[1],
        },
    })
}

impl Fit {
    /// What the profile predicts for each point that is a load.
    pub fn compare(&self, points: &[Point]) -> Vec<Line> {
        let model = self.model();
        points.iter().filter_map(|p| self.line(&model, p)).collect()
    }

    fn line(&self, model: &Model, point: &Point) -> Option<Line> {
        let load = load(
            point.step,
            point.copied_per_s,
            self.span,
            self.front.pieces_max,
            [self.read.hand_in_ns, self.write.hand_in_ns].map(Nanos),
        )?;
        let simulated = as_measured(model, load, point.count);
        let share = |q: f64| simulated.quantile(q).0 as f64 / (point.us(q) * 1e3).max(1.0);
        Some(Line {
            point: point.step.name(),
            throughput: simulated.per_s() / point.per_s.max(1e-9),
            p50: share(0.5),
            p99: share(0.99),
        })
    }
}

/// What a measurement of `count` requests would see, from as many of them as make `COUNT`: a request that an elevator
/// passes over waits for the measurement's end at most.
pub(super) fn as_measured(model: &Model, mut load: Load, count: u64) -> Simulated {
    let count = count.clamp(load.depth as u64, COUNT);
    load.count = count as usize;
    let mut all = Simulated {
        elapsed: Nanos::ZERO,
        latency: Vec::new(),
    };
    for seed in 1..=COUNT.div_ceil(count) {
        let one = model.simulate(&load, seed);
        all.elapsed = Nanos(all.elapsed.0 + one.elapsed.0);
        all.latency.extend(one.latency);
    }
    all.latency.sort_unstable();
    all
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

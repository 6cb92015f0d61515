//! Disks of the model give points, from which the fit finds them again.

use super::compare::{GOOD, load, verdict};
use super::fit::Fit;
use super::front::Front;
use super::points::{FLUSH_BYTES, Point, Step, steps};
use highwater_engine::Nanos;
use highwater_lab::Model;
use highwater_lab::model::{Completions, Curve, Latency, Rate, Scheduler, Ssd};

/// Nothing is known.
const NONE: Front = Front {
    tags: None,
    ring: 0,
    deadline: false,
    pieces_max: 254,
};

/// As a virtio disk has it.
const VIRTIO: Front = Front {
    tags: Some(128),
    ring: 256,
    deadline: true,
    pieces_max: 254,
};

/// What a thread needs to hand in a read, and a write.
const HAND_IN: [Nanos; 2] = [Nanos(3_000); 2];

/// The points that a known disk would give.
fn points_of(model: &Model, span: u64) -> Vec<Point> {
    let of = |step: Step| {
        let copied_per_s = match step {
            Step::Copies(_) => 12e9,
            _ => 0.0,
        };
        let Some(load) = load(step, copied_per_s, span, 254, HAND_IN) else {
            let mean_us = match step {
                Step::Flush { after_writes: true } => 1_100.0,
                Step::Pairs => 24.0,
                _ => 100.0,
            };
            return Point {
                step,
                per_s: 1e6 / mean_us,
                count: 9,
                mean_us,
                quantiles_us: vec![(0, mean_us), (1_000_000, mean_us)],
                span,
                copied_per_s,
                cpu_us: 0.0,
            };
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
            copied_per_s,
            cpu_us: 3.0,
        }
    };
    steps(true).into_iter().map(of).collect()
}

/// What was measured on a virtio disk: a request costs 8 us, its bytes 3.6 and 7 GB/s (3.2 and 5 beside copies), its pieces
/// 1.6 and 0.2 us.
fn virtio() -> Ssd {
    let us = Nanos::from_micros;
    let crowd = |points: [(u32, u64); 8]| {
        Curve::points(points.map(|(n, t)| (n - 1, us(t))).into()).unwrap()
    };
    Ssd {
        depth: 128,
        ring: 256,
        elevator: Scheduler::Deadline,
        completions: Completions::Together,
        wake: us(16),
        read: Latency::uniform(us(45), us(75)),
        write: Latency::uniform(us(40), us(62)),
        read_crowd: crowd([
            (2, 9),
            (4, 35),
            (8, 80),
            (16, 160),
            (32, 330),
            (64, 570),
            (128, 1_100),
            (256, 2_000),
        ]),
        write_crowd: crowd([
            (2, 7),
            (4, 32),
            (8, 73),
            (16, 155),
            (32, 318),
            (64, 547),
            (128, 1_059),
            (256, 1_789),
        ]),
        read_request_rate: Rate::bytes_per_s(3_600_000_000),
        write_request_rate: Rate::bytes_per_s(7_000_000_000),
        read_rate: Rate::bytes_per_s(3_600_000_000),
        write_rate: Rate::bytes_per_s(7_000_000_000),
        read_rate_beside_copies: Rate::bytes_per_s(3_200_000_000),
        write_rate_beside_copies: Rate::bytes_per_s(5_000_000_000),
        read_segment: Nanos(1_630),
        write_segment: Nanos(230),
        write_adjoining: us(6),
        read_iops: 125_000,
        write_iops: 139_000,
        ..Ssd::default()
    }
}

#[track_caller]
fn near(got: f64, want: f64, percent: f64) {
    let off = (got / want - 1.0).abs() * 100.0;
    assert!(off <= percent, "{got}, expected {want}");
}

/// Noise: a round of eight ends sooner than one alone. The profile is one all the same.
#[test]
fn a_round_that_ends_before_one_alone_makes_no_disk_of_no_time() {
    let mut points = points_of(&Model::Ssd(virtio()), 1 << 30);
    let eight = |p: &&mut Point| matches!(p.step, Step::Load(r) if (r.io, r.depth) == (4096, 8));
    points.iter_mut().filter(eight).for_each(|p| p.per_s *= 4.0);
    let fit = Fit::of(&points, 1 << 30, VIRTIO);
    assert_eq!(fit.completions, Completions::Together);
    for direction in [&fit.read, &fit.write] {
        let iops = direction.iops;
        assert!((100_000..2_000_000).contains(&iops), "{iops}");
    }
}

#[test]
fn a_virtio_disk_is_found_again() {
    let disk = virtio();
    let points = points_of(&Model::Ssd(disk.clone()), 1 << 30);
    let fit = Fit::of(&points, 1 << 30, VIRTIO);
    assert_eq!(fit.completions, Completions::Together);
    near(fit.read.bytes_per_s as f64, 3.6e9, 5.0);
    near(fit.write.bytes_per_s as f64, 7e9, 5.0);
    // With one CPU nothing is measured beside copies.
    if steps(true).iter().any(|s| matches!(s, Step::Copies(_))) {
        near(fit.read.bytes_per_s_beside_copies as f64, 3.2e9, 5.0);
        near(fit.write.bytes_per_s_beside_copies as f64, 5e9, 5.0);
    }
    near(fit.read.segment_ns as f64, 1_630.0, 5.0);
    near(fit.write.segment_ns as f64, 230.0, 10.0);
    near(fit.read.request_bytes_per_s as f64, 3.6e9, 5.0);
    near(fit.write.adjoining_ns as f64, 6_000.0, 10.0);
    near(fit.wake_ns as f64, 16_000.0, 10.0);
    for line in fit.compare(&points) {
        // With more requests than places the tail is that of who waits outside for how many rounds.
        let tail = if line.point.ends_with("x256") {
            line.p50
        } else {
            line.p99
        };
        for share in [line.throughput, line.p50, tail] {
            assert!((0.8..1.25).contains(&share), "{line:?}");
        }
    }
    let lines = fit.compare(&points);
    for depth in [2, 4, 8, 16, 32, 64, 128, 256] {
        for op in ["read", "write"] {
            let name = format!("{op} 4K x{depth}");
            let line = lines.iter().find(|l| l.point == name).unwrap();
            near(line.throughput, 1.0, 5.0);
        }
    }
    assert!(fit.flush_bytes_per_s.abs_diff(FLUSH_BYTES * 1_000) < FLUSH_BYTES * 10);
    let text = fit.toml("a \"test\"", &[]);
    let read = crate::device::load("t", &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(read.model, fit.model(), "the file says what was fitted");
}

#[test]
fn a_disk_without_a_ring_is_found_again() {
    let us = Nanos::from_micros;
    let disk = Model::Ssd(Ssd {
        depth: 64,
        read: Latency::uniform(us(80), us(160)),
        write: Latency::uniform(us(30), us(60)),
        read_request_rate: Rate::bytes_per_s(2_000_000_000),
        write_request_rate: Rate::bytes_per_s(1_000_000_000),
        read_rate: Rate::bytes_per_s(1_500_000_000),
        write_rate: Rate::bytes_per_s(800_000_000),
        read_iops: 200_000,
        write_iops: 100_000,
        ..Ssd::default()
    });
    let points = points_of(&disk, 1 << 30);
    let fit = Fit::of(&points, 1 << 30, NONE);
    assert_eq!((fit.front.ring, fit.read.segment_ns), (0, 0));
    assert_eq!(fit.completions, Completions::Each);
    for line in fit.compare(&points) {
        assert!((0.8..1.25).contains(&line.throughput), "{line:?}");
        assert!((0.75..1.25).contains(&line.p50), "{line:?}");
    }
    let text = fit.toml("t", &fit.compare(&points));
    let read = crate::device::load("t", &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(read.model, fit.model(), "the file says what was fitted");
}

#[test]
fn a_disk_with_an_arm_does_not_fit_and_says_so() {
    let hdd = Model::Hdd(highwater_lab::model::Hdd::default());
    let points = points_of(&hdd, 1 << 38);
    let fit = Fit::of(&points, 1 << 38, NONE);
    let lines = fit.compare(&points);
    let bad = lines.iter().filter(|l| (l.p50 - 1.0).abs() > GOOD).count();
    assert!(bad > 3, "{lines:?}");
    let said = verdict(&lines);
    let of = format!("Of {} points", lines.len());
    assert!(said.contains(&of), "{said}");
}

#[test]
fn without_writes_reads_stand_for_them() {
    let disk = Model::default();
    let mut points = points_of(&disk, 1 << 30);
    points.retain(|p| !p.step.writes());
    let fit = Fit::of(&points, 1 << 30, NONE);
    assert!(!fit.writes_measured);
    let text = fit.toml("t", &fit.compare(&points));
    assert!(text.contains("Nothing was written"), "{text}");
    crate::device::load("t", &text).unwrap();
}

/// On a loaded machine reads may seem to begin later than a whole write takes: the profile is one that the lab takes.
#[test]
fn no_disk_begins_later_than_its_quickest_request_ends() {
    let mut points = points_of(&Model::Ssd(virtio()), 1 << 30);
    for p in &mut points {
        match p.step {
            Step::Pairs => p.quantiles_us = vec![(0, 90.0), (1_000_000, 90.0)],
            Step::Load(r) if r.work.read => p.quantiles_us.iter_mut().for_each(|q| q.1 += 100.0),
            _ => {}
        }
    }
    let fit = Fit::of(&points, 1 << 30, VIRTIO);
    assert_eq!(fit.completions, Completions::Together);
    let least = fit.read.quantiles[0].1.min(fit.write.quantiles[0].1);
    assert!(fit.wake_ns > 0 && fit.wake_ns <= least, "{}", fit.wake_ns);
}

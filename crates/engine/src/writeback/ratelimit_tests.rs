//! Tests of the throttle's arithmetic.

use super::*;
use proptest::prelude::*;

const MS: Nanos = Nanos::from_millis(1);

/// 25 % and 60 % of 64 MiB in frames of 4 KiB: freerun 6,963, set point 8,396.
const T: Thresholds = Thresholds {
    background: 4096,
    limit: 9830,
};

#[test]
fn thresholds_worked_by_hand() {
    assert_eq!((T.freerun(), T.setpoint()), (6963, 8396));
    let odd = Thresholds {
        background: 10,
        limit: 4,
    };
    assert_eq!((odd.freerun(), odd.setpoint()), (4, 4));
    assert_eq!(pos_ratio(3, odd), 2.0);
    assert_eq!(pos_ratio(4, odd), 0.0);
}

#[test]
fn ratios_worked_by_hand() {
    let t = Thresholds {
        background: 0,
        limit: 400,
    };
    // freerun 200, set point 300: (300 − dirty)/100 cubed.
    for (dirty, expected) in [
        (0, 2.0),
        (200, 2.0),
        (250, 1.125),
        (300, 1.0),
        (350, 0.875),
        (400, 0.0),
        (900, 0.0),
    ] {
        assert_eq!(pos_ratio(dirty, t), expected, "{dirty}");
    }
    // One device: its set point 300, its span 400. Half its set point: 1 + 150/400.
    for (dirty, expected) in [
        (300, 1.0),
        (400, 0.75),
        (600, 0.25),
        (9999, 0.25),
        (150, 1.375),
        (75, 2.75),
        (0, 8.0),
    ] {
        assert_eq!(device_ratio(dirty, 1.0, t), expected, "{dirty}");
    }
    for (dirty, expected) in [
        (0, 16),
        (144, 16),
        (145, 8),
        (336, 8),
        (337, 4),
        (399, 1),
        (400, 1),
        (500, 1),
    ] {
        assert_eq!(poll_interval(dirty, t), expected, "{dirty}");
    }
}

#[test]
fn pauses_worked_by_hand() {
    let max = Nanos::from_millis(200);
    assert_eq!(pause_ns(8, 1000.0, 1.0, max), Nanos::from_millis(8));
    assert_eq!(pause_ns(8, 1000.0, 2.0, max), Nanos::from_millis(4));
    assert_eq!(pause_ns(800, 1000.0, 1.0, max), max);
    assert_eq!(pause_ns(1, 1000.0, 0.0, max), max);
    assert_eq!(pause_ns(0, 0.0, 0.0, max), Nanos::ZERO);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// RATE-1 and RATE-2, for both terms.
    #[test]
    fn more_dirty_is_never_faster_and_no_step_is_a_cliff(
        background in 0u64..100_000, room in 8u64..100_000, at in 0.0f64..1.2, share in 0.0f64..1.0, rate in 1.0f64..1e6,
    ) {
        let t = Thresholds { background, limit: background + room };
        let dirty = (t.limit as f64 * at) as u64;
        let (here, next) = (pos_ratio(dirty, t), pos_ratio(dirty + 1, t));
        prop_assert!((0.0..=2.0).contains(&here));
        prop_assert!(next <= here, "RATE-1");
        let span = (t.limit - t.freerun()) as f64 / 2.0;
        prop_assert!(here - next <= 3.0 / span + 1e-9, "RATE-2: {here} to {next}");
        let (a, b) = (pause_ns(1, rate, here, MS), pause_ns(1, rate, next, MS));
        prop_assert!(a <= b && b <= MS, "RATE-1: {a:?} then {b:?}");
        let (here, next) = (device_ratio(dirty, share, t), device_ratio(dirty + 1, share, t));
        prop_assert!((DEVICE_RATIO_MIN..=DEVICE_RATIO_MAX).contains(&here));
        prop_assert!(next <= here, "RATE-1");
    }

    /// RATE-3, whatever the estimators are told.
    #[test]
    fn rates_stay_in_bounds(steps in prop::collection::vec((0u64..2_000, 0u64..1 << 40, any::<bool>(), 0.0f64..16.0), 1..200)) {
        let (mut bandwidth, mut base) = (WriteBandwidth::new(1000.0), BaseRate::new(1000.0));
        let (mut now, mut count) = (Nanos::ZERO, 0);
        for (ms, pages, busy, ratio) in steps {
            now = now.plus(Nanos::from_millis(ms));
            count += pages;
            bandwidth.update(now, count, busy);
            prop_assert!(bandwidth.rate().is_finite() && bandwidth.rate() >= RATE_FLOOR);
            if base.update(now, count, bandwidth.rate(), ratio) {
                prop_assert!(base.rate() >= RATE_FLOOR, "RATE-3");
                prop_assert!(base.rate() <= bandwidth.rate(), "RATE-3: {}", base.rate());
            }
        }
    }
}

#[test]
fn bandwidth_forgets_its_guess_and_ignores_idleness() {
    let mut b = WriteBandwidth::new(25_600.0);
    let mut written = 0;
    let mut now = Nanos::ZERO;
    let run =
        |b: &mut WriteBandwidth, now: &mut Nanos, written: &mut u64, rate: u64, ms: u64, busy| {
            for _ in 0..ms / 50 {
                *now = now.plus(Nanos::from_millis(50));
                *written += rate / 20;
                b.update(*now, *written, busy);
            }
        };
    run(&mut b, &mut now, &mut written, 1000, 300, true);
    assert!((990.0..1010.0).contains(&b.rate()), "{}", b.rate());
    run(&mut b, &mut now, &mut written, 0, 10_000, false);
    assert!((990.0..1010.0).contains(&b.rate()), "{}", b.rate());
    run(&mut b, &mut now, &mut written, 1000, 5_000, true);
    // It follows a change in some seconds, not at once: e^-1 of the difference is left after 3 s.
    run(&mut b, &mut now, &mut written, 5000, 3_000, true);
    assert!((3200.0..4000.0).contains(&b.rate()), "{}", b.rate());
    run(&mut b, &mut now, &mut written, 5000, 15_000, true);
    assert!((4950.0..5010.0).contains(&b.rate()), "{}", b.rate());
    // A device that stops is not taken for one of speed 0 for ever.
    run(&mut b, &mut now, &mut written, 0, 60_000, true);
    assert!(b.rate() >= RATE_FLOOR);
    run(&mut b, &mut now, &mut written, 5000, 15_000, true);
    assert!(b.rate() > 4900.0, "{}", b.rate());
}

/// A device that writes `speed` pages a second, and writers that do as they are told.
struct Sim {
    speed: f64,
    pause_max: Nanos,
    dirty: u64,
    dirtied: u64,
    written: u64,
    credit: f64,
    now: Nanos,
    wakes: Vec<Nanos>,
    bandwidth: WriteBandwidth,
    base: BaseRate,
}

/// What a stretch of simulated time looked like.
struct Seen {
    dirty_mean: f64,
    dirty_max: u64,
    dirtied_per_s: f64,
    written_per_s: f64,
    pause_longest: Nanos,
    paused: bool,
}

impl Sim {
    /// One unthrottled write of a page.
    const WRITE: Nanos = Nanos::from_micros(10);
    const STEP: Nanos = Nanos::from_micros(200);

    fn new(speed: f64, writers: usize, dirty: u64, pause_max: Nanos) -> Sim {
        Sim {
            speed,
            pause_max,
            dirty,
            dirtied: dirty,
            written: 0,
            credit: 0.0,
            now: Nanos::ZERO,
            wakes: (0..writers as u64).map(|i| Nanos(i * 1000)).collect(),
            // 100 MB/s, the kernel's first guess.
            bandwidth: WriteBandwidth::new(25_600.0),
            base: BaseRate::new(25_600.0),
        }
    }

    fn writers(&mut self, n: usize) {
        self.wakes.resize(n, self.now);
    }

    fn run(&mut self, seconds: u64) -> Seen {
        let (dirtied, written) = (self.dirtied, self.written);
        let end = self.now.plus(Nanos::from_secs(seconds));
        let mut seen = Seen {
            dirty_mean: 0.0,
            dirty_max: 0,
            dirtied_per_s: 0.0,
            written_per_s: 0.0,
            pause_longest: Nanos::ZERO,
            paused: false,
        };
        let mut steps = 0u64;
        while self.now < end {
            self.now = self.now.plus(Self::STEP);
            self.device();
            for writer in 0..self.wakes.len() {
                while self.wakes[writer] <= self.now {
                    let pause = self.write(self.wakes[writer]);
                    seen.pause_longest = seen.pause_longest.max(pause);
                    seen.paused |= pause > Nanos::ZERO;
                    self.wakes[writer] = self.wakes[writer].plus(Self::WRITE).plus(pause);
                }
            }
            seen.dirty_mean += self.dirty as f64;
            seen.dirty_max = seen.dirty_max.max(self.dirty);
            steps += 1;
        }
        seen.dirty_mean /= steps as f64;
        seen.dirtied_per_s = (self.dirtied - dirtied) as f64 / seconds as f64;
        seen.written_per_s = (self.written - written) as f64 / seconds as f64;
        seen
    }

    fn device(&mut self) {
        let busy = self.dirty > T.background;
        self.credit += self.speed * Self::STEP.as_secs_f64();
        let done = if busy {
            (self.credit as u64).min(self.dirty)
        } else {
            0
        };
        self.credit = self.credit.fract();
        self.dirty -= done;
        self.written += done;
        self.bandwidth.update(self.now, self.written, busy);
    }

    /// One page by one writer; returns its pause.
    fn write(&mut self, now: Nanos) -> Nanos {
        if self.dirty <= T.freerun() {
            self.dirty += 1;
            self.dirtied += 1;
            return Nanos::ZERO;
        }
        let ratio = pos_ratio(self.dirty, T) * device_ratio(self.dirty, 1.0, T);
        self.base
            .update(now, self.dirtied, self.bandwidth.rate(), ratio);
        if ratio > 0.0 {
            self.dirty += 1;
            self.dirtied += 1;
        }
        let owed = pause_ns(1, self.base.rate(), ratio, self.pause_max);
        owed.since(Self::WRITE)
    }
}

/// From below and from above, dirty memory settles at the set point and the device is kept busy.
#[test]
fn settles_at_the_set_point() {
    let max = Nanos::from_millis(200);
    // speed, writers, longest pause allowed
    let table = [
        (12_800.0, 1, MS),
        (12_800.0, 4, MS),
        (12_800.0, 12, MS),
        (12_800.0, 100, max),
        (50_000.0, 8, MS),
        (1_000.0, 2, max),
    ];
    for (speed, writers, pause_max) in table {
        for start in [0, T.limit - 1] {
            let mut sim = Sim::new(speed, writers, start, pause_max);
            let warm = sim.run(20);
            let seen = sim.run(10);
            let at = format!(
                "{speed} pages/s, {writers} writers, from {start}: mean {} max {}",
                seen.dirty_mean, seen.dirty_max
            );
            let off = (seen.dirty_mean - T.setpoint() as f64).abs();
            // A tenth of the way from freerun to the limit.
            assert!(off < (T.limit - T.freerun()) as f64 * 0.1, "{at}");
            assert!(
                seen.dirty_max < T.limit && warm.dirty_max <= T.limit,
                "{at}"
            );
            assert!((seen.written_per_s / speed - 1.0).abs() < 0.05, "{at}");
            assert!((seen.dirtied_per_s / speed - 1.0).abs() < 0.05, "{at}");
            assert!(
                seen.paused && warm.pause_longest.max(seen.pause_longest) <= pause_max,
                "{at}"
            );
        }
    }
}

/// More writers than pauses of 1 ms can hold: the limit holds them, and the device stays busy.
#[test]
fn the_limit_holds_when_short_pauses_cannot() {
    let mut sim = Sim::new(12_800.0, 200, 0, MS);
    sim.run(5);
    let seen = sim.run(10);
    assert!(seen.dirty_max <= T.limit, "{}", seen.dirty_max);
    assert!(seen.dirty_mean > T.setpoint() as f64);
    assert!((seen.written_per_s / 12_800.0 - 1.0).abs() < 0.05);
    assert!(seen.pause_longest <= MS);
}

/// The throttle lifts: writers that go away leave their rate to the one that stays, and a stalled device that comes
/// back serves its writers again.
#[test]
fn lifts_again() {
    let mut sim = Sim::new(12_800.0, 64, 0, Nanos::from_millis(200));
    sim.run(10);
    sim.writers(1);
    sim.run(8);
    let seen = sim.run(5);
    assert!(
        (seen.dirtied_per_s / 12_800.0 - 1.0).abs() < 0.05,
        "{}",
        seen.dirtied_per_s
    );

    // Not by swinging about freerun: the base rate has risen.
    let off = (seen.dirty_mean - T.setpoint() as f64).abs();
    assert!(
        off < (T.limit - T.freerun()) as f64 * 0.1,
        "{}",
        seen.dirty_mean
    );

    sim.speed = 0.0;
    let stalled = sim.run(10);
    assert!(stalled.dirty_max <= T.limit);
    sim.speed = 12_800.0;
    sim.run(10);
    let seen = sim.run(5);
    assert!(
        (seen.dirtied_per_s / 12_800.0 - 1.0).abs() < 0.05,
        "{}",
        seen.dirtied_per_s
    );

    sim.speed = 200_000.0;
    sim.run(2);
    let fast = sim.run(3);
    assert!(
        fast.dirty_mean <= T.freerun() as f64,
        "a device faster than its writers pauses nobody"
    );
}

//! A network disk: a base latency, and token buckets for requests and bytes, with credits to burst on.
//!
//! A bucket holds up to `credits`, fills at the baseline and is spent at the burst rate at most: Amazon's gp2 volumes
//! (5.4 million I/O credits, 3,000 a second in a burst, 3 a second and GiB without) and their like. A bucket without
//! credits is a plain cap: gp3 (3,000 requests and 125 MiB a second). A request beyond `io_unit` counts as several.
//! Figures: the Amazon EBS user guide, "General Purpose SSD volumes". Latencies: "single-digit milliseconds" there; the
//! distribution is a guess.
//!
//! The credits are a token bucket in integers: token-nanoseconds, so that nothing is lost to rounding.

use super::{Access, DEPTH_EXPECTED, Latency, Places, TIME_EXPECTED, TIME_MAX, depth_fits, expect};
use crate::rng::Rng;
use highwater_engine::Nanos;
use highwater_engine::io::IoOp;

/// A limit with a burst.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bucket {
    /// Tokens a second, for ever; 0: no limit.
    pub per_s: u64,
    /// Tokens a second while credits last; `per_s` or less: no burst.
    pub burst_per_s: u64,
    /// Credits: the tokens that a rested bucket holds.
    pub credits: u64,
}

/// A network disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cloud {
    /// Requests at one time.
    pub depth: usize,
    /// What a read takes besides the limits.
    pub read: Latency,
    /// What a write takes.
    pub write: Latency,
    /// What a flush takes.
    pub flush: Nanos,
    /// Requests a second.
    pub iops: Bucket,
    /// Bytes a second.
    pub bytes: Bucket,
    /// The largest request that counts as one.
    pub io_unit: u64,
}

impl Default for Cloud {
    fn default() -> Cloud {
        let q = |p50, p99, max| {
            let us = Nanos::from_micros;
            let points = vec![
                (0, us(p50 / 2)),
                (500_000, us(p50)),
                (990_000, us(p99)),
                (1_000_000, us(max)),
            ];
            Latency::quantiles(points).unwrap_or_else(|_| unreachable!())
        };
        Cloud {
            depth: 64,
            read: q(600, 1_500, 8_000),
            write: q(800, 2_000, 10_000),
            flush: Nanos::from_millis(1),
            iops: Bucket {
                per_s: 3_000,
                ..Bucket::default()
            },
            bytes: Bucket {
                per_s: 125 << 20,
                ..Bucket::default()
            },
            io_unit: 256 << 10,
        }
    }
}

impl Cloud {
    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        expect(depth_fits(self.depth), "depth", DEPTH_EXPECTED)?;
        expect(self.io_unit >= 512, "io_unit", "at least 512B")?;
        let times = [self.read.max(), self.write.max(), self.flush];
        expect(
            times.iter().max() <= Some(&TIME_MAX),
            "a time",
            TIME_EXPECTED,
        )
    }
}

const SECOND: u128 = 1_000_000_000;

/// A bucket's state.
struct Level {
    bucket: Bucket,
    /// Token-nanoseconds in it at `at`.
    level: u128,
    at: u64,
    /// When the burst rate allows the next one.
    peak_at: u64,
}

impl Level {
    fn new(bucket: Bucket) -> Level {
        Level {
            level: u128::from(bucket.credits) * SECOND,
            bucket,
            at: 0,
            peak_at: 0,
        }
    }

    /// Takes `n` tokens; returns when they are there, not before `at`.
    fn take(&mut self, at: u64, n: u64) -> u64 {
        let b = &self.bucket;
        if b.per_s == 0 || n == 0 {
            return at;
        }
        let from = at.max(self.at);
        let full = u128::from(b.credits) * SECOND;
        let gained = u128::from(from - self.at) * u128::from(b.per_s);
        self.level = (self.level + gained).min(full);
        let want = u128::from(n) * SECOND;
        let missing = want.saturating_sub(self.level);
        let wait = missing.div_ceil(u128::from(b.per_s)) as u64;
        self.level = (self.level + u128::from(wait) * u128::from(b.per_s)).saturating_sub(want);
        self.at = from + wait;
        let peak = u128::from(b.burst_per_s.max(b.per_s));
        self.peak_at = self.peak_at.max(at) + want.div_ceil(peak) as u64;
        self.at.max(self.peak_at)
    }
}

pub(in crate::device) struct Volume {
    cloud: Cloud,
    places: Places,
    iops: Level,
    bytes: Level,
}

impl Volume {
    pub fn new(cloud: Cloud) -> Volume {
        Volume {
            places: Places::new(cloud.depth),
            iops: Level::new(cloud.iops),
            bytes: Level::new(cloud.bytes),
            cloud,
        }
    }

    pub fn flush(&self) -> Nanos {
        self.cloud.flush
    }

    pub fn end_of(&mut self, at: u64, access: &Access, rng: &mut Rng) -> u64 {
        let c = &self.cloud;
        let (place, start) = self.places.earliest(at);
        let requests = access.len.div_ceil(c.io_unit).max(1);
        let allowed = self.iops.take(start, requests);
        let allowed = allowed.max(self.bytes.take(start, access.len));
        let latency = match access.op {
            IoOp::Read => &c.read,
            IoOp::Write => &c.write,
        };
        // The wait for tokens overlaps the network's latency: a device below its limits shows the latency alone.
        let end = (start + latency.sample(rng)).max(allowed) + access.extra;
        *place = end;
        end
    }
}

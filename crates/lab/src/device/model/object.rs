//! An object store: tens of milliseconds to the first byte with a long tail, then bytes at a connection's speed.
//!
//! Many connections at one time and large requests are what makes it quick, so it advises requests of 8 MiB. Figures:
//! Amazon's "Performance guidelines for Amazon S3" (85 to 90 MB/s for each concurrent request, ranges of 8 MB or 16 MB,
//! 5,500 GET and 3,500 PUT requests a second and prefix). The first byte's distribution is a guess of common practice:
//! tens of milliseconds, 1 in 100 beyond 200. Left out: retries and throttling answers (503), and multipart uploads: a
//! write is one PUT of its range, which no store offers for a part of an object without rewriting.

use super::{Access, Latency, Places, Rate, TIME_EXPECTED, TIME_MAX, depth_fits, expect};
use crate::rng::Rng;
use highwater_engine::Nanos;
use highwater_engine::io::IoOp;

/// An object store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// Requests at one time, each on a connection of its own.
    pub connections: usize,
    /// The time to the first byte of a GET.
    pub get: Latency,
    /// The time that a PUT takes besides its bytes.
    pub put: Latency,
    /// One connection's speed.
    pub connection_rate: Rate,
    /// All connections' speed together.
    pub rate: Rate,
    /// The largest request, which it advises.
    pub request_bytes_max: u64,
    /// What a flush takes: nothing, for a PUT that was answered is durable.
    pub flush: Nanos,
}

impl Default for Object {
    fn default() -> Object {
        let q = |p: [u64; 5]| {
            let at = [0, 500_000, 900_000, 990_000, 1_000_000];
            let points = at.into_iter().zip(p.map(Nanos::from_millis)).collect();
            Latency::quantiles(points).unwrap_or_else(|_| unreachable!())
        };
        Object {
            connections: 64,
            get: q([10, 25, 60, 200, 1_000]),
            put: q([20, 45, 100, 300, 1_500]),
            connection_rate: Rate::bytes_per_s(85_000_000),
            rate: Rate::bytes_per_s(1_250_000_000),
            request_bytes_max: 8 << 20,
            flush: Nanos::ZERO,
        }
    }
}

impl Object {
    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        expect(depth_fits(self.connections), "connections", "1 to 65536")?;
        let bytes = (4 << 10..=1 << 30).contains(&self.request_bytes_max);
        expect(bytes, "request_bytes_max", "4KiB to 1GiB")?;
        let times = [self.get.max(), self.put.max(), self.flush];
        expect(
            times.iter().max() <= Some(&TIME_MAX),
            "a time",
            TIME_EXPECTED,
        )
    }
}

pub(in crate::device) struct Store {
    object: Object,
    connections: Places,
    link_free_at: u64,
}

impl Store {
    pub fn new(object: Object) -> Store {
        Store {
            connections: Places::new(object.connections),
            link_free_at: 0,
            object,
        }
    }

    pub fn flush(&self) -> Nanos {
        self.object.flush
    }

    pub fn end_of(&mut self, at: u64, access: &Access, rng: &mut Rng) -> u64 {
        let o = &self.object;
        let (connection, start) = self.connections.earliest(at);
        let first_byte = match access.op {
            IoOp::Read => &o.get,
            IoOp::Write => &o.put,
        };
        let served = first_byte.sample(rng) + o.connection_rate.time(access.len) + access.extra;
        self.link_free_at = self.link_free_at.max(start) + o.rate.time(access.len);
        let end = (start + served).max(self.link_free_at);
        *connection = end;
        end
    }
}

//! A flash disk seen from outside: so many requests at one time, each with a latency, and one bus for their bytes.
//!
//! Also what `highwater probe` fits, for it takes distributions as they were measured: a latency for each direction, a
//! third for reads while writes are under way, what a request's own bytes add, and limits of requests and bytes a
//! second. Left out: garbage collection as a state (its effect is in the tail of the latencies that were measured).

use super::{Access, Latency, Places, Rate, TIME_EXPECTED, TIME_MAX, expect};
use crate::rng::Rng;
use highwater_engine::Nanos;
use highwater_engine::io::IoOp;

/// A flash disk. The default is a quick one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ssd {
    /// How many requests are served at one time.
    pub depth: usize,
    /// What a read takes besides its bytes.
    pub read: Latency,
    /// What a read takes while a write is being served, where that differs.
    pub read_writing: Option<Latency>,
    /// What a write takes besides its bytes.
    pub write: Latency,
    /// What each other request under way adds to a read (unless `read_writing` says it): the share of its path, in the
    /// host or in the disk, that serves one at a time.
    pub read_crowd: Nanos,
    /// What each other request under way adds to a write.
    pub write_crowd: Nanos,
    /// What the bytes of a read add to its own latency (not to the bus).
    pub read_request_rate: Rate,
    /// What the bytes of a write add to its own latency.
    pub write_request_rate: Rate,
    /// The bus that all requests share, as reads use it.
    pub read_rate: Rate,
    /// As writes use it.
    pub write_rate: Rate,
    /// Reads a second at most; 0: no limit.
    pub read_iops: u64,
    /// Writes a second at most; 0: no limit.
    pub write_iops: u64,
    /// What a flush takes when there is nothing to do, a truncation, or a question.
    pub flush: Latency,
    /// How quickly a flush gets rid of the bytes written since the last one.
    pub flush_rate: Rate,
}

impl Default for Ssd {
    fn default() -> Ssd {
        let us = Nanos::from_micros;
        Ssd {
            depth: 32,
            read: Latency::uniform(us(60), us(78)),
            read_writing: None,
            write: Latency::uniform(us(20), us(26)),
            read_crowd: Nanos::ZERO,
            write_crowd: Nanos::ZERO,
            read_request_rate: Rate::UNLIMITED,
            write_request_rate: Rate::UNLIMITED,
            read_rate: Rate::ns_per_kib(500),
            write_rate: Rate::ns_per_kib(500),
            read_iops: 0,
            write_iops: 0,
            flush: Latency::constant(us(200)),
            flush_rate: Rate::UNLIMITED,
        }
    }
}

impl Ssd {
    /// A disk in five numbers: `read` and `write` take up to `jitter_percent` longer than they say, a KiB takes
    /// `ns_per_kib` on the bus in either direction.
    pub fn simple(
        depth: usize,
        [read, write, flush]: [Nanos; 3],
        ns_per_kib: u64,
        jitter_percent: u32,
    ) -> Ssd {
        let jittered =
            |t: Nanos| Latency::uniform(t, Nanos(t.0 + t.0 * u64::from(jitter_percent) / 100));
        Ssd {
            depth,
            read: jittered(read),
            write: jittered(write),
            flush: Latency::constant(flush),
            read_rate: Rate::ns_per_kib(ns_per_kib),
            write_rate: Rate::ns_per_kib(ns_per_kib),
            ..Ssd::default()
        }
    }

    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        expect(self.depth > 0, "depth", "at least 1 request at one time")?;
        let slow = [&self.read, &self.write, &self.flush].into_iter();
        let crowds = self.read_crowd.max(self.write_crowd) <= Nanos::from_secs(1);
        expect(crowds, "read_crowd, write_crowd", "at most a second")?;
        let longest = slow.chain(&self.read_writing).map(Latency::max).max();
        expect(
            longest <= Some(TIME_MAX),
            "read, write, flush",
            TIME_EXPECTED,
        )
    }
}

pub(in crate::device) struct Flash {
    ssd: Ssd,
    places: Places,
    bus_free_at: u64,
    /// The latest end of a write.
    writing_until: u64,
    unflushed: u64,
}

impl Flash {
    pub fn new(ssd: Ssd) -> Flash {
        Flash {
            places: Places::new(ssd.depth),
            bus_free_at: 0,
            writing_until: 0,
            unflushed: 0,
            ssd,
        }
    }

    pub fn end_of(&mut self, at: u64, access: &Access, rng: &mut Rng) -> u64 {
        let s = &self.ssd;
        let mut crowd = match access.op {
            IoOp::Read => s.read_crowd.0,
            IoOp::Write => s.write_crowd.0,
        };
        let others = match crowd {
            0 => 0,
            _ => self.places.busy(at),
        };
        let (place, start) = self.places.earliest(at);
        let (latency, own, rate, iops) = match access.op {
            IoOp::Read => {
                let busy = s
                    .read_writing
                    .as_ref()
                    .filter(|_| self.writing_until > start);
                let latency = busy.unwrap_or(&s.read);
                if busy.is_some() {
                    crowd = 0;
                }
                (latency, s.read_request_rate, s.read_rate, s.read_iops)
            }
            IoOp::Write => (&s.write, s.write_request_rate, s.write_rate, s.write_iops),
        };
        let served = latency.sample(rng) + own.time(access.len) + crowd * others + access.extra;
        let pace = 1_000_000_000u64.checked_div(iops).unwrap_or(0);
        self.bus_free_at = self.bus_free_at.max(start) + rate.time(access.len).max(pace);
        let end = (start + served).max(self.bus_free_at);
        *place = end;
        if access.op == IoOp::Write {
            self.writing_until = self.writing_until.max(end);
            self.unflushed += access.len;
        }
        end
    }

    pub fn flush_end(&mut self, at: u64, rng: &mut Rng) -> u64 {
        let bytes = std::mem::take(&mut self.unflushed);
        at + self.ssd.flush.sample_unless_constant(rng) + self.ssd.flush_rate.time(bytes)
    }
}

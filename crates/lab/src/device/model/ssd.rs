//! A flash disk seen from outside: one server behind a delay, and the ring and the elevator through which requests come.
//!
//! Also what `highwater probe` fits, so its parameters are what can be measured at the host's side of a disk:
//! - **Latency**: what a request of 4 KiB takes alone, as a distribution for each direction; its further bytes and pieces
//!   of memory add to it (`*_request_rate`, `*_segment`).
//! - **Occupancy**: one server takes all requests one after the other, for a fixed time + bytes / rate + a time for each
//!   further piece of memory. The fixed time is what `*_iops` leaves: 1 / iops less 4 KiB's bytes.
//! - **Copies**: CPUs that copy memory slow down a host that copies requests: bytes take longer, in proportion to
//!   what is copied (`*_rate_beside_copies` is where that is 10 GB/s).
//! - **Sequence**: a write that begins where the last one ended costs the server less, `write_adjoining` (a virtual disk:
//!   3 us at 4 KiB, 8 at 128 KiB, of the 7 to 8 that any request takes; reads save nothing).
//! - **Crowd**: what n other requests of 4 KiB under way add to a latency, as a curve, for the cost of one falls with
//!   their number: requests that come together share a notification. [`Curve::share`] says which part of it occupies
//!   the server (where that is more than the fixed time), so that further bytes come on top, and which part is delay.
//! - **Completions**: each is signalled as it ends; or all of them together when the server has nothing left to do, as
//!   a host does that works through a ring and then interrupts its guest. Then a *round* is what was served between two
//!   idle times. An idle server begins `wake` after it was called, and whoever comes meanwhile is of the same round. What
//!   a latency has beyond that and the occupancy passes after the signal, and so does what a crowd costs beyond the
//!   occupancies of all (the guest hands in one after the other): meanwhile the server is idle. All of a round take the
//!   same quantile of their latencies, so that those who were signalled together stay together; how late that is,
//!   [`super::round`] says.
//! - **Ring**: a request takes a descriptor for each piece and two more (virtio: its header and its status). Those in
//!   the ring are served in order. Those that find no room (or no place, `depth`) wait with the host, in the order of
//!   the elevator and of [`Dispatch`].
//!
//! Left out: garbage collection as a state (its effect is in the tail of the latencies that were measured). Pauses of a
//! host that come by time and not by request: a virtio disk stood still for 1 to 4 ms about every 40 ms beside reads, which
//! is one request of a thousand alone and one round of fifty at depth 64; here, one round of sixteen.

use super::dispatch::Dispatch;
use super::round::Round;
use super::{
    Access, Curve, DEPTH_EXPECTED, Latency, Places, Rate, Served, Share, TIME_EXPECTED, TIME_MAX,
    Waiting, depth_fits, expect,
};
use crate::rng::Rng;
use highwater_engine::Nanos;
use highwater_engine::io::IoOp;

/// A request's descriptors beside those of its pieces.
pub(super) const HEADERS: u32 = 2;
/// What a request of `*_iops` has.
const UNIT: u64 = 4096;

/// The copies of `*_rate_beside_copies`, in bytes a second.
pub const COPIES_PER_S: u64 = 10_000_000_000;

/// The order in which requests wait that the device has no room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scheduler {
    /// As they came.
    #[default]
    None,
    /// Linux' mq-deadline.
    Deadline,
}

/// When the host hears of the requests that have been served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Completions {
    /// Of each at its end.
    #[default]
    Each,
    /// Of all when nothing is left to serve.
    Together,
}

/// A flash disk. The default is a quick one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ssd {
    /// How many requests are served at one time.
    pub depth: usize,
    /// The ring's descriptors, of which a request takes one for each piece of memory and two more; 0: no limit but
    /// `depth`.
    pub ring: u32,
    /// How requests wait for the ring, or for a place.
    pub elevator: Scheduler,
    /// When requests that have been served are heard of.
    pub completions: Completions,
    /// How long an idle server takes to begin where completions come together; a part of the latencies.
    pub wake: Nanos,
    /// What a read of 4 KiB takes alone.
    pub read: Latency,
    /// What a write of 4 KiB takes alone.
    pub write: Latency,
    /// What others under way add to a read of 4 KiB.
    pub read_crowd: Curve,
    /// What others under way add to a write of 4 KiB.
    pub write_crowd: Curve,
    /// What the bytes of a read add to its own latency.
    pub read_request_rate: Rate,
    /// What the bytes of a write add to its own latency.
    pub write_request_rate: Rate,
    /// How quickly the server moves the bytes of reads.
    pub read_rate: Rate,
    /// As writes have it.
    pub write_rate: Rate,
    /// `read_rate` while CPUs copy 10 GB/s: the host copies, too. No less time than without.
    pub read_rate_beside_copies: Rate,
    /// As writes have it.
    pub write_rate_beside_copies: Rate,
    /// What each piece of memory of a read but the first costs, the server and the read.
    pub read_segment: Nanos,
    /// As writes have it.
    pub write_segment: Nanos,
    /// What a write costs less, the server and itself, that begins where the last one ended; at most the fixed time.
    pub write_adjoining: Nanos,
    /// Reads of 4 KiB a second at most; 0: no limit but their bytes.
    pub read_iops: u64,
    /// Writes of 4 KiB a second at most; 0: no limit but their bytes.
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
            ring: 0,
            elevator: Scheduler::None,
            completions: Completions::Each,
            wake: Nanos::ZERO,
            read: Latency::uniform(us(60), us(78)),
            write: Latency::uniform(us(20), us(26)),
            read_crowd: Curve::default(),
            write_crowd: Curve::default(),
            read_request_rate: Rate::UNLIMITED,
            write_request_rate: Rate::UNLIMITED,
            read_rate: Rate::ns_per_kib(500),
            write_rate: Rate::ns_per_kib(500),
            read_rate_beside_copies: Rate::UNLIMITED,
            write_rate_beside_copies: Rate::UNLIMITED,
            read_segment: Nanos::ZERO,
            write_segment: Nanos::ZERO,
            write_adjoining: Nanos::ZERO,
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
        expect(depth_fits(self.depth), "depth", DEPTH_EXPECTED)?;
        let ring = self.ring == 0 || (HEADERS + 1..=1 << 16).contains(&self.ring);
        expect(ring, "ring", "0, or 3 to 65536 descriptors")?;
        let second = Nanos::from_secs(1);
        let crowds = self.read_crowd.max().max(self.write_crowd.max()) <= second.0;
        expect(crowds, "read_crowd, write_crowd", "at most a second")?;
        let adjoining = self.write_adjoining <= second;
        expect(adjoining, "write_adjoining", "at most a second")?;
        let pieces = self.read_segment.max(self.write_segment) <= second;
        expect(pieces, "read_segment, write_segment", "at most a second")?;
        let alone = self.read.at(500_000).min(self.write.at(500_000));
        let wake = "at most the median of what a request takes alone";
        expect(self.wake <= alone, "wake", wake)?;
        let slow = [&self.read, &self.write, &self.flush].into_iter();
        expect(
            slow.map(Latency::max).max() <= Some(TIME_MAX),
            "read, write, flush",
            TIME_EXPECTED,
        )
    }

    fn has_front(&self) -> bool {
        self.ring > 0 || self.elevator != Scheduler::None || self.completions != Completions::Each
    }
}

/// What requests of one direction cost the server.
struct Cost {
    /// Each request, whatever its size.
    fixed: u64,
    /// What a request of `UNIT` costs by its bytes.
    unit: u64,
}

impl Cost {
    fn new(iops: u64, rate: Rate) -> Cost {
        let unit = rate.time(UNIT);
        let pace = 1_000_000_000u64.checked_div(iops).unwrap_or(0);
        Cost {
            fixed: pace.saturating_sub(unit),
            unit,
        }
    }
}

pub(in crate::device) struct Flash {
    ssd: Ssd,
    costs: [Cost; 2],
    places: Places,
    server_free_at: u64,
    unflushed: u64,
    /// Where the last write ended.
    wrote_to: u64,
    round: Round,
    dispatch: Dispatch,
    /// Taken from the host, and not left.
    inside: usize,
    /// Descriptors of those.
    used: u32,
    /// Waiting with the host since the last `take`.
    outside: u64,
}

impl Flash {
    pub fn new(ssd: Ssd) -> Flash {
        Flash {
            costs: [
                Cost::new(ssd.read_iops, ssd.read_rate),
                Cost::new(ssd.write_iops, ssd.write_rate),
            ],
            places: Places::new(ssd.depth),
            server_free_at: 0,
            unflushed: 0,
            wrote_to: 0,
            round: Round::default(),
            dispatch: Dispatch::new(ssd.elevator),
            inside: 0,
            used: 0,
            outside: 0,
            ssd,
        }
    }

    pub fn has_front(&self) -> bool {
        self.ssd.has_front()
    }

    /// Which of `waiting`, oldest first, goes into the ring now.
    pub fn take(&mut self, now: u64, waiting: &[Waiting]) -> Option<usize> {
        let places = self.ssd.depth - self.inside;
        let next = self.dispatch.next(now, waiting, places)?;
        let wanted = waiting[next].access.segments + HEADERS;
        // One that is larger than the ring goes alone: MODEL-2.
        let fits = self.ssd.ring == 0 || self.used == 0 || self.used + wanted <= self.ssd.ring;
        if !fits {
            self.dispatch.full(now);
            return None;
        }
        self.dispatch.went();
        self.inside += 1;
        self.used += wanted;
        self.outside = waiting.len() as u64 - 1;
        Some(next)
    }

    /// The device has answered a request of `segments`.
    pub fn leave(&mut self, segments: u32) {
        self.inside -= 1;
        self.used -= segments + HEADERS;
    }

    /// Until when the server has something to do.
    pub fn busy_until(&self) -> u64 {
        self.server_free_at
    }

    /// What passes between the signal of the last round and when its requests are heard of: all of them at one time.
    pub fn round_delay(&self) -> u64 {
        let others = self.round.len().saturating_sub(1);
        let each = |(crowd, cost): (&Curve, &Cost)| {
            let each = crowd.each(others + self.outside);
            each.0.saturating_sub(cost.fixed + cost.unit)
        };
        let crowds = [&self.ssd.read_crowd, &self.ssd.write_crowd];
        let each = crowds.into_iter().zip(&self.costs).map(each);
        let all: u64 = each.zip(self.round.requests()).map(|(e, n)| e * n).sum();
        self.round.delay + all * others / self.round.len().max(1)
    }

    pub fn serve(&mut self, at: u64, access: &Access, rng: &mut Rng) -> Served {
        let together = self.ssd.completions == Completions::Together;
        let quantile = together.then(|| self.join_round(at, access.op, rng));
        let s = &self.ssd;
        let (latency, own, [rate, beside], segment, crowd) = match access.op {
            IoOp::Read => (
                &s.read,
                s.read_request_rate,
                [s.read_rate, s.read_rate_beside_copies],
                s.read_segment,
                &s.read_crowd,
            ),
            IoOp::Write => (
                &s.write,
                s.write_request_rate,
                [s.write_rate, s.write_rate_beside_copies],
                s.write_segment,
                &s.write_crowd,
            ),
        };
        let cost = &self.costs[usize::from(access.op == IoOp::Write)];
        let (mut share, mut others) = (Share::default(), 0);
        if !crowd.is_free() && !together {
            let inside = self.places.busy(at);
            share = crowd.share(latency.at(500_000), inside + self.outside);
            others = share.delays.0 * inside;
        }
        let pieces = segment.0 * u64::from(access.segments.saturating_sub(1));
        let further = own.time(access.len.saturating_sub(UNIT));
        // By how much copies hold it up.
        let contended = beside
            .time(access.len)
            .saturating_sub(rate.time(access.len));
        let contended = contended * u64::from(access.copying) / (COPIES_PER_S / 1_000_000);
        let alone = match quantile {
            Some(quantile) => latency.at(quantile).0,
            None => latency.sample(rng),
        };
        let fixed = cost.fixed.max(share.occupies.0.saturating_sub(cost.unit));
        let mut saved = 0;
        if access.op == IoOp::Write {
            self.unflushed += access.len;
            if self.wrote_to == access.offset {
                saved = s.write_adjoining.0.min(fixed).min(alone);
            }
            self.wrote_to = access.offset + access.len;
        }
        let fixed = fixed - saved;
        let served = alone - saved + further + contended + pieces + others + access.extra;
        let moved = rate.time(access.len) + contended + pieces;
        if together {
            self.server_free_at += fixed + moved;
            // A nanosecond at least: MODEL-1.
            let delay = served.saturating_sub(s.wake.0 + fixed + moved).max(1);
            self.round.delay = self.round.delay.max(delay);
            return Served {
                at: self.server_free_at,
                signalled: false,
            };
        }
        let (place, start) = self.places.earliest(at);
        self.server_free_at = self.server_free_at.max(start) + fixed + moved;
        let end = (start + served).max(self.server_free_at);
        *place = end;
        Served {
            at: end,
            signalled: true,
        }
    }

    /// A request that comes at `at` is of the server's round, or begins one: the quantile of its latency.
    fn join_round(&mut self, at: u64, op: IoOp, rng: &mut Rng) -> u32 {
        if self.round.len() == 0 || at > self.server_free_at {
            self.server_free_at = at + self.ssd.wake.0;
            self.round = Round::default();
        }
        self.round.join(op, rng.below(1_000_000) as u32)
    }

    pub fn flush_end(&mut self, at: u64, rng: &mut Rng) -> u64 {
        let bytes = std::mem::take(&mut self.unflushed);
        at + self.ssd.flush.sample_unless_constant(rng) + self.ssd.flush_rate.time(bytes)
    }
}

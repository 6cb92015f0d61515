//! A model under a load of a known shape, without a lab around it: what it predicts for a measurement.

use super::super::plug::Plug;
use super::{Access, Model, Served, Waiting};
use crate::rng::Rng;
use highwater_engine::Nanos;
use highwater_engine::io::IoOp;

/// A closed loop: `depth` requests of one kind in flight, until `count` have begun; then those in flight end.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Reads or writes.
    pub op: IoOp,
    /// Bytes of one request.
    pub len: u64,
    /// Requests in flight.
    pub depth: usize,
    /// One after the other, or anywhere.
    pub sequential: bool,
    /// Bytes from the start of the device in which the requests lie.
    pub span: u64,
    /// Pieces of memory of one request that do not adjoin.
    pub segments: u32,
    /// How many.
    pub count: usize,
    /// How much memory CPUs copy meanwhile, in MB/s.
    pub copying: u32,
    /// Writes in flight beside them, which are not counted.
    pub beside: Beside,
    /// CPU of whoever hands a request in: a loop's requests that ended at one time are handed in one after the other, and
    /// reach the device as Linux plugs them.
    pub hand_in: HandIn,
}

/// What handing one request in takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HandIn {
    /// In the loop.
    pub load: Nanos,
    /// In that of the writes beside it.
    pub beside: Nanos,
}

/// Writes at random that go on while a load is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Beside {
    /// How many at one time.
    pub writes: usize,
    /// Bytes of one.
    pub len: u64,
    /// Pieces of memory of one.
    pub segments: u32,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Simulated {
    /// From the first to the last end.
    pub elapsed: Nanos,
    /// Each request's time, ascending.
    pub latency: Vec<u64>,
}

impl Simulated {
    /// Requests a second.
    pub fn per_s(&self) -> f64 {
        self.latency.len() as f64 * 1e9 / self.elapsed.0.max(1) as f64
    }

    /// The quantile `q` from 0 to 1.
    pub fn quantile(&self, q: f64) -> Nanos {
        let last = self.latency.len().saturating_sub(1);
        let at = (last as f64 * q).round() as usize;
        Nanos(self.latency.get(at).copied().unwrap_or(0))
    }
}

/// A request of the loop: the slot that it belongs to (those from `Load::depth` on are the writes beside).
struct Flying {
    served: Served,
    since: u64,
    slot: usize,
    segments: u32,
}

impl Model {
    /// Runs `load` from the random numbers of `seed`.
    ///
    /// # Panics
    /// When the model does not pass [`Model::check`], or the load has no requests or no room for one.
    pub fn simulate(&self, load: &Load, seed: u64) -> Simulated {
        assert!(load.depth > 0 && load.count > 0 && load.span >= load.len);
        let mut server = self.server();
        let (mut rng, mut places) = (Rng::new(seed, 200), Rng::new(seed, 201));
        let (mut next, mut now) = (0u64, 0u64);
        let mut access = |slot: usize| {
            let beside = slot >= load.depth;
            let (op, len, segments) = match beside {
                true => (IoOp::Write, load.beside.len, load.beside.segments),
                false => (load.op, load.len, load.segments),
            };
            let blocks = (load.span / len).max(1);
            let block = if load.sequential && !beside {
                next += 1;
                (next - 1) % blocks
            } else {
                places.below(blocks)
            };
            Access {
                op,
                offset: block * len,
                len,
                segments,
                extra: 0,
                copying: load.copying,
            }
        };
        let slots = load.depth + load.beside.writes;
        let mut idle: Vec<usize> = (0..slots).collect();
        let mut flying: Vec<Flying> = Vec::new();
        let mut coming: Vec<(u64, Waiting)> = Vec::new();
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut latency = Vec::with_capacity(load.count);
        let mut begun = 0;
        while latency.len() < load.count {
            let (own, beside) = std::mem::take(&mut idle)
                .into_iter()
                .partition::<Vec<usize>, _>(|slot| *slot < load.depth);
            for (slots, each) in [(own, load.hand_in.load), (beside, load.hand_in.beside)] {
                let (mut at, mut plug) = (now, Plug::new());
                for slot in slots {
                    if slot < load.depth {
                        if begun == load.count {
                            continue;
                        }
                        begun += 1;
                    }
                    at += each.0;
                    coming.extend(plug.make_room().into_iter().map(|w| (at, w)));
                    let access = access(slot);
                    let w = Waiting {
                        token: slot as u64,
                        access,
                        since: now,
                    };
                    plug.add(w, access.len);
                }
                coming.extend(plug.end().into_iter().map(|w| (at, w)));
            }
            let due = coming.extract_if(.., |(at, _)| *at <= now).map(|(_, w)| w);
            waiting.extend(due);
            let front = server.has_front();
            while let Some(next) = match front {
                true => server.take(now, &waiting),
                false => (!waiting.is_empty()).then_some(0),
            } {
                let w = waiting.remove(next);
                flying.push(Flying {
                    served: server.serve(now, &w.access, &mut rng),
                    since: w.since,
                    slot: w.token as usize,
                    segments: w.access.segments,
                });
            }
            let ends = flying.iter().map(|f| f.served.at);
            let Some(next) = ends.chain(coming.iter().map(|c| c.0)).min() else {
                unreachable!("a slot is idle, waits or flies")
            };
            now = next;
            // All that are heard of at one time leave before others come.
            let mut at = 0;
            while at < flying.len() {
                let f = &mut flying[at];
                if f.served.at > now || server.put_off(now, &mut f.served).is_some() {
                    at += 1;
                    continue;
                }
                let done = flying.remove(at);
                if front {
                    server.leave(done.segments);
                }
                if done.slot < load.depth {
                    latency.push(now - done.since);
                }
                idle.push(done.slot);
            }
        }
        latency.sort_unstable();
        Simulated {
            elapsed: Nanos(now),
            latency,
        }
    }
}

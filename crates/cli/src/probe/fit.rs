//! From points to a profile: the parameters of the model `ssd` that give what was measured.
//!
//! The model has a latency for 4 KiB, one server that each request occupies for a fixed time, its bytes and its pieces of
//! memory, and what a crowd of small requests costs. So, direction by direction:
//! - the latencies are the quantiles of the points of 4 KiB at depth 1;
//! - `completions` come together when the medians of 4 KiB at depth 2 to 32 are nearer to a latency and all occupancies
//!   after each other than to the longer of the two;
//! - `*_crowd` is what the median of 4 KiB gains from depth 1 to each other depth; where completions come together, from the
//!   latest of so many that are alone each ([`Latency::of_round`]). Where besides a part of them waits before a full ring, a
//!   request takes one round or two, and the median falls between: there it is what a round's mean gains;
//! - `*_iops` is the most requests of 4 KiB a second, but for what passes once a round (its latest latency less an occupancy)
//!   where completions come together;
//! - `*_rate` and `*_segment` are least squares, in relative error, of what a request of 16 KiB to 1 MiB occupies the disk
//!   for beyond one of 4 KiB at the same depth. Points that are not saturated (twice their latency alone) say nothing
//!   of that and are left out. What scattered memory adds to a request that is alone, at depth 1 or in the ring, is one more
//!   point of `*_segment`;
//! - `*_rate_beside_copies` is what large requests in sequence take longer beside copies than without, on top,
//!   in proportion to what is copied;
//! - where completions come together, what a loop's thread needs to hand in its requests is not the disk's: its CPU for each
//!   is measured, and passes before the disk hears of those that are plugged together;
//! - `wake`, where completions come together, is how long after a read another one may begin and end with it, less what the
//!   first occupies the disk for;
//! - `write_adjoining` is what writes of 128 KiB at depth 4 take less in sequence than at random;
//! - `*_request_rate` is the slope of the median over the size at depth 1, through the point of 4 KiB, where memory adjoins;
//! - `depth`, `ring` and `elevator` are the system's ([`Front`]). Without: a depth that reaches 97 % of the most requests
//!   a second in both directions, 32 or more, and no ring;
//! - `flush` is the idle flush's distribution, `flush_rate` what 4 MiB of writes add to its mean.
//!
//! A disk with an arm is measured alike, but its profile knows no order: then sequences are the lines that fit badly.

use super::front::Front;
use super::points::{FLUSH_BYTES, Point, Requests, Step};
use crate::least_squares::{Row, least};
use crate::raw::by_caller;
use highwater_engine::Nanos;
use highwater_lab::Model;
use highwater_lab::model::{COPIES_PER_S, Completions, Curve, Latency, Rate, Scheduler, Ssd};

/// The least depth of a profile: what the cache's flusher keeps in flight anyhow.
const DEPTH_MIN: u32 = 32;
/// The deepest point: more places are never seen.
const DEPTH_MAX: u32 = 256;
/// A request's descriptors beside those of its pieces.
const HEADERS: u32 = 2;
/// As Linux plugs requests that are submitted together: at most so many, and none behind one as large as this.
const PLUG_REQUESTS: u32 = 32;
const PLUG_BYTES: u64 = 128 << 10;
/// A point is saturated when its median is this many times what it is alone.
const SATURATED: f64 = 2.0;

/// One direction's parameters.
#[derive(Clone, Debug)]
pub(super) struct Direction {
    /// (per million, nanoseconds) of 4 KiB.
    pub quantiles: Vec<(u32, u64)>,
    /// (requests under way in all, nanoseconds that the others add).
    pub crowd: Vec<(u32, u64)>,
    /// Of a request's own further bytes; 0: no time.
    pub request_bytes_per_s: u64,
    pub bytes_per_s: u64,
    /// While CPUs copy `COPIES_PER_S`; 0: as without.
    pub bytes_per_s_beside_copies: u64,
    pub segment_ns: u64,
    /// What one costs less that begins where the last one ended.
    pub adjoining_ns: u64,
    pub iops: u64,
    /// CPU of a loop's thread for one request, which passes before the disk hears of it; 0: not told apart.
    pub hand_in_ns: u64,
    depth: u32,
}

/// A profile.
#[derive(Clone, Debug)]
pub struct Fit {
    pub(super) read: Direction,
    pub(super) write: Direction,
    pub(super) writes_measured: bool,
    pub(super) flush: Vec<(u32, u64)>,
    pub(super) flush_bytes_per_s: u64,
    pub(super) completions: Completions,
    pub(super) wake_ns: u64,
    pub(super) front: Front,
    pub(super) span: u64,
}

/// A point's quantiles in nanoseconds, less what a loop took to hand each in.
fn quantiles(point: &Point, handed_in: f64) -> Vec<(u32, u64)> {
    let mut most = 1_000;
    let of = point.quantiles_us.iter().map(|(ppm, us)| {
        most = most.max((us * 1e3 - handed_in) as u64);
        (*ppm, most)
    });
    of.collect()
}

/// As the lab has it.
fn latency(points: &[(u32, u64)]) -> Latency {
    let points = points.iter().map(|(ppm, ns)| (*ppm, Nanos(*ns))).collect();
    Latency::quantiles(points).unwrap_or(Latency::constant(Nanos(1_000)))
}

/// As the lab has it: by other requests.
fn curve(crowd: &[(u32, u64)]) -> Curve {
    let points = crowd.iter().map(|(n, ns)| (n - 1, Nanos(*ns))).collect();
    Curve::points(points).unwrap_or_default()
}

/// What nanoseconds a byte are in bytes a second; 0 for no time.
fn bytes_per_s(ns_per_byte: f64) -> u64 {
    if ns_per_byte > 0.0 {
        (1e9 / ns_per_byte) as u64
    } else {
        0
    }
}

/// By how many nanoseconds a byte takes longer while CPUs copy `COPIES_PER_S`.
fn slower_beside_copies(points: &[Point], read: bool) -> f64 {
    let stream = Requests::stream(read);
    let find = |step| points.iter().find(|p| p.step == step);
    let both = find(Step::Copies(stream)).zip(find(Step::Load(stream)));
    both.map_or(0.0, |(beside, alone)| {
        let took = |p: &Point| 1e9 / p.per_s.max(1e-9) / stream.io as f64;
        (took(beside) - took(alone)) * COPIES_PER_S as f64 / beside.copied_per_s.max(1e9)
    })
}

/// What a request costs less that begins where the last one ended, in nanoseconds.
fn saved_in_sequence(points: &[Point], read: bool) -> f64 {
    let [sequence, random] = Requests::adjoining(read).map(|requests| {
        let point = points.iter().find(|p| p.step == Step::Load(requests));
        point.map(|p| 1e9 / p.per_s.max(1e-9))
    });
    random
        .zip(sequence)
        .map_or(0.0, |(random, sequence)| (random - sequence).max(0.0))
}

/// The points of one direction.
struct Loads<'a> {
    points: Vec<(&'a Point, Requests)>,
    read: bool,
    front: Front,
    completions: Completions,
    /// CPU of a loop's thread for one request; 0: not told apart.
    hand_in: f64,
}

impl<'a> Loads<'a> {
    fn of(points: &'a [Point], read: bool, front: Front, completions: Completions) -> Loads<'a> {
        let of = |p: &'a Point| match p.step {
            Step::Load(r) if r.work.read == read => Some((p, r)),
            _ => None,
        };
        Loads {
            points: points.iter().filter_map(of).collect(),
            read,
            front,
            completions,
            hand_in: hand_in(points, read, completions),
        }
    }

    /// What handing in one of 4 KiB alone took, in nanoseconds.
    fn handed_in_alone(&self) -> f64 {
        match by_caller(self.read, 1) {
            true => 0.0,
            false => self.hand_in,
        }
    }

    /// What 4 KiB take alone, less what it took to hand them in; where completions come together, the latest of a round of
    /// `n`.
    fn latest(&self, alone: &Point, n: u32) -> Latency {
        let one = latency(&quantiles(alone, self.handed_in_alone()));
        match self.completions {
            Completions::Together => one.of_round(n),
            Completions::Each => one,
        }
    }

    /// The median of 4 KiB alone.
    fn median(&self, alone: &Point) -> f64 {
        self.latest(alone, 1).at(500_000).0.max(1) as f64
    }

    /// How long a round of `depth` of 4 KiB waits until its first requests are handed in: those that are plugged together.
    fn handed_in(&self, depth: u32) -> f64 {
        match by_caller(self.read, depth) {
            true => 0.0,
            false => self.hand_in * f64::from(depth.min(PLUG_REQUESTS)),
        }
    }

    /// The point of 4 KiB, or more, alone.
    fn alone(&self, io: u64) -> Option<&'a Point> {
        let step = Requests::random(self.read, io, 1);
        let found = self.points.iter().find(|(_, r)| *r == step);
        found.map(|(p, _)| *p)
    }

    fn small(&self) -> impl Iterator<Item = &(&'a Point, Requests)> {
        self.points.iter().filter(|(_, r)| r.io == 4096)
    }

    /// How many of `depth` requests of so many pieces are in the ring at one time.
    fn inside(&self, depth: u32, pieces: u32) -> u32 {
        let tags = self.front.tags.unwrap_or(depth);
        let ring = match self.front.ring {
            0 => depth,
            ring => ring / (pieces + HEADERS),
        };
        depth.min(tags).min(ring).max(1)
    }

    /// What a round of those of 4 KiB that are in the ring takes beyond one alone, for each of the others: nanoseconds.
    fn gain(&self, point: &Point, depth: u32, alone: &Point) -> f64 {
        let inside = self.inside(depth, 1);
        let round = f64::from(inside) * 1e9 / point.per_s.max(1e-9);
        // Those that wait outside were handed in meanwhile.
        let handed_in = if inside < depth {
            0.0
        } else {
            self.handed_in(depth)
        };
        let others = f64::from(inside - 1).max(1.0);
        let latest = self.latest(alone, inside).mean().0 as f64;
        (round - latest - handed_in).max(0.0) / others
    }

    /// What others add to 4 KiB: (requests under way in all, nanoseconds).
    fn crowd(&self, alone: &Point) -> Vec<(u32, u64)> {
        let mut most = 0;
        let deep = self.small().filter(|(_, r)| r.depth > 1);
        let of = deep.map(|(p, r)| {
            let rounds =
                self.completions == Completions::Together && self.inside(r.depth, 1) < r.depth;
            let added = match rounds {
                true => self.gain(p, r.depth, alone) * f64::from(r.depth - 1),
                false => {
                    let latest = self.latest(alone, r.depth).at(500_000).0 as f64;
                    (p.us(0.5) * 1e3 - latest - self.handed_in(r.depth)).max(0.0)
                }
            };
            most = most.max(added as u64);
            (r.depth, most)
        });
        of.collect()
    }

    /// What one of 4 KiB occupies the disk for, in nanoseconds: of those deep enough, the least. A round that ended sooner
    /// than a request alone tells nothing: no less than a quarter of what each took where they came quickest.
    fn pace(&self, alone: &Point) -> f64 {
        let took = |p: &Point| 1e9 / p.per_s.max(1e-9);
        let quickest = self.small().map(|(p, _)| took(p)).fold(1e9, f64::min);
        let each = self.small().map(|(p, r)| match self.completions {
            Completions::Each => took(p),
            Completions::Together if r.depth >= 8 => self.gain(p, r.depth, alone),
            Completions::Together => f64::INFINITY,
        });
        let least = each.fold(f64::INFINITY, f64::min);
        least.clamp((quickest / 4.0).max(1.0), 1e9)
    }

    /// Of `*_rate` and `*_segment`: nanoseconds a byte, and for each further piece.
    /// `saved`: what one of a sequence costs less.
    fn occupancy(
        &self,
        small: impl Fn(u32) -> f64,
        once: impl Fn(u32) -> f64,
        saved: f64,
    ) -> (f64, f64) {
        let row = |(point, r): &(&Point, Requests)| {
            let alone = self.alone(r.io)?;
            let pieces = r.pieces(self.front.pieces_max);
            let each = match r.depth {
                1 => point.us(0.5) * 1e3,
                _ => 1e9 / point.per_s.max(1e-9),
            };
            // One that has the ring for itself is alone, however many wait.
            let fit = self.inside(r.depth, pieces);
            let singly = fit == 1;
            let pieces = f64::from(pieces - 1);
            if pieces > 0.0 && (r.depth == 1 || singly) {
                return Some(Row {
                    a: 0.0,
                    b: pieces,
                    c: each - alone.us(0.5) * 1e3,
                    whole: each,
                });
            }
            let saturated = r.depth > 1 && point.us(0.5) >= alone.us(0.5) * SATURATED;
            (saturated && r.io > 4096).then(|| Row {
                a: (r.io - 4096) as f64,
                b: pieces,
                c: each
                    - small(r.depth)
                    - (once(fit) + self.hand_in * plugged(r, fit)) / f64::from(fit)
                    + if r.work.sequential { saved } else { 0.0 },
                whole: each,
            })
        };
        let rows: Vec<Row> = self.points.iter().filter_map(row).collect();
        least(&rows)
    }

    /// Of `*_request_rate`: nanoseconds a byte.
    fn further(&self, small: &Point) -> f64 {
        let larger = self
            .points
            .iter()
            .filter(|(_, r)| r.depth == 1 && r.io > 4096 && r.pieces == 1 && !r.work.sequential);
        let rows: Vec<Row> = larger
            .map(|(p, r)| Row {
                a: (r.io - 4096) as f64,
                b: 0.0,
                c: (p.us(0.5) - small.us(0.5)) * 1e3,
                whole: p.us(0.5) * 1e3,
            })
            .collect();
        least(&rows).0
    }
}

/// How many of such requests, of which so many are in the ring, are handed in while the disk has nothing to do.
fn plugged(r: &Requests, inside: u32) -> f64 {
    match r.io < PLUG_BYTES {
        _ if inside < r.depth => 0.0,
        true => f64::from(r.depth.min(PLUG_REQUESTS)),
        false => 1.0,
    }
}

/// What a loop's thread needs to hand in a request of 4 KiB, in nanoseconds.
fn hand_in(points: &[Point], read: bool, completions: Completions) -> f64 {
    let step = Step::Load(Requests::random(read, 4096, 32));
    let point = points.iter().find(|p| p.step == step);
    match completions {
        Completions::Together => point.map_or(0.0, |p| p.cpu_us * 1e3),
        // It is a part of what each takes.
        Completions::Each => 0.0,
    }
}

/// Which of the two kinds gives the medians of 4 KiB.
fn completions(points: &[Point], front: Front) -> Completions {
    let (mut each, mut together) = (0.0, 0.0);
    for read in [true, false] {
        let loads = Loads::of(points, read, front, Completions::Each);
        let Some(alone) = loads.alone(4096) else {
            continue;
        };
        let pace = loads.small().map(|(p, _)| 1e6 / p.per_s.max(1e-9));
        let pace = pace.fold(f64::INFINITY, f64::min);
        for (point, r) in loads.small().filter(|(_, r)| (2..=32).contains(&r.depth)) {
            let (n, us) = (f64::from(r.depth), point.us(0.5).max(1e-3));
            each += (alone.us(0.5).max(n * pace) / us).ln().abs();
            together += ((alone.us(0.5) + (n - 1.0) * pace) / us).ln().abs();
        }
    }
    match together < each {
        true => Completions::Together,
        false => Completions::Each,
    }
}

impl Direction {
    /// From the points of one direction; None when there are none.
    fn of(
        points: &[Point],
        read: bool,
        front: Front,
        completions: Completions,
    ) -> Option<Direction> {
        let loads = Loads::of(points, read, front, completions);
        let alone = loads.alone(4096)?;
        let pace = loads.pace(alone);
        let crowd = loads.crowd(alone);
        let curve = curve(&crowd);
        // What one of 4 KiB costs at a depth, as the model has it.
        let median = loads.median(alone);
        let small = |depth: u32| {
            let others = u64::from(depth - 1);
            let each = match completions {
                Completions::Together => curve.each(others),
                Completions::Each => curve.share(Nanos(median as u64), others).occupies,
            };
            (each.0 as f64).max(pace)
        };
        // What passes once for all that are signalled together.
        let once = |n: u32| match completions {
            Completions::Together => (loads.latest(alone, n).mean().0 as f64 - pace).max(0.0),
            Completions::Each => 0.0,
        };
        // The model has it for writes.
        let saved = match read {
            true => 0.0,
            false => saved_in_sequence(points, read).min(pace),
        };
        let (byte, piece) = loads.occupancy(small, once, saved);
        let slower = slower_beside_copies(points, read);
        let most = loads.points.iter().map(|(p, _)| p.bytes_per_s());
        let quickest = loads.small().map(|(p, _)| p.per_s).fold(1.0, f64::max);
        let depth = loads.small().filter(|(p, _)| p.per_s >= quickest * 0.97);
        Some(Direction {
            quantiles: quantiles(alone, loads.handed_in_alone()),
            request_bytes_per_s: bytes_per_s(loads.further(alone)),
            bytes_per_s: match bytes_per_s(byte) {
                0 => most.fold(1.0, f64::max) as u64,
                n => n,
            },
            bytes_per_s_beside_copies: match slower > 0.0 && byte > 0.0 {
                true => bytes_per_s(byte + slower),
                false => 0,
            },
            segment_ns: piece as u64,
            adjoining_ns: saved as u64,
            iops: ((1e9 / pace) as u64).max(1),
            hand_in_ns: loads.hand_in as u64,
            depth: depth.map(|(_, r)| r.depth).min().unwrap_or(DEPTH_MIN),
            crowd,
        })
    }

    /// How late an idle disk begins, when `pairs` of reads at such a distance still end together.
    fn wake_ns(&self, pairs: &Point) -> u64 {
        ((pairs.us(0.5) * 1e3) as u64).saturating_sub(1_000_000_000 / self.iops)
    }

    /// An idle disk begins no later: that is a part of each latency, and so is what the request occupies the disk for.
    fn wake_max(&self) -> u64 {
        let least = self.quantiles.first().map_or(0, |(_, ns)| *ns);
        least.saturating_sub(1_000_000_000 / self.iops)
    }

    fn nothing() -> Direction {
        Direction {
            quantiles: vec![(500_000, 1_000)],
            crowd: Vec::new(),
            request_bytes_per_s: 0,
            bytes_per_s: 1,
            bytes_per_s_beside_copies: 0,
            segment_ns: 0,
            adjoining_ns: 0,
            iops: 1,
            hand_in_ns: 0,
            depth: DEPTH_MIN,
        }
    }
}

impl Fit {
    /// The parameters that `points` call for. Without writes, writes are taken to cost what reads do.
    pub fn of(points: &[Point], span: u64, front: Front) -> Fit {
        let completions = completions(points, front);
        let direction = |read| Direction::of(points, read, front, completions);
        let read = direction(true).unwrap_or_else(Direction::nothing);
        let write = direction(false);
        let wake = points.iter().find(|p| p.step == Step::Pairs);
        let wake_ns = match completions {
            Completions::Together => wake.map_or(0, |p| {
                let of_writes = write.as_ref().map_or(u64::MAX, Direction::wake_max);
                read.wake_ns(p).min(read.wake_max()).min(of_writes)
            }),
            Completions::Each => 0,
        };
        let flush = |after_writes| {
            let step = Step::Flush { after_writes };
            points.iter().find(|p| p.step == step)
        };
        let (idle, busy) = (flush(false), flush(true));
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
            flush: idle.map_or(vec![(500_000, 1_000)], |p| quantiles(p, 0.0)),
            flush_bytes_per_s,
            writes_measured: write.is_some(),
            write: write.unwrap_or_else(|| read.clone()),
            read,
            completions,
            wake_ns,
            front,
            span,
        }
    }

    pub(super) fn depth(&self) -> u32 {
        let measured = self.read.depth.max(self.write.depth).max(DEPTH_MIN);
        self.front.tags.unwrap_or(measured).min(DEPTH_MAX)
    }

    /// As the lab has it.
    pub(super) fn model(&self) -> Model {
        let rate = Rate::bytes_per_s;
        Model::Ssd(Ssd {
            depth: self.depth() as usize,
            ring: self.front.ring,
            elevator: match self.front.deadline {
                true => Scheduler::Deadline,
                false => Scheduler::None,
            },
            completions: self.completions,
            wake: Nanos(self.wake_ns),
            read: latency(&self.read.quantiles),
            write: latency(&self.write.quantiles),
            read_crowd: curve(&self.read.crowd),
            write_crowd: curve(&self.write.crowd),
            read_request_rate: rate(self.read.request_bytes_per_s),
            write_request_rate: rate(self.write.request_bytes_per_s),
            read_rate: rate(self.read.bytes_per_s),
            write_rate: rate(self.write.bytes_per_s),
            read_rate_beside_copies: rate(self.read.bytes_per_s_beside_copies),
            write_rate_beside_copies: rate(self.write.bytes_per_s_beside_copies),
            read_segment: Nanos(self.read.segment_ns),
            write_segment: Nanos(self.write.segment_ns),
            write_adjoining: Nanos(self.write.adjoining_ns),
            read_iops: self.read.iops,
            write_iops: self.write.iops,
            flush: latency(&self.flush),
            flush_rate: rate(self.flush_bytes_per_s),
        })
    }
}

//! One turn of the workloads that miss, and what it says of the price of each piece of work.
//!
//! CPU time is that of the thread that does the work, over the engine's own counters. What one thread does for several
//! things (for each request, each piece of its memory, each page of it) is solved for from workloads that mix them
//! differently: random writes have 1.2 pages and pieces in a request, a stream 250 pages, in 7 pieces while the cache is
//! new, and in some 90 after random reads have scattered the free frames.

use super::bench::{COLD_PAGES, Cold, Seen};
use crate::cpu;
use crate::error::Result;
use crate::least_squares::{Row, least};
use highwater::Event;
use std::time::Instant;

/// Random reads in a round that miss.
const MISSES: u64 = 8_000;
/// Blocks of frames in a round.
const BLOCKS: usize = 4;

/// CPU of the machine that this process has not had: interrupts and the kernel's own threads, if nothing else runs.
struct Kernel {
    begin: Instant,
    idle_ns: Option<f64>,
    own_ns: u64,
}

impl Kernel {
    fn begin() -> Kernel {
        Kernel {
            begin: Instant::now(),
            idle_ns: cpu::machine_idle_ns(),
            own_ns: cpu::of_threads(""),
        }
    }

    /// Nanoseconds since; 0 where it cannot be known.
    fn since(&self) -> f64 {
        let (Some(before), Some(now)) = (self.idle_ns, cpu::machine_idle_ns()) else {
            return 0.0;
        };
        let elapsed = self.begin.elapsed().as_nanos() as f64;
        let cpus = cpu::count();
        let busy = cpu::busy_ns(elapsed, cpus, now - before);
        (busy - (cpu::of_threads("") - self.own_ns) as f64).max(0.0)
    }
}

/// One turn of the workloads that miss.
pub(super) struct Round {
    misses: Seen,
    /// Into frames that random reads have scattered.
    scattered: Seen,
    /// Into frames in a row, as far as a stream leaves them so.
    stream: Seen,
    writes: Seen,
    /// CPU of the machine that this process has not had, for each request of `writes`.
    pub interrupt: f64,
    blocks: Vec<Seen>,
}

impl Round {
    pub fn new(mut cold: Cold) -> Result<Round> {
        let stream = cold.stream()?;
        let misses = cold.misses(MISSES)?;
        let scattered = cold.stream()?;
        let kernel = Kernel::begin();
        let writes = cold.writes()?;
        let requests = writes.count(Event::WriteRequests).max(1.0);
        let interrupt = kernel.since() / requests;
        let mut blocks = Vec::new();
        for _ in 0..BLOCKS {
            // Memory is in pieces again.
            cold.misses(MISSES / 4)?;
            blocks.push(cold.block()?);
        }
        cold.close()?;
        Ok(Round {
            stream,
            misses,
            scattered,
            writes,
            interrupt,
            blocks,
        })
    }

    /// kswapd's CPU for each page it looks at, its wake-ups with it.
    pub fn scan(&self) -> f64 {
        let rows = [&self.misses, &self.scattered, &self.stream, &self.writes].map(|s| {
            let [direct, all] = s.scanned();
            row(all - direct, 0.0, s.kswapd)
        });
        least(&rows).0
    }

    /// A writer's CPU for each page that was not in memory, beside its copy, the frames it reclaims itself, and what it
    /// takes to wake kswapd.
    pub fn install(&self, write_ns: u64, scan_ns: u64, unpark_ns: u64) -> f64 {
        let s = &self.stream;
        let [direct, _] = s.scanned();
        let wakes = s.count(Event::WakeupKswapd) * unpark_ns as f64;
        let others = (COLD_PAGES * write_ns) as f64 + direct * scan_ns as f64 + wakes;
        (s.own - others) / s.count(Event::Misses).max(1.0)
    }

    /// The flusher's CPU until a request is on its way: for each, each further piece of its memory, and each page.
    pub fn submit(&self) -> [f64; 3] {
        self.flusher(|s| s.flusher - s.reap)
    }

    /// The same for its completion.
    pub fn complete(&self) -> [f64; 3] {
        self.flusher(|s| s.reap)
    }

    fn flusher(&self, of: fn(&Seen) -> f64) -> [f64; 3] {
        let [mut request, mut segment, mut page] = [0.0; 3];
        // The streams tell pieces and pages, random writes the request; each next to nothing of the other.
        for _ in 0..4 {
            let rows = [&self.scattered, &self.stream].map(|s| {
                let [requests, segments, pages] = s.requests();
                let whole = of(s);
                let c = whole - requests * request;
                Row {
                    a: segments - requests,
                    b: pages,
                    c,
                    whole,
                }
            });
            (segment, page) = least(&rows);
            let [requests, segments, pages] = self.writes.requests();
            let others = (segments - requests) * segment + pages * page;
            request = ((of(&self.writes) - others) / requests.max(1.0)).max(0.0);
        }
        [request, segment, page]
    }

    /// The caller's CPU for each page that moves.
    pub fn moving(&self, scan_ns: u64) -> f64 {
        let sum = |f: &dyn Fn(&Seen) -> f64| self.blocks.iter().map(f).sum::<f64>();
        let scanned = sum(&|s| s.count(Event::PgscanDirect));
        let moved = sum(&|s| s.count(Event::PgmigrateSuccess));
        (sum(&|s| s.own) - scanned * scan_ns as f64) / moved.max(1.0)
    }

    /// What a slow allocation takes beside its scan, its sleeps with it.
    pub fn alloc_slow(&self, scan_ns: u64) -> f64 {
        let all = [&self.misses, &self.stream, &self.scattered];
        let sum = |f: &dyn Fn(&Seen) -> f64| all.iter().map(|s| f(s)).sum::<f64>();
        let scanned = sum(&|s| s.scanned()[0]);
        let ns = sum(&|s| s.count(Event::AllocStallNs));
        (ns - scanned * scan_ns as f64) / sum(&|s| s.count(Event::Allocstall)).max(1.0)
    }
}

fn row(a: f64, b: f64, c: f64) -> Row {
    let whole = c;
    Row { a, b, c, whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flusher's round: requests, pieces of memory, pages, and its CPU.
    fn seen([requests, segments, pages]: [u64; 3], flusher: f64) -> Seen {
        let mut seen = Seen::default();
        seen.set(Event::WriteRequests, requests);
        seen.set(Event::WriteSegments, segments);
        seen.set(Event::WrittenFlusher, pages);
        seen.flusher = flusher;
        seen
    }

    #[test]
    fn requests_pieces_and_pages_are_told_apart() {
        let of = |n: [u64; 3]| {
            let [requests, segments, pages] = n.map(|n| n as f64);
            let cpu = 3_000.0 * requests + 250.0 * (segments - requests) + 130.0 * pages;
            seen(n, cpu + 2e6)
        };
        let mut round = Round {
            stream: of([248, 1_636, 63_488]),
            scattered: of([245, 21_603, 62_720]),
            writes: of([18_448, 22_498, 22_612]),
            misses: Seen::default(),
            interrupt: 0.0,
            blocks: Vec::new(),
        };
        let rounds = [&mut round.stream, &mut round.scattered, &mut round.writes];
        rounds.into_iter().for_each(|s| s.reap = 2e6);
        let near = |got: [f64; 3], want: [f64; 3]| {
            let off = got.iter().zip(want).map(|(g, w)| (g - w).abs() / w);
            assert!(off.fold(0.0, f64::max) < 0.02, "{got:?}");
        };
        near(round.submit(), [3_000.0, 250.0, 130.0]);
        // Nothing that is not there: no more than all of it, and never less than nothing.
        round.writes.flusher = 0.0;
        assert!(round.submit().iter().all(|ns| *ns >= 0.0));
    }

    #[test]
    fn kswapd_is_paid_for_both_lists() {
        let mut seen = Seen::default();
        seen.set(Event::PgscanDirect, 25);
        seen.set(Event::PgscanKswapd, 75);
        seen.set(Event::Pgrefill, 100);
        assert_eq!(seen.scanned(), [50.0, 200.0]);
        assert_eq!(Seen::default().scanned(), [0.0, 0.0]);
    }
}

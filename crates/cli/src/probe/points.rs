//! What is measured, and how: one point after the other.

use super::copies;
use crate::affinity::{allowed, bind};
use crate::cpu::of_this_thread;
use crate::raw::{Job, Region, Work, nearest, pairs, work};
use serde::{Serialize, Serializer};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const KIB: u64 = 1 << 10;
/// What each CPU is given, at least, to show whether it is the nearest.
const NEAREST_EACH: Duration = Duration::from_millis(30);
/// No two pages adjoin in memory.
const SCATTERED: u32 = u32::MAX;
/// So many pieces has a MiB of a cache that has worked for a while.
const CACHE: u32 = 40;
/// Bytes written before a flush of [`Step::Flush`].
pub const FLUSH_BYTES: u64 = 4 << 20;

/// One thing to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A closed loop of one kind of request.
    Load(Requests),
    /// Reads of 4 KiB, one at a time, while these writes are in flight.
    Mixed(Requests),
    /// A closed loop, while a CPU copies memory.
    Copies(Requests),
    /// Two reads of 4 KiB at a distance: the longest at which they end together.
    Pairs,
    /// Flushes; `after_writes`: each after `FLUSH_BYTES` of writes.
    Flush { after_writes: bool },
}

/// One kind of request, and how many at one time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Requests {
    pub work: Work,
    /// Bytes of one.
    pub io: u64,
    pub depth: u32,
    /// Pieces of memory that it consists of, if a disk takes so many and it has so many pages.
    pub pieces: u32,
}

impl Requests {
    /// Of one piece of memory, at random.
    pub const fn random(read: bool, io: u64, depth: u32) -> Requests {
        Requests {
            work: Work {
                read,
                sequential: false,
            },
            io,
            depth,
            pieces: 1,
        }
    }

    /// Large ones in sequence.
    pub const fn stream(read: bool) -> Requests {
        Requests {
            work: Work {
                read,
                sequential: true,
            },
            io: 1 << 20,
            depth: 8,
            pieces: 1,
        }
    }

    /// Smaller ones in sequence, and the same at random.
    pub const fn adjoining(read: bool) -> [Requests; 2] {
        let random = Requests::random(read, 128 * KIB, 4);
        let sequence = Requests {
            work: Work {
                read,
                sequential: true,
            },
            ..random
        };
        [sequence, random]
    }

    /// How many pieces of memory one is, when a disk takes `most`.
    pub fn pieces(&self, most: u32) -> u32 {
        self.pieces.min(most).min((self.io / 4096) as u32)
    }

    fn name(&self) -> String {
        let op = if self.work.read { "read" } else { "write" };
        let order = match (self.work.sequential, self.pieces) {
            (true, _) => " in sequence".into(),
            (false, SCATTERED) => " scattered".into(),
            (false, 1) => String::new(),
            (false, pieces) => format!(" in {pieces} pieces"),
        };
        format!("{op} {}K x{}{order}", self.io / KIB, self.depth)
    }
}

impl Step {
    /// As in the table: `read 4K x32`.
    pub fn name(&self) -> String {
        match self {
            Step::Load(requests) => requests.name(),
            Step::Mixed(beside) => format!("read 4K x1 beside {}", beside.name()),
            Step::Copies(requests) => format!("{}, beside copies", requests.name()),
            Step::Pairs => "read 4K x2 together, from".into(),
            Step::Flush {
                after_writes: false,
            } => "flush, idle".into(),
            Step::Flush { after_writes: true } => {
                format!("flush of {} MiB", FLUSH_BYTES >> 20)
            }
        }
    }

    /// True when it writes to the device.
    pub fn writes(&self) -> bool {
        match self {
            Step::Load(requests) | Step::Copies(requests) => !requests.work.read,
            Step::Mixed(_) | Step::Flush { .. } => true,
            Step::Pairs => false,
        }
    }

    /// How much of the time it takes: what the profile's distributions come from takes more.
    fn weight(&self) -> f64 {
        match self {
            Step::Load(Requests {
                io: 4096, depth: 1, ..
            }) => 4.0,
            Step::Mixed(_) => 2.0,
            Step::Load(Requests { depth: 128.., .. }) => 0.7,
            _ => 1.0,
        }
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.name())
    }
}

/// Everything that is measured; without `writes` only what reads.
pub fn steps(writes: bool) -> Vec<Step> {
    let copies = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
    let mut steps = Vec::new();
    for read in [true, false] {
        let load = |io, depth| Requests::random(read, io * KIB, depth);
        let mut add = |requests| steps.push(Step::Load(requests));
        for depth in [1, 2, 4, 8, 16, 32, 64, 128, 256] {
            add(load(4, depth));
        }
        for depth in [1, 32] {
            for kib in [16, 64, 256, 1024] {
                add(load(kib, depth));
            }
        }
        for (kib, depth, pieces) in [
            (1024, 1, SCATTERED),
            (64, 32, SCATTERED),
            (1024, 32, CACHE),
            (1024, 32, SCATTERED),
        ] {
            add(Requests {
                pieces,
                ..load(kib, depth)
            });
        }
        let [sequence, random] = Requests::adjoining(read);
        add(sequence);
        add(random);
        add(Requests::stream(read));
        // With one CPU, whoever copies keeps the requests from being made.
        if copies {
            steps.push(Step::Copies(Requests::stream(read)));
        }
    }
    let large = Requests::random(false, 1024 * KIB, 8);
    let scattered = Requests {
        pieces: SCATTERED,
        ..large
    };
    let small = Requests::random(false, 4 * KIB, 16);
    steps.extend([small, large, scattered].map(Step::Mixed));
    steps.push(Step::Pairs);
    steps.extend([false, true].map(|after_writes| Step::Flush { after_writes }));
    steps.retain(|s| writes || !s.writes());
    steps
}

/// How many times a point's time all of them take.
pub fn weight(steps: &[Step]) -> f64 {
    steps.iter().map(Step::weight).sum()
}

/// A point that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// What it was.
    #[serde(rename = "point")]
    pub step: Step,
    /// Requests a second.
    pub per_s: f64,
    /// How many; of several rounds, in one.
    pub count: u64,
    /// Their mean, in microseconds.
    pub mean_us: f64,
    /// (per million, microseconds).
    pub quantiles_us: Vec<(u32, f64)>,
    /// Bytes of the device in which they were.
    pub span: u64,
    /// Bytes a second that a CPU copied beside it.
    pub copied_per_s: f64,
    /// CPU of the thread that asked, for each request; of a closed loop of one thread.
    pub cpu_us: f64,
}

/// The quantiles that are kept, per million: close in the tail, for the lab draws straight lines between them.
const QUANTILES: [u32; 18] = [
    0, 10_000, 50_000, 100_000, 250_000, 500_000, 750_000, 900_000, 950_000, 970_000, 980_000,
    990_000, 995_000, 998_000, 999_000, 999_500, 999_900, 1_000_000,
];

impl Point {
    /// The quantile `q` from 0 to 1, in microseconds; one of those kept.
    pub fn us(&self, q: f64) -> f64 {
        let ppm = (q * 1e6).round() as u32;
        let of = self.quantiles_us.iter().find(|p| p.0 >= ppm);
        of.map_or(0.0, |p| p.1)
    }

    /// Bytes a second.
    pub fn bytes_per_s(&self) -> f64 {
        match self.step {
            Step::Load(requests) | Step::Copies(requests) => self.per_s * requests.io as f64,
            Step::Mixed(_) => self.per_s * 4096.0,
            Step::Pairs | Step::Flush { .. } => 0.0,
        }
    }
}

type Histogram = hdrhistogram::Histogram<u64>;

/// A device under measurement.
pub struct Probe<'a> {
    file: &'a File,
    len: u64,
    each: Duration,
    pieces_max: u32,
    region: Region,
    /// Where the disk's interrupts come, and whoever asks for one thing at a time runs.
    near: Vec<usize>,
    /// The other CPUs, if there are any; else that one.
    far: Vec<usize>,
}

impl Probe<'_> {
    /// Measures the first `len` bytes of `file`, whose disk takes requests of `pieces_max` pieces of memory; a point of
    /// weight 1 takes `each`.
    ///
    /// # Errors
    /// When there is no memory for requests, or the device answers with an error.
    pub fn new(
        file: &File,
        len: u64,
        each: Duration,
        pieces_max: u32,
    ) -> std::io::Result<Probe<'_>> {
        let region = Region::new()?;
        let near = nearest(file, len, &region, each.max(NEAREST_EACH))?.cpu;
        let mut far: Vec<usize> = allowed().into_iter().filter(|&cpu| cpu != near).collect();
        if far.is_empty() {
            far.push(near);
        }
        Ok(Probe {
            file,
            len,
            each,
            pieces_max,
            region,
            near: vec![near],
            far,
        })
    }

    /// Measures one point.
    ///
    /// # Errors
    /// What the device answers.
    pub fn measure(&self, step: &Step) -> std::io::Result<Point> {
        let duration = self.each.mul_f64(step.weight());
        let cpu = of_this_thread();
        let mut copied_per_s = 0.0;
        let (latency, seconds) = match *step {
            Step::Load(requests) => work(&self.job(&requests, duration), self.file, &self.region)?,
            Step::Mixed(beside) => self.mixed(&beside, duration)?,
            Step::Copies(requests) => {
                let job = self.job(&requests, duration);
                let (done, copied) =
                    copies::beside(&self.far, || work(&job, self.file, &self.region));
                copied_per_s = copied;
                done?
            }
            Step::Pairs => self.pairs(duration)?,
            Step::Flush { after_writes } => self.flushes(after_writes, duration)?,
        };
        let cpu = (of_this_thread() - cpu) as f64;
        let us = |ppm: u32| {
            let ns = latency.value_at_quantile(f64::from(ppm) / 1e6);
            // The histogram's buckets are 0.1 % wide: neither below the least nor above the most.
            ns.clamp(latency.min(), latency.max()) as f64 / 1e3
        };
        let mut quantiles_us: Vec<_> = QUANTILES.map(|ppm| (ppm, us(ppm))).into();
        quantiles_us[0].1 = latency.min() as f64 / 1e3;
        Ok(Point {
            step: *step,
            per_s: latency.len() as f64 / seconds.max(1e-9),
            count: latency.len(),
            mean_us: latency.mean() / 1e3,
            quantiles_us,
            span: self.len,
            copied_per_s,
            cpu_us: cpu / latency.len().max(1) as f64 / 1e3,
        })
    }

    fn job(&self, requests: &Requests, duration: Duration) -> Job {
        Job {
            path: PathBuf::new(),
            start: 0,
            len: self.len,
            io: requests.io,
            depth: requests.depth,
            duration,
            work: requests.work,
            pieces: requests.pieces(self.pieces_max),
            cpus: self.near.clone(),
        }
    }

    fn mixed(&self, beside: &Requests, duration: Duration) -> std::io::Result<(Histogram, f64)> {
        // The writes begin before the reads and end after them.
        let margin = duration / 10;
        let writes = Job {
            cpus: self.far.clone(),
            ..self.job(beside, duration + margin * 2)
        };
        let reads = self.job(&Requests::random(true, 4096, 1), duration);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| work(&writes, self.file, &self.region));
            std::thread::sleep(margin);
            let reads = work(&reads, self.file, &self.region);
            let failed = || std::io::Error::other("the writing thread panicked");
            writer.join().map_err(|_| failed())??;
            reads
        })
    }

    /// One distance, as that of each pair.
    fn pairs(&self, duration: Duration) -> std::io::Result<(Histogram, f64)> {
        let job = self.job(&Requests::random(true, 4096, 2), duration);
        let begin = Instant::now();
        let found = pairs(&job, self.file, &self.region)?;
        let mut distance =
            Histogram::new_with_bounds(1, 600_000_000_000, 3).map_err(std::io::Error::other)?;
        if let Some((longest, n)) = found {
            let ns = (longest.as_nanos() as u64).max(1);
            distance.record_n(ns, n).map_err(std::io::Error::other)?;
        }
        Ok((distance, begin.elapsed().as_secs_f64()))
    }

    fn flushes(&self, after_writes: bool, duration: Duration) -> std::io::Result<(Histogram, f64)> {
        let _bound = bind(&self.near);
        let bounds = Histogram::new_with_bounds(1, 600_000_000_000, 3);
        let mut latency = bounds.map_err(std::io::Error::other)?;
        let mut space = vec![0xC3u8; (FLUSH_BYTES + 4096) as usize];
        let buf = crate::place::aligned(&mut space, FLUSH_BYTES as usize);
        let places = (self.len / FLUSH_BYTES).max(1);
        self.file.sync_data()?;
        let (begin, mut seconds, mut n) = (Instant::now(), 0.0, 0);
        while n < 3 || begin.elapsed() < duration {
            if after_writes {
                let offset = n % places * FLUSH_BYTES;
                for chunk in 0..FLUSH_BYTES / (1 << 20) {
                    let at = (chunk << 20) as usize;
                    let piece = &buf[at..at + (1 << 20)];
                    self.file.write_all_at(piece, offset + (chunk << 20))?;
                }
            }
            let at = Instant::now();
            self.file.sync_data()?;
            let took = at.elapsed();
            latency.saturating_record(took.as_nanos() as u64);
            seconds += took.as_secs_f64();
            n += 1;
        }
        Ok((latency, seconds))
    }
}

//! The device's own bound: `O_DIRECT` requests at a queue depth, by io_uring, or by a thread for each request where
//! io_uring is forbidden. A reader that is alone calls `preadv`, as misses of the cache do.
//!
//! Each request in flight has memory of its own, as far as [`Region`] goes, on huge pages where there are any: what a disk's
//! driver does for a request depends on the pieces of memory that it consists of. The next request takes the memory that was
//! used longest ago, as a cache's does: what a CPU's cache still holds moves more quickly than memory does.
#![allow(unsafe_code)]

mod memory;
mod nearest;
mod pairs;

pub use memory::Region;
pub use nearest::nearest;
pub use pairs::pairs;

use crate::affinity::bind;
use crate::error::{CliError, Result};
use crate::measure::percentiles;
use crate::plan::Plan;
use crate::report::{ArmReport, Latency, TaskReport};
use crate::rng::Rng;
use hdrhistogram::Histogram;
use io_uring::{IoUring, opcode, types};
use memory::{Memory, Part};
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What to read or write.
#[derive(Clone, Debug)]
pub struct Job {
    /// A file or block device.
    pub path: PathBuf,
    /// The first byte.
    pub start: u64,
    /// Bytes from there.
    pub len: u64,
    /// Bytes of one write, a multiple of 4 KiB.
    pub io: u64,
    /// Writes in flight.
    pub depth: u32,
    /// For how long.
    pub duration: Duration,
    /// What, and in which order.
    pub work: Work,
    /// Pieces of memory of one request that do not adjoin; at most one for each 4 KiB.
    pub pieces: u32,
    /// Where a job of one thread runs; none: anywhere.
    pub cpus: Vec<usize>,
}

/// What a job does, and in which order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// Reads; else writes.
    pub read: bool,
    /// From the start to the end and again; else at random.
    pub sequential: bool,
}

/// Chooses where requests go.
struct Places {
    rng: Rng,
    next: u64,
    sequential: bool,
}

impl Places {
    fn new(job: &Job, seed: u64, stream: u64) -> Places {
        Places {
            rng: Rng::new(seed, stream),
            next: 0,
            sequential: job.work.sequential,
        }
    }

    fn offset(&mut self, job: &Job) -> u64 {
        let places = (job.len / job.io).max(1);
        let place = if self.sequential {
            self.next += 1;
            (self.next - 1) % places
        } else {
            self.rng.below(places)
        };
        job.start + place * job.io
    }
}

/// What was written.
pub struct Done {
    /// Latency in nanoseconds.
    pub latency: Histogram<u64>,
    /// Seconds, the last completion included.
    pub seconds: f64,
    /// Seconds of the flush at the end.
    pub sync_s: f64,
}

impl Done {
    /// Writes a second.
    pub fn ops_per_s(&self) -> f64 {
        self.latency.len() as f64 / self.seconds.max(1e-9)
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("bounds of a histogram")
}

/// Runs the job.
///
/// # Errors
/// When `O_DIRECT` is refused, or a write fails.
pub fn random(job: &Job) -> Result<Done> {
    let remedy = "--dir with a disk whose file system has O_DIRECT (not tmpfs)";
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&job.path)
        .map_err(|e| CliError::os(format!("O_DIRECT {}", job.path.display()), e, remedy))?;
    let region = Region::of(job).map_err(|e| CliError::os("memory for requests", e, remedy))?;
    let (latency, seconds) = work(job, &file, &region).map_err(|e| {
        CliError::os(
            format!("O_DIRECT write of {}", job.path.display()),
            e,
            remedy,
        )
    })?;
    let synced = Instant::now();
    file.sync_data()
        .map_err(|e| CliError::os(format!("fdatasync {}", job.path.display()), e, remedy))?;
    Ok(Done {
        latency,
        seconds,
        sync_s: synced.elapsed().as_secs_f64(),
    })
}

/// Runs the job on `file`, which is open for it, with requests from `region`: each request's nanoseconds, and the seconds of
/// all.
///
/// # Errors
/// What the device answers.
pub fn work(job: &Job, file: &File, region: &Region) -> std::io::Result<(Histogram<u64>, f64)> {
    let ring = match by_caller(job.work.read, job.depth) {
        true => None,
        false => IoUring::new(job.depth.next_power_of_two()).ok(),
    };
    let single = ring.is_some() || job.depth == 1;
    let _bound = single.then(|| bind(&job.cpus));
    let begin = Instant::now();
    let latency = match ring {
        Some(ring) => by_ring(job, file, region, ring)?,
        None => by_threads(job, file, region)?,
    };
    Ok((latency, begin.elapsed().as_secs_f64()))
}

/// Is each request made by a thread that waits for it in its system call?
pub fn by_caller(read: bool, depth: u32) -> bool {
    read && depth == 1
}

fn by_ring(
    job: &Job,
    file: &File,
    region: &Region,
    mut ring: IoUring,
) -> std::io::Result<Histogram<u64>> {
    let mut latency = histogram();
    let memory = Memory::new(job, region, Part::ALL);
    let mut unused: VecDeque<usize> = (0..memory.pieces.len()).collect();
    let mut places = Places::new(job, u64::from(job.depth), 3);
    let begin = Instant::now();
    let mut started = vec![(begin, 0); job.depth as usize];
    let mut idle: Vec<u32> = (0..job.depth).collect();
    let mut in_flight = 0;
    let mut failed = None;
    loop {
        let open = begin.elapsed() < job.duration && failed.is_none();
        while open && let Some(slot) = idle.pop() {
            let used = unused.pop_front().expect("memory for each request");
            started[slot as usize] = (Instant::now(), used);
            let offset = places.offset(job);
            let pieces = &memory.pieces[used];
            let (fd, at, n) = (
                types::Fd(file.as_raw_fd()),
                pieces.as_ptr(),
                pieces.len() as u32,
            );
            let entry = if job.work.read {
                opcode::Readv::new(fd, at, n).offset(offset).build()
            } else {
                opcode::Writev::new(fd, at, n).offset(offset).build()
            };
            let entry = entry.user_data(u64::from(slot));
            // SAFETY: the region and `file` outlive every request: the loop ends only when none is in flight. Nobody but
            // the kernel touches the region meanwhile; what reads leave there nobody looks at. The ring has room for
            // `depth` entries.
            unsafe { ring.submission().push(&entry) }.expect("a ring of at least `depth` entries");
            in_flight += 1;
        }
        if in_flight == 0 {
            break;
        }
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
                ) => {}
            // Requests may be in flight, and their memory must outlive them: nobody may unmap it.
            Err(e) => {
                region.keep();
                return Err(e);
            }
        }
        let now = Instant::now();
        for done in ring.completion() {
            in_flight -= 1;
            let slot = done.user_data() as u32;
            idle.push(slot);
            let (at, used) = started[slot as usize];
            unused.push_back(used);
            if done.result() < 0 {
                failed = Some(std::io::Error::from_raw_os_error(-done.result()));
            } else if done.result() as usize != memory.bytes(used) {
                failed = Some(std::io::ErrorKind::UnexpectedEof.into());
            } else {
                latency.saturating_record((now - at).as_nanos() as u64);
            }
        }
    }
    failed.map_or(Ok(latency), Err)
}

fn by_threads(job: &Job, file: &File, region: &Region) -> std::io::Result<Histogram<u64>> {
    let begin = Instant::now();
    let one = |thread: u32| -> std::io::Result<Histogram<u64>> {
        let mut latency = histogram();
        let mut places = Places::new(job, u64::from(thread), 4);
        let part = Part {
            first: thread as usize,
            of: job.depth as usize,
        };
        let memory = Memory::new(job, region, part);
        let mut unused = (0..memory.pieces.len()).cycle();
        while begin.elapsed() < job.duration {
            let used = unused.next().expect("memory for each thread");
            let at = Instant::now();
            memory.transfer(used, job.work.read, file, places.offset(job))?;
            latency.saturating_record(at.elapsed().as_nanos() as u64);
        }
        Ok(latency)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..job.depth)
            .map(|t| scope.spawn(move || one(t)))
            .collect();
        let mut all = histogram();
        for thread in threads {
            let part = thread
                .join()
                .map_err(|_| std::io::Error::other("a writing thread panicked"))??;
            all.add(&part).expect("histograms of the same bounds");
        }
        Ok(all)
    })
}

/// Runs a `raw` arm: the plan's first written file, at the arm's depth.
///
/// # Errors
/// As [`random`].
pub fn run(plan: &Plan) -> Result<ArmReport> {
    let task = plan.tasks.iter().find(|t| t.kind.writes());
    let Some(task) = task else {
        return Err(CliError::usage(
            "--raw needs a scenario with a writer",
            "highwater run random-write --raw",
        ));
    };
    let file = &plan.files[task.file];
    let job = Job {
        path: file.path.clone(),
        start: file.start,
        len: file.len,
        io: task.io.next_multiple_of(4096),
        depth: plan.arm.depth,
        duration: Duration::from_nanos(plan.duration_ns),
        work: Work::default(),
        pieces: 1,
        cpus: Vec::new(),
    };
    let done = random(&job)?;
    let us = |q: f64| done.latency.value_at_quantile(q) as f64 / 1e3;
    let ops = done.latency.len();
    let ops_per_s = done.ops_per_s();
    Ok(ArmReport {
        world: "raw".into(),
        preset: plan.arm.label.clone(),
        tasks: vec![TaskReport {
            name: task.name.clone(),
            ops,
            ops_per_s,
            bytes_per_s: ops_per_s * job.io as f64,
            latency_us: Latency {
                p50: us(0.5),
                p99: us(0.99),
                p999: us(0.999),
                p9999: us(0.9999),
                max: done.latency.max() as f64 / 1e3,
            },
            percentiles: Some(percentiles(&done.latency)),
            replay: None,
            blocks: None,
        }],
        ops_per_s,
        ops_per_s_with_sync: ops as f64 / (done.seconds + done.sync_s),
        write_kib_mean: Some(job.io as f64 / 1024.0),
        ..ArmReport::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_and_threads_write_within_the_range() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let path = dir.path().join("f");
        crate::place::lay_out(&path, 1 << 20, false).unwrap();
        let job = Job {
            path: path.clone(),
            start: 0,
            len: 1 << 20,
            io: 4096,
            depth: 4,
            duration: Duration::from_millis(50),
            work: Work::default(),
            pieces: 1,
            cpus: Vec::new(),
        };
        let done = match random(&job) {
            Ok(done) => done,
            Err(e) => {
                eprintln!("skipped: {e}");
                return;
            }
        };
        assert!(!done.latency.is_empty());
        let file = std::fs::OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path)
            .unwrap();
        let region = Region::new().unwrap();
        assert!(!by_threads(&job, &file, &region).unwrap().is_empty());
        for depth in [1, 4] {
            let job = Job {
                depth,
                work: Work {
                    read: true,
                    sequential: true,
                },
                ..job.clone()
            };
            let file = std::fs::File::open(&path).unwrap();
            assert!(!work(&job, &file, &region).unwrap().0.is_empty());
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
    }
}

//! The device's own bound: `O_DIRECT` requests at a queue depth, by io_uring, or by a thread for each request where
//! io_uring is forbidden. A single reader calls `preadv`, as a miss of the cache does.
//!
//! Each request in flight has memory of its own, as far as [`MEMORY_MAX`] goes, on huge pages where there are any: what a
//! disk's driver does for a request depends on the pieces of memory that it consists of.
#![allow(unsafe_code)]

use crate::error::{CliError, Result};
use crate::measure::percentiles;
use crate::plan::Plan;
use crate::report::{ArmReport, Latency, TaskReport};
use crate::rng::Rng;
use hdrhistogram::Histogram;
use io_uring::{IoUring, opcode, types};
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
    let (latency, seconds) = work(job, &file).map_err(|e| {
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

/// Runs the job on `file`, which is open for it: each request's nanoseconds, and the seconds of all.
///
/// # Errors
/// What the device answers.
pub fn work(job: &Job, file: &File) -> std::io::Result<(Histogram<u64>, f64)> {
    let begin = Instant::now();
    let alone = job.work.read && job.depth == 1;
    let ring = if alone {
        None
    } else {
        IoUring::new(job.depth.next_power_of_two()).ok()
    };
    let latency = match ring {
        Some(ring) => by_ring(job, file, ring)?,
        None => by_threads(job, file)?,
    };
    Ok((latency, begin.elapsed().as_secs_f64()))
}

/// The most memory of a job's requests.
const MEMORY_MAX: usize = 64 << 20;
const HUGE: usize = 2 << 20;
const PAGE: usize = 4096;

/// What the requests of a job read into and write from: one mapping on huge pages, and the pieces of each slot there.
struct Memory {
    start: *mut libc::c_void,
    len: usize,
    /// Of each slot.
    pieces: Vec<Vec<libc::iovec>>,
}

impl Memory {
    /// For `job`: a slot's pieces are pages with a page between them, but for the first, which is what is left.
    fn new(job: &Job) -> std::io::Result<Memory> {
        let pages = (job.io as usize).div_ceil(PAGE).max(1);
        let pieces = (job.pieces.max(1) as usize).min(pages);
        let first = pages - (pieces - 1);
        // With the gaps; a slot in one piece lies in one huge page.
        let slot = match pieces {
            1 => pages * PAGE,
            _ => (pages + pieces) * PAGE,
        };
        let wanted = (slot * job.depth as usize).min(MEMORY_MAX.max(slot));
        let len = wanted.next_multiple_of(HUGE) + HUGE;
        // SAFETY: a new private mapping, of nobody's memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let aligned = start.cast::<u8>().wrapping_add(start.align_offset(HUGE));
        let usable = len - HUGE;
        // SAFETY: `usable` bytes from `aligned` lie in the mapping, which nobody else knows. Whether there are huge pages
        // is the kernel's choice: without, the answer does not matter.
        unsafe {
            libc::madvise(aligned.cast(), usable, libc::MADV_HUGEPAGE);
            aligned.write_bytes(0xC3, usable);
        }
        let slots = (usable / slot).max(1);
        let of = |i: usize| {
            let base = aligned.wrapping_add(i % slots * slot);
            let piece = |k: usize| libc::iovec {
                iov_base: match k {
                    0 => base.cast(),
                    _ => base.wrapping_add((first + 2 * k - 1) * PAGE).cast(),
                },
                iov_len: if k == 0 { first * PAGE } else { PAGE },
            };
            (0..pieces).map(piece).collect()
        };
        Ok(Memory {
            start,
            len,
            pieces: (0..job.depth as usize).map(of).collect(),
        })
    }

    /// One request in the caller's time.
    fn transfer(&self, slot: usize, read: bool, file: &File, offset: u64) -> std::io::Result<()> {
        let pieces = &self.pieces[slot];
        let (fd, at, n) = (file.as_raw_fd(), pieces.as_ptr(), pieces.len() as i32);
        // SAFETY: the pieces lie in the mapping, which outlives the call; nobody looks at what requests leave there.
        let done = unsafe {
            match read {
                true => libc::preadv(fd, at, n, offset as i64),
                false => libc::pwritev(fd, at, n, offset as i64),
            }
        };
        match done {
            n if n < 0 => Err(std::io::Error::last_os_error()),
            n if n as usize == self.bytes(slot) => Ok(()),
            _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn bytes(&self, slot: usize) -> usize {
        self.pieces[slot].iter().map(|p| p.iov_len).sum()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, in which no request is in flight any more.
        unsafe { libc::munmap(self.start, self.len) };
    }
}

fn by_ring(job: &Job, file: &File, mut ring: IoUring) -> std::io::Result<Histogram<u64>> {
    let mut latency = histogram();
    let memory = Memory::new(job)?;
    let mut places = Places::new(job, u64::from(job.depth), 3);
    let begin = Instant::now();
    let mut started = vec![begin; job.depth as usize];
    let mut idle: Vec<u32> = (0..job.depth).collect();
    let mut in_flight = 0;
    let mut failed = None;
    loop {
        let open = begin.elapsed() < job.duration && failed.is_none();
        while open && let Some(slot) = idle.pop() {
            started[slot as usize] = Instant::now();
            let offset = places.offset(job);
            let pieces = &memory.pieces[slot as usize];
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
            // SAFETY: `memory` and `file` outlive every request: the loop ends only when none is in flight. Nobody but the
            // kernel touches the memory meanwhile; what reads leave there nobody looks at. The ring has room for `depth`
            // entries.
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
            // Requests may be in flight, and their memory must outlive them: nothing after this line may free it.
            Err(e) => {
                std::mem::forget(memory);
                return Err(e);
            }
        }
        let now = Instant::now();
        for done in ring.completion() {
            in_flight -= 1;
            let slot = done.user_data() as u32;
            idle.push(slot);
            if done.result() < 0 {
                failed = Some(std::io::Error::from_raw_os_error(-done.result()));
            } else if done.result() as usize != memory.bytes(slot as usize) {
                failed = Some(std::io::ErrorKind::UnexpectedEof.into());
            } else {
                latency.saturating_record((now - started[slot as usize]).as_nanos() as u64);
            }
        }
    }
    failed.map_or(Ok(latency), Err)
}

fn by_threads(job: &Job, file: &File) -> std::io::Result<Histogram<u64>> {
    let begin = Instant::now();
    let one = |thread: u32| -> std::io::Result<Histogram<u64>> {
        let mut latency = histogram();
        let mut places = Places::new(job, u64::from(thread), 4);
        let memory = Memory::new(&Job {
            depth: 1,
            ..job.clone()
        })?;
        while begin.elapsed() < job.duration {
            let at = Instant::now();
            memory.transfer(0, job.work.read, file, places.offset(job))?;
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
    fn pieces_are_the_request_and_do_not_adjoin() {
        let memory = |io, pieces, depth| {
            Memory::new(&Job {
                path: PathBuf::new(),
                start: 0,
                len: 1 << 30,
                io,
                depth,
                duration: Duration::ZERO,
                work: Work::default(),
                pieces,
            })
            .unwrap()
        };
        for (io, pieces, want) in [
            (4096, 1, 1),
            (1 << 20, 1, 1),
            (64 << 10, 99, 16),
            (1 << 20, 254, 254),
        ] {
            let m = memory(io, pieces, 3);
            for slot in 0..3 {
                assert_eq!((m.pieces[slot].len(), m.bytes(slot)), (want, io as usize));
            }
            let mut all: Vec<(usize, usize)> = m.pieces.iter().flatten().map(range).collect();
            all.sort_unstable();
            let apart = |w: &[(usize, usize)]| w[0].1 < w[1].0 || want == 1 && w[0].1 <= w[1].0;
            assert!(all.windows(2).all(apart), "{io} {pieces}");
            let (start, end) = (m.start as usize, m.start as usize + m.len);
            assert!(all[0].0 >= start && all[all.len() - 1].1 <= end);
        }
        // More than there may be: slots share.
        let m = memory(1 << 20, 1, 256);
        assert!(m.len <= MEMORY_MAX + 2 * HUGE);
        assert_eq!(range(&m.pieces[0][0]), range(&m.pieces[64][0]));
    }

    fn range(piece: &libc::iovec) -> (usize, usize) {
        let start = piece.iov_base as usize;
        (start, start + piece.iov_len)
    }

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
        assert!(!by_threads(&job, &file).unwrap().is_empty());
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
            assert!(!work(&job, &file).unwrap().0.is_empty());
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
    }
}

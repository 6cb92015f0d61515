//! Two reads, the second begun a little after the first: up to which distance the disk serves and signals them together.
//!
//! A disk whose host sleeps begins late, and serves whoever came meanwhile in the same round. From outside that is how long
//! after the first request another one may come and still end with it, in the middle of the first one's latency.
#![allow(unsafe_code)]

use super::memory::{Memory, Part};
use super::{Job, Places, Region};
use crate::affinity::bind;
use io_uring::{IoUring, opcode, types};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Distances that are tried, from nothing to a read's latency alone.
const DISTANCES: u32 = 16;
/// Ends that are no further apart were signalled together: a waiter may have seen the first before the second was there.
const TOGETHER: Duration = Duration::from_micros(4);
/// Reads alone before that.
const ALONE: usize = 64;

/// The longest distance at which half of the pairs end together, and how many pairs there were; none where there is no
/// io_uring. `job`: reads of which two at one time have memory.
///
/// # Errors
/// What the disk answers.
pub fn pairs(job: &Job, file: &File, region: &Region) -> std::io::Result<Option<(Duration, u64)>> {
    let Ok(ring) = IoUring::new(2) else {
        return Ok(None);
    };
    let _bound = bind(&job.cpus);
    let mut pairs = Pairs {
        memory: Memory::new(job, region, Part::ALL),
        places: Places::new(job, 2, 6),
        used: 0,
        ring,
        job,
        file,
        region,
    };
    let mut alone = Vec::new();
    for _ in 0..ALONE {
        let begin = Instant::now();
        pairs.begin(0)?;
        pairs.end(1)?;
        alone.push(begin.elapsed());
    }
    alone.sort_unstable();
    let alone = alone[ALONE / 2];
    let (mut longest, mut all) = (Duration::ZERO, 0);
    for step in 0..DISTANCES {
        let distance = alone * step / DISTANCES;
        let (begin, mut n, mut together) = (Instant::now(), 0u64, 0u64);
        while n < 8 || begin.elapsed() < job.duration / DISTANCES {
            together += u64::from(pairs.ends_together(distance)?);
            n += 1;
        }
        all += n;
        if together * 2 < n {
            break;
        }
        longest = distance;
    }
    Ok(Some((longest, all)))
}

struct Pairs<'a> {
    memory: Memory<'a>,
    places: Places,
    used: usize,
    ring: IoUring,
    job: &'a Job,
    file: &'a File,
    region: &'a Region,
}

impl Pairs<'_> {
    /// Begins one, as number `slot`.
    fn begin(&mut self, slot: u64) -> std::io::Result<()> {
        let pieces = &self.memory.pieces[self.used];
        self.used = (self.used + 1) % self.memory.pieces.len();
        let fd = types::Fd(self.file.as_raw_fd());
        let entry = opcode::Readv::new(fd, pieces.as_ptr(), pieces.len() as u32)
            .offset(self.places.offset(self.job))
            .build()
            .user_data(slot);
        // SAFETY: the region and `file` outlive every request: `end` waits for all that were begun, or the region is kept.
        // Nobody looks at what reads leave there. The ring has room for two.
        unsafe { self.ring.submission().push(&entry) }.expect("a ring of two entries");
        loop {
            match self.ring.submit() {
                Ok(_) => return Ok(()),
                Err(e) => self.again(e)?,
            }
        }
    }

    /// Waits for `n` in flight; how long after the first one the last one was seen.
    fn end(&mut self, n: usize) -> std::io::Result<Duration> {
        let (mut first, mut ended) = (None, 0);
        let mut failed = None;
        loop {
            let now = Instant::now();
            for done in self.ring.completion() {
                ended += 1;
                first.get_or_insert(now);
                if done.result() < 0 {
                    failed = Some(std::io::Error::from_raw_os_error(-done.result()));
                } else if done.result() as u64 != self.job.io {
                    failed = Some(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
            if ended == n {
                let apart = first.map_or(Duration::ZERO, |first| now - first);
                return failed.map_or(Ok(apart), Err);
            }
            if let Err(e) = self.ring.submit_and_wait(1) {
                self.again(e)?;
            }
        }
    }

    fn ends_together(&mut self, distance: Duration) -> std::io::Result<bool> {
        let begin = Instant::now();
        self.begin(0)?;
        while begin.elapsed() < distance {
            std::hint::spin_loop();
        }
        self.begin(1)?;
        Ok(self.end(2)? <= TOGETHER)
    }

    /// An error of the ring: one that passes, or the end; requests may be in flight then.
    fn again(&self, e: std::io::Error) -> std::io::Result<()> {
        match e.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
            _ => {
                self.region.keep();
                Err(e)
            }
        }
    }
}

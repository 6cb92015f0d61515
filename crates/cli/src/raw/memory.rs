//! The memory of `O_DIRECT` requests: in one piece on huge pages, or scattered.
#![allow(unsafe_code)]

use super::Job;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// The memory of a job's requests: more than CPUs have caches for it.
const MEMORY: usize = 64 << 20;
const HUGE: usize = 2 << 20;
const PAGE: usize = 4096;

/// Memory that requests read into and write from: one mapping, on huge pages where there are any. Nobody looks at what is
/// in it, so jobs may share it.
pub struct Region {
    start: usize,
    mapped: usize,
    /// The first huge page, and the bytes from there.
    base: usize,
    len: usize,
    /// Requests may be in flight for ever.
    in_use: AtomicBool,
}

impl Region {
    /// Memory for any job.
    ///
    /// # Errors
    /// When there is none.
    pub fn new() -> std::io::Result<Region> {
        Region::with(MEMORY)
    }

    /// Memory for `job`.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(job: &Job) -> std::io::Result<Region> {
        Region::with(MEMORY.max(slot_bytes(job)))
    }

    /// Requests may be in flight that nobody can wait for: it stays.
    pub fn keep(&self) {
        // Relaxed: whoever drops the region has joined this thread, or is it.
        self.in_use.store(true, Ordering::Relaxed);
    }

    fn with(bytes: usize) -> std::io::Result<Region> {
        let len = bytes.next_multiple_of(HUGE);
        let mapped = len + HUGE;
        // SAFETY: a new private mapping, of nobody's memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let base = start.cast::<u8>().wrapping_add(start.align_offset(HUGE));
        // SAFETY: `len` bytes from `base` lie in the mapping, which nobody else knows. Whether there are huge pages is the
        // kernel's choice: without, the answer does not matter.
        unsafe {
            libc::madvise(base.cast(), len, libc::MADV_HUGEPAGE);
            base.write_bytes(0xC3, len);
        }
        Ok(Region {
            start: start.expose_provenance(),
            base: base.expose_provenance(),
            mapped,
            len,
            in_use: AtomicBool::new(false),
        })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if *self.in_use.get_mut() {
            return;
        }
        let start = std::ptr::with_exposed_provenance_mut(self.start);
        // SAFETY: the mapping of `with`, in which no request is in flight any more.
        unsafe { libc::munmap(start, self.mapped) };
    }
}

/// Whose memory it is: that of every `of`th request, from the `first` on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub first: usize,
    pub of: usize,
}

impl Part {
    pub const ALL: Part = Part { first: 0, of: 1 };
}

/// Memory for requests: for as many as the region has room for, or as are in flight where that is more.
pub(super) struct Memory<'a> {
    /// Each request's pieces.
    pub pieces: Vec<Vec<libc::iovec>>,
    _region: &'a Region,
}

impl Memory<'_> {
    /// For `job`: a request's pieces are alike, to a page, with a page between them. Requests share memory when there is too
    /// little.
    pub fn new<'a>(job: &Job, region: &'a Region, part: Part) -> Memory<'a> {
        let pages = (job.io as usize).div_ceil(PAGE).max(1);
        let pieces = (job.pieces.max(1) as usize).min(pages);
        let slot = slot_bytes(job);
        assert!(slot <= region.len, "a request is larger than all memory");
        let slots = region.len / slot;
        let of = |i: usize| {
            let base = region.base + i % slots * slot;
            let piece = |k: usize| {
                let [from, to] = [k, k + 1].map(|k| k * pages / pieces);
                libc::iovec {
                    iov_base: std::ptr::with_exposed_provenance_mut(base + (from + k) * PAGE),
                    iov_len: (to - from) * PAGE,
                }
            };
            (0..pieces).map(piece).collect()
        };
        Memory {
            pieces: (part.first..slots.max(job.depth as usize))
                .step_by(part.of)
                .map(of)
                .collect(),
            _region: region,
        }
    }

    /// One request in the caller's time.
    pub fn transfer(
        &self,
        slot: usize,
        read: bool,
        file: &File,
        offset: u64,
    ) -> std::io::Result<()> {
        let pieces = &self.pieces[slot];
        let (fd, at, n) = (file.as_raw_fd(), pieces.as_ptr(), pieces.len() as i32);
        // SAFETY: the pieces lie in the region, which outlives the call; nobody looks at what requests leave there.
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

    pub fn bytes(&self, slot: usize) -> usize {
        self.pieces[slot].iter().map(|p| p.iov_len).sum()
    }
}

/// What a slot needs, gaps included. One in one piece lies in one huge page.
fn slot_bytes(job: &Job) -> usize {
    let pages = (job.io as usize).div_ceil(PAGE).max(1);
    match (job.pieces as usize).min(pages) {
        0 | 1 => pages * PAGE,
        pieces => (pages + pieces) * PAGE,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Work;
    use super::*;
    use std::path::PathBuf;
    use std::time::Duration;

    #[test]
    fn pieces_are_the_request_and_do_not_adjoin() {
        let region = Region::new().unwrap();
        let memory = |io, pieces, depth| {
            let job = Job {
                path: PathBuf::new(),
                start: 0,
                len: 1 << 30,
                io,
                depth,
                duration: Duration::ZERO,
                work: Work::default(),
                pieces,
                cpus: Vec::new(),
            };
            Memory::new(&job, &region, Part::ALL)
        };
        for (io, pieces, want) in [
            (4096, 1, 1),
            (1 << 20, 1, 1),
            (64 << 10, 99, 16),
            (1 << 20, 254, 254),
            (1 << 20, 40, 40),
        ] {
            let m = memory(io, pieces, 3);
            assert!(m.pieces.len() * io as usize * 3 > MEMORY);
            for slot in 0..m.pieces.len() {
                assert_eq!((m.pieces[slot].len(), m.bytes(slot)), (want, io as usize));
            }
            let mut all: Vec<(usize, usize)> = m.pieces.iter().flatten().map(range).collect();
            all.sort_unstable();
            let apart = |w: &[(usize, usize)]| w[0].1 < w[1].0 || want == 1 && w[0].1 <= w[1].0;
            assert!(all.windows(2).all(apart), "{io} {pieces}");
            let end = region.base + region.len;
            assert!(all[0].0 >= region.base && all[all.len() - 1].1 <= end);
            assert!(end <= region.start + region.mapped && region.base.is_multiple_of(HUGE));
        }
        // More than there may be: slots share.
        let m = memory(1 << 20, 1, 256);
        assert_eq!(range(&m.pieces[0][0]), range(&m.pieces[64][0]));
        assert_eq!(m.pieces.len(), 256);
    }

    fn range(piece: &libc::iovec) -> (usize, usize) {
        let start = piece.iov_base as usize;
        (start, start + piece.iov_len)
    }
}
